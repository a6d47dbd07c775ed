"""Rules of the house that a reader should be able to trust without reading everything."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

import gossamer

ROOT = Path(gossamer.__file__).parent
SOURCES = sorted(ROOT.rglob("*.py"))
BANNED_CALLS = {"eval", "exec", "compile"}
BANNED_IMPORTS = {"torchvision", "dill", "cloudpickle"}
PICKLE_HOME = "data/unpickle.py"
CHECKPOINT_HOME = "zoo/checkpoint.py"


def _tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def _reads_of_tensors_alone(tree: ast.Module) -> list[ast.expr]:
    """Return what is called with weights_only=True, written out: torch.load then refuses all but plain values."""
    calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call)]
    return [call.func for call in calls if any(_says(word, "weights_only") for word in call.keywords)]


def _says(word: ast.keyword, name: str) -> bool:
    return word.arg == name and isinstance(word.value, ast.Constant) and word.value.value is True


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_nothing_is_evaluated_or_unpickled(path: Path) -> None:
    tree = _tree(path)
    tensors_alone = _reads_of_tensors_alone(tree) if path.relative_to(ROOT).as_posix() == CHECKPOINT_HOME else []
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            assert node.func.id not in BANNED_CALLS, f"{path}:{node.lineno}"
        if isinstance(node, ast.Import | ast.ImportFrom):
            names = (
                {alias.name.split(".")[0] for alias in node.names}
                if isinstance(node, ast.Import)
                else {(node.module or "").split(".")[0]}
            )
            assert not names & BANNED_IMPORTS, f"{path}:{node.lineno}"
            if "pickle" in names:
                assert path.relative_to(ROOT).as_posix() == PICKLE_HOME, f"{path}:{node.lineno}"
        if isinstance(node, ast.Attribute) and node.attr in ("load", "save") and isinstance(node.value, ast.Name):
            if node in tensors_alone:
                continue
            assert node.value.id != "torch", f"{path}:{node.lineno}: torch.{node.attr} pickles"


def test_exports_are_sorted_and_importable() -> None:
    assert list(gossamer.__all__) == sorted(gossamer.__all__)
    for name in gossamer.__all__:
        assert getattr(gossamer, name) is not None


def test_importing_gossamer_imports_nothing_heavy() -> None:
    heavy = ["plotly", "sklearn", "scipy", "pydantic", "typer", "rich", "PIL"]
    code = f"import sys, gossamer; print([m for m in {heavy} if m in sys.modules])"
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert shown.stdout.strip() == "[]"


def test_set_flush_denormal_is_never_called() -> None:
    """It flushes only part of a tensor once the thread pool runs."""
    assert not [path for path in SOURCES if re.search(r"set_flush_denormal\(", path.read_text(encoding="utf-8"))]


def test_every_shipped_recipe_is_headed_by_a_claim() -> None:
    from gossamer.recipe.load import recipes  # noqa: PLC0415

    assert all(recipes().values())


def test_every_file_of_the_package_is_tracked() -> None:
    """What git ignores would be missing from a clone and from the wheel."""
    shown = subprocess.run(
        ["git", "ls-files", "--others", "--ignored", "--exclude-standard", "."],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    if shown.returncode != 0:
        pytest.skip("not a git checkout")
    assert [name for name in shown.stdout.splitlines() if "__pycache__" not in name] == []
