"""Exports of a model hold no more of a study whose sessions are eight times as long."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest

pytestmark = [
    pytest.mark.full,
    pytest.mark.skipif(sys.platform != "linux", reason="reads peaks from /proc"),
]

FRAMES = 125_000


@pytest.fixture(scope="module")
def benchmark() -> ModuleType:
    path = Path(__file__).parents[1] / "benchmarks" / "memory_tables.py"
    spec = importlib.util.spec_from_file_location("memory_tables", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def stores(benchmark: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """The same study, and one of sessions eight times as long."""
    found = []
    for factor in (1, 8):
        found.append(tmp_path_factory.mktemp(f"frames_{factor}") / "study.zarr")
        benchmark.write_study(found[-1], factor * FRAMES)
    return found


@pytest.mark.parametrize("name", ["export csv", "export kpms"])
def test_memory__does_not_grow_with_the_frames(benchmark, stores, name):
    small, large = (benchmark.measure(store, benchmark.COMMANDS[name]) for store in stores)
    assert small.status == large.status == 0
    assert large.peak < 1.25 * small.peak
    assert large.peak < benchmark.LIMIT


def test_memory__the_measurement_sees_what_is_held(benchmark, stores, monkeypatch):
    """The wrong twin: all labels and poses at once."""
    monkeypatch.setattr(benchmark, "_RUN", HOLDS_ALL)
    small, large = (benchmark.measure(store, "{store}") for store in stores)
    assert large.peak > 1.25 * small.peak


HOLDS_ALL = """
import sys
from pathlib import Path
import kpms_zarr
held = kpms_zarr.open_labels(sys.argv[1], "m").load()
line = next(l for l in Path("/proc/self/status").read_text().splitlines() if "VmHWM" in l)
sys.stderr.write(f"\\npeak {int(line.split()[1]) * 1024} 0\\n")
"""
