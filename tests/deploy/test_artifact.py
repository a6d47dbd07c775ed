"""Artifacts of every kind open as one module; whatever is wrong with a file is told, and nothing of it runs."""

import errno
import json
import os
import shutil
import tempfile
from pathlib import Path

import pytest
import torch
from shipped import images, small
from torch import nn

from gossamer.deploy import torch_program
from gossamer.deploy.about import about_path, read_about
from gossamer.deploy.artifact import files_of, open_artifact
from gossamer.deploy.export import KINDS, default_name, export
from gossamer.deploy.parity import EXACT, parity
from gossamer.deploy.seal import KEY
from gossamer.deploy.sparse_header import Network
from gossamer.errors import ConfigError, DataError, RunError
from gossamer.kernels.build import COMPILERS, compiler
from gossamer.models import build
from gossamer.models.digits import digits_cnn

NEEDED = {"onnx": "onnxscript", "onnx-int8": "onnxscript"}


def made(kind: str, folder: Path, *, blob: bool = False) -> Path:
    """Export the small network, or skip where this machine cannot."""
    if kind in NEEDED:
        pytest.importorskip(NEEDED[kind])
        pytest.importorskip("onnxruntime")
    if kind.startswith("c") and not any(map(shutil.which, COMPILERS)):
        pytest.skip("no C compiler here")
    path = folder / f"net_{kind.replace('-', '_')}"
    return export(small(), images(2), kind, path, images=images(32), blob=blob).path


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("artifacts")


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_opens_as_a_module_from_images_to_logits(kind: str, exported: Path):
    path = made(kind, exported)
    opened = open_artifact(path, module=small(), trust=True)
    assert (opened.kind, opened.shape, opened.classes) == (kind, (2, 6, 6), 3)
    assert opened.about == read_about(path)
    assert opened.bytes == sum(path.with_name(name).stat().st_size for name in opened.about.files)
    found = parity(small(), opened.model, images(20))
    assert found.error < (0.1 if kind.endswith("int8") else EXACT)


@pytest.mark.parametrize("kind", KINDS)
def test_without_its_record_an_artifact_still_opens(kind: str, exported: Path, tmp_path: Path):
    path = made(kind, tmp_path)
    about_path(path).unlink()
    opened = open_artifact(path, module=small(), trust=True)
    assert opened.about is None
    assert opened.kind == ("c" if kind == "c-int8" else kind)
    assert parity(small(), opened.model, images(4)).agreement == 1
    if kind in ("c", "c-int8", "onnx"):
        assert opened.shape == (2, 6, 6)


def test_a_sparse_file_that_names_its_network_opens_by_itself(tmp_path: Path):
    network = digits_cnn()
    path = export(network, torch.rand(1, 1, 8, 8), "sparse", tmp_path / "net", network=Network(name="digits-cnn")).path
    x = torch.rand(4, 1, 8, 8, requires_grad=True)
    logits = open_artifact(path).model(x)
    assert torch.equal(logits, network.eval()(x))
    logits.sum().backward()
    assert float(x.grad.abs().max()) > 0


def test_a_sparse_file_without_a_network_asks_for_one(tmp_path: Path):
    path = export(small(), images(1), "sparse", tmp_path / "net").path
    with pytest.raises(DataError, match="the name of a network"):
        open_artifact(path)


