"""Comparisons on a Ray cluster that is started here, against the command alone."""

import contextlib
import importlib
import operator
import os
import re
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

import relugrad as rg
from relugrad import _plan

ray = pytest.importorskip("ray", reason="Ray is not installed: pip install 'ray>=2.9'")

# Ten runs in about a second.
QUICK = {
    "epochs": 1,
    "hidden": [4],
    "pgd_steps": 1,
    "pgd_restarts": 1,
    "attack-samples": 20,
    "penalties": {"jacobian": [0.01, 0.1], "cure": None},
    "adversarial": 0.1,
    "seeds": 2,
}


@pytest.fixture(scope="module", autouse=True)
def cluster():
    """Ray with two processors, heard on the loopback address alone."""
    # Workers find the package where this process has it.
    paths = os.pathsep.join(path for path in sys.path if path)
    ray.init(
        num_cpus=2,
        include_dashboard=False,
        _node_ip_address="127.0.0.1",
        object_store_memory=100_000_000,
        runtime_env={"env_vars": {"PYTHONPATH": paths}},
    )
    yield
    ray.shutdown()


def alone(out: Path, plan: dict) -> subprocess.CompletedProcess:
    """The same comparison by the command on this machine."""
    options = _plan.read(plan, ship=False)
    assert not options.files
    line = [sys.executable, "-m", "relugrad", "compare", *options.arguments, "--threads=1"]
    return subprocess.run([*line, f"--out={out}"], capture_output=True, text=True, check=False)


def timeless(out: Path) -> dict[str, bytes]:
    """All files without the times of steps, and without their checksums in the list of files."""
    masks = {
        "results.json": rb'(?<="step_milliseconds": )[^\n,]*',
        "report.html": rb"(?<=<td class=\"\">)[0-9.]*(?=\xc3\x97</td>)",
        "relugrad-manifest.json": rb'"(crc32c|bytes)": [^\n]*',
    }
    files = {path.relative_to(out).as_posix(): path for path in out.rglob("*") if path.is_file()}
    return {
        name: re.sub(masks.get(path.name, rb"(?!)"), b"", path.read_bytes())
        for name, path in files.items()
    }


def test_the_results_are_those_of_the_command(tmp_path: Path):
    assert alone(tmp_path / "alone", QUICK).returncode == 0
    ended = []
    results = rg.ray.compare(QUICK, out=tmp_path / "ray", on_run=ended.append, progress=False)
    expected = timeless(tmp_path / "alone")
    assert timeless(tmp_path / "ray") == expected
    assert len(expected) == 3 + 10 + 1
    assert {(run.regularizer, run.weight, run.seed) for run in ended} == {
        (name, weight, seed)
        for name, weight in [
            ("none", 0),
            ("jacobian", 0.01),
            ("jacobian", 0.1),
            ("cure", 0.1),
            ("pgd-training", 0.1),
        ]
        for seed in (0, 1)
    }
    assert all(run.total == 10 and not run.diverged for run in ended)
    [comparison] = results
    records = sorted((run.record for run in ended), key=str)
    assert records == sorted(comparison["runs"], key=str)


def test_data_models_and_settings_travel_with_the_plan(tmp_path: Path):
    (tmp_path / "home").mkdir()
    tables = [tmp_path / "home" / name for name in ("two.csv", "other.csv")]
    for table, step in zip(tables, (7, 3), strict=True):
        lines = (f"{i * step % 10},{i * 9 % 10},{i * step % 10 // 5}\n" for i in range(200))
        table.write_text("".join(lines))
    settings = {"epochs": 2, "optimizer": {"name": "sgd", "momentum": 0.5}}
    config = tmp_path / "home" / "how.toml"
    config.write_text('epochs = 2\noptimizer = { name = "sgd", momentum = 0.5 }\n')
    plan = {
        "data": tables,
        "model": ["mlp:4", "mlp:5,5"],
        "scale": "range",
        "penalties": "jacobian",
        "attack-samples": 10,
        "pgd-steps": 1,
    }
    assert alone(tmp_path / "alone", {**plan, "config": config}).returncode == 0
    file = tmp_path / "plan.toml"
    file.write_text(
        f"data = ['{tables[0]}', '{tables[1]}']\nmodel = ['mlp:4', 'mlp:5,5']\nscale = 'range'\n"
        "penalties = 'jacobian'\nattack-samples = 10\npgd-steps = 1\n"
        f"[config]\n{config.read_text()}"
    )
    plans = [{**plan, "config": settings}, {**plan, "config": config}]
    if sys.version_info >= (3, 11):
        plans.append(file)
    for number, given in enumerate(plans):
        out = tmp_path / f"ray{number}"
        results = rg.ray.compare(given, out=out, shards=3, progress=False)
        assert len(results) == 4
        assert timeless(out) == timeless(tmp_path / "alone")


def test_runs_that_diverge_are_results(tmp_path: Path):
    plan = {**QUICK, "penalties": {"jacobian": 1000}, "optimizer": "sgd", "lr": 0.1, "warmup": 0}
    assert alone(tmp_path / "alone", plan).returncode == 1
    runs = list(rg.ray.as_completed(plan, out=tmp_path / "ray"))
    assert sorted((run.regularizer, run.seed) for run in runs if run.diverged) == [
        ("jacobian", 0),
        ("jacobian", 1),
    ]
    assert timeless(tmp_path / "ray") == timeless(tmp_path / "alone")


