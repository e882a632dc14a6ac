"""`nanosam build-engine` as users type it, and everything that can be wrong with that."""

from __future__ import annotations

import importlib.util
import json
import os
import shlex
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper
from PIL import Image

from nanosam_cli.core.engine import runtime
from nanosam_cli.core.errors import ModelError
from nanosam_cli.core.inference.backends.tensorrt import flavour
from nanosam_cli.core.inference.sidecar import check_source, read_sidecar, sidecar_path
from nanosam_cli.core.loading.engines import engine_folder
from nanosam_cli.core.system.files import file_sha256
from nanosam_cli.core.zoo.models import DEFAULT_MODEL, file_path, find_model
from tests.command_line import Ran, run_nanosam
from tests.fake_models import save

ORT = "--backend onnxruntime"
RANDOM = np.random.default_rng(0)
has_rtx = importlib.util.find_spec("tensorrt_rtx") is not None


@pytest.fixture(autouse=True)
def _workplace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, own_files: tuple[Path, Path]) -> None:
    """A directory with small models, photos, and what may be mistaken for them; a machine without a GPU."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("NANOSAM_HOME", str(tmp_path / "home"))
    for module in (flavour, runtime):
        monkeypatch.setattr(module, "gpu_here", lambda: None)
    for file in own_files:
        shutil.copy(file, tmp_path)
    for folder, count in (("photos", 2), ("empty", 0), ("broken", 0)):
        Path(folder).mkdir()
        for number in range(count):
            Image.fromarray(RANDOM.integers(0, 256, (60, 80, 3), np.uint8)).save(f"{folder}/{number}.png")
    Path("broken/a.jpg").write_text("no picture")
    Path("junk.onnx").write_bytes(b"junk")
    Path("empty.onnx").touch()
    Path("encoder.engine").write_bytes(b"an engine")
    save(Path("other.onnx"), [helper.make_node("Relu", ["x"], ["y"])], {"x": (1, 2)}, {"y": (1, 2)})


def build(line: str) -> Ran:
    return run_nanosam("build-engine", *line.split())


def files() -> list[str]:
    return sorted(str(path) for path in Path().rglob("*") if path.is_file())


BAD = [
    # what is asked
    (f"--fp16 --int8 {ORT}", 2, "--fp16 and --int8 do not go together"),
    (f"--fp32 --bf16 --fp16 {ORT}", 2, "--fp32 and --fp16 and --bf16 do not go together"),
    (f"--decoder-precision int8 {ORT}", 2, "'int8' is not one of 'fp32', 'fp16', 'bf16'"),
    ("--backend abacus", 2, "'abacus' is not one of"),
    (f"--mean-iou 2 {ORT}", 2, "'2' is not from 0 to 1"),
    (f"sam3-giant {ORT}", 2, "unknown model: sam3-giant"),
    (f"mobile-sam {ORT}", 1, "the checkpoint of model mobile-sam is missing"),
    (f"encoder.onnx nanosam-lite2 {ORT}", 2, "names and files do not go together"),
    (f"--encoder encoder.onnx {ORT}", 2, "--encoder, --decoder and --model go with FILE.onnx"),
    # files
    (f"nowhere.onnx {ORT}", 1, "nowhere.onnx does not exist"),
    (f"empty.onnx {ORT}", 1, "empty.onnx is empty"),
    (f"junk.onnx {ORT}", 1, "junk.onnx is not a whole ONNX file"),
    (f"other.onnx {ORT}", 1, "other.onnx, given as encoder, is not a SAM model file"),
    (f"encoder.engine {ORT}", 2, "unknown model: encoder.engine"),
    (f"encoder.onnx encoder.onnx {ORT}", 2, "are both an encoder"),
    (
        f"decoder.onnx {ORT}",
        2,
        "is a mask decoder, which is proved behind its encoder nanosam build-engine",
    ),
    (f"encoder.onnx --encoder other.onnx {ORT}", 2, "encoder.onnx is the encoder itself, and proved against itself"),
    (f"encoder.onnx decoder.onnx --decoder a.onnx {ORT}", 2, "leave --decoder out, or build from the original"),
    # runtimes
    ("--backend tensorrt --fp16", 1, "tensorrt is not installed"),
    # shapes
    (f"encoder.onnx --batch 4 {ORT}", 2, "ONNX Runtime's engines take any shape"),
    (f"encoder.onnx --opt-shapes image:1x3x128x128 {ORT}", 2, "ONNX Runtime's engines take any shape"),
    ("encoder.onnx --opt-shapes image", 2, "'image' is no shape"),
    ("encoder.onnx --opt-shapes image:1x3xS", 2, "'image:1x3xS' is no shape"),
    ("encoder.onnx --opt-shapes image:1x3,image:1x3", 2, "image has two shapes"),
    # photos
    (f"encoder.onnx --validate nowhere {ORT}", 1, "no such directory: nowhere"),
    (f"encoder.onnx --validate empty {ORT}", 1, "no images in empty"),
    (f"encoder.onnx --int8 --calibrate empty --validate photos {ORT}", 1, "no images in empty"),
    (f"encoder.onnx --int8 --calibrate nowhere --validate photos {ORT}", 1, "no such directory: nowhere"),
    (f"encoder.onnx --validate broken {ORT}", 1, "broken/a.jpg"),
    # places
    (f"encoder.onnx -o encoder.onnx {ORT}", 1, "encoder.onnx is not a directory"),
]
BOTH = "encoder.onnx decoder.onnx"
RTX_BAD = [
    ("encoder.onnx --max-shapes picture:1x3x128x128", 2, "there is no input picture inputs: image"),
    ("encoder.onnx --max-shapes image:1x3x64x64", 2, "1x3x64x64 is no shape of image"),
    (f"{BOTH} --min-shapes point_labels:9x2 --max-shapes point_labels:8x2", 2, "must not shrink"),
    (
        f"{BOTH} --max-shapes point_coords:8x2x2 --max-shapes point_labels:9x2",
        2,
        "point_coords:8x2x2, point_labels:9x2",
    ),
    (f"{BOTH} --opt-shapes point_labels:9x2 --opt-shapes point_labels:8x2 --max-shapes point_labels:7x2", 2, "1, 8, 7"),
]


@pytest.mark.parametrize(("line", "code", "words"), BAD, ids=[row[0] for row in BAD])
def test_bad_inputs(line: str, code: int, words: str) -> None:
    before = files()
    ran = build(line)
    assert ran.code == code, ran.err
    assert words in ran.words
    assert not ran.out
    assert files() == before  # nothing was written


@pytest.mark.skipif(not has_rtx, reason="needs the extra `tensorrt-rtx`")
@pytest.mark.parametrize(("line", "code", "words"), RTX_BAD, ids=[row[0] for row in RTX_BAD])
def test_bad_shapes(line: str, code: int, words: str) -> None:
    before = files()
    ran = build(f"{line} --backend tensorrt-rtx")
    assert ran.code == code, ran.err
    assert words in ran.words
    assert files() == before


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("--fp32", "engines/nanosam-lite2/onnxruntime: permission denied set NANOSAM_HOME to another directory"),
        ("encoder.onnx --fp32 -o new", "cannot write into new: permission denied give -o DIR"),
    ],
)
def test_place_that_may_not_be_written(monkeypatch: pytest.MonkeyPatch, line: str, words: str) -> None:
    """It is said before anything is built or proved."""
    before = files()
    monkeypatch.setattr(os, "access", lambda _, mode: not mode & os.W_OK)  # root may write anywhere
    monkeypatch.setattr("nanosam_cli.core.engine.build.build", None)
    ran = build(f"{line} {ORT}")
    assert (ran.code, ran.out) == (1, ""), ran.err
    assert words in ran.words
    assert files() == before


def test_engines_of_ones_own_files() -> None:
    ran = build(f"encoder.onnx decoder.onnx --fp32 {ORT} --validate photos -o engines")
    assert ran.code == 0, ran.err
    assert "onnxruntime" in ran.words
    assert "asked for" in ran.words
    assert "mask IoU mean 1.0000 (at least 0.98), worst 1.0000 (at least 0.9), 18 prompts, 2 photos" in ran.out
    assert "engines/encoder.onnxruntime.onnx: fp32" in ran.out
    assert read_sidecar(Path("engines/decoder.onnxruntime.onnx")).rebuild == (
        "nanosam build-engine encoder.onnx decoder.onnx --fp32 --validate photos -o engines "
        "--backend onnxruntime --force"
    )
    photo = run_nanosam(
        *("segment", "photos/0.png", "--box", "5,5,40,30"),
        *("--encoder", "engines/encoder.onnxruntime.onnx", "--decoder", "engines/decoder.onnxruntime.onnx"),
    )
    assert photo.code == 0, photo.err


REBUILT = [  # what is typed, and what of it is kept
    ("--no-proof", "--no-proof"),
    ("--mean-iou 0.98 --worst-iou 0.9 --batch 1 --no-proof", "--no-proof"),
    (
        "--no-proof --worst-iou 0 --mean-iou 0.975 --validate photos --calibrate photos --fp32",
        "--fp32 --calibrate photos --validate photos --mean-iou 0.975 --worst-iou 0.0 --no-proof",
    ),
    (
        "--builder-level 2 --workspace 64 --decoder-precision fp32 --no-proof",
        "--decoder-precision fp32 --workspace 64 --builder-level 2 --no-proof",
    ),
    (
        "--encoder my_photos/enc.onnx --model nanosam-lite2 --validate photos",
        "--model nanosam-lite2 --encoder my_photos/enc.onnx --validate photos",
    ),
]


@pytest.mark.parametrize(("given", "kept"), REBUILT, ids=[row[0] for row in REBUILT])
def test_what_made_an_engine_makes_it_again(given: str, kept: str) -> None:
    """Its side-car's command holds every option that matters, and works as it is typed."""
    folder = Path("my photos")
    folder.mkdir()
    shutil.copy("encoder.onnx", folder / "enc.onnx")
    words = [word.replace("my_photos", "my photos") for word in f"decoder.onnx {given} -o out {ORT}".split()]
    assert run_nanosam("build-engine", *words).code == 0
    engine = Path("out/decoder.onnxruntime.onnx")
    again = read_sidecar(engine).rebuild
    kept = kept.replace("my_photos/enc.onnx", "'my photos/enc.onnx'")
    assert again == f"nanosam build-engine decoder.onnx {kept} -o out {ORT} --force"
    assert run_nanosam(*shlex.split(again)[1:]).code == 0
    assert read_sidecar(engine).rebuild == again


