import contextlib
import json
from dataclasses import dataclass

import pytest
import torch
from evaluation_toys import convnet, labelled
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

import gossamer.evaluation.hunt as hunting
from gossamer.attacks.cascade import Cascade
from gossamer.attacks.fgsm import FGSM
from gossamer.attacks.pgd import PGD
from gossamer.attacks.repeats import Restarts
from gossamer.attacks.stepwise import Rows, attack_batch
from gossamer.attacks.transfer import Transfer
from gossamer.data import from_tensors
from gossamer.errors import ConfigError, RunError
from gossamer.evaluation import evaluate
from gossamer.evaluation.plan import plan_of
from gossamer.evaluation.shards import Shard, merge
from gossamer.evaluation.trials import plan_trials
from gossamer.seeding import Draws
from gossamer.threat import ThreatModel, per_image

LINF = ThreatModel("linf", 0.02)


@dataclass(frozen=True, kw_only=True)
class Guess:
    """Tries random points of the ball, stepwise."""

    threat: ThreatModel
    steps: int = 5

    def attempts(self, classes: int) -> int:
        return 2

    def begin(self, x: Tensor, y: Tensor, clean: Tensor, attempt: Tensor, draws: Draws) -> Rows:
        nothing = torch.zeros_like(y, dtype=torch.bool)
        return {"best": x.clone(), "hit": nothing, "over": nothing, "step": torch.zeros_like(y)}

    def advance(self, model, x: Tensor, y: Tensor, rows: Rows, draws: Draws) -> Rows:
        point = self.threat.random_start(x, draws.at_each("step", rows["step"]))
        hit = model(point).argmax(dim=1) != y
        step = rows["step"] + 1
        best = torch.where(per_image(hit, x), point, rows["best"])
        return {"best": best, "hit": hit, "over": step == self.steps, "step": step}

    def __call__(self, model, x, y, *, draws=Draws()):  # noqa: B008
        return attack_batch(self, model, x, y, draws)


WHOLE = Cascade(
    threat=LINF,
    members=(("guess", Guess(threat=LINF)), ("fgsm", FGSM(threat=LINF)), ("pgd", PGD(threat=LINF, steps=3))),
)


class Killed(BaseException):
    pass


def _measure(model, **options):
    return evaluate(model, labelled(model, n=40), {"whole": WHOLE, "fgsm": FGSM(threat=LINF)}, seed=3, **options)


def _flags(made):
    return [outcome.robust for outcome in made.attacks], [outcome.stages for outcome in made.attacks]


def _killer(after):
    left = [after]

    def progress(standing):
        del standing
        left[0] -= 1
        if left[0] < 0:
            raise Killed

    return progress


@pytest.fixture(scope="module")
def model():
    return convnet()


@pytest.fixture(scope="module")
def undisturbed(model):
    made = _measure(model, batch_size=7)
    assert 0 < made.robust_accuracy < made.clean_accuracy
    return made


@given(kills=st.lists(st.integers(0, 30), min_size=1, max_size=4))
@settings(deadline=None, max_examples=25)
def test_an_evaluation_killed_anywhere_ends_in_the_same_flags(model, undisturbed, tmp_path_factory, kills):
    partial = tmp_path_factory.mktemp("killed") / "partial"
    for after in kills:
        with contextlib.suppress(Killed):
            _measure(model, batch_size=7, partial=partial, save_seconds=0, progress=_killer(after))
    made = _measure(model, partial=partial, save_seconds=0)
    assert [outcome.robust for outcome in made.attacks] == [outcome.robust for outcome in undisturbed.attacks]
    for ours, theirs in zip(made.attacks[0].stages, undisturbed.attacks[0].stages, strict=True):
        assert (ours.attack, ours.attacked, ours.broken) == (theirs.attack, theirs.attacked, theirs.broken)
    assert not partial.exists()


