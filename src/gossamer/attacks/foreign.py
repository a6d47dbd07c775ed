"""How do other libraries' attacks run here? Adapters to foolbox and to the Adversarial Robustness Toolbox.

Both libraries are optional and imported when an attack is called. They are given a stand-in for the model through
which only gradients at the input flow, so no mode, parameter or `.grad` of the model can change. What they draw comes
from (seed, keys), and the global generators are put back.
"""

import importlib
import random
import warnings
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn

from gossamer.attacks.goals import SEED_ZERO
from gossamer.attacks.minimal import AnyNorm, bring_into
from gossamer.attacks.targets import Target
from gossamer.errors import ConfigError
from gossamer.seeding import Draws, derive
from gossamer.threat import ThreatModel, per_image
from gossamer.types import Model

# Enough to find a scale in (0, 1] to the precision of float32.
_BISECTIONS = 30

FAMILIES: Mapping[str, Mapping[AnyNorm, str]] = {
    "fmn": {"linf": "LInfFMNAttack", "l2": "L2FMNAttack", "l1": "L1FMNAttack", "l0": "L0FMNAttack"},
    "deepfool": {"linf": "LinfDeepFoolAttack", "l2": "L2DeepFoolAttack"},
}
"""Attacks of foolbox that exist for several norms: fast minimum norm (Pintor et al., NeurIPS 2021) and DeepFool
(Moosavi-Dezfooli et al., CVPR 2016)."""

_NORMS: Mapping[float, AnyNorm] = {0: "l0", 1: "l1", 2: "l2", np.inf: "linf"}

_SCIPY_MOVED = "Please import `gaussian_filter` from the `scipy.ndimage` namespace"


@dataclass(frozen=True, kw_only=True)
class FoolboxAttack:
    """An attack of foolbox 3.3 as one of ours, judged by us.

    attack: an instance, a class of `foolbox.attacks` by name, or fmn or deepfool, of which the class for the threat's
    norm is taken. options: what a named class is constructed with; an instance's own are not recorded. Named, the l2
    attack of fast minimum norm has its projection put right, without which it finds far too large norms. threat: within
    which points are brought; without one, attacks of least norm return what they find. target: drives to classes.
    alone: images are attacked one by one, so that what is drawn, or stopped early, for one does not depend on the
    others.

    Called, it raises ConfigError where foolbox is not installed, has no such attack, or the attack needs an eps and
    there is no threat.
    """

    attack: Any
    threat: ThreatModel | None = None
    options: Mapping[str, Any] = field(default_factory=dict[str, Any])
    target: Target | None = None
    alone: bool = False

    @property
    def norm(self) -> AnyNorm:
        """The norm that the attack makes small; the threat's where it does not say."""
        own = _NORMS.get(getattr(getattr(self._instance(), "distance", None), "p", -1.0))
        if own is not None:
            return own
        if self.threat is None:
            raise _no_threat(self.attack)
        return self.threat.norm

    def __call__(self, model: Model, x: Tensor, y: Tensor, *, draws: Draws = SEED_ZERO) -> Tensor:
        """Return x_adv for x: (N, C, H, W) in [0, 1] and labels y: (N,)."""
        found = self.smallest(model, x, y, draws=draws)
        return found if self.threat is None else bring_into(self.threat, found, x)

    def smallest(self, model: Model, x: Tensor, y: Tensor, *, draws: Draws = SEED_ZERO) -> Tensor:
        """Return what the attack finds, of any distance where it is one of least norm: (N, C, H, W)."""
        foolbox, attack = _foolbox(), self._instance()
        seen = foolbox.PyTorchModel(_InputOnly(model).eval(), bounds=(0, 1), device=x.device)
        labels, targets = _labels(model, x, y, self.target)
        eps = self._eps(foolbox, attack)

        def run(images: Tensor, rows: slice) -> Tensor:
            criteria = foolbox.criteria
            criterion = (
                criteria.Misclassification(labels[rows])
                if targets is None
                else criteria.TargetedMisclassification(targets[rows])
            )
            # Raw points, points clipped to eps, success: the raw ones of an attack without eps are its smallest.
            raw, clipped, _ = attack(seen, images, criterion, epsilons=eps)
            return raw if eps is None else clipped

        return _in_parts(run, x, draws, alone=self.alone)

    def _instance(self) -> Any:
        if not isinstance(self.attack, str):
            return self.attack
        names = FAMILIES.get(self.attack)
        name = self.attack if names is None else self._of_norm(names)
        made = _class_of(_foolbox().attacks, name)
        return (_projecting(made) if name == FAMILIES["fmn"]["l2"] else made)(**self.options)

    def _of_norm(self, names: Mapping[AnyNorm, str]) -> str:
        if self.threat is None:
            raise _no_threat(self.attack)
        if self.threat.norm in names:
            return names[self.threat.norm]
        raise ConfigError(
            f"attack {self.attack}",
            expected=f"a threat in {' or '.join(names)}",
            got=str(self.threat),
            remedy="write fmn, which has every norm",
        )

    def _eps(self, foolbox: Any, attack: Any) -> float | None:
        if isinstance(attack, foolbox.attacks.base.MinimizationAttack):
            return None
        if self.threat is None:
            raise _no_threat(self.attack)
        return self.threat.eps


