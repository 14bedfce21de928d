package io.qnbd.image.crypt;

import java.security.MessageDigest;
import java.security.SecureRandom;
import java.util.Arrays;

/**
 * Blows a key up into stripes, all of which are needed to have it back, so that a disk which keeps
 * an old copy of a part does not keep the key (LUKS On-Disk Format, "Anti-forensic splitter").
 */
final class AntiForensic {
  private AntiForensic() {}

  static byte[] split(Hash hash, byte[] key, int stripes, SecureRandom random) {
    byte[] split = new byte[key.length * stripes];
    random.nextBytes(split);
    int last = split.length - key.length;
    byte[] sum = fold(hash, split, key.length, stripes);
    Aes.xor(sum, 0, key, 0, key.length);
    System.arraycopy(sum, 0, split, last, key.length);
    return split;
  }

  static byte[] merge(Hash hash, byte[] split, int keyBytes, int stripes) {
    byte[] key = fold(hash, split, keyBytes, stripes);
    Aes.xor(key, 0, split, split.length - keyBytes, keyBytes);
    return key;
  }

  /** All stripes but the last, each combined with what came before and then diffused. */
  private static byte[] fold(Hash hash, byte[] split, int keyBytes, int stripes) {
    byte[] sum = new byte[keyBytes];
    for (int stripe = 0; stripe < stripes - 1; stripe++) {
      Aes.xor(sum, 0, split, stripe * keyBytes, keyBytes);
      diffuse(hash, sum);
    }
    return sum;
  }

  /** Replaces each digest-sized part by the digest of its number and itself. */
  private static void diffuse(Hash hash, byte[] bytes) {
    MessageDigest digest = hash.start();
    for (int at = 0, number = 0; at < bytes.length; at += hash.bytes(), number++) {
      int count = Math.min(hash.bytes(), bytes.length - at);
      for (int shift = 24; shift >= 0; shift -= 8) {
        digest.update((byte) (number >>> shift));
      }
      digest.update(bytes, at, count);
      System.arraycopy(Arrays.copyOf(digest.digest(), count), 0, bytes, at, count);
    }
  }
}
