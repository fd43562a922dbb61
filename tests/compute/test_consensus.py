"""Consensus of models: what votes give, sessions applied by them, ensembles that are resumed."""

from __future__ import annotations

import errno
import os
import random
import shutil
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import kpms_zarr
from helpers.small import N_KEYPOINTS, SMALL
from kpms_zarr import cli
from kpms_zarr.compute.analysis import agreement
from kpms_zarr.compute.analysis.groups.compare_groups import chain_tables
from kpms_zarr.compute.events import Noted, SweepEnded
from kpms_zarr.compute.runs import chain_jobs, ensemble
from kpms_zarr.compute.runs.ensemble import chain_config, chain_names
from kpms_zarr.store.core import access
from kpms_zarr.store.core.provenance import provenance_of
from kpms_zarr.store.errors import InputError
from kpms_zarr.store.model import checkpoints
from kpms_zarr.store.model.given import write_reseeded
from kpms_zarr.store.study import synthetic

STUDY = synthetic.SyntheticStudy(
    lengths=(500, 450, 400, 300, 3), n_syllables=5, n_keypoints=N_KEYPOINTS, n_latent=3, seed=5
)
NAMES = STUDY.session_names
FITTED, NEW, SHORT = NAMES[:3], NAMES[3], NAMES[4]
CONFIG = replace(SMALL, ar_sweeps=8, sweeps=4, sessions=("session_00[0-2]",), seed=7)
CHAINS = 4


@pytest.fixture(scope="module")
def original(tmp_path_factory) -> Path:
    """With the ensemble ``e`` of four chains, fitted to three of five sessions."""
    store = tmp_path_factory.mktemp("consensus") / "study.zarr"
    synthetic.write_store(store, STUDY)
    kpms_zarr.pca(store, variance=0.99)
    kpms_zarr.fit(store, model="e", config=CONFIG, chains=CHAINS)
    return store


@pytest.fixture
def unfitted(tmp_path: Path) -> Path:
    store = tmp_path / "study.zarr"
    synthetic.write_store(store, STUDY)
    kpms_zarr.pca(store, variance=0.99)
    return store


@pytest.fixture
def store(original: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(original, tmp_path / "study.zarr"))


def labels_of(store: Path, model: str, session: str, name: str = "syllable") -> np.ndarray:
    one = kpms_zarr.open_labels(store, model).sel(session=session)
    return np.asarray(one[name].values[: int(one["n_frames"])])


# ------------------------------------------------------------------ what is published


def test_consensus__certainty_is_the_share_of_the_members_that_vote_for_the_label(original):
    parameters = kpms_zarr.open_parameters(original, "e").load()
    assert parameters["member"].values.tolist() == chain_names("e", CHAINS)
    votes = parameters["member_syllable"].values
    assert votes.shape[0] == CHAINS
    assert votes.max() + 1 == parameters.sizes["state"]
    # The members label by their parameters as one that is applied does: compare by what each
    # publishes, which is one draw, and therefore mostly the same.
    name = FITTED[0]
    label = labels_of(original, "e", name)
    share = np.zeros(len(label))
    for member, of_member in zip(parameters["member"].values, votes, strict=True):
        share += of_member[labels_of(original, str(member), name)] == label
    certainty = labels_of(original, "e", name, "certainty").astype(float)
    known = np.isfinite(certainty)
    assert known.sum() == len(label) - CONFIG.lags
    # Members whose state has no vote count for nothing.
    assert np.corrcoef(share[known] / CHAINS, certainty[known])[0, 1] > 0.7
    steps = certainty[known] * 12  # of 4, 3, 2 or 1 members: multiples of 1/12
    np.testing.assert_allclose(steps, np.round(steps), atol=0.05)
    second = labels_of(original, "e", name, "second_syllable")
    assert not (second[known] == label[known]).any()
    assert ((second[known] >= 0) | (certainty[known] > 0.99)).all()


