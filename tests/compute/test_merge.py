"""Merged syllables: what they are, that all follows, that nothing is lost, what is refused."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st

import kpms_zarr
from helpers.amount import examples
from helpers.ar_labels import Simulated, halved, make_store, publish, simulate
from kpms_zarr.compute.runs.hierarchy import merge as merge_module
from kpms_zarr.compute.runs.hierarchy.grouping import Grouping
from kpms_zarr.compute.runs.hierarchy.merged_values import (
    merged_frames,
    merged_parameters,
)
from kpms_zarr.store.core import regions
from kpms_zarr.store.core.schema import PARAMETERS
from kpms_zarr.store.errors import InputError
from kpms_zarr.store.model.levels import open_levels
from kpms_zarr.store.model.merges import MergeRecord
from kpms_zarr.store.model.models import open_parameters
from kpms_zarr.store.model.replicability import open_replicability

DATA = simulate()
TWIN = halved(1, 4)


def second_choices(data: Simulated, relabel=TWIN) -> dict[str, dict[str, np.ndarray]]:
    """Certainties in steps of 1 / 256, and second choices; some frames have none."""
    rng = np.random.default_rng(0)
    found: dict[str, dict[str, np.ndarray]] = {
        "certainty": {}, "second_syllable": {}, "second_certainty": {},
    }  # fmt: skip
    for name, z in data.syllable.items():
        z = relabel(z)
        first = rng.integers(100, 256, len(z)) / 256
        second = (z + rng.integers(1, 5, len(z))) % 5
        is_there = rng.random(len(z)) < 0.8
        found["certainty"][name] = first.astype(np.float16)
        found["second_syllable"][name] = np.where(is_there, second, -1).astype(np.int16)
        rest = np.floor((1 - first) * 128) / 256
        found["second_certainty"][name] = np.where(is_there, rest, np.nan).astype(np.float16)
    return found


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = make_store(tmp_path_factory.mktemp("merge") / "s.zarr")
    known = {
        "family": np.array([0, 1, 0, 2, 1, -1, -1, -1], np.int16),
        "replicability": np.array([0.9, 0.8, 0.7, 0.95, 0.6, np.nan, np.nan, np.nan]),
        "member_agreement": np.array([0.9, 0.8, 0.7, 0.95, 0.6, np.nan, np.nan, np.nan]),
        "half_rand_index": 0.5,
        "family_half_rand_index": 0.75,
    }
    publish(
        path, DATA, relabel=TWIN, certainty=second_choices(DATA), statistics=known,
        settings={"models": ["a@v1", "b@v1", "c@v1", "d@v1"]},
    )  # fmt: skip
    return path


@pytest.fixture
def store(made: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(made, tmp_path / "s.zarr"))


def snapshot(store: Path, version: str = "v1") -> xr.Dataset:
    return kpms_zarr.open_labels(store, "m", version).load().copy(deep=True)


def test_merge__tables_are_those_of_labels_that_were_replaced_by_hand(store):
    before, levels = snapshot(store), kpms_zarr.build_levels(store, "m")
    done = kpms_zarr.merge(store, model="m", groups="1,4;0,2")
    assert (done.version, done.from_version, done.n_before, done.n_after) == ("v2", "v1", 5, 3)
    xr.testing.assert_identical(snapshot(store), before)
    number = MergeRecord.of(kpms_zarr.open_labels(store, "m")).number
    publish(store, DATA, "hand", relabel=lambda z: number[TWIN(z)].astype(np.int16))
    tables = [kpms_zarr.syllable_table(store, model=name) for name in ("m", "hand")]
    for name in ("n_frames", "n_bouts", "mean_duration", "transition_count"):
        np.testing.assert_array_equal(*(one[name].values for one in tables), err_msg=name)
    shares = snapshot(store, "v2")["frequency"].values
    assert (np.diff(shares) <= 0).all()
    assert (shares > 0).tolist() == [True] * 3 + [False] * 5
    assert levels.has_built
    of_merged = open_levels(store, "m")
    assert of_merged.attrs["labels"] == "v2"
    assert int(of_merged["syllable_16"].max()) == 2
    kpms_zarr.build_levels(store, "hand")
    np.testing.assert_array_equal(
        of_merged["syllable_16"], open_levels(store, "hand")["syllable_16"]
    )
    assert kpms_zarr.summary(store, model="m")["state"].values.tolist() == [0, 1, 2]


def test_merge__certainty_is_a_bound_and_second_choices_stay_true(store):
    before = snapshot(store)
    kpms_zarr.merge(store, model="m", groups=[[1, 4], [0, 2]])
    after = snapshot(store, "v2")
    number = np.append(MergeRecord.of(kpms_zarr.open_labels(store, "m")).number, -1)
    n_joined = 0
    for row in range(2):
        n = int(before["n_frames"][row])
        z, second = (before[name].values[row, :n] for name in ("syllable", "second_syllable"))
        c, d = (before[name].values[row, :n] for name in ("certainty", "second_certainty"))
        is_one = (number[second] == number[z]) & (second >= 0)
        n_joined += int(is_one.sum())
        np.testing.assert_array_equal(after["syllable"].values[row, :n], number[z])
        expected = np.where(is_one, c.astype(float) + np.nan_to_num(d.astype(float)), c)
        np.testing.assert_array_equal(after["certainty"].values[row, :n], expected)
        np.testing.assert_array_equal(
            after["second_syllable"].values[row, :n], np.where(is_one, -1, number[second])
        )
        np.testing.assert_array_equal(
            after["second_certainty"].values[row, :n], np.where(is_one, np.nan, d)
        )
    assert n_joined > 100
    for name in ("latent", "centroid", "heading", "n_frames"):
        np.testing.assert_array_equal(after[name], before[name])
    z, c = after["syllable"].values, after["certainty"].values.astype(float)
    mean = [np.nanmean(c[z == one]) for one in range(3)]
    np.testing.assert_allclose(after["mean_certainty"].values[:3], mean, rtol=1e-6)


def test_merge__can_be_taken_back_and_brought_again(store):
    before = kpms_zarr.summary(store, model="m")
    kpms_zarr.name_syllable(store, "m", 1, name="rear", description="up")
    kpms_zarr.name_syllable(store, "m", 4, name="rise")
    kpms_zarr.merge(store, model="m", groups="4,1")
    record = MergeRecord.of(kpms_zarr.open_labels(store, "m"))
    merged = int(record.number[1])
    assert record.members(merged) == (1, 4)
    names = kpms_zarr.syllable_names(store, "m")["name"].values
    assert names[merged] in ("rear + rise", "rise + rear")
    kpms_zarr.name_syllable(store, "m", merged, name="up")
    assert kpms_zarr.syllable_names(store, "m")["name"].values[merged] == "up"
    done = kpms_zarr.versions(store, model="m", use="v1")
    assert (done.current, done.before) == ("v1", "v2")
    assert [(one.action, one.from_version, one.is_current) for one in done.versions] == [
        ("fit", "", True), ("merge", "v1", False),
    ]  # fmt: skip
    again = kpms_zarr.summary(store, model="m")
    assert again["name"].values.tolist()[1:5:3] == ["rear", "rise"]
    xr.testing.assert_equal(again.drop_vars("name"), before)
    assert kpms_zarr.versions(store, model="m", use="v2").before == "v1"
    assert kpms_zarr.versions(store, model="m").current == "v2"
    with pytest.raises(InputError, match="one of the label versions v1, v2"):
        kpms_zarr.versions(store, model="m", use="v9")
    kpms_zarr.versions(store, model="m", use="v1")
    assert kpms_zarr.merge(store, model="m", groups="0,3").version == "v3"
    assert kpms_zarr.open_labels(store, "m", "v3").attrs["parameters"] == "v3"


def test_merge__by_evidence_joins_twins_alone(store):
    done = kpms_zarr.merge(store, model="m", evidence=True, dry_run=True)
    assert [set(group.syllables) for group in done.groups] == [{1, 4}]
    assert done.version == ""
    assert kpms_zarr.versions(store, model="m").current == "v1"
    table = kpms_zarr.similarity(store, model="m")
    factor = float(table["log_bayes_factor"].sel(state=1, state_other=4))
    assert done.groups[0].log_bayes_factor == pytest.approx(factor, rel=1e-6)
    assert factor > 0
    none = kpms_zarr.merge(store, model="m", evidence=True, margin=factor + 1)
    assert (none.version, none.groups, none.n_after) == ("", (), 5)
    assert kpms_zarr.merge(store, model="m", evidence=True).version == "v2"
    settled = kpms_zarr.merge(store, model="m", evidence=True)
    assert (settled.version, settled.groups) == ("", ())


def test_merge__by_families_and_what_is_known_of_them_follows(store):
    done = kpms_zarr.merge(store, model="m", families=True)
    assert [sorted(group.syllables) for group in done.groups] in (
        [[0, 2], [1, 4]],
        [[1, 4], [0, 2]],
    )
    labels = snapshot(store, "v2")
    number = MergeRecord.of(kpms_zarr.open_labels(store, "m")).number
    found = open_replicability(store, "m")
    # At least that of the least of those merged; alone, its own.
    np.testing.assert_array_equal(found.between_chains[number[[0, 1, 3]]], [0.7, 0.6, 0.95])
    agreement = labels["member_agreement"].values[number[[0, 1, 3]]]
    np.testing.assert_array_equal(agreement, [np.nan, np.nan, 0.95])
    assert found.n_members == 4
    assert found.chain_halves.rand_index == found.family_halves.rand_index == 0.75
    assert found.family[:4].tolist() == [0, 1, 2, -1]
    kpms_zarr.versions(store, model="m", use="v1")
    kpms_zarr.merge(store, model="m", groups="1,3")
    other = open_replicability(store, "m")
    assert not other.chain_halves.is_known
    assert other.family_halves.rand_index == 0.75
    number = MergeRecord.of(kpms_zarr.open_labels(store, "m")).number
    frames = snapshot(store)["frequency"].values
    # Of the family in which most of its frames are.
    own = [1, 2][int(frames[3] > frames[1])]
    same = {1: [4], 2: []}[own]
    assert sorted(other.siblings(int(number[1]))) == sorted(int(number[one]) for one in same)


def test_tables__have_the_families_of_versions_with_the_same_syllables(store):
    own = kpms_zarr.syllable_table(store, model="m")["family"]
    publish(store, DATA, relabel=TWIN, parameters_version="v1")  # as apply does
    assert "family" not in snapshot(store, "v2")
    found = kpms_zarr.syllable_table(store, model="m")
    assert found.attrs["version"] == "v2"
    np.testing.assert_array_equal(found["family"], own)
    # Those of other parameters have none.
    publish(store, DATA, relabel=TWIN)
    assert "family" not in kpms_zarr.syllable_table(store, model="m").coords


def test_merge__parameters_are_those_of_the_group(store):
    before = open_parameters(store, "m").load()
    kpms_zarr.merge(store, model="m", groups="1,4")
    after, labels = open_parameters(store, "m").load(), kpms_zarr.open_labels(store, "m")
    record = MergeRecord.of(labels)
    alone = [0, 2, 3]
    for name in ("ar_weight", "ar_bias", "ar_covariance"):
        np.testing.assert_array_equal(
            after[name].values[record.number[alone]], before[name].values[alone]
        )
    assert set(after.data_vars) == set(before.data_vars)
    np.testing.assert_allclose(after["transition_probability"].sum("state_next"), 1)
    np.testing.assert_allclose(after["state_usage"].sum(), 1)
    one = int(record.number[1])
    assert float(after["trace_usage"][0, one]) == pytest.approx(
        float(before["trace_usage"][0, 1] + before["trace_usage"][0, 4])
    )
    gone = int(record.own[4] if record.number[4] != record.own[4] else record.own[1])
    assert float(after["transition_probability"][:, gone].max()) < 1e-90
    # A lumped chain: the probability of leaving for another syllable.
    usage = before["state_usage"].values
    rows = before["transition_probability"].values
    expected = (usage[[1, 4]] @ rows[[1, 4]])[0] / usage[[1, 4]].sum()
    found = float(after["transition_probability"][one, record.number[0]])
    assert found == pytest.approx(expected)
    # The dynamics are near the truth, which both halves share.
    np.testing.assert_allclose(after["ar_covariance"][one], 0.04 * np.eye(2), atol=0.01)
    assert float(kpms_zarr.reconstruct(store, "m").mean()) == pytest.approx(
        float(kpms_zarr.reconstruct(store, "m", version="v1").mean())
    )


def test_merged_parameters__know_every_variable_by_state():
    """A new variable by state must be numbered, too."""
    known = {
        "ar_weight", "ar_bias", "ar_covariance", "state_usage", "transition_probability",
        "trace_usage",
    }  # fmt: skip
    assert {one.name for one in PARAMETERS if {"state", "state_next"} & set(one.dims)} == known


def test_merged_parameters__votes_follow(store):
    found = open_parameters(store, "m").load()
    found["member_syllable"] = (("member", "member_state"), np.array([[0, 1, -1], [4, 3, 2]]))
    frames = np.array([5, 3, 2, 1, 4, 0, 0, 0])
    grouping = Grouping.of([[1, 4]], frames)
    votes = merged_parameters(found, grouping, None)["member_syllable"]
    # 1 and 4 have 7 frames together, more than 0.
    assert votes.tolist() == [[1, 0, -1], [0, 3, 2]]


# ------------------------------------------------------------------ errors


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({}, "expected one of `groups=`, `families=` and `evidence=`, found none"),
        ({"groups": "0,1", "families": True}, "found `groups=`, `families=`"),
        ({"groups": "0,1", "margin": 2.0}, "beside `evidence=True`"),
        ({"evidence": True, "margin": float("nan")}, "a number of nat"),
        ({"groups": "0,1;1,2"}, "1 more than once"),
        ({"groups": "0,0"}, "two syllables or more in a group"),
        ({"groups": "3"}, "two syllables or more in a group"),
        ({"groups": "0,7"}, "7, which no frame has"),
        ({"groups": "0,8"}, "expected syllables from 0 to 7, found 8"),
        ({"groups": "rear,1"}, "groups apart by ';'"),
        ({"groups": ""}, "groups apart by ';'"),
        ({"groups": []}, "groups of syllables"),
        ({"groups": [[0, 1.5]]}, "a list of groups"),
        ({"groups": [0, 1]}, "a list of groups"),
        ({"groups": "0,1", "version": "v5"}, "one of the label versions v1"),
    ],
)
def test_merge__refuses_and_leaves_the_store_as_it_was(made, options, said):
    before = sorted(str(one) for one in made.rglob("*"))
    with pytest.raises(InputError) as error:
        kpms_zarr.merge(made, model="m", **options)
    assert said in str(error.value)
    assert sorted(str(one) for one in made.rglob("*")) == before


def test_merge__says_what_labels_lack(store):
    publish(store, DATA, "plain", has_parameters=False, without=("latent", "centroid", "heading"))
    with pytest.raises(InputError, match="families of syllables"):
        kpms_zarr.merge(store, model="plain", families=True)
    with pytest.raises(InputError, match="a latent pose of the frames"):
        kpms_zarr.merge(store, model="plain", evidence=True)
    with pytest.raises(InputError, match="expected a fitted model named 'nobody'"):
        kpms_zarr.merge(store, model="nobody", groups="0,1")
    done = kpms_zarr.merge(store, model="plain", groups="0,2")
    assert np.isnan(done.groups[0].log_bayes_factor)
    # Labels of another package keep their numbers.
    frames = kpms_zarr.open_labels(store, "plain", "v1")["frequency"].values
    assert done.groups[0].becomes == (0 if frames[0] >= frames[2] else 2)
    after = kpms_zarr.open_labels(store, "plain")["frequency"].values
    np.testing.assert_array_equal(after[[1, 3]], frames[[1, 3]])


@pytest.mark.parametrize("n_done", [9])
def test_merge__that_is_killed_leaves_the_version_before_it(store, monkeypatch, n_done):
    before, n_left = snapshot(store), [n_done]
    write = regions.write

    def killed(*arguments, **options):
        if not n_left[0]:
            raise KeyboardInterrupt
        n_left[0] -= 1
        write(*arguments, **options)

    monkeypatch.setattr(regions, "write", killed)
    # As of a process that is gone: nothing tidies up behind it.
    monkeypatch.setattr(merge_module.LabelWriter, "discard", lambda self: None)
    with pytest.raises(KeyboardInterrupt):
        kpms_zarr.merge(store, model="m", groups="0,1")
    monkeypatch.undo()
    assert [one.version for one in kpms_zarr.versions(store, model="m").versions] == ["v1"]
    xr.testing.assert_identical(snapshot(store), before)
    assert kpms_zarr.merge(store, model="m", groups="0,1").version == "v2"
    assert kpms_zarr.verify(store).is_sound


# ------------------------------------------------------------------ properties

FRAMES = st.lists(st.integers(0, 40), min_size=2, max_size=9).map(np.array)


@st.composite
def merges(draw: st.DrawFn) -> tuple[np.ndarray, list[list[int]]]:
    frames = draw(FRAMES)
    order = draw(st.permutations(range(len(frames))))
    cuts = sorted(draw(st.sets(st.integers(1, len(frames) - 1))))
    parts = np.split(np.array(order), cuts)
    return frames, [one.tolist() for one in parts if len(one) > 1]


@settings(max_examples=examples(60), deadline=None)
@given(merges(), st.booleans())
def test_grouping__is_a_partition_numbered_by_frequency(made, keeps_numbers):
    frames, groups = made
    grouping = Grouping.of(groups, frames, keeps_numbers=keeps_numbers)
    states = np.arange(len(frames))
    assert sorted(grouping.own) == states.tolist()
    in_one = {one: i for i, group in enumerate(groups) for one in group}
    for a in states:
        for b in states:
            together = a == b or (a in in_one and in_one.get(a) == in_one.get(b))
            assert (grouping.number[a] == grouping.number[b]) == together
    after = np.bincount(grouping.number, weights=frames, minlength=len(frames))
    assert after.sum() == frames.sum()
    if keeps_numbers:
        alone = [one for one in states if one not in in_one]
        assert grouping.number[alone].tolist() == alone
    else:
        assert (np.diff(after) <= 0).all()
    back = Grouping.of_numbers(grouping.number, grouping.own)
    np.testing.assert_array_equal(back.target, grouping.target)
    found = grouping.groups(frames)
    assert sorted(map(sorted, found)) == sorted(map(sorted, groups))


@settings(max_examples=examples(60), deadline=None)
@given(merges(), st.data())
def test_grouping__one_after_the_other_is_both(made, data):
    frames, groups = made
    first = Grouping.of(groups, frames)
    between = np.bincount(first.number, weights=frames, minlength=len(frames)).astype(int)
    there = np.unique(first.number).tolist()
    chosen = data.draw(st.lists(st.sampled_from(there), unique=True, min_size=0))
    second = Grouping.of([chosen] if len(chosen) > 1 else [], between)
    both = first.then(second)
    np.testing.assert_array_equal(both.number, second.number[first.number])
    assert sorted(both.own) == list(range(len(frames)))
    np.testing.assert_array_equal(both.number, both.own[both.target])


@settings(max_examples=examples(60), deadline=None)
@given(st.lists(st.floats(0.001, 1), min_size=4, max_size=4), st.data())
def test_certainty__of_merged_labels_is_never_more_than_the_truth(weights, data):
    share = np.asarray(weights) / np.sum(weights)
    order = np.argsort(-share)
    number = np.array(data.draw(st.lists(st.integers(0, 3), min_size=4, max_size=4)))
    values = {
        "syllable": order[:1].astype(np.int16),
        "certainty": share[order[:1]].astype(np.float16),
        "second_syllable": order[1:2].astype(np.int16),
        "second_certainty": share[order[1:2]].astype(np.float16),
    }
    found = merged_frames(values, number)
    exact = share[number == found["syllable"][0]].sum()
    assert float(found["certainty"][0]) <= exact + 2e-3
    assert float(found["certainty"][0]) >= float(values["certainty"][0]) - 1e-6
    # Wrong twin: both choices added up whatever they have become.
    wrong = float(values["certainty"][0] + values["second_certainty"][0])
    if number[order[0]] != number[order[1]]:
        assert float(found["certainty"][0]) < wrong


# ------------------------------------------------------------------ sessions that come later


def test_apply__labels_by_the_syllables_before_and_merges_in_the_same_way(tmp_path: Path):
    from helpers.small import N_KEYPOINTS, SMALL
    from kpms_zarr.store.study import synthetic

    study = synthetic.SyntheticStudy(
        n_keypoints=N_KEYPOINTS, n_latent=3, seed=4, lengths=(150, 120)
    )
    path = tmp_path / "s.zarr"
    synthetic.write_store(path, study)
    config = SMALL.resolved(stage="ar", sweeps=3, sessions=(study.session_names[0],))
    kpms_zarr.fit(path, model="m", config=config)
    plain = shutil.copytree(path, tmp_path / "plain.zarr")
    used: Sequence[int] = kpms_zarr.summary(path, model="m")["state"].values[:4].tolist()
    kpms_zarr.merge(path, model="m", groups=[used[:2]])
    kpms_zarr.merge(path, model="m", groups=[[0, 2]])
    done = kpms_zarr.apply(path, model="m", sweeps=2, draw=True, check=False)
    assert done.version == "v5"
    # v4 has the labels by the syllables before: a step, of which v5 was made.
    listed = kpms_zarr.versions(path, model="m").versions
    assert [one.version for one in listed] == ["v1", "v2", "v3", "v5"]
    assert listed[-1].from_version == "v4"
    assert kpms_zarr.info(path).models[0].versions == ("v1", "v2", "v3", "v5")
    kpms_zarr.versions(path, model="m", use="v4")
    assert "v4" in [one.version for one in kpms_zarr.versions(path, model="m").versions]
    kpms_zarr.versions(path, model="m", use="v5")
    assert any("before they were merged (v1)" in note for note in done.notes)
    kpms_zarr.apply(plain, model="m", sweeps=2, draw=True, check=False)
    labels = kpms_zarr.open_labels(path, "m").load()
    expected = kpms_zarr.open_labels(plain, "m").load()["syllable"]
    both = MergeRecord.of(labels)
    np.testing.assert_array_equal(
        labels["syllable"].values, np.append(both.number, -1)[expected.values]
    )
    assert labels.attrs["parameters"] == "v3"
    merged_before = kpms_zarr.open_labels(path, "m", "v3").load()
    n = int(merged_before["n_frames"][0])
    np.testing.assert_array_equal(
        labels["syllable"].values[0, :n], merged_before["syllable"].values[0, :n]
    )
