"""Runs benchmarks, each as its own process: python -m benchmarks [--quick] [NAME].

Standard output carries the figures alone, one JSON object a line; all else goes to standard error.
Exit code 1 when a benchmark failed to run. A goal that is not met is told, and is no failure: how fast a
machine is, its owner knows.
"""

import argparse
import json
import subprocess
import sys
from pathlib import Path

FOLDER = Path(__file__).resolve().parent
KEYS = ["figure", "value", "unit", "goal", "met", "conditions"]


def main() -> int:
    """Run the benchmarks asked for; return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description="Run the benchmarks.")
    parser.add_argument("name", nargs="?", help="only this one: bench_NAME.py; all without it")
    parser.add_argument("--quick", action="store_true", help="smaller sizes, minutes in all")
    arguments = parser.parse_args()
    benchmarks = {path.stem.removeprefix("bench_"): path for path in sorted(FOLDER.glob("bench_*.py"))}
    if arguments.name:
        if arguments.name not in benchmarks:
            print(
                f"no benchmark {arguments.name}; there are: {', '.join(benchmarks) or 'none'}",
                file=sys.stderr,
            )
            return 1
        benchmarks = {arguments.name: benchmarks[arguments.name]}
    failed, missed, count = [], [], 0
    for name, path in benchmarks.items():
        figures, exit_code = run(path, quick=arguments.quick)
        count += len(figures)
        missed += [figure["figure"] for figure in figures if figure["met"] is False]
        if exit_code:
            failed.append(f"{name} (exit {exit_code})")
    print(f"{len(benchmarks)} benchmarks, {count} figures", file=sys.stderr)
    for title, names in (("goal not met", missed), ("failed to run", failed)):
        if names:
            print(f"{title}: {', '.join(map(str, names))}", file=sys.stderr)
    return 1 if failed else 0


def run(path: Path, *, quick: bool) -> tuple[list[dict[str, object]], int]:
    """Run one benchmark file in its own process, passing its figures on as they come.

    Returns:
        The figures, and the process's exit code.
    """
    command = [sys.executable, "-m", f"{FOLDER.name}.{path.stem}", *(["--quick"] if quick else [])]
    figures = []
    with subprocess.Popen(command, cwd=FOLDER.parent, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        for line in process.stdout:
            figure = as_figure(line)
            print(line, end="", flush=True, file=sys.stdout if figure else sys.stderr)
            if figure:
                figures.append(figure)
    return figures, process.returncode


def as_figure(line: str) -> dict[str, object] | None:
    """The figure that a line of output holds, None where it is anything else."""
    try:
        content = json.loads(line)
    except ValueError:
        return None
    return content if isinstance(content, dict) and list(content) == KEYS else None


if __name__ == "__main__":
    sys.exit(main())
