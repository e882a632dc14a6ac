"""Teachers: whatever follows the file contract, in torch or in a runtime, gives embeddings and masks to learn from."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from nanosam_cli.core.errors import ModelError, RecipeError
from nanosam_cli.core.export.export import export_model
from nanosam_cli.core.export.source import load_source
from nanosam_cli.core.graphs.graph import external_files
from nanosam_cli.core.inference.backends.torch import TorchSession
from nanosam_cli.core.inference.contract import encoder_image_size
from nanosam_cli.core.inference.session import Session, host, open_session
from nanosam_cli.core.loading.part_files import part_file
from nanosam_cli.core.modeling.encoder import EMBEDDING_CHANNELS, EMBEDDING_SIDE
from nanosam_cli.core.modeling.prediction import Prompts
from nanosam_cli.core.system.files import file_sha256, write_bytes
from nanosam_cli.core.training.recipe import TeacherSection
from nanosam_cli.core.types import DECODER, ENCODER
from nanosam_cli.core.zoo.models import CHECKPOINT, file_path, find_model

LATER = ("listening.", "clicks.see.")  # tensors of a decoder that listens: others lack them, and they begin at nothing
WEIGHT_SUFFIXES = (".pt", ".pth", ".safetensors")  # what torch runs; other files are a session's


class Teacher(Protocol):
    """Embeddings and masks, on crops whose side is a multiple of its stride."""

    sha256: str  # of the encoder's file; with a + before each of those of files that hold its weights
    image_size: int  # T, side of its whole square

    def embed(self, images: Tensor) -> Tensor:
        """(B, 3, C, C) normalised -> (B, 256, h, w) float32, h = C / T * 64."""
        ...

    def masks(self, embeddings: Tensor, prompts: Prompts) -> tuple[Tensor, Tensor]:
        """Its own (B, 256, h, w) and P prompts -> predicted IoU (P, K), logits (P, K, 4h, 4w)."""
        ...

    @property
    def has_decoder(self) -> bool:
        """Whether it can make masks."""
        ...

    def open_encoder(self) -> Session:
        """Its image encoder for a predictor, which closes it."""
        ...

    def open_decoder(self) -> Session:
        """Its mask decoder for a predictor, which closes it. ModelError where it has none."""
        ...

    def save_decoder(self, path: Path) -> None:
        """Its mask decoder as an ONNX file that replaces `path`."""
        ...


def open_teacher(section: TeacherSection, device: torch.device) -> Teacher:
    """Find and load a recipe's teacher. NanosamError where a file is missing, broken or not of the contract."""
    encoder, decoder = teacher_files(section.encoder)
    decoder = Path(section.decoder) if section.decoder else decoder
    if encoder.suffix in WEIGHT_SUFFIXES:
        return TorchTeacher(encoder, device)
    name = "cpu" if device.type == "cpu" else "auto"
    return SessionTeacher(encoder, decoder, name)


def teacher_files(name: str) -> tuple[Path, Path | None]:
    """A file as it is, or a model of the zoo by its name -> the encoder's file, and the decoder's where it is another.

    Raises UsageError where the name is unknown, ModelError where its file is not on this machine.
    """
    if Path(name).suffix:
        return Path(name), None
    spec = find_model(name)
    if CHECKPOINT not in spec.parts:
        return part_file(spec, ENCODER), part_file(spec, DECODER)
    path = file_path(spec, CHECKPOINT)
    if not path.is_file():
        raise ModelError(f"the checkpoint of {name} is missing: {path}", f"nanosam download {name}")
    return path, None


def load_weights(module: nn.Module, part: str, name: str) -> None:
    """Put the `part` of a checkpoint, or of a model of the zoo, into a module. RecipeError, listing names, where they
    are not its own."""
    path, _ = teacher_files(name)
    if path.suffix not in WEIGHT_SUFFIXES:
        raise RecipeError(
            f"init.{part}: {path} holds no weights to start from", f"give one of {', '.join(WEIGHT_SUFFIXES)}"
        )
    source = load_source(path)
    found = source.encoder if part == ENCODER else source.decoder
    weights = {} if found is None else found.state_dict()
    own = module.state_dict()
    for prefix in LATER:  # of a decoder that does not have them yet
        if not any(name.startswith(prefix) for name in weights):
            weights = {**{name: tensor for name, tensor in own.items() if name.startswith(prefix)}, **weights}
    missing, extra = sorted(own.keys() - weights.keys()), sorted(weights.keys() - own.keys())
    shared = sorted(own.keys() & weights.keys())
    other = [f"{key} {tuple(weights[key].shape)}" for key in shared if own[key].shape != weights[key].shape]
    if missing or extra or other:
        listed = "; ".join(
            f"{what}: {', '.join(names)}"
            for what, names in (("missing", missing), ("extra", extra), ("of another shape", other))
            if names
        )
        raise RecipeError(f"init.{part}: {path} is of another model: {listed}", "change [model] or [init]")
    module.load_state_dict(weights)


