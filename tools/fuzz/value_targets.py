"""Values of the API, arguments of the commands, and addresses."""

from __future__ import annotations

import argparse
import contextlib
import importlib
import io
from dataclasses import fields
from pathlib import Path
from random import Random
from typing import Any, NamedTuple

import numpy as np

from fuzz.media_targets import _clip
from fuzz.mutate import NUMBERS, TEXTS, hostile
from fuzz.outcomes import Target, WrongResultError
from runtime import Interpolator, PairRequest, VideoOptions, interpolate_video, plan_video
from runtime.backends.triton.address import Address
from runtime.cli.ifrnet import COMMANDS
from runtime.frames import check_pair, from_planes, to_planes

_TYPES = ("u1", "<u2", ">u2", "<f4", ">f4", "f2", "f8", "i1", "i4", "?", "c8", "O", "S1", "M8[s]")
_SHAPES = ((32, 48, 3), (32, 48), (3, 32, 48), (15, 48, 3), (0, 0, 3), (1, 32, 48, 3), (32, 48, 4))


class _RefusedError(Exception):
    """A command ended with one sentence."""


def _nothing(folder: Path) -> None:
    del folder


def _frame(rng: Random) -> Any:
    """An array of a random type, byte order, shape, layout and range."""
    dtype = np.dtype(rng.choice(_TYPES))
    shape = _SHAPES[0] if rng.random() < 0.7 else rng.choice(_SHAPES)
    values = np.random.default_rng(rng.randrange(1000)).random(shape)
    if dtype.kind in "uif" and dtype.itemsize > 0:
        peak = 1.0 if dtype.kind == "f" else float(np.iinfo(dtype).max)
        values = values * peak
        if rng.random() < 0.1:
            values.flat[:1] = rng.choice((np.nan, np.inf, -1.0, 2.0 * peak))
    with np.errstate(all="ignore"):
        frame = values.astype(dtype)
    if frame.ndim == 3 and rng.random() < 0.3:
        frame = rng.choice(
            (frame[::-1], frame[:, ::-1], frame[..., ::-1], np.asfortranarray(frame))
        )
    return frame if rng.random() < 0.95 else hostile(rng)


def _frames(_: None, rng: Random) -> None:
    """Frames are converted right or refused."""
    frame0 = _frame(rng)
    frame1 = frame0.copy() if isinstance(frame0, np.ndarray) and rng.random() < 0.7 else _frame(rng)
    check_pair(frame0, frame1)
    planes = to_planes(frame0, 16)
    peak = 1.0 if frame0.dtype.kind == "f" else float(np.iinfo(frame0.dtype).max)
    expected = frame0.astype(np.float64) / peak
    if not np.allclose(planes[0].transpose(1, 2, 0), expected, atol=1e-6):
        raise WrongResultError(f"planes of {frame0.dtype.str} are wrong")
    back = from_planes(planes[0], frame0, 16)
    if back.dtype != frame0.dtype or not np.array_equal(back, frame0):
        raise WrongResultError(f"a frame of {frame0.dtype.str} does not come back")


class _Model(NamedTuple):
    vfi: Interpolator
    folder: Path
    clip: Path


def _prepare_model(folder: Path) -> _Model:
    clip = folder / "in.mkv"
    _clip(clip, "libx264")
    return _Model(Interpolator.open("demo", cache="none", threads=1), folder, clip)


def _calls(made: _Model, rng: Random) -> None:
    """Calls of an Interpolator with a hostile argument; afterwards it still works."""
    frame = np.full((32, 48, 3), 7, np.uint8)
    value: Any = hostile(rng)
    several: Any = [rng.choice((0.5, hostile(rng))) for _ in range(rng.randint(1, 3))]
    calls: tuple[Any, ...] = (
        lambda: made.vfi.interpolate(frame, frame, timesteps=value),
        lambda: made.vfi.interpolate(frame, frame, timesteps=several),
        lambda: made.vfi.interpolate(frame, value),
        lambda: list(made.vfi.stream([frame, frame], factor=value)),
        lambda: list(made.vfi.stream([frame, value])),
        lambda: made.vfi.steps_for_factor(value),
        lambda: made.vfi.live(factor=value),
        lambda: made.vfi.live(max_gap=value),
        lambda: made.vfi.live().push(value, frame),
        lambda: list(made.vfi.interpolate_each([PairRequest(frame, frame, several)])),
        lambda: Interpolator.open(value),
        lambda: plan_video(value, made.folder / "out.mkv"),
        lambda: plan_video(made.clip, value),
        lambda: plan_video(made.folder / _name(value), made.folder / "out.mkv"),
        lambda: plan_video(made.clip, made.folder / _name(value)),
        lambda: plan_video(made.clip, made.folder / "out.mkv", options=value),
        lambda: interpolate_video(made.clip, made.folder / "out.mkv", model=value),
        lambda: interpolate_video(made.clip, made.folder / _name(value), model=made.vfi),
        lambda: Interpolator.open("demo", cache=value, backend="openvino"),
        lambda: Interpolator.open("demo", threads=value, cache="none"),
        lambda: Interpolator.open("demo", streams=value, cache="none"),
        lambda: Interpolator.open("demo", backend=value, cache="none"),
        lambda: Interpolator.open("demo", device=value, cache="none"),
        lambda: Interpolator.open("demo", precision=value, cache="none"),
        lambda: Interpolator.open("demo", channels=value, cache="none"),
    )
    try:
        rng.choice(calls)()
    finally:
        made.vfi.interpolate(frame, frame)


