"""The full stage through `fit`: what is observed and what is not, units, outputs, failures."""

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import kpms_zarr
from helpers.small import N_KEYPOINTS, SMALL
from kpms_zarr.compute.analysis.agreement import adjusted_rand_index
from kpms_zarr.compute.config import FitConfig
from kpms_zarr.compute.errors import SamplingError
from kpms_zarr.compute.events import Noted, SweepEnded
from kpms_zarr.compute.runs import fit as fit_module
from kpms_zarr.compute.runs import preparation
from kpms_zarr.compute.runs.plan import Needs, make_plan, settle_tiles
from kpms_zarr.compute.runs.preparation import load, make_chain, prepare
from kpms_zarr.compute.sampler import full_model
from kpms_zarr.compute.sampler.chain import Chain
from kpms_zarr.compute.sampler.sweep import Sweeper
from kpms_zarr.store.core import access
from kpms_zarr.store.core.blocks import Block
from kpms_zarr.store.core.provenance import provenance_of
from kpms_zarr.store.model.models import open_labels, open_parameters
from kpms_zarr.store.rotation import rotate
from kpms_zarr.store.study import synthetic

STUDY = synthetic.SyntheticStudy(
    n_sessions=3, n_frames=800, n_keypoints=N_KEYPOINTS, n_latent=3, is_ragged=True, seed=3,
    missing_fraction=0.05,
)  # fmt: skip
QUICK = replace(SMALL, ar_sweeps=3, sweeps=3)


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    store = tmp_path_factory.mktemp("full") / "study.zarr"
    synthetic.write_store(store, STUDY)
    kpms_zarr.pca(store, variance=0.99)
    return store


@pytest.fixture
def store(original: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(original, tmp_path / "study.zarr"))


def fitted(
    store: Path, model: str = "m", *, budget: kpms_zarr.Budget | None = None, **settings: object
):
    """Labels and parameters of a quick fit, in memory."""
    kpms_zarr.fit(store, model=model, config=replace(QUICK, **settings), budget=budget)
    return open_labels(store, model).load(), open_parameters(store, model).load()


def real_values(labels, name: str) -> np.ndarray:
    values = labels[name].values
    real = np.arange(values.shape[1]) < labels["n_frames"].values[:, None]
    return values[real]


def assert_same(one, two, names=("syllable", "latent", "centroid", "heading")) -> None:
    for name in names:
        np.testing.assert_array_equal(one[name].values, two[name].values)


# ------------------------------------------------------------------ what is published


def test_both__publishes_two_stages_and_every_variable(store):
    events: list[object] = []
    config = replace(QUICK, save_noise_scale=True)
    result = kpms_zarr.fit(store, model="m", config=config, callbacks=[events.append])
    labels, parameters = open_labels(store, "m").load(), open_parameters(store, "m").load()
    assert result.n_sweeps == 6
    assert parameters["trace_stage"].values.tolist() == ["ar"] * 3 + ["full"] * 3
    assert [e.stage for e in events if isinstance(e, SweepEnded)] == ["ar"] * 3 + ["full"] * 3
    assert parameters["trace_kappa"].values.tolist() == [1e6] * 3 + [1e4] * 3
    terms = parameters["trace_log_probability"]
    assert np.isfinite(terms[3:]).all()
    assert np.isnan(terms[:3].sel(term=["centroid", "noise_scale", "position"])).all()
    given_parameters = terms.drop_sel(term="parameters").sum("term")
    np.testing.assert_allclose(given_parameters, parameters["trace_log_likelihood"])
    assert np.isfinite(terms.sel(term="parameters")).all()
    for name in ("latent", "centroid", "heading", "noise_scale"):
        assert np.isfinite(real_values(labels, name)).all()
    assert (real_values(labels, "noise_scale") > 0).all()
    assert labels["noise_scale"].dims == ("session", "frame", "keypoint")
    assert (real_values(labels, "syllable") >= 0).all()
    assert (parameters["noise_variance"] > 0).all()
    assert parameters.attrs["centroid_step_variance"] > 0
    settings = provenance_of(parameters.attrs)["settings"]
    about = ("notes", "given")
    kept = {name: value for name, value in settings.items() if name not in about}
    assert FitConfig.from_store(kept, settings["given"]) == config
    assert set(settings["given"]) == config.given


