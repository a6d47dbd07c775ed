"""Each planted fault, in a model or in data, is refused or noted before an evaluation starts."""

from pathlib import Path

import pytest
import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812

import gossamer
from gossamer.attacks.apgd import APGD
from gossamer.attacks.bpda import BPDA
from gossamer.attacks.cascade import Cascade
from gossamer.attacks.eot import Expectation
from gossamer.attacks.fgsm import FGSM
from gossamer.attacks.pgd import PGD
from gossamer.attacks.square import Square
from gossamer.attacks.targets import Ranked
from gossamer.attacks.transfer import Transfer
from gossamer.data import DataSet, from_tensors
from gossamer.data.dataset import checksum_of
from gossamer.errors import ConfigError, DataError, RunError
from gossamer.evaluation import remarks
from gossamer.evaluation.adapters import as_module
from gossamer.evaluation.checks import check_clean, check_subject
from gossamer.evaluation.trials import plan_trials
from gossamer.threat import ThreatModel

LINF = ThreatModel("linf", 8 / 255)
FGSM_TRIAL = plan_trials(FGSM(threat=LINF))
SQUARE_TRIAL = plan_trials(Square(threat=LINF, queries=5))


def gen(seed):
    return torch.Generator().manual_seed(seed)


def net(classes=5, channels=3):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = nn.Sequential(
            nn.Conv2d(channels, 6, 3), nn.BatchNorm2d(6), nn.ReLU(), nn.Flatten(), nn.Linear(96, classes)
        )
        model(torch.rand(64, channels, 6, 6))
        return model.eval()


def images(n=40, classes=5, channels=3):
    return from_tensors(torch.rand(n, channels, 6, 6, generator=gen(1)), torch.arange(n) % classes, part="test")


def codes(model, dataset=None, trials=FGSM_TRIAL):
    return [notice.code for notice in check_subject(model, dataset or images(), trials)]


def planted(x, y=None):
    """A data set that nobody has checked."""
    y = torch.arange(len(x)) % 5 if y is None else y
    return DataSet(
        name="planted",
        part="test",
        images=x,
        labels=y,
        classes=tuple("01234"),
        checksum=checksum_of(x, y),
        index=torch.arange(len(x)),
    )


def test_a_sound_model_on_sound_data_earns_no_notice():
    assert codes(net()) == []


def test_every_code_is_explained_to_users():
    page = Path(gossamer.__file__).parents[2] / "docs/evaluation/any-model.md"
    text = page.read_text(encoding="utf-8")
    assert [code for code in remarks.CODES if f"`{code}`" not in text] == []


@pytest.mark.parametrize(
    ("x", "told"),
    [
        (torch.rand(8, 3, 6, 6) * 255, "divide by 255"),
        (torch.rand(8, 3, 6, 6) - 0.5, "leave out any normalisation"),
        (torch.rand(8, 3, 6, 6) / 255, "only once"),
        (torch.full((8, 3, 6, 6), float("nan")), "finite values"),
        (torch.rand(8, 3, 6, 6).round().to(torch.uint8), "before they become uint8"),
    ],
)
def test_pixels_out_of_range_are_refused(x, told):
    with pytest.raises(DataError, match=told):
        check_subject(net(), planted(x), FGSM_TRIAL)


def test_one_bad_pixel_late_in_the_set_is_found():
    x = torch.rand(1500, 3, 6, 6)
    x[1400, 0, 0, 0] = 1.01
    with pytest.raises(DataError, match=r"1\.01"):
        check_subject(net(), planted(x), FGSM_TRIAL)


def test_bytes_and_black_images_pass():
    assert codes(net(), planted(torch.randint(256, (8, 3, 6, 6), generator=gen(0)).to(torch.uint8))) == []
    check_subject(net(), planted(torch.zeros(8, 3, 6, 6)), FGSM_TRIAL)


def test_wrong_channels_and_size_are_refused():
    for shape in [(8, 1, 6, 6), (8, 3, 9, 9)]:
        with pytest.raises(DataError, match="a shape and type that the model takes"):
            check_subject(net(), planted(torch.rand(shape)), FGSM_TRIAL)


def test_labels_beyond_the_logits_are_refused():
    with pytest.raises(DataError, match="3 logits"):
        check_subject(net(classes=3), images(classes=5), FGSM_TRIAL)


@pytest.mark.parametrize(
    ("y", "told"),
    [
        (F.one_hot(torch.arange(8) % 5), "argmax"),
        (torch.arange(8.0), "y.long"),
        (torch.arange(8) - 1, "number the classes from 0"),
    ],
)
def test_labels_that_are_no_classes_are_refused(y, told):
    with pytest.raises(DataError, match=told):
        from_tensors(torch.rand(8, 3, 6, 6), y)