def test_a_sparse_file_is_checked_with_the_network_that_it_names(tmp_path: Path):
    network = build("resnet18", width=0.0625, mean=(0.5, 0.5, 0.5), std=(0.2, 0.2, 0.2)).eval()
    example = torch.rand(1, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    # Its tensors fit, but this one does not normalise.
    other = Network(name="resnet18", options={"width": 0.0625})
    with pytest.raises(RunError, match="its parent's logits"):
        export(network, example, "sparse", tmp_path / "net", network=other)
    assert not (tmp_path / "net.safetensors").exists()


def test_a_program_of_torch_computes_where_its_weights_are(tmp_path: Path):
    path = export(small(), images(2), "torch", tmp_path / "net").path
    model = open_artifact(path, trust=True).model
    assert model.to("meta") is model
    assert parity(small(), model, images(4)).error < EXACT
    x = images(2).requires_grad_()
    model(x).sum().backward()
    assert x.grad is not None


def test_an_export_goes_over_a_record_that_is_damaged(tmp_path: Path):
    path = made("c", tmp_path)
    for damage in ("{", "[" * 100_000):
        about_path(path).write_text(damage)
        with pytest.raises(DataError, match="the record of an artifact"):
            read_about(path)
        assert made("c", tmp_path) == path
        assert read_about(path) is not None


def test_a_network_called_about_is_compiled(tmp_path: Path):
    if not any(map(shutil.which, COMPILERS)):
        pytest.skip("no C compiler here")
    path = export(small(), images(2), "c", tmp_path / "about").path
    assert parity(small(), open_artifact(path, trust=True).model, images(4)).error < EXACT


def test_a_folder_from_which_nothing_may_run_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    path = made("c", tmp_path)

    def refuse(name: str) -> object:
        raise OSError(f"{name}: failed to map segment from shared object: Operation not permitted")

    monkeypatch.setattr("gossamer.deploy.csource.compile.ctypes.CDLL", refuse)
    with pytest.raises(RunError, match=r"programs may run.*set TMPDIR"):
        open_artifact(path, trust=True)


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind not in ("onnx", "torch")])
def test_a_missing_temporary_folder_is_told_and_nothing_is_written(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    out = tmp_path / "out"
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "gone"))
    with pytest.raises(RunError, match=r"temporary folder: .*No such file.*set TMPDIR"):
        made(kind, out)
    assert not out.exists()


