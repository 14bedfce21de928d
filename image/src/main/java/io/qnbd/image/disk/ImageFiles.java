package io.qnbd.image.disk;

import io.qnbd.image.AmendOptions;
import io.qnbd.image.BackingPolicy;
import io.qnbd.image.CacheMode;
import io.qnbd.image.Compaction;
import io.qnbd.image.CreateOptions;
import io.qnbd.image.DiskImage;
import io.qnbd.image.ImageFormat;
import io.qnbd.image.ImageReport;
import io.qnbd.image.KeyChange;
import io.qnbd.image.OpenOptions;
import io.qnbd.image.Preallocation;
import io.qnbd.image.ProgressListener;
import io.qnbd.image.ResizeOptions;
import io.qnbd.image.UnsupportedImageException;
import io.qnbd.image.check.Amending;
import io.qnbd.image.check.Inspector;
import io.qnbd.image.check.Rebuild;
import io.qnbd.image.create.ImageCreator;
import io.qnbd.image.format.Header;
import io.qnbd.image.io.FileLocks;
import io.qnbd.image.io.FileStorage;
import io.qnbd.image.io.Storage;
import io.qnbd.image.metadata.ImageFile;
import io.qnbd.image.raw.RawImage;
import java.io.IOException;
import java.nio.ByteBuffer;
import java.nio.file.Files;
import java.nio.file.InvalidPathException;
import java.nio.file.NoSuchFileException;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.HashSet;
import java.util.List;
import java.util.Set;
import java.util.regex.Pattern;
import org.jspecify.annotations.Nullable;
import org.slf4j.Logger;
import org.slf4j.LoggerFactory;

/** Opens images by path, and with them the chain of backing files that they name. */
public final class ImageFiles {
  private static final Logger LOG = LoggerFactory.getLogger(ImageFiles.class);

  /** Each file of a chain is one more look-up for a read that falls through; ours ends here. */
  private static final int CHAIN_FILES_MAX = 64;

  /** What QEMU takes for a protocol: a word and a colon before any slash. */
  private static final Pattern PROTOCOL = Pattern.compile("[A-Za-z][A-Za-z0-9+.-]*:.*");

  private final BackingPolicy policy;
  private final ProgressListener progress;
  private final Set<FileStorage.Identity> chain = new HashSet<>();

  /** Whether any image of the chain is. */
  private boolean encrypted;

  /** Opens the images of one chain. */
  ImageFiles(BackingPolicy policy, ProgressListener progress) {
    this.policy = policy;
    this.progress = progress;
  }

  /** Opens, locks and returns the image; see {@link io.qnbd.image.DiskImages#open}. */
  public static DiskImage open(Path path, OpenOptions options, ProgressListener progress)
      throws IOException {
    ImageFiles files = new ImageFiles(options.backingPolicy(), progress);
    DiskImage image = files.openFile(path, options);
    try {
      requireNeeded(path, options, files.encrypted);
    } catch (IOException e) {
      image.close();
      throw e;
    }
    return image;
  }

  /** Throws if there is a passphrase for nothing: whoever gave it thinks that data is encrypted. */
  static void requireNeeded(Path path, OpenOptions options, boolean encrypted) throws IOException {
    if (options.passphrase() != null && !encrypted) {
      throw new IOException(path + ": is not encrypted, but a passphrase was given for it");
    }
  }

  /** Whether any image that was opened here is. */
  boolean encrypted() {
    return encrypted;
  }

  /** Opens an image under an overlay; see {@link io.qnbd.image.DiskImages#openTemporary}. */
  public static DiskImage openTemporary(
      Path path, OpenOptions options, Path directory, ProgressListener progress)
      throws IOException {
    return TemporaryOverlay.open(
        open(path, options.withReadOnly(true), progress), options, directory);
  }

