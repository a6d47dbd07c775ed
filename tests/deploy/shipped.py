"""What the tests of artifacts share: a small network whose batch norm matters, and its images."""

import torch
from torch import Tensor, nn

from gossamer.data import DataSet, from_tensors


def small(classes: int = 3, *, density: float = 0.5) -> nn.Module:
    """Return a network of 2 x 6 x 6 images, in eval mode, the same at every call."""
    draws = torch.Generator().manual_seed(3)
    network = nn.Sequential(
        nn.Conv2d(2, 8, 3, padding=1),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.AvgPool2d(2),
        nn.Flatten(),
        nn.Linear(72, classes),
    )
    with torch.no_grad():
        for tensor in network.state_dict().values():
            if tensor.is_floating_point():
                tensor.copy_(torch.rand(tensor.shape, generator=draws) - 0.4)
        network[1].running_var.add_(0.5)  # type: ignore[operator]
        for layer in (network[0], network[5]):
            kept = torch.rand(layer.weight.shape, generator=draws) < density  # type: ignore[arg-type]
            layer.weight.mul_(kept)  # type: ignore[operator]
    return network.eval()


def even(classes: int = 3) -> nn.Module:
    """Return the small network with its last biases such that it gives every class to some images."""
    network = small(classes)
    with torch.no_grad():
        network[5].bias.sub_(network(images(40)).mean(dim=0))  # type: ignore[operator,index]
    return network


def images(count: int = 16) -> Tensor:
    return torch.rand(count, 2, 6, 6, generator=torch.Generator().manual_seed(4))


def labelled(network: nn.Module, count: int = 40) -> DataSet:
    """Return images with the labels that the network gives them."""
    x = images(count)
    with torch.no_grad():
        y = network(x).argmax(dim=1)
    return from_tensors(x, y, part="test", classes=list("abcde"))
