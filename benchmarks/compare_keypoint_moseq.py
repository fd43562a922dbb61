"""Speed, memory and recovery of kpms_zarr and of the published keypoint-moseq, on the same data.

    python benchmarks/compare_keypoint_moseq.py [--sizes 50000 200000 1000000] [--sweeps 100]

Makes an environment for the published package (`--environment`, kept for the next time), simulates
sessions with the generator in ../shared/bench beside the checkout (`--generator`), runs each side
in processes of its own on the CPU, one at a time, and prints a Markdown table. A side that does not
end within `--limit` minutes, or that takes more memory than there is, is said so in the table, with
what it did until then. Nothing is asserted.

The published package is a black box, called as in its tutorial: format_data, fit_pca,
estimate_sigmasq_loc, init_model, then for every sweep resample_model, which is what fit_model calls
(without the checks and files of fit_model, in favour of the package). Its centroid step asks for
parallel message passing even on a CPU, where it may never return; the sweeps here run that step
with its documented option parallel_message_passing=False, in a jax.jit of its own, because the
option cannot be given to the compiled step. When all is measured, the step is tried as shipped.

Both sides: 100 states, 4 latent dims, 3 lags, an AR stage at kappa 1e6, then the full model at 1e4;
everything else is left at the defaults of each, among them double precision there and float32 here.

What is printed
    sweep           median wall time, without the first three sweeps of a stage; of rounds of five
                    where there are some, as ours draws among all states once in five
    start-up        start of Python to the first sweep: imports, data into the store or into
                    format_data, PCA, initialisation; here also what lies between the stages
    compilation     what the first three sweeps of each stage take beyond the median
    whole fit       start of Python to the labels of all frames
    peak memory     of the process, imports included
    ARI             against the simulated syllables. Equal sweeps: the same numbers on both sides.
                    Equal time, published: its labels after its last sweep within the time that our
                    whole fit took. Equal time, ours: a second fit, with as many full sweeps as fit
                    into the time that the whole fit of the published package took.
"""

import argparse
import importlib.util
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
import venv
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

# No import of either package here: this file runs in both environments.

N, M, LAGS, FPS = 100, 4, 3, 30
AR_KAPPA, KAPPA = 1e6, 1e4
ROUND = 5
SETTLED = 3  # sweeps of a stage that do not count: the published package compiles in each of them
PIECES = (1, 10)  # of a batch, for the published package when memory runs out
ROOT = Path(__file__).resolve().parents[1]


# ------------------------------------------------------------------ inside the process of a side


class Log:
    """Events of a run, one line of JSON each, so that a run that is stopped leaves what it did.

    Attributes
    ----------
    path : Path
    began : float
        Start of the process, in seconds since the epoch.
    """

    def __init__(self, path: Path, began: float) -> None:
        self.path, self.began = path, began

    def now(self) -> float:
        """Seconds since the process began."""
        return time.time() - self.began

    def write(self, event: str, **values: Any) -> None:
        """Append an event, with the time and the peak memory so far."""
        line = {"event": event, "at": self.now(), "megabytes": peak() / 1e6, **values}
        with self.path.open("a") as file:
            file.write(json.dumps(line) + "\n")


