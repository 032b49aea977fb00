import json
import os
import re
import shutil
import struct
import subprocess
import sys
import zlib
from html.parser import HTMLParser

import pytest
from PIL import Image

from bench.report.__main__ import main, tables_as_markdown
from bench.report.evidence import EvidenceError, read_evidence
from bench.report.readme import with_tables
from bench.report.runs import compared_runs, measured_runs
from bench.report.tables import latency_table, parity_table, report_tables, roofline_table
from bench.report.text import Table, markdown_table, markdown_text, rounded, signed

ARTEFACT = "small.onnx on onnxruntime cpu"
BASELINE = "PyTorch eager (authors)"
SHA = "a" * 64
H200 = {"name": "NVIDIA H200", "compute_capability": "9.0"}
HOSTILE = "</script><script>alert(1)</script>|$x$ <img src=http://evil.example/a.png>"


# Evidence as bench.latency and bench.parity write it, made up


def an_environment(**changes):
    return {
        "time": "2026-11-22T17:37:51+00:00",
        "command": "-m bench.latency --model small.onnx",
        "commit": "7e5fad1ecb02",
        "platform": "Linux",
        "processor": "AMD EPYC",
        "processors": 2,
        "gpu": {"gpus": [], "cuda_version": None, "problem": "no NVIDIA driver was found"},
        "versions": {"python": "3.11.7", "numpy": "2.4.6", "torch": "2.13.0+cpu"},
        **changes,
    }


def a_run(seconds, *, file=None, sha256=SHA, variant="small", warnings=(), **changes):
    """An artefact, or PyTorch where there is no file; `seconds` are of one round."""
    ms = sorted(1e3 * s for s in seconds)
    p50 = ms[len(ms) // 2]
    return {
        "kind": "artefact" if file else "pytorch",
        "artefact": {
            "file": file, "sha256": sha256, "bytes": 5_700_000, "weights_sha256": "c" * 64,
            "variant": variant, "precision": "fp32", "io": "frames", "tuned_for": "cpu",
            "flow_scale": 1.0, "frames_per_call": 1,
        } if file else None,
        "variant": variant,
        "milliseconds": {
            "p50": p50, "p90": ms[-1], "p99": ms[-1], "mean": p50, "iqr": 0.05 * p50
        },
        "milliseconds_per_frame": p50,
        "fps": 1e3 / p50,
        "samples": len(ms),
        "seconds": [list(seconds)],
        "warm_up": {"runs": 6, "steady": True},
        "warnings": list(warnings),
        "work": {"operations": 25.2e9, "bytes_moved": 1.0e9, "bytes_least": 1.2e7},
        "roofline": {
            "flops_per_second": 25.2e12 / p50, "share_of_matmul": 0.4321,
            "bytes_per_second": 1e12 / p50, "share_of_copy": 0.1,
        },
        "cold": {
            "import_seconds": 0.3, "load_seconds": 0.25, "first_pair_seconds": 0.4,
            "peak_host_bytes": 412_000_000, "device_bytes": None,
        },
        "parts_of_a_call_milliseconds": {},
        "stream": None,
        **changes,
    }  # fmt: skip


def a_case(runs=None, *, size="256x448", dataset=None, factor=2, ratio=1.31):
    if runs is None:
        runs = {
            ARTEFACT: a_run((0.1, 0.106, 0.109), file="small.onnx"),
            BASELINE: a_run((0.13, 0.139, 0.145)),
        }
    return {
        "dataset": dataset, "size": size, "factor": factor, "runs": runs,
        "ratios": [
            {"slower": slow, "faster": fast, "p50": ratio, "low": ratio - 0.03,
             "high": ratio + 0.04, "confidence": 0.95}
            for slow in runs if runs[slow]["kind"] == "pytorch"
            for fast in runs if runs[fast]["kind"] == "artefact"
        ],
    }  # fmt: skip


def a_latency_record(*cases, **changes):
    return {
        "kind": "latency",
        "format_version": 1,
        "what": "one pair, end to end",
        "threads": 2,
        "ceilings": {
            "matmul_flops_per_second": 1.2e11, "copy_bytes_per_second": 1.1e10,
            "measured_with": "torch 2.13.0+cpu, 2 threads",
        },
        "cases": list(cases) or [a_case()],
        "layers_milliseconds": {},
        "environment": an_environment(),
        **changes,
    }  # fmt: skip


def an_artefact(name="small.onnx", **changes):
    return {
        "name": name, "sha256": SHA, "bytes": 1, "variant": "small", "precision": "fp32",
        "io": "frames", "tuned_for": "cpu", "flow_scale": 1.0, "backend": "onnxruntime cpu",
        "compared": "bytes", **changes,
    }  # fmt: skip


def a_result(**changes):
    return {
        "compared": "bytes", "psnr": 35.1, "reference_psnr": 35.11, "drop": 0.01,
        "identical_to_truth": 0,
        "by_timestep": [],
        "against_reference": {
            "mean": 89.04, "identical": 0,
            "worst": {"sample": "1311", "timestep": 0.5, "psnr": 85.0},
        },
        "worst_drop": {"sample": "1631", "timestep": 0.5, "drop": 0.02},
        **changes,
    }  # fmt: skip


def parity_lines(artefacts=None, *, dataset="ucf101", title="UCF101", pictures=(), **changes):
    """The header, two samples and the summary; `changes` by the name of the key they change."""
    artefacts = artefacts or [(an_artefact(), a_result())]
    weights = {
        "name": "demo", "sha256": "b" * 64, "variant": "small", "time_steps": "arbitrary",
        "random": changes.pop("random", False),
    }  # fmt: skip
    header = {
        "kind": "parity",
        "format_version": 1,
        "configuration": {
            "dataset": dataset, "title": title, "protocol": {"factor": 2, "crop": None},
            "samples": 2, "official_samples": changes.pop("official", 2), "root_name": "root",
            "every": 1, "limit": None, "metrics": ["psnr"], "weights": weights,
            "reference": "float32 PyTorch on cpu", "artefacts": [one for one, _ in artefacts],
            "notes": changes.pop("notes", []),
        },
        "environment": changes.pop("environment", an_environment()),
    }  # fmt: skip
    sample = {
        "seconds": 0.4,
        "reference": {"bytes": {"psnr": [35.1]}},
        "artefacts": {
            one["name"]: {"psnr": [35.1], "against_reference": [89.0]} for one, _ in artefacts
        },
    }
    summary = {
        "samples": 2, "damaged": [],
        "artefacts": {one["name"]: result for one, result in artefacts},
        "published": None, "pictures": list(pictures), **changes,
    }  # fmt: skip
    return [header, {"sample": "1", **sample}, {"sample": "2", **sample}, {"summary": summary}]


def png(width=32, height=24, colour=(40, 90, 160)):
    """A PNG file: a gradient, so that a page that shows it is not of one colour."""
    rows = b"".join(
        b"\0" + bytes(c * (x + y + 8) // 64 for x in range(width) for c in colour)
        for y in range(height)
    )
    chunks = (
        (b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)),
        (b"IDAT", zlib.compress(rows)),
        (b"IEND", b""),
    )
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        for kind, data in chunks
    )


