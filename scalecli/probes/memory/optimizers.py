"""Optimizers for tracing and measuring: PyTorch's own where it has one, else steps with the tensors that theirs have.

A step of the latter works on lists of tensors: on all at once (`foreach`), or on one after another (`loop`).
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from math import ceil

import torch
from torch import Tensor, nn

from scalecli.accounting.memory.optimizers import QUANTISED_BLOCK, SMALLEST_QUANTISED, steps_in_place
from scalecli.accounting.memory.recipe import Recipe
from scalecli.errors import PlanError

STORED_TYPES = {4: torch.float32, 2: torch.bfloat16, 1: torch.float8_e4m3fn}
"""A type of as many bytes a value."""
LOW, HIGH = 0.9, 0.95
EPSILON, RATE, DECAY = 1e-8, 1e-3, 0.1
Tensors = list[Tensor]
States = list[Tensors]
"""Of every parameter."""


def make_optimizers(model: nn.Module, recipe: Recipe) -> tuple[torch.optim.Optimizer, ...]:
    """The recipe's optimizer for what is trained; Muon takes every matrix and leaves the rest to AdamW."""
    trained = [p for p in model.parameters() if p.requires_grad]
    foreach, own = recipe.optimizer_impl == "foreach", _has_own_step(recipe)
    if recipe.optimizer == "muon" and not own:
        raise PlanError("muon with states of another format than its weights' is only counted, not traced")
    if recipe.optimizer == "muon":
        matrices = [p for p in trained if p.ndim == 2]
        others = [p for p in trained if p.ndim != 2]
        both = (torch.optim.Muon, matrices), (partial(torch.optim.AdamW, foreach=False), others)
        return tuple(make(found) for make, found in both if found)
    if recipe.optimizer == "sgd" and own:
        return (torch.optim.SGD(trained, lr=RATE, foreach=foreach),)
    if recipe.optimizer == "sgd-momentum" and own:
        return (torch.optim.SGD(trained, lr=RATE, momentum=LOW, foreach=foreach),)
    if recipe.optimizer == "adamw" and own and recipe.optimizer_impl != "fused":
        return (torch.optim.AdamW(trained, foreach=foreach),)
    if recipe.optimizer == "adamw" and own:
        return (FusedAdamW(trained),)
    return (Steps(trained, recipe),)


def _has_own_step(recipe: Recipe) -> bool:
    """Whether PyTorch's optimizers can take it: of weights, gradients and states in one type."""
    return not recipe.master_weights and recipe.has_plain_states and not recipe.sums_gradients


class FusedAdamW(torch.optim.Optimizer):
    """PyTorch's fused kernel; `torch.optim.AdamW(fused=True)` itself refuses the meta device."""

    def __init__(self, params: list[nn.Parameter]) -> None:
        super().__init__(params, {})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """One update of every parameter that has a gradient."""
        params = [p for group in self.param_groups for p in group["params"] if p.grad is not None]
        for p in params:
            if not self.state[p]:
                self.state[p] = {
                    "mean": torch.zeros_like(p),
                    "square": torch.zeros_like(p),
                    "step": torch.zeros((), device=p.device),
                }
        states = [self.state[p] for p in params]
        torch._foreach_add_([s["step"] for s in states], 1)
        torch._fused_adamw_(
            params,
            [p.grad for p in params],
            [s["mean"] for s in states],
            [s["square"] for s in states],
            [],
            [s["step"] for s in states],
            lr=RATE, beta1=LOW, beta2=HIGH, weight_decay=DECAY, eps=EPSILON, amsgrad=False, maximize=False,
        )  # fmt: skip


class Steps(torch.optim.Optimizer):
    """Steps of an optimizer that PyTorch has no implementation of for every device."""

    def __init__(self, params: list[nn.Parameter], recipe: Recipe) -> None:
        super().__init__(params, {})
        self.recipe = recipe
        self.make, self.update = OPTIMIZERS[recipe.optimizer]

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """One update of every parameter."""
        params = [p for group in self.param_groups for p in group["params"]]
        for p in params:
            if not self.state[p]:
                self.state[p]["tensors"] = self._states(p)
        at_once = len(params) if self.recipe.optimizer_impl == "foreach" else 1
        for begin in range(0, len(params), at_once):
            some = params[begin : begin + at_once]
            self._update(some, [self.state[p]["tensors"] for p in some])

    def _states(self, p: Tensor) -> Tensors:
        master = [p.to(torch.float32, copy=True)] if self.recipe.master_weights else []
        return [*master, *self.make(p, self.recipe)]

    def _update(self, params: Tensors, states: States) -> None:
        recipe = self.recipe
        if steps_in_place(recipe):
            return
        gradients = [self._gradient(p) for p in params]
        if recipe.master_weights:
            masters, states = [state[0] for state in states], [state[1:] for state in states]
            self.update(masters, gradients, states)
            torch._foreach_copy_(params, masters)
        else:
            self.update(params, gradients, states)

    def _gradient(self, p: Tensor) -> Tensor:
        """In the type that the step computes with."""
        whole: Tensor | None = getattr(p, "summed", p.grad)
        assert whole is not None
        return whole.to(STORED_TYPES[self.recipe.state_bytes])


def _moments(p: Tensor, recipe: Recipe, count: int) -> Tensors:
    return [torch.zeros_like(p, dtype=STORED_TYPES[recipe.moment_bytes[i]]) for i in range(count)]


