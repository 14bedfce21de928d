package io.qnbd.image.io;

import io.qnbd.image.CacheMode;
import io.qnbd.image.ZeroMode;
import java.io.IOException;
import java.nio.ByteBuffer;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.UUID;
import java.util.concurrent.locks.LockSupport;
import org.jspecify.annotations.Nullable;

/**
 * A file or block device of the host.
 *
 * <p>With {@link CacheMode#direct} it is opened a second time with O_DIRECT, and {@link DirectIo}
 * makes any alignment work; with {@link CacheMode#ignoresFlush} syncs do nothing.
 *
 * <p>{@link #length} asks the kernel each time (a system call of some 100 ns): a remembered length
 * would be wrong as soon as two changes of length met, or another process changed the file.
 *
 * <p>Buffers move without a copy when they are direct and, with O_DIRECT, aligned.
 *
 * <p>A read sees each sector of 512 bytes whole, as one write or another left it, also while they
 * are under way: {@link WriteStamps} finds what met a write, and that is read again. Writes of one
 * sector exclude each other in the kernel.
 *
 * <p>Thread-safe, except that {@link #close} must not be called while another call is in progress:
 * the kernel may give the descriptor's number to another file at once. After it every call fails.
 */
public final class FileStorage implements Storage {
  /** Read and write for the owner, read for others, less the process's mask. */
  private static final int PERMISSIONS = 0644;

  private static final int PERMISSIONS_PRIVATE = 0600;

  /** What is written where the host can't zero a range by itself; aligned for O_DIRECT. */
  private static final ByteBuffer ZEROES =
      ByteBuffer.allocateDirect(2 * DirectIo.BOUNCE_BYTES)
          .alignedSlice(DirectIo.BLOCK_BYTES_MIN)
          .slice(0, DirectIo.BOUNCE_BYTES)
          .asReadOnlyBuffer();

  private static final int CLOSED = -1;

  /** What is read at once, and kept stamps of, in a file that is written to. */
  private static final int WINDOW_BYTES = 1 << 20;

  /** A write of a page takes about as long. */
  private static final int SPINS = 64;

  private static final long PAUSE_NANOS = 20_000;

  private final Path path;
  private final String name;
  private final boolean readOnly;
  private final boolean ignoresSync;
  private final boolean blockDevice;
  private final Identity identity;
  private final @Nullable DirectIo direct;

  /** Of writes through this object; nobody else's are met, since the file is locked for writing. */
  private final @Nullable WriteStamps writes;

  private volatile int fd;

  /** Whether the host has refused to say what it has in memory. */
  private volatile boolean triesUseless;

  /**
   * Which file it is, whatever path led to it.
   *
   * @param device the file system
   * @param inode the file within it
   */
  public record Identity(long device, long inode) {
    /** By hand: what Java makes for a record it makes at every start, in some 10 ms. */
    @Override
    public int hashCode() {
      return Long.hashCode(device) * 31 + Long.hashCode(inode);
    }
  }

  private FileStorage(Path path, boolean readOnly, CacheMode mode, int fd) throws IOException {
    this.path = path;
    this.name = name(path);
    this.readOnly = readOnly;
    this.ignoresSync = mode.ignoresFlush();
    this.fd = fd;
    Posix.Stat stat = Posix.stat(fd, name);
    if (stat.directory()) {
      throw new IOException(path + " is a directory, not an image file");
    }
    if (!stat.addressable()) {
      throw new IOException(path + " is neither a regular file nor a block device");
    }
    this.blockDevice = stat.blockDevice();
    this.identity = new Identity(stat.device(), stat.inode());
    this.direct = mode.direct() ? openDirect(path, readOnly, fd, identity) : null;
    this.writes = readOnly ? null : new WriteStamps();
  }

  /** Lets Java link the system calls that opening a file takes, before somebody waits for it. */
  public static void prepare() {
    Posix.prepare();
  }

  /** Opens a file that is there. The caller closes it. */
  public static FileStorage open(Path path, boolean readOnly, CacheMode mode) throws IOException {
    // A pipe without a writer would block the open, but for O_NONBLOCK; files ignore it.
    int flags = (readOnly ? Posix.O_RDONLY : Posix.O_RDWR) | Posix.O_NOCTTY | Posix.O_NONBLOCK;
    int fd = Posix.open(path, flags, 0);
    if (fd < 0) {
      throw openFailure(path, readOnly, -fd);
    }
    try {
      return new FileStorage(path, readOnly, mode, fd);
    } catch (IOException | RuntimeException | Error e) {
      Posix.close(fd);
      throw e;
    }
  }

  /**
   * Makes an empty file, whose name is durable when this returns; fails if something is there. The
   * caller closes it.
   */
  public static FileStorage create(Path path, CacheMode mode) throws IOException {
    return create(path, mode, PERMISSIONS);
  }

