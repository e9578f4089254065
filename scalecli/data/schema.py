"""The canonical columns of a run table: one name for each thing, with its unit and bounds.

A run table has one row for each training run, or one for each checkpoint with `run_id` tying them.
`mix_<domain>` and `metric_<name>` are families of columns; `column_for` resolves every name.
"""

from __future__ import annotations

import difflib
import math
import sys
from dataclasses import dataclass
from typing import Literal

Kind = Literal["number", "text"]

ABOVE_ZERO = sys.float_info.min
"""Lower bound of a quantity that must be positive (its logarithm is taken)."""


@dataclass(frozen=True, slots=True)
class Column:
    """One column: finite values in [low, high], in `unit`."""

    name: str
    unit: str
    kind: Kind
    low: float
    high: float
    description: str

    def problem(self, value: float) -> str:
        """Why `value` cannot stand in this column; empty when it can.

        >>> COLUMNS["tokens"].problem(-3.0)
        '-3 is negative'
        """
        if math.isnan(value):
            return "is missing"
        if value < 0 <= self.low:
            return f"{value:g} is negative"
        if value < self.low:
            return (
                f"{value:g} is not above 0" if self.low == ABOVE_ZERO else f"{value:g} is below {self.low:g}"
            )
        if math.isinf(value):
            return f"{value:g} is not finite"
        if value > self.high:
            return f"{value:g} is above {self.high:g}"
        return ""


def _positive(name: str, unit: str, description: str, high: float = math.inf) -> Column:
    return Column(name, unit, "number", ABOVE_ZERO, high, description)


def _non_negative(name: str, unit: str, description: str, high: float = math.inf) -> Column:
    return Column(name, unit, "number", 0.0, high, description)


def _text(name: str, description: str) -> Column:
    return Column(name, "", "text", -math.inf, math.inf, description)


_ALL = (
    _text("run_id", "identity of the run: the hash of its configuration, or a name"),
    _text("group", "cluster: runs that share a model and a recipe"),
    _positive("params", "parameters", "all trainable weights"),
    _positive("params_non_embedding", "parameters", "weights without input embedding and head"),
    _positive("params_encoder", "parameters", "weights of the encoder"),
    _positive("params_decoder", "parameters", "weights of the decoder"),
    _positive("params_active", "parameters", "weights one token passes through"),
    _non_negative("params_frozen", "parameters", "weights that training leaves alone; no part of `params`"),
    _positive("tokens", "tokens", "tokens trained on, repetitions counted"),
    _positive("unique_tokens", "tokens", "distinct tokens in the training set"),
    _positive("flops", "FLOP", "training compute; 6 N D unless said otherwise"),
    _positive("batch_tokens", "tokens", "tokens in one optimizer step"),
    _positive("batch_sequences", "sequences", "sequences in one optimizer step"),
    _positive("sequence_length", "tokens", "tokens in one sequence"),
    _positive("steps", "steps", "optimizer steps"),
    _positive("learning_rate", "1", "peak learning rate"),
    _non_negative("weight_decay", "1", "decoupled weight decay"),
    _positive("adamw_timescale", "1", "1 / (learning rate x decay) steps of AdamW, as a share of the run"),
    _non_negative("beta1", "1", "first-moment decay of Adam, or momentum", high=1.0),
    _non_negative("beta2", "1", "second-moment decay of Adam", high=1.0),
    _non_negative("epsilon", "1", "denominator constant of Adam"),
    _non_negative("grad_clip", "1", "largest norm of the gradient; 0 when not clipped"),
    _non_negative("warmup_steps", "steps", "steps of linear warm-up"),
    _text("schedule", "learning-rate schedule: constant, cosine, linear, cooldown"),
    _non_negative("final_learning_rate", "1", "learning rate at the last step"),
    _non_negative("decay_fraction", "1", "share of the steps that lower the learning rate", high=1.0),
    _text("optimizer", "optimizer: adamw, muon, sgd"),
    _positive("replicas", "1", "groups of devices that train apart and average now and then (DiLoCo)"),
    _text("parametrization", "how sizes enter initialisation and learning rates: standard, mup"),
    _text("dataset", "training corpus"),
    _text("tokenizer", "tokenizer: bytes, or the name of a vocabulary"),
    _positive("bytes_per_token", "bytes/token", "mean bytes of text in one token"),
    _text("loss_kind", "what the loss is measured on: validation, train"),
    _positive("width", "1", "model width"),
    _positive("base_width", "1", "width at which muP equals the standard parametrization"),
    _positive("depth", "layers", "layers"),
    _positive("heads", "1", "attention heads"),
    _positive("vocab_size", "1", "entries of the vocabulary"),
    _positive("num_experts", "1", "experts in a routed layer"),
    _positive("experts_per_token", "1", "experts one token visits"),
    _non_negative("sparsity", "1", "share of weights that are zero or idle", high=1.0),
    _positive("loss", "nats/token", "final loss"),
    _non_negative("loss_std", "nats/token", "standard error of the loss"),
    _positive("perplexity", "1", "exponential of the loss in nats per token"),
    _non_negative("loss_bits_per_byte", "bits/byte", "final loss, comparable across tokenizers"),
    _positive(
        "critical_batch_tokens",
        "tokens",
        "critical batch, in the sense of `definition`; without one, where training costs twice the tokens",
    ),
    _text("definition", "what a critical batch size in this row means"),
    _positive("noise_scale_tokens", "tokens", "gradient noise scale"),
    _positive("peak_memory_bytes", "bytes", "peak memory of one device"),
    _positive("tokens_per_second", "tokens/s", "throughput of the whole run"),
    _positive("device_hours", "h", "hours of training, times the devices that took part"),
    _non_negative("seed", "1", "random seed"),
    _text("status", "ok, diverged, out_of_memory, stopped or failed"),
    _text("status_reason", "why the status is not ok"),
    _text("device", "device the run used"),
    _text("dtype", "number format of the forward pass"),
    _text("versions", "versions of the software that ran"),
    _text("config_hash", "hash of the resolved configuration"),
    _text("created_at", "when the row was written, ISO 8601 in UTC"),
)

