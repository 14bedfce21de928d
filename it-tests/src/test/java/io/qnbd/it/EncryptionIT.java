package io.qnbd.it;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertTrue;

import java.io.IOException;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;
import java.util.regex.Pattern;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.ValueSource;

/** Encrypted images that QEMU and qnbd make and write, each for the other. */
final class EncryptionIT {
  private static final String SECRET = "correct horse 7!";

  /** A directory with a passphrase in it. */
  private record Place(Images images, Path key) implements AutoCloseable {
    static Place make() throws IOException {
      Images images = Images.inMemory();
      return new Place(images, Files.writeString(images.path("key"), SECRET));
    }

    private String secret() {
      return "secret,id=s,file=" + key;
    }

    Path byQemu(String name, String options) {
      Path image = images.path(name);
      for (int attempt = 1; ; attempt++) {
        Shell.Result made =
            Shell.run(
                "qemu-img",
                "create",
                "-q",
                "-f",
                "qcow2",
                "--object",
                secret(),
                "-o",
                options + ",encrypt.key-secret=s",
                image.toString(),
                "24M");
        // On a busy machine QEMU may fail to measure how fast it derives keys.
        if (attempt == 10 || !made.err().contains("accurate CPU usage")) {
          made.mustExit(0);
          return image;
        }
      }
    }

    private String opened(Path image, String format) {
      return "driver=qcow2,encrypt.format=%s,encrypt.key-secret=s,file.filename=%s"
          .formatted(format, image);
    }

    /** Runs qemu-io's commands on the image itself. */
    void qemuIo(Path image, String... commands) {
      List<String> line = new ArrayList<>(List.of("qemu-io", "--object", secret()));
      for (String command : commands) {
        line.addAll(List.of("-c", command));
      }
      line.addAll(List.of("--image-opts", opened(image, "luks")));
      mustFindItsPatterns(Shell.run(line.toArray(String[]::new)));
    }

    /** By QEMU, which wants the passphrase for it, and by us, who don't. */
    void mustBeClean(Path image) {
      Shell.check("qemu-img", "check", "--object", secret(), "--image-opts", opened(image, "luks"));
      QnbdProcess.run("check", image.toString()).mustExit(0);
    }

    QnbdProcess serve(String... arguments) {
      List<String> all = new ArrayList<>(List.of("--passphrase-file", key.toString()));
      all.addAll(List.of(arguments));
      return QnbdProcess.serve(all.toArray(String[]::new));
    }

    @Override
    public void close() {
      images.close();
    }
  }

  /** Runs qemu-io's commands on an export. */
  private static void overNbd(QnbdProcess qnbd, String... commands) {
    List<String> line = new ArrayList<>(List.of("qemu-io", "-f", "raw"));
    for (String command : commands) {
      line.addAll(List.of("-c", command));
    }
    line.add(qnbd.uri().toString());
    mustFindItsPatterns(Shell.run(line.toArray(String[]::new)));
  }

  private static void mustFindItsPatterns(Shell.Result result) {
    result.mustExit(0);
    assertFalse(
        result.out().contains("failed") || result.out().contains("error"), result.toString());
  }

  @ParameterizedTest
  @ValueSource(
      strings = {
        "encrypt.format=luks,encrypt.iter-time=20",
        "encrypt.format=luks,encrypt.iter-time=20,cluster_size=4096,encrypt.cipher-alg=aes-128,"
            + "encrypt.hash-alg=sha512",
        "encrypt.format=luks,encrypt.iter-time=20,encrypt.cipher-mode=cbc,encrypt.ivgen-alg=essiv,"
            + "encrypt.ivgen-hash-alg=sha256,encrypt.hash-alg=sha1",
      })
  void qemusImagesAreReadAndWritten(String options) throws IOException {
    try (Place place = Place.make()) {
      Path image = place.byQemu("disk.qcow2", options);
      place.qemuIo(image, "write -P 0x11 0 300k", "write -P 0x22 5M 1M", "write -z 5500k 100k");
      try (QnbdProcess qnbd = place.serve(image.toString())) {
        overNbd(
            qnbd,
            "read -P 0x11 0 300k",
            "read -P 0x22 5M 380k",
            "read -P 0 5500k 100k",
            "read -P 0 8M 1M",
            "write -P 0x33 100k 1536", // in place
            "write -P 0x44 9000k 700", // into a new cluster, sectors in part
            "write -P 0x55 5520k 4k", // over zeroes
            "discard 0 64k",
            "read -P 0 9000700 300",
            "flush");
        qnbd.stop();
      }
      place.mustBeClean(image);
      place.qemuIo(
          image,
          "read -P 0 0 64k",
          "read -P 0x11 64k 36k",
          "read -P 0x33 100k 1536",
          "read -P 0x11 103936 203264",
          "read -P 0 8960k 40k",
          "read -P 0x44 9000k 700",
          "read -P 0 9216700 3000",
          "read -P 0 5500k 20k",
          "read -P 0x55 5520k 4k",
          "read -P 0 5524k 20k");
    }
  }

