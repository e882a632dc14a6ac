"""The interface for programs, over a model that draws the box it is given, or a square around the click."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from starlette.testclient import TestClient

from nanosam_cli.core.errors import InputError
from nanosam_cli.core.media.mask_codes import mask_to_rle, rle_to_mask
from nanosam_cli.core.serving.answers import BusyError
from nanosam_cli.core.serving.limits import RequestLimits
from nanosam_cli.core.serving.photos import OpenedPhotos
from tests.serving_data import HEIGHT, WIDTH, client_of, run_together, save_photo, service_of

BOX = [10, 20, 60, 50]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("a.png", "b.png"):
        save_photo(tmp_path / "photos" / name, WIDTH + (name == "b.png"))
    return tmp_path / "photos"


@pytest.fixture
def client(own_files: tuple[Path, Path], folder: Path) -> Iterator[TestClient]:
    with service_of(
        own_files, RequestLimits(body_bytes=200_000, photo_pixels=1_000_000, answer_pixels=20_000)
    ) as service:
        yield client_of(service, OpenedPhotos([str(folder)]))


def encode(client: TestClient, name: str = "a.png") -> str:
    answer = client.post("/api/v1/encode", params={"path": name})
    assert answer.status_code == 200, answer.text
    return str(answer.json()["handle"])


def segment(client: TestClient, *objects: dict[str, Any], **more: Any) -> Any:
    body = {"handle": more.pop("handle", None) or encode(client), "objects": list(objects), **more}
    return client.post("/api/v1/segment", json=body)


def test_it_says_what_runs(client: TestClient) -> None:
    about = client.get("/api/v1/model").json()
    assert (about["name"], about["image_size"], about["encoder"]["file"]) == ("fake", 128, "encoder.onnx")
    assert client.get("/health").json() == {"status": "UP"}
    assert client.get("/api/v1/photos").json() == ["a.png", "b.png"]
    assert "/api/v1/segment" in client.get("/openapi.json").json()["paths"]


def test_an_upload_and_the_same_photo_by_its_path_are_one_embedding(client: TestClient, folder: Path) -> None:
    uploaded = client.post("/api/v1/encode", content=(folder / "a.png").read_bytes()).json()
    assert (uploaded["width"], uploaded["height"]) == (WIDTH, HEIGHT)
    assert uploaded["handle"] == encode(client)
    assert client.get("/api/v1/model").json()["cache"]["embeddings"] == 1


def test_a_window_has_a_handle_of_its_own_and_prompts_stay_in_the_photo(client: TestClient) -> None:
    how = {"path": "a.png", "window": "40,10,100,70"}
    encoded = client.post("/api/v1/encode", params=how).json()
    assert (encoded["width"], encoded["height"]) == (WIDTH, HEIGHT)
    assert encoded["handle"] == client.post("/api/v1/encode", params=how).json()["handle"] != encode(client)
    assert client.get("/api/v1/model").json()["cache"]["embeddings"] == 2
    known = np.zeros((HEIGHT, WIDTH), bool)
    known[30:50, 60:90] = True
    objects = ({"box": [50, 20, 70, 40]}, {"mask": mask_to_rle(known)})
    boxed, given = segment(client, *objects, handle=encoded["handle"]).json()["masks"]
    np.testing.assert_allclose(boxed["bbox"], (50, 20, 20, 20), atol=1)
    np.testing.assert_allclose(given["bbox"], (60, 30, 30, 20), atol=1)
    assert rle_to_mask(boxed["segmentation"]).shape == (HEIGHT, WIDTH)
    outside = segment(client, {"points": [[10, 15, 1]]}, handle=encoded["handle"])
    assert outside.status_code == 422
    assert "object 1: point 10,15 lies outside the window; the window is 40,10,100,70" in outside.json()["error"]


def test_windows_of_one_photo_are_cut_from_one_decoding(
    own_files: tuple[Path, Path], folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    decoded: list[str] = []
    with service_of(own_files) as service:
        client = client_of(service, OpenedPhotos([str(folder)]))
        read = service.read_photo
        monkeypatch.setattr(service, "read_photo", lambda data: (decoded.append("read"), read(data))[1])
        handles = {}
        for name, window in [
            ("a.png", "0,0,40,40"),
            ("a.png", "9,9,50,50"),
            ("b.png", "0,0,40,40"),
            ("a.png", "1,1,9,9"),
        ]:
            answer = client.post("/api/v1/encode", params={"path": name, "window": window})
            handles[name, window] = answer.json()["handle"]
    assert len(decoded) == 3
    assert len({*handles.values()}) == 4


@pytest.mark.parametrize(
    ("window", "words"),
    [
        ("0,0,101,80", "the window 0,0,101,80 is empty or leaves the photo, which is 100x80 pixels"),
        ("5,5,5,9", "is empty or leaves the photo"),
        ("1,2,3", "window: String should match pattern"),
        ("-1,0,5,5", "window: String should match pattern"),
        ("0,0,1e9,5", "window: String should match pattern"),
    ],
)
def test_a_window_that_is_none_gets_words(client: TestClient, window: str, words: str) -> None:
    answer = client.post("/api/v1/encode", params={"path": "a.png", "window": window})
    assert answer.status_code == 422
    assert words in answer.json()["error"]


def test_boxes_points_and_masks_of_one_request_come_back_in_their_order(client: TestClient) -> None:
    known = np.zeros((HEIGHT, WIDTH), bool)
    known[40:70, 30:90] = True
    objects = ({"mask": mask_to_rle(known)}, {"box": BOX}, {"points": [[50, 40, 1]]}, {"box": [0, 0, 5, 5]})
    answer = segment(client, *objects).json()
    assert [one["object"] for one in answer["masks"]] == [0, 1, 2, 3]
    masks = [rle_to_mask(one["segmentation"]) for one in answer["masks"]]
    drawn = np.zeros((HEIGHT, WIDTH), bool)
    drawn[20:50, 10:60] = True
    assert np.count_nonzero(masks[0] ^ known) < 0.1 * known.sum()
    assert np.count_nonzero(masks[1] ^ drawn) < 0.1 * drawn.sum()
    assert masks[2][40, 50]
    assert not masks[3][10:].any()
    for one, mask in zip(answer["masks"], masks):
        assert one["area"] == mask.sum()


def test_every_candidate_is_given_when_asked_for(client: TestClient) -> None:
    masks = segment(client, {"points": [[50, 40, 1]]}, {"box": BOX}, multimask=True).json()["masks"]
    assert [(one["object"], one["index"]) for one in masks] == [(0, 1), (0, 2), (0, 3), (1, 1), (1, 2), (1, 3)]


def test_polygons_outline_the_mask(client: TestClient) -> None:
    (one,) = segment(client, {"box": BOX}, format="polygon").json()["masks"]
    corners = np.reshape(one["segmentation"][0], (-1, 2))
    x, y, width, height = one["bbox"]
    assert (corners.min(0) == (x, y)).all()
    assert (corners.max(0) == (x + width, y + height)).all()


def test_a_picture_has_a_value_for_each_object(client: TestClient) -> None:
    answer = segment(client, {"box": BOX}, {"box": [70, 60, 95, 75]}, format="png")
    assert answer.headers["content-type"] == "image/png"
    labels = np.asarray(Image.open(io.BytesIO(answer.content)))
    assert (labels[35, 30], labels[67, 80], labels[0, 99]) == (1, 2, 0)


def test_everything_is_found(client: TestClient) -> None:
    how = {"path": "a.png", "grid": 2, "min_iou": 0, "min_stability": 0}
    answer = client.post("/api/v1/everything", params=how).json()
    assert {tuple(one["click"]) for one in answer["masks"]} == {(25, 20), (75, 20), (25, 60), (75, 60)}
    assert all(rle_to_mask(one["segmentation"]).shape == (HEIGHT, WIDTH) for one in answer["masks"])


@pytest.mark.parametrize(
    ("objects", "words"),
    [
        ([{}], "an object needs a box, a point or a mask"),
        ([{"box": BOX}, {"box": [5, 5, 1, 1]}], "object 2: box 5,5,1,1 is empty or inverted"),
        ([{"mask": {"size": [80, 100], "counts": [0, 8000]}}, {"points": [[500, 1, 1]]}], "object 2: point 500,1 lies"),
        ([{"points": [[1, 1, 7]]}], "label 7 is unknown"),
        ([{"points": [[1, 1]]}], "objects.0.points.0.2: Field required"),
        ([{"mask": {"size": [80, 100], "counts": "zz"}}], "not a COCO run-length code"),
        ([{"mask": {"size": [8, 10], "counts": [0, 80]}}], "the mask is 10x8 pixels, the photo 100x80"),
        ([{"mask": {"size": [80, 100], "counts": [8000]}}], "the mask is empty"),
        ([{"bax": BOX}], "objects.0.bax: Extra inputs are not permitted"),
        ([], "at least 1 item"),
        ([{"box": BOX}] * 1001, "at most 1000 items"),
        ([{"points": [[1, 1, 1]] * 1001}], "at most 1000 items"),
    ],
)
def test_a_prompt_that_makes_no_sense_is_told_so(client: TestClient, objects: list[Any], words: str) -> None:
    answer = segment(client, *objects)
    assert answer.status_code == 422
    assert words in answer.json()["error"]


def test_a_thousand_objects_are_segmented(client: TestClient) -> None:
    answer = segment(client, *[{"box": [1, 1, 20 + k % 60, 30]} for k in range(1000)])
    assert len(answer.json()["masks"]) == 1000


@pytest.mark.parametrize(
    ("content", "kind", "words"),
    [
        (b'{"handle"', "application/json", "not JSON"),
        (b"[" * 100_000, "application/json", ""),
        (b'{"handle": "x", "objects": [{"box": [NaN, 0, 1, 1]}]}', "application/json", "finite"),
        (b"{}", "text/plain", "not said to be JSON"),
        (b"\xff\xfe", "application/json", ""),
    ],
)
def test_a_broken_body_gets_words(client: TestClient, content: bytes, kind: str, words: str) -> None:
    answer = client.post("/api/v1/segment", content=content, headers={"content-type": kind})
    assert answer.status_code in (400, 422)
    assert words in answer.json()["error"]


@pytest.mark.parametrize(
    ("content", "status", "words"),
    [
        (b"no photo", 422, "not an image"),
        (b"", 422, "either as the body or by ?path="),
        (b"\x89PNG\r\n\x1a\n" + b"0" * 50, 422, "not an image"),
        (b"x" * 200_001, 413, "a body has at most"),
    ],
)
def test_what_is_no_photo_gets_words(client: TestClient, content: bytes, status: int, words: str) -> None:
    answer = client.post("/api/v1/encode", content=content)
    assert (answer.status_code, words in answer.json()["error"]) == (status, True), answer.text


def test_a_body_without_a_length_is_counted_as_it_comes(client: TestClient) -> None:
    answer = client.post("/api/v1/encode", content=(b"x" * 1000 for _ in range(1000)))
    assert answer.status_code == 413


def test_a_photo_cut_off_gets_words(client: TestClient, folder: Path) -> None:
    answer = client.post("/api/v1/encode", content=(folder / "a.png").read_bytes()[:2000])
    assert answer.status_code == 422
    assert "broken or cut off" in answer.json()["error"]


def test_a_photo_that_unpacks_to_too_much_is_refused_by_its_header(client: TestClient) -> None:
    file = io.BytesIO()
    Image.new("1", (20_000, 5_000)).save(file, "PNG")
    answer = client.post("/api/v1/encode", content=file.getvalue())
    assert answer.status_code == 413
    assert "100 million pixels" in answer.json()["error"]


def test_a_picture_of_too_many_masks_is_refused(client: TestClient) -> None:
    answer = segment(client, {"box": BOX}, {"box": BOX}, {"box": BOX}, format="png")
    assert answer.status_code == 413


def test_a_handle_that_fell_out_says_so(own_files: tuple[Path, Path], folder: Path) -> None:
    with service_of(own_files, RequestLimits(cache_bytes=5_000_000)) as service:  # one embedding has 4 MiB
        client = client_of(service, OpenedPhotos([str(folder)]))
        first, second = encode(client), encode(client, "b.png")
        fallen = segment(client, {"box": BOX}, handle=first)
        assert (fallen.status_code, "fell out" in fallen.json()["error"]) == (410, True)
        assert segment(client, {"box": BOX}, handle=second).status_code == 200
        assert segment(client, {"box": BOX}, handle="never").status_code == 404
        assert encode(client) == first
        assert segment(client, {"box": BOX}, handle=first).status_code == 200


def test_more_requests_than_may_wait_are_told_to_come_again(own_files: tuple[Path, Path], folder: Path) -> None:
    with service_of(own_files, RequestLimits(waiting=1)) as service:
        answers = run_together(service.encode(folder / "a.png"), service.encode(folder / "b.png"))
    assert [type(answer) for answer in answers if isinstance(answer, Exception)] == [BusyError]


def test_many_at_once_are_all_answered(own_files: tuple[Path, Path], folder: Path) -> None:
    with service_of(own_files) as service:
        answers = run_together(*(service.encode(folder / name) for name in ["a.png", "b.png"] * 10))
    assert len({answer.handle for answer in answers}) == 2


def test_a_photo_that_is_asked_for_twice_at_once_is_encoded_once(
    own_files: tuple[Path, Path], folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with service_of(own_files) as service:
        encode, runs = service.predictor.encode_image, []

        def counted(image: Any) -> Any:
            runs.append(image)
            return encode(image)

        monkeypatch.setattr(service.predictor, "encode_image", counted)
        one, other = run_together(service.encode(folder / "a.png"), service.encode(folder / "a.png"))
        assert (one.handle, len(runs)) == (other.handle, 1)
        broken = run_together(service.encode(b"no photo"), service.encode(b"no photo"))
        assert all(isinstance(error, InputError) for error in broken)
        assert not service._encoding