def test_consensus__numbers_syllables_by_frequency_and_says_how_far_it_replicates(original):
    labels = kpms_zarr.open_labels(original, "e").load()
    frequency = labels["frequency"].values
    assert (np.diff(frequency) <= 1e-9).all()
    for name in ("replicability", "member_agreement"):
        values = labels[name].values[frequency > 0]
        assert ((values >= 0) & (values <= 1)).all()
    assert 0 < labels.attrs["half_rand_index"] <= 1
    assert 0 < labels.attrs["half_matched_share"] <= 1


def test_consensus__is_nearer_to_the_truth_than_its_members(original):
    truth = np.concatenate([synthetic.simulate_session(STUDY, i).syllable for i in range(3)])

    def to_truth(model: str) -> float:
        z = np.concatenate([labels_of(original, model, name) for name in FITTED])
        return agreement.adjusted_rand_index(z, truth)

    members = [to_truth(name) for name in chain_names("e", CHAINS)]
    assert to_truth("e") > np.mean(members)


def test_consensus__has_a_pose_given_its_labels(original):
    rebuilt = kpms_zarr.reconstruct(original, "e").compute()
    position = access.open_group(original)["keypoints/position"]
    error = (
        np.asarray(rebuilt.sel(session=FITTED[0]).values) - position[0, : rebuilt.sizes["frame"]]
    )
    scale = float(np.nanstd(position[0]))
    assert np.nanmedian(np.abs(error)) < 0.1 * scale
    assert kpms_zarr.open_parameters(original, "e")["trace_stage"].values.tolist() == ["full"] * 4


# ------------------------------------------------------------------ sessions that are applied


def test_apply__of_a_session_of_the_fit_gives_its_labels_again(store):
    before = {name: labels_of(store, "e", name) for name in FITTED}
    found = kpms_zarr.apply(store, model="e", sessions=[*FITTED[:2], NEW], check=False)
    for name in FITTED:
        np.testing.assert_array_equal(labels_of(store, "e", name), before[name])
    assert found.agreement == 1
    assert found.settled
    with_others = labels_of(store, "e", NEW)
    latent = labels_of(store, "e", NEW, "latent")
    kpms_zarr.apply(store, model="e", sessions=[NEW], check=False)
    np.testing.assert_array_equal(labels_of(store, "e", NEW), with_others)
    assert latent.std() > 0


def test_apply__compares_a_session_as_if_it_were_new(store):
    found = kpms_zarr.apply(store, model="e", sessions=[NEW])
    assert found.as_new in FITTED
    assert found.new_agreement == 1


def test_apply__draw_of_a_consensus_is_one_of_its_own_parameters(store):
    found = kpms_zarr.apply(store, model="e", sessions=[NEW], draw=True, check=False, sweeps=2)
    assert found.labelled == (NEW,)


@pytest.mark.full
def test_copy__of_a_consensus_with_another_seed_labels_the_same(store):
    """Nothing in its labels is drawn, and it needs none of the labels that it had."""
    write_reseeded(store, model="e", name="copy", seed=99, session=FITTED[0])
    done = kpms_zarr.apply(store, model="copy", sessions=FITTED[1:], check=False)
    assert done.again == ()
    for name in FITTED:
        np.testing.assert_array_equal(labels_of(store, "copy", name), labels_of(store, "e", name))
    latent = [labels_of(store, model, FITTED[1], "latent") for model in ("copy", "e")]
    assert (latent[0] != latent[1]).any()


def test_apply__without_a_member_says_what_is_missing(store):
    shutil.rmtree(store / "models" / "e-03")
    with pytest.raises(InputError, match="no model 'e-03'"):
        kpms_zarr.apply(store, model="e", sessions=[NEW], check=False)


