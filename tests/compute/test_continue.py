"""Fits of some sessions, and fits that go on from a model with more sessions or more sweeps."""

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
import zarr

import kpms_zarr
from helpers.small import N_KEYPOINTS, SMALL
from kpms_zarr.compute.analysis.agreement import adjusted_rand_index
from kpms_zarr.compute.config import FitConfig
from kpms_zarr.compute.events import Committed, Noted, PlanMade, SweepEnded, SweepStarted
from kpms_zarr.compute.memory import resident_memory
from kpms_zarr.compute.runs import stages
from kpms_zarr.compute.runs.fit import FitSummary
from kpms_zarr.compute.sampler.warm import ANNEAL_SWEEPS, WARM_SWEEPS
from kpms_zarr.store.core import access
from kpms_zarr.store.core.provenance import provenance_of
from kpms_zarr.store.model import models
from kpms_zarr.store.study import synthetic

STUDY = synthetic.SyntheticStudy(
    lengths=(500, 450, 400, 300, 110, 700, 70, 3, 20), n_syllables=6, n_keypoints=N_KEYPOINTS,
    n_latent=3, missing_fraction=0.03, seed=2,
)  # fmt: skip
NAMES = STUDY.session_names
PART, SHORT = NAMES[:3], NAMES[7]
# Segments and tiles of a shape that a fit of few frames has, too: compiled once for both.
CONFIG = replace(SMALL, ar_sweeps=15, sweeps=15, sessions=("session_00[0-2]",), kappa=2e4)
AR = replace(CONFIG, stage="ar", kappa=5e5, sweeps=10, average_sweeps=1)
TILES = {"segment_frames": 64, "tile_frames": 512}
MORE = FitConfig(stage="full", from_model="part", sweeps=3, **TILES)
MORE_AR = replace(MORE, stage="ar", from_model="ar")


@pytest.fixture(scope="module")
def original(tmp_path_factory) -> Path:
    """With the models ``part`` of both stages and ``ar``, each fitted to three sessions."""
    store = tmp_path_factory.mktemp("continue") / "study.zarr"
    synthetic.write_store(store, STUDY)
    kpms_zarr.pca(store, variance=0.99)
    kpms_zarr.fit(store, model="part", config=CONFIG)
    kpms_zarr.fit(store, model="ar", config=AR)
    return store


@pytest.fixture
def store(original: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(original, tmp_path / "study.zarr"))


def fit(store: Path, model: str, config: FitConfig, **options: Any) -> tuple[FitSummary, list[Any]]:
    events: list[Any] = []
    found = kpms_zarr.fit(store, model=model, config=config, callbacks=[events.append], **options)
    return found, events


def result(store: Path, model: str) -> tuple[xr.Dataset, xr.Dataset]:
    labels = kpms_zarr.open_labels(store, model).load()
    return labels, kpms_zarr.open_parameters(store, model).load()


def syllables(labels: xr.Dataset, name: str) -> np.ndarray:
    one = labels.sel(session=name)
    return one["syllable"].values[: int(one["n_frames"])]


def truth(name: str) -> np.ndarray:
    return synthetic.simulate_session(STUDY, NAMES.index(name)).syllable


def score(labels: xr.Dataset, names: tuple[str, ...]) -> float:
    """Adjusted Rand index of some sessions against the simulated syllables."""
    found = np.concatenate([syllables(labels, name) for name in names])
    return adjusted_rand_index(np.concatenate([truth(name) for name in names]), found)


def assert_same(a: tuple[xr.Dataset, xr.Dataset], b: tuple[xr.Dataset, xr.Dataset]) -> None:
    """All that is published, to the bit; wall times alone may differ."""
    for one, two in zip(a, b, strict=True):
        assert set(one.variables) == set(two.variables)
        for name in one.variables:
            if name != "trace_seconds":
                np.testing.assert_array_equal(one[name].values, two[name].values, err_msg=name)


def notes(events: list[Any]) -> list[str]:
    return [event.text for event in events if isinstance(event, Noted)]


# ------------------------------------------------------------------ more sessions


