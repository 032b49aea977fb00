"""Crafted ONNX files: external data that any parser could read is refused before loading."""

import contextlib
import random
import re
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import onnx
import pytest
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import DecodeError, Message
from onnx import ModelProto, TensorProto, helper

from artefacts import INFO
from bench.harness.layers import profile_onnx
from export.errors import ExportError
from export.graph import passes as graph
from export.source import source_from_onnx
from runtime import Interpolator, ModelError
from runtime.backends import onnx_format
from runtime.backends.onnx_format import has_external_data, rebuilt
from runtime.model_info import Port
from runtime.telemetry import import_quietly

WIDE = 1 << 32
"""A bit of a tag that the parsers of ONNX Runtime and OpenVINO ignore."""

GRAPH, INITIALIZER, EXTERNAL_DATA, DATA_LOCATION = 7, 5, 13, 14


def varint(value, least=1):
    """Encodes a number in `least` bytes or more."""
    encoded = bytearray()
    while value > 0x7F or len(encoded) + 1 < least:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    encoded.append(value)
    return bytes(encoded)


def number_field(number, value, *, high=0):
    return varint(number << 3 | high) + varint(value)


def bytes_field(number, content, *, high=0, least=1):
    return varint(number << 3 | 2 | high) + varint(len(content), least) + content


def entry(key, value):
    return bytes_field(1, key.encode()) + bytes_field(2, value.encode())


def external_tensor(tensor, location, *, high=0, data_location=1):
    """A serialised TensorProto with external data at `location`."""
    bare = TensorProto(name=tensor.name, data_type=tensor.data_type, dims=tensor.dims)
    said = {"location": location, "offset": "0", "length": str(len(tensor.raw_data))}
    return (
        bare.SerializeToString()
        + b"".join(bytes_field(EXTERNAL_DATA, entry(*one), high=high) for one in said.items())
        + number_field(DATA_LOCATION, data_location, high=high)
    )


@pytest.fixture
def plain(models):
    return (models / "frames.onnx").read_bytes()


@pytest.fixture
def crafted(models, tmp_path, monkeypatch):
    """Writes a model with a tensor in another file, in its folder and in the working folder."""

    def craft(location="secret.bin", **trick):
        model = onnx.load(models / "frames.onnx")
        tensor = max(model.graph.initializer, key=lambda t: len(t.raw_data))
        (tmp_path / "secret.bin").write_bytes(tensor.raw_data)
        monkeypatch.chdir(tmp_path)
        if location == "ABSOLUTE":
            location = str(tmp_path / "secret.bin")
        written = external_tensor(tensor, location, **trick)
        model.graph.initializer.remove(tensor)
        # A second graph field: parsers merge it into the first.
        graph = bytes_field(GRAPH, bytes_field(INITIALIZER, written))
        path = tmp_path / "crafted.onnx"
        path.write_bytes(model.SerializeToString() + graph)
        return path

    return craft


TRICKS = {
    "none": {},
    "wide tags": {"high": WIDE},
    "wider tags": {"high": WIDE << 1 | WIDE << 2},
    "high bits of data_location": {"data_location": 1 + WIDE},
    "wide tags and high bits": {"high": WIDE, "data_location": 1 + WIDE},
    "unknown data_location": {"data_location": 2},
}


@pytest.fixture
def loads(monkeypatch):
    """The models that ONNX Runtime and OpenVINO were asked to load."""
    onnxruntime = import_quietly("onnxruntime")
    openvino = import_quietly("openvino")
    given = []

    def refuse(*arguments, **options):
        given.append(arguments)
        raise RuntimeError("a crafted file was loaded")

    monkeypatch.setattr(onnxruntime, "InferenceSession", refuse)
    monkeypatch.setattr(openvino.Core, "read_model", refuse)
    monkeypatch.setattr(openvino.frontend.FrontEnd, "load", refuse)
    yield given
    assert given == []


@pytest.mark.parametrize("trick", TRICKS)
@pytest.mark.parametrize("location", ["secret.bin", "ABSOLUTE"])
@pytest.mark.parametrize("backend", ["onnxruntime", "openvino"])
def test_crafted_files_reach_no_backend(crafted, loads, backend, location, trick):
    options = {"cache": "none"} if backend == "openvino" else {}
    with pytest.raises(
        ModelError, match=r"crafted\.onnx (has weights in other files|cannot be read)"
    ):
        Interpolator.open(crafted(location, **TRICKS[trick]), backend=backend, **options)


