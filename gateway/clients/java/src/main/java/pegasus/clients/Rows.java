package pegasus.clients;

import static pegasus.clients.Client.bytes;

import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import java.util.stream.Collectors;
import java.util.stream.IntStream;

/** Operations on rows: single, several, in ranges, with a ttl. */
final class Rows {
  static final int NOT_FOUND = 1;
  static final int INVALID = 4;
  static final int INCOMPLETE = 7;
  private static final long WAIT_MS = 15_000;

  private final Checks checks;
  private final Client client;
  private final String run;

  Rows(Checks checks, Client client, String run) {
    this.checks = checks;
    this.client = client;
    this.run = run;
  }

  void all() {
    checks.part("rows", this::single);
    checks.part("empty hash key", this::emptyHashKey);
    checks.part("sizes", this::sizes);
    checks.part("multi", this::multi);
    checks.part("ranges", this::ranges);
    checks.part("batch get", this::batchGet);
    checks.part("incr", this::incr);
    checks.part("ttl", this::ttl);
  }

  private byte[] key(String name) {
    return bytes(run + name);
  }

  private void set(byte[] hash, byte[] sort, byte[] value, int ttl) throws Exception {
    Struct put = client.set(hash, sort, value, ttl);
    checks.equal("set", put.i32("error"), 0);
    answeredBy("set", put, Table.hash(hash, sort));
    checks.that("decree", put.i64("decree") > 0, put.i64("decree"));
  }

  /** Checks what every answer says about where it comes from. */
  private void answeredBy(String what, Struct answer, long hash) {
    int partition = client.table.partition(hash);
    String want = client.table.app() + "." + partition + " of "
        + client.table.configuration(partition).string("primary");
    checks.equal(what + ": answered by", answer.i32("app_id") + "." + answer.i32("partition_index") + " of "
        + answer.string("server"), want);
  }

  private void get(byte[] hash, byte[] sort, byte[] want) throws Exception {
    Struct got = client.get(hash, sort);
    checks.equal("get: error", got.i32("error"), want == null ? NOT_FOUND : 0);
    checks.same("get: value", got.blob("value"), want == null ? new byte[0] : want);
    answeredBy("get", got, Table.hash(hash, sort));
  }

  private void ttlIs(byte[] hash, byte[] sort, int least, int most) throws Exception {
    Struct got = client.ttl(hash, sort);
    int ttl = got.i32("error") == NOT_FOUND ? -2 : got.i32("ttl_seconds");
    checks.that("ttl", ttl >= least && ttl <= most, ttl + ", want " + least + " to " + most);
    answeredBy("ttl", got, Table.hash(hash, sort));
  }

  private void count(byte[] hash, long want) throws Exception {
    Struct got = client.count(hash);
    checks.equal("sortkey count", got.i32("error") + " " + got.i64("count"), "0 " + want);
    answeredBy("sortkey count", got, Table.hash(hash));
  }

  private void single() throws Exception {
    byte[] hash = key("rows");
    byte[] sort = bytes("sort");
    get(hash, sort, null);
    ttlIs(hash, sort, -2, -2);
    set(hash, sort, bytes("one"), 0);
    get(hash, sort, bytes("one"));
    ttlIs(hash, sort, -1, -1);
    set(hash, new byte[0], bytes("empty sort key"), 0);
    get(hash, new byte[0], bytes("empty sort key"));
    set(hash, bytes("empty value"), new byte[0], 0);
    get(hash, bytes("empty value"), new byte[0]);
    count(hash, 3);
    checks.equal("del", client.del(hash, sort).i32("error"), 0);
    checks.equal("del of nothing", client.del(hash, sort).i32("error"), 0);
    get(hash, sort, null);
    count(hash, 2);
    for (int first = 0; first < 256; first += 51) {
      byte[] binary = key("x");
      binary[0] = (byte) first;
      binary[binary.length - 1] = (byte) 255;
      byte[] value = new byte[256];
      IntStream.range(0, 256).forEach(i -> value[i] = (byte) i);
      set(binary, value, value, 0);
      get(binary, value, value);
    }
  }

  /** Rows without a hash key: the sort key chooses the partition. Only single rows can be so. */
  private void emptyHashKey() throws Exception {
    byte[] none = new byte[0];
    for (int i = 0; i < 16; i++) {
      byte[] sort = key("no hash key " + i);
      set(none, sort, bytes("v" + i), 0);
      get(none, sort, bytes("v" + i));
      ttlIs(none, sort, -1, -1);
      checks.equal("incr", client.incr(none, key("number " + i), 3, 0).i64("new_value"), 3L);
      checks.equal("del", client.del(none, sort).i32("error"), 0);
      checks.equal("del", client.del(none, key("number " + i)).i32("error"), 0);
      get(none, sort, null);
    }
  }

