"""The table of parts."""

from __future__ import annotations

from pathlib import Path

import pytest

from nanosam_cli.core.errors import InputError, UsageError
from nanosam_cli.core.prompting.body_parts import COCO_KEYPOINTS, KEYPOINTS, TRTPOSE_KEYPOINTS, read_parts

PACKAGED = (
    *("person", "head", "shirt", "pants", "left-arm", "right-arm", "left-hand", "right-hand"),
    *("left-leg", "right-leg", "left-foot", "right-foot"),
)


def test_packaged_table() -> None:
    parts = {part.name: part for part in read_parts(PACKAGED)}
    assert [part.name for part in read_parts()] == ["person"]
    # NVIDIA NanoSAM's: shoulders and hips against the rest
    assert set(parts["shirt"].foreground) == {"left_shoulder", "right_shoulder", "left_hip", "right_hip"}
    assert {"nose", "left_knee", "right_wrist"} < set(parts["shirt"].background)
    for name, part in parts.items():
        assert not set(part.foreground) & set(part.background), name
        side, _, _ = name.partition("-")
        if side in ("left", "right"):
            other = parts[name.replace(side, "right" if side == "left" else "left")]
            swapped = [point.replace("left", "?").replace("right", "left").replace("?", "right") for point in part.box]
            assert list(other.box) == swapped


def test_orders_of_keypoints() -> None:
    """COCO's and TRTPose's files give numbers without names."""
    assert COCO_KEYPOINTS[:7] == (
        *("nose", "left_eye", "right_eye", "left_ear", "right_ear", "left_shoulder", "right_shoulder"),
    )
    assert COCO_KEYPOINTS[-2:] == ("left_ankle", "right_ankle")
    assert (len(COCO_KEYPOINTS), len(TRTPOSE_KEYPOINTS), TRTPOSE_KEYPOINTS[17]) == (17, 18, "neck")
    assert len(set(KEYPOINTS)) == len(KEYPOINTS) == 28


def test_own_table(tmp_path: Path) -> None:
    table = tmp_path / "parts.toml"
    table.write_text('[nose]\nforeground = ["nose"]\n')
    (nose,) = read_parts(["nose"], table)
    assert (nose.foreground, nose.background, nose.box, nose.margin) == (("nose",), (), (), 0.0)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[a", "is not TOML"),
        ("a = 1", "a is no table"),
        ("[a]", "a has no foreground"),
        ('[a]\nforeground = ["nose"]\nedge = 1', "a has an unknown key edge"),
        ('[a]\nforeground = "nose"', "a.foreground must be a list"),
        ('[a]\nforeground = ["left_sholder"]', "unknown keypoint left_sholder, did you mean left_shoulder?"),
        ('[a]\nforeground = ["crown"]', "unknown keypoint crown"),  # worked out, so for boxes only
        ('[a]\nforeground = ["nose"]\nmargin = -1', "a.margin must be a number from 0 on"),
        ('[a]\nforeground = ["nose"]\nmargin = true', "a.margin must be"),
        ('[a]\nforeground = ["x"]\n[b]\nforeground = []', "unknown keypoint x; b has no foreground"),
    ],
)
def test_faulty_tables(tmp_path: Path, text: str, words: str) -> None:
    table = tmp_path / "parts.toml"
    table.write_text(text)
    with pytest.raises(InputError) as caught:
        read_parts(["a"], table)
    assert words in str(caught.value)
    assert caught.value.hint


def test_missing_table_and_unknown_part(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such file"):
        read_parts([], tmp_path / "parts.toml")
    with pytest.raises(UsageError, match="unknown part: shrt") as caught:
        read_parts(["shrt"])
    assert caught.value.hint == "did you mean shirt?"
