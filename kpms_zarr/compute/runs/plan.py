"""Plan of a fit: memory and time worked out before it runs, refused when it cannot fit."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import jax
import numpy as np

from kpms_zarr.compute.cluster.connect import ClusterLike, connected
from kpms_zarr.compute.config import (
    FRAMES_PER_DEVICE_TILE,
    FRAMES_PER_LARGE_DEVICE_TILE,
    FRAMES_PER_TILE,
    Budget,
    FitConfig,
)
from kpms_zarr.compute.events import ResourcePlan
from kpms_zarr.compute.memory import (
    device_memory,
    free_device_memory,
    free_host_memory,
    peak_resident_memory,
    resident_memory,
)
from kpms_zarr.compute.runs.budget import (
    TileMemory,
    TileSizes,
    certainty_memory,
    tile_memory,
    time_of_tile,
)
from kpms_zarr.compute.runs.start_model import StartModel, with_start
from kpms_zarr.compute.sampler.certainty import held_bytes
from kpms_zarr.compute.sampler.chain import SHARD_FRAMES, ChainIndex
from kpms_zarr.compute.sampler.draws import DrawSchedule, draw_dtype
from kpms_zarr.compute.sampler.full_tile import FixedSettings
from kpms_zarr.compute.sampler.segments import TileShape
from kpms_zarr.compute.sampler.stream import Pipeline
from kpms_zarr.store.core import access, layout
from kpms_zarr.store.core.access import Session, StoreLike
from kpms_zarr.store.core.schema import FRAMES_PER_CHUNK
from kpms_zarr.store.cores import n_cores
from kpms_zarr.store.errors import InputError
from kpms_zarr.store.study.selection import select_sessions
from kpms_zarr.store.study.settings import StudySettings, read_settings, subset_keypoints
from kpms_zarr.store.wording import option

_FREE_SHARE = 0.6
_CPU_SHARE = 1 / 3
_GPU_TILES = 3
_LARGE_DEVICE = 20 * 10**9
"""Bytes that JAX takes, three quarters unless it is told otherwise, of a device of 32 GB."""
_MARGIN = 1.05
"""Above what the compiler says: tables, what is rounded up, what is transferred."""
_WORKING_BYTES = 180_000_000
"""Beside state and data: blocks that are loaded, counted and committed, and the interpreter's."""

_KEPT_OVERHEAD = 1.12
"""What blocks of data that stay take of the process for each of their bytes: they lie between what
was needed to make them (measured: 1.10 at 1 GB in blocks of 1.5 MB)."""

_BETWEEN_RUNS = 1.1
"""What a compilation leaves behind differs by so much from one process to the next (measured: 686
to 732 MB resident behind it): a budget that is named as enough must be so for the next one."""


@dataclass(frozen=True, kw_only=True)
class Needs:
    """Numbers that a plan follows from.

    Attributes
    ----------
    config : FitConfig
        With its ``tile_frames`` settled.
    n_latent, n_keypoints, n_space : int
        0 keypoints: the AR stage alone.
    fixed : TileShape, optional
        In place of the shape that follows from the sessions.
    n_draws : int, optional
        Of the labels, that are averaged (default: those of a fit).
    """

    index: ChainIndex
    config: FitConfig
    n_latent: int
    n_keypoints: int
    n_space: int
    fix_heading: bool = False
    fixed: TileShape | None = None
    n_draws: int | None = None

    @classmethod
    def of(
        cls,
        config: FitConfig,
        *,
        sessions: Sequence[Session],
        study: StudySettings,
        n_latent: int,
        fix_heading: bool,
        fixed: TileShape | None = None,
        n_draws: int | None = None,
    ) -> Needs:
        """Needs of the stages that a fit runs over some sessions of a study."""
        return cls(
            index=chain_index(sessions, config),
            config=config,
            n_latent=n_latent,
            n_keypoints=n_keypoints_of(config, study),
            n_space=len(study.space),
            fix_heading=fix_heading,
            fixed=fixed,
            n_draws=n_draws,
        )

    @property
    def shape(self) -> TileShape:
        """Shape of a tile."""
        return self.fixed or tile_shape(self.index, self.config)

    @property
    def state_row(self) -> int:
        """Bytes of the state of a frame."""
        itemsize = 8 if self.config.precision == "float64" else 4
        return itemsize * (self.n_latent + self.n_space + 1 + self.n_keypoints) + 2

    @property
    def draws_row(self) -> int:
        """Bytes of the labels of a frame that are averaged, which never lie on the device."""
        n_draws = self.n_draws if self.n_draws is not None else DrawSchedule.of(self.config).n_draws
        return 0 if n_draws < 2 else n_draws * np.dtype(draw_dtype(self.config.n_states)).itemsize

    @property
    def data_row(self) -> int:
        """Bytes of the tracked data of a frame."""
        return 4 * self.n_keypoints * (self.n_space + 1)

    @property
    def sizes(self) -> TileSizes:
        """Numbers that the size of a tile on the device depends on."""
        return TileSizes(
            self.shape, self.config.n_states, self.n_latent, self.config.lags,
            self.n_keypoints, self.n_space, self.config.precision,
        )  # fmt: skip

    def tile(self) -> TileMemory:
        """Memory of a tile of the most demanding stage on the device."""
        settings = fixed_settings(self.config, fix_heading=self.fix_heading)
        found = tile_memory(self.sizes, settings)
        if not self.config.certainty:
            return found
        other = certainty_memory(self.sizes)
        return TileMemory(
            max(found.input, other.input),
            max(found.output, other.output),
            max(found.temporary, other.temporary),
        )

    @property
    def certainty_bytes(self) -> int:
        """Bytes held on the host while certainty is computed."""
        config = self.config
        if not config.certainty:
            return 0
        return held_bytes(self.index, self.shape, config.n_states, config.precision)


