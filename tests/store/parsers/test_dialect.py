"""Tables in text of every dialect say the same as the plain file, or are refused with a reason."""

from __future__ import annotations

import csv
import gzip
import io
import itertools
import tracemalloc

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import kpms_zarr
from helpers.amount import examples
from kpms_zarr.store.errors import InputError
from kpms_zarr.store.parsers import recognise
from kpms_zarr.store.parsers.text import dialect, plain_text
from kpms_zarr.store.parsers.text.dialect import dialect_of
from kpms_zarr.store.parsers.text.plain_text import plain_bytes
from kpms_zarr.store.parsers.text.rows import MISSING

MISSING_WORDS = (
    "", "NaN", "nan", "NA", "N/A", "#N/A", "null", "None", "-", "inf", "-inf", " ", "#NV", "n/a",
)  # fmt: skip
KEYPOINTS = ("nose", "ear L", "tail")


# --- a small recording, written as a table ------------------------------------------------------


def recording(seed=0, n_frames=9, n_space=2):
    """Positions (frame, keypoint, space) and confidences (frame, keypoint)."""
    rng = np.random.default_rng(seed)
    position = np.round(rng.uniform(-5, 900, (n_frames, len(KEYPOINTS), n_space)), 3)
    position[rng.random(position.shape[:2]) < 0.2] = np.nan
    position[0] = np.round(rng.uniform(1, 900, position.shape[1:]), 3) + 0.0005
    confidence = np.round(rng.uniform(0.01, 1, position.shape[:2]), 4)
    return position, confidence


def table(kind, position, confidence, names=KEYPOINTS):
    """Header rows of text, and rows of numbers with the index in front."""
    numbers = np.concatenate([position, confidence[..., np.newaxis]], axis=-1)
    coords = ("x", "y", "z")[: position.shape[-1]]
    parts = [name for name in names for _ in range(numbers.shape[-1])]
    rows = [[i, *row] for i, row in enumerate(numbers.reshape(len(numbers), -1).tolist())]
    many = len(names)
    if kind == "single":
        words = [*coords, "likelihood"] * many
        return [["scorer", *["DLC"] * len(parts)], ["bodyparts", *parts], ["coords", *words]], rows
    if kind == "multi":
        words = [*coords, "likelihood"] * many
        header = [["scorer", *["DLC"] * len(parts)], ["individuals", *["mouse"] * len(parts)]]
        return [*header, ["bodyparts", *parts], ["coords", *words]], rows
    if kind == "anipose":
        words = [f"{name}_{coord}" for name in names for coord in (*coords, "score")]
        errors = [f"{name}_error" for name in names]
        return [["fnum", *words, *errors]], [[*row, *[0.5] * len(errors)] for row in rows]
    if kind == "wide":
        words = [f"{name}_{coord}" for name in names for coord in (*coords, "confidence")]
        return [["frame", *words]], rows
    header = [["frame", "keypoint", *coords, "confidence"]]
    each = itertools.product(range(len(numbers)), range(many))
    return header, [[i, names[k], *numbers[i, k].tolist()] for i, k in each]


def cell_of(value, style, word):
    """A cell as a program writes it."""
    if isinstance(value, str | int):
        return str(value)
    if value != value:
        return word
    text = f"{value:.12E}" if style["is_scientific"] else repr(value)
    return text.replace(".", style["decimal"])


def written(header, rows, style):
    """Bytes of the file in a dialect."""
    words = itertools.cycle(style["missing"])
    lines = [list(row) for row in header]
    lines += [[cell_of(value, style, next(words)) for value in row] for row in rows]
    width = len(lines[-1])
    at = len(header) + 1
    lines[at:at] = [[""] * width] * style["n_inner_rows"]
    lines = [[*line, *[""] * style["n_empty_columns"]] for line in lines]
    lines += [[""] * (width + style["n_empty_columns"])] * style["n_empty_rows"]
    out = io.StringIO()
    quoting = csv.QUOTE_ALL if style["is_quoted"] else csv.QUOTE_MINIMAL
    writer = csv.writer(
        out, delimiter=style["delimiter"], lineterminator=style["end"], quoting=quoting
    )
    if style["says_sep"]:
        out.write(f"sep={style['delimiter']}{style['end']}")
    writer.writerows(lines)
    data = out.getvalue().encode(style["encoding"])
    return gzip.compress(data) if style["is_packed"] else data


