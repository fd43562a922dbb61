"""Damaged and hostile files of every format, each through a whole ingest into a store with data.

Whatever the bytes: the file is refused with an InputError and the store is as it was, byte for
byte; or it is accepted, and the store is sound and its older sessions untouched. Nothing else is
raised, nothing hangs, and memory stays bounded.

Cases run in another process, so that one that crashes or hangs is a failure of its own. A case has
an id, by which it can be run alone and under a debugger::

    python tests/store/test_fuzz.py 'slp_two_mice~flip_bits~3'

All cases, with what became of them by source (or of some sources, by the beginnings of their
names), are run by ``python tests/store/test_fuzz.py --all``.
"""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import queue
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
import traceback
import warnings
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import psutil
import pytest

import kpms_zarr
from helpers import mutations
from helpers.mutations import Source
from kpms_zarr.store.core import access
from kpms_zarr.store.ingest import workers as guard
from kpms_zarr.store.parsers import formats

HERE = Path(__file__).resolve().parent
DATA = HERE.parents[1].parent / "shared" / "data"


def load_module(path: Path) -> ModuleType:
    """A module of the tests, which are no package."""
    name = f"fuzzed_{path.stem}"
    if name not in sys.modules:
        spec = importlib.util.spec_from_file_location(name, path)
        assert spec is not None
        assert spec.loader is not None
        sys.modules[name] = module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
    return sys.modules[name]


SECONDS = 10.0
"""Of computing for one file."""
SECONDS_UNTIL_KILLED = 120.0
"""By the clock, on a machine that does other things too."""
MEGABYTES = 1200
"""By which memory may rise for one file: HDF5 unpacks a chunk as a whole, and those of the
mutations have 900 MB at most. What takes far more is ended by its watchdog (test_workers)."""
_SPARE_BYTES = 8 << 30
"""What a worker may address beyond what it has; more is refused by the system."""
_MESSAGE_LENGTH = 20_000

PER_SOURCE = 4
"""Cases of a source in a run that is not full; half of them of a real one, which is large."""


# ------------------------------------------------------------------ good files


def written_files(folder: Path) -> Iterator[tuple[Path, tuple[str, ...]]]:
    """Small files of all formats, by the writers of the tests of the parsers."""

    def of(name: str) -> ModuleType:
        return load_module(HERE / "parsers" / f"test_{name}.py")

    dlc = load_module(HERE / "test_parsers.py")
    one, two = dlc.columns_of(), dlc.columns_of(("mouse 1", "b/ö"), ("nose", "left ear"))
    yield dlc.write_csv(folder / "dlc_csv_one.csv", one, dlc.numbers(40, len(one))), ("text",)
    yield dlc.write_csv(folder / "dlc_csv_two.csv", two, dlc.numbers(40, len(two))), ("text",)
    for kind, write in (("fixed", dlc.write_fixed), ("table", dlc.write_table)):
        path = write(folder / f"dlc_h5_{kind}.h5", two, dlc.numbers(40, len(two)))
        yield path, ("hdf5",)
    lightning = of("lightning_pose")
    lightning.write(folder / "lightning_pose.csv", index=range(30))
    yield folder / "lightning_pose.csv", ("text",)

    sleap = of("sleap_h5")
    position, scores = sleap.random_values(n_frames=60)
    for name, how in (
        ("matlab", {"compression": "gzip"}),
        ("standard", {"axes": sleap.STANDARD, "dims": True, "chunks": True}),
    ):
        yield sleap.write(folder / f"sleap_h5_{name}.h5", position, scores, **how), ("hdf5",)
    slp = of("slp")
    for name, flat in (("slp_two_mice", False), ("slp_flat", True)):
        path = slp.write(folder / f"{name}.slp", slp.two_mice(30), tracks=["a", "b"], flat=flat)
        yield path, ("hdf5",)
    anipose = of("sleap_anipose_h5")
    path = anipose.write(folder / "sleap_anipose_h5.h5", anipose.random_position(30, 2, 3))
    yield path, ("hdf5",)

    csv_3d = of("anipose_csv")
    yield csv_3d.write(folder / "anipose_csv.csv", csv_3d.numbers(30)), ("text",)
    nwb = of("nwb")
    poses = {"m1": nwb.some_poses(30), "m2": nwb.some_poses(20, seed=1)}
    path = nwb.write_nwb(folder / "nwb_two.nwb", poses, nodes=["c", "a", "b"], skeleton=True)
    yield path, ("hdf5",)
    with contextlib.suppress(pytest.skip.Exception):
        movement = of("movement_netcdf")
        for name, engine, kind in (
            ("netcdf4", "h5netcdf", "hdf5"),
            ("netcdf3", "scipy", "netcdf3"),
        ):
            data = movement.poses(40, fps=30.0)
            yield movement.write(folder / f"movement_{name}.nc", data, engine), (kind,)
    dannce = of("dannce_mat")
    for name, write in dannce.WRITERS.items():
        kind = "hdf5" if name.startswith("v73") else "mat5"
        yield write(folder / f"dannce_{name}.mat", dannce.pose(30)), (kind,)
    facemap = of("facemap_h5")
    yield facemap.write(folder / "facemap_h5.h5", facemap.numbers(40)), ("hdf5",)
    freipose = of("freipose_json")
    yield (
        freipose.write(folder / "freipose_json.json", freipose.frames_of(freipose.numbers(20))),
        ("json",),
    )
    with contextlib.suppress(pytest.skip.Exception):
        table = of("table")
        position, confidence = table.some_poses(40)
        pair, sure = table.some_poses(20, individuals=("m1", "m2"))
        for kind in ("csv", "parquet"):
            kinds = ("text" if kind == "csv" else kind,)
            wide = table.wide(position, confidence)
            wide.insert(0, "frame", np.arange(40))
            yield table.write(folder / f"table_wide_{kind}.{kind}", wide), kinds
            long = table.long(pair, sure, ("m1", "m2"), first=5, step=5)
            yield table.write(folder / f"table_long_{kind}.{kind}", long), kinds


