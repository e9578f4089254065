"""Jobs that were submitted together: what the disk and Slurm's queue know of them."""

from __future__ import annotations

import json
import re
import secrets
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from scalecli.errors import ProbeError
from scalecli.probes.config import ProbeConfig
from scalecli.probes.engines.engine import attempt_file
from scalecli.probes.engines.process import Ended
from scalecli.probes.engines.slurm_job import read_status
from scalecli.probes.units import Unit

ANSWER_SECONDS = 60.0
"""A scheduler under load takes its time; after this it does not answer."""


@dataclass(frozen=True, slots=True)
class Job:
    """A unit, the file of its records, and the file in which its job says how it is doing."""

    unit: Unit
    file: Path
    status: Path

    def ended(self) -> bool:
        return isinstance(read_status(self.status), Ended)


@dataclass(frozen=True, slots=True)
class Submission:
    """An array of jobs, known to Slurm by the name of its folder; `jobs` in the order of the array's indices."""

    folder: Path
    jobs: tuple[Job, ...]

    @property
    def name(self) -> str:
        return self.folder.name

    @classmethod
    def new(cls, attempts: Path, units: Sequence[Unit]) -> Submission:
        """Written down before it is submitted, so that no job is ever unknown."""
        folder = attempts / "slurm" / f"scalecli-{secrets.token_hex(4)}"
        folder.mkdir(parents=True)
        jobs = [
            {"file": attempt_file(attempts, unit).name, "configs": [asdict(config) for config in unit]}
            for unit in units
        ]
        (folder / "jobs.json").write_text(json.dumps(jobs), encoding="utf-8")
        return cls.read(folder)

    @classmethod
    def read(cls, folder: Path) -> Submission:
        jobs = json.loads((folder / "jobs.json").read_text(encoding="utf-8"))
        attempts = folder.parent.parent
        return cls(
            folder,
            tuple(
                Job(
                    tuple(ProbeConfig.from_dict(config) for config in job["configs"]),
                    attempts / job["file"],
                    folder / f"{index}.status.json",
                )
                for index, job in enumerate(jobs)
            ),
        )

    def queued(self) -> dict[int, str]:
        """The jobs in the queue, waiting or running, and why those wait.

        Raises:
            ProbeError: Slurm does not answer.
        """
        said = _ask("squeue", "--noheader", "--array", f"--name={self.name}", "--format=%K %r")
        lines = (line.split(maxsplit=1) for line in said.splitlines())
        # A job alone is no array and has no index.
        return {int(index) if index.isdecimal() else 0: reason for index, reason in lines}

    def cancel(self) -> None:
        """Ends the jobs and forgets them, so that no later driver waits for them."""
        _ask("scancel", f"--name={self.name}", "--state=PENDING")
        _ask("scancel", f"--name={self.name}", "--full", "--signal=KILL")
        self.forget()

    def last_words(self, index: int) -> str:
        """The last line of a job's log."""
        logs = sorted(self.folder.glob(f"*_{index}_0_log.err" if len(self.jobs) > 1 else "*_log.err"))
        words = [
            line for log in logs for line in log.read_text(errors="replace").splitlines() if line.strip()
        ]
        return words[-1] if words else "its log is empty"

    def forget(self) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)


def submissions(attempts: Path) -> list[Submission]:
    """All that earlier drivers have written down, and that have jobs that did not say they ended."""
    found = [Submission.read(file.parent) for file in sorted(attempts.glob("slurm/*/jobs.json"))]
    return [each for each in found if not all(job.ended() for job in each.jobs)]


def refuse_live_jobs(attempts: Path) -> None:
    """Raises ProbeError while jobs that an earlier driver submitted train runs of this store."""
    for submission in submissions(attempts):
        try:
            queued = submission.queued()
        except ProbeError as error:
            raise ProbeError(
                f"it is not known whether Slurm jobs {submission.name} of an earlier sweep still train: "
                f"{error.message}",
                hint=f"run this where squeue works; if they are gone, rm -r {submission.folder}",
            ) from error
        if queued:
            raise ProbeError(
                f"{len(queued)} Slurm jobs {submission.name} of an earlier sweep still train runs of this store",
                hint=f"--engine slurm waits for them, scancel --name={submission.name} ends them",
            )


def nodes(partition: str | None) -> list[tuple[int, int]]:
    """CPUs and GPUs of every node of the partition, or of the default one.

    Raises:
        ProbeError: this machine has no Slurm, or it has no such partition.
    """
    of_partition = [f"--partition={partition}"] if partition else []
    said = _ask("sinfo", "--noheader", "--Node", *of_partition, "--format=%P %c %G")
    lines = [line.split() for line in said.splitlines()]
    if not partition:
        lines = [line for line in lines if line[0].endswith("*")] or lines
    if not lines:
        raise ProbeError(f"Slurm has no nodes in partition {partition}", hint="sinfo lists the partitions")
    return [(int(cpus), _gpus(resources)) for _, cpus, resources in lines]


def _gpus(resources: str) -> int:
    """The count in `gpu:a100:4(S:0-1),other:1`.

    >>> _gpus("gpu:a100:4(S:0-1),shard:8"), _gpus("gpu:2"), _gpus("(null)")
    (4, 2, 0)
    """
    return sum(int(count) for count in re.findall(r"(?:^|,)gpu(?::[^:,()]+)?:(\d+)", resources))


def _ask(*command: str) -> str:
    try:
        return subprocess.run(
            command, capture_output=True, text=True, check=True, timeout=ANSWER_SECONDS
        ).stdout
    except FileNotFoundError as error:
        raise ProbeError(
            f"there is no {command[0]} on this machine", hint="run this where Slurm is"
        ) from error
    except subprocess.TimeoutExpired as error:
        raise ProbeError(f"{command[0]} did not answer within {ANSWER_SECONDS:g} s") from error
    except subprocess.CalledProcessError as error:
        said = error.stderr.strip().splitlines() or ["no message"]
        raise ProbeError(f"{command[0]} failed: {said[-1]}", hint="run this where Slurm is") from error
