"""What does C need to know of each step of a plan? A table of numbers, and a call that hands it to a kernel."""

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from gossamer.deploy.csource.constants import Blob, Layer, Values, code_table, layer, together
from gossamer.deploy.csource.layout import Layout, Place
from gossamer.deploy.csource.program import (
    INFINITE,
    Clear,
    Copy,
    Flattened,
    Pooled,
    Program,
    Scaled,
    Summed,
    Weighted,
)

FOREIGN = re.compile(r"[^A-Za-z0-9_.]+")
LONGEST_COMMENT = 60

Fields: TypeAlias = Mapping[str, str | int]


@dataclass(frozen=True, kw_only=True, eq=False)
class Constants:
    """The constants of a program, and what its steps know of them, by their number in it.

    layers: of weighted steps; scales: where scale and shift of the others begin, -1 for none.
    """

    data: bytes
    layers: Mapping[int, Layer]
    scales: Mapping[int, tuple[int, int]]


def collect(program: Program, values: Values, block: Layout) -> Constants:
    """Return the constants of all steps. block: the layout for which weights are put in order."""
    blob = Blob()
    blob.add(code_table())
    layers: dict[int, Layer] = {}
    scales: dict[int, tuple[int, int]] = {}
    for number, step in enumerate(program.steps):
        if isinstance(step, Weighted):
            layers[number] = layer(step, values, blob, block)
        elif isinstance(step, Scaled):
            given = [-1 if array is None else blob.add(array) for array in (step.scale, step.shift)]
            scales[number] = given[0], given[1]
    return Constants(data=blob.bytes(), layers=layers, scales=scales)


def uses(program: Program, constants: Constants) -> list[str]:
    """Return which parts of the kernels a program needs."""
    passes = {_CALLS[type(step)].struct for step in program.steps if not isinstance(step, Weighted)}
    return sorted({name.removesuffix("_t") for name in passes} | {layer.kernel for layer in constants.layers.values()})


def plan_text(program: Program, constants: Constants, layout: Layout, plan: str) -> str:
    """Return the tables of one plan and the function of that name that runs it."""
    tables: list[str] = []
    calls: list[str] = []
    for number, step in enumerate(program.steps):
        call = _CALLS[type(step)]
        if isinstance(step, Weighted):
            tables.append(f"static const int32_t {plan}_{number}_reads[] = {{{_reads(step, layout)}}};")
        for part, fields in enumerate(call.fields(_Scene(constants, layout, plan, number), step)):
            table = f"{plan}_{number}_{part}"
            tables.append(f"static const {call.struct} {table} = {_struct(fields)};")
            calls.append(f"    {call.function}(m, &{table}, {layout.unit}, part, parts); /* {_comment(step.name)} */")
            if not _fill_one_map(program.steps[number : number + 2]):
                calls.append("    meet(parts);")
        calls.append(f"    STEP_DONE({number + 1});")
    image, logits = _map(layout.maps[program.input]), _map(layout.maps[program.output])
    head = f"static void {plan}(float *m, const float *in, float *out, long count, long part, long parts) {{"
    lines = [
        *tables,
        f"static const map_t {plan}_image = {image};",
        f"static const map_t {plan}_logits = {logits};",
        "",
        head,
        f"    take(m, &{plan}_image, in, count, {layout.unit}, part, parts);",
        "    meet(parts);",
        "    STEP_DONE(0);",
        *calls,
        f"    give(m, &{plan}_logits, out, count, {layout.unit}, part, parts);",
        "    meet(parts);",
        f"    STEP_DONE({len(program.steps) + 1});",
        "}\n",
    ]
    return "\n".join(lines)


def _fill_one_map(steps: Sequence[object]) -> bool:
    """Tell whether two steps write different planes of one map that neither reads: then nobody has to wait between."""
    if not all(isinstance(step, Copy | Clear) for step in steps):
        return False
    targets = [step.target for step in steps if isinstance(step, Copy | Clear)]
    return len(targets) == 2 and targets[0] == targets[1]


@dataclass(frozen=True, eq=False)
class _Scene:
    """Where a step stands: the constants, where maps lie, the name of the plan, its number in the program."""

    constants: Constants
    layout: Layout
    plan: str
    number: int

    def map(self, name: str) -> str:
        return _map(self.layout.maps[name])


def _map(place: Place) -> str:
    return f"{{{place.at}, {place.plane}, {place.row}, {place.before}, {place.behind}, {_listed(place.cells)}}}"


def _listed(numbers: Sequence[int]) -> str:
    return ", ".join(str(number) for number in numbers)


def _struct(fields: Fields) -> str:
    return "{" + ", ".join(f".{name} = {value}" for name, value in fields.items()) + "}"


def _comment(name: str) -> str:
    return FOREIGN.sub("_", name)[:LONGEST_COMMENT]


