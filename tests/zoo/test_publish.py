import json
import shlex
import shutil
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import load_file
from torch import nn
from torch.nn.utils import parametrize

import gossamer
from gossamer.attacks.registry import build as build_attack
from gossamer.cli.main import main
from gossamer.deploy import sparse_file
from gossamer.deploy.export import KINDS
from gossamer.errors import ConfigError, RunError
from gossamer.models import build
from gossamer.recipe.open import open_run
from gossamer.report.retrace import made_again
from gossamer.report.views import collect
from gossamer.runs import RunFolder, atomic, lock, status
from gossamer.sparsity.binary_weights import LATENT_SIGNS, Signs
from gossamer.sparsity.factor_layers import FACTORISED, replace_layer
from gossamer.sparsity.noisy_weights import NOISY, WeightNoise, add_noise
from gossamer.sparsity.random_switch import RANDOM_SWITCH, switched
from gossamer.sparsity.slim import SLIM
from gossamer.sparsity.targets import targets
from gossamer.threat import ThreatModel
from gossamer.zoo import hub
from gossamer.zoo.publish import publish

IMAGES = torch.rand(6, 1, 8, 8, generator=torch.Generator().manual_seed(2))


def gossamer_command(*words: object) -> int:
    with pytest.raises(SystemExit) as stopped:
        main([str(word) for word in words])
    return int(stopped.value.code or 0)


def matter_of(card: str) -> dict:
    return yaml.safe_load(card.split("---\n")[1])


def drawn(module: nn.Module) -> torch.Tensor:
    """Return what a network computes, its noise drawn from the same numbers at every call."""
    with torch.no_grad(), torch.random.fork_rng(devices=[]):
        torch.manual_seed(5)
        return module(IMAGES)


def test_a_published_network_is_the_run_s_to_the_bit(run: Path, tmp_path: Path):
    published = publish(run, tmp_path / "net")
    theirs, ours = open_run(run).model().state_dict(), gossamer.load(tmp_path / "net").module.state_dict()
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
    assert not published.module.training
    assert published.threat == gossamer.ThreatModel("linf", 0.15)
    manifest = published.manifest
    assert (manifest.image_shape, manifest.classes, manifest.class_names) == ((1, 8, 8), 10, tuple("0123456789"))
    assert (manifest.dense_weights, manifest.nonzero) == (58_656, 2932)
    assert manifest.kind == "same-keys"
    assert published.recipe == open_run(run).recipe
    assert [one.attack for one in published.evaluations] == ["fgsm", "pgd"]
    assert published.twin is published.module


def test_a_sparse_network_is_stored_small_and_a_dense_one_plain(run: Path, tmp_path: Path):
    sparse = publish(run, tmp_path / "sparse").manifest
    dense = publish(run, tmp_path / "dense", storage="dense").manifest
    assert (sparse.storage, dense.storage) == ("sparse", "dense")
    small, large = (each.files["model.safetensors"].bytes for each in (sparse, dense))
    assert small < 0.12 * large
    # The sparse file opens by itself as an artifact does; the plain one has the names of the network.
    assert sparse_file.rebuild(tmp_path / "sparse/model.safetensors")(IMAGES).shape == (6, 10)
    plain = load_file(tmp_path / "dense/model.safetensors")
    build("digits-cnn").load_state_dict(plain)
    assert int(plain["conv2.weight"].count_nonzero()) < 0.1 * plain["conv2.weight"].numel()

    full = tmp_path / "full-run"
    shutil.copytree(run, full)
    atomic.write_safetensors(full / "states/final.safetensors", build("digits-cnn").state_dict())
    assert publish(full, tmp_path / "full").manifest.storage == "dense"
    assert publish(full, tmp_path / "full-sparse", storage="sparse").manifest.storage == "sparse"
    with pytest.raises(ConfigError, match="storage"):
        publish(run, tmp_path / "other", storage="tiny")  # type: ignore[arg-type]


