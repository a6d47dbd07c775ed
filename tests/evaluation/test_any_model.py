"""Functions, NumPy functions, other floating types, exported programs and ONNX files are evaluated like any module."""

import copy
import json

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from gossamer.attacks.fgsm import FGSM
from gossamer.attacks.pgd import PGD
from gossamer.attacks.square import Square
from gossamer.attacks.transfer import Transfer
from gossamer.cli.main import main
from gossamer.errors import ConfigError, DataError
from gossamer.evaluation import evaluate
from gossamer.evaluation.adapters import NumpyModel, as_module, name_of
from gossamer.evaluation.checks import check_subject
from gossamer.evaluation.onnx_model import OnnxModel
from gossamer.evaluation.samples import as_dataset
from gossamer.evaluation.subject import prepare
from gossamer.evaluation.trials import plan_trials
from gossamer.threat import ThreatModel

LINF = ThreatModel("linf", 0.1)
SHAPE = (2, 3, 4)


def gen(seed):
    return torch.Generator().manual_seed(seed)


WEIGHT = torch.randn(5, 24, generator=gen(0))
BIAS = torch.randn(5, generator=gen(1))


def linear(dtype=torch.float32):
    model = nn.Sequential(nn.Flatten(), nn.Linear(24, 5))
    with torch.no_grad():
        model[1].weight.copy_(WEIGHT)
        model[1].bias.copy_(BIAS)
    return model.to(dtype).eval()


def numpy_logits(images):
    images -= 0.0
    return images.reshape(len(images), -1) @ WEIGHT.numpy().T + BIAS.numpy()


def data(n=30):
    x = 0.2 + 0.6 * torch.rand(n, *SHAPE, generator=gen(2))
    with torch.no_grad():
        return x, linear()(x).argmax(dim=1)


def flags(model, attack, name="attack"):
    return evaluate(model, data(), {name: attack}, threat=LINF).attacks[0].robust


PGD_SHORT = PGD(threat=LINF, steps=5)
SQUARE = Square(threat=LINF, queries=60)


def test_a_function_is_attacked_by_gradients_as_its_module_is():
    made = as_module(lambda x: x.flatten(1) @ WEIGHT.T + BIAS)
    assert flags(made, PGD_SHORT) == flags(linear(), PGD_SHORT)
    assert 0 < sum(flags(made, PGD_SHORT)) < 30


def test_a_numpy_function_is_attacked_without_gradients_as_its_module_is():
    made = NumpyModel(numpy_logits)
    assert flags(made, SQUARE) == flags(linear(), SQUARE)
    assert 0 < sum(flags(made, SQUARE)) < 30


def test_a_numpy_function_cannot_write_into_the_images():
    x = torch.rand(2, *SHAPE)
    before = x.clone()
    NumpyModel(lambda images: (images.fill(0), np.ones((2, 5), np.float32))[1])(x)
    assert torch.equal(x, before)


def test_transfer_from_the_float_twin_is_the_attack_on_it():
    attack = Transfer(attack=PGD_SHORT, source=linear())
    assert flags(NumpyModel(numpy_logits), attack) == flags(linear(), PGD_SHORT)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16])
def test_modules_of_other_floating_types(dtype):
    made = as_module(linear(dtype))
    assert made(torch.rand(2, *SHAPE)).dtype == dtype
    (notice,) = check_subject(made, as_dataset(data()), plan_trials(FGSM(threat=LINF)))
    assert notice.code == "dtype"
    assert sum(a != b for a, b in zip(flags(made, PGD_SHORT), flags(linear(), PGD_SHORT), strict=True)) <= 1


def test_probabilities_by_their_logarithm_are_attacked_as_the_logits_are():
    made = as_module(nn.Sequential(linear(), nn.Softmax(dim=1)), outputs="probabilities")
    assert torch.allclose(made(data()[0]), torch.log_softmax(linear()(data()[0]), dim=1), atol=1e-5)
    assert flags(made, PGD_SHORT) == flags(linear(), PGD_SHORT)


def test_probabilities_of_zero_have_a_finite_logarithm():
    made = as_module(lambda x: torch.tensor([[1.0, 0.0]]).half().expand(len(x), 2), outputs="probabilities")
    assert made(torch.rand(3, *SHAPE)).isfinite().all()


