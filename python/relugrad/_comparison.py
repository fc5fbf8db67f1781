"""Comparisons of regularizers: the `relugrad compare` command as a function."""

import json
import os
import re
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from . import _follow, _plan, _show
from ._data import Data, as_source
from ._progress import Progress, watching
from ._relugrad import Error

_RUN = re.compile(r"\[(\d+)/(\d+)\] (.*), seed (\d+)$")


@dataclass(frozen=True)
class Comparison:
    """A comparison that has ended."""

    results: list[dict[str, Any]] = field(repr=False)
    """What `results.json` says, one for each of the data with each network."""
    reports: list[str] = field(repr=False)
    """The pages of their reports."""
    out: Path | None
    """The folder, if one was given."""

    def records(self) -> list[dict[str, Any]]:
        """A record for each run, for `pandas.DataFrame`: regularizer, weight, seed, and every measure."""
        return [record for one in self.results for record in _records(one)]

    def _repr_html_(self) -> str:
        return "".join(_show.page(report) for report in self.reports)


def compare(
    config: Mapping[str, Any] | str | os.PathLike[str],
    *,
    out: str | os.PathLike[str] | None = None,
    data: Data | None = None,
    progress: Progress = None,
    overwrite: bool = False,
    resume: bool = False,
) -> Comparison:
    """Trains the same network with each regularizer, and evaluates them all.

    `config` has the options of `relugrad compare` by their names, `_` or `-`:
    `{"model": "mlp:64", "penalties": {"jacobian": [0.01, 0.1]}, "seeds": 3, "epochs": 10}`, with
    formulas `{"formula": {"flat": "norm2(g) + b*tr(S*G) @ 0.1:1, b=0.5"}}`, and
    `config` as a path or a table; or it is the path of a TOML file with such a table. `data` may be
    arrays. Results go to the folder `out`, if one is given.

    Ctrl-C keeps the runs that are finished in `out`, and raises `KeyboardInterrupt`; `resume=True`
    goes on.

    Raises `relugrad.Error` with the command's message for what it refuses. Runs that diverge are in
    the records, as `diverged`.
    """
    with ExitStack() as stack:
        scratch = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="relugrad-")))
        plan = _plan.read(config, ship=False)
        arguments = list(plan.arguments)
        for name, content in plan.files.items():
            path = scratch / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
            arguments = [one.replace(f"={name}", f"={path}") for one in arguments]
        if data is not None:
            # The folder of a comparison is the command's, but what it resumes is the same data.
            samples = stack.enter_context(as_source(data))
            arguments += [f"--{key}={value}" for key, value in _options(samples)]
        folder = Path(out) if out is not None else scratch / "out"
        arguments += [f"--out={folder}"]
        arguments += ["--overwrite"] * overwrite + ["--resume"] * resume
        heard = stack.enter_context(watching(progress, "run"))
        printed = _command(arguments, heard)
        if heard is not None:
            heard({"kind": "end"})
        pages = sorted(folder.rglob("report.html"))
        reports = [page.read_text(encoding="utf-8") for page in pages]
        results = [json.loads(line) for line in printed.splitlines()]
        return Comparison(results, reports, None if out is None else folder)


def _options(samples: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    for key, value in samples.items():
        yield ("data" if key == "path" else key), value


def _command(arguments: list[str], heard: Any) -> str:
    """Runs `relugrad compare --json`, and returns what it prints."""
    command = [sys.executable, "-m", "relugrad", "compare", *arguments, "--json"]
    follow = [sys.executable, "-I", _follow.__file__, str(os.getpid())]
    package = str(Path(__file__).parent.parent)
    paths = [package, *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(paths)}
    with tempfile.TemporaryFile("w+", encoding="utf-8") as printed:
        running = subprocess.Popen(
            [*follow, *command],
            stdin=subprocess.DEVNULL,
            stdout=printed,
            stderr=subprocess.PIPE,
            env=environment,
            encoding="utf-8",
            errors="replace",
            # Ctrl-C comes once, from here.
            start_new_session=True,
        )
        try:
            said = _listen(running.stderr, heard)
            code = running.wait()
        except BaseException:
            _stop(running)
            raise
        printed.seek(0)
        text = printed.read()
    results = [json.loads(line) for line in text.splitlines()]
    if code != int(any(one.get("diverged") for one in results)) or not results:
        raise Error(_plan.refusal(said))
    return text


def _stop(running: "subprocess.Popen[str]") -> None:
    """Ends the command as Ctrl-C does: it keeps what is finished."""
    running.send_signal(signal.SIGINT)
    if running.stderr is not None:
        running.stderr.close()
    running.wait()


def _listen(lines: IO[str] | None, heard: Any) -> str:
    """Tells of the runs that the command tells of; returns all that it says."""
    said = []
    for line in lines or ():
        said.append(line)
        found = _RUN.match(line.strip())
        if found and heard is not None:
            number, runs, regularizer, seed = found.groups()
            heard(
                {
                    "kind": "run",
                    "index": int(number) - 1,
                    "runs": int(runs),
                    "regularizer": regularizer,
                    "seed": int(seed),
                }
            )
    return "".join(said)


def _records(results: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    settings = results["settings"]
    attacks = [
        f"{attack['name']} {attack['norm']} {attack['epsilon']}" for attack in settings["attacks"]
    ]
    common = {"data": settings["data"], "model": settings["model"]}
    for run in results["runs"]:
        measured = run["evaluation"]
        record = common | {
            "regularizer": run["regularizer"],
            "lambda": run["lambda"],
            "seed": run["seed"],
            "diverged": False,
            "step_milliseconds": run["step_milliseconds"],
        }
        for key, value in measured.items():
            if key == "penalties":
                record |= {f"penalty.{one['name']}": one["mean"] for one in value}
            elif isinstance(value, list):
                pairs = zip(attacks, value, strict=True)
                record |= {f"{key}.{attack}": one for attack, one in pairs}
            elif isinstance(value, Mapping):
                record |= {f"{key}.{name}": one for name, one in value.items()}
            else:
                record[key] = value
        yield record
    for run in results.get("diverged", []):
        yield common | {
            "regularizer": run["regularizer"],
            "lambda": run["lambda"],
            "seed": run["seed"],
            "diverged": True,
        }
