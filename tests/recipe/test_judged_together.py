"""What several processes evaluate after training: whoever looks late still meets the others at every exchange."""

from dataclasses import dataclass, field
from pathlib import Path

import torch

from gossamer.recipe.train import _judge, train
from gossamer.training.devices import Place
from gossamer.training.progress import Silent
from gossamer.training.ranks import Ranks

RECIPE = {
    "name": "few",
    "data": {"name": "digits", "train_n": 40},
    "model": {"name": "digits-cnn"},
    "threat": "linf:0.15",
    "method": {"name": "random", "density": 0.5},
    "training": {"epochs": 1, "batch_size": 20},
    "machine": {"device": "cpu", "threads": 1},
    "evaluation": [{"attack": "fgsm", "n": 1}, {"attack": "fgsm", "n": 1, "eps": [0.1]}],
}


@dataclass(frozen=True, kw_only=True)
class Told(Ranks):
    """One rank of several that are not there: it notes where it would meet them, and hears what the first one said."""

    world: int = 2
    met: list[str] = field(default_factory=list[str])
    said: list[int] = field(default_factory=list[int])

    def any(self, flag: bool) -> bool:
        self.met.append("wait")
        return flag

    def agree(self, code: int) -> int:
        self.met.append("agree")
        if self.first:
            self.said.append(code)
            return code
        return self.said.pop(0)


def test_a_rank_that_looks_after_the_first_one_wrote_meets_it_all_the_same(tmp_path: Path):
    run = train(RECIPE, out=tmp_path / "run")
    for path in run.folder.results.glob("fgsm*"):
        path.unlink()
    first = Told()
    _judge(run, Place(device=torch.device("cpu"), ranks=first), Silent())
    assert len(list(run.folder.results.glob("fgsm*"))) == 2
    late = Told(rank=1, said=list(first.said))
    _judge(run, Place(device=torch.device("cpu"), ranks=late), Silent())
    assert late.met == first.met
    assert late.said == []
