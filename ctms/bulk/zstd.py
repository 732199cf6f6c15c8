"""Streaming reader for zstd files, which reports a truncated or damaged one."""

from __future__ import annotations

from typing import BinaryIO

import zstandard

_CHUNK = 1 << 17


class ZstdReader:
    """The decompressed content of a stream of one or more frames. Raises `EOFError` if it is damaged."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        self._frame: zstandard.ZstdDecompressionObj | None = None
        self._compressed = b""
        self._ready = memoryview(b"")

    def read(self, size: int) -> bytes:
        """Return at most `size` bytes, none at the end."""
        while not self._ready and self._fill():
            pass
        found, self._ready = self._ready[:size], self._ready[size:]
        return bytes(found)

    def _fill(self) -> bool:
        """Decompress another chunk; return whether there was one."""
        chunk = self._compressed or self._stream.read(_CHUNK)
        self._compressed = b""
        if not chunk:
            if self._frame is not None:
                raise EOFError
            return False
        if self._frame is None:
            self._frame = zstandard.ZstdDecompressor().decompressobj()
        try:
            self._ready = memoryview(self._frame.decompress(chunk))
        except zstandard.ZstdError as error:
            raise EOFError from error
        if self._frame.eof:
            self._compressed = self._frame.unused_data
            self._frame = None
        return True
