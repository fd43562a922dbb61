"""Where the chain's state lies changes no bit of it: host memory, scratch files, the device."""

from __future__ import annotations

import os
import threading
from contextlib import ExitStack, closing, nullcontext

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import kpms_zarr
from helpers.amount import examples
from kpms_zarr.compute.config import HOMES
from kpms_zarr.compute.errors import OutOfMemoryError
from kpms_zarr.compute.sampler import placement
from kpms_zarr.compute.sampler.chain import NO_STATE, Chain, ChainIndex
from kpms_zarr.compute.sampler.placement import (
    ColumnView,
    DeviceRows,
    DiskRows,
    HostRows,
    make_rows,
)
from kpms_zarr.compute.sampler.stream import is_out_of_memory
from kpms_zarr.store.core.access import Session

N_ROWS, N_COLUMNS, N_SEGMENTS, WIDTH = 23, 5, 4, 7
SHAPES = ((N_ROWS,), (N_ROWS, N_COLUMNS))
DTYPES = ("float32", "float64", "int16")


def bits(rng: np.random.Generator, dtype: str, shape: tuple[int, ...]) -> np.ndarray:
    """Values of all kinds: of the smallest and the largest, -0, infinite, NaN."""
    if dtype == "int16":
        return rng.integers(-(2**15), 2**15, shape, dtype=np.int16)
    values = rng.normal(size=shape) * 10.0 ** rng.integers(-30, 30, shape)
    special = np.array([0.0, -0.0, np.nan, np.inf, -np.inf, 1e-40, 5e-324, 1 / 3])
    return np.where(rng.random(shape) < 0.3, rng.choice(special, shape), values).astype(dtype)


def assert_same_bits(found: object, expected: np.ndarray) -> None:
    found = np.asarray(found)
    assert (found.dtype, found.shape) == (expected.dtype, expected.shape)
    assert found.tobytes() == expected.tobytes()


def spans_of(draw, most: int = N_SEGMENTS) -> tuple[np.ndarray, np.ndarray]:
    """Begin and end of up to ``most`` segments that do not overlap, some of them empty."""
    cuts = sorted(draw(st.lists(st.integers(0, N_ROWS), min_size=2 * most, max_size=2 * most)))
    spans = np.array(cuts, np.int64).reshape(most, 2)
    spans[:, 1] = np.minimum(spans[:, 1], spans[:, 0] + WIDTH)
    spans = spans[: draw(st.integers(0, most))]
    return spans[:, 0], spans[:, 1]


@st.composite
def steps(draw) -> tuple[str, tuple[object, ...]]:
    """One thing that is done to an array."""
    kind = draw(st.sampled_from(["set", "set all", "put", "get", "gather", "take"]))
    if kind in ("set", "get"):
        start, stop = sorted((draw(st.integers(0, N_ROWS + 2)), draw(st.integers(0, N_ROWS + 2))))
        return kind, (slice(start or None, stop if stop < N_ROWS else None),)
    if kind == "take":
        rows = st.lists(st.integers(0, N_ROWS - 1), min_size=N_SEGMENTS, max_size=N_SEGMENTS)
        return kind, (np.array(draw(rows), np.int64),)
    if kind == "put":
        begin, end = spans_of(draw)
        skip = np.array([draw(st.integers(0, WIDTH - n)) for n in end - begin], np.int64)
        return kind, (begin, skip, skip + end - begin)
    if kind == "gather":
        begin, end = spans_of(draw)
        first = draw(st.integers(0, N_COLUMNS - 1))
        columns = draw(st.sampled_from([None, slice(first, N_COLUMNS), slice(0, first + 1)]))
        return kind, (begin, end, draw(st.sampled_from([0, -1, 7])), columns)
    return kind, ()


