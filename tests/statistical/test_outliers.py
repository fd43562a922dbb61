"""Labels hardly change when confident points jump; with ``none`` nothing is left of them."""

from __future__ import annotations

import numpy as np
import pytest

import kpms_zarr
from kpms_zarr.compute.analysis.agreement import adjusted_rand_index
from kpms_zarr.store.core import access
from kpms_zarr.store.model.models import open_labels
from kpms_zarr.store.study.synthetic import SyntheticStudy, simulate_session, write_store

STUDY = SyntheticStudy(n_sessions=4, n_frames=2500)
BODY = 80.0
SEEDS = (0, 1, 2, 3, 4)


def agreement(store, name, scale, seed=0) -> float:
    """Adjusted Rand index of the labels of a fit to the truth."""
    config = kpms_zarr.FitConfig(
        ar_sweeps=40, sweeps=40, n_states=30, kappa=1e4, outlier_scale=scale, certainty=False,
        seed=seed,
    )  # fmt: skip
    kpms_zarr.fit(store, model=name, config=config)
    found = np.concatenate(list(open_labels(store, name)["syllable"].values))
    truth = [simulate_session(STUDY, i).syllable for i in range(STUDY.n_sessions)]
    return adjusted_rand_index(found, np.concatenate(truth))


@pytest.mark.slow
@pytest.mark.full
@pytest.mark.parametrize("share", [0.002, 0.03])
def test_labels__of_jumping_points_are_as_good_as_those_of_the_clean_study(tmp_path, share):
    """Points jump by 2 to 6 body lengths at a confidence of 0.97."""
    store = tmp_path / "s.zarr"
    write_store(store, STUDY)
    # One chain in five takes two syllables for one, whatever the data: hence a median of some.
    clean = np.median([agreement(store, f"clean{seed}", 6.0, seed) for seed in SEEDS])
    group = access.open_group(store, "r+")["keypoints"]
    rng = np.random.default_rng(5)
    position, confidence = group["position"][...], group["confidence"][...]
    is_bad = rng.random(confidence.shape) < share
    step = rng.normal(size=position.shape)
    step *= rng.uniform(2, 6, (*is_bad.shape, 1)) / np.linalg.norm(step, axis=-1, keepdims=True)
    group["position"][...] = np.where(is_bad[..., None], position + BODY * step, position)
    group["confidence"][...] = np.where(is_bad, 0.97, confidence)
    jumping = np.median([agreement(store, f"jumping{seed}", 6.0, seed) for seed in SEEDS])
    assert jumping > clean - 0.03
    assert agreement(store, "believing", None) < clean - 0.3  # the wrong twin believes every point
