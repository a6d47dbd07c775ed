"""Numbers that are picked from protocols' records, written by hand, and the entries that they fill."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from gossamer.errors import ConfigError, RunError
from gossamer.intervals import fisher, wilson
from gossamer.recipe.identity import versions_of
from gossamer.recipe.load import run_name
from gossamer.reproduce.drawing import part
from gossamer.reproduce.measured import READERS, Seen, check_picked, read_measured, weighed
from gossamer.reproduce.published import Entry, load_entry
from gossamer.reproduce.reading import NoneFound, Number, read_number, spent_asking
from gossamer.reproduce.scales import Ours, Place, Reading, Study, load_study, places
from gossamer.reproduce.standing import Rebuilt, rebuild, total
from gossamer.reproduce.text import both_texts, markdown
from gossamer.runs import RunFolder, protocols, records, results
from gossamer.runs.protocols import LayerWeights, Share
from gossamer.sweep.measurement import Measurement
from gossamer.sweep.spec import Case
from gossamer.sweep.store import Store

DATA = results.Dataset(name="digits", part="test", checksum="c", selection="all", n=10)
COMMON: dict[str, Any] = {"dataset": DATA, "environment": {}}


def share(right: str) -> Share:
    counted = right.count("1")
    return Share(value=counted / len(right), interval=wilson(counted, len(right)), n=len(right), right=right)


def model(name: str) -> results.EvaluatedModel:
    return results.EvaluatedModel(name=name, weights=100, nonzero=50, density=0.5)


def right(count: int) -> str:
    return "1" * count + "0" * (10 - count)


def transfer(runs: Sequence[str], sources: Sequence[str], eps: Sequence[float]) -> protocols.TransferMatrix:
    """The target of place t keeps 9 - t images on the examples of source s at the first radius, fewer at others."""
    cells = [
        [tuple(share(right(max(0, 9 - target - source - at))) for at in range(len(eps))) for target in range(len(runs))]
        for source in range(len(sources))
    ]
    return protocols.TransferMatrix(
        seed=0,
        norm="linf",
        eps=tuple(eps),
        attack={},
        models=tuple(protocols.MatrixModel(model=model(name), kind="k", clean=share(right(10))) for name in runs),
        sources=tuple(list(runs).index(name) for name in sources),
        accuracy=tuple(tuple(row) for row in cells),
        dangers=(),
        sentences=(),
        examples=None,
        **COMMON,
    )


def ensemble(runs: Sequence[str]) -> protocols.EnsembleTable:
    return protocols.EnsembleTable(
        seed=0,
        threat="linf:0.15",
        eps=0.15,
        attack={},
        model=model(" + ".join(runs)),
        parameters=100,
        clean=share(right(9)),
        as_one=share(right(4)),
        member_wise=share(right(7)),
        flattery=0.3,
        members=(),
        **COMMON,
    )


def stochastic(runs: Sequence[str]) -> protocols.StochasticTable:
    def mode(name: str, clean: int, robust: int) -> protocols.NoiseMode:
        def spread(count: int) -> protocols.Spread:
            return protocols.Spread(values=(count / 10,), mean=count / 10, deviation=None, right=(right(count),))

        noise = name != "without noise"
        return protocols.NoiseMode(name=name, noise=noise, passes=1, clean=spread(clean), robust=spread(robust))

    modes = (mode("noise and EOT", 9, 5), mode("noise, one pass", 9, 7), mode("without noise", 8, 6))
    return protocols.StochasticTable(
        seeds=(0,),
        threat="linf:0.15",
        eps=0.15,
        attack={},
        rows=tuple(protocols.StochasticRow(model=model(name), modes=modes) for name in runs),
        **COMMON,
    )


def black_box(runs: Sequence[str]) -> protocols.BlackBoxTable:
    """The first network falls on 9 of 10 samples, the next on 2."""

    def row(name: str, broken: int) -> protocols.QueriedModel:
        samples = tuple(
            protocols.Queried(index=index, success=index < broken, queries=1, distance=1.0) for index in range(10)
        )
        success = Share(value=broken / 10, interval=wilson(broken, 10), n=10)
        return protocols.QueriedModel(
            name=name, asked=10, success=success, median_queries=1, mean_queries=1, samples=samples
        )

    rows = tuple(row(name, 9 - 7 * place) for place, name in enumerate(runs))
    return protocols.BlackBoxTable(seed=0, threat="l2:1.2", attack={}, rows=rows, **COMMON)


def layer(name: str, *, mean: float, deviation: float, magnitude: float, nonzero: int) -> LayerWeights:
    half = nonzero // 2
    return LayerWeights(
        name=name,
        weights=36,
        nonzero=nonzero,
        mean=mean,
        deviation=deviation,
        magnitude=magnitude,
        below=(36 - nonzero, 36),
        by_output=(nonzero - 2, 2),
        by_input=(half, nonzero - half),
        kernels=(1, 0, 1, 0, 0, 0, 0, 0, 0, 2),
        at_random=(0.5, 3.5, 0, 0, 0, 0, 0, 0, 0, 0),
    )


LAYERS = (
    layer("conv1.weight", mean=9.0, deviation=9.0, magnitude=9.0, nonzero=36),
    layer("conv2.weight", mean=1.0, deviation=2.0, magnitude=3.0, nonzero=20),
    layer("conv3.weight", mean=-1.0, deviation=4.0, magnitude=6.0, nonzero=10),
)


def weights(runs: Sequence[str], gammas: Sequence[float] = (0.01, 0.1)) -> protocols.WeightsTable:
    rows = tuple(protocols.NetworkWeights(name=name, parameters=2_500_000, layers=LAYERS) for name in runs)
    return protocols.WeightsTable(gammas=tuple(gammas), rows=rows, environment={})


def latency(runs: Sequence[str]) -> protocols.LatencyTable:
    def passes(place: int) -> tuple[protocols.PassTime, ...]:
        means = {batch: batch * (place + 1) / 1e3 for batch in (1, 100)}
        return tuple(
            protocols.PassTime(batch=batch, loaded=batch > 1, mean=mean, median=mean / 2, p95=3 * mean)
            for batch, mean in means.items()
        )

    rows = [
        protocols.TimedModel(name=name, density=1.0, bytes=1, passes=passes(place)) for place, name in enumerate(runs)
    ]
    return protocols.LatencyTable(kind="c", device="cpu", threads=1, rows=tuple(rows), environment={})


def answer(measurement: Measurement) -> object:
    question, runs = measurement.question, measurement.runs
    if question.name == "transfer":
        return transfer(runs, question.options["sources"], question.eps or ())
    if question.name == "weights":
        return weights(runs, [*question.options.get("gammas", [0.01]), 0.1])
    made = {"ensemble": ensemble, "stochastic": stochastic, "black-box": black_box, "latency": latency}
    return made[question.name](runs)


def network(kept: int) -> results.Network:
    bars = results.Histogram(edges=(-1.0, 1.0), counts=(kept,), zeros=1000 - kept)
    work = {"weights": 1000, "nonzero": kept, "density": kept / 1000, "multiply_adds": 1000, "kept_multiply_adds": kept}
    one = results.Layer(name="conv1.weight", block="conv1", shape=(10, 4, 5, 5), histogram=bars, **work)
    return results.Network(layers=(one,), totals=results.Totals(**work), work_ratio=1.0, histogram=bars)


def lay_down(found: Sequence[Place], store: Path, kept: Mapping[Any, int] | None = None) -> None:
    """Lay down a network of every run, and the answer to every question."""
    cases: list[Case] = [case for place in found for case in place.runs]
    for case in {run_name(case.recipe): case for case in cases}.values():
        run = RunFolder.create(store / "runs" / run_name(case.recipe))
        results.write_network(run, network((kept or {}).get(case.labels.get("density"), 100)))
    for place in found:
        for each in place.measurements.values():
            for measurement in each:
                records.write(measurement.record(store), answer(measurement))


def built(name: str, store: Path, kept: Mapping[Any, int] | None = None) -> Rebuilt:
    study_name, _, which = name.partition("/")
    study = load_study(study_name, "smoke")
    assert isinstance(study, Study)
    entry, ours = load_entry(name), study.entries[which]
    lay_down(places(entry, ours, study), store, kept)
    return rebuild(entry, study, ours, store)


def value(rebuilt: Rebuilt, measure: str, **at: Any) -> float | None:
    (row,) = (row for row in rebuilt.rows if row.measure == measure and dict(row.at) == at)
    return None if row.ours is None else row.ours.value


def test_examples_are_read_by_source_target_and_radius(tmp_path: Path) -> None:
    rebuilt = built("one-shot-admm/figure-4.6", tmp_path)
    # The source stands first: resnet34 dense; then small before wide, 100, 50 and 10 % of each, the source left out.
    at = {"source": "resnet34", "target": "resnet34"}
    dense = [
        value(rebuilt, "robust", **at, target_density=1.0, attack_eps=eps) for eps in (0.01, 0.03, 0.05, 0.075, 0.1)
    ]
    assert dense == [90, 80, 70, 60, 50]
    assert value(rebuilt, "robust", **at, target_density=0.5, attack_eps=0.03) == 70
    other = {"source": "mobilenetv2", "target": "mobilenetv2"}
    assert value(rebuilt, "robust", **other, target_density=1.0, attack_eps=0.1) == 50
    assert all(row.ours is not None and row.ours.n == 10 for row in rebuilt.rows)
    assert "McNemar" in rebuilt.claims[0].why
    assert rebuilt.of == 6
    assert "80 [" in markdown(rebuilt, "smoke")
    assert [chart.title for chart in part(rebuilt, "smoke").charts] == ["source resnet34", "source mobilenetv2"]


def test_the_mean_of_two_networks_is_read_as_it_was_attacked_as_one(tmp_path: Path) -> None:
    rebuilt = built("one-shot-admm/table-C.1", tmp_path)
    at = {"model": "resnet34", "training": "combined"}
    assert [value(rebuilt, name, **at) for name in ("clean", "pgd", "cw")] == [90, 40, 40]
    assert rebuilt.of == 4


def test_noise_is_read_off_and_averaged(tmp_path: Path) -> None:
    rebuilt = built("rsr/table-5", tmp_path)
    assert value(rebuilt, "clean", training="rsr", noise="without") == 80
    assert value(rebuilt, "pgd", training="rsr", noise="without") == 60
    assert value(rebuilt, "pgd_averaged", training="rsr", noise="with") == 50
    row = next(row for row in rebuilt.rows if row.measure == "pgd_averaged")
    assert (row.verdict, row.ours and row.ours.seeds) == ("ours alone", 2)


def test_black_box_attacks_on_samples_of_each_ones_own_are_tested_as_such(tmp_path: Path) -> None:
    rebuilt = built("rsr/table-3", tmp_path)
    assert value(rebuilt, "zoo", training="adversarial") == 90
    assert value(rebuilt, "zoo", training="rsr") == 20
    # The source stands first, the adversarially trained target second, RSR third.
    assert value(rebuilt, "from_vgg16", training="adversarial") == 70
    assert value(rebuilt, "from_resnet18", training="rsr") == 60
    (claim,) = rebuilt.claims
    assert claim.verdict == "holds"
    assert f"Fisher's exact test over 10 and 10 samples, means over seeds, p = {fisher(9, 10, 2, 10):.2g}" in claim.why


def test_weights_are_read_in_the_layers_that_count(tmp_path: Path) -> None:
    near = built("rsr/figure-1", tmp_path / "a")
    assert value(near, "near_zero", training="rsr") == pytest.approx(100 * 16 / 36)
    channels = built("robust-subnet/figure-1", tmp_path / "b")
    assert [value(channels, name, layer="first", side="output") for name in ("least", "median", "most")] == [2, 10, 18]
    assert [value(channels, name, layer="second", side="input") for name in ("least", "median", "most")] == [5, 5, 5]
    kernels = built("robust-subnet/figure-2", tmp_path / "c")
    assert [value(kernels, "kernels", pruning="robust-subnet", kept=kept) for kept in (0, 1, 9)] == [2, 0, 4]
    assert [value(kernels, "kernels", pruning="random", kept=kept) for kept in (0, 1, 9)] == [1, 7, 0]
    assert [claim.verdict for claim in kernels.claims] == ["as claimed, untested"] * 2


def test_sizes_and_spread_are_of_all_layers_together() -> None:
    seen = Seen(run="a", beside=(), layers=("conv2.*", "conv3.*"))
    record = weights(["a"])
    # Means 1 and -1 of equally many weights: the squares 4 + 1 and 16 + 1, on average 11, about 0.
    spread, size = weighed(record, seen, value="deviation"), weighed(record, seen, value="magnitude")
    assert spread is not None
    assert spread.value == pytest.approx(11**0.5)
    assert size is not None
    assert size.value == pytest.approx((20 * 3 + 10 * 6) / 30)
    whole = weighed(record, Seen(run="a", beside=(), layers=()), value="parameters")
    assert whole is not None
    assert whole.value == 2.5
    with pytest.raises(RunError, match=r"one at 0\.5"):
        weighed(record, seen, value="below", gamma=0.5)


def test_passes_are_told_in_milliseconds(tmp_path: Path) -> None:
    one = built("one-shot-admm/figure-4.7", tmp_path / "a")
    hundred = built("one-shot-admm/figure-D.1", tmp_path / "b")
    at = {"device": "intel-nuc-cpu", "density": 1.0}
    assert [value(one, "mean_ms", **at, model=name) for name in ("resnet34", "mobilenetv2")] == [1, 4]
    assert [value(hundred, "mean_ms", **at, model=name) for name in ("resnet34", "mobilenetv2")] == [100, 400]
    for rebuilt, mean in ((one, 1), (hundred, 100)):
        told = [value(rebuilt, name, **at, model="resnet34") for name in ("mean_ms", "median_ms", "p95_ms")]
        assert told == pytest.approx([mean, mean / 2, 3 * mean])
        beside = [row.verdict for row in rebuilt.rows if row.measure == "median_ms"]
        assert beside == ["ours alone"] * 6
    assert "together" not in one.missing
    assert value(one, "mean_ms", device="tesla-v100-gpu", density=1.0, model="resnet34") is None


def test_how_many_times_another_networks_weights_are_kept(tmp_path: Path) -> None:
    rebuilt = built("rewinding/open-nonzeros", tmp_path, {1.0: 400, 0.2621: 100})
    assert value(rebuilt, "times_resnet20", model="wideresnet20", density=0.2621, steps=0) == 0.25
    assert value(rebuilt, "times_resnet20", model="resnet20", density=1.0, steps=8) == 1


def test_the_smallest_that_matches_is_judged_on_the_means_of_seeds(tmp_path: Path) -> None:
    study = load_study("rewinding", "smoke")
    assert study is not None
    entry = load_entry("rewinding/section-4.2")
    found = [
        replace(place, measures={"smallest_matching": Reading(smallest=Reading(of="nonzero"))})
        for place in places(entry, study.entries["section-4.2"], study)
    ]
    # Of weights kept, as if they were accuracies: 40 of the dense network, and more of two of the three others.
    kept = {1.0: 40, 0.2621: 50, 0.1678: 40, 0.1074: 39, 0.044: 10, 0.0281: 20}
    small = next(place for place in found if place.at == {"model": "resnet20", "steps": 0})
    wide = next(place for place in found if place.at == {"model": "wideresnet20", "steps": 0})
    assert read_number(small, "smallest_matching", tmp_path) is None
    lay_down([small, wide], tmp_path, kept)
    numbers = [read_number(place, "smallest_matching", tmp_path) for place in (small, wide)]
    assert [isinstance(each, Number) and (each.value, each.seeds) for each in numbers] == [(0.1678, 2), (0.2621, 2)]
    none = replace(small, along={0.1074: small.along[0.1074]})
    assert read_number(none, "smallest_matching", tmp_path) == NoneFound()


def of_weights() -> tuple[Entry, Study, Ours]:
    """Return section 4.2 as if weights kept were accuracies."""
    study = load_study("rewinding", "smoke")
    assert study is not None
    ours = study.entries["section-4.2"].model_copy(deep=True)
    for each in ours.parts:
        each.measures["smallest_matching"] = Reading(smallest=Reading(of="nonzero"))
    return load_entry("rewinding/section-4.2"), study, ours


def test_equal_numbers_do_not_bear_out_that_one_is_more(tmp_path: Path) -> None:
    entry, study, ours = of_weights()
    wide = [place for place in places(entry, ours, study) if place.at["model"] == "wideresnet20"]
    kept = {1.0: 40, 0.2621: 40, 0.1678: 10, 0.1074: 10, 0.044: 10, 0.0281: 10}
    lay_down([place for place in wide if place.at["steps"] in (0, 2)], tmp_path, kept)
    first = rebuild(entry, study, ours, tmp_path).claims[0]
    assert (first.at, first.than, first.verdict) == (0.2621, 0.2621, "equal, untested")


def test_none_found_is_told_from_what_is_not_there(tmp_path: Path) -> None:
    entry, study, ours = of_weights()
    alike = study.model_copy(update={"comparable": True})

    def verdict(steps: int, which: Study = alike) -> tuple[str, str]:
        rebuilt = rebuild(entry, which, ours, tmp_path)
        (row,) = (row for row in rebuilt.rows if row.at == {"model": "resnet20", "steps": steps})
        return row.verdict, both_texts(row, "share", empty="-")[1]

    assert verdict(0) == verdict(1) == ("missing", "-")
    found = [place for place in places(entry, ours, study) if place.at["model"] == "resnet20"]
    lay_down(
        [place for place in found if place.at["steps"] in (0, 1)],
        tmp_path,
        {1.0: 40, 0.2621: 39, 0.1678: 30, 0.1074: 20},
    )
    # None was published for one step, and 26 % for none.
    assert (verdict(0), verdict(1)) == (("differs", "none"), ("agrees", "none"))
    assert verdict(1, study) == ("not comparable", "none")
    lay_down(
        [place for place in found if place.at["steps"] == 2], tmp_path, {1.0: 40, 0.2621: 41, 0.1678: 30, 0.1074: 20}
    )
    assert verdict(2) == ("agrees", "0.262, over 2 seeds")
    claims = {held.claim.text: held.why for held in rebuild(entry, alike, ours, tmp_path).claims}
    assert any("steps 0, where none was found" in why for why in claims.values())


def test_a_deviation_is_over_seeds_of_another_measure(tmp_path: Path) -> None:
    study = load_study("rewinding", "smoke")
    assert study is not None
    found = places(load_entry("rewinding/open-replicates"), study.entries["open-replicates"], study)
    both = {"robust": Reading(of="nonzero"), "deviation": Reading(deviation_of="robust")}
    place = replace(found[0], measures=both)
    for case, nonzero in zip(place.cases, (100, 104), strict=True):
        results.write_network(RunFolder.create(tmp_path / "runs" / run_name(case.recipe)), network(nonzero))
    number = read_number(place, "deviation", tmp_path)
    assert number is not None
    assert (number.value, number.seeds) == (pytest.approx(8**0.5), 2)
    assert read_number(replace(place, cases=place.cases[:1]), "deviation", tmp_path) is None


def test_what_is_not_measured_yet_is_missing(tmp_path: Path) -> None:
    rebuilt = built("rsr/table-3", tmp_path)
    for path in tmp_path.glob("runs/*/results/protocol-black-box-*.json"):
        path.unlink()
    study = load_study("rsr", "smoke")
    assert study is not None
    again = rebuild(rebuilt.entry, study, study.entries["table-3"], tmp_path)
    assert {row.verdict for row in again.rows if row.measure == "zoo"} == {"missing"}
    assert {row.verdict for row in again.rows if row.measure == "from_vgg16"} == {"not comparable"}


def stood(place: Place, store: Path, **said: Any) -> Measurement:
    """Let the runs and the one protocol of a place stand as a sweep leaves them; said: what the protocol's says."""
    ((measurement, *_), *_) = place.measurements.values()
    held, made_of = Store(str(store)), {name: [f"phase of {name}", "images"] for name in measurement.runs}
    for case in measurement.cases:
        name = run_name(case.recipe)
        held.stand(name, {"made_of": made_of[name], "versions": versions_of(case.recipe), "done": True})
    held.stand(measurement.name, {"made_of": made_of, "done": True, **said})
    return measurement


