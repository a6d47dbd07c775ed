"""Two tiny runs, two seeds each: what differs in recipe and result, and what may be said of it."""

import json
import shutil
from pathlib import Path

import pytest
from lifecycle import recipe

import gossamer
from gossamer.errors import ConfigError, RunError
from gossamer.intervals import holm, mcnemar
from gossamer.recipe.compare import compare, compare_each
from gossamer.recipe.comparison import Comparison
from gossamer.recipe.train import train
from gossamer.runs.results import read_evaluation


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs")
    for name, density in (("bcs", 0.1), ("random", 0.2)):
        for seed in (0, 1):
            asked = recipe(
                seed=seed,
                method={"name": name, "density": density},
                training={"epochs": 1},
                evaluation=[{"attack": "fgsm", "n": 60}],
            )
            train(asked, out=folder / f"{name}-{seed}")
    return folder


@pytest.fixture
def pair(runs: Path) -> Comparison:
    return compare(runs / "bcs-0", runs / "random-0")


def test_recipes_are_compared_by_what_they_come_to(pair: Comparison) -> None:
    found = {each.field: (each.a, each.b) for each in pair.recipe}
    assert found["method.name"] == (("bcs",), ("random",))
    assert found["method.density"] == ((0.1,), (0.2,))
    assert found["training.optimizer.kind"] == (("decay-first-sgd",), ("sgd",))
    assert not any(field.startswith(("data", "model", "training.epochs", "machine", "seed")) for field in found)
    assert (pair.seeds, pair.machine, pair.notes) == ((), (), ())


def test_results_are_those_of_the_files(pair: Comparison, runs: Path) -> None:
    a, b = (read_evaluation(next((runs / name / "results").glob("fgsm*.json"))) for name in ("bcs-0", "random-0"))
    clean, robust = pair.results
    mine, theirs = a.attacks[0].robust, b.attacks[0].robust
    only_a = sum(x > y for x, y in zip(mine, theirs, strict=True))
    only_b = sum(x < y for x, y in zip(mine, theirs, strict=True))
    assert (robust.test, robust.only_a, robust.only_b) == ("paired", only_a, only_b)
    assert robust.p_value == mcnemar(only_a, only_b)
    assert (robust.a, robust.b, clean.a) == ((a.robust_accuracy,), (b.robust_accuracy,), (a.clean_accuracy,))
    assert pair.a.density == (a.density,)
    assert (pair.a.nonzero, pair.b.nonzero) == ((a.nonzero,), (b.nonzero,))
    assert pair.a.work_ratio[0] is not None


def test_two_networks_are_not_two_methods(pair: Comparison) -> None:
    said = " ".join(str(pair).split())
    assert "FGSM, linf eps 0.15, n=60" in said
    assert "McNemar's exact test sample by sample, intervals of Bonett and Price" in said
    assert "p-values adjusted by Holm for 2 accuracies compared; intervals of 95 % each, not adjusted" in said
    assert "this compares two networks, not two recipes or methods" in said
    assert repr(pair) == str(pair)


def test_several_seeds_compare_means(runs: Path) -> None:
    found = gossamer.compare([runs / "bcs-0", runs / "bcs-1"], [runs / "random-0", runs / "random-1"])
    assert found.seeds == ()
    assert found.a.seeds == (0, 1)
    assert found.a.mixed == found.b.mixed == ()
    assert {each.test for each in found.results} == {"over runs"}
    said = " ".join(str(found).split())
    assert "2 runs:" in said
    assert "Means over 2 and 2 trainings" in said
    assert "two networks" not in said


def test_a_side_of_one_run_beside_several_gives_no_test(runs: Path) -> None:
    found = compare(runs / "bcs-0", [runs / "random-0", runs / "random-1"])
    assert all(each.p_value is None for each in found.results)
    assert "so no test is made" in str(found)
    assert [each.field for each in found.seeds] == ["seed"]


