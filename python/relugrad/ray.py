"""Comparisons on a Ray cluster.

    for run in rg.ray.as_completed({"penalties": {"jacobian": [0.01, 0.1]}, "seeds": 10}, out="grid"):
        print(run.regularizer, run.weight, run.seed, run.record["evaluation"]["clean_accuracy"])

Every run of the comparison is a task that calls `relugrad compare --shard I/N` in a folder of its own
on whatever worker has the processors for it. No file system is shared: data and settings go to the
workers through Ray's object store, once for each node, and results come back as bytes. The folder
`out` is then what `relugrad compare --out` writes on one machine, byte for byte but for the times of
steps.

A task whose worker dies is run again, and its command dies with the worker (on Linux; elsewhere it
ends by itself, unheard). What is refused, a wrong option for instance, is raised once, in the
driver. Ctrl-C cancels what is running; `resume=True` goes on.
"""

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from . import _follow, _plan
from ._relugrad import Error

__all__ = ["Run", "as_completed", "compare"]

# Where results are kept until all are there.
_SHARDS = "shards"

# A shard that has nothing to do looks at all options and data all the same, and tells how many runs
# there are.
_BEYOND = (10**9, 10**9)

# From this exit code on, or below 0, a command was ended by a signal.
_SIGNALS = 128


@dataclass(frozen=True)
class Run:
    """A run that has ended."""

    comparison: str
    """Data and network, such as `digits mlp:128,128`."""
    regularizer: str
    """The name of the penalty, `none`, or `pgd-training`."""
    weight: float
    """Its weight λ; the radius for adversarial training."""
    seed: int
    diverged: bool
    """Whether its numbers left the finite ones; it has no evaluation then."""
    record: dict[str, Any]
    """All that `results.json` says of it."""
    total: int
    """How many runs there are."""


def compare(
    plan: Mapping[str, Any] | str | os.PathLike[str],
    *,
    out: str | os.PathLike[str],
    on_run: Callable[[Run], object] | None = None,
    progress: bool | None = None,
    **options: Any,
) -> list[dict[str, Any]]:
    """Makes a comparison on a Ray cluster, and returns what its `results.json` says.

    There is a dictionary for each of the comparisons, one unless the plan has several data sets or
    networks. `on_run` is called with each run as it ends; `progress` shows a bar of tqdm, by default
    if tqdm is installed. Everything else is as in `as_completed`.
    """
    runs = as_completed(plan, out=out, **options)
    bar = _bar(progress)
    try:
        while True:
            run = next(runs)
            if on_run is not None:
                on_run(run)
            if bar is not None:
                bar.total = run.total
                bar.set_postfix_str(f"{run.regularizer}, seed {run.seed}", refresh=False)
                bar.update()
    except StopIteration as end:
        return end.value
    finally:
        runs.close()
        if bar is not None:
            bar.close()


