import json
import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

import gossamer
from gossamer.cli.main import main
from gossamer.errors import ConfigError, DataError, RunError
from gossamer.runs import atomic
from gossamer.zoo.load import load
from gossamer.zoo.publish import publish


@pytest.fixture(scope="module")
def whole(run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return publish(run, tmp_path_factory.mktemp("published") / "net").path


@pytest.fixture
def net(whole: Path, tmp_path: Path) -> Path:
    shutil.copytree(whole, tmp_path / "net")
    return tmp_path / "net"


def rewrite(net: Path, change: Callable[[dict], object]) -> None:
    manifest = json.loads((net / "gossamer.json").read_text())
    change(manifest)
    (net / "gossamer.json").write_text(json.dumps(manifest))


def resealed(net: Path, name: str) -> None:
    """Let the manifest name the present digest of a file, as whoever made the folder could."""
    path = net / name
    rewrite(net, lambda m: m["files"].update({name: {"bytes": path.stat().st_size, "sha256": atomic.sha256(path)}}))


def test_a_folder_loads_by_path_and_text(net: Path):
    state = torch.random.get_rng_state()
    one, other = load(net), gossamer.load(str(net))
    assert torch.equal(torch.random.get_rng_state(), state)
    x = torch.rand(2, 1, 8, 8)
    assert torch.equal(one.module(x), other.module(x))
    assert one.images("test").image_shape == (1, 8, 8)


@pytest.mark.parametrize(
    "name", ["model.safetensors", "recipe.yaml", "env.json", "status.json", "metrics.jsonl", "results/network.json"]
)
def test_any_changed_or_missing_file_is_refused(net: Path, name: str):
    content = bytearray((net / name).read_bytes())
    content[len(content) // 2] ^= 1
    (net / name).write_bytes(content)
    with pytest.raises(DataError, match="SHA-256"):
        load(net)
    (net / name).write_bytes(content[:-1])
    with pytest.raises(DataError, match="bytes, as the manifest says"):
        load(net)
    (net / name).unlink()
    with pytest.raises(DataError, match="got none"):
        load(net)


@pytest.mark.parametrize("name", ["pytorch_model.bin", "extra.safetensors", "results/more.json", "setup.py", "x.PKL"])
def test_a_file_that_could_stand_for_a_part_is_refused(net: Path, name: str):
    (net / name).write_bytes(b"x")
    with pytest.raises(DataError, match="no file beside those"):
        load(net)


def test_a_hidden_file_is_no_result(net: Path):
    """Some file systems leave one beside every file; and nobody's forged result is taken for the network's."""
    (first, *_) = sorted((net / "results").glob("*-n*.json"))
    shutil.copy(first, net / "results" / ".forged.json")
    (net / "results" / f"._{first.name}").write_bytes(b"\0\5")
    assert len(load(net).evaluations) == 2


def test_a_changed_folder_is_neither_reported_on_nor_compared(net: Path, tmp_path: Path, capsys):
    def asked(*words: object) -> int:
        with pytest.raises(SystemExit) as stopped:
            main([str(word) for word in words])
        return int(stopped.value.code or 0)

    page = tmp_path / "page.html"
    assert asked("report", net, "-o", page) == 0
    page.unlink()
    (first, *_) = sorted((net / "results").glob("*-n*.json"))
    first.write_text(first.read_text().replace("[", " [", 1))
    for words in (("report", net, "-o", page), ("compare", net, net)):
        assert asked(*words) == 2
        assert f"error: {first}" in capsys.readouterr().err
    assert not page.exists()


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("--data", "digits"), "--data expected: none here"),
        (("--data-option", "train_n=60"), "--data-option expected: none here"),
        (("--weights", "net.safetensors"), "--weights expected: none here"),
        (("--outputs", "probabilities"), "--outputs expected: none here"),
    ],
)
def test_what_a_run_would_ignore_is_refused(run: Path, words: tuple[str, ...], told: str, capsys):
    with pytest.raises(SystemExit) as stopped:
        main(["evaluate", str(run), "--attack", "fgsm", *words])
    assert stopped.value.code == 2
    assert told in " ".join(capsys.readouterr().err.split())


def test_what_people_add_and_edit_is_no_harm(net: Path):
    (net / "README.md").write_text("my own words")
    (net / "LICENSE").write_text("yours")
    (net / ".gitattributes").write_text("*.safetensors filter=lfs")
    (net / "picture.png").write_bytes(b"png")
    assert load(net).manifest.classes == 10


