import pytest

from gossamer.errors import RunError
from gossamer.runs import RunFolder


def test_a_new_run_folder_has_the_promised_paths(tmp_path):
    run = RunFolder.create(tmp_path / "deep" / "run")
    assert run.path.is_dir()
    assert run.name == "run"
    names = {
        "recipe": "recipe.yaml",
        "env": "env.json",
        "status": "status.json",
        "metrics": "metrics.jsonl",
        "last": "last.json",
        "checkpoints": "checkpoints",
        "results": "results",
        "panel": "panel",
        "states": "states",
    }
    assert {key: getattr(run, key) for key in names} == {k: run.path / v for k, v in names.items()}
    assert run.state("epoch:8") == run.path / "states" / "epoch:8.safetensors"
    assert run.result("network") == run.path / "results" / "network.json"


def test_open_wants_a_recipe(tmp_path):
    with pytest.raises(RunError, match=r"expected a folder with a recipe\.yaml, got no folder"):
        RunFolder.open(tmp_path / "absent")
    with pytest.raises(RunError, match="got a folder without one"):
        RunFolder.open(tmp_path)
    (tmp_path / "recipe.yaml").write_text("seed: 1\n")
    assert RunFolder.open(tmp_path).path == tmp_path


def test_create_takes_over_a_killed_start_alone(tmp_path):
    run = RunFolder.create(tmp_path / "run")
    run.env.write_text("{}")
    (run.path / ".recipe.yaml.0123abcd.tmp").write_text("se")
    assert RunFolder.create(run.path) == run
    run.recipe.write_text("seed: 1\n")
    with pytest.raises(RunError, match="resume that run"):
        RunFolder.create(run.path)


def test_create_refuses_what_is_not_its_own(tmp_path):
    (tmp_path / "thesis.tex").write_text("")
    with pytest.raises(RunError, match=r"thesis\.tex"):
        RunFolder.create(tmp_path)
    with pytest.raises(RunError, match="got a file"):
        RunFolder.create(tmp_path / "thesis.tex")


@pytest.mark.parametrize("name", ["", "..", "../x", "a/b", ".hidden", "a\n"])
def test_a_name_cannot_leave_its_directory(tmp_path, name):
    with pytest.raises(RunError, match="choose another name"):
        RunFolder(tmp_path).state(name)


def test_checkpoints_without_a_recipe_are_not_taken_over(tmp_path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "last.json").write_text("{}")
    with pytest.raises(RunError, match="checkpoints without the recipe"):
        RunFolder.create(tmp_path / "run")
