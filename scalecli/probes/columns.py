"""The run columns that a configuration decides, before anything has run."""

from __future__ import annotations

from scalecli.accounting.shape import ModelShape
from scalecli.probes.config import ProbeConfig

Row = dict[str, str | int | float | None]


def config_columns(config: ProbeConfig) -> Row:
    """Identity, recipe and sizes under their canonical names; `flops` is 6 N D but for a task of the user's,
    `flops_exact` the exact count.
    """
    return {
        "run_id": config.run_id,
        "config_hash": config.run_id,
        **_recipe_columns(config),
        **_size_columns(config),
    }


def _recipe_columns(config: ProbeConfig) -> Row:
    optimizer, schedule = config.optimizer, config.schedule
    return {
        "group": config.group,
        "learning_rate": config.learning_rate,
        "optimizer": optimizer.name,
        "weight_decay": optimizer.weight_decay,
        "adamw_timescale": config.timescale,
        "beta1": optimizer.beta1,
        "beta2": optimizer.beta2,
        "epsilon": optimizer.epsilon,
        "grad_clip": config.grad_clip,
        "schedule": schedule.name,
        "warmup_steps": schedule.warmup_steps,
        "decay_fraction": 1.0 - min(1.0, schedule.branch_step(config.steps) / config.steps),
        "final_learning_rate": config.learning_rate * schedule.factor(config.steps - 1, config.steps),
        "parametrization": config.parametrization,
        "base_width": config.base_width if config.parametrization == "mup" else None,
        "seed": config.seed,
        "dtype": config.dtype,
    }


def _size_columns(config: ProbeConfig) -> Row:
    shape = config.shape
    return {
        "params": shape.params,
        "params_non_embedding": shape.params_non_embedding,
        "params_active": shape.params_active,
        "tokens": config.tokens,
        "flops": config.flops,
        "flops_exact": config.flops_exact,
        "batch_tokens": config.batch_tokens,
        "batch_sequences": config.batch_sequences,
        "sequence_length": config.sequence_length,
        "steps": config.steps,
        "width": shape.width,
        "depth": shape.layers,
        "heads": shape.heads if isinstance(shape, ModelShape) else None,
        "vocab_size": shape.vocab or None,
        "num_experts": shape.num_experts,
        "experts_per_token": shape.experts_per_token,
    }
