"""Small networks and images that several tests of evaluation share."""

import torch
from torch import nn


def gen(seed):
    return torch.Generator().manual_seed(seed)


def convnet(seed=0):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = nn.Sequential(
            nn.Conv2d(2, 6, 3, padding=1),
            nn.BatchNorm2d(6),
            nn.ReLU(),
            nn.Conv2d(6, 4, 3),
            nn.Flatten(),
            nn.Linear(4 * 16, 3),
        )
        for _ in range(3):
            model(torch.rand(16, 2, 6, 6))
    return model


def labelled(model, n=24, shape=(2, 6, 6), seed=1):
    x = torch.rand(n, *shape, generator=gen(seed))
    training = model.training
    with torch.no_grad():
        y = model.eval()(x).argmax(dim=1)
    model.train(training)
    return x, y
