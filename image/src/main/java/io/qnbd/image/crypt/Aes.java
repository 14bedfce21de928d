package io.qnbd.image.crypt;

import java.security.GeneralSecurityException;
import javax.crypto.Cipher;
import javax.crypto.spec.SecretKeySpec;

/** The JDK's AES on whole blocks, which it runs on the processor's own instructions. */
final class Aes {
  static final int BLOCK_BYTES = 16;

  private final Cipher cipher;

  private Aes(Cipher cipher) {
    this.cipher = cipher;
  }

  static Aes encryptor(byte[] key) {
    return of(Cipher.ENCRYPT_MODE, key);
  }

  static Aes decryptor(byte[] key) {
    return of(Cipher.DECRYPT_MODE, key);
  }

  private static Aes of(int mode, byte[] key) {
    try {
      Cipher cipher = Cipher.getInstance("AES/ECB/NoPadding");
      cipher.init(mode, new SecretKeySpec(key, "AES"));
      return new Aes(cipher);
    } catch (GeneralSecurityException e) {
      throw new AssertionError("AES with a key of " + key.length + " bytes", e);
    }
  }

  /** Each block of {@code [at, at + count)} by itself, in place. */
  void blocks(byte[] bytes, int at, int count) {
    blocks(bytes, at, count, bytes, at);
  }

  /** Each block of {@code [at, at + count)} by itself. */
  void blocks(byte[] bytes, int at, int count, byte[] target, int targetAt) {
    try {
      cipher.update(bytes, at, count, target, targetAt);
    } catch (GeneralSecurityException e) {
      throw new AssertionError(count + " bytes of blocks", e);
    }
  }

  /** {@code target[i] ^= mask[i]} for {@code count} bytes. */
  static void xor(byte[] target, int targetAt, byte[] mask, int maskAt, int count) {
    for (int i = 0; i < count; i++) {
      target[targetAt + i] ^= mask[maskAt + i];
    }
  }
}
