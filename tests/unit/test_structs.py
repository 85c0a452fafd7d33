"""`prepare`: threads that read the same struct for the first time do not end the process."""

from __future__ import annotations

import subprocess
import sys

#: Each struct is read for the first time by four threads at once. Without `prepare` this ends by
#: SIGSEGV, most times among the first ten.
PROGRAM = """
import sys, threading
from typing import Annotated
from msgspec import Meta, defstruct
from pman.job.reading import read_struct

sys.setswitchinterval(1e-6)
text = Annotated[str | None, Meta(description="text")]
for number in range(100):
    kind = defstruct(f"Form{number}", [(f"f{n}", text, None) for n in range(40)])
    barrier = threading.Barrier(4)
    found = []

    def read():
        barrier.wait()
        found.append(read_struct({"f1": "a"}, kind).f1)

    threads = [threading.Thread(target=read) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == ["a"] * 4, found
"""


def test_threads_may_read_a_struct_for_the_first_time_together() -> None:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
