import json
import math
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.numpy import save
from shipped import images, small
from torch import nn
from torch.nn.utils import parametrize

from gossamer.deploy import sparse_file, sparse_header
from gossamer.deploy.about import about_path
from gossamer.deploy.artifact import open_artifact
from gossamer.deploy.export import export
from gossamer.deploy.sparse_file import about, load, read, rebuild, write
from gossamer.deploy.sparse_header import Network
from gossamer.errors import ConfigError, DataError
from gossamer.models import build
from gossamer.models.registry import MODELS
from gossamer.sparsity.forms import FORMS, PLAIN
from gossamer.sparsity.noisy_weights import WeightNoise
from gossamer.sparsity.slim import SLIM
from gossamer.sparsity.targets import targets

KINDS = ("float32", "float16", "int8", "signs")


def lively(model, seed=0):
    """Give batch norms statistics and affine parts of a trained network, and return it in eval mode."""
    draw = torch.Generator().manual_seed(seed)
    for module in model.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.running_mean.normal_(generator=draw)
            module.running_var.uniform_(0.3, 2, generator=draw)
            module.num_batches_tracked.fill_(17)
            if module.affine:
                nn.init.uniform_(module.weight, 0.5, 1.5, generator=draw)
                nn.init.normal_(module.bias, generator=draw)
    return model.eval()


@torch.no_grad()
def thinned(model, density, *, binary=False, seed=0):
    """Keep uniformly random weights of every layer, of one magnitude where `binary`."""
    draw = torch.Generator().manual_seed(seed)
    for target in targets(model):
        weight = target.parameter
        kept = torch.zeros(weight.numel(), dtype=torch.bool)
        kept[torch.randperm(weight.numel(), generator=draw)[: round(density * weight.numel())]] = True
        values = weight.sign() * 0.125 if binary else weight
        weight.copy_(torch.where(kept.view_as(weight), values, 0.0))
    return model


def several():
    """All that the state of a network may hold: strides, groups, odd eps, no affine part, integer and bool buffers."""
    torch.manual_seed(3)
    model = nn.Sequential(
        nn.Conv2d(3, 8, 3, bias=True),
        nn.BatchNorm2d(8, eps=0.37),
        nn.ReLU(),
        nn.Conv2d(8, 8, 3, groups=8, bias=False),
        nn.BatchNorm2d(8, eps=3.5),
        nn.GroupNorm(2, 8),
        nn.ConvTranspose2d(8, 4, 2),
        nn.BatchNorm2d(4, track_running_stats=False),
        nn.Flatten(),
        nn.Linear(4 * 25, 16),
        nn.BatchNorm1d(16, eps=1e-3),
        nn.Linear(16, 10, bias=False),
        nn.BatchNorm1d(10, affine=False),
    )
    model.register_buffer("steps", torch.arange(3))
    model.register_buffer("flags", torch.tensor([True, False]))
    model.register_buffer("empty", torch.zeros(0, 4))
    lively(model[:7])
    lively(model[8:])
    return model.eval()


def same_logits(model, other, x, tolerance=1e-6):
    with torch.no_grad():
        wanted = model(x)
        torch.testing.assert_close(other(x), wanted, rtol=0, atol=tolerance * float(wanted.abs().max()))


# Networks there and back


@pytest.mark.parametrize("density", [0.0, 0.02, 0.3, 0.8, 1.0])
def test_a_float32_network_comes_back_with_its_weights_and_logits(tmp_path, density):
    model = thinned(several(), density)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    write(tmp_path / "net", model)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    tensors = read(tmp_path / "net")
    assert tensors.keys() == before.keys()
    norms = {"1.", "4.", "10."}
    for name, tensor in tensors.items():
        assert tensor.dtype == before[name].dtype
        assert any(name.startswith(norm) for norm in norms) or torch.equal(tensor, before[name])
    found = load(tmp_path / "net", several().train())
    assert not found.training
    same_logits(model, found, torch.rand(5, 3, 8, 8))