def a_picture(folder, *, sample="1311", number=0, artefact="small.onnx"):
    """What a summary says of a picture, with its three files written below `folder`."""
    (folder / "p").mkdir(exist_ok=True)
    views = {"reference": (90, 90, 40), "made": (40, 90, 160), "error": (9, 9, 9)}
    paths = {name: f"p/{number}_{name}.png" for name in views}
    for name, colour in views.items():
        (folder / paths[name]).write_bytes(png(colour=colour))
    return {"sample": sample, "timestep": 0.5, "artefact": artefact, "psnr": 85.0, **paths}


def write_json(path, record):
    path.write_text(json.dumps(record))
    return path


def write_lines(path, lines):
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def evidence_of(folder, *records):
    """Reads latency records (dicts) and parity files (lists of lines) from files in `folder`."""
    paths = [
        write_json(folder / f"{number}.json", record)
        if isinstance(record, dict)
        else write_lines(folder / f"{number}.jsonl", record)
        for number, record in enumerate(records)
    ]
    return read_evidence(paths)


def report(*arguments):
    """Runs the command; gives its exit code."""
    with pytest.raises(SystemExit) as ended:
        main(list(map(str, arguments)))
    return ended.value.code


# Numbers and names


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.12345, "0.123"), (9.996, "10.0"), (12.34, "12.3"), (105.5, "106"), (1234.4, "1234"),
     (0.09996, "0.100"), (0, "0.00")],
)  # fmt: skip
def test_numbers_have_three_digits_and_all_before_the_point(value, text):
    assert rounded(value) == text


def test_a_difference_has_a_sign_unless_it_rounds_to_zero():
    assert [signed(v, 3) for v in (0.0123, -0.0123, -0.0001, 0.0)] == [
        "+0.012", "-0.012", "0.000", "0.000",
    ]  # fmt: skip


def test_a_markdown_table_is_well_formed_whatever_the_names():
    nasty = "a|b `c` *d* <e> [f] \\ _g_\nh~i"
    table = Table("latency", "Latency", [{"run": nasty, f"x {nasty}": "1"}], {"\u00b9": nasty})
    lines = markdown_table(table).splitlines()
    cells = [re.split(r"(?<!\\)\|", line) for line in lines[:3]]
    assert {len(row) for row in cells} == {4}
    assert cells[1] == ["", " --- ", " ---: ", ""]
    assert all(sign not in re.sub(r"\\.", "", lines[2]) for sign in "`*<[_~")


def test_names_that_need_nothing_stay_as_they_are():
    assert markdown_text("small_fp32.onnx on cpu, 1.31x") == "small_fp32.onnx on cpu, 1.31x"


# The parity table


def test_a_parity_row_by_hand(tmp_path):
    (row,) = parity_table(evidence_of(tmp_path, parity_lines())).rows
    shown = {title: cell for title, cell in row.items() if cell}
    assert shown == {
        "data set": "UCF101",
        "samples": "2",
        "variant": "small",
        "precision": "fp32",
        "I/O": "frames",
        "compared": "bytes",
        "PyTorch, dB": "35.11",
        "artefact, dB": "35.10",
        "difference, dB": "-0.010",
        "artefact against PyTorch: mean, dB": "89.0",
        "worst, dB (sample)": "85.0 (1311)",
    }


def test_identical_pictures_are_said_to_be(tmp_path):
    agreement = {
        "mean": None, "identical": 2,
        "worst": {"sample": "1", "timestep": 0.5, "psnr": None},
    }  # fmt: skip
    result = a_result(against_reference=agreement, psnr=None, reference_psnr=None, drop=None)
    (row,) = parity_table(evidence_of(tmp_path, parity_lines([(an_artefact(), result)]))).rows
    assert row["artefact against PyTorch: mean, dB"] == row["worst, dB (sample)"] == "identical"
    assert row["PyTorch, dB"] == row["artefact, dB"] == "identical"
    assert row["difference, dB"] == "-"


def test_frames_that_are_identical_are_counted_beside_the_mean_of_the_others(tmp_path):
    agreement = a_result()["against_reference"] | {"identical": 7}
    lines = parity_lines([(an_artefact(), a_result(against_reference=agreement))])
    (row,) = parity_table(evidence_of(tmp_path, lines)).rows
    assert row["artefact against PyTorch: mean, dB"] == "89.0 (7 identical)"


def test_random_weights_show_no_quality_and_a_note_says_why(tmp_path):
    result = a_result(ssim_3d=0.5, reference_ssim_3d=0.5)
    lines = parity_lines([(an_artefact(), result)], random=True)
    table = parity_table(evidence_of(tmp_path, lines))
    (row,) = table.rows
    assert row["variant"] == "small *"
    quality = ("PyTorch, dB", "artefact, dB", "difference, dB", "SSIM (3D)")
    assert [row[title] for title in quality] == ["-"] * 4
    assert row["artefact against PyTorch: mean, dB"] == "89.0"
    assert "\\* Random weights" in markdown_table(table)


def test_trained_weights_have_no_note_on_random_ones(tmp_path):
    assert "Random" not in markdown_table(parity_table(evidence_of(tmp_path, parity_lines())))


