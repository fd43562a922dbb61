"""When a fit has settled: drifts are found, noise is not, and a fit that waits for it ends so."""

import os
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy.signal import lfilter

import kpms_zarr
from helpers.amount import some
from helpers.small import N_KEYPOINTS, SMALL
from kpms_zarr.cli import main
from kpms_zarr.compute.config import FitConfig
from kpms_zarr.compute.events import Noted, SweepEnded
from kpms_zarr.compute.runs import course
from kpms_zarr.compute.runs.course import draw_schedule, judged, sweeps_by_stage
from kpms_zarr.compute.sampler import settling as rule
from kpms_zarr.compute.sampler.draws import LabelDraws
from kpms_zarr.compute.sampler.settling import TOLERANCES, drift_of, drifts_of
from kpms_zarr.compute.sampler.stickiness import KappaSchedule
from kpms_zarr.compute.sampler.trace import FitTrace
from kpms_zarr.store.model.settling import (
    WINDOW,
    Drift,
    StageSettling,
    from_attrs,
    in_words,
    to_attrs,
    words_of,
)
from kpms_zarr.store.study import synthetic

N = 2 * WINDOW


# ------------------------------------------------------------------ the rule


def stationary(n_traces: int, correlation: float, n: int = N, seed: int = 0) -> np.ndarray:
    """Autoregressive traces of unit variance: (trace, sweep)."""
    noise = np.random.default_rng(seed).normal(size=(n_traces, n + 500))
    noise *= np.sqrt(1 - correlation**2)
    return lfilter([1], [1, -correlation], noise)[:, 500:]


def share_settled(traces: np.ndarray, **options: int) -> float:
    return float(np.mean([drift_of(trace, **options).is_settled for trace in traces]))


@pytest.mark.parametrize("correlation", [0.0, 0.5, 0.8])
def test_drift__of_stationary_traces_is_none(correlation):
    traces = stationary(1000, correlation)
    assert share_settled(traces) > (0.92 if correlation < 0.8 else 0.85)
    if correlation:
        # The wrong twin takes sweeps for independent.
        assert share_settled(traces, batch=1) < 0.8


@pytest.mark.parametrize("correlation", [0.0, 0.5])
def test_drift__is_found(correlation):
    """A rise of a tenth of a standard deviation in each sweep."""
    traces = stationary(1000, correlation) + 0.1 * np.arange(N)
    assert share_settled(traces) < 0.05
    # The wrong twin looks at five sweeps, and five before them.
    assert share_settled(traces, window=5, batch=1) > 0.5


