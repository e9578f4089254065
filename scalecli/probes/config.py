"""What one training run is: everything that decides its result, and nothing that does not.

Its identity `run_id` is a hash of the resolved configuration. The device, the engine, paths, and how a batch
is cut into micro-batches stay out: they may change speed, not the result.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, field, fields
from typing import Any, Literal, get_args

from scalecli.accounting.flops import flops_6nd, training_flops
from scalecli.accounting.shape import ModelShape
from scalecli.errors import ProbeError
from scalecli.probes.foreign import ForeignShape, Shape, shape_from
from scalecli.probes.schedule import Schedule

RECIPE = 1
"""Raised when a change to the training code changes results, so that older runs are not taken for new ones.
"""

PLACES = ("data", "tokenizer", "conduct")
"""Fields that say where things are and how a run is carried out; what the data are is in their hash."""

OptimizerName = Literal["adamw", "sgd", "muon", "adafactor", "lamb", "lars", "lion"]
Parametrization = Literal["standard", "mup"]
Dtype = Literal["float32", "bfloat16"]
AveragerName = Literal["none", "power", "ema", "bema", "latest"]
AVERAGERS: tuple[AveragerName, ...] = get_args(AveragerName)
OPTIMIZERS: tuple[OptimizerName, ...] = get_args(OptimizerName)


@dataclass(frozen=True, slots=True, kw_only=True)
class Optimizer:
    """Settings of the update rule. `beta1` is the momentum of SGD, LARS and Muon; decay is on matrices only,
    decoupled but in SGD, LAMB and LARS, whose updates hold it.
    """

    name: OptimizerName = "adamw"
    beta1: float = 0.9
    beta2: float = 0.95
    epsilon: float = 1e-8
    weight_decay: float = 0.1

    def __post_init__(self) -> None:
        if self.name not in OPTIMIZERS:
            raise ProbeError(f"there is no optimizer {self.name!r}", hint=f"one of {', '.join(OPTIMIZERS)}")
        for name in ("beta1", "beta2"):
            if not 0.0 <= getattr(self, name) < 1.0:
                raise ProbeError(f"{name} is {getattr(self, name):g}; it must lie in [0, 1)")
        if self.epsilon <= 0 or self.weight_decay < 0:
            raise ProbeError(
                f"epsilon {self.epsilon:g} must be positive and decay {self.weight_decay:g} not negative"
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluation:
    """A fixed held-out set: `sequences` of them, evenly spaced, the same for every run on the corpus.

    `every` adds a reading each so many steps along the way; 0 reads at the end only. `averager` names the average
    over past weights that is read instead of the weights, so that readings at a constant rate depend on no horizon;
    `amount` is its exponent (`power`), steps (`ema`) or readings (`latest`): see `probes/train/averages.py`.
    """

    sequences: int = 256
    every: int = 0
    averager: AveragerName = "none"
    amount: float = 9.0

    def __post_init__(self) -> None:
        if self.sequences < 2 or self.every < 0:
            raise ProbeError(
                f"an evaluation of {self.sequences} sequences every {self.every} steps has no standard error",
                hint="use at least 2 sequences",
            )
        if self.averager not in AVERAGERS:
            raise ProbeError(f"there is no averager {self.averager!r}", hint=f"one of {', '.join(AVERAGERS)}")
        if self.amount < 1:
            raise ProbeError(f"an average of amount {self.amount:g} is none", hint="use at least 1")
        if self.averager == "latest" and (not self.every or self.amount < 2):
            raise ProbeError(
                f"an average of the {self.amount:g} latest readings, every {self.every} steps, is none",
                hint="set evaluation.every to some steps, and at least 2 readings",
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class Conduct:
    """How a run is carried out: nothing here decides its result.

    A batch is computed in equal parts of at most `micro_batch_sequences`, whose gradients add up (0: whole).
    `checkpoints` is a folder, in which a stopped training is taken up again. A run whose training loss is more than
    `stop_above` [nats/token] above its best rival's is given up (0: none is); rivals note their losses in the file
    `readings`.
    """

    micro_batch_sequences: int = 0
    checkpoints: str = ""
    stop_above: float = 0.0
    readings: str = ""

    def __post_init__(self) -> None:
        if self.stop_above < 0 or self.micro_batch_sequences < 0:
            raise ProbeError(
                f"a limit of {self.stop_above:g} nats and parts of {self.micro_batch_sequences} sequences: neither can "
                "be negative"
            )

    def parts_of(self, sequences: int) -> int:
        """Equal parts that a batch is computed in.

        >>> [Conduct(micro_batch_sequences=most).parts_of(12) for most in (0, 12, 5, 1)]
        [1, 1, 3, 12]
        """
        most = self.micro_batch_sequences or sequences
        divisors = (parts for parts in range(1, sequences + 1) if sequences % parts == 0)
        return next(parts for parts in divisors if sequences <= parts * most)


@dataclass(frozen=True, slots=True, kw_only=True)
class ProbeConfig:
    """One proxy training. `data` says where the corpus is and `tokenizer` how it is read, `data_sha256` which one it
    must be.

    `base_width` is the width at which muP leaves the standard parametrisation as it is; `unique_tokens`
    limits the training set, to study repetition.
    """

    shape: Shape
    data: str
    tokenizer: str = ""
    data_sha256: str
    sequence_length: int
    batch_sequences: int
    steps: int
    learning_rate: float
    seed: int = 0
    optimizer: Optimizer = field(default_factory=Optimizer)
    schedule: Schedule = field(default_factory=Schedule)
    grad_clip: float = 1.0
    dtype: Dtype = "float32"
    parametrization: Parametrization = "standard"
    base_width: int = 64
    unique_tokens: int | None = None
    evaluation: Evaluation = field(default_factory=Evaluation)
    conduct: Conduct = field(default_factory=Conduct)

    def __post_init__(self) -> None:
        for name in ("sequence_length", "batch_sequences", "steps", "base_width"):
            if getattr(self, name) < 1:
                raise ProbeError(f"{name} is {getattr(self, name)}; a run needs at least 1")
        if not self.learning_rate > 0:
            raise ProbeError(f"a learning rate of {self.learning_rate:g} trains nothing")
        if self.grad_clip < 0:
            raise ProbeError(
                f"a gradient clip of {self.grad_clip:g} is negative", hint="0 switches clipping off"
            )
        if self.parametrization == "mup" and self.optimizer.name != "adamw":
            raise ProbeError(
                f"the muP multipliers are Adam's, not {self.optimizer.name}'s", hint="use adamw with muP"
            )
        if self.parametrization == "mup" and not _is_dense_decoder(self.shape):
            raise ProbeError(
                "the muP multipliers are those of our dense decoder",
                hint="use the standard parametrization, or give the weights of your own task their rates",
            )
        if isinstance(self.shape, ForeignShape):
            fixed = self.shape.tokens_per_example
            if fixed is not None and fixed != self.sequence_length:
                raise ProbeError(
                    f"an example of {self.shape.model} has {fixed} tokens, not {self.sequence_length}"
                )
        if self.unique_tokens is not None and self.unique_tokens <= self.sequence_length:
            raise ProbeError(f"{self.unique_tokens} unique tokens make no sequence of {self.sequence_length}")

    @property
    def batch_tokens(self) -> int:
        return self.batch_sequences * self.sequence_length

    @property
    def tokens(self) -> int:
        """Tokens trained on, repetitions counted."""
        return self.steps * self.batch_tokens

    @property
    def timescale(self) -> float | None:
        """AdamW's memory, 1 / (rate · decay) steps, as a share of the run (Bergsma et al. 2025, 2502.15938); None for
        other optimizers and without decay."""
        settings = self.optimizer
        if settings.name != "adamw" or not settings.weight_decay:
            return None
        return 1.0 / (self.learning_rate * settings.weight_decay * self.steps)

    @property
    def flops_6nd(self) -> float:
        """6 N D with all weights that one token passes through [FLOP]."""
        return flops_6nd(self.shape.params_active, self.tokens)

    @property
    def flops_exact(self) -> float:
        """Training FLOPs with attention and head counted, embedding look-ups not [FLOP]."""
        if isinstance(self.shape, ForeignShape):
            return self.shape.flops_per_token * self.tokens
        return training_flops(self.shape, self.tokens, self.sequence_length)

    @property
    def flops(self) -> float:
        """6 N D, but the exact count where weights may be used any number of times for one example [FLOP]."""
        own = isinstance(self.shape, ForeignShape) and not self.shape.from_transformers
        return self.flops_exact if own else self.flops_6nd

    @property
    def run_id(self) -> str:
        """Identity: equal for configurations that train the same model on the same data in the same way."""
        return self._hash(without=PLACES)

    @property
    def group(self) -> str:
        """Cluster label: runs that share a model and a corpus."""
        return (
            f"{self.shape.params}-{_digest({'shape': _identity(self.shape), 'data': self.data_sha256})[:8]}"
        )

    @property
    def family(self) -> str:
        """Runs of one family differ in length only, and agree until the shorter one's schedule bends."""
        return self._hash(without=(*PLACES, "steps"))

    def _hash(self, *, without: tuple[str, ...]) -> str:
        resolved = {key: value for key, value in asdict(self).items() if key not in without}
        return _digest({"recipe": RECIPE, **resolved, "shape": _identity(self.shape)})[:16]

    def to_json(self) -> str:
        return json.dumps(asdict(self), sort_keys=True)

    @classmethod
    def from_json(cls, text: str) -> ProbeConfig:
        return cls.from_dict(json.loads(text))

    @classmethod
    def from_dict(cls, record: dict[str, Any]) -> ProbeConfig:
        """Inverse of `dataclasses.asdict`; unknown and missing keys are a ProbeError that names them."""
        _check_keys(record, cls)
        parts = {"optimizer": Optimizer, "schedule": Schedule, "evaluation": Evaluation, "conduct": Conduct}
        made = {key: parts[key](**value) for key, value in record.items() if key in parts}
        return cls(**{**record, **made, "shape": shape_from(record["shape"])})


def _is_dense_decoder(shape: Shape) -> bool:
    return isinstance(shape, ModelShape) and shape.num_experts == 1


def _identity(shape: Shape) -> dict[str, Any]:
    return asdict(shape) if isinstance(shape, ModelShape) else shape.identity()


def _digest(record: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(record, sort_keys=True).encode()).hexdigest()


def _check_keys(record: dict[str, Any], cls: type[ProbeConfig]) -> None:
    known = {one.name for one in fields(cls)}
    if unknown := sorted(set(record) - known):
        raise ProbeError(
            f"a probe configuration has no {', '.join(unknown)}", hint=f"it has {', '.join(sorted(known))}"
        )
