"""Headless Chromium."""

import os
import shutil

import pytest

OPTIONS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
    "--enable-logging=stderr", "--v=0",
)  # fmt: skip


def chromium() -> list[str]:
    """The command of Chromium. Without it the test skips, or fails with FAIL_WITHOUT_CHROMIUM=1."""
    for name in ("chromium", "chromium-browser", "google-chrome"):
        if path := shutil.which(name):
            return [path, *OPTIONS]
    if os.environ.get("FAIL_WITHOUT_CHROMIUM") == "1":
        pytest.fail("FAIL_WITHOUT_CHROMIUM=1 and no chromium, chromium-browser or google-chrome")
    return pytest.skip("no chromium, chromium-browser or google-chrome on PATH")
