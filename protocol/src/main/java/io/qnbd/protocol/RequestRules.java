package io.qnbd.protocol;

import io.qnbd.protocol.Request.BlockStatus;
import io.qnbd.protocol.Request.Cache;
import io.qnbd.protocol.Request.Disconnect;
import io.qnbd.protocol.Request.Flush;
import io.qnbd.protocol.Request.Malformed;
import io.qnbd.protocol.Request.Read;
import io.qnbd.protocol.Request.Trim;
import io.qnbd.protocol.Request.Unknown;
import io.qnbd.protocol.Request.Write;
import io.qnbd.protocol.Request.WriteZeroes;
import java.util.HashSet;
import java.util.List;
import java.util.Set;
import org.jspecify.annotations.Nullable;

/**
 * Which requests an export refuses, and with which error (NBD protocol, "Request types" and "Error
 * values"). Checked in this order: flags, right to write, whether the command was offered, range,
 * alignment, length.
 *
 * <p>What passes has an offset and a length that are not negative and end inside the disk; its
 * length may be 0, except that of a BLOCK_STATUS.
 */
public record RequestRules(Negotiated negotiated) {

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
      case Write write -> refusalOfChange(write, 0, 0, NbdError.ENOSPC);
      case WriteZeroes zeroes -> {
        int fast = export().has(TransmissionFlags.SEND_FAST_ZERO) ? CommandFlags.FAST_ZERO : 0;
        yield refusalOfChange(
            zeroes,
            CommandFlags.NO_HOLE | fast,
            TransmissionFlags.SEND_WRITE_ZEROES,
            NbdError.ENOSPC);
      }
      case Trim trim -> refusalOfChange(trim, 0, TransmissionFlags.SEND_TRIM, NbdError.EINVAL);
      case Cache cache -> {
        // Clients are known that send it without an offer; it does no harm.
        Refusal flags = refusalOfFlags(cache, 0);
        yield flags != null ? flags : refusalOfRange(cache, NbdError.EINVAL);
      }
      // Clients must send zeroes as offset and length of a FLUSH; those that do not mean no harm.
      case Flush flush -> {
        Refusal flags = refusalOfFlags(flush, 0);
        yield flags != null ? flags : refusalOfOffer(flush, TransmissionFlags.SEND_FLUSH);
      }
      case BlockStatus status -> refusalOfStatus(status);
      case Disconnect _ -> null;
      case Unknown unknown -> invalid("command " + unknown.command() + " was not offered");
      case Malformed malformed -> invalid(malformed.reason());
    };
  }

  private ExportInfo export() {
    return negotiated.export();
  }

  private @Nullable Refusal refusalOfRead(Read read) {
    boolean chunks = negotiated.replies().chunks();
    Refusal flags = refusalOfFlags(read, chunks ? CommandFlags.DF : 0);
    if (flags != null) {
      return flags;
    }
    Refusal range = refusalOfRange(read, NbdError.EINVAL);
    if (range != null) {
      return range;
    }
    int bytesMax = export().blockSizes().maximum();
    if (read.bytes() > bytesMax) {
      return new Refusal(
          chunks ? NbdError.EOVERFLOW : NbdError.EINVAL,
          "read of " + read.bytes() + " bytes, at most " + bytesMax + " are served at once");
    }
    return null;
  }

  private @Nullable Refusal refusalOfChange(
      Request request, int flagsAllowed, int offer, NbdError pastEnd) {
    Refusal flags = refusalOfFlags(request, flagsAllowed);
    if (flags != null) {
      return flags;
    }
    if (export().readOnly()) {
      return new Refusal(NbdError.EPERM, "the export is read-only");
    }
    Refusal notOffered = refusalOfOffer(request, offer);
    return notOffered != null ? notOffered : refusalOfRange(request, pastEnd);
  }

  private @Nullable Refusal refusalOfStatus(BlockStatus status) {
    Refusal flags = refusalOfFlags(status, CommandFlags.REQ_ONE);
    if (flags != null) {
      return flags;
    }
    List<SelectedContext> selected = negotiated.contexts();
    if (selected.isEmpty()) {
      return invalid("block status, and no metadata context was selected for this export");
    }
    List<Integer> wanted = status.contextIds();
    if (wanted != null) {
      Set<Integer> known = new HashSet<>();
      selected.forEach(context -> known.add(context.id()));
      for (int id : wanted) {
        // Taken out, so that an id that comes twice is not known the second time.
        if (!known.remove(id)) {
          return invalid("metadata context id " + id + " was not selected, or comes twice");
        }
      }
      if (wanted.isEmpty()) {
        return invalid("block status of no metadata context");
      }
    }
    if (status.bytes() == 0) {
      return invalid("block status of 0 bytes, which has no extent");
    }
    return refusalOfRange(status, NbdError.EINVAL);
  }

  /** FUA is legal on each command where it was offered, also on those that write nothing. */
  private @Nullable Refusal refusalOfFlags(Request request, int allowedBesideFua) {
    int allowed =
        allowedBesideFua | (export().has(TransmissionFlags.SEND_FUA) ? CommandFlags.FUA : 0);
    if ((request.flags() & ~allowed) == 0) {
      return null;
    }
    return invalid(
        "command flags are 0x%x, expected none but 0x%x".formatted(request.flags(), allowed));
  }

  private @Nullable Refusal refusalOfOffer(Request request, int offer) {
    return export().has(offer)
        ? null
        : invalid(request.getClass().getSimpleName() + " was not offered");
  }

  /** Unsigned, and written so that no sum can wrap. */
  private @Nullable Refusal refusalOfRange(Request request, NbdError pastEnd) {
    long bytesTotal = export().bytes();
    long offset = request.offset();
    long bytes = request.bytes();
    if (Long.compareUnsigned(offset, bytesTotal) > 0
        || Long.compareUnsigned(bytes, bytesTotal - offset) > 0) {
      return new Refusal(
          pastEnd,
          "%s bytes at %s end past the disk's %d bytes"
              .formatted(Long.toUnsignedString(bytes), Long.toUnsignedString(offset), bytesTotal));
    }
    int minimum = export().blockSizes().minimum();
    if (((offset | bytes) & (minimum - 1)) != 0) {
      return invalid(
          "%d bytes at %d are not aligned to blocks of %d bytes".formatted(bytes, offset, minimum));
    }
    return null;
  }

  private static Refusal invalid(String text) {
    return new Refusal(NbdError.EINVAL, text);
  }
}
