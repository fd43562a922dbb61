"""How far the syllables of a model replicate: figures that its labels hold, and what they mean."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import xarray as xr

from kpms_zarr.store.core.access import StoreLike
from kpms_zarr.store.core.provenance import provenance_of
from kpms_zarr.store.core.schema import USED_FRACTION
from kpms_zarr.store.errors import InputError
from kpms_zarr.store.model.models import open_labels
from kpms_zarr.store.wording import STORE, Stand, call, counted

READINGS = ((0.85, "stable"), (0.75, "fairly stable"), (0.6, "doubtful"), (0.0, "do not interpret"))
"""Smallest Jaccard index of each reading, after Hennig (2007) and the manual of ``clusterboot``:
from 0.85 on highly stable, from 0.75 on valid and stable, from 0.6 to 0.75 a pattern of which it
is doubtful which points belong to it, below 0.6 not to be trusted."""

INTERPRETED = 0.75
"""Smallest Jaccard index of a syllable that may be interpreted; one of :data:`READINGS`."""
_DOUBTFUL = 0.6

ENSEMBLE = call("fit", STORE, model=Stand("NAME"), chains=8)
"""What tells how far syllables replicate, as a message names it."""
_WITH_HALVES = call("fit", STORE, model=Stand("NAME"), chains=8, halves=True)


def reading(index: float) -> str:
    """Say in words what a Jaccard index means for a syllable; see :data:`READINGS`."""
    return next((words for least, words in READINGS if index >= least), "")


class Halves(NamedTuple):
    """Agreement of the labels that two halves give to the same frames; NaN = not known.

    Attributes
    ----------
    rand_index : float
        Adjusted Rand index.
    matched_share : float
        Share of the frames with the same label, syllables matched one to one.
    effective_number : float
        exp of the entropy of the usage of the syllables, mean of both.
    """

    rand_index: float
    matched_share: float
    effective_number: float

    @classmethod
    def of(cls, labels: xr.Dataset, prefix: str) -> Halves:
        """Agreement that labels hold as attributes of this prefix."""
        return cls(*(float(labels.attrs.get(f"{prefix}_{name}", np.nan)) for name in cls._fields))

    @property
    def is_known(self) -> bool:
        """Whether halves were compared."""
        return not np.isnan(self.rand_index)


class Shares(NamedTuple):
    """Shares of the frames by what may be done with their syllables; they sum to 1.

    Attributes
    ----------
    interpreted, doubtful, rejected, unknown : float
    """

    interpreted: float
    doubtful: float
    rejected: float
    unknown: float


@dataclass(frozen=True)
class Replicability:
    """How far the syllables of a version of the labels replicate.

    Attributes
    ----------
    n_members : int
        Chains, or models, that the labels are the consensus of; 1 = one chain.
    frequency : ndarray, (state,)
        Share of the labelled frames.
    between_chains : ndarray, (state,)
        Jaccard index of the syllable between the consensus of two halves of the members; NaN = not
        known.
    between_sessions : ndarray, (state,)
        The same between ensembles fitted to two halves of the sessions.
    family : ndarray, (state,) int
        Coarser group that the syllable belongs to; -1 = none.
    chain_halves, session_halves : Halves
        Of all frames: between halves of the members, and of the sessions.
    family_halves, family_session_halves : Halves
        The same of families in place of syllables.
    """

    n_members: int
    frequency: np.ndarray
    between_chains: np.ndarray
    between_sessions: np.ndarray
    family: np.ndarray
    chain_halves: Halves
    session_halves: Halves
    family_halves: Halves
    family_session_halves: Halves

    @classmethod
    def of(cls, labels: xr.Dataset, measured: xr.Dataset | None = None) -> Replicability:
        """What labels tell.

        Parameters
        ----------
        labels : Dataset
            With ``frequency`` (state).
        measured : Dataset, optional
            The version of the same syllables in which it was measured (default: ``labels``).
        """
        known = labels if measured is None else measured
        frequency = np.nan_to_num(labels["frequency"].values)

        def by_state(name: str, missing: float) -> np.ndarray:
            is_there = name in known
            return known[name].values if is_there else np.full(len(frequency), missing)

        members = provenance_of(known.attrs).get("settings", {}).get("models") or ()
        return cls(
            max(1, len(members)),
            frequency,
            by_state("replicability", np.nan),
            by_state("session_replicability", np.nan),
            by_state("family", -1).astype(int),
            Halves.of(known, "half"),
            Halves.of(known, "session_half"),
            Halves.of(known, "family_half"),
            Halves.of(known, "family_session_half"),
        )

    @property
    def is_known(self) -> bool:
        """Whether it was measured, for any of the syllables."""
        return bool(np.isfinite(self.between_chains).any())

    @property
    def is_known_between_sessions(self) -> bool:
        """Whether halves of the sessions were compared."""
        return bool(np.isfinite(self.between_sessions).any())

    @property
    def has_families(self) -> bool:
        """Whether syllables belong to coarser groups."""
        return bool((self.family >= 0).any())

    @property
    def lower(self) -> np.ndarray:
        """The lower of the indices between chains and between sessions, (state,)."""
        return np.minimum(self.between_chains, self.between_sessions)

    def shares(self, index: np.ndarray | None = None) -> Shares:
        """Shares of the frames by the reading of their syllables.

        Parameters
        ----------
        index : ndarray, (state,), optional
            Jaccard index by which they are read (default: between chains).
        """
        index = self.between_chains if index is None else index
        total = self.frequency.sum()
        if not total > 0:
            return Shares(0.0, 0.0, 0.0, 1.0)
        share = self.frequency / total
        is_known = np.isfinite(index)
        interpreted, doubtful = index >= INTERPRETED, (index >= _DOUBTFUL) & (index < INTERPRETED)
        parts = (interpreted, doubtful, index < _DOUBTFUL, ~is_known)
        return Shares(*(float(share[part].sum()) for part in parts))

    def grouped(self, index: np.ndarray | None = None) -> dict[str, list[int]]:
        """Syllables in use by their reading, most frequent first; those not known are left out.

        Parameters
        ----------
        index : ndarray, (state,), optional
            See :meth:`shares`.
        """
        index = self.between_chains if index is None else index
        order = np.argsort(-self.frequency, kind="stable")
        used = order[self.frequency[order] >= USED_FRACTION]
        found: dict[str, list[int]] = {words: [] for _, words in READINGS}
        for state in used[np.isfinite(index[used])]:
            found[reading(float(index[state]))].append(int(state))
        return found

    def siblings(self, state: int) -> list[int]:
        """Other syllables of the family of a syllable that occur; empty without a family."""
        if self.family[state] < 0:
            return []
        same = (self.family == self.family[state]) & (self.frequency > 0)
        return [int(other) for other in np.flatnonzero(same) if other != state]


def open_replicability(
    store: StoreLike, model: str, labels: xr.Dataset | None = None
) -> Replicability:
    """How far the syllables of a model replicate.

    Labels that a model gave to further sessions have the syllables of the version that its
    parameters were published with, where it was measured.

    Parameters
    ----------
    store : path or URL
    model : str
    labels : Dataset, optional
        A version of its labels, with ``frequency`` (default: the current one).

    Raises
    ------
    InputError
        When there is no such model.
    """
    labels = open_labels(store, model) if labels is None else labels
    version = labels.attrs.get("parameters")
    if "replicability" in labels or not version:
        return Replicability.of(labels)
    try:
        measured = open_labels(store, model, str(version))
    except InputError:
        return Replicability.of(labels)
    return Replicability.of(labels, measured)


def in_words(found: Replicability) -> tuple[str, ...]:
    """What is known, a line for each figure: agreement of halves, and what may be interpreted."""
    if not found.is_known:
        return (_why_unknown(found),)
    return (*halves_in_words(found), interpreted_in_words(found), beyond_in_words(found))


def halves_in_words(found: Replicability) -> tuple[str, ...]:
    """How far halves agree, a line for each two that were compared."""
    lines = []
    if found.chain_halves.is_known:
        halves = _agreement(found.chain_halves, "syllables")
        number = f"{found.n_members} " if found.n_members > 1 else ""
        lines.append(f"two halves of the {number}chains, which share none: {halves}")
    if found.family_halves.is_known:
        lines.append(
            "their families, coarser groups of syllables: "
            f"{_agreement(found.family_halves, 'families')}"
        )
    if found.session_halves.is_known:
        halves = _agreement(found.session_halves, "syllables")
        lines.append(f"ensembles fitted to two halves of the sessions: {halves}")
    if found.family_session_halves.is_known:
        lines.append(f"their families: {_agreement(found.family_session_halves, 'families')}")
    return tuple(lines)


def interpreted_in_words(found: Replicability) -> str:
    """Which share of the frames lies in syllables that may be interpreted."""
    shares = found.shares()
    unknown = f", {percent(shares.unknown)} in others" if shares.unknown > 0 else ""
    return (
        f"{percent(shares.interpreted)} of the frames lie in syllables that other chains find "
        f"again (Jaccard index {INTERPRETED:g} or more) and that may be interpreted, "
        f"{percent(shares.doubtful)} in doubtful ones, {percent(shares.rejected)} in syllables "
        f"that should not be interpreted{unknown}"
    )


def beyond_in_words(found: Replicability) -> str:
    """What is known of other animals."""
    if not found.is_known_between_sessions:
        return (
            "halves of the sessions were not compared: how far these syllables are those of other "
            f"animals is known after {_WITH_HALVES}"
        )
    share = found.shares(found.lower).interpreted
    return (
        f"{percent(share)} of the frames lie in syllables that the other half of the sessions "
        "gives, too, and that may be interpreted beyond these sessions"
    )


def _why_unknown(found: Replicability) -> str:
    if found.n_members > 1:
        return (
            f"a consensus of {counted(found.n_members, 'model')} has no halves that could be "
            "compared, for which it takes four: which syllables may be interpreted is not known; "
            f"it is after {ENSEMBLE}"
        )
    return (
        "a single chain says nothing of what other seeds find, however certain its labels are: "
        f"which syllables may be interpreted is known after {ENSEMBLE}"
    )


def _agreement(halves: Halves, what: str) -> str:
    parts = [f"adjusted Rand index {halves.rand_index:.2f}"]
    if not np.isnan(halves.matched_share):
        parts.append(f"{percent(halves.matched_share)} of the frames with the matched label")
    if not np.isnan(halves.effective_number):
        parts.append(f"effective number of {what} {halves.effective_number:.1f}")
    return ", ".join(parts)


def percent(share: float) -> str:
    """0.123 -> ``12.3 %``."""
    return f"{100 * share:.1f} %"


def to_attrs(found: Replicability) -> dict[str, Any]:
    """What is known as attributes of a table of the syllables; what is not is left out."""
    attrs: dict[str, Any] = {"n_members": found.n_members}
    for prefix, halves in (
        ("half", found.chain_halves),
        ("session_half", found.session_halves),
        ("family_half", found.family_halves),
        ("family_session_half", found.family_session_halves),
    ):
        attrs |= {
            f"{prefix}_{name}": value
            for name, value in halves._asdict().items()
            if not np.isnan(value)
        }
    if found.is_known:
        shares = found.shares()
        attrs |= {
            "interpreted_share": shares.interpreted,
            "doubtful_share": shares.doubtful,
            "rejected_share": shares.rejected,
        }
    if found.is_known_between_sessions:
        attrs["interpreted_beyond_share"] = found.shares(found.lower).interpreted
    return attrs | {"replicability_in_words": "\n".join(in_words(found))}
