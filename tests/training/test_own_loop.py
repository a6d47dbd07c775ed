"""A module in its owner's own loop: two lines make it robust and sparse."""

import gc
import weakref

import pytest
import torch
from torch import nn

import gossamer
from gossamer.errors import ConfigError, DataError


def _net() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten(), nn.Linear(512, 10)
    )


def _batch() -> tuple[torch.Tensor, torch.Tensor]:
    data = gossamer.load_data("digits", "train")
    positions = torch.arange(64)
    return data.float(positions), data.labels[positions]


def _train(model: nn.Module, method: str, steps: int) -> tuple[object, list[float]]:
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9, weight_decay=1e-3)
    sparsifier = gossamer.sparsify(model, optimizer, density=0.2, method=method)
    x, y = _batch()
    losses: list[float] = []
    for _ in range(steps):
        loss = gossamer.robust_loss(model, x, y, threat="linf:0.05")
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return sparsifier, losses


def test_momentum_of_dense_weights_wakes_no_connection() -> None:
    """Theta of a dormant connection is zero without a gradient: what moved the weight before must not move it."""
    model = _net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    x, y = _batch()
    for _ in range(5):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(x), y).backward()
        optimizer.step()
    sparsifier = gossamer.sparsify(model, optimizer, density=0.1)
    optimizer.zero_grad()
    nn.functional.cross_entropy(model(x), y).backward()
    optimizer.step()
    assert sparsifier.masks().density == pytest.approx(0.1, rel=0.1)


def test_a_copy_to_craft_on_is_made_anew_where_the_module_moved() -> None:
    model = _net()
    x, y = _batch()
    gossamer.robust_loss(model, x, y, threat="linf:0.05").backward()
    gossamer.robust_loss(model.double(), x.double(), y, threat="linf:0.05").backward()


@pytest.mark.parametrize("method", ["bcs", "magnitude", "random", "scores"])
def test_two_lines_train_a_sparse_network(method: str) -> None:
    model = _net()
    sparsifier, losses = _train(model, method, 25)
    shipped = sparsifier.finalize(model)  # type: ignore[attr-defined]
    budget = {"bcs": int(0.2 * 5192), "magnitude": int(0.2 * 5192), "random": int(0.2 * 72) + int(0.2 * 5120)}
    budget["scores"] = budget["random"]
    assert shipped.masks.kept == budget[method]
    assert losses[-1] < 0.8 * losses[0]
    _net().load_state_dict(shipped.module.state_dict())


def test_the_optimiser_moves_the_tensors_it_held_before() -> None:
    model = _net()
    held = list(model.parameters())
    optimizer = torch.optim.SGD(held, lr=0.1)
    gossamer.sparsify(model, optimizer, density=0.5)
    assert {id(p) for p in model.parameters()} == {id(p) for p in held}


def test_robust_loss_leaves_modes_and_gradients_alone_and_follows_the_global_seed() -> None:
    model = _net()
    x, y = _batch()
    before = {name: value.clone() for name, value in model.state_dict().items() if "running" not in name}
    torch.manual_seed(3)
    first = gossamer.robust_loss(model, x, y, threat="linf:0.05", objective="adversarial")
    # The first loss moved the running statistics, as any forward of a model in training does: take a fresh model.
    twin = _net()
    torch.manual_seed(3)
    again = gossamer.robust_loss(twin, x, y, threat="linf:0.05", objective="adversarial")
    assert first.item() == again.item()
    assert model.training
    assert all(parameter.grad is None for parameter in model.parameters())
    assert all(torch.equal(model.state_dict()[n], v) for n, v in before.items() if "num_batches" not in n)


def test_batch_norm_stands_in_crafting_as_the_objective_was_published() -> None:
    def seen(**said: str) -> int:
        model = _net().train()
        gossamer.robust_loss(model, *_batch(), threat="linf:0.05", seed=1, **said)  # type: ignore[arg-type]
        return int(model[1].num_batches_tracked)

    # One forward for the loss, and one for the single step where batch norm trains in it.
    assert seen(objective="fast-at") == 2
    assert seen(objective="fast-at", attack_bn="eval") == seen(objective="adversarial") == 1


def test_a_forgotten_model_is_freed() -> None:
    model = _net()
    x, y = _batch()
    gossamer.robust_loss(model, x, y, threat="linf:0.05")
    gone = weakref.ref(model)
    del model
    gc.collect()
    assert gone() is None


def test_images_in_0_to_255_are_refused() -> None:
    x, y = _batch()
    with pytest.raises(DataError, match=r"divide by 255"):
        gossamer.robust_loss(_net(), x * 255, y, threat="linf:8/255")


def test_unknown_method_and_density_are_refused() -> None:
    model = _net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with pytest.raises(ConfigError, match="bcs"):
        gossamer.sparsify(model, optimizer, density=0.1, method="magic")
    with pytest.raises(ConfigError, match=r"write 0\.1 for 10 %"):
        gossamer.sparsify(model, optimizer, density=10)
    with pytest.raises(ConfigError, match="density: expected at least one of"):
        gossamer.sparsify(model, optimizer, density=1e-9)
