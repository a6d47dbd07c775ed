"""How large is the loss under an attack? The mean over all samples, those among them that are wrong when clean."""

import torch
from torch import Tensor, nn

from gossamer.data import DataSet
from gossamer.evaluation.batches import Batches, fitting_batch_size
from gossamer.evaluation.judge import admit, predict
from gossamer.evaluation.subject import at_rest, place_of, prepare, seed_noise
from gossamer.evaluation.trials import plan_trials
from gossamer.losses import cross_entropy
from gossamer.seeding import Draws, derive
from gossamer.types import Attack

_EXAMPLE = 8


def attacked_loss(model: nn.Module, data: DataSet, attack: Attack, *, seed: int = 0) -> float:
    """Return the mean cross-entropy of a model on what an attack makes of every image; draws are keyed by sample.

    The attack's own steps choose its point, as in training: nothing is judged in between; what leaves ball or box
    counts as the clean image. The model comes back as it was. Raises RunError for logits that are not finite.
    """
    (trial,) = plan_trials(attack)
    place = place_of(model)
    with at_rest(model, place) as resting:
        example = data.float(torch.arange(min(_EXAMPLE, len(data))), device=place)
        subject = prepare(resting, fast=not getattr(attack, "needs_module", False), example=example)
        seed_noise(derive(seed, "attacked loss"), place)

        def losses(positions: Tensor) -> Tensor:
            x = data.float(positions, device=place)
            y = data.labels[positions.to(data.labels.device)].to(place)
            index = data.index.cpu()[positions]
            draws = Draws(seed, ("attacked loss",)).per_sample(index)
            points, _ = admit(attack(subject.attacked, x, y, draws=draws), x, trial.threat)
            return cross_entropy(predict(resting, points, index=index).double(), y).cpu()

        batches = Batches(fitting_batch_size(subject.attacked, data, place))
        return float(torch.cat(list(batches.run(losses, torch.arange(len(data))))).mean())
