"""Taps: found by name or refused with what exists, read once, inert in copies, honest about in-place changes."""

from __future__ import annotations

import copy
import pickle

import pytest
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from limbeck_core.errors import TapError
from limbeck_core.tap import Recorder, Tap, read_batch, resolve


class Net(nn.Module):
    def __init__(self, *, inplace: bool = False) -> None:
        super().__init__()
        self.stem = nn.Linear(3, 4)
        self.norm = nn.BatchNorm1d(4)
        self.relu = nn.ReLU(inplace=inplace)
        self.layers = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
        self.fc = nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = self.relu(self.norm(self.stem(x)))
        return self.fc(self.layers(x))


def record(model: nn.Module, *taps: Tap, x: Tensor | None = None) -> Recorder:
    recorder = Recorder("student", taps)
    recorder.attach(model)
    with recorder.recording():
        model(torch.randn(5, 3) if x is None else x)
    return recorder


class TestResolve:
    def test_submodule_parameter_and_the_model_itself(self) -> None:
        net = Net()
        assert resolve(net, "layers.1", "student") is net.layers[1]
        assert resolve(net, "fc.weight", "student") is net.fc.weight
        assert resolve(net, "", "student") is net

    def test_misspelt_name_offers_the_closest(self) -> None:
        with pytest.raises(
            TapError, match=r"tap 'layer' is not a submodule of the student \(Net\): did you mean 'layers'"
        ):
            resolve(Net(), "layer", "student")

    def test_unrelated_name_lists_what_exists(self) -> None:
        with pytest.raises(TapError, match="it has: stem, norm, relu, layers, fc"):
            resolve(Net(), "xyzzyq", "student")

    def test_wrong_index_lists_the_parent(self) -> None:
        with pytest.raises(TapError, match=r"did you mean 'layers\.\d'|'layers' has: 0, 1"):
            resolve(Net(), "layers.7", "student")

    def test_looks_through_compile(self) -> None:
        net = Net()
        assert resolve(torch.compile(net), "fc", "student") is net.fc


class TestOptions:
    def test_unknown_place_is_refused(self) -> None:
        with pytest.raises(TapError, match="at must be 'output' or 'input', got 'inside'"):
            Tap("fc", at="inside")

    def test_unknown_call_is_refused(self) -> None:
        with pytest.raises(TapError, match="call must be an index, 'all' or None, got 'first'"):
            Tap("fc", call="first")


