"""Sources with alpha: outputs that can store it have it; others declare none, with a note."""

import io
from fractions import Fraction

import av
import numpy as np
import pytest
from av.video.frame import VideoFrame

from alpha_clips import (
    SIZE,
    alpha_of,
    colours,
    frames_of,
    layered,
    metadata,
    noise,
    samples,
    write,
    write_noise,
    write_pngs,
    write_vp9,
)
from blend import Blend
from runtime import Interpolator, VideoError, interpolate_video
from runtime.__main__ import main
from runtime.video.interpolate import plan_video
from runtime.video.options import VideoOptions
from runtime.video.planes import has_alpha
from runtime.video.reading.source import open_source
from runtime.video.transparency import AlphaConverter
from runtime.video.writing.alpha import keeps_alpha
from runtime.video.writing.encoding import EncodeOptions, encoding_for
from runtime.video.writing.sink import open_sink
from video_parts import interpolate_in_segments

LOST = "the alpha channel is not carried over"
REMEDY = "choose codec vp9 (.webm, .mkv), ffv1 (.mkv) or prores (.mov, .mkv), or a folder of PNG"
LOSSLESS = VideoOptions(codec="ffv1", lossless=True, cuts=None)
FORMATS = (
    "yuva420p", "yuva422p", "yuva444p", "yuva420p10le", "yuva444p10le", "yuva422p12le",
    "yuva444p16le", "bgra", "gbrap10le", "gbrap12le", "gbrap16le", "ya8",
)  # fmt: skip
PLAIN = {
    "yuva420p": "yuv420p", "yuva444p10le": "yuv444p10le", "yuva422p12le": "yuv422p12le",
    "bgra": "bgr0", "gbrap12le": "gbrp12le", "ya8": "gray",
}  # fmt: skip


@pytest.fixture
def vfi():
    return Interpolator(Blend())


@pytest.fixture
def deep():
    return Interpolator(Blend(io="float"))


