package io.qnbd.server;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertNull;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import io.qnbd.image.CreateOptions;
import io.qnbd.image.ImageFormat;
import io.qnbd.image.Passphrase;
import io.qnbd.image.Preallocation;
import io.qnbd.image.RebaseOptions;
import java.nio.file.Path;
import org.jspecify.annotations.Nullable;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.ValueSource;

final class CreateSettingsTest {
  private static CreateOptions qcow2(String list, @Nullable Long bytes) {
    CreateSettings settings = new CreateSettings();
    if (!list.isEmpty()) {
      settings.addList(list);
    }
    return settings.toOptions(ImageFormat.QCOW2, bytes, null);
  }

  @Test
  void defaultsAreQemuImgs() {
    assertEquals(CreateOptions.qcow2(1 << 30), qcow2("", 1L << 30));
  }

  @Test
  void readsEveryProperty() {
    assertEquals(
        new CreateOptions(
            ImageFormat.QCOW2,
            1L << 20,
            2 << 20,
            3,
            64,
            true,
            true,
            Path.of("base.raw"),
            ImageFormat.RAW,
            Preallocation.METADATA),
        qcow2(
            "cluster_size=2M,compat=1.1,refcount_bits=64,lazy_refcounts=on,extended_l2=on,"
                + "preallocation=metadata,backing_file=base.raw,backing_fmt=raw",
            1L << 20));
    assertEquals(2, qcow2("compat=0.10", 1L).version());
    assertEquals(512, qcow2("cluster_size=512", 1L).clusterBytes());
  }

  @Test
  void takesTheBackingFilesSize() {
    CreateOptions options = qcow2("backing_file=base.qcow2,backing_fmt=qcow2", null);
    assertEquals(null, options.virtualBytes());
    assertThrows(UsageException.class, () -> qcow2("", null));
  }

  @ParameterizedTest
  @ValueSource(
      strings = {
        "cluster_size=3k",
        "cluster_size=256",
        "cluster_size=4M",
        "cluster_size=x",
        "compat=1.2",
        "refcount_bits=0",
        "refcount_bits=3",
        "refcount_bits=128",
        "refcount_bits=-1",
        "lazy_refcounts=maybe",
        "extended_l2=yes",
        "preallocation=some",
        "backing_file=base.qcow2",
        "backing_file=base.qcow2,backing_fmt=vmdk",
        "nonsense=1",
        "cluster_size",
        "compat=1.1,compat=1.1",
        "compat=1.1,"
      })
  void refusesWithASentence(String list) {
    UsageException refused = assertThrows(UsageException.class, () -> qcow2(list, 1L << 20));
    assertFalse(String.valueOf(refused.getMessage()).isBlank());
  }

  @Test
  void refusesQcow2PropertiesForARawImage() {
    for (String list : new String[] {"cluster_size=64k", "preallocation=metadata"}) {
      CreateSettings settings = new CreateSettings();
      settings.addList(list);
      String message =
          String.valueOf(
              assertThrows(
                      UsageException.class, () -> settings.toOptions(ImageFormat.RAW, 1L, null))
                  .getMessage());
      assertTrue(message.startsWith("a raw image has no "), message);
    }
    CreateSettings settings = new CreateSettings();
    settings.addList("preallocation=off");
    assertEquals(CreateOptions.raw(4096), settings.toOptions(ImageFormat.RAW, 4096L, null));
  }

  private static CreateSettings settings(String list) {
    CreateSettings settings = new CreateSettings();
    settings.addList(list);
    return settings;
  }

  @ParameterizedTest
  @ValueSource(
      strings = {
        "encrypt.iter-time=20",
        "encrypt.keyslot=1",
        "encrypt.state=inactive,encrypt.keyslot=1,encrypt.iter-time=20",
        "encrypt.state=inactive",
        "encrypt.state=active"
      })
  void refusesKeySlotsThatAreHalfSaid(String list) {
    assertThrows(UsageException.class, () -> settings(list).toAmendment(null, null, false));
  }

  @ParameterizedTest
  @ValueSource(
      strings = {
        "backing_file=base",
        "backing_fmt=raw",
        "backing_file=,backing_fmt=raw",
        "backing_file=base,backing_fmt=vmdk"
      })
  void refusesABackingFileThatIsHalfSaid(String list) {
    assertThrows(UsageException.class, () -> settings(list).toBackingName());
  }

  @Test
  void aNewNameOfTheBackingFileIsTakenUnseen() {
    assertEquals(
        new RebaseOptions("base", ImageFormat.RAW, true),
        settings("backing_file=base,backing_fmt=raw").toBackingName());
    assertEquals(new RebaseOptions(null, null, true), settings("backing_file=").toBackingName());
    assertNull(settings("compat=1.1").toBackingName());
  }

  @Test
  void aPassphraseIsForWhatIsEncrypted() {
    Passphrase passphrase = Passphrase.of(new byte[] {1});
    UsageException refused =
        assertThrows(
            UsageException.class,
            () -> settings("compat=1.1").toOptions(ImageFormat.QCOW2, 512L, passphrase));
    assertTrue(String.valueOf(refused.getMessage()).contains("-o encrypt.format=luks"));
    String overlay = "backing_file=base,backing_fmt=qcow2";
    assertTrue(settings(overlay).plainOverlay());
    assertFalse(settings(overlay + ",encrypt.format=luks").plainOverlay());
    assertFalse(settings("compat=1.1").plainOverlay());
  }
}
