"""How does a network run on a device that has a C compiler and nothing else? As one source and header of C99."""

from gossamer.deploy.csource.compile import Compiled, compile_c
from gossamer.deploy.csource.constants import Values
from gossamer.deploy.csource.emit import Written, is_rounded, write_c
from gossamer.deploy.csource.rounding import float_layers, rounded

__all__ = ["Compiled", "Values", "Written", "compile_c", "float_layers", "is_rounded", "rounded", "write_c"]
