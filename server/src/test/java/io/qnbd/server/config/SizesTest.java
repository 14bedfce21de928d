package io.qnbd.server.config;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertThrows;

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
}
