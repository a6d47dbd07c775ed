"""Many runs in a real browser: filter, sort and hover, every chart when it comes into sight, no error, no network."""

import itertools
import json
import re

import pytest

from gossamer import write_report

pytestmark = pytest.mark.browser

METHODS = ("bcs", "hydra", "magnitude", "random", "rigl")
DENSITIES = (0.5, 0.3, 0.2, 0.1, 0.05, 0.02, 0.01, 0.005)


@pytest.fixture
def grid(short):
    """A function that makes runs of methods by densities by seeds, and a natural and a robust dense one a seed."""

    def make(methods, densities, seeds, objectives=("trades",), pictured=False):
        runs = []
        for seed in range(seeds):
            runs += [short(f"dense-{kind}-seed{seed}", seed=seed, objective=kind) for kind in ("natural", "trades")]
            for (place, method), density, kind in itertools.product(enumerate(methods), densities, objectives):
                strength = (0.4 + 0.1 * place + 0.02 * seed) * density**0.2
                name = f"{method}-{kind}-{density}-seed{seed}"
                runs.append(
                    short(name, method, density, strength=strength, pictured=pictured, seed=seed, objective=kind)
                )
        return [run.path for run in runs]

    return make


def waited(browser, condition, seconds=60):
    from selenium.webdriver.support.ui import WebDriverWait  # noqa: PLC0415

    return WebDriverWait(browser, seconds, 0.1).until(lambda driver: driver.execute_script(f"return {condition}"))


def names(browser):
    """The rows that are shown, in their order."""
    return browser.execute_script(
        "return [...document.querySelectorAll('.comparison tbody tr')].filter((row) => row.checkVisibility())"
        ".map((row) => row.cells[0].childNodes[0].textContent.trim())"
    )


def lines(browser, key):
    """The names in a chart's legend."""
    return browser.execute_script(
        f"return document.querySelector('[data-figure=\"{key}\"]').data"
        ".filter((trace) => trace.showlegend !== false).map((trace) => trace.name)"
    )


def drawn_at(browser, key):
    """Bring a chart into sight and wait until it is drawn with what the table shows."""
    browser.execute_script(f"document.querySelector('[data-figure=\"{key}\"]').scrollIntoView({{block: 'center'}})")
    waited(browser, f"fresh.has(document.querySelector('[data-figure=\"{key}\"]')) && !busy && !queue.size")


def typed(browser, name, text):
    field = browser.find_element("css selector", f".filter [name={name}]")
    field.clear()
    field.send_keys(text)


def silent(browser):
    """Whether nothing was said on the console and nothing asked of the network."""
    messages = (json.loads(entry["message"])["message"] for entry in browser.get_log("performance"))
    asked = [each["params"]["request"]["url"] for each in messages if each["method"] == "Network.requestWillBeSent"]
    return browser.get_log("browser") == [] and not [url for url in asked if re.match("https?:|wss?:", url)]


