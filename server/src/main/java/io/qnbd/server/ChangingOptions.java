package io.qnbd.server;

import io.qnbd.image.BackingPolicy;
import io.qnbd.image.ImageFormat;
import io.qnbd.image.OpenOptions;
import java.io.IOException;
import picocli.CommandLine.Mixin;
import picocli.CommandLine.Option;

/** The options of every command that changes what an image keeps beside its disk. */
final class ChangingOptions {
  @Option(
      names = "--backing-policy",
      paramLabel = "POLICY",
      defaultValue = "same-directory",
      description = {
        "Which backing files the image may name: none, same-directory or any, as for serve. "
            + "Default: ${DEFAULT-VALUE}."
      })
  private BackingPolicy backingPolicy = BackingPolicy.SAME_DIRECTORY;

  @Mixin private PassphraseOptions passphrase = new PassphraseOptions();

  @Option(
      names = {"-q", "--quiet"},
      description = "Say nothing when all is well.")
  private boolean quiet;

  OpenOptions open() throws IOException {
    return OpenOptions.DEFAULT
        .withFormat(ImageFormat.QCOW2)
        .withBackingPolicy(backingPolicy)
        .withPassphrase(passphrase.read());
  }

  /** Where the image's own passphrase comes from. */
  PassphraseOptions passphrase() {
    return passphrase;
  }

  BackingPolicy backingPolicy() {
    return backingPolicy;
  }

  boolean quiet() {
    return quiet;
  }
}
