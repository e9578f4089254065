"""Language models of `transformers`, built from a configuration alone: `--model hf:CONFIG.json`.

The ladder scales the configuration: hidden size and everything that goes with it in proportion, layers by the ladder's
aspect ratio, heads of a proxy's size; the vocabulary is the corpus's. Everything else is as configured.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from scalecli.data.corpus import Corpus
from scalecli.errors import ProbeError, needs_extra
from scalecli.probes.config import ProbeConfig
from scalecli.probes.family import FFN_MULTIPLE, HEAD_DIM, layers_of
from scalecli.probes.foreign import TRANSFORMERS, ForeignShape
from scalecli.probes.subjects import plain
from scalecli.probes.subjects.subject import Weight
from scalecli.probes.subjects.text import Text, next_token_losses

SCALED = (
    "intermediate_size",
    "moe_intermediate_size",
    "shared_expert_intermediate_size",
    "n_inner",
    "ffn_dim",
    "ffn_hidden_size",
)
"""Sizes that go with the hidden size, by the names that configurations give them."""
IDS = ("bos_token_id", "eos_token_id", "pad_token_id")
"""Special ids of the configuration's own vocabulary: the proxy's is another."""
EXPERTS, CHOSEN = ("num_local_experts", "num_experts", "n_routed_experts"), ("num_experts_per_tok", "top_k")


@dataclass(frozen=True, slots=True)
class TransformersFamily:
    """Every width of one configuration, counted at one sequence length."""

    path: str
    vocab: int
    sequence_length: int
    aspect: float

    def member(self, width: int) -> ForeignShape:
        return self.sized(width, layers_of(width, self.aspect))

    def widened(self, shape: ForeignShape, width: int) -> ForeignShape:
        return self.sized(width, shape.layers)

    def as_configured(self) -> ForeignShape:
        """The configuration at the size and with the vocabulary that it has."""
        content = _read(self.path)
        config = _transformers().AutoConfig.for_model(**json.loads(content))
        size = config.hidden_size, config.num_hidden_layers, config.vocab_size
        return _counted(content, *size, self.sequence_length)

    def sized(self, width: int, layers: int) -> ForeignShape:
        """Raises ProbeError when the configuration cannot be read, or is of no model that predicts tokens."""
        content = _scaled(_read(self.path), width, layers, self.vocab)
        return _counted(json.dumps(content, sort_keys=True), width, layers, self.vocab, self.sequence_length)


class CausalLM(Text):
    """One model of `transformers` and the sequences it trains on.

    Where its configuration has experts, their balancing loss is added in training, as the configuration weighs it.
    """

    copies = 1
    static = False  # nothing is known of how the model computes

    def __init__(
        self, shape: ForeignShape, configs: Sequence[ProbeConfig], corpus: Corpus, device: torch.device
    ) -> None:
        super().__init__(configs, corpus, device)
        self._seed = configs[0].seed
        with torch.random.fork_rng():
            torch.manual_seed(self._seed)
            self.model = build(shape.content, configs[0].sequence_length).to(device)

    def weights(self, copy: int) -> Iterator[Weight]:
        return plain.weights_of(self.model, _head(self.model))

    def batch(self, step: int) -> Tensor:
        plain.make_repeatable(self._seed, step)
        return super().batch(step)

    def losses(self, batch: Tensor) -> Tensor:
        out = self.model(input_ids=batch[0, :, :-1], use_cache=False)
        losses = self._token_losses(out.logits.flatten(0, 1), batch)
        balance = getattr(out, "aux_loss", None)
        if self.model.training and balance is not None:
            losses = losses + self.model.config.router_aux_loss_coef * balance
        return losses

    def after_step(self) -> None:
        """Nothing: experts are balanced by their loss."""

    def watched(self) -> dict[str, nn.Module]:
        return plain.watched(self.model)


def build(content: str, sequence_length: int, **options: Any) -> Any:
    """The float32 model of a configuration with fresh weights, on the default device; options as `from_config` has.

    Raises:
        ProbeError: `transformers` is missing or does not know the model, or the model has too few positions.
    """
    transformers = _transformers()
    settings = json.loads(content)
    try:
        config = transformers.AutoConfig.for_model(**settings)
        if hasattr(config, "output_router_logits"):
            config.output_router_logits = True
        model = transformers.AutoModelForCausalLM.from_config(config, dtype=torch.float32, **options)
    except (ValueError, KeyError, TypeError) as error:
        raise ProbeError(
            f"transformers {transformers.__version__} builds no language model of {settings.get('model_type')!r} "
            f"with width {settings.get('hidden_size')}: {error}",
            hint="give the configuration of a causal language model",
        ) from error
    positions = getattr(config, "max_position_embeddings", None)
    if positions is not None and positions < sequence_length:
        raise ProbeError(
            f"the configuration has {positions} positions, a sequence {sequence_length} tokens",
            hint="give a shorter --sequence-length, or raise max_position_embeddings",
        )
    return model.train()


def _transformers() -> Any:
    with needs_extra("hf", "a model of transformers", ProbeError):
        import transformers
    return transformers


@lru_cache(maxsize=8)
def _read(path: str) -> str:
    """The configuration with every default filled in, as JSON."""
    try:
        given = json.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ProbeError(
            f"{path} is no configuration: {error}", hint="give a config.json of transformers"
        ) from error
    if not isinstance(given, dict) or "model_type" not in given:
        raise ProbeError(f"{path} has no model_type", hint="give a config.json of transformers")
    try:
        return json.dumps(_transformers().AutoConfig.for_model(**given).to_dict())
    except (ValueError, KeyError, TypeError) as error:
        raise ProbeError(
            f"{path}: transformers does not know this configuration: {error}",
            hint="a newer transformers may: pip install --upgrade transformers",
        ) from error


def _scaled(filled: str, width: int, layers: int, vocab: int) -> dict[str, Any]:
    """The configuration at another width and depth; heads keep their grouping and have a proxy's size."""
    config = _transformers().AutoConfig.for_model(**json.loads(filled))
    before, group = config.hidden_size, _group(config)
    head_dim = min(HEAD_DIM, width, before // config.num_attention_heads)
    for name in SCALED:
        if isinstance(size := getattr(config, name, None), int):
            setattr(
                config, name, max(FFN_MULTIPLE, round(size * width / before / FFN_MULTIPLE) * FFN_MULTIPLE)
            )
    heads = max(1, width // head_dim)
    while width % heads or width // heads % 2:
        heads -= 1
    config.hidden_size, config.num_hidden_layers, config.num_attention_heads = width, layers, heads
    if hasattr(config, "num_key_value_heads"):
        config.num_key_value_heads = next(
            kv for kv in range(max(1, heads // group), 0, -1) if heads % kv == 0
        )
    if getattr(config, "head_dim", None) is not None:
        config.head_dim = width // heads
    if getattr(config, "layer_types", None):
        config.layer_types = [config.layer_types[layer % len(config.layer_types)] for layer in range(layers)]
    config.vocab_size = vocab
    for name in IDS:
        setattr(config, name, None)
    unwanted = {"dtype", "torch_dtype", "transformers_version", "_name_or_path", "architectures"}
    return {name: value for name, value in config.to_dict().items() if name not in unwanted}


def _group(config: Any) -> int:
    """Query heads that share a key and value."""
    heads = int(config.num_attention_heads)
    return heads // int(getattr(config, "num_key_value_heads", None) or heads)


@lru_cache(maxsize=256)
def _counted(content: str, width: int, layers: int, vocab: int, sequence_length: int) -> ForeignShape:
    """Counts on the meta device, which holds no weights."""
    with torch.device("meta"):
        # Grouped products are not counted by torch; batched ones are the same arithmetic.
        model = build(content, sequence_length, experts_implementation="batched_mm")
        sequence = torch.zeros(1, 1, sequence_length + 1, dtype=torch.int64)
    flops = plain.training_flops_of(lambda: meta_loss(model, sequence))
    params, embeddings = plain.trained_params(model), plain.embedding_ids(model)
    head = _head(model)
    outside = embeddings | ({id(head)} if head is not None else set())
    experts, chosen = _first(model.config, EXPERTS), _first(model.config, CHOSEN)
    idle = (1 - chosen / experts) * sum(
        parameter.numel() for name, parameter in model.named_parameters() if ".experts." in name
    )
    return ForeignShape(
        model=TRANSFORMERS,
        content=content,
        width=width,
        layers=layers,
        vocab=vocab,
        params=params,
        params_non_embedding=params - sum(p.numel() for p in model.parameters() if id(p) in outside),
        params_active=params - round(idle),
        flops_per_token=flops / sequence_length,
        num_experts=experts,
        experts_per_token=chosen,
    )


def meta_loss(model: Any, sequences: Tensor) -> Tensor:
    """The mean loss on the meta device. With a cache the mask depends on no values, which do not exist there."""
    logits = model(input_ids=sequences[0, :, :-1], use_cache=True).logits
    return next_token_losses(logits.flatten(0, 1), sequences).mean()


def _first(config: Any, names: Sequence[str]) -> int:
    """The first of these that the configuration has; 1 without experts."""
    found = (getattr(config, name, None) for name in names)
    return next((int(value) for value in found if value), 1)


def _head(model: Any) -> nn.Parameter | None:
    head = model.get_output_embeddings()
    return None if head is None else head.weight
