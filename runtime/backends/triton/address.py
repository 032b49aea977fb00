"""The address of a model on a Triton server: triton://HOST[:PORT]/MODEL[/VERSION][?OPTIONS]."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal, get_args
from urllib.parse import parse_qsl, urlsplit

from runtime.backends.base import TRITON_SCHEME
from runtime.errors import ModelError

DEFAULT_PORT = 8001
"""Triton's default port for gRPC."""

MemoryKind = Literal["none", "system", "cuda"]

_TIMEOUT_S = 120.0
_LONGEST_TIMEOUT_S = 86400
_HOST = re.compile(r"[\w.:%-]+", re.ASCII)
_VERSION = re.compile(r"[0-9]{1,19}")
"""Triton stores a version in 64 bits."""

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
        not_an_address = ModelError(f"{url} is not an address of a served model: {_USAGE}")
        try:
            parts = urlsplit(url)
            path = parts.path.strip("/").split("/")
            options = dict(parse_qsl(parts.query, keep_blank_values=True))
        except ValueError as error:  # For a host with brackets that do not match.
            raise not_an_address from error
        memory = options.pop("shared_memory", "none")
        try:
            timeout = float(options.pop("timeout", _TIMEOUT_S))
            port = DEFAULT_PORT if parts.port is None else parts.port
        except ValueError as error:
            raise ModelError(f"{url} has no number where one is expected: {_USAGE}") from error
        host = parts.hostname or ""
        if (
            not url.startswith(TRITON_SCHEME)
            or not url.isprintable()
            or not _HOST.fullmatch(host)
            or port == 0
            or "@" in parts.netloc
            or parts.fragment
            or not path[0]
            or len(path) > 2
            or not (len(path) == 1 or _VERSION.fullmatch(path[1]))
            or memory not in get_args(MemoryKind)
            or options
        ):
            raise not_an_address
        if not 0 < timeout <= _LONGEST_TIMEOUT_S:
            raise ModelError(
                f"{url} has a timeout of {timeout:g} s, it is above 0 and {_LONGEST_TIMEOUT_S} at "
                f"most: {_USAGE}"
            )
        host = f"[{host}]" if ":" in host else host
        version = path[1] if len(path) == 2 else ""
        return cls(f"{host}:{port}", path[0], version, memory, timeout)  # type: ignore[arg-type]
