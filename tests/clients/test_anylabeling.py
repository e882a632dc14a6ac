"""AnyLabeling's own code on what `nanosam export anylabeling` writes."""

from __future__ import annotations

import pytest

from tests.clients import any_labeling
from tests.clients.any_labeling import (  # noqa: F401
    config,
    model,
    predictor,
    test_a_click_on_the_picture_gives_the_outline_of_the_mask,
    test_boxes_give_the_masks_of_segment,
    test_the_config_has_every_key_that_this_version_asks_for,
)
from tests.clients.client import client

if any_labeling.CLIENT != "anylabeling":
    if any_labeling.CLIENT:
        pytest.skip(f"{any_labeling.CLIENT} is installed in its place", allow_module_level=True)
    client("anylabeling")
