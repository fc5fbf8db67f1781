"""Stand-ins for tensors, which know their shape."""

from __future__ import annotations

import operator
from collections.abc import Callable
from math import prod
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, fx
from torch.fx.node import map_aggregate

from ._nodes import Reference

if TYPE_CHECKING:
    from ._trace import Tracer

# How many samples the batch has on which operations that move entries are tried.
PROBE = 3


class Value(fx.Proxy):
    """A stand-in for a tensor."""

    @classmethod
    def __torch_function__(cls, method, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        found: list[Value] = []
        map_aggregate((args, kwargs), lambda a: found.append(a) if isinstance(a, Value) else None)
        kind = "call_function"
        if torch.overrides.is_tensor_method_or_property(method):
            kind, method = "call_method", method.__name__
        return found[0].tracer.create_proxy(kind, method, args, kwargs)

    def _call(self, function: Callable, *args: Any) -> Any:
        return self.tracer.create_proxy("call_function", function, (self, *args), {})

    def __iadd__(self, other):
        return self._call(operator.iadd, other)

    def __isub__(self, other):
        return self._call(operator.isub, other)

    def __imul__(self, other):
        return self._call(operator.imul, other)

    def __itruediv__(self, other):
        return self._call(operator.itruediv, other)

    def __abs__(self):
        return self._call(torch.abs)

    def _refuse(self, asked: str) -> Any:
        raise self.tracer.refused(
            f"its forward asks for {asked} of a value that depends on the input or on the batch",
            "let the computation not depend on it",
        )

    def __bool__(self):
        return self._refuse("the truth")

    def __int__(self):
        return self._refuse("the number")

    __float__ = __index__ = __int__

    def __len__(self):
        return self._refuse("the length")

    def __iter__(self):
        return self._refuse("the entries, one by one,")

    def __setitem__(self, key, value):
        raise self.tracer.refused(
            "its forward assigns to entries of a tensor", "build the tensor by torch.cat instead"
        )


class Barred(Value):
    """What can be passed on but not computed with, such as the size of the batch."""

    def __init__(self, tracer: Tracer, what: str) -> None:
        super().__init__(tracer.placeholder, tracer)
        self.what = what


class Sizes(tuple):
    """A shape, whose first entry may be the size of the batch."""

    def numel(self) -> int:
        return prod(self)

    def __getitem__(self, key):
        found = super().__getitem__(key)
        return Sizes(found) if isinstance(key, slice) else found


class Shaped(Value):
    """A value whose shape is known."""

    sizes: Sizes

    @property
    def shape(self):
        return self.sizes

    def size(self, dim=None):
        return self.sizes if dim is None else self.sizes[dim]

    def dim(self) -> int:
        return len(self.sizes)

    ndimension = dim

    @property
    def ndim(self) -> int:
        return len(self.sizes)

    @property
    def dtype(self):
        return self.tracer.first_tensor().dtype

    @property
    def device(self):
        return self.tracer.first_tensor().device

    @property
    def is_cuda(self) -> bool:
        return self.device.type == "cuda"


class Storage:
    """The memory that a value and its views share."""

    version = 0


class Sample(Shaped):
    """A value that depends on the input: the node ``at``."""

    def __init__(self, tracer: Tracer, at: int, storage: Storage | None = None) -> None:
        super().__init__(tracer.placeholder, tracer)
        self.become(at, storage or Storage())

    def become(self, at: int, storage: Storage) -> Sample:
        self.at = at
        self.storage = storage
        self.version = storage.version
        self.sizes = Sizes((self.tracer.batch, *self.tracer.nodes[at].shape))
        return self

    @property
    def sample_shape(self) -> tuple[int, ...]:
        """Its shape without the axis of the batch."""
        return self.tracer.nodes[self.at].shape


class Weight(Shaped):
    """A value that depends on parameters and buffers alone; ``value`` is what it is now."""

    def __init__(self, tracer: Tracer, reference: Reference, value: Tensor) -> None:
        super().__init__(tracer.placeholder, tracer)
        self.reference = reference
        self.value = value
        self.sizes = Sizes(value.shape)

    def baked(self) -> Tensor:
        """Its value, on which the structure depends from now on."""
        self.tracer.baked.extend(self.reference.sources)
        return self.value

    @property
    def dtype(self):
        return self.value.dtype

    @property
    def device(self):
        return self.value.device

    def numel(self) -> int:
        return self.value.numel()

    nelement = numel

    def item(self):
        return self.baked().item()

    def tolist(self):
        return self.baked().tolist()

    def __bool__(self):
        return bool(self.baked())

    def __int__(self):
        return int(self.baked())

    def __float__(self):
        return float(self.baked())

    def __index__(self):
        return operator.index(self.baked())

    def __len__(self):
        return len(self.value)

    def __iter__(self):
        return (self[i] for i in range(len(self.value)))
