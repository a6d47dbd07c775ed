"""`gossamer report`: runs in, one self-contained page out."""

from pathlib import Path
from typing import Annotated

import typer

from gossamer.report import write


def report(
    runs: Annotated[list[Path], typer.Argument(help="run folders")],
    output: Annotated[Path, typer.Option("--output", "-o", help="the page to write")] = Path("report.html"),
) -> None:
    """Draw runs on one page that needs no network: what was run, what came out, how to repeat it."""
    print(write(runs, output))
