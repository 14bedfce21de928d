package io.qnbd.it.conformance;

import java.nio.ByteBuffer;
import java.util.ArrayList;
import java.util.List;
import org.jspecify.annotations.Nullable;

/**
 * A request as a client means it; the mode decides how it is spelled.
 *
 * @param cookie as it is sent, or null when any will do
 * @param length what the header's length says
 * @param payload follows the header as it is; with extended headers its flag is set for a WRITE,
 *     and for others only when {@code flags} has it
 */
record Ask(
    int type, int flags, @Nullable Long cookie, long offset, long length, ByteBuffer payload) {
  private static final ByteBuffer NO_PAYLOAD = ByteBuffer.allocate(0);

  static Ask of(int type, long offset, long length) {
    return new Ask(type, 0, null, offset, length, NO_PAYLOAD);
  }

  static Ask read(long offset, long length) {
    return of(Nbd.READ, offset, length);
  }

  static Ask write(long offset, byte... data) {
    return new Ask(Nbd.WRITE, 0, null, offset, data.length, ByteBuffer.wrap(data));
  }

  /** A WRITE whose header promises a payload that never comes. */
  static Ask writeWithoutData(long offset, long length) {
    return of(Nbd.WRITE, offset, length);
  }

  static Ask flush() {
    return of(Nbd.FLUSH, 0, 0);
  }

  static Ask zeroes(long offset, long length) {
    return of(Nbd.WRITE_ZEROES, offset, length);
  }

  static Ask status(long offset, long length) {
    return of(Nbd.BLOCK_STATUS, offset, length);
  }

  /** BLOCK_STATUS of some contexts only, which extended headers make possible. */
  static Ask statusOf(long offset, long length, int... contexts) {
    Bytes payload = new Bytes().u64(length);
    for (int context : contexts) {
      payload.u32(context);
    }
    return of(Nbd.BLOCK_STATUS, offset, 0).withPayload(payload.array());
  }

  /** Any command over a range; a WRITE gets data of that length. */
  static Ask any(int type, long offset, int length) {
    return type == Nbd.WRITE ? write(offset, new byte[length]) : of(type, offset, length);
  }

  Ask with(int more) {
    return new Ask(type, flags | more, cookie, offset, length, payload);
  }

  Ask cookie(long value) {
    return new Ask(type, flags, value, offset, length, payload);
  }

  /** With a payload, its flag, and a header whose length is the payload's. */
  Ask withPayload(byte... bytes) {
    return new Ask(
        type, flags | Nbd.PAYLOAD_LEN, cookie, offset, bytes.length, ByteBuffer.wrap(bytes));
  }

  /** The bytes on the wire. */
  byte[] encode(Mode mode) {
    return mode == Mode.EXTENDED ? encodeExtended(flags | payloadFlag()) : encodeCompact();
  }

  /** The extended header with exactly these flags, and the payload. */
  byte[] encodeExtended(int exactly) {
    Bytes out = new Bytes().u32(Nbd.EXTENDED_REQUEST_MAGIC).u16(exactly).u16(type);
    return out.u64(number()).u64(offset).u64(length).raw(payload).array();
  }

  private byte[] encodeCompact() {
    Bytes out = new Bytes().u32(Nbd.REQUEST_MAGIC).u16(flags).u16(type);
    return out.u64(number()).u64(offset).u32(length).raw(payload).array();
  }

  private int payloadFlag() {
    return type == Nbd.WRITE ? Nbd.PAYLOAD_LEN : 0;
  }

  private long number() {
    return cookie == null ? 0 : cookie;
  }

  boolean has(int flag) {
    return (flags & flag) != 0;
  }

  private boolean filtered() {
    return type == Nbd.BLOCK_STATUS && has(Nbd.PAYLOAD_LEN) && payload.remaining() >= 8;
  }

  /** How much of the export is meant. */
  long effectLength() {
    return filtered() ? payload.getLong(0) : length;
  }

  /** The contexts that a payload names, or null when all are meant. */
  @Nullable List<Integer> contexts() {
    if (!filtered()) {
      return null;
    }
    List<Integer> ids = new ArrayList<>();
    ByteBuffer rest = payload.duplicate().position(8);
    while (rest.remaining() >= 4) {
      ids.add(rest.getInt());
    }
    return ids;
  }

  @Override
  public String toString() {
    return "%s flags 0x%x offset 0x%x length 0x%x"
        .formatted(Nbd.command(type), flags, offset, length);
  }
}
