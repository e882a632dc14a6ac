"""What an actor does: it holds a model and turns decoded photos into rows of a shard."""

from __future__ import annotations

import pickle
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from nanosam_cli.core.errors import InputError, ModelError, UsageError
from nanosam_cli.core.fleet.decode import DECODED
from nanosam_cli.core.fleet.rows import SCHEMA, Row, failed_row, photo_row
from nanosam_cli.core.inference.predictor import Predictor, PreparedImage
from nanosam_cli.core.loading.choice import ModelChoice
from nanosam_cli.core.loading.load import open_predictor
from nanosam_cli.core.segmentation.everything import Everything, segment_everything
from nanosam_cli.core.segmentation.result import found_masks
from nanosam_cli.core.system.journal import differences
from nanosam_cli.version import __version__

SEGMENTED = pa.schema([DECODED.field("shard"), DECODED.field("place"), *SCHEMA])


@dataclass(frozen=True)
class SegmenterSpec:
    """Everything that decides the masks, and what must be the same wherever they are made."""

    choice: ModelChoice
    model: dict[str, Any]  # `Predictor.describe` where the job was planned
    everything: Everything | None = None
    threshold: float = 0.0
    version: str = __version__


class ShardSegmenter:
    """A predictor that turns tables of DECODED into tables of SEGMENTED. ModelError where it is not the driver's."""

    def __init__(self, spec: SegmenterSpec) -> None:
        if spec.version != __version__:
            raise ModelError(
                f"nanosam {spec.version} planned this job, and a worker has {__version__}",
                "install the same version everywhere",
            )
        self._spec = spec
        self._predictor: Predictor = open_predictor(spec.choice)
        if changed := differences(spec.model, self._predictor.describe()):
            raise ModelError(f"a worker has another model: {changed}", "put the same files on every machine")

    def __call__(self, table: pa.Table) -> pa.Table:
        rows = [self._row(photo) for photo in _records(table)]
        return pa.Table.from_pylist(rows, SEGMENTED)

    def close(self) -> None:
        self._predictor.close()

    def _row(self, photo: Row) -> Row:
        key = {"shard": photo["shard"], "place": photo["place"]}
        known = photo["id"], photo["source"], photo["image_id"]
        if photo["error"] is not None:
            return {**key, **failed_row(*known, photo["error"])}
        try:
            return {**key, **self._segmented(photo)}
        except (InputError, UsageError) as error:
            return {**key, **failed_row(*known, str(error))}

    def _segmented(self, photo: Row) -> Row:
        original_hw = photo["height"], photo["width"]
        request = pickle.loads(photo["request"])
        frame = self._predictor.frame(original_hw)
        flat = np.frombuffer(photo["pixels"], np.uint8)
        everything, threshold = self._spec.everything, self._spec.threshold
        if everything is not None:
            image: Any
            if everything.crop_layers:
                image = flat.reshape(*original_hw, 3)
            else:
                image = self._predictor.prepare_resized(flat.reshape(*frame.input_hw, 3), frame)
            request, masks = segment_everything(self._predictor, image, everything, threshold)
        elif request.count:
            prepared: PreparedImage = self._predictor.prepare_resized(flat.reshape(*frame.input_hw, 3), frame)
            embedding = self._predictor.encode_image(prepared)
            masks = self._predictor.predict(embedding, request.prompt(frame), threshold=threshold)
        else:
            masks = []
        return photo_row(photo["id"], photo["source"], photo["image_id"], original_hw, request, found_masks(masks))


def _records(table: pa.Table) -> list[Row]:
    """Plain values; the pixels stay where they are."""
    columns = [name for name in table.schema.names if name != "pixels"]
    pixels = table.column("pixels")
    rows: list[Row] = table.select(columns).to_pylist()
    return [{**row, "pixels": pixels[number].as_buffer()} for number, row in enumerate(rows)]
