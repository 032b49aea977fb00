"""Protocols of data sets: which frames are read, how they are processed, which metrics apply.

Each protocol names in `script` the published code that it follows. All rules of a data set are
here; only its layout on disk is implemented elsewhere, in `bench.data.datasets`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

from bench.environment import MeasurementError

Metric = Literal["psnr", "ssim_3d", "ssim_2d", "ie"]
Rules = Literal["paper", "mmagic"]
"""Whose rules: those of the paper and its benchmarks, or those of mmagic's configurations."""


@dataclass(frozen=True)
class Protocol:
    """How quality is measured on one data set.

    Attributes:
        name: Name on the command line.
        title: Name in tables.
        frame_size: (height, width) of most frames; None if frames may have any size.
        factor: New frames have the time steps k / factor for k = 1 .. factor - 1.
        samples: Number of samples of the official test set; None without one.
        layout: Layout of the files under --root.
        source: Where to download the data set.
        script: Published code that measures in the same way.
        crop: (height, width) of the centre crop of larger frames; None: no crop.
        canvas: (height, width) of a black canvas whose top left corner holds the input frames;
            the new frame is cropped to its target; None: no canvas.
        downscale: Factor by which frames are reduced, by averaging pixels.
        flow_scale: Scale of the frame on which motion is estimated, relative to the frame.
        rounded: Whether the prediction is rounded to 8 bits before PSNR is computed.
        metrics: Metrics, as `bench.quality.metrics` defines them.
        rules: Whose rules these are.
    """

    name: str
    title: str
    frame_size: tuple[int, int] | None
    factor: int
    samples: int | None
    layout: str
    source: str
    script: str
    crop: tuple[int, int] | None = None
    canvas: tuple[int, int] | None = None
    downscale: int = 1
    flow_scale: float = 1.0
    rounded: bool = False
    metrics: tuple[Metric, ...] = ("psnr", "ssim_3d")
    rules: Rules = "paper"

    @property
    def stored_size(self) -> tuple[int, int] | None:
        """(height, width) of the image files; None if frames may have several sizes."""
        if self.frame_size is None or self.canvas is not None:
            return None
        height, width = self.frame_size
        return height * self.downscale, width * self.downscale


def _snu_film(level: str) -> Protocol:
    return Protocol(
        name=f"snufilm-{level}",
        title=f"SNU-FILM {level}",
        frame_size=(720, 1280),
        factor=2,
        samples=310,
        # The padding to multiples of 20 of the authors' script follows from this flow scale.
        flow_scale=0.8,
        layout=f"test-{level}.txt with three paths a line; the frames under "
        "test/{GOPRO_test,YouTube_test}/<sequence>/, or as the lines say",
        source="https://myungsub.github.io/CAIN",
        script="ltkong218/IFRNet benchmarks/SNU_FILM.py",
    )


def _x_test(kind: str, frame_size: tuple[int, int], downscale: int) -> Protocol:
    return Protocol(
        name=f"xtest-{kind}",
        title=f"X-TEST {kind.upper()}",
        frame_size=frame_size,
        factor=8,
        samples=15,
        downscale=downscale,
        rounded=True,
        metrics=("psnr",),
        layout="test/Type{1,2,3}/TEST*/0000.png .. 0032.png; 0000 and 0032 are the inputs, "
        "0004, 0008 .. 0028 the targets",
        source="https://github.com/JihyongOh/XVFI",
        script="MCG-NJU/EMA-VFI benchmark/XTest_8X.py",
    )


_EIGHTFOLD = "windows of nine frames that share their ends; the first and the last are the inputs"

VIDEO_FOLDERS = ("", "test", "test/full_sharp", "test/sharp")
"""Folders of a data set that may contain the folders of its test videos."""
_ABOVE = ", ".join(filter(None, VIDEO_FOLDERS))

PROTOCOLS: dict[str, Protocol] = {
    protocol.name: protocol
    for protocol in (
        Protocol(
            name="vimeo90k",
            title="Vimeo90K",
            frame_size=(256, 448),
            factor=2,
            samples=3782,
            layout="tri_testlist.txt beside sequences/<list's line>/im1.png, im2.png, im3.png "
            "(vimeo_triplet), or input/ and target/ with the same folders (vimeo_interp_test)",
            source="http://toflow.csail.mit.edu",
            script="ltkong218/IFRNet benchmarks/Vimeo90K.py",
        ),
        Protocol(
            name="ucf101",
            title="UCF101",
            frame_size=(256, 256),
            factor=2,
            samples=379,
            layout="ucf101_interp_ours/<number>/frame_00.png, frame_01_gt.png, frame_02.png",
            source="https://github.com/liuziwei7/voxel-flow",
            script="ltkong218/IFRNet benchmarks/UCF101.py",
        ),
        *(_snu_film(level) for level in ("easy", "medium", "hard", "extreme")),
        Protocol(
            name="middlebury",
            title="Middlebury Other",
            frame_size=(480, 640),
            factor=2,
            samples=12,
            canvas=(480, 640),
            metrics=("psnr", "ssim_3d", "ie"),
            layout="other-data/<sequence>/frame10.png, frame11.png and "
            "other-gt-interp/<sequence>/frame10i11.png",
            source="https://vision.middlebury.edu/flow/data",
            script="ltkong218/IFRNet benchmarks/Middlebury_Other.py",
        ),
        Protocol(
            name="gopro",
            title="GoPro 8x",
            frame_size=(720, 1280),
            factor=8,
            samples=None,
            crop=(512, 512),
            layout=f"<video>/*.png of the 11 test videos of GOPRO_Large_all, also below {_ABOVE}; "
            f"{_EIGHTFOLD}",
            source="https://seungjunnah.github.io/Datasets/gopro",
            script="ltkong218/IFRNet datasets.py GoPro_Test_Dataset",
        ),
        Protocol(
            name="adobe240",
            title="Adobe240 8x",
            frame_size=(352, 640),
            factor=8,
            samples=None,
            crop=(512, 512),
            layout=f"<video>/*.png of the eight test videos, also below {_ABOVE}; {_EIGHTFOLD}",
            source="https://www.cs.ubc.ca/labs/imager/tr/2017/DeepVideoDeblurring",
            script="open-mmlab/mmagic pull request 1560, its list of videos",
        ),
        _x_test("4k", (2160, 4096), 1),
        _x_test("2k", (1080, 2048), 2),
        Protocol(
            name="folder",
            title="folder",
            frame_size=None,
            factor=2,
            samples=None,
            metrics=("psnr", "ssim_3d"),
            layout="a video file, a folder of frames, or folders of frames (three make a "
            "triplet); windows of factor + 1 frames that share their ends",
            source="your own",
            script="none",
        ),
    )
}
"""All data sets, by their names on the command line."""