  /** Reverts an image at rest; see {@link io.qnbd.image.DiskImages#applySnapshot}. */
  public static void applySnapshot(
      Path path, String snapshot, OpenOptions how, ProgressListener progress) throws IOException {
    OpenOptions options = how.withFormat(ImageFormat.QCOW2).withSnapshot(null).withReadOnly(false);
    List<String> wrongBitmaps = List.of();
    try (DiskImage image = open(path, options, progress)) {
      if (image instanceof Qcow2Image qcow2) {
        wrongBitmaps = qcow2.revertTo(snapshot);
      }
    }
    // The dirty bit, where the format has one, has kept others from writing since.
    try (FileStorage file = FileStorage.open(path, false, CacheMode.WRITEBACK)) {
      lock(file, options);
      Rebuild.rebuild(file, progress);
    }
    if (!wrongBitmaps.isEmpty()) {
      try (DiskImage image = open(path, options, progress)) {
        if (image instanceof Qcow2Image qcow2) {
          qcow2.rightBitmaps(wrongBitmaps);
        }
      }
    }
  }

  /** Compacts an image at rest; see {@link io.qnbd.image.DiskImages#compact}. */
  public static Compaction compact(Path path, OpenOptions options, ProgressListener progress)
      throws IOException {
    // With nothing reserved ahead, so that nothing but what is in use is in the way.
    Compaction done;
    try (DiskImage image = open(path, options.withRefReserve(0), progress)) {
      done = image.compact(progress);
    }
    return done;
  }

  /** Resizes an image at rest; see {@link io.qnbd.image.DiskImages#resize}. */
  public static void resize(
      Path path, OpenOptions options, ResizeOptions resize, ProgressListener progress)
      throws IOException {
    try (DiskImage image = open(path, options, progress)) {
      long old = image.virtualBytes();
      long bytes = resize.bytes();
      if (bytes < old && !resize.shrink()) {
        throw new IOException(
            "%s: its disk has %d bytes and would lose what lies behind %d; say --shrink if that is"
                    .formatted(path, old, bytes)
                + " meant");
      }
      if (image instanceof RawImage && resize.preallocation() == Preallocation.METADATA) {
        throw new IOException(path + ": a raw image has no metadata to preallocate");
      }
      switch (image) {
        case Qcow2Image qcow2 when bytes <= old && resize.shrink() -> qcow2.shrink(bytes);
        case RawImage raw when bytes < old -> raw.shrink(bytes);
        default -> image.resize(bytes);
      }
      if (bytes > old && resize.preallocation() != Preallocation.OFF) {
        switch (image) {
          case Qcow2Image qcow2 ->
              qcow2.preallocate(old, bytes - old, resize.preallocation(), progress);
          case RawImage raw -> raw.preallocate(old, bytes - old, resize.preallocation(), progress);
          default -> throw new AssertionError("no such image can be preallocated: " + image);
        }
        image.flush();
      }
    }
  }

  /** Amends an image at rest; see {@link io.qnbd.image.DiskImages#amend}. */
  public static void amend(
      Path path, OpenOptions how, AmendOptions amend, ProgressListener progress)
      throws IOException {
    OpenOptions options = how.withFormat(ImageFormat.QCOW2).withReadOnly(false);
    boolean zeroesGo = requireAmendable(path, options, amend);
    try (KeySlots slots = checkKeys(path, options, amend.keys())) {
      if (zeroesGo) {
        expandZeroes(path, options, progress);
      }
      try (FileStorage file = openForChange(path)) {
        Amending.amend(file, amend, progress);
        if (slots != null) {
          slots.write(file);
        }
      }
    }
  }

  /** Returns whether clusters of zeroes must go before the image is what it shall be. */
  private static boolean requireAmendable(Path path, OpenOptions options, AmendOptions amend)
      throws IOException {
    try (FileStorage file = openForReading(path, options)) {
      boolean zeroesGo = Amending.check(file, amend);
      if (!zeroesGo) { // else opening it tells, with all that lies below
        int method = ImageFile.of(file).readHeader().cryptMethod();
        requireNeeded(path, options, method != Header.CRYPT_NONE);
      }
      return zeroesGo;
    }
  }

