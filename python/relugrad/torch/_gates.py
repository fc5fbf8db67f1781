"""Operations that select: gates and maxima, and those that do nothing outside training."""

from __future__ import annotations

from collections import namedtuple
from collections.abc import Callable
from math import inf
from typing import Any

import torch.nn.functional as F

from ._maps import adaptive, alike, along_a_row, kept, neg, pooled, scaled, shifted, stack, window
from ._moves import clone
from ._nodes import Reference
from ._table import also, axes_of, derived, is_number, operation, pair, parameter, row, sample
from ._values import Barred, Sample, Value


def gate(t, x: Any, name: str, parameters: tuple[Reference, ...] = (), **options: float) -> Sample:
    operation = {"operation": "gate", "gate": name, **options}
    return t.add(operation, [sample(t, x)], x.sample_shape, parameters)


@operation
def relu(t, input, inplace=False):
    return gate(t, input, "relu")


@operation
def relu6(t, input, inplace=False):
    return gate(t, input, "clip", min=0.0, max=6.0)


@operation
def leaky_relu(t, input, negative_slope=0.01, inplace=False):
    return gate(t, input, "leaky-relu", slope=float(negative_slope))


@operation
def rrelu(t, input, lower=1.0 / 8, upper=1.0 / 3, training=False, inplace=False):
    if training:
        raise t.refused("it is in training mode, where slopes are random", "call .eval() on it")
    return leaky_relu(t, input, (lower + upper) / 2)


@operation
def prelu(t, input, weight):
    x, weight = sample(t, input), parameter(t, weight, "weight")
    shape = [1]
    if weight.numel() != 1:
        if not x.sample_shape or weight.numel() != x.sample_shape[0]:
            raise t.refused(f"it has {weight.numel()} slopes for {list(x.sample_shape)}")
        shape = [weight.numel()] + [1] * (len(x.sample_shape) - 1)
    slope = derived(t, lambda w: w.reshape(shape), weight)
    return gate(t, x, "prelu", (slope.reference,), initial=0.25)


@operation
def abs_(t, input):
    return gate(t, input, "abs")


@operation
def clamp(t, input, min=None, max=None):
    if any(not (bound is None or is_number(bound)) for bound in (min, max)):
        raise t.refused("its bounds are tensors", "use numbers")
    low, high = -inf if min is None else float(min), inf if max is None else float(max)
    if low == -inf and high == inf:
        return clone(t, input)
    if high == inf:
        return shifted(t, gate(t, shifted(t, input, -low), "relu"), low)
    if low == -inf:
        below = gate(t, shifted(t, scaled(t, input, -1), high), "relu")
        return shifted(t, scaled(t, below, -1), high)
    if low >= high:
        raise t.refused(f"its bounds {low} and {high} leave nothing between them")
    return gate(t, input, "clip", min=low, max=high)


@operation
def hardtanh(t, input, min_val=-1.0, max_val=1.0, inplace=False):
    return clamp(t, input, min_val, max_val)


@operation
def clamp_min(t, input, min):
    return clamp(t, input, min)


@operation
def clamp_max(t, input, max):
    return clamp(t, input, None, max)


also(absolute="abs", clip="clamp")


Extremes = namedtuple("Extremes", "values indices")


def max_over(t, x: Sample, axis: int, keepdim: bool) -> Sample:
    shape = x.sample_shape[:axis] + x.sample_shape[axis + 1 :]
    found = t.add({"operation": "max", "axis": axis}, [x], shape)
    return kept(t, found, x, [axis]) if keepdim else found


@operation
def amax(t, input, dim=(), keepdim=False):
    x = sample(t, input)
    found, axes = x, axes_of(t, dim, x)
    for axis in reversed(axes):
        found = max_over(t, found, axis, False)
    return kept(t, found, x, axes) if keepdim else found


@operation
def amin(t, input, dim=(), keepdim=False):
    return neg(t, amax(t, neg(t, input), dim, keepdim))


@operation
def maximum(t, input, other):
    if not (isinstance(input, Sample) and isinstance(other, Sample)):
        raise t.refused("it compares a value with a tensor", "use clamp with a number")
    return max_over(t, stack(t, alike(t, input, other), 1), 0, False)


@operation
def minimum(t, input, other):
    return neg(t, maximum(t, *(neg(t, sample(t, value)) for value in (input, other))))


def extremes(t, extreme: Callable, pairwise: Callable, input, dim, keepdim) -> Any:
    if isinstance(dim, Value):
        return pairwise(t, input, dim)
    return Extremes(extreme(t, input, dim, keepdim), Barred(t, "the places of a maximum"))


@operation
def max_(t, input, dim=None, keepdim=False, *, other=None):
    return extremes(t, amax, maximum, input, dim if other is None else other, keepdim)


@operation
def min_(t, input, dim=None, keepdim=False, *, other=None):
    return extremes(t, amin, minimum, input, dim if other is None else other, keepdim)


@operation
def max_pool2d(
    t,
    input,
    kernel_size,
    stride=None,
    padding=0,
    dilation=1,
    ceil_mode=False,
    return_indices=False,
):
    if return_indices:
        raise t.refused("it returns indices too", "use return_indices=False")
    kernel, padding, dilation = pair(kernel_size), pair(padding), pair(dilation)
    stride = pair(stride) if stride else kernel
    pads = [[p, p] for p in padding]
    operation = {
        "operation": "max-pool",
        "window": window(kernel, stride, dilation, pads, bool(ceil_mode)),
    }

    def call(image):
        return F.max_pool2d(image, kernel, stride, padding, dilation, ceil_mode)

    return pooled(t, input, operation, call)


@operation
def max_pool1d(
    t,
    input,
    kernel_size,
    stride=None,
    padding=0,
    dilation=1,
    ceil_mode=False,
    return_indices=False,
):
    kernel, padding, dilation = row(kernel_size, 1), row(padding, 0), row(dilation, 1)
    stride = row(stride, 1) if stride else kernel
    options = kernel, stride, padding, dilation, ceil_mode, return_indices
    return along_a_row(t, input, lambda x: max_pool2d(t, x, *options))


@operation
def adaptive_max_pool2d(t, input, output_size, return_indices=False):
    return max_pool2d(t, input, adaptive(t, input, output_size), return_indices=return_indices)


@operation
def adaptive_max_pool1d(t, input, output_size, return_indices=False):
    size = row(output_size, 1)
    return along_a_row(t, input, lambda x: adaptive_max_pool2d(t, x, size, return_indices))


@operation
def dropout(t, input, p=0.5, training=True, inplace=False):
    if training and p > 0:
        raise t.refused("it is in training mode, where it is random", "call .eval() on it")
    return input


also(
    dropout1d="dropout",
    dropout2d="dropout",
    dropout3d="dropout",
    alpha_dropout="dropout",
    feature_alpha_dropout="dropout",
)
