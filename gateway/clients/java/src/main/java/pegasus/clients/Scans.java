package pegasus.clients;

import static pegasus.clients.Client.bytes;

import java.util.ArrayList;
import java.util.HashSet;
import java.util.List;
import java.util.Set;
import java.util.stream.IntStream;

/** Scanners, request by request. */
final class Scans {
  private static final int ROWS = 2500;
  private static final byte[] FIRST = {0, 0};
  private static final byte[] LAST = {(byte) 255, (byte) 255};

  private final Checks checks;
  private final Client client;
  private final String run;

  Scans(Checks checks, Client client, String run) {
    this.checks = checks;
    this.client = client;
    this.run = run;
  }

  void all() {
    checks.part("hash scanners", this::ofHashKey);
    checks.part("scans with filters", this::filters);
    checks.part("scans with options", this::options);
    checks.part("contexts", this::contexts);
    checks.part("unordered scanners", this::ofTable);
    checks.part("delete a range", this::deleteRange);
  }

  private static String number(int i) {
    return String.format("%05d", i);
  }

  /** A scanner of all rows of a hash key. */
  private Struct whole(byte[] hash, int batch) {
    byte[] start = Client.stored(hash, new byte[0]);
    return Client.scanner(start, Client.next(start), batch);
  }

  private Struct open(Struct request, long hash) throws Exception {
    return client.call("GET_SCANNER", request, "scan_response", hash);
  }

  /** All rows of a scanner, and how many requests that took. */
  private List<Struct> read(Struct request, long hash, int[] requests) throws Exception {
    List<Struct> rows = new ArrayList<>();
    Set<Long> contexts = new HashSet<>();
    Struct got = open(request, hash);
    for (requests[0] = 1; ; requests[0]++) {
      if (!checks.equal("scan: error", got.i32("error"), 0)) {
        return rows;
      }
      int most = request.i32("batch_size");
      checks.that("rows of one answer", most <= 0 || got.list("kvs").size() <= most, got.list("kvs").size());
      rows.addAll(got.list("kvs"));
      long context = got.i64("context_id");
      if (context == -1) {
        return rows;
      }
      checks.that("context", context >= 0 && contexts.add(context), context);
      got = client.scan(context, hash);
    }
  }

  private static List<String> keys(List<Struct> rows) {
    return rows.stream().map(row -> Checks.whole(row.blob("key"))).toList();
  }

  private List<String> stored(byte[] hash, List<String> sorts) {
    return sorts.stream().map(sort -> Checks.whole(Client.stored(hash, bytes(sort)))).toList();
  }

  private void fill(byte[] hash, int count) throws Exception {
    for (int first = 0; first < count; first += 500) {
      String[] sorts = IntStream.range(first, Math.min(count, first + 500)).mapToObj(Scans::number)
          .toArray(String[]::new);
      checks.equal("fill", client.fill(hash, 0, sorts).i32("error"), 0);
    }
  }

  private void ofHashKey() throws Exception {
    byte[] hash = bytes(run + "large scan");
    fill(hash, ROWS);
    client.fill(bytes(run + "large scan0"), 0, "neighbour");
    List<String> want = stored(hash, IntStream.range(0, ROWS).mapToObj(Scans::number).toList());
    for (int batch : new int[] {10, 100, 1000, 5000}) {
      int[] requests = new int[1];
      List<Struct> rows = read(whole(hash, batch), Table.hash(hash), requests);
      checks.equal("rows, batch " + batch, keys(rows), want);
      checks.that("requests, batch " + batch, requests[0] >= ROWS / Math.min(batch, 1000), requests[0]);
      long wrong = rows.stream().filter(row -> !Checks.text(row.blob("value"))
          .equals("value of " + Checks.whole(row.blob("key")).substring(2 + hash.length))).count();
      checks.equal("wrong values", wrong, 0L);
    }
    Struct range = whole(hash, 100).with("start_key", Client.stored(hash, bytes(number(100))))
        .with("stop_key", Client.stored(hash, bytes(number(350)))).with("start_inclusive", false)
        .with("stop_inclusive", true);
    checks.equal("range", keys(read(range, Table.hash(hash), new int[1])), want.subList(101, 351));
    checks.equal("nothing", keys(read(whole(bytes(run + "nobody"), 10), Table.hash(bytes(run + "nobody")),
        new int[1])), List.of());
  }

  private void filters() throws Exception {
    byte[] hash = bytes(run + "filters");
    client.fill(hash, 0, "", "a", "ab", "abc", "b", "ba", "c");
    String[][] cases = {{"1", "b", "ab abc b ba"}, {"2", "ab", "ab abc"}, {"3", "a", "a ba"}, {"1", "x", ""}};
    for (String[] one : cases) {
      for (int batch : new int[] {1, 1000}) {
        Struct request = whole(hash, batch).with("sort_key_filter_type", Integer.parseInt(one[0]))
            .with("sort_key_filter_pattern", bytes(one[1]));
        List<String> want = one[2].isEmpty() ? List.of() : stored(hash, List.of(one[2].split(" ")));
        checks.equal("filter " + one[0] + " " + one[1], keys(read(request, Table.hash(hash), new int[1])), want);
      }
    }
    Struct unknown = whole(hash, 10).with("sort_key_filter_type", 9).with("sort_key_filter_pattern", bytes("a"));
    checks.equal("unknown filter", open(unknown, Table.hash(hash)).i32("error"), Rows.INVALID);
    unknown = whole(hash, 10).with("hash_key_filter_type", 9).with("hash_key_filter_pattern", bytes("a"));
    checks.equal("unknown filter", open(unknown, Table.hash(hash)).i32("error"), Rows.INVALID);
  }

