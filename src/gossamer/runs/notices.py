"""What should a reader of a measured number know besides the number?"""

from dataclasses import dataclass
from typing import Any, ClassVar

from gossamer.runs import records


@dataclass(frozen=True, kw_only=True)
class Notice:
    """Something that was found, and how it bears on the result; code: a fixed word, such as "train-mode"."""

    __pydantic_config__: ClassVar[dict[str, Any]] = records.STRICT

    code: str
    text: str

    def __str__(self) -> str:
        return f"note ({self.code}): {self.text}"
