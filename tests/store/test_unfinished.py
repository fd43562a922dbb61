"""What a process that was killed while it published leaves is no damage; lost attributes are."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

import kpms_zarr
from helpers.labels import publish_labels
from kpms_zarr.store.core import access, layout
from kpms_zarr.store.core.consolidation import update_attributes
from kpms_zarr.store.ingest.rows import UNFINISHED
from kpms_zarr.store.model import models
from kpms_zarr.store.study.synthetic import SyntheticStudy, write_store

STUDY = SyntheticStudy(n_sessions=2, n_frames=200, n_keypoints=3)


@pytest.fixture
def store(tmp_path):
    place = tmp_path / "study.zarr"
    write_store(place, STUDY)
    return place


def publish(store, seed=0):
    rng = np.random.default_rng(seed)
    labels = {name: rng.integers(0, 3, 200) for name in STUDY.session_names}
    return publish_labels(store, STUDY, "m", labels)


def begin(store, *, parameters):
    """What a publication has written when it is killed before its end."""
    root = access.open_group(store, "r+")
    sessions = access.sessions(root)
    writer = models.LabelWriter(root, "m", sessions=sessions, settings=STUDY.settings)
    if parameters:
        above = models.make_group(root, f"{layout.model_path('m')}/parameters")
        group = above.create_group(writer.version)
        group.create_array("state", data=np.arange(3), dimension_names=("state",))
    return writer.version


@pytest.mark.parametrize("parameters", [False, True])
@pytest.mark.parametrize("published", [0, 1])
def test_unfinished_version__is_harmless(store, published, parameters):
    for seed in range(published):
        publish(store, seed)
    version = begin(store, parameters=parameters)
    assert version == f"v{published + 1}"
    found = kpms_zarr.verify(store)
    assert not [damage for damage in found.damages if f"/{version}" in damage.where]
    left = [note for note in found.notes if "killed; harmless" in note]
    assert len(left) == 1 + parameters
    assert publish(store) == version  # it takes the place of what was left


@pytest.mark.parametrize("which", ["v1", "v2"])
def test_published_version_without_its_attributes__is_damage(store, which):
    publish(store, 0)
    publish(store, 1)
    place = store / "models/m/labels" / which / "zarr.json"
    text = json.loads(place.read_text())
    text["attributes"] = {}
    place.write_text(json.dumps(text))
    found = kpms_zarr.verify(store)
    assert not found.is_sound
    assert [
        damage for damage in found.damages if damage.where.startswith(f"models/m/labels/{which}")
    ]


@pytest.mark.parametrize("goes_on", ["repair", "ingest"])
def test_killed_removal__leaves_no_trace_of_the_sessions(tmp_path, goes_on):
    study, store = replace(STUDY, n_sessions=3), tmp_path / "study.zarr"
    write_store(store, study)
    root = access.open_group(store, "r+")
    update_attributes(root, layout.KEYPOINTS, {UNFINISHED: True})
    lengths = access.keypoints_group(root)["n_frames"]
    lengths[:2] = 0  # and nothing after it
    if goes_on == "repair":
        kpms_zarr.verify(store, repair=True)
    else:  # of one session, which takes one of the two empty rows
        names = study.settings.keypoints
        position = {"new": np.zeros((3, len(names), 2), np.float32)}
        kpms_zarr.ingest(store, arrays=position, keypoint_names=list(names), fps=30)
    found = kpms_zarr.verify(store)
    assert found.is_sound, found.damages
    names = access.keypoints_group(access.open_group(store))["session"][:]
    new = ["new"] if goes_on == "ingest" else []
    assert sorted(filter(None, names)) == [*new, study.session_names[2]]
