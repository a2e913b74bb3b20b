"""Reading, overriding and printing configs."""

from __future__ import annotations

import doctest
import sys
from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from torch import nn
from torch.optim import SGD, AdamW

from limbeck_core.build import build
from limbeck_core.engine.config import apply_override, dump_config, load_config, parse_override
from limbeck_core.errors import ConfigError

BASE = """
from torch.nn import Flatten

batch_size = 64
train_dataloader = dict(
    batch_size=batch_size,
    dataset=dict(type=Flatten, root="cifar100", datasets=[dict(type=Flatten, root="/fixed"), dict(root="more")]),
)
optim_wrapper = dict(optimizer=dict(lr=0.1, momentum=0.9))
"""

MAIN = '''"""A docstring is fine."""
# not the head
from mmengine.config import read_base
from torch.nn import Linear
from torch.optim import SGD
import torch

with read_base():
    from .._base_.data import *

_width = 8
model = dict(type=Linear, in_features=_width, out_features=2, dtype=torch.float32)
optim_wrapper.update(optimizer=dict(type=SGD, lr=0.05))
hooks = [dict(type=Flatten, rate=(1, 2))]
limits = dict(low=float("-inf"), names={"a-b": 1}, one=(3,), seen={2, 1})
'''


@pytest.fixture
def write(tmp_path, monkeypatch):
    """Write files below a temporary folder; none of the machine's own settings enters."""
    monkeypatch.delenv("LIMBECK_DATA", raising=False)

    def _write(text: str, name: str = "kd/main.py") -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        return path

    return _write


@pytest.fixture
def main(write) -> Path:
    write(BASE, "_base_/data.py")
    return write(MAIN)


def refused(path: Path, match: str, **keywords) -> None:
    with pytest.raises(ConfigError, match=match):
        load_config(path, **keywords)


class TestRead:
    def test_values_of_config_and_base(self, main):
        config = load_config(main)
        assert set(config.keys()) == {"batch_size", "train_dataloader", "optim_wrapper", "model", "hooks", "limits"}
        assert config.model.type is nn.Linear
        assert config.model.dtype is torch.float32
        assert config.hooks[0].type is nn.Flatten  # imported by the base
        assert config.filename == str(main)

    def test_update_merges_into_the_base(self, main):
        assert load_config(main).optim_wrapper == {"optimizer": {"type": SGD, "lr": 0.05, "momentum": 0.9}}

    def test_the_result_builds(self, main):
        assert build(load_config(main).model).weight.shape == (2, 8)

    def test_nothing_is_imported_by_reading(self, write):
        path = write("from a_package_that_is_nowhere import Thing\nmodel = dict(type=Thing)\n")
        config = load_config(path)
        with pytest.raises(ModuleNotFoundError, match="a_package_that_is_nowhere"):
            config.model.type

    def test_absolute_base_of_an_installed_package(self, write, tmp_path, monkeypatch):
        write("raise RuntimeError('a package must not be imported to find a config')", "some_domain/__init__.py")
        write("value = 3", "some_domain/configs/_base_/part.py")
        monkeypatch.syspath_prepend(tmp_path)
        with_base = "from mmengine.config import read_base\nwith read_base():\n    from {} import *\n"
        assert load_config(write(with_base.format("some_domain.configs._base_.part"))).value == 3
        refused(write(with_base.format("some_domain.configs._base_.prat")), "no base prat.py in .* did you mean 'part'")
        refused(write(with_base.format("no_domain.configs.part")), "is no_domain installed")

    def test_named_base_values(self, write):
        write("first = dict(a=1)\nsecond = 2", "_base_/data.py")
        text = "with read_base():\n    from .._base_.data import first as mine\nmine.a = 5\n"
        assert dict(load_config(write(text)).items()) == {"mine": {"a": 5}}
        refused(
            write(text.replace("first", "frist")),
            "line 2: the base _base_.data assigns no 'frist', did you mean 'first'",
        )

    def test_mmengine_reads_the_same(self, main):
        assert Config.fromfile(str(main)).optim_wrapper == load_config(main).optim_wrapper