  @Test
  void qemuReadsAndWritesOurs() throws IOException {
    try (Place place = Place.make()) {
      Path image = place.images().path("ours.qcow2");
      String make =
          "%s create --encrypt luks -o encrypt.iter-time=20 --passphrase-fd 7 %s 24M 7< %s"
              .formatted(QnbdProcess.launcher(), image, place.key());
      Shell.check("bash", "-c", make);
      place.qemuIo(image, "write -P 0x61 1M 200k", "read -P 0 0 1M");
      assertEquals(
          "qcow2 luks sha256 aes-256 xts",
          Shell.check(
                  "bash",
                  "-c",
                  "qemu-img info --output=json %s | python3 -c 'import json,sys; ".formatted(image)
                      + "i=json.load(sys.stdin); e=i[\"format-specific\"][\"data\"][\"encrypt\"]; "
                      + "print(i[\"format\"], e[\"format\"], e[\"hash-alg\"], e[\"cipher-alg\"], "
                      + "e[\"cipher-mode\"])'")
              .strip());
      QnbdProcess.run(
              "snapshot", "create", "--passphrase-file", place.key().toString(), "" + image, "s")
          .mustExit(0);
      try (QnbdProcess qnbd = place.serve(image.toString())) {
        overNbd(qnbd, "read -P 0x61 1M 200k", "write -P 0x62 1100k 10k", "read -P 0x61 1M 76k");
        String visible = Shell.check("ps", "axww") + qnbd.errors();
        assertFalse(visible.contains(SECRET), "the passphrase can be seen");
        qnbd.stop();
      }
      place.mustBeClean(image);
      place.qemuIo(
          image, "read -P 0x61 1M 76k", "read -P 0x62 1100k 10k", "read -P 0x61 1110k 66k");
      try (QnbdProcess qnbd = place.serve("--snapshot", "s", image.toString())) {
        String uri = qnbd.uri().toString();
        mustFindItsPatterns(
            Shell.run("qemu-io", "-r", "-f", "raw", "-c", "read -P 0x61 1M 200k", uri));
        qnbd.stop();
      }
      // What is on the disk is not what the guest wrote.
      String bytes = new String(Files.readAllBytes(image), StandardCharsets.ISO_8859_1);
      assertFalse(bytes.contains("a".repeat(64)) || bytes.contains("b".repeat(64)));
    }
  }

  @Test
  void aWrongPassphraseIsOneSentence() throws IOException {
    try (Place place = Place.make()) {
      Path image = place.byQemu("disk.qcow2", "encrypt.format=luks,encrypt.iter-time=20");
      Path wrong = Files.writeString(place.images().path("wrong"), SECRET + "\n");
      assertRefused(
          "fits none of the image's key slots (it ends with a newline, which counts",
          "serve",
          "--passphrase-file",
          wrong.toString(),
          image.toString());
      assertRefused("is encrypted (luks): give its passphrase", "serve", image.toString());
      assertRefused(
          "there is no passphrase file",
          "serve",
          "--passphrase-file",
          wrong + "x",
          image.toString());
      Path plain = place.images().qcow2("plain.qcow2", "1M");
      assertRefused(
          "is not encrypted, but a passphrase was given",
          "serve",
          "--passphrase-file",
          place.key().toString(),
          plain.toString());
    }
  }

  private static void assertRefused(String sentence, String... arguments) {
    Shell.Result result = QnbdProcess.run(arguments).mustExit(1);
    assertTrue(result.err().contains(sentence), result.toString());
    assertEquals(1, result.err().strip().lines().count(), result.toString());
    assertFalse(result.err().contains(SECRET), result.toString());
  }

