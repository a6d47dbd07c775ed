import json
from dataclasses import replace

import pytest

import method_pages
import method_rows
import methods_table
from gossamer.attacks.registry import build
from gossamer.recipe import identity
from gossamer.recipe.build import build_data, build_model, build_phases
from gossamer.recipe.load import load_recipe
from gossamer.sparsity import targets
from gossamer.threat import ThreatModel
from gossamer.training.rehearsal import rehearse
from method_rows import SCALES, Row

ROWS = [(name, row) for name, scale in SCALES.items() for row in scale.rows]


@pytest.mark.parametrize(("scale", "row"), ROWS, ids=[f"{name}-{row.name}" for name, row in ROWS])
def test_every_row_is_a_recipe_that_can_be_trained(scale, row):
    recipe = load_recipe(row.recipe, method_rows.settings(row, SCALES[scale], 3))
    assert (recipe.seed, recipe.evaluation, recipe.machine.threads) == (3, (), 1)
    assert recipe.data.name == scale
    assert set(row.controls) <= {other.name for other in SCALES[scale].rows}
    assert not row.page or (method_pages.PAGES / f"{row.page}.md").exists()


DIGITS_ALONE = [row for row in SCALES["digits"].rows if row.scales == ("digits",)]


@pytest.mark.parametrize("row", DIGITS_ALONE, ids=[row.name for row in DIGITS_ALONE])
def test_a_row_of_the_digits_alone_can_begin_and_is_trained_with_few_seeds(row):
    recipe = load_recipe(row.recipe, method_rows.settings(row, SCALES["digits"], 0))
    parts = build_data(recipe)
    rehearse(build_phases(recipe, parts), lambda: build_model(recipe, parts.train), parts.train)
    assert list(row.seeds((4, 5, 6, 7))) in ([4], [4, 5, 6])
    assert row.name not in {other.name for other in SCALES["cifar10"].rows}


def test_a_small_dense_network_has_as_many_weights_as_the_masked_ones_keep():
    (row,) = [row for row in SCALES["digits"].rows if row.page == "small-dense"]
    recipe = load_recipe(row.recipe, method_rows.settings(row, SCALES["digits"], 0))
    weights = sum(layer.size for layer in targets(build_model(recipe, build_data(recipe).train)))
    assert 0.095 * 58_656 < weights <= 0.1 * 58_656
    assert row.name == f"small dense, {100 * weights / 58_656:.1f} % of the weights"


def test_a_stochastic_network_is_attacked_through_the_mean_of_many_passes(tmp_path, monkeypatch):
    (row,) = [row for row in SCALES["digits"].rows if row.attacks]
    job = methods_table.Job(row=row, seed=0, scale=SCALES["digits"], runs=tmp_path)
    asked = []
    monkeypatch.setattr(methods_table.Job, "_run", lambda self, command: (asked.append(command), (0, 1.0))[1])
    for attack in SCALES["digits"].attacks:
        job._attack(tmp_path / "run", attack)
    assert [command[3] for command in asked] == ["through_passes:pgd_50_10", "autoattack-rand"]
    made = build("through_passes:pgd_50_10", ThreatModel("linf", 0.15))
    assert (made.passes, made.attack) == (10, build("pgd-50-10", ThreatModel("linf", 0.15)))


def test_epochs_of_every_phase_shrink_together():
    row = Row(name="hydra", recipe="hydra/digits-90")
    recipe = load_recipe(row.recipe, method_rows.settings(row, SCALES["cifar10"], 0))
    assert (recipe.training.epochs, recipe.method.prune_epochs, recipe.method.finetune_epochs) == (5, 3, 10)


def made(name, seed, robust, *controls, under_autoattack=None, why=""):
    return methods_table.Made(
        row=Row(name=name, recipe=f"{name}/digits-90", controls=controls, why=why),
        seed=seed,
        key="made",
        attacked_by={"pgd-50-10": "pgd-50-10", "autoattack": "autoattack"},
        clean=0.9,
        robust={"pgd-50-10": robust, "autoattack": robust if under_autoattack is None else under_autoattack},
        n={"pgd-50-10": 100, "autoattack": 50},
        density=0.1,
        work_ratio=10.0,
        nonzero={"conv1": 8, "fc": 2},
        seconds=60.0,
        cpu="this one",
    )


def reached(runs):
    [table, layers] = methods_table.result("digits", SCALES["digits"], runs).tables
    return {row[0]: dict(zip(table.columns, row, strict=True)) for row in table.rows}, layers


