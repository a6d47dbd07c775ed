"""The training loop: one phase, from its first step or from where a checkpoint left it, to its end."""

import signal
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm  # pyright: ignore[reportPrivateUsage]

from gossamer.data import DataSet, epoch_order, make_batch
from gossamer.data.unlabelled import mixed_batch
from gossamer.errors import RunError
from gossamer.runs import atomic
from gossamer.seeding import Draws, Part, derive
from gossamer.sparsity import Finalised
from gossamer.training.averages import Average
from gossamer.training.checkpointing import Training
from gossamer.training.crafting import Crafter
from gossamer.training.devices import Place
from gossamer.training.interruption import Interrupted, Watch
from gossamer.training.job import DIVERGED, Job
from gossamer.training.monitors import ACTIONS, Highest, Measuring, Verdict, decide
from gossamer.training.phases import Phase, epoch_state
from gossamer.training.progress import Glance
from gossamer.training.ranks import Ranks
from gossamer.training.scene import Scene, count_steps, labelled_size, whole_batch
from gossamer.types import Attack, Batch, Loss, Objective


def begin(phase: Phase, model: nn.Module, scene: Scene) -> Training:
    """Return the moving parts of a phase at its first step; the model is taken over."""
    place = scene.place
    # What a start draws from the global generator is a function of the phase, like everything else.
    torch.manual_seed(derive(scene.draws.seed, *scene.draws.keys, "start"))
    place.prepare(model)
    phase.start(model, scene)
    place.prepare(model)
    sparsifier = phase.sparsifier()
    sparsifier.attach(model, scene.draws.at("sparsifier"), scene.horizon)
    place.prepare(model)
    objective = phase.objective if phase.equip is None else phase.equip(phase.objective, scene)
    training = Training(
        model=model,
        objective=objective,
        optimizer=phase.optimizer.build(model, sparsifier.undecayed()),
        sparsifier=sparsifier,
        state=scene.initial_state(objective),
        average=Average(phase.average, sparsifier.averaged) if phase.average else None,
        monitors=list(phase.monitors()),
        best=Highest(phase.select) if phase.select else None,
    )
    if place.ranks.several:
        _begin_alike(training, place)
    return training


def _begin_alike(training: Training, place: Place) -> None:
    """Take over what the first rank found: scores of a start may differ in their last bits from GPU to GPU."""
    tensors = training.tensors()
    place.ranks.take_first(list(tensors.values()))
    training.restore(tensors, training.meta())


def train_phase(phase: Phase, training: Training, job: Job, watch: Watch) -> None:
    """Run a phase from where `training` stands to its end.

    Raises RunError for a loss that is not finite and for memory that does not suffice, Interrupted after a signal; in
    each case the last good checkpoint stands.
    """
    draws = Draws(job.seed).at(phase.name)
    data = job.data.to(job.place.device)
    pool = None if job.unlabelled is None else job.unlabelled.to(job.place.device)
    size = labelled_size(phase)
    steps = count_steps(phase, data)
    ranks = job.place.ranks
    part = ranks.part(whole_batch(phase, data))
    crafter = Crafter(training.model, job.place, phase.attack_bn, fast=phase.fast)
    network = job.place.compiled(training.model)
    if training.step == 0:
        publish(phase, training, job)
    while training.epoch < phase.epochs and training.verdict.action == "go":
        order = epoch_order(len(data), draws=draws.at("epoch", training.epoch))
        attack = phase.attack if phase.adapt is None else phase.adapt(phase.attack, training.sparsifier)
        for index in range(training.index, steps):
            began = time.monotonic()
            number, replay = divmod(index, phase.replays)
            here = draws.at("step", training.epoch, number)
            positions = order[number * size : (number + 1) * size]
            factor = phase.schedule(training.step, phase.epochs * steps, steps)
            training.rate = phase.optimizer.set_rates(training.optimizer, factor)
            with _failures_told(phase, training):
                batch = _batch(phase, data, pool, positions, here, job.place.device, part)
                drawn = ranks.draws(here.at("replay", replay) if replay else here, part)
                train_step(
                    phase, training, batch, attack, crafter=crafter, network=network, place=job.place, draws=drawn
                )
            training.advance(time.monotonic() - began)
            _show(phase, training, job, steps)
            if ranks.any(watch.signal is not None):
                job.save(phase, training)
                # Who leaves first ends the others' process group, and with it a checkpoint that is being written.
                ranks.wait()
                raise Interrupted(watch.signal or signal.SIGTERM)
            if training.index < steps:
                job.save_if_due(phase, training)
        improved = _end_epoch(phase, training, job, steps)
        publish(phase, training, job)
        if improved:
            # The stored best state and the checkpoint that remembers it stay together.
            job.save(phase, training)
        job.save_if_due(phase, training)
    job.save(phase, training)
    if ranks.any(watch.signal is not None):
        ranks.wait()
        raise Interrupted(watch.signal or signal.SIGTERM)


