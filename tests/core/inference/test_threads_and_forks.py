"""One predictor in several threads, and in processes that are forked after it was loaded."""

from __future__ import annotations

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from nanosam_cli.core.loading.load import load_predictor
from nanosam_cli.core.types import Prompt

RANDOM = np.random.default_rng(0)
PHOTOS = [RANDOM.integers(0, 256, (60 + 5 * number, 90, 3)).astype(np.uint8) for number in range(8)]


def test_threads_share_a_predictor(own_files: tuple[Path, Path]) -> None:
    """Each gets the masks of its own photo, bit by bit as one after the other."""
    with load_predictor(encoder=own_files[0], decoder=own_files[1], threads=1) as predictor:

        def logits(photo: NDArray[np.uint8]) -> NDArray[np.float32]:
            prompt = Prompt.from_boxes([[5, 5, 40, 50], [20, 10, 80, 55]])
            found = predictor.predict(predictor.encode_image(photo), prompt)
            return np.stack([one.low_res_logits for one in found])

        expected = [logits(photo) for photo in PHOTOS]
        with ThreadPoolExecutor(4) as threads:
            found = [*threads.map(logits, PHOTOS * 3)]
    for one, other in zip(found, expected * 3, strict=True):
        np.testing.assert_array_equal(one, other)


_FORKED = """
import multiprocessing, sys
import numpy as np
from nanosam_cli import Prompt, load_predictor
photo = np.random.default_rng(0).integers(0, 256, (60, 90, 3)).astype(np.uint8)
predictor = load_predictor(encoder=sys.argv[1], decoder=sys.argv[2], threads=3)
def area(answers=None):
    (found,) = predictor.predict(predictor.encode_image(photo), Prompt.from_boxes([[5, 5, 40, 50]]))
    if answers is None:
        return found.area
    predictor.close()
    answers.put(found.area)
expected = area()
context = multiprocessing.get_context("fork")
answers = context.SimpleQueue()
children = [context.Process(target=area, args=(answers,)) for _ in range(3)]
for child in children:
    child.start()
found = [answers.get() for _ in children]
for child in children:
    child.join(60)
assert [child.exitcode for child in children] == [0, 0, 0], children
assert found == [expected] * 3 == [area()] * 3, (found, expected)
print("the same")
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system forks no processes")
def test_a_child_that_is_forked_after_loading_computes_the_same(own_files: tuple[Path, Path]) -> None:
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[3])}
    command = [sys.executable, "-c", _FORKED, *map(str, own_files)]
    ran = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=240)
    assert (ran.returncode, ran.stdout) == (0, "the same\n"), ran.stderr
