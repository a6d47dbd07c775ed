"""Train a recipe: run folder, phases, evaluations, pictures; begun, resumed or found done."""

import hashlib
import json
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from gossamer.attacks.registry import build as build_attack
from gossamer.data.unlabelled import missing_classes
from gossamer.errors import RunError
from gossamer.evaluation.evaluate import Evaluation as Measured
from gossamer.evaluation.evaluate import evaluate
from gossamer.evaluation.network import describe_network
from gossamer.evaluation.panel import make_panel
from gossamer.evaluation.shards import WHOLE, Shard, merge
from gossamer.evaluation.standing import Progress as Standings
from gossamer.recipe.build import build_evaluation_attacks, build_model, build_threat, check
from gossamer.recipe.identity import check_images, phase_keys
from gossamer.recipe.load import load_recipe, run_name, to_yaml
from gossamer.recipe.open import OpenRun
from gossamer.recipe.schema import Evaluation, Recipe
from gossamer.recipe.start import started_phases
from gossamer.recipe.tracked import make_trackers, results, tracking, with_trackers
from gossamer.recipe.unlabelled import open_source
from gossamer.runs import RunFolder, atomic, lock, panel, records
from gossamer.runs.environment import environment
from gossamer.seeding import Draws
from gossamer.sparsity import targets
from gossamer.sparsity.budgets import check_keeps
from gossamer.threat import ThreatModel
from gossamer.training.devices import Place, place
from gossamer.training.job import Job
from gossamer.training.phases import Phase
from gossamer.training.progress import Progress, Silent
from gossamer.training.ranks import ALONE, Ranks, join
from gossamer.training.rehearsal import rehearse
from gossamer.training.run import run_phases
from gossamer.training.together import check_together
from gossamer.training.trackers import refuse_missing


def train(
    recipe: Recipe | str | Path | Mapping[str, Any],
    *,
    settings: Sequence[str] = (),
    out: Path | str | None = None,
    data_dir: Path | None = None,
    track: Sequence[str] = (),
    images: str | None = None,
    allow_numeric_drift: bool = False,
    progress: Progress | None = None,
    ranks: Ranks | None = None,
) -> OpenRun:
    """Train a recipe to its end and evaluate it; returns the open run.

    out: the run folder, by default runs/NAME; track: trackers beside the recipe's. A run that was stopped goes on from
    its last checkpoint, one that is done is only evaluated where an evaluation is missing. images: what identifies
    those to evaluate on (`recipe.identity`), for whoever was told it elsewhere. Raises ConfigError before anything
    starts, RunError for what stops a run, and `gossamer.training.interruption.Interrupted` after a signal.
    Under torchrun, its processes train the run together: each takes its part of every batch, the first one writes, and
    all return the open run. ranks: this process's place among them, by default as torchrun's environment says.
    """
    chosen = with_trackers(recipe if isinstance(recipe, Recipe) else load_recipe(recipe, settings), track)
    path = Path(out) if out is not None else Path("runs") / run_name(chosen)
    together = join(chosen.machine.device) if ranks is None else ranks

    def check_planned(run: OpenRun, _phases: Sequence[Phase], _unlabelled: Mapping[str, str] | None) -> None:
        if images is not None:
            check_images(run.parts, images)

    with (
        _begun(chosen, path, data_dir, progress, together, check_planned, tracks=True) as begun,
        begun.job.tracking as tracked,
    ):
        begun.train(begun.phases, allow_drift=allow_numeric_drift)
        _judge(begun.run, begun.job.place, begun.job.progress)
        tracked.results(results(begun.run.folder))
    return begun.run


