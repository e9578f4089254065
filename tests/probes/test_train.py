"""Training against plain PyTorch, against itself in other arrangements, and through its failures."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from scalecli.data.corpus import Corpus, Domain
from scalecli.data.schema import COLUMNS
from scalecli.errors import DataError, ProbeError
from scalecli.probes.batches import Batches, held_out_sequences
from scalecli.probes.config import Conduct, Evaluation, Optimizer, ProbeConfig
from scalecli.probes.decoder import Decoder, initialise
from scalecli.probes.parametrization import Multipliers
from scalecli.probes.schedule import Schedule
from scalecli.probes.train import StepReport, train, train_together
from scalecli.probes.train.trainer import Trainer

CPU = torch.device("cpu")


def result(config: ProbeConfig, corpus: Corpus, **options: object) -> dict:
    *_, last = train(config, corpus=corpus, device="cpu", **options)  # type: ignore[arg-type]
    assert last["kind"] == "result"
    return last


def test_a_run_learns_and_fills_the_canonical_columns(config: ProbeConfig, corpus: Corpus) -> None:
    row = result(config, corpus)
    assert row["status"] == "ok"
    # The chain's entropy is about 0.9 nats; guessing costs log 16 = 2.77.
    assert 0.8 < row["loss"] < 2.0
    assert 0 < row["loss_std"] < 0.2
    assert row["params"] == config.shape.params
    assert row["tokens"] == config.steps * config.batch_tokens
    assert row["flops"] == 6 * row["params"] * row["tokens"]
    assert row["loss_bits_per_byte"] == pytest.approx(row["loss"] / math.log(2))
    for name, value in row.items():
        if name in COLUMNS and value is not None and COLUMNS[name].kind == "number":
            assert not COLUMNS[name].problem(float(value)), name
    assert json.loads(json.dumps(row, allow_nan=False)) == row


def test_the_same_seed_gives_the_same_run(config: ProbeConfig, corpus: Corpus) -> None:
    first, second, other = (result(replace(config, seed=seed), corpus)["loss"] for seed in (0, 0, 1))
    assert first == second
    assert first != other


def plain_losses(
    config: ProbeConfig, corpus: Corpus, make: Callable[[list], list[torch.optim.Optimizer]]
) -> list[float]:
    """A loop as one writes it by hand: separate leaf weights, torch's clipping, torch's optimizer."""
    multipliers = Multipliers.of(config.shape, "standard", config.base_width)
    model = Decoder(config.shape, multipliers, length=config.sequence_length)
    initialise(model, [config.seed])
    optimizers = make(list(model.named_parameters()))
    rng = np.random.default_rng([config.seed, 0])
    length = config.sequence_length
    order = rng.permutation((len(corpus.train) - 1) // length)
    losses = []
    for step in range(config.steps):
        rows = order[step * config.batch_sequences : (step + 1) * config.batch_sequences]
        batch = torch.tensor(
            np.stack([corpus.train[r * length : r * length + length + 1] for r in rows])
        ).long()
        loss = F.cross_entropy(model(batch[None, :, :-1])[0], batch[:, 1:].flatten())
        for optimizer in optimizers:
            optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), config.grad_clip)
        for optimizer in optimizers:
            for group in optimizer.param_groups:
                group["lr"] = config.learning_rate * config.schedule.factor(step, config.steps)
            optimizer.step()
        losses.append(loss.item())
    return losses


def trainer_losses(config: ProbeConfig, corpus: Corpus) -> list[float]:
    trainer = Trainer([config], corpus, device=CPU)
    return [
        float(trainer.advance(config.schedule.factor(step, config.steps))) for step in range(config.steps)
    ]


def test_steps_equal_plain_pytorch_with_adamw(config: ProbeConfig, corpus: Corpus) -> None:
    config = replace(config, steps=20, grad_clip=0.5)

    def make(named: list) -> list[torch.optim.Optimizer]:
        groups = [
            {"params": [p for _, p in named if p.ndim == 3], "weight_decay": 0.1},
            {"params": [p for _, p in named if p.ndim == 2], "weight_decay": 0.0},
        ]
        return [torch.optim.AdamW(groups, betas=(0.9, 0.95), eps=1e-8)]

    assert trainer_losses(config, corpus) == pytest.approx(plain_losses(config, corpus, make), rel=1e-5)


def test_steps_equal_plain_pytorch_with_sgd(config: ProbeConfig, corpus: Corpus) -> None:
    config = replace(config, steps=20, learning_rate=0.3, optimizer=Optimizer(name="sgd", weight_decay=0.0))

    def make(named: list) -> list[torch.optim.Optimizer]:
        return [torch.optim.SGD([p for _, p in named], momentum=0.9)]

    assert trainer_losses(config, corpus) == pytest.approx(plain_losses(config, corpus, make), rel=1e-5)


def test_muon_moves_each_matrix_as_torch_does(config: ProbeConfig, corpus: Corpus) -> None:
    """One step from the same gradients: torch.optim.Muon on separate matrices, AdamW on the rest."""
    config = replace(config, optimizer=Optimizer(name="muon"), grad_clip=0.0)
    trainer = Trainer([config], corpus, device=CPU)
    torch.nn.init.normal_(trainer.model.head, std=0.1)
    before = {name: value[0].clone() for name, value in trainer.model.state_dict().items()}
    trainer.advance(1.0)
    for name, parameter in trainer.model.named_parameters():
        hidden = parameter.ndim == 3 and name not in ("embedding", "head")
        sections = {"attention.qkv": 3, "feed_forward.up": 2}
        parts = next((count for end, count in sections.items() if name.endswith(end)), 1)
        leaves = [torch.nn.Parameter(part.clone()) for part in before[name].chunk(parts)]
        assert parameter.grad is not None
        for leaf, grad in zip(leaves, parameter.grad[0].chunk(parts), strict=True):
            leaf.grad = grad.clone()
        decay = 0.1 if parameter.ndim == 3 else 0.0
        if hidden:
            reference: torch.optim.Optimizer = torch.optim.Muon(
                leaves,
                lr=config.learning_rate,
                weight_decay=decay,
                momentum=0.9,
                adjust_lr_fn="match_rms_adamw",
            )
        else:
            reference = torch.optim.AdamW(
                leaves, lr=config.learning_rate, weight_decay=decay, betas=(0.9, 0.95)
            )
        reference.step()
        torch.testing.assert_close(torch.cat(list(leaves)), parameter[0], rtol=1e-5, atol=1e-7)


RATES = {"sgd": 0.5, "muon": 0.02, "adafactor": 0.5, "lamb": 0.03, "lars": 1.0, "lion": 2e-3}
LIBRARY = ("lamb", "lars", "lion")


@pytest.mark.parametrize("optimizer", sorted(RATES))
def test_every_optimizer_trains(config: ProbeConfig, corpus: Corpus, optimizer: str) -> None:
    if optimizer in LIBRARY:
        pytest.importorskip("pytorch_optimizer")
    rate = RATES[optimizer]
    settings = Optimizer(name=optimizer, weight_decay=0.0)  # type: ignore[arg-type]
    assert result(replace(config, optimizer=settings, learning_rate=rate), corpus)["loss"] < 2.4


def test_accumulation_equals_one_big_batch(config: ProbeConfig, corpus: Corpus) -> None:
    config = replace(config, steps=20)
    whole = trainer_losses(config, corpus)
    for most in (2, 3):  # of 8 sequences: parts of 2 either way
        parts = replace(config, conduct=Conduct(micro_batch_sequences=most))
        assert trainer_losses(parts, corpus) == pytest.approx(whole, rel=1e-5)


def published_update(name: str, weight: torch.Tensor, grads: list[torch.Tensor], rate: float) -> torch.Tensor:
    """The papers' own update of one matrix: beta1 0.9, beta2 0.95, decay 0.1."""
    w, decay = weight.double().clone(), 0.1
    m, v = torch.zeros_like(w), torch.zeros_like(w)
    for grad in (grad.double() for grad in grads):
        if name == "lion":
            step = (0.9 * m + 0.1 * grad).sign() + decay * w
            m = 0.95 * m + 0.05 * grad
        elif name == "lamb":  # version 3 of the paper: without bias correction
            m, v = 0.9 * m + 0.1 * grad, 0.95 * v + 0.05 * grad**2
            update = m / (v.sqrt() + 1e-8) + decay * w
            step = w.norm().clamp(max=10.0) / update.norm() * update
        else:
            trust = 0.001 * w.norm() / (grad.norm() + decay * w.norm())
            m = 0.9 * m + trust * (grad + decay * w)
            step = m
        w = w - rate * step
    return w


