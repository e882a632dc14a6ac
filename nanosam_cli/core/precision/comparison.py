"""Two sessions on the same inputs, run and compared by Polygraphy's Comparator."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from time import perf_counter
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from polygraphy.backend.base import BaseRunner
from polygraphy.common import TensorMetadata
from polygraphy.comparator import Comparator, CosineSimilarityCompareFunc, RunResults, SimpleCompareFunc

from nanosam_cli.core.inference.session import Session, Tensor, host
from nanosam_cli.core.precision.polygraphy_log import polygraphy_errors
from nanosam_cli.core.precision.proof import OutputDifference

Feeds: TypeAlias = Mapping[str, Tensor]
Outputs: TypeAlias = Mapping[str, NDArray[Any]]


class SessionRunner(BaseRunner):  # type: ignore[misc]  # Polygraphy has no types
    """What users run, as Polygraphy's Comparator takes it."""

    def __init__(self, session: Session, name: str) -> None:
        super().__init__(name=name)
        self._session = session

    def get_input_metadata_impl(self) -> Any:
        metadata = TensorMetadata()
        for info in self._session.inputs:
            metadata.add(info.name, np.dtype(info.dtype), info.shape)
        return metadata

    def infer_impl(self, feed_dict: Feeds) -> OrderedDict[str, NDArray[Any]]:
        start = perf_counter()
        outputs = self._session.run(feed_dict)
        found = OrderedDict((name, host(value)) for name, value in outputs.items())
        self.inference_time = perf_counter() - start
        return found


def run(session: Session, feeds: Sequence[Feeds], name: str) -> list[Outputs]:
    """All outputs for each of the feeds."""
    with polygraphy_errors():
        results: Any = Comparator.run([SessionRunner(session, name)], data_loader=list(feeds))
    return [dict(iteration.items()) for iteration in results[name]]


def compare_outputs(expected: Sequence[Outputs], found: Sequence[Outputs]) -> tuple[OutputDifference, ...]:
    """Each output that both have, over all runs."""
    names = [name for name in expected[0] if name in found[0]]
    results = RunResults()
    sides = ("expected", "found")
    for side, runs in zip(sides, (expected, found)):
        results.add([OrderedDict((name, run[name]) for name in names) for run in runs], runner_name=side)
    with polygraphy_errors(), np.errstate(invalid="ignore", over="ignore"):
        functions = [SimpleCompareFunc(check_error_stat="max"), CosineSimilarityCompareFunc()]
        simple, cosine = (found_of[sides] for found_of in Comparator.compare_accuracy(results, compare_func=functions))
    return tuple(
        OutputDifference(
            output=name,
            max_error=_worst([run[name].max_absdiff for run in simple]),
            mean_error=float(np.mean([run[name].mean_absdiff for run in simple])),
            cosine=-_worst([-run[name].cosine_similarity for run in cosine]),
            not_finite=sum(int(np.count_nonzero(~np.isfinite(run[name]))) for run in found),
        )
        for name in names
    )


def _worst(values: Sequence[float]) -> float:
    """The largest; NaN where one is."""
    return float(np.max(values))
