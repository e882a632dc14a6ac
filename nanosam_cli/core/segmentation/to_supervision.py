"""Segmentations as supervision's `Detections`: https://supervision.roboflow.com/latest/detection/core/."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from nanosam_cli.core.errors import MissingExtraError, UsageError
from nanosam_cli.core.masks import mask_window
from nanosam_cli.core.types import Segmentation

if TYPE_CHECKING:
    from supervision import Detections


def to_supervision(
    found: Sequence[Segmentation], classes: Sequence[str] | None = None, scores: Sequence[float] | None = None
) -> Detections:
    """The P segmentations of one photo, without the empty ones: boxes round their masks, masks, scores and classes.

    `classes` are their names, by which `class_id` counts from 0 in the order in which they first appear; `scores` else
    the predicted IoU.

    Raises:
        UsageError: there are not as many classes or scores as segmentations.
        MissingExtraError: supervision is not installed.
    """
    try:
        import supervision
    except ImportError as error:
        raise MissingExtraError("to_supervision", "supervision", "supervision") from error
    for name, values in (("classes", classes), ("scores", scores)):
        if values is not None and len(values) != len(found):
            raise UsageError(f"{len(values)} {name} for {len(found)} segmentations", "give one each")
    windows = [mask_window(one.mask) for one in found]
    rows = [row for row, window in enumerate(windows) if window is not None]
    if not rows:
        return supervision.Detections.empty()
    given = [one.predicted_iou for one in found] if scores is None else scores
    names = None if classes is None else np.array([classes[row] for row in rows])
    ids = {name: number for number, name in enumerate(dict.fromkeys(classes or ()))}
    boxes = [(w[1].start, w[0].start, w[1].stop, w[0].stop) for w in windows if w is not None]
    return supervision.Detections(
        xyxy=np.array(boxes, np.float32),
        mask=np.stack([found[row].mask for row in rows]),
        confidence=np.array([given[row] for row in rows], np.float32),
        class_id=None if names is None else np.array([ids[name] for name in names.tolist()]),
        data={} if names is None else {"class_name": names},
    )
