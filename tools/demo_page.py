"""Writes the page of `make demo`: synchronised clips, a slider over stills, and figures."""

from __future__ import annotations

import base64
import html
from collections.abc import Mapping, Sequence
from pathlib import Path

from demo_video import PART, Comparison, save_png

_TEMPLATE = Path(__file__).with_name("demo_page.html")
_CHART_WIDTH, _CHART_HEIGHT, _CHART_MARGIN = 900, 220, 36


def write_page(
    page: Path,
    compared: Comparison,
    *,
    still: Path,
    clips: Mapping[str, str],
    facts: Mapping[str, str],
    commands: Mapping[str, str],
    source: str,
) -> None:
    """Writes the page; stills are embedded, clips are referred to by their names.

    Args:
        page: The HTML file.
        compared: Frames and PSNR.
        still: The still, a PNG file.
        clips: Name of the file in the folder of the page -> caption; the low rate, then the high.
        facts: Name -> figure.
        commands: Purpose -> command.
        source: Origin and licence of the clip.
    """
    height, width, _ = compared.new.shape
    (low, low_text), (high, high_text) = clips.items()
    shown = compared.shown
    values = {
        "WIDTH": str(width),
        "HEIGHT": str(height),
        "ZOOM": str(PART),
        "ORIGIN": _origin(compared),
        "LOW": html.escape(low),
        "LOW_TEXT": html.escape(low_text),
        "HIGH": html.escape(high),
        "HIGH_TEXT": html.escape(high_text),
        "STILL": _data_url(still),
        "SHOWN_TEXT": f"IFRNet {compared.new_psnr[shown]:.1f} dB, "
        f"blending {compared.blended_psnr[shown]:.1f} dB",
        "CHART": _chart(compared.new_psnr, compared.blended_psnr),
        "FACTS": _definitions(facts),
        "NEXT": _definitions(commands, code=True),
        "SOURCE": html.escape(source),
    }
    for name in ("blended", "new", "true"):
        file = page.with_name(f".{name}.png")
        save_png(getattr(compared, name), file)
        values[name.upper()] = _data_url(file)
        file.unlink()
    text = _TEMPLATE.read_text(encoding="utf-8")
    for name, value in values.items():
        text = text.replace(f"@@{name}@@", value)
    page.write_text(text, encoding="utf-8")


def _data_url(png: Path) -> str:
    return f"data:image/png;base64,{base64.b64encode(png.read_bytes()).decode()}"


def _origin(compared: Comparison) -> str:
    """The point that stays in place when the enlarged part fills the frame, for CSS."""
    height, width, _ = compared.new.shape
    row, column = compared.corner
    free = 1 - 1 / PART
    return f"{column / width / free:.2%} {row / height / free:.2%}"


def _definitions(items: Mapping[str, str], *, code: bool = False) -> str:
    start, end = ("<code>", "</code>") if code else ("", "")
    return "".join(
        f"<dt>{html.escape(name)}</dt><dd>{start}{html.escape(text)}{end}</dd>"
        for name, text in items.items()
    )


def _chart(new: Sequence[float], blended: Sequence[float]) -> str:
    """A chart of the PSNR of each new frame, as SVG."""
    finite = [value for value in (*new, *blended) if value != float("inf")] or [0.0]
    bottom, top = int(min(finite)) // 2 * 2, int(max(finite)) // 2 * 2 + 2
    right, lowest = _CHART_WIDTH - _CHART_MARGIN / 2, _CHART_HEIGHT - _CHART_MARGIN / 2

    def height(value: float) -> float:
        share = (min(value, top) - bottom) / (top - bottom)
        return lowest - share * (lowest - _CHART_MARGIN / 2)

    def points(values: Sequence[float]) -> str:
        step = (right - _CHART_MARGIN) / max(len(values) - 1, 1)
        return " ".join(
            f"{_CHART_MARGIN + k * step:.1f},{height(value):.1f}" for k, value in enumerate(values)
        )

    grid = "".join(
        f'<path class="grid" d="M{_CHART_MARGIN} {height(value):.1f}H{right}"/>'
        f'<text x="8" y="{height(value) + 4:.1f}">{value}</text>'
        for value in range(bottom, top + 1, max(2, (top - bottom) // 5 // 2 * 2))
    )
    return (
        f'<svg viewBox="0 0 {_CHART_WIDTH} {_CHART_HEIGHT}" role="img" '
        f'aria-label="PSNR of each new frame">{grid}'
        f'<polyline class="old" points="{points(blended)}"/>'
        f'<polyline class="new" points="{points(new)}"/></svg>'
    )
