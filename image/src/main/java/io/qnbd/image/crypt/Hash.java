package io.qnbd.image.crypt;

import java.security.MessageDigest;
import java.security.NoSuchAlgorithmException;
import java.util.Locale;
import org.jspecify.annotations.Nullable;

/** The hashes that a LUKS header may name, as far as Java has them. */
enum Hash {
  SHA1("SHA-1", 20, 64),
  SHA224("SHA-224", 28, 64),
  SHA256("SHA-256", 32, 64),
  SHA384("SHA-384", 48, 128),
  SHA512("SHA-512", 64, 128);

  private final String algorithm;
  private final int bytes;
  private final int blockBytes;

  Hash(String algorithm, int bytes, int blockBytes) {
    this.algorithm = algorithm;
    this.bytes = bytes;
    this.blockBytes = blockBytes;
  }

  /** The hash of that name in a header, or null. */
  static @Nullable Hash named(String name) {
    for (Hash hash : values()) {
      if (hash.specName().equals(name)) {
        return hash;
      }
    }
    return null;
  }

  /** The name as headers have it. */
  String specName() {
    return name().toLowerCase(Locale.ROOT);
  }

  /** The digest's length. */
  int bytes() {
    return bytes;
  }

  /** What it takes in at a time. */
  int blockBytes() {
    return blockBytes;
  }

  MessageDigest start() {
    try {
      return MessageDigest.getInstance(algorithm);
    } catch (NoSuchAlgorithmException e) {
      throw new AssertionError("every Java has " + algorithm, e);
    }
  }

  byte[] digest(byte[] message) {
    return start().digest(message);
  }
}
