import gzip
import io
import json
import pickle
import tarfile
import zipfile

import numpy as np
import onnx
import pytest
import torch
from safetensors.torch import save_file

from ifrnet_model import CheckpointError
from ifrnet_model.checkpoint_file import read_checkpoint
from ifrnet_model.state_dict import STEM

STATE = {STEM: torch.ones(2), "tail.bias": torch.ones(3)}
NOT_WEIGHTS = "give a file written by torch.save, or .safetensors"
UNPACK = "unpack it and give the checkpoint in it"
AGAIN = "copy or download it again"
PAGE = (
    "is a web page, such as a share page or a login, not a checkpoint: open that page in a browser "
    "and save the file that it offers"
)


def saved(write):
    buffer = io.BytesIO()
    write(buffer)
    return buffer.getvalue()


def pytorch(**options):
    return saved(lambda file: torch.save(STATE, file, **options))


def zipped(*names):
    def write(file):
        with zipfile.ZipFile(file, "w") as archive:
            for name in names:
                archive.writestr(name, b"content")

    return saved(write)


def tarred():
    def write(file):
        with tarfile.open(fileobj=file, mode="w") as archive:
            archive.addfile(tarfile.TarInfo("weights.pth"))

    return saved(write)


def onnx_model():
    helper = onnx.helper
    value = helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, [1])
    graph = helper.make_graph([], "graph", [value], [value])
    return helper.make_model(graph, producer_name="pytorch").SerializeToString()


def index(*parts):
    return json.dumps({"metadata": {}, "weight_map": {f"t{n}": p for n, p in enumerate(parts)}})


OTHER_KINDS = {
    "empty": (b"", f"is empty: {AGAIN}"),
    "page": (b"\r\n\r\n<!DOCTYPE html>\n<html>...", PAGE),
    "page with a comment": (b"\xef\xbb\xbf<!-- saved from url -->\n<HTML lang=en>", PAGE),
    "XML": (
        b'<?xml version="1.0"?><Error>AccessDenied</Error>',
        f"is an XML document, not a checkpoint: {NOT_WEIGHTS}",
    ),
    "LFS": (
        b"version https://git-lfs.github.com/spec/v1\noid sha256:7a66\nsize 19800000\n",
        "is a pointer of Git LFS, not the file itself: run git lfs pull in its repository",
    ),
    "gzip": (gzip.compress(b"weights"), f"is compressed with gzip: {UNPACK}"),
    "7z": (b"7z\xbc\xaf\x27\x1c\0\4", f"is a 7z archive: {UNPACK}"),
    "tar": (tarred(), f"is a tar archive: {UNPACK}"),
    "ONNX": (
        onnx_model(),
        "is an ONNX model, not a checkpoint: give it to --onnx of python -m export.build_engine",
    ),
    "engine": (
        b"ftrt\0\0\0\0",
        "is a TensorRT engine, not a checkpoint: give the checkpoint or the ONNX file that it was "
        "built from",
    ),
    "npy": (saved(lambda file: np.save(file, np.zeros(2))), "is one NumPy array, not a checkpoint: "
            + NOT_WEIGHTS),
    "npz": (
        saved(lambda file: np.savez(file, **{STEM: np.zeros(2)})),
        "is an archive of NumPy arrays (.npz), not a PyTorch checkpoint: save them with "
        "torch.save({k: torch.from_numpy(v) for k, v in numpy.load(path).items()}, 'weights.pth')",
    ),
    "zip with one": (
        zipped("IFRNet_small/readme.txt", "IFRNet_small/IFRNet_S_GoPro.pth", "__MACOSX/x.pth"),
        "is a zip archive with checkpoints in it, not a checkpoint: unzip it and give "
        "IFRNet_small/IFRNet_S_GoPro.pth",
    ),
    "zip with two": (
        zipped("a.pth", "b.PTH"),
        "is a zip archive with checkpoints in it, not a checkpoint: unzip it and give one of "
        "a.pth, b.PTH",
    ),
    "zip with none": (
        zipped("a.txt"),
        f"is a zip archive without a checkpoint in it (a.txt): {NOT_WEIGHTS}",
    ),
    "empty zip": (
        zipped(), f"is a zip archive without a checkpoint in it (empty): {NOT_WEIGHTS}"
    ),
    "cut zip": (
        pytorch()[:-30],
        f"is an incomplete or damaged zip archive (PyTorch's format): {AGAIN}",
    ),
    "pickle": (
        pickle.dumps({STEM: [1.0]}),
        "is a pickle that torch.save did not write, which could run code, and was not loaded: save "
        "the network's state_dict() with torch.save",
    ),
    "cut legacy file": (
        pytorch(_use_new_zipfile_serialization=False)[:-4],
        f"is a damaged PyTorch file (RuntimeError): {AGAIN}",
    ),
    "index of parts": (
        index("model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors").encode(),
        "is the index of a checkpoint in parts (model-00001-of-00002.safetensors, "
        "model-00002-of-00002.safetensors): load all parts, join their dictionaries, and save the "
        "result with torch.save",
    ),
    "JSON": (b'{"error": "not found"}', f"is a JSON document, not a checkpoint: {NOT_WEIGHTS}"),
    "zeros": (
        bytes(4096),
        "begins with zeros, as an incomplete download does: download it again",
    ),
    "text": (
        b"{a configuration}",
        "is neither a PyTorch nor a safetensors file, it begins with b'{a confi': " + NOT_WEIGHTS,
    ),
}  # fmt: skip


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
@pytest.mark.parametrize("kind", OTHER_KINDS)
def test_another_kind_of_file_is_named(tmp_path, kind, suffix):
    path = tmp_path / f"weights{suffix}"
    content, message = OTHER_KINDS[kind]
    path.write_bytes(content)
    with pytest.raises(CheckpointError) as error:
        read_checkpoint(path)
    assert str(error.value) == f"{path} {message}"


