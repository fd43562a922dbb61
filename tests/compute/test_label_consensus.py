"""Consensus of files of labels: that of models, with neither a store nor a fit."""

from __future__ import annotations

import itertools
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

import kpms_zarr
from helpers.small import N_KEYPOINTS, SMALL
from kpms_zarr.compute.analysis.agreement import adjusted_rand_index, effective_number
from kpms_zarr.store.core import access
from kpms_zarr.store.errors import InputError
from kpms_zarr.store.study import synthetic

LENGTHS = {"b": 400, "a": 300, "c": 350}
N = 6


def member(
    seed: int, truth: dict[str, np.ndarray], share: float, *, spread: int = 1
) -> dict[str, np.ndarray]:
    """Labels with some wrong bouts, and numbers of their own: ``spread`` apart."""
    rng = np.random.default_rng(seed)
    number = rng.permutation(N) * spread
    found = {}
    for name, z in truth.items():
        z = z.copy()
        for start in np.flatnonzero(rng.random(len(z)) < share / 5):
            z[start : start + 5] = rng.integers(N)
        found[name] = number[z]
    return found


def truth_of(lengths: dict[str, int], seed: int = 0) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    return {name: np.repeat(rng.integers(0, N, n), 10)[:n] for name, n in lengths.items()}


TRUTH = truth_of(LENGTHS)
MEMBERS = [member(seed, TRUTH, 0.3, spread=1 + 7 * seed) for seed in range(6)]


def as_table(labels: dict[str, np.ndarray], **columns: str) -> pd.DataFrame:
    names = {"session": "session", "frame": "frame", "syllable": "syllable", **columns}
    return pd.concat(
        pd.DataFrame({names["session"]: name, names["frame"]: np.arange(len(z)),
                      names["syllable"]: z})
        for name, z in labels.items()
    )  # fmt: skip


def write(folder: Path, members: list[dict[str, np.ndarray]] = MEMBERS) -> list[Path]:
    """A csv of each member, each in its own way."""
    paths = []
    for i, labels in enumerate(members):
        path = folder / f"fit{i}.csv"
        if i % 3 == 2:
            path = path.with_suffix(".npz")
            np.savez(path, **dict(reversed(labels.items())))
        elif i % 3 == 1:
            shuffled = as_table(labels, syllable="state").sample(frac=1, random_state=0)
            shuffled.to_csv(path, index=False)
        else:
            as_table(labels, syllable="label").drop(columns="frame").to_csv(path, index=False)
        paths.append(path)
    return paths


@pytest.fixture(scope="module")
def found() -> Any:
    return kpms_zarr.consensus_of_labels(MEMBERS, fps=30, target_duration=200)


def flat(labels: dict[str, np.ndarray]) -> np.ndarray:
    return np.concatenate([labels[name] for name in LENGTHS])


def labels_in(result: Any, name: str = "syllable") -> dict[str, np.ndarray]:
    one = result.set_index(session="session") if "session" not in result.indexes else result
    return {
        str(s): one[name].sel(session=s).values[: int(one["n_frames"].sel(session=s))]
        for s in one["session"].values
    }


# ------------------------------------------------------------------ what is found


def test_consensus__is_nearer_to_the_truth_than_its_members(found):
    z = flat(labels_in(found))
    single = [adjusted_rand_index(flat(one), flat(TRUTH)) for one in MEMBERS]
    assert adjusted_rand_index(z, flat(TRUTH)) > max(single) + 0.1
    assert found["session"].values.tolist() == list(LENGTHS)
    assert found.attrs["n_used"] == N
    assert found.attrs["effective_number"] == pytest.approx(effective_number(np.bincount(z)))
    # A wrong twin: the commonest number of a frame, without finding which are the same.
    every = np.stack([flat(one) for one in MEMBERS])
    plain = np.array([np.bincount(column).argmax() for column in every.T])
    assert adjusted_rand_index(plain, flat(TRUTH)) < min(single)


