"""Decimal numbers in text, very many at once, with NumPy alone.

A cell of text such as ``-123.45678901234567`` is looked at as three words of eight characters, and
all cells together go through the same few operations on whole words. NumPy lets other threads run
meanwhile, so several ranges of a file can be read at the same time.
"""

from __future__ import annotations

import numpy as np

MARGIN = 32
"""Bytes that have to follow the last cell."""

# Cells that go through the operations together: their arrays stay in the cache, and are small
# enough for the memory to be used again rather than given back to the system every time.
_BATCH = 16_384
# As many are faster read one by one, by who calls this.
_FEW = 50
_WORDS = 3
_LONGEST = 8 * _WORDS
_U = np.uint64

# The same character, or the same bit, in all eight bytes of a word.
_ZEROS = _U(0x3030303030303030)
# A dot after the zeros were taken off.
_DOTS = _U(0x1E1E1E1E1E1E1E1E)
_LOW_BITS = _U(0x0101010101010101)
_HIGH_BITS = _U(0x8080808080808080)
# Takes a byte above 9 to 128 or more.
_ABOVE_NINE = _U(0x7676767676767676)

_PAIRS = _U(0x000000FF000000FF)
_HUNDREDS = _U(100 + (1_000_000 << 32))
_ONES = _U(1 + (10_000 << 32))
_TEN_TO_8 = _U(100_000_000)

# By number of digits: which of the bytes of each word hold them.
_DIGIT_BYTES = tuple(
    np.array(
        [(1 << 8 * min(max(n - 8 * word, 0), 8)) - 1 for n in range(_LONGEST + 2)], dtype=np.uint64
    )
    for word in range(_WORDS)
)
# By number of digits before the dot: what 16 digits without a dot are to be multiplied with.
_SCALE = np.array([10.0 ** (n - 16) for n in range(9)])
_LARGEST_EXPONENT = 99
_POWERS = np.array([float(f"1e{n}") for n in range(-_LARGEST_EXPONENT, _LARGEST_EXPONENT + 1)])

# The first 16 digits are looked at. With so many of them after the leading zeros, a value is
# right to 1e-11, or 2**17 steps of float64, which are 2**-12 steps of float32: it rounds to the
# right float32 unless it is that near to the middle between two of them.
_ENOUGH = _U(100_000_000_000)
_UNCERTAIN_STEPS = 2**17
_STEPS_TO_MIDDLE = 2**28
_SMALLEST_NORMAL = float(np.finfo(np.float32).smallest_normal)