def train_one(
    recipe: Recipe,
    index: int,
    out: Path,
    *,
    key: str | None = None,
    publish: Sequence[int] = (),
    data_dir: Path | None = None,
    progress: Progress | None = None,
) -> OpenRun:
    """Train the phase at an index alone, or go on with it, in a run folder that holds the states of those before it.

    key: what identifies the phase (`recipe.identity`), for whoever was told it elsewhere; publish: epochs whose states
    it gives beside its own. Nothing is evaluated, nor tracked, since a phase may be of many runs. Raises what `train`
    raises, and RunError where this machine would train a phase of another key.
    """

    def check_planned(run: OpenRun, phases: Sequence[Phase], unlabelled: Mapping[str, str] | None) -> None:
        if key is None or (mine := phase_keys(recipe, phases, run.parts, unlabelled)[index]) == key:
            return
        raise RunError(
            f"phase {phases[index].name}",
            expected=f"the phase that was planned, of key {key}",
            got=f"one of key {mine}: other data, another teacher or another version of the package here",
            remedy="give every machine the same, or plan the sweep again",
        )

    # A key says itself on which images a phase is trained, and it is trained alike whatever it is evaluated on.
    with _begun(recipe, out, data_dir, progress, ALONE, check_planned, same_images=key is None) as begun:
        *before, last = begun.phases[: index + 1]
        asked = replace(last, publish=tuple(sorted({*last.publish, *publish})))
        begun.train((*before, asked), allow_drift=True, ships=False)
    return begun.run


@dataclass(frozen=True, kw_only=True)
class _Begun:
    """A run that this process alone writes: its phases, and what they run in."""

    run: OpenRun
    phases: Sequence[Phase]
    job: Job

    def train(self, phases: Sequence[Phase], *, allow_drift: bool, ships: bool = True) -> None:
        """Train phases; every step seeds the global generator, and the caller's own draws go on where they were."""
        with torch.random.fork_rng(devices=[]):
            run_phases(
                phases,
                lambda: build_model(self.run.recipe, self.run.parts.train),
                self.job,
                allow_drift=allow_drift,
                ships=ships,
            )


@contextmanager
def _begun(
    chosen: Recipe,
    path: Path,
    data_dir: Path | None,
    progress: Progress | None,
    ranks: Ranks,
    check_planned: Callable[[OpenRun, Sequence[Phase], Mapping[str, str] | None], None],
    *,
    tracks: bool = False,
    same_images: bool = True,
) -> Generator[_Begun]:
    """Check everything, then hold the run folder and say what the run is.

    check_planned: raises where the run, its phases or its pseudo-labels are not what somebody else planned;
    same_images: refuse others than the folder began with.
    """
    shown = progress if progress is not None and ranks.first else Silent()
    check(chosen)
    machine = chosen.machine
    refuse_missing(machine.all_trackers)
    trackers = make_trackers(chosen) if tracks and ranks.first else {}
    where = place(
        machine.device,
        precision=machine.precision,
        channels_last=machine.channels_last,
        compile=machine.compile,
        threads=machine.threads,
        ranks=ranks,
        sync_batch_norm=machine.sync_batch_norm,
    )
    prepared = OpenRun(RunFolder(path), chosen, data_dir)
    phases, start = started_phases(chosen, prepared.parts, data_dir)
    _check_keeps(chosen, build_model(chosen, prepared.parts.train))
    check_together(phases, prepared.parts.train, where)
    if not RunFolder(path).recipe.exists():
        rehearse(phases, lambda: build_model(chosen, prepared.parts.train), prepared.parts.train)
    unlabelled = open_source(chosen, prepared.parts.train, path, data_dir)
    check_planned(prepared, phases, unlabelled.checksums if unlabelled else None)
    about = environment(where.device, precision=machine.precision, compiled=machine.compile, processes=ranks.world)
    with ExitStack() as held:
        with ranks.first_then_others():
            folder = _folder(path, chosen)
            if ranks.first:
                held.enter_context(lock.writer(folder))
            images = {**_checksums(prepared), **(unlabelled.checksums if unlabelled else {})}
            began = {**about, "data": images, **({} if start is None else {"start": start.record})}
            _begin_folder(folder, chosen, began, writes=ranks.first, same_images=same_images)
            labelled = unlabelled.dataset(prepared.parts.train, where) if unlabelled else None
        held.enter_context(shown)
        if labelled is not None and (told := missing_classes(labelled)) is not None:
            shown.note(told)
        job = Job(
            run=folder,
            seed=chosen.seed,
            data=prepared.parts.train,
            place=where,
            progress=shown,
            identity=about["numeric"],
            checkpoint_seconds=machine.checkpoint_seconds,
            tracking=tracking(trackers, folder, chosen, shown.note),
            unlabelled=labelled,
        )
        yield _Begun(run=prepared, phases=phases, job=job)


