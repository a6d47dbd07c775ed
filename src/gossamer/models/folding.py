"""The fast surrogate of a network for gradients with respect to its input: frozen weights, batch norm folded in.

An attack on a network in eval mode needs its forward pass and the gradient at its input, and no gradient of a
weight. In eval mode batch norm is y = scale * x + shift with

    scale = gamma / sqrt(running_var + eps),   shift = beta - running_mean * scale,

which folds into the convolution before it (weight * scale, bias * scale + shift) where nothing else reads that
convolution's output; elsewhere it stays as one multiply-add. Parametrized weights are computed once per refresh
instead of once per attack step. The graph is found by symbolic tracing, once.
"""

import copy
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.nn.utils import parametrize

from gossamer.errors import RunError

BATCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm)
FOLDABLE: Mapping[type[nn.Module], type[nn.Module]] = {nn.BatchNorm2d: nn.Conv2d, nn.BatchNorm3d: nn.Conv3d}
IDENTITIES = (nn.Identity, nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d, nn.AlphaDropout)
HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
ENTRY = "model"
SIMPLE = (bool, int, float, str, type(None))
# What is folded or mirrored is tensors; these say nothing about what forward does with them.
BOOKKEEPING = {"training", "num_batches_tracked", "_is_torch_compile"}


class ScaleShift(nn.Module):
    """scale * x + shift per channel: a batch norm in eval mode that folds into nothing."""

    def __init__(self, channels: int, like: Tensor) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.empty(channels, device=like.device, dtype=like.dtype), requires_grad=False)
        self.shift = nn.Parameter(torch.empty_like(self.scale), requires_grad=False)

    def forward(self, x: Tensor) -> Tensor:
        """Map x: (N, C, ...) to the same shape."""
        shape = (-1,) + (1,) * (x.ndim - 2)
        return torch.addcmul(self.shift.view(shape), x, self.scale.view(shape))


@dataclass(frozen=True)
class _Link:
    """How a part of the surrogate gets its tensors: write(target, *modules of the source at `paths`)."""

    write: Callable[..., None]
    target: object
    paths: tuple[str, ...]


class Surrogate(nn.Module):
    """A frozen twin of a network in eval mode; made by `build_surrogate`, brought up to date by `refresh`.

    Called with x: (N, C, H, W), it gives the logits (N, K) that the network would give in eval mode, to rounding,
    with a graph to x alone. Its tensors are written in place, so a compiled surrogate remains valid.
    """

    def __init__(
        self, graph: fx.GraphModule, links: list[_Link], structure: object, memory_format: torch.memory_format
    ) -> None:
        super().__init__()
        self.graph = graph
        self.memory_format = memory_format
        self._links = links
        self._structure = structure

    def forward(self, x: Tensor) -> Tensor:
        """Return eval-mode logits (N, K) for x: (N, C, H, W)."""
        if x.ndim == 4:
            x = x.contiguous(memory_format=self.memory_format)
        return self.graph(x)

    def train(self, mode: bool = True) -> "Surrogate":
        """Stay in eval mode, whatever is asked."""
        return super().train(False)

    def matches(self, model: nn.Module) -> bool:
        """Return whether the model still has the modules and settings that were traced, where they were."""
        own, given = next(self.parameters(), None), next(model.parameters(), None)
        moved = own is not None and given is not None and (own.device, own.dtype) != (given.device, given.dtype)
        return not moved and _structure(model) == self._structure

    def refresh(self, model: nn.Module) -> None:
        """Copy in the model's present weights and statistics, folded, in place; once per batch.

        Parametrizations run in eval mode, outside any `parametrize.cached` scope; the model stays as it is.
        Raises RunError where the model no longer matches what was traced.
        """
        if not self.matches(model):
            raise RunError(
                "surrogate",
                expected="the model it was built from",
                got="a model whose modules or settings differ",
                remedy="build a new surrogate after changing the model",
            )
        modules = dict(model.named_modules(prefix=ENTRY, remove_duplicate=False))
        with torch.no_grad(), _parametrizations_in_eval(model):
            for link in self._links:
                link.write(link.target, *(modules[path] for path in link.paths))


