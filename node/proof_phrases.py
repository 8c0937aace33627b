"""What the commands about proofs say; a part of the catalogue of node/messages.py.

Each key has the English and the Chinese sentence, with the same facts in braces.
"""
# ruff: noqa: RUF001 - Chinese sentences have Chinese punctuation

from collections.abc import Mapping

from node.phrase import Phrase

PROOF_PHRASES: Mapping[str, Phrase] = {
    "help_proof": Phrase(
        "Proofs: get them from a node, verify them without one.",
        "证明：获取与离线验证。",
    ),
    "help_proof_verify": Phrase(
        "Verify a proof of any kind offline; exit code 0 only if everything given holds.",
        "离线验证任意种类的证明；仅当全部成立时退出码为 0。",
    ),
    "help_proof_get": Phrase(
        "Get a proof from a node; --json prints the document alone, --out writes it.",
        "向节点获取证明；--json 只输出证明文件，--out 写入文件。",
    ),
    "help_get_state": Phrase(
        "The value of KEY (hexadecimal), or that there is none, in the map "
        "MODULE/LEVEL/CONTRACT/MAP.",
        "映射 MODULE/LEVEL/CONTRACT/MAP 中 KEY（十六进制）的值，或其不存在。",
    ),
    "help_get_log": Phrase(
        "How many entries the log MODULE/LEVEL/CONTRACT/LOG has, and which.",
        "日志 MODULE/LEVEL/CONTRACT/LOG 的条目数及所选条目。",
    ),
    "help_get_completeness": Phrase(
        "All that the heights START to STOP hold of the namespace MODULE/LEVEL.",
        "高度 START 至 STOP 中命名空间 MODULE/LEVEL 的全部内容。",
    ),
    "help_get_receipt": Phrase("What became of the operation ID.", "操作 ID 的执行结果。"),
    "help_get_event": Phrase(
        "Event number INDEX of the operation ID.", "操作 ID 的第 INDEX 个事件。"
    ),
    "help_get_transaction": Phrase(
        "The signed transaction of the operation ID, and what became of it.",
        "操作 ID 所属的已签名交易及其结果。",
    ),
    "help_get_header": Phrase(
        "The old header of HEIGHT under a later one.",
        "较新区块头之下高度 HEIGHT 的旧区块头。",
    ),
    "help_get_history": Phrase(
        "That the history of HEIGHT is the beginning of a later one.",
        "高度 HEIGHT 的历史是较新历史的开头。",
    ),
    "option_proof_height": Phrase(
        "The state after this block; the newest that can be proved by default.",
        "此区块之后的状态；默认为可证明的最新状态。",
    ),
    "option_under": Phrase("The later height; the newest by default.", "较新的高度；默认为最新。"),
    "option_first": Phrase("Position of the first entry to show.", "首个展示条目的位置。"),
    "option_count": Phrase("How many entries to show.", "展示的条目数。"),
    "option_proof_out": Phrase("Where to write the proof.", "证明文件的写入位置。"),
    "option_max_age": Phrase(
        "Refuse a proof whose header is older than so many seconds.",
        "拒绝区块头早于此秒数的证明。",
    ),
    "proof_got": Phrase(
        "a proof of {size} bytes; keep it with --out proof.json, then: kanglian proof verify "
        "proof.json --genesis genesis.json",
        "证明共 {size} 字节；用 --out proof.json 保存，然后：kanglian proof verify proof.json "
        "--genesis genesis.json",
    ),
    "proof_written": Phrase("{path}: a proof of {size} bytes", "{path}：证明，{size} 字节"),
    "holds_value": Phrase(
        "HOLDS: after block {height} the map {contract}.{map} of {module} level {level} had under "
        "key {key} the value\n{value}",
        "成立：区块 {height} 之后，{module} 级别 {level} 的映射 {contract}.{map} 中键 {key} "
        "的值为\n{value}",
    ),
    "holds_absence": Phrase(
        "HOLDS: after block {height} the map {contract}.{map} of {module} level {level} had no "
        "value under key {key}",
        "成立：区块 {height} 之后，{module} 级别 {level} 的映射 {contract}.{map} 中键 {key} 没有值",
    ),
    "holds_log": Phrase(
        "HOLDS: after block {height} the log {contract}.{log} of {module} level {level} had "
        "{count} entries, the last of block {last_height}; {shown} of them shown, from position "
        "{first} on",
        "成立：区块 {height} 之后，{module} 级别 {level} 的日志 {contract}.{log} 有 {count} "
        "个条目，最后一个属于区块 {last_height}；自位置 {first} 起展示 {shown} 个",
    ),
    "holds_completeness": Phrase(
        "HOLDS: of heights {start} to {stop}, exactly {shown} blocks hold something of "
        "{module} level {level}: {transactions} transactions with {receipts} receipts",
        "成立：高度 {start} 至 {stop} 中，有且仅有 {shown} 个区块含 {module} 级别 {level} "
        "的内容：{transactions} 笔交易、{receipts} 个回执",
    ),
    "holds_block": Phrase(
        "  height {height}: {transactions} transactions, {receipts} receipts",
        "  高度 {height}：{transactions} 笔交易，{receipts} 个回执",
    ),
    "holds_receipt": Phrase(
        "HOLDS: the operation {operation}\nin {module} level {level} of block {height}, at "
        "index {index} of {count}: {outcome}",
        "成立：操作 {operation}\n在区块 {height} 的 {module} 级别 {level} 中，序号 {index}"
        "（共 {count} 个）：状态 {outcome}",
    ),
    "holds_event": Phrase(
        "HOLDS: in block {height} the operation {operation} announced {contract}.{event}\n{data}",
        "成立：区块 {height} 中，操作 {operation} 发布了事件 {contract}.{event}\n{data}",
    ),
    "holds_transaction": Phrase(
        "HOLDS: the account {account} signed the transaction {transaction}\nwhose operation "
        "{index} calls {contract}.{method} in {module} level {level}; block {height} holds it: "
        "{outcome}",
        "成立：账户 {account} 签署了交易 {transaction}\n其操作 {index} 在 {module} 级别 {level} "
        "调用 {contract}.{method}；区块 {height} 含此交易：状态 {outcome}",
    ),
    "holds_header": Phrase(
        "HOLDS: the chain decided the header {hash}\nof height {height}, {time}",
        "成立：本链曾决定区块头 {hash}\n高度 {height}，{time}",
    ),
    "holds_history": Phrase(
        "HOLDS: the history below height {size}, with root\n{root}\nwhich the header of that "
        "height holds, is the beginning of the newer one; compare it with what you kept",
        "成立：高度 {size} 之下的历史，其根为\n{root}\n（该高度的区块头含有此根）是较新历史的开头；"
        "请与您所保存的根比较",
    ),
    "holds_under": Phrase(
        "by the header of height {header_height}, {time} ({age} ago)\nanchor: genesis {anchor}",
        "依据高度 {header_height} 的区块头，{time}（{age} 前）\n信任锚：创世 {anchor}",
    ),
}
