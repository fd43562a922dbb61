"""Preparation of a fit: which keypoints, in which units, projected on which components."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import xarray as xr

from kpms_zarr.compute.alignment.alignment import Aligner, AlignmentSettings
from kpms_zarr.compute.config import Budget, FitConfig
from kpms_zarr.compute.events import Callback, Noted, PlanMade, ResourcePlan
from kpms_zarr.compute.mapreduce import BlockReader
from kpms_zarr.compute.pose import pca as pca_module
from kpms_zarr.compute.pose.pose_space import PoseSpace, refine, turn_of, wrap
from kpms_zarr.compute.pose.scale import measure_lengths, scale_of
from kpms_zarr.compute.runs.noise_prior import NOISE_SETTINGS, noise_prior_of
from kpms_zarr.compute.runs.plan import Needs, chain_index, make_plan, n_keypoints_of, settle_tiles
from kpms_zarr.compute.runs.start_model import StartModel
from kpms_zarr.compute.sampler.chain import NO_STATE, Chain, ChainIndex
from kpms_zarr.compute.sampler.draws import LabelDraws
from kpms_zarr.compute.sampler.placement import make_rows
from kpms_zarr.compute.sampler.segments import TileShape
from kpms_zarr.compute.sampler.stream import in_flight
from kpms_zarr.compute.sampler.tracked import NoiseByConfidence, TrackedData, observe
from kpms_zarr.compute.settings import settings_of
from kpms_zarr.compute.tracking.outliers import OutlierModel, Screen, from_store, screen_of
from kpms_zarr.store.core import access, layout
from kpms_zarr.store.core.access import Session, StoreLike
from kpms_zarr.store.core.blocks import Block, iter_blocks
from kpms_zarr.store.core.schema import FRAMES_PER_CHUNK
from kpms_zarr.store.errors import InputError
from kpms_zarr.store.rotation import rotate
from kpms_zarr.store.study.selection import select_sessions
from kpms_zarr.store.study.settings import StudySettings, read_settings, subset_keypoints

_SMALLEST_STEP_VARIANCE = 1e-4
"""Of bodies 100 long: a hundredth of a unit, below what any tracker resolves."""


@dataclass(frozen=True)
class Preparation:
    """Keypoints, units and components that a fit works on.

    Attributes
    ----------
    study : StudySettings
        Restricted to the keypoints in use.
    reader : BlockReader
        Of the keypoints in use, in model units.
    aligner : Aligner or None
        In model units; None for a fit that is resumed.
    scale : dict of int to float
        Index of the session -> units of position per model unit.
    loading : ndarray, (latent, keypoint, space)
        In model units.
    mean : ndarray, (keypoint, space)
    step_variance : float
        sigma2_loc, in model units squared.
    fix_heading : bool
        Whether heading is 0 throughout.
    is_turned : bool
        Whether headings were fitted together with the components.
    screen : Screen or None
        What finds the keypoints that the reader leaves out; None = all are believed.
    noise : NoiseByConfidence
        In model units.
    """

    sessions: tuple[Session, ...]
    study: StudySettings
    reader: BlockReader
    aligner: Aligner | None
    scale: dict[int, float]
    loading: np.ndarray
    mean: np.ndarray
    step_variance: float
    fix_heading: bool
    is_turned: bool
    noise: NoiseByConfidence
    screen: Screen | None = None


def settings_of_model(start: StartModel, sessions: Sequence[Session]) -> FitConfig:
    """Settings of the fit, for these sessions."""
    # What a newer or older version has saved besides says nothing about the labels.
    known = {one.name for one, _ in settings_of(FitConfig)}
    names = {name: value for name, value in start.settings.items() if name in known}
    fitted = FitConfig.from_store(names, start.settings.get("given"))
    # What was left open is so again: the device at hand may be another.
    is_open = "tile_frames" not in fitted.given
    config = fitted.resolved(
        tile_frames=None if is_open else fitted.tile_frames,
        stage=start.stage,
        from_model=None,
        use_keypoints=start.settled["use_keypoints"],
        fix_heading=start.settled["fix_heading"],
        latent_dim=start.settled["latent_dim"],
        outlier_scale=start.settled["outlier_scale"],
        sessions=tuple(session.name for session in sessions),
        save_noise_scale="noise_scale" in start.labels,
        until_settled=False,
        # Only says where a fit begins; the model has its own.
        noise_variance=FitConfig().noise_variance,
        # Those of the noise prior: no calibration overrules them.
        given=fitted.given & NOISE_SETTINGS,
    )
    return settle_tiles(config)


def prepare(
    store: StoreLike, config: FitConfig, start: StartModel | None, notify: Callback
) -> Preparation:
    """Choose keypoints, units and components, and notify the caller.

    Parameters
    ----------
    start : StartModel, optional
        The model that the fit goes on from; its components and units are kept.
    notify : callable
        Is given :class:`events.Noted`.

    Raises
    ------
    InputError
    """
    root = access.open_group(store)
    sessions = select_sessions(root, config.sessions, "`sessions=`")
    stored = read_settings(root)
    study = subset_keypoints(stored, config.use_keypoints) if config.use_keypoints else stored
    _note_lost_heading(stored, study, notify)
    found = _stored_components(store, study, config, notify)
    alignment = _alignment(found, config)
    typical = None if start is None else start.mean
    usual = None if start is None else start.mean * float(np.median(list(start.scale.values())))
    if start is None and found.attrs and not _has_scale(found, config):
        notify(Noted(_other_scale(found, config)))
    known = _outlier_model(found, study, config, start)
    screen = screen_of(
        store, study, alignment, config.outlier_scale, sessions=sessions, model=known
    )
    look = partial(Aligner.of, store, alignment, study=study, sessions=sessions, screen=screen)
    plain = look(typical_pose=usual)
    for note in (*plain.notes, *(() if screen is None else screen.notes)):
        notify(Noted(note))
    lengths = measure_lengths(plain)
    scale = scale_of(lengths, sessions, config.scale)
    if start is not None:
        scale = start.scale_of(sessions, scale)
    aligner = plain
    if any(factor != 1 for factor in scale.values()):
        aligner = look(scale=scale, typical_pose=typical)
    is_turned = config.refines_pose and not alignment.fix_heading
    if start is not None:
        loading, mean, is_turned = start.loading, start.mean, start.is_turned
    else:
        loading, mean = _projection(found, plain, aligner, scale, config)
        if is_turned:
            loading, mean = _refined(aligner, loading, mean, config, notify)
    steps = [lengths.step[session.index] / scale[session.index] for session in sessions]
    if start is not None and start.step_variance and not config.centroid_step_variance:
        steps = [start.step_variance**0.5]
    estimated = max(float(np.median(steps)) ** 2, _SMALLEST_STEP_VARIANCE)
    return Preparation(
        sessions, study, aligner.reader, aligner, scale, loading, mean,
        config.centroid_step_variance or estimated, alignment.fix_heading, is_turned,
        noise_prior_of(root, config, start, scale, notify), screen,
    )  # fmt: skip


def _note_lost_heading(stored: StudySettings, study: StudySettings, notify: Callback) -> None:
    for side in ("anterior", "posterior"):
        before, after = getattr(stored, side), getattr(study, side)
        if after and before != after:
            lost = ", ".join(name for name in before if name not in after)
            notify(Noted(f"{lost} not in use: the {side} end is now {', '.join(after)}"))


def ensure_components(store: StoreLike, config: FitConfig, notify: Callback) -> None:
    """Have the store hold the PCA that fits with these settings take."""
    study = read_settings(store)
    if config.use_keypoints:
        study = subset_keypoints(study, config.use_keypoints)
    _stored_components(store, study, config, notify)


def _stored_components(
    store: StoreLike, study: StudySettings, config: FitConfig, notify: Callback
) -> xr.Dataset:
    """The PCA of the store, computed where there is none or keypoints or heading changed since."""
    root = access.open_group(store)
    if access.subgroup(root, layout.PCA) is None:
        if config.use_keypoints:
            return xr.Dataset()
        notify(Noted("no PCA in the store yet: computed with the defaults of `kpms_zarr.pca`"))
        return pca_module.pca(
            store, fix_heading=bool(config.fix_heading), outlier_scale=config.outlier_scale
        )
    found = access.dataset(store, layout.PCA).load()
    if not _is_other(found, study) or config.use_keypoints:
        return found
    notify(Noted("keypoints or heading changed since the PCA: computed again"))
    kept = ("variance", "confidence_threshold", "fix_heading")
    again = {k: found.attrs[k] for k in kept if k in found.attrs}
    return pca_module.pca(store, outlier_scale=config.outlier_scale, **again)


def _outlier_model(
    pca: xr.Dataset, study: StudySettings, config: FitConfig, start: StartModel | None
) -> OutlierModel | None:
    """Outlier model of a fit: that of the start model, else that of the PCA that is used."""
    if start is not None:
        return start.outliers
    if _is_other(pca, study) or not _has_scale(pca, config):
        return None
    return from_store(pca.variables, pca.attrs)


def _other_scale(pca: xr.Dataset, config: FitConfig) -> str:
    """Message on a PCA that has left out other points than the fit does."""
    before = pca.attrs.get("outlier_scale", "none")
    now = "none" if config.outlier_scale is None else f"{config.outlier_scale:g}"
    return (
        f"the PCA of the store was made with outlier_scale {before}, the fit has {now}: it finds "
        "its own components"
    )


def _is_other(pca: xr.Dataset, study: StudySettings) -> bool:
    """Whether a PCA is of other keypoints or another heading."""
    names = ("keypoints", "anterior", "posterior")
    return any(tuple(pca.attrs.get(name, ())) != getattr(study, name) for name in names)


def _has_scale(pca: xr.Dataset, config: FitConfig) -> bool:
    """Whether a PCA left out the same points as the fit; old ones left out nothing."""
    scale = pca.attrs.get("outlier_scale", "none")
    return (None if scale == "none" else float(scale)) == config.outlier_scale


def _alignment(pca: xr.Dataset, config: FitConfig) -> AlignmentSettings:
    default = AlignmentSettings()
    fix_heading = config.fix_heading
    if fix_heading is None:
        fix_heading = bool(pca.attrs.get("fix_heading", default.fix_heading))
    threshold = float(pca.attrs.get("confidence_threshold", default.confidence_threshold))
    return AlignmentSettings(threshold, fix_heading)


def _projection(
    pca: xr.Dataset,
    plain: Aligner,
    aligner: Aligner,
    scale: dict[int, float],
    config: FitConfig,
) -> tuple[np.ndarray, np.ndarray]:
    """Loading (latent, keypoint, space) and mean (keypoint, space) in model units."""
    is_own = (
        _is_other(pca, plain.study)
        or not _has_scale(pca, config)
        or config.scale == "session"
        or bool(pca.attrs["fix_heading"]) != plain.settings.fix_heading
    )
    if is_own:
        variance = float(pca.attrs.get("variance", 0.9))
        components = pca_module.components_of(aligner, variance=variance)
        factor = 1.0
    else:
        components, factor = pca, next(iter(scale.values()))
    n_latent = config.latent_dim or int(components.attrs["n_components"])
    matrix, mean = pca_module.projection(components, n_latent)
    shape = (len(plain.study.keypoints), len(plain.study.space))
    return matrix.reshape(n_latent, *shape) / factor, mean.reshape(shape) / factor


def _refined(
    aligner: Aligner, loading: np.ndarray, mean: np.ndarray, config: FitConfig, notify: Callback
) -> tuple[np.ndarray, np.ndarray]:
    n_latent = len(loading)
    most = n_latent if config.latent_dim else pca_module.MAX_COMPONENTS
    found = refine(aligner, n_latent, max_latent=most)
    if found is None:
        notify(Noted("too few frames with all keypoints: components kept as pca found them"))
        return loading, mean
    n_found = len(found.space.loading)
    more = f" ({n_found - n_latent} more than pca suggests, behind which there is an edge)"
    notify(
        Noted(
            f"components and headings fitted to each other: with {n_found} latent dimensions"
            f"{more if n_found > n_latent else ''}, {found.after:.1%} of the variance of the pose "
            f"is missed, {found.before:.1%} when turned by the keypoints alone"
        )
    )
    return found.space


def plan_of(
    preparation: Preparation,
    config: FitConfig,
    budget: Budget,
    notify: Callback,
    fixed: TileShape | None = None,
    n_draws: int | None = None,
    index: ChainIndex | None = None,
) -> ResourcePlan:
    """Plan a run over what is prepared, and notify the caller.

    ``fixed`` and ``n_draws``: see ``Needs``; ``index``: of some of the sessions (default: of all).
    """
    needs = Needs.of(
        config,
        sessions=preparation.sessions,
        study=preparation.study,
        n_latent=len(preparation.loading),
        fix_heading=preparation.fix_heading,
        fixed=fixed,
        n_draws=n_draws,
    )
    if index is not None:
        needs = replace(needs, index=index)
    plan = make_plan(needs, budget)
    notify(PlanMade(plan))
    return plan


# ------------------------------------------------------------------ the state of every frame


def make_chain(
    preparation: Preparation,
    config: FitConfig,
    plan: ResourcePlan,
    scratch: str | None,
    n_draws: int = 0,
    draw_states: int = 0,
    index: ChainIndex | None = None,
) -> Chain:
    """Make a chain with room for the sessions and stages of a fit, and access to their data.

    ``n_draws``: of the labels, that are averaged; below 2 there is no room for any.
    ``draw_states``: states that they tell apart, where these are more than those of the fit.
    ``index``: of some of the sessions (default: of all).
    """
    study = preparation.study
    index = index or chain_index(preparation.sessions, config)
    n_keypoints = n_keypoints_of(config, study)
    observed: Any = None
    n_columns = n_keypoints * (len(study.space) + 1)
    if n_keypoints and plan.home == "device":
        observed = make_rows("device", "data", "float32", (index.n_frames, n_columns))
    elif n_keypoints:
        observed = TrackedData(
            lambda block: observe(preparation.reader, block, preparation.noise), index, n_columns,
            kept_bytes=plan.kept_bytes, recent_bytes=plan.recent_bytes,
        )  # fmt: skip
    draws = None
    if n_draws > 1:
        n_states = max(config.n_states, draw_states)
        draws = LabelDraws(index, n_draws, n_states, home=plan.home, scratch=scratch)
    return Chain(
        index,
        n_latent=len(preparation.loading),
        n_space=len(study.space),
        dtype=config.precision,
        n_keypoints=n_keypoints,
        home=plan.home,
        scratch=scratch,
        observed=observed,
        draws=draws,
    )


def check_length(index: ChainIndex, store: StoreLike, notify: Callback) -> None:
    """Refuse a store without a session long enough for a label (InputError)."""
    short = [s.name for s in index.sessions if s.n_frames <= index.lags]
    if len(short) == len(index.sessions):
        raise InputError(
            expected=f"sessions of more than {index.lags} frames",
            found="only shorter ones",
            where=os.fspath(store),
            fix="add longer recordings, or lower `lags=`",
        )
    if short:
        notify(Noted(f"too short for a label ({index.lags} frames or fewer): {', '.join(short)}"))


def load(
    chain: Chain,
    preparation: Preparation,
    config: FitConfig,
    start: StartModel | None,
    n_threads: int,
    which: np.ndarray | None = None,
) -> None:
    """Fill a chain, or ``which`` of its sessions (session,), block by block with its first state.

    The aligned pose, in which gaps are interpolated, only says where the chain begins. What the
    full stage takes for observed is the position as it was tracked.
    """
    place = {session.index: i for i, session in enumerate(chain.index.sessions)}
    inverse = np.linalg.pinv(preparation.loading.reshape(len(preparation.loading), -1))
    variance = first_noise_variance(config, start)

    def fill(block: Block) -> None:
        i = place[block.session]
        first = int(chain.index.first[i])
        rows = slice(first + block.start, first + block.stop)
        local = np.zeros((block.n_frames, chain.local.shape[1]), config.precision)
        saved = None
        session = chain.index.sessions[i].name
        if start is not None and session in start.sessions:
            values = start.read(session, block.start, block.stop)
            chain.syllable[rows] = values["syllable"]
            saved = values.get("noise_scale")
            state = (
                values["latent"],
                values["centroid"] / preparation.scale[block.session],
                0 if preparation.fix_heading else values["heading"],
            )
        else:
            state = aligned_pose(preparation, block, inverse)
        for name, found in zip(("latent", "centroid", "heading"), state, strict=True):
            local[:, chain.columns[name]] = found
        if chain.n_keypoints:
            data = _data(chain, preparation, config, block, i, rows)
            noise = _first_noise(chain, preparation, config, data, local, variance)
            if saved is not None:
                noise = saved / (variance * preparation.scale[block.session] ** 2)
            local[:, chain.columns["noise_scale"]] = noise
        chain.local[rows] = local

    sessions = chain.index.sessions
    if which is not None:
        sessions = tuple(sessions[row] for row in np.flatnonzero(which))
    blocks = iter_blocks(sessions)
    for _ in in_flight(fill, blocks, n_threads, is_double=False):
        pass
    for first, length in zip(chain.index.first, chain.index.length, strict=True):
        chain.syllable[first : first + min(chain.index.lags, length)] = NO_STATE


def aligned_pose(
    preparation: Preparation, block: Block, inverse: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Latent pose, centroid and heading of the aligned pose of a block, in model units.

    ``inverse``: of the loading, (keypoint * space, latent), where it is at hand.
    """
    assert preparation.aligner is not None
    if inverse is None:
        inverse = np.linalg.pinv(preparation.loading.reshape(len(preparation.loading), -1))
    aligned = preparation.aligner.align(block)
    pose, heading = aligned.pose, aligned.heading
    if preparation.is_turned:
        turn = turn_of(pose, PoseSpace(preparation.loading, preparation.mean))
        pose, heading = rotate(pose, -turn), wrap(heading + turn)
    latent = (pose - preparation.mean).reshape(block.n_frames, -1) @ inverse
    return latent, aligned.centroid, heading


