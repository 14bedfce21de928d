package io.qnbd.image.crypt;

import io.qnbd.image.CorruptImageException;
import io.qnbd.image.UnsupportedImageException;
import java.io.IOException;
import java.nio.ByteBuffer;
import java.nio.charset.StandardCharsets;
import java.security.MessageDigest;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import java.util.Set;

/**
 * A LUKS header of version 1 (LUKS On-Disk Format Specification 1.2.3), big-endian, and behind it
 * the key material of its slots.
 *
 * <pre>
 *   0   6 magic, LUKS\xba\xbe      104   4 payload offset, in sectors
 *   6   2 version, 1               108   4 bytes of the key
 *   8  32 cipher                   112  20 digest of the key     all of the disk is
 *  40  32 its mode                 132  32 the digest's salt     encrypted with one key
 *  72  32 hash                     164   4 the digest's iterations
 * 168  40 UUID
 * 208 8x48 key slots:  0  4 in use or not    4  4 iterations    8 32 salt
 *                     40  4 sector of the key material, from the header's start    44 4 stripes
 * </pre>
 *
 * <p>Each slot holds the key, split into stripes and encrypted with what its passphrase and salt
 * are turned into. Every field is checked before it is used; what the slots ask for in time is
 * bounded by the caller's {@link KeyTime}.
 */
public final class LuksHeader {
  /** Without the key material. */
  public static final int BYTES = 592;

  static final byte[] MAGIC = {'L', 'U', 'K', 'S', (byte) 0xba, (byte) 0xbe};
  static final int VERSION_AT = 6;
  static final int CIPHER_AT = 8;
  static final int MODE_AT = 40;
  static final int HASH_AT = 72;
  static final int NAME_BYTES = 32;
  static final int PAYLOAD_AT = 104;
  static final int KEY_BYTES_AT = 108;
  static final int DIGEST_AT = 112;
  static final int DIGEST_BYTES = 20;
  static final int DIGEST_SALT_AT = 132;
  static final int SALT_BYTES = 32;
  static final int DIGEST_ITERATIONS_AT = 164;
  static final int UUID_AT = 168;
  static final int UUID_BYTES = 40;
  static final int SLOTS_AT = 208;
  static final int SLOT_BYTES = 48;
  static final int SLOTS = 8;
  static final int SLOT_ITERATIONS_AT = 4;
  static final int SLOT_SALT_AT = 8;
  static final int SLOT_MATERIAL_AT = 40;
  static final int SLOT_STRIPES_AT = 44;
  static final int SLOT_USED = 0x00ac71f3;
  static final int SLOT_UNUSED = 0x0000dead;

  /** What everybody writes, and QEMU insists on. */
  static final int STRIPES = 4000;

  /** Reads key material: {@code target.length} bytes, {@code at} bytes from the header's start. */
  @FunctionalInterface
  public interface KeyMaterial {
    void read(long at, byte[] target) throws IOException;
  }

  /** The passphrase fits no key slot. */
  public static final class WrongPassphraseException extends IOException {
    WrongPassphraseException(String message) {
      super(message);
    }
  }

  @SuppressWarnings("ArrayRecordComponent") // read from the header, not compared
  private record Slot(int index, long iterations, byte[] salt, long materialAt) {}

  private final String fileName;
  private final CipherSpec cipher;
  private final Hash hash;
  private final byte[] digest;
  private final byte[] digestSalt;
  private final long digestIterations;
  private final List<Slot> slots;
  private final ByteBuffer bytes;
  private final long areaBytes;

  private LuksHeader(
      String fileName,
      CipherSpec cipher,
      Hash hash,
      ByteBuffer in,
      long areaBytes,
      List<Slot> slots)
      throws CorruptImageException {
    this.bytes = ByteBuffer.wrap(bytes(in, 0, BYTES));
    this.areaBytes = areaBytes;
    this.fileName = fileName;
    this.cipher = cipher;
    this.hash = hash;
    this.digest = bytes(in, DIGEST_AT, DIGEST_BYTES);
    this.digestSalt = bytes(in, DIGEST_SALT_AT, SALT_BYTES);
    this.digestIterations = iterations(fileName, in, DIGEST_ITERATIONS_AT, "the key's digest");
    this.slots = slots;
  }

