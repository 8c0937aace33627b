"""The Python client: a blocking JSON-RPC connection to one node, and the signing of transactions.

What it decides: nothing about the chain. It learns group and genesis hash from the node, and
refuses a node of another chain when a genesis is given; with a trust it believes no answer that is
not proven (rpc/light/answers.py). One `Client` belongs to one thread.
Source: JSON-RPC 2.0 specification; rpc/methods.py (the methods); docs/format.md section 3.
"""
# ruff: noqa: PLC0415 - what only verifying needs is imported there

import base64
import http.client
import json
import secrets
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, Self, cast
from urllib.parse import urlsplit

import msgspec

from contracts.abi import to_json
from ledger import limits
from ledger.addresses import AddressKind, address_of, single_key_script
from ledger.codec import Record, encode
from ledger.crypto import keys
from ledger.crypto.keys import KeyType
from ledger.crypto.suites import suite_named
from ledger.errors import KanglianError, Reason, Rejected, UnavailableError
from ledger.genesis import Genesis, chain_of
from ledger.ids import Address, GenesisHash, GroupId
from ledger.proof import AnchoredProof, Proof, RegistrationProof
from ledger.transaction import (
    TRANSACTION_TAG,
    Call,
    Chain,
    EnvelopeSummary,
    SignedTransaction,
    TransactionBody,
    operations_root,
)
from node.keystore import LoadedKey
from rpc.failure import Json, RpcFailure

if TYPE_CHECKING:
    from rpc.light.answers import Answers
    from rpc.light.keeper import TrustKeeper

CALL_TIMEOUT_MS = 75_000
"""A little above the longest wait that a node grants (60 s)."""
ANSWER_BYTES = 64 * limits.MIB
"""The largest answer is a block of 8 MiB told at length."""
VALID_FOR_MS = 120_000
"""Two minutes: long enough for a slow line, and the replay window keeps the id for ten."""

PROOF_TRIES = 40
PROOF_PAUSE_MS = 250
"""Ten seconds in all: a block with transactions is followed by another at once."""
GLANCE_TIMEOUT_MS = 2_000
"""A node on this machine answers in milliseconds."""

Wait = Literal["none", "commit"]


