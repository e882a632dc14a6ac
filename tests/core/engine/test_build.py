"""Real builds, with ONNX Runtime and with TensorRT-RTX, which needs no GPU for that."""

from __future__ import annotations

import importlib.util
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx
import pytest
from PIL import Image

from nanosam_cli.core.engine import build as build_module
from nanosam_cli.core.engine import compile as compile_module
from nanosam_cli.core.engine import tensorrt as builder
from nanosam_cli.core.engine.build import BuildOptions, Engine, build, check_timing_cache, timing_cache
from nanosam_cli.core.engine.compile import Compiled
from nanosam_cli.core.engine.plan import BuildPlan, BuildRequest, plan_files
from nanosam_cli.core.engine.runtime import Chosen, choose
from nanosam_cli.core.engine.shapes import Shapes
from nanosam_cli.core.engine.tensorrt import BuildSettings
from nanosam_cli.core.errors import BackendError, ModelError, OutputError
from nanosam_cli.core.inference.contract import FACTS
from nanosam_cli.core.inference.sidecar import EngineTarget, ShapeRange, read_sidecar, sidecar_path
from nanosam_cli.core.loading.load import load_predictor
from nanosam_cli.core.precision.agreement import Thresholds
from nanosam_cli.core.precision.photos import ProofPhoto
from nanosam_cli.core.precision.polygraphy_log import polygraphy_errors
from nanosam_cli.core.types import Prompt
from tests.command_line import run_nanosam

RANDOM = np.random.default_rng(0)
PHOTOS = [
    ProofPhoto("noise.png", RANDOM.integers(0, 256, (60, 80, 3), np.uint8), Prompt.from_boxes([[5, 5, 40, 30]])),
    ProofPhoto("grey.png", np.full((50, 40, 3), 99, np.uint8), Prompt.from_boxes([[3, 3, 30, 40]])),
]
SETTINGS = BuildOptions(BuildSettings(), Thresholds(), PHOTOS, PHOTOS)
needs_rtx = pytest.mark.skipif(
    importlib.util.find_spec("tensorrt_rtx") is None, reason="needs the extra `tensorrt-rtx`"
)


def plan(files: tuple[Path, ...], backend: str, folder: Path, **asked: Any) -> BuildPlan:
    return plan_files(list(files), choose(backend), BuildRequest(output=folder, **asked), model=None, originals={})


def built(plan: BuildPlan, settings: BuildOptions = SETTINGS) -> list[Engine]:
    return list(build(plan, settings, lambda job, step: None))


def test_onnx_runtime_in_fp32(own_files: tuple[Path, Path], tmp_path: Path) -> None:
    engines = built(plan(own_files, "onnxruntime", tmp_path, precision="fp32"))
    assert [engine.path.name for engine in engines] == ["encoder.onnxruntime.onnx", "decoder.onnxruntime.onnx"]
    for engine in engines:
        sidecar = read_sidecar(engine.path)
        assert sidecar == engine.sidecar
        assert sidecar.status == "proved by running"
        assert (sidecar.precision_asked, sidecar.precision_built) == ("fp32", "fp32")
        assert sidecar.proof is not None
        assert sidecar.proof["mean_iou"] == 1
        assert sidecar.metadata.keys() >= {"nanosam.part"}
        assert sidecar.metadata.items() >= FACTS[sidecar.part].items()
        assert engine.proof.method == "run"
    with load_predictor(encoder=engines[0].path, decoder=engines[1].path) as predictor:
        assert predictor.predict(predictor.encode_image(PHOTOS[0].image), PHOTOS[0].prompts)
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        *("decoder.onnxruntime.engine.json", "decoder.onnxruntime.onnx"),
        *("encoder.onnxruntime.engine.json", "encoder.onnxruntime.onnx"),
    ]


def test_onnx_runtime_in_int8(own_files: tuple[Path, Path], tmp_path: Path) -> None:
    encoder, decoder = built(plan(own_files, "onnxruntime", tmp_path, precision="int8"))
    assert encoder.sidecar.precision_built == "int8"
    assert encoder.sidecar.layers["int8"] >= 1
    assert "QuantizeLinear" in {node.op_type for node in onnx.load(encoder.path).graph.node}
    assert encoder.sidecar.proof is not None
    assert encoder.sidecar.proof["mean_iou"] > 0.98
    assert decoder.sidecar.precision_built == "fp32"  # int8 breaks masks


def test_half_does_not_pay_on_a_cpu_and_that_is_said(own_files: tuple[Path, Path], tmp_path: Path) -> None:
    made = plan(own_files, "onnxruntime", tmp_path, precision="fp16")
    assert "would only convert fp16 back and forth" in (made.jobs[0].why or "")
    encoder, _ = built(made)
    assert (encoder.sidecar.precision_asked, encoder.sidecar.precision_built) == ("fp16", "fp32")


