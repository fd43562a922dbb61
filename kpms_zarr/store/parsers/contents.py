"""Diagnosis of a file that no parser recognises: of another kind, damaged, or doubtful.

The line between what may be left out of a folder with a note and what must be a problem:

- *another kind*: sound as far as can be seen, and clearly no tracking: a table without coordinates
  (of sessions, of measures), a model's results, settings, a MATLAB file without poses;
- *tracking*: holds tracking that cannot be read from here, such as an archive with csv files;
- *doubtful*: all else. Files that break off, pointers to files that are elsewhere, files in use by
  another program, tables with coordinates that are not understood. Whoever wrote such a file under
  the suffix of a tracking file may miss it later.
"""

from __future__ import annotations

import csv
import io
import itertools
import json
import re
import zipfile
import zlib
from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import h5py

from kpms_zarr.store.errors import InputError, readable
from kpms_zarr.store.parsers import mat5
from kpms_zarr.store.parsers.base import shortened, some
from kpms_zarr.store.parsers.dlc import h5 as dlc_h5
from kpms_zarr.store.parsers.hdf5 import reading as hdf5
from kpms_zarr.store.parsers.table import files as table_files
from kpms_zarr.store.parsers.text import dialect

_BEGINNING_BYTES = 65_536
_MOST_JSON_BYTES = 20_000_000
_MOST_OBJECTS = 2_000
_AGAIN = "copy or export it again"
_MAYBE = "check that this is a pose file; if it is, name its format with `format=`"
_UNPACK = "unpack it, and name what was in it"


class Verdict(Enum):
    """Whether a file may hold tracking."""

    OTHER = "another kind"
    TRACKING = "tracking"
    DOUBTFUL = "doubtful"


@dataclass(frozen=True)
class Content:
    """Diagnosis: what a file holds, what to do about it, and whether it may be tracking."""

    found: str
    fix: str
    verdict: Verdict = Verdict.DOUBTFUL


_KNOWN_NAMES = (("learning_stats*.csv", "losses of a network in training"),)
"""Of files that do not say what they are: the columns of this one have no names."""


def content_of(path: Path) -> Content:
    """Look at a file that no parser recognises. Never raises."""
    try:
        with path.open("rb") as raw:
            start = raw.read(_BEGINNING_BYTES)
    except OSError as error:
        return _unopened(error)
    if known := next((what for name, what in _KNOWN_NAMES if fnmatch(path.name, name)), ""):
        return Content(known, _MAYBE, Verdict.OTHER)
    try:
        return _by_signature(path, start) or _text_content(path, start)
    except InputError as error:
        return Content(f"one that cannot be opened ({error.problems[0].found})", _AGAIN)
    except (*hdf5.DAMAGE, zlib.error, zipfile.BadZipFile, csv.Error, RecursionError) as error:
        return Content(f"one that cannot be read ({error})", _AGAIN)


def _unopened(error: OSError) -> Content:
    if isinstance(error, PermissionError):
        fix = "close the program that has it open; check that you may read it"
    else:
        fix = "check the path and the permissions"
    return Content(f"one that cannot be opened ({error.strerror or error})", fix)


# ------------------------------------------------------------------ by the first bytes

