"""What is kept and under which ids, the weight that goes with it, the scores by their definitions, and the theorem."""

from __future__ import annotations

import math
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from limbeck_core.engine import held_out_part
from limbeck_core.errors import ConfigError, DataError, ShapeError, TargetError
from limbeck_core.schedules import Complement, Progress
from limbeck_vision.data import Digits, ImageArray, Subset, Unlabelled
from limbeck_vision.methods.data_pruning import (
    Pruned,
    PruningWeight,
    distilled_ridge,
    el2n_scores,
    entropy_scores,
    forgetting_scores,
    grand_scores,
    herding_order,
    margin_scores,
    read_scores,
    ridge_solution,
    scoring,
    write_scores,
)
from loss_contract import labels, randn


def skewed() -> ImageArray:
    """Forty images of class 0, nine of class 1, one of class 2."""
    targets = np.repeat([0, 1, 2], [40, 9, 1])
    return ImageArray(np.zeros((50, 1, 2, 2), dtype=np.uint8), targets, ["a", "b", "c"])


@pytest.mark.parametrize("scores", [None, "mapping"])
@pytest.mark.parametrize("balanced", [True, False])
def test_ids_labels_and_images_stay_those_of_the_whole(scores: Any, balanced: bool) -> None:
    whole = Subset(Digits(label_noise=0.3), list(range(1199, 199, -1)))
    by_id = {identity: float((identity * 37) % 100) for identity in range(1200)} if scores else None
    part = Pruned(whole, fraction=0.1, scores=by_id, balanced=balanced)
    assert len(part) == 100
    assert len(set(part.ids.tolist())) == 100
    reference = {sample["ids"]: sample for sample in (whole[position] for position in range(len(whole)))}
    for sample in (part[position] for position in range(len(part))):
        assert sample["targets"] == reference[sample["ids"]]["targets"]
        assert torch.equal(sample["inputs"], reference[sample["ids"]]["inputs"])


@pytest.mark.parametrize("fraction", [0.01, 0.1, 1 / 3, 0.5, 0.77, 1.0])
@pytest.mark.parametrize("balanced", [True, False])
def test_how_many_are_kept(fraction: float, balanced: bool) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a hundredth by chance may miss a class
        part = Pruned(Digits(), fraction=fraction, balanced=balanced)
    assert len(part) == round(fraction * 1200)
    if balanced:
        expected = fraction * np.asarray(Digits().class_counts)
        assert np.abs(np.asarray(part.class_counts) - expected).max() < 1


def test_chance_depends_on_the_seed_and_on_nothing_else() -> None:
    first, again, other = (Pruned(Digits(), fraction=0.2, seed=seed).ids.tolist() for seed in (0, 0, 1))
    assert first == again != other


def test_chance_keeps_wrong_labels_in_their_share() -> None:
    noisy, clean = Digits(label_noise=0.4), Digits()
    part = Pruned(noisy, fraction=0.3, balanced=False)
    assert float((part.targets != clean.targets[part.ids]).mean()) == pytest.approx(0.4, abs=0.08)


def test_scores_keep_the_hardest_or_the_easiest() -> None:
    scores = {identity: float(identity) for identity in range(1200)}
    hardest = Pruned(Digits(), fraction=0.25, scores=scores, balanced=False)
    easiest = Pruned(Digits(), fraction=0.25, scores=scores, balanced=False, keep="easiest")
    assert hardest.ids.tolist() == list(range(900, 1200))
    assert easiest.ids.tolist() == list(range(300))
    balanced = Pruned(Digits(), fraction=0.25, scores=scores)
    for label in range(10):
        kept = balanced.ids[balanced.targets == label]
        everyone = Digits().ids[Digits().targets == label]
        assert kept.tolist() == everyone[len(everyone) - len(kept) :].tolist()


def test_equal_scores_are_ordered_by_chance() -> None:
    parts = [Pruned(Digits(), fraction=0.1, scores=dict.fromkeys(range(1200), 1.0), seed=seed) for seed in (0, 1)]
    assert parts[0].ids.tolist() != parts[1].ids.tolist()
    assert parts[0].ids.tolist() == Pruned(Digits(), fraction=0.1).ids.tolist()


def test_a_class_of_which_nothing_is_left_is_named() -> None:
    with pytest.warns(UserWarning, match=r"1 of 3 classes have no sample left at fraction 0.1: c\."):
        part = Pruned(skewed(), fraction=0.1)
    assert (part.class_counts, part.absent) == ((4, 1, 0), ("c",))


