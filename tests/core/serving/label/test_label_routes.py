"""The page's interface, over the fake model."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from starlette.testclient import TestClient

from nanosam_cli.core.media.image import read_image
from nanosam_cli.core.media.mask_codes import mask_to_rle
from nanosam_cli.core.serving.label.label_routes import label_routes
from nanosam_cli.core.serving.label.labelling import Labelling, open_labelling, parse_classes
from tests.serving_data import HEIGHT, WIDTH, client_of, save_photo, service_of

Opened = tuple[TestClient, Labelling]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    save_photo(tmp_path / "photos" / "a.png")
    save_photo(tmp_path / "photos" / "b.tif", 50, 40)
    return tmp_path / "photos"


@pytest.fixture
def label(own_files: tuple[Path, Path], folder: Path) -> Iterator[Callable[..., Opened]]:
    stores = []
    with service_of(own_files) as service:

        def begin(**how: Any) -> Opened:
            labelling = open_labelling([str(folder)], folder.parent / "annotations.json", **how)
            stores.append(labelling.store)
            return client_of(service, labelling.photos, more=[label_routes(service, labelling, "fake")]), labelling

        yield begin
        for store in stores:
            store.close()


def square(width: int = WIDTH, height: int = HEIGHT) -> dict[str, Any]:
    mask = np.zeros((height, width), bool)
    mask[5:20, 5:20] = True
    return mask_to_rle(mask)


def photo(client: TestClient, name: str = "a.png") -> Any:
    return client.get("/label/photo", params={"name": name}).json()


def put(client: TestClient, name: str, *objects: dict[str, Any], revision: str | None = None) -> Any:
    body = {"revision": revision or photo(client, name)["revision"], "objects": list(objects)}
    return client.put("/label/photo", params={"name": name}, json=body)


def test_the_page_is_told_what_there_is(label: Callable[..., Opened], folder: Path) -> None:
    client, _ = label(classes=["cat", "dog"])
    state = client.get("/label/state").json()
    assert [one["name"] for one in state["photos"]] == ["a.png", "b.tif"]
    assert [(one["id"], one["name"]) for one in state["categories"]] == [(1, "cat"), (2, "dog")]
    assert len({one["colour"] for one in state["categories"]}) == 2
    assert state["file"] == str(folder.parent / "annotations.json")


def test_without_classes_there_is_one(label: Callable[..., Opened]) -> None:
    client, _ = label()
    assert [one["name"] for one in client.get("/label/state").json()["categories"]] == ["object"]


def test_objects_are_kept_and_come_back(label: Callable[..., Opened]) -> None:
    client, labelling = label(classes=["cat"])
    saved = put(client, "a.png", {"category_id": 1, "segmentation": square()}).json()
    assert saved["ids"] == [1]
    (one,) = photo(client)["objects"]
    assert (one["id"], one["segmentation"]) == (1, square())
    state = client.get("/label/state").json()["photos"]
    assert state[0] == {"name": "a.png", "objects": 1, "done": True}
    labelling.store.close()
    assert json.loads(labelling.store.path.read_text())["annotations"][0]["area"] == 225


@pytest.mark.parametrize(
    ("change", "status", "words"),
    [
        ({"category_id": 9}, 422, "unknown class 9"),
        ({"segmentation": square(50, 40)}, 422, "another size"),
        ({"segmentation": {"size": [80, 100], "counts": [8000]}}, 422, "empty"),
        ({"area": 5}, 422, "Extra inputs"),
    ],
)
def test_what_cannot_be_kept_is_refused(
    label: Callable[..., Opened], change: dict[str, Any], status: int, words: str
) -> None:
    client, _ = label()
    answer = put(client, "a.png", {"category_id": 1, "segmentation": square(), **change})
    assert (answer.status_code, words in answer.json()["error"]) == (status, True), answer.text


def test_a_window_that_is_behind_is_told(label: Callable[..., Opened]) -> None:
    client, _ = label()
    before = photo(client)["revision"]
    put(client, "a.png", {"category_id": 1, "segmentation": square()})
    answer = put(client, "a.png", revision=before)
    assert (answer.status_code, "another window" in answer.json()["error"]) == (409, True)


@pytest.mark.parametrize("route", ["photo", "pixels"])
@pytest.mark.parametrize("name", ["c.png", "../annotations.json", "/etc/passwd"])
def test_what_was_not_opened_is_not_shown(label: Callable[..., Opened], route: str, name: str) -> None:
    client, _ = label()
    assert client.get(f"/label/{route}", params={"name": name}).status_code == 404


def test_a_photo_that_is_deleted_while_it_is_open_is_told(label: Callable[..., Opened], folder: Path) -> None:
    client, _ = label()
    revision = photo(client)["revision"]
    (folder / "a.png").unlink()
    answer = put(client, "a.png", revision=revision)
    assert (answer.status_code, "no longer there" in answer.json()["error"]) == (404, True)
    assert photo(client, "b.tif")["width"] == 50


def test_pictures_are_those_that_the_model_sees(label: Callable[..., Opened], folder: Path) -> None:
    client, _ = label()
    plain = client.get("/label/pixels", params={"name": "a.png"})
    assert plain.content == (folder / "a.png").read_bytes()
    made = client.get("/label/pixels", params={"name": "b.tif"})  # which no browser shows
    assert made.headers["content-type"] == "image/jpeg"
    shown, read = Image.open(io.BytesIO(made.content)), Image.fromarray(read_image(folder / "b.tif"))
    assert np.abs(np.subtract(shown.convert("L"), read.convert("L"), dtype=int)).mean() < 6  # JPEG blurs noise's hues


def test_a_turned_photo_has_the_size_that_it_is_shown_in(label: Callable[..., Opened], folder: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    for name in ("turned.jpg", "turned.png"):
        save_photo(folder / name, 60, 30, exif=exif)
    client, _ = label()
    for name in ("turned.jpg", "turned.png"):
        about = photo(client, name)
        assert (about["width"], about["height"]) == (30, 60)
    shown = Image.open(io.BytesIO(client.get("/label/pixels", params={"name": "turned.png"}).content))
    assert shown.size == (30, 60)


def test_new_classes_can_be_made(label: Callable[..., Opened]) -> None:
    client, _ = label(classes=["cat"])
    made = client.post("/label/categories", json={"name": "bird"}).json()
    assert [one["name"] for one in made] == ["cat", "bird"]
    assert client.post("/label/categories", json={"name": "cat"}).status_code == 422


def test_what_another_model_found_is_offered_until_the_photo_is_labelled(
    label: Callable[..., Opened], tmp_path: Path
) -> None:
    rows = tmp_path / "rows"
    rows.mkdir()
    (rows / "a.txt").write_text("1 0.5 0.5 0.4 0.5\n0 0.2 0.2 0.1 0.1\n")
    (rows / "classes.txt").write_text("cat\ndog\n")
    client, _ = label(classes=["dog"], detections=rows)
    assert [one["name"] for one in client.get("/label/state").json()["categories"]] == ["dog", "cat"]
    found = photo(client)["found"]
    assert [(one["category_id"], one["prompt"]["box"]) for one in found] == [
        (1, [30.0, 20.0, 70.0, 60.0]),
        (2, [15.0, 12.0, 25.0, 20.0]),
    ]
    assert photo(client, "b.tif")["found"] == []
    put(client, "a.png")
    assert photo(client)["found"] == []


def test_classes_come_as_words_or_from_a_file(tmp_path: Path) -> None:
    (tmp_path / "names.txt").write_text("cat\ndog\n")
    assert parse_classes("cat, dog ,") == parse_classes(str(tmp_path / "names.txt")) == ["cat", "dog"]


def test_objects_are_carried_on_by_their_tracks(label: Callable[..., Opened], folder: Path) -> None:
    save_photo(folder / "a2.png")  # the same picture
    client, labelling = label(classes=["cat"])
    put(client, "a.png", {"category_id": 1, "segmentation": square()})
    way = {"name": "a.png", "onto": "a2.png"}
    answer = client.post("/label/carry", params=way).json()
    (carried,) = answer["objects"]
    assert (carried["track_id"], carried["category_id"], carried["id"], answer["lost"]) == (1, 1, None, 0)
    assert (photo(client)["revision"], photo(client)["objects"][0]["track_id"]) == (answer["revision"], 1)
    kept = {key: carried[key] for key in ("category_id", "segmentation", "track_id")}
    assert put(client, "a2.png", kept).status_code == 200
    assert client.post("/label/carry", params=way).json()["objects"] == []  # it has that track
    labelling.store.close()
    annotations = json.loads(labelling.store.path.read_text())["annotations"]
    assert [(one["id"], one["track_id"]) for one in annotations] == [(1, 1), (2, 1)]


@pytest.mark.parametrize(
    ("onto", "status", "words"),
    [
        ("b.tif", 422, "a.png is 100x80 and b.tif is 50x40"),
        ("missing.png", 404, "was opened"),
        ("a.png", 422, "nothing is accepted on a.png"),
    ],
)
def test_what_cannot_be_carried_on_is_told(label: Callable[..., Opened], onto: str, status: int, words: str) -> None:
    client, _ = label()
    if onto != "a.png":
        put(client, "a.png", {"category_id": 1, "segmentation": square()})
    answer = client.post("/label/carry", params={"name": "a.png", "onto": onto})
    assert (answer.status_code, words in answer.json()["error"]) == (status, True), answer.text
