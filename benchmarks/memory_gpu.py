"""Peak memory of real training steps on a GPU: the closed forms against what the allocator gave away, and against what
it held, once calibrated.

    python benchmarks/memory_gpu.py [--device cuda] [--seconds 230] [--workers 3] [--tiny]

The three steps of `scalecli memory --calibrate` come first: from them follow the bytes that no count of tensors sees
(cuBLAS's workspace, rounding and fragmentation), which are added to the prediction of what is held. Then every
configuration trains for three steps in a process of its own, several at a time, those that need most of the device
alone and last. Each prints one JSON line as soon as it is measured; a failure is a line too. The last line sums up.
`--tiny` runs a fraction of every size, for trying the script without a GPU.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass, replace

from scalecli.accounting.memory import Recipe, estimate_memory
from scalecli.accounting.memory.overhead import Comparison, Overhead, fit_overhead
from scalecli.accounting.shape import ModelShape
from scalecli.errors import ScalecliError
from scalecli.probes.memory.calibrate import compare_locally
from scalecli.probes.memory.measure import measure_training

GIB = 2**30
ALLOCATED_GOAL, RESERVED_GOAL = 0.02, 0.05
LONGEST_SECONDS = 90.0
SMALL = ModelShape(layers=12, width=768, ffn=2048, heads=12, kv_heads=12, vocab=50304)
MIDDLE = ModelShape(layers=24, width=1024, ffn=2816, heads=16, kv_heads=16, vocab=50304)
MEDIUM = ModelShape(layers=24, width=2048, ffn=5504, heads=16, kv_heads=16, vocab=50304)
LARGE = ModelShape(layers=32, width=4096, ffn=11008, heads=32, kv_heads=32, vocab=32000)
EXPERTS = replace(MIDDLE, layers=12, num_experts=8, experts_per_token=2)
FUSED = Recipe(optimizer_impl="fused")
AUTOCAST = replace(FUSED, precision="bf16-autocast")


@dataclass(frozen=True)
class Case:
    """One configuration."""

    name: str
    shape: ModelShape
    recipe: Recipe
    batch: int
    length: int = 2048
    alone: bool = False


CASES = (
    Case("125M, fused AdamW", SMALL, FUSED, 16, 1024),
    Case("125M, chunked loss", SMALL, replace(FUSED, logits="chunked"), 16, 1024),
    Case("125M, autocast, foreach", SMALL, Recipe(precision="bf16-autocast"), 8, 1024),
    Case("125M, fp32, LAMB", SMALL, Recipe(precision="fp32", optimizer="lamb"), 4, 1024),
    Case("350M, LayerNorm, GELU, dropout", replace(MIDDLE, norm="layer", activation="gelu", ffn=4096),
         replace(FUSED, dropout=0.1), 8, 1024),
    Case("350M, tied, QK norm, Adafactor", replace(MIDDLE, tied=True, qk_norm=True), Recipe(optimizer="adafactor"), 4),
    Case("350M, master weights, accumulation", MIDDLE, Recipe(master_weights=True, accumulation=2), 4),
    Case("350M, 8-bit AdamW, decomposed norm", MIDDLE, Recipe(optimizer="adamw-8bit", norm="decomposed"), 4),
    Case("8 experts, top 2", EXPERTS, FUSED, 4),
    Case("8 experts, autocast, full recompute", EXPERTS, replace(AUTOCAST, recompute="full"), 4),
    Case("1.3B, AdamW loop", MEDIUM, Recipe(optimizer_impl="loop"), 1),
    Case("1.3B, foreach, full recompute", MEDIUM, Recipe(recompute="full"), 4),
    Case("1.3B, selective recompute", MEDIUM, replace(FUSED, recompute="selective"), 4),
    Case("1.3B, GQA", replace(MEDIUM, kv_heads=4), FUSED, 2),
    Case("1.3B, Muon", MEDIUM, Recipe(optimizer="muon"), 1),
    Case("1.3B, SGD with momentum, chunked loss", MEDIUM, Recipe(optimizer="sgd-momentum", logits="chunked"), 2),
    Case("7B, LoRA", LARGE, replace(FUSED, lora_rank=16), 1, alone=True),
    Case("7B, fused AdamW", LARGE, FUSED, 1, alone=True),
    Case("7B, foreach AdamW", LARGE, Recipe(), 1, alone=True),
)  # fmt: skip


def fragmentation(found: Sequence[Comparison]) -> Overhead:
    """The line through what the allocator held beyond the tensors."""
    return fit_overhead([replace(each, used_bytes=each.reserved_bytes) for each in found])


def run(device: str, seconds: float, workers: int, cases: Sequence[Case]) -> Iterator[dict[str, object]]:
    """One line for the calibration, one for each case."""
    deadline = time.monotonic() + seconds
    comparisons = list(compare_locally(device, Recipe()))
    beyond = fragmentation(comparisons)
    yield {
        "calibration": [
            {
                "predicted_gib": round(each.predicted_bytes / GIB, 4),
                "allocated_gib": round(each.allocated_bytes / GIB, 4),
                "reserved_gib": round(each.reserved_bytes / GIB, 4),
                "used_gib": round(each.used_bytes / GIB, 4),
            }
            for each in comparisons
        ],
        "device": comparisons[0].device,
        "torch": comparisons[0].version,
    }
    for together, some in ((workers, [c for c in cases if not c.alone]), (1, [c for c in cases if c.alone])):
        with ThreadPoolExecutor(together) as pool:
            for done in as_completed(
                [pool.submit(measured, case, device, beyond, deadline) for case in some]
            ):
                yield done.result()


def measured(case: Case, device: str, beyond: Overhead, deadline: float) -> dict[str, object]:
    """Prediction and measurement of one case, or why there is none."""
    begin = time.monotonic()
    left = min(LONGEST_SECONDS, deadline - begin)
    if left <= 0:
        return {"case": case.name, "failed": "no time left"}
    size = {"micro_batch_sequences": case.batch, "sequence_length": case.length}
    counted = estimate_memory(case.shape, case.recipe, **size)
    predicted = counted.peak_bytes
    try:
        found = measure_training(case.shape, case.recipe, device=device, timeout_seconds=left, **size)
    except ScalecliError as error:
        return {"case": case.name, "predicted_gib": round(predicted / GIB, 3), "failed": str(error)}
    reserved = predicted + beyond.bytes(predicted)
    return {
        "case": case.name,
        "batch": [case.batch, case.length],
        "moment": counted.moment,
        "predicted_gib": round(predicted / GIB, 3),
        "allocated_gib": round(found.allocated_bytes / GIB, 3),
        "reserved_gib": round(found.reserved_bytes / GIB, 3),
        "allocated_error": round(predicted / found.allocated_bytes - 1, 5),
        "reserved_error": round(reserved / found.reserved_bytes - 1, 5),
        "seconds": round(time.monotonic() - begin, 1),
    }


def summed_up(lines: Sequence[dict[str, object]]) -> dict[str, object]:
    """How many configurations reach the goals, and the farthest."""
    done = [line for line in lines if "allocated_error" in line]
    errors = {
        name: [abs(float(str(line[name]))) for line in done] for name in ("allocated_error", "reserved_error")
    }
    goals = {"allocated_error": ALLOCATED_GOAL, "reserved_error": RESERVED_GOAL}
    return {
        "configurations": len(done),
        "failed": sum("failed" in line for line in lines),
        **{f"worst_{name}": max(found, default=None) for name, found in errors.items()},
        **{f"within_{goals[name]:.0%}": sum(error <= goals[name] for error in found)
           for name, found in errors.items()},
    }  # fmt: skip


def tiny(case: Case) -> Case:
    """The same in little."""
    heads = 4
    kv_heads = heads if case.shape.kv_heads == case.shape.heads else 2
    shape = replace(case.shape, layers=2, width=128, ffn=256, heads=heads, kv_heads=kv_heads, vocab=2048)
    return replace(case, shape=shape, batch=1, length=64)


def main() -> None:
    """Print the lines as they come."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--seconds", type=float, default=230.0)
    parser.add_argument("--workers", type=int, default=3)
    parser.add_argument("--tiny", action="store_true")
    options = parser.parse_args()
    cases = [tiny(case) for case in CASES] if options.tiny else CASES
    lines = []
    for line in run(options.device, options.seconds, options.workers, cases):
        lines.append(line)
        print(json.dumps(line, ensure_ascii=False), flush=True)
    print(json.dumps(summed_up(lines)), flush=True)


if __name__ == "__main__":
    main()
