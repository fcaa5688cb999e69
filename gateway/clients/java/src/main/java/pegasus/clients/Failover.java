package pegasus.clients;

import static pegasus.clients.Client.bytes;

import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.TreeMap;
import java.util.concurrent.Callable;
import java.util.stream.Collectors;
import org.apache.thrift.TException;
import pegasus.clients.Connection.Failed;

/** Load while a node is killed by somebody else: no acknowledged write may be lost, and none made twice. */
final class Failover {
  private static final long RECOVERY_MS = 60_000;

  private final Client client;
  private final int timeoutMs;
  private final long started = System.nanoTime();
  private final long ends;
  private final Map<String, Integer> errors = new TreeMap<>();
  private final List<String> wrong = new ArrayList<>();
  private long last = started;
  private long longestGap;
  private long longestWorkerGap;
  private int operations;
  private int successes;
  private int unrecovered;

  Failover(Client client, int seconds, int timeoutMs) {
    this.client = client;
    this.timeoutMs = timeoutMs;
    ends = started + seconds * 1_000_000_000L;
  }

  int run(String name, int count) throws InterruptedException {
    List<Worker> workers = new ArrayList<>();
    for (int i = 0; i < count; i++) {
      workers.add(new Worker(bytes(name + i)));
    }
    each(workers, Worker::load);
    gap(System.nanoTime());
    long loaded = System.nanoTime();
    each(workers, Worker::recover);
    long recoveryMs = (System.nanoTime() - loaded) / 1_000_000;
    each(workers, Worker::verify);
    System.out.println("{\"operations\":" + operations + ",\"successes\":" + successes + ",\"errors\":{"
        + errors.entrySet().stream().map(one -> quoted(one.getKey()) + ":" + one.getValue())
            .collect(Collectors.joining(",")) + "},\"longest_gap_ms\":" + longestGap / 1_000_000
        + ",\"longest_worker_gap_ms\":" + longestWorkerGap / 1_000_000 + ",\"recovery_ms\":" + recoveryMs
        + ",\"unrecovered\":" + unrecovered + ",\"total_ms\":" + (System.nanoTime() - started) / 1_000_000
        + ",\"wrong\":[" + wrong.stream().limit(20).map(Failover::quoted).collect(Collectors.joining(",")) + "]}");
    return wrong.isEmpty() && unrecovered == 0 && successes > 0 ? 0 : 1;
  }

  private static String quoted(String text) {
    return '"' + text.replace("\\", "\\\\").replace("\"", "\\\"").replaceAll("[^ -~]", "?") + '"';
  }

  private interface Step {
    void run(Worker worker) throws Exception;
  }

  private void each(List<Worker> workers, Step step) throws InterruptedException {
    List<Thread> threads = new ArrayList<>();
    for (Worker worker : workers) {
      Thread thread = new Thread(() -> {
        try {
          step.run(worker);
        } catch (Exception error) {
          wrong("unexpected " + error);
        }
      });
      thread.start();
      threads.add(thread);
    }
    for (Thread thread : threads) {
      thread.join();
    }
  }

  private synchronized void gap(long now) {
    longestGap = Math.max(longestGap, now - last);
    last = now;
  }

  private synchronized void wrong(String what) {
    wrong.add(what);
  }

  /** Alone writes its two rows, so it knows what may be in them. */
  private final class Worker {
    private final byte[] hash;
    private final byte[] value = bytes("value");
    private final byte[] sum = bytes("sum");
    private long lastSuccess = started;
    private long known;
    private long tried;
    private long highest;
    private long added;
    private long unknown;

    Worker(byte[] hash) {
      this.hash = hash;
    }

    private <T> T measured(String name, Callable<T> operation) throws Exception {
      T result = null;
      String error = null;
      try {
        result = operation.call();
      } catch (Failed | TException failed) {
        error = name + ": " + failed.getMessage();
      }
      long now = System.nanoTime();
      synchronized (Failover.this) {
        operations++;
        if (error != null) {
          errors.merge(error, 1, Integer::sum);
          return null;
        }
        successes++;
        gap(now);
        longestWorkerGap = Math.max(longestWorkerGap, now - lastSuccess);
        lastSuccess = now;
        return result;
      }
    }

    private Struct put() throws Failed, TException {
      Struct request = new Struct("update_request").with("key", Client.stored(hash, value))
          .with("value", bytes("" + tried)).with("expire_ts_seconds", 0);
      return client.table.call("RPC_RRDB_RRDB_PUT", "update_request", request, "update_response", Table.hash(hash),
          timeoutMs);
    }

    private Struct row(byte[] sort) throws Failed, TException {
      return client.table.call("RPC_RRDB_RRDB_GET", "blob", Client.stored(hash, sort), "read_response",
          Table.hash(hash), timeoutMs);
    }

    private Struct incr() throws Failed, TException {
      Struct request = new Struct("incr_request").with("key", Client.stored(hash, sum)).with("increment", 1L)
          .with("expire_ts_seconds", 0);
      return client.table.call("RPC_RRDB_RRDB_INCR", "incr_request", request, "incr_response", Table.hash(hash),
          timeoutMs, false);
    }

    void load() throws Exception {
      while (System.nanoTime() < ends) {
        tried++;
        Struct put = measured("set", this::put);
        if (put != null && put.i32("error") == 0) {
          known = tried;
        }
        Struct got = measured("get", () -> row(value));
        if (got != null) {
          known = acceptable(got);
        }
        Struct incr = measured("incr", this::incr);
        if (incr == null) {
          unknown++;
          continue;
        }
        added++;
        long now = incr.i64("new_value");
        if (now <= highest || now > added + unknown) {
          wrong("incr gave " + now + " after " + highest + "; " + added + " acknowledged, " + unknown + " unknown");
        }
        highest = now;
      }
      synchronized (Failover.this) {
        longestWorkerGap = Math.max(longestWorkerGap, System.nanoTime() - lastSuccess);
      }
    }

    private long acceptable(Struct got) {
      long number = got.i32("error") == 0 ? Long.parseLong(Checks.text(got.blob("value"))) : 0;
      if (number < known || number > tried) {
        wrong("read " + number + ", while " + known + " was acknowledged or seen and " + tried + " tried");
        return known;
      }
      return number;
    }

    /** Waits until the row is read again over the connections that lived through the failure. */
    void recover() throws Exception {
      long deadline = System.currentTimeMillis() + RECOVERY_MS;
      while (System.currentTimeMillis() < deadline) {
        try {
          known = acceptable(row(value));
          return;
        } catch (Failed error) {
          Table.pause(100);
        }
      }
      synchronized (Failover.this) {
        unrecovered++;
      }
    }

    void verify() throws Exception {
      acceptable(row(value));
      Struct got = row(sum);
      long number = got.i32("error") == 0 ? Long.parseLong(Checks.text(got.blob("value"))) : 0;
      if (number < highest || number > added + unknown) {
        wrong("sum " + number + ", want " + highest + " to " + (added + unknown));
      }
    }
  }
}
