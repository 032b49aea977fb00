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
from runtime.errors import InterpolationError
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
        raise InterpolationError(f"{args.clip} has {len(true)} frames: give a clip with 3 or more")
    report = _interpolate(low, high)
    before, after = decode(low), decode(high)
    compared = compare(true, before, after)
    rate = Fraction(report["rate"])
    write_side_by_side(before, after, rate, both)
    save_png(still(compared), picture)
    facts, commands = _facts(report, compared), _commands()
    captions = (
        f"{float(rate / 2):g} frames/s: every second frame of the clip",
        f"{float(rate):g} frames/s: with new frames between them",
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
        both: "both of them",
        picture: "blending, new frame, true frame",
        page: "all of it: open it in a browser",
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
    arguments = [low.name, high.name, "--model", "demo", "--quality", "10"]
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
        "speed": f"{speed:.1f} new frames/s, with reading, writing and loading the model",
        "with": f"{backend} {installed_versions().get(backend, '')}, {available_cpus()} cores of "
        f"{cpu_name() or 'an unknown CPU'}",
        "in": _arithmetic(manifest, report["backend"], report["notes"]),
        "quality": f"{new:.1f} dB to the true frames (PSNR, mean of {len(compared.new_psnr)}); "
        f"blending {blended:.1f} dB",
        "parity": f"{manifest.gate.psnr_db:.1f} dB to PyTorch in fp32, the lowest of "
        f"{len(manifest.gate.cases)} cases",
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
        return "fp32, as OpenVINO is not installed"
    sets = low_precision_sets()
    for proof in reversed(manifest.proofs):
        if proof.precision == precision and proof.instruction_sets == sets:
            db = f"{proof.real_db:.1f} dB to fp32 on real frames"
            return f"{precision}, proved for such CPUs: {db}"
    if any("is computed in fp32" in note for note in notes):
        return "fp32; the faster type of this CPU is not proved: ifrnet prove demo"
    return "fp32, as this CPU computes in no faster type"


def _commands() -> dict[str, str]:
    """Commands to try next: purpose -> command."""
    folder = Path(sys.executable).parent
    ifrnet = _shown(folder / "ifrnet")
    return {
        "your own clip, at twice its rate": f"{ifrnet} video IN.mp4 OUT.mp4",
        "what this machine can run": f"{ifrnet} doctor",
        "a model of your own checkpoint, with PyTorch, after make .venv/installed": (
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
        "Drops every second frame of a clip, interpolates it again, and shows both on a page.",
        "%(prog)s --clip in.mp4 --frames 100 --output demo",
    )
    parser.add_argument(
        "--clip", type=Path, default=CLIP, metavar="FILE", help="a video (default: the shipped one)"
    )
    parser.add_argument(
        "--output", type=Path, default=ROOT / "demo", metavar="DIR", help="folder (default: demo)"
    )
    parser.add_argument(
        "--frames",
        type=int,
        metavar="N",
        help="number of frames of the clip (default: all; they are held in memory)",
    )
    run_command(parser, _demo, extra="openvino,video", argv=argv)


if __name__ == "__main__":
    main()
