"""Affine operations: products with parameters, means, sums, and joins."""

from __future__ import annotations

from collections.abc import Callable
from math import prod
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ._moves import clone, expanded, permuted, reshaped
from ._table import (
    also,
    axes_of,
    axis_of,
    derived,
    is_number,
    number,
    operation,
    pair,
    parameter,
    rank,
    row,
    sample,
)
from ._values import Sample, Weight


def dense(t, x: Sample, weight: Weight, bias: Weight | None) -> Sample:
    if weight.ndim != 2 or not x.sample_shape or x.sample_shape[-1] != weight.sizes[1]:
        shapes = f"{list(weight.sizes)}, and its input {list(x.sample_shape)} for one sample"
        raise t.refused(f"its weight has the shape {shapes}")
    arrays = (weight.reference,) if bias is None else (weight.reference, bias.reference)
    shape = (*x.sample_shape[:-1], weight.sizes[0])
    return t.add({"operation": "dense", "bias": bias is not None}, [x], shape, arrays)


@operation
def linear(t, input, weight, bias=None):
    weight = parameter(t, weight, "weight")
    bias = None if bias is None else parameter(t, bias, "bias")
    return dense(t, sample(t, input), weight, bias)


@operation
def matmul(t, input, other):
    if isinstance(input, Sample):
        weight = parameter(t, other, "second factor")
        if weight.ndim != 2:
            raise t.refused(f"its factor has the shape {list(weight.sizes)}, but two axes are read")
        return dense(t, input, derived(t, Tensor.t, weight), None)
    weight, x = parameter(t, input, "first factor"), sample(t, other)
    if len(x.sample_shape) != 2:
        raise t.refused("it combines the samples of a batch", "use x @ weight.T")
    columns = permuted(t, x, lambda tensor: tensor.transpose(1, 2))
    return permuted(t, dense(t, columns, weight, None), lambda tensor: tensor.transpose(1, 2))


also(mm="matmul")


def window(kernel, stride, dilation, padding, ceil=False) -> dict[str, Any]:
    return {
        "kernel": kernel,
        "stride": stride,
        "dilation": dilation,
        "padding": padding,
        "ceil": ceil,
    }