class TorchTeacher:
    """MobileSAM, or a model of our own."""

    def __init__(self, path: Path, device: torch.device) -> None:
        source = load_source(path)
        self.sha256, self.image_size = file_sha256(path), source.image_size
        self._path = path
        self._encoder = source.encoder.to(device).eval().requires_grad_(False)
        self._decoder = None if source.decoder is None else source.decoder.to(device).eval().requires_grad_(False)

    @torch.no_grad()
    def embed(self, images: Tensor) -> Tensor:
        embeddings: Tensor = self._encoder(images)
        return _checked(embeddings, images, self.image_size, self._path)

    @torch.no_grad()
    def masks(self, embeddings: Tensor, prompts: Prompts) -> tuple[Tensor, Tensor]:
        ious, logits = self._need_decoder()(embeddings[prompts.owner], *prompts[1:])
        return ious, logits

    @property
    def has_decoder(self) -> bool:
        return self._decoder is not None

    def open_encoder(self) -> Session:
        return TorchSession(self._encoder, ENCODER, {"nanosam.image_size": str(self.image_size)})

    def open_decoder(self) -> Session:
        return TorchSession(self._need_decoder(), DECODER, {})

    def save_decoder(self, path: Path) -> None:
        self._need_decoder()
        [file] = export_model(self._path, path.parent, DECODER, overwrite=True)
        assert file.path == path

    def _need_decoder(self) -> nn.Module:
        if self._decoder is None:
            raise _no_decoder(self._path)
        return self._decoder


class SessionTeacher:
    """An ONNX file or an engine. Its input has one size: crops are padded to it, as a letterboxed photo would be."""

    def __init__(self, encoder: Path, decoder: Path | None, device: str) -> None:
        self._encoder = open_session(encoder, device=device)
        self._device, self._decoder_path = device, decoder
        self._decoder: Session | None = None
        weights = external_files(encoder) if encoder.suffix == ".onnx" else []
        self.sha256 = "+".join(file_sha256(path) for path in (encoder, *(encoder.parent / name for name in weights)))
        self.image_size = encoder_image_size(self._encoder)
        self._batches = next(info.shape[0] is None for info in self._encoder.inputs if info.name == "image")

    def embed(self, images: Tensor) -> Tensor:
        room = self.image_size - images.shape[-1]
        padded = F.pad(images, (0, room, 0, room)).cpu().numpy()
        chunks = [padded] if self._batches else np.split(padded, len(padded))
        found = [host(self._encoder.run({"image": chunk})["image_embeddings"]) for chunk in chunks]
        embeddings = torch.from_numpy(np.concatenate(found)).to(images.device)
        cells = images.shape[-1] * EMBEDDING_SIDE // self.image_size
        return _checked(embeddings[:, :, :cells, :cells], images, self.image_size, self._encoder.path)

    def masks(self, embeddings: Tensor, prompts: Prompts) -> tuple[Tensor, Tensor]:
        """Photo by photo: these files take the embedding of one."""
        self._decoder = self._decoder or self.open_decoder()
        cells = embeddings.shape[-1]
        room = EMBEDDING_SIDE - cells
        whole = F.pad(embeddings, (0, room, 0, room)).cpu().numpy()
        rows, found = [], []
        for photo in sorted(set(prompts.owner.tolist())):
            own = torch.nonzero(prompts.owner == photo)[:, 0]
            inputs = ("point_coords", "point_labels", "mask_input", "has_mask_input")
            feeds = dict(zip(inputs, (part[own].float().cpu() for part in prompts[1:]), strict=True))
            low_room = 4 * room
            feeds["mask_input"] = F.pad(feeds["mask_input"], (0, low_room, 0, low_room))
            arrays = {name: np.ascontiguousarray(part.numpy()) for name, part in feeds.items()}
            outputs = self._decoder.run({"image_embeddings": whole[photo : photo + 1], **arrays})
            rows.append(own)
            found.append([torch.from_numpy(host(outputs[name])) for name in ("iou_predictions", "low_res_masks")])
        back = torch.cat(rows).argsort()
        ious, logits = (torch.cat(parts).to(embeddings.device)[back] for parts in zip(*found))
        return ious, logits[:, :, : 4 * cells, : 4 * cells]

    @property
    def has_decoder(self) -> bool:
        return self._decoder_path is not None

    def open_encoder(self) -> Session:
        return open_session(self._encoder.path, device=self._device)

    def save_decoder(self, path: Path) -> None:
        if self._decoder_path is None:
            raise _no_decoder(self._encoder.path)
        write_bytes(path, self._decoder_path.read_bytes(), overwrite=True)

    def open_decoder(self) -> Session:
        if self._decoder_path is None:
            raise _no_decoder(self._encoder.path)
        return open_session(self._decoder_path, device=self._device)


def _checked(embeddings: Tensor, images: Tensor, image_size: int, path: Path) -> Tensor:
    """ModelError where the embedding does not lie over the crop as a student's does."""
    cells = images.shape[-1] * EMBEDDING_SIDE // image_size
    wanted = (len(images), EMBEDDING_CHANNELS, cells, cells)
    if embeddings.shape != wanted:
        raise ModelError(f"teacher {path} gives embeddings {tuple(embeddings.shape)}, a student {wanted}")
    return embeddings


def _no_decoder(path: Path) -> ModelError:
    return ModelError(f"teacher {path} has no mask decoder", "--set teacher.decoder=FILE")
