"""Text as tokens: bytes, a vocabulary of byte pairs trained on the text itself, or any `tokenizer.json`.

Nothing is fetched. Trained vocabularies and encoded texts are kept in the cache folder by the hash of their content,
so that the processes of a sweep encode once.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from scalecli.data.cache import cached_arrays, cached_text
from scalecli.data.text.split import END_OF_DOCUMENT, Text
from scalecli.errors import DataError, needs_extra

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

BYTES = "bytes"
BYTE_VOCABULARY = 256
TRAINED = "bpe:"
END = "<|endoftext|>"
ENDS = (END, "<|end_of_text|>", "</s>", "<eos>", "[SEP]")
"""What vocabularies call the end of a document."""
SMALLEST_VOCABULARY = BYTE_VOCABULARY + 2


@dataclass(frozen=True, slots=True)
class Encoded:
    """Both sides of one text as ids below `vocab`, and the bytes that they stand for."""

    train: NDArray[np.integer[Any]]
    validation: NDArray[np.integer[Any]]
    text_bytes: int


@dataclass(frozen=True, slots=True)
class Tokenizer:
    """`text` is the JSON of the `tokenizers` package; empty for bytes."""

    name: str
    vocab: int
    text: str = ""

    @classmethod
    def of(cls, spec: str, texts: Sequence[Text]) -> Tokenizer:
        """`bytes`, `bpe:SIZE` trained on the training sides, or a file.

        Raises:
            DataError: there is no such tokenizer, or the package is missing.
        """
        if spec in ("", BYTES):
            return cls(BYTES, BYTE_VOCABULARY)
        with needs_extra("data", f"the tokenizer {spec}", DataError):
            import tokenizers
        text = _trained(spec, texts) if spec.startswith(TRAINED) else _read(spec)
        try:
            size = tokenizers.Tokenizer.from_str(text).get_vocab_size()
        except Exception as error:  # the package raises bare Exception
            raise DataError(
                f"{spec} is no tokenizer: {error}", hint="bytes, bpe:4096, or a tokenizer.json"
            ) from error
        name = spec if spec.startswith(TRAINED) else Path(spec).name
        return cls(f"{name}@{hashlib.sha256(text.encode()).hexdigest()[:8]}", size, text)

    def encode(self, text: Text) -> Encoded:
        """The ids of both sides."""
        import numpy as np

        size = len(text.train) + len(text.validation)
        if not self.text:
            train, validation = (
                np.frombuffer(side, dtype=np.uint8).copy() for side in (text.train, text.validation)
            )
            return Encoded(train, validation, size)
        key = hashlib.sha256()
        for part in (self.text.encode(), text.train, text.validation):
            key.update(hashlib.sha256(part).digest())
        arrays = cached_arrays(
            key.hexdigest(),
            lambda: {"train": self._ids(text.train), "validation": self._ids(text.validation)},
        )
        return Encoded(arrays["train"], arrays["validation"], size)

    def _ids(self, side: bytes) -> NDArray[np.integer[Any]]:
        """Documents one after the other, each ended by the vocabulary's own mark, if it has one."""
        import numpy as np
        import tokenizers

        tokenizer = tokenizers.Tokenizer.from_str(self.text)
        tokenizer.no_truncation()
        ends = [found for name in ENDS if (found := tokenizer.token_to_id(name)) is not None][:1]
        documents = [part.decode("utf-8", "replace") for part in side.split(END_OF_DOCUMENT)[:-1]]
        kind = np.uint16 if self.vocab <= 2**16 else np.uint32
        encoded = tokenizer.encode_batch(documents, add_special_tokens=False)
        parts = [np.array(each.ids + ends, dtype=kind) for each in encoded]
        return np.concatenate(parts) if parts else np.zeros(0, dtype=kind)


def _trained(spec: str, texts: Sequence[Text]) -> str:
    """JSON of a vocabulary of byte pairs, from the training sides."""
    try:
        size = int(spec.removeprefix(TRAINED))
    except ValueError:
        size = 0
    if size < SMALLEST_VOCABULARY:
        raise DataError(
            f"{spec} is no vocabulary: it needs a size of {SMALLEST_VOCABULARY} at least", hint="bpe:4096"
        )
    digest = hashlib.sha256(spec.encode())
    for text in texts:
        digest.update(hashlib.sha256(text.train).digest())
    return cached_text(f"{digest.hexdigest()}.json", lambda: _train(size, texts))


def _train(size: int, texts: Sequence[Text]) -> str:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    tokenizer: Any = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=size,
        special_tokens=[END],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    documents = (
        part.decode("utf-8", "replace") for text in texts for part in text.train.split(END_OF_DOCUMENT)
    )
    tokenizer.train_from_iterator(documents, trainer)
    return str(tokenizer.to_str())


def _read(path: str) -> str:
    try:
        return Path(path).read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        raise DataError(
            f"the tokenizer {path} cannot be read: {getattr(error, 'strerror', None) or error}",
            hint="bytes, bpe:4096, or a tokenizer.json",
        ) from error
