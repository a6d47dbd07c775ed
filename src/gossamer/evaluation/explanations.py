"""Where does a network look? Input gradients and Grad-CAM of a few images, clean and attacked, by captum."""

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from itertools import count
from typing import Any, cast

import torch
from torch import Tensor, nn

from gossamer.attacks.checks import check_count
from gossamer.attacks.eot import Expectation
from gossamer.errors import ConfigError, RunError
from gossamer.evaluation.judge import admit, predict
from gossamer.evaluation.samples import Data, as_dataset, check_labels
from gossamer.evaluation.subject import at_rest, count_classes, place_of, seed_noise
from gossamer.evaluation.trials import parameters, plan_trials
from gossamer.runs import results
from gossamer.runs.environment import environment
from gossamer.runs.explanations import About, Explanations
from gossamer.seeding import Draws, derive
from gossamer.sparsity.factor_layers import FactorLayer
from gossamer.types import Attack

SELECTION = "the first of each class in turn"
_CONVOLUTIONS = (nn.Conv2d, FactorLayer)


@dataclass(frozen=True, kw_only=True)
class _Seen:
    """What was seen of one batch; maps: (N, H, W); cams: None without a layer."""

    probabilities: Tensor
    gradients: Tensor
    cams: Tensor | None


def explain(
    model: nn.Module,
    data: Data,
    attack: Attack,
    *,
    n: int = 8,
    layer: str | None = None,
    passes: int = 20,
    seed: int = 0,
    device: torch.device | str | None = None,
) -> Explanations:
    """Return input gradients and Grad-CAM of n images, clean and attacked, of the logit of their label.

    The images depend on the data alone: the first one of each class in turn, then the second ones, so that those of
    several networks stand side by side. The attack works on the model itself; a point outside its threat is shown as
    the clean image. layer: of Grad-CAM, by its name in the model; by default the last convolution whose output has more
    than one place, and no Grad-CAM where there is none. A model that draws noise from torch's global generator is
    attacked and explained in the mean over `passes` draws. The model comes back as it was.

    Raises ConfigError where captum is not installed, for an unknown layer or one without places, an attack without a
    threat and impossible numbers; DataError for data that do not fit the model; RunError for numbers that are not
    finite.
    """
    _captum()
    check_count("passes", passes)
    dataset = as_dataset(data)
    _check_n(n, len(dataset))
    trial = plan_trials(attack)[0]
    positions, place = _first_of_each_class(dataset.labels.cpu(), n), place_of(model, device)
    x, y = dataset.float(positions, device=place), dataset.labels[positions.to(dataset.labels.device)].to(place)
    index = dataset.index.cpu()[positions]
    with at_rest(model, place) as resting:
        check_labels(dataset, count_classes(resting, x[:1]))
        name, module = _layer(resting, x[:1], layer)
        draws = passes if _draws_noise(resting, x[:1], seed) else 1
        strong = trial.attack if draws == 1 else Expectation(attack=trial.attack, passes=passes)
        seed_noise(derive(seed, "explain", "attack"), place)
        keyed = Draws(seed).at("explain", trial.name).per_sample(index)
        shown, _ = admit(strong(resting, x, y, draws=keyed), x, trial.threat)
        looks = [_look(resting, module, images, y, index, draws, seed) for images in (x, shown)]
    clean, attacked = looks
    clean_opinions, attacked_opinions = (_opinions(each.probabilities) for each in looks)
    return Explanations(
        images=(x * 255).round().to(torch.uint8).cpu(),
        adversarial=shown.float().cpu(),
        clean_gradients=clean.gradients,
        adversarial_gradients=attacked.gradients,
        clean_cams=clean.cams,
        adversarial_cams=attacked.cams,
        about=About(
            dataset=results.Dataset(
                name=dataset.name, part=dataset.part, checksum=dataset.checksum, selection=SELECTION, n=n
            ),
            classes=dataset.classes,
            index=tuple(index.tolist()),
            labels=tuple(y.tolist()),
            clean_predictions=clean_opinions[0],
            clean_confidences=clean_opinions[1],
            adversarial_predictions=attacked_opinions[0],
            adversarial_confidences=attacked_opinions[1],
            attack=trial.name,
            attack_parameters=parameters(trial.attack),
            threat=str(trial.threat),
            seed=seed,
            passes=draws,
            layer=name,
            reason="" if name else "no convolution has an output of more than one place",
            environment=environment(place),
        ),
    )


