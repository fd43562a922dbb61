"""Tables of pictures: what is drawn, and nothing else."""

from __future__ import annotations

import io
from typing import Any

import holoviews as hv
import numpy as np
import pandas as pd
import panel as pn
import pytest
from bokeh.models import Span
from bokeh.plotting import figure
from hypothesis import given, settings
from hypothesis import strategies as st

from helpers.amount import examples
from kpms_zarr.viz.shared.picture_data import (
    PictureTable,
    attach,
    csv_of,
    figures_in,
    table_of,
    tag,
    tag_of,
)
from kpms_zarr.viz.shared.style import load

NUMBER = st.floats(allow_nan=True, allow_infinity=False, width=32)
NAME = st.text(max_size=8) | st.sampled_from(["#1", 'a"b', "a,b", "a\nb", "#c4c4c4", "x # y", ""])


def read(text: str) -> pd.DataFrame:
    """What a person's program reads."""
    return pd.read_csv(io.StringIO(text), comment="#", keep_default_na=False, na_values=[""])


def drawn(view: Any) -> Any:
    """The only figure of a view of HoloViews."""
    load()
    ((found, _),) = figures_in([pn.pane.HoloViews(view).get_root()]).values()
    return found


@settings(deadline=None, max_examples=examples(100))
@given(rows=st.lists(st.tuples(NUMBER, NUMBER), min_size=1, max_size=20))
def test_table__is_what_is_drawn(rows: list[tuple[float, float]]) -> None:
    x, y = (np.array(column) for column in zip(*rows, strict=True))
    plot: Any = figure()
    plot.scatter("time", "score", source={"time": x, "score": y, "color": ["#0072b2"] * len(x)})
    found = table_of(plot).rows
    assert list(found) == ["time", "score"]
    np.testing.assert_array_equal(found["time"], x)
    np.testing.assert_array_equal(found["score"], y)
    text = csv_of(PictureTable(found), ["a # line"])
    lines = [line for line in text.splitlines() if not line.startswith("#")]
    exact = [float(line.split(",")[1].strip(chr(34)) or "nan") for line in lines[1:]]
    np.testing.assert_array_equal(exact, y)
    # pandas 2 reads a number to one that is near.
    np.testing.assert_allclose(read(text)["score"].to_numpy(np.float64), y, rtol=1e-14)


@settings(deadline=None, max_examples=examples(100))
@given(names=st.lists(NAME, min_size=1, max_size=6))
def test_csv__gives_any_name_back(names: list[str]) -> None:
    names = [name.replace("\r", "").replace("\0", "") for name in names]
    text = csv_of(PictureTable(pd.DataFrame({"name": names, "n": range(len(names))}), ("note\nx",)))
    assert text.startswith("# note x\n")
    assert read(text)["n"].tolist() == list(range(len(names)))
    again = pd.read_csv(io.StringIO(text), comment="#", keep_default_na=False, dtype=str)
    assert again["name"].tolist() == names


def test_layers__are_named_and_below_each_other() -> None:
    plot: Any = figure()
    plot.line([1, 2], [3, 4], legend_label="mean")
    plot.line([1, 2], [5, 6])
    plot.line([9, 9], [9, 9]).visible = False
    plot.add_layout(Span(location=1.5, dimension="height"))
    found = table_of(plot).rows
    assert found["layer"].tolist() == ["mean"] * 2 + ["line"] * 2 + ["vertical line"]
    assert found["y"].tolist()[:4] == [3, 4, 5, 6]
    assert found["x"].tolist() == [1, 2, 1, 2, 1.5]


def test_image__is_a_row_for_each_cell_that_holds_something() -> None:
    values = np.array([[1.0, np.nan], [3.0, 4.0]])
    found = table_of(drawn(hv.Image(values, bounds=(0, 0, 2, 2)))).rows
    cells = {(x, y): value for x, y, value in found.itertuples(index=False)}
    assert cells == {(0.5, 1.5): 1, (0.5, 0.5): 3, (1.5, 0.5): 4}


def test_band_and_lines__are_taken_apart() -> None:
    band = hv.Area(([1, 2, 3], [0, 1, 0], [2, 3, 2]), vdims=["low", "high"])
    found = table_of(drawn(band)).rows
    assert found.to_numpy().tolist() == [[1, 0, 2], [2, 1, 3], [3, 0, 2]]
    plot: Any = figure()
    plot.multi_line([[1, 2], [3]], [[4, 5], [6]], color=["#000000", "#ffffff"])
    found = table_of(plot).rows
    assert found[["line", "x", "y"]].to_numpy().tolist() == [[0, 1, 4], [0, 2, 5], [1, 3, 6]]


def test_histogram_graph_and_nothing() -> None:
    found = table_of(drawn(hv.Histogram((np.arange(4), [1, 2, 3])))).rows
    assert found["top"].tolist() == [1, 2, 3]
    graph = hv.Graph(((np.zeros(3), np.arange(3)),))
    assert table_of(drawn(graph)).rows["layer"].nunique() == 2
    assert csv_of(table_of(figure())) == ""


def test_attached_table__stands_for_what_is_drawn() -> None:
    plot: Any = figure()
    plot.line([1], [2])
    attach(plot, lambda: PictureTable(pd.DataFrame({"a": [7]}), ("coarse",)))
    assert csv_of(table_of(plot)) == '# coarse\n"a"\n7\n'


def test_csv__is_bounded_and_says_so() -> None:
    text = csv_of(PictureTable(pd.DataFrame({"a": np.arange(50)})), ["what it is"], most=10)
    assert text.startswith("# what it is\n# the first 10 of 50 rows\n")
    assert read(text)["a"].tolist() == list(range(10))


def test_tags__are_those_of_the_figure_or_of_what_is_around_it() -> None:
    load()
    one = pn.pane.HoloViews(hv.Curve([1, 2]), tags=[tag("one", "mouse")])
    both = pn.pane.HoloViews(hv.Layout([hv.Curve([1]), hv.Curve([2])]), tags=[tag("both")])
    other = pn.pane.HoloViews(hv.Curve([1, 2]))
    found = figures_in([pn.Column(one, both, other).get_root()])
    tags = sorted(str(None if t is None else t["called"]) for _, t in found.values())
    assert tags == ["None", "both", "both", "one"]
    assert tag_of(figure()) is None


@pytest.mark.parametrize("columns", [{}, {"x": [], "y": []}])
def test_empty_layers__are_left_out(columns: dict[str, Any]) -> None:
    plot: Any = figure()
    plot.line("x", "y", source={"x": [], "y": [], **columns})
    plot.line([1], [2])
    assert table_of(plot).rows.to_numpy().tolist() == [[1, 2]]
