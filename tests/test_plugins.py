import sys
from pathlib import Path

import pytest

from gossamer.errors import ConfigError
from gossamer.plugins import is_reference, make_function, make_one, references, resolve


def test_resolve_finds_modules_nested_names_and_the_working_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "my_plugin_module.py").write_text("class Kit:\n    answer = 42\n")
    monkeypatch.chdir(tmp_path)
    before = list(sys.path)
    assert resolve("my_plugin_module:Kit.answer") == 42
    assert resolve("math:pi") > 3
    assert sys.path == before
    monkeypatch.delitem(sys.modules, "my_plugin_module")


@pytest.mark.parametrize("reference", ["math", "math:", ":pi", "math:pi:tau", "a b:c", "math:__import__('os')"])
def test_malformed_references(reference: str) -> None:
    with pytest.raises(ConfigError, match=r"package\.module:name"):
        resolve(reference)


def test_missing_module_and_attribute() -> None:
    with pytest.raises(ConfigError, match="an importable module no_such_module_here"):
        resolve("no_such_module_here:thing")
    with pytest.raises(ConfigError, match=r"an importable module math\.nothing"):
        resolve("math.nothing:thing")
    with pytest.raises(ConfigError, match="to define thing"):
        resolve("math:thing")


def test_an_import_that_fails_inside_the_users_module_is_not_hidden(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "my_broken_plugin.py").write_text("import no_such_dependency_here\n")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ModuleNotFoundError, match="no_such_dependency_here"):
        resolve("my_broken_plugin:thing")


def test_is_reference() -> None:
    assert is_reference("a.b:c")
    assert not is_reference("pgd-50-10")


def test_what_could_be_imported_is_found_wherever_it_is_written() -> None:
    said = {"name": "several", "base": "my.pkg:Loss", "threats": ["linf:8/255", "l2:0.5"], "parts": [{"name": "a:B"}]}
    assert list(references(said)) == ["my.pkg:Loss", "a:B"]
    assert list(references("2:4")) == list(references({"lr": 0.1, "none": None, "at": "10:30"})) == []


def test_a_factory_that_makes_another_thing_is_refused() -> None:
    told = {"fits": lambda each: isinstance(each, int), "expected": "a number", "remedy": "return one"}
    assert make_one("part", "math:gcd", {}, **told) == 0
    with pytest.raises(ConfigError, match="factory math:sin: expected arguments that fit"):
        make_one("part", "math:sin", {}, **told)
    with pytest.raises(ConfigError, match="part math:pi: expected a number, got float; return one"):
        make_one("part", "math:pi", {}, **told)
    with pytest.raises(ConfigError, match="expected a factory that returns f"):
        make_function("budget", "math:pi", "f(x)", {})
