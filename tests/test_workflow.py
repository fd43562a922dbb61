"""The whole job in one call: what it decides, what it leaves alone, where it goes on."""

from __future__ import annotations

import signal
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest

import kpms_zarr
from kpms_zarr import cli, workflow
from kpms_zarr.compute.config import FitConfig
from kpms_zarr.compute.events import Noted, SweepEnded
from kpms_zarr.store.core import access
from kpms_zarr.store.core.nearby import store_at
from kpms_zarr.store.errors import InputError
from kpms_zarr.store.model.models import list_models
from kpms_zarr.store.study.synthetic import SyntheticStudy, write_dlc_csv

STUDY = SyntheticStudy(n_sessions=3, n_frames=600, n_keypoints=4)
NAMES = ("nose", "ear", "spine", "tailbase")
SMALL = partial(FitConfig, stage="ar", sweeps=3, n_states=8, latent_dim=2, segment_frames=64)


@pytest.fixture
def files(tmp_path):
    """Files whose keypoints have names that tell front and rear."""
    found = write_dlc_csv(tmp_path / "tracking", STUDY)
    for path in found:
        text = path.read_text()
        for i, name in enumerate(NAMES):
            text = text.replace(f"point{i}", name)
        path.write_text(text)
    return found


@pytest.fixture(autouse=True)
def small(monkeypatch):
    monkeypatch.setattr(workflow, "FitConfig", SMALL)


class Page(NamedTuple):
    """In place of a report, where it has been looked at."""

    path: str


def test_run__does_it_all_says_what_it_decided_and_goes_on(files, tmp_path, monkeypatch):
    store = tmp_path / "study.zarr"
    said = []
    found = kpms_zarr.run(
        store, files[:2], callbacks=[lambda e: said.append(e.text) if isinstance(e, Noted) else 0]
    )
    assert found.is_whole
    assert found.fit is not None
    assert Path(found.report) == tmp_path / "report.html"
    assert Path(found.report).stat().st_size > 1e5
    assert set(found.decisions) <= set(said)
    text = "\n".join(found.decisions)
    for part in (
        "2 sessions of 1,200 frames, at 30 frames a second",
        "the heading runs from tailbase to nose, by their names",
        "median syllable of 400 ms",
        "one chain",
    ):
        assert part in text
    assert kpms_zarr.info(store).settings.anterior == ("nose",)

    # Nothing new: nothing is fitted. A new file: all is fitted, the labels before stay.
    monkeypatch.setattr(workflow, "report", lambda store, model, out: Page(str(out)))
    again = kpms_zarr.run(store, files[:2])
    assert again.fit is None
    assert "not fitted again" in "\n".join(again.decisions)
    more = kpms_zarr.run(store, files)
    assert more.fit is not None
    (model,) = list_models(store)
    assert (model.name, model.versions, model.n_sessions) == ("first", ("v1", "v2"), 3)


def test_run__by_the_command_line_and_leaves_bad_files_out_as_asked(files, tmp_path, capsys):
    store = tmp_path / "study.zarr"
    bad = tmp_path / "tracking" / "bad.csv"
    bad.write_text(files[0].read_text()[:300])
    with pytest.raises(InputError):
        kpms_zarr.run(store, [*files, bad])
    assert not store.exists()
    line = ["run", str(store), *map(str, [*files, bad]), "--skip-bad", "--fps", "30"]
    assert cli.main(line) == 3
    captured = capsys.readouterr()
    assert "report.html" in captured.out
    assert str(bad) in captured.err
    assert "else --anterior and --posterior" in captured.err
    assert list_models(store)[0].n_sessions == 3


def test_run__finishes_a_fit_that_was_stopped(files, tmp_path, monkeypatch):
    store = tmp_path / "study.zarr"
    monkeypatch.setattr(workflow, "report", lambda store, model, out: Page(str(out)))

    def stop(event):
        if isinstance(event, SweepEnded) and event.sweep == 1:
            signal.raise_signal(signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        kpms_zarr.run(store, files, callbacks=[stop])
    assert list_models(store) == ()
    done = kpms_zarr.run(store)
    assert done.fit is not None
    whole = tmp_path / "whole.zarr"
    kpms_zarr.run(whole, files)
    a, b = (kpms_zarr.open_labels(place, "first")["syllable"].values for place in (store, whole))
    np.testing.assert_array_equal(a, b)


def test_run__asks_for_the_heading_where_no_name_tells_it(tmp_path, capsys, monkeypatch):
    files = write_dlc_csv(tmp_path / "tracking", STUDY)
    store = tmp_path / "study.zarr"
    with pytest.raises(InputError, match="no names that tell them: point0, point1"):
        kpms_zarr.run(store, files)
    assert cli.main(["run", str(store)]) == 2
    assert "--anterior and --posterior; or --fix-heading" in capsys.readouterr().err
    monkeypatch.setattr(workflow, "report", lambda store, model, out: Page(str(out)))
    found = kpms_zarr.run(store, anterior=["point0"], posterior=["point3"], model="own")
    assert found.fit is not None
    assert kpms_zarr.info(store).settings.posterior == ("point3",)


def test_run__of_an_animal_that_never_turns_needs_no_heading(tmp_path, monkeypatch):
    monkeypatch.setattr(workflow, "report", lambda store, model, out: Page(str(out)))
    store = tmp_path / "study.zarr"
    files = write_dlc_csv(tmp_path / "tracking", STUDY)
    found = kpms_zarr.run(store, files, fix_heading=True)
    assert "heading" not in "\n".join(found.decisions)
    assert not kpms_zarr.open_labels(store, "first")["heading"].values.any()


def test_store_at__is_the_one_in_a_folder(files, tmp_path, monkeypatch):
    place = tmp_path / "place"
    store = place / "study.zarr"
    kpms_zarr.ingest(store, files[:1])
    other = place / "results"
    other.mkdir()
    (other / "zarr.json").write_text("{}")  # of another kind
    assert store_at(place) == store_at(store) == str(store)
    monkeypatch.chdir(place)
    assert access.exists(store_at("."))
    assert store_at(tmp_path / "nothing") == str(tmp_path / "nothing")
    assert store_at("s3://bucket/study.zarr") == "s3://bucket/study.zarr"
    kpms_zarr.ingest(place / "second.zarr", files[1:])
    with pytest.raises(InputError, match=r"found 2: .*second.zarr.*study.zarr"):
        store_at(place)