def full(path: Path, *_: object) -> int:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.mark.parametrize("kind", ["c", "sparse"])
def test_a_full_temporary_folder_is_told(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(Path, "write_bytes", full)
    monkeypatch.setattr("gossamer.runs.atomic.save_file", lambda _tensors, path, _about: full(path))
    with pytest.raises(RunError, match=r"No space left on device; free space"):
        made(kind, tmp_path)


def test_a_sound_artifact_is_not_blamed_for_the_temporary_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    path = made("c", tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(tempfile, "tempdir", str(tmp_path / "gone"))
        with pytest.raises(RunError, match="set TMPDIR"):
            open_artifact(path, trust=True)
        patch.undo()
        patch.setattr(Path, "write_bytes", full)
        with pytest.raises(RunError, match="free space"):
            open_artifact(path, trust=True)
    assert open_artifact(path, trust=True).shape == (2, 6, 6)


def test_a_quantised_network_says_how_far_it_is_off_and_is_not_written_where_it_is_another(tmp_path, monkeypatch):
    path = made("onnx-int8", tmp_path)
    assert any("of labels equal, n = 32" in remark for remark in read_about(path).remarks)
    before = {file.name: file.read_bytes() for file in tmp_path.iterdir()}
    monkeypatch.setattr("gossamer.deploy.export.RECOGNISABLE", 1.01)
    with pytest.raises(RunError, match=r"images that it was calibrated on, got \d+% of them"):
        made("onnx-int8", tmp_path)
    assert {file.name: file.read_bytes() for file in tmp_path.iterdir()} == before
    assert open_artifact(path).about is not None


@pytest.mark.parametrize(("kind", "values"), [("sparse", "int8"), ("sparse", "float16"), ("c-int8", None)])
def test_rounded_weights_that_make_another_network_are_not_written(
    kind: str, values: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("gossamer.deploy.export.RECOGNISABLE", 1.01)
    with pytest.raises(RunError, match=r"most of the example and random images, got \d+% of them"):
        export(small(), images(2), kind, tmp_path / "net", values=values)
    assert not list(tmp_path.iterdir())


def test_what_runs_code_asks_for_trust_before_it_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    for name in ("net.c", "net.pt2"):
        (tmp_path / name).write_bytes(b"")
        with pytest.raises(ConfigError, match="--trust"):
            open_artifact(tmp_path / name)


@pytest.mark.parametrize("kind", ["sparse", "onnx", "torch"])
def test_a_truncated_file_is_refused(kind: str, tmp_path: Path):
    path = made(kind, tmp_path)
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(DataError, match="SHA-256"):
        open_artifact(path, module=small(), trust=True)
    about_path(path).unlink()
    with pytest.raises(DataError):
        open_artifact(path, module=small(), trust=True)


def test_constants_that_no_source_asks_for_are_no_part_of_it(tmp_path: Path):
    path = made("c", tmp_path, blob=True)
    assert [part.suffix for part in files_of(path)] == [".c", ".h", ".blob"]
    about_path(path).unlink()
    made("c", tmp_path)
    assert path.with_suffix(".blob").exists()
    assert [part.suffix for part in files_of(path)] == [".c", ".h"]
    own = path.stat().st_size + path.with_suffix(".h").stat().st_size
    assert open_artifact(path, trust=True).bytes == own
    about_path(path).unlink()
    assert open_artifact(path, trust=True).bytes == own


def test_a_file_that_cannot_be_read_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    path = made("sparse", tmp_path)

    def refuse(path: Path) -> str:
        raise PermissionError(errno.EACCES, "Permission denied", str(path))

    monkeypatch.setattr("gossamer.runs.atomic.sha256", refuse)
    with pytest.raises(DataError, match="make it readable"):
        open_artifact(path, module=small())


@pytest.mark.parametrize(("kind", "blob"), [("c", False), ("c", True), ("onnx", False), ("onnx-int8", False)])
def test_a_flipped_bit_is_seen_without_a_record_too(kind: str, blob: bool, tmp_path: Path):
    path = made(kind, tmp_path, blob=blob)
    about_path(path).unlink()
    parts = files_of(path)
    assert len(parts) == (1 if kind.startswith("onnx") else 3 if blob else 2)
    draws = torch.Generator().manual_seed(5)
    for part in parts:
        data = part.read_bytes()
        key = data.find(KEY.encode()) if kind.startswith("onnx") else -1
        for _ in range(100):
            place, bit = (int(torch.randint(most, (), generator=draws)) for most in (len(data), 8))
            if 0 <= key <= place < key + len(KEY) + 8:
                continue
            part.write_bytes(data[:place] + bytes([data[place] ^ 1 << bit]) + data[place + 1 :])
            with pytest.raises(DataError, match="SHA-256"):
                open_artifact(path, trust=True)
        part.write_bytes(data)
    assert open_artifact(path, trust=True).shape == (2, 6, 6)


def test_a_c_source_without_its_checksum_is_not_compiled(tmp_path: Path):
    path = made("c", tmp_path)
    about_path(path).unlink()
    path.write_bytes(path.read_bytes().replace(KEY.encode(), b"gossamer.kontent"))
    with pytest.raises(DataError, match="its own SHA-256"):
        open_artifact(path, trust=True)


def test_a_file_that_another_program_rewrote_opens_without_its_old_checksum(tmp_path: Path):
    onnx = pytest.importorskip("onnx")
    path = made("onnx", tmp_path)
    about_path(path).unlink()
    rewritten = onnx.load(str(path))
    rewritten.producer_name = "another program"
    onnx.save(rewritten, str(path))
    with pytest.raises(DataError, match=rf"another program rewrote it .*{KEY}.*remove that entry"):
        open_artifact(path)
    kept = [entry for entry in rewritten.metadata_props if entry.key != KEY]
    del rewritten.metadata_props[:]
    rewritten.metadata_props.extend(kept)
    onnx.save(rewritten, str(path))
    assert parity(small(), open_artifact(path).model, images(4)).error < EXACT


def test_a_file_that_changed_since_its_record_is_refused_before_it_is_opened(tmp_path: Path, monkeypatch):
    path = export(small(), images(1), "torch", tmp_path / "net").path
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(bytes(data))
    monkeypatch.setattr(torch_program.torch.export, "load", lambda *_: pytest.fail("it was loaded"))
    with pytest.raises(DataError, match="the file was changed"):
        open_artifact(path, trust=True)


def test_files_that_are_no_artifacts_are_told(tmp_path: Path):
    with pytest.raises(ConfigError, match="what `gossamer export` wrote"):
        open_artifact(tmp_path / "net.txt")
    with pytest.raises(DataError, match="no file"):
        open_artifact(tmp_path / "net.onnx")
    (tmp_path / "net.safetensors").write_bytes(b"not safe")
    with pytest.raises(DataError):
        open_artifact(tmp_path / "net.safetensors")


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"files": {"../net.safetensors": "0" * 64}}, "names of files beside it"),
        ({"files": {"n" * 300: "0" * 64}}, "names of files beside it"),
        ({"files": {"other.safetensors": "0" * 64}}, "no file"),
        ({"files": {}}, "the record of an artifact"),
        ({"shape": [2, 6]}, "the record of an artifact"),
        ({"shape": [2, 6, 10**9]}, "the record of an artifact"),
        ({"schema": "gossamer/artifact/2"}, "the record of an artifact"),
        ({"surprise": 1}, "the record of an artifact"),
    ],
)
def test_a_wrong_record_is_refused(change: dict[str, object], told: str, tmp_path: Path):
    path = export(small(), images(1), "sparse", tmp_path / "net").path
    record = json.loads(about_path(path).read_text())
    about_path(path).write_text(json.dumps(record | change))
    with pytest.raises(DataError, match=told):
        open_artifact(path, module=small())