  /**
   * Reads a header.
   *
   * @param bytes at least {@link #BYTES}
   * @param areaBytes the room for header and key material
   */
  public static LuksHeader parse(String fileName, ByteBuffer bytes, long areaBytes)
      throws CorruptImageException, UnsupportedImageException {
    if (bytes.remaining() < BYTES || areaBytes < BYTES) {
      throw new CorruptImageException(
          "%s: its LUKS header has %d bytes, expected at least %d"
              .formatted(fileName, Math.min(bytes.remaining(), areaBytes), BYTES));
    }
    ByteBuffer in = bytes.slice(); // big-endian
    if (!Arrays.equals(bytes(in, 0, MAGIC.length), MAGIC)) {
      throw new CorruptImageException(
          fileName + ": its LUKS header does not begin with \"LUKS\\xba\\xbe\"");
    }
    int version = Short.toUnsignedInt(in.getShort(VERSION_AT));
    if (version != 1) {
      throw new UnsupportedImageException(
          "%s: its LUKS header has version %d, expected 1".formatted(fileName, version));
    }
    CipherSpec cipher =
        new CipherSpec(text(in, CIPHER_AT), text(in, MODE_AT), in.getInt(KEY_BYTES_AT));
    String problem = cipher.problem();
    if (problem != null) {
      throw new UnsupportedImageException(
          "%s: its LUKS header asks for %s".formatted(fileName, problem));
    }
    Hash hash = Hash.named(text(in, HASH_AT));
    if (hash == null) {
      throw new UnsupportedImageException(
          "%s: its LUKS header asks for the hash %s, expected sha1, sha224, sha256, sha384 or sha512"
              .formatted(fileName, text(in, HASH_AT)));
    }
    List<Slot> slots = new ArrayList<>();
    for (int index = 0; index < SLOTS; index++) {
      ByteBuffer slot = in.slice(SLOTS_AT + index * SLOT_BYTES, SLOT_BYTES);
      if (used(fileName, slot, index)) {
        slots.add(slot(fileName, slot, index, cipher.keyBytes(), areaBytes));
      }
    }
    return new LuksHeader(fileName, cipher, hash, in, areaBytes, slots);
  }

  private static boolean used(String fileName, ByteBuffer slot, int index)
      throws CorruptImageException {
    return switch (slot.getInt(0)) {
      case SLOT_USED -> true;
      case SLOT_UNUSED -> false;
      default ->
          throw new CorruptImageException(
              "%s: key slot %d of its LUKS header is neither in use nor free (0x%08x)"
                  .formatted(fileName, index, slot.getInt(0)));
    };
  }

  private static Slot slot(
      String fileName, ByteBuffer slot, int index, int keyBytes, long areaBytes)
      throws CorruptImageException {
    String here = "key slot " + index;
    long stripes = Integer.toUnsignedLong(slot.getInt(SLOT_STRIPES_AT));
    if (stripes != STRIPES) {
      throw new CorruptImageException(
          "%s: %s of its LUKS header has %d stripes, expected %d"
              .formatted(fileName, here, stripes, STRIPES));
    }
    long materialAt =
        Integer.toUnsignedLong(slot.getInt(SLOT_MATERIAL_AT)) * SectorCipher.SECTOR_BYTES;
    if (materialAt < BYTES || materialAt + (long) keyBytes * STRIPES > areaBytes) {
      throw new CorruptImageException(
          "%s: %s of its LUKS header has its key material at 0x%x, expected %d bytes inside the"
                  .formatted(fileName, here, materialAt, keyBytes * STRIPES)
              + " header's %d bytes".formatted(areaBytes));
    }
    long iterations = iterations(fileName, slot, SLOT_ITERATIONS_AT, here);
    return new Slot(index, iterations, bytes(slot, SLOT_SALT_AT, SALT_BYTES), materialAt);
  }

  private static long iterations(String fileName, ByteBuffer in, int at, String what)
      throws CorruptImageException {
    long iterations = Integer.toUnsignedLong(in.getInt(at));
    if (iterations == 0) {
      throw new CorruptImageException(
          "%s: %s in its LUKS header has no iterations".formatted(fileName, what));
    }
    return iterations;
  }

  /** The cipher for people: {@code aes-256-xts-plain64}. */
  public String cipherText() {
    return cipher.text();
  }

  /** The hash by its name in the header. */
  public String hashText() {
    return hash.specName();
  }

  /** How many of the eight key slots are in use. */
  public int slotsUsed() {
    return slots.size();
  }

  /**
   * Finds the key with a passphrase.
   *
   * @throws WrongPassphraseException when the passphrase fits no slot
   * @throws IOException when no slot is in use, or {@code time} is over
   */
  public SectorCipher.Maker unlock(byte[] passphrase, KeyMaterial material, KeyTime time)
      throws IOException {
    return cipher.maker(find(passphrase, material, time, Set.of()).key());
  }

  /** A slot that a passphrase fits, and what is in it. */
  @SuppressWarnings("ArrayRecordComponent") // not compared
  public record Unlocked(int slot, byte[] key) {}

