"""What answers take again and again is not given back to the system in between."""

from __future__ import annotations

import platform
import subprocess
import sys

import pytest

_ANSWERS = """
import resource
from gateway.memory import settle_allocator

settle_allocator()
large = [bytes(4096) for _ in range(20_000)]  # what it has learned from such does not matter
del large

def answer():
    rows = [bytes(600) for _ in range(100)]
    page = b",".join(rows)
    return b"{%b}" % page

for _ in range(10):
    answer()
before = resource.getrusage(resource.RUSAGE_SELF)
for _ in range(1_000):
    answer()
after = resource.getrusage(resource.RUSAGE_SELF)
print(after.ru_minflt - before.ru_minflt)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc can be told")
def test_a_page_of_a_hundred_images_takes_no_memory_from_the_system() -> None:
    ran = subprocess.run([sys.executable, "-c", _ANSWERS], capture_output=True, text=True, check=True)
    assert int(ran.stdout) < 100
