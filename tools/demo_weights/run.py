"""The loop of the training: steps, their number, checkpoints, validations, the record."""

from __future__ import annotations

import hashlib
import math
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch

from bench.environment import write_evidence
from demo_weights.budget import MEASURED_STEPS, WARM_UP_STEPS, Budget
from demo_weights.errors import TrainingError
from demo_weights.trainer import Trainer, save_state, save_weights
from demo_weights.validation import Validation

REPORT_STEPS = 100
"""Number of steps between two lines of the log."""

CHECK_SECONDS = 2.0
"""Minimum time between two reads of the clock, each of which waits for the GPU."""


@dataclass
class StepTimes:
    """Times of steps in seconds, measured with a synchronisation before and after.

    Attributes:
        data: Time of making the batches.
        network: Time of forward, backward and the optimizer.
        count: Number of steps that were measured.
    """

    data: float = 0.0
    network: float = 0.0
    count: int = 0

    def means(self) -> dict[str, float]:
        """Mean times of the two parts of a step, in seconds."""
        count = max(1, self.count)
        return {"data_s": self.data / count, "network_s": self.network / count}


@dataclass
class History:
    """The history of a training, which is saved with its state.

    Attributes:
        losses: Rows of step, mean loss, PSNR on the training samples in dB, and learning rate.
        validations: Step and figures of each validation.
        trained_s: Time of the steps in seconds, without start and validations.
        trained_steps: Number of steps in that time.
        validation_s: Time of the last validation in seconds.
    """

    losses: list[dict[str, float]] = field(default_factory=list)
    validations: list[dict[str, Any]] = field(default_factory=list)
    trained_s: float = 0.0
    trained_steps: int = 0
    validation_s: float = 0.0


