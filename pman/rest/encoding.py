"""How a reply is spelled for a client: media type, compression, entity tag. Pure."""

from __future__ import annotations

import hashlib
import re
import zlib
from collections.abc import Iterable, Sequence
from typing import NamedTuple

#: Shorter bodies are not compressed: the headers would weigh more than what is saved, bytes.
MIN_GZIP_BYTES = 1024

#: Level of compression: what more would save costs more time than the network takes.
GZIP_LEVEL = 5

_QUALITY = re.compile(r"q=(0(?:\.[0-9]{0,3})?|1(?:\.0{0,3})?)\Z", re.IGNORECASE)
_TAG = re.compile(r'(?:W/)?"([^"]*)"')


class _Choice(NamedTuple):
    name: str
    quality: float


def negotiate(accept: Iterable[str], offered: Sequence[str]) -> str | None:
    """Return the media type that a client likes best, the first of equals; None: it takes none.

    Args:
        accept: Values of `Accept`; none at all accepts anything.
        offered: Media types, ours to choose from, the usual one first.
    Source: RFC 9110, section 12.5.1.
    """
    ranges = _choices(accept)
    if not ranges:
        return offered[0]
    best = max(offered, key=lambda media: _quality(media, ranges))
    return best if _quality(best, ranges) > 0 else None


def _quality(media: str, ranges: list[_Choice]) -> float:
    """Return how much a media type is liked: what is named more exactly counts."""
    for wanted in (media, f"{media.partition('/')[0]}/*", "*/*"):
        for each in ranges:
            if each.name == wanted:
                return each.quality
    return 0.0


def is_gzip_welcome(accept_encoding: Iterable[str]) -> bool:
    """Tell whether a client takes gzip. Source: RFC 9110, section 12.5.3."""
    codings = dict(_choices(accept_encoding))
    for name in ("gzip", "x-gzip", "*"):
        if name in codings:
            return codings[name] > 0
    return False


def _choices(values: Iterable[str]) -> list[_Choice]:
    """Return the items of a list with weights; what can't be read has none of its own."""
    found = []
    for item in ",".join(values).split(","):
        name, *parameters = (part.strip() for part in item.split(";"))
        if name:
            weights = [match[1] for p in parameters if (match := _QUALITY.match(p)) is not None]
            found.append(_Choice(name.lower(), float(weights[-1]) if weights else 1.0))
    return found


def gzip(body: bytes) -> bytes:
    """Compress; the same body always comes out the same, as its tag does."""
    # zlib rather than gzip, which writes the time into its header.
    press = zlib.compressobj(GZIP_LEVEL, zlib.DEFLATED, 16 + zlib.MAX_WBITS)
    return press.compress(body) + press.flush()


def tag(body: bytes, *, is_gzip: bool) -> str:
    """Return the strong entity tag of a body.

    Args:
        body: Before any compression.
        is_gzip: Whether it is sent compressed: other bytes need another strong tag.
    Source: RFC 9110, section 8.8.3.3.
    """
    digest = hashlib.sha256(body).hexdigest()[:32]
    return f'"{digest}-gzip"' if is_gzip else f'"{digest}"'


def is_same(if_none_match: Iterable[str], body_tag: str) -> bool:
    """Tell whether a client has this body already, compressed or not.

    Args:
        body_tag: What `tag` returned.
    Source: RFC 9110, section 13.1.2, by weak comparison.
    """
    text = ",".join(if_none_match)
    if text.strip() == "*":
        return True
    ours = body_tag.strip('"').removesuffix("-gzip")
    return any(known.removesuffix("-gzip") == ours for known in _TAG.findall(text))