def test_consensus__says_of_its_members_what_formulas_say(found):
    z = flat(labels_in(found))
    every = [flat(one) for one in MEMBERS]
    expected = [adjusted_rand_index(one, z) for one in every]
    np.testing.assert_allclose(found["member_rand_index"].values, expected)
    for i, j in itertools.combinations(range(len(every)), 2):
        index = adjusted_rand_index(every[i], every[j])
        assert found["pair_rand_index"].values[i, j] == pytest.approx(index)
    pairs = found["pair_rand_index"].values[np.triu_indices(len(every), 1)]
    assert found.attrs["mean_pair_rand_index"] == pytest.approx(pairs.mean())
    numbers = found["member_number"].values
    for row, one in zip(numbers, every, strict=True):
        assert row[row >= 0].tolist() == np.unique(one).tolist()
    # The certainty of a frame is the share of the members whose label votes for it.
    votes = found["member_syllable"].values
    share = np.mean([
        np.array([votes[m][np.searchsorted(numbers[m], label)] for label in one]) == z
        for m, one in enumerate(every)
    ], axis=0)  # fmt: skip
    certainty = flat(labels_in(found, "certainty"))
    np.testing.assert_allclose(certainty, share, atol=1 / 256)


def test_consensus__durations_are_those_asked_for_and_without_fps_in_frames(found):
    assert 150 < found.attrs["median_duration_overall"] < 350
    in_frames = kpms_zarr.consensus_of_labels(MEMBERS)
    assert in_frames.attrs["duration_unit"] == "frames"
    runs = np.diff(np.flatnonzero(np.diff(flat(MEMBERS[0]), prepend=-1)))
    assert in_frames["member_median_duration"].values[0] == pytest.approx(np.median(runs), abs=1)
    assert in_frames.attrs["target_duration"] == in_frames["member_median_duration"].mean()


def test_consensus__does_not_depend_on_numbers_and_kinds_of_files(found, tmp_path):
    paths = write(tmp_path)
    out = tmp_path / "out.csv"
    same = kpms_zarr.consensus_of_labels(paths, fps=30, target_duration=200, out=out)
    assert same["member"].values.tolist() == [f"fit{i}" for i in range(6)]
    for name in ("syllable", "certainty", "second_syllable", "replicability"):
        np.testing.assert_array_equal(same[name].values, found[name].values)
    table = pd.read_csv(out)
    assert list(table) == ["session", "frame", "syllable", "certainty", "second_syllable",
                           "second_certainty"]  # fmt: skip
    assert table["session"].drop_duplicates().tolist() == list(LENGTHS)
    assert (table["syllable"].values == flat(labels_in(found))).all()
    np.testing.assert_allclose(table["certainty"], flat(labels_in(found, "certainty")), atol=1e-4)


@pytest.mark.parametrize("suffix", ["csv", "npz"])
def test_labels__that_were_written_are_read_again(found, tmp_path, suffix):
    out = tmp_path / f"out.{suffix}"
    kpms_zarr.consensus_of_labels(MEMBERS, fps=30, target_duration=200, out=out)
    pair = kpms_zarr.compare(labels={"a": out, "b": labels_in(found)}).pairs[0]
    assert pair.adjusted_rand_index == pair.matched_share == 1
    assert pair.n_frames == sum(LENGTHS.values())


# ------------------------------------------------------------------ frames without labels


def test_frames_without_labels__have_no_vote_and_none_where_nobody_has_one():
    given = [{name: z.astype(float) for name, z in one.items()} for one in MEMBERS]
    for one in given:
        one["a"][50:80] = np.nan
        one["b"][-20:] = -1
    for one in given[:3]:
        one["c"][100:200] = -1
    found = kpms_zarr.consensus_of_labels(given)
    z = labels_in(found)
    for name, some in (("a", slice(50, 80)), ("b", slice(-20, None))):
        assert (z[name][some] == -1).all()
        assert np.isnan(labels_in(found, "certainty")[name][some]).all()
    assert sum((row == -1).sum() for row in z.values()) == 50
    whole = labels_in(kpms_zarr.consensus_of_labels(MEMBERS))
    truth = TRUTH["c"][100:200]
    assert adjusted_rand_index(z["c"][100:200], truth) > 0.5
    assert adjusted_rand_index(whole["c"][100:200], truth) > 0.5
    counts = kpms_zarr.compare(labels={"a": z, "b": given[0]}).models["n_frames"].values
    assert counts.tolist() == [1000, 900]


def test_halves__need_four_members(found):
    assert "two halves of the 6 chains" in found.attrs["replicability_in_words"]
    assert 0 < found.attrs["half_rand_index"] <= 1
    assert ((found["replicability"] >= 0) & (found["replicability"] <= 1)).all()
    three = kpms_zarr.consensus_of_labels(MEMBERS[:3])
    assert "for which it takes 4" in three.attrs["replicability_in_words"]
    assert "half_rand_index" not in three.attrs
    assert "replicability" not in three


