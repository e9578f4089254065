"""What a training writes down: readings along the way, and one run with canonical columns."""

from __future__ import annotations

import math
from dataclasses import dataclass
from datetime import UTC, datetime

import torch

import scalecli
from scalecli.data.corpus import Corpus
from scalecli.data.schema import METRIC_PREFIX, MIX_PREFIX
from scalecli.probes.batches import epoch_tokens
from scalecli.probes.columns import Row, config_columns
from scalecli.probes.config import ProbeConfig
from scalecli.probes.device import device_name
from scalecli.probes.train.trainer import HeldOutLoss


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a run ended. `loss` is None unless the status is ok or the model could still be evaluated; where it is of an
    average, `last_weights` is the loss of the weights themselves."""

    status: str
    reason: str = ""
    loss: HeldOutLoss | None = None
    train_loss: float | None = None
    last_weights: HeldOutLoss | None = None


def evaluation_row(config: ProbeConfig, step: int, loss: HeldOutLoss) -> Row:
    """A reading of the held-out loss along the way."""
    return {
        "kind": "step",
        "run_id": config.run_id,
        "step": step,
        "tokens": step * config.batch_tokens,
        "loss": _finite(loss.mean),
        "loss_std": _finite(loss.std_error),
    }


def result_row(
    config: ProbeConfig,
    outcome: Outcome,
    *,
    corpus: Corpus,
    device: torch.device,
    seconds_per_step: float | None,
    copies: int,
    devices: int,
) -> Row:
    """The run, every canonical column that applies, and these besides: `flops_exact`, `train_loss`, `copies` (runs
    trained side by side), `devices` (it was spread over), `seconds`, `metric_loss_<domain>` of a mixture,
    `metric_loss_last_weights` where `loss` is of an average."""
    loss = outcome.loss
    return {
        "kind": "result",
        "status": outcome.status,
        "status_reason": outcome.reason,
        **config_columns(config),
        **_data_columns(config, corpus),
        "loss_kind": "validation",
        "loss": _finite(loss.mean) if loss else None,
        "loss_std": _finite(loss.std_error) if loss else None,
        "loss_bits_per_byte": _bits_per_byte(loss, corpus),
        **_domain_losses(loss),
        **({"metric_loss_last_weights": _finite(last.mean)} if (last := outcome.last_weights) else {}),
        "train_loss": _finite(outcome.train_loss) if outcome.train_loss is not None else None,
        "seconds": config.steps * seconds_per_step if seconds_per_step else None,
        "tokens_per_second": config.batch_tokens / seconds_per_step if seconds_per_step else None,
        "peak_memory_bytes": torch.cuda.max_memory_allocated(device) if device.type == "cuda" else None,
        "copies": copies,
        "devices": devices,
        "device": device_name(device),
        "versions": f"scalecli {scalecli.__version__}, torch {torch.__version__}",
        "created_at": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def _data_columns(config: ProbeConfig, corpus: Corpus) -> Row:
    """What a task of the user's trains on is its own affair: it has a name only."""
    distinct = None
    if corpus.unique_tokens:
        available = epoch_tokens(corpus.training(config.unique_tokens), config.sequence_length)
        distinct = min(config.tokens, available)
    return {
        "dataset": corpus.name,
        "tokenizer": corpus.tokenizer or None,
        "bytes_per_token": corpus.bytes_per_token,
        "unique_tokens": distinct,
        **{f"{MIX_PREFIX}{domain.name}": domain.share for domain in corpus.domains},
    }


def _domain_losses(loss: HeldOutLoss | None) -> Row:
    by_domain = loss.by_domain if loss else {}
    return {f"{METRIC_PREFIX}loss_{name}": _finite(mean) for name, mean in by_domain.items()}


def _bits_per_byte(loss: HeldOutLoss | None, corpus: Corpus) -> float | None:
    if loss is None or corpus.bytes_per_token is None:
        return None
    return _finite(loss.mean / math.log(2) / corpus.bytes_per_token)


def _finite(value: float) -> float | None:
    """JSON knows no NaN: what is not finite is null, and the status says why."""
    return value if math.isfinite(value) else None
