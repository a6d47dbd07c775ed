import pytest
import torch
from torch import Tensor, nn

CLASSES = 5


@pytest.fixture
def convnet() -> nn.Module:
    """Return a small untrained network with batch norm and dropout, in eval mode, its running statistics moved."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net = nn.Sequential(
            nn.Conv2d(3, 8, 3, padding=1),
            nn.BatchNorm2d(8),
            nn.ReLU(),
            nn.Conv2d(8, 8, 3, stride=2, padding=1),
            nn.ReLU(),
            nn.Flatten(),
            nn.Dropout(0.5),
            nn.Linear(8 * 4 * 4, CLASSES),
        )
        net(torch.rand(32, 3, 8, 8))
    return net.eval()


@pytest.fixture
def images() -> Tensor:
    return torch.rand(16, 3, 8, 8, generator=torch.Generator().manual_seed(1))


@pytest.fixture
def labels(convnet: nn.Module, images: Tensor) -> Tensor:
    """Return what the network predicts, but for two images: an attack has something to break."""
    with torch.no_grad():
        predicted = convnet(images).argmax(dim=1)
    predicted[:2] = (predicted[:2] + 1) % CLASSES
    return predicted


class Linear(nn.Module):
    """Logits x W with a chosen W: (d, K)."""

    def __init__(self, weight: Tensor) -> None:
        super().__init__()
        self.weight = nn.Parameter(weight)

    def forward(self, x: Tensor) -> Tensor:
        return x.flatten(1) @ self.weight


@pytest.fixture
def linear() -> Linear:
    """Return a linear model of two classes: the loss of class 0 rises along w = W_1 - W_0 at every point."""
    weight = torch.randn(12, 2, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    return Linear(weight)
