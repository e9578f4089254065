"""Optimizers over the weights of each copy, each group with its peak rate: torch's own where it has them, those
of `pytorch-optimizer` otherwise.

Sources: AdamW, Loshchilov & Hutter 2019 (1711.05101); Muon, Jordan 2024, scaled to AdamW's update size as in
Liu et al. 2025 (2502.16982), so that one learning rate serves both; Adafactor, Shazeer & Stern 2018
(1804.04235); LAMB, You et al. 2020 (1904.00962), algorithm 2; LARS, You et al. 2017 (1708.03888); Lion, Chen et al.
2023 (2302.06675).
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from copy import deepcopy
from typing import Any

import torch
from torch import Tensor, nn

from scalecli.errors import ProbeError, needs_extra
from scalecli.probes.config import Optimizer, ProbeConfig
from scalecli.probes.subjects.subject import Subject
from scalecli.probes.train.flat import Flat, Kind

Group = dict[str, Any]


def build_optimizers(
    flat: Flat, subject: Subject, configs: Sequence[ProbeConfig]
) -> list[torch.optim.Optimizer]:
    """The optimizers that together update every copy; every group carries `peak_rate`, its rate before the
    schedule.
    """
    settings = configs[0].optimizer
    if settings.name in ELEMENTWISE:
        return [
            elementwise_optimizer(
                [
                    group_of(kind, config, leaf)
                    for copy, config in enumerate(configs)
                    for kind, leaf in flat.leaves(copy)
                ],
                settings,
            )
        ]
    by_matrix: list[Group] = []
    by_vector: list[Group] = []
    for copy, config in enumerate(configs):
        for weight in subject.weights(copy):
            leaf = nn.Parameter(weight.value)
            leaf.grad = weight.grad
            group = group_of(Kind.of(weight), config, leaf)
            (by_matrix if weight.role == "hidden" else by_vector).append(group)
    if settings.name == "muon":
        return [_muon(merged(by_matrix), settings), _adamw(merged(by_vector), settings)]
    return [BY_MATRIX[settings.name](merged(by_matrix + by_vector), settings)]


def elementwise_optimizer(groups: list[Group], settings: Optimizer) -> torch.optim.Optimizer:
    """One that does not care which weights stand together."""
    return ELEMENTWISE[settings.name](merged(groups), settings)


def group_of(kind: Kind, config: ProbeConfig, leaf: nn.Parameter) -> Group:
    """The leaf with its rate and its decay."""
    return {
        "params": [leaf],
        "peak_rate": config.learning_rate * kind.rate,
        "weight_decay": config.optimizer.weight_decay if kind.decays else 0.0,
    }


def merged(groups: list[Group]) -> list[Group]:
    """Groups of equal rate and decay as one: fewer, larger updates."""
    together: dict[tuple[float, float], Group] = {}
    for group in groups:
        key = (group["peak_rate"], group["weight_decay"])
        if key in together:
            together[key]["params"].extend(group["params"])
        else:
            together[key] = {**group, "lr": group["peak_rate"]}
    return list(together.values())


def _adamw(groups: list[Group], settings: Optimizer) -> torch.optim.Optimizer:
    betas = (settings.beta1, settings.beta2)
    return torch.optim.AdamW(groups, betas=betas, eps=settings.epsilon, fused=True)


def _sgd(groups: list[Group], settings: Optimizer) -> torch.optim.Optimizer:
    return torch.optim.SGD(groups, lr=1.0, momentum=settings.beta1, fused=True)


def _muon(groups: list[Group], settings: Optimizer) -> torch.optim.Optimizer:
    return torch.optim.Muon(groups, momentum=settings.beta1, adjust_lr_fn="match_rms_adamw")


def _adafactor(groups: list[Group], settings: Optimizer) -> torch.optim.Optimizer:
    return torch.optim.Adafactor(groups, foreach=True)


def _lamb(groups: list[Group], settings: Optimizer) -> torch.optim.Optimizer:
    """Version 3 of the paper: neither moment is corrected for its start, and the rate is the rate (`adam_debias`)."""
    betas = (settings.beta1, settings.beta2)
    made: torch.optim.Optimizer = _library().Lamb(
        groups, betas=betas, eps=settings.epsilon, weight_decouple=False, adam_debias=True
    )
    return made


def _lars(groups: list[Group], settings: Optimizer) -> torch.optim.Optimizer:
    made: torch.optim.Optimizer = _library().LARS(groups, momentum=settings.beta1)
    return made


def _lion(groups: list[Group], settings: Optimizer) -> torch.optim.Optimizer:
    made: torch.optim.Optimizer = _library().Lion(groups, betas=(settings.beta1, settings.beta2))
    return made


def _library() -> Any:
    with needs_extra("optimizers", "this optimizer", ProbeError):
        import pytorch_optimizer
    return pytorch_optimizer


Maker = Callable[[list[Group], Optimizer], torch.optim.Optimizer]
ELEMENTWISE: dict[str, Maker] = {"adamw": _adamw, "sgd": _sgd, "lion": _lion}
"""Those that update every weight by itself."""
BY_MATRIX: dict[str, Maker] = {"adafactor": _adafactor, "lamb": _lamb, "lars": _lars}
"""Those that look at whole matrices, and treat all weights alike."""


def restore_optimizer(optimizer: torch.optim.Optimizer, saved: dict[str, Any]) -> None:
    """Takes up a state; rates and decays stay this run's own, which may be another branch."""
    own = deepcopy(optimizer.state_dict()["param_groups"])
    kept = [
        {**before, **{name: group[name] for name in ("params", "lr", "peak_rate", "weight_decay")}}
        for before, group in zip(saved["param_groups"], own, strict=True)
    ]
    optimizer.load_state_dict({"state": deepcopy(saved["state"]), "param_groups": kept})


def set_rates(optimizers: Sequence[torch.optim.Optimizer], factor: float) -> None:
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            if isinstance(group["lr"], Tensor):
                group["lr"].fill_(group["peak_rate"] * factor)
            else:
                group["lr"] = group["peak_rate"] * factor


def make_recordable(optimizers: Sequence[torch.optim.Optimizer]) -> None:
    """Rates and counts live on the device from here on, where a recorded step finds those of the day."""
    warnings.filterwarnings("ignore", message=".*capturable=True")  # the steps before are not recorded
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["capturable"] = True
            group["lr"] = torch.tensor(group["lr"], device=group["params"][0].device)


def adam_divisors(
    flat: Flat, optimizers: Sequence[torch.optim.Optimizer], settings: Optimizer
) -> list[Tensor]:
    """What Adam divides the gradient of each trained parameter by, sqrt(v / (1 - beta2^t)) + epsilon; one copy only."""
    state = {leaf: moments for optimizer in optimizers for leaf, moments in optimizer.state.items()}
    in_order = [state[leaf] for leaf in sorted(state, key=lambda leaf: leaf.data_ptr())]
    corrected = [
        moments["exp_avg_sq"] / (1 - settings.beta2 ** float(moments["step"])) for moments in in_order
    ]
    return flat.by_parameter(torch.cat(corrected).sqrt()[None] + settings.epsilon)