def blob(number, *, size=SIZE, hidden=0, shade=200):
    """RGB and alpha of a disc with a soft edge that moves 4 pixels a frame.

    Its colour is that of `shade`; `hidden` is the colour of transparent pixels.
    """
    y, x = np.mgrid[: size[0], : size[1]]
    distance = np.hypot(y - size[0] / 2, x - 20 - 4 * number)
    alpha = np.rint(np.clip((14 - distance) / 4, 0, 1) * 255).astype(np.uint8)
    visible = np.array([shade, shade // 2, 255 - shade])
    colour = np.where((alpha > 0)[..., None], visible, np.asarray(hidden))
    return np.broadcast_to(colour, (*size, 3)).astype(np.uint8), alpha


def blobs(fmt, count=3, **how):
    return [layered(*blob(number, **how), fmt) for number in range(count)]


@pytest.mark.parametrize("size", [(48, 64), (35, 51)])
@pytest.mark.parametrize("fmt", FORMATS)
def test_a_lossless_output_has_the_samples_of_the_source(tmp_path, deep, fmt, size):
    source, out = write_noise(tmp_path / "in.mkv", fmt, size=size), tmp_path / "out.mkv"
    report = interpolate_video(source, out, model=deep, options=LOSSLESS)
    assert report.notes == []
    made = frames_of(out)
    assert {frame.format.name for frame in made} == {fmt}
    assert len(made) == 8
    real = frames_of(source)
    for before, after in zip(real, made[::2], strict=True):
        assert all(map(np.array_equal, samples(before), samples(after)))
    for one, new, two in zip(real, made[1:7:2], real[1:], strict=False):
        first, second = (alpha_of(frame).astype(int) for frame in (one, two))
        assert np.abs(alpha_of(new) - (first + second) / 2).max() <= 1


@pytest.mark.parametrize(
    ("name", "codec", "fmt", "written"),
    [
        ("out.webm", None, "yuva420p", "yuva420p"),
        ("out.webm", None, "rgba", "yuva420p"),
        ("out.webm", None, "yuva444p10le", "yuva420p"),
        ("out.webm", "libvpx", "yuva420p", "yuva420p"),
        ("out.mkv", "vp9", "yuva420p", "yuva420p"),
        ("out.mkv", "ffv1", "rgba", "yuva420p"),
        ("out.mkv", "ffv1", "yuva444p10le", "yuva444p10le"),
        ("out.mov", "prores", "rgba", "yuva444p10le"),
        ("out.mov", "prores", "yuva420p", "yuva444p10le"),
        ("out.mkv", "prores", "yuva444p10le", "yuva444p12le"),
        ("out.mov", "qtrle", "rgba", "argb"),
        ("out.mov", "png", "rgba", "rgba"),
        ("out.mov", "png", "yuva444p10le", "rgba64be"),
        ("out.mov", "rawvideo", "rgba", "argb"),
    ],
)
@pytest.mark.parametrize("size", [(48, 64), (35, 51)])
def test_outputs_that_can_store_alpha_have_it(tmp_path, deep, name, codec, fmt, written, size):
    kept = "ffv1" if fmt.startswith("yuva") else "qtrle"
    frames = blobs("argb" if kept == "qtrle" else fmt, size=size)
    source = write(tmp_path / ("in.mkv" if kept == "ffv1" else "in.mov"), frames, kept)
    out = tmp_path / name
    options = VideoOptions(codec=codec, cuts=None)
    report = interpolate_video(source, out, model=deep, options=options)
    assert LOST not in " ".join(report.notes)
    made = frames_of(out)
    if codec == "prores":  # The decoder returns 10 or 12 bits, by the profile.
        assert {frame.format.name for frame in made} <= {"yuva444p10le", "yuva444p12le"}
    else:
        assert {frame.format.name for frame in made} == {written}
    assert len(made) == 6
    assert {(frame.height, frame.width) for frame in made} == {size}
    for number, frame in enumerate(made[:-1]):
        top = (1 << frame.format.components[-1].bits) - 1
        alpha = alpha_of(frame) * (255 / top)
        one, two = (blob(n, size=size)[1] for n in (number // 2, (number + 1) // 2))
        assert np.abs(alpha - (one.astype(float) + two) / 2).mean() < 1.5
        rgb = frame.reformat(format="rgb24").to_ndarray()
        assert np.abs(rgb[alpha > 250].mean(0) - (200, 100, 55)).max() < 4


@pytest.mark.parametrize("name", ["out.webm", "out.mkv"])
def test_vp9_declares_its_alpha(tmp_path, vfi, name):
    source, out = write_vp9(tmp_path / "in.webm"), tmp_path / name
    options = VideoOptions(codec="vp9", lossless=True, cuts=None)
    report = interpolate_video(source, out, model=vfi, options=options)
    assert report.notes == []
    assert metadata(out)["alpha_mode"] == "1"
    for before, after in zip(frames_of(source), frames_of(out)[::2], strict=True):
        assert all(map(np.array_equal, samples(before), samples(after)))


@pytest.mark.parametrize("fmt", ["rgba", "rgba64be", "ya8", "yuva420p", "gbrap10le"])
def test_images_have_alpha(tmp_path, deep, fmt):
    if fmt in ("rgba", "rgba64be", "ya8"):
        source = write_pngs(tmp_path / "in", [noise(fmt, number) for number in range(3)])
        real = [frames_of(file)[0] for file in sorted(source.iterdir())]
    else:
        source = write_noise(tmp_path / "in.mkv", fmt, count=3)
        real = frames_of(source)
    assert LOST not in " ".join(plan_video(source, tmp_path / "out").notes)
    report = interpolate_video(source, tmp_path / "out", model=deep)
    assert report.notes == []
    made = [frames_of(file)[0] for file in sorted((tmp_path / "out").iterdir())]
    bits = real[0].format.components[0].bits
    assert {frame.format.name for frame in made} == {"rgba" if bits == 8 else "rgba64be"}
    for before, after in zip(real, made[::2], strict=True):
        scale = 65535 / ((1 << bits) - 1) if bits > 8 else 1
        assert np.abs(alpha_of(after) - alpha_of(before) * scale).max() <= 0.5
        if fmt.startswith("rgba"):
            assert all(map(np.array_equal, samples(before), samples(after)))


@pytest.mark.parametrize("fmt", ["yuva420p", "yuva422p10le", "gbrap10le"])
@pytest.mark.parametrize("mode", ["interpolate", "blend"])
def test_opaque_frames_give_the_colours_of_a_source_without_alpha(tmp_path, deep, fmt, mode):
    plain = [noise(fmt.replace("a", "", 1), number) for number in range(3)]
    converter = AlphaConverter()
    opaque = [converter.fitted(frame, fmt) for frame in plain]
    sources = write(tmp_path / "a.mkv", opaque), write(tmp_path / "b.mkv", plain)
    options = VideoOptions(codec="ffv1", lossless=True, cuts=None, alpha=mode)
    made = []
    for source in sources:
        out = source.with_suffix(".out.mkv")
        interpolate_video(source, out, model=deep, factor=3, options=options)
        made.append(frames_of(out))
    assert [len(frames) for frames in made] == [9, 9]
    for one, two in zip(*made, strict=True):
        assert (alpha_of(one) == (1 << one.format.components[-1].bits) - 1).all()
        assert all(map(np.array_equal, colours(one), colours(two)))


def test_a_part_has_the_frames_of_the_whole_with_alpha(tmp_path, vfi):
    source = write_vp9(tmp_path / "in.webm", 30)
    part = VideoOptions(codec="ffv1", lossless=True, cuts=None, start="0.5", end="0.8")
    interpolate_video(source, tmp_path / "part.mkv", model=vfi, options=part)
    interpolate_video(source, tmp_path / "whole.mkv", model=vfi, options=LOSSLESS)
    whole, made = frames_of(tmp_path / "whole.mkv"), frames_of(tmp_path / "part.mkv")
    assert len(made) == 15
    for one, two in zip(whole[25:40], made, strict=True):
        assert all(map(np.array_equal, samples(one), samples(two)))


@pytest.mark.parametrize(("name", "codec"), [("out.webm", None), ("out.mkv", "ffv1")])
def test_segments_have_the_alpha_of_a_run_in_one_piece(tmp_path, vfi, name, codec):
    source, out = write_vp9(tmp_path / "in.webm", 30), tmp_path / name
    options = VideoOptions(codec=codec, cuts=None, lossless=True)
    planned = interpolate_in_segments(source, out, vfi, options)
    assert len(planned.segments) > 1
    interpolate_video(source, whole := tmp_path / f"whole{name}", model=vfi, options=options)
    assert metadata(out).get("alpha_mode") == metadata(whole).get("alpha_mode")
    made, expected = frames_of(out), frames_of(whole)
    assert len(made) == len(expected) == 60
    assert {frame.format.name for frame in made} == {"yuva420p"}
    for one, two in zip(made, expected, strict=True):
        assert one.pts == two.pts
        assert all(map(np.array_equal, samples(one), samples(two)))


@pytest.mark.parametrize(("mode", "passes"), [("interpolate", 2), ("blend", 1), ("none", 1)])
def test_segments_take_the_mode(tmp_path, mode, passes):
    source, out, backend = write_vp9(tmp_path / "in.webm", 30), tmp_path / "out.mkv", Blend()
    options = VideoOptions(codec="ffv1", cuts=None, alpha=mode)
    interpolate_in_segments(source, out, Interpolator(backend), options)
    assert len(backend.calls) == 29 * passes
    assert has_alpha(frames_of(out)[0].format.name) == (mode != "none")


@pytest.mark.parametrize("encoder", ["libx264", "libx265", "libsvtav1", "h264_nvenc"])
def test_encoders_whose_alpha_players_do_not_show_are_not_tried(monkeypatch, encoder):
    monkeypatch.setattr(av, "open", None)
    assert not keeps_alpha(encoder, (), "yuva420p", "matroska")


@pytest.mark.parametrize(
    ("name", "codec", "preset", "by"),
    [
        ("out.mp4", None, None, "libx264 in .mp4"),
        ("out.mkv", None, None, "libx264 in .mkv"),
        ("out.mkv", "hevc", None, "libx265 in .mkv"),
        ("out.mkv", "av1", "12", "libsvtav1 in .mkv"),
        ("out.mp4", "vp9", None, "libvpx-vp9 in .mp4"),
        ("out.mov", "prores", "hq", "prores_ks in .mov"),
    ],
)
@pytest.mark.parametrize("webm", [True, False])
def test_other_outputs_have_no_alpha_and_declare_none(tmp_path, vfi, name, codec, preset, by, webm):
    source = tmp_path / ("in.webm" if webm else "in.mkv")
    (write_vp9 if webm else write_noise)(source)
    options, told = VideoOptions(codec=codec, preset=preset, cuts=None), []
    report = interpolate_video(
        source, tmp_path / name, model=vfi, options=options, on_note=told.append
    )
    (note,) = [note for note in report.notes if "alpha" in note]
    assert note.startswith(f"{LOST} by {by}: {REMEDY}")
    assert note in told
    assert note in plan_video(source, tmp_path / f"plan-{name}", options=options).notes
    assert "alpha_mode" not in metadata(tmp_path / name)
    made = frames_of(tmp_path / name)
    assert len(made) == 8
    assert not any(has_alpha(frame.format.name) for frame in made)


@pytest.mark.parametrize(("fmt", "expected"), PLAIN.items())
def test_none_writes_no_alpha_and_keeps_the_colours(tmp_path, vfi, fmt, expected):
    source, out = write_noise(tmp_path / "in.mkv", fmt), tmp_path / "out.mkv"
    options = VideoOptions(codec="ffv1", lossless=True, cuts=None, alpha="none")
    assert LOST in plan_video(source, out, options=options).notes
    assert interpolate_video(source, out, model=vfi, options=options).notes.count(LOST) == 1
    made = frames_of(out)
    assert {frame.format.name for frame in made} == {expected}
    for real, kept in zip(frames_of(source), made[::2], strict=True):
        assert all(map(np.array_equal, colours(real), colours(kept)))


@pytest.mark.parametrize("name", ["out.webm", "out"])
def test_none_is_for_every_output(tmp_path, vfi, name):
    source, out = write_vp9(tmp_path / "in.webm"), tmp_path / name
    options = VideoOptions(cuts=None, alpha="none")
    assert plan_video(source, out, options=options).notes == [LOST]
    assert interpolate_video(source, out, model=vfi, options=options).notes == [LOST]
    file = out / "000001.png" if out.is_dir() else out
    assert not has_alpha(frames_of(file)[0].format.name)
    assert "alpha_mode" not in metadata(file)


def test_the_alpha_tag_is_removed_in_any_spelling(tmp_path):
    source, out = write_noise(tmp_path / "in.mkv", "yuv420p"), tmp_path / "out.mkv"
    with open_source(source) as opened:
        info = opened.info
        info.metadata["Alpha_Mode"] = info.video_metadata["ALPHA_MODE"] = "1"
        with open_sink(out, like=info, rate=info.rate) as sink:
            sink.write(VideoFrame(SIZE[1], SIZE[0], "yuv420p"), Fraction(0))
    assert sink.notes == []
    assert "alpha_mode" not in metadata(out)


def test_a_source_with_alpha_mode_0_has_no_alpha(tmp_path, vfi):
    source = write_noise(tmp_path / "in.mkv", "yuv420p", tags={"ALPHA_MODE": "0"})
    report = interpolate_video(source, tmp_path / "out.mkv", model=vfi, options=LOSSLESS)
    assert report.notes == []


def test_an_encoder_that_drops_the_alpha_it_accepts_gets_opaque_frames(tmp_path, vfi):
    source, out = write_noise(tmp_path / "in.mkv", "bgra"), tmp_path / "out.mov"
    report = interpolate_video(source, out, model=vfi, options=VideoOptions(codec="dxv"))
    assert report.notes[0].startswith(f"{LOST} by dxv in .mov: ")
    assert report.notes[1:] == ["pixel format: rgba in the output, bgra in the source"]
    made = frames_of(out)
    assert len(made) == 8
    for frame in made:
        assert (frame.to_ndarray(format="rgba")[..., 3] == 255).all()


@pytest.mark.parametrize(
    ("encoder", "fmt", "lossless", "expected"),
    [
        ("ffv1", "gbrap12le", True, "gbrap12le"),
        ("ffv1", "bgra", True, "bgra"),
        ("ffv1", "gbrap10le", False, "yuva420p10le"),
        ("ffv1", "ya8", False, "ya8"),
        ("libvpx-vp9", "yuva444p", True, "yuva420p"),
        ("png", "ya8", False, "ya8"),
        ("png", "yuva420p", False, "rgba"),
        ("jpeg2000", "yuva422p10le", False, "yuva422p10le"),
    ],
)
def test_the_nearest_pixel_format_with_alpha_is_written(tmp_path, encoder, fmt, lossless, expected):
    with open_source(write_noise(tmp_path / "in.mkv", fmt)) as source:
        suffix = ".mov" if encoder in ("png", "jpeg2000") else ".mkv"
        choice = EncodeOptions(codec=encoder, lossless=lossless)
        encoding = encoding_for(source.info, suffix, choice)
    assert encoding.alpha
    assert encoding.pixel_format == expected
    if encoder == "libvpx-vp9":
        assert encoding.options["auto-alt-ref"] == "0"
    assert [note[:12] for note in encoding.notes] == (["pixel format"] if fmt != expected else [])


@pytest.mark.parametrize(("fmt", "expected"), [("yuva420p", "yuv420p"), ("ya8", "gray")])
def test_y4m_has_no_alpha(tmp_path, vfi, fmt, expected):
    source, stream = write_noise(tmp_path / "in.mkv", fmt), io.BytesIO()
    with (
        open_source(source) as opened,
        open_sink(stream, like=opened.info, rate=opened.info.rate) as sink,
    ):
        assert not sink.alpha
        for number, item in enumerate(opened):
            sink.write(AlphaConverter().without_alpha(item.frame), Fraction(number, 25))
    assert len(sink.notes) == 1
    assert sink.notes[0].startswith(f"{LOST} by Y4M: {REMEDY}")
    assert plan_video(source, "-").notes == sink.notes
    (tmp_path / "out.y4m").write_bytes(stream.getvalue())
    for before, after in zip(frames_of(source), frames_of(tmp_path / "out.y4m"), strict=True):
        assert after.format.name == expected
        assert all(map(np.array_equal, colours(before), colours(after)))


def palettes(transparent):
    frames = [noise("pal8", number) for number in range(3)]
    for frame in frames:
        palette = np.frombuffer(frame.planes[1], np.uint8).reshape(256, 4).copy()
        palette[:, 3] = 255
        palette[:100, 3] = 0 if transparent else 255
        frame.planes[1].update(palette.tobytes())
    return frames


def test_transparent_colours_of_a_palette_stay_transparent(tmp_path, vfi):
    frames = palettes(True)
    source, out = write_pngs(tmp_path / "in", frames), tmp_path / "out.mkv"
    report = interpolate_video(source, out, model=vfi, options=LOSSLESS)
    assert report.notes == []
    made = frames_of(out)
    assert {frame.format.name for frame in made} == {"bgra"}
    for before, after in zip(frames, made[::2], strict=True):
        palette = np.frombuffer(before.planes[1], np.uint8).reshape(256, 4)
        numbers = np.frombuffer(before.planes[0], np.uint8).reshape(SIZE)
        assert np.array_equal(samples(after)[0].reshape(*SIZE, 4), palette[numbers])


def test_an_opaque_palette_has_no_alpha(tmp_path, vfi):
    source, out = write_pngs(tmp_path / "in", palettes(False)), tmp_path / "out.webm"
    report = interpolate_video(source, out, model=vfi)
    assert "alpha" not in " ".join(report.notes)
    assert "alpha_mode" not in metadata(out)


def test_alpha_that_begins_after_the_first_frame_is_noted(tmp_path, vfi):
    frames = [noise("rgb24", 0), noise("rgba", 1), noise("rgba", 2), noise("rgb24", 3)]
    source, out = write_pngs(tmp_path / "in", frames), tmp_path / "out.webm"
    report = interpolate_video(source, out, model=vfi)
    assert (
        "2 frames with an alpha channel, which the first one does not have: it is not carried over"
    ) in report.notes
    assert not has_alpha(frames_of(out)[0].format.name)


def test_frames_without_alpha_after_the_first_are_opaque(tmp_path, vfi):
    frames = [noise("rgba", 0), noise("rgb24", 1), noise("rgb24", 2)]
    source, out = write_pngs(tmp_path / "in", frames), tmp_path / "out.mkv"
    report = interpolate_video(source, out, model=vfi, options=LOSSLESS)
    assert report.notes == []
    made = frames_of(out)
    assert np.array_equal(alpha_of(made[0]), alpha_of(frames[0]))
    half = (alpha_of(frames[0]).astype(int) + 255) / 2
    assert np.abs(alpha_of(made[1]) - half).max() <= 1
    assert len(made) == 6
    assert all((alpha_of(frame) == 255).all() for frame in made[2:])


def test_an_unknown_mode_is_an_error():
    with pytest.raises(VideoError, match="alpha is 'mix': use one of interpolate, blend, none"):
        VideoOptions(alpha="mix")


@pytest.fixture
def command(tmp_path, vfi, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(Interpolator, "open", lambda *_, **__: vfi)

    def run(*arguments):
        with pytest.raises(SystemExit) as left:
            main([*arguments, "--model", "m", "--cuts", "0"])
        return left.value.code

    return run


def test_the_command_prints_the_note_once_before_the_first_frame(
    tmp_path, command, capsys, monkeypatch
):
    import runtime.video.arguments as shared

    write_noise(tmp_path / "in.mkv", "yuva420p")
    before = []
    update = shared.FrameBar.update

    def watched(bar, *how):
        before.append(capsys.readouterr().out)
        update(bar, *how)

    monkeypatch.setattr(shared.FrameBar, "update", watched)
    assert command("in.mkv", "out.mp4", "--json", "said.json") == 0
    after = capsys.readouterr().out
    assert before[0].startswith(f"note: {LOST} by libx264 in .mp4: {REMEDY}")
    assert LOST not in "".join([*before[1:], after])
    assert "4 -> 8 frames" in after
    assert LOST in (tmp_path / "said.json").read_text()


@pytest.mark.parametrize("mode", ["interpolate", "blend", "none"])
def test_the_command_takes_the_mode(tmp_path, command, capsys, mode):
    write_vp9(tmp_path / "in.webm", 2)
    assert command("in.webm", "out.webm", "--alpha", mode) == 0
    assert (f"note: {LOST}\n" in capsys.readouterr().out) == (mode == "none")
    shown = frames_of(tmp_path / "out.webm")[0]
    assert has_alpha(shown.format.name) == (mode != "none")


def test_with_y4m_on_stdout_the_note_is_on_stderr(tmp_path, command, capfdbinary):
    write_noise(tmp_path / "in.mkv", "yuva420p")
    assert command("in.mkv", "-") == 0
    out, errors = capfdbinary.readouterr()
    assert out.startswith(b"YUV4MPEG2 ")
    assert errors.count(LOST.encode()) == 1
