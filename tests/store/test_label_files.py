"""Labels of other packages: every way in which people have them, and what is refused."""

from __future__ import annotations

import os
import pickle
import tempfile
from pathlib import Path

import h5py
import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from helpers.amount import examples
from kpms_zarr.store.errors import InputError
from kpms_zarr.store.ingest.label_files import FileLabels
from kpms_zarr.store.ingest.label_numbers import MAX_SYLLABLES
from kpms_zarr.store.ingest.label_sources import source_of
from kpms_zarr.store.study.synthetic import SyntheticStudy, write_store

STUDY = SyntheticStudy(n_sessions=3, n_frames=400, is_ragged=True)
FIRST = STUDY.session_names[0]


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    place = tmp_path_factory.mktemp("labels") / "study.zarr"
    write_store(place, STUDY)
    return place


@pytest.fixture(scope="module")
def arrays(store):
    from kpms_zarr.store.core import access

    rng = np.random.default_rng(0)
    return {s.name: rng.integers(0, 9, s.n_frames) * 7 + 3 for s in access.sessions(store)}


def read(store, given):
    """Labels by session as they were numbered."""
    labels = FileLabels(store, "x", given)
    try:
        assert labels.certainty(0, 0, 1) is None
        numbers = np.append(np.asarray(labels.numbers, dtype=int), -1)
        return {
            s.name: numbers[labels.syllable(s.index, 0, s.n_frames)] for s in labels.sessions
        }, labels.notes
    finally:
        labels.close()
        assert not os.path.exists(labels._path)


def assert_equal(found, expected):
    assert set(found) == set(expected)
    for name, row in expected.items():
        np.testing.assert_array_equal(found[name], np.where(np.isnan(row) | (row < 0), -1, row))


# ------------------------------------------------------------------ what people have


def as_npz(folder, arrays):
    np.savez(folder / "labels.npz", **arrays)
    return folder / "labels.npz"


def as_results_h5(folder, arrays):
    with h5py.File(folder / "results.h5", "w") as file:
        for name, row in arrays.items():
            file[f"{name}/syllable"] = row
            file[f"{name}/heading"] = np.zeros(len(row))
    return folder / "results.h5"


def as_flat_h5(folder, arrays):
    with h5py.File(folder / "flat.hdf5", "w") as file:
        for name, row in arrays.items():
            file[name] = row.astype(np.int16)
    return folder / "flat.hdf5"


def as_results_folder(folder, arrays):
    """A csv file for each session, with other columns beside."""
    (folder / "results").mkdir()
    for name, row in arrays.items():
        table = pd.DataFrame({"centroid x": 1.5, "heading": 0.1, "syllable": row})
        table.to_csv(folder / "results" / f"{name}.csv", index=False)
    return folder / "results"


def as_npy_folder(folder, arrays):
    (folder / "npy").mkdir()
    for name, row in arrays.items():
        np.save(folder / "npy" / f"{name}.npy", row[:, None])
    return folder / "npy"


def long_table(arrays, session="name", frame="frame_index"):
    return pd.concat(
        [
            pd.DataFrame({session: name, frame: np.arange(len(row)), "velocity": 0.5,
                          "syllable": row})
            for name, row in arrays.items()
        ]
    )  # fmt: skip


def as_long_csv(folder, arrays):
    long_table(arrays).to_csv(folder / "moseq_df.csv", index=False)
    return folder / "moseq_df.csv"


def as_long_csv_without_frames(folder, arrays):
    long_table(arrays).drop(columns="frame_index").to_csv(folder / "rows.csv", index=False)
    return folder / "rows.csv"


def as_long_csv_in_any_order(folder, arrays):
    table = long_table(arrays, "session", "frame").sample(frac=1, random_state=0)
    table.to_csv(folder / "long.csv", sep=";")
    return folder / "long.csv"


def as_long_parquet(folder, arrays):
    long_table(arrays).to_parquet(folder / "long.parquet", index=False)
    return folder / "long.parquet"


def as_wide_csv(folder, arrays):
    pd.DataFrame({name: pd.Series(row) for name, row in arrays.items()}).to_csv(
        folder / "wide.csv", index=False
    )
    return folder / "wide.csv"


def as_wide_csv_with_index(folder, arrays):
    pd.DataFrame({name: pd.Series(row) for name, row in arrays.items()}).to_csv(folder / "w.csv")
    return folder / "w.csv"


WAYS = [as_npz, as_results_h5, as_flat_h5, as_results_folder, as_npy_folder, as_long_csv,
        as_long_csv_in_any_order, as_long_parquet, as_wide_csv, as_wide_csv_with_index]  # fmt: skip


