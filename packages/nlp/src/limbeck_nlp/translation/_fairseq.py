"""Distillation as criteria of fairseq; the only file that knows fairseq, which is an extra.

::

    D=$(python -c "from limbeck_nlp.translation import USER_DIR; print(USER_DIR)")
    fairseq-train DATA --user-dir $D --criterion limbeck_word_kd --teacher T.pt --arch transformer ...

``limbeck_word_kd`` compares each token with a teacher, ``limbeck_sequence_kd`` learns the teacher's translations, and
``limbeck_past_kd`` (with ``--task limbeck_translation``) learns from the model of the epoch before. In validation all
report the label-smoothed cross-entropy alone, so that runs can be compared and the best checkpoint means the same.
"""

# no postponed annotations here: fairseq reads the types of its dataclasses' fields

import argparse
import copy
import logging
import math
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from limbeck_core.checks import check_between, check_positive
from limbeck_core.errors import CheckpointError, ConfigError, MissingDependency
from limbeck_core.functional import generalized_jsd_loss
from limbeck_core.schedules import Progress
from limbeck_core.teacher import FrozenTeacher
from limbeck_core.weights import read_file
from limbeck_nlp.data.dataset import IGNORED
from limbeck_nlp.evaluation.bleu import closest_to_reference
from limbeck_nlp.language_models.losses import token_cross_entropy_loss
from limbeck_nlp.language_models.past import PastWeight

try:
    from fairseq.criterions import register_criterion
    from fairseq.criterions.label_smoothed_cross_entropy import (
        LabelSmoothedCrossEntropyCriterion,
        LabelSmoothedCrossEntropyCriterionConfig,
    )
    from fairseq.data import data_utils
    from fairseq.logging import metrics
    from fairseq.tasks import FairseqTask, register_task
    from fairseq.tasks.translation import TranslationConfig, TranslationTask
    from omegaconf import II
except ImportError as error:
    raise MissingDependency(
        "the criteria for fairseq need fairseq: pip install 'limbeck-nlp[fairseq]' (Python 3.11 or 3.12). Without it, "
        "the same methods run on transformers' Marian models: see the configs nlp/translation/marian_*"
    ) from error

# fairseq writes its options into every checkpoint as a Namespace, which PyTorch from 2.6 on refuses to read by default,
# so that no run of fairseq could go on; a Namespace runs nothing when it is read
torch.serialization.add_safe_globals([argparse.Namespace])
logger = logging.getLogger(__name__)
PAST_FILE = "limbeck_past.pt"


class _Distillation(LabelSmoothedCrossEntropyCriterion):  # type: ignore[misc]  # fairseq is untyped
    """What the criteria share: sums over tokens by core's losses, and plain cross-entropy in validation."""

    def __init__(self, task: Any, sentence_avg: bool, label_smoothing: float, alpha: float) -> None:
        super().__init__(task, sentence_avg, label_smoothing)
        check_between(alpha, "alpha", 0.0, 1.0)
        self.alpha = alpha
        self.label_smoothing = label_smoothing

    def forward(self, model: Any, sample: dict[str, Any], reduce: bool = True) -> tuple[Tensor, Any, dict[str, Any]]:
        """Return the summed loss, what to divide its gradient by, and what to log."""
        if not model.training:
            loss, size, log = super().forward(model, sample, reduce=reduce)
            return loss, size, {**log, "kd_loss": 0.0, "alpha": 0.0}
        return self.distil(model, sample, reduce)

    def distil(self, model: Any, sample: dict[str, Any], reduce: bool) -> tuple[Tensor, Any, dict[str, Any]]:
        """Compute the loss of a training batch."""
        raise NotImplementedError

    def terms(
        self, logits: Tensor, target: Tensor, reduce: bool, *, smoothing: float | None = None
    ) -> tuple[Tensor, Tensor]:
        """Label-smoothed and plain cross-entropy, summed over the tokens that are no padding."""
        labels = target.masked_fill(target == self.padding_idx, IGNORED)
        how: Any = "sum" if reduce else "none"
        share = self.label_smoothing if smoothing is None else smoothing
        smoothed = token_cross_entropy_loss(logits, labels, smoothing=share, reduction=how)
        return smoothed, token_cross_entropy_loss(logits.detach(), labels, reduction="sum")

    def against(self, teacher: FrozenTeacher, model: Any, sample: dict[str, Any], temperature: float, reduce: bool,
                alpha: float) -> tuple[Tensor, Any, dict[str, Any]]:  # fmt: skip
        """Mix cross-entropy with the divergence from a teacher that reads the same prefixes."""
        logits, target = _logits(model, model(**sample["net_input"])), sample["target"]
        smoothed, nll = self.terms(logits, target, reduce)
        if alpha:
            expected = _logits(teacher.to(logits.device).model, teacher(**sample["net_input"]))
            how: Any = "sum" if reduce else "none"
            mask = target != self.padding_idx
            kd = generalized_jsd_loss(logits, expected, beta=0.0, temperature=temperature, mask=mask, reduction=how) * (
                temperature**2
            )
        else:
            kd = torch.zeros_like(smoothed)
        loss = (1 - alpha) * smoothed + alpha * kd
        return loss, *self._log(sample, loss, nll, kd, alpha, int(sample["ntokens"]))

    def _log(
        self, sample: dict[str, Any], loss: Tensor, nll: Tensor, kd: Tensor, alpha: float, tokens: int
    ) -> tuple[Any, dict[str, Any]]:
        sentences = sample["target"].size(0)
        size = sentences if self.sentence_avg else tokens
        return size, {
            "loss": loss.detach(),
            "nll_loss": nll,
            "kd_loss": kd.detach().sum(),
            "alpha": alpha * tokens,
            "ntokens": tokens,
            "nsentences": sentences,
            "sample_size": size,
        }

    @classmethod
    def reduce_metrics(cls, logging_outputs: list[dict[str, Any]]) -> None:
        """Log per token, losses in bits as fairseq does; ``kd_loss`` before its weight."""
        super().reduce_metrics(logging_outputs)
        tokens = sum(float(log.get("ntokens", 0)) for log in logging_outputs)
        if tokens:
            kd = sum(float(log.get("kd_loss", 0)) for log in logging_outputs)
            metrics.log_scalar("kd_loss", kd / tokens / math.log(2), tokens, round=3)
            metrics.log_scalar("alpha", sum(float(log.get("alpha", 0)) for log in logging_outputs) / tokens, tokens)


