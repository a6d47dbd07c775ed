"""The networks of the field by name, how much work their layers do, and fast surrogates of them for attacks."""

from gossamer.models.counting import blocks, multiply_adds
from gossamer.models.folding import Surrogate, build_surrogate
from gossamer.models.layers import Normalize
from gossamer.models.registry import MODELS, ModelEntry, build

__all__ = ["MODELS", "ModelEntry", "Normalize", "Surrogate", "blocks", "build", "build_surrogate", "multiply_adds"]