def _name(value: Any) -> str:
    """A name of a file in a folder of its own."""
    return str(value).replace("/", "_")


def _video_options(made: _Model, rng: Random) -> None:
    names = [field.name for field in fields(VideoOptions)]
    given = {name: hostile(rng) for name in rng.sample(names, rng.randint(1, 2))}
    factor, rate = (rng.choice((None, hostile(rng))) for _ in range(2))
    options = VideoOptions(**given)
    plan_video(made.clip, made.folder / "out.mkv", factor=factor, rate=rate, options=options)


def _address(_: None, rng: Random) -> None:
    parts = ["triton://", "host", ":8001", "/model", "/1", "?", "timeout=5", "&shared_memory=none"]
    for _ in range(rng.randint(1, 3)):
        at = rng.randrange(len(parts))
        change = rng.choice((*TEXTS, "[", "]", "[::1]", "@", "#", ":", "/", "?", "\u2100"))
        parts[at] = rng.choice((change, parts[at] + change, ""))
    Address.parse("".join(parts))


class _Parsers(NamedTuple):
    parsers: list[tuple[str, argparse.ArgumentParser]]
    made: _Model


def _prepare_parsers(folder: Path) -> _Parsers:
    modules = [(name, importlib.import_module(one.module)) for name, one in COMMANDS.items()]
    return _Parsers([(name, module.make_parser()) for name, module in modules],
                    _prepare_model(folder))  # fmt: skip


def _argument(rng: Random, action: argparse.Action) -> list[str]:
    """An option with a hostile value, or one of its choices."""
    words = list(action.option_strings[-1:])
    if action.nargs != 0:
        values = (*TEXTS, *map(str, NUMBERS[:-10]), *map(str, action.choices or ()))
        words += [rng.choice(values).replace("\0", "?") for _ in range(rng.choice((1, 1, 1, 2)))]
    return words


def _options_of(rng: Random, parser: argparse.ArgumentParser, most: int) -> list[str]:
    actions = [action for action in parser._actions if "--help" not in action.option_strings]
    chosen = rng.sample(actions, min(most, len(actions)))
    return [word for action in chosen for word in _argument(rng, action)]


def _parse(made: _Parsers, rng: Random) -> None:
    """Every parser accepts a command line, or ends with code 2 and one sentence."""
    _, parser = rng.choice(made.parsers)
    _ended(lambda: parser.parse_args(_options_of(rng, parser, rng.randint(1, 4))))


def _command(made: _Parsers, rng: Random) -> None:
    """The command for videos, which plans with hostile options."""
    parser = dict(made.parsers)["video"]
    words = _options_of(rng, parser, rng.randint(1, 3))
    words = [word for word in words if word not in ("--resume", "--overwrite", "-y")]
    main = importlib.import_module(COMMANDS["video"].module).main
    out = str(made.made.folder / "out.mkv")
    _ended(lambda: main([str(made.made.clip), out, "--dry-run", *words]))


def _ended(run: Any) -> None:
    """Judges how a command ends: code 0, or 1 and 2 with one sentence as its last line."""
    errors = io.StringIO()
    with contextlib.redirect_stderr(errors), contextlib.redirect_stdout(io.StringIO()):
        code: Any = 0
        try:
            run()
        except SystemExit as left:
            code = left.code
    if code in (0, None):
        return
    last = (errors.getvalue().strip().splitlines() or [""])[-1]
    if code not in (1, 2) or ": error: " not in last:
        raise RuntimeError(f"code {code}: {last[:200]}")
    raise _RefusedError(last[:1000])


TARGETS = (
    Target("frames", _nothing, _frames, weight=4),
    Target("calls of the API", _prepare_model, _calls),
    Target("VideoOptions", _prepare_model, _video_options, weight=2),
    Target("address of Triton", _nothing, _address, weight=3),
    Target("command lines", _prepare_parsers, _parse, weight=3, errors=(_RefusedError,)),
    Target("ifrnet video", _prepare_parsers, _command, errors=(_RefusedError,)),
)
