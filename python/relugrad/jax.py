"""Exact derivatives of a network as JAX functions with a custom backward pass.

    net = rg.load("m.onnx", dtype="float32")          # or rg.Architecture([...]).build(...)
    params = rg.jax.parameters(net)
    def objective(params, x, y):
        f, G = rg.jax.gram(net, params, x)
        return cross_entropy(f, y) + 0.01 * jnp.trace(G, axis1=1, axis2=2).mean()
    value, gradient = jax.value_and_grad(objective)(params, x, y)

The engine runs on the CPU, called through `jax.pure_callback`, so that `jax.jit` works, `jax.vmap` runs it
once for each entry, and a second derivative is refused by JAX. The parameters are those that are
given, not those that the network holds. `float64` needs `jax.config.update("jax_enable_x64", True)`.
"""

from __future__ import annotations

import itertools
import threading
from collections import OrderedDict
from functools import partial
from typing import Any
from weakref import WeakKeyDictionary

try:
    import jax
    import jax.numpy as jnp
except ImportError as error:
    raise ImportError("relugrad.jax needs JAX, which is not installed: pip install jax") from error

import numpy as np

from ._relugrad import ArrayTypeError, Error, Network, Trace

__all__ = ["gram", "jacobian", "logits", "parameters", "vjp"]

Parameters = dict[str, jax.Array]


def parameters(network: Network) -> Parameters:
    """The parameters of a network as a dict of arrays by name, to be trained by JAX."""
    flat, found, start = network.parameters, {}, 0
    for name, shape in network.layout:
        stop = start + int(np.prod(shape))
        found[name] = jnp.asarray(flat[start:stop].reshape(shape))
        start = stop
    return found


def logits(network: Network, params: Parameters, x: jax.Array) -> jax.Array:
    """Logits `f: [B, K]`; `x: [B, *D]`."""
    return _logits(_Key(network), _checked(network, params, x), x.reshape(x.shape[0], -1))[0]


