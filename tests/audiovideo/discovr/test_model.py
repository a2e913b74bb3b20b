"""Masks, encoders that see visible patches only, the decoder's order, and a step of the whole method."""

from __future__ import annotations

import copy
import math
from typing import Any

import pytest
import torch
from torch import Tensor

from limbeck_audiovideo.discovr import (
    ClusterDistillationLoss,
    DINOHead,
    MaskedCall,
    MixedMask,
    RandomMask,
    RegionMask,
    TokenDecoder,
    Views,
    ViTEncoder,
    discovr,
    discovr_tiny,
)
from limbeck_audiovideo.discovr.encoder import sinusoids
from limbeck_audiovideo.discovr.model import DISCOVR, Branch, visible_first
from limbeck_core import Distiller, EMATeacher, Tap
from limbeck_core.build import build
from limbeck_core.errors import ConfigError, MatchError, ShapeError
from limbeck_core.losses import DINOLoss

TINY: dict[str, Any] = dict(dim=16, depth=1, heads=2, decoder_dim=8, decoder_depth=1, decoder_heads=2)
TINY |= dict(image_size=16, frames=4, patch=8, channels=1, num_prototypes=6, head_hidden=8, head_bottleneck=4)


def clips(count: int = 3) -> Tensor:
    return torch.randint(0, 256, (count, 1, 4, 16, 16), dtype=torch.uint8)


def distiller(**options: Any) -> Distiller:
    dino = dict(type=DINOLoss, num_prototypes=6, teacher_views=1, skip_same_view=False, center_momentum=0.8)
    return Distiller(
        discovr(**TINY),
        dict(
            video=dict(type=EMATeacher, momentum=0.9, follows="video"),
            image=dict(type=EMATeacher, momentum=0.9, follows="image"),
        ),
        matches=dict(
            video=dict(loss=dino, student="video.head", teacher=Tap("head", of="video")),
            image=dict(loss=dino, student="image.head", teacher=Tap("head", of="image")),
            clusters=dict(
                loss=dict(type=ClusterDistillationLoss, num_prototypes=3, dim=16),
                student="decoder",
                teacher=Tap("", of="image", pick="tokens"),
                **options,
            ),
        ),
        call=MaskedCall(Views(video=RandomMask(0.5), image=RandomMask(0.5), local=2)),
    )


def test_random_masks() -> None:
    visible = RandomMask(0.9).draw(5, 40, 7, 7)
    assert visible.shape == (5, 40, 5), "44 of 49 are hidden"
    assert bool((visible.diff(dim=-1) > 0).all())
    assert 0 <= int(visible.min()) <= int(visible.max()) < 49
    assert len({tuple(row) for row in visible.flatten(0, 1).tolist()}) > 190, "each row has a mask of its own"
    assert RandomMask(0.0).draw(1, 1, 2, 2).tolist() == [[[0, 1, 2, 3]]]
    with pytest.raises(ConfigError, match="leaves none of 2 x 2 patches visible"):
        RandomMask(1.0).draw(1, 1, 2, 2)


def test_region_masks_are_rectangles() -> None:
    for _ in range(10):
        visible = RegionMask(0.4).draw(2, 3, 7, 7)
        grid = torch.zeros(6, 49).scatter(1, visible.flatten(0, 1), 1).view(6, 7, 7)
        rows, columns = grid.amax(2).sum(1), grid.amax(1).sum(1)
        assert torch.equal(rows * columns, grid.sum((1, 2)))
        assert {3, 4, 5} >= set(rows.int().tolist()) | set(columns.int().tolist())
    assert RegionMask(1.0, jitter=0).draw(1, 1, 3, 3).flatten().tolist() == list(range(9))
    with pytest.raises(ConfigError, match="smallest"):
        RegionMask(smallest=0)


def test_mixed_masks_are_either() -> None:
    mask = MixedMask(dict(type=RandomMask, ratio=0.75), RegionMask(1.0, jitter=0))  # type: ignore[arg-type]
    assert {mask.draw(1, 1, 4, 4).shape[-1] for _ in range(30)} == {4, 16}


def test_views_need_one_that_is_local() -> None:
    with pytest.raises(ConfigError, match="local must be 1 or more"):
        Views(local=0)
    assert build(dict(type=Views, video=dict(type=RandomMask, ratio=0.5))).video == RandomMask(0.5)


def test_positions_are_sines_and_cosines() -> None:
    table = sinusoids(5, 6)
    assert float(table[3, 2]) == pytest.approx(math.sin(3 / 10000 ** (2 / 6)), abs=1e-6)
    assert float(table[3, 3]) == pytest.approx(math.cos(3 / 10000 ** (2 / 6)), abs=1e-6)