def test_what_is_done_is_not_done_again(model, tmp_path):
    calls = []
    counted = convnet()
    counted.register_forward_hook(lambda *_: calls.append(1))
    whole = _measure(counted, batch_size=7, fast=False)
    of_whole = len(calls)
    calls.clear()
    with pytest.raises(Killed):
        _measure(counted, batch_size=7, fast=False, partial=tmp_path, save_seconds=0, progress=_killer(12))
    before = len(calls)
    made = _measure(counted, fast=False, partial=tmp_path, save_seconds=0)
    assert before > 12
    # Each start looks at one image to learn the number of classes, and at a few to choose the batch size.
    assert of_whole <= len(calls) <= of_whole + 12
    assert made.batch_size == 7
    assert _seconds_apart(_flags(made)[1]) == _seconds_apart(_flags(whole)[1])


def _seconds_apart(stages):
    return [[(s.attack, s.attacked, s.broken) for s in each] if each else None for each in stages]


def test_partial_results_of_another_evaluation_are_refused(model, tmp_path):
    with pytest.raises(Killed):
        _measure(model, partial=tmp_path, save_seconds=0, progress=_killer(3))
    with pytest.raises(RunError, match=r"(?s)another one \(other attacks\).*remove the folder"):
        evaluate(model, labelled(model, n=40), "fgsm", threat=LINF, seed=3, partial=tmp_path)
    other = convnet()
    with torch.no_grad():
        next(other.parameters()).add_(1e-3)
    with pytest.raises(RunError, match=r"other .*model"):
        evaluate(other, labelled(model, n=40), {"whole": WHOLE, "fgsm": FGSM(threat=LINF)}, seed=3, partial=tmp_path)


@pytest.mark.parametrize("name", ["plan.json", "state.safetensors"])
def test_damaged_partial_results_are_told(model, tmp_path, name):
    with pytest.raises(Killed):
        _measure(model, partial=tmp_path, save_seconds=0, progress=_killer(5))
    (tmp_path / name).write_bytes((tmp_path / name).read_bytes()[:20])
    with pytest.raises(RunError, match=name):
        _measure(model, partial=tmp_path)


def test_the_plan_says_what_is_evaluated(model, tmp_path):
    with pytest.raises(Killed):
        _measure(model, partial=tmp_path, save_seconds=0, progress=_killer(5))
    plan = json.loads((tmp_path / "plan.json").read_text())
    assert plan["schema"] == "gossamer/partial/2"
    assert plan["seed"] == 3
    assert [name for name, *_ in plan["attacks"]] == ["whole", "fgsm"]


def test_networks_inside_wrappers_belong_to_the_plan(model):
    x, y = torch.rand(4, 1, 2, 2), torch.tensor([0, 1, 0, 1])
    attack = FGSM(threat=ThreatModel("linf", 0.1))

    def plan(source):
        wrapped = Restarts(attack=Transfer(attack=attack, source=source), restarts=2)
        return plan_of(model, from_tensors(x, y), plan_trials({"moved": wrapped}))

    def source(seed):
        torch.manual_seed(seed)
        return nn.Sequential(nn.Flatten(), nn.Linear(4, 2))

    assert plan(source(0)) == plan(source(0)) != plan(source(1))


def test_flags_do_not_depend_on_the_batch_size(model, undisturbed):
    made = _measure(model, batch_size=40)
    assert [outcome.robust for outcome in made.attacks] == [outcome.robust for outcome in undisturbed.attacks]


@pytest.mark.parametrize("of", [2, 3, 40])
def test_shards_merge_into_the_whole(model, undisturbed, of):
    merged = merge([_measure(model, shard=Shard(rank, of)) for rank in range(of)])
    for name in ("samples", "robust_accuracy", "interval", "clean_accuracy", "clean_interval", "n", "dataset"):
        assert getattr(merged, name) == getattr(undisturbed, name), name
    for ours, theirs in zip(merged.attacks, undisturbed.attacks, strict=True):
        assert (ours.robust, ours.robust_accuracy, ours.interval) == (
            theirs.robust,
            theirs.robust_accuracy,
            theirs.interval,
        )
    assert _seconds_apart(_flags(merged)[1]) == _seconds_apart(_flags(undisturbed)[1])
    for ours, theirs in zip(merged.attacks[0].stages, undisturbed.attacks[0].stages, strict=True):
        assert ours.robust_accuracy == pytest.approx(theirs.robust_accuracy)


