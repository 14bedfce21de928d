package io.qnbd.server;

import io.qnbd.image.AmendOptions;
import io.qnbd.image.CompressionType;
import io.qnbd.image.CreateOptions;
import io.qnbd.image.ImageFormat;
import io.qnbd.image.KeyChange;
import io.qnbd.image.Passphrase;
import io.qnbd.image.Preallocation;
import io.qnbd.image.RebaseOptions;
import io.qnbd.server.config.Choice;
import io.qnbd.server.config.Sizes;
import java.nio.file.InvalidPathException;
import java.nio.file.Path;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import org.jspecify.annotations.Nullable;

/**
 * The properties of a new image as they were typed, by qemu-img's names. {@code --cluster-size 2M}
 * and {@code -o cluster_size=2M} both end up here, so each is read, and refused, in one place.
 */
final class CreateSettings {
  private static final String CLUSTER_SIZE = "cluster_size";
  private static final String COMPAT = "compat";
  private static final String REFCOUNT_BITS = "refcount_bits";
  private static final String LAZY_REFCOUNTS = "lazy_refcounts";
  private static final String EXTENDED_L2 = "extended_l2";
  private static final String COMPRESSION_TYPE = "compression_type";
  private static final String PREALLOCATION = "preallocation";
  private static final String BACKING_FILE = "backing_file";
  private static final String BACKING_FORMAT = "backing_fmt";
  private static final String SIZE = "size";
  private static final String DATA_FILE = "data_file";
  private static final String DATA_FILE_RAW = "data_file_raw";
  private static final String ENCRYPT_FORMAT = "encrypt.format";
  private static final String ENCRYPT_ITER_TIME = "encrypt.iter-time";
  private static final String ENCRYPT_STATE = "encrypt.state";
  private static final String ENCRYPT_KEYSLOT = "encrypt.keyslot";

  private static final List<String> NAMES =
      List.of(
          CLUSTER_SIZE,
          COMPAT,
          REFCOUNT_BITS,
          LAZY_REFCOUNTS,
          EXTENDED_L2,
          COMPRESSION_TYPE,
          PREALLOCATION,
          BACKING_FILE,
          BACKING_FORMAT,
          SIZE,
          DATA_FILE,
          DATA_FILE_RAW,
          ENCRYPT_FORMAT,
          ENCRYPT_ITER_TIME,
          ENCRYPT_STATE,
          ENCRYPT_KEYSLOT);

  /** What {@code amend} changes. */
  private static final List<String> AMENDABLE =
      List.of(
          COMPAT,
          LAZY_REFCOUNTS,
          REFCOUNT_BITS,
          BACKING_FILE,
          BACKING_FORMAT,
          ENCRYPT_STATE,
          ENCRYPT_KEYSLOT,
          ENCRYPT_ITER_TIME);

  private static final int CLUSTER_BYTES_MIN = 512;
  private static final int CLUSTER_BYTES_MAX = 2 << 20;
  private static final int REFCOUNT_BITS_MAX = 64;

  private final Map<String, String> given = new LinkedHashMap<>();

  /** Notes one property; a null value was not given. */
  void add(String name, @Nullable String value) {
    if (value == null) {
      return;
    }
    if (!NAMES.contains(name)) {
      throw new UsageException(
          "unknown image option '%s' (known: %s)".formatted(name, String.join(", ", NAMES)));
    }
    if (given.putIfAbsent(name, value) != null) {
      throw new UsageException("the image option " + name + " is given twice");
    }
  }

  /** Notes the properties of {@code -o}: {@code NAME=VALUE,NAME=VALUE}. */
  void addList(String list) {
    for (String property : list.split(",", -1)) {
      int equals = property.indexOf('=');
      if (equals < 0) {
        throw new UsageException("image options are written NAME=VALUE, not '" + property + "'");
      }
      add(property.substring(0, equals), property.substring(equals + 1));
    }
  }

