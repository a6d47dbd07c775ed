"""How long does the whole of standard AutoAttack take on a trained network, and do its verdicts agree?

Everyone attacks the same first n test images of the same run, wholly, one after the other within one process.
"""

import argparse
import os
import time
import warnings
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn

import record
from gossamer.evaluation import evaluate, wilson
from gossamer.evaluation.subject import at_rest
from gossamer.recipe.open import open_run
from gossamer.threat import ThreatModel

GOAL = 2.0
OURS = ("gossamer", "gossamer-compiled")
PEERS = ("pyautoattack", "torchattacks")


def main(arguments: Sequence[str] | None = None) -> None:
    """Attack once with each contestant, write results/autoattack-NAME.json and print its path."""
    options = _options(arguments)
    torch.set_num_threads(options.threads)
    load = os.getloadavg()
    run = open_run(options.run, options.data_dir)
    model, test = run.model(), run.part("test")
    x, y = test.float(torch.arange(options.n)), test.labels[: options.n]
    contestants: dict[str, Callable[[], Tensor]] = {
        "gossamer": partial(_ours, model, x, y, run.threat, options, compiled=False),
        "gossamer-compiled": partial(_ours, model, x, y, run.threat, options, compiled=True),
        "pyautoattack": partial(_reference, model, x, y, run.threat, options),
        "torchattacks": partial(_torchattacks, model, x, y, run.threat, options),
    }
    seconds: dict[str, float] = {}
    robust: dict[str, list[bool]] = {}
    for name in options.contestants:
        began = time.perf_counter()
        flags = contestants[name]()
        seconds[name] = time.perf_counter() - began
        robust[name] = flags.tolist()
        print(f"{name}: {sum(robust[name])} of {options.n} robust, {seconds[name]:.0f} s", flush=True)
    print(record.write(_result(run.folder.name, str(run.threat), seconds, robust, options), load=load))


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("run", type=Path, help="a run folder whose robust accuracy is between 30 and 60 %%")
    parser.add_argument("--data-dir", type=Path, help="where the data lie; by default $GOSSAMER_DATA")
    parser.add_argument("--n", type=int, default=64, help="the first n test images (default 64)")
    parser.add_argument("--batch", type=int, default=32, help="images a batch (default 32)")
    parser.add_argument("--contestants", nargs="+", default=[*OURS, *PEERS], choices=[*OURS, *PEERS])
    parser.add_argument("--threads", type=int, default=record.cores(), help="default: every core")
    return parser.parse_args(arguments)


def _ours(
    model: nn.Module, x: Tensor, y: Tensor, threat: ThreatModel, options: argparse.Namespace, *, compiled: bool
) -> Tensor:
    made = evaluate(model, (x, y), "autoattack", threat=threat, batch_size=options.batch, compile=compiled)
    return torch.tensor(made.attacks[0].robust, dtype=torch.bool)


def _reference(model: nn.Module, x: Tensor, y: Tensor, threat: ThreatModel, options: argparse.Namespace) -> Tensor:
    from pyautoattack import AutoAttack  # noqa: PLC0415

    norm = {"linf": "Linf", "l2": "L2", "l1": "L1"}[threat.norm]
    attack = AutoAttack(model, norm=norm, eps=threat.eps, version="standard", seed=0, device="cpu")
    with at_rest(model), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = attack.run_standard_evaluation(x, y, batch_size=options.batch)
        x_adv = found[0] if isinstance(found, tuple) else found
        return _right(model, x_adv, y) & _right(model, x, y)


def _torchattacks(model: nn.Module, x: Tensor, y: Tensor, threat: ThreatModel, options: argparse.Namespace) -> Tensor:
    import torchattacks  # noqa: PLC0415

    norm = {"linf": "Linf", "l2": "L2"}[threat.norm]
    attack = torchattacks.AutoAttack(model, norm=norm, eps=threat.eps, version="standard", n_classes=10, seed=0)
    right: list[Tensor] = []
    with at_rest(model), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for images, labels in zip(x.split(options.batch), y.split(options.batch), strict=True):
            right.append(_right(model, attack(images, labels), labels) & _right(model, images, labels))
    return torch.cat(right)


@torch.no_grad()
def _right(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    return model(x).argmax(dim=1) == y


def _rank(peers: Sequence[str]) -> str:
    return "the fastest peer" if len(peers) > 1 else "the only peer run"


def _result(
    name: str, threat: str, seconds: dict[str, float], robust: dict[str, list[bool]], options: argparse.Namespace
) -> record.Result:
    peers = [peer for peer in PEERS if peer in seconds]
    fastest = min(peers, key=lambda peer: seconds[peer], default=None)
    claims = [
        record.Claim(
            what=f"{one}, whole AutoAttack on {name}, n = {options.n}: times as fast as {fastest}, {_rank(peers)}",
            measured=seconds[fastest] / seconds[one],
            unit="times",
            goal=GOAL,
        )
        for one in OURS
        if fastest is not None and one in seconds
    ]
    first = robust.get("pyautoattack")
    rows: list[list[record.Cell]] = []
    for one, flags in robust.items():
        low, high = wilson(sum(flags), len(flags))
        differ = None if first is None else sum(a != b for a, b in zip(flags, first, strict=True))
        accuracy = f"{sum(flags) / len(flags):.3f} [{low:.3f}, {high:.3f}]"
        rows.append([one, round(seconds[one], 1), accuracy, len(flags), differ])
    return record.Result(
        name=f"autoattack-{name}",
        title=f"Standard AutoAttack, whole, on {name}",
        rounds=1,
        claims=claims,
        tables=[
            record.Table(
                caption=f"{threat}, batch {options.batch}, {options.threads} threads",
                columns=["by", "seconds", "robust accuracy", "n", "samples unlike pyautoattack"],
                rows=rows,
            )
        ],
        details={"robust": robust, "seconds": seconds},
        packages=peers,
        threads=options.threads,
    )


if __name__ == "__main__":
    main()
