"""How our numbers stand beside published ones, on records that are written by hand."""

import errno
import json
import os
import re
import signal
import tempfile
import time
from pathlib import Path
from typing import Any

import pytest

from gossamer.cli.engines import stoppable
from gossamer.cli.main import main
from gossamer.cli.reproduce import _limited
from gossamer.errors import ConfigError
from gossamer.intervals import wilson
from gossamer.recipe.build import build_threat
from gossamer.recipe.load import run_name
from gossamer.recipe.train import result_name
from gossamer.reproduce.drawing import part
from gossamer.reproduce.published import Entry, load_entry
from gossamer.reproduce.scales import Ours, Reading, Study, load_study, places, planned_elsewhere
from gossamer.reproduce.standing import Rebuilt, rebuild
from gossamer.reproduce.text import markdown, to_json, value_text
from gossamer.runs import RunFolder, results, status
from gossamer.sweep.drive import Outcome
from gossamer.sweep.spec import Axis, Case, expand
from gossamer.sweep.store import Store

ENTRY = Entry.model_validate(
    {
        "name": "study/table",
        "title": "Two methods",
        "source": "Somebody, 2020, table 1",
        "kind": "table",
        "says": "The first is better.",
        "setting": {"data": "digits"},
        "axes": {"method": "which", "sparsity": "per cent removed"},
        "measures": {
            "robust": {"unit": "percent", "words": "under attack"},
            "connections": {"unit": "weights", "words": "kept"},
        },
        "cells": [
            {"at": {"method": "bcs", "sparsity": 90}, "values": {"robust": 80.0, "connections": 100}},
            {"at": {"method": "random", "sparsity": 90}, "values": {"robust": 20.0}},
            {"at": {"method": "theirs", "sparsity": 90}, "values": {"robust": 70.0}},
        ],
        "claims": [
            {
                "text": "bcs keeps more",
                "more": "robust",
                "at": {"method": "bcs", "sparsity": 90},
                "than": {"method": "random", "sparsity": 90},
            },
            {
                "text": "bcs beats theirs",
                "more": "robust",
                "at": {"method": "bcs", "sparsity": 90},
                "than": {"method": "theirs", "sparsity": 90},
            },
        ],
    }
)
STUDY = Study.model_validate(
    {
        "comparable": True,
        "sweeps": {
            "runs": {
                "base": "bcs/digits-90",
                "axes": {
                    "case": {"list": {"bcs-90": {}, "random-90": {"method": {"name": "random", "density": 0.1}}}},
                    "seed": {"seeds": 2},
                },
            }
        },
        "entries": {
            "table": {
                "sweep": "runs",
                "measures": {"robust": {"attack": "pgd-50-10"}, "connections": {"of": "connections"}},
                "parts": [
                    {
                        "layers": ["conv1.*"],
                        "at": {"sparsity": 90},
                        "axes": {"method": {"case": {"bcs": "bcs-90", "random": "random-90"}}},
                    }
                ],
            }
        },
    }
)
OURS = STUDY.entries["table"]


def outcome(robust: list[int], name: str = "pgd-50-10", **parameters: Any) -> results.AttackOutcome:
    n = len(robust)
    return results.AttackOutcome(
        attack=name,
        parameters={"type": "pgd", **parameters},
        threat="linf:0.15",
        norm="linf",
        eps=0.15,
        robust_accuracy=sum(robust) / n,
        interval=wilson(sum(robust), n),
        n=n,
        seconds=1.0,
        robust=tuple(robust),
        rejected=0,
    )


def evaluation(robust: list[int]) -> results.Evaluation:
    n, attack = len(robust), outcome(robust)
    return results.Evaluation(
        run="r",
        dataset=results.Dataset(name="digits", part="test", checksum="c", selection="all", n=n),
        model=results.EvaluatedModel(name="r", weights=1000, nonzero=100, density=0.1),
        n=n,
        seed=0,
        clean_accuracy=1.0,
        clean_interval=wilson(n, n),
        robust_accuracy=attack.robust_accuracy,
        interval=attack.interval,
        attack=attack.attack,
        attack_parameters=attack.parameters,
        threat="linf:0.15",
        eps=0.15,
        density=0.1,
        nonzero=100,
        weights=1000,
        seconds=2.0,
        batch_size=10,
        samples=results.Samples(
            index=tuple(range(n)), label=(0,) * n, clean_prediction=(0,) * n, clean_correct=(1,) * n
        ),
        attacks=(attack,),
        environment={},
    )


