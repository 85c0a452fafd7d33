"""`prepare`: has msgspec learn a struct before threads share it.

What it knows of a type is built where the type is first read as. Two threads that do so at the same
time crash the process: one of them finds what the other has only begun (tried with msgspec 0.22).
"""

from __future__ import annotations

import threading

import msgspec

_lock = threading.Lock()
_prepared: set[type[object]] = set()


def prepare(kind: type[object]) -> None:
    """Make a struct safe to be read in several threads. Costs a look-up from the second call on.

    What is read by a decoder that is made when its module is imported needs no more.
    """
    if kind in _prepared:
        return
    with _lock:
        msgspec.json.Decoder(kind)
        _prepared.add(kind)