def test_a_large_or_damaged_record_is_refused(tmp_path: Path):
    path = export(small(), images(1), "sparse", tmp_path / "net").path
    for text in ("{", "[1]", " " * 2**21):
        about_path(path).write_text(text)
        with pytest.raises(DataError):
            open_artifact(path, module=small())


def test_a_renamed_artifact_says_so(tmp_path: Path):
    path = export(small(), images(1), "sparse", tmp_path / "net").path
    shutil.copy(path, tmp_path / "other.safetensors")
    shutil.copy(about_path(path), about_path(tmp_path / "other.safetensors"))
    with pytest.raises(DataError, match="keep the name"):
        open_artifact(tmp_path / "other.safetensors", module=small())


def test_a_c_file_of_a_foreign_name_is_never_compiled(tmp_path: Path):
    (tmp_path / 'a";b.c').write_text("")
    with pytest.raises(DataError, match="the name that it was exported with"):
        open_artifact(tmp_path / 'a";b.c', trust=True)
    (tmp_path / "net.c").write_text("int x;")
    with pytest.raises(DataError, match=r"net\.h beside it"):
        open_artifact(tmp_path / "net.c", trust=True)


def test_the_record_says_what_the_artifact_was_made_of(tmp_path: Path):
    done = export(small(density=0.25), images(1), "sparse", tmp_path / "net", dense_weights=1440, clean_accuracy=0.5)
    parent = done.about.parent
    kernels = [small(density=0.25)[0].weight, small(density=0.25)[5].weight]
    assert parent.nonzero == sum(int(kernel.count_nonzero()) for kernel in kernels)
    assert parent.density == parent.nonzero / 1440
    # 1440 kernel weights of the dense parent, 8 + 3 biases and 4 x 8 numbers of the batch norm.
    assert parent.dense_bytes == 4 * (1440 + 11 + 32)
    assert parent.clean_accuracy == 0.5
    assert str(done).splitlines()[0] == (
        f"sparse: {done.path.stat().st_size:,} bytes, "
        f"{done.path.stat().st_size / parent.dense_bytes:.1%} of the dense parent's 5,932 in float32"
    )


def test_values_and_blob_are_those_of_the_kind(tmp_path: Path):
    for kind, values in (("onnx", "int8"), ("c", "float16"), ("c-int8", "float32"), ("torch", "signs")):
        with pytest.raises(ConfigError, match=f"for {kind}"):
            export(small(), images(1), kind, tmp_path / "net", values=values)
    with pytest.raises(ConfigError, match="a kind with constants"):
        export(small(), images(1), "sparse", tmp_path / "net", blob=True)
    with pytest.raises(ConfigError, match=r"net\.onnx"):
        export(small(), images(1), "onnx", tmp_path / "net.pt2")
    with pytest.raises(ConfigError, match="one of sparse, c, c-int8"):
        export(small(), images(1), "tflite", tmp_path / "net")
    assert not list(tmp_path.iterdir())


