"""The command `kanglian`: commands and their options; what they do lives below.

Every command takes `--json`; then standard output holds exactly JSON. Exit codes stand in
rpc/console.py, all texts in node/messages.py. Modules are imported inside the commands that need
them, so that `kanglian --help` comes at once.
"""
# ruff: noqa: PLC0415 - see above

import os
import sys
from dataclasses import asdict
from pathlib import Path

import click

from node import messages
from node.messages import say
from rpc import console
from rpc.commands.base import ANY_PATH, FILE, FOLDER
from rpc.commands.base import command as _command
from rpc.commands.base import option as _option
from rpc.commands.release import add_commands

messages.language.set(messages.language_of(sys.argv, os.environ))


def _set_language(_context: click.Context, _option: click.Parameter, chosen: str | None) -> None:
    named = [] if chosen is None else ["--lang", chosen]
    messages.language.set(messages.language_of(named, os.environ))


@click.group(help=say("help"))
@click.version_option(package_name="kanglian", prog_name="kanglian")
@_option(
    "lang",
    type=click.Choice(["en", "zh"]),
    is_eager=True,
    expose_value=False,
    callback=_set_language,
)
def main() -> None:
    """Entry point of the distribution."""


# ---- development networks ---------------------------------------------------------------------


@main.group(help=say("help_devnet"))
def devnet() -> None:
    """Processes of a development network."""


@_command(devnet, "up")
@click.argument("directory", type=FOLDER)
@_option("nodes", type=click.IntRange(1, 100))
@_option("base_port", type=int, default=26_600, show_default=True)
@_option("detach", is_flag=True)
def devnet_up(
    directory: Path, nodes: int | None, base_port: int, detach: bool, as_json: bool
) -> None:
    """Create what is absent, start what does not run, wait until all answer."""
    from rpc.development import Network

    network = Network(directory)
    state = network.raise_up(nodes, base_port)
    facts = {"count": len(state.nodes), "directory": directory, "key": state.account_key}
    text = say("network_detached" if detach else "network_ready", **facts)
    console.show(state, text, as_json=as_json)
    if not detach:
        network.stay()


@_command(devnet, "status")
@click.argument("directory", type=FOLDER)
def devnet_status(directory: Path, as_json: bool) -> int:
    """Every node with what it answers; 3 when none does."""
    from rpc.development import Network, node_line, node_view

    looks = Network(directory).looks()
    view = {"nodes": [{**node_view(node), "info": look} for node, look in looks]}
    text = "\n".join(node_line(node, look) for node, look in looks)
    console.show(view, text, as_json=as_json)
    return 0 if any(look for _, look in looks) else console.EXIT_UNAVAILABLE


@_command(devnet, "down")
@click.argument("directory", type=FOLDER)
def devnet_down(directory: Path, as_json: bool) -> None:
    """Stop every node, politely first."""
    from rpc.development import Network

    processes = Network(directory).processes
    processes.stop()
    console.show(processes.state(), say("network_stopped"), as_json=as_json)


@_command(devnet, "kill")
@click.argument("directory", type=FOLDER)
@click.argument("name", metavar="NODE")
def devnet_kill(directory: Path, name: str, as_json: bool) -> None:
    """SIGKILL."""
    from rpc.development import Network

    processes = Network(directory).processes
    processes.kill(name)
    console.show(processes.state(), say("node_killed", name=name), as_json=as_json)


@_command(devnet, "start")
@click.argument("directory", type=FOLDER)
@click.argument("name", metavar="NODE")
def devnet_start(directory: Path, name: str, as_json: bool) -> None:
    """Start one node and wait until it answers."""
    from rpc.development import Network

    state = Network(directory).start_again(name)
    console.show(state, say("node_ready", name=name), as_json=as_json)


# ---- keys, authority, genesis -----------------------------------------------------------------


@main.group(help=say("help_key"))
def key() -> None:
    """Key files."""


