"""Levels of detail come with what fit and apply publish, and never stand in its way."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import kpms_zarr
from helpers.small import N_KEYPOINTS, SMALL
from kpms_zarr.compute.runs import publish
from kpms_zarr.store.model.levels import bin_modes, open_levels
from kpms_zarr.store.study import synthetic

STUDY = synthetic.SyntheticStudy(
    lengths=(200, 150), n_syllables=4, n_keypoints=N_KEYPOINTS, n_latent=3, seed=2
)
CONFIG = replace(SMALL, ar_sweeps=2, sweeps=2, sessions=("session_000",))


@pytest.fixture
def store(tmp_path: Path) -> Path:
    synthetic.write_store(tmp_path / "study.zarr", STUDY)
    kpms_zarr.pca(tmp_path / "study.zarr", variance=0.99)
    return tmp_path / "study.zarr"


def check(store: Path, version: str) -> None:
    """That the levels of a version are those of its labels."""
    labels = kpms_zarr.open_labels(store, "m", version)
    found = open_levels(store, "m", version)
    assert found is not None
    assert found["session"].values.tolist() == labels["session"].values.tolist()
    for row, n_frames in enumerate(labels["n_frames"].values):
        certainty = labels["certainty"].values[row, :n_frames] if "certainty" in labels else None
        modes = bin_modes(labels["syllable"].values[row, :n_frames], 16, certainty)
        n = len(modes.syllable)
        np.testing.assert_array_equal(found["syllable_16"].values[row, :n], modes.syllable)
        np.testing.assert_array_equal(found["share_16"].values[row, :n], modes.share)
        assert ("certainty_16" in found) == ("certainty" in labels)
        if modes.certainty is not None:
            np.testing.assert_array_equal(found["certainty_16"].values[row, :n], modes.certainty)


class Killed(BaseException):
    """Nothing catches it."""


@pytest.mark.full
def test_levels__of_every_version_even_after_a_kill(
    store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(*_: object) -> None:
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(publish, "write_levels", killed)
        with pytest.raises(Killed):
            kpms_zarr.fit(store, model="m", config=CONFIG)
    # The labels are there already; going on adds what is missing and no other version.
    assert kpms_zarr.open_labels(store, "m")["n_frames"].values.tolist() == [200]
    assert open_levels(store, "m") is None
    kpms_zarr.fit(store, model="m", resume=True)
    check(store, "v1")

    kpms_zarr.apply(store, model="m", sweeps=3, check=False)
    check(store, "v1")
    check(store, "v2")
    assert kpms_zarr.verify(store).damages == []
    (model,) = kpms_zarr.info(store).models
    assert (model.current, model.versions, model.n_sessions) == ("v2", ("v1", "v2"), 2)

    told: list[object] = []

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(publish, "write_levels", full)
    kpms_zarr.fit(store, model="m", config=CONFIG, overwrite=True, callbacks=[told.append])
    assert kpms_zarr.open_labels(store, "m", "v3")["n_frames"].values.tolist() == [200]
    assert open_levels(store, "m") is None
    assert any("No space left" in str(event) for event in told)
    assert kpms_zarr.verify(store).damages == []