FAMILIES = (
    "dlc_csv", "dlc_h5", "lightning", "sleap_h5", "slp", "sleap_anipose", "anipose", "nwb",
    "movement", "dannce", "facemap", "freipose", "table", "real",
)  # fmt: skip
"""Beginnings of the names of sources."""

REAL_KINDS = {".csv": "text", ".h5": "hdf5", ".slp": "hdf5", ".nwb": "hdf5", ".mat": "mat5"}


def real_files() -> Iterator[tuple[Path, tuple[str, ...]]]:
    """The smallest real file of each folder and kind."""
    smallest: dict[tuple[str, str], Path] = {}
    for path in sorted(DATA.glob("*/*/*")):
        key = path.relative_to(DATA).parts[0], path.suffix
        if path.suffix in REAL_KINDS:
            smallest[key] = min(smallest.get(key, path), path, key=lambda p: p.stat().st_size)
    for path in smallest.values():
        yield path, (REAL_KINDS[path.suffix],)


def make_sources(folder: Path) -> list[Source]:
    """All good files: written to a folder, and real ones where there are."""
    sources = [
        Source(path.stem, path.name, path.read_bytes(), kinds)
        for path, kinds in written_files(folder)
    ]
    for path, kinds in real_files():
        name = f"real_{path.parts[-3]}_{path.suffix[1:]}"
        sources.append(Source(name, f"real{path.suffix}", path.read_bytes(), kinds))
    return sources


def save_sources(folder: Path, sources: list[Source]) -> None:
    """For other processes."""
    listed = [[s.name, s.file_name, list(s.kinds)] for s in sources]
    for source in sources:
        (folder / source.name).write_bytes(source.data)
    (folder / "sources.json").write_text(json.dumps(listed))


def load_sources(folder: Path) -> list[Source]:
    listed = json.loads((folder / "sources.json").read_text())
    return [
        Source(name, file_name, (folder / name).read_bytes(), tuple(kinds))
        for name, file_name, kinds in listed
    ]


