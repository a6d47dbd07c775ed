"""ONNX files: checked, of any batch, from the network as it is; and every refusal names what it could not say."""

import copy
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from shipped import images, small
from torch import Tensor, nn

from gossamer.deploy import onnx_file
from gossamer.errors import ConfigError

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxscript")
pytest.importorskip("onnxruntime")

from gossamer.deploy.onnx_file import newest_opset, write_onnx  # noqa: E402
from gossamer.deploy.onnx_int8 import write_onnx_int8  # noqa: E402
from gossamer.deploy.parity import EXACT, parity  # noqa: E402
from gossamer.evaluation.onnx_model import OnnxModel  # noqa: E402


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("onnx") / "net.onnx"
    write_onnx(small(), images(1), path, about={"network": "small"})
    return path


def test_the_file_is_checked_named_and_of_any_batch(written: Path):
    proto = onnx.load(str(written))
    onnx.checker.check_model(proto, full_check=True)
    assert [entry.version for entry in proto.opset_import if entry.domain == ""] == [newest_opset()]
    (taken,), (given,) = proto.graph.input, proto.graph.output
    assert (taken.name, given.name) == ("images", "logits")
    assert [side.dim_param or side.dim_value for side in taken.type.tensor_type.shape.dim] == ["batch", 2, 6, 6]
    assert [side.dim_param or side.dim_value for side in given.type.tensor_type.shape.dim] == ["batch", 3]
    assert list(written.parent.iterdir()) == [written]


def test_metadata_say_version_shape_and_digest_and_nothing_of_the_exporting_machine(written: Path):
    texts = {entry.key: entry.value for entry in onnx.load(str(written)).metadata_props}
    assert texts.keys() == {"gossamer", "sha256", "shape", "network", "gossamer.content"}
    assert texts["shape"] == "2,6,6"
    assert len(texts["sha256"]) == 64
    assert str(Path(__file__).parent).encode() not in written.read_bytes()


@pytest.mark.parametrize("count", [1, 3, 7])
def test_onnxruntime_gives_the_networks_logits(written: Path, count: int):
    assert parity(small(), OnnxModel(written), images(count)).error < 1e-6


def test_the_network_stays_as_it_is_and_nothing_is_printed(tmp_path: Path, capfd: pytest.CaptureFixture[str]):
    network = small().train()
    before = copy.deepcopy(network.state_dict())
    write_onnx(network, images(2), tmp_path / "net.onnx")
    assert network.training
    assert all(parameter.requires_grad for parameter in network.parameters())
    assert all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())
    assert capfd.readouterr() == ("", "")


class Bessel(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.special.bessel_j0(x.flatten(1)[:, :3])


class OnlyTwo(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.reshape(2, -1)[:, :3]


class Branching(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.flatten(1)[:, :3] if x.sum() > 0 else x.flatten(1)[:, 3:6]


class Noisy(nn.Module):
    pure = False

    def forward(self, x: Tensor) -> Tensor:
        return x.flatten(1)[:, :3] + torch.rand(1)


@pytest.mark.parametrize(
    ("network", "told"),
    [
        (Bessel(), "prims.bessel_j0"),
        (OnlyTwo(), "any number of images"),
        (Branching(), "any number of images"),
        (Noisy(), "noise-free network"),
        (nn.Flatten(2), "logits \\(N, classes\\)"),
    ],
)
def test_what_onnx_cannot_say_is_named_and_nothing_is_written(
    network: nn.Module, told: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
):
    with pytest.raises(ConfigError, match=told):
        write_onnx(network, images(2), tmp_path / "net.onnx")
    assert not list(tmp_path.iterdir())
    assert capfd.readouterr() == ("", "")


def test_an_example_that_is_none_is_refused(tmp_path: Path):
    with pytest.raises(ConfigError, match="at least one image"):
        write_onnx(small(), torch.zeros(2, 6, 6), tmp_path / "net.onnx")
    with pytest.raises(ConfigError, match="takes as its one input"):
        write_onnx(small(), torch.zeros(1, 5, 6, 6), tmp_path / "net.onnx")


class Logarithmic(nn.Module):
    """A network whose last operator onnxruntime leaves in float."""

    def __init__(self) -> None:
        super().__init__()
        self.body = small()

    def forward(self, x: Tensor) -> Tensor:
        return torch.nn.functional.softplus(self.body(x))


def test_int8_stores_and_computes_in_int8(written: Path, tmp_path: Path):
    path = tmp_path / "int8.onnx"
    write_onnx_int8(written, images(1), images(64), path)
    proto = onnx.load(str(path))
    kinds = {node.op_type for node in proto.graph.node}
    assert {"QuantizeLinear", "DequantizeLinear"} <= kinds
    stored = {tensor.data_type for tensor in proto.graph.initializer}
    assert onnx.TensorProto.INT8 in stored
    scales = [list(tensor.dims) for tensor in proto.graph.initializer if tensor.name.endswith("weight_scale")]
    assert [8] in scales
    found = parity(small(), OnnxModel(path), images(64))
    assert 1e-4 < found.error < 0.1
    assert found.agreement > 0.9


def test_operators_that_stay_in_float_are_counted(tmp_path: Path):
    floats = write_onnx_int8(Logarithmic(), images(1), images(16), tmp_path / "log.onnx")
    assert "1 Softplus" in floats
    assert not any("Conv" in each for each in floats)


def test_int8_asks_for_images_to_calibrate_on(written: Path, tmp_path: Path):
    for given in (images(3), torch.rand(32, 1, 6, 6)):
        with pytest.raises(ConfigError, match="at least 16 training images"):
            write_onnx_int8(written, images(1), given, tmp_path / "int8.onnx")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("pool", [nn.MaxPool2d, nn.AvgPool2d])
@pytest.mark.parametrize(("pad", "size"), [((0, 0, 0, 1), 1), ((1, 1, 1, 1), 2), ((2, 2, 2, 2), 2), ((2, 1, 0, 2), 3)])
def test_zeros_before_a_pool_stay_zeros(
    pool: Callable[..., nn.Module], pad: tuple[int, ...], size: int, tmp_path: Path
):
    """In onnxruntime's own pool padding is minus infinity, and smaller than the kernel."""
    torch.manual_seed(0)
    convolution = nn.Conv2d(2, 3, 1)
    # All is below the zeros of the pad.
    nn.init.constant_(convolution.bias, -3.0)  # type: ignore[arg-type]
    body = nn.Sequential(convolution, nn.ZeroPad2d(pad), pool(size, 2), nn.Flatten())
    network = nn.Sequential(body, nn.Linear(body(images(1)).shape[1], 3)).eval()
    write_onnx(network, images(1), tmp_path / "net.onnx")
    assert parity(network, OnnxModel(tmp_path / "net.onnx"), images(16)).error < EXACT
    write_onnx_int8(network, images(1), images(32), tmp_path / "int8.onnx")
    assert parity(network, OnnxModel(tmp_path / "int8.onnx"), images(16)).error < 0.1


def test_what_onnxruntime_refuses_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.setattr(onnx_file, "_keep_pads", lambda _: None)
    network = nn.Sequential(nn.ZeroPad2d(2), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(50, 3)).eval()
    with pytest.raises(ConfigError, match="onnxruntime runs together"):
        write_onnx(network, images(1), tmp_path / "net.onnx")
    assert not list(tmp_path.iterdir())
