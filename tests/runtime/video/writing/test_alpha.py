"""Sources with alpha: the result has none and declares none, and a note says so in time."""

import io
from fractions import Fraction

import av
import numpy as np
import pytest
from av.video.format import VideoFormat
from av.video.frame import VideoFrame

from blend import Blend
from runtime import Interpolator, interpolate_video
from runtime.__main__ import main
from runtime.video.colour import ColourConverter
from runtime.video.interpolate import plan_video
from runtime.video.options import VideoOptions
from runtime.video.reading.source import open_source
from runtime.video.segments.join import join
from runtime.video.segments.plan import scan
from runtime.video.writing.alpha import has_alpha, opaque, without_alpha
from runtime.video.writing.encoding import EncodeOptions, encoding_for
from runtime.video.writing.sink import open_sink
from video_clips import frames_of
from video_parts import interpolate_in_segments

SIZE = 48, 64
NOTE = "the alpha channel is not carried over"
LOSSLESS = VideoOptions(codec="ffv1", lossless=True, cuts=None)


@pytest.fixture
def vfi():
    return Interpolator(Blend())


def transparent(fmt, number, size=SIZE):
    """A frame of noise, also in its alpha."""
    frame = VideoFrame(size[1], size[0], fmt)
    noise = np.random.default_rng(number)
    bits = frame.format.components[0].bits
    for plane in frame.planes:
        dtype = np.uint8 if bits <= 8 else np.uint16
        count = plane.buffer_size // dtype().itemsize
        plane.update(noise.integers(0, 1 << bits, count, dtype).tobytes())
    return frame


def write(path, fmt, codec="ffv1", *, count=4, options=None, tags=()):
    with av.open(str(path), "w") as out:
        stream = out.add_stream(codec, rate=25, options=options or {})
        stream.width, stream.height, stream.pix_fmt = SIZE[1], SIZE[0], fmt
        stream.metadata.update(dict(tags))
        for number in range(count):
            frame = transparent(fmt, number)
            frame.pts = number
            out.mux(stream.encode(frame))
        out.mux(stream.encode(None))
    return path


def write_vp9(path, count=4):
    """Writes a WebM as FFmpeg does: alpha in BlockAdditions, and the tag alpha_mode."""
    options = {"auto-alt-ref": "0", "g": "10", "lossless": "1"}
    return write(
        path, "yuva420p", "libvpx-vp9", count=count, options=options, tags={"alpha_mode": "1"}
    )


def colours(frame):
    """Samples without alpha: R, G, B or Y, U, V as arrays."""
    form = frame.format
    dtype = np.uint8 if form.components[0].bits <= 8 else np.uint16
    if form.is_planar or len(frame.planes) > 1:
        arrays = [
            np.frombuffer(p, dtype).reshape(p.height, -1)[:, : p.width] for p in frame.planes[:3]
        ]
        return [arrays[k] for k in (2, 0, 1)] if form.is_rgb else arrays
    order = {"rgb": (0, 1, 2), "bgr": (2, 1, 0), "ya": (0,), "gray": (0,)}
    (plane,) = frame.planes
    samples = np.frombuffer(plane, dtype).reshape(plane.height, -1)
    picked = next(place for name, place in order.items() if form.name.startswith(name))
    count = form.padded_bits_per_pixel // (8 * dtype().itemsize)
    pixels = samples[:, : plane.width * count].reshape(plane.height, plane.width, count)
    return [pixels[..., k] for k in picked]


def metadata(path):
    with av.open(str(path)) as clip:
        return {**clip.metadata, **clip.streams.video[0].metadata}


FORMATS = {
    "yuva420p": "yuv420p", "yuva422p": "yuv422p", "yuva444p": "yuv444p",
    "yuva420p10le": "yuv420p10le", "yuva444p10le": "yuv444p10le", "yuva422p12le": "yuv422p12le",
    "yuva444p16le": "yuv444p16le", "bgra": "bgr0", "gbrap10le": "gbrp10le",
    "gbrap12le": "gbrp12le", "gbrap16le": "gbrp16le", "rgba64le": "gbrp16le", "ya8": "gray",
}  # fmt: skip


@pytest.mark.parametrize(("fmt", "expected"), FORMATS.items())
def test_lossless_results_keep_colours_without_alpha(tmp_path, vfi, fmt, expected):
    source, out = write(tmp_path / "in.mkv", fmt), tmp_path / "out.mkv"
    told = []
    report = interpolate_video(source, out, model=vfi, options=LOSSLESS, on_note=told.append)
    assert report.notes.count(NOTE) == 1
    assert NOTE in told
    made = frames_of(out)
    assert {frame.format.name for frame in made} == {expected}
    assert len(made) == 8
    for real, kept in zip(frames_of(source), made[::2], strict=True):
        assert real.format.name == ("gbrap16le" if fmt == "rgba64le" else fmt)
        for before, after in zip(colours(real), colours(kept), strict=True):
            assert np.array_equal(before, after)