@pytest.mark.full
def test_consensus__of_another_kind_of_model_takes_its_published_labels(store):
    kpms_zarr.fit(store, model="full", config=CONFIG)
    found = kpms_zarr.consensus(
        store, models=["e-01", "full"], model="two", target_duration=1.0, sweeps=1
    )
    assert np.isnan(found.half_rand_index)
    parameters = kpms_zarr.open_parameters(store, "two")
    assert parameters["member_is_applied"].values.tolist() == [1, 0]
    votes = parameters["member_syllable"].values[1]
    share = np.zeros(0)
    for name in FITTED:
        z, own = (labels_of(store, model, name)[CONFIG.lags :] for model in ("two", "full"))
        certainty = labels_of(store, "two", name, "certainty")[CONFIG.lags :]
        # Both vote for it where both do, and then it is certain.
        share = np.append(share, (votes[own] == z)[certainty == 1])
    assert share.size > 100
    assert share[share == 0].size < 0.2 * share.size  # those whose state has no vote
    applied = kpms_zarr.apply(store, model="two", sessions=[NEW], check=False, sweeps=2, draw=False)
    assert any("not all models of the consensus" in note for note in applied.notes)


@pytest.mark.full
def test_consensus__of_models_on_other_components_labels_each_on_its_own(store):
    two_dims = replace(CONFIG, stage="ar", sweeps=8, latent_dim=2, lags=2, seed=3)
    kpms_zarr.fit(store, model="flat", config=two_dims)
    kpms_zarr.consensus(store, models=["e-01", "flat"], model="both", sweeps=1)
    parameters = kpms_zarr.open_parameters(store, "both")
    assert parameters["member_is_applied"].values.tolist() == [1, 1]
    assert parameters.sizes["latent_dim"] == 3
    votes, z = parameters["member_syllable"].values, labels_of(store, "both", FITTED[0])[3:]
    cast = [votes[i][labels_of(store, m, FITTED[0])[3:]] for i, m in enumerate(["e-01", "flat"])]
    # By what each publishes, one draw, and so mostly the label by which it votes.
    agreed = (cast[0] == z) & (cast[1] == z)
    certainty = labels_of(store, "both", FITTED[0], "certainty")[3:]
    assert certainty[agreed].mean() > 0.9
    assert certainty[(cast[0] >= 0) & (cast[1] >= 0) & (cast[0] != cast[1])].mean() < 0.75
    before = labels_of(store, "both", FITTED[0])
    found = kpms_zarr.apply(store, model="both", sessions=[FITTED[0], NEW], check=False)
    assert found.agreement == 1
    np.testing.assert_array_equal(labels_of(store, "both", FITTED[0]), before)


# ------------------------------------------------------------------ ensembles


def test_chains__have_seeds_of_their_own():
    seeds = {chain_config(replace(CONFIG, seed=s), i).seed for s in range(20) for i in range(1, 20)}
    assert len(seeds) == 380
    assert all(0 <= seed < 2**63 for seed in seeds)


def test_ensemble__stopped_in_the_second_chain_ends_as_if_it_had_not(original, tmp_path):
    store = tmp_path / "study.zarr"
    synthetic.write_store(store, STUDY)
    kpms_zarr.pca(store, variance=0.99)
    seen: list[Any] = []

    def stop(event: Any) -> None:
        seen.append(event)
        n_chains = sum(isinstance(e, Noted) and e.text.startswith("chain") for e in seen)
        if isinstance(event, SweepEnded) and n_chains == 2 and event.sweep == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        kpms_zarr.fit(
            store, model="e", config=CONFIG, chains=CHAINS, callbacks=[stop], save_every=1
        )
    with pytest.raises(InputError, match="resume"):
        kpms_zarr.fit(store, model="e", config=CONFIG, chains=CHAINS)
    kpms_zarr.fit(store, model="e", chains=CHAINS, resume=True)
    for name in FITTED:
        for variable in ("syllable", "certainty", "latent"):
            np.testing.assert_array_equal(
                labels_of(store, "e", name, variable), labels_of(original, "e", name, variable)
            )


