"""The events of a run as TensorBoard's, for those who watch several runs at once."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from nanosam_cli.core.errors import MissingExtraError
from nanosam_cli.core.training.run_log import EvaluationReport, Event, StepReport

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

FOLDER = "tensorboard"


class TensorBoard:
    """Event files in `tensorboard/`. MissingExtraError where the package is not installed."""

    def __init__(self, folder: Path, keep: int) -> None:
        """Go on with a run: the events of its first `keep` steps stay, and what a killed one wrote later is hidden."""
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ModuleNotFoundError as error:
            raise MissingExtraError("run.tensorboard", "tensorboard", "tensorboard") from error
        self._writer: SummaryWriter = SummaryWriter(folder / FOLDER, purge_step=keep + 1)

    def add(self, event: Event) -> None:
        """Add a step or an evaluation."""
        if isinstance(event, StepReport):
            for name in ("loss", "features", "iou", "learning_rate", "images_per_second", "waiting"):
                self._scalar(name, getattr(event, name), event.step)
        elif isinstance(event, EvaluationReport):
            for size, value in event.mean_iou.items():
                self._scalar(f"mean_iou/{size}", value, event.step)

    def _scalar(self, name: str, value: float, step: int) -> None:
        self._writer.add_scalar(name, value, step)

    def close(self) -> None:
        """Write what is left and close the files."""
        self._writer.close()
