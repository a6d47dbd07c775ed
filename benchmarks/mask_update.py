"""What does a sparsifier add to a training step? Its time around the optimiser's step, and the step's peak memory.

Every method's phases that hold a sparsifier, on one network, beside the PGD-10 step of the dense network in the same
process. Masks that move every so many steps are timed on a step that moves them and on one that does not, and the two
are weighed as often as each happens in a training of 200 epochs of 390 steps.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

import contestants
import ours
import record
from contestants import Setting
from gossamer.methods.registry import METHODS, build
from gossamer.seeding import Draws
from gossamer.sparsity import Horizon, NoSparsifier, Sparsifier
from gossamer.sparsity.dynamic_mask import DynamicMask
from gossamer.sparsity.gradual import GradualPruning
from gossamer.training.checkpointing import Training
from gossamer.training.crafting import Crafter
from gossamer.training.devices import Place, place
from gossamer.training.loop import train_step
from gossamer.training.phases import Phase

TIME_GOAL, MEMORY_GOAL = 0.02, 1.6
EPOCHS, STEPS_PER_EPOCH = 200, 390
DENSE = "dense"


@dataclass(frozen=True, kw_only=True)
class Pace:
    """When masks move. quiet: a step that moves none; busy: one that does; share: of busy steps among all."""

    quiet: int
    busy: int
    share: float


@dataclass(frozen=True, kw_only=True)
class Holder:
    """A network under a sparsifier, ready for its steps."""

    training: Training
    pace: Pace

    def seconds(self, step: int, batch: int) -> float:
        """Return the seconds of before_step and after_step; batch: images that the gradients are of."""
        training = self.training
        x, y = contestants.images(batch)
        training.model.train()
        training.optimizer.zero_grad(set_to_none=True)
        nn.functional.cross_entropy(training.model(x), y).backward()
        began = time.perf_counter()
        training.sparsifier.before_step(step, training.optimizer)
        before = time.perf_counter()
        training.optimizer.step()
        stepped = time.perf_counter()
        training.sparsifier.after_step(step, training.optimizer)
        return before - began + time.perf_counter() - stepped

    def amortised(self, batch: int) -> tuple[float, float]:
        """Return the seconds of the mean step, and those of a step that moves masks."""
        busy = self.seconds(self.pace.busy, batch)
        if self.pace.quiet == self.pace.busy:
            return busy, busy
        quiet = self.seconds(self.pace.quiet, batch)
        return quiet + (busy - quiet) * self.pace.share, busy


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure every method, write results/mask-update-NETWORK.json and print its path."""
    options = _options(arguments)
    torch.set_num_threads(options.threads)
    setting = Setting(network=options.network, batch=options.batch, steps=options.steps, threads=options.threads)
    if options.peak:
        print(json.dumps(peak_memory(options.peak, setting, options.density)))
        return
    load = os.getloadavg()
    names = [DENSE, *(options.methods or sparse_phases(setting, options.density))]
    seconds = race(setting, names[1:], options)
    peaks = {name: _in_fresh_process(name, setting, options.density) for name in names} if options.memory else {}
    print(record.write(_result(setting, seconds, peaks, options), options.out, load=load))


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--network", default="resnet18", help="default: resnet18")
    parser.add_argument("--rounds", type=int, default=5, help="times that everything is timed (default 5)")
    parser.add_argument("--batch", type=int, default=128, help="images a training step (default 128)")
    parser.add_argument("--steps", type=int, default=10, help="steps of PGD (default 10)")
    parser.add_argument("--gradient-batch", type=int, default=16, help="images behind timed gradients (default 16)")
    parser.add_argument("--density", type=float, default=0.1, help="share of weights kept (default 0.1)")
    parser.add_argument("--methods", nargs="+", metavar="METHOD/PHASE", help="default: all that hold a sparsifier")
    parser.add_argument("--no-memory", dest="memory", action="store_false", help="leave peak memory out")
    parser.add_argument("--threads", type=int, default=record.cores(), help="default: every core")
    parser.add_argument("--out", type=Path, default=record.RESULTS, help="folder of the JSON file")
    parser.add_argument("--peak", metavar="METHOD/PHASE", help="take one step, print this process's peak memory")
    return parser.parse_args(arguments)


