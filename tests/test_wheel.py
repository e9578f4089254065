"""A wheel built from the sdist holds the whole package and nothing else."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

ROOT = Path(__file__).parents[1]


def test_wheel_has_every_area_and_no_stray_name(tmp_path: Path) -> None:
    subprocess.run(
        [sys.executable, "-m", "build", "--outdir", str(tmp_path), str(ROOT)], check=True, capture_output=True
    )
    (wheel,) = tmp_path.glob("*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    strays = [n for n in names if not n.startswith("scalecli/") and ".dist-info/" not in n]
    assert strays == []
    assert all(n.startswith(("scalecli/", "scalecli-")) for n in names)
    for source in (ROOT / "scalecli").rglob("*"):
        if source.suffix in {".py", ".toml"} or source.name == "py.typed":
            assert str(source.relative_to(ROOT)) in names
