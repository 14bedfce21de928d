package io.qnbd.server.config;

import java.math.BigDecimal;
import java.math.RoundingMode;
import java.util.Locale;
import java.util.regex.Matcher;
import java.util.regex.Pattern;

/**
 * Sizes as people write and read them. The units are powers of 1024, as in QEMU: {@code 10G},
 * {@code 10GiB}, {@code 1.5T}, {@code 64k}, {@code 4096}, {@code 4096B}.
 */
public final class Sizes {
  private Sizes() {}

  private static final String UNITS = "KMGTPE";
  private static final int UNIT_BITS = 10;

  /** A size with a fraction is rounded up to whole sectors, because it was not meant exactly. */
  private static final BigDecimal SECTOR_BYTES = BigDecimal.valueOf(512);

  private static final Pattern SIZE =
      Pattern.compile("(?<number>[0-9]{1,30}(?:\\.[0-9]{1,30})?)(?<unit>[A-Za-z]*)");

  /**
   * The bytes that {@code text} stands for.
   *
   * @throws IllegalArgumentException with a sentence, when it is not a size
   */
  public static long parse(String text) {
    Matcher matcher = SIZE.matcher(text);
    if (!matcher.matches()) {
      throw new IllegalArgumentException(
          text.startsWith("-")
              ? "a size cannot be negative: " + text
              : "not a size: '" + text + "' (write 4096, 512M, 10G or 1.5T)");
    }
    BigDecimal number = new BigDecimal(matcher.group("number"));
    BigDecimal bytes = number.multiply(BigDecimal.valueOf(unitBytes(text, matcher.group("unit"))));
    if (number.stripTrailingZeros().scale() > 0) {
      bytes = bytes.divide(SECTOR_BYTES, 0, RoundingMode.CEILING).multiply(SECTOR_BYTES);
    }
    if (bytes.compareTo(BigDecimal.valueOf(Long.MAX_VALUE)) > 0) {
      throw new IllegalArgumentException("the size " + text + " is too large: it must be below 8E");
    }
    return bytes.longValueExact();
  }

  private static long unitBytes(String text, String unit) {
    String upper = unit.toUpperCase(Locale.ROOT);
    if (upper.isEmpty() || upper.equals("B")) {
      return 1;
    }
    int power = UNITS.indexOf(upper.charAt(0)) + 1;
    String rest = upper.substring(1);
    if (power > 0 && (rest.isEmpty() || rest.equals("IB"))) {
      return 1L << (power * UNIT_BITS);
    }
    if (power > 0 && rest.equals("B")) {
      throw new IllegalArgumentException(
          "the unit of '%s' may mean powers of 1000 or of 1024: write %2$s or %2$siB for 1024"
              .formatted(text, upper.charAt(0)));
    }
    throw new IllegalArgumentException(
        "unknown unit in the size '" + text + "' (known: K, M, G, T, P, E, powers of 1024)");
  }

  /** The size in its largest unit with at most two decimals: {@code 10 GiB}, {@code 1.5 TiB}. */
  public static String text(long bytes) {
    int power = 0;
    while (power < UNITS.length() && bytes >>> ((power + 1) * UNIT_BITS) != 0) {
      power++;
    }
    if (power == 0) {
      return bytes == 1 ? "1 byte" : bytes + " bytes";
    }
    BigDecimal inUnits =
        BigDecimal.valueOf(bytes)
            .divide(BigDecimal.valueOf(1L << (power * UNIT_BITS)), 2, RoundingMode.HALF_UP)
            .stripTrailingZeros();
    return inUnits.toPlainString() + " " + UNITS.charAt(power - 1) + "iB";
  }

  /** The size for reading and for calculating: {@code 10 GiB (10737418240 bytes)}. */
  public static String textWithBytes(long bytes) {
    return bytes < 1L << UNIT_BITS ? text(bytes) : text(bytes) + " (" + bytes + " bytes)";
  }
}
