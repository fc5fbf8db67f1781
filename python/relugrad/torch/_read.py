"""An ``nn.Module`` as a list of nodes, by symbolic tracing.

`read` follows ``module.forward`` (``torch.fx``) and returns a `Description`: nodes with the
operations of a network's file, and references to the tensors of the module, whose values are looked
up whenever they are needed. What it returns is kept for the next call with the same module and
shape of samples, as long as nothing has changed that it depends on.

Supported are, as modules, functions and methods: ``Linear``, ``Conv1d/2d``, ``BatchNorm1d/2d``
with running statistics, ``MaxPool1d/2d``, ``AvgPool1d/2d``, adaptive pooling to sizes that
divide; ``ReLU``, ``ReLU6``, ``LeakyReLU``, ``PReLU``, ``RReLU``, ``Hardtanh``, ``abs``, ``clamp``
by numbers; ``mean``, ``sum``, ``max``, ``min``, ``amax``, ``amin`` over an axis, ``maximum``,
``minimum``; sums, and products with numbers and with tensors that do not depend on the input;
``cat``, ``stack``; everything that only moves entries (``view``, ``permute``, slices, ``pad``,
``chunk``, ``flip``, ``roll``, ``repeat``, nearest ``interpolate``, …); ``Dropout`` in eval mode;
also in place. Tensors that do not depend on the input may be computed in any way.

What is noticed: other classes, submodules, attributes (also ``training``, strides, slopes, hooks,
entries of lists and dictionaries), parameters that appear or vanish, and other values of buffers
by which ``forward`` decides. What is not: variables outside the module that ``forward`` reads, and
the insides of objects that are its attributes and neither modules, lists, nor dictionaries. Numbers
that ``forward`` draws at random would be drawn once.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import nn
from torch.nn.modules import module as modules

from . import _operations
from ._nodes import Description, Node, Reference, UnsupportedModule
from ._trace import Tracer, autocast
from ._values import Sample
from ._watch import Watch

__all__ = ["Description", "Node", "Reference", "UnsupportedModule", "read"]

# For how many shapes of samples a module's descriptions are kept.
KEPT = 8

_known: WeakKeyDictionary[nn.Module, dict[tuple[int, ...], tuple[Watch, Description]]]
_known = WeakKeyDictionary()
_lock = threading.RLock()


def read(module: nn.Module, input_shape: Sequence[int]) -> Description:
    """The network that a module computes for samples of a shape (without the axis of the batch).

    The first call follows the module's forward once, which takes about as long as a few forward
    passes; later ones compare the module with what it was, about 2 µs for each submodule.

    Raises :class:`UnsupportedModule`, which names the submodule, what is wrong and what to do: for
    what is not piecewise linear; batch norm or dropout in training mode; operations that are not
    supported; hooks; decisions by values; several inputs or outputs; and while autocast is on.
    Raises :class:`TypeError` if ``module`` is no ``nn.Module``.
    """
    if not isinstance(module, nn.Module):
        raise TypeError(f"module is {type(module).__name__}, but an nn.Module is needed")
    _check_surroundings(module)
    known = _known.get(module)
    shape = tuple(input_shape)
    found = known.get(shape) if known else None
    if found is not None and found[0].unchanged(module):
        return found[1]
    with _lock:
        found = _read_anew(module, shape)
        known = _known.setdefault(module, {})
        if len(known) >= KEPT:
            known.clear()
        known[shape] = found
    return found[1]


def _check_surroundings(module: nn.Module) -> None:
    if autocast():
        raise UnsupportedModule(
            type(module).__name__,
            "autocast is on, which rounds to half precision",
            "compute this in `with torch.autocast(device, enabled=False):`",
        )
    if (
        modules._global_forward_hooks
        or modules._global_forward_pre_hooks
        or modules._global_backward_hooks
    ):
        raise UnsupportedModule(
            type(module).__name__,
            "there are hooks for all modules, which would not run",
            "remove them while derivatives are computed",
        )


# What to do with modules around modules.
_WRAPPERS = {
    "DataParallel": "give its .module instead",
    "DistributedDataParallel": (
        "call the operator in the forward of a module that it wraps (docs/scale.md): by its .module "
        "alone, gradients would stay those of each process"
    ),
    "OptimizedModule": "give its ._orig_mod instead",
}


def _read_anew(module: nn.Module, shape: tuple[int, ...]) -> tuple[Watch, Description]:
    if not all(isinstance(n, int) and n > 0 for n in shape):
        raise ValueError(f"samples have the shape {list(shape)}, but every size must be positive")
    wrapper = type(module).__name__
    if wrapper in _WRAPPERS:
        raise UnsupportedModule(wrapper, "it wraps a module", _WRAPPERS[wrapper])
    tracer = Tracer(_operations)
    with torch.inference_mode(False), torch.enable_grad(), _attributes_restored(module):
        output = _output(tracer, tracer.read(module, shape))
    with torch.no_grad():
        return Watch(module, tracer), Description(_used(tracer.nodes, output))


@contextmanager
def _attributes_restored(module: nn.Module) -> Iterator[None]:
    """Takes back what a forward assigns to attributes of its module, which are stand-ins."""
    before = [(vars(below), dict(vars(below))) for below in module.modules()]
    try:
        yield
    finally:
        for attributes, kept in before:
            for name in [*attributes]:
                if name not in kept:
                    del attributes[name]
            attributes.update(kept)


def _output(tracer: Tracer, result: Any) -> int:
    """The node of the logits."""
    advice = "wrap it in a module that returns the logits, [batch, K]"
    if not isinstance(result, Sample):
        many = isinstance(result, (tuple, list, dict))
        problem = "it returns several values" if many else "its result does not depend on the input"
        raise tracer.refused(problem, advice)
    if result.version != result.storage.version:
        raise tracer.refused("its result was changed in place under another name")
    if len(result.sample_shape) != 1:
        found = ", ".join(["batch", *map(str, result.sample_shape)])
        raise tracer.refused(f"it returns [{found}], and no row of logits for each sample", advice)
    return result.at


def _used(nodes: list[Node], output: int) -> list[Node]:
    """The nodes that lead to the output."""
    used = {output}
    for at in range(output, -1, -1):
        if at in used:
            used.update(nodes[at].inputs)
    places = {at: place for place, at in enumerate(sorted(used))}
    return [
        Node(
            node.name,
            node.operation,
            tuple(places[at] for at in node.inputs),
            node.shape,
            node.parameters,
            node.constants,
        )
        for node in (nodes[at] for at in places)
    ]
