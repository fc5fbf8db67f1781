"""What a node does to rows of values: forward, with the activation pattern held, and transposed.

Values are ``[N, *shape]``, where ``N`` is the number of samples or, for ``R`` rows of each of ``B``
samples, ``R B`` with the samples side by side.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

import torch
import torch.nn.functional as F
from torch import Tensor

from ._nodes import Description, Node

MAXIMA = ("max-pool", "max")


class Arrays:
    """The arrays of all nodes, by node."""

    __slots__ = ("constant_tensors", "constants", "parameters", "selects", "tensors")

    def __init__(
        self, description: Description, tensors: Sequence[Tensor], constants: Sequence[Tensor]
    ) -> None:
        self.tensors, self.constant_tensors = tensors, constants
        given, fixed = iter(tensors), iter(constants)
        self.parameters, self.constants, self.selects = [], [], []
        for node in description.nodes:
            self.parameters.append([next(given) for _ in node.parameters])
            self.constants.append([next(fixed) for _ in node.constants])
            self.selects.append("gate" in node.operation or node.kind in MAXIMA)

    def of(self, at: int) -> list[Tensor]:
        """The arrays of a node, parameters first."""
        return self.parameters[at] + self.constants[at]


def window(node: Node) -> dict:
    return node.operation["window"]


def symmetric(node: Node) -> tuple[list[int], list[int]]:
    """Padding on both sides, and what there is besides as `F.pad` takes it."""
    (top, bottom), (left, right) = window(node)["padding"]
    if (top, left) == (bottom, right):
        return [top, left], []
    return [0, 0], [left, right, top, bottom]


def along_axis(array: Tensor, node: Node) -> Tensor:
    """An array along one axis of a sample, so that it broadcasts to values."""
    axis, axes = node.operation["axis"], len(node.shape)
    return array.reshape([-1] + [1] * (axes - axis - 1))


def rate(node: Node, arrays: Sequence[Tensor]) -> Tensor:
    """The factor of batch norm."""
    return arrays[0] * (arrays[3] + node.operation["epsilon"]).rsqrt()


def apply(node: Node, arrays: list[Tensor], inputs: list[Tensor], affine: bool) -> Tensor:
    """An affine node's values, or those of its linear part."""
    x, kind, options = inputs[0], node.kind, node.operation
    if kind == "dense":
        return F.linear(x, arrays[0], arrays[1] if affine and options["bias"] else None)
    if kind == "conv2d":
        bias = arrays[1] if affine and options["bias"] else None
        padding, besides = symmetric(node)
        moves = window(node)["stride"], padding, window(node)["dilation"], options["groups"]
        return F.conv2d(F.pad(x, besides) if besides else x, arrays[0], bias, *moves)
    if kind == "average-pool":
        return F.avg_pool2d(x, *averaging(node))
    if kind == "mean":
        return x.mean([axis + 1 for axis in options["axes"]])
    if kind == "batch-norm":
        factor = rate(node, arrays)
        y = x * along_axis(factor, node)
        return y + along_axis(arrays[1] - arrays[2] * factor, node) if affine else y
    if kind == "scale":
        return x * arrays[0]
    if kind == "shift":
        return x + arrays[0] if affine else x
    if kind == "add":
        return sum(inputs[1:], x)
    if kind == "concat":
        return torch.cat(inputs, options["axis"] + 1)
    if kind == "reshape":
        return x.reshape(-1, *node.shape)
    if kind == "transpose":
        return x.permute(0, *(axis + 1 for axis in options["axes"]))
    if kind == "gather":
        flat = F.pad(x.flatten(1), [0, 1], value=options["fill"] if affine else 0.0)
        return flat[:, places(arrays[0], flat)].reshape(-1, *node.shape)
    raise AssertionError(f"no affine operation {kind}")


def places(index: Tensor, flat: Tensor) -> Tensor:
    """Places in values that have one entry behind the others, which stands for none."""
    index = index.flatten()
    return torch.where(index < 0, flat.shape[1] - 1, index)


def averaging(node: Node) -> tuple:
    size = window(node)
    padding, _ = symmetric(node)
    counted = node.operation["count_padding"]
    return size["kernel"], size["stride"], padding, size["ceil"], counted


def transpose(
    node: Node,
    arrays: list[Tensor],
    pattern: list[Tensor],
    c: Tensor,
    below: Sequence[tuple[int, ...]],
    rows: int,
) -> list[Tensor]:
    """The transpose of a node's linear part, for each of its inputs of shapes ``below``."""
    kind, options, shape = node.kind, node.operation, below[0]
    if "gate" in options:
        return [gated(node, arrays, pattern, c, rows)]
    if kind in MAXIMA:
        return [scattered(node, pattern[0], c, shape, rows)]
    if kind == "dense":
        return [c @ arrays[0]]
    if kind == "conv2d":
        return [conv_transposed(node, arrays[0], c, shape)]
    if kind == "average-pool":
        image = c.new_empty(()).expand(c.shape[0], *shape)
        return [torch.ops.aten.avg_pool2d_backward(c, image, *averaging(node), None)]
    if kind == "mean":
        axes = options["axes"]
        kept = [1 if axis in axes else n for axis, n in enumerate(shape)]
        share = c / prod(shape[axis] for axis in axes)
        return [share.reshape(-1, *kept).expand(-1, *shape)]
    if kind == "batch-norm":
        return [c * along_axis(rate(node, arrays), node)]
    if kind == "scale":
        return [c * arrays[0]]
    if kind == "shift":
        return [c]
    if kind == "add":
        return [c] * len(below)
    if kind == "concat":
        axis = options["axis"]
        return list(c.split([shape[axis] for shape in below], axis + 1))
    if kind == "reshape":
        return [c.reshape(-1, *shape)]
    if kind == "transpose":
        axes = options["axes"]
        return [c.permute(0, *(axes.index(axis) + 1 for axis in range(len(axes))))]
    if kind == "gather":
        flat = c.new_zeros(c.shape[0], prod(shape) + 1)
        flat.index_add_(1, places(arrays[0], flat), c.flatten(1))
        return [flat[:, :-1].reshape(-1, *shape)]
    raise AssertionError(f"no operation {kind}")


