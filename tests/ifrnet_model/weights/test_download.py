"""Downloads from a local server that fails in the ways of real servers."""

import contextlib
import errno
import hashlib
import http.client
import json
import re
import socket
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from ifrnet_model import CheckpointError
from ifrnet_model.weights import (
    DEMO_WEIGHTS,
    KnownCheckpoint,
    __main__,
    download_checkpoint,
    partial_file,
)
from ifrnet_model.weights import table as table_module

CONTENT = b"PK\x03\x04" + bytes(range(256)) * 1200
NEWER = CONTENT[::-1]
CUT = 200_000
NAME = "IFRNet_test.pth"
TRIES = 3


def answer(body=CONTENT, *, etag='"1"', cut=None, claims=None, kind="application/octet-stream"):
    """A reply of a server that supports Range and If-Range.

    Args:
        cut: The reply ends at this byte.
        claims: The length of the file according to the server.
    """

    def reply(handler):
        start, condition = 0, handler.headers.get("If-Range")
        if (wanted := handler.headers.get("Range")) and condition in (None, etag):
            start = int(wanted.removeprefix("bytes=").removesuffix("-"))
        if start >= len(body):
            handler.send_response(416)
            handler.send_header("Content-Range", f"bytes */{len(body)}")
            handler.end_headers()
            return
        handler.send_response(206 if start else 200)
        if start:
            handler.send_header("Content-Range", f"bytes {start}-{len(body) - 1}/{len(body)}")
        if etag:
            handler.send_header("ETag", etag)
        handler.send_header("Content-Type", kind)
        handler.send_header("Content-Length", str((claims or len(body)) - start))
        handler.end_headers()
        handler.wfile.write(body[start:cut])

    return reply


def digits(content):
    """The beginning of a SHA-256, as messages show it."""
    return re.escape(f"{hashlib.sha256(content).hexdigest()[:12]}...")


def ignores_range(body=CONTENT, cut=None):
    def reply(handler):
        del handler.headers["Range"]
        answer(body, cut=cut)(handler)

    return reply


def status(code, **headers):
    def reply(handler):
        handler.send_response(code)
        for name, value in headers.items():
            handler.send_header(name, value)
        handler.end_headers()

    return reply


def hangs_up(handler):
    handler.connection.shutdown(socket.SHUT_RDWR)


