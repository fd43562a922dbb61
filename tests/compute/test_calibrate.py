"""The noise calibration: what is planted is found, whatever the movement; and who uses it."""

from __future__ import annotations

import inspect
import shutil
from dataclasses import replace
from functools import partial
from itertools import pairwise

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import kpms_zarr
from helpers.amount import examples
from helpers.noisy_paths import INTERCEPT, SLOPE, tracked
from helpers.small import N_KEYPOINTS, SMALL
from kpms_zarr.compute.config import FitConfig
from kpms_zarr.compute.events import Committed, Noted
from kpms_zarr.compute.runs.noise_prior import in_model_units
from kpms_zarr.compute.runs.preparation import prepare, settings_of_model
from kpms_zarr.compute.runs.start_model import StartModel
from kpms_zarr.compute.tracking.deviations import Deviations
from kpms_zarr.compute.tracking.error_line import error_curve, line_of_annotations, line_through
from kpms_zarr.store.core import access
from kpms_zarr.store.errors import InputError
from kpms_zarr.store.ingest import ingest as of_files
from kpms_zarr.store.model.models import open_parameters
from kpms_zarr.store.study.calibration import (
    NoiseCalibration,
    open_calibration,
    stored_calibration,
)
from kpms_zarr.viz.report.methods import methods
from kpms_zarr.viz.shared.opened import OpenModel

WITHIN = (0.12, 0.06)
"""Of slope and intercept: three standard errors, and the bias that docs/noise.md says."""


def line_of(position, confidence, **options):
    counts = Deviations.of_block(0, position, confidence).counts
    return line_through(error_curve(counts, position.shape[2], **options))


def is_found(line, slope=SLOPE, intercept=INTERCEPT):
    found = abs(line.slope - slope) < WITHIN[0], abs(line.intercept - intercept) < WITHIN[1]
    return all(found)


# --- what is planted is found ------------------------------------------------------------


@settings(max_examples=examples(8), deadline=None)
@given(
    seed=st.integers(0, 2**31),
    fps=st.sampled_from((25, 30, 60, 120)),
    speed=st.floats(0, 800),
    n_space=st.sampled_from((2, 3)),
    slope=st.floats(-1, 0),
    intercept=st.floats(-0.3, 0.5),
)
def test_line__is_the_planted_one_at_any_speed(seed, fps, speed, n_space, slope, intercept):
    line = {"slope": slope, "intercept": intercept}
    position, confidence, _ = tracked(seed, fps=fps, speed=speed, n_space=n_space, **line)
    assert is_found(line_of(position, confidence), **line)


@pytest.mark.parametrize(("fps", "speed", "n_space"), [(30, 1000, 3), (20, 500, 2), (30, 2000, 2)])
def test_line__needs_that_movement_is_subtracted(fps, speed, n_space):
    """Wrong twin: all deviations from a cubic prediction taken for noise."""
    position, confidence, _ = tracked(1, fps=fps, speed=speed, highest=4, n_space=n_space)
    assert is_found(line_of(position, confidence))
    assert not is_found(line_of(position, confidence, subtracts_movement=False))


def test_line__is_not_bent_by_gross_outliers_and_gaps():
    position, confidence, _ = tracked(2)
    rng = np.random.default_rng(0)
    position[rng.random(position.shape[:2]) < 0.01] += 300
    position[rng.random(position.shape[:2]) < 0.02] = np.nan
    assert is_found(line_of(position, confidence))


def test_errors__fall_with_confidence_in_every_keypoint():
    position, confidence, _ = tracked(3)
    curve = error_curve(Deviations.of_block(0, position, confidence).counts, 2)
    known = np.isfinite(curve.error)
    assert known.any(1).all()
    planted = 10 ** (SLOPE * curve.log_confidence + INTERCEPT)
    many = known & (curve.number > 300)
    np.testing.assert_allclose(np.log10(curve.error[many] / planted[many]), 0, atol=0.1)


def test_keypoints_that_stand_still__are_left_out_and_counted():
    position, confidence, _ = tracked(3, n_frames=3000)
    position[:, 0] = 5
    curve = error_curve(Deviations.of_block(0, position, confidence).counts, 2)
    assert curve.n_still > 0
    assert np.isnan(curve.error[0]).all()
    assert np.isfinite(curve.error[1]).any()


# --- any blocks give the same ------------------------------------------------------------