class Small(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(1, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layer(x)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_torchscript_module_is_named_and_its_remedy_works(tmp_path):
    path = tmp_path / "module.pt"
    torch.jit.save(torch.jit.trace(Small(), torch.ones(1, 1)), path)
    with pytest.raises(CheckpointError) as error:
        read_checkpoint(path)
    assert str(error.value) == (
        f"{path} is a TorchScript module, not a checkpoint: save its weights with "
        "torch.save(torch.jit.load(path).state_dict(), 'weights.pth')"
    )
    torch.save(torch.jit.load(path).state_dict(), tmp_path / "weights.pth")
    with pytest.raises(CheckpointError, match="among its 2 tensors: give an IFRNet"):
        read_checkpoint(tmp_path / "weights.pth")


def test_a_program_of_torch_export_is_named_and_its_remedy_works(tmp_path):
    path = tmp_path / "program.pt2"
    torch.export.save(torch.export.export(Small(), (torch.ones(1, 1),)), path)
    with pytest.raises(CheckpointError) as error:
        read_checkpoint(path)
    assert str(error.value) == (
        f"{path} is a program of torch.export, not a checkpoint: save its weights with "
        "torch.save(dict(torch.export.load(path).state_dict), 'weights.pth')"
    )
    torch.save(dict(torch.export.load(path).state_dict), tmp_path / "weights.pth")
    with pytest.raises(CheckpointError, match="among its 2 tensors: give an IFRNet"):
        read_checkpoint(tmp_path / "weights.pth")


@pytest.mark.parametrize("name", ["weights.pth", "weights.PTH", "weights.SafeTensors", "weights"])
@pytest.mark.parametrize("kind", ["zip", "legacy", "safetensors"])
def test_the_format_is_recognised_by_content_not_by_name(tmp_path, name, kind):
    path = tmp_path / name
    if kind == "safetensors":
        save_file(STATE, path, {"timesteps": "midpoint"})
    else:
        torch.save(STATE, path, _use_new_zipfile_serialization=kind == "zip")
    file = read_checkpoint(path)
    assert file.state.keys() == STATE.keys()
    assert file.metadata == ({"timesteps": "midpoint"} if kind == "safetensors" else {})


@pytest.mark.filterwarnings("ignore:Detected pickle protocol 4")
@pytest.mark.parametrize("zip_file", [True, False])
def test_an_unsupported_pickle_protocol_is_refused(tmp_path, zip_file):
    path = tmp_path / "weights.pth"
    torch.save(STATE, path, _use_new_zipfile_serialization=zip_file, pickle_protocol=4)
    with pytest.raises(CheckpointError, match=r"\(Unsupported operand 149\): save its "):
        read_checkpoint(path)


@pytest.mark.parametrize("size", [100, 400])
def test_the_error_for_a_truncated_safetensors_file_has_both_sizes(tmp_path, size):
    path = tmp_path / "weights.pth"
    save_file({STEM: torch.ones(200)}, path)
    whole = path.stat().st_size
    path.write_bytes(path.read_bytes()[:size])
    with pytest.raises(CheckpointError) as error:
        read_checkpoint(path)
    assert whole > 400
    assert str(error.value) == (
        f"{path} is cut off, it has {size} of at least {whole} bytes: {AGAIN}"
    )


@pytest.mark.parametrize("name", ["model-00002-of-00003.safetensors", "model-00002-of-00003.bin"])
def test_one_part_of_a_split_checkpoint_is_refused(tmp_path, name):
    path = tmp_path / name
    torch.save(STATE, path)
    with pytest.raises(CheckpointError) as error:
        read_checkpoint(path)
    assert str(error.value) == (
        f"{path} is part 2 of 3 of a checkpoint: load all parts, join their dictionaries, and save "
        "the result with torch.save"
    )


def test_the_only_part_of_a_checkpoint_loads(tmp_path):
    path = tmp_path / "model-00001-of-00001.safetensors"
    save_file(STATE, path)
    assert read_checkpoint(path).state.keys() == STATE.keys()