@pytest.mark.parametrize("eps", [0.0, 1e-5, 1e-3, 0.37, 1.0, 3.5, 1e4])
def test_batch_norm_of_any_eps_computes_the_same(tmp_path, eps):
    torch.manual_seed(1)
    norm = lively(nn.BatchNorm2d(64, eps=eps))
    write(tmp_path / "norm", norm)
    found = load(tmp_path / "norm", nn.BatchNorm2d(64, eps=eps))
    assert (found.running_mean == 0).all()
    assert (found.running_var >= 0).all()
    assert found.num_batches_tracked == 0
    same_logits(norm, found, torch.randn(4, 64, 3, 3), 3e-7)


def test_scale_and_shift_by_hand(tmp_path):
    norm = nn.BatchNorm1d(2, eps=0.75)
    with torch.no_grad():
        norm.weight.copy_(torch.tensor([3.0, -1.0]))
        norm.bias.copy_(torch.tensor([0.5, 0.0]))
        norm.running_mean.copy_(torch.tensor([2.0, 1.0]))
        norm.running_var.copy_(torch.tensor([3.25, 0.25]))
    write(tmp_path / "norm", norm)
    with safe_open(tmp_path / "norm", framework="np") as file:
        assert file.get_tensor("norm/").tolist() == [[1.5, -1.0], [-2.5, 1.0]]
    tensors = read(tmp_path / "norm")
    assert tensors["weight"].tolist() == [1.5, -1.0]
    assert tensors["bias"].tolist() == [-2.5, 1.0]
    assert tensors["running_var"].tolist() == [0.25, 0.25]


@pytest.mark.parametrize("kind", KINDS)
def test_a_registered_network_is_rebuilt(tmp_path, kind):
    options = {"mean": [0.3], "std": [0.2], "last_batch_norm": True, "num_classes": 7}
    model = thinned(lively(build("digits-cnn", **options)), 0.1, binary=kind == "signs")
    write(tmp_path / "net", model, kind=kind, network=Network(name="digits-cnn", options=options))
    found = rebuild(tmp_path / "net")
    assert not found.training
    for target, original in zip(targets(found), targets(model), strict=True):
        assert ((target.weight != 0) <= (original.weight != 0)).all()
        largest = original.weight.abs().flatten(1).max(1).values
        error = (target.weight - original.weight).abs().flatten(1).max(1).values
        assert (error <= largest * {"float32": 0, "float16": 2**-11, "int8": 0.501 / 127, "signs": 0}[kind]).all()
    tolerance = {"float32": 1e-6, "float16": 1e-2, "int8": 1e-1, "signs": 1e-6}[kind]
    same_logits(model, found, torch.rand(4, 1, 8, 8), tolerance)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    shape=st.lists(st.integers(1, 6), min_size=2, max_size=4),
    density=st.floats(0, 1),
    kind=st.sampled_from(KINDS),
    seed=st.integers(0, 2**31),
)
def test_any_layer_at_any_density_comes_back(tmp_path, shape, density, kind, seed):
    torch.manual_seed(seed)
    layer = nn.Linear(1, 1, bias=False)
    layer.weight = nn.Parameter((torch.rand(shape) < density) * torch.randn(shape).sign() * 0.75)
    write(tmp_path / "layer", layer, kind=kind)
    found = read(tmp_path / "layer")["weight"]
    assert found.shape == layer.weight.shape
    # Of one magnitude, weights in int8 are off by what their scale is.
    torch.testing.assert_close(found, layer.weight.detach(), rtol=2**-11 if kind == "int8" else 1e-6, atol=0)


def test_shared_modules_and_channels_last_come_back(tmp_path):
    conv = nn.Conv2d(4, 4, 3, padding=1)
    model = thinned(nn.Sequential(conv, nn.ReLU(), conv), 0.3).to(memory_format=torch.channels_last)
    write(tmp_path / "net", model)
    other = nn.Conv2d(4, 4, 3, padding=1)
    same_logits(model, load(tmp_path / "net", nn.Sequential(other, nn.ReLU(), other)), torch.rand(1, 4, 5, 5), 1e-6)


class Halved(nn.Module):
    def forward(self, weight):
        return weight / 2


