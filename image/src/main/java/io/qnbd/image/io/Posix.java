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
import java.lang.foreign.SymbolLookup;
import java.lang.foreign.ValueLayout;
import java.lang.invoke.MethodHandle;
import java.lang.invoke.VarHandle;
import java.lang.ref.Reference;
import java.nio.ByteBuffer;
import java.nio.file.Path;
import java.util.List;
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

  private static final MethodHandle OPEN =
      call("open", JAVA_INT, List.of(ADDRESS, JAVA_INT, JAVA_INT), 2);
  private static final MethodHandle CLOSE = call("close", JAVA_INT, JAVA_INT);
  private static final MethodHandle PREAD =
      call("pread", JAVA_LONG, JAVA_INT, ADDRESS, JAVA_LONG, JAVA_LONG);
  private static final MethodHandle PWRITE =
      call("pwrite", JAVA_LONG, JAVA_INT, ADDRESS, JAVA_LONG, JAVA_LONG);
  private static final MethodHandle FDATASYNC = call("fdatasync", JAVA_INT, JAVA_INT);
  private static final MethodHandle FSYNC = call("fsync", JAVA_INT, JAVA_INT);
  private static final MethodHandle LSEEK = call("lseek", JAVA_LONG, JAVA_INT, JAVA_LONG, JAVA_INT);
  private static final MethodHandle FCNTL =
      call("fcntl", JAVA_INT, List.of(JAVA_INT, JAVA_INT, ADDRESS), 2);
  private static final MethodHandle STATX =
      call("statx", JAVA_INT, JAVA_INT, ADDRESS, JAVA_INT, JAVA_INT, ADDRESS);

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

  /** Opens a file; the new descriptor is not inherited by child processes. */
  static int open(Path path, int flags, int permissions) {
    try (Arena arena = Arena.ofConfined()) {
      MemorySegment name = arena.allocateFrom(path.toString());
      int result;
      do {
        MemorySegment state = state();
        result = negated((int) OPEN.invokeExact(state, name, flags | O_CLOEXEC, permissions));
      } while (result == -EINTR);
      return result;
    } catch (Throwable e) {
      throw unexpected(e);
    }
  }

  /** Closes a descriptor; also after an error it is gone and must not be closed again. */
  static int close(int fd) {
    try {
      return negated((int) CLOSE.invokeExact(state(), fd));
    } catch (Throwable e) {
      throw unexpected(e);
    }
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
    MemorySegment memory = MemorySegment.ofBuffer(target);
    MemorySegment state = state();
    int start = target.position();
    long bytes = target.remaining();
    long done = 0;
    try {
      while (done < bytes) {
        long count =
            (long) PREAD.invokeExact(state, fd, memory.asSlice(done), bytes - done, at + done);
        if (count < 0) {
          int errno = (int) ERRNO.get(state, 0L);
          if (errno == EINTR) {
            continue;
          }
          return -errno;
        }
        done += count;
        if (count == 0 || done % granule != 0) {
          break;
        }
      }
    } catch (Throwable e) {
      throw unexpected(e);
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
    MethodHandle call = Preadv2.CALL;
    if (call == null) {
      return -ENOSYS;
    }
    PerThread own = PER_THREAD.get();
    MemorySegment vector = own.vector;
    vector.set(ADDRESS, 0, MemorySegment.ofBuffer(target));
    vector.set(JAVA_LONG, 8, target.remaining());
    try {
      long count = (long) call.invokeExact(own.state, fd, vector, 1, at, RWF_NOWAIT);
      return count < 0 ? -(int) ERRNO.get(own.state, 0L) : count;
    } catch (Throwable e) {
      throw unexpected(e);
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
    MemorySegment memory = MemorySegment.ofBuffer(source);
    MemorySegment state = state();
    int start = source.position();
    long bytes = source.remaining();
    long done = 0;
    boolean stuck = false;
    try {
      while (done < bytes) {
        long count =
            (long) PWRITE.invokeExact(state, fd, memory.asSlice(done), bytes - done, at + done);
        if (count < 0) {
          int errno = (int) ERRNO.get(state, 0L);
          if (errno == EINTR) {
            continue;
          }
          return -errno;
        }
        if (count == 0 && stuck) {
          return -EIO; // twice nothing, and no reason given
        }
        stuck = count == 0;
        done += count;
      }
      return 0;
    } catch (Throwable e) {
      throw unexpected(e);
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
    try {
      int result;
      do {
        result = negated((int) Fallocate.CALL.invokeExact(state(), fd, mode, at, bytes));
      } while (result == -EINTR);
      return result;
    } catch (Throwable e) {
      throw unexpected(e);
    }
  }

  static int ftruncate(int fd, long bytes) {
    try {
      int result;
      do {
        result = negated((int) Ftruncate.CALL.invokeExact(state(), fd, bytes));
      } while (result == -EINTR);
      return result;
    } catch (Throwable e) {
      throw unexpected(e);
    }
  }

  static int fdatasync(int fd) {
    try {
      int result;
      do {
        result = negated((int) FDATASYNC.invokeExact(state(), fd));
      } while (result == -EINTR);
      return result;
    } catch (Throwable e) {
      throw unexpected(e);
    }
  }

  static int fsync(int fd) {
    try {
      int result;
      do {
        result = negated((int) FSYNC.invokeExact(state(), fd));
      } while (result == -EINTR);
      return result;
    } catch (Throwable e) {
      throw unexpected(e);
    }
  }

  /** The length in bytes of a file or block device, or an error. */
  static long length(int fd) {
    try {
      MemorySegment state = state();
      long result = (long) LSEEK.invokeExact(state, fd, 0L, SEEK_END);
      return result < 0 ? -(int) ERRNO.get(state, 0L) : result;
    } catch (Throwable e) {
      throw unexpected(e);
    }
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
    try {
      MemorySegment state = state();
      long result = (long) LSEEK.invokeExact(state, fd, at, whence);
      if (result >= 0) {
        return result;
      }
      int error = (int) ERRNO.get(state, 0L);
      return error == ENXIO ? pastEnd : -error;
    } catch (Throwable e) {
      throw unexpected(e);
    }
  }

  /** Starts reading the range into the page cache; a range of 0 bytes reaches to the end. */
  static int prefetch(int fd, long at, long bytes) {
    try {
      return -(int) Fadvise.CALL.invokeExact(fd, at, bytes, FADVISE_WILLNEED);
    } catch (Throwable e) {
      throw unexpected(e);
    }
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
      int result;
      try {
        result = negated((int) STATX.invokeExact(state(), fd, path, AT_EMPTY_PATH, mask, stat));
      } catch (Throwable e) {
        throw unexpected(e);
      }
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
      return negated((int) FCNTL.invokeExact(state(), fd, F_OFD_SETLK, flock));
    } catch (Throwable e) {
      throw unexpected(e);
    }
  }

  /**
   * 1 if another open file description has a lock that excludes this one, 0 if not, or an error.
   */
  static int excluded(int fd, short type, long first, long bytes) {
    try (Arena arena = Arena.ofConfined()) {
      MemorySegment flock = flock(arena, type, first, bytes);
      int result = negated((int) FCNTL.invokeExact(state(), fd, F_OFD_GETLK, flock));
      if (result < 0) {
        return result;
      }
      return flock.get(JAVA_SHORT, 0) == F_UNLCK ? 0 : 1;
    } catch (Throwable e) {
      throw unexpected(e);
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
    try {
      MemorySegment text = (MemorySegment) Strerror.CALL.invokeExact(errno);
      return text.reinterpret(256).getString(0);
    } catch (Throwable e) {
      throw unexpected(e);
    }
  }

  private static MemorySegment state() {
    return PER_THREAD.get().state;
  }

  private static int negated(int result) {
    return result == -1 ? -(int) ERRNO.get(state(), 0L) : result;
  }

  /**
   * Method handles declare Throwable; what they throw here is unchecked, such as a closed arena.
   */
  private static RuntimeException unexpected(Throwable e) {
    switch (e) {
      case Error error -> throw error;
      case RuntimeException unchecked -> throw unchecked;
      default -> throw new AssertionError(e);
    }
  }

  private static MethodHandle call(String name, ValueLayout result, ValueLayout... arguments) {
    return link(name, FunctionDescriptor.of(result, arguments), capture());
  }

  private static MethodHandle call(
      String name, ValueLayout result, List<ValueLayout> arguments, int firstVariadic) {
    return link(
        name,
        FunctionDescriptor.of(result, arguments.toArray(ValueLayout[]::new)),
        capture(),
        Linker.Option.firstVariadicArg(firstVariadic));
  }

  /** A call that not every C library has. */
  private static @Nullable MethodHandle callIfThere(
      String name, ValueLayout result, ValueLayout... arguments) {
    Linker linker = Linker.nativeLinker();
    return linker
        .defaultLookup()
        .find(name)
        .map(symbol ->
            linker.downcallHandle(symbol, FunctionDescriptor.of(result, arguments), capture()))
        .orElse(null);
  }

  private static MethodHandle plain(String name, FunctionDescriptor descriptor) {
    return link(name, descriptor);
  }

  private static Linker.Option capture() {
    return Linker.Option.captureCallState("errno");
  }

  private static MethodHandle link(
      String name, FunctionDescriptor descriptor, Linker.Option... options) {
    Linker linker = Linker.nativeLinker();
    SymbolLookup library = linker.defaultLookup();
    return linker.downcallHandle(library.findOrThrow(name), descriptor, options);
  }

  // Linking a call takes Java about 10 ms, so those that not every process makes wait for the
  // first.

  private static final class Preadv2 {
    static final @Nullable MethodHandle CALL =
        callIfThere("preadv2", JAVA_LONG, JAVA_INT, ADDRESS, JAVA_INT, JAVA_LONG, JAVA_INT);
  }

  private static final class Fallocate {
    static final MethodHandle CALL =
        call("fallocate", JAVA_INT, JAVA_INT, JAVA_INT, JAVA_LONG, JAVA_LONG);
  }

  private static final class Ftruncate {
    static final MethodHandle CALL = call("ftruncate", JAVA_INT, JAVA_INT, JAVA_LONG);
  }

  /** Does not report through errno. */
  private static final class Fadvise {
    static final MethodHandle CALL =
        plain(
            "posix_fadvise",
            FunctionDescriptor.of(JAVA_INT, JAVA_INT, JAVA_LONG, JAVA_LONG, JAVA_INT));
  }

  /** Does not report through errno. */
  private static final class Strerror {
    static final MethodHandle CALL = plain("strerror", FunctionDescriptor.of(ADDRESS, JAVA_INT));
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