_SIGNATURES: tuple[tuple[bytes, str, str], ...] = (
    (
        b"version https://git-lfs.github.com/",
        "a pointer of Git LFS; the file itself was not downloaded",
        "fetch it: git lfs pull, in the repository",
    ),
    (b"BZh", "a bzip2 archive", f"{_UNPACK}: bunzip2"),
    (b"\xfd7zXZ", "an xz archive", f"{_UNPACK}: unxz"),
    (b"\x28\xb5\x2f\xfd", "a zstd archive", f"{_UNPACK}: unzstd"),
    (b"7z\xbc\xaf\x27\x1c", "a 7z archive", _UNPACK),
    (b"Rar!", "a rar archive", _UNPACK),
    (b"\xd0\xcf\x11\xe0", "a document of an old Office, such as xls", "save the table as csv"),
    (b"%PDF", "a PDF document", _MAYBE),
    (b"\x89PNG", "an image", _MAYBE),
    (b"\xff\xd8\xff", "an image", _MAYBE),
    (b"GIF8", "an image", _MAYBE),
    (b"RIFF", "a video or a sound", "name the tracking of the video, not the video"),
    (b"\x1aE\xdf\xa3", "a video", "name the tracking of the video, not the video"),
    (b"SQLite format 3", "a database", _MAYBE),
    (
        b"\x00\x05\x16\x07",
        "what macOS notes beside a file on foreign disks",
        "name the file without `._` in front",
    ),
)
_HDF5 = b"\x89HDF\r\n\x1a\n"
_HDF5_PLACES = (0, 512, 1024, 2048)
_ANNEX = re.compile(rb"^[./\\]*(?:.*/)?annex/objects/")
_WEB = re.compile(rb"\s*<(?:!doctype\s+html|html|head|body)", re.IGNORECASE)


def _by_signature(path: Path, start: bytes) -> Content | None:
    if start.startswith(b"\x1f\x8b"):
        return _gzip_content(path)
    for signature, found, fix in _SIGNATURES:
        if start.startswith(signature):
            return Content(found, fix)
    if start[4:8] == b"ftyp":
        return Content("a video", "name the tracking of the video, not the video")
    if start[257:262] == b"ustar":
        return Content("a tar archive", f"{_UNPACK}: tar xf")
    if _ANNEX.match(start[:2000]):
        return Content(
            "a pointer of git-annex; the file itself is elsewhere",
            "fetch it: git annex get, in the repository",
        )
    if _WEB.match(start):
        return Content(
            "a web page saved in place of the file",
            "download the file itself (on GitHub: the button Raw), or log in before",
        )
    if start.startswith((b"PK\x03\x04", b"PK\x05\x06")):
        return _zip_content(path)
    if not start.strip(b"\0"):
        return Content("nothing but zero bytes: it was never written to its end", _AGAIN)
    if any(start[at : at + len(_HDF5)] == _HDF5 for at in _HDF5_PLACES):
        return _hdf5_content(path)
    if start[124:128] in (b"\x00\x01IM", b"\x01\x00MI"):
        return _mat_content(path)
    if start.startswith(b"PAR1"):
        return _parquet_content(path)
    if start.startswith(b"CDF") and start[3:4] in b"\x01\x02\x05":
        return Content("netCDF without position, space and time", _MAYBE)
    return None


def _gzip_content(path: Path) -> Content:
    found = dialect.dialect_of(path)
    if found.problem is not None:
        return Content(f"a gzip archive, {found.problem.found}", found.problem.fix)
    with dialect.unpacked(path, is_packed=True) as raw:
        start = raw.read(_BEGINNING_BYTES)
    if found.is_text:
        return _text_content(path, start)
    return Content("a gzip archive", f"{_UNPACK}: gunzip")


def _zip_content(path: Path) -> Content:
    with zipfile.ZipFile(path) as archive:
        names = [name for name in archive.namelist() if not name.endswith("/")]
        if "xl/workbook.xml" in names:
            return _workbook_content(archive, names)
    inside = [name for name in names if has_tracking_suffix(Path(name).name)]
    if inside:
        return Content(f"a zip archive with {some(inside, 2)} in it", _UNPACK, Verdict.TRACKING)
    return Content(f"a zip archive with {some(names, 2) or 'nothing'} in it", _UNPACK)


def _workbook_content(archive: zipfile.ZipFile, names: list[str]) -> Content:
    """A spreadsheet holds tracking when the words of DeepLabCut's header are in it."""
    found, fix = "an Excel workbook", "save its table as csv (UTF-8)"
    parts = [n for n in names if re.fullmatch(r"xl/(sharedStrings|worksheets/sheet1)\.xml", n)]
    for part in parts:
        with archive.open(part) as file:
            text = file.read(_BEGINNING_BYTES)
        if b"bodyparts" in text or b"likelihood" in text:
            return Content(f"{found} with tracking in it", fix, Verdict.TRACKING)
    return Content(found, fix)