@pytest.mark.long
def test_an_exported_program_is_called_as_it_is():
    program = torch.export.export(
        linear(), (torch.rand(2, *SHAPE),), dynamic_shapes=({0: torch.export.Dim("n", min=1, max=512)},)
    )
    assert flags(as_module(program.module()), PGD_SHORT) == flags(linear(), PGD_SHORT)


def test_a_scripted_module_is_a_module():
    with pytest.warns(DeprecationWarning, match="trace"):
        scripted = torch.jit.trace(linear(), torch.rand(2, *SHAPE))
    assert flags(as_module(scripted), PGD_SHORT) == flags(linear(), PGD_SHORT)


def test_adapting_twice_changes_nothing():
    for made in [
        as_module(linear()),
        as_module(linear(torch.float64)),
        as_module(numpy_logits),
        as_module(linear(), outputs="probabilities"),
    ]:
        assert as_module(made) is made


def test_what_is_not_seen_inside_is_neither_traced_nor_copied():
    made = as_module(lambda x: x.flatten(1) @ WEIGHT.T)
    assert prepare(made, fast=True, example=data()[0][:2]).surrogate is None
    assert copy.deepcopy(made) is made


def test_names():
    def predict(x):
        return x

    assert name_of(predict) == name_of(as_module(predict)) == "predict"
    assert name_of(as_module(linear(torch.float64), outputs="probabilities")) == "Sequential"


@pytest.mark.parametrize(
    ("model", "told"), [("model.onnx", r"OnnxModel\(path\)"), (nn.Linear, "make an instance"), (3, "got int")]
)
def test_what_is_no_model_is_refused(model, told):
    with pytest.raises(ConfigError, match=told):
        as_module(model)


def test_outputs_of_another_kind_are_refused():
    with pytest.raises(ConfigError, match="logits or probabilities"):
        as_module(linear(), outputs="softmax")
    with pytest.raises(ConfigError, match="NumpyModel"):
        as_module(lambda x: numpy_logits(x.numpy()))(torch.rand(2, *SHAPE))
    with pytest.raises(ConfigError, match="scores of all classes"):
        NumpyModel(lambda images: numpy_logits(images).argmax(1))(torch.rand(2, *SHAPE))


