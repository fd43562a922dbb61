"""Lightning Pose writes the csv files of DeepLabCut: what `dlc_csv` makes of all that it writes.

A multi-camera model writes one csv for every camera, which is a session of its own; a mirror or
fused frames give one csv in which the view is part of the keypoint's name. Neither needs a parser.
"""

from __future__ import annotations

import numpy as np
import pytest

from kpms_zarr.store.errors import InputError
from kpms_zarr.store.parsers.dlc.csv import PARSER

FOLDER = "lightningpose_csv"
MIRROR = f"{FOLDER}/paninski-lab_eks/180607_004.train_frames=75.rng=0.csv"
LEFT = f"{FOLDER}/paninski-lab_eks/3f859b5c-e73a-4044-b49e-34bb81e96715.left.rng=0.csv"
RIGHT = LEFT.replace("left", "right")


def write(path, keypoints=("paw_l", "paw_r"), *, coords=("x", "y", "likelihood"), index=range(5)):
    """Predictions as Lightning Pose writes them; gives the values too."""
    columns = [(name, coord) for name in keypoints for coord in coords]
    head = [
        ["scorer", *["heatmap_multiview_transformer_tracker"] * len(columns)],
        ["bodyparts", *(name for name, _ in columns)],
        ["coords", *(coord for _, coord in columns)],
    ]
    rng = np.random.default_rng(0)
    values = rng.random((len(index), len(columns))).astype(np.float32)
    rows = [[str(i), *map(str, row)] for i, row in zip(index, values, strict=True)]
    path.write_text("".join(",".join(row) + "\n" for row in [*head, *rows]))
    return values


def test_real_files__agree_with_expected(real):
    assert len(real.names(FOLDER)) == 5
    for name in real.names(FOLDER):
        found = real.load(PARSER, name)
        real.check(found, name)
        assert found.header.notes == ()


def test_mirror__keypoints_of_both_views_are_kept_apart(real):
    (track,) = real.load(PARSER, MIRROR).header.tracks
    assert track.keypoints[:5] == (
        "paw1LH_top",
        "paw2LF_top",
        "paw3RF_top",
        "paw4RH_top",
        "paw1LH_bot",
    )


def test_cameras__are_sessions_of_their_own(real):
    left, right = real.load(PARSER, LEFT), real.load(PARSER, RIGHT)
    assert left.header.tracks[0].keypoints == right.header.tracks[0].keypoints
    assert left.header.space == right.header.space == ("x", "y")
    assert not left.position.keys() & right.position.keys()


@pytest.mark.parametrize("view", ["view0", "view1"])
def test_multiview_model__one_file_a_view(tmp_path, load, view):
    path = tmp_path / f"session0_{view}.csv"
    values = write(path).reshape(5, 2, 3)
    found = load(PARSER, path)
    np.testing.assert_array_equal(found.position[f"session0_{view}"], values[:, :, :2])
    np.testing.assert_array_equal(found.confidence[f"session0_{view}"], values[:, :, 2])


def test_smoothed_files__their_variances_are_left_out_with_a_note(tmp_path, load):
    # The ensemble Kalman smoother adds these to the columns of Lightning Pose.
    coords = ("x", "y", "likelihood", "x_ens_median", "y_ens_median", "x_ens_var", "y_ens_var")
    path = tmp_path / "session0_view0.csv"
    values = write(path, coords=coords).reshape(5, 2, 7)
    found = load(PARSER, path)
    np.testing.assert_array_equal(found.position["session0_view0"], values[:, :, :2])
    assert "`x_ens_median`" in found.header.notes[0]


@pytest.mark.parametrize(
    "what", ["temporal_norm", "pca_singleview_error", "pca_multiview_error", "pixel_error"]
)
def test_companions__are_no_poses(tmp_path, what):
    path = tmp_path / f"session0_view0_{what}.csv"
    lines = [",paw1LH_top,paw2LF_top,x,y", "0,,,,", "1,0.5,0.25,1,2", "2,0.5,0.25,1,2"]
    if what == "pixel_error":
        lines = [line + ("" if n == 0 else ",train") for n, line in enumerate(lines)]
        lines[0] += ",set"
    path.write_text("\n".join(lines) + "\n")
    assert PARSER.sniff(path) is None
    with pytest.raises(InputError):
        PARSER.inspect(path)


def test_boxes_of_crops__are_no_poses(tmp_path):
    path = tmp_path / "session0_bbox.csv"
    path.write_text(",x,y,h,w\n0,12,30,100,100\n1,13,30,100,100\n")
    assert PARSER.sniff(path) is None


def test_predictions_of_labelled_frames__are_refused(tmp_path):
    path = tmp_path / "predictions_view0.csv"
    write(path, index=[f"labeled-data/session0_view0/img{n:08d}.png" for n in range(5)])
    lines = path.read_text().splitlines()
    # Lightning Pose adds a column that says what the frame was used for.
    ends = [",set", ",", ",", *[",train"] * 5]
    path.write_text("".join(line + end + "\n" for line, end in zip(lines, ends, strict=True)))
    assert PARSER.sniff(path)
    with pytest.raises(InputError, match="labelled"):
        PARSER.inspect(path)
