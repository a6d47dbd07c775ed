"""The published pickle of pseudo-labelled images, and what is not one."""

import os
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from gossamer.data import convert_pseudo_labels, from_tensors
from gossamer.data.unlabelled import read_pool
from gossamer.errors import DataError

IMAGES = np.arange(2 * 4 * 5 * 3, dtype=np.uint8).reshape(2, 4, 5, 3)
PUBLISHED: dict[str, Any] = {
    "data": IMAGES,
    "extrapolated_targets": np.array([7, 2]),
    "prediction_model": "a path",
    "prediction_model_epoch": 200,
}


def written(folder: Path, content: object, protocol: int = 4) -> Path:
    path = folder / "published.pickle"
    path.write_bytes(pickle.dumps(content, protocol=protocol))
    return path


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
@pytest.mark.parametrize("targets", [np.array([7, 2]), [7, 2], list(np.array([7, 2])), np.array([7, 2], dtype="u1")])
def test_images_and_labels_are_those_of_the_pickle(tmp_path: Path, targets: Any, protocol: int) -> None:
    source = written(tmp_path, {**PUBLISHED, "extrapolated_targets": targets}, protocol)
    target = convert_pseudo_labels(source, tmp_path / "made" / "pool.safetensors")
    held = load_file(target)
    assert (held["x"].dtype, held["x"].shape) == (torch.uint8, (2, 3, 4, 5))
    # Image 1, row 2, column 3, blue: ((1 * 4 + 2) * 5 + 3) * 3 + 2.
    assert held["x"][1, 2, 2, 3] == 101
    assert (held["y"].dtype, held["y"].tolist()) == (torch.int64, [7, 2])
    assert [path.name for path in target.parent.iterdir()] == ["pool.safetensors"]


def test_a_recipe_reads_what_was_written(tmp_path: Path) -> None:
    target = convert_pseudo_labels(written(tmp_path, PUBLISHED), tmp_path / "pool.safetensors")
    like = from_tensors(torch.zeros(10, 3, 4, 5, dtype=torch.uint8), torch.arange(10))
    pool = read_pool(target, "y", like)
    assert len(pool.images) == 2
    assert pool.labels is not None
    assert pool.labels.tolist() == [7, 2]


class Foreign:
    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.trace),)


def test_a_foreign_class_is_refused_before_anything_is_called(tmp_path: Path) -> None:
    source = written(tmp_path, {**PUBLISHED, "prediction_model": Foreign(tmp_path / "trace")})
    with pytest.raises(DataError, match=r"posix\.mkdir is not admitted"):
        convert_pseudo_labels(source, tmp_path / "pool.safetensors")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["published.pickle"]


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ({"data": IMAGES}, r"got the keys \['data'\]"),
        ({**PUBLISHED, "data": IMAGES.astype(np.float32)}, "data of shape .* and float32"),
        ({**PUBLISHED, "data": IMAGES.reshape(2, 60)}, r"data of shape \(2, 60\)"),
        ({**PUBLISHED, "data": IMAGES.transpose(0, 2, 3, 1)}, r"data of shape \(2, 5, 3, 4\)"),
        ({**PUBLISHED, "extrapolated_targets": np.array([1])}, r"extrapolated_targets of shape \(1,\)"),
        ({**PUBLISHED, "extrapolated_targets": np.array([0.5, 1.0])}, "extrapolated_targets of shape .* and float64"),
        ({**PUBLISHED, "extrapolated_targets": "ab"}, "extrapolated_targets of str"),
        ([1, 2], "got list"),
    ],
)
def test_what_is_not_the_published_layout_is_refused(tmp_path: Path, content: Any, told: str) -> None:
    with pytest.raises(DataError, match=told):
        convert_pseudo_labels(written(tmp_path, content), tmp_path / "pool.safetensors")


def test_nothing_is_replaced_and_nothing_is_made_of_no_file(tmp_path: Path) -> None:
    source = written(tmp_path, PUBLISHED)
    with pytest.raises(DataError, match="no such file yet"):
        convert_pseudo_labels(source, source)
    with pytest.raises(DataError, match="got no file"):
        convert_pseudo_labels(tmp_path / "none.pickle", tmp_path / "pool.safetensors")
