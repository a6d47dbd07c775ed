"""Write the README's tables from the results, so that no number in it is typed."""

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import record

README = Path(__file__).parent / "README.md"
BEGIN, END = "<!-- results: begin, written by benchmarks/tables.py -->", "<!-- results: end -->"
NOTHING = "Nothing has been measured yet: run `make bench`."


def main(arguments: Sequence[str] | None = None) -> int:
    """Fill the README, or with --check say whether it is up to date."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="change nothing; fail if the tables are out of date")
    parser.add_argument("--readme", type=Path, default=README)
    parser.add_argument("--results", type=Path, default=record.RESULTS)
    options = parser.parse_args(arguments)
    before = options.readme.read_text(encoding="utf-8")
    after = filled(before, markdown(results(options.results)))
    if not options.check:
        options.readme.write_text(after, encoding="utf-8")
        return 0
    if before != after:
        sys.stderr.write(f"{options.readme}: tables are out of date; run python benchmarks/tables.py\n")
    return int(before != after)


def results(folder: Path) -> list[dict[str, Any]]:
    """Return every result in a folder, by file name; other JSON files are passed over."""
    found = (record.read(path) for path in sorted(folder.glob("*.json")))
    return [result for result in found if result is not None]


def filled(text: str, tables: str) -> str:
    """Return a text with what stands between its two markers replaced; raises ValueError without them."""
    if text.count(BEGIN) != 1 or text.count(END) != 1:
        raise ValueError(f"expected one {BEGIN!r} and one {END!r}")
    head, _, rest = text.partition(BEGIN)
    return f"{head}{BEGIN}\n\n{tables}\n\n{END}{rest.partition(END)[2]}"


def markdown(found: Sequence[Mapping[str, Any]]) -> str:
    """Return all results as Markdown: goals and verdicts first, then each result's own tables."""
    if not found:
        return NOTHING
    return "\n\n".join([summary(found), *(section(result) for result in found)])


def summary(found: Sequence[Mapping[str, Any]]) -> str:
    """Return one row for each claim."""
    rows = [
        [claim["what"], quantity(claim["measured"], claim["unit"]), wanted(claim), claim["verdict"], result["rounds"]]
        for result in found
        for claim in result["claims"]
    ]
    return table(["What", "Measured", "Goal", "Verdict", "Rounds"], rows)


def section(result: Mapping[str, Any]) -> str:
    """Return one result's heading, where and how it was measured, and its tables."""
    machine, versions = result["machine"], result["versions"]
    packages = ", ".join(f"{name} {value}" for name, value in versions.items() if name not in ("platform", "threads"))
    where = (
        f"{machine['cpu']} ({machine['instructions']}), {machine['cores']} cores, {versions['threads']} threads; "
        f"{packages}; {result['date'][:10]}; {result['rounds']} rounds; `{result['command']}`"
    )
    shown = [f"**{each['caption']}**\n\n{table(each['columns'], each['rows'])}" for each in result["tables"]]
    return "\n\n".join([f"### {result['title']}", where, *shown])


def table(columns: Sequence[str], rows: Sequence[Sequence[record.Cell]]) -> str:
    """Return a Markdown table."""
    lines = [list(columns), ["---"] * len(columns), *([cell(value) for value in row] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def cell(value: record.Cell) -> str:
    """Return a value as text, numbers to three significant digits."""
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.0f}" if abs(value) >= 1000 else f"{value:.3g}"
    return str(value).replace("|", "\\|")


def quantity(value: float, unit: str) -> str:
    """Return a number with its unit."""
    return f"{cell(float(value))} {unit}".strip()


def wanted(claim: Mapping[str, Any]) -> str:
    """Return a claim's goal in words."""
    return "-" if claim["goal"] is None else f"{claim['sense']} {quantity(claim['goal'], claim['unit'])}"


if __name__ == "__main__":
    sys.exit(main())
