"""The catalogue: every number has its source and place, and the published rules give the published numbers."""

import math
import re
import tomllib
from pathlib import Path

import pytest

import scalecli
from scalecli.data.catalogue import (
    FORMS,
    accelerator,
    accelerators,
    optimizer,
    optimizers,
    presets,
    published_law,
    published_laws,
    sources,
)
from scalecli.data.catalogue.utilisations import published_steps
from scalecli.errors import DataError, UnknownAccelerator

PACKAGE = Path(scalecli.__file__).parent
AT = {"params": 1e9, "params_non_embedding": 1e9, "tokens": 2e10, "flops": 1.2e20, "loss": 2.53}
"""The point at which the literature's rules are compared: 1B parameters, 20B tokens."""


def test_every_source_is_complete_and_used():
    text = "".join(file.read_text() for file in PACKAGE.rglob("*.py"))
    entries = (*published_laws(), *accelerators().values(), *optimizers().values(), *published_steps())
    cited = {entry.source for entry in entries}
    cited |= {entry.settings_source for entry in optimizers().values()}
    for name in ("reductions.toml", "throughput.toml"):
        table = tomllib.loads((PACKAGE / "data" / "catalogue" / name).read_text())
        cited |= {entry["source"] for entry in table.values()}
    assert cited - {""} <= sources().keys()  # an optimizer without published settings names no source
    for key, source in sources().items():
        assert source.title
        assert source.authors
        assert 1990 < source.year < 2030
        assert source.identifier.startswith(("arXiv:", "https://"))
        assert key in cited or re.search(rf"\b{key}\b", text), f"{key} is cited by nothing"


def test_every_entry_says_where_its_numbers_are_from():
    for entry in (*published_laws(), *accelerators().values(), *optimizers().values()):
        assert entry.source in sources(), entry.name
        assert entry.where, entry.name
    for entry in optimizers().values():
        assert bool(entry.settings) == (entry.settings_source in sources()), entry.name
    for law in published_laws():
        assert law.unit, law.name
        assert law.setup, law.name
        assert law.values, law.name
        assert law.verified or law.doubt, f"{law.name} is not verified and does not say why"


def test_what_is_not_verified_is_no_preset():
    for laws in presets().values():
        for law in laws:
            assert law.verified, law.name
            assert law.quantity, law.name


@pytest.mark.parametrize(
    ("name", "expected", "tolerance"),
    [
        ("steplaw-batch", 0.44e6, 0.01),
        ("steplaw-learning-rate", 1.0e-3, 0.01),
        ("deepseek-batch", 1.08e6, 0.01),
        ("deepseek-learning-rate", 9.6e-4, 0.01),
        ("porian-batch", 1.61e6, 0.01),
        ("porian-learning-rate", 2.1e-3, 0.02),
        ("diloco-data-parallel-batch", 0.16e6, 0.03),
        ("diloco-data-parallel-learning-rate", 6.9e-4, 0.01),
        ("diloco-data-parallel-loss", 2.516, 0.001),
        ("zhang-critical-batch", 1.23e6, 0.01),
        ("kaplan-learning-rate", 3.5e-4, 0.01),
    ],
)
def test_rules_give_the_published_numbers(name, expected, tolerance):
    law = published_law(name)
    assert law.predict({column: AT[column] for column in law.inputs}) == pytest.approx(
        expected, rel=tolerance
    )


def test_loss_laws_agree_where_they_were_measured():
    for name, expected in (("chinchilla-unrounded", 2.531), ("chinchilla-refit", 2.530)):
        v = published_law(name).values
        loss = v["E"] + v["A"] * AT["params"] ** -v["alpha"] + v["B"] * AT["tokens"] ** -v["beta"]
        assert loss == pytest.approx(expected, rel=0.003)
    kaplan = published_law("kaplan-critical-batch").values
    assert kaplan["B_star"] * AT["loss"] ** (-1 / kaplan["alpha"]) == pytest.approx(2.5e6, rel=0.02)


def test_the_two_forms_of_the_critical_batch_agree_on_the_chinchilla_line():
    at = {"params": 1e9, "tokens": 2e10}
    by_size = published_law("zhang-critical-batch").predict(at)
    assert published_law("zhang-critical-batch-fixed-params").predict(at) == pytest.approx(by_size, rel=0.01)


