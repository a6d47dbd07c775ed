"""Verification: what ships is what was measured, or it fails, and says by how much."""

import dataclasses
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from shipped import even, images, labelled, small
from torch import Tensor, nn

from gossamer.attacks.autoattack import AutoAttack
from gossamer.attacks.pgd import PGD
from gossamer.cli.main import main
from gossamer.data import from_tensors
from gossamer.deploy import sparse_file
from gossamer.deploy.about import about_path, digests, read_about, write_about
from gossamer.deploy.artifact import Artifact, open_artifact
from gossamer.deploy.export import export
from gossamer.deploy.sparse_header import Network
from gossamer.deploy.verification import Gap, Verification
from gossamer.deploy.verify import Asked, keep, verify
from gossamer.errors import ConfigError, DataError, RunError
from gossamer.evaluation.adapters import TorchFunction
from gossamer.evaluation.setting import Setting
from gossamer.intervals import paired_difference
from gossamer.models import build
from gossamer.runs import records
from gossamer.threat import ThreatModel

THREAT = ThreatModel("linf", 0.02)
ASKED = Asked(attack=PGD(threat=THREAT, steps=5), threat=THREAT, queries=20)


def setting(**changes: object) -> Setting:
    return Setting(data=labelled(even()), **changes)  # type: ignore[arg-type]


@pytest.fixture
def sound(tmp_path: Path) -> Artifact:
    return open_artifact(export(even(), labelled(even()).images[:1], "sparse", tmp_path / "net").path, module=even())


def replaced(artifact: Artifact, function: Callable[[Tensor], Tensor]) -> Artifact:
    """Return an artifact whose record is that of another one, and that computes something else."""
    return dataclasses.replace(artifact, model=TorchFunction(function, "changed"))


def test_an_exact_artifact_passes_without_a_gap(sound: Artifact, tmp_path: Path):
    found = verify(sound, even(), setting(), ASKED)
    assert found.passed
    assert found.failures == ()
    assert found.parity is not None
    assert found.parity.error < 1e-5
    assert found.parity.agreement == 1
    assert found.clean_gap == found.robust_gap == Gap(value=0.0, interval=paired_difference(0, 0, 40))
    assert [outcome.attack for outcome in found.artifact.attacks] == ["pgd of the twin", "square"]
    assert found.artifact.robust_accuracy == found.parent.robust_accuracy
    assert 0 < found.artifact.robust_accuracy < 1
    assert found.shipped.recorded
    found.save(tmp_path / "found.json")
    read = records.read(Verification, tmp_path / "found.json")
    assert read.robust_gap == found.robust_gap
    assert read.artifact.attacks == found.artifact.attacks
    assert str(found).splitlines()[-1] == "passed"


