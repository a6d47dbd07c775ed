import json

import pytest
import torch
from protocol_toys import KilledError, Plane, gen, images, labels, plane
from torch import nn

from gossamer.attacks.fgsm import FGSM
from gossamer.errors import ConfigError
from gossamer.evaluation.examples import PART, Examples, craft
from gossamer.evaluation.setting import Setting
from gossamer.evaluation.tables import tell
from gossamer.evaluation.transfer_matrix import transfer_matrix
from gossamer.runs import atomic, records
from gossamer.runs.protocols import TransferMatrix
from gossamer.threat import ThreatModel

EPS = (0.02, 0.1)
ATTACK = FGSM(threat=ThreatModel("linf", EPS[0]))


class Stairs(nn.Module):
    """A plane behind a quantiser: its gradient is zero."""

    def __init__(self, inner):
        super().__init__()
        self.inner = inner

    def forward(self, x):
        return self.inner((x * 255).round() / 255)


def test_accuracies_are_those_of_the_closed_form():
    first, second = plane(0), plane(7)
    x = images(60)
    y = labels(first, x)
    made = transfer_matrix({"a": first, "b": second}, Setting(data=(x, y)), eps=EPS, attack=ATTACK)
    sign = (2 * y - 1).float()
    for row, source in enumerate((first, second)):
        for column, target in enumerate((first, second)):
            for place, eps in enumerate(EPS):
                moved = x - eps * sign.view(-1, 1, 1, 1) * source.layer.weight[1].sign().view(1, 1, 3, 4)
                right = (labels(target, x) == y) & (labels(target, moved) == y)
                assert made.accuracy[row][column][place].value == pytest.approx(float(right.float().mean()))
    assert made.models[0].clean.value == 1
    assert made.models[1].clean.value < 1


def test_a_twin_endangers_and_an_unrelated_model_does_not():
    w = torch.zeros(12)
    w[:6] = torch.randn(6, generator=gen(0))
    apart = torch.zeros(12)
    apart[6:] = torch.randn(6, generator=gen(1))
    x = images(80)
    models = {"leaked": Plane(w), "twin": Plane(2 * w), "apart": Plane(apart)}
    y = labels(models["leaked"], x)
    with torch.no_grad():
        # The third model agrees with the first on all images: a step in its own half breaks it, in theirs never.
        models["apart"].layer.bias.copy_(torch.tensor([0.0, 0.0]))
        keep = labels(models["apart"], x) == y
    x, y = x[keep], y[keep]
    made = transfer_matrix(models, Setting(data=(x, y)), eps=[0.15], attack=ATTACK)
    found = {(danger.source, danger.target): danger for danger in made.dangers}
    assert found["leaked", "twin"].endangers
    assert found["leaked", "twin"].share_of_damage == pytest.approx(1)
    assert not found["leaked", "apart"].endangers
    assert found["leaked", "apart"].transferred == found["leaked", "apart"].clean
    assert "a leaked leaked brings twin" in made.sentences[0]
    assert not any(danger.beats_white_box for danger in made.dangers)


def test_a_masked_target_is_doubted():
    inner = plane(0)
    x = images(60)
    here = Setting(data=(x, labels(inner, x)))
    made = transfer_matrix({"float": inner, "masked": Stairs(plane(0))}, here, eps=[0.15], attack=ATTACK)
    (danger,) = [each for each in made.dangers if each.target == "masked"]
    assert danger.beats_white_box
    assert "masked: its robust accuracy is not to be trusted" in made.sentences[0]


def test_targets_that_are_no_sources_have_no_white_box():
    x = images(30)
    model = plane(0)
    here = Setting(data=(x, labels(model, x)))
    made = transfer_matrix({"a": model, "b": plane(3)}, here, eps=[0.05], attack=ATTACK, sources=["b"])
    assert (made.sources, len(made.accuracy)) == ((1,), 1)
    (danger,) = made.dangers
    assert (danger.white_box, danger.share_of_damage, danger.beats_white_box) == (None, None, False)


def test_examples_are_made_once_also_of_samples_the_source_errs_on(tmp_path):
    model = plane(0)
    x = images(30)
    wrong = 1 - labels(model, x)
    here = Setting(data=(x, wrong), folder=tmp_path)
    stored = craft(here, "source", model, ATTACK)
    calls = model.calls
    assert craft(here, "source", model, ATTACK).made_of == stored.made_of
    assert model.calls == calls
    (file,) = tmp_path.glob("examples-source-*/part-0000.safetensors")
    points = atomic.read_safetensors(file)["x_adv"]
    assert points.dtype == torch.float32
    assert torch.allclose((points - x).abs(), torch.full_like(x, EPS[0]), atol=1e-6)
    with pytest.raises(ConfigError, match="one for every sample"):
        stored.examples.of([30])
    with pytest.raises(ConfigError, match="keyed by sample"):
        stored(model, x, wrong)


def test_examples_of_several_parts_come_in_any_order():
    index = torch.arange(2 * PART + 5) + 7
    parts = [part.view(-1, 1, 1, 1).float() for part in index.split(PART)]
    found = Examples(index, list(parts)).of([7 + 2 * PART, 7, 8 + PART])
    assert found.flatten().tolist() == [7 + 2 * PART, 7, 8 + PART]


def test_a_killed_matrix_goes_on(tmp_path):
    x = images(30)
    y = labels(plane(0), x)
    whole = transfer_matrix({"a": plane(0), "b": plane(7)}, Setting(data=(x, y)), eps=EPS, attack=ATTACK)
    models = {"a": plane(0), "b": plane(7)}

    def dying(standing):
        if len(list(tmp_path.glob("*.json"))) == 2:
            raise KilledError

    with pytest.raises(KilledError):
        transfer_matrix(models, Setting(data=(x, y), folder=tmp_path, progress=dying), eps=EPS, attack=ATTACK)
    resumed = transfer_matrix(models, Setting(data=(x, y), folder=tmp_path), eps=EPS, attack=ATTACK)
    assert resumed.accuracy == whole.accuracy
    calls = [model.calls for model in models.values()]
    again = transfer_matrix(models, Setting(data=(x, y), folder=tmp_path), eps=EPS, attack=ATTACK)
    assert again == resumed
    assert [model.calls for model in models.values()] == calls


def test_it_survives_json_and_names_architectures():
    x = images(20)
    here = Setting(data=(x, labels(plane(0), x)))
    made = transfer_matrix(
        {"a": plane(0), "b": plane(1)}, here, eps=EPS, attack=ATTACK, architectures={"a": "resnet18"}
    )
    assert [model.kind for model in made.models] == ["resnet18", "Plane"]
    read = records.from_json(TransferMatrix, json.loads(json.dumps(records.to_json(made))), subject="transfer")
    assert read.accuracy == made.accuracy
    assert read.dangers == made.dangers
    assert made.sentences[1] in tell(made)


@pytest.mark.parametrize(
    ("asked", "told"),
    [({"eps": []}, "eps list"), ({"eps": [0.1, 0.1]}, "eps list"), ({"eps": [0.1], "sources": ["c"]}, "sources")],
)
def test_impossible_matrices_are_refused(asked, told):
    x = images(8)
    here = Setting(data=(x, labels(plane(0), x)))
    with pytest.raises(ConfigError, match=told):
        transfer_matrix({"a": plane(0), "b": plane(1)}, here, **asked)
    with pytest.raises(ConfigError, match="at least 2"):
        transfer_matrix({"a": plane(0)}, here, eps=[0.1])
