"""Gossamer: train image classifiers that are adversarially robust and sparse, measure both, and ship them.

Everything named here is imported on first use, so that `import gossamer` costs little more than `import torch`.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from gossamer.attacks.fgsm import FGSM
    from gossamer.attacks.pgd import PGD
    from gossamer.data.dataset import from_tensors
    from gossamer.data.registry import load as load_data
    from gossamer.deploy.export import export
    from gossamer.evaluation.audit import audit
    from gossamer.evaluation.curve import security_curve
    from gossamer.evaluation.evaluate import evaluate
    from gossamer.recipe.compare import compare
    from gossamer.recipe.open import open_run
    from gossamer.recipe.train import train
    from gossamer.report import write as write_report
    from gossamer.sparsity.finalize import finalise
    from gossamer.sweep.results import read_results as results
    from gossamer.sweep.run import run_sweep
    from gossamer.sweep.search.results import read_trials as trials
    from gossamer.threat import ThreatModel
    from gossamer.training.own_loop import robust_loss, sparsify
    from gossamer.zoo.convert import convert
    from gossamer.zoo.load import load
    from gossamer.zoo.publish import publish

_HOMES = {
    "FGSM": "gossamer.attacks.fgsm",
    "PGD": "gossamer.attacks.pgd",
    "ThreatModel": "gossamer.threat",
    "audit": "gossamer.evaluation.audit",
    "compare": "gossamer.recipe.compare",
    "convert": "gossamer.zoo.convert",
    "evaluate": "gossamer.evaluation.evaluate",
    "export": "gossamer.deploy.export",
    "finalise": "gossamer.sparsity.finalize",
    "from_tensors": "gossamer.data.dataset",
    "load": "gossamer.zoo.load",
    "load_data": "gossamer.data.registry:load",
    "open_run": "gossamer.recipe.open",
    "publish": "gossamer.zoo.publish",
    "results": "gossamer.sweep.results:read_results",
    "robust_loss": "gossamer.training.own_loop",
    "run_sweep": "gossamer.sweep.run",
    "security_curve": "gossamer.evaluation.curve",
    "sparsify": "gossamer.training.own_loop",
    "train": "gossamer.recipe.train",
    "trials": "gossamer.sweep.search.results:read_trials",
    "write_report": "gossamer.report:write",
}

__all__ = [
    "FGSM",
    "PGD",
    "ThreatModel",
    "audit",
    "compare",
    "convert",
    "evaluate",
    "export",
    "finalise",
    "from_tensors",
    "load",
    "load_data",
    "open_run",
    "publish",
    "results",
    "robust_loss",
    "run_sweep",
    "security_curve",
    "sparsify",
    "train",
    "trials",
    "write_report",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module, _, attribute = _HOMES[name].partition(":")
    return getattr(importlib.import_module(module), attribute or name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