def input_gradient(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    """Return the gradient of the logit of y: (N,) by x, with its sign; both (N, C, H, W).

    Of the logit, not of the loss, whose gradient vanishes where the model is sure, whatever it looks at. By captum's
    Saliency (Simonyan et al., 2014). Images must not affect one another: the model is in eval mode.
    """
    with torch.enable_grad():
        image = x.detach().clone().requires_grad_()
        return _captum().Saliency(model).attribute(image, target=y, abs=False).detach()


def grad_cam(model: nn.Module, layer: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    """Return what places of a layer's output speak for the logit of y: (N,); (N, H, W) >= 0 for x: (N, C, H, W).

    Grad-CAM (Selvaraju et al., ICCV 2017, equations 1 and 2) by captum, brought to the image's size bilinearly.
    """
    tools = _captum()
    with torch.enable_grad():
        image = x.detach().clone().requires_grad_()
        maps = tools.LayerGradCam(model, layer).attribute(image, target=y, relu_attributions=True).detach()
    return tools.LayerAttribution.interpolate(maps, tuple(x.shape[-2:]), "bilinear").squeeze(1)


def require_captum() -> None:
    """Raise ConfigError where captum is not installed."""
    _captum()


def _captum() -> Any:
    try:
        return importlib.import_module("captum.attr")
    except ImportError as error:
        raise ConfigError(
            "explanations",
            expected="captum to be installed",
            got="no such package",
            remedy="pip install 'gossamer[explain]'",
        ) from error


def _check_n(n: int, size: int) -> None:
    if not 1 <= n <= size:
        raise ConfigError(
            "images to explain", expected=f"a number in [1, {size}]", got=n, remedy="write for example --n 8"
        )


def _first_of_each_class(labels: Tensor, n: int) -> Tensor:
    """Return n positions: the first of every class, in order of the classes, then the second, and so on."""
    ranks: dict[int, count[int]] = {}
    places = [
        (next(ranks.setdefault(label, count())), label, position) for position, label in enumerate(labels.tolist())
    ]
    return torch.tensor([position for *_, position in sorted(places)[:n]])


def _layer(model: nn.Module, image: Tensor, name: str | None) -> tuple[str | None, nn.Module | None]:
    """Return Grad-CAM's layer; raises ConfigError where one is named that is none."""
    modules, extents = dict(model.named_modules()), _extents(model, image)
    if name is None:
        found = [each for each in extents if isinstance(modules[each], _CONVOLUTIONS)]
        return (found[-1], modules[found[-1]]) if found else (None, None)
    if name in extents:
        return name, modules[name]
    raise ConfigError(
        f"--layer {name}",
        expected=f"a layer whose output has places: {', '.join(extents) or 'the model has none'}",
        got="a layer without" if name in modules else "no layer of that name",
        remedy="name another, or leave it out",
    )


def _extents(model: nn.Module, image: Tensor) -> dict[str, tuple[int, ...]]:
    """Return the outputs' shapes of the layers that have more than one place, in the order in which they ended."""
    seen: dict[str, tuple[int, ...]] = {}

    def recorder(name: str) -> Callable[[nn.Module, object, object], None]:
        def record(_: nn.Module, __: object, output: object) -> None:
            if isinstance(output, Tensor) and output.dim() == 4 and output.shape[2:].numel() > 1:
                seen.pop(name, None)
                seen[name] = tuple(output.shape)

        return record

    hooks = [module.register_forward_hook(recorder(name)) for name, module in model.named_modules() if name]
    try:
        predict(model, image)
    finally:
        for hook in hooks:
            hook.remove()
    return seen


def _draws_noise(model: nn.Module, image: Tensor, seed: int) -> bool:
    said: list[Tensor] = []
    for again in range(2):
        seed_noise(derive(seed, "explain", "noise", again), image.device)
        said.append(predict(model, image))
    return not torch.equal(*said)


def _look(
    model: nn.Module, layer: nn.Module | None, x: Tensor, y: Tensor, index: Tensor, passes: int, seed: int
) -> _Seen:
    """Look at images one by one, so that neither their number nor their order decides what noise one is shown with."""
    found = [_mean_look(model, layer, x[i : i + 1], y[i : i + 1], int(index[i]), passes, seed) for i in range(len(x))]
    cams = [cast("Tensor", each.cams) for each in found] if layer is not None else None
    return _Seen(
        probabilities=torch.cat([each.probabilities for each in found]),
        gradients=torch.cat([each.gradients for each in found]),
        cams=None if cams is None else torch.cat(cams),
    )


def _mean_look(
    model: nn.Module, layer: nn.Module | None, x: Tensor, y: Tensor, sample: int, passes: int, seed: int
) -> _Seen:
    def mean(measure: Callable[[], Tensor]) -> Tensor:
        total = torch.zeros(())
        for number in range(passes):
            # The same draws for what the network says, its gradient and its Grad-CAM.
            seed_noise(derive(seed, "explain", "sample", sample, "pass", number), x.device)
            total = total + measure().float().cpu() / passes
        if bool(total.isfinite().all()):
            return total
        raise RunError(
            f"explanation of sample {sample}",
            expected="finite numbers",
            got="NaN or infinity",
            remedy="look for a diverged training or a division by zero in the model",
        )

    return _Seen(
        probabilities=mean(lambda: predict(model, x).softmax(dim=1)),
        gradients=mean(lambda: input_gradient(model, x, y).sum(dim=1)),
        cams=None if layer is None else mean(lambda: grad_cam(model, layer, x, y)),
    )


def _opinions(probabilities: Tensor) -> tuple[tuple[int, ...], tuple[float, ...]]:
    confidences, predictions = probabilities.max(dim=1)
    return tuple(predictions.tolist()), tuple(confidences.tolist())
