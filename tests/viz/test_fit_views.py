"""How a fit goes: of one in progress and of one that is published, apart from a browser."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import holoviews as hv
import numpy as np
import pytest

from kpms_zarr.store.core import access
from kpms_zarr.store.core.locking import model_lock
from kpms_zarr.store.errors import InputError
from kpms_zarr.store.model import models
from kpms_zarr.store.model.checkpoints import Checkpoints
from kpms_zarr.store.model.settling import StageSettling, to_attrs
from kpms_zarr.viz.explore.pages import fit as fit_page
from kpms_zarr.viz.explore.state import State
from kpms_zarr.viz.explore.study import Study
from kpms_zarr.viz.fit import views as fit_views
from kpms_zarr.viz.fit.traces import traces
from kpms_zarr.viz.shared.colors import palette
from kpms_zarr.viz.shared.reading import MissingData
from kpms_zarr.viz.shared.times import span_words

N_STATES, N_PLANNED, WINDOW = 6, 60, 300
START = {"session_000": 100, "session_002": 250}


def window_labels(sweep: int) -> np.ndarray:
    """Labels (window, window_frame) after a sweep; those of the first 100 frames stay."""
    rng = np.random.default_rng(sweep)
    labels = rng.integers(0, N_STATES, (2, WINDOW))
    labels[:, :100] = np.arange(100) // 20
    return labels


def windows(last: int, n: int = 10) -> dict[str, Any]:
    """What a fit keeps after sweep ``last``; the second window is shorter."""
    kept = np.arange(max(1, last - n + 1), last + 1)
    labels = np.stack([window_labels(sweep) for sweep in kept])
    labels[:, 1, 200:] = -1
    return {
        "window_syllable": labels.astype(np.int16),
        "window_sweep": kept,
        "window_session": np.array(list(START), dtype=object),
        "window_start": np.array(list(START.values())),
        "window_length": np.array([WINDOW, 200]),
    }


def trace_values(n: int) -> dict[str, Any]:
    sweep = np.arange(n)
    return {
        "trace_stage": ["ar"] * min(n, 30) + ["full"] * max(0, n - 30),
        "trace_log_likelihood": -3 - np.exp(-sweep / 5),
        "trace_kappa": 1e4 + sweep,
        "trace_median_duration": 6.0 + sweep % 3,
        "trace_n_used": 5 + sweep % 2,
        "trace_usage": np.full((n, N_STATES), 1 / N_STATES),
        "trace_seconds": np.full(n, 2.0),
    }


@pytest.fixture
def commit(fresh: Path, labels: list[np.ndarray]) -> Callable[..., None]:
    """Commits a sweep of a fit of the model ``f``, as a fit does."""
    root = access.open_group(fresh, "r+")
    sessions = access.sessions(root)
    (fresh / "models" / "f").mkdir(parents=True)
    for name in ("models", "models/f"):
        root.create_group(name, overwrite=True)
    checkpoints = Checkpoints(root, fresh, "f")
    checkpoints.begin()

    def make(
        sweep: int, *, target: float | None = 400.0, with_windows: bool = True, **attrs: Any
    ) -> None:
        def read(row: int, start: int, stop: int) -> tuple[np.ndarray, np.ndarray]:
            found = labels[row][start:stop]
            return found.astype(np.int16), np.zeros((stop - start, 2), np.float32)

        traces = {n: np.asarray(v) for n, v in trace_values(sweep).items()}
        traces["trace_stage"] = traces["trace_stage"].astype(object)
        checkpoints.commit(
            sweep,
            n_sweeps_in_all=N_PLANNED,
            sessions=sessions,
            table={"scale": np.ones(len(sessions))},
            n_features=2,
            dtype="float32",
            read=read,
            values={
                "state_number": np.arange(N_STATES),
                **(windows(sweep) if with_windows and sweep else {}),
            },
            traces=traces,
            attrs={"config": {"target_duration": target}, **attrs},
        )

    make.checkpoints = checkpoints  # type: ignore[attr-defined]
    return make


@pytest.fixture
def published(fresh: Path, helpers: Any) -> Path:
    """A store whose model ``m`` keeps windows and had a target."""
    helpers.publish(fresh, helpers.truth())
    root = access.open_group(fresh, "r+")
    before = models.open_parameters(fresh, "m").load()
    kept = {n: before[n].values for n in ("keypoint", "space", "pose_loading", "pose_mean")}
    values = {**kept, **trace_values(N_PLANNED), **windows(N_PLANNED)}
    models.write_parameters(root, "m", "v1", values, {"target_duration": 250.0})
    return fresh


# ------------------------------------------------------------------ what there is


def test_course__of_a_fit_in_progress_goes_with_its_commits(fresh, commit):
    commit(10)
    course = fit_views.read_course(fresh, model="f")
    assert (course.version, course.n_sweeps, course.n_planned) == ("", 10, N_PLANNED)
    assert course.target == 400.0
    assert course.seconds_left == 2.0 * (N_PLANNED - 10)
    commit(25)
    assert fit_views.read_course(fresh, model="f").n_sweeps == 25


def test_course__of_a_fit_that_may_end_early(fresh, commit):
    config = {"until_settled": True, "stage": "both"}
    ar = {"ar": StageSettling(10, 8)}
    commit(10, config=config, **to_attrs(ar))
    assert fit_views.read_course(fresh, model="f").may_end_early
    # Once the last stage was judged, its end is known.
    commit(25, config=config, **to_attrs({**ar, "full": StageSettling(15, 12)}))
    assert not fit_views.read_course(fresh, model="f").may_end_early
    commit(30, config={**config, "until_settled": False})
    assert not fit_views.read_course(fresh, model="f").may_end_early


def test_course__of_what_is_published(published):
    course = fit_views.read_course(published, model="m")
    assert (course.version, course.n_sweeps, course.target) == ("v1", N_PLANNED, 250.0)
    with pytest.raises(InputError, match="nobody"):
        fit_views.read_course(published, model="nobody")


def test_course__prefers_the_fit_in_progress_unless_a_version_is_named(published, helpers):
    root = access.open_group(published, "r+")
    checkpoints = Checkpoints(root, published, "m")
    checkpoints.begin()
    sessions = access.sessions(root)
    checkpoints.commit(
        0, n_sweeps_in_all=5, sessions=sessions, table={}, n_features=1, dtype="float32",
        read=lambda row, a, b: (np.zeros(b - a, np.int16), np.zeros((b - a, 1), np.float32)),
        values={"state_number": np.arange(3)},
        traces={n: v[:0] for n, v in trace_values(1).items() if n != "trace_stage"},
        attrs={"config": {}},
    )  # fmt: skip
    assert fit_views.read_course(published, model="m").version == ""
    assert fit_views.read_course(published, model="m", version="v1").version == "v1"


# ------------------------------------------------------------------ traces, durations


def _curve(layout: hv.Layout, name: str) -> np.ndarray:
    parts = [part for panel in layout for part in panel.traverse(lambda x: x, [hv.Curve])]
    return np.concatenate([p.dimension_values(name) for p in parts if name in p])


def _lines(layout: Any) -> list[float]:
    return [float(line.data) for line in layout.traverse(lambda x: x, [hv.HLine])]


def test_traces__of_a_fit_in_progress(fresh, commit, helpers):
    commit(45)
    layout = fit_views.fit_traces(fresh, model="f")
    wanted = trace_values(45)
    np.testing.assert_array_equal(_curve(layout, "trace_kappa"), wanted["trace_kappa"])
    np.testing.assert_array_equal(_curve(layout, "frames"), wanted["trace_median_duration"])
    np.testing.assert_array_equal(
        _curve(layout, "trace_log_likelihood"), wanted["trace_log_likelihood"]
    )
    hv.render(layout, backend="bokeh")


def test_traces__mark_the_target_where_there_is_one(fresh, commit, published):
    commit(12)
    assert _lines(fit_views.fit_traces(fresh, model="f")) == [400.0]
    assert _lines(traces(published, model="m")) == [250.0]
    panel = next(p for p in fit_views.fit_traces(fresh, model="f") if _lines(p))
    low, high = hv.render(panel, backend="bokeh").y_range.start, 400
    assert low < high < hv.render(panel, backend="bokeh").y_range.end
    title = hv.render(panel, backend="bokeh").title.text
    assert title == "dashed: the target, 400 ms"
    commit(13, target=None)
    assert _lines(fit_views.fit_traces(fresh, model="f")) == []


def test_traces__before_the_first_sweep_say_so(fresh, commit):
    commit(0)
    for view in (fit_views.fit_traces, fit_views.label_stability):
        with pytest.raises(MissingData, match="commit"):
            view(fresh, model="f")


def test_durations__of_a_fit_in_progress_are_those_of_its_labels(fresh, commit, labels, helpers):
    commit(3)
    counts = fit_views.sampled_durations(fit_views.read_course(fresh, model="f").labels)
    lengths: list[int] = []
    for row in labels:
        syllable, length = helpers.runs(row)
        lengths += length[syllable >= 0].tolist()
    wanted = np.bincount(np.minimum(lengths, 300), minlength=301)[1:]
    np.testing.assert_array_equal(counts["duration_count"].values[0], wanted)
    fps = helpers.study.fps
    np.testing.assert_allclose(counts["duration"], np.arange(1, 301) * 1000 / fps)
    found = counts.attrs["median_duration_overall"]
    assert found == pytest.approx(np.median(lengths) * 1000 / fps)
    hv.render(fit_views.fit_durations(fresh, model="f"), backend="bokeh")


def test_durations__of_some_blocks_leave_out_what_is_cut(fresh, commit, labels, helpers):
    commit(3)
    data = fit_views.read_course(fresh, model="f").labels
    counts = fit_views.sampled_durations(data, max_blocks=10**6, block_frames=400)
    wanted = np.zeros(300, int)
    for row in labels:
        for start in range(0, len(row), 400):
            part = row[start : start + 400]
            syllable, length = helpers.runs(part)
            for i, (name, n) in enumerate(zip(syllable, length, strict=True)):
                is_cut = (i == 0 and start > 0) or (i == len(length) - 1 and start + 400 < len(row))
                if name >= 0 and not is_cut:
                    wanted[min(n, 300) - 1] += 1
    np.testing.assert_array_equal(counts["duration_count"].values[0], wanted)
    few = fit_views.sampled_durations(data, max_blocks=3, block_frames=400)[
        "duration_count"
    ].values[0]
    assert 0 < few.sum() < wanted.sum()
    assert (few <= wanted).all()


def test_durations__of_what_is_published_mark_the_target(published):
    drawn = fit_views.fit_durations(published, model="m")
    lines = [float(line.data) for line in drawn.traverse(lambda x: x, [hv.VLine])]
    assert len(lines) == 2
    assert lines[1] == 250.0
    hv.render(drawn, backend="bokeh")


# ------------------------------------------------------------------ label stability


@pytest.mark.parametrize("window", [0, 1])
def test_stability__is_that_of_the_labels_that_were_kept(published, helpers, window):
    course = fit_views.read_course(published, model="m")
    found = fit_views.read_stability(course, window)
    session = list(START)[window]
    n = (WINDOW, 200)[window]
    assert (found.session, found.start) == (session, START[session])
    assert found.sweep.tolist() == list(range(51, 61))
    kept = [window_labels(sweep)[window, :n] for sweep in range(51, 61)]
    np.testing.assert_array_equal(found.syllable, kept)
    share = [sum(row[i] == kept[-1][i] for row in kept) / 10 for i in range(n)]
    np.testing.assert_allclose(found.agreement, share)
    assert (found.agreement[:100] == 1).all()
    fps = helpers.study.fps
    assert found.seconds == (START[session] / fps, (START[session] + n) / fps)
    name = fit_views.window_names(course)[window]
    assert name == f"{session}, {span_words(*found.seconds, 1)}"


def test_stability__draws_the_last_sweep_at_the_bottom(published, helpers):
    image, share = fit_views.label_stability(published, model="m")
    fps = helpers.study.fps
    for row, sweep in ((0.5, 60), (9.5, 51)):
        for frame in (0, 57, 299):
            at = image[(START["session_000"] + frame + 0.5) / fps, row]
            assert at == window_labels(sweep)[0, frame]
    options = hv.Store.lookup_options("bokeh", image, "style").kwargs
    assert options["cmap"] == palette(N_STATES)
    options = hv.Store.lookup_options("bokeh", image, "plot").kwargs
    assert options["clim"] == (-1.5, N_STATES - 0.5)
    ticks = options["yticks"]
    assert ticks[0] == (9.5, "51")
    assert ticks[-1] == (0.5, "60")
    assert share.dimension_values("agreement")[:100].tolist() == [100.0] * 100
    figures = [hv.render(view, backend="bokeh") for view in (image, share)]
    assert len({figure.min_border_left for figure in figures}) == 1


def test_stability__says_what_is_missing(store, published):
    with pytest.raises(MissingData, match="fit again"):
        fit_views.label_stability(store, model="m")
    with pytest.raises(InputError, match="0 to 1"):
        fit_views.label_stability(published, model="m", window=2)


def test_stability__of_a_fit_in_progress(fresh, commit):
    commit(20)
    course = fit_views.read_course(fresh, model="f")
    assert fit_views.read_stability(course).sweep.tolist() == list(range(11, 21))


# ------------------------------------------------------------------ the page and the store


def words(page: fit_page._FitPage) -> str:
    return str(page._places["status"].select(lambda x: hasattr(x, "object"))[0].object)


def test_page__goes_with_the_fit(fresh, commit, helpers):
    commit(10)
    state = State(Study(fresh), page="fit")
    page = fit_page._FitPage(state)
    assert "f: interrupted" in words(page)
    assert f"kpms-zarr fit {fresh} --model f --resume" in words(page)
    drawn = page._places["traces"][1]
    state.refresh()
    assert page._places["traces"][1] is drawn  # nothing is new
    with model_lock(access.open_group(fresh, "r+"), fresh, "f"):
        state.refresh()
        assert "f: running" in words(page)
        assert "10 of 60 sweeps" in words(page)
        assert "About 2 min left" in words(page)
        commit(20)
        state.refresh()
        assert "20 of 60 sweeps" in words(page)
        assert page._course.n_sweeps == 20
    commit.checkpoints.discard()
    helpers.publish(fresh, helpers.truth(), model="f")
    state.refresh()
    assert "f: finished" in words(page)


def test_page__shows_frames_of_the_window_in_the_player(published):
    state = State(Study(published), page="fit")
    page = fit_page._FitPage(state)
    page.window.value = 1
    page._show("session_002", 5.0, 6.5)
    assert (state.session, state.start, state.stop) == ("session_002", 5.0, 6.5)
    assert state.page == "player"


def test_page__without_windows_says_so_and_draws_the_rest(store):
    state = State(Study(store), page="fit")
    page = fit_page._FitPage(state)
    assert "fit again with this release" in page._places["stability"][1].object
    assert len(page._places["traces"]) == 2


def test_look__finds_a_commit_for_every_window_and_does_not_wait(fresh, commit):
    study = Study(fresh)
    states = [State(study), State(study)]
    commit(5)
    end = time.monotonic() + 30
    while not all(state.news for state in states) and time.monotonic() < end:
        for state in states:
            began = time.monotonic()
            state.refresh(wait=False)
            assert time.monotonic() - began < 1.0
        time.sleep(0.1)
    assert [state.news for state in states] == [1, 1]
    assert [state.model for state in states] == ["f", "f"]


def test_look__outlives_storage_that_is_away(fresh, commit, caplog):
    commit(5)
    study = Study(fresh)
    away = fresh.with_name("away.zarr")
    shutil.move(fresh, away)
    study._glanced = study._refreshed = -100.0
    study._looking.acquire()
    study._poll()
    assert "cannot be looked at" in caplog.text
    assert study.unfinished == {"f": 5}
    shutil.move(away, fresh)
    commit(6)
    study._glanced = study._refreshed = -100.0
    study._looking.acquire()
    study._poll()
    assert study.unfinished == {"f": 6}


def test_progress__is_opened_once_for_all_windows(fresh, commit):
    commit(5)
    study = Study(fresh)
    assert study.progress("f") is study.progress("f")
    commit(6)
    study.refresh()
    assert study.progress("f").attrs["n_sweeps"] == 6
    assert study.progress("other") is None
