"""Rows of each table, made of blocks and counts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from kpms_zarr.compute.analysis.tables.bout_counts import EpochCounts
from kpms_zarr.compute.analysis.tables.bout_stream import EpochBouts, FrameBlock
from kpms_zarr.compute.analysis.tables.posed_labels import PosedLabels
from kpms_zarr.compute.analysis.tables.study_rows import EpochSession, StudyRows
from kpms_zarr.compute.analysis.tables.syllable_statistics import QUANTILES, jensen_shannon
from kpms_zarr.compute.analysis.tables.syllable_table import epoch_statistics
from kpms_zarr.compute.analysis.tables.table_files import Coded, TableWriter

_TIME_DIGITS = 6
_UNITS = {
    "mean_duration": "_ms", "median_duration": "_ms",
    "mean_speed": "_units_per_s", "std_speed": "_units_per_s",
    "mean_turning": "_rad_per_s", "mean_absolute_turning": "_rad_per_s",
    "turning_circular_std": "_rad", "mean_heading": "_rad",
}  # fmt: skip
"""Endings of columns of statistics."""


def _rounded(seconds: np.ndarray) -> np.ndarray:
    """Round times in s to the microsecond."""
    return np.asarray(np.round(seconds, _TIME_DIGITS))


def write_frames(
    writer: TableWriter, rows: StudyRows, one: EpochSession, frames: FrameBlock, labels: PosedLabels
) -> None:
    """Write the frames of a block that are in an epoch."""
    is_in = np.flatnonzero(frames.epoch >= 0)
    frame, syllable = frames.start + is_in, frames.syllable[is_in]
    time = one.times.at(frames.start, frames.start + frames.n_frames)
    found: dict[str, Any] = {
        **_key(rows, one, frames.epoch[is_in]),
        "frame": frame,
        "time_s": _rounded(time[is_in]),
        "video_frame": one.first_frame + one.frame_step * frame,
        "syllable": syllable,
    }
    if labels.family is not None:
        found["family"] = np.append(labels.family, -1)[syllable]
    if frames.certainty is not None:
        found["certainty"] = frames.certainty[is_in]
    if frames.centroid is not None and frames.speed is not None:
        found["centroid_x_units"] = frames.centroid[is_in, 0]
        found["centroid_y_units"] = frames.centroid[is_in, 1]
        if frames.centroid.shape[1] > 2:
            found["height_units"] = frames.centroid[is_in, 2]
        found["speed_units_per_s"] = frames.speed[is_in]
    if frames.heading is not None and frames.turning is not None:
        found["heading_rad"] = frames.heading[is_in]
        velocity = frames.turning * one.session.fps
        velocity = velocity if frames.step is None else velocity / frames.step
        found["angular_velocity_rad_per_s"] = velocity[is_in]
    single = {column.name for column in writer.columns if column.kind == "float32"}
    writer.write({n: v.astype(np.float32) if n in single else v for n, v in found.items()})


def write_bouts(writer: TableWriter, rows: StudyRows, one: EpochSession, bouts: EpochBouts) -> None:
    """Write the bouts that end in a block."""
    times = one.times
    writer.write(
        {
            **_key(rows, one, bouts.epoch),
            "syllable": bouts.syllable,
            "onset_frame": bouts.start,
            "offset_frame": bouts.stop,
            "onset_s": _rounded(times.of(bouts.start)),
            "offset_s": _rounded(times.of(bouts.stop)),
            "duration_s": _rounded(times.elapsed(bouts.start, bouts.stop)),
            "mean_certainty": bouts.certainty,
            "previous_syllable": bouts.previous,
            "next_syllable": bouts.following,
        }
    )


def write_counts(
    writers: Mapping[str, TableWriter],
    rows: StudyRows,
    one: EpochSession,
    counts: EpochCounts,
    states: Mapping[str, np.ndarray],
) -> None:
    """Write what is known of a session as a whole: epochs, syllables, transitions, n-grams."""
    statistics = epoch_statistics(counts, one.times)
    if "epochs" in writers:
        _write_epochs(writers["epochs"], rows, one, statistics)
    if "syllables" in writers:
        _write_syllables(writers["syllables"], rows, one, statistics, states)
    if "transitions" in writers:
        _write_transitions(writers["transitions"], rows, one, counts)
    if "ngrams" in writers:
        _write_ngrams(writers["ngrams"], rows, one, counts)


def write_distances(
    writer: TableWriter, rows: StudyRows, n_frames: np.ndarray, n_bouts: np.ndarray
) -> None:
    """Write the distance of each two rows.

    Parameters
    ----------
    n_frames, n_bouts : ndarray, (row, state) int
    """
    sessions = rows.coordinates["session"].tolist()
    epochs = rows.coordinates["epoch"].tolist()
    for row in range(rows.n_rows - 1):
        others = np.arange(row + 1, rows.n_rows)
        same = np.full(len(others), row)
        writer.write(
            {
                "session_a": Coded(same, sessions),
                "epoch_a": Coded(same, epochs),
                "session_b": Coded(others, sessions),
                "epoch_b": Coded(others, epochs),
                "jensen_shannon_by_frames": jensen_shannon(n_frames[row], n_frames[others]),
                "jensen_shannon_by_bouts": jensen_shannon(n_bouts[row], n_bouts[others]),
            }
        )


def _key(rows: StudyRows, one: EpochSession, epoch: np.ndarray) -> dict[str, Coded]:
    """Key of rows of a session by the numbers of their epochs."""
    of = slice(one.first, one.first + len(one.epochs.names))
    return {
        "session": Coded(np.zeros(len(epoch), np.int64), [one.session.name]),
        "epoch": Coded(epoch, one.epochs.names),
        "condition": Coded(epoch, rows.coordinates["condition"][of].tolist()),
    }


def _write_epochs(
    writer: TableWriter, rows: StudyRows, one: EpochSession, statistics: Mapping[str, np.ndarray]
) -> None:
    epoch = np.arange(len(one.epochs.names))
    length = np.zeros(len(epoch), np.int64)
    np.add.at(length, one.epochs.epoch, one.epochs.stop - one.epochs.start)
    found: dict[str, Any] = {
        **_key(rows, one, epoch),
        **_coordinates(writer, rows, one, epoch),
        "n_frames": length,
        "duration_s": _rounded(_durations(one, length)),
        "n_labelled_frames": statistics["n_frames"].sum(-1),
        "n_bouts": statistics["n_bouts"].sum(-1),
        "n_syllables": (statistics["n_frames"] > 0).sum(-1),
        "entropy_by_frames_bits": statistics["entropy"],
        "entropy_by_bouts_bits": statistics["entropy_by_bouts"],
        "effective_number": 2 ** statistics["entropy"],
        "entropy_rate_bits_per_transition": statistics["entropy_rate"],
        "n_transitions": statistics["n_transitions"],
    }
    writer.write(found)


def _durations(one: EpochSession, length: np.ndarray) -> np.ndarray:
    """Time that the frames of each epoch take, s."""
    if not one.times.is_given:
        return np.asarray(length / one.session.fps)
    found = np.zeros(len(length))
    elapsed = one.times.elapsed(one.epochs.start, one.epochs.stop)
    np.add.at(found, one.epochs.epoch, elapsed)
    return found


def _coordinates(
    writer: TableWriter, rows: StudyRows, one: EpochSession, epoch: np.ndarray
) -> dict[str, np.ndarray]:
    """What people said of a session, by epoch."""
    names = {column.name for column in writer.columns} & rows.coordinates.keys()
    return {
        name: rows.coordinates[name][one.first + epoch]
        for name in names - {"session", "epoch", "condition"}
    }


def _write_syllables(
    writer: TableWriter,
    rows: StudyRows,
    one: EpochSession,
    statistics: Mapping[str, np.ndarray],
    states: Mapping[str, np.ndarray],
) -> None:
    epoch, state = np.nonzero(statistics["n_frames"])
    quantiles = statistics["duration_quantile"][epoch, state]
    found: dict[str, Any] = {
        **_key(rows, one, epoch),
        **_coordinates(writer, rows, one, epoch),
        "syllable": state,
        **{name: values[state] for name, values in states.items()},
        **{
            f"{name}{_UNITS.get(name, '')}": values[epoch, state]
            for name, values in statistics.items()
            if values.ndim == 2
        },
        **{
            f"duration_q{100 * share:02.0f}_ms": quantiles[:, place]
            for place, share in enumerate(QUANTILES)
        },
    }
    writer.write(found)


def _write_transitions(
    writer: TableWriter, rows: StudyRows, one: EpochSession, counts: EpochCounts
) -> None:
    epoch, state, following, number = counts.sparse_transitions()
    shape = counts.n_frames.shape
    total, out, into = np.zeros(shape[0]), np.zeros(shape), np.zeros(shape)
    np.add.at(total, epoch, number)
    np.add.at(out, (epoch, state), number)
    np.add.at(into, (epoch, following), number)
    writer.write(
        {
            **_key(rows, one, epoch),
            "syllable": state,
            "next_syllable": following,
            "count": number,
            "bigram": number / total[epoch],
            "row": number / out[epoch, state],
            "column": number / into[epoch, following],
        }
    )


def _write_ngrams(
    writer: TableWriter, rows: StudyRows, one: EpochSession, counts: EpochCounts
) -> None:
    base = max(1, counts.n_states)
    for n, found in counts.ngrams.items():
        epoch, code = np.divmod(found.key, base**n)
        digits = [code // base**place % base for place in range(n - 1, -1, -1)]
        total = np.zeros(len(one.epochs.names))
        np.add.at(total, epoch, found.number)
        writer.write(
            {
                **_key(rows, one, epoch),
                "n": np.full(len(epoch), n),
                "syllables": _joined(digits),
                "count": found.number,
                "share": found.number / total[epoch],
            }
        )


def _joined(digits: Sequence[np.ndarray]) -> np.ndarray:
    """Join numbers by -: ``3-5-7``."""
    found = digits[0].astype(str).astype(object)
    for one in digits[1:]:
        found = found + "-" + one.astype(str).astype(object)
    return np.asarray(found)
