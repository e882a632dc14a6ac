"""Which number a photo has in a COCO file."""

from __future__ import annotations

from pathlib import Path

import pytest

from nanosam_cli.core.segmentation.image_ids import number_photos


@pytest.mark.parametrize(
    ("names", "given", "ids", "counted"),
    [
        (["b.jpg", "a.jpg"], {"a.jpg": 20, "b.jpg": 70}, [70, 20], False),
        (["1.jpg", "2.jpg"], {"1.jpg": 2, "2.jpg": 1}, [2, 1], False),  # whatever they are called
        (["b.jpg", "c.jpg", "a.jpg"], {"a.jpg": 5}, [6, 7, 5], True),
        (["b.jpg", "a.jpg"], {"a.jpg": 5, "b.jpg": 5}, [1, 2], True),
        (["0285.jpg", "7.jpg"], {}, [285, 7], False),
        (["7.jpg", "07.jpg"], {}, [1, 2], True),
        (["b.jpg"], {}, [1], True),
    ],
)
def test_ids(names: list[str], given: dict[str, int], ids: list[int], counted: bool) -> None:
    photos = [Path(name) for name in names]
    found, told = number_photos(photos, {Path(name): number for name, number in given.items()})
    assert list(found) == photos
    assert (list(found.values()), told) == (ids, counted)


def test_a_name_that_is_a_larger_number_than_files_hold_is_no_id() -> None:
    photos = [Path(f"{10**30}.jpg"), Path("7.jpg")]
    assert number_photos(photos, {}) == (dict(zip(photos, (1, 2))), True)
