"""Where state trees are kept in tests: dictionaries, filled from what a block changed."""


class MemoryTrees:
    """Implements `ledger.state_tree.TreeReader`."""

    def __init__(self):
        self.values, self.roots, self.nodes, self.tips, self.rows = {}, {}, {}, {}, []
        self.newest = []

    def get(self, key, /):
        return self.values.get(key)

    def written_roots(self):
        return self.newest

    def tree_roots(self):
        return self.roots.items()

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
        for grown in changes.logs:
            self.tips[grown.log] = grown.tip
        self.newest = [(height, changes.namespaces_root, changes.writes_root)]
