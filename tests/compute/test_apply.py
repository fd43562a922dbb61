"""Labels by a model whose parameters stay: the same whatever is beside them, versioned, checked."""

import hashlib
import shutil
from collections import Counter
from dataclasses import dataclass, replace
from itertools import groupby, pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import kpms_zarr
from helpers.small import N_KEYPOINTS, SMALL
from kpms_zarr.compute.analysis.agreement import adjusted_rand_index
from kpms_zarr.compute.events import Noted, PlanMade, Published, SessionsSettled
from kpms_zarr.compute.runs import apply as apply_module
from kpms_zarr.compute.runs import labelling
from kpms_zarr.compute.runs.apply import ApplySummary
from kpms_zarr.compute.runs.labelling import DRAWS, LEAST_SWEEPS, has_settled
from kpms_zarr.compute.sampler import full_model
from kpms_zarr.compute.sampler.draws import LabelDraws, commonest
from kpms_zarr.compute.sampler.full_model import FullModel
from kpms_zarr.compute.sampler.segments import FRAMES_PER_TILE
from kpms_zarr.compute.sampler.sweep import Sweeper
from kpms_zarr.store.core import access, attributes, schema
from kpms_zarr.store.core.locking import Lock, model_lock
from kpms_zarr.store.core.provenance import provenance_of
from kpms_zarr.store.model import models
from kpms_zarr.store.study import synthetic

STUDY = synthetic.SyntheticStudy(
    lengths=(500, 450, 400, 300, 110, 700, 70, 3, 20), n_syllables=6, n_keypoints=N_KEYPOINTS,
    n_latent=3, missing_fraction=0.03, seed=2,
)  # fmt: skip
NAMES = STUDY.session_names
FITTED, NEW = NAMES[:3], NAMES[3:]
UNSEEN, SHORT, BRIEF = NAMES[4], NAMES[7], NAMES[8]
"""Sessions that never see one keypoint, that get no label, and that have one segment."""
# Segments and tiles of a shape that a fit of few frames has, too: compiled once for both.
CONFIG = replace(
    SMALL, ar_sweeps=15, sweeps=15, sessions=("session_00[0-2]",), save_noise_scale=True
)
AR = replace(CONFIG, stage="ar", save_noise_scale=False)
PER_FRAME = tuple(var.name for var in schema.LABELS if var.dims[:2] == ("session", "frame"))


def write_study(store: Path, study: synthetic.SyntheticStudy) -> Path:
    """A study in which ``UNSEEN`` never sees one keypoint."""
    synthetic.write_store(store, study)
    confidence = access.open_group(store, "r+")["keypoints/confidence"]
    row = study.session_names.index(UNSEEN)
    values = confidence[row]
    values[:, 2] = 0
    confidence[row] = values
    kpms_zarr.pca(store, variance=0.99)
    return store


@pytest.fixture(scope="module")
def original(tmp_path_factory) -> Path:
    """With the models ``m`` of both stages and ``ar``, each fitted to three sessions."""
    store = write_study(tmp_path_factory.mktemp("apply") / "study.zarr", STUDY)
    kpms_zarr.fit(store, model="m", config=CONFIG)
    kpms_zarr.fit(store, model="ar", config=AR)
    return store


@pytest.fixture
def store(original: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(original, tmp_path / "study.zarr"))


@dataclass
class Applied:
    summary: ApplySummary
    labels: xr.Dataset
    events: list[Any]

    def of(self, session: str) -> dict[str, np.ndarray]:
        return of_session(self.labels, session)


def run(store: Path, *sessions: str, model: str = "m", **options: Any) -> Applied:
    """Apply, and read what was published."""
    events: list[Any] = []
    options = {"sweeps": 3, "check": False, "draw": True, **options}
    summary = kpms_zarr.apply(
        store, model=model, sessions=sessions or None, callbacks=[events.append], **options
    )
    return Applied(summary, kpms_zarr.open_labels(store, model, summary.version).load(), events)


def of_session(labels: xr.Dataset, session: str) -> dict[str, np.ndarray]:
    """All that is published of the frames of a session."""
    one = labels.sel(session=session)
    found = {name: one[name].values[: int(one["n_frames"])] for name in PER_FRAME if name in one}
    return {**found, "scale": np.asarray(one["scale"])}


