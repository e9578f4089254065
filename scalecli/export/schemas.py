"""JSON Schemas (draft 2020-12) of every document that a command prints."""

from __future__ import annotations

from difflib import get_close_matches
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from scalecli.data.schema import COLUMNS
from scalecli.errors import ExportError
from scalecli.plan.document import Interval, MemoryPart, Plan, Warning


class _Open(BaseModel):
    """A document that may gain keys; those named here are kept."""

    model_config = ConfigDict(extra="allow")


class _Dropped(_Open):
    reason: str
    count: int


class _Rows(_Open):
    read: int
    used: int
    dropped: list[_Dropped]


class _Parameter(_Open):
    value: float
    low: float | None
    high: float | None
    std: float | None


class _Objective(_Open):
    name: str
    delta: float | None
    value: float | None = Field(description="a sum over rows; null for laws that are procedures")


class _Convergence(_Open):
    starts: int
    agree: int
    gradient_norm: float | None


class _Score(_Open):
    heldout_rows: int
    mean_abs_log_error: float
    coverage: float | None


class FitDocument(_Open):
    """`fit --json`; `--out` adds draws, domain and formula."""

    schema_name: Literal["scalecli/fit/1"] = Field(alias="schema")
    law: str
    inputs: list[str]
    output: str
    parameters: dict[str, _Parameter]
    interval: float
    objective: _Objective
    status: Literal["converged", "at_bound", "starts_disagree", "max_iterations"]
    convergence: _Convergence
    rows: _Rows
    groups: int
    validation: _Score | None
    warnings: list[Warning]
    provenance: dict[str, Any]


class _Shared(_Open):
    value: float
    low: float | None
    high: float | None


class ArmsDocument(_Open):
    """`fit --arms COLUMN --json`: a fit for each kind of the column, with exponents in common."""

    schema_name: Literal["scalecli/arms/1"] = Field(alias="schema")
    law: str
    column: str
    shared: dict[str, _Shared]
    alone: dict[str, dict[str, float]] = Field(description="what each arm's exponents are when fitted alone")
    p_value: float | None = Field(description="of the arms' exponents being the same")
    arms: dict[str, FitDocument]
    warnings: list[Warning]


class _Knob(_Open):
    value: float
    low: float | None
    high: float | None
    flat_range: tuple[float, float] = Field(description="loss within 0.1 % of the best")


class _Point(_Open):
    at: dict[str, float]
    value: float | None
    low: float | None
    high: float | None
    interval: float
    extrapolation: float | None
    optimum: dict[str, _Knob | None] | None = Field(
        default=None, description="of a landscape, for the batch_tokens and learning_rate that were left out"
    )


class PredictionDocument(_Open):
    """`predict --json`."""

    schema_name: Literal["scalecli/prediction/1"] = Field(alias="schema")
    points: list[_Point]
    warnings: list[Warning]


class _Constant(_Open):
    name: str
    value: float
    low: float | None
    high: float | None
    fit: str = Field(description="the law of the fit that the constant is from")
    setup: dict[str, Any] = Field(description="what the runs of that fit held fixed")


class _Reach(_Open):
    loss: float
    critical_batch_tokens: _Shared | None
    S_min: _Shared | None
    E_min: _Shared | None
    steps: _Shared | None
    tokens: _Shared | None


class _Reading(_Open):
    steps: float
    tokens: float
    loss: _Shared | None


class _Rung(_Open):
    shape: dict[str, float]
    runs: int
    efficient_runs: int
    excess: float = Field(description="log loss of the rung's nearest run above the front")
    beaten_by: dict[str, float] | None


class LadderCheckDocument(_Open):
    """`validate --ladder COST --json`: every shape of a ladder against the Pareto front of loss over the cost."""

    schema_name: Literal["scalecli/ladder-check/1"] = Field(alias="schema")
    along: str
    source: str
    rungs: list[_Rung]
    warnings: list[Warning]


class _CnnRung(_Open):
    depth: int
    width: float
    resolution: int
    compute: float


class CnnLadderDocument(_Open):
    """`probe cnn-ladder --json`: the networks of a ladder, and what is scaled from one to the next."""

    schema_name: Literal["scalecli/cnn-ladder/1"] = Field(alias="schema")
    epochs: float
    scaled_by: Literal["depth", "width"]
    rungs: list[_CnnRung]
    rules: list[str]
    source: str
    warnings: list[Warning]


