"""House style as a test: what a reader would otherwise have to remind people of.

Each rule is a function from files to offenders, `path:line: what is wrong`, as a linter prints
them. Rules of ruff, basedpyright and import-linter are not repeated here. The one allow-list holds
exact entries and only shrinks: an entry that is no longer needed fails as well.
"""

import ast
import re
import subprocess
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FILE_LINES = 500
TEST_FILE_LINES = 800
FUNCTION_LINES = 70
STANDALONE_LINES = {"docs/kanglian_verify.py": 1_520}
"""What an auditor carries alone is one file, and holds what elsewhere stands in many."""

BROAD_EXCEPTS = ("rpc/jsonrpc.py:_outcome",)
"""`path:function` of each handler that may swallow anything."""

WRAPPERS = {
    "coincurve": ("ledger/crypto/secp256k1.py",),
    "httptools": ("rpc/http_messages.py",),
    "nacl": ("node/keystore.py",),
    "plyvel": ("ledger/store/leveldb.py",),
    "prometheus_client": ("node/metrics.py",),
    # Oracles of tests, never needed at run time.
    "gmssl": (),
    "msgpack": (),
    "pymerkle": (),
}
"""Libraries that one file each may import, so that it can be replaced there."""

# Put together here, so that this file is not its own offender.
UNFINISHED = re.compile(r"\b(" + "|".join(("TO" + "DO", "FIX" + "ME", "X" * 3)) + r")\b")
PLACES = re.compile(
    "|".join(
        (
            r"(?<![\w.~}>])/(work|root|Users)" + "/",
            r"(?<![\w.~}>])/home" + r"/\w",
            r"\bpypi" + r"\.org",
            "python" + "hosted",
            "npmjs" + r"\.(org|com)",
        )
    )
)


@dataclass(frozen=True)
class Source:
    """One file: its path from the root, with slashes, and its text."""

    path: str
    text: str

    @property
    def is_test(self):
        return self.path.startswith("tests/")

    @cached_property
    def tree(self):
        return ast.parse(self.text, self.path)

    def at(self, node, problem):
        return f"{self.path}:{node.lineno}: {problem}"


