"""What would a user try first? Convolutions as im2col and a product with a sparse matrix of torch, row by row (CSR)."""

import warnings
from dataclasses import replace

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from gossamer.deploy import interpret
from gossamer.deploy.graph import Affine, Convolution, Graph, Linear, Operation


class SparseRows(nn.Module):
    """A graph whose convolutions and linear layers are torch's CSR matrices; x: (N, C, H, W) to logits (N, classes)."""

    def __init__(self, graph: Graph) -> None:
        super().__init__()
        self.graph = graph
        for number, node in enumerate(graph.nodes):
            if isinstance(node.operation, Convolution | Linear):
                self.register_buffer(f"matrix_{number}", _sparse(_matrix(node.operation)))
                self.register_buffer(f"bias_{number}", node.operation.bias.clone())
            elif isinstance(node.operation, Affine):
                self.register_buffer(f"scale_{number}", node.operation.scale.clone())
                self.register_buffer(f"shift_{number}", node.operation.shift.clone())

    @torch.no_grad()
    def forward(self, x: Tensor) -> Tensor:
        """Return the logits."""
        values: dict[str, Tensor] = {self.graph.input: x}
        for number, node in enumerate(self.graph.nodes):
            inputs = [values[name] for name in node.inputs]
            operation = node.operation
            if isinstance(operation, Convolution):
                values[node.name] = self._convolve(number, operation, inputs[0])
            elif isinstance(operation, Linear):
                values[node.name] = self._multiply(number, inputs[0].T).T
            else:
                values[node.name] = interpret.apply(self._beside(number, operation), inputs)
        return values[self.graph.output]

    def _beside(self, number: int, operation: Operation) -> Operation:
        """Return an operation whose constants lie where the module was moved to."""
        if not isinstance(operation, Affine):
            return operation
        return replace(operation, scale=self.get_buffer(f"scale_{number}"), shift=self.get_buffer(f"shift_{number}"))

    def _convolve(self, number: int, operation: Convolution, x: Tensor) -> Tensor:
        above, below, left, right = operation.margins
        padded = F.pad(x, (left, right, above, below))
        window = operation.weight.shape[2:]
        columns = F.unfold(padded, tuple(window), operation.dilation, 0, operation.stride)
        made = self._multiply(number, columns.permute(1, 0, 2).flatten(1)).unflatten(1, (len(x), -1)).permute(1, 0, 2)
        reach = [step * (size - 1) + 1 for step, size in zip(operation.dilation, window, strict=True)]
        sides = zip(padded.shape[2:], reach, operation.stride, strict=True)
        return made.reshape(len(x), -1, *[(side - far) // step + 1 for side, far, step in sides])

    def _multiply(self, number: int, columns: Tensor) -> Tensor:
        matrix, bias = self.get_buffer(f"matrix_{number}"), self.get_buffer(f"bias_{number}")
        return matrix @ columns.contiguous() + bias[:, None]


def _matrix(operation: Convolution | Linear) -> Tensor:
    """Return the weight as (outputs, inputs of a window); groups are blocks beside one another, zero elsewhere."""
    weight = operation.weight.flatten(1)
    groups = operation.groups if isinstance(operation, Convolution) else 1
    return weight if groups == 1 else torch.block_diag(*weight.chunk(groups))


def _sparse(matrix: Tensor) -> Tensor:
    with warnings.catch_warnings():
        # torch calls its CSR support a beta at the first use.
        warnings.simplefilter("ignore")
        return matrix.to_sparse_csr()
