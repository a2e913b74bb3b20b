"""The training step of LSSKD: rotated images, softened labels at every head, knowledge from deep to shallow."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

import torch
from torch import Tensor, nn

from limbeck_core import Distiller, PastSelf, Tap
from limbeck_core.build import build
from limbeck_core.calls import TASK, Call, apply_task_loss
from limbeck_core.checks import check_non_negative, check_positive
from limbeck_core.errors import ConfigError, MatchError, ShapeError, TargetError
from limbeck_core.functional import kl_divergence_loss, progressive_target, soft_target_cross_entropy_loss
from limbeck_core.functional.precision import at_least_float32
from limbeck_core.gather import mean_scale, world_size
from limbeck_core.schedules import Complement, Progress, Schedule, WarmUp, as_schedule
from limbeck_core.tap import unwrap
from limbeck_vision.methods.lsskd.branches import auxiliary_branches
from limbeck_vision.methods.sla import joint_target, number_of_views, transformed_views
from limbeck_vision.models import ImageCall

ROTATIONS = number_of_views("rotation")


class RotationCall(ImageCall):
    """Train on every image in its four rotations, with the task loss on the unturned ones; predict on plain images.

    One batch goes through the network, so that batch norm sees all rotations together. Row ``4 n + j`` of whatever is
    tapped is image n turned by j quarters.
    """

    def loss(
        self, model: nn.Module, batch: Mapping[str, Any], view: str, task_loss: nn.Module | None
    ) -> dict[str, Any]:
        """Run the student on all rotations and compare the unturned images' output with ``batch["targets"]``.

        Raises:
            MatchError: if the batch lacks the view or the targets.
            ShapeError: if the images are not square.
        """
        for name, what in ((view, "images"), ("targets", "labels")):
            if name not in batch:
                raise MatchError(f"LSSKD needs the {what} {name!r} of the batch; it has: {', '.join(map(str, batch))}")
        output = self.capture(model, {**batch, view: transformed_views(batch[view])}, view)
        return {} if task_loss is None else {TASK: apply_task_loss(task_loss, output[::ROTATIONS], batch["targets"])}


class _Memory(PastSelf):
    """Past predictions that the distiller writes by hand: the heads score rotated images, and branches have no tap."""

    def __init__(self, num_samples: int, num_classes: int) -> None:
        super().__init__(num_samples, num_classes, dtype=torch.float16)
        self.student_taps = {}


class LayeredDistiller(Distiller):
    r"""A student that teaches itself: its past teaches its present, its deep layers teach the shallow ones.

    .. math::

        L = & (1 - \alpha) CE(z, y) + \alpha CE(z, p_{e-1})
            + \lambda_b \sum_{l=1}^{L} CE\big(a_l, (1 - \alpha) \, \tilde y + \alpha \, q_{e-1, l}\big) \\
            & + \lambda_k \tau^2 \sum_{l < L} KL\big(\sigma(a_L / \tau) \,\|\, \sigma(a_l / \tau)\big)
            + \lambda_f \sum_{l=1}^{L} \lVert f_l - F \rVert^2

    with the logits :math:`z` of the unturned images, the logits :math:`a_l` over class and rotation (joint label
    :math:`\tilde y = 4 y + j`) of the branch after stage l and its pooled features :math:`f_l`, the pooled features
    :math:`F` of the network, and the softmax of each head an epoch ago. Sums over l, means over rows. Past, deepest
    branch and :math:`F` carry no gradient. Logged are ``loss/task`` and ``loss/past`` (the first two terms),
    ``loss/branches``, ``loss/deep_to_shallow`` and ``loss/features``.

    The branches are no part of the student: its weights, its export and its predictions are those of the plain network.

    From the paper are the heads, the softened labels, the direction of the divergence and the target of the features;
    nothing else of it is established. Choices made here: the deepest branch teaches all others; features are compared
    after pooling; :math:`\alpha` rises as in PS-KD and :math:`\tau` is that of HSAKD; the weights are 1, 1 and 0.03.

    Args:
        student: The network, or a config of it.
        num_samples: Size of the training set; the batch's ``ids`` index it.
        num_classes: Number of classes C; by default the student's own attribute ``num_classes``.
        branches: Branch for each tap of the student, from the shallowest to the deepest, with ``4 C`` outputs; or
            configs of them. By default :func:`~limbeck_vision.methods.lsskd.auxiliary_branches`.
        blocks: Residual blocks of each stage of the default branches.
        logits: Tap on the student's logits.
        embedding: Tap on the pooled features of its last layer, ``(N, D)``.
        past_weight: :math:`\alpha`: a number from 0 to 1, or a schedule.
        past_temperature: Softness of the remembered predictions. The paper prints one without a value; 1 is PS-KD's.
        branch_weight: :math:`\lambda_b`.
        divergence_weight: :math:`\lambda_k`.
        divergence_temperature: :math:`\tau`.
        feature_weight: :math:`\lambda_f`.
        call: How to call the student; :class:`RotationCall` by default.
        options: Further arguments of :class:`~limbeck_core.Distiller`, but for teachers and matches.

    The memory takes ``2 num_samples (C + 16 L C)`` bytes on the CPU and in each checkpoint: 650 MB for CIFAR-100 with
    four branches.

    Raises:
        ConfigError: if the number of classes is not known, or there is no branch.
        ValueError: if a weight is negative or a temperature is not above 0.

    Reference:
        Dahri et al., A Layered Self-Supervised Knowledge Distillation Framework for Efficient Multimodal Learning on
        the Edge, arXiv:2506.07055; branches and rotations of HSAKD, arXiv:2107.13715; the past of PS-KD,
        arXiv:2006.12000.
    """

    def __init__(
        self,
        student: nn.Module | Mapping[str, Any],
        num_samples: int,
        num_classes: int | None = None,
        *,
        branches: Mapping[str, nn.Module | Mapping[str, Any]] | None = None,
        blocks: int = 1,
        logits: str | Tap = "fc",
        embedding: str | Tap = "pool",
        past_weight: float | Schedule | Mapping[str, Any] = WarmUp(0.8),  # noqa: B008  immutable
        past_temperature: float = 1.0,
        branch_weight: float = 1.0,
        divergence_weight: float = 1.0,
        divergence_temperature: float = 3.0,
        feature_weight: float = 0.03,
        call: Call | Mapping[str, Any] | None = None,
        **options: Any,
    ) -> None:
        check_positive(past_temperature, "past_temperature")
        check_positive(divergence_temperature, "divergence_temperature")
        for name, weight in (("branch", branch_weight), ("divergence", divergence_weight), ("feature", feature_weight)):
            check_non_negative(weight, f"{name}_weight")
        network: nn.Module = build(student)
        classes = num_classes if num_classes is not None else getattr(unwrap(network), "num_classes", None)
        if not isinstance(classes, int):
            raise ConfigError(f"{type(network).__name__} does not say how many classes it scores: give num_classes")
        joint = classes * ROTATIONS
        heads = auxiliary_branches(network, joint, blocks=blocks) if branches is None else branches
        if not heads:
            raise ConfigError("LSSKD needs a branch after at least one stage, got none")
        self._stage_taps = {f"stage{index}": path for index, path in enumerate(heads)}
        past = as_schedule(past_weight)
        super().__init__(
            network,
            {
                "past": _Memory(num_samples, classes),
                **{f"past_{name}": _Memory(num_samples * ROTATIONS, joint) for name in self._stage_taps},
            },
            taps={"logits": logits, "embedding": embedding, **self._stage_taps},
            task_weight=Complement(past),
            call=call or RotationCall(),
            **options,
        )
        self.branches = nn.ModuleList(build(head) for head in heads.values())
        self.past_weight = past
        self.past_temperature = past_temperature
        self.branch_weight = branch_weight
        self.divergence_weight = divergence_weight
        self.divergence_temperature = divergence_temperature
        self.feature_weight = feature_weight

    def compute_losses(self, batch: Mapping[str, Any], weights: Mapping[str, float]) -> dict[str, Tensor]:
        """Return the losses beside the task loss, and remember what every head said.

        Args:
            batch: With ``targets``, class indices, and ``ids``.
            weights: Empty: there are no matches.

        Raises:
            TargetError: if the labels are mixed; no rule is known for those.
            ShapeError: if a branch has not ``4 C`` outputs, or its features not the width of the embedding.
        """
        target = torch.as_tensor(batch["targets"])
        if target.is_floating_point():
            raise TargetError("LSSKD needs class indices as targets, got soft labels: turn mixup and CutMix off")
        past_weight = self.past_weight(self.progress or Progress())
        turned = self._turned(batch, target)
        logits = self.read("logits")[::ROTATIONS]
        said = self._run_branches()
        self._check_branches(said)
        past = self._memory("past").recall(batch)
        losses = {"past": past_weight * soft_target_cross_entropy_loss(logits, past)}
        total = torch.zeros((), device=logits.device)
        for name, (joint_logits, _) in said.items():
            label = progressive_target(
                turned["targets"], self._memory(f"past_{name}").recall(turned), past_weight=past_weight
            )
            total = total + soft_target_cross_entropy_loss(joint_logits, label)
        losses["branches"] = self.branch_weight * total
        losses["deep_to_shallow"] = self.divergence_weight * self._divergence([logits for logits, _ in said.values()])
        losses["features"] = self.feature_weight * self._distance([pooled for _, pooled in said.values()])
        if self.training:
            self._remember("past", batch, logits)
            for name, (joint_logits, _) in said.items():
                self._remember(f"past_{name}", turned, joint_logits)
        # data parallelism averages over ranks; uneven shares must count by their size
        share = mean_scale(len(logits), logits.device) if world_size() > 1 else 1.0
        return {f"loss/{name}": value * share for name, value in losses.items()}

    @torch.no_grad()
    def branch_probabilities(self, batch: Mapping[str, Any]) -> dict[str, Tensor]:
        """Return what each branch says of the unturned images, to see how deep knowledge lies.

        Args:
            batch: A training batch. Call ``eval()`` before.

        Returns:
            Probabilities ``(N, C)`` by tap: those of class and rotation, summed over rotations.
        """
        self._batch = batch
        try:
            self._run_student(batch)
            said = self._run_branches()
        finally:
            self._batch = None
            self._recorders["student"].clear()
        joint = {self._stage_taps[name]: logits[::ROTATIONS].float().softmax(1) for name, (logits, _) in said.items()}
        return {path: rows.reshape(len(rows), -1, ROTATIONS).sum(2) for path, rows in joint.items()}

    @staticmethod
    def _turned(batch: Mapping[str, Any], target: Tensor) -> dict[str, Any]:
        """The rows of all rotations, as samples of their own."""
        if "ids" not in batch:
            raise MatchError("LSSKD needs 'ids' of the batch, the index of each sample in the training set")
        ids = joint_target(torch.as_tensor(batch["ids"]).long(), views=ROTATIONS)
        return {"ids": ids, "targets": joint_target(target.long(), views=ROTATIONS)}

    def _memory(self, name: str) -> PastSelf:
        return cast("PastSelf", self.teachers[name])

    def _run_branches(self) -> dict[str, tuple[Tensor, Tensor]]:
        return {name: branch(self.read(name)) for name, branch in zip(self._stage_taps, self.branches, strict=True)}

    def _check_branches(self, said: Mapping[str, tuple[Tensor, Tensor]]) -> None:
        width = self.read("embedding").shape[1]
        for name, (logits, pooled) in said.items():
            outputs = self._memory(f"past_{name}").bank.shape[1]
            if logits.shape[1] != outputs or pooled.shape[1] != width:
                raise ShapeError(
                    f"the branch on tap {self._stage_taps[name]!r} must give logits (N, {outputs}), a score for each "
                    f"class and rotation, and pooled features (N, {width}) as at tap '{self.taps['embedding']}', got "
                    f"{tuple(logits.shape)} and {tuple(pooled.shape)}"
                )

    def _divergence(self, logits: list[Tensor]) -> Tensor:
        total = torch.zeros((), device=logits[0].device)
        for shallow in logits[:-1]:
            total = total + kl_divergence_loss(shallow, logits[-1], temperature=self.divergence_temperature)
        return total

    def _distance(self, pooled: list[Tensor]) -> Tensor:
        final = at_least_float32(self.read("embedding").detach())
        rows = torch.stack([(at_least_float32(features) - final).square().sum(1) for features in pooled])
        return rows.sum() / max(rows.shape[1], 1)

    def _remember(self, memory: str, batch: Mapping[str, Any], logits: Tensor) -> None:
        self._memory(memory).observe(batch, {"logits": logits.detach() / self.past_temperature})