def do(rows, kind: str, what: tuple, rng: np.random.Generator) -> np.ndarray | None:
    """Do it to an array of one of the placements."""
    shape = rows.shape
    if kind == "set":
        n = len(range(*what[0].indices(N_ROWS)))
        rows[what[0]] = bits(rng, rows.dtype.name, (n, *shape[1:]))
    elif kind == "set all":
        rows[:] = bits(rng, rows.dtype.name, ())
    elif kind == "put":
        # More segments than are written, as in the last tile of a sweep.
        rows.put(*what, bits(rng, rows.dtype.name, (N_SEGMENTS, WIDTH, *shape[1:])))
    elif kind == "get":
        return rows[what[0]]
    elif kind == "take":
        return rows.take(what[0])
    else:
        begin, end, fill, columns = what
        columns = None if len(shape) == 1 else columns
        found = rows.gather(
            begin, end, n_rows=WIDTH, n_segments=N_SEGMENTS, fill=fill, columns=columns
        )
        return np.asarray(found)
    return None


def expected_of(values: np.ndarray, kind: str, what: tuple, rng: np.random.Generator):
    """The same, one row at a time; changes ``values``."""
    name, shape = values.dtype.name, values.shape
    if kind == "set":
        rows = range(*what[0].indices(N_ROWS))
        for row, value in zip(rows, bits(rng, name, (len(rows), *shape[1:])), strict=True):
            values[row] = value
    elif kind == "set all":
        value = bits(rng, name, ())
        for row in range(N_ROWS):
            values[row] = value
    elif kind == "put":
        given_values = bits(rng, name, (N_SEGMENTS, WIDTH, *shape[1:]))
        for segment, (first, start, stop) in enumerate(zip(*what, strict=True)):
            for i in range(stop - start):
                values[first + i] = given_values[segment, start + i]
    elif kind == "get":
        return np.stack([*(values[row] for row in range(*what[0].indices(N_ROWS))), values[0]])[:-1]
    elif kind == "take":
        return np.stack([values[row] for row in what[0]])
    else:
        begin, end, fill, columns = what
        columns = slice(None) if columns is None or len(shape) == 1 else columns
        part = values if len(shape) == 1 else values[:, columns]
        found = np.full((N_SEGMENTS, WIDTH, *part.shape[1:]), fill, values.dtype)
        for segment, (first, last) in enumerate(zip(begin, end, strict=True)):
            for i in range(last - first):
                found[segment, i] = part[first + i]
        return found
    return None


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("home", HOMES)
@settings(deadline=None, max_examples=examples(25))
@given(todo=st.lists(steps(), min_size=1, max_size=8), seed=st.integers(0, 2**32))
def test_rows__hold_the_same_bits_in_every_home(home, dtype, shape, todo, seed):
    expected = np.zeros(shape, dtype)
    with closing(make_rows(home, "test", dtype, shape)) as rows:
        assert (rows.shape, rows.dtype) == (shape, np.dtype(dtype))
        assert_same_bits(rows[:], expected)
        for number, (kind, what) in enumerate(todo):
            found = do(rows, kind, what, np.random.default_rng([seed, number]))
            wanted = expected_of(expected, kind, what, np.random.default_rng([seed, number]))
            if wanted is not None:
                assert_same_bits(found, wanted)
            assert_same_bits(rows[:], expected)
            assert_same_bits(np.asarray(rows), expected)


def test_rows__of_float64_keep_all_digits_on_the_device(monkeypatch):
    values = np.random.default_rng(0).normal(size=(9, 2))
    begin, end = np.array([2]), np.array([6])

    def gathered() -> np.ndarray:
        with closing(DeviceRows("float64", values.shape)) as rows:
            rows[:] = values
            return np.asarray(rows.gather(begin, end, n_rows=4, n_segments=1, fill=0))[0]

    np.testing.assert_array_equal(gathered(), values[2:6])
    # Wrong twin: JAX's own setting, by which 64 bits become 32.
    monkeypatch.setattr(DeviceRows, "_precision", lambda self: nullcontext())
    with pytest.warns(UserWarning, match="truncated"):
        assert (gathered() != values[2:6]).all()


