package io.qnbd.it.conformance;

import io.qnbd.it.Images;
import io.qnbd.it.QnbdProcess;
import io.qnbd.it.Shell;
import io.qnbd.it.conformance.Endpoint.Tls;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.security.GeneralSecurityException;
import java.util.Arrays;
import java.util.EnumMap;
import java.util.List;
import java.util.Map;
import java.util.Random;
import java.util.Set;
import java.util.TreeMap;
import java.util.concurrent.atomic.AtomicLong;
import javax.net.ssl.SSLEngine;

/**
 * The servers under test and the images that they serve. All cases share them: a case that writes
 * takes a {@link #fresh} place of the export {@code rw}, which no other case touches.
 *
 * <p>Thread-safe.
 */
final class Bench implements AutoCloseable {
  /** The cluster of every image here. */
  static final int CLUSTER = 65_536;

  /** The pattern ends within a cluster and within 4 KiB. */
  static final int PATTERN_BYTES = (4 << 20) + 1536;

  static final int DEFAULT_BYTES = 1 << 20;
  static final String ODD_NAME = "späte Scheibe № 2";
  static final String SLASHED_NAME = "/a/b c";
  static final String DESCRIPTION = "für Menschen, nicht für Maschinen";

  /** What the server without TLS exports, in order. */
  static final List<String> PLAIN_EXPORTS = List.of("", "pattern", "rw", ODD_NAME);

  /** Where each cluster of the pattern is: 1 its own, 2 the backing file, 0 nowhere. */
  static final int[] PATTERN_DEPTH = depths();

  /** What the pattern's data takes without its holes and the two clusters of written zeroes. */
  static final long PATTERN_DATA_BYTES = 32L * CLUSTER + 1536;

  static final String BITMAP = "bits";
  static final String EMPTY_BITMAP = "calm";
  static final Set<Integer> DIRTY_CLUSTERS = Set.of(3, 10, 11);
  static final long BIG_DATA_BYTES = 5L * CLUSTER;

  /** From here on nobody writes data to {@code rw}. */
  static final long EMPTY_FROM = 40L << 30;

  private static final long FRESH_FROM = 1L << 30;
  private static final int WARM_UPS = 10;

  private final Images images;
  private final byte[] base;
  private final byte[] pattern;
  private final AtomicLong freshAt = new AtomicLong(FRESH_FROM);
  private final Map<String, String> reports = new TreeMap<>();
  private final Lazy<QnbdProcess> plain = new Lazy<>(this::servePlain);
  private final Lazy<QnbdProcess> readOnly = new Lazy<>(this::serveReadOnly);
  private final Lazy<Certificates> certificates;
  private final Lazy<Certificates> strangers;
  private final Lazy<QnbdProcess> tlsOptional = new Lazy<>(this::serveTlsOptional);
  private final Lazy<QnbdProcess> tlsRequired = new Lazy<>(this::serveTlsRequired);
  private final Lazy<QnbdProcess> tlsVerifying = new Lazy<>(this::serveTlsVerifying);
  private final Lazy<Deadlines> deadlines = new Lazy<>(() -> Deadlines.begin(this));
  private final Lazy<Shutdown> shutdown;
  private final Map<Mode, Session> idle = new EnumMap<>(Mode.class);

  private Bench(Images images) {
    this.images = images;
    this.certificates = new Lazy<>(() -> Certificates.generate(images.path("pki")));
    this.strangers = new Lazy<>(() -> Certificates.generate(images.path("strangers")));
    this.shutdown = new Lazy<>(() -> Shutdown.run(images));
    this.base = baseBytes();
    this.pattern = patternBytes(base);
  }

  /** Makes the images, starts the servers that every case needs and the clients that wait. */
  static Bench start() throws IOException {
    Bench bench = new Bench(Images.inTempDir());
    try {
      for (Mode mode : Mode.values()) {
        try {
          bench.idle.put(mode, bench.plain().open(mode, "pattern"));
        } catch (AssertionError e) {
          bench.report("idle session", e.toString()); // its case fails, and no other
        }
      }
      var _ = bench.deadlines();
      return bench;
    } catch (Throwable e) {
      bench.stopAll();
      throw e;
    }
  }

  /** Exports {@link #PLAIN_EXPORTS} without TLS, for reading and writing. */
  Endpoint plain() {
    return new Endpoint(plain.get().port(), Tls.OFF);
  }

  /** Exports {@code bitmaps} and {@code big}, for reading; neither is the default. */
  Endpoint readOnly() {
    return new Endpoint(readOnly.get().port(), Tls.OFF);
  }

  /** Exports {@code disk} and one more with or without TLS, and {@code locked} in TLS only. */
  Endpoint tlsOptional() {
    return new Endpoint(tlsOptional.get().port(), Tls.OPTIONAL);
  }

