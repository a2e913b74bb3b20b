"""``python -m limbeck_nlp.lelp``: does the split help? Digits as odd or even, with its controls, on paired seeds.

Real handwritten digits from scikit-learn, 1000 to train on, 200 held out to choose each arm's learning rate, the rest
to test. A wide network teaches narrow ones of one hidden layer.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Callable, Sequence

import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from limbeck_core.functional import soft_target_cross_entropy_loss
from limbeck_nlp.lelp.subclasses import Directions, SubclassTargets, merge_subclasses

RATES = (3e-3, 1e-2, 3e-2)
Loss = Callable[[nn.Module, Tensor], Tensor]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the check and print its table.

    Args:
        arguments: Words of the command line; those of the process by default.

    Returns:
        The exit status.
    """
    parser = argparse.ArgumentParser(prog="python -m limbeck_nlp.lelp", description=__doc__)
    parser.add_argument("--seeds", type=int, default=10, help="paired seeds (default: 10)")
    parser.add_argument("--hidden", type=int, default=4, help="width of the students (default: 4)")
    parser.add_argument("--directions", type=int, default=4, help="subclasses of each class (default: 4)")
    parser.add_argument("--epochs", type=int, default=60, help="epochs of every model (default: 60)")
    options = parser.parse_args(arguments)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        found = run(options.seeds, options.hidden, options.directions, options.epochs)
    finally:
        torch.set_num_threads(threads)
    for name, values in found.items():
        gaps = [a - b for a, b in zip(values, found["distilled as usual"], strict=True)]
        error = statistics.stdev(gaps) / len(gaps) ** 0.5 if len(gaps) > 1 else 0.0
        spread = statistics.stdev(values) if len(values) > 1 else 0.0
        print(
            f"{name:26} {statistics.fmean(values):6.2f} ± {spread:5.2f} %   against distilled as usual "
            f"{statistics.fmean(gaps):+.2f} ± {error:.2f} (standard error)"
        )
    return 0


def run(seeds: int = 10, hidden: int = 4, directions: int = 4, epochs: int = 60) -> dict[str, list[float]]:
    """Return the test accuracy in per cent of each arm, one number a seed.

    Args:
        seeds: Paired seeds.
        hidden: Width of the students.
        directions: Subclasses of each class.
        epochs: Epochs of every model.
    """
    pixels, digits = load_digits(return_X_y=True)
    inputs, target = torch.tensor(pixels).float() / 16, torch.tensor(digits) % 2
    order = torch.randperm(len(inputs), generator=torch.Generator().manual_seed(0))
    train, held, test = order[:1000], order[1000:1200], order[1200:]

    def network(width: int, outputs: int, seed: int) -> nn.Sequential:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return nn.Sequential(nn.Linear(64, width), nn.ReLU(), nn.Linear(width, outputs))

    def fit(model: nn.Sequential, loss: Loss, rate: float, seed: int) -> nn.Sequential:
        optimizer = torch.optim.AdamW(model.parameters(), lr=rate)
        generator = torch.Generator().manual_seed(seed)
        for _ in range(epochs):
            for batch in torch.split(train[torch.randperm(len(train), generator=generator)], 64):
                optimizer.zero_grad()
                loss(model, batch).backward()  # type: ignore[no-untyped-call]
                optimizer.step()
        return model

    def labels(model: nn.Module, batch: Tensor) -> Tensor:
        return cross_entropy(model(inputs[batch]), target[batch])

    teacher = fit(network(256, 2, 0), labels, 1e-3, 0)
    with torch.no_grad():
        states = teacher[1](teacher[0](inputs))
        logits = teacher[2](states)
    weight = teacher.get_parameter("2.weight").detach()

    def split(kind: Directions, outside: Tensor | None) -> Loss:
        fitted = SubclassTargets(2, directions, 256)
        fitted.fit(states[train], target[train], outside, kind=kind)
        q = fitted([states, logits])
        return lambda model, batch: soft_target_cross_entropy_loss(model(inputs[batch]), q[batch])

    usual: Loss = lambda model, batch: soft_target_cross_entropy_loss(  # noqa: E731
        model(inputs[batch]), logits[batch].softmax(1)
    )
    arms: dict[str, tuple[int, Loss]] = {
        "labels alone": (2, labels),
        "distilled as usual": (2, usual),
        "LELP": (2 * directions, split("principal", weight)),
        "LELP without null space": (2 * directions, split("principal", None)),
        "random directions": (2 * directions, split("random", weight)),
    }

    def accuracy(arm: tuple[int, Loss], rate: float, seed: int, part: Tensor) -> float:
        student = fit(network(hidden, arm[0], seed), arm[1], rate, seed)
        with torch.no_grad():
            guess = merge_subclasses(student(inputs[part]), 2).argmax(1)
        return 100.0 * float((guess == target[part]).float().mean())

    found = {}
    for name, arm in arms.items():
        rate = max(RATES, key=lambda r: statistics.fmean(accuracy(arm, r, 100 + s, held) for s in range(2)))
        found[name] = [accuracy(arm, rate, seed, test) for seed in range(seeds)]
    return found


if __name__ == "__main__":
    raise SystemExit(main())
