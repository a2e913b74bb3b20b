"""PS-KD: cross-entropy at weight zero bit for bit, its gradient, ids through subsets and ranks, mixed batches."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, one_hot

from limbeck_core import Distiller, Match, PastSelf
from limbeck_core.engine.sampler import build_dataloader
from limbeck_core.errors import MatchError, NonFiniteError
from limbeck_core.losses import SoftTargetCrossEntropyLoss
from limbeck_core.schedules import Complement, Progress, WarmUp
from limbeck_vision.data import Digits, Subset, mix_batch
from limbeck_vision.methods.ps_kd import MixedPastSelf
from limbeck_vision.models import ImageCall, resnet8_quarter

CLASSES = 10


def ps_kd(student: nn.Module, past: PastSelf, final: float = 0.8, **options: Any) -> Distiller:
    return Distiller(
        student,
        {"past": past},
        {"ps_kd": Match(SoftTargetCrossEntropyLoss(), "", "", weight=WarmUp(final))},
        task_loss=nn.CrossEntropyLoss(),
        task_weight=Complement(WarmUp(final)),
        **options,
    )


def digits_batch(count: int = 12, **options: Any) -> dict[str, Any]:
    loader = build_dataloader(
        {"dataset": {"type": Digits, "channels": 3, **options}, "batch_size": count}, seed=0, training=True
    )
    return next(iter(loader))


def small(seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return resnet8_quarter()


def train(model: nn.Module, loss: Any, epochs: int = 3) -> tuple[list[float], Tensor]:
    """Losses and final weights of a few epochs over two batches."""
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    values = []
    for epoch in range(epochs):
        for batch in build_dataloader(
            {"dataset": {"type": Digits, "channels": 3, "labels_per_class": 2}, "batch_size": 10}, seed=1, training=True
        ):
            total = loss(batch, Progress(step=0, epoch=epoch, max_epochs=epochs))
            optimizer.zero_grad()
            total.backward()
            optimizer.step()
            values.append(total.item())
    return values, torch.cat([p.detach().flatten() for p in model.parameters()])


def test_weight_zero_is_cross_entropy_bit_for_bit() -> None:
    plain = small()
    expected = train(plain, lambda batch, _: cross_entropy(plain(batch["inputs"]), batch["targets"]))
    distiller = ps_kd(small(), PastSelf(1200, CLASSES), 0.0).train()

    def loss(batch: dict[str, Any], progress: Progress) -> Tensor:
        distiller.set_progress(progress)
        return sum(distiller(batch).values(), start=torch.zeros(()))

    found = train(distiller, loss)
    assert found[0] == expected[0]
    assert torch.equal(found[1], expected[1])


def test_the_first_epoch_is_cross_entropy_and_the_second_is_not() -> None:
    distiller = ps_kd(small(), PastSelf(1200, CLASSES)).train()
    batch = digits_batch()
    for epoch, same in ((0, True), (1, False)):
        distiller.set_progress(Progress(epoch=epoch, max_epochs=4))
        plain = cross_entropy(distiller(batch, mode="tensor"), batch["targets"])
        assert torch.isclose(sum(distiller(batch).values()), plain, rtol=1e-5) == same


def test_gradient_against_that_of_cross_entropy() -> None:
    """dL/dz = p - (1 - a) y - a q, so its share at the label is 1 - a (1 - q_y) / (1 - p_y)."""
    student, past = nn.Linear(5, CLASSES).double(), PastSelf(8, CLASSES)
    distiller = ps_kd(student, past).train()
    inputs, targets = torch.randn(8, 5, dtype=torch.float64), torch.arange(8)
    q = torch.randn(8, CLASSES).softmax(1)
    past.bank.copy_(q)
    past.seen.fill_(True)
    distiller.set_progress(Progress(epoch=2, max_epochs=4))
    logits = student(inputs)
    p = logits.detach().softmax(1)
    kept: list[Tensor] = []
    handle = student.register_forward_hook(lambda _module, _inputs, output: kept.append(output))
    total = sum(distiller(inputs, targets, torch.arange(8)).values())
    handle.remove()
    (gradient,) = torch.autograd.grad(total, kept)
    gradient, label = gradient * 8, one_hot(targets, CLASSES)  # of each sample
    torch.testing.assert_close(gradient, p - 0.4 * label - 0.6 * q.double())
    own = targets.unsqueeze(1)
    share = (gradient.gather(1, own) / (p.gather(1, own) - 1)).squeeze(1)
    expected = 1 - 0.6 * (1 - q.double().gather(1, own)) / (1 - p.gather(1, own))
    torch.testing.assert_close(share, expected.squeeze(1))


@pytest.mark.parametrize("shuffle", [False, True])
def test_ids_survive_subsets_and_samplers(shuffle: bool) -> None:
    """The memory of a subset of a shuffled set is written at the rows of the whole set, and nowhere else."""
    chosen = [7, 3, 31, 12, 5, 40]
    whole = Digits(channels=3)
    subset = {"type": Subset, "dataset": {"type": Digits, "channels": 3}, "indices": chosen}
    config = {"dataset": subset, "batch_size": 4, "sampler": {"shuffle": shuffle}}
    past = PastSelf(len(whole), CLASSES)
    student = small().eval()
    distiller = ps_kd(student, past).train()
    student.eval()  # no batch norm that looks at the other samples
    distiller.set_progress(Progress(epoch=0, max_epochs=2))
    for batch in build_dataloader(config, seed=5, training=True):
        distiller(batch)
    assert sorted(past.seen.nonzero().flatten().tolist()) == sorted(chosen)
    with torch.no_grad():
        for row in chosen:
            sample = whole[row]
            torch.testing.assert_close(past.bank[row], student(sample["inputs"][None])[0].softmax(0))


def test_an_id_that_the_memory_does_not_know() -> None:
    distiller = ps_kd(small(), PastSelf(20, CLASSES)).train()
    distiller.set_progress(Progress(epoch=0, max_epochs=2))
    batch = digits_batch()
    with pytest.raises(MatchError, match=r"built for 20 samples \(ids 0 to 19\), the batch has ids .* set num_samples"):
        distiller({**batch, "ids": batch["ids"] * 0 + 20})
    with pytest.raises(MatchError, match="ids 0 to 19"):
        distiller({**batch, "ids": batch["ids"] * 0 - 1})
    with pytest.raises(MatchError, match="PastSelf needs 'ids' of the batch"):
        distiller({name: value for name, value in batch.items() if name != "ids"})


def test_nothing_broken_is_remembered() -> None:
    student = nn.Linear(3, CLASSES)
    past = PastSelf(2, CLASSES)
    distiller = ps_kd(student, past).train()
    distiller.set_progress(Progress(epoch=0, max_epochs=2))
    with pytest.raises(NonFiniteError):
        distiller(torch.tensor([[0.0, torch.nan, 0.0]] * 2), torch.tensor([0, 1]), torch.arange(2))
    assert not past.seen.any()


def test_the_memory_is_in_the_checkpoint_and_not_among_the_weights() -> None:
    past = PastSelf(1200, CLASSES)
    distiller = ps_kd(small(), past, call=ImageCall()).train()
    distiller.set_progress(Progress(epoch=0, max_epochs=2))
    distiller(digits_batch())
    assert all(name.startswith("student.") for name in distiller.state_dict())
    other = ps_kd(small(1), PastSelf(1200, CLASSES))
    other.load_state_dict_extra(distiller.state_dict_extra())
    assert torch.equal(other.teachers["past"].bank, past.bank)
    assert torch.equal(other.teachers["past"].seen, past.seen)


class TestMixed:
    """Batches of mixup and CutMix."""

    def batch(self, ids: list[int], weight: float) -> dict[str, Any]:
        targets = torch.tensor([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]])
        n = len(ids)
        return {
            "targets": weight * targets[:n] + (1 - weight) * targets[:n].roll(1, 0),
            "ids": torch.tensor(ids),
            "mix_ids": torch.tensor(ids).roll(1, 0),
            "mix_weight": torch.full((n,), weight),
        }

    def test_the_past_is_mixed_like_the_label(self) -> None:
        past = MixedPastSelf(4, 3)
        past.observe({"ids": torch.tensor([2, 3])}, {"logits": torch.tensor([[0.0, 1.0, 2.0], [3.0, 0.0, 0.0]])})
        p = past.bank[[2, 3]]
        torch.testing.assert_close(past.recall(self.batch([2, 3], 0.7)), 0.7 * p + 0.3 * p.flip(0))

    def test_before_anything_was_seen_it_is_the_mixed_label(self) -> None:
        batch = self.batch([0, 1], 0.7)
        torch.testing.assert_close(MixedPastSelf(4, 3).recall(batch), batch["targets"])

    def test_an_image_is_remembered_as_what_it_mostly_shows(self) -> None:
        past, logits = MixedPastSelf(4, 3), torch.tensor([[0.0, 1.0, 2.0], [3.0, 0.0, 0.0]])
        past.observe(self.batch([0, 1], 0.4), {"logits": logits})
        assert not past.seen.any()
        past.observe({**self.batch([0, 1], 0.4), "mix_weight": torch.tensor([0.6, 0.4])}, {"logits": logits})
        assert past.seen.tolist() == [True, False, False, False]
        torch.testing.assert_close(past.bank[0], logits[0].softmax(0))

    def test_unmixed_batches_are_as_ever(self) -> None:
        past, plain = MixedPastSelf(4, 3), PastSelf(4, 3)
        batch = {"ids": torch.tensor([1, 0]), "targets": torch.tensor([2, 1])}
        for memory in (past, plain):
            memory.observe({"ids": torch.tensor([1])}, {"logits": torch.tensor([[1.0, 2.0, 3.0]])})
        assert torch.equal(past.recall(batch), plain.recall(batch))

    def test_a_mixed_batch_trains(self) -> None:
        past = MixedPastSelf(1200, CLASSES)
        distiller = ps_kd(small(), past).train()
        torch.manual_seed(0)
        for epoch in range(2):
            distiller.set_progress(Progress(epoch=epoch, max_epochs=2))
            batch = mix_batch(digits_batch(), num_classes=CLASSES, mixup=1.0)
            sum(distiller(batch).values()).backward()
        assert distiller.student.fc.weight.grad.abs().sum() > 0

    def test_without_ids_says_so(self) -> None:
        batch = self.batch([0, 1], 0.7)
        del batch["ids"], batch["mix_ids"]
        with pytest.raises(MatchError, match="PastSelf needs 'ids'"):
            MixedPastSelf(4, 3).recall(batch)
