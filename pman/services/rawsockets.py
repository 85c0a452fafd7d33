"""The sockets of clients, which libzmq owns: who is there, and ends that it does not know.

libzmq (4.3.5) can close a connection only once everything is delivered, so a client that reads
nothing would stay for ever. What is done here, libzmq takes for the client's doing.
"""

from __future__ import annotations

import os
import socket
import struct
from collections.abc import Callable

import zmq

#: Descriptor of a socket of libzmq's, and the inode by which to know that it still is that socket.
Descriptor = tuple[int, int]


def descriptor_of(frame: zmq.Frame) -> Descriptor | None:
    """Return descriptor and inode of the socket that a frame came from, None when it is gone."""
    try:
        number = frame.get(zmq.SRCFD)
        assert isinstance(number, int)
        return number, os.fstat(number).st_ino
    except (OSError, zmq.ZMQError):
        return None


def peer_of(frame: zmq.Frame) -> str:
    """Return the address that a frame came from, "" when libzmq does not know."""
    try:
        return str(frame.get("Peer-Address"))
    except zmq.ZMQError:
        return ""


def cut(descriptor: Descriptor) -> bool:
    """Shut down a socket that libzmq owns, which it takes for the client's doing."""
    return _touch(descriptor, lambda owned: owned.shutdown(socket.SHUT_RDWR))


def reset_at_close(descriptor: Descriptor) -> bool:
    """Have the client see an error where the connection ends. Source: socket(7), SO_LINGER."""
    no_time = struct.pack("ii", 1, 0)
    return _touch(
        descriptor,
        lambda owned: owned.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, no_time),
    )


def _touch(descriptor: Descriptor, do: Callable[[socket.socket], object]) -> bool:
    """Do something to a socket that libzmq owns; False when it has gone in the meantime."""
    number, inode = descriptor
    try:
        # First a descriptor of our own: libzmq may close its, and the number be used again.
        with socket.socket(fileno=os.dup(number)) as owned:
            if os.fstat(owned.fileno()).st_ino != inode:
                return False
            do(owned)
    except OSError:
        return False
    return True
