"""How is a converted checkpoint kept? As plain tensors in one file, or as a folder that loads as published ones do."""

from pathlib import Path

from gossamer.data import DATASETS
from gossamer.deploy.published import CARD, WEIGHTS, Images, Manifest, Storage, seal
from gossamer.deploy.sparse_header import Network
from gossamer.errors import ConfigError
from gossamer.models.registry import MODELS
from gossamer.runs import atomic
from gossamer.sparsity.forms import DENSE
from gossamer.zoo.card import files_of, front_matter, loading
from gossamer.zoo.convert import Converted
from gossamer.zoo.folders import check_place, written_whole
from gossamer.zoo.weights import write_weights

SUFFIX = ".safetensors"


def check_target(target: Path, *, force: bool) -> None:
    """Raise ConfigError where a converted network could not be written to a path."""
    if target.suffix != SUFFIX:
        check_place(target, force=force)
    elif target.exists() and not force:
        raise ConfigError(str(target), expected="a new file", got="one that is there", remedy="replace it with --force")


def write_converted(
    converted: Converted,
    target: Path,
    *,
    checkpoint: Path,
    license: str | None = None,  # noqa: A002
    data: Images | None = None,
    measured: str | None = None,
    force: bool = False,
) -> None:
    """Write a converted network, atomically: a .safetensors file of plain tensors, or a folder for `gossamer.load`.

    checkpoint: where it came from, whose digest the folder names; data: the images it classifies, where they are
    known; measured: its clean accuracy in words. Raises ConfigError for a place that is taken.
    """
    check_target(target, force=force)
    if target.suffix == SUFFIX:
        atomic.write_safetensors(target, converted.module.state_dict(), {"format": "pt"})
        return
    network = Network(name=converted.name, options=dict(converted.options), form=DENSE)
    source = f"Converted from {checkpoint.name}, SHA-256 {atomic.sha256(checkpoint)}, of the layout {converted.layout}."
    clean = f"Measured when it was converted: {measured}." if measured else "No accuracy was measured."
    with written_whole(target, force=force) as filled:
        stored = write_weights(filled / WEIGHTS, converted.module, converted.module.state_dict(), network, "auto")
        sealed = seal(filled, _manifest(converted, network, stored, target.name, data, (source, clean)))
        atomic.write_text(filled / CARD, _card(sealed, converted, license))


def _manifest(
    converted: Converted, network: Network, stored: Storage, name: str, data: Images | None, remarks: tuple[str, ...]
) -> Manifest:
    size, channels = int(converted.options["image_size"]), int(converted.options["in_channels"])
    return Manifest(
        name=name or "converted",
        network=network,
        storage=stored,
        kind="same-keys",
        image_shape=(channels, size, size),
        classes=int(converted.options["num_classes"]),
        data=data,
        dense_weights=converted.weights,
        nonzero=converted.nonzero,
        density=converted.nonzero / converted.weights,
        remarks=(*remarks, *converted.notes),
    )


def _card(manifest: Manifest, converted: Converted, license: str | None) -> str:  # noqa: A002
    matter = {"license": license} if license else {}
    tags = {"tags": ["gossamer", "adversarial-robustness", "image-classification", converted.name]}
    named = {"datasets": [manifest.data.name]} if manifest.data and manifest.data.name in DATASETS else {}
    reference = f"The network: {MODELS[converted.name].description} ({MODELS[converted.name].reference})."
    kept = f"{manifest.nonzero:,} of {manifest.dense_weights:,} weights are not zero ({manifest.density:.2%})."
    parts = [
        front_matter({**matter, "library_name": "gossamer", "pipeline_tag": "image-classification", **tags, **named}),
        f"# {manifest.name}",
        f"{reference} {kept} Its weights were trained by others: cite them, and keep to their license.",
        "\n".join(["## Where it comes from", "", *(f"- {remark}" for remark in manifest.remarks)]),
        "**No robust accuracy was measured here**: `gossamer evaluate . --data cifar10 --threat linf:8/255`, say.",
        loading(manifest),
        files_of(manifest),
    ]
    return "\n\n".join(parts) + "\n"
