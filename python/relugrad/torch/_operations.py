"""What becomes of a call on a value that depends on the input."""

from __future__ import annotations

from typing import Any

from . import _gates, _maps  # noqa: F401  (they fill the table)
from ._moves import MOVES, moved
from ._nodes import UnsupportedModule
from ._table import OPERATIONS, SIGNATURES
from ._trace import Tracer, caller
from ._values import Sample, Value

SMOOTH = [
    "gelu",
    "sigmoid",
    "tanh",
    "softmax",
    "log_softmax",
    "softmin",
    "gumbel_softmax",
    "silu",
    "mish",
    "softplus",
    "elu",
    "selu",
    "celu",
    "logsigmoid",
    "softsign",
    "tanhshrink",
    "hardswish",
    "glu",
    "exp",
    "log",
    "sin",
    "cos",
    "sqrt",
    "pow",
    "square",
    "erf",
    "logsumexp",
    "norm",
    "normalize",
    "cosine_similarity",
    "scaled_dot_product_attention",
    "multi_head_attention_forward",
]
NORMS = ["layer_norm", "instance_norm", "group_norm", "local_response_norm", "rms_norm"]


def apply(t: Tracer, kind: str, target: Any, args: tuple, kwargs: dict) -> Any:
    """The value of a call that has a value among its arguments that depends on the input."""
    name = target if kind == "call_method" else getattr(target, "__name__", repr(target))
    module = getattr(target, "__module__", None) or "torch"
    if kind == "call_function" and module.split(".")[0] not in ("torch", "_operator", "builtins"):
        raise t.refused(f"`{name}` is no function of PyTorch", "call it without torch.fx.wrap")
    in_place = name.endswith("_") and not name.endswith("__")
    plain = name.rstrip("_")
    if kind == "call_function" and plain.startswith("i") and plain[1:] in ("add", "sub", "mul"):
        plain, in_place = plain[1:], True
    if plain == "itruediv":
        plain, in_place = "div", True
    try:
        if plain in MOVES:
            return moved(t, plain, caller(kind, target), *args, **kwargs)
        if plain not in OPERATIONS:
            raise t.refused(*_why_not(t, plain))
        bound = SIGNATURES[plain].bind(*args, **kwargs)
        result = OPERATIONS[plain](t, *bound.args, **bound.kwargs)
    except UnsupportedModule:
        raise
    except (TypeError, RuntimeError, ValueError, IndexError) as error:
        reason = str(error).strip().split("\n")[0]
        raise t.refused(f"`{plain}` cannot be applied here ({reason})") from error
    if not (in_place or bound.arguments.get("inplace")):
        return result
    return changed(t, args[0] if args else bound.args[0], result)


def changed(t: Tracer, value: Value, result: Sample) -> Sample:
    """The value that an operation in place has left in `value`."""
    if not isinstance(value, Sample):
        raise t.refused("its forward writes what depends on the input into a tensor of the module")
    if result.sample_shape != value.sample_shape:
        raise t.refused("an operation in place cannot change a shape")
    value.storage.version += 1
    return value.become(result.at, value.storage)


def _why_not(t: Tracer, name: str) -> tuple[str, str]:
    if name in SMOOTH:
        advice = "use ReLU, leaky ReLU, PReLU, abs, hard tanh or a maximum instead"
        if "softmax" in name:
            advice = "return the logits, and apply it to them outside"
        return f"`{name}` is not piecewise linear", advice
    if name in NORMS:
        problem = f"`{name}` divides by a statistic of the sample, which is not piecewise linear"
        return problem, "use BatchNorm in eval mode instead"
    if name.endswith("_with_indices"):
        return "it returns indices too", "use return_indices=False"
    if name in ("detach", "data"):
        return f"`{name}` stops derivatives with respect to the input", "leave it out"
    return f"`{name}` is not among the supported operations", "use those of the documentation"
