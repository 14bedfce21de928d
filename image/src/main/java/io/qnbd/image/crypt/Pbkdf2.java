package io.qnbd.image.crypt;

import java.io.IOException;
import java.nio.ByteBuffer;
import java.security.DigestException;
import java.security.MessageDigest;
import java.util.Arrays;

/**
 * Makes a key from a passphrase, slowly (PKCS #5, RFC 8018, section 5.2, with HMAC).
 *
 * <p>The JDK has the same for passphrases that are text. This one takes any bytes, can be stopped,
 * and starts each HMAC from digests that have the padded key behind them already, so that a round
 * costs two blocks of the hash and not four.
 */
final class Pbkdf2 {
  private static final int ITERATIONS_PER_CHECK = 1 << 13;

  private final Hash hash;
  private final MessageDigest inner;
  private final MessageDigest outer;

  private Pbkdf2(Hash hash, byte[] passphrase) {
    this.hash = hash;
    byte[] key = passphrase.length > hash.blockBytes() ? hash.digest(passphrase) : passphrase;
    this.inner = keyed(hash, key, 0x36);
    this.outer = keyed(hash, key, 0x5c);
  }

  private static MessageDigest keyed(Hash hash, byte[] key, int pad) {
    byte[] block = Arrays.copyOf(key, hash.blockBytes());
    for (int i = 0; i < block.length; i++) {
      block[i] ^= (byte) pad;
    }
    MessageDigest digest = hash.start();
    digest.update(block);
    return digest;
  }

  static byte[] derive(
      Hash hash, byte[] passphrase, byte[] salt, long iterations, int bytes, KeyTime time)
      throws IOException {
    Pbkdf2 function = new Pbkdf2(hash, passphrase);
    byte[] derived = new byte[bytes];
    for (int block = 0; block * hash.bytes() < bytes; block++) {
      byte[] part = function.block(salt, block + 1, iterations, time);
      int at = block * hash.bytes();
      System.arraycopy(part, 0, derived, at, Math.min(part.length, bytes - at));
    }
    return derived;
  }

  private byte[] block(byte[] salt, int number, long iterations, KeyTime time) throws IOException {
    byte[] message =
        ByteBuffer.allocate(salt.length + Integer.BYTES).put(salt).putInt(number).array();
    byte[] round = new byte[hash.bytes()];
    hmac(message, round);
    byte[] sum = round.clone();
    for (long i = 1; i < iterations; i++) {
      hmac(round, round);
      Aes.xor(sum, 0, round, 0, sum.length);
      if (i % ITERATIONS_PER_CHECK == 0) {
        time.check();
      }
    }
    return sum;
  }

  private void hmac(byte[] message, byte[] target) {
    try {
      MessageDigest digest = (MessageDigest) inner.clone();
      digest.update(message);
      digest.digest(target, 0, target.length);
      digest = (MessageDigest) outer.clone();
      digest.update(target);
      digest.digest(target, 0, target.length);
    } catch (CloneNotSupportedException | DigestException e) {
      throw new AssertionError("the JDK's digests can be copied", e);
    }
  }
}