@dataclass(frozen=True, kw_only=True)
class ARTAttack:
    """An evasion attack of the Adversarial Robustness Toolbox as one of ours, judged by us.

    attack: a class of `art.attacks.evasion`, or its name. options: what it is constructed with; `norm` and `eps`,
    where the class has them, are the threat's unless given, and `targeted` follows target. threat, target, alone: as
    in FoolboxAttack. Points travel as float32 through NumPy.

    Called, it raises ConfigError where the toolbox is not installed or has no such attack.
    """

    attack: Any
    threat: ThreatModel | None = None
    options: Mapping[str, Any] = field(default_factory=dict[str, Any])
    target: Target | None = None
    alone: bool = False

    @property
    def norm(self) -> AnyNorm:
        """The threat's norm, in which distances are measured."""
        if self.threat is None:
            raise _no_threat(self.attack)
        return self.threat.norm

    def __call__(self, model: Model, x: Tensor, y: Tensor, *, draws: Draws = SEED_ZERO) -> Tensor:
        """Return x_adv for x: (N, C, H, W) in [0, 1] and labels y: (N,)."""
        found = self.smallest(model, x, y, draws=draws)
        return found if self.threat is None else bring_into(self.threat, found, x)

    def smallest(self, model: Model, x: Tensor, y: Tensor, *, draws: Draws = SEED_ZERO) -> Tensor:
        """Return what the attack finds, of any distance: (N, C, H, W)."""
        classification = _import("art.estimators.classification", "art")
        with torch.no_grad():
            classes = model(x[:1]).shape[1]
        seen = classification.PyTorchClassifier(
            model=_InputOnly(model),
            loss=nn.CrossEntropyLoss(),
            input_shape=tuple(x.shape[1:]),
            nb_classes=classes,
            clip_values=(0.0, 1.0),
            device_type="cpu" if x.device.type == "cpu" else "gpu",
        )
        attack = self._instance(seen)
        labels, targets = _labels(model, x, y, self.target)
        towards = nn.functional.one_hot(labels if targets is None else targets, classes).float().cpu().numpy()

        def run(images: Tensor, rows: slice) -> Tensor:
            made = attack.generate(x=images.float().cpu().numpy(), y=towards[rows])
            return torch.from_numpy(made).to(images)

        return _in_parts(run, x, draws, alone=self.alone)

    def _instance(self, seen: Any) -> Any:
        evasion = _import("art.attacks.evasion", "art")
        made = _class_of(evasion, self.attack) if isinstance(self.attack, str) else self.attack
        known = getattr(made, "attack_params", ())
        of_threat = {} if self.threat is None else {"norm": _order(self.threat), "eps": self.threat.eps}
        defaults = {**of_threat, "targeted": self.target is not None, "verbose": False}
        return made(seen, **{**{key: value for key, value in defaults.items() if key in known}, **self.options})


