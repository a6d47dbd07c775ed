"""Write what was measured into every method's page: its rows of the tables, and where its weights are, as a picture."""

import argparse
import json
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

import record
import tables
from gossamer.report.palette import BLACK, BLUE, GREEN, GREY, PURPLE, VERMILION
from method_rows import SCALES

PAGES = Path(__file__).parent.parent / "docs" / "methods"
BEGIN, END = "<!-- measured: begin, written by benchmarks/method_pages.py -->", "<!-- measured: end -->"
CONTROL = "random"
BESIDE = {"early-mask": ("rewinding", "rewinding, random")}
"""Rows of other pages that a page's tables have too: what its question is asked against."""
COLOURS = (BLUE, VERMILION, GREEN, PURPLE)

LEFT, TOP, HEIGHT, BAR, GAP = 46, 34, 130, 15, 26
ROOM = 0.7
"""A bar taller than this share of the panel has its number inside."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Fill the pages, or with --check say which are out of date."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="change nothing; fail if a page is out of date")
    parser.add_argument("--results", type=Path, default=record.RESULTS)
    parser.add_argument("--pages", type=Path, default=PAGES)
    options = parser.parse_args(arguments)
    found = measured(options.results)
    stale = 0
    for page, rows in rows_of_pages().items():
        files = written(
            options.pages, page, {name: result for name, result in found.items() if _any(result, rows)}, rows
        )
        for path, text in files.items():
            if path.exists() and path.read_text(encoding="utf-8") == text:
                continue
            stale += 1
            if options.check:
                print(f"{path}: out of date; run python benchmarks/method_pages.py")
            else:
                path.parent.mkdir(exist_ok=True)
                path.write_text(text, encoding="utf-8")
    return int(bool(stale) and options.check)


def measured(folder: Path) -> dict[str, Any]:
    """Return the records of all scales that were measured, by the scale's name."""
    paths = {name: folder / f"methods-{name}.json" for name in SCALES}
    return {name: json.loads(path.read_text(encoding="utf-8")) for name, path in paths.items() if path.exists()}


def rows_of_pages() -> dict[str, list[str]]:
    """Return which rows belong to which page."""
    found: dict[str, list[str]] = {}
    for scale in SCALES.values():
        for row in scale.rows:
            for page in (row.page, *row.also):
                if page and row.name not in found.setdefault(page, []):
                    found[page].append(row.name)
    return found


def written(folder: Path, page: str, found: Mapping[str, Any], rows: Sequence[str]) -> dict[Path, str]:
    """Return the page with its block, and its picture, by path; nothing where nothing was measured."""
    if not found:
        return {}
    path = folder / f"{page}.md"
    text = path.read_text(encoding="utf-8")
    if BEGIN not in text:
        text = f"{text.rstrip()}\n\n## Measured\n\n{BEGIN}\n{END}\n"
    head, _, rest = text.partition(BEGIN)
    shown = (*rows, *BESIDE.get(page, ()))
    block = "\n\n".join([*(_table(result, shown) for result in found.values()), _caption(page)])
    return {
        path: f"{head}{BEGIN}\n\n{block}\n\n{END}{rest.partition(END)[2]}",
        folder / "pictures" / f"{page}.svg": picture(found, rows),
    }


def picture(found: Mapping[str, Any], rows: Sequence[str]) -> str:
    """Return an SVG: for each scale, the share of weights that every layer keeps, beside the random control's."""
    panels: list[str] = []
    rows = [row for row in rows if any(_kept(result, row) for result in found.values())]
    left, width = 0, 0
    for name, result in found.items():
        kept = {row: _kept(result, row) for row in dict.fromkeys((*rows, CONTROL))}
        kept = {row: layers for row, layers in kept.items() if layers}
        drawn, width = _panel(name, kept, _kept(result, "dense"))
        panels.append(f'<g transform="translate({left} 0)">{drawn}</g>')
        left += width
    height = TOP + HEIGHT + 46 + 16 * (len(rows) + 1)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {left} {height}" width="{left}" height="{height}" '
        f'font-family="sans-serif" font-size="11" fill="{BLACK}">\n<rect width="100%" height="100%" fill="white"/>\n'
        + "\n".join(panels)
        + "\n</svg>\n"
    )