PLAIN = {
    "delimiter": ",", "decimal": ".", "encoding": "utf-8", "end": "\n", "is_quoted": False,
    "missing": ("",), "is_scientific": False, "n_empty_columns": 0, "n_empty_rows": 0,
    "is_packed": False, "says_sep": False, "n_inner_rows": 0,
}  # fmt: skip
STYLES = st.fixed_dictionaries({
    "delimiter": st.sampled_from([",", ";", "\t"]),
    "decimal": st.sampled_from([".", ","]),
    "encoding": st.sampled_from(
        ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32"]
    ),
    "end": st.sampled_from(["\n", "\r\n", "\r"]),
    "is_quoted": st.booleans(),
    "missing": st.lists(st.sampled_from(MISSING_WORDS), min_size=1, max_size=4).map(tuple),
    "is_scientific": st.booleans(),
    "n_empty_columns": st.integers(0, 2),
    "n_empty_rows": st.integers(0, 3),
    "n_inner_rows": st.integers(0, 2),
    "is_packed": st.booleans(),
    "says_sep": st.booleans(),
})  # fmt: skip


def read(path, block_frames=4):
    """Format, positions, confidences and names of the keypoints of a file; its notes."""
    parser, _ = recognise(path)
    header = parser.inspect(path)
    (track,) = header.tracks
    blocks = list(parser.read(path, block_frames))
    position = np.concatenate([block.position[track.key] for block in blocks])
    confidence = np.concatenate([block.confidence[track.key] for block in blocks])
    return (parser.name, track.keypoints, position, confidence), header.notes


def assert_same(found, want):
    assert found[:2] == want[:2]
    np.testing.assert_array_equal(found[2], want[2])
    np.testing.assert_array_equal(found[3], want[3])


def write(folder, data, name="a.csv"):
    path = folder / name
    path.write_bytes(data if isinstance(data, bytes) else data.encode())
    return path


@settings(
    max_examples=examples(60),
    deadline=None,
    suppress_health_check=[HealthCheck.data_too_large],
)
@given(
    st.sampled_from(["single", "multi", "anipose", "wide", "long"]),
    STYLES,
    st.booleans(),
    st.integers(0, 99),
)
def test_table_in_any_dialect__says_what_the_plain_file_says(
    tmp_path_factory, kind, style, has_index, seed
):
    folder = tmp_path_factory.getbasetemp()
    position, confidence = recording(seed, n_space=3 if kind == "anipose" else 2)
    header, rows = table(kind, position, confidence)
    if not has_index and kind in ("single", "wide"):
        style = style | {"n_inner_rows": 0}
        header, rows = ([row[1:] for row in lines] for lines in (header, rows))
    want, _ = read(write(folder, written(header, rows, PLAIN)))
    np.testing.assert_array_equal(want[2], position.astype(np.float32))
    found, notes = read(write(folder, written(header, rows, style), "b.csv"))
    n_frames = len(position)
    assert_same((*found[:2], found[2][:n_frames], found[3][:n_frames]), want)
    # Without an index, frames in which nothing was found look like rows of nothing.
    n_more = 0 if has_index or kind not in ("single", "wide") else style["n_empty_rows"]
    assert len(found[2]) == n_frames + n_more
    assert np.isnan(found[2][n_frames:]).all()
    assert any("at the end" in note for note in notes) is (style["n_empty_rows"] > 0)
    is_said = any(note.endswith("but separators") for note in notes if "at the end" not in note)
    assert is_said is (style["n_inner_rows"] > 0)


@pytest.mark.parametrize("kind", ["single", "multi", "anipose", "wide", "long"])
def test_words_for_missing__are_the_same_in_all_formats(tmp_path, kind):
    position, confidence = recording(n_space=3 if kind == "anipose" else 2)
    confidence[np.isnan(position).any(-1)] = np.nan
    header, rows = table(kind, position, confidence)
    for word in (*MISSING, "nan", "NaN", "NAN"):
        found, _ = read(write(tmp_path, written(header, rows, PLAIN | {"missing": (word,)})))
        np.testing.assert_array_equal(found[2], position.astype(np.float32), err_msg=word)
        np.testing.assert_array_equal(found[3], confidence.astype(np.float32), err_msg=word)
    with pytest.raises(InputError, match="expected a number or an empty cell"):
        read(write(tmp_path, written(header, rows, PLAIN | {"missing": ("lost",)})))


