"""Which runs does the table of all methods hold? Recipes, what is changed in them, the controls, and two scales."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from gossamer.recipe.load import load_recipe


@dataclass(frozen=True, kw_only=True)
class Row:
    """One line of the table.

    recipe: a shipped one; settings: what is changed in it; controls: the rows it is held against; page: of
    docs/methods, where it is not called after the recipe's folder; also: further pages that show it; why: what explains
    a row that stays behind a control; note: what is said of a row wherever it stands. scales: the tables that hold it;
    most_seeds: how many of a table's seeds at most, None for all; attacks: by the name of a table's attack, what
    attacks this row in its place.
    """

    name: str
    recipe: str
    settings: Sequence[str] = ()
    controls: Sequence[str] = ("random",)
    page: str = ""
    also: Sequence[str] = ()
    why: str = ""
    note: str = ""
    scales: Sequence[str] = ("digits", "cifar10")
    most_seeds: int | None = None
    attacks: Mapping[str, str] = field(default_factory=dict[str, str])

    def seeds(self, seeds: Sequence[int]) -> Sequence[int]:
        """Return which of a table's seeds the row is trained with."""
        return seeds[: self.most_seeds]


@dataclass(frozen=True, kw_only=True)
class Attack:
    """One attack that every run undergoes, on its first n test images; None: on all."""

    name: str
    n: int | None = None


@dataclass(frozen=True, kw_only=True)
class Scale:
    """What one table is made of. settings: said of every row; epochs: what all counts of epochs are multiplied by."""

    title: str
    rows: Sequence[Row]
    attacks: Sequence[Attack]
    seeds: Sequence[int]
    settings: Sequence[str] = ()
    epochs: float = 1.0


_DENSE = (
    Row(name="natural", recipe="dense/digits-natural", controls=(), page="dense"),
    Row(name="dense", recipe="dense/digits-robust", controls=(), page="dense"),
    Row(
        name="dense, binary",
        recipe="dense/digits-binary",
        controls=("dense",),
        page="binary-connect",
        also=("dense",),
        why="one bit a weight; published too, signs cost 2 to 20 points under AutoAttack",
    ),
    Row(
        name="pni",
        recipe="pni/digits",
        controls=("dense",),
        page="pni",
        why="half of its loss is of clean images: what it loses attacked it gains clean",
    ),
)

# What has one magnitude for all weights is held against the dense network that has it too, and against its own kind.
_CONTROLS = {"random": (), "edge-popup": ("dense, binary", "random"), "robust-subnet": ("dense, binary", "random")}
_PAGES = {"soft-deep-r": "deep-r", "set": "set-rigl", "rigl": "set-rigl", "lwm": "magnitude"}

_ONE_MAGNITUDE = "all weights have one magnitude: level with the dense network that has it too"
_EARLY = "chosen before training; rewinding's mask, of much the same shares by layer, is level in half the epochs"
_WHY = {
    "edge-popup": "all weights have one magnitude: at 50 % it is level with the dense network that has it too",
    "robust-subnet": _ONE_MAGNITUDE,
    "magnitude": "cut over the whole network at once, which leaves the widest layer 5 %; by layers it is level (lwm)",
    "twinrep": "cut once, a tenth into training; so cut by size alone it ends lower still (see gradual, one cut)",
    "early-mask": _EARLY,
    "atmc": "cut by size over the whole network at once: level with magnitude, which is cut so too",
    "scratch-ticket": "30 of its 45 epochs search among frozen weights; random masks trained for the 15 left end lower",
    "mad": "the released order removes weights that help before those that harm: chance does better (see its page)",
    "rsr": "half of its loss is of clean images: what it loses attacked it gains clean",
    "pwoa": "pruned and fine-tuned on clean images alone; published too, it falls most of all on VGG-16",
}

