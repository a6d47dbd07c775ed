"""The page over published tables and figures in a real browser: every chart drawn, in silence, off the network."""

import json
from pathlib import Path

import pytest

from gossamer.cli.main import main

pytestmark = pytest.mark.browser


def test_every_chart_is_drawn_without_error_or_network(browser, tmp_path: Path) -> None:
    from selenium.webdriver.support.ui import WebDriverWait  # noqa: PLC0415

    page = tmp_path / "page.html"
    with pytest.raises(SystemExit) as ended:
        main(["reproduce", "all", "--show", "--store", str(tmp_path / "store"), "-o", str(page)])
    assert not ended.value.code
    browser.get(page.as_uri())
    drawn = WebDriverWait(browser, 60).until(
        lambda driver: driver.execute_script("return document.documentElement.dataset.charts")
    )
    plots = browser.execute_script("return document.querySelectorAll('.plot').length")
    assert int(drawn) == plots >= 10
    assert browser.execute_script("return document.querySelectorAll('.plot .main-svg').length") >= plots
    assert browser.get_log("browser") == []
    messages = (json.loads(entry["message"])["message"] for entry in browser.get_log("performance"))
    asked = [m["params"]["request"]["url"] for m in messages if m["method"] == "Network.requestWillBeSent"]
    assert [url for url in asked if url.startswith(("http:", "https:", "ws:", "wss:"))] == []
    assert browser.execute_script("return document.documentElement.scrollWidth <= window.innerWidth + 1")
