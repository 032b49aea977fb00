"""Finds the samples of data sets on disk."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from bench.data.protocols import ADOBE240_TEST, GOPRO_TEST, VIDEO_FOLDERS, Protocol
from bench.data.samples import (
    IMAGES,
    Sample,
    image_size,
    is_hidden,
    sample_of_files,
    samples_of_video,
    video_windows,
    windows,
)
from bench.environment import MeasurementError
from runtime.files import natural_key

_SHARP = "sharp"
"""Folder of a video in GOPRO_Large with its sharp frames."""

_CHECKED_SAMPLES = 64
"""Number of samples whose frame size is checked before a run."""

_X_TEST_LAST = 32
"""X-TEST has frames 0 to 32 of each scene; every fourth is used."""


@dataclass(frozen=True)
class DataSet:
    """A data set on disk.

    Attributes:
        samples: Samples in the official order; each is read when its `read` is called.
        count: Number of samples; None for a video whose container does not give it.
        notes: Sentences that reports show besides the number of samples (`bench.data.notes`), for
            example about missing videos.
        listing: The file that lists the samples; None for data sets without one.
    """

    samples: Iterable[Sample]
    count: int | None
    notes: list[str]
    listing: Path | None = None


def find(protocol: Protocol, root: Path) -> DataSet:
    """Finds a data set on disk.

    Args:
        protocol: Protocol of the data set.
        root: Folder of the data set, or its parent; for "folder" also a video file.

    Raises:
        MeasurementError: If the data set is missing; the message names the missing path and the
            layout of the data set.
    """
    if not root.exists():
        raise _missing(root, protocol)
    if protocol.name == "folder":
        return _any_folder(root, protocol)
    if not root.is_dir():
        raise MeasurementError(f"{root} is not a folder: {_remedy(protocol)}")
    finder = _FINDERS[protocol.name.partition("-")[0]]
    found = finder(root, protocol)
    if not found.count:
        raise MeasurementError(f"{root} has no sample of {protocol.title}: {_remedy(protocol)}")
    return found


def select(data_set: DataSet, *, every: int = 1, limit: int | None = None) -> DataSet:
    """Selects samples of a data set, and checks that their files exist.

    Args:
        data_set: The data set.
        every: Step between the selected samples, from the first on.
        limit: Maximum number of samples; None for no limit.

    Raises:
        MeasurementError: If `every` or `limit` is below 1, or a file is missing.
    """
    for name, value in (("every", every), ("limit", limit)):
        if value is not None and value < 1:
            raise MeasurementError(f"--{name} is {value}: use 1 or more")
    chosen = itertools.islice(data_set.samples, 0, None, every)
    samples: Iterable[Sample] = itertools.islice(chosen, limit)
    count = data_set.count
    if isinstance(data_set.samples, Sequence):
        samples = list(samples)
        for sample in samples:
            for path in sample.paths:
                if not path.is_file():
                    raise MeasurementError(
                        f"{path} does not exist: sample {sample.name} needs it, copy the data "
                        f"set again{_or_unlist(data_set)}"
                    )
    if count is not None:
        count = min(-(-count // every), limit or count)
    return replace(data_set, samples=samples, count=count)


def _or_unlist(data_set: DataSet) -> str:
    """The other remedy for a missing file, for a data set with a list."""
    return "" if data_set.listing is None else f" or leave the sample out of {data_set.listing}"


def sizes_on_disk(data_set: DataSet) -> dict[tuple[int, int], str]:
    """The (height, width) of some samples, spread over the data set, each with a sample's name.

    Only the headers of first frames are read, and those of videos and damaged images not at all.
    """
    if not isinstance(data_set.samples, Sequence):
        return {}
    samples = data_set.samples[:: max(1, len(data_set.samples) // _CHECKED_SAMPLES)]
    found: dict[tuple[int, int], str] = {}
    for sample in samples:
        if sample.paths and (size := image_size(sample.paths[0])) is not None:
            found.setdefault(size, sample.name)
    return found


def _remedy(protocol: Protocol) -> str:
    """What to give as --root, for an error message."""
    if protocol.name == "folder":
        return "give a video, a folder of frames, or a folder of such folders"
    return f"give --root a folder that has {protocol.layout} ({protocol.source})"


def _missing(path: Path, protocol: Protocol) -> MeasurementError:
    return MeasurementError(f"{path} does not exist: {_remedy(protocol)}")


def _first_existing(paths: Sequence[Path], protocol: Protocol) -> Path:
    """Returns the first path that exists; raises MeasurementError if none does."""
    for path in paths:
        if path.exists():
            return path
    alternatives = " or ".join(map(str, paths))
    raise MeasurementError(f"{alternatives} does not exist: {_remedy(protocol)}")


def _data_set(
    samples: Sequence[Sample], notes: Sequence[str] = (), *, listing: Path | None = None
) -> DataSet:
    return DataSet(samples, len(samples), list(notes), listing)


def _vimeo90k(root: Path, protocol: Protocol) -> DataSet:
    for base in (root, root / "vimeo_triplet"):
        listing = base / "tri_testlist.txt"
        # In the layout of RIFE's benchmark the list is next to the folder input/.
        if listing.is_file() and not (base / "input").is_dir():
            names = listing.read_text().split()
            folders = [base / "sequences" / name for name in names]
            samples = [
                sample_of_files(name, [folder / f"im{k}.png" for k in (1, 2, 3)], protocol)
                for name, folder in zip(names, folders, strict=True)
            ]
            return _data_set(samples, listing=listing)
    wanted = [root / "input", root / "vimeo_interp_test" / "input", root / "tri_testlist.txt"]
    inputs = _first_existing(wanted, protocol)
    targets = inputs.parent / "target"
    names = sorted(
        folder.parent.relative_to(inputs).as_posix() for folder in inputs.glob("*/*/im1.png")
    )
    samples = [
        sample_of_files(
            name,
            [inputs / name / "im1.png", targets / name / "im2.png", inputs / name / "im3.png"],
            protocol,
        )
        for name in names
    ]
    return _data_set(samples)


def _ucf101(root: Path, protocol: Protocol) -> DataSet:
    base = root / "ucf101_interp_ours"
    base = base if base.is_dir() else root
    folders = sorted(f for f in base.iterdir() if f.is_dir() and f.name.isdigit())
    names = ("frame_00.png", "frame_01_gt.png", "frame_02.png")
    samples = [sample_of_files(f.name, [f / name for name in names], protocol) for f in folders]
    return _data_set(samples)


def _snufilm(root: Path, protocol: Protocol) -> DataSet:
    listing = f"test-{protocol.name.partition('-')[2]}.txt"
    path = _first_existing([root / listing, root / "eval_modes" / listing], protocol)
    samples = []
    for number, line in enumerate(path.read_text().splitlines(), 1):
        if not line.strip():
            continue
        listed = line.split()
        if len(listed) != 3:
            raise MeasurementError(
                f"{path}, line {number}, has {len(listed)} paths instead of 3: download the list "
                "again"
            )
        paths = [_listed_frame(root, one) for one in listed]
        middle = paths[1]
        samples.append(sample_of_files(f"{middle.parent.name}/{middle.stem}", paths, protocol))
    return _data_set(samples, listing=path)


def _listed_frame(root: Path, listed: str) -> Path:
    """Path of a frame in a list; lists differ in the folder at which their paths start."""
    tail = Path(*Path(listed).parts[-3:])
    candidates = [root / listed, root / "test" / tail, root / tail]
    return next((path for path in candidates if path.is_file()), candidates[1])


def _middlebury(root: Path, protocol: Protocol) -> DataSet:
    truth = _first_existing([root / "other-gt-interp"], protocol)
    data = root / "other-data"
    sequences = sorted(path.parent.name for path in truth.glob("*/frame10i11.png"))
    samples = [
        sample_of_files(
            name,
            [
                data / name / "frame10.png",
                truth / name / "frame10i11.png",
                data / name / "frame11.png",
            ],
            protocol,
        )
        for name in sequences
    ]
    return _data_set(samples)


def _gopro(root: Path, protocol: Protocol) -> DataSet:
    names = ("GOPRO_Large_all", "GOPRO_Large", "GOPRO", "GoPro")
    return _windows_of_videos(root, names, GOPRO_TEST, protocol)


def _adobe240(root: Path, protocol: Protocol) -> DataSet:
    names = ("Adobe240", "adobe240", "adobe240fps")
    return _windows_of_videos(root, names, ADOBE240_TEST, protocol)


def _windows_of_videos(
    root: Path, names: Sequence[str], videos: Sequence[str], protocol: Protocol
) -> DataSet:
    """Windows of the listed videos, and notes about videos that are missing or too short.

    Args:
        root: Folder of the data set, or a folder above it.
        names: Usual names of the folder of the data set.
        videos: Names of the folders of the official test videos.
        protocol: Protocol of the data set.
    """
    folders = {video: _video_folder(root, names, video) for video in videos}
    absent = [video for video, folder in folders.items() if folder is None]
    if len(absent) == len(videos):
        raise _missing(root / videos[0], protocol)
    samples: list[Sample] = []
    short, sparse = [], []
    for video, folder in folders.items():
        if folder is None:
            continue
        frames = sorted(path for path in folder.glob("*.png") if not is_hidden(path))
        found = list(windows(frames, protocol.factor))
        if not found:
            short.append(video)
        if folder.name == _SHARP:
            sparse.append(video)
        samples += [sample_of_files(f"{video}/{w[0].stem}", w, protocol) for w in found]
    problems = (
        (absent, "missing"),
        (short, f"too short (fewer than {protocol.factor + 1} frames)"),
        (sparse, "of GOPRO_Large, whose sharp frames are 7 to 13 frames of the camera apart, so "
         "that figures of consecutive frames are not comparable"),
    )  # fmt: skip
    notes = [
        f"{len(named)} of the official {len(videos)} videos {what}: {', '.join(named)}"
        for named, what in problems
        if named
    ]
    return _data_set(samples, notes)


def _video_folder(root: Path, names: Sequence[str], video: str) -> Path | None:
    """The folder with the frames of a video; without frames an empty one; None if there is none.

    The sharp frames of GOPRO_Large are in a folder of their own, beside the blurred ones.
    """
    candidates = [
        base / above / video / below
        for base in (root, *(root / name for name in names))
        for below in ("", _SHARP)
        for above in VIDEO_FOLDERS
    ]
    existing = [folder for folder in candidates if folder.is_dir()]
    with_frames = (folder for folder in existing if any(folder.glob("*.png")))
    return next(with_frames, existing[0] if existing else None)


def _xtest(root: Path, protocol: Protocol) -> DataSet:
    base = root / "test" if (root / "test").is_dir() else root
    step = _X_TEST_LAST // protocol.factor
    samples = []
    for scene in sorted(path for path in base.glob("Type*/TEST*") if path.is_dir()):
        paths = [scene / f"{k:04}.png" for k in range(0, _X_TEST_LAST + 1, step)]
        samples.append(sample_of_files(f"{scene.parent.name}/{scene.name}", paths, protocol))
    return _data_set(samples)


def _any_folder(root: Path, protocol: Protocol) -> DataSet:
    if protocol.factor < 2:
        raise MeasurementError(f"--factor is {protocol.factor}: use 2 or more")
    if root.is_file():
        windows_here = video_windows(root, protocol.factor)
        return DataSet(samples_of_video(root, protocol), windows_here, [])
    folders = sorted({path.parent for path in root.rglob("*") if _is_frame(path)})
    samples: list[Sample] = []
    short = 0
    for folder in folders:
        frames = sorted(filter(_is_frame, folder.iterdir()), key=natural_key)
        found = list(windows(frames, protocol.factor))
        short += not found
        where = folder.relative_to(root).as_posix()
        samples += [
            sample_of_files(f"{where}/{window[0].stem}", window, protocol) for window in found
        ]
    if not samples:
        raise MeasurementError(
            f"{root} has no folder with {protocol.factor + 1} images: {_remedy(protocol)}"
        )
    notes = [f"folders left out, with fewer than {protocol.factor + 1} images: {short}"]
    return DataSet(samples, len(samples), notes if short else [])


def _is_frame(path: Path) -> bool:
    return path.suffix.lower() in IMAGES and not is_hidden(path)


_FINDERS: dict[str, Callable[[Path, Protocol], DataSet]] = {
    "vimeo90k": _vimeo90k,
    "ucf101": _ucf101,
    "snufilm": _snufilm,
    "middlebury": _middlebury,
    "gopro": _gopro,
    "adobe240": _adobe240,
    "xtest": _xtest,
}
