package io.qnbd.protocol;

/**
 * A request of the transmission phase, as the client sent it and not yet checked: {@link
 * RequestRules} says whether it may be done. The data of a WRITE travels beside it, never in it.
 */
public sealed interface Request {

  /** Flags as sent, see {@link CommandFlags}. */
  int flags();

  /** What the reply repeats; opaque, and not unique. */
  long cookie();

  /** Unsigned. */
  long offset();

  /** From 0 to 2^32 - 1. */
  long bytes();

  default boolean fua() {
    return (flags() & CommandFlags.FUA) != 0;
  }

  record Read(int flags, long cookie, long offset, long bytes) implements Request {}

  record Write(int flags, long cookie, long offset, long bytes) implements Request {}

  record Disconnect(int flags, long cookie, long offset, long bytes) implements Request {}

  record Flush(int flags, long cookie, long offset, long bytes) implements Request {}

  record Trim(int flags, long cookie, long offset, long bytes) implements Request {}

  record Cache(int flags, long cookie, long offset, long bytes) implements Request {}

  record WriteZeroes(int flags, long cookie, long offset, long bytes) implements Request {
    public boolean noHole() {
      return (flags & CommandFlags.NO_HOLE) != 0;
    }
  }

  /** A command that this server does not know or did not offer; it is answered EINVAL. */
  record Unknown(int command, int flags, long cookie, long offset, long bytes) implements Request {}
}
