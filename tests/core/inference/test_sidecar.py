from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import fields, replace
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from nanosam_cli.core.errors import ModelError
from nanosam_cli.core.inference.session import TensorInfo
from nanosam_cli.core.inference.sidecar import (
    EngineTarget,
    ShapeRange,
    SideCar,
    _digest,
    check_engine,
    check_source,
    read_sidecar,
    sidecar_path,
)
from nanosam_cli.core.system.documents import RECORD_BYTES

DATA = b"an engine"
SIDECAR = SideCar(
    engine="encoder.rtx",
    engine_sha256=sha256(DATA).hexdigest(),
    engine_bytes=len(DATA),
    onnx="encoder.onnx",
    onnx_sha256="0" * 64,
    part="encoder",
    target=EngineTarget("tensorrt-rtx", "1.7.1", "Linux x86_64", None, ("8.6", "8.9")),
    precision_asked="fp16",
    precision_built="fp16",
    status="built, not run",
    inputs=(TensorInfo("image", (None, 3, 64, 64), "float32"),),
    outputs=(TensorInfo("image_embeddings", (None, 256, 64, 64), "float32"),),
    metadata={"nanosam.model": "small"},
    onnx_data={"encoder.data": "1" * 64},
    rebuild="nanosam build-engine small --fp16 --force",
    fp32_nodes=("norm",),
    layers={"float16": 3},
    shapes={"image": ShapeRange((1, 3, 64, 64), (1, 3, 64, 64), (4, 3, 64, 64))},
    ladder=({"name": "all in fp16", "passed": True},),
    proof={"mean_iou": 0.99},
    build_seconds=1.5,
    created="2026-11-22T12:00:00+00:00",
    nanosam="0.1.0",
)


@pytest.fixture
def engine(tmp_path: Path) -> Path:
    path = tmp_path / "encoder.rtx"
    path.write_bytes(DATA)
    sidecar_path(path).write_text(SIDECAR.text(), encoding="utf-8")
    return path


def test_what_is_written_is_what_is_read(engine: Path) -> None:
    assert sidecar_path(engine).name == "encoder.engine.json"
    found = read_sidecar(engine)
    assert found == SIDECAR
    check_engine(engine, found)
    assert json.loads(sidecar_path(engine).read_text())["schema_version"] == 1


@pytest.mark.parametrize("name", ["encoder.engine", "encoder.rtx", "encoder.onnx"])
def test_every_engine_has_the_same_name_for_it(name: str) -> None:
    assert sidecar_path(Path("folder", name)) == Path("folder/encoder.engine.json")


def edit(change: Callable[[dict[str, Any]], object]) -> Callable[[str], str]:
    def edited(text: str) -> str:
        content = json.loads(text)
        change(content)
        return json.dumps(content)

    return edited


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (edit(lambda content: content.update(precision_built="fp32")), "was edited: its own hash does not fit"),
        (edit(lambda content: content["proof"].update(mean_iou=1.0)), "was edited"),
        (edit(lambda content: content.pop("proof")), "was edited"),
        (edit(lambda content: content.pop("sha256")), "was edited"),
        (edit(lambda content: content.update(schema_version=2)), "is of version 2, not 1"),
        (lambda text: text[:-20], "cannot be read"),
        (lambda text: "[]", "cannot be read: it holds no JSON object"),
        (lambda text: "", "cannot be read"),
    ],
)
def test_a_sidecar_that_is_not_as_it_was_written(engine: Path, change: Callable[[str], str], words: str) -> None:
    path = sidecar_path(engine)
    path.write_text(change(path.read_text(encoding="utf-8")), encoding="utf-8")
    with pytest.raises(ModelError, match=words) as caught:
        read_sidecar(engine)
    assert "nanosam build-engine" in (caught.value.hint or "")


