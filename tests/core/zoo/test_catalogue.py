"""What can be downloaded, and whether the table of it is complete."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from nanosam_cli.core.errors import UsageError
from nanosam_cli.core.loading.part_files import model_files
from nanosam_cli.core.zoo.catalogue import Entry, entries, find_entry
from nanosam_cli.core.zoo.models import MODELS, find_model


@pytest.mark.parametrize("entry", entries().values(), ids=list(entries()))
def test_every_entry_is_complete(entry: Entry) -> None:
    assert find_entry(entry.name) is not None
    assert entry.description
    assert entry.licence
    assert entry.files
    for file in entry.files:
        assert Path(file.file).name == file.file
        # over plain HTTP nothing but the hash says that the file is the right one
        assert all(url.startswith("https://") or (file.sha256 and file.size) for url in file.urls)
        assert file.urls or entry.bundled
        assert file.sha256 is None or re.fullmatch("[0-9a-f]{64}", file.sha256)


def test_one_file_is_described_once() -> None:
    """Files that entries share must not differ, or each would undo the other's download."""
    found = {}
    for entry in entries().values():
        for file in entry.files:
            assert found.setdefault(entry.path(file), file) == file


def test_models_lie_where_the_zoo_looks_for_them(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("NANOSAM_HOME", str(tmp_path))
    entry = find_entry("nanosam-resnet18")
    assert entry.size is None
    assert not entry.is_here
    for file in entry.files:
        entry.path(file).parent.mkdir(parents=True, exist_ok=True)
        entry.path(file).write_bytes(b"abc")
    assert entry.is_here
    assert entry.size == 6
    assert model_files(find_model("nanosam-resnet18")) == tuple(map(entry.path, entry.files))


def test_names_are_unique_and_known_by_their_neighbours() -> None:
    assert MODELS.keys() < entries().keys()
    with pytest.raises(UsageError, match="nothing is called 'coco_val2017'") as caught:
        find_entry("coco_val2017")
    assert "coco-val2017" in (caught.value.hint or "")
