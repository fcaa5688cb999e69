package pegasus.clients;

import java.io.IOException;
import java.util.List;
import java.util.Map;
import java.util.concurrent.ConcurrentHashMap;
import org.apache.thrift.TException;
import pegasus.clients.Connection.Failed;
import pegasus.clients.Connection.Target;

/**
 * A table: asks the meta service where its partitions are, keeps one connection per node, and sends requests to the
 * primary. When a node says that it does not serve a partition, or is not to be reached, it asks the meta service
 * again and repeats the request until its time is over, as Pegasus's own Java client does. Other than that client it
 * does not repeat a request whose outcome is unknown because the connection broke, if the caller says so.
 */
final class Table {
  private static final long[] CRC = new long[256];
  private static final long QUERY_PAUSE_MS = 100;

  static {
    for (int i = 0; i < 256; i++) {
      long crc = i;
      for (int bit = 0; bit < 8; bit++) {
        crc = (crc & 1) == 1 ? crc >>> 1 ^ 0x9a6c9329ac4bc9b5L : crc >>> 1;
      }
      CRC[i] = crc;
    }
  }

  private final String meta;
  private final String name;
  private final Map<String, Connection> connections = new ConcurrentHashMap<>();
  private volatile Struct config;
  private volatile long queriedMs;

  Table(String meta, String name, int timeoutMs) throws Failed, TException {
    this.meta = meta;
    this.name = name;
    config = query(timeoutMs);
  }

  static long hash(byte[] data) {
    long crc = -1;
    for (byte one : data) {
      crc = CRC[(int) (crc ^ one) & 255] ^ crc >>> 8;
    }
    return ~crc;
  }

  /** The hash that chooses the partition of a row. */
  static long hash(byte[] hashKey, byte[] sortKey) {
    return hash(hashKey.length == 0 ? sortKey : hashKey);
  }

  int app() {
    return config.i32("app_id");
  }

  int partition(long hash) {
    return (int) Long.remainderUnsigned(hash, config.i32("partition_count"));
  }

  Struct configuration(int partition) {
    return config.list("partitions").get(partition);
  }

  void close() {
    connections.values().forEach(Connection::close);
  }

  Connection connection(String address) throws Failed {
    synchronized (connections) {
      Connection known = connections.get(address);
      if (known == null || known.isClosed()) {
        try {
          known = new Connection(address);
        } catch (IOException error) {
          throw new Failed("ERR_NETWORK_FAILURE");
        }
        connections.put(address, known);
      }
      return known;
    }
  }

  /** Asks the meta service for the table. */
  Struct query(int timeoutMs) throws Failed, TException {
    Struct request = new Struct("query_cfg_request").with("app_name", name).with("partition_indices", List.of());
    Struct answer = connection(meta).call(new Target(-1, -1, timeoutMs, 0), "RPC_CM_QUERY_PARTITION_CONFIG_BY_INDEX",
        "query_cfg_request", request, "query_cfg_response");
    if (!answer.string("err").equals("ERR_OK")) {
      throw new Failed(answer.string("err"));
    }
    return answer;
  }

  private void refresh(int timeoutMs) throws TException {
    synchronized (this) {
      long now = System.currentTimeMillis();
      if (now - queriedMs < QUERY_PAUSE_MS) {
        return;
      }
      queriedMs = now;
    }
    try {
      config = query(timeoutMs);
    } catch (Failed error) {
      // The old configuration stays; the request that wanted a new one is repeated or fails.
      return;
    }
  }

  Struct call(String rpc, String type, Object request, String response, long hash, int timeoutMs)
      throws Failed, TException {
    return call(rpc, type, request, response, hash, timeoutMs, true);
  }

  /** Makes one request of the partition of a hash, and repeats it while that is allowed. */
  Struct call(String rpc, String type, Object request, String response, long hash, int timeoutMs,
      boolean repeatUnknown) throws Failed, TException {
    long ends = System.nanoTime() + timeoutMs * 1_000_000L;
    while (true) {
      int partition = partition(hash);
      int leftMs = Math.max(1, (int) ((ends - System.nanoTime()) / 1_000_000L));
      String error;
      try {
        Connection connection = connection(configuration(partition).string("primary"));
        return connection.call(new Target(app(), partition, leftMs, hash), rpc, type, request, response);
      } catch (Failed failed) {
        error = failed.name;
      }
      boolean unknown = error.equals(Connection.RESET);
      boolean again = switch (error) {
        case "ERR_OBJECT_NOT_FOUND", "ERR_INVALID_STATE", "ERR_NETWORK_FAILURE", "ERR_CAPACITY_EXCEEDED",
            "ERR_NOT_ENOUGH_MEMBER" -> true;
        default -> unknown && repeatUnknown;
      };
      if (!again || System.nanoTime() >= ends) {
        throw new Failed(error);
      }
      refresh(leftMs);
      pause(20);
    }
  }

  static void pause(long ms) {
    try {
      Thread.sleep(ms);
    } catch (InterruptedException error) {
      throw new IllegalStateException(error);
    }
  }
}
