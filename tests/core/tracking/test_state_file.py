from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nanosam_cli.core.errors import InputError
from nanosam_cli.core.inference.predictor import Predictor
from nanosam_cli.core.loading.load import load_predictor
from nanosam_cli.core.system.journal import Journal
from nanosam_cli.core.tracking.record import TrackRecord
from nanosam_cli.core.tracking.state_file import read_state, write_state
from nanosam_cli.core.tracking.tracker import Tracked, Tracker
from nanosam_cli.core.types import Prompt
from tests.video_data import picture


def test_a_state_comes_back_bit_by_bit(tmp_path: Path) -> None:
    state = {
        "a": np.linspace(0, 1, 6, dtype=np.float32).reshape(2, 3),
        "deep": {"mask": np.eye(2, dtype=bool), "none": None, "third": 1 / 3, "large": 2**127 + 1, "list": [1, "b"]},
    }
    write_state(tmp_path / "state.npz", {"a": np.zeros(1)})
    write_state(tmp_path / "state.npz", state)
    found = read_state(tmp_path / "state.npz")
    for one, other in ((state["a"], found["a"]), (state["deep"].pop("mask"), found["deep"].pop("mask"))):
        assert one.dtype == other.dtype
        np.testing.assert_array_equal(one, other)
    assert found["deep"] == state["deep"]


def _pickled(path: Path) -> None:
    np.savez(path, np.array([{"code": print}], dtype=object))


def _nameless(path: Path) -> None:
    np.savez(path, np.frombuffer(b'{"x": {"array": "arr_9"}}', np.uint8))


def _no_text(path: Path) -> None:
    np.savez(path, np.frombuffer(b"[1]", np.uint8))


@pytest.mark.parametrize(
    "make",
    [_pickled, _nameless, _no_text, lambda path: path.write_bytes(b"PK junk"), Path.touch],
    ids=["pickled", "nameless", "no text", "junk", "empty"],
)
def test_a_file_that_is_none_is_refused(tmp_path: Path, make: Any) -> None:
    make(tmp_path / "state.npz")
    with pytest.raises(InputError, match=r"state\.npz cannot be read") as caught:
        read_state(tmp_path / "state.npz")
    assert caught.value.hint == "`--force` starts anew"


def _cut(path: Path) -> None:
    write_state(path, {"frames": 3, "a": np.arange(99)})
    path.write_bytes(path.read_bytes()[:-30])


def _deep(path: Path) -> None:
    np.savez(path, np.frombuffer(b"[" * 100_000, np.uint8))


def _no_header(path: Path) -> None:
    write_state(path, {"a": np.arange(99)})
    path.write_bytes(path.read_bytes().replace(b"fortran_order", b"fortran order"))


@pytest.mark.parametrize("make", [_cut, _deep, _no_header])
def test_a_file_that_was_spoilt_is_refused(tmp_path: Path, make: Any) -> None:
    make(tmp_path / "state.npz")
    with pytest.raises(InputError, match=r"state\.npz cannot be read"):
        read_state(tmp_path / "state.npz")


@pytest.mark.parametrize("state", [{}, {"frames": "3", "run": {}}, {"frames": 3, "run": None}])
def test_the_state_of_something_else(tmp_path: Path, state: dict[str, Any]) -> None:
    write_state(tmp_path / "state.npz", state)
    with (
        Journal(tmp_path / "frames.jsonl", {}) as journal,
        pytest.raises(InputError, match=r"state\.npz is not the state of a run"),
    ):
        TrackRecord(tmp_path, journal, resume=True)


def test_a_tracker_goes_on_as_if_nothing_had_been(tmp_path: Path, own_files: tuple[Path, Path]) -> None:
    """Two objects: one that moves, and one that is lost and found again."""
    pictures = [picture(index, there=not 4 <= index < 9) for index in range(16)]
    with load_predictor(encoder=own_files[0], decoder=own_files[1]) as predictor:
        for moment in (2, 6, 11):
            whole, before, after = Tracker(predictor), Tracker(predictor), Tracker(predictor)
            expected = follow(predictor, whole, pictures)
            follow(predictor, before, pictures[:moment])
            write_state(tmp_path / "state.npz", before.state())
            after.restore(read_state(tmp_path / "state.npz"))
            found = [after.update(predictor.encode_image(image)) for image in pictures[moment:]]
            assert len(found) == 16 - moment
            for one, other in zip(expected[moment:], found, strict=True):
                assert [(t.number, t.state, t.score) for t in one] == [(t.number, t.state, t.score) for t in other]
                for a, b in zip(one, other, strict=True):
                    np.testing.assert_array_equal(a.segmentation.low_res_logits, b.segmentation.low_res_logits)


def follow(predictor: Predictor, tracker: Tracker, pictures: list[Any]) -> list[list[Tracked]]:
    prompt = Prompt.from_boxes([[20, 30, 50, 60], [90, 5, 120, 20]])
    found = [tracker.init(predictor.encode_image(pictures[0]), prompt)]
    return found + [tracker.update(predictor.encode_image(image)) for image in pictures[1:]]
