"""From a live teacher to a bank and back: the student notices nothing, and everything that does not fit is refused."""

from __future__ import annotations

import multiprocessing
import os
import random
import signal
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from limbeck_core.bank import writing
from limbeck_core.bank.storage import Bank
from limbeck_core.bank.teacher import BankTeacher
from limbeck_core.bank.writing import BankWriter, size_text
from limbeck_core.distiller import Distiller
from limbeck_core.engine.loop import EpochLoop
from limbeck_core.engine.runner import Runner
from limbeck_core.engine.sampler import build_dataloader, fetch, stack
from limbeck_core.errors import BankError, ConfigError, LimbeckError, MatchError, NonFiniteError, TapError
from limbeck_core.losses import KLDivergenceLoss
from limbeck_core.match import Match
from limbeck_core.tap import Tap
from limbeck_core.teacher import EMATeacher, FrozenTeacher, PastSelf

SAMPLES, CLASSES, BATCH = 30, 6, 8


class Noise:
    """A transform that draws from every global generator."""

    def __init__(self, size: float = 0.3) -> None:
        self.size = size

    def __call__(self, image: Tensor) -> Tensor:
        return image + self.size * (torch.randn_like(image) + random.gauss(0, 1) + np.random.normal())


class Images(Dataset[Any]):
    """Small images; ``ids`` appear in the samples if they are given."""

    def __init__(self, ids: Any = None, transform: Any = None, shift: float = 0.0) -> None:
        generator = torch.Generator().manual_seed(11)
        whole = torch.randn(SAMPLES, 3, 6, 6, generator=generator)
        positions = np.arange(SAMPLES) if ids is None else np.asarray(ids) // 10
        self.inputs, self.transform = whole[positions] + shift, transform or Noise()
        if ids is not None:
            self.ids = np.asarray(ids)

    def __len__(self) -> int:
        return len(self.inputs)

    def __getitem__(self, index: int) -> dict[str, Any]:
        sample = {"inputs": self.transform(self.inputs[index]), "targets": index % CLASSES}
        return {**sample, "ids": int(self.ids[index])} if hasattr(self, "ids") else sample


class Net(nn.Module):
    """Convolution, normalisation, a head that returns a mapping, and the head's weights to tap."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, width, 3, padding=1), nn.BatchNorm2d(width), nn.ReLU())
        self.head = Head(width)

    def forward(self, inputs: Tensor) -> Tensor:
        return self.head(self.body(inputs))["logits"]


class Head(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.fc = nn.Linear(width, CLASSES)

    def forward(self, features: Tensor) -> dict[str, Any]:
        pooled = features.mean((2, 3))
        return {"logits": self.fc(pooled), "hidden": (pooled, None)}


def teacher() -> Net:
    torch.manual_seed(5)
    net = Net(8)
    with torch.no_grad():  # running statistics as after training
        net.train()(torch.randn(64, 3, 6, 6))
    return net


class Features(nn.Module):
    """Whatever tensors the teacher's mapping holds, and a parameter of it."""

    def forward(self, student_features: Tensor, teacher_value: Mapping[str, Any], weight: Tensor) -> Tensor:
        pooled, nothing = teacher_value["hidden"]
        assert nothing is None
        scores = pooled @ weight.T + teacher_value["logits"]
        return (student_features.mean((1, 2, 3)) - scores.mean(1)).square().mean()


def matches(**options: Any) -> dict[str, Match]:
    return {
        "kd": Match(KLDivergenceLoss(temperature=4.0), "head.fc", "head.fc", weight=0.5, **options),
        "hint": Match(nn.MSELoss(), "body", "body", adapter=nn.Conv2d(4, 8, 1), **options),
        "dict": Match(Features(), "body.0", "head", extras={"weight": Tap("head.fc.weight", of="teacher")}, **options),
    }


def distiller(source: Any, chosen: Any = None, **options: Any) -> Distiller:
    torch.manual_seed(9)
    return Distiller(
        Net(4), source, chosen if chosen is not None else matches(), task_loss=nn.CrossEntropyLoss(), **options
    )


def kd_only(**options: Any) -> dict[str, Match]:
    return {"kd": Match(KLDivergenceLoss(temperature=4.0), "head.fc", "head.fc", **options)}


def data(dataset: Any = None, **options: Any) -> dict[str, Any]:
    return {"dataset": dataset or Images(), "batch_size": BATCH} | options


def write(folder: Path, model: Distiller, loader: Any = None, **options: Any) -> BankWriter:
    writer = BankWriter(model, loader or data(), folder, **options)
    assert writer.write()
    return writer


