"""The HTML page of bench.report: its parts, hostile names, and its behaviour in a browser."""

import base64
import json
import os
import re
import subprocess
import sys
from html.parser import HTMLParser

import pytest
from PIL import Image, ImageColor

import report_evidence as ev
from bench.report.figures import ARTEFACT_COLOURS, BASELINE_COLOURS, run_styles
from bench.report.page import page
from bench.report.plots import latency_plots
from bench.report.tables import report_tables
from bench.report.text import markdown_table
from browser import chromium
from report_evidence import BASELINE, a_case, a_picture, a_run, evidence_of, latency, parity, write

HOSTILE = "</script><script>alert(1)</script>|$x$ <img src=http://evil.example/a.png>"
SIZE, QUALITY = "Latency over frame size", "UCF101: quality against speed"


class Page(HTMLParser):
    """A parsed page: tags with attributes, headings, texts, and plots (SVG) by title."""

    VOID = frozenset({"meta", "link", "img", "input", "br"})

    def __init__(self, text):
        super().__init__()
        self.tags, self.open, self.text, self.headings = [], [], [], []
        self.feed(text)
        self.close()
        assert self.open == []
        prefix = "data:image/svg+xml;base64,"
        self.plots = {
            attrs["alt"]: base64.b64decode(attrs["src"].removeprefix(prefix)).decode()
            for tag, attrs in self.tags
            if tag == "img" and attrs["src"].startswith(prefix)
        }

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text.append(data)
        if self.open and self.open[-1] in ("h1", "h2", "h3"):
            self.headings.append(data)


def page_of(folder, *records):
    """Writes records to `folder`; returns the text of their page."""
    evidence = evidence_of(folder, *records)
    return page(evidence, report_tables(evidence))


def viewer_data(text):
    return re.search(r'<script type="application/json"[^>]*>(.*?)</script>', text, re.DOTALL)[1]


def full_records(folder):
    """Records that have data for every plot, and two pictures with the same three files."""
    pictures = [a_picture(folder, number, sample=f"131{number}") for number in range(2)]
    cases = [a_case(size=size) for size in ("256x448", "720x1280")]
    return [latency(*cases), parity(summary={"pictures": pictures})]


@pytest.fixture(scope="module")
def full(tmp_path_factory):
    """A file with the page of `full_records`, drawn once."""
    folder = tmp_path_factory.mktemp("full")
    path = folder / "page.html"
    path.write_text(page_of(folder, *full_records(folder)))
    return path


def test_every_plot_with_data_is_on_the_page(full):
    found = Page(full.read_text())
    assert found.headings == [
        "IFRNet: artefacts against PyTorch", "In short", "Quality and parity", "UCF101", "Latency",
        SIZE, "256x448", "720x1280", "Quality against speed", QUALITY,
        "Share of the machine's peak performance", "Worst frames", "Evidence",
    ]  # fmt: skip
    assert [*found.plots] == ["UCF101", SIZE, "256x448", "720x1280", QUALITY]
    links = [attrs["href"] for tag, attrs in found.tags if tag == "a"]
    sections = [attrs["id"] for tag, attrs in found.tags if tag == "section"]
    assert links == [f"#{section}" for section in sections]


@pytest.mark.parametrize(
    ("records", "there", "missing"),
    [
        ([parity()], ["UCF101"], ["Latency", SIZE, QUALITY, "Worst frames"]),
        ([latency()], ["256x448"], ["Quality and parity", SIZE, QUALITY]),
        ([latency(), parity()], [QUALITY], [SIZE, "Worst frames"]),
        ([latency(), parity(artefacts=[ev.an_artefact(sha256="f" * 64)])], ["UCF101"], [QUALITY]),
        # With random weights agreement is meaningful, quality is not.
        ([latency(), parity(weights={"random": True})],
         ["UCF101: agreement against speed"], [QUALITY]),
    ],
)  # fmt: skip
def test_a_plot_without_data_is_omitted_with_its_heading(tmp_path, records, there, missing):
    found = Page(page_of(tmp_path, *records))
    assert set(there) <= set(found.headings)
    assert not set(missing) & set(found.headings)
    quality = "PSNR to ground truth, dB"
    assert any(quality in svg for svg in found.plots.values()) == (QUALITY in there)


