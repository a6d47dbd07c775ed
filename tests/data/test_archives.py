import io
import stat
import tarfile
import zipfile
from pathlib import Path

import pytest

from gossamer.data.archives import extract
from gossamer.errors import DataError


def write_tar(path: Path, *members: tarfile.TarInfo) -> Path:
    with tarfile.open(path, "w:gz") as archive:
        for member in (plain("set/a.txt"), *members):
            archive.addfile(member, io.BytesIO(b"x" * member.size) if member.isreg() else None)
    return path


def plain(name: str) -> tarfile.TarInfo:
    member = tarfile.TarInfo(name)
    member.size = 3
    return member


def special(name: str, kind: bytes, target: str = "") -> tarfile.TarInfo:
    member = tarfile.TarInfo(name)
    member.type, member.linkname = kind, target
    return member


def write_zip(path: Path, name: str, mode: int = 0) -> Path:
    info = zipfile.ZipInfo(name)
    info.external_attr = mode << 16
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("set/a.txt", "xxx")
        archive.writestr(info, "xxx")
    return path


def test_unpacks_a_folder(tmp_path):
    archive = write_tar(tmp_path / "set.tar.gz", special("set/deep", tarfile.DIRTYPE), plain("set/deep/b.txt"))
    folder = extract(archive, "set", into=tmp_path)
    assert folder == tmp_path / "set"
    assert (folder / "a.txt").read_bytes() == (folder / "deep" / "b.txt").read_bytes() == b"xxx"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["set", "set.tar.gz"]


def test_unpacks_a_zip(tmp_path):
    folder = extract(write_zip(tmp_path / "set.zip", "set/deep/b.txt"), "set", into=tmp_path)
    assert (folder / "deep" / "b.txt").read_bytes() == b"xxx"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["set", "set.zip"]


MALICIOUS = [
    plain("/tmp/gossamer-absolute"),
    plain("../outside"),
    plain("set/../../outside"),
    special("set/link", tarfile.SYMTYPE, "/etc"),
    special("set/hard", tarfile.LNKTYPE, "set/a.txt"),
    special("set/device", tarfile.CHRTYPE),
    special("set/block", tarfile.BLKTYPE),
    special("set/pipe", tarfile.FIFOTYPE),
]


@pytest.mark.parametrize("member", MALICIOUS, ids=lambda member: member.name)
def test_refuses_a_tar_that_reaches_outside(tmp_path, member):
    into = tmp_path / "into"
    into.mkdir()
    archive = write_tar(tmp_path / "set.tar.gz", member)
    with pytest.raises(DataError, match="plain files and folders below one folder"):
        extract(archive, "set", into=into)
    assert list(into.iterdir()) == []
    assert sorted(path.name for path in tmp_path.iterdir()) == ["into", "set.tar.gz"]
    assert not Path("/tmp/gossamer-absolute").exists()


@pytest.mark.parametrize(
    ("name", "mode"),
    [("../outside", 0), ("/absolute", 0), ("C:/drive", 0), ("set\\..\\x", 0), ("set/link", stat.S_IFLNK)],
)
def test_refuses_a_zip_that_reaches_outside(tmp_path, name, mode):
    into = tmp_path / "into"
    into.mkdir()
    with pytest.raises(DataError, match="plain files and folders"):
        extract(write_zip(tmp_path / "set.zip", name, mode), "set", into=into)
    assert list(into.iterdir()) == []


@pytest.mark.parametrize("suffix", [".tar.gz", ".zip"])
@pytest.mark.parametrize("keep", [0, 40, -20])
def test_a_truncated_archive_leaves_nothing(tmp_path, suffix, keep):
    into = tmp_path / "into"
    into.mkdir()
    path = tmp_path / f"set{suffix}"
    whole = write_zip(path, "set/b.txt") if suffix == ".zip" else write_tar(path, plain("set/b.txt"))
    whole.write_bytes(whole.read_bytes()[:keep])
    with pytest.raises(DataError, match="a whole archive"):
        extract(whole, "set", into=into)
    assert list(into.iterdir()) == []


def test_refuses_an_archive_of_something_else(tmp_path):
    archive = write_tar(tmp_path / "set.tar.gz")
    with pytest.raises(DataError, match="a folder other"):
        extract(archive, "other", into=tmp_path)
    assert list(tmp_path.iterdir()) == [archive]


def test_an_interruption_leaves_nothing(tmp_path, monkeypatch):
    archive = write_tar(tmp_path / "set.tar.gz")

    def interrupted(self, path, **options):
        (Path(path) / "half").write_text("half")
        raise KeyboardInterrupt

    monkeypatch.setattr(tarfile.TarFile, "extractall", interrupted)
    with pytest.raises(KeyboardInterrupt):
        extract(archive, "set", into=tmp_path)
    assert list(tmp_path.iterdir()) == [archive]


def test_keeps_what_another_process_put_there(tmp_path):
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "mine").write_text("first")
    extract(write_tar(tmp_path / "set.tar.gz"), "set", into=tmp_path)
    assert [path.name for path in (tmp_path / "set").iterdir()] == ["mine"]
