"""Files that real tools read, made once by the model in the box, and a table of what each tool made of them."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from nanosam_cli.core.masks import Mask, mask_iou
from nanosam_cli.core.media.mask_codes import rle_to_mask
from tests.command_line import run_nanosam

EXAMPLES = Path(__file__).parents[2] / "examples"
CLIENTS = (
    *("anylabeling", "label-studio-sdk", "labelme", "opencv-python", "openvino", "pycocotools", "supervision"),
    *("ultralytics", "x-anylabeling-cvhub"),
)
ROWS = pytest.StashKey[list[tuple[str, str, str]]]()

Report = Callable[..., None]  # client, what it read, an IoU for each object, and `least`


@dataclass(frozen=True)
class Written:
    """A data set in every format, and the masks that are in it."""

    folder: Path  # set/images, set/labels, labelme/, grey/, colours/, coco.json, coco-dataset.json
    masks: Mapping[str, Sequence[Mask]]  # by the photo's file name, in the order of the objects
    classes: Mapping[str, Sequence[str]]

    @property
    def photos(self) -> list[Path]:
        return sorted((self.folder / "set/images").iterdir())


@pytest.fixture(scope="session")
def written(tmp_path_factory: pytest.TempPathFactory) -> Written:
    folder = tmp_path_factory.mktemp("written")
    images = folder / "set/images"
    images.mkdir(parents=True)
    for photo in sorted(EXAMPLES.glob("*.jpg")):
        shutil.copy(photo, images)
    for out, options in {
        "rle/": ("--format", "rle"),
        "set/labels/": ("--format", "yolo"),
        "labelme/": ("--format", "labelme"),
        "coco.json": ("--format", "coco"),
        "coco-dataset.json": ("--format", "coco-dataset"),
        "grey/": ("--grey", "--exclusive"),
        "colours/": ("--exclusive",),
    }.items():
        place = str(folder / out) + ("/" if out.endswith("/") else "")
        ran = run_nanosam("segment", images, "--detections", EXAMPLES / "instances.json", *options, "-o", place)
        assert ran.code == 0, ran.err
    found = {file: json.loads(file.read_text(encoding="utf-8")) for file in sorted((folder / "rle").glob("*.json"))}
    return Written(
        folder,
        {one["image"]: [rle_to_mask(thing["segmentation"]) for thing in one["objects"]] for one in found.values()},
        {one["image"]: [thing["class"] for thing in one["objects"]] for one in found.values()},
    )


def client(module: str) -> ModuleType:
    """The module; tests are skipped where it is not there, unless `make test-clients` has just installed it."""
    if os.environ.get("NANOSAM_TEST_CLIENTS"):
        return import_module(module)
    found: ModuleType = pytest.importorskip(module, reason=f"{module} is not installed; `make test-clients` runs this")
    return found


def ious(wanted: Sequence[Mask], got: Sequence[Mask]) -> list[float]:
    assert len(wanted) == len(got)
    return [mask_iou(one, np.asarray(other, bool)) for one, other in zip(wanted, got)]


@pytest.fixture
def report(request: pytest.FixtureRequest) -> Report:
    """Keep what a client made of a file for the table, and check it."""

    def add(client: str, what: str, found: Sequence[float], least: float = 0.99) -> None:
        rows = request.config.stash.setdefault(ROWS, [])
        rows.append(
            (f"{client} {_version(client) or ''}".strip(), what, f"{min(found):.4f} to {max(found):.4f} ({len(found)})")
        )
        assert min(found) >= least

    return add


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Without the tools, and the files that are made for them, in the base run."""
    if not os.environ.get("NANOSAM_TEST_CLIENTS"):
        skip = pytest.mark.skip(reason="needs tools that `make test-clients` installs, in environments of their own")
        for item in items:
            if "written" in getattr(item, "fixturenames", ()):
                item.add_marker(skip)


def pytest_report_header() -> str:
    return "clients: " + ", ".join(f"{name} {known}" for name in CLIENTS if (known := _version(name)))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    rows = config.stash.get(ROWS, [])
    for row in [("client", "read", "IoU"), ("---", "---", "---"), *rows] if rows else []:
        terminalreporter.write_line(f"| {' | '.join(row)} |")


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None
