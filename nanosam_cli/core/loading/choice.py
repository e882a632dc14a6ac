"""Which model, and what runs it: said once, on the command line or by the API, and passed on whole."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from nanosam_cli.core.errors import UsageError
from nanosam_cli.core.zoo.models import DEFAULT_MODEL


@dataclass(frozen=True)
class ModelChoice:
    """A model by name, or files in place of its own. None is left to the environment, then to the model itself.

    One file alone needs the name of the model that the other comes from, because an encoder and a decoder work only if
    they were trained together: UsageError without it.
    """

    model: str | None = None  # a name of the zoo; the default one where there are no files
    encoder: Path | None = None
    decoder: Path | None = None
    backend: str | None = None  # else NANOSAM_BACKEND, else auto
    device: str | None = None  # else NANOSAM_DEVICE, else auto
    threads: int | None = None  # CPU threads of a run; the runtime's choice

    def __post_init__(self) -> None:
        if self.model is None and (self.encoder is None) != (self.decoder is None):
            given, other = ("encoder", "decoder") if self.decoder is None else ("decoder", "encoder")
            raise UsageError(
                f"{given} file given, {other} missing", f"give --{other} FILE too, or --model NAME to take its {other}"
            )

    @property
    def has_files(self) -> bool:
        """Whether files stand in place of the model's own."""
        return self.encoder is not None or self.decoder is not None

    @property
    def name(self) -> str:
        """What to call it: the encoder's file, or the model."""
        return self.encoder.stem if self.encoder else self.model or DEFAULT_MODEL