@settings(max_examples=examples(40), deadline=None)
@given(
    seed=st.integers(0, 2**31),
    n_frames=st.integers(1, 60),
    cuts=st.lists(st.integers(1, 59), max_size=8, unique=True),
)
def test_deviations__are_the_same_in_any_blocks(seed, n_frames, cuts):
    position, confidence, _ = tracked(seed, n_frames=n_frames, n_keypoints=2)
    rng = np.random.default_rng(seed)
    position[rng.random(position.shape[:2]) < 0.03] = np.nan
    whole = Deviations.of_block(0, position, confidence).counts
    edges = [0, *sorted(c for c in cuts if c < n_frames), n_frames]
    parts = [Deviations.of_block(0, position[a:b], confidence[a:b]) for a, b in pairwise(edges)]
    from_left, from_right = parts[0], parts[-1]
    for part in parts[1:]:
        from_left = from_left.add(part)
    for part in parts[-2::-1]:
        from_right = part.add(from_right)
    for found in (from_left.counts, from_right.counts):
        np.testing.assert_array_equal(found.size.key, whole.size.key)
        np.testing.assert_array_equal(found.size.number, whole.size.number)
        np.testing.assert_array_equal(found.neighbours, whole.neighbours)
        np.testing.assert_array_equal(found.log_confidence, whole.log_confidence)
        np.testing.assert_array_equal(found.rated, whole.rated)


# --- annotations -------------------------------------------------------------------------


@settings(max_examples=examples(15), deadline=None)
@given(
    seed=st.integers(0, 2**31), n_space=st.sampled_from((2, 3)), slope=st.floats(-1.2, 0.2),
    intercept=st.floats(-3, 2),
)  # fmt: skip
def test_line_of_annotations__is_the_planted_one(seed, n_space, slope, intercept):
    still = np.zeros((1000, 1, n_space))
    position, confidence, true = tracked(seed, path=still, slope=slope, intercept=intercept)
    x = np.log10(confidence[:, 0] + 1e-3).astype(float)
    line = line_of_annotations(x, (position - true)[:, 0].astype(float))
    assert abs(line.slope - slope) < 5 * line.slope_error
    assert abs(line.intercept - intercept) < 5 * line.intercept_error
    assert line.slope_error < 0.06


# --- a store -----------------------------------------------------------------------------


def written(folder, lengths):
    """A store, and the true paths by session."""
    store = folder / "study.zarr"
    body = 50 * np.array([[2, 0], [1.4, 0.5], [1.4, -0.5], [0.6, 0.3], [0.6, -0.3], [0, 0]])
    arrays, confidences, paths = {}, {}, {}
    for number, n_frames in enumerate(lengths):
        turn = smooth_turn(number, n_frames)
        _, _, moved = tracked(number, n_frames, speed=60, highest=2, n_keypoints=N_KEYPOINTS)
        path = np.einsum("fab,kb->fka", turn, body) + moved[:, :1] + 0.2 * moved
        position, confidence, _ = tracked(number, path=path)
        arrays[f"m{number}"], confidences[f"m{number}"] = position, confidence
        paths[f"m{number}"] = path
    kpms_zarr.ingest(store, arrays=arrays, confidences=confidences, fps=30,
                     keypoint_names=list("abcdef"), anterior=["a"], posterior=["f"])  # fmt: skip
    return store, paths


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    return written(tmp_path_factory.mktemp("calibrate"), (6000, 18_000))


@pytest.fixture(scope="module")
def short(tmp_path_factory):
    """A store for fits, with a PCA and a calibration."""
    store, _ = written(tmp_path_factory.mktemp("short"), (800, 1500))
    kpms_zarr.pca(store)
    kpms_zarr.calibrate(store)
    return store


@pytest.fixture
def fit_store(short, tmp_path):
    return shutil.copytree(short, tmp_path / "study.zarr")


def smooth_turn(seed, n_frames):
    rng = np.random.default_rng(seed)
    angle = np.cumsum(np.convolve(rng.normal(0, 0.01, n_frames), np.ones(15) / 15, "same"))
    cos, sin = np.cos(angle), np.sin(angle)
    return np.stack([np.stack([cos, -sin], -1), np.stack([sin, cos], -1)], 1)


@pytest.fixture
def store(study, tmp_path):
    return shutil.copytree(study[0], tmp_path / "study.zarr")


def annotated(study, n=300, **changes):
    rng = np.random.default_rng(0)
    rows = []
    for _ in range(n):
        name = ("m0", "m1")[rng.integers(2)]
        frame, point = rng.integers(len(study[1][name])), rng.integers(6)
        x, y = study[1][name][frame, point]
        rows.append({"session": name, "frame": frame, "keypoint": "abcdef"[point], "x": x, "y": y})
    return pd.DataFrame(rows).assign(**changes)


