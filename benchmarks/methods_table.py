"""What does every method reach? Trains, attacks and tabulates all of them at one scale; stopped, it goes on.

What the committed record holds is not made again, on whatever machine, unless its recipe or its arithmetic changed.
"""

import argparse
import hashlib
import json
import math
import os
import re
import shutil
import statistics
import subprocess
import sys
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, fields
from functools import cached_property
from pathlib import Path
from typing import Any

import method_rows
import record
from gossamer.intervals import welch
from gossamer.recipe.identity import versions_of
from gossamer.recipe.load import load_recipe, run_name
from gossamer.recipe.schema import Recipe
from gossamer.runs import atomic
from gossamer.runs.environment import environment
from method_rows import SCALES, Attack, Row, Scale

AHEAD, WITHIN, BEHIND = "ahead", "within", "behind"


@dataclass(frozen=True, kw_only=True)
class Made:
    """What one run reached.

    key: of what it was made by; attacked_by: what stood for each of the table's attacks; robust, n: by the table's
    attack; nonzero: by layer; seconds: of processor time, training alone; cpu: that took them.
    """

    row: Row
    seed: int
    key: str
    attacked_by: Mapping[str, str]
    clean: float
    robust: Mapping[str, float]
    n: Mapping[str, int]
    density: float
    work_ratio: float
    nonzero: Mapping[str, int]
    seconds: float
    cpu: str

    def to_json(self) -> dict[str, Any]:
        """Return the run as values that JSON has."""
        return {**vars(self), "row": self.row.name, "recipe": self.row.recipe, "settings": list(self.row.settings)}

    @classmethod
    def from_json(cls, row: Row, said: Mapping[str, Any]) -> "Made":
        """Return the run of a row that `to_json` wrote."""
        return cls(**{each.name: said[each.name] for each in fields(cls) if each.name != "row"}, row=row)