_SPARSE = tuple(
    Row(
        name=name,
        recipe=f"{name}/digits-90",
        controls=_CONTROLS.get(name, ("random",)),
        page=_PAGES.get(name, name),
        why=_WHY.get(name, ""),
    )
    for name in (
        "random",
        "bcs",
        "deep-r",
        "soft-deep-r",
        "set",
        "rigl",
        "flying-bird",
        "robust-bird",
        "gradual",
        "magnitude",
        "lwm",
        "hydra",
        "harp",
        "mad",
        "twinrep",
        "pwoa",
        "robust-admm",
        "one-shot-admm",
        "atmc",
        "rewinding",
        "early-mask",
        "edge-popup",
        "robust-subnet",
        "scratch-ticket",
        "rsr",
        "lasso",
    )
)

_BINARY = ("method.binary=true", "model.last_batch_norm=true", "training.optimizer.lr=0.005")

_VARIANTS = (
    Row(name="random, binary", recipe="random/digits-90", settings=_BINARY, controls=(), page="binary-connect"),
    Row(
        name="flying-bird, binary",
        recipe="flying-bird/digits-90",
        settings=_BINARY,
        controls=("random, binary", "dense, binary"),
        page="binary-connect",
        why="signs of a tenth of the weights; published at 99 % on CIFAR-10, they cost it 11 points",
    ),
    Row(
        name="hydra, binary",
        recipe="hydra/digits-90",
        settings=(*_BINARY, "method.finetune_lr=1.0"),
        controls=("random, binary", "dense, binary"),
        page="binary-connect",
        why="signs of a tenth of the weights; published at 99 % on CIFAR-10, they cost it 13 points",
    ),
    Row(name="mad, random", recipe="mad/digits-90", settings=("method.removes=random",), page="mad"),
    Row(
        name="mad, most",
        recipe="mad/digits-90",
        settings=("method.removes=most",),
        page="mad",
        why="the published control of MAD's order, turned round: chance does better than both (see its page)",
    ),
    # At the published rate and temperature it ends at 71 %: steps are few here, and such soft targets move little.
    Row(
        name="pwoa, attacked",
        recipe="pwoa/digits-90",
        settings=("method.mix_ratio=1.0", "method.finetune_lr=0.3", "method.temperature=4.0"),
        page="pwoa",
        why="it imitates its dense parent, and is level with dense networks",
    ),
    Row(
        name="robust-subnet, p 0.1",
        recipe="robust-subnet/digits-90",
        settings=("method.budget={name: adaptive, p: 0.1}",),
        controls=("dense, binary",),
        page="robust-subnet",
        why="its p is for 1 % of a deep network: here the first layer stays whole and the widest is at 5 %",
    ),
    Row(
        name="edge-popup, 50 %",
        recipe="edge-popup/digits-90",
        settings=("method.density=0.5",),
        controls=("dense, binary", "dense"),
        page="edge-popup",
        why=_ONE_MAGNITUDE,
    ),
    Row(name="bcs, l1", recipe="bcs/digits-90", settings=("method.penalty=l1",), page="bcs"),
    Row(
        name="flying-bird, plus",
        recipe="flying-bird/digits-90",
        settings=("method.plus=true", "data.split={held_out: 0.1}", "training.probes=[{attacks: [pgd]}]"),
        page="flying-bird",
        note="it prunes and grows by how its losses move, and so chooses its density itself",
    ),
    Row(name="hydra, S2AP", recipe="hydra/digits-90", settings=("method.score_sharpness=0.01",), page="s2ap"),
    Row(name="harp, scores alone", recipe="harp/digits-90", settings=("method.learn=scores",), page="harp"),
    Row(
        name="harp, rates alone",
        recipe="harp/digits-90",
        settings=("method.learn=rates",),
        page="harp",
        why="the published ablation: magnitudes choose within layers, and it is level with lwm, where they do too",
    ),
    Row(
        name="early-mask, grasp",
        recipe="early-mask/digits-90",
        settings=("method.score=grasp",),
        page="early-mask",
        why=_EARLY,
    ),
    Row(
        name="early-mask, synflow",
        recipe="early-mask/digits-90",
        settings=("method.score=synflow",),
        page="early-mask",
        why="chosen before training and without data: half of the classifier is kept, and 5 % of the widest layer",
    ),
    Row(
        name="rewinding, random",
        recipe="rewinding/digits-90",
        settings=("method.choose=random",),
        page="rewinding",
        why="the published control of rewinding: 22 of its 44 epochs are dense, and random masks train for 45",
    ),
    # Its tickets are as found, which is what edge-popup has.
    Row(
        name="scratch-ticket, switch",
        recipe="scratch-ticket/digits-switch",
        controls=("edge-popup",),
        page="scratch-ticket",
        why="an attack that sees the random switch leaves nothing of its gain (see its page)",
    ),
    Row(
        name="channels, 50 %",
        recipe="channels/digits-50",
        controls=("dense",),
        page="channels",
        note="at 50 %: whole channels are for a third and more; at 10 % a small dense network is left, as in its row",
    ),
)