def _batch(
    phase: Phase,
    data: DataSet,
    pool: DataSet | None,
    positions: Tensor,
    draws: Draws,
    device: torch.device,
    part: Part | None,
) -> Batch:
    count = phase.batch_size - labelled_size(phase)
    if pool is None or not count:
        return make_batch(data, positions, phase.augmentation, draws, device, part=part)
    return mixed_batch(data, positions, pool, count, phase.augmentation, draws, device, part=part)


def finalised(training: Training, job: Job) -> Finalised:
    """Return what would ship now: the average where there is one."""
    if training.average is None:
        return training.sparsifier.finalize(training.model)
    # Statistics of a noisy network are drawn: as every step's, whether or not the run was stopped before.
    torch.manual_seed(derive(job.seed, "average", training.step))
    return training.average.finalise(training.model, training.sparsifier, lambda: _images(job))


def train_step(
    phase: Phase,
    training: Training,
    batch: Batch,
    attack: Attack | None,
    *,
    crafter: Crafter,
    network: Callable[[Tensor], Tensor],
    place: Place,
    draws: Draws,
) -> None:
    """Take one step: craft, loss, gradients, masks, optimiser; the parts of `training` move, its counters do not.

    network: the model, compiled where the place compiles. Raises RunError for a loss that is not finite.
    """
    # Dropout and the like draw from the global generator, so that it too is a function of the step.
    torch.manual_seed(derive(draws.seed, *draws.keys, "model"))
    batch = place.batch(batch)
    x_adv, loss = _gradients(phase, training, batch, attack, crafter, network, place, draws)
    if loss.after_backward is not None and x_adv.grad is not None:
        loss.after_backward(x_adv.grad, training.state)
    place.ranks.exchange(training.state, _state_rows(training.objective, batch))
    training.sparsifier.before_step(training.step, training.optimizer)
    if phase.clip is not None:
        nn.utils.clip_grad_norm_(training.model.parameters(), phase.clip)
    training.optimizer.step()
    training.sparsifier.after_step(training.step, training.optimizer)
    if place.ranks.several and not place.sync_batch_norm:
        place.ranks.take_first(_running(training.model))
    if training.average is not None:
        training.average.after_step(training.epoch, training.model)
    training.totals.add(loss, batch, place.ranks.sums)


