"""The picture of README: two frames of a clip, and what is made, and what was, between them.

python tools/readme_picture.py docs/between.jpg

Needs the extras openvino (or cpu), video and bench. Which pair of frames and which part of them are
shown is fixed below; README names the PSNR beside those of the whole clip.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import PIL.Image
from PIL import ImageDraw, ImageFont

from bench.alternatives.clips import blend
from demo_video import Image, decode, psnr
from runtime import Interpolator

CLIP = Path(__file__).resolve().parents[1] / "export" / "gate" / "frames" / "walk.mkv"
FIRST = 10  # A moving hand, in front of a body that moves the other way.
TOP, LEFT, SIDE = 208, 187, 256
GAP, CAPTION = 6, 30


def panels() -> dict[str, Image]:
    """Caption -> the part of the frame, (SIDE, SIDE, 3); prints PSNR of the whole frames."""
    frame0, true, frame1 = decode(CLIP)[FIRST : FIRST + 3]
    with Interpolator.open("demo", precision="fp32") as vfi:
        new = vfi.interpolate(frame0, frame1)
    average = blend(frame0, frame1)
    print(f"IFRNet {psnr(new, true):.1f} dB, average {psnr(average, true):.1f} dB")
    images = {
        "first frame": frame0,
        "average of both": average,
        "IFRNet": new,
        "true frame": true,
        "second frame": frame1,
    }
    part = slice(TOP, TOP + SIDE), slice(LEFT, LEFT + SIDE)
    return {caption: image[part] for caption, image in images.items()}


def main(path: Path) -> None:
    """Writes the picture as JPEG."""
    shown = panels()
    step = SIDE + GAP
    canvas = PIL.Image.new("RGB", (len(shown) * step - GAP, SIDE + CAPTION), "white")
    draw, font = ImageDraw.Draw(canvas), ImageFont.load_default(18)
    for number, (caption, image) in enumerate(shown.items()):
        canvas.paste(PIL.Image.fromarray(np.ascontiguousarray(image)), (number * step, 0))
        middle = number * step + SIDE / 2
        draw.text((middle, SIDE + CAPTION / 2), caption, "black", font, anchor="mm")
    canvas.save(path, quality=88)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