JUNK: dict[str, Any] = {
    "nothing": None,
    "a number": 3,
    "a huge number": 10**300,
    "not a number": float("nan"),
    "words": "junk",
    "a list": [[]],
    "an object": {"a": {"a": {"a": 1}}},
    "nested deeply": json.loads("[" * 900 + "]" * 900),
}


@pytest.mark.parametrize("junk", JUNK)
@pytest.mark.parametrize("key", [entry.name for entry in fields(SideCar)])
def test_whoever_hashes_an_edited_sidecar_again_gets_an_error_or_a_value(engine: Path, key: str, junk: str) -> None:
    path = sidecar_path(engine)
    content = json.loads(path.read_text())
    content[key] = JUNK[junk]
    del content["sha256"]
    path.write_text(json.dumps({**content, "sha256": _digest(content)}))
    found, words = None, ""
    try:
        found = read_sidecar(engine)
    except ModelError as error:
        words = str(error)
    if found is None:
        assert f"{path} is no side-car of an engine: {key}" in words
        assert len(words) < 1000
    else:
        assert type(getattr(found, key)) in (type(getattr(SIDECAR, key)), type(None), dict)


@pytest.mark.parametrize("name", ["/etc/passwd", "../encoder.onnx", "C:\\a.onnx", "a\0b", ""])
@pytest.mark.parametrize("key", ["engine", "onnx"])
def test_a_sidecar_names_files_beside_it(engine: Path, key: str, name: str) -> None:
    path = sidecar_path(engine)
    path.write_text(replace(SIDECAR, **{key: name}).text())
    with pytest.raises(ModelError, match=f"{key}: must name a file beside it"):
        read_sidecar(engine)


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"\xff\xfe\xfd", "it is no text"),
        (b"[" * 200_000, "it is nested too deeply"),
        (b"9" * 5000, "a number of thousands of digits"),
        (b"{}" + b" " * (RECORD_BYTES + 1), "has more than 64 MiB"),
    ],
)
def test_bytes_that_are_no_sidecar(engine: Path, data: bytes, words: str) -> None:
    sidecar_path(engine).write_bytes(data)
    with pytest.raises(ModelError, match=words):
        read_sidecar(engine)


def test_a_sidecar_that_is_missing(engine: Path) -> None:
    sidecar_path(engine).unlink()
    with pytest.raises(ModelError, match=r"has no encoder\.engine\.json beside it") as caught:
        read_sidecar(engine)
    assert caught.value.hint == "nanosam build-engine FILE.onnx --force, of the file that it was built from"


def test_another_file_under_the_engines_name(engine: Path) -> None:
    """Also what a kill leaves between side-car and engine."""
    found = read_sidecar(engine)
    engine.write_bytes(DATA[:-1])
    with pytest.raises(ModelError, match=r"is not the file that encoder\.engine\.json describes") as caught:
        check_engine(engine, found)
    assert caught.value.hint == SIDECAR.rebuild
    engine.unlink()
    with pytest.raises(ModelError, match="does not exist"):
        check_engine(engine, found)


def test_the_original_and_the_files_that_hold_its_weights(engine: Path) -> None:
    original, weights = engine.with_name("encoder.onnx"), engine.with_name("encoder.data")
    for path in (original, weights):
        path.write_bytes(b"as it was built")
    built = sha256(b"as it was built").hexdigest()
    found = replace(SIDECAR, onnx_sha256=built, onnx_data={weights.name: built})
    check_source(engine, found, original)
    for path in (original, weights):
        path.write_bytes(b"trained again")
        with pytest.raises(ModelError, match=rf"was built from another {path.name} than") as caught:
            check_source(engine, found, original)
        assert caught.value.hint == SIDECAR.rebuild
        path.unlink()  # an engine runs without them
        check_source(engine, found, original)


def test_optional_fields_have_defaults() -> None:
    bare = replace(SIDECAR, layers={}, shapes={}, ladder=(), proof=None, fp32_nodes=())
    assert json.loads(bare.text())["proof"] is None
