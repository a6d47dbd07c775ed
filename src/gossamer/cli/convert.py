"""`gossamer convert`: a checkpoint that others made in, one of the package's networks out, every tensor told."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from gossamer.cli import options
from gossamer.cli.subjects import read_options
from gossamer.data.registry import check_source, load
from gossamer.deploy.published import OF_A_MACHINE, Images
from gossamer.errors import ConfigError
from gossamer.zoo.convert import check_clean
from gossamer.zoo.convert import convert as read
from gossamer.zoo.imported import check_target, write_converted
from gossamer.zoo.layouts import LAYOUTS
from gossamer.zoo.publish import check_license


def convert(
    file: Annotated[Path, typer.Argument(help="a checkpoint that torch.save or safetensors wrote")],
    layout: Annotated[str, typer.Option(help=f"whose: {', '.join(LAYOUTS)}")],
    model: Annotated[str, typer.Option(help="which network it is: resnet18, wideresnet, vgg16, ...")],
    output: Annotated[Path, typer.Option("--output", "-o", help="a folder for gossamer.load, or a .safetensors file")],
    density: Annotated[
        float | None, typer.Option(help="the share of each layer that HYDRA's scores keep; the file does not say it")
    ] = None,
    mean: Annotated[str | None, typer.Option(help="what the original takes off pixels, as 0.49,0.48,0.45")] = None,
    std: Annotated[str | None, typer.Option(help="and what it divides them by")] = None,
    expect_clean: Annotated[
        float | None, typer.Option(help="its published clean accuracy, as 0.845; another one is an error")
    ] = None,
    data: options.Data = None,
    data_option: options.DataOptions = None,
    data_dir: options.DataDir = None,
    n: options.Count = None,
    license: Annotated[str | None, typer.Option(help="the license its authors gave it")] = None,  # noqa: A002
    force: Annotated[bool, typer.Option("--force", help="replace what was converted before")] = False,
) -> None:
    """Import a public checkpoint without unpickling: names, shapes, masks and, if asked, clean accuracy checked."""
    check_license(license)
    check_target(output, force=force)
    given = read_options(tuple(data_option or ()), "--data-option")
    images = _images(data, given)
    if images is None and (expect_clean is not None or given):
        flag = "--data-option" if expect_clean is None else "--expect-clean"
        raise ConfigError(flag, expected="--data beside it", got="none", remedy="write --data cifar10, say")
    found = read(
        file,
        layout=layout,
        model=model,
        density=density,
        mean=_channels("--mean", mean),
        std=_channels("--std", std),
    )
    print(found)
    measured = None
    if expect_clean is not None:
        measured = check_clean(found.module, load(str(data), "test", data_dir=data_dir, **given), expect_clean, n=n)
        print(measured)
    write_converted(found, output, checkpoint=file, license=license, data=images, measured=measured, force=force)
    print(f"written: {output}")


def _images(data: str | None, options: Mapping[str, Any]) -> Images | None:
    """Return what a folder says of its images; raises ConfigError for a data set or an option that there is not."""
    if data is None:
        return None
    check_source(data, options)
    return Images(name=data, options={name: value for name, value in options.items() if name not in OF_A_MACHINE})


def _channels(flag: str, text: str | None) -> list[float] | None:
    if text is None:
        return None
    try:
        return [float(each) for each in text.split(",")]
    except ValueError as error:
        raise ConfigError(
            flag, expected="numbers with commas, one a channel", got=repr(text), remedy=f"write {flag} 0.49,0.48,0.45"
        ) from error
