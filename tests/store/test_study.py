"""Settings of a study: which keypoints a model uses."""

from __future__ import annotations

import pytest

from kpms_zarr.store.errors import InputError
from kpms_zarr.store.study.settings import StudySettings, keypoint_columns, subset_keypoints

STUDY = StudySettings(
    ("tail", "tailbase", "spine", "ear_l", "ear_r", "nose"),
    ("x", "y"),
    anterior=("nose", "ear_l", "ear_r"),
    posterior=("tailbase",),
    skeleton=(("tail", "tailbase"), ("tailbase", "spine"), ("spine", "nose")),
)


def test_subset_keypoints__keeps_the_order_and_what_belongs_to_it():
    found = subset_keypoints(STUDY, ["nose", "tailbase", "spine", "ear_r"])
    assert found.keypoints == ("nose", "tailbase", "spine", "ear_r")
    assert found.space == STUDY.space
    assert found.anterior == ("nose", "ear_r")
    assert found.posterior == ("tailbase",)
    assert found.skeleton == (("tailbase", "spine"), ("spine", "nose"))


def test_subset_keypoints__of_all_changes_nothing():
    assert subset_keypoints(STUDY, STUDY.keypoints) == STUDY


def test_subset_keypoints__may_lose_the_heading():
    found = subset_keypoints(STUDY, ["tail", "spine"])
    assert (found.anterior, found.posterior, found.skeleton) == ((), (), ())


def test_subset_keypoints__names_all_problems_at_once():
    with pytest.raises(InputError) as error:
        subset_keypoints(STUDY, ["nose", "tailbas", "nose", "whisker"])
    assert [problem.where for problem in error.value.problems] == ["`use_keypoints=`"] * 3
    text = str(error.value)
    assert "did you mean 'tailbase'?" in text
    assert "found 'whisker'" in text
    assert "expected every keypoint once, found nose more than once" in text


@pytest.mark.parametrize("names", [[], ["nose"], ["nose", "nose"]], ids=str)
def test_subset_keypoints__needs_two(names):
    with pytest.raises(InputError, match="expected two keypoints or more, found no"):
        subset_keypoints(STUDY, names)


def test_keypoint_columns__are_places_in_the_store():
    assert keypoint_columns(STUDY, STUDY.keypoints) is None
    assert keypoint_columns(STUDY, ["nose", "tail"]) == (5, 0)
    with pytest.raises(InputError, match="did you mean 'spine'") as error:
        keypoint_columns(STUDY, ["spin", "tail", "x"])
    assert len(error.value.problems) == 2