class SimulationDocument(_Open):
    """`runs simulate --json`: where the table is, and what is known of its model."""

    schema_name: Literal["scalecli/simulation/1"] = Field(alias="schema")
    oracle: str
    source: str
    truth: dict[str, float]
    noise: float
    shared_noise: float
    seed: int
    rows: int
    file: str


class TrajectoryDocument(_Open):
    """`trajectory --json`; null where a size never gets to a loss."""

    schema_name: Literal["scalecli/trajectory/1"] = Field(alias="schema")
    at: dict[str, float]
    interval: float
    constants: list[_Constant]
    min_loss: _Shared | None
    losses: list[_Reach]
    trajectory: list[_Reading]
    warnings: list[Warning]


class _Held(_Open):
    at: dict[str, float]
    measured: float
    predicted: float
    low: float | None
    high: float | None


class _RankedLaw(_Open):
    law: str
    mean_abs_log_error: float


class _UnusableLaw(_Open):
    law: str
    reason: str


class _Choice(_Open):
    held_out_shares: list[float]
    laws: list[_RankedLaw]
    unusable: list[_UnusableLaw]


class _Recommended(_Open):
    params: float
    tokens: float
    batch_tokens: float
    learning_rate: float
    excess: float | None = Field(description="of the least loss; null outside the tried batches and rates")


class _Recommendation(_Open):
    settings: int
    outside: int
    mean_excess: float | None
    worst_excess: float | None
    points: list[_Recommended]


class ValidationDocument(_Open):
    """`validate --json`; `choice` says how `--law auto` chose inside the training runs."""

    schema_name: Literal["scalecli/validation/1"] = Field(alias="schema")
    law: str
    train_rows: int
    heldout_rows: int
    mean_abs_log_error: float
    rms_log_error: float
    bias: float
    coverage: float | None
    interval: float
    points: list[_Held]
    recommendation: _Recommendation | None = Field(
        default=None, description="of a landscape: its optimum judged by the held-out settings"
    )
    choice: _Choice | None = None
    warnings: list[Warning] = Field(default_factory=list)


class RankingDocument(_Open):
    """`validate --law all --json`: best first, and the laws that could not be tried."""

    schema_name: Literal["scalecli/validation-ranking/1"] = Field(alias="schema")
    laws: list[ValidationDocument]
    unusable: list[_UnusableLaw]


class ProxyRanksDocument(_Open):
    """`validate --settings COLUMNS --json`: mean log losses relative to their scale, best at large scale first."""

    schema_name: Literal["scalecli/proxy-ranks/1"] = Field(alias="schema")
    columns: list[str]
    rank_correlation: float | None
    regret: float
    settings: list[dict[str, Any]]


class _Span(_Open):
    value: float | None
    low: float | None
    high: float | None


class _Crossover(_Span):
    better_below: Literal["first", "second"]
    better_above: Literal["first", "second"]
    chance: float | None = Field(description="share of draws that cross in this direction")


class _Multiplier(_Span):
    at: float


class _Exponent(_Open):
    first: float
    second: float
    difference: _Span
    p_value: float


class _SharedExponents(_Open):
    exponents: dict[str, _Exponent]
    p_value: float


class ComparisonDocument(_Open):
    """`compare --json`; multipliers say how much more of the axis the second fit needs to match the first."""

    schema_name: Literal["scalecli/comparison/1"] = Field(alias="schema")
    first: dict[str, Any]
    second: dict[str, Any]
    along: str
    range: list[float]
    interval: float
    crossovers: list[_Crossover]
    chance_of_crossing: float | None
    multipliers: list[_Multiplier]
    target: dict[str, Any] | None
    shared_exponents: _SharedExponents | None
    warnings: list[Warning]


class _Answer(_Span):
    name: str
    at: dict[str, float]
    unit: str
    width: float = Field(description="log of high over low")


class _Design(_Open):
    name: str
    flops: float
    low: float
    high: float
    width: float
    runs: list[dict[str, float]]


class DesignDocument(_Open):
    """`design --json`: the answer today and the interval each plan would leave; `runs`: edges, then the best's."""

    schema_name: Literal["scalecli/design/1"] = Field(alias="schema")
    law: str | None
    answer: _Answer | None = Field(description="null for the edges of a grid alone")
    budget_flops: float | None
    flops_per_second: float | None
    interval: float | None
    edges: list[dict[str, float]]
    plans: list[_Design]
    best: str
    runs: list[dict[str, float]]
    warnings: list[Warning]