# ------------------------------------------------------------------ HDF5, MATLAB, parquet

# Names of groups and datasets that only files with poses have, complete or not.
_POSE_NAMES = frozenset({
    "tracks", "track_names", "track_occupancy", "node_names", "edge_names", "point_scores",
    "instance_scores", "instances", "pred_points", "points", "frames", "poseestimation", "pose",
    "poses", "position", "positions", "keypoint", "keypoints", "bodypart", "bodyparts", "facemap",
    "coords", "coordinates", "df_with_missing", "likelihood", "pred", "p_max", "x", "y", "z",
    "xyz", "trx", "joints", "landmarks",
})  # fmt: skip


def _hdf5_content(path: Path) -> Content:
    try:
        with hdf5.opened(path) as file:
            keys = some([str(key) for key in itertools.islice(file, 8)], 8)
            names = {name.rpartition("/")[2].lower() for name in _names_in(file)}
            is_nwb = "nwb_version" in file.attrs
            pose = sorted(names & _POSE_NAMES)
            is_pandas = any(name.startswith(("axis0", "block0", "_i_table")) for name in names)
    except InputError as error:
        found = error.problems[0].found
        if re.search(r"unable to lock|resource temporarily|being used by another", found.lower()):
            return Content(
                "one that another program holds open for writing",
                "close that program or wait until it has finished, or copy the file",
            )
        if at := re.search(r"truncated file: eof = (\d+), .*stored_eof = (\d+)", found):
            sizes = f"{int(at[1]):,} of {int(at[2]):,} bytes"
            return Content(f"an HDF5 file that is cut off ({sizes})", _AGAIN)
        return Content(found, _AGAIN)
    if not keys:
        return Content("HDF5 with nothing in it: it was never written to its end", _AGAIN)
    if "syllable" in names:
        return Content("syllables, the results of a model", _MAYBE, Verdict.OTHER)
    if "model_snapshots" in names:
        return Content("a checkpoint of a model", _MAYBE, Verdict.OTHER)
    if "model_weights" in names:
        return Content("the weights of a neural network", _MAYBE, Verdict.OTHER)
    if is_nwb:
        return Content("NWB without PoseEstimation", _MAYBE, Verdict.OTHER)
    if is_pandas:
        dlc_h5.tables_in(path)  # raises where their columns cannot be read
        return Content(f"pandas tables {keys} without x and y", _MAYBE, Verdict.OTHER)
    return Content(f"HDF5 with {keys}", _MAYBE, Verdict.DOUBTFUL if pose else Verdict.OTHER)


def _names_in(group: h5py.Group) -> list[str]:
    """Names of what is below a group, up to a number of them; what is damaged raises."""
    found: list[str] = []

    def see(name: str, item: Any) -> bool | None:
        found.append(name)
        if isinstance(item, h5py.Dataset):
            hdf5.check_size(item, name)
        return True if len(found) >= _MOST_OBJECTS else None

    group.visititems(see)
    return found


def _mat_content(path: Path) -> Content:
    try:
        names = [variable.name for variable in mat5.variables(path)]
    except (*hdf5.DAMAGE, zlib.error) as error:
        return Content(f"a MATLAB file that breaks off or is damaged ({error})", _AGAIN)
    is_pose = any(name.lower() in _POSE_NAMES for name in names)
    verdict = Verdict.OTHER if names and not is_pose else Verdict.DOUBTFUL
    return Content(f"a MATLAB file with {some(names) or 'nothing in it'}", _MAYBE, verdict)


def _parquet_content(path: Path) -> Content:
    if not table_files.is_parquet(path):
        return Content("a parquet file that breaks off", _AGAIN)
    try:
        names = table_files.sniffed_names(path)
    except Exception as error:  # pyarrow has many kinds of its own
        return Content(f"a parquet file that is damaged ({error})", _AGAIN)
    return _table_content(names, "a parquet table")


# ------------------------------------------------------------------ text

