"""Everything that wants a GPU, in a few minutes: tests, speeds, and a sweep from the command line.

    PYTHONPATH=. python3 benchmarks/gpu.py [--device cuda] [--seconds 270] [--out FILE]

Each part is a process of its own with a time limit, killed when that is over; the next goes on. A JSON object a part on
standard output (and in a file): part, exit code (null when it was killed), seconds, output.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch

TESTS = (
    "-m pytest -q -rs -W default -p no:cacheprovider --confcutdir tests/probes -m gpu "
    "tests/probes/test_acceleration.py tests/probes/test_train.py"
)
SWEEP = ("-m", "scalecli", "probe", "sweep", "--data", "builtin:python", "--json")
GRID = {
    "cpu": ("--params", "15k", "--tokens-per-param", "1", "--batch-tokens", "512"),
    "cuda": ("--params", "1M,3M", "--tokens-per-param", "0.5", "--batch-tokens", "4096"),
}
RUNS = ("--learning-rate", "1e-3,2e-3,4e-3", "--seeds", "2")


def parts(device: str, folder: Path) -> dict[str, tuple[float, list[str]]]:
    """Part -> its limit [s], and the arguments of Python; the most wanted first."""
    speeds = ["benchmarks/probes.py", "--device", device, "--rounds", "3", "--parts"]
    sweep = [*SWEEP, *GRID[device], *RUNS, "--device", device, "--store"]
    return {
        "large": (90.0, [*speeds, "large"]),
        "ladder": (90.0, [*speeds, "ladder"]),
        "tests": (75.0, TESTS.split()),
        "sweep": (45.0, [*sweep, str(folder / "runs.db")]),
        "stacking": (30.0, [*speeds, "stacking"]),
        "single": (30.0, [*speeds, "single"]),
        "shared": (60.0, [*sweep, str(folder / "shared.db"), "--probes-per-device", "auto"]),
    }


def run(arguments: list[str], limit: float) -> tuple[int | None, str]:
    """Exit code, and all that was said; what has to be killed is killed with the processes it started."""
    with tempfile.TemporaryFile() as said:
        process = subprocess.Popen(
            [sys.executable, *arguments], stdout=said, stderr=subprocess.STDOUT, start_new_session=True
        )
        try:
            code = process.wait(limit)
        except subprocess.TimeoutExpired:
            code = None
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        said.seek(0)
        return code, said.read().decode(errors="replace")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--device", default="cuda", choices=GRID)
    parser.add_argument("--seconds", type=float, default=270.0, help="Limit for all.")
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    if arguments.device == "cuda" and not torch.cuda.is_available():
        print("nothing to do: torch sees no CUDA device")
        return
    deadline = time.monotonic() + arguments.seconds
    with tempfile.TemporaryDirectory() as folder:
        for name, (limit, command) in parts(arguments.device, Path(folder)).items():
            started = time.monotonic()
            if started >= deadline:
                break
            code, said = run(command, min(limit, deadline - started))
            took = round(time.monotonic() - started, 1)
            line = json.dumps({"part": name, "code": code, "seconds": took, "output": said})
            print(line, flush=True)
            if arguments.out:
                with arguments.out.open("a", encoding="utf-8") as out:
                    out.write(line + "\n")


if __name__ == "__main__":
    main()
