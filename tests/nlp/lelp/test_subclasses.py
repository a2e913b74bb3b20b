"""LELP: what the split must fulfil whatever the data, and the limits in which it is distillation as usual."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from limbeck_core import Distiller, Match, Tap
from limbeck_core.calls import MappingCall
from limbeck_core.errors import ConfigError, DataError, MatchError, ShapeError
from limbeck_core.functional import soft_target_cross_entropy_loss
from limbeck_core.losses import SoftTargetCrossEntropyLoss
from limbeck_nlp.data import GrammarIntents, pad_batch
from limbeck_nlp.lelp import SubclassTargets, WithSubclasses, merge_subclasses
from limbeck_nlp.lelp.__main__ import main
from limbeck_nlp.models import transformer


@pytest.fixture
def data() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    target = torch.arange(60) % 2
    return torch.randn(60, 8) + target[:, None], target, torch.randn(2, 8)


def test_subclasses_sum_to_their_class(data: tuple[torch.Tensor, ...]) -> None:
    states, target, weight = data
    logits = states @ weight.T
    q = SubclassTargets(2, 3, 8).fit(states, target, weight)([states, logits])
    assert q.shape == (60, 6)
    torch.testing.assert_close(q.sum(1), torch.ones(60))
    torch.testing.assert_close(q.view(60, 2, 3).sum(2), logits.softmax(1))


def test_nothing_is_left_of_what_the_classifier_reads(data: tuple[torch.Tensor, ...]) -> None:
    states, target, weight = data
    fitted = SubclassTargets(2, 3, 8).fit(states, target, weight)
    assert torch.einsum("kd,cds->kcs", weight, fitted.projection).abs().max() < 1e-4
    assert (
        torch.einsum("kd,cds->kcs", weight, SubclassTargets(2, 3, 8).fit(states, target).projection).abs().max() > 0.1
    )


def test_one_direction_is_distillation_as_usual(data: tuple[torch.Tensor, ...]) -> None:
    states, target, weight = data
    logits, student = states @ weight.T, torch.randn(60, 2)
    q = SubclassTargets(2, 1, 8).fit(states, target, weight)([states, logits])
    ours = soft_target_cross_entropy_loss(student, q)
    torch.testing.assert_close(ours, soft_target_cross_entropy_loss(student, logits.softmax(1)))


def test_softness_goes_from_hard_to_even(data: tuple[torch.Tensor, ...]) -> None:
    states, target, _ = data
    logits = torch.zeros(60, 2)
    for beta, low, high in ((1e-4, 0.97, 1.0), (1e4, 1 / 3, 0.34)):
        q = SubclassTargets(2, 3, 8, beta=beta).fit(states, target)([states, logits])
        largest = 2 * q.view(60, 2, 3).amax(2)
        assert low <= largest.mean().item() <= high + 1e-6


def test_scores_have_unit_spread_and_alike(data: tuple[torch.Tensor, ...]) -> None:
    states, target, weight = data
    fitted = SubclassTargets(2, 3, 8).fit(states, target, weight)
    for label in range(2):
        rows = states[target == label]
        z = rows @ fitted.projection[label] - fitted.offset[label]
        assert z.mean(0).abs().max() < 1e-5
        assert z.std(0, correction=0).mean().item() == pytest.approx(1, abs=1e-5)


def test_a_seed_decides_the_rotation(data: tuple[torch.Tensor, ...]) -> None:
    states, target, _ = data
    same, again, other, random = (
        SubclassTargets(2, 3, 8).fit(states, target, seed=seed, kind=kind).projection  # type: ignore[arg-type]
        for seed, kind in ((0, "principal"), (0, "principal"), (1, "principal"), (0, "random"))
    )
    assert torch.equal(same, again)
    assert not torch.allclose(same, other)
    # rotated or not, the principal directions span one space; random ones another
    spans = [torch.linalg.qr(p[0].double()).Q for p in (same, other, random)]
    torch.testing.assert_close(spans[0] @ spans[0].T, spans[1] @ spans[1].T, atol=1e-5, rtol=0)
    assert not torch.allclose(spans[0] @ spans[0].T, spans[2] @ spans[2].T, atol=0.1)


def test_a_class_of_few_samples_and_constant_embeddings_split_evenly() -> None:
    states, target = torch.ones(10, 4), torch.tensor([0] * 9 + [1])
    q = SubclassTargets(2, 3, 4).fit(states, target)([states, torch.zeros(10, 2)])
    torch.testing.assert_close(q, torch.full((10, 6), 1 / 6))


def test_class_scores_are_the_sums_of_their_parts() -> None:
    scores = torch.randn(4, 6)
    torch.testing.assert_close(merge_subclasses(scores, 2).softmax(1), scores.softmax(1).view(4, 2, 3).sum(2))
    with pytest.raises(ShapeError, match=r"shape \(N, 4 \* S\)"):
        merge_subclasses(scores, 4)


def test_errors(data: tuple[torch.Tensor, ...]) -> None:
    states, target, weight = data
    with pytest.raises(MatchError, match="never fitted"):
        SubclassTargets(2, 3, 8)([states, weight])
    with pytest.raises(ConfigError, match="leaves 6, less than the 7 asked for"):
        SubclassTargets(2, 7, 8).fit(states, target, weight)
    with pytest.raises(DataError, match="class 2 has no sample"):
        SubclassTargets(3, 2, 8).fit(states, target)
    with pytest.raises(ConfigError, match="at least 2 classes and 1 to 8 directions"):
        SubclassTargets(2, 9, 8)
    with pytest.raises(ShapeError, match=r"expects embeddings \(N, 8\) and logits \(N, 2\)"):
        SubclassTargets(2, 3, 8).fit(states, target)([states, torch.zeros(60, 3)])


def test_it_is_a_match_and_its_file_is_read_back(tmp_path: Path) -> None:
    shape = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    build = {"task": "sequence_classification", "model_type": "bert", "vocab_size": 160, **shape}
    teacher, student = transformer(**build, num_labels=8), WithSubclasses(transformer(**build, num_labels=24), 8)
    sentences = GrammarIntents(size=32)
    batch = pad_batch([sentences[i] for i in range(32)])
    fitted = SubclassTargets(8, 3, 16)
    with torch.no_grad():
        states = teacher.eval().bert(**batch["inputs"]).pooler_output
    fitted.fit(states, torch.arange(32) % 8)
    torch.save(fitted.state_dict(), tmp_path / "lelp.pth")
    match = Match(
        SoftTargetCrossEntropyLoss(),
        Tap("", pick="subclass_scores"),
        [Tap("classifier", at="input"), Tap("", pick="logits")],
        teacher_adapter=SubclassTargets(8, 3, 16, checkpoint=tmp_path / "lelp.pth"),
    )
    model = Distiller(student, teacher, {"lelp": match}, call=MappingCall(labels=None))
    loss = model(batch)["loss/lelp"]
    loss.backward()
    assert loss.item() > 0
    assert model(batch, mode="predict").shape == (32, 8)
    with torch.device("meta"):
        SubclassTargets(8, 3, 16, checkpoint=tmp_path / "absent.pth")


def test_the_behaviour_check_runs(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--seeds", "1", "--epochs", "1"]) == 0
    assert "random directions" in capsys.readouterr().out
