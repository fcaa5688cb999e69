"""Runs pypegasus3, unmodified, against a cluster and checks every answer.

Modes: basic (every operation of the client) and failover (load while somebody else kills a node). The last line of
basic is `ok: N checks`; failover prints one line of JSON. The exit code is 0 only if everything was as it should be.
This client has no incr, no check-and-set and no administration.
"""

import argparse
import atexit
import os
import shutil
import sys
import tempfile
import warnings


def arguments():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--meta", default="127.0.0.1:34601", help="address of the meta service")
    parser.add_argument("--table", default="temp", help="name of a table that exists")
    parser.add_argument("--seconds", type=int, default=30, help="failover: how long to load")
    parser.add_argument("--workers", type=int, default=16, help="failover: workers, each with its own keys")
    parser.add_argument("--timeout-ms", type=int, default=2000, help="failover: time of one operation")
    parser.add_argument("mode", choices=["basic", "failover"])
    return parser.parse_args()


def away():
    """Goes to a folder of its own: the client writes `pegasus.log` where it is started, as soon as it is imported."""
    folder = tempfile.mkdtemp(prefix="pypegasus3-")
    atexit.register(shutil.rmtree, folder, True)
    sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
    os.chdir(folder)
    # One of the client's libraries misses an optional one, which only matters for TLS.
    warnings.simplefilter("ignore")


def main():
    args = arguments()
    away()
    from twisted.internet import defer, reactor

    import basic
    import failover

    run = {"basic": basic.run, "failover": failover.run}[args.mode]
    code = [1]

    def ended(result):
        if isinstance(result, int):
            code[0] = result
        else:
            result.printTraceback()
        reactor.stop()

    reactor.callWhenRunning(lambda: defer.maybeDeferred(run, args).addBoth(ended))
    reactor.run()
    sys.stdout.flush()
    return code[0]


if __name__ == "__main__":
    sys.exit(main())
