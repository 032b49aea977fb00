"""How the demo weights were made: IFRNet small on exact synthetic motion and real clips.

    python tools/train_demo.py --clips CLIPS --photos PHOTOS --start demo \
        --stage 128:2:6000:16 --stage 224:1:2500:30 --output small.safetensors

CLIPS holds `index.json`, a list of {"name", "frames", "cuts"}, and for each a `name.npy`, uint8
(N, H, W, 3); PHOTOS holds pictures. A stage is SIZE:BATCH:STEPS:MOTION, the batch for each worker,
the motion in pixels between the first and the last frame. Workers share the gradients, one core
each: a worker that waits for its core delays a step, not every layer. The same seed and the same
number of workers give the same weights on the same machine. Not part of the product: training
belongs to the authors' repository.
"""

from __future__ import annotations

import argparse
import copy
import itertools
import json
import math
import socket
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
import torch.nn.functional as F
from numpy.typing import NDArray
from PIL import Image
from safetensors.torch import save_file
from torch import Tensor

from ifrnet_model import VARIANTS, IFRNet, load_checkpoint
from ifrnet_model.config import FLOW_CHANNELS
from ifrnet_model.layers import resize, upsample, warp
from ifrnet_model.model import _side_by_side, _split_flow
from runtime.files import written_beside

SPANS = (2, 2, 2, 2, 3, 4, 8)
"""Frames from the first to the last of a real triplet, as often as they are drawn."""

NEXT_TO_AN_END = 0.5
"""Of the longer spans: the middle is a neighbour of the first or the last, t = 1/8 or 7/8, where
blending is strongest and a network that only knows midpoints weakest."""

ANYWHERE_SHARE = 0.5
"""Of the real crops: from anywhere, still parts too; the others from where most changes."""

STILL = 1.0
"""Crops that change less, in 8-bit levels, are taken only as often as `STILL_SHARE` says."""

STILL_SHARE = 0.4

SYNTHETIC_SHARE = 0.3
STANDING_SHARE = 0.3
"""Of the synthetic samples: the ground does not move. What stands must stay as it is."""

CENSUS_WEIGHT = 0.1
FLOW_WEIGHT = 0.02
LOG_WEIGHT = 0.03
"""Of the logarithm of each sample's squared error, which is what a mean of PSNRs counts."""

BELOW_BLENDING_WEIGHT = 0.03
"""Of what that logarithm lies above that of blending: no sample should be worse than that."""

AVERAGED_STEPS = 600
"""The weights that are kept are an average over about so many steps."""

REPORT_STEPS = 100
KEPT_STEPS = 500


@dataclass(frozen=True)
class Stage:
    """Size of the crops, batch of a worker, steps, and the largest motion of a layer in pixels."""

    size: int
    batch: int
    steps: int
    motion: float

    @classmethod
    def parse(cls, text: str) -> Stage:
        """Reads SIZE:BATCH:STEPS:MOTION."""
        size, batch, steps, motion = text.split(":")
        return cls(int(size), int(batch), int(steps), float(motion))


@dataclass(frozen=True)
class Batch:
    """img0, img1, imgt: (B, 3, H, W) in [0, 1]; t: (B, 1, 1, 1); flow: (B, 4, H, W) in pixels.

    `known` is (B, 1, 1, 1): 1 where the flow is known.
    """

    img0: Tensor
    img1: Tensor
    imgt: Tensor
    t: Tensor
    flow: Tensor
    known: Tensor


