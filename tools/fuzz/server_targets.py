"""A server of Triton's protocol that answers with anything, and the client that must bear it."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from random import Random
from typing import Any, NamedTuple

import grpc
import numpy as np
from tritonclient.grpc import model_config_pb2, service_pb2, service_pb2_grpc

from fuzz.mutate import TEXTS
from fuzz.outcomes import Target, WrongResultError
from runtime import Interpolator
from runtime.backends.triton.backend import config_ports
from runtime.model_info import ModelInfo

SIZE = 16, 32
INFO = ModelInfo(
    variant="small", weights_sha256="0" * 64, precision="fp32", io="frames", divisor=16,
    flow_scale=1.0, time_steps="arbitrary", steps_per_call=1, pairs_per_call=1, height=SIZE[0],
    width=SIZE[1], warp="gridsample", tuned_for="any", tool_version="0",
)  # fmt: skip
TIMEOUT_S = 0.5

Answer = Callable[[Any], Any]


class Service(service_pb2_grpc.GRPCInferenceServiceServicer):
    """Answers each call by its name with `answers`, or else as a good server.

    Attributes:
        answers: Name of a call -> a function of the good answer, which returns the one to send.
    """

    def __init__(self) -> None:
        self.answers: dict[str, Answer] = {}

    def _answer(self, name: str, good: Any) -> Any:
        return self.answers.get(name, lambda one: one)(good)

    def ModelReady(self, *_: Any) -> Any:  # noqa: N802
        """Says that the model is ready."""
        return self._answer("ModelReady", service_pb2.ModelReadyResponse(ready=True))

    def RepositoryIndex(self, *_: Any) -> Any:  # noqa: N802
        """Names one model."""
        index = service_pb2.RepositoryIndexResponse()
        index.models.add(name="m", state="READY")
        return self._answer("RepositoryIndex", index)

    def ServerMetadata(self, *_: Any) -> Any:  # noqa: N802
        """States the version."""
        return self._answer("ServerMetadata", service_pb2.ServerMetadataResponse(version="2.0"))

    def ModelConfig(self, *_: Any) -> Any:  # noqa: N802
        """Gives the configuration that `export.triton` writes."""
        config = model_config_pb2.ModelConfig(name="m")
        for name, port in config_ports(INFO).items():
            ports = config.output if name == "imgt" else config.input
            kind = model_config_pb2.DataType.Value(port.type)
            ports.add(name=name, data_type=kind, dims=port.dims)
        for key, text in INFO.to_properties().items():
            config.parameters[key].string_value = text
        return self._answer("ModelConfig", service_pb2.ModelConfigResponse(config=config))

    def ModelInfer(self, request: Any, _: Any) -> Any:  # noqa: N802
        """Returns the first frame."""
        response = service_pb2.ModelInferResponse(model_name="m")
        first = request.inputs[0]
        response.outputs.add(name="imgt", datatype=first.datatype, shape=first.shape)
        response.raw_output_contents.append(request.raw_input_contents[0])
        return self._answer("ModelInfer", response)


@contextlib.contextmanager
def serving() -> Iterator[tuple[Service, str]]:
    """Starts a server on a free port; yields its service and the address of its model."""
    unlimited = [("grpc.max_send_message_length", -1), ("grpc.max_receive_message_length", -1)]
    server = grpc.server(ThreadPoolExecutor(8), options=unlimited)
    service = Service()
    service_pb2_grpc.add_GRPCInferenceServiceServicer_to_server(service, server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        yield service, f"triton://127.0.0.1:{port}/m?timeout={TIMEOUT_S}"
    finally:
        server.stop(None)


def silent(_: Any) -> Any:
    """Answers after the timeout of the client."""
    time.sleep(3 * TIMEOUT_S)
    raise ValueError("too late")


def broken(_: Any) -> Any:
    """Fails in the server, whose answer is then a status with the text."""
    raise ValueError("\x1b[31mno\x07 " + "x" * 3000)


def huge(answer: Any) -> Any:
    """A result of 64 MiB in place of a small one."""
    if isinstance(answer, service_pb2.ModelInferResponse):
        answer.raw_output_contents[0] = bytes(64 << 20)
    else:
        answer = type(answer)()
        answer.ParseFromString(b"\x7a\x80\x80\x80\x20" + bytes(64 << 20))  # An unknown field.
    return answer


def _mutated(rng: Random) -> Answer:
    """Changes fields of an answer at random."""

    def change(answer: Any) -> Any:
        for _ in range(rng.randint(1, 3)):
            _change(rng, answer)
        return answer

    return change


def _change(rng: Random, message: Any) -> None:
    if not hasattr(message, "DESCRIPTOR") or not message.DESCRIPTOR.fields:
        return
    field = rng.choice(message.DESCRIPTOR.fields)
    value = getattr(message, field.name)
    if field.message_type is not None:
        inner = value
        if isinstance(value, dict) or hasattr(value, "keys"):
            keys = sorted(value)
            inner = value[rng.choice(keys)] if keys else value[rng.choice(TEXTS[:4])]
        elif hasattr(value, "add"):
            inner = rng.choice(value) if len(value) and rng.random() < 0.8 else value.add()
        if rng.random() < 0.2:
            message.ClearField(field.name)
        else:
            _change(rng, inner)
        return
    numbers = (0, 1, -1, 2, 3, 16, 32, 2**31 - 1)
    texts = [text for text in TEXTS if "\ud800" not in text]
    kinds: dict[Any, Any] = {
        field.CPPTYPE_STRING: rng.choice(texts) if field.type == field.TYPE_STRING else b"12",
        field.CPPTYPE_BOOL: rng.random() < 0.5,
    }
    new = kinds.get(field.cpp_type, rng.choice(numbers))
    with contextlib.suppress(TypeError, ValueError):  # A value that this type cannot have.
        if hasattr(value, "append"):
            if len(value) and rng.random() < 0.7:
                del value[rng.randrange(len(value))]
            else:
                value.append(new)
        else:
            setattr(message, field.name, new)


class _Running(NamedTuple):
    service: Service
    address: str
    keep: contextlib.ExitStack


def _prepare(folder: Path) -> _Running:
    del folder
    keep = contextlib.ExitStack()
    service, address = keep.enter_context(serving())
    return _Running(service, address, keep)


def _triton(made: _Running, rng: Random) -> None:
    calls = ("ModelReady", "RepositoryIndex", "ServerMetadata", "ModelConfig", "ModelInfer")
    kinds = (_mutated(rng),) * 20 + (broken, huge)
    if rng.random() < 0.05:
        kinds = (silent,)
    chosen = rng.sample(calls, rng.randint(1, 2)) if rng.random() < 0.5 else [rng.choice(calls[3:])]
    made.service.answers = {name: rng.choice(kinds) for name in chosen}
    frame = np.random.default_rng(0).integers(0, 256, (*SIZE, 3), np.uint8)
    began = time.monotonic()
    try:
        with Interpolator.open(made.address) as vfi:
            result = vfi.interpolate(frame, frame)
        if result.shape != frame.shape or result.dtype != frame.dtype:
            raise WrongResultError(f"a result of {result.dtype} {result.shape}")
    finally:
        if time.monotonic() - began > 20 * TIMEOUT_S:
            raise WrongResultError("the timeout did not end the call")


TARGETS = (Target("Triton server", _prepare, _triton, weight=0.7),)
