"""Counts what was compared and prints what differed."""

from pypegasus.base.ttypes import error_types
from twisted.internet import defer

OK = error_types.ERR_OK.value
NOT_FOUND = error_types.ERR_OBJECT_NOT_FOUND.value
INCOMPLETE = error_types.ERR_INCOMPLETE_DATA.value


class Checks:
    def __init__(self):
        self.part = ""
        self.done = 0
        self.failed = 0

    def that(self, what, holds, details=""):
        self.done += 1
        if not holds:
            self.failed += 1
            print("DIFFERENT %s: %s: %s" % (self.part, what, details), flush=True)
        return holds

    def equal(self, what, got, want):
        return self.that(what, got == want, "got %s, want %s" % (shortened(got), shortened(want)))

    def finish(self):
        if self.failed:
            print("failed: %d of %d checks" % (self.failed, self.done))
            return 1
        print("ok: %d checks" % self.done)
        return 0


def shortened(value):
    text = repr(value)
    return text if len(text) < 200 else text[:200] + "... of %d characters" % len(text)


@defer.inlineCallbacks
def outcome(answer):
    """Waits for an operation and returns (code, value).

    The client answers with a pair, at once or later; but when the server refused a request as a whole, it answers
    with the error alone. That error is then the code, by its name.
    """
    result = yield answer
    if isinstance(result, error_types):
        return result.name, None
    return result
