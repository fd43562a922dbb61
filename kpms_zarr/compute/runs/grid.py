"""Grid of settings that a scan tries: values of its axes, and their combinations."""

from __future__ import annotations

import itertools
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from kpms_zarr.compute.config import FitConfig
from kpms_zarr.compute.settings import Check, settings_of
from kpms_zarr.store.errors import InputError, Problem

Values = str | float | Sequence[float | str] | None
"""``"A:B:N"``, ``"a,b,c"``, one value, or several."""


@dataclass(frozen=True)
class Axis:
    """One thing that a scan varies.

    Attributes
    ----------
    name : str
        Of the argument.
    setting : str
        Of the fit.
    is_whole : bool
        Whether its values are whole numbers, evenly spread; others are spread evenly in their
        logarithms.
    text : str
        What a value is called, with ``{}`` in its place.
    title : str
        What the axis is called in a picture.
    example : str
    unit : str
        Of its values, where they may have one: ``"ms"``.
    """

    name: str
    setting: str
    is_whole: bool
    text: str
    title: str
    example: str
    unit: str = ""

    @property
    def check(self) -> Check:
        """Check of a value: that of the setting."""
        return next(
            known.check for one, known in settings_of(FitConfig) if one.name == self.setting
        )


AXES = (
    # What is compiled anew for each of its values comes first, so that it is compiled once.
    Axis("latent_dim", "latent_dim", True, "latent dims {}", "latent dims", "3:8"),
    Axis("lags", "lags", True, "lags {}", "lags (frames)", "1,2,3"),
    Axis("innovation_scale", "innovation_scale", False, "innovation scale {}",
         "innovation scale S0", "0.01:1:3"),
    Axis("innovation_dof", "innovation_dof", True, "innovation dof {}",
         "innovation degrees of freedom", "2,50"),
    Axis("target_durations", "target_duration", False, "{} ms", "target duration (ms)",
         "200ms:800ms:5", "ms"),
    Axis("kappa", "kappa", False, "kappa {}", "kappa", "1e3:1e7:5"),
)  # fmt: skip


@dataclass(frozen=True)
class Point:
    """Settings that a scan tries.

    Attributes
    ----------
    settings : dict
        By their names in ``FitConfig``.
    label : str
        In words.
    """

    settings: dict[str, Any]
    label: str


@dataclass(frozen=True)
class ScanGrid:
    """All points of a scan.

    Attributes
    ----------
    values : dict
        Of each axis, smallest first, by the name of the axis.
    points : tuple of Point
        All combinations; what is compiled together lies together.
    """

    values: dict[str, tuple[Any, ...]]
    points: tuple[Point, ...]

    @property
    def axes(self) -> tuple[Axis, ...]:
        """Axes with more than one value; all of them where none has."""
        axes = tuple(axis for axis in AXES if axis.name in self.values)
        return tuple(axis for axis in axes if len(self.values[axis.name]) > 1) or axes

    def coordinates(self) -> dict[str, np.ndarray]:
        """Settings and words by point, (point,) each, as the store has them."""
        found: dict[str, np.ndarray] = {
            "label": np.asarray([point.label for point in self.points], dtype=object)
        }
        for axis in AXES:
            if axis.name in self.values:
                column = [point.settings[axis.setting] for point in self.points]
                found[axis.setting] = np.asarray(column, np.int64 if axis.is_whole else np.float64)
        return found


def grid_of(given: Mapping[str, Values]) -> ScanGrid:
    """Make the grid of what was given for each axis.

    Raises
    ------
    InputError
        With all that is wrong: no axis, ranges that cannot be read, values that no fit takes.
    """
    values: dict[str, tuple[Any, ...]] = {}
    problems: list[Problem] = []
    for axis in AXES:
        if given.get(axis.name) is None:
            continue
        try:
            values[axis.name] = values_of(axis, given[axis.name])
        except InputError as error:
            problems += error.problems
    if not (values or problems):
        problems.append(
            Problem(
                "what to vary: " + ", ".join(f"`{axis.name}=`" for axis in AXES),
                "none of them",
                "scan",
                "give a range, such as `target_durations='200ms:800ms:5'` or `kappa='1e3:1e7:5'`",
            )
        )
    if {"target_durations", "kappa"} <= values.keys():
        problems.append(
            Problem(
                "one of `target_durations=` and `kappa=`",
                "both, but a target duration is reached by changing kappa",
                "scan",
                "scan one after the other, each under a `name=` of its own",
            )
        )
    if problems:
        raise InputError.of(problems)
    axes = [axis for axis in AXES if axis.name in values]
    combinations = itertools.product(*(values[axis.name] for axis in axes))
    named = {axis.name for axis in axes if len(values[axis.name]) > 1} or set(values)
    return ScanGrid(values, tuple(_point(axes, chosen, named) for chosen in combinations))


