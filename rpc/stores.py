"""`kanglian node scrub` and `kanglian node rebuild`: what they show; node/rebuild.py does it."""

import functools
import os
from pathlib import Path

import trio

from genesis.networks import read_genesis
from ledger.errors import Store
from node import rebuild
from node.config import load_config
from node.messages import say
from rpc import console


def scrub(config: Path, *, as_json: bool) -> None:
    """Check every record of a stopped node.

    Raises: ConfigError, StoreDamagedError, UnavailableError.
    """
    node = load_config(config, os.environ).node
    with console.progress() as advance:
        height = rebuild.scrub_stores(
            node.data_dir,
            read_genesis(node.genesis_file),
            lambda done, total: advance(done, total, say("scrubbing", done=done, total=total)),
        )
    view = {"height": height}
    console.show(view, say("scrubbed", **view), as_json=as_json)


def rebuild_store(config: Path, store: str, *, as_json: bool) -> None:
    """Make a damaged store anew.

    Raises: ConfigError, StoreDamagedError, UnavailableError.
    """
    node = load_config(config, os.environ).node
    genesis = read_genesis(node.genesis_file)
    if store == Store.STATE:
        with console.progress() as advance:
            done = trio.run(
                functools.partial(
                    rebuild.rebuild_state,
                    node.data_dir,
                    genesis,
                    lambda done, total: advance(
                        done, total, say("rebuilding", done=done, total=total)
                    ),
                )
            )
    else:
        done = rebuild.rebuild_blocks(node.data_dir, genesis)
    view = done._asdict()
    facts = {**view, "config": config}
    is_state = done.store == Store.STATE
    text = say("rebuilt_state", **facts) if is_state else say("rebuilt_blocks", **facts)
    console.show(view, text, as_json=as_json)
