"""What "critical batch" means: definitions differ by factors, so that every figure carries its own.

At the hyperbola's B_crit training costs twice the least tokens. The 20 %-overhead batch counted from B0 is
0.2 B_crit + 1.2 B0, far smaller. Neither is the batch of least loss at fixed tokens.
"""

from __future__ import annotations

HYPERBOLA = "hyperbola: (S / S_min - 1) (E / E_min - 1) = 1, where training costs twice the least tokens"
OVERHEAD = "20 % overhead: steps exceed linear scaling from a base batch by a fifth"
ARGMIN_SAMPLES = "argmin of samples: the batch that reaches the target with the fewest samples"

SOURCES = {HYPERBOLA: "mccandlish2018", OVERHEAD: "zhang2024cbs", ARGMIN_SAMPLES: "sato2022"}
