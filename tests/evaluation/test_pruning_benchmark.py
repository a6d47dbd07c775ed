import json

import pytest
import torch
from protocol_toys import images, labels, plane

from gossamer.errors import ConfigError
from gossamer.evaluation.least_norm import Search
from gossamer.evaluation.pruning_benchmark import RADII, pruning_benchmark
from gossamer.evaluation.setting import Setting
from gossamer.evaluation.tables import tell
from gossamer.runs import records
from gossamer.runs.protocols import PruningBenchmark

SEARCH = Search(trials=1, samples=4, steps=5, final_steps=40, loss="margin")


def test_weights_are_counted_and_both_radii_measured(tmp_path):
    model = plane()
    with torch.no_grad():
        model.layer.weight[:, 3:] = 0
        model.layer.bias.copy_(-0.5 * model.layer.weight.sum(dim=1))
    x = images(40)
    here = Setting(data=(x, labels(model, x)), folder=tmp_path)
    made = pruning_benchmark({"pruned": model}, here, attack="fgsm", search=SEARCH)
    (row,) = made.rows
    assert (row.kept, row.model.weights) == (6, 24)
    assert row.sparsity == pytest.approx(0.75)
    assert [at.eps for at in row.radii] == list(RADII)
    for at in row.radii:
        assert at.robust.value == pytest.approx(float((model.radius(x) > at.eps).float().mean()))
    assert row.second_opinion.robust.n == 40
    told = tell(made)
    assert "75.00%" in told
    assert "weights kept" in told
    assert "as published" not in told
    read = records.from_json(PruningBenchmark, json.loads(json.dumps(records.to_json(made))), subject="benchmark")
    assert read.rows == made.rows
    calls = model.calls
    assert pruning_benchmark({"pruned": model}, here, attack="fgsm", search=SEARCH).rows == made.rows
    assert model.calls == calls


def test_autoattack_is_what_it_runs_unless_told_otherwise():
    model = plane()
    x = images(6)
    # Two classes: the standard version's targeted losses need more, so the default is seen in the refusal.
    with pytest.raises(ConfigError, match="classes"):
        pruning_benchmark({"plane": model}, Setting(data=(x, labels(model, x))), opinion=False)


def test_radii_must_rise():
    x = images(6)
    with pytest.raises(ConfigError, match="eps list"):
        pruning_benchmark({"plane": plane()}, Setting(data=(x, labels(plane(), x))), eps=[8 / 255, 0.031])
