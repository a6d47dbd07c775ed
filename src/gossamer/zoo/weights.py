"""How are a published network's tensors kept? Whole under dense names, or as a sparse file where that is far smaller.

Both give every tensor back to the bit. A plain file can be read by whatever reads safetensors, so that the sparse one
must be at most half as large to be chosen.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Literal, TypeAlias

import torch
from torch import Tensor, nn

from gossamer.deploy import sparse_file
from gossamer.deploy.published import Storage
from gossamer.deploy.scratch import scratch
from gossamer.deploy.sparse_header import Network
from gossamer.errors import ConfigError, DataError, GossamerError
from gossamer.models import build
from gossamer.models.registry import MODELS
from gossamer.plugins import is_reference
from gossamer.recipe.build import build_foreign_model
from gossamer.runs import atomic
from gossamer.sparsity import plain_copy
from gossamer.sparsity.forms import PLAIN, form

Asked: TypeAlias = Literal["auto", "dense", "sparse"]

STORAGES = ("auto", "dense", "sparse")
SMALLER = 0.5


def write_weights(
    path: Path, module: nn.Module, tensors: Mapping[str, Tensor], network: Network, asked: Asked
) -> Storage:
    """Write tensors, atomically, and return the storage chosen.

    module: the network that they build. Raises ConfigError where a sparse file was asked for that cannot hold them.
    """
    if asked not in STORAGES:
        raise ConfigError("storage", expected=" or ".join(STORAGES), got=repr(asked), remedy="choose one of these")
    with scratch() as folder:
        dense, sparse = folder / "dense", folder / "sparse"
        atomic.write_safetensors(dense, tensors, {"format": "pt"})
        chosen: Storage = "dense"
        if asked == "sparse" or (asked == "auto" and network.form in PLAIN):
            chosen = _smaller(dense, sparse, asked) if _write_sparse(sparse, module, tensors, network) else chosen
        if asked == "sparse" and chosen == "dense":
            raise _dense_only(network)
        # Copied, so that the file has the permissions that the user's other files have.
        atomic.copy(sparse if chosen == "sparse" else dense, path)
        return chosen


def _smaller(dense: Path, sparse: Path, asked: Asked) -> Storage:
    return "sparse" if asked == "sparse" or sparse.stat().st_size <= SMALLER * dense.stat().st_size else "dense"


def rebuild(network: Network, tensors: Mapping[str, Tensor], *, subject: str, allow_factory: bool = False) -> nn.Module:
    """Return the network of a manifest with its tensors, in eval mode; torch's random numbers stay where they are.

    allow_factory: import what a name as "package.module:factory" refers to. Raises ConfigError without it, DataError
    for tensors that do not fit, or a network too large to make.
    """
    with torch.random.fork_rng(devices=[]):
        dense = plain_copy(_build(network, subject, allow_factory=allow_factory))
        try:
            return form(network.form).rebuild(dense, tensors)
        except (GossamerError, RuntimeError, TypeError, ValueError, LookupError, AttributeError) as error:
            raise _unfit(subject, network, error) from error


def _build(network: Network, subject: str, *, allow_factory: bool) -> nn.Module:
    if is_reference(network.name):
        if not allow_factory:
            raise ConfigError(
                subject,
                expected="a network of gossamer.models, or your word that its own factory may run",
                got=f"the factory {network.name[:200]}",
                remedy="write --trust (allow_factory=True) if you know that code: it is imported and called",
            )
        return build_foreign_model(network.name, network.options)
    try:
        sparse_file.outline(network, subject)
        return build(network.name, **network.options)
    except DataError:
        raise
    except (GossamerError, RuntimeError, TypeError, ValueError, ArithmeticError, LookupError, AttributeError) as error:
        raise _unfit(subject, network, error) from error


def _write_sparse(path: Path, module: nn.Module, tensors: Mapping[str, Tensor], network: Network) -> bool:
    """Write a sparse file and tell whether it gives every tensor back to the bit."""
    named = network if network.form in PLAIN and network.name in MODELS else None
    try:
        sparse_file.write(path, module, network=named, fold_norms=False)
        back = sparse_file.read(path)
    except GossamerError:
        return False
    return back.keys() == tensors.keys() and all(_same(back[name], tensor) for name, tensor in tensors.items())


def _same(one: Tensor, other: Tensor) -> bool:
    return one.dtype == other.dtype and one.shape == other.shape and torch.equal(one, other)


def _dense_only(network: Network) -> ConfigError:
    return ConfigError(
        "storage",
        expected="dense: a sparse file does not give all of this network's tensors back to the bit",
        got=f"sparse, for a network of the form {network.form}",
        remedy="leave --storage out, or `gossamer export --to sparse` its noise-free twin",
    )


def _unfit(subject: str, network: Network, error: Exception) -> DataError:
    return DataError(
        subject,
        expected=f"the tensors and options of the network {network.name[:80]!r}",
        got=" ".join(str(error).split())[:400],
        remedy="load it with the version of gossamer that wrote it, or fetch it again",
    )