@needs_rtx
def test_tensorrt_rtx_builds_what_it_says(own_files: tuple[Path, Path], tmp_path: Path) -> None:
    """fp16 is really there: in the layers, and in the size of an engine whose weights are most of it."""
    sizes = {}
    for precision in ("fp32", "fp16"):
        asked = {"precision": precision, "decoder_precision": precision}
        for engine in built(plan(own_files, "tensorrt-rtx", tmp_path / precision, **asked)):
            sidecar = engine.sidecar
            assert sidecar.precision_built == precision
            assert sidecar.status == "built, not run"
            assert engine.proof.method == "emulated"
            assert engine.path.suffix == ".rtx"
            assert sidecar.target.compute_capabilities
            assert sidecar.target.gpu is None
            assert ("float16" in sidecar.layers) is (precision == "fp16")
            sizes[sidecar.part, precision] = sidecar.engine_bytes
            if sidecar.part == "decoder":  # dynamic prompts
                coords = sidecar.shapes["point_coords"]
                assert (coords.min, coords.opt, coords.max) == ((1, 2, 2), (8, 2, 2), (64, 16, 2))
    assert all(size > 1000 for size in sizes.values())


@needs_rtx
def test_half_engines_of_real_weights_are_smaller(tmp_path: Path) -> None:
    from nanosam_cli.core.loading.part_files import model_files
    from nanosam_cli.core.zoo.models import DEFAULT_MODEL, find_model

    encoder, _ = model_files(find_model(DEFAULT_MODEL))
    unproved = replace(SETTINGS, prove=False)
    sizes = [
        built(plan((encoder,), "tensorrt-rtx", tmp_path / name, precision=name, prove=False), unproved)[0]
        for name in ("fp32", "fp16")
    ]
    whole, half = (engine.sidecar.engine_bytes for engine in sizes)
    weights = encoder.stat().st_size
    assert whole > weights
    assert half < whole - 0.3 * weights
    assert {engine.sidecar.status for engine in sizes} == {"not proved"}
    assert {engine.sidecar.proof for engine in sizes} == {None}


@needs_rtx
def test_shapes_and_batch_reach_the_engine(own_files: tuple[Path, Path], tmp_path: Path) -> None:
    shapes = Shapes({}, {}, {"point_coords": (4, 2, 2), "point_labels": (4, 2), "mask_input": (4, 1, 256, 256)})
    made = plan(own_files, "tensorrt-rtx", tmp_path, precision="fp32", shapes=shapes, batch=4)
    encoder, decoder = made.jobs
    assert encoder.profile["image"].max == (4, 3, 128, 128)
    assert decoder.profile["point_coords"].max == (4, 2, 2)
    assert decoder.profile["point_coords"].opt == (4, 2, 2)
    most = "--max-shapes point_coords:4x2x2,point_labels:4x2,mask_input:4x1x256x256"
    assert f" --fp32 {most} --batch 4 -o {tmp_path} --backend tensorrt-rtx --force" in decoder.rebuild


def refused(tmp_path: Path, change: Callable[[onnx.ModelProto], object], source: Path) -> ModelError:
    model = onnx.load(source)
    change(model)
    path = tmp_path / "refused.onnx"
    onnx.save(model, path)
    with pytest.raises(ModelError) as caught:
        builder.build_tensorrt(path, "tensorrt-rtx", {}, BuildSettings())
    return caught.value


@needs_rtx
def test_what_the_parser_refuses(own_files: tuple[Path, Path], tmp_path: Path) -> None:
    """The message has the node, and the parser's own words and line."""

    def unknown_operator(model: onnx.ModelProto) -> None:
        model.graph.node[1].op_type, model.graph.node[1].name = "Frobnicate", "the middle"
        model.graph.node[1].domain = "odd"
        model.opset_import.append(onnx.helper.make_opsetid("odd", 1))

    error = refused(tmp_path, unknown_operator, own_files[0])
    assert "parser does not take refused.onnx: node 1 the middle (Frobnicate)" in str(error)
    assert "(line " in str(error)
    assert "--backend onnxruntime" in (error.hint or "")


