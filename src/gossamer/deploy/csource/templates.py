"""How do our fixed C files become those of one network? Words between at signs are replaced."""

import re
from collections.abc import Mapping
from pathlib import Path

HERE = Path(__file__).parent


def template(name: str) -> str:
    """Return one of our C files as it is kept."""
    return (HERE / name).read_text(encoding="ascii")


def filled(text: str, words: Mapping[str, str]) -> str:
    """Return a text with every @WORD@ replaced."""
    return re.sub("@([A-Z]+)@", lambda match: words[match.group(1)], text)
