"""The options of `relugrad compare` as data, with the files that they name."""

import json
import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

# Options that may be given several times; lists of the others are joined by commas.
_REPEATED = ("data", "model", "formula")

# Options whose values are files or folders.
_FILES = ("data", "model", "config", "labels", "targets", "weights")

# Options that whoever runs a plan sets.
_OWN = ("shard", "merge", "out", "resume", "overwrite", "json", "threads", "help")


@dataclass(frozen=True)
class Plan:
    """A command line, and the files that it reads, by their paths in the folder where it runs."""

    arguments: list[str]
    files: dict[str, bytes]


def read(plan: Mapping[str, Any] | str | os.PathLike[str], ship: bool) -> Plan:
    """Reads a plan: a mapping of options, or the path of a TOML file that holds one.

    With `ship`, files and folders that are here come with it; otherwise paths are left as they are.
    `ValueError` for what is no option, `TypeError` for values of another kind.
    """
    if not isinstance(plan, Mapping):
        plan = _load(Path(plan))
    arguments: list[str] = []
    files: dict[str, bytes] = {}
    for key, value in plan.items():
        name = str(key).replace("_", "-")
        if not re.fullmatch(r"[a-z][a-z0-9-]*", name):
            raise ValueError(f"plan: {key!r} is no option of `relugrad compare`")
        if name in _OWN:
            raise ValueError(f"plan: {key!r} is not for the plan to say; leave it out")
        for text in _values(name, value, files):
            if text is None:
                arguments.append(f"--{name}")
                continue
            if ship and _is_path(name, text):
                text = _shipped(Path(text), files)
            arguments.append(f"--{name}={text}")
    return Plan(arguments, files)


def _load(path: Path) -> Mapping[str, Any]:
    try:
        import tomllib
    except ImportError:
        try:
            import tomli as tomllib
        except ImportError as error:
            raise ImportError(
                f"{path}: Python 3.10 reads TOML with tomli: pip install tomli"
            ) from error
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except tomllib.TOMLDecodeError as error:
        raise ValueError(f"{path} is no TOML file: {error}") from error


def _values(name: str, value: Any, files: dict[str, bytes]) -> Iterable[str | None]:
    """The texts of an option; `None` for one that has no value."""
    if value is None or value is False:
        return []
    if value is True:
        return [None]
    if name == "config" and isinstance(value, Mapping):
        path = f"plan/{len(files)}/config.toml"
        lines = (f"{json.dumps(key)} = {_toml(key, one)}\n" for key, one in value.items())
        files[path] = "".join(lines).encode()
        return [path]
    if name == "formula" and isinstance(value, Mapping):
        return [f"{key}: {_text(name, one)}" for key, one in value.items()]
    if isinstance(value, Mapping):
        value = [_weighted(name, key, weights) for key, weights in value.items()]
    if isinstance(value, str | os.PathLike) or not isinstance(value, Iterable):
        return [_text(name, value)]
    texts = [_text(name, one) for one in value]
    return texts if name in _REPEATED else [",".join(texts)]


def _weighted(name: str, key: Any, weights: Any) -> str:
    """A penalty with its weights."""
    if weights is None:
        return str(key)
    if isinstance(weights, str) or not isinstance(weights, Iterable):
        weights = [weights]
    return f"{key}=" + ":".join(_text(name, weight) for weight in weights)


def _text(name: str, value: Any) -> str:
    if isinstance(value, str | os.PathLike):
        return os.fspath(value)
    # NumPy's numbers are numbers, too.
    value = value.item() if hasattr(value, "item") else value
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(
            f"plan: a value of {name!r} is a {type(value).__name__}, not text or number"
        )
    return repr(value)


def _toml(name: str, value: Any) -> str:
    """A value as TOML, in one line."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
    if isinstance(value, Mapping):
        pairs = (f"{json.dumps(str(key))} = {_toml(name, one)}" for key, one in value.items())
        return "{" + ", ".join(pairs) + "}"
    if isinstance(value, Iterable):
        return "[" + ", ".join(_toml(name, one) for one in value) + "]"
    return _text(name, value)


def _is_path(name: str, text: str) -> bool:
    """Whether a value names something here; `digits` and models in words do not."""
    named = name in _FILES and text != "digits" and not text.startswith("plan/")
    return named and (name != "model" or text.endswith(".toml")) and os.path.exists(text)


def _shipped(path: Path, files: dict[str, bytes]) -> str:
    """Takes a file or a folder along, under its own name, which results tell."""
    path = path.resolve()
    place = f"plan/{len(files)}/{path.name}"
    if path.is_file():
        files[place] = path.read_bytes()
        return place
    for inner in sorted(path.rglob("*")):
        if inner.is_file():
            files[f"{place}/{inner.relative_to(path).as_posix()}"] = inner.read_bytes()
    return place


def refusal(said: str) -> str:
    """What a command says when it refuses, without its progress and the way to its help."""
    error = said.rpartition("error: ")[2]
    return error.split("\n\nFor more information")[0].split("\n\nUsage:")[0].strip()
