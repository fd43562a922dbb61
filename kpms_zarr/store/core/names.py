"""Names of keypoints, individuals and sessions: as they are stored, typed and matched."""

from __future__ import annotations

import difflib
import shlex
import unicodedata
from collections.abc import Iterable, Sequence

_ESCAPED = ',"\\-=[]*? '
"""Before any other character a backslash is one."""
_PATTERN = "[*?"
_PLAIN, _QUOTED, _ESCAPE = range(3)
_Part = list[tuple[str, int]]
"""Characters, and how each was typed."""


def tidy(name: str) -> str:
    """Tidy a name for the store: no blanks around it, one blank for several, Unicode composed.

    What cannot be seen must not tell names apart: nobody could type it.
    """
    return " ".join(unicodedata.normalize("NFC", name).split())


# ------------------------------------------------------------------ as people type them


def parse_names(text: str) -> list[str]:
    r"""Parse ``a,"b,c",d\,e`` as names.

    Separated by commas; blanks around a name do not count. A name that begins with ``"`` ends with
    the next one, where ``""`` stands for one inside; a backslash takes the next of the characters
    ``,"\-=[]*?`` and the blank as it is.

    Raises
    ------
    ValueError
        For a quote without an end.
    """
    return [_text(part) for part in _split(text)]


def parse_bones(text: str) -> list[tuple[str, list[tuple[str, str]]]]:
    """Parse ``a-b,"c-d"-e`` as bones: each as typed, and all ways to read it as two names.

    Raises
    ------
    ValueError
        For a quote without an end.
    """
    bones = []
    for part in _split(text, "-"):
        cuts = [i for i, char in enumerate(part) if char == ("-", _PLAIN)]
        ways = [(_text(part[:i]), _text(part[i + 1 :])) for i in cuts]
        bones.append((_text(part), [way for way in ways if all(way)]))
    return bones


def parse_selectors(text: str) -> tuple[str, ...]:
    r"""Parse ``mouse_1,"a,b",group=x*`` as selectors, typed as names are; skip empty parts.

    A pattern character behind a backslash stands for itself.

    Raises
    ------
    ValueError
        For a quote without an end.
    """
    parts = [
        [
            (f"[{char}]" if kind == _ESCAPE and char in _PATTERN else char, kind)
            for char, kind in one
        ]
        for one in _split(text, "=")
    ]
    return tuple(found for found in map(_text, parts) if found)


def _split(text: str, joints: str = "") -> list[_Part]:
    """Split at commas; a quote may also stand behind one of ``joints``."""
    parts: list[_Part] = [[]]
    is_open, may_open = False, True
    rest = iter(enumerate(text))
    for i, char in rest:
        following = text[i + 1 : i + 2]
        if is_open and char == '"':
            if following == '"':
                parts[-1].append((char, _QUOTED))
                next(rest)
            else:
                is_open = False
        elif is_open:
            parts[-1].append((char, _QUOTED))
        elif char == '"' and may_open:
            is_open = True
        elif char == "\\" and following and following in _ESCAPED:
            parts[-1].append((following, _ESCAPE))
            next(rest)
        elif char == ",":
            parts.append([])
        else:
            parts[-1].append((char, _PLAIN))
        may_open = not is_open and (char in f",{joints}" or (may_open and char.isspace()))
    if is_open:
        raise ValueError(f"a quote without an end in {text!r}")
    return parts


def _text(part: _Part) -> str:
    """Strip typed text of blanks that are neither quoted nor escaped."""
    inside = [i for i, (char, kind) in enumerate(part) if kind or not char.isspace()]
    kept = part[inside[0] : inside[-1] + 1] if inside else []
    return "".join(char for char, _ in kept)


def quoted(name: str, joints: str = "") -> str:
    """Quote a name so that :func:`parse_names` gives it back, also beside ``joints`` like ``-``."""
    is_safe = name == name.strip() != "" and not any(char in f',"\\{joints}' for char in name)
    return name if is_safe else '"' + name.replace('"', '""') + '"'


def joined(names: Iterable[str]) -> str:
    """Join names as the value of an option, not yet for a shell."""
    return ",".join(map(quoted, names))


def typed(text: str) -> str:
    """Quote a text for a shell."""
    return shlex.quote(text) if "'" in text or not text.isprintable() else f"'{text}'"


# ------------------------------------------------------------------ found and not found


def match(name: str, names: Sequence[str]) -> str | None:
    """Find the name that is meant: the same, or the only one that is the same when tidy.

    Blanks and compositions of Unicode do not count, in stores of before they were made alike.
    """
    if name in names:
        return name
    same = [one for one in names if tidy(one) == tidy(name)]
    return same[0] if len(same) == 1 else None


def hint(name: str, names: Sequence[str], *, prefix: str = "", max_names: int = 1) -> str:
    """Suggest names: ``did you mean 'Nose' (upper and lower case differ)? ``, "" without any."""
    case = [one for one in names if tidy(one).casefold() == tidy(name).casefold()]
    blank = [one for one in names if _bare(one) == _bare(name)]
    if case and name not in case:
        return f"did you mean {_either(case[:max_names], prefix)} (upper and lower case differ)? "
    if blank and name not in blank:
        return f"did you mean {_either(blank[:max_names], prefix)} (blanks or '_' and '-' differ)? "
    near = [
        one
        for one in difflib.get_close_matches(name, names, n=max_names, cutoff=0.5)
        if one != name
    ]
    return f"did you mean {_either(near, prefix)}? " if near else ""


def _bare(name: str) -> str:
    return "".join(char for char in tidy(name).casefold() if char not in " _-")


def _either(names: Sequence[str], prefix: str) -> str:
    return " or ".join(typed(prefix + quoted(name)) for name in names)
