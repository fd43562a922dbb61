"""Models of given parameters: the true ones find the truth, other seeds are other labellings."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import kpms_zarr
from helpers.small import N_KEYPOINTS, SMALL
from kpms_zarr.store.core import attributes
from kpms_zarr.store.model.given import write_reseeded, write_truth
from kpms_zarr.store.study.close_pairs import START_VARIANCE, ClosePairs
from kpms_zarr.store.study.synthetic import write_store

STUDY = ClosePairs(lengths=(500, 400, 60), n_pairs=5, n_keypoints=N_KEYPOINTS, n_latent=3, seed=4)
"""Ten states, three latent dims, six keypoints: the shapes of the small fit."""
*NEW, KNOWN = STUDY.session_names
SETTINGS = SMALL.resolved(
    stage="full", scale="none", outlier_scale=None, sample_noise_variance="none",
    latent_start_variance=START_VARIANCE, certainty=False,
)  # fmt: skip


@pytest.fixture(scope="module")
def store(tmp_path_factory) -> Path:
    """Labelled with the true parameters, as ``truth``."""
    store = tmp_path_factory.mktemp("given") / "study.zarr"
    write_store(store, STUDY)
    kpms_zarr.pca(store, variance=0.99)
    settings = {**SETTINGS.to_dict(), "given": []}
    write_truth(store, STUDY, model="truth", settings=settings, session=2)
    kpms_zarr.apply(store, model="truth", sessions=NEW, check=False, draw=True, sweeps=30)
    return store


def to_truth(store: Path, model: str) -> float:
    truth = {name: STUDY.session(i).syllable for i, name in enumerate(NEW)}
    found = kpms_zarr.compare(store, models=[model], labels={"drawn": truth}, sessions=NEW)
    return found.pairs[0].adjusted_rand_index


@pytest.mark.full
def test_true_parameters__label_nearer_to_the_truth_than_those_of_another_study(store):
    wrong = replace(STUDY, seed=5)  # the body and the syllables of another animal
    mixed = STUDY.truth._replace(**{
        name: getattr(wrong.truth, name) for name in ("weight", "bias", "covariance")
    })  # fmt: skip
    twin = replace(STUDY)
    twin.__dict__["truth"] = mixed
    settings = {**SETTINGS.to_dict(), "given": []}
    write_truth(store, twin, model="wrong", settings=settings, session=2)
    kpms_zarr.apply(store, model="wrong", sessions=NEW, check=False, draw=True, sweeps=30)
    assert to_truth(store, "truth") > to_truth(store, "wrong") + 0.2


def test_same_parameters__label_the_same_with_the_same_seed_and_otherwise_with_another(store):
    labels = []
    for name, seed in (("one", 0), ("two", 1)):
        write_reseeded(store, model="truth@v1", name=name, seed=seed, session=KNOWN)
        kpms_zarr.apply(store, model=name, sessions=NEW[1:], check=False, draw=True, sweeps=30)
        labels.append(kpms_zarr.open_labels(store, name).sel(session=NEW[1])["syllable"].values)
    of_truth = kpms_zarr.open_labels(store, "truth").sel(session=NEW[1])["syllable"].values
    np.testing.assert_array_equal(labels[0][:400], of_truth[:400])
    share = (labels[0][:400] == labels[1][:400]).mean()
    assert 0.5 < share < 1


def test_copy__of_a_fit_labels_its_sessions_as_new(store):
    kpms_zarr.fit(store, model="fit", config=SMALL)
    write_reseeded(store, model="fit", name="copy", seed=9, session=KNOWN)
    done = kpms_zarr.apply(store, model="copy", sessions=NEW[1:], check=False, draw=True, sweeps=12)
    assert done.again == ()
    one, two = (kpms_zarr.open_labels(store, name).sel(session=KNOWN) for name in ("fit", "copy"))
    for name in ("syllable", "certainty", "latent"):
        np.testing.assert_array_equal(one[name].values[:60], two[name].values[:60])
    before, after = (kpms_zarr.open_parameters(store, name) for name in ("fit", "copy"))
    told, again = (dict(attributes.read(one.attrs)) for one in (before, after))
    own = ("provenance", "fit_id")
    assert {k: v for k, v in told.items() if k not in own} == {
        k: v for k, v in again.items() if k not in own
    }
    assert any(isinstance(value, dict | list) for value in told.values())
    np.testing.assert_array_equal(before["ar_weight"].values, after["ar_weight"].values)
