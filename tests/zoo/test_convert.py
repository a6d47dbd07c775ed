import copy
import json
import os
from pathlib import Path

import pytest
import torch
from layout_nets import (
    VGG,
    BottleneckBlock,
    PostBlock,
    PreBlock,
    ResNet,
    WideResNet,
    lively,
    pruned,
    scored,
)
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

import gossamer
from gossamer.cli.main import main
from gossamer.data import from_tensors
from gossamer.deploy.sparse_file import MOST_NUMBERS
from gossamer.errors import ConfigError, DataError, RunError
from gossamer.runs import atomic
from gossamer.zoo.convert import check_clean, convert
from gossamer.zoo.layouts import LAYOUTS, rename, unused

IMAGES = torch.rand(3, 3, 32, 32, generator=torch.Generator().manual_seed(1))


def saved(path: Path, content: object) -> Path:
    torch.save(content, path)
    return path


def hydra(model: nn.Module, prefix: str = "module.") -> dict[str, object]:
    """Return a checkpoint as HYDRA's training writes it."""
    return {
        "epoch": 100,
        "arch": "some_net",
        "state_dict": {f"{prefix}{name}": tensor for name, tensor in model.state_dict().items()},
        "best_prec1": torch.tensor(51.2),
        "optimizer": torch.optim.SGD(model.parameters(), lr=0.1).state_dict(),
    }


def assert_same_logits(reference: nn.Module, converted: nn.Module) -> None:
    with torch.no_grad():
        expected, got = reference(IMAGES), converted(IMAGES)
    assert expected.abs().max() > 0
    torch.testing.assert_close(got, expected, rtol=0, atol=1e-5 * float(expected.abs().max()))


@pytest.mark.parametrize(
    ("layout", "model", "make"),
    [
        ("hydra", "resnet18", lambda: ResNet(PostBlock, (2, 2, 2, 2), 8)),
        pytest.param("hydra", "resnet34", lambda: ResNet(PostBlock, (3, 4, 6, 3), 8, 7), marks=pytest.mark.long),
        pytest.param("hydra", "resnet50", lambda: ResNet(BottleneckBlock, (3, 4, 6, 3), 8), marks=pytest.mark.long),
        ("hydra", "wideresnet28", lambda: WideResNet(sub_block1=True)),
        ("hydra", "vgg16", VGG),
        ("robustbench-resnet", "resnet18", lambda: ResNet(PostBlock, (2, 2, 2, 2), 16, 100)),
        ("robustbench-wideresnet", "wideresnet28", lambda: WideResNet(width=3)),
        ("hydra", "wideresnet", lambda: WideResNet(34, 2, sub_block1=True)),
        ("robustbench-wideresnet", "wideresnet", lambda: WideResNet(10, 1, 7)),
        ("robustbench-wideresnet", "wideresnet", lambda: WideResNet(70, 1, sub_block1=True)),
        ("robustbench-preact-v2", "preact-resnet18", lambda: ResNet(PreBlock, (2, 2, 2, 2), 8, pre=True)),
    ],
)
def test_a_converted_network_computes_what_the_original_does(tmp_path: Path, layout: str, model: str, make):
    torch.manual_seed(0)
    reference = lively(make())
    found = convert(saved(tmp_path / "net.pth", hydra(reference)), layout=layout, model=model)
    assert_same_logits(reference, found.module)
    unused = sum(parameter.numel() for name, parameter in reference.named_parameters() if "sub_block1" in name)
    assert found.parameters == sum(parameter.numel() for parameter in reference.parameters()) - unused
    assert not found.module.training
    assert "left out: epoch, arch, best_prec1, optimizer" in found.notes
    assert any("sub_block1" in note for note in found.notes) == bool(unused)


def test_the_published_sizes_are_the_package_s(tmp_path: Path):
    with torch.device("meta"):
        shapes = ResNet(PostBlock, (2, 2, 2, 2), 64).state_dict()
    state = {name: torch.zeros(tensor.shape, dtype=tensor.dtype) for name, tensor in shapes.items()}
    found = convert(saved(tmp_path / "net.pt", state), layout="robustbench-resnet", model="resnet18")
    assert (found.parameters, found.weights, found.nonzero) == (11_173_962, 11_164_352, 0)
    assert found.options["width"] == 1.0