class RealMotion:
    """Triplets from clips: two frames and any of those between them."""

    def __init__(self, folder: Path, rng: np.random.Generator) -> None:
        self.rng = rng
        self.clips: list[tuple[NDArray[np.uint8], frozenset[int]]] = []
        for entry in json.loads((folder / "index.json").read_text()):
            frames = np.load(folder / f"{entry['name']}.npy", mmap_mode="r")
            if len(frames) > max(SPANS):
                self.clips.append((frames, frozenset(entry["cuts"])))

    def sample(self, size: int) -> tuple[NDArray[np.uint8], float]:
        """(3, size, size, 3): first, middle, last; and the time of the middle."""
        while True:
            frames, cuts = self.clips[self.rng.integers(len(self.clips))]
            span = int(self.rng.choice(SPANS))
            first = int(self.rng.integers(len(frames) - span))
            middle = first + self._between(span)
            if cuts & set(range(first + 1, first + span + 1)):
                continue
            height, width = frames.shape[1:3]
            coarse = 2 if min(height, width) >= 2 * size and self.rng.random() < 0.5 else 1
            side = size * coarse
            if min(height, width) < side:
                continue
            corners = [
                (
                    int(self.rng.integers(height - side + 1)),
                    int(self.rng.integers(width - side + 1)),
                )
                for _ in range(1 if self.rng.random() < ANYWHERE_SHARE else 3)
            ]
            ends = frames[first], frames[first + span]
            changes = [_change(*ends, corner, side) for corner in corners]
            if max(changes) < STILL and self.rng.random() > STILL_SHARE:
                continue
            y, x = corners[int(np.argmax(changes))]
            crop = frames[[first, middle, first + span], y : y + side, x : x + side]
            if coarse == 2:
                blocks = crop.reshape(3, size, 2, size, 2, 3).astype(np.float32).mean((2, 4))
                crop = np.rint(blocks).astype(np.uint8)
            return crop, (middle - first) / span

    def _between(self, span: int) -> int:
        if span > 2 and self.rng.random() < NEXT_TO_AN_END:
            return int(self.rng.choice([1, span - 1]))
        return int(self.rng.integers(1, span))


def _change(
    frame0: NDArray[np.uint8], frame1: NDArray[np.uint8], corner: tuple[int, int], side: int
) -> float:
    """Mean absolute difference of a square, 0..255, seen on every fourth pixel."""
    y, x = corner
    a, b = (f[y : y + side : 4, x : x + side : 4].astype(np.int16) for f in (frame0, frame1))
    return float(np.abs(a - b).mean())


