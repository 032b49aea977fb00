"""A plugin of pytest that records which lines of the product each test executes.

MUTATION_RECORD names the folder of the results. Each process of pytest writes there

- lines.PID: data of coverage.py, with the tests as contexts; "" is what runs at import,
- tests.PID.json: the seconds of each test, and the tests that start processes, whose lines are
  not recorded.
"""

from __future__ import annotations

import json
import os
import sys
from collections import defaultdict
from pathlib import Path
from typing import Any

import pytest
from coverage import Coverage

from mutation.mutants import AREAS

_STARTS = ("subprocess.Popen", "os.posix_spawn", "os.fork", "os.exec")
"""Audit events of a new process."""


class Recorder:
    """Records the tests of one process.

    Args:
        folder: Folder of the results.
        root: Folder of the checkout.
    """

    def __init__(self, folder: Path, root: Path) -> None:
        self._results = folder / f"tests.{os.getpid()}.json"
        self._seconds: dict[str, float] = defaultdict(float)
        self._processes: set[str] = set()
        self._test = ""
        packages = {area.partition("/")[0] for area in AREAS}
        self._coverage = Coverage(
            data_file=str(folder / f"lines.{os.getpid()}"),
            config_file=False,
            include=[f"{root / package}/*" for package in packages],
            messages=False,
        )
        self._coverage.start()
        sys.addaudithook(self._audit)

    def _audit(self, event: str, _: Any) -> None:
        if self._test and event in _STARTS:
            self._processes.add(self._test)

    def pytest_runtest_logstart(self, nodeid: str) -> None:
        """Attributes what follows to a test."""
        self._test = nodeid
        self._coverage.switch_context(nodeid)

    def pytest_runtest_logfinish(self) -> None:
        """Ends the attribution."""
        self._test = ""
        self._coverage.switch_context("")

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Adds the time of one phase of a test."""
        self._seconds[report.nodeid] += report.duration

    def pytest_sessionfinish(self) -> None:
        """Writes the results."""
        self._coverage.stop()
        self._coverage.save()
        found = {"seconds": self._seconds, "processes": sorted(self._processes)}
        self._results.write_text(json.dumps(found), "utf-8")


def pytest_configure(config: pytest.Config) -> None:
    """Records the processes that run tests, not the one that distributes them."""
    if not config.getoption("numprocesses", None):
        folder = Path(os.environ["MUTATION_RECORD"])
        config.pluginmanager.register(Recorder(folder, config.rootpath))
