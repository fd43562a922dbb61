"""What doctor finds on this machine, and what it advises on machines that are made up."""

from __future__ import annotations

import json
import tomllib
from dataclasses import replace
from pathlib import Path

import pytest

import kpms_zarr
from kpms_zarr import cli, diagnosis
from kpms_zarr.compute.memory import DeviceMemory
from kpms_zarr.diagnosis import Gpu, Host, Scratch, Speed, TileSpeed, advise, as_text
from kpms_zarr.store.errors import InputError

ROOT = Path(kpms_zarr.__file__).parents[1]
GB = 10**9
NO_GPU = Gpu(False, None, False, ())
A_GPU = Gpu(True, "550.54.14", True, ())
FINE = diagnosis.DoctorReport(
    versions={"kpms_zarr": "1", "Python": "3.12.1", "jax": "0.5", "jaxlib": "0.5", "s3fs": None},
    system="Linux",
    platform="Linux-6",
    environment={},
    backend="cpu",
    backend_problem=None,
    devices=(DeviceMemory("cpu", "cpu", None, None),),
    gpu=NO_GPU,
    host=Host(16 * GB, 8 * GB, None, None, 4, 8, 0.1),
    scratch=Scratch("scratch", 100 * GB, "ext4"),
    precision="float32",
    speed=Speed(4, TileSpeed(1.0, 2.0), TileSpeed(3.0, 6.0), 0.324, 78.0, 10.0, None),
)


@pytest.fixture(scope="module")
def report():
    """Of this machine, without a speed test."""
    return kpms_zarr.doctor(seconds=0)


def test_doctor__of_a_store_without_workers_is_refused(tmp_path):
    with pytest.raises(InputError, match="workers"):
        kpms_zarr.doctor(0, store=tmp_path)


# --- facts -----------------------------------------------------------------------------


def test_doctor__knows_this_machine(report):
    assert report.versions["kpms_zarr"] == kpms_zarr.__version__
    assert report.versions["jax"]
    assert {"s3fs", "dask", "zarr", "xarray", "numpy", "jaxlib"} < set(report.versions)
    assert report.backend == report.devices[0].platform
    assert report.backend_problem is None
    assert 0 < report.host.free_memory <= report.host.memory
    assert 1 <= report.host.cores <= report.host.machine_cores
    assert report.scratch.free > 0
    assert report.precision == "float32"
    assert report.advice == advise(report)


def test_doctor__without_speed_test_says_so(report):
    assert report.speed.ar is None
    assert report.speed.full is None
    assert "skipped" in report.speed.problem
    assert "skipped" in as_text(report)


@pytest.mark.parametrize("seconds", [-1, float("nan"), float("inf"), "10"])
def test_doctor__refuses_a_wrong_time(seconds):
    with pytest.raises(InputError, match="0 or more"):
        kpms_zarr.doctor(seconds)


def test_doctor__reports_a_backend_that_does_not_work(monkeypatch):
    def broken():
        raise RuntimeError("Unable to initialize backend 'cuda'")

    monkeypatch.setattr("kpms_zarr.compute.memory.device_memory", broken)
    monkeypatch.setenv("JAX_PLATFORMS", "cuda")
    report = kpms_zarr.doctor(10)
    assert report.backend is None
    assert "Unable to initialize" in report.backend_problem
    assert "JAX does not work" in report.speed.problem
    assert any("unset JAX_PLATFORMS" in text for text in report.advice)
    assert "none: RuntimeError: Unable" in as_text(report)


def test_doctor__reports_a_speed_test_that_fails(monkeypatch):
    def broken(*_):
        raise MemoryError("no room\nat all")

    monkeypatch.setattr("kpms_zarr.compute.runs.budget.synthetic_call", broken)
    speed = kpms_zarr.doctor(1).speed
    assert speed.problem == "failed: MemoryError: no room at all"
    assert (speed.ar, speed.full, speed.sweep_seconds, speed.fit_seconds) == (None,) * 4


@pytest.mark.slow
def test_doctor__measures_speed():
    report = kpms_zarr.doctor(0.2)
    speed = report.speed
    assert speed.problem is None
    for tile in (speed.ar, speed.full):
        assert 0.001 < tile.frame_microseconds < 1000
        assert tile.compile_seconds > 0
    assert speed.seconds > speed.ar.compile_seconds + speed.full.compile_seconds
    assert speed.fit_seconds > 200 * speed.sweep_seconds
    assert "108,000 frames) takes about" in as_text(report)


