"""`probe critical-batch --branch-at`: branches with larger batches from one point of a training."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from scalecli.cli.probe.measuring import Measurement
from scalecli.cli.probe.options import proxy_run
from scalecli.cli.render import warn

if TYPE_CHECKING:
    from scalecli.data.corpus import Corpus
    from scalecli.probes.config import ProbeConfig
    from scalecli.probes.critical_batch.branches import BranchProbe
    from scalecli.probes.spec import SweepSpec


@dataclass(frozen=True, slots=True)
class BranchedProbe:
    """One training to the branching point, and one short training for each multiple of its batch."""

    config: ProbeConfig
    probe: BranchProbe
    corpus: Corpus
    tolerance: float

    @classmethod
    def of(
        cls,
        spec: SweepSpec,
        corpus: Corpus,
        *,
        params: float,
        tokens: float,
        batches: Sequence[float],
        rates: Sequence[float],
        seed: int,
        start: int,
        length: float,
        factors: tuple[int, ...],
        tolerance: float,
    ) -> BranchedProbe:
        """A usage error when more than one batch or rate is given."""
        from scalecli.probes.critical_batch.branches import BranchProbe

        for values, option in ((batches, "--batch-tokens"), (rates, "--learning-rate")):
            if len(values) > 1:
                raise typer.BadParameter("branches start from one training: give one", param_hint=option)
        config = proxy_run(
            spec, corpus, params=params, tokens=tokens, batch_tokens=next(iter(batches), None),
            learning_rate=next(iter(rates), None), seed=seed,
        )  # fmt: skip
        return cls(config, BranchProbe(start=start, tokens=length, factors=factors), corpus, tolerance)

    @property
    def configs(self) -> list[ProbeConfig]:
        """Trainings of the same work."""
        trunk = replace(self.config, steps=min(self.probe.start, self.config.steps))
        return [trunk, *(self.probe.branch(self.config, factor) for factor in self.probe.factors)]

    def slots(self, wanted: int | None) -> int | None:
        """Branches follow one another in one process."""
        return 1

    def finished(self, store: Path) -> set[str]:
        """All or none: the measurement is one."""
        return {config.run_id for config in self.configs} if self._kept(store).file.exists() else set()

    def measure(self, store: Path, device: str, slots: int | None, timeout: float | None) -> dict[str, Any]:
        """Raises NotEnoughSignal when no branch leaves the tolerance."""
        from scalecli.probes.critical_batch.branches import local_critical_batch

        rows = self._kept(store).rows(lambda: self._told(device))
        found = local_critical_batch(rows, tolerance=self.tolerance)
        figure = {
            "at": f"step {self.probe.start}",
            "tokens": found.tokens,
            "low": float(found.tested[0]),
            "high": float(found.tested[1]),
            "definition": f"the loss after {self.probe.tokens:.3g} tokens stays within {found.tolerance:g} nats of the "
            "smallest batch's; low and high are the two batches tried between which it leaves that",
            "source": "merrill2025",
        }
        return {"method": "branches", "critical": [figure], "unidentified": [], "rows": rows, "warnings": []}

    def _kept(self, store: Path) -> Measurement:
        return Measurement("critical-batch", {"run": self.config.run_id, **asdict(self.probe)}, store)

    def _told(self, device: str) -> Iterator[dict[str, Any]]:
        """The branches, each said on standard error when it ends."""
        from scalecli.probes.critical_batch.branches import run

        for row in run(self.config, self.probe, corpus=self.corpus, device=device):
            warn(f"batch of {row['batch_tokens']} tokens: loss {row['loss']}")
            yield row
