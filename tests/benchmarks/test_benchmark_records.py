import json
import shlex
import sys

import pytest

import record
import tables

CLAIM = record.Claim(what="steps", measured=1.42, unit="times", goal=1.3)


def result(**changes):
    given = {
        "name": "steps",
        "title": "Steps",
        "rounds": 5,
        "claims": [CLAIM],
        "tables": [record.Table(caption="Seconds", columns=["Who", "s"], rows=[["ours", 0.123456], ["theirs", None]])],
    }
    return record.Result(**{**given, **changes})


@pytest.mark.parametrize(
    ("measured", "goal", "sense", "verdict"),
    [
        (0.3, 0.3, "at most", "met"),
        (0.31, 0.3, "at most", "not met"),
        (1.3, 1.3, "at least", "met"),
        (1.29, 1.3, "at least", "not met"),
        (7.0, None, "at least", "no goal"),
    ],
)
def test_a_verdict_follows_from_measurement_and_goal(measured, goal, sense, verdict):
    assert record.Claim(what="it", measured=measured, goal=goal, sense=sense).verdict == verdict


def test_a_result_says_where_when_how_and_whether_it_was_enough(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "argv", [str(tables.README.parent / "race.py"), "--rounds", "5", "a b"])
    path = record.write(result(packages=["numpy"], threads=2, details={"seconds": [1, 2]}), tmp_path, load=(0.5, 1, 2))
    written = record.read(path)
    assert path.name == "steps.json"
    assert shlex.split(written["command"]) == ["python", "benchmarks/race.py", "--rounds", "5", "a b"]
    assert {"cpu", "cores", "instructions", "memory_gib"} <= set(written["machine"])
    assert written["machine"]["load_before"] == [0.5, 1, 2]
    assert {"python", "torch", "gossamer", "numpy"} <= set(written["versions"])
    assert written["versions"]["threads"] == 2
    assert (written["rounds"], written["details"]) == (5, {"seconds": [1, 2]})
    assert written["date"].endswith("+00:00")
    [claim] = written["claims"]
    assert (claim["goal"], claim["measured"], claim["verdict"]) == (1.3, 1.42, "met")


def test_a_spread_is_median_range_and_quartiles():
    assert record.spread([4.0, 1.0, 2.0, 3.0, 5.0]) == {
        "n": 5,
        "median": 3.0,
        "min": 1.0,
        "max": 5.0,
        "quartile_1": 2.0,
        "quartile_3": 4.0,
    }
    assert record.spread([2.5])["quartile_3"] == 2.5


def test_a_ragged_table_is_refused():
    with pytest.raises(ValueError, match="2 cells"):
        record.Table(caption="Seconds", columns=["Who", "s"], rows=[["ours"]])


def test_tables_show_claims_and_rows():
    shown = tables.markdown([record.to_json(result())])
    assert "| steps | 1.42 times | at least 1.3 times | met | 5 |" in shown
    assert "### Steps" in shown
    assert "| Who | s |\n| --- | --- |\n| ours | 0.123 |\n| theirs | - |" in shown


@pytest.mark.parametrize(
    ("value", "text"),
    [(None, "-"), (True, "yes"), (12345.6, "12346"), (0.00012345, "0.000123"), (7, "7"), ("a|b", "a\\|b")],
)
def test_cells(value, text):
    assert tables.cell(value) == text


def test_tables_are_filled_from_results_alone(tmp_path, capsys):
    readme, folder = tmp_path / "README.md", tmp_path / "results"
    readme.write_text(f"before\n{tables.BEGIN}\nold\n{tables.END}\nafter\n", encoding="utf-8")
    record.write(result(), folder)
    (folder / "foreign.json").write_text(json.dumps([1]), encoding="utf-8")
    arguments = ["--readme", str(readme), "--results", str(folder)]
    assert tables.main([*arguments, "--check"]) == 1
    assert "out of date" in capsys.readouterr().err
    assert tables.main(arguments) == 0
    text = readme.read_text(encoding="utf-8")
    assert text.startswith("before\n")
    assert text.endswith("\nafter\n")
    assert "old" not in text
    assert tables.main([*arguments, "--check"]) == 0
    assert readme.read_text(encoding="utf-8") == text


def test_without_results_the_page_says_so():
    assert tables.markdown([]) == tables.NOTHING


def test_a_page_without_markers_is_refused():
    with pytest.raises(ValueError, match="expected one"):
        tables.filled("text", "tables")


def test_the_readme_is_up_to_date():
    assert tables.main(["--check"]) == 0