@pytest.mark.parametrize(
    "name", ["../outside.json", "/etc/passwd", "results/../../x.json", "results\\x.json", "weights.pkl", "results/", ""]
)
def test_names_that_leave_the_folder_are_refused(net: Path, name: str):
    (net.parent / "outside.json").write_text("{}")
    rewrite(net, lambda m: m["files"].update({name: {"bytes": 2, "sha256": "0" * 64}}))
    with pytest.raises(DataError, match="names of files of a published network"):
        load(net)


def test_links_out_of_the_folder_are_refused(net: Path):
    outside = net.parent / "secret.json"
    (net / "env.json").rename(outside)
    (net / "env.json").symlink_to(outside)
    with pytest.raises(DataError, match="a link out of it"):
        load(net)
    (net / "env.json").unlink()
    outside.rename(net / "env.json")
    (net / "results").rename(net.parent / "elsewhere")
    (net / "results").symlink_to(net.parent / "elsewhere")
    with pytest.raises(DataError, match="a link out of it"):
        load(net)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda m: m.update(schema="gossamer/published/2"), "schema gossamer/published/1"),
        (lambda m: m.pop("schema"), "no schema"),
        (lambda m: m.update(surprise=1), "manifest"),
        (lambda m: m.pop("network"), "manifest"),
        (lambda m: m.update(image_shape=[1, 8, 10**9]), "manifest"),
        (lambda m: m["files"].pop("model.safetensors"), "a digest of model.safetensors"),
        (lambda m: m["files"]["env.json"].update(sha256="no digest"), "manifest"),
        (lambda m: m["network"].update(name="no-such-network"), "no-such-network"),
        (lambda m: m["network"]["options"].update(num_classes=7), "digits-cnn"),
        (lambda m: m["network"]["options"].update(width="wide"), "width"),
        (lambda m: m["network"].update(form="liquid"), "liquid"),
        (lambda m: m["network"].update(form="random-switch"), "of each ticket, by name"),
        (lambda m: m["network"].update(name="resnet18", options={"width": 1000.0}), "at most"),
        (lambda m: m.update(storage="dense"), "digits-cnn"),
        (lambda m: m.update(storage="pickle"), "manifest"),
        (lambda m: m.update(threat="linf:soon"), "a threat as linf:8/255"),
    ],
)
def test_a_manifest_that_says_something_else_is_refused(net: Path, change: Callable[[dict], object], told: str):
    rewrite(net, change)
    with pytest.raises(DataError, match=told):
        load(net)


@pytest.mark.parametrize("content", [b"", b"[1]", b"{", b"\xff", b"[" * 100_000])
def test_a_manifest_that_is_none_is_refused(net: Path, content: bytes):
    (net / "gossamer.json").write_bytes(content)
    with pytest.raises(DataError):
        load(net)


def test_a_large_manifest_is_not_read(net: Path):
    with (net / "gossamer.json").open("r+b") as file:
        file.truncate(2**30)
    with pytest.raises(DataError, match="a short record"):
        load(net)


class Trap:
    """What a pickle would run when it is read."""

    def __reduce__(self):
        return os._exit, (3,)