def _gradients(
    phase: Phase,
    training: Training,
    batch: Batch,
    attack: Attack | None,
    crafter: Crafter,
    network: Callable[[Tensor], Tensor],
    place: Place,
    draws: Draws,
) -> tuple[Tensor, Loss]:
    """Craft, and leave the mean gradient over all ranks in the parameters; returns x_adv and the loss."""
    x_adv = crafter(
        training.objective,
        training.model,
        batch,
        attack,
        training.state,
        draws=draws.at("attack"),
        network=network,
    )
    training.model.train()
    training.optimizer.zero_grad(set_to_none=True)

    def compute() -> tuple[Loss, Tensor]:
        with place.autocast(), place.synchronised(training.model):
            loss = training.objective.loss(network, batch, x_adv, draws=draws.at("loss"))  # pyright: ignore[reportArgumentType]
            return loss, _with_penalties(phase, training, loss.total)

    with _perturbed(phase, training, lambda: compute()[0].total, place):
        loss, total = compute()
        _refuse_infinite(total, phase, training, place)
        total.backward()
    place.ranks.average([parameter.grad for parameter in training.model.parameters()])
    return x_adv, loss


def _state_rows(objective: Objective, batch: Batch) -> Tensor:
    """Return which rows of its state an objective has moved for the images of a batch."""
    if getattr(objective, "state_rows", "image") == "batch" and batch.part is not None:
        return torch.tensor(batch.part.rows)
    return batch.index


def _with_penalties(phase: Phase, training: Training, total: Tensor) -> Tensor:
    own = training.sparsifier.penalty(training.model)
    total = total if own is None else total + own
    for penalty in phase.penalties:
        total = total + penalty(training.model)
    return total


def _perturbed(
    phase: Phase, training: Training, loss: Callable[[], Tensor], place: Place
) -> AbstractContextManager[None]:
    if phase.perturbation is None:
        return nullcontext()
    return phase.perturbation.around(
        training.model, training.sparsifier, training.epoch, loss, average=place.ranks.average
    )


def publish(phase: Phase, training: Training, job: Job) -> None:
    """Keep the weights as they stand between two epochs, where the phase is asked to."""
    if training.epoch in phase.publish:
        store(job, epoch_state(phase.name, training.epoch), training.sparsifier.finalize(training.model))


def _end_epoch(phase: Phase, training: Training, job: Job, steps: int) -> bool:
    """Measure, log and decide; returns whether a new best state was stored."""
    epoch = training.epoch
    if training.average is not None:
        training.average.after_epoch(epoch, training.model)
    masks = training.sparsifier.masks()
    what = f"after epoch {epoch + 1} of {phase.name}"
    job.place.ranks.check_same(f"masks {what}", masks)
    job.place.ranks.check_same(f"weights {what}", training.model.state_dict())
    means = training.totals.means()
    measured = _probe(phase, training, job)
    metrics = {**means, **measured}
    training.sparsifier.after_epoch(epoch, metrics)
    counted = {f"sparsifier/{name}": value for name, value in training.sparsifier.measures().items()}
    verdict = decide(training.monitors, epoch, {**metrics, **counted})
    job.log(
        {
            "phase": phase.name,
            "epoch": epoch + 1,
            "step": job.offset + training.step,
            "learning_rate": training.rate,
            **means,
            "density": masks.density,
            "active": masks.kept,
            "images_per_second": steps * phase.batch_size / max(training.epoch_seconds, 1e-9),
            "seconds": training.epoch_seconds,
            "seconds_left": _seconds_left(phase, training, steps),
            **counted,
            **measured,
            **_told(training),
        },
        phase.epochs,
    )
    improved = training.best is not None and training.best.update(epoch, metrics)
    if improved:
        store(job, f"{phase.name}.best", finalised(training, job))
    training.verdict = _agreed(verdict, job.place.ranks)
    if training.verdict.action != "go":
        job.progress.note(f"{phase.name} ends after epoch {epoch + 1}: {training.verdict.reason}")
    training.next_epoch()
    return improved


def _agreed(verdict: Verdict, ranks: Ranks) -> Verdict:
    """Return the first rank's verdict: a monitor may look at a clock, or at numbers that differ in their last bits."""
    if not ranks.several:
        return verdict
    action = ACTIONS[ranks.agree(ACTIONS.index(verdict.action))]
    return verdict if action == verdict.action else Verdict(action, None, "as the first process decided")