def test_the_first_screen_answers_four_questions(full):
    text = " ".join(" ".join(Page(full.read_text()).text).split())
    for said in (
        "1 artefact of IFRNet (small) compared with float32 PyTorch, frame by frame, on UCF101.",
        "Latency of 2 runs at 2 frame sizes. Measured on AMD EPYC, 2 CPUs.",
        "How many new frames a second? 9.43 at 256x448; 9.43 at 720x1280 The fastest artefact",
        f"How much faster than PyTorch? 1.31x as fast in 2 cases Against {BASELINE}, timed",
        "Is it equal to PyTorch? indistinguishable from PyTorch: 89.0 dB in the mean, worst frame "
        "85.0 dB Worst frame: small.onnx on UCF101, sample 1311. The PSNR to the true frames falls "
        "by 0.010 dB at most.",
        "Can I trust it? 4 timed runs of 30 samples or more, none with a warning; the whole of "
        "UCF101 Times are those of made frames",
        "\N{MINUS SIGN}0.010",
        f"small.onnx sha256 {'a' * 64}",
        f"weights demo, sha256 {'b' * 64}",
        "crop None",
    ):
        assert said in text


def test_a_clip_has_a_section_and_its_evidence_an_entry(tmp_path):
    found = Page(page_of(tmp_path, ev.alternatives(), latency()))
    assert "Methods on walk.mkv, 640x480" in found.headings
    text = " ".join(" ".join(found.text).split())
    assert "0.json methods on walk.mkv measured 2026-11-22" in text
    assert "1.json latency at 256x448 measured" in text
    assert "Speed, in short" not in text


def test_cases_of_one_size_are_told_apart_by_their_variant(tmp_path):
    records = [latency(a_case({BASELINE: a_run(0.1, variant=name)})) for name in ("base", "small")]
    evidence = evidence_of(tmp_path, *records, latency(a_case(size="64x80")))
    titles = [plot.title for plot in latency_plots(evidence, run_styles(evidence))]
    assert titles == ["256x448, base", "256x448, small", "64x80"]


def test_baselines_are_grey_artefacts_are_coloured_and_all_differ(tmp_path):
    runs = {f"{name}.onnx on cpu": a_run(0.1, file="f") for name in "abcdefghijkl"}
    baselines = {BASELINE: a_run(0.1), "plain.onnx": a_run(0.1, file="f", kind="plain")}
    styles = run_styles(evidence_of(tmp_path, latency(a_case(runs | baselines))))
    assert len(set(styles.values())) == len(styles) == 14
    grey = {label for label, style in styles.items() if style.colour in BASELINE_COLOURS}
    assert grey == baselines.keys()


def test_a_run_has_the_same_colour_in_every_plot(full):
    used = {
        colour
        for svg in Page(full.read_text()).plots.values()
        for colour in ARTEFACT_COLOURS + BASELINE_COLOURS
        if colour in svg
    }
    assert used == {ARTEFACT_COLOURS[0], BASELINE_COLOURS[0]}


@pytest.mark.parametrize(
    ("lines", "text"),
    [
        (parity(ev.IDENTICAL), "identical"),
        (parity(artefacts=[ev.an_artefact("a$x^2$.onnx")]), "a$x^2$.onnx"),  # Not a formula.
        (parity(artefacts=[ev.an_artefact("a\x1b\n<b>.onnx")]), "a &lt;b&gt;.onnx"),
    ],
)
def test_texts_in_a_plot_are_shown_literally(tmp_path, lines, text):
    assert f">{text}</text>" in Page(page_of(tmp_path, lines)).plots["UCF101"]


