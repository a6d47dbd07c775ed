"""What is a step called? By the module that it comes from, in letters that every target language takes."""

import re
from typing import Any

from torch import fx

LONGEST = 48
CONTAINERS = ("Sequential", "ModuleList", "ModuleDict")
C_KEYWORDS = frozenset(
    [
        "asm",
        "auto",
        "break",
        "case",
        "char",
        "const",
        "continue",
        "default",
        "do",
        "double",
        "else",
        "enum",
        "extern",
        "float",
        "for",
        "goto",
        "if",
        "inline",
        "int",
        "long",
        "register",
        "restrict",
        "return",
        "short",
        "signed",
        "sizeof",
        "static",
        "struct",
        "switch",
        "typedef",
        "typeof",
        "union",
        "unsigned",
        "void",
        "volatile",
        "while",
    ]
)


def module_path(node: fx.Node) -> str:
    """Return the path of the innermost module that called this operator, "" for the network itself."""
    return _innermost(node)[0]


def operator(node: fx.Node) -> str:
    """Return the full name of a traced operator, such as aten.conv2d.default."""
    return str(node.target) if hasattr(node.target, "_schema") else node.name


def step_name(node: fx.Node) -> str:
    """Return the identifier of a traced operator: of its module alone where that is one of torch.nn's layers."""
    path, kind = _innermost(node)
    parts = kind.split(".")
    if parts[:2] == ["torch", "nn"] and parts[-1] not in CONTAINERS:
        return identifier(path)
    words = operator(node).split(".")
    return identifier(f"{path}.{words[1] if len(words) > 2 else words[-1]}")


def identifier(text: str) -> str:
    """Return text as [a-z][a-z0-9_]*, of at most 48 letters, never a keyword of C; different texts may meet."""
    plain = re.sub(r"[^a-z0-9_]+", "_", text.lower()).strip("_")[-LONGEST:].lstrip("_")
    if re.match(r"[a-z]", plain) and plain not in C_KEYWORDS:
        return plain
    return f"layer_{plain}".rstrip("_")


def _innermost(node: fx.Node) -> tuple[str, str]:
    stack: dict[str, tuple[str, Any]] = node.meta.get("nn_module_stack") or {}
    if not stack:
        return "", ""
    path, kind = list(stack.values())[-1]
    return path, kind if isinstance(kind, str) else f"{kind.__module__}.{kind.__qualname__}"