def test_converted_constants_are_the_papers():
    steps = published_law("kaplan-steps").values
    assert steps["A"] == pytest.approx(6.5e13 ** steps["alpha"])
    assert steps["B"] == pytest.approx(2.1e3 ** steps["beta"])
    repeated = published_law("muennighoff").values
    assert math.log(repeated["A"]) == pytest.approx(6.255414, abs=1e-7)
    assert math.log(repeated["B"]) == pytest.approx(7.3049974, abs=1e-7)
    assert math.log(repeated["E"]) == pytest.approx(0.6254804, abs=1e-7)
    routed = published_law("clark-s-base").values
    one_expert = 1 / (1 / (1 / (1 / routed["E_start"] - 1 / routed["E_max"])) + 1 / routed["E_max"])
    assert one_expert == pytest.approx(routed["E_start"])
    log_loss = routed["a"] * 9 + (routed["b"] + routed["c"] * 9) * math.log10(one_expert) + routed["d"]
    assert 10**log_loss == pytest.approx(2.28, rel=0.01)


def test_joint_moe_at_one_expert_is_the_papers_dense_law():
    v = published_law("joint-moe").values
    start, most = v["E_start"], v["E_max"]
    dense = 1 / (1 / (1 - 1 + 1 / (1 / start - 1 / most)) + 1 / most)
    assert v["a"] * dense ** v["delta"] == pytest.approx(30.36, rel=0.002)
    assert v["alpha"] + v["gamma"] * math.log(dense) == pytest.approx(-0.1817, abs=2e-4)


def test_rules_say_where_they_hold():
    law = published_law("porian-batch")
    assert not law.outside({"params": 1e8})
    assert law.outside({"params": 1e9})
    assert "5e+06 to 1.1e+08" in law.validity


@pytest.mark.parametrize(
    "law", [law for law in published_laws() if law.law in FORMS], ids=lambda law: law.name
)
def test_every_rule_is_finite_and_positive(law):
    columns = dict.fromkeys(law.inputs, 1e9) | {"flops": 1e20, "loss": 2.5, "replicas": 2.0}
    assert 0 < law.predict(columns) < math.inf


@pytest.mark.parametrize(
    ("name", "formula"),
    [
        ("steplaw-learning-rate", "learning_rate = 1.79 × params_non_embedding^-0.713 × tokens^0.307"),
        ("zhang-critical-batch", "batch_tokens = 512 × 93.2 × (params / 1e+06)^0.47"),
        ("kaplan-learning-rate", "learning_rate = 0.003239 - 0.0001395 ln params_non_embedding"),
        ("kaplan-params", "loss = (8.8e+13 / params_non_embedding)^0.076"),
        ("chinchilla", ""),
    ],
)
def test_rules_can_be_read(name, formula):
    assert published_law(name).formula == formula
    assert published_law(name).document()["formula"] == formula


def test_a_law_without_a_rule_of_its_own_refuses_to_predict():
    with pytest.raises(DataError, match="constants of chinchilla"):
        published_law("chinchilla").predict(AT)
    with pytest.raises(DataError, match="chinchilla"):
        published_law("chinchila")


def test_accelerators_are_plausible():
    names = "a100-40g a100-40g-pcie a100-80g a100-80g-pcie h100-80g h100-nvl h100-pcie h200 b200 gb200 l4 l40s a10 a10g"
    names += (
        " v100-16g v100-32g rtx3090 rtx4090 rtx5090 mi210 mi250x mi300x mi325x tpu-v4 tpu-v5e tpu-v5p tpu-v6e"
    )
    names += " gaudi2 gaudi3 trainium1 trainium2 m1-max m1-ultra m2-max m2-ultra"
    assert set(names.split()) == set(accelerators())
    for device in accelerators().values():
        assert 15 * 2**30 < device.memory_bytes <= 256 * 2**30
        assert device.memory_bytes % 2**20 == 0, "memory is a whole number of MiB"
        half = device.peak_flops.get("bf16") or device.peak_flops["fp16"]
        assert 1e13 < half < 3e15
        assert device.peak_flops.get("fp8", half) >= half >= device.peak_flops.get("fp32", 0.0)
        assert device.memory_bandwidth is not None
        assert 20 < half / device.memory_bandwidth < 600, "FLOPs per byte"
        assert device.architecture is not None
        tiers = device.tiers
        assert [tier.devices for tier in tiers] == sorted(tier.devices for tier in tiers)
        assert [tier.bandwidth for tier in tiers] == sorted((tier.bandwidth for tier in tiers), reverse=True)


