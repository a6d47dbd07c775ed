"""What a section of a rebuilt entry holds: every number in a table, how it stands, and the overview of all."""

from pathlib import Path

import pytest
from test_standing import ENTRY, STUDY, stand

from gossamer.reproduce.drawing import overview, part
from gossamer.reproduce.published import Entry, entries, load_entry
from gossamer.reproduce.standing import rebuild


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
        "0 equal, untested; 0 not as claimed, untested; 3 not judged."
    )
    first = [cell.text for cell in told.tables[0].rows[0]]
    assert first == ["study/table", "1", "–", "–", "–", "–", "–", "1", "4", "4 of 4", "–", "4 min 08 s"]
    # Both entries have the same runs, which count once.
    assert "All of them together took 4 min 08 s of training" in told.sentences[1]
    assert [cell.text for cell in told.tables[0].rows[1]][-3:] == ["0 of 4", "4", "–"]
    twice = overview([stand(tmp_path), stand(tmp_path)], "smoke")
    assert "All of them together took 4 min 08 s of training" in twice.sentences[1]
