"""Tracking files to try things with."""

from __future__ import annotations

from pathlib import Path

from kpms_zarr.store.study.mouse.study import MouseStudy
from kpms_zarr.store.study.mouse.writing import write_files


def simulate(
    folder: str | Path = "mice",
    *,
    n_animals: int = 6,
    n_frames: int = 3_600,
    n_space: int = 2,
    seed: int = 0,
) -> list[Path]:
    """Write tracking files of simulated mice in two groups, to try things with.

    Bodies of rigid bones that walk, turn, rear, groom, sniff and pause in a round open field at 30
    frames per second, tracked with the faults of trackers; one group grooms more and rears less.
    More animals of the same seed leave the others as they were.

    Parameters
    ----------
    folder : path
        Gets ``tracking/*.csv``; beside it ``groups.csv``, ``epochs.csv``, ``photometry.csv``
        (for :func:`kpms_zarr.annotate`, ``epochs``, ``signals``) and ``truth.csv``, the simulated
        syllable of each frame.
    n_animals : int
        Of each group, one session each.
    n_frames : int
        Of a session.
    n_space : int
        2: DeepLabCut files of a camera above, in px; 3: anipose files, in mm.
    seed : int

    Returns
    -------
    list of Path
        The tracking files.
    """
    return write_files(folder, MouseStudy(n_animals, n_frames, n_space, seed=seed))
