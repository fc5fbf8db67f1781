"""Closed forms of Gram matrix, Jacobian and vector-Jacobian product by PyTorch's own kernels.

Inside an activation region the network is affine, and its Jacobian ``J`` is a product of the
layers' matrices and of the gates that are open. With the activation pattern kept from one forward
pass, ``J`` is that of ``K`` rows carried back for each sample. For a loss ``L(f, J)`` with
``f̄ = ∂L/∂f`` and ``J̄ = ∂L/∂J``,

    ∂L/∂θ = ∂/∂θ ⟨f̄, f(x; θ)⟩ + ∂/∂θ Σ_k ⟨e_k, J(θ) J̄ᵀ e_k⟩

where the pattern and ``J̄`` are held. The second sum is an ordinary network without biases, whose
inputs are the rows of ``J̄``: they are carried forward once, and one ordinary backward pass of both
sums gives the gradient, without double backpropagation. For a loss of the Gram matrix ``G = J Jᵀ``
the rows are those of ``(Ḡ + Ḡᵀ) J``, and for one of ``g = Jᵀ u`` the one row ``ḡ`` with ``u`` in
place of ``e_k``.

A unit at an exact kink has the slope of its inactive side, and the first of equal maxima wins, as
in the engine. Nothing is copied to the host.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from ._linear import Arrays, apply, select, selected, transpose
from ._nodes import Description

# How many bytes the values of all nodes may take for the rows that are carried at once: on the CPU
# about what its caches hold, elsewhere enough to occupy the device. There is always one row of each
# sample.
ROOM = 16 << 20
ROOM_ELSEWHERE = 1 << 30


def logits(description: Description, x: Tensor, tensors: Sequence[Tensor]) -> Tensor:
    """Logits ``f: [B, K]``, differentiable once in every parameter and in ``x``."""
    return _Logits.apply(description, x, *tensors)


def gram(description: Description, x: Tensor, tensors: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """Logits ``f: [B, K]`` and Gram matrices ``G = J Jᵀ: [B, K, K]`` of the Jacobians in ``x``.

    ``tensors`` are ``description.tensors()``; ``x: [B, *input_shape]`` has their type and device.
    Both results are differentiable once, in every parameter; in ``x`` the derivative is
    ``x̄ = Jᵀ f̄``, since ``G`` is constant inside an activation region. Cost: ``B`` rows forward and
    ``K B`` back; then ``(K + 1) B`` rows forward and back for the gradient.
    """
    return _Gram.apply(description, x, *tensors)


def jacobian(
    description: Description, x: Tensor, tensors: Sequence[Tensor]
) -> tuple[Tensor, Tensor]:
    """Logits ``f: [B, K]`` and Jacobians ``J = ∂f/∂x: [B, K, *input_shape]``.

    As for :func:`gram`, also the cost.
    """
    return _Jacobian.apply(description, x, *tensors)


def vjp(
    description: Description, x: Tensor, u: Tensor, tensors: Sequence[Tensor]
) -> tuple[Tensor, Tensor]:
    """Logits ``f: [B, K]`` and ``g = Jᵀ u: [B, *input_shape]`` for ``u: [B, K]``.

    As for :func:`gram`, also differentiable in ``u``; the cost is that of one row for each sample.
    """
    return _Vjp.apply(description, x, u, *tensors)


class _Logits(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, description: Description, x: Tensor, *tensors: Tensor):
        network, f = _Network.of(description, x, tensors)
        network.save(ctx, x)
        return f

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, f_bar: Tensor | None):
        network, x = _Network.saved(ctx)
        gradients, _ = network.gradients(ctx.needs_input_grad[2:], x, f_bar, None)
        return None, network.input_gradient(ctx.needs_input_grad[1], x, f_bar), *gradients


class _Gram(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, description: Description, x: Tensor, *tensors: Tensor):
        network, f = _Network.of(description, x, tensors)
        rows = network.jacobian(f)
        network.save(ctx, x, rows)
        flat = rows.flatten(2).transpose(0, 1)
        return f, flat @ flat.transpose(1, 2)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, f_bar: Tensor | None, gram_bar: Tensor | None):
        network, x, rows = _Network.saved(ctx)
        tangents = None
        if gram_bar is not None:
            flat = rows.flatten(2).transpose(0, 1)
            both = (gram_bar + gram_bar.transpose(1, 2)) @ flat
            tangents = both.transpose(0, 1).reshape(rows.shape)
        gradients, _ = network.gradients(ctx.needs_input_grad[2:], x, f_bar, tangents)
        return None, network.input_gradient(ctx.needs_input_grad[1], x, f_bar), *gradients


class _Jacobian(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, description: Description, x: Tensor, *tensors: Tensor):
        network, f = _Network.of(description, x, tensors)
        rows = network.jacobian(f)
        network.save(ctx, x)
        return f, rows.transpose(0, 1)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, f_bar: Tensor | None, jacobian_bar: Tensor | None):
        network, x = _Network.saved(ctx)
        tangents = None if jacobian_bar is None else jacobian_bar.transpose(0, 1)
        gradients, _ = network.gradients(ctx.needs_input_grad[2:], x, f_bar, tangents)
        return None, network.input_gradient(ctx.needs_input_grad[1], x, f_bar), *gradients


class _Vjp(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, description: Description, x: Tensor, u: Tensor, *tensors: Tensor):
        network, f = _Network.of(description, x, tensors)
        network.save(ctx, x, u)
        return f, network.back(u[None])[0]

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, f_bar: Tensor | None, g_bar: Tensor | None):
        network, x, u = _Network.saved(ctx)
        tangents = None if g_bar is None else g_bar[None]
        wanted = ctx.needs_input_grad[3:]
        gradients, image = network.gradients(wanted, x, f_bar, tangents, u[None])
        x_bar = network.input_gradient(ctx.needs_input_grad[1], x, f_bar)
        return None, x_bar, None if image is None else image[0], *gradients


@dataclass
class _Network:
    """A network with the arrays and the activation pattern of one forward pass.

    Rows of a sample stand in the first axis: ``[R, B, ...]``.
    """

    description: Description
    arrays: Arrays
    pattern: list[list[Tensor]]

    @staticmethod
    def of(description: Description, x: Tensor, tensors: Sequence[Tensor]):
        """The network at ``x``, and its logits."""
        arrays = Arrays(description, tensors, description.constants_like(x))
        network = _Network(description, arrays, [[] for _ in description.nodes])

        def gate(at: int, z: Tensor) -> Tensor:
            a, network.pattern[at] = select(description.nodes[at], arrays.parameters[at], z)
            return a

        return network, network.forward(x, gate, affine=True)

    def save(self, ctx: Any, *tensors: Tensor) -> None:
        """Keeps what the backward pass needs, so that PyTorch checks that nothing has changed."""
        parts = [tensors, self.arrays.tensors, self.arrays.constant_tensors]
        parts += [pattern for pattern in self.pattern]
        ctx.save_for_backward(*(tensor for part in parts for tensor in part))
        ctx.sizes = [len(part) for part in parts]
        ctx.description = self.description
        ctx.set_materialize_grads(False)

    @staticmethod
    def saved(ctx: Any) -> tuple:
        """What `save` has kept."""
        saved, parts = iter(ctx.saved_tensors), []
        for size in ctx.sizes:
            parts.append([next(saved) for _ in range(size)])
        tensors, parameters, constants, *pattern = parts
        arrays = Arrays(ctx.description, parameters, constants)
        return _Network(ctx.description, arrays, pattern), *tensors

    def forward(self, x: Tensor, gate: Callable, affine: bool) -> Tensor:
        """Carries rows forward, with the offsets of affine maps if ``affine``."""
        nodes = self.description.nodes
        values: list[Tensor | None] = [x] + [None] * (len(nodes) - 1)
        last = {at: place for place, node in enumerate(nodes) for at in node.inputs}
        for place, node in enumerate(nodes[1:], start=1):
            inputs = [values[at] for at in node.inputs]
            for at in node.inputs:
                if last[at] == place:
                    values[at] = None
            if self.arrays.selects[place]:
                values[place] = gate(place, inputs[0])
            else:
                values[place] = apply(node, self.arrays.of(place), inputs, affine)
        return values[-1]

    def along(self, rows: Tensor, affine: bool) -> Tensor:
        """``J v`` for rows ``[R, B, *input_shape]``, or the affine function that the network is in
        the region of each sample."""
        nodes, count = self.description.nodes, rows.shape[0]

        def gate(at: int, t: Tensor) -> Tensor:
            arrays = self.arrays.parameters[at]
            return selected(nodes[at], arrays, self.pattern[at], t, count, affine)

        out = self.forward(rows.flatten(0, 1), gate, affine)
        return out.unflatten(0, rows.shape[:2])

    def back(self, rows: Tensor) -> Tensor:
        """``Jᵀ u`` for rows ``u: [R, B, K]``."""
        nodes, count = self.description.nodes, rows.shape[0]
        above: list[Tensor | None] = [None] * len(nodes)
        above[-1] = rows.flatten(0, 1)
        for at in range(len(nodes) - 1, 0, -1):
            c, above[at], node = above[at], None, nodes[at]
            below = [nodes[i].shape for i in node.inputs]
            shares = transpose(node, self.arrays.of(at), self.pattern[at], c, below, count)
            for i, share in zip(node.inputs, shares):
                above[i] = share if above[i] is None else above[i] + share
        return above[0].unflatten(0, rows.shape[:2])

    def jacobian(self, f: Tensor) -> Tensor:
        """``J: [K, B, *input_shape]`` for logits ``f``."""
        batch, outputs = f.shape
        size, units = self.rows_at_once(f), _units(batch, outputs, f)
        found = f.new_empty(outputs, batch, *self.description.input_shape)
        for part, seeds in zip(found.split(size), units.split(size)):
            part.copy_(self.back(seeds))
        return found

    def rows_at_once(self, like: Tensor) -> int:
        """How many rows of every sample fit into the room for values."""
        room = ROOM if like.device.type == "cpu" else ROOM_ELSEWHERE
        values = sum(prod(node.shape) for node in self.description.nodes)
        return max(1, room // max(1, like.shape[0] * values * like.element_size()))

    def gradients(
        self,
        wanted: Sequence[bool],
        x: Tensor,
        f_bar: Tensor | None,
        tangents: Tensor | None,
        cotangents: Tensor | None = None,
    ) -> tuple[list[Tensor | None], Tensor | None]:
        """``∂/∂θ (⟨f̄, f⟩ + Σ ⟨c, J t⟩)`` over rows ``t`` and ``c`` (all unit rows, if not given),
        and ``J t``."""
        leaves = [t.detach().requires_grad_(w) for t, w in zip(self.arrays.tensors, wanted)]
        sought = [leaf for leaf in leaves if leaf.requires_grad]
        arrays = Arrays(self.description, leaves, self.arrays.constant_tensors)
        network = _Network(self.description, arrays, self.pattern)

        def backward(rows: Tensor, affine: bool, seeds: Tensor) -> Tensor:
            with torch.enable_grad():
                out = network.along(rows, affine)
            if out.requires_grad:
                torch.autograd.backward([out], [seeds], inputs=sought)
            return out.detach()

        if f_bar is not None:
            backward(x.detach()[None], True, f_bar[None])
        image = None
        if tangents is not None:
            if cotangents is None:
                cotangents = _units(tangents.shape[1], self.description.outputs, x)
            size = self.rows_at_once(x)
            pairs = zip(tangents.split(size), cotangents.split(size))
            image = torch.cat([backward(t, False, c) for t, c in pairs])
        return [_gradient(leaf) for leaf in leaves], image

    def input_gradient(self, wanted: bool, x: Tensor, f_bar: Tensor | None) -> Tensor | None:
        """``x̄ = Jᵀ f̄``."""
        if not wanted:
            return None
        return torch.zeros_like(x) if f_bar is None else self.back(f_bar[None])[0]


def _gradient(leaf: Tensor) -> Tensor | None:
    """What has come to a leaf that wants a gradient."""
    if not leaf.requires_grad:
        return None
    return torch.zeros_like(leaf) if leaf.grad is None else leaf.grad


def _units(batch: int, outputs: int, like: Tensor) -> Tensor:
    """The rows ``e_k`` of every sample: ``[K, B, K]``."""
    unit = torch.eye(outputs, dtype=like.dtype, device=like.device)
    return unit[:, None].expand(outputs, batch, outputs)
