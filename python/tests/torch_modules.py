"""Random modules of everything that `relugrad.torch` reads, as a hypothesis strategy.

`modules()` draws a module with its input shape: a chain of layers on features ``[n]``, rows
``[channels, length]`` or images ``[channels, height, width]``, with residual sums, joins, shared
layers, and functional forms, and a linear layer of logits at the end. Parameters and running
statistics are random numbers of a seed that is drawn.
"""

from __future__ import annotations

from collections.abc import Callable
from math import prod

import torch
import torch.nn.functional as F
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn.utils import parametrize

Shape = tuple[int, ...]


class Call(nn.Module):
    """A function as a module."""

    def __init__(self, name: str, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.name, self.function = name, function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x)

    def extra_repr(self) -> str:
        return self.name


class Residual(nn.Module):
    """``x + body(x)``, in place if asked for."""

    def __init__(self, body: nn.Module, in_place: bool) -> None:
        super().__init__()
        self.body, self.in_place = body, in_place

    def forward(self, x: Tensor) -> Tensor:
        if not self.in_place:
            return x + self.body(x)
        y = self.body(x) * 1.0
        y += x
        return y


class Join(nn.Module):
    """Two branches side by side."""

    def __init__(self, first: nn.Module, second: nn.Module) -> None:
        super().__init__()
        self.first, self.second = first, second

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([self.first(x), self.second(x)], dim=1)


class Pairwise(nn.Module):
    """The larger or smaller of two branches."""

    def __init__(self, first: nn.Module, second: nn.Module, function: Callable) -> None:
        super().__init__()
        self.first, self.second, self.function = first, second, function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(self.first(x), self.second(x))


