package io.qnbd.server.config;

import java.util.Arrays;
import java.util.Locale;
import java.util.regex.Matcher;
import java.util.regex.Pattern;

/**
 * Sizes as people write and read them. The units are powers of 1024, as in QEMU: {@code 10G},
 * {@code 10GiB}, {@code 1.5T}, {@code 64k}, {@code 4096}, {@code 4096B}.
 *
 * <p>Calculates in longs, although {@link java.math.BigDecimal} would be shorter: the first one in
 * a process takes Java some 40 ms, and the line that says that a server is ready has a size in it.
 */
public final class Sizes {
  private Sizes() {}

  private static final String UNITS = "KMGTPE";
  private static final int UNIT_BITS = 10;

  /** A size with a fraction is rounded up to whole sectors, because it was not meant exactly. */
  private static final int SECTOR_BITS = 9;

  private static final Pattern SIZE =
      Pattern.compile("0*(?<whole>[0-9]{1,19})(?:\\.(?<fraction>[0-9]{1,30}))?(?<unit>[A-Za-z]*)");

  private static final Pattern TOO_LARGE = Pattern.compile("[0-9]{20,}(\\.[0-9]*)?[A-Za-z]*");

  /**
   * The bytes that {@code text} stands for.
   *
   * @throws IllegalArgumentException with a sentence, when it is not a size
   */
  public static long parse(String text) {
    Matcher matcher = SIZE.matcher(text);
    if (!matcher.matches()) {
      throw TOO_LARGE.matcher(text).matches() ? tooLarge(text) : noSize(text);
    }
    int unitBits = unitBits(text, matcher.group("unit"));
    try {
      long whole = Long.parseLong(matcher.group("whole"));
      long bytes = Math.multiplyExact(whole, 1L << unitBits);
      String fraction = matcher.group("fraction");
      return fraction == null ? bytes : plusFraction(bytes, fraction, unitBits);
    } catch (NumberFormatException | ArithmeticException _) { // more than 63 bits
      throw tooLarge(text);
    }
  }

  /**
   * The bytes and a part of a unit, rounded up to whole sectors unless the part is nothing.
   *
   * @param fraction the digits behind the point
   * @throws ArithmeticException when it has more than 63 bits
   */
  private static long plusFraction(long bytes, String fraction, int unitBits) {
    int[] digits = fraction.chars().map(digit -> digit - '0').toArray();
    long part = 0;
    for (int bit = 0; bit < unitBits; bit++) { // each doubling brings the next bit before the point
      int carry = 0;
      for (int i = digits.length - 1; i >= 0; i--) {
        int doubled = 2 * digits[i] + carry;
        digits[i] = doubled % 10;
        carry = doubled / 10;
      }
      part = 2 * part + carry;
    }
    boolean exact = Arrays.stream(digits).allMatch(digit -> digit == 0);
    if (part == 0 && exact) {
      return bytes;
    }
    long whole = Math.addExact(bytes, part);
    long sectors = whole >> SECTOR_BITS;
    boolean rounded = !exact || sectors << SECTOR_BITS != whole;
    return Math.multiplyExact(rounded ? sectors + 1 : sectors, 1L << SECTOR_BITS);
  }

  private static IllegalArgumentException noSize(String text) {
    return new IllegalArgumentException(
        text.startsWith("-")
            ? "a size cannot be negative: " + text
            : "not a size: '" + text + "' (write 4096, 512M, 10G or 1.5T)");
  }

  private static IllegalArgumentException tooLarge(String text) {
    return new IllegalArgumentException("the size " + text + " is too large: it must be below 8E");
  }

  private static int unitBits(String text, String unit) {
    String upper = unit.toUpperCase(Locale.ROOT);
    if (upper.isEmpty() || upper.equals("B")) {
      return 0;
    }
    int power = UNITS.indexOf(upper.charAt(0)) + 1;
    String rest = upper.substring(1);
    if (power > 0 && (rest.isEmpty() || rest.equals("IB"))) {
      return power * UNIT_BITS;
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
    int unitBits = power * UNIT_BITS;
    long whole = bytes >>> unitBits;
    long rest = bytes & ((1L << unitBits) - 1);
    // rest * 100 / 2^unitBits, with both sides divided by 4 and by 8 so that 60 bits are enough
    long scaled = 25 * (rest >>> 3) + ((25 * (rest & 7)) >>> 3);
    long hundredths = (scaled + (1L << (unitBits - 6))) >>> (unitBits - 5);
    whole += hundredths / 100;
    hundredths %= 100;
    StringBuilder text = new StringBuilder().append(whole);
    if (hundredths != 0) {
      text.append('.').append(hundredths / 10);
      if (hundredths % 10 != 0) {
        text.append(hundredths % 10);
      }
    }
    return text.append(' ').append(UNITS.charAt(power - 1)).append("iB").toString();
  }

  /** The size for reading and for calculating: {@code 10 GiB (10737418240 bytes)}. */
  public static String textWithBytes(long bytes) {
    return bytes < 1L << UNIT_BITS ? text(bytes) : text(bytes) + " (" + bytes + " bytes)";
  }
}
