"""A small data set in the layout of UCF101, and `bench.parity` on it in this process."""

from PIL import Image

from export.gate.cases import moving_frames

SIZE = (50, 70)


def picture(frame, path):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(frame).save(path)


def three(motion, size=SIZE):
    """A first, a true middle and a last frame."""
    frame0, frame1 = moving_frames(*size, motion)
    return frame0, moving_frames(*size, motion / 2)[1], frame1


def on_ucf(models, root, *names, weights="demo"):
    paths = [models / f"{name}.onnx" for name in names or ("frames",)]
    return ("--model", *paths, "--weights", weights, "--dataset", "ucf101", "--root", root)