def gram(network: Network, params: Parameters, x: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Logits `f: [B, K]` and Gram matrices `G = J Jᵀ: [B, K, K]` of the input Jacobians.

    Differentiable in `params`, and in `x` (of which `G` does not depend inside a region). Cost: a
    forward pass, and `B·K` rows back and forth through the network's linear map.
    """
    return _gram(_Key(network), _checked(network, params, x), x.reshape(x.shape[0], -1))


def jacobian(network: Network, params: Parameters, x: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Logits `f: [B, K]` and Jacobians `J: [B, K, *D]`. Cost: a forward pass and `B·K` rows back; in the
    backward pass as many forward."""
    f, j = _jacobian(_Key(network), _checked(network, params, x), x.reshape(x.shape[0], -1))
    return f, j.reshape(*j.shape[:2], *x.shape[1:])


def vjp(
    network: Network, params: Parameters, x: jax.Array, u: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """Logits `f: [B, K]` and `Jᵀ u: [B, *D]`, differentiable in `params` and in `u: [B, K]`. With the
    residual of a loss as `u` it is the input gradient."""
    flat = x.reshape(x.shape[0], -1)
    f, g = _vjp(_Key(network), _checked(network, params, x), flat, u)
    return f, g.reshape(x.shape)


class _Key:
    """A network as a static argument: equal only to itself."""

    def __init__(self, network: Network) -> None:
        self.network = network

    def __hash__(self) -> int:
        return id(self.network)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Key) and other.network is self.network


def _checked(network: Network, params: Parameters, x: jax.Array) -> tuple[jax.Array, ...]:
    """The parameters in the network's order."""
    layout = network.layout
    missing = [name for name, _ in layout if name not in params]
    unknown = [name for name in params if name not in dict(layout)]
    if missing or unknown:
        raise Error(
            f"params lacks {missing} and has {unknown} besides; relugrad.jax.parameters(network) "
            "has what is needed"
        )
    for name, shape in layout:
        if tuple(params[name].shape) != tuple(shape):
            raise Error(f"{name} has shape {params[name].shape} but {tuple(shape)} is needed")
    for name, array in [("x", x), *params.items()]:
        if str(array.dtype) != network.dtype:
            raise ArrayTypeError(
                f"{name} is {array.dtype} but the network computes in {network.dtype}; "
                f'convert the network, network.astype("{array.dtype}"), or the array'
            )
    if x.ndim < 2 or int(np.prod(x.shape[1:])) != network.inputs:
        raise Error(f"x has shape {x.shape} but [B, {network.inputs}] is needed")
    return tuple(params[name] for name, _ in layout)


class _Traces:
    """The last traces of forward passes, for the backward passes that follow them. One that is gone is
    made again, so nothing depends on how many are kept."""

    KEPT = 4

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.numbers = itertools.count()
        self.traces: OrderedDict[int, Trace] = OrderedDict()

    def put(self, trace: Trace) -> np.ndarray:
        with self.lock:
            number = next(self.numbers) % (1 << 31)
            self.traces[number] = trace
            while len(self.traces) > self.KEPT:
                self.traces.popitem(last=False)
        return np.asarray(number, dtype=np.int32)

    def take(self, number: Any) -> Trace | None:
        with self.lock:
            return self.traces.pop(int(number), None)


_traces = _Traces()
# Copies that hold the parameters of the last call; what has been traced keeps its own.
_copies: WeakKeyDictionary[Network, Network] = WeakKeyDictionary()
_lock = threading.Lock()


def _traced(network: Network, params: tuple[Any, ...], x: Any) -> Trace:
    with _lock:
        copy = _copies.get(network)
        if copy is None:
            copy = _copies[network] = network.astype(network.dtype)
        copy.update([np.asarray(array) for array in params])
        return copy.trace(np.asarray(x))


def _called(callback: Any, shapes: Any, *arrays: Any) -> Any:
    return jax.pure_callback(callback, shapes, *arrays, vmap_method="sequential")


def _forward(ask: Any, key: _Key, params: Any, x: Any, *more: Any) -> tuple[Any, Any]:
    """Logits and what `ask` has a trace say, with the number of the trace; shapes come from `ask`."""
    network, (samples, outputs) = key.network, (x.shape[0], key.network.outputs)
    shapes = (
        jax.ShapeDtypeStruct((samples, outputs), x.dtype),
        *[jax.ShapeDtypeStruct(shape, x.dtype) for shape in ask.shapes(samples, outputs, x)],
        jax.ShapeDtypeStruct((), np.int32),
    )

    def callback(params: Any, x: Any, *more: Any) -> Any:
        trace = _traced(network, params, x)
        found = ask.found(trace, *map(np.asarray, more))
        return trace.logits, *found, _traces.put(trace)

    *found, number = _called(callback, shapes, params, x, *more)
    return found, number


def _backward(network: Network, params: Any, x: Any, number: Any, bars: Any, u: Any = None) -> Any:
    """The derivatives with respect to parameters, inputs and, if it is given, `u`."""
    flat = sum(int(np.prod(array.shape)) for array in params)
    shapes = [
        jax.ShapeDtypeStruct((flat,), x.dtype),
        jax.ShapeDtypeStruct(x.shape, x.dtype),
        *([] if u is None else [jax.ShapeDtypeStruct(u.shape, x.dtype)]),
    ]

    def callback(params: Any, x: Any, number: Any, bars: Any, u: Any) -> Any:
        trace = _traces.take(number) or _traced(network, params, x)
        given = {name: np.asarray(bar) for name, bar in bars.items()}
        if u is not None:
            given["vjp"] = (np.asarray(u), given["vjp"])
        gradient, x_bar, u_bar = trace.gradient(**given, inputs=True)
        return [gradient, x_bar, *([] if u is None else [u_bar])]

    flat, *others = _called(callback, shapes, params, x, number, bars, u)
    ends = np.cumsum([int(np.prod(array.shape)) for array in params])[:-1]
    pieces = jnp.split(flat, ends)
    return tuple(piece.reshape(a.shape) for piece, a in zip(pieces, params)), *others


class _Nothing:
    name = None
    shapes = staticmethod(lambda samples, outputs, x: [])
    found = staticmethod(lambda trace: [])


class _GramOf:
    name = "gram"
    shapes = staticmethod(lambda samples, outputs, x: [(samples, outputs, outputs)])
    found = staticmethod(lambda trace: [trace.gram_kept()])


class _JacobianOf:
    name = "jacobian"
    shapes = staticmethod(lambda samples, outputs, x: [(samples, outputs, x.shape[1])])
    found = staticmethod(lambda trace: [trace.jacobian_kept()])


class _VjpOf:
    shapes = staticmethod(lambda samples, outputs, x: [x.shape])
    found = staticmethod(lambda trace, u: [trace.vjp_kept(u)])


def _operator(ask: Any) -> Any:
    """The function of parameters and inputs that gives the logits and what `ask` asks for."""

    @partial(jax.custom_vjp, nondiff_argnums=(0,))
    def run(key: _Key, params: Any, x: Any) -> Any:
        return tuple(_forward(ask, key, params, x)[0])

    def forward(key: _Key, params: Any, x: Any) -> Any:
        found, number = _forward(ask, key, params, x)
        return tuple(found), (params, x, number)

    def backward(key: _Key, kept: Any, bars: Any) -> Any:
        names = ["logits"] if ask.name is None else ["logits", ask.name]
        return _backward(key.network, *kept, dict(zip(names, bars, strict=True)))

    run.defvjp(forward, backward)
    return run


_logits, _gram, _jacobian = map(_operator, (_Nothing, _GramOf, _JacobianOf))


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def _vjp(key: _Key, params: Any, x: Any, u: Any) -> Any:
    return tuple(_forward(_VjpOf, key, params, x, u)[0])


def _vjp_forward(key: _Key, params: Any, x: Any, u: Any) -> Any:
    found, number = _forward(_VjpOf, key, params, x, u)
    return tuple(found), (params, x, number, u)


def _vjp_backward(key: _Key, kept: Any, bars: Any) -> Any:
    params, x, number, u = kept
    given = {"logits": bars[0], "vjp": bars[1]}
    return _backward(key.network, params, x, number, given, u)


_vjp.defvjp(_vjp_forward, _vjp_backward)
