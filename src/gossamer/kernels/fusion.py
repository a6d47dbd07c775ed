"""Which convolutions of a traced network run on the fast kernel, and which ReLUs and sums go into them?

A 3x3 convolution of stride 1, the addition after it and the ReLU after that become one `FusedConvolution`. Where the
first reader of such a ReLU's output is again one, that reader's backward applies the ReLU's gradient, and takes in the
gradient of a residual connection, in the registers where the gradient at its input is made.
"""

import operator
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.nn import functional

from gossamer.kernels.winograd import KERNEL, Convolution, Gate, pays

ADDITIONS = (operator.add, operator.iadd, torch.add)
RELUS = (torch.relu, torch.relu_, functional.relu, functional.relu_)
RELU_METHODS = ("relu", "relu_")


class FusedConvolution(nn.Module):
    """act(conv(x) + add) of frozen weights; the flags are those of `gossamer.kernels.winograd.Convolution`.

    Its weights stay those of the convolution it was made from, so writing them in place is all it takes to refresh it.
    """

    def __init__(self, conv: nn.Conv2d, *, relu: bool) -> None:
        super().__init__()
        self.conv = conv
        self.relu = relu
        self.deferred = False
        self.gates = False
        self.shares = False

    def forward(self, x: Tensor, add: Tensor | None = None) -> Tensor | tuple[Tensor, Tensor]:
        """Map x: (N, C, H, W) and add: (N, K, H, W) to y: (N, K, H, W), or where it shares to (y, x)."""
        if self._suits(x, add):
            flags = (self.relu, self.deferred, self.gates, self.shares)
            return Convolution.apply(x, self.conv.weight, self.conv.bias, add, *flags)  # pyright: ignore[reportReturnType]
        if self.gates:
            x = Gate.apply(x)  # pyright: ignore[reportAssignmentType]
        y = self.conv(x)
        if add is not None:
            y = y + add
        if self.relu:
            y = functional.relu(y)
        return (y, x) if self.shares else y

    def _suits(self, x: Tensor, add: Tensor | None) -> bool:
        weight, bias = self.conv.weight, self.conv.bias
        tensors = [tensor for tensor in (x, weight, bias, add) if tensor is not None]
        if x.ndim != 4 or any(not _is_plain(tensor) for tensor in tensors) or torch.is_autocast_enabled("cpu"):
            return False
        if weight.requires_grad or (bias is not None and bias.requires_grad):
            return False
        images, inputs, height, width = x.shape
        outputs = weight.shape[0]
        if add is not None and tuple(add.shape) != (images, outputs, height, width):
            return False
        return pays(images, height, width, inputs, outputs) or pays(images, height, width, outputs, inputs)


def fuse(network: fx.GraphModule) -> None:
    """Put the fast kernel into a traced network, in place, wherever it applies; parameters stay the same objects."""
    graph = network.graph
    fused = [_fuse(network, node) for node in list(graph.nodes) if _is_candidate(network, node)]
    for node in reversed(fused):
        _defer(network, node)
    graph.lint()
    network.recompile()


def _is_plain(tensor: Tensor) -> bool:
    return tensor.dtype is torch.float32 and tensor.device.type == "cpu"


def _is_candidate(network: fx.GraphModule, node: fx.Node) -> bool:
    if node.op != "call_module":
        return False
    module: Any = network.get_submodule(str(node.target))
    return (
        type(module) is nn.Conv2d
        and module.kernel_size == KERNEL
        and module.stride == (1, 1)
        and module.padding in ((1, 1), "same")
        and module.dilation == (1, 1)
        and module.groups == 1
        and module.padding_mode == "zeros"
    )


def _fuse(network: fx.GraphModule, node: fx.Node) -> fx.Node:
    """Return the node that computes what `node`, the addition after it and the ReLU after that did."""
    inputs, last = [node.args[0] if node.args else node.kwargs["input"]], node
    taken: list[fx.Node] = []
    addition = _only_reader(last)
    if addition is not None and (other := _other_summand(addition, last)) is not None:
        inputs.append(other)
        taken.append(last)
        last = addition
    activation = _only_reader(last)
    relu = activation is not None and _is_relu(network, activation)
    if activation is not None and relu:
        taken.append(last)
        last = activation
    name = f"{node.name}_fused"
    conv: Any = network.get_submodule(str(node.target))
    network.add_submodule(name, FusedConvolution(conv, relu=relu))
    with network.graph.inserting_before(last):
        made = network.graph.call_module(name, tuple(inputs))
    last.replace_all_uses_with(made)
    for gone in (last, *reversed(taken)):
        network.graph.erase_node(gone)
    network.delete_submodule(str(node.target))
    return made


def _only_reader(node: fx.Node) -> fx.Node | None:
    return next(iter(node.users)) if len(node.users) == 1 else None


def _other_summand(addition: fx.Node, node: fx.Node) -> fx.Node | None:
    if addition.op != "call_function" or addition.target not in ADDITIONS or addition.kwargs:
        return None
    left, right = addition.args
    if addition.target is operator.iadd and left is not node:
        return None
    other = right if left is node else left
    return other if isinstance(other, fx.Node) and other is not node else None


def _is_relu(network: fx.GraphModule, node: fx.Node) -> bool:
    if node.op == "call_module":
        return type(network.get_submodule(str(node.target))) is nn.ReLU
    return (node.op == "call_function" and node.target in RELUS) or (
        node.op == "call_method" and node.target in RELU_METHODS
    )


def _fused(network: fx.GraphModule, node: fx.Node) -> FusedConvolution | None:
    module = network.get_submodule(str(node.target)) if node.op == "call_module" else None
    return module if isinstance(module, FusedConvolution) else None


def _defer(network: fx.GraphModule, node: fx.Node) -> None:
    """Leave the gradient of the ReLU in `node` to the first reader of its output, where that is fused too."""
    source = _fused(network, node)
    readers = [other for other in network.graph.nodes if other in node.users]
    first = _fused(network, readers[0]) if readers else None
    if source is None or not source.relu or first is None or readers[0].args[0] is not node:
        return
    if node in readers[0].args[1:]:
        return
    source.deferred, first.gates = True, True
    if len(readers) == 1:
        return
    first.shares = True
    reader = readers[0]
    with network.graph.inserting_after(reader):
        y = network.graph.call_function(operator.getitem, (reader, 0))
    with network.graph.inserting_after(y):
        x = network.graph.call_function(operator.getitem, (reader, 1))
    for user in list(reader.users):
        if user not in (y, x):
            user.replace_input_with(reader, y)
    for other in readers[1:]:
        other.replace_input_with(node, x)