@pytest.mark.parametrize("block_bytes", [1, 7, 64, 1000])
@pytest.mark.parametrize("style", [
    {"delimiter": ";", "decimal": ",", "end": "\r\n", "n_empty_rows": 2},
    {"delimiter": "\t", "encoding": "utf-16", "end": "\r\n", "is_packed": True},
    {"n_inner_rows": 3, "n_empty_rows": 1},
])  # fmt: skip
def test_plain_text__is_the_same_in_blocks_of_any_size_and_after_going_back(
    tmp_path, monkeypatch, block_bytes, style
):
    header, rows = table("single", *recording())
    # What has to be decoded gets line feeds.
    keys = ("delimiter", "decimal") if "encoding" in style else ("delimiter", "decimal", "end")
    kept = {key: style[key] for key in keys if key in style}
    plain = written(header, rows, PLAIN | kept)
    path = write(tmp_path, written(header, rows, PLAIN | style))
    monkeypatch.setattr(plain_text, "_BLOCK_BYTES", block_bytes)
    monkeypatch.setattr(dialect, "_BLOCK_BYTES", block_bytes)
    found = dialect_of(path)
    assert found.n_inner_blank_rows == style.get("n_inner_rows", 0)
    with plain_bytes(path, found.for_rows(are_counted=True, n_header=len(header))) as file:
        assert file.read(100) == plain[:100]
        file.seek(40)
        assert file.read().rstrip(b"\r\n") == plain[40:].rstrip(b"\r\n")
        file.seek(7)
        assert (file.tell(), file.read(9)) == (7, plain[7:16])


# --- what cannot be read in one way -------------------------------------------------------------


@pytest.mark.parametrize(
    ("data", "words"),
    [
        ("frame;a_x;a_y\n0;1.234,5;2,5\n", ["thousands", "`1.234,5`", "Excel", "to_csv"]),
        ('frame,a_x,a_y\n0,"1,234.5",2.5\n', ["thousands", "`1,234.5`"]),
        ("frame;a_x;a_y\n0;1 234,5;2,5\n", ["thousands", "`1 234,5`"]),
        ("frame;a_x;a_y\n0;1'234.5;2.5\n", ["thousands"]),
        ("frame;a_x;a_y\n0;1.5;2,5\n", ["`2,5`", "`1.5`", "one decimal mark"]),
    ],
)
def test_numbers_that_can_be_read_in_two_ways__are_refused(tmp_path, data, words):
    with pytest.raises(InputError) as caught:
        read(write(tmp_path, data))
    assert all(word in str(caught.value) for word in words), str(caught.value)


@pytest.mark.parametrize("late", ["1.234,5;2,5", "1.234;2,5", "1,234.5;2,5"])
def test_numbers_with_thousands_far_below__are_refused_with_their_row(tmp_path, late):
    rows = "".join(f"{n};{n},5;1,5\n" for n in range(9000))
    path = write(tmp_path, f"frame;a_x;a_y\n{rows}9000;{late}\n")
    with pytest.raises(InputError, match=r"row 9002(.|\n)*1234\.5"):
        read(path)


@pytest.mark.parametrize("block_bytes", [7, 262_144])
def test_decimal_commas_that_come_late__are_read(tmp_path, monkeypatch, block_bytes):
    monkeypatch.setattr(dialect, "_BLOCK_BYTES", block_bytes)
    rows = "".join(f"{n};;;\n" for n in range(30_000)) + "30000;1,5;-2,5e1;1\n"
    found, _ = read(write(tmp_path, f"frame;a_x;a_y;a_p\n{rows}"))
    np.testing.assert_array_equal(found[2][-1], [[1.5, -25]])


# --- gzip ---------------------------------------------------------------------------------------


def test_gzip__is_told_by_content_and_names_the_session_without_its_suffix(tmp_path):
    header, rows = table("single", *recording())
    data = written(header, rows, PLAIN | {"is_packed": True})
    (tmp_path / "in").mkdir()
    write(tmp_path / "in", data, "day1.csv.gz")
    write(tmp_path / "in", written(header, rows[:5], PLAIN | {"is_packed": True}), "day2.csv")
    kpms_zarr.ingest(tmp_path / "s.zarr", tmp_path / "in", fps=30)
    stored = xr.open_zarr(tmp_path / "s.zarr", group="keypoints", consolidated=False)
    assert stored["session"].values.tolist() == ["day1", "day2"]


@pytest.mark.parametrize("lost", [1, 8, 9, 500, -1])
def test_gzip__cut_off_or_damaged__is_refused(tmp_path, lost):
    header, rows = table("single", *recording(n_frames=3000))
    data = written(header, rows, PLAIN | {"is_packed": True})
    flipped = data[:3000] + bytes([data[3000] ^ 255]) + data[3001:]
    data = data[:-lost] if lost > 0 else flipped
    with pytest.raises(InputError, match=r"gzip archive.* one that is (cut off|damaged)"):
        read(write(tmp_path, data, "a.csv.gz"))


def test_gzip__of_other_things__is_refused_with_what_to_do(tmp_path):
    with pytest.raises(InputError, match="gunzip"):
        read(write(tmp_path, gzip.compress(b"\0\1\2" * 99), "a.h5.gz"))
    with pytest.raises(InputError, match="the columns `mouse`, `dose`"):
        read(write(tmp_path, gzip.compress(b"mouse,dose\nm1,2\n"), "a.csv.gz"))


