"""Where does each thing of a run lie? The paths of the run folder."""

import re
from dataclasses import dataclass
from pathlib import Path

from gossamer.errors import RunError
from gossamer.runs import atomic

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:+@=-]*")


@dataclass(frozen=True)
class RunFolder:
    """The folder of one run. `recipe.yaml` is what makes a folder a run, so it is written last at the start."""

    path: Path

    @classmethod
    def create(cls, path: Path | str) -> "RunFolder":
        """Make the folder of a new run; a folder that a killed start left without its recipe is taken over.

        Raises RunError where the path holds a run already, or anything foreign.
        """
        run = cls(Path(path))
        if run.recipe.exists():
            raise RunError(
                f"run folder {run.path}",
                expected="a new or empty folder",
                got="a folder that holds a run",
                remedy="resume that run, or name another folder",
            )
        if run.last.exists():
            raise RunError(
                f"run folder {run.path}",
                expected="a new or empty folder",
                got="checkpoints without the recipe they belong to",
                remedy="put recipe.yaml back, or name another folder",
            )
        if run.path.exists() and not run.path.is_dir():
            raise RunError(
                f"run folder {run.path}",
                expected="a new or empty folder",
                got="a file",
                remedy="name another folder",
            )
        foreign = run._foreign()
        if foreign:
            raise RunError(
                f"run folder {run.path}",
                expected="a new or empty folder",
                got=f"a folder with {', '.join(foreign[:5])}",
                remedy="name another folder",
            )
        atomic.make_directory(run.path)
        return run

    @classmethod
    def open(cls, path: Path | str) -> "RunFolder":
        """Return the run folder at `path`; raises RunError if it is none."""
        run = cls(Path(path))
        if not run.recipe.is_file():
            raise RunError(
                f"run folder {run.path}",
                expected="a folder with a recipe.yaml",
                got="a folder without one" if run.path.is_dir() else "no folder",
                remedy="give the folder that `gossamer train` made and printed",
            )
        return run

    @property
    def name(self) -> str:
        """The run's name: that of its folder."""
        return self.path.resolve().name

    @property
    def begun(self) -> bool:
        """Whether anything of a run lies here, its recipe or what is written after it."""
        return any(path.exists() for path in (self.recipe, self.env, self.status, self.metrics, self.results))

    @property
    def recipe(self) -> Path:
        """The recipe as trained, every value written out."""
        return self.path / "recipe.yaml"

    @property
    def env(self) -> Path:
        """The machine and the versions that trained."""
        return self.path / "env.json"

    @property
    def measured(self) -> Path:
        """What was measured once and decides from then on, such as the time a layer takes."""
        return self.path / "measured.json"

    @property
    def status(self) -> Path:
        """Where the run stands."""
        return self.path / "status.json"

    @property
    def metrics(self) -> Path:
        """One line an epoch."""
        return self.path / "metrics.jsonl"

    @property
    def last(self) -> Path:
        """Which checkpoint counts."""
        return self.path / "last.json"

    @property
    def lock(self) -> Path:
        """The file whose lock the one writer holds."""
        return self.path / "lock"

    @property
    def checkpoints(self) -> Path:
        """One directory a checkpoint."""
        return self.path / "checkpoints"

    @property
    def results(self) -> Path:
        """Evaluations and the network's layers, as JSON."""
        return self.path / "results"

    @property
    def artifacts(self) -> Path:
        """What the run was exported to."""
        return self.path / "artifacts"

    @property
    def partial(self) -> Path:
        """One directory an evaluation that has not finished."""
        return self.path / "partial"

    @property
    def panel(self) -> Path:
        """Pictures: clean, perturbed, and over rising eps."""
        return self.path / "panel"

    @property
    def trackers(self) -> Path:
        """What trackers of experiments keep, and how far each has followed the run."""
        return self.path / "trackers"

    @property
    def states(self) -> Path:
        """The named states that finished phases gave."""
        return self.path / "states"

    def state(self, name: str) -> Path:
        """The file of one named state, such as "end" or "epoch:8"."""
        return self.states / f"{checked_name(name)}.safetensors"

    def tracker(self, name: str) -> Path:
        """The file that says how far one tracker has followed the run."""
        return self.trackers / f"{checked_name(name)}.json"

    def result(self, name: str) -> Path:
        """The file of one result, such as "network"."""
        return self.results / f"{checked_name(name)}.json"

    def _foreign(self) -> list[str]:
        known = {
            self.recipe,
            self.env,
            self.measured,
            self.status,
            self.metrics,
            self.last,
            self.lock,
            self.checkpoints,
            self.results,
            self.artifacts,
            self.partial,
            self.panel,
            self.states,
            self.trackers,
        }
        found = self.path.iterdir() if self.path.is_dir() else ()
        return sorted(p.name for p in found if p not in known and not atomic.is_temporary(p))


def checked_name(name: str) -> str:
    """Return `name` if it can name a file in a run folder; raises RunError if not."""
    if not _NAME.fullmatch(name):
        raise RunError(
            "name of a file in the run folder",
            expected="letters, digits and . _ : + @ = -, starting with a letter or digit",
            got=repr(name),
            remedy="choose another name",
        )
    return name