def test_continue__labels_sessions_that_the_model_lacks_and_goes_on(store):
    before, old = result(store, "part")
    summary, events = fit(store, "all", MORE)
    labels, parameters = result(store, "all")
    assert tuple(labels["session"].values) == NAMES
    assert summary.n_sessions == len(NAMES)
    assert any("5 sessions that the model 'part' lacks" in note for note in notes(events))
    for name in NAMES:
        z = syllables(labels, name)
        assert (z == -1).all() if name == SHORT else (z >= 0).all()
        assert z.max(initial=-1) < 10
    assert np.isfinite(labels["latent"].sel(session=NAMES[5]).values[:700]).all()
    # Three sweeps are enough for sessions that were never fitted, where the model knows enough.
    new = (NAMES[3], NAMES[5], NAMES[6])
    assert score(before, PART) > 0.75
    assert score(labels, PART) > score(before, PART) - 0.1
    assert score(labels, new) > score(before, PART) - 0.1
    # Wrong twin: as many sweeps from the beginning are not.
    fit(store, "anew", replace(MORE, from_model=None, n_states=10, latent_dim=3, init="prior"))
    assert score(result(store, "anew")[0], new) < score(labels, new) - 0.15
    assert models.current_version(access.open_group(store), "part") == "v1"
    xr.testing.assert_identical(result(store, "part")[0], before)
    assert parameters.sizes["state"] == old.sizes["state"] == 10
    np.testing.assert_array_equal(parameters["pose_loading"], old["pose_loading"])
    np.testing.assert_array_equal(parameters["pose_mean"], old["pose_mean"])


@pytest.mark.full
def test_continue__counts_sweeps_and_keeps_kappa(store):
    _, old = result(store, "part")
    assert old.attrs["n_sweeps_in_all"] == 30
    summary, events = fit(store, "all", MORE)
    parameters = result(store, "all")[1]
    assert summary.n_sweeps == parameters.sizes["sweep"] == 3
    assert parameters["trace_stage"].values.tolist() == ["full"] * 3
    assert parameters.attrs["n_sweeps_in_all"] == 30 + WARM_SWEEPS + ANNEAL_SWEEPS + 3
    assert parameters.attrs["from_version"] == "part/v1"
    assert parameters["trace_kappa"].values.tolist() == [2e4] * 3
    assert any("kappa 2e+04, as the model 'part' ended with" in note for note in notes(events))
    assert provenance_of(parameters.attrs)["settings"]["kappa"] == 2e4
    # No new session: no sweeps to label any.
    same = replace(MORE, from_model="all", sweeps=2, kappa=1e3)
    fit(store, "more", same)
    parameters = result(store, "more")[1]
    assert parameters.attrs["n_sweeps_in_all"] == 30 + WARM_SWEEPS + ANNEAL_SWEEPS + 3 + 2
    assert parameters.attrs["from_version"] == "all/v1"
    assert parameters["trace_kappa"].values.tolist() == [1e3] * 2
    # Fewer sessions than the model had.
    summary, _ = fit(store, "less", replace(same, sessions=(NAMES[1], NAMES[5])))
    assert tuple(result(store, "less")[0]["session"].values) == (NAMES[1], NAMES[5])


def test_continue__gives_more_sweeps_to_the_same_sessions(store):
    before = result(store, "ar")[0]
    _, events = fit(store, "more", replace(MORE_AR, sessions=PART))
    labels, parameters = result(store, "more")
    assert parameters.attrs["n_sweeps_in_all"] == 13
    assert parameters["trace_kappa"].values.tolist() == [5e5] * 3
    assert not any("lacks" in note for note in notes(events))
    one, two = (np.concatenate([syllables(x, name) for name in PART]) for x in (before, labels))
    assert adjusted_rand_index(one, two) > 0.85
    # In the AR stage poses are given.
    np.testing.assert_array_equal(labels["latent"], before["latent"])


@pytest.mark.full
def test_continue__with_the_stage_that_was_adapting(store):
    """A target: kappa begins where the model ended."""
    config = replace(AR, kappa=None, target_duration=300.0)
    fit(store, "first", config)
    ended = float(result(store, "first")[1]["trace_kappa"][-1])
    assert ended != 1e6
    fit(store, "second", replace(MORE_AR, from_model="first"))
    assert result(store, "second")[1]["trace_kappa"].values.tolist() == [ended] * 3
    fit(store, "third", replace(MORE_AR, from_model="first", target_duration=500.0, sweeps=6))
    trace = result(store, "third")[1]["trace_kappa"].values
    assert trace[0] == ended
    assert trace[-1] != ended


def test_from_model__another_stage_has_a_kappa_of_its_own(store):
    _, events = fit(store, "full", replace(MORE, from_model="ar", sweeps=2))
    labels, parameters = result(store, "full")
    assert parameters["trace_kappa"].values.tolist() == [1e4] * 2
    assert parameters.attrs["n_sweeps_in_all"] == 10 + WARM_SWEEPS + 2
    assert not any("ended with" in note for note in notes(events))
    assert adjusted_rand_index(
        syllables(result(store, "ar")[0], NAMES[0]), syllables(labels, NAMES[0])
    ) > 0.5  # fmt: skip


