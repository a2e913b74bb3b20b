"""How a tensor of a teacher becomes bytes of a bank: as it is, in fewer bits, or only its largest scores.

An encoding is named by a short text:

==================  ============================================================================================
``exact``           the tensor's own type; what is read is bit for bit what was written
``float32``         float32; loses nothing of float32, float16 and bfloat16
``float16``         relative error at most 2^-11 of values from 6.1e-5 to 65504; below, absolute 2^-25
``bfloat16``        relative error at most 2^-8, for any size of value
``top16``           class scores: the 16 largest (any number) and what the rest weighs together
``top16@4``         the same, exact in the weight of the rest at temperature 4 instead of 1
``top16@4:last``    the same for scores whose classes are the last axis (tokens) instead of axis 1
==================  ============================================================================================

Tensors of whole numbers and booleans are kept exactly under any encoding but ``top``. A value that does not fit (too
large for float16) is refused when it is written, never cut off.
"""

from __future__ import annotations

import math
import re
from abc import ABC, abstractmethod
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from limbeck_core.errors import BankError, closest

Rows = npt.NDArray[np.uint8]
_CASTS = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}
_BOUNDS = {
    torch.float32: "relative 2^-24",
    torch.float16: "relative 2^-11 (absolute 2^-25 below 6.1e-5)",
    torch.bfloat16: "relative 2^-8",
}
_TOP = re.compile(r"top([1-9]\d{0,6})(?:@(\d+(?:\.\d+)?))?(:last)?")


class Encoding(ABC):
    """From tensors to fixed-size rows of bytes and back, for tensors of one shape and type a sample.

    Args:
        shape: Shape of one sample's tensor.
        dtype: Its type, which reading restores.

    ``size`` is the number of bytes a sample, ``bound`` the largest error as text.
    """

    size: int
    bound: str

    def __init__(self, shape: tuple[int, ...], dtype: torch.dtype) -> None:
        self.shape = shape
        self.dtype = dtype

    @abstractmethod
    def encode(self, values: Tensor) -> Rows:
        """Return the rows of a batch, shape ``(N, size)``.

        Args:
            values: Shape ``(N, *shape)``, on the CPU.

        Raises:
            BankError: if a value does not fit the encoding.
        """

    @abstractmethod
    def decode(self, rows: Rows) -> Tensor:
        """Return the tensors of rows, shape ``(N, *shape)``; the rows themselves are left alone."""

    @abstractmethod
    def errors(self, values: Tensor, decoded: Tensor) -> npt.NDArray[np.float64]:
        """Return the error of each sample: the largest absolute difference; of ``top`` the divergence in nats."""


class Cast(Encoding):
    """Every number, in one type.

    Args:
        shape: See :class:`Encoding`.
        dtype: See :class:`Encoding`.
        stored: Type on the disk.
    """

    def __init__(self, shape: tuple[int, ...], dtype: torch.dtype, stored: torch.dtype) -> None:
        super().__init__(shape, dtype)
        self.stored = stored
        self.size = math.prod(shape) * stored.itemsize
        self.bound = "none" if torch.promote_types(dtype, stored) == stored else _BOUNDS[stored]

    def encode(self, values: Tensor) -> Rows:
        """Return the rows of a batch."""
        # a fresh tensor: one with an axis of length 1 may call itself contiguous and have strides that no view takes
        stored = torch.empty(len(values), math.prod(self.shape), dtype=self.stored)
        stored.copy_(values.reshape(stored.shape))
        if self.stored is torch.float16 and bool(
            (torch.isinf(stored) & torch.isfinite(values.reshape(stored.shape))).any()
        ):
            largest = float(values[torch.isfinite(values)].abs().max())
            raise BankError(
                f"a value of size {largest:.3g} does not fit float16, which ends at 65504: choose the encoding "
                "bfloat16 or float32"
            )
        rows: Rows = stored.view(torch.uint8).numpy()
        return rows

    def decode(self, rows: Rows) -> Tensor:
        """Return the tensors of rows."""
        own = torch.empty(len(rows), math.prod(self.shape), dtype=self.stored)
        own.view(torch.uint8).numpy()[...] = rows
        return own.reshape(len(rows), *self.shape).to(self.dtype)

    def errors(self, values: Tensor, decoded: Tensor) -> npt.NDArray[np.float64]:
        """Return the largest absolute difference of each sample."""
        if self.bound == "none":
            return np.zeros(len(values))
        # where both are the same infinity there is no difference
        difference = torch.where(values == decoded, 0.0, (decoded.double() - values.double()).abs())
        return difference.reshape(len(values), -1).amax(1).numpy().astype(np.float64)


