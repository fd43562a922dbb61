"""What a fit tells its callbacks while it runs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class PlanMade:
    """Before anything runs.

    Attributes
    ----------
    n_sessions, n_frames, n_latent, n_states : int
    n_segments, n_segment_frames : int
        Shape of a tile.
    tiles_in_flight : int
    device_bytes : int
        Predicted device memory of the tiles in flight; does not depend on ``n_frames``.
    scratch_bytes : int
        Size of the scratch files of the chain.
    """

    n_sessions: int
    n_frames: int
    n_latent: int
    n_states: int
    n_segments: int
    n_segment_frames: int
    tiles_in_flight: int
    device_bytes: int
    scratch_bytes: int


@dataclass(frozen=True)
class Noted:
    """Something a person should know."""

    text: str


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
    """

    sweep: int
    n_sweeps: int
    seconds: float
    log_likelihood: float
    median_duration: float
    n_used: int
    kappa: float
    stage: str = "ar"


@dataclass(frozen=True)
class Published:
    """After the labels became current."""

    model: str
    version: str


Event = PlanMade | Noted | SweepEnded | Published
Callback = Callable[[Event], None]
