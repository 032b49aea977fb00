"""A small data set in the layout of UCF101, and the arguments of `bench.parity` for it."""

from PIL import Image

from export.gate.cases import moving_frames

SIZE = (50, 70)


def save_image(frame, path):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(frame).save(path)


def triplet(motion, size=SIZE):
    """A first frame, the true middle frame and a last frame, uint8 (H, W, 3)."""
    frame0, frame1 = moving_frames(*size, motion)
    return frame0, moving_frames(*size, motion / 2)[1], frame1


def ucf101_arguments(models, root, *names, weights="demo"):
    return set_arguments(models, "ucf101", root, *names, weights=weights)


def set_arguments(models, dataset, root, *names, weights="demo"):
    """The arguments of `bench.parity` for models and a data set."""
    paths = [models / f"{name}.onnx" for name in names or ("frames",)]
    return ("--model", *paths, "--weights", weights, "--dataset", dataset, "--root", root)