def _point(axes: Sequence[Axis], chosen: Sequence[Any], named: Collection[str]) -> Point:
    """Point with some values of the axes; ``named``: axes that its label names."""
    pairs = list(zip(axes, chosen, strict=True))
    texts = [axis.text.format(f"{value:g}") for axis, value in pairs if axis.name in named]
    return Point({axis.setting: value for axis, value in pairs}, ", ".join(texts))


def values_of(axis: Axis, given: Values) -> tuple[Any, ...]:
    """Values of an axis, smallest first, each once.

    Parameters
    ----------
    given : str, number or sequence
        ``"A:B:N"``: N values from A to B, evenly spread, in their logarithms unless whole numbers
        (rounded to three digits); ``"A:B"``: all whole numbers from A to B; ``"a,b,c"``.

    Raises
    ------
    InputError
        In the words of the argument.
    """
    try:
        if isinstance(given, str):
            found = _parsed(axis, given)
        elif isinstance(given, Sequence | np.ndarray):
            found = [_number(axis, one) for one in given]
        else:
            found = [_number(axis, given)]
    except ValueError as error:
        raise _refused(axis, given, str(error)) from None
    wrong = [value for value in found if not axis.check.holds(value)]
    if wrong or not found:
        raise _refused(axis, given, f"{wrong[0]:g}" if wrong else "none")
    return tuple(sorted(set(found)))


def _refused(axis: Axis, given: Values, found: str) -> InputError:
    what = axis.check.expected.removeprefix("a ").replace("number", "numbers", 1)
    unit = f" in {axis.unit}" if axis.unit else ""
    in_all = f" in {given!r}" if isinstance(given, str) and found != repr(given) else ""
    return InputError(
        expected=f"{what}{unit}: a range FROM:TO:NUMBER, or values separated by commas",
        found=f"{found}{in_all}",
        where=f"`{axis.name}=`",
        fix=f"give for example `{axis.name}={axis.example!r}`",
    )


def _parsed(axis: Axis, text: str) -> list[Any]:
    """Values of a text; a ValueError says what was found where that is none."""
    if ":" not in text:
        return [_number(axis, part) for part in text.split(",")]
    first, last, *count = text.strip().split(":")
    if len(count) > 1:
        raise ValueError(repr(text))
    low, high = _ends(axis, first, last)
    if not low < high:
        raise ValueError(f"a range that does not grow, from {low:g} to {high:g},")
    if not count and axis.is_whole:
        return list(range(low, high + 1))
    if not count or not re.fullmatch(r"\s*\d+\s*", count[0]) or int(count[0]) < 2:
        raise ValueError("a range without a number of values of 2 or more")
    if axis.is_whole:
        return [round(value) for value in np.linspace(low, high, int(count[0]))]
    if low <= 0:
        raise ValueError(f"{low:g}")
    return [float(f"{value:.3g}") for value in np.geomspace(low, high, int(count[0]))]


def _ends(axis: Axis, first: str, last: str) -> tuple[Any, Any]:
    """Ends of a range; a unit that one has is that of the other as well."""
    if axis.unit and not _unit(first) and _unit(last):
        first += _unit(last)
    if axis.unit and _unit(first) and not _unit(last):
        last += _unit(first)
    return _number(axis, first), _number(axis, last)


def _unit(text: str) -> str:
    found = re.search(r"(ms|s)\s*$", text)
    return found[1] if found else ""


def _number(axis: Axis, given: Any) -> Any:
    """One value; durations in ms."""
    factor, text = 1.0, given
    if isinstance(given, str):
        unit = _unit(given) if axis.unit else ""
        text = given.strip().removesuffix(unit)
        factor = 1000.0 if unit == "s" else 1.0
    try:
        value = float(text) * factor
    except (TypeError, ValueError):
        raise ValueError(repr(given)) from None
    if isinstance(given, bool) or not np.isfinite(value):
        raise ValueError(repr(given))
    return int(value) if axis.is_whole and value == int(value) else value
