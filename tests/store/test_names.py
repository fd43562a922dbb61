"""Any name can be stored, typed and asked for."""

from __future__ import annotations

import shlex
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kpms_zarr.store.core import names
from kpms_zarr.store.core.commands import for_shell
from kpms_zarr.store.errors import InputError
from kpms_zarr.store.study.settings import StudySettings, parse_skeleton, settings_from_names
from kpms_zarr.store.wording import option

NASTY = st.sampled_from(
    ["a", "A", "b", " ", ",", "=", '"', "'", "/", "\\", "%", "-", "*", "?", "[", "]", "é",
     "e\u0301", "漢", "\u00a0", "\t", "\n", "001", "true", "None", "$",
     "`", "!", ";", "{", "}", "#", "&", ":"]
)  # fmt: skip
TEXT = (st.lists(NASTY, min_size=1, max_size=8).map("".join) | st.text(min_size=1)).map(names.tidy)
NAMES = TEXT.filter(bool)


@given(st.text())
def test_tidy__says_the_same_twice(text: str) -> None:
    once = names.tidy(text)
    assert names.tidy(once) == once == once.strip()
    assert "  " not in once


def test_tidy__typed_and_stored_are_one() -> None:
    assert names.tidy("e\u0301ar ") == "\u00e9ar" == names.tidy(" \u00e9ar\u00a0")
    assert names.tidy("ear  \t left\n") == "ear left"


@given(st.lists(NAMES, min_size=1))
def test_names__come_back_from_a_shell(given: list[str]) -> None:
    (value,) = shlex.split(shlex.quote(names.joined(given)))
    assert names.parse_names(value) == given
    words = shlex.split(for_shell(option("keypoints", given)))
    assert words == ["--keypoints", value] or words == [f"--keypoints={value}"]
    assert shlex.split(names.typed(given[0])) == [given[0]]


@given(NAMES)
def test_names__are_selectors_where_they_are_quoted(name: str) -> None:
    assert names.parse_selectors(names.quoted(name)) == (name,)
    both = names.parse_selectors(f"{names.quoted(name)},group={names.quoted(name)}")
    assert both == (name, f"group={name}")


@given(st.lists(NAMES, min_size=2, max_size=5, unique=True))
def test_bones__of_any_names(keypoints: list[str]) -> None:
    bones = list(pairwise(keypoints))
    text = ",".join("-".join(names.quoted(end, "-") for end in bone) for bone in bones)
    assert parse_skeleton(text, keypoints) == bones
    settings = StudySettings(tuple(keypoints), ("x", "y"))
    chosen = settings_from_names(
        settings, anterior=keypoints[:1], posterior=keypoints[1:], skeleton=bones
    )
    assert chosen.skeleton == tuple(bones)


def test_parse_names__blanks_quotes_and_backslashes() -> None:
    assert names.parse_names(r'a , "b,c",d\,e') == ["a", "b,c", "d,e"]
    assert names.parse_names('"say ""hi""",6" wide') == ['say "hi"', '6" wide']
    assert names.parse_names(r'" a ",\ b\ ,c\d') == [" a ", " b ", r"c\d"]
    with pytest.raises(ValueError, match="quote without an end"):
        names.parse_names('a,"b')
    assert names.parse_selectors(r" a\*, , b*,x=[c] ") == ("a[*]", "b*", "x=[c]")


def test_parse_skeleton__names_that_hold_the_dash() -> None:
    ears = ["ear-left", "nose", "ear", "left-nose"]
    assert parse_skeleton("ear-left-nose", ears[:3]) == [("ear-left", "nose")]
    with pytest.raises(InputError) as caught:
        parse_skeleton("ear-left-nose", ears)
    problem = caught.value.problems[0]
    assert "'ear' to 'left-nose', 'ear-left' to 'nose'" in problem.found
    assert problem.fix.endswith("""'ear-"left-nose"' or '"ear-left"-nose'""")
    for word in ("""'ear-"left-nose"'""", """'"ear-left"-nose'"""):
        (typed,) = shlex.split(word)
        assert len(parse_skeleton(typed, ears)) == 1
    with pytest.raises(InputError, match="quote without an end"):
        parse_skeleton('"ear-left', ears)


def test_match__what_cannot_be_seen_does_not_count() -> None:
    assert names.match("nose", ["nose ", "ear"]) == "nose "
    assert names.match("nose", ["nose ", "nose"]) == "nose"
    assert names.match("nose", [" nose", "nose "]) is None
    assert names.match("Nose", ["nose"]) is None


def test_hint__names_what_differs_and_never_what_was_typed() -> None:
    assert names.hint("Nose", ["nose"]) == "did you mean 'nose' (upper and lower case differ)? "
    assert names.hint("tail base", ["TailBase"]).startswith("did you mean 'TailBase' (blanks")
    assert names.hint("nosee", ["nose"]) == "did you mean 'nose'? "
    assert names.hint("mouse", ["mouse,1"], prefix="name=") == "did you mean 'name=\"mouse,1\"'? "
    assert names.hint("nose", ["nose", "x"]) == ""


@given(NAMES, st.lists(NAMES, max_size=4))
def test_hint__can_be_typed(name: str, known: list[str]) -> None:
    hint = names.hint(name, known)
    if hint:
        word = hint.removeprefix("did you mean ").rpartition("?")[0].rsplit(" (", 1)[0]
        (typed,) = shlex.split(word)
        (found,) = names.parse_names(typed)
        assert found in known
        assert found != name
