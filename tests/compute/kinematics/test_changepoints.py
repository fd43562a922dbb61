"""Change points in a store: planted ones are found, blocks do not matter, onsets lie near."""

from __future__ import annotations

import shutil
from pathlib import Path

import dask
import numpy as np
import pytest

import kpms_zarr
from helpers import changing
from kpms_zarr.compute.kinematics import changepoints as module
from kpms_zarr.compute.kinematics import onset_alignment
from kpms_zarr.compute.kinematics.tracks import EgocentricTracks
from kpms_zarr.store.core import access, layout
from kpms_zarr.store.core.blocks import Block
from kpms_zarr.store.core.locking import changepoints_lock

FPS = 30.0
NAMES = [f"p{i}" for i in range(changing.N_POINTS)]
OPTIONS = {"anterior": ["p0"], "posterior": [NAMES[-1]], "outlier_scale": None}


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """A session that is longer than a block, a short one, and a tenth of the points missing."""
    both = {"a": changing.together(600, FPS, 1), "b": changing.together(90, FPS, 2)}
    arrays = {name: position.astype(np.float64) for name, (position, _) in both.items()}
    rng = np.random.default_rng(0)
    for position in arrays.values():
        starts = rng.integers(0, len(position) - 20, len(position) // 100)
        for start, point in zip(starts, rng.integers(1, changing.N_POINTS - 1, len(starts)),
                                strict=True):  # fmt: skip
            position[start : start + 10, point] = np.nan
    place = tmp_path_factory.mktemp("together") / "s.zarr"
    kpms_zarr.ingest(place, arrays=arrays, keypoint_names=NAMES, fps=FPS)
    found = kpms_zarr.changepoints(place, **OPTIONS)
    return place, {name: times for name, (_, times) in both.items()}, found


def test_changepoints__that_are_planted_are_found(study):
    _, planted, found = study
    near = complete = n_true = 0
    for name, times in planted.items():
        row = found.sel(session=name)
        frames = np.flatnonzero(row["changepoint"].values)
        away = np.abs(frames[:, None] / FPS - times)
        near += (away.min(1) < 0.1).sum()
        complete += (away.min(0) < 0.1).sum()
        n_true += len(times)
        assert int(row["n_changepoints"]) == len(frames)
        assert float(row["median_interval"]) == pytest.approx(
            np.median(np.diff(frames)) * 1000 / FPS, abs=1000 / FPS
        )
    n_found = found.attrs["n_changepoints"]
    assert near > 0.9 * n_found
    assert complete > 0.6 * n_true
    assert found.attrs["false_share"] <= 0.1
    assert found.attrs["n_at_least"] < 1.1 * n_true
    assert int(found["interval_count"].sum()) == n_found - len(planted)
    assert not found.attrs["notes"]


def test_changepoints__in_three_dimensions(tmp_path):
    """Found where they are planted, in animals that walk and turn; hardly any where there are none.

    Keypoints of the null change as often, each on its own: what falls together there is chance.
    """
    position, times = changing.together(120, FPS, 4, n_space=3)
    arrays = {
        "together": walking(position),
        "apart": walking(changing.apart(120, FPS, 5, n_space=3)),
    }
    points = {}
    for name, one in arrays.items():
        kpms_zarr.ingest(
            tmp_path / f"{name}.zarr", arrays={name: one}, keypoint_names=NAMES, fps=FPS
        )
        found = kpms_zarr.changepoints(tmp_path / f"{name}.zarr", **OPTIONS)
        points[name] = np.flatnonzero(found["changepoint"].values[0])
        assert found["change_score"].notnull().mean() > 0.9
    away = np.abs(points["together"][:, None] / FPS - times)
    assert (away.min(1) < 0.1).mean() > 0.8
    assert (away.min(0) < 0.1).mean() > 0.6
    assert len(points["apart"]) < 0.01 * 120 * FPS / 8


def walking(position):
    """The same poses of an animal that turns smoothly about the vertical and walks in a circle."""
    angle = np.arange(len(position)) / FPS * 0.7
    cosine, sine = np.cos(angle), np.sin(angle)
    turn = np.zeros((len(position), 3, 3))
    turn[:, 0, 0] = turn[:, 1, 1] = cosine
    turn[:, 0, 1], turn[:, 1, 0], turn[:, 2, 2] = -sine, sine, 1
    path = 300 * np.stack([sine, -cosine, np.zeros(len(position))], 1)
    return np.einsum("fij,fkj->fki", turn, position.astype(np.float64)) + path[:, None]


def test_durations__that_are_suggested_hold_the_true_one(study):
    """Half of the target to the target; what is missed lengthens intervals, as is said."""
    _, planted, found = study
    true = np.median(np.concatenate([np.diff(times) for times in planted.values()])) * 1000
    target = found.attrs["target_duration"]
    assert target / 2 < true < 1.2 * target
    assert target <= found.attrs["median_interval"]


def test_score__of_a_block_is_that_of_any_other_cut(study, monkeypatch):
    """To the bit, where blocks of a session meet and where they end with it."""
    store, _, _ = study
    tracks = []
    score = module._score_block

    def kept(place, of, whitening, seed, block):
        tracks.append((of, whitening))
        return score(place, of, whitening, seed, block)

    copy = store.parent / "copy.zarr"
    shutil.copytree(store, copy)
    monkeypatch.setattr(module, "_score_block", kept)
    kpms_zarr.changepoints(copy, **OPTIONS)
    of, whitening = tracks[0]
    assert isinstance(of, EgocentricTracks)
    whole = of.shares(Block(0, 0, 18_000), whitening, 0)
    for start, stop in ((0, 100), (7, 300), (16_000, 16_500), (17_901, 18_000)):
        part = of.shares(Block(0, start, stop), whitening, 0)
        np.testing.assert_array_equal(part, whole[start:stop])


def test_result__is_the_same_with_any_scheduler(study, tmp_path):
    store, _, found = study
    copy = shutil.copytree(store, tmp_path / "s.zarr")
    with dask.config.set(scheduler="synchronous"):
        again = kpms_zarr.changepoints(copy, **OPTIONS).load()
    for name in found.variables:
        np.testing.assert_array_equal(found[name].values, again[name].values)
    assert kpms_zarr.verify(copy).is_sound
    again.to_netcdf(tmp_path / "s.nc")


def test_score__is_not_known_where_keypoints_are_not(tmp_path):
    position, _ = changing.together(60, FPS, 3)
    position = position.astype(np.float64)
    position[600:700, 2:] = np.nan
    kpms_zarr.ingest(tmp_path / "s.zarr", arrays={"a": position}, keypoint_names=NAMES, fps=FPS)
    found = kpms_zarr.changepoints(tmp_path / "s.zarr", **OPTIONS)
    score = found["change_score"].values[0]
    assert np.isnan(score[605:695]).all()
    assert np.isfinite(score[100:590]).all()
    assert not found["changepoint"].values[0, 600:700].any()


# ------------------------------------------------------------------ what the store keeps


def test_rerun__takes_the_place_when_it_is_whole(tmp_path, monkeypatch):
    """Until then what was there holds; who has opened it reads it until the next run begins."""
    store = tmp_path / "s.zarr"
    position, _ = changing.together(40, FPS, 3)
    kpms_zarr.ingest(store, arrays={"a": position}, keypoint_names=NAMES, fps=FPS)
    with pytest.raises(kpms_zarr.InputError, match="change points"):
        kpms_zarr.open_changepoints(store)
    first = kpms_zarr.changepoints(store, **OPTIONS)
    kept = first["change_score"].load().copy()

    def cut_short(*arguments):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(module, "_mark_block", cut_short)
        with pytest.raises(KeyboardInterrupt):
            kpms_zarr.changepoints(store, window=300, **OPTIONS)
    found = kpms_zarr.open_changepoints(store)
    assert found.attrs["window"] == 100
    np.testing.assert_array_equal(found["change_score"], kept)
    again = kpms_zarr.changepoints(store, window=300, **OPTIONS)
    assert again.attrs["window"] == kpms_zarr.open_changepoints(store).attrs["window"] == 300
    np.testing.assert_array_equal(found["change_score"], kept)
    kpms_zarr.changepoints(store, **OPTIONS)
    names = [name for name, _ in access.groups_below(access.open_group(store)["changepoints"])]
    assert names == ["v2", "v3"]
    found = kpms_zarr.verify(store)
    assert found.is_sound
    assert not found.notes


def test_second_process__is_refused(study, tmp_path):
    store = shutil.copytree(study[0], tmp_path / "s.zarr")
    with (
        changepoints_lock(access.open_group(store, "r+"), store),
        pytest.raises(kpms_zarr.InputError, match="nobody else looks for change points"),
    ):
        kpms_zarr.changepoints(store, **OPTIONS)
    assert kpms_zarr.open_changepoints(store)["changepoint"].any()


# ------------------------------------------------------------------ beside a model


class Planted:
    """Labels that change at planted times, or later by so many frames."""

    def __init__(self, store, times, late):
        self.model, self.version, self._times, self._late = "true", "v1", times, late
        self.sessions = access.sessions(store)
        self.space, self.has_heading, self.has_certainty, self.family = (), False, False, None
        self.n_states = 5

    def syllable(self, row, start, stop):
        session = next(one for one in self.sessions if one.index == row)
        edges = np.round(self._times[session.name] * FPS) + self._late
        return np.searchsorted(edges, np.arange(start, stop), "right") % 5


@pytest.mark.parametrize("late", [0, 12])
def test_onsets__of_the_planted_syllables_have_change_points(study, late):
    store, planted, found = study
    labels = Planted(store, planted, late)
    beside = onset_alignment.score_around_onsets(
        found, store, labels, window=100, shuffles=99, seed=0
    )
    at = float(beside["lag"][int(beside["onset_score"].values.argmax())])
    assert abs(at + late * 1000 / FPS) <= 1000 / FPS
    assert beside.attrs["onset_p"] == 0.01
    peak = beside.sel(lag=at)
    assert float(peak["onset_score"]) > float(peak["shifted_quantile"].max()) + 1
    share, chance = beside.attrs["onset_share"], beside.attrs["onset_share_by_chance"]
    of_points, by_chance = (beside.attrs[f"changepoint_share{end}"] for end in ("", "_by_chance"))
    if late:  # wrong twin: no better than chance
        assert share < chance
        assert of_points < by_chance
    else:
        assert share > 0.6 > chance + 0.2
        assert of_points > 0.9 > by_chance + 0.2


def test_near__counts_by_hand():
    near = onset_alignment._near(np.array([2, 9]), np.array([0, 5]), 2, 10, np.arange(10))
    assert near.near == 1
    assert near.number == 2
    # Frames 0 to 2 and 3 to 7 have one of the others within two frames.
    assert near.by_chance == pytest.approx(2 * 0.8)


# ------------------------------------------------------------------ bad input


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"window": 0}, "above 0 ms"),
        ({"false_rate": 1.0}, "between 0 and 1"),
        ({"shuffles": 0}, "shuffles"),
        ({"model": "none"}, "none"),
    ],
)
def test_settings__that_cannot_be_are_refused(study, options, words):
    store, _, _ = study
    with pytest.raises(kpms_zarr.InputError, match=words):
        kpms_zarr.changepoints(store, **{**OPTIONS, **options})
    assert kpms_zarr.open_changepoints(store)["changepoint"].any()  # what was there is there


def test_keypoints__that_never_move_are_refused(tmp_path: Path):
    still = np.tile(np.arange(24.0).reshape(1, 12, 2) ** 2, (300, 1, 1))
    store = tmp_path / "s.zarr"
    kpms_zarr.ingest(store, arrays={"a": still}, keypoint_names=NAMES, fps=FPS)
    with pytest.raises(kpms_zarr.InputError, match="no direction"):
        kpms_zarr.changepoints(store, **OPTIONS)
    assert layout.CHANGEPOINTS not in dict(access.open_group(store).groups())
    assert kpms_zarr.verify(store).is_sound


def test_chance__ends_in_a_note(tmp_path: Path):
    kpms_zarr.ingest(
        tmp_path / "s.zarr", arrays={"a": changing.apart(60, FPS, 0)}, keypoint_names=NAMES, fps=FPS
    )
    found = kpms_zarr.changepoints(tmp_path / "s.zarr", false_rate=0.001, **OPTIONS)
    assert found.attrs["n_changepoints"] == 0
    assert "no peak of the change score" in found.attrs["notes"][0]
    assert np.isnan(found.attrs["target_duration"])