@pytest.fixture
def server(monkeypatch):
    """A server that gives `replies` in turn, and repeats the last; `asked` has the requests."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            self.server.asked.append((self.path, dict(self.headers)))
            replies = self.server.replies
            (replies.pop(0) if len(replies) > 1 else replies[0])(self)

        def log_message(self, *_):
            pass

    for variable in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(variable, raising=False)
        monkeypatch.delenv(variable.upper(), raising=False)
    monkeypatch.delenv("IFRNET_WEIGHTS_MIRROR", raising=False)
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.replies, server.asked = [answer()], []
        server.base = f"http://127.0.0.1:{server.server_port}"
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture
def known(monkeypatch, server):
    """Adds a checkpoint of this server to the table of known checkpoints."""

    def known(**changed):
        fields = {
            "name": NAME,
            "publisher": "mmagic",
            "variant": "base",
            "training_set": "Vimeo90K",
            "time_steps": "midpoint",
            "licence": "MIT",
            "place": "https://example.org has it",
            "sha256": hashlib.sha256(CONTENT).hexdigest(),
            "url": f"{server.base}/{NAME}",
            **changed,
        }
        monkeypatch.setattr(table_module, "CHECKPOINTS", (KnownCheckpoint(**fields),))

    known()
    return known


@pytest.fixture
def fetch(tmp_path, known):
    """Downloads into an empty folder, without waiting between attempts."""

    def fetch(**options):
        return download_checkpoint(NAME, tmp_path, pauses=(0,) * (TRIES - 1), **options)

    return fetch


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def ranges(server):
    return [headers.get("Range") for _, headers in server.asked]


def test_a_download_leaves_only_the_complete_file(server, fetch, tmp_path):
    seen = []
    done = fetch(progress=lambda *state: seen.append(state))
    assert done.path == tmp_path / NAME
    assert done.path.read_bytes() == CONTENT
    assert done.sha256 == hashlib.sha256(CONTENT).hexdigest()
    assert not done.existed
    assert names(tmp_path) == [NAME]
    assert seen[-1] == (len(CONTENT), len(CONTENT))
    assert len(server.asked) == 1


SECOND = """
import sys
from ifrnet_model.weights import KnownCheckpoint, __main__, table
table.CHECKPOINTS = (KnownCheckpoint(
    name=sys.argv[1], publisher="mmagic", variant="base", training_set="Vimeo90K",
    time_steps="midpoint", licence="MIT", place="a test", sha256=None, url=sys.argv[2],
),)
__main__.main(["download", sys.argv[1], "--output", sys.argv[3]])
"""


@pytest.mark.skipif(not partial_file.HAS_FLOCK, reason="flock is of POSIX")
def test_a_second_download_of_the_same_file_is_refused(server, fetch, known, tmp_path):
    """Without a known hash nothing else would notice a mixture of two downloads."""
    known(sha256=None)
    url, second = f"{server.base}/{NAME}", []

    def meanwhile(done, _):
        if not second and done > CUT:
            command = [sys.executable, "-c", SECOND, NAME, url, str(tmp_path)]
            second.append(subprocess.run(command, capture_output=True, text=True, check=False))

    assert fetch(progress=meanwhile).path.read_bytes() == CONTENT
    assert second[0].returncode == 1
    assert f"{NAME}.partial is being written by another download: wait" in second[0].stderr
    assert names(tmp_path) == [NAME]
    assert len(server.asked) == 1


@pytest.mark.skipif(not partial_file.HAS_FLOCK, reason="flock is of POSIX")
def test_a_partial_file_that_is_renamed_before_it_is_locked(fetch, tmp_path, monkeypatch):
    real = partial_file.flock

    def late(file, how):
        monkeypatch.setattr(partial_file, "flock", real)
        (tmp_path / f"{NAME}.partial").rename(tmp_path / "of the other")
        real(file, how)

    monkeypatch.setattr(partial_file, "flock", late)
    assert fetch().path.read_bytes() == CONTENT
    assert (tmp_path / "of the other").read_bytes() == b""


@pytest.mark.skipif(not partial_file.HAS_FLOCK, reason="flock is of POSIX")
def test_a_file_system_without_locks_is_named(fetch, monkeypatch):
    def unsupported(*_):
        raise OSError(errno.ENOTSUP, "not supported")

    monkeypatch.setattr(partial_file, "flock", unsupported)
    notes = []
    assert fetch(note=notes.append).path.read_bytes() == CONTENT
    assert len(notes) == 1
    assert "is not locked" in notes[0]


def test_a_hash_can_be_known_by_its_first_digits(fetch, known, server):
    known(sha256=hashlib.sha256(CONTENT).hexdigest()[:8])
    assert fetch().path.read_bytes() == CONTENT
    known(sha256="0" * 8)
    with pytest.raises(CheckpointError, match="has sha256"):
        fetch(force=True)


def test_a_download_resumes_after_a_broken_connection(server, fetch, tmp_path):
    server.replies = [answer(cut=CUT), answer()]
    notes = []
    assert fetch(note=notes.append).path.read_bytes() == CONTENT
    assert ranges(server) == [None, f"bytes={CUT}-"]
    assert server.asked[1][1]["If-Range"] == '"1"'
    assert notes == [
        f"the connection broke off at {CUT} of {len(CONTENT)} bytes; trying again in 0 s"
    ]
    assert names(tmp_path) == [NAME]


@pytest.mark.parametrize("error", [TimeoutError("timed out"), http.client.IncompleteRead(b"")])
def test_an_error_in_the_middle_of_a_block_is_retried(server, fetch, monkeypatch, error):
    notes, honest = [], http.client.HTTPResponse.read

    def read(response, *size):
        if not notes:
            raise error
        return honest(response, *size)

    monkeypatch.setattr(http.client.HTTPResponse, "read", read)
    assert fetch(note=notes.append).path.read_bytes() == CONTENT
    (note,) = notes
    assert note.startswith("the connection broke off (")
    assert note.endswith("); trying again in 0 s")


def test_another_call_resumes_the_download(server, fetch, tmp_path):
    server.replies = [answer(cut=CUT)]
    with pytest.raises(CheckpointError, match=r"broke off .*the first \d+ bytes are kept in"):
        fetch()
    assert names(tmp_path) == [f"{NAME}.partial", f"{NAME}.partial.json"]
    server.replies, server.asked = [answer()], []
    assert fetch().path.read_bytes() == CONTENT
    assert ranges(server) == [f"bytes={CUT}-"]
    assert names(tmp_path) == [NAME]


def test_a_partial_file_of_another_address_is_not_resumed(server, fetch, tmp_path):
    server.replies = [answer(cut=CUT)]
    with pytest.raises(CheckpointError):
        fetch()
    server.replies, server.asked = [answer()], []
    assert fetch(mirror=f"{server.base}/mirror").path.read_bytes() == CONTENT
    assert ranges(server) == [None]


def test_the_number_of_attempts_is_limited(server, fetch):
    server.replies = [hangs_up]
    with pytest.raises(CheckpointError, match=f"in the last of {TRIES} attempts"):
        fetch()
    assert len(server.asked) == TRIES


@pytest.mark.parametrize("code", [408, 429, 500, 503])
def test_temporary_errors_of_a_server_are_retried(server, fetch, code):
    server.replies = [status(code), hangs_up, answer()]
    assert fetch().path.read_bytes() == CONTENT


@pytest.mark.parametrize("code", [401, 403, 404, 410])
def test_permanent_errors_of_a_server_are_not_retried(server, fetch, tmp_path, code):
    server.replies = [status(code)]
    with pytest.raises(CheckpointError, match=f"the server answered {code}"):
        fetch()
    assert len(server.asked) == 1
    assert names(tmp_path) == []


def test_a_download_restarts_if_the_server_ignores_range(server, fetch):
    server.replies = [answer(cut=CUT), ignores_range()]
    assert fetch().path.read_bytes() == CONTENT
    assert ranges(server) == [None, f"bytes={CUT}-"]


def test_a_file_that_changed_between_attempts_is_not_mixed(server, fetch, known):
    known(sha256=hashlib.sha256(NEWER).hexdigest())
    server.replies = [answer(cut=CUT), answer(NEWER, etag='"2"')]
    assert fetch().path.read_bytes() == NEWER


def test_a_server_that_ignores_if_range_is_recognised(server, fetch, known):
    known(sha256=hashlib.sha256(NEWER).hexdigest())

    def careless(handler):
        del handler.headers["If-Range"]
        answer(NEWER, etag='"2"')(handler)

    server.replies = [answer(cut=CUT), careless]
    assert fetch().path.read_bytes() == NEWER
    assert ranges(server) == [None, f"bytes={CUT}-", None]


@pytest.mark.parametrize("etag", [None, 'W/"1"'])
def test_a_download_restarts_without_a_strong_etag(server, fetch, etag):
    server.replies = [answer(cut=CUT, etag=etag), answer(etag=etag)]
    assert fetch().path.read_bytes() == CONTENT
    assert ranges(server) == [None, None]


def test_a_content_length_that_is_too_large_ends_in_an_error(server, fetch):
    server.replies = [answer(claims=len(CONTENT) + 1000), status(500)]
    with pytest.raises(CheckpointError, match=f"answered 500.*{len(CONTENT)} bytes are kept"):
        fetch()


def test_a_complete_file_is_accepted_despite_a_wrong_content_length(server, fetch):
    server.replies = [answer(claims=len(CONTENT) + 1000), answer()]
    assert fetch().path.read_bytes() == CONTENT  # The server answers 416: nothing is missing.
    assert len(server.asked) == 2


def test_a_content_length_that_is_too_small_gives_no_file(server, fetch, tmp_path):
    server.replies = [answer(claims=1000)]
    with pytest.raises(CheckpointError, match=r"has sha256 .*, and was deleted"):
        fetch()
    assert names(tmp_path) == []


def test_a_download_restarts_if_the_file_became_shorter(server, fetch, known):
    shorter = CONTENT[: CUT // 2]
    known(sha256=hashlib.sha256(shorter).hexdigest())

    def short(handler):
        del handler.headers["If-Range"]
        answer(shorter, etag='"2"')(handler)

    server.replies = [answer(cut=CUT), short]
    assert fetch().path.read_bytes() == shorter


def test_wrong_bytes_are_not_kept(server, fetch, tmp_path):
    server.replies = [answer(NEWER)]
    with pytest.raises(
        CheckpointError,
        match=f"^the file from {server.base}/{NAME} has sha256 {digits(NEWER)}, "
        f"not {digits(CONTENT)} as published, and was deleted: try again",
    ):
        fetch()
    assert names(tmp_path) == []


@pytest.mark.parametrize(
    "page",
    [
        answer(b"\n<!DOCTYPE html><title>Share</title>"),
        answer(b"<HTML lang=en>"),
        answer(b"anything", kind="text/html; charset=utf-8"),
    ],
)
def test_a_web_page_in_place_of_a_file_is_recognised(server, fetch, tmp_path, page):
    server.replies = [page]
    with pytest.raises(CheckpointError, match=r"is a web page, .* not a file"):
        fetch()
    assert len(server.asked) == 1
    assert names(tmp_path) == []


def test_a_web_page_during_a_resume_keeps_the_partial_file(server, fetch, tmp_path):
    server.replies = [answer(cut=CUT), answer(b"<html>", etag=None, kind="text/html")]
    with pytest.raises(CheckpointError, match="web page"):
        fetch()
    assert (tmp_path / f"{NAME}.partial").stat().st_size == CUT


def test_redirects_are_followed(server, fetch):
    server.replies = [status(302, Location="/elsewhere"), answer()]
    assert fetch().path.read_bytes() == CONTENT
    assert [path for path, _ in server.asked] == [f"/{NAME}", "/elsewhere"]


@pytest.mark.parametrize("target", ["file:///etc/hostname", "ftp://127.0.0.1/x", "data:,x"])
def test_redirects_to_other_schemes_are_refused(server, fetch, tmp_path, target):
    server.replies = [status(302, Location=target)]
    with pytest.raises(CheckpointError, match=f"redirects to {target}, which is not followed"):
        fetch()
    assert names(tmp_path) == []


@pytest.mark.parametrize(
    "target", ["http://[::1", "http://[x]/", "http://h\u2100/", "//[", "http://:x/"]
)
def test_redirects_to_nonsense_are_one_sentence(server, fetch, tmp_path, target):
    server.replies = [status(302, Location=target.encode().decode("latin-1"))]
    with pytest.raises(CheckpointError) as error:
        fetch()
    assert re.search(
        r"is not an address, or redirects to none|is not followed|cannot be reached|in the last of",
        str(error.value),
    )
    assert names(tmp_path) == []


def test_a_redirect_of_endless_length_is_one_sentence(server, fetch, tmp_path):
    server.replies = [status(302, Location="/again", **{"Content-Length": "9" * 100})]
    with pytest.raises(CheckpointError, match="is not an address, or redirects to none"):
        fetch()
    assert names(tmp_path) == []


@pytest.mark.parametrize("length", ["\xb2", "\u0663", "-5", "9" * 5000, "x", ""])
def test_a_length_that_is_no_number_is_ignored(server, fetch, length):
    def reply(handler):
        handler.send_response(200)
        handler.send_header("Content-Length", length.encode().decode("latin-1"))
        handler.end_headers()
        handler.wfile.write(CONTENT)

    server.replies = [reply]
    assert fetch().path.read_bytes() == CONTENT


@pytest.mark.parametrize("content_range", ["bytes \xb2-5/9", "bytes " + "9" * 5000 + "-1/2", "x"])
def test_a_range_that_is_none_restarts_the_download(server, fetch, content_range):
    server.replies = [
        answer(cut=CUT), status(206, **{"Content-Range": content_range}), answer()
    ]  # fmt: skip
    assert fetch().path.read_bytes() == CONTENT


@pytest.mark.parametrize(("megabytes", "limit"), [(0.1, 105_000), (None, 200_000)])
def test_a_download_stops_at_the_known_size(
    server, fetch, known, tmp_path, monkeypatch, megabytes, limit
):
    sent = []

    def reply(handler):
        handler.send_response(200)
        handler.end_headers()
        with contextlib.suppress(OSError):
            while len(sent) < 10_000:
                handler.wfile.write(bytes(1 << 16))
                sent.append(1 << 16)

    known(megabytes=megabytes)
    monkeypatch.setattr("ifrnet_model.weights.download._MOST_MEGABYTES", 0.2 / 1.05)
    server.replies = [reply]
    with pytest.raises(CheckpointError, match=f"sends more than {limit} bytes, the limit for"):
        fetch()
    assert names(tmp_path) == []
    assert len(sent) < 10_000


@pytest.mark.parametrize("name", [f"{NAME}.partial", f"{NAME}.partial.json"])
def test_a_link_in_place_of_a_partial_file_is_not_followed(server, fetch, tmp_path, name):
    other = tmp_path / "other"
    other.write_bytes(b"mine")
    (tmp_path / name).symlink_to(other)
    if name.endswith(".json"):
        fetch()  # What is there is removed first.
    else:
        with pytest.raises(OSError, match="symbolic link"):
            fetch()
    assert other.read_bytes() == b"mine"


def test_endless_redirects_are_an_error(server, fetch):
    server.replies = [status(302, Location=f"/{NAME}")]
    with pytest.raises(CheckpointError, match="is not followed"):
        fetch()
    assert len(server.asked) < 20


def test_a_proxy_of_the_environment_is_used(server, fetch, known, monkeypatch):
    known(url=f"http://weights.invalid/{NAME}")
    monkeypatch.setenv("http_proxy", server.base)
    assert fetch().path.read_bytes() == CONTENT
    assert server.asked[0][0] == f"http://weights.invalid/{NAME}"


def test_a_host_that_does_not_exist_is_not_retried(fetch, known):
    known(url=f"http://weights.invalid/{NAME}")
    notes = []
    with pytest.raises(CheckpointError, match=r"cannot be reached .* proxy"):
        fetch(note=notes.append)
    assert notes == []


@pytest.mark.parametrize("base", ["/folder", "/folder/"])
def test_a_mirror_of_the_environment_is_preferred(server, fetch, known, monkeypatch, base):
    known(url="http://weights.invalid/")
    monkeypatch.setenv("IFRNET_WEIGHTS_MIRROR", server.base + base)
    fetch()
    assert [path for path, _ in server.asked] == [f"/folder/{NAME}"]


@pytest.mark.parametrize(
    "mirror", ["file:///srv", "example.org", "https://", "http://[::1", "http://h\u2100/"]
)
def test_a_mirror_must_be_a_base_url(fetch, mirror):
    with pytest.raises(CheckpointError, match=r"IFRNET_WEIGHTS_MIRROR is .*: give a base URL"):
        fetch(mirror=mirror)


def test_an_existing_correct_file_is_not_downloaded_again(server, fetch, tmp_path):
    fetch()
    server.asked.clear()
    assert fetch().existed
    assert server.asked == []
    assert not fetch(force=True).existed


def test_another_file_of_the_same_name_is_kept(server, fetch, tmp_path):
    (tmp_path / NAME).write_bytes(b"mine")
    with pytest.raises(CheckpointError, match=r"exists already and has sha256 .*--overwrite"):
        fetch()
    assert (tmp_path / NAME).read_bytes() == b"mine"
    server.replies = [answer(NEWER)]
    with pytest.raises(CheckpointError, match="was deleted"):
        fetch(force=True)
    assert (tmp_path / NAME).read_bytes() == b"mine"
    server.replies = [answer()]
    assert fetch(force=True).path.read_bytes() == CONTENT


def test_without_a_hash_size_and_kind_of_file_are_checked(server, fetch, known, tmp_path):
    known(sha256=None, megabytes=round(len(CONTENT) / 1e6, 1))
    assert fetch().path.read_bytes() == CONTENT
    assert fetch().existed
    server.replies = [answer(CONTENT[:CUT])]
    with pytest.raises(CheckpointError, match=r"has 0\.2 MB, not 0\.3 MB as published"):
        fetch(force=True)
    server.replies = [answer(NEWER)]
    with pytest.raises(CheckpointError, match="is not a PyTorch file"):
        fetch(force=True)
    assert (tmp_path / NAME).read_bytes() == CONTENT


def test_the_error_for_a_share_page_names_it_and_the_alternatives(fetch, known, tmp_path, server):
    known(url=None, sha256=None)
    with pytest.raises(CheckpointError) as error:
        fetch()
    message = str(error.value)
    for part in ("share page", "https://example.org has it", "--weights", "IFRNET_WEIGHTS_MIRROR"):
        assert part in message
    assert names(tmp_path) == []
    assert fetch(mirror=server.base).path.read_bytes() == CONTENT


def test_the_demo_weights_are_copied(tmp_path):
    done = download_checkpoint("demo", tmp_path / "new")
    assert done.path.read_bytes() == DEMO_WEIGHTS.read_bytes()
    assert names(tmp_path / "new") == [DEMO_WEIGHTS.name]


def test_the_download_command(server, known, tmp_path, capsys):
    def run(*arguments):
        with pytest.raises(SystemExit) as ended:
            __main__.main(["download", *map(str, arguments)])
        return ended.value.code, *capsys.readouterr()

    # By the name without its suffix, in any case.
    assert run("ifrnet_TEST", "--output", tmp_path)[0] == 0
    code, out, _ = run(NAME, "--output", tmp_path)
    assert code == 0
    assert "exists already" in out
    assert hashlib.sha256(CONTENT).hexdigest() in out
    (tmp_path / NAME).write_bytes(b"mine")
    code, out, err = run(NAME, "--output", tmp_path)
    assert (code, out, err.count("\n")) == (1, "", 1)
    assert "error: " in err
    with pytest.raises(CheckpointError):
        __main__.main(["download", NAME, "--output", str(tmp_path), "--debug"])


def test_a_damaged_note_beside_a_partial_file_is_ignored(server, fetch, tmp_path):
    for note in ("", "[]", json.dumps({"url": 1})):
        (tmp_path / f"{NAME}.partial").write_bytes(b"old")
        (tmp_path / f"{NAME}.partial.json").write_text(note)
        assert fetch(force=True).path.read_bytes() == CONTENT