def test_a_side_of_two_recipes_or_of_one_seed_is_told(runs: Path) -> None:
    found = compare([runs / "bcs-0", runs / "random-0"], [runs / "bcs-1", runs / "random-1"])
    said = " ".join(str(found).split())
    assert "The runs of A are not of one recipe: they differ in method.name" in said
    assert "Seeds repeat in A" in said


def test_another_n_is_told_and_not_compared(runs: Path, tmp_path: Path) -> None:
    shutil.copytree(runs / "random-0", tmp_path / "other")
    path = next((tmp_path / "other" / "results").glob("fgsm*.json"))
    value = json.loads(path.read_text())
    robust = value["attacks"][0]["robust"][:40]
    share = sum(robust) / 40
    value |= {"n": 40, "robust_accuracy": share}
    value["dataset"]["n"] = 40
    value["attacks"][0] |= {"n": 40, "robust": robust, "robust_accuracy": share}
    value["samples"] = {key: each[:40] for key, each in value["samples"].items()}
    path.write_text(json.dumps(value))
    found = compare(runs / "bcs-0", tmp_path / "other")
    assert [(each.attack, each.n) for each in found.results] == [(None, (40, 40))]
    assert "FGSM, linf eps 0.15, n=60: n 60 against 40" in str(found)


def test_nothing_measured_is_said(runs: Path, tmp_path: Path) -> None:
    shutil.copytree(runs / "random-0", tmp_path / "bare")
    shutil.rmtree(tmp_path / "bare" / "results")
    (tmp_path / "bare" / "env.json").write_text("[")
    found = compare(runs / "bcs-0", tmp_path / "bare")
    assert found.results == ()
    assert found.statement[0].startswith("No accuracy was measured alike")
    assert any("env.json" in note for note in found.notes)


def test_a_recipe_of_another_version_is_compared_as_written(runs: Path, tmp_path: Path) -> None:
    shutil.copytree(runs / "random-0", tmp_path / "later")
    path = tmp_path / "later" / "recipe.yaml"
    path.write_text(path.read_text() + "invented_later: 3\n")
    found = compare(runs / "bcs-0", tmp_path / "later")
    assert "compared as they are written, without defaults" in found.notes[0]
    fields = [each.field for each in found.recipe]
    assert "invented_later" in fields
    assert "method.sigma" not in fields


def test_json_has_the_statement(pair: Comparison) -> None:
    value = json.loads(json.dumps(pair.to_json()))
    assert value["schema"] == "gossamer/comparison/1"
    assert value["statement"] == list(pair.statement)
    assert value["results"][1]["only_a"] == pair.results[1].only_a


def test_what_cannot_be_compared_is_refused(runs: Path, tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"expected a folder with a recipe\.yaml"):
        compare(runs / "bcs-0", tmp_path)
    with pytest.raises(ConfigError, match="every run once"):
        compare(runs / "bcs-0", [runs / "bcs-1", runs / "bcs-1" / ".." / "bcs-0"])
    with pytest.raises(ConfigError, match="at least one run a side"):
        compare(runs / "bcs-0", [])


def test_p_values_of_several_comparisons_are_adjusted_over_all_of_them(runs: Path) -> None:
    others = [runs / "bcs-1", runs / "random-0", runs / "random-1"]
    found = compare_each(runs / "bcs-0", others)
    values = [each.p_value for one in found for each in one.results if each.p_value is not None]
    assert len(values) == 6
    assert [each.adjusted for one in found for each in one.results] == pytest.approx(holm(values))
    alone = compare(runs / "bcs-0", others[0])
    assert [each.p_value for each in alone.results] == [each.p_value for each in found[0].results]
    assert (alone.family, [one.family for one in found]) == (2, [6] * 3)
    assert "adjusted by Holm for 6 accuracies compared, 2 of them here" in " ".join(str(found[0]).split())