  /** Exports {@code disk} in TLS only, and only to clients with a certificate. */
  Endpoint tlsVerifying() {
    return new Endpoint(tlsVerifying.get().port(), Tls.REQUIRED);
  }

  /** Exports {@code disk} in TLS only. */
  Endpoint tlsRequired() {
    return new Endpoint(tlsRequired.get().port(), Tls.REQUIRED);
  }

  /** The server without TLS that has the export. */
  Endpoint holding(String export) {
    return PLAIN_EXPORTS.contains(export) ? plain() : readOnly();
  }

  Deadlines deadlines() {
    return deadlines.get();
  }

  Shutdown shutdown() {
    return shutdown.get();
  }

  /** A session on the pattern that has been idle since the tests began; the caller closes it. */
  Session idle(Mode mode) {
    Session session = idle.get(mode);
    if (session == null) {
      throw new AssertionError("no session in this mode could begin: " + reports);
    }
    return session;
  }

  long plainPid() {
    return plain.get().pid();
  }

  /** The client's side of TLS, which trusts the server's authority; all versions, or just these. */
  SSLEngine tls(String... versions) {
    return certificates.get().client(versions);
  }

  /** As {@link #tls}, with a certificate of the server's authority. */
  SSLEngine tlsWithCertificate() throws IOException, GeneralSecurityException {
    return certificates.get().clientWith(certificates.get());
  }

  /** As {@link #tls}, with a certificate of an authority that the server does not know. */
  SSLEngine tlsWithForeignCertificate() throws IOException, GeneralSecurityException {
    return certificates.get().clientWith(strangers.get());
  }

  /** A place in {@code rw} that reads as zeroes and belongs to the caller. */
  long fresh(int bytes) {
    long step = Math.ceilDiv((long) bytes, CLUSTER) * CLUSTER;
    long place = freshAt.getAndAdd(step);
    Check.that(place + step <= EMPTY_FROM, "no fresh place is left");
    return place;
  }

  /** Keeps a number for whoever reads the test's output. */
  synchronized void report(String what, String value) {
    reports.put(what, value);
  }

  synchronized Map<String, String> reports() {
    return Map.copyOf(reports);
  }

  /** What the export {@code pattern} holds. */
  byte[] pattern() {
    return pattern.clone();
  }

  byte[] pattern(int at, int length) {
    return Arrays.copyOfRange(pattern, at, at + length);
  }

  /** The first 256 KiB of the export {@code bitmaps}. */
  byte[] bitmapsHead() {
    byte[] head = new byte[4 * CLUSTER];
    Arrays.fill(head, 3 * CLUSTER, head.length, (byte) 0x71);
    return head;
  }

  /** Bytes without a pattern, the same for the same seed. */
  static byte[] noise(int length, long seed) {
    byte[] bytes = new byte[length];
    new Random(seed).nextBytes(bytes);
    return bytes;
  }

  static void mustEqual(byte[] expected, byte[] actual) {
    int at = Arrays.mismatch(expected, actual);
    Check.that(at < 0, "the bytes differ at %d", at);
  }

  static void mustBeZero(byte[] bytes, int from, int to) {
    for (int at = from; at < to; at++) {
      if (bytes[at] != 0) {
        throw new AssertionError("data is called zero at " + at);
      }
    }
  }

  private static int[] depths() {
    int[] depths = new int[65];
    Arrays.fill(depths, 0, 16, 2);
    Arrays.fill(depths, 8, 14, 1);
    Arrays.fill(depths, 20, 22, 1);
    Arrays.fill(depths, 32, 48, 2);
    depths[64] = 2;
    return depths;
  }

  private static byte[] baseBytes() {
    byte[] bytes = noise(PATTERN_BYTES, 4);
    Arrays.fill(bytes, 16 * CLUSTER, 32 * CLUSTER, (byte) 0);
    Arrays.fill(bytes, 48 * CLUSTER, 64 * CLUSTER, (byte) 0);
    return bytes;
  }

  private static byte[] patternBytes(byte[] base) {
    byte[] bytes = base.clone();
    Arrays.fill(bytes, 8 * CLUSTER, 12 * CLUSTER, (byte) 0x5a);
    Arrays.fill(bytes, 12 * CLUSTER, 14 * CLUSTER, (byte) 0);
    Arrays.fill(bytes, 20 * CLUSTER, 22 * CLUSTER, (byte) 0x6b);
    return bytes;
  }

