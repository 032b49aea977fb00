from collections import OrderedDict

import pytest
import torch
from safetensors.torch import save_file

from ifrnet_model import CheckpointError
from ifrnet_model.checkpoint_file import read_checkpoint
from ifrnet_model.state_dict import STEM

WRAPPERS = (
    "state_dict", "params", "params_ema", "ema", "ema_state_dict", "model_state_dict", "net",
    "network", "weights", "model",
)  # fmt: skip
PREFIXES = (
    "module.", "generator.", "ema.", "ema_model.", "model.", "net.", "net_g.", "_orig_mod.",
    "generator_ema.",
)  # fmt: skip
AVERAGES = {"params_ema", "ema", "ema_state_dict", "ema.", "ema_model.", "generator_ema."}


def tensors(prefix="", value=1.0):
    return {prefix + STEM: torch.full((2,), value), f"{prefix}tail.bias": torch.full((3,), value)}


@pytest.fixture
def read(tmp_path):
    def save_and_read(stored):
        torch.save(stored, tmp_path / "weights.pth")
        return read_checkpoint(tmp_path / "weights.pth")

    return save_and_read


def assert_tensors(file, value=1.0):
    assert file.state.keys() == tensors().keys()
    for name, tensor in tensors(value=value).items():
        assert torch.equal(file.state[name], tensor)


@pytest.mark.parametrize("wrapper", WRAPPERS)
@pytest.mark.parametrize("others", [{}, {"optimizer": {"state": {0: 1}}, "epoch": 3, "step": 7}])
def test_weights_in_each_wrapper_are_found(read, wrapper, others):
    file = read({**others, wrapper: tensors()})
    assert_tensors(file)
    assert (file.wrappers, file.prefixes) == ((wrapper,), ())
    assert file.averaged == (wrapper in AVERAGES)
    assert file.ordinary is file.note is None


@pytest.mark.parametrize("prefix", PREFIXES)
@pytest.mark.parametrize("inner", ["", *PREFIXES])
def test_two_prefixes_in_any_order_are_removed(read, prefix, inner):
    file = read(tensors(prefix + inner))
    assert_tensors(file)
    assert file.wrappers == ()
    assert file.prefixes == ((prefix, inner) if inner else (prefix,))
    assert file.averaged == bool(AVERAGES & {prefix, inner})


@pytest.mark.parametrize(
    ("stored", "wrappers", "prefixes"),
    [
        ({"model": {"state_dict": tensors("module.")}}, ("model", "state_dict"), ("module.",)),
        ({"state_dict": {"model": tensors()}, "epoch": 1}, ("state_dict", "model"), ()),
        (
            {"net": {"weights": {"params": tensors("module.module.generator.")}}},
            ("net", "weights", "params"),
            ("module.", "module.", "generator."),
        ),
        (OrderedDict(tensors("net_g._orig_mod.")), (), ("net_g.", "_orig_mod.")),
        ({"state_dict": {**tensors("generator."), "step_counter": torch.tensor(4)}},
         ("state_dict",), ("generator.",)),
        ({**tensors("model."), "loss.vgg.0.weight": torch.zeros(1)}, (), ("model.",)),
    ],
)  # fmt: skip
def test_nested_wrappers_and_prefixes_are_found(read, stored, wrappers, prefixes):
    file = read(stored)
    assert_tensors(file)
    assert (file.wrappers, file.prefixes) == (wrappers, prefixes)


@pytest.mark.parametrize(
    ("stored", "taken", "ordinary"),
    [
        ({"params": tensors(), "params_ema": tensors(value=2)}, "params_ema", "params"),
        (
            {"state_dict": tensors("module."), "ema_state_dict": tensors("module.", 2)},
            "ema_state_dict, module.",
            "state_dict, module.",
        ),
        (
            {"state_dict": {**tensors("generator."), **tensors("generator_ema.", 2)}},
            "state_dict, generator_ema.",
            "state_dict, generator.",
        ),
        (
            {
                **tensors("generator."),
                **tensors("generator_ema.module.", 2),
                "generator_ema.steps": torch.tensor(9),
                "discriminator.0.weight": torch.zeros(1),
            },
            "generator_ema., module.",
            "generator.",
        ),
        ({**tensors(), **tensors("ema.", 2)}, "ema.", "no prefix"),
        (
            {"online_model." + STEM: torch.zeros(2), **tensors("ema_model.", 2)},
            "ema_model.",
            "online_model.",
        ),
        ({"model": tensors(), "ema": {"state_dict": tensors(value=2)}}, "ema, state_dict", "model"),
        (
            {**tensors("module."), **tensors("module.ema_model.module.", 2)},
            "module., ema_model., module.",
            "module.",
        ),
        (
            {"model": tensors(), "net": tensors(), "params_ema": tensors(value=2)},
            "params_ema",
            "net and model",
        ),
    ],
)
def test_averaged_weights_are_preferred_to_ordinary_ones(read, stored, taken, ordinary):
    file = read(stored)
    assert_tensors(file, 2)
    assert file.averaged
    assert file.ordinary == ordinary
    assert file.note == (
        f"the averaged weights ({taken}) are taken, not the ordinary ones ({ordinary}) "
        "that the file also has"
    )