def main(arguments: Sequence[str] | None = None) -> int:
    """Make what is missing, then write results/methods-SCALE.json."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--scale", choices=sorted(SCALES), default="digits")
    parser.add_argument("--seeds", type=int, nargs="+", help="make no others")
    parser.add_argument("--only", nargs="+", metavar="ROW", help="make no others")
    parser.add_argument("--runs", type=Path, required=True, help="where runs lie, and what is known of them")
    parser.add_argument("--processes", type=int, default=2, help="runs at a time, one thread each")
    parser.add_argument("--no-runs", action="store_true", help="tabulate what is there")
    parser.add_argument("--results", type=Path, default=record.RESULTS)
    options = parser.parse_args(arguments)
    scale, load = SCALES[options.scale], os.getloadavg()
    options.runs.mkdir(parents=True, exist_ok=True)
    jobs = [
        Job(row=row, seed=seed, scale=scale, runs=options.runs)
        for seed in scale.seeds
        for row in scale.rows
        if seed in row.seeds(scale.seeds)
    ]
    known = recorded(options.results / f"methods-{options.scale}.json", jobs)
    if not options.no_runs:
        chosen = [
            job
            for job in jobs
            if job.name not in known
            and (options.only is None or job.row.name in options.only)
            and (options.seeds is None or job.seed in options.seeds)
        ]
        with ThreadPoolExecutor(options.processes) as pool:
            for said in pool.map(Job.make, chosen):
                print(said, flush=True)
    made = [
        known[job.name] if job.name in known else job.made() for job in jobs if job.name in known or job.is_complete()
    ]
    record.write(result(options.scale, scale, made), options.results, load=load)
    silent = unexplained(made, scale)
    for name in silent:
        print(f"{name}: behind its control, and nothing says why; mend it, or explain it in method_rows.py")
    return int(bool(silent))


@dataclass(frozen=True, kw_only=True)
class Job:
    """One run of the table, with its evaluations beside it."""

    row: Row
    seed: int
    scale: Scale
    runs: Path

    @property
    def name(self) -> str:
        """The name of the run's folder."""
        return f"{re.sub('[^a-z0-9]+', '-', self.row.name.lower()).strip('-')}-seed{self.seed}"

    @cached_property
    def settings(self) -> list[str]:
        """What is changed in the row's recipe."""
        return method_rows.settings(self.row, self.scale, self.seed)

    @cached_property
    def key(self) -> str:
        """What the run is made by: the recipe, whatever it is called, and the version of all that it computes with."""
        recipe = load_recipe(self.row.recipe, self.settings)
        said = [_said(recipe), sorted(versions_of(recipe).items())]
        return hashlib.sha256(json.dumps(said).encode()).hexdigest()[:16]

    @property
    def attacked_by(self) -> dict[str, str]:
        """What stands for each of the table's attacks."""
        return {attack.name: self.row.attacks.get(attack.name, attack.name) for attack in self.scale.attacks}

    def is_complete(self) -> bool:
        """Whether the run is trained by today's recipe and attacked by everything."""
        return self._made_by() == self.key and all(map(self._is_attacked, self.scale.attacks))

    def make(self) -> str:
        """Train and attack what is missing; return a line that says how it went."""
        folder = self.runs / self.name
        if self._made_by() not in (None, self.key):
            return f"{self.name}: made by another recipe; remove it and what lies beside it to make it again"
        if not self._trained(folder):
            if not self._cost.exists():
                # What was killed together with this program left no record of its seconds: it begins again.
                shutil.rmtree(folder, ignore_errors=True)
            flags = [part for setting in self.settings for part in ("--set", setting)]
            code, seconds = self._run(["train", self.row.recipe, *flags, "--out", str(folder)])
            atomic.write_json(self._cost, {"key": self.key, "seconds": self._seconds() + seconds})
            if code:
                return f"{self.name}: training ended with {code}"
        for attack in self.scale.attacks:
            if not self._is_attacked(attack) and (code := self._attack(folder, attack)):
                return f"{self.name}: {attack.name} ended with {code}"
        made = self.made()
        return f"{self.name}: {made.clean:.3f} clean, robust {dict(made.robust)}, {made.seconds:.0f} s"

    def made(self) -> Made:
        """Return what the run reached."""
        found = {attack.name: atomic.read_json(self._evaluation(attack)) for attack in self.scale.attacks}
        network = atomic.read_json(self.runs / self.name / "results" / "network.json")
        first = found[self.scale.attacks[0].name]
        return Made(
            row=self.row,
            seed=self.seed,
            key=self.key,
            attacked_by=self.attacked_by,
            clean=first["clean_accuracy"],
            robust={name: each["robust_accuracy"] for name, each in found.items()},
            n={name: each["n"] for name, each in found.items()},
            density=first["density"],
            work_ratio=network["work_ratio"],
            nonzero={layer["name"].removesuffix(".weight"): layer["nonzero"] for layer in network["layers"]},
            seconds=self._seconds(),
            cpu=environment()["numeric"]["cpu"],
        )

    @staticmethod
    def _trained(folder: Path) -> bool:
        status = folder / "status.json"
        return status.exists() and atomic.read_json(status)["state"] == "done"

    @property
    def _cost(self) -> Path:
        return self.runs / f"{self.name}.cost.json"

    def _made_by(self) -> str | None:
        """The key of what lies in the run's folder, None where no training of it ended."""
        return atomic.read_json(self._cost).get("key", "") if self._cost.exists() else None

    def _evaluation(self, attack: Attack) -> Path:
        name = self.attacked_by[attack.name].replace(":", ".")
        return self.runs / f"{self.name}.{name}.json"

    def _is_attacked(self, attack: Attack) -> bool:
        path = self._evaluation(attack)
        return path.exists() and attack.n in (None, atomic.read_json(path)["n"])

    def _seconds(self) -> float:
        return atomic.read_json(self._cost)["seconds"] if self._cost.exists() else 0.0

    def _attack(self, folder: Path, attack: Attack) -> int:
        size = [] if attack.n is None else ["--n", str(attack.n)]
        target = self._evaluation(attack)
        name = self.attacked_by[attack.name]
        return self._run(["evaluate", str(folder), "--attack", name, *size, "--json", str(target)])[0]

    def _run(self, command: Sequence[str]) -> tuple[int, float]:
        """Run a command of the program on one thread; return its exit status and processor seconds."""
        # Attacks of a row's own are modules beside this one.
        found = os.pathsep.join([str(Path(__file__).parent), *filter(None, [os.environ.get("PYTHONPATH")])])
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": found}
        with (self.runs / f"{self.name}.log").open("a", encoding="utf-8") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", "gossamer", *command], stdout=log, stderr=log, env=environment
            )
            _, status, usage = os.wait4(process.pid, 0)
        return os.waitstatus_to_exitcode(status), usage.ru_utime + usage.ru_stime


