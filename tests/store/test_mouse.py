"""Simulated mice: bodies, gait, arena, syllables, groups, faults of the tracker, files."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import kpms_zarr
from helpers.amount import examples
from kpms_zarr.store.core import access
from kpms_zarr.store.study.mouse import body, tracker
from kpms_zarr.store.study.mouse.behaviour import NAMES, SYLLABLES, Temper
from kpms_zarr.store.study.mouse.body import KEYPOINTS, RIGID, keypoints_of, stride_rate
from kpms_zarr.store.study.mouse.motion import ARENA_RADIUS, SPINE_LENGTH, Motion
from kpms_zarr.store.study.mouse.study import GROUPS, SETTLING, SIGNAL_RATE, MouseStudy
from kpms_zarr.store.study.mouse.writing import write_files

ROW = {name: i for i, name in enumerate(KEYPOINTS)}
LABEL = {name: i for i, name in enumerate(NAMES)}
STUDY = MouseStudy(n_animals=12, n_frames=2_700)
FPS = STUDY.fps


_SESSIONS = {}


def session(index, study=STUDY):
    """Sessions that several tests look at."""
    key = (repr(study), index)
    if key not in _SESSIONS:
        _SESSIONS[key] = study.session(index)
    return _SESSIONS[key]


@pytest.fixture
def rng():
    return np.random.default_rng(0)


@pytest.fixture(scope="module")
def all_sessions():
    return [session(i) for i in range(len(STUDY.session_names))]


def bouts(label):
    """First frames and ends of the bouts, without the last, which the recording cuts."""
    edges = [0, *(np.flatnonzero(np.diff(label)) + 1).tolist()]
    return list(pairwise(edges))


def programme(name, n_frames=150, **changed):
    """Motion of an animal that does one thing all the time, from the left through the middle."""
    one = replace(SYLLABLES[LABEL[name]], **changed)
    full = np.ones(n_frames)
    x = -150 + np.arange(n_frames) * one.speed / FPS
    return Motion(
        syllable=np.full(n_frames, LABEL[name]),
        root=np.column_stack([x, 0 * x]),
        heading=0 * full,
        speed=one.speed * full,
        turning=0 * full,
        bend=0 * full,
        head_yaw=0 * full,
        height=one.height * full,
        grooming=one.grooming * full,
        rearing=one.rearing * full,
        pitch=np.deg2rad(one.pitch) * full[:, None],
    )


def rate_of(values):
    """Frequency of the largest peak, in Hz."""
    values = values - np.polyval(np.polyfit(np.arange(len(values)), values, 1), range(len(values)))
    padded = np.abs(np.fft.rfft(values * np.hanning(len(values)), 4096))
    return float(np.fft.rfftfreq(4096, 1 / FPS)[padded.argmax()])


# --- the body --------------------------------------------------------------------------


@settings(deadline=None, max_examples=examples(40))
@given(
    seed=st.integers(0, 2**32),
    index=st.integers(0, 3),
    n_frames=st.integers(2, 700),
    fps=st.sampled_from([15.0, 30.0, 60.0, 120.0]),
    n_space=st.sampled_from([2, 3]),
)
def test_mouse__has_rigid_bones_and_stays_in_its_arena(seed, index, n_frames, fps, n_space):
    study = MouseStudy(n_animals=2, n_frames=n_frames, n_space=n_space, fps=fps, seed=seed)
    found = study.session(index)
    assert found.position.shape == (n_frames, len(KEYPOINTS), n_space)
    assert found.point.shape == (n_frames, len(KEYPOINTS), 3)
    assert np.isfinite(found.point).all()
    for a, b in RIGID:
        length = np.linalg.norm(found.point[:, ROW[a]] - found.point[:, ROW[b]], axis=1)
        np.testing.assert_allclose(length, length[0], rtol=1e-9)
    radius = np.linalg.norm(found.point[..., :2], axis=-1)
    assert radius.max() < ARENA_RADIUS
    assert found.point[..., 2].min() >= -1e-9
    assert found.syllable.shape == (n_frames,)
    assert 0 <= found.confidence.min() <= found.confidence.max() <= 1


def test_mouse__is_as_long_and_as_fast_as_a_mouse(all_sessions):
    length = [np.linalg.norm(one.point[0, ROW["tail_base"]] - one.point[0, ROW["lower_back"]])
              for one in all_sessions]  # fmt: skip
    sizes = np.array(length) / SPINE_LENGTH[0]
    assert 0.85 < sizes.min() < sizes.max() < 1.15
    assert len(set(sizes.round(6))) == len(sizes)
    back = [np.diff(one.point[:, ROW["mid_back"], :2], axis=0) for one in all_sessions]
    speed = np.linalg.norm(np.concatenate(back), axis=1) * FPS  # mm/s
    # Of real mice in an open field (median and 99 %, at 0.9 mm a pixel): 34 to 65, 250 to 360.
    assert 15 < np.median(speed) < 80
    assert 180 < np.quantile(speed, 0.99) < 450
    assert speed.max() < 900


@pytest.mark.parametrize("speed", [60.0, 95.0, 150.0])
def test_paws__step_at_the_rate_of_the_gait(speed, rng):
    motion = programme("walk", speed=speed)
    point = keypoints_of(rng, motion, 1.0, FPS)
    expected = stride_rate(np.array([speed]), np.zeros(1))[0]
    along = {name: point[:, ROW[name], 0] - motion.root[:, 0]
             for name in (*body.FOREPAWS, *body.HINDPAWS)}  # fmt: skip
    for name, x in along.items():
        assert rate_of(x) == pytest.approx(expected, abs=0.15), name
    for left, right in (body.FOREPAWS, body.HINDPAWS):
        assert np.corrcoef(along[left][10:-20], along[right][10:-20])[0, 1] < -0.5
    # What stands does not slide, and what stands is most of the paws.
    for name in along:
        step = np.linalg.norm(np.diff(point[:, ROW[name], :2], axis=0), axis=1)
        assert np.mean(step < 0.05 * speed / FPS) > 0.4, name


def test_paws__of_an_animal_that_pauses_stay_where_they_are(rng):
    point = keypoints_of(rng, programme("pause"), 1.0, FPS)
    moved = np.ptp(point[:, [ROW[name] for name in (*body.FOREPAWS, *body.HINDPAWS)]], axis=0)
    assert moved.max() < 8.0


def test_grooming__wipes_the_nose_at_its_rate(rng):
    point = keypoints_of(rng, programme("groom"), 1.0, FPS)
    for name in body.FOREPAWS:
        away = np.linalg.norm(point[:, ROW[name]] - point[:, ROW["nose"]], axis=1)
        assert away.max() < 20.0
    bob = point[:, ROW["nose"], 2]
    assert rate_of(bob) == pytest.approx(body.GROOM_RATE, abs=0.7)


def test_rearing__raises_the_nose_and_shortens_what_is_seen_from_above(all_sessions):
    by = {}
    for name in ("rear", "walk", "groom"):
        frames = []
        for one in all_sessions:
            for start, stop in bouts(one.syllable):
                if one.syllable[start] == LABEL[name] and stop - start > 15:
                    frames.append(one.point[start + 12 : stop])
        point = np.concatenate(frames)
        span = point[:, ROW["nose"]] - point[:, ROW["tail_base"]]
        by[name] = point[:, ROW["nose"], 2], np.linalg.norm(span[:, :2], axis=1)
    height, length = zip(*by.values(), strict=True)
    assert np.quantile(height[0], 0.05) > 1.5 * np.quantile(height[1], 0.95)
    assert np.median(height[0]) > 60
    assert np.median(length[0]) < 0.8 * np.median(length[1])
    # What tells rearing from grooming, both of which look short from above.
    assert np.median(height[2]) < np.median(height[1]) + 5


def test_tracking_in_3d__sees_the_nose_go_up():
    one = session(0, replace(STUDY, n_space=3))
    good = ~one.tracking.is_gap[:, ROW["nose"]] & ~one.tracking.is_jump[:, ROW["nose"]]
    seen, true = one.position[good, ROW["nose"], 2], one.point[good, ROW["nose"], 2]
    assert np.corrcoef(seen, true)[0, 1] > 0.98
    assert seen[one.syllable[good] == LABEL["rear"]].mean() > seen.mean() + 15


# --- what it does ----------------------------------------------------------------------


def test_bouts__follow_each_other_and_last_as_long_as_they_may(all_sessions):
    lengths, counts = [], Counter()
    for one in all_sessions:
        for start, stop in bouts(one.syllable):
            lengths.append((stop - start) / FPS)
            counts[int(one.syllable[start])] += 1
    assert set(counts) == set(range(len(NAMES)))
    assert 0.2 - 0.5 / FPS <= min(lengths) <= max(lengths) <= 2.0 + 0.5 / FPS
    assert 0.3 < np.median(lengths) < 0.8


def test_bouts__are_what_they_are_called(all_sessions):
    """Also at the wall, where there is no room for every turn and every walk."""
    turned, walked, stayed = [], [], []
    for one in all_sessions:
        root, heading = one.motion.root, one.motion.heading
        for start, stop in bouts(one.syllable):
            name, last = NAMES[one.syllable[start]], stop - 1
            if stop - start < 8:
                continue
            way = np.linalg.norm(root[last] - root[start])
            angle = heading[last] - heading[start]
            if name.startswith("turn"):
                turned.append(angle if name == "turn left" else -angle)
            elif name in ("walk", "run"):
                walked.append(way)
            elif name in ("pause", "groom", "rear"):
                stayed.append(way - 0.12 * one.motion.speed[start])  # it comes to a stop
    assert np.mean(np.array(turned) > 0.3) > 0.97
    assert np.mean(np.array(walked) > 15) > 0.95
    assert np.mean(np.array(stayed) < 10) > 0.97


def grooms(study):
    """Of each group: bouts of grooming, those expected of each animal's own weights, variance."""
    found = {}
    for other in study.groups:
        for i in range(len(study.session_names)):
            if study.group(i) != other:
                continue
            label = session(i, study).syllable
            starts = np.array([start for start, _ in bouts(label)][1:])
            for name, effects in GROUPS.items():
                weight = temper(study, i, effects).weight
                p = weight[study.epoch[starts], label[starts - 1], LABEL["groom"]]
                found.setdefault((other, name), np.zeros(3))
                found[other, name] += [np.sum(label[starts] == LABEL["groom"]), p.sum(),
                                       (p * (1 - p)).sum()]  # fmt: skip
    return found


