package io.qnbd.it.conformance;

import java.nio.ByteBuffer;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import java.util.Map;
import java.util.Objects;
import java.util.TreeMap;
import org.jspecify.annotations.Nullable;

/**
 * What has come in reply to one request, in however many messages. {@link ReplyChecker} fills it
 * and is sure of its legality when {@code done} is true.
 */
final class Reply {
  final Ask ask;
  final List<Content> content = new ArrayList<>();
  final Map<Integer, List<Extent>> status = new TreeMap<>();
  final List<Long> errorOffsets = new ArrayList<>();

  /** The first error, 0 for none. */
  int error;

  String text = "";
  int errorsWithoutOffset;
  int messages;
  boolean done;

  Reply(Ask ask) {
    this.ask = ask;
  }

  /**
   * A part of what was read.
   *
   * @param data null for a hole
   */
  record Content(long offset, long bytes, @Nullable ByteBuffer data) {
    boolean hole() {
      return data == null;
    }

    boolean meets(long from, long count) {
      return from < offset + bytes && offset < from + count;
    }
  }

  /** One descriptor of a block status. */
  record Extent(long bytes, long flags) {}

  Reply mustSucceed() {
    Check.that(error == 0, "%s", this);
    return this;
  }

  /** Fails unless the error is one of these. */
  Reply mustFail(int... errors) {
    return mustAnswer(errors);
  }

  /** As {@link #mustFail}; 0 stands for success. */
  Reply mustAnswer(int... errors) {
    Check.that(Arrays.stream(errors).anyMatch(each -> each == error), "%s", this);
    return this;
  }

  /** The bytes that were read, put together. */
  byte[] data() {
    var _ = mustSucceed();
    byte[] all = new byte[Math.toIntExact(ask.length())];
    for (Content part : content) {
      ByteBuffer data = part.data;
      if (data != null) {
        data.get(0, all, (int) (part.offset - ask.offset()), data.limit());
      }
    }
    return all;
  }

  /** How many bytes of data travelled; holes count nothing. */
  long dataBytes() {
    return content.stream().filter(part -> !part.hole()).mapToLong(Content::bytes).sum();
  }

  /** How many bytes are known, data and holes. */
  long coveredBytes() {
    return content.stream().mapToLong(Content::bytes).sum();
  }

  /** The extents of one context. */
  List<Extent> extents(int context) {
    return Objects.requireNonNull(mustSucceed().status.get(context), "no such context");
  }

  @Override
  public String toString() {
    String end = error == 0 ? "success" : "error " + error + " (" + text + ")";
    return "%s was answered with %s in %d messages".formatted(ask, end, messages);
  }
}
