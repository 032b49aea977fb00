"""The nominal rate: what the file declares, checked against its stamps."""

import math
from fractions import Fraction

import av
import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtime.video.reading.packets import ReadAhead
from runtime.video.reading.rate import STAMPS, FilmRate, NominalRate, nominal_rate
from runtime.video.reading.source import open_source
from video_clips import write

MILLISECOND = Fraction(1, 1000)
NTSC = [Fraction(1000 * rate, 1001) for rate in (24, 30, 60)]
USUAL = [*map(Fraction, (1, 5, 7, 10, 12, 15, 16, 18, 24, 25, 30, 48, 50, 60, 72, 90, 120))]


def stamps_of(rate, tick, count=STAMPS, *, start=0, rounded=round):
    return [rounded((start + k / rate) / tick) * tick for k in range(count)]


@pytest.mark.parametrize("rate", [*USUAL, *NTSC, Fraction(25, 2), Fraction(1, 3)])
@pytest.mark.parametrize("declared", [[], [Fraction(1000)], [Fraction(600), Fraction(100)]])
@pytest.mark.parametrize("rounded", [round, math.floor])
@pytest.mark.parametrize("start", [0, Fraction(123_457, 90_000)])
def test_a_wrong_declaration_is_replaced_by_the_rate_of_the_stamps(rate, declared, rounded, start):
    stamps = stamps_of(rate, MILLISECOND, start=start, rounded=rounded)
    assert nominal_rate(declared, stamps, MILLISECOND) == (rate, True)


def pulled_down(film, count, *, long_first=False):
    """Stamps of film frames that are shown for two and three fields in turn, in seconds."""
    fields = [0]
    for k in range(count - 1):
        fields.append(fields[-1] + 2 + (k + long_first) % 2)
    return [n / (film * Fraction(5, 2)) for n in fields]


@pytest.mark.parametrize("film", [Fraction(24000, 1001), Fraction(24)])
@pytest.mark.parametrize("tick", [MILLISECOND, Fraction(1, 90_000)])
@pytest.mark.parametrize("long_first", [False, True])
def test_film_with_the_times_of_pulldown_is_recognised(film, tick, long_first):
    exact = pulled_down(film, 48, long_first=long_first)
    stamps = [round(time / tick) * tick for time in exact]
    declared = [Fraction(60000, 1001), Fraction(30000, 1001)]
    found = nominal_rate(declared, stamps, tick)
    assert found == (film, False)
    assert isinstance(found, FilmRate)


@pytest.mark.parametrize(
    "stamps",
    [
        pulled_down(Fraction(24), 7),
        pulled_down(Fraction(20), 20),
        [Fraction(n, 60) for n in (0, 2, 4, 7, 10, 12, 15, 17, 20, 22)],
    ],
)
def test_other_times_are_not_those_of_pulldown(stamps):
    found = nominal_rate([Fraction(30)], stamps, Fraction(1, 90_000))
    assert not isinstance(found, FilmRate)


@given(st.fractions(1, 250), st.sampled_from([1000, 600, 90_000, 12_800]), st.integers(4, STAMPS))
def test_a_declared_rate_is_kept_where_the_stamps_fit(rate, ticks, count):
    rate = rate.limit_denominator(1001)
    tick = Fraction(1, ticks)
    kept = nominal_rate([rate, Fraction(1)], stamps_of(rate, tick, count), tick)
    assert kept.regular
    assert kept.rate == pytest.approx(rate, rel=1e-5)  # A rounded rate stands for the usual one.


@pytest.mark.parametrize(
    ("declared", "meant"),
    [
        (Fraction(19001, 317), Fraction(60_000, 1001)),
        (Fraction(2997, 100), Fraction(30_000, 1001)),
        (Fraction(23_976, 1000), Fraction(24_000, 1001)),
    ],
)
def test_a_rounded_declaration_is_made_exact(declared, meant):
    assert nominal_rate([declared], [], MILLISECOND) == (meant, True)
    assert nominal_rate([declared], stamps_of(meant, MILLISECOND), MILLISECOND) == (meant, True)


def test_stamps_that_are_a_tick_early_and_late_in_turn_fit_the_declared_rate():
    stamps = [(40 * k + k % 2) * MILLISECOND for k in range(STAMPS)]
    assert nominal_rate([Fraction(25)], stamps, MILLISECOND) == NominalRate(Fraction(25), True)
    wider = [(40 * k + 2 * (k % 2)) * MILLISECOND for k in range(STAMPS)]
    assert nominal_rate([Fraction(25)], wider, MILLISECOND) == NominalRate(Fraction(25), False)


def test_dropped_frames_do_not_change_the_rate():
    stamps = stamps_of(Fraction(30), MILLISECOND)
    del stamps[5], stamps[9:12], stamps[30]
    assert nominal_rate([Fraction(1000)], stamps, MILLISECOND) == (30, True)


