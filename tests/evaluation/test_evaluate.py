import json
from dataclasses import dataclass

import pytest
import torch
from evaluation_toys import convnet, gen, labelled
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn.utils import parametrize

from gossamer.attacks.fgsm import FGSM
from gossamer.attacks.pgd import PGD
from gossamer.errors import ConfigError, DataError, RunError
from gossamer.evaluation import Evaluation, evaluate
from gossamer.runs import results
from gossamer.threat import ThreatModel

LINF = ThreatModel("linf", 8 / 255)


class Linear(nn.Module):
    """Two classes parted by w.x + b = 0."""

    def __init__(self, w, b):
        super().__init__()
        self.layer = nn.Linear(w.numel(), 2)
        with torch.no_grad():
            self.layer.weight.copy_(torch.stack([-w, w]) / 2)
            self.layer.bias.copy_(torch.tensor([-b, b]) / 2)

    def forward(self, x):
        return self.layer(x.flatten(1))


@pytest.mark.parametrize("fast", [True, False])
@pytest.mark.parametrize("attack", ["fgsm", "pgd"])
def test_linear_model_falls_exactly_where_the_margin_is_below_eps_times_the_l1_norm(attack, fast):
    w = torch.randn(12, generator=gen(0))
    x = 0.2 + 0.6 * torch.rand(200, 1, 3, 4, generator=gen(1))
    distance = x.flatten(1) @ w - 0.5 * w.sum()
    y = (distance > 0).long()
    # eps halfway between two of the robust radii, away from rounding; within 0.2 the box never binds.
    radii = (distance.abs() / w.abs().sum()).sort().values
    eps = float(radii[99] + radii[100]) / 2
    assert eps < 0.2
    made = evaluate(Linear(w, -0.5 * float(w.sum())), (x, y), attack, threat=ThreatModel("linf", eps), fast=fast)
    expected = (distance.abs() > eps * w.abs().sum()).int()
    assert made.clean_accuracy == 1
    assert made.attacks[0].robust == tuple(expected.tolist())
    assert made.robust_accuracy == 0.5


def test_wrong_clean_samples_are_not_attacked_and_count_as_broken():
    model = convnet()
    x, y = labelled(model)
    wrong = y.clone()
    wrong[:6] = (y[:6] + 1) % 3
    seen = []

    def attack(model, x, y, *, draws):
        seen.extend(row[1] for row in draws.rows)
        return x

    made = evaluate(model, (x, wrong), attack, threat=LINF, batch_size=5)
    assert sorted(seen) == list(range(6, 24))
    assert made.samples.clean_correct == (0,) * 6 + (1,) * 18
    assert made.attacks[0].robust == made.samples.clean_correct
    assert made.clean_accuracy == made.robust_accuracy == 0.75


@dataclass(frozen=True, kw_only=True)
class Cheat:
    """Moves every image far enough to break it, in a way that is not allowed."""

    how: str

    def __call__(self, model, x, y, *, draws):
        ways = {"ball": 1 - x, "box": x + 3, "nan": x * float("nan"), "inf": x + float("inf")}
        return ways[self.how]


@pytest.mark.parametrize("how", ["ball", "box", "nan", "inf"])
def test_an_attack_that_cheats_is_counted_and_breaks_nothing(how):
    w = torch.ones(4)
    x = torch.tensor([0.2, 0.3, 0.7, 0.8]).view(-1, 1, 1, 1).expand(-1, 1, 2, 2).clone()
    made = evaluate(Linear(w, -2.0), (x, torch.tensor([0, 0, 1, 1])), Cheat(how=how), threat=LINF)
    assert made.attacks[0].rejected == 4
    assert made.robust_accuracy == 1
    assert "4 points rejected" in str(made)


def test_an_attack_that_writes_on_its_images_is_judged_by_the_clean_ones():
    """Else the ball would lie about wherever it moved them."""
    w = torch.ones(4)
    x = torch.tensor([0.2, 0.3, 0.7, 0.8]).view(-1, 1, 1, 1).expand(-1, 1, 2, 2).clone()

    def attack(model, x, y, *, draws):
        return x.copy_(1 - x)

    made = evaluate(Linear(w, -2.0), (x, torch.tensor([0, 0, 1, 1])), attack, threat=LINF)
    assert made.attacks[0].rejected == 4
    assert made.robust_accuracy == 1


class Doubling(nn.Module):
    def forward(self, weight):
        return 2 * weight


