"""Tables of methods that interpolate the dropped frames of a clip, from `bench.alternatives`."""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import chain, count
from pathlib import PurePath
from typing import TYPE_CHECKING

from bench.records.alternatives import AlternativesMeasurement, MethodRecord
from bench.report.text import NONE, Table
from runtime.errors import counted, rounded

if TYPE_CHECKING:
    from bench.report.evidence import Alternatives

_PUBLISHED = r"PyTorch eager \(authors\)"
_SUMMARISED = (
    ("published code in eager PyTorch", _PUBLISHED),
    ("torch.compile", r"PyTorch compiled \(torch\)"),
    ("this package, float32", r"demo on openvino cpu fp32"),
    ("this package, bfloat16", r"demo on openvino cpu bf16"),
    ("this package, int8 with bfloat16", r"int8\S* on openvino cpu bf16"),
    ("vs-mlrt, OpenVINO", r"\S+ on vs-mlrt OpenVINO"),
)
"""The rows of the summary: the label of a method, and the pattern of its name in the evidence."""

_BFLOAT16 = {"avx512_bf16", "amx_bf16"}


def clip_table(record: AlternativesMeasurement, name: str = "alternatives") -> Table:
    """The methods of one clip with their speed and quality.

    Args:
        record: The evidence.
        name: Name of the table.
    """
    height, width = record["size"]
    clip, rounds = record["clip"], len(record["methods"][0]["seconds"])
    table = Table(name, f"Methods on {clip}, {width}x{height}")
    table.rows = [
        {
            "method": one["name"],
            "new frames/s": rounded(one["frames_per_second"]),
            f"{record['reference']} = 1": _times(one),
            "PSNR to the true frames, dB": f"{one['psnr']['mean']:.2f}",
            "lowest": f"{one['psnr']['min']:.2f}",
        }
        for one in record["methods"]
    ]
    table.sources = [
        f"{record['pairs']} new frames of {clip} at {width}x{height}, "
        f"{counted(record['threads'], 'thread')}, medians of {counted(rounds, 'round')}."
    ]
    return table


def clip_tables(files: Sequence[Alternatives]) -> list[Table]:
    """A table for each file, named after its clip, as "alternatives-walk".

    Further files of the same clip get a number, as "alternatives-walk-2".
    """
    tables: dict[str, Table] = {}
    for file in files:
        stem = re.sub(r"[^\w.-]", "_", PurePath(file.record["clip"]).stem)
        numbers = chain([""], (f"-{number}" for number in count(2)))
        names = (f"alternatives-{stem}{number}" for number in numbers)
        name = next(name for name in names if name not in tables)
        tables[name] = clip_table(file.record, name)
    return list(tables.values())


def speed_summary(files: Sequence[Alternatives]) -> Table:
    """The main methods at each frame size, on CPUs that compute in bfloat16.

    Files with another reference than the published code are left out. Of several files of one size
    the one with the most new frames is used.
    """
    table = Table("speed-summary", "Speed, in short")
    by_size: dict[tuple[int, int], AlternativesMeasurement] = {}
    for file in sorted(files, key=lambda file: file.record["pairs"]):
        published = re.fullmatch(_PUBLISHED, file.record["reference"])
        if published and _BFLOAT16.intersection(file.environment.get("instruction_sets") or ()):
            height, width = file.record["size"]
            by_size[height, width] = file.record
    for label, pattern in _SUMMARISED:
        row = {"method": label}
        for (height, width), record in sorted(by_size.items()):
            one = next((m for m in record["methods"] if re.fullmatch(pattern, m["name"])), None)
            size = f"{width}x{height}"
            row[f"{size}: new frames/s"] = rounded(one["frames_per_second"]) if one else NONE
            row[f"{size}: times PyTorch"] = _times(one) if one else NONE
        if set(row.values()) - {label, NONE}:
            table.rows.append(row)
    return table


def _times(one: MethodRecord) -> str:
    """The speed of a method relative to the reference, as a cell."""
    return "1" if one["ratio"] is None else rounded(one["ratio"]["p50"])