class SyntheticMotion:
    """Layers of photographs under homographies that grow evenly with time; flows are exact."""

    def __init__(self, photos: Path, real: RealMotion, rng: np.random.Generator) -> None:
        self.rng = rng
        self.real = real
        self.photos = [
            np.asarray(Image.open(path).convert("RGB"))
            for path in sorted(photos.iterdir())
            if path.suffix in (".png", ".jpg")
        ]

    def sample(self, size: int, motion: float) -> tuple[Tensor, float, Tensor]:
        """(3, 3, size, size) in [0, 1]: first, middle, last; its time; flows (4, size, size)."""
        rng = self.rng
        t = float(rng.choice([0.5, rng.uniform(0.05, 0.95), rng.uniform(0.05, 0.25)]))
        picture = torch.zeros(3, 3, size, size)
        flow = torch.zeros(4, size, size)
        reach = motion * rng.uniform() ** 1.5
        standing = rng.random() < STANDING_SHARE
        common = rng.normal(size=2) * (0 if standing else reach / 2)  # The camera moves all layers.
        for layer in range(int(rng.integers(1, 5)) + 1):
            whole = layer == 0
            extent = size if whole else size * rng.uniform(0.15, 0.7)
            centre = np.array([size / 2] * 2) if whole else rng.uniform(0, size, 2)
            move = common + rng.normal(size=2) * reach / (3 if whole else 1.2)
            matrices = self._matrices(centre, move, t, standing=whole and standing)
            texture, alpha = self._texture(extent, whole)
            colours, masks = _render(texture, alpha, matrices, size, whole)
            picture = picture + masks * (colours - picture)
            towards = _flows(matrices, size)
            flow = torch.where(masks[1] > 0.5, towards, flow)
        return picture.clamp(0, 1), t, flow

    def _matrices(
        self,
        centre: NDArray[np.float64],
        move: NDArray[np.float64],
        t: float,
        *,
        standing: bool = False,
    ) -> Tensor:
        """Homographies from the layer to the frame at times 0, t, 1: (3, 3, 3)."""
        rng = self.rng
        angle, stretch = rng.normal(0, 0.06), rng.normal(0, 0.05)
        shear, bend = rng.normal(0, 0.02, 2), rng.normal(0, 1e-4, 2)
        made = []
        for at in (0.0, 0.0, 0.0) if standing else (-0.5, t - 0.5, 0.5):
            turn, grow = angle * at, math.exp(stretch * at)
            linear = grow * np.array(
                [
                    [math.cos(turn), -math.sin(turn) + shear[0] * at],
                    [math.sin(turn) + shear[1] * at, math.cos(turn)],
                ]
            )
            matrix = np.eye(3)
            matrix[:2, :2] = linear
            matrix[:2, 2] = move * at + centre
            matrix[2, :2] = bend * at
            made.append(matrix)
        return torch.tensor(np.stack(made), dtype=torch.float32)

    def _texture(self, extent: float, whole: bool) -> tuple[Tensor, Tensor]:
        """A square of a photograph, (3, S, S), as large as the layer, and its alpha (1, S, S)."""
        rng = self.rng
        if rng.random() < 0.3:
            frames, _ = self.real.clips[rng.integers(len(self.real.clips))]
            photo = frames[rng.integers(len(frames))]
        else:
            photo = self.photos[rng.integers(len(self.photos))]
        side = max(8, round(extent * (1.5 if whole else 1.0)))
        room = min(photo.shape[:2])
        taken = min(room, round(side * rng.uniform(1.0, 2.5)))
        y, x = (int(rng.integers(n - taken + 1)) for n in photo.shape[:2])
        crop = torch.from_numpy(photo[y : y + taken, x : x + taken].copy())
        texture = crop.permute(2, 0, 1)[None].float() / 255
        texture = F.interpolate(texture, size=(side, side), mode="bilinear", antialias=True)
        gain, lift = rng.uniform(0.6, 1.3), rng.uniform(-0.1, 0.1)
        texture = (texture[0] * gain + lift).clamp(0, 1)
        if whole:
            return texture, torch.ones(1, side, side)
        # A blob: smooth noise under a dome, cut at a level; its edge is a pixel or two wide.
        noise = torch.from_numpy(rng.normal(size=(1, 1, 5, 5)).astype(np.float32))
        noise = F.interpolate(noise, size=(side, side), mode="bicubic", align_corners=True)[0]
        ramp = torch.linspace(-1, 1, side)
        dome = 1 - (ramp[None, :] ** 2 + ramp[:, None] ** 2).sqrt()
        return texture, ((dome + 0.25 * noise) * side / rng.uniform(2, 6)).clamp(0, 1)


def _render(
    texture: Tensor, alpha: Tensor, matrices: Tensor, size: int, whole: bool
) -> tuple[Tensor, Tensor]:
    """The layer at the three times: colours (3, 3, size, size), masks (3, 1, size, size)."""
    there = torch.linalg.inv(matrices) @ _grid(size)  # (3, 3, size * size)
    at = (there[:, :2] / there[:, 2:]) / (texture.shape[-1] / 2)
    grid = at.permute(0, 2, 1).reshape(3, size, size, 2)
    colours = F.grid_sample(
        texture.expand(3, -1, -1, -1),
        grid,
        padding_mode="reflection" if whole else "border",
        align_corners=False,
    )
    if whole:
        return colours, torch.ones(3, 1, size, size)
    return colours, F.grid_sample(alpha.expand(3, -1, -1, -1), grid, align_corners=False)


