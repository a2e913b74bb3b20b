"""Prompts and completions: what is masked, where padding stands, what is generated and what is kept of it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from limbeck_core.errors import ConfigError, DataError, ShapeError
from limbeck_nlp.data import grammar_tokenizer
from limbeck_nlp.language_models import Filter, GrammarLines, PromptedText, RunningText, pad_prompted, write_completions
from limbeck_nlp.language_models.generation import complete, sequences, until_end
from limbeck_nlp.models import transformer

END = 6


def llama(**options: Any) -> nn.Module:
    return transformer(
        "causal_lm",
        "llama",
        vocab_size=160,
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=16,
        max_position_embeddings=64,
        bos_token_id=5,
        eos_token_id=END,
        pad_token_id=0,
        **options,
    )


def test_only_the_completion_counts() -> None:
    data = GrammarLines(4, words=3)
    sample, tokenizer = data[0], data.tokenizer
    ids, targets = sample["inputs"]["input_ids"], sample["targets"]
    prompt, completion = data.rows[0]
    assert tokenizer.decode(sample["prompts"]["input_ids"]).split() == ["[BOS]", *prompt.split()]
    asked = len(sample["prompts"]["input_ids"])
    assert torch.equal(ids[:asked], sample["prompts"]["input_ids"])
    # position asked - 1, the last of the prompt, predicts the first token of the completion
    assert (targets[: asked - 1] == -100).all()
    assert tokenizer.decode(targets[asked - 1 : -1]).split() == [*completion.split(), "[EOS]"]
    assert targets[-1] == -100
    assert torch.equal(sample["mask"], targets != -100)


def test_long_text_is_cut_where_it_should(tmp_path: Path) -> None:
    row = {"prompt": "Anna Berg will not buy the old", "completion": "lamp today lamp today lamp"}
    (tmp_path / "a.jsonl").write_text(json.dumps(row), encoding="utf-8")
    data = PromptedText(tmp_path, "a.jsonl", grammar_tokenizer(), max_length=6, prompt_tokens=3)
    sample = data[0]
    assert data.tokenizer.decode(sample["inputs"]["input_ids"]) == "[BOS] the old lamp today lamp"
    assert sample["mask"].sum() == 3
    with pytest.raises(ConfigError, match="prompt_tokens must lie between 1 and 4"):
        PromptedText(tmp_path, "a.jsonl", grammar_tokenizer(), max_length=6, prompt_tokens=5)


def test_prompts_are_padded_on_the_left() -> None:
    data = GrammarLines(8, words=3)
    batch = pad_prompted([data[i] for i in range(8)])
    assert batch["prompts"]["attention_mask"][:, -1].all()
    assert batch["inputs"]["attention_mask"][:, 0].all()
    assert (batch["targets"][batch["inputs"]["attention_mask"] == 0] == -100).all()


def test_running_text_counts_every_token(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("Anna Berg will buy\nTom will sell\n", encoding="utf-8")
    data = RunningText(tmp_path, "a.txt", grammar_tokenizer(), max_length=4)
    assert len(data) == 2
    assert data.tokenizer.decode(data[1]["inputs"]["input_ids"]) == "[EOS] Tom will sell"
    assert torch.equal(data[1]["targets"][:-1], data[1]["inputs"]["input_ids"][1:])
    assert data[1]["targets"][-1] == -100
    with pytest.raises(DataError, match="holds 9 tokens, less than one piece of 50"):
        RunningText(tmp_path, "a.txt", grammar_tokenizer(), max_length=50)


class Scripted(nn.Module):
    """Writes a fixed continuation, whatever the prompt."""

    def __init__(self, script: list[list[int]]) -> None:
        super().__init__()
        self.script = torch.tensor(script)
        self.was_training: list[bool] = []

    def generate(self, input_ids: torch.Tensor, **_: Any) -> torch.Tensor:
        self.was_training.append(self.training)
        return torch.cat([input_ids, self.script], 1)


PROMPTS = {"input_ids": torch.tensor([[5, 20], [0, 5]]), "attention_mask": torch.tensor([[1, 1], [0, 1]])}


def test_what_follows_the_end_is_dropped() -> None:
    model = Scripted([[30, END, 31], [END, 32, 33]]).train()
    written = complete(model, PROMPTS, end_token=END)
    assert written.tolist() == [[30, END, 0], [END, 0, 0]]
    assert model.was_training == [False]
    assert model.training


def test_written_text_becomes_a_batch_without_left_padding() -> None:
    batch = sequences(PROMPTS, torch.tensor([[30, END, 0], [END, 0, 0]]), end_token=END)
    assert batch["inputs"]["input_ids"].tolist() == [[5, 20, 30, END], [5, END, 0, 0]]
    assert batch["inputs"]["attention_mask"].tolist() == [[1, 1, 1, 1], [1, 1, 0, 0]]
    assert batch["targets"].tolist() == [[-100, 30, END, -100], [END, -100, -100, -100]]


def test_a_padding_id_inside_a_text_is_a_token_like_others() -> None:
    """Prompts are known by their mask, not by the id of padding, which some models share with the end."""
    prompts = {"input_ids": torch.tensor([[0, 5]]), "attention_mask": torch.tensor([[1, 1]])}
    batch = sequences(prompts, torch.tensor([[0, 9]]), end_token=None)
    assert batch["inputs"]["input_ids"].tolist() == [[0, 5, 0, 9]]
    assert batch["mask"].sum() == 2
    assert until_end(torch.tensor([[0, 9]]), None).all()


def test_greedy_text_of_a_real_model_does_not_depend_on_padding() -> None:
    model = llama(initializer_range=0.5).eval()
    alone = complete(
        model, {k: v[1:, 1:] for k, v in PROMPTS.items()}, end_token=END, temperature=None, max_new_tokens=5
    )
    both = complete(model, PROMPTS, end_token=END, temperature=None, max_new_tokens=5)
    assert both[1, : alone.shape[1]].tolist() == alone[0].tolist()


def test_generation_refuses_what_it_cannot_do() -> None:
    with pytest.raises(ConfigError, match="Linear cannot write text"):
        complete(nn.Linear(1, 1), PROMPTS, end_token=END)
    with pytest.raises(ShapeError, match="padded on the left"):
        complete(
            llama(), {"input_ids": PROMPTS["input_ids"], "attention_mask": torch.tensor([[1, 0], [1, 1]])}, end_token=1
        )
    with pytest.raises(ConfigError, match="temperature above 0"):
        complete(llama(), PROMPTS, end_token=END, temperature=0.0)


@pytest.mark.parametrize(
    ("prompt", "completion", "why"),
    [
        ("a b c", "", "empty"),
        ("a b c", "a b c", "copy"),
        ("a b c", "d", "length"),
        ("a b", "c d e f g", "length"),
        ("a b c d", "x x x y", "repeats"),
        ("a b c d", "x y x y x y", "repeats"),
        ("a b c d", "x y x y z", None),
        ("a b c", "d e", None),
    ],
)
def test_filters(prompt: str, completion: str, why: str | None) -> None:
    assert Filter().refuses(prompt, completion) == why


def test_lengths_are_judged_by_the_reference_where_there_is_one() -> None:
    assert Filter().refuses("a b c d e f", "x", "y z") is None
    with pytest.raises(ConfigError, match="0 <= shortest <= longest"):
        Filter(shortest=3.0)


def test_completions_are_written_and_read_back(tmp_path: Path) -> None:
    tokenizer, path = grammar_tokenizer(), tmp_path / "deep" / "teacher.jsonl"
    lamp, boat = tokenizer.convert_tokens_to_ids(["lamp", "boat"])
    teacher = Scripted([[lamp, boat, END], [END, 0, 0]])  # sorted by length: the second prompt first
    counts = write_completions(teacher, tokenizer, ["Tom will buy", "Tom"], path, keep=Filter())
    assert counts == {"kept": 1, "empty": 1}
    assert [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()] == [
        {"prompt": "Tom", "completion": "lamp boat", "id": 1}
    ]
    assert PromptedText(path.parent, path.name, tokenizer).rows == [("Tom", "lamp boat")]
    with pytest.raises(DataError, match=r"none of the 2 completions is kept"):
        write_completions(Scripted([[END], [END]]), tokenizer, ["Tom", "Anna"], path)
    with pytest.raises(DataError, match="2 prompts and 1 references"):
        write_completions(teacher, tokenizer, ["Tom", "Anna"], path, references=["x"])


def test_interpolation_takes_the_text_nearest_to_the_reference(tmp_path: Path) -> None:
    torch.manual_seed(0)
    teacher, tokenizer = llama(initializer_range=0.5), grammar_tokenizer()
    prompts, path = ["Tom will buy", "Mrs Koch will"], tmp_path / "teacher.jsonl"
    options: dict[str, Any] = {"beams": 4, "max_new_tokens": 6}
    asked = [torch.tensor([[5, *tokenizer(text, add_special_tokens=False)["input_ids"]]]) for text in prompts]
    beams = [
        complete(
            teacher, {"input_ids": ids, "attention_mask": torch.ones_like(ids)}, end_token=END, temperature=None,
            returned=4, **options,
        )
        for ids in asked
    ]  # fmt: skip
    texts = [tokenizer.batch_decode(found.tolist(), skip_special_tokens=True) for found in beams]
    assert all(len(set(of)) == 4 for of in texts)

    def written(**more: Any) -> list[str]:
        references = [of[-1] for of in texts]
        write_completions(teacher, tokenizer, prompts, path, references=references, **options, **more)
        return [json.loads(line)["completion"] for line in path.read_text(encoding="utf-8").splitlines()]

    assert written() == [of[0] for of in texts]
    assert written(interpolate=True) == [of[-1] for of in texts]
    with pytest.raises(ConfigError, match="give references and beams > 1"):
        write_completions(teacher, tokenizer, prompts, tmp_path / "t.jsonl", interpolate=True)
    with pytest.raises(ConfigError, match="returned must lie between"):
        complete(teacher, {}, end_token=END, returned=2)
