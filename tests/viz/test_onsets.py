"""Pictures of what happens around onsets: sheets as SVG, PDF and PNG, movies, and views."""

from __future__ import annotations

import json
import re
import xml.etree.ElementTree as ElementTree
import zlib

import holoviews as hv
import numpy as np
import pandas as pd
import pytest
from PIL import Image

import kpms_zarr
from helpers.posed import write_posed
from kpms_zarr import cli, viz
from kpms_zarr.store.errors import InputError
from kpms_zarr.viz.shared.sheets import PaperSheet, pdf, png, svg
from kpms_zarr.viz.syllables.typical import overview_sheet, syllable_sheet, typical_poses


@pytest.fixture(scope="module", params=[2, 3])
def found(request, tmp_path_factory):
    store = str(tmp_path_factory.mktemp(f"onsets{request.param}") / "study.zarr")
    write_posed(store, n_space=request.param, lengths=(900, 600))
    return kpms_zarr.trajectories(store, model="m", bouts=3)


@pytest.fixture(scope="module")
def average(found):
    return kpms_zarr.triggered_average(str(found.attrs["store"]), model="m", shuffles=99)


# ------------------------------------------------------------------ paper


def small_sheet():
    sheet = PaperSheet(100, 60)
    sheet.area(np.array([(10, 10), (50, 10), (50, 50), (10, 50)]), "#00ff00")
    sheet.line(np.array([(60, 30), (90, 30), (np.nan, 0), (0, 55), (20, 55)]), "#ff0000", 4)
    sheet.disc(np.array([30.0, 30.0]), 8, "#0000ff", "#ffffff")
    sheet.disc(np.array([np.nan, 30.0]), 8, "#0000ff")
    sheet.words((50, 8), "a <b> (c) \\ é 漢", 8, anchor="m")
    return sheet


def test_png__has_every_item_in_its_place():
    image = png(small_sheet(), 2.0)
    assert image.size == (200, 120)
    for place, color in {
        (24, 24): (0, 255, 0), (60, 60): (0, 0, 255), (150, 60): (255, 0, 0),
        (20, 110): (255, 0, 0), (110, 90): (255, 255, 255),
    }.items():  # fmt: skip
        assert image.getpixel(place) == color, place


def test_svg__is_xml_with_every_item():
    root = ElementTree.fromstring(svg(small_sheet()))
    tags = [child.tag.split("}")[1] for child in root]
    assert tags == ["rect", "path", "path", "path", "circle", "text"]
    assert root[-1].text == "a <b> (c) \\ é 漢"
    assert root[-1].get("text-anchor") == "middle"


def test_pdf__is_as_its_table_says():
    """Every object begins where the table of the file says, and pages hold what was drawn."""
    data = pdf([small_sheet(), PaperSheet(30, 20)], "a (title)")
    start = int(re.search(rb"startxref\n(\d+)\n%%EOF\n$", data)[1])
    assert data[start:].startswith(b"xref\n0 9\n")
    places = [int(x) for x in re.findall(rb"(\d{10}) 00000 n \n", data[start:])]
    for number, place in enumerate(places, 1):
        assert data[place:].startswith(b"%d 0 obj\n" % number)
    assert b"/Count 2" in data
    boxes = re.findall(rb"/MediaBox \[([^]]+)\]", data)
    assert boxes == [b"0 0 100.00 60.00", b"0 0 30.00 20.00"]
    content = re.search(rb"/Length (\d+) [^\n]+\nstream\n", data)
    page = zlib.decompress(data[content.end() : content.end() + int(content[1])]).decode("cp1252")
    assert "10.00 50.00 m 50.00 50.00 l 50.00 10.00 l 10.00 10.00 l h f" in page  # from the bottom
    assert page.count(" S\n") == 2
    assert page.count(" c ") == 4  # quarters of the disc
    assert "(a <b> \\(c\\) \\\\ é ?) Tj" in page


# ------------------------------------------------------------------ trajectories


def test_sheets__show_every_syllable_and_example(found):
    n_views = found.sizes["space"] - 1
    text = svg(overview_sheet(found))
    labels = re.findall(r">(\d+)</text>", text)
    assert {"0", "1", "2"} <= set(labels)
    assert text.count(">above</text>") == (3 if n_views == 2 else 0)
    one = svg(syllable_sheet(found, 1))
    assert "Syllable 1" in one
    assert "median of" in one
    for name, frame in zip(found["session"].values[1], found["onset_frame"].values[1], strict=True):
        assert f"{name}, frame {frame:,}" in one
    # Eight skeletons of three bones, of the typical one and of three examples, in each view.
    assert one.count("<path") >= 4 * n_views * 8 * 3


def test_drawn_skeletons__are_the_trajectory(found):
    (one,) = typical_poses(found, [2], moments=22).values()
    np.testing.assert_array_equal(one.pose, found["trajectory"].values[2])
    np.testing.assert_array_equal(one.seconds, found["time"].values)


@pytest.mark.parametrize("kind", ["pdf", "png", "svg"])
def test_trajectory_files__are_one_of_all_and_one_of_each(found, tmp_path, kind):
    result = viz.trajectory_files(found, out=tmp_path / "new", format=kind)
    names = [f"trajectories.{kind}", *(f"trajectory_{n:03d}.{kind}" for n in range(3))]
    assert result.files == tuple(names)
    assert result.is_whole
    sizes = [(tmp_path / "new" / name).stat().st_size for name in names]
    assert sum(sizes) == result.n_bytes
    assert min(sizes) > 1000
    before = [(tmp_path / "new" / name).read_bytes() for name in names]
    again = viz.trajectory_files(found, out=tmp_path / "new", format=kind)
    assert again.notes == ("4 files of the same command replaced",)
    assert [(tmp_path / "new" / name).read_bytes() for name in names] == before
    other = found.assign_attrs(seed=7)
    with pytest.raises(InputError, match="other settings"):
        viz.trajectory_files(other, out=tmp_path / "new", format=kind)
    if kind == "png":
        shown = np.asarray(Image.open(tmp_path / "new" / names[0]))
        assert 0.01 < (shown != 255).any(-1).mean() < 0.6


