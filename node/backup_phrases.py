"""What the commands `kanglian backup …` say; a part of the catalogue of node/messages.py."""
# ruff: noqa: RUF001 - Chinese sentences have Chinese punctuation

from collections.abc import Mapping

from node.phrase import Phrase

BACKUP_PHRASES: Mapping[str, Phrase] = {
    "help_backup": Phrase(
        "Backups of a chain: decided blocks, never keys or what a node signed.",
        "链的备份：只含已决定的区块，绝不含密钥或节点的签名状态。",
    ),
    "help_backup_create": Phrase(
        "Write a backup of a node into a new folder; the node may go on running.",
        "将节点备份写入新文件夹；节点可继续运行。",
    ),
    "help_backup_verify": Phrase(
        "Derive everything in a backup again, from genesis on; with --rpc, ask a node as well.",
        "自创世起重新推导备份的全部内容；指定 --rpc 时再与运行中的节点核对。",
    ),
    "help_backup_restore": Phrase(
        "Make the empty data folder of a node from a backup; it starts in quarantine.",
        "由备份恢复节点的空数据文件夹；节点启动后处于隔离状态。",
    ),
    "option_live": Phrase(
        "RPC address of a node whose certificates the backup is compared with.",
        "用其证书核对备份的节点 RPC 地址。",
    ),
    "backing_up": Phrase("{done} of {total} blocks written", "已写入 {done}/{total} 个区块"),
    "comparing_files": Phrase("{done} of {total} files compared", "已核对 {done}/{total} 个文件"),
    "executing_blocks": Phrase(
        "{done} of {total} blocks verified and executed",
        "已验证并执行 {done}/{total} 个区块",
    ),
    "reading_back": Phrase("{done} of {total} heights read back", "已回读 {done}/{total} 个高度"),
    "backup_made": Phrase(
        "{path} holds {chain_name} up to height {height}: {batches} batches, {size} bytes in "
        "{files} files\nblock {block_hash}\n"
        "verify it: kanglian backup verify {path} --genesis FILE",
        "{path} 已保存 {chain_name} 至高度 {height}：{batches} 个批次，{size} 字节，"
        "{files} 个文件\n区块 {block_hash}\n验证：kanglian backup verify {path} --genesis FILE",
    ),
    "backup_holds": Phrase(
        "the backup holds: height {height}, block {block_hash}\nstate root {state_root}; "
        "{transactions} transactions, {operations} operations; every certificate verified from "
        "genesis on",
        "备份成立：高度 {height}，区块 {block_hash}\n状态根 {state_root}；{transactions} 笔交易，"
        "{operations} 个操作；自创世起的全部证书均已验证",
    ),
    "live_confirms": Phrase(
        "{url} shows a certificate of the same block, and the next header has the same state root",
        "{url} 给出同一区块的证书，且下一区块头的状态根相同",
    ),
    "live_same_block": Phrase(
        "{url} shows a certificate of the same block; no block follows it yet",
        "{url} 给出同一区块的证书；其后尚无区块",
    ),
    "restored": Phrase(
        "{data_dir} is at height {height}, state root {state_root}\n"
        "start the node: kanglian node run --config {config}\n"
        "It follows the chain at once and votes again some blocks later, above all that it may "
        "have signed. When more nodes are restored than the chain can miss, nobody decides: then "
        "see `kanglian node statement` and `kanglian node release-quarantine`.",
        "{data_dir} 已恢复至高度 {height}，状态根 {state_root}\n"
        "启动节点：kanglian node run --config {config}\n"
        "节点立即跟随链，越过其可能签名过的全部高度后恢复投票。若恢复的节点数超过链的容错数，"
        "链将停止出块：参见 `kanglian node statement` 与 `kanglian node release-quarantine`。",
    ),
}
