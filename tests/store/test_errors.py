"""Errors carry their problems wherever they go."""

import pickle

from kpms_zarr.store.errors import InputError, Problem


def test_input_error__survives_pickling_with_all_problems():
    problems = [Problem("a", "b", "c", "d"), Problem("e", "f", "g", "h")]
    error = pickle.loads(pickle.dumps(InputError.of(problems)))
    assert error.problems == tuple(problems)
    assert str(error) == str(InputError.of(problems))


def test_input_error__says_the_four_parts():
    text = str(InputError(expected="two", found="three", where="file.csv", fix="remove one"))
    for part in ("two", "three", "file.csv", "remove one"):
        assert part in text


def test_problem__can_be_printed_and_is_no_book():
    problem = Problem("a" * 10**6, "\ud800", "folder/\udcff.csv", "mäuse")
    assert len(problem.expected) < 5_000
    assert (problem.found, problem.where) == ("\\ud800", "folder/\\udcff.csv")
    assert problem.fix == "mäuse"
    str(problem).encode()