def test_the_legend_names_every_run(tmp_path):
    # Labels keep the size, which tells them apart; matplotlib omits labels that begin with "_".
    names = ["_8x8_a.onnx", "_a.onnx", "b" * 70]
    runs = {name: a_run(0.1, file="f") for name in names}
    cases = [a_case(runs, size=size) for size in ("256x448", "720x1280")]
    svg = Page(page_of(tmp_path, latency(*cases))).plots[SIZE]
    texts = "".join(re.findall("<text[^>]*> *([^<]*)</text>", svg))
    assert [name for name in names if name not in texts] == []


def test_the_page_loads_nothing_and_no_two_elements_have_one_id(full):
    text = full.read_text()
    tags, plots = Page(text).tags, Page(text).plots
    assert len(plots) > 1
    assert "://" not in text
    assert not re.search(r'href="(?!#)|@import|url\((?!#)', "".join(plots.values()))
    for tag, attrs in tags:
        for name in ("src", "href", "xlink:href", "srcset", "poster", "data", "action"):
            assert re.match(r"#|data:", attrs.get(name) or "#"), (tag, attrs)
    assert not re.search(r"@import|url\((?!#)", text)
    (policy,) = (attrs["content"] for _, attrs in tags if "http-equiv" in attrs)
    assert policy.startswith("default-src 'none'; img-src data:;")
    ids = [attrs["id"] for _, attrs in tags if "id" in attrs]
    assert len(set(ids)) == len(ids)


def hostile_records(folder):
    """Records in which every text is an attack."""
    name = f"{HOSTILE}.onnx"
    runs = {
        f"{HOSTILE} on cpu": a_run(0.1, file=name, variant=HOSTILE),
        f"{HOSTILE} eager": a_run(0.1, variant=HOSTILE),
    }
    runs[f"{HOSTILE} on cpu"]["artefact"]["cuda_graph_problem"] = HOSTILE
    failed = {HOSTILE: {"kind": "pytorch", "compare": HOSTILE, "failed": HOSTILE}}
    cases = [
        a_case(runs, dataset=HOSTILE, size=size, failed=failed) for size in ("256x448", "720x1280")
    ]
    gpu = {"name": HOSTILE, "compute_capability": HOSTILE}
    where = ev.environment(
        gpu, time=HOSTILE, processor=HOSTILE, command=HOSTILE, commit=HOSTILE,
        versions={"torch": HOSTILE},
    )  # fmt: skip
    published = {"source": HOSTILE, "psnr": 35.0, "ssim": None, "ssim_kind": "", "ie": None}
    lines = parity(
        ev.a_result(sample=HOSTILE),
        artefacts=[ev.an_artefact(name, precision=HOSTILE, io=HOSTILE, compared=HOSTILE)],
        weights={"name": HOSTILE, "variant": HOSTILE, "sha256": HOSTILE},
        summary={"damaged": [HOSTILE], "published": published,
                 "pictures": [a_picture(folder, sample=HOSTILE, artefact=name)]},
        dataset=HOSTILE, title=HOSTILE, notes=[HOSTILE], environment=where,
        protocol={"factor": 2, HOSTILE: [HOSTILE]},
    )  # fmt: skip
    ceilings = {"problem": HOSTILE}
    return [latency(*cases, environment=where, what=HOSTILE, ceilings=ceilings), lines]


def test_hostile_names_are_shown_as_text(tmp_path):
    text = page_of(tmp_path, *hostile_records(tmp_path))
    found = Page(text)
    assert [attrs for tag, attrs in found.tags if tag == "script"] == [
        {"type": "application/json", "id": "pictures-data"}, {},
    ]  # fmt: skip
    assert all((attrs.get("src") or "data:").startswith("data:") for _, attrs in found.tags)
    assert sum(HOSTILE in piece for piece in found.text) > 10
    data = viewer_data(text)
    assert HOSTILE in json.loads(data)["views"][0]["title"]
    assert not set(data) & set("<>&")


def test_hostile_names_do_not_break_markdown_tables(tmp_path):
    evidence = evidence_of(tmp_path, *hostile_records(tmp_path))
    tables = report_tables(evidence)
    hostile = 0
    for table in tables.values():
        text = markdown_table(table)
        hostile += "alert(1)" in text
        lines = [line for line in text.splitlines() if line.startswith("| ")]
        assert {len(re.findall(r"(?<!\\)\|", line)) for line in lines} == {len(table.columns) + 1}
        assert "<script" not in re.sub(r"\\<", "", text)
    assert hostile > 1