def _projecting(fmn: Any) -> type:
    """Return the l2 attack with its projection put right: foolbox 3.3.4 scales by norms / norms, so never inwards.

    The box is clipped to after the projection, and what it cuts off would never be made up for: eps would stand still
    short of the boundary. So the scale is the one at which the clipped point lies at eps.
    """

    def project(self: Any, x: Any, x0: Any, epsilon: Any) -> Any:  # noqa: ARG001 - foolbox's signature
        delta = x.raw - x0.raw
        norm = torch.linalg.vector_norm(delta.flatten(1), dim=1).clamp(min=torch.finfo(delta.dtype).tiny)
        low = (epsilon.raw / norm).clamp(max=1)
        high = torch.ones_like(low)
        for _ in range(_BISECTIONS):
            middle = (low + high) / 2
            clipped = (x0.raw + delta * per_image(middle, delta)).clamp(0, 1)
            inside = torch.linalg.vector_norm((clipped - x0.raw).flatten(1), dim=1) <= epsilon.raw
            low, high = torch.where(inside, middle, low), torch.where(inside, high, middle)
        return type(x)(x0.raw + delta * per_image(low, delta))

    return type(fmn.__name__, (fmn,), {"project": project})


class _InputOnly(nn.Module):
    """A module that calls a model and gives gradients at its input alone; the model is no part of it."""

    def __init__(self, model: Model) -> None:
        super().__init__()
        # In a tuple, so that .to(), .train() and the like of a library never reach it.
        self._held = (model,)

    def forward(self, x: Tensor) -> Tensor:
        """Return the model's logits (N, K) for x: (N, C, H, W)."""
        (model,) = self._held
        if torch.is_grad_enabled() and x.requires_grad:
            return _AtInput.apply(x, model)
        with torch.no_grad():
            return model(x)


class _AtInput(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, model: Model) -> Tensor:
        with torch.enable_grad():
            ctx.leaf = x.detach().requires_grad_(True)
            ctx.logits = model(ctx.leaf)
        return ctx.logits.detach()

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        # Libraries go back through one forward several times, once for each class.
        (gradient,) = torch.autograd.grad(ctx.logits, ctx.leaf, gradients[0], retain_graph=True)
        return gradient, None


def _labels(model: Model, x: Tensor, y: Tensor, target: Target | None) -> tuple[Tensor, Tensor | None]:
    if target is None:
        return y, None
    with torch.no_grad():
        return y, target(model(x), y)


def _in_parts(run: Any, x: Tensor, draws: Draws, *, alone: bool) -> Tensor:
    if not len(x):
        return x.clone()
    size = 1 if alone else len(x)
    keyed = draws.per_sample(torch.arange(len(x))) if alone and draws.rows is None else draws
    parts: list[Tensor] = []
    for first in range(0, len(x), size):
        rows = slice(first, first + size)
        with _drawing(keyed.select(torch.arange(len(x))[rows]), x.device), torch.enable_grad():
            parts.append(cast("Tensor", run(x[rows], rows)).detach().to(x))
    return torch.cat(parts)


@contextmanager
def _drawing(draws: Draws, device: torch.device) -> Generator[None]:
    """Seed every global generator that a library may draw from, and put them back."""
    seed = derive(draws.seed, *draws.keys, *(key for row in draws.rows or () for key in row), "foreign")
    numpy_before, python_before = np.random.get_state(), random.getstate()
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(seed)
        np.random.seed(seed % 2**32)
        random.seed(seed)
        try:
            yield
        finally:
            np.random.set_state(numpy_before)
            random.setstate(python_before)


def _foolbox() -> Any:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=_SCIPY_MOVED, category=DeprecationWarning)
        return _import("foolbox", "second-opinion")


def _import(module: str, extra: str) -> Any:
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        raise ConfigError(
            "attack of another library",
            expected=f"the library {module.partition('.')[0]}",
            got=f"no module named {error.name}",
            remedy=f'pip install "gossamer[{extra}]"',
        ) from error


def _class_of(module: Any, name: str) -> Any:
    if name.isidentifier() and isinstance(getattr(module, name, None), type):
        return getattr(module, name)
    raise ConfigError(
        "attack of another library",
        expected=f"a class of {module.__name__}",
        got=repr(name),
        remedy="check its spelling in the library's documentation",
    )


def _order(threat: ThreatModel) -> float:
    return next(order for order, norm in _NORMS.items() if norm == threat.norm)


def _no_threat(attack: object) -> ConfigError:
    return ConfigError(
        f"attack {attack if isinstance(attack, str) else type(attack).__name__}",
        expected="a threat, which says the norm and eps",
        got="none",
        remedy='write threat=ThreatModel("l2", 0.5)',
    )
