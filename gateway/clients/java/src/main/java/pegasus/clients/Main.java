package pegasus.clients;

import java.util.HexFormat;
import java.util.Random;

/**
 * Speaks the protocol of Apache Pegasus with the real Thrift library and frames of version 1, as Pegasus's Java client
 * does, and checks every answer. That client itself is in no public registry.
 */
public final class Main {
  private static final String USAGE =
      "usage: client [--meta ADDRESS] [--table NAME] [--seconds N] [--workers N] [--timeout-ms N] basic|admin|failover";

  private String meta = "127.0.0.1:34601";
  private String tableName = "temp";
  private int seconds = 30;
  private int workers = 16;
  private int timeoutMs = 10_000;
  private String mode = "";

  private Main() {}

  private boolean parse(String[] args) {
    for (int i = 0; i < args.length; i++) {
      String value = i + 1 < args.length ? args[i + 1] : "";
      switch (args[i]) {
        case "--meta" -> meta = value;
        case "--table" -> tableName = value;
        case "--seconds" -> seconds = Integer.parseInt(value);
        case "--workers" -> workers = Integer.parseInt(value);
        case "--timeout-ms" -> timeoutMs = Integer.parseInt(value);
        default -> {
          mode = args[i];
          return i == args.length - 1 && mode.matches("basic|admin|failover");
        }
      }
      i++;
    }
    return false;
  }

  /** Runs one mode; ends the process with 0 only if everything was as it should be. */
  public static void main(String[] args) throws Exception {
    Main main = new Main();
    boolean understood;
    try {
      understood = main.parse(args);
    } catch (NumberFormatException error) {
      understood = false;
    }
    if (!understood) {
      System.err.println(USAGE);
      System.exit(2);
    }
    byte[] drawn = new byte[6];
    new Random().nextBytes(drawn);
    System.exit(main.run("java-" + HexFormat.of().formatHex(drawn) + "-"));
  }

  private int run(String name) throws Exception {
    try {
      if (mode.equals("admin")) {
        return new Admin(meta, name).run();
      }
      Client client = new Client(new Table(meta, tableName, 5000));
      if (mode.equals("failover")) {
        return new Failover(client, seconds, timeoutMs).run(name, workers);
      }
      Checks checks = new Checks();
      new Rows(checks, client, name).all();
      new Conditions(checks, client, name).all();
      new Scans(checks, client, name).all();
      new Astray(checks, client, meta, name).all();
      return checks.finish();
    } catch (Connection.Failed | java.io.IOException error) {
      System.out.println("open table " + tableName + " at " + meta + ": " + error.getMessage());
      return 1;
    }
  }
}