@pytest.mark.parametrize("home", HOMES)
@pytest.mark.parametrize("which", [slice(1, 3), 4, slice(0, 0), slice(2, None)], ids=str)
def test_columns__are_read_and_written_without_the_others(home, which):
    rng = np.random.default_rng(1)
    expected = bits(rng, "float32", SHAPES[1])
    with closing(make_rows(home, "test", "float32", SHAPES[1])) as rows:
        rows[:] = expected
        part = ColumnView(rows, which)
        assert part.shape == expected[:, which].shape
        assert_same_bits(part[4:9], expected[4:9, which])
        assert_same_bits(np.asarray(part), expected[:, which])
        new = bits(rng, "float32", expected[3:11, which].shape)
        part[3:11] = new
        expected[3:11, which] = new
        part[20:] = 2.5
        expected[20:, which] = 2.5
        assert_same_bits(rows[:], expected)


@pytest.mark.parametrize("home", HOMES)
def test_rows__tiles_may_be_read_and_written_by_many_threads(home):
    """Each thread has rows of its own and reads those of a neighbour that nobody writes."""
    n_threads, n_own, n_rounds = 6, 40, 15
    shape = (n_threads * n_own, 3)
    with closing(make_rows(home, "test", "float64", shape)) as rows:
        fixed = np.random.default_rng(0).normal(size=shape)
        rows[:] = fixed
        failures = []

        def work(thread: int) -> None:
            first = thread * n_own
            begin = np.array([first, first + n_own // 2])
            for number in range(1, n_rounds):
                values = np.full((2, 10, 3), float(thread + 100 * number))
                rows.put(begin, np.zeros(2, int), np.full(2, 10), values)
                found = rows.gather(begin, begin + 12, n_rows=12, n_segments=2, fill=0)
                rest = [fixed[b + 10 : b + 12] for b in begin]
                expected = np.concatenate([values, rest], 1)
                if not np.array_equal(np.asarray(found), expected):
                    failures.append((thread, number))

        threads = [threading.Thread(target=work, args=(i,)) for i in range(n_threads)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert not failures


# ------------------------------------------------------------------ scratch files


def test_disk__leaves_no_file_behind_and_is_not_memory(tmp_path):
    n_bytes = 8 * 10**6
    with closing(DiskRows("state", "float64", (10**6,), str(tmp_path))) as rows:
        # A file without a name: also a process that is killed leaves nothing.
        assert list(tmp_path.iterdir()) == []
        assert os.fstat(rows._file.fileno()).st_size == n_bytes
        # The space is reserved, not only promised.
        assert os.fstat(rows._file.fileno()).st_blocks * 512 >= n_bytes
        assert rows[:10].tolist() == [0] * 10


def test_disk__says_what_to_do_without_space_or_folder(tmp_path, monkeypatch):
    with pytest.raises(kpms_zarr.InputError, match="scratch=") as caught:
        DiskRows("state", "float32", (10, 2), str(tmp_path / "nowhere"))
    assert "nowhere" in str(caught.value)

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(kpms_zarr.InputError, match="80 bytes of scratch space for state"):
        DiskRows("state", "float32", (10, 2), str(tmp_path))


@pytest.mark.parametrize("lacks", [(), ("preadv", "pwrite", "posix_fallocate")], ids=str)
def test_disk__reads_and_writes_whole_pieces_on_every_system(lacks, monkeypatch):
    """Calls that move less than they were asked for, and systems that lack some of them."""
    for name in lacks:
        monkeypatch.delattr(os, name)
    if not lacks:
        preadv, pwrite = os.preadv, os.pwrite
        monkeypatch.setattr(os, "preadv", lambda n, parts, at: preadv(n, [parts[0][:5]], at))
        monkeypatch.setattr(os, "pwrite", lambda n, part, at: pwrite(n, part[:3], at))
    values = np.random.default_rng(0).normal(size=(11, 3))
    with closing(DiskRows("state", "float64", values.shape)) as rows:
        rows[:] = values
        np.testing.assert_array_equal(rows[:], values)
        found = rows.gather(np.array([3]), np.array([8]), n_rows=5, n_segments=1, fill=0)
        np.testing.assert_array_equal(found[0], values[3:8])


def test_device__one_program_serves_slices_of_all_lengths(monkeypatch):
    """Sessions differ in length; each would otherwise be compiled for."""
    monkeypatch.setattr(placement, "_PIECE_ROWS", 7)
    rng = np.random.default_rng(0)
    values = rng.normal(size=(50, 3)).astype(np.float32)
    with closing(DeviceRows("float32", (50, 3))) as rows:
        counts = set()
        for start, stop in [(0, 50), (0, 3), (44, 50), (13, 29), (49, 50), (20, 20), (5, 12)]:
            values[start:stop] = rng.normal(size=(stop - start, 3))
            rows[start:stop] = values[start:stop]
            assert_same_bits(rows[:], values)
            assert_same_bits(rows[start:stop], values[start:stop])
            counts.add((placement._overwrite._cache_size(), placement._piece._cache_size()))
        assert len(counts) == 1


def test_device__a_write_without_memory_is_final(monkeypatch):
    """The array was given away: the tile cannot be drawn again."""

    def fail(*_: object) -> None:
        raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 7 bytes.")

    monkeypatch.setattr(placement, "_put", fail)
    with closing(DeviceRows("float32", (50, 3))) as rows:
        with pytest.raises(OutOfMemoryError, match="RESOURCE_EXHAUSTED") as caught:
            rows.put(*(np.array([0]),) * 2, np.array([2]), jnp.zeros((4, 7, 3), "float32"))
        assert not is_out_of_memory(caught.value)


def test_disk__is_read_by_plain_slices_only():
    with closing(DiskRows("state", "float32", (10, 2))) as rows:
        for key in (3, slice(0, 9, 2), np.arange(3)):
            with pytest.raises(TypeError, match="slices"):
                rows[key]


def test_disk__that_ended_early_is_an_error():
    with closing(DiskRows("state", "float32", (10, 2))) as rows:
        os.ftruncate(rows._file.fileno(), 30)
        with pytest.raises(OSError, match="ended at byte"):
            rows[:]


# ------------------------------------------------------------------ the chain in its placements


def test_chain__is_the_same_in_every_home():
    index = ChainIndex.of([Session("b", 0, 9, 30.0), Session("a", 1, 14, 30.0)], 3)
    rng = np.random.default_rng(0)
    local, observed = rng.normal(size=(23, 3 + 2 + 1 + 4)), rng.normal(size=(23, 12))
    with ExitStack() as stack:
        for home in HOMES:
            chain = stack.enter_context(
                Chain(index, n_latent=3, n_space=2, dtype="float64", n_keypoints=4, home=home)
            )
            assert (np.asarray(chain.syllable) == NO_STATE).all()
            chain.latent[:], chain.centroid[:] = local[:, :3], local[:, 3:5]
            chain.heading[:], chain.noise_scale[:] = local[:, 5], local[:, 6:]
            chain.position[:], chain.prior_scale[:] = observed[:, :8], observed[:, 8:]
            np.testing.assert_array_equal(np.asarray(chain.local), local)
            np.testing.assert_array_equal(np.asarray(chain.heading), local[:, 5])
            np.testing.assert_array_equal(np.asarray(chain.observed), np.float32(observed))


def test_chain__what_is_copied_stays_as_it_was():
    """NumPy takes the word of an array-like for a copy."""
    index = ChainIndex.of([Session("a", 0, 9, 30.0)], 3)
    with ExitStack() as stack:
        for home in HOMES:
            chain = stack.enter_context(
                Chain(index, n_latent=1, n_space=2, dtype="float64", n_keypoints=4, home=home)
            )
            arrays = (chain.local, chain.syllable, chain.latent, chain.heading, chain.position)
            before = [np.array(values) for values in arrays]
            for values in arrays:
                values[:] = np.full(values.shape, 7)
            for values, kept in zip(arrays, before, strict=True):
                assert (np.array(values) == 7).all()
                assert not (kept == 7).any(), home


def test_host__is_what_the_others_are_compared_with():
    """Wrong twin of the comparison above: one row that is off is seen."""
    rng = np.random.default_rng(0)
    values = bits(rng, "float32", SHAPES[1])
    rows = HostRows(values.copy())
    rows.put(np.array([3]), np.array([0]), np.array([2]), values[None, 4:6])
    with pytest.raises(AssertionError):
        assert_same_bits(rows[:], values)
