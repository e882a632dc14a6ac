"""Finds people in a photo with MediaPipe's pose models, which lie in its package: nothing is downloaded.

MediaPipe's task for several people reads its two models from one bundle with a description of their inputs, which is a
separate download. The releases of the 0.10 line up to 0.10.21 carry the same two models bare, for the older graph of a
single person. Here they are described and bundled, in memory, with MediaPipe's own metadata writer. The ranges of their
inputs are those of that graph: `pose_detection_cpu.pbtxt` (-1 to 1) and `pose_landmark_by_roi_cpu.pbtxt` (0 to 1).
"""

from __future__ import annotations

import zipfile
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nanosam_cli.core.errors import MissingExtraError
from nanosam_cli.core.prompting.body_parts import KEYPOINTS
from nanosam_cli.core.prompting.people import Keypoint, Person

MAX_PEOPLE = 16  # in one photo

_DETECTOR = "pose_detection/pose_detection.tflite", 127.5, 127.5  # file, and what is taken off and divided by
_LANDMARKS = "pose_landmark/pose_landmark_full.tflite", 0.0, 255.0


class PoseEstimator:
    """MediaPipe's pose landmarks of several people. Closed at the end of a `with` block.

    MissingExtraError where MediaPipe is not installed, or is a release that does not carry the models.
    """

    def __init__(self, max_people: int = MAX_PEOPLE) -> None:
        try:
            import mediapipe
            from mediapipe.tasks.python import BaseOptions, vision
            from mediapipe.tasks.python.metadata.metadata_writers.metadata_writer import MetadataWriter
        except ImportError as error:
            raise MissingExtraError("--pose auto", "pose", "mediapipe") from error
        models = Path(mediapipe.__file__).parent / "modules"
        if not all((models / name).is_file() for name, _, _ in (_DETECTOR, _LANDMARKS)):
            version = mediapipe.__version__
            raise MissingExtraError("--pose auto", "pose", f"a mediapipe of the 0.10 line, not {version}: its models")
        bundle = BytesIO()
        with zipfile.ZipFile(bundle, "w") as file:
            for inside, (name, mean, deviation) in (
                ("pose_detector.tflite", _DETECTOR),
                ("pose_landmarks_detector.tflite", _LANDMARKS),
            ):
                writer = MetadataWriter.create(bytearray((models / name).read_bytes()))
                file.writestr(inside, bytes(writer.add_image_input([mean], [deviation]).populate()[0]))
        options = vision.PoseLandmarkerOptions(
            base_options=BaseOptions(model_asset_buffer=bundle.getvalue()), num_poses=max_people
        )
        self._mediapipe: Any = mediapipe
        self._names = [landmark.name.lower() for landmark in mediapipe.solutions.pose.PoseLandmark]
        self._landmarker: Any = vision.PoseLandmarker.create_from_options(options)

    def __enter__(self) -> PoseEstimator:
        return self

    def __exit__(self, *_: object) -> None:
        self._landmarker.close()

    def people(self, image: NDArray[np.uint8]) -> list[Person]:
        """The people in (H, W, 3) uint8 RGB, the largest first."""
        height, width = image.shape[:2]
        frame = self._mediapipe.Image(image_format=self._mediapipe.ImageFormat.SRGB, data=np.ascontiguousarray(image))
        found = [
            Person(
                {
                    name: Keypoint(mark.x * width, mark.y * height, min(mark.visibility, mark.presence))
                    for name, mark in zip(self._names, landmarks)
                    if name in KEYPOINTS
                }
            )
            for landmarks in self._landmarker.detect(frame).pose_landmarks
        ]
        return sorted(found, key=_size, reverse=True)


def _size(person: Person) -> float:
    """Area of the box around all keypoints."""
    places = np.array([(point.x, point.y) for point in person.keypoints.values()])
    return float(np.ptp(places, axis=0).prod())