@pytest.mark.parametrize("way", WAYS)
def test_labels__are_read_however_people_have_them(way, store, arrays, tmp_path):
    found, notes = read(store, way(tmp_path, arrays))
    assert_equal(found, arrays)
    assert notes == ("x: 3 sessions found: 3 by name",)


def test_labels__are_taken_as_arrays(store, arrays):
    given = {name: row.astype(float) for name, row in arrays.items()}
    given[FIRST][5:9] = np.nan
    given[FIRST][20] = -1
    found, _ = read(store, given)
    assert_equal(found, given)
    assert (found[FIRST][5:9] == -1).all()


def test_labels__of_one_session_are_a_file_of_its_name(store, arrays, tmp_path):
    np.save(tmp_path / f"{FIRST}.npy", arrays[FIRST])
    pd.DataFrame({"syllable": arrays[FIRST]}).to_csv(tmp_path / f"{FIRST}.csv")
    for suffix in ("npy", "csv"):
        found, _ = read(store, tmp_path / f"{FIRST}.{suffix}")
        assert_equal(found, {FIRST: arrays[FIRST]})


def test_labels__of_a_table_may_leave_frames_out(store, arrays, tmp_path):
    table = long_table(arrays)
    table[table["frame_index"] % 3 == 0].to_csv(tmp_path / "third.csv", index=False)
    found, _ = read(store, tmp_path / "third.csv")
    expected = {n: np.where(np.arange(len(r)) % 3 == 0, r, -1) for n, r in arrays.items()}
    assert_equal(found, expected)


def test_labels__of_a_table_without_frames_follow_each_other(store, arrays, tmp_path):
    """Those of a session, whatever rows of others lie between them."""
    table = long_table(arrays).sort_values("frame_index", kind="stable")
    table.drop(columns="frame_index").to_csv(tmp_path / "rows.csv", index=False)
    assert_equal(read(store, tmp_path / "rows.csv")[0], arrays)


def test_labels__of_one_session_may_leave_frames_out(store, arrays, tmp_path):
    row = arrays[FIRST]
    table = pd.DataFrame({"frame": np.arange(len(row)), "state": row})
    table[table["frame"] % 4 == 1].to_csv(tmp_path / f"{FIRST}.csv", index=False)
    expected = {FIRST: np.where(np.arange(len(row)) % 4 == 1, row, -1)}
    assert_equal(read(store, tmp_path / f"{FIRST}.csv")[0], expected)


@pytest.mark.parametrize("way", [as_long_csv, as_long_csv_without_frames, as_wide_csv_with_index])
def test_tables__are_read_in_pieces(way, tmp_path):
    study = SyntheticStudy(n_sessions=2, n_frames=100_000, n_keypoints=3)
    write_store(tmp_path / "study.zarr", study)
    rng = np.random.default_rng(0)
    given = {name: rng.integers(0, 90, study.n_frames) for name in study.session_names}
    path = way(tmp_path, given)
    assert path.stat().st_size > 1_000_000
    assert_equal(read(tmp_path / "study.zarr", path)[0], given)


def test_sessions__are_found_by_video_and_others_left_out(store, arrays):
    given = {f"{FIRST}.mp4": arrays[FIRST], "someone else": np.zeros(5, int)}
    found, notes = read(store, given)
    assert_equal(found, {FIRST: arrays[FIRST]})
    assert notes[1] == "x: no session for someone else, left out"


