"""Link between the choices in a page and its address, which can be sent to others.

Panel has this too, but takes names of sessions for numbers ("001" becomes 1), and one value that it
cannot use for a reason to use none of those behind it.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any
from urllib.parse import parse_qsl, urlencode

import param

from kpms_zarr.viz.explore.state import IN_URL, State


def read(search: str) -> dict[str, Any]:
    """Read the choices that an address holds.

    Parameters
    ----------
    search : str
        The part from the question mark on.

    Returns
    -------
    dict of str to value
        By names of parameters of :class:`State`, in the order of ``IN_URL``; what is no value of
        its parameter is left out.
    """
    given = dict(parse_qsl(search.lstrip("?"), keep_blank_values=True))
    found = {}
    for name in IN_URL:
        value = _value(State.param[name], given[name]) if name in given else None
        if value is not None:
            found[name] = value
    return found


def _value(parameter: param.Parameter, text: str) -> Any:
    """Parse a value of a parameter, or None."""
    if isinstance(parameter, param.String):
        return text
    try:
        number = float(text)
    except ValueError:
        return None
    if not math.isfinite(number):
        return None
    if isinstance(parameter, param.Integer):
        return int(number)
    return number if number >= 0 else None


def write(state: State, search: str) -> str:
    """Write an address with the choices, and with what else it held, such as a token."""
    others = [
        (name, text)
        for name, text in parse_qsl(search.lstrip("?"), keep_blank_values=True)
        if name not in IN_URL
    ]
    chosen = [(name, getattr(state, name)) for name in IN_URL]
    return "?" + urlencode([*others, *(pair for pair in chosen if pair[1] != "")])


def tie(state: State, location: Any) -> Callable[[], None]:
    """Keep choices and address equal, beginning with what the address holds.

    Returns
    -------
    callable
        Puts all that is chosen into the address, as happens after every choice.
    """

    def from_address(*_: Any) -> None:
        given = read(location.search)
        state.param.update(
            **{name: one for name, one in given.items() if one != getattr(state, name)}
        )
        state.mend()

    def to_address(*_: Any) -> None:
        search = write(state, location.search)
        if search != location.search:
            location.search = search

    from_address()
    location.param.watch(from_address, "search")
    state.param.watch(to_address, list(IN_URL))
    return to_address