def is_same(a: dict[str, np.ndarray], b: dict[str, np.ndarray]) -> bool:
    assert a.keys() == b.keys()
    return all(np.array_equal(a[name], b[name], equal_nan=True) for name in a)


def assert_same(a: dict[str, np.ndarray], b: dict[str, np.ndarray]) -> None:
    for name in a:
        np.testing.assert_array_equal(a[name], b[name], err_msg=name)


def hashes(folder: Path) -> dict[str, str]:
    """Of every file below a folder."""
    files = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    return {str(p.relative_to(folder)): hashlib.sha256(p.read_bytes()).hexdigest() for p in files}


# ------------------------------------------------------------------ independent of the batch


@pytest.mark.parametrize("draw", [False, pytest.param(True, marks=pytest.mark.full)])
def test_apply__session_has_the_same_bits_in_any_batch(store, draw, monkeypatch):
    monkeypatch.setattr(labelling, "AGREED", 0.97)  # sessions leave after unequal starts
    # One store: each version comes after others, too.
    alone = {name: run(store, name, draw=draw) for name in (NAMES[3], UNSEEN, BRIEF)}
    sweeps = {name: one.summary.sweeps[name] for name, one in alone.items()}
    alone = {name: one.of(name) for name, one in alone.items()}
    assert (alone[UNSEEN]["syllable"] >= 0).all()
    assert ("second_syllable" in alone[UNSEEN]) is True  # of the fit, whatever is applied
    for batch in ((NAMES[3], NAMES[5]), (UNSEEN, BRIEF, SHORT), NAMES):
        found = run(store, *batch, draw=draw)
        assert all(found.summary.sweeps[name] == sweeps[name] for name in sweeps if name in batch)
        for name in alone.keys() & set(batch):
            assert_same(found.of(name), alone[name])


@pytest.mark.full
def test_apply__sessions_that_settle_leave_the_others_as_they_are(store):
    every = run(store, *NEW, sweeps=60)
    sweeps = every.summary.sweeps
    assert len(set(sweeps.values())) > 2
    for name in (min(sweeps, key=lambda n: sweeps[n] or 99), max(sweeps, key=sweeps.__getitem__)):
        alone = run(store, name, sweeps=60)
        assert alone.summary.sweeps[name] == sweeps[name]
        assert_same(alone.of(name), every.of(name))


@pytest.fixture(scope="module")
def shared(original: Path, tmp_path_factory) -> tuple[Path, dict[str, Applied]]:
    """A store for many versions, and what each model makes of all sessions."""
    store = Path(shutil.copytree(original, tmp_path_factory.mktemp("shared") / "study.zarr"))
    return store, {model: run(store, *NAMES, model=model) for model in ("m", "ar")}


BATCHES = st.lists(st.sampled_from(NAMES), min_size=1, unique=True).filter(lambda x: x != [SHORT])
BUDGETS = st.builds(
    kpms_zarr.Budget, device_memory=st.just("1GB"), tiles_in_flight=st.integers(1, 4),
    home=st.sampled_from(("host", "disk")),
)  # fmt: skip
FEW = settings(
    max_examples=4, deadline=None, derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)  # fmt: skip


@pytest.mark.full
@FEW
@given(batch=BATCHES, budget=BUDGETS, model=st.sampled_from(("m", "ar")))
def test_apply__no_batch_and_no_budget_changes_a_bit(shared, batch, budget, model):
    store, expected = shared
    found = run(store, *batch, model=model, budget=budget)
    for name in batch:
        assert_same(found.of(name), expected[model].of(name))


@pytest.mark.slow
def test_apply__home_on_the_device_changes_no_bit(shared):
    store, expected = shared
    budget = kpms_zarr.Budget(device_memory="1GB", tiles_in_flight=3, home="device")
    found = run(store, *NEW, budget=budget)
    for name in NEW:
        assert_same(found.of(name), expected["m"].of(name))


def test_apply__another_seed_is_another_sample(shared, monkeypatch):
    store, expected = shared
    settings_of = apply_module.settings_of_model
    monkeypatch.setattr(
        apply_module, "settings_of_model", lambda *given: replace(settings_of(*given), seed=1)
    )
    found = run(store, NAMES[3])
    assert not np.array_equal(
        found.of(NAMES[3])["syllable"], expected["m"].of(NAMES[3])["syllable"]
    )
    assert not np.array_equal(found.of(NAMES[3])["latent"], expected["m"].of(NAMES[3])["latent"])


