package io.qnbd.image;

import java.io.IOException;
import java.io.InputStream;
import java.nio.file.AccessDeniedException;
import java.nio.file.Files;
import java.nio.file.NoSuchFileException;
import java.nio.file.Path;
import java.util.Arrays;

/**
 * What opens an encrypted image: bytes, taken as they are, as QEMU takes a secret's file. It is
 * never shown.
 */
public final class Passphrase {
  /** Far more than anyone types, and what a key file has. */
  private static final int BYTES_MAX = 64 << 10;

  private final byte[] bytes;

  private Passphrase(byte[] bytes) {
    this.bytes = bytes;
  }

  /** A copy of the bytes. */
  public static Passphrase of(byte[] bytes) {
    return new Passphrase(bytes.clone());
  }

  /** All that the file holds, a newline at its end included. */
  public static Passphrase read(Path file) throws IOException {
    try (InputStream in = Files.newInputStream(file)) {
      return read(in, "the passphrase file " + file);
    } catch (NoSuchFileException e) {
      throw new IOException("there is no passphrase file " + file, e);
    } catch (AccessDeniedException e) {
      throw new IOException("the passphrase file " + file + " may not be read", e);
    }
  }

  /**
   * All that the stream holds; it stays open.
   *
   * @param what names it in a message
   */
  public static Passphrase read(InputStream in, String what) throws IOException {
    byte[] bytes = in.readNBytes(BYTES_MAX + 1);
    if (bytes.length == 0) {
      throw new IOException(what + " is empty");
    }
    if (bytes.length > BYTES_MAX) {
      throw new IOException(what + " has more than " + BYTES_MAX + " bytes");
    }
    return new Passphrase(bytes);
  }

  /** A copy of the bytes. */
  public byte[] bytes() {
    return bytes.clone();
  }

  /** Whether it ends as text from an editor or {@code echo} does, which may not be meant. */
  public boolean endsWithNewline() {
    return bytes.length > 0 && bytes[bytes.length - 1] == '\n';
  }

  @Override
  public boolean equals(Object other) {
    return other instanceof Passphrase that && Arrays.equals(bytes, that.bytes);
  }

  @Override
  public int hashCode() {
    return Arrays.hashCode(bytes);
  }

  @Override
  public String toString() {
    return "a passphrase";
  }
}