def test_probabilities_are_refused_unless_said():
    softmax = nn.Sequential(net(), nn.Softmax(dim=1))
    with pytest.raises(ConfigError, match='outputs="probabilities"'):
        check_subject(softmax, images(), FGSM_TRIAL)
    assert codes(as_module(softmax, outputs="probabilities")) == ["probabilities"]


def test_log_probabilities_are_logits():
    assert codes(nn.Sequential(net(), nn.LogSoftmax(dim=1))) == []


def test_logits_said_to_be_probabilities_are_refused():
    for model in [net(), nn.Sequential(net(), nn.Sigmoid())]:
        with pytest.raises(ConfigError, match="with the sum 1"):
            check_subject(as_module(model, outputs="probabilities"), images(), FGSM_TRIAL)


def test_predicted_classes_are_refused():
    with pytest.raises(ConfigError, match="scores of all classes"):
        check_subject(as_module(lambda x: F.one_hot(net()(x).argmax(1), 5).float()), images(), SQUARE_TRIAL)


def test_a_sigmoid_at_the_end_is_noted():
    assert codes(nn.Sequential(net(), nn.Sigmoid())) == ["bounded-outputs"]


def test_a_single_score_is_refused():
    with pytest.raises(ConfigError, match=r"torch\.cat"):
        check_subject(net(classes=1), images(classes=1), FGSM_TRIAL)


@pytest.mark.parametrize(
    ("attack", "least"),
    [
        (PGD(threat=LINF, loss="dlr"), 3),
        (PGD(threat=LINF, loss="dlr", target=Ranked(1)), 4),
        (APGD(threat=LINF, loss="dlr"), 3),
        (APGD(threat=LINF, loss="dlr", targets=2), 4),
        (Cascade(threat=LINF, members=(("fgsm", FGSM(threat=LINF)), ("dlr", APGD(threat=LINF, loss="dlr")))), 3),
        (PGD(threat=LINF, target=Ranked(3)), 4),
    ],
)
def test_too_few_classes_for_an_attack_are_refused(attack, least):
    trials = plan_trials({"dlr": attack}, LINF)
    with pytest.raises(ConfigError, match="classes"):
        check_subject(net(classes=least - 1), images(classes=least - 1), trials)
    assert codes(net(classes=least), images(classes=least), trials) == []


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), float("-inf")])
def test_logits_that_are_no_numbers_name_the_sample(bad):
    def poisoned(x):
        return torch.where((x[:, 0, 0, 0] == 0.5)[:, None], bad, net()(x))

    x = torch.rand(40, 3, 6, 6, generator=gen(2))
    x[39, 0, 0, 0] = 0.5
    with pytest.raises(RunError, match="sample 39"):
        check_subject(as_module(poisoned), planted(x), FGSM_TRIAL)


def test_train_mode_is_noted_and_put_back():
    model = nn.Sequential(net(), nn.Dropout(0.5)).train()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    (notice,) = check_subject(model, images(), FGSM_TRIAL)
    assert notice.code == "train-mode"
    assert "BatchNorm2d, Dropout" in notice.text
    assert all(module.training for module in model.modules())
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())


def test_train_mode_that_changes_nothing_is_not_worth_a_word():
    assert codes(nn.Sequential(nn.Flatten(), nn.Linear(108, 5)).train()) == []


@pytest.mark.parametrize(
    ("threat", "noted"),
    [("l2:8", True), ("l2:0.5", False), ("l1:3060", True), ("l1:6", False), ("linf:0.6", True), ("linf:8/255", False)],
)
def test_a_radius_that_joins_classes_is_noted(threat, noted):
    trials = plan_trials(lambda model, x, y, draws: x, threat)
    assert codes(net(), trials=trials) == (["large-eps"] if noted else [])


