"""Memory: closed forms against the tracker over the full matrix, against peers, and against real CPU training.

    python benchmarks/memory.py matrix      closed form against tracker for every shape, batch, recipe
    python benchmarks/memory.py fuzz        the same for 300 random small shapes, recipes and layouts
    python benchmarks/memory.py peers       accelerate's and DeepSpeed's estimators and ours beside the tracker
    python benchmarks/memory.py resident    the tracker against resident memory of real training on this CPU
    python benchmarks/memory.py speed       tracing 7B; the layout search for 70B on 512 devices in a fresh process

`peers` needs accelerate and deepspeed importable (they are no dependencies of scalecli); a missing one is left out.
"""

from __future__ import annotations

import argparse
import importlib
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import product
from random import Random

from memory_cases import random_case

from scalecli.accounting.memory import Recipe, estimate_memory
from scalecli.accounting.shape import ModelShape
from scalecli.probes.memory.measure import measure_training
from scalecli.probes.memory.trace import trace_training

GIB = 2**30
SMALL = ModelShape(layers=12, width=768, ffn=2048, heads=12, kv_heads=12, vocab=50304)
MEDIUM = ModelShape(layers=24, width=2048, ffn=5504, heads=16, kv_heads=16, vocab=50304)
LARGE = ModelShape(layers=32, width=4096, ffn=11008, heads=32, kv_heads=32, vocab=32000)
SHAPES = {"125M": SMALL, "1.3B": MEDIUM, "7B": LARGE}
LENGTH = 2048
FUZZ = 300
VARIANTS = {
    "gqa": replace(LARGE, kv_heads=8),
    "gelu": replace(LARGE, activation="gelu", ffn=16384),
    "experts": replace(MEDIUM, num_experts=8, experts_per_token=2),
}
OPTIMIZERS = {
    **{f"adamw {impl}": Recipe(optimizer_impl=impl) for impl in ("loop", "foreach", "fused")},  # type: ignore[arg-type]
    "muon": Recipe(optimizer="muon"),
    "sgd": Recipe(optimizer="sgd"),
}
SEARCH = (
    "import sys; from scalecli.accounting.memory import Recipe; from scalecli.accounting.shape import ModelShape;"
    "from scalecli.data.catalogue import accelerator; from scalecli.plan.memory import plan_memory;"
    "shape = ModelShape(layers=80, width=8192, ffn=28672, heads=64, kv_heads=8, vocab=128256);"
    "plan = plan_memory(shape, sequence_length=4096, batch_sequences=1024, accelerator=accelerator('h100-80g'),"
    " count=512, search=True); assert 'torch' not in sys.modules; print(plan.chosen.summary())"
)


def cases() -> Iterator[tuple[str, ModelShape, Recipe, int]]:
    """Every cell of the matrix."""
    for (name, shape), batch, recompute in product(SHAPES.items(), (1, 4), ("none", "selective", "full")):
        for label, recipe in OPTIMIZERS.items():
            changed = replace(recipe, recompute=recompute)  # type: ignore[arg-type]
            yield f"{name} b{batch} {recompute} {label}", shape, changed, batch
        loop = Recipe(optimizer_impl="loop", recompute=recompute)  # type: ignore[arg-type]
        yield f"{name} b{batch} {recompute} autocast", shape, replace(loop, precision="bf16-autocast"), batch
        yield f"{name} b{batch} {recompute} chunked loss", shape, replace(loop, logits="chunked"), batch
    for (name, shape), batch, recompute in product(VARIANTS.items(), (1, 4), ("none", "selective", "full")):
        for precision in ("bf16", "bf16-autocast"):
            recipe = Recipe(optimizer_impl="fused", recompute=recompute, precision=precision)  # type: ignore[arg-type]
            yield f"{name} b{batch} {recompute} {precision}", shape, recipe, batch
    for batch, recompute in product((1, 4), ("none", "selective", "full")):
        recipe = Recipe(optimizer_impl="fused", recompute=recompute, lora_rank=16)  # type: ignore[arg-type]
        yield f"7B lora b{batch} {recompute}", LARGE, recipe, batch


def matrix() -> None:
    """Worst relative error of peak, of saved bytes and of every moment."""
    worst = {"peak": (0.0, ""), "saved": (0.0, ""), "backward": (0.0, ""), "step": (0.0, "")}
    count = moments = 0
    for name, shape, recipe, batch in cases():
        traced = trace_training(shape, recipe, micro_batch_sequences=batch, sequence_length=LENGTH)
        counted = estimate_memory(shape, recipe, micro_batch_sequences=batch, sequence_length=LENGTH)
        errors = {
            "peak": counted.peak_bytes / traced.peak_bytes - 1,
            "saved": counted.saved_for_backward_bytes / traced.saved_for_backward_bytes - 1,
            "backward": counted.moments["backward"] / traced.peaks["backward"] - 1,
            "step": counted.moments["step"] / traced.peaks["step"] - 1,
        }
        for key, error in errors.items():
            worst[key] = max(worst[key], (abs(error), name))
        count += 1
        moments += counted.moment == traced.moment
    print(f"{count} configurations; the moment of the peak agrees in {moments}")
    for key, (error, name) in worst.items():
        print(f"worst error of {key}: {error:.2e} ({name})")


