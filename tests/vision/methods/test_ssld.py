"""SSLD: the symmetric loss, selection from a pool, data without labels, and the teacher on batch statistics."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from limbeck_core import Distiller, Match
from limbeck_core.build import build
from limbeck_core.engine import held_out_part
from limbeck_core.engine.config import load_config
from limbeck_core.errors import CheckpointError, DataError, MatchError, NonFiniteError, ShapeError
from limbeck_core.functional import generalized_jsd_loss
from limbeck_vision.data import Digits, Unlabelled
from limbeck_vision.methods.ssld import (
    BatchStatisticsTeacher,
    SelectedImages,
    SymmetricKLLoss,
    TopPerClass,
    WithDistractors,
    WithoutLabels,
    read_selection,
    score_images,
    select,
    select_per_class,
    symmetric_kl_loss,
    write_selection,
)
from limbeck_vision.models import ImageCall, resnet8, resnet8_quarter
from loss_contract import LossContract, randn


class TestSymmetricKLLoss(LossContract):
    function = staticmethod(symmetric_kl_loss)
    module = SymmetricKLLoss

    def inputs(self, batch: int = 4, dtype: torch.dtype = torch.float64) -> dict[str, Tensor]:
        return {
            "student_logits": 2 * randn(batch, 5, dtype=dtype),
            "teacher_logits": 2 * randn(batch, 5, seed=1, dtype=dtype),
        }

    def test_half_of_both_divergences(self) -> None:
        student, teacher = self.inputs().values()
        both = sum(generalized_jsd_loss(student, teacher, beta=beta) for beta in (0.0, 1.0))
        torch.testing.assert_close(symmetric_kl_loss(student, teacher), both / 2)

    def test_published_form_with_its_epsilon(self) -> None:
        student, teacher = self.inputs().values()
        p, q = student.softmax(1), teacher.softmax(1)
        terms = q * ((q + 1e-12) / (p + 1e-12)).log() + p * ((p + 1e-12) / (q + 1e-12)).log()
        torch.testing.assert_close(symmetric_kl_loss(student, teacher), terms.sum(1).mean() / 2)

    def test_symmetric_in_value(self) -> None:
        student, teacher = self.inputs().values()
        torch.testing.assert_close(symmetric_kl_loss(student, teacher), symmetric_kl_loss(teacher, student))

    def test_a_class_banned_by_both_costs_nothing(self) -> None:
        student, teacher = self.inputs().values()
        banned = [torch.cat([z, torch.full((4, 1), -torch.inf)], 1) for z in (student, teacher)]
        leaf = banned[0].clone().requires_grad_()
        loss = symmetric_kl_loss(leaf, banned[1])
        loss.backward()
        torch.testing.assert_close(loss.detach(), symmetric_kl_loss(student, teacher))
        assert torch.isfinite(leaf.grad).all()  # type: ignore[arg-type]

    def test_maps_and_masks(self) -> None:
        student, teacher = randn(2, 5, 3), randn(2, 5, 3, seed=1)
        mask = torch.tensor([[True, False, False], [False, False, False]])
        torch.testing.assert_close(
            symmetric_kl_loss(student, teacher, mask=mask), symmetric_kl_loss(student[:1, :, 0], teacher[:1, :, 0])
        )

    def test_a_teacher_of_other_classes_is_refused(self) -> None:
        with pytest.raises(ShapeError, match="same classes in the same order"):
            symmetric_kl_loss(randn(2, 5), randn(2, 7))
        with pytest.raises(MatchError, match="10 classes at 'student:fc', the teacher 7"):
            Distiller(
                resnet8_quarter(),
                resnet8(num_classes=7),
                {"ssld": Match(SymmetricKLLoss(), "fc", "fc")},
                call=ImageCall(),
            )


class TestSelection:
    def test_at_most_k_of_each_predicted_class_and_the_surest(self) -> None:
        probabilities = randn(200, 5).mul(3).softmax(1)
        chosen = select_per_class(probabilities, 7)
        predicted = probabilities.argmax(1)
        assert chosen.tolist() == sorted(set(chosen.tolist()))
        for label in range(5):
            members = (predicted == label).nonzero().flatten()
            mine = [i for i in chosen.tolist() if predicted[i] == label]
            best = members[probabilities[members, label].argsort(descending=True)][:7]
            assert sorted(mine) == sorted(best.tolist())

    def test_ties_go_to_the_earlier_image_and_class(self) -> None:
        assert select_per_class(torch.full((4, 2), 0.5), 2).tolist() == [0, 1]

    def test_small_classes_give_all_and_an_empty_pool_nothing(self) -> None:
        assert select_per_class(torch.tensor([[0.9, 0.1], [0.8, 0.2], [0.3, 0.7]]), 5).tolist() == [0, 1, 2]
        assert select_per_class(torch.zeros(0, 3), 5).tolist() == []

    def test_bad_input(self) -> None:
        with pytest.raises(ValueError, match="per_class must be 1 or more"):
            select_per_class(torch.zeros(2, 3), 0)
        with pytest.raises(ShapeError, match=r"probabilities must have shape \(P, C\)"):
            select_per_class(torch.zeros(3), 1)
        with pytest.raises(NonFiniteError, match="probabilities"):
            select_per_class(torch.full((2, 3), torch.nan), 1)

    def test_scores_are_those_of_the_model_in_evaluation_mode(self) -> None:
        torch.manual_seed(0)
        model, data = resnet8(num_classes=10), held_out_part(Digits(channels=3), count=9, held_out=True)
        model.train()
        scores = score_images(model, data, batch_size=4)
        assert model.training
        images = torch.stack([data[i]["inputs"] for i in range(9)])
        call = ImageCall()
        expected = call.predict(model.eval(), {"inputs": images}, "inputs").softmax(1)
        torch.testing.assert_close(scores, expected.detach())

    def test_files(self, tmp_path: Path) -> None:
        write_selection(tmp_path / "new" / "chosen.txt", torch.tensor([3, 1]))
        assert read_selection(tmp_path / "new" / "chosen.txt").tolist() == [3, 1]
        (tmp_path / "bad.txt").write_text("1\nx\n", encoding="utf-8")
        with pytest.raises(DataError, match="one image number a line, got 'x'"):
            read_selection(tmp_path / "bad.txt")
        with pytest.raises(DataError, match=r"there is no selection .*limbeck_vision.methods.ssld.select"):
            read_selection(tmp_path / "absent.txt")


class TestData:
    def test_without_labels_joins_and_renumbers(self) -> None:
        first, second = (held_out_part(Digits(channels=3), count=200, held_out=True, seed=seed) for seed in (0, 1))
        joined = WithoutLabels([first, second], transform=lambda image: 1 - image)
        assert len(joined) == 400
        assert joined.class_counts == ()
        sample = joined[250]
        assert sample.keys() == {"inputs", "ids"}
        assert sample["ids"] == 250
        torch.testing.assert_close(sample["inputs"], 1 - second.image(50))
        torch.testing.assert_close(joined.image(199), first.image(199))
        with pytest.raises(IndexError):
            joined.image(400)
        with pytest.raises(DataError, match="no image together"):
            WithoutLabels([])

    def test_distractors_follow_the_images(self) -> None:
        data = held_out_part(Digits(channels=3), count=20, held_out=True)
        pool = WithDistractors(data)
        assert len(pool) == 40
        torch.testing.assert_close(pool.image(3), data.image(3))
        assert all(float((pool.image(20 + i) - data.image(j)).abs().max()) > 0 for i in range(5) for j in range(5))
        assert torch.equal(pool[30]["inputs"], WithDistractors(data)[30]["inputs"])

    def test_top_per_class_takes_what_the_teacher_is_surest_of(self) -> None:
        torch.manual_seed(0)
        model, pool = resnet8(num_classes=10), held_out_part(Digits(channels=3), count=50, held_out=True)
        chosen = TopPerClass(pool, teacher=model, per_class=3)
        assert chosen.indices.tolist() == select_per_class(score_images(model, pool), 3).tolist()

    def test_selected_images_of_a_folder(self, tmp_path: Path) -> None:
        for number in range(4):
            Image.fromarray(np.full((5, 5, 3), 10 * number, np.uint8)).save(tmp_path / f"{number}.png")
        write_selection(tmp_path / "selection.txt", [3, 1])
        chosen = SelectedImages(tmp_path, "selection.txt")
        assert [round(255 * float(chosen[i]["inputs"][0, 0, 0])) for i in range(2)] == [30, 10]
        assert len(SelectedImages(tmp_path, None)) == 4
        write_selection(tmp_path / "selection.txt", [4])
        with pytest.raises(DataError, match="between 0 and 3, got 4"):
            SelectedImages(tmp_path, "selection.txt")

    def test_the_command_scores_a_pool(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        draw = np.random.RandomState(0)
        for number in range(5):
            Image.fromarray(draw.randint(0, 256, (9, 9, 3)).astype(np.uint8)).save(tmp_path / f"{number}.png")
        torch.manual_seed(0)
        torch.save(resnet8(num_classes=10).state_dict(), tmp_path / "teacher.pth")
        (tmp_path / "config.py").write_text(
            "from limbeck_core import pretrained\nfrom limbeck_vision.models import resnet8\n"
            f"model = dict(teacher=dict(type=pretrained, model=dict(type=resnet8, num_classes=10), "
            f"checkpoint={str(tmp_path / 'teacher.pth')!r}))\n",
            encoding="utf-8",
        )
        out = tmp_path / "selection.txt"
        words = [str(tmp_path / "config.py"), str(tmp_path), "--per-class", "1", "--size", "8", "--out", str(out)]
        assert select.main([*words, "--device", "cpu"]) == 0
        assert "of 5 images" in capsys.readouterr().out
        assert 1 <= len(read_selection(out)) <= 5
        assert len(Unlabelled(tmp_path)) == 5
        assert select.main(["vision/ssld/digits_plain", str(tmp_path), "--per-class", "1"]) == 2
        assert "has no teacher" in capsys.readouterr().err


class TestTeacher:
    def model(self) -> nn.Module:
        torch.manual_seed(0)
        return resnet8(num_classes=10, normalization=None)

    def test_it_normalises_by_the_batch_and_remembers_nothing(self) -> None:
        model = self.model()
        images = 5 * torch.rand(4, 3, 8, 8)
        plain = model.eval()(images).detach()
        before = {name: value.clone() for name, value in model.state_dict().items()}
        teacher = BatchStatisticsTeacher(model)
        said = teacher(images)
        assert not torch.allclose(said, plain)
        assert not torch.allclose(teacher(images[:2]), said[:2])
        assert all(torch.equal(value, before[name]) for name, value in teacher.model.state_dict().items())
        torch.testing.assert_close(said, self.model().train()(images).detach())

    def test_it_keeps_its_mode_and_reads_a_file(self, tmp_path: Path) -> None:
        teacher = BatchStatisticsTeacher(self.model())
        images = torch.rand(4, 3, 8, 8)
        said = teacher(images)
        teacher.model.eval()
        torch.testing.assert_close(teacher(images), said)
        torch.save(self.model().state_dict(), tmp_path / "teacher.pth")
        config = {"type": resnet8, "num_classes": 10, "normalization": None}
        torch.testing.assert_close(BatchStatisticsTeacher(config, str(tmp_path / "teacher.pth"))(images), said)
        with pytest.raises(CheckpointError):
            BatchStatisticsTeacher(config, str(tmp_path / "absent.pth"))


def test_a_step_without_labels() -> None:
    model = load_config("vision/ssld/digits").model
    model.teacher = dict(type=resnet8, num_classes=10, normalization=None)
    distiller = build(model).train()
    losses = distiller({"inputs": torch.rand(4, 3, 8, 8), "ids": torch.arange(4)})
    assert losses.keys() == {"loss/ssld"}
    losses["loss/ssld"].backward()
    assert all(parameter.grad is not None for parameter in distiller.student.parameters())
