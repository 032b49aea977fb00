"""Paths of the checkout and of the test data."""

from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
DATA = ROOT / "tests" / "data"
WALK = ROOT / "export" / "gate" / "frames" / "walk.mkv"
"""The clip of the demo. Builds compare float16 and int8 with float32 on it."""
