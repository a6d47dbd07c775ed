"""How does a module become a graph? A frozen copy is traced by torch.export and translated operator by operator."""

import operator as python
import warnings
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.export.graph_signature import OutputKind
from torch.fx.node import map_arg

from gossamer.deploy import interpret
from gossamer.deploy.building import IMAGE, Builder, Call, View
from gossamer.deploy.graph import Graph
from gossamer.deploy.naming import module_path, operator
from gossamer.deploy.operators import TRANSLATIONS
from gossamer.deploy.parity import EXACT
from gossamer.deploy.tracing import BATCH, freeze, logits_of, told
from gossamer.errors import ConfigError

# Operators that take of the image no more than its shape.
OF_A_SHAPE = (
    "aten.zeros_like.default",
    "aten.ones_like.default",
    "aten.full_like.default",
    "aten.new_zeros.default",
    "aten.new_ones.default",
    "aten.new_full.default",
)
# Operators whose result shares no memory.
FRESH = (
    "aten.conv2d.default",
    "aten.conv2d.padding",
    "aten.batch_norm.default",
    "aten.linear.default",
    "aten.add.Tensor",
    "aten.cat.default",
    "aten.max_pool2d.default",
    "aten.avg_pool2d.default",
    "aten.lift_fresh_copy.default",
)


def capture(model: nn.Module, example: Tensor) -> Graph:
    """Return what a network computes in eval mode as a graph of float32 constants; the network stays as it is.

    example: (N, C, H, W) floats; its size is the graph's, its number of images is not, and its values only check
    the result. Raises ConfigError, naming operator and module, for what a graph cannot say; for images that meet,
    noise, control flow on data, other inputs and outputs than one batch and its logits (N, classes), and for a
    graph that does not compute the example's logits.
    """
    frozen = freeze(model, example)
    graph = _translate(_trace(frozen.module, frozen.images))
    # One image more: what depends on how many there are was traced for two.
    images = torch.cat([frozen.images, frozen.images[:1]])
    logits = logits_of(frozen.module, images)
    difference = float((interpret.run(graph, images) - logits).abs().max())
    if not difference <= EXACT * max(float(logits.abs().max()), 1e-6):
        raise ConfigError(
            "export",
            expected="a graph that computes the module's logits",
            got=f"logits that differ by {difference:.3g} on the example",
            remedy="make forward a function of each image alone: no noise, no state, no count of images",
        )
    return graph


