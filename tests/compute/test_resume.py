"""Nothing is lost: kills, Ctrl-C, full disks and other plans end with the bits of a quiet run."""

import errno
import json
import math
import os
import random
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import fsspec
import numpy as np
import pytest
import xarray as xr
from fsspec.implementations.memory import MemoryFileSystem
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import kpms_zarr
from helpers.amount import examples
from helpers.small import N_KEYPOINTS, SMALL
from kpms_zarr.cli import main
from kpms_zarr.compute.errors import SamplingError
from kpms_zarr.compute.events import Committed, Noted, PlanMade, SweepEnded
from kpms_zarr.compute.runs import preparation as preparation_module
from kpms_zarr.compute.runs.interruption import FitInterrupted
from kpms_zarr.compute.sampler import sweep
from kpms_zarr.compute.sampler.full_model import FullModel
from kpms_zarr.store.core import access, locking, regions, retry
from kpms_zarr.store.model import checkpoints, models
from kpms_zarr.store.study import synthetic

STUDY = synthetic.SyntheticStudy(
    n_keypoints=N_KEYPOINTS,
    n_latent=3,
    seed=4,
    missing_fraction=0.05,
    lengths=(700, 2, 260, 5, 410, 90),
)
CONFIG = replace(
    SMALL, ar_sweeps=5, merge_sweeps=4, sweeps=5, target_duration=300.0, save_noise_scale=True
)


@pytest.fixture(scope="module")
def original(tmp_path_factory) -> Path:
    store = tmp_path_factory.mktemp("resume") / "study.zarr"
    synthetic.write_store(store, STUDY)
    kpms_zarr.pca(store)
    return store


@pytest.fixture
def store(original: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(original, tmp_path / "study.zarr"))


def result(store: Path, model: str = "m") -> tuple[xr.Dataset, xr.Dataset]:
    labels = kpms_zarr.open_labels(store, model).load()
    return labels, kpms_zarr.open_parameters(store, model).load()


def assert_same(a, b) -> None:
    """All that is published, to the bit; wall times alone may differ."""
    for one, two in zip(a, b, strict=True):
        assert set(one.variables) == set(two.variables)
        for name in one.variables:
            if name != "trace_seconds":
                np.testing.assert_array_equal(one[name].values, two[name].values, err_msg=name)


@pytest.fixture(scope="module")
def quiet(original: Path, tmp_path_factory):
    """The result of a run that nothing disturbed, and its labels after each sweep."""
    store = Path(shutil.copytree(original, tmp_path_factory.mktemp("quiet") / "study.zarr"))
    kpms_zarr.fit(store, model="m", config=CONFIG)
    return result(store)


class StopAt:
    """Raises after some sweep."""

    def __init__(self, sweep: int) -> None:
        self.sweep = sweep

    def __call__(self, event: object) -> None:
        if isinstance(event, SweepEnded) and event.sweep == self.sweep:
            raise ZeroDivisionError


# ------------------------------------------------------------------ any plan, any interruption


@settings(
    max_examples=examples(15), deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)  # fmt: skip
@given(
    plans=st.lists(
        st.tuples(
            st.sampled_from(["host", "disk", "device"]),
            st.integers(1, 5),
            st.sampled_from([0, 30_000, 10**9]),
        ),
        min_size=3, max_size=3,
    ),
    stops=st.lists(st.integers(1, 10), min_size=2, max_size=2, unique=True),
    save_every=st.integers(1, 9),
)  # fmt: skip
@pytest.mark.slow
def test_fit__same_bits_for_any_plan_and_interruption(
    original, quiet, tmp_path_factory, plans, stops, save_every
):
    store = Path(shutil.copytree(original, tmp_path_factory.mktemp("plan") / "study.zarr"))
    make_plan = preparation_module.make_plan
    with pytest.MonkeyPatch.context() as patch:
        for number, (home, n, kept) in enumerate(plans):
            budget = kpms_zarr.Budget(home=home, tiles_in_flight=n, device_memory="1GB")
            # What the budget leaves for the data: all, some, or nothing.
            patch.setattr(
                preparation_module, "make_plan",
                lambda *a, kept=kept: replace(make_plan(*a), kept_bytes=kept, recent_bytes=0),
            )  # fmt: skip
            stop = [StopAt(sorted(stops)[number])] if number < 2 else []
            try:
                kpms_zarr.fit(
                    store, model="m", config=CONFIG, budget=budget, callbacks=stop,
                    resume=number > 0, save_every=save_every,
                )  # fmt: skip
            except ZeroDivisionError:
                continue
            break
    assert_same(result(store), quiet)