def test_pruning_what_was_not_held_out(tmp_path: Path) -> None:
    write_scores(tmp_path / "s.npz", np.arange(1200), np.arange(1200) / 7)
    rest = held_out_part(Digits(), count=300, held_out=False)
    part = Pruned(rest, fraction=0.1, scores=tmp_path / "s.npz", balanced=False)
    assert part.ids.tolist() == sorted(rest.ids.tolist())[-90:]


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"fraction": 0.0}, ValueError, "above 0 and at most at 1"),
        ({"fraction": 1.1}, ValueError, "above 0 and at most at 1"),
        ({"fraction": 1e-4}, ValueError, "keeps none"),
        ({"fraction": 0.5, "keep": "hard"}, ValueError, "'hardest' or 'easiest'"),
        ({"fraction": 0.5, "scores": {3: 1.0}}, DataError, r"1199 of 1200 samples have no score \(first: id 0\)"),
        ({"fraction": 0.5, "scores": dict.fromkeys(range(1200), math.nan)}, DataError, "finite"),
        ({"fraction": 0.5, "scores": "nowhere.npz"}, DataError, "holds no scores"),
    ],
)
def test_what_does_not_fit_is_refused(options: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        Pruned(Digits(), **options)


def test_a_set_without_labels_is_pruned_without_balance(tmp_path: Path) -> None:
    for number in range(4):
        Image.new("RGB", (4, 4), (number, 0, 0)).save(tmp_path / f"{number}.png")
    with pytest.raises(DataError, match="balanced=False"):
        Pruned(Unlabelled(tmp_path), fraction=0.5)
    assert len(Pruned(Unlabelled(tmp_path), fraction=0.5, balanced=False)) == 2


def test_scores_come_back_from_their_file(tmp_path: Path) -> None:
    write_scores(tmp_path / "s.npz", [5, 2], [0.5, -1.0])
    assert read_scores(tmp_path / "s.npz") == {5: 0.5, 2: -1.0}
    with pytest.raises(DataError, match="one length"):
        write_scores(tmp_path / "s.npz", [5], [0.5, -1.0])
    np.savez(tmp_path / "pickle.npz", ids=np.asarray([object()]), scores=[1.0])
    with pytest.raises(DataError, match="holds no scores"):
        read_scores(tmp_path / "pickle.npz")


def test_the_weight_rises_as_the_fraction_falls() -> None:
    weights = [PruningWeight(fraction)(Progress(step=9)) for fraction in (1.0, 0.5, 0.1)]
    assert weights == pytest.approx([0.5, 0.75, 0.95])
    assert Complement(PruningWeight(0.1))(Progress()) == pytest.approx(0.05)
    with pytest.raises(ValueError, match="above 0"):
        PruningWeight(0.0)


def test_el2n_grand_margin_and_entropy_of_one_sample_by_hand() -> None:
    logits, target = torch.tensor([[2.0, 1.0, 0.0]]).log(), torch.tensor([1])  # probabilities 2/3, 1/3, 0
    assert el2n_scores(logits, target).item() == pytest.approx(math.hypot(2 / 3, 2 / 3))
    assert margin_scores(logits, target).item() == pytest.approx(1 / 3)
    assert grand_scores(logits, target, torch.tensor([[2.0, 2.0]])).item() == pytest.approx(2 * math.sqrt(2))
    even = torch.zeros(1, 4)
    assert entropy_scores(even, target).item() == pytest.approx(math.log(4))


def test_grand_is_the_length_of_the_last_layers_gradient() -> None:
    torch.manual_seed(0)
    layer, embeddings, targets = nn.Linear(6, 5).double(), randn(8, 6), labels(8, 5)
    lengths = []
    for row, target in zip(embeddings, targets, strict=True):
        layer.zero_grad()
        nn.functional.cross_entropy(layer(row[None]), target[None]).backward()
        lengths.append(torch.cat([parameter.grad.flatten() for parameter in layer.parameters()]).norm())
    found = grand_scores(layer(embeddings).detach(), targets, embeddings)
    torch.testing.assert_close(found, torch.stack(lengths))


@pytest.mark.parametrize("score", [el2n_scores, margin_scores, entropy_scores])
def test_scores_of_several_models_are_means(score: Any) -> None:
    logits, targets = randn(3, 7, 4), labels(7, 4)
    alone = torch.stack([score(one, targets) for one in logits])
    torch.testing.assert_close(score(logits, targets), alone.mean(0))
    with pytest.raises(TargetError):
        score(logits, targets + 3)
    with pytest.raises(ShapeError):
        score(logits, targets[:-1])


def test_forgetting_events() -> None:
    looks = torch.tensor([[1, 0, 1, 0], [0, 0, 1, 1], [1, 0, 1, 0], [0, 0, 1, 1]], dtype=torch.bool)
    assert forgetting_scores(looks).tolist() == [2.0, 4.0, 0.0, 1.0], "never learnt counts as the hardest"
    both = forgetting_scores(torch.stack([looks, torch.ones_like(looks)]))
    assert both.tolist() == [1.0, 2.0, 0.0, 0.5]
    with pytest.raises(ShapeError, match="boolean"):
        forgetting_scores(looks.long())


def test_herding_follows_the_mean() -> None:
    embeddings = randn(40, 3)
    order = herding_order(embeddings)
    assert sorted(order.tolist()) == list(range(40))
    mean = embeddings.mean(0)
    assert int(order[0]) == int((embeddings - mean).norm(dim=1).argmin())

    def distance(chosen: Tensor) -> float:
        return (embeddings[chosen].mean(0) - mean).norm().item()

    by_chance = [distance(torch.randperm(40, generator=torch.Generator().manual_seed(s))[:10]) for s in range(50)]
    assert distance(order[:10]) < 0.3 * sum(by_chance) / len(by_chance)


SHORT = {"train_cfg.max_epochs": 2, "param_scheduler.T_max": 2}


def test_a_config_is_scored(tmp_path: Path) -> None:
    ids, scores = scoring.score("vision/data_pruning/digits_whole", seeds=1, work_dir=tmp_path, overrides=SHORT)
    assert ids.tolist() == Digits().ids.tolist()
    assert bool(((scores >= 0) & (scores <= math.sqrt(2) + 1e-9)).all())
    assert len(scores.unique()) > 1000
    write_scores(tmp_path / "s.npz", ids.numpy(), scores.numpy())
    part = Pruned(Digits(), fraction=0.1, scores=tmp_path / "s.npz", balanced=False)
    assert set(part.ids.tolist()) == set(ids[scores.argsort(descending=True)[:120]].tolist())


def test_every_score_is_made_of_the_looks() -> None:
    looks = {"logits": randn(2, 3, 9, 4), "embeddings": randn(2, 3, 9, 5), "targets": labels(9, 4)}
    for kind, function in scoring.SCORES.items():
        assert function(looks).shape == (9,), kind
    best = int(scoring.SCORES["herding"](looks).argmax())
    assert best == int(herding_order(looks["embeddings"][:, -1].mean(0))[0])


def test_the_command_says_what_is_wrong(capsys: pytest.CaptureFixture[str]) -> None:
    assert scoring.main(["vision/data_pruning/digits_whole", "--seeds", "0"]) == 2
    assert "one seed or more" in capsys.readouterr().err
    with pytest.raises(ConfigError, match="did you mean 'el2n'"):
        scoring.score("vision/data_pruning/digits_whole", "el2")


def test_a_teacher_of_more_data_makes_a_better_student() -> None:
    """The theorem, by simulation: mean excess error over 200 draws falls with the teacher's fraction."""
    generator = torch.Generator().manual_seed(0)
    errors = torch.zeros(4, dtype=torch.float64)
    for _ in range(200):
        truth = torch.randn(10, generator=generator, dtype=torch.float64)
        inputs = torch.randn(200, 10, generator=generator, dtype=torch.float64)
        targets = inputs @ truth + 2.0 * torch.randn(200, generator=generator, dtype=torch.float64)
        for index, share in enumerate((0.1, 0.2, 0.5, 1.0)):
            student = distilled_ridge(inputs, targets, fraction=0.1, teacher_fraction=share, weight=0.8, ridge=1.0)
            errors[index] += (student - truth).square().sum() / 200
    assert bool((errors.diff() < 0).all()), errors
    assert errors[-1] < 0.5 * errors[0]


def test_without_a_teacher_it_is_ridge_regression() -> None:
    inputs, targets = randn(30, 4), randn(30, seed=1)
    student = distilled_ridge(inputs, targets, fraction=0.5, teacher_fraction=1.0, weight=0.0, ridge=0.3)
    torch.testing.assert_close(student, ridge_solution(inputs[:15], targets[:15], ridge=0.3))
    for options, message in (({"fraction": 0.0}, "fraction"), ({"weight": 2.0}, "weight"), ({"ridge": 0.0}, "ridge")):
        good = {"fraction": 0.5, "teacher_fraction": 1.0, "weight": 0.5, "ridge": 1.0}
        with pytest.raises(ValueError, match=message):
            distilled_ridge(inputs, targets, **{**good, **options})
    with pytest.raises(ShapeError):
        ridge_solution(inputs, targets[:3], ridge=1.0)