def peak() -> int:
    """Largest resident memory of this process, in bytes."""
    status = Path("/proc/self/status")
    if status.exists():  # ru_maxrss on Linux counts the parent before exec as well
        (line,) = (row for row in status.read_text().splitlines() if row.startswith("VmHWM"))
        return int(line.split()[1]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def run_ours(options: argparse.Namespace, log: Log) -> None:
    """Write the sessions into a store, and fit it."""
    import kpms_zarr
    from kpms_zarr.compute.events import SweepEnded

    log.write("imported")
    folder = Path(options.folder)
    data = np.load(options.data)
    names = [str(name) for name in data["sessions"]]
    with tempfile.TemporaryDirectory(dir=folder) as place:
        store = Path(place) / "study.zarr"
        write_store(store, data, names)
        log.write("stored")
        kpms_zarr.pca(store)
        log.write("pca")

        def tell(event: object) -> None:
            if isinstance(event, SweepEnded):
                log.write("sweep", stage=event.stage, seconds=event.seconds)

        config = kpms_zarr.FitConfig(
            stage="both", ar_sweeps=options.ar_sweeps, sweeps=options.full_sweeps, kappa=KAPPA,
            ar_kappa=AR_KAPPA, n_states=N, latent_dim=M, lags=LAGS, seed=options.seed,
        )  # fmt: skip
        kpms_zarr.fit(store, model="m", config=config, callbacks=[tell])
        labels = kpms_zarr.open_labels(store, "m")["syllable"]
        found = {name: labels.sel(session=name).values for name in names}
        save_labels(folder / "labels.npy", data, names, found)
    log.write("labelled")


def write_store(store: Path, data: Any, names: list[str]) -> None:
    """Write the sessions into a new store, one in memory at a time."""
    from kpms_zarr.store.core import access, regions
    from kpms_zarr.store.core.blocks import iter_blocks
    from kpms_zarr.store.study.keypoints import (
        create_keypoints,
        set_session_count,
        write_session_rows,
    )
    from kpms_zarr.store.study.settings import StudySettings, write_settings

    points = tuple(str(name) for name in data["bodyparts"])
    study = StudySettings(points, ("x", "y"), points[-1:], points[:1], ())
    lengths = np.asarray([len(data[f"{name}.z"]) for name in names])
    root = access.create(store)
    write_settings(root, study)
    group = create_keypoints(root, study)
    set_session_count(group, len(names), int(lengths.max()))
    table = {column: [""] * len(names) for column in ("individual", "recording", "source")}
    table |= {"session": names, "source_hash": names, "source_format": ["synthetic"] * len(names)}
    write_session_rows(group, 0, table, float(FPS))
    group["n_frames"][:] = lengths
    for session in access.sessions(root):
        for array, source in (("position", "coordinates"), ("confidence", "confidences")):
            values = data[f"{session.name}.{source}"].astype(np.float32)
            for block in iter_blocks([session]):
                part = values[block.start : block.stop]
                regions.write(group[array], block, part, n_frames=session.n_frames)


def run_published(options: argparse.Namespace, log: Log) -> None:
    """Fit with the published package, and note its labels at `--stop-at` seconds as well."""
    sys.tracebacklimit = 0
    import jax
    import keypoint_moseq as kpms
    from jax_moseq.models import keypoint_slds
    from jax_moseq.utils import set_mixed_map_iters

    log.write("imported")
    folder = Path(options.folder)
    data, metadata, model = start_published(options, log)
    if options.pieces > 1:
        set_mixed_map_iters(options.pieces)
    n_states, _, width = model["params"]["Ab"].shape
    if (n_states, width) != (N, M * LAGS + 1):
        raise ValueError(
            f"expected {N} states and {M * LAGS + 1} columns, found {n_states}, {width}"
        )
    as_shipped = None if options.as_shipped else serial_centroid()

    def keep(name: str, z: np.ndarray) -> None:
        states = model["states"] | {"z": jax.numpy.asarray(z)}
        found = kpms.extract_results(model | {"states": states}, metadata, save_results=False)
        with np.load(options.data) as truth:
            names = [str(key) for key in truth["sessions"]]
            syllables = {key: value["syllable"] for key, value in found.items()}
            save_labels(folder / f"{name}.npy", truth, names, syllables)

    z_in_time = None
    for stage, n_sweeps, kappa in stages_of(options):
        model = kpms.update_hypparams(model, kappa=kappa)
        for sweep in range(n_sweeps):
            began = time.perf_counter()
            passing = {} if options.as_shipped else {"parallel_message_passing": False}
            model = keypoint_slds.resample_model(data, **model, ar_only=stage == "ar", **passing)
            jax.block_until_ready(model)
            seconds = time.perf_counter() - began
            in_time = log.now() <= options.stop_at
            log.write("sweep", stage=stage, seconds=seconds, sweep=sweep + 1, in_time=in_time)
            if in_time:
                z_in_time = np.asarray(model["states"]["z"])
            elif z_in_time is not None:
                keep("labels-in-time", z_in_time)
                z_in_time = None
    keep("labels", model["states"]["z"])
    is_finite = all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(model["states"]))
    log.write("labelled", is_finite=bool(is_finite))
    if as_shipped is not None:
        try_centroid(as_shipped, data, model, log)