_HEADER_WORDS = frozenset({
    "scorer", "bodyparts", "bodypart", "coords", "individuals", "likelihood", "x", "y", "z",
})  # fmt: skip
_MARKS = ((b"\xff\xfe", "utf-16"), (b"\xfe\xff", "utf-16"), (b"\xef\xbb\xbf", "utf-8-sig"))
_NUMBER = re.compile(r"[-+]?[\d.,:eE+TZ -]+|nan|", re.IGNORECASE)


def _text_content(path: Path, start: bytes) -> Content:
    encoding = next((name for mark, name in _MARKS if start.startswith(mark)), "utf-8")
    text = start.decode(encoding, "ignore")
    lines = text.splitlines()
    is_text = "\0" not in text and sum(not (c.isprintable() or c in "\t\r\n") for c in text) < 3
    if not (lines and is_text and len(text) >= len(start) // 3):
        return Content("unknown binary content", _MAYBE)
    if text.lstrip()[:1] in ("{", "["):
        return _json_content(path)
    if text.lstrip().startswith("<?xml"):
        return Content("an XML document", _MAYBE)
    first = lines[0] if len(lines[0]) <= 60 else f"{lines[0][:57]}..."
    beginning = Content(f"text beginning with {readable(first)!r}", _MAYBE)
    if len(start) == _BEGINNING_BYTES:
        lines = lines[:-1]  # which may be half a line
    return _rows_content(lines) or (
        beginning if encoding != "utf-16" else Content(f"UTF-16 {beginning.found}", _SAVE)
    )


_SAVE = "save it as csv in UTF-8, with commas between the fields"


def _rows_content(lines: list[str]) -> Content | None:
    """Describe a table in text, if it is one."""
    lines = [line for line in lines[:50] if line.strip()]
    if not lines:
        return None
    delimiter = max(",;\t", key=lines[0].count)
    rows = list(csv.reader(lines, delimiter=delimiter))
    if len(rows[0]) == 1:
        is_column = len(rows) > 2 and all(_NUMBER.fullmatch(row[0].strip()) for row in rows[1:])
        return Content("one column of numbers", _MAYBE, Verdict.OTHER) if is_column else None
    second = {cell.strip().lower() for cell in rows[1]} if len(rows) > 1 else set()
    if {"length", "orientation"} <= second:
        found = "lengths and angles of bones (DeepLabCut's analyzeskeleton)"
        return Content(found, _MAYBE, Verdict.OTHER)
    words = {cell.strip().lower() for row in rows[:4] for cell in row}
    header = [cell.strip() for cell in rows[0]]
    is_header = sum(bool(_NUMBER.fullmatch(name)) for name in header) <= 1
    if not is_header or any(len(row) != len(header) for row in rows):
        return None
    if words & _HEADER_WORDS and not _is_results(header):
        return None
    return _table_content(header, "a table")


def _is_results(names: Iterable[str]) -> bool:
    return any(name.strip().lower().startswith("syllable") for name in names)


def _table_content(names: list[str], what: str) -> Content:
    if _is_results(names):
        return Content("syllables, the results of a model", _MAYBE, Verdict.OTHER)
    columns = some([shortened(readable(name), 40) for name in names if name], 4)
    found = f"{what} with the columns {columns}"
    if has_coordinates(names):
        fix = "if it is tracking, say with `mapping=` what its columns hold"
        return Content(found, fix)
    return Content(found, _MAYBE, Verdict.OTHER)


def has_coordinates(names: Iterable[str]) -> bool:
    """Whether two columns are named alike but for an x in one where the other has a y."""
    known = {name.strip().lower() for name in names}
    return any(
        f"{name[: at.start()]}y{name[at.end() :]}" in known
        for name in known
        for at in re.finditer("x", name)
    )


# ------------------------------------------------------------------ JSON

_POSE_KEYS = re.compile(
    "keypoint|bodypart|landmark|joint|coord|xyz|^pose|position|people|annotation|bbox|boxes|^[xy]$",
    re.IGNORECASE,
)
_FEWEST_NUMBERS = 6
"""Under one name, to be poses; settings have fewer."""


def _json_content(path: Path) -> Content:
    if path.stat().st_size > _MOST_JSON_BYTES:
        return Content("a large JSON file without the poses of a known format", _MAYBE)
    text = path.read_text(encoding="utf-8-sig", errors="replace")
    try:
        found: Any = json.loads(text)
    except ValueError as error:
        try:  # one object a line
            found = [json.loads(line) for line in io.StringIO(text) if line.strip()]
        except ValueError:
            return Content(f"JSON that breaks off or is damaged ({error})", _AGAIN)
    first = found[0] if isinstance(found, list) and found else found
    keys = f"the keys {some(list(first), 4)}" if isinstance(first, dict) else "a list"
    verdict = Verdict.DOUBTFUL if _has_poses(found) else Verdict.OTHER
    return Content(f"JSON with {keys if first else 'nothing in it'}", _MAYBE, verdict)


def _has_poses(value: Any, name: str = "") -> bool:
    if isinstance(value, dict):
        return any(_has_poses(part, str(key)) for key, part in value.items())
    if not isinstance(value, list):
        return False
    if _POSE_KEYS.search(name) and _n_numbers(value) >= _FEWEST_NUMBERS:
        return True
    # A list of lists of numbers without a name is as good as poses.
    if not name and value and isinstance(value[0], list):
        return _n_numbers(value) >= _FEWEST_NUMBERS
    return any(_has_poses(part, name) for part in value)


def _n_numbers(value: Any) -> int:
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, list):
        return sum(_n_numbers(part) for part in value)
    return isinstance(value, int | float) and not isinstance(value, bool)


