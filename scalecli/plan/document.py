"""The plan as a document: the keys of `plan --json`, and the schema that `scalecli schema plan` publishes.

Every key is always present; what is not known is null and has a warning.
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

SCHEMA: Literal["scalecli/plan/1"] = "scalecli/plan/1"


class Document(BaseModel):
    """A part of a plan: immutable, and no key that the schema does not name."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Interval(Document):
    """A value with its interval; the ends are null when no draw supports them."""

    value: float
    low: float | None
    high: float | None


class TargetPart(Document):
    params: float
    params_non_embedding: float
    tokens: float
    flops: float
    accelerator: str | None
    count: int
    shape: dict[str, Any]


class Choice(Document):
    """One row of the trade-off table: what another batch size would cost for the same loss."""

    batch_tokens: int
    steps: int
    extra_tokens_fraction: float | None = Field(
        description="tokens beyond the least that reach the same loss"
    )
    excess_loss: float | None = Field(description="nats/token above the best batch at the same tokens")
    excess_compute_fraction: float | None = Field(description="the compute that the excess loss is worth")
    learning_rate: float | None = Field(description="re-tuned for this batch size")
    days: float | None


class CriticalPart(Interval):
    """A limit on parallelism, not a recommendation."""

    definition: str = Field(description="what is meant by critical; definitions differ by factors")


class Stage(Document):
    from_token: int
    batch_tokens: int
    learning_rate_factor: float = Field(
        default=1.0, description="of what the schedule says, for a batch that is not the last stage's"
    )


class BatchPart(Document):
    tokens: Interval | None
    sequences: int | None
    sequence_length: int
    steps: int | None
    critical_tokens: CriticalPart | None
    flat_range_tokens: tuple[float, float] | None = Field(description="loss within 0.1 % of the best")
    tradeoff: list[Choice]
    schedule: list[Stage]


class RateGroup(Document):
    name: str
    multiplier: float


class RatePart(Document):
    peak: Interval | None
    final: float | None
    schedule: str
    warmup_tokens: int | None
    decay_tokens: int | None
    flat_range: tuple[float, float] | None = Field(
        description="loss within 0.1 % of the best, at the batch that is run"
    )
    groups: list[RateGroup]


class OptimizerPart(Document):
    name: str
    beta1: float | None
    beta2: float | None
    weight_decay: float | None
    epsilon: float | None
    grad_clip: float | None
    ema_decay: float | None


class Term(Document):
    name: str
    bytes: int
    moments: list[str]
    rule: str


class Peak(Document):
    bytes: int
    moment: str


class EfficiencyPart(Interval):
    source: str


class ExchangePart(Document):
    """One kind of communication of one device in a step."""

    name: str
    ranks: int
    link: str = Field(description="the nearest links that join the ranks: package, node, network or island")
    bytes: int = Field(description="sent by one device")
    seconds: float
    beside_seconds: float = Field(description="computation that runs at the same time")
    exposed_seconds: float = Field(description="what the step is longer for it")
    ratio: float | None = Field(description="above 1 it cannot hide behind that computation")


class StepPart(Document):
    """One optimizer step under the layout; `parts` add up to `seconds`."""

    seconds: float
    tokens_per_second: float
    mfu: Interval
    mfu_full_attention: float = Field(description="the same step by the count that papers after PaLM use")
    flop_count: str
    kernel_efficiency: EfficiencyPart
    energy_kwh: float | None
    parts: dict[str, float]
    communication: list[ExchangePart]


class ElasticPart(Document):
    """The plan on fewer devices; batch, learning rate and the weight of every sequence stay."""

    devices: int
    idle_devices: int
    data_parallel: int
    sequences_per_rank: int
    fuller_ranks: int = Field(description="ranks that have one sequence more")
    micro_batch_sequences: int
    accumulation: int
    per_device_bytes: int
    fits: bool
    slowdown: float


class DevicePart(Document):
    """What each device of one kind does and holds, where several kinds train together."""

    accelerator: str
    count: int
    sequences: int = Field(description="of each device in a step")
    fuller_devices: int = Field(description="devices that have one sequence more")
    micro_batch_sequences: int
    state_share: float = Field(description="of one copy of weights, gradients and states")
    per_device_bytes: int
    headroom_bytes: int
    seconds: float


