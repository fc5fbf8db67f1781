"""Training, evaluation and verification."""

import json
import os
import tempfile
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from . import _relugrad, _show
from ._data import Data, as_source, is_arrays, save, source
from ._progress import Progress, watching
from ._relugrad import Error, Network

Config: TypeAlias = Mapping[str, Any] | str | os.PathLike[str]


@dataclass(frozen=True)
class Training:
    """A training that has ended."""

    complete: bool
    """Whether it came to its end."""
    steps: int
    """Steps taken, those before it was resumed included."""
    epochs: list[dict[str, Any]] = field(repr=False)
    """A record for each epoch: losses, accuracies or errors, penalties, learning rate."""
    best: Network
    """The network after the best epoch."""
    last: Network
    best_test: dict[str, Any] | None
    """How good the best network is on the test samples."""
    last_test: dict[str, Any] | None
    warnings: list[Any]
    out: Path | None
    """The folder, if one was given."""

    def records(self) -> list[dict[str, Any]]:
        """A record for each epoch, for `pandas.DataFrame`; a penalty is a column."""
        return [_flat(epoch) for epoch in self.epochs]

    def _repr_html_(self) -> str:
        records = self.records()
        head = list(records[0]) if records else []
        return _show.table(head, ([_short(row.get(key)) for key in head] for row in records))


def train(
    config: Config | None = None,
    *,
    out: str | os.PathLike[str] | None = None,
    data: Data | None = None,
    progress: Progress = None,
    overwrite: bool = False,
    resume: bool = False,
) -> Training:
    """Trains a network.

    `config` has the keys of the configuration's file of `relugrad train`, `_` or `-`, or is the path of
    such a file:
    `{"model": "mlp:64,64", "epochs": 3, "penalties": [{"name": "jacobian", "lambda": 0.01}]}`; a
    penalty may be a formula, `{"name": "flat", "weight": 0.1, "formula": "norm2(g) + b*tr(S*G)",
    "constants": {"b": 0.5}}`. `data`
    takes the place of its `data`. Everything goes to the folder `out`, if one is given; arrays are
    kept there too.

    `progress`: by default a bar of tqdm if it is installed; `True`, `False`: a bar or none; a callable
    gets each event as a dict with its `kind` (ready, step, epoch), and ends the work by raising.

    Ctrl-C writes a checkpoint to `out` and raises `KeyboardInterrupt`; `train(out=…, resume=True)`
    goes on, with the values of `config` in place of earlier ones, such as `{"epochs": 50}`, and ends
    with the same bits as if it had not been stopped.

    Raises `relugrad.Error` for wrong values, with their key, for a folder that holds a training, and
    for one that diverges.
    """
    if resume and (out is None or data is not None):
        raise Error("resume goes on with the training of the folder out, on the same data")
    with ExitStack() as stack:
        folder = Path(out or stack.enter_context(tempfile.TemporaryDirectory(prefix="relugrad-")))
        samples = None
        if data is not None:
            if is_arrays(data):
                samples = json.dumps({"path": str(save(data, folder).absolute())})
            else:
                samples = json.dumps(source(data))
        given: dict[str, Any] = {}
        if isinstance(config, Mapping):
            given["configuration"] = _as_json(config)
        elif config is not None:
            if resume:
                raise Error("resume takes a dict of the values to change, not a file")
            given["file"] = config
        heard = stack.enter_context(watching(progress, "step"))
        found = _relugrad.train(
            folder, data=samples, overwrite=overwrite, resume=resume, on_event=heard, **given
        )
        return Training(
            found["complete"],
            found["steps"],
            found["epochs"],
            _network(found["best"], found["precision"]),
            _network(found["last"], found["precision"]),
            found["best_test"],
            found["last_test"],
            found["warnings"],
            None if out is None else folder,
        )


def _network(path: str, precision: str) -> Network:
    return _relugrad.load(path, {"f32": "float32", "f64": "float64"}[precision])


