"""The picture viewer of a report's page: reference, artefact and error of the same new frame."""

from __future__ import annotations

import base64
import html
import json
import struct
from pathlib import Path
from typing import Any

from bench.environment import MeasurementError
from bench.report.evidence import Evidence
from bench.report.text import one_line

_PNG = b"\x89PNG\r\n\x1a\n"

_MARKUP = """<div class="viewer" id="viewer">
<div class="choose">
<label for="choice">Picture</label>
<select id="choice">
{options}
</select>
<button type="button" id="previous">Previous</button>
<button type="button" id="next">Next</button>
<label><input type="checkbox" id="show-error" checked> error picture</label>
</div>
<div class="panes">
<figure class="pane">
<div class="stage wiped" id="wiped">
<img id="picture-reference" alt="" src="data:,">
<img id="picture-made" alt="" src="data:,">
<div class="divider"></div>
<span class="tag left" id="tag-reference">Reference</span>
<span class="tag right" id="tag-made">Artefact</span>
</div>
<div class="wipe">
<input type="range" id="wipe" min="0" max="100" step="0.1" value="50" aria-describedby="wipe-help">
<label for="wipe">Wipe between reference and artefact</label>
<output id="wipe-value" for="wipe">50 %</output>
</div>
<figcaption id="wipe-help">Left of the line float32 PyTorch, right of it the artefact. Drag in the
picture, or use the slider.<br><span id="shown"></span></figcaption>
</figure>
<figure class="pane" id="error-pane">
<div class="stage"><img id="picture-error" alt="" src="data:,">
<span class="tag left">Error &times; 16</span></div>
<figcaption>The absolute difference of the two, 16 times as bright. Black: no
difference.</figcaption>
</figure>
</div>
<noscript><p>The pictures need JavaScript; everything else on this page does not.</p></noscript>
<script type="application/json" id="pictures-data">{data}</script>
</div>"""


def viewer(evidence: Evidence) -> str:
    """Markup of the viewer with its pictures inside; empty where the evidence has none.

    Raises:
        MeasurementError: If a picture is missing or is no PNG file.
    """
    images: dict[str, int] = {}
    views: list[dict[str, Any]] = []
    options: list[str] = []
    for parity in evidence.parities:
        title = parity.configuration["title"]
        group = []
        for picture in parity.summary["pictures"]:
            read = {
                name: _png(parity.path, path)
                for name, path in (
                    ("reference", picture["reference"]),
                    ("made", picture["made"]),
                    ("error", picture["error"]),
                )
            }
            width, height = _size(read["reference"])
            decibel = picture["psnr"]
            agreement = "identical" if decibel is None else f"{decibel:.1f} dB"
            name = one_line(
                f"{picture['sample']}, t = {picture['timestep']:g}, {picture['artefact']}"
            )
            views.append(
                {
                    # The same picture, such as the reference of several artefacts, is kept once.
                    **{key: images.setdefault(_uri(p), len(images)) for key, p in read.items()},
                    "width": width,
                    "height": height,
                    "title": f"{one_line(title)}, {name}",
                    "agreement": agreement,
                }
            )
            text = html.escape(f"{name}: {agreement}")
            group.append(f'<option value="{len(views)}">{text}</option>')
        if group:
            label = html.escape(one_line(f"{title}, {parity.configuration['weights']['variant']}"))
            options += [f'<optgroup label="{label}">', *group, "</optgroup>"]
    if not views:
        return ""
    data = _json_in_html({"images": list(images), "views": views})
    return _MARKUP.format(options="\n".join(options), data=data)


def _json_in_html(data: object) -> str:
    """JSON in which no text can end the script element that it stands in."""
    text = json.dumps(data, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _png(evidence: Path, relative: str) -> bytes:
    path = evidence.parent / relative
    try:
        content = path.read_bytes()
    except OSError as error:
        raise MeasurementError(
            f"{path}, a picture of {evidence}, cannot be read ({error.strerror}): "
            "keep the folder of pictures beside the file, or measure again"
        ) from error
    if not (content.startswith(_PNG) and len(content) > 24):
        raise MeasurementError(
            f"{path}, a picture of {evidence}, is no PNG file: measure again to have it written"
        )
    return content


def _size(png: bytes) -> tuple[int, int]:
    """Width and height, which the first chunk of every PNG file says."""
    width, height = struct.unpack(">II", png[16:24])
    return width, height


def _uri(png: bytes) -> str:
    return f"data:image/png;base64,{base64.b64encode(png).decode()}"