def steps(model: Distiller, loader: DataLoader[Any], epochs: int) -> Iterator[dict[str, float]]:
    optimiser = torch.optim.SGD(model.parameters(), lr=0.05)
    model.train()
    for epoch in range(epochs):
        loader.batch_sampler.seek(epoch)
        iterator = iter(loader)
        for _ in range(len(loader)):
            losses = model(fetch(iterator))
            yield {name: float(value.detach()) for name, value in losses.items()}
            optimiser.zero_grad()
            sum(losses.values()).backward()
            optimiser.step()


def training(model: Distiller, *, epochs: int = 3, dataset: Any = None, **options: Any) -> list[dict[str, float]]:
    loader = build_dataloader(data(dataset, **options), seed=21, training=True)
    return list(steps(model, loader, epochs))


def deviation(first: list[dict[str, float]], second: list[dict[str, float]]) -> float:
    assert len(first) == len(second) > 3
    pairs = [(a[name], b[name]) for a, b in zip(first, second, strict=True) for name in a]
    return max(abs(a - b) / (abs(a) + 1e-9) for a, b in pairs)


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bank") / "two views"
    write(folder, distiller(teacher()), views=2, seed=7)
    return folder


class TestSameAsLive:
    @pytest.mark.parametrize("workers", [0, 2])
    def test_bit_for_bit_at_the_same_batch_size(self, written: Path, workers: int) -> None:
        options = {"views": 2, "view_seed": 7, "num_workers": workers}
        live = training(distiller(teacher()), **options)
        banked = training(distiller(BankTeacher(written)), **options)
        assert banked == live
        assert set(live[0]) == {"loss/task", "loss/kd", "loss/hint", "loss/dict"}

    def test_another_view_or_seed_would_differ(self, written: Path) -> None:
        """The control: without the views the live losses are others from the second epoch on."""
        live = training(distiller(teacher()), views=2, view_seed=7)
        other = training(distiller(teacher()), views=1, view_seed=7)
        assert live[:4] == other[:4]
        assert deviation(live[4:8], other[4:8]) > 1e-3

    def test_six_digits_at_another_batch_size(self, tmp_path: Path) -> None:
        write(tmp_path / "b", distiller(teacher()), batch_size=5)
        live = training(distiller(teacher()), views=1, view_seed=0)
        banked = training(distiller(BankTeacher(tmp_path / "b")), views=1, view_seed=0)
        assert deviation(live, banked) < 1e-5  # of the first steps' 1e-6, training makes a little more
        assert deviation(live[:2] * 2, banked[:2] * 2) < 1e-6

    @pytest.mark.parametrize(("encoding", "limit"), [("float16", 2e-3), ("bfloat16", 2e-2)])
    def test_within_the_error_of_the_encoding(self, tmp_path: Path, encoding: str, limit: float) -> None:
        write(tmp_path / "b", distiller(teacher()), encoding=encoding)
        live = training(distiller(teacher()), epochs=1, views=1, view_seed=0)
        banked = training(distiller(BankTeacher(tmp_path / "b")), epochs=1, views=1, view_seed=0)
        assert 0 < deviation(live, banked) < limit
        bank = Bank(tmp_path / "b")
        largest, mean = bank.errors()[[c.name for c in bank.manifest.columns].index("body")]
        assert 0 < mean <= largest < 0.03

    def test_top_scores(self, tmp_path: Path) -> None:
        writer = write(tmp_path / "b", distiller(teacher(), kd_only()), encoding="top4")
        # the temperature is that of the match's loss
        assert [c.encoding for c in writer.parts[0].manifest.columns] == ["exact", "top4@4"]
        live = training(distiller(teacher(), kd_only()), epochs=1, views=1, view_seed=0)
        banked = training(distiller(BankTeacher(tmp_path / "b"), kd_only()), epochs=1, views=1, view_seed=0)
        largest, _ = Bank(tmp_path / "b").errors()[1]
        worst = max(abs(a["loss/kd"] - b["loss/kd"]) for a, b in zip(live, banked, strict=True))
        assert 0 < worst < 4.0**2 * (largest + 1e-3)

    def test_the_student_learns_the_same_through_the_runner(self, written: Path, tmp_path: Path) -> None:
        weights = []
        for name, source in (("live", teacher()), ("bank", BankTeacher(written, teacher()))):
            runner = Runner(
                model=distiller(source),
                work_dir=str(tmp_path / name),
                train_dataloader=data(views=2, view_seed=7),
                train_cfg={"type": EpochLoop, "max_epochs": 3},
                optim_wrapper={"optimizer": {"type": torch.optim.SGD, "lr": 0.05}},
                default_hooks={"progress_bar": None},
                randomness={"seed": 4},
                log_level="WARNING",
            )
            runner.train()
            weights.append(torch.load(tmp_path / name / "student.pth", weights_only=True)["state_dict"])
        assert all(torch.equal(weights[0][key], weights[1][key]) for key in weights[0])

    def test_without_transforms_a_plain_loop_needs_ids_only(self, tmp_path: Path) -> None:
        plain = Images(transform=nn.Identity())
        write(tmp_path / "b", distiller(teacher(), kd_only()), data(plain))
        inputs = torch.stack([plain[i]["inputs"] for i in (4, 2)])
        live = distiller(teacher(), kd_only())(inputs, torch.tensor([4, 2]), torch.tensor([4, 2]))
        banked = distiller(BankTeacher(tmp_path / "b"), kd_only())(inputs, torch.tensor([4, 2]), torch.tensor([4, 2]))
        torch.testing.assert_close(banked, live, rtol=1e-6, atol=0)