def test_long_packed_and_translated_file__is_read_in_bounded_memory(tmp_path):
    header, rows = table("single", *recording(n_frames=100_000))
    style = PLAIN | {"delimiter": ";", "decimal": ",", "is_packed": True}
    path = write(tmp_path, written(header, rows, style))
    read(path)
    tracemalloc.start()
    with plain_bytes(path, dialect_of(path)) as file:
        n_bytes = sum(len(block) for block in iter(lambda: file.read(100_000), b""))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert n_bytes > 6_000_000
    assert peak < 4_500_000


# --- what pandas makes of DeepLabCut's files ------------------------------------------------------


RESAVED = {
    "default index": lambda path: pd.read_csv(path, header=[0, 1, 2]).to_csv(),
    "twice": lambda path: pd.read_csv(
        io.StringIO(pd.read_csv(path, header=[0, 1, 2]).to_csv()), header=[0, 1, 2]
    ).to_csv(),
    "twice, one header row": lambda path: pd.read_csv(
        io.StringIO(pd.read_csv(path).to_csv())
    ).to_csv(),
    "index_col=0": lambda path: pd.read_csv(path, header=[0, 1, 2], index_col=0).to_csv(),
    "no index": lambda path: pd.read_csv(path, header=[0, 1, 2]).to_csv(index=False),
    "index lost": lambda path: pd.read_csv(path, header=[0, 1, 2], index_col=0).to_csv(index=False),
    "one header row": lambda path: pd.read_csv(path).to_csv(),
    "one header row, no index": lambda path: pd.read_csv(path).to_csv(index=False),
    "second row as header": lambda path: pd.read_csv(path, header=1).to_csv(),
    "second row as header, no index": lambda path: pd.read_csv(path, header=1).to_csv(index=False),
    "scorer dropped": lambda path: (
        pd.read_csv(path, header=[0, 1, 2], index_col=0).droplevel(0, axis=1).to_csv()
    ),
    "scorer dropped, index lost": lambda path: (
        pd.read_csv(path, header=[0, 1, 2], index_col=0).droplevel(0, axis=1).to_csv(index=False)
    ),
    "scorer skipped": lambda path: pd.read_csv(path, header=[1, 2]).to_csv(),
    "flattened": lambda path: flattened(path, "_").to_csv(),
    "flattened, no index": lambda path: flattened(path, "_").to_csv(index=False),
    "flattened with blanks": lambda path: flattened(path, " ").to_csv(),
    "flattened with points": lambda path: flattened(path, ".").to_csv(index=False, sep=";"),
}


def flattened(path, between):
    frame = pd.read_csv(path, header=[0, 1, 2], index_col=0).droplevel(0, axis=1)
    frame.columns = [between.join(column) for column in frame.columns]
    return frame


@pytest.mark.parametrize("how", RESAVED)
@pytest.mark.parametrize("first", [0, 100])
def test_saved_again_by_pandas__is_the_same_recording(tmp_path, how, first):
    header, rows = table("single", *recording())
    rows = [[first + row[0], *row[1:]] for row in rows]
    path = write(tmp_path, written(header, rows, PLAIN))
    (_, *want), _ = read(path)
    again = write(tmp_path, RESAVED[how](path), "again.csv")
    (_, *found), _ = read(again)
    assert found[0] == want[0]
    np.testing.assert_array_equal(found[1], want[1])
    np.testing.assert_array_equal(found[2], want[2])
    if "lost" not in how and "flattened" not in how:
        parser, _ = recognise(again)
        assert parser.inspect(again).tracks[0].first_frame == first


@pytest.mark.parametrize("how", ["default index", "index_col=0", "scorer dropped"])
def test_several_animals_saved_again_by_pandas__are_the_same(tmp_path, how):
    header, rows = table("multi", *recording())
    path = write(tmp_path, written(header, rows, PLAIN))
    frame = pd.read_csv(path, header=[0, 1, 2, 3], index_col=None if "default" in how else 0)
    if "dropped" in how:
        frame = frame.droplevel(0, axis=1)
    assert_same(read(write(tmp_path, frame.to_csv(), "again.csv"))[0], read(path)[0])


def test_keypoints_that_end_in_numbers__keep_them(tmp_path):
    header, rows = table("single", *recording(), names=("tail", "tail.1", "tail.2"))
    found, _ = read(write(tmp_path, written(header, rows, PLAIN)))
    assert found[1] == ("tail", "tail.1", "tail.2")
