"""Input gradients and Grad-CAM against numbers worked out by hand, on networks that come back as they were."""

import sys

import pytest
import torch
from evaluation_toys import convnet, gen
from torch import nn

from gossamer.attacks.fgsm import FGSM
from gossamer.attacks.pgd import PGD
from gossamer.data import from_tensors
from gossamer.errors import ConfigError, RunError
from gossamer.evaluation.explanations import explain, grad_cam, input_gradient
from gossamer.models.digits import digits_cnn
from gossamer.seeding import derive
from gossamer.sparsity.factor_layers import replace_layer
from gossamer.threat import ThreatModel

pytest.importorskip("captum")
THREAT = ThreatModel("linf", 0.1)


def images(n=8, shape=(2, 6, 6), labels=None):
    x = (torch.rand(n, *shape, generator=gen(1)) * 255).round().to(torch.uint8)
    y = torch.tensor(labels) if labels else torch.arange(n) % 3
    return from_tensors(x, y, classes=["a", "b", "c"], part="test")


def linear(shape=(1, 2, 3), classes=3):
    model = nn.Sequential(nn.Flatten(), nn.Linear(6, classes))
    with torch.no_grad():
        model[1].weight.copy_(torch.randn(classes, 6, generator=gen(2)))
    return model


class TwoPlaces(nn.Module):
    """Channels x and 1 - x, whose means are subtracted: the logit of class 0 is 4 (mean x - mean (1 - x))."""

    def __init__(self, stride=1):
        super().__init__()
        self.conv = nn.Conv2d(1, 2, stride, stride)
        self.fc = nn.Linear(2, 2, bias=False)
        with torch.no_grad():
            self.conv.weight.copy_(torch.tensor([1.0, -1.0]).view(2, 1, 1, 1).expand(2, 1, stride, stride) / stride**2)
            self.conv.bias.copy_(torch.tensor([0.0, 1.0]))
            self.fc.weight.copy_(torch.tensor([[4.0, -4.0], [-4.0, 4.0]]))

    def forward(self, x):
        return self.fc(self.conv(x).mean(dim=(2, 3)))


