"""Golden cases of attacks: PGD and DeepFool written with PyTorch, without anything of relugrad.

    pip install torch==2.15.0
    python attacks.py > attacks.json

Double precision, fixed seeds. PGD starts at the sample; its worst iterate is the misclassified one of the highest loss,
or the one of the highest loss. DeepFool follows algorithm 2 of Moosavi-Dezfooli, Fawzi & Frossard 2016 (and their lp
variant for the maximum norm); each step goes 1e-6 (1 + distance) beyond the boundary, and all of them together are
multiplied by 1.02 whenever the network is asked.
"""

import json

import torch

torch.set_default_dtype(torch.float64)


def network(widths, seed):
    generator = torch.Generator().manual_seed(seed)
    layers = []
    for n, m in zip(widths, widths[1:]):
        weight = torch.randn(m, n, generator=generator) * (2.0 / n) ** 0.5
        bias = 0.1 * torch.randn(m, generator=generator)
        layers.append((weight, bias))
    return layers


def logits(layers, x):
    for i, (weight, bias) in enumerate(layers):
        x = x @ weight.T + bias
        if i + 1 < len(layers):
            x = torch.relu(x)
    return x


def pgd(layers, x, y, norm, epsilon, steps):
    size = 2.5 * epsilon / steps
    worst, worst_key = x.clone(), (False, -float("inf"))
    here = x.clone()
    for step in range(steps + 1):
        here = here.detach().requires_grad_()
        f = logits(layers, here)
        loss = torch.nn.functional.cross_entropy(f[None], torch.tensor([y]))
        key = (f.argmax().item() != y, loss.item())
        if key > worst_key:
            worst, worst_key = here.detach().clone(), key
        if step == steps:
            break
        (g,) = torch.autograd.grad(loss, here)
        if norm == "linf":
            there = here.detach() + size * g.sign()
            there = torch.minimum(torch.maximum(there, x - epsilon), x + epsilon)
        else:
            there = here.detach() + size * g / g.norm()
            delta = there - x
            if delta.norm() > epsilon:
                delta = delta * epsilon / delta.norm()
            there = x + delta
        here = there.clamp(0, 1)
    return {"fooled": worst_key[0], "loss": worst_key[1], "adversarial": worst.tolist()}


def deepfool(layers, x, norm, steps=50):
    y = logits(layers, x).argmax().item()
    total = torch.zeros_like(x)
    for step in range(1, steps + 1):
        here = x + 1.02 * total
        jacobian = torch.autograd.functional.jacobian(lambda x: logits(layers, x), here)
        f = logits(layers, here)
        best = None
        for k in range(len(f)):
            if k == y:
                continue
            w, gap = jacobian[k] - jacobian[y], (f[k] - f[y]).abs()
            dual = w.abs().sum() if norm == "linf" else w.norm()
            if best is None or gap / dual < best[0]:
                best = (gap / dual, w)
        length = best[0] + 1e-6 * (1 + best[0])
        total = total + length * (best[1].sign() if norm == "linf" else best[1] / best[1].norm())
        delta = 1.02 * total
        if logits(layers, x + delta).argmax().item() != y:
            return {"steps": step, "delta": delta.tolist()}
    return None


def main():
    cases = []
    for widths, seed in [([6, 16, 4], 0), ([8, 12, 12, 3], 1), ([5, 20, 10, 10, 6], 2)]:
        layers = network(widths, seed)
        generator = torch.Generator().manual_seed(100 + seed)
        samples = []
        for i in range(12):
            x = torch.rand(widths[0], generator=generator)
            y = logits(layers, x).argmax().item() if i % 4 else i % widths[-1]
            attacks = {}
            for norm, epsilon in [("linf", 0.15), ("l2", 0.4)]:
                attacks[norm] = {
                    "epsilon": epsilon,
                    "pgd": pgd(layers, x, y, norm, epsilon, 12),
                    "deepfool": deepfool(layers, x, norm),
                }
            samples.append({"x": x.tolist(), "label": y, **attacks})
        cases.append({
            "widths": widths,
            "weights": [weight.tolist() for weight, _ in layers],
            "biases": [bias.tolist() for _, bias in layers],
            "steps": 12,
            "samples": samples,
        })
    print(json.dumps({"torch": torch.__version__, "cases": cases}))


main()
