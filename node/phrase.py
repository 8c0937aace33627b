"""A sentence of the command line in both languages."""

from typing import NamedTuple


class Phrase(NamedTuple):
    """The same facts in braces in each."""

    en: str
    zh: str
