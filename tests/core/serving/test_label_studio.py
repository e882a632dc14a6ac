"""Label Studio's ML backend interface. The bodies are those that Label Studio 1.23.2 was seen to send."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from starlette.testclient import TestClient

from nanosam_cli.core.errors import InputError
from nanosam_cli.core.serving.answers import NotFoundError
from nanosam_cli.core.serving.guard import Access
from nanosam_cli.core.serving.label_studio.routes import label_studio_routes
from nanosam_cli.core.serving.label_studio.tasks import find_brush, task_photo
from nanosam_cli.core.serving.photos import OpenedPhotos
from nanosam_cli.version import __version__
from tests.brush import brush_to_mask
from tests.serving_data import HEIGHT, WIDTH, client_of, save_photo, service_of

CONFIG = """<View>
  <Image name="image" value="$photo" zoom="true"/>
  <BrushLabels name="brush" toName="image"><Label value="cat"/><Label value="dog"/></BrushLabels>
  <KeyPointLabels name="point" toName="image" smart="true"><Label value="cat"/><Label value="bird"/></KeyPointLabels>
  <RectangleLabels name="box" toName="image" smart="true"><Label value="cat"/><Label value="dog"/></RectangleLabels>
</View>"""
DYNAMIC = '<View><BrushLabels name="b" toName="i" value="$labels"/><image name="i" value="$url"/></View>'
MASK = (slice(20, 50), slice(10, 60))  # rows, columns of the box below


def region(kind: str, value: dict[str, Any], label: str = "cat", **more: Any) -> dict[str, Any]:
    """As the editor serialises one."""
    name = {"keypointlabels": "point", "rectanglelabels": "box"}.get(kind, "other")
    about = {"id": "aBcD", "from_name": name, "to_name": "image", "type": kind, "origin": "manual"}
    size = {"original_width": WIDTH, "original_height": HEIGHT, "image_rotation": 0}
    return {**about, **size, "value": {**value, kind: [label]}, **more}


def keypoint(x: float, y: float, positive: bool = True, **more: Any) -> dict[str, Any]:
    return region("keypointlabels", {"x": x, "y": y, "width": 0.5}, is_positive=positive, **more)


def rectangle(**more: Any) -> dict[str, Any]:
    """10,20,60,50 in pixels."""
    return region("rectanglelabels", {"x": 10, "y": 25, "width": 50, "height": 37.5, "rotation": 0}, **more)


def asked(
    *regions: dict[str, Any], photo: Any = "/data/local-files/?d=photos/a.png", config: str = CONFIG, tasks: int = 1
) -> dict[str, Any]:
    """The body of /predict."""
    task = {"id": 7, "annotations": [], "drafts": [], "predictions": [], "data": {"photo": photo}, "meta": {}}
    task |= {"inner_id": 1, "project": 3, "updated_by": None, "comment_authors": [], "allow_skip": True}
    context = {"result": list(regions)} if regions else None
    params = {"login": None, "password": None, "context": context}
    return {"tasks": [task] * tasks, "project": "3.1791000000", "label_config": config, "params": params}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    save_photo(tmp_path / "photos" / "a.png")
    save_photo(tmp_path / "photos" / "upload" / "3" / "12ab-b c.png")
    save_photo(tmp_path / "secret.png")
    (tmp_path / "photos" / "link.png").symlink_to(tmp_path / "secret.png")
    return tmp_path / "photos"


@pytest.fixture
def notes() -> list[str]:
    return []


@pytest.fixture
def client(own_files: tuple[Path, Path], folder: Path, notes: list[str]) -> Iterator[TestClient]:
    with service_of(own_files) as service:
        photos = OpenedPhotos([str(folder)])
        yield client_of(service, photos, more=[label_studio_routes(service, photos, "fake", notes.append)])


def test_it_connects(client: TestClient) -> None:
    body = {"project": "3.1791000000", "schema": CONFIG, "hostname": "http://localhost:8080", "extra_params": None}
    answer = client.post("/setup", json={**body, "access_token": "secret"})
    assert (answer.status_code, answer.json()) == (200, {"model_version": f"fake-{__version__}"})
    assert client.get("/health").json()["status"] == "UP"


def test_a_smart_rectangle_becomes_a_brush_region(client: TestClient) -> None:
    answer = client.post("/predict", json=asked(rectangle(label="dog")))
    assert answer.status_code == 200, answer.text
    (found,) = answer.json()["results"]
    (one,) = found["result"]
    assert found["model_version"] == answer.json()["model_version"] == f"fake-{__version__}"
    assert found["score"] == one["score"]
    about = {key: one[key] for key in ("from_name", "to_name", "type", "original_width", "original_height")}
    assert about == {
        "from_name": "brush",
        "to_name": "image",
        "type": "brushlabels",
        "original_width": WIDTH,
        "original_height": HEIGHT,
    }
    assert one["value"].keys() == {"format", "rle", "brushlabels"}
    assert (one["value"]["format"], one["value"]["brushlabels"]) == ("rle", ["dog"])
    mask = brush_to_mask(one["value"]["rle"], (HEIGHT, WIDTH))
    drawn = np.zeros_like(mask)
    drawn[MASK] = True
    assert np.count_nonzero(mask ^ drawn) < 0.1 * drawn.sum()


def test_smart_keypoints_are_clicks_on_and_beside_one_object(client: TestClient) -> None:
    points = keypoint(40, 50), keypoint(100, 100, positive=False), keypoint(42, 50)
    (found,) = client.post("/predict", json=asked(*points)).json()["results"]
    mask = brush_to_mask(found["result"][0]["value"]["rle"], (HEIGHT, WIDTH))
    assert mask[40, 41]
    assert not mask[75:, 95:].any()
    boxed = client.post("/predict", json=asked(keypoint(20, 40), rectangle())).json()["results"][0]["result"]
    assert len(boxed) == 1  # one object, of a box and a click


def test_tasks_without_smart_regions_have_nothing_to_segment_yet(client: TestClient) -> None:
    answer = client.post("/predict", json=asked(tasks=3)).json()
    assert [one["result"] for one in answer["results"]] == [[], [], []]
    no_context = {key: value for key, value in asked().items() if key != "params"}
    assert client.post("/predict", json=no_context).json()["results"][0]["result"] == []


@pytest.mark.parametrize(
    "photo",
    [
        "/data/local-files/?d=a.png",
        "/data/local-files/?d=photos/a.png",  # of a document root that lies above the opened folder
        "/data/local-files/?d=photos%2Fa.png",
        "http://localhost:8080/data/local-files/?d=photos/a.png",
        "/data/upload/3/12ab-b%20c.png",
        "https://studio.example/data/upload/3/12ab-b%20c.png?token=1",
        "a.png",
        "upload/3/12ab-b c.png",
    ],
)
def test_photos_below_the_opened_folder_are_read(folder: Path, photo: str) -> None:
    found = task_photo(photo, OpenedPhotos([str(folder)]))
    assert isinstance(found, Path)
    assert found.is_relative_to(folder.resolve())


def test_the_folder_of_a_projects_uploads_is_known(folder: Path) -> None:
    photos = OpenedPhotos([str(folder / "upload" / "3")])
    assert task_photo("/data/upload/3/12ab-b%20c.png", photos) == (folder / "upload/3/12ab-b c.png").resolve()
    absolute = str(folder / "upload" / "3" / "12ab-b c.png")
    assert task_photo(absolute, photos) == Path(absolute).resolve()


def test_a_photo_that_the_task_carries_is_read(client: TestClient, folder: Path) -> None:
    data = base64.b64encode((folder / "a.png").read_bytes()).decode()
    answer = client.post("/predict", json=asked(rectangle(), photo=f"data:image/png;base64,{data}"))
    assert answer.status_code == 200
    assert answer.json()["results"][0]["result"]


@pytest.mark.parametrize(
    ("photo", "error", "words"),
    [
        ("https://example.org/a.png", InputError, "is elsewhere, and this server fetches nothing"),
        ("s3://bucket/a.png", InputError, "is elsewhere, and this server fetches nothing"),
        ("file:///etc/passwd", InputError, "is elsewhere, and this server fetches nothing"),
        ("/etc/passwd", NotFoundError, "is not in the opened folder"),
        ("/data/local-files/?d=../secret.png", NotFoundError, "is not in the opened folder"),
        ("/data/local-files/?d=photos/../../secret.png", NotFoundError, "is not in the opened folder"),
        ("/data/local-files/?d=%2e%2e%2fsecret.png", NotFoundError, "is not in the opened folder"),
        ("/data/local-files/?d=link.png", NotFoundError, "leads out of the opened folder"),
        ("/data/local-files/?d=other/a.png", NotFoundError, "is not in the opened folder"),
        ("/data/local-files/", NotFoundError, "is not in the opened folder"),
        ("/data/upload/../../secret.png", NotFoundError, "is not in the opened folder"),
        ("secret.png", NotFoundError, "is not in the opened folder"),
        ("http://[", InputError, "is no address of a photo"),
        ("data:image/png,abc", InputError, "must be in base64"),
        ("data:image/png;base64,%%%", InputError, "is not base64"),
        (None, InputError, "the task has no address of a photo"),
        (["a.png"], InputError, "the task has no address of a photo"),
    ],
)
def test_photos_from_elsewhere_are_refused_in_words(
    folder: Path, photo: object, error: type[Exception], words: str
) -> None:
    with pytest.raises(error, match=words):
        task_photo(photo, OpenedPhotos([str(folder)]))


@pytest.mark.parametrize(
    ("body", "status", "words"),
    [
        (asked(rectangle(), photo="b.png"), 404, "'b.png' is not in the opened folder"),
        (asked(rectangle(label="bird")), 422, "<BrushLabels name='brush'> has no label 'bird'"),
        (asked(keypoint(1, 1, label="")), 422, "no label is chosen for the smart region"),
        (asked(rectangle(original_width=50)), 422, "Label Studio shows the photo with 50x80 pixels, and it has 100x80"),
        (asked(rectangle(image_rotation=90)), 422, "turned is not understood"),
        (asked(rectangle(item_index=1)), 422, "a task of several photos is not understood"),
        (asked(rectangle(to_name="other")), 422, "no <BrushLabels> for the <Image name='other'>"),
        (asked(region("ellipselabels", {"x": 1, "y": 1})), 422, "type 'ellipselabels' are not understood"),
        (asked(region("keypointlabels", {"x": 1})), 422, "type 'keypointlabels' lacks numbers: x, y"),
        (asked(keypoint(50, 50, positive=False)), 200, ""),
        (asked(region("rectanglelabels", {"x": 1, "y": 1, "width": 0, "height": 5})), 422, "is empty or inverted"),
        (asked(rectangle(), config="<View>"), 422, "is not XML"),
        (asked(rectangle(), config='<!DOCTYPE a [<!ENTITY b "c">]><View/>'), 422, "has no document type"),
        (asked(rectangle(), tasks=2), 422, "smart regions are of one task, not of 2"),
        ({"tasks": []}, 422, "label_config: Field required"),
        ({"tasks": [{}], "label_config": ""}, 422, "tasks.0.data: Field required"),
    ],
)
def test_what_makes_no_sense_is_refused_in_words(
    client: TestClient, notes: list[str], body: dict[str, Any], status: int, words: str
) -> None:
    answer = client.post("/predict", json=body)
    assert answer.status_code == status, answer.text
    assert words in answer.json().get("error", "")
    if status != 200 and "Field required" not in words:  # Label Studio shows its user no more than the status
        assert words in " ".join(notes)
        assert notes[0].startswith("Label Studio was refused: ")


@pytest.mark.parametrize(
    ("config", "found"),
    [
        (CONFIG, ("brush", "image", "photo", ["cat", "dog"])),
        (
            CONFIG.replace("BrushLabels", "brushlabels").replace("<Image", "<image"),
            ("brush", "image", "photo", ["cat", "dog"]),
        ),
        (
            '<View><BrushLabels name="b" toName="i" value="$labels"/><Image name="i" value="$url"/></View>',
            ("b", "i", "url", []),
        ),
    ],
)
def test_masks_go_to_the_brush_of_the_photo(config: str, found: tuple[str, str, str, list[str]]) -> None:
    brush = find_brush(config)
    assert (brush.from_name, brush.to_name, brush.data_key, list(brush.labels)) == found


@pytest.mark.parametrize(
    "config",
    [
        '<View><Image name="image" value="$photo"/></View>',
        '<View><Text name="t" value="$t"/><BrushLabels name="b" toName="t"/></View>',
    ],
)
def test_a_configuration_without_a_brush_does_not_connect(client: TestClient, config: str) -> None:
    answer = client.post("/setup", json={"schema": config})
    assert answer.status_code == 422
    assert "has no <BrushLabels> for an <Image>" in answer.json()["error"]


def test_the_token_may_be_a_password(own_files: tuple[Path, Path], folder: Path) -> None:
    with service_of(own_files) as service:
        photos = OpenedPhotos([str(folder)])
        routes = [label_studio_routes(service, photos, "fake", print)]
        access = Access("0.0.0.0", "a-token")
        client = client_of(service, photos, access, routes, host="192.168.0.7:8765")
        for password, status in (("a-token", 200), ("another", 401)):
            answer = client.post("/setup", json={"schema": CONFIG}, auth=("anybody", password))
            assert answer.status_code == status
        for header in ("Basic", "Basic %%%", "Basic " + base64.b64encode(b"\xff:\xff").decode()):
            assert client.post("/setup", json={}, headers={"authorization": header}).status_code == 401
