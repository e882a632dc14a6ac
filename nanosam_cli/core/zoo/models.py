"""The models, as data. Adding one is adding an entry to MODELS."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from nanosam_cli.core import paths
from nanosam_cli.core.errors import UsageError
from nanosam_cli.core.frame import SAM_MEAN, SAM_STD
from nanosam_cli.core.messages import did_you_mean
from nanosam_cli.core.types import DECODER, ENCODER
from nanosam_cli.core.zoo.remote_file import RemoteFile

INT8_ENCODER = "encoder-int8"  # the same encoder for ONNX Runtime on a CPU, where a model comes with one
CHECKPOINT = "checkpoint"  # weights for torch: all there is of some models
EXPORTED = "onnx-"  # begins the name of a folder of files that were made from a checkpoint


@dataclass(frozen=True)
class PublishedAccuracy:
    """Published mIoU on COCO val2017, prompted with ground-truth boxes. Protocols differ by a point or two."""

    all: float
    small: float
    medium: float
    large: float
    published: str  # the repository on GitHub whose README has it


@dataclass(frozen=True)
class ModelSpec:
    """One model: an image encoder and a mask decoder that understands its embeddings, or a checkpoint of both."""

    name: str
    description: str
    licence: str
    image_size: int  # side S of the encoder's square input
    parts: Mapping[str, RemoteFile]  # encoder and decoder, or checkpoint
    bundled: bool = False  # its files come with the package
    mean: tuple[float, float, float] = SAM_MEAN
    std: tuple[float, float, float] = SAM_STD
    source: str | None = None  # the publisher's page
    note: str | None = None  # what to know before downloading it
    cannot_run: str | None = None  # why its files can be downloaded, but not run
    accuracy: PublishedAccuracy | None = None
    # what an engine is built in where nothing else is asked for
    default_precision: Mapping[str, str] = field(default_factory=lambda: {ENCODER: "fp16", DECODER: "fp32"})


DEFAULT_MODEL = "nanosam-lite2"

_NVIDIA = "NVIDIA-AI-IOT/nanosam"
_DRIVE = "https://drive.google.com/uc?export=download&id="
_BINH = "binh234/nanosam"
_HGNETV2 = "https://huggingface.co/dragonSwing/nanosam/resolve/e49afdaee2078a826f542929996a14fb0b69a2fa"


def _hgnetv2(size: str, accuracy: PublishedAccuracy, sha256: str | None) -> ModelSpec:
    """One of the students of EfficientViT-SAM-L0, all with the same decoder."""
    encoder, decoder = f"sam_hgv2_{size}_ln_nonorm_image_encoder.onnx", "efficientvit_l0_mask_decoder.onnx"
    return ModelSpec(
        name=f"nanosam-hgnetv2-{size}",
        description=f"HGNetV2-{size.upper()} student of EfficientViT-SAM-L0 at 512 pixels",
        licence="Apache-2.0",
        image_size=512,
        parts={
            ENCODER: RemoteFile(encoder, url=f"{_HGNETV2}/{encoder}", sha256=sha256),
            DECODER: RemoteFile(decoder, url=f"{_HGNETV2}/{decoder}"),
        },
        source="https://huggingface.co/dragonSwing/nanosam",
        note=f"Hugging Face's file scan calls {decoder} suspicious",
        # its author's training recipe, configs/paddle/sam_pphgv2_b1_nonorm.yaml in that repository: pixels are padded
        # and neither scaled nor normalised; the README there says `normalize_input: False`
        mean=(0.0, 0.0, 0.0),
        std=(1.0, 1.0, 1.0),
        cannot_run="it takes RGB from 0 to 255 by its author's training recipe, but its files could not be tried here, "
        "and what their tensors are called is not published",
        accuracy=accuracy,
    )


MODELS: Mapping[str, ModelSpec] = {
    spec.name: spec
    for spec in (
        ModelSpec(
            name=DEFAULT_MODEL,
            description="Small 512-pixel student of SAM, trained by this project; comes with the package",
            licence="see its card",
            image_size=512,
            parts={
                ENCODER: RemoteFile(
                    "encoder.onnx", sha256="443df0f2b05fd1b0c13a2e2ab78a62fb41bee3831f7c93e90bb060a03068072b"
                ),
                INT8_ENCODER: RemoteFile(
                    "encoder-int8.onnx", sha256="8c47725c2c204d253ddcf50b46a7cb1163a8098e2815d8f53f5f7360b0a555ab"
                ),
                DECODER: RemoteFile(
                    "decoder.onnx", sha256="c70bd88f9c1b337304bd0f3b02c415a7328bbb38afb861a2b1aa930a30e9ed28"
                ),
                CHECKPOINT: RemoteFile(
                    "weights.safetensors", sha256="c18b0f644060e695140aa09466c42330afeed2fe0dc11ce2017ae8265aac540f"
                ),  # for other runs to start from
            },
            bundled=True,
        ),
        ModelSpec(
            name="mobile-sam",
            description="MobileSAM's checkpoint: TinyViT encoder and SAM's decoder at 1024 pixels, NanoSAM's teacher",
            licence="Apache-2.0",
            image_size=1024,
            parts={
                CHECKPOINT: RemoteFile(
                    "mobile_sam.pt",
                    url="https://github.com/ChaoningZhang/MobileSAM/raw/master/weights/mobile_sam.pt",
                    mirrors=("https://huggingface.co/dhkim2810/MobileSAM/resolve/main/mobile_sam.pt",),
                    size=40_728_226,
                    sha256="6dbb90523a35330fedd7f1d3dfc66f995213d81b29a5ca8108dbcdd4e37d6c2f",
                )
            },
            source="https://github.com/ChaoningZhang/MobileSAM",
            accuracy=PublishedAccuracy(0.728, 0.658, 0.759, 0.804, published=_NVIDIA),
        ),
        ModelSpec(
            name="nanosam-resnet18",
            description="NVIDIA NanoSAM's own files: ResNet18 encoder at 1024 pixels, MobileSAM's decoder",
            licence="Apache-2.0",
            image_size=1024,
            parts={
                ENCODER: RemoteFile("resnet18_image_encoder.onnx", url=f"{_DRIVE}14-SsvoaTl-esC3JOzomHDnI9OGgdO2OR"),
                DECODER: RemoteFile("mobile_sam_mask_decoder.onnx", url=f"{_DRIVE}1jYNvnseTL49SNRx9PDcbkZ9DwsY8up7n"),
            },
            source=f"https://github.com/{_NVIDIA}",
            # issues 30, 31 and 41 of NVIDIA's repository
            note="users report that NVIDIA's Google Drive links are closed at times; files from elsewhere are taken "
            "from a directory by --mirror DIR",
            accuracy=PublishedAccuracy(0.706, 0.624, 0.738, 0.796, published=_NVIDIA),
        ),
        _hgnetv2(
            "b1",
            PublishedAccuracy(0.756, 0.708, 0.774, 0.812, published=_BINH),
            sha256="0001b3349220a86ff6a41819ebdfd9f2a8c0707a90ef3e4f9726d46db09a9a32",
        ),
        _hgnetv2(
            "b2",
            PublishedAccuracy(0.765, 0.715, 0.785, 0.822, published=_BINH),
            sha256="eb45d87af99d345f8b260527d0566b1eef0af9c35835171b6040c217f94eae08",
        ),
        _hgnetv2("b4", PublishedAccuracy(0.773, 0.721, 0.797, 0.830, published=_BINH), sha256=None),
    )
}


def find_model(name: str) -> ModelSpec:
    """The model called `name`. UsageError with the nearest names where there is none."""
    if name in MODELS:
        return MODELS[name]
    near = did_you_mean(name.lower(), MODELS, most=3, cutoff=0.75)  # all names here are somewhat alike
    raise UsageError(f"unknown model: {name}", near or f"models: {', '.join(MODELS)}")


def check_model_name(name: str | None, baselines: Collection[str] = ()) -> None:
    """UsageError where there is neither a model nor a baseline of that name; without a name, the default is meant."""
    if name is not None and name not in baselines:
        find_model(name)


def file_path(spec: ModelSpec, part: str) -> Path:
    """Where the file of one part lies, or would lie. Parts made from a checkpoint have a folder named by its hash."""
    if spec.bundled:
        return paths.resource("models", spec.name, spec.parts[part].file)
    folder = paths.home() / "models" / spec.name
    if part in spec.parts:
        return folder / spec.parts[part].file
    return folder / f"{EXPORTED}{(spec.parts[CHECKPOINT].sha256 or '')[:12]}" / f"{part}.onnx"
