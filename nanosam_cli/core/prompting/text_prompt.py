"""Boxes of what a phrase names, by any zero-shot detector of Hugging Face: OWL-ViT, OWLv2, Grounding DINO and others.

Weights are read from safetensors files only, never from pickles, and code that lies with a model never runs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nanosam_cli.core.errors import DownloadError, MissingExtraError, ModelError, UsageError
from nanosam_cli.core.paths import OFFLINE
from nanosam_cli.core.prompting.detections import BoxFilter, Detection, boxes_request
from nanosam_cli.core.prompting.labels import check_class_name
from nanosam_cli.core.prompting.request import Request
from nanosam_cli.core.system.documents import read_json

DEFAULT_DETECTOR = "google/owlv2-base-patch16-ensemble"
MIN_SCORE, OVERLAP = 0.2, 0.5  # of a box, and between boxes of one phrase

_FILES = ("*.json", "*.txt", "*.safetensors", "*.model", "README.md")  # of a model on the hub
_LARGEST_SETTINGS = 2**24  # bytes of a model's settings
_ALL_AT_ONCE = ("owlvit", "owlv2")  # kinds of models that tell several phrases of one call apart


@dataclass
class TextPrompt:
    """Phrases to look for: a `Source` of requests. The detector is loaded at the start of its `with` block.

    `choice.min_score` cuts the scores, MIN_SCORE without it; so does OVERLAP for `choice.nms`.

    Raises:
        UsageError: a phrase is empty, or longer than the detector reads.
        MissingExtraError: transformers is not installed.
        DownloadError: the detector is neither in the cache nor to be had.
        ModelError: the name is no zero-shot detector, or one that needs code of its own.
    """

    phrases: Sequence[str]
    detector: str = DEFAULT_DETECTOR  # a folder, or a name on the hub, maybe with a revision: google/owlv2@1f3c
    choice: BoxFilter = field(default_factory=BoxFilter)
    about: str = ""  # the detector and its licence, once it is loaded

    def __post_init__(self) -> None:
        if not all(phrase.strip() for phrase in self.phrases):
            raise UsageError("a phrase is empty", '--text "a tree"')

    def __enter__(self) -> TextPrompt:
        folder = self._folder
        licence = _licence(folder)
        self.about = f"{self.detector}, {f'licence {licence}' if licence else 'no licence stated'}"
        self._processor, self._model = _load(self.detector, folder)
        self._check_lengths()
        self.phrases = [check_class_name(phrase) for phrase in self.phrases]  # which are the classes of what is found
        return self

    def __exit__(self, *_: object) -> None:
        del self._processor, self._model

    @cached_property
    def _folder(self) -> Path:
        """Where the detector's files are; asks the hub for them."""
        _check_installed()
        return _folder(self.detector)

    def settings(self) -> dict[str, str]:
        """What decides the boxes beside what was asked, for the record of results: the revision that a name became."""
        folder = self._folder
        if Path(self.detector).is_dir():
            return {"text_model": self.detector}
        return {"text_model": f"{self.detector.partition('@')[0]}@{folder.name}"}  # the hub's cache names it so

    def request_for(self, image: NDArray[np.uint8]) -> Request:
        """Every box that is sure enough and is not doubled is an object, of the category of its phrase from 1."""
        choice = self.choice
        overlap = OVERLAP if choice.nms is None else choice.nms
        request = boxes_request(self.detect(image), image.shape[:2], BoxFilter(nms=overlap, top_k=choice.top_k))
        # detectors draw boxes beyond the photo as a matter of course, so nothing is said of those that were clipped
        return replace(request, notes=() if request.tags else [f"nothing found like {', '.join(self.phrases)}"])

    def detect(self, image: NDArray[np.uint8]) -> list[Detection]:
        """Boxes in (H, W, 3) uint8 RGB, phrase by phrase, in original pixels; doubles are among them."""
        threshold = MIN_SCORE if self.choice.min_score is None else self.choice.min_score
        together = self._model.config.model_type in _ALL_AT_ONCE
        calls = [list(self.phrases)] if together else [[phrase] for phrase in self.phrases]
        found = []
        for phrases in calls:
            answer = self._run(image, phrases, threshold)
            places = answer["labels"].tolist() if together else [0] * len(answer["scores"])
            for box, score, place in zip(answer["boxes"].tolist(), answer["scores"].tolist(), places):
                category = self.phrases.index(phrases[place]) + 1
                found.append(Detection(tuple(box), category, phrases[place], score))
        return sorted(found, key=lambda one: one.category_id)

    def _run(self, image: NDArray[np.uint8], phrases: list[str], threshold: float) -> Any:
        """The processor's answer for one photo: boxes x0 y0 x1 y1, scores, and labels where the model tells them."""
        import torch

        inputs = self._processor(images=image, text=[phrases], return_tensors="pt")
        with torch.inference_mode():
            outputs = self._model(**inputs)
        (found,) = self._processor.post_process_grounded_object_detection(
            outputs, threshold=threshold, target_sizes=[image.shape[:2]], text_labels=[phrases]
        )
        return found

    def _check_lengths(self) -> None:
        text = getattr(self._model.config, "text_config", None)
        limit = getattr(text, "max_position_embeddings", None)
        for phrase in self.phrases:
            tokens = len(self._processor.tokenizer(phrase)["input_ids"])
            if limit is not None and tokens > limit:
                words = len(phrase.split())
                raise UsageError(
                    f"a phrase of {words} words is {tokens} tokens; {self.detector} reads {limit}",
                    'name the thing itself, such as --text "a red bicycle"',
                )


