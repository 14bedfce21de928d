package io.qnbd.protocol.codec;

import io.netty.buffer.ByteBuf;
import io.qnbd.protocol.Request;

/**
 * The header of a request (NBD protocol, "Request message"), big-endian.
 *
 * <pre>
 *  0  u32  magic 0x25609513
 *  4  u16  command flags, see CommandFlags; checked by RequestRules
 *  6  u16  command
 *  8  u64  cookie
 * 16  u64  offset, unsigned
 * 24  u32  length, unsigned
 * 28       the data of a WRITE
 * </pre>
 */
final class RequestHeader {
  static final int BYTES = 28;

  /** Stands where no request is being decoded. */
  static final Request NONE = new Request.Unknown(-1, 0, 0, 0, 0);

  private static final int MAGIC = 0x25609513;
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

  private RequestHeader() {}

  static boolean hasMagic(ByteBuf in, int at) {
    return in.getInt(at) == MAGIC;
  }

  /** The request at index {@code at} of {@code in}, which stays the caller's and unmoved. */
  static Request parse(ByteBuf in, int at) {
    int flags = in.getUnsignedShort(at + FLAGS_AT);
    int command = in.getUnsignedShort(at + COMMAND_AT);
    long cookie = in.getLong(at + COOKIE_AT);
    long offset = in.getLong(at + OFFSET_AT);
    long bytes = in.getUnsignedInt(at + LENGTH_AT);
    return switch (command) {
      case READ -> new Request.Read(flags, cookie, offset, bytes);
      case WRITE -> new Request.Write(flags, cookie, offset, bytes);
      case DISC -> new Request.Disconnect(flags, cookie, offset, bytes);
      case FLUSH -> new Request.Flush(flags, cookie, offset, bytes);
      case TRIM -> new Request.Trim(flags, cookie, offset, bytes);
      case CACHE -> new Request.Cache(flags, cookie, offset, bytes);
      case WRITE_ZEROES -> new Request.WriteZeroes(flags, cookie, offset, bytes);
      default -> new Request.Unknown(command, flags, cookie, offset, bytes);
    };
  }
}
