package io.qnbd.image.crypt;

import static org.junit.jupiter.api.Assertions.assertArrayEquals;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertNotNull;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import io.qnbd.image.CorruptImageException;
import io.qnbd.image.UnsupportedImageException;
import java.io.IOException;
import java.nio.ByteBuffer;
import java.nio.charset.StandardCharsets;
import java.security.SecureRandom;
import java.util.Arrays;
import java.util.HexFormat;
import java.util.Random;
import javax.crypto.SecretKeyFactory;
import javax.crypto.spec.PBEKeySpec;
import org.junit.jupiter.api.BeforeAll;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.CsvSource;
import org.junit.jupiter.params.provider.EnumSource;
import org.junit.jupiter.params.provider.ValueSource;

/** LUKS headers that are made here, and ones that a stranger changed. */
final class LuksHeaderTest {
  private static final byte[] PASSPHRASE = "geheim\0\u00fc".getBytes(StandardCharsets.UTF_8);
  private static final KeyTime UNBOUNDED = () -> {};
  private static ByteBuffer made = ByteBuffer.allocate(0);

  @BeforeAll
  static void make() throws IOException {
    made = LuksMaker.make(PASSPHRASE, 1);
  }

  private static ByteBuffer copy() {
    return ByteBuffer.wrap(made.array().clone());
  }

  private static LuksHeader parse(ByteBuffer area) throws IOException {
    return LuksHeader.parse("x.qcow2", area, area.capacity());
  }

  private static SectorCipher unlock(ByteBuffer area, byte[] passphrase) throws IOException {
    return parse(area)
        .unlock(passphrase, (at, target) -> area.get((int) at, target), UNBOUNDED)
        .make();
  }

  private static void assertUnlockFails(ByteBuffer area, byte[] passphrase, String message) {
    IOException failure = assertThrows(IOException.class, () -> unlock(area, passphrase));
    String found = String.valueOf(failure.getMessage());
    assertTrue(found.contains(message), found);
  }

  @Test
  void opensWithItsPassphraseAndNoOther() throws IOException {
    byte[] bytes = new byte[1024];
    unlock(made, PASSPHRASE).encrypt(3, bytes, 2);
    unlock(copy(), PASSPHRASE).decrypt(3, bytes, 2);
    assertArrayEquals(new byte[1024], bytes);
    assertEquals("aes-256-xts-plain64", parse(made).cipherText());
    assertEquals("sha256", parse(made).hashText());
    assertEquals(1, parse(made).slotsUsed());
    byte[] wrong = PASSPHRASE.clone();
    wrong[0] ^= 1;
    assertUnlockFails(
        made, wrong, "x.qcow2: the passphrase is wrong: it fits none of the image's key slots");
  }

  @Test
  void findsThePassphraseInALaterSlot() throws IOException {
    ByteBuffer area = copy();
    int first = LuksHeader.SLOTS_AT;
    int last = first + 7 * LuksHeader.SLOT_BYTES;
    byte[] slot = new byte[LuksHeader.SLOT_BYTES];
    area.get(first, slot);
    area.put(last, slot);
    area.put(first + LuksHeader.SLOT_SALT_AT, (byte) ~area.get(first + LuksHeader.SLOT_SALT_AT));
    assertEquals(2, parse(area).slotsUsed());
    assertNotNull(unlock(area, PASSPHRASE));
    area.putInt(last, LuksHeader.SLOT_UNUSED);
    assertUnlockFails(area, PASSPHRASE, "fits none");
    area.putInt(first, LuksHeader.SLOT_UNUSED);
    assertUnlockFails(area, PASSPHRASE, "no key slot");
  }

  @Test
  void stopsWhenItsTimeIsOver() throws IOException {
    ByteBuffer area = copy();
    area.putInt(LuksHeader.SLOTS_AT + LuksHeader.SLOT_ITERATIONS_AT, -1);
    LuksHeader header = parse(area);
    IOException failure =
        assertThrows(
            IOException.class,
            () ->
                header.unlock(
                    PASSPHRASE,
                    (at, target) -> area.get((int) at, target),
                    () -> {
                      throw new IOException("too long");
                    }));
    assertEquals("too long", failure.getMessage());
  }