  /**
   * All of them together.
   *
   * @param typedBytes the size that was typed, or null
   * @param passphrase what an encrypted image is to open with, or null
   */
  CreateOptions toOptions(
      ImageFormat format, @Nullable Long typedBytes, @Nullable Passphrase passphrase) {
    for (String name : List.of(ENCRYPT_STATE, ENCRYPT_KEYSLOT)) {
      if (given.containsKey(name)) {
        throw new UsageException(name + " is for 'qnbd amend', which changes key slots");
      }
    }
    @Nullable Long virtualBytes = virtualBytes(typedBytes);
    @Nullable Path backing = path(BACKING_FILE);
    @Nullable ImageFormat backingFormat = backingFormat();
    if (virtualBytes == null && backing == null) {
      throw new UsageException("how large is the disk to be? Give a SIZE after the PATH, like 10G");
    }
    if (backing != null && backingFormat == null) {
      throw new UsageException(
          "say what the backing file is with -F qcow2 or -F raw: it is never guessed, because "
              + "whoever wrote to a raw disk can make it look like qcow2");
    }
    Preallocation preallocation = preallocation();
    if (format == ImageFormat.RAW) {
      given.keySet().stream()
          .filter(name -> !name.equals(PREALLOCATION) && !name.equals(SIZE))
          .findFirst()
          .ifPresent(CreateSettings::refuseForRaw);
    }
    if (format == ImageFormat.RAW && preallocation == Preallocation.METADATA) {
      refuseForRaw(PREALLOCATION + "=metadata");
    }
    return new CreateOptions(
        format,
        virtualBytes,
        clusterBytes(),
        version(),
        refcountBits(),
        onOff(LAZY_REFCOUNTS),
        onOff(EXTENDED_L2),
        backing,
        backingFormat,
        preallocation,
        compression(),
        path(DATA_FILE),
        value(DATA_FILE_RAW, () -> Choice.onOff(given.getOrDefault(DATA_FILE_RAW, "off"))),
        encryption(passphrase));
  }

  /**
   * What of an image that is there is to change; refuses what can't be.
   *
   * @param added the passphrase that is to come, or null
   * @param removed the one that is to go, or null
   */
  AmendOptions toAmendment(
      @Nullable Passphrase added, @Nullable Passphrase removed, boolean force) {
    for (String name : given.keySet()) {
      if (name.equals(SIZE)) {
        throw new UsageException("the size is changed by 'qnbd resize'");
      }
      if (!AMENDABLE.contains(name)) {
        throw new UsageException(name + " can't be changed in place: convert the image");
      }
    }
    return new AmendOptions(
        given.containsKey(COMPAT) ? version() : null,
        given.containsKey(LAZY_REFCOUNTS) ? onOff(LAZY_REFCOUNTS) : null,
        given.containsKey(REFCOUNT_BITS) ? refcountBits() : null,
        keyChange(added, removed, force));
  }

  private @Nullable KeyChange keyChange(
      @Nullable Passphrase added, @Nullable Passphrase removed, boolean force) {
    String state = given.get(ENCRYPT_STATE);
    if (state == null) {
      boolean ofSlot = given.containsKey(ENCRYPT_KEYSLOT) || given.containsKey(ENCRYPT_ITER_TIME);
      if (added != null || removed != null || force || ofSlot) {
        throw new UsageException(
            "say what becomes of the key slot: -o encrypt.state=active or inactive");
      }
      return null;
    }
    return switch (state) {
      case "active" -> keyAdded(added, removed != null || force);
      case "inactive" -> keyRemoved(added, removed, force);
      default ->
          throw new UsageException("encrypt.state is '" + state + "', expected active or inactive");
    };
  }

  private KeyChange keyAdded(@Nullable Passphrase added, boolean more) {
    if (added == null || more) {
      throw new UsageException(
          "encrypt.state=active takes a --new-passphrase-file (or -fd), and no old one");
    }
    int millis = iterMillis();
    if (millis < 1 || millis > KeyChange.ITER_MILLIS_MAX) {
      throw new UsageException(
          "encrypt.iter-time is %d, expected milliseconds, 1 to %d"
              .formatted(millis, KeyChange.ITER_MILLIS_MAX));
    }
    return new KeyChange.Add(added, keyslot(), millis);
  }

  private KeyChange keyRemoved(
      @Nullable Passphrase added, @Nullable Passphrase removed, boolean force) {
    @Nullable Integer slot = keyslot();
    if (added != null || (removed == null) == (slot == null)) {
      throw new UsageException(
          "encrypt.state=inactive takes an encrypt.keyslot or an --old-passphrase-file");
    }
    if (given.containsKey(ENCRYPT_ITER_TIME)) {
      throw new UsageException(
          "encrypt.iter-time is for a passphrase that comes, with encrypt.state=active");
    }
    return new KeyChange.Remove(removed, slot, force);
  }

  private @Nullable Integer keyslot() {
    String text = given.get(ENCRYPT_KEYSLOT);
    if (text == null) {
      return null;
    }
    if (!text.matches("[0-7]")) {
      throw new UsageException("encrypt.keyslot is '" + text + "', expected 0 to 7");
    }
    return Integer.valueOf(text);
  }

  /** The backing file that an image is to name, null if that stays as it is. */
  @Nullable RebaseOptions toBackingName() {
    String name = given.get(BACKING_FILE);
    @Nullable ImageFormat format = backingFormat();
    if (name == null && format == null) {
      return null;
    }
    return backing(name == null ? "" : name, format, "backing_fmt=qcow2 or backing_fmt=raw", true);
  }