@pytest.mark.full
def test_apply__scale_by_session_comes_from_the_session_alone(original, tmp_path):
    """Also after other sessions, of other sizes, were labelled by the same model."""
    stores = [Path(shutil.copytree(original, tmp_path / f"{n}.zarr")) for n in "ab"]
    for store in stores:
        position = access.open_group(store, "r+")["keypoints/position"]
        for row in (3, 5):
            position[row] = position[row] * 2.5
    names = (NAMES[6], UNSEEN)
    kpms_zarr.fit(stores[0], model="s", config=replace(AR, scale="session", ar_sweeps=3, sweeps=3))
    shutil.copytree(stores[0] / "models" / "s", stores[1] / "models" / "s")
    alone = [run(stores[0], name, model="s").of(name) for name in names]
    together = run(stores[1], NAMES[3], NAMES[5], *names, model="s")
    assert float(together.of(NAMES[5])["scale"]) > 1.5 * float(alone[0]["scale"])
    after = run(stores[1], *names, model="s")
    for name, one in zip(names, alone, strict=True):
        assert_same(together.of(name), one)
        assert_same(after.of(name), one)


@pytest.mark.full
@pytest.mark.slow
@pytest.mark.parametrize(
    ("study", "config"),
    [
        pytest.param(STUDY, replace(CONFIG, precision="float64"), marks=pytest.mark.full),
        (replace(STUDY, n_space=3), replace(CONFIG, use_keypoints=tuple(
            STUDY.settings.keypoints[i] for i in (5, 0, 1, 2)))),
        pytest.param(STUDY, replace(CONFIG, scale="session", fix_heading=True),
                     marks=pytest.mark.full),
    ],
    ids=["float64", "3-D, four keypoints", "scale by session, fixed heading"],
)  # fmt: skip
def test_apply__bits_in_other_models(tmp_path, study, config):
    store = write_study(tmp_path / "s.zarr", study)
    kpms_zarr.fit(store, model="m", config=replace(config, ar_sweeps=3, sweeps=3))
    every = run(store, *NAMES, sweeps=12)
    for name in (NAMES[3], UNSEEN, BRIEF):
        assert_same(run(store, name, sweeps=12).of(name), every.of(name))
    budget = kpms_zarr.Budget(device_memory="1GB", tiles_in_flight=4, home="disk")
    other = run(store, *NEW, sweeps=12, budget=budget)
    for name in NEW:
        assert_same(other.of(name), every.of(name))


@pytest.mark.full
@pytest.mark.slow
def test_apply__tile_computed_again_in_float64_changes_nothing_beside_it(store, monkeypatch):
    """A session that float32 cannot draw does not change the sessions in its tile."""
    position = access.open_group(store, "r+")["keypoints/position"]
    glitch = position[5]
    glitch[200:204] += 4e6
    position[5] = glitch
    kept: list[float] = []
    n_again: list[int] = []
    sample, recompute = full_model.sample_full_tile, FullModel._recompute_in_float64

    def watched(*given, **options):
        drawn = sample(*given, **options)
        kept.append(float(np.asarray(drawn.relative_pivot).min()))
        return drawn

    def counted(self, *given):
        n_again.append(1)
        return recompute(self, *given)

    monkeypatch.setattr(full_model, "sample_full_tile", watched)
    monkeypatch.setattr(FullModel, "_recompute_in_float64", counted)
    alone = run(store, NAMES[3]).of(NAMES[3])
    lowest, kept[:] = min(kept), []
    glitchy = run(store, NAMES[5])
    assert min(kept) < lowest
    limit = (min(kept) + lowest) / 2
    monkeypatch.setitem(full_model.SMALLEST_PIVOT, np.dtype("float32"), limit)
    assert not n_again
    both = run(store, NAMES[3], NAMES[5])
    assert n_again
    assert_same(both.of(NAMES[3]), alone)
    # What was computed again is not what float32 had made of it, and does not depend on others.
    assert not is_same(both.of(NAMES[5]), glitchy.of(NAMES[5]))
    assert_same(run(store, NAMES[5]).of(NAMES[5]), both.of(NAMES[5]))


# ------------------------------------------------------------------ versions