def read(text: np.ndarray, starts: np.ndarray, ends: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Numbers of many cells.

    Parameters
    ----------
    text : ndarray, uint8
        The characters, with `MARGIN` more after the last cell.
    starts, ends : ndarray, (cell,) int
        Where each cell begins, and where the character after it is.

    Returns
    -------
    values : ndarray, (cell,) float64
        They round to the same float32 as what ``float`` gives. NaN for empty cells and "nan".
    odd : ndarray of int
        Numbers of the cells that were not read, increasing: not plain numbers, or too long, or
        too near to the middle of two float32.
    """
    filled = np.flatnonzero(ends > starts)
    if len(filled) == len(starts):
        return _filled(text, starts, ends)
    values = np.full(len(starts), np.nan)
    values[filled], odd = _filled(text, starts[filled], ends[filled])
    return values, filled[odd]


def _filled(
    text: np.ndarray, starts: np.ndarray, ends: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    values = np.empty(len(starts))
    right = np.empty(len(starts), dtype=bool)
    for first in range(0, len(starts), _BATCH):
        batch = slice(first, first + _BATCH)
        values[batch], right[batch] = _plain(text, starts[batch], ends[batch])
    right &= _rounds(values)
    odd = np.flatnonzero(~right)
    if len(odd) > _FEW:
        values[odd], right = _scientific(text, starts[odd], ends[odd])
        odd = odd[~right]
    return values, odd


def _plain(text: np.ndarray, starts: np.ndarray, ends: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Cells like -12.5 and 7, and which of them are such."""
    negative = text[starts] == ord("-")
    some_negative = bool(negative.any())
    if some_negative:
        starts = starts + negative
    length = ends - starts
    np.minimum(length, _LONGEST + 1, out=length)
    first, second, third = _words(text, starts)

    before_dot, bytes_before = _first_dot(first)
    has_dot = before_dot < np.minimum(length, 8)
    right = has_dot | (length <= 8)
    right &= length <= _LONGEST
    n_digits = length - has_dot
    right &= n_digits > 0

    # The digits without the dot: what follows it moves one byte to the left, over three words.
    moved = first >> _U(8)
    moved |= second << _U(56)
    first ^= moved
    first &= bytes_before
    first ^= moved
    second >>= _U(8)
    second |= third << _U(56)
    third >>= _U(8)

    wrong = np.zeros(len(starts), dtype=np.uint64)
    for word, bytes_used in zip((first, second, third), _DIGIT_BYTES, strict=True):
        word &= bytes_used[n_digits]
        wrong |= word
        wrong |= word + _ABOVE_NINE
    wrong &= _HIGH_BITS
    right &= wrong == 0
    digits = _eight_digits(first)
    digits *= _TEN_TO_8
    digits += _eight_digits(second)
    right &= (n_digits <= 16) | (digits >= _ENOUGH)
    values = digits.astype(np.float64)
    values *= _SCALE[np.minimum(before_dot, length)]
    if some_negative:
        np.negative(values, out=values, where=negative)
    return values, right


def _words(text: np.ndarray, starts: np.ndarray) -> tuple[np.ndarray, ...]:
    """Three times eight characters from each start, "0" as 0."""
    cells = np.ndarray((len(text) - _LONGEST,), f"S{_LONGEST}", text, strides=(1,))
    words = cells[starts].view(np.uint64).reshape(-1, _WORDS)
    return tuple(words[:, word] ^ _ZEROS for word in range(_WORDS))


def _first_dot(word: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Number of characters before the first dot, 8 without one; and a mask of their bytes."""
    dots = word ^ _DOTS
    # The lowest high bit that is left marks the first byte of zeros, that is, the first dot.
    bits = dots - _LOW_BITS
    np.invert(dots, out=dots)
    bits &= dots
    bits &= _HIGH_BITS
    np.negative(bits, out=dots)
    bits &= dots
    bits >>= _U(7)
    bits -= _U(1)
    count = np.bitwise_count(bits)
    count >>= 3
    return count, bits


def _eight_digits(word: np.ndarray) -> np.ndarray:
    """Value of eight digits, the first one in the lowest byte: pairs, then fours, then eight."""
    pairs = word * _U(10)
    pairs += word >> _U(8)
    value = pairs & _PAIRS
    value *= _HUNDREDS
    pairs >>= _U(16)
    pairs &= _PAIRS
    pairs *= _ONES
    value += pairs
    value >>= _U(32)
    return value


def _rounds(values: np.ndarray) -> np.ndarray:
    """Which values are far enough from the middle between two float32."""
    steps = values.view(np.int64) & (2 * _STEPS_TO_MIDDLE - 1)
    steps -= _STEPS_TO_MIDDLE
    np.abs(steps, out=steps)
    return steps > _UNCERTAIN_STEPS


def _scientific(
    text: np.ndarray, starts: np.ndarray, ends: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Cells like 1.5e-05, as Python writes them, and "nan"; and which of them are such."""
    tail = text[ends[:, None] + np.arange(-4, 0)]
    tens, ones = (tail[:, digit] - np.uint8(ord("0")) for digit in (2, 3))
    is_minus = tail[:, 1] == ord("-")
    right = (tail[:, 0] | 0x20) == ord("e")
    right &= is_minus | (tail[:, 1] == ord("+"))
    right &= (tens <= 9) & (ones <= 9) & (ends - starts > 4)
    values, plain = _plain(text, starts, np.where(right, ends - 4, starts))
    exponent = np.where(right, 10 * tens.astype(np.int64) + ones, 0)
    values *= _POWERS[_LARGEST_EXPONENT + np.where(is_minus, -exponent, exponent)]
    size = np.abs(values)
    right &= plain & _rounds(values) & ((size > 2 * _SMALLEST_NORMAL) | (size == 0))
    is_nan = ((tail[:, 1:] | 0x20) == np.frombuffer(b"nan", np.uint8)).all(axis=1)
    is_nan &= ends - starts == 3
    values[is_nan] = np.nan
    return values, right | is_nan
