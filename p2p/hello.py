"""The hello: two nodes prove to each other who they are, bound to the TLS link between them.

What it decides: whether the node at the other end is accepted, and by which name.
What it never does: any I/O; it takes and gives frames. Cryptography comes in as functions.
Our own address from elsewhere is either this node itself, told by a nonce that it has in the air,
or a twin: another process with our certificate and our key. Only a proved one counts as a twin.
After TLS each side sends HELLO, and in answer to the other's HELLO a HELLO_PROOF: a signature of
its consensus key over both addresses, nonces and TLS keys. So a proof cannot be replayed (fresh
nonce), reflected or relayed over another link (both TLS keys are in it, in the signer's order).
Role and height are hints: rights are on-chain facts.
Source: architecture section 4 (admission); the binding to both TLS keys follows SIGMA
(Krawczyk, 2003): each side signs the names, nonces and keys of both.
"""

from collections.abc import Callable, Collection
from dataclasses import dataclass
from enum import Enum, StrEnum, auto, unique

from ledger.codec import Record, Schema, encode
from ledger.errors import LocalProtocolError, PeerProtocolError, Rejected
from ledger.ids import (
    Address,
    Bytes32,
    Count,
    GenesisHash,
    GroupId,
    Hash,
    Height,
    Name,
    PublicKey,
    Signature,
    TimestampMs,
)
from p2p.frames import HELLO_LIMITS, Frame, FrameKind

_TAG = b"kl.hello"
_SIGNATURE_BYTES = 64
LINK_VERSION = 3
"""Version of the frames between nodes, docs/format.md section 12; nodes of others do not link."""
NONCE_BYTES = 32
"""Two nonces meet again after 2**128 links: never."""


@unique
class HelloRefusal(StrEnum):
    """Why a node was not accepted. The value is the metric label."""

    MALFORMED = "malformed"
    """The payload is not a hello or not a signature of 64 bytes."""
    OUT_OF_ORDER = "out_of_order"
    """A frame came that the handshake does not expect now."""
    WRONG_VERSION = "wrong_version"
    """The peer speaks another version of the frames between nodes."""
    WRONG_CHAIN = "wrong_chain"
    """Genesis hash or group differ."""
    SELF = "self"
    """We dialled ourselves, or our hello came back: the nonce is one of ours."""
    TWIN = "twin"
    """Another process proved to hold our certificate and our key: this node runs twice."""
    WRONG_NODE = "wrong_node"
    """Another node answered than the one we dialled."""
    CERTIFICATE_MISMATCH = "certificate_mismatch"
    """The TLS certificate does not name the address that the hello claims."""
    REVOKED = "revoked"
    """The TLS certificate is revoked."""
    NOT_ALLOWED = "not_allowed"
    """The address is not on the allow-list."""
    BAD_PROOF = "bad_proof"
    """The signature does not bind this address to this link."""


class HelloRefusedError(PeerProtocolError):
    """The peer is not accepted; `refusal` names why."""

    def __init__(self, refusal: HelloRefusal, detail: str = "") -> None:
        self.refusal = refusal
        super().__init__(": ".join(part for part in (str(refusal), detail) if part))


class Hello(Record, frozen=True):
    """Who I am. The shape never changes, so that other versions are told apart by `version`."""

    version: int
    genesis_hash: Bytes32
    group: Count
    address: Bytes32
    role: Name
    nonce: Bytes32
    height: Count


_HELLO = Schema(Hello, max_bytes=HELLO_LIMITS[FrameKind.HELLO])


@dataclass(frozen=True, slots=True)
class CertificateIdentity:
    """What a TLS certificate says: SHA-256 of its SubjectPublicKeyInfo DER, and its SAN URIs.

    `expires_ms` is None only where there is no such thing, as in a simulator.
    """

    public_key_hash: bytes
    uris: tuple[str, ...]
    expires_ms: TimestampMs | None = None


@dataclass(frozen=True, slots=True)
class HelloIdentity:
    """Our node, and the functions by which it proves itself and judges others.

    `is_allowed` gives the tagged 34-byte key of an admitted node, None for any other; `is_revoked`
    takes the SHA-256 of a certificate's SubjectPublicKeyInfo. Both are asked for every hello, and
    `Network.enforce_admission` asks again for links that live.
    """

    genesis_hash: GenesisHash
    group: GroupId
    address: Address
    role: str
    digest: Callable[[bytes], Hash]
    sign: Callable[[Hash], Signature]
    verify: Callable[[PublicKey, Hash, Signature], bool]
    is_allowed: Callable[[Address], PublicKey | None]
    is_revoked: Callable[[bytes], bool]


@dataclass(frozen=True, slots=True)
class RemoteNode:
    """A node that proved its address by `key`; `role` and `height` are what it said of itself."""

    address: Address
    key: PublicKey
    role: str
    height: Height


@dataclass(frozen=True, slots=True)
class LinkFacts:
    """What TLS knows of a link; `expected` is the address we dialled, None for a caller."""

    own_certificate: CertificateIdentity
    peer_certificate: CertificateIdentity
    expected: Address | None


class _State(Enum):
    AWAIT_HELLO = auto()
    AWAIT_PROOF = auto()
    DONE = auto()
    REFUSED = auto()


def node_uri(address: Address) -> str:
    """The SAN URI of a node's TLS certificate."""
    return f"kanglian:node:{address.hex()}"


