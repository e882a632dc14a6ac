"""Files of results that were spoilt before somebody wants to correct an object in them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nanosam_cli.core.errors import InputError
from nanosam_cli.core.media.mask_codes import mask_to_rle
from nanosam_cli.core.segmentation.editable import ResultPlace, open_object
from nanosam_cli.core.types import Segmentation

MASK = np.zeros((20, 10), bool)
MASK[2:9, 3:8] = True
RLE = mask_to_rle(MASK)


def place(path: Path) -> ResultPlace:
    return ResultPlace(path, Path("a.jpg"), (20, 10), 1)


@pytest.mark.parametrize(
    "content",
    [
        3,
        None,
        "shapes",
        {},
        {"objects": 3},
        {"objects": [3]},
        {"objects": [{"segmentation": RLE}]},
        {"objects": [{"label": 1, "segmentation": 5}]},
        {"objects": [{"label": 1, "segmentation": [5]}]},
        {"shapes": [{"label": "cat"}]},
        {"shapes": [{"label": "cat", "points": [[1, 2], [3]]}]},
        {"shapes": [{"label": [], "points": [[1, 2], [3, 4], [5, 9]]}]},
        [{"category_id": 1, "segmentation": RLE}],
        [{"image_id": None, "segmentation": RLE}],
        [{"image_id": [], "segmentation": RLE}],
        {"images": [], "annotations": [{"id": 1}]},
    ],
    ids=range(16),
)
def test_json_of_another_layout(tmp_path: Path, content: Any) -> None:
    path = tmp_path / "a.json"
    path.write_text(json.dumps(content))
    with pytest.raises(InputError, match=r"a\.json") as caught:
        open_object(place(path))
    assert caught.value.hint


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("a.json", b"[" * 100_000),
        ("a.json", b"\xff"),
        ("a.json", b"9" * 5000),
        ("a.png", b"\x89PNG\r\n\x1a\n"),
        ("a.png", b""),
    ],
)
def test_bytes_that_are_nothing(tmp_path: Path, name: str, data: bytes) -> None:
    (tmp_path / name).write_bytes(data)
    with pytest.raises(InputError, match=name):
        open_object(place(tmp_path / name))


def test_half_a_character_beside_whole_ones_is_written_again(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    objects = json.dumps([{"label": 1, "segmentation": RLE}])
    path.write_text('{"note": "\u00e9 \\ud800", "objects": ' + objects + "}", encoding="utf-8")
    found = open_object(place(path))
    written = found.with_mask(Segmentation(~MASK, 0.5, np.zeros((256, 256), np.float32)))
    again = json.loads(written)
    assert again["note"] == "\u00e9 \ud800"
    assert again["objects"][0]["segmentation"] == mask_to_rle(~MASK)
