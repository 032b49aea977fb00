"""Writes the schemas in docs/schema and the tables of docs/onnx_contract.md.

Names, types and descriptions are those of the dataclasses in runtime/model_info.py and
runtime/manifest.py, and those that export/graph/describe.py writes into a graph, so that they are
written once.

python tools/contract.py
"""

from __future__ import annotations

import inspect
import json
import re
from dataclasses import MISSING, fields
from functools import cache
from pathlib import Path
from typing import Any, get_args

import msgspec

from export.graph.describe import MEANINGS, images_text
from export.request import Constraints, OnnxBackend
from ifrnet_model.config import VARIANTS
from runtime.manifest import Calibration, EngineBuild, EngineManifest, GateReport, PrecisionProof
from runtime.model_info import OUTPUT, PROPERTY_PREFIX, STACKED, ModelInfo
from runtime.records import FORMAT_VERSION

DOCS = Path(__file__).resolve().parents[1] / "docs"
PAGE = DOCS / "onnx_contract.md"

_DRAFT = "https://json-schema.org/draft/2020-12/schema"
_RECORDS = (EngineManifest, ModelInfo, GateReport, EngineBuild, Calibration, PrecisionProof)
_VERSION = "Version of the format. A reader refuses other versions."

_ENUMS: dict[tuple[type, str], tuple[str | None, ...]] = {
    (ModelInfo, "variant"): tuple(VARIANTS),
    (EngineManifest, "backend"): (*get_args(OnnxBackend), "tensorrt"),
    (EngineBuild, "precision_constraints"): (*get_args(Constraints), None),
    (PrecisionProof, "precision"): ("bf16", "fp16"),
}
"""Values of fields that are annotated as str, because the runtime does not import these lists."""

_REQUIRED: dict[type, set[str]] = {EngineManifest: {"engine", "calibration"}}
"""Fields with a default that `EngineManifest.read` requires all the same."""

_SHA256 = "^[0-9a-f]{64}$"
_INTEGER = "^[1-9][0-9]*$"
_NUMBER = "^(?=[0-9.]*[1-9])[0-9]+(\\.[0-9]+)?([eE][+-]?[0-9]+)?$"
_PATTERNS = {_SHA256: "64 hexadecimal digits", _INTEGER: "integer", _NUMBER: "number"}

Schema = dict[str, Any]


def descriptions(cls: type) -> dict[str, str]:
    """The description of each field, from the section Attributes of a docstring."""
    section = (inspect.getdoc(cls) or "").partition("Attributes:\n")[2].partition("\n\n")[0]
    entries = re.findall(r"^    (\w+): (.*(?:\n {5,}.*)*)", section, re.MULTILINE)
    return {name: " ".join(text.split()) for name, text in entries}


@cache
def manifest_schema() -> Schema:
    """The schema of a manifest."""
    _, generated = msgspec.json.schema_components([EngineManifest], ref_template="#/$defs/{name}")
    records = {cls.__name__: _record(cls, generated[cls.__name__]) for cls in _RECORDS}
    root = records.pop(EngineManifest.__name__)
    version = {"const": FORMAT_VERSION, "description": _VERSION}
    root["properties"] = {"format_version": version, **root["properties"]}
    root["required"].insert(0, "format_version")
    return {"$schema": _DRAFT, "title": "Manifest of ifrnet-deploy", **root, "$defs": records}


def _record(cls: type, generated: Schema) -> Schema:
    """The schema of a dataclass: that of msgspec with descriptions, limits and required fields."""
    texts = descriptions(cls)
    properties = {
        name: _property(cls, name, schema) | {"description": _without_none(texts[name], "null")}
        for name, schema in generated["properties"].items()
    }
    required = {field.name for field in fields(cls) if field.default is MISSING}
    required |= _REQUIRED.get(cls, set())
    return {
        "type": "object",
        "description": (inspect.getdoc(cls) or "").partition("\n")[0],
        "properties": properties,
        "required": [name for name in properties if name in required],
        "additionalProperties": False,
    }


def _property(cls: type, name: str, generated: Schema) -> Schema:
    if (cls, name) in _ENUMS:
        return {"enum": list(_ENUMS[cls, name])}
    schema = {key: value for key, value in generated.items() if key != "default"}
    if all(option.keys() == {"type"} for option in schema.get("anyOf", [{}])):
        schema = {"type": [option["type"] for option in schema["anyOf"]]}
    if name.endswith("sha256") or name == "key":
        schema["pattern"] = _SHA256
    if cls is ModelInfo and "integer" in schema.get("type", ()):
        schema["minimum"] = 1
    if cls is ModelInfo and schema.get("type") == "number":
        schema["exclusiveMinimum"] = 0
    return schema


