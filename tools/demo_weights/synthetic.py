"""Makes synthetic samples: layers of images that move evenly under homographies."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from demo_weights.draws import Draws
from demo_weights.store import FrameStore

STANDING_SHARE = 0.3
"""Share of the samples in which the ground does not move, since still parts must stay still."""

FRAME_SHARE = 0.3
"""Share of the textures that are from a frame of a clip; the others are from a photograph."""

LAYERS = 5
"""Maximum number of layers: the ground, and one to four in front of it."""

GROUND = 1.5
"""Side of the ground relative to the crop; more than 1, since parts of it move into the crop."""

LARGEST = 0.7
"""Side of the largest other layer relative to the crop."""

TIMES = 3
"""Number of frames of a sample: first, middle, last."""


@dataclass(frozen=True)
class Layer:
    """One layer of n samples.

    Attributes:
        side: float32 (n,), side of its square in pixels.
        matrices: float32 (n, 3, 3, 3), homographies from coordinates of the layer, in pixels from
            its centre, to those of the frame at times 0, t, 1.
        texture: float32 (n, 3, T, T) in [0, 1]; the square is its top left part.
        noise: float32 (n, 1, 5, 5), shapes the outline.
        softness: float32 (n,), pixels over which the outline fades.
    """

    side: Tensor
    matrices: Tensor
    texture: Tensor
    noise: Tensor
    softness: Tensor


class SyntheticMotion:
    """Draws samples whose flows are exact, with occlusion."""

    def __init__(
        self,
        store: FrameStore,
        clips: Sequence[int],
        photos: Sequence[int],
        *,
        size: int,
        motion: float,
    ) -> None:
        """Prepares the drawing.

        Args:
            store: The frames.
            clips: Items of the store whose frames become textures.
            photos: Items of the store that become textures.
            size: Side of the samples in pixels.
            motion: Approximate largest motion between first and last frame, in pixels.
        """
        self.store, self.size, self.motion = store, size, motion
        self.clips = torch.tensor(list(clips)).to(store.device)
        self.photos = torch.tensor(list(photos)).to(store.device)

    def draw(self, count: int, draws: Draws) -> tuple[Tensor, Tensor, Tensor]:
        """Draws samples.

        Returns:
            Frames, float32 (count, 3, 3, size, size) in [0, 1]: first, middle, last; the times of
            the middle frames, float32 (count,); and the flows, float32 (count, 4, size, size).
        """
        size = self.size
        t = _times(count, draws)
        reach = self.motion * draws.uniform(count, 1) ** 1.5
        standing = draws.chance(STANDING_SHARE, count)
        layers = 2 + draws.below(torch.full((count,), LAYERS - 1, device=draws.device))
        # The motion of the camera, which all layers share.
        common = draws.normal(count, 2) * torch.where(standing[:, None], 0.0, reach / 2)
        frames = torch.zeros(count, TIMES, 3, size, size, device=draws.device)
        flow = torch.zeros(count, 4, size, size, device=draws.device)
        for number in range(LAYERS):
            move = common + draws.normal(count, 2) * reach / (1.2 if number else 3)
            if number:
                layer = self._front(move, t, draws)
            else:
                layer = self._ground(move, t, standing, draws)
            colours, masks = render(layer, size, whole=number == 0)
            masks = masks * (number < layers).view(-1, 1, 1, 1, 1)
            frames = frames + masks * (colours - frames)
            flow = torch.where(masks[:, 1] > 0.5, flows(layer.matrices, size), flow)
        return frames.clamp(0, 1), t, flow

    def _ground(self, move: Tensor, t: Tensor, standing: Tensor, draws: Draws) -> Layer:
        count = len(t)
        centre = torch.full((count, 2), self.size / 2, device=draws.device)
        canvas = round(GROUND * self.size)
        side = torch.full((count,), float(canvas), device=draws.device)
        return self._layer(side, centre, move, t, standing, canvas, draws)

    def _front(self, move: Tensor, t: Tensor, draws: Draws) -> Layer:
        count = len(t)
        centre = draws.uniform(count, 2, high=self.size)
        side = (self.size * draws.uniform(count, low=0.15, high=LARGEST)).round().clamp(min=8)
        moving = torch.zeros(count, dtype=torch.bool, device=draws.device)
        canvas = max(8, round(LARGEST * self.size))
        return self._layer(side, centre, move, t, moving, canvas, draws)

    def _layer(
        self,
        side: Tensor,
        centre: Tensor,
        move: Tensor,
        t: Tensor,
        standing: Tensor,
        canvas: int,
        draws: Draws,
    ) -> Layer:
        count = len(side)
        matrices = homographies(centre, move, t, standing, draws)
        texture = self._texture(side, canvas, draws)
        noise = draws.normal(count, 1, 5, 5)
        return Layer(side, matrices, texture, noise, draws.uniform(count, low=2, high=6))

    def _texture(self, side: Tensor, canvas: int, draws: Draws) -> Tensor:
        """Squares of images, scaled to `side`, with random brightness: (n, 3, canvas, canvas)."""
        store, count = self.store, len(side)
        clip = self.clips[draws.below(torch.full_like(side, len(self.clips)).long())]
        photo = self.photos[draws.below(torch.full_like(side, len(self.photos)).long())]
        item = torch.where(draws.chance(FRAME_SHARE, count), clip, photo)
        frame = draws.below(store.frames[item])
        room = torch.stack((store.heights[item], store.widths[item]), 1)
        taken = (side * draws.uniform(count, low=1.0, high=2.5)).round().long()
        taken = taken.minimum(room.min(1).values)
        corner = draws.below(room - taken[:, None] + 1)
        texture = store.crops(item, frame, corner, taken / side, canvas) / 255
        gain = draws.uniform(count, 1, 1, 1, low=0.6, high=1.3)
        lift = draws.uniform(count, 1, 1, 1, low=-0.1, high=0.1)
        return (texture * gain + lift).clamp(0, 1)


def _times(count: int, draws: Draws) -> Tensor:
    """Times of the middle frames: a third 0.5, a third anywhere, a third near the first frame."""
    choices = torch.stack(
        (
            torch.full((count,), 0.5, device=draws.device),
            draws.uniform(count, low=0.05, high=0.95),
            draws.uniform(count, low=0.05, high=0.25),
        )
    )
    choice = draws.below(torch.full((1, count), len(choices), device=draws.device))
    return choices.gather(0, choice)[0]


def homographies(centre: Tensor, move: Tensor, t: Tensor, standing: Tensor, draws: Draws) -> Tensor:
    """Homographies from a layer to the frame at times 0, t, 1.

    Args:
        centre: (n, 2), x and y of the layer's centre at half time, in pixels.
        move: (n, 2), x and y of its motion from time 0 to 1, in pixels.
        t: (n,).
        standing: bool (n,); True: the layer does not move.
        draws: Rotation, scale, shear and perspective are drawn from it.

    Returns:
        float32 (n, 3, 3, 3).
    """
    count = len(t)
    angle, stretch = draws.normal(count, 1, deviation=0.06), draws.normal(count, 1, deviation=0.05)
    shear, bend = draws.normal(2, count, 1, deviation=0.02), draws.normal(2, count, 1) * 1e-4
    at = torch.stack((torch.full_like(t, -0.5), t - 0.5, torch.full_like(t, 0.5)), 1)
    at = torch.where(standing[:, None], 0.0, at)
    grow, cos, sin = (stretch * at).exp(), (angle * at).cos(), (angle * at).sin()
    x, y = ((move[:, k, None] * at + centre[:, k, None]) for k in (0, 1))
    rows = (
        (grow * cos, grow * (shear[0] * at - sin), x),
        (grow * (sin + shear[1] * at), grow * cos, y),
        (bend[0] * at, bend[1] * at, torch.ones_like(at)),
    )
    return torch.stack([torch.stack(row, -1) for row in rows], -2)


def render(layer: Layer, size: int, *, whole: bool) -> tuple[Tensor, Tensor]:
    """Renders a layer at the three times.

    Args:
        layer: The layer of n samples.
        size: Side of the frames in pixels.
        whole: Whether the layer covers the frame: it is reflected beyond its square, and has no
            outline.

    Returns:
        Colours, (n, 3 times, 3, size, size), and masks, (n, 3 times, 1, size, size).
    """
    count, canvas = len(layer.side), layer.texture.shape[-1]
    at = _divided(inverse(layer.matrices) @ _points(size, layer.side.device))
    at = at.permute(0, 1, 3, 2).reshape(count, TIMES * size, size, 2)
    half = layer.side.view(-1, 1, 1, 1) / 2
    # The outermost texels stand for everything beyond, as far as the square is not the canvas.
    inner = at if whole else at.clamp(min=0.5 - half, max=half - 0.5)
    colours = F.grid_sample(
        layer.texture,
        2 * (inner + half) / canvas - 1,
        padding_mode="reflection" if whole else "border",
        align_corners=False,
    )
    colours = colours.view(count, 3, TIMES, size, size).transpose(1, 2)
    if whole:
        return colours, torch.ones_like(colours[:, :, :1])
    masks = _outline(layer, at / half).view(count, TIMES, 1, size, size)
    return colours, masks


def _outline(layer: Layer, at: Tensor) -> Tensor:
    """Smooth noise under a dome, cut at a level: (n, 1, H, W) at (n, H, W, 2) in [-1, 1]."""
    noise = F.grid_sample(
        layer.noise, at, mode="bicubic", padding_mode="border", align_corners=True
    )
    dome = 1 - at.square().sum(-1).sqrt()[:, None]
    level = (dome + 0.25 * noise) * (layer.side / layer.softness).view(-1, 1, 1, 1)
    inside = (at.abs() <= 1).all(-1)[:, None]
    return level.clamp(0, 1) * inside


def flows(matrices: Tensor, size: int) -> Tensor:
    """Flow of every pixel at time t to its position at times 0 and 1: (n, 4, size, size)."""
    points = _points(size, matrices.device)
    ends = matrices[:, ::2] @ (inverse(matrices[:, 1]) @ points)[:, None]
    return (_divided(ends) - points[:2]).reshape(-1, 4, size, size)


def inverse(matrices: Tensor) -> Tensor:
    """Inverses of homographies (..., 3, 3), up to a factor.

    In closed form: `torch.linalg.inv` waits for the GPU.
    """
    a, b, c = matrices.unbind(-2)
    columns = (torch.linalg.cross(b, c), torch.linalg.cross(c, a), torch.linalg.cross(a, b))
    return torch.stack(columns, -1)


def _divided(points: Tensor) -> Tensor:
    """Homogeneous (..., 3, P) -> (..., 2, P)."""
    return points[..., :2, :] / points[..., 2:, :]


def _points(size: int, device: torch.device) -> Tensor:
    """Pixel centres as homogeneous points, (3, size * size): x, y, 1."""
    at = torch.arange(size, dtype=torch.float32, device=device) + 0.5
    y, x = torch.meshgrid(at, at, indexing="ij")
    return torch.stack((x, y, torch.ones_like(x))).reshape(3, -1)
