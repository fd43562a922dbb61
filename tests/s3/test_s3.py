"""Everything that works on a local path, on a real S3-compatible server."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path

import fsspec
import numpy as np
import pytest
import xarray as xr

import kpms_zarr
from helpers.small import N_KEYPOINTS, SMALL
from kpms_zarr.cli import main
from kpms_zarr.compute.events import SweepEnded
from kpms_zarr.store.core import access, layout, regions
from kpms_zarr.store.core.blocks import Block
from kpms_zarr.store.core.consolidation import consolidate
from kpms_zarr.store.core.retry import StorageError
from kpms_zarr.store.model.levels import open_levels
from kpms_zarr.store.study.keypoints import create_keypoints, set_session_count, write_session_rows
from kpms_zarr.store.study.synthetic import SyntheticStudy, write_dlc_csv
from kpms_zarr.viz.explore import parts
from kpms_zarr.viz.explore.app import PAGES, page_module
from kpms_zarr.viz.explore.state import State
from kpms_zarr.viz.explore.study import Study
from kpms_zarr.viz.shared.style import load

pytestmark = [
    pytest.mark.s3,
    # Of aiohttp, for connections to a server that has been killed.
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]

KEY, SECRET = "kpmskey", "kpmssecret123"

STUDY = SyntheticStudy(n_sessions=3, n_frames=300, n_keypoints=N_KEYPOINTS, missing_fraction=0.02)


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    return write_dlc_csv(tmp_path_factory.mktemp("tracking"), STUDY)


def same_data(one, other):
    first, second = (
        access.dataset(s, "keypoints").drop_vars("ingest").load().drop_attrs() for s in (one, other)
    )
    xr.testing.assert_identical(first, second)


def set_up(store, files):
    """Ingest the sessions and find the principal components."""
    names = STUDY.settings
    kpms_zarr.ingest(store, files, fps=30, anterior=names.anterior, posterior=names.posterior)
    kpms_zarr.pca(store)


@pytest.fixture(scope="module")
def local(files, tmp_path_factory):
    """A study on a local path, fitted; only read."""
    store = str(tmp_path_factory.mktemp("local") / "study.zarr")
    set_up(store, files)
    kpms_zarr.quality(store)
    kpms_zarr.fit(store, model="first", config=SMALL)
    return store


@pytest.fixture(scope="module")
def fitted(server, reaching, files):
    """The same study on the server."""
    url = "s3://lab/fitted/study.zarr"
    with reaching() as reach:
        reach(server.port)
        set_up(url, files)
        kpms_zarr.quality(url)
        kpms_zarr.fit(url, model="first", config=SMALL)
    return url


def assert_same_fit(one, other, variables=("syllable", "latent")):
    first, second = (kpms_zarr.open_labels(store, "first").load() for store in (one, other))
    for name in variables:
        np.testing.assert_array_equal(first[name], second[name])


def test_whole_job__as_on_a_local_path(fitted, local, reach, server, tmp_path):
    reach(server.port)
    same_data(fitted, local)
    for name in ("quality", "pca"):
        one, other = (access.dataset(s, name).load().drop_attrs() for s in (fitted, local))
        xr.testing.assert_identical(one, other)
    assert_same_fit(fitted, local)
    one, other = (kpms_zarr.summary(store, model="first") for store in (fitted, local))
    xr.testing.assert_equal(one, other)
    assert kpms_zarr.verify(fitted).is_sound
    assert kpms_zarr.info(fitted).models[0].name == "first"
    page = tmp_path / "report.html"
    kpms_zarr.report(fitted, model="first", out=page)
    assert page.stat().st_size > 10_000


@pytest.mark.full
def test_ensemble__as_on_a_local_path(fitted, local, reach, server):
    """Chains, consensus, and labels of a session by it."""
    reach(server.port)
    config = replace(SMALL, sessions=("session_00[01]",), ar_sweeps=6, sweeps=3)
    for store in (fitted, local):
        kpms_zarr.fit(store, model="e", config=config, chains=2)
        kpms_zarr.consensus(store, models=["e-01", "e-02"], model="again", sweeps=2)
        kpms_zarr.apply(store, model="e", sessions=["session_002"], check=False)
    for model in ("e-01", "e", "again"):
        first, second = (kpms_zarr.open_labels(store, model).load() for store in (fitted, local))
        for name in {"syllable", "certainty", "latent"} & set(first.data_vars):
            np.testing.assert_array_equal(first[name], second[name])
    one, other = (kpms_zarr.summary(store, model="e") for store in (fitted, local))
    xr.testing.assert_equal(one, other)
    assert kpms_zarr.verify(fitted).is_sound


# ------------------------------------------------------------------ faults


@pytest.mark.full
def test_ingest__goes_on_after_503s_and_slow_answers(server, reach, proxy, files, tmp_path, full):
    reach(proxy.port)
    url = f"s3://lab/{tmp_path.name}-503/study.zarr"
    proxy.delay, proxy.fail_every = 0.01, 7 if full else 17
    result = kpms_zarr.ingest(url, files, fps=30)
    proxy.delay, proxy.fail_every = 0.0, 0
    assert result.added == STUDY.session_names
    assert [1 for _, _, status in proxy.seen.paths if status == 503]
    kpms_zarr.ingest(tmp_path / "study.zarr", files, fps=30)
    same_data(url, str(tmp_path / "study.zarr"))


@pytest.mark.full
def test_ingest__goes_on_after_the_server_was_killed(server, url, files, tmp_path, caplog):
    killed = []

    def kill(progress):
        if progress.stage == "load" and not killed:
            server.kill()
            killed.append(True)
            threading.Timer(2.0, server.start).start()

    result = kpms_zarr.ingest(url, files, fps=30, on_progress=kill, workers=1)
    assert killed
    assert result.added == STUDY.session_names
    assert "trying again" in caplog.text
    kpms_zarr.ingest(tmp_path / "study.zarr", files, fps=30)
    same_data(url, str(tmp_path / "study.zarr"))


@pytest.mark.full
def test_server_that_stays_away__is_a_clear_error_and_loses_nothing(
    server, url, files, monkeypatch
):
    kpms_zarr.ingest(url, files[:1], fps=30)
    monkeypatch.setenv("KPMS_ZARR_WAIT", "1")
    server.kill()
    try:
        with pytest.raises(StorageError, match="could not be reached"):
            kpms_zarr.ingest(url, files, fps=30)
    finally:
        server.start()
    monkeypatch.delenv("KPMS_ZARR_WAIT")
    assert [s.name for s in access.sessions(url)] == ["session_000"]
    assert kpms_zarr.ingest(url, files, fps=30).added == ("session_001", "session_002")
    assert kpms_zarr.verify(url).is_sound


@pytest.mark.full
def test_fit__goes_on_after_the_server_was_killed_in_its_middle(server, url, files, local):
    set_up(url, files)
    killed = []

    def kill(event):
        if isinstance(event, SweepEnded) and len(killed) == 0 and event.sweep == 3:
            server.kill()
            killed.append(True)
            threading.Timer(2.0, server.start).start()

    kpms_zarr.fit(url, model="first", config=SMALL, save_every=2, callbacks=[kill])
    assert killed
    assert_same_fit(url, local)


class Stop:
    """A callback that ends a fit in its midst."""

    def __init__(self, sweep):
        self.sweep = sweep

    def __call__(self, event):
        if isinstance(event, SweepEnded) and event.sweep == self.sweep:
            raise ZeroDivisionError


@pytest.mark.full
def test_fit__is_resumed_from_what_it_has_committed(url, files, local):
    """Ends with the labels, certainties and levels of detail of a fit that nobody stopped."""
    set_up(url, files)
    with pytest.raises(ZeroDivisionError):
        kpms_zarr.fit(url, model="first", config=SMALL, save_every=2, callbacks=[Stop(5)])
    assert kpms_zarr.open_progress(url, "first").attrs["n_sweeps"] == 4
    begun = []
    kpms_zarr.fit(url, model="first", config=SMALL, resume=True, callbacks=[begun.append])
    ended = [event.sweep for event in begun if isinstance(event, SweepEnded)]
    assert ended == [5, 6, 7]
    assert_same_fit(url, local, ("syllable", "latent", "centroid", "heading", "certainty"))
    one, other = (open_levels(s, "first").load().drop_attrs() for s in (url, local))
    xr.testing.assert_identical(one, other)


# ------------------------------------------------------------------ many at once

_INGEST = """
import sys, kpms_zarr
kpms_zarr.ingest(sys.argv[1], sys.argv[2:], fps=30)
"""


def test_two_ingests_at_once__both_arrive(server, url, files, tmp_path):
    """The second waits for the first; neither loses a session of the other."""
    commands = [[files[0]], files[1:]]
    running = [
        subprocess.Popen(
            [sys.executable, "-c", _INGEST, url, *map(str, some)],
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        )
        for some in commands
    ]
    assert [process.wait(timeout=180) for process in running] == [0, 0]
    assert {s.name for s in access.sessions(url)} == set(STUDY.session_names)
    assert kpms_zarr.verify(url).is_sound


def test_two_writers_of_labels__each_its_sessions(url, files):
    kpms_zarr.ingest(url, files, fps=30)
    group = access.open_group(url, "r+")
    layout.create_arrays(
        group.create_group("scratch"), "labels", {"session": 3, "frame": 300}, ("syllable",)
    )

    def write(row):
        array = access.open_group(url, "r+")["scratch/syllable"]
        for value in range(5):
            regions.write(array, Block(row, 0, 300), np.full(300, value + row), n_frames=300)

    threads = [threading.Thread(target=write, args=(row,)) for row in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    found = access.open_group(url)["scratch/syllable"][:]
    np.testing.assert_array_equal(found, np.repeat([[4], [5], [6]], 300, axis=1))


@pytest.mark.full
def test_readers__see_one_version_or_the_other_while_labels_are_published(url, files, full):
    """Ten at once, from before the first commit until after the last version."""
    set_up(url, files)
    kpms_zarr.fit(url, model="m", config=SMALL)
    known = {"v1": _sum(kpms_zarr.open_labels(url, "m"))}
    is_over, seen, errors = threading.Event(), Counter(), []

    def look():
        while not is_over.is_set():
            try:
                seen[_sum(kpms_zarr.open_labels(url, "m"))] += 1
            except Exception as error:
                errors.append(error)
            time.sleep(0.2 if full else 1.0)

    threads = [threading.Thread(target=look) for _ in range(10)]
    for thread in threads:
        thread.start()
    config = replace(SMALL, seed=1)
    kpms_zarr.fit(url, model="m", config=config, overwrite=True, save_every=1 if full else 3)
    is_over.set()
    for thread in threads:
        thread.join()
    known["v2"] = _sum(kpms_zarr.open_labels(url, "m"))
    assert not errors
    assert known["v1"] != known["v2"]
    assert set(seen) <= set(known.values())
    assert sum(seen.values()) > 10


def _sum(labels):
    """A number that tells two labellings apart."""
    values = labels["syllable"].values.astype(np.int64)
    return int((values * np.arange(1, values.size + 1).reshape(values.shape)).sum())


# ------------------------------------------------------------------ requests


def frame_requests(seen):
    return [path for _, path, _ in seen.paths if "position/c/" in path or "confidence/c/" in path]


PASSES = {"quality": 6, "pca": 12}
"""How often a verb goes over all frames, most of them for medians and the outlying points; each
time it takes a request for each chunk."""


def test_requests__of_frames_are_as_few_as_the_chunks(server, reach, proxy, tmp_path):
    reach(proxy.port)
    url = f"s3://lab/{tmp_path.name}-requests/study.zarr"
    study = SyntheticStudy(lengths=(20_000, 300, 40_000), n_keypoints=5, missing_fraction=0.02)
    files = write_dlc_csv(tmp_path / "tracking", study)
    chunks = 2 * (2 + 1 + 3)  # position and confidence
    seen = proxy.fresh()
    names = study.settings
    kpms_zarr.ingest(url, files, fps=30, anterior=names.anterior, posterior=names.posterior)
    assert len(frame_requests(seen)) == chunks
    for verb, per_chunk in PASSES.items():
        seen = proxy.fresh()
        getattr(kpms_zarr, verb)(url)
        n_requests = len(frame_requests(seen))
        assert n_requests <= 1.3 * per_chunk * chunks, verb


def test_requests__opening_a_store_of_many_sessions_takes_a_handful(server, reach, proxy, tmp_path):
    reach(proxy.port)
    url = f"s3://lab/{tmp_path.name}-many/study.zarr"
    root = access.create(url)
    group = create_keypoints(root, STUDY.settings)
    n_sessions = 10_000
    names = [f"session_{i:05}" for i in range(n_sessions)]
    set_session_count(group, n_sessions, 1000)
    columns = ("session", "individual", "recording", "source", "source_hash", "source_format")
    write_session_rows(group, 0, dict.fromkeys(columns, names), 30.0)
    group["n_frames"][:] = np.full(n_sessions, 1000)
    consolidate(root)
    seen = proxy.fresh()
    tree = xr.open_datatree(url, engine="zarr", chunks={})
    assert tree["keypoints"].sizes["session"] == n_sessions
    assert seen.n <= 16, seen.paths
    seen = proxy.fresh()
    xr.open_zarr(url, group="keypoints")
    assert seen.n <= 16, seen.paths
    seen = proxy.fresh()
    assert len(access.sessions(url)) == n_sessions
    assert seen.n <= 16, seen.paths


# ------------------------------------------------------------------ who may what


def test_reader__reads_and_is_refused_a_write(server, reach, url, files):
    kpms_zarr.ingest(url, files, fps=30)
    reach(server.port, key="reader", secret="readersecret")
    assert len(access.sessions(url)) == 3
    assert np.isfinite(xr.open_zarr(url, group="keypoints").position.isel(session=0)).any()
    with pytest.raises(OSError, match=r"(?i)denied|forbidden|permission"):
        kpms_zarr.remove(url, ["session_000"])
    assert len(access.sessions(url)) == 3


def test_storage_options__reach_the_store_and_are_written_nowhere(
    server, reach, url, files, monkeypatch, capsys
):
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_ENDPOINT_URL"):
        monkeypatch.delenv(name)
    options = {"key": KEY, "secret": SECRET, "endpoint_url": f"http://127.0.0.1:{server.port}"}
    given = [f"--storage-option={name}={value}" for name, value in options.items()]
    assert main(["ingest", url, *map(str, files), "--fps", "30", *given]) == 0
    assert main(["info", url, "--json", *given]) == 0
    assert main(["verify", url, *given]) == 0
    printed = "".join(capsys.readouterr())
    assert "session_000" in printed
    assert SECRET not in printed
    fs, path = fsspec.core.url_to_fs(url)
    assert not [name for name in fs.find(path) if SECRET.encode() in fs.cat(name)]


# ------------------------------------------------------------------ looked at


def test_pages__are_drawn_from_a_store_on_s3(fitted, reach, server, monkeypatch):
    reach(server.port)
    load()
    told = []
    monkeypatch.setattr(parts, "empty", lambda *words: told.append(words) or parts.text("-"))
    for page in PAGES:
        page_module(page).page(State(Study(fitted), page=page, syllable=0)).get_root()
    # What is not there: videos, groups, change points, and five onsets of one syllable.
    assert {words[0][:8] for words in told} == {"No video", "Sessions", "Change p", "Expected"}
    assert any("5 onsets of a syllable" in words[0] for words in told)


@pytest.mark.full
@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*zmq.*", "ignore::DeprecationWarning")
def test_notebook__explores_a_store_on_s3(fitted, reach, server, monkeypatch, tmp_path):
    nbclient = pytest.importorskip("nbclient", reason="needs nbclient, see the extra test")
    nbformat = pytest.importorskip("nbformat")
    reach(server.port)
    monkeypatch.setenv("KPMS_ZARR_STORE", fitted)
    path = Path(__file__).resolve().parents[2] / "notebooks" / "07_explore.ipynb"
    notebook = nbformat.read(path, as_version=4)
    nbclient.NotebookClient(
        notebook, timeout=300, kernel_name="python3", resources={"metadata": {"path": tmp_path}}
    ).execute()
    assert kpms_zarr.syllable_names(fitted, "first")["name"].values[0] == "commonest"
