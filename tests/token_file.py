"""A token file with tokens of all kinds, and the headers that go with them."""

from __future__ import annotations

from pathlib import Path

#: Name of a token -> its rights, None for all.
RIGHTS: dict[str, dict[str, str] | None] = {
    "reader": {"role": "read"},
    "runner": {"role": "run"},
    "chief": {"role": "admin"},
    "old": None,
    "alice": {"role": "run", "auid": "alice"},
    "alice-reads": {"role": "read", "auid": "alice"},
    "alice-is-admin": {"role": "admin", "auid": "alice"},
    "bob": {"auid": "bob"},
}


def token_of(name: str) -> str:
    return f"s3cret-of-{name}"


def bearer(name: str) -> tuple[str, str]:
    """Return the header of a token."""
    return ("Authorization", f"Bearer {token_of(name)}")


def write_tokens(folder: Path) -> Path:
    """Write the file; return its path."""
    lines = ["[AUTH TOKENS]", *(f"{name} = {token_of(name)}" for name in RIGHTS)]
    lines.append("[AUTH RIGHTS]")
    for name, rights in RIGHTS.items():
        if rights is not None:
            lines += [f"[[{name}]]", *(f"{key} = {value}" for key, value in rights.items())]
    path = folder / "tokens.ini"
    path.write_text("\n".join([*lines, ""]))
    path.chmod(0o600)
    return path
