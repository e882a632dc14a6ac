from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from nanosam_cli.core.errors import InputError
from nanosam_cli.core.graphs.half_emulate import emulate_half
from nanosam_cli.core.graphs.half_plan import FP16
from nanosam_cli.core.inference.backends.onnxruntime import OnnxSession, open_file
from nanosam_cli.core.precision.agreement import Thresholds
from nanosam_cli.core.precision.photos import ProofPhoto, example_proof_photos, photos_of, spread
from nanosam_cli.core.precision.prover import Prover
from nanosam_cli.core.types import Prompt
from nanosam_cli.core.zoo.models import DEFAULT_MODEL, find_model

RANDOM = np.random.default_rng(0)
PHOTOS = [
    ProofPhoto(
        f"{number}.png",
        RANDOM.integers(0, 256, (60, 80, 3), np.uint8),
        Prompt.from_boxes([[5, 5, 40, 30], [20, 10, 75, 55]]),
    )
    for number in range(2)
]


@pytest.fixture
def sessions(own_files: tuple[Path, Path]) -> Iterator[tuple[OnnxSession, OnnxSession]]:
    with closing(open_file(own_files[0], "cpu", 1)) as encoder, closing(open_file(own_files[1], "cpu", 1)) as decoder:
        yield encoder, decoder


def prover(encoder: OnnxSession, decoder: OnnxSession | None, photos: list[ProofPhoto] = PHOTOS) -> Prover:
    return Prover(encoder, decoder, photos, Thresholds(), find_model(DEFAULT_MODEL))


def changed(path: Path, folder: Path, kind: str, value: float) -> OnnxSession:
    """A file whose first output went through `kind` with a number."""
    model = onnx.load(path)
    name = model.graph.output[-1].name
    for node in model.graph.node:
        node.output[:] = [f"{out}_before" if out == name else out for out in node.output]
    model.graph.initializer.append(numpy_helper.from_array(np.array(value, np.float32), "changed"))
    model.graph.node.append(helper.make_node(kind, [f"{name}_before", "changed"], [name]))
    onnx.save(model, folder / "changed.onnx")
    return open_file(folder / "changed.onnx", "cpu", 1)


def test_the_original_beside_itself(sessions: tuple[OnnxSession, OnnxSession]) -> None:
    encoder, decoder = sessions
    whole = prover(encoder, decoder)
    for part, session in (("encoder", encoder), ("decoder", decoder)):
        proof = whole.prove(part, session, "run")
        assert proof.passed
        assert (proof.mean_iou, proof.worst_iou, proof.prompts, proof.photos) == (1.0, 1.0, 4, 2)
        assert all(error.max_error == 0 and error.cosine > 1 - 1e-6 for error in proof.outputs)
        assert {error.output for error in proof.outputs} == {output.name for output in session.outputs}


def test_a_decoder_whose_masks_shrink(sessions: tuple[OnnxSession, OnnxSession], tmp_path: Path) -> None:
    """Mask 0 is a box's; logits less 120 leave it smaller by 120 frame pixels on each side."""
    encoder, decoder = sessions
    with closing(changed(decoder.path, tmp_path, "Sub", 120)) as session:
        proof = prover(encoder, decoder).prove("decoder", session, "run")
    assert proof.worst_iou is not None
    assert proof.mean_iou is not None
    assert 0 < proof.worst_iou < proof.mean_iou < 0.8
    assert proof.worst_prompt == "0.png, box 0"
    masks = next(error for error in proof.outputs if error.output == "low_res_masks")
    assert (masks.max_error, masks.mean_error) == pytest.approx((120, 120))
    assert len(proof.faults()) == 2


def test_an_encoder_is_proved_without_masks_where_there_is_no_decoder(
    sessions: tuple[OnnxSession, OnnxSession], tmp_path: Path
) -> None:
    encoder, _ = sessions
    with closing(changed(encoder.path, tmp_path, "Add", 5)) as session:
        proof = prover(encoder, None).prove("encoder", session, "run")
    assert proof.mean_iou is None
    assert proof.prompts == 0
    assert "image_embeddings has cosine" in proof.faults()[0]