@pytest.mark.parametrize("optimizer", LIBRARY)
def test_library_optimizers_move_each_matrix_as_their_papers_say(
    config: ProbeConfig, corpus: Corpus, optimizer: str
) -> None:
    pytest.importorskip("pytorch_optimizer")
    settings = Optimizer(name=optimizer)  # type: ignore[arg-type]
    trainer = Trainer([replace(config, optimizer=settings, grad_clip=0.0)], corpus, device=CPU)
    query = next(weight for weight in trainer.subject.weights(0) if weight.name.endswith("attention.qkv"))
    before, grads = query.value.clone(), []
    for _ in range(4):
        trainer.weights.zero_gradients()
        trainer.backward(trainer.batch(), share=1.0)
        grads.append(query.grad.clone())
        trainer.update(1.0)
    expected = published_update(optimizer, before, grads, config.learning_rate)
    torch.testing.assert_close(query.value.double(), expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
    ("schedule", "optimizer"),
    [("cooldown", "adamw"), ("wsd", "adamw"), ("constant", "adamw"), ("cooldown", "muon"), ("wsd", "lion")],
)
def test_branched_runs_equal_uninterrupted_ones(
    config: ProbeConfig, corpus: Corpus, schedule: str, optimizer: str
) -> None:
    if optimizer in LIBRARY:
        pytest.importorskip("pytorch_optimizer")
    shape = Schedule(name=schedule, warmup_steps=5, decay_fraction=0.3)  # type: ignore[arg-type]
    base = replace(config, schedule=shape, optimizer=Optimizer(name=optimizer))  # type: ignore[arg-type]
    runs = [replace(base, steps=steps) for steps in (15, 20, 30)]
    branched = {row["steps"]: row["loss"] for row in train_together(runs, corpus=corpus, device="cpu")}
    assert branched == {run.steps: result(run, corpus)["loss"] for run in runs}


