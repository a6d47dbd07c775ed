"""The report page: what it says, that it says what is missing, and that nothing a user named can become markup."""

import re
from dataclasses import replace

import pytest

from gossamer import write_report
from gossamer.attacks.registry import ATTACKS
from gossamer.errors import ConfigError, RunError
from gossamer.report import retrace
from gossamer.runs import results


def page_of(runs, tmp_path):
    return write_report([run.path for run in runs], tmp_path / "page.html").read_text(encoding="utf-8")


def prose(page):
    """The page without scripts and styles, tags removed, white space folded."""
    body = re.sub(r"<(script|style)\b.*?</\1>", " ", page, flags=re.DOTALL)
    return " ".join(re.sub(r"<[^>]+>", " ", body).split())


def test_the_headline_carries_attack_norm_eps_n_and_interval(finished, tmp_path):
    text = prose(page_of([finished("robust", "bcs", 0.1)], tmp_path))
    robust = round(round(0.95 * 360) * 2.718281828 ** (-0.3)) / 360
    assert f"{100 * robust:.1f} %" in text
    assert "under PGD-50 ×10, linf eps 0.15, n=360" in text
    assert re.search(r"robust accuracy \d+\.\d % \[\d+, \d+\]", text)
    assert "density 1" in text
    assert "upper bound on robust accuracy" in text


def test_the_commands_repeat_what_was_measured(finished, tmp_path):
    text = prose(page_of([finished("robust", "bcs", 0.1)], tmp_path))
    assert "gossamer train" in text
    assert "--attack pgd-50-10 --norm linf --eps 0.15 --seed 0 --n 360" in text


def test_only_a_command_that_would_be_taken_is_printed(finished, tmp_path):
    run = finished("robust", "bcs", 0.1)
    measured = results.read_evaluation(run.result("pgd-0.15"))
    for path in results.evaluation_files(run):
        path.unlink()

    def printed(attack, environment):
        outcome = replace(measured.attacks[0], attack=attack, parameters={})
        results.write_evaluation(run, "it", replace(measured, attacks=(outcome,), environment=environment))
        return re.findall(r"gossamer evaluate [^<]*?(?=&#10;|\n|<|$)", page_of([run], tmp_path))

    assert set(ATTACKS) == retrace.ASKED_BY_NAME
    kept = "gossamer evaluate runs/robust --attack mine:attack --threat linf:0.15"
    assert any(f"{run.path} --attack fgsm" in command for command in printed("fgsm", {}))
    assert not any("--attack" in command for command in printed("transfer", {}))
    assert any(command.startswith(kept) for command in printed("attack", {"command": kept}))


def test_several_runs_are_compared_in_one_table(finished, tmp_path):
    text = prose(page_of([finished("a", "bcs", 0.1), finished("b", "dense", 1.0, strength=0.2)], tmp_path))
    assert "2 runs compared" in text
    for word in ("bcs", "dense", "work ratio"):
        assert word in text


def test_nothing_is_fetched_and_the_page_is_small_enough(finished, tmp_path):
    page = page_of([finished("robust", "bcs", 0.1)], tmp_path)
    assert not re.search(r"<(?:script|img|iframe)[^>]+src=[\"'](?!data:)", page)
    assert not re.search(r"<link[^>]+href=[\"'](?!data:)", page)
    assert len(page.encode()) < 3_000_000


def test_a_class_name_cannot_become_markup(finished, tmp_path):
    evil = "<script>alert(1)</script>"
    page = page_of([finished("robust", "bcs", 0.1, classes=(evil, "</style>", "two"))], tmp_path)
    assert evil not in page
    assert "&lt;script&gt;alert(1)" in page


def test_a_run_that_has_only_begun_still_has_a_page_that_says_so(begun, tmp_path):
    text = prose(page_of([begun("young", "bcs", 0.1)], tmp_path))
    assert "young" in text
    assert re.search(r"not (?:yet )?(?:been )?evaluated|no evaluation", text, re.IGNORECASE)


def test_a_damaged_evaluation_is_noted_and_the_rest_drawn(finished, tmp_path):
    run = finished("robust", "bcs", 0.1)
    (run.results / "pgd-0.05.json").write_text("{")
    text = prose(page_of([run], tmp_path))
    assert "pgd-0.05" in text
    assert "under PGD-50 ×10, linf eps 0.15, n=360" in text


def test_what_is_no_run_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="at least one run folder"):
        write_report([], tmp_path / "page.html")
    with pytest.raises(RunError, match=r"recipe\.yaml"):
        write_report([tmp_path], tmp_path / "page.html")
    assert not (tmp_path / "page.html").exists()
