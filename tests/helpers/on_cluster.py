"""A small study for jobs on workers, and what its fits publish."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

import kpms_zarr
from helpers.small import N_KEYPOINTS, SMALL
from kpms_zarr.compute.events import Event, Noted, SweepEnded
from kpms_zarr.store.study import synthetic

STUDY = synthetic.SyntheticStudy(
    n_keypoints=N_KEYPOINTS, n_latent=3, seed=4, missing_fraction=0.05,
    lengths=(300, 2, 260, 5, 210, 290, 90, 310),
)  # fmt: skip
CONFIG = replace(
    SMALL, ar_sweeps=5, merge_sweeps=4, sweeps=5, target_duration=300.0, average_sweeps=4
)

_NOT_BITS = ("trace_seconds", "member_version")


def make_study(store: Path) -> Path:
    """Write the study, with its components."""
    synthetic.write_store(store, STUDY)
    kpms_zarr.pca(store)
    return store


def published(store: Any, model: str = "m") -> list[Any]:
    """Labels and parameters of a model."""
    return [
        opened(store, model).load() for opened in (kpms_zarr.open_labels, kpms_zarr.open_parameters)
    ]


def assert_same(one: list[Any], two: list[Any]) -> None:
    """All that is published, to the bit; wall times alone may differ."""
    for first, second in zip(one, two, strict=True):
        assert set(first.variables) == set(second.variables)
        for name in set(first.variables) - set(_NOT_BITS):
            np.testing.assert_array_equal(first[name].values, second[name].values, err_msg=name)


class Notes(list[str]):
    """What was said."""

    def __call__(self, event: Event) -> None:
        if isinstance(event, Noted):
            self.append(event.text)


class After:
    """Does something at every sweep from one on, or at that one alone."""

    def __init__(self, sweep: int, act: Callable[[], object], *, again: bool = False) -> None:
        self.sweep, self.act, self.again = sweep, act, again

    def __call__(self, event: Event) -> None:
        if isinstance(event, SweepEnded) and (
            event.sweep == self.sweep or (self.again and event.sweep > self.sweep)
        ):
            self.act()


class KillsOne:
    """Ends a worker at the first event of a kind; not by the client, in whose thread it may run."""

    def __init__(self, client: Any, is_due: Callable[[Event], bool]) -> None:
        self.pids, self.is_due, self.is_done = client.run(os.getpid), is_due, False

    def __call__(self, event: Event) -> None:
        if not self.is_done and self.is_due(event):
            self.kill()

    def kill(self) -> None:
        """End it now."""
        self.is_done = True
        os.kill(self.pids[min(self.pids)], signal.SIGKILL)
