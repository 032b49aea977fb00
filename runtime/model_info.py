"""The metadata of a model: types, sizes, inputs and outputs.

`ModelInfo` is stored in the ONNX file (`metadata_props`) and in the manifest beside an artefact, so
that the runtime never guesses a size, a type or a capability.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal, TypeVar, get_args

from runtime.errors import ModelError
from runtime.records import FORMAT_VERSION, record_from

PROPERTY_PREFIX = "ifrnet."
"""Prefix of the keys of this package in `metadata_props`."""

INPUTS = ("img0", "img1", "timestep")
"""Names of a model's inputs, in the order of the graph."""

STACKED = "planes"
"""Name of the only input of a model with stacked I/O."""

OUTPUT = "imgt"
"""Name of a model's output."""

_NUMBERS = (
    "format_version", "divisor", "steps_per_call", "pairs_per_call", "height", "width", "max_pairs",
)  # fmt: skip

_LARGEST = 2**31 - 1

Precision = Literal["fp32", "fp16", "int8"]
IOKind = Literal["float", "frames", "stacked"]
TimeSteps = Literal["midpoint", "arbitrary"]
Warp = Literal["gridsample", "gather"]
TunedFor = Literal["any", "cpu"]

_Axis = TypeVar("_Axis", int, int | None)


@dataclass(frozen=True)
class ImageLayout:
    """Type and order of the axes of a batch of images.

    Attributes:
        dtype: "uint8" for values in 0..255, or "float32" for values in [0, 1].
        channels_last: True for (N, H, W, 3), False for (N, 3, H, W).
    """

    dtype: Literal["uint8", "float32"]
    channels_last: bool

    @property
    def size_axes(self) -> tuple[int, int]:
        """The axes of height and width in a batch."""
        return (1, 2) if self.channels_last else (2, 3)

    def shape(self, count: _Axis, height: _Axis, width: _Axis) -> tuple[int | _Axis, ...]:
        """The shape of a batch of `count` images."""
        if self.channels_last:
            return count, height, width, 3
        return count, 3, height, width

    def size_of(self, shape: Sequence[int]) -> tuple[int, int]:
        """(height, width) in the shape of a batch, or of an image without the batch axis."""
        height, width = (shape[axis - 4] for axis in self.size_axes)
        return height, width


LAYOUTS: dict[IOKind, ImageLayout] = {
    "float": ImageLayout("float32", channels_last=False),
    "frames": ImageLayout("uint8", channels_last=True),
    "stacked": ImageLayout("float32", channels_last=False),
}


@dataclass(frozen=True)
class Port:
    """An input or an output of a model.

    Attributes:
        name: "img0", "img1", "timestep" or "imgt"; with stacked I/O "planes" or "imgt".
        dtype: "uint8" or "float32"; any name of a type in a file from elsewhere.
        shape: Length of each axis; None for a free axis.
        is_input: Whether it is an input.
    """

    name: str
    dtype: str
    shape: tuple[int | None, ...]
    is_input: bool

    @property
    def dims(self) -> tuple[int, ...]:
        """The shape as TensorRT and Triton write it: -1 for a free axis."""
        return tuple(-1 if n is None else n for n in self.shape)


