"""Models that are not our decoder: a `transformers` configuration, and tasks of the user's own."""

from __future__ import annotations

import json
import shutil
import sys
from dataclasses import asdict, replace
from pathlib import Path

import pytest
import torch
from torch import nn

from scalecli.accounting.memory import Recipe as MemoryRecipe
from scalecli.data.corpus import Corpus, outside_corpus
from scalecli.errors import DataError, ProbeError
from scalecli.probes.config import Conduct, Evaluation, Optimizer, ProbeConfig
from scalecli.probes.coordinates.estimate import verdict
from scalecli.probes.coordinates.run import run as coordinates
from scalecli.probes.estimate import unit_bytes
from scalecli.probes.family import family_of, shape_of_size
from scalecli.probes.foreign import ForeignShape
from scalecli.probes.ladder import Recipe, grid
from scalecli.probes.memory.trace import trace_foreign
from scalecli.probes.noise.estimate import noise_scale
from scalecli.probes.noise.run import NoiseProbe, norms_of
from scalecli.probes.noise.run import run as noise
from scalecli.probes.task import Task
from scalecli.probes.train import train, train_together
from scalecli.probes.train.trainer import Trainer
from scalecli.probes.units import plan_units

CPU = torch.device("cpu")
EXAMPLES = Path(__file__).parents[2] / "examples"
LLAMA = {
    "model_type": "llama", "hidden_size": 256, "intermediate_size": 688, "num_hidden_layers": 4,
    "num_attention_heads": 8, "num_key_value_heads": 4, "vocab_size": 32000, "bos_token_id": 1, "eos_token_id": 2,
}  # fmt: skip
CONFIGURATIONS = {
    "llama": LLAMA,
    "gpt2": {"model_type": "gpt2", "n_embd": 256, "n_layer": 4, "n_head": 8, "n_positions": 64},
    "mixtral": {**LLAMA, "model_type": "mixtral", "num_local_experts": 4, "num_experts_per_tok": 2},
}


@pytest.fixture
def examples(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(EXAMPLES))


def last(config: ProbeConfig, corpus: Corpus) -> dict:
    *_, row = train(config, corpus=corpus, device="cpu")
    return row


def own(name: str, width: int = 32, **changes: object) -> ProbeConfig:
    recipe = Recipe(model=f"own_tasks:{name}", evaluation=Evaluation(sequences=64))
    corpus = outside_corpus(recipe.model)
    shape = recipe.family(corpus).member(width)
    config = recipe.config(shape, corpus, "", tokens=60 * 32, batch_tokens=32, learning_rate=3e-3)
    return replace(config, **changes)  # type: ignore[arg-type]


@pytest.mark.usefixtures("examples")
@pytest.mark.parametrize("name", ["images", "curve"])
def test_a_task_of_ones_own_learns_and_fills_the_columns(name: str) -> None:
    config = own(name)
    row = last(config, outside_corpus(f"own_tasks:{name}"))
    assert row["status"] == "ok"
    trainer = Trainer([config], outside_corpus(""), device=CPU)
    assert row["loss"] < 0.8 * trainer.subject.guessing
    assert row["loss_std"] > 0
    assert row["params"] == sum(p.numel() for p in trainer.model.parameters())
    assert row["tokens"] == 60 * 32
    assert row["dataset"] == f"own_tasks:{name}"
    assert row["bytes_per_token"] is row["unique_tokens"] is row["vocab_size"] is None
    if (
        name == "curve"
    ):  # every weight of a multilayer perceptron is used once an example; inputs need no gradient
        assert 0.7 < row["flops"] / (6 * row["params"] * row["tokens"]) <= 1
    else:  # convolutions use a weight at every position
        assert row["flops"] > 6 * row["params"] * row["tokens"]


@pytest.mark.usefixtures("examples")
def test_steps_of_ones_own_equal_a_plain_loop() -> None:
    config = own("curve", steps=12, grad_clip=0.5)
    import own_tasks  # type: ignore[import-not-found]

    torch.manual_seed(config.seed)
    task = own_tasks.curve(width=32, depth=2, seed=config.seed)
    groups = [
        {"params": [p for p in task.model.parameters() if p.ndim == 2], "weight_decay": 0.1},
        {"params": [p for p in task.model.parameters() if p.ndim == 1], "weight_decay": 0.0},
    ]
    optimizer = torch.optim.AdamW(groups, betas=(0.9, 0.95))
    plain = []
    for step, batch in zip(range(config.steps), task.batches("train", 32, config.seed), strict=False):
        loss = task.losses(task.model, batch).mean()
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(task.model.parameters(), 0.5)
        for group in optimizer.param_groups:
            group["lr"] = config.learning_rate * config.schedule.factor(step, config.steps)
        optimizer.step()
        plain.append(loss.item())
    for most in (0, 8):
        parts = replace(config, conduct=Conduct(micro_batch_sequences=most))
        trainer = Trainer([parts], outside_corpus(""), device=CPU)
        ours = [float(trainer.advance(config.schedule.factor(step, config.steps))) for step in range(12)]
        assert ours == pytest.approx(plain, rel=1e-4)