@pytest.mark.parametrize("name", ["out.webm", "out.mkv", "out.mp4"])
def test_alpha_of_vp9_is_neither_written_nor_declared(tmp_path, vfi, name):
    source, out = write_vp9(tmp_path / "in.webm"), tmp_path / name
    assert {tag.lower(): value for tag, value in metadata(source).items()}["alpha_mode"] == "1"
    report = interpolate_video(source, out, model=vfi, options=VideoOptions(codec="vp9"))
    assert report.notes == [NOTE]
    assert "alpha_mode" not in {tag.lower() for tag in metadata(out)}
    assert {frame.format.name for frame in frames_of(out)} == {"yuv420p"}


def test_the_alpha_tag_is_removed_in_any_spelling(tmp_path):
    source, out = write(tmp_path / "in.mkv", "yuv420p"), tmp_path / "out.mkv"
    with open_source(source) as opened:
        info = opened.info
        info.metadata["Alpha_Mode"] = info.video_metadata["ALPHA_MODE"] = "1"
        with open_sink(out, like=info, rate=info.rate) as sink:
            sink.write(VideoFrame(SIZE[1], SIZE[0], "yuv420p"), Fraction(0))
    assert sink.notes == [NOTE]
    assert "alpha_mode" not in {tag.lower() for tag in metadata(out)}


def test_a_source_with_alpha_mode_0_has_no_alpha(tmp_path, vfi):
    source = write(tmp_path / "in.mkv", "yuv420p", tags={"ALPHA_MODE": "0"})
    report = interpolate_video(source, tmp_path / "out.mkv", model=vfi, options=LOSSLESS)
    assert report.notes == []


@pytest.mark.parametrize("how", ["cut", "in one piece"])
def test_segments_have_no_alpha(tmp_path, vfi, how):
    source, out = write_vp9(tmp_path / "in.webm", 30), tmp_path / "out.webm"
    options = VideoOptions(cuts=None)
    if how == "cut":
        decided = interpolate_in_segments(source, out, vfi, options)
        assert len(decided.segments) > 1
        files = sorted(tmp_path.glob("*.segment"))
        found = scan(source, options, Fraction(1))
        assert NOTE in join(source, out, files, mode_of(found), options)
    else:
        assert NOTE in interpolate_video(source, out, model=vfi, options=options).notes
    assert "alpha_mode" not in {tag.lower() for tag in metadata(out)}
    assert len(frames_of(out)) == 60


def mode_of(found):
    from runtime.video.interpolate import mode_for

    return mode_for(found.info, "out.webm", 2, None, VideoOptions())


ENCODERS = [
    *((name, True) for name in ("ffv1", "libvpx-vp9", "libx264", "libx265")),
    *((name, False) for name in (
        "ffv1", "prores_ks", "libvpx-vp9", "libvpx", "libx265", "png", "qtrle", "ffvhuff",
        "magicyuv", "utvideo", "cfhd", "rawvideo", "libx264",
    )),
]  # fmt: skip


@pytest.mark.parametrize("fmt", ["yuva420p", "yuva444p10le", "bgra", "gbrap12le", "ya8"])
@pytest.mark.parametrize(("encoder", "lossless"), ENCODERS)
def test_encoders_get_frames_without_alpha(tmp_path, encoder, lossless, fmt):
    with open_source(write(tmp_path / "in.mkv", fmt)) as source:
        encoding = encoding_for(
            source.info, ".mkv", EncodeOptions(codec=encoder, lossless=lossless)
        )
    assert not has_alpha(encoding.pixel_format)
    assert encoding.notes[0] == NOTE
    assert NOTE not in encoding.notes[1:]


def test_an_encoder_that_needs_alpha_gets_it_opaque(tmp_path, vfi):
    source, out = write(tmp_path / "in.mkv", "bgra"), tmp_path / "out.mov"
    report = interpolate_video(source, out, model=vfi, options=VideoOptions(codec="dxv"))
    assert report.notes == [NOTE, "pixel format: rgba in the output, bgra in the source"]
    for frame in frames_of(out):
        assert (frame.to_ndarray(format="rgba")[..., 3] == 255).all()


@pytest.mark.parametrize("fmt", FORMATS)
@pytest.mark.parametrize("size", [(48, 64), (35, 51)])
def test_colour_samples_are_not_changed(fmt, size):
    before = transparent(fmt, 0, size)
    after = opaque(before, ColourConverter())
    assert after.format.name == without_alpha(fmt)
    assert all(map(np.array_equal, colours(before), colours(after)))
    assert opaque(after, ColourConverter()) is after


