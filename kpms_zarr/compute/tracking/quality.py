"""Quality of the tracking by keypoint: exact statistics, out of core."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from typing import Any, NamedTuple, Protocol

import numpy as np
import xarray as xr

from kpms_zarr.compute.alignment import thresholds
from kpms_zarr.compute.alignment.alignment import (
    AlignmentSettings,
    Compass,
    compass_of,
    is_valid,
)
from kpms_zarr.compute.cluster.connect import ClusterLike, connected
from kpms_zarr.compute.mapreduce import BlockReader, Histogram, limit_workers, map_reduce
from kpms_zarr.compute.results import as_dataset, write_group
from kpms_zarr.compute.tracking.exchanges import Exchanges, Search, Usual, pairs_of, search_of
from kpms_zarr.compute.tracking.quality_counts import (
    QualityCounts,
    bad_seconds,
    frames_per_second,
    worst_start,
)
from kpms_zarr.store.core import access, layout
from kpms_zarr.store.core.access import Session, StoreLike
from kpms_zarr.store.core.blocks import Block, iter_blocks
from kpms_zarr.store.core.provenance import provenance
from kpms_zarr.store.core.schema import FRAMES_PER_CHUNK
from kpms_zarr.store.errors import InputError, ReadOnlyError
from kpms_zarr.store.missing import is_missing
from kpms_zarr.store.study.plausibility import body_doubts, scale_doubts
from kpms_zarr.store.study.settings import StudySettings, read_settings
from kpms_zarr.store.study.tracking import (
    CONFIDENCE_EDGES,
    PROBLEMS,
    distance_from_middle,
    outlier_distance,
)
from kpms_zarr.store.wording import listed, option

_BLOCKS_PER_GROUP = 64
_HALF = 1 << 16
_MANY_MISSING = 0.5
_MANY_UNDEFINED = 0.01
_FEWEST_EXCHANGED = 3
_NAMES_SHOWN = 5
_READ_ONLY = (errno.EACCES, errno.EPERM, errno.EROFS)


# ------------------------------------------------------------------ exact medians, by radix


class Pivot(NamedTuple):
    """Pivot: bins of the two middle order statistics of each keypoint.

    Attributes
    ----------
    upper : ndarray, (2, keypoint) int64
        Upper 16 bits of their values.
    rank : ndarray, (2, keypoint) int64
        How many values with the same upper bits are smaller or come before.
    """

    upper: np.ndarray
    rank: np.ndarray


def upper_histogram(values: np.ndarray) -> Histogram:
    """Count the upper 16 bits of non-negative float32 numbers: (frame, keypoint), NaN left out.

    The bit patterns of non-negative floats are in the order of the floats.
    """
    bits, point = _bits(values)
    return Histogram.of_block(point * _HALF + (bits >> 16))


def pivot(histogram: Histogram, n_keypoints: int) -> Pivot:
    """Find the bins of the middle order statistics."""
    found = np.full((2, 2, n_keypoints), -1)
    for point in range(n_keypoints):
        entries = _entries(histogram, point)
        total = entries.number.sum()
        for which, rank in enumerate(((total - 1) // 2, total // 2) if total else ()):
            found[:, which, point] = entries.at_rank(rank)
    return Pivot(found[0], found[1])


def lower_histogram(values: np.ndarray, pivot: Pivot) -> Histogram:
    """Count the lower 16 bits of the numbers that share their upper bits with the pivot."""
    bits, point = _bits(values)
    keys = []
    for which in range(2):
        inside = bits >> 16 == pivot.upper[which, point]
        keys.append((2 * point[inside] + which) * _HALF + (bits[inside] & (_HALF - 1)))
    return Histogram.of_block(np.concatenate(keys))


def median(histogram: Histogram, pivot: Pivot) -> np.ndarray:
    """Medians (keypoint,) float64 from the lower bits; NaN where there are no numbers."""
    n_keypoints = pivot.upper.shape[1]
    middle = np.full((2, n_keypoints), np.nan)
    for point in np.flatnonzero(pivot.upper[0] >= 0):
        for which in range(2):
            entries = _entries(histogram, 2 * int(point) + which)
            lower, _ = entries.at_rank(pivot.rank[which, point])
            bits = np.uint32(pivot.upper[which, point] << 16 | lower)
            middle[which, point] = bits.view(np.float32)
    return middle.mean(0)


def _bits(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    frame, point = np.nonzero(~np.isnan(values))
    kept = np.ascontiguousarray(values[frame, point], dtype=np.float32)
    return kept.view(np.uint32).astype(np.int64), point


def _entries(histogram: Histogram, row: int) -> Histogram:
    cut = slice(*np.searchsorted(histogram.key, (row * _HALF, (row + 1) * _HALF)))
    return Histogram(histogram.key[cut] - row * _HALF, histogram.number[cut])


# ------------------------------------------------------------------ passes over sessions


def _merge(a: dict[int, tuple[Any, ...]], b: dict[int, tuple[Any, ...]]) -> dict[int, Any]:
    """Merge statistics by session; those of ``b`` are of later frames."""
    both = {
        session: tuple(x.add(y) for x, y in zip(a[session], b[session], strict=True))
        for session in a.keys() & b.keys()
    }
    return {**a, **b, **both}


def _first_pass(
    reader: BlockReader, threshold: float, bin_frames: dict[int, int], block: Block
) -> dict[int, Any]:
    position, confidence = reader.tracked(block)
    counts = QualityCounts.of_block(position, confidence, threshold)
    at = (block.start, bin_frames[block.session])
    missing = is_missing(position, None)
    bad = bad_seconds(missing, "missing", *at)
    bad = bad.add(bad_seconds(~missing & (confidence < threshold), "low_confidence", *at))
    highest = np.fmax.reduce(confidence, axis=0, initial=-np.inf).astype(np.float64)
    distances = upper_histogram(distance_from_middle(position))
    return {block.session: (counts, bad, distances, _Largest(highest))}


def _deviation(reader: Positions, block: Block, centre: np.ndarray | None) -> np.ndarray:
    """Distances from the middle, or how far these are from their median."""
    distance = distance_from_middle(reader.tracked(block)[0])
    return distance if centre is None else np.abs(distance - centre).astype(np.float32)


def _upper_pass(
    reader: Positions, centre: dict[int, np.ndarray], block: Block
) -> dict[int, tuple[Histogram]]:
    values = _deviation(reader, block, centre.get(block.session))
    return {block.session: (upper_histogram(values),)}


def _lower_pass(
    reader: Positions, centre: dict[int, np.ndarray], pivots: dict[int, Pivot], block: Block
) -> dict[int, tuple[Histogram]]:
    values = _deviation(reader, block, centre.get(block.session))
    return {block.session: (lower_histogram(values, pivots[block.session]),)}


class _Largest(NamedTuple):
    value: np.ndarray

    def add(self, other: _Largest) -> _Largest:
        return _Largest(np.maximum(self.value, other.value))


class _Number(NamedTuple):
    value: np.ndarray

    def add(self, other: _Number) -> _Number:
        return _Number(self.value + other.value)


def _outlier_pass(
    reader: BlockReader,
    limit: dict[int, np.ndarray],
    bin_frames: dict[int, int],
    searches: dict[int, Search],
    block: Block,
) -> dict[int, tuple[_Number, Histogram, Exchanges]]:
    position, confidence = reader.tracked(block)
    is_far = distance_from_middle(position) > limit[block.session]
    bad = bad_seconds(is_far, "outlier", block.start, bin_frames[block.session])
    sides = Exchanges((), 0)
    if block.session in searches:
        sides = searches[block.session].of_block(position, confidence, block.start)
    return {block.session: (_Number(is_far.sum(0)), bad, sides)}


def _usual_pass(
    reader: BlockReader, compass: Compass, threshold: float, block: Block
) -> dict[int, tuple[Usual]]:
    position, confidence = reader.position(block), reader.confidence(block)
    valid = is_valid(position, confidence, threshold)
    return {block.session: (Usual.of_block(position, valid, compass),)}


def _usual(
    reader: BlockReader, study: StudySettings, sessions: Iterable[Session], threshold: float
) -> tuple[dict[int, Usual], Compass]:
    """The usual pose of every session, seen from the animal; none where no heading is known."""
    compass = compass_of(study, AlignmentSettings())
    if not (compass.anterior and compass.posterior):
        return {}, compass
    look = partial(_usual_pass, reader, compass, threshold)
    found = map_reduce(look, iter_blocks(sessions), _merge)
    return {session: usual for session, (usual,) in found.items()}, compass


def _medians(
    reader: Positions,
    blocks: list[Block],
    centre: dict[int, np.ndarray],
    uppers: dict[int, Histogram],
    n_keypoints: int,
) -> dict[int, np.ndarray]:
    """Finish the medians of some sessions from the histograms of the upper bits."""
    pivots = {session: pivot(upper, n_keypoints) for session, upper in uppers.items()}
    lowers = map_reduce(partial(_lower_pass, reader, centre, pivots), blocks, _merge)
    return {session: median(lower, pivots[session]) for session, (lower,) in lowers.items()}


class Positions(Protocol):
    """Reader of positions by blocks of frames, such as a :class:`BlockReader`."""

    def tracked(self, block: Block) -> tuple[np.ndarray, np.ndarray]:
        """Positions (frame, keypoint, space), NaN = missing, and confidences."""
        ...


def distance_statistics(
    reader: Positions, sessions: Sequence[Session], *, n_keypoints: int
) -> tuple[dict[int, np.ndarray], dict[int, np.ndarray]]:
    """Exact medians and median absolute deviations of the distances from the middle.

    Returns
    -------
    centre, deviation : dict of int to ndarray, (keypoint,)
        By index of the session; NaN for keypoints never seen.
    """
    centre: dict[int, np.ndarray] = {}
    deviation: dict[int, np.ndarray] = {}
    for group in _groups(sessions):
        blocks = list(iter_blocks(group))
        uppers = map_reduce(partial(_upper_pass, reader, {}), blocks, _merge)
        first = {session: upper for session, (upper,) in uppers.items()}
        middle = _medians(reader, blocks, {}, first, n_keypoints)
        uppers = map_reduce(partial(_upper_pass, reader, middle), blocks, _merge)
        second = {session: upper for session, (upper,) in uppers.items()}
        deviation |= _medians(reader, blocks, middle, second, n_keypoints)
        centre |= middle
    return centre, deviation


def _of_group(
    reader: BlockReader,
    sessions: list[Session],
    threshold: float,
    scale: float,
    searches: dict[int, Search],
) -> list[dict[str, np.ndarray]]:
    """Quality of some sessions, one row of every variable for each."""
    blocks = list(iter_blocks(sessions))
    bin_frames = {session.index: frames_per_second(session) for session in sessions}
    first = map_reduce(partial(_first_pass, reader, threshold, bin_frames), blocks, _merge)
    n_keypoints = len(next(iter(first.values()))[0].n_present)
    uppers = {session: upper for session, (_, _, upper, _) in first.items()}
    centre = _medians(reader, blocks, {}, uppers, n_keypoints)
    second = map_reduce(partial(_upper_pass, reader, centre), blocks, _merge)
    uppers = {session: upper for session, (upper,) in second.items()}
    mad = _medians(reader, blocks, centre, uppers, n_keypoints)
    limit = {i: outlier_distance(centre[i], mad[i], scale) for i in centre}
    search = partial(_outlier_pass, reader, limit, bin_frames, searches)
    last = map_reduce(search, blocks, _merge)
    rows = []
    for session in sessions:
        i = session.index
        (counts, bad, _, highest), (n_outliers, bad_too, sides) = first[i], last[i]
        row = finalise(counts, centre[i], mad[i], n_outliers.value)
        row["confidence_max"] = np.where(np.isfinite(highest.value), highest.value, np.nan)
        row["worst_start"] = worst_start(bad.add(bad_too), session, n_keypoints)
        rows.append({**row, **(sides.finalise() if sides.sides else {})})
    return rows


def finalise(
    counts: QualityCounts, centre: np.ndarray, mad: np.ndarray, n_outliers: np.ndarray
) -> dict[str, np.ndarray]:
    """Variables of one session, each (keypoint,) or (keypoint, bin), from its counts."""
    n_frames = counts.gaps.n_frames
    return {
        "missing_fraction": (n_frames - counts.n_present) / n_frames,
        "low_confidence_fraction": _share(counts.n_low, counts.n_rated),
        "outlier_fraction": _share(n_outliers, counts.n_present),
        "longest_gap": counts.gaps.longest,
        "distance_median": centre,
        "distance_mad": mad,
        "confidence_count": counts.by_confidence,
    }


def _share(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    return np.where(whole > 0, part / np.maximum(whole, 1), np.nan)


def _groups(sessions: Iterable[Session]) -> Iterator[list[Session]]:
    """Consecutive sessions that together have enough blocks to keep the workers busy."""
    group: list[Session] = []
    n_blocks = 0
    for session in sessions:
        group.append(session)
        n_blocks += -(-session.n_frames // FRAMES_PER_CHUNK)
        if n_blocks >= _BLOCKS_PER_GROUP:
            yield group
            group, n_blocks = [], 0
    if group:
        yield group


# ------------------------------------------------------------------ the public verb


def quality(
    store: StoreLike,
    *,
    confidence_threshold: float | str = 0.5,
    outlier_scale: float = 6.0,
    host_memory: str | int | None = None,
    cluster: ClusterLike = None,
) -> xr.Dataset:
    """Tracking quality of every keypoint of every session, written to the group ``quality``.

    Parameters
    ----------
    store : path or URL
        One that cannot be written to is only read, and ``attrs["notes"]`` says so.
    confidence_threshold : float or str
        ``"10%"``: the confidence below which 10 % of those of all sessions lie.
    outlier_scale : float
        A keypoint is an outlier when its distance from the middle of the animal (the
        coordinate-wise median of the keypoints in the same frame) is more than this many median
        absolute deviations above its median over the session.
    host_memory : str or int, optional
        What the process may take, such as ``"4GB"``, or bytes.
    cluster : str, path or distributed.Client, optional
        Workers of a Dask cluster that read the blocks, as of :func:`kpms_zarr.fit`; the result is
        the same to the bit.

    Returns
    -------
    xarray.Dataset
        Variables of ``schema.QUALITY``, most by (session, keypoint). NaN where there is nothing to
        count: confidences of a session without them, distances of a keypoint never seen.

    Raises
    ------
    InputError
        For a store without sessions and for settings out of range.

    Notes
    -----
    What a view of the frames needs is stored too: histograms of the confidences, and where the
    10 s with most bad frames begin, so that it can be shown without reading the session.
    Where the study has a heading, keypoints on the left and their mirror images on the right (by
    name, else by the usual pose) are followed: frames in which a pair got onto the wrong sides of
    the animal by a jump onto each other's place count as exchanged by the tracker.
    Medians are exact: radix selection on the bit patterns of the distances, 16 bits at a time,
    in five passes over the data.
    """
    _check_settings(confidence_threshold, outlier_scale)
    root = access.open_group(store)
    sessions = access.require_sessions(root, os.fspath(store))
    study = read_settings(root)
    keypoints = np.asarray(root[f"{layout.KEYPOINTS}/keypoint"][:], dtype=object)  # type: ignore[index]
    reader = BlockReader(store)
    rows: list[dict[str, np.ndarray]] = []
    with connected(cluster) as crew, limit_workers(store, host_memory):
        if crew is not None:
            crew.workers()  # waits for the first, which Dask would do for ever
        threshold = thresholds.resolve(confidence_threshold, reader, sessions)
        usual, compass = _usual(reader, study, sessions, threshold.value)
        pairs = pairs_of(study.keypoints, usual)
        searches = {
            s.index: search_of(usual[s.index], pairs, compass, threshold.value, s.fps)
            for s in sessions
            if pairs
        }
        for group in _groups(sessions):
            rows += _of_group(reader, group, threshold.value, outlier_scale, searches)
    values: dict[str, Any] = {
        "session": np.asarray([session.name for session in sessions], dtype=object),
        "keypoint": keypoints,
        "n_frames": np.asarray([session.n_frames for session in sessions]),
        "confidence_bin": CONFIDENCE_EDGES[:-1],
        "confidence_bin_stop": CONFIDENCE_EDGES[1:],
        "problem": np.asarray(PROBLEMS, dtype=object),
        **_seen_from_the_animal(study, sessions, usual, pairs),
        **{name: np.stack([row[name] for row in rows]) for name in rows[0]},
    }
    settings: dict[str, Any] = {**threshold.settings, "outlier_scale": outlier_scale}
    attrs = {**settings, **provenance("quality", settings), "notes": []}
    if not _write(store, values, attrs):
        attrs["notes"] = [f"{os.fspath(store)} cannot be written to: the result is not stored"]
    return as_dataset("quality", values, attrs)


def _seen_from_the_animal(
    study: StudySettings,
    sessions: Sequence[Session],
    usual: dict[int, Usual],
    pairs: tuple[tuple[int, int], ...],
) -> dict[str, np.ndarray]:
    values: dict[str, np.ndarray] = {}
    if usual:
        found = [usual[session.index] for session in sessions]
        values["heading_undefined_fraction"] = np.array(
            [one.n_undefined / one.n_frames if one.n_frames else np.nan for one in found]
        )
    if pairs:
        names = [f"{study.keypoints[left]}, {study.keypoints[right]}" for left, right in pairs]
        values["side_pair"] = np.asarray(names, dtype=object)
    return values


def _check_settings(confidence_threshold: float | str, outlier_scale: float) -> None:
    thresholds.check(confidence_threshold)
    if not (np.isfinite(outlier_scale) and outlier_scale > 0):
        raise InputError(
            expected="a positive number of median absolute deviations",
            found=str(outlier_scale),
            where="`outlier_scale=`",
            fix="give for example `outlier_scale=6`",
        )


def _write(store: StoreLike, values: dict[str, Any], attrs: dict[str, Any]) -> bool:
    """Write the result; False when the store is read-only."""
    try:
        root = access.open_group(store, "r+")
        write_group(root, layout.QUALITY, values, attrs)
    except (NotImplementedError, ReadOnlyError):
        return False
    except OSError as error:
        if error.errno not in _READ_ONLY:
            raise
        return False
    return True


# ------------------------------------------------------------------ what a person reads


def summarise(dataset: xr.Dataset) -> xr.Dataset:
    """Quality of every keypoint over all sessions.

    Parameters
    ----------
    dataset : xarray.Dataset
        Result of :func:`quality`.

    Returns
    -------
    xarray.Dataset
        dims (keypoint,): the three fractions, weighted by the frames they were counted in
        (the confidence by all frames of the sessions that have one); ``longest_gap`` is the
        longest of any session, in frames.
    """
    n_frames = dataset["n_frames"].astype(float)
    weights = {
        "missing_fraction": n_frames,
        "low_confidence_fraction": n_frames,
        "outlier_fraction": n_frames * (1 - dataset["missing_fraction"]),
    }
    pooled = {
        name: dataset[name].weighted(weight).mean("session") for name, weight in weights.items()
    }
    pooled["longest_gap"] = dataset["longest_gap"].max("session")
    for name, array in pooled.items():
        array.attrs = dict(dataset[name].attrs)
    return xr.Dataset(pooled, attrs={"n_frames": int(n_frames.sum())})


def warnings_of(dataset: xr.Dataset) -> list[str]:
    """Keypoints that are missing in more than half of the frames of a session, in plain words.

    Keypoints with the same sessions share one sentence, as do sessions that are tracked but with
    confidences below the threshold.
    """
    return [*_missing(dataset), *_low(dataset), *_implausible(dataset), *_turned(dataset)]


def _turned(dataset: xr.Dataset) -> list[str]:
    """Warn of front and rear on the same spot, and of left and right exchanged."""
    names = np.asarray(dataset["session"]).astype(str)
    found = []
    if "heading_undefined_fraction" in dataset:
        share = np.asarray(dataset["heading_undefined_fraction"])
        is_many = share > _MANY_UNDEFINED
        if is_many.any():
            found.append(
                f"front and rear of the animal are on the same spot in up to "
                f"{100 * np.nanmax(share):.2g} % of the frames of "
                f"{_names(names[is_many], len(names))}: these frames have no heading; check "
                "`anterior=` and `posterior=`, and where the tracker puts keypoints that it lost"
            )
    if "exchanged_frames" not in dataset:
        return found
    number = np.asarray(dataset["exchanged_frames"].transpose("session", "side_pair"))
    for pair in np.flatnonzero((number >= _FEWEST_EXCHANGED).any(0)):
        which = np.flatnonzero(number[:, pair] >= _FEWEST_EXCHANGED)
        worst = which[number[which, pair].argmax()]
        one = dataset.isel(session=worst, side_pair=pair, stretch=0)
        found.append(
            f"left and right of {dataset['side_pair'].values[pair]} seem exchanged in "
            f"{number[which, pair].sum():,} frames of {_names(names[which], len(names))}, longest "
            f"in {names[worst]} from frame {int(one['exchange_start']):,} to "
            f"{int(one['exchange_stop']) - 1:,}: correct the tracking there"
        )
    return found


def _implausible(dataset: xr.Dataset) -> list[str]:
    """Warn of implausible numbers, sessions alike in one sentence."""
    if "confidence_max" not in dataset or "distance_median" not in dataset:
        return []
    names = np.asarray(dataset["session"]).astype(str)
    highest = np.asarray(dataset["confidence_max"].transpose("session", "keypoint"))
    distance = np.asarray(dataset["distance_median"].transpose("session", "keypoint"))
    found: dict[str, list[str]] = {}
    for name, confidences, distances in zip(names, highest, distance, strict=True):
        doubtful = scale_doubts(float(np.fmax.reduce(confidences)))
        body = distances[distances > 0]
        doubtful += body_doubts(float(2 * np.median(body))) if body.size else []
        for text in doubtful:
            found.setdefault(text, []).append(name)
    return [f"{_names(np.asarray(who), len(names))}: {text}" for text, who in found.items()]


def _low(dataset: xr.Dataset) -> list[str]:
    """Warn of sessions in which most of what is tracked is below the threshold."""
    if "low_confidence_fraction" not in dataset or "confidence_count" not in dataset:
        return []
    count = dataset["confidence_count"].transpose("session", "keypoint", "confidence_bin")
    by_session = np.asarray(count).sum(1)
    low = np.asarray(dataset["low_confidence_fraction"].transpose("session", "keypoint"))
    share = np.where(np.isnan(low), 0, low * np.asarray(count).sum(-1)).sum(1)
    is_low = share > _MANY_MISSING * np.maximum(by_session.sum(-1), 1)
    if not is_low.any():
        return []
    names = np.asarray(dataset["session"]).astype(str)
    below = np.cumsum(by_session[is_low].sum(0))
    edges = np.append(dataset["confidence_bin"], dataset["confidence_bin_stop"][-1])
    median, tenth = (edges[np.searchsorted(below, q * below[-1])] for q in (0.5, 0.1))
    value = float(f"{tenth:.1g}") if tenth > 0 else "10%"
    return [
        f"more than half of the confidences of {_names(names[is_low], len(names))} are below "
        f"{dataset.attrs['confidence_threshold']:g} (median about {median:.2g}): if the tracking "
        f"is good, lower the threshold of `kpms_zarr.pca` and `kpms_zarr.quality`, with "
        f"{option('confidence_threshold', value)}"
    ]


def _missing(dataset: xr.Dataset) -> list[str]:
    is_bad = np.asarray(dataset["missing_fraction"].transpose("session", "keypoint"))
    is_bad = is_bad > _MANY_MISSING
    keypoints = np.asarray(dataset["keypoint"]).astype(str)
    sessions = np.asarray(dataset["session"]).astype(str)
    together: dict[bytes, list[int]] = {}
    for point in np.flatnonzero(is_bad.any(0)):
        together.setdefault(is_bad[:, point].tobytes(), []).append(int(point))
    kept = keypoints[~is_bad.any(0)].tolist()
    drop = (
        f"if the model can do without, make the store with {option('keypoints', kept)}"
        if kept
        else "check these recordings, or leave them out"
    )
    return [
        f"{', '.join(keypoints[points])} missing in more than half of the frames of "
        f"{_names(sessions[is_bad[:, points[0]]], len(sessions))}: {drop}"
        for points in together.values()
    ]


def exchanges_of(dataset: xr.Dataset) -> list[tuple[str, str, int, tuple[tuple[int, int], ...]]]:
    """List exchanges of left and right: session, pair, frames, and the longest stretches.

    Stretches are the first frame and the last one, in the order of their frames.
    """
    if "exchanged_frames" not in dataset:
        return []
    found = []
    for session in range(dataset.sizes["session"]):
        for pair in range(dataset.sizes["side_pair"]):
            one = dataset.isel(session=session, side_pair=pair)
            ends = zip(one["exchange_start"].values, one["exchange_stop"].values, strict=True)
            stretches = tuple(sorted((int(a), int(b) - 1) for a, b in ends if a >= 0))
            if stretches:
                number = int(one["exchanged_frames"])
                names = str(one["session"].values), str(one["side_pair"].values)
                found.append((*names, number, stretches))
    return found


def _names(names: np.ndarray, n_sessions: int) -> str:
    if len(names) == n_sessions > 1:
        return f"all {n_sessions} sessions"
    more = " sessions" if len(names) > _NAMES_SHOWN else ""
    return listed(names, _NAMES_SHOWN) + more
