"""bench.report: tables of the methods of bench.alternatives, and the summary of their speed."""

import pytest

import report_evidence as ev
from bench.report.__main__ import tables_as_markdown
from bench.report.tables import report_tables
from bench.report.text import markdown_table
from report_evidence import BASELINE, a_method, alternatives, evidence_of, latency

FP32 = "demo on openvino cpu fp32"
INT8 = "int8_480x640.onnx on openvino cpu bf16"
OTHER_CPU = ev.environment(instruction_sets=["avx2"])


def tables_of(folder, *records):
    return report_tables(evidence_of(folder, *records))


def test_the_table_of_a_clip_has_a_row_for_each_method_and_the_machine(tmp_path):
    record = alternatives(a_method(FP32, 1.5, 1.4, 1.7, mean=37.456), a_method("fast", 0.002))
    record["methods"][2]["seconds"] *= 3
    record["methods"][0]["seconds"] *= 3
    table = tables_of(tmp_path, record)["alternatives-walk"]
    assert (
        markdown_table(table)
        == f"""\
| method | new frames/s | {BASELINE} = 1 | PSNR to the true frames, dB | lowest |
| --- | ---: | ---: | ---: | ---: |
| {BASELINE} | 3.33 | 1 | 37.40 | 31.80 |
| {FP32} | 6.67 | 2.00 | 37.46 | 31.80 |
| fast | 5000 | 1500 | 37.40 | 31.80 |

10 new frames of walk.mkv at 640x480, 2 threads, medians of 3 rounds.

0.json: AMD EPYC (avx512_bf16), 2 CPUs, 2 threads; python 3.11.7, torch 2.13.0+cpu; commit \
7e5fad1ecb02.
"""
    )


def test_each_clip_has_a_table_and_a_second_file_of_a_clip_gets_a_number(tmp_path):
    records = [
        alternatives(clip=clip) for clip in ("walk.mkv", "a b.mp4", "walk.mp4", "walk-2.mp4")
    ]
    names = [name for name in tables_of(tmp_path, *records) if name.startswith("alternatives")]
    assert names == [
        "alternatives-walk", "alternatives-a_b", "alternatives-walk-2", "alternatives-walk-2-2",
    ]  # fmt: skip


def test_machines_of_clips_are_not_listed_with_other_tables(tmp_path):
    text = tables_as_markdown(tables_of(tmp_path, latency(), alternatives()))
    assert "| machine |" not in text.partition("## Origin")[0]


def test_the_summary_has_the_main_methods_with_readable_names(tmp_path):
    large = alternatives(a_method(INT8, 2.0), size=[720, 1280], clip="juggle.mp4")
    small = alternatives(
        a_method("plain.onnx on vs-mlrt OpenVINO", 2.5), a_method(FP32, 1.5),
        a_method("mean of the two frames", 0.1),
    )  # fmt: skip
    table = tables_of(tmp_path, large, small)["speed-summary"]
    assert (
        markdown_table(table)
        == """\
| method | 640x480: new frames/s | 640x480: times PyTorch | 1280x720: new frames/s \
| 1280x720: times PyTorch |
| --- | ---: | ---: | ---: | ---: |
| published code in eager PyTorch | 3.33 | 1 | 3.33 | 1 |
| this package, float32 | 6.67 | 2.00 | - | - |
| this package, int8 with bfloat16 | - | - | 5.00 | 1.50 |
| vs-mlrt, OpenVINO | 4.00 | 1.20 | - | - |
"""
    )


@pytest.mark.parametrize(
    "other",
    [
        alternatives(a_method(FP32, 0.1), environment=OTHER_CPU),
        alternatives(a_method(FP32, 0.1), reference=FP32),
        alternatives(a_method(FP32, 0.1), pairs=9),
    ],
)
def test_the_summary_uses_the_longest_clip_measured_with_bfloat16_and_pytorch(tmp_path, other):
    alone = tables_of(tmp_path, alternatives(a_method(FP32, 1.5)))["speed-summary"].rows
    both = tables_of(tmp_path, alternatives(a_method(FP32, 1.5)), other)["speed-summary"].rows
    assert both == alone
    assert len(alone) == 2


def test_without_files_of_alternatives_there_is_no_summary(tmp_path):
    found = tables_of(tmp_path, latency(), alternatives(environment=OTHER_CPU))
    assert "speed-summary" not in found
