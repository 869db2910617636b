"""TensorBoard's event files, as far as scalars need them: checksummed records, each an `Event` in protocol buffers.

Written here rather than by tensorboardX: that writes in a thread, and where the disk is full, training waits for it
forever. (Formats: tensorflow/core/util/event.proto, tensorflow/core/lib/io/record_writer.h)
"""

from __future__ import annotations

import socket
import struct
import time
from collections.abc import Mapping
from pathlib import Path

import numpy as np

_DOUBLE, _VARINT, _BYTES, _FLOAT = 1, 0, 2, 5
"""Wire types."""


class EventFile:
    """A file of events in a folder. Every call appends whole records and closes it: there is nothing to flush."""

    def __init__(self, folder: Path, step: int) -> None:
        folder.mkdir(exist_ok=True)
        self.path = folder / f"events.out.tfevents.{time.time():010.0f}.{socket.gethostname()}.{step}"
        self._add(_field(3, _BYTES, b"brain.Event:2"))
        if step:  # of what went before, hide all from here on
            session_log = _field(1, _VARINT, _varint(1))
            self._add(_field(2, _VARINT, _varint(step + 1)) + _field(7, _BYTES, session_log))

    def scalars(self, values: Mapping[str, float], step: int) -> None:
        """Add numbers by name. Raises OSError where the disk refuses."""
        with np.errstate(over="ignore"):
            numbers = {name: np.float32(value).astype("<f4").tobytes() for name, value in values.items()}
        summary = b"".join(
            _field(1, _BYTES, _field(1, _BYTES, name.encode()) + _field(2, _FLOAT, number))
            for name, number in numbers.items()
        )
        self._add(_field(2, _VARINT, _varint(step)) + _field(5, _BYTES, summary))

    def _add(self, event: bytes) -> None:
        event = _field(1, _DOUBLE, struct.pack("<d", time.time())) + event
        length = struct.pack("<Q", len(event))
        with open(self.path, "ab") as stream:
            stream.write(length + _masked_crc(length) + event + _masked_crc(event))


def _field(number: int, wire: int, content: bytes) -> bytes:
    size = _varint(len(content)) if wire == _BYTES else b""
    return _varint(number << 3 | wire) + size + content


def _varint(value: int) -> bytes:
    """Seven bits a byte, the lowest first."""
    parts = bytearray()
    while value > 127:
        parts.append(value & 127 | 128)
        value >>= 7
    return bytes([*parts, value])


def _crc_of(byte: int) -> int:
    for _ in range(8):
        byte = byte >> 1 ^ (0x82F63B78 if byte & 1 else 0)
    return byte


_CRC = [_crc_of(byte) for byte in range(256)]
"""CRC-32C (Castagnoli), by byte."""


def _masked_crc(content: bytes) -> bytes:
    crc = 0xFFFFFFFF
    for byte in content:
        crc = crc >> 8 ^ _CRC[(crc ^ byte) & 255]
    crc ^= 0xFFFFFFFF
    return struct.pack("<I", ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF)
