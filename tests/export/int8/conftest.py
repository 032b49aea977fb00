"""Fixtures: real frames, and a folder with them."""

import av
import pytest

from image_folders import image_folder
from paths import WALK


@pytest.fixture(scope="session")
def walk():
    """30 real frames, 64x96."""
    with av.open(str(WALK)) as container:
        decoded = [frame for frame, _ in zip(container.decode(video=0), range(30), strict=False)]
    return [frame.reformat(96, 64, "rgb24").to_ndarray() for frame in decoded]


@pytest.fixture(scope="session")
def clip(tmp_path_factory, walk):
    return image_folder(tmp_path_factory.mktemp("clip") / "walk", walk)
