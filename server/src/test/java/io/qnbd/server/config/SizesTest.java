package io.qnbd.server.config;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertThrows;

import java.math.BigDecimal;
import java.math.RoundingMode;
import java.util.List;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.CsvSource;
import org.junit.jupiter.params.provider.ValueSource;

final class SizesTest {

  @ParameterizedTest
  @CsvSource({
    "0, 0",
    "4096, 4096",
    "4096B, 4096",
    "64k, 65536",
    "64K, 65536",
    "512M, 536870912",
    "10G, 10737418240",
    "10GiB, 10737418240",
    "10gib, 10737418240",
    "1.5T, 1649267441664",
    "2.0K, 2048",
    "1P, 1125899906842624",
    "7E, 8070450532247928832",
    "9223372036854775807, 9223372036854775807"
  })
  void readsUnitsAsPowersOf1024(String text, long bytes) {
    assertEquals(bytes, Sizes.parse(text));
  }

  @ParameterizedTest
  @CsvSource({"0.1K, 512", "1.3G, 1395864576", "0.5, 512"})
  void roundsAFractionUpToWholeSectors(String text, long bytes) {
    assertEquals(bytes, Sizes.parse(text));
  }

  @ParameterizedTest
  @ValueSource(
      strings = {
        "",
        " ",
        "-1",
        "-1G",
        "G",
        "1.",
        ".5G",
        "1,5G",
        "10X",
        "10GG",
        "10 G",
        "0x10",
        "1e9",
        "100MB",
        "9223372036854775808",
        "8E",
        "16E",
        "99999999999999999999",
        "NaN",
        "10G\n",
        "١٠"
      })
  void refusesWithASentence(String text) {
    IllegalArgumentException refused =
        assertThrows(IllegalArgumentException.class, () -> Sizes.parse(text));
    assertFalse(String.valueOf(refused.getMessage()).isBlank());
  }

  @Test
  void refusesDecimalUnitsBecauseTheyAreAmbiguous() {
    assertEquals(
        "the unit of '100mB' may mean powers of 1000 or of 1024: write M or MiB for 1024",
        assertThrows(IllegalArgumentException.class, () -> Sizes.parse("100mB")).getMessage());
  }

  @ParameterizedTest
  @CsvSource({
    "0, 0 bytes",
    "1, 1 byte",
    "1023, 1023 bytes",
    "1024, 1 KiB",
    "65536, 64 KiB",
    "10737418240, 10 GiB",
    "1649267441664, 1.5 TiB",
    "1395864371, 1.3 GiB",
    "9223372036854775807, 8 EiB"
  })
  void writesTheLargestUnit(long bytes, String text) {
    assertEquals(text, Sizes.text(bytes));
  }

  @Test
  void addsTheBytesWhereTheUnitHidesThem() {
    assertEquals("10 GiB (10737418240 bytes)", Sizes.textWithBytes(10L << 30));
    assertEquals("512 bytes", Sizes.textWithBytes(512));
  }

  /** Against a calculation with as many digits as it takes. */
  @ParameterizedTest
  @ValueSource(
      strings = {
        "0",
        "5",
        "50",
        "25",
        "125",
        "0009765625",
        "00048828125",
        "1",
        "3",
        "999",
        "000000001",
        "000000000000000000000000000001",
        "999999999999999999999999999999",
        "0000000000000000000"
      })
  void readsFractionsToTheLastDigit(String fraction) {
    for (long whole : List.of(0L, 1L, 7L, 1023L, (1L << 40) + 1, (1L << 53) - 1, Long.MAX_VALUE)) {
      for (int power = 0; power <= 6; power++) {
        String number = whole + "." + fraction;
        String text = number + (power == 0 ? "" : "KMGTPE".charAt(power - 1));
        BigDecimal bytes = new BigDecimal(number).multiply(new BigDecimal(1L << (10 * power)));
        if (fraction.chars().anyMatch(digit -> digit != '0')) {
          BigDecimal sector = new BigDecimal(512);
          bytes = bytes.divide(sector, 0, RoundingMode.CEILING).multiply(sector);
        }
        if (bytes.compareTo(new BigDecimal(Long.MAX_VALUE)) > 0) {
          assertThrows(IllegalArgumentException.class, () -> Sizes.parse(text), text);
        } else {
          assertEquals(bytes.longValueExact(), Sizes.parse(text), text);
        }
      }
    }
  }

  @Test
  void roundsHalfOfAHundredthUp() {
    for (int power = 1; power <= 6; power++) {
      BigDecimal unit = new BigDecimal(1L << (10 * power));
      for (int hundredths = 100; hundredths < 800; hundredths += 7) {
        long tie =
            new BigDecimal(hundredths + ".5")
                .multiply(unit)
                .divide(new BigDecimal(100), 0, RoundingMode.CEILING)
                .longValueExact();
        for (long bytes = tie - 2; bytes <= tie + 2; bytes++) {
          assertEquals(
              new BigDecimal(bytes)
                      .divide(unit, 2, RoundingMode.HALF_UP)
                      .stripTrailingZeros()
                      .toPlainString()
                  + " "
                  + "KMGTPE".charAt(power - 1)
                  + "iB",
              Sizes.text(bytes));
        }
      }
    }
  }
}
