"""A model as AnyLabeling and X-AnyLabeling load it: two files and `config.yaml`, proved as these tools use them."""

from __future__ import annotations

import json
from contextlib import ExitStack, closing
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from PIL import Image

from nanosam_cli.core.errors import ModelError
from nanosam_cli.core.export.contract_files import check_free, read_model
from nanosam_cli.core.export.contract_proof import ContractProver, Original, no_mask_feeds
from nanosam_cli.core.frame import Array
from nanosam_cli.core.graphs.anylabeling import anylabeling_decoder, anylabeling_encoder
from nanosam_cli.core.graphs.graph import metadata_of, set_metadata
from nanosam_cli.core.inference.backends.onnxruntime import open_file
from nanosam_cli.core.inference.contract import encoder_image_size
from nanosam_cli.core.inference.predictor import Predictor
from nanosam_cli.core.inference.session import Session, host
from nanosam_cli.core.masks import Mask
from nanosam_cli.core.messages import Note
from nanosam_cli.core.precision.agreement import MaskAgreement, Thresholds
from nanosam_cli.core.precision.photos import ProofPhoto, example_object_photos
from nanosam_cli.core.system.files import atomic_write, file_sha256, write_text
from nanosam_cli.core.types import DECODER, ENCODER, Prompt

PICTURE_HW = (684, 1024)  # what both tools draw a photo into, top left
_CONFIG = "config.yaml"
# The tool resizes to its picture without smoothing, and the file from there to the model's size
_LIMITS = Thresholds(mean_iou=0.985, worst_iou=0.95)


@dataclass(frozen=True)
class ForAnyLabeling:
    """What was written, and how far its masks are from the original's."""

    config: Path
    files: tuple[Path, Path]
    bytes: int
    mask_iou: MaskAgreement

    def record(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {
            "config": str(self.config),
            "files": [str(path) for path in self.files],
            "bytes": self.bytes,
            "mask_iou": asdict(self.mask_iou),
        }


def export_anylabeling(
    original: Original, folder: Path, *, overwrite: bool = False, note: Note = lambda _: None
) -> ForAnyLabeling:
    """Write `encoder.onnx`, `decoder.onnx` and `config.yaml` into `folder`.

    Raises:
        ModelError: a file is broken, or the pair does not give the original's masks; no file is kept.
        OutputError: a file exists already, or cannot be written.
    """
    config = folder / _CONFIG
    places = {part: folder / f"{part}.onnx" for part in (ENCODER, DECODER)}
    check_free(folder, (*places.values(), config), overwrite)
    with ExitStack() as opened:
        prover = ContractProver(original, opened)
        size = encoder_image_size(prover.sessions[ENCODER])
        encoder = anylabeling_encoder(read_model(original.files[ENCODER]), size, original.mean, original.std)
        models = {ENCODER: encoder, DECODER: anylabeling_decoder(read_model(original.files[DECODER]), size)}
        temporary = {}
        for part, model in models.items():
            set_metadata(model, contract="anylabeling", part=part, onnx_sha256=file_sha256(original.files[part]))
            temporary[part] = opened.enter_context(atomic_write(places[part], overwrite))
            onnx.save(model, temporary[part])
        note("proving both files as AnyLabeling uses them, on the example photos upright and turned")
        pair = [opened.enter_context(closing(open_file(temporary[part], "cpu", None))) for part in (ENCODER, DECODER)]
        agreement = _agreement(prover.predictor(), pair[0], pair[1])
        name = metadata_of(encoder).get("nanosam.model", original.files[ENCODER].stem)
        write_text(config, _config_text(name), overwrite)
    files = (places[ENCODER], places[DECODER])
    return ForAnyLabeling(config, files, sum(path.stat().st_size for path in files), agreement)


def _config_text(name: str) -> str:
    """The keys that both tools ask for; a JSON string is one of YAML's too."""
    height, width = PICTURE_HW
    values = {
        "type": "segment_anything",
        "name": name,
        "display_name": f"{name} (nanosam)",
        "encoder_model_path": "encoder.onnx",
        "decoder_model_path": "decoder.onnx",
        "input_size": width,
        "max_width": width,
        "max_height": height,
    }
    return "".join(f"{key}: {json.dumps(value)}\n" for key, value in values.items())


def _agreement(predictor: Predictor, encoder: Session, decoder: Session) -> MaskAgreement:
    """Masks of the example objects by the tools' way, against the original's; each photo upright and turned."""
    photos = [turned for photo in example_object_photos() for turned in (photo, _turned(photo))]
    found, wanted = [], []
    for photo in photos:
        found += _tool_masks(encoder, decoder, photo)
        embedding = predictor.encode_image(photo.image)
        wanted += [segmentation.mask for segmentation in predictor.predict(embedding, photo.prompts)]
    agreement = MaskAgreement.of(found, wanted, len(photos))
    if not agreement.reaches(_LIMITS):
        raise ModelError(
            f"the files give AnyLabeling other masks than the model's own: {agreement.figures}; at least "
            f"{_LIMITS.mean_iou:g} and {_LIMITS.worst_iou:g} are needed",
            "no file was kept; export another model",
        )
    return agreement


def _turned(photo: ProofPhoto) -> ProofPhoto:
    """Rows and columns change places."""
    assert photo.prompts.boxes is not None
    image = np.ascontiguousarray(photo.image.transpose(1, 0, 2))
    return ProofPhoto(photo.name, image, Prompt.from_boxes(photo.prompts.boxes[:, [1, 0, 3, 2]]))


def _tool_masks(encoder: Session, decoder: Session, photo: ProofPhoto) -> list[Mask]:
    """What `sam_onnx.py` of both tools does with boxes: an affine picture, a padding point, the mask drawn back."""
    height, width = photo.image.shape[:2]
    scale = min(PICTURE_HW[0] / height, PICTURE_HW[1] / width)
    picture = _scaled(Image.fromarray(photo.image), scale, PICTURE_HW)
    [embedding] = encoder.run({"input_image": picture}).values()
    found = []
    assert photo.prompts.boxes is not None
    for box in photo.prompts.boxes:
        coords = np.append(box * scale, [0, 0]).reshape(1, 3, 2).astype(np.float32)
        feeds = no_mask_feeds(host(embedding), coords, np.array([[2, 3, -1]], np.float32))
        masks = host(decoder.run({**feeds, "orig_im_size": np.array(PICTURE_HW, np.float32)})["masks"])
        found.append(np.asarray(_scaled(Image.fromarray(masks[0, 0]), 1 / scale, (height, width)) > 0))
    return found


def _scaled(image: Image.Image, scale: float, hw: tuple[int, int]) -> Array:
    """OpenCV's `warpAffine` with diag(scale, scale): the centre of pixel i lies at i * scale, and black beside it."""
    place = 0.5 - 0.5 / scale  # Pillow counts from the pixel's border
    matrix = (1 / scale, 0, place, 0, 1 / scale, place)
    warped = image.transform(hw[::-1], Image.Transform.AFFINE, matrix, Image.Resampling.BILINEAR)
    pixels: NDArray[Any] = np.asarray(warped)
    return pixels.astype(np.float32)