@dataclass(frozen=True)
class ModelInfo:
    """The metadata of one artefact.

    Attributes:
        variant: Size of the network: "small", "base" or "large".
        weights_sha256: SHA-256 of the checkpoint file of the weights.
        precision: "fp32", "fp16" with float32 islands, or "int8" in the decoders' convolutions and
            float32 everywhere else.
        io: "float": float32 (N, 3, H, W) in [0, 1]; "frames": uint8 (N, H, W, 3); "stacked": one
            input float32 (1, 7, H, W), both frames in [0, 1] and the time step in every pixel.
        divisor: Height and width inside the network are multiples of it.
        flow_scale: Size at which motion is estimated, relative to the frame.
        time_steps: "midpoint": the weights know t = 1/2 only; "arbitrary": any t in (0, 1).
        steps_per_call: Number of time steps of one pair in one call (T).
        pairs_per_call: Number of pairs in one call (N), each with its own time step; 1 if T > 1.
        height: Height of the frames in pixels; None if height and width are free.
        width: Width of the frames in pixels; None if height and width are free.
        warp: Operators of a warp: "gridsample", or "gather" for elementary ones only.
        tuned_for: "any": the graph as exported; "cpu": rewritten for ONNX Runtime's CPU kernels.
        tool_version: Version of ifrnet-deploy that wrote the file.
        max_pairs: Limit of N if N is free, for a server that batches the requests of several
            clients; `pairs_per_call` is then 1. None if N is fixed.
        tta: Whether the result is the mean of two: for the frames, and for the frames flipped in
            both axes, flipped back (test-time augmentation). Absent if it is not.

    Raises:
        ModelError: If a value is invalid.
    """

    variant: str
    weights_sha256: str
    precision: Precision
    io: IOKind
    divisor: int
    flow_scale: float
    time_steps: TimeSteps
    steps_per_call: int
    pairs_per_call: int
    height: int | None
    width: int | None
    warp: Warp
    tuned_for: TunedFor
    tool_version: str
    max_pairs: int | None = None
    tta: bool = False

    def __post_init__(self) -> None:
        literals = {
            "precision": Precision,
            "io": IOKind,
            "time_steps": TimeSteps,
            "warp": Warp,
            "tuned_for": TunedFor,
        }
        for name, literal in literals.items():
            if getattr(self, name) not in get_args(literal):
                raise ModelError(
                    f"the model's {name} is {getattr(self, name)!r}, not one of "
                    f"{', '.join(get_args(literal))}: export it again with this version"
                )
        if (self.height is None) != (self.width is None):
            raise ModelError("the model fixes only one of height and width: export it again")
        numbers = [self.divisor, self.steps_per_call, self.pairs_per_call]
        numbers += [n for n in (self.height, self.width, self.max_pairs) if n is not None]
        if min(numbers) < 1 or max(numbers) > _LARGEST or not 0 < self.flow_scale <= _LARGEST:
            raise ModelError(
                "the model's metadata has sizes or counts below 1 or above 2^31 - 1, or flow_scale "
                "is not above 0: export it again"
            )
        if self.steps_per_call > 1 and self.pairs_per_call > 1:
            raise ModelError("the model has several pairs and several time steps: export it again")
        if self.io == "stacked" and (self.max_pairs is not None or self.frames_per_call > 1):
            raise ModelError(
                "the model has stacked I/O and several pairs or time steps: export it again"
            )
        if self.max_pairs is not None and self.frames_per_call > 1:
            raise ModelError("the model has a free and a fixed number of pairs: export it again")

    @property
    def frames_per_call(self) -> int:
        """Number of frames that one call computes (B)."""
        return max(self.steps_per_call, self.pairs_per_call)

    @property
    def size(self) -> tuple[int, int] | None:
        """(height, width) of the frames; None if they are free."""
        if self.height is None or self.width is None:
            return None
        return self.height, self.width

    @property
    def layout(self) -> ImageLayout:
        """Type and axes of the images: img0, img1 and imgt."""
        return LAYOUTS[self.io]

    def image_size(self, size: tuple[int, int]) -> tuple[int, int]:
        """(height, width) of the model's images for frames of (height, width) `size`.

        With io "float" they are rounded up to multiples of `divisor`. Otherwise they are equal,
        since the graph pads.
        """
        if self.io != "float":
            return size
        height, width = (n + -n % self.divisor for n in size)
        return height, width

    def ports(self) -> dict[str, Port]:
        """Inputs and outputs by name, inputs first, in the order of the graph."""
        height, width = self.size or (None, None)
        pairs = rows = None
        if not self.max_pairs:
            pairs, rows = self.pairs_per_call, self.frames_per_call
        image, result = (self.layout.shape(n, height, width) for n in (pairs, rows))
        dtype = self.layout.dtype
        ports: tuple[Port, ...]
        if self.io == "stacked":
            ports = (Port(STACKED, dtype, (1, 7, height, width), is_input=True),)
        else:
            img0, img1, timestep = INPUTS
            ports = (
                Port(img0, dtype, image, is_input=True),
                Port(img1, dtype, image, is_input=True),
                Port(timestep, "float32", (rows, 1, 1, 1), is_input=True),
            )
        ports = (*ports, Port(OUTPUT, dtype, result, is_input=False))
        return {port.name: port for port in ports}

    def check_separate(self, source: str) -> None:
        """Checks that the two frames are inputs of their own, as this package runs a model.

        Args:
            source: Name of the file or the model, for the message.

        Raises:
            ModelError: If they are stacked in one input.
        """
        if self.io == "stacked":
            raise ModelError(
                f"{source} has both frames in one input, for filters of video frameworks: export "
                "it without --io stacked"
            )

    def to_properties(self) -> dict[str, str]:
        """The metadata as `metadata_props` of an ONNX file."""
        properties = {"format_version": FORMAT_VERSION, **self.to_dict()}
        return {
            PROPERTY_PREFIX + key: str(value).lower() if isinstance(value, bool) else str(value)
            for key, value in properties.items()
            if value is not None
        }

    def to_dict(self) -> dict[str, Any]:
        """The fields by name, without `tta` if it is False: earlier versions do not know it."""
        values = asdict(self)
        if not self.tta:
            del values["tta"]
        return values

    @classmethod
    def from_properties(cls, properties: Mapping[str, str], *, source: str) -> ModelInfo:
        """Reads the `metadata_props` of an ONNX file.

        Args:
            properties: All properties of the file; those of other tools are ignored.
            source: Name of the file, for messages.

        Raises:
            ModelError: If they are missing, incomplete, or of another format version.
        """
        parsed: dict[str, Any] = {
            key.removeprefix(PROPERTY_PREFIX): value
            for key, value in properties.items()
            if key.startswith(PROPERTY_PREFIX)
        }
        if not parsed:
            raise ModelError(
                f"{source} has no ifrnet-deploy metadata: export a model with "
                "python -m export.to_onnx --weights demo --output model.onnx"
            )
        try:
            for key in _NUMBERS:
                if key in parsed:
                    parsed[key] = int(parsed[key])
            parsed["flow_scale"] = float(parsed["flow_scale"])
            if "tta" in parsed:
                parsed["tta"] = {"false": False, "true": True}[parsed["tta"]]
        except (KeyError, ValueError) as error:
            raise ModelError(f"{source} has damaged metadata ({error}): export it again") from error
        return cls.from_dict({"height": None, "width": None, **parsed}, source=source)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any], *, source: str) -> ModelInfo:
        """Builds a ModelInfo from its fields and `format_version`; `source` is for messages.

        Raises:
            ModelError: If a field is missing, unknown or of another type, or the format version
                differs.
        """
        return record_from(cls, values, source)
