"""Every operation on rows, in ranges and with a ttl. Scans are in `scans.py`."""

import os
import time

from pypegasus.base.ttypes import error_types
from pypegasus.pgclient import Pegasus
from pypegasus.rrdb.ttypes import filter_type
from pypegasus.utils.tools import MultiGetOptions
from twisted.internet import defer, reactor, task

from checks import INCOMPLETE, NOT_FOUND, OK, Checks, outcome
from scans import Scans

WAIT_SECONDS = 15


@defer.inlineCallbacks
def run(args):
    suite = Basic(args)
    suite.client = Pegasus([args.meta], args.table, 10000)
    opened = yield suite.client.init()
    if not opened:
        print("open table: no answer about table %s from %s" % (args.table, args.meta))
        return 1
    scans = Scans(suite, suite.client, suite.prefix)
    parts = [
        ("rows", suite.rows), ("sizes", suite.sizes), ("multi set and get", suite.multi), ("ranges", suite.ranges),
        ("limits", suite.limits), ("ttl", suite.ttl), ("concurrent", suite.concurrent),
        ("empty hash key", suite.empty_hash_key), ("hash scanners", scans.hash_scanners),
        ("unordered scanners", scans.unordered), ("closing scanners", scans.closing), ("no such table", suite.no_table),
        ("too large", suite.too_large),
    ]
    for name, part in parts:
        suite.part = name
        before, started = suite.done, time.monotonic()
        yield part()
        print("%-20s %4d checks %6d ms" % (name, suite.done - before, 1000 * (time.monotonic() - started)), flush=True)
    suite.client.close()
    return suite.finish()


def text_rows(*keys):
    return {key: "value of " + key for key in keys}


def byte_rows(*keys):
    return {key.encode(): ("value of " + key).encode() for key in keys}


