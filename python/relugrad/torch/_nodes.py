"""What reading a module gives: nodes, references to its tensors, and the error for what cannot be
read."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from relugrad import Error

TYPES = (torch.float32, torch.float64)


class UnsupportedModule(Error):
    """A module, or the state that it is in, for which there is no closed form.

    ``where`` is the path and class of the submodule, such as ``features.3 (BatchNorm2d)``,
    ``problem`` what is wrong with it, and ``advice`` what to do.
    """

    def __init__(self, where: str, problem: str, advice: str = "") -> None:
        super().__init__(where, problem, advice)
        self.where = where
        self.problem = problem
        self.advice = advice

    def __str__(self) -> str:
        advice = f"; {self.advice}" if self.advice else ""
        return f"{self.where}: {self.problem}{advice}"


class Reference:
    """A tensor that is looked up, or computed, whenever it is asked for.

    ``learned`` tells whether a parameter has a part in it, and ``sources`` are the references to
    the stored tensors that it is computed from.
    """

    __slots__ = ("_placed", "get", "learned", "literal", "sources")

    def __init__(
        self,
        get: Callable[[], Tensor],
        learned: bool,
        sources: tuple[Reference, ...] | None = None,
        literal: bool = False,
    ) -> None:
        self.get = get
        self.learned = learned
        self.sources = (self,) if sources is None else sources
        self.literal = literal
        self._placed: dict[Any, Tensor] = {}

    @staticmethod
    def constant(tensor: Tensor) -> Reference:
        """A tensor that never changes."""
        return Reference(lambda: tensor, False, sources=(), literal=True)

    @staticmethod
    def computed(function: Callable[..., Tensor], *inputs: Reference) -> Reference:
        """``function`` of the tensors of other references, each time anew."""
        learned = any(input.learned for input in inputs)
        sources = tuple(dict.fromkeys(s for input in inputs for s in input.sources))
        return Reference(lambda: function(*(input.get() for input in inputs)), learned, sources)

    def placed(self, like: Tensor) -> Tensor:
        """The tensor with the type and on the device of another one; integers stay integers."""
        if not self.literal:
            tensor = self.get()
            return tensor if tensor.dtype == like.dtype else tensor.to(like.dtype)
        key = (like.device, like.dtype)
        if key not in self._placed:
            tensor = self.get()
            dtype = torch.int64 if tensor.dtype == torch.int64 else like.dtype
            self._placed[key] = tensor.to(like.device, dtype)
        return self._placed[key]


@dataclass(frozen=True, eq=False)
class Node:
    """A node of the network: what it computes from the nodes of these indices.

    ``operation`` is written as in a network's file, with a gate as ``{"operation": "gate", "gate":
    "relu"}``; ``shape`` is that of one sample. The arrays come in the order in which the operation
    lists them.
    """

    name: str
    operation: dict[str, Any]
    inputs: tuple[int, ...]
    shape: tuple[int, ...]
    parameters: tuple[Reference, ...] = ()
    constants: tuple[Reference, ...] = ()

    @property
    def kind(self) -> str:
        """The name of the operation, or of the gate."""
        return self.operation.get("gate", self.operation["operation"])


class Description:
    """A network as a list of nodes in the order of evaluation: the first is the input, the last
    gives the logits ``[K]``."""

    __slots__ = ("__weakref__", "_constants", "_parameters", "_places", "_sources", "nodes")

    def __init__(self, nodes: Iterable[Node]) -> None:
        self.nodes = tuple(nodes)
        named = [(node, r) for node in self.nodes for r in node.parameters]
        first: dict[Reference, int] = {}
        for _, reference in named:
            first.setdefault(reference, len(first))
        owners = {reference: node for node, reference in reversed(named)}
        shapes = [tuple(reference.get().shape) for reference in first]
        self._parameters = [(r, owners[r].name, shape) for r, shape in zip(first, shapes)]
        self._places = [first[reference] for _, reference in named]
        self._constants = [(r, node.name) for node in self.nodes for r in node.constants]
        every = [*first, *(reference for reference, _ in self._constants)]
        self._sources = list(dict.fromkeys(s for r in every for s in r.sources))

    @property
    def input_shape(self) -> tuple[int, ...]:
        """The shape of one sample of the input."""
        return self.nodes[0].shape

    @property
    def outputs(self) -> int:
        """The number ``K`` of logits."""
        return self.nodes[-1].shape[0]

    def tensors(self) -> list[Tensor]:
        """The parameters of all nodes, one after the other, as they are now.

        A parameter that is used twice stands there twice. What is computed from parameters, such
        as a normalized weight, is differentiable back to them.

        Raises :class:`UnsupportedModule` if they are not all of one type, ``float32`` or
        ``float64``, or not all on one device, or if one has another shape than it had.
        """
        found = []
        dtype = device = None
        for reference, node, shape in self._parameters:
            tensor = reference.get()
            if dtype is None:
                dtype, device = tensor.dtype, tensor.device
            if tensor.dtype is not dtype or dtype not in TYPES or tensor.device != device:
                raise _unfit(node, tensor, dtype, device)
            if tensor.shape != shape:
                now = list(tensor.shape)
                problem = f"a parameter of shape {list(shape)} now has the shape {now}"
                raise UnsupportedModule(node, problem, "assign a new Parameter instead")
            found.append(tensor)
        return [found[place] for place in self._places]

    def constants(self) -> list[Tensor]:
        """The other arrays of all nodes, one after the other, as they are now: frozen statistics,
        buffers, numbers, and the integer places of gathers."""
        return [reference.get() for reference, _ in self._constants]

    def constants_like(self, tensor: Tensor) -> list[Tensor]:
        """The constants with the type of ``tensor`` and on its device.

        Raises :class:`UnsupportedModule` if a buffer is on another device.
        """
        found = []
        for reference, node in self._constants:
            constant = reference.placed(tensor)
            if constant.device != tensor.device and constant.dim():
                raise _unfit(node, constant, tensor.dtype, tensor.device)
            found.append(constant)
        return found

    def token(self) -> tuple[tuple[int, int], ...]:
        """Where each stored tensor that matters lies in memory, and how often PyTorch has seen it
        change.

        It is another one after every assignment and every operation in place that PyTorch sees.
        Writing through ``.data``, or through a NumPy array that shares the memory, is not seen.
        """
        tensors = [source.get() for source in self._sources]
        return tuple([(tensor.data_ptr(), tensor._version) for tensor in tensors])


def _unfit(node: str, tensor: Tensor, dtype: Any, device: Any) -> UnsupportedModule:
    if tensor.device != device:
        problem = f"it has a tensor on {tensor.device}, and the module's first is on {device}"
        return UnsupportedModule(node, problem, "move the whole module to one device")
    if tensor.dtype != dtype:
        problem = f"it has a parameter of type {tensor.dtype}, and the module's first is {dtype}"
        return UnsupportedModule(node, problem, "use one type, such as module.float()")
    problem = f"its parameters are {tensor.dtype}, and only float32 and float64 are exact enough"
    return UnsupportedModule(node, problem, "use module.float() or module.double()")
