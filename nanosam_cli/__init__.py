"""nanosam: promptable segmentation on the edge.

The public API is imported on first use, so that `import nanosam_cli` costs nothing:

    from nanosam_cli import Prompt, load_predictor

    with load_predictor() as predictor:
        embedding = predictor.encode_image("photo.jpg")
        cat, = predictor.predict(embedding, Prompt.from_boxes([[10, 20, 300, 400]]))
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from nanosam_cli.version import __version__

if TYPE_CHECKING:
    from nanosam_cli.core.inference.predictor import Predictor as Predictor
    from nanosam_cli.core.loading.load import load_predictor as load_predictor
    from nanosam_cli.core.media.image import read_image as read_image
    from nanosam_cli.core.prompting.body_parts import read_parts as read_parts
    from nanosam_cli.core.prompting.people import Keypoint as Keypoint
    from nanosam_cli.core.prompting.people import Person as Person
    from nanosam_cli.core.prompting.pose import PoseChoice as PoseChoice
    from nanosam_cli.core.prompting.pose import SeenPeople as SeenPeople
    from nanosam_cli.core.segmentation.to_supervision import to_supervision as to_supervision
    from nanosam_cli.core.tracking.tracker import Tracker as Tracker
    from nanosam_cli.core.types import ImageEmbedding as ImageEmbedding
    from nanosam_cli.core.types import Prompt as Prompt
    from nanosam_cli.core.types import Segmentation as Segmentation
    from nanosam_cli.core.types import Segmentations as Segmentations

_HOME = {
    "load_predictor": "loading.load",
    "Predictor": "inference.predictor",
    "Prompt": "types",
    "ImageEmbedding": "types",
    "Segmentation": "types",
    "read_image": "media.image",
    "Segmentations": "types",
    "Tracker": "tracking.tracker",
    "to_supervision": "segmentation.to_supervision",
    "Keypoint": "prompting.people",
    "Person": "prompting.people",
    "PoseChoice": "prompting.pose",
    "SeenPeople": "prompting.pose",
    "read_parts": "prompting.body_parts",
}
__all__ = [
    "ImageEmbedding",
    "Keypoint",
    "Person",
    "PoseChoice",
    "Predictor",
    "Prompt",
    "SeenPeople",
    "Segmentation",
    "Segmentations",
    "Tracker",
    "__version__",
    "load_predictor",
    "read_image",
    "read_parts",
    "to_supervision",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"nanosam_cli.core.{_HOME[name]}"), name)
