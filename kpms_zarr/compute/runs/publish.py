"""Write a finished chain into the store: parameters and traces, then labels, then the pointer."""

from __future__ import annotations

from collections.abc import Collection
from itertools import repeat
from typing import Any

import numpy as np

from kpms_zarr.compute.config import FitConfig
from kpms_zarr.compute.events import Callback, Noted
from kpms_zarr.compute.runs.preparation import Preparation
from kpms_zarr.compute.runs.summaries import label_statistics
from kpms_zarr.compute.sampler.bouts import count_labels
from kpms_zarr.compute.sampler.certainty import LabelCertainty
from kpms_zarr.compute.sampler.chain import NO_STATE, Chain, ChainIndex
from kpms_zarr.compute.sampler.trace import ChainProgress
from kpms_zarr.compute.tracking.outliers import to_attrs, to_store
from kpms_zarr.store.core import access
from kpms_zarr.store.core.blocks import Block
from kpms_zarr.store.model.levels import write_levels
from kpms_zarr.store.model.models import LabelWriter, finished_version, write_parameters


class Numbered:
    """Labels of a chain as they are published: numbered by frequency, and none missing.

    The ``lags`` frames that a session begins with, which have no state, have its first label.

    Parameters
    ----------
    order : ndarray, (state,)
        State ``order[i]`` is syllable i.
    """

    def __init__(self, chain: Chain, order: np.ndarray) -> None:
        self._chain = chain
        # One entry more than states: -1 indexes it and stays -1.
        self._number = np.full(len(order) + 1, NO_STATE, np.int16)
        self._number[order] = np.arange(len(order), dtype=np.int16)

    @property
    def index(self) -> ChainIndex:
        """Index of the sessions."""
        return self._chain.index

    @property
    def syllable(self) -> Numbered:
        """Numbered labels (frame,), read by slices of frames."""
        return self

    def __getitem__(self, key: slice) -> np.ndarray:
        start, stop, _ = key.indices(self.index.n_frames)
        lags = self.index.lags
        found = np.array(self._chain.syllable[start:stop])
        first = self.index.first
        low, high = np.searchsorted(first, [start - lags, stop], side="right")
        for session in range(max(0, low - 1), high):
            begin = int(first[session])
            if self.index.n_modelled[session] > 0 and begin < stop and begin + lags > start:
                label = self._chain.syllable[begin + lags : begin + lags + 1][0]
                found[max(0, begin - start) : max(0, begin + lags - start)] = label
        return self._number[found]


def order_of(chain: Chain, n_states: int) -> np.ndarray:
    """States by frequency, most frequent first: (state,)."""
    return np.argsort(-count_labels(chain, n_states).frames, kind="stable")


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
    certainty: LabelCertainty | None = None,
    notes: list[str],
) -> str:
    """Number syllables by frequency, write everything, and make the version current.

    When it was done before by the fit of that ``fit_id``, nothing is written again. ``certainty``
    is that of the chain, when it is to be published.

    Returns
    -------
    str
        The version, such as ``"v1"``.
    """
    version = finished_version(root, model, fit_id)
    if version is not None:
        return version
    order = order_of(chain, config.n_states)
    numbered = Numbered(chain, order)
    settings = {**config.to_dict(), "given": sorted(config.given), "notes": list(notes)}
    names = label_names(chain, config)
    writer = make_writer(root, model, chain, preparation, names)
    write_labels(writer, numbered, chain, names, progress.noise_variance, certainty=certainty)
    values = _parameter_values(progress, order, preparation)
    attrs: dict[str, Any] = {
        "fix_heading": preparation.fix_heading,
        "is_turned": preparation.is_turned,
        "centroid_step_variance": preparation.step_variance,
        "n_sweeps_in_all": progress.n_before + progress.done,
        "fit_id": fit_id,
        **to_attrs(None if preparation.screen is None else preparation.screen.model),
    }
    if from_version is not None:
        attrs["from_version"] = from_version
    write_parameters(root, model, writer.version, values, settings, attrs)
    statistics = label_statistics(numbered, config.n_states)
    if certainty is not None:
        statistics["mean_certainty"] = certainty.mean
    return writer.publish("fit", settings, statistics)


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


def label_names(chain: Chain, config: FitConfig) -> tuple[str, ...]:
    """Variables by frame that are published."""
    names = ["syllable", "latent", "centroid", "heading"]
    if config.certainty:
        names.append("certainty")
    if config.save_noise_scale and chain.n_keypoints:
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
    certainty: LabelCertainty | None = None,
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
                values["certainty"] = known[start:stop]
                certainty.add(values["syllable"], known[start:stop])
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