class TestSamples:
    IDS = tuple(range(0, 10 * SAMPLES, 10))

    def test_a_subset_reads_the_bank_of_the_whole(self, tmp_path: Path) -> None:
        whole = [self.IDS[i] for i in np.random.RandomState(0).permutation(SAMPLES)]
        write(tmp_path / "b", distiller(teacher()), data(Images(whole)), views=2, seed=3)
        assert Bank(tmp_path / "b").ids.tolist() == list(self.IDS)
        part = whole[4:21]
        options = {"views": 2, "view_seed": 3}
        live = training(distiller(teacher()), dataset=Images(part), **options)
        banked = training(distiller(BankTeacher(tmp_path / "b")), dataset=Images(part), **options)
        assert deviation(live, banked) < 1e-5

    def test_an_attribute_ids_of_other_things(self, tmp_path: Path) -> None:
        """As of a detection set, whose samples are known by their position all the same."""

        class Boxes(Images):
            def __getitem__(self, index: int) -> dict[str, Any]:
                return {k: v for k, v in super().__getitem__(index).items() if k != "ids"}

        write(tmp_path / "b", distiller(teacher(), kd_only()), data(Boxes(self.IDS)))
        assert Bank(tmp_path / "b").manifest.key["data"]["ids"] == "positions"
        training(
            distiller(BankTeacher(tmp_path / "b"), kd_only()), dataset=Boxes(self.IDS), epochs=1, views=1, view_seed=0
        )

    def test_ids_that_do_not_tell_samples_apart(self, tmp_path: Path) -> None:
        with pytest.raises(BankError, match="30 samples share 29 ids, so a bank cannot tell them apart"):
            BankWriter(distiller(teacher()), data(Images([*self.IDS[1:], 10])), tmp_path / "b").plan()

    def test_ids_that_nobody_knows(self, tmp_path: Path) -> None:
        class Odd(Images):
            def __getitem__(self, index: int) -> dict[str, Any]:
                return {**super().__getitem__(index), "ids": 5 * index}

        with pytest.raises(
            BankError, match=r"the batch has the ids \[0, 5, 10, 15\]..., and the data set was asked for"
        ):
            BankWriter(distiller(teacher()), data(Odd()), tmp_path / "b").plan()

        class Names(Images):
            def __getitem__(self, index: int) -> dict[str, Any]:
                return {**super().__getitem__(index), "ids": f"image{index}"}

        with pytest.raises(BankError, match="ids of the batch must be whole numbers, one a sample, got list"):
            BankWriter(distiller(teacher()), data(Names()), tmp_path / "b").plan()


