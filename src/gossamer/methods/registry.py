"""Which methods there are: the one table from name to method."""

from collections.abc import Callable, Mapping
from dataclasses import MISSING, dataclass, field, fields
from typing import cast

from gossamer.errors import ConfigError
from gossamer.methods.atmc import ATMC
from gossamer.methods.bcs import BCS
from gossamer.methods.channels import Channels
from gossamer.methods.deep_r import DeepR
from gossamer.methods.dense import Dense
from gossamer.methods.early_mask import EarlyMask
from gossamer.methods.edge_popup import EdgePopup
from gossamer.methods.flying_bird import FlyingBird
from gossamer.methods.gradual import Gradual
from gossamer.methods.harp import HARP
from gossamer.methods.hydra import Hydra
from gossamer.methods.lasso import Lasso
from gossamer.methods.mad import MAD
from gossamer.methods.magnitude import Magnitude
from gossamer.methods.one_shot_admm import OneShotADMM
from gossamer.methods.pni import PNI
from gossamer.methods.protocol import Method
from gossamer.methods.pwoa import PwoA
from gossamer.methods.random import Random
from gossamer.methods.rewinding import Rewinding
from gossamer.methods.rigl import RigL
from gossamer.methods.robust_admm import RobustADMM
from gossamer.methods.robust_bird import RobustBird
from gossamer.methods.robust_subnet import RobustSubnet
from gossamer.methods.rsr import RSR
from gossamer.methods.scratch_ticket import ScratchTicket
from gossamer.methods.set import SET
from gossamer.methods.soft_deep_r import SoftDeepR
from gossamer.methods.twinrep import TwinRep
from gossamer.options import construct
from gossamer.plugins import is_reference, make_one, resolve


@dataclass(frozen=True, kw_only=True)
class MethodEntry:
    """One named method: its dataclass, one line on it, and the objectives it cannot run with, each with the reason."""

    make: Callable[..., Method]
    summary: str
    refuses: Mapping[str, str] = field(default_factory=dict[str, str])

    @property
    def options(self) -> tuple[str, ...]:
        """The names a recipe may set."""
        return tuple(each.name for each in fields(self.make))  # pyright: ignore[reportArgumentType]

    @property
    def needs_density(self) -> bool:
        """Whether a recipe has to set a density."""
        own = {each.name: each for each in fields(self.make)}  # pyright: ignore[reportArgumentType]
        return "density" in own and own["density"].default is MISSING


