"""Where a command line is split, and where not."""

from __future__ import annotations

import subprocess

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pman.job.shell import MAX_DEPTH, split_compound

SPLIT = {
    "true": ["true"],
    "": [""],
    "echo x;": ["echo x", ""],
    "echo a; echo hello-out": ["echo a", " echo hello-out"],
    "a ; ;b": ["a ", " ", "b"],
    "true; sleep 1; exit 4": ["true", " sleep 1", " exit 4"],
    "echo 'a;b'; echo c": ["echo 'a;b'", " echo c"],
    'echo "a;b\\";c";d': ['echo "a;b\\";c"', "d"],
    "echo a\\;b;c": ["echo a\\;b", "c"],
    "echo \\' ; b": ["echo \\' ", " b"],
    'echo "$(b;c)`d;e`${x:-;}";f': ['echo "$(b;c)`d;e`${x:-;}"', "f"],
    "echo $(case x in a) b;; esac); c": ["echo $(case x in a) b;; esac)", " c"],
    "echo `a \\`b;c\\``; d": ["echo `a \\`b;c\\``", " d"],
    "echo ${x:-';'}${y#;}; z": ["echo ${x:-';'}${y#;}", " z"],
    "echo $((1<<(2+3))); b": ["echo $((1<<(2+3)))", " b"],
    "(a;b);c": ["(a;b)", "c"],
    "{ a; b; }; c": ["{ a; b; }", " c"],
    "for i in 1 2; do echo $i; done; x": ["for i in 1 2; do echo $i; done", " x"],
    "for i; do x; done; y": ["for i; do x; done", " y"],
    "for i do case y in q) z;; esac; done; k": ["for i do case y in q) z;; esac; done", " k"],
    "while a; do b; done >f; c": ["while a; do b; done >f", " c"],
    "until a; do b; done; c": ["until a; do b; done", " c"],
    "if a; then b; elif c; then d; else e; fi; f": [
        "if a; then b; elif c; then d; else e; fi",
        " f",
    ],
    "if (a) then b; fi; c": ["if (a) then b; fi", " c"],
    "case x in a) b;; (c|d) e;; esac; f": ["case x in a) b;; (c|d) e;; esac", " f"],
    "case x in a) b; esac; f": ["case x in a) b; esac", " f"],
    "f() { a; b; }; f": ["f() { a; b; }", " f"],
    "f()\n(a; b); f": ["f()\n(a; b)", " f"],
    "echo a # b; c": ["echo a # b; c"],
    "echo a#b; c": ["echo a#b", " c"],
    "a # it's\nb; c": ["a # it's\nb", " c"],
    "a\nb": ["a\nb"],
    "a && b; c || d": ["a && b", " c || d"],
    "a & b; c": ["a & b", " c"],
    "a | b 2>&1; c": ["a | b 2>&1", " c"],
    "2>f a; >g": ["2>f a", " >g"],
    "echo fi {a,b} do; c": ["echo fi {a,b} do", " c"],
    "x=1 y; ! c": ["x=1 y", " ! c"],
    "a \\\n  b; c": ["a \\\n  b", " c"],
}

#: A piece would be no whole command, or shells differ.
ONE = [
    "echo 'a; b",
    'echo "a; b',
    "echo `a; b",
    "echo $(a; b",
    "echo ${a; b",
    "(a; b",
    "a; b)",
    "{ a; b",
    "a; }",
    "a; done",
    "if a; then b",
    "while a; do b; esac; c",
    "case x in a) b;; c",
    "a;; b",
    "a && ; b",
    "a | ; b",
    "a > ; b",
    "! ; b",
    "f() ; a",
    "cat <<E; b\nc\nE\n",
    "echo $'a\\'; b'; c",
    "cat <(a; b); c",
    "a=(b c); d",
    "for ((i=0;i<3;i++)); do a; done; b",
    "function f { a; b; }; f",
    "[[ a ]]; b",
    "a\\",
    "i\\\nf a; then b; fi",
    "a > #b'; c\n'",
    'echo "${x:-\'}"; echo "\'}"',
    "(" * 5000 + "a;b",
]

#: What can hold itself: how it opens and closes.
NESTS = [
    ("${", "}"),
    ("$((", "))"),
    ("$((1+", "))"),
    ('"$(echo ', ')"'),
    ("$(${x:-$((", "))})"),
]


