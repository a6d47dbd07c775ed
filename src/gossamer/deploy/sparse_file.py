"""How is a sparse network kept in a file as small as its sparsity? Positions, values, scale and shift; and back.

One safetensors file. Of every convolution and linear weight the positions of what is not zero (`gaps`) and their values
(`values`); of every batch norm a scale and a shift (`scale_shift`); every other tensor as it is, in float32 where it
holds real numbers. Its tensors are named by what they are and whose:

    positions/NAME  uint8 (bytes,)     values/NAME  (count,), bits in uint8 for signs
    scales/NAME     float16 or float32 (1 or C,)
    norm/NAME       float32 (2, C)     dense/NAME   any shape

Reading runs nothing that the file holds, checks every size before it takes memory for it, and gives the same tensors
or a DataError.
"""

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from gossamer.deploy import gaps, scale_shift, sparse_header, values
from gossamer.deploy.gaps import damaged
from gossamer.deploy.sparse_contents import (
    TYPES,
    Array,
    Contents,
    decode,
    norm_keys,
    open_contents,
    shapes_of,
    state_key,
)
from gossamer.deploy.sparse_header import Header, Layer, Network, Norm
from gossamer.deploy.tracing import check_pure
from gossamer.deploy.values import STORAGE, Kind
from gossamer.errors import ConfigError, DataError, GossamerError
from gossamer.models import build
from gossamer.runs import atomic
from gossamer.sparsity import plain_copy
from gossamer.sparsity.forms import DENSE, PLAIN, form
from gossamer.sparsity.slim import SLIM
from gossamer.sparsity.targets import PRUNABLE

MOST_NUMBERS = 2**28
"""Numbers, 4 bytes each, that a file may expand to before a reader that knows no module refuses it."""

PARTS = ("positions", "values", "scales", "norm", "dense")


@dataclass(frozen=True, kw_only=True)
class About:
    """What a file says of itself. sizes: bytes of its tensors by what they are; total: of the whole file."""

    header: Header
    sha256: str
    sizes: Mapping[str, int]
    total: int


def write(
    path: Path,
    module: nn.Module,
    *,
    kind: Kind = "float32",
    network: Network | None = None,
    fold_norms: bool = True,
) -> None:
    """Write a network as a sparse file, atomically; parametrizations are folded first, the module stays as it is.

    kind: of the values; a weight is stored whole where that is smaller, and in float16 where `values.settled` says so.
    network: what builds the plain network again, for
    `rebuild`. fold_norms: keep of a batch norm its scale and shift alone; otherwise all its tensors, so that with
    float32 values every tensor comes back to the bit and can be trained on. Raises ConfigError for an unknown kind,
    DataError for what cannot be stored, fresh noise included, RunError where the file system refuses.
    """
    if kind not in STORAGE:
        raise ConfigError("kind of values", expected=" or ".join(STORAGE), got=repr(kind), remedy="choose one of these")
    check_pure(module)
    _check_network(network)
    layers, norms, arrays = _encode(plain_copy(module), kind, fold_norms=fold_norms)
    texts = sparse_header.to_texts(Header(layers=layers, norms=norms, network=network), arrays)
    atomic.write_safetensors(path, {name: torch.from_numpy(array) for name, array in arrays.items()}, texts)


def read(path: Path, *, most_numbers: int = MOST_NUMBERS) -> dict[str, Tensor]:
    """Return the state dict that a sparse file holds, dense: it loads strictly into the plain network.

    most_numbers: refuse a file that expands to more. Raises DataError for anything but a whole, unchanged sparse file.
    """
    return decode(_within(open_contents(path), most_numbers))


def load(path: Path, module: nn.Module) -> nn.Module:
    """Load a sparse file into a plain network, in place, and return it in eval mode.

    Names and shapes are compared before anything is made of the file. Raises DataError where they, or the eps of a
    batch norm, differ, and as `read` does.
    """
    contents = open_contents(path)
    _check_fit(contents, module)
    module.load_state_dict(decode(contents))
    return module.eval()


