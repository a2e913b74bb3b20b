"""The criteria in fairseq's own training, on a tiny parallel corpus of the grammar."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from fairseq import checkpoint_utils, options, tasks, utils
from fairseq.criterions.label_smoothed_cross_entropy import LabelSmoothedCrossEntropyCriterion
from fairseq.dataclass.utils import convert_namespace_to_omegaconf
from fairseq_cli import preprocess, train

from limbeck_core.errors import CheckpointError, ConfigError
from limbeck_core.losses import GeneralizedJSDLoss
from limbeck_core.schedules import Progress
from limbeck_nlp.language_models import token_cross_entropy_loss
from limbeck_nlp.language_models.past import PastWeight
from limbeck_nlp.translation import USER_DIR, GrammarTranslations

STUDENT = ["--encoder-embed-dim", "16", "--decoder-embed-dim", "16", "--encoder-ffn-embed-dim", "32",
           "--decoder-ffn-embed-dim", "32", "--encoder-layers", "1", "--decoder-layers", "1",
           "--encoder-attention-heads", "2", "--decoder-attention-heads", "2"]  # fmt: skip
TEACHER = [word if word not in ("16", "32") else str(2 * int(word)) for word in STUDENT]


@pytest.fixture(scope="session")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Sentences of the grammar, binarised by fairseq with one dictionary for both sides."""
    folder = tmp_path_factory.mktemp("corpus")
    for part, size, seed in (("train", 96, 1), ("valid", 16, 2)):
        data = GrammarTranslations(size, seed=seed)
        for side, lines in (("en", data.sources), ("xx", data.targets)):
            (folder / f"{part}.{side}").write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    words = ["--source-lang", "en", "--target-lang", "xx", "--joined-dictionary", "--destdir", str(folder / "bin")]
    parser = options.get_preprocessing_parser()
    preprocess.main(
        parser.parse_args(
            [*words, "--trainpref", f"{folder}/train", "--validpref", f"{folder}/valid", "--workers", "1"]
        )
    )
    return folder / "bin"


class Records(logging.Handler):
    """What fairseq logs about its training, by part: one mapping an epoch."""

    def __init__(self) -> None:
        super().__init__()
        self.found: dict[str, list[dict[str, float]]] = {"train": [], "valid": []}
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        text = record.getMessage()
        self.lines.append(text)
        if record.name in self.found and "|" in text:
            words = [part.strip().rsplit(" ", 1) for part in text.split("|")]
            numbers = {w[0]: float(w[1]) for w in words if len(w) == 2 and w[1].replace(".", "").isdigit()}
            self.found[record.name].append(numbers)


@pytest.fixture
def records() -> Iterator[Records]:
    handler, root = Records(), logging.getLogger()
    level = root.level
    root.addHandler(handler)
    root.setLevel(logging.INFO)
    yield handler
    root.removeHandler(handler)
    root.setLevel(level)


def settings(corpus: Path, out: Path, criterion: str, *more: str, size: list[str] = STUDENT, epochs: int = 3) -> Any:
    words = [str(corpus), "--user-dir", str(USER_DIR), "--arch", "transformer", *size, "--share-all-embeddings",
             "--criterion", criterion, "--label-smoothing", "0.1", "--optimizer", "adam", "--lr", "0.01",
             "--lr-scheduler", "fixed", "--max-tokens", "400", "--max-epoch", str(epochs), "--save-dir", str(out),
             "--no-progress-bar", "--log-format", "simple", "--cpu", "--seed", "1", "--dropout", "0.0",
             "--num-workers", "0", *more]  # fmt: skip
    utils.import_user_module(type("Arguments", (), {"user_dir": str(USER_DIR)}))
    parser = options.get_training_parser()
    return convert_namespace_to_omegaconf(options.parse_args_and_arch(parser, words))


