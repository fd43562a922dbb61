"""What confident outlying points do to PCA and labels, with and without `outlier_scale`.

    python benchmarks/robustness.py [--fits] [--frames 2500] [--sweeps 40]

Prints a table: for clean and contaminated copies of one simulated study, what is found of the
contamination and what else is taken for it; principal cosines of the first two components with
those of the clean study; latent dimensions; and, with --fits, the adjusted Rand index of the labels
to the simulated truth.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import numpy as np

import kpms_zarr
from kpms_zarr.compute.alignment.alignment import AlignmentSettings
from kpms_zarr.compute.analysis.agreement import adjusted_rand_index
from kpms_zarr.compute.tracking.outliers import screen_of
from kpms_zarr.compute.tracking.plausibility import FEWEST_POINTS
from kpms_zarr.store.core import access
from kpms_zarr.store.core.blocks import iter_blocks
from kpms_zarr.store.model.models import open_labels
from kpms_zarr.store.study.settings import read_settings
from kpms_zarr.store.study.synthetic import SyntheticStudy, simulate_session, write_store

BODY = 80.0
"""Of the simulated animals, from rear to front point."""


def clean(position, rng):
    """Nothing happens."""
    return position, np.zeros(position.shape[:2], bool)


def jumps(share):
    """Points jump by 2 to 6 body lengths."""

    def change(position, rng):
        is_bad = rng.random(position.shape[:2]) < share
        angle, length = rng.uniform(0, 2 * np.pi, is_bad.shape), rng.uniform(2, 6, is_bad.shape)
        step = BODY * length[..., None] * np.stack([np.cos(angle), np.sin(angle)], -1)
        position[is_bad, :2] += step[is_bad]
        return position, is_bad

    return change


def near(position, rng):
    """3 % of the points are off by about a third of a body length."""
    is_bad = rng.random(position.shape[:2]) < 0.03
    position[is_bad] += rng.normal(size=position[is_bad].shape) * BODY / 3
    return position, is_bad


def one_value(position, rng):
    """One impossible value in the whole study."""
    is_bad = np.zeros(position.shape[:2], bool)
    if rng.bit_generator.seed_seq.entropy[-1] == 0:
        is_bad[100, 2] = True
        position[is_bad] = 1e6
    return position, is_bad


def exchanged(first, second):
    """Two points exchange their names, for half a second at a time, in 5 % of the frames."""

    def change(position, rng):
        is_bad = np.zeros(position.shape[:2], bool)
        for start in rng.integers(0, len(position) - 15, len(position) * 5 // 1500):
            is_bad[start : start + 15, [first, second]] = True
        rows = is_bad[:, first]
        position[np.ix_(rows, [first, second])] = position[np.ix_(rows, [second, first])]
        return position, is_bad

    return change


def stuck(position, rng):
    """One point stays for a tenth of the session where it was, 3 body lengths away."""
    is_bad = np.zeros(position.shape[:2], bool)
    is_bad[: len(position) // 10, 3] = True
    position[is_bad] = position[0, 3] + 3 * BODY
    return position, is_bad


KINDS = {
    "clean": clean,
    "one value of 1e6": one_value,
    "0.2 % jump": jumps(0.002),
    "3 % jump": jumps(0.03),
    "10 % jump": jumps(0.1),
    "3 % off by a third": near,
    "front and rear exchanged": exchanged(-1, 0),
    "neighbours exchanged": exchanged(3, 4),
    "one point stuck": stuck,
}


def contaminate(store, kind: str) -> dict[int, np.ndarray]:
    """Change a store in place, at a confidence of 0.97; returns session -> (frame, keypoint)."""
    group = access.open_group(store, "r+")["keypoints"]
    found = {}
    for session in access.sessions(store):
        rng = np.random.default_rng([5, session.index])
        rows = np.s_[session.index, : session.n_frames]
        position, is_bad = KINDS[kind](group["position"][rows], rng)
        group["position"][rows] = position
        group["confidence"][rows] = np.where(is_bad, 0.97, group["confidence"][rows])
        found[session.index] = is_bad
    return found


def components(result) -> np.ndarray:
    """Directions of the first two components: (2, coordinate)."""
    loading = result["pose_loading"].values[:2].reshape(2, -1)
    return np.linalg.qr(loading.T)[0].T


def cosines(result, clean_result) -> np.ndarray:
    """Principal cosines of the first two components with those of the clean study."""
    return np.linalg.svd(components(result) @ components(clean_result).T, compute_uv=False)


def detection(store, is_bad: dict[int, np.ndarray]) -> tuple[float, float]:
    """Share of the contamination that is found, and of the rest that is taken for it."""
    screen = screen_of(store, read_settings(store), AlignmentSettings(), 6.0)
    group = access.open_group(store)["keypoints"]
    hits = np.zeros(4)
    for session in access.sessions(store):
        for block in iter_blocks([session]):
            rows = slice(block.start, block.stop)
            position, confidence = (
                group[name][session.index, rows] for name in ("position", "confidence")
            )
            found = screen.find(block, position, confidence)
            is_good = np.isfinite(position).all(-1) & (confidence >= 0.5)
            bad = is_bad[session.index][rows] & is_good
            rest = is_good & ~bad
            hits += [found[bad].sum(), bad.sum(), found[rest].sum(), rest.sum()]
    recall = hits[0] / hits[1] if hits[1] else float("nan")
    return recall, hits[2] / hits[3]


def agreement(store, study: SyntheticStudy, scale: float | None, sweeps: int) -> float:
    """Adjusted Rand index of the labels of a fit to the truth."""
    config = kpms_zarr.FitConfig(
        ar_sweeps=sweeps, sweeps=sweeps, n_states=30, kappa=1e4, outlier_scale=scale,
        certainty=False,
    )  # fmt: skip
    name = f"m{scale}".replace(".", "_")
    kpms_zarr.fit(store, model=name, config=config)
    labels = open_labels(store, name)["syllable"].values
    pairs = [
        (labels[i, : len(truth)], truth)
        for i, truth in enumerate(
            simulate_session(study, i).syllable for i in range(study.n_sessions)
        )
    ]
    found, truth = (np.concatenate(values) for values in zip(*pairs, strict=True))
    return adjusted_rand_index(found, truth)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--fits", action="store_true", help="also fit and compare labels")
    parser.add_argument("--frames", type=int, default=2500, help="of each of four sessions")
    parser.add_argument("--sweeps", type=int, default=40, help="of each stage")
    parser.add_argument("--kinds", nargs="*", default=list(KINDS))
    options = parser.parse_args()
    study = SyntheticStudy(n_sessions=4, n_frames=options.frames, n_keypoints=8)
    assert study.n_keypoints >= FEWEST_POINTS
    head = "| contamination | outlier_scale | found | rest taken for it | cosines | latent dim |"
    print(head + (" ARI |" if options.fits else ""))
    print("| --- | --- | --- | --- | --- | --- |" + (" --- |" if options.fits else ""))
    reference = None
    with tempfile.TemporaryDirectory() as folder:
        for number, kind in enumerate(dict.fromkeys(["clean", *options.kinds])):
            store = Path(folder) / f"{number}.zarr"
            write_store(store, study)
            is_bad = contaminate(store, kind)
            recall, wrong = detection(store, is_bad)
            for scale in (None, 6.0):
                result = kpms_zarr.pca(store, outlier_scale=scale)
                reference = result if reference is None else reference
                first, second = cosines(result, reference)
                cells = [kind, str(scale or "none")]
                cells += [f"{recall:.1%}", f"{wrong:.2%}"] if scale else ["", ""]
                cells += [f"{first:.3f}, {second:.3f}", str(result.attrs["n_components"])]
                if options.fits:
                    cells.append(f"{agreement(store, study, scale, options.sweeps):.3f}")
                print("| " + " | ".join(cells) + " |", flush=True)


if __name__ == "__main__":
    main()
