"""Options that are made of declared settings: those of a fit, and those of its budget."""

from __future__ import annotations

import argparse
from collections.abc import Collection, Mapping
from dataclasses import Field
from typing import Any

from kpms_zarr.cli.options import duration, names, scale_or_none, selectors
from kpms_zarr.compute.settings import (
    FLAG,
    FOLDER,
    MODEL,
    NUMBER,
    POSITIVE,
    SIZE,
    Choice,
    NameList,
    Setting,
    settings_of,
)

_KINDS: dict[Any, dict[str, Any]] = {
    FLAG: {"action": argparse.BooleanOptionalAction},
    POSITIVE: {"type": float, "metavar": "X"},
    NUMBER: {"type": float, "metavar": "X"},
    MODEL: {"metavar": "NAME"},
    FOLDER: {"metavar": "DIR"},
    SIZE: {"metavar": "4GB"},
}

COMMON = (
    "stage", "sweeps", "ar_sweeps", "until_settled", "kappa", "target_duration", "from_model",
    "use_keypoints", "fix_heading", "outlier_scale", "latent_dim", "seed", "sessions",
)  # fmt: skip
"""Settings of a fit that users ask for most: the others are listed by ``--help-all``."""


def add_settings(
    command: Any,
    cls: type,
    places: Mapping[str, Any] | None = None,
    without: Collection[str] = (),
    others: Any = None,
) -> None:
    """Add an option for every setting; one that is not given is absent from what is parsed.

    Parameters
    ----------
    cls : type
        With fields that are settings.
    places : mapping of str to group, optional
        Where some of them stand, by name: those that exclude each other.
    without : collection of str
        Names of settings that have no such option.
    others : group, optional
        Where those stand that are seldom changed (default: with the common ones).
    """
    for one, known in settings_of(cls):
        if one.name in without:
            continue
        usual = command if others is None or one.name in COMMON else others
        place = (places or {}).get(one.name, usual)
        place.add_argument(
            "--" + one.name.replace("_", "-"),
            default=argparse.SUPPRESS,
            help=_help(one, known),
            **_kind(one, known),
        )


def given_settings(options: argparse.Namespace, cls: type) -> dict[str, Any]:
    """Return the settings that were typed, by name."""
    return {
        one.name: getattr(options, one.name) for one, _ in settings_of(cls) if one.name in options
    }


def _kind(field: Field[Any], setting: Setting) -> dict[str, Any]:
    check = setting.check
    if isinstance(check, Choice):
        return {"choices": check.words}
    if isinstance(check, NameList) and field.name == "sessions":
        return {"type": selectors, "metavar": "A,B*,group=C"}
    if isinstance(check, NameList):
        return {"type": names, "metavar": "A,B,C"}
    if setting.unit == "ms":
        return {"type": duration, "metavar": "400ms"}
    if setting.none:
        return {"type": scale_or_none, "metavar": "X|none"}
    return _KINDS.get(check, {"type": int, "metavar": "N"})  # the others are whole numbers


def _help(field: Field[Any], setting: Setting) -> str:
    text = setting.text if setting.unit != "ms" else setting.text.replace(", in ms", " (ms or s)")
    if field.default is not None:
        is_long = isinstance(field.default, float)
        text += f" (default: {f'{field.default:g}' if is_long else field.default})"
    return text.replace("%", "%%")
