"""What the command line says, in English and in Chinese.

What it decides: which language, and the words. Every sentence exists in both with the same facts in
braces; a test holds them together. What it never does: print.
"""
# ruff: noqa: RUF001 - Chinese sentences have Chinese punctuation

from collections.abc import Mapping, Sequence
from contextvars import ContextVar
from enum import StrEnum, unique

from node.backup_phrases import BACKUP_PHRASES
from node.light_phrases import LIGHT_PHRASES
from node.phrase import Phrase
from node.proof_phrases import PROOF_PHRASES


@unique
class Language(StrEnum):
    """The languages of the command line."""

    ENGLISH = "en"
    CHINESE = "zh"


def language_of(arguments: Sequence[str], environment: Mapping[str, str]) -> Language:
    """The language of a call: `--lang`, else the locale; anything but Chinese is English."""
    for index, argument in enumerate(arguments):
        if argument == "--lang" and index + 1 < len(arguments):
            return _language(arguments[index + 1])
        if argument.startswith("--lang="):
            return _language(argument.removeprefix("--lang="))
    return _language(environment.get("LC_ALL") or environment.get("LANG") or "")


def _language(name: str) -> Language:
    return Language.CHINESE if name.lower().startswith("zh") else Language.ENGLISH


language: ContextVar[Language] = ContextVar("language", default=Language.ENGLISH)
"""The language of this call; the command line sets it once."""


def say(key: str, /, **facts: object) -> str:
    """The sentence of `key` in the language of this call, with its facts filled in."""
    phrase = PHRASES[key]
    text = phrase.zh if language.get() is Language.CHINESE else phrase.en
    return text.format(**facts)


