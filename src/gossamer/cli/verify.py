"""`gossamer verify`: does an artifact compute what its run computes, and how robust is it as it ships?"""

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated

import torch
import typer
from torch import nn

from gossamer.attacks.autoattack import AutoAttack
from gossamer.attacks.registry import build as build_attack
from gossamer.cli import options
from gossamer.cli.keeping import command_of, partial_folder, with_command
from gossamer.cli.subjects import Origin, open_origin, own_model, read_options
from gossamer.data import DataSet
from gossamer.data.registry import load
from gossamer.deploy.about import about_path, check_parent
from gossamer.deploy.artifact import Artifact, check_artifact, open_artifact
from gossamer.deploy.verification import Verification
from gossamer.deploy.verify import AGREEMENT, LIMIT, QUERIES, Asked, keep
from gossamer.deploy.verify import verify as examine
from gossamer.errors import ConfigError, DataError, RunError
from gossamer.evaluation.adapters import as_module
from gossamer.evaluation.setting import Setting
from gossamer.evaluation.subject import count_classes
from gossamer.runs import RunFolder
from gossamer.threat import ThreatModel
from gossamer.training.devices import place
from gossamer.training.progress import progress
from gossamer.types import Attack

STRONGEST = "autoattack-plus"


def verify(
    artifact: Annotated[Path, typer.Argument(help="a file that `gossamer export` wrote")],
    run: Annotated[
        Path | None, typer.Option(help="the run, or published folder, it came from: its twin, its data and its threat")
    ] = None,
    attack: Annotated[
        str | None, typer.Option(help="made on the twin, confirmed on the artifact", show_default=STRONGEST)
    ] = None,
    option: options.AttackOptions = None,
    queries: Annotated[int, typer.Option(help="of Square, on the artifact itself")] = QUERIES,
    limit: Annotated[float, typer.Option(help="points that accuracy may lie below the run's; more: exit 1")] = 100
    * LIMIT,
    agreement: Annotated[float, typer.Option(help="% of the images on which it shall say the run's class")] = 100
    * AGREEMENT,
    threat: options.Threat = None,
    n: options.Count = None,
    part: options.Part = "test",
    twin: options.Twin = None,
    twin_weights: options.TwinWeights = None,
    data: options.Data = None,
    data_option: options.DataOptions = None,
    data_dir: options.DataDir = None,
    trust: options.Trust = False,
    batch_size: options.BatchSize = None,
    seed: options.Seed = 0,
    device: options.Device = "auto",
    json: options.Json = None,
) -> None:
    """Compare an artifact with its run, attack it as it ships, and exit with 1 where it falls short.

    Adversarial examples are made on the float twin and confirmed on the artifact, which Square also attacks itself.
    Killed, the same command goes on where it stopped: partial results lie in the run's folder, or beside --json.
    Without either it begins anew.
    """
    if run is None and twin is None:
        _check_nothing_sought(attack, option)
    if run is None and data is None:
        raise ConfigError(
            "what to verify on", expected="--run RUN or --data NAME", got="neither", remedy="give the run it came from"
        )
    check_artifact(artifact)
    opened = None if run is None else open_origin(run, data_dir, trust=trust)
    parent = _parent(opened, twin, twin_weights)
    images = _images(opened, data, tuple(data_option or ()), data_dir, part)
    judged_by = _threat(threat, opened)
    subject = open_artifact(artifact, module=parent, trust=trust)
    if opened is not None and parent is not None:
        check_parent(subject.path, subject.about, parent)
    folder = None if opened is None else opened.folder
    given = read_options(tuple(option or ()))
    asked = Asked(
        attack=None if parent is None else _attack(attack, judged_by, _classes(parent, images), given),
        threat=judged_by,
        queries=queries,
        limit=limit / 100,
        agreement=agreement / 100,
    )
    sought = {"artifact": artifact.resolve(), "attack": attack, "option": option, "queries": queries, "seed": seed}
    sought |= {"threat": judged_by, "data": data, "data_option": data_option, "part": part, "n": n}
    kept = partial_folder("verify", sought, folder, json)
    with progress() as shown:
        found = examine(
            subject,
            parent,
            Setting(
                data=images,
                n=n,
                seed=seed,
                batch_size=batch_size,
                device=place(device).device,
                progress=shown.evaluation,
                folder=kept,
            ),
            asked,
        )
    flags = {"--run": run, "--attack": attack, "--option": tuple(option or ()), "--queries": queries, "--limit": limit}
    flags |= {
        "--agreement": agreement,
        "--threat": judged_by,
        "--n": n,
        "--part": None if part == "test" else part,
        "--data": data,
    }
    flags |= {"--data-option": tuple(data_option or ()), "--data-dir": data_dir, "--trust": trust, "--seed": seed}
    flags |= {"--twin": twin, "--twin-weights": twin_weights}
    found = with_command(found, command_of(["gossamer", "verify", artifact], flags))
    print(found)
    for target in (json, _result(folder, artifact)):
        if target is not None:
            found.save(target)
            print(f"written: {target}")
    _keep(subject, found)
    if kept is not None:
        shutil.rmtree(kept, ignore_errors=True)
    if not found.passed:
        raise SystemExit(1)


def _check_nothing_sought(attack: str | None, option: Sequence[str] | None) -> None:
    """Raise ConfigError for options of an attack on a twin that is not given."""
    for flag, given in (("--attack", attack), ("--option", " ".join(option or ()))):
        if given:
            raise ConfigError(
                flag,
                expected="a network to seek adversarial examples on",
                got=f"{given} without --run or --twin",
                remedy="write --run RUN, or leave it out: the artifact itself is attacked by Square, see --queries",
            )


def _keep(artifact: Artifact, found: Verification) -> None:
    """Write into the artifact's record what was measured; say so where it is another one now, or cannot be written."""
    record = about_path(artifact.path)
    try:
        if keep(artifact, found):
            print(f"kept in its record: {record}")
    except (DataError, RunError) as error:
        print(f"not kept in its record: {error}")


def _attack(name: str | None, threat: ThreatModel, classes: int, given: Mapping[str, object]) -> Attack:
    """Return the attack of a name; without one the strongest, or what of it so few classes allow."""
    attack = build_attack(name or STRONGEST, threat, **given)
    if name is None and isinstance(attack, AutoAttack):
        return attack.among(classes)
    return attack


def _classes(parent: nn.Module, images: DataSet) -> int:
    """Return how many classes the network tells apart; what an artifact's record says of itself is not asked."""
    return count_classes(parent.to("cpu").eval(), images.float(torch.arange(1)))


def _parent(run: Origin | None, twin: str | None, weights: Path | None) -> nn.Module | None:
    if run is not None and twin is not None:
        raise ConfigError("--twin", expected="no --run beside it", got=twin, remedy="give one of them")
    if run is not None:
        return run.network
    return None if twin is None else as_module(own_model(twin, weights, "--twin-weights")).eval()


def _images(run: Origin | None, data: str | None, given: tuple[str, ...], folder: Path | None, part: str) -> DataSet:
    if data is not None:
        return load(data, part, data_dir=folder, **read_options(given, "--data-option"))
    assert run is not None
    return run.part(part)


def _threat(text: str | None, run: Origin | None) -> ThreatModel:
    if text is not None:
        return ThreatModel.parse(text)
    if run is None or run.threat is None:
        raise ConfigError("--threat", expected="norm and radius", got="none", remedy="write --threat linf:8/255")
    return run.threat


def _result(folder: RunFolder | None, artifact: Path) -> Path | None:
    return None if folder is None else folder.result(f"verify-{artifact.name}")
