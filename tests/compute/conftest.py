"""Stores made from other stores."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from kpms_zarr.store.core import access
from kpms_zarr.store.study.keypoints import create_keypoints, set_session_count, write_session_rows
from kpms_zarr.store.study.settings import read_settings, write_settings


def _copy_store(source, path, *, keypoints=None, factor=1.0, order=None):
    """Write a store anew: some keypoints, positions times a factor, sessions in another order."""
    root, old = access.create(path), access.open_group(source)["keypoints"]
    before = read_settings(source)
    kept = tuple(keypoints or before.keypoints)
    anterior, posterior = (
        tuple(name for name in side if name in kept) for side in (before.anterior, before.posterior)
    )
    study = replace(before, keypoints=kept, anterior=anterior, posterior=posterior, skeleton=())
    columns = [before.keypoints.index(name) for name in study.keypoints]
    write_settings(root, study)
    group = create_keypoints(root, study)
    sessions = access.sessions(source)
    sessions = [sessions[i] for i in order or range(len(sessions))]
    factors = np.broadcast_to(factor, len(sessions))
    set_session_count(group, len(sessions), max(s.n_frames for s in sessions))
    names = ("session", "recording", "source", "source_hash", "source_format", "individual")
    for row, session in enumerate(sessions):
        n_frames = session.n_frames
        position = old["position"][session.index, :n_frames][:, columns] * factors[row]
        group["position"][row, :n_frames] = position.astype(np.float32)
        group["confidence"][row, :n_frames] = old["confidence"][session.index, :n_frames][
            :, columns
        ]
        table = {name: [str(old[name][session.index])] for name in names}
        write_session_rows(group, row, table, session.fps)
        group["n_frames"][row] = n_frames
    return path


@pytest.fixture(scope="session")
def copy_store():
    """The function ``copy_store(source, path, keypoints=, factor=, order=)``."""
    return _copy_store
