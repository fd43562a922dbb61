"""Labels on which fits agree, written as a table or as arrays that `compare` reads, too."""

from __future__ import annotations

import os
import zipfile
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from kpms_zarr.store.errors import InputError
from kpms_zarr.store.replacing import check_place, replaced

_ROWS_AT_ONCE = 500_000
_SUFFIXES = (".csv", ".npz")


class LabelledSession(NamedTuple):
    """Labels of a session.

    Attributes
    ----------
    name : str
    frame : range or ndarray, (frame,) int
        Numbers of its frames.
    values : dict of str to ndarray, (frame,)
        ``syllable`` (-1 = none), and others beside.
    """

    name: str
    frame: range | np.ndarray
    values: dict[str, np.ndarray]


def check_labels_place(out: str | os.PathLike[str], inputs: Iterable[object]) -> None:
    """Refuse a place that cannot hold labels, or that is one of the files they are made of.

    Raises
    ------
    InputError
    """
    path = Path(out)
    if path.suffix.lower() not in _SUFFIXES:
        raise InputError(
            expected="a file whose name ends in .csv or .npz",
            found=repr(path.name),
            where="`out=`",
            fix=f"name it {path.stem or 'consensus'}.csv, a table, or .npz, arrays by session",
        )
    check_place(path, "labels", "consensus.csv")
    if any(
        isinstance(one, str | os.PathLike) and Path(one).resolve() == path.resolve()
        for one in inputs
    ):
        raise InputError(
            expected="a place of its own for what the files agree on",
            found="one of these files",
            where=str(path),
            fix="name another file with `out=`",
        )


def write_labels(out: str | os.PathLike[str], sessions: Iterable[LabelledSession]) -> None:
    """Write labels as a table with a row for each frame, or as arrays by session; in one step.

    csv: the columns ``session``, ``frame`` and those of the values, empty where one is not known.
    npz: the array of labels has the name of the session, what is beside it ``NAME/certainty`` and
    so on; frames have their numbers in ``NAME/frame`` where these are not 0, 1, 2, ...
    """
    path = Path(out)
    with replaced(path) as partial:
        if path.suffix.lower() == ".npz":
            _write_arrays(partial, sessions)
            return
        with partial.open("w", encoding="utf-8", newline="") as file:
            for number, one in enumerate(sessions):
                for start in range(0, max(1, len(one.frame)), _ROWS_AT_ONCE):
                    some = slice(start, start + _ROWS_AT_ONCE)
                    is_first = number == 0 and start == 0
                    _table(one, some).to_csv(
                        file, index=False, header=is_first, float_format="%.4g"
                    )


def _write_arrays(path: Path, sessions: Iterable[LabelledSession]) -> None:
    """Write as numpy.savez does, which takes no session of the name ``file``."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for one in sessions:
            arrays = {one.name: one.values["syllable"]}
            if not isinstance(one.frame, range) or one.frame != range(len(one.frame)):
                arrays[f"{one.name}/frame"] = np.asarray(one.frame)
            others = {name: values for name, values in one.values.items() if name != "syllable"}
            arrays |= {f"{one.name}/{name}": values for name, values in others.items()}
            for name, values in arrays.items():
                with archive.open(f"{name}.npy", "w", force_zip64=True) as file:
                    np.lib.format.write_array(file, values, allow_pickle=False)


def _table(one: LabelledSession, some: slice) -> pd.DataFrame:
    frame = np.asarray(one.frame[some], np.int64)
    values = {name: column[some] for name, column in one.values.items()}
    floats = {n: v.astype(np.float32) if v.dtype == np.float16 else v for n, v in values.items()}
    return pd.DataFrame(
        {"session": np.full(len(frame), one.name, object), "frame": frame, **floats}
    )