@pytest.mark.parametrize("trick", TRICKS)
def test_crafted_files_are_refused_as_source_of_an_artefact(crafted, loads, trick):
    with pytest.raises(
        ExportError, match=r"crafted\.onnx (has weights in other files|cannot be read)"
    ):
        source_from_onnx(crafted(**TRICKS[trick]))


@pytest.mark.parametrize("trick", TRICKS)
def test_crafted_files_are_not_profiled(crafted, loads, trick):
    with pytest.raises(
        ModelError, match=r"crafted\.onnx (has weights in other files|cannot be read)"
    ):
        profile_onnx(crafted(**TRICKS[trick]), {}, threads=1, runs=1)


@pytest.mark.parametrize("trick", TRICKS)
def test_crafted_files_are_not_timed_beside_an_engine(crafted, loads, trick, monkeypatch):
    from bench.runs import plain_engine

    monkeypatch.setattr(plain_engine, "gpu_at", lambda _: None)
    monkeypatch.setattr(plain_engine, "import_tensorrt", lambda: SimpleNamespace(__version__="10"))
    path = crafted(**TRICKS[trick])
    with pytest.raises(
        ModelError, match=r"crafted\.onnx (has weights in other files|cannot be read)"
    ):
        plain_engine.PlainFile(path, 0)
    with pytest.raises(
        ModelError, match=r"crafted\.onnx (has weights in other files|cannot be read)"
    ):
        plain_engine._build(path, 0)


def sparse_values(model):
    return model.graph.sparse_initializer.add().values


def value_in_a_function(model):
    function = model.functions.add(name="F", domain="mine")
    node = function.node.add(op_type="Constant", output=["w"])
    attribute = node.attribute.add(name="value", type=onnx.AttributeProto.TENSOR)
    return attribute.t


@pytest.mark.parametrize("place", [sparse_values, value_in_a_function])
def test_external_tensors_at_unusual_places_are_refused(plain, tmp_path, place):
    """The onnx package reads them without complaint."""
    model = ModelProto.FromString(plain)
    values = place(model)
    values.name, values.data_type, values.data_location = "w", TensorProto.FLOAT, 1
    path = tmp_path / "external.onnx"
    path.write_bytes(model.SerializeToString())
    with pytest.raises(ModelError, match="has weights in other files"):
        onnx_format.read_onnx(path)
    with pytest.raises(ExportError, match="has weights in other files"):
        source_from_onnx(path)
    with pytest.raises(ExportError, match="has tensors in other files"):
        graph.check(model)


@pytest.mark.parametrize(
    ("appended", "reason"),
    [
        (number_field(5, 0, high=WIDE), "more than 32 bits"),
        (b"\xa8\x00\x00", "more bytes than it needs"),  # Tag 40 in two bytes.
        (bytes_field(6, b"", least=2), "more bytes than it needs"),
        (varint(6 << 3 | 2) + varint(WIDE) + b"x", "more than 32 bits"),
        (b"\x02\x00", "the number 0"),
        (b"\x33\x34", "the wire type 3"),
        (b"\x34", "the wire type 4"),
        (b"\x36", "the wire type 6"),
        (b"\x37", "the wire type 7"),
        (varint(5 << 3) + b"\xff" * 10 + b"\x01", "in the middle of a number"),
        (b"\x32\x05abcd", "in the middle of a field"),
        (b"\x31abcdefg", "in the middle of a field"),
    ],
)
def test_files_that_parsers_read_differently_are_refused(plain, tmp_path, appended, reason):
    path = tmp_path / "odd.onnx"
    path.write_bytes(plain + appended)
    with pytest.raises(ModelError, match=f"odd.onnx cannot be read as ONNX .*{reason}"):
        onnx_format.read_onnx(path)


