"""Does the audit catch planted faults and trust what is sound? One row a case, with what fired and what is left."""

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

import torch

import gossamer
import record
from audit_cases import CASES, THREAT, Case, digits, train
from gossamer.runs.audits import Audit

COLUMNS = ("case", "planted", "verdict", "signs that fired", "claimed", "settled", "judged by")


def main(arguments: Sequence[str] | None = None) -> int:
    """Audit every case and write results/audit.json."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--n", type=int, default=200)
    parser.add_argument("--budget", default="standard")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--results", type=Path, default=record.RESULTS)
    options = parser.parse_args(arguments)
    load = os.getloadavg()
    torch.set_num_threads(options.threads)
    training, test = digits()
    networks = {base: train(base, training) for base in ("natural", "robust")}
    audits: list[tuple[Case, Audit]] = []
    for case in CASES:
        model = case.make(networks[case.base])
        found = gossamer.audit(model, test, threat=THREAT, n=options.n, budget=options.budget, name=case.name)
        print(f"{case.name}\n{found}", flush=True)
        audits.append((case, found))
    record.write(result(audits, options.n, options.budget), options.results, load=load)
    return 0


def result(audits: Sequence[tuple[Case, Audit]], n: int, budget: str) -> record.Result:
    """Return the record of all audits."""
    planted = [(case, found) for case, found in audits if case.sign is not None]
    sound = [found for case, found in audits if case.sign is None]
    caught = sum(found.verdict != "trust" and case.sign in found.fired for case, found in planted)
    trusted = sum(found.verdict == "trust" for found in sound)
    caption = f"Robust accuracy under {THREAT} on digits, n = {n}, budget {budget}: claimed by PGD, and settled"
    return record.Result(
        name="audit",
        title="The audit on planted faults and sound models",
        rounds=1,
        claims=[
            record.Claim(
                what="planted faults that the audit catches by name", measured=caught, unit="cases", goal=len(planted)
            ),
            record.Claim(what="sound models that it trusts", measured=trusted, unit="cases", goal=len(sound)),
        ],
        tables=[record.Table(caption=caption, columns=COLUMNS, rows=[row(case, found) for case, found in audits])],
        details={
            "reasons": {found.run: found.reason for _, found in audits},
            "signs": {found.run: {sign.name: sign.says for sign in found.signs if sign.fired} for _, found in audits},
        },
        packages=("scikit-learn",),
    )


def row(case: Case, found: Audit) -> list[record.Cell]:
    """Return one case as it stands in the table."""
    claimed, settled = (
        f"{share:.1%} [{low:.1%}, {high:.1%}]"
        for share, (low, high) in (
            (found.claimed_robust_accuracy, found.claimed_interval),
            (found.settled_robust_accuracy, found.settled_interval),
        )
    )
    fired = ", ".join(found.fired) or None
    return [case.name, case.sign, found.verdict, fired, claimed, settled, found.judge]


if __name__ == "__main__":
    sys.exit(main())
