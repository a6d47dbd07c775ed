"""How does a checkpoint that others trained become one of the package's networks? Renamed, masked, every tensor told.

Whatever does not fit is an error that names it: a tensor of no known name, one that is missing, another shape.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from gossamer.data import DataSet
from gossamer.errors import ConfigError, DataError, RunError
from gossamer.evaluation.judge import predict
from gossamer.evaluation.samples import select_samples
from gossamer.evaluation.subject import count_weights
from gossamer.intervals import wilson
from gossamer.models import build
from gossamer.sparsity.choose import best_of_each
from gossamer.zoo.checkpoint import read_checkpoint
from gossamer.zoo.layouts import IMAGE_SIZE, LAYOUTS, SCORES, STATISTICS, Layout, Source, rename, unused

COUNTER = "num_batches_tracked"
TOLERANCE = 0.005
"""How far a measured clean accuracy may be from the expected one; chance alone may bring it further."""
BATCH = 100


@dataclass(frozen=True, kw_only=True, eq=False)
class Converted:
    """A checkpoint as one of the package's networks.

    module: in eval mode; name, options: what builds it in `gossamer.models`; used: tensors of the checkpoint that it
    holds; notes: what became of the others, and what the names cannot tell; weights, nonzero: of its kernels;
    parameters: all numbers that learn.
    """

    module: nn.Module = field(repr=False)
    name: str
    options: Mapping[str, Any]
    layout: str
    used: int
    notes: tuple[str, ...]
    weights: int
    nonzero: int
    parameters: int

    def __str__(self) -> str:
        sizes = ", ".join(f"{name} {value}" for name, value in self.options.items() if name not in ("mean", "std"))
        lines = [
            f"{self.name} ({sizes}): {self.used} tensors used, {self.parameters:,} parameters",
            f"density {self.nonzero / self.weights:.2%}: {self.nonzero:,} of {self.weights:,} weights",
        ]
        return "\n".join([*lines, *(f"note: {note}" for note in self.notes)])


def convert(
    path: Path | str,
    *,
    layout: str,
    model: str,
    density: float | None = None,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
) -> Converted:
    """Return the network of a checkpoint in a public layout (`gossamer.zoo.layouts.LAYOUTS`).

    model: a name of `gossamer.models`; its sizes are read off the tensors. density: the share k of each layer that
    HYDRA's scores keep, needed where the file holds scores, as it does not hold k. mean, std: what pixels are
    normalised with, where the original's forward does so and its file does not say. Nothing in the file is run. Raises
    ConfigError for an unknown layout or model, DataError for tensors that are too many, missing or misshapen.
    """
    chosen, source = _source(layout, model)
    found = read_checkpoint(Path(path), outside=frozenset(STATISTICS))
    tensors, notes = _masked(_without_unused(found.tensors, source), chosen, density)
    options, told = _options(tensors, source, mean, std)
    network = _built(model, options)
    state, filled = _renamed(tensors, source, network, str(path))
    network.load_state_dict(state)
    weights, nonzero = count_weights(network)
    left_out = [f"left out: {', '.join(found.beside)}"] if found.beside else []
    dropped = _dropped(found.tensors, source)
    return Converted(
        module=network.eval().requires_grad_(False),
        name=model,
        options=options,
        layout=layout,
        used=sum(name not in STATISTICS for name in tensors) + len(told),
        notes=(*notes, *told, *filled, *dropped, *left_out, *source.remarks),
        weights=weights,
        nonzero=nonzero,
        parameters=sum(parameter.numel() for parameter in network.parameters()),
    )


def check_clean(module: nn.Module, images: DataSet, expected: float, *, n: int | None = None) -> str:
    """Measure clean accuracy and return it in words; raises RunError where the expected one is out of reach.

    It is within reach where it is at most half a point away, or inside the 95 % interval of what was measured.
    """
    if not 0 <= expected <= 1:
        raise ConfigError("--expect-clean", expected="a share in [0, 1]", got=expected, remedy="write 0.845 for 84.5 %")
    chosen, _ = select_samples(images, n)
    right = 0
    for part in torch.arange(len(chosen)).split(BATCH):
        right += int((predict(module, chosen.float(part)).argmax(dim=1) == chosen.labels[part]).sum())
    low, high = wilson(right, len(chosen))
    accuracy = right / len(chosen)
    said = f"clean accuracy {accuracy:.2%} [{low:.2%}, {high:.2%}], {images.name} {images.part}, n = {len(chosen)}"
    if abs(accuracy - expected) <= TOLERANCE or low <= expected <= high:
        return said
    raise RunError(
        "converted network",
        expected=f"a clean accuracy of {expected:.2%}",
        got=said,
        remedy="nothing was written: check layout, density, --mean and --std, and the class order",
    )


def _source(layout: str, model: str) -> tuple[Layout, Source]:
    if layout not in LAYOUTS:
        raise ConfigError(
            "--layout", expected=f"one of {', '.join(LAYOUTS)}", got=repr(layout), remedy="see docs/zoo.md"
        )
    chosen = LAYOUTS[layout]
    if model not in chosen.models:
        raise ConfigError(
            "--model",
            expected=f"a network of the layout {layout}: {', '.join(chosen.models)}",
            got=repr(model),
            remedy="choose one of these; other networks are evaluated by --model package.module:factory",
        )
    return chosen, chosen.models[model]


def _without_unused(tensors: Mapping[str, Tensor], source: Source) -> dict[str, Tensor]:
    return {name: tensor for name, tensor in tensors.items() if unused(source, name) is None}


def _dropped(tensors: Mapping[str, Tensor], source: Source) -> list[str]:
    reasons = [reason for name in tensors if (reason := unused(source, name)) is not None]
    return [f"{reasons.count(reason)} tensors left out: {reason}" for reason in dict.fromkeys(reasons)]


def _masked(
    tensors: Mapping[str, Tensor], layout: Layout, density: float | None
) -> tuple[dict[str, Tensor], list[str]]:
    """Return the tensors with weights cut to those that the scores keep, without the scores."""
    scores = {each.removesuffix(SCORES): tensor for each, tensor in tensors.items() if each.endswith(SCORES)}
    rest = {each: tensor for each, tensor in tensors.items() if not each.endswith(SCORES)}
    if not scores or not layout.scored:
        if density is not None:
            raise ConfigError(
                "--density",
                expected="a checkpoint with popup_scores" if layout.scored else "none, as this layout has no scores",
                got=density,
                remedy="leave it out: zeros of the weights count as they are",
            )
        return dict(tensors), []
    if density is None:
        raise ConfigError(
            "--density",
            expected="the share k of each layer that the scores keep",
            got="none, and the file does not hold it",
            remedy="write --density 0.1 for 90 % pruned, 1 for a pretrained network",
        )
    if not 0 < density <= 1:
        raise ConfigError("--density", expected="a share in (0, 1]", got=density, remedy="write 0.1 for 90 % pruned")
    ties = [_cut(rest, layer, score, density) for layer, score in scores.items()]
    notes = [f"{len(scores)} layers cut to the {density:.4g} of their weights whose scores are largest"]
    if any(ties):
        notes.append(f"{sum(ties)} layers have tied scores at the cut: the first in order were kept")
    return rest, notes


def _cut(tensors: dict[str, Tensor], layer: str, score: Tensor, density: float) -> bool:
    """Set a layer's weights that the scores do not keep to zero, and tell whether scores tie at the cut."""
    key = f"{layer}.weight"
    if key not in tensors or tensors[key].shape != score.shape:
        raise DataError(
            f"{layer}{SCORES}",
            expected=f"a tensor {key} of shape {tuple(score.shape)}",
            got=tuple(tensors[key].shape) if key in tensors else "none",
            remedy="give the checkpoint as it was released",
        )
    size, magnitude = score.numel(), score.detach().abs()
    # As published: the lowest int((1 - k) n) of n go (Sehwag et al., NeurIPS 2020).
    keep = size - int((1 - density) * size)
    kept = best_of_each({key: magnitude}, {key: keep})[key]
    tensors[key] = torch.where(kept, tensors[key], 0.0)
    lowest = magnitude[kept].min() if keep else magnitude.max()
    return bool((magnitude[~kept] == lowest).any())


