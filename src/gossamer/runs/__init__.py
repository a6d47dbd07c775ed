"""The run folder: its layout, atomic files, checkpoints, log, lock, and the records of what was measured."""

from gossamer.runs.layout import RunFolder

__all__ = ["RunFolder"]