class TestReading:
    def test_output_input_and_parameter(self) -> None:
        net, x = Net(), torch.randn(5, 3)
        out, into, weight = Tap("fc"), Tap("fc", at="input"), Tap("fc.weight")
        recorder = record(net, out, into, weight, x=x)
        torch.testing.assert_close(recorder.read(out, net), net.fc(recorder.read(into, net)))
        assert recorder.read(weight, net) is net.fc.weight

    def test_gradient_flows_through_a_tap(self) -> None:
        net, tap = Net(), Tap("layers.0")
        record(net, tap).read(tap, net).sum().backward()
        assert net.stem.weight.grad is not None

    def test_values_are_dropped(self) -> None:
        net, tap = Net(), Tap("fc")
        recorder = record(net, tap)
        recorder.clear()
        with pytest.raises(TapError, match="was not called in this forward"):
            recorder.read(tap, net)

    def test_module_that_never_runs(self) -> None:
        class Headless(Net):
            def forward(self, x: Tensor) -> Tensor:
                return self.layers(self.stem(x))

        net, tap = Headless(), Tap("fc")
        with pytest.raises(TapError, match="tap 'fc' of the student was not called in this forward"):
            record(net, tap).read(tap, net)

    def test_shared_head_wants_to_know_which_call(self) -> None:
        class Pyramid(Net):
            def forward(self, x: Tensor) -> list[Tensor]:
                h = self.stem(x)
                return [self.fc(h), self.fc(2 * h), self.fc(3 * h)]

        net = Pyramid()
        plain, last, every, beyond = Tap("fc"), Tap("fc", call=-1), Tap("fc", call="all"), Tap("fc", call=3)
        recorder = record(net, plain, last, every, beyond)
        with pytest.raises(TapError, match=r"was called 3 times in this forward: say which with call=0 to call=2"):
            recorder.read(plain, net)
        assert len(recorder.read(every, net)) == 3
        torch.testing.assert_close(recorder.read(last, net), recorder.read(every, net)[2])
        with pytest.raises(TapError, match="asks for call 3, but there were 3"):
            recorder.read(beyond, net)

    def test_pick_of_mappings_tuples_and_objects(self) -> None:
        class Rich(Net):
            def forward(self, x: Tensor) -> dict[str, object]:
                h = self.stem(x)
                return {"hidden": (h, 2 * h), "logits": self.fc(h)}

        net = Rich()
        nested, wrong = Tap("", pick=("hidden", 1)), Tap("", pick="logit")
        recorder = record(net, nested, wrong)
        assert recorder.read(nested, net).shape == (5, 4)
        with pytest.raises(TapError, match="found nothing at 'logit' in a dict: it has: hidden, logits"):
            recorder.read(wrong, net)

    def test_keyword_input(self) -> None:
        class Inner(nn.Module):
            def forward(self, *, tokens: Tensor) -> Tensor:
                return tokens

        class Outer(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.inner = Inner()

            def forward(self, x: Tensor) -> Tensor:
                return self.inner(tokens=x)

        net, x = Outer(), torch.randn(5, 3)
        named, unnamed = Tap("inner", at="input", pick="tokens"), Tap("inner", at="input")
        recorder = record(net, named, unnamed, x=x)
        assert recorder.read(named, net) is x
        with pytest.raises(TapError, match=r"keyword arguments only: pick one of \['tokens'\]"):
            recorder.read(unnamed, net)


class TestInPlace:
    def test_change_after_reading_is_told(self) -> None:
        net, tap = Net(inplace=True), Tap("norm")
        with pytest.raises(TapError, match="changed in place after it was read.*set clone=True"):
            record(net, tap).read(tap, net)

    def test_clone_keeps_the_value_from_before(self) -> None:
        net, tap = Net(inplace=True).eval(), Tap("norm", clone=True)
        x = torch.randn(5, 3)
        torch.testing.assert_close(record(net, tap, x=x).read(tap, net), net.norm(net.stem(x)))


class TestCopies:
    """A closure would write into the record of the model it was copied from; each of these fails with one."""

    def test_deepcopied_model_does_not_write_into_the_record(self) -> None:
        net, tap = Net(), Tap("fc")
        recorder = record(net, tap)
        twin = copy.deepcopy(net)
        with recorder.recording():
            twin(torch.randn(5, 3))
        with pytest.raises(TapError, match="was not called"):
            recorder.read(tap, net)

    def test_naive_closure_would(self) -> None:
        """The control: with a closure the copy's calls land in the original's list."""
        net, calls = Net(), []
        net.fc.register_forward_hook(lambda module, args, output: calls.append(output))
        copy.deepcopy(net)(torch.randn(5, 3))
        assert len(calls) == 1

    def test_pickle(self) -> None:
        net, tap = Net(), Tap("fc")
        recorder = record(net, tap)
        net2, recorder2 = pickle.loads(pickle.dumps((net, recorder)))
        recorder2.refresh(net2)
        with recorder2.recording():
            out = net2(torch.randn(5, 3))
        assert recorder2.read(tap, net2) is out

    def test_replaced_module_is_found_again(self) -> None:
        """SyncBN conversion replaces modules; hooks on the old ones never fire."""
        net, tap = Net(), Tap("norm")
        recorder = record(net, tap)
        net.norm = nn.LayerNorm(4)
        recorder.refresh(net)
        with recorder.recording():
            net(torch.randn(5, 3))
        assert recorder.read(tap, net).shape == (5, 4)
        assert len(net.norm._forward_hooks) == 1

    def test_sync_batch_norm_conversion(self) -> None:
        net, tap = Net(), Tap("norm")
        recorder = record(net, tap)
        converted = nn.SyncBatchNorm.convert_sync_batchnorm(net).eval()
        recorder.refresh(converted)
        with recorder.recording():
            converted(torch.randn(5, 3))
        assert recorder.read(tap, converted).shape == (5, 4)


class TestOutside:
    def test_calls_outside_of_the_forward_are_ignored(self) -> None:
        net, tap = Net(), Tap("fc")
        recorder = record(net, tap)
        net(torch.randn(5, 3))
        assert recorder.read(tap, net).shape == (5, 2)

    def test_activation_checkpointing_recomputes_without_a_second_call(self) -> None:
        class Checkpointed(Net):
            def forward(self, x: Tensor) -> Tensor:
                h = checkpoint(self.layers, self.stem(x), use_reentrant=False)
                return self.fc(h)

        net, tap = Checkpointed(), Tap("layers.0")
        recorder = record(net, tap)
        value = recorder.read(tap, net)
        value.sum().backward()
        assert recorder.read(tap, net) is value


def test_batch_field_that_is_not_there() -> None:
    with pytest.raises(TapError, match="asks for 'target' of the batch: did you mean 'targets'"):
        read_batch({"inputs": 1, "targets": 2}, Tap("target", of="batch"))