def _options(
    tensors: Mapping[str, Tensor], source: Source, mean: Sequence[float] | None, std: Sequence[float] | None
) -> tuple[dict[str, Any], list[str]]:
    """Return what builds the network, and a note on each statistic that came from the file."""
    options = {**source.options(tensors), "image_size": IMAGE_SIZE}
    own = {STATISTICS[name]: tensor.flatten().tolist() for name, tensor in tensors.items() if name in STATISTICS}
    given = {name: list(value) for name, value in (("mean", mean), ("std", std)) if value is not None}
    if own and given:
        raise ConfigError(
            "--mean and --std", expected="none, as the checkpoint holds its own", got=given, remedy="leave them out"
        )
    told = [f"pixels are normalised with the checkpoint's own {name}: {values}" for name, values in own.items()]
    return {**options, **own, **given}, told


def _built(model: str, options: Mapping[str, Any]) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        return build(model, **options)


def _renamed(
    tensors: Mapping[str, Tensor], source: Source, network: nn.Module, subject: str
) -> tuple[dict[str, Tensor], list[str]]:
    """Return the network's state; raises DataError for what is unknown, missing or misshapen, all of it named."""
    expected = network.state_dict()
    names = {name: rename(source, name) for name in tensors if name not in STATISTICS}
    unknown = [name for name, ours in names.items() if ours not in expected]
    if unknown:
        raise _unfit(subject, "tensors of the layout alone", "unknown ones", unknown)
    state = {ours: tensors[name] for name, ours in names.items() if ours is not None}
    own = {name: value for name, value in expected.items() if name.startswith("normalize.")}
    # Checkpoints of before 2018 count no batches.
    counters = {name: value for name, value in expected.items() if name.endswith(COUNTER) and name not in state}
    missing = [name for name in expected if name not in (state | own | counters)]
    if missing:
        raise _unfit(subject, "every tensor of the network", "none for", missing)
    wrong = [name for name, value in state.items() if value.shape != expected[name].shape]
    if wrong:
        shapes = [f"{name} {tuple(state[name].shape)} instead of {tuple(expected[name].shape)}" for name in wrong]
        raise _unfit(subject, "the network's shapes", "others:", shapes)
    notes = [f"{len(counters)} counters of batches were not in the file and stand at zero"] if counters else []
    others = [str(value.dtype) for name, value in state.items() if value.dtype != expected[name].dtype]
    notes += [f"{len(others)} tensors were converted from {', '.join(sorted(set(others)))}"] if others else []
    return {name: value.to(expected[name].dtype) for name, value in (own | counters | state).items()}, notes


def _unfit(subject: str, expected: str, got: str, names: Sequence[str]) -> DataError:
    more = f" and {len(names) - 40} more" if len(names) > 40 else ""
    return DataError(
        subject,
        expected=expected,
        got=f"{got} {', '.join(names[:40])}{more}",
        remedy="choose another --layout or --model, or take the network by --model package.module:factory",
    )
