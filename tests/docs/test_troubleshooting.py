"""docs/troubleshooting/ explains every error message that a user can meet, and no other.

A message is compared as text in which each variable part is `<>`. The tables of the pages whose
first column is "Message" quote it in backticks: the whole of it, or what it says before its remedy,
which begins after a colon. The names of the placeholders are free: `<path> is a folder`.
"""

import ast
import re
from functools import cache

from paths import ROOT

PACKAGES = ("runtime", "export", "ifrnet_model", "bench")
PAGES = ROOT / "docs" / "troubleshooting"

LEFT_OUT = {"SeamError"}
"""Our exceptions whose message is a note in a report of a success."""

OTHERS = {"runtime": {"ArgumentTypeError", "OSError"}, "ifrnet_model": {"ValueError"}}
"""Exceptions of Python with messages for users, by package. The rest is for programmers."""

WITH_A_REASON = {"_unusable", "refuse"}
"""Functions that raise an error, and are given a part of its message."""

WRITERS = {
    "bench/harness/opening.py": {"all_failed", "open_runs"},
    "bench/quality/setup.py": {"_deviations"},
    "export/gate/diagnosis.py": {"diagnosis"},
    "export/gate/gate.py": {"gate"},
    "export/int8/build.py": {"__call__"},
    "export/trt/attempts.py": {"_build_strictest"},
    "export/trt/build.py": {"_build_error", "_builder", "_parse_error"},
    "ifrnet_model/file_kinds.py": {"_BEGINNINGS"},
    "ifrnet_model/weights/__main__.py": {"_run"},
    "ifrnet_model/weights/download.py": {"_problem"},
    "runtime/backends/ort/cuda_provider.py": {"cuda_provider_problem"},
    "runtime/backends/triton/requests.py": {"_message"},
    "runtime/backends/trt/engine.py": {"_incompatibility"},
    "runtime/cli/command.py": {"run_command"},
    "runtime/cli/ifrnet.py": {"main"},
    "runtime/doctor.py": {"backend_states"},
    "runtime/machine.py": {"gpu_driver"},
    "runtime/video/reading/truncation.py": {"_missing_packets", "_sentence", "truncation"},
}
"""Functions and tables that write messages, or parts of them, apart from the exceptions."""

REMEDY = re.compile(r"(give|install|open|pip|run|unpack|update|use|check)\b")
"""How a text of `WRITERS` begins that is only a remedy; the pages give it in their own words."""


def normal(text):
    """The text with <> for each placeholder; two without text between them are one."""
    return re.sub(r"(<>)+", "<>", re.sub(r"<[^<>]*>", "<>", " ".join(text.split())))


def words(text):
    """The number of words in the constant part."""
    return sum(bool(re.search("[A-Za-z]", word)) for word in normal(text).split())


@cache
def trees():
    paths = sorted(path for package in PACKAGES for path in (ROOT / package).rglob("*.py"))
    return {path.relative_to(ROOT).as_posix(): ast.parse(path.read_text()) for path in paths}


def name_of(node):
    """The last part of a name: `c` for `a.b.c`; "type" for `type(error)`; "" for anything else."""
    if isinstance(node, ast.Call):
        return "type" if name_of(node.func) == "type" else ""
    return getattr(node, "attr", getattr(node, "id", ""))


def constants(tree):
    """The texts that a module gives a name."""
    named = {name_of(n.targets[0]): n.value for n in tree.body if isinstance(n, ast.Assign)}
    values = {name: getattr(value, "value", None) for name, value in named.items()}
    return {name: value for name, value in values.items() if isinstance(value, str)}


@cache
def named():
    """The named texts of all modules, with which placeholders are filled in."""
    return {name: text for tree in trees().values() for name, text in constants(tree).items()}


def messages(node, own):
    """What an expression can be as a message; none if it is not a text."""
    if isinstance(node, ast.IfExp):
        return messages(node.body, own) + messages(node.orelse, own)
    if isinstance(node, ast.Constant):
        return [normal(node.value)] if isinstance(node.value, str) else []
    if not isinstance(node, ast.JoinedStr):
        return []
    known = {**named(), **own, "__version__": "<>"}
    fixed = (getattr(part, "value", "") for part in node.values)
    texts = (x if isinstance(x, str) else known.get(getattr(x, "id", ""), "<>") for x in fixed)
    return [normal("".join(texts))]