  /**
   * Makes an empty file in {@code directory}, for this user only, that has lost its name when this
   * returns: its space is the host's again when it is closed or the process ends, however it ends.
   * Syncs do nothing. The caller closes it.
   */
  public static FileStorage createUnnamed(Path directory) throws IOException {
    Path path = directory.resolve("qnbd-temporary-" + UUID.randomUUID());
    FileStorage file = create(path, CacheMode.UNSAFE, PERMISSIONS_PRIVATE);
    try {
      Files.delete(path);
      return file;
    } catch (IOException | RuntimeException | Error e) {
      file.close();
      throw e;
    }
  }

  private static FileStorage create(Path path, CacheMode mode, int permissions) throws IOException {
    int flags = Posix.O_RDWR | Posix.O_CREAT | Posix.O_EXCL | Posix.O_NOCTTY;
    int fd = Posix.open(path, flags, permissions);
    if (fd < 0) {
      throw fd == -Posix.EEXIST
          ? new IOException(path + " exists already")
          : Posix.failure("creating " + path, -fd);
    }
    try {
      FileStorage file = new FileStorage(path, false, mode, fd);
      if (!mode.ignoresFlush()) {
        syncDirectory(path);
      }
      return file;
    } catch (IOException | RuntimeException | Error e) {
      Posix.close(fd);
      Files.deleteIfExists(path);
      throw e;
    }
  }

  @Override
  public String name() {
    return name;
  }

  /** The path as given when it was opened. */
  public Path path() {
    return path;
  }

  public boolean readOnly() {
    return readOnly;
  }

  public Identity identity() {
    return identity;
  }

  /** The bytes that the file takes on the host. */
  public long diskBytes() throws IOException {
    return Posix.stat(fd(), name).diskBytes();
  }

  /** The descriptor that locks are set on; it stays this object's. */
  int fd() throws IOException {
    int value = fd;
    if (value == CLOSED) {
      throw new IOException(name + " is closed");
    }
    return value;
  }

  @Override
  public long length() throws IOException {
    return checked(Posix.length(fd()), "finding the length of " + name);
  }

  @Override
  public long nextData(long at, long end) throws IOException {
    long found = Posix.nextData(fd(), at);
    return found < 0 ? at : Math.clamp(found, at, end);
  }

  @Override
  public long nextHole(long at, long end) throws IOException {
    long found = Posix.nextHole(fd(), at);
    return found < 0 ? end : Math.clamp(found, at, end);
  }

  @Override
  public int read(long at, ByteBuffer target) throws IOException {
    int bytes = target.remaining();
    long result = writes == null ? readOnce(at, target) : readWhole(writes, at, target);
    if (result < 0) {
      throw failure("reading", bytes, at, result);
    }
    return (int) result;
  }

  private long readOnce(long at, ByteBuffer target) throws IOException {
    int file = fd();
    return direct == null ? Posix.read(file, at, target, 1) : direct.read(at, target);
  }

  /** By windows, so that a write that is met costs only the window's pages that it touches. */
  private long readWhole(WriteStamps writes, long at, ByteBuffer target) throws IOException {
    int limit = target.limit();
    long done = 0;
    while (target.hasRemaining()) {
      int asked = Math.min(target.remaining(), WINDOW_BYTES);
      target.limit(target.position() + asked);
      long got = readWindow(writes, at + done, target);
      target.limit(limit);
      if (got < 0) {
        return got;
      }
      done += got;
      if (got < asked) {
        break;
      }
    }
    return done;
  }

  private long readWindow(WriteStamps writes, long at, ByteBuffer target) throws IOException {
    int start = target.position();
    int bytes = target.remaining();
    long[] stamps = new long[bytes / WriteStamps.PAGE_BYTES + 2];
    int page = 0;
    for (long from = at; from < at + bytes; from = pageEnd(from, at + bytes)) {
      stamps[page++] = writes.before(from, 1);
    }
    long result = readOnce(at, target);
    page = 0;
    for (long from = at; from < at + result; from = pageEnd(from, at + bytes)) {
      if (!writes.unchanged(from, 1, stamps[page++])) {
        int to = (int) (pageEnd(from, at + result) - from);
        long again = readAgain(writes, from, target.slice(start + (int) (from - at), to));
        if (again < to) {
          target.position(start + (int) (from - at) + (int) Math.max(0, again));
          return again < 0 ? again : from - at + again; // someone cut the file meanwhile
        }
      }
    }
    return result;
  }

  private static long pageEnd(long at, long end) {
    return Math.min(end, (at / WriteStamps.PAGE_BYTES + 1) * WriteStamps.PAGE_BYTES);
  }

