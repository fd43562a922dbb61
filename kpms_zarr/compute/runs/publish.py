"""Write a finished chain into the store: parameters and traces, then labels, then the pointer."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from itertools import repeat
from typing import Any

import numpy as np

from kpms_zarr.compute.config import FitConfig
from kpms_zarr.compute.events import Callback, Noted
from kpms_zarr.compute.runs.preparation import Preparation
from kpms_zarr.compute.runs.summaries import label_statistics
from kpms_zarr.compute.sampler.bouts import LabelCounts, Labelled, count_labels
from kpms_zarr.compute.sampler.certainty import (
    AveragedCertainty,
    LabelCertainty,
    PublishedCertainty,
)
from kpms_zarr.compute.sampler.chain import NO_STATE, Chain, ChainIndex
from kpms_zarr.compute.sampler.draws import AveragedLabels
from kpms_zarr.compute.sampler.sweep import Sweeper
from kpms_zarr.compute.sampler.tile_model import Parameters
from kpms_zarr.compute.sampler.trace import ChainProgress
from kpms_zarr.compute.tracking.outliers import to_attrs, to_store
from kpms_zarr.store.core import access
from kpms_zarr.store.core.blocks import Block
from kpms_zarr.store.model import settling
from kpms_zarr.store.model.levels import write_levels
from kpms_zarr.store.model.models import LabelWriter, finished_version, write_parameters

SECOND = ("second_syllable", "second_certainty")
"""Published of averaged labels alone."""


@dataclass(frozen=True, kw_only=True)
class Extras:
    """Extras of a model that was not fitted but made of others.

    Attributes
    ----------
    action : str
        That made it.
    settings, attrs : dict
        Further ones, of its provenance and of its parameters.
    by_frame : tuple of str
        Further variables by frame, which its certainty gives.
    parameters, statistics : dict
        Further variables of the parameters, and of the labels, that have no frame dim.
    """

    action: str
    settings: dict[str, Any]
    attrs: dict[str, Any]
    by_frame: tuple[str, ...]
    parameters: dict[str, Any]
    statistics: dict[str, Any]


class Numbered:
    """Labels of a chain as they are published: numbered by frequency, and none missing.

    The ``lags`` frames that a session begins with, which have no state, have its first label.

    Parameters
    ----------
    order : ndarray, (state,)
        State ``order[i]`` is syllable i.
    """

    def __init__(self, labels: Labelled, order: np.ndarray) -> None:
        self._labels = labels
        # One entry more than states: -1 indexes it and stays -1.
        self._number = np.full(len(order) + 1, NO_STATE, np.int16)
        self._number[order] = np.arange(len(order), dtype=np.int16)

    @property
    def index(self) -> ChainIndex:
        """Index of the sessions."""
        return self._labels.index

    @property
    def syllable(self) -> Numbered:
        """Numbered labels (frame,), read by slices of frames."""
        return self

    def __getitem__(self, key: slice) -> np.ndarray:
        start, stop, _ = key.indices(self.index.n_frames)
        lags = self.index.lags
        found = np.array(self._labels.syllable[start:stop])
        first = self.index.first
        low, high = np.searchsorted(first, [start - lags, stop], side="right")
        for session in range(max(0, low - 1), high):
            begin = int(first[session])
            if self.index.n_modelled[session] > 0 and begin < stop and begin + lags > start:
                label = self._labels.syllable[begin + lags : begin + lags + 1][0]
                found[max(0, begin - start) : max(0, begin + lags - start)] = label
        return self.number(found)

    def number(self, states: np.ndarray) -> np.ndarray:
        """Number states as syllables; -1 stays."""
        return self._number[states]


def order_of(labels: Labelled, n_states: int) -> np.ndarray:
    """States by frequency, most frequent first: (state,)."""
    return by_frequency(count_labels(labels, n_states))


def by_frequency(counts: LabelCounts) -> np.ndarray:
    """States by frequency, most frequent first, of labels that are counted: (state,)."""
    return np.argsort(-counts.frames, kind="stable")


def published_labels(chain: Chain) -> Labelled:
    """Choose the labels of a chain that are published: averaged, or without draws, as they are."""
    is_averaged = chain.draws is not None and chain.draws.n_kept > 1
    return AveragedLabels(chain) if is_averaged else chain


def certainty_of(
    labels: Labelled, sweeper: Sweeper, parameters: Parameters
) -> AveragedCertainty | LabelCertainty:
    """Certainty of the labels of a chain as :func:`published_labels` gives them.

    ``parameters``: those that the labels of the last sweep were drawn with.
    """
    if isinstance(labels, AveragedLabels):
        return AveragedCertainty(labels, sweeper.n_states)
    return LabelCertainty(sweeper, parameters)


def publish(
    root: access.Group,
    model: str,
    *,
    chain: Chain,
    progress: ChainProgress,
    preparation: Preparation,
    config: FitConfig,
    from_version: str | None = None,
    fit_id: str = "",
    labels: Labelled,
    certainty: PublishedCertainty | None = None,
    notes: list[str],
    extras: Extras | None = None,
) -> str:
    """Number syllables by frequency, write everything, and make the version current.

    When it was done before by the fit of that ``fit_id``, nothing is written again. ``labels``
    are those of :func:`published_labels`, ``certainty`` is theirs, when it is to be published;
    ``extras``: what a model has that a fit has not; its states are numbered already.

    Returns
    -------
    str
        The version, such as ``"v1"``.
    """
    version = finished_version(root, model, fit_id)
    if version is not None:
        return version
    order = np.arange(config.n_states) if extras else order_of(labels, config.n_states)
    numbered = Numbered(labels, order)
    settings = {**config.to_dict(), "given": sorted(config.given), "notes": list(notes)}
    names = label_names(config, has_second=isinstance(labels, AveragedLabels))
    if extras is not None:
        settings |= extras.settings
        names += tuple(name for name in extras.by_frame if name not in names)
    writer = make_writer(root, model, chain, preparation, names)
    write_labels(writer, numbered, chain, names, progress.noise_variance, certainty=certainty)
    values = _parameter_values(progress, order, preparation)
    attrs: dict[str, Any] = {
        "fix_heading": preparation.fix_heading,
        "is_turned": preparation.is_turned,
        "centroid_step_variance": preparation.step_variance,
        **(preparation.noise.to_attributes() if chain.n_keypoints else {}),
        "n_sweeps_in_all": progress.n_before + progress.done,
        "fit_id": fit_id,
        **({} if extras else settling.to_attrs(progress.settling)),
        **to_attrs(None if preparation.screen is None else preparation.screen.model),
    }
    if from_version is not None:
        attrs["from_version"] = from_version
    if extras is not None:
        values |= extras.parameters
        attrs |= extras.attrs
    write_parameters(root, model, writer.version, values, settings, attrs)
    statistics = label_statistics(numbered, config.n_states)
    if certainty is not None:
        statistics["mean_certainty"] = certainty.mean
    if extras is not None:
        statistics |= extras.statistics
    return writer.publish("fit" if extras is None else extras.action, settings, statistics)


def add_levels(root: access.Group, model: str, version: str, notify: Callback) -> None:
    """Store the levels of detail of a published version; an error becomes a message."""
    try:
        write_levels(root, model, version)
    except Exception as error:  # views do without them, only slower
        notify(
            Noted(
                f"the levels of detail of {model} {version} could not be stored "
                f"({type(error).__name__}: {error}); in Python: "
                f"kpms_zarr.build_levels(store, {model!r})"
            )
        )


def label_names(config: FitConfig, *, has_second: bool) -> tuple[str, ...]:
    """Variables by frame that are published; ``has_second``: of labels with a second choice."""
    names = ["syllable", "latent", "centroid", "heading"]
    if config.certainty:
        names.append("certainty")
    if config.certainty and has_second:
        names += SECOND
    if config.save_noise_scale and config.stage != "ar":
        names.append("noise_scale")
    return tuple(names)


def make_writer(
    root: access.Group,
    model: str,
    chain: Chain,
    preparation: Preparation,
    names: tuple[str, ...],
) -> LabelWriter:
    """Begin a label version of the sessions of a chain, in the order of the store."""
    sessions = tuple(sorted(chain.index.sessions, key=lambda session: session.index))
    return LabelWriter(
        root,
        model,
        sessions=sessions,
        settings=preparation.study,
        names=names,
        n_latent=chain.n_latent,
        scale=[preparation.scale[session.index] for session in sessions],
    )


def write_labels(
    writer: LabelWriter,
    numbered: Numbered,
    chain: Chain,
    names: tuple[str, ...],
    noise_variance: np.ndarray | None,
    only: Collection[str] | None = None,
    certainty: PublishedCertainty | None = None,
) -> None:
    """Write the variables by frame, block by block, of some sessions or of all."""
    rows = {session.name: row for row, session in enumerate(writer.sessions)}
    index, of_sessions = chain.index, iter(certainty) if certainty is not None else repeat(None)
    for session, first, known in zip(index.sessions, index.first, of_sessions, strict=False):
        if only is not None and session.name not in only:
            continue
        row = rows[session.name]
        scale = writer.scale[row]
        for start in range(0, session.n_frames, writer.block_frames):
            stop = min(start + writer.block_frames, session.n_frames)
            frames = slice(first + start, first + stop)
            local = chain.local[frames]
            values = {
                name: local[:, chain.columns[name]] for name in names if name in chain.columns
            }
            values["syllable"] = numbered[frames]
            values["centroid"] = values["centroid"] * scale
            if "noise_scale" in values:
                assert noise_variance is not None
                values["noise_scale"] = values["noise_scale"] * (noise_variance * scale**2)
            if certainty is not None and known is not None:
                values |= {name: of_session[start:stop] for name, of_session in known.items()}
                certainty.add(values["syllable"], values["certainty"])
            if "second_syllable" in values:
                values["second_syllable"] = numbered.number(values["second_syllable"])
            writer.write(Block(row, start, stop), values)


def _parameter_values(
    progress: ChainProgress, order: np.ndarray, preparation: Preparation
) -> dict[str, Any]:
    traces = progress.trace.to_arrays(len(order))
    traces["trace_usage"] = traces["trace_usage"][:, order]
    values = {
        "keypoint": np.asarray(preparation.study.keypoints, dtype=object),
        "space": np.asarray(preparation.study.space, dtype=object),
        "pose_loading": preparation.loading,
        "pose_mean": preparation.mean,
        **progress.parameters.reordered(order).to_store(),
        **traces,
    }
    if preparation.screen is not None:
        values |= to_store(preparation.screen.model)
        values["outlier_fraction"] = preparation.screen.fraction
    if progress.noise_variance is not None:
        values["noise_variance"] = progress.noise_variance
    if progress.windows is not None:
        values |= progress.windows.to_store(np.argsort(order))
    return values
