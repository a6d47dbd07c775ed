"""Several runs on one page: seeds together, lines over density, the frontier, and lines of rows over each other."""

import base64
import gzip
import html
import itertools
import json
import math
import re
import statistics
from dataclasses import replace

import made_records
import pytest

from gossamer import write_report
from gossamer.report import overlays, palette
from gossamer.report.comparison import comparison
from gossamer.report.conditions import conditions, reached
from gossamer.report.curves import security_curves
from gossamer.report.families import families
from gossamer.report.groups import grouped
from gossamer.report.latencies import latencies
from gossamer.report.views import collect
from gossamer.runs import RunFolder, records, results
from gossamer.runs.timings import read_timings


def page_of(tmp_path, runs, with_=()):
    return write_report([run.path for run in runs], tmp_path / "page.html", records=with_).read_text(encoding="utf-8")


def prose(page):
    body = re.sub(r"<(script|style)\b.*?</\1>", " ", page, flags=re.DOTALL)
    return " ".join(html.unescape(re.sub(r"<[^>]+>", " ", body)).split())


def figures_of(page):
    (packed,) = re.findall(r'id="figures">([^<]*)<', page)
    return json.loads(gzip.decompress(base64.b64decode(packed)))["drawn"]


def by_name(figure):
    return {trace["name"]: trace for trace in figure["data"]}


def robust(strength):
    return round(round(0.95 * 360) * math.exp(-0.3 / strength)) / 360


def test_seeds_of_a_recipe_share_a_row_with_mean_and_deviation(short, tmp_path):
    strengths = (1.0, 1.5, 2.0)
    runs = [short(f"bcs-seed{i}", "bcs", 0.1, seed=i, strength=each) for i, each in enumerate(strengths)]
    page = page_of(tmp_path, [*runs, short("dense")])
    found = [robust(each) for each in strengths]
    mean, deviation = statistics.fmean(found), statistics.stdev(found)
    assert "bcs 3 seeds: 0 1 2 bcs" in prose(page)
    assert f"{100 * mean:.1f} % ± {100 * deviation:.1f} over 3 seeds n=360" in prose(page)
    assert "2 of 2 rows, 4 of 4 runs." in prose(page)
    assert 'data-row="0" data-runs="3"' in page
    for number in (1, 2, 3):
        assert f'href="#run-{number}"' in page


def test_runs_of_one_recipe_and_one_seed_are_not_merged(short):
    views = collect([short(name, "bcs", 0.1).path for name in ("first", "second")])
    assert [group.name for group in grouped(views)] == ["first", "second"]


@pytest.mark.parametrize(
    ("names", "shared"),
    [
        (("bcs-seed0", "bcs-seed1"), "bcs"),
        (("bcs-l1-s10", "bcs-l1-s11"), "bcs-l1"),
        (("toys3", "toys4"), "toys"),
        (("a", "b"), "synthetic/toy"),
    ],
)
def test_a_row_is_named_by_what_its_runs_share(names, shared, short):
    views = collect([short(name, "bcs", 0.1, seed=seed).path for seed, name in enumerate(names)])
    assert [group.name for group in grouped(views)] == [shared]


def test_a_line_is_a_method_and_an_objective(short):
    runs = [
        short("bcs-10", "bcs", 0.1),
        short("bcs-1", "bcs", 0.01),
        short("bcs-natural", "bcs", 0.1, objective="natural"),
        short("lwm", "magnitude", 0.1),
    ]
    assert list(families(grouped(collect([run.path for run in runs]))).values()) == [
        "bcs · trades",
        "bcs · trades",
        "bcs · natural",
        "magnitude · trades",
    ]


def test_lines_are_told_apart_by_what_differs_where_a_density_repeats(short):
    runs = [short(f"{lr}-{density}", "bcs", density) for lr in ("slow", "fast") for density in (0.1, 0.01)]
    for run in runs:
        with run.recipe.open("a") as file:
            file.write(f"training: {{lr: {0.1 if run.name.startswith('slow') else 0.2}}}\n")
    assert list(families(grouped(collect([run.path for run in runs]))).values()) == [
        *["bcs · trades (lr 0.1)"] * 2,
        *["bcs · trades (lr 0.2)"] * 2,
    ]