  /** Byte, value, and what the sentence about it says. */
  @ParameterizedTest
  @CsvSource({
    "0, 4d, does not begin",
    "7, 02, has version 2",
    "8, 78, the cipher xes",
    "40, 637472, the cipher mode ctr-plain64",
    "44, 626269, the vectors of xts-bbiin64",
    "72, 6d, the hash mha256",
    "108, 7fffffff, a key of",
    "108, 00000041, a key of",
    "108, 00000000, a key of",
    "164, 00000000, no iterations",
    "208, 00000001, neither in use nor free",
    "212, 00000000, no iterations",
    "248, ffffffff, has its key material at",
    "248, 00000000, has its key material at",
    "248, 00000fc8, has its key material at",
    "252, ffffffff, 4294967295 stripes",
    "252, 00000000, 0 stripes",
  })
  void refusesAHeaderThatAStrangerChanged(int at, String bytes, String sentence) {
    ByteBuffer area = copy();
    area.put(at, HexFormat.of().parseHex(bytes));
    IOException failure = assertThrows(IOException.class, () -> parse(area));
    assertTrue(
        failure instanceof CorruptImageException || failure instanceof UnsupportedImageException);
    String message = String.valueOf(failure.getMessage());
    assertTrue(message.startsWith("x.qcow2: ") && message.contains(sentence), message);
  }

  @ParameterizedTest
  @ValueSource(ints = {0, 1, 591})
  void refusesAHeaderThatIsCutShort(int bytes) {
    assertThrows(
        CorruptImageException.class,
        () -> LuksHeader.parse("x.qcow2", made.slice(0, bytes), LuksMaker.AREA_BYTES));
    assertThrows(
        CorruptImageException.class, () -> LuksHeader.parse("x.qcow2", made.slice(), bytes));
  }

  @Test
  void saysWhateverBytesOfAHeaderSayInOneSentence() {
    Random random = new Random(11);
    for (int round = 0; round < 2000; round++) {
      ByteBuffer header = copy().slice(0, LuksHeader.BYTES);
      for (int i = 0; i <= random.nextInt(6); i++) {
        header.put(random.nextInt(592), (byte) random.nextInt());
      }
      try {
        LuksHeader.parse("x.qcow2", header, LuksMaker.AREA_BYTES);
      } catch (IOException e) {
        String message = String.valueOf(e.getMessage());
        assertTrue(message.matches("x\\.qcow2: [ -~]+"), message);
      }
    }
  }

  @ParameterizedTest
  @EnumSource(Hash.class)
  void derivesTheKeysThatTheJdkDerives(Hash hash) throws Exception {
    byte[] salt = new byte[32];
    new Random(3).nextBytes(salt);
    for (String passphrase : new String[] {"x", "long".repeat(50)}) {
      String name = "PBKDF2WithHmac" + hash.name();
      byte[] expected =
          SecretKeyFactory.getInstance(name)
              .generateSecret(new PBEKeySpec(passphrase.toCharArray(), salt, 77, 8 * 70))
              .getEncoded();
      byte[] utf8 = passphrase.getBytes(StandardCharsets.UTF_8);
      assertArrayEquals(expected, Pbkdf2.derive(hash, utf8, salt, 77, 70, UNBOUNDED));
    }
  }

  @ParameterizedTest
  @EnumSource(Hash.class)
  void mergesWhatItSplit(Hash hash) {
    byte[] key = new byte[64];
    new Random(5).nextBytes(key);
    byte[] split = AntiForensic.split(hash, key, 30, new SecureRandom());
    assertArrayEquals(key, AntiForensic.merge(hash, split, 64, 30));
    split[100] ^= 1;
    assertFalse(Arrays.equals(key, AntiForensic.merge(hash, split, 64, 30)));
  }
}
