"""The operators on the Rust engine: PyTorch differentiates outside, activation patterns inside."""

from __future__ import annotations

import json
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from relugrad import ArrayTypeError, Error, Network, Objective, Trace

from ._read import Description

_TYPES = {torch.float32: "float32", torch.float64: "float64"}


def dtype(x: Tensor) -> str:
    """The engine's word for the type of a tensor's numbers."""
    if x.dtype not in _TYPES:
        raise ArrayTypeError(
            f"x is {x.dtype} but relugrad computes in torch.float32 and torch.float64; "
            "x.float() converts it"
        )
    return _TYPES[x.dtype]


class _Held:
    """The engine's network of a description, and the constants that it was built with."""

    def __init__(self, description: Description, type_: str, parameters: list[np.ndarray]) -> None:
        self.constants = _constants(description)
        given, constants = iter(parameters), iter(self.constants)
        nodes = [
            (
                node.name,
                json.dumps(node.operation),
                list(node.inputs),
                list(node.shape),
                [next(given) for _ in node.parameters],
                [next(constants) for _ in node.constants],
            )
            for node in description.nodes
        ]
        self.network = Network.from_nodes(nodes, type_)

    def has(self, constants: list[np.ndarray]) -> bool:
        """Whether frozen statistics and other buffers are what they were."""
        return all(map(np.array_equal, self.constants, constants))


_held: WeakKeyDictionary[Description, dict[torch.dtype, _Held]] = WeakKeyDictionary()


def _constants(description: Description) -> list[np.ndarray]:
    return [_array(constant).astype(np.float64) for constant in description.constants()]


def _array(tensor: Tensor) -> np.ndarray:
    return tensor.detach().numpy()


def network(description: Description, x: Tensor, tensors: list[Tensor]) -> Network:
    """The engine's network with the present tensors. Weights that are the same are not copied."""
    type_ = dtype(x)
    arrays = [_array(tensor) for tensor in tensors]
    types = _held.setdefault(description, {})
    held = types.get(x.dtype)
    if held is None or not held.has(_constants(description)):
        held = types[x.dtype] = _Held(description, type_, arrays)
    else:
        held.network.update(arrays)
    return held.network


def _traced(description: Description, x: Tensor, tensors: list[Tensor]) -> Trace:
    return network(description, x, tensors).trace(_array(x.flatten(1)))


def _is_wanted(*tensors: Tensor) -> bool:
    """Whether PyTorch will want a backward pass."""
    return torch.is_grad_enabled() and any(tensor.requires_grad for tensor in tensors)


def logits(description: Description, x: Tensor, tensors: list[Tensor]) -> Tensor:
    """Logits `[B, K]`."""
    return _Logits.apply(_traced(description, x, tensors), x, *tensors)


def gram(description: Description, x: Tensor, tensors: list[Tensor]) -> tuple[Tensor, Tensor]:
    """Logits `[B, K]` and Gram matrices `[B, K, K]`."""
    return _rows("gram", description, x, tensors)


def jacobian(description: Description, x: Tensor, tensors: list[Tensor]) -> tuple[Tensor, Tensor]:
    """Logits `[B, K]` and Jacobians `[B, K, D]`."""
    return _rows("jacobian", description, x, tensors)


def _rows(
    name: str, description: Description, x: Tensor, tensors: list[Tensor]
) -> tuple[Tensor, Tensor]:
    is_kept = _is_wanted(x, *tensors)
    return _Rows.apply(_traced(description, x, tensors), name, is_kept, x, *tensors)


def vjp(
    description: Description, x: Tensor, u: Tensor, tensors: list[Tensor]
) -> tuple[Tensor, Tensor]:
    """Logits `[B, K]` and `Jᵀ u: [B, D]`."""
    return _Vjp.apply(_traced(description, x, tensors), u, x, *tensors)


def _keep(ctx: Any, trace: Trace, x: Tensor, tensors: tuple[Tensor, ...]) -> None:
    """Keeps the trace, and with it the network as it is, for the way back."""
    ctx.trace, ctx.shape = trace, x.shape
    # So PyTorch notices tensors that are changed in place, and a second way back.
    ctx.save_for_backward(*tensors)
    ctx.set_materialize_grads(False)


