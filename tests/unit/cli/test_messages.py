"""The catalogue: both languages, the same facts, nothing unused and nothing missing."""

import re
from pathlib import Path
from string import Formatter

import pytest

from node.messages import PHRASES, Language, language, language_of, say

ROOT = Path(__file__).parents[3]
SOURCES = [ROOT / "cli.py", *sorted(ROOT.glob("rpc/**/*.py")), *sorted(ROOT.glob("bench/*.py"))]


def facts(text):
    return sorted({name for _, name, _, _ in Formatter().parse(text) if name})


@pytest.mark.parametrize("key", sorted(PHRASES))
def test_a_phrase_says_the_same_facts_in_both_languages(key):
    phrase = PHRASES[key]
    assert phrase.en.strip()
    assert facts(phrase.en) == facts(phrase.zh)
    assert re.search("[\u4e00-\u9fff]", phrase.zh)
    assert phrase.en.isascii()
    assert say(key, **dict.fromkeys(facts(phrase.en), "fact")).count("fact") >= len(
        facts(phrase.en)
    )


def test_every_phrase_is_used_and_every_used_phrase_exists():
    text = "\n".join(path.read_text(encoding="utf-8") for path in SOURCES)
    options = {f"option_{name}" for name in re.findall(r'\b_?option\(\s*"(\w+)"', text)}
    commands = {
        f"help_{name}" if group == "main" else f"help_{group}_{name}"
        for group, name in re.findall(r'_?command\((\w+), "([\w-]+)"\)', text)
    }
    said = set(re.findall(r'say\(\s*"(\w+)"', text))
    pairs = (
        "network_detached|network_ready|statement_made|statement_damaged|released_(?:locked|free)"
    )
    chosen = set(re.findall(f'"({pairs})"', text))
    assert options | commands | said | chosen == set(PHRASES)


@pytest.mark.parametrize(
    ("arguments", "environment", "expected"),
    [
        ([], {}, "en"),
        ([], {"LANG": "zh_CN.UTF-8"}, "zh"),
        ([], {"LANG": "zh_CN.UTF-8", "LC_ALL": "C"}, "en"),
        (["--lang", "zh"], {"LANG": "C"}, "zh"),
        (["--lang=en", "info"], {"LANG": "zh_CN"}, "en"),
        (["--lang"], {}, "en"),
    ],
)
def test_the_language_is_that_of_the_option_or_else_of_the_locale(arguments, environment, expected):
    assert language_of(arguments, environment) == expected


def test_the_language_of_the_call_rules():
    token = language.set(Language.CHINESE)
    try:
        assert say("node_killed", name="node1") == "node1 已终止"
    finally:
        language.reset(token)
