import argparse

import pytest

from export.build_engine import make_parser as build_parser
from export.triton.__main__ import make_parser as triton_parser
from runtime.cli.arguments import gpu_index, parse_device, parse_size
from runtime.video.arguments import parse_cuts, parse_factor


def test_a_size_is_height_x_width():
    assert parse_size("256x448") == parse_size("256X448") == (256, 448)


@pytest.mark.parametrize("text", ["448", "448,256", "x448", "-1x5", "256x"])
def test_the_error_for_an_invalid_size_explains_the_form(text):
    with pytest.raises(argparse.ArgumentTypeError) as refused:
        parse_size(text)
    assert str(refused.value) == (
        f"{text!r} is not a size: write HEIGHTxWIDTH, for example 256x448 for frames 448 wide and "
        "256 high"
    )


def test_a_device_is_cpu_or_a_gpu_with_or_without_a_number():
    assert [parse_device(text) for text in ("cpu", "cuda", "cuda:12")] == ["cpu", "cuda", "cuda:12"]
    assert [gpu_index(text) for text in ("cpu", "cuda", "cuda:12")] == [None, None, 12]


@pytest.mark.parametrize("text", ["gpu", "0", "cuda:", "cuda:-1", "cpu:0", "CUDA"])
def test_other_devices_are_refused(text):
    with pytest.raises(argparse.ArgumentTypeError, match=r"is not a device: write cpu, cuda or"):
        parse_device(text)


@pytest.mark.parametrize(("text", "index"), [("cuda", 0), ("cuda:3", 3), ("3", 3)])
def test_an_engine_is_built_on_a_gpu_by_device_or_number(text, index):
    arguments = ["--weights", "demo", "--output", "m.engine", "--device", text]
    assert build_parser().parse_args(arguments).device == index


def test_no_engine_is_built_on_a_cpu(capsys):
    with pytest.raises(SystemExit):
        build_parser().parse_args(["--weights", "demo", "--output", "m", "--device", "cpu"])
    assert "cpu cannot hold an engine: write cuda or cuda:N" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("text", "device"), [("cpu", "cpu"), ("cuda", "cuda"), ("gpu", "cuda"), ("cuda:1", "cuda:1")]
)
def test_a_served_model_has_a_device_of_the_same_grammar(text, device):
    arguments = ["--model", "m.onnx", "--output", "repository", "--device", text]
    assert triton_parser().parse_args(arguments).device == device


def test_a_factor_is_a_number():
    assert [parse_factor(text) for text in ("2", "3.0", "2.5")] == [2, 3, 2.5]
    assert type(parse_factor("3.0")) is int
    with pytest.raises(argparse.ArgumentTypeError, match="write a whole number, 2 or more, or use"):
        parse_factor("two")


def test_scene_cuts_are_switched_off_by_a_word():
    assert parse_cuts("none") == parse_cuts("0") == 0
    assert parse_cuts("7.5") == 7.5
    with pytest.raises(argparse.ArgumentTypeError, match="or none for no scene cuts"):
        parse_cuts("never")