@cache
def metadata_schema() -> Schema:
    """The schema of the `metadata_props` of an ONNX file, as an object of strings."""
    model = manifest_schema()["$defs"][ModelInfo.__name__]
    texts = descriptions(ModelInfo)
    properties = {"format_version": {"const": str(FORMAT_VERSION), "description": _VERSION}}
    required = ["format_version"]
    for name, schema in model["properties"].items():
        properties[name] = _as_text(schema) | {"description": _without_none(texts[name], "absent")}
        if name in model["required"] and "null" not in schema.get("type", ()):
            required.append(name)
    size = [PROPERTY_PREFIX + name for name in ("height", "width")]
    return {
        "$schema": _DRAFT,
        "title": "metadata_props of an ONNX file of ifrnet-deploy",
        "description": "The keys of ifrnet-deploy; keys of other tools are allowed.",
        "type": "object",
        "properties": {PROPERTY_PREFIX + name: schema for name, schema in properties.items()},
        "patternProperties": {f"^(?!{re.escape(PROPERTY_PREFIX)})": {"type": "string"}},
        "required": [PROPERTY_PREFIX + name for name in required],
        "dependentRequired": {size[0]: [size[1]], size[1]: [size[0]]},
        "additionalProperties": False,
    }


def _as_text(schema: Schema) -> Schema:
    """The schema of a value that is written as a string."""
    if "enum" in schema:
        return {"enum": schema["enum"]}
    if schema["type"] == "boolean":
        return {"enum": ["false", "true"]}
    numbers = {"integer": _INTEGER, "number": _NUMBER}
    for kind, pattern in numbers.items():
        if kind in schema["type"]:
            return {"type": "string", "pattern": pattern}
    return schema


def _without_none(text: str, word: str) -> str:
    """A description for readers of JSON or metadata, where None is written in another way."""
    text = re.sub(r"(\. )None\b", rf"\1{word.capitalize()}", text)
    return re.sub(r"\bNone\b", word, text)


def tables() -> dict[str, str]:
    """The Markdown tables of the page by name."""
    manifest = manifest_schema()
    schemas = {"metadata": metadata_schema(), "manifest": manifest, **manifest["$defs"]}
    del schemas[ModelInfo.__name__]  # The table of the metadata has its fields.
    made = {}
    for name, schema in schemas.items():
        lines = [
            f"| {'key' if name == 'metadata' else 'field'} | type | meaning |",
            "|---|---|---|",
        ]
        for key, value in schema["properties"].items():
            lines.append(f"| `{key}` | {_type(value)} | {value['description']} |")
        made[name] = "\n".join(lines)
    return made | {"ports": ports_table()}


def ports_table() -> str:
    """The table of inputs and outputs, with the texts that a graph contains."""
    lines = [
        "| Name | Meaning | `--io frames` (default) | `--io float` |",
        "|---|---|---|---|",
    ]
    for name, meaning in MEANINGS.items():
        if name == STACKED:
            continue  # The page describes it in a sentence.
        if name == "timestep":
            texts = "float32 (B, 1, 1, 1)", "as with `frames`"
        elif name == "img1":
            texts = "as `img0`", "as `img0`"
        else:
            count = "B" if name == OUTPUT else "N"
            frames, floats = (images_text(io, count) for io in ("frames", "float"))
            texts = frames, f"{floats}, clipped" if name == OUTPUT else floats
        lines.append(f"| `{name}` | {meaning} | {texts[0]} | {texts[1]} |")
    return "\n".join(lines)


def _type(schema: Schema) -> str:
    """A type in words, for example "array of strings or null"."""
    if "const" in schema:
        return f"`{schema['const']}`"
    if "enum" in schema:
        return ", ".join("null" if one is None else f"`{one}`" for one in schema["enum"])
    if "anyOf" in schema:
        return " or ".join(map(_type, schema["anyOf"]))
    if "pattern" in schema:
        return _PATTERNS[schema["pattern"]]
    kind = schema.get("type", "object")
    if isinstance(kind, list):
        return " or ".join(kind)
    item = schema.get("items", schema.get("additionalProperties"))
    first, _, rest = _type(item).partition(" ") if item else ("", "", "")
    return f"{kind} of {first}s {rest}".strip() if item else str(kind)


def files() -> dict[Path, str]:
    """What the tool writes: path -> text."""
    schemas = {"manifest": manifest_schema(), "metadata": metadata_schema()}
    made = tables()
    page = re.sub(
        r"(<!-- contract:(\w+) -->\n).*?(<!-- /contract -->)",
        lambda found: f"{found[1]}\n{made[found[2]]}\n\n{found[3]}",
        PAGE.read_text(),
        flags=re.DOTALL,
    )
    return {
        PAGE: page,
        **{
            DOCS / "schema" / f"{name}.schema.json": json.dumps(schema, indent=2) + "\n"
            for name, schema in schemas.items()
        },
    }


if __name__ == "__main__":
    for path, text in files().items():
        path.write_text(text)