def temper(study, index, effects):
    settled = {name: effects.get(name, 1) * SETTLING.get(name, 1) for name in NAMES}
    return Temper.draw(np.random.default_rng([study.seed, index]), effects, settled)


def test_planted_difference__is_in_the_true_labels():
    for (group, believed), (seen, expected, variance) in grooms(STUDY).items():
        z = (seen - expected) / np.sqrt(variance)
        # The wrong twin: animals of one group by the weights of the other.
        assert (abs(z) < 4) == (group == believed), (group, believed, z)


def test_groups_without_effects__do_not_differ():
    study = replace(STUDY, groups={"saline": {}, "drug": {}})
    found = grooms(study)
    for group in study.groups:
        seen, expected, variance = found[group, "saline"]
        assert abs(seen - expected) < 4 * np.sqrt(variance)
    # The drug of the other study would be seen.
    seen, expected, variance = found["drug", "drug"]
    assert expected - seen > 4 * np.sqrt(variance)


def test_signal__rises_when_grooming_begins_and_not_at_other_onsets(all_sessions):
    rise = {name: [] for name in ("groom", "sniff")}
    for one in all_sessions:
        starts = np.array([start for start, _ in bouts(one.syllable)][1:])
        for name, found in rise.items():
            at = (starts[one.syllable[starts] == LABEL[name]] / FPS * SIGNAL_RATE).astype(int)
            at = at[(at > 10) & (at < len(one.signal) - 20)]
            behind = np.array([one.signal[k + 4 : k + 16].mean() for k in at])
            before = np.array([one.signal[k - 8 : k].mean() for k in at])
            found += (behind - before).tolist()
    mean = {name: np.mean(found) for name, found in rise.items()}
    error = {name: np.std(found) / np.sqrt(len(found)) for name, found in rise.items()}
    assert mean["groom"] > 8 * error["groom"]
    assert mean["sniff"] < 3 * error["sniff"]