  @Test
  void theOlderMethodIsReadOnly() throws IOException {
    try (Place place = Place.make()) {
      Path raw = place.images().rawOfNoise("noise", 24 << 20, 5);
      Path image = place.byQemu("old.qcow2", "encrypt.format=aes,cluster_size=4096");
      Shell.check(
          "qemu-img",
          "convert",
          "-n",
          "--object",
          place.secret(),
          "-f",
          "raw",
          "--target-image-opts",
          raw.toString(),
          place.opened(image, "aes"));
      try (QnbdProcess qnbd = place.serve("--read-only", image.toString())) {
        Shell.check("qemu-img", "compare", "-f", "raw", "-F", "raw", "" + raw, "" + qnbd.uri());
        qnbd.stop();
      }
      assertRefused("is read only", "serve", "--passphrase-file", "" + place.key(), "" + image);
    }
  }

  @Test
  void aConfigurationNamesTheFileAndABackingFileHasTheSamePassphrase() throws IOException {
    try (Place place = Place.make()) {
      Path base = place.byQemu("base.qcow2", "encrypt.format=luks,encrypt.iter-time=20");
      place.qemuIo(base, "write -P 0x31 0 1M");
      Path top = place.images().path("top.qcow2");
      QnbdProcess.run("create", "-b", "base.qcow2", "-F", "qcow2", top.toString()).mustExit(0);
      Path config =
          Files.writeString(
              place.images().path("q.toml"),
              "[export.disk]\npath = 'top.qcow2'\npassphrase-file = 'key'\n");
      try (QnbdProcess qnbd = QnbdProcess.serve("--config", config.toString())) {
        String uri = qnbd.uri("disk").toString();
        mustFindItsPatterns(
            Shell.run(
                "qemu-io", "-f", "raw", "-c", "read -P 0x31 0 1M", "-c", "write -P 1 0 5k", uri));
        qnbd.stop();
      }
      QnbdProcess.run("check", top.toString()).mustExit(0);
    }
  }

  @Test
  void resizesAndRebasesWithThePassphrase() throws IOException {
    try (Place place = Place.make()) {
      Path image = place.byQemu("disk.qcow2", "encrypt.format=luks,encrypt.iter-time=20");
      place.qemuIo(image, "write -P 7 0 1M");
      String key = place.key().toString();
      QnbdProcess.run("resize", image.toString(), "32M").mustExit(1);
      QnbdProcess.run("resize", "--passphrase-file", key, image.toString(), "32M").mustExit(0);
      place.qemuIo(image, "read -P 7 0 1M", "read -P 0 31M 1M");
      Path base = place.images().qcow2("base.qcow2", "32M");
      Shell.check("qemu-io", "-f", "qcow2", "-c", "write -P 9 0 32M", base.toString());
      QnbdProcess.run(
              "rebase",
              "--passphrase-file",
              key,
              "-b",
              "base.qcow2",
              "-F",
              "qcow2",
              image.toString())
          .mustExit(0);
      place.qemuIo(image, "read -P 7 0 1M", "read -P 0 1M 31M");
      place.mustBeClean(image);
    }
  }

  @Test
  void disksAreConvertedIntoEncryptedOnesAndBack() throws IOException {
    try (Place place = Place.make()) {
      String options = "encrypt.format=luks,encrypt.iter-time=20";
      Path source = place.byQemu("source.qcow2", options);
      place.qemuIo(source, "write -P 0x11 0 300k", "write -P 0x22 5M 1M");
      String key = place.key().toString();
      Path plain = place.images().path("plain.raw");
      QnbdProcess.run(
              "convert", "--source-passphrase-file", key, source.toString(), plain.toString())
          .mustExit(0);
      Shell.check("qemu-io", "-f", "raw", "-c", "read -P 0x22 5M 1M", plain.toString());
      Path again = place.images().path("again.qcow2");
      QnbdProcess.run(
              "convert",
              "-o",
              options,
              "--passphrase-file",
              key,
              plain.toString(),
              again.toString())
          .mustExit(0);
      place.mustBeClean(again);
      place.qemuIo(again, "read -P 0x11 0 300k", "read -P 0x22 5M 1M", "read -P 0 8M 1M");
      BadInputIT.assertRefused(
          QnbdProcess.run("convert", source.toString(), place.images().path("x.raw").toString()),
          1,
          "--source-passphrase-file");
      BadInputIT.assertRefused(
          QnbdProcess.run(
              "convert",
              "--force",
              "--source-passphrase-file",
              key,
              plain.toString(),
              again.toString()),
          1,
          "is not encrypted");
    }
  }