def noise_free(study: synthetic.SyntheticStudy, index: int) -> np.ndarray:
    """Where the keypoints of a simulated session really are: (frame, keypoint, space)."""
    session, truth = synthetic.simulate_session(study, index), synthetic._truth(study)
    pose = truth.base + np.tensordot(session.latent, truth.loading, 1)
    return rotate(pose, session.heading) + session.centroid[:, None]


def test_reconstruct__is_closer_to_the_truth_than_what_was_tracked(store):
    fitted(store, sweeps=15)
    found = kpms_zarr.reconstruct(store, "m", "session_000")
    assert found.dims == ("frame", "keypoint", "space")
    session, truth = synthetic.simulate_session(STUDY, 0), noise_free(STUDY, 0)
    is_seen = np.isfinite(session.position).all(-1)
    tracked = np.linalg.norm(session.position - truth, axis=-1)
    denoised = np.linalg.norm(found.values - truth, axis=-1)

    def rms(error: np.ndarray) -> float:
        return float(np.sqrt(np.mean(np.square(error))))

    assert rms(denoised[is_seen]) < 0.7 * rms(tracked[is_seen])
    # Outliers, which lie some 15 units off, are not followed; what was not tracked is found.
    is_outlier = is_seen & (session.confidence < 0.5)
    assert rms(denoised[is_outlier]) < 0.3 * rms(tracked[is_outlier])
    assert rms(denoised[~is_seen]) < 4


@pytest.mark.slow
def test_full__goes_on_from_a_model(store):
    kpms_zarr.fit(store, model="start", config=replace(QUICK, stage="ar", sweeps=5))
    before = open_labels(store, "start").load()
    kpms_zarr.fit(
        store, model="more",
        config=FitConfig(
            stage="full", from_model="start", sweeps=1, segment_frames=64, tile_frames=512,
            kappa=1e6,
        ),
    )  # fmt: skip
    after = open_labels(store, "more").load()
    parameters = open_parameters(store, "more").load()
    assert parameters.sizes["state"] == QUICK.n_states  # as in the start model, not the default
    assert parameters["trace_stage"].values.tolist() == ["full"]
    one, two = real_values(before, "syllable"), real_values(after, "syllable")
    assert adjusted_rand_index(one, two) > 0.5
    # Wrong twin: a chain that begins anew has little to do with the model.
    kpms_zarr.fit(
        store, model="anew",
        config=replace(QUICK, stage="full", sweeps=1, init="prior", seed=9, latent_dim=None),
    )  # fmt: skip
    other = real_values(open_labels(store, "anew").load(), "syllable")
    assert adjusted_rand_index(one, other) < 0.5
    config = FitConfig(stage="full", from_model="start", n_states=20)
    with pytest.raises(kpms_zarr.InputError, match="n_states="):
        kpms_zarr.fit(store, model="x", config=config)
    with pytest.raises(kpms_zarr.InputError, match="nobody"):
        kpms_zarr.fit(store, model="x", config=FitConfig(stage="full", from_model="nobody"))
    with pytest.raises(kpms_zarr.InputError, match="stage='full'"):
        FitConfig(stage="both", from_model="start")


