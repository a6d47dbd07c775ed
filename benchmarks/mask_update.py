"""What does a sparsifier add to a training step? Its time around the optimiser's step, and the step's peak memory.

Every phase of every method, and of methods with options that change what a step does, on one network, beside the PGD-10
step of the dense network in the same process. Phases under the same sparsifier share one timing, phases whose steps are
wholly alike one measurement of memory. Where something happens only now and then, steps on which it does are timed and
one on which it does not, and weighed as often as each comes in a training of 200 epochs of 390 steps.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, TypeAlias

import torch
from torch import nn

import contestants
import ours
import phase_cases
import record
from contestants import Setting
from gossamer.runs import atomic
from gossamer.seeding import Draws
from gossamer.sparsity import Sparsifier
from gossamer.training.checkpointing import Training
from gossamer.training.crafting import Crafter
from gossamer.training.devices import place
from gossamer.training.loop import begin, train_step
from gossamer.training.phases import Phase
from phase_cases import DENSE, STEPS_PER_EPOCH, Subject

TIME_GOAL, MEMORY_GOAL = 0.02, 1.6
IMAGES = 50_000
# What an epoch tells a sparsifier that asks.
METRICS = {
    "loss": 1.0,
    "adversarial_loss": 1.0,
    "natural_loss": 1.0,
    "robust_accuracy": 0.5,
    "held_out/pgd": 0.5,
    "held_out/pgd/loss": 1.0,
}

Row: TypeAlias = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Pace:
    """When something happens that does not at every step. busy: a few of those steps; share: of them among all."""

    quiet: int
    busy: tuple[int, ...]
    share: float


@dataclass(frozen=True, kw_only=True)
class Holder:
    """A network under a sparsifier, ready for its steps."""

    training: Training
    pace: Pace

    def seconds(self, step: int, batch: int) -> float:
        """Return the seconds of what a sparsifier does around a step; batch: images that the gradients are of."""
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
        end_epoch(training.sparsifier, step)
        return before - began + time.perf_counter() - stepped

    def amortised(self, batch: int) -> tuple[float, float]:
        """Return the seconds of the mean step, and of the longest of those on which something more happens."""
        quiet = self.seconds(self.pace.quiet, batch)
        busy = [self.seconds(step, batch) for step in self.pace.busy] or [quiet]
        return quiet + (statistics.fmean(busy) - quiet) * self.pace.share, max(busy)


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure what is missing, write results/mask-update-NETWORK.json after each measurement, print its path."""
    options = _options(arguments)
    torch.set_num_threads(options.threads)
    setting = Setting(network=options.network, batch=options.batch, steps=options.steps, threads=options.threads)
    if options.peak:
        print(json.dumps(peak_memory(options.peak, setting, options.density)))
        return
    load = os.getloadavg()
    known = phase_cases.subjects(setting, options.density)
    if unknown := [name for name in options.methods or () if name not in known]:
        sys.exit(f"no such phases: {', '.join(unknown)}; there are {', '.join(known)}")
    rows = made_before(_path(setting, options), _about(setting, options)) if options.resume else {}
    for _ in measure(rows, known, setting, options):
        print(record.write(_result(setting, rows, known, options), options.out, load=load), flush=True)


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--network", default="resnet18", help="default: resnet18")
    parser.add_argument("--rounds", type=int, default=5, help="times that everything is timed (default 5)")
    parser.add_argument("--batch", type=int, default=128, help="images a training step (default 128)")
    parser.add_argument("--steps", type=int, default=10, help="steps of PGD (default 10)")
    parser.add_argument("--gradient-batch", type=int, default=16, help="images behind timed gradients (default 16)")
    parser.add_argument("--density", type=float, default=0.1, help="share of weights kept (default 0.1)")
    parser.add_argument("--methods", nargs="+", metavar="METHOD/PHASE", help="measure no others")
    parser.add_argument("--together", type=int, default=8, help="networks timed beside one dense step (default 8)")
    parser.add_argument("--resume", action="store_true", help="keep the rows of the earlier result, measure the others")
    parser.add_argument("--no-memory", dest="memory", action="store_false", help="leave peak memory out")
    parser.add_argument("--threads", type=int, default=record.cores(), help="default: every core")
    parser.add_argument("--out", type=Path, default=record.RESULTS, help="folder of the JSON file")
    parser.add_argument("--peak", metavar="METHOD/PHASE", help="take one step, print this process's peak memory")
    return parser.parse_args(arguments)


