"""Weights from elsewhere: released files, transformers' layout, other classes, and files that are refused."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers import DFineConfig, DFineForObjectDetection, HGNetV2Config

from limbeck_core.conformance import read_case
from limbeck_core.errors import CheckpointError
from limbeck_detection.dfine.checkpoints import (
    OBJECTS365_TO_COCO,
    from_pretrained,
    from_transformers,
    load_dfine,
    read_dfine,
)
from limbeck_detection.dfine.model import DFINE, dfine, dfine_n


def stirred(model: nn.Module) -> nn.Module:
    """The model with weights and statistics that no two models share by default."""
    generator = torch.Generator().manual_seed(1)
    fixed = ("reg_scale", "up", "num_points_scale", "num_batches_tracked", "anchors", "valid_mask")
    for name, value in model.state_dict().items():
        if name.endswith("running_var"):
            value.uniform_(0.5, 1.5, generator=generator)
        elif not name.endswith(fixed):
            noise = torch.randn(value.shape, generator=generator)
            if value.ndim == 1:
                value.add_(noise * 0.1)
            else:  # of a size with which what an image shows gets through to the detections
                value.copy_(noise * (2.0 / value[0].numel()) ** 0.5)
    return model


def foreign(**options: Any) -> DFineForObjectDetection:
    """A small D-FINE of transformers with the backbone B0."""
    backbone = HGNetV2Config(
        stem_channels=[3, 16, 16],
        stage_in_channels=[16, 64, 256, 512],
        stage_mid_channels=[16, 32, 64, 128],
        stage_out_channels=[64, 256, 512, 1024],
        stage_num_blocks=[1, 1, 2, 1],
        stage_numb_of_layers=[3, 3, 3, 3],
        hidden_sizes=[64, 256, 512, 1024],
        depths=[1, 1, 2, 1],
        **{key: options.pop(key) for key in ("use_learnable_affine_block", "out_indices")},
    )
    return stirred(DFineForObjectDetection(DFineConfig(backbone_config=backbone, **options)).eval())


def foreign_n() -> DFineForObjectDetection:
    return foreign(
        use_learnable_affine_block=True,
        out_indices=[3, 4],
        encoder_hidden_dim=128,
        encoder_in_channels=[512, 1024],
        feat_strides=[16, 32],
        encoder_ffn_dim=512,
        encode_proj_layers=[1],
        hidden_expansion=0.34,
        depth_mult=0.5,
        d_model=128,
        decoder_in_channels=[128, 128],
        decoder_ffn_dim=512,
        num_feature_levels=2,
        decoder_n_points=[6, 6],
        decoder_layers=3,
        num_queries=20,
        num_labels=5,
    )


def foreign_three_levels() -> DFineForObjectDetection:
    """As D-FINE-X: no affine, and maps wider than queries."""
    return foreign(
        use_learnable_affine_block=False,
        out_indices=[2, 3, 4],
        encoder_hidden_dim=32,
        encoder_in_channels=[256, 512, 1024],
        encoder_ffn_dim=48,
        encoder_attention_heads=4,
        hidden_expansion=0.5,
        depth_mult=0.34,
        d_model=16,
        decoder_in_channels=[32, 32, 32],
        decoder_ffn_dim=24,
        decoder_attention_heads=4,
        decoder_n_points=[3, 6, 3],
        decoder_layers=4,
        num_queries=15,
        num_labels=3,
        reg_scale=8.0,
    )


def ours_three_levels() -> DFINE:
    return dfine(
        3,
        backbone="B0",
        frozen=True,
        encoder_dim=32,
        encoder_feedforward=48,
        expansion=0.5,
        depth_mult=0.34,
        decoder_dim=16,
        decoder_feedforward=24,
        layers=4,
        heads=4,
        num_queries=15,
        reg_scale=4.0,
    )


def assert_same_detections(ours: DFINE, theirs: DFineForObjectDetection) -> None:
    images = torch.rand(2, 3, 128, 128)
    with torch.no_grad():
        found, expected = ours.eval()(images), theirs(images)
    torch.testing.assert_close(found["pred_logits"], expected.logits, atol=1e-4, rtol=0)
    torch.testing.assert_close(found["pred_boxes"], expected.pred_boxes, atol=1e-4, rtol=0)
    assert float(found["pred_boxes"].std(dim=1).min()) > 1e-3  # the agreement is about something


@pytest.mark.parametrize("kind", ["in memory", "safetensors", "pth"])
def test_transformers_model_detects_the_same(kind: str, tmp_path: Path) -> None:
    theirs = foreign_n()
    source: Any = theirs.state_dict()
    if kind == "safetensors":  # whose names are those of transformers 4
        theirs.save_pretrained(tmp_path)
        source = tmp_path / "model.safetensors"
    elif kind == "pth":
        torch.save(source, tmp_path / "theirs.pth")
        source = tmp_path / "theirs.pth"
    ours = from_pretrained(source, num_queries=20)
    assert ours.decoder.get_submodule("enc_score_head").out_features == 5
    assert_same_detections(ours, theirs)


def test_transformers_model_with_three_levels_and_narrower_queries() -> None:
    theirs, ours = foreign_three_levels(), ours_three_levels()
    report = load_dfine(ours, theirs.state_dict())
    assert (report.missing, report.unexpected) == ([], [])
    assert_same_detections(ours, theirs)


def test_transformers_checkpoint_that_lacks_a_projection() -> None:
    state = {k: v for k, v in foreign_n().state_dict().items() if not k.endswith("layers.0.self_attn.k_proj.weight")}
    with pytest.raises(CheckpointError, match=r"in_proj_weight is made of .* has only q, v: it is incomplete"):
        from_transformers(state)


# ---------------------------------------------------------------------- released files


@pytest.fixture(scope="module")
def released(golden: Path) -> dict[str, Tensor]:
    """State dict under the names that the reference implementation gave it."""
    inputs = read_case(golden / "dfine_n_full__c1.npz").inputs
    state = {name.removeprefix("state/"): value for name, value in inputs.items() if name.startswith("state/")}
    state = {name: value.float() if value.is_floating_point() else value for name, value in state.items()}
    for name in ("decoder.reg_scale", "decoder.decoder.reg_scale"):
        state[name] = state[name].long()  # as in released files
    return state


def test_names_of_released_files_are_ours(released: dict[str, Tensor]) -> None:
    with torch.device("meta"):
        model = dfine_n(num_denoising=0, num_queries=10, input_size=(64, 64))
    assert {n: v.shape for n, v in model.state_dict().items()} == {n: v.shape for n, v in released.items()}


@pytest.mark.parametrize("container", ["model", "ema", "parallel", "plain"])
def test_released_file_is_loaded_and_the_average_preferred(
    container: str, released: dict[str, Tensor], golden: Path, tmp_path: Path
) -> None:
    other = {name: torch.zeros_like(value) for name, value in released.items()}
    content: dict[str, Any] = {
        "model": {"model": released, "last_epoch": 3},
        "ema": {"model": other, "ema": {"module": released, "updates": 10}},
        "parallel": {"model": {f"module.{name}": value for name, value in released.items()}},
        "plain": released,
    }[container]
    torch.save(content, tmp_path / "dfine_n.pth")
    model = from_pretrained(tmp_path / "dfine_n.pth", num_queries=10, num_denoising=0, input_size=(64, 64)).eval()
    case = read_case(golden / "dfine_n_full__c1.npz")
    found = model(case.inputs["image"].float())
    # anchors are the model's own here, the reference's were rounded to float16
    torch.testing.assert_close(found["pred_logits"].double(), case.expected["out_pred_logits"], atol=5e-3, rtol=0)
    assert isinstance(model.decoder.get_parameter("reg_scale").item(), float)


def test_another_input_size_needs_no_other_file(released: dict[str, Tensor]) -> None:
    model = from_pretrained(released, num_queries=10, num_denoising=0, input_size=(96, 160))
    assert model.decoder.get_buffer("anchors").shape == (1, 6 * 10 + 3 * 5, 4)


def test_other_classes(released: dict[str, Tensor]) -> None:
    with pytest.raises(CheckpointError, match=r"scores 80 classes .* and the model 2: say which .* class_rows"):
        from_pretrained(released, num_classes=2)
    model = from_pretrained(released, class_rows=[7, 0])
    head = model.decoder.get_parameter("dec_score_head.1.weight")
    assert torch.equal(head, released["decoder.dec_score_head.1.weight"][[7, 0]])
    assert torch.equal(
        model.decoder.get_parameter("enc_score_head.bias"), released["decoder.enc_score_head.bias"][[7, 0]]
    )
    fresh = from_pretrained(released, num_classes=2, fresh_heads=True)
    assert fresh.decoder.get_parameter("dec_score_head.0.bias").tolist() == pytest.approx([-4.59512] * 2)
    query = "query_pos_head.layers.0.weight"
    assert torch.equal(fresh.decoder.get_parameter(query), released[f"decoder.{query}"])


def test_the_report_says_what_the_model_kept(released: dict[str, Tensor]) -> None:
    model = dfine_n(2)
    report = load_dfine(model, released, fresh_heads=True)
    kept = {"decoder.denoising_class_embed.weight", "decoder.enc_score_head.weight", "decoder.enc_score_head.bias"}
    kept |= {f"decoder.dec_score_head.{i}.{kind}" for i in range(3) for kind in ("weight", "bias")}
    assert set(report.missing) == kept
    assert not kept & set(report.matched)


def test_rows_that_do_not_exist(released: dict[str, Tensor]) -> None:
    with pytest.raises(CheckpointError, match=r"class_rows must lie in \[0, 80\), the rows of .* got 80"):
        from_pretrained(released, class_rows=[1, 80])
    with pytest.raises(CheckpointError, match="one row for each of the model's 3 classes, got 2"):
        from_pretrained(released, num_classes=3, class_rows=[1, 2])


def test_rows_of_coco_in_objects365() -> None:
    assert len(set(OBJECTS365_TO_COCO)) == 80
    assert OBJECTS365_TO_COCO[:3] == (1, 47, 6)  # person, bicycle, car
    assert max(OBJECTS365_TO_COCO) < 366


def test_files_that_are_refused(released: dict[str, Tensor], tmp_path: Path) -> None:
    class Attack:
        def __reduce__(self) -> tuple[Any, ...]:
            return print, ("run",)

    with (tmp_path / "attack.pth").open("wb") as file:
        pickle.dump({"model": Attack()}, file, protocol=2)
    with pytest.raises(CheckpointError, match="was refused, and nothing in it was run"):
        read_dfine(tmp_path / "attack.pth")
    torch.save({"fc.weight": torch.rand(2, 2), "fc.bias": torch.rand(2)}, tmp_path / "other.pth")
    with pytest.raises(CheckpointError, match="holds no weights of a D-FINE: .* got fc.weight, fc.bias"):
        read_dfine(tmp_path / "other.pth")
    with pytest.raises(CheckpointError, match="there is no checkpoint file"):
        read_dfine(tmp_path / "missing.pth")
    without = {name: value for name, value in released.items() if "dec_score_head.2" not in name}
    with pytest.raises(CheckpointError, match=r"none of the released sizes \(stem 16, encoder 128 wide, 2 decoder"):
        from_pretrained(without)
    damaged = {name: value for name, value in released.items() if name != "encoder.lateral_convs.0.conv.weight"}
    with pytest.raises(CheckpointError, match=r"does not fill DFINE: .* 1 missing \(encoder.lateral_convs"):
        from_pretrained(damaged)
