"""Both stages on the common generator, and on real mice: truth is found, seeds agree."""

import importlib.util
from pathlib import Path

import numpy as np
import pytest

import kpms_zarr
from kpms_zarr.compute.analysis.agreement import adjusted_rand_index, normalized_mutual_information
from kpms_zarr.store.core import access, regions
from kpms_zarr.store.core.blocks import iter_blocks
from kpms_zarr.store.model.models import open_labels
from kpms_zarr.store.study.keypoints import create_keypoints, set_session_count, write_session_rows
from kpms_zarr.store.study.settings import StudySettings, write_settings

GENERATOR = Path(__file__).resolve().parents[3] / "shared" / "bench" / "simulate.py"


def simulated(n_sessions: int, n_frames: int, seed: int) -> tuple[dict, list[str]]:
    """Sessions of the common generator."""
    if not GENERATOR.is_file():
        pytest.skip("the folder shared/bench with the common generator is not beside the checkout")
    spec = importlib.util.spec_from_file_location("simulate", GENERATOR)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.simulate(n_sessions, n_frames, seed=seed)


def write(store: Path, found: dict, names: list[str]) -> None:
    """Write simulated sessions into a store."""
    study = StudySettings(tuple(names), ("x", "y"), (names[-1],), (names[0],), ())
    root = access.create(store)
    write_settings(root, study)
    group = create_keypoints(root, study)
    lengths = [len(session["z"]) for session in found.values()]
    set_session_count(group, len(found), max(lengths))
    table = {name: [""] * len(found) for name in ("individual", "recording", "source")}
    table |= {"session": list(found), "source_hash": list(found)}
    table["source_format"] = ["synthetic"] * len(found)
    write_session_rows(group, 0, table, 30.0)
    group["n_frames"][:] = np.asarray(lengths)
    for session in access.sessions(root):
        values = found[session.name]
        for block in iter_blocks([session]):
            rows = slice(block.start, block.stop)
            for name, source in (("position", "coordinates"), ("confidence", "confidences")):
                part = values[source][rows].astype(np.float32)
                regions.write(group[name], block, part, n_frames=session.n_frames)


@pytest.mark.slow
def test_both_stages__recover_the_syllables_of_the_common_generator(tmp_path, full, capsys):
    """10 x 5,000 frames, 50 AR sweeps at kappa 1e6, 100 full sweeps at 1e4; reduced in CI."""
    seeds = (0, 1, 2) if full else (0,)
    size = (10, 5000) if full else (6, 2500)
    bound = 0.97 if full else 0.92
    sweeps = {"ar_sweeps": 50, "sweeps": 100} if full else {"ar_sweeps": 40, "sweeps": 50}
    scores = []
    for seed in seeds:
        found, names = simulated(*size, seed)
        store = tmp_path / f"{seed}.zarr"
        write(store, found, names)
        config = kpms_zarr.FitConfig(**sweeps, kappa=1e4, ar_kappa=1e6, seed=seed)
        result = kpms_zarr.fit(store, model="m", config=config)
        labels = open_labels(store, "m")["syllable"]
        got = np.concatenate([labels.sel(session=name).values for name in found])
        truth = np.concatenate([session["z"] for session in found.values()])
        scores.append(adjusted_rand_index(got, truth))
        mutual = normalized_mutual_information(got, truth)
        with capsys.disabled():
            print(
                f"\nseed {seed}: ARI {scores[-1]:.3f}, NMI {mutual:.3f}, "
                f"{result.n_used} of 12 syllables in use"
            )
        assert 12 <= result.n_used <= 15
        # Wrong twins: the truth one frame late, and two of its syllables taken for one.
        assert adjusted_rand_index(np.roll(truth, 1), truth) < bound
        assert adjusted_rand_index(np.where(truth == 1, 0, truth), truth) < bound
    assert min(scores) > bound


@pytest.mark.full
@pytest.mark.slow
def test_nine_mice__hit_the_target_and_two_seeds_agree(nine_mice, tmp_path, full, capsys):
    """Two seeds agree beyond chance, though not by much: the published package's with ARI 0.238.

    Pairs of default fits of these sessions were seen from 0.14 to 0.26. A bound inside that range
    would say which pair was drawn, not how well the sampler works.
    """
    points = ["spine4", "spine3", "spine2", "spine1", "head", "nose", "right ear", "left ear"]
    store = tmp_path / "mice.zarr"
    kpms_zarr.ingest(
        store, [nine_mice], fps=30, keypoints=points, anterior=["nose"], posterior=["spine4"]
    )
    kpms_zarr.pca(store)
    seeds = (0, 1) if full else (0,)
    sweeps = {} if full else {"ar_sweeps": 20, "sweeps": 40}
    labels = []
    for seed in seeds:
        config = kpms_zarr.FitConfig(target_duration=400.0, seed=seed, **sweeps)
        result = kpms_zarr.fit(store, model=f"m{seed}", config=config)
        # The target is that of the draws: reduced, the chain still moves when kappa is frozen; a
        # frame is 33 ms. Averaged labels change less often, by a sixth on these sessions.
        drawn = kpms_zarr.open_parameters(store, f"m{seed}")["trace_median_duration"].values[-1]
        assert drawn * 1000 / 30 == pytest.approx(400, rel=0.15 if full else 0.26)
        assert 0.74 * 400 <= result.median_duration <= 1.35 * 400
        found = open_labels(store, f"m{seed}")["syllable"].values
        labels.append(found[found >= 0])
    if full:
        score = adjusted_rand_index(*labels)
        with capsys.disabled():
            print(f"\ntwo seeds on the nine mice: ARI {score:.3f}")
        assert score >= 0.1
        # Wrong twin: the same labels half a second late do not agree that well.
        assert adjusted_rand_index(labels[0], np.roll(labels[1], 15)) < score