def test_stacked_runs_equal_single_ones(config: ProbeConfig, corpus: Corpus) -> None:
    short = replace(config, steps=25)
    runs = [replace(short, seed=seed, learning_rate=rate) for seed in (0, 1) for rate in (3e-3, 1e-2)]
    stacked = {row["run_id"]: row["loss"] for row in train_together(runs, corpus=corpus, device="cpu")}
    assert stacked == pytest.approx({run.run_id: result(run, corpus)["loss"] for run in runs}, rel=1e-4)


def test_a_diverged_copy_leaves_its_neighbours_alone(config: ProbeConfig, corpus: Corpus) -> None:
    wild, tame = replace(config, learning_rate=1e4), config
    rows = {row["run_id"]: row for row in train_together([wild, tame], corpus=corpus, device="cpu")}
    assert rows[wild.run_id]["status"] == "diverged"
    assert rows[tame.run_id]["status"] == "ok"
    assert rows[tame.run_id]["loss"] == pytest.approx(result(tame, corpus)["loss"], rel=1e-4)


def test_what_happens_in_the_tail_of_one_branch_is_not_held_against_the_next(
    config: ProbeConfig, corpus: Corpus, monkeypatch: pytest.MonkeyPatch
) -> None:
    short, long = (replace(config, steps=steps) for steps in (20, 40))
    advance = Trainer.advance

    def spiking(trainer: Trainer, rate_factor: float) -> torch.Tensor:
        losses = advance(trainer, rate_factor)
        return losses + torch.inf if trainer.step == 20 and rate_factor < 1 else losses

    monkeypatch.setattr(Trainer, "advance", spiking)
    rows = list(train_together([short, long], corpus=corpus, device="cpu"))
    assert [row["status"] for row in rows] == ["diverged", "ok"]