class Full:
    """A disk that is full from some time on."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.is_full = False
        write = checkpoints.regions.write

        def refuse(*arguments: Any, **options: Any) -> None:
            if self.is_full:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            write(*arguments, **options)

        monkeypatch.setattr(checkpoints.regions, "write", refuse)


@pytest.mark.full
def test_ensemble__storage_that_fails_in_a_chain_says_how_to_go_on_with_the_ensemble(
    unfitted, monkeypatch
):
    store = unfitted
    disk, seen = Full(monkeypatch), list[Any]()

    def fill(event: Any) -> None:
        seen.append(event)
        n_chains = sum(isinstance(e, Noted) and e.text.startswith("chain") for e in seen)
        disk.is_full = isinstance(event, SweepEnded) and n_chains == 2 and event.sweep == 2

    with pytest.raises(OSError, match="No space left") as caught:
        kpms_zarr.fit(store, model="e", config=CONFIG, chains=2, callbacks=[fill], save_every=1)
    how = f"go on with: `kpms_zarr.fit('{store}', model='e', chains=2, resume=True)`"
    assert f"sweep 1 of chain 2 of 2 of the ensemble 'e' is committed. Fix this, then {how}" in str(
        caught.value
    )
    disk.is_full = False
    assert kpms_zarr.fit(store, model="e", chains=2, resume=True).members == ("e-01", "e-02")


@pytest.mark.parametrize(
    ("where", "stands"),
    [
        ("fit_one", "chain 1 of 2 of the ensemble 'x' is not finished, those before it are"),
        ("make_consensus", "all 2 chains of the ensemble 'x' are finished"),
    ],
)
def test_ensemble__storage_that_fails_anywhere_says_so_in_options(
    unfitted, monkeypatch, capsys, where, stands
):
    def fails(*arguments: Any, **options: Any) -> None:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), "models/x")

    monkeypatch.setattr(chain_jobs, "fit_one", lambda *arguments, **options: None)
    monkeypatch.setattr(chain_jobs if where == "fit_one" else ensemble, where, fails)
    assert cli.main(["fit", str(unfitted), "--model", "x", "--chains", "2", "--quiet"]) == 1
    said = capsys.readouterr().err
    assert f"Permission denied: models/x; {stands}. Fix this, then go on with: " in said
    assert f"kpms-zarr fit {unfitted} --model x --chains 2 --resume" in said


@pytest.mark.full
def test_ensemble__that_is_resumed_with_more_chains_keeps_those_that_it_has(store, monkeypatch):
    fitted = []
    fit_one = chain_jobs.fit_one

    def watched(*arguments: Any, model: str, **options: Any) -> Any:
        fitted.append(model)
        return fit_one(*arguments, model=model, **options)

    monkeypatch.setattr(chain_jobs, "fit_one", watched)
    found = kpms_zarr.fit(store, model="e", chains=CHAINS + 1, resume=True)
    assert fitted == ["e-05"]
    assert found.version == "v2"
    assert len(found.members) == CHAINS + 1
    with pytest.raises(InputError, match="5 chains, all finished"):
        kpms_zarr.fit(store, model="e", chains=CHAINS + 1, resume=True)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"models": ["e-01"]}, "two models or more"),
        ({"models": ["e-01", "e-01"]}, "different models"),
        ({"models": ["e-01", "x"]}, "different models"),
        ({"models": ["e-01", "none"]}, "a fitted model named 'none'"),
        ({"models": ["e-01", "e-02"], "model": "e-03"}, "in use"),
        ({"models": ["e-01", "e-02"], "sweeps": 0}, "whole number of sweeps"),
        ({"models": ["e-01", "e-02"], "sessions": ["nobody"]}, "nobody"),
    ],
)
def test_consensus__refuses_what_makes_no_sense(original, options, words):
    with pytest.raises(InputError, match=words):
        kpms_zarr.consensus(original, **{"model": "x", **options})
    assert "x" not in access.open_group(original)["models"]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"chains": 0}, "a whole number of chains"),
        ({"chains": 100}, "a whole number of chains"),
        ({"chains": True}, "a whole number of chains"),
        ({"chains": 2, "config": replace(CONFIG, stage="full")}, "stage='ar'"),
        ({"chains": 2, "resume": True}, "an ensemble to go on with"),
        ({"chains": 2, "resume": True, "overwrite": True}, "one of `resume=True`"),
    ],
)
def test_chains__refuse_what_makes_no_sense(original, options, words):
    with pytest.raises(InputError, match=words):
        kpms_zarr.fit(original, model="x", **options)
    assert "x" not in access.open_group(original)["models"]


def test_pilot__finds_the_stickiness_that_all_chains_keep(original):
    with_target = replace(CONFIG, target_duration=300.0)
    pilot, *chains = ensemble.group_of("x", with_target, 3, 0)
    assert (pilot.name, pilot.is_pilot, pilot.pilot) == ("x-00", True, "")
    assert pilot.settled(original).target_duration == 300
    assert [chain.name for chain in chains] == chain_names("x", 3)
    assert {chain.pilot for chain in chains} == {"x-00"}
    assert not any(chain.is_pilot for chain in chains)
    settled = replace(chains[0], pilot="e-01").settled(original)
    ended_with = kpms_zarr.open_parameters(original, "e-01")["trace_kappa"].values[-1]
    assert (settled.kappa, settled.target_duration) == (ended_with, None)
    assert ensemble.group_of("x", CONFIG, 3, 0)[0].name == "x-01"


def test_chains__merge_states_unless_it_is_said_otherwise():
    assert chain_config(CONFIG, 1).merge_sweeps == ensemble.MERGE_SWEEPS
    assert chain_config(kpms_zarr.FitConfig(merge_sweeps=0), 1).merge_sweeps == 0


def test_info__lists_chains_behind_the_ensemble_that_they_belong_to(original):
    found = kpms_zarr.info(original).models
    assert [model.name for model in found] == ["e", *chain_names("e", CHAINS)]
    assert [model.ensemble for model in found] == ["", *["e"] * CHAINS]


def test_ensembles__of_other_seeds_agree_more_than_chains_and_know_how_far(store):
    kpms_zarr.fit(store, model="o", config=replace(CONFIG, seed=8), chains=CHAINS)
    both = kpms_zarr.compare(store, models=["e", "o"]).pairs[0]
    names = [*chain_names("e", CHAINS), *chain_names("o", CHAINS)]
    every = kpms_zarr.compare(store, models=names)
    single = [every.pair(a, b) for a in names[:CHAINS] for b in names[CHAINS:]]
    between = np.mean([pair.adjusted_rand_index for pair in single])
    # Wrong twin: one chain of either seed, each with the certainty that it claims by itself.
    for seed in (7, 8):
        one = replace(CONFIG, seed=seed, stage="ar", sweeps=8, average_sweeps=1)
        kpms_zarr.fit(store, model=f"one{seed}", config=one)
    claims = kpms_zarr.compare(store, models=["one7", "one8"]).pairs[0]
    errors = [
        np.mean([pair.calibration_a.attrs["error"], pair.calibration_b.attrs["error"]])
        for pair in (both, claims)
    ]
    # Measured: 0.88 against 0.49, and 0.04 against 0.34.
    assert both.adjusted_rand_index > between + 0.15
    assert errors[0] < 0.5 * errors[1]


@pytest.mark.full
def test_ensemble__begun_again_with_other_settings_takes_no_chain_of_the_ones_before(store):
    """Overwritten, stopped in the second chain, resumed: no chain is as it was before."""
    other = replace(CONFIG, seed=9)
    seen: list[str] = []

    def stop(event: Any) -> None:
        if isinstance(event, Noted) and event.text.startswith("chain"):
            seen.append(event.text)
        if isinstance(event, SweepEnded) and len(seen) == 2:
            raise KeyboardInterrupt

    before = {name: labels_of(store, name, FITTED[0]) for name in chain_names("e", CHAINS)}
    with pytest.raises(KeyboardInterrupt):
        kpms_zarr.fit(
            store, model="e", config=other, chains=CHAINS, overwrite=True, callbacks=[stop],
            save_every=1,
        )  # fmt: skip
    found = kpms_zarr.fit(store, model="e", chains=CHAINS, resume=True)
    assert found.version == "v2"
    for number, name in enumerate(chain_names("e", CHAINS), 1):
        settings = provenance_of(kpms_zarr.open_parameters(store, name).attrs)["settings"]
        assert settings["seed"] == chain_config(other, number).seed
        assert (labels_of(store, name, FITTED[0]) != before[name]).any()


# ------------------------------------------------------------------ killed, on a server

JOIN = """
import sys, kpms_zarr
kpms_zarr.consensus(sys.argv[1], models={names}, model="k", sweeps=4)
"""


def start(store: Path) -> subprocess.Popen[str]:
    script = JOIN.format(names=chain_names("e", CHAINS))
    return subprocess.Popen(
        [sys.executable, "-c", script, os.fspath(store)], stderr=subprocess.PIPE, text=True
    )


def whole(store: Path) -> dict[str, Any]:
    found = kpms_zarr.open_labels(store, "k").load()
    names = ("syllable", "certainty", "second_syllable", "latent", "centroid", "heading")
    return {name: found[name].values for name in names}


@pytest.mark.full
def test_consensus__killed_at_random_moments_leaves_a_whole_model_or_none(original, tmp_path):
    """kill -9: members are as they were, and who begins again gets the same labels."""
    quiet = Path(shutil.copytree(original, tmp_path / "quiet.zarr"))
    began = time.monotonic()
    with start(quiet) as process:
        error = process.stderr.read()
    assert process.returncode == 0, error
    longest, store = time.monotonic() - began, tmp_path / "study.zarr"
    shutil.copytree(original, store)
    moments, killed = random.Random(0), 0
    for part in range(8):
        with start(store) as process:
            # Evenly over its course, so that some moments are within what it writes.
            time.sleep(longest * (part + moments.random()) / 8)
            process.kill()
        killed += process.returncode != 0
        assert kpms_zarr.verify(store).is_sound
        for name in chain_names("e", CHAINS):
            for one in FITTED:
                np.testing.assert_array_equal(
                    labels_of(store, name, one), labels_of(original, name, one)
                )
        if "k" in [model.name for model in kpms_zarr.info(store).models]:
            break
    assert killed >= 2
    if "k" not in [model.name for model in kpms_zarr.info(store).models]:
        with start(store) as process:
            error = process.stderr.read()
        assert process.returncode == 0, error
    expected, found = whole(quiet), whole(store)
    for name, values in expected.items():
        np.testing.assert_array_equal(found[name], values)


# ------------------------------------------------------------------ groups


def test_compare_groups__holds_findings_against_every_chain(store, tmp_path):
    names = [one.name for one in access.sessions(store)]
    lines = ["session,group", *(f"{name},{'ab'[i % 2]}" for i, name in enumerate(names))]
    (tmp_path / "table.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    kpms_zarr.annotate(store, tmp_path / "table.csv")
    found = kpms_zarr.compare_groups(
        store, model="e", by="group", min_replicability=0, n_permutations=100, n_bootstrap=100
    )
    assert int(found.tests["n_chains_tested"].max()) == CHAINS
    assert (found.tests["n_chains"] <= found.tests["n_chains_tested"]).all()
    assert f"each of {CHAINS} chains" in found.methods
    alone = kpms_zarr.compare_groups(
        store, model="e", by="group", min_replicability=0, n_permutations=100, n_bootstrap=100,
        chains=False,
    )  # fmt: skip
    assert alone.tests["p"].equals(found.tests["p"])
    assert "n_chains" not in alone.tests


@pytest.mark.full
def test_chain_tables__are_in_the_syllables_of_the_version_that_is_asked_for(store):
    n = kpms_zarr.syllable_table(store, model="e").sizes["state"]
    before, _ = chain_tables(store, "e", n)
    frames = np.sum([one["n_frames"].values.sum(0) for one in before], 0)
    first, second = np.argsort(-frames)[:2].tolist()
    kpms_zarr.merge(store, model="e", groups=f"{first},{second}")
    again, _ = chain_tables(store, "e", n, version="v1")
    assert all(one.equals(other) for one, other in zip(before, again, strict=True))
    merged, _ = chain_tables(store, "e", n)
    for one, other in zip(before, merged, strict=True):
        old, new = (table["n_frames"].values.sum(0) for table in (one, other))
        assert old.sum() == new.sum()
        assert old[first] + old[second] in new
    assert not before[0]["n_frames"].equals(merged[0]["n_frames"])