def test_accuracy_over_density_has_natural_training_the_dense_line_and_rings(short, tmp_path):
    runs = [
        short("sparse-10", "bcs", 0.1, strength=0.8),
        short("sparse-1", "bcs", 0.01, strength=0.4),
        short("dense", strength=1.0),
        short("natural", objective="natural", strength=0.05),
        short("noisy", "pni", strength=0.9),
    ]
    records.write(runs[0].result("protocol-matching-1"), compared_as(runs[0]))
    drawn = by_name(figures_of(page_of(tmp_path, runs))["all-robust"])
    line = drawn["bcs · trades"]
    densities = [results.read_network(run).totals.density for run in (runs[1], runs[0])]
    assert line["x"] == densities
    assert line["y"] == [robust(0.4), robust(0.8)]
    assert line["meta"]["rows"] == [1, 0]
    assert line["text"][1].startswith("sparse-10: density ")
    assert "matches its dense parent" in line["text"][1]
    assert f"robust {100 * robust(0.8):.1f} % [" in line["text"][1]
    assert line["text"][1].count("n=360") == 1
    across = drawn["dense · trades, dense line"]
    assert (across["x"], across["y"]) == ([densities[0], 1], [robust(1.0)] * 2)
    assert drawn["dense · natural"]["y"] == [robust(0.05)]
    assert "pni · trades" in drawn
    assert "pni · trades, dense line" not in drawn
    assert drawn["matches its dense parent"]["meta"]["rows"] == [0]
    assert drawn["matches its dense parent"]["y"] == [robust(0.8)]


def compared_as(run):
    """Return a table in which a run matches its parent, on what and under which it was evaluated."""
    measured = results.read_evaluation(run.result("pgd"))
    table = made_records.matching(run.name, "matches", threat=measured.threat)
    rows = [replace(row, model=replace(row.model, nonzero=measured.model.nonzero)) for row in table.rows]
    return replace(table, dataset=measured.dataset, attack=measured.attack_parameters, rows=tuple(rows))


def test_of_runs_of_one_name_a_match_is_marked_at_that_whose_folder_says_so(short, tmp_path):
    first, second = short("here/sparse", "bcs", 0.1), short("there/sparse", "bcs", 0.1, objective="natural")
    table = compared_as(first)

    def marked(run):
        records.write(run.result("protocol-matching-1"), replace(table, rows=named))
        drawn = by_name(figures_of(page_of(tmp_path, [first, second]))["all-robust"])
        run.result("protocol-matching-1").unlink()
        return drawn["matches its dense parent"]["meta"]["rows"]

    named = tuple(replace(row, model=replace(row.model, name="sparse")) for row in table.rows)
    assert marked(first) == [0]
    assert marked(second) == [1]


def test_a_match_under_another_condition_is_not_marked(short, tmp_path):
    runs = [short("sparse", "bcs", 0.1), short("dense")]
    table = compared_as(runs[0])
    (row,) = table.rows

    def is_marked(**changes):
        records.write(runs[0].result("protocol-matching-1"), replace(table, **changes))
        page = page_of(tmp_path, runs)
        assert ("Rings:" in page) == ("matches its dense parent" in by_name(figures_of(page)["all-robust"]))
        return "Rings:" in page

    assert is_marked()
    assert not is_marked(threat="linf:8/255")
    assert not is_marked(attack={**table.attack, "steps": 10})
    assert not is_marked(attack={"type": "gossamer.attacks.square.Square"})
    for changes in ({"name": "cifar10"}, {"part": "held_out"}, {"checksum": "of others"}):
        assert not is_marked(dataset=replace(table.dataset, **changes)), changes
    assert not is_marked(rows=(replace(row, model=replace(row.model, nonzero=row.model.nonzero + 1)),))


def test_each_condition_has_its_own_figures(short, tmp_path):
    runs = [short("a", "bcs", 0.1), short("b"), short("c", "bcs", 0.2)]
    told = json.dumps(results.read_evaluation(runs[0].result("pgd")).to_json())
    weaker = results.Evaluation.from_json(json.loads(told.replace("0.15", "0.05")))
    results.write_evaluation(runs[0], "weak", weaker)
    groups = grouped(collect([run.path for run in runs]))
    first, second = conditions(groups)
    assert first.label == "PGD-50 ×10, linf eps 0.15, synthetic-digits test"
    assert [one.group.name for one in reached(groups, second)] == ["a"]
    page = page_of(tmp_path, runs)
    assert [len(trace["x"]) for trace in figures_of(page)["all-robust:1"]["data"]] == [1]
    assert "PGD-50 ×10, linf eps 0.05, synthetic-digits test" in prose(page)