def test_metadata_that_is_not_text_is_refused(plain, tmp_path):
    path = tmp_path / "odd.onnx"
    path.write_bytes(plain + bytes_field(14, bytes_field(1, b"\xff")))
    with pytest.raises(ModelError, match=r"odd\.onnx cannot be read as ONNX \('utf-8' codec"):
        onnx_format.read_onnx(path)


def test_numbers_that_only_the_onnx_package_reads_are_an_error_of_the_source(plain, tmp_path):
    dims = bytes_field(1, b"\xff")  # Packed numbers that end in the middle of one.
    path = tmp_path / "odd.onnx"
    path.write_bytes(plain + bytes_field(GRAPH, bytes_field(INITIALIZER, dims)))
    with pytest.raises(
        ExportError, match=r"odd\.onnx cannot be read as ONNX \(.*: export it again"
    ):
        source_from_onnx(path)


IMAGES = {"img0": (1, 720, 1280, 3), "img1": (1, 720, 1280, 3)}
SHAPES = {**IMAGES, "timestep": (3, 1, 1, 1), "imgt": (3, 720, 1280, 3)}


def ports(shapes=SHAPES, **dtypes):
    return [
        Port(name, dtypes.get(name, "float32" if name == "timestep" else "uint8"), shape, True)
        for name, shape in shapes.items()
    ]


@pytest.mark.parametrize(
    "shapes", [SHAPES, {**SHAPES, "imgt": (None, 720, None, 3)}, {**SHAPES, "imgt": (3,)}]
)
def test_a_runtime_may_report_free_axes_of_the_output(shapes):
    onnx_format.check_ports(ports(shapes), INFO, Path("m.onnx"))


def test_a_free_axis_that_is_declared_may_be_fixed():
    free = replace(INFO, height=None, width=None)
    onnx_format.check_ports(ports(), free, Path("m.onnx"))


@pytest.mark.parametrize(
    ("found", "message"),
    [
        (ports(img0="float32"), "m.onnx has {'img0': 'float32', "),
        (ports(imgt="float32"), "m.onnx has {'img0': 'uint8', "),
        (
            ports(IMAGES),
            "m.onnx has {'img0': 'uint8', 'img1': 'uint8'}, its metadata declares {'im",
        ),
        (ports({**SHAPES, "more": (1,)}), "m.onnx has {'img0': 'uint8', "),
        (
            ports({**SHAPES, "img1": (1, 720, 1280)}),
            "m.onnx has img1 of shape (1, 720, 1280), its metadata declares (1, 720, 1280, 3)",
        ),
        (
            ports({**SHAPES, "img1": (1, None, 1280, 3)}),
            "m.onnx has img1 of shape (1, None, 1280, 3), its metadata declares (1, 720, 1280, 3)",
        ),
        (
            ports({**SHAPES, "timestep": (1, 1, 1, 1)}),
            "m.onnx has timestep of shape (1, 1, 1, 1), its metadata declares (3, 1, 1, 1)",
        ),
    ],
)
def test_inputs_and_an_output_that_are_not_declared_are_refused(found, message):
    with pytest.raises(ModelError, match=f"^{re.escape(message)}.*: export it again$"):
        onnx_format.check_ports(found, INFO, Path("m.onnx"))


def test_the_format_of_onnx_runtime_is_refused(plain, tmp_path):
    """ONNX Runtime checks for its own format before it parses protobuf."""
    path = tmp_path / "two.onnx"
    path.write_bytes(bytes_field(2, b"..ORTM") + plain)
    with pytest.raises(ModelError, match="in the format of ONNX Runtime"):
        onnx_format.read_onnx(path)


def test_a_file_that_is_also_in_openvinos_format_is_loaded_as_onnx(plain, tmp_path, frames):
    openvino = import_quietly("openvino")
    parameter = openvino.opset8.parameter([4], np.float32, name="x")
    other = openvino.Model([openvino.opset8.relu(parameter)], [parameter], "other")
    openvino.save_model(other, tmp_path / "other.xml")
    xml = (tmp_path / "other.xml").read_bytes()
    path = tmp_path / "both.onnx"
    path.write_bytes(bytes_field(2, xml[xml.index(b"<net") :]) + plain)
    assert len(openvino.Core().read_model(path.read_bytes()).inputs) == 1
    with Interpolator.open(path, backend="openvino", cache="none") as vfi:
        assert vfi.interpolate(*frames).shape == (50, 70, 3)


