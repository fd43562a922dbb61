"""A fit end to end: reproducible to the bit, published whole, refused with reasons."""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import jax
import numpy as np
import pytest
import xarray as xr

import kpms_zarr
from kpms_zarr.compute.config import FitConfig
from kpms_zarr.compute.events import (
    Committed,
    Noted,
    PlanMade,
    Published,
    SweepEnded,
    SweepStarted,
    TileDone,
    TimePredicted,
)
from kpms_zarr.compute.kernels.ar import feature_pairs
from kpms_zarr.compute.kernels.dynamics import DynamicsPrior, prior_mean
from kpms_zarr.compute.kernels.evidence import log_evidence
from kpms_zarr.compute.kernels.transitions import TransitionPrior
from kpms_zarr.compute.mapreduce import Histogram
from kpms_zarr.compute.runs import fit as fit_run
from kpms_zarr.compute.sampler import initialize
from kpms_zarr.compute.sampler.bouts import LabelCounts
from kpms_zarr.compute.sampler.chain import Chain, ChainIndex
from kpms_zarr.compute.sampler.initialize import fit_centres, label_by_clusters
from kpms_zarr.compute.sampler.segments import FRAMES_PER_TILE, TileShape
from kpms_zarr.compute.sampler.stickiness import KappaSchedule
from kpms_zarr.store.core import access
from kpms_zarr.store.core.access import Session
from kpms_zarr.store.core.provenance import provenance_of
from kpms_zarr.store.core.schema import PARAMETERS
from kpms_zarr.store.ingest.ingest import ingest
from kpms_zarr.store.model import models
from kpms_zarr.store.study import synthetic

STUDY = synthetic.SyntheticStudy(n_sessions=5, n_frames=1500, is_ragged=True, seed=2)
QUICK = FitConfig(stage="ar", sweeps=4, n_states=20, segment_frames=64)


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    store = tmp_path_factory.mktemp("fit") / "study.zarr"
    synthetic.write_store(store, STUDY)
    kpms_zarr.pca(store)
    return store


@pytest.fixture
def store(original: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(original, tmp_path / "study.zarr"))


def labels_by_name(store: Path, model: str) -> dict[str, np.ndarray]:
    labels = models.open_labels(store, model).load()
    return {
        str(name): labels["syllable"].sel(session=name).values[: int(labels["n_frames"][i])]
        for i, name in enumerate(labels["session"].values)
    }


def assert_same_fit(a: tuple[Path, str], b: tuple[Path, str]) -> None:
    one, two = labels_by_name(*a), labels_by_name(*b)
    assert one.keys() == two.keys()
    for name in one:
        np.testing.assert_array_equal(one[name], two[name])
    p, q = models.open_parameters(*a).load(), models.open_parameters(*b).load()
    for name in ("ar_weight", "ar_covariance", "transition_probability", "trace_log_likelihood"):
        np.testing.assert_array_equal(p[name], q[name])


@pytest.mark.full
def test_fit__same_bits_for_any_number_of_tiles_in_flight(store):
    for n in (1, 2, 5):
        budget = kpms_zarr.Budget(tiles_in_flight=n, device_memory="1GB")
        kpms_zarr.fit(store, model=f"m{n}", config=QUICK, budget=budget)
    assert_same_fit((store, "m1"), (store, "m2"))
    assert_same_fit((store, "m1"), (store, "m5"))
    # Wrong twin: another seed is another chain.
    kpms_zarr.fit(store, model="other", config=replace(QUICK, seed=1))
    one, other = labels_by_name(store, "m1"), labels_by_name(store, "other")
    assert any((one[name] != other[name]).any() for name in one)