def test_every_file_has_its_size_and_digest(run: Path, tmp_path: Path):
    publish(run, tmp_path / "net")
    told = json.loads((tmp_path / "net/gossamer.json").read_text())["files"]
    found = {path.relative_to(tmp_path / "net").as_posix() for path in (tmp_path / "net").rglob("*") if path.is_file()}
    assert found == {*told, "gossamer.json", "README.md"}
    assert {"model.safetensors", "recipe.yaml", "env.json", "results/network.json"} <= told.keys()
    for name, file in told.items():
        path = tmp_path / "net" / name
        assert (file["bytes"], file["sha256"]) == (path.stat().st_size, atomic.sha256(path))
    for name in ("recipe.yaml", "env.json", *(name for name in told if name.startswith("results/"))):
        assert (tmp_path / "net" / name).read_bytes() == (run / name).read_bytes()


def test_the_card_gives_every_accuracy_its_conditions_and_its_command(run: Path, tmp_path: Path):
    publish(run, tmp_path / "net", license="apache-2.0")
    card = (tmp_path / "net/README.md").read_text()
    matter = matter_of(card)
    assert matter["license"] == "apache-2.0"
    assert matter["library_name"] == "gossamer"
    assert {"sparse", "random", "adversarial", "digits-cnn"} <= set(matter["tags"])
    assert "datasets" not in matter  # digits lie in scikit-learn, not on the hub
    headline = matter["model-index"][0]["results"][0]["metrics"][1]
    assert "linf eps 0.15" in headline["name"]
    assert 0 <= headline["value"] <= 1
    row = next(line for line in card.splitlines() if line.startswith("| PGD-2 ×2 |"))
    cells = [cell.strip() for cell in row.strip("|").split("|")]
    assert cells[:6] == ["PGD-2 ×2", "linf", "0.15", "2", "2", "20"]
    assert "[" in cells[6]
    assert cells[8] == "digits test, first, seed 0"
    assert cells[10].startswith("gossamer ")
    assert len(cells[11]) == len("2026-01-01")
    assert "gossamer evaluate . --attack fgsm --norm linf --eps 0.15 --seed 0 --n 30" in card
    assert "upper bound on robust accuracy" in card  # as the report has it
    assert "a network \\| of a test &lt;b>" in card
    assert str(tmp_path) not in card


def test_without_a_license_or_an_evaluation_the_card_says_so(run: Path, tmp_path: Path):
    bare = tmp_path / "bare"
    shutil.copytree(run, bare)
    for path in (bare / "results").glob("*-n*.json"):
        path.unlink()
    publish(bare, tmp_path / "net")
    card = (tmp_path / "net/README.md").read_text()
    assert "license" not in matter_of(card)
    assert "None was named" in card
    assert "No robust accuracy was measured" in card
    assert "model-index" not in matter_of(card)


def test_the_card_of_a_network_measured_on_held_out_images_says_on_which(run: Path, tmp_path: Path):
    copied = tmp_path / "tiny"
    shutil.copytree(run, copied)
    for path in (copied / "results").glob("*-n*.json"):
        measured = atomic.read_json(path)
        measured["dataset"]["part"] = "held_out"
        measured["environment"]["command"] = "gossamer train of-the-run.yaml"
        atomic.write_json(path, measured)
    publish(copied, tmp_path / "net")
    card = (tmp_path / "net/README.md").read_text()
    assert "**No robust accuracy was measured on test images, but on held-out ones.**" in card
    assert "No evaluation came with the run on test images, but on held-out ones: measure it" in card
    # The folder names a data set, of which it has no held-out part.
    assert "gossamer evaluate . " not in card
    assert "gossamer train of-the-run.yaml" in card.split("What else was measured was measured on the run by:")[1]


def test_every_attack_of_one_evaluation_has_its_command(run: Path, tmp_path: Path):
    net = publish(run, tmp_path / "net")
    attacks = [build_attack("fgsm", threat) for threat in (ThreatModel("linf", 0.1), ThreatModel("linf", 0.15))]
    attacks.append(build_attack("pgd", ThreatModel("linf", 0.1), steps=2))
    measured = gossamer.evaluate(net.module, net.images("test"), attacks, n=8)
    fgsm, pgd = made_again(collect([run])[0], measured)
    assert "--attack fgsm --norm linf --eps 0.1,0.15 " in fgsm
    assert "--attack pgd --norm linf --eps 0.1 " in pgd
    assert "--option steps=2" in pgd


