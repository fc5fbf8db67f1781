"""Operations that put entries elsewhere and do nothing else."""

from __future__ import annotations

from collections.abc import Callable
from math import prod
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.fx.node import map_aggregate

from ._nodes import Reference
from ._table import also, operation, sample
from ._trace import Tracer
from ._values import PROBE, Sample, Value, Weight

# Operations that put the entries of a tensor elsewhere and do nothing else: those that keep their
# order, those that permute axes, and others.
RESHAPES = [
    "view",
    "reshape",
    "flatten",
    "unflatten",
    "squeeze",
    "unsqueeze",
    "view_as",
    "reshape_as",
]
PERMUTATIONS = ["permute", "transpose", "swapaxes", "swapdims", "movedim", "moveaxis"]
OTHERS = [
    "getitem",
    "narrow",
    "select",
    "index_select",
    "expand",
    "expand_as",
    "repeat",
    "tile",
    "repeat_interleave",
    "flip",
    "fliplr",
    "flipud",
    "roll",
    "rot90",
    "chunk",
    "split",
    "split_with_sizes",
    "tensor_split",
    "unbind",
    "diagonal",
    "pixel_shuffle",
    "pixel_unshuffle",
    "channel_shuffle",
]
MOVES = {*RESHAPES, *PERMUTATIONS, *OTHERS}

FIXED = "keep the batch first and of any size, as in x.flatten(1) or x.view(x.size(0), -1)"


def indexed(t: Tracer, call: Callable, x: Sample) -> Any:
    """What ``call`` makes of the places of a batch's entries."""
    index = torch.arange(PROBE * prod(x.sample_shape), dtype=torch.float64, device="cpu")
    return call(index.reshape(PROBE, *x.sample_shape))


def moved(t: Tracer, name: str, call: Callable, x: Any, *args: Any, **kwargs: Any) -> Any:
    """An operation that puts entries elsewhere, found out by what it does with their places."""

    def real(value: Any) -> Any:
        if isinstance(value, Sample):
            return torch.zeros((), device="cpu").expand(PROBE, *value.sample_shape)
        if isinstance(value, Weight):
            return value.baked().cpu()
        return PROBE if value is t.batch else value

    x = sample(t, x)
    args, kwargs = (map_aggregate(part, real) for part in (args, kwargs))
    if name in RESHAPES:
        return in_order(t, x, lambda tensor: call(tensor, *args, **kwargs))
    if name in PERMUTATIONS:
        return permuted(t, x, lambda tensor: call(tensor, *args, **kwargs))
    return placed(t, x, lambda tensor: call(tensor, *args, **kwargs))


def placed(t: Tracer, x: Sample, call: Callable, fill: float = 0.0) -> Any:
    """The value, or values, that ``call`` makes of ``x``; it puts ``fill`` where it puts -1."""
    found = indexed(t, call, x)
    if isinstance(found, (tuple, list)):
        return tuple(gathered(t, x, part, fill) for part in found)
    return gathered(t, x, found, fill)


def gathered(t: Tracer, x: Sample, found: Tensor, fill: float) -> Sample:
    if found.dim() == 0 or found.shape[0] != PROBE:
        raise t.refused("it moves or fixes the axis of the batch", FIXED)
    count, shape = prod(x.sample_shape), tuple(found.shape[1:])
    steps = torch.arange(PROBE, dtype=torch.float64, device="cpu") * count
    steps = steps.reshape(PROBE, *[1] * len(shape))
    if not torch.equal(found, torch.where(found[:1] >= 0, found[:1] + steps, found[:1])):
        raise t.refused("it mixes the samples of a batch", "keep the first axis for the batch")
    places = found[0].reshape(-1)
    storage = x.storage if found._is_view() else None
    if places.numel() == count and bool((places == torch.arange(count)).all()):
        if shape == x.sample_shape:
            return Sample(t, x.at, storage or x.storage)
        return t.add({"operation": "reshape"}, [x], shape, storage=storage)
    index = Reference.constant(found[0].to(torch.int64).contiguous())
    gather = {"operation": "gather", "fill": float(fill)}
    return t.add(gather, [x], shape, constants=(index,), storage=storage)


def in_order(t: Tracer, x: Sample, call: Callable) -> Sample:
    """An operation that keeps the order of entries, found out by what it does with a shape."""
    found = call(torch.empty(PROBE, *x.sample_shape, device="meta"))
    count = PROBE * prod(x.sample_shape)
    if found.dim() == 0 or found.shape[0] != PROBE or found.numel() != count:
        raise t.refused("it moves or fixes the axis of the batch", FIXED)
    shape = tuple(found.shape[1:])
    if shape == x.sample_shape:
        return Sample(t, x.at, x.storage)
    return t.add({"operation": "reshape"}, [x], shape, storage=x.storage)


def permuted(t: Tracer, x: Sample, call: Callable) -> Sample:
    sizes = list(range(2, 2 + x.ndim))
    order = [sizes.index(size) for size in call(torch.empty(sizes, device="cpu")).shape]
    if order[0] != 0:
        raise t.refused("it moves the axis of the batch", "keep the batch first")
    axes = [axis - 1 for axis in order[1:]]
    if axes == sorted(axes):
        return x
    shape = tuple(x.sample_shape[axis] for axis in axes)
    return t.add({"operation": "transpose", "axes": axes}, [x], shape, storage=x.storage)


def reshaped(t: Tracer, x: Sample, shape: tuple[int, ...]) -> Sample:
    if shape == x.sample_shape:
        return x
    return t.add({"operation": "reshape"}, [x], shape, storage=x.storage)


def expanded(t: Tracer, x: Sample, shape: tuple[int, ...]) -> Sample:
    """``x`` broadcast to a shape of as many axes."""
    return placed(t, x, lambda index: index.expand(PROBE, *shape))


@operation
def contiguous(t, input, memory_format=None):
    return input


@operation
def clone(t, input, *, memory_format=None):
    return Sample(t, sample(t, input).at)


@operation
def pos(t, a):
    return a


@operation
def pad(t, input, pad, mode="constant", value=None):
    fill = -1.0 if mode == "constant" else None
    pads = list(pad)

    def call(index):
        return F.pad(index, pads, mode, fill) if fill else F.pad(index, pads, mode)

    return placed(t, sample(t, input), call, 0.0 if value is None else float(value))


@operation
def interpolate(t, input, size=None, scale_factor=None, mode="nearest", *args, **kwargs):
    if mode not in ("nearest", "nearest-exact"):
        raise t.refused(f"interpolation `{mode}` is not supported", "use `nearest`")
    x = sample(t, input)
    return placed(t, x, lambda index: F.interpolate(index, size, scale_factor, mode))


also(upsample="interpolate")


def _same_type(t, x, *targets):
    first = t.first_tensor()
    for target in targets:
        target = target.dtype if isinstance(target, Value) else target
        if isinstance(target, torch.dtype) and target == first.dtype:
            continue
        if isinstance(target, (str, torch.device)) and torch.device(target) == first.device:
            continue
        raise t.refused(
            f"it moves a value to {target}, but the module's parameters are {first.dtype} on "
            f"{first.device}",
            "use one type and one device for the whole module",
        )
    return x


@operation
def to(t, input, *targets, dtype=None, device=None, non_blocking=False):
    targets = [target for target in (*targets, dtype, device) if target is not None]
    return _same_type(t, input, *targets)


@operation
def type_as(t, input, other):
    return input if isinstance(other, Sample) else _same_type(t, input, other)


@operation
def float_(t, input):
    return _same_type(t, input, torch.float32)


@operation
def double(t, input):
    return _same_type(t, input, torch.float64)
