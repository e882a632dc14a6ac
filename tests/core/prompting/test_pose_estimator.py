"""People seen by MediaPipe, with the models in its package."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import numpy as np
import pytest

from nanosam_cli.core.errors import MissingExtraError
from nanosam_cli.core.media.image import read_image
from nanosam_cli.core.paths import resource
from nanosam_cli.core.prompting.body_parts import KEYPOINTS, read_parts
from nanosam_cli.core.prompting.pose import PoseChoice, SeenPeople

# MediaPipe's own: it leaves a file open, which is noticed whenever it is collected
pytestmark = pytest.mark.filterwarnings(
    "ignore::DeprecationWarning", "ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning"
)


def test_extra_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "mediapipe", None)
    with pytest.raises(MissingExtraError, match="--pose auto needs mediapipe") as caught, SeenPeople(PoseChoice([])):
        pass
    assert caught.value.hint == "pip install 'nanosam-cli[pose]'"


@pytest.fixture(scope="module")
def seen() -> SeenPeople:
    pytest.importorskip("mediapipe", reason="the extra `pose` is not installed")
    with SeenPeople(PoseChoice(read_parts(["person", "head"]))) as people:
        yield people  # type: ignore[misc]


def test_a_portrait(seen: SeenPeople) -> None:
    """The astronaut: her face is where it is, and her hips below the photo take the box to its border."""
    image = read_image(resource("examples", "astronaut.jpg"))
    request = seen.request_for(image)
    assert [tag.name for tag in request.tags] == ["person", "head"]
    assert request.boxes is not None
    assert request.points is not None
    nose = request.points[0, 0]
    assert np.hypot(*(nose - (226, 129))) < 10
    person, head = request.boxes
    assert person[3] == 512
    assert (head[:2] < (190, 70)).all()
    assert (head[2:] > (265, 160)).all()
    assert head[3] < 230


def test_nobody(seen: SeenPeople) -> None:
    request = seen.request_for(read_image(resource("examples", "cat.jpg")))
    assert list(request.notes) == ["no person found"]
    assert not request.tags


@pytest.mark.data
def test_several_people(seen: SeenPeople) -> None:
    """The largest first."""
    photo = Path(os.environ["NANOSAM_TEST_DATA"]) / "coco-val" / "images" / "000000269316.jpg"
    people = seen._estimator.people(read_image(photo))  # type: ignore[union-attr]
    assert len(people) == 3
    sizes = [np.ptp([(p.x, p.y) for p in person.keypoints.values()], axis=0).prod() for person in people]
    assert sizes == sorted(sizes, reverse=True)
    assert {*people[0].keypoints} == {*KEYPOINTS} - {"neck"}
