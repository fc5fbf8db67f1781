"""Samples as the trainer takes them: its sources, or arrays."""

import os
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from ._relugrad import ArrayTypeError, Error

Data: TypeAlias = str | os.PathLike[str] | Mapping[str, Any] | tuple[Any, Any]
"""`"digits"`, a path, a dict with the keys of `[data]` in a configuration, or arrays `(x, y)`: samples
`[n, …]` with classes, whole numbers `[n]`, or values, real numbers `[n]` or `[n, K]`."""


def is_arrays(data: Any) -> bool:
    """Whether samples are given as arrays."""
    return isinstance(data, tuple | list)


def source(data: Data) -> dict[str, Any]:
    """What is no arrays as a source."""
    if isinstance(data, Mapping):
        return {str(key).replace("_", "-"): value for key, value in data.items()}
    if isinstance(data, str | os.PathLike):
        return {"path": os.fspath(data)}
    raise ArrayTypeError(
        f'data is a {type(data).__name__}; give "digits", a path, a dict, or arrays (x, y)'
    )


@contextmanager
def as_source(data: Data, folder: Path | None = None) -> Iterator[dict[str, Any]]:
    """The samples as a source; arrays are in a file for as long."""
    if not is_arrays(data):
        yield source(data)
        return
    with tempfile.TemporaryDirectory(prefix="relugrad-") as scratch:
        yield {"path": str(save(data, folder or Path(scratch)))}


def save(data: Any, folder: Path) -> Path:
    """Writes arrays to `data.npz` in a folder, unless they are there."""
    arrays = _arrays(data)
    path = folder / "data.npz"
    if path.exists() and not _holds(path, arrays):
        raise Error(f"{path} holds other samples; give another folder, or remove it")
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        np.savez(path, **arrays)
    return path


def _holds(path: Path, arrays: Mapping[str, np.ndarray]) -> bool:
    with np.load(path, allow_pickle=False) as found:
        return set(found) == set(arrays) and all(
            np.array_equal(found[name], array) for name, array in arrays.items()
        )


def _arrays(data: Any) -> dict[str, np.ndarray]:
    if len(data) != 2:
        raise Error(f"data has {len(data)} parts but must be arrays (x, y)")
    x, y = (np.ascontiguousarray(part) for part in data)
    for name, array in (("x", x), ("y", y)):
        if array.dtype.kind not in "biuf":
            raise ArrayTypeError(f"{name} holds {array.dtype} but must hold numbers")
    if x.ndim < 2 or y.ndim not in (1, 2) or len(x) != len(y):
        raise Error(
            f"x has shape {x.shape} and y {y.shape}, but [n, …] and [n] or [n, K] are needed"
        )
    x = x.astype(x.dtype.newbyteorder("="))
    if y.dtype.kind == "f":
        return {"x": x, "targets": y.astype("float64")}
    return {"x": x, "y": y.astype("int64")}