PHRASES: Mapping[str, Phrase] = {
    # ---- help: commands ----
    "help": Phrase(
        "Kanglian, a permissioned blockchain for health data.", "康链：面向健康数据的许可链。"
    ),
    "help_devnet": Phrase("A network for development on this machine.", "本机开发网络。"),
    "help_devnet_up": Phrase(
        "Start the network in DIRECTORY; create what is absent.",
        "启动 DIRECTORY 中的网络；缺少的文件会自动创建。",
    ),
    "help_devnet_down": Phrase("Stop all nodes.", "停止全部节点。"),
    "help_devnet_status": Phrase("Show every node.", "显示每个节点的状态。"),
    "help_devnet_kill": Phrase(
        "End one node at once, like a power cut.", "立即终止一个节点，如同断电。"
    ),
    "help_devnet_start": Phrase("Start one node again.", "重新启动一个节点。"),
    "help_key": Phrase("Key files.", "密钥文件。"),
    "help_key_new": Phrase("Make a new key file.", "新建密钥文件。"),
    "help_key_show": Phrase("Show the public half of a key file.", "显示密钥文件的公开部分。"),
    "help_key_address": Phrase("Print the address of a key file.", "输出密钥文件的地址。"),
    "help_ca": Phrase("The certificate authority of a consortium.", "联盟的证书颁发机构 (CA)。"),
    "help_ca_init": Phrase("Make a new authority in DIRECTORY.", "在 DIRECTORY 中新建 CA。"),
    "help_ca_issue": Phrase(
        "Issue a TLS certificate for the node ADDRESS.", "为节点 ADDRESS 签发 TLS 证书。"
    ),
    "help_ca_revoke": Phrase(
        "Revoke the TLS certificates of the node ADDRESS.", "吊销节点 ADDRESS 的 TLS 证书。"
    ),
    "help_member": Phrase("Nodes of the chain, by votes.", "链的成员节点（投票决定）。"),
    "help_member_propose": Phrase("Propose a change of the members.", "提议成员变更。"),
    "help_propose_add": Phrase("Add a node by its PUBLIC_KEY.", "以公钥 PUBLIC_KEY 加入节点。"),
    "help_propose_remove": Phrase("Remove the node ADDRESS.", "移除节点 ADDRESS。"),
    "help_propose_role": Phrase("Give the node ADDRESS another role.", "变更节点 ADDRESS 的角色。"),
    "help_propose_revoke": Phrase(
        "Revoke a TLS certificate of the node ADDRESS, as `ca revoke` names it.",
        "吊销节点 ADDRESS 的 TLS 证书（由 `ca revoke` 给出）。",
    ),
    "help_propose_restore": Phrase(
        "Lift the revocation of a TLS certificate.", "撤销对 TLS 证书的吊销。"
    ),
    "help_propose_file": Phrase(
        "Propose the changes of a JSON file together.", "一并提议 JSON 文件中的变更。"
    ),
    "help_member_vote": Phrase("Vote for the proposal ID.", "为提案 ID 投赞成票。"),
    "help_member_list": Phrase("List nodes and open proposals.", "列出节点和未决提案。"),
    "help_member_show": Phrase("Show the proposal ID.", "显示提案 ID。"),
    "help_genesis": Phrase("The birth of a chain.", "链的创世。"),
    "help_genesis_build": Phrase(
        "Build genesis.json from a TOML description.", "由 TOML 描述文件生成 genesis.json。"
    ),
    "help_node": Phrase("One node.", "单个节点。"),
    "help_node_run": Phrase("Run a node until it is told to stop.", "运行节点，直到收到停止信号。"),
    "help_node_scrub": Phrase(
        "Check everything a stopped node has stored.", "检查已停止节点的全部存储数据。"
    ),
    "help_node_rebuild": Phrase(
        "Make a damaged store anew; the old one is set aside.",
        "重建损坏的存储；原有数据另行保留。",
    ),
    "help_register": Phrase(
        "Register the indexes of FHIR files or folders.", "登记 FHIR 文件或文件夹的数据索引。"
    ),
    "help_tx": Phrase("Transactions.", "交易。"),
    "help_tx_get": Phrase("Show a transaction and its outputs.", "显示交易及其输出。"),
    "help_tx_proof": Phrase(
        "Fetch the proof of a transaction; --json prints the proof alone.",
        "获取交易证明；--json 只输出证明本身。",
    ),
    "help_info": Phrase("Show a node and its chain.", "显示节点及其链的信息。"),
    "help_bench": Phrase("Measurements.", "性能测量。"),
    "help_bench_quick": Phrase(
        "Measure throughput with four nodes on this machine.", "在本机用四个节点测量吞吐量。"
    ),
    "help_bench_flood": Phrase(
        "Measure block times while clients flood one of four nodes.",
        "在客户端洪泛攻击四个节点之一时测量出块时间。",
    ),
    # ---- help: options ----
    "option_json": Phrase("Print JSON and nothing else.", "只输出 JSON。"),
    "option_lang": Phrase("Language of texts.", "文字语言。"),
    "option_nodes": Phrase("How many nodes: 1, or 4 and more.", "节点数：1，或 4 及以上。"),
    "option_base_port": Phrase("First port; every node takes two.", "起始端口；每个节点占两个。"),
    "option_detach": Phrase("Return when all nodes answer.", "全部节点应答后返回。"),
    "option_kind": Phrase("What the key is for.", "密钥用途。"),
    "option_key_type": Phrase("Curve of the key.", "密钥曲线。"),
    "option_passphrase_file": Phrase(
        "File with the passphrase (mode 0600).", "口令文件（权限 0600）。"
    ),
    "option_unencrypted": Phrase(
        "Leave the key in plain. For development only.", "密钥不加密。仅供开发。"
    ),
    "option_authority_name": Phrase("Name of the authority.", "CA 名称。"),
    "option_authority": Phrase(
        "Folder with authority.crt and authority.key.",
        "含 authority.crt 和 authority.key 的文件夹。",
    ),
    "option_issue_out": Phrase(
        "Folder for tls.crt and tls.key.", "存放 tls.crt 和 tls.key 的文件夹。"
    ),
    "option_readmit": Phrase(
        "Issue although the last certificate was revoked.", "即使上一张证书已被吊销也签发。"
    ),
    "option_reason": Phrase("Why, in a few words.", "原因，简要说明。"),
    "option_certificate_file": Phrase(
        "A certificate that the register does not know.", "登记簿中没有的证书文件。"
    ),
    "option_organisation": Phrase("Id of the organisation.", "机构标识。"),
    "option_role": Phrase("Role of the node.", "节点角色。"),
    "option_genesis_out": Phrase("Where to write the genesis.", "创世文件的写入位置。"),
    "option_config": Phrase("Configuration file.", "配置文件。"),
    "option_store": Phrase(
        "state: from the node's own blocks; blocks: everything, from its peers.",
        "state：由本节点的区块重建；blocks：全部数据从对等节点重新获取。",
    ),
    "option_rpc": Phrase(
        "RPC address of a node, http://HOST:PORT.", "节点 RPC 地址 http://HOST:PORT。"
    ),
    "option_key": Phrase("Key file of the account.", "账户密钥文件。"),
    "option_register_out": Phrase(
        "Folder for <id>.record and <id>.opening.json.",
        "存放 <id>.record 与 <id>.opening.json 的文件夹。",
    ),
    "option_envelope": Phrase(
        "Sign up to N resources at once (1 to 500).", "每个信封最多签 N 条资源（1 至 500）。"
    ),
    "option_module": Phrase("Module of the indexes.", "索引所属模块。"),
    "option_level": Phrase("Broadcast level.", "广播级别。"),
    "option_genesis": Phrase("Genesis file: the anchor of trust.", "创世文件：信任锚。"),
    "option_record": Phrase("The record's exact bytes.", "记录的原始字节。"),
    "option_opening": Phrase("The opening of the index.", "索引的打开文件。"),
    # ---- what happens ----
    "development": Phrase(
        "DEVELOPMENT NETWORK: keys in {directory} are not encrypted. Never use it for real data.",
        "开发网络：{directory} 中的密钥未加密，切勿用于真实数据。",
    ),
    "development_key": Phrase(
        "DEVELOPMENT KEY: {path} is not encrypted. Never use it for real data.",
        "开发密钥：{path} 未加密，切勿用于真实数据。",
    ),
    "node_ready": Phrase("{name} answers", "{name} 已应答"),
    "network_ready": Phrase(
        "{count} nodes run; account key {key}; Ctrl-C stops them",
        "{count} 个节点运行中；账户密钥 {key}；按 Ctrl-C 停止",
    ),
    "network_detached": Phrase(
        "{count} nodes run; stop them with: kanglian devnet down {directory}",
        "{count} 个节点运行中；停止命令：kanglian devnet down {directory}",
    ),
    "network_stopping": Phrase("stopping all nodes", "正在停止全部节点"),
    "network_stopped": Phrase("all nodes stopped", "全部节点已停止"),
    "node_killed": Phrase("{name} killed", "{name} 已终止"),
    "node_line": Phrase(
        "{name}  {rpc}  pid {pid}  height {height}  peers {peers}",
        "{name}  {rpc}  进程 {pid}  高度 {height}  对等节点 {peers}",
    ),
    "node_silent": Phrase(
        "{name}  {rpc}  pid {pid}  no answer", "{name}  {rpc}  进程 {pid}  无应答"
    ),
    "node_down": Phrase("{name}  {rpc}  not running", "{name}  {rpc}  未运行"),
    "live_height": Phrase("heights: {heights}", "高度：{heights}"),
    "key_made": Phrase("{address} in {path}", "{address}，文件 {path}"),
    "key_lines": Phrase(
        "address     {address}\nkind        {kind}\n"
        "type        {key_type}\npublic key  {public_key}",
        "地址  {address}\n用途  {kind}\n类型  {key_type}\n公钥  {public_key}",
    ),
    "new_passphrase": Phrase("New passphrase for {path}", "为 {path} 设置口令"),
    "repeat_passphrase": Phrase("The same once more", "请再输入一次"),
    "ask_passphrase": Phrase("Passphrase for {path}", "{path} 的口令"),
    "authority_made": Phrase(
        "authority {certificate}, fingerprint {fingerprint}", "CA {certificate}，指纹 {fingerprint}"
    ),
    "certificate_issued": Phrase(
        "certificate {certificate} for {address}", "已为 {address} 签发证书 {certificate}"
    ),
    "certificate_revoked": Phrase(
        "revoked {certificate}\nlinks end once the members have voted: kanglian member propose "
        "revoke {address} {certificate} --rpc URL --key FILE",
        "已吊销 {certificate}\n成员投票通过后连接终止：kanglian member propose "
        "revoke {address} {certificate} --rpc URL --key FILE",
    ),
    "member_line": Phrase(
        "{node}  {name}  {organisation}  {role}  since height {from_height}",
        "{node}  {name}  {organisation}  {role}  自高度 {from_height} 起",
    ),
    "proposal_standing": Phrase(
        "proposal {proposal}: {votes} of {needed} votes", "提案 {proposal}：{votes}/{needed} 票"
    ),
    "proposal_passed": Phrase(
        "proposal {proposal} passed with {votes} votes; it holds from height {from_height} on",
        "提案 {proposal} 以 {votes} 票通过；自高度 {from_height} 起生效",
    ),
    "proposal_lines": Phrase(
        "{proposal}\nby {organisation} at height {height}: {reason}\nvotes: {votes}\n"
        "holds from height {from_height} (0: still open)",
        "{proposal}\n机构 {organisation}，高度 {height}：{reason}\n赞成：{votes}\n"
        "生效高度 {from_height}（0 表示未决）",
    ),
    "change_line": Phrase("  {action} {facts}", "  变更 {action} {facts}"),
    "genesis_built": Phrase(
        "{path}\ngenesis hash {genesis_hash}; {nodes} nodes, {accounts} accounts",
        "{path}\n创世哈希 {genesis_hash}；{nodes} 个节点，{accounts} 个账户",
    ),
    "scrubbing": Phrase("{done} of {total} heights checked", "已检查 {done}/{total} 个高度"),
    "scrubbed": Phrase(
        "every record up to height {height} is what the headers commit to",
        "高度 {height} 及以前的全部记录均与区块头一致",
    ),
    "rebuilding": Phrase("{done} of {total} blocks executed", "已执行 {done}/{total} 个区块"),
    "rebuilt_state": Phrase(
        "state is at height {height}; the old one lies in {set_aside}\n"
        "start the node: kanglian node run --config {config}",
        "状态已重建至高度 {height}；原有数据保留在 {set_aside}\n"
        "启动节点：kanglian node run --config {config}",
    ),
    "rebuilt_blocks": Phrase(
        "the old stores lie in {set_aside}; the node fetches all blocks from its peers and does "
        "not vote before height {voting_from}\nstart it: kanglian node run --config {config}",
        "原有存储保留在 {set_aside}；节点将从对等节点获取全部区块，高度 {voting_from} 之前不投票\n"
        "启动节点：kanglian node run --config {config}",
    ),
    "no_openings": Phrase(
        "without --out no opening is kept: nobody can ever show what these indexes stand for",
        "未指定 --out，不保存打开文件：以后无人能证明这些索引对应的内容",
    ),
    "register_progress": Phrase(
        "{registered} of {total} registered, height {height}",
        "已登记 {registered}/{total}，高度 {height}",
    ),
    "registered": Phrase(
        "{count} resources registered at heights {first} to {last}",
        "已登记 {count} 条资源，高度 {first} 至 {last}",
    ),
    "not_ok": Phrase(
        "{count} of them were refused on chain, the first as {status}",
        "其中 {count} 条在链上被拒绝，第一条状态为 {status}",
    ),
    "info_lines": Phrase(
        "chain {chain_id}, genesis {genesis_hash}\n"
        "height {height}, {transactions} transactions, {operations} operations, {pending} pending\n"
        "{masters} masters ({mode}), {peers} peers, node {node} {version}",
        "链 {chain_id}，创世 {genesis_hash}\n"
        "高度 {height}，交易 {transactions}，操作 {operations}，待处理 {pending}\n"
        "主节点 {masters}（{mode}），对等节点 {peers}，节点 {node} {version}",
    ),
    "transaction_lines": Phrase(
        "{id}\nheight {height}, index {index}, {time}\nmodule {module}, level {level}, "
        "signed by {signed_by}",
        "{id}\n高度 {height}，序号 {index}，{time}\n"
        "模块 {module}，级别 {level}，签名者 {signed_by}",
    ),
    "operation_line": Phrase(
        "  {contract}.{method}: {status} {outputs}", "  {contract}.{method} 状态 {status} {outputs}"
    ),
    "proof_lines": Phrase(
        "proof of {id}, {size} bytes; save it with --json > proof.json, then: kanglian proof "
        "verify proof.json --genesis genesis.json",
        "{id} 的证明，{size} 字节；用 --json > proof.json 保存，然后：kanglian proof verify "
        "proof.json --genesis genesis.json",
    ),
    "proof_holds": Phrase(
        "HOLDS: {operation}\nby {account} ({organisation}): {contract}.{method} in {module} level "
        "{level}\nat height {height}, {time} ({age} ago)\nanchor: genesis {anchor}\n"
        "checked: {checked}",
        "成立：{operation}\n账户 {account}（{organisation}）：{module} 级别 {level} 的 "
        "{contract}.{method}\n高度 {height}，{time}（{age} 前）\n信任锚：创世 {anchor}\n"
        "已核对：{checked}",
    ),
    "checked_proof": Phrase("proof", "证明"),
    "checked_opening": Phrase("opening ({parts})", "打开文件（{parts}）"),
    "checked_record": Phrase("record", "记录"),
    "unknown_organisation": Phrase("added after genesis", "创世后加入"),
    # ---- the demonstration (bench/demo.py) ----
    "demo_network": Phrase(
        "1/7  A network of four: authority, keys, genesis, four processes with mutual TLS",
        "1/7  四节点网络：CA、密钥、创世文件，四个进程以双向 TLS 互联",
    ),
    "demo_records": Phrase(
        "2/7  Made-up Chinese health records (FHIR R4)", "2/7  生成虚构的中文健康记录 (FHIR R4)"
    ),
    "demo_records_made": Phrase(
        "{count} records in {directory}; they stay there, only commitments go on chain",
        "{directory} 中共 {count} 条记录；原文留在本地，上链的只有承诺值",
    ),
    "demo_register": Phrase("3/7  Register their indexes", "3/7  登记数据索引"),
    "demo_registered": Phrase(
        "{count} registered in {seconds} s, {rate} a second from one client",
        "{seconds} 秒内登记 {count} 条，单客户端每秒 {rate} 条",
    ),
    "demo_look": Phrase(
        "4/7  Ask a node: getinfo and get_transaction", "4/7  查询节点：getinfo 与 get_transaction"
    ),
    "demo_proof": Phrase(
        "5/7  A proof, verified without any node: genesis, proof, record and opening are enough",
        "5/7  离线验证证明：只需创世文件、证明、记录和打开文件，无需任何节点",
    ),
    "demo_changed": Phrase(
        "one byte changed in {file}: refused ({reason})",
        "{file} 改动一个字节：验证不通过（{reason}）",
    ),
    "demo_kill": Phrase("6/7  Kill {name} and go on registering", "6/7  终止节点 {name}，继续登记"),
    "demo_return": Phrase("7/7  Start {name} again", "7/7  重新启动 {name}"),
    "demo_caught_up": Phrase(
        "{name} fetched {blocks} blocks and holds the same state as the others after {seconds} s: "
        "height {height}, block {block}",
        "{name} 用 {seconds} 秒补齐 {blocks} 个区块，状态与其他节点一致："
        "高度 {height}，区块 {block}",
    ),
    "demo_done": Phrase("What happened", "小结"),
    "demo_summary": Phrase(
        "{count} records registered, each with a receipt OK; {rate} a second from one client\n"
        "one proof held offline, {changes} changed copies were refused\n"
        "{name} died, the other three went on; it came back to the same block\n"
        "{seconds} s in all; all nodes are stopped",
        "登记记录 {count} 条，回执全部为 OK；单客户端每秒 {rate} 条\n"
        "一份证明离线验证成立，{changes} 份被改动的副本均被拒绝\n"
        "{name} 中断期间其余三个节点照常出块；恢复后区块与其他节点一致\n"
        "总用时 {seconds} 秒；全部节点已停止",
    ),
    "demo_next": Phrase("Where to look next", "接下来可以"),
    "demo_commands": Phrase(
        "{directory}/  holds genesis, keys, records, openings, proof.json and node*/node.log\n"
        "{kanglian} devnet up {directory}      starts the four nodes again\n"
        "{kanglian} info --rpc {rpc}      asks one, from another terminal\n"
        "{kanglian} proof verify {proof} --genesis {genesis} --opening {opening} "
        "--record {record}\n"
        "the same with --record {changed} is refused\n"
        "README.md tells how to use it, ARCHITECTURE.md how it works, `make bench` how fast it is",
        "{directory}/  内有创世文件、密钥、记录、打开文件、proof.json 和 node*/node.log\n"
        "{kanglian} devnet up {directory}      重新启动四个节点\n"
        "{kanglian} info --rpc {rpc}      在另一个终端查询节点\n"
        "{kanglian} proof verify {proof} --genesis {genesis} --opening {opening} "
        "--record {record}\n"
        "将 --record 换成 {changed}，验证即被拒绝\n"
        "使用方法见 README.zh-CN.md，原理见 ARCHITECTURE.md，性能测试用 `make bench`",
    ),
    "demo_interrupted": Phrase("interrupted; all nodes are stopped", "演示已中断，全部节点已停止"),
    # ---- what goes wrong ----
    "error": Phrase("error", "错误"),
    "error_config": Phrase("configuration", "配置错误"),
    "error_file": Phrase("key or certificate file", "密钥或证书文件错误"),
    "error_unavailable": Phrase("not available", "暂不可用"),
    "error_rejected": Phrase("refused", "被拒绝"),
    "error_node": Phrase("the node refused", "节点拒绝"),
    "error_damaged": Phrase("a store is damaged", "存储已损坏"),
    "error_internal": Phrase(
        "a mistake in Kanglian itself; please report it", "康链内部错误，请报告"
    ),
    "record_needs_opening": Phrase(
        "--record says nothing without --opening", "--record 必须与 --opening 一起使用"
    ),
    # ---- statements and release ----
    "help_node_statement": Phrase(
        "Write what a stopped node states of itself, signed, for a release from quarantine.",
        "写出已停止节点的签名陈述，用于解除隔离。",
    ),
    "help_node_release-quarantine": Phrase(
        "Let a stopped node vote again by STATEMENTs of a quorum of the organisations that run "
        "masters of the next height, when more nodes are damaged than the chain bears.",
        "当受损节点超过链的容限时，凭 STATEMENT 让已停止的节点恢复投票；"
        "陈述须来自下一高度主节点所属机构的法定多数。",
    ),
    "option_statement_out": Phrase("Where to write the statement.", "陈述文件的写入位置。"),
    "statement_made": Phrase(
        "{node} states what it knows up to height {height}: {path}",
        "{node} 已陈述其所知（至高度 {height}）：{path}",
    ),
    "statement_damaged": Phrase(
        "{node} is damaged; it states what is left, up to height {height}: {path}",
        "{node} 已受损；已陈述其剩余所知（至高度 {height}）：{path}",
    ),
    "released_locked": Phrase(
        "{node} votes again at height {height} from round {first_round} on, locked on block "
        "{locked_block} of round {locked_round}.\nStated by: {organisations}.",
        "{node} 自高度 {height} 第 {first_round} 轮起恢复投票，锁定于第 {locked_round} 轮的区块 "
        "{locked_block}。\n陈述机构：{organisations}。",
    ),
    "released_free": Phrase(
        "{node} votes again at height {height} from round {first_round} on; no block was close to "
        "a decision.\nStated by: {organisations}.",
        "{node} 自高度 {height} 第 {first_round} 轮起恢复投票；没有接近决定的区块。\n"
        "陈述机构：{organisations}。",
    ),
    "release_warning": Phrase(
        "WARNING: {intact} intact and {damaged} damaged nodes stated what they know. A block that "
        "was decided at height {height}, and whose certificate only damaged nodes held, cannot be "
        "excluded: before you start this node, ask clients whether they hold a receipt of height "
        "{height} or above.",
        "警告：{intact} 个完好节点、{damaged} 个受损节点已作陈述。无法排除高度 {height} 已有区块被"
        "决定、而其证书仅受损节点持有的情形：启动本节点前，请询问客户端是否持有高度 {height} "
        "或更高的回执。",
    ),
    "error_duplicate": Phrase(
        "this node's key is in use elsewhere, or its data is an old copy",
        "本节点的密钥正在别处使用，或其数据是旧副本",
    ),
    # ---- backups ----
    **BACKUP_PHRASES,
    # ---- proofs ----
    **PROOF_PHRASES,
    # ---- light client ----
    **LIGHT_PHRASES,
}
