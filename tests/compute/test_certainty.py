"""Certainty of labels: that of the uncut sessions, whatever they were cut into, and published."""

from __future__ import annotations

import shutil
import tracemalloc
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
from scipy.special import logsumexp

import kpms_zarr
from helpers.small import SMALL
from kpms_zarr.cli import main
from kpms_zarr.compute.config import FitConfig
from kpms_zarr.compute.kernels.dynamics import Dynamics
from kpms_zarr.compute.runs.plan import Needs
from kpms_zarr.compute.sampler import certainty as module
from kpms_zarr.compute.sampler.certainty import LabelCertainty, groups, held_bytes
from kpms_zarr.compute.sampler.chain import NO_STATE, Chain, ChainIndex
from kpms_zarr.compute.sampler.segments import TileShape
from kpms_zarr.compute.sampler.stream import Pipeline
from kpms_zarr.compute.sampler.sweep import Sweeper
from kpms_zarr.compute.sampler.tile_model import Parameters
from kpms_zarr.store.core import access, attributes
from kpms_zarr.store.core.access import Session
from kpms_zarr.store.core.provenance import provenance_of
from kpms_zarr.store.model import models
from kpms_zarr.store.study import synthetic

LAGS, M, N = 2, 2, 5
SHAPE = TileShape(8, 16)
STEP = 1 / 256


def parameters_of(seed: int = 0, *, stay: float = 0.9, spread: float = 1.0) -> Parameters:
    """``spread``: how far apart the states are."""
    rng = np.random.default_rng(seed)
    weight_bias = 0.2 * rng.normal(size=(N, M, M * LAGS + 1)) * spread
    weight_bias[:, :, -1] = spread * rng.normal(size=(N, M))
    root = spread * 0.3 * rng.normal(size=(N, M, M))
    covariance = root @ root.transpose(0, 2, 1) + 0.5 * np.eye(M)
    transition = stay * np.eye(N) + (1 - stay) * rng.dirichlet(np.ones(N), N)
    return Parameters(Dynamics(weight_bias, covariance), np.full(N, 1 / N), transition)


def chain_of(lengths: dict[str, int], *, home: str = "host", dtype: str = "float32") -> Chain:
    """Sessions of any latent pose and any labels, both by the name of the session."""
    sessions = [Session(name, i, n, 30.0) for i, (name, n) in enumerate(lengths.items())]
    index = ChainIndex.of(sessions, LAGS)
    chain = Chain(index, n_latent=M, n_space=2, dtype=dtype, home=home)
    for session, first in zip(index.sessions, index.first, strict=True):
        rng = np.random.default_rng([ord(letter) for letter in session.name])
        frames = slice(first, first + session.n_frames)
        chain.latent[frames] = rng.normal(size=(session.n_frames, M))
        labels = rng.integers(0, N, session.n_frames).astype(np.int16)
        labels[:LAGS] = NO_STATE
        chain.syllable[frames] = labels
    return chain


def sweeper_of(chain: Chain, *, n_in_flight: int = 2, shape: TileShape = SHAPE) -> Sweeper:
    return Sweeper(chain=chain, n_states=N, pipeline=Pipeline(n_in_flight), seed=0, shape=shape)


def found_of(chain: Chain, parameters: Parameters, **options: Any) -> dict[str, np.ndarray]:
    every = LabelCertainty(sweeper_of(chain, **options), parameters)
    found = [part["certainty"] for part in every]
    return {s.name: part for s, part in zip(chain.index.sessions, found, strict=True)}


def exact(x: np.ndarray, z: np.ndarray, parameters: Parameters, lags: int = LAGS) -> np.ndarray:
    """p(z_t | x) of one uncut session by logarithms in float64: (frame,), NaN before ``lags``."""
    x = x.astype(np.float64)
    found = np.full(len(x), np.nan)
    if len(x) <= lags:
        return found
    past = np.concatenate([x[i : len(x) - lags + i] for i in range(lags)], 1)
    regressor = np.concatenate([past, np.ones((len(past), 1))], 1)
    weight_bias, covariance = parameters.dynamics
    residual = x[lags:, None] - np.einsum("nmd,td->tnm", weight_bias, regressor)
    solved = np.einsum("nij,tnj->tni", np.linalg.inv(covariance), residual)
    log_l = -0.5 * (residual * solved).sum(-1) - 0.5 * np.linalg.slogdet(covariance)[1]
    log_pi = np.log(np.maximum(parameters.transition, 1e-30))
    before, after = np.zeros_like(log_l), np.zeros_like(log_l)
    before[0] = log_l[0]
    for t in range(1, len(log_l)):
        before[t] = log_l[t] + logsumexp(before[t - 1][:, None] + log_pi, axis=0)
        before[t] -= before[t].max()
    for t in range(len(log_l) - 2, -1, -1):
        after[t] = logsumexp(log_pi + log_l[t + 1] + after[t + 1], axis=1)
        after[t] -= after[t].max()
    log = before + after
    log -= logsumexp(log, axis=1)[:, None]
    found[lags:] = np.exp(log[np.arange(len(log)), z[lags:]])
    return found