def test_noise_is_noted():
    class Noisy(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = net()

        def forward(self, x):
            return self.inner(x) + 0.1 * torch.randn(5)

    (notice,) = check_subject(Noisy(), images(), FGSM_TRIAL)
    assert notice.code == "random"
    assert "which the seed fixes" in notice.text
    assert "Expectation" in notice.text


def test_noise_that_no_seed_fixes_is_noted_as_such():
    own, model = gen(3), net()
    (notice,) = check_subject(as_module(lambda x: model(x) + torch.randn(5, generator=own)), images(), FGSM_TRIAL)
    assert notice.code == "random"
    assert "of its own" in notice.text


class Adapting(nn.Module):
    """Moves its mean with every call, whatever its mode."""

    def __init__(self):
        super().__init__()
        self.inner = net()
        self.register_buffer("mean", torch.zeros(()))

    def forward(self, x):
        self.mean.mul_(0.5).add_(0.5 * x.mean())
        return self.inner(x - self.mean)


def test_a_state_that_moves_is_noted_and_put_back():
    model = Adapting()
    found = {notice.code: notice.text for notice in check_subject(model, images(), FGSM_TRIAL)}
    assert set(found) == {"stateful", "random"}
    assert "mean" in found["stateful"]
    assert model.mean == 0


def test_a_model_that_learns_when_called_is_refused_and_put_back():
    class Learning(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = net()

        def forward(self, x):
            self.inner[4].bias.data.add_(0.1)
            return self.inner(x)

    model = Learning()
    before = model.inner[4].bias.clone()
    with pytest.raises(RunError, match=r"inner\.4\.bias"):
        check_subject(model, images(), FGSM_TRIAL)
    assert torch.equal(model.inner[4].bias, before)


def test_a_model_that_writes_into_its_input_is_refused():
    model = net()
    with pytest.raises(RunError, match="x = x - mean"):
        check_subject(as_module(lambda x: model(x.sub_(0.5))), images(), FGSM_TRIAL)


def test_batch_norm_hidden_in_train_mode_is_noted():
    hidden = net().train()
    assert "batch-dependent" in codes(as_module(hidden.__call__))


def test_batch_norm_without_running_statistics_is_noted():
    model = nn.Sequential(nn.Conv2d(3, 6, 3), nn.BatchNorm2d(6, track_running_stats=False), nn.Flatten())
    assert codes(nn.Sequential(model, nn.Linear(96, 5)).eval()) == ["batch-dependent"]


def test_gradients_that_vanish_or_overflow_are_noted():
    model = net()
    assert codes(as_module(lambda x: model((x * 255).round() / 255))) == ["unusable-gradient"]
    assert codes(as_module(lambda x: model(x + 0 * (x - x).sqrt()))) == ["unusable-gradient"]


@pytest.mark.parametrize(
    "attack",
    [
        FGSM(threat=LINF),
        PGD(threat=LINF, restarts=3),
        APGD(threat=LINF, loss="dlr"),
        Cascade(threat=LINF, members=(("square", Square(threat=LINF)), ("fgsm", FGSM(threat=LINF)))),
    ],
)
def test_attacks_by_gradient_are_refused_where_there_is_none(attack):
    model = net()

    def blind(x):
        with torch.no_grad():
            return model(x)

    with pytest.raises(ConfigError, match="square"):
        check_subject(as_module(blind), images(), plan_trials({"mine": attack}, LINF))


def test_attacks_without_gradient_pass_where_there_is_none():
    blind = as_module(torch.no_grad()(net()))
    assert codes(blind, trials=SQUARE_TRIAL) == ["no-gradient"]
    (_, twin) = check_subject(blind, images(), plan_trials(Transfer(attack=FGSM(threat=LINF), source=net())))
    assert twin.code == "transfer"
    assert "8 of 8" in twin.text


def test_a_layer_without_gradient_is_gone_round():
    class Rounds(nn.Module):
        def forward(self, x):
            return torch.from_numpy((255 * x.detach().numpy()).round() / 255)

    model = nn.Sequential(Rounds(), net())
    with pytest.raises(ConfigError, match="square"):
        check_subject(model, images(), FGSM_TRIAL)
    assert codes(model, trials=plan_trials(BPDA(attack=FGSM(threat=LINF), layer="0"))) == ["no-gradient"]


def test_attacks_on_the_mean_of_passes_follow_gradients_too():
    trials = plan_trials(Expectation(attack=FGSM(threat=LINF)))
    with pytest.raises(ConfigError, match="square"):
        check_subject(as_module(torch.no_grad()(net())), images(), trials)


def test_a_twin_of_other_classes_is_refused():
    trials = plan_trials(Transfer(attack=FGSM(threat=LINF), source=net(classes=7)))
    with pytest.raises(ConfigError, match="5 logits"):
        check_subject(net(), images(), trials)


def test_the_users_random_numbers_are_left_alone():
    state = torch.get_rng_state()
    check_subject(net(), images(), FGSM_TRIAL)
    assert torch.equal(torch.get_rng_state(), state)


def test_an_accuracy_of_chance_is_noted():
    labels = torch.arange(100) % 10
    assert [notice.code for notice in check_clean((labels + 1) % 10, labels, 10)] == ["chance"]
    assert [notice.code for notice in check_clean(torch.zeros(100).long(), labels, 10)] == ["one-class"]
    assert check_clean(labels, labels, 10) == ()
    assert check_clean((labels + 1)[:20] % 10, labels[:20], 10) == ()
