"""Every real file, from the file to the store: what an independent reader found must be there."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import kpms_zarr
from kpms_zarr.store.core import access
from kpms_zarr.store.parsers import PARSERS, recognise

DATA = Path(__file__).resolve().parents[3].parent / "shared" / "data"
EXPECTED = json.loads((DATA / "EXPECTED.json").read_text()) if DATA.is_dir() else {}
NAMES = sorted(EXPECTED) or ["absent"]

# Folders that are not named by their format; Lightning Pose writes csv files of DeepLabCut.
FORMATS = {
    "dlc_multi": {".csv": "dlc_csv", ".h5": "dlc_h5"},
    "lightningpose_csv": {".csv": "dlc_csv"},
    "sleap_analysis_h5": {".h5": "sleap_h5"},
    "nwb_ndxpose": {".nwb": "nwb"},
}


@dataclass
class Found:
    """What is in a store after an ingest, by session."""

    names: tuple[str, ...]
    individual: dict[str, str] = field(default_factory=dict)
    keypoints: tuple[str, ...] = ()
    position: dict[str, np.ndarray] = field(default_factory=dict)
    confidence: dict[str, np.ndarray] = field(default_factory=dict)
    notes: str = ""


def found_in(store, result) -> Found:
    data = access.dataset(store, "keypoints").load()
    assert tuple(data.session.values) == result.added
    assert set(data.fps.values) == {25.0}
    assert set(data.source.values) == {Path(path).name for path in result.recognised}
    found = Found(result.added, keypoints=tuple(str(k) for k in data.keypoint.values))
    found.notes = " / ".join(result.notes)
    for name in result.added:
        one = data.sel(session=name)
        n_frames = int(one.n_frames)
        assert np.isnan(one.position.values[n_frames:]).all()
        assert not np.isinf(one.position.values).any()
        found.individual[name] = one.individual.item()
        found.position[name] = one.position.values[:n_frames]
        found.confidence[name] = one.confidence.values[:n_frames]
    assert result.n_frames == sum(len(values) for values in found.position.values())
    return found


def format_of(name):
    folder = name.split("/")[0]
    return FORMATS.get(folder, {}).get(Path(name).suffix, folder)


# --- where EXPECTED does not apply ----------------------------------------------------------


@dataclass(frozen=True)
class Exceptional:
    """Why EXPECTED does not hold for a file as it stands, and what is right instead.

    Attributes
    ----------
    reason : str
    right : callable (found, wanted, real)
        Asserts what EXPECTED cannot.
    sessions : tuple of str, optional
        Keys that are right: default those of EXPECTED.
    names, position, confidence : bool
        Whether the names of keypoints, positions and confidences in EXPECTED are right.
    """

    reason: str
    right: Callable[[Found, dict[str, Any], Any], None]
    sessions: tuple[str, ...] | None = None
    names: bool = True
    position: bool = True
    confidence: bool = True


def no_confidence(found, wanted, real):
    assert all(np.isnan(values).all() for values in found.confidence.values())
    assert "confidence" in found.notes


def numbered(found):
    assert found.keypoints == tuple(f"keypoint_{k}" for k in range(len(found.keypoints)))
    assert "`keypoint_names=`" in found.notes


def p_max(mean, first):
    def right(found, wanted, real):
        numbered(found)
        (confidence,) = found.confidence.values()
        assert np.mean(confidence, dtype=float) == pytest.approx(mean, abs=5e-4)
        assert confidence[0, 0] == pytest.approx(first, abs=1e-6)

    return right


def numbered_without_confidence(found, wanted, real):
    numbered(found)
    no_confidence(found, wanted, real)


def nine_of_twelve(found, wanted, real):
    (numbers,) = wanted["keys"].values()
    assert found.keypoints[:3] == ("top front chamber", "top back chamber", "back center chamber")
    assert list(found.keypoints[3:]) == wanted["bodyparts"]
    (position,), (confidence,) = found.position.values(), found.confidence.values()
    position, confidence = position.astype(float), confidence.astype(float)
    assert position.shape == (99, 12, 3)
    assert not np.isnan(position).any()
    assert position[:, 3:].mean() == pytest.approx(numbers["coord_mean"], abs=1e-4)
    assert confidence[:, 3:].mean() == pytest.approx(numbers["conf_mean"], abs=2e-6)
    middle = numbers["middle_frame"]
    wanted_middle = numbers["middle_frame_coords"]
    np.testing.assert_allclose(position[middle, 3:], wanted_middle, atol=2e-4, rtol=0)


def as_with_one_table(found, wanted, real):
    check_share(found, wanted)
    pair = real.expected[f"{MULTI}h5_table_madlc.h5"]
    for key, numbers in pair["keys"].items():
        check_session(real, found, key.replace("_madlc", "_madlc.twokeys"), numbers)
    of_set("Nose", "Left_ear", "Right_ear")(found, pair, real)


def as_the_slp(found, wanted, real):
    no_confidence(found, wanted, real)
    check_share(found, wanted)
    pair = real.expected["slp/talmolab_sleap/predictions.slp"]
    assert list(found.keypoints) == pair["bodyparts"]
    for n, numbers in enumerate(pair["keys"].values()):
        real.check_numbers(
            found.position[f"predictions.analysis_track{n}"], numbers, "coord", 1e-3, 1e-3
        )


def two_poses(found, wanted, real):
    # EXPECTED says that no coordinate is missing, but one series has no frames at all.
    one, two = (found.position[f"minimal.pose_track={n}"] for n in (1, 2))
    np.testing.assert_array_equal(one[:, 0], [[10, 20], [11, 21], [12, 22]])
    np.testing.assert_array_equal(two[:, 0], [[50, 60], [51, 61]])
    assert np.isnan(two[:, 1]).all()
    assert set(found.individual.values()) == {""}


def as_the_mat(found, wanted, real):
    check_share(found, wanted)
    pair = real.expected["dannce_mat/talmolab_stac-mjx/test_rodent_mocap_1000_frames.mat"]
    (numbers,) = pair["keys"].values()
    (position,), (confidence,) = found.position.values(), found.confidence.values()
    real.check_numbers(position, numbers, "coord", 1e-3, 2e-4)
    assert found.keypoints[:3] == ("Snout", "EarL", "EarR")
    assert np.mean(confidence, dtype=float) == pytest.approx(0.068, abs=5e-4)
    assert confidence[0, 0] == pytest.approx(0.26753479, abs=1e-6)


def empty_tracks(found, wanted, real):
    assert "track2" in found.notes
    for n in range(2, 7):
        numbers = wanted["keys"][f"{BLACKMICE_STEM}_track{n}"]
        assert numbers["nan_frac"] == 1
        assert f"{BLACKMICE_STEM}_track{n}: none of the keypoints is ever tracked" in found.notes


def check_share(found, wanted):
    """What was counted without the reference."""
    assert len(found.names) == wanted["animals"]
    shape = (wanted["frames"], wanted["keypoints"], wanted["dims"])
    assert {values.shape for values in found.position.values()} == {shape}
    share = np.mean([np.isnan(values).mean() for values in found.position.values()])
    assert share == pytest.approx(wanted["nan_frac"], abs=1e-6)


def check_session(real, found, name, numbers, *, confidence=True):
    position = found.position[name]
    real.check_numbers(position, numbers, "coord", 1e-3, 2e-4)
    assert np.nanstd(position.astype(float)) == pytest.approx(numbers["coord_std"], abs=1e-3)
    if confidence:
        real.check_numbers(found.confidence[name], numbers, "conf", 2e-6, 2e-6)


DANNCE = "the reference gives every point the confidence 1, and no names"
SET = "the reference returns the body parts as a set, in no order"
FAILS = "the reference fails"
BLACKMICE_STEM = "CAGE2_TUBETEST_2.4v2.1_BLACKMICE.mp4.predictions"
MINIMAL = "nwb_ndxpose/talmolab_sleap-io.js/minimal.pose.nwb"
MULTI = "dlc_multi/mlfpm_deepof/test2DLC_"


def of_set(*first):
    """Names in the order of the file, the same ones as in the set."""

    def right(found, wanted, real):
        assert found.keypoints[: len(first)] == first
        assert sorted(found.keypoints) == wanted["bodyparts"]

    return right


EXCEPTIONAL = {
    "anipose_csv/talmolab_stac-mjx/test_fly_treadmill_short.csv": Exceptional(
        "the reference drops keypoints whose names hold spaces",
        nine_of_twelve,
        names=False,
        position=False,
        confidence=False,
    ),
    "dannce_mat/spoonsso_dannce/save_data_AVG.mat": Exceptional(
        DANNCE, p_max(0.070, 0.08890407), confidence=False
    ),
    "dannce_mat/spoonsso_dannce/save_data_AVG_MAX.mat": Exceptional(
        DANNCE, p_max(0.077, 0.08890306), confidence=False
    ),
    "dannce_mat/talmolab_stac-mjx/test_rodent_mocap_1000_frames.mat": Exceptional(
        DANNCE, numbered_without_confidence, confidence=False
    ),
    "sleap_anipose_h5/talmolab_sleap-anipose/points3d.h5": Exceptional(
        "the reference gives every point the confidence 1, and other names by number",
        numbered_without_confidence,
        names=False,
        confidence=False,
    ),
    "dlc_multi/DeepLabCut_DeepLabCut/montblanc_tracks.h5": Exceptional(
        SET, of_set("head", "tail", "leftwing"), names=False
    ),
    "dlc_multi/benlansdell_ethome/openfield_dlc_inference_example_three.csv": Exceptional(
        SET, of_set("snout", "leftear", "rightear", "tailbase"), names=False
    ),
    f"{MULTI}csv_table_madlc.csv": Exceptional(
        SET, of_set("Nose", "Left_ear", "Right_ear"), names=False
    ),
    f"{MULTI}h5_table_madlc.h5": Exceptional(
        SET, of_set("Nose", "Left_ear", "Right_ear"), names=False
    ),
    f"{MULTI}h5_table_madlc.twokeys.h5": Exceptional(
        FAILS,
        as_with_one_table,
        sessions=tuple(
            f"test2DLC_h5_table_madlc.twokeys_mouse_{tail}_tail" for tail in ("black", "white")
        ),
    ),
    MINIMAL: Exceptional(
        FAILS, two_poses, sessions=("minimal.pose_track=1", "minimal.pose_track=2")
    ),
    "nwb_ndxpose/talmolab_stac-mjx/test_rodent_mocap_1000_frames.nwb": Exceptional(
        FAILS, as_the_mat, sessions=("test_rodent_mocap_1000_frames",)
    ),
    "sleap_analysis_h5/talmolab_sleap/predictions.analysis.h5": Exceptional(
        FAILS,
        as_the_slp,
        sessions=("predictions.analysis_track0", "predictions.analysis_track1"),
    ),
    f"slp/padillacoreanolab_pose_tracking_repo/{BLACKMICE_STEM}.slp": Exceptional(
        "tracks in which nothing is ever tracked do not become sessions",
        empty_tracks,
        sessions=(f"{BLACKMICE_STEM}_track0", f"{BLACKMICE_STEM}_track1"),
    ),
}


# --- the tests ------------------------------------------------------------------------------


def test_exceptions__are_files_that_expected_marks_or_that_hold_no_confidence(real):
    """EXPECTED itself says which they are, but for confidences made up and empty tracks."""
    marked = {
        name
        for name, wanted in real.expected.items()
        if "fails" in wanted or wanted.get("reference_is_wrong") or wanted["bodyparts_is_set"]
    }
    unmarked = set(EXCEPTIONAL) - marked
    assert marked <= set(EXCEPTIONAL) <= set(real.expected)
    made_up = {name for name, e in EXCEPTIONAL.items() if not e.confidence} & unmarked
    for name in made_up:
        assert {numbers["conf_mean"] for numbers in real.expected[name]["keys"].values()} == {1.0}
    (empty,) = unmarked - made_up
    assert any(numbers["nan_frac"] == 1 for numbers in real.expected[empty]["keys"].values())


def test_real_files__are_recognised_by_one_parser(real):
    for name in NAMES:
        path, format = real.folder / name, format_of(name)
        assert [parser.name for parser in PARSERS if parser.sniff(path) is not None] == [format]
        assert recognise(path)[0] is recognise(path, format)[0]


def kind_of(name):
    return name.split("/")[0], Path(name).suffix


SIZES = {name: (DATA / name).stat().st_size for name in EXPECTED}
SMALLEST = {kind_of(name): name for name in sorted(SIZES, key=SIZES.__getitem__, reverse=True)}
# The numbers of all of them are seen by the tests of the parsers.
CASES = [
    pytest.param(
        name,
        id=f"{name.split('/')[0]}-{name[-40:]}",
        marks=[pytest.mark.full] * (name not in {*SMALLEST.values(), *EXCEPTIONAL, "absent"}),
    )
    for name in NAMES
]


@pytest.mark.parametrize("name", CASES)
def test_real_file__arrives_in_the_store_as_expected(name, real, tmp_path, full):
    path, wanted = real.folder / name, real.expected[name]
    format = format_of(name)
    store = tmp_path / "auto.zarr"
    result = kpms_zarr.ingest(store, [path], fps=25)
    assert list(result.recognised) == [str(path)]
    assert result.recognised[str(path)].startswith(f"{format}: ")
    found = found_in(store, result)
    exceptional = EXCEPTIONAL.get(name)
    check(found, wanted, real, exceptional)
    if exceptional:
        exceptional.right(found, wanted, real)
    if name != MINIMAL:  # recordings of one animal, named by what is between
        for session, individual in found.individual.items():
            assert session == (f"{path.stem}_{individual}" if individual else path.stem)

    named = kpms_zarr.ingest(
        tmp_path / "named.zarr", [path], format=format, fps=25, dry_run=not full
    )
    if full:
        assert_same(found, found_in(tmp_path / "named.zarr", named))
    assert set(named.added) >= set(result.added)  # a dry run does not see that a track is empty
    assert not set(named.added) - set(result.added) - set(wanted.get("keys", ()))
    assert kpms_zarr.verify(store).is_sound


def check(found, wanted, real, exceptional):
    by_default = exceptional or Exceptional("", no_confidence)
    sessions = by_default.sessions or tuple(wanted["keys"])
    assert set(found.names) == set(sessions)
    if wanted.get("bodyparts") and by_default.names:
        assert list(found.keypoints) == wanted["bodyparts"]
    for session, numbers in wanted.get("keys", {}).items():
        if session in sessions and by_default.position:
            check_session(real, found, session, numbers, confidence=by_default.confidence)


def assert_same(one, other):
    assert (one.names, one.individual) == (other.names, other.individual)
    assert one.keypoints == other.keypoints
    for session in one.names:
        np.testing.assert_array_equal(one.position[session], other.position[session])
        np.testing.assert_array_equal(one.confidence[session], other.confidence[session])


def test_check__sees_what_is_wrong(real, tmp_path):
    """A number, a name or a session that is not as expected is noticed."""
    name = "dlc_multi/mlfpm_deepof/test2DLC_csv_table_madlc.csv"
    wanted, exceptional = real.expected[name], EXCEPTIONAL[name]
    store = tmp_path / "x.zarr"
    found = found_in(store, kpms_zarr.ingest(store, [real.folder / name], fps=25))
    check(found, wanted, real, exceptional)
    first, second = found.names
    exchanged = {first: found.position[second], second: found.position[first]}
    moved = {**found.position, first: found.position[first] + np.float32(0.1)}
    mirrored = {**found.position, first: found.position[first][:, ::-1]}
    unsure = {**found.confidence, second: found.confidence[second] * np.float32(0.999)}
    for wrong in (
        replace(found, position=exchanged),
        replace(found, position=moved),
        replace(found, position=mirrored),
        replace(found, confidence=unsure),
        replace(found, names=(first,)),
        replace(found, names=(first, "another")),
    ):
        with pytest.raises(AssertionError):
            check(wrong, wanted, real, exceptional)
    with pytest.raises(AssertionError):
        exceptional.right(replace(found, keypoints=found.keypoints[::-1]), wanted, real)


@pytest.mark.parametrize("parser", PARSERS, ids=lambda parser: parser.name)
def test_read__needs_at_least_one_frame_a_block(parser):
    with pytest.raises(ValueError, match="at least 1"):
        parser.read(Path("any"), 0)