@needs_rtx
@pytest.mark.parametrize(
    ("lines", "words"),
    [
        (["IBuilder::buildSerializedNetwork: Error Code 2: OutOfMemory (no memory)"], "not enough memory to build"),
        (["Error Code 10: could not find any implementation for node"], "cannot build encoder.onnx: Error Code 10"),
    ],
)
def test_a_builder_that_gives_up(
    own_files: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lines: list[str], words: str
) -> None:
    """TensorRT logs why, and Polygraphy then only says that the engine is invalid."""
    from polygraphy.logger import G_LOGGER

    real = builder._polygraphy("tensorrt-rtx")

    class Failing:
        Profile, network_from_onnx_path = real.Profile, real.network_from_onnx_path

        @staticmethod
        def engine_bytes_from_network(*_: Any, **__: Any) -> None:
            for line in lines:
                G_LOGGER.error(line)
            G_LOGGER.critical("Invalid Engine. Please ensure the engine was built correctly")

    monkeypatch.setattr(builder, "_polygraphy", lambda flavour: Failing)
    made = plan(own_files[:1], "tensorrt-rtx", tmp_path, precision="fp32")
    with pytest.raises(BackendError, match=words):
        built(made)
    assert not list(tmp_path.iterdir())


class Recorder:
    """Polygraphy's TensorRT backend, as far as it notes down what it is told."""

    def __init__(self) -> None:
        self.profile: dict[str, dict[str, Any]] = {}
        self.options: dict[str, Any] = {}
        self.saved_to: str | None = None

    def Profile(self) -> Any:
        return SimpleNamespace(add=lambda name, **sides: self.profile.update({name: sides}))

    def network_from_onnx_path(self, path: str, *, strongly_typed: bool) -> Any:
        assert strongly_typed
        return None, SimpleNamespace(num_layers=0), None

    def CreateConfig(self, **options: Any) -> None:
        self.options = options

    def engine_bytes_from_network(self, network: Any, config: Any, save_timing_cache: str | None) -> bytes:
        self.saved_to = save_timing_cache
        Path(save_timing_cache or "/dev/null").write_bytes(b"times")
        return b"engine"


def test_what_tensorrt_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Shapes, workspace, level, and the timing cache: read where there is one, written each time."""
    recorder = Recorder()
    pool = SimpleNamespace(WORKSPACE="workspace")
    monkeypatch.setattr(builder, "_polygraphy", lambda flavour: recorder)
    modules = {"tensorrt": SimpleNamespace(MemoryPoolType=pool), "polygraphy.backend.trt": recorder}
    monkeypatch.setattr(builder, "import_module", modules.__getitem__)
    monkeypatch.setenv("NANOSAM_HOME", str(tmp_path))
    cache = timing_cache(EngineTarget("tensorrt", "10.3.0", "Linux aarch64", "NVIDIA Jetson Orin"))
    assert cache == tmp_path / "timing-caches" / "nvidia-jetson-orin-tensorrt-10.3.0.cache"
    shapes = {"point_coords": ShapeRange((1, 2, 2), (8, 2, 2), (64, 16, 2))}
    expected: dict[str, Any] = {"builder_optimization_level": 5, "memory_pool_limits": {"workspace": 3 * 2**20}}
    for settings, options in (
        (BuildSettings(timing_cache=cache), {}),
        (BuildSettings(3, 5, cache), {**expected, "load_timing_cache": str(cache)}),
    ):
        assert builder.build_tensorrt(tmp_path / "decoder.onnx", "tensorrt", shapes, settings).engine == b"engine"
        assert recorder.profile == {"point_coords": {"min": (1, 2, 2), "opt": (8, 2, 2), "max": (64, 16, 2)}}
        assert len(recorder.options.pop("profiles")) == 1
        assert recorder.options == options
        assert recorder.saved_to == str(cache)


def test_a_timing_cache_is_checked_where_there_will_be_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("NANOSAM_HOME", str(tmp_path / "file"))
    tensorrt, rtx = (EngineTarget(backend, "10.3.0", "Linux x86_64", None) for backend in ("tensorrt", "tensorrt-rtx"))
    assert timing_cache(tensorrt).parent == tmp_path / "file" / "timing-caches"  # names a place, whatever is there
    check_timing_cache(rtx)
    with pytest.raises(OutputError, match="is not a directory"):
        check_timing_cache(tensorrt)


@needs_rtx
def test_one_process_builds_one_flavour() -> None:
    builder._polygraphy("tensorrt-rtx")
    with pytest.raises(BackendError, match="this process has built with tensorrt-rtx already"):
        builder._polygraphy("tensorrt")


def test_polygraphy_prints_nothing(capfd: pytest.CaptureFixture[str]) -> None:
    from polygraphy.logger import G_LOGGER

    with polygraphy_errors() as lines:
        G_LOGGER.warning("mind")
        G_LOGGER.error("this went wrong")
    assert lines == ["this went wrong"]

    def give_up() -> None:
        with polygraphy_errors():
            G_LOGGER.error("this went wrong")
            G_LOGGER.critical("and so that is the end")

    with pytest.raises(BackendError, match="this went wrong; and so that is the end"):
        give_up()
    assert capfd.readouterr() == ("", "")


def wrong_precision(*_: Any) -> Any:
    return Compiled(b"engine", "fp32", {"float32": 5}, 0.1)


def test_a_precision_that_is_not_what_was_built(
    own_files: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One public project shipped fp32 engines as fp16: what counts is what the layers are."""
    made = plan(own_files[:1], "onnxruntime", tmp_path, precision="int8")
    monkeypatch.setattr(compile_module, "_onnx_types", lambda model: {"float32": 5})
    with pytest.raises(BackendError, match=r"onnxruntime built encoder\.onnx in fp32, not in int8"):
        built(made)
    assert not list(tmp_path.iterdir())