@_command(key, "new")
@click.argument("path", type=FILE)
@_option("kind", type=click.Choice(["terminal", "node"]), default="terminal", show_default=True)
@_option(
    "key_type",
    "--type",
    "key_type",
    type=click.Choice(["secp256k1", "p256"]),
    default="secp256k1",
    show_default=True,
)
@_option("passphrase_file", type=FILE)
@_option("unencrypted", is_flag=True)
def key_new(
    path: Path,
    kind: str,
    key_type: str,
    passphrase_file: Path | None,
    unencrypted: bool,
    as_json: bool,
) -> None:
    """Make a key file."""
    from ledger.addresses import AddressKind
    from ledger.crypto.keys import KEY_TYPE_NAMES
    from node.keystore import new_secret, save_key

    passphrase = None if unencrypted else console.new_passphrase(passphrase_file, path)
    made = save_key(
        path,
        new_secret(),
        AddressKind[kind.upper()],
        passphrase,
        key_type=KEY_TYPE_NAMES[key_type],
    )
    if unencrypted:
        console.note(say("development_key", path=path))
    text = say("key_made", address=made.address, path=path)
    console.show(console.public_view(made.public), text, as_json=as_json)


@_command(key, "show")
@click.argument("path", type=FILE)
def key_show(path: Path, as_json: bool) -> None:
    """Show what may be shown."""
    from node.keystore import load_public

    view = console.public_view(load_public(path))
    console.show(view, say("key_lines", **view), as_json=as_json)


@_command(key, "address")
@click.argument("path", type=FILE)
def key_address(path: Path, as_json: bool) -> None:
    """The address alone, for scripts."""
    from node.keystore import load_public

    address = load_public(path).address
    console.show({"address": address}, address, as_json=as_json)


@main.group(help=say("help_ca"))
def ca() -> None:
    """The authority of a consortium."""


@_command(ca, "init")
@click.argument("directory", type=FOLDER)
@_option("authority_name", "--name", default="Kanglian consortium")
@_option("passphrase_file", type=FILE)
@_option("unencrypted", is_flag=True)
def ca_init(
    directory: Path, name: str, passphrase_file: Path | None, unencrypted: bool, as_json: bool
) -> None:
    """Make a root certificate and its key."""
    from genesis.authority import create_root, fingerprint, save_authority

    certificate, key_path = directory / "authority.crt", directory / "authority.key"
    passphrase = None if unencrypted else console.new_passphrase(passphrase_file, key_path)
    root = create_root(name, console.utc(console.now_ms()))
    directory.mkdir(parents=True, exist_ok=True, mode=0o700)
    save_authority(root, certificate, key_path, passphrase)
    if unencrypted:
        console.note(say("development_key", path=key_path))
    view = {
        "certificate": str(certificate),
        "fingerprint": fingerprint(root.certificate_pem).hex(),
    }
    console.show(view, say("authority_made", **view), as_json=as_json)


@_command(ca, "issue")
@click.argument("address")
@_option("authority", type=FOLDER, required=True)
@_option("issue_out", "--out", type=FOLDER, required=True)
@_option("passphrase_file", type=FILE)
@_option("readmit", is_flag=True)
def ca_issue(
    address: str,
    authority: Path,
    out: Path,
    passphrase_file: Path | None,
    readmit: bool,
    as_json: bool,
) -> None:
    """Issue a node's certificate for 90 days."""
    from genesis.authority import issue_node, load_authority, public_key_hash, save_node
    from genesis.register import check_issue, read_register, with_issued, write_register
    from ledger.addresses import decode_text

    now = console.utc(console.now_ms())
    address_hex = decode_text(address)[1].hex()
    key_path = authority / "authority.key"
    register = read_register(authority / "register.json")
    check_issue(register, address, readmit=readmit)
    passphrase = console.authority_passphrase(key_path, passphrase_file)
    root = load_authority(authority / "authority.crt", key_path, passphrase, now)
    out.mkdir(parents=True, exist_ok=True, mode=0o700)
    certificate = out / "tls.crt"
    issued = issue_node(root, address_hex, now)
    name = public_key_hash(issued.certificate_pem)
    # Written first: a certificate that the register does not know could never be revoked by name.
    known = with_issued(register, address, name, console.now_ms())
    write_register(authority / "register.json", known)
    save_node(issued, certificate, out / "tls.key")
    view = {"certificate": str(certificate), "key": str(out / "tls.key"), "address": address}
    text = say("certificate_issued", certificate=certificate, address=address)
    console.show(view, text, as_json=as_json)