def network(kept: int) -> results.Network:
    bars = results.Histogram(edges=(-1.0, 1.0), counts=(kept,), zeros=1000 - kept)
    work = {"weights": 1000, "nonzero": kept, "density": kept / 1000, "multiply_adds": 1000, "kept_multiply_adds": kept}
    layer = results.Layer(name="conv1.weight", block="conv1", shape=(10, 4, 5, 5), histogram=bars, **work)
    return results.Network(layers=(layer,), totals=results.Totals(**work), work_ratio=1000 / kept, histogram=bars)


BEGUN, PUT_TOGETHER = "2026-01-02T03:04:05+00:00", "2026-01-02T03:05:06+00:00"


def asked_for(case: Case, attack: str) -> str:
    """Return the name under which a run keeps the evaluation that its recipe asks for."""
    (spec,) = (each for each in case.recipe.evaluation if each.attack == attack)
    return result_name(spec, build_threat(case.recipe))


def lay_down(store: Path, case: Case, robust: list[int], kept: int) -> None:
    run = RunFolder.create(store / "runs" / run_name(case.recipe))
    results.write_network(run, network(kept))
    results.write_evaluation(run, asked_for(case, "pgd-50-10"), evaluation(robust))
    status.write(
        run,
        status.Status(
            state="done",
            phase="train",
            epoch=1,
            step=1,
            message="",
            started=BEGUN,
            updated=PUT_TOGETHER,
            seconds_trained=60.0,
        ),
    )


def stand(
    tmp_path: Path, *, study: Study = STUDY, bcs: list[int] | None = None, random: list[int] | None = None
) -> Rebuilt:
    for case in expand(study.sweeps["runs"]):
        own = bcs or [1] * 8 + [0] * 2 if case.labels["case"] == "bcs-90" else random or [1, 1] + [0] * 8
        lay_down(tmp_path, case, own, kept=100 + int(case.labels["seed"] or 0))
    return rebuild(ENTRY, study, study.entries["table"], tmp_path)


def by_place(rebuilt: Rebuilt) -> dict[tuple[Any, str], Any]:
    return {(row.at["method"], row.measure): row for row in rebuilt.rows}


def test_numbers_are_means_over_seeds_with_the_interval_of_their_samples(tmp_path: Path) -> None:
    rows = by_place(stand(tmp_path))
    robust = rows["bcs", "robust"]
    assert (robust.published, robust.ours.value, robust.difference, robust.verdict) == (80.0, 80.0, 0.0, "agrees")
    assert robust.ours.interval == pytest.approx([100 * bound for bound in wilson(8, 10)])
    assert (robust.ours.seeds, robust.ours.n) == (2, 10)
    connections = rows["bcs", "connections"]
    assert (connections.ours.value, connections.ours.low, connections.ours.high) == (100.5, 100, 101)
    assert connections.ours.interval is None
    assert connections.verdict == "agrees"
    assert rows["random", "connections"].verdict == "ours alone"
    assert rows["theirs", "robust"].verdict == "quoted"


def test_what_another_scale_alone_has_runs_for_is_not_quoted(tmp_path: Path) -> None:
    rebuilt = rebuild(ENTRY, STUDY, OURS, tmp_path, [({"method": "theirs", "sparsity": 90}, "robust")])
    assert by_place(rebuilt)["theirs", "robust"].verdict == "not at this scale"


def sourced(**said: Any) -> Entry:
    """Return the entry with more said of the one cell that no run of ours stands at."""
    *own, theirs = ENTRY.cells
    return ENTRY.model_copy(update={"cells": (*own, theirs.model_copy(update=said))})


