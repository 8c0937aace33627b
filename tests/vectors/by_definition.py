"""The hash formulas of docs/format.md, written from its text alone, by the naive definition.

It imports nothing of Kanglian, so that what shares a mistake with the library cannot agree with it.
"""

from hashlib import sha256

import msgpack


def tagged(tag: str, data: bytes) -> bytes:
    return sha256(tag.encode() + b"\0" + data).digest()


def leaf(entry: bytes) -> bytes:
    return sha256(b"\0" + entry).digest()


def node(left: bytes, right: bytes) -> bytes:
    return sha256(b"\x01" + left + right).digest()


def head(leaves: list[bytes]) -> bytes:
    """Section 1.3, by the recursive definition of RFC 6962."""
    if len(leaves) < 2:
        return leaves[0] if leaves else sha256(b"").digest()
    split = 1 << (len(leaves) - 1).bit_length() - 1
    return node(head(leaves[:split]), head(leaves[split:]))


def sized(count: int, tree_head: bytes) -> bytes:
    return sha256(b"\x02" + count.to_bytes(8, "big") + tree_head).digest()


def root(entries: list[bytes]) -> bytes:
    return sized(len(entries), head([leaf(entry) for entry in entries]))


def sparse(pairs: dict[bytes, bytes], depth: int = 0) -> bytes:
    """Section 8, by the definition."""
    if not pairs:
        return bytes(32)
    if len(pairs) == 1:
        ((place, value),) = pairs.items()
        return sha256(b"\0kl.state-leaf\0" + place + value).digest()
    halves: list[dict[bytes, bytes]] = [{}, {}]
    for place, value in pairs.items():
        halves[place[depth // 8] >> 7 - depth % 8 & 1][place] = value
    return node(*(sparse(half, depth + 1) for half in halves))


def namespace_tree(namespace: bytes, maps: dict, logs: dict, heights: dict) -> bytes:
    cut, pairs = len(namespace), dict[bytes, bytes]()
    for key, value in maps.items():
        if key[:cut] == namespace and value is not None:
            place = tagged("kl.state-key", b"\0" + key[cut:])
            pairs[place] = tagged("kl.state-value", value)
    for log, entries in logs.items():
        if log[:cut] == namespace:
            rows = [b"kl.log-entry\0" + msgpack.packb(entry) for entry in entries]
            log_head = msgpack.packb([len(entries), heights[log], root(rows)])
            pairs[tagged("kl.state-key", b"\1" + log[cut:])] = tagged("kl.state-value", log_head)
    return sparse(pairs)


def written(namespace: bytes, maps: list, logs: list) -> bytes | None:
    cut = len(namespace)
    own_maps = [[key[cut:], value] for key, value in maps if key[:cut] == namespace]
    own_logs = []
    for log, first, entries in logs:
        if log[:cut] == namespace:
            leaves = [leaf(b"kl.log-entry\0" + msgpack.packb(entry)) for entry in entries]
            appended = tagged("kl.appended", b"".join(leaves))
            own_logs.append([log[cut:], first, len(entries), appended])
    if not own_maps and not own_logs:
        return None
    digest = tagged("kl.writes", msgpack.packb([own_maps, own_logs]))
    module, level = namespace[:-2].decode(), namespace[-1]
    return b"kl.namespace-writes\0" + msgpack.packb([module, level, digest])