@_command(ca, "revoke")
@click.argument("address")
@_option("authority", type=FOLDER, required=True)
@_option("reason", required=True)
@_option("certificate_file", "--certificate", "certificate_file", type=FILE)
def ca_revoke(
    address: str, authority: Path, reason: str, certificate_file: Path | None, as_json: bool
) -> None:
    """Take a node's certificates back, and say what the members have to vote on."""
    from genesis.register import revoke_node

    path = authority / "register.json"
    revoked = revoke_node(path, address, reason, certificate_file, console.now_ms())
    view = {"address": address, "certificates": [item.certificate for item in revoked]}
    facts = [{"address": address, "certificate": item.certificate} for item in revoked]
    text = "\n".join(say("certificate_revoked", **fact) for fact in facts)
    console.show(view, text, as_json=as_json)


@main.group(help=say("help_genesis"))
def genesis() -> None:
    """The birth of a chain."""


@_command(genesis, "build")
@click.argument("description", type=FILE)
@_option("genesis_out", "--out", type=FILE, required=True)
def genesis_build(description: Path, out: Path, as_json: bool) -> None:
    """Build, check and write a genesis."""
    from genesis.networks import genesis_of_description, write_genesis
    from ledger.genesis import genesis_hash

    built = genesis_of_description(description, console.now_ms())
    write_genesis(out, built)
    view = {
        "path": str(out),
        "genesis_hash": genesis_hash(built).hex(),
        "nodes": len(built.nodes),
        "accounts": len(built.accounts),
    }
    console.show(view, say("genesis_built", **view), as_json=as_json)


# ---- nodes and chains -------------------------------------------------------------------------


@main.group(help=say("help_node"))
def node() -> None:
    """One node."""


@_command(node, "run")
@_option("config", type=FILE, required=True)
def node_run(config: Path, as_json: bool) -> None:  # noqa: ARG001 - `_guarded` reads it
    """Run until SIGTERM or SIGINT; the log goes where the configuration says."""
    from node.config import load_config

    loaded = load_config(config, os.environ)
    import trio

    from rpc.daemon import run

    key_file, passphrase_file = loaded.node.key_file, loaded.node.passphrase_file
    trio.run(run, loaded, console.passphrases(passphrase_file, key_file))


@_command(node, "scrub")
@_option("config", type=FILE, required=True)
def node_scrub(config: Path, as_json: bool) -> None:
    """All that is stored is what headers commit to, or this ends with the name of the damage."""
    from rpc.stores import scrub

    scrub(config, as_json=as_json)


@_command(node, "rebuild")
@_option("config", type=FILE, required=True)
@_option("store", type=click.Choice(["state", "blocks"]), required=True)
def node_rebuild(config: Path, store: str, as_json: bool) -> None:
    """A new store in the place of a damaged one, which is set aside."""
    from rpc.stores import rebuild_store

    rebuild_store(config, store, as_json=as_json)


add_commands(node, _command, _option, console.now_ms)


@_command(main, "info")
@_option("rpc", "url", required=True)
def info(url: str, as_json: bool) -> None:
    """One look at a node."""
    from rpc.client import Client

    with Client(url) as client:
        view = client.getinfo()
    console.show(view, say("info_lines", **view), as_json=as_json)


