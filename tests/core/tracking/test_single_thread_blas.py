from __future__ import annotations

from threadpoolctl import threadpool_info, threadpool_limits

from nanosam_cli.core.tracking.single_thread_blas import one_thread


def blas_threads() -> list[int]:
    return [library["num_threads"] for library in threadpool_info() if library["user_api"] == "blas"]


def test_blas_has_one_thread_meanwhile() -> None:
    with threadpool_limits(2, "blas"):
        before = blas_threads()
        assert 2 in before
        with one_thread():
            assert blas_threads() == [1] * len(before)
        assert one_thread()(blas_threads)() == [1] * len(before)
        assert blas_threads() == before
