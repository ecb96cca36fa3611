"""`python -O` drops assert statements: no check of a request may be one."""

import subprocess
import sys
from pathlib import Path


def test_the_server_refuses_the_same_without_assert_statements(root: Path):
    file, words = "tests/integration/test_server.py", "odd or no_number or knn_gives"
    command = [sys.executable, "-O", "-m", "pytest", "-q", "-p", "no:cacheprovider", file, "-k", words]
    # pytest turns the tests' own asserts into code that stays.
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, done.stdout[-4000:]
    assert " passed" in done.stdout