def first_place(name: str, measure: str, **at: Any) -> Place:
    """Return the place of an entry with one measure, of its first seed alone."""
    study_name, _, which = name.partition("/")
    study = load_study(study_name, "smoke")
    assert study is not None
    place = next(each for each in places(load_entry(name), study.entries[which], study) if dict(each.at) == at)
    return replace(
        place,
        cases=place.cases[:1],
        measures={measure: place.measures[measure]},
        measurements={key: each[:1] for key, each in place.measurements.items() if key == measure},
    )


def test_an_answer_is_read_where_it_is_of_the_runs_that_are_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = first_place("rsr/table-3", "zoo", training="rsr")
    lay_down([place], tmp_path)

    def reached() -> float | None:
        number = read_number(place, "zoo", tmp_path)
        return number.value if isinstance(number, Number) else None

    # A folder that holds copies has no standing of anything.
    assert reached() == 20
    measurement = stood(place, tmp_path)
    assert reached() == 20
    held, last = Store(str(tmp_path)), measurement.runs[-1]
    before = held.standing(last)
    assert before is not None
    for name, other in (
        (measurement.name, {"made_of": {}, "done": False}),
        (last, {**before, "made_of": ["phase of other data", "images"]}),
        (last, {**before, "versions": {"gossamer.losses": 9}}),
    ):
        stood(place, tmp_path)
        held.stand(name, other)
        assert reached() is None, other
    stood(place, tmp_path)
    (tmp_path / "standing" / f"{measurement.name}.json").unlink()
    assert reached() is None