@pytest.mark.full
@pytest.mark.slow
def test_from_model__goes_on_with_new_random_numbers(store):
    """The same seed on both sides: the chain explores, instead of repeating itself."""
    kpms_zarr.fit(store, model="ar", config=replace(QUICK, stage="ar", sweeps=5))
    for name, before, seed in (("a", "ar", 0), ("b", "a", 0), ("c", "a", 1)):
        config = FitConfig(
            stage="full", from_model=before, sweeps=6, seed=seed, segment_frames=64,
            save_noise_scale=True,
        )  # fmt: skip
        kpms_zarr.fit(store, model=name, config=config)
    noise = {
        name: np.log(real_values(open_labels(store, name).load(), "noise_scale"))
        for name in ("a", "b", "c")
    }
    same, other = (
        np.corrcoef(noise["a"].ravel(), noise[name].ravel())[0, 1] for name in ("b", "c")
    )
    assert abs(same - other) < 0.1
    assert same < 0.9
    parameters = open_parameters(store, "b")
    assert parameters.attrs["n_sweeps_in_all"] == 17
    assert parameters.attrs["from_version"] == "a/v1"
    one, two = (open_parameters(store, name).attrs["centroid_step_variance"] for name in "ab")
    assert one == two


@pytest.mark.slow
def test_fit__same_bits_for_tiles_in_flight_and_order_of_sessions(store, tmp_path, copy_store):
    one, p = fitted(store, budget=kpms_zarr.Budget(tiles_in_flight=1))
    budget = kpms_zarr.Budget(tiles_in_flight=4, device_memory="1GB")
    two, q = fitted(store, "n", budget=budget)
    assert_same(one, two)
    np.testing.assert_array_equal(p["trace_log_likelihood"], q["trace_log_likelihood"])
    turned = copy_store(store, tmp_path / "turned.zarr", order=[2, 0, 1])
    kpms_zarr.pca(turned, variance=0.99)
    three, _ = fitted(turned)
    for name in one["session"].values:
        a, b = one.sel(session=name), three.sel(session=name)
        n = int(a["n_frames"])
        for variable in ("syllable", "latent", "heading"):
            np.testing.assert_array_equal(a[variable].values[:n], b[variable].values[:n])
    other, _ = fitted(store, "other", seed=1)
    assert (other["latent"].values != one["latent"].values).any()


# ------------------------------------------------------------------ what counts as observed


def chain_of(store: Path, **settings: object) -> tuple[Chain, preparation.Preparation]:
    config = replace(QUICK, **settings)
    prepared = prepare(store, config, None, lambda event: None)
    needs = Needs.of(
        settle_tiles(config), sessions=prepared.sessions, study=prepared.study,
        n_latent=len(prepared.loading), fix_heading=False,
    )  # fmt: skip
    chain = make_chain(prepared, config, make_plan(needs, kpms_zarr.Budget()), None)
    load(chain, prepared, config, None, 2)
    return chain, prepared


def test_chain__holds_what_was_tracked_and_nothing_interpolated(store):
    group = access.open_group(store, "r+")["keypoints"]
    group["confidence"][0, 10, 2] = 0.0
    group["position"][1, 20:30] = np.nan
    chain, prepared = chain_of(store)
    with chain:
        for session, first in zip(chain.index.sessions, chain.index.first, strict=True):
            n = session.n_frames
            position = group["position"][session.index, :n]
            confidence = group["confidence"][session.index, :n]
            tracked = position / prepared.scale[session.index]
            tracked[prepared.screen.find(Block(session.index, 0, n), position, confidence)] = np.nan
            tracked[(confidence == 0) | ~np.isfinite(tracked).all(-1)] = np.nan
            columns = chain.observed.gather(
                np.array([first]), np.array([first + n]), n_rows=n, n_segments=1, fill=0
            )[0]
            held = columns[:, : tracked[0].size].reshape(tracked.shape)
            if session.index == 0:
                assert np.isnan(held[10, 2]).all()
            np.testing.assert_allclose(held, tracked, rtol=1e-6, equal_nan=True)
            expected = 10 ** (2 * (-0.5 * np.log10(confidence + 1e-3) + 0.25))
            np.testing.assert_allclose(columns[:, tracked[0].size :], expected, rtol=1e-5)
        assert np.isfinite(chain.local).all()