@pytest.mark.parametrize(("depth", "width"), [(28, 10), (34, 10), (34, 20), (70, 16)])
def test_depth_and_width_of_a_wideresnet_are_read_off_its_tensors(depth: int, width: int):
    with torch.device("meta"):
        reference = WideResNet(depth, width, sub_block1=True)
        tensors = reference.state_dict()
        source = LAYOUTS["robustbench-wideresnet"].models["wideresnet"]
        options = source.options(tensors)
        assert options == {"num_classes": 10, "in_channels": 3, "depth": depth, "width": width}
        ours = gossamer.models.build("wideresnet", **options).state_dict()
    used = {rename(source, name): tensor.shape for name, tensor in tensors.items() if unused(source, name) is None}
    assert used == {name: tensor.shape for name, tensor in ours.items() if not name.startswith("normalize.")}


@pytest.mark.parametrize("k", [1.0, 0.1, 0.013])
def test_hydra_s_scores_cut_the_weights_as_its_forward_does(tmp_path: Path, k: float):
    torch.manual_seed(0)
    reference = scored(lively(WideResNet(sub_block1=True)))
    path = saved(tmp_path / "net.pth.tar", hydra(reference))
    found = convert(path, layout="hydra", model="wideresnet28", density=k)
    masked = pruned(copy.deepcopy(reference), k)
    assert_same_logits(masked, found.module)
    kernels = [m for name, m in masked.named_modules() if isinstance(m, nn.Conv2d | nn.Linear) and "sub_b" not in name]
    assert found.nonzero == sum(int(each.weight.count_nonzero()) for each in kernels)
    assert found.nonzero == sum(n - int((1 - k) * n) for n in (each.weight.numel() for each in kernels))
    assert found.notes[0].startswith(f"{len(kernels)} layers cut")


def test_the_share_that_scores_keep_must_be_said(tmp_path: Path):
    path = saved(tmp_path / "net.pth", hydra(scored(WideResNet())))
    with pytest.raises(ConfigError, match="the share k of each layer"):
        convert(path, layout="hydra", model="wideresnet28")
    for wrong in (0.0, 1.5, -0.1):
        with pytest.raises(ConfigError, match=r"a share in \(0, 1\]"):
            convert(path, layout="hydra", model="wideresnet28", density=wrong)
    dense = saved(tmp_path / "dense.pth", hydra(WideResNet()))
    with pytest.raises(ConfigError, match="a checkpoint with popup_scores"):
        convert(dense, layout="hydra", model="wideresnet28", density=0.1)
    with pytest.raises(ConfigError, match="this layout has no scores"):
        convert(dense, layout="robustbench-wideresnet", model="wideresnet28", density=0.1)
    with pytest.raises(DataError, match="popup_scores"):
        convert(path, layout="robustbench-wideresnet", model="wideresnet28")


def test_tied_scores_are_told(tmp_path: Path):
    model = scored(WideResNet())
    model.fc.popup_scores.data.fill_(0.5)  # type: ignore[union-attr,operator]
    found = convert(saved(tmp_path / "n.pth", hydra(model)), layout="hydra", model="wideresnet28", density=0.5)
    assert any(note.startswith("1 layers have tied scores") for note in found.notes)


@pytest.mark.parametrize(
    ("prefix", "key"), [("", None), ("module.", "state_dict"), ("model.", "model_state_dict"), ("module.model.", "net")]
)
def test_wrappers_are_taken_off(tmp_path: Path, prefix: str, key: str | None):
    reference = lively(WideResNet(width=2))
    state = {f"{prefix}{name}": tensor for name, tensor in reference.state_dict().items()}
    path = saved(tmp_path / "net.pt", state if key is None else {key: state})
    assert_same_logits(reference, convert(path, layout="robustbench-wideresnet", model="wideresnet28").module)


class Normalised(nn.Module):
    """A network behind a normalisation whose statistics are buffers, as RobustBench's wrappers keep them."""

    def __init__(self, inner: nn.Module, first: str, second: str) -> None:
        super().__init__()
        self.inner = inner
        self.statistics = {
            first: torch.tensor([0.5, 0.4, 0.3]).view(1, 3, 1, 1),
            second: torch.tensor([0.2, 0.25, 0.3]).view(1, 3, 1, 1),
        }

    def forward(self, x: Tensor) -> Tensor:
        mean, std = self.statistics.values()
        return self.inner((x - mean) / std)

    def checkpoint(self, prefix: str) -> dict[str, Tensor]:
        return self.statistics | {f"{prefix}{name}": tensor for name, tensor in self.inner.state_dict().items()}


