"""The command in the package."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import relugrad as rg

ENVIRONMENT = os.environ | {"PYTHONPATH": str(Path(rg.__file__).parent.parent)}


def relugrad(*arguments):
    return subprocess.run(
        [sys.executable, "-m", "relugrad", *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env=ENVIRONMENT,
    )


def test_version_and_help():
    version = relugrad("--version")
    assert version.returncode == 0 and version.stdout.startswith("relugrad ")
    help_ = relugrad("--help")
    assert help_.returncode == 0 and "compare" in help_.stdout


def test_wrong_usage_is_2_and_failure_1():
    wrong = relugrad("--nonsense")
    assert wrong.returncode == 2 and "--nonsense" in wrong.stderr
    failed = relugrad("inspect", "nowhere.onnx")
    assert failed.returncode == 1 and "nowhere.onnx" in failed.stderr


def test_it_does_what_the_functions_do(tmp_path):
    done = relugrad("train", "--model", "mlp:8", "--epochs", "1", "--out", str(tmp_path / "a"))
    assert done.returncode == 0, done.stderr
    found = rg.train({"model": "mlp:8", "epochs": 1}, out=tmp_path / "b", progress=False)
    for name in ("last.safetensors", "best.safetensors", "metrics.csv", "config.toml"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()
    assert found.complete


@pytest.mark.skipif(sys.platform == "win32", reason="signals are Unix's")
def test_ctrl_c_is_130(tmp_path):
    running = subprocess.Popen(
        [sys.executable, "-m", "relugrad", "train", "--epochs", "1000000", "--out", tmp_path / "a"],
        stderr=subprocess.PIPE,
        text=True,
        env=ENVIRONMENT,
    )
    try:
        assert any("epoch 1" in line for line in iter(running.stderr.readline, ""))
        time.sleep(0.1)
        running.send_signal(signal.SIGINT)
        assert running.wait(60) == 130
    finally:
        running.kill()
        running.stderr.close()