GOPRO_TEST = (
    "GOPR0384_11_00", "GOPR0384_11_05", "GOPR0385_11_01", "GOPR0396_11_00", "GOPR0410_11_00",
    "GOPR0854_11_00", "GOPR0862_11_00", "GOPR0868_11_00", "GOPR0869_11_00", "GOPR0871_11_00",
    "GOPR0881_11_01",
)  # fmt: skip
"""The official test videos."""

ADOBE240_TEST = (
    "720p_240fps_1", "GOPR9635", "GOPR9637a", "IMG_0004a", "IMG_0015", "IMG_0023", "IMG_0179",
    "IMG_0183",
)  # fmt: skip
"""The usual test videos (Super SloMo, BIN, mmagic)."""

_MMAGIC_CONFIGURATIONS = {
    "vimeo90k": "ifrnet_in2out1_8xb4_vimeo",
    "gopro": "ifrnet_in2out7_8xb4_gopro",
    "adobe240": "ifrnet_in2out7_8xb4_adobe",
}
"""mmagic's configuration of each data set that it measures IFRNet on."""

LATENCY_SETS = {
    "vimeo90k": "vimeo90k",
    "ucf101": "ucf101",
    "snufilm": "snufilm-easy",
    "middlebury": "middlebury",
    "gopro": "gopro",
    "adobe240": "adobe240",
    "xtest": "xtest-4k",
}
"""Data sets whose frame size and factor `bench.latency` can use, by a short name."""


def protocol_of(dataset: str, rules: Rules = "paper") -> Protocol:
    """The protocol of a data set under the rules of the paper or of mmagic.

    They differ in SSIM, which is two-dimensional in mmagic. Both compute PSNR from floats, RGB, for
    each new frame. mmagic's "centre crop" of GoPro and Adobe240 is a random crop in its code, so
    that its figures there cannot be reproduced exactly.

    Args:
        dataset: A key of `PROTOCOLS`.
        rules: Whose rules.

    Raises:
        MeasurementError: If mmagic has no configuration for the data set.
    """
    protocol = PROTOCOLS[dataset]
    if rules == "paper":
        return protocol
    if dataset not in _MMAGIC_CONFIGURATIONS:
        raise MeasurementError(
            f"--protocol mmagic was given with --dataset {dataset}, which mmagic does not measure: "
            f"leave it out, or give one of {', '.join(_MMAGIC_CONFIGURATIONS)}"
        )
    return replace(
        protocol,
        title=f"{protocol.title}, mmagic",
        metrics=("psnr", "ssim_2d"),
        script=f"open-mmlab/mmagic pull request 1560, {_MMAGIC_CONFIGURATIONS[dataset]}",
        rules="mmagic",
    )


def protocol_lines() -> list[str]:
    """Lines of `--list`: frame size, rules, layout and source of each data set."""
    lines = []
    of_mmagic = (protocol_of(name, "mmagic") for name in _MMAGIC_CONFIGURATIONS)
    for p in (*PROTOCOLS.values(), *of_mmagic):
        option = "" if p.rules == "paper" else f" --protocol {p.rules}"
        size = "any size" if p.frame_size is None else f"{p.frame_size[1]}x{p.frame_size[0]}"
        count = "" if p.samples is None else f", {p.samples} samples"
        rules = [f"{p.factor}x"]
        if p.crop:
            rules.append(f"centre crop {p.crop[1]}x{p.crop[0]}")
        if p.canvas:
            rules.append(f"black canvas {p.canvas[1]}x{p.canvas[0]}")
        if p.downscale > 1:
            rules.append("reduced to half size by averaging")
        if p.flow_scale != 1:
            rules.append(f"flow scale {p.flow_scale}")
        rules.append(", ".join(p.metrics) + (" of the rounded image" if p.rounded else ""))
        lines += [
            f"{p.name}{option}: {p.title}, {size}{count}; {'; '.join(rules)}",
            f"    layout  {p.layout}",
            f"    source  {p.source}",
            f"    follows {p.script}",
        ]
    return lines