def test_nothing_is_unpickled_and_no_code_is_imported(net: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    torch.save({"weights": Trap()}, net / "model.safetensors")
    resealed(net, "model.safetensors")
    for storage in ("dense", "sparse"):
        rewrite(net, lambda m, storage=storage: m.update(storage=storage))
        with pytest.raises((DataError, RunError)):
            load(net)
    (tmp_path / "trapnets.py").write_text("raise SystemExit('imported')")
    monkeypatch.chdir(tmp_path)
    save_file({"a": torch.zeros(1)}, net / "model.safetensors")
    resealed(net, "model.safetensors")
    rewrite(net, lambda m: m.update(storage="dense", network={"name": "trapnets:make"}))
    with pytest.raises(ConfigError, match="its own factory may run"):
        load(net)
    with pytest.raises(SystemExit, match="imported"):
        load(net, allow_factory=True)


def test_a_recipe_that_extends_another_file_is_refused(net: Path):
    (net / "recipe.yaml").write_text("extends: /etc/hosts.yaml\n")
    resealed(net, "recipe.yaml")
    with pytest.raises(ConfigError):
        assert load(net).recipe


def test_the_data_a_folder_names_say_nothing_of_where_files_lie(net: Path, monkeypatch: pytest.MonkeyPatch):
    asked: list[dict] = []
    with monkeypatch.context() as patch:
        patch.setattr("gossamer.zoo.load.load_data", lambda *_, **options: asked.append(options))
        rewrite(net, lambda m: m["data"].update(name="folder", options={"cache_dir": "/etc", "image_size": 8}))
        load(net).images("test", net.parent)
    assert asked == [{"data_dir": net.parent, "image_size": 8}]
    for options in ({"data_dir": "/etc"}, {"part": "train"}):
        rewrite(net, lambda m, options=options: m["data"].update(name="digits", options=options))
        with pytest.raises(ConfigError, match="option of the data set"):
            load(net).images("test")
    rewrite(net, lambda m: m.update(data=None))
    with pytest.raises(ConfigError, match="the name of a data set"):
        load(net).images("test")


def test_what_is_neither_path_nor_name_is_told(tmp_path: Path, net: Path):
    for wrong in (tmp_path / "none", "no-such-thing", "a/b/c", "../x"):
        with pytest.raises(ConfigError, match="a published folder, or a name as org/name"):
            load(wrong)
    with pytest.raises(ConfigError, match="got a file"):
        load(net / "gossamer.json")
    with pytest.raises(DataError, match=r"a folder with a gossamer\.json"):
        load(tmp_path)
    with pytest.raises(ConfigError, match="revision"):
        load(net, revision="main")


class Cache:
    """A hub whose cache is laid out as its client does: snapshots of links into blobs."""

    def __init__(self, folder: Path, net: Path) -> None:
        self.asked: list[dict] = []
        self.snapshot = folder / "models--silk--tiny/snapshots/abc"
        blobs = folder / "models--silk--tiny/blobs"
        blobs.mkdir(parents=True)
        for number, path in enumerate(sorted(path for path in net.rglob("*") if path.is_file())):
            shutil.copy(path, blobs / str(number))
            link = self.snapshot / path.relative_to(net)
            link.parent.mkdir(parents=True, exist_ok=True)
            link.symlink_to(blobs / str(number))

    def snapshot_download(self, repo_id: str, **options: object) -> str:
        self.asked.append({"repo_id": repo_id, **options})
        return str(self.snapshot)

    def create_repo(self, repo_id: str, **options: object) -> None:
        raise AssertionError

    def upload_folder(self, **options: object) -> None:
        raise AssertionError


def test_a_name_is_fetched_from_the_hub_and_verified(net: Path, tmp_path: Path):
    cache = Cache(tmp_path / "cache", net)
    found = load("silk/tiny", revision="v1", client=cache, offline=True, cache_dir=tmp_path / "cache")
    assert torch.equal(found.module.state_dict()["fc.bias"], load(net).module.state_dict()["fc.bias"])
    asked = cache.asked[0]
    assert (asked["repo_id"], asked["revision"], asked["local_files_only"]) == ("silk/tiny", "v1", True)
    assert asked["cache_dir"] == str(tmp_path / "cache")
    assert "model.safetensors" in asked["allow_patterns"]
    assert not any(pattern in ("*", "*.bin", "*.py") for pattern in asked["allow_patterns"])
    env = cache.snapshot / "env.json"
    env.unlink()
    (tmp_path / "elsewhere.json").write_bytes((net / "env.json").read_bytes())
    env.symlink_to(tmp_path / "elsewhere.json")
    with pytest.raises(DataError, match="a link out of it"):
        load("silk/tiny", client=cache)


def test_a_hub_that_does_not_answer_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    class Down:
        def snapshot_download(self, repo_id: str, **options: object) -> str:
            raise LookupError("not in the cache")

    with pytest.raises(RunError, match="not in the cache"):
        load("silk/tiny", client=Down(), offline=True)  # type: ignore[arg-type]

    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(ConfigError, match=r"gossamer\[hub\]"):
        load("silk/tiny")


def test_a_folder_goes_before_a_name(net: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "silk").mkdir()
    net.rename(tmp_path / "silk/tiny")
    monkeypatch.chdir(tmp_path)
    assert load("silk/tiny").manifest.classes == 10


def test_a_command_tells_a_damaged_folder(net: Path, capsys: pytest.CaptureFixture[str]):
    (net / "model.safetensors").write_bytes(b"")
    with pytest.raises(SystemExit) as stopped:
        main(["evaluate", str(net), "--attack", "fgsm"])
    assert stopped.value.code == 2
    assert "as the manifest says" in capsys.readouterr().err
