"""Audits and protocols on the page: every number with its interval and n, and no section of what was not measured."""

import html
import re
from dataclasses import asdict, replace

import made_records
import pytest

from gossamer import write_report
from gossamer.errors import RunError
from gossamer.evaluation.audit.budget import BUDGETS
from gossamer.report import audits, figures, lines, palette, sections, words
from gossamer.report.views import collect
from gossamer.runs import atomic, records, results
from gossamer.runs.measured import KINDS

SAYS = {
    "effort": ["Steps × restarts, PGD", "47.3 % [44, 50]", "49.1 % [46, 52]", "10 steps 50 steps 500 steps"],
    "transfer": [
        "Transfer, PGD-50 ×10, linf",
        "own white box 47.0%",
        "47.0 % [44, 50] white box",
        "⚠ endangers",
        "vgg-90 vgg16",
        "Examples of dense",
    ],
    "adversaries": ["pgd linf:8/255, 7 steps m2", "48.7 % [46, 52]", "0.0 % [0.0, 0.4]", "PGD-8, linf eps 8/255"],
    "black-box": [
        "Black box: ZOO",
        "at most 9,000 queries of a sample",
        "65.0 % [58, 71]",
        "200 of 247 asked",
        "4,400",
        "immune 0.0 % [0.0, 1.9] 200",
    ],
    "pruning": [
        "AutoAttack, linf eps 0.031",
        "AutoAttack, linf eps 8/255",
        "sparse-99 99.0 % 111,740 of 11,173,962",
        "44.8 % [42, 48] 44.1 % [41, 47] 86.0 % [83, 89] n=500, eps 8/255, 2 not found",
    ],
    "ensemble": [
        "Ensemble robust + natural",
        "attacked as one model: quote this 31.2 % [28, 34]",
        "flatters 65.5 % [62, 68]",
        "it looks 34.3 points more robust than it is",
        "2,034,567 parameters",
    ],
    "stochastic": ["noise and EOT 20", "40.4 % ± 0.48 points", "without noise", "5 trials, seeds 0, 1, 2, 3, 4"],
    "corruptions": [
        "jpeg_compression 63.0 % [62.0, 63.9]",
        "n = 10,000 a cell",
        "spatter extra",
        "mean accuracy 64.0 %",
    ],
    "matching": ["sparse 100.0 % of the weights", "-6.9 points [-8.9, -4.8]", "falls short", "+0.6 points"],
    "classes": ["Worst under attack: cat with 12.0 % [7, 20] n=100", "truck 100 91.0 % [84, 95] 64.0 % [54, 73]"],
    "certificates": [
        "r > 0.75",
        "68.4 % [64, 72]",
        "guaranteed",
        "66.3 %",
        "confidence 99.9 %",
        "sigma 0.25",
        "n = 500",
    ],
    "weights": [
        "sparse: 1,234 parameters",
        "conv1.weight 72 12.5 % 9 0.125 0.5 87.5 % 91.7 % 1 of 2 2 of 8, by chance 6",
        "fc.weight 72 12.5 % 9 0.125 none 87.5 % 91.7 % 1 of 2 –",
    ],
    "latency": [
        "exported as c",
        "sparse 1 in memory 12.5 % 4,096 bytes 2.000 2.100 3.000",
        "100 read from a file",
    ],
}


def prose(path):
    """The page without scripts and styles, tags removed, white space folded."""
    body = re.sub(r"<(script|style)\b.*?</\1>", " ", path.read_text(encoding="utf-8"), flags=re.DOTALL)
    return " ".join(html.unescape(re.sub(r"<[^>]+>", " ", body)).split())


def page_of(tmp_path, *runs, with_=()):
    return write_report([run.path for run in runs], tmp_path / "page.html", records=with_)


def anchors(page):
    return re.findall(r'<section id="([^"]+)" class="part">', page.read_text(encoding="utf-8"))


@pytest.mark.parametrize("name", SAYS)
def test_a_protocol_in_the_run_folder_has_its_section(name, finished, tmp_path):
    run = finished("sparse")
    records.write(run.result(f"protocol-{name}-12ab"), made_records.PROTOCOLS[name]())
    page = page_of(tmp_path, run)
    assert anchors(page) == [f"{name}-1"]
    text = prose(page)
    for said in SAYS[name]:
        assert said in text
    told = "measured from Python" if name == "classes" else "gossamer protocol"
    assert told in text
    assert "Could not read" not in text


def test_without_records_there_is_no_section(finished, tmp_path):
    page = page_of(tmp_path, finished("sparse"))
    assert anchors(page) == []
    for heading in ("Transfer", "Audit of", "stage by stage", "Corruptions", "Certificates", "Pruning benchmark"):
        assert heading not in prose(page)