@_command(main, "register")
@click.argument("paths", nargs=-1, required=True, type=ANY_PATH)
@_option("rpc", "url", required=True)
@_option("key", "key_path", type=FILE, required=True)
@_option("passphrase_file", type=FILE)
@_option("register_out", "--out", type=FOLDER)
@_option("envelope", type=click.IntRange(1, 500))
@_option("module", default="emr", show_default=True)
@_option("level", type=click.IntRange(0, 255), default=0)
@_option("genesis", "genesis_path", type=FILE)
def register(
    paths: tuple[Path, ...],
    url: str,
    key_path: Path,
    passphrase_file: Path | None,
    out: Path | None,
    envelope: int | None,
    module: str,
    level: int,
    genesis_path: Path | None,
    as_json: bool,
) -> int:
    """Register resources and wait until each has a height."""
    from genesis.networks import read_genesis
    from node.keystore import load_key
    from rpc.client import Client, account_signer
    from rpc.fhir import find_files
    from rpc.registration import Progress, Registrar, Settings

    files = find_files(paths)
    loaded = load_key(key_path, console.passphrases(passphrase_file, key_path))
    anchor = None if genesis_path is None else read_genesis(genesis_path)
    if out is None:
        console.note(say("no_openings"))
    with Client(url, anchor) as client, console.progress() as advance:
        settings = Settings(module, level, envelope or 0, out)
        signer = account_signer(loaded, client.chain())

        def on_progress(state: Progress) -> None:
            facts = asdict(state)
            advance(state.registered, state.total, say("register_progress", **facts))
            if as_json:
                console.show_line(facts)

        registrar = Registrar(client, signer, settings, client.signing_clock(console.now_ms))
        done = registrar.run(files, on_progress)
    if as_json:
        console.show_line({"transactions": [one.id for one in done]})
    else:
        heights = [one.block_height for one in done]
        first, last = min(heights), max(heights)
        console.note(say("registered", count=len(done), first=first, last=last))
    refused = [one.status for one in done if one.status != "OK"]
    if refused:
        console.note(say("not_ok", count=len(refused), status=refused[0]))
    return console.EXIT_NO if refused else 0


@main.group(help=say("help_tx"))
def tx() -> None:
    """Transactions."""


@_command(tx, "get")
@click.argument("transaction_id", metavar="ID")
@_option("rpc", "url", required=True)
def tx_get(transaction_id: str, url: str, as_json: bool) -> None:
    """A transaction with its outputs."""
    from rpc.client import Client

    with Client(url) as client:
        view = client.get_transaction(transaction_id)
    console.show(view, console.transaction_text(view), as_json=as_json)


@_command(tx, "proof")
@click.argument("transaction_id", metavar="ID")
@_option("rpc", "url", required=True)
def tx_proof(transaction_id: str, url: str, as_json: bool) -> None:
    """The proof document."""
    from rpc.client import Client

    with Client(url) as client:
        proof = client.get_proof(transaction_id).to_json()
    text = say("proof_lines", id=transaction_id, size=len(proof))
    sys.stdout.write(proof.decode() if as_json else text + "\n")


from rpc.commands.backup import backup  # noqa: E402 - their help needs the language
from rpc.commands.light import light  # noqa: E402
from rpc.commands.members import member  # noqa: E402
from rpc.commands.proofs import proof  # noqa: E402

main.add_command(backup)
main.add_command(light)
main.add_command(member)
main.add_command(proof)


@main.group(help=say("help_bench"))
def bench() -> None:
    """Measurements."""


@_command(bench, "quick")
def bench_quick(as_json: bool) -> int:
    """Throughput, latency and CPU on this machine."""
    from bench import quick

    return quick.main(json_output=as_json)


@_command(bench, "flood")
def bench_flood(as_json: bool) -> int:
    """Block times under a flood of requests."""
    from bench import flood

    return flood.main(json_output=as_json)


if __name__ == "__main__":
    main(prog_name="kanglian")
