"""Engine sessions on a TensorRT and a CUDA that only pretend; see `tests/fake_tensorrt.py`."""

from __future__ import annotations

import gc
import importlib.util
import platform
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from nanosam_cli.core.errors import BackendError, ModelError
from nanosam_cli.core.inference.backends.tensorrt import compatibility, session
from nanosam_cli.core.inference.backends.tensorrt.cuda import Cuda, DeviceTensor
from nanosam_cli.core.inference.backends.tensorrt.flavour import Installed
from nanosam_cli.core.inference.predictor import Predictor
from nanosam_cli.core.inference.session import Session, TensorInfo, host, open_session
from nanosam_cli.core.inference.sidecar import EngineTarget, ShapeRange, SideCar, sidecar_path
from nanosam_cli.core.system.machine import Gpu
from nanosam_cli.core.types import Prompt
from tests.fake_tensorrt import VERSION, Arrays, FakeCudaRuntime, Program, engine_bytes, fake_tensorrt

Array = NDArray[np.float32]
REBUILD = "nanosam build-engine small --fp16 --backend tensorrt --force"


def encode(inputs: Arrays) -> Arrays:
    """Colour k of the small picture in channels k, k + 3, ..."""
    small = inputs["image"].reshape(-1, 3, 64, 2, 64, 2).mean(axis=(3, 5))
    return {"image_embeddings": np.tile(small, (1, 86, 1, 1))[:, :256].astype(np.float32)}


def decode(inputs: Arrays) -> Arrays:
    """One mask for each prompt: inside of the box that its points span."""
    corners = inputs["point_coords"]
    cells = (np.arange(256, dtype=np.float32) + 0.5) * 4
    low, high = corners.min(axis=1), corners.max(axis=1)  # (P, 2)
    across = np.minimum(cells - low[:, :1], high[:, :1] - cells)
    down = np.minimum(cells - low[:, 1:], high[:, 1:] - cells)
    masks = np.minimum(across[:, None, None, :], down[:, None, :, None])
    ious = np.full((len(corners), 1), inputs["image_embeddings"].mean(), np.float32)
    return {"iou_predictions": ious, "low_res_masks": masks.astype(np.float32)}


PROGRAMS = {
    "encoder": Program(lambda shapes: {"image_embeddings": (shapes["image"][0], 256, 64, 64)}, encode),
    "decoder": Program(
        lambda shapes: {
            "iou_predictions": (shapes["point_coords"][0], 1),
            "low_res_masks": (shapes["point_coords"][0], 1, 256, 256),
        },
        decode,
    ),
}
INPUTS = {
    "encoder": {"image": ((None, 3, 128, 128), ShapeRange((1, 3, 128, 128), (1, 3, 128, 128), (2, 3, 128, 128)))},
    "decoder": {
        "image_embeddings": ((1, 256, 64, 64), ShapeRange((1, 256, 64, 64), (1, 256, 64, 64), (1, 256, 64, 64))),
        "point_coords": ((None, None, 2), ShapeRange((1, 2, 2), (8, 2, 2), (64, 16, 2))),
        "point_labels": ((None, None), ShapeRange((1, 2), (8, 2), (64, 16))),
        "mask_input": ((None, 1, 256, 256), ShapeRange((1, 1, 256, 256), (8, 1, 256, 256), (64, 1, 256, 256))),
        "has_mask_input": ((None,), ShapeRange((1,), (8,), (64,))),
    },
}
OUTPUTS = {
    "encoder": {"image_embeddings": (None, 256, 64, 64)},
    "decoder": {"iou_predictions": (None, 1), "low_res_masks": (None, 1, 256, 256)},
}


def sidecar(part: str) -> SideCar:
    data = engine_bytes(part)
    return SideCar(
        engine=f"{part}.engine",
        engine_sha256=sha256(data).hexdigest(),
        engine_bytes=len(data),
        onnx=f"{part}.onnx",
        onnx_sha256=sha256(b"onnx").hexdigest(),
        part=part,
        target=EngineTarget("tensorrt", VERSION, f"{platform.system()} {platform.machine()}", "Orin", ("8.7",)),
        precision_asked="fp16",
        precision_built="fp16",
        status="proved by running",
        inputs=tuple(TensorInfo(name, shape, "float32") for name, (shape, _) in INPUTS[part].items()),
        outputs=tuple(TensorInfo(name, shape, "float32") for name, shape in OUTPUTS[part].items()),
        metadata={"nanosam.model": "small"},
        rebuild=REBUILD,
        shapes={name: shape for name, (_, shape) in INPUTS[part].items()},
    )