class Client:
    """A keep-alive connection to the JSON-RPC endpoint of one node; use it as a context."""

    def __init__(
        self,
        url: str,
        genesis: Genesis | None = None,
        timeout_ms: int = CALL_TIMEOUT_MS,
        *,
        trust: "TrustKeeper | None" = None,
    ) -> None:
        """Nothing is sent yet. With `genesis`, `chain()` refuses a node of another chain.

        With `trust` no answer is believed: each is proven or refused (docs/light-client.md), and
        the witnesses of the trust are asked as well.
        Raises: UnavailableError when `url` is not http://HOST:PORT; Rejected(WRONG_CHAIN) for a
            trust of another chain than the genesis.
        """
        parts = urlsplit(url)
        try:
            host, port = parts.hostname, parts.port or 80
        except ValueError:
            host, port = None, 0
        if parts.scheme != "http" or not host:
            raise UnavailableError(f"{url!r} is no node address; write it as http://HOST:PORT")
        self._url = url
        self._genesis = genesis
        self._http = http.client.HTTPConnection(host, port, timeout=timeout_ms / 1000)
        self._next_id = 0
        self._witnesses: list[Client] = []
        self._answers = None if trust is None else self._verifying(trust, timeout_ms)

    def _verifying(self, trust: "TrustKeeper", timeout_ms: int) -> "Answers":
        from rpc.light.anchor import Anchor
        from rpc.light.answers import Answers
        from rpc.light.source import Source

        if self._genesis is not None:
            trust.check_genesis(self._genesis)
        # The node that is asked is no witness of itself.
        others = [url for url in trust.trust.witnesses if url != self._url]
        self._witnesses = [Client(url, timeout_ms=timeout_ms) for url in others]
        sources = [Source(witness) for witness in self._witnesses]
        return Answers(Anchor(Source(self), sources, trust))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection; a later call opens it again."""
        self._http.close()
        for witness in self._witnesses:
            witness.close()

    @property
    def url(self) -> str:
        """The address of the node."""
        return self._url

    def request(self, name: str, /, **params: object) -> Any:
        """The result of calling the method `name`.

        Raises: RpcFailure when the node refuses, UnavailableError when it does not answer;
            Rejected(UNPROVEN) with `trust`, for this door verifies nothing.
        """
        if self._answers is not None:
            raise self._answers.refusal(name)
        return self.ask(name, **params)

    def ask(self, name: str, /, **params: object) -> Any:
        """What the node says to the method `name`; nobody has verified it.

        Raises: RpcFailure when the node refuses, UnavailableError when it does not answer.
        """
        self._next_id += 1
        body = {"jsonrpc": "2.0", "id": self._next_id, "method": name, "params": params}
        answer = self._post(json.dumps(body, ensure_ascii=False).encode())
        if answer.get("error") is not None:
            error = _members(answer["error"])
            data = _members(error.get("data"))
            kind = str(data.get("kind", "internal"))
            raise RpcFailure(kind, str(error.get("message", "")), data)
        if answer.get("id") != self._next_id or "result" not in answer:
            raise UnavailableError(f"{self._url} does not speak JSON-RPC 2.0; is it a node's port?")
        return answer["result"]

    def _post(self, body: bytes) -> Json:
        try:
            self._http.request("POST", "/", body, {"Content-Type": "application/json"})
            response = self._http.getresponse()
            data = response.read(ANSWER_BYTES)
        except (OSError, http.client.HTTPException) as error:
            # The request may have arrived; whoever resends sends the same bytes, so the same id.
            self._http.close()
            reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
            raise UnavailableError(
                f"no answer from {self._url} ({reason}); is the node running, and is this its "
                "RPC port?"
            ) from None
        try:
            answer = json.loads(data)
        except (ValueError, RecursionError):
            answer = None
        if not isinstance(answer, dict):
            self._http.close()
            raise UnavailableError(
                f"{self._url} answered HTTP {response.status} without JSON; is it a node's port?"
            )
        found = cast("Json", answer)
        if "jsonrpc" not in found:
            raise self._refusal(response.status, found)
        return found

    def _refusal(self, status: int, answer: Json) -> KanglianError:
        """An error of the HTTP layer: busy (503) passes, everything else is the request's fault."""
        error = _members(answer.get("error"))
        kind, message = str(error.get("kind", "http")), str(error.get("message", ""))
        self._http.close()
        if status == 503:
            return UnavailableError(f"{self._url} is busy: {message}; try again")
        return RpcFailure(kind, f"HTTP {status} {message}", {})

    def getinfo(self) -> Json:
        """The node and its chain in one look."""
        if self._answers is not None:
            return self._answers.getinfo()
        return self.request("getinfo")

    def get_transaction(self, transaction_id: str) -> Json:
        """A transaction by its id, or by the id of an operation, in hex."""
        if self._answers is not None:
            return self._answers.get_transaction(transaction_id)
        return self.request("get_transaction", id=transaction_id)

    def get_transaction_receipt(self, transaction_id: str) -> Json:
        """What became of it."""
        if self._answers is not None:
            return self._answers.get_transaction_receipt(transaction_id)
        return self.request("get_transaction_receipt", id=transaction_id)

    def get_block(self, height: int | None = None, block_hash: str | None = None) -> Json:
        """A block with the ids of its transactions; the newest when nothing is named."""
        if self._answers is not None:
            return self._answers.get_block(height, block_hash)
        return self.request("get_block", height=height, hash=block_hash)

    def get_block_header(self, height: int | None = None, block_hash: str | None = None) -> Json:
        """A header with its certificate."""
        if self._answers is not None:
            return self._answers.get_block_header(height, block_hash)
        return self.request("get_block_header", height=height, hash=block_hash)

    def get_proof(self, transaction_id: str) -> Proof:
        """The proof of an operation; waits a moment for the header that carries its receipt.

        Without `trust` it is not verified: `ledger.proof.verify_registration` does that, and needs
        no node.
        """
        if self._answers is not None:
            return self._answers.get_proof(transaction_id)
        answer = self._patiently("get_proof", id=transaction_id)
        is_anchored = isinstance(answer, dict) and "changes" in answer
        try:
            return msgspec.convert(answer, AnchoredProof if is_anchored else RegistrationProof)
        except msgspec.ValidationError as error:
            raise UnavailableError(f"{self._url} sent no proof: {error}") from None

    def get_document(self, method: str, **params: object) -> bytes:
        """The text of a proof of any other kind, by the method that makes it.

        It waits a moment for a header that is still to come. It is not verified:
        `ledger.proofs.family.verify_document` does that, without this node.
        """
        return json.dumps(
            self._patiently(method, **params),
            ensure_ascii=False,
            sort_keys=True,
            separators=(",", ":"),
        ).encode()

    def _patiently(self, method: str, /, **params: object) -> Any:
        """The answer, asked for again while the header that it needs does not exist."""
        for _ in range(PROOF_TRIES):
            try:
                return self.request(method, **params)
            except RpcFailure as failure:
                if failure.kind != "unavailable":
                    raise
            time.sleep(PROOF_PAUSE_MS / 1000)
        return self.request(method, **params)

    def send_transaction(self, wire: bytes, wait: Wait = "none", timeout_ms: int = 30_000) -> Json:
        """Send one signed transaction; `wait="commit"` answers with its height."""
        if self._answers is not None:
            return self._answers.send_transaction(wire, wait, timeout_ms)
        encoded = base64.b64encode(wire).decode()
        return self.request(
            "send_transaction", transaction=encoded, wait=wait, timeout_ms=timeout_ms
        )

    def send_transactions(
        self, wires: Sequence[bytes], wait: Wait = "none", timeout_ms: int = 30_000
    ) -> list[Json]:
        """Send up to 1,000 transactions; one item each, an `error` member where one is refused."""
        if self._answers is not None:
            return self._answers.send_transactions(wires, wait, timeout_ms)
        encoded = [base64.b64encode(wire).decode() for wire in wires]
        answer = self.request(
            "send_transactions", transactions=encoded, wait=wait, timeout_ms=timeout_ms
        )
        return cast("list[Json]", answer["transactions"])

    def call(
        self, module: str, level: int, contract: str, method: str, arguments: Record | Json
    ) -> Json:
        """Run a reading method on the newest state: `{height, result}`."""
        plain: object = to_json(arguments) if isinstance(arguments, Record) else arguments
        return self.request(
            "call",
            module=module,
            level=level,
            contract=contract,
            method=method,
            arguments=plain,
        )

    def get_peers(self) -> Json:
        """The other nodes and the state of the links to them."""
        return self.request("get_peers")

    def get_consensus(self) -> Json:
        """Where consensus stands."""
        return self.request("get_consensus")

    def wait_height(self, height: int, timeout_ms: int = 30_000) -> int:
        """Wait until the node has executed `height`; the height it is at, reached or not."""
        if self._answers is not None:
            return self._answers.wait_height(height, timeout_ms)
        return int(self.request("wait_height", height=height, timeout_ms=timeout_ms)["height"])

    def signing_clock(self, clock_ms: Callable[[], int]) -> Callable[[], int]:
        """A clock to sign by: one that lags behind the chain would sign the past."""
        ahead_ms = max(0, int(self.getinfo()["latest_block_time"]) - clock_ms())
        return lambda: clock_ms() + ahead_ms

    def chain(self) -> Chain:
        """Which chain the node serves.

        Raises: Rejected(WRONG_CHAIN) when a genesis was given and the node serves another chain.
        """
        if self._answers is not None:
            return self._answers.chain
        info = self.getinfo()
        suite = suite_named(str(info.get("suite", "international")))
        genesis_hash = GenesisHash(bytes.fromhex(str(info["genesis_hash"])))
        group = GroupId(int(info["group"]))
        chain = Chain(genesis_hash, group, suite, frozenset(int(key_type) for key_type in KeyType))
        known = chain if self._genesis is None else chain_of(self._genesis)
        if (known.genesis_hash, known.group) != (genesis_hash, group):
            raise Rejected(
                Reason.WRONG_CHAIN,
                f"{self._url} serves another chain than the genesis file names",
                genesis_hash=genesis_hash.hex(),
            )
        return known