@dataclass
class _TeacherConfig(LabelSmoothedCrossEntropyCriterionConfig):  # type: ignore[misc]
    teacher: str = field(default="", metadata={"help": "checkpoint of the teacher, with the same dictionaries"})


@dataclass
class WordConfig(_TeacherConfig):
    """Options of ``limbeck_word_kd``."""

    alpha: float = field(default=0.5, metadata={"help": "weight of the teacher; the label has the rest"})
    kd_temperature: float = field(default=1.0, metadata={"help": "softness of both distributions"})


@register_criterion("limbeck_word_kd", dataclass=WordConfig)
class WordDistillation(_Distillation):
    r"""Word-level distillation: :math:`(1 - \alpha) \, CE + \alpha \tau^2 \sum_t KL(p_T(\cdot | y_{<t}) \| p_S)`.

    Reference:
        Kim and Rush, Sequence-Level Knowledge Distillation, arXiv:1606.07947, section 3.1.
    """

    def __init__(
        self,
        task: Any,
        sentence_avg: bool,
        label_smoothing: float,
        teacher: str,
        alpha: float = 0.5,
        kd_temperature: float = 1.0,
    ) -> None:
        super().__init__(task, sentence_avg, label_smoothing, alpha)
        check_positive(kd_temperature, "kd_temperature")
        self.temperature = kd_temperature
        self._teacher = _hidden(FrozenTeacher(load_teacher(teacher, task)))

    def distil(self, model: Any, sample: dict[str, Any], reduce: bool) -> tuple[Tensor, Any, dict[str, Any]]:
        """Compute the loss of a training batch."""
        return self.against(self._teacher[0], model, sample, self.temperature, reduce, self.alpha)


@dataclass
class SequenceConfig(_TeacherConfig):
    """Options of ``limbeck_sequence_kd``."""

    alpha: float = field(default=1.0, metadata={"help": "weight of the teacher's translation; the data's has the rest"})
    teacher_beam: int = field(default=5, metadata={"help": "beams of the teacher's search"})
    teacher_lenpen: float = field(default=1.0, metadata={"help": "its length penalty"})
    interpolate: bool = field(
        default=False, metadata={"help": "take the hypothesis that is nearest to the data's translation by BLEU"}
    )


