"""How robust is a model that draws noise? With noise and expectation over it, and without, over trials."""

import statistics
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from typing import Protocol, runtime_checkable

from torch import nn

from gossamer.attacks.checks import check_count
from gossamer.attacks.eot import Expectation
from gossamer.errors import ConfigError
from gossamer.evaluation.setting import Setting, check_models, outcomes
from gossamer.evaluation.trials import parameters, plan_trials
from gossamer.runs.protocols import NoiseMode, Spread, StochasticRow, StochasticTable
from gossamer.runs.results import EvaluatedModel
from gossamer.types import Attack


@runtime_checkable
class NoiseSwitch(Protocol):
    """What a module that draws noise declares: it draws while `noisy` is true, and computes without where not."""

    noisy: bool


@contextmanager
def noise_off(model: nn.Module) -> Generator[nn.Module]:
    """Switch the noise of all modules with a `noisy` flag off; inside, the model is deterministic.

    Raises ConfigError where no module has the flag.
    """
    switches = [module for module in model.modules() if isinstance(module, NoiseSwitch)]
    if not switches:
        raise ConfigError(
            "stochastic model",
            expected="modules that draw noise while their attribute `noisy` is true",
            got="none",
            remedy="give the attribute to the module that draws, or pass the noise-free network as its twin",
        )
    before = [switch.noisy for switch in switches]
    try:
        for switch in switches:
            switch.noisy = False
        yield model
    finally:
        for switch, value in zip(switches, before, strict=True):
            switch.noisy = value


def stochastic(
    models: Mapping[str, nn.Module],
    setting: Setting,
    attack: Attack,
    *,
    twins: Mapping[str, nn.Module] | None = None,
    passes: int = 20,
    trials: int = 5,
) -> StochasticTable:
    """Measure every model with noise under the mean of `passes` passes, with noise under one, and without noise.

    A trial is a seed, of the noise and of the attack's draws; samples are the same in all. The number to quote is
    the first; the second is what an attack finds that does not know of the noise, and flatters. twins: noise-free
    networks by name, where a model's noise cannot be switched off. Raises ConfigError for impossible arguments and
    what `evaluate` raises.
    """
    check_models(models)
    check_count("trials", trials)
    check_count("passes", passes)
    (trial,) = plan_trials(attack)
    seeds = tuple(range(setting.seed, setting.seed + trials))
    averaged = Expectation(attack=attack, passes=passes)
    rows: list[StochasticRow] = []
    for name, model in models.items():
        eot = _mode("noise and EOT", name, model, averaged, setting, seeds, passes=passes)
        plain = _mode("noise, one pass", name, model, attack, setting, seeds, passes=1)
        twin = (twins or {}).get(name)
        if twin is not None:
            quiet = _mode("without noise", name, twin, attack, setting, seeds, passes=1, noise=False)
        else:
            with noise_off(model):
                quiet = _mode("without noise", name, model, attack, setting, seeds, passes=1, noise=False)
        rows.append(StochasticRow(model=eot[1], modes=(eot[0], plain[0], quiet[0])))
    return StochasticTable(
        dataset=setting.dataset,
        seeds=seeds,
        threat=str(trial.threat),
        eps=trial.threat.eps,
        attack=parameters(attack),
        rows=tuple(rows),
        environment=setting.environment_of(next(iter(models.values()))),
    )


def _mode(
    label: str,
    name: str,
    model: nn.Module,
    attack: Attack,
    setting: Setting,
    seeds: tuple[int, ...],
    *,
    passes: int,
    noise: bool = True,
) -> tuple[NoiseMode, EvaluatedModel]:
    # A folded copy would freeze the noise that it was folded with.
    fast = setting.fast and not noise
    measured = [setting.measure(name, model, {"attack": attack}, seed=seed, fast=fast, noise=noise) for seed in seeds]
    mode = NoiseMode(
        name=label,
        noise=noise,
        passes=passes,
        clean=spread(
            [made.clean_accuracy for made in measured], [outcomes(made.samples.clean_correct) for made in measured]
        ),
        robust=spread(
            [made.robust_accuracy for made in measured], [outcomes(made.attacks[0].robust) for made in measured]
        ),
    )
    return mode, measured[0].model


def spread(values: list[float], right: list[str] | None = None) -> Spread:
    """Return the mean and the standard deviation (n - 1) of trials; right: outcomes by sample of each.

    Raises statistics.StatisticsError without any trial.
    """
    deviation = statistics.stdev(values) if len(values) > 1 else None
    told = None if right is None else tuple(right)
    return Spread(values=tuple(values), mean=statistics.fmean(values), deviation=deviation, right=told)
