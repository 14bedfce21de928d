package io.qnbd.image.io;

import static java.lang.foreign.ValueLayout.ADDRESS;
import static java.lang.foreign.ValueLayout.JAVA_INT;
import static java.lang.foreign.ValueLayout.JAVA_LONG;
import static java.lang.foreign.ValueLayout.JAVA_SHORT;

import io.qnbd.image.NoSpaceException;
import java.io.IOException;
import java.lang.foreign.Arena;
import java.lang.foreign.FunctionDescriptor;
import java.lang.foreign.Linker;
import java.lang.foreign.MemoryLayout;
import java.lang.foreign.MemorySegment;
import java.lang.invoke.MethodHandle;
import java.lang.invoke.VarHandle;
import java.lang.ref.Reference;
import java.nio.ByteBuffer;
import java.nio.file.Path;
import org.jspecify.annotations.Nullable;

/**
 * The system calls on files: the only class with native calls. Linux on x86_64 and aarch64, whose
 * numbers below are the same except where said.
 *
 * <p>As in the kernel, a result below 0 is an error number, negated; {@link #failure} makes the
 * exception. Calls that a signal interrupted are made again.
 *
 * <p>A call holds its thread, and the carrier of a virtual one, until the kernel returns.
 */
@SuppressWarnings("restricted") // native calls are the purpose of this class
final class Posix {
  static final int O_RDONLY = 0;
  static final int O_RDWR = 2;
  static final int O_CREAT = 0x40;
  static final int O_EXCL = 0x80;
  static final int O_NOCTTY = 0x100;
  static final int O_NONBLOCK = 0x800;
  static final int O_CLOEXEC = 0x80000;

  /** The two machines swap this number with O_DIRECTORY's. */
  static final int O_DIRECT = "aarch64".equals(System.getProperty("os.arch")) ? 0x10000 : 0x4000;

  static final int FALLOC_KEEP_SIZE = 1;
  static final int FALLOC_PUNCH_HOLE = 2;
  static final int FALLOC_ZERO_RANGE = 0x10;

  static final short F_RDLCK = 0;
  static final short F_WRLCK = 1;
  static final short F_UNLCK = 2;

  static final int ENOENT = 2;
  static final int EINTR = 4;
  static final int EIO = 5;
  static final int EAGAIN = 11;
  static final int EACCES = 13;
  static final int EEXIST = 17;
  static final int EISDIR = 21;
  static final int EINVAL = 22;
  static final int EFBIG = 27;
  static final int ENOSPC = 28;
  static final int EROFS = 30;
  static final int ENOLCK = 37;
  static final int ENOSYS = 38;
  static final int EOPNOTSUPP = 95;
  static final int EDQUOT = 122;

  private static final int F_OFD_GETLK = 36;
  private static final int F_OFD_SETLK = 37;
  private static final int SEEK_END = 2;
  private static final int SEEK_DATA = 3;
  private static final int SEEK_HOLE = 4;

  /** No data behind the offset. */
  private static final int ENXIO = 6;

  /** Reads what is in the page cache and nothing else (preadv2(2)). */
  private static final int RWF_NOWAIT = 8;

  private static final int FADVISE_WILLNEED = 3;
  private static final int AT_EMPTY_PATH = 0x1000;
  private static final int STATX_BASIC_STATS = 0x7ff;
  private static final int STATX_DIOALIGN = 0x2000;

  /** Bounds the memory that each thread keeps for buffers on the heap. */
  private static final int SCRATCH_BYTES = 64 << 10;

  /**
   * One shape for all calls, since linking a shape takes Java 10 ms at every start. By the rules of
   * both machines an int or a pointer takes a register as a long does, the callee looks at no more
   * of it than it needs, and a register that it does not know of does no harm. Of the result of a
   * function that returns an int the low half counts.
   */
  private static final MethodHandle CALL =
      Linker.nativeLinker()
          .downcallHandle(
              FunctionDescriptor.of(
                  JAVA_LONG, JAVA_LONG, JAVA_LONG, JAVA_LONG, JAVA_LONG, JAVA_LONG, JAVA_LONG),
              Linker.Option.captureCallState("errno"));

  private static final MemorySegment OPEN = function("open");
  private static final MemorySegment CLOSE = function("close");
  private static final MemorySegment PREAD = function("pread");
  private static final MemorySegment PWRITE = function("pwrite");
  private static final MemorySegment FALLOCATE = function("fallocate");
  private static final MemorySegment FTRUNCATE = function("ftruncate");
  private static final MemorySegment FDATASYNC = function("fdatasync");
  private static final MemorySegment FSYNC = function("fsync");
  private static final MemorySegment LSEEK = function("lseek");
  private static final MemorySegment FCNTL = function("fcntl");
  private static final MemorySegment STATX = function("statx");
  private static final MemorySegment FADVISE = function("posix_fadvise");
  private static final MemorySegment STRERROR = function("strerror");