def _check_installed() -> None:
    for package in ("torch", "transformers"):
        if find_spec(package) is None:
            raise MissingExtraError("--text", "text", package)


def _folder(detector: str) -> Path:
    """The detector's files: a folder of one's own, or the cache of the hub, filled where the network may be used."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import (
        GatedRepoError,
        HFValidationError,
        LocalEntryNotFoundError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    if Path(detector).is_dir():
        return Path(detector)
    offline = bool(OFFLINE.get())
    name, _, revision = detector.partition("@")
    how: dict[str, Any] = {"revision": revision or None, "allow_patterns": list(_FILES), "local_files_only": offline}
    try:
        return Path(snapshot_download(name, **how))
    except HFValidationError as error:
        raise ModelError(f"no such folder, and no name of a model: {detector}", _HINT) from error
    except GatedRepoError as error:
        raise DownloadError(
            f"{detector} asks for consent to its licence first", f"https://huggingface.co/{detector}"
        ) from error
    except RepositoryNotFoundError as error:
        raise DownloadError(f"there is no model {detector} on the hub, or it is private", _HINT) from error
    except RevisionNotFoundError as error:
        raise DownloadError(
            f"{name} has no revision {revision} on the hub", "give a branch, a tag or a commit"
        ) from error
    except LocalEntryNotFoundError as error:
        why = "NANOSAM_OFFLINE is set" if offline else "the hub cannot be reached"
        remedy = "run it once without NANOSAM_OFFLINE" if offline else "check the network"
        raise DownloadError(
            f"{detector} is not in the cache, and {why}",
            f"{remedy}, or give a folder with a model's files: --text-model DIR",
        ) from error


_HINT = f"--text-model {DEFAULT_DETECTOR}, or a folder with a model's files"


def _licence(folder: Path) -> str | None:
    """What the model's card states."""
    from huggingface_hub.repocard import metadata_load
    from yaml import YAMLError

    card = folder / "README.md"
    try:
        stated = metadata_load(card) if card.is_file() else None
    except (YAMLError, ValueError, RecursionError):  # a card that says nothing in a way that can be read
        return None
    licence = stated.get("license") if isinstance(stated, dict) else None
    return licence if isinstance(licence, str) else None


def _check_no_code(detector: str, folder: Path) -> None:
    """ModelError where transformers would have to run Python that lies with the model: it asks, and on yes does it."""
    settings = {path: read_json(path, _HINT, most=_LARGEST_SETTINGS) for path in sorted(folder.glob("*config.json"))}
    asking = [path.name for path, content in settings.items() if isinstance(content, dict) and content.get("auto_map")]
    if asking:
        raise ModelError(f"{detector} needs code of its own, by its {asking[0]}; such code is never run here", _HINT)


def _load(detector: str, folder: Path) -> tuple[Any, Any]:
    """Processor and model."""
    from nanosam_cli.core.modeling.torchvision_compat import import_torchvision

    import_torchvision()  # which transformers' image processors are made of
    from transformers import AutoModelForZeroShotObjectDetection, AutoProcessor
    from transformers.utils.logging import disable_progress_bar

    disable_progress_bar()  # loading takes a moment, and the console has bars of its own
    if not any(folder.glob("*.safetensors")):
        raise ModelError(f"{detector} has no safetensors file; pickled weights are not read", _HINT)
    _check_no_code(detector, folder)
    safe = {"local_files_only": True, "trust_remote_code": False}
    try:
        processor = AutoProcessor.from_pretrained(folder, **safe)
        model = AutoModelForZeroShotObjectDetection.from_pretrained(folder, use_safetensors=True, **safe)
    except MemoryError:
        raise
    except Exception as error:  # of whatever kind: those of transformers, the hub and safetensors have no parent
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        raise ModelError(f"{detector} is no zero-shot detector that can be loaded: {reason}", _HINT) from error
    return processor, model.eval()