  private static @Nullable KeySlots checkKeys(
      Path path, OpenOptions options, @Nullable KeyChange keys) throws IOException {
    if (keys == null) {
      return null;
    }
    try (FileStorage file = openForReading(path, options)) {
      return KeySlots.check(file, options.passphrase(), keys);
    }
  }

  private static void expandZeroes(Path path, OpenOptions options, ProgressListener progress)
      throws IOException {
    try (DiskImage image = open(path, options, progress)) {
      if (image instanceof Qcow2Image qcow2) {
        qcow2.expandZeroes(progress);
      }
    }
  }

  /** Opens and locks a file for a look at it; the caller closes it. */
  public static FileStorage openForReading(Path path, OpenOptions options) throws IOException {
    FileStorage file = FileStorage.open(path, true, CacheMode.WRITEBACK);
    boolean done = false;
    try {
      lock(file, options.withReadOnly(true));
      done = true;
      return file;
    } finally {
      if (!done) {
        file.close();
      }
    }
  }

  /** Opens and locks a file whose metadata is to be changed; the caller closes it. */
  public static FileStorage openForChange(Path path) throws IOException {
    FileStorage file = FileStorage.open(path, false, CacheMode.WRITEBACK);
    boolean done = false;
    try {
      lock(file, OpenOptions.DEFAULT);
      done = true;
      return file;
    } finally {
      if (!done) {
        file.close();
      }
    }
  }

  /** Opens an image of the chain with what lies below it. */
  DiskImage openFile(Path path, OpenOptions options) throws IOException {
    FileStorage file = FileStorage.open(path, options.readOnly(), options.cacheMode());
    boolean done = false;
    try {
      lock(file, options);
      ImageFormat format = formatOf(file, options);
      addToChain(path, file);
      DiskImage image =
          switch (format) {
            case RAW -> openRaw(file, options);
            case QCOW2 -> Qcow2Image.open(file, options, new NamedFiles(path, options), progress);
          };
      encrypted |= image instanceof Qcow2Image qcow2 && qcow2.encrypted();
      done = true;
      return image;
    } finally {
      if (!done) {
        file.close();
      }
    }
  }

  /** Opens the files that the image at {@code path} names. */
  private final class NamedFiles implements BackingOpener {
    private final Path path;
    private final OpenOptions options;

    NamedFiles(Path path, OpenOptions options) {
      this.path = path;
      this.options = options;
    }

    @Override
    public DiskImage open(String name, ImageFormat format) throws IOException {
      return openBacking(path, name, format, options);
    }

    @Override
    public Storage openData(@Nullable String name) throws IOException {
      return openDataFile(path, name, options);
    }
  }

  private static DiskImage openRaw(FileStorage file, OpenOptions options) throws IOException {
    if (options.snapshot() != null) {
      throw new UnsupportedImageException(file.name() + ": a raw image has no snapshots");
    }
    if (options.dataFile() != null) {
      throw new UnsupportedImageException(file.name() + ": a raw image has no data file beside it");
    }
    return RawImage.open(file, options.readOnly());
  }

  /** Takes the locks that QEMU respects, for as long as the file is open. */
  static void lock(FileStorage file, OpenOptions options) throws IOException {
    FileLocks.Use use = options.readOnly() ? FileLocks.Use.READER : FileLocks.Use.WRITER;
    if (!options.forceShare() && !FileLocks.lock(file, use)) {
      LOG.warn(
          "{}: its file system has no locks: nothing keeps another process from writing to it",
          file.path());
    }
  }