@pytest.mark.full
def test_fit__same_bits_for_any_order_of_the_sessions(tmp_path):
    study = replace(STUDY, n_sessions=4, n_frames=700, is_ragged=False)
    files = synthetic.write_dlc_csv(tmp_path / "csv", study)
    names = study.settings
    for name, order in (("a", files), ("b", files[::-1])):
        for file in order:  # one at a time: rows in this order
            ingest(tmp_path / f"{name}.zarr", [file])
        heading = {"anterior": names.anterior, "posterior": names.posterior}
        kpms_zarr.pca(tmp_path / f"{name}.zarr", **heading)
    rows = [[s.name for s in access.sessions(tmp_path / f"{n}.zarr")] for n in "ab"]
    assert rows[0] == rows[1][::-1]
    for name in "ab":
        kpms_zarr.fit(tmp_path / f"{name}.zarr", model="m", config=QUICK)
    assert_same_fit((tmp_path / "a.zarr", "m"), (tmp_path / "b.zarr", "m"))


def test_fit__publishes_labels_numbered_by_frequency(store):
    events: list[object] = []
    result = kpms_zarr.fit(store, model="m", config=QUICK, callbacks=[events.append])
    labels = models.open_labels(store, "m").load()
    assert labels["syllable"].dtype == np.int16
    assert labels["syllable"].dims == ("session", "frame")
    real = np.arange(labels.sizes["frame"]) < labels["n_frames"].values[:, None]
    z = labels["syllable"].values
    assert (z[real] >= 0).all()
    assert (z[~real] == -1).all()
    assert (z[:, :3] == z[:, 3:4]).all()  # the lags have the first label
    counts = np.bincount(z[real], minlength=20)
    assert (np.diff(counts) <= 0).all()
    np.testing.assert_allclose(labels["frequency"], counts / counts.sum())
    assert np.isfinite(labels["latent"].values[real]).all()
    tiles = [(e.sweep, e.n_done, e.n_tiles) for e in events if isinstance(e, TileDone)]
    n_tiles = tiles[0][2]
    assert tiles == [(i, n, n_tiles) for i in range(1, 5) for n in range(1, n_tiles + 1)]
    kinds = [type(e) for e in events if not isinstance(e, TileDone | TimePredicted)]
    sweeps = 4 * [SweepStarted, SweepEnded]
    assert kinds == [Noted, PlanMade, Committed, *sweeps, Committed, Published]
    assert result.notes[0].startswith("confident points taken for missing")
    assert result.version == "v1"
    assert result.n_frames == real.sum()


def test_fit__parameters_and_traces_are_complete(store):
    kpms_zarr.fit(store, model="m", config=QUICK)
    parameters = models.open_parameters(store, "m").load()
    assert {v.name for v in PARAMETERS if not v.optional} <= set(parameters.variables)
    np.testing.assert_allclose(parameters["transition_probability"].sum("state_next"), 1)
    assert parameters.sizes["sweep"] == 4
    assert (np.linalg.eigvalsh(parameters["ar_covariance"]) > 0).all()
    trace = parameters["trace_log_likelihood"].values
    assert trace[-1] > trace[0]
    saved = provenance_of(parameters.attrs)["settings"]
    assert set(saved.pop("given")) == QUICK.given
    del saved["notes"]
    assert FitConfig.from_dict(saved) == replace(QUICK, tile_frames=FRAMES_PER_TILE)


def test_fit__parameters_belong_to_the_labels(store):
    """Each published state explains its own frames better than a shuffled one would."""
    kpms_zarr.fit(store, model="m", config=replace(QUICK, sweeps=10))
    labels = models.open_labels(store, "m").load()
    p = models.open_parameters(store, "m").load()
    x, z = labels["latent"].values[0], labels["syllable"].values[0]
    n = int(labels["n_frames"][0])
    past = np.stack([x[i : n - 3 + i] for i in range(3)], 1).reshape(n - 3, -1)

    def squared_error(state: np.ndarray) -> float:
        predicted = np.einsum("tmi,ti->tm", p["ar_weight"].values[state], past)
        residual = x[3:n] - predicted - p["ar_bias"].values[state]
        precision = np.linalg.inv(p["ar_covariance"].values[state])
        return float(np.median(np.einsum("ti,tij,tj->t", residual, precision, residual)))

    own = squared_error(z[3:n])
    assert own < 2 * x.shape[1]
    assert squared_error((z[3:n] + 1) % 5) > 1.5 * own


