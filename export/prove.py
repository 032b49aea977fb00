"""Compares an artefact in bfloat16 and float16 with float32 on this CPU, for its manifest.

    python -m export.prove model.onnx

OpenVINO then computes it in the faster precision on CPUs like this one. Needs no PyTorch.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from export.errors import ExportError
from export.files import check_source
from runtime.backends.build_command import build_command
from runtime.backends.demo import DEMO, demo_model
from runtime.backends.onnx_format import read_self_contained
from runtime.cli.command import command_parser, run_command
from runtime.manifest import EngineManifest, manifest_path

if TYPE_CHECKING:
    from export.progress import Stages
    from runtime.backends.base import InferencePrecision
    from runtime.manifest import PrecisionProof

_PROG = "python -m export.prove"


def _prove(args: argparse.Namespace) -> int:
    # Imported here to keep --help fast and to report a missing package in one sentence.
    from export.build_report import proof_lines
    from export.gate.proofs import provable_precisions
    from export.gate.windows import check_clip
    from export.progress import Stages

    path = demo_model("openvino") if str(args.model) == DEMO else args.model
    manifest = _checked_manifest(path)
    if args.real_frames is not None:
        check_clip(args.real_frames)
    precisions = provable_precisions(manifest.model)
    if not precisions:
        print(f"{path}: this CPU computes in fp32 only, so there is nothing to compare")
        return 0
    with Stages(2) as stages:
        proofs = _add_proofs(path, manifest, precisions, args.real_frames, stages)
    print(f"{manifest_path(path)}: results of the comparison with fp32 were added")
    print(*proof_lines(proofs), sep="\n")
    return 0 if any(proof.problem is None for proof in proofs) else 1


def _checked_manifest(path: Path) -> EngineManifest:
    """Reads the manifest of an artefact, and checks that the artefact can be proved.

    Raises:
        ModelError: If the manifest is missing, damaged, or of another file.
        ExportError: If the artefact is missing, is not for OpenVINO, or the folder cannot be
            written.
    """
    check_source(onnx=path)
    if path.suffix.lower() != ".onnx":
        raise ExportError(f"{path.name} is not an ONNX file: give one, this is for OpenVINO")
    manifest = EngineManifest.read(path)
    if manifest.model.tuned_for != "any":
        raise ExportError(
            f"{path.name} is tuned for ONNX Runtime: build one for OpenVINO with "
            f"{build_command(manifest.model, 'openvino')}"
        )
    if not os.access(path.parent, os.W_OK):
        raise ExportError(
            f"{path.parent} cannot be written: copy {path.name} and {manifest_path(path).name} to "
            "another folder, and prove the copy"
        )
    return manifest


def _add_proofs(
    path: Path,
    manifest: EngineManifest,
    precisions: Sequence[InferencePrecision],
    clip: Path | None,
    stages: Stages,
) -> tuple[PrecisionProof, ...]:
    """Compares an artefact in these precisions with float32, and adds the results to its manifest.

    Float32 in OpenVINO is first compared with ONNX Runtime without optimisations.

    Raises:
        ExportError: If the file is not plain ONNX, or the clip has too few frames.
        GateError: If float32 differs too much.
    """
    import onnx

    from export.candidate import candidate_runners
    from export.gate.cases import gate_cases, gate_sizes
    from export.gate.gate import Requirements, gate
    from export.gate.proofs import REAL_FRAMES, prove
    from export.request import DEFAULT_SIZE
    from export.source import source_from_model
    from export.store import add_proofs

    model, info = onnx.load_model_from_string(read_self_contained(path)), manifest.model
    stages.start("compare fp32 with reference")
    gate(
        source_from_model(model, info, manifest.onnx_sha256).reference,
        candidate_runners(model, info, "openvino"),
        gate_cases(gate_sizes(info, DEFAULT_SIZE), info),
        Requirements(info.precision),
    )
    stages.start(f"compare {', '.join(precisions)} with fp32")
    proofs = prove(model, info, precisions, clip or REAL_FRAMES)
    add_proofs(path, proofs)
    stages.finish()
    return proofs


def make_parser(prog: str = _PROG) -> argparse.ArgumentParser:
    """The parser of the command, which is called as `prog`."""
    parser = command_parser(
        prog,
        "Compares an artefact in bfloat16 and float16 with float32 in OpenVINO, and adds the\n"
        "results to its manifest. A type that this CPU does not support is left out. On CPUs like\n"
        "this one, this version of OpenVINO then uses the fastest type that passed.",
        "%(prog)s model.onnx",
        "%(prog)s demo",
    )
    parser.add_argument(
        "model",
        type=Path,
        metavar="MODEL",
        help="ONNX artefact of export.build_engine, or demo for the shipped model",
    )
    parser.add_argument(
        "--real-frames",
        type=Path,
        metavar="PATH",
        help="video or folder of images for the comparison (default: a shipped clip)",
    )
    return parser


def main(argv: Sequence[str] | None = None, *, prog: str = _PROG) -> NoReturn:
    """Runs the command and exits; with 1 if no precision passes."""
    run_command(
        make_parser(prog), _prove, extra="cpu,build,openvino", expected=(ExportError,), argv=argv
    )


if __name__ == "__main__":
    main()
