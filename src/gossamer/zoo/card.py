"""What does a reader of the hub see of a published network? A card with every number's conditions and its command."""

import datetime
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import yaml

from gossamer.deploy.published import CARD, NAME, Manifest
from gossamer.evaluation.trials import find_parameter
from gossamer.report import retrace, words
from gossamer.report.caveats import caveats
from gossamer.report.parts import commands
from gossamer.report.views import RunView, collect
from gossamer.runs import RunFolder, results
from gossamer.runs.results import AttackOutcome, Evaluation

_NOT_ON_HUB = ("digits", "folder", "tensors")
HERE = Path()


def card(folder: Path, run: RunFolder, manifest: Manifest, license: str | None) -> str:  # noqa: A002
    """Return the model card of a folder that holds a run's records.

    run: the folder they were copied from, whose files' dates are those of the measurements.
    """
    view = replace(collect([folder])[0], name=manifest.name, path=HERE)
    measured = [(one, _date(path)) for path in results.evaluation_files(run) if (one := _read(path)).attacks]
    parts = [
        front_matter(_matter(view, manifest, license)),
        f"# {_line(manifest.name)}",
        _claim(view, manifest),
        _accuracies(measured),
        _notes("Before you quote a number", [*manifest.remarks, *_cautions(view)]),
        loading(manifest),
        _commands(view, measured),
        _notes("What was trained", [f"**{key}**: {_line(text)}" for key, text in _facts(view)]),
        files_of(manifest),
        _license(license),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def front_matter(values: dict[str, Any]) -> str:
    """Return the YAML between dashes that the hub reads."""
    return f"---\n{yaml.safe_dump(values, sort_keys=False, allow_unicode=True)}---"


def loading(manifest: Manifest) -> str:
    """Return the section that says how to load the network."""
    more = ", allow_factory=True" if ":" in manifest.network.name else ""
    side = " x ".join(map(str, manifest.image_shape))
    lines = [
        "## Loading",
        "",
        "```python",
        "import gossamer",
        "",
        f'found = gossamer.load("."{more})  # this folder, or its name on the hub as "org/name"',
        f"logits = found.module(x)  # x: (N, {', '.join(map(str, manifest.image_shape))}), pixels in [0, 1]",
        "```",
        "",
        f"Images of {side} in [0, 1]; normalisation, where there is any, is inside the network.",
        "Loading checks the SHA-256 of every file and unpickles nothing.",
    ]
    return "\n".join(lines)


def files_of(manifest: Manifest) -> str:
    """Return the table of files with their sizes and digests."""
    rows = [(f"`{name}`", f"{file.bytes:,}", f"`{file.sha256}`") for name, file in manifest.files.items()]
    stored = (
        "a sparse file: positions and values of what is not zero, the rest as it is"
        if manifest.storage == "sparse"
        else "plain tensors under the network's own names"
    )
    told = f"`model.safetensors` holds {stored}. `{NAME}` says how to build the network; `{CARD}` has no digest."
    return "\n".join(["## Files", "", table(("file", "bytes", "SHA-256"), rows), "", told])


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a table in Markdown; its cells are made harmless."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(_line(cell) for cell in line)} |" for line in lines)


def _matter(view: RunView, manifest: Manifest, license: str | None) -> dict[str, Any]:  # noqa: A002
    recipe = view.recipe
    named = [str(cast("dict[str, Any]", recipe.get(key) or {}).get("name", "")) for key in ("method", "objective")]
    tags = ["gossamer", "adversarial-robustness", "image-classification", *named, manifest.network.name]
    if manifest.density < 1:
        tags.insert(2, "sparse")
    matter: dict[str, Any] = {} if license is None else {"license": license}
    matter |= {"library_name": "gossamer", "pipeline_tag": "image-classification"}
    matter["tags"] = list(dict.fromkeys(tag for tag in tags if tag and ":" not in tag))
    data = manifest.data.name if manifest.data is not None else None
    if data is not None and data not in _NOT_ON_HUB:
        matter["datasets"] = [data]
    matter["metrics"] = ["accuracy"]
    index = _index(view, manifest, data)
    return matter | ({"model-index": index} if index else {})


def _index(view: RunView, manifest: Manifest, data: str | None) -> list[dict[str, Any]]:
    headline = view.headline
    if headline is None or data is None:
        return []
    conditions = words.headline_conditions(headline)
    metrics = [
        {"type": "accuracy", "name": f"clean accuracy, n={headline.n}", "value": headline.clean_accuracy},
        {"type": "accuracy", "name": f"robust accuracy: {conditions}", "value": headline.robust_accuracy},
    ]
    return [
        {
            "name": manifest.name,
            "results": [
                {
                    "task": {"type": "image-classification"},
                    "dataset": {"name": data, "type": data, "split": headline.dataset.part},
                    "metrics": metrics,
                }
            ],
        }
    ]