@pytest.mark.slow
def test_fit__does_not_depend_on_positions_without_confidence(store, tmp_path, copy_store):
    """A keypoint of confidence 0 is missing, wherever the tracker put it."""
    shape = access.open_group(store)["keypoints"]["confidence"].shape
    hidden = np.random.default_rng(0).random(shape) < 0.2
    results = []
    for name, value in (("a", 0.0), ("b", 1e4)):
        place = copy_store(store, tmp_path / f"{name}.zarr")
        group = access.open_group(place, "r+")["keypoints"]
        position, confidence = group["position"][...], group["confidence"][...]
        position[hidden], confidence[hidden] = value, 0.0
        group["position"][...], group["confidence"][...] = position, confidence
        kpms_zarr.pca(place, variance=0.99)
        results.append(fitted(place)[0])
    assert_same(*results)


@pytest.mark.slow
def test_fit__session_in_which_a_keypoint_never_appears(store):
    group = access.open_group(store, "r+")["keypoints"]
    group["position"][1, :, 3] = np.nan
    said: list[str] = []
    kpms_zarr.fit(
        store, model="m", config=QUICK,
        callbacks=[lambda e: said.append(e.text) if isinstance(e, Noted) else None],
    )  # fmt: skip
    assert any("never tracked" in text for text in said)
    labels = open_labels(store, "m").load()
    assert np.isfinite(real_values(labels, "latent")).all()
    found = kpms_zarr.reconstruct(store, "m", str(labels["session"].values[1]))
    assert np.isfinite(found.values).all()


@pytest.mark.slow
def test_fit__frames_without_any_keypoint_follow_the_dynamics(store):
    """In a long gap the latent pose is drawn from the dynamics: it moves, and stays in range."""
    group = access.open_group(store, "r+")["keypoints"]
    group["position"][0, 100:200] = np.nan
    labels, _ = fitted(store, sweeps=8)
    latent = labels["latent"].values[0]
    gap, rest = latent[105:195], latent[: int(labels["n_frames"][0])]
    assert np.isfinite(gap).all()
    assert np.abs(gap).max() < 3 * np.abs(rest).max()
    # Wrong twin: interpolation would make second differences vanish.
    assert np.abs(np.diff(gap, n=2, axis=0)).mean() > 1e-3


# ------------------------------------------------------------------ keypoints, units, heading


@pytest.mark.full
@pytest.mark.slow
def test_use_keypoints__equals_a_store_of_these_keypoints(store, tmp_path, copy_store):
    names = ("point5", "point0", "point3", "point2")
    one, p = fitted(store, use_keypoints=names)
    small = copy_store(store, tmp_path / "small.zarr", keypoints=names)
    kpms_zarr.pca(small, variance=0.99)
    two, _ = fitted(small)
    assert_same(one, two)
    assert tuple(p["keypoint"].values) == names
    found = kpms_zarr.reconstruct(store, "m", "session_000")
    assert tuple(found["keypoint"].values) == names
    with pytest.raises(kpms_zarr.InputError, match="use_keypoints="):
        fitted(store, "x", use_keypoints=("point5", "pointt0"))
    with pytest.raises(kpms_zarr.InputError, match="heading"):
        fitted(store, "x", use_keypoints=("point1", "point2", "point3"))
    assert [model.name for model in kpms_zarr.info(store).models] == ["m"]


@pytest.mark.full
@pytest.mark.slow
def test_scale__metres_and_pixels_agree(store, tmp_path, copy_store):
    metres = copy_store(store, tmp_path / "metres.zarr", factor=1e-3)
    kpms_zarr.pca(metres, variance=0.99)
    settings = {"precision": "float64", "ar_sweeps": 8, "sweeps": 8}
    one, p = fitted(store, **settings)
    two, q = fitted(metres, **settings)
    assert adjusted_rand_index(real_values(one, "syllable"), real_values(two, "syllable")) > 0.9
    np.testing.assert_allclose(
        p["trace_log_likelihood"].values[-1], q["trace_log_likelihood"].values[-1], atol=0.5
    )
    a = kpms_zarr.reconstruct(store, "m", "session_000").values
    b = kpms_zarr.reconstruct(metres, "m", "session_000").values
    assert np.median(np.abs(a - 1000 * b)) < 1.0
    np.testing.assert_allclose(one["scale"], 1000 * two["scale"], rtol=1e-5)
    # Wrong twin: without the scale the priors mean something else in metres.
    three, r = fitted(metres, "none", scale="none", **settings)
    assert (three["scale"] == 1).all()
    far = abs(p["trace_log_likelihood"].values[-1] - r["trace_log_likelihood"].values[-1])
    assert far > 5