def _panel(title: str, kept: Mapping[str, Mapping[str, float]], dense: Mapping[str, float]) -> tuple[str, int]:
    layers = list(dict.fromkeys(name for values in kept.values() for name in values))
    group = BAR * len(kept) + GAP
    width = max(LEFT + group * len(layers) + 20, 260)
    top = max([0.01, *(values[name] / dense[name] for values in kept.values() for name in values if name in dense)])
    parts = [f'<text x="{LEFT}" y="18" font-weight="bold">{escape(title)}: share of its weights a layer keeps</text>']
    for share in (0.0, top / 2, top):
        y = TOP + HEIGHT * (1 - share / top)
        parts.append(f'<line x1="{LEFT}" x2="{width - 12}" y1="{y:.1f}" y2="{y:.1f}" stroke="{GREY}" opacity="0.4"/>')
        parts.append(f'<text x="{LEFT - 4}" y="{y + 4:.1f}" text-anchor="end">{100 * share:.0f} %</text>')
    for at, layer in enumerate(layers):
        x = LEFT + GAP / 2 + at * group
        for i, (row, values) in enumerate(kept.items()):
            if layer in values and layer in dense:
                parts.append(_bar(x + i * BAR, values[layer] / dense[layer] / top, _colour(row, i), values[layer]))
        middle = x + BAR * len(kept) / 2
        parts.append(f'<text x="{middle:.1f}" y="{TOP + HEIGHT + 16}" text-anchor="middle">{escape(layer)}</text>')
    for i, row in enumerate(kept):
        y = TOP + HEIGHT + 36 + 16 * i
        parts.append(f'<rect x="{LEFT}" y="{y - 9}" width="10" height="10" fill="{_colour(row, i)}"/>')
        parts.append(f'<text x="{LEFT + 15}" y="{y}">{escape(row)}</text>')
    return "\n".join(parts), width


def _bar(x: float, share: float, colour: str, count: float) -> str:
    height = HEIGHT * share
    y = TOP + HEIGHT - height
    foot, colour_of_text = (y - 3, BLACK) if share < ROOM else (TOP + HEIGHT - 4, "white")
    shown = (
        f'<text x="{x + 9:.1f}" y="{foot:.1f}" font-size="8" fill="{colour_of_text}" '
        f'transform="rotate(-90 {x + 9:.1f} {foot:.1f})">{count:,.0f}</text>'
    )
    return f'<rect x="{x:.1f}" y="{y:.1f}" width="{BAR - 3}" height="{height:.1f}" fill="{colour}"/>{shown}'


def _colour(row: str, index: int) -> str:
    return GREY if row == CONTROL else COLOURS[index % len(COLOURS)]


def _kept(result: Mapping[str, Any], row: str) -> dict[str, float]:
    runs = [run["nonzero"] for run in result["details"]["runs"] if run["row"] == row]
    return {layer: sum(run.get(layer, 0) for run in runs) / len(runs) for layer in runs[0]} if runs else {}


def _any(result: Mapping[str, Any], rows: Sequence[str]) -> bool:
    return any(run["row"] in rows for run in result["details"]["runs"])


def _table(result: Mapping[str, Any], rows: Sequence[str]) -> str:
    reached = result["tables"][0]
    shown = [row for row in reached["rows"] if row[0] in (*rows, CONTROL, "dense")]
    return f"{result['title']} ({result['date'][:10]}):\n\n{tables.table(reached['columns'], shown)}"


def _caption(page: str) -> str:
    return (
        f"![Share of the weights that each layer keeps](pictures/{page}.svg)\n\nThe same beside all other methods, and "
        "how it was measured: [benchmarks](../../benchmarks/README.md)."
    )


if __name__ == "__main__":
    raise SystemExit(main())