def test_metadata_equals_that_read_by_onnx(plain):
    """Later entries win, and fields of another wire type are unknown ones."""
    odd = (
        bytes_field(14, entry("a", "first") + bytes_field(1, b"b"))
        + bytes_field(14, entry("b", "second") + b"\x15abcd" + number_field(2, 7))
        + varint(14 << 3 | 1) + b"\x0a\x01c\x12\x01ddd"
    )  # fmt: skip
    expected = {e.key: e.value for e in ModelProto.FromString(plain + odd).metadata_props}
    assert expected["b"] == "second"
    assert onnx_format._metadata(plain + odd) == expected


def test_all_paths_to_tensors_are_followed():
    """Compares the paths with the schema of the installed onnx package."""
    reached = {}

    def leads_to_tensors(message, above=()):
        if message.name == "TensorProto":
            return True
        if message.name in above:
            return False
        return any(
            field.message_type and leads_to_tensors(field.message_type, (*above, message.name))
            for field in message.fields
        )

    waiting = [ModelProto.DESCRIPTOR]
    while waiting:
        message = waiting.pop()
        if message.name not in reached:
            below = [f for f in message.fields if f.message_type]
            below = [f for f in below if leads_to_tensors(f.message_type)]
            reached[message.name] = {f.number: f.message_type.name for f in below}
            waiting += [f.message_type for f in below]
    assert reached == {
        _message(kind): {number: _message(name) for number, name in below.items()}
        for kind, below in onnx_format._FIELDS_WITH_TENSORS.items()
    }


def test_the_table_of_fields_is_that_of_the_schema():
    """Repeated numbers may be packed into a string or not."""
    floats = {FieldDescriptor.TYPE_FLOAT: 5, FieldDescriptor.TYPE_DOUBLE: 1}
    in_strings = {
        FieldDescriptor.TYPE_MESSAGE, FieldDescriptor.TYPE_STRING, FieldDescriptor.TYPE_BYTES,
    }  # fmt: skip
    for kind, known in onnx_format._KNOWN_FIELDS.items():
        expected = {}
        for field in getattr(onnx, _message(kind)).DESCRIPTOR.fields:
            is_number = field.type not in in_strings
            if is_number:
                expected.setdefault(floats.get(field.type, 0), set()).add(field.number)
            if not is_number or _is_repeated(field):
                expected.setdefault(2, set()).add(field.number)
        for wire_type, numbers in expected.items():
            # Earlier releases of onnx have fewer fields.
            assert numbers <= known[wire_type], (kind, wire_type)
        assert known.keys() == expected.keys()


def _is_repeated(field):
    """Protobuf before 6.31 has no property for this, and later releases deprecate the label."""
    if hasattr(field, "is_repeated"):
        return field.is_repeated
    return field.label == field.LABEL_REPEATED


def _message(kind):
    """The message class of the schema for a name in the table."""
    return kind.title().replace(" ", "") + "Proto"


def small_model():
    """A model with a tensor at every place that the schema allows."""

    def tensor(name):
        return helper.make_tensor(name, TensorProto.FLOAT, [2], [1.0, -2.0])

    def graph(name, nodes=()):
        made = helper.make_graph(list(nodes), name, [], [], [tensor(f"{name}_w")])
        sparse = helper.make_sparse_tensor(
            tensor(f"{name}_v"),
            helper.make_tensor(f"{name}_i", TensorProto.INT64, [2], [0, 3]),
            [8],
        )
        made.sparse_initializer.append(sparse)
        made.quantization_annotation.add(tensor_name="q").quant_parameter_tensor_names.add(
            key="SCALE_TENSOR", value="w"
        )
        return made

    def node(name):
        sparse = graph("s").sparse_initializer[0]
        values = (tensor("t"), [tensor("u"), tensor("v")], graph("g"), [graph("h")], sparse)
        return helper.make_node(
            "Odd", ["x"], ["y"], name=name, plain=3,
            **{f"a{k}": value for k, value in enumerate((*values, [sparse]))},
        )  # fmt: skip

    function = helper.make_function(
        "f", "F", ["x"], ["y"], [node("in function")], [helper.make_opsetid("", 17)],
        attribute_protos=[helper.make_attribute("a", tensor("of function"))],
    )  # fmt: skip
    model = helper.make_model(
        graph("top", [node("first")]),
        functions=[function],
        opset_imports=[helper.make_opsetid("", 17)],
        ir_version=8,
    )
    model.training_info.add(initialization=graph("start"), algorithm=graph("step", [node("n")]))
    helper.set_model_props(model, {"a": "b", "c": "d"})
    return model


