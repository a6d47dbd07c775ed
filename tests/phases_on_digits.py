"""Small phases on digits, and the job to run them in."""

from pathlib import Path
from typing import Any

import torch

from gossamer.attacks.pgd import PGD
from gossamer.data import DataSet, balanced
from gossamer.data.registry import load
from gossamer.models.registry import build
from gossamer.objectives.adversarial import Adversarial
from gossamer.runs import RunFolder
from gossamer.runs.environment import numeric_identity
from gossamer.seeding import Draws
from gossamer.threat import ThreatModel
from gossamer.training.devices import Place
from gossamer.training.job import Job
from gossamer.training.phases import Phase, States
from gossamer.training.progress import Silent
from gossamer.training.scene import Scene
from gossamer.training.schedules import Steps

PLACE = Place(device=torch.device("cpu"))


def digits(n: int) -> DataSet:
    return balanced(load("digits", "train"), n)


def network() -> torch.nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return build("digits-cnn")


def phase(**changes: Any) -> Phase:
    """Return a phase under PGD of two steps."""
    values: dict[str, Any] = {
        "name": "train",
        "epochs": 2,
        "batch_size": 20,
        "objective": Adversarial(),
        "attack": PGD(threat=ThreatModel("linf", 0.15), steps=2),
        "schedule": Steps(),
    }
    return Phase(**{**values, **changes})


def job(folder: Path, n: int = 60, **changes: Any) -> Job:
    values: dict[str, Any] = {
        "run": RunFolder.create(folder),
        "seed": 0,
        "data": digits(n),
        "place": PLACE,
        "progress": Silent(),
        "identity": numeric_identity("cpu"),
    }
    return Job(**{**values, **changes})


def scene(phase: Phase, job: Job, states: States | None = None) -> Scene:
    """Return what the phase begins in, as `run_phases` makes it."""
    return Scene(
        phase=phase,
        states=states or {},
        data=job.data,
        place=job.place,
        draws=Draws(job.seed).at(phase.name),
        make_model=network,
    )