  private QnbdProcess servePlain() throws IOException {
    Path raw = Files.write(images.path("base.raw"), base);
    Path bottom = images.qcow2From("base.qcow2", raw);
    Path overlay =
        images.qcow2(
            "pattern.qcow2",
            Integer.toString(PATTERN_BYTES),
            "backing_file=" + bottom.getFileName(),
            "backing_fmt=qcow2");
    qemuIo(overlay, "write -P 0x5a 512k 256k", "write -z 768k 128k", "write -P 0x6b 1280k 128k");
    return QnbdProcess.serve(
        "=" + images.qcow2("default.qcow2", "1M"),
        "pattern=" + overlay,
        "rw=" + images.qcow2("rw.qcow2", "64G"),
        ODD_NAME + "=" + images.qcow2("odd.qcow2", "1M"));
  }

  private QnbdProcess serveReadOnly() {
    Path bitmaps = images.qcow2("bitmaps.qcow2", "4M");
    String file = bitmaps.toString();
    Shell.check("qemu-img", "bitmap", "--add", "-g", "65536", file, BITMAP);
    qemuIo(bitmaps, "write -P 0x71 192k 64k", "write -P 0x72 640k 128k");
    Shell.check("qemu-img", "bitmap", "--add", "-g", "65536", file, EMPTY_BITMAP);
    Path big = images.qcow2("big.qcow2", "1T");
    qemuIo(big, "write -P 1 0 64k", "write -P 2 5G 64k", "write -P 3 900G 192k");
    return QnbdProcess.serve("--read-only", "bitmaps=" + bitmaps, "big=" + big);
  }

  /**
   * The first TLS handshakes of two cold machines are so slow that a loaded computer might not
   * finish one within the server's deadline; this takes that time out of the cases.
   */
  private QnbdProcess warmedUp(QnbdProcess qnbd) throws IOException, GeneralSecurityException {
    for (int attempt = 1; ; attempt++) {
      try (Haggling haggling = Haggling.open(new Endpoint(qnbd.port(), Tls.REQUIRED))) {
        haggling.startTls(tlsWithCertificate()).leave();
        return qnbd;
      } catch (IOException | AssertionError e) {
        if (attempt == WARM_UPS) {
          qnbd.close();
          throw e;
        }
      }
    }
  }

  private QnbdProcess serveTlsVerifying() throws IOException, GeneralSecurityException {
    Path disk = images.qcow2("tls-verifying.qcow2", "1M");
    String dir = certificates.get().dir().toString();
    return warmedUp(
        QnbdProcess.serve(
            "--tls", "required", "--tls-certificates", dir, "--tls-verify-client", "disk=" + disk));
  }

  private QnbdProcess serveTlsRequired() throws IOException, GeneralSecurityException {
    Path disk = images.qcow2("tls-required.qcow2", "16M");
    String dir = certificates.get().dir().toString();
    return warmedUp(
        QnbdProcess.serve("--tls", "required", "--tls-certificates", dir, "disk=" + disk));
  }

  private QnbdProcess serveTlsOptional() throws IOException, GeneralSecurityException {
    Path disk = images.qcow2("tls-optional.qcow2", "16M");
    Path slashed = images.qcow2("tls-slashed.qcow2", "1M");
    Path locked = images.qcow2("tls-locked.qcow2", "16M");
    Path config =
        Files.writeString(
            images.path("qnbd.toml"),
            """
            [[export]]
            name = "disk"
            path = "%s"

            description = "%s"

            [[export]]
            name = "%s"
            path = "%s"

            [[export]]
            name = "locked"
            path = "%s"
            tls-required = true
            """
                .formatted(disk, DESCRIPTION, SLASHED_NAME, slashed, locked));
    String dir = certificates.get().dir().toString();
    return warmedUp(
        QnbdProcess.serve(
            "--tls", "optional", "--tls-certificates", dir, "--config", config.toString()));
  }

  private static void qemuIo(Path image, String... commands) {
    String[] all = new String[4 + 2 * commands.length];
    all[0] = "qemu-io";
    all[1] = "-f";
    all[2] = "qcow2";
    for (int index = 0; index < commands.length; index++) {
      all[3 + 2 * index] = "-c";
      all[4 + 2 * index] = commands[index];
    }
    all[all.length - 1] = image.toString();
    Shell.check(all);
  }

  /** Stops the servers as an operator does and checks every image. */
  @Override
  public void close() throws IOException {
    try {
      for (Session session : idle.values()) {
        session.close();
      }
      for (Lazy<QnbdProcess> server : servers()) {
        QnbdProcess process = server.made();
        if (process != null) {
          process.stop();
        }
      }
    } catch (Throwable e) {
      stopAll();
      throw e;
    }
    stopAll();
  }

  private List<Lazy<QnbdProcess>> servers() {
    return List.of(plain, readOnly, tlsOptional, tlsRequired, tlsVerifying);
  }

  private void stopAll() {
    for (Lazy<QnbdProcess> server : servers()) {
      QnbdProcess process = server.made();
      if (process != null) {
        process.close();
      }
    }
    images.close();
  }
}
