"""Calls to workers that come and go."""

from __future__ import annotations

import threading
import time

import pytest

from kpms_zarr.compute.cluster.crew import Crew, Part


@pytest.mark.slow
@pytest.mark.parametrize("is_for_all", [True, pytest.param(False, marks=pytest.mark.full)])
def test_call__that_came_when_there_was_no_worker_is_taken_by_the_next_one(workers, is_for_all):
    with workers(1) as (cluster, client):
        crew = Crew(client)
        (gone,) = crew.workers()
        cluster.scale(0)
        while crew.there():
            time.sleep(0.1)
        timer = threading.Timer(1.5, lambda: cluster.scale(1))
        timer.start()
        parts = [Part("part 1", gone), Part("part 2", gone)]
        if is_for_all:
            found = crew.call(parts, str, lambda part, _: (part,))
        else:
            found = crew.call(parts, str, lambda part, _: (part,), anywhere=True)
        timer.join()
        assert found == ["0", "1"]
        assert {part.worker for part in parts} == set(crew.workers()) != {gone}
