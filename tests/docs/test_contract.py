"""The schemas and the page of the ONNX contract match the files that the code writes and reads."""

import copy
import json
import lzma
import re

import numpy as np
import onnx
import pytest
from jsonschema import Draft202012Validator
from onnx import TensorProto

import contract
from artefacts import INFO
from doc_pages import DOCS
from export.candidate import checked_from_onnx
from export.gate.cases import moving_frames
from export.gate.gate import REQUIRED_DB, REQUIRED_DB_OF_ENGINES
from export.store import write_artefact
from export.wrapper import MAXIMUM_STEPS
from ifrnet_model.config import divisor
from paths import DATA, ROOT
from runtime.errors import ModelError
from runtime.frames import MINIMUM_SIDE, padding, to_planes
from runtime.manifest import Calibration, EngineManifest, file_sha256, manifest_path
from runtime.model_info import ModelInfo
from runtime.telemetry import import_quietly

onnxruntime = import_quietly("onnxruntime")

SHIPPED = ROOT / "runtime" / "models"
FORMATS = DATA / "formats"
PROVED = SHIPPED / "demo_openvino.onnx.json"
ENGINE = FORMATS / "model.engine.json"
MANIFESTS = [*sorted(SHIPPED.glob("*.json")), *sorted(FORMATS.glob("model.*.json"))]
PAGE = contract.PAGE.read_text()
SCHEMAS = {
    name: json.loads((DOCS / "schema" / f"{name}.schema.json").read_text())
    for name in ("manifest", "metadata")
}
RECORDS = {PROVED: [(), ("model",), ("gate",), ("proofs", 0)], ENGINE: [("engine",)]}
"""Manifest -> paths of the records in it, each a tuple of keys."""

PLACES = [(file, place) for file, places in RECORDS.items() for place in places]
FIXED = {"height": 64, "width": 80}
FREE = {**FIXED, "dynamic": True}
PADDED = {"height": 50, "width": 70}
GRAPHS = {
    "`--io float --size HxW`": {**FIXED, "io": "float"},
    "`--io float --size HxW --warp gather`": {**FIXED, "io": "float", "warp": "gather"},
    "`--size HxW`": FIXED,
    "`--size HxW` of which a side is padded": PADDED,
    "the same with `--steps-per-call 3`": {**PADDED, "timesteps": 3},
    "`--size HxW --precision fp16`": {**FIXED, "io": "frames", "precision": "fp16"},
    "`--size HxW --tta`": {**FIXED, "tta": True},
    "`--io float`": {**FREE, "io": "float"},
    "none": FREE,
}
"""Options as the page names them -> options of an export."""


def problems(schema, values):
    return [error.message for error in Draft202012Validator(SCHEMAS[schema]).iter_errors(values)]


def rows(heading):
    """Rows of the last table below a heading, each a list of cells."""
    section = PAGE.partition(f"# {heading}\n")[2].partition("\n#")[0]
    table = re.findall(r"(?:^\|.*\|\n)+", section, re.MULTILINE)[-1].splitlines()
    return [[cell.strip() for cell in line[1:-1].split("|")] for line in table[2:]]


def properties_of(model):
    return {entry.key: entry.value for entry in model.metadata_props}


def operators(model):
    return {node.op_type for node in model.graph.node}


def at(values, place):
    for step in place:
        values = values[step]
    return values


def manifest_is_readable(values, folder):
    """Whether the runtime can read this manifest."""
    artefact = folder / "model.onnx"
    artefact.write_bytes(b"an artefact")
    if "artefact_sha256" in values:
        values = {**values, "artefact_sha256": file_sha256(artefact)}
    manifest_path(artefact).write_text(json.dumps(values))
    try:
        EngineManifest.read(artefact)
    except ModelError:
        return False
    return True


def properties_are_readable(properties):
    try:
        ModelInfo.from_properties(properties, source="model.onnx")
    except ModelError:
        return False
    return True


def test_schemas_and_tables_are_up_to_date():
    assert set(re.findall(r"<!-- contract:(\w+) -->", PAGE)) == set(contract.tables())
    files = contract.files()
    assert len(files) > 1
    for path, text in files.items():
        assert path.read_text() == text, f"{path} is not up to date: run python tools/contract.py"


@pytest.mark.parametrize("schema", SCHEMAS.values(), ids=SCHEMAS)
def test_the_schemas_are_valid_and_describe_every_field(schema):
    Draft202012Validator.check_schema(schema)
    records = [schema, *schema.get("$defs", {}).values()]
    for record in records:
        assert record["additionalProperties"] is False
        for name, field in record["properties"].items():
            assert field["description"].endswith("."), name
            assert not re.search(r"\bNone\b|`(runtime|export)\.", field["description"]), name