  @Test
  void disksAreComparedAndMeasuredAsQemuDoes() throws IOException {
    try (Place place = Place.make()) {
      String options = "encrypt.format=luks,encrypt.iter-time=20";
      Path key = Files.writeString(place.images().path("key2"), "another one");
      Place other = new Place(place.images(), key);
      Path first = place.byQemu("first.qcow2", options);
      Path second = other.byQemu("second.qcow2", options);
      place.qemuIo(first, "write -P 0x11 0 300k", "write -P 0x22 5M 1M");
      other.qemuIo(second, "write -P 0x11 0 300k", "write -P 0x22 5M 1M");
      mustCompare(0, place, other, first, second);
      other.qemuIo(second, "write -P 0x23 5100k 512");
      mustCompare(1, place, other, first, second);
      mustCompare(2, other, place, first, second);
      BadInputIT.assertRefused(
          QnbdProcess.run(
              "compare", "--passphrase-file", "" + place.key(), "" + first, "" + second),
          2,
          "--second-passphrase-file");
      String measured =
          QnbdProcess.run(
                  "measure",
                  "--json",
                  "-O",
                  "qcow2",
                  "--source-passphrase-file",
                  "" + place.key(),
                  "" + first)
              .mustExit(0)
              .out();
      String byQemu =
          Shell.check(
              "qemu-img",
              "measure",
              "--output=json",
              "-O",
              "qcow2",
              "--object",
              place.secret(),
              "--image-opts",
              place.opened(first, "luks"));
      assertEquals(numbers(byQemu), numbers(measured), byQemu + measured);
    }
  }

  /** In ascending order, without those that are zero: only QEMU says that there are no bitmaps. */
  private static List<Long> numbers(String json) {
    return Pattern.compile("[0-9]+")
        .matcher(json)
        .results()
        .map(number -> Long.valueOf(number.group()))
        .filter(number -> number > 0)
        .sorted()
        .toList();
  }

  /** By us, and by QEMU. */
  private static void mustCompare(int exit, Place firsts, Place seconds, Path first, Path second) {
    QnbdProcess.run(
            "compare",
            "--passphrase-file",
            "" + firsts.key(),
            "--second-passphrase-file",
            "" + seconds.key(),
            "" + first,
            "" + second)
        .mustExit(exit);
    Shell.run(
            "qemu-img",
            "compare",
            "--object",
            firsts.secret(),
            "--object",
            "secret,id=t,file=" + seconds.key(),
            "--image-opts",
            firsts.opened(first, "luks"),
            seconds.opened(second, "luks").replace("key-secret=s", "key-secret=t"))
        .mustExit(exit);
  }

  @Test
  void anOverlayIsCommittedAndQemuReadsItInTheBackingFile() throws IOException {
    try (Place place = Place.make()) {
      String options = "encrypt.format=luks,encrypt.iter-time=20";
      String[] key = {"--passphrase-file", place.key().toString()};
      Path base = place.byQemu("base.qcow2", options);
      place.qemuIo(base, "write -P 0x11 0 300k", "write -P 0x22 5M 1M");
      Path top = place.images().path("top.qcow2");
      List<String> making = new ArrayList<>(List.of("create", key[0], key[1], "-o", options));
      making.addAll(List.of("-b", "base.qcow2", "-F", "qcow2", top.toString()));
      QnbdProcess.run(making.toArray(String[]::new)).mustExit(0);
      try (QnbdProcess qnbd = place.serve(top.toString())) {
        overNbd(qnbd, "write -P 0x33 200k 150k", "write -z 5M 100k", "write -P 0x44 20M 700");
        qnbd.stop();
      }
      BadInputIT.assertRefused(QnbdProcess.run("commit", top.toString()), 1, "is encrypted (luks)");
      QnbdProcess.run("commit", key[0], key[1], top.toString()).mustExit(0);
      place.qemuIo(
          base,
          "read -P 0x11 0 200k",
          "read -P 0x33 200k 150k",
          "read -P 0 350k 100k",
          "read -P 0 5M 100k",
          "read -P 0x22 5220k 924k",
          "read -P 0x44 20M 700",
          "read -P 0 20972220 10k");
      place.mustBeClean(base);
      // The overlay has nothing of its own any more.
      QnbdProcess.run("rebase", "-u", "-b", "", top.toString()).mustExit(0);
      place.qemuIo(top, "read -P 0 0 24M");
      place.mustBeClean(top);
    }
  }

