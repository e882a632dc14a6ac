"""The photos that come with the package, with their annotated objects."""

from __future__ import annotations

from nanosam_cli.core.datasets.coco import AnnotatedPhoto, read_coco
from nanosam_cli.core.paths import resource


def example_photos() -> list[AnnotatedPhoto]:
    """The annotated photos of the package."""
    return read_coco(resource("examples", "instances.json"), resource("examples"))
