import json

import numpy as np
import pytest
import torch
from protocol_toys import KilledError
from torch import nn

from gossamer.errors import ConfigError, DataError
from gossamer.evaluation import corruptions as module
from gossamer.evaluation.corruptions import COUNTED, CorruptedImages, corruptions
from gossamer.evaluation.tables import tell
from gossamer.runs import records
from gossamer.runs.protocols import CorruptionTable

M = 6


class Bright(nn.Module):
    """Class 1 where the mean of the image is above a half."""

    def __init__(self):
        super().__init__()
        self.calls = 0

    def forward(self, x):
        self.calls += 1
        mean = x.flatten(1).mean(dim=1)
        return torch.stack([0.5 - mean, mean - 0.5], dim=1)


def write(folder, values_by_name):
    """Write a folder; values: per severity the brightness of the M images, the same for all channels."""
    folder.mkdir(exist_ok=True)
    labels = np.tile(np.array([0, 1] * (M // 2), dtype=np.int64), 5)
    np.save(folder / "labels.npy", labels)
    for name, bright in values_by_name.items():
        images = np.zeros((5 * M, 4, 4, 3), dtype=np.uint8)
        for severity in range(5):
            for image in range(M):
                right = image >= severity
                wanted = (image % 2 == 1) == right
                images[severity * M + image] = bright if wanted else 255 - bright
        np.save(folder / f"{name}.npy", images)
    return folder


def test_accuracy_falls_as_the_files_say(tmp_path):
    folder = write(tmp_path / "c", {"fog": 200, "snow": 240, "spatter": 210})
    made = corruptions({"bright": Bright()}, folder, cells=tmp_path / "cells")
    (row,) = made.rows
    assert [each.name for each in row.corruptions] == ["snow", "fog", "spatter"]
    assert [each.extra for each in row.corruptions] == [False, False, True]
    for each in row.corruptions:
        assert [share.value for share in each.accuracy] == pytest.approx([(M - s) / M for s in range(5)])
    assert row.by_severity == pytest.approx([(M - s) / M for s in range(5)])
    assert row.mean == pytest.approx((M - 2) / M)
    assert (made.n, made.counted) == (M, 2)
    told = tell(made)
    assert "spatter (extra)" in told
    assert "mean of 2" in told
    read = records.from_json(CorruptionTable, json.loads(json.dumps(records.to_json(made))), subject="corruptions")
    assert read.rows == made.rows


def test_a_folder_of_ones_own_corruptions_has_its_mean_over_all_of_them(tmp_path):
    folder = write(tmp_path / "c", {"rain": 200, "spatter": 210})
    made = corruptions({"bright": Bright()}, folder)
    assert made.counted == 2
    assert made.rows[0].mean == pytest.approx((M - 2) / M)
    assert "mean of 2" in tell(made)


def test_the_first_n_of_every_severity(tmp_path):
    folder = write(tmp_path / "c", {"fog": 200})
    made = corruptions({"bright": Bright()}, folder, n=2, batch_size=1)
    assert [share.value for share in made.rows[0].corruptions[0].accuracy] == [1.0, 0.5, 0.0, 0.0, 0.0]
    with pytest.raises(ConfigError, match="from 1 to 6"):
        corruptions({"bright": Bright()}, folder, n=7)


def test_a_killed_run_goes_on(tmp_path, monkeypatch):
    folder = write(tmp_path / "c", dict.fromkeys(COUNTED[:3], 200))
    real = module.share_of
    done = 0

    def dying(flags):
        nonlocal done
        done += 1
        if done == 8:
            raise KilledError
        return real(flags)

    monkeypatch.setattr(module, "share_of", dying)
    with pytest.raises(KilledError):
        corruptions({"bright": Bright()}, folder, cells=tmp_path / "cells")
    monkeypatch.undo()
    assert len(list((tmp_path / "cells").iterdir())) == 1
    model = Bright()
    resumed = corruptions({"bright": model}, folder, cells=tmp_path / "cells")
    assert resumed == corruptions({"bright": Bright()}, folder)
    # Two calls tell the model from others and count its classes.
    assert model.calls == 2 + 2 * 5
    np.save(folder / "fog.npy", np.load(folder / "gaussian_noise.npy"))
    assert len(corruptions({"bright": model}, folder, cells=tmp_path / "cells").rows[0].corruptions) == 4


def test_images_come_as_floats_of_their_severity(tmp_path):
    folder = write(tmp_path / "c", {"fog": 200})
    held = CorruptedImages.open(folder)
    found = held.images("fog", 2, torch.tensor([0, 1]))
    assert found.shape == (2, 3, 4, 4)
    assert found[:, 0, 0, 0].tolist() == pytest.approx([200 / 255, 200 / 255])


def test_a_damaged_folder_is_refused(tmp_path):
    folder = write(tmp_path / "c", {"fog": 200})
    np.save(folder / "snow.npy", np.array([{"a": 1}], dtype=object), allow_pickle=True)
    with pytest.raises(DataError, match="without pickled objects"):
        CorruptedImages.open(folder)
    np.save(folder / "snow.npy", np.zeros((5 * M, 4, 4, 3), dtype=np.float32))
    with pytest.raises(DataError, match="uint8 images"):
        CorruptedImages.open(folder)
    np.save(folder / "snow.npy", np.zeros((4 * M, 4, 4, 3), dtype=np.uint8))
    with pytest.raises(DataError, match="30 images"):
        CorruptedImages.open(folder)
    (folder / "snow.npy").unlink()
    np.save(folder / "labels.npy", np.arange(5 * M))
    with pytest.raises(DataError, match="not repeated"):
        CorruptedImages.open(folder)
    np.save(folder / "labels.npy", np.tile(np.arange(M), 5))
    with pytest.raises(DataError, match="2 logits"):
        corruptions({"bright": Bright()}, folder)
    (folder / "labels.npy").unlink()
    with pytest.raises(DataError, match="no file"):
        CorruptedImages.open(folder)
    (tmp_path / "empty").mkdir()
    np.save(tmp_path / "empty/labels.npy", np.zeros(5, dtype=np.int64))
    with pytest.raises(DataError, match=r"fog\.npy"):
        CorruptedImages.open(tmp_path / "empty")
