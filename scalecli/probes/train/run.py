"""Training runs from start to result: alone, side by side, or branching from one trunk."""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from scalecli.data.corpus import Corpus
from scalecli.errors import ProbeError
from scalecli.probes.columns import Row
from scalecli.probes.config import ProbeConfig
from scalecli.probes.device import Stopwatch, cpu_settings, out_of_memory, resolve_device
from scalecli.probes.train.acceleration import Acceleration
from scalecli.probes.train.checkpoint import EVERY_SECONDS, Checkpoints
from scalecli.probes.train.rivals import SHARES, Rivals
from scalecli.probes.train.rows import Outcome, evaluation_row, result_row
from scalecli.probes.train.spread import Spread
from scalecli.probes.train.trainer import ALONE, Trainer
from scalecli.probes.units import lengths

WINDOW_STEPS = 16
"""Steps between looks at the losses: each look waits for the device."""


@dataclass(frozen=True, slots=True)
class StepReport:
    """Progress of a run, or of several side by side; `loss` is the first one's mean over the last window."""

    run_id: str
    step: int
    steps: int
    loss: float


OnStep = Callable[[StepReport], None]


def train(
    config: ProbeConfig,
    *,
    corpus: Corpus,
    device: str = "auto",
    threads: int = 1,
    on_step: OnStep | None = None,
) -> Iterator[Row]:
    """One proxy training. Yields readings of the held-out loss, then the run.

    A run that diverges, runs out of memory or is given up (see `rivals`) ends with that status and a reason; it raises
    nothing.

    Raises:
        DataError: the corpus is too small, or not the one that the configuration was made for.
        ProbeError: the device does not exist, or the model cannot be built.
    """
    return train_together(
        [config],
        corpus=corpus,
        device=device,
        threads=threads,
        on_step=on_step,
    )


def train_together(
    configs: Sequence[ProbeConfig],
    *,
    corpus: Corpus,
    device: str = "auto",
    threads: int = 1,
    spread: Spread = ALONE,
    on_step: OnStep | None = None,
) -> Iterator[Row]:
    """Trains runs that can share work (see `units`), each with the result that it would have alone.

    Runs that differ in seed, learning rate or weight decay train side by side as copies of one stacked model;
    runs that differ in length branch from one trunk, where the shorter one's schedule bends. Where the training is
    `spread` over processes, each of them calls this, and each yields the same rows.
    """
    place = resolve_device(spread.device(device))
    with cpu_settings(threads):
        yield from _Session(configs, corpus, place, spread, on_step).run()