def rebuild(path: Path) -> nn.Module:
    """Return the network of a sparse file that names one, in eval mode.

    Raises DataError where it names none or one that its tensors do not fit, and as `read` does.
    """
    contents = _within(open_contents(path), MOST_NUMBERS)
    network = contents.header.network
    if network is None:
        raise DataError(
            str(path),
            expected="the name of a network of gossamer.models",
            got="none",
            remedy="build the network yourself and load the file into it",
        )
    try:
        if network.form not in PLAIN:
            raise damaged(str(path), f"a form among {', '.join(PLAIN)}", network.form[:80])
        dense = outline(network, str(path))
        if network.form == DENSE:
            _check_fit(contents, dense)
        elif network.form == SLIM:
            _check_smaller(contents, dense)
        return form(network.form).rebuild(plain_copy(build(network.name, **network.options)), decode(contents))
    except DataError:
        raise
    except (GossamerError, RuntimeError, TypeError, ValueError, ArithmeticError, LookupError, AttributeError) as error:
        raise DataError(
            str(path),
            expected=f"the tensors of the network {network.name[:80]!r} that it names",
            got=str(error)[:400],
            remedy="build the network yourself and load the file into it",
        ) from error


def outline(network: Network, subject: str) -> nn.Module:
    """Return the dense network that a file names without its weights; raises DataError where they are too many.

    Raises what `build` raises too.
    """
    with torch.device("meta"):
        made = build(network.name, **network.options)
    numbers = sum(parameter.numel() for parameter in made.parameters())
    if numbers > MOST_NUMBERS:
        raise DataError(
            subject,
            expected=f"a network of at most {MOST_NUMBERS:,} weights",
            got=f"{numbers:,}",
            remedy="do not load it unless you know who made it",
        )
    return made


def about(path: Path) -> About:
    """Return what a sparse file says of itself; raises DataError as `read` does."""
    contents = open_contents(path)
    sizes = {part: sum(array.nbytes for array in contents.of(part).values()) for part in PARTS}
    return About(header=contents.header, sha256=contents.sha256, sizes=sizes, total=path.stat().st_size)


def _encode(
    module: nn.Module, kind: Kind, *, fold_norms: bool
) -> tuple[dict[str, Layer], dict[str, Norm], dict[str, Array]]:
    layers: dict[str, Layer] = {}
    norms: dict[str, Norm] = {}
    arrays: dict[str, Array] = {}
    rest = _state(module)
    for name, part in module.named_modules(remove_duplicate=False):
        if fold_norms and scale_shift.folds(part):
            arrays[f"norm/{name}"] = folded = _finite(scale_shift.fold(part), name)
            norms[name] = Norm(features=folded.shape[1], eps=float(getattr(part, "eps")))  # noqa: B009
            rest = {key: tensor for key, tensor in rest.items() if key not in norm_keys(name)}
        elif isinstance(part, PRUNABLE) and _is_kernel(rest.get(key := state_key(name, "weight"))):
            layers[key], stored = _encode_layer(rest.pop(key), kind, key)
            arrays |= {f"{what}/{key}": array for what, array in stored.items()}
    arrays |= {f"dense/{name}": _plain(tensor, name) for name, tensor in rest.items()}
    return layers, norms, arrays


def _encode_layer(weight: Tensor, kind: Kind, layer: str) -> tuple[Layer, dict[str, Array]]:
    rows = weight.float().reshape(weight.shape[0], -1).numpy()
    kind = values.settled(rows, kind)
    quantised = values.quantise(rows, kind, layer=layer)
    codes = quantised.codes.reshape(-1)
    storage = STORAGE[kind]
    coded = gaps.encode(codes != 0, value_bits=None if kind == "signs" else storage.bits)
    kept = codes if coded.coding == "all" else codes[codes != 0]
    stored = {"positions": coded.data, "values": values.pack(kept, kind)}
    if coded.coding == "all":
        del stored["positions"]
    if storage.scaled:
        stored["scales"] = values.stored_scales(quantised.scales)
    about_it = Layer(
        shape=tuple(weight.shape), count=kept.size, coding=coded.coding, parameter=coded.parameter, values=kind
    )
    return about_it, stored


