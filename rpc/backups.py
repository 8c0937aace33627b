"""`kanglian backup …`: what the commands do and show; node/backup.py and node/restore.py work.

With `--rpc` a node that runs is asked as well. Nothing that it says is believed: what counts are
its certificates, verified against the validators to which the backup's own blocks lead.
"""

import functools
import os
from collections.abc import Callable, Generator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from genesis.networks import read_genesis
from ledger.block import HEADER, Header, block_hash
from ledger.errors import Reason, Rejected, UnavailableError
from ledger.genesis import Genesis, chain_of
from ledger.store.archive import bad_backup
from ledger.transaction import Chain
from ledger.validators import ValidatorSet
from ledger.votes import CERTIFICATE, verify_certificate
from node.backup import create_backup
from node.config import load_config
from node.messages import say
from node.restore import Verified, Watch, restore_backup, verify_backup
from rpc import console
from rpc.client import Client

_ROOTS = ("state_root", "receipts_root", "replay_root", "history_root")


def create(folder: Path, config: Path, *, as_json: bool) -> None:
    """Write a backup of the node of a configuration.

    Raises: ConfigError, and what `create_backup` raises.
    """
    node = load_config(config, os.environ).node
    with console.progress() as advance:
        made = create_backup(
            folder,
            node.data_dir,
            read_genesis(node.genesis_file),
            console.now_ms(),
            lambda done, total: advance(done, total, say("backing_up", done=done, total=total)),
        )
    view = {
        "path": str(folder),
        "chain_name": made.chain_name,
        "height": made.height,
        "block_hash": made.block_hash,
        "batches": sum(chunk.batches for chunk in made.chunks),
        "size": made.size,
        "files": len(made.chunks) + 1,
    }
    console.show(view, say("backup_made", **view), as_json=as_json)


def verify(folder: Path, genesis_path: Path, url: str | None, *, as_json: bool) -> None:
    """Everything in the backup holds, or this ends with the name of what does not.

    Raises: what `verify_backup` raises; RpcFailure and UnavailableError when the node cannot say.
    """
    genesis = read_genesis(genesis_path)
    with _watch() as watch:
        found = verify_backup(folder, genesis, watch)
    view = _view(found)
    text = say("backup_holds", **view)
    if url is not None:
        is_followed = check_live(url, genesis, found)
        view["live"] = {"url": url, "confirms_state": is_followed}
        said = say("live_confirms", url=url) if is_followed else say("live_same_block", url=url)
        text = f"{text}\n{said}"
    console.show(view, text, as_json=as_json)


def restore(folder: Path, config: Path, *, as_json: bool) -> None:
    """Fill the data folder of a configuration from a backup.

    Raises: ConfigError, and what `restore_backup` raises.
    """
    node = load_config(config, os.environ).node
    genesis = read_genesis(node.genesis_file)
    with _watch() as watch:
        found = restore_backup(folder, node.data_dir, genesis, console.now_ms(), watch)
    view = _view(found)
    text = say("restored", data_dir=node.data_dir, config=config, **view)
    console.show(view, text, as_json=as_json)


def _view(found: Verified) -> dict[str, Any]:
    return {
        "height": found.tip.height,
        "block_hash": found.tip.block_hash.hex(),
        "state_root": found.tip.state_root.hex(),
        "transactions": found.transactions,
        "operations": found.operations,
    }


@contextmanager
def _watch() -> Generator[Watch]:
    """One bar after another: files, blocks, heights."""
    with ExitStack() as bars:

        def bar(words: Callable[[int, int], str]) -> Callable[[int, int], None]:
            shown: list[console.Advance] = []

            def advance(done: int, total: int) -> None:
                if not shown:
                    bars.pop_all().close()
                    shown.append(bars.enter_context(console.progress()))
                shown[0](done, total, words(done, total))

            return advance

        yield Watch(
            bar(lambda done, total: say("comparing_files", done=done, total=total)),
            bar(lambda done, total: say("executing_blocks", done=done, total=total)),
            bar(lambda done, total: say("reading_back", done=done, total=total)),
        )


def check_live(url: str, genesis: Genesis, found: Verified) -> bool:
    """Whether a node has a certificate of the backup's tip, and of a block that follows it.

    False when it has none that follows: then nobody has signed the state root yet.
    Raises: Rejected when what it certifies is another block or state, or is not certified at all;
    UnavailableError when it is behind the backup; RpcFailure.
    """
    chain, tip = chain_of(genesis), found.tip
    with Client(url, genesis) as client:
        client.chain()
        newest = client.getinfo()["height"]
        if newest < tip.height:
            raise UnavailableError(
                f"{url} is at height {newest}, behind the backup, which ends at {tip.height}; ask "
                "another node"
            )
        certified = functools.partial(_certified, client, chain)
        name, _ = certified(tip.height, found.validators)
        if name != tip.block_hash:
            detail = "the node has a certificate of another block: the chain has forked"
            raise bad_backup(detail, height=tip.height, node=name.hex())
        if newest == tip.height:
            return False
        _, header = certified(tip.height + 1, found.next_validators)
    for field in _ROOTS:
        if getattr(header, field) != getattr(tip, field):
            raise bad_backup(f"the next header has another {field}", height=tip.height)
    if header.previous_hash != tip.block_hash:
        raise bad_backup("the next header follows another block", height=tip.height)
    return True


def _certified(
    client: Client, chain: Chain, height: int, validators: ValidatorSet
) -> tuple[bytes, Header]:
    """A header of a node, with its name, if these validators certified it.

    Raises: Rejected.
    """
    view = client.get_block_header(height)
    try:
        data = bytes.fromhex(view["header_bytes"])
        certificate = CERTIFICATE.decode(bytes.fromhex(view["certificate"]))
    except (KeyError, TypeError, ValueError):
        raise Rejected(Reason.MALFORMED, "the node shows no header", height=height) from None
    name = block_hash(data, chain.suite)
    if (certificate.height, certificate.block_hash) != (height, name):
        raise Rejected(Reason.BAD_CERTIFICATE, "the node shows that of another block")
    verify_certificate(certificate, validators, chain)
    return name, HEADER.decode(data)