def test_fit__traces_the_evidence_of_its_labels(store):
    """That of the last sweep is that of what is published, worked out anew."""
    kpms_zarr.fit(
        store, model="m", config=replace(QUICK, sweeps=6, merge_sweeps=5, average_sweeps=1)
    )
    labels = models.open_labels(store, "m").load()
    p = models.open_parameters(store, "m").load()
    mean = prior_mean(labels.sizes["latent_dim"], QUICK.lags)
    rows, columns = feature_pairs(*mean.shape[:1], QUICK.lags)
    moments, counts = np.zeros((20, len(rows))), np.zeros((20, 20), int)
    for session, n in enumerate(labels["n_frames"].values):
        x = labels["latent"].values[session, :n].astype(float)
        z = labels["syllable"].values[session, 3:n]
        past = np.concatenate([*(x[i : i - 3] for i in range(3)), np.ones((len(z), 1))], 1)
        features = np.c_[past, x[3:] - past @ mean.T]
        np.add.at(moments, z, features[:, rows] * features[:, columns])
        np.add.at(counts, (z[:-1], z[1:]), 1)
    dynamics = DynamicsPrior(mean, QUICK.weight_scale, QUICK.innovation_scale, len(mean) + 2)
    transition = TransitionPrior(QUICK.alpha, QUICK.gamma, float(p["trace_kappa"][-1]))
    reference = np.broadcast_to(mean, (20, *mean.shape))
    found = log_evidence(moments, reference, counts, dynamics, transition)
    n_sessions = labels.sizes["session"]
    expected = (sum(found) - n_sessions * np.log(20)) / (counts.sum() + n_sessions)
    trace = p["trace_log_evidence"].values
    assert trace[-1] == pytest.approx(expected, rel=1e-4)
    assert trace[-1] > trace[0]


def test_fit__merges_where_asked_and_goes_on_without(store):
    for merge_sweeps, sweeps in ((0, 6), (4, 6), (4, 4)):
        config = replace(QUICK, sweeps=sweeps, merge_sweeps=merge_sweeps)
        kpms_zarr.fit(store, model=f"m{merge_sweeps}{sweeps}", config=config)
    used = {
        name: (models.open_parameters(store, name)["trace_usage"].values > 0).sum(1)
        for name in ("m06", "m46", "m44")
    }
    assert used["m06"][3] == used["m46"][3] == used["m44"][3]
    assert used["m46"][4] < used["m06"][4]
    # Never after the last sweep: what is published is drawn.
    assert labels_by_name(store, "m44")["session_000"].max() + 1 > used["m46"][4]
    more = replace(QUICK, sweeps=6, merge_sweeps=4, from_model="m06")
    plain = replace(more, merge_sweeps=0)
    kpms_zarr.fit(store, model="more", config=more)
    kpms_zarr.fit(store, model="plain", config=plain)
    assert_same_fit((store, "more"), (store, "plain"))


def test_fit__float64_agrees_with_float32_at_first(store):
    """One sweep from the same start: nearly all labels equal; the rest are ties of rounding."""
    for precision in ("float32", "float64"):
        config = replace(QUICK, sweeps=1, precision=precision)
        kpms_zarr.fit(store, model=precision, config=config)
    one, two = labels_by_name(store, "float32"), labels_by_name(store, "float64")
    assert np.mean(np.concatenate([one[n] == two[n] for n in one])) > 0.99
    assert not jax.config.jax_enable_x64


def test_fit__refuses_a_used_name_and_keeps_old_versions(store):
    kpms_zarr.fit(store, model="m", config=QUICK)
    first = labels_by_name(store, "m")
    with pytest.raises(kpms_zarr.InputError, match="fitted already"):
        kpms_zarr.fit(store, model="m", config=QUICK)
    result = kpms_zarr.fit(store, model="m", config=replace(QUICK, seed=9), overwrite=True)
    assert result.version == "v2"
    old = models.open_labels(store, "m", "v1").load()
    for i, name in enumerate(old["session"].values):
        n = int(old["n_frames"][i])
        np.testing.assert_array_equal(old["syllable"].values[i, :n], first[str(name)])