# ------------------------------------------------------------------ as of models


def test_consensus__of_files_is_that_of_models_with_these_labels(tmp_path):
    study = synthetic.SyntheticStudy(
        lengths=(300, 250, 200), n_syllables=5, n_keypoints=N_KEYPOINTS, n_latent=3, seed=5
    )
    store = tmp_path / "study.zarr"
    synthetic.write_store(store, study)
    kpms_zarr.pca(store, variance=0.99)
    config = replace(SMALL, ar_sweeps=2, sweeps=2)
    kpms_zarr.fit(store, model="m0", config=config)
    names = [f"m{i}" for i in range(5)]
    truth = truth_of(dict(zip(study.session_names, study.lengths, strict=True)))
    for i, name in enumerate(names):
        if i:
            shutil.copytree(store / "models" / "m0", store / "models" / name)
        array = access.open_group(store, "r+")[f"models/{name}/labels/v1/syllable"]
        for row, z in enumerate(member(i, truth, 0.3).values()):
            array[row, : len(z)] = z
    made = kpms_zarr.consensus(store, models=names, model="all", target_duration=250.0, sweeps=1)
    published = kpms_zarr.open_labels(store, "all").load()
    files = []
    for i, name in enumerate(names):
        table = as_table(member(i, truth, 0.3))
        table.loc[table["frame"] < config.lags, "syllable"] = -1  # there, models have no state
        files.append(tmp_path / f"{name}.csv")
        table.to_csv(files[-1], index=False)
    fps = float(published["fps"].values[0])
    found = kpms_zarr.consensus_of_labels(files, fps=fps, target_duration=250.0)
    for row, session in enumerate(study.session_names):
        frames = slice(config.lags, study.lengths[row])
        for variable in ("syllable", "certainty", "second_syllable", "second_certainty"):
            np.testing.assert_array_equal(
                found[variable].sel(session=session).values[frames],
                published[variable].sel(session=session).values[frames].astype(np.float32),
            )
        assert (found["syllable"].sel(session=session).values[: config.lags] == -1).all()
    n = found.sizes["state"]
    for variable in ("replicability", "member_agreement"):
        np.testing.assert_array_equal(found[variable].values, published[variable].values[:n])
    for name in ("half_rand_index", "half_matched_share", "half_effective_number"):
        assert found.attrs[name] == published.attrs[name]
    assert (
        found.attrs["change_price"] == kpms_zarr.open_parameters(store, "all").attrs["change_price"]
    )
    assert found.attrs["half_rand_index"] == made.half_rand_index
    assert found.attrs["half_rand_index"] > 0.5


# ------------------------------------------------------------------ what goes together


def test_files_of_one_session__need_not_name_it(tmp_path):
    for i, one in enumerate(MEMBERS[:4]):
        pd.DataFrame({"frame": np.arange(10, 310), "syllable": one["a"]}).to_csv(
            tmp_path / f"f{i}.csv", index=False
        )
    files = [tmp_path / f"f{i}.csv" for i in range(4)]
    found = kpms_zarr.consensus_of_labels(files, out=tmp_path / "out.npz")
    assert found["session"].values.tolist() == ["session"]
    np.testing.assert_array_equal(found["frame_number"].values[0], np.arange(10, 310))
    # One that names it gives the name; frames that were written are read again.
    as_table({"mouse": MEMBERS[4]["a"]}).assign(frame=np.arange(10, 310)).to_csv(
        tmp_path / "named.csv", index=False
    )
    found = kpms_zarr.consensus_of_labels([*files, tmp_path / "named.csv"])
    assert found["session"].values.tolist() == ["mouse"]
    again = kpms_zarr.compare(labels=[tmp_path / "out.npz", files[0]])
    assert again.pairs[0].n_frames == 300


def test_rows_that_are_missing__are_said(tmp_path):
    table = as_table(MEMBERS[0])
    for i in range(2):
        (table[table["frame"] % 50 != 7]).to_csv(tmp_path / f"f{i}.csv", index=False)
    found = kpms_zarr.consensus_of_labels([tmp_path / "f0.csv", tmp_path / "f1.csv"])
    assert "rows are missing between the frames of b, a, c" in found.attrs["notes"]


def changed(**sessions: Any) -> dict[str, np.ndarray]:
    kept = {**MEMBERS[1], **sessions}
    return {name: z for name, z in kept.items() if z is not None}