def n_keypoints_of(config: FitConfig, study: StudySettings) -> int:
    """Keypoints whose noise is part of the state of a chain: none of the AR stage alone."""
    return 0 if config.stage == "ar" else len(study.keypoints)


def shard_frames_of(config: FitConfig) -> int:
    """Frames of a shard of a run, which has room for two tiles."""
    return max(SHARD_FRAMES, 2 * (config.tile_frames or FRAMES_PER_TILE))


def chain_index(
    sessions: Sequence[Session], config: FitConfig, shard_frames: int | None = None
) -> ChainIndex:
    """Index of the sessions of a run; ``shard_frames`` as another process says it."""
    frames = shard_frames_of(config) if shard_frames is None else shard_frames
    return ChainIndex.of(sessions, config.lags, shard_frames=frames)


def tile_shape(index: ChainIndex, config: FitConfig) -> TileShape:
    """Shape of a tile for some sessions."""
    return TileShape.of(index, config.segment_frames, config.tile_frames or FRAMES_PER_TILE)


def fixed_settings(
    config: FitConfig, *, fix_heading: bool, holds_labels: bool = False
) -> FixedSettings:
    """Settings that are compiled into the tiles of the full stage."""
    return FixedSettings(
        config.noise_dof, config.latent_start_variance, config.centroid_start_variance,
        fix_heading, holds_labels,
    )  # fmt: skip


def settle_tiles(config: FitConfig) -> FitConfig:
    """Settings with the size of tiles that suits the device, where it was left open.

    By the kind of device and never by what is free of it, for sums over tiles round by their size.
    """
    if config.tile_frames is not None:
        return config
    return config.resolved(tile_frames=_frames_per_tile())


def _frames_per_tile() -> int:
    if jax.default_backend() == "cpu":
        return FRAMES_PER_TILE
    limit = device_memory()[0].limit
    is_large = limit is not None and limit >= _LARGE_DEVICE
    return FRAMES_PER_LARGE_DEVICE_TILE if is_large else FRAMES_PER_DEVICE_TILE


def plan(
    store: StoreLike,
    *,
    config: FitConfig | None = None,
    budget: Budget | None = None,
    time_tiles: bool = True,
    cluster: ClusterLike = None,
) -> ResourcePlan:
    """Plan what a fit of a store would take, without running it.

    Parameters
    ----------
    store : path or URL
    config : FitConfig, optional
    budget : Budget, optional
    time_tiles : bool
        Also run three tiles of synthetic data for every one in flight, and predict the time of a
        sweep.
    cluster : str, path or distributed.Client, optional
        Also plan for these workers, as of :func:`kpms_zarr.fit`.

    Returns
    -------
    ResourcePlan

    Raises
    ------
    InputError
        When the store has no sessions, or nothing fits the budget.
    """
    config = settle_tiles(config or FitConfig())
    if config.from_model is not None:
        start = StartModel.of(store, config.from_model)
        config = with_start(config, start, lambda event: None)
    root = access.open_group(store)
    sessions = select_sessions(root, config.sessions, "`sessions=`")
    study = read_settings(root)
    if config.use_keypoints:
        study = subset_keypoints(study, config.use_keypoints)
    needs = Needs.of(
        config,
        sessions=sessions,
        study=study,
        n_latent=config.latent_dim or _likely_latent(root, study),
        fix_heading=_likely_fixed(root) if config.fix_heading is None else config.fix_heading,
    )
    found = make_plan(needs, budget or Budget())
    if cluster is not None:
        from kpms_zarr.compute.runs.cluster_plan import plan_on_workers

        with connected(cluster) as crew:
            assert crew is not None
            found = replace(found, cluster=plan_on_workers(needs, crew.workers()))
    if not time_tiles:
        return found
    settings = fixed_settings(config, fix_heading=needs.fix_heading)
    seconds = time_of_tile(needs.sizes, settings, found.tiles_in_flight)
    return replace(found, seconds_per_sweep=seconds * found.n_tiles)


