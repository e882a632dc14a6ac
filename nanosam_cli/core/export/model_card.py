"""The model card that export writes beside each file: what it is, what it was made from, how far it can be trusted."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from textwrap import fill

from nanosam_cli.core.frame import SAM_MEAN, SAM_STD
from nanosam_cli.core.inference.session import TensorInfo
from nanosam_cli.core.types import DECODER, ENCODER

_WIDTH = 120


@dataclass(frozen=True)
class CardFacts:
    """Everything that a card says."""

    title: str
    kind: str  # ENCODER, DECODER, or both in one file
    file: str  # plain name
    sha256: str
    made_from: str
    source_sha256: str
    licence: str
    exporter: str
    precision: str
    image_size: int
    inputs: Sequence[TensorInfo]
    outputs: Sequence[TensorInfo]
    proof: Mapping[str, str]  # what was compared -> the figure
    remark: str  # what the proof does not show
    contract: str = "nanosam"
    proved: str = "Torch and ONNX Runtime on the CPU"  # what was compared


_CARD = """\
# {title}

{about}

## Proof

{said}

{proof}

## How to run it

{how}

{command}
"""
_PROOF = "{proved}, on made-up inputs and on the photos that come with nanosam. {remark}"

_PROMPTS = (
    "`point_labels`: 1 on the object, 0 beside it, 2 and 3 a box's top left and bottom right corner, -1 padding, which "
    "also stands for a box that is not given. Of a prompt's masks the first answers boxes, the others are readings of "
    "a single point."
)
_ENCODER = (
    "`image` is RGB, resized so that its longest side is {size}, normalised by {mean} and {std} (mean and deviation of "
    "values from 0 to 255), then padded with zeros at the bottom and right. A mask decoder made from the same "
    "checkpoint takes `image_embeddings`:"
)
_DECODER = (
    "`point_coords` are pixels of the photo times 1024, divided by its longest side. {prompts} An image encoder made "
    "from the same checkpoint gives `image_embeddings`:"
)
_PIXELS = (
    "`input_image` is RGB from 0 to 255, resized so that its longest side is 1024: its pixels are those of "
    "`point_coords`. The file resizes it to {size}, normalises by {mean} and {std} and pads. A mask decoder made from "
    "the same checkpoint takes `image_embeddings`:"
)
_SAM_DECODER = (
    "`orig_im_size` is height and width of the photo, and `masks` are logits at that size: an object is where they are "
    "above 0. " + _DECODER
)
_WHOLE = "`masks` are logits of the photo's size: an object is where they are above 0. {prompts}"
_HOW = {
    "nanosam": {ENCODER: _ENCODER, DECODER: _DECODER},
    "sam": {ENCODER: _ENCODER, DECODER: _SAM_DECODER},
    "samexporter": {ENCODER: _PIXELS, DECODER: _SAM_DECODER},
}

_SEGMENT = """\
```console
$ nanosam segment photo.jpg --box 10,20,300,280 --encoder {encoder} --decoder {decoder}
```"""

_PYTHON = """\
```python
import numpy as np
import onnxruntime
from PIL import Image

photo = Image.open("photo.jpg").convert("RGB")
scale = {size} / max(photo.size)
width, height = (int(side * scale + 0.5) for side in photo.size)
small = np.asarray(photo.resize((width, height), Image.Resampling.BILINEAR), np.float32)
image = np.zeros((1, 3, {size}, {size}), np.float32)
image[0, :, :height, :width] = ((small - {mean}) / {std}).transpose(2, 0, 1)
points = np.array([[{points}]], np.float32)  # one box, in pixels of the photo
feeds = dict(
    image=image,
    point_coords=points * np.float32(1024 / max(photo.size)),
    point_labels=np.array([[{point_labels}]], np.float32),
    orig_im_size=np.array([photo.height, photo.width], np.float32),
)
masks, ious, low_res_masks = onnxruntime.InferenceSession("{file}").run(None, feeds)
Image.fromarray(masks[0, 0] > 0).save("mask.png")
```"""


def card_text(facts: CardFacts) -> str:
    """The card as Markdown."""
    about = {
        "file": f"`{facts.file}`, sha256 `{facts.sha256}`",
        "made from": f"`{facts.made_from}`, sha256 `{facts.source_sha256}`",
        "made by": facts.exporter,
        "precision": f"{facts.precision}, float32 in and out",
        "image size": f"{facts.image_size} x {facts.image_size}",
        "licence of the weights": facts.licence,
        "inputs": ", ".join(f"`{info}`" for info in facts.inputs),
        "outputs": ", ".join(f"`{info}`" for info in facts.outputs),
    }
    return _CARD.format(
        title=facts.title,
        about=_table("what", about),
        said=fill(_PROOF.format(proved=facts.proved, remark=facts.remark).strip(), _WIDTH),
        proof=_table("compared", facts.proof),
        how=fill(_how(facts), _WIDTH),
        command=_command(facts),
    )


def _how(facts: CardFacts) -> str:
    templates = _HOW.get(facts.contract, _HOW["nanosam"])
    template = templates.get(facts.kind, _WHOLE)
    return template.format(size=facts.image_size, mean=SAM_MEAN, std=SAM_STD, prompts=_PROMPTS)


def _command(facts: CardFacts) -> str:
    if facts.kind == ENCODER:
        return _SEGMENT.format(encoder=facts.file, decoder="decoder.onnx")
    if facts.kind == DECODER:
        return _SEGMENT.format(encoder="encoder.onnx", decoder=facts.file)
    count = next(info.shape[1] for info in facts.inputs if info.name == "point_labels")
    padding = 0 if count is None else count - 2
    return _PYTHON.format(
        file=facts.file,
        size=facts.image_size,
        mean=SAM_MEAN,
        std=SAM_STD,
        points=", ".join(["[10, 20]", "[300, 280]"] + ["[0, 0]"] * padding),
        point_labels=", ".join(["2", "3"] + ["-1"] * padding),
    )


def _table(heading: str, rows: Mapping[str, str]) -> str:
    return "\n".join([f"| {heading} | |", "|---|---|", *(f"| {name} | {value} |" for name, value in rows.items())])
