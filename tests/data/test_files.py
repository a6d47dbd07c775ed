import hashlib
from pathlib import Path

import pooch
import pytest

from gossamer.data.files import (
    RemoteFile,
    check_file,
    default_data_dir,
    find_or_fetch,
    read_checked,
    user_cache,
)
from gossamer.errors import DataError

CONTENT = bytes(range(256)) * 400


def remote(content: bytes = CONTENT, name: str = "set.bin", urls: tuple[str, ...] = ()) -> RemoteFile:
    return RemoteFile(name=name, urls=urls, checksum=f"md5:{hashlib.md5(content).hexdigest()}")


def test_downloads_what_is_absent(server, tmp_path):
    server.serve("set.bin", CONTENT)
    folder = tmp_path / "deep" / "down"
    path = find_or_fetch(remote(), [folder], base_url=server.url)
    assert path == folder / "set.bin"
    assert path.read_bytes() == CONTENT
    assert list(folder.iterdir()) == [path]


def test_knows_sha256(server, tmp_path):
    server.serve("set.bin", CONTENT)
    file = RemoteFile(name="set.bin", urls=(), checksum=f"sha256:{hashlib.sha256(CONTENT).hexdigest()}")
    assert read_checked(find_or_fetch(file, [tmp_path], base_url=server.url), file.checksum) == CONTENT


def test_asks_the_next_mirror(server, tmp_path):
    server.serve("good/set.bin", CONTENT)
    server.serve("bad/set.bin", b"something else")
    urls = tuple(f"{server.url}/{place}/set.bin" for place in ("gone", "bad", "good"))
    assert find_or_fetch(remote(urls=urls), [tmp_path]).read_bytes() == CONTENT


def test_finds_before_it_downloads(tmp_path):
    second = tmp_path / "second"
    second.mkdir()
    (second / "set.bin").write_bytes(CONTENT)
    assert find_or_fetch(remote(), [tmp_path, second], download=False) == second / "set.bin"


@pytest.mark.parametrize("fault", ["wrong content", "truncated", "absent", "unreachable"])
def test_leaves_nothing_behind_where_a_download_fails(server, tmp_path, fault):
    if fault == "wrong content":
        server.serve("set.bin", CONTENT[:-1] + b"!")
    if fault == "truncated":
        server.serve("set.bin", CONTENT[:1000], announced=len(CONTENT))
    url = "http://127.0.0.1:9" if fault == "unreachable" else server.url
    with pytest.raises(DataError, match="GOSSAMER_DATA") as caught:
        find_or_fetch(remote(), [tmp_path], base_url=url)
    assert "set.bin" in str(caught.value)
    assert str(tmp_path) in str(caught.value)
    assert "--data-dir" in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_leaves_nothing_behind_when_interrupted(tmp_path, monkeypatch):
    def half(self, url, output_file, pooch, check_only=False):
        Path(output_file).write_bytes(CONTENT[:1000])
        raise KeyboardInterrupt

    monkeypatch.setattr(pooch.HTTPDownloader, "__call__", half)
    with pytest.raises(KeyboardInterrupt):
        find_or_fetch(remote(), [tmp_path], base_url="http://127.0.0.1:9")
    assert list(tmp_path.iterdir()) == []


def test_says_what_is_missing_where_downloading_is_off(tmp_path):
    with pytest.raises(DataError, match="downloading is off"):
        find_or_fetch(remote(), [tmp_path], download=False)


def test_refuses_a_file_of_another_checksum(tmp_path):
    path = tmp_path / "set.bin"
    path.write_bytes(b"changed")
    for check in (read_checked, check_file):
        with pytest.raises(DataError, match=r"published checksum md5:.*delete the file"):
            check(path, remote().checksum)
    path.write_bytes(CONTENT)
    check_file(path, remote().checksum)


def test_the_folder_is_that_of_the_environment(monkeypatch, tmp_path):
    monkeypatch.setenv("GOSSAMER_DATA", str(tmp_path))
    assert default_data_dir() == tmp_path
    monkeypatch.delenv("GOSSAMER_DATA")
    assert default_data_dir() == user_cache()
    assert "gossamer" in str(user_cache())