def test_an_unfinished_run_is_refused(run: Path, tmp_path: Path):
    began = tmp_path / "began"
    shutil.copytree(run, began)
    where = status.read(RunFolder(began))
    assert where is not None
    status.write(RunFolder(began), replace(where, state="interrupted"))
    with pytest.raises(RunError, match="expected a finished run, got one that is interrupted"):
        publish(began, tmp_path / "net")
    status.write(RunFolder(began), where)
    (began / "states/final.safetensors").unlink()
    with pytest.raises(RunError, match="finished run"):
        publish(began, tmp_path / "net")
    assert not (tmp_path / "net").exists()


def test_a_run_that_is_still_evaluated_is_not_published(run: Path, tmp_path: Path):
    with lock.writer(RunFolder(run)), pytest.raises(RunError, match="it may still be evaluated"):
        publish(run, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_damaged_result_stops_publishing(run: Path, tmp_path: Path):
    damaged = tmp_path / "damaged"
    shutil.copytree(run, damaged)
    next((damaged / "results").glob("fgsm*")).write_text("{")
    with pytest.raises(RunError, match="fgsm"):
        publish(damaged, tmp_path / "net")
    assert list(tmp_path.iterdir()) == [damaged]


def test_only_a_published_folder_is_replaced(run: Path, tmp_path: Path):
    (tmp_path / "empty").mkdir()
    publish(run, tmp_path / "empty")
    with pytest.raises(ConfigError, match="got a published network"):
        publish(run, tmp_path / "empty")
    again = publish(run, tmp_path / "empty", storage="dense", force=True)
    assert again.manifest.storage == "dense"
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/thesis.tex").write_text("ten years")
    with pytest.raises(ConfigError, match="other files"):
        publish(run, tmp_path / "mine", force=True)
    with pytest.raises(ConfigError):
        publish(run, run, force=True)
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="got a file"):
        publish(run, tmp_path / "file", force=True)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["empty", "file", "mine"]
    assert [path.name for path in (tmp_path / "mine").iterdir()] == ["thesis.tex"]


def test_what_lies_beside_a_published_network_is_never_lost(run: Path, tmp_path: Path):
    kept = publish(run, tmp_path / "net").manifest
    for name in (".git/config", "LICENSE", "results/notes.json"):
        own = tmp_path / "net" / name
        own.parent.mkdir(exist_ok=True)
        own.write_text("mine")
        with pytest.raises(ConfigError, match=f"other files beside it: {name}"):
            publish(run, tmp_path / "net", storage="dense", force=True)
        assert own.read_text() == "mine"
        assert json.loads((tmp_path / "net/gossamer.json").read_text())["storage"] == kept.storage == "sparse"
        own.unlink()
    (tmp_path / "net/README.md").write_text("a card of my own words")
    assert publish(run, tmp_path / "net", storage="dense", force=True).manifest.storage == "dense"
    (tmp_path / "net/gossamer.json").write_text("{")
    with pytest.raises(ConfigError, match=r"model\.safetensors"):
        publish(run, tmp_path / "net", force=True)


