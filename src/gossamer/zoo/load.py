"""How does a published network come back? By its path or its name on the hub, every file verified, no code run."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import nn

from gossamer.data import DataSet
from gossamer.data.registry import check_source
from gossamer.data.registry import load as load_data
from gossamer.deploy.published import OF_A_MACHINE, RECIPE, Manifest, read_manifest, read_weights, verify_files
from gossamer.errors import ConfigError, DataError
from gossamer.recipe.load import read_fields, validate
from gossamer.recipe.schema import Recipe
from gossamer.runs.layout import RunFolder
from gossamer.runs.results import Evaluation, evaluation_files, read_evaluation
from gossamer.sparsity.forms import form
from gossamer.threat import ThreatModel
from gossamer.zoo.hub import Client, fetch, is_hub_name
from gossamer.zoo.weights import rebuild


@dataclass(frozen=True, kw_only=True, eq=False)
class Published:
    """A published network, opened.

    module: in eval mode, from images (N, C, H, W) in [0, 1] to logits; manifest: what it is; path: its folder.
    """

    module: nn.Module = field(repr=False)
    manifest: Manifest
    path: Path

    @property
    def twin(self) -> nn.Module:
        """The noise-free form of the network: itself unless it is stochastic."""
        return form(self.manifest.network.form).twin(self.module)

    @property
    def threat(self) -> ThreatModel | None:
        """What it was trained to withstand, None where that is not known."""
        return None if self.manifest.threat is None else ThreatModel.parse(self.manifest.threat)

    @property
    def recipe(self) -> Recipe | None:
        """The recipe it was trained by, None where it came with none; raises ConfigError for a damaged one."""
        if RECIPE not in self.manifest.files:
            return None
        # A written recipe extends nothing: what another file would add is not what was published.
        return validate(read_fields(self.path / RECIPE, f"{self.path}/{RECIPE}"))

    @property
    def evaluations(self) -> list[Evaluation]:
        """What was measured of it; raises RunError for a damaged record."""
        return [read_evaluation(path) for path in evaluation_files(RunFolder(self.path))]

    def images(self, part: str = "test", data_dir: Path | None = None) -> DataSet:
        """Return a part of the data it was published with; raises ConfigError where it names none."""
        named = self.manifest.data
        if named is None:
            raise ConfigError(
                f"{self.path}",
                expected="the name of a data set",
                got="none",
                remedy="name one: --data cifar10, say",
            )
        options: dict[str, Any] = {key: each for key, each in named.options.items() if key not in OF_A_MACHINE}
        check_source(named.name, options)
        return load_data(named.name, part, data_dir=data_dir, **options)


def load(
    source: Path | str,
    *,
    revision: str | None = None,
    allow_factory: bool = False,
    cache_dir: Path | None = None,
    offline: bool = False,
    client: Client | None = None,
) -> Published:
    """Open a published network by its folder, or by its name "org/name" on the Hugging Face hub.

    A folder of that name goes first. Sizes and digests of all files are checked before anything is made of them;
    nothing is unpickled, and no code is imported that a file names, unless `allow_factory` lets a network of its
    author's own be made by its "package.module:factory". revision: a branch, tag or commit of the hub. cache_dir: of
    the hub's client. offline: ask the cache alone. Raises DataError for files that are missing, changed, too many, or
    of another format, ConfigError for what is neither a folder nor a name, RunError where the hub cannot be reached.
    """
    folder, within = Path(source), None
    if not folder.exists() and is_hub_name(str(source)):
        folder = fetch(str(source), revision=revision, cache_dir=cache_dir, offline=offline, client=client)
        within = _of_cache(folder)
    elif revision is not None:
        raise ConfigError(
            "revision", expected="a name on the hub, org/name", got=f"the path {source}", remedy="leave revision out"
        )
    if not folder.is_dir():
        raise ConfigError(
            str(source),
            expected="a published folder, or a name as org/name",
            got="a file" if folder.exists() else "neither",
            remedy="check the path",
        )
    manifest = read_manifest(folder)
    verify_files(folder, manifest, within=within)
    tensors = read_weights(folder, manifest.storage)
    module = rebuild(manifest.network, tensors, subject=str(folder), allow_factory=allow_factory)
    _check_threat(manifest, folder)
    return Published(module=module, manifest=manifest, path=folder)


def _of_cache(folder: Path) -> Path | None:
    """Return where the hub's cache keeps the files that a snapshot links to, None for any other folder."""
    repository = folder.resolve().parent.parent
    return repository if (repository / "blobs").is_dir() else None


def _check_threat(manifest: Manifest, folder: Path) -> None:
    if manifest.threat is None:
        return
    try:
        ThreatModel.parse(manifest.threat)
    except ConfigError as error:
        raise DataError(
            f"{folder}", expected="a threat as linf:8/255", got=manifest.threat[:80], remedy="publish it again"
        ) from error