def cases_of(source: Source, *, full: bool) -> list[str]:
    """Ids of the cases of a source: all, or some that differ from source to source."""
    cases = [
        f"{source.name}~{name}~{seed}"
        for name, mutation in mutations.MUTATIONS.items()
        if mutation.kind in ("", *source.kinds) and (full or not mutation.is_heavy)
        for seed in range(mutation.n)
    ]
    if full:
        return cases
    n = PER_SOURCE // (2 if source.name.startswith("real_") else 1)
    return sorted(cases, key=lambda case: zlib.crc32(case.encode()))[:n]


# ------------------------------------------------------------------ one case


@dataclass(frozen=True)
class Outcome:
    """What became of a case.

    Attributes
    ----------
    case : str
    word : str
        ``refused``, ``accepted``, ``none`` (nothing to be made of this file) or ``failed``.
    why : str
        The message of the InputError, or what is wrong.
    seconds, megabytes : float
    """

    case: str
    word: str
    why: str = ""
    seconds: float = 0.0
    megabytes: float = 0.0


class Wrong(Exception):
    """Something that must not be."""


def require(condition: object, what: str) -> None:
    if not condition:
        raise Wrong(what)


class Bench:
    """Runs cases in this process, each in a store that holds the good file already."""

    def __init__(self, sources: list[Source], folder: Path) -> None:
        self.is_guarded = True
        self.sources = sources
        self.by_name = {source.name: source for source in sources}
        self.folder = folder
        self._pristine: dict[str, tuple[dict[str, bytes], dict[str, Any]]] = {}
        self._formats: dict[str, str] = {}

    def prepare(self, case: str) -> None:
        """Have a store for the cases of a source."""
        self._store_of(self.by_name[case.split("~")[0]])

    def run(self, case: str) -> Outcome:
        """Make a file, ingest it, and look at what it did."""
        name, mutation, seed = case.split("~")
        source = self.by_name[name]
        made = mutations.mutate(source, mutation, int(seed), self.sources)
        if made is None:
            return Outcome(case, "none")
        store = self._store_of(source)
        place = self.folder / "files"
        shutil.rmtree(place, ignore_errors=True)
        place.mkdir()
        path = place / made[1]
        path.write_bytes(made[0])
        word, why = "failed", ""
        meter = Meter()
        try:
            word, why = self._ingest(store, path, self._format_for(source, case))
        except (Wrong, Exception) as error:
            why = str(error) if isinstance(error, Wrong) else traceback.format_exc()
        seconds, megabytes = meter.read()
        try:
            require(seconds < SECONDS, f"took {seconds:.1f} s of computing")
            require(megabytes < MEGABYTES, f"memory rose by {megabytes:.0f} MB")
            require(os.listdir(place) == [made[1]], "files beside the file")
            require(path.read_bytes() == made[0], "the file was changed")
            if word == "refused":
                self._check_as_it_was(source, store)
            elif word == "accepted":
                self._check_accepted(source, store)
        except (Wrong, Exception) as error:
            said = str(error) if isinstance(error, Wrong) else traceback.format_exc()
            word, why = "failed", f"{said} ({word}: {why})" if why else said
        if word != "refused":
            self._restore(source, store)
        return Outcome(case, word, why, seconds, megabytes)

    def _format_for(self, source: Source, case: str) -> str:
        """Often that of the good file by name, so that damage is not only seen in recognising."""
        draw = zlib.crc32(f"format of {case}".encode()) % 100
        if draw < 45:
            return self._formats[source.name]
        return formats()[draw % len(formats())] if draw < 55 else "auto"

    def _ingest(self, store: Path, path: Path, format: str) -> tuple[str, str]:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("error")
                workers = None if self.is_guarded else 1
                summary = kpms_zarr.ingest(store, [path], format=format, workers=workers)
        except kpms_zarr.InputError as error:
            check_error(error)
            return "refused", str(error)
        for note in (*summary.notes, *summary.added, *summary.recognised.values()):
            check_text(note)
        return "accepted", ", ".join(summary.added)

    # -------------------------------------------------------------- the store

    def _store_of(self, source: Source) -> Path:
        store = self.folder / f"{source.name}.zarr"
        if source.name not in self._pristine:
            first = self.folder / source.name / f"first{Path(source.file_name).suffix}"
            first.parent.mkdir()
            first.write_bytes(source.data)
            summary = kpms_zarr.ingest(store, [first], workers=1)
            self._formats[source.name] = summary.recognised[str(first)].split(":")[0]
            self._pristine[source.name] = tree(store), sessions(store)
        return store

    def _restore(self, source: Source, store: Path) -> None:
        shutil.rmtree(store)
        for name, data in self._pristine[source.name][0].items():
            (store / name).parent.mkdir(parents=True, exist_ok=True)
            (store / name).write_bytes(data)

    def _check_as_it_was(self, source: Source, store: Path) -> None:
        before, after = self._pristine[source.name][0], tree(store)
        differ = sorted(k for k in before.keys() | after.keys() if before.get(k) != after.get(k))
        if differ:
            self._restore(source, store)
        require(not differ, f"refused, but the store has changed: {', '.join(differ[:5])}")

    def _check_accepted(self, source: Source, store: Path) -> None:
        verified = kpms_zarr.verify(store)
        require(verified.is_sound, f"accepted, but {verified.damages}")
        require(not verified.notes, f"accepted, but {verified.notes}")
        before, after = self._pristine[source.name][1], sessions(store)
        for name, content in before.items():
            require(after.get(name) == content, f"accepted, but session {name!r} has changed")
        for name in after.keys() - before.keys():
            check_text(name)
            check_session(store, name)