def test_fit__that_is_compared_merges_states(store, quiet):
    kpms_zarr.fit(store, model="m", config=replace(CONFIG, merge_sweeps=0))
    one, two = (of[1]["trace_n_used"].values for of in (quiet, result(store)))
    np.testing.assert_array_equal(one[:4], two[:4])
    assert one[4] < two[4]


def test_fit__another_seed_is_another_chain(store, quiet):
    """The wrong twin of all comparisons here."""
    kpms_zarr.fit(store, model="m", config=replace(CONFIG, seed=1))
    with pytest.raises(AssertionError):
        assert_same(result(store), quiet)


# ------------------------------------------------------------------ real processes


RUN = """
import sys, kpms_zarr
from kpms_zarr.compute.config import FitConfig
config = FitConfig.from_dict({config})
kpms_zarr.fit(sys.argv[1], model="m", config=config, save_every=1, resume=sys.argv[2] == "resume")
"""


def start(store: Path, how: str = "begin") -> subprocess.Popen:
    script = RUN.format(config=CONFIG.to_dict())
    return subprocess.Popen(
        [sys.executable, "-c", script, str(store), how], stderr=subprocess.PIPE, text=True
    )


def wait_for_commit(store: Path, process: subprocess.Popen) -> None:
    """Until the first commit is there."""
    end = time.monotonic() + 300
    while time.monotonic() < end and process.poll() is None:
        if checkpoints.read_checkpoint(access.open_group(store), "m") is not None:
            return
        time.sleep(0.02)
    raise AssertionError(process.stderr.read())


def check_readable(store: Path) -> None:
    """What a reader finds at any moment is whole."""
    info = kpms_zarr.info(store)
    assert len(info.sessions) == STUDY.n_sessions
    if not info.unfinished:
        return
    found = kpms_zarr.open_progress(store, "m").load()
    z, n_frames = found["syllable"].values, found["n_frames"].values
    real = np.arange(z.shape[1]) < n_frames[:, None]
    modelled = real & (n_frames > CONFIG.lags)[:, None]
    assert ((z >= 0) == modelled).all()
    assert found.sizes.get("sweep", 0) == found.attrs["n_sweeps"]


@pytest.mark.slow
def test_kill__at_random_moments_loses_nothing(original, quiet, tmp_path, full):
    """kill -9, again and again, also while it commits: every run resumes what the last one left."""
    n_kills, done, rounds = 30 if full else 2, 0, 0
    moments = random.Random(0)
    while done < n_kills:
        rounds += 1
        store = Path(shutil.copytree(original, tmp_path / f"study{rounds}.zarr"))
        how = "begin"
        for _ in range(4 if full else 2):
            with start(store, how) as process:
                try:
                    if how == "begin":
                        wait_for_commit(store, process)
                        how = "resume"
                        # Commits follow each other closely from here on.
                        time.sleep(moments.uniform(0, 4))
                    else:
                        time.sleep(moments.uniform(2, 12))
                finally:
                    process.kill()
            done += 1
            check_readable(store)
            if not kpms_zarr.info(store).unfinished:
                break
        if kpms_zarr.info(store).unfinished:
            with start(store, "resume") as last:
                error = last.stderr.read()
            assert last.returncode == 0, error
        assert_same(result(store), quiet)
        assert not (store / "models/m/chain").exists()


@pytest.mark.slow
@pytest.mark.parametrize(
    "which", [signal.SIGINT, pytest.param(signal.SIGTERM, marks=pytest.mark.full)]
)
def test_ctrl_c__commits_and_says_how_to_resume(store, quiet, which, tmp_path):
    settings_file = tmp_path / "settings.json"
    settings_file.write_text(json.dumps(CONFIG.to_dict()))
    program = [sys.executable, "-c", "import sys; from kpms_zarr.cli import main; sys.exit(main())"]
    line = ["fit", str(store), "--model", "m", "--config", str(settings_file), "--save-every", "99"]
    with subprocess.Popen([*program, *line], stderr=subprocess.PIPE, text=True) as process:
        for text in process.stderr:
            if "sweep 1" in text:
                break
        process.send_signal(which)
        rest = process.stderr.read()
    assert process.returncode == 130, rest
    command = shlex.split(re.search(r"go on with: kpms-zarr (.*)", rest)[1])
    again = subprocess.run([*program, *command], capture_output=True, text=True, check=True)
    assert "going on after sweep" in again.stderr
    assert_same(result(store), quiet)


