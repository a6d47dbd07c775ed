import io

import pytest
from rich.console import Console

from gossamer.training.progress import Glance, LiveLine, PlainLines, Silent, duration, epoch_text, progress, step_text

LINE = {
    "phase": "train",
    "epoch": 3,
    "step": 30,
    "loss": 1.23456,
    "clean_accuracy": None,
    "robust_accuracy": 0.4567,
    "density": 0.1,
    "images_per_second": 12345.6,
    "seconds_left": 3725.0,
    "sparsifier/revived": 12.0,
    "held_out/fgsm": 0.25,
    "held_out/pgd": None,
    "held_out/fgsm/loss": 2.34567,
}
EPOCH = (
    "train epoch 3/9  loss 1.235  clean -  robust 45.7 %  density 10.0 %  12,346 images/s  "
    "held_out/fgsm 25.0 %  held_out/fgsm/loss 2.3457  1 h 02 min left"
)
GLANCE = Glance(
    phase="train",
    epoch=1,
    epochs=2,
    index=3,
    steps=4,
    loss=None,
    clean=0.5,
    robust=None,
    density=0.0123,
    images_per_second=10.0,
    seconds_left=61,
)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (-1, "0 s"),
        (0.4, "0 s"),
        (59.4, "59 s"),
        (59.6, "1 min 00 s"),
        (185, "3 min 05 s"),
        (3600, "1 h 00 min"),
        (7_805, "2 h 10 min"),
    ],
)
def test_times_are_written_as_people_read_them(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_the_line_of_an_epoch() -> None:
    assert epoch_text(LINE, 9) == EPOCH


def test_the_line_of_a_step() -> None:
    assert step_text(GLANCE) == (
        "train epoch 1/2  step 3/4  loss -  clean 50.0 %  robust -  density 1.23 %  10 images/s  1 min 01 s left"
    )


def test_plain_lines_where_output_is_no_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    shown = progress()
    assert isinstance(shown, PlainLines)
    with shown:
        assert not shown.due()
        shown.epoch(LINE, 9)
        shown.note("done")
    assert capsys.readouterr().out == f"{EPOCH}\ndone\n"


def test_a_live_line_in_a_terminal() -> None:
    screen = io.StringIO()
    with LiveLine(Console(file=screen, force_terminal=True, width=200), every=0.0) as shown:
        assert shown.due()
        shown.step(GLANCE)
        shown.epoch(LINE, 9)
    assert "step 3/4" in screen.getvalue()
    assert EPOCH in screen.getvalue()
    assert not LiveLine(Console(file=screen), every=1e9).due()


def test_silence(capsys: pytest.CaptureFixture[str]) -> None:
    with Silent() as shown:
        shown.epoch(LINE, 9)
        shown.note("done")
    assert capsys.readouterr().out == ""