def _reads(step: Weighted, layout: Layout) -> str:
    return _listed([layout.offset(step, index) for index in range(len(step.reads))])


def _limits(limits: tuple[float, float]) -> Fields:
    low, high = (_number(limit) for limit in limits)
    return {"low": low, "high": high}


def _number(value: float) -> str:
    if math.isinf(value):
        return "HUGE_VALF" if value > 0 else "-HUGE_VALF"
    return f"{float(value).hex()}f"


def _weighted(scene: _Scene, step: Weighted) -> Sequence[Fields]:
    found = scene.constants.layers[scene.number]
    source, out = scene.layout.maps[step.source], scene.layout.maps[step.target]
    addend = None if step.addend is None else scene.layout.maps[step.addend]
    channels, rows, columns = out.cells
    fields: Fields = {
        "kernels": found.kernel,
        "reads": f"{scene.plan}_{scene.number}_reads",
        "out": _map(out),
        "in": source.at,
        "in_plane": source.plane * step.phases,
        "channels": source.cells[0] // step.phases,
        "add": -1 if addend is None else addend.at,
        "add_plane": 0 if addend is None else addend.plane,
        "chunk": found.chunk,
        "together": together(step, found, scene.layout),
        "window": len(step.reads),
        "outputs": channels,
        "run": (rows - 1) * out.row + columns * scene.layout.unit,
        "values": found.values,
        "places": found.places,
        "starts": found.starts,
        "order": found.order,
        "scale": found.scale,
        "bias": found.bias,
        "bits": found.bits,
        "most": "MOST_DENSE" if found.dense else "MOST",
        "apart": int(found.apart),
        "dense": int(found.dense),
        "scaled": int(found.coding != "floats"),
        "clipped": 0 if step.limits == INFINITE else 1 if step.limits[1] == math.inf else 2,
        **_limits(step.limits),
    }
    return [fields]


def _scaled(scene: _Scene, step: Scaled) -> Sequence[Fields]:
    scale, shift = scene.constants.scales[scene.number]
    maps: Fields = {"in": scene.map(step.source), "out": scene.map(step.target)}
    return [{**maps, "scale": scale, "shift": shift, **_limits(step.limits)}]


def _summed(scene: _Scene, step: Summed) -> Sequence[Fields]:
    first, *others = step.sources
    return [
        {
            "one": scene.map(first if index == 0 else step.target),
            "other": scene.map(other),
            "out": scene.map(step.target),
            **_limits(step.limits if index == len(others) - 1 else INFINITE),
        }
        for index, other in enumerate(others)
    ]


def _copied(scene: _Scene, step: Copy) -> Sequence[Fields]:
    pairs = {"start": step.start, "step": step.step, "place": step.place}
    split = {f"{name}_{axis}": pair[index] for name, pair in pairs.items() for index, axis in enumerate("yx")}
    maps: Fields = {"in": scene.map(step.source), "out": scene.map(step.target)}
    size: Fields = {"height": step.size[0], "width": step.size[1]}
    return [{**maps, **size, **split, "first": step.first, "every": step.every}]


def _cleared(scene: _Scene, step: Clear) -> Sequence[Fields]:
    return [{"out": scene.map(step.target), "first": step.first, "count": step.count}]


def _pooled(scene: _Scene, step: Pooled) -> Sequence[Fields]:
    fields: Fields = {
        "in": scene.map(step.source),
        "out": scene.map(step.target),
        "window_y": step.window[0],
        "window_x": step.window[1],
        "step_y": step.stride[0],
        "step_x": step.stride[1],
        "above": step.above,
        "left": step.left,
        "mean": int(step.kind == "mean"),
        "counts_margins": int(step.counts_margins),
    }
    return [fields]


def _flattened(scene: _Scene, step: Flattened) -> Sequence[Fields]:
    return [{"in": scene.map(step.source), "out": scene.map(step.target)}]


@dataclass(frozen=True, kw_only=True, eq=False)
class _Call:
    """A function of the kernels, the type of its table, and the tables of a step: one for each call."""

    function: str
    struct: str
    fields: Callable[[_Scene, Any], Sequence[Fields]]


_CALLS: Mapping[type[object], _Call] = {
    Weighted: _Call(function="weigh", struct="sum_t", fields=_weighted),
    Scaled: _Call(function="scale_map", struct="scaled_t", fields=_scaled),
    Summed: _Call(function="add_maps", struct="summed_t", fields=_summed),
    Copy: _Call(function="copy_map", struct="copy_t", fields=_copied),
    Clear: _Call(function="clear_planes", struct="clear_t", fields=_cleared),
    Pooled: _Call(function="pool_map", struct="pooled_t", fields=_pooled),
    Flattened: _Call(function="flatten_map", struct="flattened_t", fields=_flattened),
}
