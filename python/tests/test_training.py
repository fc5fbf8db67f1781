"""Training, comparison, evaluation, verification."""

import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import numpy as np
import pytest

import relugrad as rg

SMALL = {"model": "mlp:12", "epochs": 2, "penalties": [{"name": "jacobian", "lambda": 0.01}]}


def same(a, b):
    np.testing.assert_array_equal(a.parameters, b.parameters)


def test_a_training_returns_networks_and_records():
    events = []
    found = rg.train(SMALL, progress=events.append)
    assert found.complete and len(found.epochs) == 2 and found.out is None
    records = found.records()
    assert [row["epoch"] for row in records] == [1, 2]
    assert {"train_loss", "validation_accuracy", "train_penalties.0"} <= set(records[0])
    steps = [event for event in events if event["kind"] == "step"]
    assert [event["step"] for event in steps] == list(range(1, found.steps + 1))
    x, y = rg.digits()
    accuracy = (found.last(x).argmax(1) == y).mean()
    assert abs(accuracy - found.last_test["accuracy"]) < 0.1
    assert found.last.dtype == "float32" and "<table>" in found._repr_html_()
    assert rg.train({**SMALL, "precision": "f64"}, progress=False).best.dtype == "float64"


def test_records_are_a_data_frame():
    pandas = pytest.importorskip("pandas", reason="pandas is not installed")
    found = rg.train(SMALL, progress=False)
    frame = pandas.DataFrame(found.records())
    assert frame["train_loss"].iloc[1] < frame["train_loss"].iloc[0]


def test_arrays_are_data_like_files(tmp_path):
    x, y = rg.digits()
    np.savez(tmp_path / "d.npz", x=x, y=y)
    from_file = rg.train(SMALL, data=tmp_path / "d.npz", progress=False)
    from_arrays = rg.train(SMALL, data=(x, y), out=tmp_path / "run", progress=False)
    same(from_file.last, from_arrays.last)
    values = rg.train(
        {"model": "mlp:8", "epochs": 1}, data=(x, x[:, :2].astype("float64")), progress=False
    )
    assert "mse" in values.last_test
    with pytest.raises(rg.Error, match="data.npz"):
        rg.train(SMALL, data=(x[::2], y[::2]), out=tmp_path / "run", progress=False)


def test_a_configuration_is_a_file_or_a_dict(tmp_path):
    (tmp_path / "c.toml").write_text(
        'model = "mlp:12"\nepochs = 2\n[[penalties]]\nname = "jacobian"\nlambda = 0.01\n'
    )
    same(rg.train(tmp_path / "c.toml", progress=False).last, rg.train(SMALL, progress=False).last)


def test_a_training_that_a_callable_stops_goes_on(tmp_path):
    class Stop(Exception):
        pass

    def stop(event):
        if event["kind"] == "step" and event["step"] == 10:
            raise Stop

    with pytest.raises(Stop):
        rg.train(SMALL, out=tmp_path / "a", progress=stop)
    with pytest.raises(rg.Error, match="holds|training"):
        rg.train(SMALL, out=tmp_path / "a", progress=False)
    resumed = rg.train(out=tmp_path / "a", resume=True, progress=False)
    whole = rg.train(SMALL, out=tmp_path / "b", progress=False)
    same(resumed.last, whole.last)
    same(resumed.best, whole.best)
    more = rg.train({"epochs": 3}, out=tmp_path / "a", resume=True, progress=False)
    assert len(more.epochs) == 3


def test_a_comparison_has_a_record_for_each_run(tmp_path):
    events = []
    plan = {
        "model": "mlp:8",
        "penalties": {"jacobian": [0.01, 0.1]},
        "seeds": 2,
        "epochs": 1,
        "attack_samples": 10,
    }
    found = rg.compare(plan, out=tmp_path / "c", progress=events.append)
    records = found.records()
    assert len(records) == 6 and not any(row["diverged"] for row in records)
    assert {(row["regularizer"], row["lambda"], row["seed"]) for row in records} == {
        (name, weight, seed)
        for name, weight in (("none", 0.0), ("jacobian", 0.01), ("jacobian", 0.1))
        for seed in (0, 1)
    }
    assert all(0 <= row["robust_accuracy.PGD+APGD linf 0.1"] <= 1 for row in records)
    assert [event["index"] for event in events if event["kind"] == "run"] == list(range(6))
    assert (tmp_path / "c" / "report.html").read_text() == found.reports[0]
    assert "iframe" in found._repr_html_()
    again = rg.compare(plan, progress=False)
    for one, other in zip(again.records(), records, strict=True):
        del one["step_milliseconds"], other["step_milliseconds"]
        assert one == other
    with pytest.raises(rg.Error, match="result"):
        rg.compare(plan, out=tmp_path / "c", progress=False)


