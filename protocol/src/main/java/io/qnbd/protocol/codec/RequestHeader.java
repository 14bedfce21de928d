package io.qnbd.protocol.codec;

import io.netty.buffer.ByteBuf;
import io.qnbd.protocol.CommandFlags;
import io.qnbd.protocol.ReplyMode;
import io.qnbd.protocol.Request;
import io.qnbd.protocol.WireLimits;
import java.util.ArrayList;
import java.util.List;

/**
 * The header of a request (NBD protocol, "Request message"), big-endian.
 *
 * <pre>
 *           compact             extended
 *  0  u32   magic 0x25609513    magic 0x21e41c71
 *  4  u16   command flags, see CommandFlags; checked by RequestRules
 *  6  u16   command
 *  8  u64   cookie
 * 16  u64   offset, unsigned
 * 24        u32 length          u64 length, unsigned
 * 28 or 32  data
 * </pre>
 *
 * <p>Behind a compact header there is data when it is that of a WRITE. Behind an extended one there
 * is data when PAYLOAD_LEN is set, as it must be for a WRITE and may be for a BLOCK_STATUS:
 *
 * <pre>
 *  0  u64   the length that the status is asked for
 *  8  u32   id of a metadata context, as often as fits
 * </pre>
 *
 * @param extended which of the two it is
 */
record RequestHeader(boolean extended) {
  /** Stands where no request is being decoded. */
  static final Request NONE = new Request.Unknown(-1, 0, 0, 0, 0);

  private static final int COMPACT_MAGIC = 0x25609513;
  private static final int COMPACT_BYTES = 28;
  private static final int EXTENDED_MAGIC = 0x21e41c71;
  private static final int EXTENDED_BYTES = 32;
  private static final int FLAGS_AT = 4;
  private static final int COMMAND_AT = 6;
  private static final int COOKIE_AT = 8;
  private static final int OFFSET_AT = 16;
  private static final int LENGTH_AT = 24;

  private static final int READ = 0;
  private static final int WRITE = 1;
  private static final int DISC = 2;
  private static final int FLUSH = 3;
  private static final int TRIM = 4;
  private static final int CACHE = 5;
  private static final int WRITE_ZEROES = 6;
  private static final int BLOCK_STATUS = 7;

  static RequestHeader of(ReplyMode replies) {
    return new RequestHeader(replies == ReplyMode.EXTENDED);
  }

  int bytes() {
    return extended ? EXTENDED_BYTES : COMPACT_BYTES;
  }

  boolean hasMagic(ByteBuf in, int at) {
    return in.getInt(at) == (extended ? EXTENDED_MAGIC : COMPACT_MAGIC);
  }

  /** The request at index {@code at} of {@code in}, which stays the caller's and unmoved. */
  Request parse(ByteBuf in, int at) {
    int flags = in.getUnsignedShort(at + FLAGS_AT);
    int command = in.getUnsignedShort(at + COMMAND_AT);
    long cookie = in.getLong(at + COOKIE_AT);
    long offset = in.getLong(at + OFFSET_AT);
    if (!extended) {
      return request(command, flags, cookie, offset, in.getUnsignedInt(at + LENGTH_AT));
    }
    long bytes = in.getLong(at + LENGTH_AT);
    boolean payload = (flags & CommandFlags.PAYLOAD_LEN) != 0;
    return switch (command) {
      case WRITE ->
          payload
              ? new Request.Write(flags & ~CommandFlags.PAYLOAD_LEN, cookie, offset, bytes)
              : new Request.Malformed(
                  command, flags, cookie, offset, bytes, 0, "a write without a payload");
      // There is no answer to it, and nothing of what follows it is looked at.
      case DISC -> new Request.Disconnect(flags, cookie, offset, bytes);
      default ->
          payload
              ? new Request.Malformed(
                  command,
                  flags,
                  cookie,
                  offset,
                  bytes,
                  bytes,
                  "command " + command + " with a payload of " + Long.toUnsignedString(bytes))
              : request(command, flags, cookie, offset, bytes);
    };
  }

  private static Request request(int command, int flags, long cookie, long offset, long bytes) {
    return switch (command) {
      case READ -> new Request.Read(flags, cookie, offset, bytes);
      case WRITE -> new Request.Write(flags, cookie, offset, bytes);
      case DISC -> new Request.Disconnect(flags, cookie, offset, bytes);
      case FLUSH -> new Request.Flush(flags, cookie, offset, bytes);
      case TRIM -> new Request.Trim(flags, cookie, offset, bytes);
      case CACHE -> new Request.Cache(flags, cookie, offset, bytes);
      case WRITE_ZEROES -> new Request.WriteZeroes(flags, cookie, offset, bytes);
      case BLOCK_STATUS -> new Request.BlockStatus(flags, cookie, offset, bytes);
      default -> new Request.Unknown(command, flags, cookie, offset, bytes);
    };
  }

  /**
   * The length of the payload of {@code request} that has to be known before the request is: that
   * of a BLOCK_STATUS whose layout is right. 0 for all others.
   */
  static int statusPayloadBytes(Request request) {
    if (!(request instanceof Request.Malformed malformed) || malformed.command() != BLOCK_STATUS) {
      return 0;
    }
    long idsBytes = malformed.dataBytes() - Long.BYTES;
    boolean right =
        idsBytes >= 0
            && idsBytes <= WireLimits.CONTEXTS_MAX * Integer.BYTES
            && idsBytes % Integer.BYTES == 0;
    return right ? (int) malformed.dataBytes() : 0;
  }

  /**
   * The BLOCK_STATUS that {@code request} becomes with its payload, which is exactly what can be
   * read of {@code payload}.
   */
  static Request parseStatusPayload(Request request, ByteBuf payload) {
    long bytes = payload.readLong();
    List<Integer> ids = new ArrayList<>();
    while (payload.isReadable()) {
      ids.add(payload.readInt());
    }
    return new Request.BlockStatus(
        request.flags() & ~CommandFlags.PAYLOAD_LEN,
        request.cookie(),
        request.offset(),
        bytes,
        ids);
  }
}