  /**
   * The first slot that the passphrase fits; they are tried in their order. The caller wipes the
   * key.
   *
   * @param except slots that are not tried
   * @throws WrongPassphraseException when it fits none of the others
   */
  public Unlocked find(byte[] passphrase, KeyMaterial material, KeyTime time, Set<Integer> except)
      throws IOException {
    for (Slot slot : slots) {
      if (!except.contains(slot.index())) {
        byte[] key = tryUnlock(slot, passphrase, material, time);
        boolean fits = false;
        try {
          fits = MessageDigest.isEqual(digestOf(key, time), digest);
        } finally {
          if (!fits) {
            Arrays.fill(key, (byte) 0);
          }
        }
        if (fits) {
          return new Unlocked(slot.index(), key);
        }
      }
    }
    if (slots.isEmpty()) {
      throw new IOException(
          fileName + ": no key slot of its LUKS header is in use, so no passphrase opens it");
    }
    throw new WrongPassphraseException(
        fileName + ": the passphrase is wrong: it fits none of the image's key slots");
  }

  /** Whether the slot is in use. */
  public boolean uses(int index) {
    return slots.stream().anyMatch(slot -> slot.index() == index);
  }

  /** Whether the other header has the same bytes. */
  public boolean same(LuksHeader other) {
    return bytes.equals(other.bytes);
  }

  /** Where the entry of a slot is, from the header's start; its first four bytes are its state. */
  public static int slotAt(int index) {
    return SLOTS_AT + index * SLOT_BYTES;
  }

  /** The state of a slot in use, or of a free one. */
  public static ByteBuffer state(boolean used) {
    return ByteBuffer.allocate(Integer.BYTES).putInt(used ? SLOT_USED : SLOT_UNUSED).flip();
  }

  /**
   * Where the slot's key material is, from the header's start, if nothing else is there.
   *
   * @throws CorruptImageException when a free slot has none that could be written to
   */
  public long materialAt(int index) throws CorruptImageException {
    long at = slot(fileName, bytes.slice(slotAt(index), SLOT_BYTES), index, 1).materialAt();
    for (Slot other : slots) {
      if (other.index() != index
          && at < other.materialAt() + materialBytes()
          && other.materialAt() < at + materialBytes()) {
        throw new CorruptImageException(
            "%s: the key material of key slots %d and %d of its LUKS header overlaps"
                .formatted(fileName, index, other.index()));
      }
    }
    return at;
  }

  private Slot slot(String name, ByteBuffer entry, int index, int iterations)
      throws CorruptImageException {
    ByteBuffer whole = ByteBuffer.allocate(SLOT_BYTES).put(entry).clear();
    if (whole.getInt(SLOT_ITERATIONS_AT) == 0) {
      whole.putInt(SLOT_ITERATIONS_AT, iterations); // a free slot may have none
    }
    return slot(name, whole, index, cipher.keyBytes(), areaBytes);
  }

  /** How long the key material of a slot is. */
  public int materialBytes() {
    return cipher.keyBytes() * STRIPES;
  }

  /** What a slot for another passphrase has, with this header's cipher and hash. */
  public LuksMaker.NewSlot newSlot(byte[] passphrase, byte[] key, int iterMillis)
      throws IOException {
    return LuksMaker.newSlot(hash, cipher, passphrase, key, iterMillis);
  }

  private byte[] tryUnlock(Slot slot, byte[] passphrase, KeyMaterial material, KeyTime time)
      throws IOException {
    byte[] slotKey =
        Pbkdf2.derive(hash, passphrase, slot.salt(), slot.iterations(), cipher.keyBytes(), time);
    byte[] split = new byte[cipher.keyBytes() * STRIPES];
    byte[] sectors =
        new byte[Math.ceilDiv(split.length, SectorCipher.SECTOR_BYTES) * SectorCipher.SECTOR_BYTES];
    try {
      material.read(slot.materialAt(), split);
      System.arraycopy(split, 0, sectors, 0, split.length);
      int count = sectors.length / SectorCipher.SECTOR_BYTES;
      cipher.maker(slotKey).make().decrypt(0, sectors, count);
      System.arraycopy(sectors, 0, split, 0, split.length);
      return AntiForensic.merge(hash, split, cipher.keyBytes(), STRIPES);
    } finally {
      Arrays.fill(slotKey, (byte) 0);
      Arrays.fill(sectors, (byte) 0);
      Arrays.fill(split, (byte) 0);
    }
  }

  private byte[] digestOf(byte[] key, KeyTime time) throws IOException {
    return Pbkdf2.derive(hash, key, digestSalt, digestIterations, DIGEST_BYTES, time);
  }

  private static byte[] bytes(ByteBuffer in, int at, int count) {
    byte[] bytes = new byte[count];
    in.get(at, bytes);
    return bytes;
  }

  /** A name that ends with its field or a zero; what a terminal might obey is left out. */
  private static String text(ByteBuffer in, int at) {
    StringBuilder text = new StringBuilder();
    for (byte c : bytes(in, at, NAME_BYTES)) {
      if (c == 0) {
        break;
      }
      text.append(c > ' ' && c < 0x7f ? (char) c : '?');
    }
    return text.toString();
  }

  static byte[] name(String text) {
    return Arrays.copyOf(text.getBytes(StandardCharsets.US_ASCII), NAME_BYTES);
  }
}
