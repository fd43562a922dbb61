"""Results as a notebook shows them."""

from __future__ import annotations

import dataclasses
import inspect
from html.parser import HTMLParser

import numpy as np

import kpms_zarr
from kpms_zarr.store.shown import ShownAsTable


@dataclasses.dataclass(frozen=True)
class Inner:
    n: int = 3


@dataclasses.dataclass(frozen=True)
class Example(ShownAsTable):
    name: str = "<b>& co"
    share: float = float("nan")
    number: int = 1_234_567
    is_whole: bool = True
    nothing: None = None
    values: tuple[str, ...] = tuple(f"v{i}" for i in range(20))
    mapping: dict[str, float] = dataclasses.field(default_factory=lambda: {"<a>": 0.123456})
    inner: Inner = Inner()
    array: np.ndarray = dataclasses.field(default_factory=lambda: np.zeros((3, 4)))
    hidden: int = dataclasses.field(default=7, repr=False)


class Balance(HTMLParser):
    """Parser that checks that every tag is closed, and keeps the text."""

    def __init__(self, text):
        super().__init__()
        self.open, self.text = [], ""
        self.feed(text)
        assert not self.open

    def handle_starttag(self, tag, attrs):
        if tag != "br":
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += f" {data}"


def test_table__has_every_field_and_is_well_formed():
    text = Balance(Example()._repr_html_()).text
    for part in ("<b>& co", "1,234,567", "yes", "–", "v11", "and 8 more", "<a>: 0.1235", "n 3",
                 "ndarray (3, 4)", "is whole"):  # fmt: skip
        assert part in text
    assert "v12" not in text
    assert "hidden" not in text


def test_summaries__of_public_functions_are_shown_as_tables():
    found = 0
    for name in kpms_zarr.__all__:
        function = getattr(kpms_zarr, name)
        if not inspect.isfunction(function):
            continue
        kinds = str(inspect.signature(function).return_annotation).split(" | ")
        home = inspect.getmodule(function)
        for kind in kinds:
            cls = getattr(home, kind, None)
            if inspect.isclass(cls) and dataclasses.is_dataclass(cls):
                assert issubclass(cls, ShownAsTable), f"{name}: {kind}"
                found += 1
    assert found > 20


def test_a_real_one__is_shown(tmp_path):
    arrays = {"m": np.random.default_rng(0).normal(size=(50, 3, 2))}
    summary = kpms_zarr.ingest(tmp_path / "s.zarr", arrays=arrays)
    assert "IngestSummary" in Balance(summary._repr_html_()).text
    assert "sessions" in Balance(kpms_zarr.info(tmp_path / "s.zarr")._repr_html_()).text