def _members(value: object) -> Json:
    """The members of a JSON object; none where a node sent something else."""
    return cast("Json", value) if isinstance(value, dict) else {}


def glance(url: str) -> Json | None:
    """What `getinfo` of a near node says, or None when it does not answer at once."""
    with Client(url, timeout_ms=GLANCE_TIMEOUT_MS) as client:
        try:
            return client.getinfo()
        except (UnavailableError, RpcFailure):
            return None


@dataclass(frozen=True, slots=True)
class Signer:
    """An account's key on one chain. The secret stands in no repr."""

    chain: Chain
    key_type: KeyType
    secret: bytes
    script: bytes
    account: Address

    def __repr__(self) -> str:
        return f"Signer(account={self.account.hex()})"

    def call(
        self,
        module: str,
        level: int,
        contract: str,
        method: str,
        arguments: Record,
        *,
        now_ms: int,
        valid_for_ms: int = VALID_FOR_MS,
        nonce: bytes | None = None,
    ) -> bytes:
        """The wire bytes of a signed transaction of one operation."""
        call = Call(contract, method, encode(arguments))
        return self.sign(module, level, call, now_ms=now_ms, valid_for_ms=valid_for_ms, nonce=nonce)

    def sign(
        self,
        module: str,
        level: int,
        call: Call,
        *,
        now_ms: int,
        valid_for_ms: int = VALID_FOR_MS,
        nonce: bytes | None = None,
    ) -> bytes:
        """The same for an encoded operation; 16 random bytes make it unique."""
        return self._sign(module, level, call, None, now_ms, valid_for_ms, nonce)

    def envelope(
        self,
        module: str,
        level: int,
        operations: Sequence[Call],
        *,
        now_ms: int,
        valid_for_ms: int = VALID_FOR_MS,
        nonce: bytes | None = None,
        atomic: bool = False,
    ) -> bytes:
        """The wire bytes of many operations of one namespace under one signature."""
        calls = tuple(operations)
        root = operations_root(calls, self.chain.suite)
        summary = EnvelopeSummary(len(calls), root, atomic)
        return self._sign(module, level, summary, calls, now_ms, valid_for_ms, nonce)

    def _sign(
        self,
        module: str,
        level: int,
        payload: Call | EnvelopeSummary,
        operations: tuple[Call, ...] | None,
        now_ms: int,
        valid_for_ms: int,
        nonce: bytes | None,
    ) -> bytes:
        body = encode(
            TransactionBody(
                version=limits.PROTOCOL_VERSION,
                genesis_hash=self.chain.genesis_hash,
                group=self.chain.group,
                module=module,
                level=level,
                account=self.account,
                signer=None,
                nonce=secrets.token_bytes(16) if nonce is None else nonce,
                valid_until=now_ms + min(valid_for_ms, limits.REPLAY_WINDOW_MS),
                client_time=now_ms,
                after=None,
                payload=payload,
            )
        )
        digest = self.chain.suite.digest(TRANSACTION_TAG + body)
        signature = keys.sign(self.key_type, self.secret, digest)
        return encode(SignedTransaction(body, self.script, ((0, signature),), operations))


def account_signer(key: LoadedKey, chain: Chain) -> Signer:
    """The signer of a single-key account.

    Raises: Rejected(BAD_SCRIPT) for the key of a node.
    """
    if key.kind is not AddressKind.TERMINAL:
        detail = f"{key.address} is a node's key; an account signs with a terminal key"
        raise Rejected(Reason.BAD_SCRIPT, detail)
    script = single_key_script(AddressKind.TERMINAL, key.public_key)
    account = address_of(script, chain.suite)
    return Signer(chain, key.public.key_type, key.secret, script, account)
