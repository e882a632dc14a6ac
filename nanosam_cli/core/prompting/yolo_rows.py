"""YOLO's text files: boxes, outlines and poses, each maybe with a score and a track id.

Formats: https://docs.ultralytics.com/datasets/detect/, /segment/ and /pose/; what its `save_txt` appends to a row is in
`Results.save_txt` of https://github.com/ultralytics/ultralytics, in this order: the score, the track id.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from nanosam_cli.core.errors import InputError
from nanosam_cli.core.ids import whole_number
from nanosam_cli.core.prompting.detections import Detection, finite

MAX_CLASS = 100_000  # classes up to the largest are named, and no data set has so many

_ROW = "a row is `class cx cy w h`, maybe with a score and a track id, or `class x y x y ...`"
_LOW, _HIGH = -1.0, 2.0  # shares of a side are from 0 to 1, and a little beyond at the border; the 2 of a flag is none
_SLACK = 0.02  # of a side, by which a keypoint may lie outside of its box
_TAILS = ((), ("score",), ("track id",), ("score", "track id"))
# keypoints are x y or x y v; fewer of them are not told from an outline, of which there are far more
_LEAST_POINTS = {3: 2, 2: 5}
_LOOKS = 50  # rows that are looked at


@dataclass(frozen=True)
class _Row:
    line: int
    category: int
    words: Sequence[str]
    sides: Sequence[float]  # all numbers but the class


@dataclass(frozen=True)
class _Reading:
    """What the numbers of a row mean."""

    tail: Sequence[str]  # what stands at its end
    points: int = 0  # numbers a keypoint where box and keypoints come first; 0 where there are no keypoints

    def words(self, row: _Row) -> str:
        """Of one row, for a message."""
        shape = "keypoints" if self.points else "a box" if len(self.body(row)) == 4 else "an outline"
        return " with ".join([shape, *([" and ".join(f"a {part}" for part in self.tail)] if self.tail else [])])

    def fits(self, rows: Sequence[_Row]) -> bool:
        """Whether all rows can be read so."""
        counts = {len(row.sides) - len(self.tail) for row in rows}
        if self.points:
            count = counts.pop() - 4
            right = not counts and count % self.points == 0 and count // self.points >= _LEAST_POINTS[self.points]
            return right and all(map(self._is_pose, rows)) and self._fits_tail(rows)
        return all(map(self._is_shape, rows)) and self._fits_tail(rows)

    def _is_shape(self, row: _Row) -> bool:
        sides = self.body(row)
        return len(sides) >= 4 and len(sides) % 2 == 0 and all(_LOW <= side < _HIGH for side in sides)

    def _is_pose(self, row: _Row) -> bool:
        sides = self.body(row)
        x0, y0, x1, y1 = _box(sides[:4])
        if min(x0, y0) < -_SLACK or max(x1, y1) > 1 + _SLACK:
            return False
        keypoints = zip(*(sides[4 + place :: self.points] for place in range(self.points)))
        for x, y, *flag in keypoints:
            if flag and flag[0] != 2 and not 0 <= flag[0] <= 1:
                return False
            seen = flag[0] > 0 if flag else (x, y) != (0, 0)
            if seen and not (x0 - _SLACK <= x <= x1 + _SLACK and y0 - _SLACK <= y <= y1 + _SLACK):
                return False
        return True

    def _fits_tail(self, rows: Sequence[_Row]) -> bool:
        for place, part in enumerate(reversed(self.tail), 1):
            words = [row.words[-place] for row in rows]
            if part == "score" and not all(0 <= row.sides[-place] <= 1 for row in rows):
                return False
            if part == "track id" and not (all(map(str.isdecimal, words)) and any(map(int, words))):
                return False
        return True

    def body(self, row: _Row) -> Sequence[float]:
        return row.sides[: len(row.sides) - len(self.tail)]

    def detection(self, row: _Row) -> Detection:
        """Around the row's box or outline."""
        sides = self.body(row)
        score = row.sides[len(sides)] if "score" in self.tail else None
        if self.points or len(sides) == 4:
            return Detection(_box(sides[:4]), row.category, None, score, relative=True)
        box = min(sides[::2]), min(sides[1::2]), max(sides[::2]), max(sides[1::2])
        return Detection(box, row.category, None, score, relative=True, rings=[sides])


