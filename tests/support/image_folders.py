"""Folders of images, which are read like videos."""

from PIL import Image


def image_folder(folder, frames):
    """Makes a folder that has each frame, uint8 (H, W, 3), as NUMBER.png; returns it."""
    folder.mkdir()
    for number, frame in enumerate(frames):
        Image.fromarray(frame).save(folder / f"{number}.png")
    return folder