def test_synthetic_tile__is_finite_and_of_the_right_shape():
    import numpy as np

    from kpms_zarr.compute.runs.budget import TileSizes, synthetic_call, synthetic_tables
    from kpms_zarr.compute.sampler.segments import TileShape

    sizes = TileSizes(TileShape(48, 256), 10, 4, 3, 8, 2, "float32")
    call = synthetic_call(sizes, synthetic_tables(sizes))
    tables, tile, *_ = call.arguments
    assert tile.local.shape == (48, 262, 15)
    assert tile.observed.shape == (48, 259, 24)
    assert all(np.isfinite(drawn).all() for drawn in call())
    for values in (*tables.hmm, *tables.pose, *tile):
        assert np.isfinite(values).all()
        assert values.dtype in (np.float32, np.int32, np.uint32)


@pytest.mark.parametrize(
    ("name", "release", "system"),
    [
        ("Linux", "6.1.0-18-amd64", "Linux"),
        ("Linux", "5.15.153.1-microsoft-standard-WSL2", "WSL2"),
        ("Darwin", "23.1.0", "Darwin"),
        ("Windows", "10", "Windows"),
    ],
)
def test_system__tells_wsl(name, release, system):
    assert diagnosis._system(name, release) == system


@pytest.mark.parametrize(
    ("line", "driver"),
    [
        ("NVRM version: NVIDIA UNIX x86_64 Kernel Module  550.54.14  Thu Feb 22", "550.54.14"),
        ("NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  580.65.06  Rel", "580.65.06"),
        ("something else", None),
    ],
)
def test_find_gpu__driver_and_device(line, driver, tmp_path, monkeypatch):
    monkeypatch.setattr("shutil.which", lambda _: None)
    plugins = diagnosis.find_gpu().plugins
    assert diagnosis.find_gpu(tmp_path) == replace(NO_GPU, plugins=plugins, has_libcuda=False)
    version = tmp_path / "proc/driver/nvidia/version"
    version.parent.mkdir(parents=True)
    version.write_text(f"{line}\nGCC version:  gcc version 12.2.0\n")
    (tmp_path / "dev").mkdir()
    (tmp_path / "dev" / "nvidiactl").touch()
    assert not diagnosis.find_gpu(tmp_path).has_device_file
    (tmp_path / "dev" / "nvidia3").touch()
    (tmp_path / "usr/lib/x86_64-linux-gnu").mkdir(parents=True)
    (tmp_path / "usr/lib/x86_64-linux-gnu/libcuda.so.1").touch()
    found = diagnosis.find_gpu(tmp_path)
    assert (found.has_device_file, found.driver, found.has_nvidia_smi) == (True, driver, False)
    assert found.has_libcuda


@pytest.mark.parametrize(
    ("cgroup", "files", "quota"),
    [
        ("0::/a/b", {"a/b/cpu.max": "max 100000", "a/cpu.max": "max 100000"}, None),
        ("0::/a/b", {"a/b/cpu.max": "max 100000", "a/cpu.max": "150000 100000"}, 1.5),
        ("0::/a/b", {"a/b/cpu.max": "50000 100000", "a/cpu.max": "150000 100000"}, 0.5),
        ("3:cpu,cpuacct:/x", {"cpu/cpu.cfs_quota_us": "-1", "cpu/cpu.cfs_period_us": "9"}, None),
        ("3:cpu,cpuacct:/x", {"cpu/cpu.cfs_quota_us": "36", "cpu/cpu.cfs_period_us": "9"}, 4.0),
        ("", {}, None),
    ],
)
def test_cpu_quota__least_of_all_levels(cgroup, files, quota, tmp_path):
    files = {f"sys/fs/cgroup/{name}": text for name, text in files.items()}
    for name, text in {"proc/self/cgroup": cgroup, **files}.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(f"{text}\n")
    assert diagnosis.cpu_quota(tmp_path) == quota