def test_parametrizations_are_folded_and_fresh_noise_is_refused(tmp_path):
    model = nn.Linear(4, 3)
    plain = model.weight.detach().clone()
    parametrize.register_parametrization(model, "weight", Halved())
    write(tmp_path / "net", model)
    assert torch.equal(read(tmp_path / "net")["weight"], plain / 2)
    assert parametrize.is_parametrized(model)
    noisy = nn.Sequential(nn.Linear(4, 3))
    parametrize.register_parametrization(noisy[0], "weight", WeightNoise(torch.ones(1)))
    with pytest.raises(ConfigError, match=r"export: 0: .*WeightNoise, which draws anew"):
        write(tmp_path / "net", noisy)


# Sizes


def test_resnet18_at_99_percent_is_small(tmp_path):
    model = thinned(lively(build("resnet18")), 0.01)
    for kind, limit in (("float32", 0.7e6), ("float16", 0.45e6), ("int8", 0.35e6), ("signs", 0.25e6)):
        if kind == "signs":
            thinned(model, 1.0, binary=True)
        write(tmp_path / "net", model, kind=kind)
        found = about(tmp_path / "net")
        assert found.total == (tmp_path / "net").stat().st_size <= limit
        assert sum(found.sizes.values()) > 0.9 * found.total


@pytest.mark.parametrize("kind", ["float32", "float16", "int8"])
def test_a_weight_without_zeros_is_stored_whole(tmp_path, kind):
    layer = nn.Linear(100, 100, bias=False)
    write(tmp_path / "layer", layer, kind=kind)
    found = about(tmp_path / "layer")
    assert found.sizes["positions"] == 0
    assert found.header.layers["weight"].coding == "all"
    assert found.sizes["values"] == 10_000 * {"float32": 4, "float16": 2, "int8": 1}[kind]


# What cannot be written or read


def test_what_cannot_be_stored_is_refused_before_a_file_is_there(tmp_path):
    path = tmp_path / "net"
    with pytest.raises(ConfigError, match="kind of values"):
        write(path, nn.Linear(2, 2), kind="int4")
    with pytest.raises(DataError, match=r"weights of 0\.weight: .*several"):
        write(path, nn.Sequential(nn.Linear(2, 2)), kind="signs")
    with pytest.raises(ConfigError, match="network"):
        write(path, nn.Linear(2, 2), network=Network(name="x", options={"a": object()}))
    broken = nn.Linear(2, 2)
    nn.init.constant_(broken.bias, math.nan)
    with pytest.raises(DataError, match="tensor bias: expected finite"):
        write(path, broken)
    complicated = nn.Linear(2, 2)
    complicated.register_buffer("phases", torch.zeros(2, dtype=torch.complex64))
    with pytest.raises(DataError, match=r"tensor phases: .*complex64"):
        write(path, complicated)
    assert not path.exists()


def test_another_module_is_refused_before_it_changes(tmp_path):
    path = tmp_path / "net"
    write(path, thinned(several(), 0.1))
    with pytest.raises(DataError, match=r"expected 0\.bias of shape none at all, got \(8,\)"):
        load(path, nn.Linear(3, 3))
    other = several()
    other[1].eps = 1e-5
    before = other[0].weight.detach().clone()
    with pytest.raises(DataError, match=r"batch norm 1: expected a module with eps 0\.37, got 1e-05"):
        load(path, other)
    assert torch.equal(other[0].weight, before)
    with pytest.raises(DataError, match="the name of a network"):
        rebuild(path)


def test_a_file_that_expands_too_far_is_refused(tmp_path):
    write(tmp_path / "net", thinned(nn.Linear(100, 100), 0.0))
    assert not read(tmp_path / "net", most_numbers=10_000)["weight"].any()
    with pytest.raises(DataError, match="at most 9,999 weights, got 10,000"):
        read(tmp_path / "net", most_numbers=9999)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"name": "no-such-network"}, "a known network"),
        ({"options": {"num_classes": 11}}, r"expected fc\.\w+ of shape \(11"),
        ({"options": {"num_classes": 10**12}}, "a network of at most"),
        ({"options": {"num_classes": 10**30}}, "it names"),
        ({"options": {"num_classes": "ten"}}, "a valid integer"),
        ({"options": {"depth": 3}}, "an option it takes"),
        ({"form": "unheard-of"}, "a form among"),
    ],
)
def test_a_network_that_cannot_be_rebuilt_gives_one_error(tmp_path, change, said):
    path = tmp_path / "net"
    network = Network(**{"name": "digits-cnn", **change})
    write(path, lively(build("digits-cnn")), network=network)
    with pytest.raises(DataError, match=said):
        rebuild(path)


