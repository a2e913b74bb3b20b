"""Image files in, classes and probabilities out."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from PIL import Image

from limbeck_core.errors import ConfigError, DataError
from limbeck_vision.predictor import ImagePredictor


def test_reads_and_resizes(tmp_path: Path) -> None:
    Image.new("L", (20, 10), 255).save(tmp_path / "white.png")
    inputs = ImagePredictor(8).read(str(tmp_path / "white.png"))["inputs"]
    assert inputs.shape == (3, 8, 8)
    torch.testing.assert_close(inputs, torch.ones(3, 8, 8))


def test_missing_file() -> None:
    with pytest.raises(DataError, match=r"nowhere\.png is no readable image"):
        ImagePredictor(8).read("nowhere.png")


def test_most_probable_first_with_names() -> None:
    logits = torch.tensor([[0.0, 3.0, 1.0]])
    found = ImagePredictor(8, classes=["ant", "bee", "cat"], top=2).describe("x.png", logits)
    assert [row["class"] for row in found["classes"]] == ["bee", "cat"]
    assert found["classes"][0]["probability"] == pytest.approx(float(logits.softmax(1)[0, 1]), abs=1e-6)


def test_names_of_another_data_set() -> None:
    with pytest.raises(ConfigError, match="has 2 class names, the model scores 3 classes"):
        ImagePredictor(8, classes=["a", "b"]).describe("x.png", torch.zeros(1, 3))


@pytest.mark.parametrize("options", [{"size": 0}, {"size": 8, "top": 0}])
def test_counts_must_be_positive(options: dict[str, int]) -> None:
    with pytest.raises(ConfigError, match="must be 1 or more"):
        ImagePredictor(**options)
