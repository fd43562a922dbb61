"""Diagnosis of this machine: what it offers to a fit, its speed, and what could be better."""

from __future__ import annotations

import ctypes.util
import math
import os
import platform
import re
import shutil
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from kpms_zarr.compute import arithmetic, memory
from kpms_zarr.store.core.provenance import package_version
from kpms_zarr.store.cores import n_cores
from kpms_zarr.store.errors import InputError
from kpms_zarr.store.shown import ShownAsTable

if TYPE_CHECKING:
    from kpms_zarr.compute.cluster.checkup import ClusterReport
    from kpms_zarr.compute.cluster.connect import ClusterLike
    from kpms_zarr.store.core.access import StoreLike

_ROOT = Path("/")
_WIDTH = 13
_PACKAGES = ("jax", "jaxlib", "numpy", "zarr", "xarray", "dask", "s3fs")
_PLUGINS = ("jax-cuda12-plugin", "jax-cuda13-plugin")
_VARIABLES = (
    "CUDA_VISIBLE_DEVICES",
    "JAX_ENABLE_X64",
    "JAX_PLATFORMS",
    "TMPDIR",
    "XLA_PYTHON_CLIENT_MEM_FRACTION",
    "XLA_PYTHON_CLIENT_PREALLOCATE",
)
_LIBRARIES = (
    "usr/lib",
    "usr/lib64",
    "usr/lib/*-linux-gnu",
    "usr/lib/wsl/lib",
    "usr/local/nvidia/lib64",
)
"""Where the library of a driver lies."""
_CUDA13_DRIVER, _CUDA12_DRIVER = 580, 525

N_STATES, N_LATENT, LAGS, N_KEYPOINTS, N_SPACE = 100, 4, 3, 8, 2
_SEGMENTS, _SEGMENT_FRAMES = 48, 256
_TILE_BYTES = 50_000_000
"""One tile with all that is held meanwhile; rounded up."""
_STUDY_FRAMES = 108_000
_AR_SWEEPS, _FULL_SWEEPS = 50, 200


@dataclass(frozen=True)
class Gpu:
    """Signs of an NVIDIA GPU, whether JAX sees it or not.

    Attributes
    ----------
    has_device_file : bool
        ``/dev/nvidia0`` or another number.
    driver : str or None
        Version of the kernel driver.
    has_nvidia_smi : bool
        Whether the command ``nvidia-smi`` is there.
    plugins : tuple of str
        Installed packages that let JAX use it, with versions.
    has_libcuda : bool
        Whether the library of the driver, ``libcuda.so.1``, is there.
    """

    has_device_file: bool
    driver: str | None
    has_nvidia_smi: bool
    plugins: tuple[str, ...]
    has_libcuda: bool = True


@dataclass(frozen=True)
class Host:
    """Memory and processors.

    Attributes
    ----------
    memory : int
        Of the machine, bytes.
    free_memory : int
        What this process may still take, bytes.
    cgroup_memory, cgroup_free : int or None
        Least limit of the control groups of this process and what is left of it, bytes; None where
        nothing is limited.
    cores : int
        That this process may use, a limit of the control groups rounded up included.
    load : float or None
        Programs of the machine that were computing, mean of the last minute; None where the system
        does not say.
    """

    memory: int
    free_memory: int
    cgroup_memory: int | None
    cgroup_free: int | None
    cores: int
    machine_cores: int
    load: float | None


@dataclass(frozen=True)
class Scratch:
    """The folder of scratch files.

    Attributes
    ----------
    free : int
        Bytes.
    file_system : str or None
        Such as ``"ext4"``; None where the system does not say.
    """

    folder: str
    free: int
    file_system: str | None

    @property
    def is_memory(self) -> bool:
        """Whether files there take memory instead of disk."""
        return self.file_system in ("tmpfs", "ramfs")


@dataclass(frozen=True)
class TileSpeed:
    """Speed of one stage.

    Attributes
    ----------
    frame_microseconds : float
        Per frame and sweep, all threads together.
    """

    frame_microseconds: float
    compile_seconds: float