def test_fit__failing_callback_publishes_nothing(store):
    def stop(event: object) -> None:
        if isinstance(event, SweepEnded) and event.sweep == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        kpms_zarr.fit(store, model="m", config=QUICK, callbacks=[stop])
    assert models.list_models(store) == ()


def test_fit__sessions_shorter_than_the_lags_get_no_label(tmp_path):
    study = replace(STUDY, n_sessions=2, n_frames=400, is_ragged=False)
    files = synthetic.write_dlc_csv(tmp_path, study)
    lines = files[0].read_text().splitlines(keepends=True)
    (tmp_path / "short.csv").write_text("".join(lines[:5]))
    store = tmp_path / "s.zarr"
    settings = study.settings
    ingest(
        store,
        [*files, tmp_path / "short.csv"],
        anterior=settings.anterior,
        posterior=settings.posterior,
    )
    said: list[object] = []
    kpms_zarr.fit(store, model="m", config=QUICK, callbacks=[said.append])
    assert any(isinstance(e, Noted) and "short" in e.text for e in said)
    found = labels_by_name(store, "m")
    assert (found["short"] == -1).all()
    assert (found["session_000"] >= 0).all()


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"sweeps": 0}, "`sweeps=`"),
        ({"kappa": -1.0}, "`kappa=`"),
        ({"target_duration": float("nan")}, "`target_duration=`"),
        ({"n_states": 1}, "`n_states=`"),
        ({"stage": "everything"}, "`stage=`"),
        ({"seed": -1}, "`seed=`"),
        ({"lags": True}, "`lags=`"),
    ],
)
def test_config__names_what_is_wrong(settings, words):
    with pytest.raises(kpms_zarr.InputError, match=words):
        FitConfig(**settings)


def test_config__all_problems_at_once_and_unknown_names():
    with pytest.raises(kpms_zarr.InputError) as error:
        FitConfig(sweeps=0, kappa=0.0, precision="float16")
    assert len(error.value.problems) == 3
    with pytest.raises(kpms_zarr.InputError, match="did you mean 'kappa'"):
        FitConfig.from_dict({"kapa": 3})
    assert FitConfig.from_dict(json.loads(json.dumps(QUICK.to_dict()))) == QUICK


def test_fit__too_many_latent_dimensions_are_refused_before_anything_runs(store):
    with pytest.raises(kpms_zarr.InputError, match="latent"):
        kpms_zarr.fit(store, model="m", config=replace(QUICK, latent_dim=60))


def test_fit__reaches_the_target_duration(store):
    for target in (200.0, 600.0):
        config = FitConfig(stage="ar", sweeps=60, n_states=20, target_duration=target)
        kpms_zarr.fit(store, model=f"t{target:.0f}", config=config)
        found = models.open_parameters(store, f"t{target:.0f}")
        # Medians are whole frames of 33 ms: one of them is more than 15 % of 200 ms.
        drawn = found["trace_median_duration"].values[-1] * 1000 / 30
        assert abs(drawn - target) <= max(0.15 * target, 34)
        kappa = found["trace_kappa"].values
        assert len(set(kappa[36:])) == 1  # frozen after 60 %
        assert len(set(kappa[:36])) > 30


def bouts_of(*bouts: tuple[int, int]) -> Histogram:
    """Bouts by syllable and length, as :class:`LabelCounts` has them."""
    keys = [state << 40 | length for state, length in bouts]
    return Histogram.of_block(np.array(keys, dtype=np.int64))


FEW = bouts_of(*[(0, 12)] * 8, *[(1, 10)] * 2, (2, 1))
MANY = bouts_of(*[(0, 12)] * 2, (1, 10), *[(2, 1)] * 4)