def test_what_others_ran_is_quoted_with_whose_it_is_also_where_another_scale_plans_it(tmp_path: Path) -> None:
    elsewhere = [({"method": "theirs", "sparsity": 90}, "robust")]
    entry = sourced(ran_by="others", quoted_from="Somebody | else, 2019", theirs="with other data")
    rebuilt = rebuild(entry, STUDY, OURS, tmp_path, elsewhere)
    row = by_place(rebuilt)["theirs", "robust"]
    assert (row.verdict, row.source) == ("quoted", "Somebody | else, 2019; with other data")
    assert "| theirs | 90 | robust | 70 | - | - | quoted: Somebody \\| else, 2019; with other data |" in markdown(
        rebuilt, "s"
    )
    assert [each["source"] for each in to_json(rebuilt, "smoke")["rows"]][-1] == row.source
    (cell,) = [cells[-1] for cells in part(rebuilt, "smoke").tables[-1].rows if cells[0].text == "theirs"]
    assert (cell.text, cell.small) == ("quoted", row.source)
    unprinted = rebuild(sourced(ran_by="others", values={"robust": None}), STUDY, OURS, tmp_path, elsewhere)
    assert by_place(unprinted)["theirs", "robust"].verdict == "not at this scale"


def test_what_others_ran_and_this_scale_plans_is_missing_until_it_is_there(tmp_path: Path) -> None:
    (first, *rest) = ENTRY.cells
    others = first.model_copy(update={"ran_by": "others", "quoted_from": "Somebody else, 2019"})
    entry = ENTRY.model_copy(update={"cells": (others, *rest)})
    rebuilt = rebuild(entry, STUDY, OURS, tmp_path)
    assert by_place(rebuilt)["bcs", "robust"].verdict == "missing"
    assert "missing (Somebody else, 2019)" in markdown(rebuilt, "smoke")


def test_competitors_that_the_paper_scale_does_not_run_are_quoted_there() -> None:
    entry, study = load_entry("rsr/table-4"), load_study("rsr", "paper")
    assert study is not None
    elsewhere = planned_elsewhere(entry, "paper")
    assert any(at["method"] == "robust-admm" for at, _ in elsewhere)
    rebuilt = rebuild(entry, study, study.entries["table-4"], Path("nowhere"), elsewhere)
    verdicts = {(row.at["method"], row.measure): row.verdict for row in rebuilt.rows}
    for method in ("robust-admm", "defensive-quantization", "differential-privacy", "random-self-ensemble"):
        assert verdicts[method, "pgd"] == verdicts[method, "clean"] == "quoted"
    # It is a dash there, and measured at the other scale.
    assert verdicts["robust-admm", "sparsity"] == "not at this scale"
    assert verdicts["defensive-quantization", "sparsity"] == "printed nowhere"
    assert verdicts["pni", "pgd"] == verdicts["rsr", "pgd"] == "missing"
    assert "| quoted: Lin et al., Defensive quantization, ICLR 2019 |" in markdown(rebuilt, "paper")


def test_places_of_other_scales_are_those_of_their_files() -> None:
    entry = load_entry("bcs/table-4")
    at_paper = planned_elsewhere(entry, "smoke")
    assert at_paper
    assert all(any(cell.at == at for cell in entry.cells) and measure in entry.measures for at, measure in at_paper)
    assert planned_elsewhere(ENTRY, "smoke") == []


def test_a_later_evaluation_of_a_users_own_changes_no_number(tmp_path: Path) -> None:
    before = by_place(stand(tmp_path))["bcs", "robust"]
    own = evaluation([0] * 50)
    for run in (tmp_path / "runs").iterdir():
        results.write_evaluation(RunFolder(run), "pgd-50-10-again", own)
    assert by_place(rebuild(ENTRY, STUDY, OURS, tmp_path))["bcs", "robust"] == before


def test_claims_are_judged_sample_by_sample(tmp_path: Path) -> None:
    rebuilt = stand(tmp_path)
    first, second = rebuilt.claims
    # 6 of 10 samples that one alone gets right with both of its seeds, none the other: p = 2 / 2^6.
    assert first.verdict == "holds"
    assert first.why == "exact sign-flip test over 10 samples, 2 seeds on each, p = 0.031"
    assert (second.verdict, second.than) == ("not judged", None)
    assert "method theirs" in second.why
    assert (rebuilt.runs, rebuilt.of, rebuilt.seconds) == (4, 4, 4 * 62.0)