def test_a_network_of_other_shapes_is_refused_before_it_takes_memory(tmp_path, monkeypatch):
    path, devices = tmp_path / "net", []
    write(path, lively(build("digits-cnn")), network=Network(name="digits-cnn", options={"width": 20.0}))
    monkeypatch.setattr(
        sparse_file,
        "build",
        lambda *name, **options: (devices.append(torch.empty(0).device.type), build(*name, **options))[1],
    )
    with pytest.raises(DataError, match=r"of shape \(640"):
        rebuild(path)
    assert devices == ["meta"]


def test_missing_foreign_and_future_files_are_refused(tmp_path):
    with pytest.raises(DataError, match="no file"):
        read(tmp_path / "none")
    with pytest.raises(DataError, match="no file"):
        read(tmp_path)
    path = tmp_path / "net"
    path.write_bytes(save({"weight": np.zeros(3, np.float32)}))
    with pytest.raises(DataError, match="a file of the format gossamer-sparse, got 'none'"):
        read(path)
    write(path, nn.Linear(2, 2))
    texts, arrays = opened(path)
    path.write_bytes(save(arrays, {**texts, "version": "2"}))
    with pytest.raises(DataError, match="expected version 1 of the format, got '2'"):
        read(path)
    path.write_bytes(save(arrays, {**texts, "author": "me"}))
    with pytest.raises(DataError, match="about, format, sha256, version and no more"):
        read(path)
    arrays["dense/bias"][0] += 1
    path.write_bytes(save(arrays, texts))
    with pytest.raises(DataError, match="content of SHA-256"):
        read(path)


# Damaged and malicious files


def opened(path):
    with safe_open(path, framework="np") as file:
        return dict(file.metadata()), {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118


def signed(about_text, arrays):
    """Return a file whose checksum is right, whatever it says: what an attacker would make."""
    texts = {"format": sparse_header.FORMAT, "version": sparse_header.VERSION, "about": about_text}
    return save(arrays, {**texts, "sha256": sparse_header.digest(texts, arrays)})


SMALL_LIMIT = 20_000


def small_files(folder: Path) -> list[bytes]:
    files = []
    for kind, density in (("float32", 0.1), ("int8", 0.5), ("signs", 0.9), ("float16", 0.03)):
        torch.manual_seed(5)
        model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.Flatten(), nn.Linear(32, 10))
        write(folder / kind, thinned(lively(model), density, binary=kind == "signs"), kind=kind)
        files.append((folder / kind).read_bytes())
    return files


SIZES = (-(2**63), -1, 0, 1, 2, 7, 255, 2**16, 2**31 - 1, 2**31, 2**32, 2**40, 2**63 - 1, 2**63, 2**64, 10**400)
STRANGE = (None, True, "", "gaps", "all", "bitmap", "gaps-of-zeros", "int8", "signs", 0.5, -0.0, [], {}, [3], [[[[]]]])


def damaged_bytes(data: bytes, draw: np.random.Generator) -> bytes:
    """Cut off, flip bits, overwrite, insert, remove, or declare another length of the header."""
    changed = bytearray(data)
    place = int(draw.integers(len(data)))
    # Half of all damage strikes the header, where the file says what it is.
    if draw.random() < 0.5:
        place %= 8 + int.from_bytes(data[:8], "little")
    match draw.integers(6):
        case 0:
            return data[:place]
        case 1:
            changed[place] ^= 1 << int(draw.integers(8))
        case 2:
            changed[place : place + int(draw.integers(1, 9))] = draw.bytes(int(draw.integers(1, 9)))
        case 3:
            changed[place:place] = draw.bytes(int(draw.integers(1, 20)))
        case 4:
            del changed[place : place + int(draw.integers(1, 20))]
        case _:
            sizes = [size for size in SIZES if 0 <= size < 2**64]
            changed[:8] = int(draw.choice(np.array(sizes, dtype=object))).to_bytes(8, "little")
    return bytes(changed)