def is_external(message):
    """Whether the onnx package finds external data anywhere below `message`."""
    if isinstance(message, TensorProto) and (
        len(message.external_data) or message.data_location != TensorProto.DEFAULT
    ):
        return True
    return any(
        is_external(one)
        for field, value in message.ListFields()
        if field.message_type
        for one in each(value)
    )


def each(value):
    """The values of a field, repeated or not."""
    return [value] if isinstance(value, (Message, str, bytes, int, float)) else value


class Mutator:
    """Writes a model with external data at about one of its 49 tensors.

    Some fields are written in ways that no serialiser uses.

    Args:
        seed: Seed of the random choices.
        often: Probability that a field is written in an unusual way.
        often_external: The same probability for the fields of external data.
    """

    def __init__(self, seed, often, often_external):
        self.rng = random.Random(seed)
        self.often = often
        self.often_external = often_external

    def written(self, message):
        parts = []
        for field, value in message.ListFields():
            for one in each(value):
                parts.append(self.field(field, one))
        if isinstance(message, TensorProto) and self.rng.random() < 1 / 49:
            parts.insert(self.rng.randrange(len(parts) + 1), self.external())
        if self.now() and parts:  # Parsers merge or override.
            parts.append(self.rng.choice(parts))
        return b"".join(parts)

    def now(self):
        return self.rng.random() < self.often

    def field(self, field, value):
        if field.message_type:
            return self.bytes_(field.number, self.written(value))
        if field.cpp_type == field.CPPTYPE_FLOAT:
            return varint(field.number << 3 | 5) + np.float32(value).tobytes()
        if field.cpp_type == field.CPPTYPE_STRING:
            return self.bytes_(field.number, value if type(value) is bytes else value.encode())
        return self.tag(field.number, 0) + self.value(value % (1 << 64))

    def external(self):
        location = self.rng.choice([0, 1, 1, 1, 2, 3, 1 + WIDE, WIDE, (1 << 64) - 1, 1 << 63])
        entries = [("location", "/etc/hostname"), ("offset", "0")]
        usual, self.often = self.often, self.often_external
        fields = [self.bytes_(EXTERNAL_DATA, entry(*one)) for one in entries]
        fields.append(self.tag(DATA_LOCATION, 0) + self.value(location))
        self.often = usual
        self.rng.shuffle(fields)
        return b"".join(fields[: self.rng.randrange(1, 4)])

    def bytes_(self, number, content):
        least = self.rng.choice([2, 3, 4, 5, 6]) if self.now() else 1
        return self.tag(number, 2) + varint(len(content), least) + content

    def value(self, value):
        return varint(value, self.rng.randrange(2, 11) if self.now() else 1)

    def tag(self, number, wire_type):
        if not self.now():
            return varint(number << 3 | wire_type)
        trick = self.rng.randrange(5)
        if trick == 0:
            number = self.rng.choice([5, 7, 13, 14, 20, 22])
        elif trick == 1:
            wire_type = self.rng.randrange(8)
        high = 1 << self.rng.choice([32, 33, 34, 35, 63]) if trick == 2 else 0
        return varint(number << 3 | wire_type | high, self.rng.randrange(6) if trick == 3 else 1)


def parsed(content):
    """The model as the parsers of the onnx package read it: that of Python, and that of C++.

    The second drops what the first refuses: bits of a tag above 32.
    """
    for parse in (ModelProto.FromString, onnx.shape_inference.infer_shapes):
        with contextlib.suppress(Exception):  # Each parser has its own errors.
            yield parse(content)


def check_against_onnx(content):
    """Whether the onnx package reads external data; if so, our check must refuse the file."""
    external = any(map(is_external, parsed(content)))
    if external:
        with contextlib.suppress(ValueError):
            assert has_external_data(content), content.hex()
    return external