class TestRules:
    def test_one_level_of_bases(self, write):
        write("with read_base():\n    from .other import *", "_base_/data.py")
        write("x = 1", "_base_/other.py")
        refused(write(MAIN), r"_base_.data\.py, line 1: a base may not have bases of its own .* one level is the limit")

    def test_missing_base_names_the_closest(self, write):
        write(BASE, "_base_/dato.py")
        refused(write(MAIN), r"main\.py, line 9: there is no base data\.py in .* did you mean 'dato'")

    @pytest.mark.parametrize("line", ["import math", "from functools import partial", "import os.path as osp"])
    def test_standard_library(self, write, line):
        refused(write(f"\n{line}\n"), r"line 2: .* of the standard library.* write the value")

    @pytest.mark.parametrize(
        ("text", "sentence"),
        [
            ("from ..models import net", "components are imported by their absolute name"),
            ("from torch.nn import *", "'import \\*' is for bases"),
            ("with open('x') as f:\n    x = f.read()", "the only 'with' of a config"),
            ("with read_base():\n    x = 1", "read_base holds imports"),
            ("x = 1\nfrom torch import nn", "line 2: imports and read_base stand at the top"),
            ("x = 1\nif x:\n    import torch", "line 3: imports stand at the top"),
            ("def f():\n    return 1", "a config holds values"),
            ("f = lambda x: x", "a config holds values"),
            ("_base_ = ['other.py']", "bases are imported: with read_base"),
            ("filename = 'x'", "a name that mmengine keeps for itself"),
            ("x = (1", r"line 1: '\(' was never closed"),
            ("x = 1\ny = z", "line 2: NameError: name 'z' is not defined"),
            ("from torch import nn\nx = nn.ReLU()", "line 2: an imported component is called: describe it with dict"),
        ],
    )
    def test_refused_with_the_line(self, write, text, sentence):
        refused(write(text), sentence)

    def test_missing_file(self, tmp_path):
        refused(tmp_path / "nothing.py", "there is no config file .*nothing.py, and no installed config of that name")

    def test_not_text(self, tmp_path):
        (tmp_path / "x.py").write_bytes(b"\xff\xfe\x00")
        refused(tmp_path / "x.py", "cannot be read as a Python file")


class TestOverrides:
    @pytest.mark.parametrize(
        ("text", "expected"),
        [
            ("a=1", 1),
            ("a=1e-3", 1e-3),
            ("a=-0.5", -0.5),
            ("a=true", True),
            ("a=False", False),
            ("a=None", None),
            ("a=(1, 2)", (1, 2)),
            ("a=['x', 2]", ["x", 2]),
            ("a={'k': 1}", {"k": 1}),
            ("a='3'", "3"),
            ("a=work/x=y.pth", "work/x=y.pth"),
            ("a=", ""),
            ("a=__import__('os').getcwd()", "__import__('os').getcwd()"),
        ],
    )
    def test_values(self, text, expected):
        key, value = parse_override(text)
        assert (key, value, type(value)) == ("a", expected, type(expected))

    @pytest.mark.parametrize("text", ["a", "=3", "a=[x, y]", "a={'k': __import__('os')}", "a='open"])
    def test_not_values(self, text):
        with pytest.raises(ConfigError, match=r"--cfg-options .*(takes key=value|no Python literal)"):
            parse_override(text)

    def test_applied(self, main):
        config = load_config(
            main,
            overrides=[
                "optim_wrapper.optimizer.lr=0.2",
                "hooks.0.rate.1=5",
                "optim_wrapper.optimizer.type=torch.optim.AdamW",
                "+optim_wrapper.optimizer.eps=1e-6",
                "+hooks.1={'a': 1}",
                "+new.deep.key=text",
            ],
        )
        assert config.optim_wrapper.optimizer.lr == 0.2
        assert config.optim_wrapper.optimizer.type is AdamW
        assert config.optim_wrapper.optimizer.eps == 1e-6
        assert config.hooks == [{"type": nn.Flatten, "rate": (1, 5)}, {"a": 1}]
        assert config.new == {"deep": {"key": "text"}}

    def test_mapping_and_no_change_of_the_original(self):
        values = {"a": {"b": [1, 2]}}
        assert apply_override(values, "a.b.0", None) == {"a": {"b": [None, 2]}}
        assert values == {"a": {"b": [1, 2]}}

    def test_mapping(self, main):
        assert load_config(main, overrides={"model.out_features": 7, "+extra": 1}).model.out_features == 7

    @pytest.mark.parametrize(
        ("override", "sentence"),
        [
            ("modle.out_features=3", "the config has no 'modle', 'out_features' is at model.out_features; a leading"),
            (
                "model.out_featrues=3",
                "model has no 'out_featrues', did you mean 'out_features'.*a leading \\+ would add",
            ),
            ("lr=3", "'lr' is at optim_wrapper.optimizer.lr"),
            ("hooks.3.rate=1", "hooks has no '3'"),
            ("+hooks.3=1", "hooks has no '3'"),
            ("hooks.first=1", "hooks has no 'first'"),
            ("batch_size.x=1", "batch_size is 64, which has nothing inside"),
            ("+batch_size=3", "the key exists already \\(64\\); leave out the \\+"),
            ("batch_size=many", "expected a value like 64, got the text 'many'"),
            ("model.type=torch.nn.Linaer", "torch.nn has no 'Linaer', did you mean 'Linear'"),
            ("a..b=3", "is no dotted key"),
            ("+_hidden=3", "is no dotted key"),
        ],
    )
    def test_refused(self, main, override, sentence):
        refused(main, sentence, overrides=[override])