def repository():
    """Every text file that is tracked or would be, in order."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        check=True,
    )
    paths = sorted({Path(name) for name in listed.stdout.decode().split("\0") if name})
    sources = []
    for path in paths:
        if not (ROOT / path).is_file():
            continue  # deleted and not committed yet
        text = (ROOT / path).read_bytes().decode("utf-8")
        sources.append(Source(path.as_posix(), text))
    return sources


ALL = repository()
PYTHON = [source for source in ALL if source.path.endswith(".py")]
PRODUCT = [source for source in PYTHON if not source.is_test]


def too_long_files(sources: Iterable[Source]) -> Iterator[str]:
    for source in sources:
        limit = TEST_FILE_LINES if source.is_test else FILE_LINES
        limit = STANDALONE_LINES.get(source.path, limit)
        lines = len(source.text.splitlines())
        if lines > limit:
            yield f"{source.path}:{limit}: {lines} lines, at most {limit}"


def too_long_functions(sources: Iterable[Source]) -> Iterator[str]:
    for source in sources:
        for node in ast.walk(source.tree):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                # From `def` on: a table of cases in a decorator is data.
                lines = node.end_lineno - node.lineno + 1
                if lines > FUNCTION_LINES:
                    yield source.at(node, f"{node.name} has {lines} lines, at most 70")


def modules_without_docstring(sources: Iterable[Source]) -> Iterator[str]:
    for source in sources:
        if source.tree.body and not ast.get_docstring(source.tree):
            yield f"{source.path}:1: a module says what it decides"


def asserts(sources: Iterable[Source]) -> Iterator[str]:
    for source in sources:
        for node in ast.walk(source.tree):
            if isinstance(node, ast.Assert):
                yield source.at(node, "`python -O` strips assert; use ledger.errors.invariant")


def broad_excepts(sources: Iterable[Source]) -> Iterator[tuple[str, str]]:
    """(entry of the allow-list, offender); a handler that ends by raising again only cleans up."""
    for source in sources:
        for function in ast.walk(source.tree):
            if not isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef | ast.Module):
                continue
            name = getattr(function, "name", "")
            for node in _own_nodes(function):
                swallows = (
                    isinstance(node, ast.ExceptHandler)
                    and _is_broad(node.type)
                    and not isinstance(node.body[-1], ast.Raise)
                )
                if swallows or _suppresses_all(node):
                    problem = f"{name} swallows what it cannot name"
                    yield f"{source.path}:{name}", source.at(node, problem)


def _own_nodes(function):
    """The nodes of a function or module that do not belong to a function inside it."""
    waiting = list(ast.iter_child_nodes(function))
    while waiting:
        node = waiting.pop()
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node
            waiting.extend(ast.iter_child_nodes(node))


def _is_broad(caught):
    if caught is None:
        return True
    names = {node.id for node in ast.walk(caught) if isinstance(node, ast.Name)}
    return bool(names & {"Exception", "BaseException"})


def _suppresses_all(node):
    if not isinstance(node, ast.Call):
        return False
    name = getattr(node.func, "attr", getattr(node.func, "id", ""))
    return name == "suppress" and any(_is_broad(argument) for argument in node.args)


def unfinished(sources: Iterable[Source]) -> Iterator[str]:
    return _matches(sources, UNFINISHED, "finish it, or write an issue")


def places(sources: Iterable[Source]) -> Iterator[str]:
    return _matches(sources, PLACES, "names a place that others do not have")


def _matches(sources, pattern, problem):
    for source in sources:
        for number, line in enumerate(source.text.splitlines(), 1):
            found = pattern.search(line)
            if found is not None:
                yield f"{source.path}:{number}: {found[0]!r}: {problem}"


def imports(source: Source) -> Iterator[tuple[ast.stmt, str]]:
    """Every imported top-level name with the statement that imports it."""
    for node in ast.walk(source.tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield node, alias.name.partition(".")[0]
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node, node.module.partition(".")[0]


def strange_imports(sources: Iterable[Source]) -> Iterator[str]:
    for source in sources:
        for node, name in imports(source):
            if name == "cli" and not source.is_test:
                yield source.at(node, "cli.py is imported by nobody; logic lives below it")
            if not source.is_test and source.path not in WRAPPERS.get(name, (source.path,)):
                home = ", ".join(WRAPPERS[name]) or "tests"
                yield source.at(node, f"{name} is imported in {home} alone")


def reasons(errors: Source, product: Iterable[Source], tests: Iterable[Source]) -> Iterator[str]:
    """Every reason has a doc line below it, somebody who gives it, and a test that names it."""
    given = "\n".join(source.text for source in product if source.path != errors.path)
    tested = "\n".join(source.text for source in tests)
    (enum,) = (
        node
        for node in errors.tree.body
        if isinstance(node, ast.ClassDef) and node.name == "Reason"
    )
    for node, below in zip(enum.body, [*enum.body[1:], None], strict=True):
        if not isinstance(node, ast.Assign):
            continue
        name, value = node.targets[0].id, node.value.value
        if not (isinstance(below, ast.Expr) and isinstance(below.value, ast.Constant)):
            yield errors.at(node, f"{name} has no doc line")
        if not re.search(rf"\bReason\.{name}\b", given):
            yield errors.at(node, f"{name} is given by nobody")
        if not re.search(rf"\b({name}|{value})\b", tested):
            yield errors.at(node, f"{name} is named in no test")


def headings(text: str) -> list[int]:
    """The levels of a Markdown document's headings, in order; code blocks have none."""
    prose = re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL)
    return [len(marks) for marks in re.findall(r"^(#+) ", prose, flags=re.MULTILINE)]


def check(offenders: Iterable[str]) -> None:
    found = sorted(offenders)
    assert not found, "\n" + "\n".join(found)


@pytest.mark.parametrize(
    ("rule", "sources"),
    [
        (too_long_files, PYTHON),
        (too_long_functions, PYTHON),
        (modules_without_docstring, PYTHON),
        (asserts, PRODUCT),
        (unfinished, ALL),
        (places, ALL),
        (strange_imports, PYTHON),
    ],
)
def test_the_repository_is_tidy(rule, sources):
    check(rule(sources))


def test_nothing_is_swallowed_but_what_the_allow_list_names():
    found = dict(broad_excepts(PRODUCT))
    check(line for entry, line in found.items() if entry not in BROAD_EXCEPTS)
    assert sorted(BROAD_EXCEPTS) == sorted(set(BROAD_EXCEPTS) & set(found)), "entries not needed"


def test_every_reason_is_documented_given_and_tested():
    (errors,) = (source for source in PRODUCT if source.path == "ledger/errors.py")
    tests = [source for source in PYTHON if source.is_test]
    check(reasons(errors, PRODUCT, tests))