@dataclass(frozen=True)
class Speed:
    """Result of the speed test: 100 states, 4 latent dimensions, 3 lags, 8 keypoints in 2-D.

    Attributes
    ----------
    threads : int
        Tiles computed at the same time.
    ar, full : TileSpeed or None
        None when not measured.
    sweep_seconds : float or None
        A sweep of the full stage for 1 h of video at 30 frames/s (108,000 frames).
    fit_seconds : float or None
        50 sweeps of the AR stage and 200 of the full stage for the same, without reading and
        writing the store.
    seconds : float
        That the test took.
    problem : str or None
        Why something was not measured.
    """

    threads: int
    ar: TileSpeed | None
    full: TileSpeed | None
    sweep_seconds: float | None
    fit_seconds: float | None
    seconds: float
    problem: str | None


@dataclass(frozen=True)
class DoctorReport(ShownAsTable):
    """Result of :func:`doctor`.

    Attributes
    ----------
    versions : dict of str to (str or None)
        Of kpms_zarr, Python and packages; None = not installed.
    system : str
        ``"Linux"``, ``"WSL2"``, ``"Darwin"`` (macOS) or ``"Windows"``.
    platform : str
        The same in more detail.
    environment : dict of str to str
        Variables that matter, those that are set.
    backend : str or None
        Of JAX: ``"cpu"``, ``"gpu"`` or ``"tpu"``; None when none works.
    backend_problem : str or None
        What JAX said then.
    devices : tuple of DeviceMemory
        The one that fits use first.
    precision : str
        In which fits compute unless told otherwise.
    adds_right : bool or None
        Whether sums of products on the device are what they should be, which those of jaxlib 0.10.2
        are not; None when no device works.
    advice : tuple of str
        What could be better and how; empty when nothing.
    cluster : ClusterReport or None
        What was found on workers, where some were to be looked at.
    """

    versions: dict[str, str | None]
    system: str
    platform: str
    environment: dict[str, str]
    backend: str | None
    backend_problem: str | None
    devices: tuple[memory.DeviceMemory, ...]
    gpu: Gpu
    host: Host
    scratch: Scratch
    precision: str
    speed: Speed
    adds_right: bool | None = None
    advice: tuple[str, ...] = ()
    cluster: ClusterReport | None = None


def doctor(
    seconds: float = 10.0, *, cluster: ClusterLike = None, store: StoreLike | None = None
) -> DoctorReport:
    """Check this machine: versions, devices, memory, disk, speed, and what could be better.

    Parameters
    ----------
    seconds : float
        About how long the speed test may take, s, compilation (some 10 s on a slow machine)
        included; 0 = no speed test.
    cluster : str, path or distributed.Client, optional
        Also look at these workers, as of :func:`kpms_zarr.fit`: whether versions are those of this
        process, which devices and how much memory they have, and how far their clocks are off.
    store : path or URL, optional
        Whether these workers reach it: each reads there what this process writes, and the other way
        round. Nothing stays.

    Returns
    -------
    DoctorReport

    Raises
    ------
    InputError
        For seconds that are none, a cluster or a store that does not answer.
    """
    if not (isinstance(seconds, int | float) and 0 <= seconds < math.inf):
        raise InputError(
            expected="a finite number of seconds, 0 or more",
            found=repr(seconds),
            where="seconds",
            fix="take 10, or 0 for no speed test",
        )
    if store is not None and cluster is None:
        raise InputError(
            expected="workers that shall reach the store",
            found="none",
            where="`store=`",
            fix="add `cluster=`, or leave it out",
        )
    from kpms_zarr.compute.config import FitConfig

    devices, problem = _devices()
    host = _host()
    report = DoctorReport(
        versions=_versions(),
        system=_system(platform.system(), platform.release()),
        platform=platform.platform(),
        environment={name: os.environ[name] for name in _VARIABLES if name in os.environ},
        backend=devices[0].platform if devices else None,
        backend_problem=problem,
        devices=devices,
        gpu=find_gpu(),
        host=host,
        scratch=_scratch(),
        precision=FitConfig().precision,
        speed=_speed(seconds, _threads(host, devices), is_possible=bool(devices)),
        adds_right=arithmetic.adds_right() if devices else None,
    )
    report = replace(report, advice=advise(report))
    if cluster is None:
        return report
    from kpms_zarr.compute.cluster.checkup import check_workers
    from kpms_zarr.compute.cluster.connect import connected

    with connected(cluster) as crew:
        assert crew is not None
        return replace(report, cluster=check_workers(crew, store))


# ------------------------------------------------------------------ facts


def _versions() -> dict[str, str | None]:
    packages = {name: _version(name) for name in _PACKAGES}
    return {"kpms_zarr": package_version(), "Python": platform.python_version(), **packages}


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _system(name: str, release: str) -> str:
    return "WSL2" if name == "Linux" and "microsoft" in release.lower() else name