  private void sizes() throws Exception {
    for (int length : new int[] {1, 4096, 65_536, 300 << 10, 900 << 10}) {
      byte[] value = new byte[length];
      IntStream.range(0, length).forEach(i -> value[i] = (byte) (i * 7 + (i >> 8)));
      set(key("sizes"), bytes("" + length), value, 0);
      get(key("sizes"), bytes("" + length), value);
    }
    for (int length : new int[] {1200 << 10, 2 << 20, 5 << 20}) {
      String refused = "accepted";
      try {
        client.set(key("sizes"), bytes("too large"), new byte[length], 0);
      } catch (Connection.Failed error) {
        refused = error.name;
      }
      checks.equal("set of " + length, refused, "ERR_INVALID_DATA");
      get(key("sizes"), bytes("too large"), null);
    }
  }

  private static String keys(Struct answer) {
    return answer.list("kvs").stream().map(row -> Checks.text(row.blob("key"))).collect(Collectors.joining(" "));
  }

  private void multiGet(String what, Struct request, int error, String want) throws Exception {
    Struct got = client.multiGet(request);
    checks.equal(what, got.i32("error") + ": " + keys(got), error + ": " + want);
    for (Struct row : got.list("kvs")) {
      String value = request.bool("no_value") ? "" : "value of " + Checks.text(row.blob("key"));
      checks.equal(what + ": value", Checks.text(row.blob("value")), value);
    }
    answeredBy(what, got, Table.hash(request.blob("hash_key")));
  }

  private void multi() throws Exception {
    byte[] hash = key("multi");
    checks.equal("multi set", client.fill(hash, 0, "a", "b", "c", "d", "e").i32("error"), 0);
    count(hash, 5);
    multiGet("by keys", Client.multiGet(hash).with("sort_keys", Client.list("e", "x", "a")), 0, "e a");
    multiGet("keys, limited", Client.multiGet(hash).with("sort_keys", Client.list("e", "a", "c"))
        .with("max_kv_count", 2), INCOMPLETE, "e a");
    multiGet("all", Client.multiGet(hash), 0, "a b c d e");
    multiGet("no values", Client.multiGet(hash).with("no_value", true), 0, "a b c d e");
    multiGet("two", Client.multiGet(hash).with("max_kv_count", 2), INCOMPLETE, "a b");
    multiGet("last two", Client.multiGet(hash).with("max_kv_count", 2).with("reverse", true), INCOMPLETE, "d e");
    multiGet("by size", Client.multiGet(hash).with("max_kv_size", 25), INCOMPLETE, "a b c");
    Struct del = client.multiDel(hash, "a", "b", "missing");
    checks.equal("multi del", del.i32("error") + " " + del.i64("count"), "0 3");
    multiGet("after multi del", Client.multiGet(hash), 0, "c d e");
    checks.equal("multi set of nothing", client.fill(hash, 0).i32("error"), INVALID);
    checks.equal("multi del of nothing", client.multiDel(hash).i32("error"), INVALID);
    checks.equal("unknown filter",
        client.multiGet(Client.multiGet(hash).with("filter_type", 9).with("filter_pattern", bytes("x"))).i32("error"),
        INVALID);
  }

  private void ranges() throws Exception {
    byte[] hash = key("ranges");
    client.fill(hash, 0, "", "a", "ab", "abc", "b", "ba", "c");
    for (boolean reverse : new boolean[] {false, true}) {
      Struct start = Client.multiGet(hash).with("reverse", reverse);
      multiGet("all", start, 0, " a ab abc b ba c");
      multiGet("prefix", Client.multiGet(hash).with("reverse", reverse).with("filter_type", 2)
          .with("filter_pattern", bytes("ab")), 0, "ab abc");
      multiGet("postfix", Client.multiGet(hash).with("reverse", reverse).with("filter_type", 3)
          .with("filter_pattern", bytes("a")), 0, "a ba");
      multiGet("anywhere", Client.multiGet(hash).with("reverse", reverse).with("filter_type", 1)
          .with("filter_pattern", bytes("b")), 0, "ab abc b ba");
      multiGet("between", Client.multiGet(hash).with("reverse", reverse).with("start_sortkey", bytes("ab"))
          .with("stop_sortkey", bytes("c")), 0, "ab abc b ba");
      multiGet("between, exclusive", Client.multiGet(hash).with("reverse", reverse)
          .with("start_sortkey", bytes("ab")).with("start_inclusive", false).with("stop_sortkey", bytes("c"))
          .with("stop_inclusive", true), 0, "abc b ba c");
      multiGet("reversed range", Client.multiGet(hash).with("reverse", reverse).with("start_sortkey", bytes("c"))
          .with("stop_sortkey", bytes("a")), 0, "");
    }
  }

