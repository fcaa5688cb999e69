"""Scanners of one hash key and of the whole table."""

from pypegasus.utils.tools import ScanOptions
from twisted.internet import defer

from checks import OK, outcome

# More than two of the client's own batches of 1,000.
ROWS = 2500
# No row of these checks has a sort key as large as this. The client cannot scan without an end on Python 3.
END = "~"


def options(batch=1000, start_inclusive=True, stop_inclusive=False):
    scan = ScanOptions()
    scan.batch_size = batch
    scan.start_inclusive = start_inclusive
    scan.stop_inclusive = stop_inclusive
    return scan


class Scans:
    def __init__(self, checks, client, prefix):
        self.checks = checks
        self.client = client
        self.prefix = prefix

    @defer.inlineCallbacks
    def fill(self, hash_key, keys):
        for first in range(0, len(keys), 500):
            rows = {key: "value of " + key for key in keys[first:first + 500]}
            got = yield outcome(self.client.multi_set(hash_key, rows))
            self.checks.equal("multi set", got, (OK, None))

    @defer.inlineCallbacks
    def read(self, scanner):
        """All rows of a scanner, and how many had keys that are not text: the client cannot show those."""
        rows, binary = [], 0
        while True:
            try:
                row = yield scanner.get_next()
            except UnicodeDecodeError:
                binary += 1
                continue
            if row is None:
                return rows, binary
            rows.append(row)

    @defer.inlineCallbacks
    def scan(self, what, hash_key, start, stop, scan, want):
        rows, binary = yield self.read(self.client.get_scanner(hash_key, start, stop, scan))
        self.checks.equal(what, [sort_key for (_, sort_key), _ in rows], want)
        wrong = [row for row in rows if row[0][0] != hash_key or row[1] != b"value of " + row[0][1].encode()]
        self.checks.equal(what + ": wrong rows", (wrong, binary), ([], 0))

    @defer.inlineCallbacks
    def hash_scanners(self):
        key = self.prefix + "scan"
        yield self.fill(key, ["a", "ab", "abc", "b", "ba", "c", "d"])
        yield self.fill(key + "0", ["neighbour"])
        for batch in [1, 2, 1000]:
            yield self.scan("all", key, "", END, options(batch), ["a", "ab", "abc", "b", "ba", "c", "d"])
            yield self.scan("from", key, "b", END, options(batch), ["b", "ba", "c", "d"])
            yield self.scan("from, exclusive", key, "b", END, options(batch, False), ["ba", "c", "d"])
            yield self.scan("to", key, "", "b", options(batch), ["a", "ab", "abc"])
            yield self.scan("to, inclusive", key, "", "b", options(batch, True, True), ["a", "ab", "abc", "b"])
            yield self.scan("one", key, "c", "c", options(batch, True, True), ["c"])
            yield self.scan("nothing", key, "x", "y", options(batch), [])
            yield self.scan("backwards", key, "d", "a", options(batch), [])
        key, keys = self.prefix + "large scan", ["%05d" % i for i in range(ROWS)]
        yield self.fill(key, keys)
        for batch in [100, 1000, 5000]:
            yield self.scan("large scan, batch %d" % batch, key, "", END, options(batch), keys)
        yield self.scan("middle", key, keys[1000], keys[1250], options(100), keys[1000:1250])

    @defer.inlineCallbacks
    def unordered(self):
        want = {}
        for number in range(300):
            key = "%sunordered%d" % (self.prefix, number)
            yield self.fill(key, ["x", "y%d" % number])
            for sort_key in ["x", "y%d" % number]:
                want[(key, sort_key)] = ("value of " + sort_key).encode()
        for asked, scanners, batch in [(1, 1, 1000), (3, 3, 100), (100, 8, 50)]:
            what = "unordered scan by %d" % asked
            found = self.client.get_unordered_scanners(asked, options(batch))
            self.checks.equal(what, len(found), scanners)
            seen, twice = {}, 0
            for scanner in found:
                rows, _ = yield self.read(scanner)
                for name, value in rows:
                    if name[0].startswith(self.prefix + "unordered"):
                        twice += name in seen
                        seen[name] = value
            self.checks.equal(what + ": rows", len(seen), len(want))
            self.checks.equal(what + ": rows as they are", seen == want, True)
            self.checks.equal(what + ": rows that came twice", twice, 0)
        self.checks.equal("no scanners", self.client.get_unordered_scanners(0, options()), None)

    @defer.inlineCallbacks
    def closing(self):
        """Closes scanners in the middle. That request has no answer; an answer would end the connection."""
        key = self.prefix + "large scan"
        for _ in range(3):
            scanner = self.client.get_scanner(key, "", END, options(10))
            for number in range(15):
                row = yield scanner.get_next()
                self.checks.equal("next before close", row, ((key, "%05d" % number), b"value of %05d" % number))
            scanner.close()
            got = yield outcome(self.client.get(key, "00000"))
            self.checks.equal("get after close", got, (OK, b"value of 00000"))
