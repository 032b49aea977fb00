"""Downloads a known checkpoint over HTTP: resumes, checks and renames it. Imports no PyTorch.

Proxies are those of the environment (http_proxy, https_proxy, no_proxy).
"""

from __future__ import annotations

import hashlib
import http.client
import os
import re
import shutil
import socket
import ssl
import time
from collections.abc import Callable, Sequence
from email.message import Message
from http.client import HTTPMessage
from pathlib import Path
from typing import IO, Any, NamedTuple
from urllib.error import HTTPError, URLError
from urllib.parse import urlsplit
from urllib.request import HTTPRedirectHandler, Request, build_opener

from ifrnet_model.errors import CheckpointError
from ifrnet_model.weights.partial_file import PartialFile, opened_to_append
from ifrnet_model.weights.table import DEMO_WEIGHTS, KnownCheckpoint, checkpoint_named

MIRROR = "IFRNET_WEIGHTS_MIRROR"
"""Environment variable: the base URL of a server that has the checkpoints under their names."""

DownloadProgress = Callable[[int, "int | None"], object]
"""Called with the bytes received so far and the total, None if the server does not send it."""

_PAUSES = (1.0, 2.0, 4.0, 8.0, 16.0)
_TIMEOUT_SECONDS = 30.0
_BLOCK = 1 << 16
_RETRIED_STATUS = (408, 425, 429, 500, 502, 503, 504)
_PERMANENT_ERRORS = (socket.gaierror, ssl.SSLCertVerificationError, http.client.InvalidURL, str)
_NONSENSE = (ValueError, OverflowError)
"""Raised by urllib for a host that cannot be one, and for a length that no memory can have."""

_WEB_PAGE = re.compile(rb"\s*<(!doctype html|html)", re.IGNORECASE)

_SIZE_TOLERANCE = 0.05
"""The sizes in the table are rounded, and pickles of one network differ by a few kB."""

_MOST_MEGABYTES = 1000.0
"""Limit of the size of a file whose size is not in the table."""

_DIGITS = re.compile(r"[0-9]{1,18}")
"""A size in a header. int() accepts other digits and more of them, and then fails or is slow."""

_PYTORCH_BEGINNINGS = (b"PK\x03\x04", b"\x80\x02")
"""A PyTorch file is a zip archive, or a pickle if PyTorch was older than 1.6."""


class Download(NamedTuple):
    """A checkpoint file that `download_checkpoint` downloaded or found.

    Attributes:
        path: The file.
        known: Its entry in the table of known checkpoints.
        sha256: The SHA-256 of the file, 64 hexadecimal digits.
        existed: Whether the file existed and was valid, so that nothing was downloaded.
    """

    path: Path
    known: KnownCheckpoint
    sha256: str
    existed: bool


def download_checkpoint(
    name: str,
    folder: str | Path = ".",
    *,
    mirror: str | None = None,
    force: bool = False,
    progress: DownloadProgress = lambda *_: None,
    note: Callable[[str], object] = lambda _: None,
    pauses: Sequence[float] = _PAUSES,
) -> Download:
    """Downloads a known checkpoint into a folder, unless the folder has a valid file already.

    Until the file is complete and checked, its name is `NAME.partial`. A later call resumes it if
    the server still has the same file.

    Args:
        name: A name that `checkpoint_named` accepts.
        folder: Created if it is missing.
        mirror: Base URL; by default that of the environment, else the publisher's own URL.
        force: Replaces an existing file.
        progress: Called after each block.
        note: Called with a sentence for the user, for example before a retry.
        pauses: Seconds to wait before each retry after a lost connection.

    Raises:
        CheckpointError: If the name is unknown, no URL is known, the server does not send the
            file, the file fails its check, another file has its name, or another download is
            writing it.
        OSError: If the file cannot be written.
    """
    known = checkpoint_named(name)
    target = Path(folder) / known.name
    if target.exists() and not force:
        sha256 = hashlib.sha256(target.read_bytes()).hexdigest()
        if problem := _problem(known, target, sha256):
            raise CheckpointError(
                f"{target} exists already and {problem}: move it away, or replace it with "
                "--overwrite"
            )
        return Download(target, known, sha256, existed=True)
    shipped = known.name == DEMO_WEIGHTS.name
    url = "" if shipped else _url(known, os.environ.get(MIRROR) if mirror is None else mirror)
    target.parent.mkdir(parents=True, exist_ok=True)
    most = (1 + _SIZE_TOLERANCE) * (known.megabytes or _MOST_MEGABYTES) * 1e6
    partial = PartialFile(target.with_name(f"{target.name}.partial"), url, int(most))
    with partial.locked(note):
        if shipped:
            shutil.copyfile(DEMO_WEIGHTS, partial.path)
        else:
            _receive_with_retries(partial, progress, note, pauses)
        sha256 = hashlib.sha256(partial.path.read_bytes()).hexdigest()
        if problem := _problem(known, partial.path, sha256):
            partial.clear()
            raise CheckpointError(
                f"the file from {url or DEMO_WEIGHTS} {problem}, and was deleted: try again, or "
                f"set {MIRROR} to another server"
            )
        partial.path.replace(target)
        partial.clear()
    return Download(target, known, sha256, existed=False)