def stages_of(options: argparse.Namespace) -> tuple[tuple[str, int, float], ...]:
    """Name, sweeps and kappa of both stages."""
    return ("ar", options.ar_sweeps, AR_KAPPA), ("full", options.full_sweeps, KAPPA)


def start_published(options: argparse.Namespace, log: Log) -> tuple[Any, Any, Any]:
    """Data, metadata and the initial model, in the steps of the tutorial."""
    import jax
    import keypoint_moseq as kpms

    with np.load(options.data) as found:
        names = [str(name) for name in found["sessions"]]
        bodyparts = [str(name) for name in found["bodyparts"]]
        coordinates = {name: found[f"{name}.coordinates"] for name in names}
        confidences = {name: found[f"{name}.confidences"] for name in names}
    project = str(Path(options.folder) / "project")
    kpms.setup_project(project, bodyparts=bodyparts, skeleton=[], video_dir="")
    kpms.update_config(
        project, use_bodyparts=bodyparts, anterior_bodyparts=bodyparts[-1:],
        posterior_bodyparts=bodyparts[:1], latent_dim=M, nlags=LAGS, num_states=N, kappa=AR_KAPPA,
        fps=FPS,
    )  # fmt: skip
    settings = kpms.load_config(project)
    data, metadata = kpms.format_data(coordinates, confidences, **settings)
    log.write("formatted")
    pca = kpms.fit_pca(**data, **settings)
    log.write("pca")
    step = kpms.estimate_sigmasq_loc(data["Y"], data["mask"], filter_size=FPS)
    kpms.update_config(project, sigmasq_loc=step)
    seed = jax.random.PRNGKey(options.seed)
    model = kpms.init_model(data, pca=pca, seed=seed, **kpms.load_config(project))
    jax.block_until_ready(model)
    log.write("initialised")
    return data, metadata, model


def serial_centroid() -> Callable[..., Any]:
    """Let the sweeps run the centroid step without parallel message passing; returns the step."""
    import jax
    from jax_moseq.models.keypoint_slds import gibbs

    as_shipped = gibbs.resample_location
    serial = jax.jit(partial(as_shipped.__wrapped__, parallel_message_passing=False))

    def step(*arguments: Any, parallel_message_passing: object = None, **more: Any) -> Any:
        return serial(*arguments, **more)

    gibbs.resample_location = step
    return as_shipped


def try_centroid(as_shipped: Callable[..., Any], data: Any, model: Any, log: Log) -> None:
    """The centroid step alone, twice each: run serially, then as shipped, which may not return."""
    import jax
    from jax_moseq.models.keypoint_slds import gibbs

    states = {name: model["states"][name] for name in ("x", "h", "s")}
    given = states | {name: model["params"][name] for name in ("Cd", "sigmasq")}
    given |= {name: data[name] for name in ("Y", "mask")}
    given["sigmasq_loc"] = model["hypparams"]["cen_hypparams"]["sigmasq_loc"]
    log.write("centroid")
    for name, step in (("serial", gibbs.resample_location), ("shipped", as_shipped)):
        for _ in range(2):
            began = time.perf_counter()
            jax.block_until_ready(step(model["seed"], **given))
            log.write(f"centroid {name}", seconds=time.perf_counter() - began)


def save_labels(path: Path, data: Any, names: list[str], found: dict[str, np.ndarray]) -> None:
    """Two rows: the simulated syllables, and the labels, of all frames."""
    truth = np.concatenate([data[f"{name}.z"] for name in names])
    np.save(path, np.stack([truth, np.concatenate([found[name] for name in names])]))


# ------------------------------------------------------------------ what the parent does


