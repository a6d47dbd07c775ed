"""Networks whose tensors are named as HYDRA's and RobustBench's are, written for these tests."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import adaptive_avg_pool2d, relu


def lively(model: nn.Module, seed: int = 0) -> nn.Module:
    """Give batch norms statistics and affine parts that matter, and return the network in eval mode."""
    draws = torch.Generator().manual_seed(seed)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            for tensor in (module.running_mean, module.bias.data):
                assert tensor is not None
                tensor.normal_(0, 0.3, generator=draws)
            for tensor in (module.running_var, module.weight.data):
                assert tensor is not None
                tensor.uniform_(0.5, 1.5, generator=draws)
    return model.eval()


def kernel(inputs: int, outputs: int, size: int, stride: int = 1) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, size, stride, size // 2, bias=False)


class PostBlock(nn.Module):
    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1, self.bn1 = kernel(inputs, outputs, 3, stride), nn.BatchNorm2d(outputs)
        self.conv2, self.bn2 = kernel(outputs, outputs, 3), nn.BatchNorm2d(outputs)
        changes = stride > 1 or inputs != outputs
        self.shortcut = nn.Sequential(
            *([kernel(inputs, outputs, 1, stride), nn.BatchNorm2d(outputs)] if changes else [])
        )

    def forward(self, x: Tensor) -> Tensor:
        return relu(self.shortcut(x) + self.bn2(self.conv2(relu(self.bn1(self.conv1(x))))))


class BottleneckBlock(nn.Module):
    def __init__(self, inputs: int, width: int, stride: int) -> None:
        super().__init__()
        self.conv1, self.bn1 = kernel(inputs, width, 1), nn.BatchNorm2d(width)
        self.conv2, self.bn2 = kernel(width, width, 3, stride), nn.BatchNorm2d(width)
        self.conv3, self.bn3 = kernel(width, 4 * width, 1), nn.BatchNorm2d(4 * width)
        changes = stride > 1 or inputs != 4 * width
        self.shortcut = nn.Sequential(
            *([kernel(inputs, 4 * width, 1, stride), nn.BatchNorm2d(4 * width)] if changes else [])
        )

    def forward(self, x: Tensor) -> Tensor:
        out = relu(self.bn2(self.conv2(relu(self.bn1(self.conv1(x))))))
        return relu(self.shortcut(x) + self.bn3(self.conv3(out)))


class PreBlock(nn.Module):
    """activated: the shortcut reads the activation, as RobustBench's second version does."""

    def __init__(self, inputs: int, outputs: int, stride: int, *, activated: bool = True) -> None:
        super().__init__()
        self.bn1, self.conv1 = nn.BatchNorm2d(inputs), kernel(inputs, outputs, 3, stride)
        self.bn2, self.conv2 = nn.BatchNorm2d(outputs), kernel(outputs, outputs, 3)
        if stride > 1 or inputs != outputs:
            self.shortcut = nn.Sequential(kernel(inputs, outputs, 1, stride))
        self.activated = activated

    def forward(self, x: Tensor) -> Tensor:
        act = relu(self.bn1(x))
        skip = x
        if hasattr(self, "shortcut"):
            skip = self.shortcut(act if self.activated else x)
        return self.conv2(relu(self.bn2(self.conv1(act)))) + skip


class ResNet(nn.Module):
    """conv1, bn1 (post-activation alone), layer1 to layer4, bn (if asked for), linear."""

    def __init__(
        self, block: type, depths: Sequence[int], base: int, classes: int = 10, *, pre: bool = False, bn: bool = True
    ) -> None:
        super().__init__()
        expansion = 4 if block is BottleneckBlock else 1
        self.conv1 = kernel(3, base, 3)
        if not pre:
            self.bn1 = nn.BatchNorm2d(base)
        inputs = base
        for stage, depth in enumerate(depths):
            width = base * 2**stage
            blocks = []
            for index in range(depth):
                blocks.append(block(inputs, width, 2 if stage and not index else 1))
                inputs = expansion * width
            setattr(self, f"layer{stage + 1}", nn.Sequential(*blocks))
        if pre and bn:
            self.bn = nn.BatchNorm2d(inputs)
        self.linear = nn.Linear(inputs, classes)

    def forward(self, x: Tensor) -> Tensor:
        out = self.conv1(x)
        if hasattr(self, "bn1"):
            out = relu(self.bn1(out))
        for stage in (self.layer1, self.layer2, self.layer3, self.layer4):
            out = stage(out)  # type: ignore[operator]
        if hasattr(self, "bn"):
            out = relu(self.bn(out))
        return self.linear(adaptive_avg_pool2d(out, 1).flatten(1))


