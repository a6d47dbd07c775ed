"""Which recipe stands for each row of the published tables? Data, network, density, method and objective agree."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from gossamer.recipe.load import load_recipe, recipes

DOCS = Path(__file__).parents[2] / "docs"


@dataclass(frozen=True, kw_only=True)
class Row:
    """One row. figures: as the claim quotes them; options: of the method, some of them; density: None for all kept."""

    recipe: str
    figures: tuple[str, ...]
    data: str = "cifar10"
    model: str
    method: str
    objective: str = "adversarial"
    density: float | None = None
    options: Mapping[str, Any] = field(default_factory=dict[str, Any])
    model_options: Mapping[str, Any] = field(default_factory=dict[str, Any])
    unlabelled: bool = False


# Weights of convolutions and of linear layers, which two methods leave dense.
SIZES = {"resnet18": (11_159_232, 5_120), "vgg16": (14_710_464, 592_384)}


def _kept(share: float, network: str, method: str) -> float:
    if method not in ("robust-admm", "pwoa"):
        return share
    convolutions, linear = SIZES[network]
    return (share * convolutions + linear) / (convolutions + linear)


# The adversarial-pruning benchmark: clean/AutoAttack at 90, 95 and 99 % of the weights removed.
BENCHMARK = {
    ("robust-admm", "cifar10", "resnet18"): "80.54/43.68 79.33/42.56 71.17/37.21",
    ("robust-admm", "cifar10", "vgg16"): "74.76/39.92 72.67/38.44 57.69/31.30",
    ("hydra", "cifar10", "resnet18"): "76.74/43.34 76.16/42.45 72.21/38.80",
    ("hydra", "cifar10", "vgg16"): "78.31/43.81 76.58/42.61 70.59/35.56",
    ("harp", "cifar10", "resnet18"): "83.38/45.40 83.38/45.69 83.11/45.50",
    ("harp", "cifar10", "vgg16"): "80.70/42.83 80.26/41.21 79.42/42.02",
    ("pwoa", "cifar10", "resnet18"): "83.29/45.35 82.58/41.25 76.33/28.95",
    ("pwoa", "cifar10", "vgg16"): "67.50/30.49 65.85/26.39 58.36/15.43",
    ("mad", "cifar10", "resnet18"): "73.67/41.10 70.70/38.96 58.90/29.26",
    ("mad", "cifar10", "vgg16"): "72.09/39.80 70.45/38.10 43.35/25.90",
    ("boosting-tickets", "cifar10", "resnet18"): "77.39/41.31 73.54/39.29 59.42/31.37",
    ("boosting-tickets", "cifar10", "vgg16"): "75.66/39.26 69.27/38.27 58.49/31.24",
    ("scratch-ticket", "cifar10", "resnet18"): "60.92/14.31 56.93/16.76 48.90/15.16",
    ("scratch-ticket", "cifar10", "vgg16"): "75.81/26.99 71.45/23.94 64.16/14.80",
    ("robust-bird", "cifar10", "preact-resnet18"): "78.16/43.35 79.27/44.60 69.36/37.08",
    ("robust-bird", "cifar10", "vgg16"): "73.95/41.62 76.16/41.80 67.94/37.46",
    ("twinrep", "cifar10", "resnet18"): "76.37/42.93 73.19/41.47 64.97/36.10",
    ("twinrep", "cifar10", "vgg16"): "75.36/41.84 74.16/40.81 69.95/38.49",
    ("flying-bird", "cifar10", "preact-resnet18"): "80.69/46.49 77.42/46.10 75.40/42.02",
    ("flying-bird", "cifar10", "vgg16"): "76.72/43.95 75.22/44.47 72.49/40.49",
    ("hydra", "svhn", "resnet18"): "90.95/44.12 89.91/45.29 85.71/34.20",
    ("hydra", "svhn", "vgg16"): "87.89/45.85 87.95/44.57 80.85/40.30",
    ("harp", "svhn", "resnet18"): "92.96/45.39 92.75/45.95 93.38/34.42",
    ("harp", "svhn", "vgg16"): "92.69/44.00 92.25/44.17 90.60/44.36",
    ("twinrep", "svhn", "resnet18"): "88.90/46.72 88.59/47.16 85.09/43.44",
    ("twinrep", "svhn", "vgg16"): "87.22/45.54 89.70/44.33 86.03/43.55",
    ("flying-bird", "svhn", "preact-resnet18"): "92.60/39.81 91.14/47.43 92.15/41.80",
    ("flying-bird", "svhn", "vgg16"): "91.05/49.04 91.12/49.94 90.03/48.80",
}
# The same at 50, 75 and 90 % of filters or channels removed.
STRUCTURED = {
    ("robust-admm", "resnet18"): "79.27/42.68 78.81/40.79 70.53/37.30",
    ("robust-admm", "vgg16"): "74.58/39.67 70.51/37.74 58.58/31.79",
    ("pwoa", "resnet18"): "83.44/44.79 81.77/37.85 76.41/28.56",
    ("pwoa", "vgg16"): "66.33/30.15 63.36/24.91 57.71/18.39",
    ("twinrep", "resnet18"): "79.90/45.58 79.37/45.21 78.41/44.30",
    ("twinrep", "vgg16"): "77.65/43.13 77.58/42.77 76.26/42.14",
}
# Rows that no recipe stands for: the reason is on the method's page.
NOT_OFFERED = {
    ("harp", "resnet18"): "77.38/42.73 80.06/42.09 77.88/41.59",
    ("harp", "vgg16"): "76.70/40.01 73.61/39.14 66.45/35.62",
}
NAMES = {"boosting-tickets": "rewinding"}
ONE_LINEAR_LAYER = ("mad", "twinrep", "robust-bird", "flying-bird")


def _quoted(pair: str) -> tuple[str]:
    clean, robust = pair.split("/")
    return (f"clean {clean}, robust {robust}",)


def _benchmark() -> Iterator[Row]:
    for (folder, data, network), figures in BENCHMARK.items():
        for removed, pair in zip((90, 95, 99), figures.split(), strict=True):
            yield Row(
                recipe=f"{folder}/{network}-{data}-{removed}",
                figures=_quoted(pair),
                data=data,
                model=network,
                method=NAMES.get(folder, folder),
                objective="trades" if folder in ("hydra", "twinrep") else "adversarial",
                density=_kept(1 - removed / 100, network, folder),
                model_options={"head": "single"} if network == "vgg16" and folder in ONE_LINEAR_LAYER else {},
            )
    for (folder, network), figures in STRUCTURED.items():
        for removed, pair in zip((50, 75, 90), figures.split(), strict=True):
            yield Row(
                recipe=f"{folder}/{network}-cifar10-filters-{removed}",
                figures=_quoted(pair),
                model=network,
                method=folder,
                objective="trades" if folder == "twinrep" else "adversarial",
                density=_kept(1 - removed / 100, network, folder),
                options={"structure": "filters"} if folder == "twinrep" else {"pattern": "filter"},
            )


# The supplement of Bayesian connectivity sampling.
def _bcs() -> Iterator[Row]:
    trades = {"objective": "trades"}
    for folder, method, removed, figures in (
        ("bcs", "bcs", 90, "55.2/27.2"),
        ("bcs", "bcs", 99, "47.7/22.2"),
        ("hydra", "hydra", 90, "50.1/25.0"),
        ("hydra", "hydra", 99, "44.4/20.1"),
    ):
        name = f"{folder}/resnet18-cifar100-{'trades-' if folder == 'bcs' else ''}{removed}"
        yield Row(
            recipe=name,
            figures=_quoted(figures),
            data="cifar100",
            model="resnet18",
            method=method,
            density=1 - removed / 100,
            **trades,
        )
    tables = {
        ("tiny-imagenet", "resnet34", "trades"): {
            None: "clean 35.0, robust 10.5",
            90: "clean 33.8, robust 11.8",
            99: "clean 30.6, robust 9.5",
        },
        ("cifar10", "vgg16", "rst"): {
            None: "52.31, 52.14, 52.09, 52.04, 52.01",
            90: "49.98, 49.77, 49.64, 49.64, 49.64",
            99: "42.41, 42.29, 42.25, 42.24, 42.17",
        },
        ("svhn", "wideresnet28", "trades"): {
            None: "57.42, 56.93, 56.59, 56.48, 56.35",
            90: "56.42, 55.88, 55.58, 55.47, 55.38",
            99: "53.24, 52.93, 52.74, 52.70, 52.62",
        },
    }
    for (data, network, kind), rows in tables.items():
        for removed, figures in rows.items():
            name = f"{network}-{data}-{kind}"
            yield Row(
                recipe=f"dense/{name}" if removed is None else f"bcs/{name}-{removed}",
                figures=(figures,),
                data=data,
                model=network,
                method="dense" if removed is None else "bcs",
                density=None if removed is None else 1 - removed / 100,
                unlabelled=kind == "rst",
                model_options={"width": 4} if network == "wideresnet28" else {},
                **trades,
            )
    penalties = {
        ("cifar10", "vgg16"): {"1e-3": "70.9 / 40.4", "1e-4": "77.9 / 45.2", "1e-6": "75.5 / 41.6"},
        ("cifar100", "resnet18"): {"1e-3": "48.5 / 23.2", "1e-4": "49.8 / 23.4", "1e-6": "48.6 / 22.0"},
    }
    for (data, network), rows in penalties.items():
        for strength, figures in rows.items():
            yield Row(
                recipe=f"bcs/{network}-{data}-l1-{strength}",
                figures=(figures,),
                data=data,
                model=network,
                method="bcs",
                density=0.1,
                options={"penalty": "l1", "l1": float(strength)},
                **trades,
            )
    yield Row(
        recipe="bcs/vgg16-cifar10-trades-90",
        figures=("78.2", "45.7"),
        model="vgg16",
        method="bcs",
        density=0.1,
        **trades,
    )


# Robust binary subnetworks, table 1, at 99 % under AutoAttack; "-" where nothing is published.
COLUMNS = (
    ("resnet34", "cifar10"),
    ("resnet34", "cifar100"),
    ("resnet34", "imagenet100"),
    ("resnet18", "cifar10"),
    ("resnet50", "cifar10"),
)
P01 = {"budget": {"name": "adaptive", "p": 0.1}}
BINARY = {"binary": True}
SUBNETWORKS: tuple[tuple[str, str, dict[str, Any], str], ...] = (
    ("dense/{}-{}-at", "dense", {}, "43.26 36.63 53.92 41.50 43.24"),
    ("dense/{}-{}-at-binary", "dense", BINARY, "40.34 26.49 34.20 39.13 31.18"),
    ("dense/{}-lbn-{}-at", "dense", {}, "42.39 35.15 55.14 42.25 44.33"),
    ("dense/{}-lbn-{}-at-binary", "dense", BINARY, "39.58 32.98 35.36 39.86 37.25"),
    ("dense/small-{}-{}-at", "dense", {}, "38.81 27.68 25.40 28.13 26.03"),
    ("dense/small-{}-{}-at-binary", "dense", BINARY, "26.03 15.85 10.44 30.35 32.25"),
    ("flying-bird/{}-{}-99", "flying-bird", {}, "45.86 35.91 37.70 42.15 35.91"),
    ("flying-bird/{}-{}-99-binary", "flying-bird", BINARY, "34.37 23.32 9.54 27.08 26.33"),
    ("flying-bird/{}-{}-99-plus", "flying-bird", {"plus": True}, "44.57 34.30 37.70 38.55 29.54"),
    ("flying-bird/{}-{}-99-plus-binary", "flying-bird", {"plus": True, **BINARY}, "33.33 22.64 9.52 27.84 25.40"),
    ("bcs/{}-{}-at-99", "bcs", {}, "43.51 31.85 - 39.60 41.85"),
    ("scratch-ticket/{}-{}-99", "scratch-ticket", {}, "34.95 21.96 17.54 31.98 35.40"),
    ("scratch-ticket/{}-lbn-{}-99", "scratch-ticket", {}, "37.23 23.14 15.36 33.27 34.71"),
    ("hydra/{}-{}-at-99", "hydra", P01, "42.73 33.00 43.18 40.20 44.14"),
    ("hydra/{}-{}-at-99-binary", "hydra", {**P01, **BINARY}, "29.28 23.60 18.22 30.90 22.36"),
    ("atmc/{}-{}-99", "atmc", {}, "34.14 25.10 22.18 32.21 25.23"),
    ("atmc/{}-{}-99-1bit", "atmc", {"bits": 1}, "25.62 11.09 5.78 17.73 6.82"),
    ("atmc/{}-{}-99-p0.1", "atmc", P01, "34.58 25.37 23.52 32.31 33.61"),
    ("atmc/{}-{}-99-p0.1-1bit", "atmc", {"bits": 1, **P01}, "24.62 11.04 4.58 19.67 16.12"),
    ("robust-subnet/{}-{}-99", "robust-subnet", P01, "45.06 34.83 - 39.65 42.72"),
    ("robust-subnet/{}-{}-99-fast", "robust-subnet", P01, "40.77 34.45 33.04 30.86 37.93"),
)


def _subnetworks() -> Iterator[Row]:
    for name, method, options, figures in SUBNETWORKS:
        for (network, data), figure in zip(COLUMNS, figures.split(), strict=True):
            if figure == "-":
                continue
            stored = data == "imagenet100" or name.endswith("fast")
            recipe = name.format(network, data)
            yield Row(
                recipe=recipe,
                figures=(figure,),
                data=data,
                model=f"small-{network}" if "small-" in name else network,
                method=method,
                objective="stored" if stored else ("weighted" if method == "atmc" else "adversarial"),
                density=None if method == "dense" else 0.01,
                options=options,
                model_options={"last_batch_norm": True} if "-lbn-" in name else {},
            )


# Table 2, the row of p = 0.1, and table 3: binary without and with the last batch norm, signed constants likewise.
def _budgets() -> Iterator[Row]:
    shared: dict[str, Any] = {"model": "resnet34", "method": "robust-subnet"}
    removed = {"50": "4.35", "80": "15.03", "90": "28.12", "95": "42.65", "99.5": "40.97", "99.8": "33.09"}
    for share, figure in removed.items():
        density = 1 - float(share) / 100
        yield Row(
            recipe=f"robust-subnet/resnet34-cifar10-{share}", figures=(figure,), density=density, options=P01, **shared
        )
    table = {
        0.0: "40.94 44.65 39.38 42.83",
        0.1: "41.01 45.06 39.62 45.01",
        0.2: "37.85 41.58 36.66 45.04",
        0.5: "40.61 39.95 39.98 42.64",
        0.8: "35.15 38.95 37.96 41.71",
        0.9: "35.64 35.81 34.75 40.14",
        1.0: "30.02 30.62 36.88 39.32",
    }
    for p, figures in table.items():
        yield Row(
            recipe=f"robust-subnet/resnet34-cifar10-99-p{p}",
            figures=tuple(figures.split()),
            density=0.01,
            options={"budget": {"name": "adaptive", "p": p}},
            model_options={"last_batch_norm": True},
            **shared,
        )
    kaiming = {**P01, "weights": "scaled-signed-constant"}
    yield Row(
        recipe="robust-subnet/resnet34-cifar10-99-kaiming",
        figures=("45.01",),
        density=0.01,
        options=kaiming,
        **shared,
    )


# HYDRA and pruning by magnitude at 0, 90, 95 and 99 %.
def _hydra() -> Iterator[Row]:
    tables = {
        ("vgg16", "cifar10-rst"): ("51.9 49.5 48.7 41.7", "48.8 45.2 34.3"),
        ("wideresnet28", "cifar10-rst"): ("57.2 55.2 54.2 47.3", "53.8 49.2 37.3"),
        ("vgg16", "svhn"): ("53.5 52.4 51.7 46.8", "51.5 50.4 29.0"),
        ("wideresnet28", "svhn"): ("60.1 62.8 59.8 52.4", "59.4 53.4 45.3"),
    }
    for (network, data), (learned, magnitude) in tables.items():
        shared: dict[str, Any] = {
            "data": data.removesuffix("-rst"),
            "model": network,
            "objective": "trades",
            "unlabelled": data.endswith("-rst"),
            "model_options": {"width": 4} if network == "wideresnet28" else {},
        }
        dense, *pruned = learned.split()
        yield Row(recipe=f"hydra/{network}-{data}-dense", figures=(f"robust {dense}",), method="dense", **shared)
        for removed, figure in zip((90, 95, 99), pruned, strict=True):
            density = 1 - removed / 100
            yield Row(
                recipe=f"hydra/{network}-{data}-{removed}",
                figures=(f"robust {figure}",),
                method="hydra",
                density=density,
                **shared,
            )
        for removed, figure in zip((90, 95, 99), magnitude.split(), strict=True):
            yield Row(
                recipe=f"lwm/{network}-{data}-{removed}",
                figures=(f"robust {figure}",),
                method="magnitude",
                density=1 - removed / 100,
                **shared,
            )
    yield Row(
        recipe="hydra/wideresnet28-10-cifar10-rst-90",
        figures=("clean 88.97, robust 62.24",),
        model="wideresnet28",
        method="hydra",
        objective="trades",
        density=0.1,
        unlabelled=True,
        model_options={"width": 10},
    )
    for share, density, figure in (
        ("dense", None, "61.1"),
        ("90", 0.1, "60.7"),
        ("95", 0.05, "59.9"),
        ("99", 0.01, "54.4"),
    ):
        yield Row(
            recipe=f"hydra/vgg16-cifar10-smoothing-{share}",
            figures=(f"robust {figure}",),
            model="vgg16",
            method="dense" if density is None else "hydra",
            objective="gaussian",
            density=density,
        )


# Flying Bird at 80 %: clean best/final, robust best/final.
def _flying_bird() -> Iterator[Row]:
    tables = {
        "cifar10": (
            "81.15/83.38 51.10/43.61",
            "78.46/82.42 50.18/46.10",
            "80.55/83.17 51.62/46.37",
            "80.74/83.16 51.70/47.51",
        ),
        "cifar100": (
            "52.03/53.91 26.93/19.62",
            "48.79/53.33 25.54/20.82",
            "53.57/55.41 26.64/22.00",
            "52.29/55.23 26.66/23.37",
        ),
        "tiny-imagenet": (
            "43.57/46.64 20.84/15.76",
            "43.70/46.30 19.58/16.45",
            "45.95/46.86 20.34/19.00",
            "45.67/46.73 20.36/19.11",
        ),
    }
    rows: tuple[tuple[str, str, float | None, dict[str, Any]], ...] = (
        ("dense/preact-resnet18-{}-at", "dense", None, {}),
        ("robust-bird/preact-resnet18-{}-80", "robust-bird", 0.2, {}),
        ("flying-bird/preact-resnet18-{}-80", "flying-bird", 0.2, {}),
        ("flying-bird/preact-resnet18-{}-80-plus", "flying-bird", 0.2, {"plus": True}),
    )
    for data, figures in tables.items():
        for (name, method, density, options), row in zip(rows, figures, strict=True):
            clean, robust = row.split()
            yield Row(
                recipe=name.format(data),
                figures=(f"clean {clean}, robust {robust}",),
                data=data,
                model="preact-resnet18",
                method=method,
                density=density,
                options=options,
            )


# Robust sparse regularization after pruning, its widths, and parametric noise.
def _noise() -> Iterator[Row]:
    parts = {
        "pgd": {"noise": "none", "strength": 0.0},
        "cni": {"noise": "channel", "strength": 0.0},
        "lasso": {"noise": "none"},
        "rsr": {"noise": "channel"},
    }
    tables = {
        ("resnet20", 0.394): "51.58/12.49 55.93/23.91 83.64/38.46 84.32/47.44",
        ("resnet18", 0.146): "70.31/31.00 50.97/22.54 85.92/46.8 86.79/53.03",
        ("vgg16", 0.494): "78.40/32.14 75.79/40.39 83.24/42.01 83.02/47.70",
    }
    for (network, density), figures in tables.items():
        for (part, options), pair in zip(parts.items(), figures.split(), strict=True):
            yield Row(
                recipe=f"rsr/{network}-cifar10-{part}",
                figures=tuple(pair.split("/")),
                model=network,
                method="rsr",
                objective="weighted",
                density=density,
                options=options,
            )
    widths = {0.25: ("83.18/45.38", 0.6167, "82.68/39.01"), 0.5: ("84.85/50.7", 0.3683, "84.99/43.33")}
    for width, (regularised, density, plain) in widths.items():
        shared: dict[str, Any] = {"model": "resnet18", "objective": "weighted", "model_options": {"width": width}}
        name = f"rsr/resnet18-width{width}-cifar10"
        yield Row(recipe=f"{name}-rsr", figures=tuple(regularised.split("/")), method="rsr", density=density, **shared)
        yield Row(recipe=f"{name}-at", figures=tuple(plain.split("/")), method="dense", **shared)
    yield Row(
        recipe="rsr/resnet18-width1.0-cifar10-at",
        figures=("86.82", "47.85"),
        model="resnet18",
        method="dense",
        objective="weighted",
    )
    noises = {"at": "83.84/39.14/46.55", "layer": "84.89/45.94/54.48", "channel": "85.17/48.40/56.51"}
    for noise, figures in {**noises, "element": "80.69/49.07/55.13"}.items():
        yield Row(
            recipe=f"pni/resnet20-cifar10-{noise}",
            figures=tuple(figures.split("/")),
            model="resnet20",
            method="dense" if noise == "at" else "pni",
            objective="weighted",
            options={} if noise == "at" else {"noise": noise},
        )
    yield Row(
        recipe="pni/resnet20-width4-cifar10-layer",
        figures=("87.7", "49.1"),
        model="resnet20",
        method="pni",
        objective="weighted",
        options={"noise": "layer"},
        model_options={"width": 4},
    )


# One-shot ADMM: clean, robust under AutoAttack of its day; and networks trained on clean images.
def _one_shot() -> Iterator[Row]:
    tables = {
        ("resnet34", "0.1"): "77.25/43.9 77.2/42.4 66.7/38.0",
        ("resnet34", "0.03"): "90.9/35.5 90.0/35.5 86.0/29.2",
        ("mobilenetv2", "0.1"): "79.9/40.8 79.7/37.7 40.4/24.0",
        ("mobilenetv2", "0.03"): "89.8/32.6 87.4/35.5 36.8/2.5",
    }
    for (network, eps), figures in tables.items():
        for kept, pair in zip((100, 50, 10), figures.split(), strict=True):
            yield Row(
                recipe=f"one-shot-admm/{network}-cifar10-eps{eps}-{kept}",
                figures=_quoted(pair),
                model=network,
                method="one-shot-admm",
                objective="weighted",
                density=kept / 100,
            )
    natural = {("resnet34", "cifar10"): "94.0", ("mobilenetv2", "cifar10"): "93.2"}
    natural |= {("resnet34", "cifar100"): "72.8", ("mobilenetv2", "cifar100"): "66.0"}
    for (network, data), figure in natural.items():
        yield Row(
            recipe=f"dense/{network}-{data}-natural",
            figures=(f"clean {figure}",),
            data=data,
            model=network,
            method="dense",
            objective="natural",
        )


ROWS = [
    *_benchmark(),
    *_bcs(),
    *_subnetworks(),
    *_budgets(),
    *_hydra(),
    *_flying_bird(),
    *_noise(),
    *_one_shot(),
]


@pytest.mark.parametrize("row", ROWS, ids=[row.recipe for row in ROWS])
def test_a_recipe_stands_for_the_row(row: Row) -> None:
    recipe = load_recipe(row.recipe)
    assert (recipe.data.name, recipe.model.name) == (row.data, row.model)
    assert (recipe.method.name, recipe.objective.name) == (row.method, row.objective)
    assert (recipe.data.unlabelled is not None) == row.unlabelled
    assert row.model_options.items() <= recipe.model.options.items()
    options = recipe.method.options
    assert {name: options.get(name) for name in row.options} == row.options
    density = options.get("density")
    assert density == (None if row.density is None else pytest.approx(row.density, abs=1e-6))
    claim = " ".join(recipe.claim.split())
    assert all(figure in claim for figure in row.figures), claim
    assert "quoted" in claim


def test_every_benchmarks_row_is_counted() -> None:
    assert len(list(_benchmark())) == 28 * 3 + 6 * 3
    assert len({row.recipe for row in ROWS}) > 250


@pytest.mark.parametrize("p", [0.0, 0.1, 0.2, 0.5, 0.8, 0.9, 1.0])
def test_cells_between_budgets_and_shares_are_one_setting_away(p: float) -> None:
    for removed in (0.5, 0.8, 0.9, 0.95, 0.995, 0.998):
        density = round(1 - removed, 4)
        cell = load_recipe(f"robust-subnet/resnet34-cifar10-99-p{p}", [f"method.density={density}"])
        assert cell.method.options == {"density": density, "budget": {"name": "adaptive", "p": p}}


def test_rows_without_a_recipe_are_said_to_be() -> None:
    page = (DOCS / "methods" / "harp.md").read_text(encoding="utf-8")
    for (folder, network), figures in NOT_OFFERED.items():
        assert not [name for name in recipes() if name.startswith(f"{folder}/{network}") and "channels" in name]
        assert figures.replace(" ", ", ") in page
    assert "not offered" in page
