"""One thread a process; fuzzing without time limits a test (machines differ), with the same examples on every CI."""

from __future__ import annotations

import os

# Tests train tiny models, several processes at a time: more threads only wait for each other, for minutes on a busy
# machine. Read when torch and NumPy are first imported.
os.environ.setdefault("OMP_NUM_THREADS", "1")

from hypothesis import settings

settings.register_profile("anywhere", deadline=None)
settings.register_profile("ci", deadline=None, derandomize=True)
settings.load_profile("ci" if os.environ.get("CI") else "anywhere")
