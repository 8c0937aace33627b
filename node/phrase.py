"""One sentence of the command line, in both of its languages."""

from typing import NamedTuple


class Phrase(NamedTuple):
    """The same with the same facts in braces."""

    en: str
    zh: str