def test_nothing_is_overwritten_unasked() -> None:
    line = f"encoder.onnx --fp32 {ORT} --validate photos"
    assert build(line).code == 0
    written = Path("encoder.onnxruntime.onnx").read_bytes()
    again = build(line)
    assert again.code == 1
    assert "encoder.onnxruntime.onnx exists already add `--force`" in again.words
    Path("encoder.onnxruntime.engine.json").unlink()
    assert build(line).code == 1
    assert build(f"{line} --force").code == 0
    assert Path("encoder.onnxruntime.onnx").read_bytes() == written


SHARED = [
    ("a/m.onnx b/m.onnx", "a/m.onnx and b/m.onnx would both be built as out/m.onnxruntime.onnx build them one by one"),
    ("nanosam-lite2 nanosam-lite2", "would be built twice as out/encoder.onnx name each model once"),
    ("nanosam-lite2 nanosam-resnet18", "would both be built as out/encoder.onnx build them one by one, each with"),
]


@pytest.mark.parametrize(("models", "words"), SHARED, ids=[row[0] for row in SHARED])
def test_engines_of_one_build_do_not_overwrite_each_other(
    models: str, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for folder, part in (("a", "encoder"), ("b", "decoder")):
        Path(folder).mkdir()
        shutil.copy(f"{part}.onnx", f"{folder}/m.onnx")
        cached = file_path(find_model("nanosam-resnet18"), part)
        cached.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(f"{part}.onnx", cached)
    monkeypatch.setattr("nanosam_cli.core.engine.build.build", None)
    before = files()
    ran = build(f"{models} --no-proof --force --fp32 -o out {ORT}")
    assert (ran.code, ran.out) == (2, ""), ran.err
    assert words in ran.words
    assert files() == before


def test_a_side_car_of_an_engine_for_another_backend() -> None:
    """It is named as what is there, and lost only with --force and a warning."""
    line = f"encoder.onnx --fp32 --no-proof -o out {ORT}"
    assert build(line).code == 0
    engine, other = Path("out/encoder.onnxruntime.onnx"), Path("out/encoder.onnxruntime.rtx")
    described = replace(read_sidecar(engine), engine=other.name)
    engine.rename(other)
    sidecar_path(engine).write_text(described.text(), encoding="utf-8")
    refused = build(line)
    assert refused.code == 1
    assert f"out/encoder.onnxruntime.engine.json exists already, and describes {other} give another" in refused.words
    forced = build(f"{line} --force")
    assert forced.code == 0
    assert f"warning: {other} loses its side-car to {engine}" in forced.words
    assert "loses" not in build(f"{line} --force").words
    engine.unlink()
    assert "encoder.onnxruntime.engine.json exists already add `--force`" in build(line).words


def test_a_decoder_is_proved_behind_an_encoder_that_is_only_there_for_that() -> None:
    ran = build(f"decoder.onnx --encoder encoder.onnx {ORT} --validate photos -o out")
    assert ran.code == 0, ran.err
    assert sorted(path.name for path in Path("out").iterdir()) == [
        "decoder.onnxruntime.engine.json",
        "decoder.onnxruntime.onnx",
    ]


def test_weights_in_a_file_beside_the_graph() -> None:
    """The engine holds them itself."""
    onnx.save(
        onnx.load("encoder.onnx"), "split.onnx", save_as_external_data=True, location="split.data", size_threshold=0
    )
    ran = build(f"split.onnx --decoder decoder.onnx --int8 {ORT} --validate photos -o out")
    assert ran.code == 0, ran.err
    engine = Path("out/split.onnxruntime.onnx")
    sidecar = read_sidecar(engine)
    assert sidecar.onnx_data == {"split.data": file_sha256(Path("split.data"))}
    check_source(engine, sidecar, Path("split.onnx"))
    Path("split.data").write_bytes(bytes(Path("split.data").stat().st_size))
    with pytest.raises(ModelError, match=r"another split\.data"):
        check_source(engine, sidecar, Path("split.onnx"))
    Path("split.data").unlink()
    photo = run_nanosam(
        *("segment", "photos/0.png", "--box", "5,5,40,30", "--decoder", "decoder.onnx"),
        *("--encoder", "out/split.onnxruntime.onnx"),
    )
    assert photo.code == 0, photo.err
    gone = build(f"split.onnx --fp32 {ORT} --validate photos")
    assert gone.code == 1
    assert "split.data" in gone.words


def test_an_encoder_alone_is_proved_by_its_numbers() -> None:
    ran = build(f"encoder.onnx --int8 {ORT} --validate photos")
    assert ran.code == 0, ran.err
    assert "no masks were made, because there was no decoder" in ran.out


def test_json_is_the_side_car() -> None:
    ran = build(f"encoder.onnx decoder.onnx --fp32 {ORT} --validate photos --json")
    assert ran.code == 0, ran.err
    encoder, decoder = map(json.loads, ran.out.splitlines())
    assert (encoder["schema_version"], encoder["path"]) == (1, "encoder.onnxruntime.onnx")
    assert (encoder["part"], decoder["part"]) == ("encoder", "decoder")
    assert encoder["target"]["backend"] == "onnxruntime"
    assert encoder["proof"]["mean_iou"] == 1
    assert decoder["ladder"][0]["passed"] is True


def test_a_dry_run_builds_nothing() -> None:
    before = files()
    ran = build(f"encoder.onnx decoder.onnx --int8 {ORT} --dry-run")
    assert ran.code == 0, ran.err
    assert "int8" in ran.out
    assert "any" in ran.out
    rows = [json.loads(line) for line in build(f"encoder.onnx {ORT} --fp16 --dry-run --json").out.splitlines()]
    assert rows[0]["precision_asked"] == "fp16"
    assert rows[0]["precision"] == "fp32"
    assert files() == before


def save_sensitive_decoder() -> None:
    """The fake decoder, with a hundred times the embedding's mean over the channels added to every mask."""
    model = onnx.load("decoder.onnx")
    for node in model.graph.node:
        node.output[:] = ["plain_masks" if name == "low_res_masks" else name for name in node.output]
    scales = onnx.numpy_helper.from_array(np.array([1, 1, 4, 4], np.float32), "scales")
    model.graph.initializer.extend([scales, onnx.numpy_helper.from_array(np.float32(100), "hundred")])
    model.graph.node.extend(
        [
            helper.make_node("ReduceMean", ["image_embeddings"], ["means"], axes=[1]),
            helper.make_node("Resize", ["means", "", "scales"], ["large"], mode="nearest"),
            helper.make_node("Mul", ["large", "hundred"], ["loud"]),
            helper.make_node("Add", ["plain_masks", "loud"], ["low_res_masks"]),
        ]
    )
    onnx.save(model, "sensitive.onnx")


def test_what_fails_is_shown_step_by_step() -> None:
    """An impossible threshold: int8 fails, bisection finds nothing, and fp32 is what comes out, never silently."""
    save_sensitive_decoder()
    ran = build(f"encoder.onnx sensitive.onnx --int8 --worst-iou 1 --mean-iou 1 {ORT} --validate photos")
    assert ran.code == 0, ran.err
    assert "encoder, all in int8, calibrated by MinMax: mean mask IoU 0.9" in ran.words
    assert "the next step is tried" in ran.words
    assert "encoder, all in fp32: passes" in ran.words
    assert "fp32, int8 was asked for" in ran.out
    assert "against all in int8, calibrated by MinMax: " in ran.out
    sidecar = read_sidecar(Path("encoder.onnxruntime.onnx"))
    assert (sidecar.precision_asked, sidecar.precision_built) == ("int8", "fp32")
    assert [row["passed"] for row in sidecar.ladder] == [False, False, True]


def test_there_is_no_next_step_after_the_last() -> None:
    """An encoder whose numbers are NaN in every precision."""
    model = onnx.load("encoder.onnx")
    for node in model.graph.node:
        node.output[:] = ["numbers" if name == "image_embeddings" else name for name in node.output]
    model.graph.initializer.append(onnx.numpy_helper.from_array(np.float32("nan"), "nan"))
    model.graph.node.append(helper.make_node("Add", ["numbers", "nan"], ["image_embeddings"]))
    onnx.save(model, "nan.onnx")
    ran = build(f"nan.onnx --fp32 {ORT} --validate photos")
    assert ran.code == 1
    assert "warning: encoder, all in fp32: image_embeddings has" in ran.words
    assert "the next step is tried" not in ran.words


def test_blind_builds_say_so() -> None:
    ran = build(f"encoder.onnx --fp32 {ORT} --no-proof")
    assert ran.code == 0, ran.err
    assert "the engines are not proved" in ran.words
    assert "encoder, all in fp32: made, not proved, " in ran.words
    assert "passes" not in ran.words
    assert read_sidecar(Path("encoder.onnxruntime.onnx")).status == "not proved"
    assert build(f"decoder.onnx --fp32 {ORT} --no-proof").code == 0  # nothing to be proved behind


@pytest.mark.slow
@pytest.mark.skipif(not has_rtx, reason="needs the extra `tensorrt-rtx`")
def test_fp16_as_it_stands(monkeypatch: pytest.MonkeyPatch) -> None:
    """The default model, for the best runtime there is on a machine without a GPU; the decoder stays fp32."""
    ran = build("--fp16 --validate photos")
    assert ran.code == 0, ran.err
    assert "tensorrt-rtx" in ran.words
    assert "builds for RTX cards on any machine; tensorrt: tensorrt is not installed" in ran.words
    assert "was built, not run: there is no GPU here" in ran.words
    folder = engine_folder(find_model(DEFAULT_MODEL), "tensorrt-rtx")
    encoder, decoder = (read_sidecar(folder / f"{part}.rtx") for part in ("encoder", "decoder"))
    assert (encoder.precision_built, decoder.precision_built) == ("fp16", "fp32")
    assert encoder.status == decoder.status == "built, not run"
    assert encoder.proof is not None
    assert encoder.proof["method"] == "emulated"
    # nobody is bothered by it where there is no GPU
    ran = run_nanosam("segment", "photos/0.png", "--box", "5,5,40,30")
    assert ran.code == 0
    assert "warning" not in ran.err
    ran = run_nanosam("segment", "photos/0.png", "--box", "5,5,40,30", "--backend", "tensorrt-rtx")
    assert ran.code == 1


@pytest.mark.skipif(not has_rtx, reason="needs the extra `tensorrt-rtx`")
def test_overflow_is_rescued_for_rtx(own_files: tuple[Path, Path]) -> None:
    """An encoder whose pictures are a million times too bright for half on the way."""
    model = onnx.load(own_files[0])
    for node in model.graph.node:
        if node.op_type == "Conv":
            node.output[0] = "bright"
    for name, factor in (("up", 1e5), ("down", 1e-5)):
        model.graph.initializer.append(onnx.numpy_helper.from_array(np.float32(factor).reshape(1), name))
    # the factors are numbers that half has in another form, so that only what they make is beyond its range
    model.graph.node.append(helper.make_node("Exp", ["log_up"], ["much"], "exp"))
    model.graph.initializer.append(onnx.numpy_helper.from_array(np.float32(np.log(1e5)).reshape(1), "log_up"))
    model.graph.node.append(helper.make_node("Mul", ["bright", "much"], ["brighter"], "brighten"))
    model.graph.node.append(helper.make_node("Div", ["brighter", "much"], ["image_embeddings"], "darken"))
    onnx.save(model, "bright.onnx")
    ran = build("bright.onnx --decoder decoder.onnx --fp16 --backend tensorrt-rtx --validate photos")
    assert ran.code == 0, ran.err
    assert "encoder, all in fp16: " in ran.words
    assert "place(s) overflow" in ran.words
    sidecar = read_sidecar(Path("bright.tensorrt-rtx.rtx"))
    assert sidecar.precision_built == "fp16"
    assert set(sidecar.fp32_nodes) >= {"brighten", "darken"}
    assert sidecar.ladder[0]["passed"] is False
    assert sidecar.ladder[-1]["passed"] is True