class TestRefused:
    def losses(self, model: Distiller, **options: Any) -> Any:
        return training(model, epochs=1, **({"views": 2, "view_seed": 7} | options))

    def test_another_seed(self, written: Path) -> None:
        sentence = r"8 of 8 inputs of this batch, the first is sample \d+, are not those that the teacher saw"
        with pytest.raises(BankError, match=sentence):
            self.losses(distiller(BankTeacher(written)), view_seed=8)

    def test_other_data(self, written: Path) -> None:
        with pytest.raises(BankError, match="the data, a transform, a library or the seed of the views is another one"):
            self.losses(distiller(BankTeacher(written)), dataset=Images(shift=0.01))

    def test_the_check_can_be_left_out(self, written: Path) -> None:
        self.losses(distiller(BankTeacher(written, check_inputs=False)), dataset=Images(shift=0.01))

    def test_a_batch_without_ids_or_views(self, written: Path) -> None:
        model = distiller(BankTeacher(written))
        inputs, targets = torch.randn(2, 3, 6, 6), torch.tensor([0, 1])
        with pytest.raises(
            MatchError, match="a teacher bank needs ids, the id of each sample: let the data set return"
        ):
            model(inputs, targets)
        with pytest.raises(MatchError, match="a teacher bank needs view_ids, the number of the view of each sample"):
            model(inputs, targets, torch.tensor([0, 1]))
        with pytest.raises(
            MatchError, match=r"ids of the batch must be whole numbers of shape \(N,\), got torch.float32"
        ):
            model(inputs, targets, torch.tensor([0.0, 1.0]))
        with pytest.raises(BankError, match="the batch shows view 2, and the bank in .* has 2"):
            model({"inputs": inputs, "targets": targets, "ids": targets, "view_ids": torch.tensor([0, 2])})
        with pytest.raises(BankError, match="sample 99 is not in the bank"):
            model({"inputs": inputs, "targets": targets, "ids": torch.tensor([0, 99]), "view_ids": targets})

    def test_the_view_of_the_teacher_must_be_in_the_batch(self, written: Path) -> None:
        model = distiller(BankTeacher(written), student_view="small")
        batch = {"small": torch.randn(2, 3, 6, 6), "targets": torch.tensor([0, 1]), "ids": torch.tensor([0, 1])}
        with pytest.raises(
            MatchError, match="the bank compares its inputs with 'inputs' of the batch, which has small"
        ):
            model({**batch, "view_ids": torch.tensor([0, 0])})

    def test_another_teacher(self, written: Path) -> None:
        other = teacher()
        with torch.no_grad():
            other.head.fc.bias[0] += 1e-3
        with pytest.raises(BankError, match=r"is of another teacher: teacher.weights is [0-9a-f]+ in the bank and"):
            BankTeacher(written, other)
        with pytest.raises(BankError, match="teacher.model is Net in the bank and Linear now"):
            BankTeacher(written, FrozenTeacher(nn.Linear(2, 2)))
        BankTeacher(written, FrozenTeacher(teacher()))

    def test_a_tap_that_is_not_there(self, written: Path) -> None:
        chosen = {"hint": Match(nn.MSELoss(), "body", "body.1", adapter=nn.Conv2d(4, 8, 1))}
        with pytest.raises(TapError, match=r"tap 'teacher:body.1' of the teacher is not in the bank in .*did you mean"):
            distiller(BankTeacher(written), chosen)
        chosen = {"hint": Match(nn.MSELoss(), "body", "boddy", adapter=nn.Conv2d(4, 8, 1))}
        with pytest.raises(TapError, match="tap 'boddy' is not a submodule of the teacher"):
            distiller(BankTeacher(written, teacher()), chosen)

    @pytest.mark.parametrize(
        ("options", "sentence"),
        [
            ({}, r"holds 2 views of each sample, drawn from the seed 7, and the data are drawn with views=None"),
            ({"views": 3, "view_seed": 7}, "drawn with views=3, view_seed=7: set train_dataloader.views=2"),
            ({"views": 2}, "drawn with views=2, view_seed=None"),
        ],
    )
    def test_the_loop_compares_views_first(
        self, written: Path, tmp_path: Path, options: dict[str, Any], sentence: str
    ) -> None:
        with pytest.raises(BankError, match=sentence):
            self.run(written, tmp_path, data(**options))

    def test_the_loop_compares_transforms_first(self, written: Path, tmp_path: Path) -> None:
        other = Images(transform=Noise(0.4))
        sentence = r"other transforms: .*Noise\(size=0.3\) in the bank is .*Noise\(size=0.4\) now"
        with pytest.raises(BankError, match=sentence):
            self.run(written, tmp_path, data(other, views=2, view_seed=7))

    def test_the_loop_looks_for_every_sample(self, written: Path, tmp_path: Path) -> None:
        class More(Images):
            def __len__(self) -> int:
                return 31

        with pytest.raises(BankError, match="sample 30 is not in the bank"):
            self.run(written, tmp_path, data(More(), views=2, view_seed=7))

    def run(self, written: Path, tmp_path: Path, loader: Any) -> None:
        Runner(
            model=distiller(BankTeacher(written)),
            work_dir=str(tmp_path),
            train_dataloader=loader,
            train_cfg={"type": EpochLoop, "max_epochs": 1},
            optim_wrapper={"optimizer": {"type": torch.optim.SGD, "lr": 0.05}},
            default_hooks={"progress_bar": None},
            log_level="WARNING",
        ).train()


