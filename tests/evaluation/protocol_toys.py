"""Linear models whose robustness has a closed form, and modules that count or refuse their calls."""

import torch
from evaluation_toys import gen
from torch import nn

SHAPE = (1, 3, 4)


class Plane(nn.Module):
    """Two classes parted by w.x = b; linf radius |w.x - b| / |w|_1, l2 radius |w.x - b| / |w|_2."""

    def __init__(self, w, b=None):
        super().__init__()
        b = 0.5 * float(w.sum()) if b is None else b
        self.layer = nn.Linear(w.numel(), 2)
        with torch.no_grad():
            self.layer.weight.copy_(torch.stack([-w, w]) / 2)
            self.layer.bias.copy_(torch.tensor([b, -b]) / 2)
        self.calls = 0

    def forward(self, x):
        self.calls += 1
        return self.layer(x.flatten(1))

    def signed(self, x):
        """Return w.x - b: (N,)."""
        with torch.no_grad():
            logits = self.layer(x.flatten(1))
        return logits[:, 1] - logits[:, 0]

    def radius(self, x):
        return self.signed(x).abs() / (self.layer.weight[1] * 2).abs().sum().detach()


class Constant(nn.Module):
    """Always class 0, whatever the image."""

    def __init__(self, classes=3):
        super().__init__()
        self.classes = classes
        self.calls = 0

    def forward(self, x):
        self.calls += 1
        fixed = torch.zeros(self.classes)
        fixed[0] = 1.0
        return fixed + 0.0 * x.flatten(1).sum(dim=1, keepdim=True)


def plane(seed=0):
    return Plane(torch.randn(12, generator=gen(seed)))


def images(n=40, seed=1):
    """Return images that no perturbation below 0.2 takes out of the box."""
    return 0.2 + 0.6 * torch.rand(n, *SHAPE, generator=gen(seed))


def labels(model, x):
    return (model.signed(x) > 0).long()


class KilledError(Exception):
    """A kill, as far as a test in one process can have one."""
