"""What `kanglian light` says, in both languages: a part of the catalogue of node/messages.py."""
# ruff: noqa: RUF001 - Chinese sentences have Chinese punctuation

from collections.abc import Mapping

from node.phrase import Phrase

LIGHT_PHRASES: Mapping[str, Phrase] = {
    "help_light": Phrase(
        "A client that keeps no blocks and believes no node.",
        "轻客户端：不保存区块，也不相信任何节点。",
    ),
    "help_light_sync": Phrase(
        "Follow the chain from a genesis or a trust to its newest header.",
        "从创世文件或既有信任出发，跟随到链的最新区块头。",
    ),
    "help_light_get": Phrase(
        "Fetch a transaction, operation or header from any node, and prove it.",
        "从任意节点获取交易、操作或区块头，并加以证明。",
    ),
    "help_light_verify": Phrase(
        "Verify a proof file under the trust, however old the proof is.",
        "依据信任验证证明文件，无论证明有多旧。",
    ),
    "option_state": Phrase("File of the trust (mode 0600).", "保存信任的文件（权限 0600）。"),
    "option_trust": Phrase(
        "A trust file of somebody you know, to begin with.",
        "作为起点的信任文件，来自你认识的人。",
    ),
    "option_trust_days": Phrase(
        "How many days a trusted header may vouch for newer ones; 14 where nobody says.",
        "可信区块头可为更新区块头担保的天数；未指定时为 14。",
    ),
    "option_witness": Phrase(
        "Another node to compare with; can be given several times, and is remembered.",
        "用于比对的另一个节点；可多次给出，并会被记住。",
    ),
    "option_sequential": Phrase(
        "Check every header, not only those that change the validators.",
        "逐个检查区块头，而不只是变更验证者的区块头。",
    ),
    "option_light_rpc": Phrase(
        "A node to fetch what is missing from; it need not be trusted.",
        "用于获取所缺内容的节点；无需信任该节点。",
    ),
    "option_light_out": Phrase(
        "Where to write the proof, led to the trusted header.",
        "证明文件的写入位置（已锚定到可信区块头）。",
    ),
    "light_needs_start": Phrase(
        "{path} does not exist yet: begin with --genesis FILE or --trust FILE",
        "{path} 尚不存在：请用 --genesis FILE 或 --trust FILE 开始",
    ),
    "light_has_start": Phrase(
        "{path} holds a trust already; --trust begins another one: choose another --state",
        "{path} 已保存信任；--trust 用于开始新的信任：请另选 --state",
    ),
    "light_begins": Phrase(
        "trust begins with header {height}, {hash}: compare it with what others hold",
        "信任始于区块头 {height}，{hash}：请与他人所持的比对",
    ),
    "light_progress": Phrase(
        "height {height} of {target}, {headers} headers checked",
        "高度 {height}／{target}，已检查 {headers} 个区块头",
    ),
    "light_synced": Phrase(
        "header {height}, {hash}\nof {time} ({age} ago), {validators} validators\n"
        "checked {headers} headers, {changes} changes of validators",
        "区块头 {height}，{hash}\n时间 {time}（{age}前），{validators} 个验证者\n"
        "已检查 {headers} 个区块头，{changes} 次验证者变更",
    ),
    "light_witness": Phrase(
        "witness {witness}: {standing} {detail}",
        "见证节点 {witness}：{standing} {detail}",
    ),
    "light_no_witness": Phrase(
        "no witness was named: one node alone was asked (--witness URL)",
        "未指定见证节点：只询问了一个节点（--witness URL）",
    ),
    "light_fork": Phrase(
        "THE CHAIN HAS FORKED at height {height}.\nshown by {nodes}\n"
        "signed both: {signed_both}\nguilty (one round): {guilty}\nevidence: {path}\n"
        "Trust nothing of this chain until its members have looked.",
        "链在高度 {height} 处分叉。\n出示者：{nodes}\n同时签署两者：{signed_both}\n"
        "有罪（同一轮次）：{guilty}\n证据：{path}\n在成员查清之前，请勿相信此链的任何内容。",
    ),
    "light_header": Phrase(
        "PROVEN: header {height}, {hash}\nof {time} ({age} ago)\nunder trusted header {trusted}",
        "已证明：区块头 {height}，{hash}\n时间 {time}（{age}前）\n依据可信区块头 {trusted}",
    ),
    "light_transaction": Phrase(
        "PROVEN: {operation}\nby {account}: {contract}.{method} in {module} level {level}\n"
        "succeeded at height {height}, {time} ({age} ago)\nunder trusted header {trusted}",
        "已证明：{operation}\n账户 {account}：{contract}.{method}，模块 {module}，级别 {level}\n"
        "于高度 {height} 成功，{time}（{age}前）\n依据可信区块头 {trusted}",
    ),
    "light_failed": Phrase(
        "PROVEN: {transaction} stands at height {height}, {time}, and did not succeed: {statuses}",
        "已证明：{transaction} 位于高度 {height}，{time}，未成功：{statuses}",
    ),
    "light_bad_id": Phrase(
        "ID is a height (1, 2, ...) or 64 lower-case hexadecimal digits",
        "ID 应为高度（1、2、……）或 64 位小写十六进制数",
    ),
    "light_nothing_to_write": Phrase(
        "--out writes the proof of an operation that succeeded; there is none here",
        "--out 写入的是成功操作的证明；此处没有",
    ),
    "error_fork": Phrase("the chain has forked", "链已分叉"),
}
