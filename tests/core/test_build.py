"""From a mapping with ``type`` to an object: what is built, what is left alone, and what the errors say."""

from __future__ import annotations

import doctest
import subprocess
import sys
from functools import partial

import pytest
from mmengine.config import Config, ConfigDict
from mmengine.config.lazy import LazyObject
from torch import nn

from limbeck_core.build import build, resolve_type
from limbeck_core.errors import ConfigError, LimbeckError, ShapeError


class Holder:
    """Keeps what it is given."""

    def __init__(self, first, second=2, *, third=None):
        self.first, self.second, self.third = first, second, third


def refuse(value):
    raise ShapeError("the constructor's own words")


class TestBuilds:
    @pytest.mark.parametrize("kind", [nn.Linear, "torch.nn.Linear", "torch.nn.modules.linear.Linear"])
    def test_class_or_dotted_string(self, kind):
        layer = build({"type": kind, "in_features": 3, "out_features": 5})
        assert isinstance(layer, nn.Linear)
        assert layer.weight.shape == (5, 3)

    def test_function(self):
        assert build({"type": partial(Holder, 1), "second": 5}).second == 5
        assert build({"type": "math.hypot"}) == 0.0

    def test_attribute_of_a_class(self):
        assert build({"type": "collections.OrderedDict.fromkeys", "iterable": "ab"}) == {"a": None, "b": None}

    @pytest.mark.parametrize("value", [None, 0.5, "fc", (1, 2), nn.Identity(), print])
    def test_what_is_no_mapping_passes(self, value):
        assert build(value) is value or build(value) == value

    def test_nothing_inside_is_built(self):
        inner = {"type": nn.Identity}
        assert build({"type": Holder, "first": inner, "third": [inner]}).first is inner

    def test_the_mapping_is_left_as_it_was(self):
        config = {"type": Holder, "first": 1}
        build(config)
        assert config == {"type": Holder, "first": 1}

    def test_mmengine_placeholders(self):
        lazy = LazyObject("torch.nn", "Identity")
        assert build(lazy) is nn.Identity
        assert isinstance(build({"type": lazy}), nn.Identity)
        built = build({"type": Holder, "first": lazy, "third": [lazy, (LazyObject("torch").float32,)]})
        assert built.first is nn.Identity
        assert built.third[0] is nn.Identity
        assert str(built.third[1][0]) == "torch.float32"

    def test_mmengine_config(self):
        config = Config({"layer": {"type": nn.Linear, "in_features": 2, "out_features": 1}})
        assert isinstance(config.layer, ConfigDict)
        assert isinstance(build(config.layer), nn.Linear)

    def test_imports_no_mmengine(self):
        code = "import sys, limbeck_core.build; sys.exit('mmengine' in sys.modules or 'torch' in sys.modules)"
        assert subprocess.run([sys.executable, "-c", code], check=False, timeout=60).returncode == 0


class TestRefuses:
    def test_no_type(self):
        with pytest.raises(ConfigError, match=r"needs the key 'type'.* this one has 'in_features': write dict\(type="):
            build({"in_features": 3})

    def test_misspelt_argument(self):
        with pytest.raises(ConfigError) as caught:
            build({"type": Holder, "first": 1, "sceond": 3})
        assert "Holder takes no argument 'sceond' (did you mean 'second'?)" in str(caught.value)
        assert "Holder(first, second=2, *, third=None)" in str(caught.value)

    def test_missing_argument(self):
        with pytest.raises(ConfigError, match="Holder needs the argument 'first'; its signature is"):
            build({"type": Holder})

    def test_both(self):
        with pytest.raises(ConfigError, match="takes no argument 'frist' .* and needs the argument 'first'"):
            build({"type": Holder, "frist": 1})

    def test_unknown_name_in_a_module(self):
        with pytest.raises(ConfigError, match=r"torch\.nn has no 'Linaer', did you mean 'Linear'"):
            build({"type": "torch.nn.Linaer"})

    def test_unknown_submodule(self):
        with pytest.raises(ConfigError, match=r"torch has no 'nnn', did you mean 'nn'"):
            build({"type": "torch.nnn.Linear"})

    def test_unknown_package(self):
        with pytest.raises(ConfigError, match="there is no module 'tirch'; is its package installed"):
            build({"type": "tirch.nn.Linear"})

    @pytest.mark.parametrize("name", ["Linear", "torch..Linear", "torch.nn.Linear()", ""])
    def test_not_a_dotted_name(self, name):
        with pytest.raises(ConfigError, match="is not a dotted name: write the whole path"):
            build({"type": name})

    @pytest.mark.parametrize("value", [3, None, "math.pi"])
    def test_not_callable(self, value):
        with pytest.raises(ConfigError, match="must be a class, a function or a dotted string"):
            resolve_type(value)

    def test_a_module_that_misses_a_dependency_says_so_itself(self, tmp_path, monkeypatch):
        (tmp_path / "needs_more.py").write_text("import a_package_that_is_nowhere\n")
        monkeypatch.syspath_prepend(tmp_path)
        with pytest.raises(ModuleNotFoundError, match="a_package_that_is_nowhere"):
            build({"type": "needs_more.Thing"})

    def test_the_constructors_own_error_passes(self):
        with pytest.raises(ShapeError, match="the constructor's own words"):
            build({"type": refuse, "value": 1})

    def test_error_is_ours(self):
        assert issubclass(ConfigError, LimbeckError)


def test_examples_of_the_docstrings():
    assert doctest.testmod(sys.modules["limbeck_core.build"]) == (0, 2)
