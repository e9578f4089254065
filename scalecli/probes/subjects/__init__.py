"""What trainers train: our decoder, language models of `transformers`, tasks of the user's own."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from scalecli.accounting.shape import ModelShape
from scalecli.data.corpus import Corpus
from scalecli.errors import ProbeError
from scalecli.probes.config import ProbeConfig
from scalecli.probes.subjects.subject import Subject


def subject_of(configs: Sequence[ProbeConfig], corpus: Corpus, device: torch.device) -> Subject:
    """The subject that these configurations name; several share one shape and train side by side.

    Raises:
        ProbeError: the model cannot be built, or cannot be stacked. DataError: the data are not those of the runs.
    """
    shape = configs[0].shape
    if isinstance(shape, ModelShape):
        from scalecli.probes.subjects.stack import DecoderStack

        return DecoderStack(shape, configs, corpus, device)
    if len(configs) > 1:
        raise ProbeError(f"{shape.model} trains one model at a time, not {len(configs)}")
    if shape.from_transformers:
        from scalecli.probes.subjects.causal_lm import CausalLM

        return CausalLM(shape, configs, corpus, device)
    from scalecli.probes.subjects.own import OwnTask

    return OwnTask(shape, configs[0], device)