def test_file_system__innermost_and_latest(tmp_path):
    folder = (tmp_path / "my scratch" / "deep").resolve()
    folder.mkdir(parents=True)
    place = str(folder.parent).replace(" ", "\\040")
    assert diagnosis.file_system(folder, tmp_path) is None
    (tmp_path / "proc" / "self").mkdir(parents=True)
    mounts = tmp_path / "proc" / "self" / "mounts"
    mounts.write_text("/dev/a / ext4 rw 0 0\n")
    assert diagnosis.file_system(folder, tmp_path) == "ext4"
    mounts.write_text(
        f"tmpfs {place} tmpfs rw 0 0\n/dev/a / ext4 rw 0 0\n/dev/b {place}er xfs rw\n"
    )
    assert diagnosis.file_system(folder, tmp_path) == "tmpfs"
    mounts.write_text(f"tmpfs {place} tmpfs rw 0 0\n/dev/b {place} xfs rw 0 0\n")
    assert diagnosis.file_system(folder, tmp_path) == "xfs"


@pytest.mark.parametrize(
    ("cores", "free", "device", "threads"),
    [(8, 64 * GB, None, 8), (64, 4 * GB, None, 20), (8, 64 * GB, GB, 5), (8, 10**7, None, 1)],
)
def test_threads__as_many_as_cores_and_memory_allow(cores, free, device, threads):
    host = replace(FINE.host, cores=cores, free_memory=free)
    assert diagnosis._threads(host, [DeviceMemory("x", "x", device, device)]) == threads


def test_study_sweep__has_two_rounds_at_least():
    speed = TileSpeed(2.0, 0.0)
    assert diagnosis._study_sweep(speed, 1) == pytest.approx(0.216)
    assert diagnosis._study_sweep(speed, 64) == pytest.approx(2 * 64 * 12_288 * 2e-6)


def test_adds_right__with_the_packages_that_are_installed(report):
    assert report.adds_right, "jaxlib that adds wrongly: see pyproject.toml"


# --- advice ----------------------------------------------------------------------------


CASES = {
    "all fine": ({}, []),
    "GPU, no plugin": ({"gpu": A_GPU}, ['pip install "kpms_zarr[cuda12]"']),
    "new driver": (
        {"gpu": replace(A_GPU, driver="580.65.06")},
        ['pip install "kpms_zarr[cuda13]"'],
    ),
    "oldest driver": ({"gpu": replace(A_GPU, driver="525.1")}, ['pip install "kpms_zarr[cuda12]"']),
    "old driver": ({"gpu": replace(A_GPU, driver="470.82.01")}, ["470.82.01 is too old"]),
    "unknown driver": ({"gpu": replace(A_GPU, driver=None)}, ["if nvidia-smi shows a driver"]),
    "plugin does not work": (
        {"gpu": replace(A_GPU, plugins=("jax-cuda12-plugin 0.4",))},
        ["although jax-cuda12-plugin 0.4 is installed"],
    ),
    "plugin without the library of the driver": (
        {"gpu": replace(A_GPU, plugins=("jax-cuda12-plugin 0.5",), has_libcuda=False)},
        ["not libcuda.so.1"],
    ),
    "hidden by JAX_PLATFORMS": (
        {
            "gpu": replace(A_GPU, plugins=("jax-cuda12-plugin 0.5",)),
            "environment": {"JAX_PLATFORMS": "cpu"},
        },
        ["unset JAX_PLATFORMS"],
    ),
    "hidden and no plugin": (
        {"gpu": A_GPU, "environment": {"JAX_PLATFORMS": "cpu"}},
        ["JAX_PLATFORMS=cpu", "kpms_zarr[cuda12]"],
    ),
    "JAX_PLATFORMS allows it": (
        {"gpu": A_GPU, "environment": {"JAX_PLATFORMS": "cuda,cpu"}},
        ["kpms_zarr[cuda12]"],
    ),
    "hidden by CUDA": (
        {
            "gpu": replace(A_GPU, plugins=("jax-cuda12-plugin 0.5",)),
            "environment": {"CUDA_VISIBLE_DEVICES": ""},
        },
        ["unset CUDA_VISIBLE_DEVICES"],
    ),
    "no GPU, JAX_PLATFORMS": ({"environment": {"JAX_PLATFORMS": "cpu"}}, []),
    "container without its GPU": (
        {"gpu": replace(A_GPU, has_device_file=False)},
        ["start a container with its GPUs"],
    ),
    "WSL2": (
        {"system": "WSL2", "gpu": Gpu(False, None, True, ())},
        ["in WSL2 the driver is that of Windows"],
    ),
    "WSL2 without a GPU": ({"system": "WSL2"}, []),
    "Windows": ({"system": "Windows", "gpu": Gpu(False, None, True, ())}, ["use WSL2"]),
    "macOS": ({"system": "Darwin"}, ["fits run on the CPU"]),
    "GPU in use": ({"backend": "gpu", "gpu": A_GPU}, ["XLA_PYTHON_CLIENT_PREALLOCATE=false"]),
    "GPU in use, known": (
        {"backend": "gpu", "environment": {"XLA_PYTHON_CLIENT_PREALLOCATE": "false"}},
        [],
    ),
    "TPU": ({"backend": "tpu"}, []),
    "no backend": ({"backend": None, "backend_problem": "X"}, ["JAX does not work here"]),
    "scratch in memory": (
        {"scratch": Scratch("/dev/shm", GB, "tmpfs")},
        ["set TMPDIR to a folder on a disk"],
    ),
    "adds wrongly": ({"adds_right": False}, ["do not fit with it"]),
    "adds right": ({"adds_right": True}, []),
    "busy": ({"host": replace(FINE.host, load=7.5)}, ["other programs keep the machine busy"]),
    "load not known": ({"host": replace(FINE.host, load=None)}, []),
}