class OffloadedPart(Document):
    """What one device has elsewhere [bytes]; `traffic` passes its link in a step, both ways together, `drive_traffic`
    that of the drives it lies on."""

    part: str
    bytes: int
    traffic: int
    drive_traffic: int


class MemoryPart(Document):
    """Bytes of the worst device. `terms` are what is resident at the peak."""

    per_device_bytes: int
    peak: Peak
    saved_for_backward_bytes: int
    fits: bool | None
    headroom_bytes: int | None
    terms: list[Term]
    micro_batch_sequences: int
    accumulation: int
    sharding: str
    tensor_parallel: int
    pipeline_parallel: int
    context_parallel: int
    expert_parallel: int
    data_parallel: int
    sequence_parallel: bool
    schedule: str
    virtual_stages: int
    shard_group: int | None = Field(description="ranks that share one copy of what is sharded; null: all")
    recompute: str
    recompute_layers: int | None = Field(description="the first ones of a device; null: all, where any are")
    offload: str
    offload_layers: int | None = Field(
        description="whose activations are offloaded, the first ones; null: all"
    )
    precision: str
    host_bytes: int
    host_terms: dict[str, int]
    offloaded: list[OffloadedPart]
    step: StepPart | None
    elastic: list[ElasticPart]
    devices: list[DevicePart] = Field(description="empty for one kind of devices")


class CostPart(Document):
    days: Interval
    device_hours: Interval
    mfu: Interval
    goodput: float = Field(description="the share of time that makes progress; 1 counts no interruptions")
    currency: str | None
    amount: Interval | None
    energy_kwh: Interval | None


class AllocationPart(Document):
    """One way to spend the budget, or to reach the wished loss: size, length, and what they cost."""

    num_experts: int
    params: float
    params_active: float
    tokens: float
    loss: float = Field(description="nats/token, by the law that the size was found with")
    training_flops: float
    inference_flops: float
    days: float | None
    amount: float | None
    serve_bytes: float = Field(description="of the finished model's weights, two bytes each")
    reason: str


Budget = Literal["data", "compute"]


class Preset(Document):
    """What a published rule says for this target; `valid` is false outside the range it was measured in."""

    source: str
    quantity: Literal["optimum", "critical"]
    definition: Literal["hyperbola", "overhead"] | None = Field(description="of a critical size")
    hyperbola_tokens: float | None = Field(
        description="a critical size as the batch at which training costs twice the least tokens"
    )
    budget: Budget = Field(
        description="data: tokens varied freely; compute: along a compute-optimal frontier"
    )
    batch_tokens: float | None
    learning_rate: float | None
    valid: bool
    outside: list[str] = Field(description="the measured ranges that the target leaves")
    doubt: str | None
    note: str = Field(description="source, which N, ranges left, set-up and doubt")


class MovedPart(Document):
    """What one rule makes of the good setting that the plan started from; rules may disagree."""

    quantity: str
    value: float | None
    low: float | None
    high: float | None
    rule: str
    source: str
    range: str
    warning: str | None


class Line(Document):
    """One recommended value with the rule that gave it and where the rule is from."""

    name: str
    value: float | str | None
    low: float | None
    high: float | None
    unit: str
    no_interval: str | None = Field(description="why the value has no interval, where it has none")
    rule: str
    source: str
    warning: str | None


class Warning(Document):
    code: str
    message: str


class Plan(Document):
    """What to run, with intervals, rules and sources."""

    schema_name: Literal["scalecli/plan/1"] = Field(alias="schema")
    target: TargetPart
    allocation: list[AllocationPart] = Field(
        description="sizes and lengths beside each other; empty where the size was said"
    )
    batch: BatchPart
    learning_rate: RatePart
    optimizer: OptimizerPart
    loss: Interval | None
    memory: MemoryPart | None
    cost: CostPart | None
    alternatives: list[dict[str, Any]]
    presets: list[Preset]
    moved: list[MovedPart]
    lines: list[Line]
    warnings: list[Warning]
    fits: list[dict[str, Any]]
    provenance: dict[str, Any]

    def document(self) -> dict[str, Any]:
        """The JSON document of `plan --json`."""
        return self.model_dump(mode="json", by_alias=True)
