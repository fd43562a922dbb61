"""Studies of very different sizes within one budget of memory: time per frame, and peaks.

    python benchmarks/scale.py [--folder DIR] [--cases small large long] [--sweeps 3]

Simulates three studies straight into stores, unless they are there already: 100,000 frames in 10
sessions; 20 million in 200 sessions of very different lengths; one session of 5 million next to
500 of 2,000. Fits each for a few sweeps with `--device-memory 1GB --host-memory 2GB`, every fit in
a process of its own, and prints microseconds per frame and sweep, the share of time that the device
waited, and the peak of the process. `--slow MS` delays every read of tracked data by so many ms.
Last, opens a store of 10,000 sessions in several ways.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

import kpms_zarr
from kpms_zarr.compute import mapreduce
from kpms_zarr.compute.events import PlanMade, SweepEnded
from kpms_zarr.compute.memory import peak_resident_memory
from kpms_zarr.store.core import access
from kpms_zarr.store.study.keypoints import create_keypoints, set_session_count, write_session_rows
from kpms_zarr.store.study.settings import StudySettings, write_settings
from kpms_zarr.store.study.synthetic import SyntheticStudy, write_store


def lengths_of(case: str) -> tuple[int, ...]:
    """Frames of the sessions of a case."""
    if case == "small":
        return (10_000,) * 10
    if case == "long":
        return (5_000_000, *(2_000,) * 500)
    drawn = np.exp(1.3 * np.random.default_rng(0).normal(size=200))
    return tuple(np.maximum(1_000, 20_000_000 * drawn / drawn.sum()).astype(int).tolist())


def make(folder: Path, case: str) -> Path:
    """The store of a case, simulated where it is missing."""
    store = folder / f"{case}.zarr"
    if not (store / "pca").exists():
        began = time.perf_counter()
        write_store(store, SyntheticStudy(lengths=lengths_of(case), missing_fraction=0.01))
        kpms_zarr.pca(store)
        print(f"{case}: simulated in {time.perf_counter() - began:.0f} s", flush=True)
    return store


def run(store: Path, arguments: argparse.Namespace) -> None:
    """Fit one store and print what was measured as JSON."""
    events: list[object] = []
    began = time.perf_counter()
    if arguments.slow:
        slow_down(arguments.slow / 1000)
    kpms_zarr.fit(
        store,
        model="benchmark",
        config=kpms_zarr.FitConfig(ar_sweeps=2, sweeps=arguments.sweeps, latent_dim=4),
        budget=kpms_zarr.Budget(
            device_memory=arguments.device_memory,
            host_memory=arguments.host_memory,
            home=arguments.home,
        ),
        callbacks=[events.append],
        overwrite=True,
    )
    plan = next(event.plan for event in events if isinstance(event, PlanMade))
    ended = [event for event in events if isinstance(event, SweepEnded)]
    found = {
        "frames": plan.n_frames,
        "sessions": plan.n_sessions,
        "home": plan.home,
        "kept": plan.kept_bytes / plan.data_bytes,
        "predicted": plan.host_bytes + plan.device_bytes,
        "peak": peak_resident_memory(),
        "in all": time.perf_counter() - began,
    }
    for stage in ("ar", "full"):
        # The first sweep of a stage compiles.
        sweeps = [event for event in ended if event.stage == stage][1:]
        found[stage] = float(np.median([s.seconds for s in sweeps])) / plan.n_frames * 1e6
        found[f"{stage} waiting"] = float(np.median([s.waiting for s in sweeps]))
    print(json.dumps(found))


def slow_down(seconds: float) -> None:
    """A store that answers late: every read of tracked data takes so much longer."""
    read = mapreduce.regions.read

    def late(array: object, block: object) -> np.ndarray:
        time.sleep(seconds)
        return read(array, block)

    mapreduce.regions.read = late


OPENINGS = {
    "kpms_zarr.info": "kpms_zarr.info(store)",
    "xarray.open_zarr": "xarray.open_zarr(store, group='keypoints', consolidated=False)",
    "index of a fit": "ChainIndex.of(access.sessions(access.open_group(store)), 3)",
}


def open_many(folder: Path, n_sessions: int) -> None:
    """Print how long it takes to open a store of very many sessions, without the imports."""
    store = folder / f"sessions_{n_sessions}.zarr"
    if not store.exists():
        study = StudySettings(tuple(f"point{i}" for i in range(8)), ("x", "y"), (), (), ())
        root = access.create(store)
        write_settings(root, study)
        group = create_keypoints(root, study)
        set_session_count(group, n_sessions, 20_000)
        names = [f"mouse_{i:05d}" for i in range(n_sessions)]
        table = dict.fromkeys(("session", "recording", "source", "source_hash"), names)
        table |= {"individual": [""] * n_sessions, "source_format": ["synthetic"] * n_sessions}
        write_session_rows(group, 0, table, 30.0)
        group["n_frames"][:] = np.random.default_rng(0).integers(1_000, 20_000, n_sessions)
    for name, call in OPENINGS.items():
        code = (
            "import sys, time, kpms_zarr, xarray, kpms_zarr.store.model.info\n"
            "from kpms_zarr.compute.sampler.chain import ChainIndex\n"
            "from kpms_zarr.store.core import access\n"
            f"store = sys.argv[1]; began = time.perf_counter(); {call}\n"
            "print(time.perf_counter() - began)"
        )
        output = subprocess.run(
            [sys.executable, "-c", code, str(store)], capture_output=True, text=True, check=True
        ).stdout
        print(f"{n_sessions:,} sessions, {name}: {float(output):.2f} s", flush=True)


def main() -> None:
    """Run the cases one after another and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--cases", nargs="*", default=["small", "large", "long"])
    parser.add_argument("--sweeps", type=int, default=3)
    parser.add_argument("--device-memory", default="1GB")
    parser.add_argument("--host-memory", default="2GB")
    parser.add_argument("--home", choices=("device", "host", "disk"))
    parser.add_argument("--many", type=int, default=10_000, help="sessions of the store to open")
    parser.add_argument("--slow", type=float, default=0.0, metavar="MS")
    parser.add_argument("--store", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.store:
        run(arguments.store, arguments)
        return
    folder = arguments.folder or Path(tempfile.gettempdir()) / "kpms_zarr_scale"
    folder.mkdir(parents=True, exist_ok=True)
    columns = (
        "case", "sessions", "frames", "state", "data kept", "AR us/frame", "full us/frame",
        "device waits", "peak, predicted", "in all",
    )  # fmt: skip
    print("| " + " | ".join(columns) + " |\n" + "| --- " * len(columns) + "|", flush=True)
    for case in arguments.cases:
        store = make(folder, case)
        command = [sys.executable, __file__, *sys.argv[1:], "--store", str(store)]
        output = subprocess.run(command, capture_output=True, text=True)
        if output.returncode:
            print(f"| {case} | failed: {output.stderr.strip().splitlines()[-1]} |", flush=True)
            continue
        f = json.loads(output.stdout.splitlines()[-1])
        print(
            f"| {case} | {f['sessions']} | {f['frames']:,} | {f['home']} | {f['kept']:.0%} "
            f"| {f['ar']:.2f} | {f['full']:.2f} | {f['ar waiting']:.0%}, {f['full waiting']:.0%} "
            f"| {f['peak'] / 1e9:.2f} GB, {f['predicted'] / 1e9:.2f} GB | {f['in all']:.0f} s |",
            flush=True,
        )
    open_many(folder, arguments.many)


if __name__ == "__main__":
    main()
