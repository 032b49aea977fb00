"""One try to receive a file over HTTP, from where the last one broke off."""

from __future__ import annotations

import http.client
import json
import os
import re
import socket
import ssl
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from email.message import Message
from http.client import HTTPMessage
from pathlib import Path
from typing import IO, Any, NoReturn
from urllib.error import HTTPError, URLError
from urllib.parse import urlsplit

from ifrnet_model.errors import CheckpointError

try:
    from fcntl import LOCK_EX, LOCK_NB, flock
except ImportError:  # Windows: two downloads of one file at the same time are not kept apart.
    HAS_FLOCK = False
else:
    HAS_FLOCK = True

Progress = Callable[[int, "int | None"], object]
"""Called with the bytes that are there and those in all, None where the server does not say."""

_BLOCK = 1 << 16
_TIMEOUT_SECONDS = 30.0
_WAIT_AND_RETRY = (408, 425, 429, 500, 502, 503, 504)
_PAGE = re.compile(rb"\s*<(!doctype html|html)", re.IGNORECASE)


class TransferError(Exception):
    """The connection or the server failed in a way that another try may mend."""


class Partial:
    """The bytes that have come so far, and what the server called the file they are of.

    Attributes:
        path: `NAME.partial`; beside it `NAME.partial.json` keeps the URL and the validator
            (RFC 9110: a strong ETag, or else Last-Modified) that make resuming safe.
        url: Where the file comes from.
    """

    def __init__(self, path: Path, url: str) -> None:
        self.path = path
        self.url = url
        self._note = path.with_name(f"{path.name}.json")

    @property
    def size(self) -> int:
        """Bytes that are there; 0 without a file."""
        return self.path.stat().st_size if self.path.exists() else 0

    @property
    def validator(self) -> str | None:
        """What the bytes are of; None where they cannot be gone on from."""
        try:
            noted = json.loads(self._note.read_text())
            return str(noted["validator"]) if noted["url"] == self.url else None
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def begin(self, validator: str | None) -> None:
        """Forgets the bytes; the next are of what `validator` names."""
        self.drop()
        if validator is not None:
            self._note.write_text(json.dumps({"url": self.url, "validator": validator}))

    def drop(self) -> None:
        """Forgets all bytes; the file itself stays until the end of `held`, which locks it."""
        self._note.unlink(missing_ok=True)
        if self.path.exists():
            os.truncate(self.path, 0)

    @contextmanager
    def held(self, note: Callable[[str], object]) -> Iterator[None]:
        """Keeps other downloads away from the file; at the end removes it if it is empty.

        Args:
            note: Called with a sentence if the file system does not support locks.

        Raises:
            CheckpointError: If another download is writing the file.
            OSError: If the file cannot be created.
        """
        with self._locked(note) if HAS_FLOCK else nullcontext():
            try:
                yield
            finally:
                if self.size == 0:
                    self.path.unlink(missing_ok=True)

    def _locked(self, note: Callable[[str], object]) -> IO[bytes]:
        while True:
            file = self.path.open("ab")
            try:
                flock(file, LOCK_EX | LOCK_NB)
            except BlockingIOError as error:
                file.close()
                raise CheckpointError(
                    f"{self.path} is being written by another download: wait for it"
                ) from error
            except OSError as error:
                note(f"{self.path} is not locked ({error}): do not download it twice at a time")
            # Another download may have renamed or removed the file between the two calls.
            if self.path.exists() and os.path.samestat(os.fstat(file.fileno()), self.path.stat()):
                return file
            file.close()


def receive(partial: Partial, progress: Progress) -> None:
    """Receives the rest of a file, or all of it where the server no longer has the same.

    Raises:
        TransferError: If another try may help; what has come is kept.
        CheckpointError: If it will not.
        OSError: If the file cannot be written.
    """
    validator = partial.validator
    start = partial.size if validator else 0
    headers = {"User-Agent": "ifrnet-deploy"}
    if start and validator:
        headers |= {"Range": f"bytes={start}-", "If-Range": validator}
    try:
        response = _opener().open(
            urllib.request.Request(partial.url, headers=headers), timeout=_TIMEOUT_SECONDS
        )
    except HTTPError as error:
        with error:
            if error.code == 416 and _total_of(error.headers) == start:
                return  # Nothing is missing: the last try ended before it could know.
            _refused(error, partial)
    except (URLError, OSError, http.client.HTTPException) as error:
        _unreachable(error, partial.url)
    with response:
        first = _read(response)
        page = response.headers.get_content_type() in ("text/html", "application/xhtml+xml")
        if page or (response.status == 200 and _PAGE.match(first)):
            raise CheckpointError(
                f"{partial.url} gives a web page, not a file: it is a share page or asks for a "
                "login; save the file with a browser, or name a server that gives it directly"
            )
        start, total = _begin(response, partial, start)
        _append(first, response, partial, start, total, progress)