def save(folder: Path, part: str, change: Callable[[SideCar], SideCar] = lambda same: same) -> Path:
    path = folder / f"{part}.engine"
    path.write_bytes(engine_bytes(part))
    sidecar_path(path).write_text(change(sidecar(part)).text(), encoding="utf-8")
    return path


@pytest.fixture
def cuda(monkeypatch: pytest.MonkeyPatch) -> FakeCudaRuntime:
    runtime = FakeCudaRuntime()
    pretend(monkeypatch, runtime)
    return runtime


def pretend(
    monkeypatch: pytest.MonkeyPatch, runtime: FakeCudaRuntime, *, loads: bool = True, gpu: Gpu | None = None
) -> None:
    """This machine has a Jetson's GPU and TensorRT."""
    module = fake_tensorrt(PROGRAMS, runtime, loads=loads)
    monkeypatch.setattr(compatibility, "installed", lambda name: Installed(name, module, module.__version__))
    monkeypatch.setattr(compatibility, "gpu_here", lambda: gpu or Cuda(runtime).gpu())
    monkeypatch.setattr(session.Cuda, "load", lambda: Cuda(runtime))


@pytest.fixture
def encoder(cuda: FakeCudaRuntime, tmp_path: Path) -> Iterator[Session]:
    opened = open_session(save(tmp_path, "encoder"))
    yield opened
    opened.close()


@pytest.fixture
def decoder(cuda: FakeCudaRuntime, tmp_path: Path) -> Iterator[Session]:
    opened = open_session(save(tmp_path, "decoder"))
    yield opened
    opened.close()


def prompts(count: int, points: int = 2, seed: int = 0) -> dict[str, Any]:
    random = np.random.default_rng(seed)
    return {
        "image_embeddings": random.standard_normal((1, 256, 64, 64), np.float32),
        "point_coords": random.uniform(0, 1024, (count, points, 2)).astype(np.float32),
        "point_labels": np.full((count, points), 2, np.float32),
        "mask_input": np.zeros((count, 1, 256, 256), np.float32),
        "has_mask_input": np.zeros(count, np.float32),
    }


def check_masks(found: Any, feeds: dict[str, Any]) -> None:
    expected = decode(feeds)
    for name, array in expected.items():
        np.testing.assert_array_equal(found[name], array)


def test_a_session_describes_itself(encoder: Session) -> None:
    assert encoder.backend == f"tensorrt {VERSION}, Orin, fp16"
    assert encoder.metadata == {"nanosam.model": "small", "nanosam.precision": "fp16"}
    assert encoder.inputs == (TensorInfo("image", (None, 3, 128, 128), "float32"),)


def test_the_whole_pipeline(encoder: Session, decoder: Session, cuda: FakeCudaRuntime) -> None:
    """The predictor that users run; between encoder and decoder the embedding never leaves the device."""
    predictor = Predictor(encoder, decoder)
    image = np.random.default_rng(0).integers(0, 256, (128, 128, 3), np.uint8)
    embedding = predictor.encode_image(image)
    assert isinstance(embedding.features, DeviceTensor)
    copies: list[str] = []
    original = cuda.cudaMemcpyAsync

    def watched(target: int, source: int, size: int, kind: str, stream: int) -> tuple[Any, ...]:
        if size == 256 * 64 * 64 * 4:
            copies.append(kind)
        return original(target, source, size, kind, stream)

    cuda.cudaMemcpyAsync = watched  # type: ignore[method-assign]
    [found] = predictor.predict(embedding, Prompt.from_boxes([[16, 32, 80, 96]]))
    assert copies == ["on device"]
    assert found.bbox == (16, 32, 64, 64)
    assert embedding.numpy().shape == (1, 256, 64, 64)
    assert found.predicted_iou == pytest.approx(float(embedding.numpy().mean()), abs=1e-5)


