"""Corpora: enough text, split by document, the same everywhere, and honest about repetition."""

import json

import numpy as np
import pytest

from scalecli.data.corpus import load_corpus
from scalecli.data.text.split import END_OF_DOCUMENT
from scalecli.errors import BadRow, DataError


def write_folder(folder, count=40, size=5000):
    random = np.random.default_rng(0)
    folder.mkdir(exist_ok=True)
    for i in range(count):
        words = random.integers(0, 1000, size // 5)
        (folder / f"{i:03}.txt").write_text(f"document {i}\n" + " ".join(f"{word:04}" for word in words))
    return folder


def documents(side):
    return set(side.tobytes().split(END_OF_DOCUMENT)) - {b""}


def test_builtin_python_is_large_and_split_by_file():
    corpus = load_corpus("builtin:python")
    assert 5e6 < corpus.unique_tokens < 1e8
    assert 0.08 < len(corpus.validation) / (len(corpus.train) + len(corpus.validation)) < 0.2
    assert not documents(corpus.train) & documents(corpus.validation)
    assert corpus.vocab == 256
    assert corpus.train.dtype == np.uint8
    assert b"def test_" not in documents(corpus.validation)


def test_a_folder_is_the_same_corpus_wherever_it_lies(tmp_path):
    one, two = load_corpus(str(write_folder(tmp_path / "a"))), load_corpus(str(write_folder(tmp_path / "b")))
    assert one.sha256 == two.sha256
    assert documents(one.train) | documents(one.validation) == {
        file.read_bytes() for file in (tmp_path / "a").iterdir()
    }
    (tmp_path / "b" / "000.txt").write_text("something else\n" * 400)
    assert load_corpus(str(tmp_path / "b")).sha256 != one.sha256


def test_duplicates_links_hidden_and_other_files_do_not_count(tmp_path):
    folder = write_folder(tmp_path / "a")
    plain = load_corpus(str(folder))
    (folder / "copy.txt").write_bytes((folder / "000.txt").read_bytes())
    (folder / "link.txt").symlink_to(folder / "001.txt")
    (folder / ".git").mkdir()
    (folder / ".git" / "x.txt").write_text("hidden")
    (folder / "image.png").write_bytes(b"\0\1")
    again = load_corpus(str(folder))
    assert again.sha256 == plain.sha256
    assert [note.code for note in again.notes] == ["W-DUPLICATES"]


def test_one_long_file_is_split_at_line_ends(tmp_path):
    path = tmp_path / "book.txt"
    text = b"".join(b"line %06d of a long book\n" % i for i in range(60_000))
    path.write_bytes(text)
    corpus = load_corpus(str(path))
    pieces = documents(corpus.train) | documents(corpus.validation)
    assert sorted(b"".join(pieces).splitlines()) == text.splitlines()
    assert 0.05 < len(corpus.validation) / len(text) < 0.2


def test_json_lines_give_one_document_each(tmp_path):
    path = tmp_path / "texts.jsonl"
    texts = [f"text {i} " * 500 for i in range(60)]
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    corpus = load_corpus(str(path))
    assert documents(corpus.train) | documents(corpus.validation) == {text.encode() for text in texts}
    path.write_text('{"text": "a"}\n{"txt": "a"}\n')
    with pytest.raises(BadRow) as caught:
        load_corpus(str(path))
    assert (caught.value.line, caught.value.field) == (2, "text")


def test_a_limit_reads_part_of_it_and_says_so(tmp_path):
    folder = write_folder(tmp_path / "a")
    corpus = load_corpus(str(folder), max_bytes=120_000)
    assert len(corpus.train) + len(corpus.validation) < 130_000
    assert [note.code for note in corpus.notes] == ["W-TRUNCATED"]
    assert corpus.sha256 == load_corpus(str(folder), max_bytes=120_000).sha256


def test_past_one_epoch_is_noted(tmp_path):
    corpus = load_corpus(str(write_folder(tmp_path / "a")))
    assert corpus.repetition(corpus.unique_tokens) is None
    note = corpus.repetition(2 * corpus.unique_tokens)
    assert note is not None
    assert "2.00 epochs" in note.message


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (
            lambda path: path.write_text("too short"),
            "bytes of training text; at least 65536 bytes are needed",
        ),
        (lambda path: path.write_bytes(b"\0" * 100_000), "not text"),
        (lambda path: path.mkdir(), "no text files"),
        (lambda path: None, "does not exist"),
    ],
)
def test_what_is_no_corpus(tmp_path, make, words):
    path = tmp_path / "corpus.txt"
    make(path)
    with pytest.raises(DataError, match=words):
        load_corpus(str(path))


def test_names_that_are_none():
    with pytest.raises(DataError, match="builtin:python"):
        load_corpus("builtin:english")
    with pytest.raises(DataError):
        load_corpus("a\0b")