def test_a_sparse_file_is_verified_as_the_network_that_it_names(tmp_path: Path):
    """Its tensors fit its parent, but the network that it names does not normalise."""
    parent = build("digits-cnn", mean=(0.5,), std=(0.2,)).eval()
    x = torch.rand(8, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        data = from_tensors(x, parent(x).argmax(dim=1), part="test", classes=list("0123456789"))
    sparse_file.write(tmp_path / "net.safetensors", parent, network=Network(name="digits-cnn"))
    artifact = open_artifact(tmp_path / "net.safetensors", module=parent)
    found = verify(artifact, parent, Setting(data=data), ASKED)
    assert found.failures[0].startswith("logits on images are off by")


def test_an_artifact_that_computes_something_else_fails_the_gate(sound: Artifact):
    network = even()
    found = verify(replaced(sound, lambda x: network(x).roll(1, dims=1)), even(), setting(), ASKED)
    assert not found.passed
    assert found.artifact.clean_accuracy == 0
    assert found.clean_gap.value == 1
    assert [failure.split()[0] for failure in found.failures] == ["logits", "logits", "it", "clean", "robust"]
    assert "it says the parent's class on 0.00% of the images, fewer than 95 %" in found.failures
    assert "FAILED: clean accuracy is 100.00 points below the parent's, more than 1" in str(found)


@pytest.mark.parametrize(
    ("kind", "values"),
    [("sparse", "float32"), ("sparse", "int8"), ("onnx", None), ("c", "float32"), ("c-int8", "int8")],
)
def test_without_a_record_the_kind_says_whether_logits_are_exact(kind: str, values: str | None, tmp_path: Path):
    network = even()
    made = export(network, labelled(network).images[:1], kind, tmp_path / "net", values=values)
    about_path(made.path).unlink()
    artifact = replaced(open_artifact(made.path, module=network, trust=True), lambda x: 1.01 * network(x))
    found = verify(artifact, network, setting(), ASKED)
    assert "its files have changed is not known" in str(found)
    assert [failure.split()[0] for failure in found.failures] == ([] if values == "int8" else ["logits", "logits"])


@pytest.mark.parametrize("kind", ["sparse", "onnx", "c"])
def test_a_record_does_not_say_that_logits_may_be_off(kind: str, tmp_path: Path):
    network = even()
    path = export(network, labelled(network).images[:1], kind, tmp_path / "net").path
    write_about(path, dataclasses.replace(read_about(path), values="int8"))
    artifact = replaced(open_artifact(path, module=network, trust=True), lambda x: 1.01 * network(x))
    assert [failure.split()[0] for failure in verify(artifact, network, setting(), ASKED).failures] == ["logits"] * 2


def test_labels_are_held_against_a_limit_of_their_own(sound: Artifact):
    network = even()
    images = labelled(network).float(torch.arange(40))

    def says_another_class_on_four(x: Tensor) -> Tensor:
        logits = network(x)
        near = torch.cdist(x.flatten(1), images.flatten(1)).argmin(dim=1)
        return torch.where((near < 4)[:, None], logits.roll(1, dims=1), logits)

    changed = replaced(sound, says_another_class_on_four)
    lenient = Asked(**vars(ASKED) | {"limit": 1.0, "agreement": 0.9})
    assert not any(failure.startswith("it says") for failure in verify(changed, even(), setting(), lenient).failures)
    strict = Asked(**vars(lenient) | {"agreement": 0.91})
    failures = verify(changed, even(), setting(), strict).failures
    assert "it says the parent's class on 90.00% of the images, fewer than 91 %" in failures


def test_every_sample_counts_with_the_worst_attack(sound: Artifact):
    """An artifact that is right unless a corner is bright falls to its own attack, not to its twin's examples."""
    network = even()

    def with_a_back_door(x: Tensor) -> Tensor:
        logits = network(x)
        return torch.where(x[:, :1, 0, 0] > 0.5, -logits, logits)

    data = labelled(network, 60)
    found = verify(replaced(sound, with_a_back_door), even(), Setting(data=data), Asked(**vars(ASKED) | {"limit": 1.0}))
    flags = [torch.tensor(outcome.robust, dtype=torch.bool) for outcome in found.artifact.attacks]
    assert found.artifact.robust_accuracy == float((flags[0] & flags[1]).double().mean())
    assert bool((flags[0] & ~flags[1]).any())
    assert found.robust_gap.value > 0


def test_members_of_an_ensemble_all_see_every_sample(tmp_path: Path):
    network = even(5)
    data = labelled(network, 12)
    artifact = open_artifact(export(network, data.images[:1], "sparse", tmp_path / "net").path, module=network)
    attack = AutoAttack(threat=THREAT, steps=2, queries=5)
    found = verify(artifact, network, Setting(data=data), Asked(attack=attack, threat=THREAT, queries=5))
    names = [outcome.attack for outcome in found.artifact.attacks]
    assert names == ["apgd-ce of the twin", "apgd-t of the twin", "fab-t of the twin", "square of the twin", "square"]
    assert all(outcome.n == 12 for outcome in found.artifact.attacks)


def test_the_limit_decides(sound: Artifact):
    network, data = even(), labelled(even())
    wrong = set(range(0, 40, 20))
    images = data.float(torch.arange(40))

    def errs_on_two(x: Tensor) -> Tensor:
        logits = network(x)
        near = torch.cdist(x.flatten(1), images.flatten(1)).argmin(dim=1)
        turned = torch.tensor([int(index) in wrong for index in near])
        return torch.where(turned[:, None], -logits, logits)

    changed = replaced(sound, errs_on_two)
    strict = verify(changed, even(), setting(), Asked(**vars(ASKED) | {"limit": 0.04}))
    assert strict.clean_gap.value == pytest.approx(2 / 40)
    assert any(failure.startswith("clean accuracy is 5.00 points") for failure in strict.failures)
    lenient = verify(changed, even(), setting(), Asked(**vars(ASKED) | {"limit": 0.05}))
    assert not any(failure.startswith("clean") for failure in lenient.failures)


def test_without_a_twin_the_artifact_is_attacked_alone(sound: Artifact):
    found = verify(sound, None, setting(), Asked(attack=None, threat=THREAT, queries=20))
    assert (found.parity, found.parent, found.robust_gap) == (None, None, None)
    assert [outcome.attack for outcome in found.artifact.attacks] == ["square"]
    assert str(found).splitlines()[-1].startswith("nothing to compare it with")


def test_an_artifact_that_nothing_was_compared_with_has_not_passed(sound: Artifact):
    for parent, attack, passed in ((None, None, None), (even(), ASKED.attack, True)):
        asked = Asked(attack=attack, threat=THREAT, queries=5)
        assert keep(sound, verify(sound, parent, setting(), asked))
        assert read_about(sound.path).verified.passed is passed


def test_what_was_opened_is_what_is_kept(sound: Artifact, tmp_path: Path):
    """Another file and its record take the place of the one that is being attacked, and are not taken for it."""
    opened = digests([sound.path])
    about_path(sound.path).unlink()
    alone = open_artifact(sound.path, module=even())
    assert sound.files == alone.files == opened
    other = export(small(density=0.2), labelled(even()).images[:1], "sparse", sound.path)
    found = verify(sound, even(), setting(), ASKED)
    assert found.shipped.files == opened != other.about.files
    for artifact in (sound, alone):
        with pytest.raises(RunError, match="one of other files, written meanwhile"):
            keep(artifact, found)
    assert read_about(sound.path) == other.about
    about_path(sound.path).unlink()
    assert not keep(alone, found)
    with pytest.raises(RunError, match="none any more"):
        keep(sound, found)


def test_a_verification_is_kept_in_the_record_as_it_is_now(sound: Artifact):
    remarked = dataclasses.replace(sound.about, remarks=("seen by another",))
    write_about(sound.path, remarked)
    assert keep(sound, verify(sound, even(), setting(), ASKED))
    assert read_about(sound.path).remarks == ("seen by another",)


def gossamer(*words: object) -> int:
    with pytest.raises(SystemExit) as stopped:
        main([str(word) for word in words])
    return int(stopped.value.code or 0)


@pytest.fixture
def alone(tmp_path: Path) -> list[object]:
    """Return the command that verifies a sparse file of its own without the network that it was made of."""
    network = build("digits-cnn", width=0.25)
    named = Network(name="digits-cnn", options={"width": 0.25})
    path = export(network, torch.rand(1, 1, 8, 8), "sparse", tmp_path / "net", network=named).path
    words = ["verify", path, "--data", "digits", "--threat", "linf:0.02", "--queries", 2, "--n", 8, "--device", "cpu"]
    return [*words, "--json", tmp_path / "found.json"]


@pytest.mark.parametrize("given", [["--attack", "pgd"], ["--option", "steps=5"]])
def test_an_attack_without_a_twin_to_seek_on_is_refused(
    alone: list[object], given: list[str], capsys: pytest.CaptureFixture[str]
):
    assert gossamer(*alone, *given) == 2
    assert f"{given[0]} expected: a network to seek" in " ".join(capsys.readouterr().err.split())


@pytest.mark.parametrize("command", ["verify", "bench"])
@pytest.mark.parametrize(("name", "said"), [("none.c", "no file"), ("net.bin", "'.bin'")])
def test_an_artifact_that_is_not_there_is_told_before_data_are_read(
    command: str,
    name: str,
    said: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
):
    monkeypatch.setattr(f"gossamer.cli.{command}.load", None)
    monkeypatch.setattr(f"gossamer.cli.{command}.open_origin", None)
    assert gossamer(command, tmp_path / name, "--run", tmp_path, "--data", "cifar10") != 0
    assert said in capsys.readouterr().err


def test_results_are_saved_though_the_record_cannot_be_written(
    alone: list[object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    def refuse(*_: object) -> None:
        raise RunError("net.safetensors.json", expected="a folder to write to", got="read-only", remedy="copy it")

    monkeypatch.setattr("gossamer.deploy.verify.write_about", refuse)
    assert gossamer(*alone) == 0
    assert records.read(Verification, tmp_path / "found.json").artifact.n == 8
    assert "not kept in its record: net.safetensors.json" in capsys.readouterr().out


def test_what_was_finished_is_not_measured_again(sound: Artifact, tmp_path: Path):
    first = verify(sound, even(), setting(folder=tmp_path / "cells"), ASKED)
    files = sorted((tmp_path / "cells").rglob("*"))
    assert files
    again = verify(sound, even(), setting(folder=tmp_path / "cells"), ASKED)
    assert records.to_json(again.artifact) == records.to_json(first.artifact)
    assert sorted((tmp_path / "cells").rglob("*")) == files


def test_a_changed_file_is_measured_anew_though_its_logits_look_alike(sound: Artifact, tmp_path: Path):
    verify(sound, even(), setting(folder=tmp_path / "cells"), ASKED)
    files = sorted((tmp_path / "cells").rglob("*"))
    changed = dataclasses.replace(sound, files={sound.path.name: "0" * 64})
    verify(changed, even(), setting(folder=tmp_path / "cells"), ASKED)
    (added,) = set((tmp_path / "cells").rglob("*")) - set(files)
    assert added.name.startswith(sound.path.stem)


def test_impossible_questions_are_refused(sound: Artifact):
    with pytest.raises(ConfigError, match="--limit"):
        verify(sound, even(), setting(), Asked(**vars(ASKED) | {"limit": 1.5}))
    with pytest.raises(ConfigError, match="--agreement"):
        verify(sound, even(), setting(), Asked(**vars(ASKED) | {"agreement": 95.0}))
    with pytest.raises(ConfigError, match="--attack"):
        verify(sound, even(), setting(), Asked(attack=None, threat=THREAT))
    other = nn.Sequential(nn.Flatten(), nn.Linear(64, 3))
    data = (torch.rand(4, 1, 8, 8), torch.tensor([0, 1, 2, 0]))
    with pytest.raises(ConfigError, match="images of shape"):
        verify(sound, other, Setting(data=data), ASKED)
    unrecorded = dataclasses.replace(sound, about=None, shape=None)
    with pytest.raises(DataError, match="shape and type that the model takes"):
        verify(unrecorded, even(), Setting(data=data), ASKED)


def test_a_network_of_two_classes_is_attacked_by_what_two_classes_allow(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    torch.manual_seed(2)
    network = nn.Sequential(nn.Flatten(), nn.Linear(72, 2)).eval()
    x = images(20)
    y = network(x).argmax(dim=1)
    save_file({"x": x, "y": y, "x_test": x.clone(), "y_test": y.clone()}, "data.safetensors")
    save_file(network.state_dict(), "twin.safetensors")
    Path("twin_of_two.py").write_text(
        "from torch import nn\ndef make():\n    return nn.Sequential(nn.Flatten(), nn.Linear(72, 2))\n"
    )
    export(network, x[:1], "torch", "net.pt2")
    # Its own record would spare it all but three attacks.
    write_about(Path("net.pt2"), dataclasses.replace(read_about(Path("net.pt2")), classes=1))
    words = ["verify", "net.pt2", "--twin", "twin_of_two:make", "--twin-weights", "twin.safetensors", "--trust"]
    words += ["--data", "tensors", "--data-dir", "data.safetensors", "--threat", "linf:0.02", "--json", "found.json"]
    words += ["--option", "steps=3", "--option", "queries=10", "--queries", "10", "--device", "cpu"]
    with pytest.raises(SystemExit) as stopped:
        main(words)
    assert stopped.value.code in (0, None), capsys.readouterr().err
    found = records.read(Verification, Path("found.json"))
    names = [outcome.attack.removesuffix(" of the twin") for outcome in found.artifact.attacks]
    assert names == ["apgd-ce", "fab", "square", "fab-t", "square"]
    with pytest.raises(SystemExit) as stopped:
        main([*words, "--attack", "autoattack-plus"])
    assert stopped.value.code == 2
    assert "attack with apgd-ce, fab or square" in " ".join(capsys.readouterr().err.split())
