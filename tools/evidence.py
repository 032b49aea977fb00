"""Measures the evidence of docs/benchmarks.md again: quality on data sets and clips, and latency.

    python tools/evidence.py --data DIR --output bench/results

DIR has the folders UCF101 and Middlebury in their official layouts, and the clips juggle.mp4 and
london_60fps.mp4 (docs/benchmarks.md says where they come from). Nothing else may run on the
machine: the whole takes about 40 minutes on two CPUs. Files that exist are replaced. The checkout
must have no changes, so that the commit in the files is the one that was measured.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]

_WALK = ROOT / "export" / "gate" / "frames" / "walk.mkv"

SMALL = ("small_onnxruntime.onnx", "small_openvino.onnx")
"""The artefacts of the shipped weights, of free size."""
_TO_ONNX = ("export.to_onnx", "--weights", "demo")
_BUILD = ("export.build_engine", "--weights", "demo", "--backend")
_CLIP_SIZE = "256x448"
_INT8 = {
    f"int8_{backend}_{_CLIP_SIZE}.onnx": (
        *_BUILD, backend, "--precision", "int8", "--size", _CLIP_SIZE, "--calibrate",
        "walk.mkv",
    )
    for backend in ("onnxruntime", "openvino")
}  # fmt: skip

ARTEFACTS: dict[str, tuple[str, ...]] = {
    **{f"small_{backend}.onnx": (*_BUILD, backend) for backend in ("onnxruntime", "openvino")},
    "small_plain.onnx": _TO_ONNX,
    "small_float.onnx": (*_TO_ONNX, "--io", "float"),
    "small_fp16.onnx": (*_TO_ONNX, "--precision", "fp16"),
    "small_x8.onnx": (*_BUILD, "openvino", "--size", "352x640", "--steps-per-call", "7"),
    "small_scale08.onnx": (*_BUILD, "openvino", "--size", "720x1280", "--flow-scale", "0.8"),
    **{
        f"base_{backend}.onnx": ("export.build_engine", "--weights", "base.pth", "--backend",
                                 backend, "--time", "arbitrary")
        for backend in ("onnxruntime", "openvino")
    },
    **_INT8,
}  # fmt: skip
"""Name of a file -> module and arguments of the command that builds it."""

_DEMO = ("--weights", "demo")
_RANDOM = ("--weights", "base.pth", "--random-weights")
PARITY: dict[str, tuple[str, ...]] = {
    "parity_ucf101": ("--model", *SMALL, "small_float.onnx", *_DEMO, "--dataset", "ucf101",
                      "--root", "UCF101"),
    "parity_middlebury": ("--model", *SMALL, "small_plain.onnx", "small_float.onnx",
                          "small_fp16.onnx", *_DEMO, "--dataset", "middlebury", "--root",
                          "Middlebury"),
    "parity_juggle": ("--model", *SMALL, *_DEMO, "--dataset", "folder", "--root", "juggle.mp4",
                      "--every", "5", "--limit", "12"),
    "parity_london_8x": ("--model", *SMALL, *_DEMO, "--dataset", "folder", "--factor", "8",
                         "--root", "london_60fps.mp4", "--every", "2", "--worst", "2",
                         "--pictures", "pictures"),
    "parity_int8": ("--model", *_INT8, *_DEMO, "--dataset", "folder", "--root", "juggle_448.mkv",
                    "--every", "2", "--limit", "24"),
    "parity_base": ("--model", "base_onnxruntime.onnx", "base_openvino.onnx", *_RANDOM,
                    "--dataset", "ucf101", "--root", "UCF101", "--every", "32"),
}  # fmt: skip
"""Name of a file -> arguments of bench.parity."""

_BASELINES = ("--compare", "authors", "compile")
_SIZES = ("--size", "256x448", "480x640", "720x1280", "1080x1920", "--samples", "10")
LATENCY: dict[str, tuple[str, ...]] = {
    "latency_small_openvino": ("--model", "small_openvino.onnx", "--precision", "fp32", "bf16",
                               *_DEMO, *_BASELINES, *_SIZES),
    "latency_small_onnxruntime": ("--model", "small_plain.onnx", "small_onnxruntime.onnx",
                                  "--backend", "onnxruntime", *_DEMO, "--compare", "authors",
                                  *_SIZES),
    "latency_small_4k": ("--model", "small_openvino.onnx", "--precision", "fp32", "bf16",
                         "--size", "2160x3840", "--samples", "4", "--seconds", "0"),
    "latency_base": ("--model", "base_onnxruntime.onnx", "base_openvino.onnx", "--weights",
                     "base.pth", *_BASELINES, "--size", "256x448", "720x1280", "--samples", "10"),
    "latency_sets": ("--model", "small_openvino.onnx", *_DEMO, "--dataset", "ucf101",
                     "middlebury", "--root", "UCF101", "Middlebury"),
    "latency_vimeo90k": ("--model", "small_openvino.onnx", *_DEMO, "--dataset", "vimeo90k"),
    "latency_adobe240": ("--model", "small_x8.onnx", *_DEMO, "--dataset", "adobe240",
                         "--samples", "10"),
    "latency_snufilm": ("--model", "small_scale08.onnx", *_DEMO, "--dataset", "snufilm",
                        "--samples", "10"),
}  # fmt: skip
"""Name of a file -> arguments of bench.latency."""


def steps() -> Iterator[tuple[str, tuple[str, ...]]]:
    """Yields name and command (module and arguments) of each measurement."""
    for name, arguments in PARITY.items():
        yield name, ("bench.parity", *arguments, "--overwrite", "--output", f"{name}.jsonl")
    for name, arguments in LATENCY.items():
        yield name, ("bench.latency", *arguments, "--json", f"{name}.json")


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True, help="folder of the data")
    parser.add_argument("--output", type=Path, required=True, help="folder of the evidence")
    parser.add_argument("--only", nargs="+", metavar="NAME", help="names of measurements")
    parser.add_argument("--work", type=Path, help="folder of the artefacts (default: a new one)")
    args = parser.parse_args()
    chosen = [(name, command) for name, command in steps() if not args.only or name in args.only]
    work = args.work or Path(tempfile.mkdtemp(prefix="evidence-"))
    work.mkdir(parents=True, exist_ok=True)
    for item in args.data.iterdir():
        if not (work / item.name).exists():
            (work / item.name).symlink_to(item.resolve())
    _prepare(work, {argument for _, command in chosen for argument in command})
    for name, command in chosen:
        print(f"== {name}", flush=True)
        _run(work, *command)
        shutil.copy(work / command[-1], args.output)
        if "pictures" in command:
            shutil.rmtree(args.output / "pictures", ignore_errors=True)
            shutil.copytree(work / "pictures", args.output / "pictures")


def _prepare(work: Path, needed: set[str]) -> None:
    """Makes the scaled clip, the random weights and the artefacts that `needed` names."""
    if not (work / _WALK.name).exists():
        (work / _WALK.name).symlink_to(_WALK)  # The clip that int8 models are calibrated with.
    if "juggle_448.mkv" in needed and not (work / "juggle_448.mkv").exists():
        _scale_clip(work / "juggle.mp4", work / "juggle_448.mkv")
    if not (work / "base.pth").exists():
        import torch

        from bench.runs.authors import random_network

        torch.save(random_network("base").state_dict(), work / "base.pth")
    for name, command in ARTEFACTS.items():
        if name in needed and not (work / name).exists():
            print(f"== {name}", flush=True)
            _run(work, *command, "--output", name)


def _scale_clip(source: Path, target: Path) -> None:
    """Writes the first 100 frames of a video at 448x256 without loss."""
    import av

    with av.open(str(source)) as given, av.open(str(target), "w") as out:
        stream = out.add_stream("ffv1", rate=given.streams.video[0].average_rate)
        stream.width, stream.height, stream.pix_fmt = 448, 256, "yuv420p"
        for number, frame in enumerate(given.decode(video=0)):
            if number == 100:
                break
            out.mux(stream.encode(frame.reformat(448, 256, "yuv420p", interpolation="AREA")))
        out.mux(stream.encode())


def _run(work: Path, module: str, *arguments: str) -> None:
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    subprocess.run(
        [sys.executable, "-m", module, *arguments],
        check=True, cwd=work, env={**os.environ, "PYTHONPATH": path},
    )  # fmt: skip


if __name__ == "__main__":
    main()