@pytest.mark.parametrize("value", [np.inf, np.nan])
def test_numbers_that_are_not_finite(sessions: tuple[OnnxSession, OnnxSession], tmp_path: Path, value: float) -> None:
    """A pipeline of NaN makes no masks; the proof says so instead of failing itself."""
    encoder, decoder = sessions
    with closing(changed(encoder.path, tmp_path, "Add", value)) as session:
        proof = prover(encoder, decoder).prove("encoder", session, "run")
    assert proof.outputs[0].not_finite == 2 * 256 * 64 * 64
    assert proof.mean_iou == 0
    assert not proof.passed


def test_a_decoder_is_proved_behind_the_encoder_that_was_proved_last(
    sessions: tuple[OnnxSession, OnnxSession], tmp_path: Path
) -> None:
    """Its predicted IoU is that of mask k plus the embedding's mean, so a shifted embedding changes nothing here."""
    encoder, decoder = sessions
    whole = prover(encoder, decoder)
    with closing(changed(encoder.path, tmp_path, "Add", 0.25)) as session:
        assert whole.prove("encoder", session, "run").passed
    assert whole.prove("decoder", decoder, "run").mean_iou == 1


def test_where_half_overflows_is_found(sessions: tuple[OnnxSession, OnnxSession], tmp_path: Path) -> None:
    """Of an emulation; the same file run as it is shows nothing."""
    encoder, decoder = sessions
    with closing(changed(encoder.path, tmp_path, "Mul", 40_000)) as loud:
        whole = prover(loud, decoder)
        emulation = emulate_half(onnx.load(loud.path), FP16)
        onnx.save(emulation.model, tmp_path / "emulation.onnx")
        with closing(open_file(tmp_path / "emulation.onnx", "cpu", 1)) as session:
            proof = whole.prove("encoder", session, "emulated", emulation)
    assert proof.method == "emulated"
    assert [overflow.place for overflow in proof.overflows] == ["image_embeddings"]
    assert proof.overflows[0].largest > 65504
    assert "1 place(s) overflow" in proof.faults()[1]


def test_narrowed_looks_at_fewer_photos_more_strictly(sessions: tuple[OnnxSession, OnnxSession]) -> None:
    proof = prover(*sessions).narrowed(1).prove("encoder", sessions[0], "run")
    assert proof.photos == 1
    assert proof.thresholds == Thresholds().stricter()


def test_a_decoder_of_one_prompt(nvidia_files: tuple[Path, Path]) -> None:
    """NVIDIA's files take one prompt a call."""
    encoder, decoder = (open_file(file, "cpu", 1) for file in nvidia_files)
    with closing(encoder), closing(decoder):
        proof = prover(encoder, decoder, PHOTOS[:1]).prove("decoder", decoder, "run")
    assert proof.passed
    assert proof.prompts == 2


def test_the_example_photos_have_their_objects_boxes() -> None:
    photos = {photo.name: photo for photo in example_proof_photos()}
    boxes = photos["cat.jpg"].prompts.boxes
    assert boxes is not None
    assert boxes[0].tolist() == [0, 0, 399, 300]
    assert len(boxes) == 1 + 9  # and a grid
    height, width = photos["cat.jpg"].image.shape[:2]
    assert (boxes[1:] >= 0).all()
    assert (boxes[1:, 2:] <= (width, height)).all()


def test_photos_of_a_folder(tmp_path: Path) -> None:
    from PIL import Image

    with pytest.raises(InputError, match="no such directory"):
        photos_of(tmp_path / "none")
    with pytest.raises(InputError):
        photos_of(tmp_path)  # there are none in it
    for number in range(5):
        Image.new("RGB", (40, 30), (number, 0, 0)).save(tmp_path / f"{number}.png")
    assert [photo.name for photo in photos_of(tmp_path, most=3)] == ["0.png", "1.png", "3.png"]


@pytest.mark.parametrize(("count", "most", "places"), [(3, 5, [0, 1, 2]), (10, 4, [0, 2, 5, 7]), (10, 1, [0])])
def test_spread(count: int, most: int, places: list[int]) -> None:
    assert spread([Path(str(n)) for n in range(count)], most) == [Path(str(n)) for n in places]