# --- always the same -------------------------------------------------------------------


def test_sessions__are_the_same_to_the_bit_and_differ_from_each_other():
    small = MouseStudy(n_animals=2, n_frames=300)
    again = [small.session(i) for i in (3, 1)][::-1]
    for i, one in zip((1, 3), again, strict=True):
        for name in ("position", "confidence", "syllable", "point", "signal"):
            np.testing.assert_array_equal(getattr(small.session(i), name), getattr(one, name))
    assert not np.array_equal(again[0].syllable, again[1].syllable)
    other = replace(small, seed=1).session(1)
    assert not np.array_equal(again[0].position, other.position)
    more = replace(small, n_animals=3)
    np.testing.assert_array_equal(again[0].position, more.session(1).position)
    assert [more.group(i) for i in range(6)] == ["saline", "drug"] * 3


# --- the tracker -----------------------------------------------------------------------


def bursts(rate, longest, n_columns):
    """Share of frames in bursts of 1 to ``longest`` frames, and its variance times the frames."""
    left = [1 - rate / FPS * (longest - j) / longest for j in range(longest)]
    share = 1 - np.prod(left)
    length = np.arange(1, longest + 1)
    return share, share * (length**2).sum() / length.sum() / n_columns


FAULTS = {
    "is_swapped": [bursts(tracker.SWAP_RATE, tracker.SWAP_FRAMES, len(tracker.PAIRS))],
    "is_gap": [
        bursts(tracker.GAP_RATE, tracker.GAP_FRAMES, len(KEYPOINTS)),
        bursts(tracker.WHOLE_GAP_RATE, tracker.GAP_FRAMES, 1),
    ],
    "is_jump": [bursts(tracker.JUMP_SHARE * FPS, 1, len(KEYPOINTS))],
}


