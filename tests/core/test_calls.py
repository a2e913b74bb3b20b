"""Three families of models through one protocol, on stand-ins with the families' own signatures."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from mmengine.model import BaseDataPreprocessor, BaseModel
from mmengine.registry import MODELS
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from limbeck_core import Distiller, MappingCall, Match, OpenMMLabCall, TensorCall, openmmlab
from limbeck_core.errors import ConfigError, MatchError
from limbeck_core.functional import kl_divergence_loss
from limbeck_core.losses import KLDivergenceLoss


class Encoder(nn.Module):
    """Called like a transformers model."""

    def __init__(self, width: int = 4) -> None:
        super().__init__()
        self.embed = nn.Embedding(11, width)
        self.head = nn.Linear(width, 3)

    def forward(self, input_ids: Tensor, attention_mask: Tensor, labels: Tensor | None = None) -> Any:
        h = (self.embed(input_ids) * attention_mask.unsqueeze(-1)).mean(1)
        logits = self.head(h)
        output = {"logits": logits}
        if labels is not None:
            output["loss"] = cross_entropy(logits, labels)
        return output


def tokens() -> dict[str, Tensor]:
    return {"input_ids": torch.randint(0, 11, (4, 6)), "attention_mask": torch.ones(4, 6)}


def kd() -> dict[str, Match]:
    return {"kd": Match(KLDivergenceLoss(), "head", "head")}


class TestMappingCall:
    def test_view_is_a_mapping(self) -> None:
        student, teacher, x, y = Encoder(), Encoder(8), tokens(), torch.tensor([0, 1, 2, 0])
        losses = Distiller(student, teacher, kd(), call=MappingCall())(inputs=x, targets=y)
        torch.testing.assert_close(losses["loss/task"], cross_entropy(student(**x)["logits"], y))
        torch.testing.assert_close(
            losses["loss/kd"], kl_divergence_loss(student(**x)["logits"], teacher(**x)["logits"])
        )

    def test_flat_batch_of_a_collator(self) -> None:
        student, x, y = Encoder(), tokens(), torch.tensor([0, 1, 2, 0])
        distiller = Distiller(student, Encoder(8), kd(), call=MappingCall(("input_ids", "attention_mask")))
        losses = distiller(**x, labels=y)
        torch.testing.assert_close(losses["loss/task"], cross_entropy(student(**x)["logits"], y))
        torch.testing.assert_close(distiller(**x, mode="predict"), student(**x)["logits"])

    def test_task_loss_instead_of_the_models_own(self) -> None:
        x, y = tokens(), torch.tensor([0, 1, 2, 0])
        distiller = Distiller(Encoder(), Encoder(8), kd(), call=MappingCall(), task_loss=nn.CrossEntropyLoss())
        assert set(distiller(inputs=x, targets=y)) == {"loss/task", "loss/kd"}

    def test_without_labels_only_the_matches(self) -> None:
        assert set(Distiller(Encoder(), Encoder(8), kd(), call=MappingCall())(inputs=tokens())) == {"loss/kd"}

    def test_tensor_where_a_mapping_belongs(self) -> None:
        with pytest.raises(MatchError, match=r"needs a mapping there, got Tensor: .*MappingCall\(arguments=\.\.\.\)"):
            Distiller(Encoder(), None, call=MappingCall())(inputs=torch.zeros(2, 3))

    def test_output_without_the_key(self) -> None:
        with pytest.raises(MatchError, match="output of Encoder has no 'logit': did you mean 'logits'"):
            Distiller(Encoder(), None, call=MappingCall(output="logit"))(inputs=tokens(), mode="predict")


@dataclass
class Sample:
    label: int
    touched: int = 0


class Scale(BaseDataPreprocessor):
    """A preprocessor that normalises its own way and, like mmdet's, writes into the data samples."""

    def __init__(self, factor: float) -> None:
        super().__init__()
        self.factor = factor

    def forward(self, data: dict[str, Any], training: bool = False) -> dict[str, Any]:
        for sample in data["data_samples"]:
            sample.touched += 1
        return {"inputs": torch.stack(list(data["inputs"])) * self.factor, "data_samples": data["data_samples"]}


