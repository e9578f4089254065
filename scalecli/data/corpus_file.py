"""A corpus as one file, for a process on a machine that cannot read the text itself."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

from scalecli.data.corpus import Corpus, Domain


def write_corpus(corpus: Corpus, file: Path) -> None:
    """Save as .npz, without its notes."""
    import numpy as np

    said = asdict(corpus)
    sides = {side: said.pop(side) for side in ("train", "validation")}
    del said["notes"]
    with file.open("wb") as stream:
        np.savez(stream, **sides, said=np.array(json.dumps(said)))


def read_corpus(file: Path) -> Corpus:
    """What `write_corpus` saved."""
    import numpy as np

    with np.load(file, allow_pickle=False) as saved:
        said = json.loads(str(saved["said"]))
        domains = tuple(Domain(**domain) for domain in said.pop("domains"))
        return Corpus(train=saved["train"], validation=saved["validation"], domains=domains, **said)