def test_embeddings_belong_to_their_holder(encoder: Session) -> None:
    """Neither a later run nor closing the session changes one."""
    random = np.random.default_rng(0)
    images = [random.standard_normal((1, 3, 128, 128), np.float32) for _ in range(4)]
    embeddings = [encoder.run({"image": image})["image_embeddings"] for image in images]
    encoder.close()
    for image, embedding in zip(images, embeddings):
        np.testing.assert_array_equal(host(embedding), encode({"image": image})["image_embeddings"])


def test_arrays_belong_to_the_caller(decoder: Session) -> None:
    feeds = [prompts(3, seed=seed) for seed in range(4)]
    found = [decoder.run(feed) for feed in feeds]
    decoder.close()
    for feed, outputs in zip(feeds, found):
        check_masks(outputs, feed)
        host(outputs["low_res_masks"])[...] = 0  # and may be written


def test_shapes_that_repeat_are_recorded_once_and_launched(decoder: Session, cuda: FakeCudaRuntime) -> None:
    for seed in range(5):
        feeds = prompts(2, seed=seed)
        check_masks(decoder.run(feeds), feeds)
    assert cuda.launches == 3  # the first allocates, the second records
    assert len(cuda.graphs) == 1


def test_other_shapes_do_not_meet_an_old_graph(decoder: Session, cuda: FakeCudaRuntime) -> None:
    """A graph holds addresses and sizes of its own shapes."""
    for count, points in ((1, 2), (1, 2), (1, 2), (64, 16), (1, 2), (2, 3), (2, 3), (2, 3), (1, 2)):
        feeds = prompts(count, points, seed=count)
        check_masks(decoder.run(feeds), feeds)
    assert len(cuda.graphs) <= 1


def test_an_engine_that_cannot_be_recorded_runs_all_the_same(
    decoder: Session, cuda: FakeCudaRuntime, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(graph: object, flags: int) -> tuple[Any, ...]:
        return 901, None

    monkeypatch.setattr(cuda, "cudaGraphInstantiate", fails)
    for seed in range(4):
        feeds = prompts(2, seed=seed)
        check_masks(decoder.run(feeds), feeds)
    assert cuda.launches == 0


def test_threads_have_contexts_of_their_own(decoder: Session) -> None:
    def work(seed: int) -> None:
        for turn in range(6):
            feeds = prompts(1 + (seed + turn // 3) % 3, seed=seed)
            check_masks(decoder.run(feeds), feeds)

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(work, range(8)))  # raises what a thread has raised


def test_everything_is_given_back(cuda: FakeCudaRuntime, tmp_path: Path) -> None:
    opened = open_session(save(tmp_path, "encoder"))
    embedding = opened.run({"image": np.zeros((2, 3, 128, 128), np.float32)})["image_embeddings"]
    opened.close()
    assert len(cuda.memory) == 1  # the caller's
    del embedding
    gc.collect()
    assert not cuda.memory
    assert not cuda.streams
    assert not cuda.graphs
    with pytest.raises(ModelError, match=r"encoder\.engine was closed"):
        opened.run({"image": np.zeros((1, 3, 128, 128), np.float32)})


@pytest.mark.parametrize(
    ("feeds", "words", "wider"),
    [
        (prompts(65), r"takes point_coords from 1x2x2 to 64x16x2, not 65x2x2", "--max-shapes point_coords:65x16x2"),
        (prompts(1, points=17), "not 1x17x2", "--max-shapes point_coords:64x17x2"),
        (prompts(1, points=1), "not 1x1x2", "--min-shapes point_coords:1x1x2"),
        ({**prompts(1), "has_mask_input": np.zeros((1, 1), np.float32)}, r"takes has_mask_input \(any\) float32", None),
        ({"image": np.zeros((1, 3, 128, 128), np.float32)}, "takes inputs has_mask_input, image_embeddings", None),
    ],
    ids=["prompts", "points", "one point", "rank", "names"],
)
def test_feeds_that_do_not_fit(decoder: Session, feeds: dict[str, Any], words: str, wider: str | None) -> None:
    """The hint widens what the engine was built for, in every input, and narrows nothing."""
    with pytest.raises(ModelError, match=words) as caught:
        decoder.run(feeds)
    if wider:
        assert caught.value.hint
        before, hint = caught.value.hint.split(REBUILD)
        assert not before
        assert hint.startswith(f" {wider},point_labels:")
        assert "image_embeddings" not in hint


def test_gpu_memory_that_is_not_enough(decoder: Session, cuda: FakeCudaRuntime) -> None:
    cuda.room = 2**20
    with pytest.raises(BackendError, match="the GPU is out of memory"):
        decoder.run(prompts(64))
    cuda.room = 2**40
    feeds = prompts(2)
    check_masks(decoder.run(feeds), feeds)


def built_for(**target: Any) -> Callable[[SideCar], SideCar]:
    return lambda entry: replace(entry, target=replace(entry.target, **target))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (built_for(backend="tensorrt-rtx"), "was built for tensorrt-rtx, not tensorrt"),
        (built_for(version="10.13.0"), r"was built for tensorrt version 10\.13\.0, this is 10\.3\.0"),
        (built_for(platform="Windows AMD64"), "was built for tensorrt platform Windows AMD64, this is"),
        (built_for(gpu="NVIDIA T4"), "was built on NVIDIA T4, this is Orin"),
        (built_for(compute_capabilities=("7.5",)), r"was built for compute capability 7\.5; Orin has 8\.7"),
        (lambda entry: replace(entry, engine_sha256="0" * 64), "is not the file that"),
    ],
)
def test_an_engine_for_something_else_is_refused(
    cuda: FakeCudaRuntime, tmp_path: Path, change: Callable[[SideCar], SideCar], words: str
) -> None:
    with pytest.raises(ModelError, match=words) as caught:
        open_session(save(tmp_path, "encoder", change))
    assert caught.value.hint in (REBUILD, "--backend tensorrt-rtx")


