"""Exact derivatives of PyTorch modules as operators with a backward pass.

    f, G = rg.torch.gram(model, x)
    loss = F.cross_entropy(f, y) + 0.01 * G.diagonal(dim1=1, dim2=2).sum(1).mean()
    loss.backward()

Any function of what an operator gives has its exact parameter gradient, without double
backpropagation: PyTorch differentiates the function, and the operator carries the result through the
network's linear map once forward, to one ordinary backward pass.

| operator | gives | rows carried back, and again forward in the backward pass |
| --- | --- | --- |
| `gram(model, x)` | `f: [B, K]`, `G = J Jᵀ: [B, K, K]` | `B·K` |
| `jacobian(model, x)` | `f: [B, K]`, `J: [B, K, *D]` | `B·K` |
| `input_gradient(model, x, y)` | `f: [B, K]`, `g = ∂ℓ/∂x: [B, *D]` | `B` |
| `vjp(model, x, u)` | `f: [B, K]`, `Jᵀu: [B, *D]` | `B` |
| `penalty(model, x, y, name, …)`, `penalty(model, x, y, formula=…)` | a scalar | as the penalty needs |

`model` is an ordinary `nn.Module` of piecewise-linear layers in evaluation mode of its batch norms and
dropouts, read by `torch.fx`; gradients reach every parameter. `x: [B, *D]` has the module's `float32`
or `float64`. On the CPU the operators run the Rust engine; elsewhere, or with `backend="torch"`, the same
closed forms by PyTorch's own kernels. Derivatives follow the convention that a unit whose pre-activation
is exactly 0 is inactive.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Literal

try:
    import torch
except ImportError as error:
    raise ImportError(
        "relugrad.torch needs PyTorch, which is not installed: pip install torch"
    ) from error

from . import _engine
from ._read import Description, UnsupportedModule, read

__all__ = [
    "UnsupportedModule",
    "gram",
    "input_gradient",
    "jacobian",
    "network",
    "penalty",
    "vjp",
]

Backend = Literal["engine", "torch"]
Loss = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


def gram(
    model: torch.nn.Module, x: torch.Tensor, *, backend: Backend | None = None
) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits `f: [B, K]` and Gram matrices `G = J Jᵀ: [B, K, K]` of the input Jacobians `J`.

    Every penalty that is a function of the logits and of inner products of the Jacobian's rows costs
    least by this operator: `‖J‖_F² = tr G`, spectral and nuclear norm, cross-Lipschitz terms, curvature
    `tr(S G)` and `tr(S G S G)` (Hoffman et al. 2019; Hein & Andriushchenko 2017; Guo et al. 2021).

    Cost: a forward pass and `B·K` rows back and forth through the network's linear map. Memory: two
    such rows at every unit, until the backward pass.

    Raises:
        UnsupportedModule: if the module is not piecewise linear, or is in training mode; the message
            names the layer and what to do.
        relugrad.Error: if the batch does not fit, or a number is not finite.
    """
    return _run("gram", backend, *_prepared(model, x))


def jacobian(
    model: torch.nn.Module, x: torch.Tensor, *, backend: Backend | None = None
) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits `f: [B, K]` and input Jacobians `J = ∂f/∂x: [B, K, *D]`, `*D` the shape of a sample.

    For penalties that need the entries of `J`, such as `‖J‖_{1,1}`; one of `J Jᵀ` costs less by `gram`.

    Cost: a forward pass and `B·K` rows back; in the backward pass `B·K` rows forward. Raises as `gram`.
    """
    f, j = _run("jacobian", backend, *_prepared(model, x))
    return f, j.reshape(*j.shape[:2], *x.shape[1:])


def vjp(
    model: torch.nn.Module, x: torch.Tensor, u: torch.Tensor, *, backend: Backend | None = None
) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits `f: [B, K]` and `Jᵀ u: [B, *D]` for a row `u: [B, K]` of each sample, differentiable in the
    parameters and in `u`.

    Cost: a forward pass and one row of each sample back; in the backward pass one forward. Raises as
    `gram`.
    """
    f, g = _run("vjp", backend, *_prepared(model, x), u)
    return f, g.reshape(x.shape)