class TestDataRoot:
    def roots(self, config):
        dataset = config.train_dataloader.dataset
        return [dataset.root, dataset.datasets[0].root, dataset.datasets[1].root]

    def test_unset(self, main):
        assert self.roots(load_config(main)) == ["cifar100", "/fixed", "more"]

    def test_flag(self, main):
        assert self.roots(load_config(main, data_root="/data")) == ["/data/cifar100", "/fixed", "/data/more"]

    def test_variable_and_flag_over_it(self, main, monkeypatch):
        monkeypatch.setenv("LIMBECK_DATA", "/env")
        assert self.roots(load_config(main))[0] == "/env/cifar100"
        assert self.roots(load_config(main, data_root="/data"))[0] == "/data/cifar100"

    def test_a_root_outside_of_data_sets_stays(self, write):
        config = load_config(write("a = dict(root='x', dataset=dict(root='y'))"), data_root="/data")
        assert config.a == {"root": "x", "dataset": {"root": "/data/y"}}

    def test_no_effect_is_an_error_only_for_the_flag(self, write, monkeypatch):
        path = write("x = 1")
        refused(path, "--data-root /data has no effect", data_root="/data")
        monkeypatch.setenv("LIMBECK_DATA", "/env")
        assert load_config(path).x == 1


class TestDump:
    def test_reads_back_to_the_same(self, main, write):
        config = load_config(main, overrides=["optim_wrapper.optimizer.type=torch.optim.AdamW"], data_root="/data")
        text = dump_config(config)
        again = load_config(write(text, "again.py"))
        assert again.to_dict() == config.to_dict()
        assert list(again.keys()) == list(config.keys())
        assert again.model.type is nn.Linear
        assert again.limits.seen == {1, 2}
        assert again.limits.one == (3,)
        assert dump_config(again) == text

    def test_reads_well(self, main):
        lines = dump_config(load_config(main)).splitlines()
        assert "from torch.nn import Flatten, Linear" in lines
        assert "model = dict(type=Linear, in_features=8, out_features=2, dtype=float32)" in lines
        assert "read_base" not in "".join(lines)
        assert max(map(len, lines)) <= 120

    def test_head_comment_stays(self, write):
        config = load_config(write("# What it is.\n# How to run it.\n\nx = 1\n"))
        assert dump_config(config) == "# What it is.\n# How to run it.\n\nx = 1\n"

    def test_real_classes_and_clashing_names(self, write):
        values = {
            "Linear": 3,
            "a": {"type": nn.Linear},
            "b": torch.nn.functional.relu,
            "c": {"type": "collections.OrderedDict"},
            "d": {"class": 1},
            "f": Path("work") / "x",
            "e": dict.fromkeys([f"a_long_key_{i}" for i in range(12)], 1.5),
        }
        again = load_config(write(dump_config(values)))
        assert again.a.type is nn.Linear
        assert again.b is torch.nn.functional.relu
        assert again.f == "work/x"
        assert (again.Linear, again.c, again.d, again.e) == (3, values["c"], values["d"], values["e"])

    def test_attributes_of_modules_and_classes(self, write):
        text = "import torch\nimport torch.nn as nn\nimport torch.nn.init\nfrom torch.nn import Module\n"
        text += "a = torch.nn.init.zeros_\nb = nn.functional.relu\nc = Module.train\nd = torch.nn.Linear\n"
        again = load_config(write(dump_config(load_config(write(text))), "again.py"))
        assert again.a is nn.init.zeros_
        assert again.b is nn.functional.relu
        assert again.c is nn.Module.train
        assert again.d is nn.Linear

    @pytest.mark.parametrize("value", [nn.Linear(1, 1), lambda x: x, object()])
    def test_what_cannot_be_written(self, value):
        with pytest.raises(ConfigError, match=r"model\.part is .*cannot be written as Python"):
            dump_config({"model": {"part": value}})

    def test_a_module_is_no_value(self, write):
        with pytest.raises(ConfigError, match="x is the module torch.nn"):
            dump_config(load_config(write("import torch.nn as nn\nx = nn\n")))


def test_examples_of_the_docstrings():
    assert doctest.testmod(sys.modules["limbeck_core.engine.config"]) == (0, 2)
