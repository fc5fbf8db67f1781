"""Jacobians and curvature of one sample as linear operators of SciPy."""

from types import ModuleType
from typing import Any

import numpy as np

from ._relugrad import Curvature, Error, Trace


def _scipy() -> ModuleType:
    try:
        import scipy.sparse.linalg
    except ImportError as error:
        raise ImportError("a LinearOperator needs SciPy: pip install scipy") from error
    return scipy.sparse.linalg


def _row(samples: int, sample: int, width: int, dtype: str, vector: Any) -> np.ndarray:
    """A batch of zeros with the vector at the sample."""
    rows = np.zeros((samples, width), dtype)
    rows[sample] = np.reshape(vector, width)
    return rows


def _check(sample: int, samples: int) -> None:
    if sample >= samples:
        raise Error(f"sample {sample} does not exist; the batch has {samples}")


def curvature(curvature: Curvature, sample: int) -> Any:
    """`H` of a sample; `[D, D]`, symmetric. A product costs a forward and a backward sweep."""
    samples, width = curvature.shape
    _check(sample, samples)

    def product(v: Any) -> np.ndarray:
        return curvature.apply(_row(samples, sample, width, curvature.dtype, v))[sample]

    return _scipy().LinearOperator(
        (width, width), matvec=product, rmatvec=product, dtype=np.dtype(curvature.dtype)
    )


def jacobian(trace: Trace, sample: int) -> Any:
    """`J` of a sample; `[K, D]`. A product with it or its transpose costs one sweep."""
    samples, logits, inputs = trace.shape
    _check(sample, samples)

    def product(v: Any) -> np.ndarray:
        return trace.jvp(_row(samples, sample, inputs, trace.dtype, v))[sample]

    def transposed(u: Any) -> np.ndarray:
        return trace.vjp(_row(samples, sample, logits, trace.dtype, u))[sample]

    return _scipy().LinearOperator(
        (logits, inputs), matvec=product, rmatvec=transposed, dtype=np.dtype(trace.dtype)
    )