class TrainingRun:
    """A training from its first step, or from a saved state, to its end."""

    def __init__(
        self,
        trainer: Trainer,
        validation: Validation,
        budget: Budget,
        output: Path,
        *,
        validations: int = 4,
        checkpoint_s: float = 60.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Prepares the run.

        Args:
            trainer: New or restored.
            validation: Run before the first step, after each part of the steps, and at the end.
            budget: Determines the number of steps.
            output: Path of the weights; the state is saved beside it.
            validations: Number of parts into which validations divide the steps.
            checkpoint_s: Seconds between two checkpoints.
            clock: Returns the time in seconds.
        """
        self.trainer, self.validation, self.budget = trainer, validation, budget
        self.output, self.parts, self.checkpoint_s = output, validations, checkpoint_s
        self.clock = clock
        self.history = History()
        self.times = StepTimes()
        self._own_steps = 0
        self._saving_s = 0.0
        # Time and steps at the start of the measurement; validations move the time forward.
        self._steady: tuple[float, int] | None = None
        self._earlier = 0.0, 0

    @property
    def state_path(self) -> Path:
        """Path of the checkpoint."""
        return state_path(self.output)

    def restore(self, state: dict[str, Any]) -> None:
        """Continues from a checkpoint."""
        self.trainer.restore(state)
        self.history = History(**state["progress"])
        self._earlier = self.history.trained_s, self.history.trained_steps

    def run(self) -> None:
        """Trains to the end of the budget, validates and saves.

        Raises:
            TrainingError: If the budget leaves no time for steps, or the loss is not finite.
        """
        if not self.history.validations:
            self._validate(0)
        self._set_reserve()
        if self.budget.left() <= 0 and self.trainer.done == 0:
            raise TrainingError(
                f"{self.budget.elapsed():.0f} s have passed and the last validation needs another "
                f"{self.budget.reserve:.0f} s, which leaves no time to train: raise --minutes, "
                "lower --validation-windows, or give fewer clips"
            )
        saved = checked = self.clock()
        while not self.budget.finished(self.trainer.done):
            measured = self._own_steps >= WARM_UP_STEPS
            if measured and self.times.count < MEASURED_STEPS:
                self._measured_step()
            else:
                self.trainer.step(self.trainer.batch(), self.budget.total)
            self._own_steps += 1
            if self.trainer.device.type == "cpu":
                # On a CPU it costs nothing, and the gradient of a warp by NaN crashes the process.
                self.trainer.check_finite()
            if self.trainer.done % REPORT_STEPS == 0:
                self._report()
            if self._planned() and self.clock() - checked < CHECK_SECONDS:
                continue
            self._synchronise()
            self._plan()
            if self.clock() - saved >= self.checkpoint_s:
                self._checkpoint()
                saved = self.clock()
            self._validate_in_time()
            checked = self.clock()
        self._end()

    def _planned(self) -> bool:
        return self.times.count >= MEASURED_STEPS

    def _measured_step(self) -> None:
        """A step whose two parts are timed."""
        self._synchronise()
        begun = self.clock()
        if self._steady is None:
            self._steady = begun, self.trainer.done
        batch = self.trainer.batch()
        self._synchronise()
        made = self.clock()
        self.trainer.step(batch, self.budget.total)
        self._synchronise()
        self.times.data += made - begun
        self.times.network += self.clock() - made
        self.times.count += 1
        if self._planned():
            means = self.times.means()
            print(
                f"a step takes {sum(means.values()):.3f} s: {means['data_s']:.3f} s for the batch, "
                f"{means['network_s']:.3f} s for the network",
                flush=True,
            )

    def _plan(self) -> None:
        """Plans the number of steps from the time of those since the measurement began."""
        if not self._planned() or self._steady is None:
            return
        begun, first = self._steady
        seconds = (self.clock() - begun) / (self.trainer.done - first)
        self._set_reserve()
        self.budget.plan(self.trainer.done, max(seconds, 1e-6))

    def _set_reserve(self) -> None:
        """Sets the time that the budget reserves for later validations and for saving."""
        progress = self.budget.progress(self.trainer.done)
        to_come = max(1, self.parts - int(progress * self.parts))
        self.budget.reserve = to_come * self.history.validation_s + 2 * self._saving_s

    def _validate_in_time(self) -> None:
        """Validates if a part of the steps, except the last part, is done."""
        part = int(self.budget.progress(self.trainer.done) * self.parts)
        if 0 < part < self.parts and part > self.history.validations[-1]["part"]:
            self._validate(part)

    def _validate(self, part: int) -> None:
        begun = self.clock()
        figures = self.validation.run(self.trainer.average)
        seconds = self.history.validation_s = self.clock() - begun
        if self._steady is not None:
            self._steady = self._steady[0] + seconds, self._steady[1]
        self.history.validations.append(
            {"step": self.trainer.done, "part": part, "results": figures}
        )
        gains = ", ".join(f"{name} {row['gain_db']:+.2f}" for name, row in figures.items())
        print(f"validation, dB above blending: {gains}", flush=True)

    def _checkpoint(self) -> None:
        """Saves weights and state, from which an interrupted training continues."""
        begun = self.clock()
        self.trainer.check_finite()
        self._count_time()
        save_weights(self.trainer.average, self.output)
        state = {
            **self.trainer.state(),
            "progress": asdict(self.history),
            "spent": self.budget.elapsed(),
            "total": self.budget.total,
        }
        save_state(state, self.state_path)
        self._saving_s = self.clock() - begun

    def _count_time(self) -> None:
        """Updates the record's steps and seconds."""
        if self._steady is not None:
            (begun, first), (seconds, steps) = self._steady, self._earlier
            self.history.trained_s = seconds + self.clock() - begun
            self.history.trained_steps = steps + self.trainer.done - first

    def _report(self) -> None:
        loss, error = self.trainer.take_means()
        rate = self.trainer.optimizer.param_groups[0]["lr"]
        psnr = -10 * math.log10(max(error, 1e-12))
        self.history.losses.append(
            {"step": self.trainer.done, "loss": loss, "psnr_db": psnr, "rate": rate}
        )
        print(
            f"{self.trainer.done:6}/{self.budget.total or '?'}  loss {loss:.4f}  {psnr:.2f} dB  "
            f"rate {rate:.1e}  {self.budget.elapsed():.0f} s",
            flush=True,
        )

    def _synchronise(self) -> None:
        if self.trainer.device.type == "cuda":
            torch.cuda.synchronize(self.trainer.device)

    def _end(self) -> None:
        self._synchronise()
        if self.trainer.summed:
            self._report()
        self._checkpoint()
        self._validate(self.parts)
        write_evidence(self.output.with_suffix(".json"), self.record())
        self.state_path.unlink(missing_ok=True)
        print(f"{self.output}: weights after {self.trainer.done} steps", flush=True)

    def record(self) -> dict[str, Any]:
        """The settings, speed and results of the training, for its JSON file."""
        history, batch = self.history, self.trainer.settings.batch
        rate = history.trained_steps / history.trained_s if history.trained_s else None
        return {
            "settings": asdict(self.trainer.settings),
            "device": device_record(self.trainer.device),
            "weights_sha256": hashlib.sha256(self.output.read_bytes()).hexdigest(),
            "steps": self.trainer.done,
            "seconds": self.budget.elapsed(),
            "steps_per_second": rate,
            "samples_per_second": rate and rate * batch,
            "step_times": {**self.times.means(), "steps": self.times.count},
            "losses": history.losses,
            "validations": history.validations,
        }


def state_path(output: Path) -> Path:
    """Path of the checkpoint of a training whose weights are written to `output`."""
    return output.with_suffix(".state")


def device_record(device: torch.device) -> dict[str, Any]:
    """Type, name, memory and software of a device, for the record."""
    record: dict[str, Any] = {"type": device.type, "torch": torch.__version__}
    if device.type == "cuda":
        properties = torch.cuda.get_device_properties(device)
        record |= {
            "name": properties.name,
            "memory_bytes": properties.total_memory,
            "compute_capability": f"{properties.major}.{properties.minor}",
            "cuda": torch.version.cuda,
            "cudnn": torch.backends.cudnn.version(),
            "peak_memory_bytes": torch.cuda.max_memory_allocated(device),
        }
    else:
        record["threads"] = torch.get_num_threads()
    return record
