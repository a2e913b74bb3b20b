"""Export: what comes out is the student alone, the same to the last sum, in every format."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnx
import onnxruntime
import pytest
import torch
from torch import Tensor, nn

from export_toys import CLASSES, CONFIG, SIZE, Broken, Deciding, Doubling, Images, Net, Random, Words, sized_net
from limbeck_core import Distiller, MappingCall, Match, OpenMMLabCall, Peers, Tap
from limbeck_core.engine import export as export_module
from limbeck_core.engine import formats
from limbeck_core.engine.checkpoints import save_student, write_checkpoint
from limbeck_core.engine.export import FORMATS, Exported, export, export_student
from limbeck_core.errors import CheckpointError, ConfigError, ExportError, MissingDependency
from limbeck_core.losses import HintLoss
from source_tree import ROOT

FILES = {
    "state_dict": ["run_state_dict.pth"],
    "onnx": ["run.onnx"],
    "pt2": ["run.pt2"],
    "hub": ["run_hub/README.md", "run_hub/config.json", "run_hub/model.safetensors"],
}


def net(seed: int, **options: Any) -> Net:
    torch.manual_seed(seed)
    model = Net(**options)
    for value in (model.norm.weight.data, model.norm.bias.data, model.norm.running_mean, model.norm.running_var):
        value.uniform_(0.5, 1.5)  # nothing that two models share by default
    return model.eval()


def images(count: int = 3) -> Tensor:
    return torch.rand(count, 3, SIZE, SIZE)


STUDENT, AVERAGE = net(1), net(2)


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "images.py"
    path.write_text(CONFIG)
    return path


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    """A training checkpoint with a moving average."""
    path = tmp_path / "out" / "run.pth"
    path.parent.mkdir()
    hooks = {"EMAHook": {"average": AVERAGE.state_dict()}, "CheckpointHook": {"best_score": 0.5}}
    scalars = {name: {"values": torch.tensor([0.1, 0.25])} for name in ("val/top1", "val/time", "val/teacher/top1")}
    content = {"state_dict": STUDENT.state_dict(), "limbeck": {"hooks": hooks}, "message_hub": {"scalars": scalars}}
    write_checkpoint(path, content)
    return path


def run_onnx(path: Path, batch: Tensor) -> Tensor:
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return torch.from_numpy(session.run(None, {"inputs": batch.numpy()})[0])


def written(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


class TestFormats:
    @pytest.mark.parametrize("format", FORMATS)
    def test_from_a_config(self, config: Path, checkpoint: Path, format: Any) -> None:
        done = export(config, checkpoint, format)
        assert written(checkpoint.parent) == sorted(["run.pth", *FILES[format]])
        assert done.path == checkpoint.parent / FILES[format][0].partition("/")[0]
        assert done.size == sum((checkpoint.parent / name).stat().st_size for name in FILES[format])
        assert done.check.relative is not None
        assert done.check.relative <= (1e-5 if format == "onnx" else 0.0)
        assert (done.check.inputs, done.check.missing) == ("real and random", "")
        assert (done.check.tensors > 0) == (format in ("state_dict", "hub"))
        assert done.weights == "the moving average of the student, 9 names of run.pth"
        assert done.parameters == 3 * 6 * 9 + 6 + 12 + 6 * CLASSES + CLASSES
        assert done.macs == 3 * 6 * 9 * 16 + 6 * CLASSES
        assert done.metrics == {"top1": 0.25}
        assert done.inputs == ("inputs float32 (batch, 3, 8, 8)",)
        assert done.outputs == ("output float32 (batch, 3)",)
        card = dict(done.rows())
        assert card["latency"].endswith("ms at batch 1 (median; CPU, 1 thread)")
        assert card["parameters"] == f"{done.parameters:,}"

    def test_state_dict_loads_anywhere(self, config: Path, checkpoint: Path) -> None:
        weights = torch.load(export(config, checkpoint, "state_dict").path, weights_only=True)
        model = Net()
        model.load_state_dict(weights)
        assert type(weights) is dict
        assert all(torch.equal(weights[name], value) for name, value in AVERAGE.state_dict().items())

    def test_onnx_takes_any_batch_and_calls_as_the_config_does(self, config: Path, checkpoint: Path) -> None:
        path = export(config, checkpoint, "onnx").path
        batch = images(7)
        torch.testing.assert_close(run_onnx(path, batch), AVERAGE(2 * batch - 1))
        graph = onnx.load(path).graph
        dims = [[dim.dim_param or dim.dim_value for dim in v.type.tensor_type.shape.dim] for v in graph.input]
        assert dims == [["batch", 3, SIZE, SIZE]]
        names = {value.name for value in graph.initializer if value.name.startswith("model.")}
        assert names
        assert names <= {f"model.{name}" for name in AVERAGE.state_dict()}

    def test_pt2_takes_any_batch(self, config: Path, checkpoint: Path) -> None:
        program = torch.export.load(export(config, checkpoint, "pt2").path)
        batch = images(5)
        torch.testing.assert_close(program.module()(batch), AVERAGE(2 * batch - 1))

    def test_hub_folder_says_how_to_load_it_and_that_is_true(self, config: Path, checkpoint: Path) -> None:
        folder = export(config, checkpoint, "hub", out=checkpoint.parent / "mine").path
        facts = json.loads((folder / "config.json").read_text())
        assert facts["model"] == {"type": "export_toys.Net", "width": 6}
        assert facts["call"] == "export_toys.Doubling"
        assert facts["metrics"] == {"top1": 0.25}
        card = (folder / "README.md").read_text()
        assert card.startswith("---\nlibrary_name: pytorch\n")
        assert "| top1 | 0.2500 |" in card
        code = card.split("```python\n")[1].split("```")[0]
        batch = images()
        torch.save(batch, folder / "batch.pt")
        code += "import torch\ntorch.save(model(torch.load('batch.pt', weights_only=True)), 'output.pt')\n"
        environment = {**os.environ, "PYTHONPATH": str(ROOT / "tests" / "support")}
        subprocess.run([sys.executable, "-c", code], cwd=folder, env=environment, check=True, timeout=120)
        torch.testing.assert_close(torch.load(folder / "output.pt", weights_only=True), AVERAGE(batch))

    def test_a_folder_keeps_what_else_is_in_it(self, config: Path, checkpoint: Path, tmp_path: Path) -> None:
        (tmp_path / "mine").mkdir()
        (tmp_path / "mine" / "LICENSE").write_text("mine")
        for _ in range(2):
            export(config, checkpoint, "hub", out=tmp_path / "mine")
        assert written(tmp_path / "mine") == ["LICENSE", "README.md", "config.json", "model.safetensors"]

    def test_weights_too_large_for_one_file(
        self, config: Path, checkpoint: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(formats, "LARGEST_MESSAGE", 0)
        monkeypatch.setattr(onnx, "save_model", smaller_threshold(onnx.save_model))
        path = export(config, checkpoint, "onnx").path
        assert written(path.parent) == ["run.onnx", "run.onnx.data", "run.pth"]
        batch = images()
        torch.testing.assert_close(run_onnx(path, batch), AVERAGE(2 * batch - 1))


def smaller_threshold(save: Callable[..., None]) -> Callable[..., None]:
    def saving(*arguments: Any, **options: Any) -> None:
        save(*arguments, size_threshold=64, **options)

    return saving


class TestOnlyTheStudent:
    @pytest.mark.parametrize("format", FORMATS)
    def test_no_byte_of_the_teacher(self, tmp_path: Path, format: Any) -> None:
        teacher = net(9, width=5)
        hint = Match(HintLoss(), "conv", "conv", adapter=nn.Conv2d(6, 5, 1))
        distiller = Distiller(net(1), teacher, {"hint": hint}, task_loss=nn.CrossEntropyLoss())
        options = {"batch": {"inputs": images()}, "config": {"type": Net, "width": 6}}
        export_student(distiller, tmp_path / "student", format, **options)
        files = b"".join(path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())

        def found(model: nn.Module) -> list[bool]:
            tensors = [value for value in model.state_dict().values() if value.numel() >= 5]
            assert tensors
            return [value.numpy().tobytes() in files for value in tensors]

        assert not any(found(teacher))
        assert not any(found(hint.adapter))
        # ONNX folds the normalisation into the convolution; the classifier is there as it is
        assert all(found(distiller.student.fc if format == "onnx" else distiller.student))

    def test_names_are_the_students_own(self, tmp_path: Path) -> None:
        distiller = Distiller(net(1), net(9), {"hint": Match(HintLoss(), "conv", "conv")})
        export_student(distiller, tmp_path / "s.pth", "state_dict")
        assert set(torch.load(tmp_path / "s.pth", weights_only=True)) == set(Net().state_dict())

    def test_taps_stay_behind_and_the_original_goes_on(self, tmp_path: Path) -> None:
        matches = {"hint": Match(HintLoss(), Tap("fc", at="input"), Tap("fc", at="input"))}
        distiller = Distiller(net(1), net(9), matches, task_loss=nn.CrossEntropyLoss())
        seen: list[nn.Module] = []

        class Listening(Doubling):
            def capture(self, model: nn.Module, batch: Any, view: str) -> Any:
                seen.append(model)
                return super().capture(model, batch, view)

        before = distiller(images(), torch.zeros(3, dtype=torch.long))
        export_student(distiller, tmp_path / "s.pth", "state_dict", batch={"inputs": images()}, call=Listening())
        hooks = [len(m._forward_hooks) + len(m._forward_pre_hooks) for s in seen for m in s.modules()]
        assert seen
        assert sum(hooks) == 0
        assert distiller.training
        after = distiller(images(), torch.zeros(3, dtype=torch.long))
        assert before.keys() == after.keys()
        assert all(parameter.requires_grad for parameter in distiller.student.parameters())

    def test_peers_are_exported_by_their_first(self, tmp_path: Path) -> None:
        peers = Peers(net(1), net(2))
        done = export_student(peers, tmp_path / "s.onnx", "onnx", batch={"inputs": images()})
        batch = images()
        torch.testing.assert_close(run_onnx(done.path, batch), STUDENT(batch))
        config = tmp_path / "peers.py"
        text = CONFIG.replace("student=dict(type=Net, width=6)", "student=dict(type=Peers, a=A, b=A)")
        text = text.replace("import Distiller, Match", "import Distiller, Match, Peers")
        config.write_text(text.replace("model = dict(", "A = dict(type=Net, width=6)\nmodel = dict("))
        save_student(peers, tmp_path / "peers.pth")
        folder = export(config, tmp_path / "peers.pth", "hub").path
        assert json.loads((folder / "config.json").read_text())["model"] == {"type": "export_toys.Net", "width": 6}

    def test_no_path_of_this_machine(self, tmp_path: Path) -> None:
        for format in ("onnx", "pt2"):
            path = export_student(net(1), tmp_path / f"s.{format}", format, batch={"inputs": images()}).path
            content = path.read_bytes()
            assert b"site-packages" not in content
            assert str(ROOT).encode() not in content


class TestWhose:
    def test_the_students_own(self, config: Path, checkpoint: Path) -> None:
        content = {"state_dict": STUDENT.state_dict(), "limbeck": {"hooks": {"CheckpointHook": {"best_score": 0.5}}}}
        best = checkpoint.with_name("best_top1.pth")
        write_checkpoint(best, content, kind="weights")
        done = export(config, best, "state_dict")
        assert done.weights == "the student itself (its run kept no moving average), 9 names of best_top1.pth"
        assert done.metrics == {"top1": 0.5}
        assert torch.equal(torch.load(done.path, weights_only=True)["fc.weight"], STUDENT.fc.weight)

    def test_a_student_file_remembers(self, config: Path, tmp_path: Path) -> None:
        path = save_student(AVERAGE, tmp_path / "student.pth", meta={"average": True})
        assert export(config, path, "state_dict").weights.startswith("the moving average of the student, ")

    def test_partial_says_so(self, config: Path, tmp_path: Path) -> None:
        torch.save({k: v for k, v in STUDENT.state_dict().items() if k != "fc.bias"}, tmp_path / "some.pth")
        with pytest.raises(CheckpointError, match="fc.bias"):
            export(config, tmp_path / "some.pth", "state_dict")
        done = export(config, tmp_path / "some.pth", "state_dict", partial=True)
        assert done.weights.endswith("8 names of some.pth; 1 as they were drawn")


class TestInputs:
    def test_a_shape_instead_of_data(self, config: Path, checkpoint: Path) -> None:
        config.write_text(CONFIG.replace("test_dataloader", "_unused"))
        done = export(config, checkpoint, "onnx", input_shape=(1, 3, 12, 12))
        assert done.check.inputs == "random"
        assert done.inputs == ("inputs float32 (batch, 3, 12, 12)",)

    def test_weights_need_no_input(self, config: Path, checkpoint: Path) -> None:
        config.write_text(CONFIG.replace("test_dataloader", "_unused"))
        done = export(config, checkpoint, "state_dict")
        assert done.check.tensors == 9
        assert "outputs not compared: the config has no data set to take an input from" in str(done.check)
        assert (done.macs, done.latency) == (None, None)
        with pytest.raises(ExportError, match="no data set to take an input from: say --input-shape"):
            export(config, checkpoint, "onnx")

    def test_words_by_name(self, tmp_path: Path) -> None:
        torch.manual_seed(0)
        model = Words()
        batch = {
            "tokens": torch.randint(11, (2, 5)),
            "keep": torch.ones(2, 5, dtype=torch.long),
            "ids": torch.arange(2),
        }
        call = MappingCall(["tokens", "keep"])
        done = export_student(model, tmp_path / "w.onnx", "onnx", batch=batch, call=call)
        assert done.inputs == ("tokens int64 (batch, 5)", "keep int64 (batch, 5)")
        session = onnxruntime.InferenceSession(str(done.path), providers=["CPUExecutionProvider"])
        found = session.run(None, {name: batch[name].numpy() for name in ("tokens", "keep")})[0]
        expected = model(tokens=batch["tokens"], keep=batch["keep"])["logits"]
        torch.testing.assert_close(torch.from_numpy(found), expected)
        nested = {"inputs": {name: batch[name] for name in ("tokens", "keep")}}
        done = export_student(model, tmp_path / "w.pt2", "pt2", batch=nested, call=MappingCall())
        assert [text.split()[0] for text in done.inputs] == ["tokens", "keep"]

    @pytest.mark.parametrize(
        ("shape", "sentence"),
        [
            ((3,), "--input-shape takes whole numbers above 0, the batch first, such as 1,3,32,32, got 3"),
            ((1, 0, 8, 8), "got 1,0,8,8"),
            ((1, 4, 8, 8), r"Net does not run on an input of shape \(1, 4, 8, 8\): .* with --input-shape"),
        ],
    )
    def test_a_shape_that_does_not_fit(
        self, config: Path, checkpoint: Path, shape: tuple[int, ...], sentence: str
    ) -> None:
        with pytest.raises(ExportError, match=sentence):
            export(config, checkpoint, "pt2", input_shape=shape)

    @pytest.mark.parametrize(
        ("batch", "sentence"),
        [
            ({"inptus": images()}, "the student takes 'inputs' of the batch: did you mean 'inptus'"),
            ({"inputs": [images()]}, "the student's input 'inputs' is a list; a graph takes tensors"),
            ({"inputs": images(0)}, "the batch to export with is empty"),
            (None, "onnx is a graph .* and no batch was given: give it a batch"),
        ],
    )
    def test_a_batch_that_does_not_fit(self, tmp_path: Path, batch: Any, sentence: str) -> None:
        with pytest.raises(ExportError, match=sentence):
            export_student(net(1), tmp_path / "s.onnx", "onnx", batch=batch)


class TestRefused:
    @pytest.mark.parametrize(
        ("model", "sentence"),
        [
            (
                Random(),
                "Random cannot be recorded as a graph with any batch size .its forward runs otherwise for a batch",
            ),
            (Deciding(), "Deciding cannot be recorded .*: a graph cannot decide on values"),
            (Broken(), "Broken gives NaN or infinity on the first sample"),
        ],
    )
    def test_models(self, tmp_path: Path, model: nn.Module, sentence: str, capfd: pytest.CaptureFixture[str]) -> None:
        with pytest.raises(ExportError, match=sentence):
            export_student(model, tmp_path / "s.pt2", "pt2", batch={"inputs": images()})
        assert written(tmp_path) == []
        assert capfd.readouterr() == ("", "")

    def test_random_weights_are_still_weights(self, tmp_path: Path) -> None:
        done = export_student(Random(), tmp_path / "s.pth", "state_dict", batch={"inputs": images()})
        assert str(done.check).endswith("outputs not compared: the model draws random numbers in evaluation")

    def test_a_file_that_disagrees_never_gets_its_name(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        target = tmp_path / "s.pth"
        export_student(net(1), target, "state_dict", batch={"inputs": images()})
        before = target.read_bytes()

        def lying(served: Any, path: Path) -> formats.Written:
            done = formats.write_state_dict(served, path)
            return formats.Written(lambda inputs: [1.001 * o for o in served.run(inputs)], "an elf", done.tensors)

        monkeypatch.setattr(export_module, "write_state_dict", lying)
        with pytest.raises(ExportError, match=r"by an elf the file differs from PyTorch by .* 1.0e-03 of the largest"):
            export_student(net(2), target, "state_dict", batch={"inputs": images()})
        assert target.read_bytes() == before
        assert written(tmp_path) == ["s.pth"]

    @pytest.mark.parametrize("outputs", [[torch.zeros(1)], [torch.full((3, CLASSES), float("nan"))]])
    def test_other_shapes_and_no_numbers(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, outputs: list[Tensor]
    ) -> None:
        def lying(program: Any, path: Path, facts: Any) -> formats.Written:
            return formats.Written(lambda inputs: [o[: len(inputs[0])] for o in outputs], "an elf")

        monkeypatch.setattr(export_module, "write_pt2", lying)
        with pytest.raises(ExportError, match=r"so it was not\s+kept|differs from PyTorch by nan"):
            export_student(net(1), tmp_path / "s.pt2", "pt2", batch={"inputs": images()})

    def test_openmmlab_models_are_weights_only(self, tmp_path: Path) -> None:
        done = export_student(net(1), tmp_path / "s.pth", "state_dict", call=OpenMMLabCall())
        assert done.check.tensors == 9
        with pytest.raises(ExportError, match="an OpenMMLab model predicts data samples, not tensors: .* mmdeploy"):
            export_student(net(1), tmp_path / "s.onnx", "onnx", call=OpenMMLabCall(), batch={"inputs": images()})

    @pytest.mark.parametrize(
        ("description", "sentence"),
        [
            ({}, "this student was given as a module: describe it as"),
            ({"type": Net, "width": 6, "kernel": torch.float32}, r"model.student.kernel is torch.float32, which JSON"),
            (
                {"type": sized_net, "sizes": (6, 3)},
                "builds another model than the student .* lose their meaning in JSON",
            ),
            ({"type": Net, "width": 7}, "builds another model than the student"),
        ],
    )
    def test_hub_folders_that_could_not_be_loaded(
        self, tmp_path: Path, description: dict[str, Any], sentence: str
    ) -> None:
        with pytest.raises(ExportError, match=sentence):
            export_student(net(1), tmp_path / "hub", "hub", config=description)
        assert written(tmp_path) == []

    def test_arguments(self, config: Path, checkpoint: Path, tmp_path: Path) -> None:
        with pytest.raises(ExportError, match="did you mean 'onnx'"):
            export(config, checkpoint, "onxn")  # type: ignore[arg-type]
        with pytest.raises(ExportError, match="is the checkpoint itself, which stays as it is"):
            export(config, checkpoint, "state_dict", out=checkpoint)
        with pytest.raises(ExportError, match="is a folder, and onnx is one file"):
            export(config, checkpoint, "onnx", out=tmp_path)
        with pytest.raises(ExportError, match="a hub export is a folder, and .* is a file"):
            export(config, checkpoint, "hub", out=config)
        with pytest.raises(ExportError, match=r"images.py.*could not be written \(.*name another place with --out"):
            export(config, checkpoint, "state_dict", out=config / "inside")
        config.write_text("model = dict()\n")
        with pytest.raises(ConfigError, match="no model.student to predict with or to export"):
            export(config, checkpoint, "state_dict")


class TestPackages:
    @pytest.mark.parametrize(
        ("format", "absent", "sentence"),
        [
            ("onnx", "onnx", "pip install onnx onnxscript onnxruntime"),
            ("onnx", "onnxscript", "pip install onnx onnxscript onnxruntime"),
            ("hub", "safetensors", "pip install safetensors"),
        ],
    )
    def test_missing(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, format: Any, absent: str, sentence: str
    ) -> None:
        monkeypatch.setattr(formats, "find_spec", lambda name: None if name == absent else name)
        with pytest.raises(MissingDependency, match=sentence):
            export_student(net(1), tmp_path / "s", format, batch={"inputs": images()}, config={"type": Net})
        assert written(tmp_path) == []

    def test_without_a_runtime_it_is_not_checked_and_says_so(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(formats, "find_spec", lambda name: None if name == "onnxruntime" else name)
        done: Exported = export_student(net(1), tmp_path / "s.onnx", "onnx", batch={"inputs": images()})
        assert str(done.check) == "outputs not compared: ONNX Runtime is not installed: pip install onnxruntime"
        assert done.latency is None


def test_the_toys_have_data() -> None:
    assert len(Images()) == 2, "fewer than the largest batch, so that samples repeat"
