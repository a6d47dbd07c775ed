"""How does a template become one self-contained page? Its figures and the library that draws them are packed inside."""

import base64
import gzip
import json
from collections.abc import Mapping, Sequence
from functools import cache
from importlib.resources import files
from typing import Any

from jinja2 import Environment, FunctionLoader, StrictUndefined
from markupsafe import Markup

from gossamer.report import words
from gossamer.report.figures import Figure
from gossamer.report.overlays import looks
from gossamer.report.parts import Part


def rendered(
    template: str, *, title: str, figures: Mapping[str, Figure], command: str, broad: bool, **values: Any
) -> str:
    """Return a page as HTML; nothing on it is fetched from elsewhere.

    figures: by the keys of its charts; broad: for tables of many rows; values: the template's.
    """
    page = Environment(loader=FunctionLoader(_resource), autoescape=True, undefined=StrictUndefined)
    page.filters |= {
        "percent": words.percent,
        "brackets": words.brackets,
        "attack": words.outcome_name,
        "radius": words.radius,
        "threat": words.threat_of,
    }
    return page.get_template(template).render(
        title=title,
        command=command,
        broad=broad,
        figures=_packed(json.dumps({"drawn": figures, "looks": looks()}, separators=(",", ":"))),
        style=Markup(_resource("page.css")),
        script=Markup(_resource("table.js") + _resource("explained.js") + _resource("page.js")),
        plotly=_packed_plotly(),
        **values,
    )


def render_parts(title: str, parts: Sequence[Part], *, command: str) -> str:
    """Return a page of sections alone as HTML; command: that made it."""
    figures = {chart.key: chart.figure for part in parts for chart in part.charts}
    return rendered("parts.html", title=title, figures=figures, command=command, broad=False, parts=parts)


@cache
def _packed_plotly() -> str:
    """Return the drawing library as base64 of gzip, the same on every day."""
    from plotly.offline import get_plotlyjs  # noqa: PLC0415  (slow to import, needed here alone)

    return _packed(get_plotlyjs())


def _packed(text: str) -> str:
    return base64.b64encode(gzip.compress(text.encode(), mtime=0)).decode()


def _resource(name: str) -> str:
    return (files("gossamer.report") / name).read_text(encoding="utf-8")
