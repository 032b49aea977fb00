"""Real frames, and a folder of them."""

import av
import pytest
from PIL import Image

from paths import DATA


@pytest.fixture(scope="session")
def walk():
    """30 real frames, 64x96."""
    with av.open(str(DATA / "walk.mkv")) as container:
        decoded = [frame for frame, _ in zip(container.decode(video=0), range(30), strict=False)]
    return [frame.reformat(96, 64, "rgb24").to_ndarray() for frame in decoded]


@pytest.fixture(scope="session")
def clip(tmp_path_factory, walk):
    folder = tmp_path_factory.mktemp("clip") / "walk"
    folder.mkdir()
    for number, frame in enumerate(walk):
        Image.fromarray(frame).save(folder / f"{number}.png")
    return folder