def _as_json(config: Mapping[str, Any]) -> str:
    return json.dumps(_plain(config), default=_number)


def _plain(value: Any) -> Any:
    """Keys with hyphens; what is None is left out."""
    if isinstance(value, Mapping):
        pairs = ((str(key).replace("_", "-"), one) for key, one in value.items())
        return {key: _plain(one) for key, one in pairs if one is not None}
    return [_plain(one) for one in value] if isinstance(value, list | tuple) else value


def _number(value: Any) -> Any:
    if isinstance(value, np.generic | np.ndarray):
        return value.tolist()
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    raise TypeError(f"{value!r} is no value of a configuration")


def _flat(record: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested records as one, whose keys are joined by dots."""
    flat: dict[str, Any] = {}
    for key, value in record.items():
        name = f"{prefix}{key}"
        if isinstance(value, Mapping):
            flat |= _flat(value, f"{name}.")
        elif isinstance(value, list):
            flat |= _flat({str(i): one for i, one in enumerate(value)}, f"{name}.")
        else:
            flat[name] = value
    return flat


def _short(value: Any) -> Any:
    return f"{value:.4g}" if isinstance(value, float) else value


@dataclass(frozen=True)
class Evaluation:
    """What attacks and certificates say of a network."""

    report: dict[str, Any] = field(repr=False)
    """All that `evaluation.json` says."""
    adversarial: list[np.ndarray] = field(repr=False)
    """For each entry of `report["worst"]` the samples as an attack changed them; `[n, D]`."""

    def records(self) -> list[dict[str, Any]]:
        """A record for each attack, for `pandas.DataFrame`."""
        return [_flat(attack) for attack in self.report["attacks"]]

    def _repr_html_(self) -> str:
        records = self.records()
        head = list(records[0]) if records else []
        return _show.table(head, ([_short(row.get(key)) for key in head] for row in records))


def evaluate(
    network: Network,
    data: Data = "digits",
    *,
    all: bool = False,
    progress: Progress = None,
    **options: Any,
) -> Evaluation:
    """Evaluates the robustness of a network: attacks from above, certificates from below.

    Of a source the test samples are taken, or `all`; of arrays all. `options` are `linf` and `l2`
    (sizes of perturbations), `samples` (how many are attacked), `pgd_steps`, `pgd_restarts`,
    `apgd_steps`, `apgd_restarts`, `deepfool_steps`, `certified` (how many get certificates),
    `penalties` (names, or dicts of `name`, `formula` and `constants`), `loss`, `seed`; see `relugrad
    evaluate`.
    """
    with as_source(data) as samples, watching(progress, "part") as heard:
        report, adversarial = _relugrad.evaluate(
            network,
            json.dumps(samples),
            options=json.dumps(options, default=_number),
            all=all or is_arrays(data),
            on_event=heard,
        )
    return Evaluation(report, adversarial)


def verify(
    network: Network,
    data: Data = "digits",
    *,
    samples: int = 20,
    seed: int = 0,
    cure_step: float = 1.5,
    loss: str | Mapping[str, Any] | None = None,
    all: bool = False,
    progress: Progress = None,
) -> dict[str, Any]:
    """Checks the theorems on a network and the first samples, in the network's type of number.

    The report has `holds`, `samples`, `on_kink`, and `outcomes`, a record for each statement, for
    `pandas.DataFrame`.
    """
    with as_source(data) as given, watching(progress, "sample") as heard:
        return _relugrad.verify(
            network,
            json.dumps(given),
            samples=samples,
            seed=seed,
            cure_step=cure_step,
            loss=None if loss is None else _as_json_loss(loss),
            all=all or is_arrays(data),
            on_event=heard,
        )


def _as_json_loss(loss: str | Mapping[str, Any]) -> str:
    return json.dumps(loss if isinstance(loss, str) else _plain(loss), default=_number)
