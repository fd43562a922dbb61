"""Views of tracking quality: what they show against NumPy on whole sessions, bounded reading."""

from __future__ import annotations

import shutil
from pathlib import Path

import holoviews as hv
import numpy as np
import pytest
import xarray as xr

import kpms_zarr
from kpms_zarr.store.core import access, layout
from kpms_zarr.store.core.access import Session
from kpms_zarr.store.core.consolidation import consolidate
from kpms_zarr.store.core.schema import FRAMES_PER_CHUNK
from kpms_zarr.store.errors import InputError
from kpms_zarr.store.study.synthetic import SyntheticStudy, write_store
from kpms_zarr.store.study.tracking import PROBLEMS, find_problems, limits_of, open_quality
from kpms_zarr.viz.shared.reading import MAX_BLOCKS
from kpms_zarr.viz.shared.style import load
from kpms_zarr.viz.tracking import drawing as quality_drawing
from kpms_zarr.viz.tracking import frames as quality_frames
from kpms_zarr.viz.tracking import views as quality_views
from kpms_zarr.viz.tracking.data import confidences, table
from kpms_zarr.viz.tracking.frames import read_traces, sampled, worst_stretch

STUDY = SyntheticStudy(
    n_sessions=3, n_frames=4000, n_keypoints=5, missing_fraction=0.02, is_ragged=True, seed=2
)
FPS = STUDY.fps
GAP = (1200, 1500)
OUTLIER = 2345


