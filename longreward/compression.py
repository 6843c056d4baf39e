"""Files that may be compressed: the name's ending decides."""

import gzip
import io
import zlib
from pathlib import Path
from typing import IO, cast

SUFFIXES = (".gz", ".zst")
DECOMPRESSION_ERRORS = (OSError, EOFError, zlib.error)
"""What reading a damaged file raises: gzip and zlib have errors of their own, pyarrow's zstd raises OSError."""


def is_compressed(path: Path) -> bool:
    """Whether `open_binary` decompresses the file."""
    return path.suffix.lower() in SUFFIXES


def open_binary(path: Path) -> IO[bytes]:
    """Open a file for reading bytes; .gz and .zst files are decompressed as they are read.

    Raises OSError where it cannot be opened. Reading a damaged file raises one of DECOMPRESSION_ERRORS.
    """
    suffix = path.suffix.lower()
    if suffix == ".gz":
        return cast(IO[bytes], gzip.open(path))
    if suffix == ".zst":
        # pyarrow has the codec; Python's own (compression.zstd) comes with 3.14.
        import pyarrow

        stream = pyarrow.CompressedInputStream(pyarrow.OSFile(str(path)), "zstd")
        return cast(IO[bytes], io.BufferedReader(stream))
    return path.open("rb")
