"""From a recipe to the things it names: data, network, attacks, objective, phases."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, cast

import torch
from torch import nn

from gossamer.attacks.registry import adjust
from gossamer.attacks.registry import build as build_attack
from gossamer.data import DATASETS, Augmentation, DataSet, balanced, hold_out
from gossamer.data.registry import check_source, load
from gossamer.errors import ConfigError
from gossamer.evaluation.samples import select_samples
from gossamer.methods.protocol import Method
from gossamer.methods.registry import build as build_method
from gossamer.methods.registry import check_pair
from gossamer.models.registry import MODELS, check_model
from gossamer.models.registry import build as build_named_model
from gossamer.objectives.penalties import build_penalty
from gossamer.objectives.protocol import WithReplays
from gossamer.objectives.registry import build as build_objective
from gossamer.objectives.registry import default_attack
from gossamer.plugins import is_reference, references
from gossamer.plugins import make as make_foreign
from gossamer.recipe.schema import (
    AverageFields,
    Evaluation,
    Optimizer,
    ProbeAttack,
    ProbeFields,
    Recipe,
    WeightPerturbationFields,
)
from gossamer.seeding import derive
from gossamer.threat import ThreatModel
from gossamer.training import schedules
from gossamer.training.averages import AverageSpec
from gossamer.training.monitors import EarlyStop, Monitor, Overfitting, Probe
from gossamer.training.optimizers import OptimizerSpec
from gossamer.training.phases import Phase
from gossamer.training.weight_perturbation import WeightPerturbation
from gossamer.types import Attack, Objective, WithState


@dataclass(frozen=True, kw_only=True)
class Parts:
    """The data of a run: what trains, what is held out (None where nothing is), what tests."""

    train: DataSet
    held_out: DataSet | None
    test: DataSet


def build_data(recipe: Recipe, data_dir: Path | None = None) -> Parts:
    """Load and split the data of a recipe; raises ConfigError and DataError."""
    spec = recipe.data
    whole = load(spec.name, "train", data_dir=data_dir, **spec.options)
    test = load(spec.name, "test", data_dir=data_dir, **spec.options)
    held_out = None
    train = whole
    if spec.split.held_out:
        train, held_out = hold_out(whole, spec.split.held_out, seed=spec.split.seed)
    if spec.train_n is not None:
        train = balanced(train, spec.train_n, seed=spec.split.seed)
    return Parts(train=train, held_out=held_out, test=test)


def build_model(recipe: Recipe, data: DataSet) -> nn.Module:
    """Return the network of a recipe with its initial weights, a function of the seed alone."""
    options = recipe.model.options
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive(recipe.seed, "model"))
        if is_reference(recipe.model.name):
            _refuse_normalisation(recipe)
            return build_foreign_model(recipe.model.name, options)
        return build_named_model(recipe.model.name, **model_options(recipe, data))


def model_options(recipe: Recipe, data: DataSet) -> dict[str, Any]:
    """Return every option that a network of `gossamer.models` is built with, also those that follow from the data."""
    own = own_options(recipe)
    return {**_fitting(data), **own} if recipe.model.name in MODELS else own


def own_options(recipe: Recipe) -> dict[str, Any]:
    """Return what a network is built with, but for what the shape of images and the number of classes decide."""
    options = recipe.model.options
    return {**_normalisation(recipe), **options} if recipe.model.name in MODELS else dict(options)


def build_foreign_model(reference: str, options: Mapping[str, Any]) -> nn.Module:
    """Return the module that a user's "package.module:factory" makes; raises ConfigError if it makes none."""
    made = make_foreign(reference, **options)
    if not isinstance(made, nn.Module):
        raise ConfigError(
            f"model {reference}",
            expected="a function or class that makes a torch.nn.Module",
            got=type(made).__name__,
            remedy="return a module that maps images (N, C, H, W) in [0, 1] to logits (N, K)",
        )
    return made


def build_threat(recipe: Recipe) -> ThreatModel:
    """Return the threat model of a recipe."""
    return ThreatModel.parse(recipe.threat)


