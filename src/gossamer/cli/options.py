"""Which options do several commands share? Each written once, with its help."""

from pathlib import Path
from typing import Annotated, TypeAlias

import typer

Run: TypeAlias = Annotated[
    Path | None,
    typer.Argument(help="a run or published folder, an artifact or another .onnx file; leave out with --model"),
]
Model: TypeAlias = Annotated[str | None, typer.Option(help="package.module:factory of your own model")]
Weights: TypeAlias = Annotated[Path | None, typer.Option(help="safetensors file for --model")]
Outputs: TypeAlias = Annotated[str, typer.Option(help="what --model or the file gives: logits or probabilities")]
Twin: TypeAlias = Annotated[
    str | None,
    typer.Option(help="package.module:factory of a network on which points are sought, as what an .onnx file is of"),
]
TwinWeights: TypeAlias = Annotated[Path | None, typer.Option(help="safetensors file for --twin")]

Trust: TypeAlias = Annotated[
    bool,
    typer.Option(
        "--trust", help="compile a .c artifact, unpickle a .pt2 one, or import a factory: you know who made it"
    ),
]

Part: TypeAlias = Annotated[str, typer.Option(help="test, train or held_out")]
Data: TypeAlias = Annotated[str | None, typer.Option(help="data set, where no run names it (`gossamer list datasets`)")]
DataOptions: TypeAlias = Annotated[
    list[str] | None, typer.Option("--data-option", help="an option of --data, as image_size=32; repeatable")
]
DataDir: TypeAlias = Annotated[Path | None, typer.Option(help="where data sets lie; by default $GOSSAMER_DATA")]

Threat: TypeAlias = Annotated[str | None, typer.Option(help="norm and radius as linf:8/255; by default the run's own")]
Radii: TypeAlias = Annotated[
    str | None, typer.Option(help="radius such as 8/255, or several with commas; by default the (first) run's own")
]
Norm: TypeAlias = Annotated[
    str | None, typer.Option(help="linf, l2 or l1; by default the (first) run's own, else linf")
]
Count: TypeAlias = Annotated[int | None, typer.Option("--n", help="how many samples; all if left out")]

AttackOptions: TypeAlias = Annotated[
    list[str] | None, typer.Option("--option", help="an option of the attack, as steps=20; repeatable")
]
BatchSize: TypeAlias = Annotated[int | None, typer.Option(help="images at a time; found automatically if left out")]
Seed: TypeAlias = Annotated[int, typer.Option(help="seed of all draws")]
Device: TypeAlias = Annotated[str, typer.Option(help="cpu, cuda, cuda:N, or auto")]
PartialFolder: TypeAlias = Annotated[
    Path | None, typer.Option("--partial", help="where partial results are kept until the end")
]
SaveSeconds: TypeAlias = Annotated[float, typer.Option(help="how often partial results are saved")]
Json: TypeAlias = Annotated[Path | None, typer.Option(help="where to write the result")]
