from pathlib import Path

import pytest
import torch
from torch import nn

import phases_on_digits as small
from gossamer.errors import ConfigError, RunError
from gossamer.methods.channels import Channels
from gossamer.models.registry import build
from gossamer.runs import atomic
from gossamer.sparsity import targets
from gossamer.sparsity.forms import form
from gossamer.sparsity.slim import resize
from gossamer.training.run import run_phases
from gossamer.training.scene import Scene

pytest.importorskip("torch_pruning")


def weights(model: nn.Module) -> int:
    return sum(layer.size for layer in targets(model))


def slimmed(name: str, density: float, tmp_path: Path, **options: object) -> tuple[nn.Module, nn.Module]:
    """Return a network with channels removed, and its dense parent; names of the package on images of CIFAR's shape."""
    torch.manual_seed(0)
    parent = build(name, num_classes=10, in_channels=1, image_size=8, **options)
    model = build(name, num_classes=10, in_channels=1, image_size=8, **options)
    phase = Channels(density=density).phases(small.phase(), name)[1]
    scene = small.scene(phase, small.job(tmp_path / "run"), {"pretrain.end": parent.state_dict()})
    phase.start(model, scene)
    return model, parent


def test_channels_go_and_the_largest_ones_stay(tmp_path: Path) -> None:
    model, parent = slimmed("digits-cnn", 0.3, tmp_path)
    assert 0.25 * weights(parent) < weights(model) <= 0.3 * weights(parent)
    first = dict(parent.named_parameters())["conv1.weight"]
    left = dict(model.named_parameters())["conv1.weight"]
    # Every filter that is left is a filter of the parent, whole.
    assert left.shape[1:] == first.shape[1:]
    rows = {tuple(filter_.flatten().tolist()) for filter_ in first.detach()}
    assert all(tuple(filter_.flatten().tolist()) in rows for filter_ in left.detach())


def test_the_smaller_network_trains_and_comes_back_from_its_file(tmp_path: Path) -> None:
    phases = Channels(density=0.3, finetune_epochs=1).phases(small.phase(epochs=1), "digits-cnn")
    job = small.job(tmp_path / "run")
    run_phases(phases, small.network, job)
    path = job.run.state("final")
    about = atomic.read_about(path)
    assert (about["form"], about["kind"], about["dense_weights"]) == ("slim", "restructured", "58656")
    back = form("slim").rebuild(small.network(), atomic.read_safetensors(path))
    assert weights(back) <= 0.3 * 58_656
    assert back(torch.rand(3, 1, 8, 8)).shape == (3, 10)


@pytest.mark.parametrize(("name", "options"), [("resnet20", {"shortcut": "B"}), ("mobilenetv2", {})])
def test_networks_of_shortcuts_and_depthwise_layers_fit_together(
    name: str, options: dict[str, object], tmp_path: Path
) -> None:
    model, parent = slimmed(name, 0.4, tmp_path, **options)
    assert weights(model) <= 0.4 * weights(parent)
    x = torch.rand(2, 1, 8, 8)
    back = resize(build(name, num_classes=10, in_channels=1, image_size=8, **options), model.state_dict())
    assert torch.equal(back(x), model.eval()(x))


def test_padded_shortcuts_are_refused_with_a_way_out(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="shortcut: B"):
        slimmed("resnet20", 0.4, tmp_path)


def test_a_density_that_leaves_no_channel_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"method\.density"):
        slimmed("digits-cnn", 1e-4, tmp_path)


def test_tensors_of_another_network_are_refused() -> None:
    class Scaled(nn.Module):
        def __init__(self, n: int) -> None:
            super().__init__()
            self.scale = nn.Parameter(torch.ones(n))

    with pytest.raises(RunError, match="scale"):
        resize(Scaled(3), Scaled(2).state_dict())


def test_what_cannot_be_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"method\.finetune_epochs"):
        Channels(density=0.1, finetune_epochs=0)
    with pytest.raises(ConfigError, match=r"method\.finetune_lr"):
        Channels(density=0.1, finetune_lr=0.0)


def test_starting_needs_what_came_before(tmp_path: Path) -> None:
    phase = Channels(density=0.3).phases(small.phase(), "digits-cnn")[1]
    scene: Scene = small.scene(phase, small.job(tmp_path / "run"))
    with pytest.raises(RunError, match=r"pretrain\.end"):
        phase.start(small.network(), scene)
