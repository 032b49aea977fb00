"""A server that answers with other shapes, huge messages, silence and failures."""

import numpy as np
import pytest

pytest.importorskip("tritonclient.grpc")

from fuzz.server_targets import SIZE, broken, huge, serving, silent
from runtime import BackendError, InterpolationError, Interpolator, ModelError

FRAME = np.random.default_rng(0).integers(0, 256, (*SIZE, 3), np.uint8)


@pytest.fixture(scope="module")
def server():
    with serving() as started:
        yield started


def interpolated(server, **answers):
    """The result for two equal frames. Only a silent server is not waited for."""
    service, address = server
    service.answers = answers
    if silent not in answers.values():
        address, _, _ = address.partition("?")
    with Interpolator.open(address) as vfi:
        return vfi.interpolate(FRAME, FRAME)


def changed(change):
    """An answer that `change` has changed."""

    def answer(good):
        change(good)
        return good

    return answer


def outputs(**fields):
    def change(good):
        for name, value in fields.items():
            if name == "shape":
                good.outputs[0].shape[:] = value
            else:
                setattr(good.outputs[0], name, value)

    return changed(change)


def test_a_good_server_is_understood(server):
    np.testing.assert_array_equal(interpolated(server), FRAME)


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (changed(lambda good: good.ClearField("outputs")), "with no image, not UINT8 of shape"),
        (outputs(name="other"), "with no image, not UINT8 of shape"),
        (outputs(datatype="FP32"), r"with FP32 of shape \(1, 16, 32, 3\), not UINT8"),
        (outputs(datatype="\x1b[31m"), r"with .* of shape \(1, 16, 32, 3\), not UINT8"),
        (outputs(shape=[1, 16, 32, 1]), r"with UINT8 of shape \(1, 16, 32, 1\), not UINT8"),
        (outputs(shape=[-1, 16, 32, 3]), r"with UINT8 of shape \(-1, 16, 32, 3\), not UINT8"),
        (outputs(shape=[2**40] * 4), r"with UINT8 of shape \(1099511627776, .*\), not UINT8"),
        (outputs(shape=range(1000)), r"with UINT8 of shape \(0, 1, 2, 3, 4, 5, \.\.\.\), not"),
        (changed(lambda good: good.ClearField("raw_output_contents")), "an incomplete image"),
        (
            changed(lambda good: good.raw_output_contents.__setitem__(0, b"short")),
            r"an incomplete image \(cannot reshape array of size 5",
        ),
        (huge, r"larger than max \(\d+ vs\. \d+\)"),
        (broken, "refused a request to m"),
        (silent, r"did not answer in 0\.5 s: raise the limit with \?timeout=S"),
    ],
)
def test_a_bad_result_is_one_sentence(server, answer, message):
    with pytest.raises(BackendError, match=message) as error:
        interpolated(server, ModelInfer=answer)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("call", ["ModelReady", "ModelConfig", "ServerMetadata"])
@pytest.mark.parametrize("answer", [huge, broken, silent])
def test_a_bad_answer_while_opening_is_one_sentence(server, call, answer):
    with pytest.raises(InterpolationError) as error:
        interpolated(server, **{call: answer})
    assert "\n" not in str(error.value)


def test_an_unknown_type_in_a_configuration_is_named(server):
    def change(good):
        good.config.input[0].data_type = 99

    with pytest.raises(ModelError, match=r"type='99'.*, its parameters declare "):
        interpolated(server, ModelConfig=changed(change))


def test_a_model_with_one_input_is_refused(server):
    def change(good):
        good.config.parameters["ifrnet.io"].string_value = "stacked"

    with pytest.raises(ModelError, match=r"has both frames in one input, for filters of video fr"):
        interpolated(server, ModelConfig=changed(change))


@pytest.mark.parametrize(
    ("count", "named"),
    [(0, "m: load"), (19, "m, n00, .*, n18: load"), (50, "m, n00, .*, n18 and 31 more: load")],
)
def test_many_models_are_not_all_named(server, count, named):
    def many(good):
        for number in range(count):
            good.models.add(name=f"n{number:02}", state="READY")

    def not_ready(good):
        good.ready = False

    with pytest.raises(BackendError, match=f"it has {named}"):
        interpolated(server, ModelReady=changed(not_ready), RepositoryIndex=changed(many))