@pytest.mark.slow
def test_scale__of_each_session(store, tmp_path, copy_store):
    zoomed = copy_store(store, tmp_path / "zoomed.zarr", factor=[1.0, 2.5, 0.4])
    kpms_zarr.pca(zoomed, variance=0.99)
    labels, _ = fitted(zoomed, scale="session")
    plain, _ = fitted(store, scale="session")
    ratio = labels["scale"].values / plain["scale"].values
    np.testing.assert_allclose(ratio, [1.0, 2.5, 0.4], rtol=1e-3)
    for row, factor in enumerate([1.0, 2.5, 0.4]):
        name = str(labels["session"].values[row])
        a = kpms_zarr.reconstruct(zoomed, "m", name).values
        b = kpms_zarr.reconstruct(store, "m", name).values
        assert np.median(np.abs(a - factor * b)) < 3 * factor


@pytest.mark.full
@pytest.mark.slow
def test_fix_heading__is_zero_in_every_sweep(store, monkeypatch):
    seen = []
    original = Sweeper.sweep

    def sweep(self, *given):
        result = original(self, *given)
        seen.append(np.array(self.chain.heading))
        return result

    monkeypatch.setattr(Sweeper, "sweep", sweep)
    labels, parameters = fitted(store, fix_heading=True)
    assert len(seen) == 6  # of both stages
    assert all((heading == 0).all() for heading in seen)
    assert (real_values(labels, "heading") == 0).all()
    assert parameters.attrs["fix_heading"]
    # As the PCA of the store has it, without the option.
    kpms_zarr.pca(store, variance=0.99, fix_heading=True)
    labels, _ = fitted(store, "n")
    assert (real_values(labels, "heading") == 0).all()
    # Wrong twin: without it the heading moves.
    labels, _ = fitted(store, "o", fix_heading=False)
    assert real_values(labels, "heading").std() > 0.1


@pytest.mark.slow
@pytest.mark.parametrize(
    ("n_keypoints", "n_space", "latent_dim", "lags"),
    [
        (2, 2, 1, 1),
        pytest.param(3, 3, 2, 5, marks=pytest.mark.full),
        pytest.param(6, 2, 5, 2, marks=pytest.mark.full),
        pytest.param(20, 3, 15, 1, marks=pytest.mark.full),
    ],
)
def test_fit__sizes(tmp_path, n_keypoints, n_space, latent_dim, lags):
    study = synthetic.SyntheticStudy(
        n_sessions=2, n_frames=300, n_keypoints=n_keypoints, n_space=n_space,
        n_latent=min(4, latent_dim), missing_fraction=0.02,
    )  # fmt: skip
    store = tmp_path / "s.zarr"
    synthetic.write_store(store, study)
    kpms_zarr.pca(store)
    labels, parameters = fitted(store, latent_dim=latent_dim, lags=lags, n_states=5)
    assert parameters.sizes["latent_dim"] == latent_dim
    assert np.isfinite(real_values(labels, "latent")).all()
    assert np.isfinite(parameters["trace_log_likelihood"]).all()


@pytest.mark.full
@pytest.mark.slow
def test_fit__fifty_keypoints_and_five_lags(tmp_path):
    study = synthetic.SyntheticStudy(n_sessions=2, n_frames=300, n_keypoints=50, n_space=3)
    store = tmp_path / "s.zarr"
    synthetic.write_store(store, study)
    kpms_zarr.pca(store)
    labels, _ = fitted(store, latent_dim=15, lags=5, n_states=5)
    assert np.isfinite(real_values(labels, "latent")).all()


# ------------------------------------------------------------------ stickiness and noise


