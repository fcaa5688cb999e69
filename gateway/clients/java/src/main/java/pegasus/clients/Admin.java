package pegasus.clients;

import static pegasus.clients.Client.bytes;

import java.util.Map;
import org.apache.thrift.TException;
import pegasus.clients.Connection.Failed;
import pegasus.clients.Connection.Target;

/** Tables, as an administrator makes them through the meta service. */
final class Admin {
  private static final int AVAILABLE = 1;
  private static final int DROPPED = 6;
  private static final long WAIT_MS = 60_000;

  private final Checks checks = new Checks();
  private final String meta;
  private final String name;
  private final Connection connection;

  Admin(String meta, String run) throws java.io.IOException {
    this.meta = meta;
    name = "java_admin_" + run.replace("-", "");
    connection = new Connection(meta);
  }

  int run() {
    checks.part("tables", this::tables);
    return checks.finish();
  }

  private Struct call(String rpc, Struct request) throws Failed, TException {
    String response = request.schema.name.replace("_request", "_response");
    return connection.call(new Target(-1, -1, 10_000, 0), rpc, request.schema.name, request, response);
  }

  private String create(String table, boolean again) throws Exception {
    Struct options = new Struct("create_options").with("partition_count", 8).with("replica_count", 3)
        .with("success_if_exist", again).with("app_type", "pegasus").with("is_stateful", true)
        .with("envs", Map.of());
    return call("RPC_CM_CREATE_APP", new Struct("create_app_request").with("app_name", table).with("options", options))
        .string("err");
  }

  private String drop(String table, boolean missing) throws Exception {
    Struct options = new Struct("drop_options").with("success_if_not_exist", missing).with("reserve_seconds", 3600L);
    return call("RPC_CM_DROP_APP", new Struct("drop_app_request").with("app_name", table).with("options", options))
        .string("err");
  }

  private Struct listed(String table, int status) throws Exception {
    Struct got = call("RPC_CM_LIST_APPS", new Struct("list_apps_request").with("status", status));
    checks.equal("list apps", got.string("err"), "ERR_OK");
    return got.list("infos").stream().filter(info -> info.string("app_name").equals(table)).findFirst().orElse(null);
  }

  /** Opens a table that has just been made, and waits until it takes a row. */
  private Client served(String table) throws Exception {
    long deadline = System.currentTimeMillis() + WAIT_MS;
    while (true) {
      try {
        Client client = new Client(new Table(meta, table, 5000));
        client.set(bytes("ready"), bytes("s"), bytes("v"), 0);
        return client;
      } catch (Failed error) {
        if (System.currentTimeMillis() > deadline) {
          throw error;
        }
        Table.pause(200);
      }
    }
  }

  private void tables() throws Exception {
    checks.equal("create", create(name, false), "ERR_OK");
    checks.equal("create again", create(name, false), "ERR_APP_EXIST");
    checks.equal("create if it does not exist", create(name, true), "ERR_OK");
    Client client = served(name);
    checks.equal("set", client.set(bytes("h"), bytes("s"), bytes("kept"), 0).i32("error"), 0);
    client.table.close();
    Struct info = listed(name, AVAILABLE);
    checks.that("listed", info != null, "no " + name);
    Struct rename = new Struct("rename_app_request").with("old_app_name", name).with("new_app_name", name + "_2");
    checks.equal("rename", call("RPC_CM_RENAME_APP", rename).string("err"), "ERR_OK");
    checks.that("listed by its new name", listed(name + "_2", AVAILABLE) != null, "no " + name + "_2");
    checks.that("not listed by its old name", listed(name, AVAILABLE) == null, name);
    checks.equal("drop", drop(name + "_2", false), "ERR_OK");
    checks.equal("drop again", drop(name + "_2", false), "ERR_APP_NOT_EXIST");
    checks.equal("drop again, if it exists", drop(name + "_2", true), "ERR_OK");
    checks.that("listed as dropped", listed(name + "_2", DROPPED) != null, "no " + name + "_2");
    Struct recall = new Struct("recall_app_request").with("app_id", info.i32("app_id")).with("new_app_name", name);
    Struct recalled = call("RPC_CM_RECALL_APP", recall);
    checks.equal("recall", recalled.string("err"), "ERR_OK");
    client = served(name);
    checks.equal("row after recall", Checks.text(client.get(bytes("h"), bytes("s")).blob("value")), "kept");
    client.table.close();
    checks.equal("drop at the end", drop(name, false), "ERR_OK");
  }
}
