"""What "critical batch" means: definitions differ by factors, so that every figure carries its own.

At the hyperbola's B_crit training costs twice the least tokens. The 20 %-overhead batch counted from B0 is
0.2 B_crit + 1.2 B0, far smaller. Neither is the batch of least loss at fixed tokens.

The three regimes of Shallue et al. 2018 follow from the same curve: steps fall in proportion up to the 20 %-overhead
batch, and hardly at all past 5 B_crit, where they are within a fifth of the fewest; between, returns diminish.
"""

from __future__ import annotations

HYPERBOLA = "hyperbola: (S / S_min - 1) (E / E_min - 1) = 1, where training costs twice the least tokens"
OVERHEAD = "20 % overhead: steps exceed linear scaling from a base batch by a fifth"
SATURATED = "maximal parallelism: steps are within a fifth of the fewest that any batch takes"
ARGMIN_SAMPLES = "argmin of samples: the batch that reaches the target with the fewest samples"

SOURCES = {
    HYPERBOLA: "mccandlish2018",
    OVERHEAD: "zhang2024cbs",
    SATURATED: "shallue2018",
    ARGMIN_SAMPLES: "sato2022",
}