@MODELS.register_module(name="LimbeckTestDetector")
class Detector(BaseModel):
    def __init__(self, width: int = 4, factor: float = 1.0) -> None:
        super().__init__(data_preprocessor=Scale(factor))
        self.backbone = nn.Linear(5, width)
        self.head = nn.Linear(width, 3)
        self.modes: list[str] = []

    def forward(self, inputs: Tensor, data_samples: list[Sample], mode: str = "tensor") -> Any:
        self.modes.append(mode)
        logits = self.head(self.backbone(inputs))
        if mode == "loss":
            target = torch.tensor([sample.label for sample in data_samples])
            return {"loss_cls": [cross_entropy(logits, target), logits.square().mean()], "acc": torch.tensor(0.5)}
        return logits


def samples() -> dict[str, Any]:
    return {"inputs": list(torch.randn(4, 5)), "data_samples": [Sample(i % 3) for i in range(4)]}


class TestOpenMMLabCall:
    def test_each_model_preprocesses_for_itself_and_the_teacher_needs_no_loss(self) -> None:
        student, teacher, batch = Detector(factor=2.0), Detector(8, factor=3.0), samples()
        distiller = Distiller(student, teacher, kd(), call=OpenMMLabCall())
        losses = distiller(**batch)
        x = torch.stack(batch["inputs"])
        expected = kl_divergence_loss(student.head(student.backbone(2 * x)), teacher.head(teacher.backbone(3 * x)))
        torch.testing.assert_close(losses["loss/kd"], expected)
        assert set(losses) == {"loss_cls", "acc", "loss/kd"}
        assert losses["loss_cls"].ndim == 0
        assert (student.modes, teacher.modes) == (["loss"], ["tensor"])

    def test_data_samples_are_not_touched_twice(self) -> None:
        batch = samples()
        Distiller(Detector(), Detector(8), kd(), call=OpenMMLabCall())(**batch)
        assert [sample.touched for sample in batch["data_samples"]] == [0, 0, 0, 0]

    def test_task_loss_has_no_place(self) -> None:
        with pytest.raises(MatchError, match="brings its own losses: leave task_loss out"):
            Distiller(Detector(), None, call=OpenMMLabCall(), task_loss=nn.CrossEntropyLoss())(**samples())

    def test_total_is_what_mmengine_would_sum(self) -> None:
        distiller = Distiller(Detector(), Detector(8), kd(), call=OpenMMLabCall())
        losses = distiller(**samples())
        total, _ = distiller.parse_losses(losses)
        torch.testing.assert_close(total, losses["loss_cls"] + losses["loss/kd"])


class TestOpenMMLabBuilder:
    def write(self, folder: Path, text: str) -> Path:
        (folder / "model.py").write_text(text)
        return folder / "model.py"

    def test_string_types_and_checkpoint(self, tmp_path: Path) -> None:
        config = self.write(tmp_path, "model = dict(type='LimbeckTestDetector', width=6, factor=2.0)\n")
        source = openmmlab(config)
        torch.save({"state_dict": source.state_dict(), "meta": {"epoch": 1}}, tmp_path / "w.pth")
        model = openmmlab(config, tmp_path / "w.pth", overrides={"model.factor": 5.0})
        assert torch.equal(model.head.weight, source.head.weight)
        assert model.data_preprocessor.factor == 5.0

    def test_missing_file(self, tmp_path: Path) -> None:
        with pytest.raises(ConfigError, match="there is no config file"):
            openmmlab(tmp_path / "none.py")

    def test_config_without_a_model(self, tmp_path: Path) -> None:
        with pytest.raises(ConfigError, match=r"has no 'model'.*got keys \['lr'\]"):
            openmmlab(self.write(tmp_path, "lr = 1\n"))

    def test_unknown_type_names_the_scope(self, tmp_path: Path) -> None:
        with pytest.raises(ImportError, match="cannot be built .* its scope is 'mmengine'"):
            openmmlab(self.write(tmp_path, "model = dict(type='NoSuchModel')\n"))


def test_tensor_call_predicts_the_first_of_several() -> None:
    class Two(nn.Module):
        def forward(self, x: Tensor) -> Mapping[str, Tensor]:
            return {"a": x + 1, "b": x + 2}

    x = torch.zeros(1, 1)
    assert float(TensorCall().predict(Two(), {"inputs": x}, "inputs")) == 1.0