def forged(texts, arrays, draw: np.random.Generator) -> bytes:
    """Change the header's values, or the bytes, length, type or name of a tensor, and sign the file again."""
    arrays = {name: array.copy() for name, array in arrays.items()}
    header = json.loads(texts["about"])
    for _ in range(int(draw.choice([1, 1, 1, 2, 3]))):
        if draw.random() < 0.5:
            change_value(header, draw)
        else:
            change_array(arrays, draw)
    return signed(json.dumps(header), arrays)


def change_value(header, draw):
    places = list(leaves(header))
    parent, key = places[int(draw.integers(len(places)))]
    value = parent[key]
    match draw.integers(5):
        case 0 if isinstance(value, int):
            parent[key] = value + int(draw.integers(-3, 4))
        case 1:
            parent[key] = SIZES[int(draw.integers(len(SIZES)))]
        case 2:
            parent[key] = STRANGE[int(draw.integers(len(STRANGE)))]
        case 3 if isinstance(parent, dict):
            del parent[key]
        case _ if isinstance(parent, dict):
            parent[f"{key}{draw.integers(3)}"] = parent[key]
        case _:
            parent[key : key + 1] = [*parent[key : key + 1]] * int(draw.integers(4))


def leaves(value):
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in items:
        yield value, key
        yield from leaves(inner)


def change_array(arrays, draw):
    name = sorted(arrays)[int(draw.integers(len(arrays)))]
    array = arrays[name]
    raw = bytearray(array.tobytes())
    match draw.integers(10):
        case 0 | 1 | 2 | 3 | 4 | 5 if raw:
            for _ in range(int(draw.integers(1, 5))):
                raw[int(draw.integers(len(raw)))] ^= 1 << int(draw.integers(8))
            arrays[name] = np.frombuffer(bytes(raw), array.dtype).reshape(array.shape)
        case 6:
            arrays[name] = array.reshape(-1)[: int(draw.integers(array.size + 1))]
        case 7:
            arrays[name] = np.concatenate([array.reshape(-1)] * int(draw.integers(2, 4)))
        case 8:
            arrays[name] = array.astype(draw.choice(np.array(["u1", "i1", "f2", "f4", "f8", "i8", "?", "u8"])))
        case _:
            arrays[f"{draw.choice(np.array(['dense', 'values', 'positions', '']))}/{draw.integers(3)}"] = arrays.pop(
                name
            )


def sound(path):
    """Read a file to tensors of what its header declares, or to an error that says so."""
    try:
        tensors = read(path, most_numbers=SMALL_LIMIT)
    except DataError:
        return None
    layers = about(path).header.layers
    for name, layer in layers.items():
        assert tuple(tensors[name].shape) == layer.shape
        assert torch.isfinite(tensors[name]).all()
    return tensors


def equal(first, second):
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


def fuzz(folder: Path, first: int, cases: int) -> dict[str, int]:
    """Return how many damaged and forged files were read, and how many refused; cases are drawn by their number."""
    files = small_files(folder)
    parts, originals = [], []
    path = folder / "case"
    for data in files:
        path.write_bytes(data)
        parts.append(opened(path))
        originals.append(read(path))
    counts = {"damaged, read": 0, "damaged, refused": 0, "forged, read": 0, "forged, refused": 0}
    for case in range(first, first + cases):
        draw = np.random.default_rng(case)
        which = case % len(files)
        path.unlink()
        forge = draw.random() < 0.5
        with np.errstate(all="ignore"):
            path.write_bytes(forged(*parts[which], draw) if forge else damaged_bytes(files[which], draw))
        tensors = sound(path)
        assert forge or tensors is None or equal(tensors, originals[which]), case
        counts[f"{'forged' if forge else 'damaged'}, {'refused' if tensors is None else 'read'}"] += 1
    return counts


