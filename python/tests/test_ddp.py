"""The recipe for several processes, `examples/data_parallel.py`, on this machine with gloo."""

import functools
import importlib.util
import os
import signal
import socket
import subprocess
import sys
import types
from datetime import timedelta
from pathlib import Path

import pytest

import relugrad as rg

torch = pytest.importorskip("torch", reason="PyTorch is not installed: pip install torch")
dist = pytest.importorskip("torch.distributed", reason="this PyTorch is not for several processes")

RECIPE = Path(__file__).parents[1] / "examples" / "data_parallel.py"
# Not to be divided evenly by three processes.
BATCH = 32
CASES = [(name, backend) for name in ("dense", "convolutions") for backend in ("engine", "torch")]

pytestmark = pytest.mark.skipif(
    not (dist.is_available() and dist.is_gloo_available())
    if hasattr(dist, "is_gloo_available")
    else not dist.is_available(),
    reason="this PyTorch has no gloo",
)


def recipe():
    spec = importlib.util.spec_from_file_location("data_parallel", RECIPE)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def model(name: str) -> torch.nn.Module:
    nn = torch.nn
    torch.manual_seed(5)
    if name == "dense":
        made = nn.Sequential(nn.Linear(64, 16), nn.ReLU(), nn.Linear(16, 10))
    else:
        made = nn.Sequential(
            nn.Unflatten(1, (1, 8, 8)),
            nn.Conv2d(1, 4, 3, padding=1),
            nn.BatchNorm2d(4),
            nn.PReLU(4),
            nn.MaxPool2d(2),
            nn.Flatten(),
            nn.Linear(64, 10),
        )
    return made.double().eval()


def batch() -> tuple[torch.Tensor, torch.Tensor]:
    images, labels = rg.digits()
    return torch.from_numpy(images[:BATCH]).double(), torch.from_numpy(labels[:BATCH])


def start(processes: int, *line: str) -> list[subprocess.Popen]:
    """Starts a program on several processes that know of each other, as `torchrun` does."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    common = {
        **os.environ,
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        "WORLD_SIZE": str(processes),
        "GLOO_SOCKET_IFNAME": "lo",
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": os.pathsep.join(path for path in sys.path if path),
    }
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return [
        subprocess.Popen([sys.executable, *line], env={**common, "RANK": str(rank)}, **pipes)
        for rank in range(processes)
    ]


def finish(group: list[subprocess.Popen], seconds: float = 120) -> list[tuple[int, str]]:
    """Waits for all: exit codes and what they said."""
    try:
        said = [process.communicate(timeout=seconds)[1] for process in group]
    finally:
        for process in group:
            process.kill()
    return [(process.returncode, text) for process, text in zip(group, said)]


def objective(name: str, backend: str) -> torch.nn.Module:
    """The recipe's loss of a model, on one of the operators' backends."""
    made = recipe().Penalized(model(name), 0.3)

    gram = functools.partial(rg.torch.gram, backend=backend)
    operators = types.SimpleNamespace(gram=gram)
    type(made).forward.__globals__["rg"] = types.SimpleNamespace(torch=operators)
    return made


def worker(out: str) -> None:
    """One process of a test: gradients of the whole batch, twice as in accumulation."""
    dist.init_process_group("gloo", timeout=timedelta(seconds=60))
    gradients = {}
    for case in CASES:
        made = objective(*case)
        wrapped = torch.nn.parallel.DistributedDataParallel(made)
        for _ in range(2):
            recipe().gradient(wrapped, *batch())
        with pytest.raises(rg.torch.UnsupportedModule, match=r"in the forward of a module"):
            rg.torch.gram(wrapped, batch()[0])
        gradients[case] = [parameter.grad for parameter in made.parameters()]
        del wrapped
    torch.save(gradients, f"{out}{dist.get_rank()}")
    dist.barrier()
    dist.destroy_process_group()


@pytest.mark.parametrize("processes", [2, 3])
def test_the_gradient_is_that_of_the_whole_batch(tmp_path, processes):
    out = tmp_path / "gradient"
    ended = finish(start(processes, __file__, str(out)))
    assert [code for code, _ in ended] == [0] * processes, ended
    found = [torch.load(f"{out}{rank}") for rank in range(processes)]
    for case in CASES:
        made = objective(*case)
        made(*batch()).backward()
        for gradients in found:
            for parameter, gradient in zip(made.parameters(), gradients[case], strict=True):
                assert parameter.grad.abs().max() > 0
                error = (gradient - 2 * parameter.grad).abs().max()
                assert error <= 1e-12 * parameter.grad.abs().max(), (case, error)


def train(processes: int, checkpoint: Path, steps: int, timeout: float = 60):
    line = [f"--checkpoint={checkpoint}", f"--steps={steps}", f"--timeout={timeout}"]
    return start(processes, str(RECIPE), *line)


def wait_for_step(process: subprocess.Popen, step: int) -> None:
    for line in process.stdout:
        if line == f"step {step}\n":
            return
    raise AssertionError(process.stderr.read())


def state(checkpoint: Path) -> tuple[int, dict]:
    step, parameters, _ = torch.load(checkpoint)
    return step, parameters


def lose(how: str, checkpoint: Path) -> None:
    """Loses one of two processes after some steps, and sees that the other ends with an error."""
    group = train(2, checkpoint, 100_000, timeout=5)
    try:
        wait_for_step(group[0], 3)
        group[1].send_signal(getattr(signal, how))
        group[0].stdout.close()
        said = group[0].stderr.read()
        assert group[0].wait(60) != 0
        assert "Error" in said, said
    finally:
        for process in group:
            process.kill()
            process.wait()


on_linux = pytest.mark.skipif(sys.platform != "linux", reason="signals are those of Linux")


@on_linux
def test_a_killed_process_ends_the_job_and_it_goes_on_from_its_checkpoint(tmp_path):
    whole, parted = tmp_path / "whole", tmp_path / "parted"
    lose("SIGKILL", parted)
    step, _ = state(parted)
    assert step >= 3
    for path in (whole, parted):
        assert all(code == 0 for code, _ in finish(train(2, path, step + 5)))
    (ahead, expected), (last, found) = state(whole), state(parted)
    assert ahead == last == step + 5
    assert all(torch.equal(found[name], expected[name]) for name in expected)


@on_linux
def test_none_waits_for_ever_for_a_process_that_hangs(tmp_path):
    lose("SIGSTOP", tmp_path / "checkpoint")


if __name__ == "__main__":
    worker(*sys.argv[1:])
