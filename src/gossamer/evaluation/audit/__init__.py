"""Can a robust accuracy be trusted? Signs of a misleading evaluation, the attacks that settle them, and a verdict."""

from gossamer.evaluation.audit.audit import audit
from gossamer.evaluation.audit.budget import BUDGETS, Budget

__all__ = ["BUDGETS", "Budget", "audit"]
