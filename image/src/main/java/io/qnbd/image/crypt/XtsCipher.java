package io.qnbd.image.crypt;

import java.lang.invoke.MethodHandles;
import java.lang.invoke.VarHandle;
import java.nio.ByteOrder;
import java.util.Arrays;

/**
 * AES in XTS mode (IEEE 1619), a sector a data unit.
 *
 * <p>Block {@code j} of a sector is {@code E1(p ^ t) ^ t} with {@code t = E2(iv) * x^j} in
 * GF(2^128). All tweaks of many sectors are laid out first; then whole arrays are combined and go
 * through AES in one call, which is what the processor is good at.
 */
final class XtsCipher implements SectorCipher {
  /** 32 KiB of data and as much of tweaks stay near the processor. */
  private static final int SECTORS_MAX = 64;

  private static final VarHandle LONGS =
      MethodHandles.byteArrayViewVarHandle(long[].class, ByteOrder.LITTLE_ENDIAN);

  /** What x^128 is: x^7 + x^2 + x + 1. */
  private static final long REDUCTION = 0x87;

  private final Aes encryptor;
  private final Aes decryptor;
  private final Aes tweaker;
  private final SectorIv iv;
  private final byte[] vectors = new byte[SECTORS_MAX * Aes.BLOCK_BYTES];
  private final byte[] tweaks = new byte[SECTORS_MAX * SECTOR_BYTES];
  private final byte[] piece = new byte[SECTORS_MAX * SECTOR_BYTES];

  /**
   * A cipher of its own.
   *
   * @param key one half for the data, one for the tweaks
   */
  XtsCipher(byte[] key, SectorIv iv) {
    byte[] dataKey = Arrays.copyOf(key, key.length / 2);
    this.encryptor = Aes.encryptor(dataKey);
    this.decryptor = Aes.decryptor(dataKey);
    this.tweaker = Aes.encryptor(Arrays.copyOfRange(key, key.length / 2, key.length));
    this.iv = iv;
  }

  @Override
  public void encrypt(long firstSector, byte[] bytes, int sectors) {
    run(encryptor, firstSector, bytes, sectors);
  }

  @Override
  public void decrypt(long firstSector, byte[] bytes, int sectors) {
    run(decryptor, firstSector, bytes, sectors);
  }

  private void run(Aes aes, long firstSector, byte[] bytes, int sectors) {
    for (int done = 0; done < sectors; ) {
      int count = Math.min(SECTORS_MAX, sectors - done);
      layTweaks(firstSector + done, count);
      int at = done * SECTOR_BYTES;
      int length = count * SECTOR_BYTES;
      Aes.xor(bytes, at, tweaks, 0, length);
      // Into another array: in place the JDK would make a copy of its own.
      aes.blocks(bytes, at, length, piece, 0);
      Aes.xor(piece, 0, tweaks, 0, length);
      System.arraycopy(piece, 0, bytes, at, length);
      done += count;
    }
  }

  private void layTweaks(long firstSector, int sectors) {
    iv.fill(firstSector, sectors, vectors);
    tweaker.blocks(vectors, 0, sectors * Aes.BLOCK_BYTES);
    int at = 0;
    for (int sector = 0; sector < sectors; sector++) {
      long low = (long) LONGS.get(vectors, sector * Aes.BLOCK_BYTES);
      long high = (long) LONGS.get(vectors, sector * Aes.BLOCK_BYTES + Long.BYTES);
      for (int end = at + SECTOR_BYTES; at < end; at += Aes.BLOCK_BYTES) {
        LONGS.set(tweaks, at, low);
        LONGS.set(tweaks, at + Long.BYTES, high);
        long carry = high >> 63;
        high = high << 1 | low >>> 63;
        low = low << 1 ^ (carry & REDUCTION);
      }
    }
  }
}
