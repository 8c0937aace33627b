"""Names for the quantities of a ledger, so that a height is never mistaken for a round.

Nothing here computes. Hashes, addresses and roots are 32 bytes unless said otherwise; times are
integer milliseconds since 1970-01-01T00:00Z.
"""

import re
from functools import lru_cache
from typing import Annotated, NewType

from msgspec import Meta

Height = NewType("Height", int)
Round = NewType("Round", int)
GroupId = NewType("GroupId", int)
TimestampMs = NewType("TimestampMs", int)
ValidatorIndex = NewType("ValidatorIndex", int)

Hash = NewType("Hash", bytes)
GenesisHash = NewType("GenesisHash", bytes)
BlockHash = NewType("BlockHash", bytes)
BatchDigest = NewType("BatchDigest", bytes)
TransactionId = NewType("TransactionId", bytes)
Address = NewType("Address", bytes)
PublicKey = NewType("PublicKey", bytes)
Signature = NewType("Signature", bytes)

ModuleName = NewType("ModuleName", str)
BroadcastLevel = NewType("BroadcastLevel", int)

# What the decoder checks on the way in. 2**63 - 1 keeps every integer inside a signed 64-bit
# word, so that any language can hold it.
INT64_MAX = 2**63 - 1
NAME_PATTERN = r"^[a-z][a-z0-9_]{0,31}\Z"

Bytes16 = Annotated[bytes, Meta(min_length=16, max_length=16)]
Bytes32 = Annotated[bytes, Meta(min_length=32, max_length=32)]
SignatureBytes = Annotated[bytes, Meta(min_length=64, max_length=64)]
PublicKeyBytes = Annotated[bytes, Meta(min_length=34, max_length=34)]
Name = Annotated[str, Meta(pattern=NAME_PATTERN)]
UncheckedName = Annotated[str, Meta(min_length=1, max_length=32)]
"""A Name where a pattern for each is too slow: whoever decodes it asks `are_names`."""
Count = Annotated[int, Meta(ge=0, le=INT64_MAX)]
Level = Annotated[int, Meta(ge=0, le=255)]

_NAME = re.compile(NAME_PATTERN)


# A chain knows few names, and a pattern costs ten times a look into the cache. Bound: about 1 MB.
@lru_cache(maxsize=4_096)
def are_names(*texts: str) -> bool:
    """Whether all texts are names."""
    return all(_NAME.search(text) is not None for text in texts)
