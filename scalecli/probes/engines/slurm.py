"""The Slurm engine: every unit is a job of an array, submitted through submitit.

The store must lie on a file system that the nodes share: a job appends its records to its attempt's file there, and
says how it is doing in a status file. That file, and not Slurm's word, says that a job has ended: without accounting
Slurm forgets jobs, and a queue without a job only says that it is gone. Jobs outlive a driver that is killed; the next
one finds them by the name of their submission, which was written down before they were submitted.
"""

from __future__ import annotations

import math
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from scalecli.data.network import on_network_file_system
from scalecli.errors import ProbeError, needs_extra
from scalecli.probes.engines.engine import Capacity, Event, UnitEnded, UnitStarted, event_of
from scalecli.probes.engines.process import Ended, Report, Sharding, Slot
from scalecli.probes.engines.slurm_job import WARNING_SECONDS, UnitJob, read_status
from scalecli.probes.engines.slurm_queue import Job, Submission, nodes, submissions
from scalecli.probes.units import Unit

LOOK_SECONDS = 1.0
"""Between looks at the status files."""
QUEUE_SECONDS = 10.0
"""Between questions to the scheduler, which serves everybody."""
SHOWN_SECONDS, SHOWN_SECONDS_BY_NETWORK = 15.0, 90.0
"""How long a job may be missed, while it is queued again or its last word is not seen from another machine yet:
network file systems cache for up to a minute."""
START_MINUTES = 5
"""What a job needs besides training: torch from a shared disk, and the corpus."""
DEFAULT_MINUTES = 24 * 60
LARGEST_ARRAY = 1000
"""Slurm's default MaxArraySize, 1001, is one more than the largest index."""
HOPELESS = frozenset(
    [
        "AccountNotAllowed",
        "BadConstraints",
        "InvalidAccount",
        "InvalidQOS",
        "PartitionNodeLimit",
        "PartitionTimeLimit",
        "QOSNotAllowed",
    ]
)
"""Reasons of squeue for which a job waits for ever."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SlurmEngine:
    """A Slurm cluster that this machine can submit to.

    `slots` bounds how many jobs run at a time, `devices` is how many whole GPUs a probe gets. `options` are those of
    sbatch by their names, `partition` and `time` [minutes] among them.
    """

    device: str = "auto"
    slots: int | None = None
    threads: int = 1
    devices: int = 1
    sharding: Sharding = "ddp"
    options: Mapping[str, str] = field(default_factory=dict)

    def capacity(self) -> Capacity:
        """Raises ProbeError when no node of the partition can hold a probe."""
        available = nodes(self.options.get("partition"))
        device = self.device
        if device == "auto":
            device = "cuda" if any(gpus for _, gpus in available) else "cpu"
        wanted = self.threads * self.devices
        places = sum(
            min(cpus // wanted, gpus // self.devices if device == "cuda" else cpus)
            for cpus, gpus in available
        )
        if not places:
            gpus_wanted = f" and {self.devices} GPUs" if device == "cuda" else ""
            raise ProbeError(
                f"none of the {len(available)} Slurm nodes has {wanted} CPUs{gpus_wanted} for a probe",
                hint="--slurm-partition, --device or --devices-per-probe",
            )
        return Capacity(device, min(places, self.slots or places), self.devices)

    @contextmanager
    def session(self, attempts: Path, *, timeout: float | None) -> Iterator[_Session]:
        """Leaving the block cancels the jobs; a driver that is killed leaves them to the next."""
        device = self.capacity().device_type
        slot = Slot(device=device, threads=self.threads, devices=self.devices, sharding=self.sharding)
        session = _Session(self, slot, attempts, timeout)
        try:
            yield session
        finally:
            session.stop()

    def minutes(self, units: Sequence[Unit], timeout: float | None) -> int:
        """The time limit of a job [minutes]: what sbatch was to be told, or what the longest unit may take.

        Raises:
            ProbeError: the time is not a number of minutes.
        """
        time_limit = self.options.get("time")
        if time_limit is not None and not time_limit.isdecimal():
            raise ProbeError(f"time={time_limit} is not a number of minutes", hint="--slurm time=120")
        if time_limit is not None:
            return int(time_limit)
        if timeout is None:
            return DEFAULT_MINUTES
        return START_MINUTES + math.ceil(timeout * max(len(unit) for unit in units) / 60)


@dataclass(slots=True)
class _Watched:
    """A job, its place in its submission, and what was last heard of it."""

    submission: Submission
    index: int
    heard: Report | None = None
    missed_since: float | None = None

    @property
    def job(self) -> Job:
        return self.submission.jobs[self.index]


class _Session:
    """Jobs that are watched by their status files, and now and then in the queue."""

    def __init__(self, engine: SlurmEngine, slot: Slot, attempts: Path, timeout: float | None) -> None:
        self._engine = engine
        self._slot = slot
        self._attempts = attempts
        self._timeout = timeout
        self._patience = SHOWN_SECONDS_BY_NETWORK if on_network_file_system(attempts) else SHOWN_SECONDS
        with needs_extra("slurm", "--engine slurm", ProbeError):
            import submitit
        self._submitit = submitit
        self._watched = [
            _Watched(submission, index)
            for submission in submissions(attempts)
            for index in submission.queued()
        ]
        self._running = [watched.job.unit for watched in self._watched]
        self._events = self._watch()

    @property
    def running(self) -> Sequence[Unit]:
        return self._running

    def submit(self, units: Sequence[Unit]) -> None:
        for first in range(0, len(units), LARGEST_ARRAY):
            submission = Submission.new(self._attempts, units[first : first + LARGEST_ARRAY])
            self._send(submission)
            self._watched += [_Watched(submission, index) for index in range(len(submission.jobs))]

    def wait(self) -> Event:
        return next(self._events)

    def stop(self) -> None:
        for submission in self._open_submissions():
            submission.cancel()

    def _open_submissions(self) -> list[Submission]:
        return list({watched.submission.name: watched.submission for watched in self._watched}.values())

    def _send(self, submission: Submission) -> None:
        """Raises ProbeError when Slurm does not take it."""
        minutes = self._engine.minutes([job.unit for job in submission.jobs], self._timeout)
        jobs = [
            UnitJob(job.unit, job.file, job.status, self._slot, self._timeout, minutes)
            for job in submission.jobs
        ]
        options = {name: value for name, value in self._engine.options.items() if name != "time"}
        try:
            executor = self._submitit.SlurmExecutor(submission.folder, max_num_timeout=sys.maxsize)
            executor.update_parameters(
                job_name=submission.name,
                time=minutes,
                signal_delay_s=WARNING_SECONDS,
                cpus_per_task=self._slot.threads * self._slot.devices,
                gpus_per_node=self._slot.devices if self._slot.device == "cuda" else None,
                array_parallelism=self._engine.slots or LARGEST_ARRAY,
                additional_parameters={"requeue": True, **options},
            )
            with executor.batch():
                for job in jobs:
                    executor.submit(job)
        except (
            RuntimeError,
            subprocess.CalledProcessError,
            self._submitit.core.utils.FailedJobError,
        ) as error:
            submission.forget()
            raise ProbeError(
                f"Slurm does not take the jobs: {error}", hint="--slurm-partition, --slurm account=…"
            ) from error

    def _watch(self) -> Iterator[Event]:
        asked = time.monotonic()
        while True:
            for watched in list(self._watched):
                yield from self._heard(watched)
            if time.monotonic() > asked + QUEUE_SECONDS:
                yield from self._gone()
                asked = time.monotonic()
            time.sleep(LOOK_SECONDS)

    def _heard(self, watched: _Watched) -> Iterator[Event]:
        """What the job's status file has that is new."""
        report = read_status(watched.job.status)
        if report is None or report == watched.heard:
            return
        if watched.heard is None:
            yield UnitStarted(watched.job.unit)
        watched.heard = report
        event = event_of(watched.job.unit, watched.job.file, report)
        if isinstance(event, UnitEnded):
            self._leave(watched)
        yield event

    def _gone(self) -> Iterator[Event]:
        """Jobs that left the queue some time ago without saying that they ended.

        Raises:
            ProbeError: jobs wait in the queue for what will never be.
        """
        for submission in self._open_submissions():
            try:
                queued = submission.queued()
            except ProbeError:
                continue  # a scheduler that restarts loses no jobs
            if never := HOPELESS.intersection(queued.values()):
                raise ProbeError(
                    f"Slurm keeps jobs {submission.name} waiting for ever: {', '.join(sorted(never))}",
                    hint="--slurm time=MINUTES, --slurm-partition, --slurm account=NAME",
                )
            for watched in [each for each in self._watched if each.submission is submission]:
                yield from self._missed(watched, there=watched.index in queued)

    def _missed(self, watched: _Watched, *, there: bool) -> Iterator[Event]:
        now = time.monotonic()
        watched.missed_since = None if there else watched.missed_since or now
        if watched.missed_since is not None and now > watched.missed_since + self._patience:
            words = watched.submission.last_words(watched.index)
            self._leave(watched)
            reason = f"its Slurm job left the queue without a result: {words}"
            yield UnitEnded(watched.job.unit, watched.job.file, reason)

    def _leave(self, watched: _Watched) -> None:
        """Watches it no more; a submission that went well leaves no files, of another the logs may be wanted."""
        self._watched.remove(watched)
        if all(read_status(job.status) == Ended() for job in watched.submission.jobs):
            watched.submission.forget()
