"""What a node takes from the machine it runs on, in one place, so that a simulator can give it.

Nothing here decides. A node owns the stores of its ports and closes them at its end. Keys, genesis
and configuration are not of the machine: whoever makes a node has read and checked them.
"""

import secrets
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from ledger.store.bodies import BodyFiles
from ledger.store.disk import OPERATING_SYSTEM_DISK, Disk
from ledger.store.leveldb import LevelStore
from ledger.store.port import Bodies, KeyValueStore
from node.clock import Clock, SystemClock
from node.config import NodeConfig
from node.disk_space import Usage
from p2p.tls import TlsFiles
from p2p.transport import TlsTransport, Transport


@dataclass(frozen=True, slots=True)
class Ports:
    """The machine as a node sees it.

    `disk` holds the log; `usage` tells how full the disk of a folder is; `jitter` gives numbers in
    [0, 1); `random_bytes(n)` must be unpredictable.
    """

    clock: Clock
    transport: Transport
    state: KeyValueStore
    blocks: KeyValueStore
    bodies: Bodies
    disk: Disk
    usage: Callable[[Path], Usage]
    jitter: Callable[[], float]
    random_bytes: Callable[[int], bytes]

    def close(self) -> None:
        """Close the stores."""
        self.state.close()
        self.blocks.close()
        self.bodies.close()


def real_ports(config: NodeConfig) -> Ports:
    """This machine: its clock, its network, and the stores in the data folder.

    Raises: UnavailableError, StoreDamagedError; each names the file.
    """
    data, tls = config.node.data_dir, config.tls
    return Ports(
        clock=SystemClock(),
        transport=TlsTransport(TlsFiles(tls.certificate_file, tls.key_file, tls.authority_file)),
        state=LevelStore(data / "state"),
        blocks=LevelStore(data / "blocks"),
        bodies=BodyFiles(data / "bodies"),
        disk=OPERATING_SYSTEM_DISK,
        usage=shutil.disk_usage,
        jitter=secrets.SystemRandom().random,
        random_bytes=secrets.token_bytes,
    )
