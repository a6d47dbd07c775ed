import torch
from torch import nn

from gossamer.attacks.pgd import PGD
from gossamer.data import from_tensors
from gossamer.evaluation import make_panel
from gossamer.seeding import Draws
from gossamer.threat import ThreatModel

THREAT = ThreatModel("linf", 0.1)


class Brightest(nn.Module):
    """Three classes: which of the three pixels is brightest."""

    def forward(self, x):
        return 10 * x.flatten(1)


def dataset(n=60):
    x = (torch.rand(n, 1, 1, 3, generator=torch.Generator().manual_seed(0)) * 255).to(torch.uint8)
    y = x.flatten(1).argmax(dim=1)
    y[::5] = (y[::5] + 1) % 3
    return from_tensors(x, y, classes=["left", "middle", "right"])


def panel(**options):
    options = {"draws": Draws(1), **options}
    return make_panel(Brightest(), dataset(), PGD(threat=THREAT), **options)


def test_right_samples_of_every_class_in_turn():
    captions = panel(count=6).captions
    assert captions.labels == captions.clean_predictions == (0, 1, 2, 0, 1, 2)
    assert captions.classes == ("left", "middle", "right")
    assert captions.threat == "linf:0.1"


def test_pictures_and_opinions_belong_together():
    made = panel(count=5)
    clean = made.images.float() / 255
    assert bool(((made.adversarial - clean).abs() <= 0.1 + 1e-6).all())
    confidences = Brightest()(made.adversarial).softmax(dim=1).max(dim=1)
    assert made.captions.adversarial_predictions == tuple(confidences.indices.tolist())
    assert made.captions.adversarial_confidences == tuple(confidences.values.tolist())


def test_ladder_climbs_from_the_clean_image():
    made = panel(eps_ladder=[0, 0.05, 0.3])
    distances = (made.ladder - made.images[:1].float() / 255).abs().amax(dim=(1, 2, 3))
    assert distances.tolist()[0] == 0
    assert 0 < float(distances[1]) <= 0.05 + 1e-6 < float(distances[2]) <= 0.3 + 1e-6
    assert made.captions.ladder.eps == (0, 0.05, 0.3)
    assert made.captions.ladder.predictions[0] == made.captions.clean_predictions[0]


def test_default_ladder_is_in_multiples_of_eps_within_the_pixel_range():
    assert panel().captions.ladder.eps == (0.0, 0.025, 0.05, 0.1, 0.2, 0.4)
    wide = make_panel(Brightest(), dataset(), PGD(threat=ThreatModel("linf", 0.5)), draws=Draws())
    assert wide.captions.ladder.eps == (0.0, 0.125, 0.25, 0.5, 1.0)


def test_no_ladder_when_none_is_asked_for_and_the_same_panel_twice():
    first, second = panel(eps_ladder=()), panel(eps_ladder=())
    assert first.ladder is None
    assert first.captions == second.captions
    assert torch.equal(first.adversarial, second.adversarial)


def test_fewer_samples_than_asked_for():
    made = make_panel(Brightest(), dataset(4), PGD(threat=THREAT), draws=Draws(), count=8)
    assert len(made.captions.labels) == 4
