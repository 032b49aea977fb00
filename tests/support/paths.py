"""Where the checkout and the files of the tests lie."""

from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
DATA = ROOT / "tests" / "data"
WALK = ROOT / "export" / "gate" / "frames" / "walk.mkv"
"""The clip of the demo, which builds compare precisions on."""
