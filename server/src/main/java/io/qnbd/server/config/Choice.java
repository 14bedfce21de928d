package io.qnbd.server.config;

import io.qnbd.image.BackingPolicy;
import io.qnbd.image.CacheMode;
import io.qnbd.image.ImageFormat;
import io.qnbd.image.OverlapCheck;
import io.qnbd.image.Preallocation;
import io.qnbd.image.RepairScope;
import io.qnbd.protocol.handshake.TlsMode;
import java.util.Arrays;
import java.util.Locale;
import java.util.stream.Collectors;

/** Constants as the command line spells them: {@code SAME_DIRECTORY} is {@code same-directory}. */
public final class Choice {
  private Choice() {}

  public static ImageFormat format(String text) {
    return parse(ImageFormat.values(), text);
  }

  public static CacheMode cacheMode(String text) {
    return parse(CacheMode.values(), text);
  }

  public static BackingPolicy backingPolicy(String text) {
    return parse(BackingPolicy.values(), text);
  }

  public static Preallocation preallocation(String text) {
    return parse(Preallocation.values(), text);
  }

  public static RepairScope repairScope(String text) {
    return parse(RepairScope.values(), text);
  }

  public static OverlapCheck overlapCheck(String text) {
    return parse(OverlapCheck.values(), text);
  }

  public static TlsMode tlsMode(String text) {
    return parse(TlsMode.values(), text);
  }

  /** {@code on} or {@code off}. */
  public static boolean onOff(String text) {
    return switch (text) {
      case "on" -> true;
      case "off" -> false;
      default -> throw new IllegalArgumentException("'" + text + "' is neither on nor off");
    };
  }

  private static <E extends Enum<E>> E parse(E[] values, String text) {
    return Arrays.stream(values)
        .filter(value -> name(value).equals(text))
        .findFirst()
        .orElseThrow(() ->
            new IllegalArgumentException(
                "'"
                    + text
                    + "' is none of "
                    + Arrays.stream(values).map(Choice::name).collect(Collectors.joining(", "))));
  }

  public static String name(Enum<?> value) {
    return value.name().toLowerCase(Locale.ROOT).replace('_', '-');
  }
}
