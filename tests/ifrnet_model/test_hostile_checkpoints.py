"""Checkpoints that are made to break the reader: special tensors, archives, pickles, names."""

import re
import zipfile

import numpy as np
import pytest
import torch

from bench.runs.authors import random_network
from ifrnet_model import CheckpointError, load_checkpoint
from ifrnet_model.state_dict import STEM

BIAS = "decoder1.convblock.2.bias"


@pytest.fixture(scope="module")
def state():
    return random_network("small").state_dict()


def assert_refused(path, message):
    with pytest.raises(CheckpointError) as error:
        load_checkpoint(path)
    assert re.fullmatch(f"{re.escape(str(path))} {message}", str(error.value))
    assert len(str(error.value)) < 1500 + len(str(path))


@pytest.mark.filterwarnings("ignore:(Sparse|The PyTorch API of nested)")
@pytest.mark.parametrize("name", [BIAS, STEM])
@pytest.mark.parametrize(
    "special",
    [
        lambda tensor: tensor.to_sparse(),
        lambda tensor: tensor.reshape(len(tensor), -1).to_sparse_csr(),
        lambda tensor: tensor.to("meta"),
        lambda tensor: torch.nested.nested_tensor([tensor, tensor]),
        lambda tensor: torch.nested.nested_tensor([tensor, tensor], layout=torch.jagged),
    ],
    ids=["sparse", "csr", "meta", "nested", "jagged"],
)
def test_tensors_without_a_dense_array_are_refused(tmp_path, state, name, special):
    path = tmp_path / "weights.pth"
    torch.save({**state, name: special(state[name])}, path)
    assert_refused(
        path,
        rf"contains sparse, nested, meta or other special tensors \({re.escape(name)}\): save "
        "ordinary dense tensors on the CPU with torch.save",
    )


@pytest.mark.parametrize("dtype", [torch.float8_e4m3fn, torch.float8_e5m2, torch.float64])
def test_weights_of_every_float_type_load(tmp_path, state, dtype):
    path = tmp_path / "weights.pth"
    torch.save({**state, BIAS: state[BIAS].to(dtype)}, path)
    loaded = load_checkpoint(path).network.state_dict()[BIAS]
    assert torch.equal(loaded, state[BIAS].to(dtype).float())


def test_packed_float4_is_refused(tmp_path, state):
    path = tmp_path / "weights.pth"
    packed = torch.zeros(state[BIAS].shape, dtype=torch.uint8).view(torch.float4_e2m1fn_x2)
    torch.save({**state, BIAS: packed}, path)
    assert_refused(path, rf"contains tensors that are not of a float type \({BIAS}\): give .*")


def test_float64_weights_that_float32_cannot_hold_are_refused(tmp_path, state):
    path = tmp_path / "weights.pth"
    torch.save({**state, BIAS: torch.full_like(state[BIAS], 1e39, dtype=torch.float64)}, path)
    assert_refused(path, rf"contains infinities or NaN \({BIAS}\): give .*")


def write_compressed(path, state, **more):
    """Writes a checkpoint as a compressed archive, with more entries; returns its size before."""
    saved = path.with_name("saved.pth")
    torch.save(dict(state), saved)
    with (
        zipfile.ZipFile(saved) as archive,
        zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as compressed,
    ):
        contents = {name: archive.read(name) for name in archive.namelist()}
        for name, content in {**contents, **more}.items():
            compressed.writestr(name, content)
    return saved.stat().st_size


def test_an_archive_that_unpacks_to_much_more_is_refused(tmp_path, state):
    path = tmp_path / "weights.pth"
    write_compressed(path, state, **{"archive/data/9999": bytes(1 << 27)})
    assert_refused(path, r"has \d+ bytes and would unpack to \d+, more than 8 times as many: .*")


def test_a_compressed_archive_loads(tmp_path, state):
    path = tmp_path / "weights.pth"
    saved_size = write_compressed(path, state)
    assert path.stat().st_size < saved_size
    loaded = load_checkpoint(path).network.state_dict()
    assert all(torch.equal(loaded[name], tensor) for name, tensor in state.items())


class Zeros:
    """Unpickled as 2^40 zero bytes."""

    def __reduce__(self):
        return bytearray, (1 << 40,)


@pytest.mark.parametrize("zipped", [True, False])
def test_a_pickle_that_allocates_is_refused(tmp_path, state, zipped):
    path = tmp_path / "weights.pth"
    torch.save({**state, "other": Zeros()}, path, _use_new_zipfile_serialization=zipped)
    assert_refused(path, r"contains the Python object builtins\.bytearray, which could use any .*")


def test_very_many_and_very_long_prefixes_are_refused_in_short(tmp_path, state):
    path = tmp_path / "weights.pth"
    torch.save({f"{'module.' * number}{STEM}": state[STEM] for number in range(1500)}, path)
    assert_refused(
        path, r"contains 17 networks \(no prefix\), \(module\.\), .* and 13 more: save .*"
    )
    torch.save({"module." * 100_000 + STEM: state[STEM]}, path)
    assert_refused(
        path, rf"has {re.escape(STEM)} under names that are not known \(mod.*\.\.\.\): .*"
    )


def test_very_deep_dictionaries_are_refused(tmp_path, state):
    path, stored = tmp_path / "weights.pth", dict(state)
    for _ in range(100):
        stored = {"model": stored}
    torch.save(stored, path)
    assert_refused(path, r"contains entries that are not tensors \(model\): .*")


@pytest.mark.parametrize("key", [5, (1, 2), "\ud800", "\x1b[31m", "x" * 1_000_000])
def test_names_of_any_kind_are_reported(tmp_path, state, key):
    path = tmp_path / "weights.pth"
    torch.save({**state, key: torch.from_numpy(np.zeros(1))}, path)
    assert_refused(path, r"does not fit IFRNet, tensors 1 unexpected \(.+\): give .*")
