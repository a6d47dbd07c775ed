"""How wrong is each prediction? Losses per sample: logits (N, K) and classes (N,) int64 in, (N,) out."""

import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from gossamer.errors import ConfigError


def cross_entropy(logits: Tensor, y: Tensor, *, smoothing: float = 0.0) -> Tensor:
    """Return -log p_y, p = softmax(logits): (N,).

    smoothing: the share of the label that all classes get in equal parts; it is then -sum_k q_k log p_k with
    q = (1 - smoothing) onehot(y) + smoothing/K (Szegedy et al., CVPR 2016).
    """
    return F.cross_entropy(logits, y, reduction="none", label_smoothing=smoothing)


def kl(reference_logits: Tensor, logits: Tensor) -> Tensor:
    """Return KL(p_reference || p) = sum_k p_reference log(p_reference / p): (N,), differentiable in both."""
    reference = F.log_softmax(reference_logits, dim=1)
    return (reference.exp() * (reference - F.log_softmax(logits, dim=1))).sum(dim=1)


def margin(logits: Tensor, y: Tensor) -> Tensor:
    """Return max_{i != y} z_i - z_y, above 0 where misclassified: (N,) (Carlini & Wagner, 2017, f_6)."""
    return _best_other(logits, y) - _of(logits, y)


def margin_targeted(logits: Tensor, target: Tensor) -> Tensor:
    """Return z_t - max_{i != t} z_i, above 0 where the target is reached: (N,)."""
    return -margin(logits, target)


def dlr(logits: Tensor, y: Tensor) -> Tensor:
    """Return the difference of logits ratio, -(z_y - max_{i != y} z_i) / (z_(1) - z_(3)): (N,).

    Unchanged by z -> a z + b, a > 0 (Croce & Hein, ICML 2020, eq. 6, with the 1e-12 of the reference code in
    the denominator). Raises ConfigError below 3 classes.
    """
    _need_classes("the DLR loss", logits, 3)
    top = _descending(logits, 3)
    return margin(logits, y) / (top[:, 0] - top[:, 2] + 1e-12)


def dlr_targeted(logits: Tensor, y: Tensor, target: Tensor) -> Tensor:
    """Return -(z_y - z_t) / (z_(1) - (z_(3) + z_(4)) / 2): (N,) (Croce & Hein, ICML 2020, eq. 7).

    Raises ConfigError below 4 classes.
    """
    _need_classes("the targeted DLR loss", logits, 4)
    top = _descending(logits, 4)
    return (_of(logits, target) - _of(logits, y)) / (top[:, 0] - 0.5 * (top[:, 2] + top[:, 3]) + 1e-12)


def best_other_class(logits: Tensor, y: Tensor) -> Tensor:
    """Return the most likely class other than y: (N,) int64; raises ConfigError below 2 classes."""
    _need_classes("a margin", logits, 2)
    top = logits.topk(2, dim=1).indices
    return top[:, 0].where(top[:, 0] != y, top[:, 1])


def _best_other(logits: Tensor, y: Tensor) -> Tensor:
    return _of(logits, best_other_class(logits, y))


def _of(logits: Tensor, classes: Tensor) -> Tensor:
    return logits.gather(1, classes[:, None])[:, 0]


def _descending(logits: Tensor, count: int) -> Tensor:
    return logits.topk(count, dim=1).values


def _need_classes(subject: str, logits: Tensor, least: int) -> None:
    if logits.shape[1] >= least:
        return
    raise ConfigError(
        subject,
        expected=f"at least {least} classes",
        got=logits.shape[1],
        remedy="use the loss ce, or margin from 2 classes on",
    )
