"""The three kinds of error a user can meet; each says what was expected, what came, and what to do."""

from typing import Any


class GossamerError(Exception):
    """Base of every error raised for a user's sake; the command line prints it without a traceback."""

    def __init__(self, subject: str, *, expected: str, got: object, remedy: str) -> None:
        self.subject = subject
        self.expected = expected
        self.got = got
        self.remedy = remedy
        super().__init__(f"{subject}: expected {expected}, got {got}; {remedy}")

    def __reduce__(self) -> Any:
        """Let the error be sent between processes, which builds exceptions from positional arguments."""
        return _rebuilt, (type(self), self.subject, self.expected, str(self.got), self.remedy)


class ConfigError(GossamerError, ValueError):
    """A recipe field, flag or argument cannot be what it is."""


class DataError(GossamerError, ValueError):
    """A file or tensor of images, labels or weights is not what it should be."""


class RunError(GossamerError, RuntimeError):
    """A run cannot go on: its folder, its numbers or its machine are not what they should be."""


def _rebuilt(kind: type[GossamerError], subject: str, expected: str, got: str, remedy: str) -> GossamerError:
    return kind(subject, expected=expected, got=got, remedy=remedy)