@pytest.mark.parametrize("of", [2, 3])
def test_what_too_few_samples_of_a_part_cannot_tell_the_whole_tells(model, of):
    x, y = labelled(model, n=40)
    wrong = (x, (y + 1) % 3)
    whole = evaluate(model, wrong, "fgsm", threat=LINF)
    parts = [evaluate(model, wrong, "fgsm", threat=LINF, shard=Shard(rank, of)) for rank in range(of)]
    assert "chance" in {notice.code for notice in whole.notices}
    assert all("chance" not in {notice.code for notice in part.notices} for part in parts)
    assert merge(parts).notices == whole.notices


def test_parts_of_other_evaluations_do_not_merge(model):
    one = _measure(model, shard=Shard(0, 2))
    other = evaluate(model, labelled(model, n=40), "fgsm", threat=LINF, shard=Shard(1, 2))
    with pytest.raises(RunError, match="parts of several"):
        merge([one, other])
    with pytest.raises(RunError, match="parts of several"):
        merge([one, one])


@pytest.mark.parametrize("text", ["2/2", "a/2", "1", "-1/2", "0/0"])
def test_impossible_shards_are_refused(text):
    with pytest.raises(ConfigError, match="shard"):
        Shard.parse(text)


def test_more_shards_than_samples_are_refused(model):
    with pytest.raises(ConfigError, match="at most 40"):
        _measure(model, shard=Shard(0, 41))


def test_the_shard_of_a_process_is_torchruns(monkeypatch):
    assert Shard.of_process() == Shard()
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert Shard.of_process() == Shard.parse("1/2")


def test_a_bf16_proposal_is_confirmed_by_the_model(model):
    made = _measure(model, precision="bf16", batch_size=7)
    whole = _measure(model, batch_size=7)
    ours, theirs = torch.tensor(made.attacks[0].robust), torch.tensor(whole.attacks[0].robust)
    assert (ours != theirs).sum() <= 2
    assert 0 < made.robust_accuracy < made.clean_accuracy


def test_a_batch_that_does_not_fit_is_halved_and_nothing_changes(model, undisturbed, monkeypatch):
    advance = Guess.advance

    def cramped(self, model, x, y, rows, draws):
        if len(x) > 5:
            raise torch.OutOfMemoryError("out of memory")
        return advance(self, model, x, y, rows, draws)

    monkeypatch.setattr(Guess, "advance", cramped)
    made = _measure(model, batch_size=32)
    assert made.batch_size == 4
    assert [outcome.robust for outcome in made.attacks] == [outcome.robust for outcome in undisturbed.attacks]


class Shy(Guess):
    """Finds points and says nothing: only the last judgement can tell."""

    def advance(self, model, x, y, rows, draws):
        made = super().advance(model, x, y, rows, draws)
        return {**made, "hit": torch.zeros_like(made["hit"])}


def test_memory_that_runs_out_while_judging_loses_no_sample(model, monkeypatch):
    judged, attack = hunting.judge, Shy(threat=ThreatModel("linf", 0.3))
    whole = evaluate(model, labelled(model, n=40), attack)
    assert whole.robust_accuracy < 1

    def cramped(judging, x, x_adv, y, threat, **options):
        if len(x) > 3:
            raise torch.OutOfMemoryError("out of memory")
        return judged(judging, x, x_adv, y, threat, **options)

    monkeypatch.setattr(hunting, "judge", cramped)
    made = evaluate(model, labelled(model, n=40), attack, batch_size=7)
    assert made.attacks[0].robust == whole.attacks[0].robust
    assert made.batch_size <= 3


def test_memory_for_not_even_one_sample_is_told(model, monkeypatch):
    def full(self, model, x, y, rows, draws):
        raise torch.OutOfMemoryError("out of memory")

    monkeypatch.setattr(Guess, "advance", full)
    with pytest.raises(RunError, match="room for one sample"):
        _measure(model, batch_size=8)
