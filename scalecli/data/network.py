"""Is a path on a network file system? SQLite's write-ahead log needs shared memory, which those lack."""

from __future__ import annotations

from pathlib import Path

_SHARED = (
    "9p afs beegfs ceph cifs glusterfs gpfs lustre ncpfs nfs nfs4 orangefs panfs pvfs2 smb3 smbfs wekafs"
)
_SHARED_BY_FUSE = "ceph-fuse gcsfuse glusterfs juicefs s3fs sshfs"
NETWORK_FILE_SYSTEMS = frozenset([*_SHARED.split(), *(f"fuse.{name}" for name in _SHARED_BY_FUSE.split())])
"""Types of /proc/mounts that are shared between machines."""


def on_network_file_system(path: Path, mounts: Path = Path("/proc/mounts")) -> bool:
    """By the table of mounts; False where there is no such table."""
    try:
        lines = mounts.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return False
    place = path.absolute()
    deepest, kind = -1, ""
    for line in lines:
        fields = line.split()
        if len(fields) > 2:
            mounted = Path(fields[1].replace("\\040", " "))
            if place.is_relative_to(mounted) and len(mounted.parts) >= deepest:
                deepest, kind = len(mounted.parts), fields[2]
    return kind in NETWORK_FILE_SYSTEMS
