package io.qnbd.it.conformance;

import java.util.List;

/** The one deadline of the whole handshake. Last, because it passes while other cases run. */
final class DeadlineCases {
  private DeadlineCases() {}

  static void addTo(CaseList list) {
    for (String client :
        List.of(
            Deadlines.SILENT,
            Deadlines.FLAGS_ONLY,
            Deadlines.HALF_HEADER,
            Deadlines.HALF_DATA,
            Deadlines.SLOW,
            Deadlines.CHATTY,
            Deadlines.BEFORE_TLS,
            Deadlines.IN_TLS)) {
      list.add(
          "6.5",
          "client that is %s: closed at the deadline".formatted(client),
          bench -> bench.deadlines().mustHaveEndedInTime(client));
    }
    list.each(
        "6.5",
        "session that is idle longer than the handshake may be: served",
        (bench, mode) -> {
          bench.deadlines().mustHaveEndedInTime(Deadlines.SILENT);
          try (Session session = bench.idle(mode)) {
            session.mustBeInStep();
            session.leave();
          }
        });
  }
}
