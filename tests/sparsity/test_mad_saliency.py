"""Adversarial saliency: Kronecker factors against their looped form, bounds of the masks, and the cut."""

from typing import Any

import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from gossamer.seeding import Draws
from gossamer.sparsity import targets
from gossamer.sparsity.mad_saliency import (
    LARGEST,
    SMALLEST,
    HeldWithBiases,
    controlled,
    curvature,
    cut,
    masked_share,
    saliency,
)


def looped(module: nn.Conv2d | nn.Linear, inputs: Tensor, gradient: Tensor, delta: Tensor) -> Tensor:
    """The same from A and G themselves; delta: (C_out, columns)."""
    batch = len(inputs)
    if isinstance(module, nn.Linear):
        columns, positions = torch.cat([inputs, torch.ones(batch, 1)], dim=1), 1
        rows = gradient
    else:
        patches = F.unfold(inputs, module.kernel_size, padding=module.padding, stride=module.stride)  # type: ignore[arg-type]
        positions = patches.shape[2]
        columns = patches.transpose(1, 2).reshape(-1, patches.shape[1]) / positions
        rows = gradient.flatten(2).transpose(1, 2).reshape(-1, gradient.shape[1])
    a = columns.T @ columns / batch
    g = (rows * batch * positions).T @ (rows * batch * positions) / (batch * positions)
    found = torch.zeros_like(delta)
    for i in range(delta.shape[0]):
        for j in range(delta.shape[1]):
            found[i, j] = 0.5 * g[i, i] * delta[i, j] * sum(delta[i, k] * a[k, j] for k in range(delta.shape[1]))
    return found


def test_the_saliency_of_a_convolution_is_the_looped_form() -> None:
    torch.manual_seed(0)
    conv = nn.Conv2d(2, 3, 3, padding=1, stride=2, bias=False)
    inputs, gradient, delta = torch.randn(4, 2, 5, 5), torch.randn(4, 3, 3, 3), torch.randn(3, 2, 3, 3)
    (layer,) = targets(conv)
    found = curvature(layer, inputs, gradient, {"weight": delta})
    torch.testing.assert_close(found["weight"].flatten(1), looped(conv, inputs, gradient, delta.flatten(1)))
    assert (found["weight"] < 0).any()


def test_the_bias_of_a_linear_layer_is_one_more_input() -> None:
    torch.manual_seed(0)
    linear = nn.Linear(4, 3)
    inputs, gradient = torch.randn(6, 4), torch.randn(6, 3)
    weight, bias = torch.randn(3, 4), torch.randn(3)
    (layer,) = targets(linear)
    found = curvature(layer, inputs, gradient, {"weight": weight, "bias": bias})
    wanted = looped(linear, inputs, gradient, torch.cat([weight, bias[:, None]], dim=1))
    torch.testing.assert_close(torch.cat([found["weight"], found["bias"][:, None]], dim=1), wanted)


def test_groups_are_convolutions_of_their_own() -> None:
    torch.manual_seed(0)
    whole = nn.Conv2d(4, 4, 3, groups=2, bias=False)
    inputs, gradient, delta = torch.randn(3, 4, 5, 5), torch.randn(3, 4, 3, 3), torch.randn(4, 2, 3, 3)
    found = curvature(targets(whole)[0], inputs, gradient, {"weight": delta})["weight"]
    half = nn.Conv2d(2, 2, 3, bias=False)
    for part in (slice(0, 2), slice(2, 4)):
        expected = curvature(targets(half)[0], inputs[:, part], gradient[:, part], {"weight": delta[part]})
        torch.testing.assert_close(found[part], expected["weight"])


def test_masks_lie_between_their_bounds_and_take_nothing_where_they_never_moved() -> None:
    ends = torch.tensor([SMALLEST, LARGEST])
    torch.testing.assert_close(F.softplus(ends), torch.tensor([1e-4, 1.0]))
    torch.testing.assert_close(masked_share(ends), torch.tensor([1 - 1e-4, 0.0]))
    assert masked_share(ends)[1] == 0.0


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(1, 4, 3, bias=False), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 36, 10)).eval()