def _url(known: KnownCheckpoint, mirror: str | None) -> str:
    if mirror:
        try:
            parts = urlsplit(mirror)
        except ValueError:
            parts = urlsplit("")
        if parts.scheme not in ("http", "https") or not parts.netloc:
            raise CheckpointError(
                f"{MIRROR} is {mirror}: give a base URL, such as https://host/folder/"
            )
        return f"{mirror.rstrip('/')}/{known.name}"
    if known.url is None:
        raise CheckpointError(
            f"{known.name} cannot be downloaded directly, its publisher offers it on a share page "
            f"({known.place}): save it with a browser and give the file to --weights of python -m "
            f"export.build_engine, or set {MIRROR} to a server that has it"
        )
    return known.url


def _problem(known: KnownCheckpoint, path: Path, sha256: str) -> str | None:
    """The reason to reject a file, as the end of a sentence; None for a valid one.

    Without a published hash only the size and the first bytes are checked.
    """
    if known.sha256 is not None:
        if sha256.startswith(known.sha256):
            return None
        return f"has sha256 {sha256[:12]}..., not {known.sha256[:12]}... as published"
    megabytes = path.stat().st_size / 1e6
    if known.megabytes and abs(megabytes / known.megabytes - 1) > _SIZE_TOLERANCE:
        return f"has {megabytes:.1f} MB, not {known.megabytes} MB as published"
    with path.open("rb") as file:
        beginning = file.read(16)
    if not beginning.startswith(_PYTORCH_BEGINNINGS):
        return f"is not a PyTorch file, it begins with {beginning!r}"
    return None


class _TransferError(Exception):
    """The connection or the server failed in a way that a retry may fix."""


def _receive_with_retries(
    partial: PartialFile,
    progress: DownloadProgress,
    note: Callable[[str], object],
    pauses: Sequence[float],
) -> None:
    for pause in (*pauses, None):
        try:
            _receive(partial, progress)
            return
        except _TransferError as error:
            if pause is None:
                size = partial.size if partial.validator else 0
                resume = f"; the first {size} bytes are kept in {partial.path}" if size else ""
                raise CheckpointError(
                    f"{partial.url}: {error}, in the last of {len(pauses) + 1} attempts{resume}: "
                    "check the network and run the command again"
                ) from error
            note(f"{error}; trying again in {pause:g} s")
            time.sleep(pause)


def _receive(partial: PartialFile, progress: DownloadProgress) -> None:
    """Receives the rest of the file, or all of it if the server has another version meanwhile.

    Raises:
        _TransferError: If a retry may help; the bytes received so far are kept.
        CheckpointError: If a retry would not help.
        OSError: If the file cannot be written.
    """
    validator = partial.validator
    start = partial.size if validator else 0
    request = Request(partial.url, headers={"User-Agent": "ifrnet-deploy"})
    if start and validator:
        request.add_header("Range", f"bytes={start}-")
        request.add_header("If-Range", validator)
    try:
        response = build_opener(_HttpRedirects).open(request, timeout=_TIMEOUT_SECONDS)
    except HTTPError as error:
        with error:
            if error.code == 416 and _total_size(error.headers) == start:
                return  # The file was complete already when the last attempt ended.
            raise _status_error(error, partial) from error
    except (OSError, http.client.HTTPException) as error:
        raise _connection_error(error, partial.url) from error
    except _NONSENSE as error:
        raise CheckpointError(
            f"{partial.url} is not an address, or redirects to none ({error}): set {MIRROR} to "
            "another server"
        ) from error
    with response:
        block = _read(response)
        page = response.headers.get_content_type() in ("text/html", "application/xhtml+xml")
        if page or (response.status == 200 and _WEB_PAGE.match(block)):
            raise CheckpointError(
                f"{partial.url} is a web page, such as a share page or a login, not a file: save "
                f"the file with a browser, or set {MIRROR} to a server that has it"
            )
        received, total = _begin(response, partial, start)
        with opened_to_append(partial.path) as file:
            while block:
                file.write(block)
                received += len(block)
                if received > partial.most:
                    partial.clear()
                    raise CheckpointError(
                        f"{partial.url} sends more than {partial.most} bytes, the limit for this "
                        f"file: set {MIRROR} to another server"
                    )
                progress(received, total)
                block = _read(response)
            file.flush()
            os.fsync(file.fileno())
    if total is not None and received < total:
        raise _TransferError(f"the connection broke off at {received} of {total} bytes")


