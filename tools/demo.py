"""The program of `make demo`: interpolates a clip whose true frames are known, and writes a page.

Model and clip are shipped. It uses the public commands and needs no PyTorch.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from fractions import Fraction
from pathlib import Path
from typing import Any, NoReturn

from runtime.backends.demo import demo_model
from runtime.cli.command import command_parser, run_command
from runtime.errors import InterpolationError, counted, rounded
from runtime.machine import available_cpus, cpu_name, installed_versions, low_precision_sets
from runtime.manifest import EngineManifest

ROOT = Path(__file__).resolve().parent.parent
CLIP = ROOT / "export" / "gate" / "frames" / "walk.mkv"
SOURCE = "Clip: sample-videos (github.com/intel-iot-devkit/sample-videos) by Intel, CC BY 4.0."
_COLUMNS = 80


def _demo(args: argparse.Namespace) -> None:
    from demo_page import write_page
    from demo_video import (
        compare,
        decode,
        save_png,
        still,
        write_every_other_frame,
        write_side_by_side,
    )

    started = time.perf_counter()
    out: Path = args.output
    out.mkdir(parents=True, exist_ok=True)
    low, high, both, picture, page = (
        out / name
        for name in ("before.mp4", "after.mp4", "side_by_side.mp4", "still.png", "index.html")
    )
    true = write_every_other_frame(args.clip, low, args.frames)
    if len(true) < 3:
        raise InterpolationError(
            f"{args.clip} has {counted(len(true), 'frame')}: give a clip with 3 or more"
        )
    report = _interpolate(low, high)
    before, after = decode(low), decode(high)
    compared = compare(true, before, after)
    rate = Fraction(report["rate"])
    write_side_by_side(before, after, rate, both)
    save_png(still(compared), picture)
    facts, commands = _facts(report, compared), _commands()
    captions = (
        f"every second frame of the clip, {float(rate / 2):g} frames/s",
        f"the same with new frames between them, {float(rate):g} frames/s",
    )
    write_page(
        page,
        compared,
        still=picture,
        clips={low.name: captions[0], high.name: captions[1]},
        facts=facts,
        commands=commands,
        source=SOURCE if args.clip == CLIP else "",
    )
    made = {
        low: captions[0],
        high: captions[1],
        both: "both videos, side by side",
        picture: "the same frame blended, new and true",
        page: "page with all results: open it in a browser",
    }
    print()
    for path, text in made.items():
        print(f"{_shown(path):22}  {text}")
    print()
    for name, text in facts.items():
        print(f"{name:9}{text}"[:_COLUMNS])
    print(f"{'time':9}{time.perf_counter() - started:.0f} s")
    print()
    for name, text in commands.items():
        print(f"{name}:\n  {text}")


def _interpolate(low: Path, high: Path) -> dict[str, Any]:
    """Interpolates with `ifrnet video`; returns its summary."""
    arguments = [low.name, high.name, "--model", "demo", "--quality", "10", "--overwrite"]
    print("$ ifrnet video", *arguments, flush=True)
    with tempfile.TemporaryDirectory() as folder:
        summary = Path(folder) / "summary.json"
        done = subprocess.run(
            [sys.executable, "-m", "runtime.cli.ifrnet", "video", *arguments, "--json", summary],
            cwd=low.parent, stdout=subprocess.DEVNULL, check=False,
        )  # fmt: skip
        if done.returncode == 130:
            raise KeyboardInterrupt
        if done.returncode != 0:
            raise InterpolationError(f"ifrnet video ended with code {done.returncode}: see above")
        report: dict[str, Any] = json.loads(summary.read_text())
    return report


def _facts(report: dict[str, Any], compared: Any) -> dict[str, str]:
    """The measured figures, by name."""
    backend = report["backend"].split()[0]
    new, blended = (sum(v) / len(v) for v in (compared.new_psnr, compared.blended_psnr))
    manifest = EngineManifest.read(demo_model(backend))
    speed = report["frames_new"] / report["seconds"]
    return {
        "speed": f"{rounded(speed)} new frames/s, including reading, writing and loading the model",
        "backend": f"{backend} {installed_versions().get(backend, '')}, "
        f"{counted(available_cpus(), 'core')} of {cpu_name() or 'an unknown CPU'}",
        "type": _arithmetic(manifest, report["backend"], report["notes"]),
        "quality": f"mean PSNR to the true frames {new:.1f} dB, blending neighbours "
        f"{blended:.1f} dB",
        "parity": f"PSNR to PyTorch in fp32: {manifest.gate.psnr_db:.1f} dB, the lowest of "
        f"{counted(len(manifest.gate.cases), 'case')}",
    }


def _arithmetic(manifest: EngineManifest, backend: str, notes: list[str]) -> str:
    """The type that the model was computed in, and why.

    Args:
        manifest: Of the model.
        backend: As `VideoReport.backend`.
        notes: As `VideoReport.notes`.
    """
    name, _, precision = backend.partition(" cpu ")
    if name != "openvino":
        return "fp32, because OpenVINO is not installed"
    sets = low_precision_sets()
    for proof in reversed(manifest.proofs):
        if proof.precision == precision and proof.instruction_sets == sets:
            db = f"{proof.real_db:.1f} dB to fp32 on real frames"
            return f"{precision}, proved for this type of CPU ({db})"
    if any("is computed in fp32" in note for note in notes):
        return "fp32; a faster type is not proved yet: run ifrnet prove demo"
    return "fp32, because this CPU has no faster type"


def _commands() -> dict[str, str]:
    """Commands to try next: purpose -> command."""
    folder = Path(sys.executable).parent
    ifrnet = _shown(folder / "ifrnet")
    return {
        "double the frame rate of your own clip": f"{ifrnet} video IN.mp4 OUT.mp4",
        "see what this machine can run": f"{ifrnet} doctor",
        "build a model from your own checkpoint, after make .venv/installed": (
            ".venv/bin/ifrnet build --weights FILE --backend openvino --output model.onnx"
        ),
    }


def _shown(path: Path) -> str:
    """The path relative to the current folder, if it is below that."""
    return os.path.relpath(path) if path.is_relative_to(Path.cwd()) else str(path)


def main(argv: list[str] | None = None) -> NoReturn:
    """The command line."""
    parser = command_parser(
        "tools/demo.py",
        "Drops every second frame of a clip, interpolates them, and shows both on a page.",
        "%(prog)s --clip in.mp4 --frames 100 --output demo",
    )
    parser.add_argument(
        "--clip", type=Path, default=CLIP, metavar="FILE", help="a video (default: the shipped one)"
    )
    parser.add_argument(
        "--output",
        type=Path,
        default=ROOT / "demo",
        metavar="DIR",
        help="folder for the results (default: demo)",
    )
    parser.add_argument(
        "--frames",
        type=int,
        metavar="N",
        help="number of frames to read, all of which are held in memory (default: all)",
    )
    run_command(parser, _demo, extra="openvino,video", argv=argv)


if __name__ == "__main__":
    main()
