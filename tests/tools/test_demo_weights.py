"""tools/demo_weights: samples, losses, and the steps of the training."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import fields, replace

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from demo_weights.batches import Batch, Samples, augmented, reversed_in_time
from demo_weights.draws import Draws
from demo_weights.errors import TrainingError
from demo_weights.losses import census_distance, flow_distance, interpolate, losses_of
from demo_weights.store import FrameStore
from demo_weights.synthetic import Layer, SyntheticMotion, flows, homographies, render
from demo_weights.trainer import Trainer
from demo_weights.triplets import Triplets
from demo_weights.validation import Validation
from demo_weights_samples import (
    CPU,
    CUT,
    SETTINGS,
    batch_maker,
    counting_store,
    smooth,
    store_of,
    trainer_of,
)
from ifrnet_model import load_checkpoint
from ifrnet_model.layers import warp


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    """Uses one thread: on a busy machine threads wait for each other in these small layers."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def store() -> FrameStore:
    return counting_store()


def test_a_crop_copies_pixels_or_averages_blocks(store: FrameStore) -> None:
    frame = store.pixels[: 20 * 48 * 64].view(20, 48, 64, 3)[7].float()
    one, two = torch.tensor([0]), torch.tensor([7])
    copied = store.crops(one, two, torch.tensor([[5, 9]]), torch.tensor([1.0]), 32)
    torch.testing.assert_close(copied[0], frame[5:37, 9:41].permute(2, 0, 1), atol=0, rtol=0)
    halved = store.crops(one, two, torch.tensor([[4, 10]]), torch.tensor([2.0]), 16)
    blocks = frame[4:36, 10:42].reshape(16, 2, 16, 2, 3).mean((1, 3)).permute(2, 0, 1)
    torch.testing.assert_close(halved[0], blocks)


def test_flows_point_to_the_places_of_a_layer_in_both_frames() -> None:
    size, t = 64, torch.tensor([0.3])
    matrices = homographies(
        torch.tensor([[32.0, 32.0]]),
        torch.tensor([[6.0, -4.0]]),
        t,
        torch.tensor([False]),
        Draws(CPU, 3),
    )
    layer = Layer(torch.tensor([96.0]), matrices, smooth(96, 96), torch.zeros(1, 1, 5, 5), t)
    colours, masks = render(layer, size, whole=True)
    assert colours.shape == (1, 3, 3, size, size)
    assert masks.all()
    first, middle, last = colours.unbind(1)
    flow = flows(matrices, size)
    inside = (..., slice(12, -12), slice(12, -12))
    for end, part in ((first, flow[:, :2]), (last, flow[:, 2:])):
        # Two bilinear samplings of a smooth texture; the frames differ by 0.1 and more.
        assert (warp(end, part) - middle)[inside].abs().max() < 0.01
        assert (end - middle)[inside].abs().max() > 0.1


def test_outside_occlusions_the_middle_frame_equals_both_warped_frames(store: FrameStore) -> None:
    source = SyntheticMotion(store, [], [2], size=64, motion=20.0)
    source.clips = source.photos  # The noise of the clips is not a smooth texture.
    frames, t, flow = source.draw(12, Draws(CPU, 1))
    first, middle, last = frames.unbind(1)
    assert ((t > 0) & (t < 1)).all()
    assert flow.abs().amax((1, 2, 3)).max() > 4
    errors = [
        (warp(end, part) - middle).abs().amax(1)
        for end, part in ((first, flow[:, :2]), (last, flow[:, 2:]))
    ]
    # At borders of the frame and of the layers pixels are hidden in one frame; with the outlines of
    # the first frame the share is 0.84.
    assert (torch.stack(errors) < 0.02).float().mean() > 0.855


def test_a_background_without_motion_has_no_flow(store: FrameStore) -> None:
    stands = torch.tensor([True])
    matrices = homographies(
        torch.full((1, 2), 16.0), torch.ones(1, 2), torch.tensor([0.5]), stands, Draws(CPU, 0)
    )
    assert flows(matrices, 32).abs().max() < 1e-4


def test_frames_flows_and_time_step_of_a_sample_match(store: FrameStore) -> None:
    maker = batch_maker(store, batch=4)
    known = 0
    for step in range(10):
        batch = maker.make(step)
        assert batch.img0.shape == batch.imgt.shape == batch.img1.shape == (4, 3, 32, 32)
        assert batch.flow.shape == (4, 4, 32, 32)
        real = batch.known.flatten() == 0
        known += int((~real).sum())
        assert not batch.flow[real].any()
        # The brightness of the clips changes evenly, forwards or backwards in time.
        at = [frame.mean((1, 2, 3))[real] for frame in (batch.img0, batch.imgt, batch.img1)]
        t = batch.t.flatten()[real]
        torch.testing.assert_close(at[1], at[0] + t * (at[2] - at[0]), atol=0.01, rtol=0)
    assert known == 12  # 30 % of forty samples.