@pytest.mark.parametrize("kind", ["mp4", "gif"])
def test_trajectory_files__are_movies(found, tmp_path, kind):
    av = pytest.importorskip("av")
    one = found.isel(syllable=[0])
    result = viz.trajectory_files(one, out=tmp_path, format=kind, speed=0.5)
    assert result.files == (f"trajectories.{kind}", f"trajectory_000.{kind}")
    for name in result.files:
        with av.open(str(tmp_path / name)) as container:
            frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
        assert len(frames) == found.sizes["time"]
        assert (frames[0] != frames[-1]).any()  # it moves


def test_trajectory_files__refuse_and_say_what_is_left_out(found, tmp_path):
    with pytest.raises(InputError, match="docx"):
        viz.trajectory_files(found, out=tmp_path / "x", format="docx")
    lacks = found.copy()
    lacks["n_core"] = ("syllable", [3, 0, 3])
    result = viz.trajectory_files(lacks, out=tmp_path / "y", format="svg")
    assert (result.left_out, result.is_whole) == ((1,), False)
    assert "trajectory_001.svg" not in result.files
    lacks["n_core"] = ("syllable", [0, 0, 0])
    with pytest.raises(InputError, match="none"):
        viz.trajectory_files(lacks, out=tmp_path / "z")
    assert not (tmp_path / "x").exists()
    assert not (tmp_path / "z").exists()


def test_views__are_of_holoviews(found, average):
    n_views = found.sizes["space"] - 1
    layout = viz.trajectories(found)
    assert len(layout) == 3 * n_views
    assert isinstance(layout, hv.Layout)
    assert len(viz.trajectories(found, syllables=[1])) == n_views
    with pytest.raises(InputError, match="7"):
        viz.trajectories(found, syllables=[7])
    layout = viz.triggered_average(average)
    assert len(layout) == 3
    curve = layout.values()[1].values()[3]
    np.testing.assert_allclose(curve.dimension_values("mean"), average["mean"].values[1])
    hv.renderer("bokeh").get_plot(layout)
    with pytest.raises(InputError, match="9"):
        viz.triggered_average(average, syllables=[9])


# ------------------------------------------------------------------ averages


def test_triggered_average_file__in_every_kind(average, tmp_path):
    for kind in ("pdf", "png", "svg", "html"):
        out = tmp_path / f"a.{kind}"
        assert viz.triggered_average_file(average, out=out) == out.stat().st_size > 1000
    text = (tmp_path / "a.html").read_text()
    for place in range(3):
        assert f"{int(average['n_onsets'][place]):,} onsets" in text
    for out in (tmp_path / "a.docx", tmp_path / "no" / "a.pdf"):
        with pytest.raises(InputError):
            viz.triggered_average_file(average, out=out)


# ------------------------------------------------------------------ command line


def test_command_line__writes_what_python_returns(found, average, tmp_path, capsys):
    store = str(found.attrs["store"])
    line = ["trajectories", store, "--model", "m", "--bouts", "3", "--format", "svg"]
    assert cli.main([*line, "--out", str(tmp_path / "t")]) == 0
    said = capsys.readouterr().out
    assert "4 files" in said
    assert "trajectories.svg" in said
    assert cli.main([*line, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["dims"]["syllable"] == 3
    line = ["trajectories", store, "--model", "m", "--format", "svg", "--min-duration", "9"]
    assert cli.main([*line, "--out", str(tmp_path / "none")]) == 2
    assert "--min-duration" in capsys.readouterr().err
    assert not (tmp_path / "none").exists()
    files = [str(tmp_path / name) for name in ("a.csv", "a.parquet", "a.pdf")]
    line = ["triggered-average", store, "--model", "m", "--shuffles", "99", "--out", *files]
    assert cli.main(line) == 0
    said = capsys.readouterr().out
    assert "largest deviation over all times" in said
    assert f"picture: {files[2]}" in said
    for table in (pd.read_csv(files[0]), pd.read_parquet(files[1])):
        one = table[table["syllable"] == 1]
        np.testing.assert_allclose(one["mean"], average["mean"].values[1], rtol=1e-9)
        high = average["baseline_quantile"].values[1, 1]
        np.testing.assert_allclose(one["baseline_high"], high, rtol=1e-9)
        assert one["p"].iloc[0] == pytest.approx(float(average["p"][1]))


def test_command_line__adds_signals(found, tmp_path, capsys):
    store, path = str(found.attrs["store"]), tmp_path / "light.csv"
    name = kpms_zarr.info(store).sessions[0].name
    path.write_text("time,light\n" + "".join(f"{t / 10},{t}\n" for t in range(301)))
    assert cli.main(["signals", store, str(path), "--session", name, "--units", "lux"]) == 0
    said = capsys.readouterr().out
    assert "signal light of 1 session written: v1, 0.0 % of the frames" in said
    assert "kpms-zarr triggered-average" in said
    line = ["triggered-average", store, "--model", "m", "--signal", "light", "--shuffles", "19"]
    assert cli.main(line) == 0
    said = capsys.readouterr().out
    assert "1 session without the signal, left out" in said
    assert "light (lux)" in said
    assert cli.main(["signals", store, "none", "--name", "light"]) == 0
    assert cli.main(line) == 2
