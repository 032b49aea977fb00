"""Every field of a JSON file is checked against the annotation of its dataclass."""

import json
from dataclasses import dataclass, field
from typing import Any, Literal

import pytest

from runtime.errors import ModelError
from runtime.records import record_from


@dataclass(frozen=True)
class Inner:
    number: float
    name: str | None = None


@dataclass(frozen=True)
class Outer:
    text: str
    count: int
    flag: bool
    kind: Literal["a", "b"]
    inner: Inner
    several: list[int]
    pairs: tuple[Inner, ...]
    table: dict[str, list[int]]
    anything: Any
    optional: Inner | None = None
    rows: list[dict[str, Any]] = field(default_factory=list)


GOOD = {
    "format_version": 1, "text": "t", "count": 2, "flag": True, "kind": "a",
    "inner": {"number": 1}, "several": [1, 2], "pairs": [{"number": 0.5, "name": "n"}],
    "table": {"k": [3]}, "anything": {"x": [None]}, "rows": [],
}  # fmt: skip


def test_a_record_is_built_with_all_that_it_contains():
    assert record_from(Outer, GOOD, "f.json") == Outer(
        "t", 2, True, "a", Inner(1), [1, 2], (Inner(0.5, "n"),), {"k": [3]}, {"x": [None]}
    )
    changed = {**GOOD, "optional": {"number": 2.0}}
    assert record_from(Outer, changed, "f.json").optional == Inner(2.0)


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"text": 5}, "text is 5, not text"),
        ({"text": None}, "text is None, not text"),
        ({"count": True}, "count is True, not a whole number"),
        ({"count": 2.0}, "count is 2.0, not a whole number"),
        ({"flag": 1}, "flag is 1, not true or false"),
        ({"kind": "c"}, "kind is 'c', not one of a, b"),
        ({"kind": []}, "kind is [], not one of a, b"),
        ({"inner": []}, "inner is [], not an object"),
        ({"inner": {"number": True}}, "inner.number is True, not a finite number"),
        ({"inner": {"number": float("nan")}}, "inner.number is nan, not a finite number"),
        ({"inner": {"number": float("inf")}}, "inner.number is inf, not a finite number"),
        ({"inner": {"number": 1, "name": 2}}, "inner.name is 2, not text"),
        ({"several": {"1": 1}}, "several is {'1': 1}, not a list"),
        ({"several": [1, "2"]}, "an item of several is '2', not a whole number"),
        ({"pairs": [{"number": "1"}]}, "an item of pairs.number is '1', not a finite number"),
        ({"table": []}, "table is [], not an object"),
        ({"table": {"k": ["x"]}}, "an item of table.k is 'x', not a whole number"),
        ({"optional": 0}, "optional is 0, not an object"),
        ({"rows": [1]}, "an item of rows is 1, not an object"),
    ],
)
def test_a_value_of_another_type_is_named(changes, problem):
    with pytest.raises(ModelError) as error:
        record_from(Outer, {**GOOD, **changes}, "f.json")
    assert str(error.value) == f"f.json is damaged, its field {problem}: export the model again"


def test_a_number_that_no_float_holds_is_refused_in_short():
    values = json.loads('{"format_version": 1, "number": ' + "9" * 4000 + "}")
    message = r"f is damaged, its field number is 9+\.\.\.9+, not a finite number: "
    with pytest.raises(ModelError, match=message):
        record_from(Inner, values, "f")


@pytest.mark.parametrize(
    ("values", "names"),
    [
        ({"format_version": 1}, "number"),
        ({"format_version": 1, "number": 1, "x\n" * 100: 1}, r"(x\n){40}"),
        ({"format_version": 1, "number": 1, 5: 1}, "5"),
    ],
)
def test_missing_and_unknown_fields_are_named(values, names):
    with pytest.raises(ModelError, match=rf"f has missing or unknown fields \({names}\): "):
        record_from(Inner, values, "f")


def test_fields_inside_another_are_named_with_it():
    changes = {"inner": {"number": 1, "more": 2}}
    with pytest.raises(ModelError, match=r"fields \(inner\.more\): "):
        record_from(Outer, {**GOOD, **changes}, "f")


def test_a_default_may_be_required():
    with pytest.raises(ModelError, match=r"fields \(optional\): "):
        record_from(Outer, GOOD, "f", required={"optional"})


@pytest.mark.parametrize("values", [None, [], "x", 1, {}, {"format_version": 2}])
def test_another_version_or_no_object_is_refused(values):
    with pytest.raises(ModelError, match=r"f has format version (None|2), this runtime reads 1: "):
        record_from(Inner, values, "f")
