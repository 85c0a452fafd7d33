"""Threads, sockets and clocks."""