def _begin_folder(
    folder: RunFolder, chosen: Recipe, about: Mapping[str, Any], *, writes: bool, same_images: bool
) -> None:
    if folder.recipe.exists():
        before = atomic.read_json(folder.env)
        if same_images:
            _refuse_other_images(folder, before.get("data"), about["data"])
        _refuse_other_start(folder, before.get("start"), about.get("start"))
    elif writes:
        atomic.write_json(folder.env, about)
        atomic.write_text(folder.recipe, to_yaml(chosen))


def _checksums(run: OpenRun) -> dict[str, str | None]:
    parts = run.parts
    held_out = parts.held_out.checksum if parts.held_out else None
    return {"train": parts.train.checksum, "held_out": held_out, "test": parts.test.checksum}


def _refuse_other_images(
    folder: RunFolder, before: Mapping[str, str | None] | None, images: Mapping[str, str | None]
) -> None:
    if before is not None and before != images:
        changed = ", ".join(part for part, checksum in images.items() if before.get(part) != checksum)
        raise RunError(
            f"run folder {folder.path}",
            expected="the images that the run began with",
            got=f"others ({changed})",
            remedy="put them back, or start another run with --out",
        )


def _refuse_other_start(folder: RunFolder, before: Mapping[str, str] | None, start: Mapping[str, str] | None) -> None:
    if before is None or start is None or before["sha256"] == start["sha256"]:
        return
    raise RunError(
        f"run folder {folder.path}",
        expected=f"the network that the run began from, of SHA-256 {before['sha256']}",
        got=f"another one under {start['path']}, of SHA-256 {start['sha256']}",
        remedy="put it back, or start another run with --out",
    )


def _check_keeps(recipe: Recipe, model: nn.Module) -> None:
    """Raise ConfigError for a density that leaves no weight of a network."""
    density = recipe.method.options.get("density")
    if isinstance(density, float):
        check_keeps({layer.name: layer.size for layer in targets(model)}, density, "method.density")


def _folder(path: Path, recipe: Recipe) -> RunFolder:
    folder = RunFolder(path)
    if not folder.recipe.exists():
        return RunFolder.create(path)
    before = load_recipe(folder.recipe)
    if _substance(before) == _substance(recipe):
        return folder
    raise RunError(
        f"run folder {path}",
        expected="a run of this recipe",
        got="a run of another one",
        remedy="name another folder with --out, or leave it out: runs are named by their recipe",
    )


def _substance(recipe: Recipe) -> str:
    # Threads, precision and compiler change bits, not the recipe: the numeric identity of the run guards them.
    drifting = {"threads": None, "precision": "float32", "compile": False}
    machine = recipe.machine.model_copy(update=drifting)
    return run_name(recipe.model_copy(update={"name": "", "machine": machine}))


def _judge(run: OpenRun, where: Place, shown: Progress) -> None:
    """Write what evaluation and report need, where it is not there yet."""
    model, ranks = run.model().to(where.device), where.ranks
    network = run.folder.result("network")
    if ranks.first and not network.exists():
        parent = build_model(run.recipe, run.parts.test)
        records.write(network, describe_network(model, run.parts.test.image_shape, parent=parent))
    for spec in run.recipe.evaluation:
        path = run.folder.result(result_name(spec, run.threat))
        # The first rank may have written it alone before another looks.
        if ranks.agree(int(path.exists())):
            continue
        shown.note(f"evaluating: {spec.attack}")
        if not ranks.several:
            records.write(path, evaluate_spec(run, model, spec, shown.evaluation))
        else:
            _evaluate_together(run, model, spec, path, ranks, shown.evaluation)
        shown.note(str(records.read(Measured, path)))
    if ranks.first and not panel.names(run.folder):
        _draw_panel(run, model)
    ranks.wait()


