"""The JSON Lines file of a parity run, which is written while it runs and can be resumed.

The first line is a header with configuration and environment. One line for each sample follows;
the last line, written when all samples are done, is the summary.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, TextIO

from bench.data.notes import recorded_notes
from bench.environment import MeasurementError, environment_record
from bench.records.common import FORMAT_VERSION
from bench.records.parity import Configuration, ParityHeader, Summary
from runtime.files import HAS_FLOCK, Lock, lock_file, written_beside

Line = dict[str, Any]


class ParityRecord:
    """The lines of the measured samples, in memory and optionally in a file.

    Attributes:
        lines: Lines of the samples in the order of measurement, as in the JSON file: infinite
            values are None.
    """

    def __init__(
        self, path: Path | None, configuration: Configuration, *, resume: bool, overwrite: bool
    ) -> None:
        """Creates the file, or opens it to resume.

        Args:
            path: Path of the file; None: lines are held in memory only.
            configuration: The configuration of the run, for the header.
            resume: Whether an existing file is continued.
            overwrite: Whether an existing file is replaced.

        Raises:
            MeasurementError: If the file exists and neither `resume` nor `overwrite` is set, it is
                not a file of a parity run or has another configuration, or another run is
                writing it.
            OSError: If the file cannot be written.
        """
        self.lines: list[Line] = []
        self._file: TextIO | None = None
        self._lock: Lock | None = None
        if path is None:
            return
        header: ParityHeader = {
            "kind": "parity",
            "format_version": FORMAT_VERSION,
            "configuration": configuration,
            "environment": environment_record(),
        }
        if path.exists() and not (resume or overwrite):
            raise MeasurementError(
                f"{path} exists: give --resume to continue it, or --overwrite to replace it"
            )
        resuming = path.exists() and resume
        self._claim(path)
        try:
            if resuming:
                self._resume(path, header["configuration"])
            else:
                self._file = path.open("w", encoding="utf-8")
                self._write(header)
        except BaseException:
            self._release()
            raise

    @property
    def done(self) -> set[str]:
        """Names of the measured samples."""
        return {line["sample"] for line in self.lines}

    def add(self, line: Line) -> None:
        """Appends the line of a sample and flushes the file."""
        self.lines.append(_as_json(line))
        self._write(line)

    def finish(self, summary: Summary) -> None:
        """Writes the summary as the last line."""
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
        """Locks the file for this run, and releases the previous lock."""
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

    def _resume(self, path: Path, configuration: Configuration) -> None:
        existing = read_lines(path)
        expected, recorded = (
            {**one, "notes": recorded_notes(one.get("notes", []))}
            for one in (_as_json(configuration), existing[0]["configuration"])
        )
        if recorded != expected:
            keys = sorted(recorded.keys() | expected.keys())
            changed = [key for key in keys if recorded.get(key) != expected.get(key)]
            raise MeasurementError(
                f"{path} was measured with other {', '.join(changed)}: give the same options, "
                "or another --output"
            )
        self.lines = [line for line in existing[1:] if "sample" in line]
        # Drops an incomplete last line and the summary.
        complete = [existing[0], *self.lines]
        with written_beside(path) as beside:
            beside.write_text(
                "".join(json.dumps(line) + "\n" for line in complete), encoding="utf-8"
            )
            self._claim(beside)  # It replaces the file.
        self._file = path.open("a", encoding="utf-8")

    def _write(self, line: Mapping[str, Any]) -> None:
        if self._file is not None:
            self._file.write(json.dumps(_as_json(line), allow_nan=False) + "\n")
            self._file.flush()


def read_lines(path: Path) -> list[Line]:
    """Reads the complete lines of a file: header, samples, and the summary if there is one.

    Raises:
        MeasurementError: If it cannot be read, is not a file of a parity run, or has another
            format version.
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
                break  # The process was killed while it wrote this line.
            raise MeasurementError(
                f"{path}, line {number}, is not JSON: expected a file of bench.parity, "
                "give another --output"
            ) from error
    if not lines or not isinstance(lines[0], dict) or lines[0].get("kind") != "parity":
        raise MeasurementError(f"{path} is not a file of bench.parity: give another file")
    if lines[0].get("format_version") != FORMAT_VERSION:
        raise MeasurementError(
            f"{path} has format version {lines[0].get('format_version')}, this version reads "
            f"{FORMAT_VERSION}: measure again"
        )
    return lines


def _as_json(value: Any) -> Any:
    """Converts a value for JSON: tuples become lists, infinite values None."""
    if isinstance(value, Mapping):
        return {str(key): _as_json(one) for key, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [_as_json(one) for one in value]
    if isinstance(value, float) and math.isinf(value):
        return None
    return value
