"""The index of the rows of a table: numbers, or text that ends in a number."""

from __future__ import annotations

import re

import numpy as np

from kpms_zarr.store.parsers.time.clock import Clock, Timing

_NUMBERED = re.compile(rb"(.*?)(\d+)(\.[A-Za-z]\w{0,4})?", re.DOTALL)
# Digits that fit into float64.
_MOST_DIGITS = 15


class RowIndex:
    """Inference of the timing from the index of rows, block after block.

    Parameters
    ----------
    unit, where, first_row
        As of `Clock`.
    stated : str, optional
        Unit of numbers that are known to be times.
    name : str
        What to call it.
    """

    def __init__(
        self,
        *,
        unit: str,
        where: str,
        first_row: int = 1,
        stated: str | None = None,
        name: str = "the row index",
    ) -> None:
        self._name = name
        kind = "time" if stated else "frames"
        self._clock = Clock(
            f"the numbers in {name}",
            kind,  # type: ignore[arg-type]
            unit=unit,
            stated=stated,
            where=where,
            first_row=first_row,
        )
        self._is_text = False
        self._around: tuple[bytes, bytes] | None = None
        self._not_plain = b""

    def add(self, index: np.ndarray) -> None:
        """Look at the next rows: numbers, or text as bytes without blanks around it."""
        if self._not_plain or not len(index):
            return
        if index.dtype.kind != "S":
            self._clock.add(index)
            return
        numbers = self._numbers(index)
        if numbers is None:
            self._not_plain = bytes(index[0]) or b"nothing"
        else:
            self._clock.add(numbers)

    def _numbers(self, cells: np.ndarray) -> np.ndarray | None:
        if self._around is None:
            numbers = _decimal(cells, b"", b"")
            if numbers is None:
                numbers = _any_numbers(cells)
            if numbers is not None:
                return numbers
            match = _NUMBERED.fullmatch(bytes(cells[0]))
            if match is None:
                return None
            self._is_text = True
            self._around = match[1], match[3] or b""
        return _decimal(cells, *self._around)

    def timing(self) -> Timing:
        """Timing by the index; see `Clock`."""
        if self._is_text and not self._not_plain and self._clock.steps_mostly < 1:
            self._not_plain = self._around[0] if self._around else b""  # the same text in all rows
        if not self._not_plain:
            return self._clock.timing()
        name = self._not_plain.decode("utf-8", "replace")[:40]
        return Timing(
            notes=(
                f"{self._name} is text without plain frame numbers (`{name}`): rows are read as "
                "consecutive frames",
            )
        )


def _decimal(cells: np.ndarray, prefix: bytes, suffix: bytes) -> np.ndarray | None:
    """Whole numbers between two texts, float64; None where some are not so."""
    width = cells.dtype.itemsize
    if width == 0:
        return None
    text = np.ascontiguousarray(cells).view(np.uint8).reshape(len(cells), width)
    end = (text != 0).sum(axis=1) - len(suffix)
    n_digits = end - len(prefix)
    if n_digits.min() < 1 or n_digits.max() > _MOST_DIGITS:
        return None
    if not (text[:, : len(prefix)] == np.frombuffer(prefix, np.uint8)).all():
        return None
    if suffix and not np.char.endswith(cells, suffix).all():
        return None
    numbers = np.zeros(len(cells))
    for place in range(len(prefix), int(end.max())):
        is_here = place < end
        digit = text[:, place].astype(np.int16) - ord("0")
        if ((digit < 0) | (digit > 9))[is_here].any():
            return None
        numbers = np.where(is_here, 10 * numbers + digit, numbers)
    return numbers


def _any_numbers(cells: np.ndarray) -> np.ndarray | None:
    """Numbers with signs, points and exponents; NaN for nothing, None where there is text."""
    with np.errstate(all="ignore"):
        try:
            return np.where(cells == b"", b"nan", cells).astype(np.float64)
        except ValueError:
            return None
