import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.memory_group import memory_group

ROOT = Path(__file__).resolve().parents[3]

PROGRAM = """
import sys
from pathlib import Path
from benchmarks.memory_group import join
join(Path(sys.argv[1]))
held = b"x" * int(sys.argv[2])
print(len(held))
"""


def test_a_process_in_a_group_has_no_more_memory_than_the_group():
    with memory_group(150_000_000) as group:
        if group is None:
            pytest.skip("this user may make no control group here")
        little, much = (
            subprocess.run(
                [sys.executable, "-c", PROGRAM, str(group), str(size_bytes)],
                check=False,
                capture_output=True,
                cwd=ROOT,
            )
            for size_bytes in (20_000_000, 400_000_000)
        )

    assert little.stdout.split() == [b"20000000"]
    assert much.returncode < 0 or b"MemoryError" in much.stderr
    assert not group.exists()