@register_criterion("limbeck_sequence_kd", dataclass=SequenceConfig)
class SequenceDistillation(_Distillation):
    """Sequence-level distillation: cross-entropy on what the teacher's beam search writes instead of the data's target.

    Each training sentence is translated when it is first met and remembered, so the first epoch is slow and the others
    cost nothing; after a resume they are translated anew, to the same text. The teacher's own text is not smoothed.

    Reference:
        Kim and Rush, Sequence-Level Knowledge Distillation, arXiv:1606.07947, sections 3.2 and 3.3.
    """

    def __init__(
        self,
        task: Any,
        sentence_avg: bool,
        label_smoothing: float,
        teacher: str,
        alpha: float = 1.0,
        teacher_beam: int = 5,
        teacher_lenpen: float = 1.0,
        interpolate: bool = False,
    ) -> None:
        super().__init__(task, sentence_avg, label_smoothing, alpha)
        if teacher_beam < 1 or (interpolate and teacher_beam < 2):
            raise ConfigError(f"teacher_beam must be 1 or more, 2 or more with interpolate, got {teacher_beam}")
        model = load_teacher(teacher, task)
        self._teacher = _hidden(FrozenTeacher(model))
        search = argparse.Namespace(beam=teacher_beam, lenpen=teacher_lenpen, max_len_a=1.2, max_len_b=10)
        self._generator = _hidden(task.build_generator([model], search))
        self.interpolate = interpolate
        self.written: dict[int, Tensor] = {}

    def distil(self, model: Any, sample: dict[str, Any], reduce: bool) -> tuple[Tensor, Any, dict[str, Any]]:
        """Compute the loss of a training batch."""
        made = self.rewritten(sample)
        loss, nll = self.terms(_logits(model, model(**made["net_input"])), made["target"], reduce, smoothing=0.0)
        kd, tokens = loss, int(made["ntokens"])
        if self.alpha < 1:
            gold, nll = self.terms(_logits(model, model(**sample["net_input"])), sample["target"], True)
            # both are means over their own tokens, so that long translations weigh no more than long references
            loss = self.alpha * loss.sum() + (1 - self.alpha) * gold * (tokens / max(int(sample["ntokens"]), 1))
        return loss, *self._log(sample, loss, nll, kd, self.alpha, tokens)

    @torch.no_grad()
    def rewritten(self, sample: dict[str, Any]) -> dict[str, Any]:
        """Return the batch with the teacher's translations as targets and as prefixes."""
        numbers = [int(number) for number in sample["id"]]
        if any(number not in self.written for number in numbers):
            self._translate(sample, numbers)
        rows = [self.written[number] for number in numbers]
        device = sample["target"].device
        pad, end = self.padding_idx, self.task.target_dictionary.eos()
        target = data_utils.collate_tokens(rows, pad, end).to(device)
        prefix = data_utils.collate_tokens(rows, pad, end, move_eos_to_beginning=True).to(device)
        return {
            "target": target,
            "net_input": {**sample["net_input"], "prev_output_tokens": prefix},
            "ntokens": sum(map(len, rows)),
        }

    def _translate(self, sample: dict[str, Any], numbers: list[int]) -> None:
        generator = self._generator[0].to(sample["target"].device)
        found = generator.generate([self._teacher[0].model], sample)
        for row, (number, hypotheses) in enumerate(zip(numbers, found, strict=True)):
            texts = [hypothesis["tokens"].cpu() for hypothesis in hypotheses]
            if self.interpolate:
                gold = sample["target"][row]
                written = {_as_text(text): text for text in reversed(texts)}
                best = closest_to_reference(
                    [_as_text(text) for text in texts], _as_text(gold[gold != self.padding_idx])
                )
                self.written[number] = written[best]
            else:
                self.written[number] = texts[0]


@dataclass
class PastConfig(LabelSmoothedCrossEntropyCriterionConfig):  # type: ignore[misc]
    """Options of ``limbeck_past_kd``."""

    alpha: float = field(default=0.7, metadata={"help": "weight of the past self at the end of training"})
    max_epoch: int = II("optimization.max_epoch")
    max_update: int = II("optimization.max_update")


@register_criterion("limbeck_past_kd", dataclass=PastConfig)
class PastDistillation(_Distillation):
    r"""PS-KD: the target is the label mixed with what the model of the epoch before said of the same prefix.

    The weight is zero in the first epoch and then :math:`\alpha (e + 1) / E` in epoch e of E (from 0); in a run that is
    limited by updates, :math:`\alpha` times the share of updates done. The label's part is smoothed, the other is not.

    Reference:
        Kim et al., Self-Knowledge Distillation with Progressive Refinement of Targets, arXiv:2006.12000, eq. 6.
    """

    def __init__(
        self,
        task: Any,
        sentence_avg: bool,
        label_smoothing: float,
        alpha: float = 0.7,
        max_epoch: int = 0,
        max_update: int = 0,
    ) -> None:
        super().__init__(task, sentence_avg, label_smoothing, alpha)
        if not isinstance(task, PastTask):
            raise ConfigError(
                "limbeck_past_kd needs --task limbeck_translation, which keeps the model of the epoch before, got the "
                f"task {type(task).__name__}"
            )
        if not max_epoch and not max_update:
            raise ConfigError("limbeck_past_kd needs --max-epoch or --max-update: its weight grows towards the end")
        self.max_epoch, self.max_update = max_epoch, max_update

    def distil(self, model: Any, sample: dict[str, Any], reduce: bool) -> tuple[Tensor, Any, dict[str, Any]]:
        """Compute the loss of a training batch."""
        past = self.task.past
        weight = self.weight() if past is not None else 0.0
        return self.against(past, model, sample, 1.0, reduce, weight)

    def weight(self) -> float:
        """Weight of the past self now."""
        epoch = self.task.epoch - 1  # fairseq counts from 1
        if not epoch:
            return 0.0
        if not self.max_epoch:
            return self.alpha * min(int(self.task.update) / self.max_update, 1.0)
        return PastWeight(self.alpha)(Progress(step=0, epoch=epoch, max_epochs=self.max_epoch))