  /**
   * Which backing file an image that is there is to have.
   *
   * @param name empty for none
   * @param formats how its format is said, for whoever did not
   */
  static RebaseOptions backing(
      String name, @Nullable ImageFormat format, String formats, boolean unsafe) {
    boolean none = name.isEmpty();
    if (!none && format == null) {
      throw new UsageException(
          "say what the backing file is with %s: it is never guessed".formatted(formats));
    }
    if (none && format != null) {
      throw new UsageException("a format without a backing file makes no sense");
    }
    return new RebaseOptions(none ? null : name, format, unsafe);
  }

  private CreateOptions.@Nullable Encryption encryption(@Nullable Passphrase passphrase) {
    String method = given.get(ENCRYPT_FORMAT);
    if (method == null) {
      if (passphrase != null || given.containsKey(ENCRYPT_ITER_TIME)) {
        throw new UsageException("say how to encrypt the image: -o encrypt.format=luks");
      }
      return null;
    }
    if (!method.equals("luks")) {
      throw new UsageException("encrypt.format is '" + method + "', expected luks");
    }
    if (passphrase == null) {
      throw new UsageException(
          "an encrypted image needs a passphrase: --passphrase-file or --passphrase-fd");
    }
    return new CreateOptions.Encryption(passphrase, iterMillis());
  }

  /** Whether it is an overlay, itself not encrypted: a passphrase is for what lies below then. */
  boolean plainOverlay() {
    return path(BACKING_FILE) != null && !given.containsKey(ENCRYPT_FORMAT);
  }

  /** Who makes a passphrase from it knows the bounds. */
  private int iterMillis() {
    String time = given.get(ENCRYPT_ITER_TIME);
    if (time == null) {
      return CreateOptions.ITER_MILLIS_DEFAULT;
    }
    if (!time.matches("[0-9]{1,5}")) {
      throw new UsageException(
          "encrypt.iter-time is '" + time + "', expected milliseconds, 1 to 10000");
    }
    return Integer.parseInt(time);
  }

  private @Nullable Long virtualBytes(@Nullable Long typed) {
    String text = given.get(SIZE);
    if (text == null) {
      return typed;
    }
    if (typed != null) {
      throw new UsageException("the size is given twice: after the PATH and as the option size");
    }
    return value(SIZE, () -> Sizes.parse(text));
  }

  private static void refuseForRaw(String property) {
    throw new UsageException("a raw image has no " + property + "; only -f qcow2 does");
  }

  private int clusterBytes() {
    String text = given.getOrDefault(CLUSTER_SIZE, "64k");
    long bytes = value(CLUSTER_SIZE, () -> Sizes.parse(text));
    if (Long.bitCount(bytes) != 1 || bytes < CLUSTER_BYTES_MIN || bytes > CLUSTER_BYTES_MAX) {
      throw new UsageException(
          "cluster_size is %s, expected a power of two from 512 to 2M".formatted(text));
    }
    return (int) bytes;
  }

  private int version() {
    String text = given.getOrDefault(COMPAT, "1.1");
    return switch (text) {
      case "0.10", "v2" -> 2;
      case "1.1", "v3" -> 3;
      default -> throw new UsageException("compat is '" + text + "', expected 0.10 or 1.1");
    };
  }

  private int refcountBits() {
    String text = given.getOrDefault(REFCOUNT_BITS, "16");
    int bits = text.matches("[0-9]{1,2}") ? Integer.parseInt(text) : 0;
    if (Integer.bitCount(bits) != 1 || bits > REFCOUNT_BITS_MAX) {
      throw new UsageException(
          "refcount_bits is '%s', expected a power of two from 1 to 64".formatted(text));
    }
    return bits;
  }

  private boolean onOff(String name) {
    return value(name, () -> Choice.onOff(given.getOrDefault(name, "off")));
  }

  private CompressionType compression() {
    String text = given.getOrDefault(COMPRESSION_TYPE, "zlib");
    return switch (text) {
      case "zlib" -> CompressionType.ZLIB;
      case "zstd" -> CompressionType.ZSTD;
      default ->
          throw new UsageException("compression_type is '" + text + "', expected zlib or zstd");
    };
  }

  private Preallocation preallocation() {
    return value(
        PREALLOCATION, () -> Choice.preallocation(given.getOrDefault(PREALLOCATION, "off")));
  }

  private @Nullable Path path(String name) {
    String text = given.get(name);
    try {
      return text == null || text.isEmpty() ? null : Path.of(text);
    } catch (InvalidPathException _) {
      throw new UsageException("not a file name: '" + text + "'");
    }
  }

  private @Nullable ImageFormat backingFormat() {
    String text = given.get(BACKING_FORMAT);
    return text == null ? null : value(BACKING_FORMAT, () -> Choice.format(text));
  }

  private interface Parser<T> {
    T parse();
  }

  private static <T> T value(String name, Parser<T> parser) {
    try {
      return parser.parse();
    } catch (IllegalArgumentException e) {
      throw new UsageException(name + ": " + e.getMessage());
    }
  }
}