def build_surrogate(
    model: nn.Module,
    *,
    memory_format: torch.memory_format = torch.channels_last,
    example: Tensor | None = None,
    rewrite: Callable[[fx.GraphModule], None] | None = None,
) -> Surrogate | None:
    """Return a surrogate with the model's present weights, or None where the model cannot be traced faithfully.

    None means: attack the model itself. It is the answer for hooks, control flow on data, tensors that are neither
    parameters nor buffers, replaced `forward` methods, and parametrizations that declare `pure = False` or draw fresh
    noise at every read. What forward reads from plain attributes is traced once and watched by `matches`.
    example: (N, C, H, W) in [0, 1]; when given, the surrogate must also reproduce the model's eval-mode logits on it.
    rewrite: puts faster modules into the folded graph, in place; they keep its parameters, which `refresh` writes.
    Changes nothing of the model.
    """
    if any(_opaque(module) for module in model.modules()):
        return None
    try:
        twin = plain_copy(model)
        graph, links = _translate(twin, _Tracer().trace(_Entry(twin)))
        if rewrite is not None:
            rewrite(graph)
        surrogate = Surrogate(graph, links, _structure(model), memory_format)
        _settle(surrogate, memory_format)
        surrogate.refresh(model)
        faithful = example is None or _agree(surrogate, twin, example)
    except Exception:  # A user's module may fail in any way under tracing, and then simply has no surrogate.
        return None
    return surrogate if faithful else None