def _devices() -> tuple[tuple[memory.DeviceMemory, ...], str | None]:
    """The devices, or what keeps JAX from having any."""
    try:
        return memory.device_memory(), None
    except Exception as error:  # whatever is broken is what a doctor is asked about
        return (), _message(error)


def _message(error: Exception) -> str:
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text}"[:500] if text else type(error).__name__


def find_gpu(root: Path = _ROOT) -> Gpu:
    """Look for an NVIDIA GPU without JAX.

    Parameters
    ----------
    root : Path
        Folder that holds ``dev``, ``proc`` and ``usr``; another one for tests.
    """
    try:
        text = (root / "proc/driver/nvidia/version").read_text(errors="replace")
    except OSError:
        text = ""
    driver = re.search(r"NVRM version:.*?\s(\d{3,}(?:\.\d+)+)", text)
    in_wsl = root / "usr/lib/wsl/lib/nvidia-smi"
    has_libcuda = any(file for folder in _LIBRARIES for file in root.glob(f"{folder}/libcuda.so.1"))
    return Gpu(
        has_device_file=any((root / "dev").glob("nvidia[0-9]*")),
        driver=driver[1] if driver else None,
        has_nvidia_smi=bool(shutil.which("nvidia-smi")) or in_wsl.exists(),
        plugins=tuple(f"{name} {_version(name)}" for name in _PLUGINS if _version(name)),
        has_libcuda=has_libcuda or (root == _ROOT and bool(ctypes.util.find_library("cuda"))),
    )


def _host() -> Host:
    cores, quota = n_cores(), cpu_quota()
    return Host(
        memory=memory.total_host_memory(),
        free_memory=memory.free_host_memory(),
        cgroup_memory=memory.cgroup_limit(),
        cgroup_free=memory.cgroup_free(),
        cores=cores if quota is None else max(1, min(cores, math.ceil(quota))),
        machine_cores=os.cpu_count() or 1,
        load=os.getloadavg()[0] if hasattr(os, "getloadavg") else None,
    )


def cpu_quota(root: Path = _ROOT) -> float | None:
    """Processor time that the control groups of this process allow.

    Parameters
    ----------
    root : Path
        Folder that holds ``proc`` and ``sys``; another one for tests.

    Returns
    -------
    float or None
        In cores; None where nothing is limited.
    """
    found = []
    for folder in memory.cgroup_folders(root, "cpu"):
        for files in (["cpu.max"], ["cpu.cfs_quota_us", "cpu.cfs_period_us"]):
            try:
                quota, period = " ".join((folder / name).read_text() for name in files).split()
                found.append(int(quota) / int(period))
            except (OSError, ValueError, ZeroDivisionError):
                continue  # no such file, or "max"
    return min((quota for quota in found if quota > 0), default=None)


def _scratch() -> Scratch:
    folder = tempfile.gettempdir()
    return Scratch(folder, shutil.disk_usage(folder).free, file_system(Path(folder)))


def file_system(folder: Path, root: Path = _ROOT) -> str | None:
    """Kind of the file system of a folder, such as ``"tmpfs"``; None where not known.

    Parameters
    ----------
    root : Path
        Folder that holds ``proc``; another one for tests.
    """
    try:
        lines = (root / "proc/self/mounts").read_text(errors="replace").splitlines()
    except OSError:
        return None
    kind, longest = None, -1
    for line in lines:
        _, place, found = line.split()[:3]
        place = re.sub(r"\\([0-7]{3})", lambda code: chr(int(code[1], 8)), place)
        # Of two at the same place, the later one hides the other.
        if folder.resolve().is_relative_to(place) and len(place) >= longest:
            kind, longest = found, len(place)
    return kind


# ------------------------------------------------------------------ advice


def advise(report: DoctorReport) -> tuple[str, ...]:
    """Advise what could be better, from the facts alone."""
    return (
        *_about_gpu(report),
        *_about_backend(report),
        *_about_sums(report),
        *_about_scratch(report),
        *_about_load(report.host),
    )