def tree(folder: Path) -> dict[str, bytes]:
    """Relative path -> content of every file below a folder."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


def sessions(store: Path) -> dict[str, Any]:
    """Session -> all that is known of it, and the content of its chunks."""
    group = access.keypoints_group(access.open_group(str(store)))
    columns = {
        name: np.asarray(array[:]).tolist()
        for name, array in access.arrays_below(group)
        if array.metadata.dimension_names == ("session",)
    }
    return {
        session.name: (
            {name: repr(values[session.index]) for name, values in columns.items()},
            [tree(store / "keypoints" / name / "c" / str(session.index)) for name in
             ("position", "confidence")],
        )
        for session in access.sessions(str(store))
    }  # fmt: skip


def check_session(store: Path, name: str) -> None:
    """What is true of every session, whatever the file."""
    one = access.dataset(str(store), "keypoints").sel(session=name)
    n_frames = int(one.n_frames)
    require(n_frames > 0, f"session {name!r} without frames")
    require(0 < float(one.fps) < np.inf, f"session {name!r} with {float(one.fps)} fps")
    position = one.position[: min(n_frames, 100_000)].values
    require(not np.isinf(position).any(), f"infinite positions in session {name!r}")
    require(name.startswith(("mutant", *NAMED)), f"session named {name!r}")


# As `file_name` names files.
NAMED = ("a", "line", "n", "\U0001f42d", "-rf", "[", ".", ".hidden", "%", "tab", "x")


def check_error(error: kpms_zarr.InputError) -> None:
    """An InputError that a person can read, and that is not hiding that memory ran out."""
    for problem in error.problems:
        parts = (problem.expected, problem.found, problem.where, problem.fix)
        require(all(parts), f"a part of the message is empty: {problem!r:.2000}")
    check_text(str(error))
    link: BaseException | None = error
    while link is not None:
        require(not isinstance(link, MemoryError), f"ran out of memory: {error}")
        link = link.__cause__ or link.__context__


def check_text(text: str) -> None:
    require(len(text) < _MESSAGE_LENGTH, f"a message of {len(text)} characters: {text[:300]!r}")
    try:
        text.encode()
    except UnicodeEncodeError:
        raise Wrong(f"a message that cannot be printed: {text[:300]!a}") from None


class Meter:
    """Time of computing, and the rise of memory, here and in the process that reads files."""

    def __init__(self) -> None:
        self._readers = psutil.Process().children()
        self._ids = [os.getpid(), *(reader.pid for reader in self._readers)]
        for process in self._ids:
            with contextlib.suppress(OSError):  # the peak is the present
                Path(f"/proc/{process}/clear_refs").write_text("5")
        self._memory, self._time = self._memories("VmRSS"), self._seconds()

    def _memories(self, kind: str) -> list[float]:
        return [memory(kind, process) for process in self._ids]

    def _seconds(self) -> float:
        seconds = time.process_time()
        for reader in self._readers:
            with contextlib.suppress(psutil.Error):  # one that was ended
                seconds += sum(reader.cpu_times()[:2])
        return seconds

    def read(self) -> tuple[float, float]:
        rise = [
            now - then if now else 0.0
            for now, then in zip(self._memories("VmHWM"), self._memory, strict=True)
        ]
        return self._seconds() - self._time, max(rise)


def memory(kind: str, process: int | str = "self") -> float:
    """Of a process, in MB, 0 when it has ended; its peak where the system does not tell more."""
    try:
        for line in Path(f"/proc/{process}/status").read_text().splitlines():
            if line.startswith(f"{kind}:"):
                return int(line.split()[1]) / 1024
    except OSError:
        if process not in ("self", os.getpid()):
            return 0.0
    unit = 1024 if sys.platform == "linux" else 1024**2
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit


# ------------------------------------------------------------------ wrong twins


def twin_key_error(patch: pytest.MonkeyPatch) -> None:
    """A parser that trips over what is not there."""
    change_parsers(patch, lambda path: {}["coords"])


def twin_half_written(patch: pytest.MonkeyPatch) -> None:
    """An ingest that notices too late and takes nothing back."""
    from kpms_zarr.store.ingest.rows import RowAllocator

    def finish(rows: RowAllocator, settings: Any) -> None:
        rows.commit()
        raise kpms_zarr.InputError(expected="a", found="b", where="c", fix="d")

    patch.setattr(RowAllocator, "finish", finish)
    patch.setattr(RowAllocator, "undo", lambda rows: None)


def twin_old_session(patch: pytest.MonkeyPatch) -> None:
    """An ingest that writes over the session before."""
    from kpms_zarr.store.ingest.rows import RowAllocator

    patch.setattr(RowAllocator, "take", lambda rows, n: list(range(n)))


def twin_memory(patch: pytest.MonkeyPatch) -> None:
    change_parsers(patch, lambda path: np.ones(190_000_000))


def twin_slow(patch: pytest.MonkeyPatch) -> None:
    def burn(path: Path) -> None:
        end = time.process_time() + SECONDS
        while time.process_time() < end:
            pass

    patch.setitem(globals(), "SECONDS", 1.0)  # so that the test itself is not
    change_parsers(patch, burn)


def twin_hangs(patch: pytest.MonkeyPatch) -> None:
    change_parsers(patch, lambda path: time.sleep(3600))


def twin_crash(patch: pytest.MonkeyPatch) -> None:
    change_parsers(patch, lambda path: os.kill(os.getpid(), signal.SIGSEGV))


def twin_silent(patch: pytest.MonkeyPatch) -> None:
    """A parser whose errors do not say what to do."""

    def refuse(path: Path) -> None:
        raise kpms_zarr.InputError(expected="a", found="b", where=str(path))

    change_parsers(patch, refuse)


def twin_warns(patch: pytest.MonkeyPatch) -> None:
    change_parsers(patch, lambda path: np.float32(1e38) * np.float32(1e38))


TWINS = {name.removeprefix("twin_"): f for name, f in list(globals().items()) if "twin_" in name}


def change_parsers(patch: pytest.MonkeyPatch, before: Callable[[Path], Any]) -> None:
    """Have all parsers do something more when they look at a file."""
    from kpms_zarr.store import parsers
    from kpms_zarr.store.parsers.base import Parser

    def inspect(inspect_: Callable[..., Any], path: Path, *options: Any) -> Any:
        if path.name.startswith("mutant"):
            before(path)
        return inspect_(path, *options)

    changed = [
        Parser(one.name, one.title, one.sniff, partial(inspect, one.inspect), one.read)
        for one in parsers.PARSERS
    ]
    patch.setattr(parsers, "PARSERS", tuple(changed))


# ------------------------------------------------------------------ another process


def serve(folder: Path) -> None:
    """Run the cases whose ids come in, after each perhaps a twin; one line of JSON goes out."""
    import faulthandler

    faulthandler.enable()
    words, sys.stdout = os.fdopen(os.dup(1), "w"), sys.stderr
    os.dup2(2, 1)
    with tempfile.TemporaryDirectory(dir=folder) as own:
        bench = Bench(load_sources(folder), Path(own))
        limit_memory()
        guard.MAX_SECONDS, guard.MAX_BYTES = SECONDS, _SPARE_BYTES
        for line in sys.stdin:
            # When the other side is killed while this hangs, nobody else would end it.
            signal.alarm(int(2 * SECONDS_UNTIL_KILLED))
            case, _, twin = line.strip().partition(" ")
            with pytest.MonkeyPatch.context() as patch:
                if twin:
                    bench.prepare(case)  # so that there is a store to do harm to
                    TWINS[twin](patch)
                    patch.setattr(bench, "is_guarded", False)
                outcome = bench.run(case)
            words.write(json.dumps(asdict(outcome)) + "\n")
            words.flush()
            signal.alarm(0)


def limit_memory() -> None:
    size = int(memory("VmSize")) << 20
    with contextlib.suppress(OSError, ValueError):
        hard = resource.getrlimit(resource.RLIMIT_AS)[1]
        resource.setrlimit(resource.RLIMIT_AS, (size + _SPARE_BYTES, hard))


class Worker:
    """A process that runs cases, and is started again when one of them ends it."""

    def __init__(self, folder: Path):
        self._folder = folder
        self._process: subprocess.Popen[str] | None = None

    def run(self, case: str, twin: str = "", patience: float = SECONDS_UNTIL_KILLED) -> Outcome:
        if self._process is None:
            self._start()
        process = self._process
        assert process is not None
        assert process.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            process.stdin.write(f"{case} {twin}\n")
            process.stdin.flush()
        try:
            line = self._lines.get(timeout=patience)
        except queue.Empty:
            self.close()
            return Outcome(case, "failed", f"nothing after {patience:.0f} s: killed")
        if line:
            return Outcome(**json.loads(line))
        code = process.wait()
        said = self._errors.read_text(errors="replace")[-3000:]
        self.close()
        return Outcome(case, "failed", f"the process ended with {code}\n{said}")

    def _start(self) -> None:
        self._errors = self._folder / f"errors_{os.getpid()}_{id(self)}.txt"
        paths = os.pathsep.join(
            filter(None, [str(HERE.parents[1]), str(HERE.parent), os.environ.get("PYTHONPATH")])
        )
        with self._errors.open("w") as errors:
            self._process = subprocess.Popen(
                [sys.executable, str(HERE / "test_fuzz.py"), "--serve", self._folder],
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors, text=True,
                env={**os.environ, "PYTHONPATH": paths},
            )  # fmt: skip
        self._lines: queue.SimpleQueue[str] = queue.SimpleQueue()
        self._listener = threading.Thread(
            target=self._listen, args=(self._process, self._lines), daemon=True
        )
        self._listener.start()

    @staticmethod
    def _listen(process: subprocess.Popen[str], lines: queue.SimpleQueue[str]) -> None:
        assert process.stdout is not None
        for line in process.stdout:
            lines.put(line)
        lines.put("")

    def close(self) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        process.kill()
        process.wait()
        self._listener.join()
        for pipe in (process.stdin, process.stdout):
            assert pipe is not None
            with contextlib.suppress(OSError):
                pipe.close()


def told(outcomes: list[Outcome]) -> str:
    """What to print about failures: each with its id."""
    failed = [outcome for outcome in outcomes if outcome.word == "failed"]
    return "\n\n".join(
        f"{outcome.case}: {outcome.why}\n  again: python tests/store/test_fuzz.py '{outcome.case}'"
        for outcome in failed[:20]
    )


# ------------------------------------------------------------------ the tests


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    place = tmp_path_factory.mktemp("fuzz")
    written = place / "written"
    written.mkdir()
    save_sources(place, make_sources(written))
    return place


@pytest.fixture(scope="module")
def worker(folder):
    one = Worker(folder)
    yield one
    one.close()


@pytest.mark.slow
@pytest.mark.parametrize("family", FAMILIES)
def test_damaged_files__are_refused_whole_or_accepted_sound(folder, worker, family, full):
    sources = [source for source in load_sources(folder) if source.name.startswith(f"{family}_")]
    if not sources:
        pytest.skip("no such files here")
    outcomes = [worker.run(case) for s in sources for case in cases_of(s, full=full)]
    assert not [o for o in outcomes if o.word == "failed"], told(outcomes)
    if full:  # the few cases of a short run may all be of one sort
        words = Counter(outcome.word for outcome in outcomes)
        assert words["refused"] > 0.2 * len(outcomes)
        assert words["none"] < 0.3 * len(outcomes)
        assert words["accepted"] > 0


def test_cases__are_many_of_every_source_and_kind(folder):
    sources = load_sources(folder)
    for source in sources:
        assert sum(source.name.startswith(f"{family}_") for family in FAMILIES) == 1
        assert set(source.kinds) <= {m.kind for m in mutations.MUTATIONS.values()} | {"netcdf3"}
    full = [case for source in sources for case in cases_of(source, full=True)]
    some = [case for source in sources for case in cases_of(source, full=False)]
    assert len(set(full)) == len(full) > 2_000
    assert 100 < len(some) < 300
    assert set(some) < set(full)
    # Every way to spoil a file is tried in a short run too, but for those that take long.
    light = {name for name, mutation in mutations.MUTATIONS.items() if not mutation.is_heavy}
    assert len({case.split("~")[1] for case in some} & light) > 0.6 * len(light)


def test_mutations__are_the_same_every_time(folder):
    sources = load_sources(folder)
    for source in sources[::5]:
        for case in cases_of(source, full=False):
            _, name, seed = case.split("~")
            one, other = (mutations.mutate(source, name, int(seed), sources) for _ in range(2))
            assert one == other


CAUGHT = {
    "key_error": "KeyError: 'coords'",
    "half_written": "refused, but the store has changed",
    "old_session": "has changed",
    "memory": "memory rose by",
    "slow": "s of computing",
    "hangs": "killed",
    "crash": "the process ended with -11",
    "silent": "a part of the message is empty",
    "warns": "RuntimeWarning: overflow",
}


@pytest.mark.parametrize("twin", TWINS)
def test_wrong_twins__are_caught(worker, twin):
    """A package that does what it must not fails, and the case after it is run all the same."""
    case = "facemap_h5~longer~0"
    assert worker.run(case).word != "failed"
    outcome = worker.run(case, twin, patience=8 if twin == "hangs" else SECONDS_UNTIL_KILLED)
    assert outcome.word == "failed"
    assert CAUGHT[twin] in outcome.why
    assert worker.run(case).word != "failed"


def main(arguments: list[str]) -> None:
    if arguments[:1] == ["--serve"]:
        serve(Path(arguments[1]))
        return
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "written").mkdir()
        save_sources(folder, sources := make_sources(folder / "written"))
        if arguments[:1] != ["--all"]:
            (folder / "bench").mkdir()
            bench = Bench(sources, folder / "bench")
            for case in arguments:
                sys.stdout.write(f"{bench.run(case)}\n")
            return
        worker = Worker(folder)
        for source in sources:
            if not source.name.startswith(tuple(arguments[1:])):
                continue
            found = [worker.run(case) for case in cases_of(source, full=True)]
            words = Counter(outcome.word for outcome in found)
            slowest = max(found, key=lambda outcome: outcome.seconds)
            largest = max(found, key=lambda outcome: outcome.megabytes)
            sys.stdout.write(
                f"{source.name} {dict(words)}; {slowest.seconds:.1f} s of {slowest.case}, "
                f"{largest.megabytes:.0f} MB of {largest.case}\n{told(found)}\n"
            )
            sys.stdout.flush()
        worker.close()


if __name__ == "__main__":
    main(sys.argv[1:])