  /** One request for rows of several hash keys of one partition. */
  private void batchGet() throws Exception {
    List<Struct> keys = new ArrayList<>();
    List<String> want = new ArrayList<>();
    int partition = -1;
    long hash = 0;
    for (int i = 0; keys.size() < 12; i++) {
      byte[] one = key("batch" + i);
      if (partition < 0) {
        partition = client.table.partition(Table.hash(one));
        hash = Table.hash(one);
      }
      if (client.table.partition(Table.hash(one)) == partition) {
        keys.add(new Struct("full_key").with("hash_key", one).with("sort_key", bytes("s")));
        if (keys.size() % 3 != 0) {
          set(one, bytes("s"), bytes("v" + i), 0);
          want.add(run + "batch" + i + " s v" + i);
        }
      }
    }
    Struct got = client.call("BATCH_GET", new Struct("batch_get_request").with("keys", keys), "batch_get_response",
        hash);
    checks.equal("batch get: error", got.i32("error"), 0);
    List<String> rows = got.list("data").stream().map(row -> Checks.text(row.blob("hash_key")) + " "
        + Checks.text(row.blob("sort_key")) + " " + Checks.text(row.blob("value"))).toList();
    checks.equal("batch get", rows, want);
    got = client.call("BATCH_GET", new Struct("batch_get_request").with("keys", List.of()), "batch_get_response",
        hash);
    checks.equal("batch get of nothing", got.i32("error"), INVALID);
  }

  private void incr() throws Exception {
    byte[] hash = key("incr");
    byte[] sort = bytes("n");
    Struct got = client.incr(hash, sort, 5, 0);
    checks.equal("incr", got.i32("error") + " " + got.i64("new_value"), "0 5");
    answeredBy("incr", got, Table.hash(hash));
    checks.equal("incr down", client.incr(hash, sort, -7, 0).i64("new_value"), -2L);
    get(hash, sort, bytes("-2"));
    checks.equal("incr with ttl", client.incr(hash, sort, 1, Client.expiry(100)).i64("new_value"), -1L);
    ttlIs(hash, sort, 90, 100);
    checks.equal("incr keeps the ttl", client.incr(hash, sort, 1, 0).i64("new_value"), 0L);
    ttlIs(hash, sort, 90, 100);
    checks.equal("incr clears the ttl", client.incr(hash, sort, 1, -1).i64("new_value"), 1L);
    ttlIs(hash, sort, -1, -1);
    for (String value : new String[] {"abc", "12x", "1.5", "99999999999999999999"}) {
      set(hash, sort, bytes(value), 0);
      checks.equal("incr of " + value, client.incr(hash, sort, 1, 0).i32("error"), INVALID);
      get(hash, sort, bytes(value));
    }
    // Numbers are read like strtoll with base 0 does.
    String[] numbers = {"0x10", "17", " 7", "8", "010", "9", "-0x10", "-15", "+5", "6"};
    for (int i = 0; i < numbers.length; i += 2) {
      set(hash, sort, bytes(numbers[i]), 0);
      checks.equal("incr of '" + numbers[i] + "'", client.incr(hash, sort, 1, 0).i64("new_value"),
          Long.parseLong(numbers[i + 1]));
    }
    set(hash, sort, bytes("9223372036854775807"), 0);
    got = client.incr(hash, sort, 1, 0);
    checks.equal("overflow", got.i32("error") + " " + got.i64("new_value"), INVALID + " 9223372036854775807");
  }

  private void ttl() throws Exception {
    byte[] hash = key("ttl");
    set(hash, bytes("ends"), bytes("v"), 2);
    client.fill(hash, 2, "m1", "m2");
    ttlIs(hash, bytes("ends"), 0, 2);
    set(hash, bytes("stays"), bytes("v"), 1000);
    ttlIs(hash, bytes("stays"), 990, 1000);
    for (String sort : new String[] {"ends", "m1", "m2"}) {
      long deadline = System.currentTimeMillis() + WAIT_MS;
      while (client.get(hash, bytes(sort)).i32("error") == 0 && System.currentTimeMillis() < deadline) {
        Table.pause(100);
      }
      get(hash, bytes(sort), null);
    }
    ttlIs(hash, bytes("ends"), -2, -2);
    count(hash, 1);
    checks.equal("rows left", Arrays.asList(keys(client.multiGet(Client.multiGet(hash)))), List.of("stays"));
    checks.equal("incr of an ended row", client.incr(hash, bytes("m1"), 7, 0).i64("new_value"), 7L);
    ttlIs(hash, bytes("m1"), -1, -1);
  }
}
