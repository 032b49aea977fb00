"""tools/demo_weights: training loop, validation, checkpoints and time budget."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from demo_weights.batches import Batch
from demo_weights.budget import SPARE_SECONDS, Budget, rate_at
from demo_weights.errors import TrainingError
from demo_weights.run import TrainingRun
from demo_weights.store import FrameStore
from demo_weights.trainer import load_state
from demo_weights.validation import Validation
from demo_weights_samples import (
    CUT,
    SETTINGS,
    counting_store,
    trainer_of,
)
from ifrnet_model import load_checkpoint


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


def test_validation_measures_the_network_and_blending(store: FrameStore) -> None:
    validation = Validation(store, [0], 100)
    assert validation.windows == [(0, 0), *((0, first) for first in range(CUT, 12))]
    validation.windows = [(0, 10)]
    frames = store.pixels[: 20 * 48 * 64].view(20, 48, 64, 3).numpy() / 255.0
    found = validation.run(lambda img0, _, t: img0.expand(len(t), -1, -1, -1))  # type: ignore[arg-type]
    expected = {"middle": (13, 15, 14, 0.5)}
    expected |= {f"t = {k / 8:g}": (10, 18, 10 + k, k / 8) for k in range(1, 8)}
    assert list(found) == list(expected)
    for name, (first, last, middle, t) in expected.items():
        blended = (1 - t) * frames[first] + t * frames[last]
        for key, image in (("psnr_db", frames[first]), ("blending_db", blended)):
            db = -10 * np.log10(((image - frames[middle]) ** 2).mean())
            assert found[name][key] == pytest.approx(db, abs=1e-3)
        assert found[name]["below_blending_by_more_than_0.3_db"] == 1


def test_validation_crops_frames_to_multiples_of_16(store: FrameStore) -> None:
    seen = []

    def network(img0: Tensor, img1: Tensor, t: Tensor) -> Tensor:
        seen.append(tuple(img0.shape[-2:]))
        return torch.lerp(img0, img1, t)

    found = Validation(store, [1], 2).run(network)  # type: ignore[arg-type]
    assert set(seen) == {(64, 64)}
    assert {row["samples"] for row in found.values()} == {2}
    assert all(row["gain_db"] == 0 for row in found.values())


class Clock:
    """A clock that advances by `tick` seconds at each reading."""

    def __init__(self, tick: float = 0.0) -> None:
        self.now, self.tick = 1000.0, tick

    def __call__(self) -> float:
        self.now += self.tick
        return self.now


def run_of(
    store: FrameStore, output: Path, budget: Budget, clock: Clock, **options: float
) -> TrainingRun:
    return TrainingRun(
        trainer_of(store), Validation(store, [0], 1), budget, output, clock=clock, **options
    )


def test_a_resumed_training_ends_with_the_same_weights(store: FrameStore, tmp_path: Path) -> None:
    whole = run_of(store, tmp_path / "whole.safetensors", Budget(steps=6), Clock())
    whole.run()

    broken = run_of(
        store, tmp_path / "broken.safetensors", Budget(steps=6), Clock(), checkpoint_s=0.0
    )
    step = broken.trainer.step

    def killed(batch: Batch, total: int | None) -> None:
        if broken.trainer.done == 4:
            raise KeyboardInterrupt
        step(batch, total)

    broken.trainer.step = killed  # type: ignore[method-assign]
    with pytest.raises(KeyboardInterrupt):
        broken.run()
    state = load_state(broken.state_path)
    assert state["step"] == 4

    resumed = run_of(store, broken.output, Budget(steps=6, spent=state["spent"]), Clock())
    resumed.restore(state)
    resumed.run()
    for part in ("network", "average"):
        a, b = (getattr(run.trainer, part).state_dict() for run in (whole, resumed))
        for name, tensor in a.items():
            torch.testing.assert_close(tensor, b[name], atol=0, rtol=0)
    saved = load_checkpoint(broken.output).network.state_dict()
    for name, tensor in load_checkpoint(whole.output).network.state_dict().items():
        torch.testing.assert_close(tensor, saved[name], atol=0, rtol=0)
    assert not resumed.state_path.exists()
    assert [v["part"] for v in resumed.history.validations] == [
        v["part"] for v in whole.history.validations
    ]


def test_a_resumed_training_has_the_same_settings(store: FrameStore, tmp_path: Path) -> None:
    state = trainer_of(store).state()
    SETTINGS.check_resumed(state["settings"], tmp_path)
    with pytest.raises(TrainingError, match="with batch 3 and this run has 4: resume"):
        replace(SETTINGS, batch=4).check_resumed(state["settings"], tmp_path)


def test_a_loss_of_nan_ends_the_training(store: FrameStore, tmp_path: Path) -> None:
    run = run_of(store, tmp_path / "x.safetensors", Budget(steps=6), Clock(), checkpoint_s=0.0)
    with torch.no_grad():
        run.trainer.network.decoder1.convblock[2].bias[-1] = float("nan")
    with pytest.raises(TrainingError, match="the loss is not a finite number before step 1"):
        run.run()
    assert not run.state_path.exists()


@pytest.mark.parametrize("slower_after", [10**6, 40])
def test_a_training_with_a_budget_of_minutes_ends_in_time(
    store: FrameStore, tmp_path: Path, slower_after: int
) -> None:
    """A step takes 1 s, later 3 s; a validation 12 s. The learning rate has fallen at the end."""
    clock = Clock()
    budget = Budget(minutes=3, clock=clock)
    run = run_of(store, tmp_path / "x.safetensors", budget, clock, validations=2)
    step, validate = run.trainer.step, run.validation.run
    quick = []

    def timed_step(batch: Batch, total: int | None) -> None:
        clock.now += 1 if run.trainer.done < slower_after else 3
        if run.trainer.done % 20 == 0:
            step(batch, total)
        else:  # The network does not matter here: most steps only set the learning rate.
            quick.append(rate_at(run.trainer.done, total, 1.0))
            run.trainer.done += 1

    def timed_validation(network):  # type: ignore[no-untyped-def]
        clock.now += 12
        return validate(network)

    run.trainer.step = timed_step  # type: ignore[method-assign]
    run.validation.run = timed_validation  # type: ignore[method-assign]
    run.run()
    assert budget.elapsed() <= 180
    assert budget.elapsed() > 180 - SPARE_SECONDS - 5
    assert quick[-1] < 0.05
    assert 130 <= run.trainer.done <= 139 or slower_after == 40
    assert [v["part"] for v in run.history.validations] == [0, 1, 2]


def test_a_budget_without_time_for_steps_is_refused(store: FrameStore, tmp_path: Path) -> None:
    clock = Clock()
    budget = Budget(minutes=1, clock=clock)
    run = run_of(store, tmp_path / "x.safetensors", budget, clock)
    clock.now += 59
    with pytest.raises(TrainingError, match=r"59 s have passed .* raise --minutes"):
        run.run()
    assert not run.output.exists()


def test_a_resumed_budget_counts_the_earlier_time() -> None:
    clock = Clock()
    budget = Budget(minutes=2, spent=70, planned=500, clock=clock)
    assert budget.total == 500
    assert budget.left() == pytest.approx(50 - SPARE_SECONDS)
    budget.plan(done=100, seconds_per_step=0.5)
    assert budget.total == 100 + 2 * (50 - SPARE_SECONDS)
    clock.now += 50
    assert budget.finished(100)


def test_the_learning_rate_rises_stays_and_falls() -> None:
    assert rate_at(0, 1000, 1.0) == pytest.approx(0.01)
    assert rate_at(300, 1000, 1.0) == pytest.approx(1.0, abs=1e-5)
    assert rate_at(750, 1000, 1.0) == pytest.approx(0.5, abs=1e-5)
    assert rate_at(1000, 1000, 1.0) == pytest.approx(1e-6)
    assert rate_at(4, 50, 1.0) == pytest.approx(1.0)  # A tenth of a short training warms up.
    assert rate_at(5000, None, 1.0) == pytest.approx(1.0, abs=1e-5)
