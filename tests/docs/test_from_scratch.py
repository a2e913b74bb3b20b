"""``docs/from_scratch.md``: the whole of distillation in sixty lines, and the same in limbeck."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch.nn.functional import kl_div

import doc_blocks
from limbeck_core.functional import kl_divergence_loss

PAGE = doc_blocks.DOCS / "from_scratch.md"


@pytest.fixture(scope="module")
def scope() -> Iterator[dict[str, Any]]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # matrices too small to share
    yield doc_blocks.run(PAGE)
    torch.set_num_threads(threads)


def test_sixty_lines() -> None:
    first = doc_blocks.blocks(PAGE)[0]
    assert len(first.code.splitlines()) <= 60
    assert "limbeck" not in first.code


def test_distillation_helps_for_every_seed(scope: dict[str, Any]) -> None:
    results = scope["results"]
    assert results["teacher"][0] > 0.95
    assert len(results["alone"]) == 3
    gains = [distilled - alone for alone, distilled in zip(results["alone"], results["distilled"], strict=True)]
    assert min(gains) > 0.02
    assert sum(gains) / 3 == pytest.approx(0.063, abs=0.025)  # what the page says


def test_the_page_says_what_comes_out(scope: dict[str, Any]) -> None:
    text = PAGE.read_text(encoding="utf-8")
    for name, values in scope["results"].items():
        said = float(text.split(f"'{name}': '", 1)[1].split("%", 1)[0]) / 100
        assert sum(values) / len(values) == pytest.approx(said, abs=0.01)


def test_its_loss_is_ours_and_torchs(scope: dict[str, Any]) -> None:
    student, teacher = torch.randn(6, 10, dtype=torch.float64), torch.randn(6, 10, dtype=torch.float64)
    value = scope["distillation_loss"](student, teacher, 4.0)
    torch.testing.assert_close(value, kl_divergence_loss(student, teacher, temperature=4.0))
    log_student, log_teacher = (student / 4).log_softmax(1), (teacher / 4).log_softmax(1)
    torch.testing.assert_close(value, 16 * kl_div(log_student, log_teacher, log_target=True, reduction="batchmean"))
    mean = 16 * kl_div(log_student, log_teacher, log_target=True, reduction="none").mean()
    torch.testing.assert_close(value, 10 * mean)  # the first of the three warnings


def test_with_limbeck_the_same_student_comes_out(scope: dict[str, Any]) -> None:
    assert scope["accuracy"](scope["student"]) == pytest.approx(scope["results"]["distilled"][-1], abs=0.005)
    assert not any(p.requires_grad for p in scope["teacher"].parameters())