def _said(recipe: Recipe) -> str:
    """Return what tells recipes apart, whatever they are called and whichever defaults were added since."""
    return run_name(recipe.model_copy(update={"name": ""}))


def recorded(path: Path, jobs: Sequence[Job]) -> dict[str, Made]:
    """Return what a record already holds of these jobs, by their names, where it was made and attacked as today."""
    held = record.read(path) if path.exists() else None
    runs = {(run["row"], run["seed"]): run for run in held["details"]["runs"]} if held else {}
    found: dict[str, Made] = {}
    for job in jobs:
        run = runs.get((job.row.name, job.seed), {})
        if run.get("key") != job.key or run["attacked_by"] != job.attacked_by:
            continue
        if all(attack.n in (None, run["n"][attack.name]) for attack in job.scale.attacks):
            found[job.name] = Made.from_json(job.row, run)
    return found


def result(name: str, scale: Scale, made: Sequence[Made]) -> record.Result:
    """Return the record of a scale: the table, nonzeros by layer, and every run."""
    groups = _groups(made, scale)
    return record.Result(
        name=f"methods-{name}",
        title=scale.title,
        rounds=max((len(runs) for runs in groups.values()), default=0),
        claims=(),
        tables=[_reached(groups, scale), _layers(groups)],
        details={"runs": [each.to_json() for each in made], "settings": list(scale.settings), "epochs": scale.epochs},
        threads=1,
    )


def _reached(groups: Mapping[str, Sequence[Made]], scale: Scale) -> record.Table:
    rows: list[list[record.Cell]] = []
    for name, runs in groups.items():
        attacked = [_spread([run.robust[attack.name] for run in runs]) for attack in scale.attacks]
        gains, verdict = _against(runs, groups, scale)
        rows.append(
            [
                name,
                len(runs),
                _mean(runs, "density", 4),
                _mean(runs, "work_ratio", 2),
                _spread([run.clean for run in runs]),
                *attacked,
                gains,
                verdict,
                round(statistics.mean(run.seconds for run in runs)),
                runs[0].row.note or (runs[0].row.why if verdict == BEHIND else ""),
            ]
        )
    sizes = {attack.name: next(iter(groups.values()))[0].n[attack.name] for attack in scale.attacks} if groups else {}
    return record.Table(
        caption=(
            "Accuracy in %, mean over seeds ± standard deviation; each attack on the first n test images, so that what "
            "is attacked on fewer is not comparable across columns. Against its controls (random masks for sparse "
            f"networks, the dense one for others), under {' and '.join(sizes)}: the difference of means; ahead where "
            "one is surely above 0, by Welch's 95 % interval over seeds (by twice the standard error over images where "
            "one seed is all), and behind where one is surely below. Work ratio: dense multiply-adds by kept ones. "
            "Seconds: processor time of training, one thread, on whatever machine made the run. Recipes of the digits "
            "were settled on seed 0, on these images; the other seeds, and CIFAR-10, had no part in it."
        ),
        columns=(
            "method",
            "seeds",
            "density",
            "work ratio",
            "clean",
            *(f"{name}, n={n}" for name, n in sizes.items()),
            "against controls",
            "verdict",
            "seconds",
            "why",
        ),
        rows=rows,
    )


