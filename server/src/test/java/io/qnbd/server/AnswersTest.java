package io.qnbd.server;

import static java.util.Objects.requireNonNull;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertTrue;

import io.qnbd.image.CheckReport;
import io.qnbd.image.ImageFormat;
import io.qnbd.image.ImageReport;
import io.qnbd.image.ImageReport.Bitmap;
import io.qnbd.image.ImageReport.Qcow2Details;
import io.qnbd.image.ImageReport.Snapshot;
import java.nio.file.Path;
import java.time.Instant;
import java.util.ArrayList;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import org.jspecify.annotations.Nullable;
import org.junit.jupiter.api.Test;
import tools.jackson.core.JsonParser;
import tools.jackson.core.JsonToken;
import tools.jackson.core.ObjectReadContext;
import tools.jackson.core.json.JsonFactory;

/** What info and check print; the JSON is read back. */
final class AnswersTest {
  private static final String HOSTILE = "a\"b\\\n\u001b[31m";

  private static Qcow2Details details(int version, @Nullable String backing) {
    return new Qcow2Details(
        version,
        65536,
        16,
        false,
        false,
        version > 2,
        false,
        "none",
        "zlib",
        List.of(),
        version > 2 ? List.of("lazy refcounts") : List.of(),
        List.of(),
        backing,
        backing == null ? null : "raw",
        null,
        List.of(
            new Snapshot(
                "1",
                HOSTILE,
                Instant.ofEpochSecond(1_700_000_000, 5),
                1 << 20,
                0,
                61_000_000_007L)),
        List.of(new Bitmap(HOSTILE, 65536, true, true)));
  }

  private static ImageReport report(@Nullable Qcow2Details details) {
    return new ImageReport(
        Path.of("/images/disk.qcow2"),
        details == null ? ImageFormat.RAW : ImageFormat.QCOW2,
        10L << 30,
        197120,
        200704,
        details);
  }

  @Test
  void infoHasQemuImgsFields() {
    Map<?, ?> info = parse(InfoAnswer.json(report(details(3, "base.raw"))));
    assertEquals("/images/disk.qcow2", info.get("filename"));
    assertEquals("qcow2", info.get("format"));
    assertEquals(10L << 30, info.get("virtual-size"));
    assertEquals(200704L, info.get("actual-size"));
    assertEquals(65536L, info.get("cluster-size"));
    assertEquals(false, info.get("dirty-flag"));
    assertEquals("base.raw", info.get("backing-filename"));
    assertEquals("/images/base.raw", info.get("full-backing-filename"));
    assertEquals("raw", info.get("backing-filename-format"));
    Map<?, ?> specific = object(info.get("format-specific"));
    assertEquals("qcow2", specific.get("type"));
    Map<?, ?> data = object(specific.get("data"));
    assertEquals("1.1", data.get("compat"));
    assertEquals("zlib", data.get("compression-type"));
    assertEquals(true, data.get("lazy-refcounts"));
    assertEquals(16L, data.get("refcount-bits"));
    assertEquals(false, data.get("corrupt"));
    assertEquals(false, data.get("extended-l2"));
    assertEquals(List.of("lazy refcounts"), data.get("compatible-features"));
    List<?> snapshots = (List<?>) requireNonNull(info.get("snapshots"));
    Map<?, ?> snapshot = object(snapshots.getFirst());
    assertEquals("1", snapshot.get("id"));
    assertEquals(HOSTILE, snapshot.get("name"));
    assertEquals(1_700_000_000L, snapshot.get("date-sec"));
    assertEquals(5L, snapshot.get("date-nsec"));
    assertEquals(61L, snapshot.get("vm-clock-sec"));
    assertEquals(7L, snapshot.get("vm-clock-nsec"));
    assertEquals(0L, snapshot.get("vm-state-size"));
    Map<?, ?> bitmap = object(((List<?>) requireNonNull(data.get("bitmaps"))).getFirst());
    assertEquals(
        Map.of("flags", List.of("in-use", "auto"), "name", HOSTILE, "granularity", 65536L), bitmap);
  }

  @Test
  void infoOfAnOldImageLeavesOutWhatVersion2CannotSay() {
    Map<?, ?> info = parse(InfoAnswer.json(report(details(2, null))));
    Map<?, ?> data = object(object(info.get("format-specific")).get("data"));
    assertEquals("0.10", data.get("compat"));
    assertFalse(data.containsKey("lazy-refcounts"));
    assertFalse(info.containsKey("backing-filename"));
  }