def test_notes_and_damaged_samples_are_not_swallowed(tmp_path):
    lines = parity_lines(notes=["The size was forced."], damaged=["0007"], samples=1)
    table = parity_table(evidence_of(tmp_path, lines))
    (row,) = table.rows
    assert row["data set"] == "UCF101 \u00b9 \u00b2"
    assert row["samples"] == "1 of 2"
    assert list(table.notes.values()) == [
        "UCF101: The size was forced.", "UCF101: 1 damaged, left out: 0007.",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("changes", "notes"),
    [
        (
            {"wall_seconds": 81.6},
            ["UCF101: all samples in 82 s, PyTorch, one artefact and metrics"],
        ),
        ({"wall_seconds": None}, []),  # Of a run that was resumed nobody knows.
        ({"wall_seconds": 81.6, "official": 379}, []),
        ({"wall_seconds": 81.6, "official": None}, []),
    ],
)
def test_how_long_a_whole_data_set_takes_is_noted(tmp_path, changes, notes):
    table = parity_table(evidence_of(tmp_path, parity_lines(**changes)))
    assert list(table.notes.values()) == notes


def test_a_time_step_is_named_where_there_are_several(tmp_path):
    agreement = a_result()["against_reference"]
    agreement["worst"]["timestep"] = 0.125
    lines = parity_lines([(an_artefact(), a_result(against_reference=agreement))])
    (row,) = parity_table(evidence_of(tmp_path, lines)).rows
    assert row["worst, dB (sample)"] == "85.0 (1311, t = 0.125)"


def test_published_figures_have_a_column_only_where_there_are_any(tmp_path):
    published = {"source": "paper, base", "psnr": 35.29, "ssim": 0.9693, "ssim_kind": "ssim_3d",
                 "ie": None}  # fmt: skip
    without = parity_lines()
    assert "published" not in parity_table(evidence_of(tmp_path, without)).columns
    table = parity_table(evidence_of(tmp_path, without, parity_lines(published=published)))
    assert [row["published"] for row in table.rows] == ["", "35.29 / 0.9693 (paper, base)"]


def test_artefacts_are_named_only_where_nothing_else_tells_them_apart(tmp_path):
    two = [(an_artefact("a.onnx"), a_result()), (an_artefact("b.onnx", io="float"), a_result())]
    assert "artefact" not in parity_table(evidence_of(tmp_path, parity_lines(two))).columns
    two = [(an_artefact("a.onnx"), a_result()), (an_artefact("b.onnx"), a_result())]
    table = parity_table(evidence_of(tmp_path, parity_lines(two)))
    assert [row["artefact"] for row in table.rows] == ["a.onnx", "b.onnx"]


# The latency and roofline tables


def test_a_latency_row_by_hand(tmp_path):
    artefact, baseline = latency_table(evidence_of(tmp_path, a_latency_record())).rows
    assert {title: cell for title, cell in artefact.items() if cell} == {
        "size": "256x448",
        "factor": "2",
        "variant": "small",
        "run": ARTEFACT,
        "median, ms": "106",
        "p90, ms": "109",
        "per new frame, ms": "106",
        "new frames/s": "9.43",
        "IQR, %": "5.0",
        f"against {BASELINE}": "1.31x (1.28 to 1.35)",
        "peak memory, MB": "412",
        "load, s": "0.250",
    }
    assert baseline["run"] == BASELINE
    assert baseline[f"against {BASELINE}"] == ""


def test_the_interval_of_a_ratio_says_its_confidence(tmp_path):
    table = latency_table(evidence_of(tmp_path, a_latency_record()))
    assert "In brackets: the 95 % confidence interval of the ratio." in table.sources


def test_warnings_are_notes_each_once(tmp_path):
    drift = "The second half is 9 % slower than the first: measure again on an idle machine."
    runs = {
        ARTEFACT: a_run((0.1, 0.2), file="small.onnx", warnings=[drift, "IQR 12 %."]),
        BASELINE: a_run((0.1, 0.2), warnings=[drift]),
    }
    table = latency_table(evidence_of(tmp_path, a_latency_record(a_case(runs))))
    assert [row["run"] for row in table.rows] == [
        f"{ARTEFACT} \u00b9 \u00b2", f"{BASELINE} \u00b9",
    ]  # fmt: skip
    assert table.notes == {"\u00b9": drift, "\u00b2": "IQR 12 %."}
    assert markdown_table(table).count("9 % slower") == 1


def test_a_data_set_is_named_by_its_title_where_parity_knows_it(tmp_path):
    record = a_latency_record(a_case(dataset="ucf101"), a_case(dataset="vimeo90k"))
    table = latency_table(evidence_of(tmp_path, record, parity_lines()))
    assert [row["size"] for row in table.rows[::2]] == ["UCF101, 256x448", "Vimeo90K, 256x448"]


def test_a_roofline_row_by_hand(tmp_path):
    table = roofline_table(evidence_of(tmp_path, a_latency_record()))
    assert {title: table.rows[0][title] for title in table.columns} == {
        "size": "256x448",
        "factor": "2",
        "run": ARTEFACT,
        "GFLOP of a pair": "25.2",
        "GFLOP/s": "238",
        "of the matmul ceiling": "43.2 %",
        "MB moved": "1000",
        "of the copy ceiling": "10.0 %",
    }
    assert table.sources[0] == (
        "Ceilings in 0.json: matmul 120 GFLOP/s, copy 11.0 GB/s, "
        "measured with torch 2.13.0+cpu, 2 threads."
    )


