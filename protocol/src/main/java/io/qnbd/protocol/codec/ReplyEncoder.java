package io.qnbd.protocol.codec;

import io.netty.buffer.ByteBuf;
import io.qnbd.protocol.NbdError;
import io.qnbd.protocol.Reply;
import io.qnbd.protocol.Request;
import io.qnbd.protocol.WireStrings;

/**
 * Replies as bytes (NBD protocol, "Simple reply message" and "Structured reply chunk message").
 *
 * <pre>
 * simple:      u32 0x67446698, u32 error, u64 cookie, data of a READ
 * structured:  u32 0x668e33ef, u16 flags, u16 type, u64 cookie, u32 bytes that follow
 *              OFFSET_DATA: u64 offset, data    ERROR: u32 error, u16 bytes, text    NONE: nothing
 * </pre>
 *
 * <p>With structured replies a READ is answered by exactly one chunk, which is the last; all other
 * commands have simple replies, as the protocol allows where nothing but an error is to be said.
 *
 * @param structured whether structured replies were negotiated
 */
public record ReplyEncoder(boolean structured) {
  /** Room enough for any reply without data, texts aside. */
  public static final int REPLY_BYTES_TYPICAL = 32;

  private static final int SIMPLE_MAGIC = 0x67446698;
  private static final int SIMPLE_BYTES = 16;
  private static final int CHUNK_MAGIC = 0x668e33ef;
  private static final int CHUNK_BYTES = 20;
  private static final int CHUNK_DONE = 1;
  private static final int TYPE_NONE = 0;
  private static final int TYPE_OFFSET_DATA = 1;
  private static final int TYPE_ERROR = 0x8001;

  /** What {@link #put} appends for a {@link Reply.Data}: the bytes in front of the data. */
  public int dataHeaderBytes() {
    return structured ? CHUNK_BYTES + Long.BYTES : SIMPLE_BYTES;
  }

  /** Appends {@code reply} without its data to {@code out}, which stays the caller's. */
  public void put(ByteBuf out, Reply reply) {
    switch (reply) {
      case Reply.Done(Request.Read read) when structured ->
          putChunk(out, TYPE_NONE, read.cookie(), 0);
      case Reply.Done(Request request) -> putSimple(out, 0, request.cookie());
      case Reply.Data(Request.Read read) when structured -> {
        putChunk(out, TYPE_OFFSET_DATA, read.cookie(), Long.BYTES + (int) read.bytes());
        out.writeLong(read.offset());
      }
      case Reply.Data(Request.Read read) -> putSimple(out, 0, read.cookie());
      case Reply.Failed(Request.Read read, NbdError error, String text) when structured -> {
        byte[] textBytes = WireStrings.encodeCut(text);
        putChunk(out, TYPE_ERROR, read.cookie(), Integer.BYTES + Short.BYTES + textBytes.length);
        out.writeInt(error.wireNumber()).writeShort(textBytes.length).writeBytes(textBytes);
      }
      case Reply.Failed(Request request, NbdError error, _) ->
          putSimple(out, error.wireNumber(), request.cookie());
    }
  }

  private static void putSimple(ByteBuf out, int error, long cookie) {
    out.writeInt(SIMPLE_MAGIC).writeInt(error).writeLong(cookie);
  }

  private static void putChunk(ByteBuf out, int type, long cookie, int bytes) {
    out.writeInt(CHUNK_MAGIC)
        .writeShort(CHUNK_DONE)
        .writeShort(type)
        .writeLong(cookie)
        .writeInt(bytes);
  }
}