def test_filter_sort_and_hover(browser, grid, tmp_path):
    from selenium.webdriver.common.action_chains import ActionChains  # noqa: PLC0415
    from selenium.webdriver.support.ui import Select  # noqa: PLC0415

    page = write_report(grid(METHODS, DENSITIES[:3], 2), tmp_path / "page.html")
    browser.get(page.as_uri())
    drawn_at(browser, "all-robust")
    every = names(browser)
    assert len(every) == 17
    assert len(lines(browser, "all-robust")) == 7
    plots = browser.execute_script("return document.querySelectorAll('.plot').length")
    assert int(waited(browser, "document.documentElement.dataset.charts")) < plots / 4

    # What is typed leaves rows, and their points alone in the charts.
    typed(browser, "text", "hydra 0.3")
    waited(browser, "document.querySelector('.shown').textContent.startsWith('1 of 17 rows, 2 of 34 runs')")
    assert names(browser) == ["hydra-trades-0.3"]
    drawn_at(browser, "all-robust")
    assert lines(browser, "all-robust") == ["hydra · trades"]
    assert browser.execute_script("return [...document.querySelectorAll('.run')].filter((e) => !e.hidden).length") == 2

    point = browser.find_element("css selector", "[data-figure='all-robust'] .scatterlayer .point")
    ActionChains(browser).move_to_element(point).perform()
    said = waited(browser, "document.querySelector('[data-figure=\"all-robust\"] .hoverlayer')?.textContent")
    assert re.search(r"hydra-trades-0\.3: density [\d.]+ %, robust [\d.]+ % ± [\d.]+ over 2 seeds, n=360", said)

    browser.find_element("css selector", ".filter button").click()
    waited(browser, "document.querySelector('.shown').textContent.startsWith('17 of')")
    Select(browser.find_element("css selector", ".filter [name=objective]")).select_by_visible_text("natural")
    waited(browser, "document.querySelector('.shown').textContent.startsWith('1 of')")
    assert names(browser) == ["dense-natural"]
    browser.find_element("css selector", ".filter button").click()
    typed(browser, "least", "100")
    waited(browser, "document.querySelector('.shown').textContent.startsWith('2 of')")
    assert names(browser) == ["dense-natural", "dense-trades"]
    browser.find_element("css selector", ".filter button").click()

    # The first rows are those of the charts of single rows; the other way round the last.
    column = browser.execute_script(
        "return [...document.querySelectorAll('.comparison thead th')].findIndex((e) => e.textContent.includes('PGD'))"
    )
    head = browser.find_elements("css selector", ".comparison thead button")[column]
    for falls in (False, True):
        head.click()
        shown = browser.execute_script(
            "return [...document.querySelectorAll('.comparison tbody tr')]"
            f".map((row) => Number(row.cells[{column}].dataset.value))"
        )
        assert shown == sorted(shown, reverse=falls)
        drawn_at(browser, "all-layers")
        assert sorted(lines(browser, "all-layers")) == sorted(names(browser)[:12])
    looks = browser.execute_script(
        "return document.querySelector('[data-figure=\"all-layers\"]').data"
        ".map((trace) => [trace.line.color, trace.line.dash, trace.marker.symbol].join())"
    )
    assert len({*looks}) == len(looks) == 12

    # No row of the frontier is both less robust and larger than another.
    drawn_at(browser, "all-nonzeros")
    (x, y), points = browser.execute_script(
        "const data = document.querySelector('[data-figure=\"all-nonzeros\"]').data;"
        "const of = (trace) => [trace.x, trace.y];"
        "return [of(data.at(-1)), data.slice(0, -1).flatMap((t) => t.x.map((x, i) => [x, t.y[i]]))];"
    )
    best = {(a, b) for a, b in points if not any(c <= a and d >= b and (c, d) != (a, b) for c, d in points)}
    assert {*zip(x[:-1], y[:-1], strict=True)} == best

    # A link opens the run that it leads to, and its charts are drawn then.
    browser.execute_script("location.hash = '#run-3'")
    waited(browser, "document.querySelector('#run-3 details').open")
    waited(browser, "document.querySelectorAll('#run-3 .main-svg').length > 0")
    # On paper stands what is not folded, as wide as paper is; the screen is as it was afterwards.
    printed = "plots.filter((plot) => !plot.closest('details:not([open]), [hidden]'))"
    assert browser.execute_script(
        "document.querySelector('#run-34 details').open = true;"
        f"const late = {printed}.filter((plot) => !fresh.has(plot)).length;"
        "dispatchEvent(new Event('beforeprint'));"
        f"return late > 0 && {printed}.every((plot) => plot.querySelector('.main-svg'));"
    )
    waited(browser, f"{printed}.every((plot) => plot._fullLayout.width === (plot.closest('.wide') ? 660 : 310))")
    folded = "plots.filter((plot) => plot.closest('details:not([open])'))"
    assert browser.execute_script(f"return {folded}.length && !{folded}.some((plot) => drawn.has(plot))")
    browser.execute_script("dispatchEvent(new Event('afterprint'))")
    waited(browser, f"{printed}.every((plot) => plot._fullLayout.width > (plot.closest('.wide') ? 660 : 310))")
    assert silent(browser)


@pytest.mark.long
def test_320_runs_open_and_stay_small(browser, grid, tmp_path):
    paths = grid(METHODS[:4], DENSITIES, 5, objectives=("natural", "trades"), pictured=True)[:320]
    page = write_report(paths, tmp_path / "page.html")
    size = page.stat().st_size
    assert size < 15_000_000
    browser.get(page.as_uri())
    waited(browser, "document.documentElement.dataset.charts > 0")
    opened, first = browser.execute_script(
        "const [page] = performance.getEntriesByType('navigation');"
        "return [page.loadEventEnd, performance.getEntriesByName('first chart')[0].startTime];"
    )
    print(f"320 runs: {size / 1e6:.1f} MB, shown after {opened / 1e3:.2f} s, first chart after {first / 1e3:.2f} s")
    assert opened < 10_000
    assert first < 30_000
    assert len(names(browser)) == 64 + 2
    typed(browser, "text", "magnitude natural 0.02")
    waited(browser, "document.querySelector('.shown').textContent.startsWith('1 of')")
    drawn_at(browser, "all-weights")
    assert lines(browser, "all-weights") == ["magnitude-natural-0.02"]
    assert browser.execute_script("return document.documentElement.scrollWidth <= window.innerWidth + 1")
    assert silent(browser)
