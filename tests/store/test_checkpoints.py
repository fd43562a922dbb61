"""Commits of an unfinished fit: whole or not at all, whatever happens between any two writes."""

from __future__ import annotations

import errno
import os
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pytest

import kpms_zarr
from kpms_zarr.store.core import access
from kpms_zarr.store.core.access import Session
from kpms_zarr.store.model import checkpoints as checkpoints_module
from kpms_zarr.store.model.checkpoints import Checkpoints, read_checkpoint

SESSIONS = tuple(Session(f"s{n}", row, n, 30.0) for row, n in enumerate((3, 70, 41)))
N_STATES, N_FEATURES, N_SWEEPS = 4, 6, 20


def state(sweep: int, row: int, start: int, stop: int) -> tuple[np.ndarray, np.ndarray]:
    """Labels and state of some frames in a sweep; all differ from those of other sweeps."""
    rng = np.random.default_rng([sweep, row])
    n = SESSIONS[row].n_frames
    labels, local = rng.integers(0, N_STATES, n), rng.normal(size=(n, N_FEATURES))
    return labels[start:stop].astype(np.int16), local[start:stop].astype(np.float32)


def traces(sweep: int) -> dict[str, np.ndarray]:
    return {
        "term": np.array(["syllable", "latent"], dtype=object),
        "trace_stage": np.array(["ar"] * sweep, dtype=object),
        "trace_kappa": np.arange(1.0, sweep + 1),
        "trace_usage": np.arange(1.0, sweep * N_STATES + 1).reshape(sweep, N_STATES),
    }


def windows(sweep: int) -> dict[str, np.ndarray]:
    """Labels of two windows of five frames after each sweep."""
    labels = np.random.default_rng(sweep).integers(-1, N_STATES, (sweep, 2, 5))
    return {
        "window_syllable": labels.astype(np.int16),
        "window_sweep": np.arange(1, sweep + 1),
        "window_session": np.array(["s70", "s41"], dtype=object),
        "window_start": np.array([30, 20]),
        "window_length": np.array([5, 5]),
    }


def commit(checkpoints: Checkpoints, sweep: int, sessions=SESSIONS, read: Any = None) -> int:
    return checkpoints.commit(
        sweep,
        n_sweeps_in_all=N_SWEEPS,
        sessions=sessions,
        table={"scale": np.ones(len(sessions))},
        n_features=N_FEATURES,
        dtype="float32",
        read=read or (lambda *where: state(sweep, *where)),
        values={
            "state_usage": np.full(N_STATES, float(sweep)),
            "state_number": np.arange(N_STATES)[::-1],
            **windows(sweep),
        },
        traces=traces(sweep),
        attrs={"mark": sweep},
    )


def assert_is(store: str | Path, sweep: int) -> None:
    """What is committed is this sweep, all of it, and a person can look at it."""
    found = read_checkpoint(access.open_group(store), "m")
    assert found is not None
    assert (found.n_sweeps, found.attrs["mark"]) == (sweep, sweep)
    assert found.sessions == tuple(session.name for session in SESSIONS)
    np.testing.assert_array_equal(found.values["state_usage"], float(sweep))
    for name, values in traces(sweep).items():
        np.testing.assert_array_equal(found.traces[name], values)
    for row, session in enumerate(SESSIONS):
        for got, wanted in zip(
            found.read(row, 0, session.n_frames),
            state(sweep, row, 0, session.n_frames),
            strict=True,
        ):
            np.testing.assert_array_equal(got, wanted)
    for name, values in windows(sweep).items():
        np.testing.assert_array_equal(found.values[name], values)
    seen = kpms_zarr.open_progress(store, "m").load()
    assert (seen.attrs["n_sweeps"], seen.attrs["n_sweeps_in_all"]) == (sweep, N_SWEEPS)
    states = windows(sweep)["window_syllable"]
    numbers = np.where(states < 0, -1, N_STATES - 1 - states)  # those of ``state_number``
    np.testing.assert_array_equal(seen["window_syllable"], numbers)
    assert seen["trace_kappa"].sizes["sweep"] == sweep
    for row, session in enumerate(SESSIONS):
        np.testing.assert_array_equal(
            seen["syllable"].values[row, : session.n_frames],
            state(sweep, row, 0, session.n_frames)[0],
        )
        assert (seen["syllable"].values[row, session.n_frames :] == -1).all()