def _back(
    ctx: Any, needs_x: bool, **bars: Any
) -> tuple[Tensor | None, Tensor | None, list[Tensor]]:
    """The derivatives with respect to `x`, to `u` and to the tensors, from those that are given."""
    tensors = ctx.saved_tensors
    given = {name: bar for name, bar in bars.items() if bar is not None}
    flat, x_bar, u_bar = ctx.trace.gradient(**given, inputs=needs_x)
    flat = torch.from_numpy(flat)
    pieces = flat.split([tensor.numel() for tensor in tensors])
    gradients = [piece.view(tensor.shape) for piece, tensor in zip(pieces, tensors)]
    if x_bar is not None:
        x_bar = torch.from_numpy(x_bar).view(ctx.shape)
    elif needs_x:
        # Where no derivative reaches the logits, none reaches the inputs.
        x_bar = flat.new_zeros(ctx.shape)
    return x_bar, None if u_bar is None else torch.from_numpy(u_bar), gradients


def _bar(bar: Tensor | None) -> np.ndarray | None:
    return None if bar is None else _array(bar)


class _Logits(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, trace: Trace, x: Tensor, *tensors: Tensor) -> Tensor:
        _keep(ctx, trace, x, tensors)
        return torch.from_numpy(trace.logits)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, f_bar: Tensor | None) -> tuple[Tensor | None, ...]:
        x_bar, _, gradients = _back(ctx, ctx.needs_input_grad[1], logits=_bar(f_bar))
        return None, x_bar, *gradients


class _Rows(torch.autograd.Function):
    """What all rows of the Jacobian make: `gram` or `jacobian`, by the trace's name for it."""

    @staticmethod
    def forward(
        ctx: Any, trace: Trace, name: str, is_kept: bool, x: Tensor, *tensors: Tensor
    ) -> tuple[Tensor, Tensor]:
        _keep(ctx, trace, x, tensors)
        ctx.name = name
        found = getattr(trace, f"{name}_kept" if is_kept else name)()
        return torch.from_numpy(trace.logits), torch.from_numpy(found)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, f_bar: Tensor | None, bar: Tensor | None) -> tuple[Tensor | None, ...]:
        bars = {"logits": _bar(f_bar), ctx.name: _bar(bar)}
        x_bar, _, gradients = _back(ctx, ctx.needs_input_grad[3], **bars)
        return None, None, None, x_bar, *gradients


class _Vjp(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, trace: Trace, u: Tensor, x: Tensor, *tensors: Tensor
    ) -> tuple[Tensor, Tensor]:
        _keep(ctx, trace, x, tensors)
        ctx.u = _array(u)
        return torch.from_numpy(trace.logits), torch.from_numpy(trace.vjp_kept(ctx.u))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, f_bar: Tensor | None, g_bar: Tensor | None) -> tuple[Tensor | None, ...]:
        pair = None if g_bar is None else (ctx.u, _array(g_bar))
        x_bar, u_bar, gradients = _back(ctx, ctx.needs_input_grad[2], logits=_bar(f_bar), vjp=pair)
        return None, u_bar, x_bar, *gradients


def penalty(
    description: Description,
    x: Tensor,
    y: Tensor,
    tensors: list[Tensor],
    named: tuple[str, dict[str, Any]],
    loss: str | dict[str, Any] | None,
    draw: int,
) -> Tensor:
    """The mean of one of the engine's penalties."""
    name, options = named
    if _is_wanted(x):
        raise Error(
            f"x requires a gradient, which the penalty {name!r} does not offer; pass x.detach(), or "
            "write the penalty in terms of gram, jacobian or vjp"
        )
    objective = Objective([(name, 1.0, options)], loss=loss, penalties_only=True, draw=draw)
    is_kept = _is_wanted(*tensors)
    found = network(description, x, tensors)
    arrays = (_array(x.flatten(1)), _array(y))
    return _Penalty.apply(found, objective, arrays, is_kept, x, *tensors)


class _Penalty(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        network: Network,
        objective: Objective,
        arrays: tuple[np.ndarray, np.ndarray],
        is_kept: bool,
        x: Tensor,
        *tensors: Tensor,
    ) -> Tensor:
        ctx.save_for_backward(*tensors)
        if not is_kept:
            return x.new_tensor(objective.value(network, *arrays)["value"])
        evaluation, gradient = objective.gradient(network, *arrays)
        ctx.gradient = torch.from_numpy(gradient)
        return x.new_tensor(evaluation["value"])

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, bar: Tensor) -> tuple[Tensor | None, ...]:
        tensors = ctx.saved_tensors
        pieces = (bar * ctx.gradient).split([tensor.numel() for tensor in tensors])
        gradients = [piece.view(tensor.shape) for piece, tensor in zip(pieces, tensors)]
        return None, None, None, None, None, *gradients
