from __future__ import annotations

from contextlib import closing
from math import nan
from pathlib import Path

import pytest
from PIL import Image

pytest.importorskip("matplotlib", reason="pictures need the extra `plot`")

from nanosam_cli.core.training.plots import plot_run
from nanosam_cli.core.training.run_log import EvaluationReport, RunLog, StepReport


@pytest.mark.parametrize(
    ("iou", "evaluated", "panels"),
    [(nan, False, 1), (nan, True, 2), (0.6, False, 2)],  # features alone; with an evaluation; masks
)
def test_there_is_a_panel_for_what_there_is(tmp_path: Path, iou: float, evaluated: bool, panels: int) -> None:
    with closing(RunLog(tmp_path, keep=0)) as log:
        for step in range(1, 4):
            log.add(StepReport(step, 1 / step, iou, 1e-3, 10, 0.1, features=0.5 / step))
        if evaluated:
            log.add(EvaluationReport(3, {"all": 0.7, "large": nan}))
    with Image.open(plot_run(tmp_path)) as picture:
        assert picture.size == (540 * panels, 480)
