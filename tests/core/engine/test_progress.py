"""The progress line: drawn in a terminal, silent elsewhere; numbers and the log above it."""

from __future__ import annotations

import io
import logging
import sys
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from rich.console import Console

from limbeck_core.engine.progress import ProgressBarHook, shown_losses


def fake_runner() -> Any:
    logger = logging.Logger("fake")
    logger.addHandler(logging.StreamHandler(sys.stdout))
    loop = SimpleNamespace(iter=3, epoch=0, max_iters=20, max_epochs=2)
    return SimpleNamespace(train_loop=loop, logger=logger)


def drawn(terminal: bool) -> str:
    screen = io.StringIO()
    runner = fake_runner()
    hook = ProgressBarHook(every=2, console=Console(file=screen, force_terminal=terminal, width=120))
    hook.before_train(runner)
    for _ in range(5):
        hook.after_train_iter(runner, 0, outputs={"loss": torch.tensor(1.25), "loss/kd": torch.tensor(0.5)})
        runner.train_loop.iter += 1
    runner.logger.warning("a line of the log [1][2]")
    hook.after_train(runner)
    assert runner.logger.handlers[0].stream is sys.stdout
    return screen.getvalue()


def test_in_a_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    text = drawn(terminal=True)
    assert "8/20" in text
    assert "epoch 1/2" in text
    assert "left" in text
    assert "loss 1.25  kd 0.5" in text
    assert "a line of the log [1][2]" in text
    assert capsys.readouterr().out == ""


def test_elsewhere_the_log_is_enough(capsys: pytest.CaptureFixture[str]) -> None:
    assert drawn(terminal=False) == ""
    assert capsys.readouterr().out == "a line of the log [1][2]\n"


def test_losses_as_text() -> None:
    outputs = {"loss": torch.tensor(2.0), "loss/kd": 0.123456, "map": torch.zeros(3), "name": "x", "acc": torch.ones(1)}
    assert shown_losses(outputs) == "loss 2  kd 0.1235  acc 1"
    many = {f"loss/{n}": float(n) for n in range(9)}
    assert shown_losses(many) == "0 0  1 1  2 2  3 3"


@pytest.mark.parametrize("moment", ["after_train", "after_run"])
def test_the_line_is_closed_once(moment: str) -> None:
    console = Console(file=io.StringIO(), force_terminal=True)
    hook = ProgressBarHook(console=console)
    runner = fake_runner()
    hook.before_train(runner)
    getattr(hook, moment)(runner)
    assert runner.logger.handlers[0].stream is sys.stdout
    written = len(console.file.getvalue())
    hook.after_train_iter(runner, 0, outputs={})
    hook.after_run(runner)
    assert len(console.file.getvalue()) == written > 0