def _flows(matrices: Tensor, size: int) -> Tensor:
    """From every pixel at time t to its place at times 0 and 1: (4, size, size)."""
    points = _grid(size)
    layer = torch.linalg.inv(matrices[1]) @ points
    flows = []
    for matrix in (matrices[0], matrices[2]):
        there = matrix @ layer
        flows.append((there[:2] / there[2:]) - points[:2])
    return torch.cat(flows).reshape(4, size, size)


def _grid(size: int) -> Tensor:
    """Pixel centres as homogeneous points, (3, size * size): x, y, 1."""
    at = torch.arange(size, dtype=torch.float32) + 0.5
    y, x = torch.meshgrid(at, at, indexing="ij")
    return torch.stack((x, y, torch.ones_like(x))).reshape(3, -1)


def batches(args: argparse.Namespace, stage: Stage, seed: int) -> Iterator[Batch]:
    """Endless; real and synthetic samples, turned and mirrored, in time too."""
    rng = np.random.default_rng(seed)
    real = RealMotion(args.clips, rng)
    synthetic = SyntheticMotion(args.photos, real, rng)
    while True:
        frames, times, flows, known = [], [], [], []
        for _ in range(stage.batch):
            made = rng.random() < SYNTHETIC_SHARE
            if made:
                picture, t, flow = synthetic.sample(stage.size, stage.motion)
            else:
                crop, t = real.sample(stage.size)
                picture = torch.from_numpy(crop).permute(0, 3, 1, 2).float() / 255
                flow = torch.zeros(4, stage.size, stage.size)
            picture, flow = _augmented(picture, flow, rng)
            if rng.random() < 0.5:
                picture, flow, t = picture.flip(0), flow.roll(2, 0), 1 - t
            frames.append(picture)
            times.append(t)
            flows.append(flow)
            known.append(float(made))
        img0, imgt, img1 = torch.stack(frames, 1)
        t_, known_ = (torch.tensor(v).view(-1, 1, 1, 1) for v in (times, known))
        yield Batch(img0, img1, imgt, t_, torch.stack(flows), known_)