@pytest.mark.slow
def test_target_duration__in_both_stages(store):
    labels, parameters = fitted(store, target_duration=400.0, ar_sweeps=30, sweeps=60)
    assert labels.attrs["median_duration_overall"] == pytest.approx(400, rel=0.15)
    kappa = parameters["trace_kappa"].values
    assert len(set(kappa[:18])) > 15
    assert len(set(kappa[20:30])) == 1
    assert kappa[30] == 1e4
    assert len(set(kappa[30:66])) > 30
    assert len(set(kappa[68:])) == 1


@pytest.mark.slow
def test_noise_variance__is_fixed_shared_or_of_each_keypoint(store):
    found = {
        mode: fitted(store, mode, sample_noise_variance=mode)[1]["noise_variance"].values
        for mode in ("none", "shared", "keypoint")
    }
    assert (found["none"] == 1).all()
    assert len(set(found["shared"])) == 1
    assert found["shared"][0] != 1
    assert len(set(found["keypoint"])) == 6
    assert all((variance > 0).all() for variance in found.values())


# ------------------------------------------------------------------ failures


@pytest.mark.slow
def test_tile__is_repeated_in_float64_when_float32_fails(store, monkeypatch):
    """A threshold that no float32 tile passes: the result is that of float64, and is said."""
    monkeypatch.setitem(full_model.SMALLEST_PIVOT, np.dtype("float32"), 2.0)
    said: list[str] = []
    kpms_zarr.fit(
        store, model="m", config=QUICK,
        callbacks=[lambda e: said.append(e.text) if isinstance(e, Noted) else None],
    )  # fmt: skip
    assert any("float64" in text for text in said)
    assert np.isfinite(real_values(open_labels(store, "m").load(), "latent")).all()


