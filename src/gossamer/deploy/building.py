"""How does a graph come about? Each traced operator adds named steps to it, or is refused by name."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx

from gossamer.deploy.graph import Affine, Flatten, Graph, Node, Operation, Shape, constants
from gossamer.deploy.naming import module_path, operator, step_name
from gossamer.deploy.tracing import BATCH
from gossamer.errors import ConfigError

IMAGE = "image"


@dataclass(frozen=True)
class View:
    """What the traced network sees of a map: the elements in their order, in a shape of its own, without the batch."""

    name: str
    shape: Shape


class Builder:
    """A graph while it grows: steps so far, the shape of every map, the names taken."""

    def __init__(self, shape: Shape) -> None:
        self.shapes: dict[str, Shape] = {IMAGE: shape}
        self._nodes: list[Node] = []
        self._flat: dict[str, str] = {}

    def add(self, name: str, operation: Operation, inputs: Sequence[str], shape: Shape) -> View:
        """Add a step; its name is `name`, numbered where that is taken. shape: of its map."""
        free = name
        number = 1
        while free in self.shapes:
            number += 1
            free = f"{name}_{number}"
        self._nodes.append(Node(name=free, operation=operation, inputs=tuple(inputs), shape=shape))
        self.shapes[free] = shape
        return View(free, shape)

    def flat(self, name: str) -> str:
        """Return the name of this map as features."""
        if len(self.shapes[name]) == 1:
            return name
        if name not in self._flat:
            features = (math.prod(self.shapes[name]),)
            self._flat[name] = self.add(f"{name}_flat", Flatten(), [name], features).name
        return self._flat[name]

    def graph(self, output: str) -> Graph:
        """Return the graph whose logits are this map."""
        return Graph(input=IMAGE, shape=self.shapes[IMAGE], nodes=tuple(self._nodes), output=output)


@dataclass(frozen=True, kw_only=True)
class Call:
    """One traced operator: its arguments by name (a View for what comes of the image) and the shape it makes."""

    node: fx.Node
    arguments: Mapping[str, Any]
    builder: Builder

    def __getitem__(self, name: str) -> Any:
        return self.arguments[name]

    @property
    def shape(self) -> Shape:
        """The shape of the (first) result, without the batch; refused where the images do not stay apart."""
        value: Any = self.node.meta["val"]
        shape = tuple(value[0].shape if isinstance(value, tuple | list) else value.shape)
        if not shape or shape[0] != BATCH:
            raise self.refusal(
                "images that never meet",
                got=f"a result of shape {shape} from {BATCH} images",
                remedy="leave the first dimension as it is",
            )
        return shape[1:]

    def add(self, operation: Operation, inputs: Sequence[str], shape: Shape, *, suffix: str = "") -> View:
        """Add a step named after this operator; refused where a constant is not finite in float32."""
        for name, value in constants(operation).items():
            if not bool(torch.isfinite(value).all()):
                raise self.refusal(
                    "finite constants", got=f"a {name} with infinities or NaN", remedy="train or load the weights anew"
                )
        return self.builder.add(step_name(self.node) + suffix, operation, inputs, shape)

    def view(self, name: str) -> View:
        """Return an argument that must come of the image."""
        value = self[name]
        if isinstance(value, View):
            return value
        raise self.refusal(
            f"{name} to depend on the image", got="a constant", remedy="exchange the operands or compute it beforehand"
        )

    def constant(self, name: str) -> Tensor:
        """Return an argument that must not depend on the image, as float64."""
        value = self[name]
        if isinstance(value, Tensor | int | float):
            return torch.as_tensor(value, dtype=torch.float64)
        raise self.refusal(
            f"a constant {name}",
            got="one that depends on the image",
            remedy="artifacts multiply maps with constants only: replace the layer",
        )

    def map(self, view: View) -> str:
        """Return the name of the map (C, H, W) that a view shows as it is."""
        if len(view.shape) == 3 and self.builder.shapes[view.name] == view.shape:
            return view.name
        raise self._misshapen(view, "a map (N, C, H, W)")

    def features(self, view: View) -> str:
        """Return the name of the features (F,) that a view shows; a map is flattened."""
        if len(view.shape) == 1:
            return self.builder.flat(view.name)
        raise self._misshapen(view, "features (N, F)")

    def whole(self, view: View) -> str:
        """Return the name of the map or of the features that a view shows."""
        return self.features(view) if len(view.shape) == 1 else self.map(view)

    def refusal(self, expected: str, *, got: str, remedy: str) -> ConfigError:
        """Return the error that names this operator and the module it stands in."""
        path = module_path(self.node) or "the network's own forward"
        return ConfigError(f"export: {operator(self.node)} in {path}", expected=expected, got=got, remedy=remedy)

    def _misshapen(self, view: View, expected: str) -> ConfigError:
        made = self.builder.shapes[view.name]
        seen = f"one of shape (N, {', '.join(map(str, view.shape))})"
        if made != view.shape:
            seen += f" reshaped from (N, {', '.join(map(str, made))})"
        return self.refusal(
            expected, got=seen, remedy="reshape only to flatten, and keep maps as (N, C, 1, 1) before convolutions"
        )


def float32(value: Tensor) -> Tensor:
    """Return a constant as graphs keep it: float32, contiguous, its own memory."""
    return value.detach().to(torch.float32, copy=True).contiguous()


def affine(scale: Tensor, shift: Tensor) -> Affine:
    """Return the operation with these constants, rounded once."""
    return Affine(scale=float32(scale), shift=float32(shift))