@pytest.mark.parametrize(("names", "prefix"), [(("mu", "sigma"), ""), (("mean", "std"), "model.")])
def test_statistics_in_the_file_go_into_the_network(tmp_path: Path, names: tuple[str, str], prefix: str):
    reference = Normalised(lively(ResNet(PreBlock, (2, 2, 2, 2), 8, pre=True)), *names).eval()
    path = saved(tmp_path / "net.pt", reference.checkpoint(prefix))
    found = convert(path, layout="robustbench-preact-v2", model="preact-resnet18")
    assert_same_logits(reference, found.module)
    assert sum("normalised with the checkpoint's own" in note for note in found.notes) == 2
    with pytest.raises(ConfigError, match="the checkpoint holds its own"):
        convert(path, layout="robustbench-preact-v2", model="preact-resnet18", mean=[0, 0, 0], std=[1, 1, 1])
    plain = saved(tmp_path / "plain.pt", reference.inner.state_dict())
    given = {"mean": [0.5, 0.4, 0.3], "std": [0.2, 0.25, 0.3]}
    told = convert(plain, layout="robustbench-preact-v2", model="preact-resnet18", **given)  # type: ignore[arg-type]
    assert_same_logits(reference, told.module)
    with pytest.raises(ConfigError, match="both or neither"):
        convert(plain, layout="robustbench-preact-v2", model="preact-resnet18", mean=[0.5, 0.4, 0.3])


def test_a_deep_network_behind_wrappers_is_found(tmp_path: Path):
    """DataParallel around a normalisation around the network, as training codes save it."""
    reference = Normalised(lively(WideResNet(34, 1, 20, sub_block1=True)), "normalize.mean", "normalize.std").eval()
    state = {f"module.{name}": tensor for name, tensor in reference.checkpoint("model.").items()}
    path = saved(tmp_path / "net.pt", {"model_state_dict": state, "epoch": 76})
    found = convert(path, layout="robustbench-wideresnet", model="wideresnet")
    assert_same_logits(reference, found.module)
    assert {name: found.options[name] for name in ("depth", "width", "num_classes")} == {
        "depth": 34,
        "width": 1,
        "num_classes": 20,
    }
    assert found.options["mean"] == pytest.approx([0.5, 0.4, 0.3])
    assert any("sub_block1" in note for note in found.notes)


def test_another_preact_network_of_the_same_names_is_warned_of(tmp_path: Path):
    torch.manual_seed(0)
    other = lively(
        ResNet(lambda i, o, s: PreBlock(i, o, s, activated=False), (2, 2, 2, 2), 8, pre=True)  # type: ignore[arg-type]
    )
    found = convert(
        saved(tmp_path / "n.pt", other.state_dict()), layout="robustbench-preact-v2", model="preact-resnet18"
    )
    assert any("--expect-clean" in note for note in found.notes)
    with torch.no_grad():
        assert not torch.allclose(found.module(IMAGES), other(IMAGES), atol=1e-3)
    bare = ResNet(PreBlock, (2, 2, 2, 2), 8, pre=True, bn=False)
    with pytest.raises(DataError, match=r"none for bn\.weight"):
        convert(saved(tmp_path / "b.pt", bare.state_dict()), layout="robustbench-preact-v2", model="preact-resnet18")


def test_what_does_not_fit_is_named(tmp_path: Path):
    def refused(state: dict[str, Tensor], told: str) -> None:
        with pytest.raises(DataError, match=told):
            convert(saved(tmp_path / "n.pt", state), layout="robustbench-wideresnet", model="wideresnet28")

    state = WideResNet().state_dict()
    refused({**state, "logits.weight": torch.zeros(1), "act.alpha": torch.zeros(1)}, "logits.weight, act.alpha")
    refused({name: each for name, each in state.items() if "block2.layer.1.bn2" not in name}, r"layer2\.1\.bn2\.weight")
    refused(
        {**state, "block1.layer.1.conv1.weight": torch.zeros(3, 3)}, r"layer1\.1\.conv1\.weight \(3, 3\) instead of"
    )
    refused(WideResNet(bias=False).state_dict(), r"none for fc\.bias")
    refused(WideResNet(34, 1).state_dict(), "a WideResNet of 28 layers.*got one of 34 layers.*--model wideresnet")
    refused(WideResNet(70, 1).state_dict(), "got one of 70 layers")
    refused(ResNet(PostBlock, (2, 2, 2, 2), 8).state_dict(), r"a tensor fc\.weight of the layout")
    refused({}, "an empty one")
    path = saved(tmp_path / "uneven.pt", {k: v for k, v in WideResNet(16).state_dict().items() if "2.layer.1" not in k})
    with pytest.raises(DataError, match=r"none for layer2\.1\.bn1\.weight"):
        convert(path, layout="robustbench-wideresnet", model="wideresnet")
    path = saved(tmp_path / "deep.pt", ResNet(PostBlock, (3, 4, 6, 3), 8).state_dict())
    with pytest.raises(DataError, match=r"layer1\.2"):
        convert(path, layout="robustbench-resnet", model="resnet18")


