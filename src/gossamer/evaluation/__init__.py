"""How robust is a network, and how sure is that? Attacks judged sample by sample, curves, panels, descriptions."""

from gossamer.evaluation.adapters import NumpyModel, as_module
from gossamer.evaluation.checks import check_clean, check_subject
from gossamer.evaluation.curve import SecurityCurve, security_curve
from gossamer.evaluation.evaluate import evaluate
from gossamer.evaluation.explanations import explain
from gossamer.evaluation.judge import Outcome, judge
from gossamer.evaluation.network import describe_network
from gossamer.evaluation.onnx_model import OnnxModel
from gossamer.evaluation.panel import make_panel
from gossamer.evaluation.record import Evaluation
from gossamer.evaluation.samples import select_samples
from gossamer.evaluation.shards import Shard, merge
from gossamer.evaluation.trials import at_eps
from gossamer.intervals import wilson

__all__ = [
    "Evaluation",
    "NumpyModel",
    "OnnxModel",
    "Outcome",
    "SecurityCurve",
    "Shard",
    "as_module",
    "at_eps",
    "check_clean",
    "check_subject",
    "describe_network",
    "evaluate",
    "explain",
    "judge",
    "make_panel",
    "merge",
    "security_curve",
    "select_samples",
    "wilson",
]