def test_soft_telecine_has_its_average_rate():
    fields = Fraction(1001, 60_000)
    stamps = [fields * (5 * (k // 2) + 2 * (k % 2)) for k in range(STAMPS)]
    film = Fraction(24_000, 1001)
    found = nominal_rate([Fraction(60_000, 1001), film], stamps, Fraction(1, 90_000))
    assert found == (film, False)


def test_a_variable_rate_has_the_average_of_the_track_or_that_of_the_usual_distance():
    stamps = [Fraction(k) + Fraction(k % 3, 7) for k in range(STAMPS)]
    guess = [Fraction(1000)]
    assert nominal_rate(guess, stamps, MILLISECOND, Fraction(40)) == (40, False)
    assert nominal_rate(guess, stamps, MILLISECOND) == (Fraction(7, 8), False)


def test_too_few_stamps_leave_the_declaration():
    assert nominal_rate([None, Fraction(0), Fraction(25)], [Fraction(1)] * 3, MILLISECOND) == (
        25,
        True,
    )
    assert nominal_rate([None], [], MILLISECOND) is None


@given(
    st.lists(st.integers(0, 10_000), min_size=4, unique=True).map(sorted),
    st.lists(st.one_of(st.none(), st.fractions(0, 1000))),
)
def test_any_stamps_have_a_rate(stamps, declared):
    found = nominal_rate(declared, [stamp * MILLISECOND for stamp in stamps], MILLISECOND)
    assert isinstance(found, NominalRate)
    assert found.rate > 0


def test_a_file_with_a_wrong_declaration(tmp_path):
    """Stamps of 30 frames a second in a track that declares 25."""
    stamps = [round(k * 1000 / 30) for k in range(60)]
    with open_source(write(tmp_path / "in.mkv", 60, rate=Fraction(25), stamps=stamps)) as source:
        assert (source.info.rate, source.info.rounding) == (30, MILLISECOND)
        frames = [item for item in source if not isinstance(item, av.Packet)]
    assert [frame.pts for frame in frames] == stamps


def test_a_gif_whose_rate_is_guessed_wrong(tmp_path):
    """FFmpeg guesses 343/12 for a GIF with 7 hundredths a frame."""
    path = tmp_path / "in.gif"
    source = av.filter.Graph()
    source.link_nodes(
        source.add("testsrc2", "size=32x24:rate=100/7:duration=0.7"),
        source.add("format", "pix_fmts=rgb8"),
        source.add("buffersink"),
    ).configure()
    with av.open(str(path), "w") as out:
        stream = out.add_stream("gif", rate=Fraction(100, 7))
        stream.width, stream.height, stream.pix_fmt = 32, 24, "rgb8"
        for _ in range(10):
            out.mux(stream.encode(source.vpull()))
        out.mux(stream.encode(None))
    with av.open(str(path)) as clip:
        assert clip.streams.video[0].guessed_rate == Fraction(343, 12)
    with open_source(path) as source:
        assert (source.info.rate, source.info.rounding) == (Fraction(100, 7), Fraction(1, 100))


def test_frames_are_the_same_with_b_frames_sound_and_a_part(tmp_path):
    """Packets that are read ahead come in the order of the file."""
    path = write(tmp_path / "in.mkv", 100, options={"bf": "3", "g": "12"}, audio="aac")
    with av.open(str(path)) as clip:
        order = [(p.stream.type, p.pts) for p in clip.demux() if p.size]
    with open_source(path) as source:
        packets = [item.pts for item in source if isinstance(item, av.Packet)]
    assert packets == [pts for kind, pts in order if kind == "audio"]
    for start in (None, Fraction(2)):
        with open_source(path, start=start) as source:
            stamps = [item.pts for item in source if not isinstance(item, av.Packet)]
        assert stamps == list(range(0 if start is None else 1960, 4000, 40))


def packet(pts, dts, size=1):
    made = av.Packet(bytes(size))
    made.pts, made.dts, made.time_base = pts, dts, Fraction(1)
    return made


def test_stamps_that_a_later_packet_may_precede_are_left_out():
    stamps = [(0, -2), (3, -1), (1, 0), (2, 1), (6, 2), (4, 3), (5, 4)]
    packets = [packet(*one) for one in stamps]
    ahead = ReadAhead(iter(packets), 0)
    assert ahead.first_stamps(3) == [0]
    assert ahead.first_stamps(5) == [0, 1, 2]
    assert ahead.first_stamps(8) == [0, 1, 2, 3, 4, 5, 6]
    assert [one.pts for one in ahead] == [pts for pts, _ in stamps]


def test_a_packet_without_a_stamp_means_that_the_first_stamps_are_not_known():
    stamps = [(0, 0), (None, 1), (2, 2), (3, 3)]
    ahead = ReadAhead((packet(*one) for one in stamps), 0)
    assert ahead.first_stamps(1) == [0]
    assert ahead.first_stamps(3) == []
    assert [one.pts for one in ahead] == [0, None, 2, 3]
