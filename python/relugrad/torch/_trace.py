"""Follows a module's ``forward`` by symbolic tracing (``torch.fx``) with values that know their
shape.

The tracer hands stand-ins through ``forward``. What is computed from the input is a `Sample`, whose
operations become nodes; what is computed from parameters and buffers alone is a `Weight`, which is
computed anew by PyTorch whenever it is needed. Shapes are ordinary numbers, so that ``forward`` may
ask for them and decide by them; only the size of the batch is none.
"""

from __future__ import annotations

import inspect
import operator
import threading
import weakref
from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, fx, nn
from torch.fx.node import map_aggregate
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.utils import parametrize, prune
from torch.nn.utils.spectral_norm import SpectralNorm
from torch.nn.utils.weight_norm import WeightNorm

from ._nodes import Node, Reference, UnsupportedModule
from ._values import Barred, Sample, Storage, Value, Weight

autocast = getattr(torch._C, "_is_any_autocast_enabled", None) or (
    lambda: torch.is_autocast_enabled() or torch.is_autocast_cpu_enabled()
)


class Place(NamedTuple):
    """Where a module keeps a tensor, and whether as a parameter."""

    get: Callable[[], Tensor]
    learned: bool


def places(module: nn.Module) -> list[tuple[Tensor, Place]]:
    """The tensors that a module itself keeps: parameters, buffers, and other attributes."""
    owner = weakref.ref(module)

    def attribute(name: str) -> Callable[[], Tensor]:
        return lambda: vars(owner())[name]

    def entry(tensors: dict[str, Tensor], name: str) -> Callable[[], Tensor]:
        return lambda: tensors[name]

    found = [(t, Place(attribute(name), False)) for name, t in vars(module).items()]
    for tensors, learned in ((module._parameters, True), (module._buffers, False)):
        found += [(t, Place(entry(tensors, name), learned)) for name, t in tensors.items()]
    return [(tensor, place) for tensor, place in found if isinstance(tensor, Tensor)]


def weight_hook(module: nn.Module, hook: Any) -> Reference | None:
    """The tensor that one of PyTorch's own hooks sets before every call, if it is such a hook."""
    owner = weakref.ref(module)

    def compute(*_: Tensor) -> Tensor:
        if isinstance(hook, WeightNorm):
            return hook.compute_weight(owner())
        if isinstance(hook, SpectralNorm):
            return hook.compute_weight(owner(), owner().training)
        return hook.apply_mask(owner())

    if not isinstance(hook, (WeightNorm, SpectralNorm, prune.BasePruningMethod)):
        return None
    return Reference.computed(compute, *stored(module))


def hook_name(hook: Any) -> str:
    """The name of the tensor that such a hook sets."""
    return getattr(hook, "name", None) or hook._tensor_name


def stored(module: nn.Module) -> list[Reference]:
    """References to all parameters and buffers below a module."""
    found = [pair for below in module.modules() for pair in places(below)]
    names = [*module.parameters(), *module.buffers()]
    kept = [place for tensor, place in found if any(tensor is other for other in names)]
    return [Reference(place.get, place.learned) for place in kept]