@pytest.mark.parametrize(
    ("bouts", "median", "missed", "jumps"),
    [
        (FEW, 12.0, False, False),
        (FEW, 4.0, True, False),
        (FEW, 40.0, True, False),
        (MANY, 12.0, False, True),
        (MANY, 4.0, True, True),
    ],
)
def test_target__that_is_missed_is_said_and_bouts_that_it_is_not_about(
    bouts, median, missed, jumps
):
    counts = LabelCounts(np.array([900, 96, 4]), np.eye(3, dtype=int), bouts, 30.0)
    progress: Any = SimpleNamespace(
        trace=SimpleNamespace(median_duration=[median]), result=SimpleNamespace(counts=counts)
    )
    index = ChainIndex.of([Session("a", 0, 1000, 30.0)], 3)
    found: list[str] = []
    config = FitConfig(stage="ar", target_duration=400.0)
    fit_run._check_target(config, progress, index, lambda event: found.append(event.text))
    text = "\n".join(found)
    assert ("was not reached" in text) == missed
    assert ("57% of the bouts" in text and "kpms_zarr.quality" in text) == jumps
    assert ("over all bouts it is 33 ms" in text) == jumps
    assert len(found) == missed + jumps


def test_counts__medians_are_those_of_syllables_in_use():
    def of(*frames: int, bouts: Histogram = MANY) -> LabelCounts:
        return LabelCounts(np.array(frames), np.eye(3, dtype=int), bouts, 30.0)

    assert of(900, 96, 4).median_duration == 12  # of 10, 12, 12; wrong twin: 1 over all seven
    assert of(900, 96, 4).smooth_median_duration == pytest.approx(11.75)
    assert of(900, 96, 4).median_of_all == 1
    assert of(900, 96, 4).rare_share == pytest.approx(4 / 7)
    assert of(900, 60, 40).median_duration == 1
    assert of(900, 60, 40).rare_share == 0
    both = of(450, 48, 2).plus(of(450, 48, 2, bouts=bouts_of((0, 40), (0, 41), (2, 1), (1, 12))))
    assert both.median_duration == 12  # of 10, 12, 12, 12, 40, 41
    assert both.rare_share == pytest.approx(5 / 11)
    none = LabelCounts(np.full(300, 7), np.eye(300), bouts_of((3, 7), (4, 9), (5, 9)), 30.0)
    assert (none.n_used, none.median_duration) == (0, 9)  # then all count
    empty = LabelCounts(np.zeros(3), np.eye(3), bouts_of(), 30.0)
    assert np.isnan(empty.median_duration)
    assert (empty.smooth_median_duration, empty.rare_share) == (0, 0)


def test_kappa__jumps_of_the_tracking_do_not_drive_it():
    """Half of the bouts last one frame, those of the syllables as long as they should."""
    frames, target = np.array([900, 96, 4]), 1000 * 11.75 / 30
    schedule = KappaSchedule(1e4, 50, target)
    schedule.update(LabelCounts(frames, np.eye(3), MANY, 30.0))
    assert schedule.value == pytest.approx(1e4)
    # Wrong twin: the median over all bouts.
    schedule.update(LabelCounts(np.array([900, 60, 40]), np.eye(3), MANY, 30.0))
    assert schedule.value > 1e8


def test_kappa__fixed_stays_fixed():
    schedule = KappaSchedule(123.0, 50, None)
    schedule.update(LabelCounts(np.ones(3), np.eye(3), FEW, 30.0))
    assert schedule.value == 123.0


def test_tiles__do_not_grow_with_the_frames():
    shapes = []
    for n_frames in (10**5, 10**7, 10**9):
        index = ChainIndex.of([Session("a", 0, n_frames, 30.0)], 3)
        shapes.append(TileShape.of(index, 256))
    assert shapes[1] == shapes[2]
    assert all(shape.n_segments * shape.n_frames <= FRAMES_PER_TILE for shape in shapes)