def commands() -> list[tuple[int, int]]:
    """The commands of shards that run here: their processes and their parents."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            line = (folder / "cmdline").read_bytes().split(b"\0")
            stat = (folder / "stat").read_text().rpartition(")")[2].split()
            # A process that has ended and was not waited for is none.
            if any(word.startswith(b"--shard=") for word in line) and stat[0] != "Z":
                found.append((int(folder.name), int(stat[1])))
    return found


def wait_for(condition, seconds: float = 120):
    end = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < end, "it did not come"
        time.sleep(0.005)
    return found


needs_proc = pytest.mark.skipif(
    sys.platform != "linux", reason="processes are found, and end with their parent, on Linux"
)
SLOW = {**QUICK, "epochs": 100, "hidden": [64], "penalties": "jacobian", "adversarial": None}


@needs_proc
def test_a_killed_worker_is_replaced(tmp_path: Path):
    assert alone(tmp_path / "alone", SLOW).returncode == 0
    killed = []

    def kill():
        # First the worker of a command, and with it the command; then another command alone.
        for kind in ("worker", "command"):
            command, worker = wait_for(lambda: set(commands()) - set(killed)).pop()
            os.kill(worker if kind == "worker" else command, signal.SIGKILL)
            killed.append((command, worker))
            wait_for(lambda: not set(killed) & set(commands()), 10)

    stream = rg.ray.as_completed(SLOW, out=tmp_path / "ray", max_retries=5)
    first = next(stream)
    killer = threading.Thread(target=kill)
    killer.start()
    runs = [first, *stream]
    killer.join()
    assert len(killed) == 2
    assert len(runs) == 4
    assert timeless(tmp_path / "ray") == timeless(tmp_path / "alone")


@needs_proc
def test_an_end_in_the_middle_cancels_and_is_gone_on_with(tmp_path: Path):
    out = tmp_path / "ray"
    stream = rg.ray.as_completed(SLOW, out=out)
    first = next(stream)
    with pytest.raises(KeyboardInterrupt):
        stream.throw(KeyboardInterrupt)
    wait_for(lambda: not commands(), 10)
    assert not (out / "results.json").exists()
    with pytest.raises(rg.Error, match="resume=True"):
        next(rg.ray.as_completed(SLOW, out=out))
    again = list(rg.ray.as_completed(SLOW, out=out, resume=True))
    assert again[0] == first
    assert alone(tmp_path / "alone", SLOW).returncode == 0
    assert timeless(out) == timeless(tmp_path / "alone")
    with pytest.raises(rg.Error, match="overwrite=True"):
        next(rg.ray.as_completed(SLOW, out=out))
    with pytest.raises(rg.Error, match="overwrite=True"):
        next(rg.ray.as_completed({**SLOW, "seeds": 1}, out=out, resume=True))
    key = operator.attrgetter("seed", "regularizer")
    finished = list(rg.ray.as_completed(SLOW, out=out, resume=True))
    assert sorted(finished, key=key) == sorted(again, key=key)
    rg.ray.compare(QUICK, out=out, overwrite=True, progress=False)
    assert alone(tmp_path / "quick", QUICK).returncode == 0
    assert timeless(out) == timeless(tmp_path / "quick")


@pytest.mark.parametrize(
    ("plan", "error", "message"),
    [
        ({"penalties": "jacobain"}, rg.Error, "did you mean `jacobian`"),
        ({"no_such_option": 1}, rg.Error, "--no-such-option"),
        ({"epochs": 0}, rg.Error, "at least 1"),
        ({"data": "nowhere/"}, rg.Error, "nowhere"),
        ({"shard": "1/2"}, ValueError, "leave it out"),
        ({"out": "x"}, ValueError, "leave it out"),
        ({"--epochs": 1}, ValueError, "no option"),
        ({"epochs": object()}, TypeError, "object"),
        ({"penalties": {"jacobian": [None]}}, TypeError, "NoneType"),
    ],
)
def test_what_is_refused_is_said_once(tmp_path: Path, plan, error, message):
    with pytest.raises(error, match=message) as caught:
        rg.ray.compare(plan, out=tmp_path / "out", progress=False)
    assert "Traceback" not in str(caught.value) and "--help" not in str(caught.value)
    assert not (tmp_path / "out").exists()


def test_a_command_that_is_not_there_is_named(tmp_path: Path):
    with pytest.raises(rg.Error, match="no-such-command"):
        rg.ray.compare(QUICK, out=tmp_path, command=["no-such-command"], progress=False)


def test_without_ray_one_error_says_what_to_install(monkeypatch, tmp_path: Path):
    module = importlib.import_module("relugrad.ray")
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(ImportError, match="pip install"):
        module.compare(QUICK, out=tmp_path)


@needs_proc
def test_a_command_ends_with_its_parent():
    sleep = "[sys.executable, '-c', 'import time; time.sleep(600)', '--shard=sleeping']"
    code = f"import sys; from relugrad.ray import _run; _run({sleep}, '/')"
    parent = subprocess.Popen([sys.executable, "-c", code])
    found = wait_for(lambda: [pair for pair in commands() if pair[1] == parent.pid])
    parent.kill()
    parent.wait()
    wait_for(lambda: not {pid for pid, _ in found} & {pid for pid, _ in commands()}, 10)
