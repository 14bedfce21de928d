package io.qnbd.protocol.codec;

import io.netty.buffer.ByteBuf;
import io.qnbd.protocol.BlockSizes;
import io.qnbd.protocol.InfoType;
import io.qnbd.protocol.OptionReply;
import io.qnbd.protocol.WireStrings;

/**
 * Answers to options as bytes (NBD protocol, "Fixed newstyle negotiation").
 *
 * <pre>
 * u64 0x3e889045565a9, u32 option, u32 reply type, u32 bytes that follow, those bytes
 * </pre>
 */
final class OptionReplyEncoder {
  private static final long REPLY_MAGIC = 0x3e889045565a9L;
  private static final int REP_ACK = 1;
  private static final int REP_SERVER = 2;
  private static final int REP_INFO = 3;
  private static final int REP_META_CONTEXT = 4;
  private static final int EXPORT_NAME_PADDING_BYTES = 124;

  private OptionReplyEncoder() {}

  /** Appends {@code reply} to {@code out}, which stays the caller's. */
  static void put(ByteBuf out, OptionReply reply) {
    switch (reply) {
      case OptionReply.Ack(int option) -> putHeader(out, option, REP_ACK, 0);
      case OptionReply.Server(int option, String name, String description) -> {
        byte[] nameBytes = WireStrings.encodeCut(name);
        byte[] descriptionBytes = WireStrings.encodeCut(description);
        putHeader(
            out, option, REP_SERVER, Integer.BYTES + nameBytes.length + descriptionBytes.length);
        out.writeInt(nameBytes.length).writeBytes(nameBytes).writeBytes(descriptionBytes);
      }
      case OptionReply.InfoExport(int option, long bytes, int transmissionFlags) -> {
        putHeader(out, option, REP_INFO, 12);
        out.writeShort(InfoType.EXPORT).writeLong(bytes).writeShort(transmissionFlags);
      }
      case OptionReply.InfoName(int option, String name) ->
          putText(out, option, InfoType.NAME, name);
      case OptionReply.InfoDescription(int option, String description) ->
          putText(out, option, InfoType.DESCRIPTION, description);
      case OptionReply.InfoBlockSize(int option, BlockSizes sizes) -> {
        putHeader(out, option, REP_INFO, 14);
        out.writeShort(InfoType.BLOCK_SIZE)
            .writeInt(sizes.minimum())
            .writeInt(sizes.preferred())
            .writeInt(sizes.maximum());
      }
      case OptionReply.MetaContext(int option, int id, String name) -> {
        byte[] nameBytes = WireStrings.encodeCut(name);
        putHeader(out, option, REP_META_CONTEXT, Integer.BYTES + nameBytes.length);
        out.writeInt(id).writeBytes(nameBytes);
      }
      case OptionReply.Refused refused -> {
        byte[] text = WireStrings.encodeCut(refused.text());
        putHeader(out, refused.option(), refused.error().wireNumber(), text.length);
        out.writeBytes(text);
      }
      case OptionReply.ExportChosen(long bytes, int transmissionFlags, boolean padded) -> {
        out.writeLong(bytes).writeShort(transmissionFlags);
        if (padded) {
          out.writeZero(EXPORT_NAME_PADDING_BYTES);
        }
      }
    }
  }

  private static void putText(ByteBuf out, int option, int kind, String text) {
    byte[] bytes = WireStrings.encodeCut(text);
    putHeader(out, option, REP_INFO, Short.BYTES + bytes.length);
    out.writeShort(kind).writeBytes(bytes);
  }

  private static void putHeader(ByteBuf out, int option, int type, int bytes) {
    out.writeLong(REPLY_MAGIC).writeInt(option).writeInt(type).writeInt(bytes);
  }
}
