import pytest
import torch
from torch import nn

from gossamer.attacks.fgsm import FGSM
from gossamer.errors import ConfigError
from gossamer.evaluation import security_curve
from gossamer.threat import ThreatModel


class Ridge(nn.Module):
    """Class 1 only where the first pixel lies in (0.5, 0.6): a long step jumps over it."""

    def forward(self, x):
        pixel = x.flatten(1)[:, 0]
        inside = 0.05 - (pixel - 0.55).abs()
        return torch.stack([-inside, inside], dim=1)


class Shifted(nn.Module):
    """The boundary at 0.0001 instead of 0, so that pixels stop short of the box."""

    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, x):
        return self.model(x - 0.0001)


def images(*pixels):
    return torch.tensor(pixels).view(-1, 1, 1, 1).clone()


def test_curve_of_a_linear_model_falls_at_its_radii():
    model = nn.Sequential(nn.Flatten(), nn.Linear(1, 2, bias=False))
    data = images(0.05, 0.15, 0.25, 0.35), torch.ones(4, dtype=torch.int64)
    with torch.no_grad():
        model[1].weight.copy_(torch.tensor([[-1.0], [1.0]]))
    curve = security_curve(Shifted(model), data, "fgsm", [0.04, 0.1, 0.2, 0.3])
    assert curve.eps == (0.04, 0.1, 0.2, 0.3)
    assert [outcome.robust for outcome in curve.raw] == [(1, 1, 1, 1), (0, 1, 1, 1), (0, 0, 1, 1), (0, 0, 0, 1)]
    assert [outcome.robust_accuracy for outcome in curve.cumulative] == [1.0, 0.75, 0.5, 0.25]


def test_once_broken_stays_broken_in_the_cumulative_curve_alone():
    data = images(0.45, 0.3), torch.tensor([0, 0])
    curve = security_curve(Ridge(), data, FGSM(threat=ThreatModel("linf", 0.1)), [0.02, 0.1, 0.25])
    assert [outcome.robust for outcome in curve.raw] == [(1, 1), (0, 1), (1, 0)]
    assert [outcome.robust for outcome in curve.cumulative] == [(1, 1), (0, 1), (0, 0)]
    assert curve.evaluation.robust_accuracy == curve.cumulative[-1].robust_accuracy == 0
    assert curve.evaluation.eps == 0.25
    assert {outcome.kind for outcome in curve.raw} == {"curve"}


@pytest.mark.parametrize("eps_list", [[], [0.0, 0.1], [0.2, 0.1], [0.1, 0.1]])
def test_eps_that_do_not_rise_from_above_zero_are_refused(eps_list):
    with pytest.raises(ConfigError, match="eps list"):
        security_curve(Ridge(), (images(0.1), torch.tensor([0])), "fgsm", eps_list)