  /** Null with a C library that lacks it. */
  private static final @Nullable MemorySegment PREADV2 =
      Linker.nativeLinker().defaultLookup().find("preadv2").orElse(null);

  private static final VarHandle ERRNO =
      Linker.Option.captureStateLayout()
          .varHandle(MemoryLayout.PathElement.groupElement("errno"))
          .withInvokeExactBehavior();

  private static final ThreadLocal<PerThread> PER_THREAD = ThreadLocal.withInitial(PerThread::new);

  private Posix() {}

  /**
   * What a file is.
   *
   * @param mode type and permissions
   * @param device the file system, major and minor number
   * @param inode the file within its file system
   * @param diskBytes the space taken
   * @param directMemoryBytes alignment that O_DIRECT wants of memory, or 0 if the kernel can't say
   * @param directOffsetBytes alignment that O_DIRECT wants of offsets, or 0 if it can't say
   */
  record Stat(
      int mode,
      long device,
      long inode,
      long diskBytes,
      int directMemoryBytes,
      int directOffsetBytes) {
    private static final int TYPE_MASK = 0170000;
    private static final int DIRECTORY = 0040000;
    private static final int BLOCK_DEVICE = 0060000;
    private static final int REGULAR = 0100000;

    boolean directory() {
      return (mode & TYPE_MASK) == DIRECTORY;
    }

    boolean blockDevice() {
      return (mode & TYPE_MASK) == BLOCK_DEVICE;
    }

    /** Whether bytes can be read and written at offsets. */
    boolean addressable() {
      return (mode & TYPE_MASK) == REGULAR || blockDevice();
    }
  }

  /** Makes once the calls that opening a file takes, on one that is everywhere. */
  static void prepare() {
    String name = "/dev/null";
    int fd = open(Path.of(name), O_RDONLY, 0);
    if (fd >= 0) {
      try {
        stat(fd, name);
      } catch (IOException _) {
        // whoever opens an image will hear of it
      }
      length(fd);
      close(fd);
    }
  }

  /** Opens a file; the new descriptor is not inherited by child processes. */
  static int open(Path path, int flags, int permissions) {
    try (Arena arena = Arena.ofConfined()) {
      MemorySegment name = arena.allocateFrom(path.toString());
      int result;
      do {
        result = call(OPEN, name.address(), flags | O_CLOEXEC, permissions);
      } while (result == -EINTR);
      return result;
    }
  }

  /** Closes a descriptor; also after an error it is gone and must not be closed again. */
  static int close(int fd) {
    return call(CLOSE, fd, 0, 0);
  }

  /**
   * Reads at {@code at} until {@code target} is full or the file ends, and advances the buffer.
   *
   * @param granule a count that is no multiple of it says that the file ended: with O_DIRECT the
   *     alignment, so that the next call is aligned; otherwise 1
   * @return the bytes read, or an error
   */
  static long read(int fd, long at, ByteBuffer target, int granule) {
    if (!target.isDirect()) {
      return readToHeap(fd, at, target);
    }
    long memory = MemorySegment.ofBuffer(target).address();
    int start = target.position();
    long bytes = target.remaining();
    long done = 0;
    try {
      while (done < bytes) {
        long count = longCall(PREAD, fd, memory + done, bytes - done, at + done, 0);
        if (count == -EINTR) {
          continue;
        }
        if (count < 0) {
          return count;
        }
        done += count;
        if (count == 0 || done % granule != 0) {
          break;
        }
      }
    } finally {
      Reference.reachabilityFence(target);
      target.position(start + (int) done);
    }
    return done;
  }

  /**
   * Reads into {@code target}, a direct buffer that stays as it is, what of it the page cache has.
   *
   * @return the bytes read, which may be fewer than asked for any reason, or an error
   */
  static long tryRead(int fd, long at, ByteBuffer target) {
    if (PREADV2 == null) {
      return -ENOSYS;
    }
    MemorySegment vector = PER_THREAD.get().vector;
    vector.set(ADDRESS, 0, MemorySegment.ofBuffer(target));
    vector.set(JAVA_LONG, 8, target.remaining());
    try {
      return longCall(PREADV2, fd, vector.address(), 1, at, RWF_NOWAIT);
    } finally {
      Reference.reachabilityFence(target);
    }
  }

