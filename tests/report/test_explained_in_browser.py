"""Maps in a real browser: which runs stand side by side is chosen, from the run's folder to the page."""

import shutil

import pytest
from made_looks import looks

from gossamer import write_report
from gossamer.cli.main import main
from gossamer.recipe.train import train
from gossamer.runs import explanations

pytestmark = pytest.mark.browser

RECIPE = {
    "data": {"name": "digits", "train_n": 40},
    "model": {"name": "digits-cnn"},
    "threat": "linf:0.15",
    "training": {"epochs": 1, "batch_size": 20},
    "machine": {"device": "cpu", "threads": 1},
    "method": {"name": "random", "density": 0.1},
    "evaluation": [],
}


def waited(browser, condition):
    from selenium.webdriver.support.ui import WebDriverWait  # noqa: PLC0415

    return WebDriverWait(browser, 60, 0.1).until(lambda driver: driver.execute_script(f"return {condition}"))


def columns(browser):
    """The runs whose maps are in sight, by the head of the table."""
    return browser.execute_script(
        "return [...document.querySelectorAll('.looks thead tr:first-child th[data-column]')]"
        ".filter((cell) => cell.checkVisibility()).map((cell) => cell.querySelector('a').textContent)"
    )


def tick(browser, name):
    (label,) = [each for each in browser.find_elements("css selector", ".ticks label") if each.text == name]
    label.click()


def test_a_reader_chooses_which_runs_stand_side_by_side(browser, short, tmp_path):
    runs = [short(f"bcs-{i}", "bcs", 0.1 * (i + 1)) for i in range(7)] + [short("dense")]
    for run in runs:
        explanations.write(run, looks())
    browser.get(write_report([run.path for run in runs], tmp_path / "page.html").as_uri())
    waited(browser, "document.documentElement.dataset.charts > 0")
    assert columns(browser) == ["bcs-0", "bcs-1", "bcs-2", "bcs-3", "bcs-4", "dense"]
    browser.find_element("css selector", ".beside summary").click()
    assert browser.find_element("css selector", ".beside summary").text == "6 of 8 runs side by side"
    tick(browser, "bcs-6")
    assert columns(browser) == ["bcs-0", "bcs-1", "bcs-2", "bcs-3", "bcs-4", "dense"]
    tick(browser, "bcs-1")
    tick(browser, "bcs-6")
    assert columns(browser) == ["bcs-0", "bcs-2", "bcs-3", "bcs-4", "bcs-6", "dense"]
    for name in ("bcs-0", "bcs-2", "bcs-3", "bcs-4"):
        tick(browser, name)
    assert columns(browser) == ["bcs-6", "dense"]
    cells = browser.execute_script(
        "return [...document.querySelectorAll('.looks tbody tr')]"
        ".map((row) => [...row.querySelectorAll('td')].filter((cell) => cell.checkVisibility()).length)"
    )
    assert cells == [6] * 6

    # The filter of the table leaves what is ticked, and shortens the list of the others.
    browser.find_element("css selector", ".filter [name=text]").send_keys("bcs-3")
    waited(browser, "document.querySelector('.shown').textContent.startsWith('1 of 8')")
    listed = [each.text for each in browser.find_elements("css selector", ".ticks label") if each.is_displayed()]
    assert listed == ["bcs-3", "bcs-6", "dense"]
    assert columns(browser) == ["bcs-6", "dense"]
    assert browser.execute_script("return document.documentElement.scrollWidth <= window.innerWidth + 1")
    assert browser.get_log("browser") == []


def test_from_training_to_the_page(browser, tmp_path, monkeypatch, capsys):
    pytest.importorskip("captum")
    monkeypatch.chdir(tmp_path)
    train(RECIPE, out=tmp_path / "sparse")
    shutil.copytree("sparse", "again")
    for words in (("explain", "sparse", "again", "--n", "4"), ("report", "sparse", "again", "-o", "page.html")):
        with pytest.raises(SystemExit) as ended:
            main(words)
        assert ended.value.code == 0
    said = capsys.readouterr().out
    assert "sparse: 4 images, Grad-CAM at conv3" in said
    assert "written: again/results/explanations.safetensors" in said
    browser.get((tmp_path / "page.html").as_uri())
    waited(browser, "document.documentElement.dataset.charts > 0")
    assert columns(browser) == ["sparse", "again"]
    assert browser.execute_script("return document.querySelectorAll('.looks tbody').length") == 4
    loaded = "[...document.querySelectorAll('.looks img')].every((image) => image.complete && image.naturalWidth === 8)"
    browser.execute_script("document.querySelector('.looks').scrollIntoView()")
    waited(browser, loaded)
    assert browser.execute_script("return document.querySelectorAll('.looks img').length") == 4 * (1 + 2 * 5)
    assert "gossamer explain sparse again --n 4 --attack pgd --seed 0" in browser.page_source
    assert browser.get_log("browser") == []
