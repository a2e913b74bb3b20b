"""Encodings: what is read is what was written, or as far from it as they say and no further."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from limbeck_core.bank.encodings import Column, TopScores, column_of, with_temperature
from limbeck_core.errors import BankError


def round_trip(value: Tensor, encoding: str) -> Tensor:
    codec = column_of("x", value, encoding).codec()
    rows = codec.encode(value)
    assert rows.dtype == np.uint8
    assert rows.shape == (len(value), codec.size)
    before = rows.copy()
    decoded = codec.decode(rows)
    assert (rows == before).all()
    assert (decoded.shape, decoded.dtype) == (value.shape, value.dtype)
    return decoded


def scores(*shape: int, spread: float = 5.0) -> Tensor:
    return spread * torch.randn(shape, generator=torch.Generator().manual_seed(3))


class TestCasts:
    @pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16])
    def test_exact_is_exact(self, dtype: torch.dtype) -> None:
        value = scores(5, 3, 2).to(dtype)
        value[0, 0, 0] = math.inf
        assert torch.equal(round_trip(value, "exact"), value)

    @pytest.mark.parametrize("encoding", ["exact", "float16", "bfloat16"])
    @pytest.mark.parametrize("dtype", [torch.int64, torch.int32, torch.uint8, torch.bool])
    def test_whole_numbers_stay_under_any_encoding(self, dtype: torch.dtype, encoding: str) -> None:
        value = torch.arange(12).reshape(4, 3).to(dtype)
        assert torch.equal(round_trip(value, encoding), value)

    @pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
    def test_float32_loses_nothing_of_smaller_types(self, dtype: torch.dtype) -> None:
        value = scores(4, 3).to(dtype)
        assert torch.equal(round_trip(value, "float32"), value)
        assert column_of("x", value, "float32").codec().bound == "none"

    @pytest.mark.parametrize(("encoding", "bits"), [("float16", 11), ("bfloat16", 8)])
    def test_errors_stay_within_the_bound_that_is_stated(self, encoding: str, bits: int) -> None:
        value = torch.logspace(-4, 4, 4000).reshape(-1, 4)
        decoded = round_trip(value, encoding)
        relative = ((decoded - value) / value).abs()
        assert 0 < float(relative.max()) <= 2.0**-bits
        codec = column_of("x", value, encoding).codec()
        assert f"2^-{bits}" in codec.bound
        worst = torch.from_numpy(codec.errors(value, decoded))
        torch.testing.assert_close(worst, (decoded - value).abs().amax(1).double())

    def test_small_numbers_in_float16(self) -> None:
        value = torch.full((2, 1), 3.3e-6)
        assert float((round_trip(value, "float16") - value).abs().max()) <= 2.0**-25

    def test_what_does_not_fit_is_refused(self) -> None:
        value = torch.tensor([[1.0], [1e6]])
        with pytest.raises(
            BankError, match=r"a value of size 1e\+06 does not fit float16, which ends at 65504: choose"
        ):
            round_trip(value, "float16")
        assert torch.equal(round_trip(value.bfloat16(), "bfloat16"), value.bfloat16())

    def test_infinity_that_was_there_before_fits(self) -> None:
        value = torch.tensor([[math.inf], [-math.inf]])
        assert torch.equal(round_trip(value, "float16"), value)
        codec = column_of("x", value, "float16").codec()
        assert codec.errors(value, value).tolist() == [0, 0]

    def test_one_number_a_sample(self) -> None:
        value = torch.tensor([1.5, -2.0])
        assert torch.equal(round_trip(value, "exact"), value)


class TestTopScores:
    def test_kept_probabilities_are_those_of_the_teacher(self) -> None:
        value = scores(20, 50)
        for temperature in (1.0, 4.0):
            decoded = round_trip(value, f"top8@{temperature:g}")
            true, kept = ((z / temperature).softmax(1) for z in (value, decoded))
            index = value.topk(8).indices
            torch.testing.assert_close(kept.gather(1, index), true.gather(1, index), rtol=3e-3, atol=1e-6)

    def test_the_rest_keeps_its_mass_and_loses_its_shape(self) -> None:
        value = scores(20, 50, spread=2.0)
        decoded = round_trip(value, "top8@2")
        true, kept = ((z / 2).softmax(1) for z in (value, decoded))
        rest = 1 - true.gather(1, value.topk(8).indices).sum(1)
        variation = 0.5 * (true - kept).abs().sum(1)
        assert (variation <= rest * (1 - 1 / 42) + 1e-3).all()
        divergence = (true * (true / kept).log()).sum(1)
        assert (divergence <= rest * math.log(42) + 1e-3).all()
        codec = column_of("x", value, "top8@2").codec()
        np.testing.assert_allclose(codec.errors(value, decoded), divergence.double(), atol=1e-6)

    def test_the_temperature_matters(self) -> None:
        """The control: a tail that is right at 1 weighs too much at 4."""
        value = scores(50, 40)
        errors = []
        for encoding in ("top4", "top4@4"):
            decoded = round_trip(value, encoding)
            true, kept = ((z / 4).softmax(1) for z in (value, decoded))
            errors.append(float((true * (true / kept).log()).sum(1).mean()))
        assert errors[1] < 0.9 * errors[0]

    def test_the_best_classes_keep_their_order(self) -> None:
        value = scores(30, 100)
        decoded = round_trip(value, "top5")
        assert torch.equal(decoded.argmax(1), value.argmax(1))
        assert torch.equal(decoded.amax(1), value.amax(1))

    def test_a_map_of_scores(self) -> None:
        value = scores(3, 10, 4, 5)
        decoded = round_trip(value, "top9")
        torch.testing.assert_close(decoded, value, rtol=1e-2, atol=2e-2)

    def test_classes_last(self) -> None:
        value = scores(3, 4, 10)
        torch.testing.assert_close(round_trip(value, "top9:last"), value, rtol=1e-2, atol=2e-2)
        with pytest.raises(BankError, match="top9 needs more than 9 classes, this tensor has 4"):
            round_trip(value, "top9")

    def test_masked_scores(self) -> None:
        value = scores(2, 6)
        value[:, 3:] = -math.inf
        decoded = round_trip(value, "top4")
        assert torch.isinf(decoded[:, 3:]).all()
        torch.testing.assert_close(decoded[:, :3], value[:, :3], rtol=1e-2, atol=1e-2)
        assert np.isfinite(column_of("x", value, "top4").codec().errors(value, decoded)).all()

    @pytest.mark.parametrize(("classes", "bits"), [(100, 7), (128, 7), (129, 8), (1000, 10), (50257, 16), (65537, 17)])
    def test_classes_take_as_few_bits_as_they_need(self, classes: int, bits: int) -> None:
        codec = Column("x", (classes,), "float32", "top16").codec()
        assert codec.size == 4 + 16 * 2 + 2 * bits
        value = torch.randn(3, classes)
        value[:, -1], value[:, 0] = 50, 40  # the ends of the range are among the kept
        assert torch.equal(codec.decode(codec.encode(value)).topk(2).indices, torch.tensor([[classes - 1, 0]] * 3))

    @pytest.mark.parametrize(
        ("value", "sentence"),
        [
            (torch.zeros(2, 4, dtype=torch.int64), "has shape \\(4,\\) and type int64 a sample: choose 'exact'"),
            (torch.zeros(2), "has shape \\(\\) and type float32"),
            (torch.zeros(2, 3), "top3 needs more than 3 classes, this tensor has 3"),
            (torch.tensor([[1e6, 0.0, -1.0, 2.0]]), "further apart than float16 can say"),
        ],
    )
    def test_refused(self, value: Tensor, sentence: str) -> None:
        with pytest.raises(BankError, match=sentence):
            round_trip(value, "top3")

    def test_damaged_bytes_stay_within_the_classes(self) -> None:
        codec = Column("x", (10,), "float32", "top3").codec()
        rows = np.full((4, codec.size), 255, np.uint8)
        assert codec.decode(rows).shape == (4, 10)


@pytest.mark.parametrize(
    ("column", "sentence"),
    [
        (Column("fc", (3,), "float32", "flaot16"), "fc: there is no encoding 'flaot16': did you mean 'float16'"),
        (Column("fc", (3,), "load", "exact"), "fc: 'load' is no type of tensors"),
        (Column("fc", (0, 4), "float32", "exact"), "fc has shape \\(0, 4\\) a sample, so there is nothing in it"),
        (Column("fc", (3,), "float32", "top0"), "no encoding 'top0'"),
        (Column("fc", (3,), "float32", "top2@0"), "no encoding 'top2@0'"),
    ],
)
def test_columns_are_checked(column: Column, sentence: str) -> None:
    with pytest.raises(BankError, match=sentence):
        column.codec()


def test_the_temperature_of_the_match_is_used_where_none_is_named() -> None:
    assert with_temperature("top16", 4.0) == "top16@4"
    assert with_temperature("top16:last", 2.5) == "top16@2.5:last"
    assert with_temperature("top16@2", 4.0) == "top16@2"
    assert with_temperature("float16", 4.0) == "float16"
    codec = Column("x", (20,), "float32", "top16@2.5:last").codec()
    assert isinstance(codec, TopScores)
    assert codec.temperature == 2.5


@settings(max_examples=60, deadline=None)
@given(
    shape=st.lists(st.integers(1, 5), min_size=0, max_size=3),
    rows=st.integers(1, 4),
    encoding=st.sampled_from(["exact", "float32", "float16", "bfloat16"]),
    seed=st.integers(0, 2**31),
)
def test_any_shape(shape: list[int], rows: int, encoding: str, seed: int) -> None:
    value = 3 * torch.randn(rows, *shape, generator=torch.Generator().manual_seed(seed))
    torch.testing.assert_close(round_trip(value, encoding), value, rtol=2.0**-8, atol=1e-5)
