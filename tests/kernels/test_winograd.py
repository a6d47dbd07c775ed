import platform

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn.functional import conv2d

from gossamer.kernels import winograd
from gossamer.kernels.winograd import Convolution, Gate, convolve, input_gradient, pays

CLOSE = 5e-5


def winograd_conv(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    add: Tensor | None = None,
    gate: Tensor | None = None,
    *,
    relu: bool = False,
    transposed: bool = False,
) -> Tensor:
    return torch.ops.gossamer.winograd_conv3x3(x, weight, bias, add, gate, relu, transposed)


def assert_close(got: Tensor, want: Tensor) -> None:
    assert got.dtype == torch.float32
    assert got.is_contiguous(memory_format=torch.channels_last)
    assert float((got.double() - want).abs().max()) <= CLOSE * max(1.0, float(want.abs().max()))


def draw(seed: int, *shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def problem(images: int, inputs: int, outputs: int, height: int, width: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    x = draw(1, images, inputs, height, width)
    weight = draw(2, outputs, inputs, 3, 3) / (9 * inputs) ** 0.5
    return x, weight, draw(3, outputs), draw(4, images, outputs, height, width)


shapes = st.tuples(st.integers(1, 5), st.integers(1, 65), st.integers(1, 65), st.integers(1, 13), st.integers(1, 13))


@settings(max_examples=30, deadline=None)
@given(shape=shapes, has_bias=st.booleans(), has_add=st.booleans(), relu=st.booleans())
def test_forward_is_the_convolution(
    shape: tuple[int, int, int, int, int], has_bias: bool, has_add: bool, relu: bool
) -> None:
    x, weight, bias, add = problem(*shape)
    want = conv2d(x.double(), weight.double(), bias.double() if has_bias else None, padding=1)
    if has_add:
        want = want + add.double()
    if relu:
        want = want.relu()
    assert_close(winograd_conv(x, weight, bias if has_bias else None, add if has_add else None, relu=relu), want)


@settings(max_examples=30, deadline=None)
@given(shape=shapes, has_add=st.booleans(), gated=st.booleans())
def test_transposed_is_the_gradient_at_the_input(
    shape: tuple[int, int, int, int, int], has_add: bool, gated: bool
) -> None:
    x, weight, _, grad = problem(*shape)
    leaf = x.double().requires_grad_()
    (want,) = torch.autograd.grad(conv2d(leaf, weight.double(), padding=1), leaf, grad.double())
    add = draw(5, *x.shape)
    if has_add:
        want = want + add.double()
    if gated:
        want = want * (x > 0)
    got = winograd_conv(grad, weight, None, add if has_add else None, x if gated else None, transposed=True)
    assert_close(got, want)


@pytest.mark.parametrize("shape", [(1, 300, 70, 5, 4), (2, 70, 300, 8, 8), (40, 16, 24, 9, 7)])
def test_many_channels_and_many_tiles(shape: tuple[int, int, int, int, int]) -> None:
    x, weight, bias, grad = problem(*shape)
    assert_close(winograd_conv(x, weight, bias), conv2d(x.double(), weight.double(), bias.double(), padding=1))
    leaf = x.double().requires_grad_()
    (want,) = torch.autograd.grad(conv2d(leaf, weight.double(), padding=1), leaf, grad.double())
    assert_close(winograd_conv(grad, weight, transposed=True), want)


@pytest.mark.skipif(platform.machine() not in ("x86_64", "AMD64"), reason="the flags are those of x86")
@pytest.mark.parametrize("flags", [("-mno-avx",), ("-D__AVX512F__=1", "-Wno-psabi")], ids=["4 lanes", "16 lanes"])
@pytest.mark.parametrize("shape", [(2, 19, 33, 6, 9), (1, 140, 70, 4, 4), (3, 64, 64, 8, 8)])
def test_other_vector_widths_agree(
    flags: tuple[str, ...], shape: tuple[int, int, int, int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    made = winograd.library(*flags)
    monkeypatch.setattr(winograd, "library", lambda: made)
    x, weight, bias, add = problem(*shape)
    want = (conv2d(x.double(), weight.double(), bias.double(), padding=1) + add.double()).relu()
    assert_close(winograd_conv(x, weight, bias, add, relu=True), want)


def test_a_single_weight_is_found_in_its_place() -> None:
    x = torch.zeros(1, 1, 5, 5)
    x[0, 0, 2, 2] = 1
    weight = torch.arange(1.0, 10).view(1, 1, 3, 3)
    got = winograd_conv(x, weight)
    torch.testing.assert_close(got[0, 0, 1:4, 1:4], weight[0, 0].flip(0, 1), atol=1e-4, rtol=0)
    turned = winograd_conv(x, weight, transposed=True)
    torch.testing.assert_close(turned[0, 0, 1:4, 1:4], weight[0, 0], atol=1e-4, rtol=0)


def test_any_memory_format_is_taken() -> None:
    x, weight, bias, _ = problem(2, 16, 16, 8, 8)
    want = winograd_conv(x, weight, bias)
    for format_ in (torch.channels_last, torch.contiguous_format):
        got = winograd_conv(x.contiguous(memory_format=format_), weight.contiguous(memory_format=format_), bias)
        assert torch.equal(got, want)
    assert torch.equal(winograd_conv(x.repeat(1, 2, 1, 1)[:, :16], weight, bias.repeat(2)[:16]), want)


def test_not_a_number_reaches_the_output_as_in_torch() -> None:
    x, weight, bias, _ = problem(1, 16, 16, 4, 4)
    x[0, 0, 1, 1] = float("nan")
    assert bool(winograd_conv(x, weight, bias, relu=True).isnan().any())


@pytest.mark.parametrize("shape", [(5, 16, 40, 11, 9), (7, 96, 80, 4, 4)])
@pytest.mark.parametrize("transposed", [False, True])
def test_bits_depend_on_neither_the_call_nor_the_threads(
    shape: tuple[int, int, int, int, int], transposed: bool
) -> None:
    x, weight, bias, grad = problem(*shape)
    given_, offset = (grad, None) if transposed else (x, bias)
    first = winograd_conv(given_, weight, offset, transposed=transposed)
    assert torch.equal(winograd_conv(given_, weight, offset, transposed=transposed), first)
    threads = torch.get_num_threads()
    try:
        for count in (2, 3):
            torch.set_num_threads(count)
            assert torch.equal(winograd_conv(given_, weight, offset, transposed=transposed), first)
    finally:
        torch.set_num_threads(threads)


def test_bits_do_not_depend_on_the_other_images() -> None:
    x, weight, bias, _ = problem(6, 24, 24, 8, 8)
    assert torch.equal(winograd_conv(x[2:3], weight, bias), winograd_conv(x, weight, bias)[2:3])


def test_threads_are_those_of_torch() -> None:
    assert (winograd._parallel_of_torch() is not None) == ("OpenMP" in torch.__config__.parallel_info())


def test_an_empty_batch_and_wrong_shapes() -> None:
    x, weight, bias, add = problem(2, 8, 12, 4, 4)
    assert winograd_conv(x[:0], weight, bias).shape == (0, 12, 4, 4)
    for wrong in (
        (x[:, :7], weight, bias, None),
        (x, weight[..., :2], bias, None),
        (x, weight, bias[:3], None),
        (x, weight, bias, add[:1]),
        (x, weight, bias, add.double()),
    ):
        with pytest.raises(ValueError, match=r"fit|shape|float32"):
            winograd_conv(*wrong)


@pytest.mark.parametrize(
    ("layer", "wins"),
    [
        ((128, 32, 32, 64, 64), True),
        ((32, 32, 32, 16, 16), True),
        ((32, 4, 4, 512, 512), True),
        ((32, 32, 32, 64, 3), True),
        ((32, 32, 32, 3, 64), False),
        ((1, 4, 4, 512, 512), False),
        ((32, 32, 32, 8, 8), False),
        ((128, 1, 1, 64, 64), False),
        ((128, 5, 5, 32, 32), False),
    ],
)
def test_the_cost_rule(layer: tuple[int, int, int, int, int], wins: bool) -> None:
    assert pays(*layer) is wins


@pytest.mark.parametrize("channels", [4, 24])
@pytest.mark.parametrize("gates", [False, True])
def test_both_ways_of_a_convolution_agree(channels: int, gates: bool) -> None:
    shown = problem(4, channels, channels, 8, 8)
    x, weight, grad = (shown[i].contiguous(memory_format=torch.channels_last) for i in (0, 1, 3))
    bias = shown[2]
    assert pays(4, 8, 8, channels, channels) == (channels == 24)
    want = (conv2d(x.double(), weight.double(), bias.double(), padding=1) + grad.double()).relu()
    assert_close(convolve(x, weight, bias, grad, relu=True), want)
    made = input_gradient(grad, weight, x, x if gates else None)
    assert_close(made, winograd_conv(grad, weight, None, x, x if gates else None, transposed=True).double())


def test_a_deferred_relu_and_a_residual_connection() -> None:
    """relu(conv(z)) read by a convolution and by a sum, as in a residual block, against autograd in float64."""
    z, first, bias, _ = problem(4, 24, 24, 8, 8)
    second, third = draw(7, 24, 24, 3, 3) / 15, draw(8, 24, 24, 3, 3) / 15

    leaf = z.double().requires_grad_()
    x = conv2d(leaf, first.double(), bias.double(), padding=1).relu()
    inner = conv2d(x, second.double(), padding=1).relu()
    want = (conv2d(inner, third.double(), padding=1) + x).relu()
    (want_gradient,) = torch.autograd.grad(want.square().sum(), leaf)

    leaf = z.clone().requires_grad_()
    x = Convolution.apply(leaf, first, bias, None, True, True, False, False)
    inner, shared = Convolution.apply(x, second, None, None, True, True, True, True)
    got = Convolution.apply(inner, third, None, shared, True, False, True, False)
    (gradient,) = torch.autograd.grad(got.square().sum(), leaf)
    assert_close(got.detach(), want.detach())
    assert_close(gradient, want_gradient)


def test_a_gate_applies_the_gradient_of_a_deferred_relu() -> None:
    x, weight, bias, grad = problem(2, 24, 24, 8, 8)
    leaf = x.requires_grad_()
    y = Gate.apply(Convolution.apply(leaf, weight, bias, None, True, True, False, False))
    (got,) = torch.autograd.grad(y, leaf, grad)
    plain = Convolution.apply(leaf, weight, bias, None, True, False, False, False)
    assert torch.equal(got, torch.autograd.grad(plain, leaf, grad)[0])


def test_a_second_derivative_is_refused() -> None:
    x, weight, bias, _ = problem(2, 24, 24, 8, 8)
    leaf = x.requires_grad_()
    y = Convolution.apply(leaf, weight, bias, None, False, False, False, False)
    (gradient,) = torch.autograd.grad(y.square().sum(), leaf, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        gradient.sum().backward()


def test_the_operator_tells_shapes_without_computing() -> None:
    x, weight, bias, add = problem(2, 24, 16, 8, 8)
    made = winograd_conv(*(t.to("meta") for t in (x, weight, bias, add)))
    assert made.shape == (2, 16, 8, 8)
    assert made.is_contiguous(memory_format=torch.channels_last)
    torch.library.opcheck(
        torch.ops.gossamer.winograd_conv3x3.default,
        (x, weight, bias, add, None, True, False),
        test_utils=("test_schema", "test_faketensor"),
    )