def _evaluate_together(
    run: OpenRun, model: torch.nn.Module, spec: Evaluation, path: Path, ranks: Ranks, progress: Standings
) -> None:
    """Let every rank evaluate its shard, and the first one merge and write what all of them found."""
    if (spec.n or len(run.part(spec.part))) < ranks.world:
        with ranks.first_then_others():
            if ranks.first:
                records.write(path, evaluate_spec(run, model, spec, progress))
        return
    mine = Shard(ranks.rank, ranks.world)
    parts = [run.folder.partial / f"{path.stem}-{Shard(rank, ranks.world).label}.json" for rank in range(ranks.world)]
    if not parts[ranks.rank].exists():
        records.write(parts[ranks.rank], evaluate_spec(run, model, spec, progress, shard=mine))
    ranks.wait()
    with ranks.first_then_others():
        if ranks.first:
            records.write(path, merge([records.read(Measured, part) for part in parts]))
    parts[ranks.rank].unlink()


def result_name(spec: Evaluation, threat: ThreatModel) -> str:
    """Return the file name of an evaluation that a recipe asks for: attack, norm, radii, part, n, hash of the rest."""
    radii = spec.eps or (threat.eps,)
    part = "" if spec.part == "test" else f"-{spec.part}"
    name = _file_name(spec.attack, threat.norm, radii) + part + (f"-n{spec.n}" if spec.n is not None else "")
    rest = {**spec.options, **({"eps": radii[1:-1]} if len(radii) > 2 else {})}
    if not rest:
        return name
    return f"{name}-{_digest(rest)}"


def result_names(recipe: Recipe) -> list[str]:
    """Return the names of the results that a finished run has: of its network, and of each evaluation it asks for."""
    return ["network", *(result_name(spec, build_threat(recipe)) for spec in recipe.evaluation)]


def evaluation_name(measured: Measured) -> str:
    """Return the file name of an evaluation: attack, norm, radii, part, how many samples, and a hash of the rest."""
    outcomes, first = measured.attacks, measured.attacks[0]
    name = _file_name(first.attack, first.norm, [outcome.eps for outcome in outcomes])
    part = "" if measured.dataset.part == "test" else f"-{measured.dataset.part}"
    rest = {name: value for name, value in first.parameters.items() if name != "threat"}
    return f"{name}{part}-n{measured.n}-{_digest([rest, measured.seed, [outcome.eps for outcome in outcomes]])}"


def _digest(value: object) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:8]


def _file_name(attack: str, norm: str, radii: Sequence[float]) -> str:
    first, *_, last = radii if len(radii) > 1 else (*radii, *radii)
    reach = f"{first:.4g}" if len(radii) == 1 else f"{first:.4g}-to-{last:.4g}"
    return f"{attack.replace(':', '.')}-{norm}-{reach}"


def evaluate_spec(
    run: OpenRun,
    model: torch.nn.Module,
    spec: Evaluation,
    progress: Standings | None = None,
    *,
    shard: Shard = WHOLE,
) -> Measured:
    """Return the evaluation of a run's network that a recipe asks for, or one shard of it."""
    name = result_name(spec, run.threat) + ("" if shard.of == 1 else f"-{shard.label}")
    return evaluate(
        model,
        run.part(spec.part),
        build_evaluation_attacks(spec, run.threat),
        n=spec.n,
        batch_size=spec.batch_size,
        seed=run.recipe.seed,
        name=run.folder.name,
        dense_weights=run.dense_weights(),
        progress=progress,
        partial=run.folder.partial / name,
        shard=shard,
    )


def _draw_panel(run: OpenRun, model: torch.nn.Module) -> None:
    threat = run.threat
    attack = build_attack("pgd", threat, steps=20)
    ladder = tuple(threat.eps * factor for factor in (0.0, 0.25, 0.5, 1.0, 1.5, 2.0))
    drawn = make_panel(model, run.parts.test, attack, eps_ladder=ladder, draws=Draws(run.recipe.seed).at("panel"))
    panel.write(run.folder, "pgd-20", drawn)
