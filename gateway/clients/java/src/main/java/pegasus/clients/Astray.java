package pegasus.clients;

import static pegasus.clients.Client.bytes;

import java.util.ArrayList;
import java.util.List;
import pegasus.clients.Connection.Failed;
import pegasus.clients.Connection.Target;

/** Routes, requests that went to the wrong place, many requests at once. */
final class Astray {
  private final Checks checks;
  private final Client client;
  private final String meta;
  private final String run;

  Astray(Checks checks, Client client, String meta, String run) {
    this.checks = checks;
    this.client = client;
    this.meta = meta;
    this.run = run;
  }

  void all() {
    checks.part("routes", this::routes);
    checks.part("astray", this::astray);
    checks.part("no such table", this::noTable);
    checks.part("concurrent", this::concurrent);
  }

  private void routes() throws Exception {
    Struct config = client.table.query(Client.TIMEOUT_MS);
    checks.equal("partition count", config.i32("partition_count"), 8);
    checks.equal("stateful", config.bool("is_stateful"), true);
    checks.that("app id", config.i32("app_id") > 0, config.i32("app_id"));
    List<Struct> partitions = config.list("partitions");
    checks.equal("partitions", partitions.size(), 8);
    for (int i = 0; i < partitions.size(); i++) {
      Struct one = partitions.get(i);
      checks.equal("pid", one.get("pid"), config.i32("app_id") + "." + i);
      checks.that("ballot", one.i64("ballot") >= 1, one.i64("ballot"));
      checks.that("primary", !one.string("primary").isEmpty(), one.string("primary"));
      @SuppressWarnings("unchecked")
      List<String> secondaries = (List<String>) one.get("secondaries");
      checks.that("secondaries", !secondaries.contains(one.string("primary")) && !secondaries.contains(""),
          secondaries);
    }
  }

  private String failure(Connection connection, Target target, String rpc) throws Exception {
    try {
      byte[] key = Client.stored(bytes(run + "astray"), bytes("s"));
      return "" + connection.call(target, rpc, "blob", key, "read_response").i32("error");
    } catch (Failed failed) {
      return failed.name;
    }
  }

  private void astray() throws Exception {
    String get = "RPC_RRDB_RRDB_GET";
    long hash = Table.hash(bytes(run + "astray"));
    int partition = client.table.partition(hash);
    Struct route = client.table.configuration(partition);
    Connection primary = client.table.connection(route.string("primary"));
    int app = client.table.app();
    Target right = new Target(app, partition, 5000, hash);
    checks.equal("right", failure(primary, right, get), "1");
    checks.equal("unknown app", failure(primary, new Target(9999, 0, 5000, hash), get), "ERR_OBJECT_NOT_FOUND");
    checks.equal("unknown partition", failure(primary, new Target(app, 8, 5000, hash), get), "ERR_OBJECT_NOT_FOUND");
    checks.equal("no partition", failure(primary, new Target(-1, -1, 5000, hash), get), "ERR_OBJECT_NOT_FOUND");
    checks.equal("unknown request", failure(primary, right, "RPC_RRDB_RRDB_NONSENSE"), "ERR_HANDLER_NOT_FOUND");
    checks.equal("long name", failure(primary, right, "RPC_".repeat(20)), "ERR_HANDLER_NOT_FOUND");
    for (Object other : (List<?>) route.get("secondaries")) {
      String error = failure(client.table.connection((String) other), right, get);
      checks.that("from a secondary", List.of("ERR_INVALID_STATE", "ERR_OBJECT_NOT_FOUND").contains(error), error);
    }
    String error = failure(client.table.connection(meta), new Target(-1, -1, 5000, 0), "RPC_CM_NONSENSE");
    checks.equal("unknown request to the meta service", error, "ERR_HANDLER_NOT_FOUND");
    checks.equal("the connection lives on", failure(primary, right, get), "1");
  }

  private void noTable() throws Exception {
    String error = "opened";
    try {
      new Table(meta, run + "none", 5000);
    } catch (Failed failed) {
      error = failed.name;
    }
    checks.equal("open of no table", error, "ERR_OBJECT_NOT_FOUND");
  }

  private void concurrent() throws Exception {
    List<Thread> threads = new ArrayList<>();
    for (int i = 0; i < 32; i++) {
      byte[] hash = bytes(run + "concurrent" + i);
      Thread thread = new Thread(() -> {
        try {
          for (int round = 0; round < 50; round++) {
            byte[] value = bytes(("v" + round).repeat(1 + round * 11));
            client.set(hash, bytes("s"), value, 0);
            checks.same("get", client.get(hash, bytes("s")).blob("value"), value);
            long sum = client.incr(hash, bytes("n"), 2, 0).i64("new_value");
            checks.equal("incr", sum, 2L * (round + 1));
          }
        } catch (Exception error) {
          checks.that("no error", false, error);
        }
      });
      thread.start();
      threads.add(thread);
    }
    for (Thread thread : threads) {
      thread.join();
    }
  }
}
