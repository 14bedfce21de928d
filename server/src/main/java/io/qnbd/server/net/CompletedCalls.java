package io.qnbd.server.net;

import java.util.concurrent.atomic.AtomicReference;
import org.jspecify.annotations.Nullable;

/**
 * Calls that are done, on their way to the event loop that sends their replies.
 *
 * <p>A stack linked through the calls themselves, so that handing over allocates nothing. Many
 * threads push; the event loop alone takes.
 */
final class CompletedCalls {
  private final AtomicReference<@Nullable Call> top = new AtomicReference<>();

  /** Adds {@code call}; true when it is the first, and so somebody has to come and take it. */
  boolean push(Call call) {
    while (true) {
      Call below = top.get();
      call.next = below;
      if (top.compareAndSet(below, call)) {
        return below == null;
      }
    }
  }

  /** Takes all, linked in the order in which they were pushed. */
  @Nullable Call takeAll() {
    Call from = top.getAndSet(null);
    Call ordered = null;
    while (from != null) {
      Call next = from.next;
      from.next = ordered;
      ordered = from;
      from = next;
    }
    return ordered;
  }
}
