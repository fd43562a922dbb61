"""What a computation tells its callbacks while it runs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from kpms_zarr.compute.runs.plan import Plan


@dataclass(frozen=True)
class PlanMade:
    """Before anything runs.

    Attributes
    ----------
    plan : Plan
    """

    plan: Plan


@dataclass(frozen=True)
class Noted:
    """Something a person should know."""

    text: str


@dataclass(frozen=True)
class SweepStarted:
    """Before each sweep.

    Attributes
    ----------
    sweep, n_sweeps : int
        Counted from 1 over all stages.
    stage : str
        ``"ar"`` or ``"full"``.
    """

    sweep: int
    n_sweeps: int
    stage: str


@dataclass(frozen=True)
class TileDone:
    """After each tile of a sweep.

    Attributes
    ----------
    sweep : int
        Counted from 1 over all stages.
    n_done, n_tiles : int
        In this sweep.
    """

    sweep: int
    n_done: int
    n_tiles: int


@dataclass(frozen=True)
class TimePredicted:
    """Once some tiles of a stage have run.

    Attributes
    ----------
    stage : str
    seconds_per_sweep : float
        Predicted from three tiles.
    """

    stage: str
    seconds_per_sweep: float


@dataclass(frozen=True)
class SweepEnded:
    """After each sweep.

    Attributes
    ----------
    sweep, n_sweeps : int
        Counted from 1 over all stages.
    seconds : float
        Wall time of the sweep.
    log_likelihood : float
        Of all that the stage samples, given the parameters, nat per frame; different quantities in
        the two stages.
    median_duration : float
        In ms.
    n_used : int
        Syllables with at least 0.5 % of the frames.
    kappa : float
    stage : str
        ``"ar"`` or ``"full"``.
    waiting : float
        Share of the time in which the device had nothing to do.
    """

    sweep: int
    n_sweeps: int
    seconds: float
    log_likelihood: float
    median_duration: float
    n_used: int
    kappa: float
    stage: str = "ar"
    waiting: float = 0.0


@dataclass(frozen=True)
class Committed:
    """After a sweep became what a resume goes on from.

    Attributes
    ----------
    sweep : int
        Sweeps that led to it, over all stages; 0 = the state before the first.
    n_bytes : int
        Before compression.
    seconds : float
    """

    sweep: int
    n_bytes: int
    seconds: float


@dataclass(frozen=True)
class SessionsSettled:
    """After each sweep of labelling sessions with a model.

    Attributes
    ----------
    sweep : int
        Counted from 1.
    n_settled, n_sessions : int
        Sessions whose labels no longer change more than from sample to sample, of all.
    """

    sweep: int
    n_settled: int
    n_sessions: int


@dataclass(frozen=True)
class Published:
    """After the labels became current."""

    model: str
    version: str


Event = (
    PlanMade
    | Noted
    | SweepStarted
    | TileDone
    | TimePredicted
    | SweepEnded
    | Committed
    | SessionsSettled
    | Published
)
Callback = Callable[[Event], None]