def test_evidence_of_a_gpu_has_other_ceilings_other_runs_and_says_what_is_missing(tmp_path):
    from bench.report.svg import run_styles

    runs = {
        "small.engine on tensorrt": a_run((0.001,), file="small.engine", roofline=None),
        "plain.onnx on tensorrt": a_run((0.002,), file="plain.onnx", roofline=None, kind="plain"),
    }
    failed = {"PyTorch compiled (compile-max:fp16) on cuda:0": {
        "kind": "pytorch", "compare": "compile-max:fp16", "failed": "it had made no pair",
    }}  # fmt: skip
    empty = {**a_case({}, size="2160x3840"), "failed": failed}
    ms = {"p50": 1.66, "p90": 1.7, "p99": 1.7, "mean": 1.66, "iqr": 0.1, "samples": [1.66]}
    ceilings = {
        "gpu": "NVIDIA H100", "matmul_fp16_tflops": {"p50": 661.2, "best": 700.0},
        "matrix": 8192, "milliseconds": ms, "measured_with": "torch 2.13.0, CUDA 13.0",
    }  # fmt: skip
    record = a_latency_record(a_case(runs), empty, ceilings=ceilings, threads=None)
    evidence = evidence_of(tmp_path, record)
    table = latency_table(evidence)
    assert [row["run"] for row in table.rows] == [*runs]
    missing = "at 2160x3840: PyTorch compiled (compile-max:fp16) on cuda:0 (it had made no pair)."
    assert any(line.startswith("Missing in ") and line.endswith(missing) for line in table.sources)
    peak = "matmul of float16 661 TFLOP/s on NVIDIA H100, measured with torch 2.13.0, CUDA 13.0."
    assert roofline_table(evidence).sources[0].endswith(peak)
    styles = run_styles(evidence)
    assert styles["plain.onnx on tensorrt"].colour.startswith("#0b0b")
    assert "it had made no pair" in page_of(tmp_path, record)


def test_ceilings_that_were_not_measured_say_why(tmp_path):
    runs = {ARTEFACT: a_run((0.1,), file="small.onnx", roofline=None)}
    record = a_latency_record(a_case(runs), ceilings={"problem": "torch is not installed"})
    table = roofline_table(evidence_of(tmp_path, record))
    assert table.rows[0]["GFLOP/s"] == table.rows[0]["of the copy ceiling"] == "-"
    assert "not measured (torch is not installed)" in table.sources[0]


def test_runs_whose_work_is_not_known_have_no_roofline(tmp_path):
    runs = {ARTEFACT: a_run((0.1,), file="small.onnx", work=None, roofline=None, cold=None)}
    tables = report_tables(evidence_of(tmp_path, a_latency_record(a_case(runs))))
    assert list(tables) == ["latency"]


def test_equal_environments_are_named_once_with_all_their_files(tmp_path):
    other = an_environment(
        commit="0000000", gpu={"gpus": [H200], "cuda_version": "13.0", "problem": None}
    )
    records = [a_latency_record(), a_latency_record(), a_latency_record(environment=other)]
    table = latency_table(evidence_of(tmp_path, *records))
    assert table.sources[-2:] == [
        "0.json, 1.json: AMD EPYC, 2 processors, 2 threads; python 3.11.7, torch 2.13.0+cpu; "
        "commit 7e5fad1ecb02.",
        "2.json: AMD EPYC, 2 processors, NVIDIA H200, 2 threads; python 3.11.7, "
        "torch 2.13.0+cpu; commit 0000000.",
    ]
    # Rows of two machines in one table have to be told apart.
    assert table.rows[-1]["machine"] == "AMD EPYC, 2 processors, NVIDIA H200"


# Labels


def test_a_run_has_one_label_at_all_sizes_and_in_parity(tmp_path):
    cases = [
        a_case({f"small_{size}.onnx on onnxruntime cpu": a_run((0.1,), file="f", sha256=sha)},
               size=size)
        for size, sha in (("256x448", "1" * 64), ("720x1280", "2" * 64))
    ]  # fmt: skip
    lines = parity_lines([(an_artefact("renamed.onnx", sha256="2" * 64), a_result())])
    evidence = evidence_of(tmp_path, a_latency_record(*cases), lines)
    assert {one.label for one in measured_runs(evidence)} == {ARTEFACT}
    assert {one.label for one in compared_runs(evidence)} == {ARTEFACT}


def test_runs_keep_the_size_in_their_label_where_they_would_be_equal_without(tmp_path):
    names = ["small_256x448.onnx on onnxruntime cpu", ARTEFACT]
    runs = {name: a_run((0.1,), file="f") for name in names}
    evidence = evidence_of(tmp_path, a_latency_record(a_case(runs)))
    assert [one.label for one in measured_runs(evidence)] == names


def test_pytorch_of_two_variants_has_two_labels(tmp_path):
    cases = [a_case({BASELINE: a_run((0.1,), variant=variant)}) for variant in ("small", "base")]
    evidence = evidence_of(tmp_path, a_latency_record(*cases))
    assert [one.label for one in measured_runs(evidence)] == [
        f"{BASELINE}, small", f"{BASELINE}, base",
    ]  # fmt: skip


def test_pytorch_is_grey_and_artefacts_are_not_and_no_two_look_alike(tmp_path):
    from bench.report.svg import run_styles

    runs = {f"{n}.onnx on cpu": a_run((0.1,), file="f") for n in "abcdefghijkl"}
    runs |= {BASELINE: a_run((0.1,)), "PyTorch eager (torch)": a_run((0.1,))}
    styles = run_styles(evidence_of(tmp_path, a_latency_record(a_case(runs))))
    assert len(set(styles.values())) == len(styles) == 14
    grey = {label for label, style in styles.items() if style.colour.startswith("#0b0b")}
    assert grey == {BASELINE, "PyTorch eager (torch)"}


# Reading