  private static long readToHeap(int fd, long at, ByteBuffer target) {
    ByteBuffer scratch = PER_THREAD.get().scratch();
    long done = 0;
    while (target.hasRemaining()) {
      scratch.clear().limit(Math.min(target.remaining(), scratch.capacity()));
      int asked = scratch.remaining();
      long count = read(fd, at + done, scratch, 1);
      if (count < 0) {
        return count;
      }
      target.put(scratch.flip());
      done += count;
      if (count < asked) {
        break;
      }
    }
    return done;
  }

  /**
   * Writes all that remains in {@code source} at {@code at}, and advances the buffer.
   *
   * @return 0, or an error
   */
  static long write(int fd, long at, ByteBuffer source) {
    if (!source.isDirect()) {
      return writeFromHeap(fd, at, source);
    }
    long memory = MemorySegment.ofBuffer(source).address();
    int start = source.position();
    long bytes = source.remaining();
    long done = 0;
    boolean stuck = false;
    try {
      while (done < bytes) {
        long count = longCall(PWRITE, fd, memory + done, bytes - done, at + done, 0);
        if (count == -EINTR) {
          continue;
        }
        if (count < 0) {
          return count;
        }
        if (count == 0 && stuck) {
          return -EIO; // twice nothing, and no reason given
        }
        stuck = count == 0;
        done += count;
      }
      return 0;
    } finally {
      Reference.reachabilityFence(source);
      source.position(start + (int) done);
    }
  }

  private static long writeFromHeap(int fd, long at, ByteBuffer source) {
    ByteBuffer scratch = PER_THREAD.get().scratch();
    long done = 0;
    while (source.hasRemaining()) {
      int count = Math.min(source.remaining(), scratch.capacity());
      scratch.clear();
      scratch.put(0, source, source.position(), count).limit(count);
      long result = write(fd, at + done, scratch);
      source.position(source.position() + scratch.position());
      if (result < 0) {
        return result;
      }
      done += count;
    }
    return 0;
  }

  static int fallocate(int fd, int mode, long at, long bytes) {
    int result;
    do {
      result = call(FALLOCATE, fd, mode, at, bytes, 0);
    } while (result == -EINTR);
    return result;
  }

  static int ftruncate(int fd, long bytes) {
    int result;
    do {
      result = call(FTRUNCATE, fd, bytes, 0);
    } while (result == -EINTR);
    return result;
  }

  static int fdatasync(int fd) {
    int result;
    do {
      result = call(FDATASYNC, fd, 0, 0);
    } while (result == -EINTR);
    return result;
  }

  static int fsync(int fd) {
    int result;
    do {
      result = call(FSYNC, fd, 0, 0);
    } while (result == -EINTR);
    return result;
  }

  /** The length in bytes of a file or block device, or an error. */
  static long length(int fd) {
    return longCall(LSEEK, fd, 0, SEEK_END, 0, 0);
  }

  /**
   * Where the next byte is, from {@code at} on, that is not in a hole; {@link Long#MAX_VALUE} if
   * none is, an error, negative, where the file system can't say. Moves the descriptor's offset,
   * which nothing here uses.
   */
  static long nextData(int fd, long at) {
    return seek(fd, at, SEEK_DATA, Long.MAX_VALUE);
  }

  /** The same for the next byte that is in a hole, as all from the end of the file on are. */
  static long nextHole(int fd, long at) {
    return seek(fd, at, SEEK_HOLE, at);
  }

  private static long seek(int fd, long at, int whence, long pastEnd) {
    long result = longCall(LSEEK, fd, at, whence, 0, 0);
    return result == -ENXIO ? pastEnd : result;
  }

  /** Starts reading the range into the page cache; a range of 0 bytes reaches to the end. */
  static int prefetch(int fd, long at, long bytes) {
    return -call(
        FADVISE, fd, at, bytes, FADVISE_WILLNEED, 0); // it reports by its result, not errno
  }

  /**
   * Describes an open file.
   *
   * <pre>
   * struct statx (statx(2)), native byte order
   *  0x00 mask u32       0x1c mode u16       0x20 inode u64
   *  0x30 blocks of 512 bytes u64            0x88 device major u32, minor u32
   *  0x98 O_DIRECT memory alignment u32      0x9c offset alignment u32
   * </pre>
   */
  static Stat stat(int fd, String name) throws IOException {
    try (Arena arena = Arena.ofConfined()) {
      MemorySegment stat = arena.allocate(256, 8);
      MemorySegment path = arena.allocateFrom("");
      int mask = STATX_BASIC_STATS | STATX_DIOALIGN;
      int result = call(STATX, fd, path.address(), AT_EMPTY_PATH, mask, stat.address());
      if (result < 0) {
        throw failure("examining " + name, -result);
      }
      boolean alignment = (stat.get(JAVA_INT, 0) & STATX_DIOALIGN) != 0;
      return new Stat(
          Short.toUnsignedInt(stat.get(JAVA_SHORT, 0x1c)),
          Integer.toUnsignedLong(stat.get(JAVA_INT, 0x88)) << 32
              | Integer.toUnsignedLong(stat.get(JAVA_INT, 0x8c)),
          stat.get(JAVA_LONG, 0x20),
          stat.get(JAVA_LONG, 0x30) * 512,
          alignment ? stat.get(JAVA_INT, 0x98) : 0,
          alignment ? stat.get(JAVA_INT, 0x9c) : 0);
    }
  }

