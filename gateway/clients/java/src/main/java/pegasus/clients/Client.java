package pegasus.clients;

import java.io.ByteArrayOutputStream;
import java.nio.charset.StandardCharsets;
import java.util.List;
import org.apache.thrift.TException;
import pegasus.clients.Connection.Failed;

/** The operations, with requests filled in as Pegasus's Java client does. */
final class Client {
  /** What an operation may take. */
  static final int TIMEOUT_MS = 10_000;

  private static final long EPOCH_SECONDS = 1_451_606_400L;

  final Table table;

  Client(Table table) {
    this.table = table;
  }

  static byte[] bytes(String text) {
    return text.getBytes(StandardCharsets.UTF_8);
  }

  static List<byte[]> list(String... texts) {
    return java.util.Arrays.stream(texts).map(Client::bytes).toList();
  }

  /** The stored key of a row. */
  static byte[] stored(byte[] hashKey, byte[] sortKey) {
    ByteArrayOutputStream out = new ByteArrayOutputStream();
    out.write(hashKey.length >> 8);
    out.write(hashKey.length);
    out.writeBytes(hashKey);
    out.writeBytes(sortKey);
    return out.toByteArray();
  }

  /** The stored key after all that begin with a key: the end of a range that has no other. */
  static byte[] next(byte[] key) {
    int last = key.length - 1;
    while ((key[last] & 255) == 255) {
      last--;
    }
    byte[] next = java.util.Arrays.copyOf(key, last + 1);
    next[last]++;
    return next;
  }

  static int expiry(int ttlSeconds) {
    return ttlSeconds == 0 ? 0 : (int) (System.currentTimeMillis() / 1000 - EPOCH_SECONDS) + ttlSeconds;
  }

  Struct call(String rpc, Struct request, String response, byte[] hashKey) throws Failed, TException {
    return call(rpc, request, response, Table.hash(hashKey));
  }

  Struct call(String rpc, Struct request, String response, long hash) throws Failed, TException {
    return table.call("RPC_RRDB_RRDB_" + rpc, request.schema.name, request, response, hash, TIMEOUT_MS);
  }

  private Struct key(String rpc, byte[] hashKey, byte[] sortKey, String response) throws Failed, TException {
    long hash = Table.hash(hashKey, sortKey);
    return table.call("RPC_RRDB_RRDB_" + rpc, "blob", stored(hashKey, sortKey), response, hash, TIMEOUT_MS);
  }

  Struct set(byte[] hashKey, byte[] sortKey, byte[] value, int ttlSeconds) throws Failed, TException {
    Struct request = new Struct("update_request").with("key", stored(hashKey, sortKey)).with("value", value)
        .with("expire_ts_seconds", expiry(ttlSeconds));
    return call("PUT", request, "update_response", Table.hash(hashKey, sortKey));
  }

  Struct get(byte[] hashKey, byte[] sortKey) throws Failed, TException {
    return key("GET", hashKey, sortKey, "read_response");
  }

  Struct del(byte[] hashKey, byte[] sortKey) throws Failed, TException {
    return key("REMOVE", hashKey, sortKey, "update_response");
  }

  Struct ttl(byte[] hashKey, byte[] sortKey) throws Failed, TException {
    return key("TTL", hashKey, sortKey, "ttl_response");
  }

  Struct count(byte[] hashKey) throws Failed, TException {
    return table.call("RPC_RRDB_RRDB_SORTKEY_COUNT", "blob", hashKey, "count_response", Table.hash(hashKey),
        TIMEOUT_MS);
  }

  /** Sets rows whose values are `value of KEY`. */
  Struct fill(byte[] hashKey, int ttlSeconds, String... keys) throws Failed, TException {
    List<Struct> rows = java.util.Arrays.stream(keys).map(key -> new Struct("key_value").with("key", bytes(key))
        .with("value", bytes("value of " + key))).toList();
    Struct request = new Struct("multi_put_request").with("hash_key", hashKey).with("kvs", rows)
        .with("expire_ts_seconds", expiry(ttlSeconds));
    return call("MULTI_PUT", request, "update_response", hashKey);
  }

  Struct multiDel(byte[] hashKey, String... keys) throws Failed, TException {
    Struct request = new Struct("multi_remove_request").with("hash_key", hashKey).with("sort_keys", list(keys))
        .with("max_count", 100L);
    return call("MULTI_REMOVE", request, "multi_remove_response", hashKey);
  }

  /** A multi get of everything; the caller changes what it wants otherwise. */
  static Struct multiGet(byte[] hashKey) {
    return new Struct("multi_get_request").with("hash_key", hashKey).with("sort_keys", List.of())
        .with("max_kv_count", -1).with("max_kv_size", -1).with("no_value", false).with("start_sortkey", new byte[0])
        .with("stop_sortkey", new byte[0]).with("start_inclusive", true).with("stop_inclusive", false)
        .with("filter_type", 0).with("filter_pattern", new byte[0]).with("reverse", false);
  }

  Struct multiGet(Struct request) throws Failed, TException {
    return call("MULTI_GET", request, "multi_get_response", request.blob("hash_key"));
  }

  Struct incr(byte[] hashKey, byte[] sortKey, long add, int expiry) throws Failed, TException {
    Struct request = new Struct("incr_request").with("key", stored(hashKey, sortKey)).with("increment", add)
        .with("expire_ts_seconds", expiry);
    return call("INCR", request, "incr_response", Table.hash(hashKey, sortKey));
  }

  /** A get_scanner of a range of stored keys; the caller adds the optional fields. */
  static Struct scanner(byte[] start, byte[] stop, int batch) {
    return new Struct("get_scanner_request").with("start_key", start).with("stop_key", stop)
        .with("start_inclusive", true).with("stop_inclusive", false).with("batch_size", batch)
        .with("no_value", false).with("hash_key_filter_type", 0).with("hash_key_filter_pattern", new byte[0])
        .with("sort_key_filter_type", 0).with("sort_key_filter_pattern", new byte[0]);
  }

  Struct scan(long context, long hash) throws Failed, TException {
    return call("SCAN", new Struct("scan_request").with("context_id", context), "scan_response", hash);
  }
}