class WideBlock(nn.Module):
    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.bn1, self.conv1 = nn.BatchNorm2d(inputs), kernel(inputs, outputs, 3, stride)
        self.bn2, self.conv2 = nn.BatchNorm2d(outputs), kernel(outputs, outputs, 3)
        self.convShortcut = None if inputs == outputs else kernel(inputs, outputs, 1, stride)

    def forward(self, x: Tensor) -> Tensor:
        act = relu(self.bn1(x))
        out = self.conv2(relu(self.bn2(self.conv1(act))))
        return out + (x if self.convShortcut is None else self.convShortcut(act))


class WideStage(nn.Module):
    def __init__(self, inputs: int, outputs: int, depth: int, stride: int) -> None:
        super().__init__()
        first = WideBlock(inputs, outputs, stride)
        self.layer = nn.Sequential(first, *(WideBlock(outputs, outputs, 1) for _ in range(depth - 1)))

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x)


class WideResNet(nn.Module):
    """conv1, block1 to block3, bn1, fc; sub_block1 is built and never called."""

    def __init__(
        self, depth: int = 28, width: int = 2, classes: int = 10, *, sub_block1: bool = False, bias: bool = True
    ) -> None:
        super().__init__()
        each = (depth - 4) // 6
        self.conv1 = kernel(3, 16, 3)
        self.block1 = WideStage(16, 16 * width, each, 1)
        if sub_block1:
            self.sub_block1 = WideStage(16, 16 * width, each, 1)
        self.block2 = WideStage(16 * width, 32 * width, each, 2)
        self.block3 = WideStage(32 * width, 64 * width, each, 2)
        self.bn1 = nn.BatchNorm2d(64 * width)
        self.fc = nn.Linear(64 * width, classes, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        out = relu(self.bn1(self.block3(self.block2(self.block1(self.conv1(x))))))
        return self.fc(adaptive_avg_pool2d(out, 1).flatten(1))


class VGG(nn.Module):
    """features.N of convolution, batch norm, ReLU, pooling after the first four blocks; classifier.0, .2, .4."""

    def __init__(self, classes: int = 10) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        inputs = 3
        for block, (width, count) in enumerate(((64, 2), (128, 2), (256, 3), (512, 3), (512, 3))):
            for _ in range(count):
                layers += [kernel(inputs, width, 3), nn.BatchNorm2d(width), nn.ReLU()]
                inputs = width
            if block < 4:
                layers.append(nn.MaxPool2d(2))
        self.features = nn.Sequential(*layers)
        self.classifier = nn.Sequential(
            *(nn.Linear(2048, 256), nn.ReLU(), nn.Linear(256, 256), nn.ReLU(), nn.Linear(256, classes))
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.classifier(adaptive_avg_pool2d(self.features(x), 2).flatten(1))


def scored(model: nn.Module, seed: int = 0) -> nn.Module:
    """Give every kernel popup_scores of its shape, as HYDRA's layers have."""
    draws = torch.Generator().manual_seed(seed)
    for module in model.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            module.popup_scores = nn.Parameter(torch.randn(module.weight.shape, generator=draws))
    return model


@torch.no_grad()
def pruned(model: nn.Module, k: float) -> nn.Module:
    """Set to zero what HYDRA's forward masks out: of n weights the int((1 - k) n) of the smallest |score|."""
    for module in model.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            scores = module.popup_scores.abs().flatten()  # type: ignore[operator,union-attr]
            gone = scores.argsort()[: int((1 - k) * scores.numel())]
            module.weight.view(-1)[gone] = 0.0
    return model
