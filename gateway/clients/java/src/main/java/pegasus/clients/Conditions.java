package pegasus.clients;

import static pegasus.clients.Client.bytes;

import java.util.List;

/** Check-and-set and check-and-mutate. */
final class Conditions {
  private static final int TRY_AGAIN = 13;
  private static final String NONE = "<none>";

  private final Checks checks;
  private final Client client;
  private final String run;

  Conditions(Checks checks, Client client, String run) {
    this.checks = checks;
    this.client = client;
    this.run = run;
  }

  void all() {
    checks.part("check and set", this::checkAndSet);
    checks.part("check and mutate", this::checkAndMutate);
  }

  /** One check: its number in the protocol, the value checked, the operand, and the error of the answer. */
  private record Case(int type, String value, String operand, int error) {}

  private static final List<Case> CASES = List.of(
      new Case(0, NONE, "", 0), new Case(1, NONE, "", 0), new Case(1, "", "", TRY_AGAIN), new Case(2, NONE, "", 0),
      new Case(2, "", "", 0), new Case(2, "v", "", TRY_AGAIN), new Case(3, NONE, "", TRY_AGAIN),
      new Case(3, "", "", 0), new Case(4, "", "", TRY_AGAIN), new Case(4, "v", "", 0), new Case(5, "abc", "b", 0),
      new Case(5, "abc", "d", TRY_AGAIN), new Case(5, "abc", "", 0), new Case(6, "abc", "ab", 0),
      new Case(6, "abc", "b", TRY_AGAIN), new Case(7, "abc", "bc", 0), new Case(7, "abc", "b", TRY_AGAIN),
      new Case(8, "a", "b", 0), new Case(8, "b", "b", TRY_AGAIN), new Case(9, "b", "b", 0),
      new Case(10, "b", "b", 0), new Case(10, "b", "bb", TRY_AGAIN), new Case(11, "a", "b", TRY_AGAIN),
      new Case(12, "b", "a", 0), new Case(13, "9", "10", 0), new Case(13, "10", "9", TRY_AGAIN),
      new Case(14, "10", "10", 0), new Case(15, "0x10", "16", 0), new Case(16, "10", "11", TRY_AGAIN),
      new Case(17, "10", "9", 0), new Case(17, "9", "10", TRY_AGAIN), new Case(13, NONE, "1", TRY_AGAIN),
      new Case(13, "abc", "1", Rows.INVALID), new Case(13, "1", "abc", Rows.INVALID),
      new Case(15, "", "1", Rows.INVALID), new Case(18, "v", "", Rows.INVALID));

  private void checkAndSet() throws Exception {
    byte[] hash = bytes(run + "cas");
    for (int i = 0; i < CASES.size(); i++) {
      Case one = CASES.get(i);
      byte[] sort = bytes("case " + i);
      if (!one.value.equals(NONE)) {
        client.set(hash, sort, bytes(one.value), 0);
      }
      Struct request = new Struct("check_and_set_request").with("hash_key", hash).with("check_sort_key", sort)
          .with("check_type", one.type).with("check_operand", bytes(one.operand)).with("set_diff_sort_key", false)
          .with("set_sort_key", new byte[0]).with("set_value", bytes("set")).with("set_expire_ts_seconds", 0)
          .with("return_check_value", true);
      Struct got = client.call("CHECK_AND_SET", request, "check_response", hash);
      checked(one.toString(), got, one);
      String after = one.error == 0 ? "set" : one.value;
      Struct row = client.get(hash, sort);
      checks.equal(one + ": row after it", row.i32("error") == 0 ? Checks.text(row.blob("value")) : NONE, after);
    }
    Struct request = new Struct("check_and_set_request").with("hash_key", hash).with("check_sort_key", bytes("lock"))
        .with("check_type", 1).with("check_operand", new byte[0]).with("set_diff_sort_key", true)
        .with("set_sort_key", bytes("data")).with("set_value", bytes("1"))
        .with("set_expire_ts_seconds", Client.expiry(100)).with("return_check_value", false);
    Struct got = client.call("CHECK_AND_SET", request, "check_response", hash);
    checks.equal("another row", got.i32("error") + " " + got.bool("check_value_returned"), "0 false");
    checks.equal("the row checked", client.get(hash, bytes("lock")).i32("error"), Rows.NOT_FOUND);
    checks.equal("the row set", Checks.text(client.get(hash, bytes("data")).blob("value")), "1");
    int ttl = client.ttl(hash, bytes("data")).i32("ttl_seconds");
    checks.that("its ttl", ttl >= 90 && ttl <= 100, ttl);
  }

  /** Checks an answer. What an answer to an invalid request says of the value is not fixed. */
  private void checked(String what, Struct got, Case one) {
    checks.equal(what, got.i32("error"), one.error);
    if (one.error != Rows.INVALID) {
      checks.equal(what + ": returned", got.bool("check_value_returned"), true);
      checks.equal(what + ": exists", got.bool("check_value_exist"), !one.value.equals(NONE));
      checks.equal(what + ": value", Checks.text(got.blob("check_value")), one.value.equals(NONE) ? "" : one.value);
    }
  }

  private static Struct mutate(int operation, String sort, String value) {
    return new Struct("mutate").with("operation", operation).with("sort_key", bytes(sort))
        .with("value", bytes(value)).with("set_expire_ts_seconds", 0);
  }

  private Struct mutateAll(byte[] hash, int type, String operand, List<Struct> mutations) throws Exception {
    Struct request = new Struct("check_and_mutate_request").with("hash_key", hash)
        .with("check_sort_key", bytes("lock")).with("check_type", type).with("check_operand", bytes(operand))
        .with("mutate_list", mutations).with("return_check_value", true);
    return client.call("CHECK_AND_MUTATE", request, "check_response", hash);
  }

  private String rows(byte[] hash) throws Exception {
    StringBuilder all = new StringBuilder();
    for (Struct row : client.multiGet(Client.multiGet(hash)).list("kvs")) {
      all.append(Checks.text(row.blob("key"))).append('=').append(Checks.text(row.blob("value"))).append(' ');
    }
    return all.toString();
  }

  private void checkAndMutate() throws Exception {
    byte[] hash = bytes(run + "cam");
    List<Struct> first = List.of(mutate(0, "lock", "mine"), mutate(0, "a", "1"), mutate(0, "b", "2"),
        mutate(1, "a", ""));
    checks.equal("not exist", mutateAll(hash, 1, "", first).i32("error"), 0);
    checks.equal("rows", rows(hash), "b=2 lock=mine ");
    Struct got = mutateAll(hash, 1, "", List.of(mutate(0, "c", "3")));
    checked("not exist, again", got, new Case(1, "mine", "", TRY_AGAIN));
    checks.equal("rows after a failed check", rows(hash), "b=2 lock=mine ");
    got = mutateAll(hash, 10, "mine", List.of(mutate(1, "lock", ""), mutate(1, "b", ""), mutate(0, "b", "4")));
    checked("mine", got, new Case(10, "mine", "mine", 0));
    checks.equal("in their order", rows(hash), "b=4 ");
    checks.equal("no mutations", mutateAll(hash, 0, "", List.of()).i32("error"), Rows.INVALID);
    got = mutateAll(hash, 0, "", List.of(mutate(0, "c", "5"), mutate(7, "d", "6")));
    checks.equal("unknown operation", got.i32("error"), Rows.INVALID);
    checks.equal("nothing of it happened", rows(hash), "b=4 ");
  }
}
