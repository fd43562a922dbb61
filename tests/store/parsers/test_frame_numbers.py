"""Frame numbers and time stamps mean the same in every format that has them."""

from __future__ import annotations

import csv
import importlib.util
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from types import ModuleType

import h5py
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import kpms_zarr
from helpers.amount import examples
from kpms_zarr.store.core import access
from kpms_zarr.store.errors import InputError
from kpms_zarr.store.ingest.loading import filled
from kpms_zarr.store.parsers import recognise
from kpms_zarr.store.parsers.base import ReadOptions

HERE = Path(__file__).resolve().parent
CASES = HERE.parents[2].parent / "shared" / "cases"


@cache
def of(name: str) -> ModuleType:
    """A module of the tests, which are no package."""
    path = HERE / f"test_{name}.py"
    path = path if path.exists() else HERE.parent / path.name
    spec = importlib.util.spec_from_file_location(f"writer_{name}", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


# Before any example is drawn: they have property tests of their own.
for _name in ("parsers", "anipose_csv", "dannce_mat", "nwb", "movement_netcdf"):
    of(_name)


# --- writers: numbers of the rows -> a file, whose x of the first keypoint is 1 + the row --------


def columns_and_values(n):
    columns = of("parsers").columns_of()
    values = np.full((n, len(columns)), 0.5)
    values[:, 0] = 1 + np.arange(n)
    return columns, values


def cell(number, text="{}"):
    """As a csv file has it: whole numbers of frames without a point."""
    return text.format(number if isinstance(number, str) else f"{number:.12g}")


def dlc_csv(folder, numbers, text="{}"):
    columns, values = columns_and_values(len(numbers))
    index = [cell(number, text) for number in numbers]
    return of("parsers").write_csv(folder / "x.csv", columns, values, index=index)


def dlc_fixed(folder, numbers):
    path = of("parsers").write_fixed(folder / "x.h5", *columns_and_values(len(numbers)))
    with h5py.File(path, "r+") as file:
        attrs = dict(file["df_with_missing/axis1"].attrs)
        del file["df_with_missing/axis1"]
        file["df_with_missing/axis1"] = numbers
        file["df_with_missing/axis1"].attrs.update(attrs)
    return path


def dlc_table(folder, numbers):
    whole = np.all(np.asarray(numbers) == np.floor(numbers))
    path = of("parsers").write_table(folder / "x.h5", *columns_and_values(len(numbers)))
    with h5py.File(path, "r+") as file:
        table = file["df_with_missing/table"]
        kinds = [
            (n, "f8" if n == "index" and not whole else table.dtype[n]) for n in table.dtype.names
        ]
        rows = np.zeros(len(table), kinds)
        for name in table.dtype.names:
            rows[name] = numbers if name == "index" else table[name]
        attrs = dict(table.attrs)
        del file["df_with_missing/table"]
        file.create_dataset("df_with_missing/table", data=rows).attrs.update(attrs)
    return path


def anipose(folder, numbers):
    values = np.full((len(numbers), 1, 6), 0.5)
    values[:, 0, 0] = 1 + np.arange(len(numbers))
    fnum = [cell(number) for number in numbers]
    return of("anipose_csv").write(folder / "x.csv", values, ("nose",), fnum=fnum)


def dannce(folder, numbers):
    pred = np.full((len(numbers), 3, 1), 0.5)
    pred[:, 0, 0] = 1 + np.arange(len(numbers))
    arrays = {"pred": pred, "sampleID": np.asarray(numbers, float)[np.newaxis]}
    return of("dannce_mat").write_v73(folder / "x.mat", arrays)


def nwb(folder, numbers):
    position = np.full((len(numbers), 1, 2), 0.5)
    position[:, 0, 0] = 1 + np.arange(len(numbers))
    times = np.asarray(numbers, float)
    return of("nwb").write_nwb(folder / "x.nwb", {"p": (position, None)}, times=times)


def movement(folder, numbers, **attrs):
    data = of("movement_netcdf").poses(len(numbers), 2, 1, ("m",))
    data["position"][:] = 0.5
    data["position"][:, 0, 0, 0] = 1 + np.arange(len(numbers))
    data = data.assign_coords(time=np.asarray(numbers)).assign_attrs(attrs)
    return of("movement_netcdf").write(folder / "x.nc", data)


def movement_seconds(folder, numbers):
    return movement(folder, numbers, time_unit="seconds")


def table(column):
    def write(folder, numbers):
        path = folder / "x.csv"
        with path.open("w", newline="") as file:
            rows = csv.writer(file)
            rows.writerow([column, "nose_x", "nose_y"])
            rows.writerows([cell(n), 1 + row, 0.5] for row, n in enumerate(numbers))
        return path

    return write


NUMBERED: dict[str, tuple[Callable[..., Path], str]] = {
    "dlc csv": (dlc_csv, "auto"),
    "dlc fixed": (dlc_fixed, "auto"),
    "dlc table": (dlc_table, "auto"),
    "anipose": (anipose, "auto"),
    "dannce": (dannce, "frames"),
    "nwb": (nwb, "frames"),
    "movement": (movement, "auto"),
    "table": (table("frame"), "auto"),
}
TIMED: dict[str, tuple[Callable[..., Path], bool]] = {
    # and whether milliseconds and microseconds are recognised without being told
    "dlc csv": (dlc_csv, True),
    "dlc fixed": (dlc_fixed, True),
    "dannce": (dannce, False),
    "nwb": (nwb, True),
    "movement": (movement_seconds, True),
    "table": (table("time"), True),
}


# --- reading ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Read:
    """A track as it goes to the store; `row` is the row of each frame, -1 where none was."""

    first: int
    step: int
    fps: float | None
    row: np.ndarray
    notes: str


def read(path, unit="auto", block_frames=17):
    parser, _ = recognise(path)
    options = ReadOptions(time_unit=unit)
    header = parser.inspect(path, options)
    (track,) = header.tracks
    parts, start = [], 0
    for block in parser.read(path, block_frames, options):
        for frames in filled(block, track.key, track.gaps):
            assert frames.start == start
            parts.append(frames.position[track.key][:, 0, 0])
            start += frames.n_frames
    x = np.concatenate(parts)
    row = np.where(np.isnan(x), 0, x).astype(int) - 1
    return Read(track.first_frame, track.frame_step, track.fps, row, " / ".join(header.notes))


def frames_of(read, frames):
    """What should have been read, rows at these frames of the track."""
    row = np.full(frames[-1] + 1, -1)
    row[frames] = np.arange(len(frames))
    return row


@st.composite
def patterns(draw, longest=2000, least=2):
    """Frames of the track that the rows are: mostly one after another, with some gaps."""
    gaps = draw(st.lists(st.tuples(st.integers(1, 60), st.integers(1, longest)), max_size=4))
    apart = np.ones(draw(st.integers(max(least, 2 + 3 * len(gaps)), 70)) - 1, int)
    for row, n_missing in gaps:
        apart[(row - 1) % len(apart)] = 1 + n_missing
    return np.append(0, np.cumsum(apart))


SOME = settings(
    max_examples=examples(8),
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)


@SOME
@given(
    pattern=patterns(), start=st.integers(2, 10**6), step=st.integers(1, 9), float_=st.booleans()
)
@pytest.mark.parametrize("format", NUMBERED)
def test_frame_numbers__put_rows_at_their_frames(format, pattern, start, step, float_):
    write, unit = NUMBERED[format]
    numbers = start + step * pattern
    with tempfile.TemporaryDirectory() as folder:
        found = read(write(Path(folder), numbers.astype(float) if float_ else numbers), unit)
    assert (found.first, found.step) == (start, step)
    np.testing.assert_array_equal(found.row, frames_of(found, pattern))
    n_missing = pattern[-1] + 1 - len(pattern)
    assert (f"{n_missing:,} frame" in found.notes) == (n_missing > 0)


@SOME
@given(
    pattern=patterns(),
    start=st.integers(0, 90_000),
    text=st.sampled_from(["frame{}", "img{:0>6}.png", "a_1/img {}.jpeg", '"{}"', " {}", "{}.0"]),
)
def test_text_index__is_understood_where_its_numbers_are_plain(pattern, start, text):
    with tempfile.TemporaryDirectory() as folder:
        found = read(dlc_csv(Path(folder), start + pattern, text))
    assert (found.first, found.step) == (start, 1)
    np.testing.assert_array_equal(found.row, frames_of(found, pattern))


@pytest.mark.parametrize(
    "index", [["a"] * 6, ["clip1.mp4"] * 6, ["m1_3", "m2_4", "m3_1", "x", "", "7"]]
)
def test_text_index__that_is_no_number_means_nothing(tmp_path, index):
    found = read(dlc_csv(tmp_path, index))
    assert (found.first, found.step, found.row.tolist()) == (0, 1, [*range(6)])
    assert "without plain frame numbers" in found.notes


@SOME
@given(pattern=patterns(), at=st.integers(1, 10**3), how=st.sampled_from(["twice", "back"]))
@pytest.mark.parametrize("format", [name for name in NUMBERED if name not in ("table", "movement")])
def test_frame_numbers__that_contradict_the_order_are_refused(format, pattern, at, how):
    write, unit = NUMBERED[format]
    numbers, at = 5 + pattern, 1 + at % (len(pattern) - 1)
    numbers[at] = numbers[at - 1] - (how == "back")
    with tempfile.TemporaryDirectory() as folder:
        path = write(Path(folder), numbers)
        with pytest.raises(InputError) as error:
            read(path, unit)
        as_rows = read(path, "rows")
    assert f"frame {numbers[at]} in the row after frame {numbers[at - 1]}" in str(error.value)
    assert "`time_unit='rows'`" in str(error.value)
    assert as_rows.row.tolist() == [*range(len(numbers))]


UNITS = {"s": 1.0, "ms": 1e3, "us": 1e6}


@SOME
@given(
    pattern=patterns(300, least=40),
    fps=st.sampled_from([10.0, 25.0, 29.97, 30.0, 60.0, 120.0]),
    unit=st.sampled_from(sorted(UNITS)),
    jitter=st.floats(0, 0.2),
    start=st.sampled_from([0.0, 3.3, 86_400.0]),
    seed=st.integers(0, 99),
)
@pytest.mark.parametrize("format", TIMED)
def test_time_stamps__put_rows_at_their_frames(format, pattern, fps, unit, jitter, start, seed):
    write, is_recognised = TIMED[format]
    rng = np.random.default_rng(seed)
    late = rng.uniform(-jitter, jitter, len(pattern))
    # No whole numbers: in an index, those are frames.
    times = (start + (pattern + 1 + late) / fps) * UNITS[unit] + 0.3
    with tempfile.TemporaryDirectory() as folder:
        found = read(write(Path(folder), times), "auto" if is_recognised else unit)
    # Both ends of a gap jitter, and the step is known as well as the rows between gaps tell it: of
    # a long gap, nobody knows the frame exactly. The rows around say whether a time stamp is late.
    parts = np.split(pattern, np.flatnonzero(np.diff(pattern) > 3) + 1)
    spread = np.sqrt(sum(np.var(part) * len(part) for part in parts))
    true = np.diff(pattern)
    n_ends = 2 * (1 + (true > 11).sum())
    assert found.fps == pytest.approx(fps, rel=0.003 + n_ends * jitter / len(pattern))
    frames = true + np.convolve(np.where(true > 10, 0, true), np.ones(9), "same")
    uncertain = 2 * jitter + (true > 1) * frames * 4 * jitter / np.sqrt(3) / spread
    apart = np.diff(np.flatnonzero(found.row >= 0))
    assert (np.abs(apart - true) <= np.floor(0.5 + uncertain)).all()
    assert found.row.max() == len(pattern) - 1


@pytest.mark.parametrize("format", TIMED)
def test_time_stamps__that_go_back_are_refused(tmp_path, format):
    times = np.arange(40) / 30
    times[20:] -= 0.5
    with pytest.raises(InputError, match="in the row after") as error:
        read(TIMED[format][0](tmp_path, times))
    assert "the order of the rows says that it is later" in str(error.value)


# --- limits, and what a person says --------------------------------------------------------------


def stored(store):
    data = access.dataset(store, "keypoints").load()
    names = ("first_frame", "frame_step", "n_frames", "fps")
    return tuple(data[name].values.tolist()[0] for name in names), data.position.values[0, :, 0, 0]


@pytest.mark.parametrize("number", [2**40, 2**52, 2**60])
def test_a_corrupt_number__ends_in_a_message(tmp_path, number):
    path = dlc_csv(tmp_path, [str(n) for n in [*range(20), number]])
    for how in ({}, {"max_gap": 2**45}):
        with pytest.raises(InputError) as error:
            kpms_zarr.ingest(tmp_path / "x.zarr", path, **how)
        assert "`time_unit='rows'`" in str(error.value)
    assert not (tmp_path / "x.zarr").exists()


def test_a_long_gap__is_refused_unless_a_person_allows_it(tmp_path):
    path = dlc_csv(tmp_path, [*range(50), *range(36_050, 36_100)])
    with pytest.raises(InputError) as error:
        kpms_zarr.ingest(tmp_path / "x.zarr", path, fps=30)
    assert "at most 10 min missing between two frames, found 36,000 frames (20 min)" in str(
        error.value
    )
    assert "after frame 49" in str(error.value)
    assert "`max_gap='1200s'`" in str(error.value)
    assert "`trim=':50'`" in str(error.value)
    kpms_zarr.ingest(tmp_path / "a.zarr", path, fps=30, max_gap="1200s")
    facts, x = stored(tmp_path / "a.zarr")
    assert facts == (0, 1, 36_100, 30.0)
    assert np.flatnonzero(np.isfinite(x)).tolist() == [*range(50), *range(36_050, 36_100)]
    kpms_zarr.ingest(tmp_path / "b.zarr", path, fps=30, trim=":50")
    assert stored(tmp_path / "b.zarr")[0][2] == 50
    kpms_zarr.ingest(tmp_path / "c.zarr", path, fps=30, time_unit="rows", max_gap=0)
    assert stored(tmp_path / "c.zarr")[0][2] == 100
    other = dlc_csv(tmp_path / "..", range(9)).rename(tmp_path / "other.csv")
    result = kpms_zarr.ingest(tmp_path / "d.zarr", [path, other], fps=30, skip_bad=True)
    assert result.added == ("other",)
    assert [Path(bad).name for bad in result.bad] == ["x.csv"]


@pytest.mark.parametrize("gap", [1, 16_384, 40_000])
def test_gaps__go_together_with_trim_and_downsample(tmp_path, gap):
    numbers = 100 + 3 * np.append(np.arange(30), np.arange(30 + gap, 60 + gap))
    path = dlc_csv(tmp_path, numbers)
    kpms_zarr.ingest(tmp_path / "x.zarr", path, fps=60, trim="5:", downsample=4, max_gap="1000min")
    (first, step, n_frames, fps), x = stored(tmp_path / "x.zarr")
    assert (first, step, fps) == (115, 12, 5.0)
    assert n_frames == -(-(60 + gap - 5) // 4)
    video = first + step * np.arange(n_frames)
    there = np.isin(video, numbers)
    np.testing.assert_array_equal(np.isfinite(x), there)
    np.testing.assert_array_equal(numbers[x[there].astype(int) - 1], video[there])


@pytest.mark.parametrize(("name", "value"), [("time_unit", "weeks"), ("max_gap", "long")])
def test_options__are_checked(tmp_path, name, value):
    with pytest.raises(InputError, match=f"{name}="):
        kpms_zarr.ingest(tmp_path / "x.zarr", dlc_csv(tmp_path, range(5)), **{name: value})


# --- two sources of one fact ---------------------------------------------------------------------


def test_movement__fps_and_times_agree_or_are_both_named(tmp_path):
    every_fifth = read(movement(tmp_path, 2 + np.arange(20) / 10, time_unit="seconds", fps=50.0))
    assert (every_fifth.first, every_fifth.step, every_fifth.fps) == (100, 5, 50)
    assert "one of 5 frames" in every_fifth.notes
    path = movement(tmp_path, np.arange(20) / 30, time_unit="seconds", fps=50.0)
    with pytest.raises(InputError, match="30 frames per second by the coordinate `time`, 50 by"):
        read(path)
    assert (read(path, "rows").fps, read(path, "rows").step) == (50, 1)
    lost = np.delete(np.arange(20), [7, 8])
    found = read(movement(tmp_path, lost / 50, time_unit="seconds", fps=50.0))
    np.testing.assert_array_equal(found.row, frames_of(found, lost))
    of_the_day = read(movement(tmp_path, 1.7e9 + lost / 50, time_unit="seconds", fps=50.0))
    assert of_the_day.first == 0


def write_frames_and_times(path, frames, times):
    rows = [
        f"{f},{t:.6f},{1 + row},0.5" for row, (f, t) in enumerate(zip(frames, times, strict=True))
    ]
    path.write_text("\n".join(["f,t,nose_x,nose_y", *rows]) + "\n")
    return ReadOptions(mapping={"pattern": "{keypoint}_{coord}", "frame": "f", "time": "t"})


def test_table__frames_and_times_agree_or_are_both_named(tmp_path):
    path, frames = tmp_path / "x.csv", np.append(np.arange(30), np.arange(90, 120))
    from kpms_zarr.store.parsers.table.parser import PARSER

    options = write_frames_and_times(path, frames, frames / 30)
    (track,) = PARSER.inspect(path, options).tracks
    assert (track.fps, track.gaps.total, track.gaps.is_filled) == (30, 60, True)
    for ours, theirs in ((frames, np.arange(60)), (np.arange(60), frames)):
        options = write_frames_and_times(path, ours, theirs / 30)
        with pytest.raises(InputError) as error:
            PARSER.inspect(path, options)
        said = [(60 if n is frames else 0) for n in (ours, theirs)]
        assert f"{said[0]} by the numbers in column `f` and {said[1]} by the times in" in str(
            error.value
        )
    as_rows = replace(options, time_unit="rows")
    assert PARSER.inspect(path, as_rows).tracks[0].gaps is None


# --- frame rates -----------------------------------------------------------------------------


@pytest.mark.parametrize(("fps", "likely"), [(0.04, 25), (30_000.0, 30), (29_970.0, 29.97)])
def test_fps_in_a_file__that_no_camera_has_is_a_question(tmp_path, fps, likely):
    path = of("nwb").write_nwb(tmp_path / "x.nwb", {"p": of("nwb").some_poses()}, rate=fps)
    with pytest.raises(InputError, match="as cameras take them") as error:
        kpms_zarr.ingest(tmp_path / "x.zarr", path)
    assert f"`fps={likely}`" in str(error.value)
    assert kpms_zarr.ingest(tmp_path / "x.zarr", path, fps=fps).added == ("x",)
    assert stored(tmp_path / "x.zarr")[0][3] == fps


@pytest.mark.parametrize("how", ["number", "table"])
@pytest.mark.parametrize(("fps", "likely"), [(0.04, 25), (25_000, 25)])
def test_fps_by_a_person__that_no_camera_has_is_a_warning(tmp_path, fps, likely, how):
    path = dlc_csv(tmp_path, range(9))
    result = kpms_zarr.ingest(tmp_path / "x.zarr", path, fps=fps if how == "number" else {"x": fps})
    (note,) = [note for note in result.notes if "`fps=" in note]
    assert f"did you mean {likely}?" in note


def test_fps_by_a_person__goes_before_that_of_the_file_and_says_so(tmp_path):
    path = of("nwb").write_nwb(tmp_path / "x.nwb", {"p": of("nwb").some_poses()}, rate=30.0)
    notes = kpms_zarr.ingest(tmp_path / "x.zarr", path, fps=60).notes
    assert "x: `fps=60` is taken, though the file says 30 frames per second" in notes
    assert not any("`fps=" in n for n in kpms_zarr.ingest(tmp_path / "y.zarr", path, fps=30).notes)


# --- the cases that were reported ------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "facts"),
    [
        ("39_rows_not_consecutive/starts_at_100.csv", (100, 1, 200, 30)),
        ("39_rows_not_consecutive/sixty_rows_missing.csv", (0, 1, 300, 30)),
        ("39_rows_not_consecutive/every_third.csv", (0, 3, 100, 10)),
        ("39_rows_not_consecutive/vidDLC_dlcrnetms5_x_el.h5", (100, 1, 200, 30)),
        ("22_nwb_times/milliseconds.nwb", (0, 1, 200, 30)),
        ("22_nwb_times/one_gap_of_60_frames.nwb", (0, 1, 260, 25)),
        ("22_nwb_times/unix_time.nwb", (0, 1, 200, 30)),
        ("23_movement_netcdf/plural_fps.nc", (0, 1, 200, 50)),
        ("23_movement_netcdf/subsampled_time.nc", (0, 5, 40, 10)),
    ],
)
def test_reported_case__has_its_time(tmp_path, name, facts):
    if not CASES.is_dir():
        pytest.skip("the folder shared/cases is not beside the checkout")
    kpms_zarr.ingest(tmp_path / "x.zarr", CASES / name)
    assert stored(tmp_path / "x.zarr")[0] == facts