@pytest.mark.usefixtures("examples")
@pytest.mark.parametrize("optimizer", ["muon", "sgd", "adafactor"])
def test_optimizers_take_weights_of_every_kind(optimizer: str) -> None:
    rate = {"muon": 0.02, "sgd": 0.02, "adafactor": 0.02}[optimizer]
    config = own("images", optimizer=Optimizer(name=optimizer), learning_rate=rate)  # type: ignore[arg-type]
    assert last(config, outside_corpus(""))["status"] == "ok"


@pytest.mark.usefixtures("examples")
def test_branches_of_ones_own_equal_whole_runs() -> None:
    runs = [own("curve", steps=steps) for steps in (12, 20)]
    assert [len(unit) for unit in plan_units(runs, device_type="cpu")] == [2]
    branched = {
        row["steps"]: row["loss"] for row in train_together(runs, corpus=outside_corpus(""), device="cpu")
    }
    assert branched == {run.steps: last(run, outside_corpus(""))["loss"] for run in runs}


@pytest.mark.usefixtures("examples")
def test_ladders_measurements_and_memory_work_for_ones_own() -> None:
    recipe = Recipe(model="own_tasks:curve", aspect=16)
    corpus = outside_corpus(recipe.model)
    configs = grid(corpus, "", params=(3e3, 12e3), tokens_per_param=(1.0,), recipe=recipe)
    sizes = sorted({config.shape.params for config in configs})
    assert [round(size / wanted, 0) for size, wanted in zip(sizes, (3e3, 12e3), strict=True)] == [1, 1]
    rows = list(noise(own("curve"), NoiseProbe(start=20), corpus=corpus, device="cpu"))
    assert noise_scale(norms_of(rows)).value > 0
    first = own("curve")
    family = recipe.family(corpus)
    wide = [replace(first, shape=family.widened(first.shape, width)) for width in (16, 64, 256)]
    found = verdict(list(coordinates(wide, corpus=corpus, steps=5, seeds=2, device="cpu")))
    assert {slope.name for slope in found.slopes} >= {"0", "2", "output"}
    assert unit_bytes((first,)) > 16 * first.shape.params


def mine(*, width: int, depth: int, seed: int) -> Task:
    import own_tasks

    task = own_tasks.curve(width=width, depth=depth, seed=seed)
    rates = {"0.weight": 0.0}
    return Task(model=task.model, losses=task.losses, batches=task.batches, rates=rates)


def summed(*, width: int, depth: int, seed: int) -> Task:
    task = mine(width=width, depth=depth, seed=seed)
    return Task(model=task.model, losses=lambda m, b: task.losses(m, b).mean(), batches=task.batches)


def ending(*, width: int, depth: int, seed: int) -> Task:
    task = mine(width=width, depth=depth, seed=seed)
    return Task(
        model=task.model, losses=task.losses, batches=lambda *asked: iter([next(task.batches(*asked))] * 3)
    )


@pytest.mark.usefixtures("examples")
def test_rates_of_ones_own_multiply_the_runs() -> None:
    monkey = own("curve")
    shape = family_of(f"{__name__}:mine", vocab=0, sequence_length=1).member(32)
    trainer = Trainer([replace(monkey, shape=shape)], outside_corpus(""), device=CPU)
    before = {name: value.clone() for name, value in trainer.model.named_parameters()}
    trainer.advance(1.0)
    unmoved = {name for name, value in trainer.model.named_parameters() if torch.equal(value, before[name])}
    assert unmoved == {"0.weight"}


@pytest.mark.usefixtures("examples")
@pytest.mark.parametrize(
    ("factory", "message"),
    [
        ("no_such_package:factory", "names no factory"),
        ("own_tasks:nothing", "names no factory"),
        ("own_tasks:_generator", "failed at width 32"),
        (f"{__name__}:summed", "losses of shape"),
        (f"{__name__}:ending", "end before step 3"),
    ],
)
def test_a_task_that_breaks_its_contract_is_told_so(factory: str, message: str) -> None:
    config = own("curve")

    def attempt() -> None:
        shape = family_of(factory, vocab=0, sequence_length=1).member(32)
        last(replace(config, shape=shape), outside_corpus(""))

    with pytest.raises((ProbeError, DataError), match=message):
        attempt()


def test_an_edited_factory_is_another_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "edited_tasks.py"
    shutil.copy(EXAMPLES / "own_tasks.py", file)
    monkeypatch.syspath_prepend(str(tmp_path))
    shape = family_of("edited_tasks:curve", vocab=0, sequence_length=1).member(32)
    config = replace(own_config(shape), data="elsewhere")
    assert own_config(shape).run_id == config.run_id
    file.write_text(file.read_text() + "\n# changed\n")
    with pytest.raises(ProbeError, match="changed since"):
        Trainer([config], outside_corpus(""), device=CPU)
    del sys.modules["edited_tasks"]


