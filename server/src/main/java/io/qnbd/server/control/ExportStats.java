package io.qnbd.server.control;

import io.qnbd.image.ImageStats;
import io.qnbd.server.export.Export;
import io.qnbd.server.export.RequestCounters;
import java.util.LinkedHashMap;
import java.util.Locale;
import java.util.Map;
import java.util.SequencedMap;
import java.util.stream.Collectors;
import tools.jackson.core.JsonGenerator;

/**
 * What an export did since it was opened: its clients' requests, and the image's work for them.
 *
 * @param export the export's name
 * @param counters in the order in which they are shown, by the names of the JSON
 * @param writersPerCommit how many requests shared a commit, on average; 0 without any commit
 */
public record ExportStats(
    String export, SequencedMap<String, Long> counters, double writersPerCommit) {

  /** The counters of this moment. */
  public static ExportStats of(Export export) {
    RequestCounters requests = export.requests();
    ImageStats image = export.image().stats();
    SequencedMap<String, Long> counters = new LinkedHashMap<>();
    counters.put("reads", requests.reads());
    counters.put("read-bytes", requests.readBytes());
    counters.put("writes", requests.writes());
    counters.put("write-bytes", requests.writeBytes());
    counters.put("zeroes", requests.zeroes());
    counters.put("trims", requests.trims());
    counters.put("flushes", requests.flushes());
    counters.put("batched", image.batched());
    counters.put("coalesced", image.coalesced());
    counters.put("cancelled", image.cancelled());
    counters.put("applied", image.applied());
    counters.put("reserved", image.reserved());
    counters.put("returned", image.returned());
    counters.put("reused", image.reused());
    counters.put("refcount-writes", image.refcountWrites());
    counters.put("table-writes", image.tableWrites());
    counters.put("syncs", image.syncs());
    counters.put("commits", image.commits());
    counters.put("commit-requests", image.commitRequests());
    double writers = image.commits() == 0 ? 0 : (double) image.commitRequests() / image.commits();
    return new ExportStats(export.info().name(), counters, Math.round(writers * 100) / 100.0);
  }

  /** The counters on one line: {@code reads=3 read-bytes=12288 ... writers-per-commit=1.50}. */
  public String text() {
    return counters.entrySet().stream()
            .map(counter -> counter.getKey() + "=" + counter.getValue())
            .collect(Collectors.joining(" "))
        + String.format(Locale.ROOT, " writers-per-commit=%.2f", writersPerCommit);
  }

  void write(JsonGenerator json) {
    json.writeStartObject();
    json.writeStringProperty("export", export);
    for (Map.Entry<String, Long> counter : counters.entrySet()) {
      json.writeNumberProperty(counter.getKey(), counter.getValue());
    }
    json.writeNumberProperty("writers-per-commit", writersPerCommit);
    json.writeEndObject();
  }
}