def as_completed(
    plan: Mapping[str, Any] | str | os.PathLike[str],
    *,
    out: str | os.PathLike[str],
    cpus: float = 1,
    shards: int | None = None,
    max_retries: int = 3,
    overwrite: bool = False,
    resume: bool = False,
    ship: bool = True,
    command: Sequence[str] | None = None,
    ray_options: Mapping[str, Any] | None = None,
) -> Iterator[Run]:
    """Makes a comparison on a Ray cluster, and yields its runs as they end.

    Nothing begins before the first run is asked for; after the last one, `out` is written. Ending
    the iteration early cancels what is running.

    `plan` has the options of `relugrad compare` by their names, `_` or `-`: texts, numbers, lists,
    penalties also as `{"jacobian": [0.01, 0.1], "cure": None}`, and `config` as a path or as the
    table itself. Or it is the path of a TOML file with such a table.

    - `cpus`: processors that a task asks Ray for; its command has as many threads, at least one.
    - `shards`: tasks, by default one for each run.
    - `max_retries`: how often a task is run again whose worker was lost; -1 for ever.
    - `overwrite`, `resume`: replace an earlier result in `out`, or go on with one, whose shards are in
      `out/shards` until it is finished.
    - `ship`: whether files and folders that the plan names are brought to the workers. If not, they
      are paths on the workers.
    - `command`: the command on the workers and here, by default `python -m relugrad`.
    - `ray_options`: more options of the tasks, such as `{"scheduling_strategy": "SPREAD"}`.

    If Ray is not initialized, `ray.init()` is called, which connects to `RAY_ADDRESS` or starts Ray
    on this machine.

    Raises `ImportError` without Ray, `TypeError` and `ValueError` for a plan that is none, and
    `relugrad.Error` with the command's message for what it refuses, for an `out` that holds a result,
    and for a run that was lost too often.
    """
    ray = _ray()
    read = _plan.read(plan, ship)
    folder = _Folder(Path(out), overwrite, resume)
    if not ray.is_initialized():
        ray.init()
    resources = {"num_cpus": cpus, "max_retries": max_retries, "retry_exceptions": [_Lost]}
    task = ray.remote(_make).options(**{**resources, **(ray_options or {})})
    files, threads = ray.put(read.files), max(1, int(cpus))

    def submit(shard: tuple[int, int]) -> Any:
        return task.remote(command, read.arguments, files, shard, threads)

    planned = _get(ray, submit(_BEYOND), "the plan")
    total = _results(planned)[0]["part"]["total"]
    if (finished := folder.finished(planned)) is not None:
        for results in finished:
            yield from _ended(results, total)
        return finished
    of = min(total, shards or total)
    todo = []
    for number in range(1, of + 1):
        if (done := folder.runs((number, of), total)) is None:
            todo.append((number, of))
        else:
            yield from done
    pending = {submit(shard): shard for shard in todo}
    try:
        while pending:
            [ref], _ = ray.wait(list(pending), num_returns=1)
            shard = pending.pop(ref)
            folder.keep(shard, _get(ray, ref, f"shard {shard[0]}/{shard[1]}"))
            del ref
            yield from folder.runs(shard, total) or []
    finally:
        for ref in pending:
            with suppress(Exception):
                ray.cancel(ref, force=True)
    return folder.merge(command)


def _ray() -> ModuleType:
    try:
        import ray
    except ImportError as error:
        raise ImportError("relugrad.ray needs Ray: pip install 'ray>=2.9'") from error
    return ray


def _bar(progress: bool | None) -> Any:
    if progress is False:
        return None
    try:
        from tqdm.auto import tqdm
    except ImportError as error:
        if progress is None:
            return None
        raise ImportError("a bar of progress needs tqdm: pip install tqdm") from error
    return tqdm(unit="run")


class _Lost(Exception):
    """A command that was ended by a signal: it is run again."""


@dataclass(frozen=True)
class _Refused:
    """A command that would say the same again."""

    message: str


def _make(
    command: Sequence[str] | None,
    arguments: Sequence[str],
    files: Mapping[str, bytes],
    shard: tuple[int, int],
    threads: int,
) -> dict[str, bytes] | _Refused:
    """Makes a shard; the task of a worker. Returns the files of its folder."""
    number, of = shard
    with tempfile.TemporaryDirectory(prefix="relugrad-") as scratch:
        _write(Path(scratch), files)
        options = [f"--shard={number}/{of}", "--out=out", f"--threads={threads}"]
        line = [*_command(command), "compare", *arguments, *options]
        code, _, said = _run(line, scratch)
        if code < 0 or code >= _SIGNALS:
            raise _Lost(f"`relugrad compare` was ended (exit code {code}): {said[-500:]}")
        if code != 0:
            return _Refused(_plan.refusal(said))
        return _read(Path(scratch, "out", f"shard-{number}-of-{of}"))


def _command(command: Sequence[str] | None) -> list[str]:
    return [sys.executable, "-m", "relugrad"] if command is None else list(command)


def _run(line: Sequence[str], folder: str) -> tuple[int, str, str]:
    """Runs a command that ends with this process: exit code, output, errors."""
    follow = [sys.executable, "-I", _follow.__file__, str(os.getpid())]
    done = subprocess.run(
        [*follow, *line], cwd=folder, stdin=subprocess.DEVNULL, capture_output=True, check=False
    )
    return done.returncode, done.stdout.decode(), done.stderr.decode(errors="replace")


def _write(folder: Path, files: Mapping[str, bytes]) -> None:
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)


def _read(folder: Path) -> dict[str, bytes]:
    paths = (path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in paths}