def test_drift__does_not_excuse_itself():
    """A slope, and a step within the last window, without any noise."""
    assert not drift_of(1e-3 * np.arange(N)).is_settled
    step = np.where(np.arange(N) < N - WINDOW // 2, 0.0, 1.0)
    assert not drift_of(step).is_settled
    # The wrong twin: by the spread of the batches within the windows, the step is its own error.
    spread = step.reshape(2, -1, 8).mean(2).var(1, ddof=1) / (WINDOW / 8)
    assert abs(drift_of(step).change) < 2.5 * np.sqrt(spread.sum())


def test_drift__that_is_small_in_practice_is_none():
    """The more frames, the less noise: a tolerance ends what no window would."""
    trace = 1e-4 * np.arange(N)
    assert not drift_of(trace).is_settled
    assert drift_of(trace).change == pytest.approx(1e-4 * WINDOW)
    assert drift_of(trace, 0.005).is_settled
    assert not drift_of(2 * trace, 0.005).is_settled


def test_drift__is_that_of_the_last_windows_alone():
    trace = np.concatenate([np.linspace(-50, 0, 200), stationary(1, 0.0)[0]])
    assert drift_of(trace) == drift_of(trace[-N:])
    assert drift_of(trace[-N + 1 :]) is None
    trace[-3] = np.nan
    assert drift_of(trace) is None


def test_drifts__of_a_trace_that_is_not_known_are_none():
    traces = {name: np.zeros(N) for name in TOLERANCES}
    assert drifts_of(traces).keys() == TOLERANCES.keys()
    traces["label_change"] = np.full(N, np.nan)  # as of a release before
    assert drifts_of(traces) == {}


# ------------------------------------------------------------------ the course of a fit

SETTLED = {name: Drift(0.0, 0.0, True) for name in TOLERANCES}
MOVING = {**SETTLED, "log_evidence": Drift(0.25, 0.01, False)}


def test_sweeps__are_those_asked_for_or_what_settling_takes():
    config = FitConfig(until_settled=True, sweeps=500, average_sweeps=40)
    assert sweeps_by_stage(config) == {"ar": 200, "full": 500}
    assert sweeps_by_stage(FitConfig()) == {"ar": 50, "full": 200}
    assert sweeps_by_stage(FitConfig(stage="ar", until_settled=True)) == {"ar": 200}
    ar, full = StageSettling(110, 80, SETTLED), StageSettling(230, 110, SETTLED)
    assert sweeps_by_stage(config, {"ar": ar}) == {"ar": 110, "full": 500}
    assert sweeps_by_stage(config, {"ar": ar, "full": full}) == {"ar": 110, "full": 270}
    schedule = draw_schedule(config, {"ar": ar, "full": full})
    kept = [done for done in range(1, 381) if schedule.slot(done) is not None]
    assert (min(kept), max(kept), len(kept)) == (341, 380, 40)
    # What has not settled takes what it may; who does not wait, what was asked for.
    moving = {"ar": StageSettling(200, 170, MOVING)}
    assert sweeps_by_stage(config, moving) == {"ar": 200, "full": 500}
    found = {"ar": StageSettling(50, 50), "full": StageSettling(200, 80, SETTLED)}
    assert sweeps_by_stage(FitConfig(), found) == {"ar": 50, "full": 200}


def flat(n_sweeps: int, **others: object) -> FitTrace:
    found = FitTrace(
        n_used=[7] * n_sweeps, log_evidence=[-3.0] * n_sweeps, label_change=[0.1] * n_sweeps
    )
    for name, values in others.items():
        setattr(found, name, values)
    return found


def due(config: FitConfig, stage: str, kappa: KappaSchedule) -> list[int]:
    """Sweeps of a stage after which a flat trace is judged."""
    n_sweeps = sweeps_by_stage(config)[stage]
    found = [judged(config, stage, n, kappa, flat(n)) for n in range(1, n_sweeps + 1)]
    return [n for n, one in enumerate(found, 1) if one is not None]


def test_judged__after_adaptation_and_merges_and_before_the_average():
    config = FitConfig(until_settled=True, sweeps=300, average_sweeps=50, merge_sweeps=25)
    fixed = KappaSchedule(1e4, 300, None)
    assert due(config, "full", fixed) == [*range(80, 251, 10)]
    assert due(config, "ar", fixed) == [*range(110, 201, 10)]  # merges are over after 25
    adapted = KappaSchedule(1e4, 200, 400.0)
    assert due(config, "full", adapted) == [*range(200, 251, 10)]
    # Who does not wait is told at the end alone.
    assert due(FitConfig(target_duration=400.0), "full", adapted) == [200]
    assert due(FitConfig(), "ar", fixed) == [50]


def test_judged__what_drifts_is_said_at_the_last_sweep_alone():
    config = FitConfig(stage="ar", until_settled=True, sweeps=200, average_sweeps=20)
    kappa = KappaSchedule(1e6, 50, None)
    trace = flat(200, log_evidence=[0.01 * n for n in range(200)])
    early = FitTrace(**{k: v[:150] for k, v in vars(trace).items()})
    assert judged(config, "ar", 150, kappa, early) is None
    late = FitTrace(**{k: v[:180] for k, v in vars(trace).items()})
    found = judged(config, "ar", 180, kappa, late)
    assert found is not None
    assert found.is_known
    assert not found.is_settled
    assert found.drifts["log_evidence"].change == pytest.approx(0.4)
    assert found.drifts["n_used"].is_settled


def test_words__say_what_is_known():
    assert in_words("ar", StageSettling(110, 80, SETTLED)) == (
        "the AR stage had settled after 110 sweeps"
    )
    moving = in_words("full", StageSettling(500, 380, MOVING))
    assert moving == (
        "the full stage had not settled after 500 sweeps: over the last 40, against the 40 before, "
        "the log evidence changed by +0.250 nat per frame"
    )
    unknown = in_words("ar", StageSettling(50, 20))
    assert "cannot be told" in unknown
    assert "there were 20" in unknown
    again = in_words("full", StageSettling(400, 280, SETTLED, MOVING))
    assert again.startswith("the full stage had settled after 400 sweeps, but moved again while")
    assert again.endswith("the log evidence changed by +0.250 nat per frame")
    found = {"ar": StageSettling(50, 20), "full": StageSettling(500, 380, MOVING)}
    assert from_attrs(to_attrs(found)) == found
    assert words_of(to_attrs(found)) == (moving,)
    assert words_of({}) == ()


# ------------------------------------------------------------------ fits

STUDY = synthetic.SyntheticStudy(
    n_keypoints=N_KEYPOINTS, n_latent=3, seed=4, missing_fraction=0.05, lengths=(700, 260, 410)
)
WAITS = replace(
    SMALL, until_settled=True, ar_sweeps=24, sweeps=30, average_sweeps=5, target_duration=300.0
)
_PARTS = ("n_used", "log_evidence", "label_change")


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    store = tmp_path_factory.mktemp("settling") / "study.zarr"
    synthetic.write_store(store, STUDY)
    kpms_zarr.pca(store)
    return store


@pytest.fixture
def store(original: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(original, tmp_path / "study.zarr"))


def brief(monkeypatch: pytest.MonkeyPatch, tolerance: float = 100.0) -> None:
    """Windows of two sweeps, looked at after every third, so that a few sweeps are enough."""

    def drifts(traces):
        found = {n: drift_of(traces[n], tolerance, window=2, batch=1) for n in _PARTS}
        return {} if None in found.values() else found

    monkeypatch.setattr(course, "drifts_of", drifts)
    monkeypatch.setattr(course, "CHECK_EVERY", 3)


def result(store: Path, model: str = "m"):
    labels = kpms_zarr.open_labels(store, model).load()
    return labels, kpms_zarr.open_parameters(store, model).load()


def assert_same(a, b) -> None:
    for one, two in zip(a, b, strict=True):
        assert set(one.variables) == set(two.variables)
        for name in one.variables:
            if name != "trace_seconds":
                np.testing.assert_array_equal(one[name].values, two[name].values, err_msg=name)
    assert from_attrs(a[1].attrs) == from_attrs(b[1].attrs)


class StopAt:
    """Raises after some sweep."""

    def __init__(self, sweep: int) -> None:
        self.sweep = sweep

    def __call__(self, event: object) -> None:
        if isinstance(event, SweepEnded) and event.sweep == self.sweep:
            raise ZeroDivisionError


@pytest.mark.full
@pytest.mark.slow
def test_fit__ends_when_it_has_settled_and_as_well_when_it_is_killed(store, monkeypatch):
    brief(monkeypatch)
    kept = []
    keep = LabelDraws.keep

    def watched(self, chain, slot, which=None):
        keep(self, chain, slot, which)
        kept.append(slot)

    monkeypatch.setattr(LabelDraws, "keep", watched)
    events: list[object] = []
    found = kpms_zarr.fit(store, model="m", config=WAITS, callbacks=[events.append])
    monkeypatch.setattr(LabelDraws, "keep", keep)
    quiet = result(store)
    # Adapted for 60 % of 24 and of 30 sweeps, 14 and 18, then four sweeps of one stickiness: at 18
    # and at 24, each the first that is looked at.
    settling = from_attrs(quiet[1].attrs)
    assert {stage: one.n_sweeps for stage, one in settling.items()} == {"ar": 18, "full": 24}
    assert [one.n_of_one_model for one in settling.values()] == [4, 6]
    assert quiet[1]["trace_stage"].values.tolist() == ["ar"] * 18 + ["full"] * 29
    assert found.n_sweeps == 18 + 24 + 5
    assert found.is_settled
    assert [len(one.at_end) for one in settling.values()] == [0, 3]  # after the average
    assert kept == [0, 1, 2, 3, 4]  # none before the fit had settled
    assert quiet[1]["window_sweep"].values[-1] == found.n_sweeps
    totals = [event.n_sweeps for event in events if isinstance(event, SweepEnded)]
    assert [totals[0], totals[17], totals[-1]] == [54, 48, 47]
    for plan, stops in enumerate(some([(18, 43), (3, 17), (18, 20), (41, 42), (43, 46)], 1)):
        budget = kpms_zarr.Budget(tiles_in_flight=1 + plan, home="disk" if plan % 2 else "host")
        for number, stop in enumerate((*stops, 0)):
            try:
                kpms_zarr.fit(
                    store, model=f"k{plan}", config=WAITS, budget=budget,
                    callbacks=[StopAt(stop)], resume=number > 0, save_every=1 + plan,
                )  # fmt: skip
            except ZeroDivisionError:
                continue
        assert_same(result(store, f"k{plan}"), quiet)


@pytest.mark.slow
def test_fit__that_cannot_settle_takes_what_it_may_and_says_so(store, monkeypatch, capsys):
    brief(monkeypatch, tolerance=-1.0)
    monkeypatch.setattr(rule, "_CRITICAL", -1.0)
    events: list[object] = []
    found = kpms_zarr.fit(store, model="m", config=WAITS, callbacks=[events.append])
    assert (found.n_sweeps, found.is_settled) == (54, False)
    notes = [event.text for event in events if isinstance(event, Noted)]
    for words in ("AR stage had not settled after 24 sweeps", "had not settled after 25 sweeps"):
        assert any(words in note for note in notes)
        assert any(words in note for note in found.notes)
    table = kpms_zarr.summary(store, model="m")
    assert "had not settled after 25 sweeps" in table.attrs["course_in_words"]
    assert np.isfinite([table.attrs["log_evidence_ar"], table.attrs["log_evidence_full"]]).all()
    assert main(["summary", os.fspath(store), "--model", "m"]) == 0
    assert "the full stage had not settled after 25 sweeps" in capsys.readouterr().out


@pytest.mark.slow
def test_fit__that_does_not_wait_is_judged_at_its_end_by_the_same_rule(store, monkeypatch):
    config = replace(WAITS, until_settled=False)
    few = kpms_zarr.fit(store, model="few", config=replace(config, sweeps=10))
    assert few.is_settled is None
    assert "cannot be told" in kpms_zarr.summary(store, model="few").attrs["course_in_words"]
    brief(monkeypatch)
    found = kpms_zarr.fit(store, model="m", config=config)
    assert (found.n_sweeps, found.is_settled) == (54, True)
    settling = from_attrs(result(store)[1].attrs)
    assert {stage: one.n_sweeps for stage, one in settling.items()} == {"ar": 24, "full": 30}
    words = kpms_zarr.summary(store, model="m").attrs["course_in_words"]
    assert words.splitlines()[0] == "the full stage had settled after 30 sweeps"


@pytest.mark.slow
def test_fit__of_simulated_sessions_ends_before_it_must(store):
    """By the rule as it is; what it says then holds of the traces."""
    config = replace(
        SMALL, stage="ar", until_settled=True, sweeps=600, average_sweeps=20, kappa=1e3
    )
    found = kpms_zarr.fit(store, model="m", config=config)
    assert found.is_settled
    assert N + 20 <= found.n_sweeps < 600
    parameters = result(store)[1]
    settling = from_attrs(parameters.attrs)["ar"]
    assert settling.n_sweeps == found.n_sweeps - 20
    traces = {name: parameters[f"trace_{name}"].values[: settling.n_sweeps] for name in _PARTS}
    assert drifts_of(traces) == settling.drifts


@pytest.mark.slow
def test_fit__chains_wait_each_for_itself(store, monkeypatch):
    brief(monkeypatch)
    config = replace(WAITS, target_duration=None, kappa=1e3, merge_sweeps=4)
    kpms_zarr.fit(store, model="e", config=config, chains=2)
    for name in ("e-01", "e-02"):
        parameters = kpms_zarr.open_parameters(store, name)
        assert from_attrs(parameters.attrs)["ar"].n_sweeps == 9  # after 4 sweeps that may merge
        assert parameters.sizes["sweep"] == 10
    consensus = kpms_zarr.open_parameters(store, "e")
    assert from_attrs(consensus.attrs) == {}
    assert "course_in_words" not in kpms_zarr.summary(store, model="e").attrs


def test_scan__wants_chains_of_equal_length(store):
    with pytest.raises(kpms_zarr.InputError, match="until_settled"):
        kpms_zarr.scan(store, kappa=[1e3, 1e4], config=FitConfig(until_settled=True))
