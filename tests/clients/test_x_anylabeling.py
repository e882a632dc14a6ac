"""X-AnyLabeling's own code on what `nanosam export anylabeling` writes."""

from __future__ import annotations

import os

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

if any_labeling.CLIENT != "x-anylabeling-cvhub":
    assert not os.environ.get("NANOSAM_TEST_CLIENTS"), "x-anylabeling-cvhub is not installed"
    pytest.skip("x-anylabeling-cvhub is not installed; `make test-clients` runs this", allow_module_level=True)
