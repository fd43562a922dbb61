"""How long the ethogram of a large study takes in a browser, and what the server holds in memory.

    python benchmarks/explore_speed.py                  # 1,000 sessions of 100,000 frames
    python benchmarks/explore_speed.py --keep /tmp/large.zarr

Writes a store (labels of geometric bouts, tracked data of the first frames of every session),
builds its levels of detail, starts the server in a process of its own and looks at it with headless
Chromium, as a person would: zooms are boxes drawn with the mouse, and their time is that from
letting go to the last redraw of the raster, all that server, network and browser do included.
Then, in this process, where an animal was in a session of 28 hours.
Prints a Markdown table.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import psutil

from kpms_zarr.compute.runs.summaries import label_statistics
from kpms_zarr.compute.sampler.chain import ChainIndex
from kpms_zarr.store.core import access
from kpms_zarr.store.core.blocks import Block
from kpms_zarr.store.core.consolidation import consolidate
from kpms_zarr.store.model import models
from kpms_zarr.store.model.levels import build_levels
from kpms_zarr.store.study.keypoints import create_keypoints, set_session_count, write_session_rows
from kpms_zarr.store.study.settings import write_settings
from kpms_zarr.store.study.synthetic import SyntheticStudy, simulate_session
from kpms_zarr.viz.player.data import open_session
from kpms_zarr.viz.player.places import gather, read_places

N_SYLLABLES = 60
MEAN_BOUT = 12
FPS = 30.0
TRACKED_FRAMES = 2_000
SERVE = "import sys; from kpms_zarr.cli import main; sys.exit(main())"
PARAMETERS = {"seed": 0}


def make_store(store: Path, n_sessions: int, n_frames: int, *, has_centroids: bool = False) -> None:
    """A study whose labels are drawn and whose tracked data are mostly missing."""
    study = SyntheticStudy(n_sessions=1, n_frames=TRACKED_FRAMES, fps=FPS)
    tracked = simulate_session(study, 0)
    root = access.create(store)
    write_settings(root, study.settings)
    group = create_keypoints(root, study.settings)
    set_session_count(group, n_sessions, n_frames)
    names = [f"mouse_{row:04d}" for row in range(n_sessions)]
    text = dict.fromkeys(("recording", "source", "source_format", "individual"), names)
    write_session_rows(group, 0, {"session": names, "source_hash": names, **text}, FPS)
    for row in range(n_sessions):
        for name in ("position", "confidence"):
            group[name][row, :TRACKED_FRAMES] = getattr(tracked, name)
    group["n_frames"][:] = np.full(n_sessions, n_frames)
    consolidate(root)
    _publish(root, study, n_frames, has_centroids)


def _publish(root: access.Group, study: SyntheticStudy, n_frames: int, has_centroids: bool) -> None:
    sessions = access.sessions(root)
    names = ("syllable", "centroid") if has_centroids else ("syllable",)
    writer = models.LabelWriter(
        root, "large", sessions=sessions, settings=study.settings, names=names
    )
    rng = np.random.default_rng(0)
    every = np.empty(len(sessions) * n_frames, np.int16)
    n_bouts = int(1.2 * n_frames / MEAN_BOUT) + 100
    weight = 1 / np.arange(3, N_SYLLABLES + 3)
    for row in range(len(sessions)):
        duration = rng.geometric(1 / MEAN_BOUT, n_bouts)
        label = rng.choice(N_SYLLABLES, n_bouts, p=weight / weight.sum())
        labels = np.repeat(label, duration)[:n_frames].astype(np.int16)
        every[row * n_frames : (row + 1) * n_frames] = labels
        for start in range(0, n_frames, writer.block_frames):
            block = Block(row, start, min(start + writer.block_frames, n_frames))
            values = {"syllable": labels[start : block.stop]}
            if has_centroids:  # a walk within a round arena
                turn = np.cumsum(rng.normal(size=(block.n_frames, 2)) * 0.02, axis=0)
                values["centroid"] = (300 * np.sin(turn)).astype(np.float32)
            writer.write(block, values)
    chain = SimpleNamespace(syllable=every, index=ChainIndex.of(sessions, 1))
    statistics = label_statistics(chain, N_SYLLABLES)
    models.write_parameters(root, "large", writer.version, _parameters(study), PARAMETERS)
    writer.publish("fit", PARAMETERS, statistics)


def _parameters(study: SyntheticStudy) -> dict[str, object]:
    rng, n = np.random.default_rng(0), 20
    return {
        "keypoint": list(study.settings.keypoints),
        "space": list(study.settings.space),
        "pose_loading": rng.normal(size=(4, study.n_keypoints, study.n_space)) * 5,
        "pose_mean": rng.normal(size=(study.n_keypoints, study.n_space)) * 20,
        "trace_log_likelihood": -3 - np.exp(-np.arange(n) / 6),
        "trace_kappa": np.full(n, 1e4),
        "trace_median_duration": np.full(n, float(MEAN_BOUT)),
        "trace_n_used": np.full(n, N_SYLLABLES),
        "trace_usage": np.full((n, N_SYLLABLES), 1 / N_SYLLABLES),
        "trace_seconds": np.ones(n),
    }


# ---------------------------------------------------------------------- the server and the browser

IS_DRAWN = """() => {
  const found = window.Bokeh && Bokeh.documents.length && Bokeh.documents[0].is_idle;
  return found && [...Bokeh.documents[0]._all_models.values()].some(m => m.type == "Image");
}"""
WATCH = """() => {
  window.redrawn = [];
  const models = [...Bokeh.documents[0]._all_models.values()];
  const renderers = models.filter(m => m.type == "GlyphRenderer" && m.glyph.type == "Image");
  for (const one of renderers) {
    const source = one.data_source;
    source.connect(source.properties.data.change, () => requestAnimationFrame(
      () => requestAnimationFrame(() => window.redrawn.push(performance.now()))));
  }
  window.addEventListener("pointerup", () => { window.released = performance.now() }, true);
}"""


@dataclass
class Measured:
    """What was measured, in s; of CPU, that of the server and of all processes of the browser."""

    ready: float
    first: list[float]
    first_cpu: list[tuple[float, float]]
    zooms: list[float]
    zooms_cpu: list[tuple[float, float]]
    bytes_held: int
    bytes_peak: int


def measure(store: Path, n_zooms: int) -> Measured:
    """Look at the ethogram of a store as a person would."""
    began = time.perf_counter()
    command = [sys.executable, "-c", SERVE, "explore", str(store), "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        try:
            assert server.stdout is not None
            link = server.stdout.readline().removeprefix("ready:").strip()
            ready = time.perf_counter() - began
            found = _look(f"{link}?page=ethogram", n_zooms, server.pid)
            status = Path(f"/proc/{server.pid}/status").read_text()
            peak = int(status.split("VmHWM:")[1].split()[0]) * 1024
            held = psutil.Process(server.pid).memory_info().rss
        finally:
            server.terminate()
    return Measured(ready, *found, held, peak)


def _cpu(server: int) -> np.ndarray:
    """CPU time so far of the server, and of all else that this process has started."""
    spent = np.zeros(2)
    for one in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess):
            times = one.cpu_times()
            spent[int(one.pid != server)] += times.user + times.system
    return spent


def _look(
    link: str, n_zooms: int, server: int
) -> tuple[list[float], list[tuple[float, float]], list[float], list[tuple[float, float]]]:
    """Seconds until the first views are drawn, and until the bins of random zooms are."""
    from playwright.sync_api import sync_playwright

    rng = np.random.default_rng(1)
    quiet = ["--disable-quic", "--no-first-run", "--disable-background-networking"]
    quiet += ["--no-sandbox", "--disable-gpu", "--disable-component-update", "--disable-sync"]
    first, first_cpu, zooms, zooms_cpu = [], [], [], []
    with sync_playwright() as playwright:
        path = shutil.which("chromium")
        browser = playwright.chromium.launch(executable_path=path, args=quiet)
        for _ in range(3):  # the second and third with what the server keeps, not the browser
            page = browser.new_context(viewport={"width": 1280, "height": 800}).new_page()
            began, spent = time.perf_counter(), _cpu(server)
            page.goto(link)
            page.wait_for_function(IS_DRAWN, timeout=120_000)
            page.evaluate("() => new Promise(requestAnimationFrame)")
            first.append(time.perf_counter() - began)
            first_cpu.append(tuple(_cpu(server) - spent))
            page.wait_for_timeout(3000)
        page.evaluate(WATCH)
        box = page.locator("canvas").first.bounding_box()
        assert box is not None
        while len(zooms) < n_zooms:
            for _ in range(3):  # each within the one before
                spent = _cpu(server)
                zooms.append(_zoom(page, box, rng))
                zooms_cpu.append(tuple(_cpu(server) - spent))
            page.locator(".bk-tool-icon-reset").first.click()
            page.wait_for_timeout(2000)
        browser.close()
    return first, first_cpu, zooms[:n_zooms], zooms_cpu[:n_zooms]


def _zoom(page: Any, box: dict[str, float], rng: np.random.Generator) -> float:
    """Draw a box with the mouse: seconds from letting go until the last redraw."""
    size = 0.03 * (0.7 / 0.03) ** rng.uniform(size=2)
    corner = 0.12 + rng.uniform(size=2) * (0.75 - size)
    at = [
        (box["x"] + x * box["width"], box["y"] + y * box["height"])
        for x, y in (corner, corner + size)
    ]
    page.mouse.move(*at[0])
    page.mouse.down()
    page.mouse.move(*at[1], steps=3)
    page.evaluate("() => { window.redrawn = [] }")
    page.mouse.up()
    page.wait_for_function("() => window.redrawn.length > 0", timeout=60_000)
    page.wait_for_timeout(700)
    return float(page.evaluate("() => window.redrawn.at(-1) - window.released")) / 1000


def measure_places(store: Path, n_zooms: int) -> tuple[int, int, float, float]:
    """Where the animal was: frames, those of them read, s to read them, s to gather them anew."""
    opened = open_session(store, model="large")
    n_frames = opened.session.n_frames
    began = time.perf_counter()
    found = read_places(opened, 0, n_frames)
    took = time.perf_counter() - began
    seconds, rng = [], np.random.default_rng(2)
    gather(found, (-300.0, 300.0), (-300.0, 300.0))  # compiles
    for _ in range(n_zooms):
        x, y = np.sort(rng.uniform(-300, 300, (2, 2)))
        began = time.perf_counter()
        gather(found, tuple(x), tuple(y))
        seconds.append(time.perf_counter() - began)
    return n_frames, found.n_read, took, float(np.max(seconds))


def _said(cpu: Any) -> str:
    return ", ".join(f"{seconds:.2f} s" for seconds in cpu)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sessions", type=int, default=1000)
    parser.add_argument("--frames", type=int, default=100_000, help="of each session")
    parser.add_argument("--long", type=int, default=3_000_000, help="frames of a long session")
    parser.add_argument("--zooms", type=int, default=20)
    parser.add_argument("--keep", type=Path, help="where the store is made, or is already")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        store = options.keep or Path(folder) / "large.zarr"
        if not store.exists():
            began = time.perf_counter()
            make_store(store, options.sessions, options.frames)
            print(f"store made in {time.perf_counter() - began:.0f} s", file=sys.stderr)
        built = build_levels(store, "large", overwrite=True)
        found = measure(store, options.zooms)
        make_store(Path(folder) / "long.zarr", 1, options.long, has_centroids=True)
        n_all, n_read, reading, gathering = measure_places(
            Path(folder) / "long.zarr", options.zooms
        )
    zooms = np.array(found.zooms)
    rows = [
        ("levels of detail built", f"{built.seconds:.1f} s", "well under 60 s", ""),
        ("server ready", f"{found.ready:.1f} s", "", ""),
        *(
            (f"first view of window {i + 1}", f"{wall:.2f} s", "< 3 s", _said(cpu))
            for i, (wall, cpu) in enumerate(zip(found.first, found.first_cpu, strict=True))
        ),
        (
            f"zoom, median of {len(zooms)}",
            f"{np.median(zooms):.2f} s",
            "< 0.5 s",
            _said(np.median(found.zooms_cpu, axis=0)),
        ),
        ("zoom, slowest", f"{zooms.max():.2f} s", "< 0.5 s", ""),
        ("memory of the server", f"{found.bytes_held / 1e6:.0f} MB", "< 1,500 MB", ""),
        ("its peak", f"{found.bytes_peak / 1e6:.0f} MB", "< 1,500 MB", ""),
        (
            f"where an animal was: {n_read:,} of {n_all:,} frames read",
            f"{reading:.2f} s",
            "< 3 s",
            "",
        ),
        ("gathered anew, slowest", f"{gathering:.2f} s", "< 0.5 s", ""),
    ]
    sessions = access.sessions(access.open_group(store))
    print(
        f"{len(sessions):,} sessions of {sessions[0].n_frames:,} frames; {os.cpu_count()} cores, "
        f"load {os.getloadavg()[0]:.1f}\n"
    )
    print("| what | measured | target | CPU time of server, browser |\n| --- | --- | --- | --- |")
    for row in rows:
        print("| " + " | ".join(row) + " |")


if __name__ == "__main__":
    main()
