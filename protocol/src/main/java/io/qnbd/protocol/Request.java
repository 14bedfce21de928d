package io.qnbd.protocol;

import java.util.List;
import org.jspecify.annotations.Nullable;

/**
 * A request of the transmission phase, as the client sent it and not yet checked: {@link
 * RequestRules} says whether it may be done. The data of a WRITE travels beside it, never in it.
 */
public sealed interface Request {

  /**
   * Flags as sent, see {@link CommandFlags}; without PAYLOAD_LEN where that is in order, because it
   * then says nothing that the record does not say.
   */
  int flags();

  /** What the reply repeats; opaque, and not unique. */
  long cookie();

  /** Unsigned. */
  long offset();

  /** How much of the disk is meant. Unsigned; below 2^32 unless headers are extended. */
  long bytes();

  /**
   * Bytes of data that travel behind the header and are not yet received when the request is
   * offered: what a WRITE carries, or what has to be dropped. Unsigned.
   */
  default long dataBytes() {
    return 0;
  }

  default boolean fua() {
    return (flags() & CommandFlags.FUA) != 0;
  }

  record Read(int flags, long cookie, long offset, long bytes) implements Request {
    /** Whether the data must cross in one piece. */
    public boolean dontFragment() {
      return (flags & CommandFlags.DF) != 0;
    }
  }

  record Write(int flags, long cookie, long offset, long bytes) implements Request {
    @Override
    public long dataBytes() {
      return bytes;
    }
  }

  record Disconnect(int flags, long cookie, long offset, long bytes) implements Request {}

  record Flush(int flags, long cookie, long offset, long bytes) implements Request {}

  record Trim(int flags, long cookie, long offset, long bytes) implements Request {}

  record Cache(int flags, long cookie, long offset, long bytes) implements Request {}

  record WriteZeroes(int flags, long cookie, long offset, long bytes) implements Request {
    public boolean noHole() {
      return (flags & CommandFlags.NO_HOLE) != 0;
    }

    /** Whether it must be refused with ENOTSUP when it is no faster than writing zeroes. */
    public boolean fastZero() {
      return (flags & CommandFlags.FAST_ZERO) != 0;
    }
  }

  /**
   * Asks for the status of a range in metadata contexts.
   *
   * @param contextIds the contexts that are wanted, as sent, duplicates included; null for all that
   *     were selected
   */
  record BlockStatus(
      int flags, long cookie, long offset, long bytes, @Nullable List<Integer> contextIds)
      implements Request {
    public BlockStatus {
      contextIds = contextIds == null ? null : List.copyOf(contextIds);
    }

    /** Asks for all selected contexts. */
    public BlockStatus(int flags, long cookie, long offset, long bytes) {
      this(flags, cookie, offset, bytes, null);
    }

    /** Whether one extent for each context is wanted, none longer than the request. */
    public boolean requestOne() {
      return (flags & CommandFlags.REQ_ONE) != 0;
    }
  }

  /** A command that this server does not know or did not offer; it is answered EINVAL. */
  record Unknown(int command, int flags, long cookie, long offset, long bytes) implements Request {}

  /**
   * A request that breaks the rules of payloads with extended headers; it is answered EINVAL, once
   * its data has been dropped.
   *
   * @param command its number on the wire
   * @param dataBytes what has to be dropped
   * @param reason what is wrong, for the client's log
   */
  record Malformed(
      int command, int flags, long cookie, long offset, long bytes, long dataBytes, String reason)
      implements Request {}
}