def test_calibrate__finds_what_is_planted_and_keeps_it(store):
    found = kpms_zarr.calibrate(store)
    assert found.source == "prediction"
    assert is_found(found)
    assert list(found.confidences) == sorted(found.confidences)
    kept = stored_calibration(access.open_group(store))
    assert (kept.slope, kept.intercept) == (found.slope, found.intercept)
    data = open_calibration(store).load()
    assert int(data["n_compared"].sum()) >= found.n_compared > 10_000
    assert kpms_zarr.verify(store).is_sound
    assert kpms_zarr.calibrate(store, host_memory="4GB").slope == found.slope


def test_calibrate__takes_annotations_instead(study, store, tmp_path):
    found = kpms_zarr.calibrate(store, annotations=annotated(study))
    assert found.source == "annotations"
    assert found.n_compared == 300
    assert abs(found.slope - SLOPE) < 4 * found.slope_error
    assert abs(found.intercept - INTERCEPT) < 4 * found.intercept_error
    path = tmp_path / "annotations.csv"
    annotated(study).to_csv(path, index=False)
    again = kpms_zarr.calibrate(store, annotations=path)
    np.testing.assert_allclose(again.slope, found.slope, rtol=1e-6)


def test_calibrate__is_removed(store):
    kpms_zarr.calibrate(store)
    assert kpms_zarr.calibrate(store, remove=True).source == ""
    assert stored_calibration(access.open_group(store)) is None
    assert kpms_zarr.verify(store).is_sound
    assert kpms_zarr.calibrate(store, remove=True).notes == ("there was no calibration",)
    with pytest.raises(InputError, match="noise calibration"):
        open_calibration(store)
    with pytest.raises(InputError, match="both"):
        kpms_zarr.calibrate(store, remove=True, annotations="a.csv")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"session": "nobody"}, "nobody"),
        ({"keypoint": "beak"}, "beak"),
        ({"frame": 10**7}, "a frame of the"),
        ({"frame": 1.5}, "1.5"),
        ({"x": "there"}, "there"),
        ({"x": None}, "numbers as x, y"),
    ],
)
def test_wrong_annotations__change_nothing(study, store, changes, words):
    before = kpms_zarr.calibrate(store)
    with pytest.raises(InputError, match=words):
        kpms_zarr.calibrate(store, annotations=annotated(study, **changes))
    kept = stored_calibration(access.open_group(store))
    assert (kept.slope, kept.source) == (before.slope, "prediction")


def test_few_annotations__are_refused(study, store):
    with pytest.raises(InputError, match="20 annotations or more"):
        kpms_zarr.calibrate(store, annotations=annotated(study, n=10))
    with pytest.raises(InputError, match="no column"):
        kpms_zarr.calibrate(store, annotations=annotated(study).drop(columns="y"))
    with pytest.raises(InputError, match="positions that were clicked"):
        kpms_zarr.calibrate(store, annotations=True)


@pytest.mark.parametrize(
    ("confidence", "words"),
    [(None, "without confidences"), (1.0, "all 1"), ("nearly", "in 1 of the bins")],
)
def test_confidences_that_do_not_vary__are_refused(tmp_path, confidence, words):
    store = tmp_path / "s.zarr"
    position, _, _ = tracked(0, n_frames=2000)
    given = None
    if confidence is not None:
        values = np.full(position.shape[:2], 1, np.float32)
        if confidence == "nearly":
            values -= np.random.default_rng(0).random(values.shape, np.float32) / 50
            values[values < 0.9] = 0.9
        given = {"a": values}
    kpms_zarr.ingest(store, arrays={"a": position}, confidences=given, fps=30)
    with pytest.raises(InputError, match=words):
        kpms_zarr.calibrate(store)
    assert stored_calibration(access.open_group(store)) is None


# --- at ingest ---------------------------------------------------------------------------


def test_ingest__calibrates_when_it_is_asked_to(study, tmp_path):
    store = tmp_path / "s.zarr"
    position, confidence, _ = tracked(0, n_frames=4000)
    given = {"fps": 30, "calibrate": True}
    done = kpms_zarr.ingest(
        store, arrays={"a": position}, confidences={"a": confidence}, dry_run=True, **given
    )
    assert (done.is_dry, access.exists(store)) == (True, False)
    done = kpms_zarr.ingest(store, arrays={"a": position}, confidences={"a": confidence}, **given)
    assert done.added == ("a",)
    assert any(note.startswith("noise prior calibrated: log10(error)") for note in done.notes)
    first = stored_calibration(access.open_group(store))
    assert first.slope == kpms_zarr.calibrate(store).slope
    # Of more sessions it is another one, unless it is from annotations.
    for number, source in enumerate(("prediction", "annotations")):
        if source == "annotations":
            rows = annotated(study).assign(session="a", keypoint="keypoint_0")
            kpms_zarr.calibrate(store, annotations=rows[rows["frame"] < 4000])
        before = stored_calibration(access.open_group(store))
        position, confidence, _ = tracked(number + 1, n_frames=2000)
        name = f"b{number}"
        done = kpms_zarr.ingest(
            store, arrays={name: position}, confidences={name: confidence}, **given
        )
        after = stored_calibration(access.open_group(store))
        assert done.added == (name,)
        assert after.source == source
        assert (after == before) is (source == "annotations")
    assert any("from hand annotations stays" in note for note in done.notes)