class _Session:
    """One trainer carried through the lengths of its runs, shortest first."""

    def __init__(
        self,
        configs: Sequence[ProbeConfig],
        corpus: Corpus,
        device: torch.device,
        spread: Spread,
        on_step: OnStep | None,
    ) -> None:
        self.configs = configs
        self.by_length = lengths(configs)
        self.corpus = corpus
        self.device = device
        self.spread = spread
        self.on_step = on_step
        self.watch = Stopwatch(device)
        self.window: list[Tensor] = []
        self.last_losses: list[float] = []
        self.steps_timed = 0
        self.readings: list[Row] = []
        copies = self.by_length[0]
        self.failures = [""] * len(copies)
        self.hopeless = [""] * len(copies)
        conduct = copies[0].conduct
        if conduct.checkpoints and spread.sharding == "zero3":
            raise ProbeError(
                "there are no checkpoints of weights in shards", hint="--sharding ddp, or no --checkpoint"
            )
        self.checkpoints = Checkpoints(conduct.checkpoints, copies) if conduct.checkpoints else None
        self.saved_at = time.monotonic()
        rule = conduct.stop_above and spread.rank == 0
        self.rivals = Rivals(Path(conduct.readings), conduct.stop_above) if rule else None

    def run(self) -> Iterator[Row]:
        pending = list(self.by_length)
        if self.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self.device)
        try:
            self.trainer = Trainer(
                self.by_length[0],
                self.corpus,
                device=self.device,
                spread=self.spread,
                acceleration=Acceleration.of(self.configs, self.device, self.spread.world),
            )
            yield from self._take_up(pending)
            while pending:
                yield from self._length(pending[0], last=len(pending) == 1)
                pending.pop(0)
        except (RuntimeError, MemoryError) as error:
            reason = out_of_memory(error)
            if not reason:
                raise
            for config in itertools.chain.from_iterable(pending):
                yield self._result(config, Outcome("out_of_memory", reason))

    def _take_up(self, pending: Sequence[Sequence[ProbeConfig]]) -> Iterator[Row]:
        """Goes on from the checkpoint, if there is one on the way of the runs to come; says its readings again."""
        state = self.checkpoints.read(self.device) if self.checkpoints else None
        if state is None:
            return
        first = pending[0][0]
        on_trunk = state["tail_of"] is None and state["trainer"]["step"] <= first.schedule.branch_step(
            first.steps
        )
        if not on_trunk and (len(pending) > 1 or state["tail_of"] != first.steps):
            return
        self.trainer.restore(state["trainer"])
        self.failures, self.readings = list(state["failures"]), list(state["readings"])
        yield from self.readings

    def _length(self, configs: Sequence[ProbeConfig], *, last: bool) -> Iterator[Row]:
        """Trains on to one length: along the trunk, then down its own tail."""
        steps = configs[0].steps
        branch = max(self.trainer.step, min(configs[0].schedule.branch_step(steps), steps))
        self.hopeless = [""] * len(configs)
        yield from self._until(branch, configs, tail_of=None)
        trunk = None if last or branch == steps else (self.trainer.state(), list(self.failures))
        yield from self._until(steps, configs, tail_of=steps if last else 0)
        yield from self._results(configs)
        if trunk is not None:
            state, self.failures = trunk
            self.trainer.restore(state)

    def _until(self, step: int, configs: Sequence[ProbeConfig], *, tail_of: int | None) -> Iterator[Row]:
        """Trains to a step. Checkpoints are of the trunk (`tail_of` None) and of the last run's tail, its steps; in
        other tails (0) the trunk to go back to is in memory alone."""
        schedule, steps, every = configs[0].schedule, configs[0].steps, configs[0].evaluation.every
        self.watch.start()
        while self.trainer.step < step and not self._over():
            self.window.append(self.trainer.advance(schedule.factor(self.trainer.step, steps)))
            self.steps_timed += 1
            now = self.trainer.step
            looked = now == step or now % WINDOW_STEPS == 0
            if looked:
                self._look(configs)
            if every and now % every == 0 and now < steps:
                self.watch.stop()
                losses = self.trainer.evaluate()
                rows = [
                    evaluation_row(*each)
                    for each in zip(configs, itertools.repeat(now), losses, strict=False)
                ]
                self.readings += rows
                yield from rows
                self.watch.start()
            if looked and tail_of != 0:
                self._save(tail_of)
        self.watch.stop()

    def _over(self) -> bool:
        """Is there no copy left that is worth a step?"""
        return all(
            failure or hopeless for failure, hopeless in zip(self.failures, self.hopeless, strict=True)
        )

    def _save(self, tail_of: int | None) -> None:
        """Now and then; of several processes, which have the same state, the first."""
        if self.checkpoints is None or self.spread.rank or time.monotonic() < self.saved_at + EVERY_SECONDS:
            return
        self.checkpoints.write(
            {
                "trainer": self.trainer.state(),
                "tail_of": tail_of,
                "failures": self.failures,
                "readings": self.readings,
            }
        )
        self.saved_at = time.monotonic()

    def _look(self, configs: Sequence[ProbeConfig]) -> None:
        """Reads the window's losses and marks copies that are beyond hope."""
        before = self.trainer.step - len(self.window)
        self.last_losses = self.spread.averaged(torch.stack(self.window).mean(dim=0)).tolist()
        self.window.clear()
        for copy, (config, loss) in enumerate(zip(configs, self.last_losses, strict=True)):
            self.failures[copy] = self.failures[copy] or self._failure(loss)
            if self.rivals is not None and not self.failures[copy]:
                for share in SHARES:
                    if before < share * config.steps <= self.trainer.step:
                        said = self.rivals.hopeless(config, share, loss)
                        self.hopeless[copy] = self.hopeless[copy] or said
        self.hopeless = self.spread.told(self.hopeless)  # the rivals' file may change while it is read
        if self.on_step:
            first = configs[0]
            self.on_step(StepReport(first.run_id, self.trainer.step, first.steps, self.last_losses[0]))

    def _failure(self, loss: float) -> str:
        """Why a training loss is beyond hope; empty when it is not."""
        subject, step = self.trainer.subject, self.trainer.step
        if not math.isfinite(loss):
            return f"training loss is {loss} at step {step}"
        if loss > subject.hopeless:
            return f"training loss {loss:.2f} at step {step} is far above guessing ({subject.guessing:.2f})"
        return ""

    def _results(self, configs: Sequence[ProbeConfig]) -> Iterator[Row]:
        losses = self.trainer.evaluate()
        averaged = configs[0].evaluation.averager != "none"
        last = self.trainer.evaluate(averaged=False) if averaged else [None] * len(configs)
        guessing = self.trainer.subject.guessing
        stopped = self.trainer.step < configs[0].steps
        for copy, (config, loss) in enumerate(zip(configs, losses, strict=True)):
            reason = self.failures[copy]
            if not reason and stopped:
                outcome = Outcome("stopped", self.hopeless[copy], train_loss=self.last_losses[copy])
                yield self._result(config, outcome)
                continue
            if not reason and not loss.mean < guessing:
                reason = f"held-out loss {loss.mean:.2f} is no better than guessing ({guessing:.2f})"
            outcome = Outcome(
                "diverged" if reason else "ok", reason, loss, self.last_losses[copy], last_weights=last[copy]
            )
            yield self._result(config, outcome)

    def _result(self, config: ProbeConfig, outcome: Outcome) -> Row:
        return result_row(
            config,
            outcome,
            corpus=self.corpus,
            device=self.device,
            seconds_per_step=self.watch.seconds / self.steps_timed if self.steps_timed else None,
            copies=len(self.by_length[0]),
            devices=self.spread.world,
        )
