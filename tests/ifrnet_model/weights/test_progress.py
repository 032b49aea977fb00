import sys

from ifrnet_model.weights import progress as module
from ifrnet_model.weights.progress import ByteProgress


def test_without_a_terminal_a_line_is_printed_every_ten_seconds(monkeypatch, capsys):
    now = [100.0]
    monkeypatch.setattr(module.time, "monotonic", lambda: now[0])
    with ByteProgress("IFRNet") as shown:
        for seconds, done, total in (
            (1, 2e6, 20e6), (9, 6e6, 20e6), (11, 12e6, 20e6), (15, 14e6, 20e6), (22, 15e6, None)
        ):  # fmt: skip
            now[0] = 100.0 + seconds
            shown.update(int(done), None if total is None else int(total))
    assert capsys.readouterr().err.splitlines() == [
        "IFRNet: 60 %, 12.0 of 20.0 MB, 1.0 MB/s, 8 s left",
        "IFRNet: 15.0 MB, 0.6 MB/s",
    ]


def test_notes_are_printed_and_a_missing_stderr_is_no_error(monkeypatch, capsys):
    with ByteProgress("IFRNet") as shown:
        shown.note("trying again")
        assert capsys.readouterr().err == "trying again\n"
    monkeypatch.setattr(sys, "stderr", None)
    with ByteProgress("IFRNet") as shown:
        shown.update(1, 2)
    assert capsys.readouterr().out == ""