def _about_gpu(report: DoctorReport) -> list[str]:
    gpu, variables = report.gpu, report.environment
    if report.system == "Darwin":
        return ["macOS: fits run on the CPU, which is what is supported; do not add jax-metal"]
    if report.backend not in (None, "cpu"):
        names = ("XLA_PYTHON_CLIENT_PREALLOCATE", "XLA_PYTHON_CLIENT_MEM_FRACTION")
        if report.backend not in ("gpu", "cuda") or any(name in variables for name in names):
            return []
        return [
            "JAX takes 75 % of the memory of a GPU for itself at its first use; if others share "
            "the GPU, set XLA_PYTHON_CLIENT_PREALLOCATE=false in the environment"
        ]
    if report.system == "Windows":
        return ["JAX sees no GPU on Windows; use WSL2"] if gpu.has_nvidia_smi else []
    is_there = gpu.has_device_file or (report.system == "WSL2" and gpu.has_nvidia_smi)
    if not is_there:
        if not (gpu.driver or gpu.has_nvidia_smi):
            return []
        return [
            "NVIDIA software is installed but no GPU is within reach (no /dev/nvidia0): on a "
            "cluster, ask for a GPU; start a container with its GPUs (--gpus all)"
        ]
    advice = _hidden(variables)
    if not advice or not gpu.plugins:
        advice.append(_install(report))
    return advice


def _hidden(variables: Mapping[str, str]) -> list[str]:
    """Variables that keep JAX from looking for the GPU."""
    advice = []
    platforms = variables.get("JAX_PLATFORMS", "")
    if platforms and not {"cuda", "gpu"} & set(platforms.split(",")):
        advice.append(
            f"a GPU is there, but JAX_PLATFORMS={platforms} in the environment keeps JAX from it: "
            "unset JAX_PLATFORMS"
        )
    visible = variables.get("CUDA_VISIBLE_DEVICES")
    if visible is not None and visible.strip() in ("", "-1"):
        advice.append(
            f'a GPU is there, but CUDA_VISIBLE_DEVICES="{visible}" in the environment hides it: '
            "unset CUDA_VISIBLE_DEVICES"
        )
    return advice


def _install(report: DoctorReport) -> str:
    """Advise how to let JAX use a GPU that is there."""
    gpu = report.gpu
    major = int(gpu.driver.split(".")[0]) if gpu.driver else None
    seen = "a GPU is there, but JAX does not see it"
    where = ""
    if report.system == "WSL2":
        where = " (in WSL2 the driver is that of Windows: update it there, install none in Linux)"
    if gpu.driver and major is not None and major < _CUDA12_DRIVER:
        return (
            f"{seen}: its driver {gpu.driver} is too old; install {_CUDA13_DRIVER} or newer"
            f"{where}, then {_pip('cuda13')}"
        )
    if gpu.plugins and not gpu.has_libcuda:
        return (
            f"{seen}: {', '.join(gpu.plugins)} is installed, but not libcuda.so.1, the library of "
            "the driver; start a container with its GPUs (--gpus all) and "
            f"NVIDIA_DRIVER_CAPABILITIES=compute,utility, or install the driver{where}"
        )
    if gpu.plugins:
        jaxlib = report.versions.get("jaxlib")
        return (
            f"{seen}, although {', '.join(gpu.plugins)} is installed: its version must be that of "
            f"jaxlib ({jaxlib}), its CUDA one that the driver ({gpu.driver or 'see nvidia-smi'}) "
            f"knows (12: {_CUDA12_DRIVER} or newer, 13: {_CUDA13_DRIVER} or newer){where}, and "
            f"LD_LIBRARY_PATH may point to no other CUDA; repeat {_pip('cuda12')} or "
            f"{_pip('cuda13')}"
        )
    if major is None:
        return (
            f"{seen}: {_pip('cuda13')} if nvidia-smi shows a driver of {_CUDA13_DRIVER} "
            f"or newer, {_pip('cuda12')} from {_CUDA12_DRIVER} on{where}"
        )
    extra = "cuda13" if major >= _CUDA13_DRIVER else "cuda12"
    return f"{seen}: {_pip(extra)} (for its driver {gpu.driver}){where}"


def _pip(extra: str) -> str:
    """Command that adds an extra of this package to where it is installed."""
    return f'pip install "kpms_zarr[{extra}]"'


def _about_backend(report: DoctorReport) -> list[str]:
    if report.backend is not None:
        return []
    platforms = report.environment.get("JAX_PLATFORMS")
    if platforms:
        fix = f"unset JAX_PLATFORMS, which is {platforms}"
    else:
        fix = 'install JAX again: pip install --force-reinstall "jax" "jaxlib"'
    return [f"JAX does not work here, so nothing can be fitted ({report.backend_problem}): {fix}"]