def test_old_and_half_precise_checkpoints_are_converted_and_told(tmp_path: Path):
    reference = lively(WideResNet())
    state = {name: each for name, each in reference.state_dict().items() if "num_batches" not in name}
    found = convert(saved(tmp_path / "old.pt", state), layout="robustbench-wideresnet", model="wideresnet28")
    assert_same_logits(reference, found.module)
    assert any("counters of batches" in note for note in found.notes)
    half = {name: each.half() for name, each in state.items()}
    told = convert(saved(tmp_path / "half.pt", half), layout="robustbench-wideresnet", model="wideresnet28").notes
    assert any("converted from torch.float16" in note for note in told)


class Trap:
    """What a pickle would run when it is read."""

    def __reduce__(self):
        return os._exit, (3,)


def test_nothing_in_a_checkpoint_is_run(tmp_path: Path):
    state = WideResNet().state_dict()
    contents = ({"state_dict": state, "args": Trap()}, Trap(), WideResNet(), [state], "text", 3, {"state_dict": {}})
    for number, content in enumerate(contents):
        path = saved(tmp_path / f"{number}.pt", content)
        with pytest.raises(DataError):
            convert(path, layout="robustbench-wideresnet", model="wideresnet28")
    (tmp_path / "noise.pt").write_bytes(os.urandom(1000))
    for name in ("noise.pt", "none.pt"):
        with pytest.raises(DataError):
            convert(tmp_path / name, layout="hydra", model="resnet18")


def test_safetensors_are_taken_too(tmp_path: Path):
    reference = lively(WideResNet())
    save_file(reference.state_dict(), tmp_path / "net.safetensors")
    found = convert(tmp_path / "net.safetensors", layout="robustbench-wideresnet", model="wideresnet28")
    assert_same_logits(reference, found.module)


def test_unknown_layouts_and_models_are_refused(tmp_path: Path):
    path = saved(tmp_path / "n.pt", WideResNet().state_dict())
    with pytest.raises(ConfigError, match="one of hydra, robustbench-resnet"):
        convert(path, layout="timm", model="resnet18")
    with pytest.raises(ConfigError, match="a network of the layout robustbench-resnet: resnet18"):
        convert(path, layout="robustbench-resnet", model="wideresnet34")


def labelled(model: nn.Module, wrong: int) -> gossamer.data.DataSet:  # type: ignore[name-defined]
    """Return 40 images with the labels that a network gives them, the first of them changed."""
    x = torch.rand(40, 3, 32, 32, generator=torch.Generator().manual_seed(3))
    with torch.no_grad():
        y = model(x).argmax(dim=1)
    y[:wrong] = (y[:wrong] + 1) % 10
    return from_tensors(x, y, part="test", classes=[str(each) for each in range(10)])


def test_clean_accuracy_is_checked(tmp_path: Path):
    reference = lively(WideResNet())
    found = convert(saved(tmp_path / "n.pt", reference.state_dict()), layout="hydra", model="wideresnet28")
    images = labelled(reference, 10)
    assert check_clean(found.module, images, 0.75).startswith("clean accuracy 75.00%")
    check_clean(found.module, images, 0.65)  # inside the interval of 40 samples
    with pytest.raises(RunError, match="a clean accuracy of 95"):
        check_clean(found.module, images, 0.95)
    with pytest.raises(ConfigError, match=r"a share in \[0, 1\]"):
        check_clean(found.module, images, 84.5)


def command(*words: object) -> int:
    with pytest.raises(SystemExit) as stopped:
        main(["convert", *(str(word) for word in words)])
    return int(stopped.value.code or 0)