class _Entry(nn.Module):
    """Calls a network with x alone, so that its other arguments are traced at their defaults."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.add_module(ENTRY, model)

    def forward(self, x: Tensor) -> Tensor:
        return getattr(self, ENTRY)(x)


class _Tracer(fx.Tracer):
    proxy_buffer_attributes = True

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return type(m).__module__.startswith("torch.nn.") and not isinstance(m, nn.Sequential)


def _opaque(module: nn.Module) -> bool:
    if any(getattr(module, hooks, None) for hooks in HOOKS):
        return True
    if "forward" in vars(module) or type(module).__call__ is not nn.Module.__call__:
        return True
    return getattr(module, "pure", True) is False


def plain_copy(model: nn.Module) -> nn.Module:
    """Return a frozen copy in eval mode whose parametrized weights are plain parameters of their present values.

    Raises ValueError where a weight is drawn anew at every read, and what `copy.deepcopy` raises.
    """
    twin = copy.deepcopy(model).eval()
    for part in list(twin.modules()):
        if parametrize.is_parametrized(part):
            _unparametrize(part)
    return twin.requires_grad_(False)


def _unparametrize(part: nn.Module) -> None:
    # Not `remove_parametrizations`: it deletes properties from a class that the copy shares with its source.
    names = [str(name) for name in part.parametrizations]  # type: ignore[union-attr]
    with torch.no_grad(), torch.random.fork_rng(devices=[]):
        values, again = ({name: _parametrized(part, name) for name in names} for _ in range(2))
    if not all(torch.equal(values[name], again[name]) for name in names):
        raise ValueError("a weight that is drawn anew at every read cannot be frozen")
    part.__class__ = type(part).__mro__[1]
    del part.parametrizations
    for name, value in values.items():
        part.register_parameter(name, nn.Parameter(value.clone(), requires_grad=False))


def _parametrized(module: nn.Module, name: str) -> Tensor:
    # Called directly: reading the attribute would leave a value without a graph in an open cache.
    return module.parametrizations[name]()  # type: ignore[index,operator]


def _effective(module: nn.Module, name: str) -> Tensor | None:
    if parametrize.is_parametrized(module, name):
        return _parametrized(module, name)
    return getattr(module, name)


@contextmanager
def _parametrizations_in_eval(model: nn.Module) -> Generator[None]:
    lists = [module for module in model.modules() if isinstance(module, parametrize.ParametrizationList)]
    modes = [(module, module.training) for parent in lists for module in parent.modules()]
    for module, _ in modes:
        module.training = False
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training


def _structure(model: nn.Module) -> list[tuple[str, type, dict[str, object], bool]]:
    return [
        (name, _plain_class(module), _settings(module), _opaque(module))
        for name, module in model.named_modules()
        if "parametrizations" not in name.split(".")
    ]


def _plain_class(module: nn.Module) -> type:
    return type(module).__mro__[1] if parametrize.is_parametrized(module) else type(module)


def _settings(module: nn.Module) -> dict[str, object]:
    return {name: value for name, value in vars(module).items() if name not in BOOKKEEPING and _is_simple(value)}


def _is_simple(value: object) -> bool:
    if isinstance(value, tuple):
        return all(type(item) in SIMPLE for item in value)
    return type(value) in SIMPLE


def _translate(twin: nn.Module, graph: fx.Graph) -> tuple[fx.GraphModule, list[_Link]]:
    modules = dict(twin.named_modules(prefix=ENTRY, remove_duplicate=False))
    _erase_identities(graph, modules)
    folds = _folds(graph, modules)
    for conv, norm in folds.items():
        norm.replace_all_uses_with(conv)
        graph.erase_node(norm)
    links = {
        node: _link(node, folds.get(node), modules) for node in graph.nodes if node.op in ("call_module", "get_attr")
    }
    # Every call gets its own part, so that a module called twice may fold into two different batch norms.
    for node in links:
        node.target = node.name
    graph.lint()
    parts: dict[str, Any] = {node.name: link.target for node, link in links.items()}
    return fx.GraphModule(parts, graph), list(links.values())


def _erase_identities(graph: fx.Graph, modules: dict[str, nn.Module]) -> None:
    for node in list(graph.nodes):
        if node.op == "call_module" and type(modules[str(node.target)]) in IDENTITIES:
            node.replace_all_uses_with(node.all_input_nodes[0])
            graph.erase_node(node)


def _folds(graph: fx.Graph, modules: dict[str, nn.Module]) -> dict[fx.Node, fx.Node]:
    folds: dict[fx.Node, fx.Node] = {}
    for node in graph.nodes:
        if node.op != "call_module" or not _is_affine(modules[str(node.target)]):
            continue
        wanted = FOLDABLE.get(type(modules[str(node.target)]))
        producer = node.all_input_nodes[0]
        if producer.op != "call_module" or type(modules[str(producer.target)]) is not wanted:
            continue
        if len(producer.users) == 1:
            folds[producer] = node
    return folds


def _is_affine(module: nn.Module) -> bool:
    return type(module) in BATCH_NORMS and getattr(module, "running_mean", None) is not None


def _link(node: fx.Node, norm: fx.Node | None, modules: dict[str, nn.Module]) -> _Link:
    path = str(node.target)
    if node.op == "get_attr":
        return _tensor_link(path, modules)
    module = modules[path]
    if norm is not None:
        return _Link(_write_folded, _with_bias(copy.deepcopy(module)), (path, str(norm.target)))
    if _is_affine(module):
        mean: Any = module.running_mean
        return _Link(_write_scale_shift, ScaleShift(mean.numel(), mean), (path,))
    return _Link(_write_mirror, copy.deepcopy(module), (path,))


def _tensor_link(path: str, modules: dict[str, nn.Module]) -> _Link:
    parent, _, name = path.rpartition(".")
    owner = modules[parent]
    tensors = {**dict(owner.named_parameters(recurse=False)), **dict(owner.named_buffers(recurse=False))}
    # Any other tensor was computed during tracing and would go stale.
    source = tensors[name]
    target = nn.Parameter(source.detach().clone(), requires_grad=False)
    return _Link(partial(_write_tensor, name), target, (parent,))


def _with_bias(conv: Any) -> nn.Module:
    if conv.bias is None:
        conv.bias = nn.Parameter(conv.weight.new_empty(conv.out_channels), requires_grad=False)
    return conv


def _affine(norm: Any) -> tuple[Tensor, Tensor]:
    scale = torch.rsqrt(norm.running_var + norm.eps)
    gamma, beta = _effective(norm, "weight"), _effective(norm, "bias")
    if gamma is not None:
        scale = scale * gamma
    shift = -norm.running_mean * scale
    return scale, shift if beta is None else shift + beta


def _write_folded(target: Any, conv: nn.Module, norm: nn.Module) -> None:
    scale, shift = _affine(norm)
    weight, bias = _effective(conv, "weight"), _effective(conv, "bias")
    assert weight is not None
    torch.mul(weight, scale.view((-1,) + (1,) * (weight.ndim - 1)), out=target.weight)
    target.bias.copy_(shift if bias is None else torch.addcmul(shift, bias, scale))


def _write_scale_shift(target: ScaleShift, norm: nn.Module) -> None:
    scale, shift = _affine(norm)
    target.scale.copy_(scale)
    target.shift.copy_(shift)


def _write_mirror(target: nn.Module, source: nn.Module) -> None:
    for path, part in target.named_modules():
        origin = source.get_submodule(path)
        for name, tensor in (*part.named_parameters(recurse=False), *part.named_buffers(recurse=False)):
            _write_tensor(name, tensor, origin)


def _write_tensor(name: str, target: Tensor, owner: nn.Module) -> None:
    value = _effective(owner, name)
    if value is not None and value.shape != target.shape:
        raise RunError(
            "surrogate",
            expected=f"{name} of shape {tuple(target.shape)}",
            got=f"shape {tuple(value.shape)}",
            remedy="build a new surrogate after changing the model",
        )
    target.copy_(value)  # type: ignore[arg-type]


def _settle(surrogate: Surrogate, memory_format: torch.memory_format) -> None:
    surrogate.eval()
    for parameter in surrogate.parameters():
        if parameter.ndim == 4:
            parameter.data = parameter.data.contiguous(memory_format=memory_format)


def _agree(surrogate: Surrogate, twin: nn.Module, example: Tensor) -> bool:
    with torch.no_grad():
        expected = twin(example)
        return torch.allclose(surrogate(example), expected, rtol=1e-4, atol=1e-4 * float(expected.abs().max()))
