"""`gossamer publish`: a finished run in, a folder that others can load out, and on to the hub where asked."""

from pathlib import Path
from typing import Annotated, cast

import typer

from gossamer.cli import options
from gossamer.deploy.published import WEIGHTS
from gossamer.errors import ConfigError
from gossamer.report.words import percent
from gossamer.zoo.hub import check_push, push
from gossamer.zoo.load import Published
from gossamer.zoo.publish import check_license
from gossamer.zoo.publish import publish as write
from gossamer.zoo.weights import Asked


def publish(
    run: Annotated[Path, typer.Argument(help="the folder of a finished run")],
    folder: Annotated[Path, typer.Argument(help="the folder to write, in the layout of the Hugging Face hub")],
    license: Annotated[  # noqa: A002
        str | None, typer.Option(help="under what others may use it, as the hub writes it: apache-2.0, say")
    ] = None,
    storage: Annotated[
        str, typer.Option(help="dense, sparse, or auto: sparse where that is at most half as large")
    ] = "auto",
    force: Annotated[bool, typer.Option("--force", help="replace a folder that was published before")] = False,
    to: Annotated[str | None, typer.Option("--push", help="org/name on the hub to send it to")] = None,
    private: Annotated[bool, typer.Option("--private", help="with --push: for those who may see it alone")] = False,
    data_dir: options.DataDir = None,
) -> None:
    """Write weights, recipe, results and a model card, every file with its SHA-256; loading them runs no code."""
    check_license(license)
    if private and to is None:
        raise ConfigError("--private", expected="--push org/name beside it", got="none", remedy="leave it out")
    if to is not None:
        check_push(to)
    made = write(run, folder, license=license, storage=cast("Asked", storage), force=force, data_dir=data_dir)
    print(_told(made, folder, license))
    if to is not None:
        print(f"sent: {push(folder, to, private=private)}")


def _told(made: Published, folder: Path, license: str | None) -> str:  # noqa: A002
    manifest = made.manifest
    stored = manifest.storage
    size = sum(file.bytes for file in manifest.files.values())
    lines = [
        f"{manifest.network.name}: density {percent(manifest.density)}, {manifest.nonzero:,} weights",
        f"{len(manifest.files)} files of {size:,} bytes, {manifest.files[WEIGHTS].bytes:,} of them {stored} weights",
        *(f"note: {remark}" for remark in manifest.remarks),
        *([] if license else ["note: no license was named (--license): nobody but you may rely on using it"]),
        f"published: {folder}",
    ]
    return "\n".join(lines)
