"""The store itself: format version, provenance, schema, label versions, and reading without us."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import threading
import warnings
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest
import zarr

import kpms_zarr
from kpms_zarr.store.core import access, regions
from kpms_zarr.store.core.blocks import Block, iter_blocks
from kpms_zarr.store.core.provenance import provenance_of
from kpms_zarr.store.core.schema import (
    DIMS,
    FORMAT_VERSION,
    FRAMES_PER_CHUNK,
    GROUPS,
    LABEL_FRAMES_PER_CHUNK,
    variable,
)
from kpms_zarr.store.errors import InputError, ReadOnlyError
from kpms_zarr.store.ingest.ingest import ingest
from kpms_zarr.store.ingest.remove import remove
from kpms_zarr.store.ingest.verify import verify
from kpms_zarr.store.model.info import info
from kpms_zarr.store.model.models import (
    LabelWriter,
    list_models,
    open_labels,
    open_parameters,
    require_model,
    write_parameters,
)
from kpms_zarr.store.study.settings import parse_skeleton, read_settings
from kpms_zarr.store.study.synthetic import (
    SyntheticStudy,
    simulate_session,
    write_dlc_csv,
    write_store,
)

STUDY = SyntheticStudy(n_sessions=3, n_frames=300, n_keypoints=4, is_ragged=True)
N_LATENT = 2


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    write_store(place := tmp_path_factory.mktemp("written") / "study.zarr", STUDY)
    return place


@pytest.fixture
def store(written, tmp_path):
    return shutil.copytree(written, tmp_path / "study.zarr")


def write_version(store, model="m", *, seed=0, publish=True):
    """A small hand-made label version with its parameters."""
    rng = np.random.default_rng(seed)
    root = access.open_group(store, "r+")
    sessions = access.sessions(root)
    writer = LabelWriter(
        root,
        model,
        sessions=sessions,
        settings=read_settings(root),
        names=("syllable", "latent", "centroid", "heading"),
        n_latent=N_LATENT,
    )
    for block in iter_blocks(sessions, writer.block_frames):
        n = block.n_frames
        values = {
            "syllable": rng.integers(0, 3, n).astype(np.int16),
            "latent": rng.normal(size=(n, N_LATENT)),
            "centroid": rng.normal(size=(n, 2)),
            "heading": rng.normal(size=n),
        }
        writer.write(block, values)
    trace = {"trace_log_likelihood": np.zeros(2), "trace_n_used": np.array([3, 3])}
    keypoints = np.asarray(read_settings(root).keypoints, dtype=object)
    write_parameters(root, model, writer.version, {"keypoint": keypoints, **trace}, {"seed": seed})
    if publish:
        writer.publish("fit", {"seed": seed}, {"frequency": np.ones(3) / 3, "n_used": 3})
    return writer


# --- format ----------------------------------------------------------------------------


def test_open_group__refuses_a_newer_format(store):
    zarr.open_group(store, mode="r+").attrs["kpms_zarr_format"] = FORMAT_VERSION + 1
    for reading in (access.open_group, access.sessions, info, list_models):
        with pytest.raises(InputError, match="upgrade"):
            reading(store)


def test_open_group__refuses_what_is_no_store(store, tmp_path):
    with pytest.raises(InputError, match="no Zarr group there"):
        access.open_group(tmp_path / "missing.zarr")
    assert not (tmp_path / "missing.zarr").exists()
    with pytest.raises(InputError, match=r"the one given to `kpms_zarr\.ingest`"):
        access.open_group(store / "keypoints")
    with pytest.raises(InputError, match="no Zarr group there"):
        access.open_group(store / "keypoints" / "position")
    (store / "zarr.json").write_text("{")
    with pytest.raises(InputError, match="damaged"):
        access.open_group(store)


def test_open_group__remote_without_its_package_says_what_to_do(monkeypatch):
    monkeypatch.setitem(sys.modules, "s3fs", None)
    with pytest.raises(InputError, match=r"kpms_zarr\[s3\]"):
        access.open_group("s3://bucket/study.zarr")


def test_create__goes_around_what_a_killed_write_left(tmp_path):
    place = tmp_path / "study.zarr"
    place.mkdir()
    (place / "zarr.0123.partial").write_text("{")
    access.create(place)
    assert access.sessions(place) == ()


# --- provenance and schema -------------------------------------------------------------


@pytest.fixture(scope="module")
def full_store(written, tmp_path_factory):
    """Ingested, with quality, PCA and two versions of a model; nobody writes to it."""
    from kpms_zarr import changepoints, pca, quality

    store = shutil.copytree(written, tmp_path_factory.mktemp("full") / "study.zarr")
    quality(store)
    pca(store)
    changepoints(store)
    write_version(store)
    write_version(store, seed=1)
    return store


def groups_of(group, path=""):
    yield path, group
    for name, below in group.groups():
        yield from groups_of(below, f"{path}/{name}")


def kind_of(path):
    parts = path.strip("/").split("/")
    return parts[2] if parts[0] == "models" else parts[0]


def test_every_group__has_provenance(full_store):
    found = dict(groups_of(access.open_group(full_store)))
    assert {"", "/keypoints", "/quality", "/pca", "/models/m/labels/v2"} <= found.keys()
    for path, group in found.items():
        record = provenance_of(group.attrs)
        assert record, f"{path or '/'} has no provenance"
        assert record.keys() == {"action", "created_by", "created", "versions", "settings"}
        assert record["versions"]["zarr"]
        json.dumps(record, allow_nan=False)


def test_every_variable__is_as_declared(full_store):
    seen = set()
    for path, group in groups_of(access.open_group(full_store)):
        for name, array in group.arrays():
            declared = variable(kind_of(path), name)
            seen.add((kind_of(path), name))
            assert array.metadata.dimension_names == declared.dims, (path, name)
            if declared.dtype == "str":
                assert array.dtype.kind == "T" or array.dtype == object, (path, name)
            else:
                assert array.dtype == declared.dtype, (path, name)
            np.testing.assert_equal(np.asarray(array.fill_value)[()], np.asarray(declared.fill)[()])
            assert dict(array.attrs)["long_name"] == declared.meaning
            assert array.attrs.get("units", "") == declared.units
    for kind in ("keypoints", "quality", "pca", "changepoints"):
        assert seen >= {(kind, v.name) for v in GROUPS[kind] if not v.optional}


def test_schema__uses_declared_dims_once():
    assert LABEL_FRAMES_PER_CHUNK % FRAMES_PER_CHUNK == 0
    for kind, variables in GROUPS.items():
        names = [v.name for v in variables]
        assert len(set(names)) == len(names), kind
        assert {dim for v in variables for dim in v.dims} <= DIMS.keys()
        with pytest.raises(KeyError, match="not declared"):
            variable(kind, "wingspan")


def test_chunks__belong_to_one_session(full_store):
    root = access.open_group(full_store)
    for path in ("keypoints/position", "keypoints/confidence", "models/m/labels/v1/syllable"):
        assert root[path].chunks[0] == 1
    metadata = json.loads((full_store / "models/m/labels/v1/syllable/zarr.json").read_text())
    assert metadata["fill_value"] == -1
    codec, checksum = metadata["codecs"][-2:]
    assert (codec["name"], codec["configuration"]["cname"]) == ("blosc", "zstd")
    assert checksum["name"] == "crc32c"


# --- models ----------------------------------------------------------------------------


def test_label_versions__pointer_moves_only_on_publishing(store):
    write_version(store)
    first = open_labels(store, "m").load()
    pending = write_version(store, seed=1, publish=False)
    assert pending.version == "v2"
    assert require_model(store, "m") == "v1"
    assert list_models(store)[0].versions == ("v1",)
    with pytest.raises(InputError, match="'v2'"):
        open_labels(store, "m", "v2")
    pending.publish("fit", {})
    assert require_model(store, "m") == "v2"
    assert list_models(store)[0].versions == ("v1", "v2")
    assert open_labels(store, "m", "v1").load().identical(first)
    assert not (open_labels(store, "m").syllable == first.syllable).all()
    assert provenance_of(open_parameters(store, "m").attrs)["settings"] == {"seed": 1}
    assert provenance_of(open_parameters(store, "m", "v1").attrs)["settings"] == {"seed": 0}


def test_label_versions__an_interrupted_one_is_replaced(store, written):
    write_version(store)
    write_version(store, seed=5, publish=False)
    assert write_version(store, seed=1).version == "v2"
    other = shutil.copytree(written, store.parent / "other.zarr")
    write_version(other)
    write_version(other, seed=1)
    one, two = (open_labels(s, "m").load().drop_attrs() for s in (store, other))
    assert one.identical(two)


def test_label_versions__are_counted_not_sorted_as_text(store):
    root = access.open_group(store, "r+")
    given = {"sessions": access.sessions(root), "settings": read_settings(root)}
    for _ in range(11):
        LabelWriter(root, "m", **given).publish("fit", {})
    assert require_model(store, "m") == "v11"
    assert list_models(store)[0].versions == tuple(f"v{i}" for i in range(1, 12))


def test_labels__padding_is_minus_one_and_not_stored(store):
    write_version(store)
    labels = open_labels(store, "m").load()
    assert labels.syllable.dtype == np.int16
    assert labels.attrs["n_used"] == 3
    for row in range(3):
        n = int(labels.n_frames[row])
        assert (labels.syllable[row, :n] >= 0).all()
        assert (labels.syllable[row, n:] == -1).all()


def test_require_model__says_which_there_are(store):
    with pytest.raises(InputError, match="no fitted model"):
        require_model(store, "m")
    write_version(store, "first")
    with pytest.raises(InputError, match="the models first"):
        open_labels(store, "second")
    for name in ("", "a/b", "../up", ".hidden", "x" * 101):
        with pytest.raises(InputError, match="model="):
            require_model(store, name)


# --- blocks and regions ----------------------------------------------------------------


@pytest.mark.parametrize(
    ("start", "stop", "n_frames"),
    [(0, 100, 300), (1, 300, 300), (0, FRAMES_PER_CHUNK, 300), (100, 200, 200)],
)
def test_regions_write__refuses_unaligned_blocks(start, stop, n_frames, tmp_path):
    array = zarr.create_array(
        str(tmp_path / "a"), shape=(1, FRAMES_PER_CHUNK), chunks=(1, FRAMES_PER_CHUNK), dtype="f4"
    )
    with pytest.raises(ValueError, match=r"aligned|beyond"):
        regions.write(array, Block(0, start, stop), np.zeros(stop - start), n_frames=n_frames)
    with pytest.raises(ValueError, match="cannot hold"):
        regions.write(array, Block(0, 0, 300), np.zeros(299), n_frames=300)
    assert (array[:] == 0).all()


def test_iter_blocks__cover_every_frame_once():
    sessions = [access.Session("a", 0, 25, 30.0), access.Session("b", 3, 10, 30.0)]
    assert list(iter_blocks(sessions, 10)) == [
        Block(0, 0, 10), Block(0, 10, 20), Block(0, 20, 25), Block(3, 0, 10),
    ]  # fmt: skip


# --- reading without us ----------------------------------------------------------------

_WITHOUT_US = """
import json, sys
sys.modules["kpms_zarr"] = None
import numpy as np, xarray as xr
store = sys.argv[1]
tree = xr.open_datatree(store, engine="zarr", consolidated=False)
alone = xr.open_zarr(store, group="models/m/labels/v1", consolidated=False)
points = xr.open_zarr(store, group="keypoints", consolidated=False)
assert tree["keypoints"].to_dataset().identical(points)
syllable = alone.syllable.values
n_frames = alone.n_frames.values
print(json.dumps({
    "groups": list(tree.groups),
    "dims": list(points.position.dims),
    "coords": sorted(points.coords),
    "sessions": [str(s) for s in alone.session.values],
    "dtype": str(syllable.dtype),
    "sel": points.position.sel(session="session_001", keypoint="point2").dims,
    "padding": sorted({int(v) for row, n in zip(syllable, n_frames) for v in row[n:]}),
    "real": sorted({int(v) for row, n in zip(syllable, n_frames) for v in row[:n]}),
    "nan": bool(np.isnan(points.position.values[0, int(n_frames[0]):]).all()),
}))
"""


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_store__opens_with_plain_xarray(full_store):
    done = subprocess.run(
        [sys.executable, "-I", "-c", _WITHOUT_US, full_store],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert {"/keypoints", "/quality", "/pca", "/models/m/labels/v1"} <= set(found["groups"])
    assert found["dims"] == ["session", "frame", "keypoint", "space"]
    assert {"session", "keypoint", "space", "n_frames", "fps", "source"} <= set(found["coords"])
    assert found["sessions"] == list(STUDY.session_names)
    assert found["sel"] == ["frame", "space"]
    assert found["dtype"] == "int16"
    assert found["padding"] == [-1]
    assert found["real"] == [0, 1, 2]
    assert found["nan"]


# --- info, URLs, settings --------------------------------------------------------------


def test_info__numbers(store):
    write_version(store, "one")
    write_version(store, "two")
    write_version(store, "two", seed=1)
    write_version(store, "three", publish=False)
    found = info(store)
    lengths = [len(simulate_session(STUDY, i).syllable) for i in range(3)]
    assert [s.n_frames for s in found.sessions] == lengths
    assert [s.name for s in found.sessions] == list(STUDY.session_names)
    assert found.n_frames == sum(lengths)
    assert found.hours == pytest.approx(sum(lengths) / 30 / 3600)
    assert found.sessions[0].seconds == pytest.approx(lengths[0] / 30)
    assert found.format_version == FORMAT_VERSION
    assert found.settings == STUDY.settings
    assert [(m.name, m.current, m.versions) for m in found.models] == [
        ("one", "v1", ("v1",)),
        ("two", "v2", ("v1", "v2")),
    ]
    size = sum(path.stat().st_size for path in store.rglob("*") if path.is_file())
    assert sum(found.bytes_by_group.values()) == size
    assert set(found.bytes_by_group) == {"(metadata)", "keypoints", "models"}


def test_info__lists_epochs_timestamps_and_signals(store, tmp_path):
    found = info(store)
    assert (found.epochs, found.timestamps, found.signals) == (None, None, ())
    first, second, _ = found.sessions
    table = tmp_path / "epochs.csv"
    rows = [(first.name, 0, 2, "light"), (first.name, 2, 4, "dark"), (second.name, 1, 2, "dark")]
    lines = [",".join(map(str, row)) for row in rows]
    table.write_text("\n".join(["session,start_s,stop_s,condition", *lines, ""]))
    kpms_zarr.epochs(store, table)
    times = np.arange(first.n_frames) / first.fps + 5
    kpms_zarr.timestamps(store, {first.name: times})
    signal = tmp_path / "photometry.csv"
    for names in ([first.name], [second.name]):
        rows = [f"{name},{t},{t}" for name in names for t in (5.0, 5.5, 6.0)]
        signal.write_text("\n".join(["session,time,dFF", *rows, ""]))
        kpms_zarr.signals(store, signal)
    found = info(store)
    assert (found.epochs.version, found.epochs.conditions) == ("v1", ("dark", "light"))
    assert (found.epochs.n_intervals, found.epochs.sessions) == (3, (first.name, second.name))
    assert (found.timestamps.versions, found.timestamps.sessions) == (("v1",), (first.name,))
    (dff,) = found.signals
    assert (dff.name, dff.versions) == ("dFF", ("v1", "v2"))
    assert dff.sessions == (first.name, second.name)
    kpms_zarr.signals(store, "none", name="dFF")
    assert info(store).signals == ()


def test_info__store_without_sessions(tmp_path):
    access.create(tmp_path / "s.zarr")
    found = info(tmp_path / "s.zarr")
    assert (found.n_frames, found.sessions, found.models) == (0, (), ())
    with pytest.raises(InputError, match=r"kpms_zarr\.ingest"):
        access.require_sessions(tmp_path / "s.zarr")


def test_memory_url__create_write_and_read(tmp_path):
    files = write_dlc_csv(tmp_path / "tracking", STUDY)
    url = f"memory://{tmp_path.name}/study.zarr"
    ingest(url, files)
    ingest(tmp_path / "study.zarr", files)
    for store in (url, str(tmp_path / "study.zarr")):
        write_version(store)
    for group in ("keypoints", "models/m/labels/v1"):
        one, two = (
            access.dataset(s, group).load().drop_attrs().drop_vars("ingest", errors="ignore")
            for s in (url, tmp_path / "study.zarr")
        )
        assert one.identical(two)  # but for when the sessions came in
    assert info(url).n_frames == info(tmp_path / "study.zarr").n_frames
    assert info(url).bytes_by_group.keys() == info(tmp_path / "study.zarr").bytes_by_group.keys()
    (tmp_path / "bad.csv").write_text(files[0].read_text()[:-20])
    with pytest.raises(InputError):
        ingest(f"{url}-2", [tmp_path / "bad.csv"])
    assert not access.exists(f"{url}-2")


@pytest.fixture
def web(tmp_path):
    """Function: the address of a file or folder in the temporary folder."""
    pytest.importorskip("aiohttp")
    handler = partial(QuietHandler, directory=str(tmp_path))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield lambda name: f"http://127.0.0.1:{server.server_address[1]}/{name}"
        server.shutdown()
        thread.join()


class QuietHandler(SimpleHTTPRequestHandler):
    """Serves files, and lists no folders, as most web servers."""

    def log_message(self, *given):
        pass

    def list_directory(self, path):
        self.send_error(404)


# Of aiohttp, when the test ends before its connections.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_web_address__is_read_and_not_written(tmp_path, web):
    store = tmp_path / "study.zarr"
    ingest(store, write_dlc_csv(tmp_path / "tracking", STUDY))
    write_version(store)
    url = web("study.zarr")
    assert info(url).sessions == info(store).sessions
    assert [m.name for m in info(url).models] == ["m"]
    assert info(url).bytes_by_group == {}
    one, two = (access.dataset(s, "keypoints").load() for s in (url, store))
    assert one.identical(two)
    assert open_labels(url, "m").load().identical(open_labels(store, "m").load())
    assert verify(url).damages == verify(store).damages  # of a model written by hand
    assert verify(url).notes == []
    for write in (lambda: remove(url, "*"), lambda: ingest(url, [tmp_path / "tracking"])):
        with pytest.raises(ReadOnlyError, match="web address"):
            write()


def test_parse_skeleton__names_with_dashes():
    assert parse_skeleton("a-b, b-c") == [("a", "b"), ("b", "c")]
    assert parse_skeleton("tail-1-tail-2", ["tail-1", "tail-2"]) == [("tail-1", "tail-2")]
    with pytest.raises(InputError, match="skeleton="):
        parse_skeleton("a,b")


def test_simulate_session__is_the_same_every_time():
    one, two = simulate_session(STUDY, 1), simulate_session(STUDY, 1)
    np.testing.assert_array_equal(one.position, two.position)
    assert not np.array_equal(simulate_session(STUDY, 0).position[:50], one.position[:50])
    assert one.syllable.dtype == np.int16


def test_dataset__is_silent_about_what_is_half_deleted_beside_it(tmp_path):
    root = access.create(tmp_path / "s.zarr")
    group = root.create_group("some")
    group.create_array("x", shape=(3,), dtype="f4", dimension_names=("a",))
    (tmp_path / "s.zarr" / "some" / "gone").mkdir()
    (tmp_path / "s.zarr" / "some" / "gone" / "c").write_text("")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert list(access.dataset(tmp_path / "s.zarr", "some")) == ["x"]
