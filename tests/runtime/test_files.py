"""Writing files completely or not at all, with several writers."""

import os
import stat
import threading
from pathlib import Path

import pytest

from runtime import files
from runtime.files import (
    natural_key,
    read_with_digest,
    rename_over,
    write_with_digest,
    written_beside,
)
from runtime.manifest import EngineManifest, GateReport
from runtime.model_info import ModelInfo

MODEL = ModelInfo(
    variant="small", weights_sha256="0" * 64, precision="fp32", io="frames", divisor=16,
    flow_scale=1.0, time_steps="arbitrary", steps_per_call=1, pairs_per_call=1, height=None,
    width=None, warp="gridsample", tuned_for="cpu", tool_version="0",
)  # fmt: skip


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_two_writers_never_share_a_file(tmp_path):
    # Same process id, as it can happen on two machines or in two containers.
    path = tmp_path / "made.json"
    with written_beside(path) as first:
        first.write_text("first")
        with written_beside(path) as second:
            second.write_text("the second")
        assert path.read_text() == "the second"
        assert first.read_text() == "first"
    assert path.read_text() == "first"
    assert names(tmp_path) == ["made.json"]


def test_an_error_keeps_the_old_file(tmp_path):
    path = tmp_path / "made.json"
    path.write_text("old")

    def fail():
        with written_beside(path) as beside:
            beside.write_text("new")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert path.read_text() == "old"
    assert names(tmp_path) == ["made.json"]


def test_a_missing_folder_is_named_before_anything_is_written(tmp_path):
    with pytest.raises(FileNotFoundError), written_beside(tmp_path / "no" / "made.json"):
        pytest.fail("nothing can be written there")


def test_permissions_follow_the_umask(tmp_path):
    usual = tmp_path / "usual"
    usual.touch()
    with written_beside(tmp_path / "made") as beside:
        beside.write_text("")
    modes = [stat.S_IMODE(path.stat().st_mode) for path in (usual, tmp_path / "made")]
    assert modes[0] == modes[1]


@pytest.mark.skipif(not files.HAS_FLOCK, reason="flock is of POSIX")
def test_artefact_and_manifest_of_two_builds_are_not_mixed(tmp_path, monkeypatch):
    """The second build starts when the first has renamed only its artefact."""
    store = pytest.importorskip("export.store")
    report = GateReport(90.0, 0.0, 80.0, "PyTorch")
    checked = store.CheckedModel(None, MODEL, report, "0" * 64)
    path = tmp_path / "model.onnx"
    came = threading.Event()
    real_lock, real_write = files.flock, EngineManifest.write

    def build(content):
        store.save_with_manifest(
            path,
            lambda beside: beside.write_bytes(content),
            checked,
            started=0.0,
        )

    def second_build():
        build(b"the second")
        came.set()  # Without a lock it finishes immediately.

    second = threading.Thread(target=second_build)

    def lock(*how):
        if threading.current_thread() is second:
            came.set()  # With a lock it waits here.
        real_lock(*how)

    def write(manifest, target):
        if threading.current_thread() is not second:
            second.start()
            assert came.wait(60)
        return real_write(manifest, target)

    monkeypatch.setattr(files, "flock", lock)
    monkeypatch.setattr(EngineManifest, "write", write)
    build(b"the first")
    second.join()
    EngineManifest.read(path)
    assert path.read_bytes() == b"the second"


@pytest.mark.parametrize("opening", ["[", '{"a":'])
def test_json_that_is_nested_too_deeply_is_an_error_of_its_value(opening):
    assert files.parse_json(b"[[1]]") == [[1]]
    with pytest.raises(ValueError, match=r"^it is nested too deeply$"):
        files.parse_json(opening * 1_000_000)


def test_names_are_sorted_by_their_numbers():
    names = ["f10.png", "f9.png", "10.png", "²1.png", "g.png", "9.png", "f9a.png"]
    ordered = [path.name for path in sorted(map(Path, names), key=natural_key)]
    assert ordered == ["9.png", "10.png", "f9.png", "f9a.png", "f10.png", "g.png", "²1.png"]


def test_content_with_a_digest_is_read_only_if_intact(tmp_path):
    path = tmp_path / "x.cache"
    write_with_digest(path, b"mark-1\n", b"content")
    assert read_with_digest(path, b"mark-1\n") == b"content"
    assert read_with_digest(path, b"mark-2\n") is None
    whole = path.read_bytes()
    for broken in (b"", whole[:20], whole[:-1], whole + b"x", whole[:-1] + b"T"):
        path.write_bytes(broken)
        assert read_with_digest(path, b"mark-1\n") is None
    write_with_digest(path, b"mark-1\n", b"")
    assert read_with_digest(path, b"mark-1\n") == b""
    with pytest.raises(FileNotFoundError):
        read_with_digest(tmp_path / "none", b"mark-1\n")


def test_a_folder_replaces_another_with_its_content(tmp_path):
    new, old = tmp_path / "new", tmp_path / "old"
    for folder in (new, old):
        folder.mkdir()
        (folder / folder.name).write_text(folder.name)
    rename_over(new, old)
    assert names(tmp_path) == ["old"]
    assert names(old) == ["new"]


def test_a_folder_that_cannot_be_replaced_stays(tmp_path):
    old = tmp_path / "old"
    old.mkdir()
    (old / "kept").write_text("kept")
    with pytest.raises(FileNotFoundError):
        rename_over(tmp_path / "none", old)
    assert names(tmp_path) == ["old"]
    assert names(old) == ["kept"]


@pytest.mark.skipif(not hasattr(os, "geteuid"), reason="needs users of POSIX")
def test_only_a_folder_of_this_user_alone_is_trusted(tmp_path, monkeypatch):
    folder = tmp_path / "a" / "b"
    assert files.distrust(folder) is None  # It does not exist yet.
    umask = os.umask(0)
    try:
        files.make_private_folder(folder)
    finally:
        os.umask(umask)
    for made in (folder, folder.parent):
        assert made.stat().st_mode & 0o777 == 0o700
        assert files.distrust(made) is None
    for mode, trusted in ((0o755, True), (0o775, False), (0o757, False), (0o1777, False)):
        folder.chmod(mode)
        expected = None if trusted else f"other users can write to {folder}"
        assert files.distrust(folder) == expected
    folder.chmod(0o700)
    monkeypatch.setattr(os, "geteuid", lambda: folder.stat().st_uid + 1)
    assert files.distrust(folder) == f"{folder} belongs to another user"


def test_a_link_in_place_of_a_temporary_file_is_not_followed(tmp_path, monkeypatch):
    monkeypatch.setattr(files.secrets, "token_hex", lambda _: "0")
    (tmp_path / "other").write_text("mine")
    (tmp_path / ".out.0.partial.txt").symlink_to(tmp_path / "other")
    with pytest.raises(FileExistsError), files.written_beside(tmp_path / "out.txt") as temporary:
        temporary.write_text("new")
    assert (tmp_path / "other").read_text() == "mine"
