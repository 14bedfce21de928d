package io.qnbd.image.disk;

import io.qnbd.image.CorruptImageException;
import io.qnbd.image.Passphrase;
import io.qnbd.image.crypt.KeyTime;
import io.qnbd.image.crypt.LegacyAes;
import io.qnbd.image.crypt.LuksHeader;
import io.qnbd.image.crypt.SectorCipher;
import io.qnbd.image.format.Header;
import io.qnbd.image.format.HeaderExtension;
import io.qnbd.image.io.Storage;
import java.io.IOException;
import java.nio.ByteBuffer;
import java.util.Arrays;
import java.util.concurrent.TimeUnit;
import org.jspecify.annotations.Nullable;

/** Opens an encrypted image with its passphrase. */
final class Encryption {
  /**
   * An image says how slow its key is to derive. QEMU makes that 2 s where the image is made; this
   * leaves room for slower machines and several slots, and lets no image hang the program.
   */
  private static final long KEY_SECONDS_MAX = 30;

  /** QEMU's has 2 MiB; more than this is no LUKS header of version 1. */
  private static final long HEADER_BYTES_MAX = 16 << 20;

  private Encryption() {}

  /** The ciphers for the image's data; null if it is not encrypted. */
  static SectorCipher.@Nullable Maker open(
      Storage file, Header header, @Nullable Passphrase passphrase) throws IOException {
    if (header.cryptMethod() == Header.CRYPT_NONE) {
      return null;
    }
    Passphrase given = require(file, header, passphrase);
    return switch (header.cryptMethod()) {
      case Header.CRYPT_AES -> LegacyAes.maker(given.bytes());
      case Header.CRYPT_LUKS -> unlock(file, header, given);
      default -> throw new AssertionError("method " + header.cryptMethod() + " was let through");
    };
  }

  /** Throws if there is none. */
  static Passphrase require(Storage file, Header header, @Nullable Passphrase passphrase)
      throws IOException {
    if (passphrase == null) {
      throw new IOException(
          ("%s: is encrypted (%s): give its passphrase with --passphrase-file or --passphrase-fd,"
                  + " or with --source-passphrase-file if it is a command's source and"
                  + " --second-passphrase-file if it is compare's second image")
              .formatted(file.name(), header.encryptionName()));
    }
    return passphrase;
  }

  private static SectorCipher.Maker unlock(Storage file, Header header, Passphrase passphrase)
      throws IOException {
    Area area = area(file, header);
    byte[] bytes = passphrase.bytes();
    try {
      return area.luks().unlock(bytes, area::read, deadline(file.name()));
    } catch (LuksHeader.WrongPassphraseException e) {
      throw wrong(e, passphrase);
    } finally {
      Arrays.fill(bytes, (byte) 0);
    }
  }

  /** The same with what is so often the reason. */
  static IOException wrong(LuksHeader.WrongPassphraseException e, Passphrase passphrase) {
    return passphrase.endsWithNewline() ? wrong(e, String.valueOf(e.getMessage()), passphrase) : e;
  }

  /** The same with another sentence. */
  static IOException wrong(
      LuksHeader.WrongPassphraseException e, String sentence, Passphrase passphrase) {
    String why =
        passphrase.endsWithNewline()
            ? " (it ends with a newline, which counts: printf makes none)"
            : "";
    return new IOException(sentence + why, e);
  }

  /** The LUKS header of an image, and where it is in the file. */
  record Area(Storage file, long at, LuksHeader luks) {
    void read(long inArea, byte[] target) throws IOException {
      file.read(at + inArea, ByteBuffer.wrap(target));
    }
  }

  /** Finds the LUKS header of an image that has one. */
  static Area area(Storage file, Header header) throws IOException {
    HeaderExtension extension = header.extension(HeaderExtension.ENCRYPTION_HEADER);
    if (extension == null || extension.data().remaining() != 2 * Long.BYTES) {
      throw new CorruptImageException(
          file.name() + ": is encrypted (luks), but its header does not say where its key is");
    }
    long at = extension.data().getLong(0);
    long bytes = extension.data().getLong(Long.BYTES);
    if (at <= 0
        || at % header.clusterBytes() != 0
        || bytes < LuksHeader.BYTES
        || bytes > HEADER_BYTES_MAX
        || at > file.length() - bytes) {
      throw new CorruptImageException(
          "%s: its LUKS header is said to be %d bytes at 0x%x, expected %d to %d, in whole clusters"
                  .formatted(file.name(), bytes, at, LuksHeader.BYTES, HEADER_BYTES_MAX)
              + " inside the file");
    }
    ByteBuffer start = ByteBuffer.allocate(LuksHeader.BYTES);
    file.read(at, start);
    return new Area(file, at, LuksHeader.parse(file.name(), start.flip(), bytes));
  }

  static KeyTime deadline(String name) {
    long start = System.nanoTime();
    return () -> {
      if (System.nanoTime() - start > TimeUnit.SECONDS.toNanos(KEY_SECONDS_MAX)) {
        throw new IOException(
            "%s: its LUKS header asks for more than %d s of work to try a passphrase"
                .formatted(name, KEY_SECONDS_MAX));
      }
    };
  }
}