def test_apply__old_version_stays_to_the_byte(store):
    before = kpms_zarr.open_labels(store, "m").load()
    folders = [store / "models/m" / name for name in ("labels/v1", "parameters")]
    as_it_was = [hashes(folder) for folder in folders]
    assert all(len(found) > 3 for found in as_it_was)
    result = run(store)
    assert [hashes(folder) for folder in folders] == as_it_was
    assert result.summary.version == "v2"
    assert result.summary.labelled == NEW
    assert result.summary.n_frames == sum(STUDY.lengths[3:])
    assert kpms_zarr.open_labels(store, "m", version="v1").load().identical(before)
    current = kpms_zarr.open_labels(store, "m").load()
    assert current.attrs["parameters"] == "v1"
    assert provenance_of(current.attrs)["action"] == "apply"
    assert tuple(current["session"].values) == NAMES
    for name in FITTED:
        assert_same(of_session(current, name), of_session(before, name))
    model = models.list_models(store)[0 if models.list_models(store)[0].name == "m" else 1]
    assert (model.current, model.versions, model.n_sessions) == ("v2", ("v1", "v2"), 9)
    # A second one, of a fitted and an applied session.
    third = run(store, FITTED[0], NAMES[5], sweeps=4)
    for name in (*FITTED[1:], NAMES[3], UNSEEN, SHORT):
        assert_same(third.of(name), of_session(current, name))
    assert not is_same(third.of(FITTED[0]), of_session(current, FITTED[0]))


def test_apply__says_the_plan_each_sweep_and_the_version(store):
    events = run(store, NAMES[3]).events
    assert events.pop(0).text.startswith("confident points taken for missing")
    assert isinstance(events[0], PlanMade)
    assert (events[0].plan.n_segments, events[0].plan.n_segment_frames) == (8, 64)
    settled = [event for event in events if isinstance(event, SessionsSettled)]
    assert [event.sweep for event in settled] == [1, 2, 3]
    assert all((event.n_settled, event.n_sessions) == (0, 1) for event in settled)
    assert events[-1] == Published("m", "v2")


@pytest.mark.parametrize("when", [SessionsSettled, "comparison"])
def test_apply__that_is_stopped_publishes_nothing(store, when, monkeypatch):
    class Stop(Exception):
        pass

    def stop(*given: Any, **options: Any) -> None:
        raise Stop

    before = hashes(store / "models/ar/labels/v1")
    callbacks = [lambda event: stop() if isinstance(event, SessionsSettled) else None]
    with monkeypatch.context() as patch:
        if when == "comparison":
            callbacks = []
            patch.setattr(apply_module.LabelBench, "of_a_new_session", stop)
        with pytest.raises(Stop):
            kpms_zarr.apply(store, model="ar", sweeps=2, callbacks=callbacks)
    assert models.current_version(access.open_group(store), "ar") == "v1"
    assert hashes(store / "models/ar/labels/v1") == before
    assert run(store, model="ar").summary.version == "v2"


# ------------------------------------------------------------------ statistics


def counted_by_hand(labels: xr.Dataset, n_states: int) -> dict[str, np.ndarray]:
    """Frequency, bouts, durations and transitions of all sessions, one frame after the other."""
    frames, bouts = np.zeros(n_states), [[] for _ in range(n_states)]
    moves = np.zeros((n_states, n_states), int)
    for name in labels["session"].values:
        z = of_session(labels, str(name))["syllable"]
        runs = [(int(k), len(list(v))) for k, v in groupby(z) if k >= 0]
        for k, length in runs:
            frames[k] += length
            bouts[k].append(length * 1000 / float(labels["fps"].sel(session=name)))
        for (a, _), (b, _) in pairwise(runs):
            moves[a, b] += 1
    every = [length for of_state in bouts for length in of_state]
    return {
        "frequency": frames / frames.sum(),
        "n_bouts": np.array([len(b) for b in bouts]),
        "mean_duration": np.array([np.mean(b) if b else np.nan for b in bouts]),
        "median_duration": np.array([np.median(b) if b else np.nan for b in bouts]),
        "transition_count": moves,
        "median_duration_overall": np.median(every),
    }


def test_apply__statistics_are_those_of_all_labels_of_the_version(shared):
    store, expected = shared
    for labels in (expected["m"].labels, run(store, NAMES[5], model="ar").labels):
        by_hand = counted_by_hand(labels, CONFIG.n_states)
        overall = by_hand.pop("median_duration_overall")
        assert labels.attrs["median_duration_overall"] == pytest.approx(overall)
        for name, values in by_hand.items():
            np.testing.assert_allclose(labels[name].values, values, rtol=1e-6, err_msg=name)
        # Wrong twin: without one session the counts are others.
        less = counted_by_hand(labels.drop_sel(session=NAMES[5]), CONFIG.n_states)
        assert not np.array_equal(less["n_bouts"], by_hand["n_bouts"])