def written(node, own):
    """The messages in a function or a table: every text of four words that is no docstring."""
    left_out = {id(part) for text in ast.walk(node) if isinstance(text, ast.JoinedStr)
                for part in text.values}  # fmt: skip
    left_out |= {id(part.value) for part in ast.walk(node) if isinstance(part, ast.Expr)}
    for call in ast.walk(node):
        if isinstance(call, ast.Call) and name_of(call.func) == "note":
            left_out |= {id(part) for part in ast.walk(call)}
    found = [m for part in ast.walk(node) if id(part) not in left_out for m in messages(part, own)]
    return [m for m in found if words(m) >= 4 and not REMEDY.match(m)]


@cache
def errors_of(package):
    """Names of what raises an error with a message for users."""
    classes = {
        node.name
        for tree in trees().values()
        for node in ast.walk(tree)
        if isinstance(node, ast.ClassDef) and node.name.endswith("Error")
    }
    return (classes | {"ArgumentTypeError", "type"} | OTHERS.get(package, set())) - LEFT_OUT


@cache
def collected():
    """Where each message is in the source, and the calls whose message cannot be read there."""
    found, unread = {}, []
    for path, tree in trees().items():
        own, writers = constants(tree), WRITERS.get(path, set())
        errors = errors_of(path.partition("/")[0])
        for node in ast.walk(tree):
            texts = []
            if isinstance(node, ast.FunctionDef) and node.name in writers:
                texts = written(node, own)
            elif isinstance(node, ast.Assign) and name_of(node.targets[0]) in writers:
                texts = written(node.value, own)
            elif isinstance(node, ast.Call) and name_of(node.func) in errors:
                texts = [text for part in node.args for text in messages(part, own)]
                if node.args and not texts and name_of(node.func) != "type":
                    unread.append((path, node.args[0]))
            elif isinstance(node, ast.Call) and name_of(node.func) in WITH_A_REASON:
                texts = [m for part in node.args for m in messages(part, own) if words(m) >= 3]
            for text in filter(words, texts):
                found.setdefault(text, f"{path}:{node.lineno}")
    return found, unread


@cache
def quoted():
    """The messages that the pages quote, and the page of each."""
    found = {}
    for page in sorted(PAGES.glob("*.md")):
        for table in re.findall(r"^\| Message .*\n\|.*\n((?:\|.*\n)+)", page.read_text(), re.M):
            for row in table.splitlines():
                first = re.split(r"(?<!\\)\|", row)[1].replace("\\|", "|")
                for quote in re.findall(r"`([^`]+)`", first):
                    found.setdefault(normal(quote), page.name)
    return found


def quotes_of(message):
    """What a page may quote of a message: all of it, or what comes before a colon."""
    ends = (colon.start() for colon in re.finditer(": ", message))
    return {message, *(message[:end] for end in ends if words(message[:end]) >= 2)}


def test_the_pages_explain_every_message():
    missing = [
        f"{where}: `{message}`"
        for message, where in collected()[0].items()
        if quotes_of(message).isdisjoint(quoted())
    ]
    assert not missing, "not in docs/troubleshooting:\n" + "\n".join(missing)


def test_the_pages_quote_no_other_message():
    known = set().union(*map(quotes_of, collected()[0]))
    unknown = [f"{page}: `{quote}`" for quote, page in quoted().items() if quote not in known]
    assert not unknown, "in docs/troubleshooting, not in the source:\n" + "\n".join(unknown)


def test_every_message_can_be_read():
    """A message that is built elsewhere is passed on, or its writer is one of `WRITERS`."""
    for path, argument in collected()[1]:
        text, writer = ast.unparse(argument), name_of(getattr(argument, "func", None))
        passed_on = re.match(r"str\(\w+\)$|'; '\.join\(|reasons\[0\]$", text)
        assert passed_on or writer in WRITERS.get(path, ()), f"{path}: {text} is not in WRITERS"


def test_the_messages_are_found():
    """The rules above see each form of a message."""
    found = collected()[0]
    assert len(found) > 450
    assert "<> has no video track: give a file with a video" in found  # An f-string.
    assert "<> cannot be lossless with quality <>: leave quality out" in found  # Of two.
    assert "is compressed with gzip" in found  # In a table.
    assert "is for CPU backends: leave it out with a TensorRT engine" in found  # A reason.
    assert "IFRNET_WEIGHTS_MIRROR is <>: give a base URL, such as https://host/folder/" in found
