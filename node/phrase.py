"""The form of a sentence in the catalogue of node/messages.py."""

from typing import NamedTuple


class Phrase(NamedTuple):
    """One sentence in both languages."""

    en: str
    zh: str
