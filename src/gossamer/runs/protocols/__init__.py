"""What did an evaluation protocol measure? The versioned records of tables, matrices, trials and corruptions."""

from gossamer.runs.protocols.adversaries import AdversaryMatrix, TestAdversary
from gossamer.runs.protocols.blackbox import BlackBoxTable, Queried, QueriedModel, QueriedPart
from gossamer.runs.protocols.classes import ClassAccuracy, ClassTable
from gossamer.runs.protocols.common import MatrixModel, Share, Spread
from gossamer.runs.protocols.corruptions import CorruptedModel, Corruption, CorruptionTable
from gossamer.runs.protocols.effort import EffortPoint, EffortRow, EffortTable
from gossamer.runs.protocols.ensemble import EnsembleTable, Member
from gossamer.runs.protocols.latency import LatencyTable, PassTime, TimedModel
from gossamer.runs.protocols.matching import MatchingRow, MatchingTable, PairedDifference
from gossamer.runs.protocols.pruning import (
    AtRadius,
    LeastNormPart,
    PrunedModel,
    PruningBenchmark,
    SecondOpinion,
    TuningTrial,
)
from gossamer.runs.protocols.smoothing import Certificate, CertifiedAt, SmoothedModel, SmoothingTable
from gossamer.runs.protocols.stochastic import NoiseMode, StochasticRow, StochasticTable
from gossamer.runs.protocols.transfer import Danger, TransferMatrix
from gossamer.runs.protocols.weights import LayerWeights, NetworkWeights, WeightsTable

__all__ = [
    "AdversaryMatrix",
    "AtRadius",
    "BlackBoxTable",
    "Certificate",
    "CertifiedAt",
    "ClassAccuracy",
    "ClassTable",
    "CorruptedModel",
    "Corruption",
    "CorruptionTable",
    "Danger",
    "EffortPoint",
    "EffortRow",
    "EffortTable",
    "EnsembleTable",
    "LatencyTable",
    "LayerWeights",
    "LeastNormPart",
    "MatchingRow",
    "MatchingTable",
    "MatrixModel",
    "Member",
    "NetworkWeights",
    "NoiseMode",
    "PairedDifference",
    "PassTime",
    "PrunedModel",
    "PruningBenchmark",
    "Queried",
    "QueriedModel",
    "QueriedPart",
    "SecondOpinion",
    "Share",
    "SmoothedModel",
    "SmoothingTable",
    "Spread",
    "StochasticRow",
    "StochasticTable",
    "TestAdversary",
    "TimedModel",
    "TransferMatrix",
    "TuningTrial",
    "WeightsTable",
]
