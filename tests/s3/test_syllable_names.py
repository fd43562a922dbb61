"""Names of syllables, and example bouts, in a bucket."""

from __future__ import annotations

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest

from kpms_zarr.store.core import access
from kpms_zarr.store.core.blocks import iter_blocks
from kpms_zarr.store.core.consolidation import is_current
from kpms_zarr.store.errors import InputError
from kpms_zarr.store.model import models
from kpms_zarr.store.model.syllable_names import name_syllable, read_names
from kpms_zarr.store.study.synthetic import SyntheticStudy, simulate_session, write_store
from kpms_zarr.viz.shared.opened import OpenModel
from kpms_zarr.viz.syllables.examples import examples_in

pytestmark = [pytest.mark.s3, pytest.mark.slow]

STUDY = SyntheticStudy(n_sessions=2, n_frames=600)
NAME = """
import sys
from kpms_zarr.store.model.syllable_names import name_syllable
name_syllable(sys.argv[1], "m", int(sys.argv[2]), name=f"name {sys.argv[2]}")
"""


@pytest.fixture
def store(url):
    write_store(url, STUDY)
    root = access.open_group(url, "r+")
    writer = models.LabelWriter(root, "m", sessions=access.sessions(root), settings=STUDY.settings)
    for block in iter_blocks(access.sessions(root), writer.block_frames):
        labels = simulate_session(STUDY, block.session).syllable[block.start : block.stop]
        writer.write(block, {"syllable": labels})
    writer.publish("fit", {})
    return url


def test_names__two_processes_lose_nothing_and_leave_no_lease(store):
    def name(syllable: int) -> int:
        command = [sys.executable, "-c", NAME, store, str(syllable)]
        return subprocess.run(command, timeout=180).returncode

    with ThreadPoolExecutor(2) as pool:
        assert list(pool.map(name, (1, 2))) == [0, 0]
    names = read_names(store, "m")
    assert (names.custom_name(1), names.custom_name(2), names.version) == ("name 1", "name 2", "v2")
    root = access.open_group(store)
    assert is_current(root)
    assert access.subgroup(root, "models/m/labels/lock") is None


def test_names__without_the_right_to_write_say_so(store, monkeypatch):
    async def denied(*_: object, **__: object) -> None:
        raise PermissionError("Access Denied")

    monkeypatch.setattr("kpms_zarr.store.core.remote.PatientStore.replace", denied)
    with pytest.raises(InputError, match="read only"):
        name_syllable(store, "m", 1, name="rear")


def test_examples__reads_them_from_there(store):
    labels = OpenModel(store, "m").labels
    found = examples_in(labels, syllables=[0, 1], before=0, after=0.1)
    assert all(found.values())