def break_from(sweep: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """From some sweep on no tile has a finite latent pose."""
    original = full_model.sample_full_tile

    def broken(tables, tile, seed_words, number, is_last, **settings):
        found = original(tables, tile, seed_words, number, is_last, **settings)
        if number >= sweep and is_last:
            bad = np.full_like(np.asarray(found.first_bad), 7)
            return found._replace(first_bad=bad)
        return found

    monkeypatch.setattr(full_model, "sample_full_tile", broken)


@pytest.mark.slow
def test_failure__stops_at_the_last_complete_sweep_and_says_where(store, monkeypatch):
    break_from(5, monkeypatch)
    with pytest.raises(SamplingError, match=r"sweep 6: .*frame .* of session 'session_00.*state"):
        kpms_zarr.fit(store, model="m", config=QUICK)
    labels, parameters = open_labels(store, "m").load(), open_parameters(store, "m").load()
    assert parameters.sizes["sweep"] == 5
    assert any("stopped after 5 sweeps" in note
               for note in provenance_of(parameters.attrs)["settings"]["notes"])  # fmt: skip
    monkeypatch.undo()
    kpms_zarr.fit(store, model="short", config=replace(QUICK, sweeps=2))
    assert_same(labels, open_labels(store, "short").load())


@pytest.mark.full
@pytest.mark.slow
@pytest.mark.parametrize("n_in_flight", [pytest.param(1, marks=pytest.mark.full), 3])
def test_failure__in_the_midst_of_a_sweep_undoes_the_half_of_it(store, n_in_flight, monkeypatch):
    """Behind the second odd tile that is written in sweep 4; the last commit is that of sweep 2."""
    config = replace(QUICK, stage="full", tile_frames=256)
    budget = kpms_zarr.Budget(tiles_in_flight=n_in_flight, device_memory="1GB")
    expected, p = fitted(store, "short", budget=budget, stage="full", tile_frames=256, sweeps=3)
    update, go_back = Sweeper._update, fit_module._Job.go_back
    numbers = []

    def fail(self, task, *, address, **options):
        found = update(self, task, address=address, **options)
        if address.number == 3 and task.is_odd:
            numbers.append(address.number)
            if len(numbers) == 2:
                raise SamplingError("session_000", 2, 5, 3, 0, address.number)
        return found

    def stay(self, sweeper, *others):
        """Wrong twin: the chain is left as the failure left it."""
        rows = (sweeper.chain.local, sweeper.chain.syllable)
        halves = [np.array(values) for values in rows]
        progress = go_back(self, sweeper, *others)
        for values, half in zip(rows, halves, strict=True):
            is_new = np.asarray(values) != half
            assert is_new.mean() > 0.05
            values[:] = half
        return progress

    monkeypatch.setattr(Sweeper, "_update", fail)
    for model, way in (("m", go_back), ("twin", stay)):
        numbers.clear()
        monkeypatch.setattr(fit_module._Job, "go_back", way)
        with pytest.raises(SamplingError, match="sweep 4"):
            kpms_zarr.fit(
                store, model=model, config=replace(config, sweeps=6), budget=budget, save_every=2
            )
        assert len(numbers) >= 2
    found, q = open_labels(store, "m").load(), open_parameters(store, "m").load()
    assert_same(found, expected)
    for name in ("ar_weight", "transition_probability", "noise_variance", "trace_log_likelihood"):
        np.testing.assert_array_equal(p[name].values, q[name].values)
    twin = open_labels(store, "twin").load()
    assert (twin["latent"].values != expected["latent"].values).mean() > 0.05


def test_failure__in_the_first_sweep_publishes_nothing(store, monkeypatch):
    break_from(0, monkeypatch)
    with pytest.raises(SamplingError):
        kpms_zarr.fit(store, model="m", config=replace(QUICK, stage="full"))
    assert kpms_zarr.info(store).models == ()


# ------------------------------------------------------------------ hard data


def hard_store(path: Path, n_frames: int) -> Path:
    """Outliers of 50 body lengths, 60 % missing, frozen keypoints, a keypoint on two animals."""
    study = replace(STUDY, n_sessions=2, n_frames=n_frames, is_ragged=False, missing_fraction=0.6)
    synthetic.write_store(path, study)
    group = access.open_group(path, "r+")["keypoints"]
    rng = np.random.default_rng(0)
    position = group["position"][...]
    far = rng.random(position.shape[:3]) < 0.02
    position[far] += rng.normal(size=(far.sum(), 2)).astype(np.float32) * 5000
    position[0, 100:300] = position[0, 100]  # the whole animal frozen
    position[1, :, 1] = position[1, 5, 1]  # one keypoint frozen in the picture
    position[0, :, 4] += 300 * (np.arange(n_frames) // 7 % 2)[:, None]  # two animals
    position[1, 200:260] = np.nan
    group["position"][...] = position
    return path


@pytest.mark.full
@pytest.mark.slow
def test_hard_data__a_thousand_sweeps_in_float32(tmp_path, full):
    store = hard_store(tmp_path / "hard.zarr", 700)
    kpms_zarr.pca(store)
    sweeps = 1000 if full else 40
    labels, parameters = fitted(store, ar_sweeps=10, sweeps=sweeps, latent_dim=4, n_states=30)
    assert parameters.sizes["sweep"] == sweeps + 10
    assert np.isfinite(parameters["trace_log_likelihood"]).all()
    for name in ("latent", "centroid", "heading"):
        assert np.isfinite(real_values(labels, name)).all()


@pytest.mark.full
@pytest.mark.slow
def test_nine_mice__long_float32_run(nine_mice, tmp_path, full):
    sweeps = 1000 if full else 10
    store = tmp_path / "mice.zarr"
    points = ["spine4", "spine3", "spine2", "spine1", "head", "nose", "right ear", "left ear"]
    kpms_zarr.ingest(
        store, [nine_mice], fps=30, keypoints=points, anterior=["nose"], posterior=["spine4"]
    )
    kpms_zarr.pca(store)
    config = FitConfig(ar_sweeps=10, sweeps=sweeps)
    kpms_zarr.fit(store, model="m", config=config)
    parameters = open_parameters(store, "m").load()
    assert np.isfinite(parameters["trace_log_likelihood"]).all()
    assert np.isfinite(real_values(open_labels(store, "m").load(), "latent")).all()
