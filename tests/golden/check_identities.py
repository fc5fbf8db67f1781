#!/usr/bin/env python3
"""Checks of the golden cases that need no automatic differentiation: the Gram identities, in NumPy.

Reads `cases/*.json`. From weights and activation patterns alone it forms f, J, G = J Jᵀ, the residual r and
the logit Hessian S, then each ℓ₂ penalty as a function of (r, S, G), and compares with the recorded values,
which double backpropagation made. Prints the worst residual of each quantity, relative to its size:

    python3 tests/golden/check_identities.py
"""

import json
from pathlib import Path

import numpy as np

TOLERANCE = 1e-12


def affine_map(network, inputs):
    """`f` and `J` at one input: `inputs: [D]`, results `[K]` and `[K, D]`."""
    a, J = np.array(inputs), np.eye(len(inputs))
    for layer in network["layers"]:
        kind = layer["kind"]
        if kind == "dense":
            weight = np.array(layer["weight"])
            a, J = weight @ a + (0.0 if layer["bias"] is None else np.array(layer["bias"])), weight @ J
        else:
            inactive = {"relu": 0.0, "abs": -1.0}.get(kind, layer.get("slope"))
            slope = np.where(a > 0, 1.0, inactive)
            a, J = slope * a, slope[:, None] * J
    return a, J


def residual_and_logit_hessian(case, f, sample):
    """`r = ∂ℓ/∂f` and `S = ∂²ℓ/∂f²`."""
    kind, K = case["loss"]["kind"], len(f)
    target = next(iter(case["targets"].values()))[sample]
    if kind == "squared_error":
        return f - target, np.eye(K)
    if kind == "logistic":
        p = 1 / (1 + np.exp(-f))
        return p - target, np.diag(p * (1 - p))
    if "classes" in case["targets"]:
        smoothing = case["loss"]["label_smoothing"]
        target = (1 - smoothing) * np.eye(K)[target] + smoothing / K
    p = np.exp(f - f.max())
    p /= p.sum()
    return p - target, np.diag(p) - np.outer(p, p)


def square_root(S):
    eigenvalues, vectors = np.linalg.eigh(S)
    return vectors * np.sqrt(np.maximum(eigenvalues, 0)) @ vectors.T


def gram_penalties(r, S, G):
    """The penalties that are functions of the logits and `G`."""
    K = len(r)
    C = np.eye(K) - 1 / K
    root = square_root(S)
    eigenvalues = np.maximum(np.linalg.eigvalsh(G), 0)
    return {
        "input-gradient": r @ G @ r,
        "input-gradient-l2": np.sqrt(r @ G @ r),
        "jacobian": np.trace(G),
        "jacobian-spectral": eigenvalues[-1],
        "jacobian-nuclear": np.sqrt(eigenvalues).sum(),
        "jacobian-probabilities": np.trace(S @ G @ S),
        "cross-lipschitz": 2 * K * np.trace(C @ G),
        "curvature-trace": np.trace(S @ G),
        "curvature-frobenius": np.trace(S @ G @ S @ G),
        "curvature-spectral": np.linalg.eigvalsh(root @ G @ root)[-1],
        "curvature-directional": (r @ G @ S @ G @ S @ G @ r) / (r @ G @ r),
    }


def residuals(case):
    """Relative residual of each quantity, worst over the samples."""
    expected, worst = case["expected"], {}
    for sample, x in enumerate(case["inputs"]):
        f, J = affine_map(case["network"], x)
        r, S = residual_and_logit_hessian(case, f, sample)
        G, root = J @ J.T, square_root(S)
        eigenvalues = np.linalg.eigvalsh(root @ G @ root)[::-1][: min(J.shape)]
        ours = {
            "logits": f,
            "jacobian": J,
            "gram": G,
            "jvp": J @ case["tangent"][sample],
            "vjp": J.T @ case["cotangent"][sample],
            "input_gradient": J.T @ r,
            "hessian": J.T @ S @ J,
            "hvp": J.T @ (S @ (J @ case["tangent"][sample])),
            "hessian_eigenvalues": eigenvalues,
        }
        pairs = {name: (value, expected[name][sample]) for name, value in ours.items()}
        for name, value in gram_penalties(r, S, G).items():
            if name in expected["penalties"]:
                pairs[f"penalty {name}"] = (value, expected["penalties"][name]["values"][sample])
        for name, (found, recorded) in pairs.items():
            size = np.abs(recorded).max()
            residual = np.abs(found - np.array(recorded)).max() / (size if size > 0 else 1.0)
            worst[name] = max(worst.get(name, 0.0), residual)
    return worst


def tolerance(case, name):
    """With more logits than inputs `G` is singular, and `√λ` turns an error of ε into one of √ε."""
    K, D = np.shape(case["expected"]["jacobian"][0])
    return 1e-7 if name == "penalty jacobian-nuclear" and K > D else TOLERANCE


def main():
    paths = sorted((Path(__file__).parent / "cases").glob("*.json"))
    assert paths, "no cases"
    overall = {}
    for path in paths:
        case = json.loads(path.read_text(encoding="utf-8"))
        for name, residual in residuals(case).items():
            assert residual < tolerance(case, name), (path.stem, name, residual)
            overall[name] = max(overall.get(name, (0.0, "")), (residual, path.stem))
    for name, (residual, case) in overall.items():
        print(f"{name:32}{residual:.1e}   {case}")


if __name__ == "__main__":
    main()