def rewritten(run, changes, name="other"):
    told = results.read_evaluation(run.result("pgd")).to_json()
    results.write_evaluation(run, name, results.Evaluation.from_json(changes(told)))


def test_attacks_of_one_name_that_differ_share_no_column_and_no_chart(short, tmp_path):
    runs = [short("a", "bcs", 0.1), short("b")]

    def with_another_step(told):
        told["attacks"][0]["parameters"]["step"] = told["attack_parameters"]["step"] = "0.01"
        return told

    rewritten(runs[1], with_another_step, "pgd")
    found = [each.label for each in conditions(grouped(collect([run.path for run in runs])))]
    said = "PGD-50 ×10, step {}, linf eps 0.15, synthetic-digits test"
    assert sorted(found) == [said.format("0.01"), said.format("2.5eps/n")]
    page = prose(page_of(tmp_path, runs))
    assert "PGD-50 ×10, step 0.01 linf eps 0.15" in page
    alone = collect([runs[1].path])
    assert [each.attack for each in conditions(grouped(alone))] == ["PGD-50 ×10"]


def test_what_was_measured_on_held_out_images_fills_no_column_of_the_test_set(short, tmp_path):
    run = short("a", "bcs", 0.1)

    def on_held_out(told):
        told["dataset"]["part"] = "held_out"
        told["attacks"][0]["attack"] = told["attack"] = "autoattack"
        told["attacks"][0]["parameters"] = told["attack_parameters"] = {"version": "standard"}
        return told

    rewritten(run, on_held_out)
    (view,) = collect([run.path])
    assert [each.attack for each in view.comparable] == ["pgd-50-10"]
    assert [curve.attack for curve in security_curves([view])] == ["PGD-50 ×10"]
    assert "AutoAttack" not in [column.title for column in comparison(grouped([view]), [], {}, {"a": "a"}).columns]


def test_a_row_says_how_many_of_its_seeds_an_attack_was_run_on(short, tmp_path):
    runs = [short("a-seed0", "bcs", 0.1), short("a-seed1", "bcs", 0.1)]
    runs[1].recipe.write_text(runs[1].recipe.read_text().replace("seed: 7", "seed: 8"))

    def stronger(told):
        told["attacks"][0]["attack"] = told["attack"] = "autoattack"
        told["attacks"][0]["parameters"] = told["attack_parameters"] = {"version": "standard"}
        return told

    rewritten(runs[0], stronger)
    assert "1 of 2 runs" in prose(page_of(tmp_path, runs))


def test_pareto_charts_hold_the_costs_that_were_measured(short, tmp_path):
    runs = [short("sparse", "bcs", 0.1), short("dense")]
    made_records.bench({"any.c": 2.0, "any.gsm": 3.0}).save(runs[0].artifacts / "bench.json")
    outside = tmp_path / "bench.json"
    made_records.bench({"dense.c": 9.0}).save(outside)
    page = page_of(tmp_path, runs, with_=[outside])
    drawn = figures_of(page)
    totals = [results.read_network(run).totals for run in runs]
    for key, costs in (
        ("nonzeros", [each.nonzero for each in totals]),
        ("work", [each.kept_multiply_adds for each in totals]),
        ("latency", [2.0, 9.0]),
    ):
        traces = [trace for trace in drawn[f"all-{key}"]["data"] if "rows" in trace["meta"]]
        assert [trace["x"] for trace in traces] == [[pytest.approx(cost)] for cost in costs]
        assert [trace["y"] for trace in traces] == [[robust(1.0)]] * 2
        assert [trace["meta"] for trace in drawn[f"all-{key}"]["data"]][-1] == {"frontier": True}
    assert "latency one image, toy processor, 1 thread" in prose(page)
    assert "2 ms any.c" in prose(page)
    assert "9 ms dense.c" in prose(page)


def test_a_dense_parent_timed_beside_a_run_is_not_the_run(short, tmp_path):
    """A bench in a run's folder may hold its parent's artifacts too: where sparse is slower, they are the fastest."""
    run = short("sparse", "bcs", 0.1)
    density = results.read_network(run).totals.density
    made_records.bench(
        {"sparse.c": 5.0, "sparse_int8.c": 4.0, "dense.c": 1.0, "unknown.onnx": 0.5},
        densities={"sparse.c": density, "sparse_int8.c": density * 0.999, "dense.c": 1.0},
    ).save(run.results / "bench.json")
    (timed,) = latencies(grouped(collect([run.path])), []).values()
    assert (timed.of, timed.seconds) == ("sparse_int8.c", 4.0 / 1e3)


