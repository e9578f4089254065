"""Our decoder as a subject: the only one that trains several copies in one stack."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn

from scalecli.accounting.shape import ModelShape
from scalecli.data.corpus import Corpus
from scalecli.probes.config import ProbeConfig
from scalecli.probes.decoder import Decoder, Experts, initialise, weights_of
from scalecli.probes.parametrization import Multipliers
from scalecli.probes.subjects.subject import Weight
from scalecli.probes.subjects.text import Text


class DecoderStack(Text):
    """Copies of one decoder, each with its own seed and batches."""

    def __init__(
        self, shape: ModelShape, configs: Sequence[ProbeConfig], corpus: Corpus, device: torch.device
    ) -> None:
        super().__init__(configs, corpus, device)
        first = configs[0]
        multipliers = Multipliers.of(shape, first.parametrization, first.base_width)
        self.copies = len(configs)
        self.model = Decoder(shape, multipliers, length=first.sequence_length, copies=self.copies)
        initialise(self.model, [config.seed for config in configs])
        self.model.to(device)
        self._experts = [module for module in self.model.modules() if isinstance(module, Experts)]

    @property
    def static(self) -> bool:
        """Experts look at the values: each computes the tokens that chose it."""
        return not self._experts

    def weights(self, copy: int) -> Iterator[Weight]:
        return weights_of(self.model, copy)

    def compile(self) -> None:
        """Block by block: they are alike, so that the code of one serves all."""
        super().compile()
        for block in self.model.blocks:
            block.compile(dynamic=False)

    def losses(self, batch: Tensor) -> Tensor:
        return self._token_losses(self.model(batch[..., :-1]).flatten(0, 1), batch)

    def after_step(self) -> None:
        for experts in self._experts:
            experts.balance()

    def watched(self) -> dict[str, nn.Module]:
        """Attention and feed-forward blocks, and the logits."""
        blocks = {
            name: module
            for name, module in self.model.named_modules()
            if name.endswith(("attention", "feed_forward"))
        }
        return {**blocks, "logits": self.model}
