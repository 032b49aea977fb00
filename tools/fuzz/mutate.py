"""Random mutations of bytes, JSON and values."""

from __future__ import annotations

import copy
import json
from random import Random
from typing import Any

NUMBERS: tuple[Any, ...] = (
    0, -1, 1, 2, 3, 1000, 1001, 2**31 - 1, 2**31, 2**32, 2**63, 2**64, 10**30, -(10**30), 10**400,
    0.0, -0.0, 0.1, 0.5, 1.5, 5e-324, 1e-300, 1e300, -1e300, float("inf"), float("-inf"),
    float("nan"),
)  # fmt: skip
"""Numbers at which programs fail."""

TEXTS: tuple[str, ...] = (
    "", " ", "0", "-1", "1e300", "1e400", "-1e400", "1e-999999999", "1e999999999", "nan", "inf",
    "-inf", "1/0", "0/0", "1/3", "1:2:3:4", "::", "\u00b2", "\u0663", "1_0", "0x10", "9" * 5000,
    "\x1b[31m", "\x07", "\ud800", "\u202e", "\0", "..", "../../etc/passwd", "/dev/null", "/",
    "a" * 300, "a" * 70_000, "%s%n", "{}", "%06d.png", "file:///etc/passwd", "None", "auto",
)  # fmt: skip
"""Texts at which programs fail."""

_INTEGERS = (0, 1, 0x7F, 0x80, 0xFF, 0x7FFF, 0xFFFF, 2**31 - 1, 2**31, 2**32 - 1, 2**63, 2**64 - 1)


def hostile(rng: Random) -> Any:
    """A value of any type at which programs fail."""
    others = (None, True, False, [], {}, (), b"\xff", object(), [None], {"a": 1}, 1j, [[[]]])
    return rng.choice(rng.choice((NUMBERS, TEXTS, others)))


def hostile_json(rng: Random) -> Any:
    """A value of JSON at which programs fail."""
    others: tuple[Any, ...] = (None, True, False, [], {}, [None], {"": {}}, [[[[]]]])
    return copy.deepcopy(rng.choice(rng.choice((NUMBERS, TEXTS, others))))


def mutated(rng: Random, content: bytes, *, most: int = 6) -> bytes:
    """The content after one to `most` random changes, half of them near its beginning."""
    changed = bytearray(content)
    for _ in range(rng.randint(1, most)):
        if not changed:
            return rng.randbytes(rng.randrange(64))
        limit = len(changed)
        if rng.random() < 0.5:
            limit = min(limit, rng.choice((16, 256, 4096)))
        at = rng.randrange(limit)
        _change(rng, changed, at)
    return bytes(changed)


def _change(rng: Random, content: bytearray, at: int) -> None:
    kind = rng.randrange(8)
    length = rng.choice((1, 2, 4, 8, 64, 1024))
    if kind == 0:
        content[at] ^= 1 << rng.randrange(8)
    elif kind == 1:
        content[at] = rng.choice((0, 1, 0x7F, 0x80, 0xFF))
    elif kind == 2:
        del content[at:]
    elif kind == 3:
        del content[at : at + length]
    elif kind == 4:
        content[at:at] = content[at : at + length]
    elif kind == 5:
        content[at:at] = rng.randbytes(length)
    elif kind == 6:
        width = rng.choice((1, 2, 4, 8))
        number = rng.choice(_INTEGERS) % (1 << 8 * width)
        content[at : at + width] = number.to_bytes(width, rng.choice(("little", "big")))
    else:
        other = rng.randrange(len(content))
        content[at : at + length] = content[other : other + length]


def mutated_json(rng: Random, value: Any) -> bytes:
    """JSON after one to three random changes of its values, keys or structure."""
    changed = copy.deepcopy(value)
    for _ in range(rng.randint(1, 3)):
        places = list(_places(changed))
        if not places:
            changed = hostile_json(rng)
            continue
        holder, key = rng.choice(places)
        kind = rng.randrange(5)
        if kind == 0:
            del holder[key]
        elif kind == 1 and isinstance(holder, dict):
            holder[rng.choice(TEXTS)] = hostile_json(rng)
        elif kind == 2 and isinstance(holder, dict):
            holder[key] = _like(rng, holder[key])
        else:
            holder[key] = hostile_json(rng)
    text = json.dumps(changed)
    if rng.random() < 0.05:
        depth = rng.choice((100, 5000, 200_000))
        text = text[:-1] + rng.choice((', "deep": ', ", ")) + "[" * depth + "]" * depth + text[-1:]
    content = text.encode()
    return mutated(rng, content) if rng.random() < 0.2 else content


def _places(value: Any) -> Any:
    """The containers and keys of all values inside a value."""
    waiting = [value]
    while waiting:
        holder = waiting.pop()
        keys = holder if isinstance(holder, dict) else range(len(holder))
        for key in keys:
            yield holder, key
            if isinstance(holder[key], dict | list):
                waiting.append(holder[key])


def _like(rng: Random, value: Any) -> Any:
    """Another value of the same type."""
    if isinstance(value, bool):
        return not value
    if isinstance(value, int | float):
        return rng.choice(NUMBERS)
    if isinstance(value, str):
        return rng.choice(TEXTS)
    if isinstance(value, list):
        return value * 2
    return {} if isinstance(value, dict) else hostile_json(rng)
