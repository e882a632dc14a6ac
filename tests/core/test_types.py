from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from nanosam_cli.core.errors import UsageError
from nanosam_cli.core.frame import Frame
from nanosam_cli.core.types import ImageEmbedding, Prompt, Segmentation


def zeros(*shape: int) -> np.ndarray[Any, np.dtype[np.float32]]:
    return np.zeros(shape, np.float32)


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ({}, "no prompt given"),
        ({"boxes": zeros(4)}, "boxes must have shape"),
        ({"boxes": zeros(2, 3)}, "boxes must have shape"),
        ({"boxes": np.float32(3)}, "boxes must have shape"),
        ({"boxes": np.array([[0, 0, np.nan, 5]], np.float32)}, "finite"),
        ({"boxes": np.array([[0, 0, np.inf, 5]], np.float32)}, "finite"),
        ({"points": zeros(1, 2, 2)}, "need labels"),
        ({"boxes": zeros(1, 4), "labels": zeros(1, 2)}, "need labels"),
        ({"points": zeros(1, 2, 2), "labels": zeros(1, 3)}, "need labels"),
        ({"points": zeros(1, 2, 3), "labels": zeros(1, 2)}, "points must have shape"),
        ({"points": zeros(2, 2), "labels": zeros(2, 1)}, "points must have shape"),
        ({"mask_logits": zeros(1, 128, 256)}, "mask_logits must have shape"),
        ({"boxes": zeros(2, 4), "mask_logits": zeros(1, 256, 256)}, "same number of objects"),
        ({"boxes": zeros(2, 4), "points": zeros(3, 1, 2), "labels": zeros(3, 1)}, "same number of objects"),
    ],
)
def test_bad_prompts(parts: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        Prompt(**parts)


@pytest.mark.parametrize("boxes", [[[1, 2, 3]], [[1, 2, 3, 4], [1, 2]], [["a", 1, 2, 3]], [1, 2, 3, 4], [[None] * 4]])
def test_bad_boxes(boxes: Any) -> None:
    with pytest.raises(UsageError, match="boxes must"):
        Prompt.from_boxes(boxes)


@pytest.mark.parametrize(
    ("points", "labels"),
    [([[1, 2, 3]], None), ([[1, 2], [3]], None), ([[1, 2]], [1, 0]), ([[1, 2]], ["x"]), ([], None)],
)
def test_bad_points(points: Any, labels: Any) -> None:
    with pytest.raises(UsageError):
        Prompt.from_points(points, labels)


def test_prompts_count_and_slice() -> None:
    prompt = Prompt(zeros(5, 4), zeros(5, 2, 2), zeros(5, 2), zeros(5, 256, 256))
    part = prompt[3:9]
    assert (len(prompt), len(part)) == (5, 2)
    shapes = {name: array.shape for name, array in vars(part).items()}
    assert shapes == {"boxes": (2, 4), "points": (2, 2, 2), "labels": (2, 2), "mask_logits": (2, 256, 256)}
    assert len(Prompt.from_boxes([])) == 0
    assert len(Prompt.from_boxes([[0, 0, 1, 1], [1, 1, 2, 2]])) == 2


def test_points_are_foreground_of_one_object_unless_labelled() -> None:
    assert vars(Prompt.from_points([[1, 2], [3, 4]]))["labels"].tolist() == [[1, 1]]
    assert vars(Prompt.from_points([[1, 2], [3, 4]], [1, 0]))["labels"].tolist() == [[1, 0]]
    assert len(Prompt.from_points([[1, 2], [3, 4]])) == 1


@pytest.mark.parametrize(
    ("rows", "area", "bbox"),
    [
        (["....", "...."], 0, None),
        (["#...", "...."], 1, (0, 0, 1, 1)),
        (["....", ".##.", "...#"], 3, (1, 1, 3, 2)),
        (["...#"], 1, (3, 0, 1, 1)),
    ],
)
def test_area_and_bbox(rows: list[str], area: int, bbox: tuple[int, int, int, int] | None) -> None:
    mask = np.array([[cell == "#" for cell in row] for row in rows])
    found = Segmentation(mask, 0.9, zeros(256, 256))
    assert (found.area, found.bbox) == (area, bbox)


def test_results_compare_by_identity() -> None:
    """Arrays have no single truth value, so comparing fields would raise."""
    first, second = (Segmentation(np.ones((2, 2), np.bool_), 0.9, zeros(256, 256)) for _ in range(2))
    assert second in [first, second]
    assert first != second


def test_an_embedding_copies_to_the_host() -> None:
    class OnDevice:
        def numpy(self) -> Any:
            return zeros(1, 256, 64, 64)

    features = zeros(1, 256, 64, 64)
    embedding = ImageEmbedding(features, Frame((427, 640), 512))
    embedding.numpy()[:] = 1
    assert not features.any()
    assert ImageEmbedding(OnDevice(), embedding.frame).numpy().shape == (1, 256, 64, 64)
    assert (embedding.original_hw, embedding.input_hw) == ((427, 640), (342, 512))