def build_training_attack(recipe: Recipe, objective: Objective) -> Attack | None:
    """Return the training attack: the named one, or the objective's own with the recipe's fields replaced."""
    threat, spec = build_threat(recipe), recipe.attack
    attack = default_attack(objective, threat)
    if spec.name is not None:
        _refuse_idle_attack(spec.name, objective, attack)
        return build_attack(spec.name, threat, **spec.options)
    if attack is None and spec.options:
        raise ConfigError(
            "attack",
            expected="no options, as this objective crafts no adversarial inputs of its own",
            got=", ".join(spec.options),
            remedy="name an attack, or remove the options",
        )
    return attack if attack is None else adjust(attack, **spec.options)


def _refuse_idle_attack(name: str, objective: Objective, own: Attack | None) -> None:
    if own is None and isinstance(objective, WithState):
        raise ConfigError(
            "attack.name",
            expected="none, as this objective moves its perturbations itself",
            got=name,
            remedy="remove it; the objective's own options say how",
        )


def build_evaluation_attacks(spec: Evaluation, threat: ThreatModel) -> list[Attack]:
    """Return the attacks of an evaluation, one for each radius."""
    threats = [ThreatModel(threat.norm, eps) for eps in spec.eps or (threat.eps,)]
    return [build_attack(spec.attack, each, **spec.options) for each in threats]


def check(recipe: Recipe) -> None:
    """Raise ConfigError for what cannot be, as far as a recipe tells it without its data."""
    _check_names(recipe)
    build_method_and_base(recipe)
    _check_selection(recipe)
    threat = build_threat(recipe)
    _check_training(recipe)
    for probe in recipe.training.probes:
        _build_probe_attacks(probe, threat)
    for spec in recipe.evaluation:
        build_evaluation_attacks(spec, threat)
        if spec.part == "held_out" and not recipe.data.split.held_out:
            raise ConfigError(
                "evaluation.part",
                expected="a part that exists",
                got="held_out, while nothing is held out",
                remedy="set data.split.held_out: 0.1, or evaluate on test",
            )


def _check_training(recipe: Recipe) -> None:
    """Refuse what no loss could be taken with."""
    if recipe.attack.options.get("early_drop"):
        raise ConfigError(
            "attack.early_drop",
            expected="false in training: the loss needs every image's example",
            got=True,
            remedy="remove it; evaluations may set it",
        )


def _check_names(recipe: Recipe) -> None:
    """Refuse unknown data, networks and options of theirs before anything is read or downloaded."""
    check_source(recipe.data.name, recipe.data.options)
    if not is_reference(recipe.model.name):
        check_model(recipe.model.name, recipe.model.options)


def build_phases(recipe: Recipe, parts: Parts) -> Sequence[Phase]:
    """Return the phases of a recipe; raises ConfigError for what cannot be, before anything starts."""
    method, base = build_method_and_base(recipe)
    _check_selection(recipe)
    phases = method.phases(replace(base, probes=_probes(recipe, parts)), recipe.model.name)
    _refuse_idle(recipe, phases)
    return phases


def _refuse_idle(recipe: Recipe, phases: Sequence[Phase]) -> None:
    """Refuse an average and a perturbation that would silently do nothing, in what ships at least."""
    trained = [phase for phase in phases if phase.epochs > 0]
    if recipe.training.average is not None:
        averaged = [(each, each.average) for each in trained if each.average]
        _refuse_late("training.average", recipe.method.name, averaged)
    if recipe.training.weight_perturbation is not None:
        moved = [(each, each.perturbation) for each in trained if each.perturbation and not each.perturbation.which]
        _refuse_late("training.weight_perturbation", recipe.method.name, moved)