def own_config(shape: ForeignShape) -> ProbeConfig:
    recipe = Recipe(evaluation=Evaluation(sequences=8))
    return recipe.config(shape, outside_corpus(""), "", tokens=64, batch_tokens=8, learning_rate=1e-3)


@pytest.fixture(params=sorted(CONFIGURATIONS))
def configuration(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    pytest.importorskip("transformers")
    path = tmp_path / "config.json"
    path.write_text(json.dumps(CONFIGURATIONS[request.param]))
    return f"hf:{path}"


def text_run(model: str, corpus: Corpus, params: float = 24e3) -> ProbeConfig:
    recipe = Recipe(model=model, sequence_length=16, evaluation=Evaluation(sequences=32))
    shape = shape_of_size(recipe.family(corpus), params)
    return recipe.config(shape, corpus, "", tokens=60 * 128, batch_tokens=128, learning_rate=1e-2)


def test_a_configuration_is_scaled_counted_and_trained(configuration: str, corpus: Corpus) -> None:
    config = text_run(configuration, corpus)
    shape = config.shape
    assert isinstance(shape, ForeignShape)
    assert shape.vocab == corpus.vocab
    assert 0.7 < shape.params / 24e3 < 1.4
    assert shape.params_non_embedding < shape.params
    row = last(config, corpus)
    assert row["status"] == "ok"
    assert row["loss"] < 2.2
    # Counted over whole attention, and without embedding look-ups: near 6 N D.
    assert 0.6 < row["flops_exact"] / row["flops"] < 1.6
    if "mixtral" in shape.content:
        assert (shape.num_experts, shape.experts_per_token) == (4, 2)
        assert shape.params_active < shape.params
    else:
        assert shape.params_active == shape.params


def test_a_configuration_travels_inside_the_run(configuration: str, corpus: Corpus, tmp_path: Path) -> None:
    config = text_run(configuration, corpus)
    Path(configuration.removeprefix("hf:")).unlink()
    again = ProbeConfig.from_json(config.to_json())
    assert again == config
    assert Trainer([again], corpus, device=CPU).subject.guessing > 0
    recounted = replace(config.shape, flops_per_token=1.0)  # type: ignore[type-var]
    assert replace(config, shape=recounted).run_id == config.run_id


def test_dropout_repeats_and_branches(corpus: Corpus, tmp_path: Path) -> None:
    pytest.importorskip("transformers")
    path = tmp_path / "config.json"
    path.write_text(json.dumps(CONFIGURATIONS["gpt2"]))  # drops a tenth
    base = text_run(f"hf:{path}", corpus)
    runs = [replace(base, steps=steps) for steps in (8, 14)]
    branched = {row["steps"]: row["loss"] for row in train_together(runs, corpus=corpus, device="cpu")}
    assert branched == {run.steps: last(run, corpus)["loss"] for run in runs}


def test_a_configuration_as_it_is_can_be_traced(tmp_path: Path) -> None:
    pytest.importorskip("transformers")
    path = tmp_path / "config.json"
    path.write_text(json.dumps(LLAMA))
    shape = family_of(f"hf:{path}", vocab=7, sequence_length=64).as_configured()  # type: ignore[union-attr]
    assert (shape.width, shape.layers, shape.vocab) == (256, 4, 32000)
    trace = trace_foreign(shape, MemoryRecipe(precision="fp32"), micro_batch_sequences=2, sequence_length=64)
    assert 16 < trace.peak_bytes / shape.params < 40


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("not json", "no configuration"),
        ("{}", "no model_type"),
        ('{"model_type": "nothing-like-it"}', "does not know"),
        ('{"model_type": "t5"}', "no language model"),
        (json.dumps({**LLAMA, "max_position_embeddings": 4}), "4 positions"),
    ],
)
def test_bad_configurations_are_told_so(content: str, message: str, corpus: Corpus, tmp_path: Path) -> None:
    pytest.importorskip("transformers")
    path = tmp_path / "config.json"
    path.write_text(content)
    with pytest.raises(ProbeError, match=message):
        text_run(f"hf:{path}", corpus)


def test_foreign_models_take_no_mup_and_no_experts(corpus: Corpus) -> None:
    with pytest.raises(ProbeError, match="experts"):
        family_of("hf:x.json", vocab=8, sequence_length=8, num_experts=4)
    shape = ForeignShape(
        model="hf", content="{}", width=8, layers=2, vocab=16, params=100, params_non_embedding=50,
        params_active=100, flops_per_token=600.0,
    )  # fmt: skip
    with pytest.raises(ProbeError, match="muP"):
        replace(own_config(shape), parametrization="mup")
    assert asdict(shape)["content"] == "{}"