def test_files_that_are_named_as_c_takes_it_belong_to_the_run_too(short, tmp_path):
    run = short("bcs-seed0", "bcs", 0.1)
    made_records.bench({"bcs_seed0.c": 5.0, "bcs_seed1.c": 1.0}).save(tmp_path / "bench.json")
    (timed,) = latencies(grouped(collect([run.path])), [read_timings(tmp_path / "bench.json")]).values()
    assert timed.of == "bcs_seed0.c"


def test_without_a_bench_there_is_no_latency(short, tmp_path):
    page = page_of(tmp_path, [short("sparse", "bcs", 0.1), short("dense")])
    assert "all-latency" not in figures_of(page)
    assert "latency" not in prose(page)


def test_latencies_of_different_devices_are_not_compared(short, tmp_path):
    densities = {"a": 0.1, "b": 0.2, "c": 0.3, "d": 0.4}
    runs = [short(name, "bcs", density) for name, density in densities.items()]
    found = []
    for name, device, cost in (
        *(("a", "near", 1.0), ("b", "near", 2.0)),
        *(("b", "far", 0.1), ("c", "far", 0.3), ("d", "far", 0.4)),
    ):
        path = tmp_path / f"{name}-{device}.json"
        made_records.bench({f"{name}.c": cost}, device=device).save(path)
        found.append(read_timings(path))
    # However often one row was timed, it is one of the rows that the device has.
    found += [found[0]] * 3
    timed = latencies(grouped(collect([run.path for run in runs])), found)
    assert {place: one.device for place, one in timed.items()} == {1: "far", 2: "far", 3: "far"}
    assert timed[1].seconds == 0.1 / 1e3


def test_densities_by_layer_and_block_are_means_over_seeds(short):
    runs = [short(f"bcs-seed{i}", "bcs", density, seed=i) for i, density in enumerate((0.1, 0.1))]
    low, high = (results.read_network(run) for run in runs)
    (group,) = grouped(collect([run.path for run in runs]))
    (trace,) = overlays.layers([group])["data"]
    assert trace["x"] == [layer.name for layer in low.layers]
    means = [(a.density + b.density) / 2 for a, b in zip(low.layers, high.layers, strict=True)]
    assert trace["y"] == pytest.approx(means, rel=1e-4)
    (trace,) = overlays.blocks([group])["data"]
    first = [layer for layer in low.layers if layer.block == "block1"]
    kept = sum(layer.nonzero for layer in first) / sum(layer.weights for layer in first)
    assert (trace["x"][0], trace["y"][0]) == ("block1", pytest.approx(kept, rel=1e-4))


def test_weights_kept_per_kernel_are_shares_of_all_kernels(short, tmp_path):
    counts = (1, 2, 0, 0, 0, 0, 0, 0, 0, 1)
    runs = [short("sparse", "bcs", 0.1, kernels=counts), short("dense")]
    (trace,) = figures_of(page_of(tmp_path, runs))["all-kernels"]["data"]
    assert trace["x"] == list(range(10))
    assert trace["y"] == [0.25, 0.5, 0, 0, 0, 0, 0, 0, 0, 0.25]


def test_a_page_says_that_no_record_counts_kernels(short, tmp_path):
    page = page_of(tmp_path, [short("sparse", "bcs", 0.1), short("dense")])
    assert "all-kernels" not in figures_of(page)
    assert "Weights kept per kernel are not drawn" in prose(page)


def test_weights_lie_over_each_other_by_share_and_over_the_largest(short, tmp_path):
    figure = figures_of(page_of(tmp_path, [short("sparse", "bcs", 0.1), short("dense")]))["all-weights"]
    assert figure["layout"]["yaxis"]["type"] == "log"
    for trace in figure["data"]:
        assert sum(filter(None, trace["y"])) == pytest.approx(1, rel=1e-3)
        assert (trace["x"][0], trace["x"][-1]) == (-0.95, 0.95)


