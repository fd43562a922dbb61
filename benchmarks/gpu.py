"""Fits on a GPU: whether it draws what a CPU draws, how fast, what waits, and how much memory.

    python benchmarks/gpu.py --prepare                 # first, where there is a network: installs
    python benchmarks/gpu.py [--limit-minutes 8] [--out gpu-results]

Everything is made up or installed here: sessions are simulated, and where JAX sees no NVIDIA GPU
although one is there, the wheels of its CUDA plugin are put into a folder of their own (`--wheels`;
`--find-links FOLDER` takes them from a folder, without a network). What cannot be installed is said
and left out. Each part runs in a process of its own within its own limit, so that one that fails or
hangs leaves the others; results are printed as they come, as Markdown, and kept in `--out`
(`results.md`, `results.json`). Without a GPU all of it runs on the CPU, smaller: a rehearsal, which
says so. Nothing is asserted.

    agreement   one sweep of the full model from one state, with many seeds, on CPU and device:
                Welch's test of some 60 means of the draws, against a Bonferroni limit, and the same
                of a device that is given a wrong noise variance, which must be told apart. Labels
                with the same seed, frame by frame. The same bits twice on the device, and with the
                state at home on the host.
    speed       us a frame of sweeps of both stages (counting of labels and draw of the parameters
                included), the share of the time in which the device waits, peak of its memory
                against the plan, with the state at home on the device and on the host
    tiles       one tile of several shapes, with XLA gathering kernels into CUDA graphs or not: the
                time of a launch, which `gpu_bound.py` takes for granted
    published   sweeps of the published package on the same device, as it is shipped
"""

import argparse
import hashlib
import json
import os
import subprocess
import sys
import tempfile
import time
import venv
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
N, M, LAGS, K, D, SESSIONS = 100, 4, 3, 8, 2, 10
NOISE, STEP, DOF = 4.0, 0.5, 5
WRONG = 1.03
"""Factor of the noise variance of the wrong twin."""
SIZES = {"whole": (100_000, 1_000_000, 10_000_000), "reduced": (20_000, 50_000, 100_000)}
SHAPES = {
    "whole": ("200x256", "2048x256", "8192x256", "8192x64", "32768x64"),
    "reduced": ("48x256", "192x64"),
}
FLAGS = {
    "as JAX has it": "",
    "no CUDA graphs": "--xla_gpu_enable_command_buffer=",
    "loops in CUDA graphs": "--xla_gpu_enable_command_buffer=FUSION,CUBLAS,CUBLASLT,CUSTOM_CALL,"
    "CONDITIONAL,WHILE",
}
PUBLISHED_FRAMES, PUBLISHED_SWEEPS = 100_000, 6
_BLOCK = 65_536
"""Frames that are put into a chain at once: what the device takes at once."""


# ------------------------------------------------------------------ a study that is made up


@dataclass
class Truth:
    """A simulated study: (report, frame, ...) arrays, and what they were drawn given."""

    z: np.ndarray
    x: np.ndarray
    v: np.ndarray
    h: np.ndarray
    s: np.ndarray
    y: np.ndarray
    parameters: Any
    observation: Any


