"""How small is a sparse file? Networks of the field at five densities and four kinds of values, beside their entropy.

Random weights; each layer keeps round(density * n) of its n weights, uniformly random, or in the rows "BCS" the share
that Ozdenizci and Legenstein (ICML 2021, supplement, tables 1 to 3) publish for its block. The least a layer needs is
n H(c / n) bits for the positions of its c kept weights, and c times the bits of a value.
"""

import argparse
import math
import os
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import safe_open
from torch import nn

import record
from gossamer.deploy import sparse_file
from gossamer.deploy.sparse_header import Network
from gossamer.deploy.values import STORAGE, Kind
from gossamer.models import build
from gossamer.sparsity.targets import targets
from masks import BCS, BCS_OPTIONS, Density, published, thin

GOAL = 1.15
SIZE_GOALS: Mapping[Kind, float] = {"float32": 0.7, "signs": 0.25}
# From this entropy on, the last byte of a layer's code cannot break the goal, whatever its mask.
JUDGED_BITS = 171
DENSITIES = (0.5, 0.1, 0.05, 0.01, 0.005)
NETWORKS: Mapping[str, Mapping[str, object]] = {
    "resnet18": {},
    "resnet34": {},
    "resnet50": {},
    "vgg16": {},
    "wideresnet28": {"width": 4},
    "mobilenetv2": {},
}


@dataclass(frozen=True, kw_only=True)
class Measured:
    """One file. sizes: bytes of its parts; positions_bits, values_bits: entropy; worst: the worst layer's ratio."""

    network: str
    mask: str
    density: float
    kind: Kind
    kept: int
    dense: int
    total: int
    sizes: Mapping[str, int]
    positions_bits: float
    values_bits: int
    worst: float

    @property
    def positions_ratio(self) -> float:
        """Bits of the positions to their entropy."""
        return 8 * self.sizes["positions"] / self.positions_bits

    @property
    def ratio(self) -> float:
        """Bits of positions and values to theirs."""
        return 8 * (self.sizes["positions"] + self.sizes["values"]) / (self.positions_bits + self.values_bits)

    @property
    def scaled_ratio(self) -> float:
        """The same with the bits of the scales among the first alone."""
        return self.ratio + 8 * self.sizes["scales"] / (self.positions_bits + self.values_bits)


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, write results/sparse-file.json and print its path."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--networks", nargs="+", choices=tuple(NETWORKS), default=tuple(NETWORKS))
    options = parser.parse_args(arguments)
    load = os.getloadavg()
    with tempfile.TemporaryDirectory() as folder:
        found = measure(options.networks, Path(folder) / "network.safetensors")
    print(record.write(result(found), load=load))


def measure(networks: Sequence[str], path: Path) -> list[Measured]:
    """Return every network, mask and kind of values; path: of a file that is written over."""
    found: list[Measured] = []
    for name in networks:
        for density in DENSITIES:
            found += files(name, "uniform", density, NETWORKS[name], lambda _layer, density=density: density, path)
        for density, counts in BCS.get(name, {}).items():
            options = {**NETWORKS[name], **BCS_OPTIONS.get(name, {})}
            found += files(name, "BCS", density, options, published(build(name, **options), counts), path)
    return found


def files(
    name: str, mask: str, density: float, options: Mapping[str, object], per_layer: Density, path: Path
) -> list[Measured]:
    """Return what one masked network takes in each kind of values; signs are of its weights' mean magnitudes."""
    torch.manual_seed(0)
    model = build(name, **options)
    dense = sum(4 * tensor.numel() for tensor in model.state_dict().values() if tensor.is_floating_point())
    thin(model, per_layer)
    found: list[Measured] = []
    for kind in STORAGE:
        if kind == "signs":
            binarise(model)
        network = Network(name=name, options=dict(options))  # pyright: ignore[reportArgumentType]
        sparse_file.write(path, model, kind=kind, network=network)
        found.append(sized(path, name=name, mask=mask, density=density, kind=kind, dense=dense))
    return found


@torch.no_grad()
def binarise(model: nn.Module) -> None:
    """Replace every weight by its sign times the mean magnitude of its layer's weights that are not zero."""
    for layer in targets(model):
        weight = layer.parameter
        weight.copy_(weight.sign() * (weight.abs().sum() / weight.count_nonzero().clamp_min(1)))


def sized(path: Path, *, name: str, mask: str, density: float, kind: Kind, dense: int) -> Measured:
    """Return the sizes of a file beside the entropy of what it holds."""
    about = sparse_file.about(path)
    layers = about.header.layers
    bounds = {key: entropy_bits(layer.size, layer.count) for key, layer in layers.items()}
    kept = sum(layer.count for layer in layers.values())
    with safe_open(path, framework="np") as file:
        bits = {key: 8 * file.get_slice(f"positions/{key}").get_shape()[0] for key in layers}
    return Measured(
        network=name,
        mask=mask,
        density=density,
        kind=kind,
        kept=kept,
        dense=dense,
        total=about.total,
        sizes=about.sizes,
        positions_bits=sum(bounds.values()),
        values_bits=sum(layer.count * STORAGE[layer.values].bits for layer in layers.values()),
        worst=max(bits[key] / bound for key, bound in bounds.items() if bound >= JUDGED_BITS),
    )