class _CriticalFigure(_Open):
    tokens: float
    low: float | None
    high: float | None
    definition: str
    source: str


class _CriticalTarget(_Open):
    params: float | None
    loss: float
    batches: int
    status: Literal["identified", "not identified"]
    reason: str | None
    S_min: Interval | None
    E_min: Interval | None
    critical: list[_CriticalFigure]
    noise_scale_tokens: Interval | None
    noise_scale_over_critical: float | None


class CriticalBatchDocument(_Open):
    """`critical-batch --json`; `rows` are what the laws over loss and tokens are fitted to."""

    schema_name: Literal["scalecli/critical-batch/1"] = Field(alias="schema")
    interval: float
    targets: list[_CriticalTarget]
    rows: list[dict[str, Any]]
    warnings: list[Warning]


class _TokenRatio(_Open):
    recipe: str
    loss: float
    batch_tokens: float
    token_ratio: float = Field(description="tokens of the reference over those of this recipe, at equal loss")
    low: float | None
    high: float | None


class CriticalBatchByDocument(_Open):
    """`critical-batch --by --json`: a document of `critical-batch` for each recipe, and their token ratios."""

    schema_name: Literal["scalecli/critical-batch-by/1"] = Field(alias="schema")
    by: str
    reference: str
    interval: float
    recipes: list[dict[str, Any]]
    ratios: list[_TokenRatio]
    warnings: list[Warning]


class _OptimizerCost(_Open):
    name: str
    state_bytes: float
    step_flops: float
    share: float = Field(description="of the FLOPs of forward and backward")
    traffic_bytes: float = Field(description="that data-parallel replicas exchange a step")
    rule: str
    source: str
    note: str


class OptimizersDocument(_Open):
    """`optimizers --json`: the fewest bytes of states first."""

    schema_name: Literal["scalecli/optimizers/1"] = Field(alias="schema")
    params: int
    batch_tokens: float
    optimizers: list[_OptimizerCost]


class _MultiplierGroup(_Open):
    name: str
    multiplier: float = Field(description="of the learning rate")
    weight_decay: float
    output: float
    initial_std: float | None


class MultipliersDocument(_Open):
    """`multipliers --json`: muP under Adam, by kind of weight."""

    schema_name: Literal["scalecli/multipliers/1"] = Field(alias="schema")
    base_width: int
    width: int
    structure: dict[str, Any]
    groups: list[_MultiplierGroup]
    source: str
    warnings: list[Warning]


class _Recipe(_Open):
    recipe: str
    settings: int
    best_loss: float
    sensitivity: _Span = Field(description="mean loss above the best over the grid [nats/token]")
    rate_octaves: float
    batch_octaves: float
    diverged: int


class SensitivityDocument(_Open):
    """`sensitivity --json`: the most robust recipe first."""

    schema_name: Literal["scalecli/sensitivity/1"] = Field(alias="schema")
    by: str
    reach_octaves: float
    interval: float
    recipes: list[_Recipe]
    warnings: list[Warning]


class _Failure(_Open):
    run_id: str
    reason: str


class SweepDocument(_Open):
    """`probe sweep --json`."""

    schema_name: Literal["scalecli/sweep/1"] = Field(alias="schema")
    planned: int
    finished: int
    skipped: int
    failed: list[_Failure]
    store: str
    seconds: float


class SweepEstimateDocument(_Open):
    """`probe sweep --dry-run --json`."""

    schema_name: Literal["scalecli/sweep-estimate/1"] = Field(alias="schema")
    runs: int
    flops: float
    saved_flops: float
    seconds: float | None = Field(description="null without such a device here")
    bytes: int
    device: Literal["cpu", "cuda"]
    slots: int = Field(description="units at a time")


class _Placed(_Open):
    """An estimate with what it rests on; null where its examples do not resolve it."""

    noise_scale_tokens: _Span
    resolved: bool
    examples: int = Field(description="sequences")
    steps: int


class _NoisePoint(_Placed):
    first_step: int
    last_step: int
    tokens: float
    loss: float


class _NoiseLayer(_Placed):
    layer: str
    signal_to_noise: _Span = Field(description="|G|^2 / tr(Sigma) of one sequence's gradient")


class _NoiseStage(_Open):
    """A batch that would follow the noise from a step on: by the norm test it never falls."""

    step: int
    tokens: float
    norm_test_batch_tokens: int
    noise_scale_batch_tokens: float | None