class TopScores(Encoding):
    r"""The ``count`` largest scores of each place, and one score that stands for every other class.

    The other classes share their weight evenly: each gets the score :math:`t` for which

    .. math:: (C - k) \, e^{t / \tau} = \sum_{i \notin top} e^{z_i / \tau}

    so that at temperature :math:`\tau` every kept class has the probability it had, and only how the rest divides its
    mass :math:`p_r` is lost: the total variation is at most :math:`p_r` (:math:`1 - 1/(C - k)` of it), the divergence
    at most :math:`p_r \log(C - k)` nats. The largest score is float32; the others are float16 distances from it, which
    moves the logarithm of a kept probability by at most :math:`2^{-10} \, d / \tau` at a distance :math:`d`.

    Args:
        shape: Shape of one sample's scores: classes on the first axis, or on the last.
        dtype: See :class:`Encoding`.
        count: Scores kept, :math:`k`.
        temperature: :math:`\tau`, that of the loss.
        last: Whether classes are on the last axis.

    Raises:
        BankError: if the scores have no axis of more than ``count`` classes, or are no floating-point numbers.
    """

    def __init__(
        self, shape: tuple[int, ...], dtype: torch.dtype, count: int, temperature: float, *, last: bool
    ) -> None:
        super().__init__(shape, dtype)
        if not shape or not dtype.is_floating_point:
            raise BankError(
                f"the encoding top{count} keeps the largest class scores of a sample, and this tensor has shape "
                f"{shape} and type {_name(dtype)} a sample: choose 'exact' for it"
            )
        self.axis = len(shape) - 1 if last else 0
        self.classes = shape[self.axis]
        if count >= self.classes:
            raise BankError(
                f"the encoding top{count} needs more than {count} classes, this tensor has {self.classes}: choose a "
                "smaller number, or float16"
            )
        self.count, self.temperature = count, temperature
        self.places = math.prod(shape) // self.classes
        self.bits = (self.classes - 1).bit_length()  # of the number of a class
        self.size = self.places * (4 + 2 * count) + math.ceil(self.places * count * self.bits / 8)
        self.bound = f"total variation <= mass beyond the top {count} at temperature {temperature:g}"

    def _flat(self, values: Tensor) -> Tensor:
        """Classes last: ``(N, places, classes)``."""
        return values.movedim(self.axis + 1, -1).reshape(len(values), self.places, self.classes)

    def encode(self, values: Tensor) -> Rows:
        """Return the rows of a batch."""
        flat = self._flat(values).double()
        top, index = flat.topk(self.count, dim=-1)
        rest = flat.scatter(-1, index, -math.inf)
        tail = torch.logsumexp(rest / self.temperature, -1, keepdim=True) - math.log(self.classes - self.count)
        largest = top[..., :1].float()
        below = torch.cat([top[..., 1:], tail * self.temperature], -1)
        distance = (largest - below).half()
        if bool((torch.isinf(distance) & torch.isfinite(below)).any()) or not bool(torch.isfinite(largest).all()):
            raise BankError(
                "class scores lie further apart than float16 can say (65504), or are infinite: choose the encoding "
                "bfloat16 or float32"
            )
        parts = [largest.numpy().astype("<f4"), distance.numpy().astype("<f2")]
        parts = [part.reshape(len(values), -1).view(np.uint8) for part in parts]
        return np.concatenate([*parts, self._packed(index.numpy())], axis=1)

    def _packed(self, index: npt.NDArray[np.int64]) -> Rows:
        """Numbers of classes, in as few bits each as they need."""
        bits = (index[..., None] >> np.arange(self.bits - 1, -1, -1)) & 1
        return np.packbits(bits.astype(np.uint8).reshape(len(index), -1), axis=1)

    def _unpacked(self, rows: Rows) -> npt.NDArray[np.int64]:
        bits = np.unpackbits(rows, axis=1, count=self.places * self.count * self.bits)
        bits = bits.reshape(len(rows), self.places, self.count, self.bits)
        index = np.zeros(bits.shape[:-1], dtype=np.int64)
        for place in range(self.bits):
            index = index << 1 | bits[..., place]
        return index

    def decode(self, rows: Rows) -> Tensor:
        """Return the scores of rows, the classes beyond the top all with the score that stands for them."""
        number, places, count = len(rows), self.places, self.count
        cuts = [4 * places, (4 + 2 * count) * places]
        first, second, third = np.split(rows, cuts, axis=1)
        largest = torch.from_numpy(np.array(first).view("<f4").reshape(number, places, 1))
        distance = torch.from_numpy(np.array(second).view("<f2").reshape(number, places, count)).float()
        index = self._unpacked(third)
        # bytes that were damaged where nobody checked them must not reach beyond the classes
        index.clip(0, self.classes - 1, out=index)
        below = largest - distance
        scores = below[..., -1:].repeat(1, 1, self.classes)
        scores.scatter_(-1, torch.from_numpy(index), torch.cat([largest, below[..., :-1]], -1))
        others = [size for axis, size in enumerate(self.shape) if axis != self.axis]
        return scores.reshape(number, *others, self.classes).movedim(-1, self.axis + 1).to(self.dtype).contiguous()

    def errors(self, values: Tensor, decoded: Tensor) -> npt.NDArray[np.float64]:
        """Return the divergence of each sample, in nats at the temperature, averaged over its places."""
        true, kept = (
            torch.log_softmax(self._flat(scores).double() / self.temperature, -1) for scores in (values, decoded)
        )
        share = true.exp()
        terms = torch.where(share > 0, share * (true - kept), 0.0)
        return terms.sum(-1).mean(-1).clamp(min=0).numpy().astype(np.float64)