def test_apply__uses_blocks_for_its_statistics_as_for_whole_sessions(shared):
    """The view of a written version: slices across sessions, in the order of their names."""
    store, expected = shared
    labels = expected["m"].labels
    root = access.open_group(store, "r+")
    sessions = access.sessions(root)
    flat = np.concatenate([of_session(labels, s.name)["syllable"] for s in sessions])

    class Reader:
        def __init__(self) -> None:
            self.sessions = tuple(reversed(sessions))  # rows in another order than the names

        def read(self, name: str, row: int, start: int, stop: int) -> np.ndarray:
            return of_session(labels, self.sessions[row].name)[name][start:stop]

    written = apply_module.WrittenLabels(Reader(), lags=3)
    rng = np.random.default_rng(0)
    for start, stop in [(0, len(flat)), *np.sort(rng.integers(0, len(flat), (20, 2))).tolist()]:
        np.testing.assert_array_equal(written.syllable[start:stop], flat[start:stop])


# ------------------------------------------------------------------ agreement with the fit


def test_apply__agreement_is_the_share_of_frames_with_the_label_of_the_fit(store):
    result = run(store, *NAMES[1:5], sweeps=5)
    summary = result.summary
    assert summary.again == FITTED[1:]
    assert summary.as_new == ""
    fit = kpms_zarr.open_labels(store, "m", "v1").load()
    pairs = [
        (of_session(fit, name)["syllable"][3:], result.of(name)["syllable"][3:])
        for name in FITTED[1:]
    ]
    one, two = (np.concatenate(side) for side in zip(*pairs, strict=True))
    assert summary.agreement == pytest.approx((one == two).mean())
    assert not np.array_equal(one, two)


def test_apply__averages_draws_of_starts_that_share_nothing(store, monkeypatch):
    """What is published and said, from the draws themselves."""
    name, lags = FITTED[1], CONFIG.lags
    kept: dict[int, np.ndarray] = {}
    keep = LabelDraws.keep

    def watched(self, chain, slot, which=None):
        keep(self, chain, slot, which)
        assert slot not in kept
        kept[slot] = np.array(chain.syllable[lags : chain.index.n_frames])

    monkeypatch.setattr(LabelDraws, "keep", watched)
    monkeypatch.setattr(labelling, "AGREED", 1.1)  # never reached
    monkeypatch.setattr(labelling, "MOST_STARTS", 3)
    result = run(store, name, sweeps=12, draw=False)
    assert sorted(kept) == list(range(3 * DRAWS))
    draws = np.stack([kept[slot] for slot in sorted(kept)], 1)
    expected, found = commonest(draws), result.of(name)
    np.testing.assert_array_equal(found["syllable"][lags:], expected.state)
    np.testing.assert_array_equal(found["second_syllable"][lags:], expected.second)
    np.testing.assert_allclose(found["certainty"][lags:], expected.share, atol=1 / 256)
    is_odd = np.arange(3 * DRAWS) // DRAWS == 1
    halves = [commonest(draws[:, half]).state for half in (~is_odd, is_odd)]
    assert result.summary.own_agreement == pytest.approx((halves[0] == halves[1]).mean())
    assert any("3 independent starts still differ" in note for note in result.summary.notes)
    # Starts differ by more than draws of one start: they do begin anew.
    within = (draws[:, 0] != draws[:, 1]).mean()
    assert (draws[:, 0] != draws[:, DRAWS]).mean() > within


def test_apply__of_one_draw_has_no_agreement_of_starts(store):
    summary = run(store, FITTED[1]).summary
    assert np.isnan(summary.own_agreement)
    assert 0 < summary.agreement < 1


