"""Invented evidence in the formats of the commands of bench, for the tests of bench.report."""

import json

from PIL import Image

from bench.report.evidence import read_evidence

ARTEFACT = "small.onnx on onnxruntime cpu"
BASELINE = "PyTorch eager (authors)"
SHA = "a" * 64
"""SHA-256 of every artefact: bench.report treats artefacts of one hash as one artefact."""


def environment(*gpus, **changes):
    return {
        "time": "2026-11-22T17:37:51+00:00", "command": "-m bench.latency --model small.onnx",
        "commit": "7e5fad1ecb02", "platform": "Linux", "processor": "AMD EPYC", "processors": 2,
        "gpu": {"gpus": list(gpus), "cuda_version": None, "problem": None},
        "versions": {"python": "3.11.7", "numpy": "2.4.6", "torch": "2.13.0+cpu"},
        **changes,
    }  # fmt: skip


def a_run(*seconds, file=None, sha256=SHA, **changes):
    """A run of an artefact, or of PyTorch if there is no `file`; each round takes `seconds`.

    Rounds and samples are enough that bench.report warns of neither.
    """
    rounds = max(10, -(-30 // len(seconds)))
    ms = sorted(1e3 * second for second in seconds)
    p50, last = ms[len(ms) // 2], ms[-1]
    return {
        "kind": "artefact" if file else "pytorch",
        "artefact": {"file": file, "sha256": sha256, "bytes": 5_700_000} if file else None,
        "variant": "small",
        "milliseconds": {"p50": p50, "p90": last, "p99": last, "mean": p50, "iqr": 0.05 * p50},
        "milliseconds_per_frame": p50, "fps": 1e3 / p50, "samples": len(ms) * rounds,
        "seconds": [list(seconds)] * rounds, "warm_up": {"runs": 6, "steady": True}, "warnings": [],
        "work": {"operations": 25.2e9, "bytes_moved": 1.0e9, "bytes_least": 1.2e7},
        "roofline": {
            "flops_per_second": 25.2e12 / p50, "share_of_matmul": 0.4321,
            "bytes_per_second": 1e12 / p50, "share_of_copy": 0.1,
        },
        "cold": {
            "import_seconds": 0.3, "load_seconds": 0.25, "first_pair_seconds": 0.4,
            "peak_host_bytes": 412_000_000, "device_bytes": None,
        },
        "parts_of_a_call_milliseconds": {}, "stream": None, **changes,
    }  # fmt: skip


def a_case(runs=None, *, size="256x448", **changes):
    """A case with the ratio of each run of PyTorch to each run of an artefact."""
    if runs is None:
        runs = {
            ARTEFACT: a_run(0.1, 0.106, 0.109, file="small.onnx"),
            BASELINE: a_run(0.133, 0.139, 0.145),
        }
    kinds = {name: run["kind"] for name, run in runs.items()}
    figures = {"p50": 1.31, "low": 1.28, "high": 1.35, "confidence": 0.95}
    ratios = [
        {"slower": slow, "faster": fast, **figures}
        for slow in runs if kinds[slow] == "pytorch"
        for fast in runs if kinds[fast] == "artefact"
    ]  # fmt: skip
    return {
        "dataset": None, "size": size, "factor": 2, "runs": runs, "ratios": ratios, **changes,
    }  # fmt: skip


def latency(*cases, **changes):
    return {
        "kind": "latency", "format_version": 1, "what": "one pair, end to end", "threads": 2,
        "ceilings": {
            "matmul_flops_per_second": 1.2e11, "copy_bytes_per_second": 1.1e10,
            "measured_with": "torch 2.13.0+cpu, 2 threads",
        },
        "cases": list(cases) or [a_case()], "layers_milliseconds": {},
        "environment": environment(), **changes,
    }  # fmt: skip


def an_artefact(name="small.onnx", **changes):
    return {
        "name": name, "sha256": SHA, "bytes": 1, "variant": "small", "precision": "fp32",
        "io": "frames", "tuned_for": "cpu", "flow_scale": 1.0, "backend": "onnxruntime cpu",
        "compared": "bytes", **changes,
    }  # fmt: skip


def a_result(*, mean=89.04, identical=0, worst=85.0, sample="1311", timestep=0.5, **changes):
    """Summary of one artefact; the first arguments describe its agreement with PyTorch."""
    return {
        "compared": "bytes", "psnr": 35.1, "reference_psnr": 35.11, "drop": 0.01,
        "identical_to_truth": 0, "by_timestep": [],
        "against_reference": {
            "mean": mean, "identical": identical,
            "worst": {"sample": sample, "timestep": timestep, "psnr": worst},
        },
        "worst_drop": {"sample": "1631", "timestep": 0.5, "drop": 0.02},
        **changes,
    }  # fmt: skip


IDENTICAL = a_result(mean=None, identical=2, worst=None)


def parity(*results, artefacts=None, weights=(), summary=(), **changes):
    """Header, two samples and summary; `changes` are those of the configuration.

    Args:
        results: One for each artefact.
        artefacts: The artefacts; "small.onnx" alone if left out.
        weights: Changes of the configuration's weights.
        summary: Changes of the summary.
        changes: "environment", or keys of the configuration.
    """
    artefacts, results = artefacts or [an_artefact()], results or [a_result()]
    header = {
        "kind": "parity",
        "format_version": 1,
        "environment": changes.pop("environment", environment()),
        "configuration": {
            "dataset": "ucf101", "title": "UCF101", "protocol": {"factor": 2, "crop": None},
            "samples": 2, "official_samples": 2, "every": 1, "limit": None, "root_name": "root",
            "metrics": ["psnr"], "reference": "float32 PyTorch on cpu", "artefacts": artefacts,
            "weights": {
                "name": "demo", "sha256": "b" * 64, "variant": "small",
                "time_steps": "arbitrary", "random": False, **dict(weights),
            },
            "notes": [], **changes,
        },
    }  # fmt: skip
    names = [one["name"] for one in artefacts]
    end = {
        "samples": 2, "damaged": [], "artefacts": dict(zip(names, results, strict=True)),
        "published": None, "pictures": [], **dict(summary),
    }  # fmt: skip
    return [header, {"sample": "1", "seconds": 0.4}, {"sample": "2", "seconds": 0.4},
            {"summary": end}]  # fmt: skip


def a_method(name, *seconds, mean=37.4, lowest=31.8, reference=(3.0,)):
    """A method of a clip with ten new frames; `reference` are the seconds of the reference."""
    median = sorted(seconds)[len(seconds) // 2]
    p50 = sorted(reference)[len(reference) // 2] / median
    return {
        "name": name, "how": {}, "seconds": list(seconds), "frames_per_second": 10 / median,
        "psnr": {"mean": mean, "min": lowest, "each": [mean] * 10},
        "ratio": {"p50": p50, "low": p50, "high": p50, "confidence": 0.95},
    }  # fmt: skip


def alternatives(*methods, **changes):
    """A record of bench.alternatives: ten new frames of walk.mkv; PyTorch is the reference."""
    reference = {**a_method(BASELINE, 3.0), "ratio": None}
    return {
        "kind": "alternatives", "format_version": 1, "what": "a clip", "clip": "walk.mkv",
        "size": [480, 640], "pairs": 10, "threads": 2, "reference": BASELINE,
        "methods": [reference, *methods],
        "environment": environment(instruction_sets=["avx2", "avx512_bf16"]), **changes,
    }  # fmt: skip


def a_picture(folder, number=0, *, sample="1311", artefact="small.onnx"):
    """An entry of a summary's `pictures`; writes its files, gradients of 32x24, below `folder`."""
    (folder / "p").mkdir(exist_ok=True)
    paths = {kind: f"p/{number}_{kind}.png" for kind in ("reference", "made", "error")}
    for gain, path in enumerate(paths.values(), 1):
        gradient = Image.linear_gradient("L").resize((32, 24))
        gradient.point([value * gain // 3 for value in range(256)]).save(folder / path)
    return {"sample": sample, "timestep": 0.5, "artefact": artefact, "psnr": 85.0, **paths}


def write(path, record):
    """Writes a record (a dict) as JSON, or the lines of a parity file (a list)."""
    lines = [record] if isinstance(record, dict) else record
    path.write_text("\n".join(map(json.dumps, lines)))
    return path


def write_all(folder, *records):
    """Writes records to files named 0.json, 1.jsonl and so on; returns their paths."""
    return [
        write(folder / f"{number}.{'json' if isinstance(record, dict) else 'jsonl'}", record)
        for number, record in enumerate(records)
    ]


def evidence_of(folder, *records):
    """Writes records as `write_all` does, and reads them."""
    return read_evidence(write_all(folder, *records))
