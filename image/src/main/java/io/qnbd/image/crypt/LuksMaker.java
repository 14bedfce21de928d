package io.qnbd.image.crypt;

import java.io.IOException;
import java.nio.ByteBuffer;
import java.nio.charset.StandardCharsets;
import java.security.SecureRandom;
import java.util.Arrays;
import java.util.UUID;

/**
 * Makes LUKS headers as QEMU does: AES-256 in XTS mode, sha256, one passphrase in the first of the
 * eight slots, each slot's key material in pages of its own.
 */
public final class LuksMaker {
  private static final CipherSpec CIPHER = new CipherSpec("aes", "xts-plain64", 64);
  private static final Hash HASH = Hash.SHA256;
  private static final int PAGE_BYTES = 4096;
  private static final int MATERIAL_BYTES =
      Math.ceilDiv(CIPHER.keyBytes() * LuksHeader.STRIPES, PAGE_BYTES) * PAGE_BYTES;

  /** Header and key material of all slots. */
  public static final int AREA_BYTES = PAGE_BYTES + LuksHeader.SLOTS * MATERIAL_BYTES;

  /** Fewer are no protection, whatever time was asked for; the specification's bound too. */
  private static final long ITERATIONS_MIN = 1000;

  private static final long ITERATIONS_MAX = (1L << 32) - 1;

  /** The key itself has the entropy of its length, so its digest needs less work. */
  private static final int DIGEST_SHARE = 8;

  private static final int PROBE_ITERATIONS = 20_000;

  private LuksMaker() {}

  /**
   * A header with a new key, {@link #AREA_BYTES} long.
   *
   * @param iterMillis about how long it shall take to try a passphrase here
   */
  public static ByteBuffer make(byte[] passphrase, int iterMillis) throws IOException {
    SecureRandom random = new SecureRandom();
    byte[] key = new byte[CIPHER.keyBytes()];
    random.nextBytes(key);
    try {
      return make(passphrase, key, iterationsFor(HASH, CIPHER, iterMillis), random);
    } finally {
      Arrays.fill(key, (byte) 0);
    }
  }

  private static ByteBuffer make(
      byte[] passphrase, byte[] key, long iterations, SecureRandom random) throws IOException {
    ByteBuffer area = ByteBuffer.allocate(AREA_BYTES);
    putHeader(area);
    putDigest(area, key, Math.max(ITERATIONS_MIN, iterations / DIGEST_SHARE), random);
    for (int index = 0; index < LuksHeader.SLOTS; index++) {
      ByteBuffer slot =
          area.slice(LuksHeader.SLOTS_AT + index * LuksHeader.SLOT_BYTES, LuksHeader.SLOT_BYTES);
      slot.putInt(0, LuksHeader.SLOT_UNUSED);
      slot.putInt(LuksHeader.SLOT_MATERIAL_AT, materialAt(index) / SectorCipher.SECTOR_BYTES);
      slot.putInt(LuksHeader.SLOT_STRIPES_AT, LuksHeader.STRIPES);
    }
    NewSlot first = newSlot(HASH, CIPHER, passphrase, key, iterations);
    area.putInt(LuksHeader.slotAt(0), LuksHeader.SLOT_USED);
    area.put(LuksHeader.slotAt(0) + NewSlot.FIELDS_AT, first.fields(), 0, first.fields().limit());
    area.put(materialAt(0), first.material(), 0, first.material().limit());
    return area;
  }

  private static int materialAt(int slot) {
    return PAGE_BYTES + slot * MATERIAL_BYTES;
  }

  private static void putHeader(ByteBuffer area) {
    area.put(0, LuksHeader.MAGIC);
    area.putShort(LuksHeader.VERSION_AT, (short) 1);
    area.put(LuksHeader.CIPHER_AT, LuksHeader.name(CIPHER.name()));
    area.put(LuksHeader.MODE_AT, LuksHeader.name(CIPHER.mode()));
    area.put(LuksHeader.HASH_AT, LuksHeader.name(HASH.specName()));
    area.putInt(LuksHeader.PAYLOAD_AT, AREA_BYTES / SectorCipher.SECTOR_BYTES);
    area.putInt(LuksHeader.KEY_BYTES_AT, CIPHER.keyBytes());
    byte[] uuid = UUID.randomUUID().toString().getBytes(StandardCharsets.US_ASCII);
    area.put(LuksHeader.UUID_AT, Arrays.copyOf(uuid, LuksHeader.UUID_BYTES));
  }

