package io.qnbd.server;

import io.qnbd.image.BackingPolicy;
import io.qnbd.image.CacheMode;
import io.qnbd.image.ImageFormat;
import io.qnbd.image.OpenOptions;
import io.qnbd.image.OverlapCheck;
import io.qnbd.server.config.Choice;
import io.qnbd.server.config.ConfigException;
import io.qnbd.server.config.ExportKeys;
import io.qnbd.server.config.ExportPlan;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.SequencedMap;
import org.jspecify.annotations.Nullable;
import picocli.CommandLine.Option;

/**
 * The options that say how images are opened and exported. They stand for keys of the configuration
 * file, so that a server which is told of an export understands the same as one that is started
 * with it.
 */
final class ExportOptions {

  /** Options that are not called as their key is. */
  private static final Map<String, String> OPTION_OF_KEY =
      Map.of(
          ExportKeys.ALLOWED_SUBJECTS, "--allow-subject",
          ExportKeys.CONNECTIONS_MAX, "--max-clients",
          ExportKeys.CONNECTIONS_PER_CLIENT_MAX, "--max-clients-per-address",
          ExportKeys.BYTES_PER_SECOND, "--rate-bytes",
          ExportKeys.REQUESTS_PER_SECOND, "--rate-requests");

  @Option(
      names = "--create",
      paramLabel = "SIZE",
      description = {
        "Make each image that is not there, with a disk of SIZE bytes (units K, M, G, T, P, E: "
            + "powers of 1024); qcow2 unless --format raw is given. A file that is there is never "
            + "touched."
      })
  private @Nullable ByteCount create;

  @Option(
      names = {"-f", "--format"},
      paramLabel = "FORMAT",
      description = {
        "What the images are: qcow2 or raw. Default: look at the file. A raw image is served "
            + "writable only if this says raw, because its guest could make it look like qcow2."
      })
  private @Nullable ImageFormat format;

  @Option(
      names = {"-r", "--read-only"},
      description = "Refuse writes.")
  private boolean readOnly;

  @Option(
      names = {"-t", "--temporary"},
      description = {
        "Let clients write, but to a temporary file that vanishes at the end; the images stay as "
            + "they are. The file is in $TMPDIR, or else in /var/tmp."
      })
  private boolean temporary;

  @Option(
      names = "--snapshot",
      paramLabel = "NAME",
      description = {
        "Serve the disk as it was when the internal snapshot NAME (or its id) was taken, read-only"
            + " unless --temporary is given; with several images, that snapshot of each."
      })
  private @Nullable String snapshot;

  @Option(
      names = "--description",
      paramLabel = "TEXT",
      description = "What clients that list the exports are told. Default: the image's format.")
  private @Nullable String description;

  @Option(
      names = "--cache",
      paramLabel = "MODE",
      description = {
        "When writes are durable. writeback: when the client flushes. writethrough: each before it "
            + "is acknowledged. none, directsync: the same two past the host's page cache "
            + "(O_DIRECT). unsafe: flushes are ignored, the image is lost if the host crashes. "
            + "Default: writeback."
      })
  private @Nullable CacheMode cacheMode;

  @Option(
      names = "--backing-policy",
      paramLabel = "POLICY",
      description = {
        "Which backing and data files an image may name. none: no image may have one. "
            + "same-directory: those in its own directory or below. any: every file. "
            + "Default: same-directory."
      })
  private @Nullable BackingPolicy backingPolicy;

  @Option(
      names = "--data-file",
      paramLabel = "PATH",
      description = {
        "The external data file of an image that has one, wherever it is. Default: the one that "
            + "the image names, if --backing-policy allows it."
      })
  private @Nullable Path dataFile;

  @Option(
      names = "--passphrase-file",
      paramLabel = "PATH",
      description = {
        "Take the passphrase of encrypted images from this file: all of its bytes, a newline at "
            + "its end included, as QEMU does. With --create, encrypt what is made."
      })
  private @Nullable Path passphraseFile;

  @Option(
      names = "--overlap-check",
      paramLabel = "LEVEL",
      description = {
        "How much an image is trusted that is written to. none: its tables are believed. constant: "
            + "nothing is written over header, L1, refcount and snapshot tables. cached: nor over "
            + "any table in use, and reference counts must agree. all: the whole image is checked "
            + "before it is opened. Default: cached."
      })
  private @Nullable OverlapCheck overlapCheck;

  @Option(
      names = "--max-clients",
      paramLabel = "N",
      description = "Connections to each export at a time; 0 for no limit, the default.")
  private @Nullable Long clientsMax;

  @Option(
      names = "--max-clients-per-address",
      paramLabel = "N",
      description = {
        "The same for those from one client's address; all clients of Unix sockets count as one."
      })
  private @Nullable Long clientsPerAddressMax;