@settings(
    deadline=None,
    max_examples=examples(25),
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(st.integers(0, 2**40), st.integers(1, 30), st.integers(0, 2**32))
def test_labels__of_any_numbers_come_back(store, arrays, base, step, seed):
    rng = np.random.default_rng(seed)
    given = {n: base + step * rng.integers(-1, 50, len(r)) * 1 for n, r in arrays.items()}
    found, _ = read(store, given)
    assert_equal(found, given)


def test_labels__travel_as_the_path_of_a_scratch_file(store, arrays):
    labels = FileLabels(store, "x", arrays)
    data = pickle.dumps(labels)
    assert len(data) < 3000
    np.testing.assert_array_equal(pickle.loads(data).syllable(2, 7, 99), labels.syllable(2, 7, 99))
    labels.close()


# ------------------------------------------------------------------ what is refused


def changed(arrays, **rows):
    return {**arrays, FIRST: rows["row"]}


@pytest.mark.parametrize(
    ("row", "words"),
    [
        (lambda row: row[:-3], "one label for each of the"),
        (lambda row: np.append(row, 1), "one label for each of the"),
        (lambda row: row + 0.5, "whole numbers of syllables, found"),
        (lambda row: np.stack([row, row]), "an array of int64 of shape"),
        (lambda row: row.astype(str), "one whole number for each frame"),
        (lambda row: np.arange(len(row)) % 2 == 0, "one whole number for each frame"),
    ],
)
def test_arrays__that_are_no_labels_are_refused(store, arrays, row, words):
    with pytest.raises(InputError, match=words) as caught:
        read(store, changed(arrays, row=row(arrays[FIRST])))
    assert FIRST in str(caught.value)
    assert "labels 'x'" in str(caught.value)


def test_recordings__whose_names_hold_folders_are_found(tmp_path):
    with h5py.File(tmp_path / "results.h5", "w") as file:
        for number, name in enumerate(("a", "cage 1/a", "cage 1/day 2/b")):
            file[f"{name}/syllable"] = np.full(5, number)
            file[f"{name}/heading"] = np.zeros(5)
        file["cage 1/other"] = np.zeros(5)  # no recording
        file["cage 1/round"] = h5py.SoftLink("/cage 1")
    source = source_of(tmp_path / "results.h5", "here")
    assert set(source.keys) == {"a", "cage 1/a", "cage 1/day 2/b"}
    for piece in source.pieces(["cage 1/day 2/b"]):
        np.testing.assert_array_equal(piece.values, [2] * 5)


def test_files__that_are_none_are_refused_in_the_words_of_the_caller(store, arrays, tmp_path):
    (tmp_path / "a.txt").write_text("once upon a time\nthere was\n")
    (tmp_path / "a.doc").write_text("once upon a time\n")
    (tmp_path / "a.npz").write_bytes(b"PK\x03\x04 nothing")
    (tmp_path / "a.h5").write_bytes(b"\x89HDF nothing")
    (tmp_path / "empty").mkdir()
    np.savez(tmp_path / "objects.npz", **{FIRST: np.array([{}], dtype=object)})
    with h5py.File(tmp_path / "other.h5", "w") as file:
        file["something/else"] = [1, 2]
    cases = {
        "nothing.npz": "No such file",
        "a.txt": "labels of sessions of the store, such as session_000",
        "a.doc": "labels in a file of the kind npz, npy, csv",
        "a.npz": "what NumPy cannot read",
        "a.h5": "HDF5",
        "empty": "none of these in it",
        "objects.npz": "what NumPy cannot read",
        "other.h5": "a group for each session with a dataset syllable",
    }
    before = set(Path(tempfile.gettempdir()).glob("kpms_zarr_labels_*"))
    for name, words in cases.items():
        with pytest.raises(InputError, match=words) as caught:
            read(store, tmp_path / name)
        assert name in str(caught.value)
        assert "What to do" in str(caught.value)
    assert set(Path(tempfile.gettempdir()).glob("kpms_zarr_labels_*")) == before


def test_tables__that_contradict_themselves_are_refused(store, arrays, tmp_path):
    table = long_table(arrays)
    path = tmp_path / "long.csv"
    for wrong, words in (
        (pd.concat([table, table.iloc[[3]]]), "frame 3 of 'session_000' more than once"),
        (table.assign(frame_index=table["frame_index"] + 1), "frames from 0 to"),
        (table.assign(frame_index=table["frame_index"] + 0.5), "whole numbers of frames"),
        (table.drop(columns="frame_index").iloc[:-1], "one label for each of the"),
        (table.assign(syllable="walk"), "walk"),
    ):
        wrong.to_csv(path, index=False)
        with pytest.raises(InputError, match=words):
            read(store, path)
    wide = pd.DataFrame({name: pd.Series(row) for name, row in arrays.items()})
    wide.index = wide.index + 1
    wide.to_csv(path)
    with pytest.raises(InputError, match="numbered from 0 on, found frame 1 in place of 0"):
        read(store, path)


def test_labels__that_are_too_many_are_refused(store, arrays):
    rows = enumerate(arrays.items())
    given = {name: np.arange(len(row)) + 400 * i for i, (name, row) in rows}
    with pytest.raises(InputError, match=f"at most {MAX_SYLLABLES:,} different syllables"):
        read(store, given)


def test_sessions__that_are_named_twice_are_refused(store, arrays):
    with pytest.raises(InputError, match=FIRST):
        read(store, {FIRST: arrays[FIRST], FIRST.upper(): arrays[FIRST]})
