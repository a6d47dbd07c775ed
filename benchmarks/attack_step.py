"""How long does one step of each attack take, beside the same attack of other libraries, on the same images?

An untrained network and a radius at which nothing breaks: every library does all its steps on all images. A step is
one iteration on one image; contestants take turns within one process, and ratios are formed within a round.
"""

import argparse
import os
import statistics
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn

import record
from gossamer.attacks.apgd import APGD
from gossamer.attacks.fab import FAB
from gossamer.attacks.square import Square
from gossamer.evaluation.subject import at_rest, prepare
from gossamer.models import build
from gossamer.seeding import Draws
from gossamer.threat import ThreatModel
from gossamer.types import Attack

GOALS = {"gossamer": 1.3, "gossamer-compiled": 1.6}
EPS = 1e-4
CLASSES = 10
PACKAGES = ("pyautoattack", "torchattacks", "adversarial-robustness-toolbox")

Run: TypeAlias = Callable[[Tensor, Tensor], object]
Race: TypeAlias = Mapping[str, Run]


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure every attack, write results/attack-step-NETWORK.json and print its path."""
    options = _options(arguments)
    torch.set_num_threads(options.threads)
    load = os.getloadavg()
    model = _model(options.network)
    x, y = _images(model, options.batch)
    seconds: dict[str, dict[str, list[float]]] = {}
    with at_rest(model):
        for attack, race in _races(model, x, options).items():
            seconds[attack] = _measure(race, options.rounds, x, y)
            print(
                attack, {name: round(statistics.median(each), 2) for name, each in seconds[attack].items()}, flush=True
            )
    print(record.write(_result(seconds, options), load=load))


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--network", default="resnet18", help="default: resnet18")
    parser.add_argument("--rounds", type=int, default=5, help="times that each contestant attacks (default 5)")
    parser.add_argument("--batch", type=int, default=32, help="images (default 32)")
    parser.add_argument("--steps", type=int, default=10, help="gradient steps an attack (default 10)")
    parser.add_argument("--queries", type=int, default=20, help="queries of Square (default 20)")
    parser.add_argument("--threads", type=int, default=record.cores(), help="default: every core")
    return parser.parse_args(arguments)


def _model(network: str) -> nn.Module:
    torch.manual_seed(0)
    model = build(network, num_classes=CLASSES, in_channels=3, image_size=32)
    # Statistics of a few batches, as a trained network has; the weights do not matter for the time.
    model.train()
    with torch.no_grad():
        for _ in range(3):
            model(torch.rand(32, 3, 32, 32))
    return model.eval()


def _images(model: nn.Module, count: int) -> tuple[Tensor, Tensor]:
    x = torch.rand(count, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        return x, model(x).argmax(dim=1)


def _races(model: nn.Module, x: Tensor, options: argparse.Namespace) -> dict[str, Race]:
    threat, steps, queries = ThreatModel("linf", EPS), options.steps, options.queries
    ours: dict[str, Attack] = {
        "apgd-ce": APGD(threat=threat, steps=steps),
        "apgd-dlr": APGD(threat=threat, steps=steps, loss="dlr"),
        "apgd-t": APGD(threat=threat, steps=steps, loss="dlr", targets=1),
        "fab-t": FAB(threat=threat, steps=steps, restarts=1, targets=1),
        "square": Square(threat=threat, queries=queries),
    }
    theirs = _theirs(model, options)
    places = {
        "gossamer": prepare(model, fast=True, example=x[:2]).attacked,
        "gossamer-compiled": prepare(model, fast=True, example=x[:2], compile=True).attacked,
    }
    return {
        name: {**{label: partial(_ours, attack, place) for label, place in places.items()}, **theirs[name]}
        for name, attack in ours.items()
    }


def _ours(attack: Attack, model: Any, x: Tensor, y: Tensor) -> Tensor:
    return attack(model, x, y, draws=Draws(0).per_sample(torch.arange(len(x))))


def _theirs(model: nn.Module, options: argparse.Namespace) -> dict[str, dict[str, Run]]:
    import pyautoattack.autopgd_base as apgd  # noqa: PLC0415
    import torchattacks  # noqa: PLC0415
    from art.attacks.evasion import AutoProjectedGradientDescent, SquareAttack  # noqa: PLC0415
    from pyautoattack.fab_pt import FABAttack_PT  # noqa: PLC0415
    from pyautoattack.square import SquareAttack as ReferenceSquare  # noqa: PLC0415

    steps, queries = options.steps, options.queries
    common: dict[str, Any] = {"eps": EPS, "norm": "Linf", "seed": 0, "device": "cpu", "verbose": False}
    reference = {
        "apgd-ce": apgd.APGDAttack(model, n_iter=steps, n_restarts=1, loss="ce", **common),
        "apgd-dlr": apgd.APGDAttack(model, n_iter=steps, n_restarts=1, loss="dlr", **common),
        "apgd-t": apgd.APGDAttack_targeted(model, n_iter=steps, n_restarts=1, n_target_classes=1, **common),
        "fab-t": FABAttack_PT(model, n_iter=steps, n_restarts=1, targeted=True, **common),
        "square": ReferenceSquare(model, n_queries=queries, n_restarts=1, **common),
    }
    reference["fab-t"].n_target_classes = 1
    classifier = _art(model)
    arts: dict[str, Run] = {}
    for name, loss in (("apgd-ce", "cross_entropy"), ("apgd-dlr", "difference_logits_ratio")):
        attack = AutoProjectedGradientDescent(
            classifier, norm="inf", eps=EPS, eps_step=2 * EPS, max_iter=steps, nb_random_init=1,
            batch_size=options.batch, loss_type=loss, verbose=False,
        )  # fmt: skip
        arts[name] = partial(_by_art, attack)
    square = SquareAttack(classifier, norm="inf", eps=EPS, max_iter=queries, nb_restarts=1, batch_size=options.batch)
    arts["square"] = partial(_by_art, square)
    second = {
        "apgd-ce": torchattacks.APGD(model, eps=EPS, steps=steps, n_restarts=1, loss="ce"),
        "apgd-dlr": torchattacks.APGD(model, eps=EPS, steps=steps, n_restarts=1, loss="dlr"),
        "apgd-t": torchattacks.APGDT(model, eps=EPS, steps=steps, n_restarts=1, n_classes=2),
        "fab-t": torchattacks.FAB(model, eps=EPS, steps=steps, n_restarts=1, n_classes=2, multi_targeted=True),
        "square": torchattacks.Square(model, eps=EPS, n_queries=queries, n_restarts=1),
    }
    return {
        name: {
            "pyautoattack": reference[name].perturb,
            "torchattacks": second[name],
            **({"art": arts[name]} if name in arts else {}),
        }
        for name in reference
    }


def _art(model: nn.Module) -> Any:
    from art.estimators.classification import PyTorchClassifier  # noqa: PLC0415

    return PyTorchClassifier(
        model=model, loss=nn.CrossEntropyLoss(), input_shape=(3, 32, 32), nb_classes=CLASSES,
        clip_values=(0.0, 1.0), device_type="cpu",
    )  # fmt: skip


def _by_art(attack: Any, x: Tensor, y: Tensor) -> object:
    return attack.generate(x=x.numpy(), y=nn.functional.one_hot(y, CLASSES).numpy())


def _measure(race: Race, rounds: int, x: Tensor, y: Tensor) -> dict[str, list[float]]:
    taking_part = dict(race)
    for name in list(taking_part):
        _seconds(taking_part[name], x, y)
    seconds: dict[str, list[float]] = {name: [] for name in taking_part}
    names = list(taking_part)
    for number in range(rounds):
        turn = number % len(names)
        for name in [*names[turn:], *names[:turn]]:
            seconds[name].append(_seconds(taking_part[name], x, y))
    return seconds


def _seconds(run: Run, x: Tensor, y: Tensor) -> float:
    began = time.perf_counter()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        run(x.clone(), y.clone())
    return time.perf_counter() - began


def _result(seconds: Mapping[str, Mapping[str, list[float]]], options: argparse.Namespace) -> record.Result:
    claims: list[record.Claim] = []
    rows: list[list[record.Cell]] = []
    for attack, each in seconds.items():
        peers = [name for name in each if not name.startswith("gossamer")]
        fastest = min(peers, key=lambda name: statistics.median(each[name]))
        for name, goal in GOALS.items():
            ratio = statistics.median(t / o for t, o in zip(each[fastest], each[name], strict=True))
            what = f"{attack}, {name}: times as fast as {fastest}, the fastest peer, median of rounds"
            claims.append(record.Claim(what=what, measured=ratio, unit="times", goal=goal))
        rows.extend([attack, name, statistics.median(taken), min(taken), max(taken)] for name, taken in each.items())
    return record.Result(
        name=f"attack-step-{options.network}",
        title=f"Steps of attacks, {options.network}, n = {options.batch}",
        rounds=options.rounds,
        claims=claims,
        tables=[
            record.Table(
                caption=f"Seconds for {options.steps} steps ({options.queries} queries of Square)",
                columns=["attack", "by", "median", "least", "greatest"],
                rows=rows,
            )
        ],
        details={"seconds": {attack: dict(each) for attack, each in seconds.items()}},
        packages=PACKAGES,
        threads=options.threads,
    )


if __name__ == "__main__":
    main()