def run_report(*arguments, seed="0"):
    """Runs the command in another process; returns its error output."""
    done = subprocess.run(
        [sys.executable, "-m", "bench.report", *map(str, arguments)],
        env=os.environ | {"PYTHONHASHSEED": seed}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == bool(done.stderr and "error:" in done.stderr), done.stderr
    return done.stderr


def test_the_page_is_reproducible_and_names_omitted_files(tmp_path):
    folder = tmp_path / "results"
    folder.mkdir()
    for suffix, record in zip(("json", "jsonl"), full_records(folder), strict=True):
        write(folder / f"full.{suffix}", record)
    write(folder / "old.json", {"checks": []})
    # Another process has other string hashes.
    for seed in "12":
        assert "left out: " in run_report(folder, "--html", tmp_path / seed, seed=seed)
    assert (tmp_path / "1").read_bytes() == (tmp_path / "2").read_bytes()
    assert "old.json is not a complete evidence file" in (tmp_path / "1").read_text()


def test_images_are_embedded_unchanged_and_equal_ones_once(full):
    data = json.loads(viewer_data(full.read_text()))
    # Both pictures have the same three files.
    assert len(data["images"]) == 3
    assert len(data["views"]) == 2
    for view in data["views"]:
        assert (view["width"], view["height"]) == (32, 24)
        for kind in ("reference", "made", "error"):
            encoded = data["images"][view[kind]].removeprefix("data:image/png;base64,")
            assert base64.b64decode(encoded) == (full.parent / f"p/0_{kind}.png").read_bytes()


def test_a_missing_or_invalid_image_is_named(tmp_path):
    path = write(tmp_path / "parity.jsonl", parity(summary={"pictures": [a_picture(tmp_path)]}))
    picture = tmp_path / "p" / "0_made.png"
    named = f"{picture}, an image of {path}, "
    picture.write_bytes(b"JFIF")
    assert f"{named}is not a PNG file" in run_report(path, "--html", tmp_path / "page.html")
    picture.unlink()
    assert f"{named}cannot be read" in run_report(path, "--html", tmp_path / "page.html")
    assert not (tmp_path / "page.html").exists()


@pytest.mark.parametrize(
    "relative", ["../secret.png", "ABSOLUTE", "p/link.png", "p/../../secret.png"]
)
def test_an_image_outside_the_folder_of_its_evidence_is_not_published(tmp_path, relative):
    folder = tmp_path / "evidence"
    folder.mkdir()
    picture = a_picture(folder)
    secret = tmp_path / "secret.png"
    secret.write_bytes((folder / "p" / "0_made.png").read_bytes())
    (folder / "p" / "link.png").symlink_to(secret)
    named = str(secret) if relative == "ABSOLUTE" else relative
    record = parity(summary={"pictures": [{**picture, "made": named}]})
    path = write(folder / "parity.jsonl", record)
    said = run_report(path, "--html", tmp_path / "page.html")
    assert f"{path} names the image {named}, which is not in its folder" in said
    assert not (tmp_path / "page.html").exists()


# The page in a browser


@pytest.fixture
def browse(tmp_path):
    """Opens a page in headless Chromium; returns (state, DOM). Fails on any error."""

    def browse(text, *options, fragment=""):
        (tmp_path / "shown.html").write_text(text)
        done = subprocess.run(
            [*chromium(), "--virtual-time-budget=4000",
             f"--user-data-dir={tmp_path / 'profile'}", *(options or ["--dump-dom"]),
             f"{(tmp_path / 'shown.html').as_uri()}{fragment}"],
            capture_output=True, text=True, check=False, timeout=120,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        assert not re.search("CONSOLE|Uncaught", done.stderr), done.stderr
        # The page's script sets data attributes of the root.
        root = re.search(r"<html[^>]*>", done.stdout)
        return dict(re.findall(r'data-(\w+)="([^"]*)"', root[0] if root else "")), done.stdout

    return browse


def state(ready, view, wipe, error):
    return {"ready": ready, "view": view, "wipe": wipe, "error": error}


def test_the_script_runs_and_a_link_opens_an_image(full, browse):
    text = full.read_text()
    assert browse(text)[0] == state("2", "1", "50", "1")
    found, dom = browse(text, fragment="#view=2&wipe=30&error=0")
    assert found == state("2", "2", "30", "0")
    assert "--wipe: 30%" in dom
    shown = re.search(r'id="shown">([^<]*)<', dom)[1]
    assert shown == "UCF101, 1311, t = 0.5, small.onnx: 85.0 dB"
    assert re.search(r'<img id="picture-made"[^>]*src="data:image/png;base64,iVBOR', dom)
    assert re.search(r'id="error-pane"[^>]* hidden', dom)
    # Values out of range are limited.
    assert browse(text, fragment="#view=99&wipe=nonsense")[0] == state("2", "2", "50", "1")


DRIVE = """<script>
const addresses = [];
const step = (act) => {
  act();
  addresses.push(location.hash.replaceAll("&", " "));
};
const by = (id) => document.getElementById(id);
step(() => by("next").click());
step(() => by("next").click());
step(() => by("previous").click());
step(() => {
  by("wipe").value = 20;
  by("wipe").dispatchEvent(new Event("input"));
  by("wipe").dispatchEvent(new Event("change"));
});
step(() => by("show-error").click());
step(() => {
  by("choice").value = "1";
  by("choice").dispatchEvent(new Event("change"));
});
const stage = by("wiped");
const box = stage.getBoundingClientRect();
stage.setPointerCapture = () => {}; // there is no pointer
step(() => {
  const place = { clientX: box.left + 0.75 * box.width, pointerId: 1 };
  stage.dispatchEvent(new PointerEvent("pointerdown", place));
  stage.dispatchEvent(new PointerEvent("pointerup", place));
});
document.documentElement.dataset.addresses = addresses.join(" | ");
</script></body>"""


def test_controls_react_to_keyboard_and_pointer(full, browse):
    """Sends events of keyboard and pointer to the page's own script."""
    # The page's policy allows only its own script, so that the test removes the policy.
    text = re.sub(r"<meta http-equiv[^>]*>", "", full.read_text())
    found, _ = browse(text.replace("</body>", DRIVE))
    assert found.pop("addresses").split(" | ") == [
        "#view=2 wipe=50", "#view=1 wipe=50", "#view=2 wipe=50", "#view=2 wipe=20",
        "#view=2 wipe=20 error=0", "#view=1 wipe=20 error=0", "#view=1 wipe=75 error=0",
    ]  # fmt: skip
    assert found == state("2", "1", "75", "0")


def test_hostile_names_run_no_script_in_a_browser(tmp_path, browse):
    assert browse(page_of(tmp_path, *hostile_records(tmp_path)))[0]["ready"] == "1"


def test_a_page_without_images_is_ready(tmp_path, browse):
    assert browse(page_of(tmp_path, latency()))[0] == {"ready": "0"}


@pytest.mark.parametrize(("scheme", "paper"), [("1", (251, 250, 247)), ("0", (20, 23, 28))])
def test_the_page_and_its_plots_are_drawn_light_and_dark(full, browse, tmp_path, scheme, paper):
    shot = tmp_path / "shot.png"
    browse(
        full.read_text(), f"--screenshot={shot}", "--window-size=900,2400",
        f"--blink-settings=preferredColorScheme={scheme}",
    )  # fmt: skip
    with Image.open(shot) as picture:
        pixels = picture.convert("RGB")
    assert pixels.getpixel((1, 1)) == paper
    colours = {colour for _, colour in pixels.getcolors(1 << 22)}
    assert len(colours) > 100
    # A run has its own colour in a light plot and a colour derived from it in a dark one.
    assert (ImageColor.getrgb(ARTEFACT_COLOURS[0]) in colours) == (scheme == "1")