def entropy_bits(size: int, count: int) -> float:
    """Return n H(c / n) for c kept of n weights."""
    shares = (count / size, 1 - count / size)
    return -size * sum(share * math.log2(share) for share in shares if share > 0)


def result(found: Sequence[Measured]) -> record.Result:
    """Return the goals, the tables and every file's bytes."""
    return record.Result(
        name="sparse-file",
        title="Sparse files",
        rounds=1,
        claims=[*ratio_claims(found), *size_claims(found)],
        tables=[sizes_table(found), ratios_table(found)],
        details={
            "files": [
                {
                    **{field: value for field, value in vars(each).items() if field != "sizes"},
                    "sizes": dict(each.sizes),
                    "positions_ratio": each.positions_ratio,
                    "ratio": each.ratio,
                    "scaled_ratio": each.scaled_ratio,
                }
                for each in found
            ]
        },
    )


def ratio_claims(found: Sequence[Measured]) -> list[record.Claim]:
    """Return the worst ratios to the entropy, over all networks, masks and densities."""
    every = [("positions of a network", [each.positions_ratio for each in found])]
    every.append((f"positions of a layer of at least {JUDGED_BITS} bits", [each.worst for each in found]))
    for kind in STORAGE:
        every.append((f"positions and {kind} values of a network", [e.ratio for e in found if e.kind == kind]))
        if STORAGE[kind].scaled:
            told = f"positions, {kind} values and scales of a network"
            every.append((told, [each.scaled_ratio for each in found if each.kind == kind]))
    return [
        record.Claim(
            what=f"sparse file, {what}: bits to their entropy, the largest of {len(ratios)}",
            measured=max(ratios),
            goal=GOAL,
            sense="at most",
        )
        for what, ratios in every
    ]


def size_claims(found: Sequence[Measured]) -> list[record.Claim]:
    """Return ResNet-18 at 99 % sparsity, uniform masks, where it was measured."""
    return [
        record.Claim(
            what=f"sparse file of ResNet-18 at 99 % sparsity, {each.kind} (dense {each.dense / 1e6:.1f} MB)",
            measured=each.total / 1e6,
            unit="MB",
            goal=SIZE_GOALS[each.kind],
            sense="at most",
        )
        for each in found
        if (each.network, each.mask, each.density) == ("resnet18", "uniform", 0.01) and each.kind in SIZE_GOALS
    ]


def sizes_table(found: Sequence[Measured]) -> record.Table:
    """Return megabytes and times as small as dense, a row for each masked network."""
    rows = [
        [
            *place(each),
            each["float32"].dense / 1e6,
            *(each[kind].total / 1e6 for kind in STORAGE),
            *(each[kind].dense / each[kind].total for kind in ("float32", "signs")),
        ]
        for each in grouped(found)
    ]
    return record.Table(
        caption="Megabytes of the whole file (10^6 bytes), and times as small as dense float32",
        columns=[
            "Network",
            "Masks",
            "Density %",
            "Dense",
            *STORAGE,
            "float32: times as small",
            "signs: times as small",
        ],
        rows=rows,
    )


def ratios_table(found: Sequence[Measured]) -> record.Table:
    """Return ratios to the entropy, a row for each masked network."""
    rows = [
        [
            *place(each),
            each["float32"].positions_ratio,
            max(one.worst for one in each.values()),
            *(each[kind].ratio for kind in STORAGE),
            *(each[kind].scaled_ratio for kind in ("int8", "signs")),
        ]
        for each in grouped(found)
    ]
    return record.Table(
        caption="Bits stored to their entropy: positions, positions of the worst layer, positions and values",
        columns=[
            *("Network", "Masks", "Density %", "Positions", "Worst layer"),
            *STORAGE,
            *("int8 and scales", "signs and scales"),
        ],
        rows=rows,
    )


def grouped(found: Sequence[Measured]) -> list[dict[Kind, Measured]]:
    """Return the files of each masked network by kind of values."""
    groups: dict[tuple[str, str, float], dict[Kind, Measured]] = {}
    for each in found:
        groups.setdefault((each.network, each.mask, each.density), {})[each.kind] = each
    return list(groups.values())


def place(group: Mapping[Kind, Measured]) -> list[record.Cell]:
    """Return a row's first cells."""
    one = group["float32"]
    return [one.network, one.mask, 100 * one.density]


if __name__ == "__main__":
    main()