def signed(weight: torch.Tensor) -> torch.Tensor:
    """Return weights of one magnitude, a tenth of them kept."""
    kept = torch.rand(weight.shape, generator=torch.Generator().manual_seed(0)) < 0.1
    return weight.sign() * kept * 0.5


def test_c_keeps_signs_where_all_weights_are_signs(tmp_path: Path):
    binary = small()
    with torch.no_grad():
        for module in binary.modules():
            if isinstance(module, nn.Conv2d | nn.Linear):
                module.weight.copy_(signed(module.weight))
    path = export(binary, images(2), "c", tmp_path / "signs").path
    about = read_about(path)
    assert about is not None
    assert about.values == "signs"
    used = path.read_text().partition("#if")[0]
    assert "#define USE_SPARSE_SIGNS" in used
    assert "FLOATS" not in used
    about = read_about(export(small(), images(2), "c", tmp_path / "floats").path)
    assert about is not None
    assert about.values == "float32"


def test_signs_of_a_network_that_has_none_are_refused(tmp_path: Path):
    with pytest.raises(DataError, match="one magnitude in each output channel of some layer"):
        export(small(), images(2), "c", tmp_path / "net", values="signs")
    assert not list(tmp_path.iterdir())


def test_what_rounds_weights_says_how_far_it_is_off(tmp_path: Path):
    for kind, values in (("sparse", "int8"), ("sparse", "float16"), ("c-int8", None)):
        about = export(small(), images(2), kind, tmp_path / f"net_{values}_{kind[0]}", values=values).about
        assert any("logits off by" in remark for remark in about.remarks), kind


@pytest.mark.skipif(not any(map(shutil.which, COMPILERS)), reason="no C compiler here")
def test_nothing_that_lies_beside_a_c_file_gets_into_it(tmp_path: Path):
    path = export(small(), images(2), "c", tmp_path / "net").path
    for header in ("math.h", "stdint.h", "string.h"):
        (tmp_path / header).write_text("#error foreign\n")
    path.with_suffix(".blob").write_bytes(b"foreign")
    opened = open_artifact(path, trust=True)
    assert parity(small(), opened.model, images(4)).error < EXACT


def test_a_foreign_c_file_is_told(tmp_path: Path):
    (tmp_path / "net.c").write_text("int net(void) { return 0; }\n")
    (tmp_path / "net.h").write_text("")
    with pytest.raises((DataError, RunError), match=r"net|compile"):
        open_artifact(tmp_path / "net.c", trust=True)


def test_a_blob_of_someone_else_stays(tmp_path: Path):
    (tmp_path / "net.blob").write_bytes(b"mine")
    export(small(), images(2), "c", tmp_path / "net")
    assert (tmp_path / "net.blob").read_bytes() == b"mine"


def test_a_blob_belongs_to_the_artifact(tmp_path: Path):
    if not any(map(shutil.which, COMPILERS)):
        pytest.skip("no C compiler here")
    assert compiler()
    done = export(small(), images(1), "c", tmp_path / "net", blob=True)
    assert set(done.about.files) == {"net.c", "net.h", "net.blob"}
    opened = open_artifact(done.path, trust=True)
    assert parity(small(), opened.model, images(4)).error < EXACT
    (tmp_path / "net.blob").write_bytes(b"")
    with pytest.raises(DataError, match=r"net\.blob"):
        open_artifact(done.path, trust=True)
    assert set(export(small(), images(1), "c", tmp_path / "net").about.files) == {"net.c", "net.h"}
    assert not (tmp_path / "net.blob").exists()


@pytest.mark.parametrize(
    ("kind", "values", "name"),
    [
        ("sparse", None, "digits_0.safetensors"),
        ("sparse", "int8", "digits_0_int8.safetensors"),
        ("c", None, "digits_0.c"),
        ("c", "float32", "digits_0_float32.c"),
        ("c", "signs", "digits_0_signs.c"),
        ("c-int8", None, "digits_0_int8.c"),
        ("onnx-int8", "int8", "digits_0_int8.onnx"),
    ],
)
def test_default_names_are_identifiers_that_do_not_meet(kind: str, values: str | None, name: str):
    assert default_name("Digits-0", kind, values) == name