  private static void putDigest(ByteBuffer area, byte[] key, long iterations, SecureRandom random)
      throws IOException {
    byte[] salt = new byte[LuksHeader.SALT_BYTES];
    random.nextBytes(salt);
    area.put(LuksHeader.DIGEST_SALT_AT, salt);
    area.putInt(LuksHeader.DIGEST_ITERATIONS_AT, (int) iterations);
    byte[] digest = derive(key, salt, iterations, LuksHeader.DIGEST_BYTES);
    area.put(LuksHeader.DIGEST_AT, digest);
  }

  /**
   * A slot with a key in it, but for its state and for where its key material is.
   *
   * @param fields iterations and salt
   * @param material the key, encrypted
   */
  public record NewSlot(ByteBuffer fields, ByteBuffer material) {
    /** Where the fields are in the slot's entry. */
    public static final int FIELDS_AT = LuksHeader.SLOT_ITERATIONS_AT;

    public static final int FIELDS_BYTES = Integer.BYTES + LuksHeader.SALT_BYTES;
  }

  static NewSlot newSlot(
      Hash hash, CipherSpec cipher, byte[] passphrase, byte[] key, int iterMillis)
      throws IOException {
    return newSlot(hash, cipher, passphrase, key, iterationsFor(hash, cipher, iterMillis));
  }

  private static NewSlot newSlot(
      Hash hash, CipherSpec cipher, byte[] passphrase, byte[] key, long iterations)
      throws IOException {
    SecureRandom random = new SecureRandom();
    byte[] salt = new byte[LuksHeader.SALT_BYTES];
    random.nextBytes(salt);
    ByteBuffer fields =
        ByteBuffer.allocate(Integer.BYTES + salt.length).putInt((int) iterations).put(salt).flip();
    byte[] split = AntiForensic.split(hash, key, LuksHeader.STRIPES, random);
    byte[] slotKey = {};
    try {
      slotKey = Pbkdf2.derive(hash, passphrase, salt, iterations, cipher.keyBytes(), () -> {});
      int sectors = Math.ceilDiv(split.length, SectorCipher.SECTOR_BYTES);
      byte[] whole = Arrays.copyOf(split, sectors * SectorCipher.SECTOR_BYTES);
      cipher.maker(slotKey).make().encrypt(0, whole, sectors);
      return new NewSlot(fields, ByteBuffer.wrap(whole, 0, split.length));
    } finally {
      Arrays.fill(split, (byte) 0);
      Arrays.fill(slotKey, (byte) 0);
    }
  }

  private static byte[] derive(byte[] secret, byte[] salt, long iterations, int bytes)
      throws IOException {
    return Pbkdf2.derive(HASH, secret, salt, iterations, bytes, () -> {});
  }

  /** How many iterations take so long here, for a key of the length that a slot needs. */
  private static long iterationsFor(Hash hash, CipherSpec cipher, int millis) throws IOException {
    byte[] probe = new byte[LuksHeader.SALT_BYTES];
    long iterations = PROBE_ITERATIONS;
    long nanos = 1;
    // Three times, for Java is slow at what it does first; the last counts.
    for (int run = 0; run < 3; run++) {
      long start = System.nanoTime();
      Pbkdf2.derive(hash, probe, probe, iterations, cipher.keyBytes(), () -> {});
      nanos = Math.max(1, System.nanoTime() - start);
      if (run < 2 && nanos < 50_000_000L) {
        iterations *= 4;
      }
    }
    double perMilli = iterations * 1_000_000.0 / nanos;
    return Math.clamp((long) (perMilli * millis), ITERATIONS_MIN, ITERATIONS_MAX);
  }
}