class ProbeNoiseDocument(_Open):
    """`probe noise --json`: along a training; a noise scale is no critical batch size."""

    schema_name: Literal["scalecli/probe-noise/1"] = Field(alias="schema")
    quantity: str
    unit: Literal["tokens"]
    interval: float
    preconditioned: bool
    points: list[_NoisePoint]
    layers: list[_NoiseLayer]
    schedule: list[_NoiseStage]
    warnings: list[Warning]


class _ProbedCritical(_CriticalFigure):
    at: str


class ProbeCriticalBatchDocument(_Open):
    """`probe critical-batch --json`: figures with their definitions, and the rows that they were made of."""

    schema_name: Literal["scalecli/probe-critical-batch/1"] = Field(alias="schema")
    method: Literal["steps to a target", "branches"]
    critical: list[_ProbedCritical]
    unidentified: list[_CriticalTarget]
    rows: list[dict[str, Any]]
    warnings: list[Warning]


class _StableSetting(_Open):
    """A setting with its largest stable rate: what `plan --probe` reads."""

    params: int
    tokens: int
    batch_tokens: int
    learning_rate: float
    optimizer: str
    reason: str


class _BatchCurvature(_Open):
    batch_tokens: int
    curvature: _Span
    stable_rate: _Span


class ProbeCurvatureDocument(_Open):
    """`probe curvature --json`: ends of a batch are those of its repeats; `fit` is null where nothing depends on it."""

    schema_name: Literal["scalecli/probe-curvature/1"] = Field(alias="schema")
    optimizer: str
    step: int
    interval: float
    points: list[_BatchCurvature]
    fit: dict[str, float] | None
    stable: _StableSetting
    warnings: list[Warning]


class _StabilityTrained(_Open):
    batch_tokens: int
    learning_rate: float
    stable: bool
    rise: float | None = Field(
        description="nats of the held-out loss above its lowest; null where it is no number"
    )
    update_size: float | None = Field(description="root mean square of the update, in rates")
    correlation: float | None = Field(description="cosine of update and gradient")


class _StabilityCap(_Open):
    batch_tokens: int
    learning_rate: float | None
    open: bool = Field(description="no larger rate was tried")


class ProbeStabilityDocument(_Open):
    """`probe stability --json`: every pair of batch and rate, and the cap at each batch."""

    schema_name: Literal["scalecli/probe-stability/1"] = Field(alias="schema")
    trained: list[_StabilityTrained]
    caps: list[_StabilityCap]
    stable: _StableSetting
    warnings: list[Warning]


class ProbeLearningRateDocument(_Open):
    """`probe lr --json`: `low` and `high` are ends of the range that is as good, not of an interval."""

    schema_name: Literal["scalecli/probe-lr/1"] = Field(alias="schema")
    learning_rate: _Span
    meaning: str
    loss: float
    tolerance: float
    seed_std: float | None
    largest_stable: float
    smallest_diverged: float | None
    stable: _StableSetting
    runs: list[dict[str, Any]]


class _TelescopeStage(_Open):
    width: int
    params: int
    rates: list[float]
    learning_rate: _Span
    loss: float
    spacing_octaves: float
    octaves_from_first: float


class ProbeTelescopeDocument(_Open):
    """`probe telescope --json`: the best rate at each width; `low` and `high` are ends of the flat range."""

    schema_name: Literal["scalecli/probe-telescope/1"] = Field(alias="schema")
    parametrization: str
    tokens_per_param: float
    batch_tokens: float
    stages: list[_TelescopeStage]
    learning_rate: _Span
    octaves_moved: float


class _Trial(_Open):
    micro_batch_sequences: int
    fits: bool
    predicted_bytes: int
    peak_bytes: int | None
    prediction_error: float | None = Field(description="predicted over measured bytes, less 1")
    tokens_per_second: float | None
    mfu: float | None


class _Limits(_Open):
    fits: int | None = Field(description="null when the largest that was tried fits")
    flat_from: int
    wasted_above: int | None
    best: int


class ProbeThroughputDocument(_Open):
    """`probe throughput --json`; micro-batches in sequences."""

    schema_name: Literal["scalecli/probe-throughput/1"] = Field(alias="schema")
    device: str
    sequence_length: int
    limit_bytes: int | None
    limits: _Limits
    trials: list[_Trial]


class _Peak(_Open):
    bytes: int
    moment: str | None


