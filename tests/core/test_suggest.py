"""Suggest: what it proposes fits the shapes that are there, and what it writes is a config that doctor passes."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch

from limbeck_core import cli
from limbeck_core.engine.checkpoints import save_student
from limbeck_core.engine.commands import examine
from limbeck_core.engine.config import load_config
from limbeck_core.errors import ConfigError
from limbeck_core.suggest import Suggestion, suggest
from limbeck_core.suggest.described import describe
from limbeck_core.suggest.plan import pair_stages
from limbeck_core.suggest.trace import Layout, Node, layout_of
from suggest_toys import DATA, SIZE, cnn

SHAPE = (1, 3, SIZE, SIZE)
TOYS = "suggest_toys."


@pytest.fixture(autouse=True)
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A config with data, in a folder that is the working directory."""
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "noise.py"
    path.write_text(DATA)
    return path


def of(teacher: str, student: str, **options: Any) -> Suggestion:
    return suggest(TOYS + teacher, TOYS + student, **{"input_shape": SHAPE, **options})


def names(suggestion: Suggestion, *, active: bool | None = None) -> list[str]:
    return [p.name for p in suggestion.plan.proposals if active is None or p.active == active]


def stages(suggestion: Suggestion, role: str) -> list[tuple[str, int]]:
    return [(node.path, node.layout.stride) for node in suggestion.plan.stages[role]]


def let_in(text: str) -> str:
    """Take the comment sign away from every match that is off."""
    inside, lines = False, []
    for line in text.splitlines():
        inside = inside or bool(re.match(r" {8}# \w+=dict\($", line))
        lines.append(line.replace("# ", "", 1) if inside else line)
        inside = inside and line != " " * 8 + "# ),"
    return "\n".join(lines)


class TestDescribed:
    @pytest.mark.parametrize(
        ("text", "arguments"),
        [
            ("suggest_toys.cnn", {}),
            ("suggest_toys.cnn()", {}),
            (" suggest_toys.cnn(8, classes=3) ", {"width": 8, "classes": 3}),
            ("torch.nn.Linear(3, out_features=-1)", {"in_features": 3, "out_features": -1}),
            ("suggest_toys.vit(width=[1, (2, {'a': None})])", {"width": [1, (2, {"a": None})]}),
        ],
    )
    def test_functions(self, text: str, arguments: dict[str, Any]) -> None:
        found = describe(text, "student")
        assert {key: value for key, value in found.config.items() if key != "type"} == arguments
        assert found.config["type"].__name__ in text
        assert found.origin is None

    @pytest.mark.parametrize(
        ("text", "sentence"),
        [
            ("suggest_toys.cnn(open('x', 'w'))", "arguments are plain values .* nothing here is evaluated"),
            ("suggest_toys.cnn(width=1 if open('x', 'w') else 2)", "arguments are plain values"),
            ("suggest_toys.cnn(*[1])", "arguments are plain values"),
            ("suggest_toys.cnn(**{'width': 2})", r"write the arguments one by one instead of \*\*"),
            ("open('x', 'w')", "'open' is not a dotted name"),
            ("os.system('touch x')", "is a function of Python itself, which makes no model"),
            ("subprocess.run(['touch', 'x'])", "is a function of Python itself"),
            ("__import__('os').system('touch x')", r"names no function: expected package\.function"),
            ("(lambda: open('x', 'w'))()", "names no function"),
            ("[open('x', 'w')]", "names no function"),
            ("suggest_toys.cnn(", "cannot be read"),
            ("suggest_toys.cn", "has no 'cn', did you mean 'cnn'"),
            ("suggest_toys.cnn(1, 2, 3, 4)", "does not take these arguments .* give them by name"),
            ("suggest_toys.by_position(1, 2)", "takes 'widths' by position only, which a config cannot say"),
            ("suggest_toys.cnn(pretrained=True)", "pretrained would download a file, and nothing is downloaded here"),
            ("suggest_toys.cnn(weights='DEFAULT')", "weights would download a file"),
            ("nowhere/resnet", "there is no config file nowhere/resnet"),
            ("nowhere.py", "there is no config file nowhere.py"),
        ],
    )
    def test_refused_and_nothing_is_run(self, text: str, sentence: str) -> None:
        with pytest.raises(ConfigError, match=sentence):
            describe(text, "teacher")
        assert not Path("x").exists()

    def test_configs(self, data: Path) -> None:
        assert describe("noise.py", "student").title == "cnn"
        teacher = describe("noise.py", "teacher")
        assert (teacher.title, teacher.config["width"], teacher.origin) == ("vit", 24, "noise.py")
        data.write_text(DATA.replace("teacher=dict(type=vit, width=24),", ""))
        assert describe("noise.py", "teacher").title == "cnn"

    @pytest.mark.parametrize(
        ("teacher", "sentence"),
        [
            ("dict(a=dict(type=cnn), b=dict(type=vit))", r"several teachers \(a, b\): name one of them"),
            ("dict(type=EMATeacher)", "is a EMATeacher, which follows its student"),
        ],
    )
    def test_teachers_without_a_model_of_their_own(self, data: Path, teacher: str, sentence: str) -> None:
        text = DATA.replace("dict(type=vit, width=24)", teacher)
        data.write_text(text.replace("import Distiller", "import Distiller, EMATeacher"))
        with pytest.raises(ConfigError, match=sentence):
            describe("noise.py", "teacher")

    def test_a_config_without_a_model(self, data: Path) -> None:
        data.write_text("x = 1\n")
        with pytest.raises(ConfigError, match=r"noise\.py has no model\.student to take"):
            describe("noise.py", "student")


