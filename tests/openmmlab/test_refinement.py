"""Deformable DETR and DINO of mmdet with edge distributions, by their own released config files."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from mmengine.registry import MODELS
from mmengine.structures import InstanceData
from mmengine.utils.dl_utils.misc import mmcv_full_available
from torch import Tensor, nn

from limbeck_core import Distiller, Match, OpenMMLabCall, openmmlab
from limbeck_core.errors import MatchError
from limbeck_core.losses import ChannelWiseDivergenceLoss
from limbeck_core.mmcv_operators import use_mmcv
from limbeck_detection.distillation import DetectionDistiller, QueryDistillation, mmdet_queries
from limbeck_detection.refinement import EdgeRefinement, Refined, RefinementCriterion, refine_mmdet

use_mmcv()

import mmdet  # noqa: E402  after the stand-in: importing it imports mmcv.ops
from mmdet.structures import DetDataSample  # noqa: E402

CONFIGS = Path(mmdet.__file__).parent / ".mim" / "configs"
KINDS = {
    "dino": "dino/dino-4scale_r50_8xb2-12e_coco.py",
    "deformable": "deformable_detr/deformable-detr_r50_16xb2-50e_coco.py",
    "refine": "deformable_detr/deformable-detr-refine_r50_16xb2-50e_coco.py",
    "two_stage": "deformable_detr/deformable-detr-refine-twostage_r50_16xb2-50e_coco.py",
}
SMALL = {
    "model.backbone.init_cfg": None,
    "model.backbone.depth": 18,
    "model.neck.in_channels": [128, 256, 512],
    "model.num_queries": 12,
    "model.encoder.num_layers": 1,
    "model.decoder.num_layers": 3,
}
ADDED = {"loss_fgl", "loss_ddf", "loss_first_bbox", "loss_first_giou"}


def build(kind: str, seed: int = 0) -> Any:
    torch.manual_seed(seed)
    return openmmlab(CONFIGS / KINDS[kind], overrides=SMALL)


def refined(kind: str, criterion: RefinementCriterion | None = None, *, seed: int = 0) -> Any:
    detector = refine_mmdet(build(kind, seed), criterion)
    for parameter in detector.refinement.corner_heads.parameters():
        nn.init.normal_(parameter, std=0.05)
    return detector


def batch(*counts: int, size: tuple[int, int] = (96, 96)) -> dict[str, Any]:
    """Images of one padded size; those with an even number are less wide than the batch."""
    torch.manual_seed(0)
    images, samples = [], []
    boxes = torch.tensor([[8.0, 8.0, 40.0, 50.0], [30.0, 40.0, 60.0, 90.0]])
    for number, count in enumerate(counts):
        height, width = size[0], size[1] - 32 * (number % 2)
        sample = DetDataSample(
            metainfo={"img_shape": (height, width), "ori_shape": (height, width), "pad_shape": size,
                      "batch_input_shape": size, "scale_factor": (1.0, 1.0), "img_id": number}
        )  # fmt: skip
        sample.gt_instances = InstanceData(bboxes=boxes[:count], labels=torch.tensor([3, 17])[:count])
        samples.append(sample)
        images.append(torch.randint(0, 256, (3, height, width), dtype=torch.uint8))
    return {"inputs": images, "data_samples": samples}


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> list[Refined]:
    """What the refinement predicted in each call of a detector."""
    found: list[Refined] = []
    take = EdgeRefinement.take

    def listening(self: EdgeRefinement) -> Refined:
        found.append(take(self))
        return found[-1]

    monkeypatch.setattr(EdgeRefinement, "take", listening)
    return found


@pytest.mark.parametrize("kind", KINDS)
def test_the_detector_predicts_the_refined_boxes(kind: str, seen: list[Refined]) -> None:
    detector = refined(kind).eval()
    with torch.no_grad():
        _, boxes = detector(**detector.data_preprocessor(batch(2, 1), False), mode="tensor")
        predicted = detector(**detector.data_preprocessor(batch(2, 1), False), mode="predict")
    for layer in range(3):
        torch.testing.assert_close(boxes[layer], seen[0].boxes[layer].clamp(1e-5, 1 - 1e-5), rtol=0, atol=1e-6)
    assert not torch.equal(seen[0].boxes[0], seen[0].boxes[2])
    assert predicted[0].pred_instances.bboxes.shape[1] == 4


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("counts", [(2, 1), (0, 0)], ids=["boxes", "empty"])
def test_its_losses_have_the_terms_and_they_train_it(kind: str, counts: tuple[int, ...]) -> None:
    detector = refined(kind)
    losses = Distiller(detector, None, call=OpenMMLabCall())(**batch(*counts))
    assert losses.keys() >= ADDED | {"loss_cls", "d0.loss_bbox"}
    added = torch.stack([losses[name] for name in sorted(ADDED)])
    assert torch.isfinite(added).all()
    added.sum().backward(retain_graph=True)
    if any(counts):
        assert (added > 0).all()
        assert all(p.grad.abs().sum() > 0 for p in detector.refinement.first_box[-1].parameters())
        assert all(head.layers[-1].weight.grad.abs().sum() > 0 for head in detector.refinement.corner_heads)
    sum(value for name, value in losses.items() if "loss" in name).backward()
    assert all(torch.isfinite(p.grad).all() for p in detector.parameters() if p.grad is not None)


def test_true_boxes_are_in_units_of_the_image_without_its_padding() -> None:
    given: list[Any] = []

    class Listening(RefinementCriterion):
        def forward(self, *args: Any, **options: Any) -> dict[str, Tensor]:
            given.extend(args[3])
            return super().forward(*args, **options)

    Distiller(refined("deformable", Listening()), None, call=OpenMMLabCall())(**batch(1, 1))
    wide, narrow = (target["boxes"][0] for target in given)
    torch.testing.assert_close(wide * 96, torch.tensor([24.0, 29.0, 32.0, 42.0]))
    torch.testing.assert_close(narrow[[0, 2]] * 64, torch.tensor([24.0, 32.0]))
    torch.testing.assert_close(narrow[[1, 3]] * 96, torch.tensor([29.0, 42.0]))


def test_steps_on_one_batch_lower_the_loss_and_a_copy_goes_its_own_way() -> None:
    detector = refined("dino")
    distiller = Distiller(detector, None, call=OpenMMLabCall())
    optimizer = torch.optim.AdamW(detector.refinement.first_box.parameters(), lr=5e-3)
    sizes = []
    for _ in range(4):
        loss = distiller(**batch(2, 1))["loss_first_bbox"]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        sizes.append(loss.item())
    assert sizes[-1] < 0.9 * sizes[0]
    twin = copy.deepcopy(detector)
    assert twin.bbox_head.reg_branches[0].refinement is twin.refinement is not detector.refinement
    twin.eval()
    with torch.no_grad():
        twin(**twin.data_preprocessor(batch(1), False), mode="predict")
    assert detector.refinement._pass is None


def test_a_config_names_it_and_the_runner_of_mmengine_takes_it() -> None:
    settings = {
        "type": "limbeck_core.Distiller",
        "student": {
            "type": "limbeck_detection.refinement.refine_mmdet",
            "detector": {"type": "limbeck_core.openmmlab", "config": CONFIGS / KINDS["refine"], "overrides": SMALL},
            "criterion": {"type": "limbeck_detection.refinement.RefinementCriterion", "ddf_weight": 0.0},
        },
        "call": {"type": "limbeck_core.OpenMMLabCall"},
    }
    losses = MODELS.build(settings)(**batch(1))
    assert losses.keys() >= ADDED - {"loss_ddf"}
    assert "loss_ddf" not in losses
    assert not mmcv_full_available(), "what the runner asks before it takes a model"


def test_what_it_does_not_fit_is_refused() -> None:
    with pytest.raises(MatchError, match="has edge distributions already"):
        refine_mmdet(refined("deformable"))
    detector = build("deformable")
    detector._is_init = False
    with pytest.raises(MatchError, match=r"draw the weights.*init_weights\(\)"):
        refine_mmdet(detector)
    with pytest.raises(MatchError, match="fits DeformableDETR and DINO, got Linear"):
        refine_mmdet(nn.Linear(2, 2))


@pytest.mark.parametrize("student", ["dino", "two_stage"])
def test_dino_teaches_by_its_queries_and_maps(student: str) -> None:
    """Both with edge distributions, which speak of other boxes."""
    detector, teacher = refined(student), refined("dino", seed=1)
    distiller = DetectionDistiller(
        detector,
        teacher,
        {"neck": Match(ChannelWiseDivergenceLoss(), "neck.convs.0", "neck.convs.0")},
        queries=QueryDistillation(num_queries=12, corners_weight=1.5),
        student_queries=mmdet_queries(refined=True),
        teacher_queries=mmdet_queries(teacher=True, refined=True),
        call=OpenMMLabCall(),
    ).train()
    losses = distiller(**batch(2, 0))
    names = ["loss/query_scores", "loss/query_bbox", "loss/query_giou", "loss/query_corners", "loss/neck"]
    assert all(losses[name] > 0 for name in names)
    sum(losses[name] for name in names).backward()
    assert all(head.layers[-1].weight.grad.abs().sum() > 0 for head in detector.refinement.corner_heads)
    assert all(parameter.grad is None for parameter in teacher.parameters())


def test_a_copy_of_itself_has_nothing_to_teach() -> None:
    detector = refined("deformable")
    distiller = DetectionDistiller(
        detector,
        copy.deepcopy(detector),
        queries=QueryDistillation(corners_weight=1.5),
        student_queries=mmdet_queries(refined=True),
        teacher_queries=mmdet_queries(teacher=True, refined=True),
        call=OpenMMLabCall(),
    ).eval()  # without dropout
    detector.training = True  # its own losses are not made for evaluation
    losses = distiller(**batch(2, 0))
    for name in ("loss/query_scores", "loss/query_bbox", "loss/query_corners"):
        assert losses[name].item() == pytest.approx(0, abs=1e-4), name
