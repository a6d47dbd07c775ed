import tempfile
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from gossamer.errors import ConfigError
from gossamer.recipe.load import load_recipe, read_values, recipes, run_name, to_yaml, validate
from gossamer.recipe.schema import Recipe

SHIPPED = recipes()
MINIMAL: dict[str, Any] = {"data": {"name": "digits"}, "model": {"name": "digits-cnn"}, "threat": "linf:0.15"}


def with_section(section: str, **values: Any) -> dict[str, Any]:
    return {**MINIMAL, section: {**MINIMAL.get(section, {}), **values}}


@pytest.mark.parametrize("name", SHIPPED)
def test_a_shipped_recipe_reads_and_comes_back_from_its_full_form(name: str, tmp_path: Path) -> None:
    recipe = load_recipe(name)
    assert recipe.name == name
    assert recipe.claim == SHIPPED[name] != ""
    (tmp_path / "other-name.yaml").write_text(to_yaml(recipe), encoding="utf-8")
    again = load_recipe(tmp_path / "other-name.yaml")
    assert again == recipe
    assert run_name(again) == run_name(recipe)


def test_a_recipe_file_is_called_by_its_stem_unless_it_says_otherwise(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(yaml.safe_dump(MINIMAL), encoding="utf-8")
    assert load_recipe(path).name == load_recipe(str(path)).name == "mine"
    path.write_text(yaml.safe_dump({**MINIMAL, "name": "ours"}), encoding="utf-8")
    assert load_recipe(path).name == "ours"
    assert load_recipe(MINIMAL).name == "custom"


def read(text: str) -> Recipe:
    """Read a recipe from its full form, as from a run folder."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "recipe.yaml"
        path.write_text(text, encoding="utf-8")
        return load_recipe(path)


@settings(deadline=None)
@given(
    texts=st.dictionaries(
        st.text(st.characters(codec="ascii", categories=["L"]), min_size=1).map(lambda key: f"option_{key}"),
        st.one_of(
            st.text(st.characters(codec="ascii", categories=["L", "N", "P"])),
            st.floats(allow_nan=False, allow_infinity=False),
            st.booleans(),
        ),
        max_size=3,
    )
)
def test_any_option_comes_back_from_the_full_form(texts: dict[str, Any]) -> None:
    recipe = validate(with_section("method", name="x", **texts))
    again = read(to_yaml(recipe))
    assert again == recipe
    assert run_name(again) == run_name(recipe)


def test_texts_that_look_like_numbers_stay_texts() -> None:
    recipe = validate({**with_section("method", name="1e5", density="1e-2"), "name": "12e5"})
    again = read(to_yaml(recipe))
    assert again == recipe
    assert again.method.options == {"density": "1e-2"}


def test_settings_reach_every_depth() -> None:
    recipe = load_recipe(
        MINIMAL,
        [
            "seed=7",
            "training.epochs=5",
            "training.optimizer.lr=1e-2",
            "training.schedule={name: cosine, floor: 0.1}",
            "training.average.kind=ema",
            "method.name=bcs",
            "method.density=1e-1",
            "method.initial.conv1.weight=0.5",
            "data.split.held_out=0.1",
            "evaluation=[{attack: fgsm, eps: [0, 8/255]}]",
            "threat=l2:0.5",
            "claim=a=b",
        ],
    )
    assert (recipe.seed, recipe.training.epochs, recipe.training.optimizer.lr) == (7, 5, 0.01)
    assert recipe.training.schedule.options == {"floor": 0.1}
    assert recipe.training.average is not None
    assert recipe.training.average.decay == 0.999
    assert recipe.method.options["density"] == 0.1
    assert recipe.data.split.held_out == 0.1
    assert recipe.evaluation[0].eps == (0.0, 8 / 255)
    assert (recipe.threat, recipe.claim) == ("l2:0.5", "a=b")
    assert MINIMAL["data"] == {"name": "digits"}


@pytest.mark.parametrize("setting", ["training.epochs", "=3", "training..epochs=3", ".seed=3"])
def test_a_malformed_setting_is_refused(setting: str) -> None:
    with pytest.raises(ConfigError, match=r"--set: expected field\.subfield=value"):
        load_recipe(MINIMAL, [setting])


def test_a_setting_that_is_no_yaml_is_refused() -> None:
    with pytest.raises(ConfigError, match="--set: expected a YAML value"):
        load_recipe(MINIMAL, ["claim=[1"])


@pytest.mark.parametrize(
    ("values", "subject", "expected", "got", "remedy"),
    [
        (
            with_section("training", epohs=3),
            "training.epohs",
            "one of epochs, ",
            "an unknown field",
            "did you mean epochs?",
        ),
        (
            with_section("training", probes=[{"evry": 1}]),
            "training.probes.0.evry",
            "one of part",
            "an unknown",
            "every?",
        ),
        ({**MINIMAL, "sede": 1}, "sede", "one of name", "an unknown field", "did you mean seed?"),
        (with_section("training", epochs="x"), "training.epochs", "a valid integer", "'x'", "change the value"),
        (with_section("training", epochs=0), "training.epochs", "greater than 0", "0", "change"),
        (with_section("training", epochs=2.5), "training.epochs", "a valid integer", "2.5", "change"),
        (
            with_section("machine", precision="fp16"),
            "machine.precision",
            "'float32', 'bf16' or 'float64'",
            "'fp16'",
            "change",
        ),
        (
            with_section("training", optimizer={"kind": "rmsprop"}),
            "training.optimizer.kind",
            "'sgd'",
            "'rmsprop'",
            "change",
        ),
        (
            with_section("training", schedule={"floor": 1}),
            "training.schedule.name",
            "a value",
            "nothing",
            "add training",
        ),
        ({"data": {"name": "digits"}, "threat": "linf:0"}, "model", "a value", "nothing", "add model to the recipe"),
        ({**MINIMAL, "threat": "linf:8"}, "threat", "eps in pixel units", "8.0", "write 8/255 for 8"),
        ({**MINIMAL, "threat": "8/255"}, "threat", "NORM:EPS", "'8/255'", "write linf:8/255"),
        ({**MINIMAL, "evaluation": [{"attack": "fgsm", "eps": [-1]}]}, "evaluation.0.eps.0", "a finite", "-1", "8/255"),
        (
            with_section("attack", batch_norm="off"),
            "attack.batch_norm",
            "'eval', 'batch' or 'train'",
            "'off'",
            "change",
        ),
    ],
)
def test_what_is_wrong_is_named(values: dict[str, Any], subject: str, expected: str, got: str, remedy: str) -> None:
    with pytest.raises(ConfigError) as refused:
        validate(values)
    told = refused.value
    assert told.subject == subject
    assert told.expected.startswith(expected)
    assert str(told.got).startswith(got)
    assert remedy in told.remedy


def test_names_and_files_that_are_no_recipes_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"did you mean bcs/digits-90\?"):
        load_recipe("bcs/digits-9")
    with pytest.raises(ConfigError, match="a readable file"):
        load_recipe(tmp_path / "none.yaml")
    broken = tmp_path / "broken.yaml"
    for content, told in ((b"a: [1", "expected YAML"), (b"- 1", "fields such as data"), (b"\xff\xfe\x00", "UTF-8")):
        broken.write_bytes(content)
        with pytest.raises(ConfigError, match=told):
            load_recipe(broken)
    broken.write_text("name: !!python/object/apply:os.getcwd []", encoding="utf-8")
    with pytest.raises(ConfigError, match="expected YAML"):
        load_recipe(broken)


def test_a_run_is_named_by_what_it_says_beyond_the_defaults() -> None:
    name = run_name(validate(MINIMAL))
    assert name.startswith("custom-seed0-")
    same: list[dict[str, Any]] = [
        {"training": {"epochs": 1, "batch_size": 128, "optimizer": {}, "schedule": {"name": "steps"}}},
        {"method": {"name": "dense"}, "objective": {"name": "natural"}},
        {"evaluation": [{"attack": "pgd-50-10"}], "claim": "anything"},
        {"machine": {"device": "cpu", "checkpoint_seconds": 5, "tensorboard": True, "threads": None}},
        {"machine": {"trackers": ["mlflow", "wandb"]}},
        {"threat": "linf: 0.15"},
        {"data": {"name": "digits", "split": {"held_out": 0, "seed": 0}, "train_n": None}},
    ]
    assert {run_name(validate({**MINIMAL, **changes})) for changes in same} == {name}
    other: list[dict[str, Any]] = [
        {"seed": 1},
        {"threat": "linf:0.1"},
        {"training": {"epochs": 2}},
        {"method": {"name": "bcs", "density": 0.1}},
        {"method": {"name": "bcs", "density": 0.2}},
        {"machine": {"threads": 2}},
        {"machine": {"channels_last": False}},
        {"model": {"name": "digits-cnn", "last_batch_norm": True}},
        {"evaluation": []},
    ]
    names = {run_name(validate({**MINIMAL, **changes})) for changes in other}
    assert len(names | {name}) == len(other) + 1
    assert run_name(validate({**MINIMAL, "name": "a/b"})).startswith("a-b-seed0-")


def test_the_name_of_a_known_recipe_does_not_change() -> None:
    assert run_name(validate(MINIMAL)) == "custom-seed0-87ee3733"


def written(folder: Path, name: str, text: str) -> Path:
    path = folder / f"{name}.yaml"
    path.write_text(text, encoding="utf-8")
    return path


BASE = """
claim: the base
data: {name: digits, augmentation: {shift: 0.1}}
model: {name: digits-cnn}
threat: linf:0.15
objective: {name: trades, beta: 4}
method: {name: bcs, density: 0.1, sigma: 1.0e-5}
training: {epochs: 3, optimizer: {lr: 0.2}}
"""


def test_a_recipe_extends_another_and_merges_its_sections(tmp_path: Path) -> None:
    written(tmp_path, "base", BASE)
    child = written(
        tmp_path, "child", "extends: base.yaml\nmethod: {density: 0.01}\ntraining: {optimizer: {momentum: 0.8}}"
    )
    recipe = load_recipe(child)
    assert recipe.name == "child"
    assert recipe.claim == ""
    assert recipe.method.options == {"density": 0.01, "sigma": 1e-5}
    assert (recipe.training.epochs, recipe.training.optimizer.lr, recipe.training.optimizer.momentum) == (3, 0.2, 0.8)
    assert recipe.data.augmentation.shift == 0.1


def test_a_section_that_names_another_thing_keeps_nothing_of_the_former(tmp_path: Path) -> None:
    written(tmp_path, "base", BASE)
    child = written(
        tmp_path, "child", "extends: base.yaml\nmethod: {name: random, density: 0.01}\nobjective: {name: mart}"
    )
    recipe = load_recipe(child)
    assert (recipe.method.name, recipe.method.options) == ("random", {"density": 0.01})
    assert recipe.objective.options == {}


def test_a_recipe_extends_a_shipped_one(tmp_path: Path) -> None:
    recipe = load_recipe(written(tmp_path, "mine", "extends: bcs/digits-90\nseed: 3"))
    assert recipe.seed == 3
    assert recipe.method == load_recipe("bcs/digits-90").method


def test_a_circle_of_recipes_is_refused(tmp_path: Path) -> None:
    written(tmp_path, "one", "extends: two.yaml")
    with pytest.raises(ConfigError, match="circle"):
        load_recipe(written(tmp_path, "two", "extends: one.yaml"))


def test_what_a_recipe_extends_must_be_there(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"none\.yaml"):
        load_recipe(written(tmp_path, "mine", "extends: none.yaml"))


def test_parts_of_recipes_are_not_recipes() -> None:
    assert not [name for name in recipes() if name.startswith("parts/")]
    with pytest.raises(ConfigError, match="shipped recipe"):
        load_recipe("parts/cifar10-resnet18")


def test_numbers_with_colons_are_texts(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("data: {name: digits, split: {seed: 12}}\nmethod: {name: random, density: 0.5, pattern: 2:4}\n")
    values = read_values(path)
    assert values["method"]["pattern"] == "2:4"
    assert values["data"]["split"]["seed"] == 12
    recipe = load_recipe("random/digits-90", ["method.pattern=2:4", "seed=12"])
    assert recipe.method.options["pattern"] == "2:4"
    (tmp_path / "again.yaml").write_text(to_yaml(recipe))
    assert load_recipe(tmp_path / "again.yaml") == recipe
