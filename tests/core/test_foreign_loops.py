"""The distiller in loops that know nothing of it: the code of ``docs/how-to/own_loop.md``, run as a reader would."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import lightning
import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, kl_div
from transformers import BertForSequenceClassification, TrainingArguments
from transformers.trainer_callback import PrinterCallback

import doc_blocks
from limbeck_core import Distiller, MappingCall, Match
from limbeck_core.losses import KLDivergenceLoss
from limbeck_core.schedules import Linear, Progress

PAGE = doc_blocks.DOCS / "how-to" / "own_loop.md"
SETUP, LOOP, SCHEDULES, MODULE, LIGHTNING, MODELS, TRAINER = range(7)  # the page's blocks, in order

State = dict[str, Tensor]


def snapshot(model: nn.Module) -> State:
    return copy.deepcopy(model.state_dict())


def same(first: State, second: State) -> bool:
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("own_loop")


@pytest.fixture(scope="module")
def setup(folder: Path) -> dict[str, Any]:
    """The page's models and data, before anything is trained."""
    torch.manual_seed(0)
    return doc_blocks.run(PAGE, only=slice(SETUP, LOOP))


@pytest.fixture(autouse=True)
def _inside(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The page writes where it stands."""
    monkeypatch.chdir(folder)


def go_on(scope: dict[str, Any], *blocks: int) -> dict[str, Any]:
    for block in blocks:
        scope = doc_blocks.run(PAGE, only=slice(block, block + 1), scope=scope)
    return scope


class TestPlainLoop:
    def test_ten_lines_do_what_a_loop_by_hand_does(self, setup: dict[str, Any]) -> None:
        # one step: batch normalisation over few samples makes much of rounding in the steps after
        setup = {**setup, "student": copy.deepcopy(setup["student"]), "loader": [next(iter(setup["loader"]))]}
        student, teacher = copy.deepcopy(setup["student"]).train(), copy.deepcopy(setup["teacher"]).eval()
        before = snapshot(teacher)
        optimizer = torch.optim.SGD(student.parameters(), lr=0.01, momentum=0.9)
        for images, labels in setup["loader"]:
            logits = student(images)
            with torch.no_grad():
                soft = (teacher(images) / 4).softmax(1)
            kd = 16 * kl_div((logits / 4).log_softmax(1), soft, reduction="batchmean")
            optimizer.zero_grad()
            (cross_entropy(logits, labels) + 0.9 * kd).backward()
            optimizer.step()
        scope = go_on(setup, LOOP)
        torch.testing.assert_close(torch.load("student.pth", weights_only=True), student.state_dict())
        assert same(snapshot(scope["teacher"]), before)

    def test_it_is_ten_lines(self) -> None:
        block = [block for block in doc_blocks.blocks(PAGE) if block.runs][LOOP]
        assert len([line for line in block.code.splitlines() if line.strip()]) == 10

    def test_schedules_and_a_moving_average(self, setup: dict[str, Any]) -> None:
        scope = go_on(setup, SCHEDULES)
        student, follower = scope["student"], scope["distiller"].teacher.model
        assert not same(snapshot(student), snapshot(follower))
        # one third of the way before the end, of a line from 1 to 0
        assert scope["distiller"].matches["kd"].scale(scope["progress"]) == pytest.approx(1 / 3)
        saved = torch.load("checkpoint.pth", weights_only=True)
        fresh = Distiller(
            scope["shufflenet_v2_x0_5"](num_classes=10),
            scope["EMATeacher"](student),
            {"kd": Match(KLDivergenceLoss(), "fc", "fc")},
        )
        fresh.load_state_dict(saved["distiller"])
        fresh.load_state_dict_extra(saved["teachers"])
        assert same(snapshot(fresh.student), snapshot(student))
        assert same(snapshot(fresh.teacher.model), snapshot(follower))


@pytest.fixture(scope="module")
def trained(setup: dict[str, Any], folder: Path) -> dict[str, Any]:
    """The page's run of Lightning."""
    before = snapshot(setup["teacher"])
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        # what the page has imported by the time it comes to Lightning
        scope = go_on({**setup, "Linear": Linear, "Progress": Progress}, MODULE, LIGHTNING)
    return {**scope, "teacher_before": before}


@pytest.mark.filterwarnings("ignore:.*num_workers:UserWarning", "ignore:.*isinstance.treespec:FutureWarning")
class TestLightning:
    def test_every_loss_is_logged(self, trained: dict[str, Any]) -> None:
        logged = trained["trainer"].callback_metrics
        assert {"loss/task", "loss/kd", "top1"} <= logged.keys()

    def test_the_run_tells_schedules_where_it_stands(self, trained: dict[str, Any]) -> None:
        progress = trained["module"].distiller.progress
        assert (progress.step, progress.epoch, progress.max_steps, progress.max_epochs) == (5, 1, 6, 2)

    def test_the_teacher_is_as_before_and_in_no_checkpoint(self, trained: dict[str, Any]) -> None:
        distiller = trained["module"].distiller
        assert same(snapshot(trained["teacher"]), trained["teacher_before"])
        assert not any(module.training for module in trained["teacher"].modules())
        weights = torch.load("run.ckpt", weights_only=True)["state_dict"]
        assert weights.keys() == {f"distiller.student.{name}" for name in distiller.student.state_dict()}

    def test_it_goes_on_from_its_checkpoint(self, trained: dict[str, Any]) -> None:
        module = trained["Distillation"](
            Distiller(trained["shufflenet_v2_x0_5"](num_classes=10), trained["teacher"], trained["matches"])
        )
        options = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
        trainer = lightning.Trainer(max_epochs=3, accelerator="cpu", enable_model_summary=False, **options)
        trainer.fit(module, trained["loader"], ckpt_path="run.ckpt", weights_only=True)
        assert (trainer.global_step, trainer.current_epoch) == (9, 3)


@pytest.fixture(scope="module")
def models(setup: dict[str, Any]) -> dict[str, Any]:
    """The page's BERTs, before anything is trained."""
    return go_on(setup, MODELS)


class TestTransformers:
    def test_training_and_evaluation(self, models: dict[str, Any]) -> None:
        before = snapshot(models["distiller"].student), snapshot(models["distiller"].teacher.model)
        scope = go_on(models, TRAINER)
        distiller = scope["distiller"]
        assert not same(snapshot(distiller.student), before[0])
        assert same(snapshot(distiller.teacher.model), before[1])
        assert scope["trainer"].state.global_step == 4

        distiller.eval()
        batch = {
            name: torch.stack([torch.as_tensor(s[name]) for s in scope["samples"]]) for name in scope["samples"][0]
        }
        with torch.no_grad():
            expected = sum(distiller(**batch).values())
        assert scope["metrics"]["eval_loss"] == pytest.approx(float(expected), rel=1e-3)

        reloaded = BertForSequenceClassification.from_pretrained("student", local_files_only=True)
        assert same(snapshot(reloaded), snapshot(distiller.student))

    def test_padding_teaches_nothing(self, models: dict[str, Any]) -> None:
        distiller = models["distiller"].eval()
        ids, mask = torch.randint(100, (3, 8)), torch.ones(3, 8)
        mask[1, 5:] = 0
        losses = distiller(input_ids=ids, attention_mask=mask, labels=torch.tensor([0, 1, 0]))
        hidden = [
            model.bert(ids, attention_mask=mask, output_hidden_states=True).hidden_states[layer + 1]
            for model, layer in ((distiller.student, 1), (distiller.teacher.model, 3))
        ]
        expected = (hidden[0] - hidden[1])[mask.bool()].square().mean()
        torch.testing.assert_close(losses["loss/hidden"], expected)

    def test_accumulated_batches_count_once(self, models: dict[str, Any]) -> None:
        """Left alone, the Trainer would add up the losses of the parts instead of averaging them."""
        scope = go_on(models, TRAINER) if "DistillationTrainer" not in models else models
        states = []
        for parts in (1, 2):
            torch.manual_seed(1)
            student = scope["bert"](2)
            for module in student.modules():
                if isinstance(module, nn.Dropout):
                    module.p = 0.0
            kd = Match(KLDivergenceLoss(), "classifier", "classifier")
            distiller = Distiller(
                student, scope["bert"](4), {"kd": kd}, call=MappingCall(("input_ids", "attention_mask"))
            )
            arguments = TrainingArguments(
                output_dir="parts",
                max_steps=1,
                per_device_train_batch_size=4 // parts,
                gradient_accumulation_steps=parts,
                optim="sgd",
                learning_rate=1.0,
                remove_unused_columns=False,
                label_names=["labels"],
                report_to="none",
                save_strategy="no",
                use_cpu=True,
                disable_tqdm=True,
            )
            trainer = scope["DistillationTrainer"](model=distiller, args=arguments, train_dataset=scope["samples"][:4])
            trainer.remove_callback(PrinterCallback)
            trainer.train()
            states.append(snapshot(distiller.student))
        torch.testing.assert_close(states[0], states[1], rtol=1e-4, atol=1e-6)
