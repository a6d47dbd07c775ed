"""What do signs save? Operations of ResNet-34 with weights of one magnitude, beside what was claimed for them.

Liu et al. (NeurIPS 2022, poster) say that binary initialisation saves 45 % of the operations of training and 32 % of
those of inference on ResNet-34, and not how they are counted. Counted here: one image of CIFAR's size; of every
convolution and linear layer each multiplication and each addition as one; batch norms folded in; a sign needs an
addition, each output one multiplication by the scale. Training adds passes back, of which only those to the image are
saved alike: a gradient of weights multiplies real numbers. So no verdict is given.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

import torch

import record
from gossamer.deploy.bench import counts_of
from gossamer.models import build
from masks import divided, thin

NETWORK = "resnet34"
DENSITIES = (0.1, 0.05, 0.01)
EXPONENTS = (1.0, 0.5, 0.1)
CLAIMED = "claimed: 0.32 of inference, 0.45 of training"


def main(arguments: Sequence[str] | None = None) -> None:
    """Count, write results/signs.json."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--results", type=Path, default=record.RESULTS)
    options = parser.parse_args(arguments)
    rows = [_row(None, 1.0), *(_row(p, density) for p in EXPONENTS for density in DENSITIES)]
    print(record.write(_result(rows), options.results))


def _row(exponent: float | None, density: float) -> list[record.Cell]:
    torch.manual_seed(0)
    model = build(NETWORK).eval()
    if exponent is not None:
        thin(model, divided(model, {"name": "adaptive", "p": exponent}, density))
    counts = counts_of(model, torch.rand(1, 3, 32, 32))
    assert counts is not None
    assert counts.signs_save is not None
    kept, signs = counts.kept, counts.signs
    return [
        "dense" if exponent is None else f"adaptive, p {exponent:g}",
        f"{density:.0%}",
        kept.multiplications + kept.additions,
        signs.multiplications + signs.additions,
        round(counts.signs_save, 3),
        round(1 - signs.bytes / kept.bytes, 3),
    ]


def _result(rows: Sequence[Sequence[record.Cell]]) -> record.Result:
    return record.Result(
        name="signs",
        title="Operations that signs save on ResNet-34",
        rounds=1,
        claims=[
            record.Claim(
                what=f"ResNet-34, signs, p = 1, {row[1]} of the weights: share of a forward pass saved ({CLAIMED})",
                measured=float(str(row[4])),
            )
            for row in rows
            if row[0] == "adaptive, p 1"
        ],
        tables=[
            record.Table(
                caption=(
                    "Multiplications and additions of kept weights for one image, each counted as one; with signs; and "
                    "the share that they save, of operations (a half is the most: additions stay) and of bytes moved "
                    "(each weight's place among them)"
                ),
                columns=["budget", "density", "operations", "with signs", "saved", "bytes saved"],
                rows=rows,
            )
        ],
    )


if __name__ == "__main__":
    main()