def test_seeing_all_patches_is_not_masking() -> None:
    encoder = ViTEncoder(image_size=16, frames=4, patch=8, channels=1, dim=16, depth=2, heads=2).eval()
    whole = encoder(clips())
    seen = encoder(clips_like := clips(), torch.arange(4).expand(1, 3, 4))
    torch.testing.assert_close(seen.tokens, encoder(clips_like).tokens)
    assert whole.tokens.shape == (3, 2, 4, 16)
    assert whole.embedding.shape == (3, 16)


def test_hidden_patches_have_no_say() -> None:
    encoder = ViTEncoder(image_size=16, frames=4, patch=8, channels=1, dim=16, depth=2, heads=2).eval()
    video = clips()
    visible = torch.tensor([[[1, 2]] * 3])
    changed = video.clone()
    changed[..., :8, :8] = 255 - changed[..., :8, :8]  # patch 0
    torch.testing.assert_close(encoder(video, visible).tokens, encoder(changed, visible).tokens)
    changed[..., :8, 8:] = 255 - changed[..., :8, 8:]  # patch 1
    assert not torch.allclose(encoder(video, visible).tokens, encoder(changed, visible).tokens)


def test_bytes_and_numbers_say_the_same() -> None:
    encoder = ViTEncoder(image_size=16, frames=4, patch=8, channels=1, dim=16, depth=1, heads=2).eval()
    video = clips()
    torch.testing.assert_close(encoder(video).embedding, encoder(video.float() / 255).embedding)


def test_recomputing_changes_no_gradient() -> None:
    video, sums = clips(), []
    encoder = ViTEncoder(image_size=16, frames=4, patch=8, channels=1, dim=16, depth=2, heads=2)
    for recompute in (False, True):
        encoder.recompute = recompute
        encoder.zero_grad()
        encoder(video).embedding.square().sum().backward()
        sums.append([p.grad.clone() for p in encoder.parameters() if p.grad is not None])
    for plain, again in zip(*sums, strict=True):
        torch.testing.assert_close(plain, again)


def test_names_are_those_of_the_released_files() -> None:
    names = set(ViTEncoder(image_size=16, frames=4, patch=8, dim=16, depth=1, heads=2).state_dict())
    layers = ("norm1", "norm2", "attn.proj", "mlp.fc1", "mlp.fc2")
    assert names == {
        *("cls_token", "pos_embed", "patch_embed.proj.weight", "patch_embed.proj.bias", "norm.weight", "norm.bias"),
        *(f"blocks.0.{layer}.{p}" for layer in layers for p in ("weight", "bias")),
        *("blocks.0.attn.qkv.weight", "blocks.0.attn.q_bias", "blocks.0.attn.v_bias"),
    }
    assert set(DINOHead(8, 4).last_layer.state_dict()) == {"weight_g", "weight_v"}


def test_a_head_compares_directions() -> None:
    head = DINOHead(8, 5, hidden=8, bottleneck=4)
    scores = head(torch.randn(20, 8) * 100)
    assert float(scores.detach().abs().max()) <= 1 + 1e-5
    with torch.no_grad():
        head.last_layer.weight_v *= 7
    torch.testing.assert_close(head(torch.ones(1, 8)), head(torch.ones(1, 8)))
    assert float(head(torch.ones(1, 8)).detach().abs().max()) <= 1 + 1e-5


def test_the_decoder_returns_tokens_where_they_belong() -> None:
    decoder = TokenDecoder(times=2, places=4, dim=16, out=6, width=8, depth=1, heads=2).eval()
    tokens, visible = torch.randn(3, 2, 2, 16), torch.tensor([[0, 3], [1, 2], [0, 1]])
    found = decoder(tokens, visible)
    assert found.shape == (3, 8, 6)
    decoder.aligned = False
    index = torch.tensor([[0, 3, 4, 7], [1, 2, 5, 6], [0, 1, 4, 5]])
    expected = visible_first(found, index)
    torch.testing.assert_close(decoder(tokens, visible), expected)
    assert torch.equal(expected[0], found[0, [0, 3, 4, 7, 1, 2, 5, 6]])


def test_a_step_routes_gradients_as_the_method_says() -> None:
    model = distiller()
    losses = model(dict(inputs=clips()))
    assert set(losses) == {"loss/video", "loss/image", "loss/clusters"}
    reached = {}
    for name, loss in losses.items():
        model.zero_grad()
        loss.backward(retain_graph=True)
        places = {
            ".".join(n.split(".")[:3]) for n, p in model.named_parameters() if p.grad is not None and p.grad.any()
        }
        reached[name] = {place for place in places if "matches" in place or place.count(".") == 2}
    assert {p.split(".")[1] for p in reached["loss/image"]} == {"image"}
    assert {p.split(".")[1] for p in reached["loss/video"]} == {"video"}
    assert not any(p.startswith("student.image") or "video.head" in p for p in reached["loss/clusters"])
    assert {"student.video.encoder", "matches.clusters.loss"} <= reached["loss/clusters"]
    assert any(p.startswith("student.decoder") for p in reached["loss/clusters"])