def _begin(response: Any, partial: PartialFile, start: int) -> tuple[int, int | None]:
    """The offset of the body in the file, 0 if the file is restarted, and the size of the file."""
    headers: Message = response.headers
    if response.status == 206:
        content_range = re.match(r"bytes ([0-9]{1,18})-", headers.get("Content-Range", ""))
        other_version = _validator(headers) not in (None, partial.validator)
        if content_range is None or int(content_range.group(1)) != start or other_version:
            partial.clear()
            raise _TransferError("the server sent another part or another version of the file")
        return start, _total_size(headers)
    partial.restart(_validator(headers))
    return 0, _size(headers.get("Content-Length", ""))


def _read(response: IO[bytes]) -> bytes:
    try:
        return response.read(_BLOCK)
    except (OSError, http.client.HTTPException, *_NONSENSE) as error:
        raise _TransferError(f"the connection broke off ({_reason(error)})") from error


def _validator(headers: Message) -> str | None:
    """The value for If-Range: a strong ETag, or else Last-Modified."""
    tag: str | None = headers.get("ETag")
    modified: str | None = headers.get("Last-Modified")
    return tag if tag and not tag.startswith("W/") else modified


def _total_size(headers: Message) -> int | None:
    return _size(headers.get("Content-Range", "").rpartition("/")[2])


def _size(text: str) -> int | None:
    return int(text) if _DIGITS.fullmatch(text) else None


def _status_error(error: HTTPError, partial: PartialFile) -> _TransferError | CheckpointError:
    """The error for a status that is not a success, by whether a retry may help."""
    if error.code == 416:
        partial.clear()
        return _TransferError("the file on the server has become shorter")
    if error.code in _RETRIED_STATUS:
        return _TransferError(f"the server answered {error.code} {error.reason}")
    if 300 <= error.code < 400:
        return CheckpointError(
            f"{partial.url} redirects to {error.headers.get('Location')}, which is not followed "
            "(only http and https, at most ten times, never from https to http): set "
            f"{MIRROR} to another server"
        )
    return CheckpointError(
        f"{partial.url}: the server answered {error.code} {error.reason}: check the address"
    )


def _connection_error(error: Exception, url: str) -> _TransferError | CheckpointError:
    """The error for a connection that failed, by whether a retry may help."""
    cause = error.reason if isinstance(error, URLError) else error
    if isinstance(cause, _PERMANENT_ERRORS):
        return CheckpointError(
            f"{url} cannot be reached ({cause}): check the network, the proxy (https_proxy) and "
            "the address"
        )
    return _TransferError(f"the server cannot be reached ({_reason(cause)})")


def _reason(error: object) -> str:
    return str(error) or type(error).__name__


class _HttpRedirects(HTTPRedirectHandler):
    """Follows redirects to http and https only, and never from https to http."""

    def http_error_302(
        self, req: Request, fp: IO[bytes], code: int, msg: str, headers: HTTPMessage
    ) -> Any:
        """Follows a redirect; closes the response if that is not possible.

        Raises:
            ValueError: If the target is not an address.
            OverflowError: If the response has a length that no memory can have.
        """
        try:
            return super().http_error_302(req, fp, code, msg, headers)
        except _NONSENSE:
            fp.close()
            raise

    http_error_301 = http_error_303 = http_error_307 = http_error_308 = http_error_302

    def redirect_request(
        self, req: Request, fp: IO[bytes], code: int, msg: str, headers: HTTPMessage, newurl: str
    ) -> Request | None:
        if urlsplit(newurl).scheme not in ("https", urlsplit(req.full_url).scheme):
            raise HTTPError(req.full_url, code, msg, headers, fp)
        return super().redirect_request(req, fp, code, msg, headers, newurl)