def _data(
    chain: Chain,
    preparation: Preparation,
    config: FitConfig,
    block: Block,
    session: int,
    rows: slice,
) -> np.ndarray:
    """Tracked data of a block as the sweeps will read them: (frame, column)."""
    if isinstance(chain.observed, TrackedData):
        return chain.observed.block(session, block.start // FRAMES_PER_CHUNK)
    data = observe(preparation.reader, block, preparation.noise)
    chain.observed[rows] = data
    return data


def load_data(chain: Chain, preparation: Preparation, config: FitConfig) -> None:
    """Bring the tracked data to the device, when they shall lie there; the rest is restored."""
    if chain.n_keypoints and not isinstance(chain.observed, TrackedData):
        for i, session in enumerate(chain.index.sessions):
            first = int(chain.index.first[i])
            for block in iter_blocks([session]):
                rows = slice(first + block.start, first + block.stop)
                _data(chain, preparation, config, block, i, rows)


def first_noise_variance(config: FitConfig, start: StartModel | None) -> np.ndarray:
    """Global noise variances before the first sweep: (keypoint,) or ()."""
    is_chosen = "noise_variance" in config.given
    if start is None or start.noise_variance is None or is_chosen:
        return np.asarray(config.noise_variance)
    return start.noise_variance


def _first_noise(
    chain: Chain,
    preparation: Preparation,
    config: FitConfig,
    data: np.ndarray,
    local: np.ndarray,
    noise_variance: np.ndarray,
) -> np.ndarray:
    """First noise scales, which fit the first state of the chain: (frame, keypoint)."""
    n_keypoints, n_space = len(preparation.study.keypoints), chain.n_space
    position = data[:, : n_keypoints * n_space].astype(np.float64)
    position = position.reshape(-1, n_keypoints, n_space)
    prior = data[:, n_keypoints * n_space :]
    state = {name: local[:, which].astype(np.float64) for name, which in chain.columns.items()}
    pose = preparation.mean + np.tensordot(state["latent"], preparation.loading, 1)
    error = position - rotate(pose, state["heading"]) - state["centroid"][:, None]
    square = np.square(error).sum(-1) / noise_variance
    dof = config.noise_dof
    expected = (dof * prior + square) / (dof + n_space)
    return np.where(np.isnan(square), prior, expected)
