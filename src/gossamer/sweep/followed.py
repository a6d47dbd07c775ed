"""What do trackers hear of a run that a sweep puts together? All of it, once, whichever worker tells them."""

import secrets
from collections.abc import Sequence
from contextlib import suppress

from gossamer.errors import RunError
from gossamer.runs import RunFolder, atomic, records
from gossamer.sweep.files import Files
from gossamer.training.trackers.courier import Note, taken_down


def keep_ids(files: Files, run: str, folder: RunFolder, trackers: Sequence[str], *, anew: bool) -> None:
    """Let a worker go on in the tracked runs of one that died, whose folder is gone: the store holds their ids.

    anew: what the store holds is of another run of that name. Raises RunError where the store refuses.
    """
    for tracker in trackers:
        place = f"runs/{run}/trackers/{tracker}.json"
        known = None if anew else files.read(place)
        if known is not None:
            atomic.write_bytes(folder.tracker(tracker), known)
            continue
        records.write(folder.tracker(tracker), Note(id=secrets.token_hex(8)))
        files.put(folder.tracker(tracker), place)


def untold(folder: RunFolder, trackers: Sequence[str]) -> str:
    """Return which trackers do not hold all of a finished run, in words; empty: all do."""
    missing = [tracker for tracker in trackers if not _holds(folder, tracker)]
    return f"{' and '.join(missing)} did not take all of it down (docs/sweeps.md, Trackers)" if missing else ""


def _holds(folder: RunFolder, tracker: str) -> bool:
    with suppress(RunError):
        return taken_down(folder, tracker)
    return False
