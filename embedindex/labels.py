"""What a label is: ``key=value`` in its stored spelling, when two spellings mean the same, and who said it.

Conventions: keys are lower case; values keep the spelling they came with. A label's source says where it is from:
``human`` (set by hand), ``folders``, ``tags``, ``pattern``, ``file`` (an imported CSV or JSON) or ``predicted:METHOD``.
What a machine predicted never counts as knowledge: it is not learnt from and gives way to any other source.
"""

from __future__ import annotations

import re
import unicodedata

from embedindex.errors import UsageError

HUMAN = "human"
PREDICTED = "predicted"
MAX_TEXT = 200  # a longer value is a comment that strayed into the column
_KEY = re.compile(r"[^\W\d_][\w.:\- ]*")

# Genres by their letters, with "n" for "&" and "and": other names for the same, and how it is spelt here.
_ALIASES = {
    "rhythmnblues": "rnb",
    "dnb": "drumnbass",
    "drumbass": "drumnbass",
    "rockroll": "rocknroll",
    "alternrock": "alternativerock",
    "altrock": "alternativerock",
    "psychedelictrance": "psytrance",
    "electronicmusic": "electronic",
}
_SPELLINGS = {
    "rnb": "r&b",
    "drumnbass": "drum and bass",
    "rocknroll": "rock and roll",
    "hiphop": "hip hop",
    "triphop": "trip hop",
    "synthpop": "synth pop",
    "postrock": "post rock",
    "alternativerock": "alternative rock",
    "lofi": "lo-fi",
    "kpop": "k-pop",
    "jpop": "j-pop",
}
# Numbers 0 to 79 of ID3v1 (https://id3.org/ID3v1 and id3v2.3.0, appendix A), in the spelling used here.
ID3V1_GENRES = (
    "blues", "classic rock", "country", "dance", "disco", "funk", "grunge", "hip hop", "jazz", "metal", "new age",
    "oldies", "other", "pop", "r&b", "rap", "reggae", "rock", "techno", "industrial", "alternative", "ska",
    "death metal", "pranks", "soundtrack", "euro techno", "ambient", "trip hop", "vocal", "jazz funk", "fusion",
    "trance", "classical", "instrumental", "acid", "house", "game", "sound clip", "gospel", "noise",
    "alternative rock", "bass", "soul", "punk", "space", "meditative", "instrumental pop", "instrumental rock",
    "ethnic", "gothic", "darkwave", "techno industrial", "electronic", "pop folk", "eurodance", "dream",
    "southern rock", "comedy", "cult", "gangsta", "top 40", "christian rap", "pop funk", "jungle",
    "native american", "cabaret", "new wave", "psychedelic", "rave", "showtunes", "trailer", "lo-fi", "tribal",
    "acid punk", "acid jazz", "polka", "retro", "musical", "rock and roll", "hard rock",
)  # fmt: skip
_NO_GENRE = {"", "other", "unknown", "unknowngenre", "none", "misc", "genre", "undefined", "notspecified"}


def is_predicted(source: str) -> bool:
    """Return whether a label of that source was predicted, not given."""
    return source.partition(":")[0] == PREDICTED


def clean_text(text: str) -> str:
    """Return `text` as it is stored: composed (NFC), on one line, without what no database takes."""
    storable = text.encode("utf-8", "replace").decode()
    visible = "".join(char if char.isprintable() else " " for char in unicodedata.normalize("NFC", storable))
    return " ".join(visible.split())


def clean_key(text: str) -> str:
    """Return a key as it is stored: lower case.

    Raises:
        UsageError: it is no key: it must begin with a letter and hold letters, digits, spaces and ``_ . : -`` only.
    """
    key = clean_text(text).lower()
    if not _KEY.fullmatch(key) or len(key) > MAX_TEXT:
        raise UsageError(f"{text!r} cannot be the key of a label: use letters, digits, - and _, for example genre")
    return key


def clean_value(text: str) -> str:
    """Return a value as it is stored.

    Raises:
        UsageError: there is nothing in it, or more than a label's worth.
    """
    value = clean_text(text)
    if not value or len(value) > MAX_TEXT:
        raise UsageError(f"{text[:40]!r} cannot be the value of a label: it needs 1 to {MAX_TEXT} characters")
    return value


def parse_pair(text: str) -> tuple[str, str]:
    """Return (key, value) of ``KEY=VALUE``.

    Raises:
        UsageError: it is not of that form.
    """
    key, equals, value = text.partition("=")
    if not equals:
        raise UsageError(f"{text!r} is no label: write KEY=VALUE, for example genre=ambient")
    return clean_key(key), clean_value(value)


def _genre_letters(text: str) -> str:
    joined = re.sub(r"&|\band\b|'n'|\bn\b", "n", text.casefold())
    letters = "".join(char for char in unicodedata.normalize("NFKD", joined) if char.isalnum())
    return _ALIASES.get(letters, letters)


def same(key: str, value: str) -> str:
    """Return a text that is equal for two values of a key that mean the same.

    Case makes no difference, nor do blanks, ``_`` and ``-`` between letters: ``Hat_Closed`` is ``hat closed``. Genres
    are compared by letters and digits alone, and by their other names: ``Hip-Hop`` is ``HipHop``, ``R&B`` is ``RnB``.
    """
    if key == "genre":
        return _genre_letters(value) or value
    return re.sub(r"(?<=[^\W\d_])[\s_\-]+(?=[^\W\d_])", " ", value.casefold()).strip()


def genres_of_tag(text: str) -> list[str]:
    r"""Return the genres that a tag names, in one spelling: lower case, blanks between words; [] for none.

    Understands ID3's numbers (``17``, ``(17)``, ``(4)Eurodisco``) and several genres in one tag, separated by ``;``,
    ``,``, ``/``, ``|`` or ``\\``.
    """
    found: list[str] = []
    for number in re.findall(r"\((\d{1,3})\)", text):
        if int(number) < len(ID3V1_GENRES):
            found.append(ID3V1_GENRES[int(number)])
    rest = re.sub(r"\((\d{1,3}|RX|CR)\)", ";", text)
    for part in re.split(r"[;,/|\\\0]", rest):
        name = _genre(part)
        if name:
            found.append(name)
    named = [name for name in found if _genre_letters(name) not in _NO_GENRE]
    spelt: dict[str, str] = {}
    for name in named:
        spelt.setdefault(_genre_letters(name), name)
    return list(spelt.values())


def _genre(text: str) -> str:
    name = clean_text(text).strip("& ")
    if name.isascii() and name.isdigit():
        return ID3V1_GENRES[int(name)] if int(name) < len(ID3V1_GENRES) else ""
    known = _SPELLINGS.get(_genre_letters(name))
    return known or " ".join(re.sub(r"[_\-]+", " ", name).casefold().split())[:MAX_TEXT].strip()
