"""The page over published tables and figures in a real browser: every chart drawn, in silence, off the network."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from gossamer.cli.main import main
from gossamer.report.parts import Chart, Part
from gossamer.report.shell import render_parts
from gossamer.reproduce.drawing import part
from gossamer.reproduce.pictured import Attacked, Channels, Pictured, Sizes
from gossamer.reproduce.published import load_entry
from gossamer.reproduce.standing import rebuild
from gossamer.runs import panel, results

pytestmark = pytest.mark.browser


def waited(browser, condition, seconds=60):
    from selenium.webdriver.support.ui import WebDriverWait  # noqa: PLC0415

    return WebDriverWait(browser, seconds, 0.1).until(lambda driver: driver.execute_script(f"return {condition}"))


def test_every_chart_is_drawn_without_error_or_network(browser, tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    with pytest.raises(SystemExit) as ended:
        main(["reproduce", "all", "--show", "--store", str(tmp_path / "store"), "-o", str(page)])
    assert not ended.value.code
    browser.get(page.as_uri())
    drawn = waited(browser, "document.documentElement.dataset.charts")
    plots = browser.execute_script("return document.querySelectorAll('.plot').length")
    assert int(drawn) == plots >= 10
    assert browser.execute_script("return document.querySelectorAll('.plot .main-svg').length") >= plots
    assert browser.get_log("browser") == []
    messages = (json.loads(entry["message"])["message"] for entry in browser.get_log("performance"))
    asked = [m["params"]["request"]["url"] for m in messages if m["method"] == "Network.requestWillBeSent"]
    assert [url for url in asked if url.startswith(("http:", "https:", "ws:", "wss:"))] == []
    assert browser.execute_script("return document.documentElement.scrollWidth <= window.innerWidth + 1")


def charts(place, count):
    """Charts of a section, each of one line."""
    line = {"type": "scatter", "x": [1, 2], "y": [1, place]}
    figure = {"data": [line], "layout": {"height": 280}}
    return [Chart(key=f"chart-{place}-{number}", title=f"Chart {number}", figure=figure) for number in range(count)]


def test_what_has_not_come_into_sight_is_printed_and_what_is_folded_is_not(browser, tmp_path):
    page = tmp_path / "page.html"
    parts = [
        Part(key=f"part-{place}", title=f"Part {place}", says="", charts=charts(place, 8), commands=("made",))
        for place in range(9)
    ]
    page.write_text(render_parts("Made", parts, command="made"))
    browser.get(page.as_uri())
    plots = browser.execute_script("return document.querySelectorAll('.plot').length")
    assert 0 < int(waited(browser, "document.documentElement.dataset.charts > 0 && drawn.size")) < plots == 72
    browser.execute_script(
        "const folded = document.createElement('details'), last = document.getElementById('part-8');"
        "last.before(folded); folded.append(last);"
    )
    waited(browser, "!busy")
    browser.execute_script("dispatchEvent(new Event('beforeprint'))")
    shown = "[...document.querySelectorAll('.plot')].filter((plot) => plot.querySelector('.main-svg'))"
    assert browser.execute_script(f"return {shown}.length") == 64
    assert browser.execute_script("return [document.querySelectorAll('#part-8 .main-svg').length, drawn.size]") == [
        0,
        64,
    ]
    waited(browser, f"{shown}.every((plot) => plot._fullLayout.width === 310)")
    browser.execute_script("dispatchEvent(new Event('afterprint'))")
    waited(browser, f"{shown}.every((plot) => plot._fullLayout.width > 310)")
    assert browser.get_log("browser") == []


def test_pictures_of_entries_are_drawn_and_shown(browser, finished, tmp_path):
    run = finished("run")
    spread = results.read_network(run).histogram
    shown = {
        "one-shot-admm/figure-3.1": Pictured(attacked=[Attacked(at={}, panel=panel.read(run, "pgd"))]),
        "one-shot-admm/figure-4.2": Pictured(
            sizes=[Sizes(at={"density": density}, layer="", histogram=spread) for density in (1.0, 0.1)]
        ),
        "robust-subnet/figure-1": Pictured(
            channels=[Channels(at={"layer": "first", "side": side}, kept=[0, 30, 1]) for side in ("input", "output")]
        ),
    }
    rebuilt = [
        replace(rebuild(load_entry(name), None, None, Path("nowhere")), pictured=each) for name, each in shown.items()
    ]
    page = tmp_path / "page.html"
    page.write_text(render_parts("Rebuilt", [part(each, "smoke") for each in rebuilt], command="made"))
    browser.get(page.as_uri())
    assert int(waited(browser, "document.documentElement.dataset.charts")) == 3
    sizes = "document.querySelector('[data-figure=one-shot-admm-figure-4-2-picture-0]')"
    assert browser.execute_script(f"return {sizes}.data.map((trace) => [trace.name, trace.line.shape])") == [
        ["density 1.0", "hvh"],
        ["density 0.1", "hvh"],
    ]
    assert browser.execute_script(f"return {sizes}.querySelectorAll('.scatterlayer .js-line').length") == 2
    # The channel that keeps nothing has no bar, and that which keeps one weight has.
    heights = browser.execute_script(
        "return [...document.querySelectorAll('[data-figure=robust-subnet-figure-1-picture-1] .bars .point path')]"
        ".map((bar) => bar.getBBox().height)"
    )
    assert sorted(height > 2 for height in heights) == [*[False] * (len(heights) - 2), True, True]
    browser.execute_script("document.querySelector('.ladder').scrollIntoView()")
    images = "[...document.querySelectorAll('#one-shot-admm-figure-3-1 .ladder img')]"
    waited(browser, f"{images}.length === 6 && {images}.every((image) => image.complete && image.naturalWidth > 0)")
    said = browser.execute_script("return [...document.querySelectorAll('.ladder .said')].map((e) => e.textContent)")
    assert said[1] == "eps 0.05: zero 90.0 %"
    assert said[-1] == "✗ eps 0.3: one 90.0 %"
    assert browser.get_log("browser") == []