def _likely_latent(root: access.Group, study: StudySettings) -> int:
    """Components that a fit will take: those of the PCA, or a tenth of what was tracked."""
    group = access.subgroup(root, layout.PCA)
    if group is not None and "n_components" in group.attrs:
        return int(group.attrs["n_components"])  # type: ignore[arg-type]
    return max(1, min(10, (len(study.keypoints) - 1) * len(study.space) // 2))


def _likely_fixed(root: access.Group) -> bool:
    """Whether heading will be 0 throughout, as in the PCA."""
    group = access.subgroup(root, layout.PCA)
    return group is not None and bool(group.attrs.get("fix_heading", False))


def make_plan(needs: Needs, budget: Budget) -> ResourcePlan:
    """Choose tiles in flight, placement and cache so that the budget holds.

    Raises
    ------
    InputError
        When no choice fits, with the smallest budget that would.
    """
    is_cpu = jax.default_backend() == "cpu"
    device_limit, host_limit = _limits(budget, is_cpu)
    tile = needs.tile()
    one = int(_MARGIN * tile.total)
    n_frames = needs.index.n_frames
    state, data = needs.state_row * n_frames, needs.data_row * n_frames
    draws = needs.draws_row * n_frames
    wanted = budget.tiles_in_flight or (n_cores() if is_cpu else _GPU_TILES)
    wanted = min(wanted, max(1, _n_tiles(needs)))
    least = wanted if budget.tiles_in_flight else 1
    resident = state + data
    on_device = resident if budget.home == "device" else 0
    n = min(wanted, (device_limit - on_device) // one)
    if n < least:
        raise _too_small("device", on_device + least * one, device_limit)
    home = budget.home or ("host" if is_cpu else "device")
    if home == "device" and resident + n * one > device_limit:
        home = "host"
    base = resident_memory() + _WORKING_BYTES + needs.certainty_bytes

    def fixed_of(n_tiles: int) -> int:
        """Bytes that are held whatever else is kept in memory."""
        recent = 0 if home == "device" else min(data, _recent_bytes(needs, n_tiles))
        return base + recent + (n_tiles + 1) * (tile.input + tile.output)

    needed = {"device": draws, "host": state + draws if budget.home else 0}.get(home, 0)
    while n > least and fixed_of(n) + needed > host_limit:
        n -= 1
    fixed = fixed_of(n)
    if fixed + needed > host_limit:
        raise _too_small("host", fixed + needed, host_limit)
    if home == "host" and fixed + state + draws > host_limit:
        home = "disk"
    recent = 0 if home == "device" else min(data, _recent_bytes(needs, n))
    held = fixed + {"device": draws, "host": state + draws}.get(home, 0)
    kept = 0 if home == "device" else int((host_limit - held) / _KEPT_OVERHEAD)
    if home != "device" and held - recent + _KEPT_OVERHEAD * data <= host_limit:
        kept, held, recent = data, held - recent, 0  # all of it stays
    kept = min(kept, data)
    host_bytes = max(held + int(_KEPT_OVERHEAD * kept), peak_resident_memory())
    device_bytes = n * one + (resident if home == "device" else 0)
    moved = 0 if home == "device" else _n_tiles(needs) * (tile.input + tile.output)
    return ResourcePlan(
        len(needs.index.sessions), n_frames, needs.n_latent, needs.config.n_states,
        needs.shape.n_segments, needs.shape.n_frames, _n_tiles(needs), n, home,
        device_bytes, device_limit, host_bytes, host_limit,
        state + draws, data, kept, recent, moved,
        0 if home == "device" else data - kept, state + draws if home == "disk" else 0,
        jax.local_devices()[0].device_kind,
    )  # fmt: skip


def _limits(budget: Budget, is_cpu: bool) -> tuple[int, int]:
    """Bytes of device and host; what the process holds already, it may keep."""
    free, held = _FREE_SHARE * free_host_memory(), resident_memory()
    on_device = free_device_memory()
    if is_cpu or on_device is None:
        device, host = int(_CPU_SHARE * free), held + int((1 - _CPU_SHARE) * free)
    else:
        device, host = int(_FREE_SHARE * on_device), held + int(free)
    given = (budget.device_memory, budget.host_memory)
    return (
        device if given[0] is None else int(given[0]),
        host if given[1] is None else int(given[1]),
    )


def _recent_bytes(needs: Needs, n_in_flight: int) -> int:
    """Room for the blocks of data around the tiles from the first read ahead to the last used."""
    pipeline = Pipeline(n_in_flight)
    n_tiles = pipeline.n_ahead + 3 * n_in_flight + 2
    frames = 2 * needs.shape.n_segments * needs.shape.n_frames + 2 * FRAMES_PER_CHUNK
    return n_tiles * frames * needs.data_row


def _n_tiles(needs: Needs) -> int:
    return max(1, needs.shape.n_tiles(needs.index))


def _too_small(what: str, needed: int, limit: int) -> InputError:
    if what == "host":
        needed = int(_BETWEEN_RUNS * needed)
    needed_text, limit_text = _megabytes(needed, up=True), _megabytes(limit, up=False)
    return InputError(
        expected=f"a `{what}_memory=` of at least {needed_text}",
        found=limit_text,
        where=f"plan of the computation ({what} memory)",
        fix=f"give {option(f'{what}_memory', needed_text)}"
        + (", or a smaller `tile_frames=`" if what == "device" else ""),
    )


def _megabytes(n_bytes: int, *, up: bool) -> str:
    return f"{-(-n_bytes // 10**6) if up else n_bytes // 10**6}MB"