def measure(
    rows: dict[str, Row], known: Mapping[str, Subject], setting: Setting, options: argparse.Namespace
) -> Iterator[None]:
    """Fill in the rows that are missing; yields after each measurement."""
    chosen = options.methods or list(known)
    timed = [name for name in _own(chosen, known, "timed_as") if "mean" not in rows.get(name, {})]
    for first in range(0, len(timed), options.together):
        for name, row in race(setting, timed[first : first + options.together], known, options).items():
            rows.setdefault(name, {}).update(row)
        yield
    if not options.memory:
        return
    for name in dict.fromkeys([DENSE, *_own(chosen, known, "measured_as")]):
        if "peak" not in rows.get(name, {}):
            rows.setdefault(name, {}).update(_in_fresh_process(name, setting, options.density))
            yield


def _own(names: Sequence[str], known: Mapping[str, Subject], how: str) -> list[str]:
    """Return the subjects that stand for the named ones, each once."""
    standing = [getattr(known[name], how) for name in names]
    return [name for name in dict.fromkeys(standing) if name is not None]


def holder(subject: Subject, weights: Mapping[str, torch.Tensor], setting: Setting) -> Holder:
    """Return a network in a phase as the loop begins it, in a training of full length."""
    scene = phase_cases.scene(subject, weights, setting, place("cpu", threads=setting.threads))
    training = begin(subject.phase, contestants.network(weights, setting), scene)
    return Holder(training=training, pace=pace(training.sparsifier, scene.horizon.steps))


def pace(sparsifier: Sparsifier, steps: int) -> Pace:
    """Return on which steps of a training of so many a sparsifier does more than on others, as it says itself."""
    due = [done - 1 for done in range(1, steps + 1) if sparsifier.due(done)]
    quiet = next((step for step, first in enumerate(due) if step != first), len(due))
    # From the second on: there is momentum, and what moved once moves again; three, since not all are alike.
    return Pace(quiet=quiet, busy=tuple(due[1:4] or due), share=len(due) / max(1, steps))


def end_epoch(sparsifier: Sparsifier, step: int) -> None:
    """Let a sparsifier act on an epoch that a step ends."""
    epoch, within = divmod(step + 1, STEPS_PER_EPOCH)
    if not within:
        sparsifier.after_epoch(epoch - 1, METRICS)


def race(
    setting: Setting, names: Sequence[str], known: Mapping[str, Subject], options: argparse.Namespace
) -> dict[str, Row]:
    """Return seconds a round: of the dense training step, and around the mean and the busiest step of each subject."""
    weights = contestants.initial_weights(setting)
    dense = contestants.make("gossamer", weights, setting)
    holders = {name: holder(known[name], weights, setting) for name in names}
    x, y = contestants.images(setting.batch)
    dense.step(x, y)
    for each in holders.values():
        each.amortised(options.gradient_batch)
    rows: dict[str, Row] = {
        name: {"dense": [], "mean": [], "busy": [], "share_of_steps": each.pace.share} for name, each in holders.items()
    }
    for _ in range(options.rounds):
        began = time.perf_counter()
        dense.step(x, y)
        whole = time.perf_counter() - began
        for name, each in holders.items():
            mean, busy = each.amortised(options.gradient_batch)
            for key, value in (("dense", whole), ("mean", mean), ("busy", busy)):
                rows[name][key].append(value)
    return rows


def peak_memory(name: str, setting: Setting, density: float) -> Row:
    """Return this process's peak resident memory in MiB, before and after one training step of a phase.

    A phase without steps is measured as it starts. stored_mib: what its objective keeps for 50,000 images, of which
    the process holds one batch's.
    """
    subject = phase_cases.subjects(setting, density)[name]
    phase = subject.phase
    weights = contestants.initial_weights(replace(setting, batch=2))
    if phase.epochs == 0:
        before = record.peak_mib()
        holder(subject, weights, setting)
        return {"before": before, "peak": record.peak_mib()}
    held = holder(subject, weights, setting)
    before = record.peak_mib()
    _take_step(phase, held, setting)
    row = {"before": before, "peak": record.peak_mib()}
    stored = sum(value.nbytes for value in held.training.state.values())
    return {**row, "stored_mib": stored / setting.batch * IMAGES / 2**20} if stored else row


def _take_step(phase: Phase, held: Holder, setting: Setting) -> None:
    """Take a step on which all happens that a phase has; without such steps, one of its middle."""
    training, where = held.training, place("cpu", threads=setting.threads)
    training.step = held.pace.busy[0] if held.pace.busy else phase.epochs * STEPS_PER_EPOCH // 2
    training.epoch = training.step // STEPS_PER_EPOCH
    attack = phase.attack if phase.adapt is None else phase.adapt(phase.attack, training.sparsifier)
    train_step(
        phase,
        training,
        ours.batch_of(*contestants.images(setting.batch)),
        attack,
        crafter=Crafter(training.model, where, phase.attack_bn, fast=phase.fast),
        network=training.model,
        place=where,
        draws=Draws(0),
    )
    end_epoch(training.sparsifier, training.step)