  /** What only newer clients ask for. */
  private void options() throws Exception {
    byte[] hash = bytes(run + "options");
    fill(hash, 1200);
    client.set(hash, bytes("ttl"), bytes("v"), 1000);
    long partition = Table.hash(hash);
    Struct request = whole(hash, 1000).with("no_value", true).with("validate_partition_hash", true)
        .with("full_scan", true);
    List<Struct> rows = read(request, partition, new int[1]);
    checks.equal("rows without values", rows.size(), 1201);
    checks.equal("values", rows.stream().filter(row -> row.blob("value").length > 0).count(), 0L);
    rows = read(whole(hash, 1000).with("return_expire_ts", true), partition, new int[1]);
    checks.equal("rows with expiry", rows.stream().filter(row -> row.has("expire_ts_seconds")).count(), 1201L);
    long ttl = rows.stream().filter(row -> row.has("expire_ts_seconds") && row.i32("expire_ts_seconds") != 0).count();
    checks.equal("rows that end", ttl, 1L);
    rows = read(whole(hash, 1000), partition, new int[1]);
    checks.equal("expiry unasked", rows.stream().filter(row -> row.has("expire_ts_seconds")).count(), 0L);
    long count = 0;
    Struct got = open(whole(hash, 500).with("only_return_count", true), partition);
    for (int i = 0; i < 10; i++) {
      checks.equal("only count: error and rows", got.i32("error") + " " + got.list("kvs").size(), "0 0");
      checks.equal("only count: has it", got.has("kv_count"), true);
      count += got.has("kv_count") ? got.i32("kv_count") : 0;
      if (got.i64("context_id") < 0) {
        break;
      }
      got = client.scan(got.i64("context_id"), partition);
    }
    checks.equal("only count", count, 1201L);
  }

  /** A context serves one request; closing it has no answer; one that is not there is said to be so. */
  private void contexts() throws Exception {
    byte[] hash = bytes(run + "large scan");
    long partition = Table.hash(hash);
    Struct first = open(whole(hash, 10), partition);
    Struct second = client.scan(first.i64("context_id"), partition);
    checks.equal("second answer", keys(second.list("kvs")).get(0), stored(hash, List.of(number(10))).get(0));
    checks.equal("context used twice", client.scan(first.i64("context_id"), partition).i32("error"), Rows.NOT_FOUND);
    checks.equal("no such context", client.scan(987654321L, partition).i32("error"), Rows.NOT_FOUND);
    Struct route = client.table.configuration(client.table.partition(partition));
    Connection connection = client.table.connection(route.string("primary"));
    Connection.Target target = new Connection.Target(client.table.app(), client.table.partition(partition), 1000,
        partition);
    connection.send(target, "RPC_RRDB_RRDB_CLEAR_SCANNER", "i64", second.i64("context_id"));
    checks.equal("closed context", client.scan(second.i64("context_id"), partition).i32("error"), Rows.NOT_FOUND);
    connection.send(target, "RPC_RRDB_RRDB_CLEAR_SCANNER", "i64", 987654321L);
    checks.equal("get after it", client.get(hash, bytes(number(0))).i32("error"), 0);
  }

  /** Deletes a range as the Java client does: scans it without values, and deletes a hundred rows at a time. */
  private void deleteRange() throws Exception {
    byte[] hash = bytes(run + "delete range");
    long partition = Table.hash(hash);
    String[] all = IntStream.range(0, 1000).mapToObj(Scans::number).toArray(String[]::new);
    checks.equal("1,000 rows at once", client.fill(hash, 0, all).i32("error"), 0);
    Struct range = whole(hash, 100).with("start_key", Client.stored(hash, bytes(number(100))))
        .with("stop_key", Client.stored(hash, bytes(number(850)))).with("no_value", true);
    List<String> sorts = keys(read(range, partition, new int[1])).stream().map(key -> key.substring(2 + hash.length))
        .toList();
    checks.equal("rows to delete", sorts, List.of(all).subList(100, 850));
    for (int first = 0; first < sorts.size(); first += 100) {
      String[] some = sorts.subList(first, Math.min(sorts.size(), first + 100)).toArray(String[]::new);
      checks.equal("deleted", client.multiDel(hash, some).i64("count"), (long) some.length);
    }
    checks.equal("rows left", client.count(hash).i64("count"), 250L);
  }

  private void ofTable() throws Exception {
    Set<String> want = new HashSet<>();
    for (int i = 0; i < 200; i++) {
      byte[] hash = bytes(run + "unordered" + i);
      client.fill(hash, 0, "x", "y" + i);
      want.addAll(stored(hash, List.of("x", "y" + i)));
    }
    int[][] filters = {{0, 0}, {2, 0}, {1, 0}, {2, 2}};
    for (int[] filter : filters) {
      Set<String> seen = new HashSet<>();
      int twice = 0;
      for (int partition = 0; partition < 8; partition++) {
        Struct request = Client.scanner(FIRST, LAST, 300).with("hash_key_filter_type", filter[0])
            .with("hash_key_filter_pattern", bytes(filter[0] == 0 ? "" : run + "unordered"))
            .with("sort_key_filter_type", filter[1])
            .with("sort_key_filter_pattern", bytes(filter[1] == 0 ? "" : "y")).with("validate_partition_hash", true);
        // The hash of a number below the partition count is that partition.
        for (String key : keys(read(request, partition, new int[1]))) {
          twice += seen.add(key) ? 0 : 1;
        }
      }
      checks.equal("rows that came twice", twice, 0);
      seen.retainAll(want);
      checks.equal("rows of the table", seen.size(), filter[1] == 0 ? 400 : 200);
    }
  }
}
