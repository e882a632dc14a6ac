"""A mask for people to look at, in a notebook or a window."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from nanosam_cli.core.errors import MissingExtraError, UsageError

_BLUE = (0.16, 0.50, 0.98, 0.55)  # RGBA over the photo
_LARGEST = 480  # pixels of a thumbnail's longer side


def draw_mask(mask: NDArray[np.bool_], title: str, image: NDArray[np.uint8] | None, ax: Any) -> Any:
    """A mask (H, W) over its photo, or over white -> matplotlib's Axes.

    UsageError where the photo has another size; MissingExtraError where matplotlib is not installed.
    """
    if image is not None and image.shape[:2] != mask.shape:
        raise UsageError(f"the photo is {image.shape[:2]}, the mask {mask.shape}", "give the photo that was segmented")
    if ax is None:
        _, ax = _pyplot().subplots(layout="constrained")
    colours = np.zeros((*mask.shape, 4), np.float32)
    colours[mask] = _BLUE
    ax.imshow(np.full((*mask.shape, 3), 255, np.uint8) if image is None else image)
    ax.imshow(colours)
    ax.set(title=title, xticks=[], yticks=[])
    return ax


def show_figures() -> None:
    """Open a window for what was drawn, or print it in a notebook."""
    _pyplot().show()


def mask_thumbnail(mask: NDArray[np.bool_]) -> bytes:
    """A PNG of a mask (H, W), white on black, made smaller where it is large."""
    picture = Image.fromarray(mask.astype(np.uint8) * 255)
    picture.thumbnail((_LARGEST, _LARGEST))
    file = io.BytesIO()
    picture.save(file, format="PNG")
    return file.getvalue()


def _pyplot() -> Any:
    try:
        import matplotlib.pyplot as plt
    except ImportError as error:
        raise MissingExtraError("a plot", "plot", "matplotlib") from error
    return plt