@pytest.fixture
def store(tmp_path: Path) -> Path:
    access.create(tmp_path / "s.zarr")
    return tmp_path / "s.zarr"


@pytest.fixture
def checkpoints(store: Path) -> Checkpoints:
    return opened(store)


def test_commit__adds_a_trace_that_an_earlier_release_did_not_have(store, checkpoints):
    checkpoints.begin()
    commit(checkpoints, 2)
    more = {**traces(3), "trace_log_evidence": np.array([np.nan, np.nan, 1.5])}
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(globals(), "traces", lambda sweep: more)
        commit(checkpoints, 3)
        assert_is(store, 3)


def opened(store: str | Path) -> Checkpoints:
    return Checkpoints(access.open_group(store, "r+"), store, "m")


def bytes_below(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())


# ------------------------------------------------------------------ writes that fail


class Killed(BaseException):
    """In place of a signal: nothing that is written in Python can go on after it."""


@dataclass
class Faults:
    """Fails what changes files below a folder from the n-th change on, by an audit hook.

    ``error`` is raised instead of the change; with ``is_final`` also at all later ones, cleaning
    up included, as if the process were gone.
    """

    folder: str = ""
    at: int = 0
    error: Callable[[], BaseException] = Killed
    is_final: bool = True
    only: tuple[str, ...] = ()
    n: int = 0
    done: list[str] = field(default_factory=list)

    def __call__(self, event: str, arguments: tuple[Any, ...]) -> None:
        if not self.folder or not _changes(event, arguments) or not self._is_below(arguments):
            return
        if self.only and event not in self.only:
            return
        self.n += 1
        self.done.append(event)
        if self.n == self.at or (self.is_final and self.n > self.at > 0):
            raise self.error()

    def _is_below(self, arguments: tuple[Any, ...]) -> bool:
        path = os.fspath(arguments[0]) if not isinstance(arguments[0], int) else ""
        # What rmtree removes is named relative to an open folder.
        return not os.path.isabs(path) or path.startswith(self.folder)


def _changes(event: str, arguments: tuple[Any, ...]) -> bool:
    if event == "open":
        return bool((arguments[2] or 0) & (os.O_WRONLY | os.O_RDWR | os.O_CREAT))
    return event in ("os.rename", "os.remove", "os.rmdir", "os.mkdir", "os.link", "os.truncate")


_faults: list[Faults] = []
_is_hooked = False


def _hook(event: str, arguments: tuple[Any, ...]) -> None:
    for faults in _faults:
        faults(event, arguments)


@contextmanager
def failing(folder: Path, **settings: Any) -> Iterator[Faults]:
    """Within it, changes of files below the folder fail as :class:`Faults` says."""
    global _is_hooked
    if not _is_hooked:  # there is no way to remove one
        sys.addaudithook(_hook)
        _is_hooked = True
    faults = Faults(str(folder), **settings)
    _faults.append(faults)
    try:
        yield faults
    finally:
        _faults.remove(faults)


def changes(function: Callable[[], Any], folder: Path) -> int:
    """How many changes of files it makes."""
    with failing(folder) as faults:
        function()
    return faults.n


def error_of(function: Callable[..., Any], *arguments: Any) -> OSError | None:
    """What the system refused."""
    try:
        function(*arguments)
    except OSError as error:
        return error
    return None


def moments(n: int, full: bool) -> range:
    """All of them, or some."""
    return range(1, n + 1, 1 if full else 19)


@pytest.fixture
def committed(checkpoints: Checkpoints, store: Path) -> Path:
    """A store in which sweeps 2 and 3 were committed."""
    checkpoints.begin()
    commit(checkpoints, 2)
    commit(checkpoints, 3)
    return store


@pytest.fixture
def copy(committed: Path, tmp_path: Path) -> Callable[[], Path]:
    """Gives a fresh copy of that store at each call, at the same place."""

    def again() -> Path:
        place = tmp_path / "copy.zarr"
        shutil.rmtree(place, ignore_errors=True)
        return Path(shutil.copytree(committed, place))

    return again


