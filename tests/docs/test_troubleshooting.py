"""docs/troubleshooting/ explains every error message that a user can meet, and no other.

A message is compared as text in which each variable part is `<>`. Tables of the pages whose first
column is "Message" quote it in backticks: either complete, or without its remedy, which follows a
colon. Placeholders may have any name: `<path> is a folder`.
"""

import ast
import re
from functools import cache

from paths import ROOT

PACKAGES = ("runtime", "export", "ifrnet_model", "bench")
PAGES = ROOT / "docs" / "troubleshooting"

LEFT_OUT = {"SeamError"}
"""Exceptions of this project whose messages are not errors, but notes in a report."""

OTHERS = {"runtime": {"ArgumentTypeError", "OSError"}, "ifrnet_model": {"ValueError"}}
"""Built-in exceptions that carry messages for users, by package; others are for programmers."""

WITH_A_REASON = {"_unusable", "refuse"}
"""Functions that raise an error and take a part of its message as an argument."""

WRITERS = {
    "bench/harness/opening.py": {"all_failed", "open_runs"},
    "bench/quality/setup.py": {"_mismatches", "_other_sizes"},
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
"""Module -> functions and tables with texts of messages that are raised elsewhere."""

REMEDY = re.compile(r"(give|install|open|pip|run|unpack|update|use|check)\b")
"""Matches texts of `WRITERS` that are only a remedy. The pages may word remedies differently."""


def normal(text):
    """A text with <> for each placeholder; adjacent placeholders become one."""
    return re.sub(r"(<>)+", "<>", re.sub(r"<[^<>]*>", "<>", " ".join(text.split())))


def words(text):
    """Number of words outside the placeholders."""
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
    """Constants of a module whose value is a text: name -> text."""
    named = {name_of(n.targets[0]): n.value for n in tree.body if isinstance(n, ast.Assign)}
    values = {name: getattr(value, "value", None) for name, value in named.items()}
    return {name: value for name, value in values.items() if isinstance(value, str)}


@cache
def named():
    """Text constants of all modules; they replace placeholders of that name in messages."""
    return {name: text for tree in trees().values() for name, text in constants(tree).items()}


def messages(node, own):
    """The messages to which an expression can evaluate; none if it is not a text."""
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
    """The messages in a function or a table: texts of four words or more, without docstrings."""
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
    """Names of exceptions and functions whose calls carry a message for users."""
    classes = {
        node.name
        for tree in trees().values()
        for node in ast.walk(tree)
        if isinstance(node, ast.ClassDef) and node.name.endswith("Error")
    }
    return (classes | {"ArgumentTypeError", "type"} | OTHERS.get(package, set())) - LEFT_OUT


@cache
def collected():
    """Message -> its place in the source; and the calls whose message is not a literal text."""
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
    """Message quoted in a table -> name of the page."""
    found = {}
    for page in sorted(PAGES.glob("*.md")):
        for table in re.findall(r"^\| Message .*\n\|.*\n((?:\|.*\n)+)", page.read_text(), re.M):
            for row in table.splitlines():
                first = re.split(r"(?<!\\)\|", row)[1].replace("\\|", "|")
                for quote in re.findall(r"`([^`]+)`", first):
                    found.setdefault(normal(quote), page.name)
    return found


def quotes_of(message):
    """The quotes of a message that are accepted: complete, or up to a colon."""
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


def test_messages_that_are_not_literals_have_a_known_writer():
    """A message that is not a literal is passed on from another error or is one of `WRITERS`."""
    computed = collected()[1]
    assert len(computed) > 5
    for path, argument in computed:
        text, writer = ast.unparse(argument), name_of(getattr(argument, "func", None))
        passed_on = re.match(r"str\(\w+\)$|'; '\.join\(|reasons\[0\]$", text)
        assert passed_on or writer in WRITERS.get(path, ()), f"{path}: {text} is not in WRITERS"


def test_the_messages_are_found():
    """`collected` finds messages of each form."""
    found = collected()[0]
    assert len(found) > 450
    assert "<> has no video track: give a file with a video" in found  # An f-string.
    assert "<> cannot be lossless with quality <>: leave quality out" in found  # One of two texts.
    assert "is compressed with gzip" in found  # In a table.
    assert "is for CPU backends: leave it out with a TensorRT engine" in found  # A reason.
    assert "IFRNET_WEIGHTS_MIRROR is <>: give a base URL, such as https://host/folder/" in found
