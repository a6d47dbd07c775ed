"""The report in a real browser: every chart is drawn, the console is silent, and nothing is asked of the network."""

import json

import made_records
import pytest

from gossamer import write_report
from gossamer.runs import records, results

pytestmark = pytest.mark.browser


def test_every_chart_is_drawn_without_error_or_network(browser, finished, tmp_path):
    from selenium.webdriver.support.ui import WebDriverWait  # noqa: PLC0415

    runs = [finished("sparse", "bcs", 0.1), finished("dense", strength=0.2)]
    results.write_evaluation(runs[0], "autoattack", made_records.autoattack("sparse"))
    for name, made in {**made_records.PROTOCOLS, "audit": made_records.audit}.items():
        records.write(runs[0].result(name), made())
    page = write_report([run.path for run in runs], tmp_path / "page.html")
    browser.get(page.as_uri())
    drawn = WebDriverWait(browser, 60).until(
        lambda driver: driver.execute_script("return document.documentElement.dataset.charts")
    )
    plots = browser.execute_script("return document.querySelectorAll('.plot').length")
    shown = browser.execute_script("return document.querySelectorAll('.plot .main-svg').length")
    assert int(drawn) == plots >= 20
    assert shown >= plots
    assert browser.get_log("browser") == []
    messages = (json.loads(entry["message"])["message"] for entry in browser.get_log("performance"))
    asked = [m["params"]["request"]["url"] for m in messages if m["method"] == "Network.requestWillBeSent"]
    assert [url for url in asked if url.startswith(("http:", "https:", "ws:", "wss:"))] == []
    assert browser.execute_script("return document.documentElement.scrollWidth <= window.innerWidth + 1")