class Noisy(nn.Module):
    """A linear layer whose weights are drawn anew at each pass."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(2, 3, 3)
        with torch.no_grad():
            self.conv.weight.copy_(torch.randn(3, 2, 3, 3, generator=gen(3)))

    def forward(self, x):
        scale = 1 + 0.5 * torch.randn(3)
        return self.conv(x).mean(dim=(2, 3)) * scale


def test_of_a_linear_model_the_gradient_is_the_row_of_the_label():
    model, x, y = linear(), torch.rand(4, 1, 2, 3, generator=gen(4)), torch.tensor([2, 0, 1, 2])
    assert torch.equal(input_gradient(model, x, y), model[1].weight.detach()[y].view(4, 1, 2, 3))
    found = explain(model, images(4, (1, 2, 3), [2, 0, 1, 2]), FGSM(threat=THREAT), n=4)
    assert found.about.labels == (0, 1, 2, 2)
    expected = model[1].weight.detach()[torch.tensor(found.about.labels)].view(4, 2, 3)
    assert torch.equal(found.clean_gradients, expected)
    assert torch.equal(found.adversarial_gradients, expected)
    # Of a linear model one step reaches the worst place of the ball where the loss is that of two classes.
    two = linear(classes=2)
    attacked = explain(two, (torch.full((1, 1, 2, 3), 0.5), torch.tensor([0])), FGSM(threat=THREAT), n=1).adversarial
    away = (two[1].weight[1] - two[1].weight[0]).detach().sign().view(1, 1, 2, 3)
    assert torch.allclose(attacked, 0.5 + 0.1 * away)


def test_gradients_are_summed_over_the_channels_of_a_pixel():
    data = images(3)
    found = explain(convnet().eval(), data, FGSM(threat=THREAT), n=3)
    each = input_gradient(convnet().eval(), data.float(torch.arange(3)), data.labels)
    assert torch.allclose(found.clean_gradients, each.sum(dim=1), atol=1e-6)
    assert found.about.index == (0, 1, 2)


def test_grad_cam_by_hand():
    x = torch.tensor([[0.1, 0.5], [0.8, 1.0]]).expand(2, 1, 2, 2)
    model = TwoPlaces()
    # Both channels' mean gradients are +1 and -1: x - (1 - x) for class 0, its opposite for class 1.
    expected = torch.stack([(2 * x[0, 0] - 1).relu(), (1 - 2 * x[0, 0]).relu()])
    assert torch.allclose(grad_cam(model, model.conv, x, torch.tensor([0, 1])), expected)


def test_grad_cam_is_brought_to_the_size_of_the_image():
    x = torch.tensor([[0.0, 0.6], [0.8, 1.0]]).repeat_interleave(2, 0).repeat_interleave(2, 1).expand(1, 1, 4, 4)
    model = TwoPlaces(stride=2)
    found = grad_cam(model, model.conv, x, torch.tensor([0]))[0]
    assert torch.allclose(found[[0, 0, 3, 3], [0, 3, 0, 3]], torch.tensor([0.0, 0.2, 0.6, 1.0]))
    assert torch.allclose(found[0], torch.tensor([0.0, 0.05, 0.15, 0.2]))


def test_the_images_are_the_first_of_each_class_in_turn_whatever_the_model():
    data = images(9, labels=[1, 1, 1, 0, 2, 0, 1, 2, 0])
    for seed in (0, 1):
        about = explain(convnet(seed), data, FGSM(threat=THREAT), n=5).about
        assert about.index == (3, 0, 4, 5, 1)
        assert about.labels == (0, 1, 2, 0, 1)
        assert about.dataset.n == 5
        assert about.dataset.selection == "the first of each class in turn"
        assert about.layer == "3"


def test_what_the_network_says_and_what_was_attacked():
    model, data = convnet(), images(6)
    attack = PGD(threat=THREAT, steps=5)
    found = explain(model, data, attack, n=6, seed=3)
    clean = found.images.float() / 255
    assert torch.equal(found.images, data.images[torch.tensor(found.about.index)])
    assert bool(((found.adversarial - clean).abs() <= 0.1 + 1e-6).all())
    said = model.eval()(found.adversarial).softmax(dim=1).max(dim=1)
    assert found.about.adversarial_predictions == tuple(said.indices.tolist())
    assert found.about.adversarial_confidences == pytest.approx(tuple(said.values.tolist()), abs=1e-5)
    assert (found.about.attack, found.about.threat, found.about.passes) == ("pgd", "linf:0.1", 1)
    assert found.about.attack_parameters["steps"] == 5
    assert not torch.equal(found.clean_cams, found.adversarial_cams)


def test_a_point_outside_the_threat_is_shown_as_the_clean_image():
    class Outside:
        threat = THREAT

        def __call__(self, model, x, y, *, draws=None):
            return x + 0.5

    found = explain(convnet(), images(2), Outside(), n=2)
    assert torch.equal(found.adversarial, found.images.float() / 255)
    assert torch.equal(found.clean_gradients, found.adversarial_gradients)


def test_the_model_comes_back_as_it_was():
    model = convnet().train()
    model[0].weight.requires_grad_(False)
    model[1].eval()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    torch.manual_seed(5)
    state = torch.get_rng_state()
    explain(model, images(3), FGSM(threat=THREAT), n=3)
    assert [module.training for module in model] == [True, False, True, True, True, True]
    assert [each.requires_grad for each in model.parameters()] == [False] + [True] * 7
    assert all(each.grad is None for each in model.parameters())
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())
    hooks = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
    assert not [name for module in model.modules() for name in hooks if getattr(module, name)]
    assert torch.equal(torch.get_rng_state(), state)


def test_noise_is_averaged_over_fixed_draws():
    model, data, attack = Noisy(), images(4), PGD(threat=THREAT, steps=2)
    first, again = (explain(model, data, attack, n=3, passes=5) for _ in range(2))
    assert first.about == again.about
    assert first.about.passes == 5
    assert torch.equal(first.clean_gradients, again.clean_gradients)
    assert torch.equal(first.adversarial_cams, again.adversarial_cams)
    # The logit is linear in the noise: its gradient is that without noise, times the mean of the draws.
    quiet = input_gradient(nn.Sequential(model.conv, nn.AdaptiveAvgPool2d(1), nn.Flatten()), *_three(data)).sum(dim=1)
    for row, label in enumerate(first.about.labels):
        seeds = [derive(0, "explain", "sample", row, "pass", number) for number in range(5)]
        scale = torch.stack([1 + 0.5 * torch.randn(3, generator=gen(seed)) for seed in seeds]).mean(dim=0)[label]
        assert torch.allclose(first.clean_gradients[row], scale * quiet[row], atol=1e-6)
    # Neither the number of images nor what is drawn before decides what noise an image is shown with.
    torch.rand(3)
    assert torch.equal(explain(model, data, attack, n=1, passes=5).clean_gradients, first.clean_gradients[:1])
    assert not torch.equal(explain(model, data, attack, n=3, passes=5, seed=1).clean_gradients, first.clean_gradients)


def _three(data):
    return data.float(torch.arange(3)), data.labels[:3]


def test_without_a_convolution_that_has_places_gradients_alone():
    pooled = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Conv2d(2, 3, 1), nn.Flatten())
    for model in (nn.Sequential(nn.Flatten(), nn.Linear(72, 3)), pooled):
        found = explain(model, images(3), FGSM(threat=THREAT), n=3)
        assert (found.clean_cams, found.adversarial_cams, found.about.layer) == (None, None, None)
        assert found.about.reason == "no convolution has an output of more than one place"
        assert found.clean_gradients.abs().sum() > 0


def test_a_layer_can_be_named():
    model = convnet().eval()
    found = explain(model, images(3), FGSM(threat=THREAT), n=3, layer="2")
    x, y = images(3).float(torch.arange(3)), images(3).labels
    assert found.about.layer == "2"
    assert torch.allclose(found.clean_cams, grad_cam(model, model[2], x, y), atol=1e-6)
    for name, got in (("conv9", "no layer of that name"), ("5", "a layer without")):
        with pytest.raises(ConfigError) as told:
            explain(model, images(3), FGSM(threat=THREAT), n=3, layer=name)
        assert told.value.subject == f"--layer {name}"
        assert told.value.got == got
        assert told.value.expected.endswith("0, 1, 2, 3")


def test_a_factor_layer_counts_as_the_convolution_that_it_stands_for():
    model = digits_cnn()
    replace_layer(model, next(name for name, _ in model.named_modules() if name.endswith("conv3")))
    data = images(3, (1, 8, 8))
    assert explain(model, data, FGSM(threat=THREAT), n=3).about.layer.endswith("conv3")


def test_impossible_arguments():
    def attempt(**options):
        return explain(convnet(), images(3), FGSM(threat=THREAT), **options)

    for n in (0, 4):
        with pytest.raises(ConfigError, match=r"\[1, 3\]"):
            attempt(n=n)
    with pytest.raises(ConfigError, match="passes"):
        attempt(n=3, passes=0)

    class Broken(nn.Module):
        """Finite logits whose gradient at 0 is infinite."""

        def forward(self, x):
            return x.flatten(1)[:, :3].sqrt()

    black = (torch.zeros(3, 1, 2, 2), torch.arange(3))
    with pytest.raises(RunError, match="explanation of sample 0"):
        explain(Broken(), black, FGSM(threat=ThreatModel("linf", 0.0)), n=1)


def test_without_captum_one_error_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "captum.attr", None)
    with pytest.raises(ConfigError, match=r"pip install 'gossamer\[explain\]'"):
        explain(convnet(), images(3), FGSM(threat=THREAT))
