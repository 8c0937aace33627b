"""Where state trees are kept in tests: dictionaries, filled from what a block changed."""


class MemoryTrees:
    """Implements `ledger.state_tree.TreeReader`."""

    def __init__(self):
        self.values, self.roots, self.nodes, self.tips = {}, {}, {}, {}
        self.logs, self.written, self.newest = {}, {}, []

    def get(self, key, /):
        return self.values.get(key)

    def log_count(self, log, /):
        tip = self.tips.get(log)
        return 0 if tip is None else tip.frontier.count

    def written_roots(self):
        return self.newest

    def tree_roots(self):
        return self.roots.items()

    def tree_root(self, namespace, /):
        return self.roots.get(namespace, b"")

    def tree_node(self, namespace, place, /):
        return self.nodes.get((namespace, place))

    def log_tip(self, log, /):
        return self.tips.get(log)

    def commit(self, height, writes, changes):
        self.values.update(writes.maps)
        self.roots.update(changes.roots)
        for namespace, place, node in changes.nodes:
            if node is None:
                del self.nodes[namespace, place]
            else:
                self.nodes[namespace, place] = node
        for write, grown in zip(writes.logs, changes.logs, strict=True):
            self.tips[grown.log] = grown.tip
            log = self.log(grown.log)
            log.entries += write.entries
            for level, row in enumerate(grown.rows):
                first = grown.first_sequence >> level
                log.nodes.update(((level, first + at), node) for at, node in enumerate(row))
        self.written[height] = changes.namespaces_root, changes.writes_root
        self.newest = [(height, *self.written[height])]

    def log(self, name):
        return self.logs.setdefault(name, MemoryLog())


class MemoryLog:
    """Implements `ledger.proofs.log.LogReader`."""

    def __init__(self):
        self.entries, self.nodes = [], {}

    def entry(self, index, /):
        return self.entries[index]

    def get(self, level, index, /):
        return self.nodes[level, index]
