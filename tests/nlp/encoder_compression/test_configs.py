"""The configs of the smaller encoders compare what the functions of the package compare, and train."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from limbeck_core import Distiller
from limbeck_core.build import build
from limbeck_core.calls import MappingCall
from limbeck_core.engine.commands import train
from limbeck_core.engine.config import load_config
from limbeck_nlp.data import GrammarText, pad_batch
from limbeck_nlp.encoder_compression import distilbert_matches, minilm_matches, tinybert_matches
from limbeck_nlp.ood import GrammarOod, mlkd_matches

FUNCTIONS = {
    "nlp/grammar/distilbert": lambda student, teacher: distilbert_matches(),
    "nlp/grammar/tinybert": tinybert_matches,
    "nlp/grammar/minilm_v1": lambda student, teacher: minilm_matches(student, teacher, version=1),
    "nlp/grammar/assistant": lambda student, teacher: minilm_matches(student, teacher, version=1),
    "nlp/grammar/minilm_from_assistant": lambda student, teacher: minilm_matches(student, teacher, version=1),
    "nlp/ood/grammar_mlkd": mlkd_matches,
}


def with_teacher(name: str, folder: Path) -> Any:
    """The config's model, its teacher of random weights."""
    settings = load_config(name)
    torch.save(build(settings.model.teacher.model).state_dict(), folder / "teacher.pth")
    settings.model.teacher.checkpoint = str(folder / "teacher.pth")
    return build(settings.model)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_config_is_its_function(name: str, tmp_path: Path) -> None:
    model = with_teacher(name, tmp_path).eval()
    (teacher,) = (teacher.model for teacher in model.teachers.values())
    matches = FUNCTIONS[name](model.student, teacher)
    twin = Distiller(model.student, teacher, matches, call=MappingCall(labels=None)).eval()
    for label, match in matches.items():
        match.load_state_dict(model.matches[label].state_dict())
    data = GrammarOod(6) if "ood" in name else GrammarText(6)
    torch.manual_seed(0)
    batch = pad_batch([data[i] for i in range(6)])
    with torch.no_grad():
        ours, theirs = model(batch), twin(batch)
    assert set(theirs) == {f"loss/{label}" for label in matches}
    for label, loss in theirs.items():
        torch.testing.assert_close(ours[label], loss)
        assert loss.item() > 0


@pytest.mark.parametrize("name", ["nlp/grammar/distilbert", "nlp/grammar/tinybert", "nlp/grammar/minilm_v1"])
def test_a_config_trains(name: str, tmp_path: Path) -> None:
    settings = load_config(name)
    torch.save(build(settings.model.teacher.model).state_dict(), tmp_path / "teacher.pth")
    overrides = {
        "model.teacher.checkpoint": str(tmp_path / "teacher.pth"),
        "train_dataloader.dataset.size": 64,
        "train_cfg.max_epochs": 1,
        "param_scheduler.T_max": 1,
        "+log_level": "ERROR",
    }
    if settings.get("val_dataloader") is not None:
        overrides["val_dataloader.dataset.size"] = 32
    runner = train(name, work_dir=tmp_path / "run", seed=0, overrides=overrides)
    assert runner.iter == 2
    assert (tmp_path / "run" / "student.pth").is_file()
    torch.manual_seed(0)
    fresh = build(settings.model.student).state_dict()
    changed = [n for n, w in runner.model.student.state_dict().items() if not torch.equal(w, fresh[n])]
    assert any("attention.self.query" in n for n in changed)
