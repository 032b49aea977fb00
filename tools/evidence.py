"""Measures the evidence of docs/benchmarks.md again: quality on data sets and clips, and latency.

    python tools/evidence.py --data DIR --output bench/results

DIR has the folders UCF101 and Middlebury in their official layouts, and the clips juggle.mp4,
london_60fps.mp4, portrait_4k60.mp4, dovi_1080p.mp4 and 8k24fps_300ms.mp4 (bench/results/README.md
says where they come from). Nothing else may run on the machine: the whole takes about 100 minutes
on two CPUs. Files that exist are replaced. The checkout must have no changes, so that the commit
in the files is the one that was measured.
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

SCALED_CLIPS = (
    ("juggle_448.mkv", "juggle.mp4", (448, 256)),
    ("8k24fps_4k.mkv", "8k24fps_300ms.mp4", (3840, 2160)),
)
"""Name, source, and (width, height) of the clips that are made from others."""

SMALL = ("small_onnxruntime.onnx", "small_openvino.onnx")
"""The artefacts of the shipped weights, of free size."""
_TO_ONNX = ("export.to_onnx", "--weights", "demo")
_BUILD = ("export.build_engine", "--weights", "demo", "--backend")
_CLIP_SIZE = "256x448"
_INT8 = tuple(f"int8_{backend}_{_CLIP_SIZE}.onnx" for backend in ("onnxruntime", "openvino"))
_INT8_720P = "int8_openvino_720x1280.onnx"

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
    **{
        name: (*_BUILD, name.split("_")[1], "--precision", "int8", "--size",
               name.split("_")[2].removesuffix(".onnx"), "--calibrate", "walk.mkv")
        for name in (*_INT8, _INT8_720P)
    },
    **{f"tta_{backend}.onnx": (*_BUILD, backend, "--tta")
       for backend in ("onnxruntime", "openvino")},
    "half_openvino.onnx": (*_BUILD, "openvino", "--flow-scale", "0.5"),
}  # fmt: skip
"""Name of a file -> module and arguments of the command that builds it."""

_DEMO = ("--weights", "demo")
_RANDOM = ("--weights", "base.pth", "--random-weights")
_PSNR = ("--metrics", "psnr")
_TTA = "tta_onnxruntime.onnx"
LARGE_CLIPS = {
    "portrait_4k60.mp4": "2", "8k24fps_4k.mkv": "2", "dovi_1080p.mp4": "6", "juggle.mp4": "12",
}  # fmt: skip
"""Clips on which flow scales are compared -> of how many samples one is measured."""
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
    **{
        f"int8/parity_720p_{precision}": ("--model", "small_openvino.onnx", _INT8_720P,
                                          "--precision", precision, *_DEMO, "--dataset", "folder",
                                          "--root", "juggle.mp4", *_PSNR, "--every", "4",
                                          "--limit", "24")
        for precision in ("fp32", "bf16")
    },
    "tta/parity_ucf101": ("--model", _TTA, *_DEMO, "--dataset", "ucf101", "--root", "UCF101",
                          *_PSNR),
    "tta/parity_middlebury": ("--model", _TTA, *_DEMO, "--dataset", "middlebury", "--root",
                              "Middlebury", *_PSNR),
    **{
        f"tta/parity_walk{suffix}": ("--model", model, *_DEMO, "--dataset", "folder", "--root",
                                     "walk.mkv", *_PSNR)
        for suffix, model in (("", SMALL[0]), ("_tta", _TTA))
    },
    **{
        f"flow_scale/parity_{Path(clip).stem}_{scale}": (
            "--model", f"{model}_openvino.onnx", "--precision", "fp32", *_DEMO, "--dataset",
            "folder", "--root", clip, *_PSNR, "--every", every, "--limit", "11",
        )
        for clip, every in LARGE_CLIPS.items()
        for scale, model in (("full", "small"), ("half", "half"))
    },
}  # fmt: skip
"""Name of a file -> arguments of bench.parity."""

_BASELINES = ("--compare", "authors", "compile")
_SIZES = ("--size", "256x448", "480x640", "720x1280", "1080x1920", "--samples", "10")
_TTA_SIZES = ("--size", "256x448", "720x1280", "--samples", "10")
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
    "int8/latency_openvino": ("--model", "small_openvino.onnx", _INT8[1], _INT8_720P,
                              "--precision", "fp32", "bf16", *_DEMO, "--compare", "authors",
                              "--size", "256x448", "720x1280", "--samples", "20"),
    "int8/latency_onnxruntime": ("--model", SMALL[0], _INT8[0], *_DEMO, "--compare", "authors",
                                 "--size", "256x448", "--samples", "20"),
    "tta/latency_onnxruntime": ("--model", SMALL[0], _TTA, *_TTA_SIZES),
    "tta/latency_openvino": ("--model", SMALL[1], "tta_openvino.onnx", "--precision", "fp32",
                             "bf16", *_TTA_SIZES),
    "flow_scale/latency": ("--model", "small_openvino.onnx", "half_openvino.onnx", "--precision",
                           "fp32", "bf16", "--size", "2160x3840", "1080x1920", "--samples", "4",
                           "--seconds", "0"),
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
        for folder in (work, args.output):
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
        _run(work, *command)
        shutil.copy(work / command[-1], args.output / command[-1])
        if "pictures" in command:
            shutil.rmtree(args.output / "pictures", ignore_errors=True)
            shutil.copytree(work / "pictures", args.output / "pictures")


def _prepare(work: Path, needed: set[str]) -> None:
    """Makes the scaled clip, the random weights and the artefacts that `needed` names."""
    if not (work / _WALK.name).exists():
        (work / _WALK.name).symlink_to(_WALK)  # The clip that int8 models are calibrated with.
    for name, source, size in SCALED_CLIPS:
        if name in needed and not (work / name).exists():
            _scale_clip(work / source, work / name, size)
    if not (work / "base.pth").exists():
        import torch

        from bench.runs.authors import random_network

        torch.save(random_network("base").state_dict(), work / "base.pth")
    for name, command in ARTEFACTS.items():
        if name in needed and not (work / name).exists():
            print(f"== {name}", flush=True)
            _run(work, *command, "--output", name)


def _scale_clip(source: Path, target: Path, size: tuple[int, int]) -> None:
    """Writes the first 100 frames of a video at `size` (width, height) without further loss."""
    import av

    with av.open(str(source)) as given, av.open(str(target), "w") as out:
        stream = out.add_stream("ffv1", rate=given.streams.video[0].average_rate)
        stream.width, stream.height, stream.pix_fmt = *size, "yuv420p"
        for number, frame in enumerate(given.decode(video=0)):
            if number == 100:
                break
            out.mux(stream.encode(frame.reformat(*size, "yuv420p", interpolation="AREA")))
        out.mux(stream.encode())


def _run(work: Path, module: str, *arguments: str) -> None:
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    subprocess.run(
        [sys.executable, "-m", module, *arguments],
        check=True, cwd=work, env={**os.environ, "PYTHONPATH": path},
    )  # fmt: skip


if __name__ == "__main__":
    main()
