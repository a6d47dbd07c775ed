"""How are adversarial examples made once and judged on many models? Crafted in parts, stored as float32 tensors."""

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import torch
from torch import Tensor, nn

from gossamer.attacks.goals import SEED_ZERO
from gossamer.data import DataSet
from gossamer.errors import ConfigError
from gossamer.evaluation.batches import Batches, default_batch_size
from gossamer.evaluation.plan import digest, plan_of
from gossamer.evaluation.setting import Setting
from gossamer.evaluation.subject import at_rest, place_of, prepare, seed_noise
from gossamer.evaluation.trials import plan_trials
from gossamer.runs import atomic
from gossamer.seeding import Draws, derive
from gossamer.threat import Allowance
from gossamer.types import Attack, Model

PART = 1000
"""Samples a file: what a kill can cost, and what is in memory while a model is judged."""


class Examples:
    """Adversarial examples by sample: parts, tensors (m, C, H, W) or files of them, in the order of index: (N,)."""

    def __init__(self, index: Tensor, parts: list[Tensor | Path]) -> None:
        self._row = {sample: row for row, sample in enumerate(index.tolist())}
        self._parts = parts
        self._read: tuple[int, Tensor] | None = None

    def of(self, samples: list[int]) -> Tensor:
        """Return the examples of samples: (n, C, H, W) float32; raises ConfigError where one has none."""
        missing = [sample for sample in samples if sample not in self._row]
        if missing:
            raise ConfigError(
                "stored examples",
                expected="one for every sample that is attacked",
                got=f"none for sample {missing[0]}",
                remedy="evaluate on the samples that they were made of",
            )
        rows = [self._row[sample] for sample in samples]
        return torch.stack([self._part(row // PART)[row % PART] for row in rows])

    def _part(self, number: int) -> Tensor:
        part = self._parts[number]
        if isinstance(part, Tensor):
            return part
        if self._read is None or self._read[0] != number:
            self._read = (number, atomic.read_safetensors(part)["x_adv"])
        return self._read[1]


@dataclass(frozen=True, kw_only=True)
class Stored:
    """Hands in examples that were made before, whatever the model; made_of: the hash of what made them."""

    needs_module: ClassVar[bool] = True

    threat: Allowance
    made_of: str
    examples: Examples

    def __call__(self, model: Model, x: Tensor, y: Tensor, *, draws: Draws = SEED_ZERO) -> Tensor:
        """Return the examples of the samples that the draws are keyed by: (N, C, H, W); raises ConfigError."""
        if draws.rows is None:
            raise ConfigError(
                "stored examples",
                expected="draws keyed by sample, which say whose examples are asked for",
                got="draws of a whole batch",
                remedy="call it with draws.per_sample(index)",
            )
        return self.examples.of([int(row[1]) for row in draws.rows]).to(x)


def craft(setting: Setting, name: str, model: nn.Module, attack: Attack) -> Stored:
    """Return an attack's examples of all samples, also of those the model errs on; read back where they exist.

    Files lie in a folder of the setting's, named after model, attack and samples. Draws do not depend on the model.
    """
    (trial,) = plan_trials(attack)
    known = {"mark": setting.mark(model), "seed": setting.seed, "fast": setting.fast, "name": name}
    plan = plan_of(model, setting.samples, [trial], **known)
    folder = setting.part_folder(f"examples-{name}", plan)
    parts = [
        _part(setting, model, attack, rows, None if folder is None else folder / f"part-{number:04}.safetensors")
        for number, rows in enumerate(torch.arange(len(setting.samples)).split(PART))
    ]
    examples = Examples(setting.samples.index, parts)
    return Stored(threat=trial.threat, made_of=digest(plan), examples=examples)


def _part(setting: Setting, model: nn.Module, attack: Attack, rows: Tensor, path: Path | None) -> Tensor | Path:
    if path is None:
        return _made(setting, model, attack, rows)
    if not path.exists():
        atomic.write_safetensors(path, {"x_adv": _made(setting, model, attack, rows)})
    return path


def _made(setting: Setting, model: nn.Module, attack: Attack, rows: Tensor) -> Tensor:
    samples: DataSet = setting.samples
    place = place_of(model, setting.device)
    with at_rest(model, place) as resting:
        fast = setting.fast and not getattr(attack, "needs_module", False)
        subject = prepare(resting, fast=fast, example=samples.float(rows[:8], device=place))
        seed_noise(derive(setting.seed, "examples", int(rows[0])), place)

        def work(positions: Tensor) -> Tensor:
            x = samples.float(positions, device=place)
            y = samples.labels[positions.to(samples.labels.device)].to(place)
            keyed = Draws(setting.seed, ("examples",)).per_sample(samples.index.cpu()[positions])
            return attack(subject.attacked, x, y, draws=keyed).detach().float().cpu()

        pixels = samples.images[0].numel()
        batches = Batches(setting.batch_size or default_batch_size(pixels, place))
        return torch.cat(list(batches.run(work, rows)))
