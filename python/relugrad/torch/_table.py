"""The table of PyTorch's operations, and what their arguments may be.

A handler has the name and the arguments of PyTorch's operation, after the tracer, which stands
first. Shapes of nodes are those of one sample, so an axis that PyTorch counts as ``d`` is ``d - 1``
there.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import torch

from ._nodes import Reference
from ._trace import Tracer
from ._values import Sample, Weight

OPERATIONS: dict[str, Callable] = {}
SIGNATURES: dict[str, inspect.Signature] = {}


def operation(function: Callable) -> Callable:
    """Enters a handler under its name without trailing underscores."""
    name = function.__name__.rstrip("_")
    OPERATIONS[name] = function
    parameters = [*inspect.signature(function).parameters.values()][1:]
    SIGNATURES[name] = inspect.Signature(parameters)
    return function


def also(**names: str) -> None:
    """Enters further names of operations: ``also(new="known")``."""
    for new, known in names.items():
        OPERATIONS[new], SIGNATURES[new] = OPERATIONS[known], SIGNATURES[known]


def sample(t: Tracer, value: Any) -> Sample:
    if not isinstance(value, Sample):
        raise t.refused("an operand that should depend on the input does not")
    return value


def parameter(t: Tracer, value: Any, what: str) -> Weight:
    """An argument that must not depend on the input."""
    if isinstance(value, Weight):
        return value
    if isinstance(value, Sample):
        problem = f"its {what} depends on the input, which makes products of activations"
        raise t.refused(problem, "only linear maps by parameters are piecewise linear")
    raise t.refused(f"its {what} is no tensor")


def derived(t: Tracer, function: Callable, *weights: Weight) -> Weight:
    """``function`` of parameters, computed whenever it is needed."""
    value = function(*(weight.value for weight in weights)).detach()
    return Weight(t, Reference.computed(function, *(w.reference for w in weights)), value)


def number(value: float) -> Reference:
    return Reference.constant(torch.tensor(float(value), dtype=torch.float64, device="cpu"))


def is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def axis_of(t: Tracer, dim: int, ndim: int) -> int:
    """The axis of one sample that PyTorch counts as ``dim`` among ``ndim``."""
    if not -ndim <= dim < ndim:
        raise t.refused(f"there is no dimension {dim} among {ndim}")
    if dim % ndim == 0:
        raise t.refused("it combines the samples of a batch", "keep the first axis for the batch")
    return dim % ndim - 1


def axes_of(t: Tracer, dim: Any, x: Sample) -> list[int]:
    if dim is None or dim == ():
        raise t.refused("it combines the samples of a batch", "name the axes, such as dim=(2, 3)")
    dims = [dim] if isinstance(dim, int) else dim
    return sorted(axis_of(t, d, x.ndim) for d in dims)


def pair(value: Any) -> list[int]:
    value = [value] if isinstance(value, int) else list(value)
    return value * 2 if len(value) == 1 else value


def row(value: Any, other: int) -> list[int]:
    """A size along a row as height and width."""
    value = value if isinstance(value, int) else value[0]
    return [other, value]


def rank(t: Tracer, x: Sample, axes: int, what: str) -> tuple[int, ...]:
    """The shape of a sample that must have so many axes."""
    shape = sample(t, x).sample_shape
    if len(shape) != axes:
        found = ", ".join(["batch", *map(str, shape)])
        raise t.refused(f"it needs [batch, {what}] but its input is [{found}]")
    return shape