def simulated(n_frames: int, n_states: int, seed: int = 0) -> Truth:
    """Ten sessions of so many frames each, all drawn side by side."""
    from kpms_zarr.compute.kernels.dynamics import Dynamics
    from kpms_zarr.compute.kernels.pose import PoseMap
    from kpms_zarr.compute.sampler.full_model import Observation
    from kpms_zarr.compute.sampler.tile_model import Parameters

    g = np.random.default_rng(seed)
    weight = np.zeros((n_states, M, M * LAGS))
    for state in range(n_states):
        turn = np.eye(M) + 0.3 * np.triu(g.normal(size=(M, M)), 1)
        q, r = np.linalg.qr(turn - np.triu(turn, 1).T)
        weight[state, :, -M:] = 0.95 * q * np.sign(np.diagonal(r))
    bias = 0.3 * g.normal(size=(n_states, M, 1))
    covariance = np.tile(0.1 * np.eye(M), (n_states, 1, 1))
    transition = 0.92 * np.eye(n_states) + 0.08 * g.dirichlet(np.ones(n_states), n_states)
    usage = np.full(n_states, 1 / n_states)
    dynamics = Dynamics(np.concatenate([weight, bias], -1), covariance)
    b, each = SESSIONS, np.arange(SESSIONS)
    z = np.full((b, n_frames), -1, np.int16)
    x = np.sqrt(10) * g.normal(size=(b, n_frames, M))
    noise = np.sqrt(0.1) * g.normal(size=x.shape)
    cumulative = transition.cumsum(1)
    state = g.integers(n_states, size=b)
    for t in range(LAGS, n_frames):
        state = (cumulative[state] < g.random((b, 1))).sum(1).clip(max=n_states - 1)
        z[:, t] = state
        x[:, t] = np.einsum("bij,bj->bi", weight[state][..., -M:], x[:, t - 1])
        x[:, t] += bias[state][each, :, 0] + noise[:, t]
    h = np.cumsum(0.1 * g.normal(size=(b, n_frames)), 1)
    h = np.angle(np.exp(1j * h))
    v = np.cumsum(np.sqrt(STEP) * g.normal(size=(b, n_frames, D)), 1)
    loading, mean = 3 * g.normal(size=(K, D, M)), 20 * g.normal(size=(K, D))
    loading, mean = loading - loading.mean(0), mean - mean.mean(0)
    s = DOF / g.chisquare(DOF, (b, n_frames, K))
    pose = np.einsum("kdm,btm->btkd", loading, x) + mean
    cos, sin = np.cos(h)[..., None], np.sin(h)[..., None]
    placed = [cos * pose[..., 0] - sin * pose[..., 1], sin * pose[..., 0] + cos * pose[..., 1]]
    y = np.stack(placed, -1) + v[:, :, None]
    y = y + np.sqrt(NOISE * s)[..., None] * g.normal(size=y.shape)
    y[g.random(y.shape[:3]) < 0.02] = np.nan
    observation = Observation(PoseMap(loading, mean), np.full(K, NOISE), STEP)
    return Truth(z, x, v, h, s, y, Parameters(dynamics, usage, transition), observation)