def test_the_command_writes_a_folder_that_loads(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    torch.manual_seed(0)
    reference = scored(lively(WideResNet()))
    path = saved(tmp_path / "model_best.pth.tar", hydra(reference))
    images = labelled(pruned(copy.deepcopy(reference), 0.05), 4)
    tensors = {"x": images.images[:1], "y": images.labels[:1], "x_test": images.images, "y_test": images.labels}
    atomic.write_safetensors(tmp_path / "tensors.safetensors", tensors)
    given = ("--layout", "hydra", "--model", "wideresnet28", "--density", 0.05, "--license", "mit")
    checked = ("--expect-clean", 0.9, "--data", "tensors", "--data-dir", tmp_path / "tensors.safetensors")
    assert command(path, *given, *checked, "-o", tmp_path / "net") == 0
    told = capsys.readouterr().out
    assert "tensors used" in told
    assert "clean accuracy 90.00%" in told
    found = gossamer.load(tmp_path / "net")
    assert_same_logits(pruned(copy.deepcopy(reference), 0.05), found.module)
    assert found.manifest.storage == "sparse"
    assert found.recipe is None
    assert found.evaluations == []
    assert found.threat is None
    card = (tmp_path / "net/README.md").read_text()
    assert "model_best.pth.tar, SHA-256" in card
    assert "clean accuracy 90.00%" in card
    assert "No robust accuracy was measured here" in card
    assert json.loads((tmp_path / "net/gossamer.json").read_text())["density"] == pytest.approx(0.05, rel=0.01)

    assert command(path, *given, "-o", tmp_path / "net") == 2
    assert command(path, *given, "-o", tmp_path / "net", "--force") == 0
    assert command(path, *given, *checked[:1], 0.2, *checked[2:], "-o", tmp_path / "other") == 1
    assert not (tmp_path / "other").exists()
    assert command(path, *given, "--expect-clean", 0.9, "-o", tmp_path / "other") == 2
    assert command(path, *given, "--mean", "a,b", "-o", tmp_path / "other") == 2
    assert command(path, *given, "--data-option", "train_n=60", "-o", tmp_path / "other") == 2


def test_a_folder_names_the_images_with_their_options_and_none_that_there_are_not(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    torch.manual_seed(0)
    path = saved(tmp_path / "net.pth.tar", hydra(scored(lively(WideResNet()))))
    given = ("--layout", "hydra", "--model", "wideresnet28", "--density", 0.05)
    options = ("--data-option", "image_size=32", "--data-option", "cache_dir=here")
    assert command(path, *given, "--data", "folder", *options, "-o", tmp_path / "net") == 0
    named = gossamer.load(tmp_path / "net").manifest.data
    assert named is not None
    assert (named.name, dict(named.options)) == ("folder", {"image_size": 32})
    assert command(path, *given, "--data", "cifra10", "-o", tmp_path / "other") == 2
    assert "did you mean 'cifar10'?" in capsys.readouterr().err
    assert not (tmp_path / "other").exists()


def test_a_folder_of_another_depth_loads(tmp_path: Path):
    reference = lively(WideResNet(16, 1))
    path = saved(tmp_path / "n.pt", reference.state_dict())
    assert command(path, "--layout", "robustbench-wideresnet", "--model", "wideresnet", "-o", tmp_path / "net") == 0
    found = gossamer.load(tmp_path / "net")
    assert_same_logits(reference, found.module)
    assert found.manifest.network.options["depth"] == 16
    largest = found.manifest.network.options | {"depth": 70, "width": 16}
    with torch.device("meta"):
        state = gossamer.models.build("wideresnet", **largest).state_dict()
    assert sum(tensor.numel() for tensor in state.values()) <= MOST_NUMBERS


def test_the_command_writes_one_file_of_plain_tensors(tmp_path: Path):
    reference = lively(WideResNet())
    path = saved(tmp_path / "n.pt", reference.state_dict())
    given = ("--layout", "robustbench-wideresnet", "--model", "wideresnet28", "-o", tmp_path / "plain.safetensors")
    assert command(path, *given) == 0
    network = gossamer.models.build("wideresnet28", width=2)
    network.load_state_dict(load_file(tmp_path / "plain.safetensors"))
    assert_same_logits(reference, network.eval())
    assert command(path, *given) == 2
    assert command(path, *given, "--force") == 0