def _claim(view: RunView, manifest: Manifest) -> str:
    recipe = view.recipe
    kept = f"{manifest.nonzero:,} of {manifest.dense_weights:,} weights are not zero"
    density = f"density {words.percent(manifest.density)}, sparsity {words.percent(1 - manifest.density)}"
    trained = f"trained by {words.described(recipe['method'])}" if recipe.get("method") else "trained"
    threat = f" against {words.threat_of(manifest.threat)}" if manifest.threat else ""
    data = f" for {manifest.data.name}" if manifest.data else ""
    said = f"`{manifest.network.name}`{data}, {trained}{threat}; {kept} ({density})."
    headline = view.headline
    if headline is None:
        return f"{_line(said)} **No robust accuracy was measured{_elsewhere(view)}.**"
    robust = f"{words.percent(headline.robust_accuracy)} {words.brackets(headline.interval)}"
    clean = f"{words.percent(headline.clean_accuracy)} {words.brackets(headline.clean_interval)}"
    return f"{_line(said)} **Robust accuracy {robust} under {words.headline_conditions(headline)}; clean {clean}.**"


def _accuracies(measured: Sequence[tuple[Evaluation, str]]) -> str:
    if not measured:
        return ""
    rows = [_row(one, outcome, date) for one, date in measured for outcome in one.attacks]
    head = (
        *("attack", "norm", "eps", "steps", "restarts", "n", "robust accuracy", "clean accuracy"),
        *("on", "device", "versions", "date"),
    )
    told = (
        "In brackets: 95 % Wilson intervals, in per cent. Every sample's outcome is in `results/`. "
        "Dates are those of the files that were measured."
    )
    return "\n".join(["## Accuracies", "", table(head, rows), "", told])


def _row(one: Evaluation, outcome: AttackOutcome, date: str) -> list[str]:
    environment = one.environment
    numeric = cast("dict[str, Any]", environment.get("numeric") or {})
    versions = [f"{key} {environment[key]}" for key in ("gossamer", "torch") if key in environment]
    which = "all" if one.dataset.selection == "all" else one.dataset.selection
    return [
        words.outcome_name(outcome),
        outcome.norm,
        words.radius(outcome.eps),
        *(_effort(outcome, f"{name}s") for name in ("step", "restart")),
        str(outcome.n),
        f"{words.percent(outcome.robust_accuracy)} {words.brackets(outcome.interval)}",
        f"{words.percent(one.clean_accuracy)} {words.brackets(one.clean_interval)}",
        f"{one.dataset.name} {one.dataset.part}, {which}, seed {one.seed}",
        str(numeric.get("device") or "not recorded"),
        ", ".join(versions) or "not recorded",
        date,
    ]


def _effort(outcome: AttackOutcome, name: str) -> str:
    found = find_parameter(outcome.parameters, name)
    return str(found) if isinstance(found, int) else "see results" if outcome.stages else "–"


def _cautions(view: RunView) -> list[str]:
    noted = [notice.text for one in view.evaluations for notice in one.notices]
    cautions = [_line(each) for each in (*caveats([view], view.measured), *dict.fromkeys(noted))]
    if view.headline is None:
        cautions.append(f"No evaluation came with the run{_elsewhere(view)}: measure it before you rely on it.")
    return cautions


def _elsewhere(view: RunView) -> str:
    """Return what to add where nothing was measured on test images, but on others."""
    others = dict.fromkeys(one.dataset.part.replace("_", "-") for one in view.evaluations if one.attacks)
    return f" on test images, but on {' and '.join(others)} ones" if others else ""


def _commands(view: RunView, measured: Sequence[tuple[Evaluation, str]]) -> str:
    train = ["gossamer train recipe.yaml --out again"]
    again = [(one, retrace.made_again(view, one) if one.dataset.part == "test" else ()) for one, _ in measured]
    attacks = [command for _, made in again for command in made]
    elsewhere = [one.environment for one, made in again if not made]
    environments = [*elsewhere, *(each.environment for each in view.measured)]
    others = [command for each in environments for command in commands(each)]
    lines = ["## Measuring it again", "", "In this folder:", "", "```sh", *train, *attacks, "```"]
    if others:
        lines += ["", "What else was measured was measured on the run by:", "", "```sh", *others, "```"]
    return "\n".join(lines)


def _facts(view: RunView) -> list[tuple[str, str]]:
    recipe, env = view.recipe, view.env
    fields = ("name", "claim", "data", "model", "threat", "objective", "attack", "method", "training", "seed")
    facts = [(key, words.described(recipe[key])) for key in fields if recipe.get(key) not in (None, "")]
    numeric = cast("dict[str, Any]", env.get("numeric") or {})
    if numeric:
        facts.append(("machine", f"{numeric.get('device')}, {numeric.get('threads')} threads"))
    versions = [f"{key} {env[key]}" for key in ("gossamer", "torch", "python") if key in env]
    if view.status is not None:
        facts.append(("trained", f"{view.status.started}, for {words.duration(view.status.seconds_trained)}"))
    return [*facts, *([("versions", ", ".join(versions))] if versions else [])]


def _notes(title: str, lines: Sequence[str]) -> str:
    return "\n".join([f"## {title}", "", *(f"- {line}" for line in lines)]) if lines else ""


def _license(name: str | None) -> str:
    return f"## License\n\n{f'`{name}`' if name else 'None was named: ask whoever published this before you use it.'}"


def _read(path: Path) -> Evaluation:
    return results.read_evaluation(path)


def _date(path: Path) -> str:
    return datetime.datetime.fromtimestamp(path.stat().st_mtime, datetime.UTC).strftime("%Y-%m-%d")


def _line(value: str) -> str:
    """Return a text in one line that neither ends a cell nor begins markup."""
    return " ".join(value.split()).replace("|", "\\|").replace("<", "&lt;")