def test_security_curves_of_seeds_are_their_mean_with_the_least_and_the_most(finished, tmp_path):
    runs = [finished("bcs-seed0", "bcs", 0.1), finished("bcs-seed1", "bcs", 0.1, strength=2.0)]
    runs[1].recipe.write_text(runs[1].recipe.read_text().replace("seed: 7", "seed: 8"))
    band, line = figures_of(page_of(tmp_path, runs))["security-linf"]["data"]
    place = line["x"].index(0.15)
    low, high = robust(1.0), robust(2.0)
    assert line["y"][place] == pytest.approx((low + high) / 2)
    assert band["y"][place] == pytest.approx(high)
    assert band["y"][len(band["y"]) - 1 - place] == pytest.approx(low)


def test_a_page_of_many_runs_is_folded_and_says_what_it_leaves_out(short, finished, tmp_path):
    runs = [short(f"bcs-{i}", "bcs", 0.1 + i / 100) for i in range(13)]
    page = page_of(tmp_path, [*runs, finished("pictured")])
    assert page.count('<details class="whole">') == 14
    assert "A line a row, of the first 12 rows of the table" in prose(page)
    assert "Left out on a page of 14 runs: more images" in prose(page)
    assert "updatemenus" not in json.dumps(figures_of(page)["weights-0"])


def test_a_run_without_results_stands_in_the_table_and_in_no_chart(begun, short, tmp_path):
    page = page_of(tmp_path, [begun("young", "bcs", 0.1), short("dense")])
    assert "young bcs – – – – – –" in prose(page)
    rows = [row for trace in figures_of(page)["all-robust"]["data"] for row in trace["meta"].get("rows", [])]
    assert rows == [1]


def test_a_recipe_cannot_become_markup(short, tmp_path):
    evil = "<script>alert(1)</script>"
    run = short("a", "bcs", 0.1)
    run.recipe.write_text(run.recipe.read_text().replace("name: bcs", f"name: '{evil}\" onclick=\"x'"))
    page = page_of(tmp_path, [run, short("dense")])
    assert evil not in page
    assert 'onclick="x' not in page
    assert "<script>" not in json.dumps(figures_of(page))


def test_rows_over_each_other_have_looks_of_their_own():
    looks = [tuple(look.values()) for look in overlays.looks()]
    assert len({*looks}) == len(looks) == overlays.PICKED
    for one, other in itertools.pairwise(looks):
        assert all(a != b for a, b in zip(one, other, strict=True))


# Full dichromacy in linear RGB (Machado, Oliveira & Fernandes, 2009, table 1).
DICHROMACY = {
    "protanopia": ((0.152286, 1.052583, -0.204868), (0.114503, 0.786281, 0.099216), (-0.003882, -0.048116, 1.051998)),
    "deuteranopia": ((0.367322, 0.860646, -0.227968), (0.280085, 0.672501, 0.047413), (-0.011820, 0.042940, 0.968881)),
    "tritanopia": ((1.255528, -0.076749, -0.178779), (-0.078411, 0.930809, 0.147602), (0.004733, 0.691367, 0.303900)),
}


@pytest.mark.parametrize("kind", DICHROMACY)
def test_neighbouring_colours_differ_to_colour_blind_eyes(kind):
    seen = [
        _lab([sum(m * c for m, c in zip(row, _linear(colour), strict=True)) for row in DICHROMACY[kind]])
        for colour in palette.RUNS
    ]
    for one, other in itertools.pairwise(seen):
        assert math.dist(one, other) > 10


def _linear(colour):
    parts = (int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5))
    return [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts]


def _lab(rgb):
    """CIE 1976 L*a*b* of linear sRGB under D65."""
    matrix = ((0.4124, 0.3576, 0.1805), (0.2126, 0.7152, 0.0722), (0.0193, 0.1192, 0.9505))
    clipped = [min(max(c, 0.0), 1.0) for c in rgb]
    xyz = [sum(m * c for m, c in zip(row, clipped, strict=True)) for row in matrix]
    scaled = [v / white for v, white in zip(xyz, (0.9505, 1.0, 1.089), strict=True)]
    x, y, z = (v ** (1 / 3) if v > 0.008856 else 7.787 * v + 16 / 116 for v in scaled)
    return 116 * y - 16, 500 * (x - y), 200 * (y - z)


def test_a_bench_of_another_version_in_a_run_is_noted(short, tmp_path):
    runs = [short("sparse", "bcs", 0.1), short("dense")]
    (RunFolder(runs[0].path).results / "bench.json").write_text('{"schema": "gossamer/bench/99"}')
    assert "Could not read" in prose(page_of(tmp_path, runs))