def test_a_small_difference_is_undecided_and_a_contrary_one_broken(tmp_path: Path) -> None:
    assert stand(tmp_path / "a", random=[1] * 7 + [0] * 3).claims[0].verdict == "undecided"
    assert stand(tmp_path / "b", random=[1] * 10).claims[0].verdict == "undecided"
    # 6 of 10 samples that the other alone gets right with both of its seeds.
    broken = stand(tmp_path / "c", bcs=[1, 1] + [0] * 8, random=[1] * 8 + [0] * 2).claims[0]
    assert (broken.verdict, broken.at, broken.than) == ("broken", 20.0, 80.0)
    assert broken.why == "exact sign-flip test over 10 samples, 2 seeds on each, p = 0.031"


def counted(tmp_path: Path, printed: object, *, cut: bool = False) -> str:
    """Return how 12.3 % of the weights, of one seed, stand beside what was printed."""
    said = ENTRY.model_dump(exclude={"cells"})
    said["measures"]["connections"] = {"unit": "percent", "words": "kept", "cut": cut}
    cells = [{"at": {"method": "bcs", "sparsity": 90}, "values": {"connections": printed}}]
    entry = Entry.model_validate({**said, "claims": [], "cells": cells})
    study = STUDY.model_copy(deep=True)
    study.sweeps["runs"].axes["seed"] = Axis(seeds=1)
    ours = study.entries["table"].model_copy(update={"measures": {"connections": Reading(of="density")}})
    case = next(each for each in expand(study.sweeps["runs"]) if each.labels["case"] == "bcs-90")
    if not (tmp_path / "runs").exists():
        lay_down(tmp_path, case, [1] * 10, kept=123)
    return by_place(rebuild(entry, study, ours, tmp_path))["bcs", "connections"].verdict


def test_a_number_without_an_interval_agrees_where_it_would_be_printed_so(tmp_path: Path) -> None:
    for printed in (12, 12.3, "12.30"):
        assert counted(tmp_path, printed) == "agrees", printed
    for printed in (11, 13, 12.2, 12.4, "12.0", 12.304):
        assert counted(tmp_path, printed) == "differs", printed
    # A paper that cuts digits off prints 12.29 as 12.2.
    assert counted(tmp_path, 12.2, cut=True) == "agrees"
    assert counted(tmp_path, "12.20", cut=True) == "differs"


def test_published_numbers_keep_the_digits_that_were_printed() -> None:
    table = load_entry("bcs/table-1")
    last = {cell.last["share"] for cell in table.cells if "share" in cell.values}
    assert last == {0.01}
    assert table.measures["share"].cut
    parameters = {cell.last["parameters"] for cell in load_entry("one-shot-admm/table-4.1").cells}
    assert parameters == {1.0}


@pytest.mark.parametrize(
    ("value", "told"),
    [
        (3686.5, "3,686.5"),
        (100.5, "100.5"),
        (99.456, "99.5"),
        (1965432.25, "1,965,432.2"),
        (12, "12"),
        (0.03127, "0.0313"),
    ],
)
def test_means_of_counts_are_told_without_powers_of_ten(value: float, told: str) -> None:
    assert value_text(value, "weights") == told


def test_numbers_of_another_setting_are_told_apart_and_judged_by_nothing(tmp_path: Path) -> None:
    rebuilt = stand(tmp_path, study=STUDY.model_copy(update={"comparable": False}), bcs=[1] * 9 + [0])
    row = by_place(rebuilt)["bcs", "robust"]
    assert (row.verdict, row.difference) == ("not comparable", pytest.approx(10.0))
    assert rebuilt.claims[0].verdict == "holds"
    page = markdown(rebuilt, "smoke")
    assert "2 seeds from 90 to 90 | +10.00 | not comparable |" in page
    assert "differences are told, and say little" in page