# ------------------------------------------------------------------ by name

TRACKING_SUFFIXES = frozenset({
    ".csv", ".tsv", ".h5", ".hdf5", ".hdf", ".slp", ".nwb", ".nc", ".nc4", ".mat", ".json",
    ".parquet", ".pq",
})  # fmt: skip
"""Of the files that the formats are written to."""
_PACKED = frozenset({
    ".gz", ".bz2", ".xz", ".zst",
})  # fmt: skip
_UNFINISHED = frozenset({
    ".part", ".partial", ".crdownload", ".filepart", ".download",
})  # fmt: skip
_BACKUPS = frozenset({".bak", ".old", ".orig", ".tmp"})
_OTHER_SUFFIXES = frozenset({
    ".mp4", ".avi", ".mov", ".mkv", ".m4v", ".wmv", ".mpg", ".mpeg", ".webm", ".ts", ".h264",
    ".h265", ".seq", ".ufmf", ".tif", ".tiff", ".png", ".jpg", ".jpeg", ".gif", ".bmp", ".svg",
    ".pdf", ".eps", ".wav", ".mp3", ".flac", ".pickle", ".pkl", ".p", ".npy", ".npz", ".yaml",
    ".yml", ".toml", ".ini", ".cfg", ".py", ".ipynb", ".m", ".r", ".sh", ".bat", ".ps1", ".md",
    ".rst", ".html", ".log", ".doc", ".docx", ".ppt", ".pptx", ".pt", ".pth", ".onnx", ".pb",
    ".ckpt", ".index", ".meta", ".tfrecord",
})  # fmt: skip


def is_unfinished(name: str) -> bool:
    """Whether a browser or a copying program names files so that have not arrived yet."""
    return Path(name).suffix.lower() in _UNFINISHED


def has_tracking_suffix(name: str) -> bool:
    """Whether files with poses have such names, packed or half downloaded ones included."""
    suffixes = [suffix.lower() for suffix in Path(name).suffixes[-2:]]
    if suffixes and suffixes[-1] in _PACKED | _UNFINISHED:
        suffixes.pop()
    return bool(suffixes) and suffixes[-1] in TRACKING_SUFFIXES


def is_other_by_name(name: str) -> str:
    """Describe a file whose name alone says that it holds no poses; "" for all others."""
    if name.startswith("~$"):
        return "a lock of Office, beside a file that is open or was"
    suffix = Path(name).suffix.lower()
    if suffix in _BACKUPS or name.endswith("~"):
        return "a backup of another file"
    return f"a {suffix} file" if suffix in _OTHER_SUFFIXES else ""