def test_3000_damaged_and_forged_files_are_read_soundly_or_refused(tmp_path):
    counts = fuzz(tmp_path, 0, 3000)
    assert counts["damaged, refused"] > 1200
    assert counts["forged, refused"] > 900
    assert counts["forged, read"] > 50


@pytest.mark.long
def test_100000_damaged_and_forged_files_are_read_soundly_or_refused(tmp_path):
    fuzz(tmp_path, 1_000_000, 100_000)


def fuzz_network(folder: Path, first: int, cases: int) -> dict[str, int]:
    """Return how many files that name forged networks were rebuilt, and how many refused."""
    path = folder / "net"
    write(path, lively(build("digits-cnn")), network=Network(name="digits-cnn", options={"num_classes": 10}))
    texts, arrays = opened(path)
    counts = {"rebuilt": 0, "refused": 0}
    for case in range(first, first + cases):
        draw = np.random.default_rng(case)
        header = json.loads(texts["about"])
        if draw.random() < 0.5:
            name = str(draw.choice(sorted(MODELS)))
            value = [*SIZES, *STRANGE, 3, 16.5, [10**9]][int(draw.integers(len(SIZES) + len(STRANGE) + 3))]
            header["network"]["name"] = name
            header["network"]["options"] = {str(draw.choice([*MODELS[name].options, "other"])): value}
        elif draw.random() < 0.3:
            header["network"]["form"] = str(draw.choice([*FORMS, "liquid"]))
            header["network"]["options"]["width"] = float(draw.choice([0.01, 0.5, 1.0, 2.0]))
        else:
            change_value(header["network"], draw)
        path.write_bytes(signed(json.dumps(header), arrays))
        counts[rebuilt(path)] += 1
    return counts


@pytest.mark.parametrize("form", [form for form in [*FORMS, "liquid"] if form not in PLAIN])
def test_a_form_that_no_sparse_file_has_is_refused(tmp_path, form):
    path = tmp_path / "net"
    options = {"num_classes": 2, "width": 0.016}
    write(path, build("digits-cnn", **options), network=Network(name="digits-cnn", options=options, form=form))
    with pytest.raises(DataError, match="a form among dense, slim, factorised"):
        rebuild(path)


def test_a_slim_file_holds_no_tensor_that_its_network_has_not_or_has_smaller(tmp_path):
    path = tmp_path / "net"
    options = {"num_classes": 10, "width": 0.5}
    write(path, build("digits-cnn"), network=Network(name="digits-cnn", options=options, form=SLIM))
    with pytest.raises(DataError, match="within"):
        rebuild(path)
    write(path, build("digits-cnn", **options), network=Network(name="digits-cnn", form=SLIM))
    assert next(rebuild(path).parameters()).shape == next(build("digits-cnn", **options).parameters()).shape
    write(path, nn.Linear(3, 2), network=Network(name="digits-cnn", form=SLIM))
    with pytest.raises(DataError, match="tensors differ"):
        rebuild(path)


def rebuilt(path: Path) -> str:
    """Rebuild a network that computes, or get an error that says what is wrong."""
    try:
        network = rebuild(path)
    except DataError:
        return "refused"
    assert network(torch.rand(1, 1, 8, 8)).shape == (1, 10)
    return "rebuilt"


def test_150_forged_networks_are_rebuilt_or_refused(tmp_path):
    counts = fuzz_network(tmp_path, 0, 150)
    assert counts["refused"] > 100
    assert counts["rebuilt"] > 3


@pytest.mark.long
def test_20000_forged_networks_are_rebuilt_or_refused(tmp_path):
    fuzz_network(tmp_path, 1_000_000, 20_000)