class ProbeMemoryDocument(_Open):
    """`probe memory --json`: measured in a process of its own, or traced; the closed forms beside it."""

    schema_name: Literal["scalecli/probe-memory/1"] = Field(alias="schema")
    method: Literal["measured", "traced"]
    target: dict[str, Any]
    peak: _Peak
    saved_for_backward_bytes: int | None
    predicted_bytes: int | None
    prediction_error: float | None = Field(description="predicted over measured bytes, less 1")


class _WidthSlope(_Open):
    name: str
    part: Literal["activation", "update"]
    slope: float
    flat: bool


class _FormatHeld(_Open):
    precision: str
    step: int
    holds: bool = Field(description="the worst tensor's error is no more than the format's rounding")
    parts: list[str] = Field(description="what was seen: no gradients while the head is zero")
    part: Literal["weight", "activation", "gradient", "weight gradient"]
    name: str
    width: int
    below: float = Field(description="share of its values that become zero")
    above: float = Field(description="share of its values that are too large")
    error: float
    rounding: float
    scales: list[int] | None = Field(description="exponents of 2: least and largest scale of a tensor")


class ProbeCoordinatesDocument(_Open):
    """`probe coordinates --json`: sizes go as width^slope; `transfers` when every slope is within the tolerance."""

    schema_name: Literal["scalecli/probe-coordinates/1"] = Field(alias="schema")
    parametrization: str
    widths: list[int]
    steps: int
    transfers: bool
    verdict: str
    tolerance: float
    slopes: list[_WidthSlope]
    formats: list[_FormatHeld]


class MemoryDocument(MemoryPart):
    """`memory --json`."""

    model_config = ConfigDict(extra="allow")

    schema_name: Literal["scalecli/memory/1"] = Field(alias="schema")
    target: dict[str, Any]


class _Way(_Open):
    name: str
    sequences: int
    padding: float
    effective_tokens: float
    attention: float
    imbalance: float


class ProbeDeviceDocument(_Open):
    """`probe device --json`: speeds of this machine's device, and the accelerator that plans see."""

    schema_name: Literal["scalecli/probe-device/1"] = Field(alias="schema")
    name: str
    device: str
    products: list[dict[str, Any]]
    memory_bandwidth: float
    launch_seconds: float
    memory_bytes: int
    host_bandwidth: float | None
    collective_bandwidth: float | None
    model_error: float
    ridge_flops_per_byte: float
    accelerator: dict[str, Any]
    record: str


class PackingDocument(_Open):
    """`packing --json`: ways to fill batches with documents of many lengths."""

    schema_name: Literal["scalecli/packing/1"] = Field(alias="schema")
    sequence_length: int
    batch_sequences: int
    data_parallel: int
    documents: int
    split: int
    nominal_tokens: int
    ways: list[_Way]


class MemoryCalibrationDocument(_Open):
    """`memory --calibrate --json`: the overhead beyond tensors, and the steps that it rests on [bytes]."""

    schema_name: Literal["scalecli/memory-calibration/1"] = Field(alias="schema")
    accelerator: str
    overhead: dict[str, Any]
    comparisons: list[dict[str, Any]]
    record: str


def _list_columns(schema: dict[str, Any]) -> None:
    """Every canonical column with its unit, in the schema of a row."""
    schema["properties"] = {
        name: {"description": f"{column.description} [{column.unit}]" if column.unit else column.description}
        for name, column in COLUMNS.items()
    }


class _Run(BaseModel):
    """A row of a run table: canonical columns, and all others that the table has."""

    model_config = ConfigDict(extra="allow", json_schema_extra=_list_columns)


class RunsDocument(_Open):
    """`runs list --json`."""

    schema_name: Literal["scalecli/runs/1"] = Field(alias="schema")
    source: str
    rows: _Rows
    runs: list[_Run]


class RunDocument(_Open):
    """`runs show --json`."""

    schema_name: Literal["scalecli/run/1"] = Field(alias="schema")
    run: _Run


class RunsExportDocument(_Open):
    """`runs export --json`."""

    schema_name: Literal["scalecli/runs-export/1"] = Field(alias="schema")
    rows: int
    file: str


class RunsImportDocument(_Open):
    """`runs import --json`."""

    schema_name: Literal["scalecli/runs-import/1"] = Field(alias="schema")
    rows: int
    new: int = Field(description="rows that the store did not have")
    store: str


class _LawSummary(_Open):
    name: str
    inputs: list[str]
    output: str
    formula: str
    sources: list[str]


