"""Run folders in, one self-contained HTML page out."""

from gossamer.report.page import write

__all__ = ["write"]