def test_alpha_of_prores_4444_is_dropped(tmp_path, vfi):
    source, out = write(tmp_path / "in.mkv", "yuva444p10le"), tmp_path / "out.mov"
    report = interpolate_video(source, out, model=vfi, options=VideoOptions(codec="prores"))
    assert report.notes[1:] == [NOTE]  # The note before it: the model takes 8 bits.
    assert not any(has_alpha(frame.format.name) for frame in frames_of(out))


def test_every_format_with_alpha_has_an_opaque_format():
    found = [name for name in sorted(av.video.format.names) if has_alpha(name)]
    assert len(found) > 40
    for name in found:
        other = without_alpha(name)
        assert not has_alpha(other), name
        if name.startswith(("gbrap32", "rgba128")):
            continue  # 32-bit integers, which no decoder outputs, become 16-bit.
        before, after = VideoFormat(name, 64, 64), VideoFormat(other, 64, 64)
        assert len(after.components) == len(before.components) - 1, name
        assert before.is_rgb == after.is_rgb, name
        for one, two in zip(after.components, before.components[:-1], strict=True):
            assert (one.bits, one.width, one.height) == (two.bits, two.width, two.height), name


@pytest.mark.parametrize(("fmt", "expected"), [("yuva420p", "yuv420p"), ("ya8", "gray")])
def test_y4m_has_no_alpha(tmp_path, fmt, expected):
    stream = io.BytesIO()
    with (
        open_source(write(tmp_path / "in.mkv", fmt)) as source,
        open_sink(stream, like=source.info, rate=source.info.rate) as sink,
    ):
        for number, item in enumerate(source):
            sink.write(item.frame, Fraction(number, 25))
    assert sink.notes == [NOTE]
    (tmp_path / "out.y4m").write_bytes(stream.getvalue())
    for before, after in zip(
        frames_of(tmp_path / "in.mkv"), frames_of(tmp_path / "out.y4m"), strict=True
    ):
        assert after.format.name == expected
        assert all(map(np.array_equal, colours(before), colours(after)))


def test_a_folder_of_images_has_no_alpha(tmp_path, vfi):
    source = write(tmp_path / "in.mkv", "bgra")
    assert NOTE in plan_video(source, tmp_path / "out").notes
    report = interpolate_video(source, tmp_path / "out", model=vfi)
    assert report.notes == [NOTE]
    first = frames_of(tmp_path / "out" / "000001.png")[0]
    assert first.format.name == "rgb24"
    # Back again: without alpha there is no note.
    report = interpolate_video(tmp_path / "out", tmp_path / "out.mkv", model=vfi, options=LOSSLESS)
    assert NOTE not in report.notes


def test_transparent_colours_of_a_palette_are_dropped(tmp_path, vfi):
    (tmp_path / "in").mkdir()
    context = av.CodecContext.create("png", "w")
    context.width, context.height, context.pix_fmt = SIZE[1], SIZE[0], "pal8"
    context.time_base = Fraction(1, 25)
    context.thread_type = "SLICE"
    for number in range(2):
        frame = transparent("pal8", number)
        (tmp_path / "in" / f"{number}.png").write_bytes(b"".join(map(bytes, context.encode(frame))))
    report = interpolate_video(tmp_path / "in", tmp_path / "out.mkv", model=vfi)
    assert "transparent colours of the palette, if there are any, are written opaque" in (
        report.notes
    )


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

    write(tmp_path / "in.mkv", "yuva420p")
    before = []
    update = shared.FrameBar.update

    def watched(bar, *how):
        before.append(capsys.readouterr().out)
        update(bar, *how)

    monkeypatch.setattr(shared.FrameBar, "update", watched)
    assert command("in.mkv", "out.mkv", "--codec", "ffv1", "--json", "said.json") == 0
    after = capsys.readouterr().out
    assert before[0] == f"note: {NOTE}\n"
    assert NOTE not in "".join([*before[1:], after])
    assert "4 -> 8 frames" in after
    assert NOTE in (tmp_path / "said.json").read_text()


def test_alpha_that_is_found_later_is_noted_at_the_end(tmp_path, command, capsys):
    source = write_vp9(tmp_path / "in.webm", 12)
    with av.open(str(source)) as clip:
        packet = bytes([p for p in clip.demux(video=0) if p.size][5])
    source.write_bytes(source.read_bytes().replace(packet, bytes(len(packet))))
    assert command("in.webm", "out.mkv") == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == f"note: {NOTE}"
    assert [line for line in lines[1:] if line.startswith("note")] == [
        "note: damaged packets skipped: 1"
    ]


def test_with_y4m_on_stdout_the_note_is_on_stderr(tmp_path, command, capfdbinary):
    write(tmp_path / "in.mkv", "yuva420p")
    assert command("in.mkv", "-") == 0
    out, errors = capfdbinary.readouterr()
    assert out.startswith(b"YUV4MPEG2 ")
    assert errors.count(NOTE.encode()) == 1