  @Option(
      names = "--rate-bytes",
      paramLabel = "SIZE",
      description = {
        "Bytes that the clients of each export may read and write in a second, together; 0 for no "
            + "limit, the default."
      })
  private @Nullable ByteCount rateBytes;

  @Option(
      names = "--rate-requests",
      paramLabel = "N",
      description = "The same for requests in a second.")
  private @Nullable Long rateRequests;

  @Option(
      names = "--tls-required",
      description = "Hide the exports from clients without TLS, where others may do without.")
  private boolean tlsRequired;

  @Option(
      names = "--allow-subject",
      paramLabel = "NAME",
      description = {
        "Let only TLS clients with this name use the exports: a certificate's subject such as "
            + "CN=host,O=lab, or a key's name; may be repeated."
      })
  private List<String> allowedSubjects = new ArrayList<>();

  @Option(
      names = "--l2-cache",
      paramLabel = "SIZE",
      description = {
        "Memory for cached mapping tables, for each image, in bytes or with a unit; at least 64K. "
            + "32M map 256 GiB of a disk with 64 KiB clusters. Default: 32M."
      })
  private @Nullable ByteCount l2Cache;

  @Option(
      names = "--ref-batch",
      paramLabel = "N",
      description = {
        "How many freed clusters are kept in memory before their reference counts are written; a "
            + "crash leaks them, wasting space. 0 keeps none. Default: "
            + OpenOptions.REF_BATCH_DEFAULT
            + "."
      })
  private @Nullable Long refBatch;

  @Option(
      names = "--ref-reserve",
      paramLabel = "N",
      description = {
        "How many clusters are reserved ahead, at most, by one write of reference counts; a crash "
            + "leaks what is left. 0 reserves none ahead. Default: "
            + OpenOptions.REF_RESERVE_DEFAULT
            + "."
      })
  private @Nullable Long refReserve;

  /** The keys of an export with these options. */
  SequencedMap<String, Object> keys(ExportArgument argument, Path path) {
    SequencedMap<String, Object> keys = new LinkedHashMap<>();
    keys.put(ExportKeys.NAME, argument.name());
    keys.put(ExportKeys.PATH, path.toString());
    put(keys, ExportKeys.DESCRIPTION, description);
    put(keys, ExportKeys.FORMAT, format == null ? null : Choice.name(format));
    put(keys, ExportKeys.READ_ONLY, readOnly ? true : null);
    put(keys, ExportKeys.TEMPORARY, temporary ? true : null);
    put(keys, ExportKeys.SNAPSHOT, snapshot);
    put(keys, ExportKeys.CREATE, create == null ? null : create.bytes());
    put(keys, ExportKeys.CACHE, cacheMode == null ? null : Choice.name(cacheMode));
    put(keys, ExportKeys.BACKING_POLICY, backingPolicy == null ? null : Choice.name(backingPolicy));
    put(keys, ExportKeys.DATA_FILE, absolute(dataFile));
    put(keys, ExportKeys.PASSPHRASE_FILE, absolute(passphraseFile));
    put(keys, ExportKeys.OVERLAP_CHECK, overlapCheck == null ? null : Choice.name(overlapCheck));
    put(keys, ExportKeys.L2_CACHE, l2Cache == null ? null : l2Cache.bytes());
    put(keys, ExportKeys.REF_BATCH, refBatch);
    put(keys, ExportKeys.REF_RESERVE, refReserve);
    put(keys, ExportKeys.TLS_REQUIRED, tlsRequired ? true : null);
    put(keys, ExportKeys.ALLOWED_SUBJECTS, allowedSubjects.isEmpty() ? null : allowedSubjects);
    put(keys, ExportKeys.CONNECTIONS_MAX, clientsMax);
    put(keys, ExportKeys.CONNECTIONS_PER_CLIENT_MAX, clientsPerAddressMax);
    put(keys, ExportKeys.BYTES_PER_SECOND, rateBytes == null ? null : rateBytes.bytes());
    put(keys, ExportKeys.REQUESTS_PER_SECOND, rateRequests);
    return keys;
  }

  private static @Nullable String absolute(@Nullable Path path) {
    return path == null ? null : path.toAbsolutePath().toString();
  }

  private static void put(Map<String, Object> keys, String key, @Nullable Object value) {
    if (value != null) {
      keys.put(key, value);
    }
  }

  /**
   * The export that the argument and these options ask for.
   *
   * @throws UsageException when they make no sense
   */
  ExportPlan plan(ExportArgument argument) {
    try {
      return ExportKeys.read(
          keys(argument, argument.path()),
          key -> OPTION_OF_KEY.getOrDefault(key, "--" + key),
          Path.of(""));
    } catch (ConfigException e) {
      throw new UsageException(String.valueOf(e.getMessage()));
    }
  }
}
