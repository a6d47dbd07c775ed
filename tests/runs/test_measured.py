"""Records of protocols and audits are told by their schema, beside evaluations and other files in results/."""

import dataclasses

import pytest

from gossamer.errors import RunError
from gossamer.runs import RunFolder, atomic, protocols, records, results
from gossamer.runs.measured import KINDS, measured_files, read_measured

CLASSES = protocols.ClassTable(
    run="toy", attack="fgsm", threat="linf:0.1", n=1, classes=(), worst_clean="cat", worst_robust="cat"
)


def test_every_record_with_a_schema_is_known():
    made = [each for each in vars(protocols).values() if dataclasses.is_dataclass(each) and hasattr(each, "schema")]
    assert len(made) == 13
    assert set(made) <= set(KINDS.values())
    assert all(schema.startswith("gossamer/") for schema in KINDS)


def test_a_record_comes_back_and_evaluations_are_left_alone(tmp_path):
    run = RunFolder(tmp_path)
    records.write(run.result("protocol-classes-1"), CLASSES)
    for name, content in (("network", {"schema": "gossamer/network/1"}), ("mine", {"a": 1}), ("list", [1])):
        atomic.write_json(run.result(name), content)
    assert measured_files(run) == [run.result("protocol-classes-1")]
    assert read_measured(run.result("protocol-classes-1")) == CLASSES
    assert results.evaluation_files(run) == []


@pytest.mark.parametrize("content", [{}, [], {"schema": 3}, {"schema": "gossamer/network/1"}])
def test_other_files_are_refused_by_what_was_expected(content, tmp_path):
    path = tmp_path / "other.json"
    atomic.write_json(path, content)
    with pytest.raises(RunError, match="expected a record of an audit or a protocol"):
        read_measured(path)