def test_what_is_planned_and_not_there_is_missing(tmp_path: Path) -> None:
    rebuilt = rebuild(ENTRY, STUDY, OURS, tmp_path)
    assert by_place(rebuilt)["bcs", "robust"].verdict == "missing"
    assert (rebuilt.runs, rebuilt.of) == (0, 4)
    nothing = rebuild(ENTRY, None, None, tmp_path)
    assert by_place(nothing)["bcs", "robust"].verdict == "quoted"
    assert "planned" in nothing.missing


def test_a_place_with_a_seed_missing_is_missing(tmp_path: Path) -> None:
    first = expand(STUDY.sweeps["runs"])[0]
    lay_down(tmp_path, first, [1] * 10, kept=100)
    rebuilt = rebuild(ENTRY, STUDY, OURS, tmp_path)
    assert by_place(rebuilt)["bcs", "robust"].verdict == "missing"
    assert rebuilt.runs == 1


def test_a_run_of_another_version_is_not_there_and_costs_nothing(tmp_path: Path) -> None:
    rebuilt = stand(tmp_path)
    assert (rebuilt.runs, rebuilt.seconds) == (4, 4 * 62.0)
    old = run_name(expand(STUDY.sweeps["runs"])[0].recipe)
    Store(str(tmp_path)).stand(old, {"made_of": [], "versions": {"gossamer.losses": 9}, "done": True})
    rebuilt = rebuild(ENTRY, STUDY, OURS, tmp_path)
    assert (rebuilt.runs, rebuilt.seconds) == (3, 3 * 62.0)
    assert by_place(rebuilt)["bcs", "robust"].verdict == "missing"


def test_the_page_says_all_of_it(tmp_path: Path) -> None:
    rebuilt = stand(tmp_path)
    page = markdown(rebuilt, "smoke")
    assert "| bcs | 90 | robust | 80 | 80 [49.0, 94.3], n = 10, 2 seeds from 80 to 80 | +0.00 | agrees |" in page
    assert "| theirs | 90 | robust | 70 | - | - | quoted |" in page
    assert "| bcs keeps more | 80 against 20 | holds" in page
    assert "4 of 4 runs, 4 min 08 s" in page
    told = to_json(rebuilt, "smoke")
    assert json.loads(json.dumps(told))["rows"][0]["ours"]["value"] == 80.0
    assert "right" not in told["rows"][0]["ours"]


@pytest.mark.parametrize(
    ("part", "message"),
    [
        ({"at": {"sparsity": 90}}, "a label of each of method, sparsity"),
        ({"at": {"sparsity": 90, "method": "bcs"}, "where": {"case": "bcs-91"}}, "one case, or one for every seed"),
        ({"at": {"sparsity": 90, "method": "bcs"}, "where": {"seed": 0}}, "one case, or one for every seed"),
        ({"at": {"sparsity": 90, "method": "bcs"}, "sweep": "other"}, "one of runs"),
    ],
)
def test_places_without_cases_are_refused(part: dict[str, Any], message: str) -> None:
    ours = Ours.model_validate({"sweep": "runs", "measures": {"robust": {"of": "clean"}}, "parts": [part]})
    with pytest.raises(ConfigError, match=message):
        places(ENTRY, ours, STUDY)


def command(*words: str) -> object:
    with pytest.raises(SystemExit) as ended:
        main(["reproduce", *words])
    return ended.value.code