class Handshake:
    """One side of the hello on one link: send `opening`, then feed frames until `remote` is set."""

    __slots__ = (
        "_facts",
        "_nonces",
        "_own",
        "_own_hello",
        "_peer_hello",
        "_peer_key",
        "_remote",
        "_state",
    )

    def __init__(
        self,
        own: HelloIdentity,
        facts: LinkFacts,
        *,
        nonce: bytes,
        height: Height,
        nonces: Collection[bytes] = (),
    ) -> None:
        """Begin a handshake; `nonce` is 32 fresh random bytes.

        `nonces` are those of all handshakes of this node that are under way, as they change. What
        is signed in one cannot be reflected into another, because a peer that shows one of them is
        refused before anything is signed.
        """
        self._nonces = nonces
        self._own = own
        self._facts = facts
        self._own_hello = Hello(
            version=LINK_VERSION,
            genesis_hash=own.genesis_hash,
            group=own.group,
            address=own.address,
            role=own.role,
            nonce=nonce,
            height=height,
        )
        self._peer_hello: Hello | None = None
        self._peer_key: PublicKey | None = None
        self._remote: RemoteNode | None = None
        self._state = _State.AWAIT_HELLO

    @property
    def opening(self) -> Frame:
        """The frame that either side sends first."""
        return FrameKind.HELLO, encode(self._own_hello)

    @property
    def remote(self) -> RemoteNode | None:
        """The accepted node, None until its proof was verified."""
        return self._remote

    def receive(self, kind: FrameKind, payload: bytes) -> Frame | None:
        """Take one frame of the peer; gives the frame to send in answer, if any.

        Raises: HelloRefusedError; the handshake is then over.
                LocalProtocolError when it was over before.
        """
        state, self._state = self._state, _State.REFUSED
        match state, kind:
            case _State.AWAIT_HELLO, FrameKind.HELLO:
                answer = self._receive_hello(payload)
                self._state = _State.AWAIT_PROOF
                return answer
            case _State.AWAIT_PROOF, FrameKind.HELLO_PROOF:
                self._receive_proof(payload)
                self._state = _State.DONE
                return None
            case ((_State.DONE | _State.REFUSED), _):
                raise LocalProtocolError("a handshake takes no frames after its end")
            case _:
                raise HelloRefusedError(HelloRefusal.OUT_OF_ORDER, kind.name)

    def _receive_hello(self, payload: bytes) -> Frame:
        try:
            hello = _HELLO.decode(payload)
        except Rejected as error:
            raise HelloRefusedError(HelloRefusal.MALFORMED, str(error)) from None
        self._peer_key = self._judge(hello)
        self._peer_hello = hello
        statement = self._statement(self._own_hello, hello, own_first=True)
        return FrameKind.HELLO_PROOF, self._own.sign(statement)

    def _judge(self, hello: Hello) -> PublicKey:
        """The key with which the peer must prove its address; the cheap checks come first."""
        own, address = self._own_hello, Address(hello.address)
        if hello.version != own.version:
            raise HelloRefusedError(HelloRefusal.WRONG_VERSION, f"peer speaks {hello.version}")
        if (hello.genesis_hash, hello.group) != (own.genesis_hash, own.group):
            raise HelloRefusedError(HelloRefusal.WRONG_CHAIN)
        is_own = address == own.address
        if is_own and (hello.nonce == own.nonce or hello.nonce in self._nonces):
            raise HelloRefusedError(HelloRefusal.SELF)
        if not is_own and self._facts.expected not in (None, address):
            raise HelloRefusedError(HelloRefusal.WRONG_NODE, f"{address.hex()} answered")
        if self._facts.peer_certificate.uris != (node_uri(address),):
            raise HelloRefusedError(HelloRefusal.CERTIFICATE_MISMATCH, address.hex())
        if self._own.is_revoked(self._facts.peer_certificate.public_key_hash):
            raise HelloRefusedError(HelloRefusal.REVOKED, address.hex())
        key = self._own.is_allowed(address)
        if key is None:
            raise HelloRefusedError(HelloRefusal.NOT_ALLOWED, address.hex())
        return key

    def _receive_proof(self, payload: bytes) -> None:
        hello, key = self._peer_hello, self._peer_key
        if hello is None or key is None:
            raise LocalProtocolError("a proof is judged after its hello")
        if len(payload) != _SIGNATURE_BYTES:
            raise HelloRefusedError(HelloRefusal.MALFORMED, f"proof of {len(payload)} bytes")
        statement = self._statement(hello, self._own_hello, own_first=False)
        if not self._own.verify(key, statement, Signature(payload)):
            raise HelloRefusedError(HelloRefusal.BAD_PROOF, hello.address.hex())
        if hello.address == self._own.address:
            raise HelloRefusedError(HelloRefusal.TWIN, hello.address.hex())
        self._remote = RemoteNode(Address(hello.address), key, hello.role, Height(hello.height))

    def _statement(self, signer: Hello, other: Hello, *, own_first: bool) -> Hash:
        """What `signer` signs: both ends of the link, its own always first."""
        hashes = (
            self._facts.own_certificate.public_key_hash,
            self._facts.peer_certificate.public_key_hash,
        )
        signer_key_hash, other_key_hash = hashes if own_first else hashes[::-1]
        fields = (
            signer.genesis_hash,
            signer.group,
            signer.address,
            other.address,
            signer.nonce,
            other.nonce,
            signer_key_hash,
            other_key_hash,
        )
        return self._own.digest(_TAG + encode(fields))
