"""Every kind of data that `--data` takes: packed text, Parquet, datasets, token files, mixtures; and tokenizers."""

from __future__ import annotations

import gzip
import json
import struct
from pathlib import Path

import numpy as np
import pytest

from scalecli.data.corpus import Corpus, load_corpus
from scalecli.data.tokens import LLMC_HEADER_BYTES, MEGATRON_MAGIC
from scalecli.errors import DataError

WORDS = ["measure", "small", "models", "fit", "laws", "plan", "large", "ones", "batch", "rate"]


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SCALECLI_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def texts(count: int = 120, seed: int = 0) -> list[str]:
    rng = np.random.default_rng(seed)
    return [f"{number} " + " ".join(rng.choice(WORDS, 200)) for number in range(count)]


def small(spec: Path | str, tokenizer: str = "", **limits: int) -> Corpus:
    sizes = {"min_train_tokens": 1000, "min_validation_tokens": 100, **limits}
    return load_corpus(str(spec), tokenizer, **sizes)


@pytest.fixture
def lines(tmp_path: Path) -> Path:
    path = tmp_path / "texts.jsonl"
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts()))
    return path


def packed(lines: Path, kind: str) -> Path:
    target = lines.parent / f"{kind}-of-it" / f"texts.{kind}"
    target.parent.mkdir()
    if kind == "jsonl.gz":
        target.write_bytes(gzip.compress(lines.read_bytes()))
    elif kind == "jsonl.zst":
        zstandard = pytest.importorskip("zstandard")
        content, pack = lines.read_bytes(), zstandard.ZstdCompressor().compress
        target.write_bytes(pack(content[:50_001]) + pack(content[50_001:]))  # two frames, cut inside a line
    else:
        pytest.importorskip("pyarrow")
        import pandas as pd

        pd.DataFrame({"text": texts()}).to_parquet(target)
    return target


@pytest.mark.parametrize("kind", ["jsonl.gz", "jsonl.zst", "parquet"])
def test_packed_text_is_the_same_text(lines: Path, kind: str) -> None:
    plain, file = small(lines), packed(lines, kind)
    assert small(file).sha256 == small(file.parent).sha256 == plain.sha256
    half = small(file, max_bytes=80_000)
    assert len(half.train) + len(half.validation) < 81_000
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    with pytest.raises(DataError, match=r"cannot be read|is no Parquet|is not JSON"):
        small(file)


def test_a_table_without_text_is_told_so(tmp_path: Path) -> None:
    pytest.importorskip("pyarrow")
    import pandas as pd

    pd.DataFrame({"body": ["a"]}).to_parquet(tmp_path / "a.parquet")
    with pytest.raises(DataError, match="no column 'text'; it has body"):
        small(tmp_path / "a.parquet")


