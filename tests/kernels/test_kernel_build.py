import ctypes
import os
import subprocess
import sys
from pathlib import Path

import pytest

from gossamer.errors import ConfigError
from gossamer.kernels import build

SOURCE = "long answer(void) { return 42; }\n"


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "cache"
    monkeypatch.setenv("GOSSAMER_KERNELS", str(folder))
    return folder


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "toy.c"
    path.write_text(SOURCE)
    return path


def built(cache: Path) -> list[Path]:
    return sorted(cache.iterdir())


def test_a_library_is_built_once_and_then_found(cache: Path, source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert build.load(source).answer() == 42
    (first,) = built(cache)
    monkeypatch.setattr(build, "_build", lambda *_: pytest.fail("built again"))
    assert build.load(source).answer() == 42
    assert built(cache) == [first]


def test_source_and_flags_name_the_file(cache: Path, source: Path) -> None:
    build.load(source)
    build.load(source, ("-DTWICE",))
    source.write_text(SOURCE.replace("42", "43"))
    assert build.load(source).answer() == 43
    assert len(built(cache)) == 3


@pytest.mark.parametrize("damage", [b"", b"not a library", None])
def test_a_damaged_file_is_built_again(cache: Path, source: Path, damage: bytes | None) -> None:
    text = source.read_bytes()
    path = build._build(source, build._digest(text), [*build.compiler(), *build.OPTIMISE])
    path.write_bytes(path.read_bytes()[:-100] if damage is None else damage)
    assert build._cached("toy", build._digest(text)) is None
    assert built(cache) == []
    again = build._build(source, build._digest(text), [*build.compiler(), *build.OPTIMISE])
    assert again == path
    assert ctypes.CDLL(str(again)).answer() == 42


def test_two_processes_build_at_once(cache: Path, source: Path) -> None:
    code = (
        "import sys, pathlib; from gossamer.kernels.build import load; print(load(pathlib.Path(sys.argv[1])).answer())"
    )
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    processes = [
        subprocess.Popen([sys.executable, "-c", code, str(source)], env=environment, stdout=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    assert [process.communicate()[0].strip() for process in processes] == ["42", "42"]
    assert len(built(cache)) == 1


def test_no_compiler_is_told_with_a_remedy(cache: Path, source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CC", raising=False)
    monkeypatch.setenv("PATH", "")
    with pytest.raises(ConfigError, match="expected a C compiler, got no cc, gcc, clang on the path; install gcc"):
        build.load(source)
    monkeypatch.setenv("CC", "my-compiler -m64")
    with pytest.raises(ConfigError, match="got no my-compiler -m64 on the path"):
        build.load(source)


def test_a_compiler_that_refuses_is_quoted(cache: Path, source: Path) -> None:
    source.write_text("this is not C\n")
    with pytest.raises(ConfigError, match=r"a C compiler that takes our C, got .*toy\.c"):
        build.load(source)
    assert built(cache) == []


def test_a_cache_that_cannot_be_made_is_told(source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("GOSSAMER_KERNELS", str(tmp_path / "file" / "folder"))
    with pytest.raises(ConfigError, match="a folder that can be written"):
        build.load(source)


def test_the_cache_is_the_users(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("GOSSAMER_KERNELS", raising=False)
    monkeypatch.setattr(build.sys, "platform", "linux")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert build.cache_folder() == tmp_path / "gossamer" / "kernels"