def damaged_files(folder):
    """What cannot be used, and what the error has to say of it."""
    record = a_latency_record()
    del record["cases"][0]["runs"][ARTEFACT]["milliseconds"]["p90"]
    empty = a_latency_record()
    empty["cases"][0]["runs"][ARTEFACT]["seconds"] = [[]]
    wrong = parity_lines()
    wrong[-1]["summary"]["samples"] = "two"
    forgot = parity_lines()
    forgot[-1]["summary"]["artefacts"] = {}
    (folder / "cut.json").write_text(json.dumps(a_latency_record())[:400])
    (folder / "nan.json").write_text('{"kind": "latency", "what": NaN}')
    (folder / "latin.json").write_bytes(b'{"kind": "\xe9"}')
    (folder / "middle.jsonl").write_text(
        "\n".join([*map(json.dumps, parity_lines()[:1]), "{", json.dumps(parity_lines()[-1])])
    )
    write_json(folder / "old.json", {"checks": []})
    write_json(folder / "list.json", [])
    write_json(folder / "future.json", a_latency_record(format_version=2))
    write_json(folder / "lacks.json", record)
    write_json(folder / "empty.json", empty)
    write_json(folder / "ceilings.json", a_latency_record(ceilings={"gpu": "NVIDIA H100"}))
    write_json(folder / "size.json", a_latency_record(a_case(size="large")))
    write_lines(folder / "broken.jsonl", parity_lines()[:-1])
    write_lines(folder / "type.jsonl", wrong)
    write_lines(folder / "forgot.jsonl", forgot)
    return {
        "cut.json": "is damaged (Input data was truncated)",
        "ceilings.json": "it has ceilings of gpu",
        "nan.json": "is damaged (JSON is malformed: invalid character",
        "latin.json": "is not UTF-8 text",
        "middle.jsonl": "is damaged (line 2: ",
        "old.json": "found no kind, expected 'latency'",
        "list.json": "is damaged (Expected `object`, got `array`)",
        "future.json": "has format version 2, expected 1",
        "lacks.json": "missing required field `p90` - at `$.cases[0].runs[...].milliseconds`",
        "empty.json": "has no samples",
        "size.json": "the size 'large', not HEIGHTxWIDTH",
        "broken.jsonl": "its run was broken off",
        "type.jsonl": "the last line: Expected `int`, got `str` - at `$.summary.samples`",
        "forgot.jsonl": "says nothing of small.onnx",
    }


def test_a_file_that_is_named_must_be_usable_and_the_error_says_what_is_wrong(tmp_path):
    for name, said in damaged_files(tmp_path).items():
        with pytest.raises(EvidenceError, match=re.escape(said)) as error:
            read_evidence([tmp_path / name])
        assert str(tmp_path / name) in str(error.value)
        assert "\n" not in str(error.value)


def test_what_a_folder_has_besides_is_left_out_and_named(tmp_path, capsys):
    damaged = damaged_files(tmp_path)
    write_json(tmp_path / "good.json", a_latency_record())
    assert report(tmp_path) == 0
    said = capsys.readouterr()
    assert "good.json: AMD EPYC" in said.out
    for name in damaged:
        assert f"left out: {tmp_path / name}" in said.err


def test_a_line_that_was_cut_while_it_was_written_is_of_a_run_that_was_broken_off(tmp_path):
    path = write_lines(tmp_path / "parity.jsonl", parity_lines())
    path.write_text(path.read_text()[:-30])
    with pytest.raises(EvidenceError, match="broken off"):
        read_evidence([path])


def test_files_of_a_folder_are_sorted_and_none_is_read_twice(tmp_path):
    for name in "gbfadec":
        write_json(tmp_path / f"{name}.json", a_latency_record())
    evidence = read_evidence([tmp_path, tmp_path / "a.json"])
    assert [file.path.stem for file in evidence.latencies] == list("abcdefg")


def test_nothing_found_is_an_error_that_says_how_to_make_some(tmp_path, capsys):
    assert report(tmp_path) == 1
    assert "no evidence of latency or parity was found" in capsys.readouterr().err


def test_a_file_that_is_not_there_is_one_sentence(tmp_path, capsys):
    assert report(tmp_path / "no.json") == 1
    assert capsys.readouterr().err.count("\n") == 1


def test_files_of_one_name_are_told_apart_by_their_folders(tmp_path):
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        commit = an_environment(commit=folder)
        write_json(tmp_path / folder / "x.json", a_latency_record(environment=commit))
    evidence = read_evidence([tmp_path / "a", tmp_path / "b"])
    sources = " ".join(latency_table(evidence).sources)
    assert "a/x.json: AMD" in sources
    assert "b/x.json: AMD" in sources


# Markdown and README


@pytest.fixture
def measured(tmp_path):
    """A folder with one latency and one parity file."""
    folder = tmp_path / "results"
    folder.mkdir()
    write_json(folder / "latency.json", a_latency_record())
    write_lines(folder / "parity.jsonl", parity_lines())
    return folder


README = """# Title
<!-- report:parity -->old<!-- /report -->
between
<!-- report:latency -->

<!-- /report -->
end
"""


def test_markdown_has_every_table_under_its_heading(measured, tmp_path, capsys):
    assert report(measured, "--markdown", tmp_path / "tables.md") == 0
    text = (tmp_path / "tables.md").read_text()
    assert re.findall(r"^## .*", text, re.MULTILINE) == [
        "## Quality and parity", "## Latency", "## Share of what the machine can do",
    ]  # fmt: skip
    assert text == tables_as_markdown(report_tables(read_evidence([measured])))


def test_a_readme_gets_its_tables_and_keeps_the_rest(measured, tmp_path):
    path = tmp_path / "README.md"
    path.write_text(README)
    assert report(measured, "--readme", path) == 0
    text = path.read_text()
    tables = report_tables(read_evidence([measured]))
    assert text == (
        f"# Title\n<!-- report:parity -->\n\n{markdown_table(tables['parity'])}\n"
        "<!-- /report -->\nbetween\n"
        f"<!-- report:latency -->\n\n{markdown_table(tables['latency'])}\n<!-- /report -->\nend\n"
    )
    assert report(measured, "--readme", path) == 0
    assert path.read_text() == text


def test_check_changes_nothing_and_names_the_table_that_differs(measured, tmp_path, capsys):
    path = tmp_path / "README.md"
    path.write_text(README)
    assert report(measured, "--readme", path) == 0
    assert report(measured, "--readme", path, "--check") == 0
    stale = path.read_text().replace("89.0", "99.0")
    path.write_text(stale)
    capsys.readouterr()
    assert report(measured, "--readme", path, "--check") == 1
    assert f"{path} is out of date: parity differ" in capsys.readouterr().err
    assert path.read_text() == stale


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("# Title", "has no marker"),
        ("<!-- report:speed --><!-- /report -->", "the table 'speed', which is not known"),
        ("<!-- report:parity -->", "has <!-- report:parity --> with no end"),
        (
            "<!-- report:parity --><!-- report:latency --><!-- /report -->",
            "has <!-- report:parity --> with no end",
        ),
        ("<!-- /report --><!-- report:parity -->", "with no marker before it"),
        ("<!-- report:roofline --><!-- /report -->", "nothing of that was measured"),
    ],
)
def test_markers_that_do_not_fit_are_an_error(tmp_path, capsys, text, said):
    write_lines(tmp_path / "parity.jsonl", parity_lines())
    (tmp_path / "README.md").write_text(text)
    assert report(tmp_path, "--readme", tmp_path / "README.md") == 1
    assert said in capsys.readouterr().err
    assert (tmp_path / "README.md").read_text() == text


