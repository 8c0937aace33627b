"""The records of the write-ahead log as bytes: how one is made, found, and believed.

A record is `length (4) || durable (8) || CRC-32 (4) || payload`. `durable` is how much of the log
was on the disk for certain when the record was made, and the checksum covers the record's own place
as well. What it decides: where a log's intact beginning ends, and whether what lies behind it is
more than the torn end that a crash leaves. What it never does: read a payload, touch a file.

An intact record in its place was written there by this life of the file: cutting a torn end off is
synced before anything new is written, a log that begins anew is another file, and room that was
reserved reads as zeros. Bytes that a peer made us write lie within a record, so whoever believes
one behind a damaged place asks for more than its checksum (`log_entries.py`, decision 0031).
Source: research consensus-reliability sections 1.5 and 6.3; decision 0022.
"""

import re
import struct
import zlib
from collections.abc import Sequence
from typing import NamedTuple

from node.limits import LOG_RECORD_BYTES

_HEAD = struct.Struct(">IQI")
_CHECKED = struct.Struct(">QIQ")
# A head begins with a length below LOG_RECORD_BYTES: where to look for one behind damage.
_MAYBE_HEAD = re.compile(rb"\x00[\x00-\x02]")
HEAD_BYTES = _HEAD.size


class Found(NamedTuple):
    """An intact record; `behind` is the offset of what follows it."""

    behind: int
    durable: int
    payload: bytes


def make_record(payload: bytes, place: int, durable: int) -> bytes:
    """The record of a payload at an offset of the log."""
    checked = zlib.crc32(payload, zlib.crc32(_CHECKED.pack(place, len(payload), durable)))
    return _HEAD.pack(len(payload), durable, checked) + payload


def record_at(data: bytes, offset: int) -> Found | None:
    """The record at an offset of a log, if an intact one is there."""
    if offset + HEAD_BYTES > len(data):
        return None
    length, durable, checksum = _HEAD.unpack_from(data, offset)
    start = offset + HEAD_BYTES
    if not 0 < length <= LOG_RECORD_BYTES or start + length > len(data) or durable > offset:
        return None
    payload = data[start : start + length]
    if zlib.crc32(payload, zlib.crc32(_CHECKED.pack(offset, length, durable))) != checksum:
        return None
    return Found(start + length, durable, payload)


def records_behind(data: bytes, damaged: int) -> list[Found]:
    """Intact records behind a damaged place, in order; none of them lies within another."""
    end = len(data.rstrip(b"\0"))  # behind it is room that was reserved and never written
    found: list[Found] = []
    offset = damaged + 1
    while (match := _MAYBE_HEAD.search(data, offset, end)) is not None:
        record = record_at(data, match.start())
        if record is None:
            offset = match.start() + 1
        else:
            found.append(record)
            offset = record.behind
    return found


def is_history_lost(data: bytes, damaged: int, later: Sequence[Found]) -> bool:
    """Whether what begins at `damaged` cannot be what a crash leaves of unsynced records.

    `later` is what `records_behind` found.
    """
    # Parts of a head that did not reach the disk read as zeros: its length can only seem smaller.
    if int.from_bytes(data[damaged : damaged + 4], "big") > LOG_RECORD_BYTES:
        return True
    return any(record.durable > damaged for record in later)
