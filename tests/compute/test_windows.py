"""Labels kept from sweep to sweep: the right ones, the same however a fit was run."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

import kpms_zarr
from helpers.small import N_KEYPOINTS, SMALL
from kpms_zarr.compute.events import SweepEnded
from kpms_zarr.compute.sampler.chain import Chain, ChainIndex
from kpms_zarr.compute.sampler.windows import LabelWindows
from kpms_zarr.store.core import attributes
from kpms_zarr.store.core.access import Session
from kpms_zarr.store.model import models
from kpms_zarr.store.study import synthetic

STUDY = synthetic.SyntheticStudy(
    n_keypoints=N_KEYPOINTS, n_latent=3, seed=4, lengths=(1400, 2, 700, 90)
)
CONFIG = replace(SMALL, average_sweeps=1, stage="ar", sweeps=8)
NAMES = ("window_syllable", "window_sweep", "window_session", "window_start", "window_length")


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    store = tmp_path_factory.mktemp("windows") / "study.zarr"
    synthetic.write_store(store, STUDY)
    kpms_zarr.pca(store)
    return store


@pytest.fixture(scope="module")
def fitted(original: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same with a model that nothing disturbed."""
    store = Path(shutil.copytree(original, tmp_path_factory.mktemp("fitted") / "study.zarr"))
    kpms_zarr.fit(store, model="m", config=CONFIG)
    return store


@pytest.fixture
def store(original: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(original, tmp_path / "study.zarr"))


def chain_of(lengths: list[int], lags: int = 3) -> Chain:
    sessions = [Session(f"s{i:02d}", i, n, 30.0) for i, n in enumerate(lengths)]
    return Chain(ChainIndex.of(sessions, lags), n_latent=1, n_space=2, dtype="float32")


def keep(windows: LabelWindows, chain: Chain, done: int, n_sweeps: int) -> None:
    """Keep the labels of a chain when they are due."""
    if windows.is_due(done, n_sweeps):
        windows.keep(windows.read(chain), done)


class StopAt:
    """Raises after some sweep."""

    def __init__(self, sweep: int) -> None:
        self.sweep = sweep

    def __call__(self, event: object) -> None:
        if isinstance(event, SweepEnded) and event.sweep == self.sweep:
            raise ZeroDivisionError


# ------------------------------------------------------------------ which frames, which sweeps


def test_windows__lie_in_the_middle_of_long_sessions_all_over_the_study():
    lengths = [5000 + 10 * i for i in range(29)] + [100, 2]
    windows = LabelWindows.of(chain_of(lengths).index)
    assert windows.session == ("s00", "s04", "s08", "s12", "s16", "s20", "s24", "s28")
    assert set(windows.length) == {600}
    for name, start in zip(windows.session, windows.start, strict=True):
        n_frames = lengths[int(name[1:])]
        assert abs((start + 300) - (3 + n_frames) / 2) <= 1


def test_windows__of_short_sessions_hold_what_is_modelled():
    windows = LabelWindows.of(chain_of([2, 40, 4, 250]).index)
    assert windows.session == ("s01", "s02", "s03")
    assert windows.start.tolist() == [3, 3, 3]
    assert windows.length.tolist() == [37, 1, 247]


def test_keep__takes_the_labels_of_the_chain():
    chain = chain_of([40, 2, 700, 650])
    rng = np.random.default_rng(0)
    chain.syllable[:] = rng.integers(0, 9, chain.index.n_frames)
    windows = LabelWindows.of(chain.index)
    keep(windows, chain, 4, 10)
    kept = windows.to_store()
    assert kept["window_sweep"].tolist() == [4]
    first = dict(zip(["s00", "s01", "s02", "s03"], (0, 40, 42, 742), strict=True))
    for row, name in enumerate(kept["window_session"]):
        begin, n = first[name] + kept["window_start"][row], kept["window_length"][row]
        wanted = [int(chain.syllable[begin + i]) for i in range(n)]
        assert kept["window_syllable"][0, row, :n].tolist() == wanted
    number = rng.permutation(9)
    renamed = windows.to_store(number)["window_syllable"]
    np.testing.assert_array_equal(renamed, number[kept["window_syllable"]])


@pytest.mark.parametrize(
    ("n_sweeps", "kept"),
    [
        (1, [1]),
        (45, list(range(6, 46))),
        (550, list(range(355, 551, 5))),
        (203, list(range(125, 204, 2))),
    ],
)
def test_keep__the_last_sweep_always_and_40_at_most(n_sweeps: int, kept: list[int]):
    chain = chain_of([20])
    windows = LabelWindows.of(chain.index)
    for done in range(1, n_sweeps + 1):
        chain.syllable[:] = done
        keep(windows, chain, done, n_sweeps)
    assert windows.sweep == kept
    assert [int(labels[0, 0]) for labels in windows.syllable] == kept