def _refuse_late(
    field: str, method: str, having: Sequence[tuple[Phase, AverageSpec]] | Sequence[tuple[Phase, WeightPerturbation]]
) -> None:
    """Refuse what the last phase that has it would not live to see; earlier phases may be shorter than its start."""
    if not having:
        raise ConfigError(
            field,
            expected=f"nothing with method {method}, as none of its phases takes it",
            got="a value",
            remedy="remove it",
        )
    phase, spec = having[-1]
    if spec.start >= phase.epochs:
        raise ConfigError(
            f"{field}.start",
            expected=f"an epoch below {phase.epochs}, those of the phase {phase.name}",
            got=spec.start,
            remedy="start earlier, or train that phase longer",
        )


def build_method_and_base(recipe: Recipe) -> tuple[Method, Phase]:
    """Return the method of a recipe and the phase it starts from, without the probes, which need data.

    Raises ConfigError for what cannot be.
    """
    method = build_method(recipe.method.name, **recipe.method.options)
    check_pair(recipe.method.name, recipe.objective.name)
    objective = _objective(recipe)
    spec = recipe.training
    base = Phase(
        name="train",
        epochs=spec.epochs,
        batch_size=spec.batch_size,
        objective=objective,
        attack=build_training_attack(recipe, objective),
        attack_bn=recipe.attack.batch_norm,
        fast=recipe.attack.fast,
        augmentation=Augmentation(**recipe.data.augmentation.model_dump()),
        optimizer=_optimizer(spec.optimizer, method, recipe.objective.name),
        schedule=schedules.build(spec.schedule.name, **spec.schedule.options),
        replays=objective.replays if isinstance(objective, WithReplays) else 1,
        unlabelled_share=recipe.data.unlabelled.share if recipe.data.unlabelled else 0.0,
        penalties=tuple(build_penalty(each.name, each.options) for each in spec.penalties),
        perturbation=_perturbation(spec.weight_perturbation),
        clip=spec.clip,
        average=_average(spec.average),
        monitors=_monitors(recipe),
        select=spec.select,
    )
    return method, base


def has_own_code(recipe: Recipe) -> bool:
    """Return whether building method and base of a recipe could import a user's own code, by any part it names."""
    named = (recipe.method, recipe.objective, recipe.attack, recipe.training)
    return any(True for part in named for _ in references(part.model_dump(mode="json")))


def _fitting(data: DataSet) -> dict[str, object]:
    channels, height, width = data.image_shape
    if height != width:
        raise ConfigError(
            "data",
            expected="square images",
            got=f"{height}x{width}",
            remedy="give image_size among the data's options, or bring your own model",
        )
    return {"num_classes": data.num_classes, "in_channels": channels, "image_size": height}


def _normalisation(recipe: Recipe) -> dict[str, object]:
    if not recipe.model.normalize:
        return {}
    source = DATASETS[recipe.data.name]
    if source.mean is None or source.std is None:
        raise ConfigError(
            "model.normalize",
            expected="a data set with a published mean and standard deviation",
            got=recipe.data.name,
            remedy="write mean and std among the model's options",
        )
    return {"mean": source.mean, "std": source.std}


def _refuse_normalisation(recipe: Recipe) -> None:
    if recipe.model.normalize:
        raise ConfigError(
            "model.normalize",
            expected="a network of Gossamer's own",
            got=recipe.model.name,
            remedy="leave it out, and normalise inside your own model",
        )


def _optimizer(spec: Optimizer, method: Method, objective: str) -> OptimizerSpec:
    said, published = spec.model_dump(exclude_none=True), method.default_optimizer(objective)
    # The published rates belong to the published kind; another kind starts from its own.
    return replace(published if spec.kind in (None, published.kind) else OptimizerSpec(), **said)


def _average(spec: AverageFields | None) -> AverageSpec | None:
    return None if spec is None else AverageSpec(**spec.model_dump())


def _objective(recipe: Recipe) -> Objective:
    options = recipe.objective.options
    if "threat" in options:
        raise ConfigError(
            "objective.threat",
            expected="no threat of its own",
            got=options["threat"],
            remedy="write threat at the top of the recipe, or threats of objective several",
        )
    return build_objective(recipe.objective.name, threat=build_threat(recipe), **options)


