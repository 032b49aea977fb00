"""Folders of images, which are read like videos."""

from PIL import Image


def image_folder(folder, frames):
    """Writes frames, uint8 (H, W, 3), to a new folder as 0.png, 1.png ...; returns the folder."""
    folder.mkdir()
    for number, frame in enumerate(frames):
        Image.fromarray(frame).save(folder / f"{number}.png")
    return folder