def _moved_moments(gradients: Tensors, states: States) -> tuple[Tensors, Tensors]:
    """Both moments follow the gradients; the first one, and the root of the second."""
    means, squares = ([state[i] for state in states] for i in range(2))
    torch._foreach_lerp_(means, gradients, 1 - LOW)
    torch._foreach_mul_(squares, HIGH)
    torch._foreach_addcmul_(squares, gradients, gradients, 1 - HIGH)
    roots = list(torch._foreach_sqrt(squares))
    torch._foreach_add_(roots, EPSILON)
    return means, roots


def _adamw(params: Tensors, gradients: Tensors, states: States) -> None:
    means, roots = _moved_moments(gradients, states)
    torch._foreach_addcdiv_(params, means, roots, -RATE)


def _lamb(params: Tensors, gradients: Tensors, states: States) -> None:
    """You et al., 1904.00962, algorithm 2."""
    means, roots = _moved_moments(gradients, states)
    updates = torch._foreach_div(means, roots)
    torch._foreach_mul_(updates, RATE)
    torch._foreach_sub_(params, updates)


def _lion(params: Tensors, gradients: Tensors, states: States) -> None:
    """Chen et al., 2302.06675, algorithm 2."""
    means = [state[0] for state in states]
    updates = torch._foreach_mul(means, LOW)
    torch._foreach_add_(updates, gradients, alpha=1 - LOW)
    torch._foreach_sign_(updates)
    torch._foreach_add_(params, updates, alpha=-RATE)
    torch._foreach_lerp_(means, gradients, 1 - HIGH)


def _lars(params: Tensors, gradients: Tensors, states: States) -> None:
    """You et al., 1708.03888, algorithm 1."""
    momenta = [state[0] for state in states]
    decayed = torch._foreach_add(gradients, params, alpha=DECAY)
    torch._foreach_mul_(momenta, LOW)
    torch._foreach_add_(momenta, decayed, alpha=RATE)
    torch._foreach_sub_(params, momenta)


def _mkor_states(p: Tensor, recipe: Recipe) -> Tensors:
    momentum = _moments(p, recipe, 1)
    if p.ndim < 2:
        return momentum
    stack, (rows, columns) = p.shape[:-2], p.shape[-2:]
    factors = (p.new_zeros(*stack, n, n, dtype=torch.bfloat16) for n in (rows, columns))
    return [*momentum, *factors]


def _mkor(params: Tensors, gradients: Tensors, states: States) -> None:
    """Mozaffari et al., 2306.01685, algorithm 1: the gradient between both factors, one after another."""
    for p, gradient, state in zip(params, gradients, states, strict=True):
        p.sub_(gradient * RATE)
        state[0].lerp_(gradient, 1 - LOW)


def _adafactor_states(p: Tensor, recipe: Recipe) -> Tensors:
    kept = [p] if p.ndim < 2 else [p[..., :1], p[..., :1, :]]
    return [torch.zeros_like(part, dtype=STORED_TYPES[recipe.moment_bytes[0]]) for part in kept]


def _adafactor(params: Tensors, gradients: Tensors, states: States) -> None:
    """Shazeer and Stern, 1804.04235, algorithm 4."""
    estimates = [state[0] * state[1] if len(state) == 2 else state[0].clone() for state in states]
    torch._foreach_sqrt_(estimates)
    torch._foreach_div_(estimates, gradients)
    torch._foreach_sub_(params, estimates)


def _apollo_states(p: Tensor, recipe: Recipe) -> Tensors:
    low, high = sorted(p.shape[-2:]) if p.ndim > 1 else (1, p.numel())
    dtype = STORED_TYPES[recipe.moment_bytes[0]]
    if low <= recipe.optimizer_rank:
        return [torch.zeros_like(p, dtype=dtype) for _ in range(2)]
    stack = p.numel() // (low * high)
    return [
        *(p.new_zeros(stack, recipe.optimizer_rank, high, dtype=dtype) for _ in range(2)),
        p.new_zeros(stack, 2, dtype=dtype),
    ]


def _apollo(params: Tensors, gradients: Tensors, states: States) -> None:
    """Zhu et al., 2412.05270, algorithm 1: the gradient, scaled by what the projected update makes of its columns."""
    for p, gradient in zip(params, gradients, strict=True):
        p.sub_(gradient * RATE)


def _eight_bit_states(p: Tensor, recipe: Recipe) -> Tensors:
    if p.numel() < SMALLEST_QUANTISED:
        return [torch.zeros_like(p, dtype=torch.float32) for _ in range(2)]
    blocks = ceil(p.numel() / QUANTISED_BLOCK)
    return [
        *(torch.zeros_like(p, dtype=torch.uint8) for _ in range(2)),
        *(p.new_zeros(blocks, dtype=torch.float32) for _ in range(2)),
    ]


def _in_place(params: Tensors, gradients: Tensors, states: States) -> None:
    """One kernel, which needs no tensors of its own."""


Make = Callable[[Tensor, Recipe], Tensors]
Update = Callable[[Tensors, Tensors, States], None]
OPTIMIZERS: dict[str, tuple[Make, Update]] = {
    "adamw": (partial(_moments, count=2), _adamw),
    "adamw-8bit": (_eight_bit_states, _in_place),
    "lamb": (partial(_moments, count=2), _lamb),
    "lars": (partial(_moments, count=1), _lars),
    "lion": (partial(_moments, count=1), _lion),
    "mkor": (_mkor_states, _mkor),
    "adafactor": (_adafactor_states, _adafactor),
    "apollo": (_apollo_states, _apollo),
    "sgd": (partial(_moments, count=0), _in_place),
    "sgd-momentum": (partial(_moments, count=1), _in_place),
}