def test_a_seed_determines_the_batches(store: FrameStore) -> None:
    one, same, other = (batch_maker(store, seed=seed) for seed in (5, 5, 6))
    for step in range(3):
        batches = [maker.make(step) for maker in (one, same, other)]
        for field in fields(Batch):
            a, b, _ = (getattr(batch, field.name) for batch in batches)
            torch.testing.assert_close(a, b, atol=0, rtol=0)
        assert not torch.equal(batches[0].img0, batches[2].img0)


def test_augmentation_transforms_flows_with_the_frames() -> None:
    large, count, size = smooth(80, 80), 24, 32
    places = {"first": (22, 14), "middle": (20, 17), "last": (15, 19)}  # y, x
    crops = [large[..., y : y + size, x : x + size] for y, x in places.values()]
    (y0, x0), (y, x), (y1, x1) = places.values()
    flow = torch.tensor([x - x0, y - y0, x - x1, y - y1]).float().view(1, 4, 1, 1)
    samples = Samples(
        torch.stack(crops, 1).repeat(count, 1, 1, 1, 1),
        torch.full((count,), 0.3),
        flow.repeat(count, 1, size, size),
        torch.ones(count),
    )
    draws = Draws(CPU, 0)
    moved = reversed_in_time(augmented(samples, draws), draws)
    first, middle, last = moved.frames.unbind(1)
    inside = (..., slice(7, -7), slice(7, -7))
    for end, part in ((first, moved.flow[:, :2]), (last, moved.flow[:, 2:])):
        torch.testing.assert_close(warp(end, part)[inside], middle[inside], atol=1e-5, rtol=0)
    # Eight ways to flip and transpose, each of them forwards or backwards in time.
    assert len({tuple(corner.tolist()) for corner in moved.flow[:, :, 0, 0]}) > 10
    assert sorted({round(t, 4) for t in moved.t.tolist()}) == [0.3, 0.7]
    assert len({tuple(m[:, 0, 0].argsort().tolist()) for m in middle}) > 3


def test_no_triplet_crosses_a_cut(store: FrameStore) -> None:
    triplets = Triplets(store, [0], 32)
    frames, times = triplets.draw(200, Draws(CPU, 0))
    numbers = (frames.mean((2, 3, 4)) * 25.5 - 0.35).round()
    first, middle, last = numbers.unbind(1)
    assert ((first < middle) & (middle < last)).all()
    torch.testing.assert_close(times, (middle - first) / (last - first))
    assert not ((first < CUT) & (last >= CUT)).any()
    assert {2, 3, 4, 8} == set((last - first).int().tolist())


def test_clips_that_are_too_small_or_too_short_are_named(store: FrameStore) -> None:
    with pytest.raises(TrainingError, match="do not fit the frames of counting: "):
        Triplets(store, [0, 1], 64)
    cut = store_of(torch.zeros(9, 32, 32, 3, dtype=torch.uint8), cuts=(frozenset(range(1, 9)),))
    with pytest.raises(TrainingError, match="without a cut between them"):
        Triplets(cut, [0], 32)
    with pytest.raises(TrainingError, match="no nine frames without a cut"):
        Validation(cut, [0], 4)


class Operations(TorchDispatchMode):
    """Records the names of called operators."""

    def __init__(self) -> None:
        super().__init__()
        self.names: set[str] = set()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        self.names.add(func.overloadpacket.__name__)
        return func(*args, **(kwargs or {}))


def test_a_batch_and_a_step_do_not_wait_for_the_device(store: FrameStore) -> None:
    trainer = trainer_of(store)
    trainer.step(trainer.batch(), 10)  # The optimizer creates its state.
    with Operations() as seen:
        trainer.step(trainer.batch(), 10)
    # Reading a value, and copying a constant to the device.
    assert not seen.names & {"_local_scalar_dense", "nonzero", "lift_fresh", "item", "equal"}
    assert "index_select" in seen.names


