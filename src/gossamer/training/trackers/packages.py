"""How is a tracker's package imported, and what is said where it is not there?"""

import importlib
from types import ModuleType

from gossamer.errors import ConfigError


def imported(module: str) -> ModuleType:
    """Import and return a module of a tracker's package; raises ConfigError where that cannot be."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise not_installed(module.partition(".")[0], str(error)) from error


def not_installed(name: str, got: str = "no such package") -> ConfigError:
    """Return the error that names the extra to install."""
    return ConfigError(
        f"tracker {name}",
        expected=f"the {name} package",
        got=got,
        remedy=f"pip install 'gossamer[{name}]', or leave {name} out of the recipe's machine and of --track",
    )
