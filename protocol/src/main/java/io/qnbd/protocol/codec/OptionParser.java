package io.qnbd.protocol.codec;

import io.qnbd.protocol.OptionRequest;
import io.qnbd.protocol.OptionType;
import io.qnbd.protocol.WireStrings;
import java.nio.ByteBuffer;
import java.util.HashSet;
import java.util.Optional;
import java.util.Set;

/**
 * The data of an option to its value; pure.
 *
 * <pre>
 * EXPORT_NAME                    the name, to the end
 * ABORT                          nothing; what is there is ignored
 * LIST, STRUCTURED_REPLY         nothing
 * INFO, GO                       u32 name bytes, name, u16 count, count times u16 kind; no more
 * </pre>
 */
final class OptionParser {
  /** The name's length and the count around it. */
  private static final int INFO_FIXED_BYTES = 6;

  private OptionParser() {}

  /** Whether {@link #parse} looks at this option's data; that of others is to be skipped. */
  static boolean reads(int option) {
    return switch (option) {
      case OptionType.EXPORT_NAME,
          OptionType.LIST,
          OptionType.INFO,
          OptionType.GO,
          OptionType.STRUCTURED_REPLY ->
          true;
      default -> false;
    };
  }

  /** Parses an option whose data is exactly what remains of {@code data}. */
  static OptionRequest parse(int option, ByteBuffer data) {
    return switch (option) {
      case OptionType.EXPORT_NAME -> {
        Optional<String> name = WireStrings.decode(data);
        yield name.isPresent()
            ? new OptionRequest.ExportName(name.get())
            : new OptionRequest.Invalid(option, "the export name is not a legal string");
      }
      case OptionType.ABORT -> new OptionRequest.Abort();
      case OptionType.LIST ->
          data.hasRemaining() ? unexpectedData(option, data) : new OptionRequest.ListExports();
      case OptionType.STRUCTURED_REPLY ->
          data.hasRemaining()
              ? unexpectedData(option, data)
              : new OptionRequest.StructuredReplies();
      case OptionType.INFO -> parseInfo(option, false, data);
      case OptionType.GO -> parseInfo(option, true, data);
      default -> new OptionRequest.Unknown(option);
    };
  }

  private static OptionRequest parseInfo(int option, boolean go, ByteBuffer data) {
    int bytes = data.remaining();
    if (bytes < INFO_FIXED_BYTES) {
      return invalid(option, bytes + " bytes of data, expected at least " + INFO_FIXED_BYTES);
    }
    long nameBytes = Integer.toUnsignedLong(data.getInt());
    if (nameBytes > bytes - INFO_FIXED_BYTES) {
      return invalid(option, "name of " + nameBytes + " bytes in " + bytes + " bytes of data");
    }
    ByteBuffer nameData = data.slice(data.position(), (int) nameBytes);
    data.position(data.position() + (int) nameBytes);
    int count = Short.toUnsignedInt(data.getShort());
    if (data.remaining() != count * Short.BYTES) {
      return invalid(
          option, count + " kinds of information in " + data.remaining() + " bytes of data");
    }
    Optional<String> name = WireStrings.decode(nameData);
    if (name.isEmpty()) {
      return invalid(option, "the export name is not a legal string");
    }
    Set<Integer> wanted = new HashSet<>();
    for (int i = 0; i < count; i++) {
      wanted.add(Short.toUnsignedInt(data.getShort()));
    }
    return new OptionRequest.Details(go, name.get(), wanted);
  }

  private static OptionRequest unexpectedData(int option, ByteBuffer data) {
    return invalid(option, data.remaining() + " bytes of data, expected none");
  }

  private static OptionRequest invalid(int option, String reason) {
    return new OptionRequest.Invalid(option, reason);
  }
}