@pytest.mark.slow
def test_commit__killed_between_any_two_writes_is_whole_or_not_at_all(copy, full):
    store = copy()
    checkpoints = opened(store)
    n = changes(lambda: commit(checkpoints, 5), store)
    assert n > 50
    found, n_killed = set(), 0
    for at in moments(n, full):
        store = copy()
        killed = opened(store)
        try:
            with failing(store, at=at):
                commit(killed, 5)
        except Killed:
            n_killed += 1
        else:  # writers that race for a folder try to make it once or several times
            assert at > 0.9 * n
        seen = read_checkpoint(access.open_group(store), "m").n_sweeps
        assert_is(store, seen)
        found.add(seen)
        # The next process tidies up, and goes on.
        after = opened(store)
        after.tidy()
        assert_is(store, seen)
        assert not list((store / "models/m").rglob("*.partial"))
        chain = store / "models/m/chain"
        assert sum((folder / "local").is_dir() for folder in chain.glob("s*")) == 1
        commit(after, 7)
        assert_is(store, 7)
    assert n_killed >= 0.9 * len(moments(n, full))
    assert found == ({3, 5} if full else found | {3})


def test_commit__that_is_one_write_earlier_current_would_be_seen(copy, monkeypatch):
    """Wrong twin: a commit that is made current before it is written."""
    store = copy()
    write = checkpoints_module.write_rows

    def early(group, sessions, read):
        chain, _, name = group.path.rpartition("/")
        access.open_group(store, "r+")[chain].attrs.update({"current": name})
        return write(group, sessions, read)

    monkeypatch.setattr(checkpoints_module, "write_rows", early)
    checkpoints = opened(store)
    n = changes(lambda: commit(checkpoints, 5), store)
    checkpoints = opened(copy())
    with failing(store, at=n // 2), pytest.raises(Killed):
        commit(checkpoints, 5)
    with pytest.raises((AssertionError, KeyError, TypeError, ValueError)):
        assert_is(store, read_checkpoint(access.open_group(store), "m").n_sweeps)


@pytest.mark.parametrize("happens", ["ends", "commits twice", "ends and begins"])
@pytest.mark.parametrize("at", range(1, 8))
def test_progress__that_is_replaced_while_it_is_read_is_read_again(copy, monkeypatch, happens, at):
    """Never what is left of a commit that is being removed."""
    store = copy()
    arrays, calls = checkpoints_module.access.dataset, []

    def meanwhile() -> None:
        checkpoints = opened(store)
        if happens == "commits twice":
            commit(checkpoints, 5)
            commit(checkpoints, 6)
        else:
            checkpoints.discard()
        if happens == "ends and begins":
            checkpoints.begin()
            commit(checkpoints, 7)

    def counted(function: Any) -> Any:
        def call(*given: Any, **options: Any) -> Any:
            calls.append(function)
            if len(calls) == at:
                monkeypatch.undo()
                meanwhile()
            return function(*given, **options)

        return call

    for module, name in (
        (checkpoints_module.access, "dataset"),
        (checkpoints_module.access, "subgroup"),
        (checkpoints_module, "_arrays"),
        (checkpoints_module, "_read"),
        (checkpoints_module, "_current"),
    ):
        monkeypatch.setattr(module, name, counted(getattr(module, name)))
    assert checkpoints_module.access.dataset is not arrays
    try:
        found = kpms_zarr.open_progress(store, "m")
    except kpms_zarr.InputError:
        assert happens == "ends"
    else:
        assert found["session"].values.tolist() == [session.name for session in SESSIONS]
        assert found["n_frames"].values.tolist() == [session.n_frames for session in SESSIONS]
        sweep = found.attrs["n_sweeps"]
        np.testing.assert_array_equal(found["trace_kappa"], traces(sweep)["trace_kappa"])
        if len(calls) >= at and happens != "ends":
            assert sweep in (3, {"commits twice": 6, "ends and begins": 7}[happens])


@pytest.mark.slow
def test_commit__on_a_full_disk_leaves_the_one_before_and_no_litter(copy, full):
    def no_space() -> OSError:
        return OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    store = copy()
    checkpoints = opened(store)
    n = changes(lambda: commit(checkpoints, 5), store)
    n_failed = 0
    for at in moments(n, full):
        store = copy()
        before = bytes_below(store)
        checkpoints = opened(store)
        # Only what needs space fails; removing goes on working.
        with failing(
            store, at=at, error=no_space, is_final=False, only=("open", "os.mkdir")
        ) as faults:
            error = error_of(commit, checkpoints, 5)
        if faults.n < at:
            break
        assert error is None or error.errno == errno.ENOSPC
        n_failed += error is not None
        seen = read_checkpoint(access.open_group(store), "m").n_sweeps
        assert_is(store, seen)
        if seen == 3:
            opened(store).tidy()
            assert bytes_below(store) <= before + 20_000  # rows of the traces may be there already
        commit(checkpoints, 5)
        commit(checkpoints, 6)
        assert_is(store, 6)
    assert n_failed > 3


@pytest.mark.slow
def test_discard__killed_between_any_two_writes_never_looks_like_a_commit(copy, full):
    store = copy()
    n = changes(opened(store).discard, store)
    for at in moments(n, full):
        store = copy()
        killed = opened(store)
        with failing(store, at=at), pytest.raises(Killed):
            killed.discard()
        if read_checkpoint(access.open_group(store), "m") is not None:
            assert_is(store, 3)
        after = opened(store)
        after.discard()
        # Empty folders may be left, of which nobody takes notice.
        assert not [path for path in (store / "models/m/chain").rglob("*") if path.is_file()]
        assert access.open_group(store)["models/m"].get("chain") is None
        after.begin()
        commit(after, 1)
        assert_is(store, 1)


def test_open_progress__stays_readable_over_the_next_commit(committed):
    before = kpms_zarr.open_progress(committed, "m")
    commit(opened(committed), 5)
    labels = before["syllable"].load().values
    for row, session in enumerate(SESSIONS):
        wanted = state(3, row, 0, session.n_frames)[0]
        np.testing.assert_array_equal(labels[row, : session.n_frames], wanted)


def test_commit__again_of_the_same_sweep_writes_nothing(committed):
    n = bytes_below(committed)
    assert commit(opened(committed), 3, read=None) == 0
    assert bytes_below(committed) == n


def test_commits__take_one_state_and_labels_twice(committed):
    sizes = []
    for sweep in range(4, 12):
        commit(opened(committed), sweep)
        sizes.append(bytes_below(committed / "models/m/chain"))
    assert max(sizes) < 1.1 * min(sizes)


def test_remote__commits_and_goes_on_as_on_a_disk(tmp_path):
    url = f"memory://{tmp_path.name}/s.zarr"
    access.create(url)
    checkpoints = opened(url)
    checkpoints.begin()
    for sweep in (2, 3, 5):
        commit(checkpoints, sweep)
        assert_is(url, sweep)
    fs = fsspec.filesystem("memory")
    opened(url).tidy()
    assert_is(url, 5)
    names = {path.split("/chain/")[1].split("/")[0] for path in fs.find(url) if "/chain/s" in path}
    assert names == {"s000000003", "s000000005"}
    opened(url).discard()
    assert read_checkpoint(access.open_group(url), "m") is None
    assert not [path for path in fs.find(url) if "/chain/" in path]
    fs.rm(url, recursive=True)


@pytest.mark.parametrize("is_remote", [False, True])
def test_pulse__changes_with_every_commit_and_with_nothing_else(tmp_path, is_remote):
    store = f"memory://{tmp_path.name}/p.zarr" if is_remote else tmp_path / "p.zarr"
    access.create(store)
    root = access.open_group(store)
    assert checkpoints_module.pulse(root) == ()
    checkpoints = opened(store)
    checkpoints.begin()
    seen = [checkpoints_module.pulse(root)]
    for sweep in (2, 3):
        commit(checkpoints, sweep)
        seen.append(checkpoints_module.pulse(root))
        assert checkpoints_module.pulse(root) == seen[-1]
    checkpoints.discard()
    seen.append(checkpoints_module.pulse(root))
    assert len(set(seen)) == 4
    if is_remote:
        fsspec.filesystem("memory").rm(store, recursive=True)


def test_unfinished__lists_what_was_interrupted(committed):
    (committed / "models" / "zarr.0123.partial").write_text("{")  # of a killed process
    found = checkpoints_module.unfinished(access.open_group(committed))
    assert [(fit.name, fit.n_sweeps) for fit in found] == [("m", 3)]
    with pytest.raises(kpms_zarr.InputError, match="open_labels"):
        kpms_zarr.open_progress(committed, "other")