def test_ingest__hands_every_option_on(monkeypatch, tmp_path):
    """That of the store has the same options with the same defaults, but calibrate."""
    known = dict(inspect.signature(kpms_zarr.ingest).parameters)
    assert known.pop("calibrate").default is False
    own = dict(inspect.signature(of_files.ingest).parameters)
    assert list(known.values()) == list(own.values())
    given = {name: object() for name in known}
    got = {}

    def taken(store, files, **options):
        got.update(store=store, files=files, **options)
        return "done"

    monkeypatch.setattr(of_files, "ingest", taken)
    assert kpms_zarr.ingest(**given) == "done"
    assert got == given


def test_ingest__is_whole_where_nothing_can_be_calibrated(tmp_path, monkeypatch):
    store = tmp_path / "s.zarr"
    position, _, _ = tracked(0, n_frames=300)
    done = kpms_zarr.ingest(store, arrays={"a": position}, fps=30, calibrate=True)
    assert done.added == ("a",)
    assert any("not calibrated" in n and "without confidences" in n for n in done.notes)
    assert done.is_whole

    def broken(*_):
        raise RuntimeError("broken")

    monkeypatch.setattr("kpms_zarr.compute.tracking.calibrate.map_reduce", broken)
    done = kpms_zarr.ingest(store, arrays={"b": position + 1}, fps=30, calibrate=True)
    assert done.added == ("b",)
    assert "not calibrated (RuntimeError: broken)" in done.notes
    assert kpms_zarr.verify(store).is_sound
    assert len(access.sessions(access.open_group(store))) == 2


# --- who uses it -------------------------------------------------------------------------


def prior_of(store, **settings):
    said = []
    config = FitConfig(**settings)
    noise = prepare(store, config, None, said.append).noise
    return noise, [e.text for e in said if isinstance(e, Noted) and "calibration" in e.text]


def test_prior__is_that_of_the_store_unless_it_is_given(store):
    kpms_zarr.pca(store)
    default, said = prior_of(store)
    assert (default.slope, default.intercept, said) == (-0.5, 0.25, [])
    found = kpms_zarr.calibrate(store)
    noise, said = prior_of(store)
    assert noise.slope == found.slope
    assert noise.source == "deviations from a local prediction"
    assert "noise prior from the calibration" in said[0]
    # a body that is 100 model units long: the same errors, in units of it
    plain, _ = prior_of(store, scale="none")
    assert plain.intercept == found.intercept
    preparation = prepare(store, FitConfig(), None, lambda event: None)
    factor = next(iter(preparation.scale.values()))
    assert factor != 1
    np.testing.assert_allclose(10**noise.intercept * factor, 10**found.intercept)
    for typed in ({"noise_slope": -0.5}, {"noise_intercept": 0.25}):
        noise, said = prior_of(store, **typed)
        assert (noise.slope, noise.intercept, noise.source) == (-0.5, 0.25, "")
        assert "not used" in said[0]
    assert prior_of(store, stage="ar")[1] == []


def test_in_model_units__takes_the_middle_of_sessions():
    found = NoiseCalibration(-0.5, 0.25, 1e-3, "annotations")
    noise = in_model_units(found, {0: 1.0, 1: 10.0, 2: 100.0})
    assert noise == (-0.5, -0.75, 1e-3, "hand annotations")


def test_picture__is_of_what_is_kept(store):
    hv = pytest.importorskip("holoviews")
    found = kpms_zarr.calibrate(store)
    drawn = kpms_zarr.viz.noise_calibration(store)
    points, medians, line = drawn
    assert isinstance(points, hv.Points)
    assert len(medians) == len(found.confidences)
    x, y = line.dimension_values(0), line.dimension_values(1)
    np.testing.assert_allclose(np.diff(y) / np.diff(x), found.slope)


