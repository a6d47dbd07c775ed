"""What is drawn of a rebuilt entry: both sides on one figure, panels for the other axes, every number in a table."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from test_standing import ENTRY, STUDY, stand

from gossamer.reproduce.drawing import charts, overview, part
from gossamer.reproduce.published import Entry, Figure, entries, load_entry
from gossamer.reproduce.standing import Rebuilt, rebuild


def with_figure(rebuilt: Rebuilt, **changes: Any) -> Rebuilt:
    figure = Figure.model_validate({"x": "sparsity", "y": "robust", "lines": "method", **changes})
    fields = {**vars(rebuilt), "entry": rebuilt.entry.model_copy(update={"figure": figure})}
    return Rebuilt(**fields)


def test_ours_and_published_are_on_one_figure(tmp_path: Path) -> None:
    (chart,) = charts(with_figure(stand(tmp_path)))
    names = [trace["name"] for trace in chart.figure["data"]]
    assert names == ["bcs, published", "bcs, ours", "random, published", "random, ours", "theirs, published"]
    printed, own = chart.figure["data"][:2]
    assert (printed["x"], printed["y"]) == ([90], [80.0])
    assert printed["line"]["dash"] == "dash"
    assert own["y"] == [80.0]
    assert own["error_y"]["array"][0] == pytest.approx(14.33, abs=0.01)
    assert chart.figure["layout"]["xaxis"]["type"] == "linear"


def test_a_measure_may_lie_on_x(tmp_path: Path) -> None:
    (chart,) = charts(with_figure(stand(tmp_path), x="connections", log_x=True))
    own = [trace for trace in chart.figure["data"] if trace["name"] == "bcs, ours"]
    assert own[0]["x"] == [100.5]
    # What was printed without connections has no place on this x.
    assert "theirs, published" not in {trace["name"] for trace in chart.figure["data"]}


def test_lines_join_points_in_the_order_of_x(tmp_path: Path) -> None:
    rebuilt = with_figure(stand(tmp_path))
    own = [row for row in rebuilt.rows if row.at["method"] == "bcs"]
    others = [replace(row, at={**row.at, "sparsity": x}) for x in (99, 50) for row in own]
    (chart,) = charts(Rebuilt(**{**vars(rebuilt), "rows": (*rebuilt.rows, *others)}))
    lines = {trace["name"]: trace["x"] for trace in chart.figure["data"]}
    assert lines["bcs, published"] == lines["bcs, ours"] == [50, 90, 99]


def test_other_axes_make_panels() -> None:
    entry = load_entry("bcs/table-5")
    found = charts(rebuild(entry, None, None, Path("nowhere")))
    assert [chart.title for chart in found] == ["data cifar10", "data svhn"]
    assert found[0].figure["layout"]["xaxis"]["type"] == "log"
    assert found[0].figure["data"][0]["x"] == [10, 20, 50, 250, 500]
    assert found[0].figure["data"][0]["name"] == "sparsity 0, published"


@pytest.mark.parametrize("name", entries())
def test_every_entry_has_a_section_before_anything_is_trained(name: str) -> None:
    entry: Entry = load_entry(name)
    section = part(rebuild(entry, None, None, Path("nowhere")), "smoke")
    assert entry.title in section.title
    assert all(len(row) == len(table.head) for table in section.tables for row in table.rows)
    assert len(section.tables) == bool(entry.cells) + bool(entry.claims)


def test_the_overview_counts_verdicts(tmp_path: Path) -> None:
    told = overview([stand(tmp_path), rebuild(ENTRY, STUDY, STUDY.entries["table"], tmp_path / "nowhere")], "smoke")
    assert told.says == (
        "Of 4 claims of their authors: 1 holds; 0 broken; 0 undecided; 0 as claimed, untested; "
        "0 not as claimed, untested; 3 not judged."
    )
    first = [cell.text for cell in told.tables[0].rows[0]]
    assert first == ["study/table", "1", "–", "–", "–", "–", "1", "4", "4 of 4", "–", "4 min 08 s"]
    # Both entries have the same runs, which count once.
    assert "All of them together took 4 min 08 s of training" in told.sentences[1]
    assert [cell.text for cell in told.tables[0].rows[1]][-3:] == ["0 of 4", "4", "–"]
    twice = overview([stand(tmp_path), stand(tmp_path)], "smoke")
    assert "All of them together took 4 min 08 s of training" in twice.sentences[1]