def _running(model: nn.Module) -> list[Tensor]:
    """Return the running statistics of all batch norms, and how many batches each has seen.

    Attacks that move them may make more passes for the images of one rank than for those of another.
    """
    norms = [module for module in model.modules() if isinstance(module, _BatchNorm)]
    kept = [(norm.running_mean, norm.running_var, norm.num_batches_tracked) for norm in norms]
    return [each for own in kept for each in own if each is not None]


def _told(training: Training) -> dict[str, float | int | str | None]:
    """Return what monitors saw, and what the objective keeps for every image, counted apart from the network."""
    told: dict[str, float | int | str | None] = {}
    for monitor in training.monitors:
        if isinstance(monitor, Measuring):
            told.update(monitor.measures())
    for name, value in training.state.items():
        told[f"{name}_bytes"] = value.nbytes
        told[f"{name}_type"] = str(value.dtype).removeprefix("torch.")
    return told


def _probe(phase: Phase, training: Training, job: Job) -> dict[str, float | None]:
    if not phase.probes:
        return {}
    last = training.epoch + 1 == phase.epochs
    module = finalised(training, job).module.float()
    found: dict[str, float | None] = {}
    for probe in phase.probes:
        told = probe(training.epoch, module, last=last, seed=job.seed, ranks=job.place.ranks)
        # What one probe leaves out this time another may have measured.
        found |= {name: value for name, value in told.items() if value is not None or name not in found}
    return found


def store(job: Job, name: str, what: Finalised) -> None:
    """Write a named state of the run: the tensors of what would ship, its form, and its dense parent's weights."""
    if not job.place.ranks.first:
        return
    about = {"form": what.form, "kind": what.kind, "dense_weights": str(what.dense_weights)}
    # What ships is float32, whatever it was trained in.
    atomic.write_safetensors(job.run.state(name), what.module.float().state_dict(), about)


def _show(phase: Phase, training: Training, job: Job, steps: int) -> None:
    if not job.progress.due():
        return
    means = training.totals.means()
    job.progress.step(
        Glance(
            phase=phase.name,
            epoch=training.epoch + 1,
            epochs=phase.epochs,
            index=training.index,
            steps=steps,
            loss=means["loss"],
            clean=means["clean_accuracy"],
            robust=means["robust_accuracy"],
            density=training.sparsifier.masks().density,
            images_per_second=training.index * phase.batch_size / max(training.epoch_seconds, 1e-9),
            seconds_left=_seconds_left(phase, training, steps),
        )
    )


def _seconds_left(phase: Phase, training: Training, steps: int) -> float:
    return training.seconds / max(training.step, 1) * (phase.epochs * steps - training.step)


def _images(job: Job) -> Iterator[Tensor]:
    data = job.data.to(job.place.device)
    for positions in torch.arange(len(data)).split(256):
        yield job.place.images(data.float(positions))


def _refuse_infinite(total: Tensor, phase: Phase, training: Training, place: Place) -> None:
    if place.ranks.all(torch.isfinite(total.detach())):
        return
    raise RunError(
        f"loss of {phase.name}, epoch {training.epoch + 1}, step {training.index + 1}",
        expected="a finite number",
        got=float(total.detach()) if not bool(torch.isfinite(total)) else "another one in another process",
        remedy=f"{DIVERGED}; the last good checkpoint is kept",
    )


@contextmanager
def _failures_told(phase: Phase, training: Training) -> Generator[None]:
    try:
        yield
    except (torch.OutOfMemoryError, MemoryError, RuntimeError) as error:
        if not _is_out_of_memory(error):
            raise
        raise RunError(
            f"memory, in {phase.name}, epoch {training.epoch + 1}, step {training.index + 1}",
            expected=f"room for a batch of {phase.batch_size}",
            got=str(error).splitlines()[0],
            remedy="lower training.batch_size; the last good checkpoint is kept",
        ) from error


def _is_out_of_memory(error: BaseException) -> bool:
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or "can't allocate memory" in str(error)
