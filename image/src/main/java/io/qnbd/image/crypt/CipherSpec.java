package io.qnbd.image.crypt;

import org.jspecify.annotations.Nullable;

/** A cipher as a LUKS header names it: AES in XTS or CBC mode, with a way to make vectors. */
record CipherSpec(String name, String mode, int keyBytes) {

  /** Why this cipher is not one of ours, or null. */
  @Nullable String problem() {
    if (!name.equals("aes")) {
      return "the cipher " + name + ", expected aes";
    }
    if (!xts() && !mode.startsWith("cbc-")) {
      return "the cipher mode " + mode + ", expected xts or cbc";
    }
    if (ivKind() == null) {
      return "the vectors of " + mode + ", expected plain, plain64 or essiv with sha256";
    }
    int aesBytes = xts() && keyBytes % 2 == 0 ? keyBytes / 2 : keyBytes;
    if (aesBytes != 16 && aesBytes != 24 && aesBytes != 32) {
      return "a key of " + keyBytes + " bytes for " + mode;
    }
    return null;
  }

  private boolean xts() {
    return mode.startsWith("xts-");
  }

  private SectorIv.@Nullable Kind ivKind() {
    return switch (mode.substring(Math.min(4, mode.length()))) {
      case "plain" -> SectorIv.Kind.PLAIN;
      case "plain64" -> SectorIv.Kind.PLAIN64;
      case "essiv:sha256" -> SectorIv.Kind.ESSIV;
      default -> null;
    };
  }

  /** For people: {@code aes-256-xts-plain64}. */
  String text() {
    return name + "-" + (xts() ? keyBytes * 4 : keyBytes * 8) + "-" + mode;
  }

  /** Ciphers with that key; there must be no {@link #problem}. */
  SectorCipher.Maker maker(byte[] key) {
    SectorIv.Kind kind = ivKind();
    if (kind == null) {
      throw new AssertionError("no such vectors: " + mode);
    }
    return () -> {
      SectorIv iv = SectorIv.of(kind, key, Hash.SHA256);
      return xts() ? new XtsCipher(key, iv) : new CbcCipher(key, iv);
    };
  }
}