_ALIASES = {
    "run_id": "run id name",
    "group": "cluster family",
    "params": "params_trainable N n_params parameters num_params n params_total model_size",
    "params_non_embedding": "N_non_embedding params_nonemb non_embedding_params",
    "params_active": "active_params N_active",
    "tokens": "D n_tokens num_tokens train_tokens tokens_seen d",
    "unique_tokens": "U dataset_tokens",
    "flops": "C compute total_flops flop flops_6nd total_flos",
    "batch_tokens": "B batch_size_tokens global_batch_tokens",
    "batch_sequences": "batch_size batch_size_sequences global_batch_size",
    "sequence_length": "seq_len seq_length context_length block_size",
    "steps": "step n_steps num_steps max_steps S",
    "learning_rate": "lr peak_lr max_lr learning_rate_peak",
    "weight_decay": "wd",
    "beta1": "adam_beta1",
    "beta2": "adam_beta2",
    "epsilon": "eps adam_epsilon",
    "grad_clip": "max_grad_norm clip_grad",
    "warmup_steps": "warmup",
    "schedule": "lr_scheduler_type",
    "final_learning_rate": "final_lr min_lr",
    "optimizer": "optim",
    "dataset": "data train_dataset",
    "width": "d_model hidden_size n_embd",
    "depth": "layers n_layers num_layers n_layer",
    "heads": "n_heads num_heads n_head",
    "vocab_size": "vocab n_vocab",
    "num_experts": "n_experts E",
    "experts_per_token": "top_k",
    "loss": "val_loss eval_loss valid_loss validation_loss test_loss train_loss L final_loss",
    "perplexity": "ppl val_ppl eval_ppl",
    "loss_std": "loss_se loss_sem",
    "noise_scale_tokens": "noise_scale gns",
    "peak_memory_bytes": "peak_mem_bytes max_memory_allocated",
    "tokens_per_second": "tps tokens_per_s",
    "device_hours": "gpu_hours gpuh hours",
    "status": "state",
    "device": "gpu",
    "dtype": "precision",
}
"""Names that other tools give a column, most common first: for hints, never for reading."""

COLUMNS: dict[str, Column] = {column.name: column for column in _ALL}

MIX_PREFIX, METRIC_PREFIX = "mix_", "metric_"
FINISHED = ("ok", "diverged")
"""Statuses that need no further attempt: the run's own settings decided them, not the machine."""
STATUSES = (*FINISHED, "out_of_memory", "stopped", "failed")
OK_ELSEWHERE = frozenset({"finished", "completed", "complete", "success", "succeeded", "done"})
"""What other tools call a run that ended well, in any case: such rows are as good as `ok`."""


def status_of(said: object) -> str:
    """A status as we call it.

    >>> status_of("Finished"), status_of("crashed")
    ('ok', 'crashed')
    """
    return "ok" if str(said).strip().casefold() in OK_ELSEWHERE else str(said)


def column_for(name: str) -> Column:
    """The canonical column of this name, a member of its family, or a plain number of the user's own.

    >>> column_for("mix_web").high, column_for("metric_arc").unit, column_for("temperature").low
    (1.0, '1', -inf)
    """
    if name in COLUMNS:
        return COLUMNS[name]
    if name.startswith(MIX_PREFIX):
        return _non_negative(name, "1", f"share of {name.removeprefix(MIX_PREFIX)} in the data mix", high=1.0)
    if name.startswith(METRIC_PREFIX):
        return Column(
            name, "1", "number", -math.inf, math.inf, f"score of {name.removeprefix(METRIC_PREFIX)}"
        )
    return Column(name, "", "number", -math.inf, math.inf, "a column of the user's own")


def likely_source(name: str, present: list[str]) -> str | None:
    """Which column of a foreign table most likely holds `name`, for the hint of a missing column.

    >>> likely_source("loss", ["D", "val_loss"])
    'val_loss'
    """
    aliases = _ALIASES.get(name, "").split()
    for alias in aliases:
        if alias in present:
            return alias
    folded = {column.casefold(): column for column in present}
    for alias in (name, *aliases):
        if len(alias) > 1 and alias.casefold() in folded:
            return folded[alias.casefold()]
    containing = [column for column in present if name in column]
    close = containing or difflib.get_close_matches(name, present, n=1, cutoff=0.75)
    return close[0] if close else None