@dataclass
class Run:
    """What one process did.

    Attributes
    ----------
    events : list of dict
        As `Log` wrote them.
    failure : str
        Why it did not end; empty when it did.
    scores : dict of str to float
        ARI against the simulated syllables of the labels at the end and of those in time.
    """

    events: list[dict[str, Any]]
    failure: str = ""
    scores: dict[str, float] = field(default_factory=dict)

    def sweeps(self, stage: str) -> list[float]:
        """Seconds of each sweep of a stage."""
        return [e["seconds"] for e in self.events if e["event"] == "sweep" and e["stage"] == stage]

    def typical(self, stage: str) -> float:
        """Median seconds of a settled sweep, of rounds of five; NaN when there is none."""
        seconds = self.sweeps(stage)[SETTLED:]
        rounds = np.array(seconds[: len(seconds) // ROUND * ROUND]).reshape(-1, ROUND).mean(1)
        every = rounds if rounds.size else seconds
        return float(np.median(every)) if len(every) else np.nan

    def compilation(self) -> float:
        """Seconds that the first sweeps of the stages take beyond the median; NaN without."""
        stages = [(self.sweeps(stage)[:SETTLED], self.typical(stage)) for stage in ("ar", "full")]
        return sum(sum(first) - len(first) * typical for first, typical in stages)

    def start_up(self) -> float:
        """Seconds to the first sweep, and between the stages; NaN before the first sweep."""
        total, before, last = 0.0, 0.0, ""
        for event in self.events:
            if event["event"] == "sweep":
                if event["stage"] != last:
                    total += event["at"] - event["seconds"] - before
                before, last = event["at"], event["stage"]
        return total if last else np.nan

    def value(self, event: str, key: str = "at") -> float:
        """A value of the last event of a name; NaN when there is none."""
        return next((e[key] for e in reversed(self.events) if e["event"] == event), np.nan)

    def peak(self) -> float:
        """Largest memory in MB, the trial of the centroid step left out."""
        seen = [e for e in self.events if not e["event"].startswith("centroid")]
        return max((e["megabytes"] for e in seen), default=np.nan)

    def stopped_at(self) -> str:
        """The last sweep that ended in time."""
        done = [e for e in self.events if e["event"] == "sweep" and e.get("in_time")]
        if not done:
            return "before its first sweep"
        name = "AR" if done[-1]["stage"] == "ar" else "full"
        return f"after {name} sweep {done[-1]['sweep']}"

    def score(self, name: str = "labels") -> float:
        """ARI against the simulated syllables; NaN without labels."""
        return self.scores.get(name, np.nan)


def simulate(options: argparse.Namespace, n_frames: int, path: Path) -> int:
    """Save the sessions of one size; returns the number of frames."""
    spec = importlib.util.spec_from_file_location("simulate", options.generator)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    found, bodyparts = module.simulate(
        options.sessions, n_frames // options.sessions, seed=options.seed
    )
    arrays = {
        f"{name}.{key}": session[key]
        for name, session in found.items()
        for key in ("coordinates", "confidences", "z")
    }
    np.savez(path, sessions=list(found), bodyparts=bodyparts, **arrays)
    return sum(len(session["z"]) for session in found.values())


def published_python(options: argparse.Namespace) -> Path:
    """Python of the environment of the published package, which is made when it is not there."""
    python = Path(options.environment).resolve() / "bin" / "python"
    name = options.package.split("=")[0]
    if not python.exists() or not versions(python, name):
        folder = python.parents[1]
        print(f"installing {options.package} in {folder} ...", file=sys.stderr, flush=True)
        venv.create(folder, with_pip=True)
        install = [python, "-I", "-m", "pip", "install", "-qq", options.package]
        subprocess.run(install, check=True)
    return python


def versions(python: Path | str, *names: str) -> str:
    """Names and versions of packages in an environment; empty when one is not there."""
    code = f"import importlib.metadata as m; print(*[n + ' ' + m.version(n) for n in {names}])"
    done = subprocess.run([python, "-c", code], capture_output=True, text=True)
    return "" if done.returncode else done.stdout.strip()


def start(
    options: argparse.Namespace, side: str, data: Path, folder: Path, **more: int | float
) -> Run:
    """Run one side in a process of its own, within the limits of time and memory."""
    folder.mkdir()
    python = [sys.executable] if side == "ours" else [str(published_python(options)), "-I"]
    given = {"data": data, "folder": folder, "seed": options.seed, **more}
    command = [*python, str(Path(__file__).resolve()), f"--run={side}"]
    command += [f"--{name.replace('_', '-')}={value}" for name, value in given.items()]
    said = ", ".join(f"{name} {value:.4g}" for name, value in more.items())
    print(f"  {side}: {said} (load {os.getloadavg()[0]:.1f})", file=sys.stderr, flush=True)
    log, errors = folder / "events", folder / "errors"
    began = time.time()
    with errors.open("wb") as out:
        process = subprocess.Popen(
            [*command, f"--began={began}"],
            env=os.environ | {"JAX_PLATFORMS": "cpu", "MPLBACKEND": "Agg"},
            stdout=out,
            stderr=out,
        )
        try:
            failure = watch(process, log, began, options)
        finally:
            process.kill()
            process.wait()
    events = read_events(log)
    if process.returncode and not failure and not any(e["event"] == "centroid" for e in events):
        lines = errors.read_text(errors="replace").strip().splitlines() or [""]
        failure = f"failed with code {process.returncode}: {lines[-1][:200]}"
        if process.returncode == -9 or "RESOURCE_EXHAUSTED" in failure or "Memory" in failure:
            failure = "out of memory"
    return Run(events, failure, {path.stem: agreement(path) for path in folder.glob("*.npy")})


def agreement(path: Path) -> float:
    """ARI of the two rows of a file."""
    from kpms_zarr.compute.analysis.agreement import adjusted_rand_index

    return adjusted_rand_index(*np.load(path))


def watch(process: subprocess.Popen, log: Path, began: float, options: argparse.Namespace) -> str:
    """Wait until a process ends or reaches a limit; returns which limit, or an empty string."""
    most = 0.9 * kilobytes("/proc/meminfo", "MemAvailable")
    while process.poll() is None:
        time.sleep(0.5)
        tried = [e["at"] for e in read_events(log) if e["event"] == "centroid"]
        if tried and time.time() - began - tried[0] > options.centroid_limit * 60:
            return ""
        if not tried and time.time() - began > options.limit * 60:
            return f"stopped at the limit of {options.limit:g} min"
        used = kilobytes(f"/proc/{process.pid}/status", "VmRSS")
        if np.isfinite(used) and used > most:
            return f"out of memory: stopped at {used / 1e6:.1f} GB"
    return ""


def kilobytes(path: str, name: str) -> float:
    """A number of a file of Linux about memory; infinity when there is none."""
    try:
        rows = Path(path).read_text().splitlines()
    except OSError:
        return np.inf
    return next((float(row.split()[1]) for row in rows if row.startswith(name)), np.inf)


def read_events(log: Path) -> list[dict[str, Any]]:
    """The whole lines of a log."""
    lines = log.read_text().splitlines(keepends=True) if log.exists() else []
    return [json.loads(line) for line in lines if line.endswith("\n")]


@dataclass
class Comparison:
    """Both sides at one size.

    Attributes
    ----------
    n_frames, ar_sweeps, full_sweeps : int
    runs : dict of str to Run
        ``"ours"``, ``"published"``, and ``"longer"``: ours for as long as the published one took.
    notes : list of str
    """

    n_frames: int
    ar_sweeps: int
    full_sweeps: int
    runs: dict[str, Run] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def rows(self) -> list[tuple[str, str, str, str]]:
        """What, published, ours, ratio: the lines of the table."""
        none = Run([])
        ours, published = (self.runs.get(name, none) for name in ("ours", "published"))
        longer = self.runs.get("longer", none)

        def row(what: str, value: Callable[[Run], float], form: str) -> tuple[str, str, str, str]:
            theirs, own = value(published), value(ours)
            return what, shown(theirs, form), shown(own, form), ratio(theirs, own)

        sweeps = f"{self.ar_sweeps} AR + {self.full_sweeps} full"
        lines = [
            row("AR sweep, us/frame", lambda r: r.typical("ar") / self.n_frames * 1e6, ".2f"),
            row("full sweep, us/frame", lambda r: r.typical("full") / self.n_frames * 1e6, ".2f"),
            row("AR sweep, s", lambda r: r.typical("ar"), ".3f"),
            row("full sweep, s", lambda r: r.typical("full"), ".3f"),
            row("start-up, s", Run.start_up, ".1f"),
            row("compilation, s", Run.compilation, ".1f"),
            row(f"whole fit, s ({sweeps})", lambda r: r.value("labelled"), ".1f"),
            row("peak memory, MB", Run.peak, ".0f"),
        ]
        equal = (published.score(), ours.score())
        lines.append(("ARI, equal sweeps", *(shown(score, ".3f") for score in equal), ""))
        if self.runs.keys() >= {"ours", "published"}:
            what = f"ARI, equal time ({shown(ours.value('labelled'), '.0f')} s)"
            theirs = published.score("labels-in-time")
            stop = f"{shown(theirs, '.3f')}, stopped {published.stopped_at()}"
            lines.append((what, stop, shown(ours.score(), ".3f"), ""))
        if "longer" in self.runs:
            what = f"ARI, equal time ({shown(published.value('labelled'), '.0f')} s)"
            own = f"{shown(longer.score(), '.3f')}, {len(longer.sweeps('full'))} full sweeps"
            own += f", {shown(longer.value('labelled'), '.0f')} s"
            lines.append((what, shown(published.score(), ".3f"), own, ""))
        return lines


def ratio(a: float, b: float) -> str:
    """a / b to three digits, or a dash."""
    return shown(float(np.divide(a, b)), ".3g") if b else "-"


def shown(value: float, form: str) -> str:
    """A number, or a dash for NaN."""
    return f"{value:{form}}" if np.isfinite(value) else "-"


def compare(options: argparse.Namespace, n_frames: int, place: Path) -> Comparison:
    """Run both sides at one size."""
    data = place / "data.npz"
    ar_sweeps, full_sweeps = schedule(options, n_frames)
    print(f"{n_frames:,} frames", file=sys.stderr, flush=True)
    found = Comparison(simulate(options, n_frames, data), ar_sweeps, full_sweeps)
    sweeps = {"ar_sweeps": ar_sweeps, "full_sweeps": full_sweeps}
    stop_at = 0.0
    if options.only != "published":
        ours = found.runs["ours"] = start(options, "ours", data, place / "ours", **sweeps)
        stop_at = float(np.nan_to_num(ours.value("labelled")))
    if options.only != "ours":
        for pieces in PIECES:
            folder = place / f"published-{pieces}"
            more = {**sweeps, "stop_at": stop_at, "pieces": pieces}
            found.runs["published"] = start(options, "published", data, folder, **more)
            if "out of memory" not in found.runs["published"].failure:
                break
            found.notes.append(f"published, batch in {pieces}: {found.runs['published'].failure}")
    published = found.runs.get("published")
    if published and "ours" in found.runs and not options.no_second_fit:
        n_more = affordable(ours, published.value("labelled"), ar_sweeps)
        if n_more > full_sweeps:
            more = {"ar_sweeps": ar_sweeps, "full_sweeps": n_more}
            found.runs["longer"] = start(options, "ours", data, place / "longer", **more)
    found.notes += notes_of(found)
    return found


def schedule(options: argparse.Namespace, n_frames: int) -> tuple[int, int]:
    """AR and full sweeps at a size."""
    if options.sweeps:
        return max(SETTLED + 1, options.sweeps // 2), options.sweeps
    if n_frames <= 50_000:
        return 50, 100
    return (20, 30) if n_frames <= 200_000 else (10, 10)


def affordable(ours: Run, seconds: float, ar_sweeps: int) -> int:
    """Full sweeps of ours that fit into a time, all else included; 0 when nothing is known."""
    rest = ours.value("labelled") - ours.typical("full") * len(ours.sweeps("full"))
    n_sweeps = (seconds - rest) / ours.typical("full")
    return int(n_sweeps) if np.isfinite(n_sweeps) else 0


def notes_of(found: Comparison) -> list[str]:
    """What a reader should know besides the numbers."""
    notes = []
    for name, run in found.runs.items():
        if run.failure:
            done = f"{len(run.sweeps('ar'))} AR and {len(run.sweeps('full'))} full sweeps done"
            notes.append(f"{name}: {run.failure}; {done}")
    longer, published = found.runs.get("longer"), found.runs.get("published")
    if longer:
        again = (longer.typical(stage) / found.n_frames * 1e6 for stage in ("ar", "full"))
        text = "ours again, after the published package: AR {:.2f}, full {:.2f} us/frame, {:.0f} MB"
        notes.append(text.format(*again, longer.peak()))
    if published and not published.value("labelled", "is_finite") > 0 and not published.failure:
        notes.append("published: ended with NaN")
    if published and np.isfinite(published.value("centroid")):
        calls = {
            name: [e["seconds"] for e in published.events if e["event"] == f"centroid {name}"]
            for name in ("serial", "shipped")
        }
        serial, shipped = (
            ", then ".join(
                [f"{s:.2f} s" for s in seconds]
                + ["no result within the centroid limit"] * (len(seconds) < 2)
            )
            for seconds in calls.values()
        )
        notes.append(
            f"published: two calls of its centroid step alone take {serial} run serially, as in "
            f"the sweeps above; as shipped {shipped}"
        )
    return notes


def saved(path: Path, found: list[Comparison]) -> None:
    """All numbers, as JSON."""
    whole = [asdict(one) | {"table": one.rows()} for one in found]
    path.write_text(json.dumps(whole, indent=1) + "\n")


def parsed() -> argparse.Namespace:
    """Options of the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    temporary = Path(tempfile.gettempdir())
    parser.add_argument("--sizes", type=int, nargs="+", default=[50_000, 200_000, 1_000_000])
    parser.add_argument("--sessions", type=int, default=10, help="they share the frames")
    parser.add_argument("--sweeps", type=int, help="full sweeps, and half as many AR sweeps; "
                        "default: 50 AR + 100 full to 50,000 frames, 20 + 30 to 200,000, "
                        "then 10 + 10")  # fmt: skip
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--generator", default=ROOT.parent / "shared" / "bench" / "simulate.py")
    parser.add_argument("--environment", default=temporary / "compare-keypoint-moseq")
    parser.add_argument("--package", default="keypoint-moseq", help="as for pip install")
    parser.add_argument("--only", choices=("ours", "published"))
    parser.add_argument("--no-second-fit", action="store_true",
                        help="leave out our fit of the length of theirs")  # fmt: skip
    parser.add_argument("--limit", type=float, default=45, help="minutes of one run")
    parser.add_argument("--centroid-limit", type=float, default=3,
                        help="minutes for the centroid step as shipped")  # fmt: skip
    parser.add_argument("--json", type=Path, help="file for all numbers")
    parser.add_argument("--run", choices=("ours", "published"), help=argparse.SUPPRESS)
    parser.add_argument("--as-shipped", action="store_true", help=argparse.SUPPRESS)
    for name in ("data", "folder"):
        parser.add_argument(f"--{name}", help=argparse.SUPPRESS)
    for name in ("began", "stop-at"):
        parser.add_argument(f"--{name}", type=float, default=0.0, help=argparse.SUPPRESS)
    for name in ("ar-sweeps", "full-sweeps", "pieces"):
        parser.add_argument(f"--{name}", type=int, default=1, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.sweeps is not None and options.sweeps <= SETTLED:
        parser.error(f"--sweeps: give more than {SETTLED}")
    if not options.run and not Path(options.generator).is_file():
        parser.error(f"--generator: there is no file {options.generator}")
    return options


def main() -> None:
    """Compare, or be the process of a side."""
    options = parsed()
    if options.run:
        log = Log(Path(options.folder) / "events", options.began)
        (run_ours if options.run == "ours" else run_published)(options, log)
        return
    print(
        f"{os.cpu_count()} CPU cores, load {os.getloadavg()[0]:.1f} at the start; {N} states, {M} "
        f"latent dims, {LAGS} lags, {options.sessions} sessions, seed {options.seed}\n"
    )
    if options.only != "published":
        names = ("kpms_zarr", "jax", "numpy")
        print(f"- ours: {versions(sys.executable, *names)}, float32")
    if options.only != "ours":
        names = ("keypoint-moseq", "jax-moseq", "jax", "numpy")
        print(f"- published: {versions(published_python(options), *names)}, float64")
    print("\n| frames | what | published | ours | ratio |\n| --- | --- | --- | --- | --- |")
    found: list[Comparison] = []
    for n_frames in options.sizes:
        with tempfile.TemporaryDirectory() as place:
            found.append(compare(options, n_frames, Path(place)))
        for row in found[-1].rows():
            print("|", " | ".join((f"{found[-1].n_frames:,}", *row)), "|", flush=True)
        if options.json:
            saved(options.json, found)
    print()
    for one in found:
        for note in one.notes:
            print(f"- {one.n_frames:,} frames: {note}")


if __name__ == "__main__":
    main()