def conv_padding(t, padding, kernel, dilation) -> list[list[int]]:
    if padding == "valid":
        return [[0, 0], [0, 0]]
    if padding == "same":
        total = [d * (k - 1) for k, d in zip(kernel, dilation)]
        return [[p // 2, p - p // 2] for p in total]
    return [[p, p] for p in pair(padding)]


@operation
def conv2d(t, input, weight, bias=None, stride=1, padding=0, dilation=1, groups=1):
    channels, *size = rank(t, input, 3, "channels, height, width")
    weight = parameter(t, weight, "weight")
    kernel, stride, dilation = list(weight.sizes[2:]), pair(stride), pair(dilation)
    padding = conv_padding(t, padding, kernel, dilation)
    if weight.ndim != 4 or channels != weight.sizes[1] * groups:
        shapes = f"{list(weight.sizes)} for {groups} groups, and its input {channels} channels"
        raise t.refused(f"its weight has the shape {shapes}")
    free = [n + sum(p) - d * (k - 1) - 1 for n, p, d, k in zip(size, padding, dilation, kernel)]
    if min(free) < 0:
        raise t.refused(f"its kernel {kernel} is larger than its input {size} with padding")
    shape = (weight.sizes[0], *(f // s + 1 for f, s in zip(free, stride)))
    arrays = [weight.reference]
    if bias is not None:
        arrays.append(parameter(t, bias, "bias").reference)
    operation = {
        "operation": "conv2d",
        "window": window(kernel, stride, dilation, padding),
        "groups": int(groups),
        "bias": bias is not None,
    }
    return t.add(operation, [input], shape, tuple(arrays))


def along_a_row(t, x: Sample, function: Callable) -> Sample:
    """A two-dimensional operation on ``[channels, length]`` as one row."""
    channels, length = rank(t, x, 2, "channels, length")
    found = function(reshaped(t, x, (channels, 1, length)))
    return reshaped(t, found, (found.sample_shape[0], found.sample_shape[-1]))


@operation
def conv1d(t, input, weight, bias=None, stride=1, padding=0, dilation=1, groups=1):
    weight = derived(t, lambda w: w.unsqueeze(2), parameter(t, weight, "weight"))
    if not isinstance(padding, str):
        padding = row(padding, 0)
    options = row(stride, 1), padding, row(dilation, 1), groups
    return along_a_row(t, input, lambda x: conv2d(t, x, weight, bias, *options))


@operation
def batch_norm(
    t,
    input,
    running_mean,
    running_var,
    weight=None,
    bias=None,
    training=False,
    momentum=0.1,
    eps=1e-5,
):
    x = sample(t, input)
    if training or running_mean is None:
        problem = "it takes its statistics from the batch, so logits depend on all samples"
        raise t.refused(problem, "use running statistics and training=False")
    mean, variance = (parameter(t, v, "statistics") for v in (running_mean, running_var))
    if not x.sample_shape or mean.sizes != (x.sample_shape[0],):
        raise t.refused(f"it has {mean.numel()} features, and its input {list(x.sample_shape)}")
    weight = derived(t, torch.ones_like, mean) if weight is None else parameter(t, weight, "scale")
    bias = derived(t, torch.zeros_like, mean) if bias is None else parameter(t, bias, "shift")
    return t.add(
        {"operation": "batch-norm", "axis": 0, "epsilon": float(eps)},
        [x],
        x.sample_shape,
        (weight.reference, bias.reference),
        (mean.reference, variance.reference),
    )


@operation
def mean(t, input, dim=None, keepdim=False, *, dtype=None):
    x = sample(t, input)
    return mean_over(t, x, axes_of(t, dim, x), keepdim)


def mean_over(t, x: Sample, axes: list[int], keepdim: bool) -> Sample:
    shape = tuple(n for axis, n in enumerate(x.sample_shape) if axis not in axes)
    found = t.add({"operation": "mean", "axes": axes}, [x], shape)
    return kept(t, found, x, axes) if keepdim else found


def kept(t, found: Sample, x: Sample, axes: list[int]) -> Sample:
    """The value with an axis of length 1 in place of each that has disappeared."""
    shape = (1 if axis in axes else n for axis, n in enumerate(x.sample_shape))
    return reshaped(t, found, tuple(shape))


@operation
def sum_(t, input, dim=None, keepdim=False, *, dtype=None):
    x = sample(t, input)
    axes = axes_of(t, dim, x)
    count = prod(x.sample_shape[axis] for axis in axes)
    return scaled(t, mean_over(t, x, axes, keepdim), count)


def pooled(t, x: Sample, operation: dict[str, Any], call: Callable) -> Sample:
    shape = rank(t, x, 3, "channels, height, width")
    found = call(torch.zeros(1, *shape, device="cpu"))
    if not bool(torch.isfinite(found).all()):
        raise t.refused("a window lies in the padding alone", "use less padding")
    return t.add(operation, [x], tuple(found.shape[1:]))


@operation
def avg_pool2d(
    t,
    input,
    kernel_size,
    stride=None,
    padding=0,
    ceil_mode=False,
    count_include_pad=True,
    divisor_override=None,
):
    kernel = pair(kernel_size)
    stride, padding = pair(stride) if stride else kernel, pair(padding)
    if divisor_override is not None:
        if ceil_mode:
            raise t.refused("a divisor of its own together with ceil_mode is not supported")
        count_include_pad = True
    operation = {
        "operation": "average-pool",
        "window": window(kernel, stride, [1, 1], [[p, p] for p in padding], bool(ceil_mode)),
        "count_padding": bool(count_include_pad),
    }

    def call(image):
        return F.avg_pool2d(image, kernel, stride, padding, ceil_mode, count_include_pad)

    found = pooled(t, input, operation, call)
    return scaled(t, found, prod(kernel) / divisor_override) if divisor_override else found


@operation
def avg_pool1d(
    t, input, kernel_size, stride=None, padding=0, ceil_mode=False, count_include_pad=True
):
    kernel, padding = row(kernel_size, 1), row(padding, 0)
    stride = row(stride, 1) if stride else kernel
    options = kernel, stride, padding, ceil_mode, count_include_pad
    return along_a_row(t, input, lambda x: avg_pool2d(t, x, *options))


def adaptive(t, x: Sample, output_size: Any) -> list[int]:
    """The kernel of an adaptive pooling whose windows are alike."""
    _, *size = rank(t, x, 3, "channels, height, width")
    output = pair(output_size)
    output = [n if o is None else o for n, o in zip(size, output)]
    if any(n % o for n, o in zip(size, output)):
        raise t.refused(
            f"its output size {output} does not divide its input {size}, so windows differ",
            "choose a divisor of the input's size",
        )
    return [n // o for n, o in zip(size, output)]


@operation
def adaptive_avg_pool2d(t, input, output_size):
    kernel = adaptive(t, input, output_size)
    if kernel == list(input.sample_shape[1:]):
        return mean_over(t, input, [1, 2], True)
    return avg_pool2d(t, input, kernel)


@operation
def adaptive_avg_pool1d(t, input, output_size):
    return along_a_row(t, input, lambda x: adaptive_avg_pool2d(t, x, row(output_size, 1)))


def broadcast(t, x: Sample, weight: Weight) -> tuple[Sample, Weight]:
    """A sample and a parameter that are combined entry by entry, with the sample's final shape."""
    extra = weight.ndim - len(x.sample_shape)
    if extra > 0:
        if extra > 1 or weight.sizes[0] != 1:
            raise t.refused(
                f"a tensor of shape {list(weight.sizes)} meets a value of shape "
                f"{list(x.sample_shape)} for one sample, so the batch would have a fixed size"
            )
        weight = derived(t, lambda w: w.squeeze(0), weight)
    shape = tuple(torch.broadcast_shapes(x.sample_shape, tuple(weight.sizes)))
    if len(shape) > len(x.sample_shape):
        raise t.refused("broadcasting would put the batch elsewhere", "unsqueeze the value first")
    return (x if shape == x.sample_shape else expanded(t, x, shape)), weight


def elementwise(t, kind: str, x: Sample, other: Any) -> Sample:
    """``scale`` or ``shift`` by a number or a parameter."""
    if isinstance(other, Weight):
        x, weight = broadcast(t, x, other)
        learned = weight.reference.learned
        arrays = {"parameters" if learned else "constants": (weight.reference,)}
        return t.add({"operation": kind, "learned": learned}, [x], x.sample_shape, **arrays)
    if not is_number(other):
        raise t.refused(f"it is combined with {type(other).__name__}, which is no number")
    constants = (number(other),)
    return t.add({"operation": kind, "learned": False}, [x], x.sample_shape, (), constants)


def scaled(t, x: Sample, factor: Any) -> Sample:
    return clone(t, x) if is_number(factor) and factor == 1 else elementwise(t, "scale", x, factor)


def shifted(t, x: Sample, summand: Any) -> Sample:
    return (
        clone(t, x) if is_number(summand) and summand == 0 else elementwise(t, "shift", x, summand)
    )


def summed(t, x: Sample, y: Sample) -> Sample:
    x, y = alike(t, x, y)
    return t.add({"operation": "add"}, [x, y], x.sample_shape)


def alike(t, x: Sample, y: Sample) -> tuple[Sample, Sample]:
    """Two values broadcast to one shape."""
    if x.ndim != y.ndim:
        raise t.refused("two values of different numbers of axes meet", "unsqueeze one of them")
    shape = tuple(torch.broadcast_shapes(x.sample_shape, y.sample_shape))
    return tuple(v if v.sample_shape == shape else expanded(t, v, shape) for v in (x, y))


def times(t, value: Any, factor: Any) -> Any:
    """A number, parameter or value times a number."""
    if factor == 1:
        return value
    if isinstance(value, Sample):
        return scaled(t, value, factor)
    return derived(t, lambda w: w * factor, value) if isinstance(value, Weight) else value * factor


@operation
def add(t, input, other, *, alpha=1):
    other = times(t, other, alpha)
    if isinstance(input, Sample) and isinstance(other, Sample):
        return summed(t, input, other)
    return shifted(t, input, other) if isinstance(input, Sample) else shifted(t, other, input)


@operation
def sub(t, input, other, *, alpha=1):
    return add(t, input, times(t, other, -alpha))


@operation
def rsub(t, input, other, *, alpha=1):
    return sub(t, other, input, alpha=alpha)


@operation
def neg(t, input):
    return scaled(t, input, -1)


@operation
def mul(t, input, other):
    if isinstance(input, Sample) and isinstance(other, Sample):
        raise t.refused(
            "it multiplies two values that depend on the input, which is not piecewise linear",
            "multiply by parameters or numbers only",
        )
    return scaled(t, input, other) if isinstance(input, Sample) else scaled(t, other, input)


@operation
def div(t, input, other, *, rounding_mode=None):
    if isinstance(other, Sample):
        raise t.refused("it divides by a value that depends on the input", "it must be constant")
    if rounding_mode is not None:
        raise t.refused("it rounds, which has no derivative", "use rounding_mode=None")
    if isinstance(other, Weight):
        return scaled(t, input, derived(t, torch.reciprocal, other))
    return scaled(t, input, 1 / other)


@operation
def addmm(t, input, mat1, mat2, *, beta=1, alpha=1):
    return add(t, times(t, matmul(t, mat1, mat2), alpha), times(t, input, beta))


also(subtract="sub", multiply="mul", divide="div", truediv="div", true_divide="div", negative="neg")


@operation
def cat(t, tensors, dim=0, *, axis=None):
    parts = list(tensors)
    if not all(isinstance(part, Sample) for part in parts):
        raise t.refused(
            "it joins values with tensors that do not depend on the input",
            "use torch.nn.functional.pad for constant entries",
        )
    along = axis_of(t, dim if axis is None else axis, parts[0].ndim)
    shapes = [part.sample_shape for part in parts]
    others = {shape[:along] + shape[along + 1 :] for shape in shapes}
    if len(others) != 1 or len({len(shape) for shape in shapes}) != 1:
        raise t.refused(f"it joins values of shapes {[list(shape) for shape in shapes]}")
    length = sum(shape[along] for shape in shapes)
    shape = (*shapes[0][:along], length, *shapes[0][along + 1 :])
    return t.add({"operation": "concat", "axis": along}, parts, shape)


also(concat="cat", concatenate="cat")


@operation
def stack(t, tensors, dim=0):
    parts = [sample(t, part) for part in tensors]
    along = axis_of(t, dim, parts[0].ndim + 1)
    shapes = [(*p.sample_shape[:along], 1, *p.sample_shape[along:]) for p in parts]
    return cat(t, [reshaped(t, p, shape) for p, shape in zip(parts, shapes)], along + 1)