def test_continue__from_labels_that_were_applied(store):
    """Sessions that apply has labelled are not labelled again."""
    kpms_zarr.apply(store, model="ar", sessions=[NAMES[3], NAMES[5]], sweeps=12)
    _, events = fit(store, "all", MORE_AR)
    assert any("3 sessions that the model 'ar' lacks" in note for note in notes(events))
    parameters = result(store, "all")[1]
    # No sweep of the new fit has the random numbers of one that was applied.
    applied = int(kpms_zarr.open_labels(store, "ar").attrs["n_sweeps_in_all"])
    assert applied >= 10 + WARM_SWEEPS + 12
    assert parameters.attrs["n_sweeps_in_all"] == applied + WARM_SWEEPS + 3
    assert parameters.attrs["from_version"] == "ar/v2"
    _, events = fit(store, "same", replace(MORE_AR, sessions=(NAMES[3], NAMES[5])))
    assert not any("lacks" in note for note in notes(events))


def test_continue__begins_with_the_state_of_the_model(store, monkeypatch):
    begun: dict[str, np.ndarray] = {}
    begin = stages.begin

    def watched(sampler, config, start, first):
        chain = sampler.chain
        for session, at, n in zip(
            chain.index.sessions, chain.index.first, chain.index.length, strict=True
        ):
            begun[session.name] = chain.syllable[at : at + n].copy()
        return begin(sampler, config, start, first)

    monkeypatch.setattr("kpms_zarr.compute.runs.fit.begin", watched)
    before = result(store, "part")[0]
    fit(store, "all", replace(MORE, sweeps=1))
    for name in PART:
        np.testing.assert_array_equal(begun[name][3:], syllables(before, name)[3:])
        assert (begun[name][:3] == -1).all()
    for name in (NAMES[3], NAMES[5]):
        assert (begun[name][3:] >= 0).all()
        assert adjusted_rand_index(begun[name][3:], truth(name)[3:]) > 0.5


# ------------------------------------------------------------------ what is refused


def test_continue__names_what_is_wrong(store):
    for config, words in [
        (replace(MORE, n_states=20), ("`n_states=`", "10", "'part'")),
        (replace(MORE, use_keypoints=("point0", "point5")), ("`use_keypoints=`",)),
        (replace(MORE, from_model="nobody"), ("'nobody'",)),
        (replace(MORE, stage="ar"), ("`stage=", "'part'")),
        (replace(MORE, sessions=("session_9*",)), ("`sessions=`", "session_9*")),
        (replace(MORE, sessions=()), ("`sessions=`",)),
        (replace(MORE, sessions=(SHORT,)), ("more than 3 frames",)),
    ]:
        with pytest.raises(kpms_zarr.InputError) as caught:
            fit(store, "x", config)
        for word in words:
            assert word in str(caught.value), (config, str(caught.value))
    with pytest.raises(kpms_zarr.InputError, match="stage='full'"):
        FitConfig(from_model="part")
    with pytest.raises(kpms_zarr.InputError, match="fitted already"):
        fit(store, "part", MORE)
    assert [model.name for model in models.list_models(store)] == ["ar", "part"]


# ------------------------------------------------------------------ a part of the sessions


@pytest.mark.full
def test_sessions__chosen_by_name_pattern_or_coordinate_are_the_same(store):
    group = zarr.open_group(store, path="keypoints", mode="r+")
    values = ["control" if name in PART else "drug" for name in NAMES]
    array = group.create_array(
        "group", shape=(len(NAMES),), dtype=str, dimension_names=("session",)
    )
    array[:] = np.asarray(values, dtype=object)
    expected = result(store, "ar")
    for number, chosen in enumerate((PART[::-1], ("group=control",), ("session_002", "*[01]"))):
        fit(store, f"m{number}", replace(AR, sessions=chosen))
        assert_same(result(store, f"m{number}"), expected)
    settings = provenance_of(expected[1].attrs)["settings"]
    assert settings["sessions"] == ["session_00[0-2]"]
    # The rest of them: two commands for 'fit on a part, apply to the rest'.
    summary = kpms_zarr.apply(store, model="m1", sessions=["group=drug"], sweeps=2, check=False)
    assert summary.labelled == NAMES[3:]