  /** Sets or clears, without waiting, a lock of the open file description. */
  static int lock(int fd, short type, long first, long bytes) {
    try (Arena arena = Arena.ofConfined()) {
      MemorySegment flock = flock(arena, type, first, bytes);
      return call(FCNTL, fd, F_OFD_SETLK, flock.address());
    }
  }

  /**
   * 1 if another open file description has a lock that excludes this one, 0 if not, or an error.
   */
  static int excluded(int fd, short type, long first, long bytes) {
    try (Arena arena = Arena.ofConfined()) {
      MemorySegment flock = flock(arena, type, first, bytes);
      int result = call(FCNTL, fd, F_OFD_GETLK, flock.address());
      if (result < 0) {
        return result;
      }
      return flock.get(JAVA_SHORT, 0) == F_UNLCK ? 0 : 1;
    }
  }

  /**
   * The kernel's lock record; {@code whence} 0 counts from the file's beginning and {@code pid}
   * must be 0 for locks of an open file description.
   *
   * <pre>
   * struct flock (fcntl(2)), 32 bytes: type i16 @0, whence i16 @2, start i64 @8, len i64 @16, pid i32 @24
   * </pre>
   */
  private static MemorySegment flock(Arena arena, short type, long first, long bytes) {
    MemorySegment flock = arena.allocate(32, 8);
    flock.set(JAVA_SHORT, 0, type);
    flock.set(JAVA_LONG, 8, first);
    flock.set(JAVA_LONG, 16, bytes);
    return flock;
  }

  /** The exception for {@code errno}: the operation, then the kernel's reason. */
  static IOException failure(String operation, int errno) {
    String message = operation + ": " + reason(errno);
    return switch (errno) {
      case ENOSPC, EDQUOT, EFBIG -> new NoSpaceException(message);
      default -> new IOException(message);
    };
  }

  static String reason(int errno) {
    MemorySegment text = MemorySegment.ofAddress(longCall(STRERROR, errno, 0, 0, 0, 0));
    return text.reinterpret(256).getString(0);
  }

  /** Makes a call whose result is an int. */
  private static int call(MemorySegment function, long a, long b, long c) {
    return call(function, a, b, c, 0, 0);
  }

  private static int call(MemorySegment function, long a, long b, long c, long d, long e) {
    MemorySegment state = PER_THREAD.get().state;
    int result = (int) invoke(function, state, a, b, c, d, e);
    return result == -1 ? -(int) ERRNO.get(state, 0L) : result;
  }

  /** Makes a call whose result is a long. */
  private static long longCall(MemorySegment function, long a, long b, long c, long d, long e) {
    MemorySegment state = PER_THREAD.get().state;
    long result = invoke(function, state, a, b, c, d, e);
    return result == -1 ? -(int) ERRNO.get(state, 0L) : result;
  }

  private static long invoke(
      MemorySegment function, MemorySegment state, long a, long b, long c, long d, long e) {
    try {
      return (long) CALL.invokeExact(function, state, a, b, c, d, e, 0L);
    } catch (Error | RuntimeException unchecked) {
      throw unchecked;
    } catch (Throwable declared) {
      throw new AssertionError("a native call throws nothing", declared);
    }
  }

  private static MemorySegment function(String name) {
    return Linker.nativeLinker().defaultLookup().findOrThrow(name);
  }

  /** Memory that native calls of one thread use, so that a call allocates none. */
  private static final class PerThread {
    private final MemorySegment state = Arena.ofAuto().allocate(Linker.Option.captureStateLayout());

    /** A struct iovec: address, length. */
    private final MemorySegment vector = Arena.ofAuto().allocate(16, 8);

    private @Nullable ByteBuffer scratch;

    ByteBuffer scratch() {
      if (scratch == null) {
        scratch = ByteBuffer.allocateDirect(SCRATCH_BYTES);
      }
      return scratch;
    }
  }
}