class TestMixing:
    """Mixup after the look-up: only for matches that say that mixtures are what they compare with."""

    def batch(self, weight: float = 0.3) -> dict[str, Any]:
        loader = build_dataloader(data(views=2, view_seed=7), seed=1, training=True)
        batch = dict(fetch(iter(loader)))
        shares = torch.full((BATCH,), weight)
        mixed = weight * batch["inputs"] + (1 - weight) * batch["inputs"].roll(1, 0)
        return {
            **batch,
            "plain": batch["inputs"],
            "inputs": mixed,
            "mix_weight": shares,
            "mix_ids": batch["ids"].roll(1),
        }

    def test_values_are_mixed_like_the_inputs(self, written: Path) -> None:
        chosen = matches(mixes_exactly=True)
        model, batch = distiller(BankTeacher(written), chosen), self.batch()
        with torch.no_grad():
            logits = teacher().eval()(batch["plain"])
        wanted = 0.3 * logits + 0.7 * logits.roll(1, 0)
        found = model.read_teachers(batch, ["teacher"])["teacher"]
        tap = next(tap for tap in found if tap.path == "head.fc")
        torch.testing.assert_close(found[tap], wanted)
        assert set(model(batch)) == {"loss/task", "loss/kd", "loss/hint", "loss/dict"}

    def test_refused_unless_every_match_says_so(self, written: Path) -> None:
        chosen = {**kd_only(mixes_exactly=True), "hint": matches()["hint"]}
        sentence = "the batch is mixed, the bank in .* and match 'hint' does not say that their mixture"
        with pytest.raises(MatchError, match=sentence):
            distiller(BankTeacher(written), chosen)(self.batch())

    def test_a_tap_that_no_match_answers_for(self, written: Path) -> None:
        model = distiller(BankTeacher(written), kd_only(mixes_exactly=True), taps={"extra": Tap("body", of="teacher")})
        with pytest.raises(MatchError, match="no match says of tap 'teacher:body' that their mixture"):
            model(self.batch())

    def test_partners_must_be_named(self, written: Path) -> None:
        batch = self.batch()
        del batch["mix_ids"]
        with pytest.raises(MatchError, match="needs mix_ids beside mix_weight, the id of each sample's partner"):
            distiller(BankTeacher(written), kd_only(mixes_exactly=True))(batch)

    def test_a_mixing_loader_is_not_banked(self, tmp_path: Path) -> None:
        loader = data(collate_fn=mixing_collate)
        with pytest.raises(BankError, match="the loader mixes samples .* give the bank a collate_fn that stacks"):
            BankWriter(distiller(teacher()), loader, tmp_path / "b").plan()
        write(tmp_path / "b", distiller(teacher(), kd_only()), loader, collate_fn=stack)


def mixing_collate(samples: list[Any]) -> dict[str, Any]:
    batch = stack(samples)
    return {**batch, "mix_weight": torch.ones(len(samples))}


