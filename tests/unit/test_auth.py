"""`auth`: the token file, the check of a request, and what a reply may repeat."""

from __future__ import annotations

import logging
import os
from pathlib import Path

import pytest

from pman.auth import MAX_FILE_BYTES, STAT_PERIOD_S, Caller, Role, TokenAuth, header_lines
from pman.errors import NotAuthorized, StartError
from pman.http.message import Request

INI = "[AUTH TOKENS]\nexample = password\nother = other-token\n"


class Clock:
    def __init__(self) -> None:
        self.now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


class TokenFile:
    """A token file whose every version can be told from the one before."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._version = 0

    def write(self, content: str | bytes, mode: int = 0o600) -> Path:
        self._version += 1
        self.path.write_bytes(content.encode() if isinstance(content, str) else content)
        self.path.chmod(mode)
        os.utime(self.path, (self._version, self._version))
        return self.path


@pytest.fixture
def tokens(tmp_path: Path) -> TokenFile:
    return TokenFile(tmp_path / "tokens.cfg")


def request(*headers: tuple[str, str]) -> Request:
    return Request(method="POST", target="/api/v1/cmd", headers=list(headers))


def bearing(token: str) -> Request:
    return request(("Authorization", f"bearer {token}"))


def is_let_in(auth: TokenAuth, asked: Request) -> bool:
    try:
        auth.check(asked)
    except NotAuthorized:
        return False
    return True


# --- requests -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("Authorization", "bearer password"),
        ("Authorization", "Bearer other-token"),
        ("Authorization", "BEARER   password"),
        ("Authorization", "password"),
        ("authorization", "bearer password"),
        ("AUTHORIZATION", "\tbearer\tpassword "),
    ],
)
def test_who_is_let_in(tokens: TokenFile, name: str, value: str) -> None:
    auth = TokenAuth(tokens.write(INI))
    auth.check(request(("Host", "x"), (name, value)))


@pytest.mark.parametrize(
    ("headers", "words"),
    [
        ([], "there is no token"),
        ([("Authorization", "")], "there is no token"),
        ([("Authorization", "  ")], "there is no token"),
        ([("Authorization", "bearer wrong")], "not one that this pman knows"),
        ([("Authorization", "bearer")], "not one that this pman knows"),
        ([("Authorization", "bearer Password")], "not one that this pman knows"),
        ([("Authorization", "bearer passwor")], "not one that this pman knows"),
        ([("Authorization", "bearer password2")], "not one that this pman knows"),
        ([("Authorization", "bearer \xe9\u20ac")], "not one that this pman knows"),
        ([("Authorization", "Basic password")], "scheme is not 'Bearer'"),
        ([("Authorization", "bearer password"), ("Authorization", "x")], "are 2 Authorization"),
        ([("authorization", "password"), ("Authorization", "password")], "are 2 Authorization"),
        ([("X-My-Authorization-Thing", "x password")], "there is no token"),
        ([("Cookie", "Authorization password")], "there is no token"),
        ([("Proxy-Authorization", "bearer password")], "there is no token"),
    ],
)
def test_who_is_not(tokens: TokenFile, headers: list[tuple[str, str]], words: str) -> None:
    auth = TokenAuth(tokens.write(INI))
    with pytest.raises(NotAuthorized, match=words) as caught:
        auth.check(request(*headers))
    assert caught.value.hint == 401
    assert "password" not in str(caught.value)
    assert "wrong" not in str(caught.value)


def test_without_http_the_text_beside_the_document_counts(tokens: TokenFile) -> None:
    auth = TokenAuth(tokens.write(INI))

    def peer(authorization: str | None) -> Request:
        return Request(method="POST", target="", is_http=False, authorization=authorization)

    assert is_let_in(auth, peer("bearer password"))
    assert is_let_in(auth, peer("password"))
    assert not is_let_in(auth, peer(None))
    assert not is_let_in(auth, peer("bearer wrong"))
    headers_do_not_count = peer(None)
    headers_do_not_count.headers = [("Authorization", "password")]
    assert not is_let_in(auth, headers_do_not_count)


def test_tokens_beyond_ascii_are_compared_as_bytes(tokens: TokenFile) -> None:
    auth = TokenAuth(tokens.write("[AUTH TOKENS]\na = p\u00e0ssw\u00f6rd\n"))
    as_received = "p\u00e0ssw\u00f6rd".encode().decode("latin-1")
    assert is_let_in(auth, bearing(as_received))


def test_header_lines_mask_secrets_and_keep_the_rest() -> None:
    headers = [
        ("Host", "h"),
        ("AUTHORIZATION", "bearer a"),
        ("cookie", "a=b"),
        ("Proxy-Authorization", "x"),
        ("X-Authorization", "kept"),
        ("Host", "h"),
    ]
    assert header_lines(headers) == [
        "Host: h\r",
        "AUTHORIZATION: ***\r",
        "cookie: ***\r",
        "Proxy-Authorization: ***\r",
        "X-Authorization: kept\r",
        "Host: h\r",
    ]
    assert header_lines([]) == []


# --- the file -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "content", "known"),
    [
        ("t.cfg", INI, ["password", "other-token"]),
        ("t.cfg.bak", INI, ["password", "other-token"]),
        ("t.ini", "[other]\nb = no\n[AUTH TOKENS]\na = 'x#y,z'\n", ["x#y,z"]),
        ("t.ini", "[AUTH TOKENS]\na = %(b)s$x\n", ["%(b)s$x"]),
        ("t.cfg", "\ufeff[AUTH TOKENS]\r\na = b # comment\r\n", ["b"]),
        ("secret", " [AUTH TOKENS]\na = b\n", ["b"]),
        ("secret", "one\n\n  two  \r\nthree", ["one", "two", "three"]),
        ("secret", "[AUTH\n#x\na=b", ["[AUTH", "#x", "a=b"]),
    ],
)
def test_forms_of_the_file(tmp_path: Path, name: str, content: str, known: list[str]) -> None:
    auth = TokenAuth(TokenFile(tmp_path / name).write(content))
    for token in known:
        assert is_let_in(auth, bearing(token))
    for word in ("no", "AUTH", "a", ""):
        assert not is_let_in(auth, bearing(word))


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("t.cfg", "", "has no section"),
        ("t.cfg", "a = b", "has no section"),
        ("t.cfg", "AUTH TOKENS = b", "has no section"),
        ("t.cfg", "[AUTH TOKENS]", "holds no token"),
        ("t.cfg", "[AUTH TOKENS]\na = ''", "holds no token"),
        ("t.cfg", "[AUTH TOKENS]\na = secret1, secret2", "'a' in .* is not one token"),
        ("t.cfg", "[AUTH TOKENS]\n[[a]]\nb = c", "'a' in .* is not one token"),
        ("t.cfg", "[AUTH TOKENS]\nsecret1", "is not an INI file, line 2"),
        ("secret", "", "holds no token"),
        ("secret", "\n  \n", "holds no token"),
        ("secret", b"\xff\xfe", "is not UTF-8"),
        ("secret", "x" * (MAX_FILE_BYTES + 1), "is longer than"),
    ],
)
def test_files_that_stop_the_start(
    tmp_path: Path, name: str, content: str | bytes, words: str
) -> None:
    path = TokenFile(tmp_path / name).write(content)
    with pytest.raises(StartError, match=words) as caught:
        TokenAuth(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)
    assert "secret1" not in str(caught.value)


def test_a_file_that_is_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(StartError, match="No such file"):
        TokenAuth(tmp_path / "none")
    with pytest.raises(StartError, match="is not a regular file"):
        TokenAuth(tmp_path)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(StartError, match=f"{tmp_path}/socket_config.cfg"):
        TokenAuth()
    TokenFile(tmp_path / "socket_config.cfg").write(INI)
    assert is_let_in(TokenAuth(None), bearing("password"))


def test_a_fifo_does_not_hang_the_start(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    with pytest.raises(StartError, match="not a regular file"):
        TokenAuth(tmp_path / "fifo")


def test_who_else_may_read_and_write_it(
    tokens: TokenFile, caplog: pytest.LogCaptureFixture
) -> None:
    TokenAuth(tokens.write(INI, 0o640))
    assert not caplog.records
    TokenAuth(tokens.write(INI, 0o644))
    assert "can be read by everybody" in caplog.text
    for mode in (0o602, 0o620, 0o660):
        with pytest.raises(StartError, match=f"can be written by others: its mode is {mode:04o}"):
            TokenAuth(tokens.write(INI, mode))


def test_a_token_that_nobody_can_send_is_said(
    tokens: TokenFile, caplog: pytest.LogCaptureFixture
) -> None:
    TokenAuth(tokens.write("[AUTH TOKENS]\na = two words\n"))
    assert "a token with blanks in it" in caplog.text
    assert "two words" not in caplog.text


# --- rights ---------------------------------------------------------------------------------

RIGHTS = """
[AUTH TOKENS]
watcher = watch-token
alice = alice-token
chief = chief-token
other = other-token
[AUTH RIGHTS]
[[watcher]]
role = read
[[alice]]
role = run
auid = alice
[[chief]]
"""


def test_whose_token_it_is(tokens: TokenFile) -> None:
    auth = TokenAuth(tokens.write(RIGHTS))
    assert {
        word: auth.check(bearing(f"{word}-token")) for word in ("watch", "alice", "chief", "other")
    } == {
        "watch": Caller("watcher", Role.READ),
        "alice": Caller("alice", Role.RUN, "alice"),
        "chief": Caller("chief", Role.ADMIN),
        "other": Caller("other", Role.ADMIN),
    }
    assert [caller.name for caller in auth.callers] == ["watcher", "alice", "chief", "other"]


def test_files_of_2_2_give_all_rights(tmp_path: Path) -> None:
    lines = TokenAuth(TokenFile(tmp_path / "secret").write("one\n\ntwo\ntwo\n"))
    assert lines.check(bearing("two")) == Caller("line 3", Role.ADMIN)
    section = TokenAuth(TokenFile(tmp_path / "t.ini").write(INI))
    assert section.check(bearing("password")) == Caller("example", Role.ADMIN)


@pytest.mark.parametrize(
    ("rights", "words"),
    [
        ("[AUTH RIGHTS]\n[[nobody]]\nrole = read\n", "'nobody' in .AUTH RIGHTS. .* has a token"),
        ("[AUTH RIGHTS]\n[[empty]]\nrole = read\n", "'empty' in .AUTH RIGHTS. .* has a token"),
        ("[AUTH RIGHTS]\nexample = read\n", "'example' in .AUTH RIGHTS. .* a subsection"),
        ("[AUTH RIGHTS]\n[[example]]\nrole = root\n", "'root' in ..example.. .* read, run, admin"),
        ("[AUTH RIGHTS]\n[[example]]\nrole = READ\n", "'READ' in ..example.. "),
        ("[AUTH RIGHTS]\n[[example]]\nrole = read, run\n", "'read', 'run'. in ..example.. "),
        ("[AUTH RIGHTS]\n[[example]]\nrole = ''\n", "'' in ..example.. "),
        ("[AUTH RIGHTS]\n[[example]]\n[[[role]]]\n", "in ..example.. .* a role"),
        ("[AUTH RIGHTS]\n[[example]]\nrol = read\n", "'rol' in ..example.. .* role or auid"),
        ("[AUTH RIGHTS]\n[[example]]\nauid = ''\n", "'' in ..example.. .* not empty"),
        ("[AUTH RIGHTS]\n[[example]]\nauid = a, b\n", "in ..example.. .* one text"),
        ("[AUTH RIGHT]\n[[example]]\nrole = read\n", "'AUTH RIGHT' in .* .AUTH RIGHTS."),
        ("[auth rights]\n[[example]]\nrole = read\n", "in .* .AUTH RIGHTS."),
        ("[AUTHRIGHTS]\n[[example]]\nrole = read\n", "in .* .AUTH RIGHTS."),
        ("[AUTH RIGHTS]\n[[same]]\nrole = read\n", "'example' and 'same' in .AUTH TOKENS."),
        ("[AUTH RIGHTS]\n[[same]]\nauid = me\n", "'example' and 'same' in .AUTH TOKENS."),
    ],
)
def test_rights_that_stop_the_start(tokens: TokenFile, rights: str, words: str) -> None:
    content = f"[AUTH TOKENS]\nexample = password\nempty = ''\nsame = password\n{rights}"
    with pytest.raises(StartError, match=words) as caught:
        TokenAuth(tokens.write(content))
    assert str(tokens.path) in str(caught.value)
    assert "password" not in str(caught.value)


@pytest.mark.parametrize("name", ["t.cfg", "secret"])
@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("AUTH RIGHTS = read\n[AUTH TOKENS]\na = b\n", "'AUTH RIGHTS' in .* a section"),
        ("[AUTH RIGHTS]\n[[a]]\nrole = read\n", "has no section .AUTH TOKENS."),
    ],
)
def test_lines_of_rights_are_never_tokens(
    tmp_path: Path, name: str, content: str, words: str
) -> None:
    with pytest.raises(StartError, match=words):
        TokenAuth(TokenFile(tmp_path / name).write(content))


def test_one_token_of_two_names_with_the_same_rights(tokens: TokenFile) -> None:
    content = RIGHTS.replace("watch-token", "chief-token").replace("role = read", "")
    assert TokenAuth(tokens.write(content)).check(bearing("chief-token")).role is Role.ADMIN


def test_rights_change_with_the_file_unless_it_is_bad(tokens: TokenFile) -> None:
    clock = Clock()
    auth = TokenAuth(tokens.write(RIGHTS), clock)
    tokens.write(RIGHTS.replace("role = read", "role = all"))
    clock.now_s += STAT_PERIOD_S
    assert auth.check(bearing("watch-token")).role is Role.READ
    tokens.write(RIGHTS.replace("role = read", "role = run"))
    clock.now_s += STAT_PERIOD_S
    assert auth.check(bearing("watch-token")).role is Role.RUN


# --- changes --------------------------------------------------------------------------------


def test_a_new_version_counts_within_the_period(tokens: TokenFile) -> None:
    clock = Clock()
    auth = TokenAuth(tokens.write("[AUTH TOKENS]\na = old\n"), clock)
    tokens.write("[AUTH TOKENS]\na = new\n")
    assert is_let_in(auth, bearing("old"))  # not looked yet
    clock.now_s += STAT_PERIOD_S
    assert is_let_in(auth, bearing("new"))
    assert not is_let_in(auth, bearing("old"))


def test_a_bad_version_keeps_the_former_tokens_and_is_said_once(
    tokens: TokenFile, caplog: pytest.LogCaptureFixture
) -> None:
    clock = Clock()
    auth = TokenAuth(tokens.write(INI), clock)
    for content, mode in (("", 0o600), (INI.replace("password", "evil"), 0o602)):
        tokens.write(content, mode)
        caplog.clear()
        for _ in range(3):
            clock.now_s += STAT_PERIOD_S
            assert is_let_in(auth, bearing("password"))
            assert not is_let_in(auth, bearing("evil"))
        assert [r.levelno for r in caplog.records] == [logging.ERROR]
        assert "the former tokens stay valid" in caplog.text


def test_a_file_that_vanishes_and_comes_back(
    tokens: TokenFile, caplog: pytest.LogCaptureFixture
) -> None:
    clock = Clock()
    auth = TokenAuth(tokens.write(INI), clock)
    tokens.path.unlink()
    for _ in range(3):
        clock.now_s += STAT_PERIOD_S
        assert is_let_in(auth, bearing("password"))
    assert caplog.text.count("No such file") == 1
    tokens.write("[AUTH TOKENS]\na = new\n")
    clock.now_s += STAT_PERIOD_S
    assert is_let_in(auth, bearing("new"))


def test_it_follows_the_file_when_the_working_directory_changes(
    tokens: TokenFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Clock()
    tokens.write(INI)
    monkeypatch.chdir(tokens.path.parent)
    auth = TokenAuth(Path(tokens.path.name), clock)
    monkeypatch.chdir("/")
    tokens.write("[AUTH TOKENS]\na = new\n")
    clock.now_s += STAT_PERIOD_S
    assert is_let_in(auth, bearing("new"))