def _begin(response: Any, partial: Partial, start: int) -> tuple[int, int | None]:
    """Where the answer begins, and the bytes in all; what does not go on starts anew."""
    headers: Message = response.headers
    if response.status == 206:
        found = re.match(r"bytes (\d+)-", headers.get("Content-Range", ""))
        other = _validator(headers) not in (None, partial.validator)
        if found is None or int(found.group(1)) != start or other:
            partial.drop()
            raise TransferError("the server went on with another part or another file")
        return start, _total_of(headers)
    if response.status != 200:
        raise CheckpointError(f"{partial.url}: the server answered {response.status}, not 200")
    partial.begin(_validator(headers))
    length = headers.get("Content-Length", "")
    return 0, int(length) if length.isdigit() else None


def _append(
    block: bytes,
    response: IO[bytes],
    partial: Partial,
    start: int,
    total: int | None,
    progress: Progress,
) -> None:
    """Writes `block` and what follows it."""
    done = start
    with partial.path.open("ab") as file:
        while block:
            file.write(block)
            done += len(block)
            progress(done, total)
            block = _read(response)
        file.flush()
        os.fsync(file.fileno())
    if total is not None and done < total:
        raise TransferError(f"the connection broke off at {done} of {total} bytes")


def _read(response: IO[bytes]) -> bytes:
    try:
        return response.read(_BLOCK)
    except (OSError, http.client.HTTPException) as error:
        raise TransferError(f"the connection broke off ({_reason(error)})") from error


def _validator(headers: Message) -> str | None:
    """What If-Range may carry: weak tags may not."""
    tag: str | None = headers.get("ETag")
    modified: str | None = headers.get("Last-Modified")
    return tag if tag and not tag.startswith("W/") else modified


def _total_of(headers: Message) -> int | None:
    total = headers.get("Content-Range", "").rpartition("/")[2]
    return int(total) if total.isdigit() else None


def _refused(error: HTTPError, partial: Partial) -> NoReturn:
    """Turns an answer that is no file into an error.

    Raises:
        TransferError: If another try may help.
        CheckpointError: If it will not.
    """
    if error.code == 416:
        partial.drop()
        raise TransferError("the server's file has become shorter") from error
    if error.code in _WAIT_AND_RETRY:
        raise TransferError(f"the server answered {error.code} {error.reason}") from error
    if 300 <= error.code < 400:
        raise CheckpointError(
            f"{partial.url} leads to {error.headers.get('Location')}, which is not followed: only "
            "http and https are, ten times at most and never from https to http; name another "
            "server"
        ) from error
    raise CheckpointError(
        f"{partial.url}: the server answered {error.code} {error.reason}: look at the address"
    ) from error


def _unreachable(error: Exception, url: str) -> NoReturn:
    """Turns an error of the connection into one of ours.

    Raises:
        TransferError: If another try may help.
        CheckpointError: If it will not.
    """
    cause = error.reason if isinstance(error, URLError) else error
    hopeless = (socket.gaierror, ssl.SSLCertVerificationError, http.client.InvalidURL, str)
    if isinstance(cause, hopeless):
        raise CheckpointError(
            f"{url} cannot be reached ({cause}): look at the network, the proxy (https_proxy) "
            "and the address"
        ) from error
    raise TransferError(f"the server cannot be reached ({_reason(cause)})") from error


def _reason(error: object) -> str:
    return str(error) or type(error).__name__


class _Redirects(urllib.request.HTTPRedirectHandler):
    """Follows http and https only, and never from https to http."""

    def redirect_request(
        self,
        req: urllib.request.Request,
        fp: IO[bytes],
        code: int,
        msg: str,
        headers: HTTPMessage,
        newurl: str,
    ) -> urllib.request.Request | None:
        old, new = urlsplit(req.full_url).scheme, urlsplit(newurl).scheme
        if new not in ("http", "https") or (old == "https" and new == "http"):
            raise HTTPError(req.full_url, code, msg, headers, fp)
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _opener() -> urllib.request.OpenerDirector:
    """The usual one without file:, ftp: and data:."""
    opener = urllib.request.OpenerDirector()
    for handler in (
        urllib.request.ProxyHandler,
        urllib.request.UnknownHandler,
        urllib.request.HTTPHandler,
        urllib.request.HTTPSHandler,
        urllib.request.HTTPDefaultErrorHandler,
        urllib.request.HTTPErrorProcessor,
        _Redirects,
    ):
        opener.add_handler(handler())
    return opener
