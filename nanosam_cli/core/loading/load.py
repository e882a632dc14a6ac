"""A model by its name, or by its files, as a predictor."""

from __future__ import annotations

from contextlib import ExitStack, closing
from pathlib import Path

from nanosam_cli.core.inference.predictor import Predictor
from nanosam_cli.core.inference.session import open_session
from nanosam_cli.core.loading.choice import ModelChoice
from nanosam_cli.core.loading.engines import model_paths
from nanosam_cli.core.loading.part_files import part_file
from nanosam_cli.core.messages import Note
from nanosam_cli.core.types import DECODER, ENCODER
from nanosam_cli.core.zoo.models import DEFAULT_MODEL, find_model


def load_predictor(
    model: str | None = None,
    *,
    encoder: str | Path | None = None,
    decoder: str | Path | None = None,
    backend: str | None = None,
    device: str | None = None,
    threads: int | None = None,
    note: Note = lambda _: None,
) -> Predictor:
    """Open a model by name (the default one without a name), or from files.

    A named model is opened from the engines that `nanosam build-engine` made for this machine, where there are any that
    fit, else from its ONNX files. `encoder` and `decoder` replace the named model's files; it then gives the
    normalisation only. One file alone needs the name of the model that the other comes from, because an encoder and a
    decoder work only if trained together. `backend`, `device` and `threads` are `open_session`'s. `note` is told why an
    engine is passed over, and what takes long: a model that is published as a checkpoint, such as mobile-sam, is
    exported once (which needs torch) and then run from the cache.
    """
    files = [None if part is None else Path(part) for part in (encoder, decoder)]
    return open_predictor(ModelChoice(model, files[0], files[1], backend, device, threads), note)


def open_predictor(choice: ModelChoice, note: Note = lambda _: None) -> Predictor:
    """Open what was chosen; see `load_predictor`."""
    spec = find_model(choice.model or DEFAULT_MODEL)
    if choice.has_files:
        files = (choice.encoder or part_file(spec, ENCODER, note), choice.decoder or part_file(spec, DECODER, note))
    else:
        files = model_paths(spec, choice.backend, choice.device, note)
    how = {"backend": choice.backend, "device": choice.device}
    with ExitStack() as opened:
        sessions = [opened.enter_context(closing(open_session(file, **how, threads=choice.threads))) for file in files]
        for remark in (remark for session in sessions for remark in session.remarks):
            note(remark)
        predictor = Predictor(sessions[0], sessions[1], spec.mean, spec.std)
        opened.pop_all()  # all went well: the predictor closes them
    return predictor
