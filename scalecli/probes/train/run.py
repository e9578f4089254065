"""Training runs from start to result: alone, side by side, or branching from one trunk."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from scalecli.data.corpus import Corpus
from scalecli.probes.columns import Row
from scalecli.probes.config import ProbeConfig
from scalecli.probes.device import Stopwatch, cpu_settings, out_of_memory, resolve_device
from scalecli.probes.train.rows import Outcome, evaluation_row, result_row
from scalecli.probes.train.trainer import Trainer
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
    micro_batch_sequences: int | None = None,
    on_step: OnStep | None = None,
) -> Iterator[Row]:
    """One proxy training. Yields readings of the held-out loss, then the run.

    A run that diverges or runs out of memory ends with that status and a reason; it raises nothing.

    Raises:
        DataError: the corpus is too small, or not the one that the configuration was made for.
        ProbeError: the device does not exist, or the micro-batch does not divide the batch.
    """
    return train_together(
        [config],
        corpus=corpus,
        device=device,
        threads=threads,
        micro_batch_sequences=micro_batch_sequences,
        on_step=on_step,
    )


def train_together(
    configs: Sequence[ProbeConfig],
    *,
    corpus: Corpus,
    device: str = "auto",
    threads: int = 1,
    micro_batch_sequences: int | None = None,
    on_step: OnStep | None = None,
) -> Iterator[Row]:
    """Trains runs that can share work (see `units`), each with the result that it would have alone.

    Runs that differ in seed, learning rate or weight decay train side by side as copies of one stacked model;
    runs that differ in length branch from one trunk, where the shorter one's schedule bends.
    """
    place = resolve_device(device)
    with cpu_settings(threads):
        yield from _Session(configs, corpus, place, micro_batch_sequences, on_step).run()


class _Session:
    """One trainer carried through the lengths of its runs, shortest first."""

    def __init__(
        self,
        configs: Sequence[ProbeConfig],
        corpus: Corpus,
        device: torch.device,
        micro_batch_sequences: int | None,
        on_step: OnStep | None,
    ) -> None:
        self.by_length = lengths(configs)
        self.corpus = corpus
        self.device = device
        self.micro_batch_sequences = micro_batch_sequences
        self.on_step = on_step
        self.watch = Stopwatch(device)
        self.window: list[Tensor] = []
        self.last_losses: list[float] = []
        self.steps_timed = 0

    def run(self) -> Iterator[Row]:
        pending = list(self.by_length)
        if self.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self.device)
        try:
            self.trainer = Trainer(
                self.by_length[0],
                self.corpus,
                device=self.device,
                micro_batch_sequences=self.micro_batch_sequences,
            )
            self.failures = [""] * len(self.by_length[0])
            while pending:
                yield from self._length(pending[0], last=len(pending) == 1)
                pending.pop(0)
        except (RuntimeError, MemoryError) as error:
            reason = out_of_memory(error)
            if not reason:
                raise
            for config in itertools.chain.from_iterable(pending):
                yield self._result(config, Outcome("out_of_memory", reason))

    def _length(self, configs: Sequence[ProbeConfig], *, last: bool) -> Iterator[Row]:
        """Trains on to one length: along the trunk, then down its own tail."""
        branch = max(
            self.trainer.step, min(configs[0].schedule.branch_step(configs[0].steps), configs[0].steps)
        )
        yield from self._until(branch, configs)
        trunk = None if last or branch == configs[0].steps else (self.trainer.state(), list(self.failures))
        yield from self._until(configs[0].steps, configs)
        yield from self._results(configs)
        if trunk is not None:
            state, self.failures = trunk
            self.trainer.restore(state)

    def _until(self, step: int, configs: Sequence[ProbeConfig]) -> Iterator[Row]:
        schedule, steps, every = configs[0].schedule, configs[0].steps, configs[0].evaluation.every
        self.watch.start()
        while self.trainer.step < step and not all(self.failures):
            self.window.append(self.trainer.advance(schedule.factor(self.trainer.step, steps)))
            self.steps_timed += 1
            now = self.trainer.step
            if now == step or now % WINDOW_STEPS == 0:
                self._look(configs)
            if every and now % every == 0 and now < steps:
                self.watch.stop()
                losses = self.trainer.evaluate()
                yield from (
                    evaluation_row(*each)
                    for each in zip(configs, itertools.repeat(now), losses, strict=False)
                )
                self.watch.start()
        self.watch.stop()

    def _look(self, configs: Sequence[ProbeConfig]) -> None:
        """Reads the window's losses and marks copies that are beyond hope."""
        self.last_losses = torch.stack(self.window).mean(dim=0).tolist()
        self.window.clear()
        for copy, loss in enumerate(self.last_losses):
            self.failures[copy] = self.failures[copy] or self._failure(loss)
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
        for copy, (config, loss) in enumerate(zip(configs, losses, strict=True)):
            reason = self.failures[copy]
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
        )
