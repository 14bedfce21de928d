package io.qnbd.protocol.codec;

import io.netty.buffer.ByteBuf;
import io.qnbd.protocol.ContextExtents;
import io.qnbd.protocol.Extent;
import io.qnbd.protocol.NbdError;
import io.qnbd.protocol.Reply;
import io.qnbd.protocol.ReplyMode;
import io.qnbd.protocol.Request;
import io.qnbd.protocol.WireLimits;
import io.qnbd.protocol.WireStrings;
import java.util.Iterator;
import java.util.List;

/**
 * Replies as bytes (NBD protocol, "Simple reply message", "Structured reply chunk message" and
 * "Extended reply chunk message").
 *
 * <pre>
 * simple:      u32 0x67446698, u32 error, u64 cookie, data of a READ
 * structured:  u32 0x668e33ef, u16 flags, u16 type, u64 cookie, u32 bytes that follow
 * extended:    u32 0x6e8a278c, u16 flags, u16 type, u64 cookie, u64 the request's offset,
 *              u64 bytes that follow
 *
 *    0 NONE                nothing
 *    1 OFFSET_DATA         u64 offset, data
 *    2 OFFSET_HOLE         u64 offset, u32 bytes
 *    5 BLOCK_STATUS        u32 context, times: u32 bytes, u32 flags
 *    6 BLOCK_STATUS_EXT    u32 context, u32 count, times: u64 bytes, u64 flags
 * 8001 ERROR               u32 error, u16 bytes, text
 * 8002 ERROR_OFFSET        u32 error, u16 bytes, text, u64 offset
 * </pre>
 *
 * <p>In mode STRUCTURED success without data is a simple reply, except to a READ; it is shorter.
 * Errors are chunks there, because a simple reply cannot carry their text.
 *
 * @param replies what was negotiated
 */
public record ReplyEncoder(ReplyMode replies) {
  /** Room enough for any reply without data, texts and extents aside. */
  public static final int REPLY_BYTES_TYPICAL = 32;

  private static final int SIMPLE_MAGIC = 0x67446698;
  private static final int SIMPLE_BYTES = 16;
  private static final int STRUCTURED_MAGIC = 0x668e33ef;
  private static final int STRUCTURED_BYTES = 20;
  private static final int EXTENDED_MAGIC = 0x6e8a278c;
  private static final int EXTENDED_BYTES = 32;
  private static final int DONE = 1;
  private static final int TYPE_NONE = 0;
  private static final int TYPE_OFFSET_DATA = 1;
  private static final int TYPE_OFFSET_HOLE = 2;
  private static final int TYPE_BLOCK_STATUS = 5;
  private static final int TYPE_BLOCK_STATUS_EXT = 6;
  private static final int TYPE_ERROR = 0x8001;
  private static final int TYPE_ERROR_OFFSET = 0x8002;
  private static final int ERROR_BYTES_MAX =
      Integer.BYTES + Short.BYTES + WireLimits.STRING_BYTES_MAX + Long.BYTES;
  private static final int HOLE_BYTES = Long.BYTES + Integer.BYTES;

  /** What {@link #putDataHeader} appends, and {@link #put} for a {@link Reply.Data}. */
  public int dataHeaderBytes() {
    return replies == ReplyMode.SIMPLE ? SIMPLE_BYTES : chunkHeaderBytes() + Long.BYTES;
  }

  /** What {@link #putHole} appends. */
  public int holeBytes() {
    return chunkHeaderBytes() + HOLE_BYTES;
  }

  /** Appends {@code reply} without its data to {@code out}, which stays the caller's. */
  public void put(ByteBuf out, Reply reply) {
    switch (reply) {
      case Reply.Done(Request request) -> putDone(out, request);
      case Reply.Data(Request.Read read) ->
          putDataHeader(out, read, read.offset(), (int) read.bytes(), true);
      case Reply.Extents(Request.BlockStatus request, List<ContextExtents> contexts) ->
          putExtents(out, request, contexts);
      case Reply.Failed failed -> putFailed(out, failed);
    }
  }

  /**
   * Appends what comes before a piece of the data of {@code read}; the piece itself must follow.
   * With simple replies that is always the whole.
   *
   * @param offset of the piece, inside the request
   * @param bytes of the piece, at least 1
   * @param done whether nothing more follows for this request
   */
  public void putDataHeader(ByteBuf out, Request.Read read, long offset, int bytes, boolean done) {
    checkPiece(read, offset, bytes);
    if (replies == ReplyMode.SIMPLE) {
      if (!done || bytes != read.bytes()) {
        throw new AssertionError("a simple reply in pieces: " + bytes + " bytes of " + read);
      }
      putSimple(out, 0, read.cookie());
      return;
    }
    putChunk(out, TYPE_OFFSET_DATA, read, Long.BYTES + bytes, done);
    out.writeLong(offset);
  }

  /** As {@link #putDataHeader}, for a piece that reads as zeroes; no data follows. Needs chunks. */
  public void putHole(ByteBuf out, Request.Read read, long offset, int bytes, boolean done) {
    checkPiece(read, offset, bytes);
    putChunk(out, TYPE_OFFSET_HOLE, read, HOLE_BYTES, done);
    out.writeLong(offset).writeInt(bytes);
  }