@pytest.fixture(autouse=True, scope="module")
def _backend() -> None:
    load()


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A long gap of point1, one outlier of point3, low confidences of point2, in session 0."""
    path = tmp_path_factory.mktemp("quality") / "study.zarr"
    write_store(path, STUDY)
    group = access.open_group(path, "r+")["keypoints"]
    rows = access.sessions(path)
    group["position"][0, GAP[0] : GAP[1], 1] = np.nan
    group["position"][0, OUTLIER, 3] = [9e3, -7e3]
    group["confidence"][0, 600:700, 2] = 0.1
    group["confidence"][2] = np.nan
    assert rows[0].n_frames > OUTLIER
    kpms_zarr.quality(path)
    return path


@pytest.fixture(scope="module")
def older(store: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """As an earlier release counted it: neither histograms nor worst stretches."""
    path = tmp_path_factory.mktemp("quality") / "older.zarr"
    shutil.copytree(store, path)
    group = access.open_group(path, "r+")["quality"]
    for name in (
        "confidence_count", "confidence_bin", "confidence_bin_stop", "worst_start", "problem",
    ):  # fmt: skip
        del group[name]
    group.attrs["coordinates"] = "n_frames"
    consolidate(access.open_group(path, "r+"), ["quality"])
    return path


def opened(path: Path) -> tuple[xr.Dataset, xr.Dataset, dict[str, Session]]:
    sessions = {session.name: session for session in access.sessions(path)}
    return access.dataset(path, layout.KEYPOINTS), open_quality(path).load(), sessions


def frames(path: Path, session: Session) -> tuple[np.ndarray, np.ndarray]:
    """Oracle: a whole session."""
    group = access.open_group(path)["keypoints"]
    rows = (session.index, slice(session.n_frames))
    return group["position"][rows], group["confidence"][rows]


# ------------------------------------------------------------------ sessions by keypoints


@pytest.mark.parametrize("what", PROBLEMS)
def test_table__is_sorted_by_the_worst_keypoint(store: Path, what: str) -> None:
    _, quality, sessions = opened(store)
    found = table(quality, sessions, what=what)
    assert set(found.sessions) == set(STUDY.session_names)
    largest = np.nan_to_num(found.share[what], nan=-1).max(1)
    assert list(largest) == sorted(largest, reverse=True)
    for row, name in enumerate(found.sessions):
        one = quality.sel(session=name)
        for problem in PROBLEMS:
            np.testing.assert_array_equal(found.share[problem][row], one[f"{problem}_fraction"])
            start = one["worst_start"].sel(problem=problem).values
            expected = np.where(start < 0, np.nan, start / FPS)
            np.testing.assert_array_equal(found.worst[problem][row], expected)
        np.testing.assert_array_equal(found.longest_gap[row], one["longest_gap"] / FPS)


def test_table__shows_some_rows_of_a_large_study_and_leaves_out_what_was_removed() -> None:
    rng = np.random.default_rng(0)
    names = [f"session_{i:04d}" for i in range(1000)]
    share = rng.random((1000, 6)) ** 8
    dims = ("session", "keypoint")
    quality = xr.Dataset(
        {
            **{f"{name}_fraction": (dims, share) for name in PROBLEMS},
            "longest_gap": (dims, np.zeros((1000, 6), int)),
        },
        {"session": names, "keypoint": list("abcdef")},
    )
    sessions = {name: Session(name, i, 100, 30.0) for i, name in enumerate(names) if i != 7}
    found = table(quality, sessions, what="missing", first=40, max_sessions=25)
    assert (found.first, found.n_sessions, len(found.sessions)) == (40, 999, 25)
    order = sorted(
        sessions, key=lambda n: (-share[names.index(n)].max(), -share[names.index(n)].mean())
    )
    assert list(found.sessions) == order[40:65]
    end = table(quality, sessions, what="missing", first=10**6, max_sessions=25)
    assert (end.first, len(end.sessions)) == (974, 25)
    in_store = table(quality, sessions, what="missing", order="store", max_sessions=9)
    assert list(in_store.sessions) == [*names[:7], *names[8:10]]
    np.testing.assert_allclose(found.overall, np.median(np.delete(share, 7, axis=0), axis=0))
    heat = quality_drawing.draw_map(found, what="missing")
    assert len(hv.render(heat, backend="bokeh").y_range.factors) == 25


def test_band__grows_with_the_share() -> None:
    share = np.array([0, 1e-5, 0.0009, 0.001, 0.03, 0.1, 0.3, 0.5, 1, np.nan])
    found = quality_drawing.band(share)
    np.testing.assert_array_equal(found, [0, 1, 1, 2, 3, 4, 5, 6, 6, np.nan])


def test_quality_map__has_a_cell_for_every_session_and_keypoint(store: Path) -> None:
    heat = quality_views.quality_map(store, what="low_confidence")
    data = open_quality(store).load()
    frame = heat.dframe()
    assert len(frame) == 3 * 5
    for _, row in frame.iterrows():
        share = float(
            data["low_confidence_fraction"].sel(session=row.session, keypoint=row.keypoint)
        )
        np.testing.assert_allclose(row.low_confidence, 100 * share)
        np.testing.assert_equal(row.band, quality_drawing.band(np.array([share]))[0])
    figure = hv.render(heat, backend="bokeh")
    # Drawn from the bottom: the session without confidences, of which nothing is known.
    assert figure.y_range.factors[0] == "session_002"


def test_quality_map__marks_the_chosen_cell(store: Path) -> None:
    _, quality, sessions = opened(store)
    found = table(quality, sessions, what="missing")
    drawn = quality_drawing.draw_map(found, what="missing", marked=("session_001", "point4"))
    points = list(drawn)[1]
    assert points.array().tolist() == [["point4", "session_001"]]
    none = quality_drawing.draw_map(found, what="missing", marked=("nobody", "point4"))
    assert isinstance(none, hv.HeatMap)


def test_labels__are_short_and_never_the_same() -> None:
    names = [f"a_long_name_of_a_session_{i}_and_more_of_it_still" for i in range(3)]
    found = quality_drawing.labels(names)
    assert len(set(found)) == 3
    assert max(map(len, found)) < 32


@pytest.mark.parametrize("options", [{"what": "rubbish"}, {"order": "random"}])
def test_quality_map__refuses_what_it_does_not_know(store: Path, options: dict[str, str]) -> None:
    with pytest.raises(InputError, match=r"rubbish|random"):
        quality_views.quality_map(store, **options)  # type: ignore[arg-type]


def test_views__say_what_to_run_first(tmp_path: Path) -> None:
    write_store(tmp_path / "s.zarr", SyntheticStudy(n_sessions=1, n_frames=100))
    for view in (
        lambda path: quality_views.quality_map(path),
        lambda path: quality_views.confidence_histograms(path),
        lambda path: quality_views.keypoint_traces(path, session="session_000"),
    ):
        with pytest.raises(InputError, match=r"kpms_zarr\.quality\(.*s\.zarr"):
            view(tmp_path / "s.zarr")


# ------------------------------------------------------------------ confidences


@pytest.mark.parametrize("session", [None, "session_000"])
def test_confidences__equal_those_of_numpy(store: Path, session: str | None) -> None:
    _, quality, sessions = opened(store)
    chosen = [sessions[session]] if session else list(sessions.values())
    read = [frames(store, one) for one in chosen]
    values = np.concatenate(
        [np.where(np.isnan(position).any(-1), np.nan, rated) for position, rated in read]
    )
    for one in confidences(quality, session=session):
        column = values[:, int(one.keypoint[-1])]
        column = column[~np.isnan(column)]
        assert one.n_frames == len(column)
        np.testing.assert_allclose(one.low, (column < 0.5).mean())
        count = [
            ((column >= a) & ((column < b) | (b == np.float32(1)))).sum()
            for a, b in zip(
                one.edges[:-1].astype(np.float32), one.edges[1:].astype(np.float32), strict=True
            )
        ]
        np.testing.assert_allclose(one.share, np.array(count) / len(column))
    low = [one.low for one in confidences(quality, session=session)]
    assert low == sorted(low, reverse=True)


def test_confidences__of_a_session_without_are_empty(store: Path) -> None:
    _, quality, _ = opened(store)
    (found,) = confidences(quality, session="session_002", keypoint="point1")
    assert found.n_frames == 0
    assert np.isnan(found.low)
    assert found.share_of_all.sum() == pytest.approx(1)
    drawn = quality_views.confidence_histograms(store, session="session_002", keypoint="point1")
    assert "no confidences" in hv.render(next(iter(drawn)), backend="bokeh").title.text


def test_confidence_histograms__have_readable_axes(store: Path) -> None:
    drawn = quality_views.confidence_histograms(store, session="session_000", max_keypoints=2)
    assert len(drawn) == 2
    figure = hv.render(next(iter(drawn)), backend="bokeh")
    assert figure.title.text.startswith("point2: ")
    assert figure.xaxis.axis_label == "confidence"
    assert set(figure.yaxis.major_label_overrides.values()) == {"0.01", "0.1", "1", "10", "100"}


def test_confidence_histograms__of_an_earlier_release_say_what_to_run(older: Path) -> None:
    with pytest.raises(InputError, match=r"run `kpms_zarr\.quality` again"):
        quality_views.confidence_histograms(older)
    assert len(quality_views.quality_map(older).dframe()) == 15


def test_confidence_histograms__name_the_keypoints_that_there_are(store: Path) -> None:
    with pytest.raises(InputError, match="point0, point1"):
        quality_views.confidence_histograms(store, keypoint="elbow")
    with pytest.raises(InputError, match="nobody"):
        quality_views.confidence_histograms(store, session="nobody")


# ------------------------------------------------------------------ traces


def traces_of(path: Path, name: str, start: int, stop: int, keypoints: list[str]):
    data, quality, sessions = opened(path)
    return read_traces(data, quality, sessions[name], start=start, stop=stop, keypoints=keypoints)


@pytest.mark.parametrize(("start", "stop"), [(1150, 1600), (0, 2500), (2345, 2346)])
def test_traces__mark_what_the_counts_count(store: Path, start: int, stop: int) -> None:
    _, quality, sessions = opened(store)
    session = sessions["session_000"]
    position, confidence = frames(store, session)
    problems = find_problems(position, confidence, limits_of(quality, session.name))
    found = traces_of(store, session.name, start, stop, ["point1", "point2", "point3"])
    assert [(t.keypoint, t.space) for t in found.traces] == [
        (f"point{k}", axis) for k in (1, 2, 3) for axis in "xy"
    ]
    for trace in found.traces:
        column, axis = int(trace.keypoint[-1]), "xy".index(trace.space)
        missing, low, outlier = problems[:, start:stop, column]
        assert trace.n_missing == missing.sum()
        covered = np.zeros(stop - start, bool)
        for first, last in trace.gaps:
            covered[first - start : last - start] = True
        np.testing.assert_array_equal(covered, missing)
        for marks, which in ((trace.low_confidence, low), (trace.outlier, outlier)):
            expected = start + np.flatnonzero(which & ~missing)
            np.testing.assert_array_equal(marks.frame, expected)
            np.testing.assert_array_equal(marks.value, position[expected, column, axis])
            np.testing.assert_array_equal(marks.confidence, confidence[expected, column])
            assert marks.n_all == len(expected)
        kept = ~np.isnan(trace.value)
        np.testing.assert_array_equal(trace.value[kept], position[trace.frame[kept], column, axis])
        assert len(trace.frame) <= 1200


def test_counts_and_traces__agree_over_whole_sessions(store: Path) -> None:
    _, quality, sessions = opened(store)
    for session in sessions.values():
        found = traces_of(store, session.name, 0, session.n_frames, [f"point{k}" for k in range(5)])
        for trace in found.traces:
            one = quality.sel(session=session.name, keypoint=trace.keypoint)
            n_seen = session.n_frames - trace.n_missing
            assert trace.n_missing == round(float(one["missing_fraction"]) * session.n_frames)
            assert trace.outlier.n_all == round(float(one["outlier_fraction"]) * n_seen)


class Recorder:
    """A long session of 40 blocks, made when it is asked for, and which frames were."""

    n_frames = 40 * FRAMES_PER_CHUNK
    outlier = 20 * FRAMES_PER_CHUNK + 5_000

    def __init__(self) -> None:
        self.asked: list[tuple[int, int]] = []

    def read(self, _data: object, _row: int, part: slice):
        self.asked.append((part.start, part.stop))
        frame = np.arange(part.start, part.stop)
        position = np.stack([np.sin(frame / 50), np.cos(frame / 50)], axis=-1)
        points = position[:, None] + np.arange(3)[:, None]
        points[frame == self.outlier, 1] = 500.0
        return points, np.where(frame[:, None] % 1000 == 7, 0.1, 1.0) * np.ones(3)


@pytest.fixture
def long_session(monkeypatch: pytest.MonkeyPatch):
    recorder = Recorder()
    monkeypatch.setattr(quality_frames, "read_tracked", recorder.read)
    data = xr.Dataset(coords={"keypoint": ["a", "b", "c"], "space": ["x", "y"]})
    dims = ("session", "keypoint")
    quality = xr.Dataset(
        {"distance_median": (dims, np.ones((1, 3))), "distance_mad": (dims, np.ones((1, 3)))},
        {"session": ["s"], "keypoint": ["a", "b", "c"]},
        {"confidence_threshold": 0.5, "outlier_scale": 6.0},
    )
    session = Session("s", 0, recorder.n_frames, 30.0)

    def read(start: int = 0, stop: int = recorder.n_frames):
        return read_traces(data, quality, session, start=start, stop=stop, keypoints=["b"])

    return recorder, read, (data, quality, session)


def test_traces__of_a_very_long_range_read_a_sample_and_say_so(long_session) -> None:
    recorder, read, _ = long_session
    found = read()
    assert len(recorder.asked) == len(found.parts) == MAX_BLOCKS
    assert found.parts[0][0] == 0
    assert found.parts[-1][1] == recorder.n_frames
    assert "8 parts" in quality_drawing.what_was_read(found)
    for trace in found.traces:
        n_points = len(trace.frame) + len(trace.outlier.frame) + len(trace.low_confidence.frame)
        assert n_points <= 2000
        step = np.diff(trace.frame[~np.isnan(trace.value)])
        assert (step > FRAMES_PER_CHUNK).sum() == MAX_BLOCKS - 1
        assert np.isnan(trace.value).sum() == MAX_BLOCKS - 1  # the line is broken in between
    panel = next(iter(quality_drawing.draw_traces(found)))
    assert sum(isinstance(part, hv.VSpans) for part in panel) == 1
    figure = hv.render(panel, backend="bokeh")
    glyphs = [renderer.glyph for renderer in figure.renderers]
    assert [g.hatch_pattern for g in glyphs if "hatch_pattern" in g.properties()].count("/") == 1


def test_traces__of_many_frames_keep_a_single_outlier(long_session) -> None:
    recorder, read, _ = long_session
    block = FRAMES_PER_CHUNK
    found = read(18 * block, 26 * block)
    assert len(found.parts) == 1
    assert quality_drawing.what_was_read(found) == ""
    trace = found.traces[0]
    assert recorder.outlier in trace.outlier.frame
    assert recorder.outlier in trace.frame
    assert trace.outlier.n_all == 1
    assert len(trace.low_confidence.frame) <= 400
    assert trace.low_confidence.n_all == pytest.approx(8 * block / 1000, abs=1)


def test_sampled__reads_all_of_what_is_short() -> None:
    block = FRAMES_PER_CHUNK
    assert sampled(5, 9) == ((5, 9),)
    assert sampled(100, 8 * block) == ((100, 8 * block),)
    parts = sampled(100, 20 * block + 7)
    assert len(parts) == MAX_BLOCKS
    assert parts[0] == (100, block)
    assert parts[-1] == (20 * block, 20 * block + 7)


def test_keypoint_traces__draw_each_axis_over_seconds(store: Path) -> None:
    drawn = quality_views.keypoint_traces(
        store, session="session_000", start=38, stop=52, keypoints=["point1"]
    )
    panels = list(drawn)
    assert len(panels) == 2
    figure = hv.render(panels[1], backend="bokeh")
    assert (figure.x_range.start, figure.x_range.end) == (38, 52)
    assert figure.xaxis.axis_label == "time (mm:ss)"
    assert figure.yaxis.axis_label == "point1 y"
    spans = next(part for part in panels[0] if isinstance(part, hv.VSpans))
    lengths = np.ptp([spans.dimension_values(0), spans.dimension_values(1)], axis=0)
    assert lengths.max() == pytest.approx((GAP[1] - GAP[0]) / FPS, abs=0.1)


def test_keypoint_traces__show_an_outlier_at_the_edge(store: Path) -> None:
    at = OUTLIER / FPS
    drawn = quality_views.keypoint_traces(
        store, session="session_000", start=at - 2, stop=at + 2, keypoints=["point3"]
    )
    panel = next(iter(drawn))
    (marks,) = (part for part in panel if isinstance(part, hv.Scatter) and part.label == "outlier")
    row = list(marks.dimension_values("frame")).index(OUTLIER)
    assert marks.dimension_values("value")[row] == 9e3
    assert marks.dimension_values("shape")[row] == "triangle"
    top = hv.render(panel, backend="bokeh").y_range.end
    assert marks.dimension_values(1)[row] < top < 9e3


def test_keypoint_traces__without_names_show_the_worst_keypoint(store: Path) -> None:
    drawn = quality_views.keypoint_traces(store, session="session_000")
    assert "point1" in hv.render(next(iter(drawn)), backend="bokeh").title.text


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"session": "nobody"}, "nobody"),
        ({"session": "session_000", "start": 5, "stop": 4}, "range of seconds"),
        ({"session": "session_000", "start": 1e6}, "range of seconds"),
        ({"session": "session_000", "keypoints": ["elbow"]}, "elbow"),
    ],
)
def test_keypoint_traces__refuse_wrong_choices(store: Path, options, words: str) -> None:
    with pytest.raises(InputError, match=words):
        quality_views.keypoint_traces(store, **options)


def test_views__read_stores_that_are_no_folders() -> None:
    place = "memory://quality_views.zarr"
    write_store(place, SyntheticStudy(n_sessions=2, n_frames=300, n_keypoints=3))
    kpms_zarr.quality(place)
    assert len(quality_views.quality_map(place).dframe()) == 6
    assert len(quality_views.confidence_histograms(place)) == 3
    drawn = quality_views.keypoint_traces(place, session="session_001", keypoints=["point0"])
    assert len(drawn) == 2


# ------------------------------------------------------------------ the worst stretch


@pytest.mark.parametrize("problem", PROBLEMS)
def test_worst_stretch__holds_most_bad_frames(store: Path, older: Path, problem: str) -> None:
    for path in (store, older):
        data, quality, sessions = opened(path)
        session = sessions["session_000"]
        problems = find_problems(*frames(path, session), limits_of(quality, session.name))
        is_bad = problems[PROBLEMS.index(problem)]
        for column in range(5):
            found = worst_stretch(data, quality, session, keypoint=f"point{column}", what=problem)
            if found is None:
                assert not is_bad[:, column].any()
                continue
            width = round(10 * FPS)
            best = np.convolve(is_bad[:, column], np.ones(width, int)).max()
            rows = slice(round(found.start * FPS), round(found.stop * FPS))
            # Stored ones begin at whole seconds.
            assert is_bad[rows, column].sum() >= best - (path == store) * round(FPS)
            assert not found.is_sample


def test_worst_stretch__is_where_the_gap_is(store: Path) -> None:
    data, quality, sessions = opened(store)
    found = worst_stretch(data, quality, sessions["session_000"], keypoint="point1", what="missing")
    assert found is not None
    assert found.start * FPS <= GAP[0] + FPS
    assert found.stop * FPS >= GAP[1] - FPS


def test_worst_stretch__searches_a_sample_of_a_long_session(long_session) -> None:
    recorder, _, (data, quality, session) = long_session
    found = worst_stretch(data, quality, session, keypoint="a", what="low_confidence")
    assert found is not None
    assert found.is_sample
    assert len(recorder.asked) == MAX_BLOCKS
    assert worst_stretch(data, quality, session, keypoint="a", what="missing") is None