def _perturbation(spec: WeightPerturbationFields | None) -> WeightPerturbation | None:
    return None if spec is None else WeightPerturbation(**spec.model_dump())


def _probes(recipe: Recipe, parts: Parts) -> tuple[Probe, ...]:
    threat = build_threat(recipe)
    available = {field.name: getattr(parts, field.name) for field in fields(parts)}
    probes: list[Probe] = []
    for spec in recipe.training.probes:
        data = cast("DataSet | None", available[spec.part])
        if data is None:
            raise ConfigError(
                "training.probes.part",
                expected="a part that exists",
                got="held_out, while nothing is held out",
                remedy="set data.split.held_out: 0.02, or measure on another part",
            )
        chosen, _ = select_samples(data, spec.n)
        probe = Probe(spec.part, chosen, _build_probe_attacks(spec, threat), spec.every)
        probes.append(probe.with_losses(*probe.attacks) if spec.losses else probe)
    return tuple(probes)


def _build_probe_attacks(spec: ProbeFields, threat: ThreatModel) -> dict[str, Attack]:
    attacks: dict[str, Attack] = {}
    for each in spec.attacks:
        one = ProbeAttack(name=each) if isinstance(each, str) else each
        label = one.label or one.name
        if label in attacks:
            raise ConfigError(
                "training.probes.attacks", expected="one attack a label", got=label, remedy="give each its own label"
            )
        radius = threat if one.eps is None else ThreatModel(threat.norm, one.eps)
        attacks[label] = build_attack(one.name, radius, **one.options)
    return attacks


def probed_metrics(recipe: Recipe) -> dict[str, tuple[int | None, Attack | None]]:
    """Return what a recipe's probes measure, such as held_out/pgd, on how many samples and under which attack."""
    threat = build_threat(recipe)
    return {
        f"{probe.part}/{name}": (probe.n, attack)
        for probe in recipe.training.probes
        for name, attack in {"clean": None, **_build_probe_attacks(probe, threat)}.items()
    }


def _monitors(recipe: Recipe) -> Any:
    stop, watch = recipe.training.early_stop, recipe.training.overfitting

    def make() -> list[Monitor]:
        made: list[Monitor] = []
        if watch is not None:
            made.append(Overfitting(watch.metric, watch.drop, watch.action))
        if stop is not None:
            made.append(EarlyStop(stop.metric, stop.patience, restore=stop.restore))
        return made

    return make


def _check_selection(recipe: Recipe) -> None:
    """Refuse to choose a checkpoint by what must not choose it, or by what nothing measures."""
    probed = set(probed_metrics(recipe))
    # Training accuracies rise as a network overfits: they may stop a run, but not choose what ships.
    stop, watch = recipe.training.early_stop, recipe.training.overfitting
    metrics = {
        "training.select": probed,
        "training.early_stop.metric": {"clean_accuracy", "robust_accuracy", *probed},
        "training.overfitting.metric": probed,
    }
    asked = {
        "training.select": recipe.training.select,
        "training.early_stop.metric": stop.metric if stop else None,
        "training.overfitting.metric": watch.metric if watch else None,
    }
    for field, metric in asked.items():
        if metric is None:
            continue
        if metric not in metrics[field]:
            raise ConfigError(
                field,
                expected=f"a measured accuracy ({', '.join(sorted(metrics[field])) or 'no probe measures one'})",
                got=metric,
                remedy="add a probe under training.probes that measures it",
            )
        if metric.startswith("test/"):
            raise ConfigError(
                field,
                expected="a metric of a held-out split: the test set must not choose what it will judge",
                got=metric,
                remedy="set data.split.held_out and select by held_out/...",
            )
    restoring = {
        "training.early_stop.restore": stop.metric if stop and stop.restore else None,
        "training.overfitting.action": watch.metric if watch and watch.action == "restore" else None,
    }
    for field, metric in restoring.items():
        if metric is not None and recipe.training.select is None:
            raise ConfigError(
                field,
                expected="training.select, which names the state to go back to",
                got="none",
                remedy=f"write select: {metric}",
            )