@pytest.mark.parametrize(("robust", "verdict"), [(0.8, "ahead"), (0.51, "within"), (0.2, "behind")])
def test_a_method_is_held_against_its_control_beyond_the_spread(robust, verdict):
    runs = [made("random", seed, 0.5 + 0.02 * seed) for seed in (0, 1)]
    runs += [made("bcs", seed, robust + 0.02 * seed, "random") for seed in (0, 1)]
    rows, layers = reached(runs)
    # Means differ by robust - 0.5; each has a standard error of 0.01, their difference one of 0.0141.
    assert rows["bcs"]["verdict"] == verdict
    assert rows["bcs"]["against controls"] == f"{100 * (robust - 0.5):+.1f} / {100 * (robust - 0.5):+.1f} random"
    assert rows["bcs"]["pgd-50-10, n=100"] == f"{100 * robust + 1:.1f} ± 1.4"
    assert (rows["random"]["against controls"], rows["random"]["verdict"]) == ("", "")
    assert list(layers.rows[1]) == ["bcs", 8, 2]


def test_two_seeds_are_less_sure_than_five():
    for seeds, verdict in (((0, 1), "within"), ((0, 1, 0, 1, 0), "ahead")):
        # Means differ by 0.05: 3.5 standard errors of two seeds, of which there are 2 degrees of freedom, to 4.3.
        runs = [made("random", place, 0.5 + 0.02 * high) for place, high in enumerate(seeds)]
        runs += [made("bcs", place, 0.55 + 0.02 * high, "random") for place, high in enumerate(seeds)]
        assert reached(runs)[0]["bcs"]["verdict"] == verdict


def test_one_seed_is_as_sure_as_its_images():
    rows, _ = reached([made("random", 0, 0.5), made("bcs", 0, 0.6, "random")])
    assert rows["bcs"]["verdict"] == "within"  # 0.1 against 2 * sqrt(0.0025 + 0.0024), of 100 images
    rows, _ = reached([made("random", 0, 0.5), made("bcs", 0, 0.75, "random")])
    assert rows["bcs"]["verdict"] == "ahead"


def test_the_worst_of_all_attacks_and_controls_is_the_verdict_and_wants_a_reason():
    runs = [made("random", 0, 0.5), made("dense", 0, 0.9), made("natural", 0, 0.2)]
    rows, _ = reached([*runs, made("bcs", 0, 0.9, "random", under_autoattack=0.1)])
    assert rows["bcs"]["against controls"] == "+40.0 / -40.0 random"
    assert rows["bcs"]["verdict"] == "behind"
    runs.append(made("bcs", 0, 0.7, "random", "dense"))
    rows, _ = reached(runs)
    assert rows["bcs"]["against controls"] == "+20.0 / +20.0 random; -20.0 / -20.0 dense"
    assert rows["bcs"]["verdict"] == "behind"
    assert methods_table.unexplained(runs, SCALES["digits"]) == ["bcs"]
    explained = [*runs[:-1], made("bcs", 0, 0.7, "random", "dense", why="half the weights")]
    assert methods_table.unexplained(explained, SCALES["digits"]) == []
    assert reached(explained)[0]["bcs"]["why"] == "half the weights"
    level = [*runs[:-1], made("bcs", 0, 0.9, "random", why="half the weights")]
    assert reached(level)[0]["bcs"]["why"] == ""


@pytest.mark.parametrize("counted", [True, False])
def test_a_run_whose_seconds_were_lost_begins_again(counted, tmp_path, monkeypatch):
    job = methods_table.Job(row=Row(name="bcs", recipe="bcs/digits-90"), seed=0, scale=SCALES["digits"], runs=tmp_path)
    (tmp_path / job.name).mkdir()
    (tmp_path / job.name / "checkpoint").touch()
    if counted:
        (tmp_path / f"{job.name}.cost.json").write_text(json.dumps({"key": job.key, "seconds": 7.0}))
    found = []

    def run(self, command):
        found.append((tmp_path / job.name / "checkpoint").exists())
        return 1, 2.0

    monkeypatch.setattr(methods_table.Job, "_run", run)
    assert job.make() == "bcs-seed0: training ended with 1"
    assert found == [counted]
    cost = json.loads((tmp_path / f"{job.name}.cost.json").read_text())
    assert cost == {"key": job.key, "seconds": 9.0 if counted else 2.0}