def test_datasets_are_read_from_folders_and_the_hub_is_refused_offline(
    lines: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    datasets = pytest.importorskip("datasets")
    saved = lines.parent / "saved"
    made = datasets.Dataset.from_dict({"text": texts()})
    made.save_to_disk(str(saved))
    datasets.DatasetDict({"train": made}).save_to_disk(str(lines.parent / "splits"))
    for spec in (saved, lines.parent / "splits"):
        found = small(spec)
        assert found.sha256 == small(lines).sha256
    monkeypatch.setattr("datasets.config.HF_HUB_OFFLINE", True)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(DataError, match="cannot be read") as refused:
        small("datasets:nobody/nothing")
    assert "save_to_disk" in refused.value.hint


def test_byte_pairs_are_trained_offline_once_and_make_fewer_tokens(lines: Path, cache: Path) -> None:
    pytest.importorskip("tokenizers")
    plain, pairs = small(lines), small(lines, "bpe:400")
    assert 380 < pairs.vocab <= 400
    assert pairs.bytes_per_token == pytest.approx(
        (len(plain.train) + len(plain.validation)) / (len(pairs.train) + len(pairs.validation))
    )
    assert pairs.bytes_per_token > 3
    assert pairs.train.max() < 400
    assert pairs.tokenizer.startswith("bpe:400@")
    # Taken from the cache, trained anew, and read from a file: the same ids.
    (vocabulary,) = cache.glob("*.json")
    assert small(lines, "bpe:400").sha256 == pairs.sha256
    own = lines.parent / "tokenizer.json"
    own.write_text(vocabulary.read_text())
    for file in sorted(cache.rglob("*.*")):
        file.unlink()
    assert small(lines, str(own)).sha256 == small(lines, "bpe:400").sha256 == pairs.sha256


def test_documents_of_pairs_end_with_the_vocabularys_own_mark(lines: Path) -> None:
    tokenizers = pytest.importorskip("tokenizers")
    found = small(lines, "bpe:400")
    ends = int((found.train == 0).sum() + (found.validation == 0).sum())
    assert ends == 120
    file = next(Path(lines.parent / "cache").glob("*.json"))
    decoded = tokenizers.Tokenizer.from_file(str(file)).decode(found.validation[:300].tolist())
    assert sum(word in decoded for word in WORDS) == len(WORDS)


@pytest.mark.parametrize(
    ("tokenizer", "words"),
    [
        ("bpe:many", "is no vocabulary"),
        ("bpe:100", "258 at least"),
        ("nowhere.json", "cannot be read"),
        ("ids:9", "not ids"),
    ],
)
def test_tokenizers_that_are_none(lines: Path, tokenizer: str, words: str) -> None:
    pytest.importorskip("tokenizers")
    with pytest.raises(DataError, match=words):
        small(lines, tokenizer)
    broken = lines.parent / "broken.json"
    broken.write_text("{}")
    with pytest.raises(DataError, match="is no tokenizer"):
        small(lines, str(broken))


IDS = np.random.default_rng(0).integers(0, 50_257, 40_000)


def nanogpt(folder: Path) -> Path:
    folder.mkdir()
    IDS[:36_000].astype("<u2").tofile(folder / "train.bin")
    IDS[36_000:].astype("<u2").tofile(folder / "val.bin")
    return folder


def llmc(folder: Path, magic: int = 20240520, version: int = 1, kind: str = "<u2") -> Path:
    folder.mkdir()
    shards = {
        "x_train_000001.bin": IDS[:20_000],
        "x_train_000002.bin": IDS[20_000:36_000],
        "x_val_000000.bin": IDS[36_000:],
    }
    for name, ids in shards.items():
        header = np.zeros(LLMC_HEADER_BYTES // 4, dtype="<i4")
        header[:3] = magic, version, len(ids)
        (folder / name).write_bytes(header.tobytes() + ids.astype(kind).tobytes())
    return folder


def megatron(folder: Path, code: int = 8, kind: str = "<u2") -> Path:
    folder.mkdir()
    IDS.astype(kind).tofile(folder / "text_document.bin")
    lengths = np.array([15_000, 25_000], dtype="<i4")
    pointers = np.array([0, 15_000 * np.dtype(kind).itemsize], dtype="<i8")
    documents = np.arange(3, dtype="<i8")
    head = MEGATRON_MAGIC + struct.pack("<QBQQ", 1, code, 2, 3)
    (folder / "text_document.idx").write_bytes(
        head + lengths.tobytes() + pointers.tobytes() + documents.tobytes()
    )
    return folder / "text_document"


def test_token_files_of_three_trainers_hold_the_same_ids(tmp_path: Path) -> None:
    found = [
        small(nanogpt(tmp_path / "nano"), "ids:50257"),
        small(llmc(tmp_path / "llmc"), "ids:50257"),
        small(megatron(tmp_path / "megatron"), "ids:50257"),
    ]
    assert {corpus.sha256 for corpus in found} == {found[0].sha256}
    assert (np.concatenate([found[0].train, found[0].validation]) == IDS).all()
    assert {corpus.vocab for corpus in found} == {50_257}
    assert found[0].bytes_per_token is None
    assert isinstance(found[0].train, np.memmap)
    wide = small(llmc(tmp_path / "wide", 20240801, 7, "<u4"), "ids:128256")
    assert (wide.train == found[0].train).all()
    assert (small(megatron(tmp_path / "signed", 4, "<i4")).train == found[0].train).all()


def test_a_vocabulary_that_is_not_stated_is_assumed_and_said(tmp_path: Path) -> None:
    found = small(nanogpt(tmp_path / "nano"))
    assert found.vocab == 50_304
    assert [note.code for note in found.notes] == ["W-VOCABULARY"]
    part = small(tmp_path / "nano", "ids:50257", max_bytes=20_000)
    assert len(part.train) == 10_000
    assert [note.code for note in part.notes] == ["W-TRUNCATED"]


@pytest.mark.parametrize(
    ("make", "tokenizer", "words"),
    [
        (nanogpt, "ids:128256", "have wrapped around"),
        (nanogpt, "ids:40000", "has the id"),
        (nanogpt, "bpe:4096", "hold ids"),
        (lambda folder: llmc(folder, version=3), "", "version 3"),
        (lambda folder: llmc(folder, kind="<u4"), "", "its header says 20000"),
        (lambda folder: megatron(folder, code=4), "", "counts 40000 ids"),
        (lambda folder: megatron(folder, code=7), "", "type 7 is not known"),
    ],
)
def test_token_files_that_are_not_what_they_say(tmp_path: Path, make, tokenizer: str, words: str) -> None:
    with pytest.raises(DataError, match=words):
        small(make(tmp_path / "tokens"), tokenizer)


def test_an_odd_number_of_bytes_and_another_index_are_no_token_files(tmp_path: Path) -> None:
    (tmp_path / "train.bin").write_bytes(b"\1" * 4001)
    with pytest.raises(DataError, match="no whole number of 16-bit ids"):
        small(tmp_path)
    name = megatron(tmp_path / "m")
    whole = name.with_suffix(".idx").read_bytes()
    for cut in (20, 36):
        name.with_suffix(".idx").write_bytes(whole[:cut])
        with pytest.raises(DataError, match="no token file"):
            small(name)
    name.with_suffix(".idx").write_bytes(b"something else entirely" * 4)
    with pytest.raises(DataError, match="no index of Megatron"):
        small(name)


@pytest.fixture
def mixture(tmp_path: Path) -> str:
    (tmp_path / "prose.txt").write_text("\n".join(texts(300)))
    (tmp_path / "digits.txt").write_text("\n".join("0123456789" * 20 + f" {n}" for n in range(400)))
    return f"prose={tmp_path}/prose.txt:0.75,digits={tmp_path}/digits.txt:0.25"


def test_a_mixture_has_its_shares_and_keeps_every_domains_evaluation(mixture: str) -> None:
    mixed = small(mixture)
    parts = {part.split("=")[0]: small(part.split("=")[1].rsplit(":", 1)[0]) for part in mixture.split(",")}
    prose, digits = mixed.domains
    assert prose.train_tokens == pytest.approx(3 * digits.train_tokens, abs=2)
    assert prose.train_tokens + digits.train_tokens == len(mixed.train)
    assert (mixed.train[-digits.train_tokens :] == parts["digits"].train[: digits.train_tokens]).all()
    assert len(mixed.validation) == sum(len(part.validation) for part in parts.values())
    half = mixed.training(len(mixed.train) // 2)
    assert np.isin(half, np.frombuffer(b"0123456789", np.uint8)).mean() == pytest.approx(
        np.isin(mixed.train, np.frombuffer(b"0123456789", np.uint8)).mean(), abs=0.05
    )
    assert mixed.notes[-1].code == "W-MIXTURE"
    other = small(mixture.replace("0.75", "0.5").replace("0.25", "0.5"))
    assert other.sha256 != mixed.sha256
    assert (other.validation == mixed.validation).all()


@pytest.mark.parametrize(
    ("shares", "words"),
    [
        ("0.7,0.7", "sum to 1.4"),
        ("1.5,-0.5", "sum to 1"),
        ("0.5,half", "does not exist"),
        ("0.5,1e", "no share"),
    ],
)
def test_mixtures_that_are_none(mixture: str, shares: str, words: str) -> None:
    first, second = shares.split(",")
    with pytest.raises(DataError, match=words):
        small(mixture.replace("0.75", first).replace("0.25", second))