  /** The format given, or the one that the file's first bytes say. */
  public static ImageFormat formatOf(Storage file, OpenOptions options) throws IOException {
    if (options.format() != null) {
      return options.format();
    }
    ByteBuffer start = ByteBuffer.allocate(Integer.BYTES);
    file.read(0, start);
    if (Header.hasMagic(start.flip())) {
      return ImageFormat.QCOW2;
    }
    if (options.readOnly()) {
      return ImageFormat.RAW;
    }
    throw new UnsupportedImageException(
        file.name()
            + ": is not a qcow2 image; if it is a raw one, say so with --format raw: a guest could"
            + " write a qcow2 header into a raw image, so its format is never guessed for writing");
  }

  /**
   * Makes an image at {@code path}, and removes it again if that fails; see {@link
   * io.qnbd.image.DiskImages#create}.
   *
   * @param lookAtBacking whether a backing file must be there and be what the options say
   */
  public static void create(
      Path path, CreateOptions options, boolean lookAtBacking, ProgressListener progress)
      throws IOException {
    boolean look = lookAtBacking && options.backingFile() != null;
    CreateOptions complete = look ? checkBacking(path, options) : options;
    try (FileStorage file = FileStorage.create(path, CacheMode.WRITEBACK)) {
      boolean done = false;
      try {
        FileLocks.lock(file, FileLocks.Use.WRITER);
        createWithData(path, file, complete, progress);
        done = true;
      } finally {
        if (!done) {
          Files.deleteIfExists(path);
        }
      }
    }
  }

  /** Makes the image in {@code file}, and before it the data file, if it is to have one. */
  private static void createWithData(
      Path path, FileStorage file, CreateOptions options, ProgressListener progress)
      throws IOException {
    Path name = options.dataFile();
    if (name == null) {
      ImageCreator.create(file, options, progress);
      return;
    }
    Path dataPath = directoryOf(path).resolve(name);
    try (FileStorage data = FileStorage.create(dataPath, CacheMode.WRITEBACK)) {
      boolean done = false;
      try {
        FileLocks.lock(data, FileLocks.Use.WRITER);
        ImageCreator.create(file, options, progress);
        ImageCreator.createDataFile(data, options, progress);
        done = true;
      } finally {
        if (!done) {
          Files.deleteIfExists(dataPath);
        }
      }
    }
  }

  /** Opens the backing file to see that it is what the options say, and takes its size if asked. */
  private static CreateOptions checkBacking(Path path, CreateOptions options) throws IOException {
    Path backing = options.backingFile();
    ImageFormat format = options.backingFormat();
    if (backing == null || format == null) {
      throw new IOException(path + ": the format of a backing file must be given");
    }
    Path backingPath = directoryOf(path).resolve(backing);
    OpenOptions reading =
        OpenOptions.DEFAULT
            .withReadOnly(true)
            .withFormat(format)
            .withBackingPolicy(BackingPolicy.ANY);
    Long bytes = bytesIfEncrypted(backingPath, reading);
    if (bytes == null) {
      try (DiskImage image = open(backingPath, reading, ProgressListener.NONE)) {
        bytes = image.virtualBytes();
      }
    }
    return options.virtualBytes() != null ? options : options.withVirtualBytes(bytes);
  }

  /** The size of the disk if it takes a passphrase to open it, else null. */
  private static @Nullable Long bytesIfEncrypted(Path path, OpenOptions options)
      throws IOException {
    if (options.format() == ImageFormat.RAW) {
      return null;
    }
    try (FileStorage file = openForReading(path, options)) {
      Header header = ImageFile.of(file).readHeader();
      return header.cryptMethod() == Header.CRYPT_NONE ? null : header.virtualBytes();
    }
  }

  private DiskImage openBacking(Path overlay, String name, ImageFormat format, OpenOptions options)
      throws IOException {
    return openFile(
        allowed(overlay, "backing file", name),
        options.withSnapshot(null).withReadOnly(true).withFormat(format).withDataFile(null));
  }