def test_windows__take_less_than_a_megabyte():
    chain = chain_of([2000] * 30)
    windows = LabelWindows.of(chain.index)
    for done in range(1, 101):
        keep(windows, chain, done, 100)
    assert sum(np.asarray(values).nbytes for values in windows.to_store().values()) < 500_000


def test_store__gives_back_what_it_was_given():
    chain = chain_of([40, 700])
    windows = LabelWindows.of(chain.index)
    assert windows.to_store() == {}
    assert LabelWindows.from_store({}) is None
    keep(windows, chain, 1, 1)
    again = LabelWindows.from_store(windows.to_store())
    assert again is not None
    keep(again, chain, 2, 2)
    keep(windows, chain, 2, 2)
    for name, values in windows.to_store().items():
        np.testing.assert_array_equal(again.to_store()[name], values)


# ------------------------------------------------------------------ in a fit


def test_fit__keeps_the_labels_of_its_last_sweeps(fitted: Path):
    labels = kpms_zarr.open_labels(fitted, "m").load()
    found = kpms_zarr.open_parameters(fitted, "m").load()
    assert found["window_sweep"].values.tolist() == list(range(1, 9))
    assert found["window_session"].values.tolist() == ["session_000", "session_002"]
    assert found["window_syllable"].dtype == np.int16
    for row, name in enumerate(found["window_session"].values):
        start, n = (int(found[f"window_{key}"][row]) for key in ("start", "length"))
        published = labels["syllable"].sel(session=name).values[start : start + n]
        np.testing.assert_array_equal(found["window_syllable"][-1, row, :n], published)
    # Wrong twin: the sweep before is another one.
    kept = found["window_syllable"].values
    assert (kept[-1] != kept[-2]).any()


def test_fit__keeps_the_same_whatever_the_budget_and_the_interruptions(store: Path, fitted: Path):
    steps = [(StopAt(3), 2, "disk"), (StopAt(6), 1, "device"), (None, 5, "host")]
    for number, (stop, save_every, home) in enumerate(steps):
        budget = kpms_zarr.Budget(home=home, tiles_in_flight=1 + number, device_memory="1GB")
        try:
            kpms_zarr.fit(
                store, model="m", config=CONFIG, budget=budget, save_every=save_every,
                callbacks=[stop] if stop else [], resume=number > 0,
            )  # fmt: skip
        except ZeroDivisionError:
            continue
    one, two = (kpms_zarr.open_parameters(path, "m").load() for path in (store, fitted))
    for name in NAMES:
        np.testing.assert_array_equal(one[name], two[name], err_msg=name)


def test_progress__numbers_windows_like_its_labels(store: Path):
    with pytest.raises(ZeroDivisionError):
        kpms_zarr.fit(store, model="m", config=CONFIG, save_every=2, callbacks=[StopAt(7)])
    found = kpms_zarr.open_progress(store, "m").load()
    assert (found.attrs["n_sweeps"], found.attrs["n_sweeps_in_all"]) == (6, 8)
    assert attributes.read(found.attrs)["settings"]["n_states"] == CONFIG.n_states
    assert found["window_sweep"].values.tolist() == list(range(1, 7))
    for row, name in enumerate(found["window_session"].values):
        start, n = (int(found[f"window_{key}"][row]) for key in ("start", "length"))
        labels = found["syllable"].sel(session=name).values[start : start + n]
        np.testing.assert_array_equal(found["window_syllable"][-1, row, :n], labels)


def test_resume__of_a_fit_begun_without_windows(store: Path, monkeypatch: pytest.MonkeyPatch):
    """As an older release left it: from the next sweep on they are there."""
    with monkeypatch.context() as patch:
        patch.setattr(LabelWindows, "to_store", lambda *_: {})
        with pytest.raises(ZeroDivisionError):
            kpms_zarr.fit(store, model="m", config=CONFIG, save_every=2, callbacks=[StopAt(5)])
    assert "window_syllable" not in kpms_zarr.open_progress(store, "m")
    kpms_zarr.fit(store, model="m", resume=True)
    found = models.open_parameters(store, "m")
    assert found["window_sweep"].values.tolist() == [5, 6, 7, 8]


@pytest.mark.full
def test_fit__of_a_model_that_goes_on_numbers_its_own_sweeps(store: Path):
    kpms_zarr.fit(store, model="a", config=CONFIG)
    more = replace(CONFIG, from_model="a", sweeps=3)
    kpms_zarr.fit(store, model="b", config=more)
    found = SimpleNamespace(**{name: models.open_parameters(store, "b")[name] for name in NAMES})
    assert found.window_sweep.values.tolist() == [1, 2, 3]
