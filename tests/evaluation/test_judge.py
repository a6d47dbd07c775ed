import pytest
import torch
from torch import nn

from gossamer.errors import ConfigError, RunError
from gossamer.evaluation.judge import judge, predict
from gossamer.threat import ThreatModel

LINF = ThreatModel("linf", 0.1)


class BrightOrDark(nn.Module):
    """Class 1 where the first pixel is above one half, else class 0."""

    def forward(self, x):
        bright = x.flatten(1)[:, 0] - 0.5
        return torch.stack([-bright, bright], dim=1)


def images(*first_pixels):
    return torch.tensor(first_pixels).view(-1, 1, 1, 1).expand(-1, 1, 2, 2).clone()


def test_an_admissible_point_beyond_the_boundary_breaks_the_sample():
    x = images(0.45, 0.45)
    outcome = judge(BrightOrDark(), x, images(0.55, 0.5), torch.tensor([0, 0]), LINF)
    assert outcome.prediction.tolist() == [1, 0]
    assert outcome.broken.tolist() == [True, False]
    assert outcome.rejected.tolist() == [False, False]


@pytest.mark.parametrize(
    ("x", "x_adv"),
    [
        (0.45, 0.45 + 0.1 + 2e-6),
        (0.95, 1 + 2e-6),
        (0.05, -2e-6),
        (0.45, float("nan")),
        (0.45, float("inf")),
    ],
    ids=["ball", "above the box", "below the box", "nan", "inf"],
)
def test_an_inadmissible_point_is_rejected_and_breaks_nothing(x, x_adv):
    clean = images(x)
    y = (clean[:, 0, 0, 0] > 0.5).long()
    outcome = judge(BrightOrDark(), clean, images(x_adv), y, LINF)
    assert outcome.rejected.tolist() == [True]
    assert outcome.broken.tolist() == [False]
    assert outcome.correct.tolist() == [True]


def test_rounding_within_the_tolerance_is_admitted():
    outcome = judge(BrightOrDark(), images(0.45), images(0.45 + 0.1 + 5e-7), torch.tensor([0]), LINF)
    assert outcome.broken.tolist() == [True]


def test_l2_ball_is_measured_over_the_whole_image():
    threat = ThreatModel("l2", 0.2)
    inside, outside = images(0.45 + 0.0999), images(0.45 + 0.1001)
    for x_adv, rejected in [(inside, False), (outside, True)]:
        outcome = judge(BrightOrDark(), images(0.45), x_adv, torch.tensor([0]), threat)
        assert outcome.rejected.tolist() == [rejected]


def test_another_shape_than_the_images_is_an_error():
    with pytest.raises(RunError, match="one image for every image"):
        judge(BrightOrDark(), images(0.1, 0.2), images(0.1), torch.tensor([0, 0]), LINF)


def test_a_logit_that_is_not_a_number_names_its_sample():
    def model(x):
        logits = BrightOrDark()(x)
        logits[1] = float("nan")
        return logits

    with pytest.raises(RunError, match="sample 42"):
        predict(model, images(0.1, 0.2, 0.3), index=torch.tensor([41, 42, 43]))


@pytest.mark.parametrize("model", [lambda x: x, lambda x: x.mean(), lambda x: {"logits": x}])
def test_a_model_without_logits_is_refused(model):
    with pytest.raises(ConfigError, match=r"logits \(N, K\)"):
        predict(model, images(0.1, 0.2))
