"""Peak memory of commands that go over all frames of a published model, against 2 GB.

    python benchmarks/memory_tables.py                 # 10 million frames, one session of 6 million
    python benchmarks/memory_tables.py --frames 1000000 --only tables,changepoints

Writes a store with tracked data and a model with a pose (a simulated session over and over, labels
of geometric bouts), runs each command in a process of its own, reads its peak from the system when
it ends, and deletes what it has written. Prints a Markdown table.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

from kpms_zarr.compute.runs.summaries import label_statistics
from kpms_zarr.compute.runs.written import WrittenLabels
from kpms_zarr.store.core import access, regions
from kpms_zarr.store.core.blocks import iter_blocks
from kpms_zarr.store.core.consolidation import consolidate
from kpms_zarr.store.core.schema import FRAMES_PER_CHUNK
from kpms_zarr.store.ingest.annotate import annotate
from kpms_zarr.store.model.models import LabelWriter, write_parameters
from kpms_zarr.store.study.keypoints import create_keypoints, set_session_count, write_session_rows
from kpms_zarr.store.study.settings import write_settings
from kpms_zarr.store.study.synthetic import SyntheticStudy, simulate_session

SHARES = (0.6, 0.1, 0.1, 0.05, 0.05, 0.05, 0.05)
"""Of the frames, by session."""
TRACKED_FRAMES = 3 * FRAMES_PER_CHUNK + 4_848
STUDY = SyntheticStudy(n_sessions=1, n_frames=TRACKED_FRAMES, missing_fraction=0.02)
N_SYLLABLES, N_LATENT, MEAN_BOUT = 30, 4, 12
LIMIT = 2e9
_RUN = """
import sys
from pathlib import Path
from kpms_zarr.cli import main
status = main(sys.argv[1:])
line = next(l for l in Path("/proc/self/status").read_text().splitlines() if "VmHWM" in l)
sys.stderr.write(f"\\npeak {int(line.split()[1]) * 1024} {status}\\n")
"""

COMMANDS = {
    "info": "info {store}",
    "tables": "tables {store} --model m --out {out}",
    "tables, csv": "tables {store} --model m --to csv --out {out}",
    "export csv": "export {store} --model m --to csv --out {out}",
    "export kpms": "export {store} --model m --to kpms --out {out}",
    "export movement": "export {store} --model m --to movement --out {out}",
    "export nwb": "export {store} --model m --to nwb --out {out}",
    "compare-groups": "compare-groups {store} --model m --by group --statistic frequency,speed",
    "triggered-average": "triggered-average {store} --model m --signal speed --out {out}.csv",
    "trajectories": "trajectories {store} --model m --out {out}",
    "similarity": "similarity {store} --model m --kind trajectories",
    "merge": "merge {store} --model m --groups 0,1",
    "calibrate": "calibrate {store}",
    "changepoints": "changepoints {store} --model m --shuffles 100",
}
"""Those that write to the store come last."""


class Measured(NamedTuple):
    """What a command took."""

    peak: int
    seconds: float
    status: int


def lengths_of(n_frames: int) -> list[int]:
    """Frames of each session."""
    return [max(1_000, round(share * n_frames)) for share in SHARES]


def write_study(store: Path, n_frames: int) -> None:
    """Write the tracked data and a model ``m``, block by block."""
    lengths, tracked = lengths_of(n_frames), simulate_session(STUDY, 0)
    root = access.create(store)
    write_settings(root, STUDY.settings)
    group = create_keypoints(root, STUDY.settings)
    set_session_count(group, len(lengths), max(lengths))
    names = [f"mouse_{row:02d}" for row in range(len(lengths))]
    columns = ("session", "recording", "source", "source_hash", "source_format", "individual")
    write_session_rows(group, 0, dict.fromkeys(columns, names), STUDY.fps)
    sessions = [
        access.Session(name, row, lengths[row], STUDY.fps) for row, name in enumerate(names)
    ]
    for block in iter_blocks(sessions, FRAMES_PER_CHUNK):
        frames = np.arange(block.start, block.stop) % TRACKED_FRAMES
        for name in ("position", "confidence"):
            values = getattr(tracked, name)[frames]
            regions.write(group[name], block, values, n_frames=lengths[block.session])
    group["n_frames"][:] = np.asarray(lengths)
    consolidate(root)
    table = store.parent / "groups.csv"
    rows = [f"{name},{'ab'[row % 2]}" for row, name in enumerate(names)]
    table.write_text("\n".join(["session,group", *rows]) + "\n")
    annotate(store, table)
    _publish(root, tuple(sessions))


def _publish(root: access.Group, sessions: tuple[access.Session, ...]) -> None:
    rng = np.random.default_rng(0)
    names = ("syllable", "certainty", "latent", "centroid", "heading")
    writer = LabelWriter(
        root, "m", sessions=sessions, settings=STUDY.settings, names=names, n_latent=N_LATENT
    )
    for block in iter_blocks(sessions, writer.block_frames):
        n = block.n_frames
        length = rng.geometric(1 / MEAN_BOUT, n // 4 + 100)
        label = np.cumsum(rng.integers(1, N_SYLLABLES, len(length))) % N_SYLLABLES
        walk = np.cumsum(rng.normal(size=(n, 2)) * 0.02, axis=0)
        values = {
            "syllable": np.repeat(label, length)[:n].astype(np.int16),
            "certainty": rng.uniform(0.5, 1, n).astype(np.float16),
            "latent": rng.normal(size=(n, N_LATENT)).astype(np.float32),
            "centroid": (300 * np.sin(walk)).astype(np.float32),
            "heading": np.cumsum(rng.normal(size=n) * 0.05).astype(np.float32),
        }
        writer.write(block, values)
    statistics = label_statistics(WrittenLabels(writer, 0), N_SYLLABLES)
    settings = {"stage": "full", "latent_dim": N_LATENT, "n_states": N_SYLLABLES, "seed": 0}
    write_parameters(root, "m", writer.version, _parameters(), settings)
    writer.publish("fit", settings, statistics)


def _parameters() -> dict[str, object]:
    rng, n = np.random.default_rng(0), STUDY.n_keypoints
    return {
        "keypoint": list(STUDY.settings.keypoints),
        "space": list(STUDY.settings.space),
        "pose_loading": rng.normal(size=(N_LATENT, n, STUDY.n_space)) * 5,
        "pose_mean": rng.normal(size=(n, STUDY.n_space)) * 20,
    }


def measure(store: Path, words: str) -> Measured:
    """Run a command in a process of its own."""
    folder = Path(tempfile.mkdtemp(dir=store.parent))
    try:
        line = words.format(store=store, out=folder / "out").split()
        began = time.perf_counter()
        done = subprocess.run(
            [sys.executable, "-c", _RUN, *line], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
            text=True, check=False,
        )  # fmt: skip
        seconds = time.perf_counter() - began
    finally:
        shutil.rmtree(folder)
    last = done.stderr.splitlines()[-1] if done.stderr else ""
    if not last.startswith("peak "):
        raise RuntimeError(f"{words}: ended with {done.returncode}\n{done.stderr[-2000:]}")
    _, peak, status = last.split()
    if status != "0":
        sys.stderr.write(f"{words}:\n{done.stderr[-2000:]}\n")
    return Measured(int(peak), seconds, int(status))


def measured(store: Path, only: list[str]) -> Iterator[tuple[str, Measured]]:
    """Run the commands, one after the other."""
    for name, words in COMMANDS.items():
        if not only or name in only or name.split()[0] in only:
            yield name, measure(store, words)


def main() -> None:
    """Parse the options and run."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--frames", type=int, default=10_000_000)
    parser.add_argument("--only", default="", help="names of commands, with commas")
    parser.add_argument("--folder", help="where the temporary store lies")
    parser.add_argument("--json", metavar="FILE", help="figures as JSON as well")
    options = parser.parse_args()
    place = Path(tempfile.mkdtemp(dir=options.folder))
    found = {}
    try:
        began = time.perf_counter()
        write_study(place / "study.zarr", options.frames)
        print(f"written in {time.perf_counter() - began:.0f} s", file=sys.stderr, flush=True)
        print(f"| command, {options.frames:,} frames | peak | of 2 GB | s |")
        print("| --- | --- | --- | --- |")
        for name, one in measured(place / "study.zarr", [n for n in options.only.split(",") if n]):
            found[name] = one._asdict()
            failed = f" (exit code {one.status})" if one.status else ""
            figures = f"{one.peak / 1e6:,.0f} MB | {one.peak / LIMIT:.0%} | {one.seconds:.0f}"
            print(f"| `{name}`{failed} | {figures} |", flush=True)
    finally:
        shutil.rmtree(place)
    if options.json:
        Path(options.json).write_text(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
