"""Patterns and numbers of HTTP/1.x, each with its source. No state, no I/O."""

from __future__ import annotations

import re

#: A whole request line with any method; which methods are known is the dispatcher's business.
#: Source: RFC 9110, section 5.6.2 (token); RFC 9112, section 3; a bare LF: section 2.2.
REQUEST_LINE = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+ +[!-~]+ +HTTP/1\.[01]\r?\n")

#: What follows while it can still become `REQUEST_LINE`.
REQUEST_LINE_BEGINNING = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+( +([!-~]+( +[!-~]*)?)?)?\r?")

#: Beginning of the HTTP/2 connection preface. Source: RFC 9113, section 3.4.
HTTP2_PREFACE = b"PRI * HTTP/2"

#: Record header of a TLS handshake, any version. Source: RFC 8446, section 5.1.
TLS_HELLO = re.compile(rb"\x16\x03[\x00-\x04]")

#: Characters that would end a header field or smuggle in another.
#: Source: RFC 9110, section 5.5 (CR, LF and NUL are dangerous).
UNSAFE_IN_VALUE = re.compile(r"[\r\n\0]")

#: Characters that no field name holds. Source: RFC 9110, section 5.1.
UNSAFE_IN_NAME = re.compile(r"[^!#$%&'*+.^_`|~0-9A-Za-z-]")

#: Bytes of a request that a rejection keeps, to say what came and what it was taken for.
MAX_KEPT_BYTES = 1024

#: Length of a request line whose method is not known, before we give up on it, bytes.
MAX_LINE_BYTES = 8192