def sparse_phases(setting: Setting, density: float) -> dict[str, Phase]:
    """Return the phases of all methods that train under a sparsifier, by METHOD/PHASE, equal sparsifiers once."""
    found: dict[str, Phase] = {}
    seen: set[str] = set()
    for name, entry in METHODS.items():
        method = build(name, **({"density": density} if "density" in entry.options else {}))
        base = replace(ours.phase_of(setting, "eval"), epochs=EPOCHS, optimizer=method.default_optimizer("adversarial"))
        for phase in method.phases(base, setting.network):
            same = _identity(phase.sparsifier, f"{name}/{phase.name}")
            if phase.epochs and phase.sparsifier is not NoSparsifier and same not in seen:
                found[f"{name}/{phase.name}"] = phase
                seen.add(same)
    return found


def _identity(make: Callable[[], Sparsifier], otherwise: str) -> str:
    if isinstance(make, partial):
        return f"{make.func.__name__}{sorted(make.keywords.items())}"  # type: ignore[attr-defined]
    return make.__name__ if isinstance(make, type) else otherwise


def holder(phase: Phase, model: nn.Module, where: Place) -> Holder:
    """Return a network under a phase's sparsifier, as the loop begins it, in a training of full length."""
    horizon = Horizon(epochs=phase.epochs, steps_per_epoch=STEPS_PER_EPOCH, image_shape=(3, 32, 32))
    where.prepare(model)
    sparsifier = phase.sparsifier()
    sparsifier.attach(model, Draws(0).at("sparsifier"), horizon)
    where.prepare(model)
    training = Training(
        model=model,
        objective=phase.objective,
        optimizer=phase.optimizer.build(model, sparsifier.undecayed()),
        sparsifier=sparsifier,
        average=None,
        monitors=[],
        best=None,
    )
    return Holder(training=training, pace=pace(sparsifier, horizon.steps))


def pace(sparsifier: Sparsifier, steps: int) -> Pace:
    """Return when a sparsifier moves masks in a training of so many steps; at each step if it does not say."""
    if not isinstance(sparsifier, DynamicMask | GradualPruning):
        return Pace(quiet=0, busy=0, share=1.0)
    busy = [done - 1 for done in range(1, steps + 1) if sparsifier.due(done)]
    # From the second update on: there is momentum, and what moved once moves again.
    return Pace(quiet=0, busy=busy[min(1, len(busy) - 1)], share=len(busy) / steps)


def race(setting: Setting, names: Sequence[str], options: argparse.Namespace) -> dict[str, list[tuple[float, float]]]:
    """Return (mean step, busy step) in seconds a round by METHOD/PHASE, and the dense training step as `dense`."""
    weights = contestants.initial_weights(setting)
    phases, where = sparse_phases(setting, options.density), place("cpu", threads=setting.threads)
    dense = contestants.make("gossamer", weights, setting)
    holders = {name: holder(phases[name], contestants.network(weights, setting), where) for name in names}
    x, y = contestants.images(setting.batch)
    dense.step(x, y)
    for each in holders.values():
        each.amortised(options.gradient_batch)
    seconds: dict[str, list[tuple[float, float]]] = {name: [] for name in (DENSE, *names)}
    for _ in range(options.rounds):
        began = time.perf_counter()
        dense.step(x, y)
        whole = time.perf_counter() - began
        seconds[DENSE].append((whole, whole))
        for name, each in holders.items():
            seconds[name].append(each.amortised(options.gradient_batch))
    return seconds