def test_the_model_comes_back_to_the_bit():
    model = convnet()
    parametrize.register_parametrization(model[3], "weight", Doubling())
    model.train()
    model[4].eval()
    model[0].bias.requires_grad_(False)
    model[0].weight.grad = torch.full_like(model[0].weight, 3.0)
    x, y = torch.rand(8, 2, 6, 6, generator=gen(3)), torch.randint(3, (8,), generator=gen(4))
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    modes = [module.training for module in model.modules()]
    frozen = [parameter.requires_grad for parameter in model.parameters()]
    random = torch.get_rng_state()

    def meddler(held, x, y, *, draws):
        torch.rand(5)
        held.train()
        held(x)
        held.eval()
        return x

    evaluate(model, (x, y), {"pgd": "pgd", "meddler": meddler}, threat=LINF, fast=False)
    after = model.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert [module.training for module in model.modules()] == modes
    assert [parameter.requires_grad for parameter in model.parameters()] == frozen
    assert torch.equal(model[0].weight.grad, torch.full_like(model[0].weight, 3.0))
    assert model[3].weight.requires_grad
    assert torch.equal(torch.get_rng_state(), random)


def test_batch_norm_in_train_mode_is_evaluated_with_its_running_statistics():
    model = convnet()
    data = labelled(model)
    model.train()
    assert evaluate(model, data, "fgsm", threat=LINF, batch_size=1).clean_accuracy == 1


@settings(max_examples=8, deadline=None)
@given(first=st.integers(1, 24), second=st.integers(1, 24), seed=st.integers(0, 3))
def test_flags_do_not_depend_on_the_batch_size(first, second, seed):
    model = convnet(seed)
    data = labelled(model, seed=seed)
    attack = PGD(threat=ThreatModel("linf", 0.03), steps=3, restarts=2)
    flags = [evaluate(model, data, attack, batch_size=size).attacks[0].robust for size in (first, second)]
    assert flags[0] == flags[1]


def test_samples_draw_the_same_whatever_else_is_evaluated():
    model = convnet()
    x, y = labelled(model)
    attack = PGD(threat=ThreatModel("linf", 0.03), steps=1)
    all_of_them = evaluate(model, (x, y), attack).attacks[0].robust
    assert evaluate(model, (x[:7], y[:7]), attack).attacks[0].robust == all_of_them[:7]


def test_what_fools_the_surrogate_alone_is_sought_again_on_the_model(monkeypatch):
    w = torch.ones(4)
    truth, biased = Linear(w, -2.0), Linear(w, -1.6)
    monkeypatch.setattr("gossamer.evaluation.subject.build_surrogate", lambda model, **_: biased)
    x = torch.tensor([0.45, 0.55, 0.3]).view(-1, 1, 1, 1).expand(-1, 1, 2, 2).clone()
    y = torch.tensor([0, 1, 0])
    seen = []

    def lazy(model, x, y, *, draws):
        """Stops as soon as the model it sees is wrong, else moves by 0.1 across the boundary."""
        seen.append((model is truth, tuple(row[1] for row in draws.rows)))
        wrong = (model(x).argmax(dim=1) != y).view(-1, 1, 1, 1)
        return torch.where(wrong, x, x + torch.where(y == 0, 0.1, -0.1).view(-1, 1, 1, 1))

    made = evaluate(truth, (x, y), lazy, threat=ThreatModel("linf", 0.1))
    # Sample 0 fools the biased surrogate at once; the model itself errs only after the move. 1 and 2 are honest.
    assert seen == [(False, (0, 1, 2)), (True, (0,))]
    assert made.attacks[0].robust == (0, 0, 1)


def test_headline_is_the_worst_case_over_attacks():
    model = convnet()
    x, y = labelled(model, n=4)

    def breaks(*which):
        def attack(model, x, y, *, draws):
            hit = torch.tensor([sample in which for _, sample in draws.rows]).view(-1, 1, 1, 1)
            return torch.where(hit, (x + 0.5) % 1, x)

        return attack

    wide = ThreatModel("linf", 1.0)
    alone = evaluate(model, (x, y), {"a": breaks(0, 1, 2, 3)}, threat=wide).attacks[0].robust
    made = evaluate(model, (x, y), {"a": breaks(0, 1), "b": breaks(1, 2)}, threat=wide)
    assert made.attacks[0].robust == (*alone[:2], 1, 1)
    assert made.attacks[1].robust == (1, *alone[1:3], 1)
    assert made.robust_accuracy == (sum(alone[:3]) + 1) / 4
    assert made.attack == "the worst of a, b"


