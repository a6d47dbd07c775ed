"""What is measured of several runs together? A question to them, whose answer lies with the first of them."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from gossamer.recipe.load import run_name
from gossamer.recipe.protocols import Question
from gossamer.runs import RunFolder
from gossamer.sweep.spec import Case
from gossamer.sweep.store import Store

_DIGITS = 12


@dataclass(frozen=True, kw_only=True)
class Measurement:
    """A question, and the cases whose runs it is put to, in order.

    Two of one question to the same runs are one, by their name; runs are named after their recipes.
    """

    question: Question
    cases: Sequence[Case]

    @property
    def runs(self) -> tuple[str, ...]:
        """The names of the runs, each once."""
        return tuple(dict.fromkeys(run_name(case.recipe) for case in self.cases))

    @property
    def name(self) -> str:
        """What tells it from others: the protocol, and a hash of what is asked of which runs."""
        said = json.dumps([self.question.model_dump(mode="json"), self.runs], sort_keys=True)
        return f"{self.question.name}-{hashlib.sha256(said.encode()).hexdigest()[:_DIGITS]}"

    def is_current(self, store: Store) -> bool:
        """Tell whether the answer is of the runs that are there, and the versions of now would make these.

        Also where no sweep made any of it, as in a folder that holds copies.
        """
        if not all(store.is_current(case.recipe) for case in self.cases):
            return False
        answer, runs = store.standing(self.name), {name: store.standing(name) for name in self.runs}
        if answer is None:
            return not any(runs.values())
        made_of = {name: standing and standing.get("made_of") for name, standing in runs.items()}
        return answer["done"] and answer.get("made_of") == made_of

    def record(self, root: Path) -> Path:
        """Return where the answer lies in a folder that is a sweep's store."""
        return record_of(RunFolder(root / "runs" / self.runs[0]), self.name)


def record_of(first: RunFolder, name: str) -> Path:
    """Return the file of a measurement in the folder of its first run, where `gossamer protocol` keeps its own."""
    return first.result(f"protocol-{name}")
