"""What models of text train on: token ids for training and for evaluation, from whatever the user has.

Text is a set of documents: exact duplicates count once, and the rest are split between training and validation by
document, in the order of the hashes of their content, so that no document is on both sides and the same text is
split the same way on every machine. Token files of other trainers come split, or are cut at their end.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from scalecli.data.mixture import Share, parse_mixture
from scalecli.data.notes import Notice
from scalecli.data.text.documents import read_documents
from scalecli.data.text.hub import dataset_documents, is_dataset
from scalecli.data.text.split import Text, split_documents
from scalecli.data.text.tokenizers import Tokenizer
from scalecli.data.tokens import IDS, holds_tokens, read_tokens
from scalecli.errors import DataError
from scalecli.units import format_count

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

DEFAULT_MAX_BYTES = 2**30
MIN_TRAIN_TOKENS, MIN_VALIDATION_TOKENS = 2**16, 2**13
"""Less than this cannot train or rank even the smallest probe: bytes of text, or ids of a token file."""


@dataclass(frozen=True, slots=True)
class Domain:
    """One part of a mixture: its share of the training tokens, and how many tokens it has on each side."""

    name: str
    share: float
    train_tokens: int
    validation_tokens: int


@dataclass(frozen=True, slots=True)
class Corpus:
    """Token ids, shape (tokens,) for each side. `sha256` identifies content and split; `bytes_per_token` is None
    where only ids are known.

    In a mixture both sides hold one domain after the other, in the order of `domains`; training tokens stand in the
    proportion of the shares, and of every domain all validation tokens are kept.
    """

    name: str
    train: NDArray[np.integer[Any]]
    validation: NDArray[np.integer[Any]]
    vocab: int
    bytes_per_token: float | None
    sha256: str
    tokenizer: str = "bytes"
    domains: tuple[Domain, ...] = ()
    notes: tuple[Notice, ...] = ()

    @property
    def unique_tokens(self) -> int:
        return len(self.train)

    def training(self, unique_tokens: int | None = None) -> NDArray[np.integer[Any]]:
        """The training ids, or the first `unique_tokens` of them: of every domain in its proportion."""
        if unique_tokens is None or unique_tokens >= len(self.train):
            return self.train
        if not self.domains:
            return self.train[:unique_tokens]
        import numpy as np

        parts, start = [], 0
        for domain in self.domains:
            parts.append(self.train[start : start + round(domain.share * unique_tokens)])
            start += domain.train_tokens
        return np.concatenate(parts)

    def epochs(self, tokens: float) -> float:
        """How often training on `tokens` tokens sees the training text."""
        return tokens / self.unique_tokens

    def repetition(self, tokens: float) -> Notice | None:
        """A warning when training on `tokens` tokens goes past one epoch, where laws of fresh data end."""
        if not self.unique_tokens or self.epochs(tokens) <= 1:
            return None
        fact = f"{format_count(tokens)} tokens are {self.epochs(tokens):.2f} epochs of {self.name}"
        return Notice(
            "W-EPOCHS", f"{fact} ({format_count(self.unique_tokens)} tokens): give more text with --data"
        )


def outside_corpus(name: str) -> Corpus:
    """Stands for data that a training brings itself: nothing is known of them but a name."""
    import numpy as np

    nothing = np.zeros(0, dtype=np.uint8)
    return Corpus(
        name=name, train=nothing, validation=nothing, vocab=0, bytes_per_token=None, sha256="", tokenizer=""
    )


def load_corpus(
    spec: str,
    tokenizer: str = "",
    *,
    validation_fraction: float = 0.1,
    max_bytes: int = DEFAULT_MAX_BYTES,
    min_train_tokens: int = MIN_TRAIN_TOKENS,
    min_validation_tokens: int = MIN_VALIDATION_TOKENS,
) -> Corpus:
    """Read `builtin:python`, a file or folder of text, `datasets:NAME`, token files, or a mixture of such things.

    `tokenizer` is `bytes` (the default for text), `bpe:4096`, a tokenizer.json, or `ids:50257` for token files. At
    most `max_bytes` of every part are read, and what is left out is noted.

    Raises:
        DataError: there are no such data, or too few on either side.
    """
    shares = parse_mixture(spec) or (Share(spec, spec, 1.0),)
    read = _of_tokens if all(holds_tokens(share.spec) for share in shares) else _of_text
    specs = [share.spec for share in shares]
    parts = read(specs, tokenizer, fraction=validation_fraction, max_bytes=max_bytes)
    for part in parts:
        _refuse_too_small(part, min_train_tokens, min_validation_tokens)
    return parts[0] if len(parts) == 1 else _mixed(shares, parts)


def _of_text(specs: Sequence[str], tokenizer: str, *, fraction: float, max_bytes: int) -> list[Corpus]:
    """Texts under one tokenizer; a trained one has seen the training sides of all."""
    texts = [_text(spec, fraction, max_bytes) for spec in specs]
    if tokenizer.startswith(IDS):
        raise DataError(
            f"{texts[0].name} is text, not ids", hint="--tokenizer bytes, bpe:4096 or a tokenizer.json"
        )
    used = Tokenizer.of(tokenizer, texts)
    found = []
    for text in texts:
        encoded = used.encode(text)
        tokens = len(encoded.train) + len(encoded.validation)
        found.append(
            Corpus(
                name=text.name,
                train=encoded.train,
                validation=encoded.validation,
                vocab=used.vocab,
                bytes_per_token=encoded.text_bytes / max(1, tokens),
                sha256=_digest(encoded.train, encoded.validation),
                tokenizer=used.name,
                notes=text.notes,
            )
        )
    return found


def _text(spec: str, fraction: float, max_bytes: int) -> Text:
    if is_dataset(spec):
        name, documents = dataset_documents(spec, max_bytes)
        return split_documents(name, documents, fraction)
    name, documents, notes = read_documents(spec, max_bytes)
    return split_documents(name, documents, fraction, notes)


def _of_tokens(specs: Sequence[str], tokenizer: str, *, fraction: float, max_bytes: int) -> list[Corpus]:
    read = [read_tokens(spec, tokenizer, fraction=fraction, max_bytes=max_bytes) for spec in specs]
    return [
        Corpus(
            name=found.name,
            train=found.train,
            validation=found.validation,
            vocab=found.vocab,
            bytes_per_token=None,
            sha256=_digest(found.train, found.validation),
            tokenizer=f"ids:{found.vocab}",
            notes=found.notes,
        )
        for found in read
    ]


def _digest(train: NDArray[np.integer[Any]], validation: NDArray[np.integer[Any]]) -> str:
    """SHA-256 of both sides' bytes."""
    sides = (hashlib.sha256(side.data).digest() for side in (train, validation))
    return hashlib.sha256(b"".join(sides)).hexdigest()