def conv_transposed(node: Node, weight: Tensor, c: Tensor, shape: tuple[int, ...]) -> Tensor:
    padding, besides = symmetric(node)
    channels, height, width = shape
    if besides:
        left, right, top, bottom = besides
        size = (c.shape[0], channels, height + top + bottom, width + left + right)
    else:
        size = (c.shape[0], channels, height, width)
    moves = window(node)["stride"], padding, window(node)["dilation"], node.operation["groups"]
    found = torch.nn.grad.conv2d_input(size, weight, c, *moves)
    return found[:, :, top : top + height, left : left + width] if besides else found


# Gates.


def select(node: Node, arrays: list[Tensor], z: Tensor) -> tuple[Tensor, list[Tensor]]:
    """The values of a node that selects, and what it selects."""
    kind, options = node.kind, node.operation
    if kind == "max-pool":
        size = window(node)
        moves = size["kernel"], size["stride"], symmetric(node)[0], size["dilation"], size["ceil"]
        a, index = F.max_pool2d(z, *moves, return_indices=True)
        return a, [index]
    if kind == "max":
        a, index = z.max(options["axis"] + 1)
        return a, [index]
    if kind == "clip":
        pattern = [z <= options["min"], z >= options["max"]]
    else:
        pattern = [z <= 0]
    return selected(node, arrays, pattern, z, 1, True), pattern


def selected(
    node: Node,
    arrays: list[Tensor],
    pattern: list[Tensor],
    t: Tensor,
    rows: int,
    affine: bool,
) -> Tensor:
    """What a node that selects makes of rows, if it selects as it did."""
    options = node.operation
    if node.kind in MAXIMA:
        return gathered(node, pattern[0], t, rows)
    if affine and node.kind == "relu":
        return t.masked_fill(pattern[0], 0.0)
    if affine and node.kind == "clip":
        below, above = pattern
        return t.masked_fill(below, options["min"]).masked_fill(above, options["max"])
    return gated(node, arrays, pattern, t, rows)


def gated(node: Node, arrays: list[Tensor], pattern: list[Tensor], t: Tensor, rows: int) -> Tensor:
    """The slopes of a gate's units times rows."""
    return (t.unflatten(0, (rows, -1)) * slopes(node, arrays, pattern, t)).flatten(0, 1)


def slopes(node: Node, arrays: list[Tensor], pattern: list[Tensor], like: Tensor) -> Tensor:
    """The slope of every unit of every sample."""
    if node.kind == "relu":
        return (~pattern[0]).to(like.dtype)
    if node.kind == "clip":
        return (~(pattern[0] | pattern[1])).to(like.dtype)
    one = torch.ones((), dtype=like.dtype, device=like.device)
    if node.kind == "prelu":
        return torch.where(pattern[0], arrays[0], one)
    slope = -1.0 if node.kind == "abs" else node.operation["slope"]
    return torch.where(pattern[0], one * slope, one)


def gathered(node: Node, index: Tensor, t: Tensor, rows: int) -> Tensor:
    """The entries of rows that are at the places of the maxima."""
    if node.kind == "max-pool":
        shape = index.shape
        index = repeated(index.flatten(2), rows)
        return t.flatten(2).gather(2, index).reshape(-1, *shape[1:])
    axis = node.operation["axis"] + 1
    return t.gather(axis, repeated(index.unsqueeze(axis), rows)).squeeze(axis)


def scattered(node: Node, index: Tensor, c: Tensor, shape: tuple[int, ...], rows: int) -> Tensor:
    """Rows with their entries at the places of the maxima."""
    if node.kind == "max-pool":
        flat = c.new_zeros(c.shape[0], shape[0], prod(shape[1:]))
        flat.scatter_add_(2, repeated(index.flatten(2), rows), c.flatten(2))
        return flat.reshape(-1, *shape)
    axis = node.operation["axis"] + 1
    index = repeated(index.unsqueeze(axis), rows)
    return c.new_zeros(c.shape[0], *shape).scatter_(axis, index, c.unsqueeze(axis))


def repeated(index: Tensor, rows: int) -> Tensor:
    """Places in samples, for as many rows of each."""
    return index.expand(rows, *index.shape).flatten(0, 1) if rows > 1 else index
