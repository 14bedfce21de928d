package io.qnbd.protocol.codec;

import io.qnbd.protocol.OptionRequest;
import io.qnbd.protocol.OptionType;
import io.qnbd.protocol.WireStrings;
import java.nio.ByteBuffer;
import java.util.ArrayList;
import java.util.HashSet;
import java.util.List;
import java.util.Optional;
import java.util.Set;

/**
 * The data of an option to its value; pure.
 *
 * <pre>
 * EXPORT_NAME                    the name, to the end
 * ABORT                          nothing; what is there is ignored
 * LIST, STARTTLS,                nothing
 * STRUCTURED_REPLY,
 * EXTENDED_HEADERS
 * INFO, GO                       u32 name bytes, name, u16 count, count times u16 kind; no more
 * LIST_META_CONTEXT,             u32 name bytes, name, u32 count,
 * SET_META_CONTEXT               count times (u32 query bytes, query); no more
 * </pre>
 *
 * <p>All lengths are checked against what is there before they are believed.
 */
final class OptionParser {
  private OptionParser() {}

  /** Whether {@link #parse} looks at this option's data; that of others is to be skipped. */
  static boolean reads(int option) {
    return switch (option) {
      case OptionType.EXPORT_NAME,
          OptionType.INFO,
          OptionType.GO,
          OptionType.LIST_META_CONTEXT,
          OptionType.SET_META_CONTEXT ->
          true;
      default -> false;
    };
  }

  /** The value of an option whose {@code bytes} of data nobody looks at. */
  static OptionRequest skipped(int option, long bytes) {
    OptionRequest request =
        switch (option) {
          case OptionType.ABORT -> new OptionRequest.Abort();
          case OptionType.LIST -> new OptionRequest.ListExports();
          case OptionType.STARTTLS -> new OptionRequest.StartTls();
          case OptionType.STRUCTURED_REPLY -> new OptionRequest.StructuredReplies();
          case OptionType.EXTENDED_HEADERS -> new OptionRequest.ExtendedHeaders();
          default -> new OptionRequest.Unknown(option);
        };
    boolean anyData =
        request instanceof OptionRequest.Abort || request instanceof OptionRequest.Unknown;
    return bytes == 0 || anyData
        ? request
        : invalid(option, bytes + " bytes of data, expected none");
  }

  /** Parses an option whose data is exactly what remains of {@code data}. */
  static OptionRequest parse(int option, ByteBuffer data) {
    return switch (option) {
      case OptionType.EXPORT_NAME -> {
        Optional<String> name = WireStrings.decode(data);
        yield name.isPresent()
            ? new OptionRequest.ExportName(name.get())
            : invalid(option, "the export name is not a legal string");
      }
      case OptionType.INFO -> parseInfo(option, false, data);
      case OptionType.GO -> parseInfo(option, true, data);
      case OptionType.LIST_META_CONTEXT -> parseMetaContexts(option, false, data);
      case OptionType.SET_META_CONTEXT -> parseMetaContexts(option, true, data);
      default -> skipped(option, data.remaining());
    };
  }

  private static OptionRequest parseInfo(int option, boolean go, ByteBuffer data) {
    Optional<String> name = takeString(data);
    if (name.isEmpty()) {
      return invalid(option, "the export name is no legal string or longer than the data");
    }
    int count = data.remaining() < Short.BYTES ? -1 : Short.toUnsignedInt(data.getShort());
    if (data.remaining() != count * Short.BYTES) {
      return invalid(
          option, count + " kinds of information in " + data.remaining() + " bytes of data");
    }
    Set<Integer> wanted = new HashSet<>();
    for (int i = 0; i < count; i++) {
      wanted.add(Short.toUnsignedInt(data.getShort()));
    }
    return new OptionRequest.Details(go, name.get(), wanted);
  }

  private static OptionRequest parseMetaContexts(int option, boolean set, ByteBuffer data) {
    Optional<String> name = takeString(data);
    if (name.isEmpty()) {
      return invalid(option, "the export name is no legal string or longer than the data");
    }
    if (data.remaining() < Integer.BYTES) {
      return invalid(option, "the data ends before the number of queries");
    }
    long count = Integer.toUnsignedLong(data.getInt());
    // Before anything is allocated for them: each needs four bytes.
    if (count > data.remaining() / Integer.BYTES) {
      return invalid(option, count + " queries in " + data.remaining() + " bytes of data");
    }
    List<String> queries = new ArrayList<>();
    for (long i = 0; i < count; i++) {
      Optional<String> query = takeString(data);
      if (query.isEmpty()) {
        return invalid(option, "query " + i + " is no legal string or longer than the data");
      }
      queries.add(query.get());
    }
    if (data.hasRemaining()) {
      return invalid(option, data.remaining() + " bytes of data behind the last query");
    }
    return new OptionRequest.MetaContexts(set, name.get(), queries);
  }

  /** Takes a length and that much of a string, or nothing when one of them is not legal. */
  private static Optional<String> takeString(ByteBuffer data) {
    if (data.remaining() < Integer.BYTES) {
      return Optional.empty();
    }
    long bytes = Integer.toUnsignedLong(data.getInt());
    if (bytes > data.remaining()) {
      return Optional.empty();
    }
    ByteBuffer string = data.slice(data.position(), (int) bytes);
    data.position(data.position() + (int) bytes);
    return WireStrings.decode(string);
  }

  private static OptionRequest invalid(int option, String reason) {
    return new OptionRequest.Invalid(option, reason);
  }
}
