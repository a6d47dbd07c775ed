"""What a search may say, and what is refused before anything is trained."""

from pathlib import Path
from typing import Any

import pytest
import yaml
from small_sweeps import small

from gossamer.errors import ConfigError
from gossamer.recipe.load import run_name
from gossamer.sweep.search.spec import base_recipe, check_search, load_search, recipe_of

BASE = small(
    data={"name": "digits", "train_n": 100, "split": {"held_out": 0.2}},
    training={"epochs": 1, "probes": [{"part": "held_out", "attacks": ["fgsm"]}, {"part": "test"}]},
    evaluation=[{"attack": "pgd-50-10"}],
)
SEARCH: dict[str, Any] = {
    "name": "tiny",
    "base": BASE,
    "space": {
        "method.density": {"low": 0.05, "high": 0.5, "log": True},
        "training.epochs": {"low": 1, "high": 9, "step": 2},
        "threat": {"choices": ["linf:0.1", "linf:0.2"]},
        "how": {"list": {"plain": {"attack": None}, "short": {"attack.steps": 2, "objective.name": "adversarial"}}},
    },
    "objectives": [{"maximize": "robust"}, {"minimize": "nonzeros"}],
    "evaluation": {"attack": "fgsm", "n": 50},
}


def refused(changes: dict[str, Any]) -> str:
    with pytest.raises(ConfigError) as error:
        check_search(load_search({**SEARCH, **changes}))
    return str(error.value)


def test_a_trial_is_a_recipe_measured_on_what_is_held_out():
    search = load_search(SEARCH)
    check_search(search)
    given = {
        "method.density": 0.07,
        "training.epochs": 3,
        "threat": "linf:0.2",
        "how": "short",
    }
    recipe = recipe_of(search, given)
    assert recipe.method.options["density"] == 0.07
    assert (recipe.training.epochs, recipe.objective.name, recipe.attack.options) == (3, "adversarial", {"steps": 2})
    (judged,) = recipe.evaluation
    assert (judged.attack, judged.part, judged.n) == ("fgsm", "held_out", 50)
    # One radius for all, whatever a trial trains against.
    assert (recipe.threat, judged.eps) == ("linf:51/255", (0.15,))
    assert recipe.data.train_n == 100
    assert run_name(recipe) != run_name(base_recipe(search))


def test_a_range_is_whole_where_all_of_it_is():
    space = load_search(SEARCH).space
    assert space["training.epochs"].whole
    assert not space["method.density"].whole
    assert load_search(SEARCH).directions == ("maximize", "minimize")


def test_a_file_names_its_search_and_its_base(tmp_path: Path):
    (tmp_path / "base.yaml").write_text(yaml.safe_dump(BASE))
    path = tmp_path / "wide.yaml"
    path.write_text(yaml.safe_dump({**SEARCH, "name": None, "base": "base.yaml"}).replace("name: null\n", ""))
    search = load_search(path)
    assert search.name == "wide"
    assert base_recipe(search).data.name == "digits"


@pytest.mark.parametrize(
    ("parameter", "said"),
    [
        ({"low": 0.5, "high": 0.1}, "low below high"),
        ({"low": 0.0, "high": 0.1, "log": True}, "with log"),
        ({"low": 1, "high": 8, "log": True, "step": 2}, "with log"),
        ({"low": 1, "high": 8, "step": 2}, "a step that leads from low to high"),
        ({"low": 0.1}, "low and high; choices; list"),
        ({"low": 0.1, "high": 0.2, "choices": [1]}, "low and high; choices; list"),
        ({"choices": [1, 2], "log": True}, "log and step beside low and high"),
        ([0.1], "at least two different choices"),
        ([0.1, 0.1], "at least two different choices"),
        ([[1], [2]], "name sets of fields with list"),
        ({"lwo": 0.1, "high": 0.2}, "did you mean low"),
    ],
)
def test_a_space_that_cannot_be_is_refused(parameter: Any, said: str):
    assert said in refused({"space": {"method.density": parameter}})


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"objectives": [{"maximize": "test/clean"}]}, "the test set must not choose"),
        ({"objectives": [{"maximize": "speed"}]}, "maximize clean or robust"),
        ({"objectives": [{"minimize": "robust"}]}, "got minimize robust"),
        ({"objectives": [{"maximize": "clean", "minimize": "density"}]}, "one of maximize and minimize"),
        ({"objectives": [{"maximize": "clean"}, {"maximize": "clean"}]}, "each once"),
        ({"objectives": []}, "objectives"),
        ({"evaluation": {"attack": "fgsm", "part": "test"}}, "the test set must not choose"),
        ({"evaluation": {"attack": "fgsm", "eps": [0.1, 0.2]}}, "one radius"),
        ({"evaluation": {"attack": "fgms"}}, "fgms"),
        ({"set": {"data.split.held_out": 0}}, "images that no trial trains on"),
        ({"set": {"evaluation": []}}, "one for all trials"),
        ({"space": {"evaluation": {"list": {"a": {"evaluation": []}, "b": {}}}}}, "one for all trials"),
        ({"space": {"run": [1, 2]}}, "other names than the table's own"),
        ({"space": {"method.density": [0.1, 1.5]}}, "method.density=1.5"),
        ({"space": {"method.densty": [0.1, 0.5]}}, "densty"),
        ({"space": {"data.split.seed": [0, 1]}}, "trials that are measured alike"),
        ({"space": {"threat": ["linf:0.1", "l2:0.1"]}}, "the norm of its threat"),
        ({"prune": {"metric": "test/clean"}}, "a probe measures on the held-out split (held_out/clean, held_out/fgsm)"),
        ({"prune": {"metric": "held_out/fgsm", "quantile": 1.5}}, "quantile"),
        ({"prune": {"metric": "held_out/fgsm"}}, "the probes that prune it (their eps too) as in the base"),
        (
            {"space": {"training.epochs": [1, 2], "how": {"list": {"a": {"training": {"epochs": 3}}, "b": {}}}}},
            "training.epochs to be 1, got 3, set by a later parameter",
        ),
        ({"sampel": "tpe"}, "did you mean sampler"),
    ],
)
def test_what_would_mislead_is_refused(changes: dict[str, Any], said: str):
    assert said in refused(changes)
