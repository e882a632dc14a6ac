"""An object's annotated mask, kept within its window: small, and quick to compare with."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from nanosam_cli.core.datasets.coco import AnnotatedObject
from nanosam_cli.core.errors import InputError
from nanosam_cli.core.masks import Mask, Window, mask_window

_NOWHERE = (slice(0, 0), slice(0, 0))


@dataclass(frozen=True, eq=False)
class AnnotatedMask:
    """What a prediction is compared with."""

    target: AnnotatedObject
    window: Window  # rows and columns of the photo; without a pixel where the mask is empty
    mask: Mask  # of the window
    area: int  # pixels of the mask, which is not the annotated area

    @classmethod
    def of(cls, target: AnnotatedObject) -> AnnotatedMask:
        """Decode an annotation. InputError, naming it, where its run lengths are broken."""
        try:
            mask = target.mask()
        except InputError as error:
            raise InputError(f"object {target.id}: {error}", error.hint) from error
        window = mask_window(mask) or _NOWHERE
        crop = mask[window].copy()  # lets the photo-sized array go
        return cls(target, window, crop, int(np.count_nonzero(crop)))

    def iou(self, mask: Mask) -> float:
        """Intersection over union with a mask (H, W) of the photo; 0 where both are empty, as pycocotools has it."""
        common = int(np.count_nonzero(mask[self.window] & self.mask))
        union = self.area + int(np.count_nonzero(mask)) - common
        return common / union if union else 0.0

    def points(self, count: int, random: np.random.Generator) -> NDArray[np.float32]:
        """(count, 2) x y on the object: the middle of the pixel nearest to its centre of mass, then of random ones.

        Pixels repeat only where the object has too few. An empty mask gives its box's centre.
        """
        rows, columns = np.nonzero(self.mask)
        if not len(rows):
            x, y, width, height = self.target.bbox
            return np.tile(np.array([x + width / 2, y + height / 2], np.float32), (count, 1))
        nearest = np.argmin((rows - rows.mean()) ** 2 + (columns - columns.mean()) ** 2)
        others = np.delete(np.arange(len(rows)), nearest)
        more = random.choice(others if len(others) else [nearest], count - 1, replace=len(others) < count - 1)
        picks = np.array([nearest, *more], int)
        corner = np.array([self.window[1].start, self.window[0].start])
        return np.asarray(np.stack([columns[picks], rows[picks]], axis=1) + corner + 0.5, np.float32)
