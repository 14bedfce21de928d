package io.qnbd.it.conformance;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertTrue;

import io.qnbd.it.Repository;
import io.qnbd.it.conformance.CaseList.Case;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.TreeMap;
import org.junit.jupiter.api.Test;

/** docs/conformance.md lists the cases that there are; -Dqnbd.conformance.write=true writes it. */
final class ConformancePageTest {
  /** What each group is about. */
  private static final Map<String, String> GROUPS =
      Map.ofEntries(
          Map.entry("1.1", "Greeting, strings, endings"),
          Map.entry("1.2", "Options"),
          Map.entry("1.3", "Transmission flags"),
          Map.entry("1.4", "Requests"),
          Map.entry("1.5", "Replies"),
          Map.entry("1.6", "Block sizes and payloads"),
          Map.entry("1.7", "Extended headers"),
          Map.entry("1.8", "TLS"),
          Map.entry("1.9", "Names"),
          Map.entry("6.1", "Requests in front of DISC, half-close"),
          Map.entry("6.2", "Resets"),
          Map.entry("6.3", "Option lengths that lie"),
          Map.entry("6.4", "Unknown options with data"),
          Map.entry("6.5", "Floods, silence, deadlines"),
          Map.entry("6.6", "Errors of requests with a payload"),
          Map.entry("6.7", "Huge lengths"),
          Map.entry("6.8", "Offsets that wrap"),
          Map.entry("6.9", "Length 0"),
          Map.entry("6.10", "Errors of reads in chunks"),
          Map.entry("6.11", "Round trips"),
          Map.entry("6.12", "Block status at its edges"),
          Map.entry("6.13", "Contexts that no longer apply"),
          Map.entry("6.14", "TLS at its edges"),
          Map.entry("6.15", "Payloads that do not belong"),
          Map.entry("6.16", "Single bytes"),
          Map.entry("6.17", "Command flags"),
          Map.entry("6.18", "Pipelining"),
          Map.entry("6.19", "INFO and GO agree"),
          Map.entry("6.20", "Bytes that are no request"),
          Map.entry("8", "What has ended other servers"));

  @Test
  void thePageListsEveryCase() throws IOException {
    Path page = Repository.root().resolve(Path.of("docs", "conformance.md"));
    String expected = page(CaseList.all().cases());
    if (Boolean.getBoolean("qnbd.conformance.write")) {
      Files.writeString(page, expected);
    }
    assertEquals(expected, Files.readString(page));
  }

  @Test
  void thereAreMoreThanAHundredAndFiftyCasesWithoutTheirModes() {
    long count =
        CaseList.all().cases().stream().map(each -> each.row() + each.title()).distinct().count();
    assertTrue(count > 150, () -> count + " cases");
  }

  private static String page(List<Case> cases) {
    Map<String, Map<String, List<String>>> groups =
        new TreeMap<>((a, b) -> Integer.compare(rank(a), rank(b)));
    for (Case each : cases) {
      groups
          .computeIfAbsent(each.row(), _ -> new LinkedHashMap<>())
          .computeIfAbsent(each.title(), _ -> new ArrayList<>())
          .add(each.mode());
    }
    StringBuilder page =
        new StringBuilder(
            """
            # Conformance

            `ConformanceIT` runs these %d cases against real servers, over raw sockets and with no code of the server's own. What
            the protocol's text (`doc/proto.md` of the NBD project and its branch `extension-ext-header`) leaves open, such as the
            order of replies and how a reply is split into chunks, it accepts in every form; a checker holds each message that comes
            back, in every case, to the rules for its kind. A case runs in each of the reply modes that it names.

            `ConformancePageTest` keeps this page as it is; `-Dqnbd.conformance.write=true` lets that test write it anew.
            """
                .formatted(cases.size()));
    groups.forEach((row, titles) -> {
      page.append("\n## %s %s\n\n".formatted(row, GROUPS.getOrDefault(row, "")));
      titles.forEach((title, modes) -> page.append(line(title, modes)));
    });
    return page.toString();
  }

  private static String line(String title, List<String> modes) {
    String tail = String.join(", ", modes);
    return tail.isEmpty() ? "- %s\n".formatted(title) : "- %s [%s]\n".formatted(title, tail);
  }

  private static int rank(String row) {
    String[] parts = row.split("\\.", -1);
    return Integer.parseInt(parts[0]) * 100 + (parts.length > 1 ? Integer.parseInt(parts[1]) : 0);
  }
}