  @Test
  void infoNeverResolvesAProtocolName() {
    Map<?, ?> info = parse(InfoAnswer.json(report(details(3, "nbd://host/x"))));
    assertEquals("nbd://host/x", info.get("backing-filename"));
    assertFalse(info.containsKey("full-backing-filename"));
  }

  @Test
  void infoOfARawImageHasNoQcow2Fields() {
    Map<?, ?> info = parse(InfoAnswer.json(report(null)));
    assertEquals("raw", info.get("format"));
    assertFalse(info.containsKey("format-specific"));
    assertTrue(InfoAnswer.text(report(null)).contains("10 GiB (10737418240 bytes)"));
  }

  @Test
  void infoTextKeepsAnImagesNamesOffTheTerminalsControls() {
    String text = InfoAnswer.text(report(details(3, "base\u001b.raw")));
    assertTrue(text.contains("base\\u001b.raw (format raw)"), text);
    assertTrue(text.contains("00:01:01.000"), text);
    assertTrue(text.contains("compat 1.1"), text);
    assertFalse(text.contains("\u001b"), text);
  }

  @Test
  void checkHasQemuImgsFieldsAndExitCodes() {
    CheckReport leaking = new CheckReport(0, 2, List.of("cluster 5 leaks"), 262144, 16384, 16, 1);
    Map<?, ?> check = parse(CheckAnswer.json(Path.of("disk.qcow2"), leaking));
    assertEquals("disk.qcow2", check.get("filename"));
    assertEquals("qcow2", check.get("format"));
    assertEquals(0L, check.get("check-errors"));
    assertEquals(0L, check.get("corruptions"));
    assertEquals(2L, check.get("leaks"));
    assertEquals(262144L, check.get("image-end-offset"));
    assertEquals(16384L, check.get("total-clusters"));
    assertEquals(16L, check.get("allocated-clusters"));
    assertEquals(1L, check.get("compressed-clusters"));
    assertEquals(List.of("cluster 5 leaks"), check.get("findings"));
    assertEquals(ExitCode.LEAKS, CheckAnswer.exitCode(leaking));
    assertEquals(
        ExitCode.CORRUPT, CheckAnswer.exitCode(new CheckReport(1, 2, List.of(), 0, 0, 0, 0)));
    assertEquals(ExitCode.OK, CheckAnswer.exitCode(new CheckReport(0, 0, List.of(), 0, 0, 0, 0)));
  }

  @Test
  void checkTextSaysWhatToMakeOfIt() {
    Path path = Path.of("disk.qcow2");
    assertTrue(
        CheckAnswer.text(path, new CheckReport(0, 0, List.of(), 262144, 16384, 16, 0))
            .startsWith("disk.qcow2: no errors found"));
    String leaks = CheckAnswer.text(path, new CheckReport(0, 3, List.of("one"), 0, 4, 1, 0));
    assertTrue(leaks.contains("and 2 more"), leaks);
    assertTrue(leaks.contains("3 leaked clusters: wasted space"), leaks);
    assertTrue(leaks.contains("1 of 4 clusters allocated (25.00%)"), leaks);
    String corrupt = CheckAnswer.text(path, new CheckReport(1, 0, List.of("one"), 0, 0, 0, 0));
    assertTrue(corrupt.contains("1 error that put"), corrupt);
  }

  private static Map<?, ?> parse(String json) {
    try (JsonParser parser = new JsonFactory().createParser(ObjectReadContext.empty(), json)) {
      parser.nextToken();
      Map<?, ?> parsed = (Map<?, ?>) value(parser);
      assertEquals(null, parser.nextToken(), "more than one value");
      return parsed;
    }
  }

  private static Map<?, ?> object(@Nullable Object value) {
    return (Map<?, ?>) requireNonNull(value);
  }

  private static Object value(JsonParser parser) {
    return switch (parser.currentToken()) {
      case START_OBJECT -> {
        Map<String, Object> members = new LinkedHashMap<>();
        while (parser.nextToken() != JsonToken.END_OBJECT) {
          String name = parser.currentName();
          parser.nextToken();
          assertEquals(null, members.put(name, value(parser)), "twice: " + name);
        }
        yield members;
      }
      case START_ARRAY -> {
        List<Object> elements = new ArrayList<>();
        while (parser.nextToken() != JsonToken.END_ARRAY) {
          elements.add(value(parser));
        }
        yield elements;
      }
      case VALUE_STRING -> parser.getString();
      case VALUE_NUMBER_INT -> parser.getLongValue();
      case VALUE_TRUE -> true;
      case VALUE_FALSE -> false;
      default -> throw new AssertionError("unexpected " + parser.currentToken());
    };
  }
}