def _about_sums(report: DoctorReport) -> list[str]:
    if report.adds_right is not False:
        return []
    return [
        f"jaxlib {report.versions.get('jaxlib')} adds wrongly here, without saying so; do not fit "
        'with it: pip install "jax!=0.10.2" "jaxlib!=0.10.2"'
    ]


def _about_scratch(report: DoctorReport) -> list[str]:
    scratch = report.scratch
    if not scratch.is_memory:
        return []
    return [
        f"scratch files go to {scratch.folder}, which is held in memory ({scratch.file_system}) "
        "and counts against that of the fit: set TMPDIR to a folder on a disk"
    ]


def _about_load(host: Host) -> list[str]:
    if host.load is None or host.load < host.machine_cores / 2:
        return []
    return [
        f"other programs keep the machine busy (load {host.load:.1f}, {host.machine_cores} cores): "
        "fits and the speed test are slower than they could be"
    ]


# ------------------------------------------------------------------ speed


def _threads(host: Host, devices: Sequence[memory.DeviceMemory]) -> int:
    """Number of threads: one per core, as far as tiles fit into a quarter of free memory."""
    free = [host.free_memory, *(d.free for d in devices[:1] if d.free is not None)]
    return max(1, min(host.cores, min(free) // 4 // _TILE_BYTES))


def _speed(seconds: float, threads: int, *, is_possible: bool) -> Speed:
    if not seconds:
        return Speed(threads, None, None, None, None, 0.0, "skipped: 0 seconds asked for")
    if not is_possible:
        return Speed(threads, None, None, None, None, 0.0, "skipped: JAX does not work")
    began = time.perf_counter()
    frames = threads * _SEGMENTS * _SEGMENT_FRAMES
    try:
        tiles = [_compiled_tile(n_keypoints) for n_keypoints in (0, N_KEYPOINTS)]
        left = seconds - (time.perf_counter() - began)
        ar, full = (
            TileSpeed(_round_seconds(run, threads, share * left) / frames * 1e6, compile_seconds)
            for (run, compile_seconds), share in zip(tiles, (0.3, 0.7), strict=True)
        )
    except Exception as error:  # whatever is broken is what a doctor is asked about
        took = time.perf_counter() - began
        return Speed(threads, None, None, None, None, took, f"failed: {_message(error)}")
    sweep = _study_sweep(full, threads)
    whole = _AR_SWEEPS * _study_sweep(ar, threads) + _FULL_SWEEPS * sweep
    whole += ar.compile_seconds + full.compile_seconds
    return Speed(threads, ar, full, sweep, whole, time.perf_counter() - began, None)


def _study_sweep(speed: TileSpeed, threads: int) -> float:
    """Seconds of a sweep of 1 h: at least one round of tiles for even and one for odd segments."""
    round_frames = threads * _SEGMENTS * _SEGMENT_FRAMES
    return max(_STUDY_FRAMES, 2 * round_frames) * speed.frame_microseconds / 1e6


def _in_threads(function: Callable[[], Any], threads: int) -> list[Any]:
    """Call a function once in each thread, as a sweep does: in float32 whatever the environment."""
    from kpms_zarr.compute.sampler.stream import in_flight

    return list(in_flight(lambda _: function(), range(threads), threads, is_double=False))


def _round_seconds(run: Callable[[], None], threads: int, seconds: float) -> float:
    """Median time in which every thread computes one tile: three rounds or more after the first."""
    rounds: list[float] = []
    while len(rounds) < 4 or sum(rounds) < seconds:
        began = time.perf_counter()
        _in_threads(run, threads)
        rounds.append(time.perf_counter() - began)
    return float(np.median(rounds[1:]))


def _compiled_tile(n_keypoints: int) -> tuple[Callable[[], None], float]:
    """Function that computes a tile of a stage, and seconds of its compilation.

    0 keypoints: the AR stage.
    """
    from kpms_zarr.compute.runs.budget import TileSizes, synthetic_call, synthetic_tables
    from kpms_zarr.compute.sampler.segments import TileShape

    shape = TileShape(_SEGMENTS, _SEGMENT_FRAMES)
    sizes = TileSizes(shape, N_STATES, N_LATENT, LAGS, n_keypoints, N_SPACE, "float32")
    call = synthetic_call(sizes, synthetic_tables(sizes))
    began = time.perf_counter()
    (function,) = _in_threads(call.compile, 1)
    compile_seconds = time.perf_counter() - began

    def run() -> None:
        for array in function(*call.arguments):
            np.asarray(array)  # waits, and copies to the host as a sweep does

    return run, compile_seconds


# ------------------------------------------------------------------ text


def as_text(report: DoctorReport) -> str:
    """Format the report: a fact a line, then the advice."""
    versions = dict(report.versions)
    kpms_zarr, python = versions.pop("kpms_zarr"), versions.pop("Python")
    packages = [f"{name} {version or '(not installed)'}" for name, version in versions.items()]
    host, scratch = report.host, report.scratch
    group = "no limit by a control group"
    if host.cgroup_memory is not None and host.cgroup_free is not None:
        group = (
            f"control group {memory.size(host.cgroup_memory)}, {memory.size(host.cgroup_free)} free"
        )
    facts = [
        ("kpms_zarr", kpms_zarr),
        ("Python", python),
        ("system", report.platform),
        ("packages", ", ".join(packages)),
        ("backend", report.backend or f"none: {report.backend_problem}"),
        *(("device", _device_text(device)) for device in report.devices),
        ("GPU driver", _driver_text(report)),
        (
            "memory",
            f"{memory.size(host.memory)}, {memory.size(host.free_memory)} free for this "
            f"process; {group}",
        ),
        (
            "cores",
            f"{host.cores} for this process, {host.machine_cores} of the machine, load "
            f"{'?' if host.load is None else f'{host.load:.1f}'}",
        ),
        (
            "scratch",
            f"{scratch.folder} ({scratch.file_system or '?'}), {memory.size(scratch.free)} free",
        ),
        ("precision", _precision_text(report)),
        *_speed_texts(report.speed),
    ]
    lines = [f"{name:<{_WIDTH}}{value}" for name, value in facts]
    lines += [f"advice: {text}" for text in report.advice] or ["advice: none, all is well"]
    if report.cluster is not None:
        from kpms_zarr.compute.cluster.checkup import as_lines

        lines += ["", *as_lines(report.cluster)]
    return "\n".join(lines)


def _device_text(device: memory.DeviceMemory) -> str:
    held = "memory of the host"
    if device.limit is not None:
        held = f"{memory.size(device.limit)} for JAX"
        if device.free is not None:
            held += f", {memory.size(device.free)} free"
    return f"{device.kind} ({device.platform}), {held}"


def _driver_text(report: DoctorReport) -> str:
    gpu = report.gpu
    plugins = ", ".join(gpu.plugins) or "no CUDA plugin of JAX (extras cuda12, cuda13)"
    if gpu.driver:
        return f"{gpu.driver}, {plugins}"
    is_there = gpu.has_device_file or gpu.has_nvidia_smi
    return f"not known, {plugins}" if is_there else "none found"


def _precision_text(report: DoctorReport) -> str:
    x64 = report.environment.get("JAX_ENABLE_X64")
    heed = "fits do not heed it, they take `precision=`"
    is_set = "is not set" if x64 is None else f"is {x64}"
    return f"{report.precision}, in which fits compute; JAX_ENABLE_X64 {is_set}; {heed}"


def _speed_texts(speed: Speed) -> list[tuple[str, str]]:
    if not (speed.ar and speed.full and speed.sweep_seconds and speed.fit_seconds):
        return [("speed", f"not measured ({speed.problem})")]
    tiles = "1 tile" if speed.threads == 1 else f"{speed.threads} tiles"
    return [
        (
            "speed",
            f"{speed.full.frame_microseconds:.2f} us per frame and sweep of the full stage, "
            f"{speed.ar.frame_microseconds:.2f} us of the AR stage, {tiles} at a time "
            f"({N_STATES} states, {N_LATENT} latent dimensions, {LAGS} lags, {N_KEYPOINTS} "
            f"keypoints in {N_SPACE}-D)",
        ),
        (
            "compilation",
            f"{speed.full.compile_seconds:.1f} s for the full stage, "
            f"{speed.ar.compile_seconds:.1f} s for the AR stage",
        ),
        (
            "that means",
            f"a study of 1 h of video at 30 frames/s ({_STUDY_FRAMES:,} frames) takes about "
            f"{speed.sweep_seconds:.2g} s a sweep, a fit of {_AR_SWEEPS} + {_FULL_SWEEPS} sweeps "
            f"about {speed.fit_seconds / 60:.2g} min",
        ),
    ]