  /** Reads inside one page until no write is met. */
  private long readAgain(WriteStamps writes, long at, ByteBuffer target) throws IOException {
    for (int tries = 1; ; tries++) {
      long stamp = writes.before(at, 1);
      if (stamp != WriteStamps.BUSY) {
        target.clear();
        long result = readOnce(at, target);
        if (writes.unchanged(at, 1, stamp)) {
          return result;
        }
      }
      if (tries % SPINS == 0) {
        LockSupport.parkNanos(PAUSE_NANOS);
      } else {
        Thread.onSpinWait();
      }
    }
  }

  /** Never with O_DIRECT, whose reads go to the disk. */
  @Override
  public boolean tryRead(long at, ByteBuffer target) throws IOException {
    if (direct != null || triesUseless || !target.isDirect()) {
      return false;
    }
    int bytes = target.remaining();
    long stamp = writes == null ? 0 : writes.before(at, bytes);
    if (stamp == WriteStamps.BUSY) {
      return false;
    }
    long result = Posix.tryRead(fd(), at, target);
    if (result == bytes) {
      boolean whole = writes == null || writes.unchanged(at, bytes, stamp);
      target.position(target.position() + (whole ? bytes : 0));
      return whole;
    }
    if (result == -Posix.EOPNOTSUPP || result == -Posix.ENOSYS) {
      triesUseless = true; // this file system, or kernel, never knows
    }
    return false; // an error is met again, and told, by whoever reads in earnest
  }

  @Override
  public void write(long at, ByteBuffer source) throws IOException {
    int bytes = source.remaining();
    long result = writeAll(at, source);
    if (result < 0) {
      throw failure("writing", bytes, at, result);
    }
  }

  private long writeAll(long at, ByteBuffer source) throws IOException {
    int file = fd();
    int bytes = source.remaining();
    begin(at, bytes);
    try {
      return direct == null ? Posix.write(file, at, source) : direct.write(at, source);
    } finally {
      end(at, bytes);
    }
  }

  private void begin(long at, long bytes) {
    if (writes != null) {
      writes.begin(at, bytes);
    }
  }

  private void end(long at, long bytes) {
    if (writes != null) {
      writes.end(at, bytes);
    }
  }

  @Override
  public void sync() throws IOException {
    int file = fd();
    if (!ignoresSync) {
      checked(Posix.fdatasync(file), "syncing " + name);
    }
  }

  @Override
  public void setLength(long bytes) throws IOException {
    int file = fd();
    RangeLock.Hold hold = direct == null ? null : direct.holdFrom(Math.min(bytes, length()));
    try {
      checked(
          Posix.ftruncate(file, bytes),
          "setting the length of %s to %d bytes".formatted(name, bytes));
    } finally {
      if (direct != null && hold != null) {
        direct.release(hold);
      }
    }
  }

  @Override
  public void punchHole(long at, long bytes) throws IOException {
    long end = Math.min(at + bytes, length());
    if (at >= end) {
      return;
    }
    int mode = Posix.FALLOC_PUNCH_HOLE | Posix.FALLOC_KEEP_SIZE;
    changeOrWriteZeroes(mode, "punching a hole of", at, end - at);
  }

  @Override
  public void zeroRange(long at, long bytes) throws IOException {
    if (bytes > 0) {
      changeOrWriteZeroes(Posix.FALLOC_ZERO_RANGE, "zeroing", at, bytes);
    }
  }

  /**
   * Of a block device only holes are made: to zero a range and keep its space the kernel writes the
   * zeroes itself where the device has no command for it, and does not tell.
   */
  @Override
  public boolean tryZero(long at, long bytes, ZeroMode mode) throws IOException {
    return switch (mode) {
      case MAY_UNMAP -> {
        long end = Math.min(at + bytes, length());
        int punch = Posix.FALLOC_PUNCH_HOLE | Posix.FALLOC_KEEP_SIZE;
        yield at >= end || change(punch, "punching a hole of", at, end - at);
      }
      case KEEP_ALLOCATED ->
          bytes == 0 || (!blockDevice && change(Posix.FALLOC_ZERO_RANGE, "zeroing", at, bytes));
    };
  }

  @Override
  public void allocate(long at, long bytes) throws IOException {
    if (bytes > 0) {
      int result = fallocate(0, at, bytes);
      if (result < 0 && !unsupported(result)) {
        throw failure("allocating", bytes, at, result);
      }
    }
  }

  @Override
  public void prefetch(long at, long bytes) throws IOException {
    int file = fd();
    if (direct == null && bytes > 0) {
      Posix.prefetch(file, at, bytes); // a hint: what fails here fails when it is read
    }
  }