def test_fit__keeps_the_prior_that_it_had(fit_store):
    small = replace(SMALL, latent_dim=3, sweeps=2, ar_sweeps=2)
    found = stored_calibration(access.open_group(fit_store))
    fitted = kpms_zarr.fit(fit_store, model="m", config=small)
    assert any("noise prior from the calibration" in note for note in fitted.notes)
    first = StartModel.of(fit_store, "m").noise
    assert first.slope == found.slope
    words = kpms_zarr.summary(fit_store, model="m").attrs["course_in_words"]
    assert "noise prior calibrated from deviations" in words
    kpms_zarr.calibrate(fit_store, remove=True)
    start = StartModel.of(fit_store, "m")
    assert (
        prepare(fit_store, replace(small, stage="full"), start, lambda event: None).noise == first
    )
    assert open_parameters(fit_store, "m").attrs["noise_slope"] == first.slope
    text = " ".join(methods(OpenModel.of(fit_store, "m", None)).paragraphs)
    assert "calibrated from deviations from a local prediction" in text


@pytest.mark.parametrize("typed", [{}, {"noise_slope": -0.4}])
def test_chains_without_a_noise_prior__leave_it_to_the_calibration_unless_given(fit_store, typed):
    """What a consensus of chains of the AR stage does for its pose."""
    kpms_zarr.fit(fit_store, model="m", config=replace(SMALL, stage="ar", sweeps=2, **typed))
    start = StartModel.of(fit_store, "m")
    assert start.noise is None
    config = settings_of_model(start, access.sessions(fit_store)).resolved(stage="full")
    noise = prepare(fit_store, config, start, lambda event: None).noise
    found = stored_calibration(access.open_group(fit_store))
    assert noise == (-0.4, 0.25, 1e-3, "") if typed else noise.slope == found.slope


def test_interrupted_fit__goes_on_with_the_prior_that_it_began_with(fit_store):
    small = replace(SMALL, sweeps=2, ar_sweeps=2)
    found = stored_calibration(access.open_group(fit_store))

    def stop(event):
        if isinstance(event, Committed):
            raise RuntimeError("stopped here")

    with pytest.raises(RuntimeError, match="stopped here"):
        kpms_zarr.fit(fit_store, model="m", config=small, save_every=1, callbacks=[stop])
    kpms_zarr.calibrate(fit_store, remove=True)
    kpms_zarr.fit(fit_store, model="m", resume=True)
    assert StartModel.of(fit_store, "m").noise.slope == found.slope


@pytest.mark.full
def test_scan__has_the_calibrated_prior_and_belongs_to_that_calibration(fit_store):
    shapes = {name: getattr(SMALL, name) for name in SMALL.given}
    small = FitConfig(**{**shapes, "stage": "both", "sweeps": 2, "ar_sweeps": 2})
    options = {"kappa": [1e4], "chains": 1, "held_out": 0}
    scan = partial(kpms_zarr.scan, fit_store, config=small, **options)
    found = scan()
    assert any("noise prior from the calibration" in note for note in found.notes)
    pose = access.open_group(fit_store)["scans/kappa/chains/p000c000/latent"][...]

    def fitted(name, **settings):
        config = replace(
            small, kappa=1e4, sessions=tuple(found.table["session"].values), **settings
        )
        kpms_zarr.fit(fit_store, model=name, config=config)
        return kpms_zarr.open_labels(fit_store, name)["latent"].values

    np.testing.assert_array_equal(pose, fitted("calibrated"))
    # Wrong twin: with the prior of the settings it is another one.
    assert not np.array_equal(pose, fitted("default", noise_slope=-0.5))
    kpms_zarr.calibrate(fit_store)  # the same
    assert scan().n_chains == 0  # all are there
    kpms_zarr.calibrate(fit_store, remove=True)
    with pytest.raises(InputError, match="differs in calibration"):
        scan()


@pytest.mark.full
@pytest.mark.parametrize("typed", [{}, {"noise_slope": -0.4}])
def test_consensus_of_chains__has_the_calibrated_prior_unless_they_were_given_one(fit_store, typed):
    found = stored_calibration(access.open_group(fit_store))
    for seed in (1, 2):
        config = replace(SMALL, stage="ar", sweeps=2, seed=seed, **typed)
        kpms_zarr.fit(fit_store, model=f"m{seed}", config=config)
        assert StartModel.of(fit_store, f"m{seed}").noise is None
    kpms_zarr.consensus(fit_store, models=["m1", "m2"], model="both", sweeps=1)
    noise = StartModel.of(fit_store, "both").noise
    assert noise == (-0.4, 0.25, 1e-3, "") if typed else noise.slope == found.slope
