package io.qnbd.image.crypt;

import static org.junit.jupiter.api.Assertions.assertArrayEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertNull;

import java.util.Arrays;
import java.util.HexFormat;
import java.util.Random;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.CsvSource;

/** Sector ciphers against the vectors of their standards, and against themselves. */
final class SectorCipherTest {
  private static byte[] hex(String text) {
    return HexFormat.of().parseHex(text);
  }

  /** IEEE 1619-2007, annex B; of a data unit that is shorter than ours its beginning. */
  @ParameterizedTest
  @CsvSource({
    // vector 1, vector 4, vector 10
    "0000000000000000000000000000000000000000000000000000000000000000, 0, false,"
        + " 917cf69ebd68b2ec9b9fe9a3eadda692cd43d2f59598ed858c02c2652fbf922e",
    "2718281828459045235360287471352631415926535897932384626433832795, 0, true,"
        + " 27a7479befa1d476489f308cd4cfa6e2a96e4bbe3208ff25287dd3819616e89c",
    "2718281828459045235360287471352662497757247093699959574966967627"
        + "3141592653589793238462643383279502884197169399375105820974944592, 255, true,"
        + " 1c3b3a102f770386e4836c99e370cf9bea00803f5e482357a4ae12d414a3e63b"
  })
  void encryptsTheVectorsOfTheStandard(String key, long sector, boolean counting, String expected) {
    byte[] bytes = new byte[512];
    for (int i = 0; counting && i < bytes.length; i++) {
      bytes[i] = (byte) i;
    }
    new CipherSpec("aes", "xts-plain64", key.length() / 2)
        .maker(hex(key))
        .make()
        .encrypt(sector, bytes, 1);
    assertArrayEquals(hex(expected), Arrays.copyOf(bytes, 32));
  }

  @ParameterizedTest
  @CsvSource({
    "xts-plain64, 64",
    "xts-plain64, 32",
    "xts-plain64, 48",
    "xts-plain, 64",
    "xts-essiv:sha256, 64",
    "cbc-plain64, 32",
    "cbc-plain, 16",
    "cbc-essiv:sha256, 32",
    "cbc-essiv:sha256, 16",
  })
  void decryptsWhatItEncryptsWhereverThePiecesAreCut(String mode, int keyBytes) {
    Random random = new Random(7);
    byte[] key = new byte[keyBytes];
    random.nextBytes(key);
    CipherSpec spec = new CipherSpec("aes", mode, keyBytes);
    assertNull(spec.problem());
    int sectors = 150;
    byte[] plain = new byte[sectors * 512];
    random.nextBytes(plain);
    long first = (1L << 32) - 70;

    byte[] whole = plain.clone();
    SectorCipher cipher = spec.maker(key).make();
    cipher.encrypt(first, whole, sectors);
    for (int at = 0; at < sectors; at++) {
      byte[] one = Arrays.copyOfRange(plain, at * 512, at * 512 + 512);
      cipher.encrypt(first + at, one, 1);
      assertArrayEquals(Arrays.copyOfRange(whole, at * 512, at * 512 + 512), one);
      cipher.decrypt(first + at, one, 1);
      assertArrayEquals(Arrays.copyOfRange(plain, at * 512, at * 512 + 512), one);
    }
    byte[] back = whole.clone();
    spec.maker(key).make().decrypt(first, back, sectors);
    assertArrayEquals(plain, back);
    assertFalse(Arrays.equals(plain, whole));
  }

  @Test
  void theOlderMethodPadsAShortPassphraseWithZeroes() {
    byte[] shorter = new byte[512];
    byte[] padded = new byte[512];
    byte[] passphrase = {'a', 'b', 'c'};
    LegacyAes.maker(passphrase).make().encrypt(5, shorter, 1);
    LegacyAes.maker(Arrays.copyOf(passphrase, 20)).make().encrypt(5, padded, 1);
    assertArrayEquals(padded, shorter);
  }
}