@pytest.mark.parametrize("name", FAULTS)
def test_faults__are_as_common_as_they_are_said_to_be(name, all_sessions):
    found = np.concatenate([getattr(one.tracking, name) for one in all_sessions])
    expected = 1 - np.prod([1 - share for share, _ in FAULTS[name]])
    error = np.sqrt(sum(variance for _, variance in FAULTS[name]) / len(found))
    assert abs(found.mean() - expected) < 5 * error
    # Twins with half the rate, or with twice of it, are told.
    assert all(abs(found.mean() - factor * expected) > 5 * error for factor in (0.5, 2))


def test_gaps_and_swaps__are_where_they_are_said_to_be(all_sessions):
    ears = [ROW[name] for name in tracker.PAIRS[0]]
    right, wrong = [], []
    for one in all_sessions:
        tracking = one.tracking
        np.testing.assert_array_equal(np.isnan(one.position).any(-1), tracking.is_gap)
        np.testing.assert_array_equal(one.confidence == 0, tracking.is_gap)
        seen, true = one.position[:, ears], tracker.photographed(one.point)[:, ears]
        sure = (one.confidence[:, ears] > 0.7).all(1) & ~tracking.is_jump[:, ears].any(1)
        own = np.linalg.norm(seen - true, axis=-1).sum(1)
        exchanged = np.linalg.norm(seen[:, ::-1] - true, axis=-1).sum(1)
        is_swapped = tracking.is_swapped[:, 0]
        right += (own < exchanged)[sure & ~is_swapped].tolist()
        wrong += (own > exchanged)[sure & is_swapped].tolist()
    assert np.mean(right) > 0.99
    assert len(wrong) > 10
    assert np.mean(wrong) > 0.95


