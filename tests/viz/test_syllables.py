"""Views of single syllables: the data behind them against naive counts, and the drawings."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from xml.etree import ElementTree

import holoviews as hv
import numpy as np
import pytest

import kpms_zarr
from kpms_zarr.store.core import access
from kpms_zarr.store.errors import InputError
from kpms_zarr.store.model import models
from kpms_zarr.store.model.syllable_names import name_syllable
from kpms_zarr.store.study.synthetic import SyntheticStudy, write_store
from kpms_zarr.viz.shared import reading
from kpms_zarr.viz.shared.colors import syllable_color
from kpms_zarr.viz.shared.facts import facts
from kpms_zarr.viz.shared.grouping import group_coordinates
from kpms_zarr.viz.shared.opened import OpenModel
from kpms_zarr.viz.shared.reading import MissingData
from kpms_zarr.viz.syllables import data as syllable_data
from kpms_zarr.viz.syllables import drawing as pose_drawings
from kpms_zarr.viz.syllables import views as syllables
from kpms_zarr.viz.syllables.data import Gallery
from kpms_zarr.viz.syllables.transition_counts import neighbours_of

SOLID = SyntheticStudy(n_sessions=2, n_frames=1200, n_space=3, seed=4)


@pytest.fixture(scope="module")
def solid(tmp_path_factory, helpers) -> Path:
    """A store in three dimensions with the model ``two``."""
    path = tmp_path_factory.mktemp("solid") / "solid.zarr"
    write_store(path, SOLID)
    helpers.publish_two_stages(path, study=SOLID)
    return path


@pytest.fixture
def grouped(fresh, helpers, tmp_path) -> Path:
    helpers.publish(fresh, helpers.truth())
    table = tmp_path / "groups.csv"
    table.write_text("session,group,weight\nsession_000,old,20\nsession_001,young,21\n")
    kpms_zarr.annotate(fresh, table)
    return fresh


# ------------------------------------------------------------------ data


def test_session_frames__counts_every_frame_once(store, labels, helpers):
    found = syllable_data.session_frames(models.open_labels(store, "m"), block_frames=700)
    wanted = [[int((row == state).sum()) for state in range(helpers.n_states)] for row in labels]
    assert found.tolist() == wanted


def test_frequency_by_group__is_the_share_in_every_session(grouped, labels):
    opened = OpenModel(grouped, "m")
    table = syllable_data.frequency_by_group(opened, syllable=1, coordinate="group")
    wanted = [100 * (row == 1).sum() / (row >= 0).sum() for row in labels]
    np.testing.assert_allclose(table["share"].values, wanted)
    assert table["group"].values.tolist() == ["old", "young", "not given"]
    one = syllable_data.frequency_by_group(opened, syllable=1)
    assert set(one["group"].values.tolist()) == {"all sessions"}
    numbers = syllable_data.frequency_by_group(
        OpenModel(grouped, "m"), syllable=1, coordinate="weight"
    )
    assert numbers["group"].values.tolist() == ["20", "21", "not given"]


def test_frequency_by_group__names_the_coordinates_that_there_are(grouped):
    for wrong in ("sex", "keypoint"):
        with pytest.raises(InputError, match="annotate"):
            syllable_data.frequency_by_group(OpenModel(grouped, "m"), syllable=1, coordinate=wrong)


def test_group_coordinates__are_those_that_group(grouped):
    table = access.dataset(grouped, "keypoints")
    assert group_coordinates(table) == ()  # three values of three sessions
    again = table.assign_coords(
        group=("session", ["a", "b", "a"]),
        sex=("session", ["f", "f", "m"]),
        cage=("session", ["1", "1", "1"]),
    )
    assert group_coordinates(again) == ("group", "sex")


def test_neighbours_of__are_counted_between_bouts(store, labels, helpers):
    before, after = {}, {}
    for row in labels:
        states, _ = helpers.runs(row)
        for one, following in pairwise(states):
            if one == 2 and following >= 0:
                after[int(following)] = after.get(int(following), 0) + 1
            if following == 2 and one >= 0:
                before[int(one)] = before.get(int(one), 0) + 1
    changes = models.open_labels(store, "m")["transition_count"].values
    for found, wanted in zip(
        neighbours_of(changes, 2, max_neighbours=4), (before, after), strict=True
    ):
        assert found.count.tolist() == sorted(wanted.values(), reverse=True)[:4]
        assert [wanted[int(one)] for one in found.syllable] == found.count.tolist()
        np.testing.assert_allclose(found.share, 100 * found.count / sum(wanted.values()))


def test_duration_bins__hold_the_bouts(store, labels, helpers):
    opened = models.open_labels(store, "m")
    fps = helpers.study.fps
    edges, count = reading.duration_bins(
        opened["duration_count"].values[[0, 2]], opened["duration"].values, max_bins=10, shown=0.99
    )
    assert len(edges) <= 11
    for row, state in enumerate((0, 2)):
        lengths = np.concatenate([n[s == state] for s, n in (helpers.runs(one) for one in labels)])
        wanted, _ = np.histogram(lengths * 1000 / fps, edges)
        assert count[row].tolist() == wanted.tolist()
        assert count[row].sum() >= 0.99 * len(lengths)


def test_trajectory__is_the_median_of_bouts_that_last(two_stages):
    gallery = Gallery(OpenModel(two_stages, "two"))
    state = gallery.used[0]
    found = gallery.trajectory(state)
    length = float(gallery.labels["median_duration"][state]) / 1000
    assert found.seconds[0] == 0
    assert found.seconds[-1] == pytest.approx(np.clip(length, 0.1, 1.5))
    lasting = [one for one in gallery.examples(state) if one.seconds >= found.seconds[-1] - 1e-9]
    assert found.n_examples == min(20, len(lasting)) > 2
    poses = [gallery.reader.sampled([one], found.seconds)[0] for one in lasting[:20]]
    np.testing.assert_allclose(found.pose, np.median(poses, axis=0))
    assert found.front  # the keypoint at the front is one of the model's, and ahead
    assert found.pose[0, list(found.front), 0].mean() > 0


def test_snapshots__last_as_long_as_the_bout(two_stages):
    gallery = Gallery(OpenModel(two_stages, "two"))
    found = gallery.snapshots(gallery.used[1], max_examples=5)
    assert len(found) == 5
    for example, poses in found:
        assert poses.seconds[-1] == pytest.approx(min(example.seconds, 1.5))
        assert poses.pose.shape == (syllable_data.MOMENTS, 5, 2)
        assert np.isfinite(poses.pose).all()


def test_trajectory__of_a_syllable_without_bouts_is_nan(two_stages, helpers):
    gallery = Gallery(OpenModel(two_stages, "two"))
    found = gallery.trajectory(helpers.n_states - 1)
    assert found.n_examples == 0
    assert np.isnan(found.pose).all()
    assert gallery.snapshots(helpers.n_states - 1) == []


# ------------------------------------------------------------------ drawings


def test_trajectory__draws_every_bone_at_every_moment(two_stages):
    gallery = Gallery(OpenModel(two_stages, "two"))
    state = gallery.used[0]
    view = syllables.trajectory(two_stages, model="two", syllable=state, gallery=gallery)
    found = gallery.trajectory(state)
    segments, points = view.Segments.I, view.Points.I
    assert len(segments) == len(found.bones) * len(found.seconds)
    assert len(points) == len(found.keypoints) * len(found.seconds)
    a, b = found.bones[1]
    row = 2 * len(found.bones) + 1
    drawn = [segments.dimension_values(i)[row] for i in range(4)]
    np.testing.assert_allclose(drawn, [*found.pose[2, a], *found.pose[2, b]])
    colors = segments.dimension_values("color")
    assert colors[-1] == syllable_color(state)
    figure = hv.render(view)
    assert figure.y_range.start > figure.y_range.end  # as videos show it
    assert "(" in figure.xaxis.axis_label  # units


def test_views__in_three_dimensions_are_from_above_and_from_the_side(solid):
    gallery = Gallery(OpenModel(solid, "two"))
    state = gallery.used[0]
    view = syllables.trajectory(solid, model="two", syllable=state, gallery=gallery)
    above, side = list(view)
    pose = gallery.trajectory(state).pose
    np.testing.assert_allclose(side.Points.I.dimension_values(1), pose[..., 2].ravel())
    np.testing.assert_allclose(above.Points.I.dimension_values(1), pose[..., 1].ravel())
    figure = hv.render(side)
    assert figure.y_range.start < figure.y_range.end
    assert figure.yaxis.axis_label.startswith("up")
    both = syllables.compare(solid, model="two", syllables=gallery.used[:2], gallery=gallery)
    assert len(list(both)) == 4


def test_compare__has_common_axes(two_stages):
    gallery = Gallery(OpenModel(two_stages, "two"))
    a, b = gallery.used[:2]
    figures = [
        hv.render(view)
        for view in syllables.compare(two_stages, model="two", syllables=(a, b), gallery=gallery)
    ]
    spans = [(f.x_range.start, f.x_range.end, f.y_range.start, f.y_range.end) for f in figures]
    assert spans[0] == spans[1]
    for state in (a, b):
        pose = gallery.trajectory(state).pose
        assert spans[0][0] < pose[..., 0].min() < pose[..., 0].max() < spans[0][1]


def test_examples__share_their_axes_too(two_stages):
    views = list(syllables.examples(two_stages, model="two", syllable=0, most=3))
    assert len(views) == 3
    assert len({hv.render(view).x_range.end for view in views}) == 1


def test_durations__of_two_syllables_on_common_axes(store):
    view = syllables.durations(store, model="m", syllable=[0, 2])
    first, second = (part for part in view if isinstance(part, hv.Histogram))
    np.testing.assert_array_equal(first.edges, second.edges)
    opened = models.open_labels(store, "m")
    assert f"{float(opened['median_duration'][2]):.0f} ms" in second.label


def test_frequency__has_a_point_a_session_and_the_mean_of_each_group(grouped, labels):
    view = syllables.frequency(grouped, model="m", syllable=1, coordinate="group")
    points, means = view.Points.I, view.Segments.I
    share = [100 * (row == 1).sum() / (row >= 0).sum() for row in labels]
    found = dict(zip(points.dimension_values("session"), points.dimension_values(1), strict=True))
    np.testing.assert_allclose([found[f"session_00{i}"] for i in range(3)], share)
    # Groups by name: not given, old, young.
    np.testing.assert_allclose(means.dimension_values(1), [share[2], share[0], share[1]])


def test_neighbours__are_called_by_their_names(grouped):
    changes = models.open_labels(grouped, "m")["transition_count"].values
    _, after = neighbours_of(changes, 1, max_neighbours=6)
    name_syllable(grouped, "m", int(after.syllable[0]), name="rear")
    view = list(syllables.neighbours(grouped, model="m", syllable=1))[1]
    assert view.dimension_values("syllable")[0] == f"{after.syllable[0]} rear"
    assert view.dimension_values("changes")[0] == after.count[0]


@pytest.mark.parametrize(
    "draw", [syllables.trajectory, syllables.durations, syllables.frequency, syllables.neighbours]
)
def test_views__of_a_syllable_that_is_none(two_stages, draw, helpers):
    with pytest.raises(InputError, match=f"0 to {helpers.n_states - 1}"):
        draw(two_stages, model="two", syllable=helpers.n_states)


def test_views__of_labels_without_poses_say_so(store):
    with pytest.raises(MissingData, match="latent"):
        syllables.trajectory(store, model="m", syllable=0)


def test_report__calls_syllables_by_their_names(grouped):
    name_syllable(grouped, "m", 1, name="<b>rear</b>")
    table = facts(OpenModel(grouped, "m", "v1")).table
    assert table is not None
    assert "1 <b>rear</b>" in {entry.label for entry in table.used}


# ------------------------------------------------------------------ pictures


def test_picture__is_a_drawing_inside_its_box(two_stages, solid):
    for store, n_views in ((two_stages, 1), (solid, 2)):
        gallery = Gallery(OpenModel(store, "two"))
        found = [gallery.trajectory(state) for state in gallery.used]
        box = pose_drawings.extent(found, 0.55)
        svg = ElementTree.fromstring(
            pose_drawings.picture(found[0], half=box, label="<poses> & more")
        )
        assert svg.attrib["aria-label"] == "<poses> & more"
        _, _, width, height = map(float, svg.attrib["viewBox"].split())
        assert (width, round(height / (width / n_views), 2)) == (200 * n_views, 0.55)
        circles = [part for part in svg if part.tag.endswith("circle")]
        assert len(circles) == n_views * len(found[0].front) * len(found[0].seconds)
        for circle in circles:
            assert 0 <= float(circle.attrib["cx"]) <= width
            assert 0 <= float(circle.attrib["cy"]) <= height


def test_fading__goes_from_light_to_the_colour_of_the_syllable():
    colors = pose_drawings.fading("#0072b2", 4)
    assert colors[-1] == "#0072b2"
    light = [sum(int(color[i : i + 2], 16) for i in (1, 3, 5)) for color in colors]
    assert light == sorted(light, reverse=True)
