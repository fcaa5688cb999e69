package pegasus.clients;

import java.util.Arrays;
import java.util.Objects;

/** Counts what was compared and prints what differed. */
class Checks {
  private String part = "";
  private int done;
  private int failed;

  /** A part of the checks. */
  interface Part {
    void run() throws Exception;
  }

  /** Runs a part; an error of it is a difference, and the next part goes on. */
  final void part(String name, Part run) {
    part = name;
    int before = done;
    long started = System.nanoTime();
    try {
      run.run();
    } catch (Exception error) {
      that("no error", false, error);
    }
    System.out.printf("%-20s %4d checks %6d ms%n", name, done - before, (System.nanoTime() - started) / 1_000_000);
  }

  final synchronized boolean that(String what, boolean holds, Object details) {
    done++;
    if (!holds) {
      failed++;
      System.out.println("DIFFERENT " + part + ": " + what + ": " + details);
    }
    return holds;
  }

  final boolean equal(String what, Object got, Object want) {
    return that(what, Objects.equals(got, want), "got " + got + ", want " + want);
  }

  final boolean same(String what, byte[] got, byte[] want) {
    return that(what, Arrays.equals(got, want), "got " + text(got) + ", want " + text(want));
  }

  final int finish() {
    System.out.println(failed == 0 ? "ok: " + done + " checks" : "failed: " + failed + " of " + done + " checks");
    return failed == 0 ? 0 : 1;
  }

  static String text(byte[] data) {
    if (data == null) {
      return "nothing";
    }
    return data.length > 60 ? data.length + " bytes" : whole(data);
  }

  /** All bytes as characters, so that different bytes stay different. */
  static String whole(byte[] data) {
    return new String(data, java.nio.charset.StandardCharsets.ISO_8859_1);
  }
}