def test_nothing_stays_where_writing_fails(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    kept = publish(run, tmp_path / "net")

    def fail(*_: object) -> str:
        raise OSError("no more room")

    monkeypatch.setattr("gossamer.zoo.publish.card", fail)
    with pytest.raises(OSError, match="no more room"):
        publish(run, tmp_path / "new")
    with pytest.raises(OSError, match="no more room"):
        publish(run, tmp_path / "net", force=True)
    assert [path.name for path in tmp_path.iterdir()] == ["net"]
    assert gossamer.load(tmp_path / "net").manifest == kept.manifest


def other_network() -> nn.Module:
    return build("digits-cnn")


def test_an_evaluation_names_the_command_that_measures_it_again(run: Path, tmp_path: Path):
    """Points that were sought on another network: what the record says of the attack would ask for no attack."""
    copied = tmp_path / "tiny"
    shutil.copytree(run, copied)
    twin = ("--twin", f"{__name__}:other_network")
    words = ("evaluate", copied, "--attack", "fgsm", "--eps", "0.1,0.15", *twin, "--n", "20", "--seed", "3")
    before = {path.name for path in (copied / "results").iterdir()}
    assert gossamer_command(*words) == 0
    (made,) = (path for path in (copied / "results").iterdir() if path.name not in before)
    command = atomic.read_json(made)["environment"]["command"]
    assert shlex.split(command)[2:4] == [str(copied), "--attack"]
    assert gossamer_command(*shlex.split(command)[1:]) == 0
    assert atomic.read_json(made)["environment"]["command"] == command
    publish(copied, tmp_path / "net")
    card = (tmp_path / "net/README.md").read_text()
    assert "gossamer evaluate . --attack transfer" not in card
    assert command in card.split("What else was measured was measured on the run by:")[1]


def slimmed() -> nn.Module:
    model = build("digits-cnn")
    assert isinstance(model, nn.Sequential)
    model.conv1 = nn.Conv2d(1, 5, 5, padding=2, bias=False)
    model.bn1 = nn.BatchNorm2d(5)
    model.conv2 = nn.Conv2d(5, 64, 3, stride=2, padding=1, bias=False)
    return model


def factorised() -> nn.Module:
    model = build("digits-cnn")
    layer = replace_layer(model, "conv2")
    with torch.no_grad():
        layer.c.weight.zero_()
        layer.a.weight[::2].zero_()
    return model


def noisy() -> nn.Module:
    model = build("digits-cnn")
    for target in targets(model):
        add_noise(target, WeightNoise(torch.full((1,) * target.parameter.ndim, 0.5)))
    return model


def signed() -> nn.Module:
    model = build("digits-cnn")
    for target in targets(model):
        parametrize.register_parametrization(target.module, "weight", Signs())
    return model


def switching() -> nn.Module:
    return switched([build("digits-cnn"), build("digits-cnn")]).module


@pytest.mark.parametrize(
    ("form", "make", "kind"),
    [
        (SLIM, slimmed, "restructured"),
        (FACTORISED, factorised, "restructured"),
        (LATENT_SIGNS, signed, "restructured"),
        (NOISY, noisy, "stochastic"),
        (RANDOM_SWITCH, switching, "stochastic"),
    ],
)
def test_every_form_comes_back(run: Path, tmp_path: Path, form: str, make: Callable[[], nn.Module], kind: str):
    other = tmp_path / "run"
    shutil.copytree(run, other)
    torch.manual_seed(1)
    module = make().eval()
    about = {"form": form, "dense_weights": "58656"}
    atomic.write_safetensors(other / "states/final.safetensors", module.state_dict(), about)
    found = publish(other, tmp_path / "net")
    assert found.manifest.kind == kind
    assert found.manifest.dense_weights == 58_656
    assert torch.equal(drawn(found.module), drawn(module))
    assert torch.equal(drawn(found.twin), drawn(open_run(other).twin()))
    card = (tmp_path / "net/README.md").read_text()
    assert ("expectation over transformation" in card) == (kind == "stochastic")
    if kind == "stochastic":
        with pytest.raises(ConfigError, match="storage"):
            publish(other, tmp_path / "small", storage="sparse")


@pytest.fixture
def own(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a run whose network is of its author's factory."""
    (tmp_path / "ownnets.py").write_text(
        "from gossamer.models import build\n\ndef make(classes):\n    return build('digits-cnn', num_classes=classes)\n"
    )
    monkeypatch.chdir(tmp_path)
    own = tmp_path / "run"
    shutil.copytree(run, own)
    recipe = yaml.safe_load((own / "recipe.yaml").read_text())
    recipe["model"] = {"name": "ownnets:make", "classes": 10}
    (own / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    return own


def test_a_network_of_ones_own_is_published_and_says_what_it_needs(own: Path, tmp_path: Path):
    found = publish(own, tmp_path / "net")
    assert any("ownnets:make" in remark for remark in found.manifest.remarks)
    assert "allow_factory=True" in (tmp_path / "net/README.md").read_text()
    assert torch.equal(drawn(found.module), drawn(open_run(own).model()))
    with pytest.raises(ConfigError, match=r"ownnets:make.*--trust"):
        gossamer.load(tmp_path / "net")
    assert torch.equal(drawn(gossamer.load(tmp_path / "net", allow_factory=True).module), drawn(found.module))


@pytest.mark.parametrize("kind", ["sparse", "torch"])
def test_a_published_network_of_ones_own_is_exported_where_its_factory_is_trusted(
    own: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], kind: str
):
    net, path = tmp_path / "net", tmp_path / f"own{KINDS[kind].suffix}"
    publish(own, net)
    export = ("export", net, "--to", kind, "--out", path)
    assert gossamer_command(*export) == 2
    assert "write --trust" in " ".join(capsys.readouterr().err.split())
    assert gossamer_command(*export, "--trust") == 0
    assert ("the file names no network" in capsys.readouterr().out) == (kind == "sparse")
    verify = ("verify", path, "--run", net, "--trust", "--attack", "fgsm", "--queries", 5, "--n", 20, "--device", "cpu")
    assert gossamer_command(*verify) == 0


def test_the_command_publishes_and_others_take_the_folder(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    net = tmp_path / "net"
    assert gossamer_command("publish", run, net, "--license", "mit") == 0
    told = capsys.readouterr().out
    assert "density 5.0 %" in told
    assert f"published: {net}" in told
    before = sorted(path for path in net.rglob("*"))
    result = tmp_path / "result.json"
    assert gossamer_command("evaluate", net, "--attack", "fgsm", "--n", 30, "--json", result, "--device", "cpu") == 0
    again, first = json.loads(result.read_text()), json.loads(next((run / "results").glob("fgsm*")).read_text())
    assert again["robust_accuracy"] == first["robust_accuracy"]
    assert again["attacks"][0]["robust"] == first["attacks"][0]["robust"]
    assert again["density"] == first["density"]
    assert gossamer_command("report", net, "-o", tmp_path / "page.html") == 0
    assert "PGD-2 ×2" in (tmp_path / "page.html").read_text()
    assert gossamer_command("export", net, "--to", "sparse", "--out", tmp_path / "small.safetensors") == 0
    assert (tmp_path / "small.safetensors.json").exists()
    assert sorted(path for path in net.rglob("*")) == before
    capsys.readouterr()
    assert gossamer_command("export", net, "--to", "sparse") == 2
    assert "--out" in capsys.readouterr().err
    assert gossamer_command("publish", run, tmp_path / "x", "--license", "My License") == 2


@pytest.mark.long
def test_a_published_network_is_audited_where_it_lies(run: Path, tmp_path: Path):
    publish(run, tmp_path / "net")
    found = tmp_path / "audit.json"
    words = ("audit", tmp_path / "net", "--n", 30, "--budget", "quick", "--device", "cpu", "--json", found)
    assert gossamer_command(*words) == 0
    assert json.loads(found.read_text())["threat"] == "linf:0.15"


class Taken:
    """A hub that notes what it is sent."""

    def __init__(self) -> None:
        self.made: list[tuple[str, dict]] = []
        self.sent: list[dict] = []

    def create_repo(self, repo_id: str, **options: object) -> None:
        self.made.append((repo_id, options))

    def upload_folder(self, **options: object) -> None:
        self.sent.append(options)

    def snapshot_download(self, repo_id: str, **options: object) -> str:
        raise AssertionError


def test_a_folder_is_sent_to_the_hub(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys):
    taken = Taken()
    monkeypatch.setattr(hub, "_client", lambda: taken)
    assert gossamer_command("publish", run, tmp_path / "net", "--push", "silk/tiny", "--private") == 0
    assert taken.made == [("silk/tiny", {"repo_type": "model", "private": True, "exist_ok": True})]
    assert taken.sent[0]["repo_id"] == "silk/tiny"
    assert Path(taken.sent[0]["folder_path"]) == tmp_path / "net"
    assert "results/*" in taken.sent[0]["delete_patterns"]  # of an earlier push
    assert "sent: https://huggingface.co/silk/tiny" in capsys.readouterr().out

    class Down(Taken):
        def upload_folder(self, **options: object) -> None:
            raise OSError("503")

    with pytest.raises(RunError, match="503"):
        hub.push(tmp_path / "net", "silk/tiny", client=Down())
    for name in ("tiny", "silk/tiny/more", "../x", "silk/..", "-silk/x"):
        with pytest.raises(ConfigError, match="org/name"):
            hub.push(tmp_path / "net", name, client=taken)


def test_without_the_client_nothing_is_written(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    assert gossamer_command("publish", run, tmp_path / "net", "--push", "silk/tiny") == 2
    assert "gossamer[hub]" in capsys.readouterr().err
    assert not (tmp_path / "net").exists()
    assert gossamer_command("publish", run, tmp_path / "net", "--private") == 2
