"""Merging of syllables: a new version of the labels in which some are one."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np

from kpms_zarr.compute.analysis.tables.posed_labels import PosedLabels
from kpms_zarr.compute.events import Callback, Published, tell
from kpms_zarr.compute.kernels.evidence import pooled as pooled_moments
from kpms_zarr.compute.runs.hierarchy.grouping import (
    Grouping,
    Groups,
    evidence_groups,
    family_groups,
    log_bayes_factors,
    n_left,
    read_groups,
)
from kpms_zarr.compute.runs.hierarchy.label_sums import LabelSums, count_frames, label_sums
from kpms_zarr.compute.runs.hierarchy.merged_values import (
    merged_figures,
    merged_frames,
    merged_halves,
    merged_parameters,
)
from kpms_zarr.compute.runs.hierarchy.posed_frames import PUBLISHED, PosedFrames, parameters_of
from kpms_zarr.compute.runs.hierarchy.similarity import posterior_mean, reference_of
from kpms_zarr.compute.runs.publish import add_levels
from kpms_zarr.compute.runs.summaries import label_statistics
from kpms_zarr.compute.runs.written import WrittenLabels
from kpms_zarr.compute.sampler.certainty import CertaintyCounts
from kpms_zarr.store.core import access, attributes
from kpms_zarr.store.core.access import Session, StoreLike
from kpms_zarr.store.core.blocks import Block
from kpms_zarr.store.core.locking import Lock, model_lock
from kpms_zarr.store.core.provenance import provenance_of
from kpms_zarr.store.errors import InputError
from kpms_zarr.store.model.merges import MergeRecord
from kpms_zarr.store.model.models import (
    LabelWriter,
    at_present_rates,
    labels_path,
    open_labels,
    require_model,
    write_parameters,
)
from kpms_zarr.store.model.replicability import open_replicability
from kpms_zarr.store.model.syllable_names import read_names
from kpms_zarr.store.shown import ShownAsTable
from kpms_zarr.store.study.settings import read_settings
from kpms_zarr.store.wording import listed

RULES = ("groups", "families", "evidence")


@dataclass(frozen=True)
class MergedGroup:
    """Syllables that became one.

    Attributes
    ----------
    syllables : tuple of int
        In the numbers of the version before, most frequent first.
    becomes : int
        Number in the new version.
    name : str
        That it has there; "" = none.
    frequency : float
        Share of the labelled frames.
    log_bayes_factor : float
        That they are one state, all others as they are, in nat; NaN where the version has no pose.
    """

    syllables: tuple[int, ...]
    becomes: int
    name: str
    frequency: float
    log_bayes_factor: float


@dataclass(frozen=True)
class MergeSummary(ShownAsTable):
    """Result of :func:`merge`.

    Attributes
    ----------
    store, model : str
    version : str
        That was published; "" when nothing was: nothing to merge, or ``dry_run``.
    from_version : str
    rule : str
        ``"groups"``, ``"families"`` or ``"evidence"``.
    groups : tuple of MergedGroup
    n_before, n_after : int
        Syllables that occur.
    seconds : float
    notes : tuple of str
    """

    store: str
    model: str
    version: str
    from_version: str
    rule: str
    groups: tuple[MergedGroup, ...]
    n_before: int
    n_after: int
    seconds: float
    notes: tuple[str, ...]


def merge(
    store: StoreLike,
    *,
    model: str,
    groups: Groups | None = None,
    families: bool = False,
    evidence: bool = False,
    margin: float = 0.0,
    version: str | None = None,
    dry_run: bool = False,
    callbacks: Sequence[Callback] = (),
) -> MergeSummary:
    """Make syllables one, in a new version of the labels of a model.

    The version before stays as it is, and ``kpms_zarr.versions(store, model=..., use="v1")`` makes
    it the current one again. Syllables are numbered by frequency anew; those of other packages keep
    their numbers. Names follow, and so do families, replicability (a lower bound for what was
    merged), tables, exports and levels of detail. The certainty of a merged label is at least that
    of the label before, and of it and the second choice where both became one. Sessions that
    ``apply`` labels later are labelled by the syllables before, and merged in the same way.

    Parameters
    ----------
    store : path or URL
    model : str
    groups : str or sequence of sequence of int
        Syllables that become one, ``"1,5;3,14"`` or ``[[1, 5], [3, 14]]``.
    families : bool
        Merge each family of syllables, which ensembles have.
    evidence : bool
        Merge pairs, the one that gains most first, while the log Bayes factor that both are one
        state is above ``margin`` (see :func:`kpms_zarr.similarity`).
    margin : float
        In nat.
    version : str, optional
        Of the labels (default: the current one).
    dry_run : bool
        Only say what would become one.
    callbacks : sequence of callable
        Each is given the events of ``compute.events``.

    Returns
    -------
    MergeSummary

    Raises
    ------
    InputError
        Unless exactly one of ``groups``, ``families`` and ``evidence`` is given; when there is no
        such model or version; for groups that are wrong (see :func:`read_groups`), without
        families, and for evidence of labels without a pose. The store is then as it was.
    """
    began = time.perf_counter()
    rule = _rule(groups, families, evidence, margin)
    messages: list[str] = []
    notify = partial(tell, callbacks, messages)
    require_model(store, model)  # the lock would make a group for any name
    if dry_run:
        found = _Merge.of(store, model, version, rule, groups, margin)
        return found.summary("", began, messages)
    root = access.open_group(store, "r+")
    with model_lock(root, store, model) as lock:
        found = _Merge.of(store, model, version, rule, groups, margin)
        if not found.groups:
            return found.summary("", began, messages)
        published = publish_merged(
            root, store, model, found.version, found.grouping,
            settings=found.settings(), sums=found.sums, frames=found.frames, lock=lock,
        )  # fmt: skip
        notify(Published(model, published))
        add_levels(root, model, published, notify)
    return found.summary(published, began, messages)


def _rule(groups: Groups | None, families: bool, evidence: bool, margin: float) -> str:
    given = [
        name
        for name, is_given in zip(RULES, (groups is not None, families, evidence), strict=True)
        if is_given
    ]
    if len(given) != 1:
        raise InputError(
            expected="one of `groups=`, `families=` and `evidence=`",
            found=listed([f"`{name}=`" for name in given]) or "none of them",
            where="what becomes one",
            fix="give one: `groups='1,5;3,14'`, `families=True` or `evidence=True`",
        )
    if not np.isfinite(margin) or (margin != 0 and given != ["evidence"]):
        raise InputError(
            expected="a number of nat, for merging by evidence",
            found=f"{margin:g}",
            where="`margin=`",
            fix="leave it out, or give it beside `evidence=True`",
        )
    return given[0]


@dataclass(frozen=True)
class _Merge:
    """What becomes one, and by what figures."""

    store: StoreLike
    model: str
    version: str
    rule: str
    margin: float
    n_frames: np.ndarray
    grouping: Grouping
    groups: tuple[tuple[int, ...], ...]
    log_bayes_factor: tuple[float, ...]
    frames: PosedFrames | None
    sums: LabelSums | None

    @classmethod
    def of(
        cls,
        store: StoreLike,
        model: str,
        version: str | None,
        rule: str,
        given: Groups | None,
        margin: float,
    ) -> _Merge:
        labels = PosedLabels(store, model, version)
        version = labels.version
        n_frames = count_frames(labels)
        if given is not None:
            wanted = read_groups(given, n_frames, store, model, version)
        elif rule == "families":
            opened = open_labels(store, model, version)
            family = np.full(len(n_frames), -1)
            if "frequency" in opened:
                family = open_replicability(store, model, opened).family
            wanted = family_groups(family, n_frames, store, model, version)
        has_pose = labels._array("latent") is not None
        frames = sums = None
        if rule == "evidence" or has_pose:
            frames = PosedFrames.of(store, model, version)
            sums = label_sums(frames)
        if rule == "evidence":
            assert frames is not None
            assert sums is not None
            wanted = evidence_groups(frames, sums, margin)
        is_foreign = parameters_of(store, model, version) is None
        grouping = Grouping.of(wanted, n_frames, keeps_numbers=is_foreign)
        groups = grouping.groups(n_frames)
        factors = [float("nan")] * len(groups)
        if frames is not None and sums is not None:
            factors = log_bayes_factors(frames, sums, groups)
        return cls(
            store, model, version, rule, margin, n_frames, grouping, groups, tuple(factors),
            frames, sums,
        )  # fmt: skip

    def settings(self) -> dict[str, Any]:
        """Provenance of the new version."""
        found: dict[str, Any] = {
            "rule": self.rule,
            "groups": [list(group) for group in self.groups],
            "log_bayes_factor": [
                None if np.isnan(one) else round(one, 3) for one in self.log_bayes_factor
            ],
        }
        return found | ({"margin": self.margin} if self.rule == "evidence" else {})

    def summary(self, published: str, began: float, notes: Sequence[str]) -> MergeSummary:
        """What is said of it."""
        called = read_names(self.store, self.model, self.version)
        total = max(1, int(self.n_frames.sum()))
        groups = tuple(
            MergedGroup(
                group,
                int(self.grouping.number[group[0]]),
                called.joined(group)[0],
                float(self.n_frames[list(group)].sum() / total),
                factor,
            )
            for group, factor in zip(self.groups, self.log_bayes_factor, strict=True)
        )
        return MergeSummary(
            os.fspath(self.store), self.model, published, self.version, self.rule, groups,
            int((self.n_frames > 0).sum()), n_left(self.groups, self.n_frames),
            time.perf_counter() - began, tuple(notes),
        )  # fmt: skip


# ------------------------------------------------------------------ the new version


def publish_merged(
    root: access.Group,
    store: StoreLike,
    model: str,
    version: str,
    grouping: Grouping,
    *,
    settings: Mapping[str, Any],
    parameters: str | None = None,
    sums: LabelSums | None = None,
    frames: PosedFrames | None = None,
    lock: Lock | None = None,
) -> str:
    """Write merged labels as a new version, block by block, and make it the current one.

    Parameters
    ----------
    version : str
        Of the labels that are merged.
    settings : mapping
        Provenance: the rule, groups and figures.
    parameters : str, optional
        Version of the parameters behind the new labels, merged in the same way before (default:
        new ones).
    sums, frames : optional
        Of the version, from which the dynamics of what was merged follow.
    lock : Lock, optional
        Of the model.

    Returns
    -------
    str
        The version.
    """
    old: Any = root[labels_path(store, model, version)]
    opened = open_labels(store, model, version)
    found = parameters_of(store, model, version)
    names = tuple(name for name in _BY_FRAME if name in old)
    study = read_settings(root)
    if found is not None and "keypoint" in found.variables:
        study = replace(study, keypoints=tuple(map(str, found["keypoint"].values)))
    writer = LabelWriter(
        root, model, sessions=at_present_rates(root, _sessions(old)), settings=study, names=names,
        n_latent=int(opened.sizes.get("latent_dim", 0)), parameters_version=parameters or "",
        scale=np.asarray(old["scale"][:]).tolist() if "scale" in old else None,
    )  # fmt: skip
    try:
        certainty = _write(writer, old, grouping, names, lock)
        n_states = len(grouping.number)
        statistics = label_statistics(WrittenLabels(writer, 0), n_states)
        if "certainty" in names:
            statistics["mean_certainty"] = certainty.mean
        statistics |= _figures(store, model, version, grouping, str(settings.get("rule", "")))
        if found is not None and parameters is None:
            moments = None if frames is None or sums is None else sums.moments
            dynamics = None
            if frames is not None and moments is not None and frames.origin == PUBLISHED:
                joined = pooled_moments(moments, reference_of(frames), grouping.target)
                dynamics = posterior_mean(frames, joined)
            values = merged_parameters(found, grouping, dynamics)
            dropped = ("provenance", "fit_id", "from_version")
            told = attributes.read(found.attrs)
            attrs = {k: v for k, v in told.items() if k not in dropped}
            write_parameters(
                root, model, writer.version, values, provenance_of(found.attrs)["settings"], attrs
            )
    except BaseException:
        writer.discard()
        raise
    record = MergeRecord(version, grouping.number, grouping.own)
    statistics |= record.to_store()
    return writer.publish("merge", {**settings, **record.settings(), **_members(opened)},
                          statistics)  # fmt: skip


_BY_FRAME = (
    "syllable", "certainty", "second_syllable", "second_certainty", "latent", "centroid",
    "heading", "noise_scale",
)  # fmt: skip


def _sessions(old: Any) -> tuple[Session, ...]:
    columns = (np.asarray(old[name][:]) for name in ("session", "n_frames", "fps"))
    return tuple(
        Session(str(name), row, int(n_frames), float(fps))
        for row, (name, n_frames, fps) in enumerate(zip(*columns, strict=True))
    )


def _write(
    writer: LabelWriter, old: Any, grouping: Grouping, names: Sequence[str], lock: Lock | None
) -> CertaintyCounts:
    """Write all variables by frame; returns the counts of their certainties."""
    certainty = CertaintyCounts(len(grouping.number))
    for row, session in enumerate(writer.sessions):
        for start in range(0, session.n_frames, writer.block_frames):
            stop = min(start + writer.block_frames, session.n_frames)
            values = {name: np.asarray(old[name][row, start:stop]) for name in names}
            merged = merged_frames(values, grouping.number)
            if "certainty" in merged:
                certainty.add(merged["syllable"], merged["certainty"])
            writer.write(Block(row, start, stop), merged)
            if lock is not None:
                lock.renew()
    return certainty


def _figures(
    store: StoreLike, model: str, version: str, grouping: Grouping, rule: str
) -> dict[str, Any]:
    opened = open_labels(store, model, version)
    if "frequency" not in opened:
        return {}
    known = open_replicability(store, model, opened)
    agreement = opened["member_agreement"].values if "member_agreement" in opened else None
    found = {**merged_figures(known, agreement, grouping), **merged_halves(known, rule)}
    if "n_sweeps_in_all" in opened.attrs:
        found["n_sweeps_in_all"] = float(opened.attrs["n_sweeps_in_all"])
    return found


def _members(opened: Any) -> dict[str, Any]:
    """Models that the labels are the consensus of, as their provenance has them."""
    models = provenance_of(opened.attrs).get("settings", {}).get("models")
    return {"models": models} if models else {}


def merge_again(
    root: access.Group, store: StoreLike, model: str, version: str, like: str, lock: Lock | None
) -> str:
    """Merge the labels of a version as those of a merged version are merged.

    Parameters
    ----------
    version : str
        Of labels by the syllables before all merges.
    like : str
        The merged version.
    """
    grouping = None
    current = like
    while (record := MergeRecord.of(open_labels(store, model, current))) is not None:
        one = Grouping.of_numbers(record.number, record.own)
        grouping = one if grouping is None else one.then(grouping)
        current = record.from_version
    assert grouping is not None
    labels = open_labels(store, model, like)
    n_frames = count_frames(PosedLabels(store, model, version))
    settings = {
        "rule": provenance_of(labels.attrs)["settings"].get("rule", ""),
        "groups": [list(group) for group in grouping.groups(n_frames)],
        "like": like,
    }
    return publish_merged(
        root, store, model, version, grouping,
        settings=settings, parameters=str(labels.attrs["parameters"]), lock=lock,
    )  # fmt: skip