@pytest.fixture(scope="session")
def teacher(corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    """A checkpoint as fairseq writes it, of a larger model trained by fairseq's own criterion."""
    out = tmp_path_factory.mktemp("teacher")
    train.main(settings(corpus, out, "label_smoothed_cross_entropy", size=TEACHER, epochs=6))
    return str(out / "checkpoint_last.pt")


def batch_of(cfg: Any) -> tuple[Any, Any, Any, dict[str, Any]]:
    task = tasks.setup_task(cfg.task)
    task.load_dataset("train")
    torch.manual_seed(0)
    model, criterion = task.build_model(cfg.model), task.build_criterion(cfg.criterion)
    data = task.dataset("train")
    return task, model, criterion, data.collater([data[i] for i in range(6)])


def test_word_level_falls_in_training(corpus: Path, teacher: str, tmp_path: Path, records: Records) -> None:
    train.main(settings(corpus, tmp_path, "limbeck_word_kd", "--teacher", teacher, epochs=4))
    kd = [epoch["kd_loss"] for epoch in records.found["train"]]
    assert len(kd) == 4
    assert kd[-1] < 0.8 * kd[0]
    assert records.found["train"][-1]["alpha"] == pytest.approx(0.5)
    assert records.found["valid"][-1]["alpha"] == 0
    saved = checkpoint_utils.torch.load(tmp_path / "checkpoint_last.pt", weights_only=False)
    assert saved["criterion"] is None  # the teacher is not the student's to save


def test_word_level_agrees_with_core(corpus: Path, teacher: str, tmp_path: Path) -> None:
    more = ("--teacher", teacher, "--alpha", "0.3", "--kd-temperature", "2")
    _, model, criterion, sample = batch_of(settings(corpus, tmp_path, "limbeck_word_kd", *more))
    loss, size, log = criterion(model.train(), sample)
    logits = model(**sample["net_input"])[0]
    with torch.no_grad():
        expected = criterion._teacher[0].model.eval()(**sample["net_input"])[0]
    target, mask = sample["target"], sample["target"] != 1
    kd = 4 * GeneralizedJSDLoss(0.0, temperature=2.0)(logits, expected, mask=mask)
    task = token_cross_entropy_loss(logits, target.masked_fill(~mask, -100), smoothing=0.1)
    assert size == int(mask.sum()) == log["ntokens"]
    torch.testing.assert_close(loss / size, 0.7 * task + 0.3 * kd)
    # by hand, from probabilities
    p = (expected / 2).softmax(-1)
    by_hand = (p * (p.log() - (logits / 2).log_softmax(-1))).sum(-1)[mask].mean() * 4
    torch.testing.assert_close(kd, by_hand)


def test_without_a_teacher_weight_it_is_fairseqs_own(corpus: Path, teacher: str, tmp_path: Path) -> None:
    cfg = settings(corpus, tmp_path, "limbeck_word_kd", "--teacher", teacher, "--alpha", "0")
    task, model, criterion, sample = batch_of(cfg)
    own = LabelSmoothedCrossEntropyCriterion(task, False, 0.1)
    for mode in (True, False):
        ours, theirs = criterion(model.train(mode), sample), own(model, sample)
        torch.testing.assert_close(ours[0], theirs[0])
        assert ours[1] == theirs[1]
        torch.testing.assert_close(ours[2]["nll_loss"], theirs[2]["nll_loss"])
    per_token = criterion(model.train(), sample, reduce=False)[0]
    torch.testing.assert_close(per_token.sum(), criterion(model, sample)[0])


def test_sequence_level_learns_the_teachers_text(corpus: Path, teacher: str, tmp_path: Path, records: Records) -> None:
    cfg = settings(corpus, tmp_path, "limbeck_sequence_kd", "--teacher", teacher, "--teacher-beam", "2", epochs=3)
    train.main(cfg)
    kd = [epoch["kd_loss"] for epoch in records.found["train"]]
    assert kd[-1] < 0.9 * kd[0]
    task, model, criterion, sample = batch_of(cfg)
    loss, size, _ = criterion(model.train(), sample)
    made = criterion.rewritten(sample)
    logits = model(**made["net_input"])[0]
    labels = made["target"].masked_fill(made["target"] == 1, -100)
    torch.testing.assert_close(loss / size, token_cross_entropy_loss(logits, labels))  # not smoothed
    assert bool((made["target"] == task.target_dictionary.eos()).any(1).all())
    assert set(criterion.written) == set(sample["id"].tolist())
    found = dict(criterion.written)
    criterion(model, sample)
    assert all(criterion.written[number] is text for number, text in found.items())  # translated once


def test_interpolation_is_at_least_as_near_to_the_data(corpus: Path, teacher: str, tmp_path: Path) -> None:
    from limbeck_nlp.evaluation.bleu import sentence_bleu

    def nearness(*more: str) -> float:
        cfg = settings(corpus, tmp_path, "limbeck_sequence_kd", "--teacher", teacher, "--teacher-beam", "4", *more)
        _, _, criterion, sample = batch_of(cfg)
        criterion.rewritten(sample)
        gold = {int(n): row[row != 1] for n, row in zip(sample["id"], sample["target"], strict=True)}
        text = {n: " ".join(map(str, ids.tolist())) for n, ids in criterion.written.items()}
        return sum(sentence_bleu(text[n], " ".join(map(str, gold[n].tolist()))) for n in gold)

    assert nearness("--interpolate") >= nearness()


PAST = ("--task", "limbeck_translation")


def test_past_self_weighs_more_each_epoch(corpus: Path, tmp_path: Path, records: Records) -> None:
    train.main(settings(corpus, tmp_path, "limbeck_past_kd", *PAST, "--alpha", "0.6", epochs=3))
    weight = PastWeight(0.6)
    for epoch, numbers in enumerate(records.found["train"]):
        assert numbers["alpha"] == pytest.approx(weight(Progress(epoch=epoch, max_epochs=3)), abs=1e-3)
    saved = torch.load(tmp_path / "limbeck_past.pt", weights_only=True)
    last = torch.load(tmp_path / "checkpoint2.pt", weights_only=False)["model"]
    assert saved["epoch"] == 3
    for name, value in last.items():
        torch.testing.assert_close(saved["model"][name], value)  # the model at the end of the epoch before


def test_a_run_goes_on_in_the_middle_of_an_epoch(corpus: Path, tmp_path: Path, records: Records) -> None:
    more = (*PAST, "--max-tokens", "300")
    train.main(settings(corpus, tmp_path / "whole", "limbeck_past_kd", *more))
    whole = list(records.found["train"])
    stopped = settings(corpus, tmp_path / "cut", "limbeck_past_kd", *more)
    stopped.optimization.max_update = int(whole[0]["num_updates"]) + 2  # in the second epoch
    train.main(stopped)
    assert not any("was read from" in line for line in records.lines)
    train.main(settings(corpus, tmp_path / "cut", "limbeck_past_kd", *more))
    assert any("the past self of epoch 2 was read from" in line for line in records.lines)
    # fairseq's own runs do not go on bit by bit either
    for name in ("alpha", "loss", "kd_loss"):
        assert records.found["train"][-1][name] == pytest.approx(whole[-1][name], rel=0.01)


def test_past_self_is_that_of_the_epoch_before(corpus: Path, tmp_path: Path) -> None:
    cfg = settings(corpus, tmp_path, "limbeck_past_kd", *PAST)
    task, model, _, _ = batch_of(cfg)
    name, weight = next(iter(model.named_parameters()))

    def past(of: Any) -> float:
        return float(of.past.model.state_dict()[name].flatten()[0])

    def move(value: float) -> None:
        weight.data.flatten()[0] = value

    task.begin_epoch(1, model)
    assert task.past is None
    move(2.0)
    task.begin_epoch(2, model)
    move(3.0)
    assert past(task) == 2.0
    again = tasks.setup_task(cfg.task)
    again.begin_epoch(2, model)  # goes on in the middle of the second epoch, with what the file remembers
    assert past(again) == 2.0
    again.begin_epoch(3, model)
    assert past(again) == 3.0
    later = tasks.setup_task(cfg.task)
    move(4.0)
    later.begin_epoch(4, model)  # the file is of another epoch, so the run goes on at the beginning of this one
    assert past(later) == 4.0


@pytest.mark.parametrize(
    ("more", "says"),
    [
        ([], "limbeck_past_kd needs --task limbeck_translation"),
        ([*PAST, "--max-epoch", "0"], "needs --max-epoch or --max-update"),
    ],
)
def test_past_self_says_what_it_needs(corpus: Path, tmp_path: Path, more: list[str], says: str) -> None:
    cfg = settings(corpus, tmp_path, "limbeck_past_kd", *more)
    with pytest.raises(ConfigError, match=says):
        tasks.setup_task(cfg.task).build_criterion(cfg.criterion)


def test_teachers_that_are_none(corpus: Path, teacher: str, tmp_path: Path) -> None:
    def build(path: str | None) -> None:
        cfg = settings(corpus, tmp_path, "limbeck_word_kd", *([] if path is None else ["--teacher", path]))
        tasks.setup_task(cfg.task).build_criterion(cfg.criterion)

    with pytest.raises(ConfigError, match="needs --teacher CHECKPOINT"):
        build(None)
    with pytest.raises(CheckpointError, match="no checkpoint file"):
        build(str(tmp_path / "none.pt"))
    torch.save({"weights": torch.zeros(2)}, tmp_path / "other.pt")
    with pytest.raises(CheckpointError, match="no checkpoint of fairseq"):
        build(str(tmp_path / "other.pt"))
    state = torch.load(teacher, weights_only=False)
    for name in ("encoder.embed_tokens.weight", "decoder.embed_tokens.weight", "decoder.output_projection.weight"):
        state["model"][name] = state["model"][name][:-3]
    torch.save(state, tmp_path / "smaller.pt")
    with pytest.raises(CheckpointError, match="do not fit a model on these dictionaries"):
        build(str(tmp_path / "smaller.pt"))
