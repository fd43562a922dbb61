"""Principal components of the aligned pose, exact and out of core."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import asdict
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import xarray as xr

from kpms_zarr.compute.alignment import thresholds
from kpms_zarr.compute.alignment.alignment import Aligner, AlignmentSettings, is_valid
from kpms_zarr.compute.cluster.connect import ClusterLike, connected
from kpms_zarr.compute.mapreduce import BlockReader, limit_workers, map_reduce
from kpms_zarr.compute.pose.concentration import concentration_note
from kpms_zarr.compute.results import as_dataset, write_group
from kpms_zarr.compute.tracking.outliers import (
    OUTLIER_SCALE,
    Screen,
    check_scale,
    screen_of,
    to_attrs,
    to_store,
)
from kpms_zarr.store.core import access, attributes, layout
from kpms_zarr.store.core.access import Session, StoreLike
from kpms_zarr.store.core.blocks import Block, iter_blocks
from kpms_zarr.store.core.provenance import provenance
from kpms_zarr.store.errors import InputError
from kpms_zarr.store.study.settings import (
    StudySettings,
    read_settings,
    settings_from_names,
    write_settings,
)

MAX_COMPONENTS = 10
"""Components that a model uses at most unless the user says otherwise."""

_FRAMES_PER_COORDINATE = 10
_SMALLEST_VARIANCE = 1e-10
_DOMINATING_SHARE = 0.75
_MANY_WITHOUT_HEADING = 0.01


class Moments(NamedTuple):
    """Number, mean and scatter of some frames; those of a union follow exactly from the parts.

    Attributes
    ----------
    mean : ndarray, (coordinate,)
    scatter : ndarray, (coordinate, coordinate)
        Sum of the products of the deviations from the mean.
    """

    n_frames: int
    mean: np.ndarray
    scatter: np.ndarray


def of_block(values: np.ndarray) -> Moments:
    """Moments of frames: (frame, coordinate) float64."""
    n_frames, size = values.shape
    if not n_frames:
        return Moments(0, np.zeros(size), np.zeros((size, size)))
    mean = values.mean(0)
    deviation = values - mean
    return Moments(n_frames, mean, deviation.T @ deviation)


def add(a: Moments, b: Moments) -> Moments:
    """Moments of two sets of frames together (Chan, Golub & LeVeque, 1979)."""
    n_frames = a.n_frames + b.n_frames
    share = b.n_frames / max(n_frames, 1)
    gap = b.mean - a.mean
    scatter = a.scatter + b.scatter + np.outer(gap, gap) * (a.n_frames * share)
    return Moments(n_frames, a.mean + gap * share, scatter)


class Components(NamedTuple):
    """Principal components, largest variance first.

    Attributes
    ----------
    loading : ndarray, (component, keypoint, space)
        Displacement for one standard deviation.
    mean : ndarray, (keypoint, space)
    variance : ndarray, (component,)
    """

    loading: np.ndarray
    mean: np.ndarray
    variance: np.ndarray


def finalise(moments: Moments, basis: np.ndarray) -> Components:
    """Components of the pose from the moments of its centred coordinates.

    Parameters
    ----------
    moments : Moments
        Of the coordinates ``basis' pose``, keypoint by keypoint.
    basis : ndarray, (keypoint, keypoint - 1)
        See :func:`centering`.

    Notes
    -----
    The largest displacement of every component is positive, so that signs do not depend on the
    machine.
    """
    variance, vectors = np.linalg.eigh(moments.scatter / max(moments.n_frames - 1, 1))
    order = np.argsort(-variance, kind="stable")
    variance = np.maximum(variance[order], 0.0)
    n_points = basis.shape[1]
    n_space = len(moments.mean) // n_points
    loading = np.einsum("kj,cjd->ckd", basis, vectors.T[order].reshape(-1, n_points, n_space))
    flat = loading.reshape(len(loading), -1)
    largest = np.take_along_axis(flat, np.abs(flat).argmax(1)[:, None], axis=1)
    loading *= (np.where(largest < 0, -1.0, 1.0) * np.sqrt(variance)[:, None])[..., None]
    return Components(loading, basis @ moments.mean.reshape(n_points, n_space), variance)


def centering(n_keypoints: int) -> np.ndarray:
    """Orthonormal basis G of the vectors that sum to zero over keypoints (model.md, section 1).

    Returns
    -------
    ndarray, (keypoint, keypoint - 1)
        Helmert contrasts: column j compares keypoint j + 1 with the mean of those before it.
    """
    columns = np.arange(1, n_keypoints)
    basis = -np.triu(np.ones((n_keypoints, n_keypoints - 1)))
    basis[columns, columns - 1] = columns
    return basis / np.sqrt(columns * (columns + 1.0))


# ------------------------------------------------------------------ the public verb


def pca(
    store: StoreLike,
    *,
    variance: float = 0.9,
    anterior: Sequence[str] | None = None,
    posterior: Sequence[str] | None = None,
    confidence_threshold: float | str = 0.5,
    fix_heading: bool = False,
    outlier_scale: float | str | None = OUTLIER_SCALE,
    host_memory: str | int | None = None,
    cluster: ClusterLike = None,
) -> xr.Dataset:
    """Principal components of the aligned pose of all sessions, written to the group ``pca``.

    Parameters
    ----------
    store : path or URL
    variance : float
        Share of the variance that the latent pose shall hold; it sets ``n_components``.
    anterior, posterior : sequence of str, optional
        Keypoints at the front and at the rear of the animal; from now on those of the study.
    confidence_threshold : float or str
        Keypoints with less confidence are interpolated; frames with such keypoints do not count.
        ``"10%"`` is the confidence below which 10 % of those of all sessions lie, for trackers
        whose confidences are on a scale of their own.
    fix_heading : bool
        Leave the animal as the camera sees it.
    outlier_scale : float or "none"
        Confident keypoints that cannot be where they are are taken for missing: those that are
        further from where the other keypoints of the frame have them than the median over all
        frames and this many median absolute deviations more; where the others cannot tell, those
        so far from the middle of the animal. ``"none"`` or None: all are believed.
    host_memory : str or int, optional
        What the process may take, such as ``"4GB"``, or bytes.
    cluster : str, path or distributed.Client, optional
        Workers of a Dask cluster that read the blocks, as of :func:`kpms_zarr.fit`; the result is
        the same to the bit.

    Returns
    -------
    xarray.Dataset
        ``pose_loading`` (component, keypoint, space), whitened: aligned pose = ``pose_mean`` +
        latent @ ``pose_loading`` with a latent of unit variance; ``pose_mean`` (keypoint, space);
        ``explained_variance`` and ``explained_variance_ratio`` (component,). Attributes:
        ``n_components`` (the fewest that reach ``variance``, at most 10), ``n_frames`` used,
        ``notes`` and the settings. With ``outlier_scale`` also ``outlier_fraction`` (keypoint,),
        the share of the confident observations that were taken for missing, and by what they were
        found (``schema.OUTLIERS``).

    Raises
    ------
    InputError
        For settings out of range, sessions that cannot be aligned, and poses that never change.
    """
    _check_settings(variance, confidence_threshold)
    scale = check_scale(outlier_scale)
    before = read_settings(store)
    study = settings_from_names(before, anterior=anterior, posterior=posterior, skeleton=None)
    sessions = access.require_sessions(access.open_group(store), os.fspath(store))
    with connected(cluster) as crew, limit_workers(store, host_memory):
        if crew is not None:
            crew.workers()  # waits for the first, which Dask would do for ever
        threshold = thresholds.resolve(confidence_threshold, BlockReader(store), sessions)
        alignment = AlignmentSettings(threshold.value, fix_heading)
        screen = screen_of(store, study, alignment, scale)
        aligner = Aligner.of(store, alignment, study=study, screen=screen)
        found = with_screen(components_of(aligner, variance=variance), screen)
        return _write(store, study, found.assign_attrs(threshold.settings))


def with_screen(components: xr.Dataset, screen: Screen | None) -> xr.Dataset:
    """Add to components what counted as missing, and the outlier model that found it."""
    attrs = to_attrs(None if screen is None else screen.model)
    if screen is None:
        return components.assign_attrs(attrs)
    values = {**to_store(screen.model), "outlier_fraction": screen.fraction}
    notes = [*components.attrs["notes"], *screen.notes]
    found = components.assign(as_dataset("pca", values, {}).data_vars)
    return found.assign_attrs({**attrs, "notes": notes})


def components_of(aligner: Aligner, *, variance: float) -> xr.Dataset:
    """Principal components of the aligned pose of all sessions of an aligner; writes nothing.

    Parameters
    ----------
    aligner : Aligner
        Of any keypoints of the store, and in any units.
    variance : float
        Share of the variance that the latent pose shall hold.

    Returns
    -------
    xarray.Dataset
        As :func:`pca` returns it, without provenance. Lengths are in the units of the aligner;
        the attribute ``scaled`` says whether they are others than those of the store.

    Raises
    ------
    InputError
        For settings out of range and poses that never change.
    """
    study, where = aligner.study, aligner.reader.store
    _check_settings(variance, aligner.settings.confidence_threshold)
    _check_size(study, where)
    basis = centering(len(study.keypoints))
    moments, notes, confident_only = _moments(aligner, basis)
    components = finalise(moments, basis)
    if components.variance.sum() <= _SMALLEST_VARIANCE * np.square(components.mean).sum():
        raise InputError(
            expected="a pose that changes over time",
            found="the same aligned pose in all frames",
            where=where,
            fix="check that the files hold tracked animals and not one repeated frame",
        )
    settings = {
        "n_components": _n_components(components.variance, variance),
        "n_frames": moments.n_frames,
        "variance": variance,
        **asdict(aligner.settings),
        "anterior": list(study.anterior),
        "posterior": list(study.posterior),
        "keypoints": list(study.keypoints),
        "sessions": [session.name for session in aligner.sessions],
        "scaled": aligner.reader.is_scaled,
        "notes": [
            *aligner.notes,
            *notes,
            *_dominating(components, study, variance),
            *_concentrated(aligner, components.mean, confident_only),
        ],
    }
    return _dataset(study, components, settings)


def _dataset(study: StudySettings, components: Components, settings: dict[str, Any]) -> xr.Dataset:
    values = {
        "pose_loading": components.loading,
        "pose_mean": components.mean,
        "explained_variance": components.variance,
        "explained_variance_ratio": components.variance / components.variance.sum(),
    }
    coordinates = {"keypoint": np.asarray(study.keypoints), "space": np.asarray(study.space)}
    return as_dataset("pca", values, settings).assign_coords(coordinates)


def _dominating(components: Components, study: StudySettings, variance: float) -> list[str]:
    """Keypoints that make up most of a component that a fit will use: often badly tracked ones."""
    power = np.square(components.loading).sum(-1)
    share = power / np.maximum(power.sum(-1, keepdims=True), np.finfo(float).tiny)
    n_used = _n_components(components.variance, variance)
    found: dict[str, list[str]] = {}
    for i in range(n_used if len(study.keypoints) > 3 else 0):
        point = int(share[i].argmax())
        if share[i, point] > _DOMINATING_SHARE:
            found.setdefault(study.keypoints[point], []).append(f"{i + 1} ({share[i, point]:.0%})")
    return [
        f"{name} alone makes up most of component {', '.join(which)}: if it is badly tracked or "
        f"moves on its own (a tail), make the store without it, with `keypoints=`, or fit without "
        "it, with `use_keypoints=`"
        for name, which in found.items()
    ]


def _check_settings(variance: float, confidence_threshold: float | str) -> None:
    if not 0 < variance <= 1:
        raise InputError(
            expected="a share of the variance above 0 and up to 1",
            found=str(variance),
            where="`variance=`",
            fix="give for example `variance=0.9`",
        )
    thresholds.check(confidence_threshold)


def _check_size(study: StudySettings, where: str) -> None:
    if len(study.keypoints) < 2:
        raise InputError(
            expected="two keypoints or more",
            found=", ".join(study.keypoints),
            where=where,
            fix="make the store from files that track more points of the animal",
        )


def _moments(aligner: Aligner, basis: np.ndarray) -> tuple[Moments, list[str], bool]:
    """Moments over the frames without interpolation, or over all when these are too few; what to
    say about that, and whether it is the former."""
    n_coordinates = basis.shape[1] * len(aligner.study.space)
    needed = _FRAMES_PER_COORDINATE * n_coordinates
    # By name: sums in floating point, and with them all that follows, shall not depend on the
    # order in which sessions were ingested.
    ordered = sorted(aligner.sessions, key=lambda session: session.name)
    blocks = partial(iter_blocks, ordered)
    moments, heading = map_reduce(partial(_first_look, aligner, basis), blocks(), _add_looks)
    lost = _lost_heading(aligner, heading)
    if moments.n_frames >= needed:
        return moments, lost, True
    note = (
        f"only {moments.n_frames} frames have all keypoints with a confidence of "
        f"{aligner.settings.confidence_threshold:g} or more ({needed} needed): "
        f"all frames used, with low keypoints interpolated{_what_helps(aligner, ordered)}"
    )
    moments = map_reduce(partial(_block_moments, aligner, basis), blocks(), add)
    return moments, [note, *lost], False


def _first_look(aligner: Aligner, basis: np.ndarray, block: Block) -> tuple[Moments, np.ndarray]:
    """Moments of the frames without interpolation; frames without a heading, and all."""
    aligned = aligner.align(block)
    compass = aligner.compass
    number = np.array([0, block.n_frames])
    if compass.anterior and compass.posterior:
        # As they were tracked: what is outlying is on the line between other observations by now.
        position, confidence = aligner.reader.believed(block), aligner.reader.confidence(block)
        valid = is_valid(position, confidence, aligner.settings.confidence_threshold)
        pose = np.where(valid[..., None], position, np.nan)
        front, rear = (pose[:, points, :2].mean(1) for points in compass)
        number[0] = (front == rear).all(-1).sum()
    return _moments_of(aligned.pose[aligned.is_confident], basis), number


def _add_looks(
    a: tuple[Moments, np.ndarray], b: tuple[Moments, np.ndarray]
) -> tuple[Moments, np.ndarray]:
    return add(a[0], b[0]), a[1] + b[1]


def _lost_heading(aligner: Aligner, number: np.ndarray) -> list[str]:
    share = number[0] / number[1]
    if share <= _MANY_WITHOUT_HEADING:
        return []
    study = aligner.study
    ends = " and ".join(", ".join(side) for side in (study.anterior, study.posterior))
    return [
        f"{ends} are on the same spot in {100 * share:.2g} % of the frames, which have no heading: "
        "check `anterior=` and `posterior=`, and where the tracker puts keypoints that it lost"
    ]


def _concentrated(aligner: Aligner, mean: np.ndarray, confident_only: bool) -> list[str]:
    """Note which frames hold most of the variance, when these are few."""
    names = {session.index: session.name for session in aligner.sessions}
    ordered = sorted(aligner.sessions, key=lambda session: session.name)
    look = partial(_squares, aligner, mean, confident_only)
    return concentration_note(look, iter_blocks(ordered), names)


def _squares(
    aligner: Aligner, mean: np.ndarray, confident_only: bool, block: Block
) -> tuple[np.ndarray, np.ndarray]:
    """Squared distances from the mean pose, and frames of the session, of those that count."""
    aligned = aligner.align(block)
    frame = np.flatnonzero(aligned.is_confident | (not confident_only))
    return np.square(aligned.pose[frame] - mean).sum((1, 2)), frame + block.start


def _what_helps(aligner: Aligner, sessions: Sequence[Session]) -> str:
    """Suggest a threshold where frames lack confidence, and not tracking."""
    ratings = list(thresholds.rate(aligner.reader, sessions).values())
    points = range(len(aligner.study.keypoints))
    threshold = aligner.settings.confidence_threshold
    median = np.median([one.quantile(0.5, points) for one in ratings])
    if not median < threshold:
        return ""
    lower = thresholds.suggestion((one, points) for one in ratings)
    return f" (the median confidence is {median:.2g}); {thresholds.advice(lower)}"


def _block_moments(aligner: Aligner, basis: np.ndarray, block: Block) -> Moments:
    return _moments_of(aligner.align(block).pose, basis)


def _moments_of(pose: np.ndarray, basis: np.ndarray) -> Moments:
    coordinates = basis.T @ pose
    return of_block(coordinates.reshape(len(pose), basis.shape[1] * pose.shape[-1]))


def _n_components(variance: np.ndarray, share: float) -> int:
    reached = np.cumsum(variance) >= share * variance.sum() * (1 - 1e-12)
    return min(int(reached.argmax()) + 1, MAX_COMPONENTS, _usable(variance))


def _usable(variance: np.ndarray) -> int:
    """Components that are more than rounding noise."""
    return int((variance > _SMALLEST_VARIANCE * variance.sum()).sum())


def _write(store: StoreLike, study: StudySettings, components: xr.Dataset) -> xr.Dataset:
    settings = attributes.read(components.attrs)
    attrs = {**settings, **provenance("pca", settings)}
    root = access.open_group(store, "r+")
    write_settings(root, study)
    values = {str(name): components[name].values for name in components.variables}
    write_group(root, layout.PCA, values, attrs)
    return components.assign_attrs(attributes.held(attrs))


# ------------------------------------------------------------------ pose -> latent


def projection(dataset: xr.Dataset, n_latent: int) -> tuple[np.ndarray, np.ndarray]:
    """The linear map between latent and pose.

    Parameters
    ----------
    dataset : xarray.Dataset
        As :func:`pca` returns it, or the group ``pca`` of a store.
    n_latent : int
        Components to use.

    Returns
    -------
    matrix : ndarray, (latent, keypoint * space) float64
        ``pose = mean + latent @ matrix``.
    mean : ndarray, (keypoint * space,) float64

    Raises
    ------
    InputError
        When there are fewer components of non-zero variance.
    """
    loading = np.asarray(dataset["pose_loading"].transpose("component", "keypoint", "space"))
    usable = _usable(np.asarray(dataset["explained_variance"]))
    if not 1 <= n_latent <= usable:
        raise InputError(
            expected=f"between 1 and {usable} latent dimensions, as many as the pose varies in",
            found=str(n_latent),
            where="the number of latent dimensions",
            fix=f"choose {usable} or fewer",
        )
    mean = np.asarray(dataset["pose_mean"].transpose("keypoint", "space")).ravel()
    return loading[:n_latent].reshape(n_latent, -1), mean
