package io.qnbd.protocol;

import io.qnbd.protocol.Request.Cache;
import io.qnbd.protocol.Request.Disconnect;
import io.qnbd.protocol.Request.Flush;
import io.qnbd.protocol.Request.Read;
import io.qnbd.protocol.Request.Trim;
import io.qnbd.protocol.Request.Unknown;
import io.qnbd.protocol.Request.Write;
import io.qnbd.protocol.Request.WriteZeroes;
import org.jspecify.annotations.Nullable;

/**
 * Which requests an export refuses, and with which error (NBD protocol, "Request types" and "Error
 * values"). Checked in this order: command, flags, right to write, range, length.
 *
 * @param structuredReplies whether the client negotiated them: DF is legal only then
 */
public record RequestRules(ExportInfo export, boolean structuredReplies) {

  /**
   * Why a request is refused.
   *
   * @param text one sentence for the client's log
   */
  public record Refusal(NbdError error, String text) {}

  /** Why {@code request} must not be done, or null when it may. */
  public @Nullable Refusal refusalOf(Request request) {
    return switch (request) {
      case Read read -> refusalOfRead(read);
      case Write write -> refusalOfChange(write, CommandFlags.FUA, NbdError.ENOSPC);
      case WriteZeroes zeroes ->
          refusalOfChange(zeroes, CommandFlags.FUA | CommandFlags.NO_HOLE, NbdError.ENOSPC);
      case Trim trim -> refusalOfChange(trim, CommandFlags.FUA, NbdError.EINVAL);
      case Cache cache -> {
        Refusal flags = refusalOfFlags(cache, CommandFlags.FUA);
        yield flags != null ? flags : refusalOfRange(cache, NbdError.EINVAL);
      }
      // Clients must send zeroes as offset and length of a FLUSH; those that do not mean no harm.
      case Flush flush -> refusalOfFlags(flush, CommandFlags.FUA);
      case Disconnect _ -> null;
      case Unknown unknown ->
          new Refusal(NbdError.EINVAL, "command " + unknown.command() + " was not offered");
    };
  }

  private @Nullable Refusal refusalOfRead(Read read) {
    Refusal flags =
        refusalOfFlags(read, CommandFlags.FUA | (structuredReplies ? CommandFlags.DF : 0));
    if (flags != null) {
      return flags;
    }
    Refusal range = refusalOfRange(read, NbdError.EINVAL);
    if (range != null) {
      return range;
    }
    int bytesMax = export.blockSizes().maximum();
    if (read.bytes() > bytesMax) {
      return new Refusal(
          structuredReplies ? NbdError.EOVERFLOW : NbdError.EINVAL,
          "read of " + read.bytes() + " bytes, at most " + bytesMax + " are served at once");
    }
    return null;
  }

  private @Nullable Refusal refusalOfChange(Request request, int flagsAllowed, NbdError pastEnd) {
    Refusal flags = refusalOfFlags(request, flagsAllowed);
    if (flags != null) {
      return flags;
    }
    if (export.readOnly()) {
      return new Refusal(NbdError.EPERM, "the export is read-only");
    }
    return refusalOfRange(request, pastEnd);
  }

  private static @Nullable Refusal refusalOfFlags(Request request, int allowed) {
    if ((request.flags() & ~allowed) == 0) {
      return null;
    }
    return new Refusal(
        NbdError.EINVAL,
        "command flags are 0x%x, expected none but 0x%x".formatted(request.flags(), allowed));
  }

  /** Unsigned, and written so that no sum can wrap. */
  private @Nullable Refusal refusalOfRange(Request request, NbdError pastEnd) {
    long bytesTotal = export.bytes();
    if (Long.compareUnsigned(request.offset(), bytesTotal) <= 0
        && request.bytes() <= bytesTotal - request.offset()) {
      return null;
    }
    return new Refusal(
        pastEnd,
        "%d bytes at %s end past the disk's %d bytes"
            .formatted(request.bytes(), Long.toUnsignedString(request.offset()), bytesTotal));
  }
}