def test_apply__a_session_of_the_fit_is_labelled_as_new_only_to_compare(store, monkeypatch):
    before = of_session(kpms_zarr.open_labels(store, "m").load(), FITTED[1])
    checked = run(store, NAMES[4], check=True, sweeps=12, draw=False)
    assert checked.summary.as_new == FITTED[1]  # of median length
    assert checked.summary.again == ()
    assert np.isnan(checked.summary.agreement)
    assert_same(checked.of(FITTED[1]), before)
    # The same as when the model really had not seen it.
    monkeypatch.setattr(
        apply_module.StartModel, "sessions",
        property(lambda self: frozenset(self.scale) - {FITTED[1]}),
    )  # fmt: skip
    labels = run(store, FITTED[1], sweeps=12, draw=False).of(FITTED[1])["syllable"][3:]
    share = (labels == before["syllable"][3:]).mean()
    assert checked.summary.new_agreement == pytest.approx(share)
    assert share < 1
    assert 0.5 < checked.summary.new_own_agreement <= 1


@pytest.mark.full
def test_apply__compares_with_the_fit_and_not_with_what_was_applied_since(store):
    first = run(store, NAMES[3], check=True).summary
    assert first.as_new == FITTED[1]
    assert first.labelled == (NAMES[3],)
    run(store, *NAMES[:5])
    again = run(store, *NAMES[3:5], check=True).summary
    # Sessions that were applied, and not fitted, say nothing about the fit.
    assert again.as_new == FITTED[1]
    assert again.again == ()
    assert again.new_agreement == first.new_agreement < 1
    assert run(store, *NAMES[:4]).summary.again == FITTED
    assert np.isnan(run(store, NAMES[3], check=False).summary.new_agreement)


def test_apply__fitted_sessions_get_the_labels_they_had_up_to_the_sample(original, store):
    summary = run(store, *FITTED, sweeps=100, draw=False).summary
    assert summary.settled
    assert summary.agreement > 0.85
    assert summary.agreement > summary.own_agreement - 0.05
    # Wrong twin: states under the names of others.
    parameters = access.open_group(store, "r+")["models/ar/parameters/v1"]
    for name in ("ar_weight", "ar_bias", "ar_covariance"):
        parameters[name][:] = np.roll(parameters[name][:], 1, axis=0)
    rolled = np.roll(parameters["transition_probability"][:], (1, 1), axis=(0, 1))
    parameters["transition_probability"][:] = rolled
    twin = run(store, *FITTED, model="ar", sweeps=100, draw=False).summary
    assert twin.own_agreement > 0.8
    assert twin.agreement < 0.3


def test_apply__held_out_sessions_are_as_close_to_the_truth_as_fitted_ones(store):
    result = run(store, sweeps=100)
    held_out = [name for name in NEW if name not in (UNSEEN, SHORT)]
    scores = []
    for names in (FITTED, held_out):
        truth = [synthetic.simulate_session(STUDY, NAMES.index(n)).syllable for n in names]
        found = [result.of(name)["syllable"] for name in names]
        scores.append(adjusted_rand_index(np.concatenate(truth), np.concatenate(found)))
    assert scores[0] > 0.75
    assert scores[1] > scores[0] - 0.08
    # Wrong twin: the truth of another time.
    shifted = np.roll(np.concatenate(truth), 50)
    assert adjusted_rand_index(shifted, np.concatenate(found)) < 0.2
    one = synthetic.simulate_session(STUDY, NAMES.index(UNSEEN)).syllable
    assert adjusted_rand_index(one, result.of(UNSEEN)["syllable"]) > 0.6


# ------------------------------------------------------------------ when to stop


def test_apply__ends_when_labels_have_settled(store):
    result = run(store, sweeps=500)
    summary = result.summary
    assert summary.settled
    labelled = {name: n for name, n in summary.sweeps.items() if name != SHORT}
    assert LEAST_SWEEPS <= min(labelled.values()) <= max(labelled.values()) < 60
    assert summary.sweeps[SHORT] == 0
    events = [event for event in result.events if isinstance(event, SessionsSettled)]
    assert len(events) == max(labelled.values())
    settled = [event.n_settled for event in events]
    assert settled == sorted(settled)
    assert settled[-1] == len(NEW)
    ends = Counter(labelled.values())
    assert np.diff([1, *settled]).tolist() == [ends[i + 1] for i in range(len(events))]


def test_apply__names_sessions_that_had_no_time_to_settle(store):
    result = run(store, NAMES[3], NAMES[5], SHORT, sweeps=LEAST_SWEEPS - 1)
    assert not result.summary.settled
    assert result.summary.sweeps == {NAMES[3]: 9, NAMES[5]: 9, SHORT: 0}
    notes = [event.text for event in result.events if isinstance(event, Noted)]
    assert tuple(notes) == result.summary.notes
    assert f"changing after 9 sweeps: {NAMES[3]}, {NAMES[5]}; give more `sweeps=`" in notes[-1]
    assert any(SHORT in note and "too short" in note for note in notes)
    assert list(notes) == provenance_of(result.labels.attrs)["settings"]["notes"]
    assert "and 4 more" in labelling.still_open([f"s{i}" for i in range(9)], 20, 20)