def _get(ray: ModuleType, ref: Any, what: str) -> dict[str, bytes]:
    """What a task has made."""
    try:
        made = ray.get(ref)
    except ray.exceptions.RayError as error:
        raise Error(
            f"{what} was lost too often ({type(error).__name__}: {error}); resume=True goes on with "
            "what is finished"
        ) from error
    if isinstance(made, _Refused):
        raise Error(made.message)
    return made


def _results(files: Mapping[str, bytes]) -> list[dict[str, Any]]:
    """What a shard says, for each of the comparisons."""
    return [json.loads(files[name]) for name in sorted(filter(_is_results, files))]


def _is_results(name: str) -> bool:
    return name.split("/")[-1] == "results.json"


def _is_made(plan: Mapping[str, Any], results: Mapping[str, Any]) -> bool:
    """Whether results are of a plan, and all that it asks for; threads change no number."""
    settings = [{**one["settings"], "threads": None} for one in (plan, results)]
    return settings[0] == settings[1] and results["complete"] and "part" not in results


def _ended(results: Mapping[str, Any], total: int) -> Iterator[Run]:
    name = f"{results['settings']['data']} {results['settings']['model']}"
    for key in ("runs", "diverged"):
        for record in results.get(key, []):
            names = (record["regularizer"], record["lambda"], record["seed"])
            yield Run(name, *names, key == "diverged", record, total)


class _Folder:
    """The folder of the results, which has the shards in it until all are there."""

    def __init__(self, out: Path, overwrite: bool, resume: bool) -> None:
        self.out, self.shards = out, out / _SHARDS
        self.overwrite, self.resume = overwrite, resume
        if overwrite and resume:
            raise ValueError("overwrite and resume: take one of them")
        if self.shards.exists() and not (overwrite or resume):
            raise Error(
                f"{self.shards} holds shards of an earlier comparison: go on with resume=True, replace "
                "it with overwrite=True, or give another folder"
            )
        if overwrite:
            shutil.rmtree(self.shards, ignore_errors=True)

    def finished(self, planned: Mapping[str, bytes]) -> list[dict[str, Any]] | None:
        """The planned comparisons, if they are here already and are to be gone on with; others that
        are in their place are refused."""
        plans = {name: json.loads(text) for name, text in planned.items() if _is_results(name)}
        found = [name for name in plans if (self.out / name).exists()]
        if self.overwrite or not found:
            return None
        names = sorted(plans, key=lambda name: plans[name]["part"]["before"])
        if self.resume and len(found) == len(names):
            results = [json.loads((self.out / name).read_bytes()) for name in names]
            pairs = zip(names, results, strict=True)
            if all(_is_made(plans[name], made) for name, made in pairs):
                return results
        raise Error(
            f"{self.out / found[0]} is another result: replace it with overwrite=True, or give another "
            "folder"
        )

    def _shard(self, shard: tuple[int, int]) -> Path:
        return self.shards / "shard-{}-of-{}".format(*shard)

    def keep(self, shard: tuple[int, int], files: Mapping[str, bytes]) -> None:
        """Writes a shard, whole or not at all."""
        self.shards.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=self.shards, prefix=".shard-") as scratch:
            made = Path(scratch, "made")
            _write(made, files)
            made.rename(self._shard(shard))

    def runs(self, shard: tuple[int, int], total: int) -> list[Run] | None:
        """The runs of a shard, if it is here."""
        folder = self._shard(shard)
        if not folder.is_dir():
            return None
        return [run for results in _results(_read(folder)) for run in _ended(results, total)]

    def merge(self, command: Sequence[str] | None) -> list[dict[str, Any]]:
        """Joins the shards, and removes them."""
        line = [
            *_command(command),
            "compare",
            f"--merge={self.shards}",
            f"--out={self.out}",
            "--json",
        ]
        code, printed, said = _run(line + ["--overwrite"] * self.overwrite, os.getcwd())
        results = [json.loads(text) for text in printed.splitlines()]
        diverged = any(one.get("diverged") for one in results)
        if code != int(diverged):
            raise Error(f"{_plan.refusal(said)} (the shards are in {self.shards})")
        shutil.rmtree(self.shards)
        return results