def test_an_engine_of_another_onnx_file_is_refused(cuda: FakeCudaRuntime, tmp_path: Path) -> None:
    path = save(tmp_path, "encoder")
    (tmp_path / "encoder.onnx").write_bytes(b"onnx")
    open_session(path).close()
    (tmp_path / "encoder.onnx").write_bytes(b"trained again")
    with pytest.raises(ModelError, match=r"built from another encoder\.onnx than") as caught:
        open_session(path)
    assert caught.value.hint == REBUILD


def test_an_rtx_engine_runs_on_a_range_of_cards(
    cuda: FakeCudaRuntime, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = save(tmp_path, "encoder", built_for(backend="tensorrt-rtx", gpu=None, compute_capabilities=("8.6", "8.9")))
    path = path.rename(path.with_suffix(".rtx"))
    with pytest.raises(ModelError, match=r"was built for compute capability 8\.6, 8\.9; Orin has 8\.7") as caught:
        open_session(path)
    assert caught.value.hint == "--backend tensorrt, or --backend onnxruntime"
    cuda.name, cuda.capability = "RTX 4090", (8, 9)
    opened = open_session(path)
    assert opened.backend == f"tensorrt-rtx {VERSION}, RTX 4090, fp16"
    for _ in range(3):
        opened.run({"image": np.zeros((1, 3, 128, 128), np.float32)})
    assert cuda.launches == 0  # RTX records by itself
    assert cuda.contexts[-1].config.cuda_graph_strategy == "whole graph"


def test_an_engine_that_does_not_deserialise(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """TensorRT gives None, and raises nothing."""
    pretend(monkeypatch, FakeCudaRuntime(), loads=False)
    with pytest.raises(
        BackendError, match=r"tensorrt 10\.3\.0 does not load engine .*encoder\.engine on Orin"
    ) as caught:
        open_session(save(tmp_path, "encoder"))
    assert REBUILD in (caught.value.hint or "")


def test_no_gpu(tmp_path: Path, cuda: FakeCudaRuntime, monkeypatch: pytest.MonkeyPatch) -> None:
    path = save(tmp_path, "encoder")
    with pytest.raises(BackendError, match="runs on a GPU, not on device cpu"):
        open_session(path, device="cpu")
    monkeypatch.setattr(compatibility, "gpu_here", lambda: None)
    with pytest.raises(BackendError, match="needs an NVIDIA GPU, and there is none here"):
        open_session(path)


def test_no_tensorrt(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if importlib.util.find_spec("tensorrt"):
        pytest.skip("TensorRT is installed")
    with pytest.raises(BackendError, match="tensorrt is not installed") as caught:
        open_session(save(tmp_path, "encoder"))
    assert caught.value.hint == "pip install 'nanosam-cli[tensorrt]'"