@pytest.mark.parametrize(("facts", "said"), CASES.values(), ids=CASES)
def test_advise__from_facts(facts, said):
    advice = advise(replace(FINE, **facts))
    assert len(advice) == len(said), advice
    for text, words in zip(advice, said, strict=True):
        assert words in text


# --- text and command ------------------------------------------------------------------


def test_as_text__facts_then_advice():
    lines = as_text(FINE).splitlines()
    starts = {line[: diagnosis._WIDTH].strip() for line in lines[:-1]}
    assert starts >= {"kpms_zarr", "Python", "backend", "device", "memory", "scratch", "speed"}
    assert lines[-1] == "advice: none, all is well"
    text = as_text(replace(FINE, advice=("do this", "do that")))
    assert text.splitlines()[-2:] == ["advice: do this", "advice: do that"]
    assert "s3fs (not installed)" in text
    assert "a fit of 50 + 200 sweeps about 1.3 min" in text
    assert "JAX_ENABLE_X64 is not set" in text


@pytest.mark.parametrize(
    ("gpu", "said"),
    [
        (NO_GPU, "GPU driver   none found"),
        (A_GPU, "GPU driver   550.54.14, no CUDA plugin of JAX (extras cuda12, cuda13)"),
        (replace(A_GPU, driver=None, plugins=("a 1",)), "GPU driver   not known, a 1"),
    ],
)
def test_as_text__driver_and_plugin(gpu, said):
    assert said in as_text(replace(FINE, gpu=gpu)).splitlines()


@pytest.mark.parametrize("extra", ["cuda12", "cuda13"])
def test_extras__that_are_advised_are_there(extra):
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    (needed,) = project["optional-dependencies"][extra]
    assert needed.startswith(f"jax[{extra}]>=")
    assert f"[{extra}]" in (ROOT / "README.md").read_text("utf-8")


def test_as_text__limits_and_devices():
    text = as_text(
        replace(
            FINE,
            environment={"JAX_ENABLE_X64": "1"},
            devices=(DeviceMemory("gpu", "Some GPU", 60 * GB, 59 * GB),),
            host=replace(FINE.host, cgroup_memory=4 * GB, cgroup_free=3 * GB),
        )
    )
    assert "Some GPU (gpu), 60.0 GB for JAX, 59.0 GB free" in text
    assert "control group 4.0 GB, 3.0 GB free" in text
    assert "JAX_ENABLE_X64 is 1; fits do not heed it" in text


def test_command__prints_text_or_json(capsys):
    assert cli.main(["doctor", "--seconds", "0"]) == 0
    out = capsys.readouterr().out
    assert out.startswith("kpms_zarr    ")
    assert "advice: " in out
    assert cli.main(["doctor", "--seconds", "0", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert set(found) == set(vars(FINE))
    assert found["precision"] == "float32"
    assert found["speed"]["problem"].startswith("skipped")


def test_command__refuses_a_wrong_time(capsys):
    assert cli.main(["doctor", "--seconds", "-1"]) == 2
    assert "What to do: " in capsys.readouterr().err