def test_an_engine_that_fails_on_the_gpu_climbs_on(
    own_files: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the engine can be run, its own run decides, and the ladder goes on from there."""
    target = replace(choose("onnxruntime").target, backend="tensorrt", gpu="Orin", compute_capabilities=("8.7",))
    chosen = Chosen(target, "asked for", runs_here=True)
    asked = BuildRequest(output=tmp_path, precision="fp16")
    made = plan_files([own_files[0]], chosen, asked, model=None, originals={"decoder": own_files[1]})

    def compiled(job: Any, backend: str, step: Any, settings: Any) -> Compiled:
        return Compiled(f"{step.precision} {len(step.keep)}".encode(), step.precision, {}, 1.0)

    ran = []

    def run(self: Any, compiled: Compiled, steps: Any) -> Any:
        ran.append(compiled.data.decode())
        proof = replace(steps[-1].proof, method="run")
        return proof if compiled.precision == "bf16" else replace(proof, mean_iou=0.5)

    monkeypatch.setattr(build_module, "compile_step", compiled)
    monkeypatch.setattr(build_module._Builder, "_run", run)
    [engine] = built(made)
    assert ran[0] == "fp16 0"
    assert ran[-1] == "bf16 0"
    assert engine.sidecar.precision_asked == "fp16"
    assert engine.sidecar.precision_built == "bf16"
    assert engine.sidecar.status == "proved by running"
    assert [row["passed"] for row in engine.sidecar.ladder[-2:]] == [True, True]
    assert engine.sidecar.ladder[1]["name"] == "all in fp16, the engine itself"
    assert engine.sidecar.ladder[1]["faults"] == ["mean mask IoU 0.5000 is below 0.98"]


def test_where_nothing_passes_no_engine_is_kept(own_files: tuple[Path, Path], tmp_path: Path) -> None:
    impossible = replace(SETTINGS, thresholds=Thresholds(mean_iou=1.5))
    with pytest.raises(ModelError, match=r"no version of encoder\.onnx passes its proof .* is below 1\.5"):
        built(plan(own_files, "onnxruntime", tmp_path, precision="fp32"), impossible)
    assert not list(tmp_path.iterdir())


_KILLED = """
import os, signal, sys
from pathlib import Path
import nanosam_cli.core.engine.build as build_module
from nanosam_cli.core.{module} import {name} as original
def killed(*arguments, **options):
    {before}
    os.kill(os.getpid(), signal.SIGKILL)
build_module.{name} = killed
from nanosam_cli.app import main
sys.argv = ["nanosam", *{arguments!r}]
main()
"""


@pytest.mark.parametrize("moment", ["compile", "write"])
def test_kill_in_the_middle_leaves_no_half_engine(own_files: tuple[Path, Path], tmp_path: Path, moment: str) -> None:
    """While it builds, and between side-car and engine."""
    photos = tmp_path / "photos"
    photos.mkdir()
    Image.fromarray(PHOTOS[0].image).save(photos / "noise.png")
    out = tmp_path / "out"
    line = ["build-engine", str(own_files[0]), "--fp32", "--backend", "onnxruntime", "-o", str(out)]
    arguments = [*line, "--validate", str(photos)]
    fields = {"module": "engine.compile", "name": "compile_step", "before": "original(*arguments, **options)"}
    if moment == "write":
        fields = {"module": "inference.sidecar", "name": "sidecar_path", "before": "Path(original(*arguments)).touch()"}
    program = _KILLED.format(arguments=arguments, **fields)
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, check=False)
    assert done.returncode == -signal.SIGKILL, done.stderr
    engine = out / "encoder.onnxruntime.onnx"
    assert not engine.exists()
    if moment == "write":
        assert sidecar_path(engine).exists()
        with pytest.raises(ModelError):
            read_sidecar(engine)
    # the same command then does its work; what the kill left is not in its way
    again = run_nanosam(*arguments, "--force")
    assert again.code == 0, again.err
    assert read_sidecar(engine).status == "proved by running"