def _is_kernel(weight: Tensor | None) -> bool:
    return weight is not None and weight.is_floating_point() and weight.ndim > 1 and weight.numel() > 0


def _state(module: nn.Module) -> dict[str, Tensor]:
    state = module.state_dict()
    for name, value in state.items():
        if not isinstance(value, Tensor):
            raise DataError(
                f"state of {name}",
                expected="a tensor",
                got=type(value).__name__,
                remedy="export a network whose state is tensors alone",
            )
    return {name: tensor.detach().cpu() for name, tensor in state.items()}


def _plain(tensor: Tensor, name: str) -> Array:
    plain = tensor.float() if tensor.dtype.is_floating_point else tensor
    if plain.dtype not in TYPES.values() or plain.layout != torch.strided:
        raise DataError(
            f"tensor {name}",
            expected="real numbers, integers or booleans",
            got=str(tensor.dtype),
            remedy="export a network without it",
        )
    return _finite(plain.contiguous().numpy(), name)


def _finite(array: Array, name: str) -> Array:
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        raise DataError(
            f"tensor {name}",
            expected="finite numbers",
            got="infinite ones or NaN",
            remedy="export a state from before training diverged",
        )
    return array


def _check_network(network: Network | None) -> None:
    try:
        json.dumps(dataclasses.asdict(network) if network else None, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise ConfigError(
            "network", expected="a name and options that JSON has", got=str(error), remedy="leave other options out"
        ) from error


def _within(contents: Contents, most_numbers: int) -> Contents:
    if contents.header.size > most_numbers:
        raise DataError(
            str(contents.path),
            expected=f"at most {most_numbers:,} weights",
            got=f"{contents.header.size:,}",
            remedy="load it into its network, or allow more numbers if you trust the file",
        )
    return contents


def _check_fit(contents: Contents, module: nn.Module) -> None:
    expected = {name: tuple(tensor.shape) for name, tensor in module.state_dict().items()}
    got = shapes_of(contents)
    different = [name for name in sorted(expected.keys() | got.keys()) if expected.get(name) != got.get(name)]
    if different:
        first = different[0]
        raise DataError(
            str(contents.path),
            expected=f"{first} of shape {expected.get(first, 'none at all')}",
            got=f"{got.get(first, 'none')} ({len(different)} tensors differ)",
            remedy="load the file into the network that it was exported from",
        )
    for name, norm in contents.header.norms.items():
        eps = getattr(module.get_submodule(name), "eps", None)
        if eps != norm.eps:
            raise DataError(
                f"{contents.path}, batch norm {name}",
                expected=f"a module with eps {norm.eps}",
                got=eps,
                remedy="build the network with the eps that it was exported with",
            )


def _check_smaller(contents: Contents, module: nn.Module) -> None:
    """Raise DataError unless a file has the module's tensors and none of them is larger in any direction."""
    most = {name: tuple(tensor.shape) for name, tensor in module.state_dict().items()}
    got = shapes_of(contents)
    wrong = [name for name in sorted(most.keys() | got.keys()) if not _fits(got.get(name), most.get(name))]
    if wrong:
        raise DataError(
            str(contents.path),
            expected=f"{wrong[0]} of a shape within {most.get(wrong[0], 'none at all')}",
            got=f"{got.get(wrong[0], 'none')} ({len(wrong)} tensors differ)",
            remedy="load the file into the network that it was exported from",
        )


def _fits(shape: tuple[int, ...] | None, most: tuple[int, ...] | None) -> bool:
    if shape is None or most is None or len(shape) != len(most):
        return False
    return all(size <= limit for size, limit in zip(shape, most, strict=True))