def fuzz() -> None:
    """Random shapes, recipes and layouts, of which one device is traced; the farthest are shown."""
    random = Random(7)
    errors = []
    for _ in range(FUZZ):
        case = random_case(random)
        counted = estimate_memory(case.shape, case.recipe, case.layout, **case.size)
        traced = trace_training(case.shape, case.recipe, case.layout, stage=counted.stage, **case.size)
        worst = max(abs(counted.moments[moment] / peak - 1) for moment, peak in traced.peaks.items())  # type: ignore[index]
        errors.append((worst, str(case)))
    errors.sort(reverse=True)
    within = sum(error < 1e-3 for error, _ in errors)
    print(f"{within} of {FUZZ} within 1e-3 in every moment; the farthest:")
    for error, case_text in errors[: FUZZ - within or 1]:
        print(f"{error:.2e} {case_text}")


def peers() -> None:
    """Model, gradients and optimizer of a 7B model on one device, and activations, by each tool [GiB]."""
    size = {"micro_batch_sequences": 1, "sequence_length": LENGTH}
    for precision in ("bf16", "bf16-autocast", "fp32"):
        recipe = Recipe(precision=precision, optimizer_impl="loop")  # type: ignore[arg-type]
        traced, ours = trace_training(LARGE, recipe, **size), estimate_memory(LARGE, recipe, **size)
        print(
            f"7B, AdamW (loop), {precision}: tracker {traced.peak_bytes / GIB:.2f} at {traced.moment}",
            end="; ",
        )
        print(f"ours {ours.peak_bytes / GIB:.2f} at {ours.moment}", end="; ")
        print(
            f"saved {traced.saved_for_backward_bytes / GIB:.2f} and {ours.saved_for_backward_bytes / GIB:.2f}"
        )
    _guarded("accelerate", _accelerate)
    _guarded("deepspeed", _deepspeed)


def _guarded(package: str, show: Callable[[], None]) -> None:
    try:
        importlib.import_module(package)
    except ImportError as error:
        print(f"{package}: not installed ({error})")
        return
    show()


def _accelerate() -> None:
    """`accelerate estimate-memory` prints the largest of these parts as the training memory."""
    from accelerate.commands.estimate import estimate_training_usage

    for precision in ("float32", "bfloat16"):
        parts = estimate_training_usage(4 * LARGE.params, precision)
        shown = max(parts.values())
        total = sum(size for name, size in parts.items() if name != "step")
        print(
            f"accelerate {precision}: prints {shown / GIB:.2f}, its parts sum to {total / GIB:.2f}, no activations"
        )


def _deepspeed() -> None:
    """Model states; activations are left to the user."""
    from deepspeed.runtime.zero.stage3 import estimate_zero3_model_states_mem_needs as zero3
    from deepspeed.runtime.zero.stage_1_and_2 import estimate_zero2_model_states_mem_needs as zero2

    largest = LARGE.vocab * LARGE.width
    for devices in (1, 8):
        two = zero2(total_params=LARGE.params, num_gpus_per_node=devices, cpu_offload=False)[1]
        three = zero3(
            total_params=LARGE.params, largest_layer_params=largest, num_gpus_per_node=devices,
            cpu_offload=False, cpu_offload_params=False, zero_init=True,
        )[1]  # fmt: skip
        print(
            f"DeepSpeed on {devices} devices: ZeRO-2 {two / GIB:.2f}, ZeRO-3 {three / GIB:.2f}, no activations"
        )


def resident() -> None:
    """Peak of resident memory of three real steps, beyond a small warm-up."""
    small = replace(SMALL, vocab=32000)
    for name, shape, recipe, batch, length in (
        ("125M, AdamW foreach, peak at the step", SMALL, Recipe(precision="fp32"), 1, 64),
        ("125M, SGD, peak at the loss", small, Recipe(precision="fp32", optimizer="sgd"), 2, 512),
        (
            "125M, SGD, full recompute",
            small,
            Recipe(precision="fp32", optimizer="sgd", recompute="full"),
            2,
            512,
        ),
    ):
        size = {"micro_batch_sequences": batch, "sequence_length": length}
        measured = measure_training(shape, recipe, timeout_seconds=1800, **size)
        traced = trace_training(shape, recipe, **size)
        error = traced.peak_bytes / measured.allocated_bytes - 1
        print(
            f"{name}: resident {measured.allocated_bytes / GIB:.3f}, "
            f"traced {traced.peak_bytes / GIB:.3f} GiB ({error:+.2%})"
        )


def speed() -> None:
    """Seconds; the search is a process of its own, interpreter and imports included."""
    begin = time.perf_counter()
    trace_training(LARGE, Recipe(optimizer_impl="loop"), micro_batch_sequences=1, sequence_length=LENGTH)
    print(f"tracing 7B: {time.perf_counter() - begin:.1f} s")
    begin = time.perf_counter()
    done = subprocess.run([sys.executable, "-c", SEARCH], check=True, capture_output=True, text=True)
    print(f"layout search for 70B on 512 devices: {time.perf_counter() - begin:.2f} s\n{done.stdout.strip()}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", choices=("matrix", "fuzz", "peers", "resident", "speed"))
    {"matrix": matrix, "fuzz": fuzz, "peers": peers, "resident": resident, "speed": speed}[
        parser.parse_args().what
    ]()