class Tracer(fx.Tracer):
    """Traces one module for one shape of samples; afterwards ``nodes`` is the network."""

    def __init__(self, operations: Any) -> None:
        super().__init__(autowrap_modules=())
        self.operations = operations
        self.nodes: list[Node] = []
        self.names: set[str] = set()
        self.baked: list[Reference] = []
        self.ties: list[list[Place]] = []
        self.calls: list[tuple[str, str]] = []
        self.typed: Reference | None = None
        self.thread = threading.get_ident()
        self.real = False

    # What is read, and where it stands.

    def read(self, module: nn.Module, shape: tuple[int, ...]) -> Any:
        """Follows ``module.forward`` for samples of a shape, and returns what it returns."""
        self.calls.append(("", type(module).__name__))
        self.find_tensors(module)
        self.input_shape = shape
        self.check_kind(module)
        self.check_hooks(module)
        self.check_arguments(module)
        with self.followed():
            self.trace(module)
        return self.result

    def find_tensors(self, module: nn.Module) -> None:
        self.places: dict[int, list[Place]] = {}
        self.set_by_hook: dict[int, Reference] = {}
        for below in module.modules():
            for tensor, place in places(below):
                self.places.setdefault(id(tensor), []).append(place)
            for hook in below._forward_pre_hooks.values():
                reference = weight_hook(below, hook)
                if reference is not None:
                    self.set_by_hook[id(below.__dict__.get(hook_name(hook)))] = reference
        self.references: dict[int, Reference] = {}

    def first_tensor(self) -> Tensor:
        """The tensor by which the module's type and device are known."""
        first = next(self.root.parameters(), None)
        if first is None:
            raise self.refused("it has no parameter that tells its type and device")
        self.typed = self.reference(first)
        return first

    def where(self) -> str:
        """The path and class of the module whose forward is being followed."""
        path, kind = self.calls[-1]
        return f"{path} ({kind})" if path else kind

    def refused(self, problem: str, advice: str = "") -> UnsupportedModule:
        return UnsupportedModule(self.where(), problem, advice)

    def add(
        self,
        operation: dict[str, Any],
        inputs: list[Sample],
        shape: tuple[int, ...],
        parameters: tuple[Reference, ...] = (),
        constants: tuple[Reference, ...] = (),
        storage: Storage | None = None,
    ) -> Sample:
        """Adds a node, and returns its value."""
        name = self.name(operation.get("gate", operation["operation"]))
        shape = tuple(int(n) for n in shape)
        if 0 in shape:
            raise self.refused(f"it makes an empty value, of shape {list(shape)} for one sample")
        at = tuple(input.at for input in inputs)
        self.nodes.append(Node(name, operation, at, shape, parameters, constants))
        return Sample(self, len(self.nodes) - 1, storage)

    def name(self, kind: str) -> str:
        """A new name for a node: the path of its module, and its kind where that is taken."""
        path = self.calls[-1][0]
        names = [path] if path else []
        names.append(f"{path}.{kind}" if path else kind)
        count = 1
        while (name := names.pop(0)) in self.names:
            if not names:
                names.append(f"{path}.{kind}{count}" if path else f"{kind}{count}")
                count += 1
        self.names.add(name)
        return name

    def weight(self, value: Any) -> Weight:
        """A tensor that no operation has been seen to make, as a value."""
        if isinstance(value, Weight):
            return value
        if id(value) not in self.references:
            self.references[id(value)] = self.reference(value)
        return Weight(self, self.references[id(value)], value)

    def reference(self, tensor: Tensor) -> Reference:
        if id(tensor) in self.set_by_hook:
            return self.set_by_hook[id(tensor)]
        if tensor.requires_grad and not tensor.is_leaf:
            raise self.refused(
                "it uses a tensor that was computed from others before its forward",
                "compute it in forward, from parameters of the module",
            )
        found = self.places.get(id(tensor))
        if found is None:
            return Reference(lambda: tensor, tensor.requires_grad)
        if len(found) > 1:
            self.ties.append(found)
        learned = tensor.requires_grad or any(place.learned for place in found)
        return Reference(found[0].get, learned)

    # What torch.fx calls.

    def create_args_for_root(self, root_fn, is_module, concrete_args=None):
        self.placeholder = self.create_node("placeholder", "input", (), {})
        self.batch = Barred(self, "the size of the batch")
        self.nodes.append(Node("input", {"operation": "input"}, (), self.input_shape))
        self.names.add("input")

        def forward(root: nn.Module, x: Sample) -> Sample:
            self.result = self.follow(root, (x,), {})
            return x

        return forward, [self.root, Sample(self, 0)]

    def create_arg(self, a: Any) -> Any:
        return self.placeholder

    def getattr(self, attr: str, attr_val: Any, parameter_proxy_cache: dict) -> Any:
        if self.foreign() or not isinstance(attr_val, Tensor):
            return attr_val
        return self.weight(attr_val)

    def call_module(self, m: nn.Module, forward: Callable, args: tuple, kwargs: dict) -> Any:
        if self.foreign():
            return forward(*args, **kwargs)
        if isinstance(m, parametrize.ParametrizationList):
            return self.parametrized(m)
        self.calls.append((self.submodule_paths.get(m, ""), type(m).__name__))
        try:
            self.check_kind(m)
            self.check_hooks(m)
            return self.follow(m, args, kwargs)
        finally:
            self.calls.pop()

    def to_bool(self, obj: fx.Proxy) -> bool:
        return bool(self.known(obj, []))

    def create_proxy(self, kind, target, args, kwargs, *_, **__) -> Any:
        found: list[Value] = []
        args, kwargs = (map_aggregate(a, lambda a: self.known(a, found)) for a in (args, kwargs))
        if any(isinstance(value, Sample) for value in found):
            self.check_modes()
            return self.operations.apply(self, kind, target, args, kwargs)
        barred = next((value for value in found if isinstance(value, Barred)), None)
        if barred is not None and target in (operator.eq, operator.ne) and args[0] is args[1]:
            return target is operator.eq
        if barred is not None:
            raise self.refused(f"its forward computes with {barred.what}", "leave that to PyTorch")
        return self.compute(kind, target, args, kwargs)

    # What a call does.

    def follow(self, module: nn.Module, args: tuple, kwargs: dict) -> Any:
        with self.followed():
            return module.forward(*args, **kwargs)

    @contextmanager
    def followed(self):
        """Turns whatever a forward raises into the error that names its module."""
        try:
            yield
        except UnsupportedModule:
            raise
        except Exception as error:
            reason = str(error).strip().split("\n")[0]
            raise self.refused(
                f"its forward cannot be followed ({type(error).__name__}: {reason})",
                "it must be computed by PyTorch from its input alone, the same way for every input",
            ) from error

    def foreign(self) -> bool:
        """Whether the caller is another thread, which must not notice, or wants real tensors."""
        return self.real or threading.get_ident() != self.thread

    def parametrized(self, module: nn.Module) -> Weight:
        """The tensor that a parametrization computes."""
        reference = Reference.computed(lambda *_: module(), *stored(module))
        with self.really():
            return Weight(self, reference, reference.get().detach())

    @contextmanager
    def really(self):
        """Lets modules compute with their tensors instead of stand-ins."""
        self.real = True
        try:
            with torch.no_grad():
                yield
        finally:
            self.real = False

    def check_hooks(self, module: nn.Module) -> None:
        for kind in ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks"):
            for hook in getattr(module, kind).values():
                if weight_hook(module, hook) is None:
                    name = kind.strip("_").replace("_", " ")[:-1]
                    raise self.refused(
                        f"it has a {name}, which would not run",
                        "remove it while derivatives are computed",
                    )

    def check_kind(self, module: nn.Module) -> None:
        if isinstance(module, torch.jit.ScriptModule):
            raise self.refused("it is compiled by TorchScript", "give the module it was made of")
        if any(nn.parameter.is_lazy(p) for p in module.parameters(recurse=False)):
            raise self.refused("its parameters have no shape yet", "call the module once before")
        if isinstance(module, _BatchNorm) and module.training:
            raise self.refused(
                "it is in training mode, where every logit depends on all samples of the batch",
                "call .eval() on it",
            )

    def check_modes(self) -> None:
        if not torch.is_grad_enabled():
            raise self.refused(
                "its forward turns derivatives off, as by torch.no_grad", "take that out"
            )
        if autocast():
            raise self.refused("its forward turns autocast on", "compute in one type")

    def check_arguments(self, module: nn.Module) -> None:
        arguments = [*inspect.signature(module.forward).parameters.values()]
        positional = [
            a for a in arguments if a.kind in (a.POSITIONAL_ONLY, a.POSITIONAL_OR_KEYWORD)
        ]
        needed = [a.name for a in positional[1:] if a.default is a.empty]
        needed += [a.name for a in arguments if a.kind is a.KEYWORD_ONLY and a.default is a.empty]
        if needed:
            raise self.refused(
                f"its forward needs several inputs, also {', '.join(needed)}",
                "wrap it in a module whose forward takes the input alone",
            )

    def known(self, value: Any, found: list[Value]) -> Any:
        """An argument as the handlers want it, with tensors as values."""
        if isinstance(value, fx.proxy.Attribute):
            value = self.attribute(value.root, value.attr)
        elif isinstance(value, Tensor):
            value = self.weight(value)
        if isinstance(value, Sample) and value.version != value.storage.version:
            raise self.refused(
                "it uses a tensor that was changed in place under another name",
                "replace the operation in place by the ordinary one",
            )
        if isinstance(value, Value):
            found.append(value)
        return value

    def attribute(self, root: Value, name: str) -> Any:
        if isinstance(root, Weight):
            return self.compute("call_function", getattr, (root, name), {})
        if name == "mT":
            return root.transpose(-2, -1)
        raise self.refused(f"its forward reads `.{name}` of a value that depends on the input")

    def compute(self, kind: str, target: Any, args: tuple, kwargs: dict) -> Any:
        """What PyTorch makes of parameters and buffers alone."""
        name = target if kind == "call_method" else getattr(target, "__name__", "")
        if name.endswith("_") and not name.endswith("__") or kwargs.get("inplace"):
            raise self.refused(f"its forward changes a tensor of the module by `{name}`")
        call = caller(kind, target)
        weights: list[Weight] = []

        def number(value: Any) -> Any:
            if not isinstance(value, Weight):
                return value
            weights.append(value)
            return _Slot(len(weights) - 1)

        form = tuple(map_aggregate(part, number) for part in (args, kwargs))

        def evaluate(*tensors: Tensor) -> Any:
            def fill(value: Any) -> Any:
                return tensors[value.index] if isinstance(value, _Slot) else value

            args, kwargs = (map_aggregate(part, fill) for part in form)
            return call(*args, **kwargs)

        if not torch.is_grad_enabled():
            evaluate = torch.no_grad()(evaluate)
        with self.really():
            found = evaluate(*(weight.value for weight in weights))
        return self.computed(evaluate, weights, found)

    def computed(self, evaluate: Callable, weights: list[Weight], found: Any) -> Any:
        references = [weight.reference for weight in weights]
        if isinstance(found, Tensor):
            return Weight(self, Reference.computed(evaluate, *references), found)
        if isinstance(found, (tuple, list)) and any(isinstance(f, Tensor) for f in found):

            def part(i: int) -> Callable:
                return lambda *tensors: evaluate(*tensors)[i]

            parts = [self.computed(part(i), weights, f) for i, f in enumerate(found)]
            return type(found)(parts) if type(found) in (tuple, list) else tuple(parts)
        for weight in weights:
            weight.baked()
        return found


@dataclass(frozen=True)
class _Slot:
    """Where a tensor goes in the arguments of a call."""

    index: int


def caller(kind: str, target: Any) -> Callable:
    if kind == "call_method":
        return lambda self, *args, **kwargs: getattr(self, target)(*args, **kwargs)
    return target