def _trace(twin: nn.Module, images: Tensor) -> torch.export.ExportedProgram:
    batch = images[:1].repeat(BATCH, 1, 1, 1)
    try:
        # torch warns of its own internals here.
        with torch.no_grad(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            program = torch.export.export(twin, (batch,))
            # Slow, and seldom needed: it untangles writes in place from views of what is written.
            if any(_writes(node) and _is_seen_elsewhere(node) for node in program.graph.nodes):
                program = program.run_decompositions({})
    except Exception as error:
        raise ConfigError(
            "export: model",
            expected="a forward that torch.export can trace",
            got=f"{type(error).__name__}: {told(error)}",
            remedy="let no `if`, loop or number depend on the values of images or on how many there are",
        ) from error
    for output in program.graph_signature.output_specs:
        if output.kind != OutputKind.USER_OUTPUT:
            raise ConfigError(
                "export: model",
                expected="a forward that changes nothing in eval mode",
                got=f"one that writes {output.target}",
                remedy="update buffers only while self.training",
            )
    return program


def _writes(node: fx.Node) -> bool:
    schema = getattr(node.target, "_schema", None)
    return schema is not None and schema.is_mutable


def _is_seen_elsewhere(node: fx.Node) -> bool:
    """Return whether anything but its own result may see what this operator writes in place."""
    target: Any = node.args[0]
    if len(target.users) > 1 or _writes(target):
        return len(target.users) > 1 or _is_seen_elsewhere(target)
    return operator(target) not in FRESH


def _translate(program: torch.export.ExportedProgram) -> Graph:
    values: dict[fx.Node, Any] = {}
    tensors: Mapping[str, Any] = {**program.state_dict, **program.constants}
    sources = {spec.arg.name: spec.target for spec in program.graph_signature.input_specs}
    image = next(node for node in program.graph.nodes if node.op == "placeholder" and sources[node.name] is None)
    builder = Builder(tuple(image.meta["val"].shape[1:]))
    for node in program.graph.nodes:
        if node.op == "output":
            return builder.graph(_output(values[node.args[0][0]], builder))
        if node.op == "placeholder":
            target = sources[node.name]
            values[node] = View(IMAGE, builder.shapes[IMAGE]) if target is None else tensors[target]
        elif node.users:
            values[node] = _value(node, values, builder)
    raise AssertionError


def _output(value: Any, builder: Builder) -> str:
    if isinstance(value, View):
        return builder.flat(value.name)
    raise ConfigError(
        "export: model",
        expected="logits that are computed from the image",
        got="a constant",
        remedy="check what forward returns",
    )


def _value(node: fx.Node, values: Mapping[fx.Node, Any], builder: Builder) -> Any:
    target: Any = node.target
    if target is python.getitem:
        return _item(node, values, builder)
    if node.op != "call_function" or not hasattr(target, "_schema"):
        raise _unknown(node, builder)
    if any(isinstance(values[source], View) for source in node.all_input_nodes) and operator(node) not in OF_A_SHAPE:
        return _translated(node, _arguments(node, values), builder)
    if torch.Tag.nondeterministic_seeded in target.tags:
        raise _call(node, {}, builder).refusal(
            "no noise in eval mode", got="random numbers", remedy="export the noise-free twin of the network"
        )
    stand_ins = {source: _of_its_shape(source, values[source]) for source in node.all_input_nodes}
    with torch.no_grad():
        return target(**_arguments(node, stand_ins))


def _of_its_shape(node: fx.Node, value: Any) -> Any:
    return torch.zeros(node.meta["val"].shape) if isinstance(value, View) else value


def _arguments(node: fx.Node, values: Mapping[fx.Node, Any]) -> dict[str, Any]:
    """Return the arguments of an operator by their names in its schema, defaults filled in."""

    def value(source: fx.Node) -> Any:
        return values[source]

    target: Any = node.target
    given: Any = map_arg(node.args, value)
    named: Any = map_arg(node.kwargs, value)
    expected = target._schema.arguments
    return {
        argument.name: given[index] if index < len(given) else named.get(argument.name, argument.default_value)
        for index, argument in enumerate(expected)
    }


def _translated(node: fx.Node, arguments: Mapping[str, Any], builder: Builder) -> Any:
    translation = TRANSLATIONS.get(operator(node).replace("_.", "."))
    call = _call(node, arguments, builder)
    made = node.meta["val"]
    first = made[0] if isinstance(made, tuple | list) else made
    if translation is None:
        raise _unknown(node, builder)
    if first.dtype != torch.float32:
        raise call.refusal("float32 throughout", got=str(first.dtype), remedy="drop the conversion")
    return translation(call)


def _item(node: fx.Node, values: Mapping[fx.Node, Any], builder: Builder) -> Any:
    arguments: Any = node.args
    value = values[arguments[0]][arguments[1]]
    if value is not None:
        return value
    raise _call(node, {}, builder).refusal(
        "the values of a pooling", got="its indices", remedy="drop what reads the indices"
    )


def _call(node: fx.Node, arguments: Mapping[str, Any], builder: Builder) -> Call:
    return Call(node=node, arguments=arguments, builder=builder)


def _unknown(node: fx.Node, builder: Builder) -> ConfigError:
    path = module_path(node)
    where = f"replace {path}" if path else "write forward"
    return _call(node, {}, builder).refusal(
        "an operator that artifacts can express",
        got=operator(node),
        remedy=f"{where} with convolutions, linear layers, batch norms, ReLU, clips, sums and poolings, "
        "or export to torch",
    )
