package io.qnbd.image.crypt;

/** AES in CBC mode, each sector a chain of its own from its initial vector. */
final class CbcCipher implements SectorCipher {
  private static final int SECTORS_MAX = 64;

  private final Aes encryptor;
  private final Aes decryptor;
  private final SectorIv iv;
  private final byte[] vectors = new byte[SECTORS_MAX * Aes.BLOCK_BYTES];
  private final byte[] piece = new byte[SECTORS_MAX * SECTOR_BYTES];

  CbcCipher(byte[] key, SectorIv iv) {
    this.encryptor = Aes.encryptor(key);
    this.decryptor = Aes.decryptor(key);
    this.iv = iv;
  }

  /** A block needs the one before it, so they go through AES one by one. */
  @Override
  public void encrypt(long firstSector, byte[] bytes, int sectors) {
    for (int done = 0; done < sectors; ) {
      int count = Math.min(SECTORS_MAX, sectors - done);
      iv.fill(firstSector + done, count, vectors);
      for (int sector = 0; sector < count; sector++) {
        int at = (done + sector) * SECTOR_BYTES;
        Aes.xor(bytes, at, vectors, sector * Aes.BLOCK_BYTES, Aes.BLOCK_BYTES);
        encryptor.blocks(bytes, at, Aes.BLOCK_BYTES);
        for (int block = at + Aes.BLOCK_BYTES; block < at + SECTOR_BYTES; ) {
          Aes.xor(bytes, block, bytes, block - Aes.BLOCK_BYTES, Aes.BLOCK_BYTES);
          encryptor.blocks(bytes, block, Aes.BLOCK_BYTES);
          block += Aes.BLOCK_BYTES;
        }
      }
      done += count;
    }
  }

  @Override
  public void decrypt(long firstSector, byte[] bytes, int sectors) {
    for (int done = 0; done < sectors; ) {
      int count = Math.min(SECTORS_MAX, sectors - done);
      iv.fill(firstSector + done, count, vectors);
      int from = done * SECTOR_BYTES;
      decryptor.blocks(bytes, from, count * SECTOR_BYTES, piece, 0);
      for (int sector = 0; sector < count; sector++) {
        int at = sector * SECTOR_BYTES;
        Aes.xor(piece, at, vectors, sector * Aes.BLOCK_BYTES, Aes.BLOCK_BYTES);
        int rest = SECTOR_BYTES - Aes.BLOCK_BYTES;
        Aes.xor(piece, at + Aes.BLOCK_BYTES, bytes, from + at, rest);
      }
      System.arraycopy(piece, 0, bytes, from, count * SECTOR_BYTES);
      done += count;
    }
  }
}