  /** The data file that was given or else, if the policy allows it, the one that is named. */
  private FileStorage openDataFile(Path image, @Nullable String name, OpenOptions options)
      throws IOException {
    Path path = options.dataFile();
    if (path == null) {
      if (name == null) {
        throw new UnsupportedImageException(
            image
                + ": keeps its data in an external data file and does not name it; `qnbd serve"
                + " --data-file` can be told");
      }
      path = allowed(image, "data file", name);
    }
    FileStorage file = FileStorage.open(path, options.readOnly(), options.cacheMode());
    boolean done = false;
    try {
      if (!chain.add(file.identity())) {
        throw new UnsupportedImageException(
            image + ": its data file " + path + " is one of the images that it is read from");
      }
      lock(file, options);
      done = true;
      return file;
    } finally {
      if (!done) {
        file.close();
      }
    }
  }

  /** The path of a file that an image names, if the policy allows it. */
  Path allowed(Path image, String what, String name) throws IOException {
    if (policy == BackingPolicy.NONE) {
      throw new UnsupportedImageException(
          "%s: names the %s %s, and --backing-policy none forbids any"
              .formatted(image, what, name));
    }
    if (PROTOCOL.matcher(name).matches()) {
      throw new UnsupportedImageException(
          "%s: names the %s %s, which is not a plain path".formatted(image, what, name));
    }
    Path directory = directoryOf(image);
    Path path;
    try {
      path = directory.resolve(name);
    } catch (InvalidPathException e) {
      throw new UnsupportedImageException(
          "%s: its %s's name can't be said in this locale: set LC_ALL=C.UTF-8 (%s)"
              .formatted(image, what, e.getReason()));
    }
    try {
      Path real = path.toRealPath(); // also to see that it is there
      if (policy == BackingPolicy.SAME_DIRECTORY && !real.startsWith(directory.toRealPath())) {
        throw new UnsupportedImageException(
            ("%s: its %s %s is outside the image's directory; allow it with --backing-policy any if"
                    + " you trust the image")
                .formatted(image, what, path));
      }
    } catch (NoSuchFileException e) {
      throw new IOException(
          "%s: its %s %s does not exist%s"
              .formatted(
                  image,
                  what,
                  path,
                  what.equals("data file")
                      ? "; `qnbd serve --data-file` can be told where it is"
                      : ""),
          e);
    }
    return path;
  }

  /** Describes an image and those below it; see {@link io.qnbd.image.DiskImages#inspectChain}. */
  public static List<ImageReport> inspectChain(Path path, OpenOptions options) throws IOException {
    return new ImageFiles(options.backingPolicy(), ProgressListener.NONE)
        .describeChain(path, options);
  }

  private List<ImageReport> describeChain(Path top, OpenOptions options) throws IOException {
    List<ImageReport> reports = new ArrayList<>();
    Path path = top;
    @Nullable ImageFormat format = options.format();
    while (true) {
      try (FileStorage file = openForReading(path, options)) {
        addToChain(path, file);
        ImageReport report = Inspector.inspect(path, file, format, file.diskBytes());
        reports.add(report);
        ImageReport.Qcow2Details qcow2 = report.qcow2();
        if (qcow2 == null || qcow2.backingFile() == null) {
          return reports;
        }
        format = Qcow2Opener.backingFormat(file, qcow2.backingFile(), qcow2.backingFormat());
        path = allowed(path, "backing file", qcow2.backingFile());
      }
    }
  }

  private void addToChain(Path path, FileStorage file) throws IOException {
    if (!chain.add(file.identity())) {
      throw new UnsupportedImageException(
          path + ": its chain of backing files leads back to itself");
    }
    if (chain.size() > CHAIN_FILES_MAX) {
      throw new UnsupportedImageException(
          path + ": the chain of backing files is longer than " + CHAIN_FILES_MAX);
    }
  }

  static Path directoryOf(Path image) {
    Path parent = image.toAbsolutePath().getParent();
    return parent == null ? image.toAbsolutePath() : parent;
  }
}