def unexplained(made: Sequence[Made], scale: Scale) -> list[str]:
    """Return the rows that stay behind a control for which nothing says why."""
    groups = _groups(made, scale)
    return [
        name
        for name, runs in groups.items()
        if not (runs[0].row.why or runs[0].row.note) and _against(runs, groups, scale)[1] == BEHIND
    ]


def _groups(made: Sequence[Made], scale: Scale) -> dict[str, list[Made]]:
    groups = {row.name: [each for each in made if each.row.name == row.name] for row in scale.rows}
    return {name: runs for name, runs in groups.items() if runs}


def _layers(groups: Mapping[str, Sequence[Made]]) -> record.Table:
    layers = list(dict.fromkeys(name for runs in groups.values() for name in runs[0].nonzero))
    rows: list[list[record.Cell]] = []
    for name, runs in groups.items():
        kept = {layer: [run.nonzero[layer] for run in runs if layer in run.nonzero] for layer in layers}
        means = [round(statistics.mean(counts)) if counts else None for counts in kept.values()]
        rows.append([name, *means])
    return record.Table(caption="Nonzero weights by layer, mean over seeds", columns=("method", *layers), rows=rows)


def _against(runs: Sequence[Made], groups: Mapping[str, Sequence[Made]], scale: Scale) -> tuple[str, str]:
    """Return the differences to the controls in points, under every attack, and the verdict: the worst of them."""
    controls = [name for name in runs[0].row.controls if name in groups]
    attacks = [attack.name for attack in scale.attacks]
    if not controls:
        return "", ""
    told = [
        f"{' / '.join(f'{100 * _gain(runs, groups[control], attack):+.1f}' for attack in attacks)} {control}"
        for control in controls
    ]
    sides = [_side(runs, groups[control], attack) for control in controls for attack in attacks]
    verdict = BEHIND if -1 in sides else AHEAD if 1 in sides else WITHIN
    return "; ".join(told), verdict


def _gain(runs: Sequence[Made], control: Sequence[Made], attack: str) -> float:
    """Return the difference of means."""
    return _robust(runs, attack) - _robust(control, attack)


def _side(runs: Sequence[Made], control: Sequence[Made], attack: str) -> int:
    """Return on which side of its control a row surely lies, 1 or -1; 0 where that may be chance.

    By Welch's interval over seeds; where one of both has a single seed, by two standard errors.
    """
    gain = _gain(runs, control, attack)
    if min(len(runs), len(control)) > 1:
        interval = welch(_values(runs, attack), _values(control, attack)).interval or (gain, gain)
        return (interval[0] > 0) - (interval[1] < 0)
    error = 2 * math.hypot(_error(runs, attack), _error(control, attack))
    return (gain > error) - (gain < -error)


def _values(runs: Sequence[Made], attack: str) -> list[float]:
    return [run.robust[attack] for run in runs]


def _robust(runs: Sequence[Made], attack: str) -> float:
    return statistics.mean(_values(runs, attack))


def _error(runs: Sequence[Made], attack: str) -> float:
    """Return the standard error of a mean over seeds; of one seed, that of its share of n images."""
    if len(runs) > 1:
        return statistics.stdev(_values(runs, attack)) / math.sqrt(len(runs))
    share, n = runs[0].robust[attack], runs[0].n[attack]
    return math.sqrt(share * (1 - share) / n)


def _spread(shares: Sequence[float]) -> str:
    mean = f"{100 * statistics.mean(shares):.1f}"
    return f"{mean} ± {100 * statistics.stdev(shares):.1f}" if len(shares) > 1 else mean


def _mean(runs: Sequence[Made], what: str, digits: int) -> float:
    return round(statistics.mean(getattr(run, what) for run in runs), digits)


if __name__ == "__main__":
    raise SystemExit(main())
