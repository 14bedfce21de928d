package io.qnbd.image.crypt;

/**
 * Encrypts and decrypts whole 512-byte sectors in place, each by its number and so that its length
 * stays. Not thread-safe: whoever uses it has it alone.
 */
public interface SectorCipher {
  /** The unit of encryption in LUKS and in qcow2's older method. */
  int SECTOR_BYTES = 512;

  /** Encrypts {@code sectors} sectors from the array's start on. */
  void encrypt(long firstSector, byte[] bytes, int sectors);

  /** Decrypts {@code sectors} sectors from the array's start on. */
  void decrypt(long firstSector, byte[] bytes, int sectors);

  /** Makes ciphers with the same key, one for each user. Thread-safe. */
  @FunctionalInterface
  interface Maker {
    SectorCipher make();
  }
}