  @Test
  void benchWritesWhatQemuReads() throws IOException {
    try (Place place = Place.make()) {
      Path image = place.byQemu("disk.qcow2", "encrypt.format=luks,encrypt.iter-time=20");
      String bench = "bench --write --pattern 119 -s 64K -c 32 ";
      BadInputIT.assertRefused(QnbdProcess.run((bench + image).split(" ")), 1, "--passphrase-file");
      QnbdProcess.run((bench + "--passphrase-file " + place.key() + " " + image).split(" "))
          .mustExit(0);
      place.qemuIo(image, "read -P 119 0 2M", "read -P 0 2M 22M");
      place.mustBeClean(image);
    }
  }

  @Test
  void aPlainOverlayIsMadeOverAnEncryptedImage() throws IOException {
    try (Place place = Place.make()) {
      Path base = place.byQemu("base.qcow2", "encrypt.format=luks,encrypt.iter-time=20");
      place.qemuIo(base, "write -P 0x11 0 300k");
      Path source = place.images().path("source.qcow2");
      String[] key = {"--passphrase-file", place.key().toString()};
      QnbdProcess.run("create", "-b", "base.qcow2", "-F", "qcow2", source.toString()).mustExit(0);
      Path overlay = place.images().path("overlay.qcow2");
      List<String> line = new ArrayList<>(List.of("convert", "-B", "base.qcow2", "-F", "qcow2"));
      line.addAll(List.of("--source-passphrase-file", key[1], key[0], key[1]));
      line.addAll(List.of(source.toString(), overlay.toString()));
      QnbdProcess.run(line.toArray(String[]::new)).mustExit(0);
      try (QnbdProcess qnbd = place.serve(overlay.toString())) {
        overNbd(qnbd, "read -P 0x11 0 300k", "read -P 0 300k 1M");
        qnbd.stop();
      }
      Path plain = place.images().qcow2("plain.qcow2", "1M");
      BadInputIT.assertRefused(
          QnbdProcess.run(
              "convert", key[0], key[1], plain.toString(), place.images().path("x.qcow2") + ""),
          64,
          "-o encrypt.format=luks");
    }
  }

  @Test
  void aBitmapIsMergedFromAnEncryptedImage() throws IOException {
    try (Place place = Place.make()) {
      Path source = place.byQemu("source.qcow2", "encrypt.format=luks,encrypt.iter-time=20");
      String key = place.key().toString();
      QnbdProcess.run("bitmap", "add", "--passphrase-file", key, source.toString(), "from")
          .mustExit(0);
      place.qemuIo(source, "write 1M 64k");
      Path target = place.images().qcow2("target.qcow2", "24M");
      QnbdProcess.run("bitmap", "add", "--disabled", target.toString(), "to").mustExit(0);
      String[] merge = {
        "bitmap", "merge", "-b", source.toString(), target.toString(), "to", "from"
      };
      BadInputIT.assertRefused(QnbdProcess.run(merge), 1, "--source-passphrase-file");
      List<String> opening = new ArrayList<>(List.of(merge));
      opening.addAll(2, List.of("--source-passphrase-file", key));
      QnbdProcess.run(opening.toArray(String[]::new)).mustExit(0);
      assertEquals(List.of("1048576+65536"), BitmapsIT.dirtyAtRest(target, "to"));
    }
  }

  @Test
  void aPassphraseThatNothingNeedsIsRefused() throws IOException {
    try (Place place = Place.make()) {
      Path plain = place.images().qcow2("plain.qcow2", "24M");
      Path base = place.images().qcow2("base.qcow2", "24M");
      Path secret = place.byQemu("secret.qcow2", "encrypt.format=luks,encrypt.iter-time=20");
      String[] key = {"--passphrase-file", place.key().toString()};
      for (String command :
          List.of(
              "rebase -F qcow2 -b " + base,
              "rebase -u -F qcow2 -b " + base,
              "amend -o lazy_refcounts=on",
              "amend -o compat=0.10",
              "resize")) {
        List<String> line = new ArrayList<>(List.of(command.split(" ")));
        line.addAll(1, List.of(key));
        line.add(plain.toString());
        if (command.equals("resize")) {
          line.add("+1M");
        }
        BadInputIT.assertRefused(
            QnbdProcess.run(line.toArray(String[]::new)), 1, "is not encrypted");
      }
      assertFalse(Shell.check("qemu-img", "info", plain.toString()).contains("base.qcow2"));
      // The new backing file needs it, and then the old one.
      QnbdProcess.run(
              "rebase", key[0], key[1], "-F", "qcow2", "-b", secret.toString(), plain.toString())
          .mustExit(0);
      QnbdProcess.run(
              "rebase", key[0], key[1], "--backing-policy", "any", "-b", "", plain.toString())
          .mustExit(0);
    }
  }