@pytest.mark.parametrize("path", MANIFESTS, ids=lambda path: path.name)
def test_manifests_of_this_and_of_earlier_versions_fit_the_schema(path):
    assert problems("manifest", json.loads(path.read_text())) == []


def test_a_new_manifest_fits_the_schema(models, tmp_path):
    path = tmp_path / "model.onnx"
    write_artefact(checked_from_onnx(models / "frames.onnx"), path, started=0.0)
    values = json.loads(manifest_path(path).read_text())
    assert problems("manifest", values) == []
    assert values["onnx_sha256"] == file_sha256(models / "frames.onnx")
    assert problems("metadata", properties_of(onnx.load(path))) == []


def test_the_hash_of_a_graph_in_memory_is_that_of_its_file(export, models):
    checked = export(height=50, width=70)
    assert checked.onnx_sha256 == file_sha256(models / "frames.onnx")


def test_the_manifest_of_a_float16_engine_fits_the_schema(trt8, engine):
    values = json.loads(manifest_path(engine("fp16")).read_text())
    assert problems("manifest", values) == []
    assert values["engine"]["precision_constraints"] == "obey-all"
    assert values["engine"]["convolutions"].keys() == {"fp16", "other", "unseen"}


def test_the_manifest_of_an_int8_model_fits_the_schema():
    values = json.loads(PROVED.read_text())
    calibration = Calibration("clip", 8, "ab" * 32, "extremes", ["decoder1"], [], [])
    values["calibration"] = dict(vars(calibration))
    assert problems("manifest", values) == []
    values["calibration"]["frames"] = "8"
    assert len(problems("manifest", values)) == 1


@pytest.mark.parametrize(("file", "place"), PLACES, ids=str)
def test_schema_and_runtime_agree_on_missing_and_unknown_keys(file, place, tmp_path):
    whole = json.loads(file.read_text())
    assert manifest_is_readable(whole, tmp_path)
    optional = set()
    for key in at(whole, place):
        values = copy.deepcopy(whole)
        del at(values, place)[key]
        readable = manifest_is_readable(values, tmp_path)
        assert readable == (not problems("manifest", values)), key
        optional |= {key} if readable else set()
    # Keys that were added within this version of the format.
    assert optional < {"max_pairs", "proofs", "loss_db", "allowed_loss_db", "any_gpu"} | {
        "precision_constraints", "precision_constraints_reason", "convolutions",
        "inspector_problem", "added_rewrites",
    }  # fmt: skip
    at(whole, place)["unknown"] = None
    assert problems("manifest", whole)
    assert not manifest_is_readable(whole, tmp_path)


@pytest.mark.parametrize(("file", "place"), PLACES, ids=str)
def test_the_schema_refuses_a_value_of_another_type(file, place):
    whole = json.loads(file.read_text())
    for key in at(whole, place):
        values = copy.deepcopy(whole)
        at(values, place)[key] = [[1]]
        assert len(problems("manifest", values)) == 1, key


def test_the_metadata_of_models_fits_the_schema(export):
    shipped = [onnx.load(path) for path in sorted(SHIPPED.glob("*.onnx"))]
    earlier = onnx.load_from_string(lzma.decompress((FORMATS / "model.onnx.xz").read_bytes()))
    exported = [export(**options).model for options in (*GRAPHS.values(), {**PADDED, "batch": 2})]
    pairs = export(**PADDED, max_batch=4).model
    for model in (*shipped, earlier, *exported, pairs):
        assert problems("metadata", properties_of(model)) == []
    assert properties_of(pairs)["ifrnet.max_pairs"] == "4"
    assert problems("metadata", {**properties_of(pairs), "of another tool": "x"}) == []


def test_schema_and_runtime_agree_on_wrong_metadata():
    properties = INFO.to_properties()
    properties["ifrnet.steps_per_call"] = "1"
    assert problems("metadata", properties) == []
    for key in properties:
        changed = [{**properties, key: value} for value in ("", "0", "-1", "1.5x", "2")]
        changed.append({name: value for name, value in properties.items() if name != key})
        if key.endswith(("variant", "sha256", "version")) and "format" not in key:
            changed = changed[-1:]  # The runtime accepts any text here.
        for values in changed:
            assert properties_are_readable(values) == (not problems("metadata", values)), values
        assert problems("metadata", {**properties, key: 1})
    unknown = {**properties, "ifrnet.unknown": "1"}
    assert problems("metadata", unknown)
    assert not properties_are_readable(unknown)


def test_the_page_lists_the_operators_of_each_graph(export):
    table = {row[0]: row[1:] for row in rows("Operators")}
    assert table.keys() == GRAPHS.keys()
    smallest = PAGE.partition("has 149 nodes of ")[2].partition(".")[0]
    first = set(smallest.replace(" and ", ", ").split(", "))
    for name, (nodes, more, without) in table.items():
        model = export(**GRAPHS[name]).model
        added, gone = (set(filter(None, cell.split(", "))) for cell in (more, without))
        assert operators(model) == (first | added) - gone, name
        assert len(model.graph.node) == int(nodes), name


