from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from nanosam_cli.core.errors import InputError
from nanosam_cli.core.prompting.detection_files import read_detections
from nanosam_cli.core.prompting.prompt_files import read_prompts


def prompts(folder: Path, entry: Any) -> Path:
    path = folder / "p.json"
    path.write_text(json.dumps({"a.jpg": entry}))
    return path


def test_points_with_and_without_labels(tmp_path: Path) -> None:
    found = read_prompts(prompts(tmp_path, {"points": [[[1, 2, 1], [3, 4, 0]], [[5, 6]]]}))["a.jpg"]
    assert found.points is not None
    assert found.labels is not None
    assert found.points.tolist() == [[[1, 2], [3, 4]], [[5, 6], [0, 0]]]
    assert found.labels.tolist() == [[1, 0], [1, -1]]  # padding is ours to write


@pytest.mark.parametrize("label", [-1, 2, 3, 0.5, 7])
def test_labels_that_only_the_decoder_knows(tmp_path: Path, label: float) -> None:
    for entry in ({"points": [[1, 2, label]]}, {"points": [[[1, 2], [3, 4, label]]]}):
        with pytest.raises(InputError, match=rf"p\.json, a\.jpg: \[\d, \d, .*\] has the label {label:g}") as caught:
            read_prompts(prompts(tmp_path, entry))
        assert caught.value.hint == "a label is 1, on the object, or 0, beside it"


@pytest.mark.parametrize("label", [-1, 2])
def test_labels_of_labelmes_clicks(tmp_path: Path, label: int) -> None:
    shape = {"label": "cat", "points": [[1, 2]], "shape_type": "points", "point_labels": [label]}
    path = tmp_path / "a.json"
    path.write_text(json.dumps({"imagePath": "a.jpg", "shapes": [shape]}))
    with pytest.raises(InputError, match=f"a click's label is 1 or 0, not {label}"):
        read_detections(path)


DEEP = json.loads("[" * 500 + "]" * 500)


@pytest.mark.parametrize(
    "entry",
    [
        None,
        3,
        [],
        {},
        {"boxes": None},
        {"boxes": 3},
        {"boxes": [3]},
        {"boxes": [[1, 2, 3]]},
        {"boxes": [[1, 2, 3, "4"]]},
        {"boxes": [[1, 2, 3, float("nan")]]},
        {"boxes": [[1, 2, 3, 10**400]]},
        {"boxes": [[1, 2, 3, True]]},
        {"boxes": DEEP},
        {"points": DEEP},
        {"points": {"x": 1}},
        {"points": [[1]]},
        {"points": [[]]},
        {"boxes": [[1, 2, 3, 4]], "mask": "a.png"},
        {"boxes": [[1, 2, 3, 4]], "labels": 3},
        {"boxes": [[1, 2, 3, 4]], "labels": DEEP},
    ],
    ids=range(20),
)
def test_entries_of_another_layout(tmp_path: Path, entry: Any) -> None:
    with pytest.raises(InputError, match=r"p\.json, a\.jpg") as caught:
        read_prompts(prompts(tmp_path, entry))
    assert caught.value.hint
    assert len(str(caught.value)) < 300 + len(str(tmp_path))
