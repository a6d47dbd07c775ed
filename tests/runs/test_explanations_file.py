"""Explanations come back from their file as they were, and a file that contradicts itself is refused."""

from dataclasses import replace

import pytest
import torch

from gossamer.errors import RunError
from gossamer.runs import RunFolder, atomic, explanations, results


def made(count=3, *, cams=True):
    about = explanations.About(
        dataset=results.Dataset(name="digits", part="test", checksum="c0ffee", selection="chosen", n=count),
        classes=("nought", "one"),
        index=tuple(range(count)),
        labels=(0, 1, 0)[:count],
        clean_predictions=(0, 1, 1)[:count],
        clean_confidences=(0.9, 0.8, 0.7)[:count],
        adversarial_predictions=(1, 0, 1)[:count],
        adversarial_confidences=(0.6, 0.5, 0.9)[:count],
        attack="pgd",
        attack_parameters={"steps": 20, "step": None},
        threat="linf:0.1",
        seed=0,
        layer="conv" if cams else None,
        reason="" if cams else "none has places",
        environment={"command": "gossamer explain run"},
    )
    draws = torch.Generator().manual_seed(0)
    maps = [torch.randn(count, 4, 5, generator=draws) for _ in range(4)]
    return explanations.Explanations(
        images=torch.randint(0, 256, (count, 3, 4, 5), generator=draws, dtype=torch.uint8),
        adversarial=torch.rand(count, 3, 4, 5, generator=draws),
        clean_gradients=maps[0],
        adversarial_gradients=maps[1],
        clean_cams=maps[2].relu() if cams else None,
        adversarial_cams=maps[3].relu() if cams else None,
        about=about,
    )


@pytest.mark.parametrize("cams", [True, False])
def test_what_is_written_comes_back_from_one_file(tmp_path, cams):
    run, written = RunFolder(tmp_path), made(cams=cams)
    path = explanations.write(run, written)
    assert path == explanations.path_of(run)
    assert [each for each in tmp_path.rglob("*") if each.is_file()] == [path]
    found = explanations.read(run)
    assert found.about == written.about
    for name in ("images", "adversarial", "clean_gradients", "adversarial_gradients", "clean_cams", "adversarial_cams"):
        before, after = getattr(written, name), getattr(found, name)
        assert (before is None) is (after is None) is (not cams and name.endswith("cams"))
        assert before is None or torch.equal(before, after)


def test_a_missing_damaged_or_foreign_file_is_told(tmp_path):
    run = RunFolder(tmp_path)
    path = explanations.path_of(run)
    with pytest.raises(RunError, match="no file"):
        explanations.read(run)
    explanations.write(run, made())
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(RunError, match="damaged"):
        explanations.read(run)
    atomic.write_safetensors(path, {"images": torch.zeros(1)})
    with pytest.raises(RunError, match="no schema"):
        explanations.read(run)
    explanations.write(run, made())
    about = atomic.read_about(path)
    atomic.write_safetensors(path, {"images": torch.zeros(1)}, about)
    with pytest.raises(RunError, match="no adversarial, clean_gradients"):
        explanations.read(run)
    atomic.write_safetensors(
        path, {"images": torch.zeros(1)}, {"explanations": about["explanations"].replace("/1", "/9")}
    )
    with pytest.raises(RunError, match="explanations/9"):
        explanations.read(run)


def test_parts_that_contradict_each_other_are_refused():
    whole = made()
    with pytest.raises(RunError, match="uint8"):
        replace(whole, images=whole.images.float())
    with pytest.raises(RunError, match="clean_gradients"):
        replace(whole, clean_gradients=whole.clean_gradients[:2])
    with pytest.raises(RunError, match="NaN"):
        replace(whole, clean_cams=whole.clean_cams * float("nan"))
    with pytest.raises(RunError, match="Grad-CAM"):
        replace(whole, clean_cams=None)
    with pytest.raises(RunError, match="3 entries"):
        replace(whole, about=replace(whole.about, labels=(0, 1)))
