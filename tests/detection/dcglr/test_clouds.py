"""Views, encoders, shapes and meshes: fixed sizes, order without a say, one place for a cloud, damaged files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from limbeck_core.errors import ConfigError, DataError, ShapeError
from limbeck_detection.dcglr import (
    CloudProbes,
    ModelNet,
    MultiCrop,
    PointNet,
    PointTransformer,
    Shapes,
    clouds_batch,
    draw_attention,
    farthest_points,
)
from limbeck_detection.dcglr.shapes import read_off, sample_surface
from limbeck_detection.dcglr.views import complete, spherical_crop
from loss_contract import randn


def encoders() -> list[Any]:
    torch.manual_seed(0)
    return [PointNet(16, widths=(8,)).eval(), PointTransformer(16, depth=2, heads=2, group=8).eval()]


@pytest.mark.parametrize("number", [0, 1], ids=["pointnet", "transformer"])
def test_the_order_of_points_has_no_say(number: int) -> None:
    encoder = encoders()[number].double()
    clouds = randn(3, 50, 3)
    order = torch.randperm(50, generator=torch.Generator().manual_seed(0))
    embeddings = encoder(clouds)
    assert embeddings.shape == (3, 16)
    torch.testing.assert_close(encoder(clouds[:, order]), embeddings, atol=1e-5, rtol=0)
    looks = encoder.importance(clouds)
    assert looks.shape == (3, 50)
    assert (looks >= 0).all()
    torch.testing.assert_close(encoder.importance(clouds[:, order]), looks[:, order], atol=1e-5, rtol=0)


@pytest.mark.parametrize("number", [0, 1], ids=["pointnet", "transformer"])
@pytest.mark.parametrize("points", [1, 3, 9])
def test_few_points_and_clouds_that_are_one_place(number: int, points: int) -> None:
    encoder = encoders()[number].train()
    clouds = torch.zeros(2, points, 3).requires_grad_()
    embeddings = encoder(clouds)
    embeddings.sum().backward()
    assert torch.isfinite(embeddings).all()
    assert torch.isfinite(clouds.grad).all()
    with pytest.raises(ShapeError, match="one point or more"):
        encoder(torch.zeros(2, 0, 3))


def test_the_maximum_s_shares_and_the_attention_sum_to_one() -> None:
    point_net, transformer = encoders()
    clouds = randn(2, 32, 3, dtype=torch.float32)
    torch.testing.assert_close(point_net.importance(clouds).sum(1), torch.ones(2))
    tokens, centres = transformer._tokens(clouds)
    assert centres.shape == (2, 4, 3)
    torch.testing.assert_close(transformer.blocks[0].attention(tokens).sum(-1), torch.ones(2, 2, 5))


def test_attention_is_what_the_block_computes_with() -> None:
    block = encoders()[1].blocks[0]
    tokens = randn(2, 5, 16, dtype=torch.float32)
    _, _, value = block._heads(tokens)
    mixed = (block.attention(tokens) @ value).transpose(1, 2).flatten(2)
    expected = tokens + block.out(mixed)
    torch.testing.assert_close(block(tokens), expected + block.mlp(block.norm2(expected)))


def test_farthest_points_are_far_and_repeat_only_where_they_must() -> None:
    clouds = randn(2, 20, 3)
    chosen = farthest_points(clouds, 20)
    assert all(sorted(row) == list(range(20)) for row in chosen.tolist())
    assert farthest_points(torch.zeros(1, 4, 3), 3).shape == (1, 3)
    with pytest.raises(ShapeError):
        farthest_points(torch.zeros(4, 3), 2)


def test_a_crop_is_the_neighbourhood_of_a_point() -> None:
    torch.manual_seed(0)
    cloud = randn(40, 3)
    part = spherical_crop(cloud, 0.3)
    assert part.shape == (12, 3)
    centre = part[0]
    reach = (part - centre).norm(dim=1).max()
    assert int(((cloud - centre).norm(dim=1) <= reach + 1e-9).sum()) == 12


@pytest.mark.parametrize("points", [1, 3, 5, 30, 50])
def test_completion_reaches_the_length_and_stays_inside(points: int) -> None:
    torch.manual_seed(0)
    cloud = randn(points, 3)
    full = complete(cloud, 37)
    assert full.shape == (37, 3)
    assert torch.equal(full[: min(points, 37)], cloud[:37])
    assert (full.amin(0) >= cloud.amin(0) - 1e-9).all()
    assert (full.amax(0) <= cloud.amax(0) + 1e-9).all()


def test_views_have_fixed_lengths_and_follow_torch_s_seed() -> None:
    cloud, cut = randn(100, 3, dtype=torch.float32), MultiCrop(local_views=3)
    torch.manual_seed(1)
    large, small = cut(cloud)
    assert large.shape == (2, 90, 3)
    assert small.shape == (3, 50, 3)
    torch.manual_seed(1)
    assert torch.equal(cut(cloud)[0], large)
    assert MultiCrop(local_views=0)(cloud)[1].shape == (0, 50, 3)
    with pytest.raises(ConfigError, match="global_share"):
        MultiCrop(global_share=(0.9, 0.5))
    with pytest.raises(ConfigError, match="local_views"):
        MultiCrop(local_views=-1)
    with pytest.raises(ShapeError, match="a cloud must be"):
        cut(cloud[:0])


def test_shapes_come_again_and_parts_share_none() -> None:
    train, both = Shapes(size=16, points=64), Shapes("both", size=16, points=64)
    assert len(both) == 32
    assert torch.equal(train[5]["inputs"], both[5]["inputs"])
    assert not torch.equal(both[5]["inputs"], both[21]["inputs"])
    assert [both[n]["split"] for n in (0, 15, 16, 31)] == ["train", "train", "test", "test"]
    assert {train[n]["targets"] for n in range(16)} == set(range(8))
    assert train[3]["inputs"].norm(dim=1).max().item() == pytest.approx(1.0)
    batch = clouds_batch([train[0], train[1]])
    assert batch["inputs"].shape == (2, 64, 3)
    with pytest.raises(ConfigError, match="part must be"):
        Shapes("val")
    with pytest.raises(ConfigError, match="1 or more"):
        Shapes(points=0)
    with pytest.raises(IndexError):
        train[16]


SQUARE = "OFF\n4 1 0\n0 0 0\n2 0 0\n2 2 0\n0 2 0\n4 0 1 2 3\n"


def modelnet(root: Path) -> Path:
    for kind, part in (("chair", "train"), ("chair", "test"), ("sofa", "train")):
        (root / kind / part).mkdir(parents=True)
        text = SQUARE if part == "train" else SQUARE.replace("OFF\n", "OFF")
        (root / kind / part / f"{kind}_0001.off").write_text(text)
    return root


def test_modelnet_s_folders_and_its_first_line(tmp_path: Path) -> None:
    data = ModelNet(modelnet(tmp_path), "both", points=32)
    assert data.classes == ("chair", "sofa")
    assert [(s["targets"], s["split"]) for s in map(data.__getitem__, range(3))] == [
        (0, "train"), (1, "train"), (0, "test"),
    ]  # fmt: skip
    assert data[0]["inputs"].shape == (32, 3)
    assert torch.equal(data[0]["inputs"], data[0]["inputs"])
    with pytest.raises(DataError, match="it is empty or missing"):
        ModelNet(tmp_path / "none")
    with pytest.raises(ConfigError, match="points 1 or more"):
        ModelNet(tmp_path, points=0)


def test_points_lie_on_the_mesh_evenly_by_area(tmp_path: Path) -> None:
    (tmp_path / "square.off").write_text(SQUARE)
    vertices, faces = read_off(tmp_path / "square.off")
    assert faces.tolist() == [[0, 1, 2], [0, 2, 3]]
    points = sample_surface(vertices, faces, 4000, np.random.default_rng(0))
    assert np.abs(points[:, 2]).max() == 0
    assert points[:, :2].min() >= 0
    assert points[:, :2].max() <= 2
    assert (points[:, 0] < 1).mean() == pytest.approx(0.5, abs=0.04)
    flat = sample_surface(np.zeros((3, 3)), np.array([[0, 1, 2]]), 5, np.random.default_rng(0))
    assert flat.shape == (5, 3)


@pytest.mark.parametrize("text", ["", "PLY\n", "OFF\n3 1 0\n0 0 0\n1 1 1\n", SQUARE.replace("4 0 1 2 3", "4 0 1 2 9")])
def test_damaged_meshes_are_named(tmp_path: Path, text: str) -> None:
    (tmp_path / "bad.off").write_text(text)
    with pytest.raises(DataError, match="bad.off is no readable OFF mesh"):
        read_off(tmp_path / "bad.off")


def test_probes_tell_classes_apart_and_name_what_is_missing() -> None:
    metric = CloudProbes(neighbours=1)
    batch = {"targets": torch.tensor([0, 1, 0, 1]), "split": ["train", "train", "test", "test"]}
    metric.process(batch, torch.tensor([[1.0, 0], [0, 1.0], [0.9, 0.1], [0.1, 0.9]]))
    assert metric.compute_metrics(metric.results) == {"linear": 100.0, "knn": 100.0}
    assert metric.per_sample["knn"] == [100.0, 100.0]
    with pytest.raises(DataError, match="'test'"):
        metric.compute_metrics(metric.results[:2])
    with pytest.raises(DataError, match="'split'"):
        metric.process({"targets": batch["targets"]}, torch.zeros(4, 2))
    with pytest.raises(ShapeError, match=r"\(N, D\)"):
        metric.process(batch, torch.zeros(4, 2, 2))


def test_attention_pictures_are_written(tmp_path: Path) -> None:
    cloud = randn(20, 3)
    path = draw_attention([cloud, cloud], [torch.ones(20), torch.arange(20)], tmp_path / "a" / "looks.png", titles="ab")
    assert path.stat().st_size > 1000
