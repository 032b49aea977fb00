"""Exports the published formulation unchanged, as the baseline of `bench.latency --plain`.

python tools/export_plain.py --weights base.pth --size 720x1280 --output plain.onnx
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import onnx
import torch
from torch import Tensor, nn

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from bench.runs.authors import authors_forward, load_reference  # noqa: E402
from export.graph.passes import lower_opset  # noqa: E402
from ifrnet_model import IFRNet  # noqa: E402
from runtime.cli.arguments import parse_size  # noqa: E402
from runtime.cli.command import command_parser, run_command  # noqa: E402
from runtime.files import written_beside  # noqa: E402


class Authors(nn.Module):
    """The authors' formulation with the weights of a network, as a module for exporters."""

    def __init__(self, network: IFRNet) -> None:
        super().__init__()
        self.config = network.config
        self.names = {name: name.replace(".", "_") for name in network.state_dict()}
        for name, tensor in network.state_dict().items():
            self.register_buffer(self.names[name], tensor.detach().clone())

    def forward(self, img0: Tensor, img1: Tensor, timestep: Tensor) -> Tensor:
        """Computes `authors_forward` with the weights of the network."""
        weights = {name: getattr(self, buffer) for name, buffer in self.names.items()}
        return authors_forward(weights, self.config, img0, img1, timestep)


def plain_export(weights: str, size: tuple[int, int]) -> onnx.ModelProto:
    """Exports the authors' formulation with `torch.onnx.export`, without optimisations.

    The dynamo exporter is used, since the older one writes sizes as float64, which runtimes refuse.
    It writes opset 18; the few attributes that TensorRT 8.6 does not know are converted to those of
    opset 17.

    Args:
        weights: A checkpoint, or "demo".
        size: (height, width) of the frames, multiples of 16.

    Returns:
        A model with float32 inputs img0, img1 (1, 3, H, W) and timestep (1, 1, 1, 1), output imgt.
    """
    image = torch.zeros(1, 3, *size)
    with torch.inference_mode():
        program = torch.onnx.export(
            Authors(load_reference(weights).network).eval(),
            (image, image.clone(), torch.full((1, 1, 1, 1), 0.5)),
            input_names=["img0", "img1", "timestep"],
            output_names=["imgt"],
            opset_version=18,
            dynamo=True,
            verbose=False,
        )
    assert program is not None
    lower_opset(program.model_proto)
    return program.model_proto


def _export(args: argparse.Namespace) -> None:
    model = plain_export(args.weights, args.size)
    with written_beside(args.output) as temporary:
        onnx.save(model, temporary)
    print(f"{args.output}: torch {torch.__version__}, {len(model.graph.node)} nodes")


def main() -> None:
    """The command line."""
    parser = command_parser(
        "python tools/export_plain.py",
        "Exports the authors' formulation of the network unchanged, for bench.latency --plain.",
        "python tools/export_plain.py --weights demo --size 720x1280 --output plain.onnx",
    )
    parser.add_argument("--weights", required=True, metavar="FILE", help="a checkpoint, or demo")
    parser.add_argument(
        "--size",
        required=True,
        type=parse_size,
        metavar="HxW",
        help="size of the frames, multiples of 16",
    )
    parser.add_argument(
        "--output", required=True, type=Path, metavar="FILE.onnx", help="the ONNX file"
    )
    run_command(parser, _export, extra="export")


if __name__ == "__main__":
    main()