def test_check_without_a_readme_is_an_error(measured, capsys):
    assert report(measured, "--check") == 1
    assert "--check was given without --readme" in capsys.readouterr().err


def test_text_outside_the_markers_is_kept_to_the_byte():
    table = Table("parity", "", [{"data set": "x"}])
    text = "a\r\n<!-- report:parity --><!-- /report -->\r\n \u00e9"
    renewed, changed = with_tables(text, {"parity": table}, where="README.md")
    assert changed == ["parity"]
    assert renewed.startswith("a\r\n<!-- report:parity -->")
    assert renewed.endswith("<!-- /report -->\r\n \u00e9")


def test_tables_need_no_matplotlib(measured):
    code = (
        "import sys; sys.modules['matplotlib'] = None; from bench.report.__main__ import main; "
        f"main([{str(measured)!r}])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "## Latency" in done.stdout


# The page


class Page(HTMLParser):
    """What a test looks for: tags with attributes, headings, text."""

    VOID = frozenset({"meta", "link", "img", "input", "br"})

    def __init__(self, text):
        super().__init__()
        self.tags, self.open, self.text, self.headings = [], [], [], []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text.append(data)
        if self.open and self.open[-1] in ("h1", "h2", "h3"):
            self.headings.append(data)


def page_of(folder, *records):
    """Text of the page of records, written to `folder`."""
    from bench.report.page import page

    evidence = evidence_of(folder, *records)
    return page(evidence, report_tables(evidence))


def full_records(folder):
    """Records that have data for every plot, and two pictures."""
    cases = [a_case(size=size) for size in ("256x448", "720x1280")]
    pictures = [a_picture(folder, sample=f"131{k}", number=k) for k in range(2)]
    return [a_latency_record(*cases), parity_lines(pictures=pictures)]


@pytest.fixture
def full(tmp_path):
    """`full_records`, with their pictures in the test's folder."""
    return full_records(tmp_path)


@pytest.fixture(scope="module")
def full_page(tmp_path_factory):
    """The page of `full`, drawn once."""
    folder = tmp_path_factory.mktemp("full")
    return page_of(folder, *full_records(folder))


SIZE, QUALITY = "Latency over frame size", "UCF101: quality against speed"


def test_every_plot_is_there_where_its_data_is(full_page):
    found = Page(full_page)
    assert found.headings == [
        "IFRNet: artefacts against PyTorch", "Quality and parity", "UCF101", "Latency", SIZE,
        "256x448", "720x1280", "Quality against speed", QUALITY,
        "Share of what the machine can do", "Pictures", "Evidence",
    ]  # fmt: skip
    assert [attrs["aria-label"] for tag, attrs in found.tags if attrs.get("role") == "img"] == [
        "UCF101", SIZE, "256x448", "720x1280", QUALITY,
    ]  # fmt: skip


def test_cases_of_one_size_are_told_apart_by_their_variant(tmp_path):
    from bench.report.plots import latency_plots
    from bench.report.svg import run_styles

    records = [
        a_latency_record(a_case({"PyTorch eager (torch)": a_run((0.1,), variant=variant)}))
        for variant in ("base", "small")
    ]
    evidence = evidence_of(tmp_path, *records, a_latency_record(a_case(size="64x80")))
    titles = [plot.title for plot in latency_plots(evidence, run_styles(evidence))]
    assert titles == ["256x448, base", "256x448, small", "64x80"]


def test_a_plot_without_data_is_left_out_with_its_heading(full, tmp_path):
    latency, parity = full
    assert Page(page_of(tmp_path, parity_lines())).headings[1:] == [
        "Quality and parity", "UCF101", "Evidence",
    ]  # fmt: skip
    one_size = a_latency_record()
    assert SIZE not in Page(page_of(tmp_path, one_size)).headings
    other = parity_lines([(an_artefact(sha256="f" * 64), a_result())])
    assert QUALITY not in Page(page_of(tmp_path, latency, other)).headings
    assert QUALITY in Page(page_of(tmp_path, latency, parity)).headings


def test_random_weights_are_plotted_by_agreement_not_by_quality(full, tmp_path):
    text = page_of(tmp_path, full[0], parity_lines(random=True))
    assert "UCF101: agreement against speed" in Page(text).headings
    assert "PSNR to ground truth, dB" not in text


def test_identical_pictures_are_said_to_be_in_the_plot(tmp_path):
    agreement = {
        "mean": None, "identical": 2,
        "worst": {"sample": "1", "timestep": 0.5, "psnr": None},
    }  # fmt: skip
    lines = parity_lines([(an_artefact(), a_result(against_reference=agreement))])
    text = page_of(tmp_path, a_latency_record(), lines)
    svg = re.search(r'aria-label="UCF101".*?</svg>', text, re.DOTALL)
    assert ">identical</text>" in svg[0]


def test_a_run_has_the_same_colour_in_every_plot(full_page):
    assert set(re.findall(r"var\(--series-\d\)", full_page)) == {"var(--series-0)"}
    assert set(re.findall(r"var\(--baseline-\d\)", full_page)) == {"var(--baseline-0)"}
    colours = re.findall(r"--(series|baseline)-(\d):", full_page)
    from bench.report.svg import ARTEFACT_COLOURS, BASELINE_COLOURS

    # Once for light, once for dark.
    for name, count in (("series", ARTEFACT_COLOURS), ("baseline", BASELINE_COLOURS)):
        assert sorted(n for kind, n in colours if kind == name) == sorted(
            2 * [str(n) for n in range(count)]
        )


def test_no_colour_of_matplotlib_is_left(full_page):
    """They would not follow the page into the dark."""
    for svg in re.findall(r"<svg.*?</svg>", full_page, re.DOTALL):
        assert not re.findall(r"#[0-9a-f]{6}", re.sub(r'"#[mp][0-9a-f]+"|url\([^)]*\)', "", svg))


def test_the_page_loads_nothing(full_page):
    assert "://" not in full_page
    for tag, attrs in Page(full_page).tags:
        for name in ("src", "href", "xlink:href", "srcset", "poster", "data", "action"):
            assert re.match(r"#|data:", attrs.get(name) or "#"), (tag, attrs)
    assert not re.search(r"@import|url\((?!#)", full_page)
    # Those of matplotlib would be rules for the whole page.
    assert [tag for tag, _ in Page(full_page).tags].count("style") == 1
    (policy,) = (
        attrs["content"] for _, attrs in Page(full_page).tags
        if attrs.get("http-equiv") == "Content-Security-Policy"
    )  # fmt: skip
    assert policy.startswith("default-src 'none'; img-src data:;")


def test_no_two_elements_have_one_id(full_page):
    ids = [attrs["id"] for _, attrs in Page(full_page).tags if "id" in attrs]
    assert len(set(ids)) == len(ids)


def hostile_records(folder):
    """Every text that comes from a file is an attack."""
    name = f"{HOSTILE}.onnx"
    runs = {
        f"{HOSTILE} on cpu": a_run((0.1, 0.2), file=name, variant=HOSTILE, warnings=[HOSTILE]),
        f"{HOSTILE} eager": a_run((0.1, 0.2), variant=HOSTILE),
    }
    cases = [a_case(runs, dataset=HOSTILE, size=size) for size in ("256x448", "720x1280")]
    environment = an_environment(
        processor=HOSTILE, command=HOSTILE, commit=HOSTILE, versions={"torch": HOSTILE}
    )
    agreement = a_result()["against_reference"]
    agreement["worst"]["sample"] = HOSTILE
    artefact = an_artefact(name, precision=HOSTILE, io=HOSTILE, compared=HOSTILE)
    published = {"source": HOSTILE, "psnr": 35.0, "ssim": None, "ssim_kind": "ssim_3d", "ie": None}
    parity = parity_lines(
        [(artefact, a_result(against_reference=agreement))],
        dataset=HOSTILE, title=HOSTILE, notes=[HOSTILE], environment=environment,
        damaged=[HOSTILE], published=published,
        pictures=[a_picture(folder, sample=HOSTILE, artefact=name)],
    )  # fmt: skip
    parity[0]["configuration"]["weights"]["name"] = HOSTILE
    parity[0]["configuration"]["weights"]["variant"] = HOSTILE
    parity[0]["configuration"]["protocol"] = {HOSTILE: HOSTILE}
    return [
        a_latency_record(*cases, environment=environment, what=HOSTILE,
                         ceilings={"problem": HOSTILE}),
        parity,
    ]  # fmt: skip


def test_names_are_shown_and_never_run(tmp_path):
    text = page_of(tmp_path, *hostile_records(tmp_path))
    found = Page(text)
    assert [attrs for tag, attrs in found.tags if tag == "script"] == [
        {"type": "application/json", "id": "pictures-data"}, {},
    ]  # fmt: skip
    assert all((attrs.get("src") or "data:").startswith("data:") for _, attrs in found.tags)
    # A table, two plots of latency, the list of pictures: there it is read as it is.
    assert sum(HOSTILE in piece for piece in found.text) > 10
    data = re.search(r'<script type="application/json"[^>]*>(.*?)</script>', text, re.DOTALL)
    assert HOSTILE in json.loads(data[1])["views"][0]["title"]
    assert not set(data[1]) & set("<>&")


def test_a_dollar_in_a_name_is_no_formula(tmp_path):
    text = page_of(tmp_path, parity_lines([(an_artefact("a$x^2$.onnx"), a_result())]))
    assert ">a$x^2$.onnx</text>" in text


def test_hostile_names_leave_markdown_tables_whole(tmp_path):
    evidence = evidence_of(tmp_path, *hostile_records(tmp_path))
    for table in report_tables(evidence).values():
        lines = [line for line in markdown_table(table).splitlines() if line.startswith("| ")]
        assert {len(re.findall(r"(?<!\\)\|", line)) for line in lines} == {len(table.columns) + 1}
        assert "<script" not in re.sub(r"\\<", "", markdown_table(table))


def test_the_page_is_the_same_bytes_every_time(full, tmp_path):
    files = [
        write_json(tmp_path / "latency.json", full[0]),
        write_lines(tmp_path / "parity.jsonl", full[1]),
    ]
    made = []
    # Another process has other hashes of strings.
    for seed in "12":
        path = tmp_path / f"{seed}.html"
        done = subprocess.run(
            [sys.executable, "-m", "bench.report", *map(str, files), "--html", str(path)],
            env=os.environ | {"PYTHONHASHSEED": seed},
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        made.append(path.read_bytes())
    assert made[0] == made[1]


def test_pictures_are_embedded_as_they_are_and_equal_ones_once(tmp_path):
    import base64

    pictures = [a_picture(tmp_path, number=k) for k in range(2)]
    text = page_of(tmp_path, parity_lines(pictures=pictures))
    data = re.search(r'<script type="application/json"[^>]*>(.*?)</script>', text, re.DOTALL)
    data = json.loads(data[1])
    # Both pictures have the same three views.
    assert len(data["images"]) == 3
    for view in data["views"]:
        assert (view["width"], view["height"]) == (32, 24)
        for name in ("reference", "made", "error"):
            uri = data["images"][view[name]]
            encoded = uri.removeprefix("data:image/png;base64,")
            assert base64.b64decode(encoded) == (tmp_path / pictures[0][name]).read_bytes()


def test_a_picture_that_is_missing_or_none_is_named(tmp_path, capsys):
    path = write_lines(
        tmp_path / "parity.jsonl", parity_lines(pictures=[a_picture(tmp_path, number=7)])
    )
    picture = tmp_path / "p" / "7_made.png"
    picture.write_bytes(b"JFIF")
    assert report(path, "--html", tmp_path / "page.html") == 1
    assert f"{picture}, a picture of {path}, is no PNG file" in capsys.readouterr().err
    picture.unlink()
    assert report(path, "--html", tmp_path / "page.html") == 1
    assert f"{picture}, a picture of {path}, cannot be read" in capsys.readouterr().err
    assert not (tmp_path / "page.html").exists()


def test_the_page_names_what_was_left_out(tmp_path):
    write_json(tmp_path / "old.json", {"checks": []})
    write_json(tmp_path / "latency.json", a_latency_record())
    assert report(tmp_path, "--html", tmp_path / "page.html") == 0
    assert "old.json is no evidence of latency" in (tmp_path / "page.html").read_text()


# The page in a browser


def chromium():
    """Its path; where there is none the test is skipped, or fails if that was asked for."""
    for name in ("chromium", "chromium-browser", "google-chrome"):
        if path := shutil.which(name):
            return path
    if os.environ.get("FAIL_WITHOUT_CHROMIUM") == "1":
        pytest.fail("FAIL_WITHOUT_CHROMIUM=1 and no chromium, chromium-browser or google-chrome")
    return pytest.skip("no chromium, chromium-browser or google-chrome on PATH")


def browse(page, profile, *options, fragment=""):
    """Opens a page without a window; gives what the browser writes, after no error at all."""
    done = subprocess.run(
        [chromium(), "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run",
         "--disable-background-networking", "--disable-component-update", "--disable-sync",
         "--enable-logging=stderr", "--v=0", "--virtual-time-budget=4000",
         f"--user-data-dir={profile}", *options, f"{page.as_uri()}{fragment}"],
        capture_output=True, text=True, check=False, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    complaints = [line for line in done.stderr.splitlines() if re.search("CONSOLE|Uncaught", line)]
    assert complaints == []
    return done.stdout


def state_of(dom):
    """The data attributes of the page's root, which its script sets."""
    return dict(re.findall(r'data-(\w+)="([^"]*)"', re.search(r"<html[^>]*>", dom)[0]))


def test_the_script_runs_and_a_link_leads_to_a_picture(full_page, tmp_path):
    page = tmp_path / "page.html"
    page.write_text(full_page)
    profile = tmp_path / "profile"
    assert state_of(browse(page, profile, "--dump-dom")) == {
        "ready": "2", "view": "1", "wipe": "50", "error": "1",
    }  # fmt: skip
    dom = browse(page, profile, "--dump-dom", fragment="#view=2&wipe=30&error=0")
    assert state_of(dom) == {"ready": "2", "view": "2", "wipe": "30", "error": "0"}
    assert "--wipe: 30%" in dom
    shown = re.search(r'id="shown">([^<]*)<', dom)[1]
    assert shown == "UCF101, 1311, t = 0.5, small.onnx: 85.0 dB"
    assert re.search(r'<img id="picture-made"[^>]*src="data:image/png;base64,iVBOR', dom)
    assert re.search(r'id="error-pane"[^>]* hidden', dom)


def test_a_link_that_asks_too_much_is_bounded(full_page, tmp_path):
    page = tmp_path / "page.html"
    page.write_text(full_page)
    dom = browse(page, tmp_path / "profile", "--dump-dom", fragment="#view=99&wipe=nonsense")
    assert state_of(dom) == {"ready": "2", "view": "2", "wipe": "50", "error": "1"}


def test_controls_work(full_page, tmp_path):
    """By keyboard and pointer as by their events: the page's own script has to notice."""
    page = tmp_path / "page.html"
    # The policy of the page allows no script but its own, so for this it has to go.
    text = re.sub(r"<meta http-equiv[^>]*>", "", full_page)
    drive = """<script>
const addresses = [];
const step = (act) => {
  act();
  addresses.push(location.hash.replaceAll("&", " "));
};
const wipe = document.getElementById("wipe");
step(() => document.getElementById("next").click());
step(() => document.getElementById("next").click());
step(() => document.getElementById("previous").click());
step(() => {
  wipe.value = 20;
  wipe.dispatchEvent(new Event("input"));
  wipe.dispatchEvent(new Event("change"));
});
step(() => document.getElementById("show-error").click());
const choice = document.getElementById("choice");
step(() => {
  choice.value = "1";
  choice.dispatchEvent(new Event("change"));
});
const stage = document.getElementById("wiped");
const box = stage.getBoundingClientRect();
stage.setPointerCapture = () => {}; // there is no pointer
step(() => {
  const place = { clientX: box.left + 0.75 * box.width, pointerId: 1 };
  stage.dispatchEvent(new PointerEvent("pointerdown", place));
  stage.dispatchEvent(new PointerEvent("pointerup", place));
});
document.documentElement.dataset.addresses = addresses.join(" | ");
</script></body>"""
    page.write_text(text.replace("</body>", drive))
    state = state_of(browse(page, tmp_path / "profile", "--dump-dom"))
    assert state.pop("addresses").split(" | ") == [
        "#view=2 wipe=50", "#view=1 wipe=50", "#view=2 wipe=50", "#view=2 wipe=20",
        "#view=2 wipe=20 error=0", "#view=1 wipe=20 error=0", "#view=1 wipe=75 error=0",
    ]  # fmt: skip
    assert state == {"ready": "2", "view": "1", "wipe": "75", "error": "0"}


def test_hostile_names_run_no_script_in_a_browser(tmp_path):
    page = tmp_path / "page.html"
    page.write_text(page_of(tmp_path, *hostile_records(tmp_path)))
    dom = browse(page, tmp_path / "profile", "--dump-dom")
    assert state_of(dom)["ready"] == "1"


def test_a_page_without_pictures_is_ready(tmp_path):
    page = tmp_path / "page.html"
    page.write_text(page_of(tmp_path, a_latency_record()))
    assert state_of(browse(page, tmp_path / "profile", "--dump-dom")) == {"ready": "0"}


@pytest.mark.parametrize(("scheme", "paper"), [("1", (251, 250, 247)), ("0", (20, 23, 28))])
def test_the_page_is_drawn_light_and_dark(full_page, tmp_path, scheme, paper):
    page, shot = tmp_path / "page.html", tmp_path / "shot.png"
    page.write_text(full_page)
    browse(
        page, tmp_path / "profile", f"--screenshot={shot}", "--window-size=900,1200",
        f"--blink-settings=preferredColorScheme={scheme}",
    )  # fmt: skip
    with Image.open(shot) as picture:
        pixels = picture.convert("RGB")
    assert pixels.getpixel((1, 1)) == paper
    assert len(pixels.getcolors(1 << 20)) > 100