def assert_exact(chain: Chain, parameters: Parameters, found: dict[str, np.ndarray]) -> None:
    for session, first in zip(chain.index.sessions, chain.index.first, strict=True):
        frames = slice(first, first + session.n_frames)
        expected = exact(chain.latent[frames], chain.syllable[frames], parameters)
        got = found[session.name].astype(np.float64)
        assert found[session.name].dtype == np.float16
        np.testing.assert_array_equal(got[LAGS:] * 256, np.rint(got[LAGS:] * 256))
        # Half a step is what is rounded.
        np.testing.assert_allclose(got, expected, atol=STEP / 2 + 5e-4, err_msg=session.name)


LENGTHS = {
    "long": 700, "one segment": LAGS + 16, "two": LAGS + 32, "and one": LAGS + 33,
    "no label": LAGS, "one frame": 1, "one label": LAGS + 1, "b": 331, "a": 57,
}  # fmt: skip


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_certainty__is_that_of_the_uncut_sessions(dtype):
    chain, parameters = chain_of(LENGTHS, dtype=dtype), parameters_of()
    found = found_of(chain, parameters)
    assert_exact(chain, parameters, found)
    # Wrong twin: another transition matrix is not the same to within the tolerance.
    with pytest.raises(AssertionError):
        assert_exact(chain, parameters_of(stay=0.85), found)


def test_certainty__segments_on_their_own_are_not_that(monkeypatch):
    """Wrong twin: without what neighbours say, the test above fails."""
    chain, parameters = chain_of(LENGTHS), parameters_of()
    monkeypatch.setattr(
        module._Messages, "open", lambda self, ran, one_by_one: np.zeros(len(self.before), bool)
    )
    with pytest.raises(AssertionError):
        assert_exact(chain, parameters, found_of(chain, parameters))


def test_certainty__changes_nothing(monkeypatch):
    chain, parameters = chain_of(LENGTHS), parameters_of()
    before = np.array(chain.local), np.array(chain.syllable)
    found_of(chain, parameters)
    np.testing.assert_array_equal(np.array(chain.local), before[0])
    np.testing.assert_array_equal(np.array(chain.syllable), before[1])


@pytest.mark.parametrize("home", ["host", "disk", "device"])
@pytest.mark.parametrize("n_in_flight", [1, 3])
def test_certainty__same_bits_for_any_budget_and_any_sessions_beside(home, n_in_flight):
    parameters = parameters_of()
    reference = found_of(chain_of(LENGTHS), parameters)
    few = dict(reversed([item for item in LENGTHS.items() if item[0] in ("b", "long", "two")]))
    with chain_of(few, home=home) as chain:
        found = found_of(chain, parameters, n_in_flight=n_in_flight)
    assert found.keys() == few.keys()
    for name, values in found.items():
        np.testing.assert_array_equal(values, reference[name], err_msg=name)


def test_certainty__same_bits_for_groups_of_any_size(monkeypatch):
    chain, parameters = chain_of(LENGTHS), parameters_of()
    reference = found_of(chain, parameters)
    monkeypatch.setattr(module, "_GROUP_FRAMES", 1)
    monkeypatch.setattr(module, "_GROUP_TILES", 0)
    monkeypatch.setattr(module, "_ROWS", 3)
    assert [len(rows) for rows in groups(chain.index, SHAPE)] == [1] * len(LENGTHS)
    for name, values in found_of(chain, parameters).items():
        np.testing.assert_array_equal(values, reference[name], err_msg=name)


