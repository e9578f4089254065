"""Every column of the contract exists, with unit and bounds that reject what cannot be."""

import math

import pytest

from scalecli.data.schema import COLUMNS, column_for, likely_source

CONTRACT = """
run_id group params params_non_embedding params_active tokens unique_tokens flops batch_tokens
batch_sequences sequence_length steps learning_rate weight_decay beta1 beta2 epsilon grad_clip
warmup_steps schedule final_learning_rate decay_fraction optimizer parametrization dataset tokenizer
bytes_per_token loss_kind width depth heads vocab_size num_experts experts_per_token sparsity loss
loss_std noise_scale_tokens peak_memory_bytes tokens_per_second seed status status_reason device
dtype versions config_hash created_at
"""


def test_the_columns_of_the_contract_are_there():
    assert set(CONTRACT.split()) <= set(COLUMNS)


def test_every_number_has_a_unit_and_a_description():
    for column in COLUMNS.values():
        assert column.description
        assert column.unit or column.kind == "text"
        assert column.low < column.high


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("tokens", -1.0, "negative"),
        ("tokens", 0.0, "not above 0"),
        ("loss", math.nan, "missing"),
        ("loss", math.inf, "not finite"),
        ("loss", -math.inf, "negative"),
        ("beta2", 1.5, "above 1"),
        ("mix_web", 1.01, "above 1"),
        ("mix_web", -0.1, "negative"),
        ("weight_decay", -0.1, "negative"),
    ],
)
def test_bounds(name, value, words):
    assert words in column_for(name).problem(value)


@pytest.mark.parametrize(
    ("name", "value"), [("weight_decay", 0.0), ("metric_score", -3.0), ("own", -3.0), ("loss", 1e-9)]
)
def test_what_may_stand(name, value):
    assert column_for(name).problem(value) == ""


@pytest.mark.parametrize(
    ("name", "present", "expected"),
    [
        ("learning_rate", ["lr", "x"], "lr"),
        ("params", ["N", "D"], "N"),
        ("tokens", ["n_tokens", "n_params"], "n_tokens"),
        ("loss", ["Val_Loss"], "Val_Loss"),
        ("loss", ["loss_c4_val", "tokens"], "loss_c4_val"),
        ("params", ["x", "y"], None),
    ],
)
def test_hint_names_the_likely_column(name, present, expected):
    assert likely_source(name, present) == expected
