"""Notices that a module has changed in a way that its description depends on."""

from __future__ import annotations

import weakref
from typing import Any, NamedTuple

import torch
from torch import nn

from ._trace import Tracer, hook_name, weight_hook

# What cannot refer back to the module, so that keeping it keeps nothing else alive.
PLAIN = (int, float, bool, str, bytes, type(None), tuple, torch.dtype, torch.device)


class Record(NamedTuple):
    """What one module was like."""

    skipped: frozenset[str]
    containers: tuple[str, ...]
    seen: tuple


class Watch:
    """What a module was like when it was read.

    Of every submodule it remembers the class and its forward, the attributes by identity (lists and
    dictionaries entry by entry), which parameters and buffers there are, and the hooks. Parameters
    and buffers may be exchanged, since they are looked up whenever they are needed.
    """

    __slots__ = ("baked", "held", "records", "ties", "token", "type", "typed", "watched")

    def __init__(self, module: nn.Module, tracer: Tracer) -> None:
        # What an identity stands for must not be freed and its address used again.
        self.held: list[Any] = []
        self.watched: list[weakref.ref] = []
        self.records = [self.record(below) for below in module.modules()]
        self.ties, self.baked, self.typed = tracer.ties, tracer.baked, tracer.typed
        self.token = self.baked_token()
        self.type = self.typed_as()

    def record(self, module: nn.Module) -> Record:
        hooks = module._forward_pre_hooks.values()
        skipped = frozenset(hook_name(h) for h in hooks if weight_hook(module, h) is not None)
        containers = []
        for name, value in vars(module).items():
            if isinstance(value, PLAIN) or name.startswith("_") and isinstance(value, dict):
                self.held.append(value)
            elif isinstance(value, (list, dict, set)):
                containers.append(name)
            elif name not in skipped and type(value).__weakrefoffset__:
                self.watched.append(weakref.ref(value))
        return Record(skipped, tuple(containers), look(module, skipped, containers))

    def unchanged(self, module: nn.Module) -> bool:
        """Whether the module is still as it was."""
        modules = [*module.modules()]
        if len(modules) != len(self.records):
            return False
        for below, (skipped, containers, seen) in zip(modules, self.records):
            if look(below, skipped, containers) != seen:
                return False
        if self.watched and any(reference() is None for reference in self.watched):
            return False
        if self.baked and self.baked_token() != self.token:
            return False
        if self.typed is not None and self.typed_as() != self.type:
            return False
        return all(place.get() is first.get() for first, *rest in self.ties for place in rest)

    def baked_token(self) -> list[tuple[int, int]]:
        """Where the tensors are whose values the structure depends on, and their versions."""
        tensors = [reference.get() for reference in self.baked]
        return [(tensor.data_ptr(), tensor._version) for tensor in tensors]

    def typed_as(self) -> tuple | None:
        if self.typed is None:
            return None
        tensor = self.typed.get()
        return tensor.dtype, tensor.device


def look(module: nn.Module, skipped: Any, containers: Any) -> tuple:
    """What is compared of one module."""
    attributes = vars(module)
    kind = module.__class__
    if skipped:
        values = [value for name, value in attributes.items() if name not in skipped]
    else:
        values = attributes.values()
    return (
        kind,
        kind.forward,
        [*map(id, values)],
        present(attributes["_parameters"]),
        present(attributes["_buffers"]),
        hooks_of(attributes),
        [entries(attributes.get(name)) for name in containers] if containers else None,
    )


def present(tensors: dict[str, Any]) -> list[str] | None:
    """The names of the tensors that there are."""
    if not tensors:
        return None
    return [name for name, tensor in tensors.items() if tensor is not None]


def hooks_of(attributes: dict[str, Any]) -> list[int] | None:
    """The hooks of a module, of which most have none."""
    before, after = attributes["_forward_pre_hooks"], attributes["_forward_hooks"]
    backward = attributes["_backward_hooks"] or attributes.get("_backward_pre_hooks")
    if not (before or after or backward):
        return None
    return [id(hook) for hooks in (before, after, backward or {}) for hook in hooks.values()]


def entries(container: Any) -> list[int]:
    """The entries of a list or dictionary, by identity."""
    if isinstance(container, dict):
        return [id(part) for pair in container.items() for part in pair]
    return [*map(id, container)] if isinstance(container, (list, set)) else []
