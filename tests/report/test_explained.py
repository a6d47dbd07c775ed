"""Maps of several runs side by side: the same images, honest colours, and no more than a page has room for."""

import base64
import io
import re

import numpy as np
import pytest
import torch
from made_looks import looks
from PIL import Image

from gossamer import write_report
from gossamer.report.explanations import explained
from gossamer.report.views import collect
from gossamer.runs import explanations, results


def sections(runs):
    views = collect([run.path for run in runs])
    return explained(views, {view.name: i for i, view in enumerate(views)}, {view.name: view.name for view in views})


def pixels(source):
    kind, _, packed = source.partition(",")
    assert kind == "data:image/png;base64"
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(packed))).convert("RGB")).astype(int)


def test_what_was_not_explained_has_no_section(short, tmp_path):
    runs = [short("sparse", "bcs", 0.1), short("dense")]
    assert sections(runs) == []
    page = write_report([run.path for run in runs], tmp_path / "page.html").read_text()
    assert "Grad-CAM</b>" not in page
    assert '<form class="beside"' not in page


def test_a_gradient_is_drawn_from_blue_over_white_to_vermilion(short):
    run = short("sparse", "bcs", 0.1)
    explanations.write(run, looks())
    (section,) = sections([run])
    clean, attacked = section.columns[0].looks[0]
    drawn = pixels(clean.gradient.source)
    assert drawn.shape == (8, 8, 3)
    assert drawn[0, 0].tolist() == [0, 61, 107]
    assert drawn[-1, -1].tolist() == [122, 48, 0]
    lightness = drawn @ np.array([0.299, 0.587, 0.114])
    # The same magnitude is as light with either sign, and nothing is white.
    assert np.abs(lightness.ravel() - lightness.ravel()[::-1]).max() < 40
    assert lightness.ravel()[[31, 32]].min() > 245
    assert clean.gradient.full == "±1"
    assert (pixels(attacked.gradient.source) == 255).all()
    assert attacked.gradient.full == "0"


def test_grad_cam_darkens_and_every_map_has_its_own_scale(short):
    run = short("sparse", "bcs", 0.1)
    explanations.write(run, looks())
    clean, attacked = sections([run])[0].columns[0].looks[0]
    assert clean.cam.source == attacked.cam.source
    assert (clean.cam.full, attacked.cam.full) == ("0.0099", "0.99")
    lightness = pixels(clean.cam.source).sum(axis=2).ravel()
    assert lightness[0] == 3 * 255
    assert (np.diff(lightness) <= 0).all()


def test_one_hot_pixel_neither_hides_the_others_nor_itself(short):
    run = short("sparse", "bcs", 0.1)
    made = looks(1, size=32)
    made.clean_gradients[:] = 0.1
    made.clean_gradients[0, 3, 4] = 1000.0
    made.adversarial_gradients[0, 3, 4] = -5.0
    explanations.write(run, made)
    clean, attacked = sections([run])[0].columns[0].looks[0]
    assert clean.gradient.full == "±0.1"
    assert (pixels(clean.gradient.source) == [122, 48, 0]).all()
    assert attacked.gradient.full == "±5"
    assert pixels(attacked.gradient.source)[3, 4].tolist() == [0, 61, 107]


def test_the_same_images_stand_in_one_row(short, tmp_path):
    sparse, dense = short("sparse", "bcs", 0.1), short("dense")
    explanations.write(sparse, looks(3, index=(4, 0, 7)))
    explanations.write(dense, looks(2, index=(7, 4), cams=False, threat="linf:0.3"))
    (section,) = sections([sparse, dense])
    assert [(label, index) for _, label, index in section.images] == [("zero", 4), ("one", 0), ("<two>", 7)]
    assert [each.name for each in section.columns] == ["sparse", "dense"]
    assert [pair is None for pair in section.columns[1].looks] == [False, True, False]
    assert section.facts == ["synthetic-digits test: chosen"]
    assert section.columns[0].facts == ["white box: PGD-20, linf eps 0.15", "Grad-CAM at conv3"]
    assert "no Grad-CAM: no convolution" in section.columns[1].facts[1]
    clean, attacked = section.columns[0].looks[0]
    assert (clean.image, clean.text, clean.sure, clean.right) == ("", "zero", "97.0 %", True)
    assert (attacked.text, attacked.sure, attacked.right) == ("one", "61.0 %", False)
    assert attacked.image.startswith("data:image/png")
    page = write_report([sparse.path, dense.path], tmp_path / "page.html").read_text()
    assert page.count('<section id="explained-') == 1
    assert "<two>" not in page
    assert page.count("gossamer explain sparse dense") == 1


def test_runs_on_other_data_have_a_section_of_their_own(short):
    digits, other = short("sparse", "bcs", 0.1), short("other", "bcs", 0.2)
    explanations.write(digits, looks())
    elsewhere = results.Dataset(name="squares", part="test", checksum="beef", selection="chosen", n=3)
    explanations.write(other, looks(dataset=elsewhere))
    found = sections([digits, other, short("dense")])
    assert [each.title.rpartition(", ")[2] for each in found] == ["synthetic-digits", "squares"]
    assert [[each.name for each in section.columns] for section in found] == [["sparse"], ["other"]]
    assert found[0].notes == ["1 run of this page without maps: `gossamer explain RUN` makes them."]


def test_at_first_six_are_drawn_and_a_dense_one_among_them(short):
    runs = [short(f"sparse-{i}", "bcs", 0.1, seed=i) for i in range(7)] + [short("dense")]
    for run in runs:
        explanations.write(run, looks())
    (section,) = sections(runs)
    shown = [each.name for each in section.columns if each.shown]
    assert shown == [*(f"sparse-{i}" for i in range(5)), "dense"]


@pytest.mark.parametrize(("runs", "size", "channels", "most"), [(2, 32, 3, 0.35), (2, 224, 3, 2.2), (13, 32, 3, 1.0)])
def test_a_page_stays_small(short, tmp_path, runs, size, channels, most):
    made = [short(f"run-{i}", "bcs", 0.1, seed=i) for i in range(runs)]
    before = write_report([run.path for run in made], tmp_path / "without.html").stat().st_size
    noisy = looks(8, size=size, channels=channels)
    draws = torch.Generator().manual_seed(1)
    for maps in (noisy.clean_gradients, noisy.adversarial_gradients):
        maps.copy_(torch.randn(maps.shape, generator=draws))
    for run in made:
        explanations.write(run, noisy)
    (section,) = sections(made)
    assert len(section.images) == {32: 8 if runs == 2 else 4, 224: 1}[size]
    assert len(section.columns) == runs
    page = write_report([run.path for run in made], tmp_path / "page.html")
    assert page.stat().st_size - before < most * 1e6


def test_a_damaged_file_is_noted_and_the_rest_is_drawn(short, tmp_path):
    run = short("sparse", "bcs", 0.1)
    explanations.path_of(run).write_bytes(b"nothing")
    page = write_report([run.path], tmp_path / "page.html").read_text()
    assert re.search(r"Could not read [^<]*explanations\.safetensors", page)
    assert "robust accuracy" in page
