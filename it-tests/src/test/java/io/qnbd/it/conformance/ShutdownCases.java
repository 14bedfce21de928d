package io.qnbd.it.conformance;

/** SIGTERM while clients are busy ("Terminating the transmission phase"). */
final class ShutdownCases {
  private static final String ROW = "1.1";

  private ShutdownCases() {}

  static void addTo(CaseList list) {
    list.each(
        ROW,
        "SIGTERM: each request is done or ESHUTDOWN, then closed",
        (bench, mode) -> bench.shutdown().mustHaveAnswered(mode));
    list.add(
        ROW,
        "SIGTERM: a handshake is told SHUTDOWN or closed",
        bench -> bench.shutdown().mustHaveRefused());
    list.add(
        ROW,
        "SIGTERM: what was acknowledged is in the image",
        bench -> bench.shutdown().mustHaveKept());
  }
}
