"""Checks what a JSON file holds against the types that say what it should."""

from __future__ import annotations

import functools
import types
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints, is_typeddict


def misfit(value: object, expected: Any, where: str) -> str | None:
    """Says where parsed JSON first differs from a type, as "its cases[0].size is missing".

    Args:
        value: What `json.loads` gave.
        expected: A TypedDict, or what one is made of.
        where: What to call `value`.

    Returns:
        None if it fits; keys that the type does not name are left alone.
    """
    origin, inside = get_origin(expected), get_args(expected)
    parts: list[tuple[object, Any, str]] = []
    if origin in (Union, types.UnionType):
        found = [misfit(value, one, where) for one in inside]
        return None if None in found else found[0]
    if is_typeddict(expected) and isinstance(value, dict):
        hints = _hints(expected)
        for key in hints:
            if key in value:
                parts.append((value[key], hints[key], f"{where}.{key}"))
            elif key in expected.__required_keys__:
                return f"{where}.{key} is missing"
    elif origin is dict and isinstance(value, dict):
        parts = [(one, inside[1], f"{where}[{key!r}]") for key, one in value.items()]
    elif origin is list and isinstance(value, list):
        parts = [(one, inside[0], f"{where}[{number}]") for number, one in enumerate(value)]
    elif not _is_plain(value, expected):
        return f"{where} is {_shortened(value)}, not {_named(expected)}"
    problems = (misfit(*part) for part in parts)
    return next((problem for problem in problems if problem), None)


@functools.cache
def _hints(expected: Any) -> dict[str, Any]:
    return get_type_hints(expected)


def _is_plain(value: object, expected: Any) -> bool:
    if get_origin(expected) is Literal:
        return value in get_args(expected)
    if isinstance(value, bool):
        return expected in (bool, object)
    if get_origin(expected) is not None or is_typeddict(expected):
        return False
    return isinstance(value, (int, float) if expected is float else expected)


def _shortened(value: object) -> str:
    text = "null" if value is None else repr(value)
    return text if len(text) <= 40 else f"{text[:37]}..."


def _named(expected: Any) -> str:
    if get_origin(expected) is Literal:
        return " or ".join(map(repr, get_args(expected)))
    if get_origin(expected) is list:
        return "a list"
    names = {str: "text", int: "a whole number", float: "a number", bool: "true or false"}
    return names.get(expected, "null" if expected is type(None) else "an object")