@pytest.mark.parametrize(
    ("other", "words"),
    [
        (changed(a=None), r"labels 'y'.*the sessions of labels 'x'.*no 'a'"),
        (changed(d=np.zeros(5, int)), r"labels 'y'.*also 'd'"),
        (changed(c=MEMBERS[1]["c"][:-3]), r"'y', session 'c'.*350, from 0 to 349.*347, from 0 to"),
        (changed(c=np.full(350, 0.5)), r"'y', 'c'.*whole numbers of syllables, found 0.5"),
        ({name: np.full(n, -1) for name, n in LENGTHS.items()}, "'y'.*a label for some"),
        ({}, "'y'.*labels of a session"),
        (Path("nothing.csv"), "nothing.csv"),
    ],
)
def test_labels__that_do_not_go_together_are_refused_with_file_session_and_frames(other, words):
    with pytest.raises(InputError, match=f"(?s){words}") as caught:
        kpms_zarr.consensus_of_labels({"x": MEMBERS[0], "y": other, "z": MEMBERS[2]})
    assert "What to do" in str(caught.value)


def test_frames__that_differ_within_are_said(tmp_path):
    table = as_table({"a": MEMBERS[0]["a"]})
    table.to_csv(tmp_path / "x.csv", index=False)
    other = table.assign(frame=np.where(table["frame"] == 299, 300, table["frame"]))
    other.to_csv(tmp_path / "y.csv", index=False)
    with pytest.raises(InputError, match=r"y.csv, session 'a'.*300, from 0 to 300"):
        kpms_zarr.consensus_of_labels([tmp_path / "x.csv", tmp_path / "y.csv"])
    pd.concat([table, table.iloc[[3]]]).to_csv(tmp_path / "z.csv", index=False)
    with pytest.raises(InputError, match=r"z.csv, 'a'.*frame 3 more than once"):
        kpms_zarr.consensus_of_labels([tmp_path / "x.csv", tmp_path / "z.csv"])


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"labels": MEMBERS[:1]}, "two fits or more"),
        ({"labels": "fit.csv"}, "a list of files"),
        ({"labels": ["fit.csv", "fit.csv"]}, "each file once"),
        ({"target_duration": 400}, "frames per second, for a median"),
        ({"target_duration": 0, "fps": 30}, "a duration above 0"),
        ({"fps": 0}, "frames per second of session 'b'"),
        ({"fps": {"a": 30}}, "frames per second of session 'b'"),
        ({"out": "out.txt"}, r"ends in .csv or .npz"),
        ({"out": "no/such/out.csv"}, "a folder that exists"),
    ],
)
def test_consensus_of_labels__refuses_what_makes_no_sense(options, words):
    with pytest.raises(InputError, match=words):
        kpms_zarr.consensus_of_labels(**{"labels": MEMBERS, **options})


def test_labels__are_not_written_over_those_that_they_are_made_of(tmp_path):
    paths = write(tmp_path)
    before = paths[0].read_bytes()
    with pytest.raises(InputError, match="a place of its own"):
        kpms_zarr.consensus_of_labels(paths, out=tmp_path / "." / "fit0.csv")
    assert paths[0].read_bytes() == before


# ------------------------------------------------------------------ compare without a store


def test_compare__of_files_alone_is_that_of_labellings(tmp_path):
    paths = write(tmp_path)[:2]
    found = kpms_zarr.compare(labels=paths, fps=30)
    a, b = (flat(one) for one in MEMBERS[:2])
    pair = found.pair("fit0", "fit1")
    assert pair.adjusted_rand_index == pytest.approx(adjusted_rand_index(a, b))
    assert (found.store, pair.n_frames) == ("", len(a))
    assert set(pair.confusion["syllable_b"].values) == set(np.unique(b))
    assert found.models["median_duration"].values.tolist() == pytest.approx(
        kpms_zarr.consensus_of_labels(paths, fps=30)["member_median_duration"].values.tolist()
    )
    assert np.isnan(kpms_zarr.compare(labels=paths).models["median_duration"]).all()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"models": ["m"]}, "the store of the models"),
        ({"sessions": ["a"]}, "the store of the models and sessions"),
        ({"store": "s.zarr", "fps": 30}, "as the store has them"),
    ],
)
def test_compare__without_a_store_refuses_what_only_it_has(options, words):
    with pytest.raises(InputError, match=words):
        kpms_zarr.compare(**{"labels": MEMBERS[:2], **options})