def test_what_the_record_holds_is_made_again_only_where_it_would_come_out_otherwise(tmp_path, monkeypatch):
    scale = SCALES["digits"]
    (row,) = [row for row in scale.rows if row.name == "bcs"]
    jobs = [methods_table.Job(row=row, seed=seed, scale=scale, runs=tmp_path) for seed in (0, 1)]
    before = [
        replace(made("bcs", job.seed, 0.5), row=row, key=job.key, n={"pgd-50-10": 360, "autoattack": 100})
        for job in jobs
    ]
    path = methods_table.record.write(methods_table.result("digits", scale, before), tmp_path)
    assert methods_table.recorded(path, jobs) == {job.name: run for job, run in zip(jobs, before, strict=True)}
    assert methods_table.recorded(tmp_path / "none.json", jobs) == {}
    for changed in ({"key": "of another recipe"}, {"n": {"pgd-50-10": 360, "autoattack": 50}}, {"attacked_by": {}}):
        methods_table.record.write(
            methods_table.result("digits", scale, [replace(before[0], **changed), before[1]]), tmp_path
        )
        assert list(methods_table.recorded(path, jobs)) == [jobs[1].name]

    asked = []
    monkeypatch.setattr(methods_table.Job, "make", lambda job: asked.append(job.name) or job.name)
    found = ["--runs", str(tmp_path / "runs"), "--results", str(tmp_path), "--only", "bcs", "--seeds", "0", "1", "2"]
    assert methods_table.main(found) == 0
    assert asked == ["bcs-seed0", "bcs-seed2"]
    held = json.loads(path.read_text())["details"]["runs"]
    assert [(run["row"], run["seed"]) for run in held] == [("bcs", 1)]


def test_what_a_run_is_made_by_is_its_recipe_and_the_version_of_its_arithmetic(tmp_path, monkeypatch):
    scale = SCALES["digits"]
    job = methods_table.Job(row=Row(name="bcs", recipe="bcs/digits-90"), seed=0, scale=scale, runs=tmp_path)
    assert job.key == replace(job, row=replace(job.row, name="another name")).key
    assert job.key != replace(job, seed=1).key
    assert job.key != replace(job, row=replace(job.row, settings=("method.penalty=l1",))).key
    monkeypatch.setattr(identity, "semantics", lambda path: 2 if path.endswith(".bcs") else 1)
    assert job.key != replace(job).key


def test_what_lies_there_of_another_recipe_is_neither_tabulated_nor_overwritten(tmp_path):
    job = methods_table.Job(row=Row(name="bcs", recipe="bcs/digits-90"), seed=0, scale=SCALES["digits"], runs=tmp_path)
    for name, value in (
        ("cost", {"key": "another", "seconds": 1.0}),
        ("pgd-50-10", {"n": 360}),
        ("autoattack", {"n": 100}),
    ):
        (tmp_path / f"bcs-seed0.{name}.json").write_text(json.dumps(value))
    assert not job.is_complete()
    assert "made by another recipe" in job.make()
    (tmp_path / "bcs-seed0.cost.json").write_text(json.dumps({"key": job.key, "seconds": 1.0}))
    assert job.is_complete()
    (tmp_path / "bcs-seed0.autoattack.json").write_text(json.dumps({"n": 50}))
    assert not job.is_complete()


def test_pages_hold_their_rows_and_pictures_and_stay_when_written_again(tmp_path, capsys):
    page = tmp_path / "small-dense.md"
    page.write_text("# Controls\n")
    runs = [made("random", 0, 0.5), made("dense", 0, 0.6), made("bcs", 0, 0.6, "random")]
    methods_table.record.write(methods_table.result("digits", SCALES["digits"], runs), tmp_path)
    (tmp_path / "random.md").write_text("# Random masks\n")
    (tmp_path / "dense.md").write_text("# Dense\n")
    (tmp_path / "bcs.md").write_text("# BCS\n\n## Cost\n\nLittle.\n")
    arguments = ["--results", str(tmp_path), "--pages", str(tmp_path)]
    assert method_pages.main([*arguments, "--check"]) == 1
    assert "bcs.md: out of date" in capsys.readouterr().out
    assert method_pages.main(arguments) == 0
    assert method_pages.main([*arguments, "--check"]) == 0
    text = (tmp_path / "bcs.md").read_text()
    assert text.startswith("# BCS\n\n## Cost\n\nLittle.\n\n## Measured\n")
    assert "| bcs | 1 | 0.1 |" in text
    drawn = (tmp_path / "pictures" / "bcs.svg").read_text()
    assert drawn.startswith("<svg ")
    assert drawn.count("<rect") == 1 + 2 * 2 + 2
    assert "| dense | 1 | 0.1 |" in (tmp_path / "dense.md").read_text()
    assert page.read_text() == "# Controls\n"