@given(st.lists(st.floats(0, 1), max_size=LEAST_SWEEPS - 1))
def test_has_settled__not_before_there_is_enough_to_compare(changes):
    assert not has_settled(changes)


@given(st.lists(st.floats(0, 1), max_size=30), st.floats(0, 1), st.integers(10, 30))
def test_has_settled__when_labels_change_as_much_as_before(before, share, n):
    assert has_settled([*before, *[share] * n])
    assert has_settled([*before, *np.linspace(share / 2, share, n)])


@given(
    st.lists(st.floats(0, 1), max_size=30), st.floats(1e-3, 1), st.floats(0.1, 0.99),
    st.integers(10, 30),
)  # fmt: skip
def test_has_settled__not_while_changes_become_fewer(before, share, factor, n):
    falling = share * factor ** np.arange(n)
    assert not has_settled([*before, *falling])
    assert has_settled([*before, *falling[::-1]])


@given(
    st.lists(st.floats(0, 1), min_size=10, max_size=30),
    st.lists(st.floats(0, 1), max_size=5),
    st.sampled_from((0.25, 0.5, 2.0, 8.0)),
)
def test_has_settled__last_ten_sweeps_decide_in_any_unit(changes, before, factor):
    expected = np.mean(changes[-5:]) >= 0.97 * np.mean(changes[-10:-5])
    assert has_settled(changes) == expected
    assert has_settled([*before, *changes]) == expected
    assert has_settled([factor * share for share in changes]) == expected


# ------------------------------------------------------------------ inputs


def test_apply__sessions_too_short_for_a_label(store):
    result = run(store, SHORT, BRIEF)
    assert (result.of(SHORT)["syllable"] == -1).all()
    assert np.isfinite(result.of(SHORT)["latent"]).all()
    for check in (True, False):
        with pytest.raises(kpms_zarr.InputError, match="more than 3 frames"):
            run(store, SHORT, check=check)


@pytest.mark.full
def test_apply__models_of_other_versions_and_devices(store):
    """Settings that this version does not know; tiles of a size that suits another device."""
    parameters = access.open_group(store, "r+")["models/m/parameters/v1"]
    provenance = provenance_of(parameters.attrs)
    settings = {**provenance["settings"], "tiles_in_flight": 2, "tile_frames": 524_288}
    del settings["given"]  # an older version did not say what was its own choice
    attributes.write(parameters, {"provenance": {**provenance, "settings": settings}})
    plans = []
    kpms_zarr.apply(
        store, model="m", sweeps=1, check=False,
        callbacks=[lambda e: plans.append(e.plan) if isinstance(e, PlanMade) else None],
    )  # fmt: skip
    assert plans[0].n_segments * plans[0].n_segment_frames <= FRAMES_PER_TILE


def test_apply__names_what_is_wrong(store):
    run(store, model="ar", sweeps=1)
    for options, words in [
        ({"model": "ar"}, ("all have labels", "`sessions='*'`")),
        ({"model": "nobody"}, ("'nobody'", "ar", "m")),
        ({"model": "a/b"}, ("a/b",)),
        ({"model": "m", "sessions": ["sesion_003"]}, ("`sessions=`", "'session_003'")),
        ({"model": "m", "sessions": ["group=control"]}, ("'group'", "kpms_zarr.annotate")),
        ({"model": "m", "sessions": []}, ("`sessions=`", "found none")),
        ({"model": "m", "sweeps": 0}, ("`sweeps=`", "found 0")),
        ({"model": "m", "sweeps": True}, ("`sweeps=`",)),
        ({"model": "m", "budget": kpms_zarr.Budget(device_memory="1kB")}, ("`device_memory=`",)),
    ]:
        with pytest.raises(kpms_zarr.InputError) as caught:
            kpms_zarr.apply(store, **options)
        for word in words:
            assert word in str(caught.value), (options, str(caught.value))
    assert sorted(path.name for path in (store / "models").iterdir() if path.is_dir()) == [
        "ar",
        "m",
    ]
    assert models.current_version(access.open_group(store), "m") == "v1"


