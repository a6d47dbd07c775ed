"""`gossamer report`: runs in, one self-contained page out."""

from pathlib import Path
from typing import Annotated

import typer

from gossamer.deploy.published import check_published
from gossamer.report import write


def report(
    runs: Annotated[list[Path], typer.Argument(help="run folders")],
    records: Annotated[
        list[Path] | None,
        typer.Option("--with", help="JSON of a protocol, audit or bench from outside the runs' folders; repeatable"),
    ] = None,
    output: Annotated[Path, typer.Option("--output", "-o", help="the page to write")] = Path("report.html"),
) -> None:
    """Draw runs on one page that needs no network: what was run, what came out, how to repeat it."""
    check_published(runs)
    print(write(runs, output, records=records or ()))