class Basic(Checks):
    def __init__(self, args):
        super().__init__()
        self.args = args
        # Drawn anew for each run, so that runs on one table do not meet. All hash keys begin with it.
        self.prefix = "py-%s-" % os.urandom(6).hex()
        self.client = None

    @defer.inlineCallbacks
    def is_set(self, hash_key, sort_key, value, ttl=0):
        got = yield outcome(self.client.set(hash_key, sort_key, value, ttl))
        self.equal("set %r" % (sort_key,), got, (OK, None))

    @defer.inlineCallbacks
    def has(self, hash_key, sort_key, want):
        """Checks a row's value; None means that there is no row. Then the client gives an empty value."""
        got = yield outcome(self.client.get(hash_key, sort_key))
        self.equal("get %r" % (sort_key,), got, (NOT_FOUND, b"") if want is None else (OK, want))

    @defer.inlineCallbacks
    def exists(self, hash_key, sort_key, want):
        code, _ = yield outcome(self.client.exist(hash_key, sort_key))
        self.equal("exist %r" % (sort_key,), code, OK if want else NOT_FOUND)

    @defer.inlineCallbacks
    def ttl_within(self, hash_key, sort_key, least, most):
        code, ttl = yield outcome(self.client.ttl(hash_key, sort_key))
        self.equal("ttl %r" % (sort_key,), code, OK)
        self.that("ttl %r" % (sort_key,), ttl is not None and least <= ttl <= most, "%s" % ttl)

    @defer.inlineCallbacks
    def removed(self, hash_key, sort_key):
        got = yield outcome(self.client.remove(hash_key, sort_key))
        self.equal("remove %r" % (sort_key,), got, (OK, None))

    @defer.inlineCallbacks
    def counted(self, hash_key, want):
        got = yield outcome(self.client.sort_key_count(hash_key))
        self.equal("sort key count", got, (OK, want))

    @defer.inlineCallbacks
    def answered(self, what, answer, code, rows):
        got = yield outcome(answer)
        self.equal(what, got, (code, rows))

    @defer.inlineCallbacks
    def rows(self):
        key = self.prefix + "rows"
        yield self.has(key, "sort", None)
        yield self.exists(key, "sort", False)
        yield self.counted(key, 0)
        yield self.is_set(key, "sort", "one")
        yield self.has(key, "sort", b"one")
        yield self.exists(key, "sort", True)
        yield self.ttl_within(key, "sort", -1, -1)
        yield self.is_set(key, "sort", "two")
        yield self.has(key, "sort", b"two")
        yield self.is_set(key, "", "the row with the empty sort key")
        yield self.has(key, "", b"the row with the empty sort key")
        yield self.is_set(key, "empty value", "")
        yield self.has(key, "empty value", b"")
        yield self.exists(key, "empty value", True)
        yield self.counted(key, 3)
        yield self.removed(key, "sort")
        yield self.removed(key, "sort")
        yield self.has(key, "sort", None)
        yield self.counted(key, 2)
        for first, tail in [(b"\0", b""), (b"\xff\xff", b""), (b"", b"\xff\xff"), (b"\0\x80", b"\0")]:
            binary = first + self.prefix.encode() + tail
            for number, sort_key in enumerate([b"\0", b"\xff", b"\xff\xff\xff", b"\0\xff\0\1", b"\r\n\t '\""]):
                value = bytes([number, 0, 255]) * 9
                yield self.is_set(binary, sort_key, value)
                yield self.has(binary, sort_key, value)
            yield self.counted(binary, 5)

    @defer.inlineCallbacks
    def sizes(self):
        key = self.prefix + "sizes"
        for length in [1, 4095, 4096, 65535, 65536, 300 << 10, 900 << 10]:
            value = bytes((i * 7 + (i >> 8)) & 255 for i in range(length))
            yield self.is_set(key, "size %d" % length, value)
            yield self.has(key, "size %d" % length, value)
        yield self.is_set(key + "k" * 900, "s" * 1000, b"value")
        yield self.has(key + "k" * 900, "s" * 1000, b"value")
        yield self.counted(key, 7)

    @defer.inlineCallbacks
    def too_large(self):
        """Values that no server takes. The connection must live on."""
        key = self.prefix + "too large"
        for length in [1200 << 10, 2 << 20, 5 << 20]:
            code, _ = yield outcome(self.client.set(key, "sort", b"v" * length))
            self.equal("set of %d" % length, code, "ERR_INVALID_DATA")
            yield self.has(key, "sort", None)

    @defer.inlineCallbacks
    def multi(self):
        key, client = self.prefix + "multi", self.client
        yield self.answered("multi get of nothing", client.multi_get(key, None), OK, {})
        yield self.answered("multi set", client.multi_set(key, text_rows("a", "b", "c", "d", "e")), OK, None)
        yield self.counted(key, 5)
        yield self.answered("multi get by keys", client.multi_get(key, {"a", "c", "e"}), OK, byte_rows("a", "c", "e"))
        yield self.answered("multi get with a missing key", client.multi_get(key, {"a", "x"}), OK, byte_rows("a"))
        yield self.answered("multi get of missing keys", client.multi_get(key, {"x", "y"}), OK, {})
        yield self.answered("multi get of all", client.multi_get(key, None), OK, byte_rows("a", "b", "c", "d", "e"))
        no_values = {name: b"" for name in byte_rows("a", "b", "c", "d", "e")}
        yield self.answered("sort keys", client.get_sort_keys(key), OK, no_values)
        yield self.answered("keys, no values", client.multi_get(key, {"b"}, no_value=True), OK, {b"b": b""})
        yield self.answered("multi del", client.multi_del(key, {"a", "b", "missing"}), OK, 3)
        yield self.answered("multi get after it", client.multi_get(key, None), OK, byte_rows("c", "d", "e"))
        invalid = error_types.ERR_INVALID_PARAMETERS.value
        yield self.answered("multi get of a list", client.multi_get(key, ["c"]), invalid, 0)
        yield self.answered("multi del of a list", client.multi_del(key, ["c"]), invalid, 0)
        # The server's own InvalidArgument is 4.
        code, _ = yield outcome(client.multi_set(key, {}))
        self.equal("multi set of nothing", code, 4)
        code, _ = yield outcome(client.multi_del(key, set()))
        self.equal("multi del of nothing", code, 4)

    @defer.inlineCallbacks
    def ranges(self):
        key, client = self.prefix + "ranges", self.client
        keys = ["a", "ab", "abc", "b", "ba", "bab", "c", "ca", "d"]
        yield self.answered("multi set", client.multi_set(key, text_rows(*keys)), OK, None)
        prefix, postfix = filter_type.FT_MATCH_PREFIX, filter_type.FT_MATCH_POSTFIX
        cases = [
            ("all", "", "", {}, keys),
            ("from", "b", "", {}, ["b", "ba", "bab", "c", "ca", "d"]),
            ("to", "", "b", {}, ["a", "ab", "abc"]),
            ("to, inclusive", "", "b", {"stop_inclusive": True}, ["a", "ab", "abc", "b"]),
            ("between, neither", "ab", "c", {"start_inclusive": False}, ["abc", "b", "ba", "bab"]),
            ("empty range", "c", "c", {}, []),
            ("reversed range", "d", "a", {}, []),
            ("prefix", "", "", {"sortkey_filter_type": prefix, "sortkey_filter_pattern": "ab"}, ["ab", "abc"]),
            ("postfix", "", "", {"sortkey_filter_type": postfix, "sortkey_filter_pattern": "a"}, ["a", "ba", "ca"]),
            ("anywhere", "", "", {"sortkey_filter_type": filter_type.FT_MATCH_ANYWHERE,
                                  "sortkey_filter_pattern": "ab"}, ["ab", "abc", "bab"]),
        ]
        for name, start, stop, changes, want in cases:
            for reverse in [False, True]:
                options = MultiGetOptions()
                options.reverse = reverse
                for field, value in changes.items():
                    setattr(options, field, value)
                answer = client.multi_get_opt(key, start, stop, options)
                yield self.answered("%s, reverse %s" % (name, reverse), answer, OK, byte_rows(*want))
                options.no_value = True
                answer = client.multi_get_opt(key, start, stop, options)
                yield self.answered(name + ", no values", answer, OK, {name: b"" for name in byte_rows(*want)})

    @defer.inlineCallbacks
    def limits(self):
        key, client = self.prefix + "limits", self.client
        yield self.answered("multi set", client.multi_set(key, text_rows("a", "b", "c", "d", "e")), OK, None)
        yield self.answered("first two", client.multi_get(key, None, 2), INCOMPLETE, byte_rows("a", "b"))
        yield self.answered("by size", client.multi_get(key, None, 100, 25), INCOMPLETE, byte_rows("a", "b", "c"))
        yield self.answered("no limit", client.multi_get(key, None, -1, -1), OK, byte_rows("a", "b", "c", "d", "e"))
        options = MultiGetOptions()
        options.reverse = True
        answer = client.multi_get_opt(key, "", "", options, 2)
        yield self.answered("last two", answer, INCOMPLETE, byte_rows("d", "e"))
        key = self.prefix + "many"
        for first in range(0, 2000, 500):
            rows = text_rows(*["%05d" % i for i in range(first, first + 500)])
            yield self.answered("multi set of 500", client.multi_set(key, rows), OK, None)
        yield self.counted(key, 2000)
        want = byte_rows(*["%05d" % i for i in range(100)])
        yield self.answered("rows by default", client.multi_get(key, None), INCOMPLETE, want)
        want = byte_rows(*["%05d" % i for i in range(2000)])
        yield self.answered("2,000 rows", client.multi_get(key, None, -1, -1), OK, want)

    @defer.inlineCallbacks
    def ttl(self):
        key, client = self.prefix + "ttl", self.client
        yield self.is_set(key, "ends", "v", 3)
        yield self.ttl_within(key, "ends", 1, 3)
        yield self.is_set(key, "stays", "v", 1000)
        yield self.ttl_within(key, "stays", 990, 1000)
        yield self.is_set(key, "stays", "v")
        yield self.ttl_within(key, "stays", -1, -1)
        yield self.answered("multi set with ttl", client.multi_set(key, text_rows("m1", "m2"), 3), OK, None)
        yield self.ttl_within(key, "m2", 1, 3)
        for sort_key in ["ends", "m1", "m2"]:
            yield self.ended(key, sort_key)
        yield self.exists(key, "ends", False)
        yield self.counted(key, 1)
        yield self.answered("multi get of ended rows", client.multi_get(key, None), OK, {b"stays": b"v"})

    @defer.inlineCallbacks
    def ended(self, hash_key, sort_key):
        """Waits until a row is gone, by asking for it."""
        deadline = time.monotonic() + WAIT_SECONDS
        code = OK
        while code == OK and time.monotonic() < deadline:
            code, _ = yield outcome(self.client.get(hash_key, sort_key))
            if code == OK:
                yield task.deferLater(reactor, 0.1, lambda: None)
        self.equal("row %s ended" % sort_key, code, NOT_FOUND)

    @defer.inlineCallbacks
    def concurrent(self):
        """Many requests under way at once on each connection."""
        names = [(self.prefix + "concurrent%d" % (i % 50), "%d" % i, b"%d" % i * (1 + i % 700)) for i in range(2000)]
        sets = yield defer.gatherResults([outcome(self.client.set(*name)) for name in names])
        self.equal("sets", [one for one in sets if one != (OK, None)], [])
        gets = yield defer.gatherResults([outcome(self.client.get(key, sort_key)) for key, sort_key, _ in names])
        self.equal("gets", [got for got, name in zip(gets, names) if got != (OK, name[2])], [])

    @defer.inlineCallbacks
    def empty_hash_key(self):
        """Rows without a hash key: the sort key chooses the partition. Only single rows can be."""
        for number in range(16):
            sort_key = "%s%d" % (self.prefix, number)
            yield self.is_set("", sort_key, "v%d" % number)
            yield self.has("", sort_key, b"v%d" % number)
            yield self.ttl_within("", sort_key, -1, -1)
            yield self.removed("", sort_key)
            yield self.has("", sort_key, None)

    @defer.inlineCallbacks
    def no_table(self):
        client = Pegasus([self.args.meta], self.prefix + "none", 5000)
        opened = yield client.init()
        self.equal("open of no table", opened, None)
        client.close()
        yield self.has(self.prefix + "rows", "", b"the row with the empty sort key")