def test_sections_come_in_one_order_and_a_record_only_once(finished, tmp_path):
    first, second = finished("sparse"), finished("dense")
    for name in reversed(SAYS):
        records.write(first.result(f"z-{name}"), made_records.PROTOCOLS[name]())
    records.write(second.result("copy"), made_records.effort())
    records.write(second.result("audit"), made_records.audit("dense"))
    results.write_evaluation(first, "autoattack", made_records.autoattack("sparse"))
    outside = tmp_path / "effort.json"
    records.write(outside, made_records.effort())
    page = page_of(tmp_path, first, second, with_=[outside])
    assert anchors(page) == ["audit-1", "stages", *(f"{name}-1" for name in SAYS)]
    assert f"--with {outside}" in prose(page)


def test_a_rejected_claim_is_said_beside_the_headline_with_a_link_to_its_evidence(finished, tmp_path):
    run = finished("sparse")
    records.write(run.result("audit"), made_records.audit())
    page = page_of(tmp_path, run)
    text = prose(page)
    assert text.index("✗ reject PGD claims 47.0 % [40, 54], settled 10.5 % [7, 16]") < text.index("Security curve")
    assert "signs seen: black-box" in text
    assert '<a href="#audit-1">All evidence</a>' in page.read_text(encoding="utf-8")
    assert "The audit of sparse says reject: do not quote its robust accuracy." in text
    assert "Square beats PGD: 22.0 % [17, 28], n=200" in text
    assert "noise – not seen" in text
    assert "docs/audit/black-box.md" in text
    assert f"gossamer audit {run.path} --threat linf:8/255 --n 200 --budget standard --seed 0" in text


def test_verdicts_stand_in_the_comparison(finished, tmp_path):
    runs = [finished("sparse"), finished("dense")]
    outside = tmp_path / "audit.json"
    records.write(outside, made_records.audit("dense", "trust", 90))
    text = prose(page_of(tmp_path, *runs, with_=[outside]))
    assert "dense ✓ trust settled 45.0 % [38, 52] n=200" in text
    assert "sparse –" in text


def test_of_runs_of_one_name_an_audit_is_shown_beside_that_which_holds_it(finished, tmp_path):
    """Two stores of one sweep have runs of the same names."""
    first, second = finished("here/sparse"), finished("there/sparse")
    records.write(first.result("audit"), made_records.audit())
    text = prose(page_of(tmp_path, first, second))
    assert text.count("✗ reject settled 10.5 %") == 1
    assert f"{second.path} –" in text
    # One from outside could be of either.
    outside = first.result("audit").rename(tmp_path / "audit.json")
    text = prose(page_of(tmp_path, first, second, with_=[outside]))
    assert "✗ reject settled" not in text
    assert "Square beats PGD" in text


def test_the_audit_at_the_headlines_threat_is_shown_first(finished, tmp_path):
    run = finished("sparse")
    records.write(run.result("audit-worse"), made_records.audit(threat="linf:4/255"))
    records.write(run.result("audit"), made_records.audit(verdict="doubt", settled=80, threat="linf:0.15"))
    text = prose(page_of(tmp_path, run))
    assert "audit ? doubt PGD claims" in text


def test_stages_fall_to_the_robust_accuracy(finished, tmp_path):
    run = finished("sparse")
    results.write_evaluation(run, "autoattack", made_records.autoattack("sparse"))
    text = prose(page_of(tmp_path, run))
    assert "AutoAttack, linf eps 8/255, n = 1,000" in text
    assert "clean – – 81.2 % [79, 84]" in text
    assert "APGD-CE 812 310 50.2 % [47, 53] 1 min 1 s" in text
    assert "Square 473 3 47.0 % [44, 50]" in text
    assert "2 samples on the border" in text


def test_a_headline_under_a_weaker_attack_says_what_autoattack_left(finished, tmp_path):
    run = finished("sparse")
    few = made_records.autoattack("sparse")
    outcome = replace(few.attacks[0], threat="linf:0.15", eps=0.15)
    alike = replace(few.dataset, name="synthetic-digits", part="test")
    results.write_evaluation(run, "autoattack", replace(few, attacks=(outcome,), dataset=alike))
    said = "AutoAttack leaves 47.0 % [44, 50] of n=1000."
    assert f"The headline of sparse is under PGD-50 ×10, n=360; {said}" in prose(page_of(tmp_path, run))


def test_an_axis_of_whole_255ths_has_ticks_in_them():
    axis = lines.eps_axis("linf", [0, 2 / 255, 8 / 255, 32 / 255])
    assert axis["ticktext"] == ["0", *(f"{tick}/255" for tick in range(4, 33, 4))]
    assert axis["tickvals"][2] == 8 / 255
    assert "tickvals" not in lines.eps_axis("linf", [0.031])
    assert "tickvals" not in lines.eps_axis("l2", [1.0])