@pytest.mark.parametrize("more", [f"my_{STEM}", f"{STEM}_mask", f"model{STEM}", f"{STEM}.scale"])
def test_a_name_that_contains_that_of_the_first_tensor_is_no_prefix(read, more):
    file = read({**tensors(), more: torch.zeros(1)})
    assert file.state.keys() == {*tensors(), more}
    assert file.prefixes == ()


def test_mmengine_stores_the_average_as_state_dict(read):
    ordinary = {**tensors("module.generator."), "steps": torch.tensor(9)}
    file = read({"state_dict": tensors("generator.", 2), "ema_state_dict": ordinary, "meta": {}})
    assert_tensors(file, 2)
    assert file.averaged
    assert file.wrappers == ("state_dict",)
    assert file.ordinary == "ema_state_dict, module., generator., where MMEngine puts them"


@pytest.mark.parametrize("prefix", ["", "module."])
@pytest.mark.parametrize("counter", [torch.tensor(5), torch.tensor([5])])
def test_the_counter_of_an_average_is_ignored(read, prefix, counter):
    assert_tensors(read({**tensors(prefix), "n_averaged": counter}))
    assert_tensors(read({"state_dict": {**tensors(prefix), "n_averaged": counter}}))


def test_one_dictionary_under_two_names_counts_once(read):
    state = tensors()
    assert read({"net": state, "state_dict": state}).wrappers == ("state_dict",)


def test_a_dictionary_that_contains_itself_is_read(read):
    stored = {"state_dict": tensors()}
    stored["model"] = stored
    assert_tensors(read(stored))


def test_prefixes_are_removed_in_safetensors_too(tmp_path):
    path = tmp_path / "weights.safetensors"
    save_file({**tensors("params."), **tensors("params_ema.module.", 2)}, path)
    file = read_checkpoint(path)
    assert_tensors(file, 2)
    assert file.prefixes == ("params_ema.", "module.")
    assert file.ordinary == "params."


@pytest.mark.parametrize(
    ("stored", "message"),
    [
        (
            {"net": tensors(), "params": tensors("module.")},
            "contains 2 networks (params, module.), (net): save the state_dict() of one of them "
            "with torch.save",
        ),
        (
            {"ema": tensors(), "params_ema": tensors(), "params": tensors()},
            "contains 2 averaged networks (params_ema), (ema): save the state_dict() of one of "
            "them with torch.save",
        ),
        (
            {"netG": tensors("student."), "epoch": 1},
            f"has {STEM} under names that are not known (netG, student.): save the network's own "
            "state_dict() with torch.save",
        ),
        (
            {f"{STEM}_orig": torch.zeros(1), f"{STEM}_mask": torch.zeros(1)},
            f"has no {STEM} among its 2 tensors: give an IFRNet checkpoint",
        ),
        (
            {"state_dict": {"conv.weight": torch.zeros(1)}, "optimizer": {}},
            f"has no {STEM} among its 1 tensors: give an IFRNet checkpoint",
        ),
        (
            {"state_dict": {**tensors(), "epoch": 4}},
            "contains entries that are not tensors (epoch): save only the network's state_dict()",
        ),
        (
            {"optimizer": {}, "epoch": 4},
            "contains entries that are not tensors (optimizer, epoch): save only the network's "
            "state_dict()",
        ),
    ],
)
def test_ambiguous_or_unknown_contents_are_named(tmp_path, read, stored, message):
    with pytest.raises(CheckpointError) as error:
        read(stored)
    assert str(error.value) == f"{tmp_path / 'weights.pth'} {message}"