class Counted:
    """How many segments ran, pass by pass."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.n_segments: list[int] = []
        run = LabelCertainty._pass

        def counted(itself, segments, which, *others):
            self.n_segments.append(len(which))
            self.of = len(segments.begin)
            run(itself, segments, which, *others)

        monkeypatch.setattr(LabelCertainty, "_pass", counted)


def test_certainty__where_the_past_is_soon_forgotten_two_passes_do(monkeypatch):
    counted, parameters = Counted(monkeypatch), parameters_of(spread=2.0, stay=0.5)
    chain = chain_of({"s": 4000, "t": 3000})
    assert_exact(chain, parameters, found_of(chain, parameters))
    assert len(counted.n_segments) <= 3
    assert sum(counted.n_segments) <= 2.2 * counted.of


def test_certainty__where_nothing_is_forgotten_segments_run_one_by_one(monkeypatch):
    """States that hardly ever change and hardly differ: what was is known for the whole session."""
    counted = Counted(monkeypatch)
    parameters = parameters_of(spread=0.02, stay=1 - 1e-6)
    chain = chain_of({"s": 1500, "t": 1100, "u": 40})
    found = found_of(chain, parameters)
    assert_exact(chain, parameters, found)
    assert len(counted.n_segments) > module._PASSES_AT_ONCE  # the test would test nothing
    n_at_once = module._PASSES_AT_ONCE * counted.of
    assert sum(counted.n_segments) <= n_at_once + 3 * counted.of
    assert max(counted.n_segments[module._PASSES_AT_ONCE :]) <= 2 * 3


def test_mean__is_over_what_is_known():
    found = LabelCertainty(sweeper_of(chain_of({"a": 50})), parameters_of())
    syllable = np.array([0, 0, 2, 2, 2, -1], np.int16)
    certainty = np.array([0.5, 1, np.nan, 0.25, 0.75, 0.1], np.float16)
    found.add(syllable[:3], certainty[:3])
    found.add(syllable[3:], certainty[3:])
    np.testing.assert_array_equal(found.mean, [0.75, np.nan, 0.5, np.nan, np.nan])


# ------------------------------------------------------------------ memory


def test_held_bytes__grow_with_the_longest_session_and_not_with_the_study():
    def held(n_sessions: int, n_frames: int) -> int:
        sessions = [Session(f"s{i}", i, n_frames, 30.0) for i in range(n_sessions)]
        return held_bytes(ChainIndex.of(sessions, 3), TileShape(48, 256), 100, "float32")

    assert held(1000, 100_000) == held(100, 100_000) < 30e6
    assert 8 < held(1, 100_000_000) / held(1, 10_000_000) < 11


def test_held_bytes__is_what_is_held():
    shape = TileShape(8, 256)
    chain = chain_of({"s": 400_000, "t": 100})
    sweeper = sweeper_of(chain, shape=shape)
    list(LabelCertainty(sweeper, parameters_of()))  # what is compiled stays
    tracemalloc.start()
    try:
        for _ in LabelCertainty(sweeper, parameters_of()):
            pass
        measured = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    in_flight = 3 * 8 * 256 * 4 * (M + 2)  # counted with the tiles
    predicted = held_bytes(chain.index, shape, N, "float32") + in_flight
    assert measured <= predicted <= 2 * measured


def test_plan__counts_what_certainty_takes():
    sessions = [Session("s", 0, 20_000_000, 30.0)]
    config = FitConfig(stage="ar", n_states=100, tile_frames=2048)
    with_it, without = (
        Needs(
            index=ChainIndex.of(sessions, 3),
            config=replace(config, certainty=choice),
            n_latent=4,
            n_keypoints=0,
            n_space=2,
        )
        for choice in (True, False)
    )
    assert without.certainty_bytes == 0
    assert with_it.certainty_bytes > 20_000_000 * (4 * 100 * 4 / 256)
    tiles = [needs.tile() for needs in (with_it, without)]
    assert all(
        getattr(tiles[0], name) >= getattr(tiles[1], name)
        for name in ("input", "output", "temporary")
    )


# ------------------------------------------------------------------ what is published

STUDY = synthetic.SyntheticStudy(n_sessions=5, n_frames=900, is_ragged=True, seed=3)
# Of one draw: that of averages is tested with them.
CONFIG = replace(SMALL, stage="ar", sweeps=10, sessions=("session_00[0-2]",), average_sweeps=1)


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    store = tmp_path_factory.mktemp("certainty") / "study.zarr"
    synthetic.write_store(store, STUDY)
    kpms_zarr.pca(store, variance=0.99)
    kpms_zarr.fit(store, model="m", config=CONFIG)
    kpms_zarr.fit(store, model="without", config=replace(CONFIG, certainty=False))
    return store


@pytest.fixture
def store(original: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(original, tmp_path / "study.zarr"))


def assert_published(labels: xr.Dataset, store: Path, model: str) -> None:
    """Certainty follows from what is published beside it."""
    found = models.open_parameters(store, model).load()
    weight_bias = np.concatenate([found["ar_weight"], found["ar_bias"].values[..., None]], -1)
    parameters = Parameters(
        Dynamics(weight_bias, found["ar_covariance"].values),
        found["state_usage"].values,
        found["transition_probability"].values,
    )
    for row, n in enumerate(labels["n_frames"].values):
        z, x = labels["syllable"].values[row], labels["latent"].values[row]
        got = labels["certainty"].values[row].astype(np.float64)
        assert np.isnan(got[n:]).all()
        np.testing.assert_allclose(
            got[:n], exact(x[:n], z[:n], parameters, lags=3), atol=STEP / 2 + 1e-3
        )


def test_fit__publishes_how_certain_labels_are(original):
    labels = kpms_zarr.open_labels(original, "m").load()
    assert labels["certainty"].dtype == np.float16
    assert labels["certainty"].dims == ("session", "frame")
    assert_published(labels, original, "m")
    # Wrong twin: those of other labels are not it.
    other = labels.assign(syllable=(labels["syllable"] + 1) % 10)
    with pytest.raises(AssertionError):
        assert_published(other, original, "m")
    group = access.open_group(original)["models/m/labels/v1"]
    assert group["certainty"].chunks == group["syllable"].chunks


def test_fit__mean_by_syllable(original):
    labels = kpms_zarr.open_labels(original, "m").load()
    certainty, syllable = labels["certainty"].values.astype(float), labels["syllable"].values
    for state in range(10):
        known = certainty[(syllable == state) & np.isfinite(certainty)]
        expected = known.mean() if len(known) else np.nan
        np.testing.assert_allclose(labels["mean_certainty"][state], expected, rtol=1e-12)


def test_fit__full_stage(store):
    config = replace(CONFIG, stage="both", ar_sweeps=3, sweeps=3)
    kpms_zarr.fit(store, model="full", config=config)
    assert_published(kpms_zarr.open_labels(store, "full").load(), store, "full")


def test_fit__without(original):
    labels, other = (kpms_zarr.open_labels(original, name).load() for name in ("without", "m"))
    assert not {"certainty", "mean_certainty"} & set(labels)
    # It is worked out from the labels and changes nothing in them.
    xr.testing.assert_equal(labels["syllable"], other["syllable"])
    xr.testing.assert_equal(labels["latent"], other["latent"])


def test_summary__shows_it_where_there_is_one(original, capsys):
    table = kpms_zarr.summary(original, model="m")
    assert (table["mean_certainty"].values <= 1).all()
    assert "mean_certainty" not in kpms_zarr.summary(original, model="without")
    shown = []
    for model in ("m", "without"):
        assert main(["summary", str(original), "--model", model]) == 0
        shown.append(capsys.readouterr().out.splitlines())
    assert shown[0][0].split()[-1] == "certainty"
    assert shown[0][2].endswith(" %")
    assert [line.rsplit("  ", 1)[0].rstrip() for line in shown[0][:1]] == shown[1][:1]


def test_apply__adds_that_of_new_sessions_and_keeps_the_others(store):
    before = kpms_zarr.open_labels(store, "m").load()
    kpms_zarr.apply(store, model="m", sweeps=3, check=False, draw=True)
    after = kpms_zarr.open_labels(store, "m").load()
    assert after.sizes["session"] == 5
    assert_published(after, store, "m")
    for name in before["session"].values:
        n = int(before["n_frames"].sel(session=name))
        one, two = (labels["certainty"].sel(session=name)[:n] for labels in (before, after))
        np.testing.assert_array_equal(one, two)
    known = np.isfinite(after["certainty"].values) & (after["syllable"].values == 0)
    expected = after["certainty"].values[known].astype(float).mean()
    np.testing.assert_allclose(after["mean_certainty"][0], expected, rtol=1e-12)


def test_apply__to_a_model_of_before_it_was_published(store):
    """Sessions that keep their labels have none; those of today have."""
    parameters = access.open_group(store, "r+")["models/without/parameters/v1"]
    provenance = provenance_of(parameters.attrs)
    assert provenance["settings"].pop("certainty") is False
    attributes.write(parameters, {"provenance": provenance})
    kpms_zarr.apply(store, model="without", sweeps=2, check=False, draw=True)
    labels = kpms_zarr.open_labels(store, "without").load()
    is_known = np.isfinite(labels["certainty"].values).any(1)
    assert dict(zip(labels["session"].values, is_known, strict=True)) == {
        name: int(name[-1]) >= 3 for name in STUDY.session_names
    }


def test_apply__leaves_it_out_where_the_fit_did(store):
    kpms_zarr.apply(store, model="without", sweeps=2, check=False, draw=True)
    assert "certainty" not in kpms_zarr.open_labels(store, "without")
