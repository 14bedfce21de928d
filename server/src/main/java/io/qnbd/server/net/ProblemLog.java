package io.qnbd.server.net;

import io.qnbd.protocol.Request;
import java.io.IOException;
import org.jspecify.annotations.Nullable;
import org.slf4j.Logger;
import org.slf4j.LoggerFactory;

/**
 * Says what goes wrong on one connection, at most once a second: a failing disk or a hostile client
 * must not fill the log.
 *
 * <p>Thread-safe.
 */
final class ProblemLog {
  private static final Logger log = LoggerFactory.getLogger("io.qnbd.server.net.Connection");
  private static final long INTERVAL_NANOS = 1_000_000_000L;

  private final String who;
  private long lastNanos = System.nanoTime() - INTERVAL_NANOS;
  private long suppressed;

  ProblemLog(String who) {
    this.who = who;
  }

  /** The image failed a request. */
  void requestFailed(Request request, Throwable cause) {
    String more = admit();
    if (more == null) {
      return;
    }
    String what =
        "%s of %d bytes at %s"
            .formatted(
                request.getClass().getSimpleName(),
                request.bytes(),
                Long.toUnsignedString(request.offset()));
    if (cause instanceof IOException) {
      log.warn("{}: {} failed: {}{}", who, what, cause.getMessage(), more);
    } else {
      log.error("{}: {} failed{}", who, what, more, cause);
    }
  }

  /** The client broke the protocol, or something broke between it and us. */
  void disconnecting(String reason) {
    String more = admit();
    if (more != null) {
      log.warn("{}: disconnecting: {}{}", who, reason, more);
    }
  }

  /** Nothing that anybody has to look at. */
  void debug(String message) {
    log.debug("{}: {}", who, message);
  }

  /** What to add to the line, or null when there is to be none. */
  private synchronized @Nullable String admit() {
    long now = System.nanoTime();
    if (now - lastNanos < INTERVAL_NANOS) {
      suppressed++;
      return null;
    }
    lastNanos = now;
    String more = suppressed == 0 ? "" : " (and " + suppressed + " more before)";
    suppressed = 0;
    return more;
  }
}