def test_error__grows_as_the_confidence_falls(all_sessions, rng):
    error, confidence = [], []
    for one in all_sessions[:4]:
        fine = ~(one.tracking.is_gap | one.tracking.is_jump)
        for pair, names in zip(one.tracking.is_swapped.T, tracker.PAIRS, strict=True):
            fine[:, [ROW[name] for name in names]] &= ~pair[:, None]
        away = np.linalg.norm(one.position - tracker.photographed(one.point), axis=-1)
        error.append(away[fine])
        confidence.append(one.confidence[fine])
    error, confidence = np.concatenate(error), np.concatenate(confidence)

    def ratio(rated):
        return np.median(error[rated < 0.3]) / np.median(error[rated > 0.9])

    assert ratio(confidence) > 4
    assert ratio(rng.permutation(confidence)) < 1.5
    assert 0.3 < np.median(error[confidence > 0.9]) < 1.5  # px


def test_forepaws__are_hidden_from_above_while_the_back_is_seen(all_sessions):
    confidence = np.concatenate([one.confidence for one in all_sessions])
    median = dict(zip(KEYPOINTS, np.median(confidence, axis=0), strict=True))
    assert all(median[name] < 0.6 for name in body.FOREPAWS)
    assert all(median[name] > 0.9 for name in (*body.SPINE, *body.EARS))
    in_3d = np.median(session(0, replace(STUDY, n_space=3)).confidence, axis=0)
    assert all(in_3d[ROW[name]] > median[name] for name in body.FOREPAWS)


# --- files -----------------------------------------------------------------------------


@pytest.mark.parametrize("n_space", [2, 3])
def test_files__hold_the_study(tmp_path, n_space):
    study = MouseStudy(n_animals=1, n_frames=150, n_space=n_space)
    files = write_files(tmp_path, study)
    store = tmp_path / "study.zarr"
    found = kpms_zarr.ingest(store, files, fps=30, metadata=tmp_path / "groups.csv",
                             skeleton=body.SKELETON)  # fmt: skip
    assert {kind.split(":")[0].split(",")[0] for kind in found.recognised.values()}
    kpms_zarr.epochs(store, tmp_path / "epochs.csv")
    kpms_zarr.signals(store, tmp_path / "photometry.csv")
    root = access.open_group(store)
    keypoints = access.keypoints_group(root)
    assert keypoints["group"][:].tolist() == ["saline", "drug"]
    assert keypoints["keypoint"][:].tolist() == list(KEYPOINTS)
    for i in range(2):
        one = study.session(i)
        np.testing.assert_allclose(keypoints["position"][i, :150], one.position, atol=6e-4)
        np.testing.assert_allclose(keypoints["confidence"][i, :150], one.confidence, atol=6e-4)
    epochs = kpms_zarr.open_epochs(store).to_dataframe()
    rows = epochs[["session", "condition", "start", "stop"]].values.tolist()
    assert sorted(rows) == [
        [name, condition, start, start + 75]
        for name in study.session_names
        for condition, start in (("arrival", 0), ("settled", 75))
    ]
    signal = kpms_zarr.open_signal(store, "photometry", "mouse02")
    time = np.arange(len(study.session(1).signal)) / SIGNAL_RATE
    inside = signal["time"] <= time[-1]
    expected = np.interp(signal["time"][inside], time, study.session(1).signal)
    np.testing.assert_allclose(signal[inside], expected, atol=1e-3)
    truth = (tmp_path / "truth.csv").read_text().splitlines()
    assert truth[0] == "session,frame,syllable"
    assert len(truth) == 301