def test_both_languages_of_the_readme_have_the_same_headings():
    english, chinese = (
        headings((ROOT / name).read_text("utf-8")) for name in ("README.md", "README.zh-CN.md")
    )
    assert english == chinese
    assert english[0] == 1


def test_every_file_that_a_text_names_exists():
    """Code cites documents, documents name code; what tells of the past may name what is gone."""
    roots = "|".join(sorted({source.path.partition("/")[0] for source in PYTHON}))
    named = re.compile(rf"(?<![\w/.])(?:{roots})/[\w/-]+\.py\b")
    cited = [
        (source.path, found)
        for source in ALL
        for found in (
            re.findall(r"\bdocs/[\w/-]+\.md\b", source.text)
            + (named.findall(source.text) if source.path.endswith(".md") else [])
        )
        if not source.path.startswith(("CHANGELOG", "docs/decisions/"))
    ]
    assert len(cited) > 50
    check(
        f"{path}:1: {found} does not exist" for path, found in cited if not (ROOT / found).exists()
    )


def test_every_relative_link_of_a_document_leads_somewhere():
    links = (
        (source.path, target)
        for source in ALL
        if source.path.endswith(".md")
        for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", source.text)
    )
    check(
        f"{path}:1: {target} does not exist"
        for path, target in links
        if not ((ROOT / path).parent / target).exists()
    )


def test_what_the_build_machine_runs_is_there_and_runs_the_same_target_as_people():
    script = ROOT / ".ci/run"
    assert script.stat().st_mode & 0o111
    assert script.read_text().rstrip().endswith("\nmake test")
    targets = re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), flags=re.MULTILINE)
    assert {"setup", "demo", "test", "simulate", "bench"} <= set(targets)


# ---- the rules themselves ---------------------------------------------------------------------


def offenders(rule, text, path="node/sample.py"):
    return list(rule([Source(path, text)]))


def test_a_long_file_and_a_long_function_are_found():
    lines = "x = 1\n" * 501
    assert offenders(too_long_files, lines) == ["node/sample.py:500: 501 lines, at most 500"]
    assert offenders(too_long_files, lines, "tests/unit/test_sample.py") == []
    function = "def grow():\n" + "    x = 1\n" * 70
    assert offenders(too_long_functions, function) == [
        "node/sample.py:1: grow has 71 lines, at most 70"
    ]


def test_a_module_without_a_docstring_is_found_but_an_empty_one_needs_none():
    assert len(offenders(modules_without_docstring, "x = 1\n")) == 1
    assert offenders(modules_without_docstring, "") == []


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("def f():\n try: g()\n except: pass", ["node/sample.py:f"]),
        ("def f():\n try: g()\n except (OSError, Exception): pass", ["node/sample.py:f"]),
        ("def f():\n try: g()\n except BaseException:\n  close()\n  raise", []),
        ("def f():\n try: g()\n except OSError: pass", []),
        ("with contextlib.suppress(Exception): g()", ["node/sample.py:"]),
        ("def f():\n def inner():\n  try: g()\n  except: pass", ["node/sample.py:inner"]),
    ],
)
def test_a_handler_that_swallows_everything_is_found(text, expected):
    assert [entry for entry, _ in broad_excepts([Source("node/sample.py", text)])] == expected


def test_unfinished_work_and_foreign_places_are_found():
    assert len(offenders(unfinished, "# TO" + "DO later")) == 1
    assert len(offenders(places, 'open("/wo' + 'rk/data")')) == 1
    assert offenders(places, "docs/wo" + "rk/plan, https://example.org/root/") == []


def test_a_library_outside_its_wrapper_is_found():
    assert offenders(strange_imports, "import plyvel") == [
        "node/sample.py:1: plyvel is imported in ledger/store/leveldb.py alone"
    ]
    assert len(offenders(strange_imports, "from cli import main")) == 1
    assert offenders(strange_imports, "import plyvel", "tests/unit/test_sample.py") == []


def test_a_reason_that_nobody_documents_gives_or_tests_is_found():
    errors = Source("ledger/errors.py", 'class Reason:\n    ODD = "odd"\n')
    assert list(reasons(errors, [errors], [])) == [
        "ledger/errors.py:2: ODD has no doc line",
        "ledger/errors.py:2: ODD is given by nobody",
        "ledger/errors.py:2: ODD is named in no test",
    ]


def test_headings_are_counted_outside_code():
    assert headings("# A\n\n```sh\n# no heading\n```\n## B\n") == [1, 2]
