"""Which syllables may be interpreted: shares of the frames, and what is said of them."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st

from helpers.amount import examples
from kpms_zarr.store.core.commands import for_shell
from kpms_zarr.store.model import replicability
from kpms_zarr.store.model.replicability import (
    READINGS,
    Replicability,
    in_words,
    open_replicability,
    reading,
    to_attrs,
)

EDGES = (1.0, 0.85, 0.8499, 0.75, 0.7499, 0.6, 0.5999, 0.0, np.nan)


def labels_of(
    frequency: Any, index: Any = None, *, n_members: int = 8, attrs: Any = (), **by_state: Any
) -> xr.Dataset:
    """Labels in memory, of a consensus or of one chain."""
    data = {"frequency": ("state", np.asarray(frequency, float))}
    if index is not None:
        by_state["replicability"] = index
    data |= {name: ("state", np.asarray(values)) for name, values in by_state.items()}
    members = [f"c{i}@v1" for i in range(n_members)] if n_members > 1 else []
    made = {"settings": {"models": members} if members else {}}
    return xr.Dataset(data, attrs={**dict(attrs), "provenance": json.dumps(made)})


@pytest.mark.parametrize(
    ("index", "words"),
    [(1, "stable"), (0.85, "stable"), (0.849, "fairly stable"), (0.75, "fairly stable"),
     (0.749, "doubtful"), (0.6, "doubtful"), (0.599, "do not interpret"), (0, "do not interpret"),
     (np.nan, "")],
)  # fmt: skip
def test_reading__is_that_of_hennig(index: float, words: str) -> None:
    assert reading(index) == words


def test_shares__at_the_edges_of_the_readings() -> None:
    weights = 2.0 ** -np.arange(1, len(EDGES) + 1)
    found = Replicability.of(labels_of(weights, EDGES)).shares()
    total = weights.sum()
    sums = [weights[:4].sum(), weights[4:6].sum(), weights[6:8].sum(), weights[8]]
    np.testing.assert_allclose(found, np.array(sums) / total)


@settings(deadline=None, max_examples=examples(50))
@given(
    st.lists(
        st.tuples(st.integers(0, 50), st.sampled_from([*EDGES, 0.3, 0.7, 0.9])),
        min_size=1,
        max_size=12,
    )
)
def test_shares__are_those_of_the_readings_and_sum_to_one(
    syllables: list[tuple[int, float]],
) -> None:
    frames, index = (np.array(column, float) for column in zip(*syllables, strict=True))
    found = Replicability.of(labels_of(frames / max(1, frames.sum()), index)).shares()
    assert sum(found) == pytest.approx(1)
    if not frames.sum():
        return
    kinds = {"": 3, "do not interpret": 2, "doubtful": 1, "fairly stable": 0, "stable": 0}
    naive = np.zeros(4)
    for n, one in syllables:
        naive[kinds[reading(one)]] += n / frames.sum()
    np.testing.assert_allclose(found, naive, atol=1e-12)


def test_grouped__those_in_use_most_frequent_first() -> None:
    found = Replicability.of(labels_of([0.2, 0.5, 0.296, 0.004], [0.9, 0.95, 0.7, 0.99]))
    assert found.grouped() == {
        "stable": [1, 0], "fairly stable": [], "doubtful": [2], "do not interpret": [],
    }  # fmt: skip
    assert list(found.grouped()) == [words for _, words in READINGS]


def test_one_chain__nothing_may_be_said_and_the_command_that_changes_it() -> None:
    found = Replicability.of(labels_of([0.5, 0.5], n_members=1))
    assert not found.is_known
    assert found.n_members == 1
    (words,) = in_words(found)
    assert words.startswith("a single chain says nothing of what other seeds find")
    assert for_shell(words).endswith("kpms-zarr fit STORE --model NAME --chains 8")
    assert set(to_attrs(found)) == {"n_members", "replicability_in_words"}


def test_three_models__have_no_halves() -> None:
    found = Replicability.of(labels_of([0.5, 0.5], [np.nan] * 2, n_members=3))
    assert not found.is_known
    (words,) = in_words(found)
    assert "a consensus of 3 models has no halves" in words
    assert "four" in words


def test_ensemble__figures_in_words() -> None:
    halves = {"half_rand_index": 0.816, "half_matched_share": 0.931, "half_effective_number": 3.52}
    found = Replicability.of(labels_of([0.6, 0.3, 0.1], [0.9, 0.7, 0.1], attrs=halves))
    first, shares, beyond = in_words(found)
    assert first == (
        "two halves of the 8 chains, which share none: adjusted Rand index 0.82, 93.1 % of the "
        "frames with the matched label, effective number of syllables 3.5"
    )
    assert shares.startswith("60.0 % of the frames lie in syllables that other chains find again")
    assert "30.0 % in doubtful ones, 10.0 % in syllables that should not be" in shares
    assert "halves of the sessions were not compared" in beyond
    assert for_shell(beyond).endswith("kpms-zarr fit STORE --model NAME --chains 8 --halves")
    attrs = to_attrs(found)
    assert attrs["interpreted_share"] == pytest.approx(0.6)
    assert attrs["half_rand_index"] == 0.816
    assert not any("session" in name or "beyond" in name for name in attrs)


def test_ensemble__between_sessions_both_must_hold() -> None:
    """A syllable that only the sessions agree on is no syllable of the chains, and vice versa."""
    attrs = {
        "session_half_rand_index": 0.4,
        "family_half_rand_index": 0.9,
        "family_session_half_rand_index": 0.7,
    }
    labels = labels_of(
        [0.4, 0.3, 0.2, 0.1],
        [0.9, 0.9, 0.5, 0.8],
        attrs=attrs,
        session_replicability=[0.8, 0.5, 0.9, np.nan],
        family=np.array([0, 0, -1, -1], np.int16),
    )
    found = Replicability.of(labels)
    assert found.is_known_between_sessions
    assert found.shares(found.lower).interpreted == pytest.approx(0.4)
    words = in_words(found)
    assert len(words) == 5
    assert words[2] == "their families: adjusted Rand index 0.70"
    assert words[0].startswith("their families, coarser groups of syllables: adjusted Rand")
    assert words[1] == "ensembles fitted to two halves of the sessions: adjusted Rand index 0.40"
    assert words[4].startswith("40.0 % of the frames lie in syllables that the other half")
    assert to_attrs(found)["interpreted_beyond_share"] == pytest.approx(0.4)
    assert found.has_families
    assert (found.siblings(0), found.siblings(2)) == ([1], [])


def test_open__of_sessions_applied_later_is_that_of_the_fit(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Shares are those of the later version, indices those of the version with its parameters."""
    versions = {
        "v1": labels_of([0.5, 0.5], [0.9, 0.1], attrs={"parameters": "v1"}),
        "v2": labels_of([0.2, 0.8], n_members=1, attrs={"parameters": "v1"}),
    }
    asked = []

    def opened(_: object, __: str, version: str = "v2") -> xr.Dataset:
        asked.append(version)
        return versions[version]

    monkeypatch.setattr(replicability, "open_labels", opened)
    found = open_replicability("s.zarr", "m")
    assert asked == ["v2", "v1"]
    assert found.n_members == 8
    assert found.shares().interpreted == pytest.approx(0.2)