_AT_HALF = "at 50 %: the pattern keeps two of every four weights"

# What else is published or asked for, at the scale where a run takes a minute, and with one seed where none is said.
_BESIDE = tuple(
    replace(row, scales=("digits",), most_seeds=row.most_seeds or 1)
    for row in (
        # 5,773 weights, trained as the masked networks are.
        Row(
            name="small dense, 9.8 % of the weights",
            recipe="random/digits-90",
            settings=("method={name: dense}", "model.width=0.29"),
            page="small-dense",
            also=("dense", "channels"),
        ),
        Row(
            name="random, least work",
            recipe="random/digits-90-least-work",
            page="least-work",
            also=("random",),
        ),
        Row(
            name="hydra, least work",
            recipe="hydra/digits-90-least-work",
            controls=("random, least work",),
            page="least-work",
            also=("hydra",),
        ),
        Row(
            name="random, 2:4 at 50 %",
            recipe="random/digits-50-2-of-4",
            controls=("dense",),
            page="patterns",
            also=("random",),
            note=_AT_HALF,
        ),
        Row(
            name="magnitude, 2:4 at 50 %",
            recipe="magnitude/digits-50-2-of-4",
            controls=("random, 2:4 at 50 %",),
            page="patterns",
            also=("magnitude",),
            note=_AT_HALF,
        ),
        Row(
            name="random, 4x4 blocks",
            recipe="random/digits-90-blocks",
            page="patterns",
            also=("random",),
            why="five blocks are left of the first layer, so that 12 of its 32 filters or more are gone",
        ),
        Row(
            name="magnitude, 4x4 blocks",
            recipe="magnitude/digits-90-blocks",
            controls=("random, 4x4 blocks",),
            page="patterns",
            also=("magnitude",),
        ),
        Row(
            name="robust-admm, columns",
            recipe="robust-admm/digits-90",
            settings=("method.pattern=column",),
            page="patterns",
            also=("robust-admm",),
            why="whole columns: all filters of the first layer keep the same 2 of their 25 positions",
        ),
        Row(
            name="robust-admm, filters at 50 %",
            recipe="robust-admm/digits-90",
            settings=("method.density=0.5", "method.pattern=filter", "method.linear=dense"),
            controls=("dense",),
            page="patterns",
            also=("robust-admm",),
            note="at 50 %: at 10 % the first layer would keep one filter",
        ),
        Row(
            name="random, 15 epochs",
            recipe="random/digits-90",
            settings=("training.epochs=15", "training.optimizer.lr=0.1"),
            page="scratch-ticket",
            also=("random",),
            why="a third of the epochs of its control: those in which a scratch ticket is fine-tuned, at their rate",
            most_seeds=3,
        ),
        Row(name="atmc, 8 bits", recipe="atmc/digits-90", settings=("method.bits=8",), page="atmc"),
        Row(
            name="atmc, by layers",
            recipe="atmc/digits-90",
            settings=("method.scope=layer",),
            page="atmc",
            why="cut by size within each layer: level with lwm, which is cut so too",
            most_seeds=3,
        ),
        Row(
            name="one-shot-admm, funnel",
            recipe="one-shot-admm/digits-90",
            settings=("method.set=funnel",),
            page="one-shot-admm",
        ),
        Row(
            name="one-shot-admm, redundant",
            recipe="one-shot-admm/digits-90",
            settings=("method.set=redundant",),
            page="one-shot-admm",
        ),
        Row(
            name="one-shot-admm, quantised",
            recipe="one-shot-admm/digits-90",
            settings=("method.set=quantised",),
            page="one-shot-admm",
        ),
        # Weights cut by their size when TwinRep cuts its products.
        Row(
            name="gradual, one cut",
            recipe="gradual/digits-90",
            settings=("method.begin=0.1", "method.end=0.1"),
            page="twinrep",
            also=("gradual",),
            why="the control of TwinRep: one early cut by size, as it cuts, without the second tensor that it trains",
        ),
        Row(
            name="scratch-ticket, switch, attacked through 10 passes",
            recipe="scratch-ticket/digits-switch",
            controls=("edge-popup",),
            page="scratch-ticket",
            why="what its row without passes seemed to gain, an attack through the switch takes back",
            attacks={"pgd-50-10": "through_passes:pgd_50_10", "autoattack": "autoattack-rand"},
        ),
    )
)