def test_weights_are_not_held_against_those_of_a_run_of_another_version(tmp_path: Path) -> None:
    at = {"model": "wideresnet20", "density": 0.2621, "steps": 0}
    place = first_place("rewinding/open-nonzeros", "times_resnet20", **at)
    lay_down([place], tmp_path, {1.0: 400, 0.2621: 100})
    number = read_number(place, "times_resnet20", tmp_path)
    assert isinstance(number, Number)
    assert number.value == 0.25
    beside = run_name(place.beside[0][0].recipe)
    Store(str(tmp_path)).stand(beside, {"made_of": [], "versions": {"gossamer.losses": 9}, "done": True})
    assert read_number(place, "times_resnet20", tmp_path) is None


def test_what_protocols_took_is_spent_once_where_it_was_counted(tmp_path: Path) -> None:
    place = first_place("rsr/table-3", "zoo", training="rsr")
    lay_down([place], tmp_path)
    measurement = stood(place, tmp_path, seconds=7.5)
    assert spent_asking(measurement, tmp_path) == {f"protocol {measurement.name}": 7.5}
    study = load_study("rsr", "smoke")
    assert study is not None
    rebuilt = rebuild(load_entry("rsr/table-3"), study, study.entries["table-3"], tmp_path)
    assert (rebuilt.seconds, total([rebuilt, rebuilt])) == (7.5, 7.5)
    assert "of training, evaluation and protocols" in markdown(rebuilt, "smoke")
    stood(place, tmp_path)
    assert spent_asking(measurement, tmp_path) == {}
    stood(place, tmp_path, seconds=7.5, done=False)
    assert spent_asking(measurement, tmp_path) == {}
    stood(place, tmp_path, seconds=7.5)
    measurement.record(tmp_path).unlink()
    assert spent_asking(measurement, tmp_path) == {}


