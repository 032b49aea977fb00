"""The address of a served model: triton://HOST[:PORT]/MODEL[/VERSION][?OPTIONS]."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args
from urllib.parse import parse_qsl, urlsplit

from runtime.backends.base import SERVED
from runtime.errors import ModelError

PORT = 8001
"""Triton's own for gRPC."""

MemoryKind = Literal["none", "system", "cuda"]

_TIMEOUT_S = 120.0
_FORM = "write triton://HOST[:PORT]/MODEL[/VERSION][?shared_memory=system|cuda&timeout=S]"


@dataclass(frozen=True)
class Address:
    """Where a model is served.

    Attributes:
        server: "host:port" of gRPC.
        model: Its name.
        version: "" for the server's choice, the newest.
        memory: How frames reach the server: sent, or through shared memory on its machine.
        timeout: Seconds that a request may take.
    """

    server: str
    model: str
    version: str = ""
    memory: MemoryKind = "none"
    timeout: float = _TIMEOUT_S

    @classmethod
    def parse(cls, url: str) -> Address:
        """Reads triton://HOST[:PORT]/MODEL[/VERSION][?shared_memory=system|cuda&timeout=S].

        Raises:
            ModelError: If it is not such an address.
        """
        parts = urlsplit(url)
        path = parts.path.strip("/").split("/")
        options = dict(parse_qsl(parts.query, keep_blank_values=True))
        memory = options.pop("shared_memory", "none")
        try:
            timeout = float(options.pop("timeout", _TIMEOUT_S))
            port = parts.port or PORT
        except ValueError as error:
            raise ModelError(f"{url} has no number where one is expected: {_FORM}") from error
        if (
            not url.startswith(SERVED)
            or not parts.hostname
            or not path[0]
            or len(path) > 2
            or not (len(path) == 1 or path[1].isdigit())
            or memory not in get_args(MemoryKind)
            or not timeout > 0
            or options
        ):
            raise ModelError(f"{url} is no address of a served model: {_FORM}")
        host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
        version = path[1] if len(path) == 2 else ""
        return cls(f"{host}:{port}", path[0], version, memory, timeout)  # type: ignore[arg-type]
