"""How does a network become an ONNX file? Exported by torch, checked by onnx, compared in onnxruntime."""

import functools
import importlib
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from gossamer.deploy.about import weights_sha256
from gossamer.deploy.parity import check_exact, parity, probes
from gossamer.deploy.seal import BLANK, KEY, sealed
from gossamer.deploy.tracing import Frozen, freeze, quietly, refusal, trace
from gossamer.errors import ConfigError
from gossamer.runs import atomic

INPUT = "images"
OUTPUT = "logits"
BATCH = "batch"
PACKAGES = ("onnx", "onnxscript", "onnxruntime")
POOLS = ("MaxPool", "AveragePool")
OLDEST = 18
"""The opset in which torch writes before it converts to a newer one."""


def write_onnx(model: nn.Module, example: Tensor, path: Path, *, about: Mapping[str, str] | None = None) -> None:
    """Write a network as one ONNX file of the newest opset that onnxruntime here runs, atomically.

    example: (N, C, H, W) floats in [0, 1]; the file takes `images` (batch, C, H, W) of any batch and gives `logits`
    (batch, classes). about: further texts for its metadata, beside version, shape and the digest of the weights. The
    network stays as it is. Raises ConfigError where the extra `export` is missing and for what ONNX cannot say, naming
    the operator; RunError where onnxruntime computes other logits, by more than 1e-4 of the largest.
    """
    check_packages(PACKAGES, "onnx")
    frozen = freeze(model, example)
    proto = _exported(frozen)
    _rename_batch(proto)
    _keep_pads(proto)
    _clear_notes(proto)
    own = {
        "gossamer": version("gossamer"),
        "sha256": weights_sha256(frozen.module.state_dict()),
        "shape": ",".join(map(str, frozen.shape)),
    }
    put_texts(proto, {**own, **(about or {})})
    data = sealed(checked(proto, path.name))
    found = parity(frozen.module, runner(data), torch.cat([frozen.images[:16], probes(frozen.shape)]))
    check_exact(found, path.name)
    atomic.write_bytes(path, data)


def check_packages(names: tuple[str, ...], kind: str) -> None:
    """Raise ConfigError where a package that a kind of artifact needs is missing."""
    for name in names:
        try:
            importlib.import_module(name)
        except ImportError as error:
            raise ConfigError(
                f"export to {kind}",
                expected=f"the packages {', '.join(names)}",
                got=f"no {name}",
                remedy="write pip install 'gossamer[export]'",
            ) from error


def checked(proto: Any, name: str) -> bytes:
    """Return a model's bytes after onnx has checked it, shapes included; raises ConfigError where it refuses."""
    import onnx  # noqa: PLC0415  (an extra, needed here alone)

    try:
        onnx.checker.check_model(proto, full_check=True)
        return proto.SerializeToString()
    except Exception as error:
        raise refusal(error, f"an ONNX model of at most 2 GiB that onnx accepts as {name}") from error


def runner(data: bytes) -> Any:
    """Return a function from images (N, C, H, W) to logits (N, classes) that runs an ONNX model's bytes.

    Raises ConfigError where onnxruntime does not take the model.
    """
    try:
        session = _session(data)
    # Its errors share no base but Exception.
    except Exception as error:
        raise refusal(error, "operators that onnxruntime runs together") from error

    def run(x: Tensor) -> Tensor:
        (logits,) = session.run([OUTPUT], {INPUT: np.ascontiguousarray(x.cpu().numpy())})
        return torch.from_numpy(np.array(logits))

    return run


def put_texts(proto: Any, texts: Mapping[str, str]) -> None:
    """Write texts and the place of a seal into a model's metadata, in place of those of the same name."""
    import onnx  # noqa: PLC0415

    merged = {entry.key: entry.value for entry in proto.metadata_props} | dict(texts) | {KEY: BLANK}
    onnx.helper.set_model_props(proto, merged)


@functools.cache
def newest_opset() -> int:
    """Return the newest opset that the onnx and onnxruntime here both know."""
    import onnx  # noqa: PLC0415

    for opset in range(onnx.defs.onnx_opset_version(), OLDEST, -1):
        if _runs(opset):
            return opset
    return OLDEST


def _runs(opset: int) -> bool:
    from onnx import TensorProto, helper  # noqa: PLC0415

    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1]) for name in "ab"]
    graph = helper.make_graph([helper.make_node("Relu", ["a"], ["b"])], "probe", ends[:1], ends[1:])
    model = helper.make_model_gen_version(graph, opset_imports=[helper.make_opsetid("", opset)])
    try:
        _session(model.SerializeToString())
    # Its errors share no base but Exception.
    except Exception:
        return False
    return True


def _session(data: bytes) -> Any:
    import onnxruntime  # noqa: PLC0415

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.log_severity_level = 4
    return onnxruntime.InferenceSession(data, sess_options=options, providers=["CPUExecutionProvider"])


def _exported(frozen: Frozen) -> Any:
    program = trace(frozen)
    try:
        with quietly(), torch.no_grad():
            exported: Any = torch.onnx.export(
                program,
                dynamo=True,
                input_names=[INPUT],
                output_names=[OUTPUT],
                opset_version=newest_opset(),
                verbose=False,
                external_data=False,
            )
            return exported.model_proto
    except Exception as error:
        raise refusal(error, "operators that ONNX can say") from error


def _rename_batch(proto: Any) -> None:
    """Give the batch its name everywhere; raises ConfigError where the model takes one fixed number of images."""
    dimension = proto.graph.input[0].type.tensor_type.shape.dim[0]
    if not dimension.dim_param:
        raise ConfigError(
            "export: model",
            expected="a forward for any number of images",
            got=f"one for {dimension.dim_value}",
            remedy="write x.flatten(1), not a shape with the number of images in it",
        )
    old = dimension.dim_param
    for value in (*proto.graph.input, *proto.graph.output, *proto.graph.value_info):
        for each in value.type.tensor_type.shape.dim:
            if each.dim_param == old:
                each.dim_param = BATCH


def _keep_pads(proto: Any) -> None:
    """Let pads before a pool depend on the size of the batch, by nothing.

    onnxruntime makes constant ones part of the pool: of MaxPool, where that means minus infinity whatever the constant
    is, and of kernels smaller than the pad, which it then refuses.
    """
    from onnx import TensorProto, helper  # noqa: PLC0415

    pooled = {node.input[0] for node in proto.graph.node if node.op_type in POOLS}
    old, new = list(proto.graph.node), []
    for pad in old:
        if pad.op_type == "Pad" and pad.output[0] in pooled and len(pad.input) > 2 and pad.input[2]:
            names = [f"{pad.output[0]}_{part}" for part in ("batch", "none", "zero", "value")]
            batch, none, zero, value = names
            new += [
                helper.make_node("Size", [pad.input[0]], [batch]),
                helper.make_node("Sub", [batch, batch], [none]),
                helper.make_node("Cast", [none], [zero], to=TensorProto.FLOAT),
                helper.make_node("Add", [zero, pad.input[2]], [value]),
            ]
            pad.input[2] = value
        new.append(pad)
    del proto.graph.node[:]
    proto.graph.node.extend(new)


def _clear_notes(proto: Any) -> None:
    """Remove what says where on the exporting machine each operator came from."""
    for part in (*proto.graph.node, *proto.graph.initializer, *proto.graph.value_info):
        part.ClearField("metadata_props")
        part.ClearField("doc_string")
    proto.graph.ClearField("metadata_props")
