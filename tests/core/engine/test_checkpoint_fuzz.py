"""Whatever happens to the bytes of a checkpoint: a sentence, no other exception, no code run, no wrong number."""

from __future__ import annotations

import contextlib
import pickle
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from limbeck_core.engine.checkpoints import digest_of, newest_checkpoint, point_to, read_checkpoint, write_checkpoint
from limbeck_core.errors import CheckpointError
from limbeck_core.weights import read_weights

CONTENT = {
    "state_dict": {"fc.weight": torch.arange(6.0).reshape(2, 3), "fc.bias": torch.zeros(2, dtype=torch.float64)},
    "optimizer": {"state": {0: {"step": 3, "momentum": torch.ones(4, dtype=torch.bfloat16)}}, "groups": [{"lr": 0.1}]},
    "meta": {"seed": 4, "cfg": "model = 1\n"},
    "limbeck": {"loop": {"epoch": 1}, "ranks": [(1, "a", None, b"xy")]},
}
fuzzed = settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
RAN = Path("the code of a damaged checkpoint ran")


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    path = tmp_path_factory.mktemp("whole") / "step_2.pth"
    write_checkpoint(path, CONTENT)
    return path.read_bytes()


@pytest.fixture
def folder(whole: bytes, tmp_path: Path) -> Path:
    for step in (1, 2):
        (tmp_path / f"step_{step}.pth").write_bytes(whole)
    point_to(tmp_path, "step_2.pth")
    return tmp_path


def parts(content: dict[str, Any]) -> str:
    ours = {k: v for k, v in content["limbeck"].items() if k not in ("format", "kind", "digest")}
    return digest_of({**content, "limbeck": ours})


def judge(folder: Path, after: bytes) -> None:
    """The file reads as it was written or is refused, and the run goes on from the one before."""
    path = folder / "step_2.pth"
    path.write_bytes(after)
    try:
        assert parts(read_checkpoint(path)) == parts(CONTENT)
    except CheckpointError:
        found = newest_checkpoint(folder)
        assert found is not None
        assert found.path.name == "step_1.pth"
        assert parts(found.content) == parts(CONTENT)
        assert "step_2.pth" in found.complaints[0]
    with contextlib.suppress(CheckpointError):
        read_weights(path)


@fuzzed
@given(data=st.data())
def test_any_flipped_byte(folder: Path, whole: bytes, data: st.DataObject) -> None:
    after = bytearray(whole)
    for _ in range(data.draw(st.integers(1, 3))):
        after[data.draw(st.integers(0, len(whole) - 1))] ^= data.draw(st.integers(1, 255))
    judge(folder, bytes(after))


@fuzzed
@given(data=st.data())
def test_any_replaced_inserted_or_cut_part(folder: Path, whole: bytes, data: st.DataObject) -> None:
    start, middle = data.draw(st.integers(0, len(whole))), data.draw(st.binary(max_size=60))
    skipped = data.draw(st.sampled_from([0, len(middle), 100, len(whole)]))
    judge(folder, whole[:start] + middle + whole[start + skipped :])


@settings(max_examples=100, deadline=None)
@given(
    format_=st.none() | st.booleans() | st.integers() | st.text(max_size=4) | st.lists(st.integers(), max_size=2),
    ours=st.none()
    | st.dictionaries(st.sampled_from(["kind", "digest", "loop", "hooks"]), st.none() | st.text(max_size=3)),
)
def test_any_plain_content(tmp_path_factory: pytest.TempPathFactory, format_: Any, ours: Any) -> None:
    path = tmp_path_factory.mktemp("plain") / "step_1.pth"
    section = ours if ours is None else {**ours, "format": format_}
    torch.save({**CONTENT, "limbeck": section}, path)
    with pytest.raises(CheckpointError, match=r"step_1.pth"):
        read_checkpoint(path)


class Bomb:
    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (RAN,)


@settings(max_examples=40, deadline=None)
@given(protocol=st.integers(2, 5), wrapped=st.booleans(), junk=st.binary(max_size=10))
def test_no_code_runs(tmp_path_factory: pytest.TempPathFactory, protocol: int, wrapped: bool, junk: bytes) -> None:
    folder = tmp_path_factory.mktemp("bomb")
    path = folder / "step_1.pth"
    content = {**CONTENT, "bomb": Bomb()} if wrapped else Bomb()
    if wrapped:
        torch.save(content, path, pickle_protocol=protocol)
    else:
        path.write_bytes(pickle.dumps(content, protocol=protocol) + junk)
    for read in (read_checkpoint, read_weights):
        with pytest.raises(CheckpointError):
            read(path)
    assert not RAN.exists()
    shutil.rmtree(folder)