def test_formulas_are_trained_compared_and_evaluated():
    own = {"name": "own", "formula": "norm2(g) + b*tr(S*G)", "constants": {"b": 0.5}}
    found = rg.train({**SMALL, "penalties": [{**own, "weight": 0.1}]}, progress=False)
    assert found.complete
    plan = {"model": "mlp:6", "epochs": 1, "attack-samples": 5, "pgd-steps": 1}
    plan["formula"] = {"own": "norm2(g) + b*tr(S*G) @ 0.1:1, b=0.5", "other": "tr(G)"}
    names = [run["regularizer"] for run in rg.compare(plan, progress=False).records()]
    assert names == ["none", "own", "own", "other"]
    evaluated = rg.evaluate(
        found.best,
        samples=5,
        pgd_steps=1,
        apgd_steps=1,
        certified=0,
        linf=[0.1],
        l2=[],
        penalties=["jacobian", own],
        progress=False,
    )
    assert [name for name, _ in evaluated.report["penalties"]] == ["jacobian", "own"]
    with pytest.raises(rg.Error, match="two of one shape|needs equal shapes"):
        rg.train({**SMALL, "penalties": [{**own, "weight": 1.0, "formula": "dot(f, J)"}]})


def test_an_evaluation_and_a_verification():
    network = rg.train({**SMALL, "epochs": 5}, progress=False).best
    x, y = rg.digits()
    found = rg.evaluate(
        network, (x[:50], y[:50]), linf=[0.05], l2=[], samples=50, certified=10, progress=False
    )
    clean = (network(x[:50]).argmax(1) == y[:50]).sum()
    assert found.report["clean"]["count"] == clean
    (adversarial,) = found.adversarial
    assert np.abs(adversarial - x[:50]).max() <= 0.05 + 1e-6
    stands = (network(adversarial).argmax(1) == y[:50]).sum()
    assert stands == found.report["worst"][0]["accuracy"]["count"] <= clean
    assert len(found.records()) == len(found.report["attacks"])
    for dtype in ("float32", "float64"):
        report = rg.verify(network.astype(dtype), samples=4, progress=False)
        assert report["holds"] and report["complete"] and report["samples"] == 4


def test_bars_are_tqdms(capsys):
    pytest.importorskip("tqdm", reason="tqdm is not installed")
    rg.train(SMALL, progress=True)
    assert "100%" in capsys.readouterr().err
    rg.train(SMALL, progress=False)
    assert capsys.readouterr().err == ""


SCRIPTS = {
    "train": "rg.train({'epochs': 10**6}, out='run', progress=tell)",
    "compare": (
        "rg.compare({'model': 'mlp:8', 'epochs': 5, 'seeds': 10**4, 'attack-samples': 5,"
        " 'penalties': {'jacobian': [0.1]}}, out='run', progress=tell)"
    ),
    "evaluate": "rg.evaluate(rg.Mlp([64, 32, 10]).build(), pgd_restarts=10**4, progress=tell)",
    "verify": "rg.verify(rg.Mlp([64, 256, 256, 10]).build(), samples=359, progress=tell)",
}


def heed() -> None:
    """Lets a process be interrupted also where the shell lets its background jobs ignore that."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


@pytest.mark.skipif(sys.platform == "win32", reason="signals are Unix's")
@pytest.mark.parametrize("work", SCRIPTS)
def test_ctrl_c_ends_work(work, tmp_path):
    when = 1 if work == "evaluate" else 3
    script = """
        import relugrad as rg
        told = 0
        def tell(event):
            global told
            told += 1
            if told == {}:
                print("now", flush=True)
        try:
            {}
        except KeyboardInterrupt:
            print("interrupted", flush=True)
    """
    environment = os.environ | {"PYTHONPATH": str(Path(rg.__file__).parent.parent)}
    running = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(script).format(when, SCRIPTS[work])],
        stdout=subprocess.PIPE,
        text=True,
        cwd=tmp_path,
        env=environment,
        preexec_fn=heed,  # noqa: PLW1509
    )
    try:
        assert running.stdout.readline() == "now\n"
        began = time.monotonic()
        running.send_signal(signal.SIGINT)
        assert running.communicate(timeout=60)[0] == "interrupted\n"
        assert running.returncode == 0 and time.monotonic() - began < 30
    finally:
        running.kill()
    if work == "train":
        done = (tmp_path / "run" / "metrics.csv").read_text().count("\n") - 1
        resumed = rg.train({"epochs": done + 1}, out=tmp_path / "run", resume=True, progress=False)
        assert resumed.complete and len(resumed.epochs) == done + 1
    if work == "compare":
        assert (tmp_path / "run" / "results.json").exists()
