"""How much one request may ask for, so that no client takes the machine away from the others."""

from __future__ import annotations

from dataclasses import dataclass

from nanosam_cli.core.serving.answers import TooLargeError

MOST_OBJECTS = 1000  # in one request
MOST_POINTS = 1000  # of one object


@dataclass(frozen=True)
class RequestLimits:
    """Of one request, but for the last two."""

    body_bytes: int = 64 * 2**20
    photo_pixels: int = 100_000_000  # 0.3 GB as RGB
    answer_pixels: int = 500_000_000  # objects times pixels of a label PNG, whose masks are all held at once
    body_seconds: float = 30.0  # between two pieces of a body: a client that stops sending is let go
    waiting: int = 64  # requests that wait for the model at once
    cache_bytes: int = 256 * 2**20  # of embeddings: 64 of 4 MiB

    def check_photo(self, pixels: int) -> None:
        """TooLargeError where a photo has more pixels than are decoded."""
        if pixels > self.photo_pixels:
            raise TooLargeError(
                f"the photo has {pixels / 1e6:.0f} million pixels, more than {self.photo_pixels / 1e6:.0f}",
                "make it smaller first",
            )

    def check_answer(self, objects: int, original_hw: tuple[int, int]) -> None:
        """TooLargeError where the masks of one picture would fill the memory."""
        if objects * original_hw[0] * original_hw[1] > self.answer_pixels:
            raise TooLargeError(
                f"{objects} masks of {original_hw[1]}x{original_hw[0]} pixels are too many for one PNG",
                'ask for fewer, or for "format": "rle"',
            )
