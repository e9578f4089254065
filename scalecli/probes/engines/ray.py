"""The Ray engine: every unit is a Ray Core task on some node of a running cluster.

Nodes need not share a disk: a task is sent the corpus, and streams its records back, so that the driver has what is
finished the moment it is. Ray's own retries are off: they would train a unit anew as a whole, where the sweep tries
again only what a lost node had not finished.
"""

from __future__ import annotations

import contextlib
import logging
import os
import socket
import tempfile
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import scalecli
from scalecli.data.corpus import Corpus
from scalecli.data.corpus_file import write_corpus
from scalecli.errors import ProbeError, needs_extra
from scalecli.probes.config import ProbeConfig
from scalecli.probes.corpora import corpus_of
from scalecli.probes.engines.engine import (
    Capacity,
    Event,
    UnitEnded,
    UnitStarted,
    attempt_file,
    event_of,
)
from scalecli.probes.engines.process import ChildProcess, Ended, Report, Sharding, Slot
from scalecli.probes.engines.slurm_queue import refuse_live_jobs
from scalecli.probes.units import Unit

LOOK_SECONDS = 10.0
"""Without news for so long, the head is asked whether it is there."""
CONNECT_SECONDS = 10.0
"""A head that does not answer its port for so long is not there; Ray itself asks for two minutes."""
START_HEAD = (
    "on the head: export RAY_AUTH_MODE=token; ray get-auth-token --generate; ray start --head; "
    "on every other node, with the same token: ray start --address HEAD:6379; run scalecli on one of the nodes"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class RayEngine:
    """A running Ray cluster that this machine is a node of.

    `device` is cpu, cuda, or auto: cuda if any node has a GPU. `slots` bounds how many units train at a time. A probe
    gets `devices` GPUs, or one of the `share` equal parts of one: a matter of scheduling, no limit on memory.
    """

    address: str = "auto"
    device: str = "auto"
    slots: int | None = None
    threads: int = 1
    devices: int = 1
    sharding: Sharding = "ddp"
    share: int = 1

    def capacity(self) -> Capacity:
        """Raises ProbeError when no node can hold a probe."""
        ray = self._connected()
        nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
        device = self.device
        if device == "auto":
            device = "cuda" if any(node.get("GPU") for node in nodes) else "cpu"
        needs = self._needs(device)
        slots = sum(
            min(int(node.get(name, 0) / amount) for name, amount in needs.items() if amount) for node in nodes
        )
        if not slots:
            wanted = " and ".join(f"{amount:g} {name}" for name, amount in needs.items() if amount)
            raise ProbeError(
                f"no node of the {len(nodes)} of the Ray cluster has the {wanted} of a probe",
                hint="--device, --devices-per-probe or a node that has them (`ray status`)",
            )
        return Capacity(device, min(slots, self.slots or slots), self.devices)

    @contextmanager
    def session(self, attempts: Path, *, timeout: float | None) -> Iterator[_Session]:
        refuse_live_jobs(attempts)
        ray = self._connected()
        device = self.capacity().device_type
        needs = self._needs(device)
        slot = Slot(device=device, threads=self.threads, devices=self.devices, sharding=self.sharding)
        task = ray.remote(train_on_node).options(
            num_cpus=needs["CPU"], num_gpus=needs["GPU"], max_retries=0, num_returns="streaming"
        )
        session = _Session(ray, task, slot, self.slots, attempts, timeout)
        try:
            yield session
        finally:
            session.stop()
            ray.shutdown()

    def _needs(self, device: str) -> dict[str, float]:
        if device == "cpu":
            return {"CPU": self.threads * self.devices, "GPU": 0}
        return {"CPU": self.threads * self.devices, "GPU": self.devices / self.share}

    def _connected(self) -> Any:
        """Ray, connected to the cluster, by token unless the user has said otherwise.

        Raises:
            ProbeError: there is no cluster at the address, or it does not let us in.
        """
        # An open head runs whatever anybody sends it, so an unauthenticated one is used only where that was asked for.
        os.environ.setdefault("RAY_AUTH_MODE", "token")
        with needs_extra("ray", "--engine ray", ProbeError):
            import ray
        if ray.is_initialized():
            return ray
        self._check_address()
        try:
            ray.init(address=self.address, logging_level=logging.CRITICAL, log_to_driver=False)
        except (ConnectionError, RuntimeError, ray.exceptions.RayError) as error:
            mode = os.environ["RAY_AUTH_MODE"]
            reason = str(error).splitlines()[0]
            raise ProbeError(
                f"the Ray cluster at {self.address} cannot be joined with RAY_AUTH_MODE={mode}: {reason}",
                hint=START_HEAD,
            ) from error
        return ray

    def _check_address(self) -> None:
        if self.address == "auto":
            return
        host, _, port = self.address.rpartition(":")
        if not host or not port.isdecimal():
            raise ProbeError(
                f"{self.address!r} is no address of a Ray cluster",
                hint="--address auto or --address HOST:6379",
            )
        try:
            _reach(self.address)
        except OSError as error:
            raise ProbeError(f"nothing answers at {self.address}: {error}", hint=START_HEAD) from error


@dataclass(slots=True)
class _Running:
    """A unit on a node, and the file that its records go to here."""

    unit: Unit
    file: Path
    started: bool = False


class _Session:
    """Tasks by their streams, at most `slots` at a time. What a stream brings is written before it is reported."""

    def __init__(
        self, ray: Any, task: Any, slot: Slot, slots: int | None, attempts: Path, timeout: float | None
    ) -> None:
        self._ray = ray
        self._task = task
        self._head = ray.get_runtime_context().gcs_address
        self._slot = slot
        self._slots = slots
        self._attempts = attempts
        self._timeout = timeout
        self._corpora: dict[str, Any] = {}
        self._streams: dict[Any, _Running] = {}
        self._backlog: deque[Unit] = deque()

    @property
    def running(self) -> Sequence[Unit]:
        return ()  # Ray ends the tasks of a driver that is gone

    def submit(self, units: Sequence[Unit]) -> None:
        self._backlog.extend(units)
        self._send()

    def _send(self) -> None:
        while self._backlog and (self._slots is None or len(self._streams) < self._slots):
            unit = self._backlog.popleft()
            stream = self._task.remote(
                list(unit),
                self._corpus(unit),
                self._slot,
                self._timeout,
                scalecli.__version__,
                str(Path.cwd()),
            )
            self._streams[stream] = _Running(unit, attempt_file(self._attempts, unit))

    def wait(self) -> Event:
        while True:
            ready, _ = self._ray.wait(list(self._streams), num_returns=1, timeout=LOOK_SECONDS)
            if not ready:
                self._check_head()
                continue
            stream = ready[0]
            running = self._streams[stream]
            event = self._taken(stream, running)
            if isinstance(event, UnitEnded):
                del self._streams[stream]
                self._send()
            if event is not None:
                return event

    def _check_head(self) -> None:
        """Raises ProbeError when the head is gone: Ray itself would end this process, a minute later."""
        try:
            _reach(self._head)
        except OSError as error:
            self._streams.clear()
            raise ProbeError(
                f"the Ray cluster at {self._head} is gone: {error}; the runs that are finished are kept",
                hint="the same command again goes on, with the cluster back or with --engine local",
            ) from error

    def stop(self) -> None:
        for stream in self._streams:
            self._ray.cancel(stream, force=True)
        self._streams.clear()

    def _corpus(self, unit: Unit) -> Any:
        """A reference to the unit's corpus in the cluster's memory, put there once."""
        digest = unit[0].data_sha256
        if digest not in self._corpora:
            self._corpora[digest] = self._ray.put(replace(corpus_of(unit[0]), notes=()))
        return self._corpora[digest]

    def _taken(self, stream: Any, running: _Running) -> Event | None:
        """The next thing a stream brings; None when it brings records, which are written to the unit's file."""
        unit, file, errors = running.unit, running.file, self._ray.exceptions
        try:
            brought: Report | bytes = self._ray.get(next(stream))
        except (errors.RayTaskError, errors.OutOfMemoryError) as error:
            return UnitEnded(unit, file, f"failed on its node: {_last_line(error)}")
        except errors.RayError as error:
            return UnitEnded(unit, file, f"lost with its node: {_last_line(error)}", lost=True)
        match brought:
            case bytes():
                return self._written(brought, running)
            case Ended(reason, unwritable=True):
                return UnitEnded(unit, file, f"its node cannot write: {reason}", lost=True)
        return event_of(unit, file, brought)

    def _written(self, records: bytes, running: _Running) -> Event | None:
        try:
            with running.file.open("ab", buffering=0) as file:
                file.write(records)
        except OSError as error:
            return event_of(running.unit, running.file, Ended(error.strerror or str(error), unwritable=True))
        if running.started:
            return None
        running.started = True
        return UnitStarted(running.unit)


def train_on_node(
    configs: Sequence[ProbeConfig],
    corpus: Corpus,
    slot: Slot,
    timeout: float | None,
    version: str,
    folder: str,
) -> Iterator[Report | bytes]:
    """The task: one child process. Yields its records as they are written, and what it reports.

    `folder` is the driver's, where a user's own modules are found if this node has it too.
    """
    if version != scalecli.__version__:
        raise ProbeError(f"the driver has scalecli {version}, this node {scalecli.__version__}")
    with contextlib.suppress(OSError):
        os.chdir(folder)
    yield b""
    with tempfile.TemporaryDirectory(prefix="scalecli-") as name, ChildProcess(slot) as child:
        saved, file = Path(name) / "corpus.npz", Path(name) / "records.jsonl"
        write_corpus(corpus, saved)
        file.touch()
        with file.open("rb") as records:
            for report in child.train(configs, file, timeout=timeout, corpus=saved):
                if written := records.read():
                    yield written
                yield report


def _reach(address: str) -> None:
    host, _, port = address.rpartition(":")
    socket.create_connection((host, int(port)), timeout=CONNECT_SECONDS).close()


def _last_line(error: Exception) -> str:
    return str(error).strip().splitlines()[-1]
