"""Where, with what and when an entry was made: read from records that say it, and told with the command."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from test_measured_places import first_place, stood
from test_measured_places import lay_down as answered
from test_standing import BEGUN, ENTRY, OURS, PUT_TOGETHER, STUDY, asked_for, evaluation, stand

from gossamer.recipe.identity import versions_of
from gossamer.recipe.load import run_name
from gossamer.reproduce.drawing import part
from gossamer.reproduce.provenance import Machine, Made, made
from gossamer.reproduce.standing import Rebuilt, rebuild
from gossamer.reproduce.text import made_text, markdown, to_json
from gossamer.runs import RunFolder, atomic, records, results
from gossamer.sweep.spec import expand
from gossamer.sweep.store import PhaseRecord, Store, StoredFile


def environment(device: str) -> dict[str, Any]:
    return {"gossamer": "0.1", "torch": "2.11", "python": "3.11", "numeric": {"device": device}}


def machine(device: str) -> Machine:
    return Machine(device=device, gossamer="0.1", torch="2.11", python="3.11")


def on(store: Path, environments: Mapping[str, str]) -> None:
    """Say of a run's folder, of its evaluation, and of its one phase on which device each was computed."""
    case = expand(STUDY.sweeps["runs"])[0]
    run, held = RunFolder(store / "runs" / run_name(case.recipe)), Store(str(store))
    atomic.write_json(run.env, environment(environments["run"]))
    measured = replace(evaluation([1] * 10), environment=environment(environments["evaluation"]))
    results.write_evaluation(run, asked_for(case, "pgd-50-10"), measured)
    phase = PhaseRecord(
        key="k",
        phase="train",
        epochs=1,
        seconds=1.0,
        states={},
        metrics=StoredFile(name="m", bytes=0, sha256=""),
        like={},
        environment=environment(environments["phase"]),
        stored="2026-01-01T01:02:03+00:00",
    )
    records.write(store / "phases" / "k" / "record.json", phase)
    standing = {"made_of": ["k", "images"], "versions": versions_of(case.recipe), "done": True}
    held.stand(run_name(case.recipe), {**standing, "ended": "2026-01-03T01:02:03+00:00"})


def test_machines_and_times_are_those_of_phases_runs_and_evaluations(tmp_path: Path) -> None:
    stand(tmp_path)
    on(tmp_path, {"phase": "a GPU", "run": "a CPU", "evaluation": "another CPU"})
    rebuilt = rebuild(ENTRY, STUDY, OURS, tmp_path)
    assert rebuilt.made == Made(
        machines=(machine("a GPU"), machine("a CPU"), machine("another CPU")),
        first="2026-01-01T01:02:03+00:00",
        last="2026-01-03T01:02:03+00:00",
    )
    told = (
        "Made on a GPU with gossamer 0.1, torch 2.11, Python 3.11; "
        "on a CPU with gossamer 0.1, torch 2.11, Python 3.11; "
        "on another CPU with gossamer 0.1, torch 2.11, Python 3.11, 2026-01-01 to 2026-01-03."
    )
    assert f"\n{told} Printed by `gossamer reproduce study/table --scale smoke`.\n" in markdown(rebuilt, "smoke")
    assert told in part(rebuilt, "smoke").sentences
    said = to_json(rebuilt, "smoke")
    assert (said["schema"], said["scale"]) == ("gossamer/reproduced/2", "smoke")
    assert said["command"] == "gossamer reproduce study/table --scale smoke"
    assert said["made"]["first"] == "2026-01-01T01:02:03+00:00"
    assert [each["device"] for each in said["made"]["machines"]] == ["a GPU", "a CPU", "another CPU"]


def test_one_machine_is_told_once_and_one_day_too(tmp_path: Path) -> None:
    stand(tmp_path)
    on(tmp_path, {"phase": "a CPU", "run": "a CPU", "evaluation": "a CPU"})
    assert rebuild(ENTRY, STUDY, OURS, tmp_path).made.machines == (machine("a CPU"),)
    day = Made(machines=(machine("a CPU"),), first=BEGUN, last=PUT_TOGETHER)
    assert made_text(day) == "Made on a CPU with gossamer 0.1, torch 2.11, Python 3.11, 2026-01-02."


def test_records_that_say_no_machine_are_told_by_their_dates_alone_and_runs_that_are_not_there_by_nothing(
    tmp_path: Path,
) -> None:
    rebuilt: Rebuilt = stand(tmp_path)
    assert rebuilt.made == Made(first=BEGUN, last=PUT_TOGETHER)
    assert made_text(rebuilt.made) == "Made 2026-01-02."
    nothing = rebuild(ENTRY, STUDY, OURS, tmp_path / "nowhere")
    assert nothing.made == Made()
    assert "\nPrinted by `gossamer reproduce study/table --scale smoke`.\n" in markdown(nothing, "smoke")


def test_what_a_protocol_was_measured_on_counts_as_long_as_its_answer_does(tmp_path: Path) -> None:
    place = first_place("rsr/table-3", "zoo", training="rsr")
    answered([place], tmp_path)
    measurement = stood(place, tmp_path, ended="2026-01-04T01:02:03+00:00")
    path = measurement.record(tmp_path)
    atomic.write_json(path, {**atomic.read_json(path), "environment": environment("a third CPU")})
    assert made([place], tmp_path) == Made(
        machines=(machine("a third CPU"),), first="2026-01-04T01:02:03+00:00", last="2026-01-04T01:02:03+00:00"
    )
    stood(place, tmp_path, ended="2026-01-04T01:02:03+00:00", done=False)
    assert made([place], tmp_path) == Made()