class TestTrace:
    @pytest.mark.parametrize(
        ("shape", "space", "length", "layout"),
        [
            ((1, 8, 16, 16), (32, 32), 0, Layout("map", 8, (16, 16), 0, 2)),
            ((1, 288, 35, 35), (299, 299), 0, Layout("map", 288, (35, 35), 0, 8)),  # no padding
            ((1, 8, 8, 24), (32, 32), 0, Layout("channels last", 24, (8, 8), 0, 4)),
            ((1, 8, 8, 6), (32, 32), 0, Layout("channels last", 6, (8, 8), 0, 4)),
            ((1, 8, 16, 8), (64, 32), 0, Layout("map", 8, (16, 8), 0, 4)),
            ((1, 64, 1, 1), (32, 32), 0, Layout("pooled", 64)),
            ((1, 12, 197, 197), (224, 224), 0, Layout("other")),  # attention
            ((49, 32, 4, 4), (28, 28), 0, Layout("other")),  # windows in the place of samples
            ((1, 197, 192), (224, 224), 0, Layout("tokens", 192, (14, 14), 1, 16)),
            ((1, 257, 64), (224, 224), 0, Layout("tokens", 64, (16, 16), 1, 16)),  # patches of 14
            ((1, 50, 64), (224, 224), 0, Layout("tokens", 64, (7, 7), 1, 32)),
            ((1, 51, 64), (30, 31), 0, Layout("tokens", 64)),  # on no grid
            ((1, 7, 12), (), 7, Layout("tokens", 12, (), 0, 1)),
            ((1, 9, 12), (), 7, Layout("tokens", 12, (), 0, 0)),
            ((1, 16, 50), (100,), 0, Layout("map", 16, (50,), 0, 2)),
            ((1, 4, 8, 8, 8), (16, 16, 16), 0, Layout("map", 4, (8, 8, 8), 0, 2)),
            ((1, 10), (32, 32), 0, Layout("vector", 10)),
            ((), (32, 32), 0, Layout("other")),
        ],
    )
    def test_layouts(self, shape: Any, space: Any, length: int, layout: Layout) -> None:
        assert layout_of(shape, space, length) == layout

    def test_no_memory_whatever_the_size(self) -> None:
        found = of("huge", "mlp")
        assert found.plan.teacher.on_meta
        assert found.plan.teacher.parameters > 4e10
        assert found.plan.teacher.macs > 4e10

    def test_models_that_look_at_numbers_run_in_memory_and_draw_for_nobody(self) -> None:
        before = torch.get_rng_state()
        found = of("looking", "counting")
        assert torch.equal(torch.get_rng_state(), before)
        assert not found.plan.student.on_meta
        assert not found.plan.teacher.on_meta
        assert "teacher: its forward looks at numbers, so it ran in memory" in found.plan.notes
        assert "student: its constructor looks at numbers, so it was built in memory" in found.plan.notes
        assert names(found) == names(of("cnn", "cnn"))

    def test_figures(self) -> None:
        trace = of("cnn", "cnn(width=8)").plan.student
        assert trace.parameters == sum(parameter.numel() for parameter in cnn(8).parameters())
        first = 3 * 9 * 8 * SIZE**2
        blocks = sum(
            2 * a * a * (SIZE // s) ** 2 + 2 * a * b * 9 * (SIZE // s // 2) ** 2
            for a, b, s in ((8, 8, 1), (8, 16, 2), (16, 32, 4))
        )
        assert trace.macs == first + blocks + 32 * 10

    @pytest.mark.parametrize(
        ("student", "shape", "sentence"),
        [
            ("nothing", SHAPE, r"nothing makes no torch\.nn\.Module but int"),
            ("failing", SHAPE, "failing cannot be built: KeyError: 'weights'"),
            (
                "cnn",
                (1, 4, 8, 8),
                r"cnn does not run on an input of shape \(1, 4, 8, 8\) .* name the shape that it takes",
            ),
            ("cnn(colour=1)", SHAPE, "cnn takes no argument 'colour'"),
            ("reader", SHAPE, "reader does not run"),
            ("cnn", (1,), "--input-shape takes whole numbers above 0, the batch first, such as 1,3,32,32, got 1"),
            ("cnn", (1, 0, 8, 8), "got 1,0,8,8"),
        ],
    )
    def test_what_cannot_be_traced(self, student: str, shape: tuple[int, ...], sentence: str) -> None:
        with pytest.raises(ConfigError, match=sentence):
            of("mlp", student, input_shape=shape)


class TestStages:
    def test_of_each_kind(self) -> None:
        found = of("vit", "cnn")
        # the first layers inside of a stage still work at the resolution before it: they are no stage of their own
        assert stages(found, "student") == [("layer1", 2), ("layer2", 4), ("act", 8)]
        assert stages(found, "teacher") == [("blocks.1", 4), ("blocks.3", 4), ("blocks.5", 4), ("blocks.7", 4)]
        assert found.plan.stages["teacher"][0].layout == Layout("tokens", 16, (8, 8), 1, 4)
        found = of("last", "unet")
        assert stages(found, "teacher") == [("layers.0", 4), ("layers.1", 8)]
        assert {node.layout.kind for node in found.plan.stages["teacher"]} == {"channels last"}
        # the scores of each place are no features
        assert stages(found, "student") == [("down1", 1), ("down2", 2), ("down3", 4), ("up2", 2), ("up1", 1)]
        assert stages(of("mlp", "repeating"), "student") == []

    def test_pairs_go_by_stride_then_depth_and_keep_their_order(self) -> None:
        def node(path: str, stride: int, depth: float) -> Node:
            return Node(path, None, (1, 4, 8, 8), Layout("map", 4, (8, 8), 0, stride), 0, depth, 1, False, 0)

        student = [node("a", 4, 0.3), node("b", 8, 0.6), node("c", 16, 1.0)]
        teacher = [node("A", 2, 0.1), node("B", 4, 0.2), node("C", 8, 0.7), node("D", 8, 0.8), node("E", 32, 1.0)]
        pairs = [(pair.student.path, pair.teacher.path) for pair in pair_stages(student, teacher)]
        assert pairs == [("a", "B"), ("b", "C"), ("c", "E")]
        assert pair_stages(student[:1], [node("X", 64, 0.3)]) == []
        assert pair_stages([], teacher) == []


PAIRS = [
    ("cnn(width=8)", "cnn"),
    ("vit", "cnn"),
    ("cnn", "vit"),
    ("vit(width=24)", "vit"),
    ("last", "cnn"),
    ("last", "vit"),
    ("cnn", "cnn(inplace=True)"),
    ("several", "several('mapping')"),
    ("several('functional')", "cnn"),
    ("mlp", "cnn"),
]


class TestConfig:
    @pytest.mark.parametrize(("teacher", "student"), PAIRS)
    def test_doctor_passes_it_with_everything_let_in(self, teacher: str, student: str) -> None:
        found = of(teacher, student, data="noise.py", input_shape=None)
        assert "kd" in names(found, active=True)
        assert found.plan.batch_size == 16
        text = found.config
        if student.startswith("several"):
            text = text.replace("task_loss=dict(type=CrossEntropyLoss)", "task_loss=None")
        described = describe(TOYS + teacher, "teacher").config
        arguments = {key: value for key, value in described.items() if key != "type"}
        save_student(described["type"](**arguments), "teacher.pth")
        for name, written in (("as_it_is", text), ("let_in", let_in(text))):
            Path(f"{name}.py").write_text(written)
            examined = examine(f"{name}.py")
            assert [str(f) for f in examined.findings if f.level == "error"] == []
        assert set(load_config("let_in.py").model.matches) == set(names(found))
        assert set(load_config("as_it_is.py").model.matches) == set(names(found, active=True))

    def test_words(self, data: Path) -> None:
        text = DATA.replace("Images, cnn, vit", "Sentences, reader").replace("type=Images", "type=Sentences")
        text = text.replace("student=dict(type=cnn)", "student=dict(type=reader)")
        text = text.replace("type=vit, width=24", "type=reader, width=12")
        call = "call=dict(type=MappingCall, arguments=['tokens', 'keep']),\n    student_view='tokens',\n    task_loss"
        data.write_text(text.replace("import Distiller", "import Distiller, MappingCall").replace("task_loss", call))
        found = suggest("noise.py", "noise.py")
        assert [pair.student.path for pair in found.plan.pairs] == ["layers.0", "layers.1"]
        assert names(found, active=True) == ["kd", "hidden"]
        note = "student: 2 modules (layers.0, layers.1) give no single tensor: their taps need pick=..."
        assert note in found.plan.notes
        Path("words.py").write_text(let_in(found.config))
        assert [str(f) for f in examine("words.py").findings if f.level == "error"] == []
        match = load_config("words.py").model.matches.hidden
        assert (match.student.path, match.student.pick, match.adapter.out_features) == ("layers.1", 0, 12)

    def test_what_comes_from_configs(self) -> None:
        config = suggest("noise.py", "noise.py").config
        Path("again.py").write_text(config)
        model = load_config("again.py").model
        assert model.teacher.width == 24  # as the config has it, not wrapped once more
        assert model.task_weight == 0.5
        assert load_config("again.py").optim_wrapper.optimizer.lr == 0.1
        assert "# Data, schedule and calls are those of noise.py." in config
        Path("plain.py").write_text(DATA.replace("teacher=dict(type=vit, width=24),", ""))
        Path("again.py").write_text(suggest("plain.py", "noise.py").config)
        teacher = load_config("again.py").model.teacher
        assert (teacher.model.type, teacher.checkpoint) == (cnn, "work_dirs/plain/student.pth")

    def test_without_data_it_says_what_is_missing(self) -> None:
        config = of("cnn", "cnn").config
        assert config.startswith("# KD from cnn to cnn, as limbeck suggest proposes it.\n")
        assert "# What is missing to train: data and schedule." in config
        Path("model_only.py").write_text(config)
        settings = load_config("model_only.py")
        assert settings.model.task_loss.type is torch.nn.CrossEntropyLoss
        assert settings.model.teacher.checkpoint == "teacher.pth"
        assert max(map(len, config.splitlines())) <= 120

    def test_size_of_the_input(self, data: Path) -> None:
        macs = 8 * (3 * SIZE**2 + 10)
        assert of("mlp", "mlp", input_shape=None, data="noise.py").plan.student.macs == macs
        data.write_text(DATA.replace("dict(type=Images)", "dict(type=Images, root='nowhere')"))
        with pytest.raises(ConfigError, match=r"mlp does not run on an input of shape \(1, 3, 224, 224\)"):
            of("mlp", "mlp", input_shape=None)


class TestProposals:
    def test_costs_by_hand(self) -> None:
        found = of("cnn(width=8)", "cnn", data="noise.py")
        costs = {proposal.name: proposal.cost for proposal in found.plan.proposals}
        n, mine, theirs, places = 16, 16, 32, 4 * 4
        assert (costs["kd"].parameters, costs["kd"].macs, costs["kd"].bytes) == (0, 0, 4 * n * 2 * 10)
        assert costs["hint"].parameters == mine * theirs + theirs
        assert costs["hint"].macs == n * places * mine * theirs
        assert costs["hint"].bytes == 4 * n * places * (mine + theirs + theirs)
        assert costs["at"].bytes == 4 * n * places * (mine + theirs)
        assert costs["sp"].macs == n * n * (mine + theirs)

    def test_classes_that_differ(self) -> None:
        found = of("cnn(classes=12)", "cnn")
        assert names(found, active=True) == ["pkd"]
        kd = found.plan.proposals[0].match
        assert kd["teacher_adapter"] == {"type": "limbeck_core.adapters.ClassMap", "indices": list(range(10))}
        assert any("for each of the student's classes, its number in the teacher's list" in n for n in found.plan.notes)
        found = of("cnn(classes=7)", "cnn")
        assert "kd" not in names(found)
        assert any("scores 10 classes and the teacher only 7" in note for note in found.plan.notes)
        assert "dkd" not in names(of("cnn(classes=2)", "cnn(classes=2)"))

    def test_places_of_another_size(self) -> None:
        by_name = {proposal.name: proposal.match for proposal in of("vit", "cnn").plan.proposals}
        resize = {"type": "limbeck_core.adapters.Resize", "size": (4, 4), "mode": "area"}
        tokens = {"type": "limbeck_core.adapters.TokensToMap", "height": 8, "width": 8, "prefix_tokens": 1}
        chain = {"type": "limbeck_core.adapters.Chain", "adapters": [tokens, resize]}
        assert by_name["hint"]["teacher_adapter"] == chain
        assert by_name["pkd"]["teacher_adapter"] == tokens  # it resizes by itself
        assert "adapter" not in by_name["at"]

    def test_dense_scores(self) -> None:
        found = of("unet(width=6)", "unet")
        assert "kd" in names(found, active=True)
        assert not {"dkd", "dist", "rkd"} & set(names(found))
        assert "CrossEntropyLoss" not in found.config

    def test_what_is_explained(self) -> None:
        def notes(teacher: str, student: str) -> str:
            return "\n".join(of(teacher, student).plan.notes)

        mapping = notes("several", "several('mapping')")
        assert "student: its output (dict) holds 2 tensors: taps pick 'features', 'logits'" in mapping
        assert "teacher: its output (tuple) holds 2 tensors: taps pick 0, 1" in mapping
        assert "run several times: their taps need call=..., and none is proposed" in notes("cnn", "repeating")
        assert "student: no module emits maps or tokens of its own" in notes("cnn", "mlp")
        assert "outputs of shapes (1, 10) and (1, 5, 32, 32) cannot be compared as logits" in notes("unet", "cnn")

    def test_nothing_to_compare(self) -> None:
        found = of("unet", "mlp")
        assert names(found) == []
        assert "nothing can be compared" in found.lines()
        Path("nothing.py").write_text(found.config)
        assert load_config("nothing.py").model.matches == {}

    def test_something_is_on_but_no_map_of_classes_that_nobody_named(self) -> None:
        assert names(of("mlp(classes=12)", "mlp"), active=True) == ["rkd"]


class TestCommand:
    def test_writes_a_file_and_leaves_an_older_one(self, capsys: pytest.CaptureFixture[str]) -> None:
        words = ["suggest", "suggest_toys.cnn(8)", "noise.py", "--out", "kd.py"]
        assert cli.main(words) == 0
        printed = capsys.readouterr().out
        assert "layer2 - layer2  stride 4" in printed
        assert printed.endswith("kd.py: limbeck doctor kd.py looks at it on two batches\n")
        save_student(cnn(8), "teacher.pth")
        assert cli.main(["doctor", "kd.py"]) == 0
        text = Path("kd.py").read_text()
        assert cli.main(words) == 2
        assert "kd.py exists already and is left as it is" in capsys.readouterr().err
        assert Path("kd.py").read_text() == text
        assert cli.main([*words[:-1], "kd.txt"]) == 2

    def test_prints_it_otherwise(self, capsys: pytest.CaptureFixture[str]) -> None:
        words = ["suggest", "suggest_toys.vit", "suggest_toys.cnn", "--input-shape", "1,3,32,32", "--data", "noise.py"]
        assert cli.main(words) == 0
        Path("printed.py").write_text(capsys.readouterr().out)
        assert set(load_config("printed.py").model.matches) == {"kd", "pkd"}

    def test_an_error_is_one_sentence(self, capsys: pytest.CaptureFixture[str]) -> None:
        assert cli.main(["suggest", "os.system('x')", "suggest_toys.cnn"]) == 2
        assert capsys.readouterr().err.startswith("limbeck: teacher \"os.system('x')\" is a function of Python itself")