def test_the_forward_pass_of_training_equals_that_of_the_network() -> None:
    network = load_checkpoint("demo").network
    img0, img1 = torch.rand(2, 1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    t = torch.full((1, 1, 1, 1), 0.3)
    batch = Batch(img0, img1, img0, t, torch.zeros(1, 4, 64, 64), torch.zeros_like(t))
    with torch.inference_mode():
        made, flow = interpolate(network, batch)
        expected = network(img0, img1, t)
        half, _ = interpolate(network, batch, half=True)
    assert [level.shape[-1] for level in flow] == [8, 16, 32, 64]
    torch.testing.assert_close(made.clamp(0, 1), expected, atol=1e-4, rtol=0)
    assert half.dtype == torch.float32
    assert 1e-5 < (half - made).abs().mean() < 0.01


def census_by_definition(images: Tensor) -> Tensor:
    grey = (images * torch.tensor([0.299, 0.587, 0.114]).view(1, 3, 1, 1)).sum(1, keepdim=True)
    patches = F.unfold(grey, 7, padding=3).view(len(grey), 49, *grey.shape[-2:])
    difference = patches - grey
    return difference / (0.81 * (1 / 255) ** 2 * 255 + difference**2).sqrt()


def test_the_census_and_its_gradient_equal_the_definition() -> None:
    true = smooth(24, 20, seed=1).repeat(2, 1, 1, 1)
    noise = torch.rand(2, 3, 24, 20, generator=torch.Generator().manual_seed(2))
    made = (true + 0.1 * noise).requires_grad_()
    difference = (census_by_definition(made) - census_by_definition(true)) ** 2
    expected = (difference / (0.1 + difference)).mean()
    (gradient,) = torch.autograd.grad(3 * expected, made)
    distance = census_distance(made, true)
    torch.testing.assert_close(distance, expected)
    (found,) = torch.autograd.grad(3 * distance, made)
    torch.testing.assert_close(found, gradient, atol=1e-8, rtol=1e-4)


def test_the_flow_distance_counts_known_flows_at_every_level() -> None:
    true = torch.full((2, 4, 32, 32), 8.0)
    known = torch.tensor([1.0, 0.0]).view(2, 1, 1, 1)
    exact = [true[..., :: 32 // n, :: 32 // n] * n / 32 for n in (4, 8, 16, 32)]
    floor = 4 * 0.01 / 2  # The square root of 1e-4 at four levels, half the samples.
    assert float(flow_distance(exact, true, known)) == pytest.approx(floor)
    off = [*exact[:-1], exact[-1] + torch.tensor([3.0, 99.0]).view(2, 1, 1, 1)]
    assert float(flow_distance(off, true, known)) == pytest.approx(floor - 0.005 + 1.5, abs=1e-3)


def test_the_loss_is_the_sum_of_its_terms(store: FrameStore) -> None:
    network, batch = load_checkpoint("demo").network, batch_maker(store).make(0)
    with torch.no_grad():
        found = losses_of(network, batch)
        made, levels = interpolate(network, batch)
    error = made - batch.imgt
    squared = (error**2).mean((1, 2, 3))
    blend = (1 - batch.t) * batch.img0 + batch.t * batch.img1
    blended = ((blend - batch.imgt) ** 2).mean((1, 2, 3))
    logs = torch.log(squared + 1e-6)
    difference = (census_by_definition(made) - census_by_definition(batch.imgt)) ** 2
    expected = (
        (error**2 + 1e-6).sqrt().mean()
        + 0.1 * (difference / (0.1 + difference)).mean()
        + 0.02 * flow_distance(levels, batch.flow, batch.known)
        + 0.03 * logs.mean()
        + 0.03 * F.relu(logs - torch.log(blended + 1e-6)).mean()
    )
    torch.testing.assert_close(found.total, expected)
    torch.testing.assert_close(found.squared_error, (error.clamp(-1, 1) ** 2).mean())


def test_training_lowers_the_loss_of_one_batch(store: FrameStore) -> None:
    trainer = trainer_of(store)
    batch = trainer.batch()
    values = []
    for _ in range(30):
        trainer.step(batch, None)
        values.append(trainer.take_means()[0])
    assert values[-1] < values[0] - 0.02
    with torch.no_grad():
        assert losses_of(trainer.average, batch).total < values[0]


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")
def test_on_a_gpu_seeds_determine_the_result_and_nothing_waits(store: FrameStore) -> None:
    device = torch.device("cuda")
    there = FrameStore(
        store.pixels.to(device), store.sizes, store.base.tolist(), store.cuts, store.names
    )
    one, same = (batch_maker(there) for _ in range(2))
    torch.testing.assert_close(one.make(0).img0, same.make(0).img0, atol=0, rtol=0)
    settings = replace(SETTINGS, precision="bf16")
    trainer = Trainer(load_checkpoint("demo").network, one, settings, device=device)
    batch = trainer.batch()
    trainer.step(batch, None)
    first, _ = trainer.take_means()
    torch.cuda.set_sync_debug_mode("error")
    try:
        trainer.step(trainer.batch(), None)
        for _ in range(30):
            trainer.step(batch, None)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    trainer.take_means()
    trainer.step(batch, None)
    assert trainer.take_means()[0] < first - 0.02
