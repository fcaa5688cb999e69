"""Load while a node is killed by somebody else: no acknowledged write may be lost."""

import collections
import json
import os
import time

from pypegasus.base.ttypes import error_types
from pypegasus.pgclient import Pegasus
from twisted.internet import defer, reactor, task

from checks import NOT_FOUND, OK, outcome

# The client goes on by itself only after several timeouts, and looks for the need every two seconds.
RECOVERY_SECONDS = 60


def now_ms():
    return int(time.monotonic() * 1000)


def pause(seconds):
    return task.deferLater(reactor, seconds, lambda: None)


@defer.inlineCallbacks
def run(args):
    client = Pegasus([args.meta], args.table, args.timeout_ms)
    opened = yield client.init()
    if not opened:
        print("open table: no answer about table %s from %s" % (args.table, args.meta))
        return 1
    load = Load(args, client)
    run_name = os.urandom(6).hex()
    workers = [Worker(load, "py-%s-%d" % (run_name, number)) for number in range(args.workers)]
    yield defer.gatherResults([worker.run() for worker in workers])
    load.gap()
    loaded = now_ms()
    yield defer.gatherResults([worker.recover() for worker in workers])
    recovery_ms = now_ms() - loaded
    client.close()
    yield load.verify(workers)
    print(json.dumps({
        "operations": load.operations, "successes": load.successes, "errors": load.errors,
        "longest_gap_ms": load.longest_gap_ms,
        "longest_worker_gap_ms": max(worker.longest_gap_ms for worker in workers),
        "recovery_ms": recovery_ms, "unrecovered": load.unrecovered,
        "total_ms": now_ms() - load.started_ms, "wrong": load.wrong[:20],
    }))
    return 1 if load.wrong or load.unrecovered or not load.successes else 0


class Load:
    def __init__(self, args, client):
        self.args = args
        self.client = client
        self.started_ms = self.last_ms = now_ms()
        self.ends_ms = self.started_ms + 1000 * args.seconds
        self.operations = self.successes = self.longest_gap_ms = self.unrecovered = 0
        self.errors = collections.Counter()
        self.wrong = []

    def gap(self):
        now = now_ms()
        self.longest_gap_ms = max(self.longest_gap_ms, now - self.last_ms)
        self.last_ms = now

    @defer.inlineCallbacks
    def verify(self, workers):
        """Reads everything with a new client, which knows nothing of old connections."""
        client = Pegasus([self.args.meta], self.args.table, 10000)
        opened = yield client.init()
        if not opened:
            self.wrong.append("open to verify")
            return
        for worker in workers:
            code, value = yield outcome(client.get(worker.hash_key, "value"))
            if code in (OK, NOT_FOUND):
                worker.acceptable(code, value)
            else:
                self.wrong.append("%s: read to verify: %s" % (worker.hash_key, code))
        client.close()


class Worker:
    """Alone writes its row, so it knows what may be in it."""

    def __init__(self, load, hash_key):
        self.load = load
        self.hash_key = hash_key
        self.last_ms = load.started_ms
        self.longest_gap_ms = 0
        # The last number known to be in the row, and the highest that may be.
        self.known = self.tried = 0

    @defer.inlineCallbacks
    def measured(self, name, answer, good):
        """Waits for an operation and keeps its outcome; returns (code, value), the code None on failure."""
        try:
            code, value = yield outcome(answer)
        except Exception as error:  # Whatever the client raises is an outcome.
            code, value = type(error).__name__, None
        self.load.operations += 1
        if code in good:
            self.load.successes += 1
            self.load.gap()
            self.gap()
            return code, value
        if isinstance(code, int):
            code = error_types(code).name
        self.load.errors["%s: %s" % (name, code)] += 1
        # Some failures of this client come at once; the reactor has to have its turn.
        yield pause(0.05)
        return None, None

    def gap(self):
        now = now_ms()
        self.longest_gap_ms = max(self.longest_gap_ms, now - self.last_ms)
        self.last_ms = now

    @defer.inlineCallbacks
    def run(self):
        client = self.load.client
        while now_ms() < self.load.ends_ms:
            self.tried += 1
            value = self.tried
            code, _ = yield self.measured("set", client.set(self.hash_key, "value", str(value)), (OK,))
            if code is not None:
                self.known = value
            code, got = yield self.measured("get", client.get(self.hash_key, "value"), (OK, NOT_FOUND))
            if code is not None:
                self.known = self.acceptable(code, got)
        self.gap()

    def acceptable(self, code, got):
        """Checks a value that was read, and returns its number. What was read must not become older."""
        try:
            number = int(got) if code == OK else 0
        except ValueError:
            number = -1
        if not self.known <= number <= self.tried:
            self.load.wrong.append("%s: read %r, while %d was acknowledged or seen and %d tried"
                                   % (self.hash_key, got, self.known, self.tried))
            return self.known
        return number

    @defer.inlineCallbacks
    def recover(self):
        """Waits until the client that lived through the failure reads the row again."""
        deadline = now_ms() + 1000 * RECOVERY_SECONDS
        while now_ms() < deadline:
            code, got = yield outcome(self.load.client.get(self.hash_key, "value"))
            if code in (OK, NOT_FOUND):
                self.known = self.acceptable(code, got)
                return
            yield pause(0.05)
        self.load.unrecovered += 1