@pytest.mark.parametrize(
    ("often", "often_external"), [(0, 0), (0, 0.2), (0.001, 0.2), (0.005, 0.05)]
)
def test_all_external_data_that_onnx_reads_is_found(often, often_external):
    model = small_model()
    assert not has_external_data(model.SerializeToString())
    found = sum(
        check_against_onnx(Mutator(seed, often, often_external).written(model))
        for seed in range(1000)
    )
    assert found > 30


def test_flipped_bytes_hide_no_external_data():
    model, found = small_model(), 0
    for seed in range(1000):
        rng = random.Random(seed)
        content = bytearray(Mutator(seed, 0, 0.1).written(model))
        for _ in range(rng.randrange(1, 4)):
            content[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
        found += check_against_onnx(bytes(content))
    assert found > 30


def test_external_data_at_every_place_is_found():
    """One tensor after the other, in bytes that every parser reads."""
    model = small_model()
    tensors = list(all_tensors(model))
    assert len(tensors) > 40
    for tensor in tensors:
        tensor.external_data.add(key="location", value="x")
        assert has_external_data(model.SerializeToString())
        del tensor.external_data[:]
        tensor.data_location = TensorProto.EXTERNAL
        assert has_external_data(model.SerializeToString())
        tensor.ClearField("data_location")
    assert not has_external_data(model.SerializeToString())


def test_a_usual_file_is_not_changed(models):
    paths = list(models.glob("*.onnx"))
    assert paths
    for path in paths:
        content = path.read_bytes()
        assert rebuilt(content) is content
    content = small_model().SerializeToString()
    assert rebuilt(content) is content


@pytest.mark.parametrize("often", [0.0005, 0.002])
def test_a_rebuilt_file_has_the_same_model(often):
    """What onnx reads from both is the same, but for unknown fields."""
    model, compared = small_model(), 0
    for seed in range(600):
        content = Mutator(seed, often, 0).written(model)
        try:
            made = rebuilt(content)
            expected = ModelProto.FromString(content)
        except (ValueError, DecodeError):
            continue
        read = ModelProto.FromString(made)
        expected.DiscardUnknownFields()
        read.DiscardUnknownFields()
        assert read.SerializeToString(deterministic=True) == expected.SerializeToString(
            deterministic=True
        )
        assert rebuilt(made) is made
        compared += made != content
    assert compared > 10


def test_fields_that_are_not_of_onnx_do_not_reach_a_backend(plain, tmp_path, monkeypatch):
    onnxruntime = import_quietly("onnxruntime")
    given, session = [], onnxruntime.InferenceSession

    def keep(content, *arguments, **options):
        given.append(content)
        return session(content, *arguments, **options)

    monkeypatch.setattr(onnxruntime, "InferenceSession", keep)
    path = tmp_path / "more.onnx"
    more = bytes_field(99, b"/etc/passwd") + bytes_field(GRAPH, number_field(1, 5))
    path.write_bytes(plain + more)
    Interpolator.open(path, backend="onnxruntime").close()
    assert given == [plain + bytes_field(GRAPH, b"")]


def test_messages_that_are_too_deep_are_refused(plain, tmp_path):
    """Parsers of protobuf read at most 100 messages in one another."""
    deep = b""
    for _ in range(60):  # A graph in an attribute of a node.
        deep = bytes_field(1, bytes_field(5, bytes_field(6, deep)))
    path = tmp_path / "deep.onnx"
    path.write_bytes(plain + bytes_field(GRAPH, deep))
    with pytest.raises(
        ModelError, match=r"cannot be read as ONNX \(its messages are more than 100"
    ):
        onnx_format.read_onnx(path)


def all_tensors(message):
    if isinstance(message, TensorProto):
        yield message
    for field, value in message.ListFields():
        if field.message_type:
            for one in each(value):
                yield from all_tensors(one)


def test_exported_models_are_accepted(models):
    paths = list(models.glob("*.onnx"))
    assert paths
    for path in paths:
        file = onnx_format.read_onnx(path)
        assert not has_external_data(file.content)
        assert file.info.variant == "small"
