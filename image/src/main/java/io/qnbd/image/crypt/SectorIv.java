package io.qnbd.image.crypt;

import java.util.Arrays;
import org.jspecify.annotations.Nullable;

/**
 * Makes each sector's initial vector of 16 bytes from its number (dm-crypt's names).
 *
 * <pre>
 * plain    the number's low 32 bits, little-endian, then zeroes
 * plain64  its 64 bits, little-endian, then zeroes
 * essiv    plain64, encrypted by a key that is a hash of the data's
 * </pre>
 */
final class SectorIv {
  /** As above. */
  enum Kind {
    PLAIN,
    PLAIN64,
    ESSIV
  }

  private final long mask;
  private final @Nullable Aes essiv;

  private SectorIv(long mask, @Nullable Aes essiv) {
    this.mask = mask;
    this.essiv = essiv;
  }

  /**
   * The vectors of that kind.
   *
   * @param hash what makes {@link Kind#ESSIV}'s key; null for the others
   */
  static SectorIv of(Kind kind, byte[] key, @Nullable Hash hash) {
    return switch (kind) {
      case PLAIN -> new SectorIv(0xffff_ffffL, null);
      case PLAIN64 -> new SectorIv(~0L, null);
      case ESSIV -> {
        if (hash == null) {
          throw new AssertionError("essiv without a hash");
        }
        yield new SectorIv(~0L, Aes.encryptor(hash.digest(key)));
      }
    };
  }

  /** Fills the first {@code sectors * 16} bytes. */
  void fill(long firstSector, int sectors, byte[] vectors) {
    int bytes = sectors * Aes.BLOCK_BYTES;
    Arrays.fill(vectors, 0, bytes, (byte) 0);
    for (int i = 0; i < sectors; i++) {
      long number = (firstSector + i) & mask;
      for (int at = 0; at < Long.BYTES; at++) {
        vectors[i * Aes.BLOCK_BYTES + at] = (byte) (number >>> (8 * at));
      }
    }
    if (essiv != null) {
      essiv.blocks(vectors, 0, bytes);
    }
  }
}
