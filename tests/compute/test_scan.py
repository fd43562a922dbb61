"""Scans: what chains find, how they are compared, and that nothing else in the store changes."""

from __future__ import annotations

import hashlib
import json
import shutil
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
import zarr

import kpms_zarr
from helpers.small import SMALL
from kpms_zarr.compute.analysis.agreement import adjusted_rand_index
from kpms_zarr.compute.config import Budget, FitConfig
from kpms_zarr.compute.events import ChainEnded, ChainStarted, Event, SweepEnded
from kpms_zarr.compute.runs import choosing
from kpms_zarr.compute.runs.choosing import choose_sessions, mean_and_error, recommend
from kpms_zarr.compute.runs.grid import AXES, grid_of, values_of
from kpms_zarr.compute.runs.scan_job import ScanInterrupted
from kpms_zarr.store.core import access
from kpms_zarr.store.core.commands import for_shell
from kpms_zarr.store.core.consolidation import is_current
from kpms_zarr.store.core.provenance import provenance_of
from kpms_zarr.store.core.schema import variable
from kpms_zarr.store.errors import InputError
from kpms_zarr.store.model.scans import ScanInfo, list_scans
from kpms_zarr.store.study.synthetic import SyntheticStudy, write_store

STUDY = SyntheticStudy(n_sessions=4, n_frames=900, n_keypoints=6, n_latent=3, n_syllables=5, seed=1)
AR = replace(SMALL, stage="ar", sweeps=12)
KAPPAS = [10.0, 1e6]


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with components and a model."""
    store = tmp_path_factory.mktemp("plain") / "study.zarr"
    write_store(store, STUDY)
    kpms_zarr.pca(store)
    kpms_zarr.fit(store, model="m", config=AR)
    return store


@pytest.fixture(scope="module")
def scanned(plain: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, kpms_zarr.Scan]:
    store = shutil.copytree(plain, tmp_path_factory.mktemp("scanned") / "study.zarr")
    return store, kpms_zarr.scan(store, kappa=KAPPAS, chains=2, config=AR)


@pytest.fixture
def fresh(plain: Path, tmp_path: Path) -> Path:
    return shutil.copytree(plain, tmp_path / "study.zarr")


def labels_of(store: Path, point: int, chain: int, name: str = "kappa") -> np.ndarray:
    group = zarr.open_group(store, mode="r")[f"scans/{name}/chains/p{point:03d}c{chain:03d}"]
    return np.asarray(group["syllable"][...])


def content_of(store: Path, below: str) -> dict[str, str]:
    """Hash of every file below a group."""
    files = [path for path in (store / below).rglob("*") if path.is_file()]
    return {str(p.relative_to(store)): hashlib.sha256(p.read_bytes()).hexdigest() for p in files}


def without_seconds(table: xr.Dataset) -> xr.Dataset:
    return table.drop_vars("seconds").drop_attrs()


# --- what is found -----------------------------------------------------------------------


def test_scan__has_the_figures_of_the_fits_that_it_stands_for(scanned, fresh):
    store, found = scanned
    (held_out,) = found.table["held_out"].values
    sampled = tuple(found.table["session"].values)
    assert {held_out, *sampled} == set(STUDY.session_names)
    assert (found.n_frames, found.n_held_out_frames, found.n_chains) == (2700, 900, 4)
    fit = replace(AR, kappa=KAPPAS[1], seed=1, sessions=sampled)
    kpms_zarr.fit(fresh, model="one", config=fit)
    one = found.table.isel(point=1, chain=1)
    labels = kpms_zarr.open_labels(fresh, "one")
    np.testing.assert_array_equal(labels["syllable"].values, labels_of(store, 1, 1))
    usage = labels["frequency"].values
    effective = np.exp(-(usage[usage > 0] * np.log(usage[usage > 0])).sum())
    assert float(one["effective_number"]) == pytest.approx(effective, rel=0.01)
    assert int(one["n_used"]) == (usage >= 0.005).sum()
    assert float(one["median_duration"]) == labels.attrs["median_duration_overall"]
    trace = kpms_zarr.open_parameters(fresh, "one")["trace_log_evidence"].values
    assert float(one["log_evidence"]) == pytest.approx(trace[-fit.n_averaged :].mean())
    pair = [labels_of(store, 1, chain).ravel() for chain in range(2)]
    assert found.table["adjusted_rand_index"].values[1] == pytest.approx(adjusted_rand_index(*pair))


def test_scan__larger_kappa_gives_longer_syllables(scanned):
    table = scanned[1].table
    median = table["median_duration"].values
    assert median[1].min() > 1.3 * median[0].max()
    # Wrong twin: two chains of one kappa are not told apart so.
    assert not (median.min(1) * 1.3 < median.max(1)).any()
    np.testing.assert_array_equal(table["final_kappa"].values, np.tile(KAPPAS, (2, 1)).T)
    assert table["seed"].values.tolist() == [0, 1]
    assert table["label"].values.tolist() == ["kappa 10", "kappa 1e+06"]


def test_scan__likelihoods_are_of_parameters_that_know_the_data(scanned):
    """Sessions that are seen are predicted about as well as those that are not, both far better
    than by chains with syllables that are too long."""
    table = scanned[1].table
    held_out = table["held_out_log_likelihood"].values
    assert held_out[0].min() > held_out[1].max()
    np.testing.assert_array_equal(held_out, table["held_out_by_session"].values[..., 0])
    assert np.abs(held_out - table["expected_marginal_likelihood"].values).max() < 0.3
    assert "held-out log likelihood is highest at kappa 10" in " ".join(scanned[1].recommendation)


def test_scan__is_kept_as_declared_and_touches_no_model(plain, scanned):
    store, found = scanned
    for group in ("models", "keypoints"):
        assert content_of(plain, group) == content_of(store, group)
    assert kpms_zarr.open_scan(store, "kappa").identical(found.table)
    assert list_scans(store) == kpms_zarr.info(store).scans == (ScanInfo("kappa", 4, 4),)
    for name, values in found.table.variables.items():
        declared = variable("scans", str(name))
        assert values.dims == declared.dims
        assert values.attrs.get("units", "") == declared.units
    assert provenance_of(found.table.attrs)["settings"]["kappa"] == KAPPAS
    summary = kpms_zarr.verify(store)
    assert (summary.damages, summary.notes) == ([], [])
    opened = xr.open_zarr(store, group="scans/kappa", consolidated=False)
    assert opened["median_duration"].dims == ("point", "chain")
    with pytest.raises(InputError, match="the scans kappa"):
        kpms_zarr.open_scan(store, "other")


def test_scan__latent_dims_are_compared_on_the_same_data(fresh):
    settings = replace(AR, latent_dim=None, sweeps=5, kappa=1e3)
    found = kpms_zarr.scan(fresh, latent_dim="2,3", lags=3, chains=1, config=settings)
    table = found.table
    assert found.axes == ("latent_dim",)
    assert table["latent_dim"].values.tolist() == [2, 3]
    assert np.isnan(table["adjusted_rand_index"].values).all()
    assert "evidence" not in " ".join(found.recommendation)
    # A scan of two latent dims alone has the same chain, of which all dims are scored.
    two, three = (
        kpms_zarr.scan(fresh, latent_dim=n, chains=1, config=settings, name=f"dims-{n}").table
        for n in (2, 3)
    )
    for name in ("median_duration", "held_out_log_likelihood", "expected_marginal_likelihood"):
        np.testing.assert_array_equal(two[name].values[0], table[name].values[0])
    # Of three dims the score is that of the first two, not their joint density.
    np.testing.assert_array_equal(
        three["median_duration"].values[0], table["median_duration"].values[1]
    )
    name = "held_out_log_likelihood"
    assert abs(float(three[name][0, 0]) - float(table[name][1, 0])) > 0.05


def test_scan__lags_are_compared_on_the_same_frames(fresh):
    settings = replace(AR, sweeps=2, kappa=1e3)
    both = kpms_zarr.scan(fresh, lags="1,3", chains=1, config=settings)
    assert both.axes == ("lags",)
    one = kpms_zarr.scan(fresh, lags=1, chains=1, config=settings, name="one").table
    name = "held_out_log_likelihood"
    assert float(one["n_used"][0, 0]) == float(both.table["n_used"][0, 0])
    # All but the first frames are the same: 897 of 899.
    total = [897 * float(both.table[name][0, 0]), 899 * float(one[name][0, 0])]
    assert 0 < abs(total[0] - total[1]) < 50


def test_scan__of_the_full_stage_crosses_poses_and_parameters(fresh):
    settings = {**SMALL.to_dict(), "stage": "both", "ar_sweeps": 2, "sweeps": 2}
    full = FitConfig.from_dict(settings)
    found = kpms_zarr.scan(fresh, kappa=[1e3], chains=2, config=full, name="full")
    assert found.n_held_out_frames == 0
    assert np.isnan(found.table["held_out_log_likelihood"].values).all()
    assert np.isnan(found.table["log_evidence"].values).all()
    eml = found.table["expected_marginal_likelihood"].values[0]
    group = zarr.open_group(fresh, mode="r")["scans/full/chains"]
    assert not np.array_equal(group["p000c000/latent"][...], group["p000c001/latent"][...])
    by_hand = [crossed(group, i, 1 - i) for i in range(2)]
    np.testing.assert_allclose(eml, by_hand, atol=2e-5)
    # Wrong twin: a chain's own pose under its own parameters.
    own = [crossed(group, i, i) for i in range(2)]
    assert np.abs(eml - own).min() > 2e-4
    fit = replace(full, kappa=1e3, seed=1)
    kpms_zarr.fit(fresh, model="one", config=fit)
    labels = kpms_zarr.open_labels(fresh, "one")
    np.testing.assert_array_equal(labels["latent"].values, group["p000c001/latent"][...])


def crossed(group: Any, i: int, j: int) -> float:
    """Log p(x of chain j | parameters of chain i), forward in float64, nat per frame."""
    values = {name: np.asarray(array[...]) for name, array in group[f"p000c{i:03d}"].arrays()}
    every, lags = np.asarray(group[f"p000c{j:03d}/latent"][...], np.float64), 3
    total, n_frames = 0.0, 0
    for x in every:
        past = np.concatenate([x[k : len(x) - lags + k] for k in range(lags)], 1)
        mean = np.einsum("nmd,td->tnm", values["ar_weight"], past) + values["ar_bias"]
        r, q = x[lags:, None] - mean, values["ar_covariance"]
        square = (r * np.einsum("nij,tnj->tni", np.linalg.inv(q), r)).sum(-1)
        log = -0.5 * (square + np.linalg.slogdet(2 * np.pi * q)[1])
        predicted = np.full(len(q), 1 / len(q))
        for row in log:
            joint = predicted * np.exp(row - row.max())
            total += np.log(joint.sum()) + row.max()
            predicted = joint / joint.sum() @ values["transition_probability"]
        n_frames += len(log)
    return total / n_frames


# --- begun, stopped, gone on with ---------------------------------------------------------


def stopping(after: int, by: Any) -> Any:
    """Callback that stops a scan in the middle of a chain."""
    n_ended = 0

    def callback(event: Event) -> None:
        nonlocal n_ended
        n_ended += isinstance(event, ChainEnded)
        if n_ended == after and isinstance(event, SweepEnded) and event.sweep == 3:
            by()

    return callback


def fail() -> None:
    raise RuntimeError("the power is gone")


@pytest.mark.parametrize(
    ("by", "error"),
    [(fail, RuntimeError), (lambda: signal.raise_signal(signal.SIGINT), ScanInterrupted)],
)
def test_scan__goes_on_to_the_same_bits(scanned, fresh, by, error):
    store, whole = scanned
    options: dict[str, Any] = {"kappa": KAPPAS, "chains": 2, "config": AR}
    with pytest.raises(error) as stopped:
        kpms_zarr.scan(fresh, **options, callbacks=[stopping(3, by)])
    if error is ScanInterrupted:
        assert "3 of 4 chains are kept" in str(stopped.value)
    is_there = np.isfinite(kpms_zarr.open_scan(fresh, "kappa")["seconds"].values)
    assert is_there.tolist() == [[True, True], [True, False]]
    assert np.isfinite(kpms_zarr.open_scan(fresh, "kappa")["adjusted_rand_index"].values).sum() == 2
    started: list[Event] = []
    small = Budget(tiles_in_flight=1, home="disk")
    found = kpms_zarr.scan(fresh, **options, callbacks=[started.append], budget=small)
    assert found.n_chains == 1
    assert [(e.number, e.seed) for e in started if isinstance(e, ChainStarted)] == [(4, 1)]
    assert without_seconds(found.table).identical(without_seconds(whole.table))
    for point in range(2):
        for chain in range(2):
            np.testing.assert_array_equal(
                labels_of(fresh, point, chain), labels_of(store, point, chain)
            )
    again = kpms_zarr.scan(fresh, **options)
    assert again.n_chains == 0
    assert again.table.identical(found.table)
    assert again.recommendation == whole.recommendation


def test_scan__another_request_of_the_name_is_refused(scanned, tmp_path):
    store = shutil.copytree(scanned[0], tmp_path / "study.zarr")
    other = replace(AR, n_states=9)
    with pytest.raises(InputError, match="differs in chains, kappa, n_states") as refused:
        kpms_zarr.scan(store, kappa=[1.0], chains=1, config=other)
    assert "--overwrite" in for_shell(str(refused.value))
    assert without_seconds(kpms_zarr.open_scan(store, "kappa")).identical(
        without_seconds(scanned[1].table)
    )
    kpms_zarr.pca(store)  # of which the components follow
    with pytest.raises(InputError, match="differs in pca"):
        kpms_zarr.scan(store, kappa=KAPPAS, chains=2, config=AR)
    few = replace(AR, sweeps=2)
    found = kpms_zarr.scan(store, kappa=[1.0], chains=1, config=few, held_out=0, overwrite=True)
    assert found.table.sizes["point"] == found.table.sizes["chain"] == 1
    assert found.table["session"].values.tolist() == list(STUDY.session_names)
    assert "held_out" not in found.table.sizes
    assert found.recommendation == ()
    assert any("no session is held out" in note for note in found.notes)
    assert kpms_zarr.verify(store).damages == []


# --- ranges -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "given", "expected"),
    [
        ("target_durations", "200ms:800ms:5", (200, 283, 400, 566, 800)),
        ("target_durations", "0.2:0.8s:3", (200, 400, 800)),
        ("target_durations", "400, 200ms,0.2s", (200, 400)),
        ("target_durations", 400, (400,)),
        ("kappa", "1e3:1e7:5", (1e3, 1e4, 1e5, 1e6, 1e7)),
        ("kappa", np.array([1e5, 1e3]), (1e3, 1e5)),
        ("latent_dim", "3:6", (3, 4, 5, 6)),
        ("latent_dim", ["3", 8], (3, 8)),
        ("lags", "1,2,3", (1, 2, 3)),
        ("innovation_dof", "2:50:3", (2, 26, 50)),
    ],
)
def test_values__of_ranges_lists_and_numbers(name, given, expected):
    axis = next(one for one in AXES if one.name == name)
    found = values_of(axis, given)
    assert found == expected
    assert all(isinstance(value, int) == axis.is_whole for value in found)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({}, "none of them"),
        ({"kappa": "1e7:1e3:5"}, "does not grow, from 1e+07 to 1000"),
        ({"kappa": "1:10"}, "without a number of values"),
        ({"kappa": "1:10:1"}, "without a number of values"),
        ({"kappa": "1:2:3:4"}, "found '1:2:3:4'"),
        ({"kappa": "many"}, "found 'many'"),
        ({"kappa": [True]}, "found True"),
        ({"kappa": []}, "found none"),
        ({"kappa": "0:10:3"}, "found 0 in '0:10:3'"),
        ({"kappa": float("nan")}, "found nan"),
        ({"target_durations": "-100,200"}, "positive numbers in ms"),
        ({"lags": "0:3"}, "whole numbers from 1 to 20"),
        ({"latent_dim": 2.5}, "found 2.5"),
        ({"kappa": 1, "target_durations": 400}, "found both"),
    ],
)
def test_scan__refuses_what_it_cannot_vary_before_anything_runs(plain, given, said):
    before = content_of(plain, "")
    with pytest.raises(InputError, match=said.replace("+", r"\+")) as refused:
        kpms_zarr.scan(plain, **given)
    for name in given:
        assert f"`{name}=`" in str(refused.value)
        assert f"--{name.replace('_', '-')}" in for_shell(str(refused.value))
    assert content_of(plain, "") == before


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"chains": 0}, "a whole number, 1 or more"),
        ({"held_out": 4}, "fewer sessions that are held out"),
        ({"held_out": -1}, "0 or more"),
        ({"held_out": ["nobody"]}, "`held_out=`"),
        ({"name": "../x"}, "a name of letters"),
        ({"config": FitConfig(stage="ar", from_model="m")}, "chains that begin anew"),
        ({"config": FitConfig(stage="full"), "latent_dim": "2,3"}, "where latent dims vary"),
        ({"config": FitConfig(stage="full"), "held_out": 1}, "to hold sessions out"),
        ({"config": FitConfig(lags=20), "latent_dim": "2:40"}, "latent dim"),
    ],
)
def test_scan__refuses_what_no_chain_can_do(fresh, options, said):
    with pytest.raises(InputError, match=said):
        kpms_zarr.scan(fresh, **{"kappa": [1.0], **options})
    assert list_scans(fresh) == ()
    assert is_current(access.open_group(fresh))


# --- sessions -----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def thirty(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with thirty sessions, and one that is too short."""
    store = tmp_path_factory.mktemp("thirty") / "study.zarr"
    write_store(store, SyntheticStudy(n_keypoints=4, lengths=(50,) * 3 + (3,) + (50,) * 27))
    return store