class Bench:
    """A chain of a study of any length, whose state can be put back to where it began.

    Parameters
    ----------
    n_frames : int
        Of all sessions; the simulated ones are repeated until they are that long.
    home : str
        Where the state lies.
    tile_frames : int, optional
        Default: those of the device.
    """

    def __init__(
        self, n_frames: int, n_states: int, home: str, truth: Truth, tile_frames: int | None = None
    ) -> None:
        from kpms_zarr.compute.config import Budget, FitConfig
        from kpms_zarr.compute.runs.plan import Needs, chain_index, make_plan, settle_tiles
        from kpms_zarr.compute.runs.stages import make_sweeper, pipeline_of
        from kpms_zarr.compute.sampler.chain import Chain
        from kpms_zarr.compute.sampler.placement import HostRows, make_rows
        from kpms_zarr.store.core.access import Session

        length = n_frames // SESSIONS
        sessions = [Session(f"s{i}", i, length, 30.0) for i in range(SESSIONS)]
        config = FitConfig(tile_frames=tile_frames)
        self.config = settle_tiles(
            config.resolved(n_states=n_states, latent_dim=M, lags=LAGS, noise_dof=DOF)
        )
        index = chain_index(sessions, self.config)
        needs = Needs(index=index, config=self.config, n_latent=M, n_keypoints=K, n_space=D)
        self.plan = make_plan(needs, Budget(home=home))
        self.truth, self.length = truth, length
        shape = (index.n_frames, K * (D + 1))
        on_device = home == "device"
        observed = (
            make_rows("device", "data", "float32", shape)
            if on_device
            else HostRows(np.empty(shape, np.float32))
        )
        self.chain = Chain(
            index, n_latent=M, n_space=D, dtype="float32", n_keypoints=K, home=home,
            observed=observed,
        )  # fmt: skip
        self.sweeper = make_sweeper(
            self.chain, self.config, pipeline_of(self.plan.tiles_in_flight, lambda event: None)
        )
        self.fill(data=True)

    def fill(self, *, data: bool = False) -> None:
        """Put the state back to what was simulated; ``data``: the tracked positions as well."""
        t, known = self.truth, self.truth.z.shape[1]
        block = known * max(1, _BLOCK // known)
        for row, first in enumerate(self.chain.index.first.tolist()):
            for start in range(0, self.length, block):
                at = np.arange(start, min(start + block, self.length))
                frames, which = slice(first + at[0], first + at[-1] + 1), at % known
                local = [t.x[row, which], t.v[row, which], t.h[row, which, None], t.s[row, which]]
                self.chain.local[frames] = np.concatenate(local, -1).astype(np.float32)
                # Frames without a label begin a session only.
                labels = t.z[row, which]
                self.chain.syllable[frames] = np.where((labels < 0) & (at >= LAGS), 0, labels)
                if data:
                    y = t.y[row, which].reshape(len(at), K * D)
                    both = np.concatenate([y, np.ones((len(at), K))], -1)
                    self.chain.observed[frames] = both.astype(np.float32)

    def model(self, stage: str, factor: float = 1.0) -> Any:
        """Tile model of a stage; ``factor``: of the noise variance."""
        from kpms_zarr.compute.runs.plan import fixed_settings
        from kpms_zarr.compute.sampler.ar_model import ArModel
        from kpms_zarr.compute.sampler.full_model import FullModel

        if stage == "ar":
            return ArModel()
        given = self.truth.observation
        return FullModel(
            observation=given._replace(noise_variance=factor * given.noise_variance),
            settings=fixed_settings(self.config, fix_heading=False),
        )


# ------------------------------------------------------------------ parts, in their own processes


def part_facts(given: dict[str, Any], tell: Callable[..., None]) -> None:
    """What is here: versions, devices, and how fast and wide they are."""
    import jax
    import jax.numpy as jnp

    from kpms_zarr.compute.memory import device_memory, size

    device = device_memory()[0]
    a = jnp.ones((4096, 4096), jnp.float32)
    product = jax.jit(lambda a: jnp.matmul(a, a, precision=jax.lax.Precision.HIGHEST))
    long = jnp.ones(2**27 if device.platform != "cpu" else 2**24, jnp.float32)
    copy = jax.jit(lambda a: a + 1)
    seconds = [best_of(lambda: product(a)), best_of(lambda: copy(long))]
    tell(
        jax=jax.__version__, platform=device.platform, kind=device.kind,
        memory=None if device.limit is None else size(device.limit),
        gflops=2 * 4096**3 / seconds[0] / 1e9, bandwidth=2 * long.nbytes / seconds[1] / 1e9,
        launch=best_of(lambda: copy(a[:8, :8])) * 1e6,
    )  # fmt: skip


def best_of(function: Callable[[], Any], repeats: int = 7) -> float:
    """Seconds of the fastest call, after one that compiles."""
    import jax

    jax.block_until_ready(function())
    times = []
    for _ in range(repeats):
        began = time.perf_counter()
        jax.block_until_ready(function())
        times.append(time.perf_counter() - began)
    return min(times)


def part_draws(given: dict[str, Any], tell: Callable[..., None]) -> None:
    """One sweep of the full model from one state, with many seeds."""
    from dataclasses import replace

    truth = simulated(given["n_frames"] // SESSIONS, given["n_states"])
    sizes = given["n_frames"], given["n_states"]
    bench = Bench(*sizes, given["home"], truth, given.get("tile_frames"))
    with bench.chain as chain:
        for factor, seed in given["runs"]:
            bench.fill()
            sweeper = replace(bench.sweeper, seed=seed)
            result = sweeper.sweep(bench.model("full", factor), truth.parameters, 1)
            z, local = np.asarray(chain.syllable), np.asarray(chain.local)
            if seed == given["keep"]:
                np.savez(given["labels"], z=z)
            moments = result.sums.moments
            digest = hashlib.sha256(z.tobytes() + local.tobytes() + moments.tobytes()).hexdigest()
            values = functions(bench, z, local, result)
            tell(seed=seed, factor=factor, digest=digest, values=values)


def functions(bench: Bench, z: np.ndarray, local: np.ndarray, result: Any) -> dict[str, float]:
    """Means over the frames of a draw, by name."""
    t, n = bench.truth, bench.length
    shape = (SESSIONS, n)
    x, v, h, s = np.split(local.reshape(*shape, -1).astype(np.float64), [M, M + D, M + D + 1], -1)
    true = [part[:, :n] for part in (t.x, t.v, t.h, t.s)]
    found: dict[str, float] = {}

    def add(name: str, values: np.ndarray) -> None:
        flat = np.asarray(values, np.float64)
        for i, column in enumerate(flat.reshape(-1, flat.shape[-1]).mean(0)):
            found[f"{name}[{i}]"] = float(column)

    z = z.reshape(shape)
    add("x", x)
    add("x square", np.square(x))
    add("x error square", np.square(x - true[0]))
    add("x lag 1", x[:, 1:] * x[:, :-1])
    add("x step square", np.square(np.diff(x, axis=1)))
    add("v error", v - true[1])
    add("v error square", np.square(v - true[1]))
    add("v step square", np.square(np.diff(v, axis=1)))
    turned = h[..., 0] - true[2]
    add("heading", np.stack([np.cos(turned), np.sin(turned), np.square(np.sin(turned))], -1))
    add("log s", np.log(s))
    add("log s square", np.square(np.log(s)))
    add("labels kept", (z == t.z[:, :n])[:, LAGS:, None])
    add("switches", (np.diff(z[:, LAGS:], axis=1) != 0)[..., None])
    counts = np.bincount(z[:, LAGS:].ravel(), minlength=bench.config.n_states)
    add("label square", np.square(counts / counts.sum())[:, None])
    ratio = result.sums.noise_square / result.sums.noise_count
    add("noise", ratio[None])
    found |= {f"log p {name}": value for name, value in result.terms.items()}
    return found


def part_speed(given: dict[str, Any], tell: Callable[..., None]) -> None:
    """Sweeps of both stages: times, waiting, memory."""
    import jax

    from kpms_zarr.compute.memory import peak_resident_memory
    from kpms_zarr.compute.runs.stages import stages_of

    n_frames, n_states = given["n_frames"], given["n_states"]
    bench = Bench(n_frames, n_states, given["home"], simulated(2_000, n_states))
    plan, sweeper = bench.plan, bench.sweeper
    tell(
        plan={"tiles": plan.n_tiles, "segments": plan.n_segments, "frames": plan.n_segment_frames,
              "in_flight": plan.tiles_in_flight, "device_bytes": plan.device_bytes,
              "host_bytes": plan.host_bytes},
    )  # fmt: skip
    with bench.chain as chain:
        parameters, number = bench.truth.parameters, 0
        for stage in stages_of(bench.config, chain):
            times, waits = [], []
            for _ in range(given["sweeps"]):
                number += 1
                began = time.perf_counter()
                sweeper.pipeline.meter.restart()
                result = sweeper.sweep(bench.model(stage.name), parameters, number)
                parameters = stage.prior.draw(
                    0, number, moments=result.sums.moments, transitions=result.counts.transitions,
                    weight_bias=parameters.dynamics.weight_bias, usage=parameters.usage,
                )  # fmt: skip
                waits.append(sweeper.pipeline.meter.restart())
                times.append(time.perf_counter() - began)
            stats = jax.local_devices()[0].memory_stats() or {}
            tell(
                stage=stage.name, seconds=times, waiting=waits, repeated=result.sums.n_repeated,
                peak_device=stats.get("peak_bytes_in_use"), peak_host=peak_resident_memory(),
            )  # fmt: skip


def part_tiles(given: dict[str, Any], tell: Callable[..., None]) -> None:
    """Tiles of several shapes, one at a time."""
    from kpms_zarr.compute.runs.budget import DEFAULT_SETTINGS, TileSizes, time_of_tile
    from kpms_zarr.compute.sampler.segments import TileShape

    for stage in ("ar", "full"):
        for shape in given["shapes"]:
            n_segments, n_frames = (int(n) for n in shape.split("x"))
            sizes = TileSizes(
                TileShape(n_segments, n_frames), given["n_states"], M, LAGS,
                K if stage == "full" else 0, D, "float32",
            )  # fmt: skip
            seconds = time_of_tile(sizes, DEFAULT_SETTINGS, 1)
            tell(stage=stage, shape=shape, seconds=seconds, n_frames=n_segments * n_frames)


def part_sessions(given: dict[str, Any], tell: Callable[..., None]) -> None:
    """Sessions as `compare_keypoint_moseq.py` hands them to the published package."""
    truth = simulated(given["n_frames"] // SESSIONS, given["n_states"])
    arrays: dict[str, np.ndarray] = {}
    for row in range(SESSIONS):
        y, is_missing = truth.y[row], np.isnan(truth.y[row])
        arrays[f"s{row}.coordinates"] = np.where(is_missing, truth.v[row][:, None], y)
        arrays[f"s{row}.confidences"] = np.where(is_missing.any(-1), 0.0, 1.0)
        arrays[f"s{row}.z"] = truth.z[row]
    names = [f"s{row}" for row in range(SESSIONS)]
    np.savez(given["data"], sessions=names, bodyparts=[f"k{k}" for k in range(K)], **arrays)
    tell(done=True)


PARTS = {
    "facts": part_facts,
    "draws": part_draws,
    "speed": part_speed,
    "tiles": part_tiles,
    "sessions": part_sessions,
}


# ------------------------------------------------------------------ what the parent does


@dataclass
class Run:
    """What a process told until it ended; ``problem``: why it did not end well, or empty."""

    told: list[dict[str, Any]] = field(default_factory=list)
    problem: str = ""

    def values(self, name: str) -> Iterator[dict[str, Any]]:
        """What it told that has a certain key."""
        return (one for one in self.told if name in one)


class Report:
    """The run as a whole: time that is left, results so far.

    Parameters
    ----------
    options : Namespace
    """

    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options
        self.out = Path(options.out)
        self.out.mkdir(parents=True, exist_ok=True)
        self._lines: list[str] = []
        self._numbers: dict[str, Any] = {}
        self._ends = 0.0
        self.environment = dict(os.environ)
        self.site = ""
        self.platform = options.platform or ""

    def start(self) -> None:
        """Start the clock: what was installed before does not count."""
        self._ends = time.monotonic() + 60 * self.options.limit_minutes

    def left(self) -> float:
        """Seconds that are left."""
        return self._ends - time.monotonic()

    def say(self, line: str = "") -> None:
        """Print a line of the results, and keep it."""
        print(line, flush=True)
        self._lines.append(line)
        (self.out / "results.md").write_text("\n".join(self._lines) + "\n")

    def keep(self, name: str, value: Any) -> None:
        """Keep numbers."""
        self._numbers[name] = value
        text = json.dumps(self._numbers, indent=1, default=float)
        (self.out / "results.json").write_text(text + "\n")

    def run(
        self, part: str, seconds: float, *, platform: str | None = None, flags: str = "",
        **given: Any,
    ) -> Run:  # fmt: skip
        """Run a part in a process of its own, for so many seconds at most."""
        seconds = min(seconds, self.left() - 2)
        if seconds < 8:
            return Run(problem="left out: no time was left")
        variables = self.environment | {
            "PYTHONPATH": os.pathsep.join(
                [str(ROOT), *filter(None, [self.environment.get("PYTHONPATH")])]
            ),
            "JAX_COMPILATION_CACHE_DIR": str(self.out / "cache"),
            "TF_CPP_MIN_LOG_LEVEL": "2",
        }
        platform = platform or self.platform
        if platform:
            variables["JAX_PLATFORMS"] = platform
        if flags:
            variables["XLA_FLAGS"] = f"{variables.get('XLA_FLAGS', '')} {flags}".strip()
        command = [sys.executable, str(Path(__file__).resolve()), f"--part={part}"]
        command += [f"--site={self.site}"] if self.site else []
        return launched([*command, f"--given={json.dumps(given)}"], variables, seconds)


def launched(command: list[str], variables: dict[str, str], seconds: float) -> Run:
    """Run a command that tells lines of JSON."""
    with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as errors:
        process = subprocess.Popen(command, env=variables, stdout=out, stderr=errors)
        problem = ""
        try:
            process.wait(seconds)
        except subprocess.TimeoutExpired:
            problem = f"stopped after {seconds:.0f} s"
        finally:
            process.kill()
            process.wait()
        out.seek(0)
        lines = [line for line in out.read().splitlines(keepends=True) if line.endswith("}\n")]
        if process.returncode and not problem:
            errors.seek(0)
            said = errors.read().strip().splitlines() or ["no message"]
            problem = f"ended with code {process.returncode}: {said[-1][:300]}"
    return Run([json.loads(line) for line in lines if line.startswith("{")], problem)


def install(wanted: list[str], place: Path, options: argparse.Namespace) -> str:
    """Install wheels with all they need into an environment; returns why that failed, or ""."""
    python = place / "bin" / "python"
    if (place / ".complete").exists():
        return ""
    print(f"installing {', '.join(wanted)} in {place} ...", file=sys.stderr, flush=True)
    command = [str(python), "-I", "-m", "pip", "install", "-qq", "--no-compile", "--timeout", "20",
               "--retries", "1"]  # fmt: skip
    if options.find_links:
        command += ["--no-index", f"--find-links={options.find_links}"]
    try:
        venv.create(place, with_pip=True)
        done = subprocess.run(
            [*command, *wanted], capture_output=True, text=True, timeout=options.install_limit * 60
        )
    except (OSError, subprocess.SubprocessError) as error:
        return f"{type(error).__name__}: {error}"[:200]
    if done.returncode:
        lines = [line for line in done.stderr.splitlines() if line.startswith("ERROR")]
        return (lines or [f"pip ended with code {done.returncode}"])[-1][:200]
    (place / ".complete").touch()
    return ""


def cuda_extra() -> str | None:
    """Extra of jax for the NVIDIA GPU of this machine; None where there is none."""
    sys.path.insert(0, str(ROOT))
    from kpms_zarr.diagnosis import find_gpu

    gpu = find_gpu()
    if not (gpu.has_device_file or gpu.has_nvidia_smi):
        return None
    major = int(gpu.driver.split(".")[0]) if gpu.driver else 0
    return "cuda13" if major >= 580 else "cuda12"


def prepare(report: Report) -> str:
    """Make sure that JAX sees the GPU, where there is one; returns what is to be said of it."""
    options = report.options
    if options.platform:
        return f"on {options.platform}, as asked"
    extra = cuda_extra()
    if extra is None:
        return "no NVIDIA GPU is here"
    import importlib.util
    from importlib import metadata

    if importlib.util.find_spec(f"jax_{extra}_plugin"):
        return f"{extra} is installed"
    place = Path(options.wheels) / extra
    problem = install([f"jax[{extra}]=={metadata.version('jax')}"], place, options)
    if problem:
        return f"a GPU is here, but jax[{extra}] could not be installed ({problem})"
    (packages,) = place.glob("lib/python*/site-packages")
    report.site = str(packages)
    return f"jax[{extra}] was installed in {place.name}/"


def published_place(options: argparse.Namespace) -> tuple[Path, list[str]]:
    """Environment of the published package, and what goes into it."""
    extra = None if options.platform == "cpu" else cuda_extra()
    name = f"published-{extra or 'cpu'}"
    return Path(options.wheels) / name, [options.package, *([f"jax[{extra}]"] if extra else [])]


def main() -> None:
    """Run all parts, or be the process of one."""
    options = parsed()
    if options.part:
        if options.site:  # behind this environment, so that only what it lacks is taken from there
            sys.path.append(options.site)
        given = json.loads(options.given)

        def tell(**values: Any) -> None:
            print(json.dumps(values, default=float), flush=True)

        PARTS[options.part](given, tell)
        return
    report = Report(options)
    said = prepare(report)
    if options.prepare:
        print(said)
        print(install(*reversed(published_place(options)), options) or "published package: there")
        return
    report.start()
    found = report.run("facts", 60)
    if not found.told:
        raise SystemExit(f"JAX does not work here: {found.problem}; see kpms-zarr doctor")
    facts = found.told[-1]
    report.keep("facts", facts)
    is_cpu = facts["platform"] == "cpu"
    is_reduced = options.reduced or is_cpu
    kind = "reduced" if is_reduced else "whole"
    n_states = 20 if is_reduced else N
    report.say(f"# kpms_zarr on {facts['kind']} ({facts['platform']})\n")
    if is_cpu:
        report.say("**A rehearsal on the CPU, at reduced sizes: no GPU was measured.**\n")
    report.say(
        f"{said}; jax {facts['jax']}, {facts['memory'] or 'memory of the host'}, "
        f"{facts['gflops']:,.0f} GFLOP/s in float32 products, {facts['bandwidth']:,.0f} GB/s in "
        f"streams, {facts['launch']:.1f} us for a call of one small kernel; {n_states} states, {M} "
        f"latent dims, {LAGS} lags, {K} keypoints, {D}-D, {SESSIONS} sessions."
    )
    agreement(report, n_states, is_reduced)
    speed(report, n_states, SIZES[kind])
    tiles(report, n_states, SHAPES[kind], is_cpu)
    published(report, is_reduced, is_cpu)
    report.say(f"\nAll in all {60 * options.limit_minutes - report.left():.0f} s.")


def agreement(report: Report, n_states: int, is_reduced: bool) -> None:
    """Whether the device draws from the distribution that the CPU draws from."""
    from scipy.stats import ttest_ind

    report.say("\n## Agreement\n")
    n_frames, n = (5_000, 12) if is_reduced else (20_000, 30)
    seeds = list(range(n))
    on_cpu = [(1.0, seed) for seed in seeds]
    # Seed 0 is that of the CPU, and comes twice; the others are new, so that draws are independent.
    on_device = [(1.0, 0), (1.0, 0), *((1.0, n + seed) for seed in seeds)]
    on_device += [(WRONG, 2 * n + seed) for seed in seeds]
    given = {"n_frames": n_frames, "n_states": n_states, "keep": 0}
    runs = {}
    for name, platform, home, plan, more in (
        ("cpu", "cpu", "host", on_cpu, {}),
        ("device", None, "device", on_device, {}),
        ("host", None, "host", on_device[:1], {}),
        ("narrow", None, "device", on_device[:1], {"tile_frames": 2_048}),
    ):
        labels = str(report.out / f"labels-{name}.npz")
        runs[name] = report.run(
            "draws", 90, platform=platform, home=home, runs=plan, labels=labels, **given, **more
        )
        if runs[name].problem:
            report.say(f"- {name}: {runs[name].problem}")
    report.keep("draws", {name: run.told for name, run in runs.items()})
    cpu, device, host = (list(runs[name].values("values")) for name in ("cpu", "device", "host"))
    right = [one["values"] for one in device if one["factor"] == 1 and one["seed"] >= n]
    wrong = [one["values"] for one in device if one["factor"] != 1]
    mine = [one["values"] for one in cpu]
    for what, others in (("device", right), (f"device, noise variance x {WRONG}", wrong)):
        if min(len(mine), len(others)) < 3:
            report.say(f"- {what}: too few draws")
            continue
        names = sorted(mine[0])
        tested = {
            name: ttest_ind([a[name] for a in mine], [b[name] for b in others], equal_var=False)
            for name in names
        }
        worst = min(names, key=lambda name: tested[name].pvalue)
        limit = min(1.0, float(tested[worst].pvalue) * len(names))
        report.say(
            f"- CPU against {what}: {len(names)} means of {len(mine)} and {len(others)} sweeps; "
            f"farthest apart is `{worst}` (t {tested[worst].statistic:.1f}, p {limit:.2g} of all "
            f"of them): {'as one distribution' if limit > 0.01 else '**told apart**'}"
        )
    digests = [one["digest"] for one in device if one["seed"] == 0]
    if len(digests) == 2:
        report.say(f"- the same bits twice on the device: {_yes(digests[0] == digests[1])}")
    if digests and host:
        report.say(
            f"- the same with the state on the host: {_yes(digests[0] == host[0]['digest'])}"
        )
    files = {name: report.out / f"labels-{name}.npz" for name in ("cpu", "device", "narrow")}
    kept = {name: np.load(file)["z"] for name, file in files.items() if file.exists()}
    for a, b, what in (
        ("cpu", "device", "on CPU and device"),
        ("device", "narrow", "on the device in its tiles and in tiles of 2,048 frames"),
    ):
        if a in kept and b in kept:
            share = float((kept[a] == kept[b])[kept[a] >= 0].mean())
            report.say(f"- labels of the same seed {what}: {share:.4%} are the same")


def _yes(is_so: bool) -> str:
    return "yes" if is_so else "**no**"


def speed(report: Report, n_states: int, sizes: tuple[int, ...]) -> None:
    """Sweeps by number of frames and home of the state."""
    report.say("\n## Sweeps\n")
    head = ["frames", "state on", "tiles", "stage", "us a frame", "first sweep, s", "device waits",
            "device memory, peak of plan", "host memory, peak of plan"]  # fmt: skip
    report.say("| " + " | ".join(head) + " |\n|" + " --- |" * len(head))
    everything: dict[str, Any] = {}
    plans = [(n, "device") for n in sizes] + [(n, "host") for n in sizes]
    plans = [*plans[:3], plans[4], plans[3], plans[5]]
    for n_frames, home in plans:
        found = report.run("speed", 75, n_frames=n_frames, n_states=n_states, home=home, sweeps=5)
        everything[f"{n_frames} {home}"] = found.told
        report.keep("speed", everything)
        plan = next(found.values("plan"), {"plan": None})["plan"]
        for one in found.values("stage"):
            typical = float(np.median(one["seconds"][2:])) / n_frames * 1e6
            device = "-" if one["peak_device"] is None else _of(one["peak_device"],
                                                                plan["device_bytes"])  # fmt: skip
            row = [
                f"{n_frames:,}", home, f"{plan['tiles']} of {plan['segments']} x {plan['frames']}",
                one["stage"], f"{typical:.3f}", f"{one['seconds'][0]:.1f}",
                f"{np.median(one['waiting'][2:]):.0%}", device,
                _of(one["peak_host"], plan["host_bytes"]),
            ]  # fmt: skip
            report.say("| " + " | ".join(row) + " |")
        if found.problem:
            report.say(f"| {n_frames:,} | {home} | {found.problem} |" + " |" * (len(head) - 3))


def _of(peak: float, planned: float) -> str:
    return f"{peak / 1e9:.2f} of {planned / 1e9:.2f} GB"


def tiles(report: Report, n_states: int, shapes: tuple[str, ...], is_cpu: bool) -> None:
    """Tiles by shape, and by how XLA launches kernels."""
    report.say("\n## One tile at a time, us a frame\n")
    report.say(
        "| launches | stage | " + " | ".join(shapes) + " |\n|" + " --- |" * (2 + len(shapes))
    )
    everything = {}
    for name, flags in FLAGS.items():
        if is_cpu and flags:
            continue
        found = report.run("tiles", 80, flags=flags, shapes=shapes, n_states=n_states)
        everything[name] = found.told
        report.keep("tiles", everything)
        for stage in ("ar", "full"):
            times = {one["shape"]: one["seconds"] / one["n_frames"] * 1e6
                     for one in found.values("shape") if one["stage"] == stage}  # fmt: skip
            shown = [f"{times[shape]:.3f}" if shape in times else "-" for shape in shapes]
            report.say(f"| {name} | {stage} | " + " | ".join(shown) + " |")
        if found.problem:
            report.say(f"| {name} | {found.problem} |" + " |" * len(shapes))


def published(report: Report, is_reduced: bool, is_cpu: bool) -> None:
    """Sweeps of the published package, as it is shipped, on the same device."""
    report.say("\n## The published package\n")
    options = report.options
    if is_cpu:
        report.say("left out on a CPU, where `compare_keypoint_moseq.py` measures it")
        return
    place, wanted = published_place(options)
    options.install_limit = min(options.install_limit, max(0.0, report.left() - 90) / 60)
    problem = "left out, as asked" if options.no_published else install(wanted, place, options)
    if problem:
        report.say(f"not measured: {' '.join(wanted)} is not here ({problem})")
        return
    n_frames = 10_000 if is_reduced else PUBLISHED_FRAMES
    with tempfile.TemporaryDirectory() as folder:
        data = str(Path(folder) / "data.npz")
        made = report.run("sessions", 60, platform="cpu", n_frames=n_frames, n_states=N, data=data)
        if made.problem:
            report.say(f"not measured: {made.problem}")
            return
        script = Path(__file__).resolve().parent / "compare_keypoint_moseq.py"
        given = {"data": data, "folder": folder, "ar-sweeps": PUBLISHED_SWEEPS,
                 "full-sweeps": PUBLISHED_SWEEPS, "began": time.time()}  # fmt: skip
        command = [str(place / "bin" / "python"), "-I", str(script), "--run=published"]
        command += [f"--{name}={value}" for name, value in given.items()]
        variables = report.environment | {"MPLBACKEND": "Agg"}
        variables.pop("PYTHONPATH", None)
        if report.platform:
            variables["JAX_PLATFORMS"] = report.platform
        ended = launched([*command, "--as-shipped"], variables, max(8.0, report.left() - 2))
        log = Path(folder) / "events"
        lines = log.read_text().splitlines() if log.exists() else []
    sweeps = [one for one in map(json.loads, lines) if one["event"] == "sweep"]
    report.keep("published", sweeps)
    for stage in ("ar", "full"):
        seconds = [one["seconds"] for one in sweeps if one["stage"] == stage][3:]
        shown = f"{np.median(seconds) / n_frames * 1e6:.2f} us a frame" if seconds else "no sweep"
        report.say(f"- {stage}: {shown} ({n_frames:,} frames, double precision, {len(seconds)} "
                    "sweeps after the first three)")  # fmt: skip
    if ended.problem:
        report.say(f"- {ended.problem}")


def parsed() -> argparse.Namespace:
    """Options of the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--limit-minutes", type=float, default=8, help="of all that is measured")
    parser.add_argument("--reduced", action="store_true", help="small sizes, also on a GPU")
    parser.add_argument("--out", default="gpu-results", help="folder of the results")
    parser.add_argument("--platform", choices=("cpu", "cuda"), help="of JAX; default: a GPU if any")
    parser.add_argument("--prepare", action="store_true", help="install what is needed, and end")
    parser.add_argument("--install-limit", type=float, default=10, help="minutes of one install")
    parser.add_argument("--wheels", help="folder of what is installed",
                        default=Path(tempfile.gettempdir()) / "kpms-zarr-gpu")  # fmt: skip
    parser.add_argument("--find-links", help="folder of wheels, in place of the network")
    parser.add_argument("--package", default="keypoint-moseq", help="as for pip install")
    parser.add_argument("--no-published", action="store_true", help="leave that package out")
    parser.add_argument("--part", choices=sorted(PARTS), help=argparse.SUPPRESS)
    parser.add_argument("--given", help=argparse.SUPPRESS)
    parser.add_argument("--site", help=argparse.SUPPRESS)
    return parser.parse_args()


if __name__ == "__main__":
    main()