def test_all_places_of_a_part_are_measured_together_once_a_seed() -> None:
    study = load_study("rsr", "smoke")
    assert study is not None
    found = places(load_entry("rsr/table-3"), study.entries["table-3"], study)
    named = {each.name for place in found for each in place.measurements.get("from_vgg16", ())}
    assert len(named) == 2
    place = next(place for place in found if "from_vgg16" in place.measures)
    for measurement, beside in zip(place.measurements["from_vgg16"], place.beside, strict=True):
        assert measurement.question.options["sources"] == [run_name(beside[0].recipe)] == [measurement.runs[0]]
        assert len(measurement.runs) == 3
        assert len({case.recipe.seed for case in measurement.cases}) == 1


def test_a_record_that_is_not_there_is_no_number(tmp_path: Path) -> None:
    assert read_measured(tmp_path / "none.json", "latency", Seen(run="a", beside=(), layers=()), {}) is None


@pytest.mark.parametrize(
    ("protocol", "picked", "told"),
    [
        ("effort", {}, "transfer, ensemble"),
        ("transfer", {}, "eps"),
        ("ensemble", {"value": "clean", "eps": 0.1}, "value"),
        ("weights", {"value": "below", "gama": 0.1}, "gamma"),
    ],
)
def test_picks_that_a_record_does_not_have_are_refused(protocol: str, picked: dict[str, Any], told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        check_picked(protocol, picked)


def test_times_at_the_published_size_are_of_a_hundred_calls_in_memory() -> None:
    study = load_study("one-shot-admm", "paper")
    assert study is not None
    questions = {
        which: {
            measurement.question.name: measurement.question.options
            for place in places(load_entry(f"one-shot-admm/{which}"), study.entries[which], study)
            for own in place.measurements.values()
            for measurement in own
        }
        for which in ("figure-4.7", "figure-D.1")
    }
    asked = questions["figure-4.7"]["latency"]
    assert asked["rounds"] * asked["repeats"] >= 100
    assert asked["loading"] is False
    assert questions["figure-D.1"]["latency"].get("loading", True) is True


def picking(picks: dict[str, Any], **reading: Any) -> list[Place]:
    """Return the places of an entry of one axis, at one network, with what they pick."""
    study = load_study("one-shot-admm", "smoke")
    assert study is not None
    said = {"where": {"width": 1.0, "adversary": "weak", "density": 1.0}, "picks": {"attack_eps": picks}}
    ours = Ours.model_validate({"sweep": "grid", "measures": {"robust": reading}, "parts": [said]})
    return places(load_entry("one-shot-admm/figure-3.1"), ours, study)


def test_a_place_may_pick_the_radius_of_an_attack() -> None:
    found = picking({"eps": {0.01: 0.015, 0.02: "8/255"}}, attack="pgd", parameters={"steps": 100})
    assert [(place.at["attack_eps"], place.measures["robust"].eps) for place in found] == [
        (0.01, 0.015),
        (0.02, 8 / 255),
    ]
    assert found[0].cases == found[1].cases
    with pytest.raises(ConfigError, match="picks of an attack: expected eps, got steps"):
        picking({"steps": {0.01: 7}}, attack="pgd")
    with pytest.raises(ConfigError, match="eps"):
        picking({"eps": {0.01: "much"}}, attack="pgd")


@pytest.mark.parametrize(
    "said",
    [
        {"of": "clean", "protocol": {"name": "weights"}},
        {"of": "clean", "pick": {"eps": 0.1}},
        {"protocol": {"name": "w"}},
    ],
)
def test_readings_that_contradict_themselves_are_refused(said: dict[str, Any]) -> None:
    with pytest.raises((ConfigError, ValidationError)):
        Reading.model_validate(said)


def test_every_protocol_that_places_ask_is_one_that_is_read() -> None:
    for scale in ("smoke", "paper"):
        for name in ("one-shot-admm", "rsr", "robust-subnet"):
            study = load_study(name, scale)
            assert study is not None
            asked = [
                reading.protocol.name
                for ours in study.entries.values()
                for measures in (ours.measures, *(part.measures for part in ours.parts))
                for reading in measures.values()
                if reading.protocol is not None
            ]
            assert asked
            assert set(asked) <= set(READERS)