def test_json_round_trip(tmp_path):
    model = convnet()
    made = evaluate(model, labelled(model), [PGD(threat=LINF, steps=2), FGSM(threat=LINF)], seed=5)
    made.save(tmp_path / "evaluation.json")
    value = json.loads((tmp_path / "evaluation.json").read_text())
    assert value["schema"] == "gossamer/evaluation/1"
    assert value["attacks"][0]["parameters"]["steps"] == 2
    assert Evaluation.from_json(value) == made
    assert results.read_evaluation(tmp_path / "evaluation.json").robust_accuracy == made.robust_accuracy


def test_density_is_counted_from_effective_kernels():
    model = nn.Sequential(nn.Flatten(), nn.Linear(4, 2))
    with torch.no_grad():
        model[1].weight.copy_(torch.tensor([[1.0, 0, 0, 2], [0, 0, 0, 3]]))
    made = evaluate(model, (torch.rand(3, 1, 2, 2), torch.tensor([0, 1, 0])), "fgsm", threat=LINF)
    assert (made.weights, made.nonzero, made.density) == (8, 3, 0.375)


def test_text_never_gives_a_bare_robust_accuracy():
    model = convnet()
    data = labelled(model)
    text = str(evaluate(model, data, {"mine": PGD(threat=LINF, steps=4, restarts=2)}))
    (line,) = [line for line in text.splitlines() if "robust accuracy" in line]
    for part in ("[", "%]", "mine", "linf, eps 8/255", "4 steps", "2 restarts", "n = 24"):
        assert part in line


class Noisy(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(4, 3)

    def forward(self, x):
        return self.layer(x.flatten(1)) + torch.randn(len(x), 3)


def test_a_stochastic_model_is_evaluated_and_repeats():
    model, data = Noisy(), (torch.rand(30, 1, 2, 2), torch.randint(3, (30,)))
    first, second = (evaluate(model, data, "pgd", threat=LINF) for _ in range(2))
    assert 0 <= first.robust_accuracy <= first.clean_accuracy < 1
    assert first.attacks[0].robust == second.attacks[0].robust


def test_a_model_without_parameters_or_kernels_is_evaluated():
    made = evaluate(nn.Flatten(), (torch.rand(6, 1, 2, 2), torch.zeros(6).long()), "fgsm", threat=LINF)
    assert (made.weights, made.density) == (0, 1.0)


def test_out_of_memory_halves_the_batch_and_changes_no_flag():
    model = convnet()
    data = labelled(model)

    def limited(model, x, y, *, draws):
        if len(x) > 6:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return PGD(threat=LINF, steps=2)(model, x, y, draws=draws)

    made = evaluate(model, data, {"limited": limited}, threat=LINF, batch_size=24)
    plenty = evaluate(model, data, {"limited": PGD(threat=LINF, steps=2)})
    assert made.batch_size == 6
    assert made.attacks[0].robust == plenty.attacks[0].robust


def test_progress_counts_every_sample():
    model = convnet()
    told = []
    made = evaluate(model, labelled(model), "fgsm", threat=LINF, batch_size=10, progress=told.append)
    stages = ("clean", f"fgsm at {LINF}")
    assert [(each.what, each.done, each.total) for each in told] == [
        (what, done, 24) for what in stages for done in (10, 20, 24)
    ]
    assert told[-1].robust == sum(made.attacks[0].robust)
    assert all(each.samples == 24 and each.seconds_left >= 0 for each in told)


def test_labels_beyond_the_logits_are_refused():
    model = convnet()
    x, y = labelled(model)
    with pytest.raises(DataError, match="3 logits"):
        evaluate(model, (x, y + 1), "fgsm", threat=LINF)


def test_images_that_the_model_refuses_are_named():
    with pytest.raises(DataError, match=r"\(3, 6, 6\)"):
        evaluate(convnet(), (torch.rand(4, 3, 6, 6), torch.zeros(4).long()), "fgsm", threat=LINF)


def test_a_device_that_is_not_there_is_refused():
    model = convnet()
    with pytest.raises(ConfigError, match="device"):
        evaluate(model, labelled(model), "fgsm", threat=LINF, device="cuda:77")


def test_a_model_that_gives_no_number_names_the_sample():
    class Poisoned(Linear):
        def forward(self, x):
            return super().forward(x) / (x.flatten(1)[:, :1] != 0.5)

    x = torch.full((5, 1, 2, 2), 0.2)
    x[3] = 0.5
    with pytest.raises(RunError, match="sample 3"):
        evaluate(Poisoned(torch.ones(4), -1.0), (x, torch.zeros(5).long()), "fgsm", threat=LINF, batch_size=2)


def test_an_empty_batch_is_refused():
    model = convnet()
    with pytest.raises(ConfigError, match="batch size"):
        evaluate(model, labelled(model), "fgsm", threat=LINF, batch_size=0)