  @Test
  void passphrasesComeAndGoAndQemuAgrees() throws IOException {
    try (Place place = Place.make()) {
      Path image = place.byQemu("disk.qcow2", "encrypt.format=luks,encrypt.iter-time=20");
      place.qemuIo(image, "write -P 0x11 0 300k");
      Path first = place.key();
      Path second = Files.writeString(place.images().path("key2"), "another one");
      Path third = Files.writeString(place.images().path("key3"), "by QEMU");
      amend(
              "-o encrypt.state=active,encrypt.iter-time=20 --new-passphrase-file " + second,
              first,
              image)
          .mustExit(0);
      new Place(place.images(), second).qemuIo(image, "read -P 0x11 0 300k");
      place.qemuIo(image, "read -P 0x11 0 300k", "write -P 0x22 5M 1M");
      Shell.check(
          "qemu-img",
          "amend",
          "--object",
          "secret,id=s,file=" + second,
          "--object",
          "secret,id=n,file=" + third,
          "--image-opts",
          place.opened(image, "luks"),
          "-o",
          "encrypt.state=active,encrypt.new-secret=n,encrypt.iter-time=20");
      Place byThird = new Place(place.images(), third);
      try (QnbdProcess qnbd = byThird.serve(image.toString())) {
        overNbd(qnbd, "read -P 0x11 0 300k", "read -P 0x22 5M 1M");
        qnbd.stop();
      }
      BadInputIT.assertRefused(
          amend("-o encrypt.state=inactive --old-passphrase-file " + first, first, image),
          1,
          "--force");
      amend("-o encrypt.state=inactive --old-passphrase-file " + first, second, image).mustExit(0);
      amend("-o encrypt.state=inactive,encrypt.keyslot=1", third, image).mustExit(0);
      byThird.qemuIo(image, "read -P 0x11 0 300k", "read -P 0x22 5M 1M");
      byThird.mustBeClean(image);
      for (Path gone : List.of(first, second)) {
        Shell.Result refused =
            Shell.run(
                "qemu-io",
                "--object",
                "secret,id=s,file=" + gone,
                "-c",
                "read 0 512",
                "--image-opts",
                place.opened(image, "luks"));
        assertTrue(refused.toString().contains("Invalid password"), refused::toString);
      }
      BadInputIT.assertRefused(
          amend("-o encrypt.state=inactive,encrypt.keyslot=2", third, image), 1, "--force");
      BadInputIT.assertRefused(
          amend("-o encrypt.state=active", third, image), 64, "--new-passphrase-file");
      BadInputIT.assertRefused(
          amend("-o encrypt.state=active --new-passphrase-file " + first, second, image),
          1,
          "passphrase is wrong");
      BadInputIT.assertRefused(
          amend("-o encrypt.state=inactive --old-passphrase-file " + first, third, image),
          1,
          "the passphrase to be removed");
    }
  }

  private static Shell.Result amend(String options, Path key, Path image) {
    List<String> line = new ArrayList<>(List.of("amend", "--passphrase-file", key.toString()));
    line.addAll(List.of(options.split(" ")));
    line.add(image.toString());
    return QnbdProcess.run(line.toArray(String[]::new));
  }

  @Test
  void anEncryptedDiskIsRevertedToASnapshot() throws IOException {
    try (Place place = Place.make()) {
      Path image = place.byQemu("disk.qcow2", "encrypt.format=luks,encrypt.iter-time=20");
      place.qemuIo(image, "write -P 0x11 0 300k");
      String[] key = {"--passphrase-file", place.key().toString()};
      QnbdProcess.run("snapshot", "create", key[0], key[1], image.toString(), "one").mustExit(0);
      place.qemuIo(image, "write -P 0x22 100k 1M");
      QnbdProcess.run("snapshot", "apply", key[0], key[1], image.toString(), "one").mustExit(0);
      place.mustBeClean(image);
      place.qemuIo(image, "read -P 0x11 0 300k", "read -P 0 320k 800k");
      assertTrue(Shell.check("qemu-img", "info", image.toString()).contains("encrypted: yes"));
    }
  }
}