def peak_memory(name: str, setting: Setting, density: float) -> dict[str, float]:
    """Return this process's peak resident memory in MiB, before and after one training step that moves masks."""
    base = ours.phase_of(setting, "eval")
    phase = base if name == DENSE else sparse_phases(setting, density)[name]
    where = place("cpu", threads=setting.threads)
    weights = contestants.initial_weights(replace(setting, batch=2))
    held = holder(phase, contestants.network(weights, setting), where)
    # What a phase crafts with is its own; what its objective would need of earlier phases is not there.
    training, stepped = held.training, replace(phase, objective=base.objective, attack=base.attack)
    training.objective, training.step = base.objective, held.pace.busy
    crafter = Crafter(training.model, where, stepped.attack_bn, fast=stepped.fast)
    batch = ours.batch_of(*contestants.images(setting.batch))
    before = record.peak_mib()
    train_step(
        stepped,
        training,
        batch,
        stepped.attack,
        crafter=crafter,
        network=training.model,
        place=where,
        draws=Draws(0),
    )
    return {"before": before, "peak": record.peak_mib()}


def _in_fresh_process(name: str, setting: Setting, density: float) -> dict[str, float]:
    numbers = [f"--{key}={value}" for key, value in asdict(setting).items() if key in ("batch", "steps", "threads")]
    command = [sys.executable, __file__, "--peak", name, "--network", setting.network, f"--density={density}", *numbers]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    return json.loads(done.stdout.splitlines()[-1])


def shares(seconds: Mapping[str, Sequence[tuple[float, float]]]) -> dict[str, dict[str, float]]:
    """Return what each sparsifier's mean step is of the dense training step of its round."""
    return {
        name: record.spread([mean / step for (mean, _), (step, _) in zip(each, seconds[DENSE], strict=True)])
        for name, each in seconds.items()
        if name != DENSE
    }


def _result(
    setting: Setting,
    seconds: Mapping[str, Sequence[tuple[float, float]]],
    peaks: Mapping[str, Mapping[str, float]],
    options: argparse.Namespace,
) -> record.Result:
    compared = shares(seconds)
    times = [
        record.Claim(
            what=f"{name} on {setting.network}: share of a PGD-{setting.steps} step that masks cost on average",
            measured=value["median"],
            goal=TIME_GOAL,
            sense="at most",
        )
        for name, value in compared.items()
    ]
    memory = [
        record.Claim(
            what=f"{name} on {setting.network}: peak memory of a step, beside the dense network's",
            measured=value["peak"] / peaks[DENSE]["peak"],
            unit="times",
            goal=MEMORY_GOAL,
            sense="at most",
        )
        for name, value in peaks.items()
        if name != DENSE
    ]
    return record.Result(
        name=f"mask-update-{setting.network}",
        title=f"What sparsifiers add to a PGD-{setting.steps} step, {setting.network}, batch {setting.batch}, "
        f"density {options.density:g}",
        rounds=options.rounds,
        claims=[*times, *memory],
        tables=[_table(seconds, compared, peaks)],
        details={"setting": asdict(setting), "seconds": seconds, "shares": compared, "peak_memory_mib": peaks},
        threads=setting.threads,
    )


def _table(
    seconds: Mapping[str, Sequence[tuple[float, float]]],
    compared: Mapping[str, Mapping[str, float]],
    peaks: Mapping[str, Mapping[str, float]],
) -> record.Table:
    rows: list[list[record.Cell]] = []
    for name, each in seconds.items():
        share: Mapping[str, Any] = compared.get(name, {})
        rows.append(
            [
                name,
                statistics.median(mean for mean, _ in each),
                statistics.median(busy for _, busy in each),
                share.get("median"),
                share.get("max"),
                peaks.get(name, {}).get("peak"),
            ]
        )
    return record.Table(
        caption="Seconds around the optimiser's step (for dense: of the whole training step), medians",
        columns=["Method/phase", "Mean step s", "Step that moves masks s", "Share", "Greatest share", "Peak MiB"],
        rows=rows,
    )


if __name__ == "__main__":
    main()