class _PublishedLaw(_Open):
    name: str
    law: str
    output: str
    unit: str
    values: dict[str, float]
    source: str
    where: str
    validity: str
    verified: bool


class LawsDocument(_Open):
    """`laws list --json`."""

    schema_name: Literal["scalecli/laws/1"] = Field(alias="schema")
    laws: list[_LawSummary]
    published: list[_PublishedLaw]


class PublishedLawDocument(_PublishedLaw):
    """`laws show NAME --json` for the name of published constants."""

    schema_name: Literal["scalecli/published-law/1"] = Field(alias="schema")
    references: dict[str, str]


class LawDocument(_LawSummary):
    """`laws show NAME --json`."""

    schema_name: Literal["scalecli/law/1"] = Field(alias="schema")
    description: str
    parameters: list[dict[str, Any]]
    questions: dict[str, list[str]] = Field(description="what `predict --ask` takes: the numbers of each")
    published: list[_PublishedLaw]
    references: dict[str, str]


class DoctorDocument(_Open):
    """`doctor --json`; sizes in bytes."""

    schema_name: Literal["scalecli/doctor/1"] = Field(alias="schema")
    python: str
    platform: str
    cpu_threads: int
    memory_bytes: int
    devices: list[dict[str, Any]]
    versions: dict[str, str | None]
    extras: dict[str, bool]


class _Rival(_Open):
    name: str
    batch_tokens: float
    learning_rate: float
    loss: float
    gain: float | None = Field(
        description="loss of the alternative minus loss of the recommendation [nats/token]"
    )


class QuickstartDocument(_Open):
    """`quickstart --json`: the prediction, made before the target was trained, against what was measured."""

    schema_name: Literal["scalecli/quickstart/1"] = Field(alias="schema")
    predicted: Interval
    measured: dict[str, Any]
    alternatives: list[_Rival]
    files: dict[str, str]


DOCUMENTS: dict[str, type[BaseModel]] = {
    "arms": ArmsDocument,
    "cnn-ladder": CnnLadderDocument,
    "comparison": ComparisonDocument,
    "critical-batch": CriticalBatchDocument,
    "critical-batch-by": CriticalBatchByDocument,
    "design": DesignDocument,
    "doctor": DoctorDocument,
    "fit": FitDocument,
    "ladder-check": LadderCheckDocument,
    "law": LawDocument,
    "laws": LawsDocument,
    "memory": MemoryDocument,
    "memory-calibration": MemoryCalibrationDocument,
    "multipliers": MultipliersDocument,
    "optimizers": OptimizersDocument,
    "packing": PackingDocument,
    "plan": Plan,
    "prediction": PredictionDocument,
    "published-law": PublishedLawDocument,
    "probe-coordinates": ProbeCoordinatesDocument,
    "probe-critical-batch": ProbeCriticalBatchDocument,
    "probe-curvature": ProbeCurvatureDocument,
    "probe-lr": ProbeLearningRateDocument,
    "probe-device": ProbeDeviceDocument,
    "probe-memory": ProbeMemoryDocument,
    "probe-noise": ProbeNoiseDocument,
    "probe-stability": ProbeStabilityDocument,
    "probe-telescope": ProbeTelescopeDocument,
    "probe-throughput": ProbeThroughputDocument,
    "proxy-ranks": ProxyRanksDocument,
    "quickstart": QuickstartDocument,
    "run": RunDocument,
    "runs": RunsDocument,
    "runs-export": RunsExportDocument,
    "runs-import": RunsImportDocument,
    "sensitivity": SensitivityDocument,
    "simulation": SimulationDocument,
    "sweep": SweepDocument,
    "sweep-estimate": SweepEstimateDocument,
    "trajectory": TrajectoryDocument,
    "validation": ValidationDocument,
    "validation-ranking": RankingDocument,
}


def document_names() -> list[str]:
    """Names that `scalecli schema` takes."""
    return sorted(DOCUMENTS)


def document_schema(name: str) -> dict[str, Any]:
    """The JSON Schema of a document; `ExportError` with close names when there is none."""
    if name not in DOCUMENTS:
        close = get_close_matches(name, DOCUMENTS) or document_names()
        raise ExportError(
            f"there is no document {name!r}; there are {', '.join(close)}", hint="scalecli schema"
        )
    schema = DOCUMENTS[name].model_json_schema(by_alias=True)
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}