@pytest.fixture
def many(thirty: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(choosing, "ENOUGH_FRAMES", 500)
    return thirty


def chosen_of(store: Path, selectors: Any = None, held_out: Any = None, holds: bool = True) -> Any:
    root = access.open_group(store)
    found = choose_sessions(root, store, selectors, held_out, lags=3, holds_out=holds)
    sampled, kept = ([s.name for s in part] for part in (found.sampled, found.held_out))
    assert not set(sampled) & set(kept)
    return sampled, kept, found.notes


def test_sessions__are_evenly_spread_and_a_fifth_is_held_out(many):
    sampled, kept, notes = chosen_of(many)
    assert (len(sampled), len(kept)) == (8, 2)
    rows = sorted(int(name[-3:]) for name in (*sampled, *kept))
    assert set(np.diff(rows).tolist()) == {3, 4}  # the one that is too short is left out
    assert chosen_of(many) == (sampled, kept, notes)
    assert any("10 of 30 sessions" in note for note in notes)
    assert any("session_003" in note for note in notes)
    assert [len(part) for part in chosen_of(many, holds=False)[:2]] == [10, 0]


def test_sessions__that_are_asked_for_are_taken(many):
    sampled, kept, notes = chosen_of(many, ["session_00[0-2]"])
    assert sorted([*sampled, *kept]) == ["session_000", "session_001", "session_002"]
    assert len(kept) == 1
    assert notes == ()
    sampled, kept, _ = chosen_of(many, ["session_00[0-2]"], ["session_010"])
    assert (sampled, kept) == (["session_000", "session_001", "session_002"], ["session_010"])
    assert chosen_of(many, ["session_000"])[:2] == (["session_000"], [])
    assert "no held-out log likelihood" in chosen_of(many, ["session_000"])[2][0]
    assert len(chosen_of(many, None, 5)[1]) == 5
    with pytest.raises(InputError, match="only shorter ones"):
        chosen_of(many, ["session_003"])


# --- words --------------------------------------------------------------------------------


def table_of(varies: str, values: list[float], **figures: Any) -> xr.Dataset:
    n = len(values)
    names = ("median_duration", "held_out_log_likelihood", "expected_marginal_likelihood",
             "log_evidence", "adjusted_rand_index", "effective_number")  # fmt: skip
    filled = {name: np.asarray(figures.get(name, np.full((n, 2), np.nan)), float) for name in names}
    return xr.Dataset(
        {name: (("point", "chain"), value) for name, value in filled.items()},
        {
            varies: ("point", np.asarray(values)),
            "label": ("point", np.asarray([f"p{value:g}" for value in values], dtype=object)),
        },
        {"varies": [varies]},
    )


def test_recommendation__tells_apart_what_differs_by_more_than_its_error():
    # What a seed does to all points alike tells nothing: the first is as low in both.
    held_out = [[1.2, 1.28], [1.22, 1.33], [1.24, 1.32]]
    (said,) = recommend(table_of("lags", [1, 2, 3], held_out_log_likelihood=held_out), None)
    assert said.startswith("the held-out log likelihood is highest at p3 (1.280 nat/frame")
    assert "standard error over 2 chains 0.040" in said
    assert said.endswith("not told apart from it: p2")
    mean, error = mean_and_error(np.array([[1.0, 3.0], [1.0, np.nan], [np.nan, np.nan]]))
    np.testing.assert_allclose(mean, [2, 1, np.nan])
    np.testing.assert_allclose(error, [1, np.nan, np.nan])


def test_recommendation__names_the_kappa_nearest_to_the_target():
    median = [[100, 120], [300, 320], [900, 1000]]
    table = table_of("kappa", [1, 2, 3], median_duration=median)
    said = recommend(table, 400.0)
    assert (
        "p2 gives a median syllable (310 ms) nearest to the target of 400 ms, and misses" in said[0]
    )
    assert "`target_duration=`" in said[-1]
    assert "nearest to the target of 100 ms" in recommend(table, 100.0)[0]
    assert "misses" not in recommend(table, 100.0)[0]


def test_recommendation__says_which_targets_were_missed_and_what_agrees():
    table = table_of(
        "target_duration", [200, 400], median_duration=[[210, 205], [500, 520]],
        adjusted_rand_index=[[0.5, 0.5], [0.7, 0.7]], effective_number=[[8, 9], [3, 2]],
    )  # fmt: skip
    missed, agree, caution = recommend(table, None)
    assert "a choice" in caution
    assert "not reached: p400 (510 ms)" in missed
    assert "p400 (adjusted Rand index 0.70, with an effective number of 2.5" in agree


def test_grid__compiles_together_what_has_one_shape():
    grid = grid_of({"kappa": [1, 2], "latent_dim": "3,4", "lags": 3})
    assert [p.label for p in grid.points] == [
        "latent dims 3, kappa 1", "latent dims 3, kappa 2",
        "latent dims 4, kappa 1", "latent dims 4, kappa 2",
    ]  # fmt: skip
    assert [axis.setting for axis in grid.axes] == ["latent_dim", "kappa"]
    assert json.dumps(grid.points[0].settings) == '{"latent_dim": 3, "lags": 3, "kappa": 1.0}'
