"""The three kinds of error a user can meet; each says what was expected, what came, and what to do."""


class GossamerError(Exception):
    """Base of every error raised for a user's sake; the command line prints it without a traceback."""

    def __init__(self, subject: str, *, expected: str, got: object, remedy: str) -> None:
        self.subject = subject
        self.expected = expected
        self.got = got
        self.remedy = remedy
        super().__init__(f"{subject}: expected {expected}, got {got}; {remedy}")


class ConfigError(GossamerError, ValueError):
    """A recipe field, flag or argument cannot be what it is."""


class DataError(GossamerError, ValueError):
    """A file or tensor of images, labels or weights is not what it should be."""


class RunError(GossamerError, RuntimeError):
    """A run cannot go on: its folder, its numbers or its machine are not what they should be."""