def test_no_parameter_is_left_out() -> None:
    model = distiller()
    sum(model(dict(inputs=clips())).values()).backward()  # type: ignore[union-attr]
    assert [name for name, parameter in model.named_parameters() if parameter.grad is None] == []


def test_teachers_see_whole_clips_and_move_by_the_average_alone() -> None:
    model = distiller()
    rows = {row.match: row for row in model.check(dict(inputs=clips()))}
    assert rows["video"].teacher.endswith("(3, 6)")
    assert rows["video"].student.endswith("(6, 6)"), "two local views of three clips"
    assert rows["image"].teacher.endswith("(12, 6)")
    assert rows["clusters"].student.endswith("(3, 8, 16)")
    before = copy.deepcopy(model.teachers["video"].model.state_dict())
    with torch.no_grad():
        for parameter in model.student.parameters():
            parameter.add_(1)
    for step in range(3):
        model.teachers["video"].update(model.student, step)  # type: ignore[operator]
    moved = model.teachers["video"].model.encoder.cls_token - before["encoder.cls_token"]  # type: ignore[union-attr, operator]
    torch.testing.assert_close(moved, torch.full_like(moved, 1 - 0.9**3))


def test_clusters_can_be_learnt_from_hidden_tokens_alone() -> None:
    model = distiller(extras=dict(mask=Tap("", of="student", pick="hidden")))
    assert float(model(dict(inputs=clips()))["loss/clusters"].detach()) > 0
    views = Views(video=RandomMask(0.5), image=RandomMask(0.5), local=1)
    hidden = model.student(clips(), views)["hidden"]
    assert hidden.shape == (3, 8)
    assert hidden.sum(1).tolist() == [4, 4, 4]


@pytest.mark.parametrize("branches", ["both", "video", "image"])
def test_one_embedding_a_clip(branches: Any) -> None:
    model = discovr(**{**TINY, "branches": branches}).eval()
    assert model(clips()).shape == (3, 16)
    batch = {"inputs": clips()}
    assert MaskedCall().predict(model, batch, "inputs").shape == (3, 16)
    branch = model.video or model.image
    assert MaskedCall().predict(branch, batch, "inputs").shape == (3, 16)  # type: ignore[arg-type]


def test_an_image_branch_does_not_know_the_order_of_frames() -> None:
    image, video = (discovr(**{**TINY, "branches": b}).eval() for b in ("image", "video"))
    clip = clips()
    torch.testing.assert_close(image(clip), image(clip.flip(2)))
    assert not torch.allclose(video(clip), video(clip.flip(2)), atol=1e-3)


@pytest.mark.parametrize("branches", ["both", "image"])
def test_exports_with_any_number_of_clips(branches: Any) -> None:
    model = discovr(**{**TINY, "branches": branches}).eval()
    shapes = {"video": {0: torch.export.Dim("batch", min=1, max=64)}}
    graph = torch.export.export(model, (clips(2),), dynamic_shapes=shapes).module()
    video = clips(5)
    torch.testing.assert_close(graph(video), model(video))


def test_no_clips() -> None:
    losses = distiller()(dict(inputs=clips(0)))
    assert {name: float(value.detach()) for name, value in losses.items()} == dict.fromkeys(losses, 0.0)


def test_what_does_not_fit() -> None:
    model = discovr_tiny()
    with pytest.raises(ShapeError, match=r"takes clips \(B, C, T, H, W\) of \(1, 8, 32, 32\), got \(2, 1, 7, 32, 32\)"):
        model(torch.zeros(2, 1, 7, 32, 32))
    with pytest.raises(ConfigError, match="must be multiples"):
        discovr_tiny(frames=7)
    with pytest.raises(ConfigError, match="channels must be 3"):
        discovr_tiny(channels=2)
    with pytest.raises(ConfigError, match="multiple of its heads"):
        discovr_tiny(heads=5)
    with pytest.raises(ConfigError, match="branches must be"):
        discovr_tiny(branches="audio")
    with pytest.raises(ConfigError, match="needs a video branch"):
        DISCOVR()
    with pytest.raises(ConfigError, match="encodes single frames"):
        DISCOVR(image=Branch(ViTEncoder(image_size=16, frames=4, patch=8, dim=16, depth=1, heads=2)))
    with pytest.raises(MatchError, match="without labels"):
        MaskedCall().loss(model, {"inputs": clips()}, "inputs", torch.nn.CrossEntropyLoss())
    with pytest.raises(MatchError, match="needs 'inputs' of the batch"):
        MaskedCall().loss(model, {"video": clips()}, "inputs", None)
