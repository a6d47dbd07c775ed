"""One run: its phases in order, each begun, resumed or skipped as the run folder says."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress

from torch import Tensor, nn

from gossamer.errors import GossamerError
from gossamer.runs import atomic, metrics
from gossamer.runs.checkpoints import Checkpoint
from gossamer.seeding import Draws
from gossamer.training.checkpointing import Training
from gossamer.training.interruption import Interrupted, Watch
from gossamer.training.job import Job, resumable
from gossamer.training.loop import begin, finalised, store, train_phase
from gossamer.training.phases import Phase, epoch_state
from gossamer.training.scene import Scene, count_steps

FINAL = "final"


def run_phases(
    phases: Sequence[Phase],
    make_model: Callable[[], nn.Module],
    job: Job,
    *,
    allow_drift: bool = False,
    ships: bool = True,
) -> None:
    """Train every phase that is not done, and store what ships as the state `final`.

    ships: false for the first of a run's phases alone, whose states others go on from. What ships is the last phase's
    best state where it selects one or a monitor went back to it, otherwise its end; in both the average of weights
    where it keeps one.
    """
    ranks = job.place.ranks
    with ranks.first_then_others():
        if ranks.first:
            _remove_leftovers(job)
        done = job.run.state(FINAL).exists()
        checkpoint = None if done else _checkpoint(job, allow_drift)
    job.tracking.begin(metrics.read(job.run))
    if done:
        job.report_done()
        return
    if checkpoint is not None and checkpoint.warning:
        job.progress.note(checkpoint.warning)
    states: dict[str, Mapping[str, Tensor]] = {}
    job.offset = 0
    for phase in phases:
        if not job.run.state(f"{phase.name}.end").exists():
            scene = Scene(
                phase=phase,
                states=states,
                data=job.data,
                place=job.place,
                draws=Draws(job.seed).at(phase.name),
                make_model=make_model,
                unlabelled_n=0 if job.unlabelled is None else len(job.unlabelled),
                recall=job.recall,
            )
            _train(scene, job, checkpoint)
            ranks.wait()
        states.update(_stored(phase, job))
        job.offset += phase.epochs * count_steps(phase, job.data)
    if not ships:
        return
    with ranks.first_then_others():
        if ranks.first:
            atomic.copy(job.run.state(f"{phases[-1].name}.end"), job.run.state(FINAL))
    job.report_done()


def _checkpoint(job: Job, allow_drift: bool) -> Checkpoint | None:
    """Return what to go on from; the first process alone compares machines and cuts the log: it wrote both."""
    first = job.place.ranks.first
    return resumable(job.run, job.identity, allow_drift=allow_drift or not first, cut=first)


def _remove_leftovers(job: Job) -> None:
    for path in job.run.states.glob("*"):
        if atomic.is_temporary(path):
            path.unlink(missing_ok=True)


def _train(scene: Scene, job: Job, checkpoint: Checkpoint | None) -> None:
    phase = scene.phase
    earlier = (line["seconds"] for line in metrics.read(job.run) if line["phase"] != phase.name)
    job.seconds_before = sum(earlier)
    training: Training | None = None
    try:
        training = begin(phase, scene.make_model(), scene)
        if checkpoint is not None and checkpoint.meta["phase"] == phase.name:
            training.restore(checkpoint.tensors, checkpoint.meta["training"])
            job.progress.note(f"going on with {phase.name} after step {training.step}")
        job.report("running", phase, training)
        with Watch() as watch:
            _watched(phase, training, job, watch)
    except Interrupted:
        raise
    except BaseException as error:
        state = "interrupted" if isinstance(error, KeyboardInterrupt) else "failed"
        # A full disk refuses the status too; what is told is the first refusal.
        with suppress(GossamerError):
            job.report(state, phase, training, str(error) or type(error).__name__)
        raise
    _store_end(phase, training, job)


def _watched(phase: Phase, training: Training, job: Job, watch: Watch) -> None:
    try:
        train_phase(phase, training, job, watch)
    except Interrupted as error:
        job.report("interrupted", phase, training, str(error))
        job.place.ranks.wait()
        raise


def _store_end(phase: Phase, training: Training, job: Job) -> None:
    """Write the phase's end, the file that marks it as done."""
    if not job.place.ranks.first:
        return
    best = job.run.state(f"{phase.name}.best")
    goes_back = training.verdict.action == "restore" or phase.select is not None
    if goes_back and best.exists():
        atomic.copy(best, job.run.state(f"{phase.name}.end"))
    else:
        store(job, f"{phase.name}.end", finalised(training, job))


def _stored(phase: Phase, job: Job) -> dict[str, Mapping[str, Tensor]]:
    names = [f"{phase.name}.end", f"{phase.name}.best", *(epoch_state(phase.name, epoch) for epoch in phase.publish)]
    return {name: atomic.read_safetensors(job.run.state(name)) for name in names if job.run.state(name).exists()}
