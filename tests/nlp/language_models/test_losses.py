"""Cross-entropy of tokens, and the policy gradient, against hand calculations."""

from __future__ import annotations

import math

import pytest
import torch
from torch.autograd import gradcheck
from torch.nn.functional import cross_entropy

from limbeck_core.errors import ShapeError, TargetError
from limbeck_nlp.language_models import TokenCrossEntropyLoss, reverse_kl_policy_loss, token_cross_entropy_loss


def test_without_smoothing_it_is_cross_entropy() -> None:
    logits, target = torch.randn(2, 3, 5), torch.tensor([[1, -100, 4], [0, 2, -100]])
    expected = cross_entropy(logits.flatten(0, 1), target.flatten())
    torch.testing.assert_close(token_cross_entropy_loss(logits, target), expected)


def test_smoothing_by_hand_at_five_tokens() -> None:
    """Fairseq's form: the target has mass 0.9, each of the four others 0.025."""
    logits = torch.randn(1, 1, 5, dtype=torch.float64)
    weights = torch.tensor([0.025, 0.025, 0.9, 0.025, 0.025], dtype=torch.float64)
    expected = -(weights * logits.log_softmax(-1)[0, 0]).sum()
    torch.testing.assert_close(token_cross_entropy_loss(logits, torch.tensor([[2]]), smoothing=0.1), expected)
    pytorch = cross_entropy(logits[0], torch.tensor([2]), label_smoothing=0.1)
    assert not torch.isclose(pytorch, expected)


def test_padding_has_no_influence_and_nothing_is_zero() -> None:
    logits, target = torch.randn(2, 3, 5), torch.tensor([[1, 2, 3], [0, 2, 1]])
    padded = torch.cat([logits, torch.full((2, 2, 5), math.nan)], 1)
    longer = torch.cat([target, torch.full((2, 2), -100)], 1)
    module = TokenCrossEntropyLoss(0.1)
    torch.testing.assert_close(module(padded, longer), module(logits, target))
    empty = token_cross_entropy_loss(logits.requires_grad_(), torch.full((2, 3), -100))
    empty.backward()
    assert empty.item() == 0
    assert logits.grad is not None
    assert logits.grad.abs().sum() == 0


def test_wrong_targets_are_refused() -> None:
    with pytest.raises(TargetError, match="holds the id 5, the vocabulary of the logits has 5"):
        token_cross_entropy_loss(torch.zeros(1, 1, 5), torch.tensor([[5]]))
    with pytest.raises(ShapeError, match=r"shape \(1, 2\), got \(2,\)"):
        token_cross_entropy_loss(torch.zeros(1, 2, 5), torch.tensor([1, 2]))
    with pytest.raises(ValueError, match="smoothing"):
        TokenCrossEntropyLoss(1.5)


def test_policy_gradient_of_one_token_by_hand() -> None:
    """With one token and no analytic term the gradient is -(log t - log s) times that of log s."""
    student = torch.randn(1, 1, 4, dtype=torch.float64, requires_grad=True)
    teacher, target = torch.randn(1, 1, 4, dtype=torch.float64), torch.tensor([[2]])
    reverse_kl_policy_loss(student, teacher, target, single_step=False).backward()
    log_s, log_t = student.detach().log_softmax(-1)[0, 0], teacher.log_softmax(-1)[0, 0]
    score = torch.eye(4, dtype=torch.float64)[2] - log_s.exp()
    torch.testing.assert_close(student.grad[0, 0], -(log_t[2] - log_s[2]) * score)  # type: ignore[index]


def test_expected_policy_gradient_is_that_of_the_reverse_divergence() -> None:
    student = torch.randn(1, 1, 3, dtype=torch.float64, requires_grad=True)
    teacher = torch.randn(1, 1, 3, dtype=torch.float64)
    s = student.log_softmax(-1)
    (s.exp() * (s - teacher.log_softmax(-1))).sum().backward()
    exact, student.grad = student.grad, None
    for token in range(3):
        loss = reverse_kl_policy_loss(student, teacher, torch.tensor([[token]]), single_step=False)
        (loss * s.detach().exp()[0, 0, token]).backward()
    torch.testing.assert_close(student.grad, exact)


def test_advantages_by_hand() -> None:
    """Rewards 1 and 3 give, undiscounted, 2 (their mean) and 3; with discount 0, themselves; prompts nothing."""
    student = torch.zeros(1, 3, 2, dtype=torch.float64)
    teacher = torch.zeros(1, 3, 2, dtype=torch.float64)
    target = torch.tensor([[-100, 0, 1]])
    # log t - log s of the drawn token
    teacher[0, 1, 0], teacher[0, 2, 1] = 2.0, -1.0
    rewards = (teacher.log_softmax(-1) - student.log_softmax(-1))[0, [1, 2], [0, 1]]
    advantages = {1.0: torch.stack([rewards.mean(), rewards[1]]), 0.0: rewards}
    for discount, expected in advantages.items():
        loss = reverse_kl_policy_loss(student, teacher, target, discount=discount, single_step=False, reduction="none")
        torch.testing.assert_close(loss[0], torch.cat([torch.zeros(1).double(), expected * math.log(2)]))


def test_gradients_are_right() -> None:
    logits = torch.randn(2, 3, 4, dtype=torch.float64, requires_grad=True)
    target = torch.tensor([[1, -100, 3], [0, 2, 1]])
    assert gradcheck(lambda z: token_cross_entropy_loss(z, target, smoothing=0.2), (logits,))


def test_policy_loss_refuses_other_shapes() -> None:
    with pytest.raises(ShapeError, match="cut a padded vocabulary"):
        reverse_kl_policy_loss(torch.zeros(1, 2, 4), torch.zeros(1, 2, 5), torch.zeros(1, 2).long())
    with pytest.raises(ValueError, match="discount"):
        reverse_kl_policy_loss(torch.zeros(1, 2, 4), torch.zeros(1, 2, 4), torch.zeros(1, 2).long(), discount=2)