  /** No less than {@link #put} appends for {@code reply}. */
  public int roomFor(Reply reply) {
    return switch (reply) {
      case Reply.Done _, Reply.Data _ -> EXTENDED_BYTES + Long.BYTES;
      case Reply.Extents extents -> Math.toIntExact(bytesOf(extents));
      case Reply.Failed _ -> EXTENDED_BYTES + ERROR_BYTES_MAX;
    };
  }

  /** How much {@link #put} appends for {@code reply}. */
  public long bytesOf(Reply.Extents reply) {
    boolean extended = replies == ReplyMode.EXTENDED;
    long bytes = 0;
    for (ContextExtents context : reply.contexts()) {
      bytes += chunkHeaderBytes() + statusBytes(context, extended);
    }
    return bytes;
  }

  private static void checkPiece(Request.Read read, long offset, int bytes) {
    long before = offset - read.offset();
    if (bytes < 1 || before < 0 || before > read.bytes() - bytes) {
      throw new AssertionError("%d bytes at %d are no piece of %s".formatted(bytes, offset, read));
    }
  }

  private void putDone(ByteBuf out, Request request) {
    if (request instanceof Request.BlockStatus) {
      throw new AssertionError("success without extents: " + request);
    }
    boolean simple =
        switch (replies) {
          case SIMPLE -> true;
          case STRUCTURED -> !(request instanceof Request.Read);
          case EXTENDED -> false;
        };
    if (simple) {
      putSimple(out, 0, request.cookie());
    } else {
      putChunk(out, TYPE_NONE, request, 0, true);
    }
  }

  private void putFailed(ByteBuf out, Reply.Failed failed) {
    NbdError error = failed.error();
    Request request = failed.request();
    if (replies == ReplyMode.SIMPLE) {
      putSimple(out, error.wireNumber(), request.cookie());
      return;
    }
    byte[] text = WireStrings.encodeCut(failed.text());
    boolean located = mayBeLocated(request, failed.errorOffset());
    int bytes = Integer.BYTES + Short.BYTES + text.length + (located ? Long.BYTES : 0);
    putChunk(out, located ? TYPE_ERROR_OFFSET : TYPE_ERROR, request, bytes, true);
    out.writeInt(error.wireNumber()).writeShort(text.length).writeBytes(text);
    if (located) {
      out.writeLong(failed.errorOffset());
    }
  }

  /** Only an offset inside the request may be told, and not to each command. */
  private static boolean mayBeLocated(Request request, long errorOffset) {
    if (errorOffset == Reply.Failed.NOWHERE) {
      return false;
    }
    return switch (request) {
      case Request.Read _,
          Request.Write _,
          Request.Trim _,
          Request.Cache _,
          Request.WriteZeroes _,
          Request.BlockStatus _ ->
          Long.compareUnsigned(errorOffset - request.offset(), request.bytes()) < 0;
      case Request.Flush _, Request.Disconnect _, Request.Unknown _, Request.Malformed _ -> false;
    };
  }

  private void putExtents(ByteBuf out, Request.BlockStatus request, List<ContextExtents> contexts) {
    boolean extended = replies == ReplyMode.EXTENDED;
    Iterator<ContextExtents> rest = contexts.iterator();
    while (rest.hasNext()) {
      ContextExtents context = rest.next();
      int type = extended ? TYPE_BLOCK_STATUS_EXT : TYPE_BLOCK_STATUS;
      int bytes = Math.toIntExact(statusBytes(context, extended));
      out.ensureWritable(chunkHeaderBytes() + bytes);
      putChunk(out, type, request, bytes, !rest.hasNext());
      out.writeInt(context.id());
      if (extended) {
        out.writeInt(context.extents().size());
      }
      for (Extent extent : context.extents()) {
        if (extended) {
          out.writeLong(extent.bytes()).writeLong(extent.flags());
        } else {
          out.writeInt(narrow(extent.bytes())).writeInt(narrow(extent.flags()));
        }
      }
    }
  }

  private static int narrow(long value) {
    if (value >>> Integer.SIZE != 0) {
      throw new AssertionError("0x%x does not fit into 32 bits".formatted(value));
    }
    return (int) value;
  }

  private static long statusBytes(ContextExtents context, boolean extended) {
    long count = context.extents().size();
    return extended
        ? 2 * Integer.BYTES + count * 2 * Long.BYTES
        : Integer.BYTES + count * 2 * Integer.BYTES;
  }

  private int chunkHeaderBytes() {
    return replies == ReplyMode.EXTENDED ? EXTENDED_BYTES : STRUCTURED_BYTES;
  }

  private static void putSimple(ByteBuf out, int error, long cookie) {
    out.writeInt(SIMPLE_MAGIC).writeInt(error).writeLong(cookie);
  }

  private void putChunk(ByteBuf out, int type, Request request, int bytes, boolean done) {
    int flags = done ? DONE : 0;
    switch (replies) {
      case SIMPLE -> throw new AssertionError("a chunk, and simple replies were agreed on");
      case STRUCTURED ->
          out.writeInt(STRUCTURED_MAGIC)
              .writeShort(flags)
              .writeShort(type)
              .writeLong(request.cookie())
              .writeInt(bytes);
      case EXTENDED ->
          out.writeInt(EXTENDED_MAGIC)
              .writeShort(flags)
              .writeShort(type)
              .writeLong(request.cookie())
              .writeLong(request.offset())
              .writeLong(bytes);
    }
  }
}