def test_divergence_is_a_status_with_a_reason(config: ProbeConfig, corpus: Corpus) -> None:
    sgd = Optimizer(name="sgd", weight_decay=0.0)
    row = result(replace(config, optimizer=sgd, learning_rate=1e20, grad_clip=0.0), corpus)
    assert row["status"] == "diverged"
    assert row["loss"] is None
    assert "nan" in row["status_reason"]
    json.dumps(row, allow_nan=False)


def test_runs_that_cannot_train_together_are_refused(config: ProbeConfig, corpus: Corpus) -> None:
    with pytest.raises(ProbeError, match="share"):
        list(train_together([config, replace(config, batch_sequences=4)], corpus=corpus, device="cpu"))
    runs = [config, replace(config, seed=1), replace(config, seed=2, steps=30)]
    with pytest.raises(ProbeError, match="share"):
        list(train_together(runs, corpus=corpus, device="cpu"))


def test_readings_along_the_way_do_not_change_the_run(config: ProbeConfig, corpus: Corpus) -> None:
    read = replace(config, evaluation=Evaluation(sequences=32, every=15))
    *readings, last = train(read, corpus=corpus, device="cpu")
    assert [row["step"] for row in readings] == [15, 30, 45]
    assert [row["kind"] for row in readings] == ["step"] * 3
    assert last["loss"] == result(config, corpus)["loss"]


def test_progress_is_reported_to_the_end(config: ProbeConfig, corpus: Corpus) -> None:
    reports: list[StepReport] = []
    result(config, corpus, on_step=reports.append)
    assert [report.step for report in reports] == [16, 32, 48, 60]
    assert all(report.steps == 60 and math.isfinite(report.loss) for report in reports)


def test_another_corpus_is_refused(config: ProbeConfig, corpus: Corpus) -> None:
    with pytest.raises(DataError, match="SHA-256"):
        result(replace(config, data_sha256="1" * 64), corpus)
    with pytest.raises(DataError, match="vocabulary of 8"):
        result(replace(config, shape=replace(config.shape, vocab=8)), corpus)
    with pytest.raises(DataError, match="validation set"):
        result(replace(config, evaluation=Evaluation(sequences=4000)), corpus)


def test_a_device_that_is_not_there_is_refused(config: ProbeConfig, corpus: Corpus) -> None:
    with pytest.raises(ProbeError, match="no device"):
        list(train(config, corpus=corpus, device="abacus"))


def test_batches_depend_on_seed_and_step_alone() -> None:
    tokens = np.arange(1000, dtype=np.int32)
    batches = Batches(tokens, sequence_length=10, batch_sequences=4, seed=7, device=CPU)
    again = Batches(tokens, sequence_length=10, batch_sequences=4, seed=7, device=CPU)
    assert [batches.at(step).tolist() for step in (0, 40, 3)] == [
        again.at(step).tolist() for step in (0, 40, 3)
    ]


def test_an_epoch_sees_every_sequence_once() -> None:
    tokens = np.arange(1001, dtype=np.int32)
    batches = Batches(tokens, sequence_length=10, batch_sequences=4, seed=0, device=CPU)
    epochs = [torch.cat([batches.at(25 * epoch + step) for step in range(25)]) for epoch in range(2)]
    for epoch in epochs:
        assert sorted(epoch[:, 0].tolist()) == list(range(0, 1000, 10))
        assert (epoch[:, 1:] == epoch[:, :-1] + 1).all()
    assert epochs[0].tolist() != epochs[1].tolist()


