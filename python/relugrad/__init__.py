"""Exact derivatives and regularizers of ReLU networks.

A ReLU network is affine inside each activation region, so its Jacobian, the curvature of its loss in
the input, and the parameter gradients of all penalties built from them follow from the activation
pattern, without double backpropagation.

- `relugrad.torch`: operators for PyTorch modules, with exact gradients in every parameter.
- `relugrad.jax`: the same for JAX.
- `load`, `Mlp`, `Network`, `Trace`, `Curvature`, `Objective`: the engine on NumPy arrays.
- `Region`, `Slice`, `Network.walk`, `FiniteDifference`: activation regions, and independent checks.
- `train`, `compare`, `evaluate`, `verify`: the trainer, with bars of progress.
- `relugrad.ray`: comparisons on a Ray cluster.

`B` is the number of samples of a batch, `D` of inputs, `K` of logits. Arrays are of the network's type,
`float32` or `float64`. What is refused is a `relugrad.Error` (a `ValueError`) or, where the type of an
array is wrong, a `relugrad.ArrayTypeError` (a `TypeError`).
"""

import importlib
from types import ModuleType

from ._comparison import Comparison, compare
from ._relugrad import (
    Architecture,
    ArrayTypeError,
    Curvature,
    Error,
    FiniteDifference,
    Mlp,
    Network,
    Objective,
    Region,
    Slice,
    Trace,
    digits,
    load,
    num_threads,
    penalties,
    set_num_threads,
)
from ._training import Evaluation, Training, evaluate, train, verify

__all__ = [
    "Architecture",
    "ArrayTypeError",
    "Comparison",
    "Curvature",
    "Error",
    "Evaluation",
    "FiniteDifference",
    "Mlp",
    "Network",
    "Objective",
    "Region",
    "Slice",
    "Trace",
    "Training",
    "compare",
    "digits",
    "evaluate",
    "load",
    "num_threads",
    "penalties",
    "set_num_threads",
    "train",
    "verify",
]

# What needs packages of its own is imported when it is first asked for.
_MODULES = ("jax", "ray", "torch")


def __getattr__(name: str) -> ModuleType:
    if name in _MODULES:
        return importlib.import_module(f"{__name__}.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*__all__, *_MODULES])