def test_600_forged_records_open_or_are_refused(tmp_path):
    """Of a record nothing is believed that the file beside it does not bear out."""
    path = export(small(), images(2), "sparse", tmp_path / "net").path
    record = about_path(path).read_text()
    counts = {"opened": 0, "refused": 0}
    for case in range(600):
        draw = np.random.default_rng(case)
        if draw.random() < 0.2:
            about_path(path).write_bytes(damaged_bytes(record.encode(), draw))
        else:
            forged_record = json.loads(record)
            change_value(forged_record, draw)
            about_path(path).write_text(json.dumps(forged_record))
        try:
            artifact = open_artifact(path, module=small())
        except DataError:
            counts["refused"] += 1
        else:
            counts["opened"] += 1
            assert artifact.bytes == path.stat().st_size
    assert counts["refused"] > 300
    assert counts["opened"] > 15


@pytest.mark.parametrize("size", [size for size in SIZES if size > 2**15])
@pytest.mark.parametrize("field", ["shape", "count", "parameter", "features"])
def test_a_declared_size_takes_no_memory_before_it_is_checked(tmp_path, size, field):
    path = tmp_path / "net"
    data = small_files(tmp_path)[0]
    path.write_bytes(data)
    texts, arrays = opened(path)
    header = json.loads(texts["about"])
    layer = header["layers"]["3.weight"]
    if field == "features":
        header["norms"]["1"]["features"] = size
    else:
        layer[field] = [size, 1] if field == "shape" else size
    arrays["positions/3.weight"] = arrays["positions/3.weight"][:0]
    path.write_bytes(signed(json.dumps(header), arrays))
    tracemalloc.start()
    try:
        with pytest.raises(DataError):
            read(path)
        assert tracemalloc.get_traced_memory()[1] < 2_000_000
    finally:
        tracemalloc.stop()


def test_what_a_file_expands_to_bounds_the_memory_of_reading(tmp_path):
    write(tmp_path / "net", thinned(nn.Linear(1000, 1000, bias=False), 0.1))
    tracemalloc.start()
    try:
        read(tmp_path / "net")
        # The weights, their codes, the mask, positions and bits, and the file.
        assert tracemalloc.get_traced_memory()[1] < 20_000_000
    finally:
        tracemalloc.stop()


def test_a_header_nested_without_end_is_refused(tmp_path):
    path = tmp_path / "net"
    path.write_bytes(small_files(tmp_path)[0])
    texts, arrays = opened(path)
    deep = "[" * 100_000 + "]" * 100_000
    for text in (deep, texts["about"].replace('"network":null', f'"network":{{"name":"a","options":{{"b":{deep}}}}}')):
        path.write_bytes(signed(text, arrays))
        with pytest.raises(DataError):
            read(path)


@pytest.mark.parametrize("part", ["layers", "norms", "options"])
def test_a_header_broad_without_end_is_refused_before_it_is_read(tmp_path, part):
    path = tmp_path / "net"
    path.write_bytes(small_files(tmp_path)[0])
    texts, arrays = opened(path)
    header = json.loads(texts["about"])
    many = {f"{number:x}": header["norms"]["1"] for number in range(150_000)}
    if part == "options":
        header["network"] = {"name": "a", "options": {"b": [0] * 1_500_000}}
    else:
        header[part] |= many
    text = json.dumps(header)
    path.write_bytes(signed(text, arrays))
    del header, many
    tracemalloc.start()
    try:
        with pytest.raises(DataError, match="a header of at most 4,194,304 characters, got"):
            read(path)
        assert tracemalloc.get_traced_memory()[1] < 3 * len(text)
    finally:
        tracemalloc.stop()


def test_the_room_of_names_is_checked(tmp_path):
    path = tmp_path / "net"
    path.write_bytes(small_files(tmp_path)[0])
    texts, arrays = opened(path)
    path.write_bytes(signed(texts["about"], {**arrays, "dense/1.weight": np.zeros(8, np.float32)}))
    with pytest.raises(DataError, match="each tensor of the network once"):
        sparse_file.read(path)
    path.write_bytes(signed(texts["about"], {**arrays, "other/1": np.zeros(8, np.float32)}))
    with pytest.raises(DataError, match="the tensors that its header names, got other/1"):
        sparse_file.read(path)
    path.write_bytes(signed(texts["about"], {**arrays, "dense/doubles": np.zeros(8, np.float64)}))
    with pytest.raises(DataError, match="numbers of type"):
        sparse_file.read(path)
