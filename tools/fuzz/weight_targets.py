"""Checkpoints, and servers that send them."""

from __future__ import annotations

import hashlib
import socket
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from random import Random
from typing import Any, NamedTuple

import torch

from fuzz.mutate import TEXTS, mutated
from fuzz.outcomes import Target, WrongResultError
from ifrnet_model.checkpoint import load_checkpoint, read_checkpoint
from ifrnet_model.errors import CheckpointError
from ifrnet_model.weights import table
from ifrnet_model.weights.download import download_checkpoint

_NAME = "IFRNet_fuzz.pth"


class _File(NamedTuple):
    path: Path
    content: bytes


def _prepare_pytorch(*, zipped: bool) -> Callable[[Path], _File]:
    def prepare(folder: Path) -> _File:
        path = folder / "weights.pth"
        state = {name: tensor.half() for name, tensor in read_checkpoint("demo").state.items()}
        torch.save(state, path, _use_new_zipfile_serialization=zipped)
        return _File(path, path.read_bytes())

    return prepare


def _prepare_safetensors(folder: Path) -> _File:
    return _File(folder / "weights.safetensors", table.DEMO_WEIGHTS.read_bytes())


def _checkpoint(made: _File, rng: Random) -> None:
    """A mutated checkpoint; the bytes of its weights are not protected by the formats."""
    made.path.write_bytes(mutated(rng, made.content))
    load_checkpoint(made.path)


class _Server(NamedTuple):
    folder: Path
    server: ThreadingHTTPServer
    content: bytes


def _prepare_server(folder: Path) -> _Server:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.server.reply(self)  # type: ignore[attr-defined]

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return _Server(folder, server, b"PK\x03\x04" + bytes(range(256)) * 64)


def _replies(rng: Random, content: bytes) -> Callable[[Any], None]:
    """A server that sends parts, other lengths, redirects, other bytes, or nothing."""
    codes = (200, 200, 200, 206, 301, 302, 308, 404, 416, 429, 500, 999)
    headers = ("Content-Length", "Content-Range", "ETag", "Last-Modified", "Location",
               "Content-Type", "Content-Encoding", "Transfer-Encoding")  # fmt: skip
    values = (*TEXTS, "bytes 0-9/10", "bytes 5-/*", "bytes */5", '"1"', 'W/"1"', "text/html",
              "http://[::1", "//", "http://127.0.0.1:1/", "/again", "chunked", "gzip")  # fmt: skip
    seed = rng.random()

    def reply(handler: Any) -> None:
        own = Random(seed)
        if own.random() < 0.1:
            handler.connection.shutdown(socket.SHUT_RDWR)
            return
        handler.send_response(own.choice(codes))
        for name in own.sample(headers, own.randint(0, 3)):
            value = own.choice(values)[:2000].replace("\n", " ").replace("\r", " ")
            handler.send_header(name, value.encode("utf-8", "replace").decode("latin-1"))
        handler.end_headers()
        body = content if own.random() < 0.5 else mutated(own, content)
        handler.wfile.write(body[: own.choice((0, 10, len(body), len(body)))])

    return reply


def _download(made: _Server, rng: Random) -> None:
    made.server.reply = _replies(rng, made.content)  # type: ignore[attr-defined]
    known = table.KnownCheckpoint(
        name=_NAME, publisher="mmagic", variant="base", training_set="none",
        time_steps="midpoint", licence="none", place="this machine", megabytes=0.1,
        sha256=hashlib.sha256(made.content).hexdigest(),
        url=f"http://127.0.0.1:{made.server.server_port}/{_NAME}",
    )  # fmt: skip
    for file in made.folder.iterdir():
        file.unlink()
    published, table.CHECKPOINTS = table.CHECKPOINTS, (known,)
    try:
        done = download_checkpoint(_NAME, made.folder, mirror="", pauses=(0,))
    except CheckpointError:
        if (made.folder / _NAME).exists():
            raise WrongResultError("a refused download has its final name") from None
        raise
    finally:
        table.CHECKPOINTS = published
    if done.path.read_bytes() != made.content:
        raise WrongResultError("another file was accepted")


TARGETS = (
    Target("checkpoint, zip", _prepare_pytorch(zipped=True), _checkpoint, weight=2),
    Target("checkpoint, legacy", _prepare_pytorch(zipped=False), _checkpoint, weight=2),
    Target("checkpoint, safetensors", _prepare_safetensors, _checkpoint, weight=2),
    Target("download", _prepare_server, _download),
)
