"""On which file systems a ledger may not be shared: those that other machines can write to.

SQLite's WAL mode lets the processes of one machine share memory beside the file; those of two machines have none, and
network file systems are known to lose locks. Each machine then needs a ledger of its own, merged later.
"""

import re
from pathlib import Path

MOUNTS = Path("/proc/self/mountinfo")  # Linux; elsewhere nothing is known
NETWORK = re.compile(
    r"(nfs4?|cifs|smb\w*|afs|ncpfs|9p|ceph|lustre|gpfs|beegfs\w*|pvfs2|orangefs|ocfs2|gfs2|glusterfs|davfs|vboxsf|wekafs|"
    r"fuse\.(?!fuseblk|overlayfs|fuse-overlayfs|bindfs|mergerfs|gocryptfs|encfs).+)"
)


def network_file_system(path: Path) -> str | None:
    """The kind of network file system that `path` lies on, or would; None where it is a local one, or unknown."""
    kind = _kind_at(path.resolve())
    return kind if kind and NETWORK.fullmatch(kind) else None


def _kind_at(path: Path) -> str | None:
    try:
        lines = MOUNTS.read_text(encoding="utf-8", errors="surrogateescape").splitlines()
    except OSError:
        return None
    found: tuple[int, str] | None = None
    for line in lines:
        before, _, behind = line.partition(" - ")
        point = Path(_ESCAPE.sub(lambda octal: chr(int(octal[1], 8)), before.split(" ")[4]))
        if path.is_relative_to(point) and (found is None or len(point.parts) >= found[0]):
            found = len(point.parts), behind.split(" ")[0]  # the last one of a place covers those before
    return found[1] if found else None


_ESCAPE = re.compile(r"\\([0-7]{3})")
