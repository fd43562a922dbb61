"""Before the first sweep: which keypoints, in which units, projected on which components."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import xarray as xr

from kpms_zarr.compute import pca as pca_module
from kpms_zarr.compute.alignment import Aligner, AlignmentSettings, rotate
from kpms_zarr.compute.chain import NO_STATE, Chain, ChainIndex
from kpms_zarr.compute.config import FitConfig
from kpms_zarr.compute.events import Event, Noted
from kpms_zarr.compute.kernels.noise import prior_scale
from kpms_zarr.compute.pose_space import PoseSpace, refine, turn_of, wrap
from kpms_zarr.compute.scale import measure_lengths, scale_of
from kpms_zarr.compute.start_model import StartModel, as_typed
from kpms_zarr.compute.stream import in_flight
from kpms_zarr.store import access, layout
from kpms_zarr.store.access import Session, StoreLike
from kpms_zarr.store.blocks import Block, iter_blocks
from kpms_zarr.store.errors import InputError
from kpms_zarr.store.study import StudySettings, read_settings, subset_keypoints

_SMALLEST_STEP_VARIANCE = 1e-4
"""Of bodies 100 long: a hundredth of a unit, below what any tracker resolves."""

Tell = Callable[[Event], None]


@dataclass(frozen=True)
class Preparation:
    """What a fit works on.

    Attributes
    ----------
    sessions : tuple of Session
    study : StudySettings
        Restricted to the keypoints in use.
    aligner : Aligner
        In model units.
    scale : dict of int to float
        Index of the session -> units of position per model unit.
    loading : ndarray, (latent, keypoint, space)
        In model units.
    mean : ndarray, (keypoint, space)
    step_variance : float
        sigma2_loc, in model units squared.
    """

    sessions: tuple[Session, ...]
    study: StudySettings
    aligner: Aligner
    scale: dict[int, float]
    loading: np.ndarray
    mean: np.ndarray
    step_variance: float

    @property
    def fix_heading(self) -> bool:
        """Whether heading is 0 throughout."""
        return self.aligner.settings.fix_heading


def prepare(
    store: StoreLike, config: FitConfig, start: StartModel | None, tell: Tell
) -> Preparation:
    """Settle keypoints, units and components, and say what a person should know.

    Parameters
    ----------
    store : path or URL
    config : FitConfig
    start : StartModel, optional
        The model that the fit goes on from; its components and units are kept.
    tell : callable
        Is given :class:`events.Noted`.

    Raises
    ------
    InputError
    """
    root = access.open_group(store)
    sessions = access.require_sessions(root, os.fspath(store))
    stored = read_settings(root)
    study = subset_keypoints(stored, config.use_keypoints) if config.use_keypoints else stored
    _note_lost_heading(stored, study, tell)
    found = _stored_components(store, study, config, tell)
    alignment = _alignment(found, config)
    plain = Aligner.of(store, alignment, study=study)
    for note in plain.notes:
        tell(Noted(note))
    lengths = measure_lengths(plain)
    if start is not None:
        scale = {session.index: start.scale[session.name] for session in sessions}
    else:
        scale = scale_of(lengths, sessions, config.scale)
    aligner = plain
    if any(factor != 1 for factor in scale.values()):
        aligner = Aligner.of(store, alignment, study=study, scale=scale)
    if start is not None:
        loading, mean = start.loading, start.mean
    else:
        loading, mean = _projection(found, plain, aligner, scale, config)
        if config.refines_pose and not alignment.fix_heading:
            loading, mean = _refined(aligner, loading, mean, config, tell)
    steps = [lengths.step[session.index] / scale[session.index] for session in sessions]
    if start is not None and start.step_variance and not config.centroid_step_variance:
        steps = [start.step_variance**0.5]
    estimated = max(float(np.median(steps)) ** 2, _SMALLEST_STEP_VARIANCE)
    return Preparation(
        sessions, study, aligner, scale, loading, mean,
        config.centroid_step_variance or estimated,
    )  # fmt: skip


def _note_lost_heading(stored: StudySettings, study: StudySettings, tell: Tell) -> None:
    for side in ("anterior", "posterior"):
        before, after = getattr(stored, side), getattr(study, side)
        if after and before != after:
            lost = ", ".join(name for name in before if name not in after)
            tell(Noted(f"{lost} not in use: the {side} end is now {', '.join(after)}"))


def _stored_components(
    store: StoreLike, study: StudySettings, config: FitConfig, tell: Tell
) -> xr.Dataset:
    """The PCA of the store, computed where there is none or keypoints or heading changed since."""
    root = access.open_group(store)
    if access.subgroup(root, layout.PCA) is None:
        if config.use_keypoints:
            return xr.Dataset()
        tell(Noted("no PCA in the store yet: computed with the defaults of kpms-zarr pca"))
        return pca_module.pca(store, fix_heading=bool(config.fix_heading))
    found = access.dataset(store, layout.PCA).load()
    names = ("anterior", "posterior", "keypoints")
    is_current = all(tuple(found.attrs.get(n, ())) == getattr(study, n) for n in names)
    if is_current or config.use_keypoints:
        return found
    tell(Noted("keypoints or heading changed since the PCA: computed again"))
    kept = ("variance", "confidence_threshold", "fix_heading")
    return pca_module.pca(store, **{k: found.attrs[k] for k in kept if k in found.attrs})


def _alignment(found: xr.Dataset, config: FitConfig) -> AlignmentSettings:
    default = AlignmentSettings()
    fix_heading = config.fix_heading
    if fix_heading is None:
        fix_heading = bool(found.attrs.get("fix_heading", default.fix_heading))
    threshold = float(found.attrs.get("confidence_threshold", default.confidence_threshold))
    return AlignmentSettings(threshold, fix_heading)


def _projection(
    found: xr.Dataset,
    plain: Aligner,
    aligner: Aligner,
    scale: dict[int, float],
    config: FitConfig,
) -> tuple[np.ndarray, np.ndarray]:
    """Loading (latent, keypoint, space) and mean (keypoint, space) in model units."""
    is_own = (
        any(
            tuple(found.attrs.get(name, ())) != getattr(plain.study, name)
            for name in ("keypoints", "anterior", "posterior")
        )
        or config.scale == "session"
        or bool(found.attrs["fix_heading"]) != plain.settings.fix_heading
    )
    if is_own:
        variance = float(found.attrs.get("variance", 0.9))
        components = pca_module.components_of(aligner, variance=variance)
        factor = 1.0
    else:
        components, factor = found, next(iter(scale.values()))
    n_latent = config.latent_dim or int(components.attrs["n_components"])
    matrix, mean = pca_module.projection(components, n_latent)
    shape = (len(plain.study.keypoints), len(plain.study.space))
    return matrix.reshape(n_latent, *shape) / factor, mean.reshape(shape) / factor


def _refined(
    aligner: Aligner, loading: np.ndarray, mean: np.ndarray, config: FitConfig, tell: Tell
) -> tuple[np.ndarray, np.ndarray]:
    n_latent = len(loading)
    most = n_latent if config.latent_dim else pca_module.MAX_COMPONENTS
    found = refine(aligner, n_latent, most=most)
    if found is None:
        tell(Noted("too few frames with all keypoints: components kept as pca found them"))
        return loading, mean
    n_found = len(found.space.loading)
    more = f" ({n_found - n_latent} more than pca suggests, behind which there is an edge)"
    tell(
        Noted(
            f"components and headings fitted to each other: with {n_found} latent dimensions"
            f"{more if n_found > n_latent else ''}, {found.after:.1%} of the variance of the pose "
            f"is missed, {found.before:.1%} when turned by the keypoints alone"
        )
    )
    return found.space


# ------------------------------------------------------------------ the state of every frame


def make_chain(preparation: Preparation, config: FitConfig) -> Chain:
    """Scratch files for the sessions and the stages of a fit."""
    study = preparation.study
    return Chain(
        ChainIndex.of(preparation.sessions, config.lags),
        n_latent=len(preparation.loading),
        n_space=len(study.space),
        dtype=config.precision,
        n_keypoints=0 if config.stage == "ar" else len(study.keypoints),
    )


def check_length(index: ChainIndex, store: StoreLike, tell: Tell) -> None:
    """Refuse a store without a session long enough for a label.

    Raises
    ------
    InputError
    """
    short = [s.name for s in index.sessions if s.n_frames <= index.lags]
    if len(short) == len(index.sessions):
        raise InputError(
            expected=f"sessions of more than {index.lags} frames",
            found="only shorter ones",
            where=os.fspath(store),
            fix="add longer recordings, or lower --lags",
        )
    if short:
        tell(Noted(f"too short for a label ({index.lags} frames or fewer): {', '.join(short)}"))


def load(
    chain: Chain, preparation: Preparation, config: FitConfig, start: StartModel | None
) -> None:
    """Fill a chain block by block: the data, and latent pose, centroid, heading to begin with.

    The aligned pose, in which gaps are interpolated, only says where the chain begins. What the
    full stage takes for observed is the position as it was tracked.
    """
    origin = {
        session.index: int(first)
        for session, first in zip(chain.index.sessions, chain.index.first, strict=True)
    }
    inverse = np.linalg.pinv(preparation.loading.reshape(len(preparation.loading), -1))

    def place(block: Block) -> None:
        saved = None
        rows = slice(origin[block.session] + block.start, origin[block.session] + block.stop)
        if start is None:
            aligned = preparation.aligner.align(block)
            pose, heading = aligned.pose, aligned.heading
            if config.refines_pose and not preparation.fix_heading:
                turn = turn_of(pose, PoseSpace(preparation.loading, preparation.mean))
                pose, heading = rotate(pose, -turn), wrap(heading + turn)
            chain.latent[rows] = (pose - preparation.mean).reshape(block.n_frames, -1) @ inverse
            chain.centroid[rows] = aligned.centroid
            chain.heading[rows] = heading
        else:
            saved = _continue(chain, rows, block, start, preparation)
        if chain.n_keypoints:
            variance = first_noise_variance(config, start)
            _observe(chain, rows, block, preparation, config, variance)
            if saved is not None:
                scale = preparation.scale[block.session]
                chain.noise_scale[rows] = saved / (variance * scale**2)

    blocks = iter_blocks(chain.index.sessions)
    for _ in in_flight(place, blocks, config.tiles_in_flight, is_double=False):
        pass
    for first, length in zip(chain.index.first, chain.index.length, strict=True):
        chain.syllable[first : first + min(chain.index.lags, length)] = NO_STATE


def _continue(
    chain: Chain, rows: slice, block: Block, start: StartModel, preparation: Preparation
) -> np.ndarray | None:
    """The state of a published model; returns the noise scales that were saved, if any."""
    names = {session.index: session.name for session in preparation.sessions}
    values = start.read(names[block.session], block.start, block.stop)
    chain.syllable[rows] = values["syllable"]
    chain.latent[rows] = values["latent"]
    chain.centroid[rows] = values["centroid"] / preparation.scale[block.session]
    chain.heading[rows] = 0 if preparation.fix_heading else values["heading"]
    return values.get("noise_scale")


def first_noise_variance(config: FitConfig, start: StartModel | None) -> np.ndarray:
    """Global noise variances before the first sweep: (keypoint,) or ()."""
    is_chosen = config.noise_variance != FitConfig().noise_variance
    if start is None or start.noise_variance is None or is_chosen:
        return np.asarray(config.noise_variance)
    return start.noise_variance


def _observe(
    chain: Chain,
    rows: slice,
    block: Block,
    preparation: Preparation,
    config: FitConfig,
    noise_variance: np.ndarray,
) -> None:
    """Positions as tracked, their prior noise, and noise scales that fit where the chain begins."""
    reader = preparation.aligner.reader
    position = reader.position(block).astype(np.float64)
    confidence = reader.confidence(block).astype(np.float64)
    is_missing = ~np.isfinite(position).all(-1) | (confidence == 0)
    position[is_missing] = np.nan
    prior = prior_scale(
        confidence,
        slope=config.noise_slope,
        intercept=config.noise_intercept,
        pseudocount=config.confidence_pseudocount,
    )
    chain.position[rows] = position.reshape(block.n_frames, -1)
    chain.prior_scale[rows] = prior
    latent = np.asarray(chain.latent[rows], np.float64)
    pose = preparation.mean + np.tensordot(latent, preparation.loading, 1)
    placed = rotate(pose, np.asarray(chain.heading[rows], np.float64))
    error = position - placed - np.asarray(chain.centroid[rows], np.float64)[:, None]
    square = np.square(error).sum(-1) / noise_variance
    dof = config.noise_dof
    expected = (dof * prior + square) / (dof + position.shape[-1])
    chain.noise_scale[rows] = np.where(is_missing, prior, expected)


def with_start(config: FitConfig, start: StartModel, tell: Tell) -> FitConfig:
    """Settings with what a start model has settled: keypoints, units, size of the model.

    Raises
    ------
    InputError
        For settings that were given and differ.
    """
    default = FitConfig()
    problems = []
    changes = {}
    for name, value in start.settled.items():
        given = getattr(config, name)
        if given != value and given != getattr(default, name):
            problems.append(start.conflict(name, given, value))
        if given != value:
            changes[name] = value
    if problems:
        raise InputError.of(problems)
    if changes:
        listed = ", ".join(f"{name} {as_typed(value)}" for name, value in changes.items())
        tell(Noted(f"as in the model {start.name!r}: {listed}"))
    return replace(config, **changes)
