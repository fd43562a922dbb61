"""Tile models: the seam between a stage of a fit and the mover of its tiles."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple, Protocol

import jax
import numpy as np

from kpms_zarr.compute.kernels.dynamics import Dynamics
from kpms_zarr.compute.kernels.hmm import HmmTables, hmm_tables
from kpms_zarr.compute.sampler.chain import Chain, Sized
from kpms_zarr.compute.sampler.segments import Task, Tile, TileShape


class Parameters(NamedTuple):
    """Parameters that a sweep is conditioned on.

    Attributes
    ----------
    usage : (state,)
        Global weights beta.
    transition : (state, state)
        pi.
    """

    dynamics: Dynamics
    usage: np.ndarray
    transition: np.ndarray

    def reordered(self, order: np.ndarray) -> Parameters:
        """Parameters with state ``order[i]`` as state i."""
        dynamics = Dynamics(*(values[order] for values in self.dynamics))
        return Parameters(dynamics, self.usage[order], self.transition[order][:, order])

    def to_store(self) -> dict[str, np.ndarray]:
        """Convert to variables of the store."""
        return {
            "ar_weight": self.dynamics.weight_bias[..., :-1],
            "ar_bias": self.dynamics.weight_bias[..., -1],
            "ar_covariance": self.dynamics.covariance,
            "state_usage": self.usage,
            "transition_probability": self.transition,
        }

    @classmethod
    def from_store(cls, values: Mapping[Any, Any]) -> Parameters:
        """Read what :meth:`to_store` gave, of arrays or variables by name."""
        names = ("ar_covariance", "state_usage", "transition_probability")
        covariance, usage, transition = (np.asarray(values[name]) for name in names)
        weight, bias = np.asarray(values["ar_weight"]), np.asarray(values["ar_bias"])
        dynamics = Dynamics(np.concatenate([weight, bias[..., None]], -1), covariance)
        return cls(dynamics, usage, transition)


class SweepSums(NamedTuple):
    """Sums of a tile for the statistics of a sweep, in float64; those of several tiles add up.

    Nothing else has to come together for the next draw of the parameters but the counts of the
    labels, so this is what a worker that sweeps a part of the sessions would send.

    Attributes
    ----------
    moments : ndarray, (state, pair)
        Of residuals under the parameters of the sweep.
    log_probability : ndarray, (term,)
        By ``TileModel.terms``, in nat.
    noise_square, noise_count : ndarray, (keypoint,)
        Sum of |e|^2 / s over the frames in which the keypoint is observed, and their number;
        (0,) of the AR stage.
    n_repeated : int
        Tiles that were computed again in float64.
    n_changed : int
        Frames whose label is not the one that they had before.
    """

    moments: np.ndarray
    log_probability: np.ndarray = np.zeros(0)
    noise_square: np.ndarray = np.zeros(0)
    noise_count: np.ndarray = np.zeros(0)
    n_repeated: int = 0
    n_changed: int = 0

    def plus(self, other: SweepSums) -> SweepSums:
        """Add the sums of both."""
        pairs: Iterable[tuple[Any, Any]] = zip(self, other, strict=True)
        return SweepSums(*(a + b for a, b in pairs))


class TileDraw(NamedTuple):
    """Draws of a tile.

    Attributes
    ----------
    z : array, (segment, frame) int16
    local : array or None, (segment, lag + frame, feature)
        None where the stage draws labels alone.
    """

    z: Any
    local: Any
    sums: SweepSums


class SweepAddress(NamedTuple):
    """Address of the random numbers of a tile, besides its sessions and frames.

    Attributes
    ----------
    number : int
        Of the sweep.
    """

    seed: int
    number: int

    @property
    def seed_words(self) -> np.ndarray:
        """The seed as two 32-bit words."""
        return np.array([self.seed >> 32, self.seed & 0xFFFFFFFF], np.uint32)


class TileModel(Protocol):
    """Model of a tile in one stage, given the parameters; holds nothing of any chain.

    Attributes
    ----------
    states : ndarray or None, (drawn,) int, increasing
        States among which labels are drawn (model.md 3.12); None = all.
    terms : tuple of str
        Parts of the log probability that the tiles add up.
    """

    @property
    def states(self) -> np.ndarray | None: ...

    @property
    def terms(self) -> tuple[str, ...]: ...

    def tables(self, parameters: Parameters) -> Any:
        """Parameters as tiles take them, in float64 on the host."""
        ...

    def no_sums(self, chain: Sized, n_states: int) -> SweepSums:
        """Sums over no tiles."""
        ...

    def read_ahead(self, chain: Chain, tile: Tile) -> None:
        """Begin to read the data of a tile before its turn."""
        ...

    def gather(self, chain: Chain, tile: Tile, shape: TileShape, n_states: int) -> Any:
        """Gather the values of the chain that a tile is drawn given."""
        ...

    def draw(
        self,
        chain: Chain,
        task: Task,
        inputs: Any,
        tables: Any,
        device_tables: Any,
        address: SweepAddress,
    ) -> TileDraw:
        """Draw a tile.

        Parameters
        ----------
        chain : Chain
            Neither read nor written: its sizes, and its sessions for messages.
        given
            What :meth:`gather` gave.
        tables, device_tables
            What :meth:`tables` gave, and the same on the device in the precision of the chain.

        Raises
        ------
        SamplingError
            When there is no finite result even in float64.
        """
        ...


def tables_of(parameters: Parameters, states: np.ndarray | None = None) -> HmmTables:
    """Tables of the syllable kernel: of all states, or of ``states``, (drawn,) int increasing."""
    tables = hmm_tables(
        parameters.dynamics.weight_bias[..., :-1],
        parameters.dynamics.weight_bias[..., -1],
        parameters.dynamics.covariance,
        parameters.transition,
    )
    return tables if states is None else tables.of(states)


def on_device(values: Any, dtype: np.dtype) -> Any:
    """Numbers in one precision on the device; whole numbers as they are."""

    def of_type(a: Any) -> np.ndarray:
        found = np.asarray(a)
        return found if found.dtype == np.int32 else np.asarray(found, dtype)

    with jax.enable_x64(dtype == np.float64):
        return jax.device_put(jax.tree.map(of_type, values))