def _in_fresh_process(name: str, setting: Setting, density: float) -> Row:
    numbers = [f"--{key}={value}" for key, value in asdict(setting).items() if key in ("batch", "steps", "threads")]
    command = [sys.executable, __file__, "--peak", name, "--network", setting.network, f"--density={density}", *numbers]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    return json.loads(done.stdout.splitlines()[-1])


def made_before(path: Path, about: Mapping[str, Any]) -> dict[str, Row]:
    """Return the rows of an earlier result, to go on from; ends the program where it was made otherwise."""
    if not path.exists():
        return {}
    details = atomic.read_json(path)["details"]
    if details.get("about") != about:
        sys.exit(f"{path} was made with another setting, machine or torch: leave --resume out to begin anew")
    return details["rows"]


def shares(row: Row) -> dict[str, dict[str, float]]:
    """Return what a sparsifier's mean and busiest step are of the dense training step of its round."""
    return {
        key: record.spread([part / whole for part, whole in zip(row[key], row["dense"], strict=True)])
        for key in ("mean", "busy")
    }


def _path(setting: Setting, options: argparse.Namespace) -> Path:
    return options.out / f"mask-update-{setting.network}.json"


def _about(setting: Setting, options: argparse.Namespace) -> dict[str, Any]:
    """Return what two results must share for their rows to stand in one."""
    machine = {key: record.machine()[key] for key in ("cpu", "cores")}
    return {**asdict(setting), **machine, "density": options.density, "torch": torch.__version__}


def _result(
    setting: Setting, rows: Mapping[str, Row], known: Mapping[str, Subject], options: argparse.Namespace
) -> record.Result:
    return record.Result(
        name=_path(setting, options).stem,
        title=f"What sparsifiers add to a PGD-{setting.steps} step, {setting.network}, batch {setting.batch}, "
        f"density {options.density:g}",
        rounds=options.rounds,
        claims=[*_time_claims(setting, rows), *_memory_claims(setting, rows)],
        tables=[_table(rows, known)],
        details={"about": _about(setting, options), "rows": rows},
        threads=setting.threads,
    )


def _time_claims(setting: Setting, rows: Mapping[str, Row]) -> list[record.Claim]:
    said = {
        "mean": f"share of a PGD-{setting.steps} step that masks cost, over a whole training",
        "busy": f"share of a PGD-{setting.steps} step that masks cost, on a step on which they move",
    }
    return [
        record.Claim(
            what=f"{name} on {setting.network}: {what}",
            measured=shares(row)[key]["median"],
            goal=TIME_GOAL,
            sense="at most",
        )
        for name, row in rows.items()
        if "mean" in row
        for key, what in said.items()
        # Where all steps are alike, they are the same.
        if key == "mean" or row["share_of_steps"]
    ]


def _memory_claims(setting: Setting, rows: Mapping[str, Row]) -> list[record.Claim]:
    dense = rows.get(DENSE, {}).get("peak")
    return [
        record.Claim(
            what=f"{name} on {setting.network}: peak memory of a step, beside the dense network's",
            measured=row["peak"] / dense,
            unit="times",
            goal=MEMORY_GOAL,
            sense="at most",
        )
        for name, row in rows.items()
        if dense is not None and "peak" in row and name != DENSE
    ]


def _table(rows: Mapping[str, Row], known: Mapping[str, Subject]) -> record.Table:
    dense = rows.get(DENSE, {}).get("peak")
    return record.Table(
        caption="What a sparsifier does around the optimiser's step, as a share of the dense training step (over a "
        "whole training, and on a step on which more happens than on most), and peak memory of a step. Where another "
        "phase does the same, its numbers stand, under its name",
        columns=[
            "Method/phase",
            "Timed as",
            "Share of training",
            "Greatest",
            "Share of its step",
            "Happens on",
            "Measured as",
            "Peak MiB",
            "Times dense",
            "Stored MiB, apart",
        ],
        rows=[_cells(name, subject, rows, dense) for name, subject in known.items()],
    )


def _cells(name: str, subject: Subject, rows: Mapping[str, Row], dense: float | None) -> list[record.Cell]:
    timed = rows.get(subject.timed_as or "", {})
    measured = rows.get(subject.measured_as, {})
    times: list[record.Cell] = [None] * 4
    if "mean" in timed:
        share = shares(timed)
        often = timed["share_of_steps"]
        happens = f"{often:.3%} of the steps" if often else "every step"
        times = [share["mean"]["median"], share["mean"]["max"], share["busy"]["median"], happens]
    peak = measured.get("peak")
    beside = peak / dense if peak is not None and dense is not None else None
    return [
        name,
        None if subject.timed_as == name else subject.timed_as,
        *times,
        None if subject.measured_as == name else subject.measured_as,
        peak,
        beside,
        measured.get("stored_mib"),
    ]


if __name__ == "__main__":
    main()
