"""Demonstration on simulated mice: tracking files -> store -> fit -> report -> groups."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import xarray as xr

from kpms_zarr.compute.analysis.agreement import adjusted_rand_index, contingency
from kpms_zarr.compute.analysis.groups.compare_groups import compare_groups
from kpms_zarr.compute.analysis.groups.comparison import ALPHA
from kpms_zarr.compute.config import FitConfig
from kpms_zarr.compute.events import Callback, Noted
from kpms_zarr.compute.pose.pca import pca
from kpms_zarr.compute.runs.fit import FitSummary, fit_one
from kpms_zarr.compute.tracking.quality import quality, warnings_of
from kpms_zarr.store.core import access
from kpms_zarr.store.errors import InputError
from kpms_zarr.store.ingest.epochs import epochs
from kpms_zarr.store.ingest.ingest import ingest
from kpms_zarr.store.ingest.signals import signals
from kpms_zarr.store.model.models import open_labels
from kpms_zarr.store.shown import ShownAsTable
from kpms_zarr.store.study.epochs import current_epochs
from kpms_zarr.store.study.mouse.body import TAIL
from kpms_zarr.store.study.mouse.study import MouseStudy
from kpms_zarr.store.study.mouse.writing import write_files
from kpms_zarr.store.study.settings import read_settings
from kpms_zarr.store.study.signals import signal_names
from kpms_zarr.store.wording import call, counted, listed
from kpms_zarr.viz.report.report import report
from kpms_zarr.workflow import TARGET_DURATION

STUDY = MouseStudy()
MODEL = "demo"
SWEEPS = 100
"""Of the full stage: half of what a fit does by itself, for a result in a minute or two."""
_MOST_LOW = 0.5
"""Share of the frames in which a keypoint may be doubted, to be used in the fit."""


@dataclass(frozen=True)
class DemoSummary(ShownAsTable):
    """Result of :func:`demo`.

    Attributes
    ----------
    folder, store, report : str
        Where everything is, the store, and the HTML page.
    model : str
    fit : FitSummary
    adjusted_rand_index : float
        Agreement of the syllables with the simulated truth; 1 = the same partition.
    n_true_syllables : int
    left_out : tuple of str
        Keypoints that the fit does not use.
    matches : tuple of str
        Of each syllable of 1 % of the frames or more: what the mouse does in them in truth.
    planted : tuple of str
        In what the groups differ in truth.
    found : tuple of str
        In what :func:`kpms_zarr.compare_groups` found them to differ.
    next_steps : tuple of str
        Calls to go on with.
    """

    folder: str
    store: str
    report: str
    model: str
    fit: FitSummary
    adjusted_rand_index: float
    n_true_syllables: int
    left_out: tuple[str, ...] = ()
    matches: tuple[str, ...] = ()
    planted: tuple[str, ...] = ()
    found: tuple[str, ...] = ()
    next_steps: tuple[str, ...] = ()


def demo(
    folder: str | Path = "kpms-zarr-demo",
    *,
    n_space: int = 2,
    callbacks: Sequence[Callback] = (),
) -> DemoSummary:
    """Simulate tracking files of mice in two groups, and run the whole job on them.

    The mice walk, run, turn, rear, groom, sniff and pause in a round open field; the drug makes
    them groom more and rear less. What is planted is known, so that it can be seen what is found.

    Parameters
    ----------
    folder : path
        Gets ``tracking/*.csv`` and the tables that belong to it, ``study.zarr`` and
        ``report.html``. Run again, it finds its files in the store and fits a new version of its
        model.
    n_space : int
        2: DeepLabCut files of a camera above, in px; 3: anipose files, in mm.
    callbacks : sequence of callable
        As in :func:`kpms_zarr.fit`.

    Raises
    ------
    InputError
        When the folder holds the demonstration in the other number of dimensions.
    """
    study = replace(STUDY, n_space=n_space)
    folder = Path(folder)
    store, page = folder / "study.zarr", folder / "report.html"
    _check(store, study)

    def say(text: str) -> None:
        for callback in callbacks:
            callback(Noted(text))

    _fill(store, folder, study, say)
    left_out = _left_out(quality(store), say)
    use = tuple(name for name in study.settings.keypoints if name not in left_out)
    pca(store)
    fitted = fit_one(
        store,
        model=MODEL,
        config=FitConfig(sweeps=SWEEPS, target_duration=TARGET_DURATION, use_keypoints=use),
        callbacks=callbacks,
        overwrite=True,
    )
    report(store, model=MODEL, out=page)
    truth = [study.session(i).syllable for i in range(len(study.session_names))]
    table, index = _against_truth(store, study, truth)
    shares = _true_shares(study, truth)
    return DemoSummary(
        str(folder),
        str(store),
        str(page),
        MODEL,
        fitted,
        index,
        len(study.syllables),
        left_out,
        _matches(table, study),
        _planted(study, shares),
        _found(store, table, study, shares),
        _next_steps(str(store)),
    )


def _check(store: Path, study: MouseStudy) -> None:
    """Refuse a store that holds other keypoints, or in other dimensions."""
    known = read_settings(store) if store.exists() else study.settings
    ours = study.settings
    if known.keypoints and (known.keypoints, known.space) != (ours.keypoints, ours.space):
        raise InputError(
            expected=f"a folder without a store, or one of the demonstration in {study.n_space}-D",
            found=f"{counted(len(known.keypoints), 'keypoint')} in {len(known.space)}-D",
            where=str(store),
            fix="give another folder, or remove this one",
        )


def _fill(store: Path, folder: Path, study: MouseStudy, say: Callable[[str], None]) -> None:
    """Write the files, and all of them into the store."""
    files = write_files(folder, study)
    names = study.settings
    ingest(
        store,
        files,
        fps=study.fps,
        anterior=names.anterior,
        posterior=names.posterior,
        skeleton=names.skeleton,
        metadata=folder / "groups.csv",
    )
    root = access.open_group(store)
    if not current_epochs(root):
        epochs(store, folder / "epochs.csv")
    if "photometry" not in signal_names(root):
        signals(store, folder / "photometry.csv", units="%")
    groups = [study.group(i) for i in range(len(files))]
    say(
        f"{len(files)} simulated mice of {study.n_frames / study.fps:g} s each, "
        + listed(f"{groups.count(name)} in the group {name}" for name in study.groups)
        + f": {counted(len(names.keypoints), 'keypoint')} in {study.n_space}-D"
    )


def _left_out(found: xr.Dataset, say: Callable[[str], None]) -> tuple[str, ...]:
    """Keypoints that a person would leave out: the tail, and those that are mostly doubted."""
    for text in warnings_of(found):
        say(text)
    low = found["low_confidence_fraction"].mean("session")
    doubted = [str(name) for name in low["keypoint"].values[low.values > _MOST_LOW]]
    say(f"left out of the fit: {listed(TAIL)}, which move on their own")
    if doubted:
        share = f"{100 * float(low.sel(keypoint=doubted).mean()):.0f} %"
        say(
            f"left out of the fit: {listed(doubted)}, which the tracker doubts in {share} of frames"
        )
    return (*TAIL, *doubted)


# ------------------------------------------------------------------ what is true


def _against_truth(
    store: Path, study: MouseStudy, truth: Sequence[np.ndarray]
) -> tuple[np.ndarray, float]:
    """Frames by found and true syllable, and how far the two agree."""
    labels = open_labels(store, MODEL)
    row = {name: i for i, name in enumerate(study.session_names)}
    sessions = access.sessions(store)
    found = [np.asarray(labels["syllable"][one.index, : one.n_frames]) for one in sessions]
    both = np.concatenate(found), np.concatenate([truth[row[one.name]] for one in sessions])
    return contingency(*both), adjusted_rand_index(*both)


def _meant(table: np.ndarray, study: MouseStudy, state: int) -> str:
    """What the mouse mostly does in truth in a syllable."""
    share = table[state] / max(1, table[state].sum())
    return f"{study.syllables[int(share.argmax())]} ({100 * share.max():.0f} %)"


def _matches(table: np.ndarray, study: MouseStudy) -> tuple[str, ...]:
    frames = table.sum(1)
    return tuple(
        f"{state}: {_meant(table, study, state)}"
        for state in np.flatnonzero(frames >= 0.01 * frames.sum()).tolist()
    )


def _true_shares(study: MouseStudy, truth: Sequence[np.ndarray]) -> dict[str, np.ndarray]:
    """Share of the frames of each true syllable, (syllable,): mean over the mice of a group."""
    n = len(study.syllables)
    share = np.array([np.bincount(one, minlength=n) / len(one) for one in truth])
    group = np.array([study.group(i) for i in range(len(truth))])
    return {name: share[group == name].mean(0) for name in study.groups}


def _percents(shares: Mapping[str, float]) -> str:
    """``9.8 % of the frames in saline, 17.0 % in drug``."""
    first, *others = shares
    parts = [f"{100 * shares[first]:.1f} % of the frames in {first}"]
    return listed([*parts, *(f"{100 * shares[name]:.1f} % in {name}" for name in others)])


def _planted(study: MouseStudy, shares: Mapping[str, np.ndarray]) -> tuple[str, ...]:
    """In what the groups differ, as it was drawn and as it came out."""
    return tuple(
        f"{name}: {syllable} is chosen {factor:g} times as often; "
        + _percents({group: one[study.syllables.index(syllable)] for group, one in shares.items()})
        for name, effects in study.groups.items()
        for syllable, factor in effects.items()
    )


def _found(
    store: Path, table: np.ndarray, study: MouseStudy, shares: Mapping[str, np.ndarray]
) -> tuple[str, ...]:
    """What the comparison of groups says, in sentences, and how that is in truth."""
    result = compare_groups(store, model=MODEL, by="group", groups=list(study.groups))
    tests = result.tests.sel(statistic="frequency")
    said = []
    for state, q in zip(tests["state"].values.tolist(), tests["q"].values, strict=True):
        if not q < ALPHA:
            continue
        mean = tests["mean"].sel(state=state)
        in_truth = int(table[state].argmax())
        true = " and ".join(f"{100 * one[in_truth]:.1f} %" for one in shares.values())
        said.append(
            f"syllable {state}: {_percents({n: float(mean.sel(group=n)) for n in study.groups})}, "
            f"q {float(q):.3f}; mostly {_meant(table, study, state)}, which is {true} in truth"
        )
    return tuple(said)


def _next_steps(store: str) -> tuple[str, ...]:
    return (
        call("explore", store, show=True),
        call("compare_groups", store, model=MODEL, by="group"),
        call("triggered_average", store, model=MODEL, signal="photometry"),
    )