  /** Closes the file, which also ends its locks. Closing twice is harmless. */
  @Override
  public void close() throws IOException {
    int file = fd;
    if (file == CLOSED) {
      return;
    }
    fd = CLOSED;
    int result = direct == null ? 0 : direct.close();
    int bufferedResult = Posix.close(file);
    checked(result < 0 ? result : bufferedResult, "closing " + name);
  }

  private void changeOrWriteZeroes(int mode, String operation, long at, long bytes)
      throws IOException {
    if (change(mode, operation, at, bytes)) {
      return;
    }
    for (long done = 0; done < bytes; ) {
      int count = (int) Math.min(ZEROES.capacity(), bytes - done);
      long written = writeAll(at + done, ZEROES.slice(0, count));
      if (written < 0) {
        throw failure(operation, bytes, at, written);
      }
      done += count;
    }
  }

  /** False, with nothing changed, where the file system or device has no such call. */
  private boolean change(int mode, String operation, long at, long bytes) throws IOException {
    int result = fallocate(mode, at, bytes);
    if (result < 0 && !unsupported(result)) {
      throw failure(operation, bytes, at, result);
    }
    return result == 0;
  }

  /** The kernel drops whole pages at once and fills only the first and the last with zeroes. */
  private int fallocate(int mode, long at, long bytes) throws IOException {
    begin(at, 1);
    begin(at + bytes - 1, 1);
    try {
      return fallocateUnseen(mode, at, bytes);
    } finally {
      end(at, 1);
      end(at + bytes - 1, 1);
    }
  }

  private int fallocateUnseen(int mode, long at, long bytes) throws IOException {
    int file = fd();
    if (direct == null) {
      return Posix.fallocate(file, mode, at, bytes);
    }
    RangeLock.Hold hold = direct.holdShared(at, bytes);
    try {
      return Posix.fallocate(file, mode, at, bytes);
    } finally {
      direct.release(hold);
    }
  }

  /** EINVAL is a block device's answer to a range that is not made of its sectors. */
  private static boolean unsupported(int result) {
    return result == -Posix.EOPNOTSUPP || result == -Posix.ENOSYS || result == -Posix.EINVAL;
  }

  private IOException failure(String operation, long bytes, long at, long result) {
    return Posix.failure(
        "%s %d bytes at 0x%x of %s".formatted(operation, bytes, at, name), (int) -result);
  }

  private static long checked(long result, String operation) throws IOException {
    if (result < 0) {
      throw Posix.failure(operation, (int) -result);
    }
    return result;
  }

  private static String name(Path path) {
    Path last = path.getFileName();
    return (last == null ? path : last).toString();
  }

  private static IOException openFailure(Path path, boolean readOnly, int errno) {
    return switch (errno) {
      case Posix.ENOENT -> new IOException("there is no file " + path);
      case Posix.EISDIR -> new IOException(path + " is a directory, not an image file");
      case Posix.EACCES, Posix.EROFS ->
          Posix.failure(
              "opening " + path + (readOnly ? " for reading" : " for reading and writing"), errno);
      default -> Posix.failure("opening " + path, errno);
    };
  }

  /** Opens the same file again with O_DIRECT. */
  private static DirectIo openDirect(Path path, boolean readOnly, int buffered, Identity identity)
      throws IOException {
    int flags = (readOnly ? Posix.O_RDONLY : Posix.O_RDWR) | Posix.O_NOCTTY | Posix.O_DIRECT;
    int fd = Posix.open(path, flags, 0);
    if (fd == -Posix.EINVAL || fd == -Posix.EOPNOTSUPP) {
      throw new IOException(
          "the file system of "
              + path
              + " does not support O_DIRECT: use cache mode writeback or writethrough");
    }
    if (fd < 0) {
      throw openFailure(path, readOnly, -fd);
    }
    try {
      Posix.Stat stat = Posix.stat(fd, path.toString());
      if (!identity.equals(new Identity(stat.device(), stat.inode()))) {
        throw new IOException(path + " was replaced by another file while it was opened");
      }
      return new DirectIo(fd, buffered, stat);
    } catch (IOException | RuntimeException | Error e) {
      Posix.close(fd);
      throw e;
    }
  }

  /** Makes a new name durable; a file system that can't sync directories is left alone. */
  private static void syncDirectory(Path path) throws IOException {
    Path parent = path.toAbsolutePath().getParent();
    if (parent == null) {
      return;
    }
    int fd = Posix.open(parent, Posix.O_RDONLY, 0);
    if (fd < 0) {
      throw Posix.failure("opening the directory " + parent, -fd);
    }
    int result = Posix.fsync(fd);
    Posix.close(fd);
    if (result < 0 && result != -Posix.EINVAL) {
      throw Posix.failure("syncing the directory " + parent, -result);
    }
  }
}