def test_the_command_lists_shows_and_refuses(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert command("--list") == 0
    assert "bcs/table-4" in capsys.readouterr().out
    assert command("bcs/table-4", "--show", "--store", str(tmp_path)) == 0
    assert "weight decay" in capsys.readouterr().out
    assert command("bcs/table-4", "--show", "--store", str(tmp_path), "--out", str(tmp_path / "out")) == 0
    assert not (tmp_path / "out/README.md").exists()
    assert command("bcs", "--show", "--store", str(tmp_path), "-o", str(tmp_path / "out")) == 0
    index = (tmp_path / "out/README.md").read_text()
    linked = re.findall(r"\]\(([^)]+)\)", index)
    assert len(linked) == 8
    assert all((tmp_path / "out" / name).exists() for name in linked)
    assert command("bcs", "--show", "--store", str(tmp_path), "-o", str(tmp_path / "page.html")) == 0
    page = (tmp_path / "page.html").read_text()
    assert all(f'id="bcs-{name}"' in page for name in ("table-1", "figure-1", "scalability"))
    capsys.readouterr()
    assert json.loads((tmp_path / "out/bcs/table-4.json").read_text())["entry"] == "bcs/table-4"
    assert (tmp_path / "out/bcs/table-4.md").read_text().startswith("## bcs/table-4")
    for words, message in (
        ((), "table"),
        (("nobody/table-1",), "--list"),
        (("bcs", "--scale", "huge"), "--scale"),
        (("bcs/table-4", "--minutes", "0"), "--minutes"),
    ):
        assert command(*words) == 2
        assert message in capsys.readouterr().err


def test_a_target_that_cannot_be_written_is_refused_before_anything_is_planned(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("gossamer.cli.reproduce.make_plan", None)
    store = ("--store", str(tmp_path / "store"))
    (tmp_path / "folder.html").mkdir()
    (tmp_path / "file").write_text("")
    for out, code, message in (
        ("folder.html", 2, "got:      a folder called"),
        ("file", 2, "got:      a file called"),
        ("file/page.html", 1, "a file system that takes the write"),
    ):
        assert command("bcs/table-4", *store, "-o", str(tmp_path / out)) == code
        assert message in capsys.readouterr().err
    refusal = OSError(errno.EROFS, os.strerror(errno.EROFS))
    monkeypatch.setattr(tempfile, "TemporaryFile", lambda **_: (_ for _ in ()).throw(refusal))
    assert command("bcs/table-4", *store, "-o", str(tmp_path / "page.html")) == 1
    assert "make the file system writable" in capsys.readouterr().err


@pytest.mark.parametrize("heeded", [signal.default_int_handler, signal.SIG_IGN])
def test_a_limit_stops_what_is_inside_and_goes_on_but_a_person_stops_all(
    heeded: signal.Handlers, capsys: pytest.CaptureFixture[str]
) -> None:
    """Also in the background of a script, where an interrupt is ignored from birth."""
    reached: list[str] = []
    before = signal.signal(signal.SIGINT, heeded)
    try:
        with _limited(0.002, time.monotonic()):
            time.sleep(20)
            reached.append("the end")
        assert signal.getsignal(signal.SIGINT) is heeded
    finally:
        signal.signal(signal.SIGINT, before)
    assert reached == []
    assert "the same command goes on" in capsys.readouterr().err
    with pytest.raises(SystemExit) as stopped, stoppable(), _limited(5, time.monotonic()):
        raise KeyboardInterrupt
    assert stopped.value.code == 130
    assert "stopped; to go on: gossamer" in capsys.readouterr().err


@pytest.mark.parametrize(("failed", "status"), [({}, 0), ({"run-a": "no memory"}, 1)])
def test_the_command_ends_in_1_where_a_task_failed_and_prints_all_the_same(
    failed: dict[str, str],
    status: int,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    outcome = Outcome(done=[], failed=failed, blocked=[])
    monkeypatch.setattr("gossamer.cli.reproduce.drive", lambda *_, **__: outcome)
    with pytest.raises(SystemExit) as ended:
        main(["reproduce", "bcs/table-4", "--store", str(tmp_path / "store")])
    assert ended.value.code == status
    assert "table 4" in capsys.readouterr().out.lower()


def test_the_command_ends_in_75_where_its_minutes_were_over_before_the_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("gossamer.cli.reproduce.drive", lambda *_, **__: time.sleep(20))
    with pytest.raises(SystemExit) as ended:
        main(["reproduce", "bcs/table-4", "--store", str(tmp_path / "store"), "--minutes", "0.002"])
    assert ended.value.code == 75
    assert "table 4" in capsys.readouterr().out.lower()


def test_a_store_elsewhere_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["reproduce", "bcs/table-4", "--show", "--store", "s3://bucket/reproduced"])
    assert "copy its runs/ here" in capsys.readouterr().err
