"""Sizes with units, and the memory that a process may take, from made-up control groups."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from contextlib import suppress
from types import SimpleNamespace

import psutil
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kpms_zarr.compute import memory
from kpms_zarr.store.errors import InputError

GB = 10**9
NO_LIMIT_V1 = 9223372036854771712


# --- sizes -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "n_bytes"),
    [
        ("4GB", 4 * 10**9),
        ("4GiB", 4 * 2**30),
        ("500MB", 500 * 10**6),
        ("1.5 GB", 1_500_000_000),
        (" 0.3 gb ", 300_000_000),
        (".5kB", 500),
        ("2 kib", 2048),
        ("1TB", 10**12),
        ("1 PiB", 2**50),
        ("7 B", 7),
        ("1000", 1000),
        (4096, 4096),
        (1e9, 10**9),
    ],
)
def test_parse_size__knows_units(text, n_bytes):
    found = memory.parse_size(text)
    assert found == n_bytes
    assert isinstance(found, int)


@pytest.mark.parametrize(
    "text",
    [
        "", "GB", "4 G", "4GBs", "-1GB", "1e9", "1,5 GB", "1 2", "four", "inf", "nan", "0", "0.1 B",
        "9" * 400, "9" * 400 + ".5", "٤GB", 0, -5, 1.5, float("nan"), float("inf"), True, None, [],
    ],
    ids=lambda text: repr(text)[:12],
)  # fmt: skip
def test_parse_size__refuses_the_rest(text):
    with pytest.raises(InputError) as caught:
        memory.parse_size(text)
    (problem,) = caught.value.problems
    assert problem.expected
    assert problem.found == repr(text)
    assert problem.where
    assert "4GiB" in problem.fix


@settings(deadline=None)
@given(st.integers(1, 10**15))
def test_parse_size__whole_numbers_are_exact(n_bytes):
    assert memory.parse_size(n_bytes) == n_bytes
    assert memory.parse_size(str(n_bytes)) == n_bytes
    assert memory.parse_size(f"{n_bytes} KiB") == 1024 * n_bytes


@settings(deadline=None)
@given(st.text(max_size=12))
def test_parse_size__never_breaks(text):
    with suppress(InputError):
        assert memory.parse_size(text) >= 1


# --- control groups --------------------------------------------------------------------


def write(root, files):
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{text}\n")
    return root


def group_v2(folder, limit, used, inactive=0):
    return {
        f"{folder}/memory.max": limit,
        f"{folder}/memory.current": used,
        f"{folder}/memory.stat": f"anon 5\ninactive_file {inactive}\nworkingset 1",
    }


def group_v1(folder, limit, used, inactive=0):
    return {
        f"{folder}/memory.limit_in_bytes": limit,
        f"{folder}/memory.usage_in_bytes": used,
        # Without "total_" it is that of the group alone, without its children.
        f"{folder}/memory.stat": f"inactive_file 1\ntotal_inactive_file {inactive}",
    }


V2, V1 = "sys/fs/cgroup", "sys/fs/cgroup/memory"
OF_V2 = {"proc/self/cgroup": "0::/user/job/step"}
OF_V1 = {"proc/self/cgroup": "5:cpu,cpuacct:/\n4:memory:/docker/abc\n0::/"}
TREES = {
    "none": ({}, None, None),
    "v2, no limit": (
        {**OF_V2, **group_v2(f"{V2}/user/job/step", "max", 3 * GB), **group_v2(V2, "max", 5 * GB)},
        None,
        None,
    ),
    "v2, own limit": ({**OF_V2, **group_v2(f"{V2}/user/job/step", 8 * GB, 3 * GB)}, 8 * GB, 5 * GB),
    "v2, files in memory are free": (
        {**OF_V2, **group_v2(f"{V2}/user/job/step", 8 * GB, 7 * GB, 6 * GB)},
        8 * GB,
        7 * GB,
    ),
    "v2, an outer group is fuller": (
        {
            **OF_V2,
            **group_v2(f"{V2}/user/job/step", 4 * GB, 1 * GB),
            **group_v2(f"{V2}/user/job", "max", 1 * GB),
            **group_v2(f"{V2}/user", 10 * GB, 9 * GB),
        },
        4 * GB,
        1 * GB,
    ),
    "v2, over the limit": ({**OF_V2, **group_v2(f"{V2}/user", GB, 2 * GB)}, GB, 0),
    "v2, a container sees its own group as the root": (
        {"proc/self/cgroup": "0::/", **group_v2(V2, 2 * GB, GB)},
        2 * GB,
        GB,
    ),
    "v2, outside of what is in sight": (
        {"proc/self/cgroup": "0::/../other", **group_v2(V2, 2 * GB, GB)},
        2 * GB,
        GB,
    ),
    "v2 beside v1": (
        {"proc/self/cgroup": "0::/job", **group_v2(f"{V2}/unified/job", 2 * GB, GB)},
        2 * GB,
        GB,
    ),
    "v1, no limit": ({**OF_V1, **group_v1(f"{V1}/docker/abc", NO_LIMIT_V1, 3 * GB)}, None, None),
    "v1, own limit": (
        {
            **OF_V1,
            **group_v1(f"{V1}/docker/abc", 8 * GB, 3 * GB, GB),
            **group_v1(V1, NO_LIMIT_V1, 9 * GB),
        },
        8 * GB,
        6 * GB,
    ),
    "v1, outer groups out of sight": ({**OF_V1, **group_v1(V1, 8 * GB, 3 * GB)}, 8 * GB, 5 * GB),
    "v1, nested": (
        {
            **OF_V1,
            **group_v1(f"{V1}/docker/abc", 8 * GB, 3 * GB),
            **group_v1(f"{V1}/docker", 6 * GB, 4 * GB),
        },
        6 * GB,
        2 * GB,
    ),
    "lines that are not understood": (
        {"proc/self/cgroup": "\nodd\n0::/user", **group_v2(f"{V2}/user", 2 * GB, GB)},
        2 * GB,
        GB,
    ),
    "no statistics": (
        {**OF_V2, f"{V2}/user/memory.max": 2 * GB, f"{V2}/user/memory.current": GB},
        2 * GB,
        GB,
    ),
}


@pytest.mark.parametrize(("files", "limit", "free"), TREES.values(), ids=TREES)
def test_cgroup__least_of_all_levels(files, limit, free, tmp_path):
    root = write(tmp_path, files)
    assert memory.cgroup_limit(root) == limit
    assert memory.cgroup_free(root) == free


@pytest.mark.parametrize(
    ("available", "expected"), [(GB, GB), (5 * GB, 5 * GB), (100 * GB, 5 * GB)]
)
def test_free_host_memory__is_the_least(available, expected, tmp_path, monkeypatch):
    root = write(tmp_path, {**OF_V2, **group_v2(f"{V2}/user", 8 * GB, 3 * GB)})
    machine = SimpleNamespace(available=available, total=200 * GB)
    monkeypatch.setattr(psutil, "virtual_memory", lambda: machine)
    assert memory.free_host_memory(root) == expected
    assert memory.free_host_memory(tmp_path / "no cgroups") == available
    assert memory.total_host_memory() == 200 * GB


def test_free_host_memory__of_this_machine():
    assert 0 < memory.free_host_memory() <= memory.total_host_memory()


# --- this process ----------------------------------------------------------------------


def test_resident_memory__grows_and_its_peak_stays():
    before = memory.resident_memory()
    block = bytearray(b"1") * 100_000_000
    with_block = memory.resident_memory()
    del block
    assert with_block - before > 80_000_000
    assert memory.peak_resident_memory() > 0.98 * with_block


@pytest.mark.skipif(sys.platform != "linux", reason="what Linux does")
def test_peak_resident_memory__is_not_that_of_the_parent():
    block = bytearray(b"1") * 300_000_000
    code = "from kpms_zarr.compute.memory import peak_resident_memory as p; print(p())"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert int(done.stdout) < len(block)


@pytest.mark.skipif(sys.platform == "win32", reason="no resource module")
@pytest.mark.parametrize(("system", "unit"), [("linux", 1024), ("darwin", 1)])
def test_peak_resident_memory__units(system, unit, tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "platform", system)
    monkeypatch.setattr("resource.getrusage", lambda _: SimpleNamespace(ru_maxrss=7000))
    assert memory.peak_resident_memory(tmp_path) == 7000 * unit


# --- devices ---------------------------------------------------------------------------


def test_device_memory__default_device_first():
    import jax

    found = memory.device_memory()
    assert len(found) == len(jax.local_devices())
    assert found[0].platform == jax.default_backend()
    if found[0].platform == "cpu":
        assert (found[0].limit, found[0].free) == (None, None)
        assert memory.free_device_memory() is None
    else:
        assert 0 < memory.free_device_memory() <= found[0].limit


def raises():
    raise RuntimeError("not implemented")


@pytest.mark.parametrize(
    ("stats", "limit", "free"),
    [
        (lambda: {"bytes_limit": 100, "bytes_in_use": 30, "peak": 50}, 100, 70),
        (lambda: {"bytes_limit": 100}, 100, None),
        (dict, None, None),
        (lambda: None, None, None),
        (raises, None, None),
    ],
)
def test_device_memory__of_each_backend(stats, limit, free):
    device = SimpleNamespace(platform="gpu", device_kind="Some GPU", memory_stats=stats)
    assert memory._describe(device) == memory.DeviceMemory("gpu", "Some GPU", limit, free)


_FAULTS = """
import resource, sys
import numpy as np
from kpms_zarr.compute.memory import keep_freed_memory
if sys.argv[1] == "kept":
    print(keep_freed_memory())
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(100):
    np.empty(2**20, np.uint8).fill(1)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def faults(how: str, **variables: str) -> list[str]:
    """What a process says that frees a megabyte a hundred times: page faults, last."""
    line = [sys.executable, "-c", _FAULTS, how]
    environment = {k: v for k, v in os.environ.items() if not k.startswith("MALLOC_")}
    environment["GLIBC_TUNABLES"] = ""
    return subprocess.run(
        line, env=environment | variables, capture_output=True, text=True, check=True
    ).stdout.split()


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="of the allocator of glibc")
def test_freed_memory__is_kept_where_dask_hinders_it():
    as_dask = {"MALLOC_TRIM_THRESHOLD_": "65536"}
    said, kept = faults("kept", **as_dask)
    assert said == "True"
    assert int(kept) < 3000
    # 256 pages each time: what it is there for.
    assert int(faults("as it is", **as_dask)[0]) > 20_000
    assert faults("kept")[0] == "False"
    assert faults("kept", MALLOC_MMAP_THRESHOLD_="131072", **as_dask)[0] == "False"