def test_the_page_names_the_operators_of_graphs_for_cpus():
    plain, tuned = (
        operators(onnx.load(SHIPPED / f"demo_{name}.onnx")) for name in ("openvino", "onnxruntime")
    )
    assert plain - tuned == {"ConvTranspose", "PRelu"}
    assert tuned - plain == {"DepthToSpace", "Relu", "Gather"}
    for name in (plain - tuned) | (tuned - plain) | {"QuantizeLinear", "DequantizeLinear"}:
        assert name in PAGE


@pytest.mark.parametrize("name", GRAPHS)
def test_a_graph_has_the_domain_names_types_and_shapes_of_the_page(export, name):
    checked = export(**GRAPHS[name])
    model, options = checked.model, GRAPHS[name]
    assert "opset 17 of the domain `ai.onnx`" in PAGE
    assert "IR version 10" in PAGE
    assert [(entry.domain, entry.version) for entry in model.opset_import] == [("", 17)]
    assert model.ir_version == 10
    assert not model.functions
    assert {node.domain for node in model.graph.node} == {""}
    planes = options.get("io") == "float"
    image = TensorProto.FLOAT if planes else TensorProto.UINT8
    rows = options.get("timesteps", 1)
    size = (0, 0) if "dynamic" in options else (options["height"], options["width"])

    def shape(count):
        return (count, 3, *size) if planes else (count, *size, 3)

    found = {
        value.name: (
            value.type.tensor_type.elem_type,
            tuple(dim.dim_value for dim in value.type.tensor_type.shape.dim),
        )
        for value in (*model.graph.input, *model.graph.output)
    }
    assert list(found.items()) == [
        ("img0", (image, shape(1))),
        ("img1", (image, shape(1))),
        ("timestep", (TensorProto.FLOAT, (rows, 1, 1, 1))),
        ("imgt", (image, shape(rows))),
    ]


def test_the_padding_table_of_the_page_is_right():
    for side, multiple, missing, before, after in (
        map(int, row) for row in rows("Padding for float files")
    ):
        assert padding(side, multiple) == (before, after)
        assert missing == before + after
    divisors = re.search(r"and not on the variant: (.*?)\. Read", PAGE)[1]
    values = re.findall(r"(\d+) for ([\d.]+)", divisors)
    assert len(values) == 5
    for multiple, scale in values:
        assert divisor(float(scale)) == int(multiple)


def test_a_graph_for_frames_pads_scales_and_rounds_as_the_page_says(models):
    """Compares the graph for 50x70 frames with the float graph of the padded size."""
    pair = moving_frames(50, 70, 4.0)
    steps = np.full((1, 1, 1, 1), 0.5, np.float32)
    results = {}
    for name, images in (
        ("frames", [frame[None] for frame in pair]),
        ("float", [to_planes(frame, 16) for frame in pair]),
    ):
        session = onnxruntime.InferenceSession(
            models / f"{name}.onnx", providers=["CPUExecutionProvider"]
        )
        inputs = dict(zip(("img0", "img1", "timestep"), (*images, steps), strict=True))
        (results[name],) = session.run(["imgt"], inputs)
    cropped = results["float"][0, :, 7 : 7 + 50, 5 : 5 + 70].transpose(1, 2, 0)
    expected = np.rint(cropped * 255)
    assert np.abs(results["frames"][0].astype(int) - expected).max() <= 1
    assert (results["frames"][0] != expected).mean() < 1e-3


def test_the_limits_on_the_page_are_those_of_the_code():
    assert f"{MINIMUM_SIDE}x{MINIMUM_SIDE} pixels" in PAGE
    assert f"T, N and M are at most {MAXIMUM_STEPS}" in PAGE
    assert (
        f"{REQUIRED_DB['fp32']:.0f} dB for fp32 ({REQUIRED_DB_OF_ENGINES['fp32']:.0f} dB for a "
        f"TensorRT engine), {REQUIRED_DB['fp16']:.0f} dB for fp16 and {REQUIRED_DB['int8']:.0f} dB"
    ) in PAGE


@pytest.mark.parametrize("path", MANIFESTS, ids=lambda path: path.name)
def test_the_page_lists_the_keys_of_cases(path):
    values = json.loads(path.read_text())
    listed = {row[0].strip("`") for row in rows("gate")}
    proofs = [case for proof in values.get("proofs", ()) for case in proof["cases"]]
    for case in (*values["gate"]["cases"], *proofs):
        assert case.keys() <= listed
        always = {"candidate", "size", "motion_px", "timesteps", "psnr_db", "max_difference"}
        assert always <= case.keys()