def test_clusters__blocks_do_not_change_the_labels(monkeypatch):
    rng = np.random.default_rng(0)
    index = ChainIndex.of([Session("a", 0, 500, 30.0), Session("b", 1, 90, 30.0)], 3)
    found = []
    for block_frames in (10**6, 37):
        monkeypatch.setattr(initialize, "_BLOCK_FRAMES", block_frames)
        with Chain(index, n_latent=2, n_space=2, dtype="float64") as chain:
            chain.latent[:] = np.random.default_rng(1).normal(size=chain.latent.shape)
            label_by_clusters(chain, 8, seed=0)
            found.append(np.array(chain.syllable))
    np.testing.assert_array_equal(found[0], found[1])
    assert (found[0][:3] == -1).all()
    assert len(np.unique(found[0])) == 9
    # Separated clusters are found; points that are all equal do not fail.
    centres = fit_centres(rng, np.repeat(np.eye(3) * 100, 50, 0) + rng.normal(size=(150, 3)), 3)
    assert np.sort(centres.max(1)).round(-1).tolist() == [100, 100, 100]
    assert fit_centres(rng, np.zeros((20, 2)), 5).shape[0] == 1


@pytest.mark.parametrize("precision", ["float32", "float64"])
def test_fit__survives_a_glitch_of_ten_thousand_body_lengths(store, precision):
    group = access.open_group(store, "r+")["keypoints"]
    group["position"][0, 300, 2] = 1e6
    kpms_zarr.fit(store, model=precision, config=replace(QUICK, precision=precision))
    parameters = models.open_parameters(store, precision).load()
    for name in ("ar_weight", "ar_bias", "ar_covariance", "trace_log_likelihood"):
        assert np.isfinite(parameters[name]).all()
    labels = models.open_labels(store, precision).load()
    assert int((labels["syllable"] >= 0).sum()) == int(labels["n_frames"].sum())


def test_fit__says_when_the_target_duration_was_missed(store):
    config = replace(QUICK, target_duration=30_000.0)
    result = kpms_zarr.fit(store, model="m", config=config)
    assert any("target" in note for note in result.notes)


def test_fit__counts_published_transitions_within_sessions_only(store):
    kpms_zarr.fit(store, model="m", config=QUICK)
    published = models.open_labels(store, "m").load()["transition_count"].values
    counted = np.zeros_like(published)
    for z in labels_by_name(store, "m").values():
        np.add.at(counted, (z[:-1], z[1:]), 1)
    np.fill_diagonal(counted, 0)
    np.testing.assert_array_equal(published, counted)


@pytest.mark.full
def test_nine_mice__through_the_command_line(nine_mice, tmp_path, capsys, full):
    from kpms_zarr.cli import main

    store = str(tmp_path / "study.zarr")
    points = "spine4,spine3,spine2,spine1,head,nose,right ear,left ear"
    n_sweeps = "10" if full else "3"
    run = [
        ["ingest", store, str(nine_mice), "--fps", "30", "--keypoints", points,
         "--anterior", "nose", "--posterior", "spine4"],
        ["info", store],
        ["quality", store],
        ["pca", store],
        ["fit", store, "--model", "mice", "--ar-sweeps", n_sweeps,
         "--sweeps", n_sweeps, "--quiet"],
        ["summary", store, "--model", "mice"],
        ["report", store, "--model", "mice", "--out", str(tmp_path / "report.html")],
    ]  # fmt: skip
    for command in run:
        assert main(command) == 0, capsys.readouterr().err
    printed = capsys.readouterr().out
    assert "9 sessions added, 49,350 frames" in printed
    labels = xr.open_zarr(store, group="models/mice/labels/v1", consolidated=False)
    assert dict(labels["syllable"].sizes) == {"session": 9, "frame": 5565}
    assert int((labels["syllable"] >= 0).sum()) == 49_350
    assert 5 <= kpms_zarr.summary(store, model="mice").attrs["n_used"] <= 40
    assert (tmp_path / "report.html").stat().st_size > 500_000