@dataclass
class PastTaskConfig(TranslationConfig):  # type: ignore[misc]
    """Options of ``limbeck_translation``: those of fairseq's translation task."""

    save_dir: str = II("checkpoint.save_dir")


@register_task("limbeck_translation", dataclass=PastTaskConfig)
class PastTask(TranslationTask):  # type: ignore[misc]
    """fairseq's translation, which also keeps the model as it was at the end of the epoch before.

    fairseq restores no task when a run goes on, so the copy stands in its own file, ``limbeck_past.pt`` in the folder
    of the checkpoints, and is read when a run goes on in the middle of the epoch for which it was made.
    """

    def __init__(self, cfg: Any, src_dict: Any, tgt_dict: Any) -> None:
        super().__init__(cfg, src_dict, tgt_dict)
        self.past: FrozenTeacher | None = None
        self.epoch = 1
        self.update = 0

    def begin_epoch(self, epoch: int, model: nn.Module) -> None:
        """Take the copy; fairseq calls it once an epoch, also when a run goes on in the middle of one."""
        super().begin_epoch(epoch, model)
        going_on = self.past is None
        self.epoch = epoch
        if epoch < 2:
            return
        if self.past is None:
            self.past = FrozenTeacher(copy.deepcopy(model).float())
        path = Path(self.cfg.save_dir) / PAST_FILE
        if going_on and path.is_file():
            saved = read_file(path)
            if saved.get("epoch") == epoch:
                self.past.model.load_state_dict(saved["model"])
                logger.info("the past self of epoch %d was read from %s", epoch, path)
                return
        with torch.no_grad():
            current = model.state_dict()
            for name, value in self.past.model.state_dict().items():
                value.copy_(current[name])
        if int(os.environ.get("RANK", "0")) == 0:
            path.parent.mkdir(parents=True, exist_ok=True)
            part = path.with_name(path.name + ".part")
            torch.save({"epoch": epoch, "model": self.past.model.state_dict()}, part)
            part.replace(path)

    def train_step(
        self, sample: Any, model: Any, criterion: Any, optimizer: Any, update_num: int, **options: Any
    ) -> Any:
        """Note the number of the update and go on as fairseq does."""
        self.update = update_num
        return super().train_step(sample, model, criterion, optimizer, update_num, **options)


def load_teacher(path: str, task: Any) -> nn.Module:
    """Build the model of a fairseq checkpoint and load its weights, without running any code of the file.

    Args:
        path: A checkpoint that fairseq wrote, of a model with the task's dictionaries.
        task: The task.

    Raises:
        ConfigError: if no path is given.
        CheckpointError: if the file is missing, damaged, unsafe or no checkpoint of fairseq; or its weights do not fit
            these dictionaries.
    """
    if not path:
        raise ConfigError("this criterion needs --teacher CHECKPOINT, a model that fairseq trained")
    state = read_file(Path(path))
    settings = (state.get("cfg") or {}).get("model") if isinstance(state, dict) else None
    if settings is None or "model" not in state:
        raise CheckpointError(f"{path} is no checkpoint of fairseq 0.12: expected cfg and model in it")
    # past the task's own method, which would make the teacher the model that validation translates with
    model: nn.Module = FairseqTask.build_model(task, settings, from_checkpoint=True)
    try:
        model.load_state_dict(state["model"])
    except RuntimeError as error:
        raise CheckpointError(
            f"the weights in {path} do not fit a model on these dictionaries: {str(error).splitlines()[-1].strip()}. "
            "Word-level distillation needs one dictionary for both; otherwise let the teacher translate the training "
            "set with fairseq-generate and train on that"
        ) from error
    return model


def _hidden(value: nn.Module) -> tuple[Any]:
    """Keep a module out of the criterion's parameters: fairseq would save them and, with several ranks, reduce them."""
    return (value,)


def _logits(model: Any, output: Any) -> Tensor:
    if getattr(getattr(model, "decoder", None), "adaptive_softmax", None) is not None:
        raise ConfigError(
            "a model with adaptive softmax gives no logits of all words: leave --adaptive-softmax-cutoff out"
        )
    logits: Tensor = output[0]
    return logits


def _as_text(tokens: Tensor) -> str:
    return " ".join(map(str, tokens.tolist()))