def batches(count: int) -> list[tuple[Tensor, Tensor]]:
    generator = torch.Generator().manual_seed(1)
    return [
        (torch.rand(8, 1, 8, 8, generator=generator), torch.randint(10, (8,), generator=generator))
        for _ in range(count)
    ]


def test_scores_are_the_mean_over_batches_and_leave_the_model_as_it_was() -> None:
    model = network()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    one, other = batches(2)
    scores = saliency(model, [one, other], steps=3)
    assert set(scores) == {"0.weight", "3.weight", "3.bias"}
    each = [saliency(model, [batch], steps=3) for batch in (one, other)]
    for name, score in scores.items():
        torch.testing.assert_close(score, (each[0][name] + each[1][name]) / 2)
        assert bool(score.any())
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert not any(module._forward_hooks for module in model.modules())
    assert all(parameter.requires_grad for parameter in model.parameters())


@pytest.mark.parametrize("density", [0.1, 0.37])
def test_convolutions_are_cut_together_and_linear_layers_row_by_row(density: float) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(1, 4, 3, bias=False), nn.Conv2d(4, 5, 3, bias=False), nn.Linear(20, 7))
    scores = {name: torch.randn_like(value) for name, value in model.named_parameters()}
    scores["1.weight"] -= 5.0
    cut(model, scores, density)
    kernels = [model[0].weight, model[1].weight]
    removed = int((1 - density) * 216)
    assert sum(int((weight == 0).sum()) for weight in kernels) == removed
    assert not bool((model[0].weight == 0).any()) or bool((model[1].weight == 0).all())
    head = torch.cat([model[2].weight, model[2].bias[:, None]], dim=1)
    assert (head == 0).sum(dim=1).tolist() == [int((1 - density) * 21)] * 7


def test_signs_count_and_the_later_of_ties_goes_first() -> None:
    model = nn.Sequential(nn.Conv2d(1, 1, (1, 4), bias=False))
    nn.init.ones_(model[0].weight)
    cut(model, {"0.weight": torch.tensor([0.0, -1.0, 0.0, 2.0]).view(1, 1, 1, 4)}, 0.5)
    assert model[0].weight.flatten().tolist() == [1.0, 0.0, 0.0, 1.0]


def test_the_controls_remove_the_most_salient_or_any() -> None:
    scores = {"w": torch.tensor([3.0, -1.0])}
    assert controlled(scores, "least", Draws())["w"].tolist() == [3.0, -1.0]
    assert controlled(scores, "most", Draws())["w"].tolist() == [-3.0, 1.0]
    chance = controlled({"w": torch.zeros(100)}, "random", Draws())["w"]
    assert 0.0 <= float(chance.min()) < 0.2
    assert 0.8 < float(chance.max()) < 1.0


def test_a_bias_that_was_cut_stays_zero_under_gradient_decay_and_momentum() -> None:
    model: Any = nn.Sequential(nn.Linear(2, 2))
    with torch.no_grad():
        model[0].bias.copy_(torch.tensor([0.0, 1.0]))
    held = HeldWithBiases()
    held.attach(model, Draws())
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    for step in range(2):
        optimizer.zero_grad()
        model(torch.ones(1, 2)).sum().backward()
        held.before_step(step, optimizer)
        optimizer.step()
        held.after_step(step, optimizer)
    torch.testing.assert_close(model[0].bias.detach(), torch.tensor([0.0, 1.0 - 0.1 - 0.19]))
    assert optimizer.state[model[0].bias]["momentum_buffer"][0] == 0.0
    other = HeldWithBiases()
    twin: Any = nn.Sequential(nn.Linear(2, 2))
    nn.init.ones_(twin[0].bias)
    other.attach(twin, Draws())
    other.load_state_dict(held.state_dict())
    assert [mask.tolist() for _, mask in other._biases] == [[False, True]]
