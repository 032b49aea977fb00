"""The cases of `bench.latency`: frame size, factor and frames, of a data set or chosen."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from bench.data.protocols import LATENCY_SETS, PROTOCOLS
from bench.records.latency import FramesRecord
from bench.runs.frames import (
    FramePair,
    SampleFrames,
    Size,
    moving_frames,
    noise_frames,
    sample_frames,
)


@dataclass(frozen=True)
class Case:
    """The pair that is interpolated: its frame size and its factor.

    Attributes:
        dataset: Short name of the data set that size and factor come from; None without one.
        size: (height, width) of the frames.
        factor: Ratio of the new frame rate to the old: a pair has factor - 1 new frames.
        flow_scale: Flow scale in the data set's protocol; None without a data set.
        samples: Frames of the data set itself; None: frames are made.
    """

    dataset: str | None
    size: Size
    factor: int
    flow_scale: float | None
    samples: SampleFrames | None = None

    @property
    def size_text(self) -> str:
        """The size as "HEIGHTxWIDTH"."""
        return f"{self.size[0]}x{self.size[1]}"

    @property
    def timed(self) -> Sequence[FramePair]:
        """The pairs that are timed, in turn."""
        return [noise_frames(self.size)] if self.samples is None else self.samples.pairs

    @property
    def compared(self) -> Sequence[FramePair]:
        """The pairs whose new frames are compared with those of PyTorch."""
        return [moving_frames(self.size)] if self.samples is None else self.samples.pairs

    @property
    def frames_record(self) -> FramesRecord:
        """The evidence's "frames"."""
        if self.samples is None:
            return {"made": True, "root_name": None, "samples": []}
        return {
            "made": False,
            "root_name": self.samples.root_name,
            "samples": list(self.samples.names),
        }


def case_of_dataset(name: str, root: Path | None = None) -> Case:
    """The case of a data set.

    Args:
        name: A key of `LATENCY_SETS`.
        root: Folder of the data set, whose frames are then used, whole and in their own size;
            None: the frame size of the protocol, and frames that are made.

    Raises:
        MeasurementError: If the data set is not in `root`, or a frame cannot be read.
    """
    protocol = PROTOCOLS[LATENCY_SETS[name]]
    samples = None if root is None else sample_frames(protocol, root)
    size = protocol.frame_size if samples is None else samples.size
    assert size is not None  # All of LATENCY_SETS have one.
    return Case(name, size, protocol.factor, protocol.flow_scale, samples)