@dataclass(frozen=True)
class Column:
    """One tensor that a bank holds for every sample.

    Args:
        name: What it is, for tables and messages.
        shape: Shape of one sample's tensor.
        dtype: Its type, such as ``"float32"``.
        encoding: How it is stored, see the module.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str
    encoding: str

    def codec(self) -> Encoding:
        """Return what encodes and decodes it.

        Raises:
            BankError: if the encoding does not exist or does not suit the tensor.
        """
        dtype = getattr(torch, self.dtype, None)
        if not isinstance(dtype, torch.dtype):
            raise BankError(f"{self.name}: {self.dtype!r} is no type of tensors")
        if math.prod(self.shape) == 0:
            raise BankError(f"{self.name} has shape {self.shape} a sample, so there is nothing in it to store")
        if not is_encoding(self.encoding):
            known = ["exact", *_CASTS, "top16", "top16@4"]
            raise BankError(f"{self.name}: there is no encoding {self.encoding!r}: {closest(self.encoding, known)}")
        top = _TOP.fullmatch(self.encoding)
        if top:
            count, temperature, last = top.groups()
            return TopScores(self.shape, dtype, int(count), float(temperature or 1), last=bool(last))
        stored = _CASTS.get(self.encoding, dtype) if dtype.is_floating_point else dtype
        return Cast(self.shape, dtype, stored)


def is_encoding(text: str) -> bool:
    """Whether a text names an encoding."""
    top = _TOP.fullmatch(text)
    return text == "exact" or text in _CASTS or (top is not None and float(top.group(2) or 1) > 0)


def with_temperature(encoding: str, temperature: float) -> str:
    """Return ``top16`` as ``top16@4``; an encoding that names its temperature, or has none, stays as it is."""
    top = _TOP.fullmatch(encoding)
    if top is None or top.group(2) is not None or temperature == 1:
        return encoding
    return f"top{top.group(1)}@{temperature:g}{top.group(3) or ''}"


def column_of(name: str, value: Tensor, encoding: str) -> Column:
    """Return the column that holds a tensor ``(N, ...)`` of every sample."""
    return Column(name, tuple(value.shape[1:]), _name(value.dtype), encoding)


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


__all__ = ["Cast", "Column", "Encoding", "TopScores", "column_of", "is_encoding", "with_temperature"]
