"""Targets with known outcomes, for the tests of tools/fuzz."""

import os
import time

from fuzz.outcomes import Target, WrongResultError
from runtime.errors import ModelError


def _nothing(folder):
    assert folder.is_dir()


def _good(_, rng):
    assert 0 <= rng.random() < 1


def _refused(_, rng):
    raise ModelError("it is damaged: make it again")


def _long(_, rng):
    raise ModelError("two\nlines")


def _traceback(_, rng):
    raise KeyError("name")


def _wrong(_, rng):
    raise WrongResultError("another picture")


def _memory(_, rng):
    bytearray(1600 << 20)  # Takes seconds on a machine that is busy.


def _hang(_, rng):
    time.sleep(600)


def _crash(_, rng):
    os._exit(7)


RUNS = {
    "accepted": _good, "refused": _refused, "long": _long, "traceback": _traceback, "wrong": _wrong,
    "memory": _memory, "hang": _hang, "crash": _crash,
}  # fmt: skip


def find():
    return tuple(Target(name, _nothing, run) for name, run in RUNS.items())


def _broken(folder):
    raise OSError("no model")


def find_broken():
    return (Target("broken", _broken, _good),)