def test_the_held_out_set_is_fixed_and_spread() -> None:
    tokens = np.arange(1001, dtype=np.int32)
    chosen = held_out_sequences(tokens, sequence_length=10, sequences=5)
    assert chosen[0, 0] == 0
    assert chosen[-1, -1] == 1000
    assert chosen.shape == (5, 11)


def test_repetition_is_counted(config: ProbeConfig, corpus: Corpus) -> None:
    row = result(replace(config, unique_tokens=1000, steps=30), corpus)
    assert row["unique_tokens"] == 992
    assert row["tokens"] == 30 * 128
    assert result(replace(config, steps=3), corpus)["unique_tokens"] == 3 * 128


def test_the_standard_error_is_over_sequences(config: ProbeConfig, corpus: Corpus) -> None:
    trainer = Trainer([config], corpus, device=CPU)
    trainer.advance(1.0)
    with torch.no_grad():
        losses = torch.cat([trainer.losses(part) for part in trainer.subject.held_out()], dim=1)[0]
    (read,) = trainer.evaluate()
    assert read.mean == pytest.approx(losses.mean().item(), rel=1e-5)
    assert read.std_error == pytest.approx(losses.std().item() / math.sqrt(32), rel=1e-4)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_gpu_gives_the_loss_of_the_cpu(config: ProbeConfig, corpus: Corpus, dtype: str) -> None:
    config = replace(config, dtype=dtype)  # type: ignore[arg-type]
    *_, row = train(config, corpus=corpus, device="cuda")
    assert row["loss"] == pytest.approx(result(config, corpus)["loss"], abs=0.05)
    assert row["peak_memory_bytes"] > 0  # type: ignore[operator]


def test_mixtures_train_in_every_arrangement(config: ProbeConfig, corpus: Corpus) -> None:
    shape = replace(config.shape, num_experts=4, experts_per_token=2)
    mixture = replace(config, shape=shape, steps=30)
    whole = trainer_losses(mixture, corpus)
    assert whole[-1] < whole[0] - 0.3
    parts = replace(mixture, conduct=Conduct(micro_batch_sequences=2))
    assert trainer_losses(parts, corpus) == pytest.approx(whole, rel=1e-4)
    lengths = [replace(mixture, steps=steps) for steps in (15, 30)]
    branched = {row["steps"]: row["loss"] for row in train_together(lengths, corpus=corpus, device="cpu")}
    assert branched == {run.steps: result(run, corpus)["loss"] for run in lengths}
    copies = [replace(mixture, seed=seed) for seed in (0, 1)]
    stacked = {row["run_id"]: row["loss"] for row in train_together(copies, corpus=corpus, device="cpu")}
    assert stacked == pytest.approx({run.run_id: result(run, corpus)["loss"] for run in copies}, rel=1e-3)


def test_a_mixture_tells_the_loss_of_every_domain(config: ProbeConfig, corpus: Corpus) -> None:
    """The chain, and a domain of one token for ever, which is learned at once."""
    constant = np.full(10_000, 3, dtype=np.uint8)
    mixed = replace(
        corpus,
        train=np.concatenate([corpus.train[:30_000], constant]),
        validation=np.concatenate([corpus.validation, constant[:2_000]]),
        domains=(
            Domain("chain", 0.75, 30_000, len(corpus.validation)),
            Domain("constant", 0.25, 10_000, 2_000),
        ),
    )
    row = result(replace(config, evaluation=Evaluation(sequences=31)), mixed)
    assert (row["mix_chain"], row["mix_constant"]) == (0.75, 0.25)
    assert row["loss"] == pytest.approx(0.75 * row["metric_loss_chain"] + 0.25 * row["metric_loss_constant"])
    assert row["metric_loss_constant"] < 0.2 < row["metric_loss_chain"]
    some = replace(config, unique_tokens=4_000)
    batch = Trainer([some], mixed, device=CPU).subject.batch(0)
    assert {int(value) for value in batch.unique()} > {3}
    assert result(some, mixed)["unique_tokens"] == 3_984
