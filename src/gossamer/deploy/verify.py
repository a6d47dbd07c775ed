"""Does what ships do what was measured? Parity with its parent, then robust accuracy of the artifact itself."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from gossamer.attacks.cascade import Ensemble
from gossamer.attacks.square import Square
from gossamer.data import DataSet
from gossamer.deploy import sparse_file
from gossamer.deploy.about import Verified, about_path, read_about, write_about
from gossamer.deploy.artifact import Artifact, kind_of
from gossamer.deploy.csource import is_rounded
from gossamer.deploy.parity import EXACT, Parity, parity, probes
from gossamer.deploy.verification import Gap, Shipped, Verification
from gossamer.errors import ConfigError, RunError
from gossamer.evaluation.examples import craft
from gossamer.evaluation.record import Evaluation
from gossamer.evaluation.setting import Setting
from gossamer.evaluation.subject import count_classes
from gossamer.evaluation.trials import plan_trials
from gossamer.intervals import paired_difference
from gossamer.threat import ThreatModel
from gossamer.types import Attack

LIMIT = 0.01
QUERIES = 1000
COMPARED = 256
"""Images on which logits are compared."""
LOSSLESS = ("float32", "signs")
"""Values that stand for the weights without rounding."""
UNROUNDED = ("onnx", "torch")
"""Kinds that hold weights in float32, with a record beside them or not."""
AGREEMENT = 0.95
OWN = "square"


@dataclass(frozen=True, kw_only=True)
class Asked:
    """How an artifact is attacked.

    attack: sought on its float twin, all members of an ensemble each for itself, and confirmed on the artifact;
    queries: of the gradient-free attack on the artifact itself; limit: the largest gap to the parent, a share;
    agreement: the least share of images on which both say the same class.
    """

    attack: Attack | None
    threat: ThreatModel
    queries: int = QUERIES
    limit: float = LIMIT
    agreement: float = AGREEMENT


def verify(artifact: Artifact, parent: nn.Module | None, setting: Setting, asked: Asked) -> Verification:
    """Return what an artifact does on the samples of a setting, beside the network that it was made of.

    parent: its float twin, on which adversarial examples are made; where None, the artifact is attacked without
    gradients alone and nothing is compared. A sample stands where the artifact is right on it clean, on every example
    of the twin and after Square (Andriushchenko et al., 2020) on the artifact itself; the parent is measured by the
    same examples and by Square on itself. The gate: logits within 1e-4 of the largest where weights are stored exactly,
    as a record, a sparse file or the kind says; the same class on a share of `agreement` of the images; and a gap of at
    most `limit`, clean and attacked. Raises ConfigError where there is nothing to attack with, and what
    `evaluate` raises.
    """
    if not 0 <= asked.limit <= 1:
        raise ConfigError("--limit", expected="points from 0 to 100", got=100 * asked.limit, remedy="write 1")
    if not 0 <= asked.agreement <= 1:
        raise ConfigError("--agreement", expected="0 to 100 %", got=100 * asked.agreement, remedy="write 95")
    # The file may be another one before the attacks are through.
    exact = _is_exact(artifact)
    on_images, on_noise = _compared(artifact, parent, setting.samples)
    attacks: dict[str, Attack] = {}
    made_of: list[str] = []
    if parent is not None:
        for name, attack in _members(asked).items():
            stored = craft(setting, f"twin-{name}", parent, attack)
            attacks[f"{name} of the twin"] = stored
            made_of.append(stored.made_of)
    attacks[OWN] = Square(threat=asked.threat, queries=asked.queries)
    shipped = _shipped(artifact)
    measured = setting.measure(
        artifact.path.name, artifact.model, attacks, threat=asked.threat, examples=made_of, files=shipped.files
    )
    expected = None
    if parent is not None:
        expected = setting.measure("parent", parent, attacks, threat=asked.threat, examples=made_of)
    clean_gap = None if expected is None else _gap(expected, measured, _clean)
    robust_gap = None if expected is None else _gap(expected, measured, _robust)
    return Verification(
        shipped=shipped,
        parity=on_images,
        parity_on_noise=on_noise,
        artifact=measured,
        parent=expected,
        clean_gap=clean_gap,
        robust_gap=robust_gap,
        limit=asked.limit,
        failures=(
            *_parity_failures({"images": on_images, "noise": on_noise}, exact=exact),
            *_label_failures(on_images, asked.agreement),
            *_gap_failures({"clean": clean_gap, "robust": robust_gap}, asked.limit),
        ),
        environment=setting.environment_of(artifact.model),
    )


def keep(artifact: Artifact, found: Verification) -> bool:
    """Write into an artifact's record what was measured of it; returns whether it has one.

    Raises RunError where the record is gone, of other files than were opened, or cannot be written; DataError for a
    damaged one.
    """
    about = read_about(artifact.path)
    if about is None and artifact.about is None:
        return False
    if about is None or about.files != artifact.files:
        raise RunError(
            str(about_path(artifact.path)),
            expected="the record of the files that were verified",
            got="none any more" if about is None else "one of other files, written meanwhile",
            remedy="verify the artifact that lies there now",
        )
    measured = found.artifact
    verified = Verified(
        attacks=tuple(outcome.attack for outcome in measured.attacks),
        threat=measured.threat,
        part=measured.dataset.part,
        n=measured.n,
        clean_accuracy=measured.clean_accuracy,
        robust_accuracy=measured.robust_accuracy,
        parent_robust_accuracy=None if found.parent is None else found.parent.robust_accuracy,
        passed=None if found.parent is None else found.passed,
    )
    write_about(artifact.path, replace(about, verified=verified))
    return True


def _compared(artifact: Artifact, parent: nn.Module | None, samples: DataSet) -> tuple[Parity | None, Parity | None]:
    if artifact.shape is not None and artifact.shape != samples.image_shape:
        raise ConfigError(
            "--data",
            expected=f"images of shape {artifact.shape}, as {artifact.path.name} takes",
            got=samples.image_shape,
            remedy="give the data of the run that it was exported from",
        )
    if parent is None:
        return None, None
    images = samples.float(torch.arange(min(COMPARED, len(samples))))
    twin = parent.to("cpu").eval()
    # Without a record nothing says of what shape images are: whether the parent takes them does.
    count_classes(twin, images[:1])
    return parity(twin, artifact.model, images), parity(twin, artifact.model, probes(samples.image_shape))


def _members(asked: Asked) -> Mapping[str, Attack]:
    """Return the attacks that are run on the twin: each member of an ensemble sees every sample."""
    if asked.attack is None:
        raise ConfigError(
            "--attack", expected="an attack on the twin", got="none", remedy="write --attack autoattack-plus"
        )
    if isinstance(asked.attack, Ensemble):
        return dict(asked.attack.members)
    (trial,) = plan_trials(asked.attack)
    return {trial.name: asked.attack}


def _shipped(artifact: Artifact) -> Shipped:
    return Shipped(
        path=artifact.path.name,
        kind=artifact.kind,
        bytes=artifact.bytes,
        dense_bytes=None if artifact.about is None else artifact.about.parent.dense_bytes,
        files=dict(artifact.files),
        recorded=artifact.about is not None,
    )


def _parity_failures(found: Mapping[str, Parity | None], *, exact: bool) -> list[str]:
    return [
        f"logits on {what} are off by {each.error:.2g} of the largest, more than {EXACT:g}"
        for what, each in found.items()
        if exact and each is not None and not each.error <= EXACT
    ]


def _is_exact(artifact: Artifact) -> bool:
    """Tell whether an artifact stores weights without rounding, by the file, whatever its record says."""
    kind = kind_of(artifact.path)
    if kind == "sparse":
        layers = sparse_file.about(artifact.path).header.layers.values()
        return all(layer.values in LOSSLESS for layer in layers)
    if kind == "c":
        return not is_rounded(artifact.path)
    return kind in UNROUNDED


def _label_failures(found: Parity | None, least: float) -> list[str]:
    if found is None or found.agreement >= least:
        return []
    return [f"it says the parent's class on {found.agreement:.2%} of the images, fewer than {100 * least:g} %"]


def _gap_failures(gaps: Mapping[str, Gap | None], limit: float) -> list[str]:
    return [
        f"{what} accuracy is {100 * gap.value:.2f} points below the parent's, more than {100 * limit:g}"
        for what, gap in gaps.items()
        if gap is not None and gap.value > limit + 1e-12
    ]


def _clean(measured: Evaluation) -> Tensor:
    return torch.tensor(measured.samples.clean_correct, dtype=torch.bool)


def _robust(measured: Evaluation) -> Tensor:
    return torch.tensor([outcome.robust for outcome in measured.attacks]).all(dim=0)


def _gap(parent: Evaluation, artifact: Evaluation, stands: Callable[[Any], Tensor]) -> Gap:
    before, after = stands(parent), stands(artifact)
    lost, won = int((before & ~after).sum()), int((after & ~before).sum())
    return Gap(value=(lost - won) / len(before), interval=paired_difference(lost, won, len(before)))