def _rows(scale: str) -> tuple[Row, ...]:
    return tuple(row for row in (*_DENSE, *_SPARSE, *_VARIANTS, *_BESIDE) if scale in row.scales)


SCALES: Mapping[str, Scale] = {
    "digits": Scale(
        title="Every method on 8x8 digits, l_inf 0.15, 90 % of the weights removed",
        rows=_rows("digits"),
        attacks=(Attack(name="pgd-50-10"), Attack(name="autoattack", n=100)),
        seeds=(0, 1, 2, 3, 4),
    ),
    "cifar10": Scale(
        title="Every method on 6,400 CIFAR-10 images, l_inf 8/255, 90 % of the weights removed, a third of the epochs",
        rows=_rows("cifar10"),
        attacks=(Attack(name="pgd-50-10", n=500),),
        seeds=(0,),
        settings=(
            "data={name: cifar10, train_n: 6400, augmentation: {flip: 0.5, shift: 0.1}}",
            "threat=linf:8/255",
            "attack.steps=3",
            "attack.step=4/255",
        ),
        epochs=1 / 3,
    ),
}


def settings(row: Row, scale: Scale, seed: int) -> list[str]:
    """Return what is changed in a row's recipe for one run; raises ConfigError for a recipe that is none."""
    return [
        f"seed={seed}",
        "machine.threads=1",
        "evaluation=[]",
        *(said for said in scale.settings if not (said.startswith("attack.") and _is_natural(row))),
        *row.settings,
        *_epochs(row, scale),
    ]


def _is_natural(row: Row) -> bool:
    return load_recipe(row.recipe).objective.name == "natural"


def _epochs(row: Row, scale: Scale) -> list[str]:
    """Return every count of epochs that a recipe says, at the table's scale, at least 1."""
    if scale.epochs == 1.0:
        return []
    recipe: dict[str, Any] = load_recipe(row.recipe, row.settings).model_dump(mode="json")
    said = {f"method.{name}": value for name, value in recipe["method"].items() if name.endswith(("epochs", "epoch"))}
    said["training.epochs"] = recipe["training"]["epochs"]
    counts = {name: value for name, value in said.items() if isinstance(value, int) and value > 0}
    return [f"{name}={max(1, round(value * scale.epochs))}" for name, value in counts.items()]