_READINGS = [_Reading(tail, points) for points in (0, 3, 2) for tail in _TAILS]


def yolo_detections(files: Sequence[tuple[Path, Sequence[str]]]) -> dict[Path, list[Detection]]:
    """The boxes of each file's lines, in shares of the photo's sides.

    What the columns mean is decided by what fits all rows of all files; where nothing does, by what fits those of each
    file, and then those of as many columns.

    Raises:
        InputError: a row, which is named by its file and line, is none of YOLO's, or can mean two things.
    """
    rows = {file: [*_rows(file, lines)] for file, lines in files}
    every = [row for own in rows.values() for row in own]
    whole = _readings(every)
    return {file: _told(file, own, whole) for file, own in rows.items()}


def _told(file: Path, rows: Sequence[_Row], readings: Sequence[_Reading]) -> list[Detection]:
    readings = readings or _readings(rows)
    if not readings:
        counts = defaultdict(list)
        for row in rows:
            counts[len(row.sides)].append(row)
        if len(counts) > 1:
            told = {row.line: one for own in counts.values() for row, one in zip(own, _told(file, own, ()))}
            return [told[row.line] for row in rows]
        if rows:
            raise InputError(f"{file}, line {rows[0].line}: {_strange(rows[0])}", _ROW)
    if len(readings) > 1 and rows:
        meanings = ", or ".join(reading.words(rows[0]) for reading in readings)
        raise InputError(
            f"{file}, line {rows[0].line}: the row can be {meanings}",
            "write a score as 1.0 and not as 1, or take away the columns behind the box or the outline",
        )
    return [readings[0].detection(row) for row in rows]


def _readings(rows: Sequence[_Row]) -> list[_Reading]:
    """All that the rows can mean."""
    fitting = [reading for reading in _READINGS if rows and reading.fits(rows)]
    poses = [reading for reading in fitting if reading.points]
    shapes = [reading for reading in fitting if not reading.points]
    if not poses or not shapes:
        return fitting
    flags = [row.sides[4 + 2 :: 3][: (len(reading.body(row)) - 4) // 3] for reading in poses[:1] for row in rows]
    if poses[0].points == 3 and all(flag in (0, 1, 2) for row in flags for flag in row):
        return poses
    # an outline does not cross itself, and keypoints that are taken for corners do
    crossed = {_crosses(shapes[0].body(row)) for row in rows[:_LOOKS]}
    return fitting if len(crossed) > 1 else poses if crossed == {True} else shapes


def _crosses(sides: Sequence[float]) -> bool:
    """Whether two edges of a closed outline x y x y ... cross each other."""
    start = np.reshape(sides, (-1, 2))
    end = np.roll(start, -1, axis=0)

    def side_of(points: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        """On which side of edge i (rows) point j (columns) lies."""
        along, to = (end - start)[:, None], points[None] - start[:, None]
        return np.asarray(np.sign(along[..., 0] * to[..., 1] - along[..., 1] * to[..., 0]))

    apart = side_of(start) * side_of(end) < 0
    return bool((apart & apart.T).any())


def _rows(file: Path, lines: Sequence[str]) -> Iterator[_Row]:
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        category, *words = line.split()
        try:
            sides = [finite(word) for word in words]
            yield _Row(number, _class(category), words, sides)
        except ValueError as error:
            raise InputError(f"{file}, line {number}: {error}", _ROW) from error
        if len(sides) < 4:
            raise InputError(f"{file}, line {number}: not a class from 0 on and a box", _ROW)


def _class(word: str) -> int:
    try:
        number = whole_number(word)
    except ValueError as error:
        raise ValueError(f"invalid literal for a class: {error}") from error
    if not 0 <= number <= MAX_CLASS:
        raise ValueError(f"not a class from 0 on and a box: classes are 0 to {MAX_CLASS}, not {number}")
    return number


def _strange(row: _Row) -> str:
    if max(map(abs, row.sides[:4])) >= _HIGH:
        return "the numbers are pixels, not shares of the photo's sides"
    return f"{len(row.sides)} numbers behind the class are no box, outline or pose, with or without score and track id"


def _box(sides: Sequence[float]) -> tuple[float, float, float, float]:
    x, y, width, height = sides
    return x - width / 2, y - height / 2, x + width / 2, y + height / 2