@pytest.mark.parametrize(("cmd", "pieces"), SPLIT.items())
def test_split_at_top_level_only(cmd: str, pieces: list[str]) -> None:
    assert split_compound(cmd) == pieces


@pytest.mark.parametrize("cmd", ONE)
def test_not_split_when_unsure(cmd: str) -> None:
    assert split_compound(cmd) == [cmd]


@pytest.mark.parametrize(("opens", "closes"), NESTS)
def test_what_is_nested_is_followed_up_to_a_depth(opens: str, closes: str) -> None:
    def nested(depth: int) -> str:
        return f"echo {opens * depth}1{closes * depth}"

    assert split_compound(f"{nested(8)}; b") == [nested(8), " b"]
    for depth in (MAX_DEPTH + 1, 300, 2000):
        cmd = f"{nested(depth)}; b"
        assert split_compound(cmd) == [cmd]


FRAGMENTS = st.one_of(
    st.sampled_from(
        ["a", "éa", " ", ";", "; ", "\n", "'", '"', "`", "\\", "\\;", "\\\n", "#", "1"]
    ),
    st.sampled_from(["$(", ")", "(", "{ ", "; }", "${x:-", "}", "$((", "))", "$", "f()", "x=1"]),
    st.sampled_from(
        ["if ", "; then ", "; else ", "; fi", "while ", "for i in ", "; do ", "; done"]
    ),
    st.sampled_from(
        ["case a in ", "a)", ";;", "esac", "in", "do", "fi", "||", "&&", "&", "|", "!"]
    ),
    st.sampled_from([">f", "<", "2>", "="]),
)


@st.composite
def _sentences(draw: st.DrawFn, depth: int = 3) -> str:
    """A command line that sh accepts, with `;` at many levels."""
    kinds = [
        "echo a",
        "echo 'b;c'",
        'echo "d;e"',
        "true\\;",
        "! false",
        "x=1 true",
        "echo $((1+2))",
    ]
    shapes = ["({0})", "{{ {0}; }}", "if {0}; then {1}; fi", "for i in 1; do {0}; done"]
    shapes += ["while {0}; do {1}; break; done", "case x in a) {0};; *) {1}; esac", "{0}; {1}"]
    shapes += [
        "{0} && {1}",
        "echo $({0})",
        'echo "$({0})"',
        "g() {{ {0}; }}",
        "{0}\n{1}",
        "{0};{1}",
    ]
    shapes += [
        "echo `{2}`",
        "({0}) | {{ {1}; }} 2>&1",
        "if {0}; then :; else {1}; fi",
        "({0}) & {1}",
    ]
    simple = draw(st.sampled_from(kinds))
    if not depth:
        return simple
    shape = draw(st.sampled_from([*shapes, "{2}"]))
    inner = _sentences(depth=depth - 1)
    return shape.format(draw(inner), draw(inner), simple)


def _accepted(cmd: str) -> bool:
    """Ask sh whether it can parse `cmd`."""
    return subprocess.run(["/bin/sh", "-nc", cmd], capture_output=True, check=False).returncode == 0


@settings(max_examples=150, deadline=None, derandomize=True)
@given(st.lists(FRAGMENTS, max_size=14).map("".join))
def test_any_text_is_kept_and_never_broken(cmd: str) -> None:
    pieces = split_compound(cmd)

    assert ";".join(pieces) == cmd
    if len(pieces) > 1 and _accepted(cmd):
        assert all(_accepted(piece) for piece in pieces)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(st.lists(_sentences(), min_size=1, max_size=3).map("; ".join))
def test_every_piece_of_a_valid_command_is_valid(cmd: str) -> None:
    assert _accepted(cmd)
    pieces = split_compound(cmd)

    assert len(pieces) >= 1
    assert all(_accepted(piece) for piece in pieces)


@settings(max_examples=100, deadline=None, derandomize=True)
@given(
    st.lists(st.sampled_from(["a", "(b;c)", "{ d; }", "if a; then b; fi", "e 'f;g'"]), min_size=1)
)
def test_whole_commands_joined_are_found_again(commands: list[str]) -> None:
    assert split_compound(";".join(commands)) == commands
