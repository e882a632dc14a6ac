"""The annotation file: what is accepted is on disk, what others wrote stays."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pycocotools import mask
from pycocotools.coco import COCO

from nanosam_cli.core.errors import InputError, OutputError, UsageError
from nanosam_cli.core.media.mask_codes import mask_to_rle
from nanosam_cli.core.serving.answers import ConflictError, NotFoundError
from nanosam_cli.core.serving.label.annotations import AnnotationStore
from nanosam_cli.core.serving.label.label_file import LabelledObject
from nanosam_cli.core.system import files

HW = (8, 10)
NAMES = ["a.jpg", "b.jpg"]


def rle(x0: int, y0: int, x1: int, y1: int) -> dict[str, Any]:
    drawn = np.zeros(HW, bool)
    drawn[y0:y1, x0:x1] = True
    return mask_to_rle(drawn)


SQUARE, BAR = rle(1, 1, 4, 4), rle(0, 6, 10, 8)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "annotations.json"


@pytest.fixture
def store(path: Path) -> Iterator[AnnotationStore]:
    with AnnotationStore(path, NAMES, ["cat", "dog"]) as opened:
        yield opened


def save(store: AnnotationStore, name: str, *objects: LabelledObject) -> Any:
    return store.save(name, HW, objects, store.photo(name, HW).revision)


def save_square(store: AnnotationStore, name: str = "a.jpg", category: int = 1) -> Any:
    return save(store, name, LabelledObject(category, SQUARE))


def written(path: Path) -> Any:
    return json.loads(path.read_text())


def test_pycocotools_reads_what_was_saved(store: AnnotationStore, path: Path) -> None:
    save(store, "a.jpg", LabelledObject(1, SQUARE), LabelledObject(2, BAR))
    save(store, "b.jpg")
    store.close()
    coco = COCO(str(path))
    assert [image["file_name"] for image in coco.loadImgs(coco.getImgIds())] == NAMES
    assert [mask.area(coco.annToRLE(one)) for one in coco.loadAnns(coco.getAnnIds(1))] == [9, 20]
    assert [(one["area"], one["bbox"]) for one in coco.loadAnns(coco.getAnnIds())] == [
        (9, [1.0, 1.0, 3.0, 3.0]),
        (20, [0.0, 6.0, 10.0, 2.0]),
    ]
    assert {one["name"] for one in coco.loadCats(coco.getCatIds())} == {"cat", "dog"}
    assert sorted(entry.name for entry in path.parent.iterdir()) == ["annotations.json"]


def test_a_photo_without_objects_counts_as_done(store: AnnotationStore) -> None:
    save(store, "b.jpg")
    assert [(one.name, one.objects, one.done) for one in store.photos()] == [("a.jpg", 0, False), ("b.jpg", 0, True)]


def test_the_file_is_written_while_the_work_goes_on(store: AnnotationStore, path: Path) -> None:
    save_square(store)
    for _ in range(100):
        if path.exists() and written(path)["annotations"]:
            return
        time.sleep(0.05)
    pytest.fail("nothing was written in five seconds")


def test_an_object_keeps_its_id_and_ids_are_never_used_twice(store: AnnotationStore) -> None:
    first, second = save(store, "a.jpg", LabelledObject(1, SQUARE), LabelledObject(1, BAR)).objects
    (kept,) = save(store, "a.jpg", LabelledObject(2, SQUARE, second.id)).objects
    assert (first.id, kept.id, kept.category_id, kept.rle) == (1, 2, 2, SQUARE)
    assert save_square(store, "b.jpg").objects[0].id == 3


def test_kill_9_loses_nothing_that_was_answered(path: Path) -> None:
    program = (
        "import sys, time; from pathlib import Path\n"
        "from tests.core.serving.label.test_annotations import *\n"
        "import nanosam_cli.core.serving.label.annotations as module\n"
        "module.AnnotationStore._write_changes = lambda self: None\n"  # the worst moment: nothing but the journal
        "store = AnnotationStore(Path(sys.argv[1]), NAMES, ['cat'])\n"
        "save_square(store); save_square(store, 'b.jpg')\n"
        "print('saved', flush=True); time.sleep(60)\n"
    )
    process = subprocess.Popen([sys.executable, "-c", program, str(path)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    with process:
        assert process.stdout.readline() == "saved\n"
        with pytest.raises(OutputError, match="another run is at work"):
            AnnotationStore(path, NAMES)
        os.kill(process.pid, signal.SIGKILL)
    assert not path.exists()
    with AnnotationStore(path, NAMES) as store:
        assert [one.objects for one in store.photos()] == [1, 1]
        assert store.categories == {1: "cat"}
        assert store.photo("b.jpg", HW).objects == [LabelledObject(1, SQUARE, 2)]
    assert len(written(path)["annotations"]) == 2


FOREIGN = {
    "info": {"year": 2017},
    "licenses": [{"id": 1}],
    "images": [
        {"id": 7, "file_name": "deep/a.jpg", "height": 8, "width": 10, "license": 1},
        {"id": 9, "file_name": "not-opened.jpg", "height": 8, "width": 10},
    ],
    "annotations": [
        {"id": 3, "image_id": 7, "category_id": 5, "segmentation": [[1, 1, 4, 1, 4, 4, 1, 4]], "area": 9, "score": 0.5},
        {"id": 4, "image_id": 7, "category_id": 5, "bbox": [1, 2, 3, 4]},
        {"id": 8, "image_id": 9, "category_id": 5, "segmentation": [[0, 0, 3, 0, 3, 3]], "area": 4},
    ],
    "categories": [{"id": 5, "name": "bird", "supercategory": "animal"}],
}


def test_a_coco_file_is_gone_on_with_and_what_is_not_changed_stays(path: Path) -> None:
    path.write_text(json.dumps(FOREIGN))
    with AnnotationStore(path, NAMES, ["bird", "cat"]) as store:
        assert store.categories == {5: "bird", 6: "cat"}
        (shown,) = store.photo("a.jpg", HW).objects
        assert shown == LabelledObject(5, SQUARE, 3)
        save(store, "a.jpg", shown, LabelledObject(6, BAR))
        save_square(store, "b.jpg", 5)
    after = written(path)
    assert (after["info"], after["licenses"]) == (FOREIGN["info"], FOREIGN["licenses"])
    assert after["images"][:2] == FOREIGN["images"]
    assert after["images"][2] == {"id": 10, "file_name": "b.jpg", "width": 10, "height": 8}
    by_id = {one["id"]: one for one in after["annotations"]}
    before = {one["id"]: one for one in FOREIGN["annotations"]}  # type: ignore[attr-defined]
    assert by_id[3] == {**before[3], "iscrowd": 0}
    assert (by_id[4], by_id[8]) == (before[4], before[8])
    assert (by_id[9]["image_id"], by_id[9]["category_id"], by_id[10]["image_id"]) == (7, 6, 10)
    assert COCO(str(path)).getAnnIds(7) == [4, 3, 9]


def test_photos_that_are_numbers_have_these_as_ids(path: Path) -> None:
    with AnnotationStore(path, ["000139.jpg", "000285.jpg"], ["cat"]) as store:
        save_square(store, "000285.jpg")
    assert written(path)["images"][0]["id"] == 285


def test_two_windows_on_one_photo_are_told(store: AnnotationStore) -> None:
    before = store.photo("a.jpg", HW).revision
    save_square(store)
    with pytest.raises(ConflictError, match="another window"):
        store.save("a.jpg", HW, [LabelledObject(2, BAR)], before)
    again = store.save("a.jpg", HW, [LabelledObject(1, SQUARE)], before)  # the answer got lost, so it is sent again
    assert [one.id for one in again.objects] == [1]


@pytest.mark.parametrize(
    ("thing", "words"),
    [
        (LabelledObject(1, rle(0, 0, 0, 0)), "object 1 is empty"),
        (LabelledObject(1, mask_to_rle(np.ones((3, 3), bool))), "another size"),
        (LabelledObject(1, {"size": [8, 10], "counts": "zz"}), "not a COCO run-length code"),
        (LabelledObject(77, SQUARE), "unknown class 77"),
    ],
)
def test_what_cannot_be_kept_is_refused_whole(store: AnnotationStore, thing: LabelledObject, words: str) -> None:
    save_square(store)
    with pytest.raises((InputError, UsageError), match=words):
        save(store, "a.jpg", thing)
    assert len(store.photo("a.jpg", HW).objects) == 1


@pytest.mark.parametrize("name", ["", "  ", "cat", "a\nb", "x" * 201])
def test_a_class_that_cannot_be_called_so_is_refused(store: AnnotationStore, name: str) -> None:
    with pytest.raises(UsageError):
        store.add_category(name)
    assert store.add_category("a bird, sitting") == 3


def test_an_unknown_photo_is_refused(store: AnnotationStore) -> None:
    with pytest.raises(NotFoundError):
        store.photo("c.jpg", HW)


def test_a_photo_of_another_size_than_annotated_is_refused(store: AnnotationStore) -> None:
    save_square(store)
    with pytest.raises(InputError, match=r"a\.jpg is 8x10 pixels, annotated as 10x8"):
        store.photo("a.jpg", (10, 8))


@pytest.mark.parametrize(
    "content",
    [
        "",
        "[]",
        "{}",
        '{"images": 5, "annotations": []}',
        '{"images": [{"id": 1}], "annotations": []}',
        '{"images": [], "annotations": [{"id": 1, "image_id": 1}], "categories": []}',
        json.dumps({**FOREIGN, "annotations": [FOREIGN["annotations"][0]] * 2}),  # type: ignore[index]
        '{"images": [], "annotations": [], "categories": [{"id": "x", "name": "cat"}]}',
    ],
)
def test_a_file_that_is_no_data_set_is_left_alone(path: Path, content: str) -> None:
    path.write_text(content)
    with pytest.raises(InputError):
        AnnotationStore(path, NAMES, ["cat"])
    assert path.read_text() == content


def test_a_disk_that_is_full_changes_nothing_and_what_follows_is_saved(
    store: AnnotationStore, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Full:
        """Takes ten bytes of each line."""

        def __init__(self, file: Any) -> None:
            self.file = file
            self.room = 10

        def __getattr__(self, name: str) -> Any:
            return getattr(self.file, name)

        def write(self, data: bytes) -> int:
            taken = self.file.write(bytes(data[: self.room]))
            self.room -= taken
            if taken < len(data) and not self.room:
                raise OSError(errno.ENOSPC, "No space left on device")
            return int(taken)

    save_square(store)
    journal = store._journal
    with monkeypatch.context() as full:
        full.setattr(journal, "_file", Full(journal._file))
        with pytest.raises(OutputError, match="disk full"):
            save_square(store, "b.jpg")
    assert [one.objects for one in store.photos()] == [1, 0]
    save_square(store, "b.jpg")
    assert {record.get("photo") for record in journal.records()} <= {None, *NAMES}
    store.close()
    assert len(written(path)["annotations"]) == 2


def test_a_file_that_cannot_be_written_is_told_and_tried_again(
    store: AnnotationStore, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> None:
        raise files.output_error(path, OSError(errno.ENOSPC, "No space left on device"))

    with monkeypatch.context() as refusing:
        refusing.setattr("nanosam_cli.core.serving.label.annotations.write_text", full)
        save_square(store)
        for _ in range(100):
            if store.trouble:
                break
            time.sleep(0.05)
        assert "disk full" in str(store.trouble)
    store.close()
    assert len(written(path)["annotations"]) == 1


def test_a_folder_that_cannot_be_written_is_told_at_the_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "access", lambda *_: False)  # root, who runs CI, may write everywhere
    with pytest.raises(OutputError, match="permission denied"):
        AnnotationStore(tmp_path / "annotations.json", NAMES)


def test_a_place_that_is_no_json_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="json"):
        AnnotationStore(tmp_path / "labels.txt", NAMES)
