"""The pose formats that can be read: one module a format, and this registry."""

from __future__ import annotations

from pathlib import Path

from kpms_zarr.store.errors import InputError, OtherKindError, Problem
from kpms_zarr.store.parsers import anipose_csv, arrays, dannce_mat, facemap_h5, freipose_json
from kpms_zarr.store.parsers.base import FileHeader, Parser, PoseBlock, TrackHeader
from kpms_zarr.store.parsers.contents import Verdict, content_of
from kpms_zarr.store.parsers.dlc import csv as dlc_csv
from kpms_zarr.store.parsers.dlc import h5 as dlc_h5
from kpms_zarr.store.parsers.movement import netcdf as movement_netcdf
from kpms_zarr.store.parsers.nwb import pose as nwb_pose
from kpms_zarr.store.parsers.sleap import analysis as sleap_h5
from kpms_zarr.store.parsers.sleap import anipose as sleap_anipose_h5
from kpms_zarr.store.parsers.sleap import slp
from kpms_zarr.store.parsers.table import parser as table_parser
from kpms_zarr.store.wording import option

__all__ = [
    "PARSERS",
    "FileHeader",
    "Parser",
    "PoseBlock",
    "TrackHeader",
    "formats",
    "parser_named",
    "recognise",
    "wrong_format",
]

# A new format is a module with a PARSER, and one entry here.
PARSERS: tuple[Parser, ...] = (
    dlc_csv.PARSER,
    dlc_h5.PARSER,
    sleap_h5.PARSER,
    slp.PARSER,
    sleap_anipose_h5.PARSER,
    anipose_csv.PARSER,
    nwb_pose.PARSER,
    movement_netcdf.PARSER,
    dannce_mat.PARSER,
    facemap_h5.PARSER,
    freipose_json.PARSER,
    table_parser.PARSER,
)


def formats() -> tuple[str, ...]:
    """Names of the known formats, as used with ``--format``."""
    return tuple(parser.name for parser in PARSERS)


def parser_named(format: str) -> Parser:
    """The parser of a format by its registry name."""
    return next(parser for parser in (*PARSERS, arrays.PARSER) if parser.name == format)


def wrong_format(format: str) -> list[Problem]:
    """Problem of a name that is that of no format."""
    known = ("auto", *formats())
    fix = "choose a known format, or leave the option out"
    problem = Problem(f"one of {', '.join(known)}", repr(format), "`format=`", fix)
    return [] if format in known else [problem]


def recognise(path: str | Path, format: str = "auto") -> tuple[Parser, str]:
    """Find the parser for a file by its content, or by the name of a format.

    Returns
    -------
    parser : Parser
    reason : str
        Why this parser, in one phrase.

    Raises
    ------
    InputError
        Unknown format name; no such file, a folder or an empty file; no format or
        several formats recognised.
    OtherKindError
        A sound file that is clearly no tracking.
    """
    path = Path(path)
    named = [parser for parser in PARSERS if parser.name == format]
    if problems := wrong_format(format):
        raise InputError.of(problems)
    _check_file(path)
    if named:
        return named[0], f"asked for with {option('format', format)}"
    matches = [(parser, why) for parser in PARSERS if (why := parser.sniff(path)) is not None]
    if len(matches) == 1:
        return matches[0]
    if not matches:
        raise _unrecognised(path)
    raise InputError(
        expected="content that belongs to one format",
        found="; ".join(f"{parser.name} ({why})" for parser, why in matches),
        where=str(path),
        fix="say which one it is: " + " or ".join(option("format", p.name) for p, _ in matches),
    )


def _check_file(path: Path) -> None:
    found = ""
    fix = "check the path and the permissions"
    try:
        size = path.stat().st_size
    except OSError as error:
        found = error.strerror or str(error)
    else:
        if not path.is_file():
            found, fix = "a folder or a special file", "name the pose files in it"
        elif size == 0:
            found, fix = "an empty file", "copy or export it again, or leave it out"
    if found:
        raise InputError(expected="a pose file", found=found, where=str(path), fix=fix)


def _unrecognised(path: Path) -> InputError:
    content = content_of(path)
    error = OtherKindError if content.verdict is Verdict.OTHER else InputError
    return error(
        expected="a tracking file of a format that `help(kpms_zarr.ingest)` names",
        found=content.found,
        where=str(path),
        fix=content.fix,
    )
