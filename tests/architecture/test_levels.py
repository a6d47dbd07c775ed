"""Imports go downward only: rooms on one level never import each other, and nothing imports a higher one."""

import ast
from collections.abc import Iterator
from pathlib import Path

import gossamer

ROOT = Path(gossamer.__file__).parent
LEVELS = (
    ("types", "threat", "errors", "seeding", "losses", "intervals", "plugins", "options"),
    ("data", "models", "attacks", "sparsity", "kernels", "runs"),
    ("objectives", "evaluation"),
    ("training", "deploy", "report"),
    ("methods",),
    ("recipe",),
    ("sweep", "zoo"),
    ("reproduce",),
    ("cli",),
    ("__main__",),
)
LEVEL = {room: level for level, rooms in enumerate(LEVELS) for room in rooms}
FOUNDATION = set(LEVELS[0])
NARROWER = {"report": FOUNDATION | {"report", "runs"}}


def _sources() -> Iterator[tuple[str, Path]]:
    for path in sorted(ROOT.rglob("*.py")):
        parts = path.relative_to(ROOT).with_suffix("").parts
        if parts != ("__init__",):
            yield parts[0], path


def _imports(path: Path) -> Iterator[tuple[int, str]]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == "gossamer":
            assert node.level == 0
            names = [node.module] if "." in node.module else [f"gossamer.{alias.name}" for alias in node.names]
            yield from ((node.lineno, name.split(".")[1]) for name in names)
        if isinstance(node, ast.Import):
            yield from (
                (node.lineno, alias.name.split(".")[1]) for alias in node.names if alias.name.startswith("gossamer.")
            )


def _allowed(room: str, other: str) -> bool:
    if room in NARROWER:
        return other in NARROWER[room]
    if room == other:
        return True
    if room in FOUNDATION and other in FOUNDATION:
        return True
    return LEVEL[other] < LEVEL[room]


def test_every_room_has_a_level() -> None:
    assert {room for room, _ in _sources()} <= set(LEVEL)


def test_imports_go_downward_only() -> None:
    wrong = [
        f"{path.relative_to(ROOT)}:{line} imports {other}"
        for room, path in _sources()
        for line, other in _imports(path)
        if not _allowed(room, other)
    ]
    assert not wrong


def test_no_room_is_empty() -> None:
    rooms = {path for path in ROOT.iterdir() if path.is_dir() and path.name not in ("__pycache__", "recipes")}
    assert all(any(path.stem != "__init__" for path in room.glob("*.py")) for room in rooms)


def test_every_file_says_which_question_it_answers() -> None:
    silent = [str(path) for _, path in _sources() if not ast.get_docstring(ast.parse(path.read_text(encoding="utf-8")))]
    assert not silent