def test_the_vendors_own_ratios_hold():
    h100, h200 = accelerator("h100-80g"), accelerator("H200")
    assert h100.peak_flops == h200.peak_flops
    assert h100.peak_flops["fp8"] == pytest.approx(2 * h100.peak_flops["bf16"], rel=1e-3)
    assert h100.peak_flops["bf16"] == pytest.approx(989.4e12)
    assert accelerator("a100").memory_bytes == 80 * 2**30


def test_an_unknown_accelerator_lists_close_names():
    with pytest.raises(UnknownAccelerator, match="h100-80g") as caught:
        accelerator("h100-80gb")
    assert caught.value.exit_code == 41
    with pytest.raises(UnknownAccelerator, match="there are"):
        accelerator("zzz")


def test_names_and_aliases_are_unique():
    names = [alias for device in accelerators().values() for alias in (device.name, *device.aliases)]
    assert len(names) == len(set(names))


def test_a_users_accelerator_is_added_and_wins(tmp_path):
    path = tmp_path / "mine.toml"
    path.write_text(
        '[mine]\nmemory_bytes = 1000\npeak_flops = { bf16 = 1e12 }\nprice_per_hour = 2.5\naliases = ["m"]\n'
        "[h200]\nmemory_bytes = 2000\npeak_flops = { bf16 = 2e12 }\n"
    )
    assert accelerator("M", path).price_per_hour == 2.5
    assert accelerator("h200", path).memory_bytes == 2000
    assert accelerator("h200").memory_bytes > 2000
    assert accelerator("mine", path).source == "you"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("not toml", "not TOML"),
        ("mine = 3", "is no table"),
        ("[mine]\nmemory_bytes = 1\n", "needs peak_flops"),
        ("[mine]\npeak_flops = { bf16 = 1e12 }\n", "needs memory_bytes"),
        ("[mine]\nmemory_bytes = 1\npeak_flops = 3\n", "peak_flops is a table"),
        ("[mine]\nmemory_bytes = -1\npeak_flops = { bf16 = 1e12 }\n", "memory_bytes is -1"),
        ("[mine]\nmemory_bytes = 1\npeak_flops = { bf16 = nan }\n", "peak_flops.bf16 is nan"),
        ("[mine]\nmemory_bytes = true\npeak_flops = { bf16 = 1.0 }\n", "memory_bytes is True"),
        ("[mine]\nmemory_byte = 1\n", "close names: memory_bytes"),
        (
            "[mine]\nmemory_bytes = 1\npeak_flops = { bf16 = 1.0 }\nkernel_efficiency = 1.5\n",
            "share of the peak",
        ),
        (
            "[mine]\nmemory_bytes = 1\npeak_flops = { bf16 = 1.0 }\narchitecture = 3\n",
            "architecture is 3, not a text",
        ),
    ],
)
def test_a_users_file_with_a_mistake_is_a_data_error(tmp_path, text, words):
    path = tmp_path / "mine.toml"
    path.write_text(text)
    with pytest.raises(DataError, match=words):
        accelerators(path)


def test_a_users_file_that_is_not_there(tmp_path):
    with pytest.raises(DataError, match="cannot be read"):
        accelerators(tmp_path / "no.toml")


def test_optimizers_keep_what_their_states_need():
    for entry in optimizers().values():
        assert entry.bytes_per_param <= 4 * len(entry.states)
    assert optimizer("adamw").bytes_per_param == 8.0
    with pytest.raises(DataError, match="adamw"):
        optimizer("adam")


def test_constants_of_a_law_are_its_fields():
    from scalecli.fitters.law import parameters
    from scalecli.fitters.laws import LAWS

    forms = {law.name: set(parameters(law)) for law in LAWS}
    for record in published_laws():
        if record.law in forms:
            assert set(record.values) == forms[record.law], record.name


def test_every_source_of_a_law_exists():
    from scalecli.fitters.laws import LAWS

    for law in LAWS:
        assert set(law.sources) <= sources().keys(), law.name