def test_apply__waits_for_no_fit_of_the_same_model(store):
    with model_lock(access.open_group(store, "r+"), store, "ar"):
        with pytest.raises(kpms_zarr.InputError, match="is fitting it"):
            run(store, model="ar")
        run(store, NAMES[6], model="m")
    run(store, NAMES[6], model="ar")


def test_apply__sees_what_was_published_until_it_had_the_model(store, monkeypatch):
    """Somebody else labels a session between the call and the lock: nothing of it is lost."""
    original_lock = apply_module.model_lock

    def late(root, place, model):
        monkeypatch.setattr(apply_module, "model_lock", original_lock)
        run(store, NAMES[3], model="ar")
        return original_lock(root, place, model)

    monkeypatch.setattr(apply_module, "model_lock", late)
    result = run(store, NAMES[6], model="ar")
    assert result.summary.version == "v3"
    assert tuple(result.labels["session"].values) == (*FITTED, NAMES[3], NAMES[6])


def test_apply__keeps_its_hold_of_a_model_in_every_sweep(store, monkeypatch):
    renewed: list[int] = []
    monkeypatch.setattr(Lock, "renew", lambda self: renewed.append(1))
    run(store, NAMES[6], model="ar", sweeps=4)
    assert len(renewed) >= 4


def test_apply__noise_is_that_of_the_model(store, monkeypatch):
    """Also where the fit was told where its noise begins."""
    config = replace(CONFIG, ar_sweeps=2, sweeps=4, noise_variance=3.0)
    kpms_zarr.fit(store, model="noisy", config=config)
    found = kpms_zarr.open_parameters(store, "noisy")["noise_variance"].values
    assert (found != 3).all()
    used: list[np.ndarray] = []
    draw = Sweeper.draw

    def watched(self, model, *given, **options):
        if isinstance(model, FullModel):
            used.append(model.observation.noise_variance)
        return draw(self, model, *given, **options)

    monkeypatch.setattr(Sweeper, "draw", watched)
    result = run(store, NAMES[3], model="noisy")
    assert len(used) == 3
    np.testing.assert_array_equal(used, np.tile(found, (3, 1)))
    assert (result.of(NAMES[3])["noise_scale"] > 0).all()


@pytest.mark.full
def test_apply__some_keypoints_in_another_order(store):
    names = STUDY.settings.keypoints
    config = replace(AR, use_keypoints=(names[5], names[1], names[0], names[3]))
    kpms_zarr.fit(store, model="some", config=config)
    result = run(store, model="some", sweeps=100, check=True)
    assert result.summary.new_agreement > 0.8
    # The keypoint that is never seen is not among them.
    assert not any("never tracked" in note for note in result.summary.notes)
    assert_same(run(store, UNSEEN, model="some", sweeps=100).of(UNSEEN), result.of(UNSEEN))
    found = kpms_zarr.reconstruct(store, "some", NAMES[3])
    assert tuple(found["keypoint"].values) == config.use_keypoints


# ------------------------------------------------------------------ what is made of the version


def test_apply__poses_summary_and_info_are_those_of_the_version(store):
    result = run(store, sweeps=20)
    for name in (NAMES[3], NAMES[5]):
        found = kpms_zarr.reconstruct(store, "m", name)
        tracked = synthetic.simulate_session(STUDY, NAMES.index(name))
        error = np.linalg.norm(found.values - tracked.position, axis=-1)
        good = (tracked.confidence > 0.5) & np.isfinite(error)
        assert np.median(error[good]) < 2
        assert np.sqrt(np.mean(error[good] ** 2)) < 3  # of an animal that is 80 long
    table = kpms_zarr.summary(store, model="m")
    frequency = result.labels["frequency"].values
    np.testing.assert_array_equal(table["frequency"], frequency[frequency > 0])
    info = kpms_zarr.info(store)
    assert [(m.current, m.n_sessions) for m in info.models if m.name == "m"] == [("v2", 9)]
    assert (result.labels["n_frames"].values == STUDY.lengths).all()


@pytest.mark.full
@pytest.mark.slow
def test_apply__report_shows_the_version(store, tmp_path):
    run(store)
    page = kpms_zarr.report(store, model="m", out=tmp_path / "page.html")
    text = Path(page.path).read_text(encoding="utf-8")
    assert NAMES[3] in text