# ------------------------------------------------------------------ storage that refuses


class Refuse:
    """Fails at the n-th write from now on."""

    def __init__(self, n: int) -> None:
        self.left = n
        self._write = regions.write

    def __call__(self, *args: object, **kwargs: object) -> None:
        self.left -= 1
        if self.left == 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        self._write(*args, **kwargs)


@pytest.mark.slow
@pytest.mark.parametrize(
    "n", [14, *(pytest.param(n, marks=pytest.mark.full) for n in (13, 20, 24, 25))]
)
def test_disk_full__leaves_the_last_commit(store, quiet, monkeypatch, n):
    """Six sessions, two arrays: a commit takes twelve writes, one after another."""
    with monkeypatch.context() as patch:
        patch.setattr(checkpoints.regions, "write", Refuse(n))
        with pytest.raises(OSError, match="resume=True"):
            kpms_zarr.fit(store, model="m", config=CONFIG, save_every=3)
    found = checkpoints.read_checkpoint(access.open_group(store), "m")
    assert found.n_sweeps == 3 * ((n - 1) // 12 - 1)
    check_readable(store)
    kpms_zarr.fit(store, model="m", resume=True)
    assert_same(result(store), quiet)


@pytest.mark.full
def test_commits__keep_one_state_and_the_labels_before_it(store):
    sizes, seen = [], []

    def look(event: object) -> None:
        if isinstance(event, Committed):
            chain = access.open_group(store)["models/m/chain"]
            states = [name for name, group in chain.groups() if "local" in group]
            assert states == [chain.attrs["current"]]
            files = (path for path in (store / "models/m/chain").rglob("*") if path.is_file())
            sizes.append(sum(path.stat().st_size for path in files))
            seen.append(event.sweep)

    kpms_zarr.fit(store, model="m", config=CONFIG, save_every=1, callbacks=[look])
    assert seen == list(range(CONFIG.all_sweeps + 1))
    assert sizes[-1] < 1.5 * sizes[1]


def test_failure__publishes_the_last_complete_sweep(store, original, tmp_path, monkeypatch):
    """A draw that fails in sweep 8 leaves what seven sweeps leave, not the last commit."""
    plain = replace(CONFIG, target_duration=None)
    other = Path(shutil.copytree(original, tmp_path / "other.zarr"))
    kpms_zarr.fit(other, model="m", config=replace(plain, sweeps=2))
    draw = FullModel.draw

    def fail(self, chain, task, given, tables, device_tables, address):
        if address.number == 7 and task.is_odd:
            raise SamplingError("session_000", 2, 5, 3, 0, address.number)
        return draw(self, chain, task, given, tables, device_tables, address)

    monkeypatch.setattr(FullModel, "draw", fail)
    with pytest.raises(SamplingError):
        kpms_zarr.fit(store, model="m", config=plain, save_every=4)
    assert_same(result(store), result(other))
    assert not kpms_zarr.info(store).unfinished


# ------------------------------------------------------------------ names, settings, data


def interrupted(store: Path) -> None:
    with pytest.raises(ZeroDivisionError):
        kpms_zarr.fit(store, model="m", config=CONFIG, save_every=2, callbacks=[StopAt(5)])


def test_names__in_use_are_refused(store):
    with pytest.raises(kpms_zarr.InputError, match="leave `resume=` out"):
        kpms_zarr.fit(store, model="m", config=CONFIG, resume=True)
    interrupted(store)
    assert [(fit.name, fit.n_sweeps) for fit in kpms_zarr.info(store).unfinished] == [("m", 4)]
    with pytest.raises(kpms_zarr.InputError, match="interrupted after sweep 4"):
        kpms_zarr.fit(store, model="m", config=CONFIG)
    with pytest.raises(kpms_zarr.InputError, match="n_states="):
        kpms_zarr.fit(store, model="m", config=replace(CONFIG, n_states=9), resume=True)
    kpms_zarr.fit(store, model="m", config=CONFIG, overwrite=True)
    with pytest.raises(kpms_zarr.InputError, match="from_model="):
        kpms_zarr.fit(store, model="m", resume=True)
    with pytest.raises(kpms_zarr.InputError, match="not in use"):
        kpms_zarr.fit(store, model="m", config=CONFIG)


def test_resume__refuses_other_data_and_keeps_the_commit(store):
    interrupted(store)
    group = access.open_group(store, "r+")["keypoints"]
    before = group["source_hash"][:]
    group["source_hash"][2] = "another file"
    with pytest.raises(kpms_zarr.InputError, match="session_002"):
        kpms_zarr.fit(store, model="m", resume=True)
    group["source_hash"][:] = before
    kpms_zarr.fit(store, model="m", resume=True)


@pytest.mark.full
def test_resume__takes_no_notice_of_labels_that_somebody_applied(store, quiet, monkeypatch):
    """A fit is killed between its parameters and its labels; meanwhile apply publishes a v2."""
    kpms_zarr.fit(store, model="m", config=replace(CONFIG, seed=3))

    def killed(*args: object, **kwargs: object) -> None:
        raise ZeroDivisionError

    with monkeypatch.context() as patch:
        patch.setattr(models.LabelWriter, "publish", killed)
        with pytest.raises(ZeroDivisionError):
            kpms_zarr.fit(store, model="m", config=CONFIG, overwrite=True)
    assert (store / "models/m/parameters/v2").is_dir()
    applied = kpms_zarr.apply(store, model="m", sessions=["session_002"], sweeps=1, check=False)
    assert applied.version == "v2"
    kpms_zarr.fit(store, model="m", resume=True)
    assert_same(result(store), quiet)
    assert kpms_zarr.open_labels(store, "m", "v2").attrs["parameters"] == "v1"


def test_out_of_memory__while_a_tile_is_written_changes_nothing(store, quiet, monkeypatch):
    """The tile is drawn again, from what it was drawn from before."""
    scatter, failed = sweep.scatter_all, []

    def once(*args: object) -> None:
        if len(failed) < 2:
            failed.append(args)
            raise MemoryError
        scatter(*args)

    monkeypatch.setattr(sweep, "scatter_all", once)
    said = []
    kpms_zarr.fit(
        store, model="m", config=CONFIG, budget=kpms_zarr.Budget(tiles_in_flight=4),
        callbacks=[lambda event: said.append(event) if isinstance(event, Noted) else None],
    )  # fmt: skip
    assert any("out of memory: from now on" in event.text for event in said)
    assert_same(result(store), quiet)


def test_resume__command_refuses_what_was_typed_and_differs(store, capsys):
    """Also what happens to be a default."""
    interrupted(store)
    line = ["fit", str(store), "--model", "m", "--resume", "--quiet"]
    for option, value in [("--seed", "7"), ("--n-states", "100"), ("--stage", "full")]:
        assert main([*line, option, value]) == 2
        assert option in capsys.readouterr().err
    assert main([*line, "--seed", "0", "--n-states", "10"]) == 0


def test_lock__refuses_a_second_fit_and_goes_with_its_process(store):
    with start(store) as process:
        try:
            wait_for_commit(store, process)
            with pytest.raises(kpms_zarr.InputError, match="another process"):
                kpms_zarr.fit(store, model="m", resume=True)
        finally:
            process.kill()
    kpms_zarr.fit(store, model="m", resume=True)


def test_interrupt__in_this_process_commits(store, quiet):
    """As in a notebook: the kernel is interrupted, and the fit goes on later."""

    said = []

    def press(event: object) -> None:
        if isinstance(event, Noted):
            said.append(event.text)
        if isinstance(event, SweepEnded) and event.sweep == 3:
            n_said = len(said)
            signal.raise_signal(signal.SIGINT)
            # Nobody is called from within the signal: it may come while something is printed.
            assert len(said) == n_said

    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(FitInterrupted, match="resume=True") as caught:
        kpms_zarr.fit(store, model="m", config=CONFIG, callbacks=[press], save_every=99)
    assert caught.value.n_sweeps == 3
    assert sum("stopping once this sweep" in text for text in said) == 1
    assert signal.getsignal(signal.SIGINT) is before
    kpms_zarr.fit(store, model="m", resume=True)
    assert_same(result(store), quiet)


def test_interrupt__before_the_first_sweep(store, quiet):
    """With nothing to finish or to commit it ends at once; after the first commit with that."""

    def press_at(kind: type) -> object:
        return lambda event: signal.raise_signal(signal.SIGINT) if isinstance(event, kind) else None

    with pytest.raises(KeyboardInterrupt) as caught:
        kpms_zarr.fit(store, model="m", config=CONFIG, callbacks=[press_at(PlanMade)])
    assert not isinstance(caught.value, FitInterrupted)
    assert not kpms_zarr.info(store).unfinished
    with pytest.raises(FitInterrupted, match="sweep 0 is committed"):
        kpms_zarr.fit(store, model="m", config=CONFIG, callbacks=[press_at(Committed)])
    kpms_zarr.fit(store, model="m", resume=True)
    assert_same(result(store), quiet)


# ------------------------------------------------------------------ remote storage


ZARR_GIVES_UP = pytest.mark.filterwarnings(
    # What Zarr had not begun to write when a request failed.
    "ignore:coroutine .* was never awaited:RuntimeWarning",
    "ignore::pytest.PytestUnraisableExceptionWarning",
)


class Network:
    """Between a fit and a store in ``memory://``: away for some requests, or for good."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.n, self.n_failed, self.is_away = 0, 0, lambda n: False
        for name in ("pipe_file", "cat_file"):
            method = getattr(MemoryFileSystem, name)
            monkeypatch.setattr(MemoryFileSystem, name, self._between(method))

    def _between(self, method):
        def request(*args, **kwargs):
            self.n += 1
            if self.is_away(self.n):
                self.n_failed += 1
                raise ConnectionResetError(errno.ECONNRESET, "Connection reset by peer")
            return method(*args, **kwargs)

        return request


@pytest.fixture
def remote(original: Path, tmp_path: Path):
    url = f"memory://{tmp_path.name}/study.zarr"
    fsspec.filesystem("memory").put(str(original), url, recursive=True)
    yield url
    fsspec.filesystem("memory").rm(url, recursive=True)


@ZARR_GIVES_UP
@pytest.mark.slow
def test_network__away_for_a_while_is_waited_for(remote, quiet, monkeypatch, caplog):
    """Two of three requests of a while fail, first in the middle of a sweep, then of a commit."""
    network, n_then = Network(monkeypatch), []
    monkeypatch.setattr(retry, "_said", -math.inf)

    def watch(event: object) -> None:
        if isinstance(event, SweepEnded) and event.sweep in (2, 5):
            start = network.n
            network.is_away = lambda n: n < start + 18 and n % 3
            n_then.append(network.n_failed)

    # Nothing is kept in memory: every sweep of the full stage reads.
    make_plan = preparation_module.make_plan
    monkeypatch.setattr(
        preparation_module, "make_plan",
        lambda *a: replace(make_plan(*a), kept_bytes=0, recent_bytes=0),
    )  # fmt: skip
    kpms_zarr.fit(remote, model="m", config=CONFIG, save_every=2, callbacks=[watch])
    assert network.n_failed > 15
    assert n_then[1] > n_then[0] + 5
    assert "does not answer" in caplog.text
    assert "ConnectionResetError" in caplog.text
    assert_same(result(remote), quiet)


@pytest.mark.full
@ZARR_GIVES_UP
@pytest.mark.slow
def test_network__away_for_good_says_how_to_go_on(remote, quiet, monkeypatch):
    network = Network(monkeypatch)
    monkeypatch.setenv("KPMS_ZARR_WAIT", "0.5")

    def cut(event: object) -> None:
        if isinstance(event, SweepEnded) and event.sweep == 6:
            network.is_away = lambda n: True

    with pytest.raises(OSError, match="sweep 3 is committed") as caught:
        kpms_zarr.fit(remote, model="m", config=CONFIG, save_every=3, callbacks=[cut])
    assert "resume=True" in str(caught.value)
    assert "could not be reached for" in str(caught.value)
    network.is_away = lambda n: False
    # Nobody has let the model go; the lease is that of a process that is gone.
    now = time.time()
    monkeypatch.setattr(locking.time, "time", lambda: now + locking.LEASE_SECONDS + 1)
    kpms_zarr.fit(remote, model="m", resume=True)
    assert_same(result(remote), quiet)
