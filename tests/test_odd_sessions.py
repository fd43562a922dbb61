"""Sessions that lack something: every verb and view ends in a result or in plain words."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

import kpms_zarr
from helpers.amount import examples
from helpers.small import N_KEYPOINTS, SMALL
from kpms_zarr import viz
from kpms_zarr.compute.errors import SamplingError
from kpms_zarr.compute.tracking.quality import summarise, warnings_of
from kpms_zarr.store.core import access
from kpms_zarr.store.errors import InputError
from kpms_zarr.store.study.synthetic import SyntheticStudy, simulate_session

STUDY = SyntheticStudy(n_sessions=1, n_frames=120, n_keypoints=N_KEYPOINTS, n_syllables=4, seed=4)
NAMES = ["nose", "earL", "earR", "neck", "back", "tail"]
CONFIG = replace(SMALL, ar_sweeps=1, sweeps=2)
Arrays = tuple[np.ndarray, np.ndarray | None]


def whole(seed: int = 0, n_frames: int = 120) -> Arrays:
    """A session with nothing wrong."""
    one = simulate_session(SyntheticStudy(**{**vars(STUDY), "n_frames": 120, "seed": 4 + seed}), 0)
    return one.position[:n_frames].astype(float), np.full((n_frames, len(NAMES)), 0.9)


def _with(change: Callable[[np.ndarray, np.ndarray], Any], n_frames: int = 120) -> Arrays:
    position, confidence = whole(n_frames=n_frames)
    assert confidence is not None
    found = change(position, confidence)
    return (position, confidence) if found is None else found


def _set(array: np.ndarray, at: Any, value: Any) -> None:
    array[at] = value


KINDS: dict[str, Callable[[], Arrays]] = {
    "nothing_wrong": whole,
    "all_missing": lambda: _with(lambda p, c: _set(p, slice(None), np.nan)),
    "point_missing": lambda: _with(lambda p, c: _set(p, np.s_[:, 1], np.nan)),
    "front_missing": lambda: _with(lambda p, c: _set(p, np.s_[:, 0], np.nan)),
    "one_point_left": lambda: _with(lambda p, c: _set(p, np.s_[:, 1:], np.nan)),
    "seen_once": lambda: _with(lambda p, c: _set(p, slice(1, None), np.nan)),
    "one_frame": lambda: whole(n_frames=1),
    "two_frames": lambda: whole(n_frames=2),
    "as_long_as_the_lags": lambda: whole(n_frames=3),
    "a_little_longer": lambda: whole(n_frames=5),
    "frozen": lambda: _with(lambda p, c: _set(p, slice(None), p[:1])),
    "moved_as_a_whole": lambda: _with(
        lambda p, c: (p[:1] + np.arange(len(p))[:, None, None] * 1.5, c)
    ),
    "one_spot": lambda: _with(lambda p, c: _set(p, slice(None), 7.0)),
    "one_spot_each_frame": lambda: _with(lambda p, c: _set(p, slice(None), p[:, :1])),
    "front_is_rear": lambda: _with(lambda p, c: _set(p, np.s_[:, 0], p[:, 5])),
    "no_confidence": lambda: (whole()[0], None),
    "confidence_zero": lambda: _with(lambda p, c: _set(c, slice(None), 0.0)),
    "confidence_zero_of_one": lambda: _with(lambda p, c: _set(c, np.s_[:, 2], 0.0)),
    "confidence_low": lambda: _with(lambda p, c: _set(c, slice(None), 0.2)),
    "confidence_low_of_one": lambda: _with(lambda p, c: _set(c, np.s_[:, 2], 0.2)),
    "confidence_low_of_front": lambda: _with(lambda p, c: _set(c, np.s_[:, 0], 0.2)),
    "confidence_nan": lambda: _with(lambda p, c: _set(c, slice(None), np.nan)),
    "confidence_nan_of_one": lambda: _with(lambda p, c: _set(c, np.s_[:, 2], np.nan)),
    "confidence_negative": lambda: _with(lambda p, c: _set(c, slice(None), -3.0)),
    "confidence_by_point": lambda: _with(
        lambda p, c: _set(c, np.s_[::2], [0.9, 0.3, 0.05, 0.9, 0.3, 0.05])
    ),
    "confidence_percent": lambda: _with(lambda p, c: _set(c, slice(None), c * 100)),
    "far_away": lambda: _with(lambda p, c: _set(p, slice(None), p + 1e6)),
    "tiny": lambda: _with(lambda p, c: _set(p, slice(None), p * 1e-9)),
    "huge": lambda: _with(lambda p, c: _set(p, slice(None), p * 1e9)),
    "impossible_value": lambda: _with(lambda p, c: _set(p, (60, 1), 3e30)),
}


# ------------------------------------------------------------------ whoever fails, fails in words


class Outcome:
    """What came of all that was tried."""

    def __init__(self, *, is_beyond_numbers: bool = False) -> None:
        self.is_beyond_numbers = is_beyond_numbers
        self.said: dict[str, str] = {}
        self.made: dict[str, Any] = {}

    def try_(self, name: str, function: Callable[[], Any]) -> Any:
        """Run something that may end in an InputError, and in nothing else."""
        try:
            self.made[name] = function()
        except InputError as error:
            text = str(error)
            assert "nan" not in text.split(), text
            self.said[name] = text
            return None
        except SamplingError as error:
            # It names the session and the frame, and says what to do; nothing is published.
            if not self.is_beyond_numbers:
                raise AssertionError(f"{name}: {error}") from error
            self.said[name] = str(error)
            return None
        except Exception as error:
            raise AssertionError(f"{name}: {type(error).__name__}: {error}") from error
        return self.made[name]


@contextmanager
def _pages_tell() -> Iterator[list[BaseException]]:
    """Errors that pages of the application would have shown as such."""
    from kpms_zarr.viz.explore import parts

    caught: list[Any] = []
    before, parts._LOG.exception = parts._LOG.exception, lambda *a: caught.append(sys.exc_info()[1])  # type: ignore[method-assign]
    try:
        yield caught
    finally:
        parts._LOG.exception = before  # type: ignore[method-assign]


def draw_all(store: Path, model: str | None, out: Outcome) -> None:
    """Every view and page."""
    import holoviews as hv

    from kpms_zarr.viz.explore.app import PAGES, page_module
    from kpms_zarr.viz.explore.state import State
    from kpms_zarr.viz.explore.study import Study

    session = access.sessions(store)[-1].name
    known = {"model": model, "session": session, "syllable": 0, "syllables": (0, 1)}
    known["out"] = store.parent / "page.html"
    for name in (name for name in viz.__all__ if name != "strip"):
        view = getattr(viz, name)
        wanted = inspect.signature(view).parameters
        if "model" in wanted and model is None:
            continue
        options = {key: value for key, value in known.items() if key in wanted}
        first = next(iter(wanted))
        if first in ("pair", "comparison") and model is None:
            continue
        if first == "scan" and "scan" not in out.made:
            continue
        if first == "points" and "changepoints" not in out.made:
            continue
        around = "triggered_average" if "triggered" in name else "trajectories"
        if first == "found" and around not in out.made:
            continue
        parts = {key: part for key, part in _of_groups(out).items() if key in wanted}
        parts |= {"found": out.made[around], "syllables": None} if first == "found" else {}
        if name.endswith(("_files", "_file")):
            parts["out"] = store.parent / (f"{name}.svg" if name.endswith("_file") else name)
        if first in _GROUPS[:-1] and parts.get(first) is None:
            continue
        if name == "compare":
            parts.pop("syllables", None)  # two, not all that were tested
        options |= {key: part for key, part in parts.items() if key in wanted}

        def draw(view: Any = view, options: dict[str, Any] = options, first: str = first) -> Any:
            subjects = () if first in _GROUPS else (_subject(first, store, str(model), out),)
            made = view(*subjects, **options)
            return (
                hv.render(made, backend="bokeh") if isinstance(made, hv.core.Dimensioned) else made
            )

        out.try_(f"viz.{name}", draw)
    with _pages_tell() as caught:
        for page in PAGES:
            state = State(Study(store), session=session)
            out.try_(f"page {page}", lambda p=page, s=state: page_module(p).page(s).get_root())
            for error in caught:
                raise AssertionError(f"page {page}: {error!r}") from error


_GROUPS = ("tests", "values", "transitions", "table", "similarity", "found")
"""Arguments of views of what groups do otherwise, and of which syllables are alike."""


def _of_groups(out: Outcome) -> dict[str, Any]:
    """What there is to draw of a comparison of groups, and of the similarity of syllables."""
    found = out.made.get("compare_groups")
    alike = {"similarity": out.made.get("similarity")}
    if found is None:
        return alike
    return {
        **alike,
        "tests": found.tests, "values": found.values, "transitions": found.transitions,
        "table": found.fingerprints, "syllables": None,
    }  # fmt: skip


def _subject(first: str, store: Path, model: str, out: Outcome) -> Any:
    """What a view takes: a store, a scan, or how the labels of a model agree with its fit."""
    if first in ("scan", "points"):
        return out.made["changepoints" if first == "points" else first]
    if first not in ("pair", "comparison"):
        return store
    comparison = kpms_zarr.compare(store, models=[model, f"{model}@v1"])
    return comparison if first == "comparison" else comparison.pairs[0]


def run_all(folder: Path, arrays: dict[str, Arrays], *, with_views: bool = True) -> Outcome:
    """Every verb on a store of some sessions; warnings are errors, as in all tests."""
    out = Outcome(is_beyond_numbers=_are_beyond_numbers(arrays))
    store = folder / "s.zarr"
    out.try_("ingest", lambda: put_in(store, arrays))
    if not access.exists(store) or not access.sessions(store):
        return out
    out.try_("info", lambda: kpms_zarr.info(store))
    found = out.try_("quality", lambda: kpms_zarr.quality(store))
    assert found is not None
    out.try_("summarise", lambda: summarise(found))
    out.try_("warnings_of", lambda: warnings_of(found))
    out.try_("calibrate", lambda: kpms_zarr.calibrate(store))
    out.try_("pca", lambda: kpms_zarr.pca(store))
    out.try_("changepoints", lambda: kpms_zarr.changepoints(store))
    out.try_("plan", lambda: kpms_zarr.plan(store, config=CONFIG))
    scan = replace(CONFIG, stage="ar")
    out.try_("scan", lambda: kpms_zarr.scan(store, kappa=[10.0, 1e6], chains=2, config=scan))
    model = None
    if out.try_("fit", lambda: kpms_zarr.fit(store, model="m", config=CONFIG)):
        model = "m"
        out.try_("summary", lambda: kpms_zarr.summary(store, model=model))
        out.try_("apply", lambda: kpms_zarr.apply(store, model=model, sessions=["*"]))
        out.try_("trajectories", lambda: kpms_zarr.trajectories(store, model=model))
        short = {"pre": 0.1, "post": 0.1, "min_onsets": 1, "shuffles": 99}
        out.try_(
            "triggered_average",
            lambda: kpms_zarr.triggered_average(store, model=model, signal="speed", **short),
        )
        out.try_("similarity", lambda: kpms_zarr.similarity(store, model=model))
        out.try_("tables", lambda: kpms_zarr.tables(store, model=model, out=folder / "tables"))
        kpms_zarr.annotate(store, _in_two_groups(folder, access.sessions(store)))
        out.try_("compare_groups", lambda: kpms_zarr.compare_groups(
            store, model=model, by="group", n_permutations=99, n_bootstrap=100))  # fmt: skip
    # What ends in words has published nothing.
    published = {"fit": ("v1",), "apply": ("v2",)}
    expected = sum((published[name] for name in published if name in out.made), ())
    assert sum((one.versions for one in kpms_zarr.info(store).models), ()) == expected, out.said
    if model is not None:
        out.try_("reconstruct", lambda: kpms_zarr.reconstruct(store, "m").compute())
    if with_views:
        if model is not None:
            out.try_("report", lambda: kpms_zarr.report(store, model=model, out=folder / "r.html"))
        draw_all(store, model, out)
    return out


def _in_two_groups(folder: Path, sessions: Sequence[access.Session]) -> Path:
    """A table that puts every second session into another group."""
    lines = [f"{session.name},{'ab'[i % 2]}" for i, session in enumerate(sessions)]
    table = folder / "groups.csv"
    table.write_text("\n".join(["session,group", *lines, ""]))
    return table


def _are_beyond_numbers(arrays: dict[str, Arrays]) -> bool:
    """Whether one session is a hundred million times as large as another."""
    seen = [one[0] for one in arrays.values() if np.isfinite(one[0]).any()]
    sizes = [float(np.nanmax(p) - np.nanmin(p)) for p in seen]
    sizes = [size for size in sizes if size > 0]
    return bool(sizes) and max(sizes) > 1e8 * min(sizes)


def put_in(store: Path, arrays: dict[str, Arrays]) -> Any:
    """Ingest sessions."""
    return kpms_zarr.ingest(
        store,
        arrays={name: one[0] for name, one in arrays.items()},
        confidences={name: one[1] for name, one in arrays.items() if one[1] is not None},
        keypoint_names=NAMES,
        anterior=["nose"],
        posterior=["tail"],
    )


# ------------------------------------------------------------------ tests


@pytest.mark.parametrize("kind", KINDS)
def test_quality_and_pca__of_a_session_alone(tmp_path: Path, kind: str) -> None:
    """Nothing but what it computes itself; the fit and the views are drawn below."""
    store, out = tmp_path / "s.zarr", Outcome()
    out.try_("ingest", lambda: put_in(store, {"a": KINDS[kind]()}))
    if not access.exists(store) or not access.sessions(store):
        assert kind in ("all_missing", "confidence_zero", "confidence_negative")
        return
    found = out.try_("quality", lambda: kpms_zarr.quality(store))
    summarise(found)
    warnings_of(found)
    out.try_("pca", lambda: kpms_zarr.pca(store))
    out.try_("changepoints", lambda: kpms_zarr.changepoints(store))


def test_every_verb__of_a_mixture(tmp_path: Path) -> None:
    kinds = (
        *("nothing_wrong", "one_frame", "frozen", "no_confidence", "confidence_zero_of_one"),
        "confidence_by_point",
    )
    sessions = {kind: KINDS[kind]() for kind in kinds}
    out = run_all(tmp_path, sessions, with_views=False)
    verbs = {"quality", "calibrate", "pca", "plan", "scan", "fit", "summary", "apply"}
    verbs |= {"reconstruct"}
    assert verbs <= set(out.made)
    assert out.said == {}


@pytest.mark.full
def test_every_verb_and_view__of_good_sessions(tmp_path: Path) -> None:
    out = run_all(tmp_path, {"good": whole(), "other": whole(1)})
    assert {"quality", "pca", "plan", "fit", "summary", "apply", "report"} <= set(out.made)
    assert not [name for name in out.said if name.startswith("page")]


@pytest.mark.full
@pytest.mark.parametrize("is_alone", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_every_verb_and_view__of_each_kind(tmp_path: Path, kind: str, is_alone: bool) -> None:
    odd = {"odd": KINDS[kind]()}
    run_all(tmp_path, odd if is_alone else {"good": whole(1), **odd})


@pytest.mark.full
@settings(
    max_examples=examples(8),  # a minute each
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(st.lists(st.sampled_from([*KINDS]), min_size=2, max_size=4))
@example(["far_away", "nothing_wrong", "nothing_wrong", "huge"])
@example(["confidence_zero_of_one", "front_missing", "nothing_wrong", "impossible_value"])
def test_every_verb_and_view__of_any_mixture(
    tmp_path_factory: pytest.TempPathFactory, kinds: list[str]
) -> None:
    run_all(
        tmp_path_factory.mktemp("odd"), {f"s{i}": KINDS[kind]() for i, kind in enumerate(kinds)}
    )
