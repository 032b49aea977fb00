"""Builds dataclasses from JSON, and checks every field against its annotation."""

from __future__ import annotations

import math
import reprlib
import types
from collections.abc import Mapping, Set
from dataclasses import MISSING, dataclass, fields, is_dataclass
from functools import cache
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from runtime.errors import ModelError

FORMAT_VERSION = 1
"""Version of the metadata and the manifest; a reader refuses other versions."""

_NAMES = {
    str: "text", int: "a whole number", float: "a finite number", bool: "true or false",
    list: "a list", tuple: "a list",
}  # fmt: skip
"""Type -> its name in messages; other types are objects."""

_LONGEST_NAME = 80
"""Limit of the characters of an unknown field in a message."""

_Record = TypeVar("_Record")


def record_from(
    cls: type[_Record], values: object, source: str, *, required: Set[str] = frozenset()
) -> _Record:
    """Builds a dataclass from parsed JSON: exactly its fields, and `format_version`.

    Dataclasses, lists and dictionaries inside it are checked too. Values annotated as Any are not.

    Args:
        cls: The dataclass. Fields with a default may be missing, as in older files.
        values: The parsed JSON.
        source: Name of the file, for messages.
        required: Fields that may not be missing although they have a default.

    Raises:
        ModelError: If a field is missing, unknown or of another type, a number is not finite, or
            the format version differs.
    """
    known = values if isinstance(values, Mapping) else {}
    version = known.get("format_version")
    if version != FORMAT_VERSION:
        raise ModelError(
            f"{source} has format version {reprlib.repr(version)}, this runtime reads "
            f"{FORMAT_VERSION}: export the model with the same version of ifrnet-deploy"
        )
    reader = _Reader(source, required)
    record: _Record = reader.record(cls, {k: v for k, v in known.items() if k != "format_version"})
    return record


@dataclass(frozen=True)
class _Reader:
    """Builds the dataclasses of one file."""

    source: str
    required: Set[str]

    def record(self, cls: Any, values: Mapping[Any, Any], place: str = "") -> Any:
        """Builds a dataclass from a mapping; `place` is the field that contains it, with a dot."""
        expected = {f.name for f in fields(cls) if f.name in values or f.default is MISSING}
        if not place:
            expected |= self.required
        if wrong := expected ^ values.keys():
            names = sorted(f"{place}{name}"[:_LONGEST_NAME] for name in wrong)
            raise ModelError(
                f"{self.source} has missing or unknown fields ({', '.join(names)}): "
                "export the model with the same version of ifrnet-deploy"
            )
        types_of = _annotations(cls)
        return cls(
            **{name: self._checked(types_of[name], values[name], place + name) for name in expected}
        )

    def _checked(self, annotation: Any, value: Any, place: str) -> Any:
        """The value as the annotated type: mappings become dataclasses, lists may become tuples."""
        arguments = get_args(annotation)
        kind = get_origin(annotation) or annotation
        if kind in (Union, types.UnionType):
            if value is None and type(None) in arguments:
                return None
            other = next(option for option in arguments if option is not type(None))
            return self._checked(other, value, place)
        if is_dataclass(kind) and isinstance(value, Mapping):
            return self.record(kind, value, f"{place}.")
        if kind in (list, tuple) and isinstance(value, list):
            return kind(self._checked(arguments[0], item, f"an item of {place}") for item in value)
        if kind is dict and isinstance(value, Mapping):
            return {k: self._checked(arguments[1], v, f"{place}.{k}") for k, v in value.items()}
        if _is_of(kind, arguments, value):
            return value
        expected = _NAMES.get(kind, "an object")
        if kind is Literal:
            expected = f"one of {', '.join(map(str, arguments))}"
        raise ModelError(
            f"{self.source} is damaged, its field {place} is {reprlib.repr(value)}, not "
            f"{expected}: export the model again"
        )


@cache
def _annotations(cls: type) -> dict[str, Any]:
    return get_type_hints(cls)


def _is_of(kind: Any, options: tuple[Any, ...], value: object) -> bool:
    """Whether a value that contains no others is of a type, or one of the options of a Literal."""
    if kind is Literal:
        return any(type(value) is type(option) and value == option for option in options)
    if kind is float and type(value) in (int, float):
        try:
            return math.isfinite(value)  # type: ignore[arg-type]
        except OverflowError:  # An integer that no float can hold.
            return False
    return kind is Any or type(value) is kind