class Affine(nn.Module):
    """A scale and a shift by parameters and buffers, in every order that can be written."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.factor = nn.Parameter(torch.ones(shape))
        self.summand = nn.Parameter(torch.ones(shape[0], *[1] * (len(shape) - 1)))
        self.register_buffer("fixed", torch.full(shape[-1:], 0.7))

    def forward(self, x: Tensor) -> Tensor:
        x = 2 - (self.factor * x + self.summand) / (1 + self.fixed**2)
        return (-x - self.fixed) * 0.75


class Functional(nn.Module):
    """A linear map by ``F.linear`` or ``@`` with tensors of its own."""

    def __init__(self, inputs: int, outputs: int, form: str) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(outputs, inputs))
        self.bias = nn.Parameter(torch.ones(outputs))
        self.form = form

    def forward(self, x: Tensor) -> Tensor:
        if self.form == "linear":
            return F.linear(x, self.weight * 0.5, self.bias)
        if self.form == "matmul":
            return x @ self.weight.t() + self.bias
        first, second = self.weight.chunk(2, dim=0)
        return F.linear(x, torch.cat([second, first]), self.bias)


class Half(nn.Module):
    """A parametrization."""

    def forward(self, w: Tensor) -> Tensor:
        return w / (1 + w.abs().sum())


def linear(inputs: int, outputs: int, draw) -> nn.Module:
    form = draw(
        st.sampled_from(["module", "module", "no bias", "parametrized", "linear", "matmul"])
    )
    if form in ("linear", "matmul"):
        return Functional(inputs, outputs, form)
    layer = nn.Linear(inputs, outputs, bias=form != "no bias")
    if form == "parametrized":
        parametrize.register_parametrization(layer, "weight", Half())
    return layer


def gates(shape: Shape) -> list[Callable[[], nn.Module]]:
    """Gates on any shape."""
    return [
        nn.ReLU,
        lambda: nn.Sequential(Affine(shape), nn.ReLU(inplace=True)),
        lambda: nn.LeakyReLU(0.2),
        lambda: nn.LeakyReLU(-0.5),
        nn.PReLU,
        lambda: nn.PReLU(shape[0]),
        lambda: nn.Hardtanh(-0.7, 0.9),
        nn.ReLU6,
        nn.RReLU,
        lambda: Call("abs", torch.abs),
        lambda: Call("relu", torch.relu),
        lambda: Call("clamp", lambda x: x.clamp(min=-0.3)),
        lambda: Call("clamp", lambda x: torch.clamp(x, max=0.4)),
        lambda: Call("leaky_relu", lambda x: F.leaky_relu(x, 0.3)),
    ]


def moves(shape: Shape) -> list[tuple[str, Callable[[Tensor], Tensor]]]:
    """Operations that put entries elsewhere."""
    found = [
        ("flatten", lambda x: x.contiguous().view(x.size(0), -1)),
        ("reshape", lambda x: x.reshape(-1, prod(shape))),
        ("flip", lambda x: x.flip(1)),
        ("roll", lambda x: x.roll(1, dims=-1)),
        ("slice", lambda x: x[:, : max(1, shape[0] - 1)]),
        ("reverse", lambda x: torch.cat(x.chunk(2, dim=1)[::-1], dim=1)),
        ("pad", lambda x: F.pad(x, (1, 0), value=0.5)),
        ("repeat", lambda x: torch.stack([x, -x], dim=1).flatten(1, 2)),
        ("unsqueeze", lambda x: x.unsqueeze(1).squeeze(1)),
    ]
    if len(shape) > 1:
        found += [
            ("permute", lambda x: x.transpose(1, -1)),
            ("mean", lambda x: x.mean(dim=-1)),
            ("sum", lambda x: x.sum(1)),
            ("max", lambda x: x.max(dim=1)[0]),
            ("amax", lambda x: torch.amax(x, -1)),
            ("min", lambda x: x.min(dim=-1).values),
            ("keepdim", lambda x: x - x.mean(dim=-1, keepdim=True)),
        ]
    return found


def layers(shape: Shape) -> list[Callable]:
    """Layers for a shape; each gets ``draw``."""
    n = shape[0]
    found: list[Callable] = [
        lambda draw: Affine(shape),
        lambda draw: nn.Sequential(nn.Identity(), nn.Dropout(0.5)),
        lambda draw: linear(shape[-1], draw(st.integers(1, 5)), draw),
    ]
    if len(shape) == 1:
        found += [
            lambda draw: linear(n, draw(st.integers(2, 7)), draw),
            lambda draw: nn.BatchNorm1d(n, affine=draw(st.booleans())),
            lambda draw: nn.Unflatten(1, (n, 1)),
            lambda draw: nn.ConstantPad1d((0, 1), 0.5),
        ]
    if len(shape) == 2:
        found += [
            lambda draw: conv(draw, nn.Conv1d, n, shape[1:]),
            lambda draw: nn.BatchNorm1d(n, affine=draw(st.booleans())),
            lambda draw: pool(draw, shape[1:], nn.MaxPool1d, nn.AvgPool1d),
            lambda draw: nn.AdaptiveAvgPool1d(1),
            lambda draw: nn.AdaptiveMaxPool1d(1),
        ]
    if len(shape) == 3:
        found += [
            lambda draw: conv(draw, nn.Conv2d, n, shape[1:]),
            lambda draw: conv(draw, nn.Conv2d, n, shape[1:]),
            lambda draw: nn.BatchNorm2d(n, affine=draw(st.booleans())),
            lambda draw: pool(draw, shape[1:], nn.MaxPool2d, nn.AvgPool2d),
            lambda draw: nn.AdaptiveAvgPool2d(draw(st.sampled_from([1, (1, None), (None, 1)]))),
            lambda draw: nn.AdaptiveMaxPool2d(1),
            lambda draw: nn.ZeroPad2d(draw(st.sampled_from([1, (1, 0, 0, 1)]))),
            lambda draw: nn.Upsample(scale_factor=2),
            lambda draw: nn.Dropout2d(),
        ]
    return found


def conv(draw, kind: type, channels: int, size: Shape) -> nn.Module:
    groups = draw(st.sampled_from([g for g in (1, 2, channels) if channels % g == 0]))
    outputs = groups * draw(st.integers(1, 2))
    kernel = [draw(st.integers(1, min(3, n))) for n in size]
    bias = draw(st.booleans())
    dilation = [
        draw(st.integers(1, 2)) if k > 1 and 2 * (k - 1) < n else 1 for k, n in zip(kernel, size)
    ]
    mode = draw(st.sampled_from(["same", "valid", "numbers", "numbers"]))
    if mode != "numbers":
        options = {"padding": mode}
    else:
        options = {
            "padding": tuple(draw(st.integers(0, 2)) for _ in size),
            "stride": tuple(draw(st.integers(1, 3)) for _ in size),
        }
    return kind(
        channels,
        outputs,
        tuple(kernel),
        dilation=tuple(dilation),
        groups=groups,
        bias=bias,
        **options,
    )


def pool(draw, size: Shape, largest: type, average: type) -> nn.Module:
    kernel = [draw(st.integers(1, min(3, n))) for n in size]
    options = {
        "stride": tuple(draw(st.integers(1, 3)) for _ in size),
        "padding": tuple(draw(st.integers(0, k // 2)) for k in kernel),
        "ceil_mode": draw(st.booleans()),
    }
    if draw(st.booleans()):
        return largest(tuple(kernel), **options)
    counts = draw(st.booleans())
    if average is nn.AvgPool2d and not options["ceil_mode"] and draw(st.booleans()):
        options["divisor_override"] = 3
    return average(tuple(kernel), count_include_pad=counts, **options)


def after(module: nn.Module, shape: Shape) -> Shape:
    """The shape that a module makes of one."""
    with torch.no_grad():
        return tuple(module.eval()(torch.zeros(2, *shape)).shape[1:])


@st.composite
def chains(draw, shape: Shape, depth: int, length: int) -> nn.Module:
    """Layers one after the other."""
    found: list[nn.Module] = []
    for _ in range(draw(st.integers(1, length))):
        kind = draw(st.sampled_from(["layer", "layer", "gate", "gate", "move", "block"]))
        if prod(shape) > 150:
            module: nn.Module = nn.Sequential(nn.Flatten(), nn.Linear(prod(shape), 6))
        elif kind == "block" and depth > 0:
            module = draw(blocks(shape, depth - 1))
        elif kind == "gate":
            module = draw(st.sampled_from(gates(shape)))()
        elif kind == "move":
            module = Call(*draw(st.sampled_from(moves(shape))))
        else:
            module = draw(st.sampled_from(layers(shape)))(draw)
        found.append(module)
        shape = after(module, shape)
    return nn.Sequential(*found)


@st.composite
def blocks(draw, shape: Shape, depth: int) -> nn.Module:
    """Residual sums, joins, maxima of two branches, and layers that are used twice."""
    kind = draw(st.sampled_from(["residual", "join", "pairwise", "shared", "tied"]))
    if kind == "join":
        return Join(same(draw, shape, depth), same(draw, shape, depth))
    if kind == "pairwise":
        function = draw(st.sampled_from([torch.maximum, torch.minimum, torch.max]))
        return Pairwise(same(draw, shape, depth), same(draw, shape, depth), function)
    if kind == "shared":
        layer = same(draw, shape, depth)
        return nn.Sequential(layer, nn.ReLU(), layer)
    if kind == "tied":
        first, second = nn.Linear(shape[-1], shape[-1]), nn.Linear(shape[-1], shape[-1])
        second.weight = first.weight
        return nn.Sequential(first, nn.LeakyReLU(0.1), second)
    return Residual(same(draw, shape, depth), draw(st.booleans()))


def same(draw, shape: Shape, depth: int) -> nn.Module:
    """A chain that keeps a shape."""
    chain = draw(chains(shape, depth, 2))
    found = after(chain, shape)
    if found == shape:
        return chain
    back = nn.Linear(prod(found), prod(shape))
    return nn.Sequential(chain, nn.Flatten(), back, nn.Unflatten(1, shape))


def randomize(module: nn.Module, seed: int) -> nn.Module:
    """Random parameters and running statistics, in eval mode and double precision."""
    generator = torch.Generator().manual_seed(seed)
    module = module.double().eval()
    with torch.no_grad():
        for tensor in module.parameters():
            inputs = max(1, tensor[0].numel() if tensor.dim() > 1 else 4)
            tensor.copy_(torch.randn(tensor.shape, generator=generator) / inputs**0.5)
        for name, tensor in module.named_buffers():
            if name.endswith("running_mean"):
                tensor.copy_(torch.randn(tensor.shape, generator=generator) / 2)
            elif name.endswith("running_var"):
                tensor.copy_(torch.rand(tensor.shape, generator=generator) + 0.3)
    return module


@st.composite
def modules(draw, length: int = 5, outputs: int = 4) -> tuple[nn.Module, Shape]:
    """A random module in double precision, and the shape of its samples."""
    small = st.integers(1, 5)
    shape = draw(
        st.one_of(
            st.tuples(st.integers(2, 6)),
            st.tuples(st.integers(1, 3), small),
            st.tuples(st.integers(1, 3), small, small),
            st.tuples(st.integers(1, 3), small, small),
        )
    )
    body = draw(chains(shape, 2, length))
    width = prod(after(body, shape))
    head = nn.Linear(width, draw(st.integers(1, outputs)))
    module = nn.Sequential(body, nn.Flatten(), head)
    return randomize(module, draw(st.integers(0, 2**31))), shape


def inputs(shape: Shape, batch: int, seed: int) -> Tensor:
    """A batch of random samples."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(batch, *shape, dtype=torch.float64, generator=generator)