def _augmented(picture: Tensor, flow: Tensor, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
    """Mirrors, transposes, and permutes colours."""
    if rng.random() < 0.5:
        picture = picture.flip(-1)
        flow = flow.flip(-1) * torch.tensor([-1.0, 1, -1, 1]).view(4, 1, 1)
    if rng.random() < 0.5:
        picture = picture.flip(-2)
        flow = flow.flip(-2) * torch.tensor([1.0, -1, 1, -1]).view(4, 1, 1)
    if rng.random() < 0.5:
        picture, flow = picture.transpose(-1, -2), flow.transpose(-1, -2)[[1, 0, 3, 2]]
    return picture[:, torch.from_numpy(rng.permutation(3))].contiguous(), flow.contiguous()


def interpolate(network: IFRNet, b: Batch) -> tuple[Tensor, list[Tensor]]:
    """`IFRNet.forward` with the flows of every level, coarsest first, and no clamp."""
    height, width = b.img0.shape[-2:]
    images = torch.cat((b.img0, b.img1), 1)
    mean = images.mean((1, 2, 3), keepdim=True)
    f1, f2, f3, f4 = network.encoder((images - mean).reshape(-1, 3, height, width))
    steps = b.t.expand(-1, 1, *f4.shape[-2:])
    flow, ft = _split_flow(network.decoder4(_side_by_side(f4), steps))
    flows = [flow]
    for decoder, feature in ((network.decoder3, f3), (network.decoder2, f2)):
        residual, ft = _split_flow(network._refine(decoder, feature, flow, ft))
        flow = residual + 2.0 * upsample(flow)
        flows.append(flow)
    out = network._refine(network.decoder1, f1, flow, ft)
    residual, logit, colour = torch.split(out, [FLOW_CHANNELS, 1, 3], 1)
    flow = residual + 2.0 * upsample(flow)
    flows.append(flow)
    warped0, warped1 = warp(b.img0, flow[:, :2]), warp(b.img1, flow[:, 2:])
    mask = torch.sigmoid(logit)
    return mask * warped0 + (1 - mask) * warped1 + colour, flows


def census(picture: Tensor) -> Tensor:
    """Soft signs of the differences to the 7x7 neighbours (Meister et al., UnFlow)."""
    grey = (picture * torch.tensor([0.299, 0.587, 0.114]).view(1, 3, 1, 1)).sum(1, keepdim=True)
    patches = F.unfold(grey, 7, padding=3).view(len(grey), 49, *grey.shape[-2:])
    difference = patches - grey
    return difference / (0.81 * (1 / 255) ** 2 * 255 + difference**2).sqrt()


def loss_of(network: IFRNet, b: Batch) -> tuple[Tensor, Tensor]:
    """The loss, and the mean squared error for the log."""
    made, flows = interpolate(network, b)
    error = made - b.imgt
    charbonnier = (error**2 + 1e-6).sqrt().mean()
    difference = (census(made) - census(b.imgt)) ** 2
    ternary = (difference / (0.1 + difference)).mean()
    distance = made.new_zeros(())
    for flow in flows:
        size = flow.shape[-2:]
        factor = b.flow.shape[-1] // size[-1]
        true = resize(b.flow, *size) / factor
        distance = distance + (((flow - true) ** 2 + 1e-4).sqrt() * b.known).mean()
    squared = (error**2).mean((1, 2, 3))
    blended = ((1 - b.t) * b.img0 + b.t * b.img1 - b.imgt).square().mean((1, 2, 3))
    logarithm = torch.log(squared + 1e-6)
    below = F.relu(logarithm - torch.log(blended + 1e-6))
    loss = (
        charbonnier
        + CENSUS_WEIGHT * ternary
        + FLOW_WEIGHT * distance
        + LOG_WEIGHT * logarithm.mean()
        + BELOW_BLENDING_WEIGHT * below.mean()
    )
    return loss, (error.detach().clamp(-1, 1) ** 2).mean()


def initialised(network: IFRNet) -> None:
    """He initialisation: with PyTorch's own the deep features vanish and no flow starts."""
    for name, parameter in network.named_parameters():
        if parameter.ndim == 4:
            torch.nn.init.kaiming_normal_(parameter, a=0.25)
            if name.endswith(("conv5.weight", "convblock.2.weight")):
                parameter.data.mul_(0.2)


def rate_at(step: int, total: int, peak: float) -> float:
    """Warm-up, a plateau, and a cosine down over the last half."""
    if step < 100:
        return peak * (step + 1) / 100
    down = max(0.0, (step / total - 0.5) / 0.5)
    return peak * (0.5 + 0.5 * math.cos(math.pi * down)) + 1e-6


def save(network: IFRNet, path: Path) -> None:
    """float16 safetensors under the authors' names."""
    tensors = {name: tensor.half().contiguous() for name, tensor in network.state_dict().items()}
    metadata = {
        "format": "authors parameter names, float16",
        "timesteps": "arbitrary",
        "variant": network.config.variant,
    }
    with written_beside(path) as beside:
        save_file(tensors, beside, metadata)


class Trainer:
    """The state of one worker: the network, its average, the optimizer, the step."""

    def __init__(self, args: argparse.Namespace, rank: int) -> None:
        self.args, self.rank = args, rank
        if args.start is None:
            self.network = IFRNet(VARIANTS["small"])
            initialised(self.network)
        else:
            self.network = load_checkpoint(args.start).network
        self.network.train()
        self.average = copy.deepcopy(self.network)
        self.parameters = list(self.network.parameters())
        self.optimizer = torch.optim.AdamW(self.parameters, lr=args.rate, weight_decay=1e-4)
        self.total = sum(stage.steps for stage in args.stage)
        self.done = 0
        self.kept = args.output.with_suffix(".state")
        if args.resume and self.kept.exists():
            self._restore()

    def run(self) -> None:
        """All stages, from where a run before was broken off."""
        begun, end = self.done, 0
        for number, stage in enumerate(self.args.stage):
            end += stage.steps
            if end <= begun:
                continue
            # What was seen before a resume is not seen again.
            seed = hash((self.args.seed, number, self.rank, begun)) % 2**32
            log = Log(self.total, stage.size) if self.rank == 0 else None
            for batch in itertools.islice(batches(self.args, stage, seed), end - self.done):
                error = self.step(batch)
                if log is not None:
                    log.add(self.done, error, rate_at(self.done, self.total, self.args.rate))
                    if self.done % KEPT_STEPS == 0 or self.done == self.total:
                        self._keep()

    def step(self, batch: Batch) -> float:
        """One step of all workers together; returns their mean squared error."""
        for group in self.optimizer.param_groups:
            group["lr"] = rate_at(self.done, self.total, self.args.rate)
        loss, error = loss_of(self.network, batch)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        shared = torch.cat([*(p.grad.flatten() for p in self.parameters), error.view(1)])
        dist.all_reduce(shared)
        shared /= self.args.workers
        sizes = [p.numel() for p in self.parameters]
        for p, gradient in zip(self.parameters, shared[:-1].split(sizes), strict=True):
            p.grad.copy_(gradient.view_as(p))
        torch.nn.utils.clip_grad_norm_(self.parameters, 1.0)
        self.optimizer.step()
        self.done += 1
        share = 1 / min(AVERAGED_STEPS, self.done + 10)
        with torch.no_grad():
            for mean, p in zip(self.average.parameters(), self.parameters, strict=True):
                mean.lerp_(p, share)
        return float(shared[-1])

    def _keep(self) -> None:
        save(self.average, self.args.output)
        state = {
            "network": self.network.state_dict(),
            "average": self.average.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "step": self.done,
        }
        with written_beside(self.kept) as beside:
            torch.save(state, beside)

    def _restore(self) -> None:
        state = torch.load(self.kept, map_location="cpu", weights_only=True)
        self.network.load_state_dict(state["network"])
        self.average.load_state_dict(state["average"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.done = state["step"]


class Log:
    """A line each `REPORT_STEPS`: PSNR on the training crops, seconds a step, learning rate."""

    def __init__(self, total: int, size: int) -> None:
        self.total, self.size = total, size
        self.errors: list[float] = []
        self.since = time.perf_counter()

    def add(self, step: int, error: float, rate: float) -> None:
        """Counts one step; prints where it is time."""
        self.errors.append(error)
        if step % REPORT_STEPS == 0:
            psnr = -10 * math.log10(sum(self.errors) / len(self.errors))
            spent = (time.perf_counter() - self.since) / len(self.errors)
            print(
                f"{step:6}/{self.total} {self.size} px  {psnr:.2f} dB  {spent:.2f} s a step  "
                f"rate {rate:.1e}",
                flush=True,
            )
            self.errors, self.since = [], time.perf_counter()


def worker(rank: int, args: argparse.Namespace) -> None:
    """One process of the training."""
    torch.set_num_threads(1)
    torch.manual_seed(args.seed)
    dist.init_process_group(
        "gloo",
        init_method=f"tcp://127.0.0.1:{args.port}",
        rank=rank,
        world_size=args.workers,
    )
    Trainer(args, rank).run()
    dist.destroy_process_group()


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--clips", type=Path, required=True)
    parser.add_argument("--photos", type=Path, required=True)
    parser.add_argument("--start", help="weights to go on from (default: none)")
    parser.add_argument("--stage", type=Stage.parse, action="append", required=True)
    parser.add_argument("--rate", type=float, default=3e-4)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--resume", action="store_true")
    parser.add_argument("--output", type=Path, required=True)
    args = parser.parse_args()
    with socket.create_server(("127.0.0.1", 0)) as free:
        args.port = free.getsockname()[1]
    mp.spawn(worker, (args,), nprocs=args.workers)


if __name__ == "__main__":
    main()
