"""The address of a model on a Triton server: triton://HOST[:PORT]/MODEL[/VERSION][?OPTIONS]."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args
from urllib.parse import parse_qsl, urlsplit

from runtime.backends.base import TRITON_SCHEME
from runtime.errors import ModelError

DEFAULT_PORT = 8001
"""Triton's default port for gRPC."""

MemoryKind = Literal["none", "system", "cuda"]

_TIMEOUT_S = 120.0
_USAGE = "write triton://HOST[:PORT]/MODEL[/VERSION][?shared_memory=system|cuda&timeout=S]"


@dataclass(frozen=True)
class Address:
    """The address of a model on a Triton server.

    Attributes:
        server: "host:port" of gRPC.
        model: Name of the model.
        version: Version of the model; "" for the server's choice, which is the newest.
        memory: How frames reach the server: "none" to send them in the request, "system" or "cuda"
            for shared memory on the server's machine.
        timeout: Limit of the time of a request, in seconds.
    """

    server: str
    model: str
    version: str = ""
    memory: MemoryKind = "none"
    timeout: float = _TIMEOUT_S

    @classmethod
    def parse(cls, url: str) -> Address:
        """Parses triton://HOST[:PORT]/MODEL[/VERSION][?shared_memory=system|cuda&timeout=S].

        Raises:
            ModelError: If `url` is not such an address.
        """
        parts = urlsplit(url)
        path = parts.path.strip("/").split("/")
        options = dict(parse_qsl(parts.query, keep_blank_values=True))
        memory = options.pop("shared_memory", "none")
        try:
            timeout = float(options.pop("timeout", _TIMEOUT_S))
            port = parts.port or DEFAULT_PORT
        except ValueError as error:
            raise ModelError(f"{url} has no number where one is expected: {_USAGE}") from error
        if (
            not url.startswith(TRITON_SCHEME)
            or not parts.hostname
            or not path[0]
            or len(path) > 2
            or not (len(path) == 1 or path[1].isdigit())
            or memory not in get_args(MemoryKind)
            or not timeout > 0
            or options
        ):
            raise ModelError(f"{url} is not an address of a served model: {_USAGE}")
        host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
        version = path[1] if len(path) == 2 else ""
        return cls(f"{host}:{port}", path[0], version, memory, timeout)  # type: ignore[arg-type]