class TestWriting:
    def test_sizes_are_known_before_anything_is_written(self, tmp_path: Path) -> None:
        writer = BankWriter(distiller(teacher()), data(), tmp_path / "b", encoding={"body": "float16", "*": "exact"})
        lines = writer.plan()
        assert not (tmp_path / "b").exists()
        assert [(line.column.name, line.size) for line in lines] == [
            ("inputs", 4),
            ("head.fc", 4 * CLASSES),
            ("body", 2 * 8 * 6 * 6),
            ("head[0]", 4 * CLASSES),
            ("head[1]", 4 * 8),
        ]
        assert [line.bound[:8] for line in lines] == ["none", "none", "relative", "none", "none"]
        size = writer.parts[0].manifest.size
        assert writer.write()
        assert sum(path.stat().st_size for path in (tmp_path / "b").glob("view*.bank")) == size

    def test_progress(self, tmp_path: Path) -> None:
        seen: list[tuple[int, int]] = []
        BankWriter(distiller(teacher(), kd_only()), data(), tmp_path / "b", views=2).write(lambda *c: seen.append(c))
        assert seen[-1] == (60, 60)
        assert seen == sorted(seen)
        assert len(seen) > 8

    def test_several_teachers_and_one_that_changes(self, tmp_path: Path) -> None:
        def build(**sources: Any) -> Distiller:
            torch.manual_seed(3)
            student = Net(4)
            chosen = {
                name: Match(KLDivergenceLoss(), "head.fc", Tap("head.fc", of=name))
                for name in ("one", "two", "average")
            }
            everyone = {**sources, "average": EMATeacher(student)}
            return Distiller(student, everyone, chosen, task_loss=nn.CrossEntropyLoss())

        other = Net(3)
        writer = write(tmp_path / "b", build(one=teacher(), two=other), views=2)
        assert [part.folder.name for part in writer.parts] == ["one", "two"]
        options = {"views": 2, "view_seed": 0}
        live = training(build(one=teacher(), two=other), **options)
        banks = {name: BankTeacher(tmp_path / "b" / name) for name in ("one", "two")}
        assert training(build(**banks), **options) == live

    def test_a_later_command_writes_what_is_missing_or_damaged(self, tmp_path: Path) -> None:
        folder = tmp_path / "b"
        write(folder, distiller(teacher()), views=2)
        before = {path.name: path.read_bytes() for path in folder.glob("view*")}
        first, second = sorted(before)[:2]
        (folder / first).unlink()
        damaged = bytearray(before[second])
        damaged[70] ^= 1
        (folder / second).write_bytes(damaged)
        kept = {name: (folder / name).stat().st_mtime_ns for name in before if name not in (first, second)}
        assert BankWriter(distiller(teacher()), data(), folder, views=2).verify() != []
        write(folder, distiller(teacher()), views=2)
        assert {path.name: path.read_bytes() for path in folder.glob("view*")} == before
        assert {name: (folder / name).stat().st_mtime_ns for name in kept} == kept
        assert BankWriter(distiller(teacher()), data(), folder, views=2).verify() == []

    def test_killed_and_resumed_by_three_at_once(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        write(tmp_path / "whole", distiller(teacher()), views=2)
        context = multiprocessing.get_context("fork")

        def work(delay: float) -> None:
            slow_down(delay)
            BankWriter(distiller(teacher()), data(), tmp_path / "b", views=2).write()

        victim = context.Process(target=work, args=(0.05,))
        victim.start()
        while len(list((tmp_path / "b").glob("view*.bank"))) < 2:
            time.sleep(0.01)
            assert victim.is_alive()
        os.kill(victim.pid, signal.SIGKILL)
        victim.join()
        assert Bank(tmp_path / "b").missing()
        crew = [context.Process(target=work, args=(0.01,)) for _ in range(3)]
        for each in crew:
            each.start()
        for each in crew:
            each.join(60)
            assert each.exitcode == 0
        assert not Bank(tmp_path / "b").missing()
        for path in (tmp_path / "whole").glob("view*.bank"):
            assert (tmp_path / "b" / path.name).read_bytes() == path.read_bytes()
        assert not list((tmp_path / "b").glob(".*.writing"))

    def test_ranks_begin_with_shards_of_their_own(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        order: list[int] = []
        whole = BankWriter._write_shard

        def noting(self: BankWriter, parts: Any, number: int) -> Iterator[int]:
            order.append(number)
            return whole(self, parts, number)

        monkeypatch.setattr(BankWriter, "_write_shard", noting)
        monkeypatch.setenv("RANK", "1")
        monkeypatch.setenv("WORLD_SIZE", "2")
        write(tmp_path / "b", distiller(teacher(), kd_only()), views=2)
        assert order == [1, 3, 5, 7, 0, 2, 4, 6]

    def test_a_bank_of_other_settings_is_not_overwritten(self, written: Path) -> None:
        with pytest.raises(BankError, match="holds another bank: key.seed is 7 in the bank and 8 now"):
            BankWriter(distiller(teacher()), data(), written, views=2, seed=8).write()
        with pytest.raises(BankError, match=r"holds another bank: key.data.transforms\[0\] is .*0.3.* in the bank"):
            BankWriter(distiller(teacher()), data(Images(transform=Noise(0.1))), written, views=2, seed=7).write()

    def test_a_disk_that_is_too_small(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        class Usage:
            free = 1000

        monkeypatch.setattr(writing.shutil, "disk_usage", lambda path: Usage)
        with pytest.raises(
            BankError, match=r"the bank needs \d+\.\d KiB more and the disk of .* has 1000 B free: choose"
        ):
            BankWriter(distiller(teacher()), data(), tmp_path / "b").write()
        assert not (tmp_path / "b").exists()

    @pytest.mark.parametrize(
        ("source", "chosen", "sentence"),
        [
            (None, {}, "has none that a match reads .its teachers: none."),
            (PastSelf(SAMPLES, CLASSES, logits="head.fc"), {}, r"its teachers: teacher \(PastSelf\)"),
        ],
    )
    def test_nothing_to_bank(self, tmp_path: Path, source: Any, chosen: Any, sentence: str) -> None:
        with pytest.raises(BankError, match=sentence):
            BankWriter(distiller(source, chosen), data(), tmp_path / "b")

    @pytest.mark.parametrize(
        ("options", "sentence"),
        [
            ({"views": 0}, "views of a bank must be a whole number >= 1, got 0"),
            ({"seed": -1}, "seed of a bank must be a whole number >= 0, got -1"),
            ({"encoding": "flaot16"}, "a bank has no encoding 'flaot16' .asked for 'head.fc'.: did you mean 'float16'"),
            ({"encoding": {"hed": "float16"}}, "encoding of a bank names the tap 'hed': did you mean 'head'"),
            ({"encoding": "top4"}, "tap 'body' is read by a match that does not compare scores: name encodings by tap"),
        ],
    )
    def test_options(self, tmp_path: Path, options: dict[str, Any], sentence: str) -> None:
        with pytest.raises(ConfigError, match=sentence):
            BankWriter(distiller(teacher()), data(), tmp_path / "b", **options).plan()

    def test_a_loader_without_a_batch_size(self, tmp_path: Path) -> None:
        loader = {"dataset": Images(), "batch_sampler": [[0, 1], [2]]}
        with pytest.raises(ConfigError, match="the training loader has no batch_size, so the bank needs its own"):
            BankWriter(distiller(teacher()), loader, tmp_path / "b")
        write(tmp_path / "b", distiller(teacher(), kd_only()), loader, batch_size=4)

    def test_a_loader_of_ours_or_of_pytorch(self, tmp_path: Path) -> None:
        ours = build_dataloader(data(), seed=3, training=True)
        theirs = DataLoader(Images(), batch_size=BATCH, shuffle=True, drop_last=True)
        for name, loader in (("a", ours), ("b", theirs)):
            write(tmp_path / name, distiller(teacher(), kd_only()), loader)
        for path in (tmp_path / "a").glob("view*"):
            assert path.read_bytes() == (tmp_path / "b" / path.name).read_bytes()

    def test_worker_processes_change_nothing(self, tmp_path: Path) -> None:
        for workers in (0, 2):
            folder = tmp_path / str(workers)
            write(folder, distiller(teacher(), kd_only()), data(num_workers=workers), views=2)
            assert BankWriter(distiller(teacher(), kd_only()), data(num_workers=2), folder, views=2).verify() == []
        for path in (tmp_path / "0").glob("view*"):
            assert path.read_bytes() == (tmp_path / "2" / path.name).read_bytes()

    def test_sizes_as_text(self) -> None:
        assert [size_text(n) for n in (5, 2048, 3 * 2**20, 5 * 2**30, 2**43)] == [
            "5 B",
            "2.0 KiB",
            "3.0 MiB",
            "5.0 GiB",
            "8.0 TiB",
        ]


def slow_down(delay: float) -> None:
    whole = Distiller.read_teachers

    def slow(self: Distiller, *args: Any) -> Any:
        time.sleep(delay)
        return whole(self, *args)

    Distiller.read_teachers = slow  # type: ignore[method-assign]


class TestUnstorable:
    def refused(self, tmp_path: Path, change: Callable[[nn.Module], Any], tap: str, sentence: str) -> None:
        net = teacher()
        change(net)
        chosen = {"x": Match(nn.MSELoss(), "body", tap)}
        with pytest.raises(LimbeckError, match=sentence):
            BankWriter(distiller(net, chosen), data(), tmp_path / "b").write()

    def test_not_a_number(self, tmp_path: Path) -> None:
        def spoil(net: nn.Module) -> None:
            net.head.fc.bias.data[0] = float("nan")

        self.refused(tmp_path, spoil, "head.fc", "teacher 'teacher' says NaN at head.fc of sample 0: check its weights")
        assert issubclass(NonFiniteError, LimbeckError)

    def test_axis_of_samples(self, tmp_path: Path) -> None:
        def turn(net: nn.Module) -> None:
            net.head.fc.register_forward_hook(lambda module, args, output: output.T)
            net.head.forward = lambda features: {"logits": net.head.fc(features.mean((2, 3))).T}

        self.refused(
            tmp_path, turn, "head.fc", r"reads a tensor of shape \(6, 8\) from a batch of 8 samples: a bank looks"
        )

    def test_changing_shapes(self, tmp_path: Path) -> None:
        class Growing(Images):
            def __getitem__(self, index: int) -> dict[str, Any]:
                sample = super().__getitem__(index)
                return sample if index < 16 else {**sample, "inputs": sample["inputs"].repeat(1, 1, 2)}

        writer = BankWriter(distiller(teacher()), data(Growing()), tmp_path / "b")
        with pytest.raises(
            BankError, match=r"body of samples 16... has shape \(8, 8, 6, 12\) and type torch.float32, and"
        ):
            writer.write()

    def test_a_transform_that_cannot_be_seeded(self, tmp_path: Path) -> None:
        class Secret:
            def __init__(self) -> None:
                self.source = random.SystemRandom()

            def __call__(self, image: Tensor) -> Tensor:
                return image * self.source.random()

        sentence = r"dataset.transform.source \(random.SystemRandom\) draws random numbers that cannot be seeded"
        with pytest.raises(ConfigError, match=sentence):
            BankWriter(distiller(teacher()), data(Images(transform=Secret())), tmp_path / "b").plan()

    def test_a_generator_that_nobody_finds(self, tmp_path: Path) -> None:
        counter = iter(range(10**6))

        class Hidden:
            def __call__(self, image: Tensor) -> Tensor:
                return image + next(counter)

        with pytest.raises(BankError, match=r"sample 0 differs when it is drawn twice .*Hidden draws from a generator"):
            BankWriter(distiller(teacher()), data(Images(transform=Hidden())), tmp_path / "b").plan()

    def test_own_generators_that_can_be_seeded_are_fine(self, tmp_path: Path) -> None:
        class Own:
            def __init__(self) -> None:
                self.source = np.random.default_rng()

            def __call__(self, image: Tensor) -> Tensor:
                return image + float(self.source.normal())

        write(tmp_path / "b", distiller(teacher(), kd_only()), data(Images(transform=Own())), views=2)
        options = {"views": 2, "view_seed": 0, "num_workers": 2}
        live = training(distiller(teacher(), kd_only()), dataset=Images(transform=Own()), **options)
        bank = distiller(BankTeacher(tmp_path / "b"), kd_only())
        assert training(bank, dataset=Images(transform=Own()), **options) == live


class TestVerify:
    def test_a_teacher_that_changed(self, tmp_path: Path) -> None:
        write(tmp_path / "b", distiller(teacher()))
        other = teacher()
        with torch.no_grad():
            other.head.fc.bias += 0.1
        with pytest.raises(BankError, match="holds another bank than this config describes: key.teacher.weights is"):
            BankWriter(distiller(other), data(), tmp_path / "b").verify()

    def test_data_that_changed_under_the_same_description(self, tmp_path: Path) -> None:
        write(tmp_path / "b", distiller(teacher()))
        (first, *_) = BankWriter(distiller(teacher()), data(Images(shift=0.01)), tmp_path / "b").verify()
        assert "inputs of samples 0... (view 0) is" in first
        assert "away from what the teacher says now" in first

    @pytest.mark.parametrize("encoding", ["exact", "float16", "bfloat16", {"head.fc": "top4", "*": "float32"}])
    def test_any_encoding_verifies_at_another_batch_size(self, tmp_path: Path, encoding: Any) -> None:
        write(tmp_path / "b", distiller(teacher()), encoding=encoding)
        assert BankWriter(distiller(teacher()), data(), tmp_path / "b", encoding=encoding, batch_size=5).verify() == []

    def test_no_bank(self, tmp_path: Path) -> None:
        with pytest.raises(BankError, match="holds no teacher bank"):
            BankWriter(distiller(teacher()), data(), tmp_path / "b").verify()


def test_the_teacher_is_judged_beside_the_student_where_it_is_at_hand(written: Path) -> None:
    model = distiller(BankTeacher(written, teacher()))
    inputs = torch.randn(2, 3, 6, 6)
    torch.testing.assert_close(model.predict_teacher("teacher", {"inputs": inputs}), teacher().eval()(inputs))
    assert isinstance(distiller(BankTeacher(written)).teacher.model, nn.Identity)


def test_copies_share_the_bank(written: Path) -> None:
    import copy

    model = distiller(BankTeacher(written))
    batch = fetch(iter(build_dataloader(data(views=2, view_seed=7), seed=1, training=True)))
    with torch.no_grad():
        torch.testing.assert_close(copy.deepcopy(model)(batch), model(batch), rtol=0, atol=0)
