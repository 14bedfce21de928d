package io.qnbd.server;

import io.qnbd.image.Passphrase;
import java.io.IOException;
import java.io.InputStream;
import java.nio.file.Files;
import java.nio.file.Path;
import org.jspecify.annotations.Nullable;
import picocli.CommandLine.Option;

/**
 * Where a command gets an encrypted image's passphrase. Never from its own command line, which
 * every user of the machine can read.
 */
final class PassphraseOptions {
  @Option(
      names = "--passphrase-file",
      paramLabel = "PATH",
      description = {
        "Take an encrypted image's passphrase from this file: all of its bytes, a newline at its "
            + "end included, as QEMU does."
      })
  private @Nullable Path file;

  @Option(
      names = "--passphrase-fd",
      paramLabel = "N",
      description = "The same from this open file descriptor, such as a pipe.")
  private @Nullable Integer descriptor;

  /** The passphrase, or null when none was given. */
  @Nullable Passphrase read() throws IOException {
    return read("--passphrase", file, descriptor);
  }

  /** The same for the image that a command reads beside the one that it writes. */
  static final class OfSource {
    @Option(
        names = "--source-passphrase-file",
        paramLabel = "PATH",
        description = "Take the passphrase of an encrypted source from this file, likewise.")
    private @Nullable Path file;

    @Option(
        names = "--source-passphrase-fd",
        paramLabel = "N",
        description = "The same from this open file descriptor.")
    private @Nullable Integer descriptor;

    /** The passphrase, or null when none was given; {@code other} is the image that is written. */
    @Nullable Passphrase read(PassphraseOptions other) throws IOException {
      other.requireAnother("--source-passphrase", descriptor);
      return read();
    }

    /** The passphrase, or null when none was given. */
    @Nullable Passphrase read() throws IOException {
      return PassphraseOptions.read("--source-passphrase", file, descriptor);
    }
  }

  /** The same for the second of two images that a command reads. */
  static final class OfSecond {
    @Option(
        names = "--second-passphrase-file",
        paramLabel = "PATH",
        description = "Take SECOND's passphrase from this file, likewise.")
    private @Nullable Path file;

    @Option(
        names = "--second-passphrase-fd",
        paramLabel = "N",
        description = "The same from this open file descriptor.")
    private @Nullable Integer descriptor;

    /** The passphrase, or null when none was given; {@code other} is FIRST's. */
    @Nullable Passphrase read(PassphraseOptions other) throws IOException {
      other.requireAnother("--second-passphrase", descriptor);
      return PassphraseOptions.read("--second-passphrase", file, descriptor);
    }
  }

  /** The passphrases that {@code amend} adds and removes. */
  static final class OfSlots {
    @Option(
        names = "--new-passphrase-file",
        paramLabel = "PATH",
        description = "With encrypt.state=active: the passphrase that is to open the image too.")
    private @Nullable Path newFile;

    @Option(
        names = "--new-passphrase-fd",
        paramLabel = "N",
        description = "The same from this open file descriptor.")
    private @Nullable Integer newDescriptor;

    @Option(
        names = "--old-passphrase-file",
        paramLabel = "PATH",
        description = {
          "With encrypt.state=inactive: the passphrase that is to open the image no more."
        })
    private @Nullable Path oldFile;

    @Option(
        names = "--old-passphrase-fd",
        paramLabel = "N",
        description = "The same from this open file descriptor.")
    private @Nullable Integer oldDescriptor;

    /** The one that comes, or null when none was given; {@code other} opens the image. */
    @Nullable Passphrase readNew(PassphraseOptions other) throws IOException {
      other.requireAnother("--new-passphrase", newDescriptor);
      return read("--new-passphrase", newFile, newDescriptor);
    }

    /** The one that goes, or null when none was given; {@code other} opens the image. */
    @Nullable Passphrase readOld(PassphraseOptions other) throws IOException {
      other.requireAnother("--old-passphrase", oldDescriptor);
      return read("--old-passphrase", oldFile, oldDescriptor);
    }
  }

  /** A pipe gives what it has once: whoever read it second would find it empty. */
  private void requireAnother(String option, @Nullable Integer theirs) {
    if (theirs != null && theirs.equals(descriptor)) {
      throw new UsageException(
          "--passphrase-fd and %s-fd are both %d: each needs a descriptor of its own"
              .formatted(option, theirs));
    }
  }

  private static @Nullable Passphrase read(
      String option, @Nullable Path file, @Nullable Integer descriptor) throws IOException {
    if (file != null && descriptor != null) {
      throw new UsageException("%s-file and %s-fd exclude one another".formatted(option, option));
    }
    if (descriptor != null) {
      return readDescriptor(option, descriptor);
    }
    return file == null ? null : Passphrase.read(file);
  }

  /** All that the descriptor of this process has to give. */
  static Passphrase readDescriptor(int descriptor) throws IOException {
    return readDescriptor("--passphrase", descriptor);
  }

  private static Passphrase readDescriptor(String option, int descriptor) throws IOException {
    String what = "file descriptor " + descriptor;
    if (descriptor < 0) {
      throw new UsageException("%s-fd is %d, expected 0 or more".formatted(option, descriptor));
    }
    InputStream opened;
    try {
      opened = Files.newInputStream(Path.of("/proc/self/fd/" + descriptor));
    } catch (IOException e) {
      throw new IOException(what + ", for the passphrase, can't be read", e);
    }
    try (opened) {
      return Passphrase.read(opened, what);
    }
  }
}
