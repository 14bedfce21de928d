package io.qnbd.image.crypt;

import java.util.Arrays;

/**
 * The method that qcow2 images had before LUKS (qcow2 specification, "Data encryption"): AES-128 in
 * CBC mode, the passphrase itself for a key, vectors from the disk's sector. It protects little, so
 * it is for reading only.
 */
public final class LegacyAes {
  private static final int KEY_BYTES = 16;

  private LegacyAes() {}

  /** Ciphers for a passphrase, of which 16 bytes count; one that is shorter ends in zeroes. */
  public static SectorCipher.Maker maker(byte[] passphrase) {
    byte[] key = Arrays.copyOf(passphrase, KEY_BYTES);
    return () -> new CbcCipher(key, SectorIv.of(SectorIv.Kind.PLAIN64, key, null));
  }
}
