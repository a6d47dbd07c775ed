"""Made-up explanations of a run: maps of which the tests know every value."""

import torch

from gossamer.runs import explanations, results


def looks(count=3, *, size=8, channels=1, cams=True, index=None, **about):
    place = torch.arange(size * size, dtype=torch.float32).view(1, size, size).expand(count, -1, -1)
    ramp = (place / (size * size - 1)).contiguous()
    told = {
        "dataset": results.Dataset(
            name="synthetic-digits", part="test", checksum="c0ffee", selection="chosen", n=count
        ),
        "classes": ("zero", "one", "<two>"),
        "index": index or tuple(range(count)),
        "labels": tuple(i % 3 for i in range(count)),
        "clean_predictions": tuple(i % 3 for i in range(count)),
        "clean_confidences": (0.97,) * count,
        "adversarial_predictions": (1,) * count,
        "adversarial_confidences": (0.61,) * count,
        "attack": "pgd",
        "attack_parameters": {"steps": 20},
        "threat": "linf:0.15",
        "seed": 0,
        "layer": "conv3" if cams else None,
        "reason": "" if cams else "no convolution has an output of more than one place",
        "environment": {"command": "gossamer explain sparse dense"},
    }
    noise = torch.rand(count, channels, size, size, generator=torch.Generator().manual_seed(0))
    return explanations.Explanations(
        images=(noise * 255).to(torch.uint8),
        adversarial=noise,
        clean_gradients=2 * ramp - 1,
        adversarial_gradients=torch.zeros(count, size, size),
        clean_cams=0.01 * ramp if cams else None,
        adversarial_cams=ramp if cams else None,
        about=explanations.About(**{**told, **about}),
    )
