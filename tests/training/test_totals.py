import pytest
import torch

from gossamer.data.augment import Augmentation
from gossamer.seeding import Draws
from gossamer.training.totals import Totals
from gossamer.types import Batch, Loss


def batch(labels: list[int], labelled: list[bool] | None = None) -> Batch:
    n = len(labels)
    view = Augmentation().draw(n, (1, 2, 2), Draws(), "cpu")
    return Batch(
        x=torch.zeros(n, 1, 2, 2),
        y=torch.tensor(labels),
        index=torch.arange(n),
        labelled=torch.tensor([True] * n if labelled is None else labelled),
        view=view,
    )


def predictions(classes: list[int]) -> torch.Tensor:
    return torch.nn.functional.one_hot(torch.tensor(classes), 3).float()


def filled() -> Totals:
    totals = Totals()
    totals.add(
        Loss(
            total=torch.tensor(2.0),
            parts={"natural": torch.tensor(1.5), "adversarial": torch.tensor(0.5)},
            logits={"natural": predictions([0, 1, 2, 0]), "adversarial": predictions([0, 0, 0, 0])},
        ),
        batch([0, 1, 2, 1], [True, True, False, True]),
    )
    parts = {"natural": torch.tensor(3.0), "adversarial": torch.tensor(2.0)}
    totals.add(Loss(total=torch.tensor(5.0), parts=parts), batch([1, 1]))
    return totals


def test_means_by_hand() -> None:
    # Losses over all six samples; accuracies over the labelled ones whose logits were told: 2 and 1 of 3.
    assert filled().means() == {
        "loss": pytest.approx((4 * 2 + 2 * 5) / 6),
        "natural_loss": pytest.approx((4 * 1.5 + 2 * 3) / 6),
        "adversarial_loss": pytest.approx((4 * 0.5 + 2 * 2) / 6),
        "clean_accuracy": pytest.approx(2 / 3),
        "robust_accuracy": pytest.approx(1 / 3),
    }


def test_what_no_batch_told_is_none() -> None:
    assert set(Totals().means().values()) == {None}
    totals = Totals()
    totals.add(Loss(total=torch.tensor(1.0), logits={"natural": predictions([0])}), batch([0], [False]))
    assert totals.means()["clean_accuracy"] is None


def test_sums_survive_a_checkpoint() -> None:
    totals, again = filled(), Totals()
    again.load_state_dict(totals.state_dict())
    assert again.means() == totals.means()
    for each in (totals, again):
        each.add(Loss(total=torch.tensor(0.1)), batch([0]))
    assert again.means() == totals.means()
