"""What does not fit is told in a sentence before it can do harm: teachers, banks, mixed labels."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from limbeck_core import Distiller, Match, PastSelf
from limbeck_core.adapters import ClassMap
from limbeck_core.configs import installed
from limbeck_core.errors import LimbeckError, MatchError, NonFiniteError, TargetError
from limbeck_core.inspect import diagnose
from limbeck_core.losses import ContrastiveRepresentationLoss, KLDivergenceLoss, SoftTargetCrossEntropyLoss
from limbeck_vision.data import Digits, LongTailed, mix_batch
from limbeck_vision.models import ImageCall, resnet8_half, resnet8_quarter
from vision_toys import distiller_and_batches, leave_weights

KD = {"kd": Match(KLDivergenceLoss(temperature=4.0), "fc", "fc")}


def batch_of(ids: list[int], dataset: Digits | LongTailed | None = None) -> dict[str, Tensor]:
    data = dataset or Digits(channels=3)
    samples = [data[index] for index in ids]
    return {
        "inputs": torch.stack([sample["inputs"] for sample in samples]),
        "targets": torch.tensor([sample["targets"] for sample in samples]),
        "ids": torch.tensor([sample["ids"] for sample in samples]),
    }


# ---------------------------------------------------------------------- teachers


def test_teacher_with_another_number_of_classes() -> None:
    with pytest.raises(MatchError, match=r"the student scores 10 classes at 'student:fc', the teacher 12 .*ClassMap"):
        Distiller(resnet8_quarter(10), resnet8_half(12), matches=KD, call=ImageCall())
    joined = Match(KLDivergenceLoss(), "fc", "fc", teacher_adapter=ClassMap(range(10)))
    model = Distiller(resnet8_quarter(10), resnet8_half(12), matches={"kd": joined}, call=ImageCall())
    assert torch.isfinite(model(batch_of([0, 1]))["loss/kd"])


class KnowsInAnotherOrder(nn.Module):
    """A teacher that is always right, in a class list that runs backwards; it finds the class written in a pixel."""

    normalization = None

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(10, 10)
        nn.init.zeros_(self.fc.bias)
        self.fc.weight.data = 9 * torch.eye(10).flip(0)

    def forward(self, images: Tensor) -> Tensor:
        known = (images[:, 0, 0, 0] * 10).round().long()
        logits: Tensor = self.fc(nn.functional.one_hot(known, 10).float())
        return logits


def test_teacher_with_another_order_of_classes() -> None:
    targets = torch.arange(10).repeat(8)
    images = torch.rand(80, 3, 8, 8)
    images[:, :, 0, 0] = targets[:, None] / 10
    model = Distiller(
        resnet8_quarter(10), KnowsInAnotherOrder(), matches=KD, call=ImageCall(), task_loss=nn.CrossEntropyLoss()
    )
    found = [str(finding) for finding in diagnose(model, [{"inputs": images, "targets": targets}])]
    (order,) = [text for text in found if "after renaming its" in text]
    assert "accuracy on these 80 samples is 0%, but 100%" in order


# ---------------------------------------------------------------------- banks


def with_past_self(samples: int) -> Distiller:
    past = PastSelf(samples, 10, logits="fc")
    match = Match(SoftTargetCrossEntropyLoss(), "fc", "")
    return Distiller(resnet8_quarter(10), past, matches={"past": match}, call=ImageCall()).train()


def test_logits_that_are_not_finite_never_reach_the_bank() -> None:
    model = with_past_self(1200)
    model(batch_of([3, 4]))
    before = model.teacher.bank.clone()
    with torch.no_grad():
        model.student.fc.bias[2] = float("nan")
    with pytest.raises(NonFiniteError):
        model(batch_of([4, 5]))
    torch.testing.assert_close(model.teacher.bank, before, rtol=0, atol=0)
    assert model.teacher.seen.sum() == 2


def test_an_index_that_the_bank_does_not_know() -> None:
    """Ids of a long tail are those of the whole set: a bank as long as the tail is too short for them."""
    tail = LongTailed(Digits(channels=3), imbalance=10)
    positions = [len(tail) - 1, 0]
    with pytest.raises(MatchError, match=rf"built for {len(tail)} samples .* set num_samples to the length"):
        with_past_self(len(tail))(batch_of(positions, tail))
    with_past_self(1200)(batch_of(positions, tail))
    loss = ContrastiveRepresentationLoss(4, 4, len(tail), embedding_dim=2, num_negatives=3)
    batch = batch_of(positions, tail)
    with pytest.raises(LimbeckError, match="ids"):
        loss(torch.rand(2, 4), torch.rand(2, 4), batch["ids"], batch["targets"])


# ---------------------------------------------------------------------- mixed labels

NEED_AN_INDEX = {"vision/classics/digits_dkd", "vision/classics/digits_crd"}  # of one class; both say so
CLASSICS = [name for name in sorted(installed()) if name.startswith(("vision/classics/digits_", "vision/digits/"))]


@pytest.mark.parametrize("mixing", [{"mixup": 0.8}, {"cutmix": 1.0}], ids=["mixup", "cutmix"])
@pytest.mark.parametrize("config", CLASSICS)
def test_mixed_labels_train_or_are_refused(
    config: str, mixing: dict[str, float], monkeypatch: pytest.MonkeyPatch
) -> None:
    leave_weights(monkeypatch.setattr)
    model, (batch,) = distiller_and_batches(config, batch_size=8, count=1)
    mixed = mix_batch(batch, num_classes=10, **mixing)
    if config in NEED_AN_INDEX:
        with pytest.raises(TargetError, match="target"):
            model(mixed)
        return
    losses = model(mixed)
    sum(losses.values()).backward()
    assert all(torch.isfinite(value) for value in losses.values())
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    assert all(torch.isfinite(parameter.grad).all() for parameter in trained)


def test_mixing_one_label_into_another_by_hand() -> None:
    """Cross-entropy against mixed labels is the same mixture of the cross-entropies against each."""
    batch = batch_of([0, 1, 2, 3])
    mixed = mix_batch(batch, num_classes=10, mixup=0.8)
    student = resnet8_quarter(10)
    model = Distiller(student, task_loss=nn.CrossEntropyLoss(), call=ImageCall())
    logits = student(mixed["inputs"])
    one = nn.functional.cross_entropy(logits, batch["targets"], reduction="none")
    other = nn.functional.cross_entropy(logits, batch["targets"].roll(1), reduction="none")
    share = mixed["mix_weight"]
    torch.testing.assert_close(model(mixed)["loss/task"], (share * one + (1 - share) * other).mean())