def input_gradient(
    model: torch.nn.Module,
    x: torch.Tensor,
    y: torch.Tensor,
    *,
    loss: Loss | None = None,
    backend: Backend | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits `f: [B, K]` and input gradients `g = ∂ℓ/∂x = Jᵀ r: [B, *D]` of each sample's loss.

    `‖g‖²` is *double backpropagation* (Drucker & LeCun 1992), without it. `loss(f, y)` gives the losses
    of the samples, `[B]`, by default softmax cross-entropy; its residual `r = ∂ℓ/∂f` is differentiated
    by PyTorch.

    Cost: two forward passes and one row of each sample back; in the backward pass one forward. Raises as
    `gram`.
    """
    prepared = _prepared(model, x)
    if loss is None:
        loss = _cross_entropy
    with torch.enable_grad():
        f = _run("logits", backend, *prepared)
        f = f if f.requires_grad else f.requires_grad_()
        losses = loss(f, y)
        if losses.shape != (len(x),):
            raise _engine.Error(
                f"loss gives shape {tuple(losses.shape)} but one number for each of {len(x)} samples is "
                'needed: reduction="none"'
            )
        (u,) = torch.autograd.grad(losses.sum(), f, create_graph=torch.is_grad_enabled())
    f, g = _run("vjp", backend, *prepared, u)
    return f, g.reshape(x.shape)


def penalty(
    model: torch.nn.Module,
    x: torch.Tensor,
    y: torch.Tensor,
    name: str | None = None,
    *,
    formula: str | None = None,
    constants: Mapping[str, float] | None = None,
    loss: str | dict[str, Any] | None = None,
    draw: int = 0,
    **options: Any,
) -> torch.Tensor:
    """The mean over the batch of one of the engine's penalties, a scalar with its exact gradient in
    every parameter; `relugrad.penalties()` lists them with their formulas.

    Or that of a `formula` of one's own with its `constants`, such as `formula="norm2(g) + b*tr(S*G)",
    constants={"b": 0.5}`; `relugrad train --help` explains the language.

    `options` are the penalty's (`step=1.5`), `loss` the name of the loss where the penalty depends on
    it, `draw` the random stream of projected penalties, such as the index of the step. It runs on the
    engine: tensors of other devices are refused. Its gradient in `x` is not offered.

    Raises:
        relugrad.Error: for an unknown penalty, with the nearest name, an option out of range, or a
            formula that is none, with the place in its text.
    """
    if formula is not None:
        name = "formula" if name is None else name
        options = {**options, "formula": formula, "constants": dict(constants or {})}
    elif name is None:
        raise _engine.Error("give the name of a penalty, or formula=")
    elif constants is not None:
        raise _engine.Error(f"the penalty {name!r} has constants but no formula")
    description, x, tensors = _prepared(model, x)
    if x.device.type != "cpu":
        raise _engine.Error(
            f"the penalty {name!r} runs on the CPU but x is on {x.device}; write it in terms of "
            "gram, jacobian or input_gradient, which run there"
        )
    return _engine.penalty(description, x, y, tensors, (name, options), loss, draw)


def network(model: torch.nn.Module, x: torch.Tensor) -> Any:
    """The module as a `relugrad.Network`, a copy with its present weights, for everything else that the
    engine does: regions, curvature, certificates. `x` is a batch, of which only shape and type count.
    """
    description, x, tensors = _prepared(model, x)
    return _engine.network(description, x, tensors).astype(_engine.dtype(x))


def _prepared(
    model: torch.nn.Module, x: torch.Tensor
) -> tuple[Description, torch.Tensor, list[torch.Tensor]]:
    """The module as it is now, the batch, and its tensors."""
    if not isinstance(model, torch.nn.Module):
        raise TypeError(f"model is {type(model).__name__} but must be a torch.nn.Module")
    if not isinstance(x, torch.Tensor):
        raise TypeError(f"x is {type(x).__name__} but must be a torch.Tensor: torch.as_tensor(x)")
    if x.dim() < 2:
        raise _engine.Error(
            f"x has shape {tuple(x.shape)} but needs a batch axis and the axes of a sample: x[None]"
        )
    description = read(model, tuple(x.shape[1:]))
    tensors = description.tensors()
    for tensor in tensors:
        if tensor.dtype != x.dtype:
            raise _engine.ArrayTypeError(
                f"x is {x.dtype} but the module's parameters are {tensor.dtype}; "
                f"convert one of them: x.to({tensor.dtype})"
            )
        if tensor.device != x.device:
            raise _engine.Error(
                f"x is on {x.device} but the module's parameters are on {tensor.device}; "
                f"move one of them: x.to({str(tensor.device)!r})"
            )
    return description, x, tensors


def _run(
    operator: str,
    backend: Backend | None,
    description: Description,
    x: torch.Tensor,
    tensors: list[torch.Tensor],
    *more: torch.Tensor,
) -> Any:
    """Runs an operator where the tensors are, or where it is asked for."""
    if backend not in (None, "engine", "torch"):
        raise _engine.Error(f'backend is {backend!r} but must be "engine" or "torch"')
    if backend == "engine" and x.device.type != "cpu":
        raise _engine.Error(f'x is on {x.device} but backend "engine" runs on the CPU')
    if backend == "engine" or backend is None and x.device.type == "cpu":
        operators = _engine
    else:
        from . import _closed as operators
    return getattr(operators, operator)(description, x, *more, tensors)


def _cross_entropy(f: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    return torch.nn.functional.cross_entropy(f, y, reduction="none")