METHODS: Mapping[str, MethodEntry] = {
    "dense": MethodEntry(make=Dense, summary="every weight kept: the parent to compare with"),
    "random": MethodEntry(make=Random, summary="a fixed random mask: the control to beat"),
    "magnitude": MethodEntry(make=Magnitude, summary="train, cut the smallest weights once, fine-tune"),
    "bcs": MethodEntry(
        make=BCS, summary="Bayesian connectivity sampling: rewires at every step (Ozdenizci & Legenstein, 2021)"
    ),
    "rewinding": MethodEntry(
        make=Rewinding,
        summary="train, cut, go back to an early epoch and train again (Frankle et al., 2019)",
    ),
    "channels": MethodEntry(make=Channels, summary="train, remove whole channels (Torch-Pruning), fine-tune"),
    "early-mask": MethodEntry(
        make=EarlyMask,
        summary="a mask by SNIP, GraSP or SynFlow under the adversarial loss, before training",
        refuses={
            "free-at": "early masks are scored on attacked images, which free-at has none of before it trains: choose "
            "an objective that has a training attack"
        },
    ),
    "edge-popup": MethodEntry(
        make=EdgePopup, summary="frozen random weights, trained scores choose among them (Ramanujan et al., 2020)"
    ),
    "robust-subnet": MethodEntry(
        make=RobustSubnet, summary="edge-popup with binary weights and adaptive layer budgets (Liu et al., 2022)"
    ),
    "scratch-ticket": MethodEntry(
        make=ScratchTicket,
        summary="robust subnetworks of random weights, fine-tuned or switched at random (Fu et al., 2021)",
    ),
    "hydra": MethodEntry(
        make=Hydra, summary="train, learn which weights to keep under attack, fine-tune (Sehwag et al., 2020)"
    ),
    "harp": MethodEntry(
        make=HARP, summary="learned rate of every layer and score of every weight (Zhao & Wressnegger, 2023)"
    ),
    "twinrep": MethodEntry(make=TwinRep, summary="products of two tensors from scratch, cut once (Li et al., 2023)"),
    "robust-admm": MethodEntry(
        make=RobustADMM, summary="draw dense weights towards a sparse set by ADMM, cut, retrain (Ye et al., 2019)"
    ),
    "one-shot-admm": MethodEntry(
        make=OneShotADMM, summary="ADMM in one phase while density, eps and attack steps tighten (Marshall, 2020)"
    ),
    "atmc": MethodEntry(
        make=ATMC, summary="factors of every kernel under one budget, quantised down to 1 bit (Gui et al., 2019)"
    ),
    "mad": MethodEntry(
        make=MAD,
        summary="cuts what masking under attack shows to matter least (Lee et al., 2022)",
        refuses=dict.fromkeys(
            ("natural", "gaussian", "free-at"),
            "MAD scores weights on attacked images: choose an objective that has a training attack",
        ),
    ),
    "deep-r": MethodEntry(
        make=DeepR,
        summary="noise and drift kill connections, others are drawn: the number is held (Bellec et al., 2018)",
    ),
    "soft-deep-r": MethodEntry(
        make=SoftDeepR,
        summary="noise and drift kill connections and revive them: no number is held (Bellec et al., 2018)",
    ),
    "set": MethodEntry(make=SET, summary="small weights dropped, others grown at random (Mocanu et al., 2018)"),
    "rigl": MethodEntry(
        make=RigL, summary="small weights dropped, others grown where the gradient is largest (Evci et al., 2020)"
    ),
    "flying-bird": MethodEntry(
        make=FlyingBird, summary="moving masks under attack; plus: sized by robust overfitting (Chen et al., 2022)"
    ),
    "robust-bird": MethodEntry(
        make=RobustBird,
        summary="a mask drawn early in a cheap training, once it has settled, then trained (Chen et al., 2022)",
    ),
    "gradual": MethodEntry(
        make=Gradual, summary="dense at first, the smallest weights cut bit by bit (Zhu & Gupta, 2017)"
    ),
    "lasso": MethodEntry(make=Lasso, summary="an l1 penalty makes weights small, the smallest are cut after training"),
    "rsr": MethodEntry(
        make=RSR, summary="trainable weight noise and an l1 penalty, then a cut by threshold (Rakin et al., 2019)"
    ),
    "pni": MethodEntry(make=PNI, summary="trainable weight noise, every weight kept (He et al., 2019)"),
    "pwoa": MethodEntry(
        make=PwoA, summary="prunes a robust network on clean images, taught by itself (Jian et al., 2022)"
    ),
}


def build(name: str, **options: object) -> Method:
    """Return the method of a name in METHODS, or of a user's "package.module:factory", called with the options.

    Raises ConfigError for an unknown name or option, and for an impossible value.
    """
    if is_reference(name):
        return _build_foreign(name, options)
    if name not in METHODS:
        raise ConfigError(
            "method.name",
            expected=f"one of {', '.join(METHODS)}, or package.module:factory",
            got=repr(name),
            remedy="check its spelling",
        )
    entry = METHODS[name]
    if entry.needs_density and "density" not in options:
        raise ConfigError(
            "method.density",
            expected="the share of weights to keep",
            got="nothing",
            remedy="write density: 0.1 to keep 10 % of the weights",
        )
    return construct(entry.make, options, "method")


def check_pair(method: str, objective: str) -> None:
    """Raise ConfigError where a method cannot run with an objective, with the reason; names as in recipes.

    A user's factory may say so itself, by an attribute `refuses` like that of a MethodEntry.
    """
    reason = _refusals(method).get(objective)
    if reason is None:
        return
    allowed = "an objective that the method can run with"
    raise ConfigError("objective.name", expected=allowed, got=f"{objective} with method {method}", remedy=reason)


def _refusals(method: str) -> Mapping[str, str]:
    if not is_reference(method):
        return METHODS[method].refuses if method in METHODS else {}
    refuses: object = getattr(resolve(method), "refuses", {})
    if isinstance(refuses, Mapping) and all(isinstance(each, str) for pair in refuses.items() for each in pair):
        return cast("Mapping[str, str]", refuses)
    raise ConfigError(
        f"refuses of {method}",
        expected="a reason for each objective by its name, as texts",
        got=repr(refuses),
        remedy='write refuses = {"natural": "it needs a training attack"}, say',
    )


def _build_foreign(reference: str, options: Mapping[str, object]) -> Method:
    made = make_one(
        "method",
        reference,
        options,
        fits=lambda each: isinstance(each, Method),
        expected="a factory that returns an object with default_optimizer and phases",
        remedy="define both, as gossamer.methods.protocol.Method describes them",
    )
    return cast("Method", made)
