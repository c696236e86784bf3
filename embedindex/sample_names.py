"""Multisamples told by the names of files in one folder: those that differ only in note, velocity or repetition.

Conventions: a name is taken apart into words; a word may be a note (C4, F#2, Bb-1), a MIDI note number, a dynamic (pp
to fff), a velocity (v3, vel100, vL), a layer, or a repetition (rr2). What is left names the instrument. The rules are
strict where names of music look alike: single numbers never count (Kick 01 to Kick 20 are twenty kicks), versions (v2)
and dynamics alone ask for more files, and nothing longer than a minute and a half is a sample of a note.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import TypeAlias

MIN_MEMBERS = 4
MIN_NOTES = 5  # so many different notes, where nothing but notes differs: A1, A2, B1… are also sides of records
MAX_DURATION_S = 90.0

_WORD = re.compile(r"[\s_\-.()\[\]]+")
_NOTE = re.compile(r"([A-Ga-g])(#|b|s|sharp|flat)?(-?\d)", re.ASCII)
_REPEAT = re.compile(r"(?:rr|rnd|roundrobin|robin|rep)\d{1,3}", re.IGNORECASE | re.ASCII)
_VELOCITY = re.compile(r"(?:vel|vl|velocity|lyr|layer|dyn)\d{1,3}|v(?:\d{1,3}|[lmhs])", re.IGNORECASE | re.ASCII)
_DYNAMIC = re.compile(r"p{1,4}|f{1,4}|m[pf]", re.IGNORECASE)
_GLUED = re.compile(r"([A-G](?:#|b)?-?\d)(v(?:\d{1,3}|[LMHS])|vel\d{1,3})", re.ASCII)
_NUMBER = re.compile(r"\d{2,3}", re.ASCII)
LOWEST_NOTE, HIGHEST_NOTE = 12, 127
# (what a word says, or None when it is part of the instrument's name; the word)
Word: TypeAlias = "tuple[str | None, str]"


def instruments_of(durations_s: Mapping[str, float | None]) -> dict[str, str]:
    """Return {stem of a file's name: name of its instrument} of the files of one folder that belong to one.

    Args:
        durations_s: {stem: seconds of sound, None where unknown}.
    """
    groups: defaultdict[tuple[str, ...], dict[str, list[Word]]] = defaultdict(dict)
    for stem, duration_s in durations_s.items():
        words = _words(stem)
        if any(kind for kind, _ in words) and (duration_s is None or duration_s <= MAX_DURATION_S):
            key = tuple(f"<{kind}>" if kind else text.casefold() for kind, text in words)
            groups[_without_optional(key)][stem] = words
    found = {}
    for members in groups.values():
        if _is_instrument(members.values()):
            name = _name(next(iter(members.values())))
            found.update(dict.fromkeys(members, name))
    return found


def _words(stem: str) -> list[Word]:
    """Return (kind or None, text) of each word of a name."""
    parts = [
        part for piece in _WORD.split(_kept_signs(stem)) for part in _GLUED.sub(r"\1 \2", piece).split(" ") if part
    ]
    words: list[Word] = [(_kind(part), part.replace("\0", "-")) for part in parts]
    kinds = {kind for kind, _ in words}
    if "note" not in kinds and kinds & {"velocity", "dynamic", "repeat"}:  # a number beside those is a note's
        words = [("note" if kind is None and _is_note_number(text) else kind, text) for kind, text in words]
    return words


def _kept_signs(stem: str) -> str:
    """Protect the minus of C-1, which is no hyphen."""
    return re.sub(r"(?<![A-Za-z])([A-Ga-g](?:#|b)?)-(\d)(?!\d)", "\\1\0\\2", stem, flags=re.ASCII)


def _kind(part: str) -> str | None:
    text = part.replace("\0", "-")
    for kind, pattern in (("note", _NOTE), ("repeat", _REPEAT), ("velocity", _VELOCITY), ("dynamic", _DYNAMIC)):
        if pattern.fullmatch(text):
            return kind
    return None


def _is_note_number(text: str) -> bool:
    return bool(_NUMBER.fullmatch(text)) and LOWEST_NOTE <= int(text) <= HIGHEST_NOTE


def _without_optional(key: tuple[str, ...]) -> tuple[str, ...]:
    """Return what is left of a name when the words that may vary are taken out."""
    return tuple(word for word in key if not word.startswith("<"))


def _is_instrument(members: Iterable[list[Word]]) -> bool:
    """Return whether names that agree but for some words are those of one instrument."""
    values: defaultdict[str, set[str]] = defaultdict(set)
    count = 0
    for words in members:
        count += 1
        for kind, text in words:
            if kind:
                values[kind].add(text.casefold())
    varying = {kind for kind, texts in values.items() if len(texts) > 1}
    if count < MIN_MEMBERS or not varying:
        return False
    if varying == {"note"}:
        pitches = {re.sub(r"-?\d+$", "", text) for text in values["note"]}
        return len(values["note"]) >= MIN_NOTES and (len(pitches) < 2 or bool(pitches - set("abcd")))
    return True


def _name(words: list[Word]) -> str:
    return " ".join(text for kind, text in words if kind is None)
