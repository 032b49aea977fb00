import base64
import re
import subprocess
import sys
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pytest

import demo
import demo_page
import demo_video
from paths import ROOT
from runtime.backends.demo import demo_model
from runtime.machine import low_precision_sets
from runtime.manifest import EngineManifest
from video_clips import frames_of, write

FRAMES = 9
VOID = {"meta", "img", "input", "br", "link"}


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """(folder with the files of the demo, printed text)."""
    folder = tmp_path_factory.mktemp("demo") / "made"
    done = subprocess.run(
        [sys.executable, ROOT / "tools" / "demo.py", "--output", folder, "--frames", str(FRAMES)],
        cwd=folder.parent, capture_output=True, text=True, check=False, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return folder, done.stdout


class Page(HTMLParser):
    def __init__(self, text):
        super().__init__()
        self.open, self.ids, self.references, self.labels = [], [], [], 0
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attributes):
        attributes = dict(attributes)
        self.ids += [attributes["id"]] if "id" in attributes else []
        self.references += [attributes[name] for name in ("src", "href") if name in attributes]
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def test_the_clips_have_the_old_and_the_new_rate(made):
    folder, _ = made
    before = frames_of(folder / "before.mp4")
    assert len(before) == (FRAMES + 1) // 2
    after = frames_of(folder / "after.mp4")
    assert len(after) == len(frames_of(folder / "side_by_side.mp4")) == 2 * len(before)


def test_the_page_is_well_formed_and_its_files_exist(made):
    folder, _ = made
    text = (folder / "index.html").read_text()
    assert "@@" not in text
    page = Page(text)
    assert page.open == []
    assert len(page.ids) == len(set(page.ids))
    assert set(re.findall(r'get\("(\w+)"\)', text)) <= set(page.ids)
    embedded = [one for one in page.references if one.startswith("data:image/png;base64,")]
    assert len(embedded) == 4
    for one in embedded:
        assert base64.b64decode(one.partition(",")[2]).startswith(b"\x89PNG")
    others = set(page.references) - set(embedded)
    assert others == {"before.mp4", "after.mp4"}
    assert all((folder / one).is_file() for one in others)
    assert "://" not in re.sub(r"data:[^\"]+", "", text)
    files = {"before.mp4", "after.mp4", "side_by_side.mp4", "still.png", "index.html"}
    assert {path.name for path in folder.iterdir()} == files


def test_the_printed_text_fits_a_screen(made):
    _, printed = made
    lines = printed.splitlines()
    assert len(lines) <= 24
    assert max(map(len, lines)) <= 80
    assert "made/index.html" in printed
    quality = re.search(
        r"quality +mean PSNR to the true frames (\S+) dB, blending .* (\S+) dB", printed
    )
    assert float(quality[1]) > float(quality[2]) + 2
    assert re.search(r"parity +PSNR to PyTorch in fp32: \d+\.\d dB", printed)
    assert re.search(r"type +(bf16|fp16|fp32)[,;] ", printed)
    assert re.search(r"speed +\d+(\.\d+)? new frames/s", printed)
    assert "ifrnet video IN.mp4 OUT.mp4\n" in printed


def test_the_demo_prints_the_type_it_used_and_why():
    manifest = EngineManifest.read(demo_model("openvino"))
    passed = [proof for proof in manifest.proofs if proof.precision == "bf16"]
    assert passed  # The shipped model has a proof for CPUs with bfloat16.
    here = replace(passed[-1], instruction_sets=low_precision_sets(), real_db=74.93)
    manifest = replace(manifest, proofs=(replace(here, real_db=1.0), here))
    note = "demo_openvino.onnx is computed in fp32, because bf16 is not proved"
    for backend, notes, text in (
        (
            "openvino cpu bf16",
            [],
            "bf16, proved for this type of CPU (74.9 dB to fp32 on real frames)",
        ),
        ("openvino cpu fp32", [note], "not proved yet: run ifrnet prove demo"),
        ("openvino cpu fp32", ["a track was dropped"], "fp32, because this CPU has no faster"),
        ("onnxruntime cpu", [], "fp32, because OpenVINO is not installed"),
    ):
        assert text in demo._arithmetic(manifest, backend, notes)


def test_new_frames_and_blends_are_compared_with_the_true_frames():
    rng = np.random.default_rng(1)
    low = [np.full((12, 18, 3), 100, np.uint8) for _ in range(3)]
    low[2][6:10, 9:15] = rng.integers(0, 255, (4, 6, 3))
    true = [low[0], low[0], low[1], low[1] + np.uint8(10), low[2]]
    high = [low[0], low[0], low[1], low[1] + np.uint8(11), low[2], low[2]]
    compared = demo_video.compare(true, low, high)
    assert (compared.shown, compared.corner) == (1, (6, 9))
    assert compared.new_psnr == pytest.approx([float("inf"), 20 * np.log10(255)])
    blend = (low[1].astype(int) + low[2] + 1) // 2
    assert (compared.blended == blend).all()
    error = np.mean((blend - true[3].astype(int)) ** 2)
    assert compared.blended_psnr[1] == pytest.approx(10 * np.log10(255**2 / error))
    still = demo_video.still(compared)
    assert still.shape == (2 * 8 + 6, 3 * 12 + 2 * 6, 3)
    assert (still[-8:, :12] == blend[6:10, 9:15].repeat(2, axis=0).repeat(2, axis=1)).all()


def test_the_enlarged_part_fills_the_frame():
    """A point p is drawn at origin + ZOOM * (p - origin)."""
    image = np.zeros((12, 18, 3), np.uint8)
    compared = demo_video.Comparison([1.0], [1.0], 0, (6, 9), image, image, image)
    column, row = (float(share[:-1]) / 100 for share in demo_page._origin(compared).split())
    for origin, corner, length in ((column, 9, 18), (row, 6, 12)):
        first, last = corner / length, corner / length + 1 / demo_video.PART
        assert origin + demo_video.PART * (first - origin) == pytest.approx(0, abs=1e-3)
        assert origin + demo_video.PART * (last - origin) == pytest.approx(1, abs=1e-3)


def test_a_clip_that_is_too_short_is_refused(tmp_path, capsys):
    with pytest.raises(SystemExit) as left:
        demo.main(["--output", str(tmp_path / "made"), "--frames", "2"])
    assert left.value.code == 1
    assert "has 2 frames: give a clip with 3 or more" in capsys.readouterr().err


def test_a_clip_of_odd_size_becomes_playable_in_browsers(tmp_path):
    clip = write(tmp_path / "odd.mkv", 3, size=(49, 65), fmt="yuv444p", codec="ffv1")
    images = demo_video.write_every_other_frame(clip, tmp_path / "low.mp4")
    low = frames_of(tmp_path / "low.mp4")
    assert [image.shape for image in images] == [(48, 64, 3)] * 3
    assert [(frame.width, frame.height, frame.format.name) for frame in low] == [
        (64, 48, "yuv420p")
    ] * 2