def test_sessions__that_are_not_fitted_are_not_published(store):
    labels, parameters = result(store, "ar")
    assert tuple(labels["session"].values) == PART
    assert labels.sizes["frame"] == 500
    assert float(labels["frequency"].sum()) == pytest.approx(1)
    assert parameters.sizes["sweep"] == 10


# ------------------------------------------------------------------ interrupted


class Stop(Exception):
    pass


@pytest.mark.parametrize("when", [1, *(pytest.param(n, marks=pytest.mark.full) for n in (0, 3))])
def test_continue__interrupted_and_resumed_gives_the_same_bits(store, when):
    config = replace(MORE, sweeps=4, save_noise_scale=True)
    fit(store, "quiet", config)

    def stop(event: Any) -> None:
        if when == 0 and isinstance(event, SweepStarted):
            raise Stop
        if isinstance(event, SweepEnded) and event.sweep == when + 1:
            raise Stop

    with pytest.raises(Stop):
        kpms_zarr.fit(store, model="m", config=config, callbacks=[stop], save_every=1)
    assert models.current_version(access.open_group(store), "m") is None
    events: list[Any] = []
    # The settings need not be given again, and the model that it went on from may be gone.
    shutil.rmtree(store / "models" / "part")
    kpms_zarr.fit(store, model="m", resume=True, callbacks=[events.append])
    assert any(f"after sweep {when} of 4" in note for note in notes(events))
    assert isinstance([e for e in events if isinstance(e, Committed)][-1], Committed)
    assert_same(result(store, "m"), result(store, "quiet"))
    one, two = (result(store, name)[1].attrs for name in ("m", "quiet"))
    for name in ("n_sweeps_in_all", "from_version", "centroid_step_variance", "is_turned"):
        assert one[name] == two[name]
    assert one["n_sweeps_in_all"] == 30 + WARM_SWEEPS + ANNEAL_SWEEPS + 4


@pytest.mark.full
@pytest.mark.slow
def test_continue__ar_interrupted_and_resumed_gives_the_same_bits(store):
    config = replace(MORE_AR, sweeps=6, kappa=None, target_duration=400.0)
    fit(store, "quiet", config)

    def stop(event: Any) -> None:
        if isinstance(event, SweepEnded) and event.sweep == 4:
            raise Stop

    with pytest.raises(Stop):
        kpms_zarr.fit(store, model="m", config=config, callbacks=[stop], save_every=2)
    kpms_zarr.fit(store, model="m", config=config, resume=True)
    assert_same(result(store, "m"), result(store, "quiet"))
    fit(store, "other", replace(config, seed=1))
    assert not np.array_equal(
        result(store, "other")[0]["syllable"], result(store, "quiet")[0]["syllable"]
    )


# ------------------------------------------------------------------ the plan of such a fit


@pytest.mark.parametrize("config", [
    replace(CONFIG, refine_pose=False, sweeps=1, ar_sweeps=1), replace(AR, sweeps=1),
    replace(MORE, sweeps=1), replace(MORE_AR, sweeps=1),
], ids=["both", "ar", "continued", "continued ar"])  # fmt: skip
def test_plan__is_that_of_the_fit(store, config):
    host_memory = resident_memory() + 4_000_000_000  # a long run of tests holds much itself
    budget = kpms_zarr.Budget(device_memory="300MB", host_memory=host_memory, tiles_in_flight=2)
    planned = kpms_zarr.plan(store, config=config, budget=budget, time_tiles=config is MORE_AR)
    _, events = fit(store, "x", config, budget=budget)
    made = next(event.plan for event in events if isinstance(event, PlanMade))
    changing = {"host_bytes": 0, "seconds_per_sweep": None}  # the process grows meanwhile
    assert replace(planned, **changing) == replace(made, **changing)
    assert planned.n_states == 10
    assert planned.n_sessions == (9 if config.from_model else 3)


def test_plan__takes_the_settings_of_the_model(store):
    with pytest.raises(kpms_zarr.InputError, match="n_states="):
        kpms_zarr.plan(store, config=replace(MORE, n_states=20), time_tiles=False)
    with pytest.raises(kpms_zarr.InputError, match="'nobody'"):
        kpms_zarr.plan(store, config=replace(MORE, from_model="nobody"), time_tiles=False)
    found = kpms_zarr.plan(store, config=replace(MORE_AR, sessions=(NAMES[5],)))
    assert found.seconds_per_sweep > 0
    assert (found.n_sessions, found.n_frames, found.n_latent) == (1, 700, 3)
    assert sorted(path.name for path in (store / "models").iterdir() if path.is_dir()) == [
        "ar", "part",
    ]  # fmt: skip