def test_a_loss_that_a_probe_measured_is_drawn_among_the_losses_also_where_it_is_below_1():
    lines = [{"epoch": epoch, "loss": 1.0, "held_out/pgd": 0.5, "held_out/pgd/loss": 0.9} for epoch in (1, 2)]
    drawn = [figure["data"] for figure in (figures.loss_curves(lines), figures.accuracy_curves(lines))]
    assert [[trace["name"] for trace in each] for each in drawn] == [["total", "held out, pgd"], ["held out, pgd"]]
    assert [trace["y"] for trace in drawn[0]] == [[1.0, 1.0], [0.9, 0.9]]


def test_the_page_says_from_which_network_a_run_began(finished, tmp_path):
    run = finished("sparse")
    assert "starts from" not in prose(page_of(tmp_path, run))
    about = atomic.read_json(run.env) if run.env.exists() else {}
    atomic.write_json(run.env, {**about, "start": {"path": "runs/dense", "sha256": "ab12"}})
    assert "starts from runs/dense, SHA-256 ab12" in prose(page_of(tmp_path, run))


def test_a_rehearsed_autoattack_is_not_called_autoattack():
    full = {"version": "standard", "steps": 100, "queries": 5000}
    assert words.attack_name("autoattack", full) == "AutoAttack"
    assert words.attack_name("autoattack-plus", {}) == "AutoAttack (plus)"
    assert words.attack_name("autoattack", full | {"steps": 5}) == "AutoAttack, rehearsed with 5 steps"


def test_an_attack_has_one_name_with_its_parameters_and_without():
    assert words.attack_name("pgd-50-10", {}) == words.attack_name("pgd", {"steps": 50, "restarts": 10}) == "PGD-50 ×10"
    assert words.attack_name("pgd-8", {}) == "PGD-8"
    assert words.attack_name("apgd-ce", {}) == "APGD-CE"
    assert words.attack_name("mine-3", {}) == "mine-3"


def test_an_ensemble_that_its_members_attacks_break_more_often_does_not_say_that_they_flatter(finished, tmp_path):
    run, made = finished("sparse"), made_records.PROTOCOLS["ensemble"]()
    swapped = replace(made, as_one=made.member_wise, member_wise=made.as_one, flattery=-made.flattery)
    records.write(run.result("protocol-ensemble-1"), swapped)
    text = prose(page_of(tmp_path, run))
    assert "breaks 34.3 points more than the attack on it as one: quote the smaller number" in text
    assert "flatters" not in text
    assert "quote this" not in text


def test_a_file_of_another_schema_is_refused(finished, tmp_path):
    run, other = finished("sparse"), tmp_path / "other.json"
    for schema, expected in (
        ("gossamer/evaluation/1", r"expected a record of an audit or a protocol: gossamer/audit, gossamer/effort"),
        ("gossamer/effort/99", r"expected schema gossamer/effort/1, got schema gossamer/effort/99"),
    ):
        atomic.write_json(other, {"schema": schema})
        with pytest.raises(RunError, match=expected):
            page_of(tmp_path, run, with_=[other])
    assert not (tmp_path / "page.html").exists()


def test_a_damaged_record_in_the_run_folder_is_noted_and_the_rest_drawn(finished, tmp_path):
    run = finished("sparse")
    atomic.write_json(run.result("protocol-effort-1"), {"schema": "gossamer/effort/1"})
    records.write(run.result("protocol-classes-1"), made_records.classes())
    page = page_of(tmp_path, run)
    assert anchors(page) == ["classes-1"]
    assert "Could not read" in prose(page)


def test_a_name_in_a_record_cannot_become_markup(finished, tmp_path):
    evil = "<script>alert(1)</script>"
    run = finished("sparse")
    records.write(run.result("audit"), made_records.audit(run=evil))
    page = page_of(tmp_path, run).read_text(encoding="utf-8")
    assert evil not in page
    assert "Audit of &lt;script&gt;" in page


def test_every_kind_of_record_is_drawn():
    assert {*KINDS.values()} == {*sections.DRAWN, made_records.Audit}
    assert {type(make()) for make in made_records.PROTOCOLS.values()} == {*sections.DRAWN}


def test_the_command_of_an_audit_names_its_budget(finished):
    (view,) = collect([finished("sparse").path])
    for name, budget in BUDGETS.items():
        made = replace(made_records.audit(), budget=asdict(budget))
        (command,) = audits.part(made, "audit-1", view).commands
        assert f"--budget {name} " in command
        assert not audits.part(replace(made, budget={**made.budget, "steps": 7}), "audit-1", view).commands


def test_black_text_is_readable_on_every_shade_and_darker_is_more():
    lightness = [_luminance(palette.shade(step / 50)) for step in range(51)]
    assert lightness == sorted(lightness, reverse=True)
    assert len(set(lightness)) == 51
    # WCAG 2.2 asks 4.5 of small text.
    assert all((light + 0.05) / 0.05 >= 4.5 for light in lightness)


def _luminance(colour):
    parts = (int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5))
    linear = [(c / 12.92) if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