def onnx_file(folder, *, batch="n", shape=SHAPE, kind="FLOAT", outputs=("logits",), inputs=1):
    """Write flatten, then one linear layer, in float32; bytes are divided by 255."""
    onnx = pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    helper, types = onnx.helper, onnx.TensorProto
    scale = 255.0 if kind == "UINT8" else 1.0
    nodes = [
        helper.make_node("Cast", ["images"], ["float"], to=types.FLOAT),
        helper.make_node("Div", ["float", "scale"], ["scaled"]),
        helper.make_node("Flatten", ["scaled"], ["flat"]),
        *(helper.make_node("Gemm", ["flat", "weight", "bias"], [name], transB=1) for name in outputs),
    ]
    tensors = {"scale": np.array(scale, np.float32), "weight": WEIGHT.numpy(), "bias": BIAS.numpy()}
    given = [helper.make_tensor_value_info("images", getattr(types, kind), [batch, *shape])]
    given += [helper.make_tensor_value_info(f"more{i}", types.FLOAT, [1]) for i in range(inputs - 1)]
    graph = helper.make_graph(
        nodes,
        "linear",
        given,
        [helper.make_tensor_value_info(name, types.FLOAT, [batch, 5]) for name in outputs],
        [onnx.numpy_helper.from_array(array, name) for name, array in tensors.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    path = folder / "model.onnx"
    onnx.save(model, path)
    return path


@pytest.mark.parametrize("batch", ["n", 1, 4])
@pytest.mark.parametrize("kind", ["FLOAT", "FLOAT16", "DOUBLE"])
def test_onnx_gives_the_logits_whatever_its_batch_and_type(tmp_path, batch, kind):
    model, x = OnnxModel(onnx_file(tmp_path, batch=batch, kind=kind)), data(11)[0]
    assert torch.allclose(model(x), linear()(x), atol=1e-2 if kind == "FLOAT16" else 1e-5)
    assert not model(x).requires_grad
    assert (model.path.name, name_of(model)) == ("model.onnx", "model")


def test_onnx_of_bytes_rounds(tmp_path):
    model, x = OnnxModel(onnx_file(tmp_path, kind="UINT8")), data(11)[0]
    assert torch.allclose(model(x), linear()((x * 255).round() / 255), atol=1e-5)
    found = check_subject(model, as_dataset(data()), plan_trials(SQUARE))
    assert [notice.code for notice in found] == ["rounded-input", "no-gradient"]


def test_onnx_under_square_and_transfer_falls_as_the_network_does(tmp_path):
    model = OnnxModel(onnx_file(tmp_path, batch=4))
    assert flags(model, SQUARE) == flags(linear(), SQUARE)
    assert flags(model, Transfer(attack=PGD_SHORT, source=linear())) == flags(linear(), PGD_SHORT)


def test_onnx_refuses_an_attack_by_gradients(tmp_path):
    with pytest.raises(ConfigError, match="which model does not give"):
        check_subject(OnnxModel(onnx_file(tmp_path)), as_dataset(data()), plan_trials(PGD_SHORT))


def test_onnx_refuses_images_of_another_shape(tmp_path):
    model = OnnxModel(onnx_file(tmp_path))
    with pytest.raises(DataError, match=r"\(N, 2, 3, 4\)"):
        model(torch.rand(3, 1, 3, 4))
    last = OnnxModel(onnx_file(tmp_path, shape=(3, 4, 2)))
    with pytest.raises(DataError, match="permute"):
        last(torch.rand(3, 2, 3, 4))
    assert as_module(lambda x: last(x.permute(0, 2, 3, 1)))(torch.rand(3, 2, 3, 4)).shape == (3, 5)


def test_onnx_files_that_cannot_be_evaluated_are_refused(tmp_path):
    for options in [{"shape": (24,)}, {"inputs": 2}, {"kind": "INT64"}]:
        with pytest.raises(DataError, match="one input of images"):
            OnnxModel(onnx_file(tmp_path, **options))
    (tmp_path / "broken.onnx").write_bytes(b"no model")
    for name in ["broken.onnx", "nowhere.onnx"]:
        with pytest.raises(DataError, match="an ONNX file that onnxruntime can run"):
            OnnxModel(tmp_path / name)


def test_onnx_with_several_outputs_asks_which(tmp_path):
    path = onnx_file(tmp_path, outputs=("features", "logits"))
    with pytest.raises(ConfigError, match="features, logits"):
        OnnxModel(path)
    with pytest.raises(ConfigError, match="got scores"):
        OnnxModel(path, output="scores")
    assert OnnxModel(path, output="logits")(torch.rand(3, *SHAPE)).shape == (3, 5)


def test_onnx_without_its_runtime_names_the_extra(tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "onnxruntime", None)
    with pytest.raises(ConfigError, match=r"gossamer\[onnx\]"):
        OnnxModel(tmp_path / "model.onnx")


@pytest.fixture
def workplace(tmp_path, monkeypatch):
    """A folder with an ONNX file, its twin and a data set."""
    onnx_file(tmp_path)
    x, y = data()
    save_file({"x": x, "y": y, "x_test": x.clone(), "y_test": y.clone()}, tmp_path / "data.safetensors")
    save_file({"1.weight": WEIGHT, "1.bias": BIAS}, tmp_path / "twin.safetensors")
    (tmp_path / "twin_of_file.py").write_text(
        "from torch import nn\ndef make():\n    return nn.Sequential(nn.Flatten(), nn.Linear(24, 5))\n"
    )
    monkeypatch.chdir(tmp_path)
    return tmp_path


ON_FILE = ["evaluate", "model.onnx", "--data", "tensors", "--data-dir", "data.safetensors", "--threat", "linf:0.1"]


def run(*words):
    with pytest.raises(SystemExit) as left:
        main([*ON_FILE, *words, "--device", "cpu", "--json", "out.json"])
    return left.value.code


def test_the_command_line_attacks_an_onnx_file(workplace):
    assert run("--attack", "square", "--option", "queries=60") in (0, None)
    written = json.loads((workplace / "out.json").read_text())
    assert written["run"] == "model.onnx"
    assert tuple(written["attacks"][0]["robust"]) == flags(linear(), SQUARE, "square")


def test_the_command_line_attacks_through_a_twin(workplace):
    twin = ["--twin", "twin_of_file:make", "--twin-weights", "twin.safetensors"]
    assert run("--attack", "pgd", "--option", "steps=5", *twin) in (0, None)
    written = json.loads((workplace / "out.json").read_text())
    assert tuple(written["attacks"][0]["robust"]) == flags(linear(), PGD_SHORT, "transfer")


def test_the_command_line_takes_one_way_to_say_the_radius(workplace, capsys):
    assert run("--eps", "0.1") == 2
    assert "--threat" in capsys.readouterr().err