def _mixed(shares: Sequence[Share], parts: Sequence[Corpus]) -> Corpus:
    """As many tokens as the shares allow without repeating any domain."""
    import numpy as np

    total = min(len(part.train) / share.share for share, part in zip(shares, parts, strict=True))
    trains = [part.train[: round(share.share * total)] for share, part in zip(shares, parts, strict=True)]
    domains = tuple(
        Domain(share.name, share.share, len(train), len(part.validation))
        for share, train, part in zip(shares, trains, parts, strict=True)
    )
    there = sum(len(part.train) for part in parts)
    scarce = min(zip(shares, parts, strict=True), key=lambda pair: len(pair[1].train) / pair[0].share)[0]
    fact = f"{format_count(total)} of {format_count(there)} tokens are mixed: {scarce.name} has no more"
    described = repr([(domain, part.sha256) for domain, part in zip(domains, parts, strict=True)])
    known = [part.bytes_per_token for part in parts]
    mean = sum(share.share * (each or 0.0) for share, each in zip(shares, known, strict=True))
    return replace(
        parts[0],
        name="+".join(domain.name for domain in domains),
        train=np.concatenate(trains),
        validation=np.concatenate([part.validation for part in parts]),
        vocab=max(part.vocab for part in parts),
        bytes_per_token=None if None in known else mean,
        sha256=hashlib.sha256(described.encode()).hexdigest(),
        domains=domains,
        notes=(*(note for part in parts for note in part.notes), Notice("W-MIXTURE", fact)),
    )


def _refuse_too_small(corpus: Corpus, min_train: int, min_validation: int) -> None:
    """Limits are in bytes of text, since larger vocabularies make fewer tokens of it; in ids where there is no text."""
    scale = corpus.bytes_per_token or 1.0
    unit = "ids" if corpus.bytes_per_token is None else "bytes"
    sides = (("training", corpus.train, min_train), ("validation", corpus.validation, min_validation))
    for side, tokens, needed in sides:
        if scale * len(tokens) < needed:
            what = "ids" if unit == "ids" else "text"
            raise DataError(
                f"{corpus.name} has {round(scale * len(tokens))} {unit} of {side} {what}; at least {needed} {unit} "
                "are needed",
                hint="give more with --data, or use --data builtin:python",
            )
