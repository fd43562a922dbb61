"""Damage on which HDF5 itself would crash, and other oddities, are found by its readers."""

from __future__ import annotations

import h5py
import numpy as np
import pytest

from kpms_zarr.store.errors import InputError
from kpms_zarr.store.parsers.hdf5.reading import (
    attribute,
    check_inside,
    check_numbers,
    dataset,
    internal,
    opened,
    texts,
)


@pytest.fixture
def path(tmp_path):
    with h5py.File(tmp_path / "x.h5", "w") as file:
        file["names"] = ["nose", "tail", "left ear"]
        file.create_group("group").attrs["kind"] = "a text"
        file["group/data"] = np.zeros((5, 2))
    return tmp_path / "x.h5"


def overwrite(path, at, content):
    data = bytearray(path.read_bytes())
    data[at : at + len(content)] = content
    path.write_bytes(data)


def test_sound_files__are_opened(path):
    with opened(path) as file:
        assert texts(file["names"]) == ["nose", "tail", "left ear"]
        assert attribute(file["group"], "kind") == "a text"
        assert attribute(file["group"], "other", 3) == 3


def test_attribute_of_a_damaged_type__is_left_alone(path):
    data = path.read_bytes()
    at = data.index(b"kind\0")
    # Class 9, version 1: a text of any length; 3 is no kind of it.
    overwrite(path, data.index(b"\x19\x01", at) + 1, b"\x03")
    with opened(path) as file:
        assert attribute(file["group"], "kind", "nothing") == "nothing"


def test_links__are_followed_inside_only(path):
    with h5py.File(path, "a") as file:
        file["soft"] = h5py.SoftLink("/group/data")
        file["group/up"] = h5py.SoftLink("/soft")
        file["out"] = h5py.ExternalLink("other.h5", "/")
        file["group/by_out"] = h5py.SoftLink("/out/data")
        file["self"] = h5py.SoftLink("/self")
    with opened(path) as file:
        assert internal(file["group"], "up").shape == (5, 2)
        for name in ("out", "self", "none"):
            assert internal(file, name) is None
        assert internal(file["group"], "by_out") is None


def test_values_elsewhere_and_lists__are_refused(path):
    with h5py.File(path, "a") as file:
        file.create_dataset("raw", (5,), "f8", external=[("other.bin", 0, 40)])
        file.create_dataset("lists", (3,), h5py.vlen_dtype("f8"))
    with opened(path) as file:
        with pytest.raises(InputError, match="in other files"):
            check_inside(file["raw"], "here")
        with pytest.raises(ValueError, match="lists"):
            texts(file["lists"])
        with pytest.raises(InputError, match="numbers in"):
            check_numbers(file["lists"], "here")


def test_large_chunk__is_kept_for_reads_in_order(path):
    """HDF5 would unpack it again for every read."""
    n = 4_000_000
    with h5py.File(path, "a") as file:
        file.create_dataset("wide", data=np.arange(n, dtype="f8"), chunks=(n,), compression=1)
    with opened(path) as file:
        data = dataset(file, "wide")
        assert data.id.get_access_plist().get_chunk_cache()[1] >= 8 * n
        assert data[:10].tolist() == list(range(10))


def test_huge_chunk__is_refused(path):
    with h5py.File(path, "a") as file:
        file.create_dataset("huge", (40_000_000,), "f8", chunks=(40_000_000,), compression=1)
    with opened(path) as file, pytest.raises(InputError, match="as many values"):
        check_numbers(file["huge"], "here")
