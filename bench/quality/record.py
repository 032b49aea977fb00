"""The file that a parity run writes: one line for each sample, while it runs; can be resumed.

The first line says what is measured, with what and where; the last, once all samples are done,
sums up. In between each line is a sample.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, TextIO

from bench.environment import MeasurementError, environment_record
from runtime.files import HAS_FLOCK, Lock, lock_file, written_beside

KIND = "parity"
FORMAT_VERSION = 1

Line = dict[str, Any]


class ParityRecord:
    """The samples that are done, in memory and, where there is a path, in a file.

    Attributes:
        lines: Of the samples, in the order in which they were measured, as they come back from
            the file: what is infinite is None.
    """

    def __init__(
        self, path: Path | None, configuration: Mapping[str, Any], *, resume: bool, overwrite: bool
    ) -> None:
        """Starts a file, or goes on with one.

        Args:
            path: Of the file; None to write none.
            configuration: What is measured, plain data.
            resume: Go on with the file if it is there.
            overwrite: Start anew if it is there.

        Raises:
            MeasurementError: If the file is there and neither is asked for, or it is of another
                configuration, or is no such file, or another run is writing it.
            OSError: If it cannot be written.
        """
        self.lines: list[Line] = []
        self._file: TextIO | None = None
        self._lock: Lock | None = None
        if path is None:
            return
        header: dict[str, Any] = {
            "kind": KIND,
            "format_version": FORMAT_VERSION,
            "configuration": dict(configuration),
            "environment": environment_record(),
        }
        if path.exists() and not (resume or overwrite):
            raise MeasurementError(
                f"{path} exists: --resume goes on with it, --overwrite starts anew"
            )
        goes_on = path.exists() and resume
        self._claim(path)
        try:
            if goes_on:
                self._go_on(path, header["configuration"])
            else:
                self._file = path.open("w", encoding="utf-8")
                self._write(header)
        except BaseException:
            self._release()
            raise

    @property
    def done(self) -> set[str]:
        """Names of the samples that need not be measured again."""
        return {line["sample"] for line in self.lines}

    def add(self, line: Line) -> None:
        """Keeps what was measured of a sample; on disk when this returns."""
        self.lines.append(_as_json(line))
        self._write(line)

    def finish(self, summary: Mapping[str, Any]) -> None:
        """Writes the last line."""
        self._write({"summary": summary})

    def __enter__(self) -> ParityRecord:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._file is not None:
            self._file.close()
        self._release()

    def _claim(self, path: Path) -> None:
        """Locks the file for this run, in place of what was locked before."""
        if not HAS_FLOCK or (path.exists() and not path.is_file()):  # A device, as /dev/null.
            return
        lock = lock_file(path.resolve())
        if lock is None:
            raise MeasurementError(
                f"{path} is being written by another run: wait for it, or give another --output"
            )
        self._release()
        self._lock = lock

    def _release(self) -> None:
        if self._lock is not None:
            self._lock.release()

    def _go_on(self, path: Path, configuration: Mapping[str, Any]) -> None:
        read = read_lines(path)
        wanted = _as_json(configuration)
        found = read[0]["configuration"]
        if found != wanted:
            keys = sorted(found.keys() | wanted.keys())
            changed = [key for key in keys if found.get(key) != wanted.get(key)]
            raise MeasurementError(
                f"{path} was measured with other {', '.join(changed)}: give what it was begun "
                "with, or another --output"
            )
        self.lines = [line for line in read[1:] if "sample" in line]
        # Without what a broken-off run left behind: half a line, or the summary of a whole one.
        whole = [read[0], *self.lines]
        with written_beside(path) as beside:
            beside.write_text("".join(json.dumps(line) + "\n" for line in whole), encoding="utf-8")
            self._claim(beside)  # It becomes the file.
        self._file = path.open("a", encoding="utf-8")

    def _write(self, line: Mapping[str, Any]) -> None:
        if self._file is not None:
            self._file.write(json.dumps(_as_json(line), allow_nan=False) + "\n")
            self._file.flush()


def read_lines(path: Path) -> list[Line]:
    """The whole lines of a file: header, samples, summary if there is one.

    Raises:
        MeasurementError: If it is no file of a parity run, or of another format version.
    """
    lines: list[Line] = []
    try:
        texts = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise MeasurementError(f"{path} cannot be read ({error}): give another file") from error
    for number, text in enumerate(texts, 1):
        try:
            lines.append(json.loads(text))
        except ValueError as error:
            if number == len(texts) and lines:
                break  # Written when the process was killed.
            raise MeasurementError(
                f"{path}, line {number}, is no JSON: expected a file of bench.parity, "
                "give another --output"
            ) from error
    if not lines or not isinstance(lines[0], dict) or lines[0].get("kind") != KIND:
        raise MeasurementError(f"{path} is no file of bench.parity: give another")
    if lines[0].get("format_version") != FORMAT_VERSION:
        raise MeasurementError(
            f"{path} has format version {lines[0].get('format_version')}, this version reads "
            f"{FORMAT_VERSION}: measure again"
        )
    return lines


def _as_json(value: Any) -> Any:
    """As it comes back from a file: tuples are lists, and what is infinite is null."""
    if isinstance(value, Mapping):
        return {str(key): _as_json(one) for key, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [_as_json(one) for one in value]
    if isinstance(value, float) and math.isinf(value):
        return None
    return value
