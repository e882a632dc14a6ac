"""The folder with the page that needs no server; tests/clients opens it in Chromium."""

from __future__ import annotations

import json
import tarfile
from pathlib import Path

import pytest

from nanosam_cli.core.errors import InputError, NanosamError, OutputError, UsageError
from nanosam_cli.core.export.options import ExportOptions
from nanosam_cli.core.loading.convert import export_for_browser


def save_package(path: Path, name: str = "onnxruntime-web", left_out: str = "") -> Path:
    """A package of npm with the files that are copied, without what is in them."""
    contents = {
        "package.json": json.dumps({"name": name, "version": "1.30.0", "license": "MIT"}),
        "dist/ort.wasm.bundle.min.mjs": "// the runtime",
        "dist/ort-wasm-simd-threaded.wasm": "wasm",
    }
    folder = path.parent / f"{path.stem}-files"
    with tarfile.open(path, "w:gz") as archive:
        for inner, text in contents.items():
            (folder / inner).parent.mkdir(parents=True, exist_ok=True)
            (folder / inner).write_text(text)
            if inner != left_out:
                archive.add(folder / inner, f"package/{inner}")
    return path


def test_a_folder_with_all_that_a_page_needs(tmp_path: Path) -> None:
    package = save_package(tmp_path / "ort.tgz")
    written = export_for_browser(None, tmp_path / "page", ExportOptions(), package)
    assert {path.name: path.stat().st_size for path in (tmp_path / "page").iterdir()} == dict(written.sizes)
    assert json.loads((tmp_path / "page" / "model.json").read_text())["image_size"] == 512
    licences = (tmp_path / "page" / "licences.txt").read_text()
    for words in ("onnxruntime-web 1.30.0", "Copyright (c) Microsoft Corporation", "nanosam-lite2"):
        assert words in licences
    again = export_for_browser(None, tmp_path / "again", ExportOptions(), tmp_path / "ort-files")
    assert again.sizes == written.sizes


@pytest.mark.parametrize(
    ("package", "options", "error", "words"),
    [
        ("right", ExportOptions(contract="sam"), UsageError, "browser says what its files are like"),
        ("text", ExportOptions(), InputError, "is no package of npm"),
        ("none", ExportOptions(), InputError, "is no package of npm"),
        ("other", ExportOptions(), InputError, "is not onnxruntime-web as npm has it"),
        ("partial", ExportOptions(), InputError, r"ort-wasm-simd-threaded\.wasm"),
        ("full", ExportOptions(), OutputError, r"index\.html exists already"),
    ],
)
def test_what_is_refused(
    package: str, options: ExportOptions, error: type[NanosamError], words: str, tmp_path: Path
) -> None:
    places = {
        "right": save_package(tmp_path / "right.tgz"),
        "other": save_package(tmp_path / "other.tgz", name="left-pad"),
        "partial": save_package(tmp_path / "partial.tgz", left_out="dist/ort-wasm-simd-threaded.wasm"),
        "text": tmp_path / "text.tgz",
        "none": tmp_path / "none.tgz",
    }
    places["text"].write_text("hello")
    out = tmp_path / "page"
    if package == "full":
        out.mkdir()
        (out / "index.html").write_text("mine")
    with pytest.raises(error, match=words) as caught:
        export_for_browser(None, out, options, places.get(package, places["right"]))
    assert caught.value.hint
    assert not out.exists() or {path.name for path in out.iterdir()} <= {"index.html"}
