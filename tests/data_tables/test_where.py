"""Filter expressions: what they mean, and that nothing else gets through."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scalecli.data.where import MAX_LENGTH, parse_where
from scalecli.errors import DataError

COLUMNS = {
    "tokens": np.array([1e8, 2e9, np.nan]),
    "optimizer": np.array(["adamw", "muon", None], dtype=object),
    "repeated": np.array([True, False, False]),
    "eval/loss": np.array([3.0, 2.5, 2.0]),
}


def mask(text):
    return parse_where(text).mask(COLUMNS, 3).tolist()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("tokens > 1e9", [False, True, False]),
        ("tokens != 1e8", [False, True, True]),
        ("1e7 < tokens <= 1e8", [True, False, False]),
        ("tokens == tokens", [True, True, False]),
        ("optimizer == 'adamw'", [True, False, False]),
        ("optimizer != 'adamw'", [False, True, True]),
        ("optimizer in ('muon', 'sgd')", [False, True, False]),
        ("optimizer not in ['muon']", [True, False, True]),
        ("tokens in (1e8, 5)", [True, False, False]),
        ("repeated", [True, False, False]),
        ("not repeated and tokens > 0", [False, True, False]),
        ("repeated == True or optimizer == 'muon'", [True, True, False]),
        ("col('eval/loss') < 2.6", [False, True, True]),
        ("tokens / 2 ** 3 > 1.3e7 and -tokens < 0", [False, True, False]),
        ("tokens // 1e9 == 2 and tokens % 7 >= 0", [False, True, False]),
        ("1 < 2", [True, True, True]),
    ],
)
def test_meaning(text, expected):
    assert mask(text) == expected


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "empty"),
        ("tokens >", "invalid syntax"),
        ("optimizer == adamw", "adamw is no column"),
        ("tokens == 'adamw'", "text with a number"),
        ("optimizer > 'a'", "orders text"),
        ("tokens", "not a condition"),
        ("tokens and repeated", "not a condition"),
        ("optimizer + 1 > 2", "not a number"),
        ("tokens in 5", "no list"),
        ("tokens == None", "neither a number nor text"),
        ("tokens is 5", "`is`"),
        ("__import__('os').system('true')", "not part"),
        ("().__class__ == 1", "not part"),
        ("(lambda: 1)() == 1", "not part"),
        ("[t for t in tokens] == 1", "not part"),
        ("tokens[0] == 1", "not part"),
        ("open('x') == 1", "not part"),
        ("col(tokens) == 1", "not part"),
        ("tokens := 3", "character"),
        ("f'{tokens}' == 'a'", "not part"),
        ("1" * 400 + " > tokens", "too large"),
        ("1" * 5000 + " > tokens", "characters"),
        ("not " * 490 + "repeated", "nested"),
        ("tokens > 1\x00", "null bytes"),
    ],
)
def test_mistakes_are_typed_and_named(text, words):
    with pytest.raises(DataError) as caught:
        mask(text)
    assert words in caught.value.message


def test_the_place_is_the_mistakes():
    with pytest.raises(DataError, match="at character 15: optimiser is no column"):
        mask("tokens > 1 or optimiser == 'adamw'")


def test_huge_powers_end_at_once():
    assert mask("tokens < 9 ** 9 ** 9 ** 9") == [True, True, False]


WORDS = (
    "tokens optimizer repeated nothing 'adamw' 1e9 0 in and or not == != < >= + - * ** / % ( ) [ ] , . : #"
)
PIECES = st.sampled_from([*WORDS.split(), "col(", "lambda:", '"', "\n", "\\"])


@settings(deadline=None)
@given(st.one_of(st.text(max_size=40), st.lists(PIECES, max_size=12).map(" ".join)))
def test_any_text_is_a_mask_or_a_data_error(text):
    try:
        result = parse_where(text).mask(COLUMNS, 3)
    except DataError:
        return
    assert result.shape == (3,)
    assert result.dtype == bool


def test_length_is_bounded():
    with pytest.raises(DataError, match=str(MAX_LENGTH)):
        parse_where("(" * (MAX_LENGTH + 1))
